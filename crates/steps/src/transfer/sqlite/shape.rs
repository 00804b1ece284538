//! What is recorded of a file that moves: how each value travels, and what both sides declared when it began.
//!
//! The mapping is decided once, from what the file held then; load, follow, parity and write-back read it here.

use std::collections::BTreeMap;
use std::path::Path;

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{PgError, Session, quote};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::catalog::{collect, is_ours};
use super::error::SqliteError;
use super::kind::{Kind, Width};
use super::notes::Trail;
use super::open::quoted;
use super::preflight::Preflight;
use crate::transfer::state::{self, text};

/// How a file's rows travel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// The file keeps its texts as UTF-16.
    pub utf16: bool,
    pub tables: Vec<Carried>,
    /// What the file declares, by `table items`: another text is a changed schema.
    pub declared: BTreeMap<String, String>,
    /// Triggers of the file that write to tables that travel, by name: the target has done what they would do.
    pub repeats: BTreeMap<String, String>,
}

/// One table that travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// Here and there.
    pub name: String,
    /// The columns that travel, in order.
    pub columns: Vec<Travels>,
    /// Positions in `columns` of the file's primary key; empty where it has none, or not all of it travels.
    pub key: Vec<usize>,
    /// The name by which the rowid can be asked for.
    pub rowid: Option<String>,
    /// The column that counts by itself: `INTEGER PRIMARY KEY`.
    pub numbered: Option<String>,
    pub autoincrement: bool,
    /// The target's columns and their types, as they were when it began: others are a changed schema.
    #[serde(default)]
    pub target: Vec<(String, u32)>,
    /// What they were then, where others were accepted since: what is in those has no place in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Vec<(String, u32)>>,
}

/// One column that travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Travels {
    pub name: String,
    pub kind: Kind,
}

impl Shape {
    /// Of a file that was looked at.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of(looked: &Preflight, connection: &Connection, path: &Path) -> Result<Self, SqliteError> {
        let catalog = &looked.profile.catalog;
        let mut tables = Vec::new();
        for map in &looked.mapping.tables {
            let source = &catalog.tables[map.source];
            let columns: Vec<_> = map.copied().collect();
            let at = |column: &usize| columns.iter().position(|one| one.source == *column);
            let key: Option<Vec<usize>> = source.key.iter().map(at).collect();
            let numbered = source.rowid_alias.and_then(|column| at(&column)).map(|at| columns[at].name.clone());
            tables.push(Carried {
                name: map.name.clone(),
                columns: columns.iter().map(|one| Travels { name: one.name.clone(), kind: one.kind }).collect(),
                key: key.unwrap_or_default(),
                rowid: source.rowid.map(str::to_owned),
                numbered,
                autoincrement: source.autoincrement,
                target: Vec::new(),
                first: None,
            });
        }
        let mut repeats = BTreeMap::new();
        let sql = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND sql IS NOT NULL";
        let triggers: Vec<(String, String)> = collect(connection, path, sql, |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (name, sql) in triggers.into_iter().filter(|(name, _)| !is_ours(name)) {
            let writes = |table: &String| tables.iter().any(|carried| carried.name.eq_ignore_ascii_case(table));
            if written(&sql).iter().any(writes) {
                repeats.insert(name, sql);
            }
        }
        let declared = declared(connection, path)?;
        Ok(Self { utf16: catalog.encoding != "UTF-8", tables, declared, repeats })
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&Carried> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Tables whose columns in the target were accepted as others than they were when it began.
    pub fn outgrown(&self) -> Vec<&str> {
        self.tables.iter().filter(|table| table.first.is_some()).map(|table| table.name.as_str()).collect()
    }

    /// How the file's declarations differ from those that it had; empty if they do not.
    pub fn differences(&self, now: &BTreeMap<String, String>) -> Vec<String> {
        let mut found = Vec::new();
        for (what, sql) in &self.declared {
            match now.get(what) {
                None => found.push(format!("{what} is gone")),
                Some(other) if other != sql => found.push(format!("{what} is another: {other}")),
                Some(_) => {}
            }
        }
        found.extend(now.keys().filter(|what| !self.declared.contains_key(*what)).map(|what| format!("{what} is new")));
        found
    }
}

impl Carried {
    /// `"id", "title"`, as SQLite and PostgreSQL both quote.
    pub fn list(&self) -> String {
        self.columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
    }

    /// The table in PostgreSQL.
    pub fn place(&self, schema: &str) -> String {
        [schema, &self.name].map(|name| quote::ident(name).unwrap_or_default()).join(".")
    }

    /// The target's columns as they were when it began.
    pub fn began(&self) -> &[(String, u32)] {
        self.first.as_deref().unwrap_or(&self.target)
    }

    /// The SELECT of its rows in the file.
    pub fn select(&self) -> String {
        format!("SELECT {} FROM main.{}", self.list(), quoted(&self.name))
    }

    /// Whether the target spells values in its own way.
    pub fn has_jsonb(&self) -> bool {
        self.columns.iter().any(|column| column.kind == Kind::Jsonb)
    }
}

/// What the file declares now, without what is ours.
///
/// # Errors
/// If it cannot be read.
pub fn declared(connection: &Connection, path: &Path) -> Result<BTreeMap<String, String>, SqliteError> {
    let sql = "SELECT type, name, coalesce(sql, '') FROM sqlite_master";
    let all: Vec<(String, String, String)> =
        collect(connection, path, sql, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let is_theirs = |name: &str| !is_ours(name) && !name.to_ascii_lowercase().starts_with("sqlite_");
    let theirs = all.into_iter().filter(|(_, name, _)| is_theirs(name));
    Ok(theirs.map(|(kind, name, sql)| (format!("{kind} {name}"), sql)).collect())
}

/// The tables that a trigger's statements write to.
fn written(sql: &str) -> Vec<String> {
    let tokens = super::lex::tokens(sql);
    let body = tokens.iter().position(|token| token.is("BEGIN")).unwrap_or(tokens.len());
    let mut names = Vec::new();
    for (at, token) in tokens.iter().enumerate().skip(body + 1) {
        let before = |back: usize| at.checked_sub(back).and_then(|at| tokens.get(at));
        let is_update = token.is("UPDATE") && before(1).is_none_or(|before| !before.is("DO"));
        let mut next = at + 1;
        if is_update && tokens.get(next).is_some_and(|token| token.is("OR")) {
            next += 2;
        }
        let is_from = token.is("FROM") && before(1).is_some_and(|before| before.is("DELETE"));
        if (is_update || is_from || token.is("INTO"))
            && let Some(name) = tokens.get(next).and_then(|token| token.name())
        {
            names.push(name.to_owned());
        }
    }
    names
}

const INSTALL: &str = r"
CREATE TABLE IF NOT EXISTS pgrunbook.transfer_file (
    schema text PRIMARY KEY,
    path text NOT NULL,
    shape jsonb NOT NULL,
    rows bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    syncs bigint NOT NULL DEFAULT 0,
    changes bigint NOT NULL DEFAULT 0,
    synced_at timestamptz,
    noted jsonb
);
ALTER TABLE pgrunbook.transfer_file ADD COLUMN IF NOT EXISTS noted jsonb;
COMMENT ON TABLE pgrunbook.transfer_file IS 'Transfers from SQLite files: how values travel, and how far the target is'";

/// With the column that came last.
const INSTALLED: &str = "SELECT count(*) = 1 FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass('pgrunbook.transfer_file') AND attname = 'noted' AND NOT attisdropped";

/// Makes the record's table, unless it is there.
///
/// # Errors
/// If the role may not.
pub async fn install(session: &Session) -> Result<(), PgError> {
    pgrunbook_postgres::ledger::install_beside(session, INSTALLED, INSTALL).await
}

/// Records the shape of a transfer.
///
/// # Errors
/// If the server refuses.
pub async fn record(session: &Session, schema: &str, path: &Path, shape: &Shape) -> Result<(), PgError> {
    let json = serde_json::to_string(shape).map_err(|error| PgError::Client(error.to_string()))?;
    let sql = format!(
        "INSERT INTO pgrunbook.transfer_file (schema, path, shape) VALUES ({}, {}, {json})
         ON CONFLICT (schema) DO UPDATE SET path = excluded.path, shape = excluded.shape",
        text(schema),
        text(&path.display().to_string()),
        json = text(&json),
    );
    state::write(session, &sql).await
}

/// The shape of a recorded transfer.
///
/// # Errors
/// If it is not there, or a newer version wrote it.
pub async fn recorded(session: &Session, schema: &str) -> Result<Shape, StepError> {
    let sql = format!("SELECT shape::text FROM pgrunbook.transfer_file WHERE schema = {}", text(schema));
    let json = session.value(&sql).await.map_err(PgError::into_step_error)?;
    serde_json::from_str(&json).map_err(|error| {
        StepError::failed("transfer", format!("the record of {schema}'s file cannot be read: {error}"))
    })
}

/// How far the noted keys of a file are shipped; nothing where that is not known.
///
/// # Errors
/// If the target cannot be asked.
pub async fn trail(session: &Session, schema: &str) -> Result<Option<Trail>, StepError> {
    install(session).await.map_err(PgError::into_step_error)?;
    let sql = format!("SELECT coalesce(noted::text, '') FROM pgrunbook.transfer_file WHERE schema = {}", text(schema));
    let json = session.value(&sql).await.map_err(PgError::into_step_error)?;
    // What a newer version wrote is a doubt, and a doubt is settled by reading all rows.
    Ok(serde_json::from_str(&json).ok())
}

/// The statement that records it.
pub fn trail_sql(schema: &str, trail: Option<&Trail>) -> String {
    let json = trail.map(|trail| serde_json::to_string(trail).expect("texts and numbers"));
    let json = json.map_or_else(|| "NULL".to_owned(), |json| text(&json));
    format!("UPDATE pgrunbook.transfer_file SET noted = {json} WHERE schema = {}", text(schema))
}

const COLUMNS: &str = "
SELECT a.attname, a.atttypid
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum";

/// A table's columns in the target as they are now.
///
/// # Errors
/// If it cannot be asked.
pub async fn target_columns(session: &Session, schema: &str, table: &str) -> Result<Vec<(String, u32)>, PgError> {
    let rows = session.client().query(COLUMNS, &[&schema, &table]).await.map_err(|error| session.error(&error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Sees to it that the target's tables are declared as they were when it began: what is new there has no place in the file.
///
/// # Errors
/// With the code `lossy`, if one is not; if the target cannot be asked.
pub async fn unchanged(session: &Session, schema: &str, shape: &Shape) -> Result<(), StepError> {
    for table in &shape.tables {
        let now = target_columns(session, schema, &table.name).await.map_err(PgError::into_step_error)?;
        if now != table.began() {
            return Err(StepError::failed(
                "lossy",
                format!(
                    "table {} of {schema} has other columns than when it was cut over: going back would lose what is in them. \
                     Nothing was changed.",
                    table.name
                ),
            )
            .help("bring the columns back to what they were, then go back"));
        }
    }
    Ok(())
}

/// Notes the target's columns; of tables that were there before, whole numbers take the width that they have there.
///
/// # Errors
/// If the target cannot be asked.
pub async fn note_target(session: &Session, schema: &str, shape: &mut Shape) -> Result<(), PgError> {
    for table in &mut shape.tables {
        table.target = target_columns(session, schema, &table.name).await?;
        for column in &mut table.columns {
            let oid = table.target.iter().find(|(name, _)| *name == column.name).map(|(_, oid)| *oid);
            if let (Kind::Integer(_), Some(oid)) = (column.kind, oid) {
                column.kind = Kind::Integer(match oid {
                    21 => Width::Two,
                    23 => Width::Four,
                    _ => Width::Eight,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::written;

    #[test]
    fn a_trigger_says_what_it_writes_to() {
        let names = |sql: &str| written(sql).join(" ");
        assert_eq!(
            names(
                "CREATE TRIGGER t AFTER UPDATE ON items WHEN new.a > 1 BEGIN UPDATE OR IGNORE \"a b\" SET x = 1;
                 INSERT INTO [log] SELECT a FROM items; DELETE FROM main_things WHERE 1; REPLACE INTO r VALUES (1); END"
            ),
            "a b log main_things r"
        );
    }
}
