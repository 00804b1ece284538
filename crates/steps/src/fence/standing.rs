//! What a database knows of its fences: the table `pgrunbook.fence`, and the triggers themselves.

use pgrunbook_postgres::{Lsn, PgError, Session, ledger};

use super::error::FenceError;
use super::table::{Found, Table};
use crate::topology::literal;

/// The statement trigger on every table. Triggers fire in the order of their names.
pub(super) const TRIGGER: &str = "pgrunbook_fence";

/// The row trigger on tables into which an unfenced parent leads rows.
pub(super) const ROW_TRIGGER: &str = "pgrunbook_fence_row";

/// The names of a fence's triggers.
pub const TRIGGER_NAMES: [&str; 2] = [TRIGGER, ROW_TRIGGER];

/// `tgtype`: BEFORE, for each statement, INSERT, DELETE, UPDATE and TRUNCATE.
/// See `src/include/catalog/pg_trigger.h` of PostgreSQL.
const STATEMENT_TYPE: i32 = 2 + 4 + 8 + 16 + 32;

/// `tgtype`: BEFORE, for each row, INSERT, DELETE and UPDATE.
const ROW_TYPE: i32 = 1 + 2 + 4 + 8 + 16;

/// The message is data and never a format; `{table}` in it stands for the table's name.
const INSTALL: &str = r"
CREATE TABLE IF NOT EXISTS pgrunbook.fence (
    id text PRIMARY KEY,
    schema text NOT NULL,
    state text NOT NULL CHECK (state IN ('fenced', 'lifted')),
    kind text NOT NULL CHECK (kind IN ('triggers', 'privileges')),
    message text NOT NULL,
    tables text[] NOT NULL,
    whole boolean NOT NULL,
    run text,
    operator text NOT NULL,
    since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    marker pg_lsn NOT NULL,
    xid text NOT NULL DEFAULT pg_catalog.pg_current_xact_id()::text,
    undo text[] NOT NULL DEFAULT '{}',
    lifted_at timestamptz,
    lifted_by text
);
CREATE UNIQUE INDEX IF NOT EXISTS fence_of_schema ON pgrunbook.fence (schema) WHERE state = 'fenced';
CREATE OR REPLACE FUNCTION pgrunbook.refuse_write() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = replace(TG_ARGV[0], '{table}', TG_TABLE_NAME),
        SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
END $$;
COMMENT ON TABLE pgrunbook.fence IS 'Schemas whose tables refuse writes, by which run, since when.'";

const INSTALLED: &str = "SELECT pg_catalog.to_regclass('pgrunbook.fence') IS NOT NULL
    AND pg_catalog.to_regprocedure('pgrunbook.refuse_write()') IS NOT NULL";

/// Makes the fence's table and function, unless they are there.
///
/// # Errors
/// [`FenceError::NoRecord`] if the role may not.
pub async fn install(session: &Session) -> Result<(), FenceError> {
    ledger::install_beside(session, INSTALLED, INSTALL).await.map_err(|error| match error.sqlstate() {
        Some("42501") => FenceError::NoRecord { role: session.options().user.clone(), source: error },
        _ => error.into(),
    })
}

/// A fence that stands, as it was recorded when it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub id: String,
    pub schema: String,
    /// By privileges, which is weaker than by triggers.
    pub weak: bool,
    pub message: String,
    /// As SQL names them.
    pub tables: Vec<String>,
    /// All tables of the schema, so that one that came later is a hole.
    pub whole: bool,
    pub run: Option<String>,
    pub operator: String,
    /// The server's time, ISO 8601.
    pub since: String,
    /// Where the marker stands in the WAL.
    pub marker: Lsn,
    /// The transaction that set it (`xid8`).
    pub xid: u64,
}

/// Whether a schema is fenced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Unfenced,
    Fenced(Box<Held>),
    /// Recorded and not whole, or triggers without a record; and what is wrong. [`super::unfence`] repairs it.
    Broken {
        held: Option<Box<Held>>,
        why: Vec<String>,
    },
}

const HELD: &str = "SELECT f.id, f.schema, f.kind, f.message, pg_catalog.array_to_string(f.tables, pg_catalog.chr(1)), f.run,
       f.operator, pg_catalog.to_char(f.since AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), f.marker::text, f.xid, f.whole
FROM pgrunbook.fence AS f";

/// All fences that stand in this database, by schema.
///
/// # Errors
/// If the database cannot be asked.
pub async fn list(session: &Session) -> Result<Vec<Held>, PgError> {
    read(session, "f.state = 'fenced'").await
}

/// The recorded fence of a schema.
pub(super) async fn held(session: &Session, schema: &str) -> Result<Option<Held>, PgError> {
    let found = read(session, &format!("f.state = 'fenced' AND f.schema = {}", literal(schema))).await?;
    Ok(found.into_iter().next())
}

async fn read(session: &Session, filter: &str) -> Result<Vec<Held>, PgError> {
    if session.value("SELECT pg_catalog.to_regclass('pgrunbook.fence') IS NOT NULL").await? != "t" {
        return Ok(Vec::new());
    }
    let answers = session.simple(&format!("{HELD} WHERE {filter} ORDER BY f.schema")).await?;
    let rows = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    Ok(rows
        .into_iter()
        .map(|row| {
            let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
            Held {
                id: text(0),
                schema: text(1),
                weak: text(2) == "privileges",
                message: text(3),
                tables: text(4).split('\u{1}').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
                whole: text(10) == "t",
                run: row.get(5).cloned().flatten(),
                operator: text(6),
                since: text(7),
                marker: text(8).parse().unwrap_or_default(),
                xid: text(9).parse().unwrap_or_default(),
            }
        })
        .collect())
}

/// Whether the transaction of the fence `id` was committed.
pub(super) async fn is_committed(session: &Session, id: &str) -> Result<bool, PgError> {
    if session.value("SELECT pg_catalog.to_regclass('pgrunbook.fence') IS NOT NULL").await? != "t" {
        return Ok(false);
    }
    let found =
        session.value(&format!("SELECT count(*) FROM pgrunbook.fence AS f WHERE f.id = {}", literal(id))).await?;
    Ok(found == "1")
}

/// A trigger of a fence, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trigger {
    pub table: u32,
    pub name: String,
    /// Fires for the origin, unconditionally, for all that it must.
    pub whole: bool,
    pub disabled: bool,
}

/// Every trigger that calls the refusing function. `tgparentid`: clones on partitions are not ours to count (none are made).
const TRIGGERS: &str =
    "SELECT t.tgrelid::pg_catalog.int8, t.tgname, t.tgtype::pg_catalog.int4, t.tgenabled::text, t.tgqual IS NULL
FROM pg_catalog.pg_trigger AS t
WHERE t.tgfoid = pg_catalog.to_regprocedure('pgrunbook.refuse_write()')::oid AND NOT t.tgisinternal";

pub(super) async fn triggers(session: &Session) -> Result<Vec<Trigger>, PgError> {
    let answers = session.simple(TRIGGERS).await?;
    let rows = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    Ok(rows
        .into_iter()
        .map(|row| {
            let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
            let wanted = if text(1) == ROW_TRIGGER { ROW_TYPE } else { STATEMENT_TYPE };
            Trigger {
                table: text(0).parse().unwrap_or_default(),
                whole: text(2) == wanted.to_string() && matches!(text(3).as_str(), "O" | "A") && text(4) == "t",
                disabled: text(3) == "D",
                name: text(1),
            }
        })
        .collect())
}

/// What a table lacks of its fence, if anything.
pub(super) fn lacks(table: &Table, triggers: &[Trigger]) -> Option<String> {
    let mut wanted = vec![TRIGGER];
    if table.led_from_outside && !table.partitioned {
        wanted.push(ROW_TRIGGER);
    }
    let missing = wanted
        .into_iter()
        .find(|name| !triggers.iter().any(|one| one.table == table.oid && one.name == *name && one.whole))?;
    Some(format!("{} has no working trigger {missing}", table.sql()))
}

/// Whether the tables of a schema refuse writes.
///
/// # Errors
/// If the database cannot be asked.
pub async fn state(session: &Session, schema: &str) -> Result<Standing, PgError> {
    let held = held(session, schema).await?;
    let triggers = triggers(session).await?;
    let found: Found = super::table::tables(session, schema, &[]).await?;
    let Some(held) = held else {
        let why: Vec<String> = found
            .tables
            .iter()
            .filter(|table| triggers.iter().any(|one| one.table == table.oid && !one.disabled))
            .map(|table| format!("{} refuses writes, and no fence is recorded", table.sql()))
            .collect();
        return Ok(if why.is_empty() { Standing::Unfenced } else { Standing::Broken { held: None, why } });
    };
    if held.weak {
        return Ok(Standing::Fenced(Box::new(held)));
    }
    // A table that came later has no trigger: it is as open as one whose trigger was dropped. One of a fence of chosen
    // tables only is not looked at.
    let why: Vec<String> = found
        .tables
        .iter()
        .filter(|table| held.whole || held.tables.contains(&table.sql()))
        .filter_map(|table| lacks(table, &triggers))
        .collect();
    Ok(match why.is_empty() {
        true => Standing::Fenced(Box::new(held)),
        false => Standing::Broken { held: Some(Box::new(held)), why },
    })
}
