//! The history of chains in the target: schema `pgrunbook`, tables `migration` and `migration_runner`.
//!
//! A migration's row is written in the migration's own transaction, and first in it: nothing the file sets (a role, a
//! `search_path`) can stand in its way, and a second runner that tries the same version waits for this one's end. The
//! row can only be written by whoever holds the chain: its `runner` is read from `migration_runner` in the same
//! statement, and null is refused.

use jiff::Timestamp;
use pgrunbook_document::sql::quote;
use pgrunbook_engine::StepError;
use pgrunbook_postgres::{Answer, PgError, Session};

use super::standing::{Row, RowState};

/// Content above this size is not kept in the history; an edit of it is found by its digest, and shown without a diff.
const KEPT_BYTES: usize = 256 * 1024;

/// Version 1. Columns may be added; a newer one is read by an older program, which ignores it.
const SCHEMA: &str = "
CREATE SCHEMA IF NOT EXISTS pgrunbook;
CREATE TABLE IF NOT EXISTS pgrunbook.migration (
    seq             bigint      GENERATED ALWAYS AS IDENTITY,
    chain           text        NOT NULL,
    version         text        NOT NULL,
    repeatable      boolean     NOT NULL DEFAULT false,
    name            text        NOT NULL,
    sha256          text,
    content         text,
    state           text        NOT NULL CHECK (state IN ('applied', 'running', 'reverting')),
    mode            text        NOT NULL,
    statements_done integer     NOT NULL DEFAULT 0,
    origin          text        NOT NULL,
    runner          text        NOT NULL,
    operator        text        NOT NULL,
    run             text,
    step            text,
    applied_by      text        NOT NULL DEFAULT session_user,
    applied_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    duration_ms     bigint,
    verified_at     timestamptz,
    PRIMARY KEY (chain, repeatable, version)
);
CREATE TABLE IF NOT EXISTS pgrunbook.migration_runner (
    chain         text        PRIMARY KEY,
    token         text        NOT NULL,
    operator      text        NOT NULL,
    run           text,
    since         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    heartbeat_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    backend_pid   integer     NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    backend_start timestamptz
);
";

/// `hashtext('pgrunbook')`, as good as any number: who creates the schema first.
const CREATION_LOCK: i64 = 1_885_823_592;

/// A row and what the decisions do not need.
#[derive(Debug, Clone)]
pub struct Kept {
    pub row: Row,
    /// The step of `row.run` that applied it.
    pub step: Option<String>,
    pub verified: bool,
}

/// What a row to be written says beside its script.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub chain: &'a str,
    pub version: &'a str,
    pub repeatable: bool,
    pub name: &'a str,
    pub sha256: Option<&'a str>,
    pub content: Option<&'a str>,
    pub mode: &'a str,
    pub origin: &'a str,
    pub operator: &'a str,
    /// The run and its step.
    pub run: Option<(&'a str, &'a str)>,
}

/// Reads a chain's rows, in order of their writing. A target without the tables has none.
pub async fn read(session: &Session, chain: &str) -> Result<Vec<Kept>, PgError> {
    let query = format!(
        "SELECT version, name, repeatable, sha256, state, mode, statements_done, run, step, applied_by,
                pg_catalog.to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
                duration_ms, origin, seq, verified_at IS NOT NULL
         FROM pgrunbook.migration WHERE chain = {} ORDER BY seq",
        literal(chain)
    );
    match session.simple(&query).await {
        Ok(answers) => {
            Ok(answers.last().map(|answer| answer.rows.iter().filter_map(|r| kept(r)).collect()).unwrap_or_default())
        }
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether the tables are not there yet: `undefined_table`, `invalid_schema_name`.
pub fn is_missing(error: &PgError) -> bool {
    matches!(error.sqlstate(), Some("42P01" | "3F000"))
}

fn kept(row: &[Option<String>]) -> Option<Kept> {
    let text = |at: usize| row.get(at).cloned().flatten();
    let state = match text(4)?.as_str() {
        "running" => RowState::Running,
        "reverting" => RowState::Reverting,
        _ => RowState::Applied,
    };
    Some(Kept {
        row: Row {
            version: text(0)?,
            name: text(1)?,
            repeatable: text(2)? == "t",
            sha256: text(3),
            state,
            mode: text(5)?,
            statements_done: text(6)?.parse().ok()?,
            run: text(7),
            applied_by: text(9)?,
            applied_at: text(10)?.parse::<Timestamp>().ok()?,
            duration_ms: text(11).and_then(|ms| ms.parse().ok()),
            origin: text(12)?,
            seq: text(13)?.parse().ok()?,
        },
        step: text(8),
        verified: text(14)? == "t",
    })
}

/// The content that the history kept of a version.
pub async fn content(session: &Session, chain: &str, version: &str) -> Result<Option<String>, PgError> {
    let query = format!(
        "SELECT content FROM pgrunbook.migration WHERE chain = {} AND version = {} AND NOT repeatable",
        literal(chain),
        literal(version)
    );
    let answers = session.simple(&query).await?;
    Ok(answers.last().and_then(first).flatten())
}

fn first(answer: &Answer) -> Option<Option<String>> {
    answer.rows.first()?.first().cloned()
}

/// Makes the tables where they are not there.
pub async fn create(session: &Session) -> Result<(), StepError> {
    let there = "SELECT to_regclass('pgrunbook.migration') IS NOT NULL
                 AND to_regclass('pgrunbook.migration_runner') IS NOT NULL";
    if session.value(there).await.map_err(PgError::into_step_error)? == "t" {
        return Ok(());
    }
    let text = format!(
        "BEGIN; SET LOCAL client_min_messages = warning; SELECT pg_catalog.pg_advisory_xact_lock({CREATION_LOCK});
         {SCHEMA} COMMIT"
    );
    if let Err(error) = session.execute(&text).await {
        // Not in a transaction any more, whatever the answer.
        let _ = session.execute("ROLLBACK").await;
        let help = "GRANT CREATE ON DATABASE to the role, or let somebody create the schema `pgrunbook` for it";
        let denied = error.sqlstate() == Some("42501");
        let error = error.into_step_error();
        return Err(if denied { error.help(help) } else { error });
    }
    Ok(())
}

/// The statement that writes an applied row, if the chain is still held by `token`.
pub fn insert(entry: &Entry<'_>, token: &str, state: RowState) -> String {
    let optional = |text: Option<&str>| text.map_or("NULL".to_owned(), literal);
    let content = entry.content.filter(|content| content.len() <= KEPT_BYTES);
    format!(
        "WITH mine AS (UPDATE pgrunbook.migration_runner SET heartbeat_at = pg_catalog.clock_timestamp()
         WHERE chain = {chain} AND token = {token} RETURNING token)
         INSERT INTO pgrunbook.migration AS m (chain, version, repeatable, name, sha256, content, state, mode, origin,
         operator, run, step, runner)
         VALUES ({chain}, {version}, {repeatable}, {name}, {sha256}, {content}, '{state}', {mode}, {origin}, {operator},
         {run}, {step}, (SELECT token FROM mine)){conflict};\n",
        chain = literal(entry.chain),
        token = literal(token),
        version = literal(entry.version),
        repeatable = entry.repeatable,
        name = literal(entry.name),
        sha256 = optional(entry.sha256),
        content = optional(content),
        state = state.as_str(),
        mode = literal(entry.mode),
        origin = literal(entry.origin),
        operator = literal(entry.operator),
        run = optional(entry.run.map(|(run, _)| run)),
        step = optional(entry.run.map(|(_, step)| step)),
        conflict = if entry.repeatable {
            " ON CONFLICT (chain, repeatable, version) DO UPDATE SET name = excluded.name, sha256 = excluded.sha256,
             content = excluded.content, state = excluded.state, mode = excluded.mode, operator = excluded.operator,
             run = excluded.run, step = excluded.step, runner = excluded.runner, statements_done = 0,
             applied_by = session_user, applied_at = pg_catalog.clock_timestamp()"
        } else {
            ""
        },
    )
}

/// The statement that changes a row, if the chain is still held by `token`.
pub fn update(chain: &str, version: &str, token: &str, set: &str) -> String {
    format!(
        "WITH mine AS (UPDATE pgrunbook.migration_runner SET heartbeat_at = pg_catalog.clock_timestamp()
         WHERE chain = {chain} AND token = {token} RETURNING token)
         UPDATE pgrunbook.migration SET {set}, runner = (SELECT token FROM mine)
         WHERE chain = {chain} AND version = {version} AND NOT repeatable;\n",
        chain = literal(chain),
        token = literal(token),
        version = literal(version),
    )
}

/// The statements that take a row away, if the chain is still held by `token`. What is applied again whenever it changed
/// may have been built on it: it is applied again next time.
pub fn delete(chain: &str, version: &str, token: &str) -> String {
    format!(
        "{touch}DELETE FROM pgrunbook.migration WHERE chain = {chain} AND version = {version} AND NOT repeatable;
         UPDATE pgrunbook.migration SET sha256 = NULL WHERE chain = {chain} AND repeatable;\n",
        touch = update(chain, version, token, "state = state"),
        chain = literal(chain),
        version = literal(version),
    )
}

/// Whether an error says that another runner has taken the chain.
pub fn is_taken_over(error: &pgrunbook_postgres::ServerError) -> bool {
    error.sqlstate == "23502" && error.object.as_deref() == Some("pgrunbook.migration")
}

/// A literal. Chains, versions and contents come from file names and SQL files, which hold no NUL.
pub fn literal(text: &str) -> String {
    quote::literal(text).unwrap_or_else(|_| "NULL".to_owned())
}

/// Names with commas between them, without those that no server takes.
pub fn idents(names: &[String]) -> String {
    names.iter().filter_map(|name| quote::ident(name).ok()).collect::<Vec<_>>().join(", ")
}
