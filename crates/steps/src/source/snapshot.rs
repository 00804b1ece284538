//! What a source has besides the objects in its schema: its row in the mapping, and how far its chains have come. A backup of
//! one source keeps both, and a restore puts them back in the transaction that puts the schema back.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{PgError, Session};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::SourceError;
use super::name::declared;
use super::registry;
use crate::migrate;
use crate::topology::{Topology, ident, literal, table};

/// The one version of [`Snapshot`]'s format. A reader refuses every other.
const VERSION: u32 = 1;

/// Beside a backup of one source, as JSON. Fields may be added; an older reader ignores them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub version: u32,
    pub source_id: String,
    pub schema: String,
    /// The mapping table, `schema.table`.
    pub registry: String,
    /// The source's row in it, by column.
    pub row: Value,
    /// Its rows of `pgrunbook.migration`, in the order in which they were applied, without their numbers.
    pub history: Vec<Value>,
}

impl Snapshot {
    /// Reads it, in the session's present snapshot.
    ///
    /// # Errors
    /// [`SourceError::Unknown`]; if the server cannot be asked.
    pub async fn read(session: &Session, topology: &Topology, id: &str) -> Result<Self, SourceError> {
        let sources = declared(topology)?;
        let schema = registry::lookup(session, topology, id).await?;
        let row = format!(
            "SELECT pg_catalog.to_jsonb(s) FROM {} AS s WHERE s.source_id::pg_catalog.text = {}",
            table(&sources.registry),
            literal(id)
        );
        let row = serde_json::from_str(&session.value(&row).await?).unwrap_or(Value::Null);
        let history = serde_json::from_str(&history(session, topology, schema.as_str()).await?).unwrap_or_default();
        let registry = sources.registry.to_string();
        Ok(Self { version: VERSION, source_id: id.to_owned(), schema: schema.to_string(), registry, row, history })
    }

    /// Reads it from the text beside a backup.
    ///
    /// # Errors
    /// If it is none, or of another version.
    pub fn parse(text: &str) -> Result<Self, String> {
        let snapshot: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match snapshot.version {
            VERSION => Ok(snapshot),
            other => Err(format!("it has version {other}, and this program reads {VERSION}")),
        }
    }
}

/// The chains' histories in a schema, as a JSON array.
async fn history(session: &Session, topology: &Topology, schema: &str) -> Result<String, SourceError> {
    if session.value("SELECT pg_catalog.to_regclass('pgrunbook.migration') IS NOT NULL").await? != "t" {
        return Ok("[]".to_owned());
    }
    let asked = format!(
        "SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(m) - 'seq' ORDER BY m.seq), '[]')
         FROM pgrunbook.migration AS m WHERE m.chain IN ({})",
        chains(topology, schema)?
    );
    Ok(session.value(&asked).await?)
}

/// The names of a source's histories, as a list of literals that is never empty.
fn chains(topology: &Topology, schema: &str) -> Result<String, SourceError> {
    let folders = declared(topology)?.chains.iter();
    let names: Vec<String> = folders.map(|folder| literal(&migrate::chain_in(folder, schema))).collect();
    Ok(if names.is_empty() { "NULL".to_owned() } else { names.join(", ") })
}

/// Where a schema goes that another takes the place of, and who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange<'a> {
    pub run: &'a str,
    /// The step with its direction: forward and back are two.
    pub step: &'a str,
    /// The name under which the present schema is kept.
    pub kept: &'a str,
}

/// One row for each exchange, written in its transaction: whether it happened, and what takes it back.
const EXCHANGED: &str = "CREATE TABLE IF NOT EXISTS pgrunbook.source_exchange (
    run text NOT NULL, step text NOT NULL, source_id text NOT NULL, schema_name text NOT NULL,
    kept text, made_row boolean NOT NULL, history jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (run, step))";

/// The statements before the schema comes back: the present one goes out of the way. All of it is one transaction with what
/// makes the schema and with [`after`]; where one fails, nothing has happened.
///
/// # Errors
/// [`SourceError::Undeclared`].
pub fn before(topology: &Topology, snapshot: &Snapshot, exchange: &Exchange<'_>) -> Result<String, SourceError> {
    let sources = declared(topology)?;
    let (schema, kept) = (literal(&snapshot.schema), literal(exchange.kept));
    let mapping = literal(&table(&sources.registry));
    let chains = chains(topology, &snapshot.schema)?;
    Ok(format!(
        "{EXCHANGED};
DO $exchange$
DECLARE
    other text;
    there boolean := pg_catalog.to_regnamespace(pg_catalog.quote_ident({schema})) IS NOT NULL;
    mapped boolean := false;
    done jsonb := '[]';
BEGIN
    IF pg_catalog.to_regclass({mapping}) IS NOT NULL THEN
        EXECUTE 'SELECT s.schema_name::pg_catalog.text FROM ' || {mapping} || ' AS s WHERE s.source_id::pg_catalog.text = $1'
            INTO other USING {id};
        mapped := other IS NOT NULL;
        IF other <> {schema} THEN
            RAISE EXCEPTION 'the source % has the schema % now, and the backup is of %', {id}, other, {schema};
        END IF;
        EXECUTE 'SELECT s.source_id::pg_catalog.text FROM ' || {mapping} || ' AS s
                 WHERE s.schema_name::pg_catalog.text = $1 AND s.source_id::pg_catalog.text <> $2'
            INTO other USING {schema}, {id};
        IF other IS NOT NULL THEN
            RAISE EXCEPTION 'the schema % is the source %''s now', {schema}, other;
        END IF;
    END IF;
    IF pg_catalog.to_regclass('pgrunbook.migration') IS NOT NULL THEN
        EXECUTE 'SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(m) - ''seq'' ORDER BY m.seq), ''[]'')
                 FROM pgrunbook.migration AS m WHERE m.chain = ANY ($1)' INTO done USING ARRAY[{chains}]::text[];
    END IF;
    IF there THEN
        EXECUTE pg_catalog.format('ALTER SCHEMA %I RENAME TO %I', {schema}, {kept});
    END IF;
    INSERT INTO pgrunbook.source_exchange (run, step, source_id, schema_name, kept, made_row, history)
    VALUES ({run}, {step}, {id}, {schema}, CASE WHEN there THEN {kept} END, NOT mapped, done);
END
$exchange$;
",
        id = literal(&snapshot.source_id),
        run = literal(exchange.run),
        step = literal(exchange.step),
    ))
}

/// The statements after the schema came back: the mapping has its row if it had lost it, and the histories are the backup's.
///
/// # Errors
/// [`SourceError::Undeclared`].
pub fn after(topology: &Topology, snapshot: &Snapshot) -> Result<String, SourceError> {
    let sources = declared(topology)?;
    let name = table(&sources.registry);
    let (row, id) = (literal(&snapshot.row.to_string()), literal(&snapshot.source_id));
    let mut script = format!(
        "SET LOCAL ROLE {owner};
DO $mapping$
DECLARE
    columns text;
BEGIN
    SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO columns
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = pg_catalog.to_regclass({mapping}) AND a.attnum > 0 AND NOT a.attisdropped
      AND a.attgenerated = '' AND a.attidentity <> 'a' AND {row}::pg_catalog.jsonb ? a.attname;
    EXECUTE pg_catalog.format('INSERT INTO {name} (%1$s) SELECT %1$s FROM pg_catalog.jsonb_populate_record(NULL::{name}, $1)
        WHERE NOT EXISTS (SELECT FROM {name} AS s WHERE s.source_id::pg_catalog.text = $2)', columns)
        USING {row}::pg_catalog.jsonb, {id};
END
$mapping$;
RESET ROLE;
",
        owner = ident(&topology.owner),
        mapping = literal(&name),
    );
    script.push_str(&histories(topology, &snapshot.schema, &Value::from(snapshot.history.clone()).to_string())?);
    Ok(script)
}

/// Puts other histories of a source's chains in place of those that are there.
fn histories(topology: &Topology, schema: &str, history: &str) -> Result<String, SourceError> {
    Ok(format!(
        "DO $history$
DECLARE
    columns text;
BEGIN
    IF pg_catalog.to_regclass('pgrunbook.migration') IS NULL THEN
        RETURN;
    END IF;
    SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO columns
    FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = 'pgrunbook.migration'::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'seq';
    DELETE FROM pgrunbook.migration WHERE chain = ANY (ARRAY[{chains}]::text[]);
    EXECUTE pg_catalog.format('INSERT INTO pgrunbook.migration (%1$s) SELECT %1$s
        FROM pg_catalog.jsonb_populate_recordset(NULL::pgrunbook.migration, $1)', columns) USING {history}::pg_catalog.jsonb;
END
$history$;
",
        chains = chains(topology, schema)?,
        history = literal(history),
    ))
}

/// What an exchange did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchanged {
    pub source_id: String,
    pub schema: String,
    /// None where there was no schema before.
    pub kept: Option<String>,
    /// Whether the mapping had lost the source, and got it back.
    pub made_row: bool,
}

/// Whether an exchange happened, and what it did.
///
/// # Errors
/// If the server cannot be asked.
pub async fn exchanged(session: &Session, run: &str, step: &str) -> Result<Option<Exchanged>, PgError> {
    if session.value("SELECT pg_catalog.to_regclass('pgrunbook.source_exchange') IS NOT NULL").await? != "t" {
        return Ok(None);
    }
    let answers = session
        .simple(&format!(
            "SELECT source_id, schema_name, kept, made_row FROM pgrunbook.source_exchange WHERE run = {} AND step = {}",
            literal(run),
            literal(step)
        ))
        .await?;
    let row = answers.last().and_then(|answer| answer.rows.first());
    Ok(row.map(|row| {
        let cell = |at: usize| row.get(at).cloned().flatten();
        Exchanged {
            source_id: cell(0).unwrap_or_default(),
            schema: cell(1).unwrap_or_default(),
            kept: cell(2),
            made_row: cell(3).as_deref() == Some("t"),
        }
    }))
}

/// Takes an exchange back, in one transaction: the schema as it was has its name again, and the one that took its place goes
/// by `away`. `assert` is run first.
///
/// # Errors
/// If the server refuses: then nothing has happened.
pub async fn take_back(
    session: &Session,
    topology: &Topology,
    run: &str,
    step: &str,
    away: &str,
    assert: &str,
) -> Result<Option<Exchanged>, StepError> {
    let Some(done) = exchanged(session, run, step).await.map_err(PgError::into_step_error)? else { return Ok(None) };
    let sources = declared(topology)?;
    let row = format!("run = {} AND step = {}", literal(run), literal(step));
    let history = session
        .value(&format!("SELECT history FROM pgrunbook.source_exchange WHERE {row}"))
        .await
        .map_err(PgError::into_step_error)?;
    let schema = ident(&done.schema);
    let mut script = format!("BEGIN; SET LOCAL lock_timeout = '10s'; {assert};\n");
    script.push_str(&format!("ALTER SCHEMA {schema} RENAME TO {};\n", ident(away)));
    if let Some(kept) = &done.kept {
        script.push_str(&format!("ALTER SCHEMA {} RENAME TO {schema};\n", ident(kept)));
    }
    script.push_str(&histories(topology, &done.schema, &history)?);
    if done.made_row {
        script.push_str(&format!(
            "SET LOCAL ROLE {}; DELETE FROM {} AS s WHERE s.source_id::pg_catalog.text = {}; RESET ROLE;\n",
            ident(&topology.owner),
            table(&sources.registry),
            literal(&done.source_id)
        ));
    }
    script.push_str(&format!("DELETE FROM pgrunbook.source_exchange WHERE {row}; COMMIT"));
    if let Err(error) = session.execute(&script).await {
        if !session.is_closed() {
            let _ = session.execute("ROLLBACK").await;
        }
        return Err(error.into_step_error());
    }
    Ok(Some(done))
}
