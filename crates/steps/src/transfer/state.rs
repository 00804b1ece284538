//! What is recorded of a transfer, in the database it leads to: one row for each schema.
//!
//! The row says how far a transfer came and which side takes writes. It is written in the transaction of what it tells, or
//! before an act that can be repeated; nothing here is a guess about the other side, which keeps its own slot, publication
//! and fence.

use std::collections::BTreeMap;

use pgrunbook_engine::fault::{self, Point};
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::{Lsn, PgError, Session, ledger, quote};
use serde::{Deserialize, Serialize};

/// Makes what is missing of the records.
const INSTALL: &str = r"
CREATE TABLE IF NOT EXISTS pgrunbook.transfer (
    schema text PRIMARY KEY,
    source text NOT NULL,
    target text NOT NULL,
    spec jsonb NOT NULL,
    phase text NOT NULL,
    proven jsonb NOT NULL DEFAULT '{}',
    crossing text,
    lossy text,
    stopped jsonb,
    run text,
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE pgrunbook.transfer IS 'Transfers into schemas of this database: how far each came, and which side takes writes.'";

const INSTALLED: &str = "SELECT pg_catalog.to_regclass('pgrunbook.transfer') IS NOT NULL";

/// How far a transfer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Recorded; schema, publication and slot are being made. Set by `transfer`.
    Prepared,
    /// Rows are being copied under the slot's snapshot. Set by `transfer`.
    Copying,
    /// The rows are there; indexes and constraints are being built. Set by `transfer`.
    Building,
    /// The source takes writes, and its changes are applied. Set by `transfer`, and by a crossing back.
    Following,
    /// The source is fenced, the target does not take writes yet. Set by a crossing forth.
    Forth,
    /// The target takes writes, and its changes flow back. Set by a crossing forth.
    Switched,
    /// The target is fenced, the source does not take writes yet. Set by a crossing back.
    Back,
    /// Ended: nothing flows any more, and there is no way back. Set by `complete`.
    Complete,
}

impl Phase {
    /// As it is stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Copying => "copying",
            Self::Building => "building",
            Self::Following => "following",
            Self::Forth => "forth",
            Self::Switched => "switched",
            Self::Back => "back",
            Self::Complete => "complete",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [
            Self::Prepared,
            Self::Copying,
            Self::Building,
            Self::Following,
            Self::Forth,
            Self::Switched,
            Self::Back,
            Self::Complete,
        ]
        .into_iter()
        .find(|phase| phase.word() == word)
    }

    /// Whether changes are, or will be, followed: the streams exist.
    pub fn follows(self) -> bool {
        matches!(self, Self::Following | Self::Forth | Self::Switched | Self::Back)
    }
}

/// Why a stream stands still until a person acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// `health:forward`.
    pub stream: String,
    /// Stable name: `ddl`, `conflict`, `spool`, `slot`.
    pub code: String,
    /// What happened, to which table or row.
    pub why: String,
    /// The position before which everything was applied.
    pub lsn: Lsn,
    /// For `ddl`: statements that would bring the destination in line, as far as they can be derived.
    #[serde(default)]
    pub statements: Vec<String>,
}

/// One transfer, as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Transfer {
    pub schema: String,
    /// The source's identity key: another database of the same name is another source.
    pub source: String,
    /// What was asked for.
    pub spec: super::Spec,
    /// The target's own identity key, of which the streams' names are made.
    pub target: String,
    pub phase: Phase,
    /// Both sides were equal at this position of a way's origin.
    pub proven: Vec<(Way, Lsn)>,
    /// The fence's id while a crossing is under way.
    pub crossing: Option<String>,
    /// Why going back would lose writes, if it would.
    pub lossy: Option<String>,
    pub stopped: Option<Stopped>,
}

const READ: &str = "SELECT schema, source, target, spec::text, phase, proven::text, crossing, lossy, stopped::text
FROM pgrunbook.transfer";

/// Makes the records, unless they are there.
///
/// # Errors
/// If the role may not create schemas in this database.
pub async fn install(session: &Session) -> Result<(), PgError> {
    ledger::install_beside(session, INSTALLED, INSTALL).await
}

/// Runs a statement that leaves something durable: what a transfer records, or what it makes on a server.
///
/// # Errors
/// What the server says.
pub async fn write(session: &Session, sql: &str) -> Result<(), PgError> {
    fault::pass(Point::BeforeCommit);
    session.execute(sql).await?;
    fault::pass(Point::AfterCommit);
    Ok(())
}

/// The transfer into a schema, if there is one.
///
/// # Errors
/// If the target cannot be asked, or the row was written by a newer version.
pub async fn find(session: &Session, schema: &str) -> Result<Option<Transfer>, PgError> {
    if session.value(INSTALLED).await? != "t" {
        return Ok(None);
    }
    let answers = session.simple(&format!("{READ} WHERE schema = {}", text(schema))).await?;
    answers.last().and_then(|answer| answer.rows.first()).map(|row| read(row)).transpose()
}

/// All transfers of a target, by schema.
///
/// # Errors
/// As [`find`].
pub async fn all(session: &Session) -> Result<Vec<Transfer>, PgError> {
    if session.value(INSTALLED).await? != "t" {
        return Ok(Vec::new());
    }
    let answers = session.simple(&format!("{READ} ORDER BY schema COLLATE \"C\"")).await?;
    answers.last().map_or_else(|| Ok(Vec::new()), |answer| answer.rows.iter().map(|row| read(row)).collect())
}

fn read(row: &[Option<String>]) -> Result<Transfer, PgError> {
    let at = |at: usize| row.get(at).cloned().flatten();
    let text = |column: usize| at(column).unwrap_or_default();
    let phase = text(4);
    let proven: BTreeMap<String, Lsn> = json(&text(5))?;
    let of_way = |way: Way| proven.get(&way.to_string()).map(|lsn| (way, *lsn));
    Ok(Transfer {
        schema: text(0),
        source: text(1),
        target: text(2),
        spec: json(&text(3))?,
        phase: Phase::of(&phase).ok_or_else(|| unreadable(&format!("phase {phase:?}")))?,
        proven: [Way::Forward, Way::Reverse].into_iter().filter_map(of_way).collect(),
        crossing: at(6),
        lossy: at(7),
        stopped: at(8).map(|stopped| json(&stopped)).transpose()?,
    })
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, PgError> {
    serde_json::from_str(text).map_err(|error| unreadable(&error))
}

fn unreadable(what: &dyn std::fmt::Display) -> PgError {
    PgError::Client(format!("the record of a transfer cannot be read: {what}"))
}

/// The statement that records a new transfer.
pub fn insert_sql(schema: &str, source: &str, target: &str, spec: &super::Spec, run: &str) -> String {
    let spec = serde_json::to_string(spec).expect("texts, flags and lists");
    format!(
        "INSERT INTO pgrunbook.transfer (schema, source, target, spec, phase, run) VALUES ({}, {}, {}, {}, 'prepared', {})",
        text(schema),
        text(source),
        text(target),
        text(&spec),
        text(run)
    )
}

/// The statement that records a phase, and the crossing that is under way in it.
pub fn phase_sql(schema: &str, phase: Phase, crossing: Option<&str>) -> String {
    format!(
        "UPDATE pgrunbook.transfer SET phase = '{}', crossing = {}, updated_at = pg_catalog.clock_timestamp() WHERE schema = {}",
        phase.word(),
        crossing.map_or_else(|| "NULL".to_owned(), text),
        text(schema)
    )
}

/// The statement that records why a stream stands still, or that it does no more.
pub fn stopped_sql(schema: &str, stopped: Option<&Stopped>) -> String {
    let stopped = stopped.map(|stopped| serde_json::to_string(stopped).expect("texts and a list"));
    format!(
        "UPDATE pgrunbook.transfer SET stopped = {}, updated_at = pg_catalog.clock_timestamp() WHERE schema = {}",
        stopped.as_deref().map_or_else(|| "NULL".to_owned(), text),
        text(schema)
    )
}

/// The statement that records why going back would lose writes; the first reason stays.
pub fn lossy_sql(schema: &str, why: &str) -> String {
    format!(
        "UPDATE pgrunbook.transfer SET lossy = coalesce(lossy, {}), updated_at = pg_catalog.clock_timestamp() WHERE schema = {}",
        text(why),
        text(schema)
    )
}

/// The statement that records that the way back stood still and goes on: what was done about it may have cost a write, until all
/// rows are compared.
pub fn unproven_sql(schema: &str, since: Lsn) -> String {
    let why =
        format!("the reverse stream stood still since {since} and was accepted, and not all rows were compared since");
    still_lossy_sql(schema, &why)
}

/// The statement that records why going back would lose writes, where it would do so already.
pub fn still_lossy_sql(schema: &str, why: &str) -> String {
    format!(
        "UPDATE pgrunbook.transfer SET lossy = {}, updated_at = pg_catalog.clock_timestamp() WHERE schema = {} AND lossy IS NOT NULL",
        text(why),
        text(schema)
    )
}

/// The statement that records that going back loses no write: all rows were compared, and the way back does not stand still.
pub fn lossless_sql(schema: &str) -> String {
    format!(
        "UPDATE pgrunbook.transfer SET lossy = NULL, updated_at = pg_catalog.clock_timestamp()
         WHERE schema = {} AND stopped IS NULL",
        text(schema)
    )
}

/// The statement that forgets the position of a stream, in the database that it led to.
pub fn forget_stream_sql(stream: &str) -> String {
    let stream = text(stream);
    format!(
        "DO $$ BEGIN IF pg_catalog.to_regclass('pgrunbook.stream') IS NOT NULL THEN
             DELETE FROM pgrunbook.stream WHERE name = {stream};
             DELETE FROM pgrunbook.stream_relation WHERE stream = {stream};
         END IF; END $$"
    )
}

/// The statement that records that both sides were equal at a position of a way's origin.
pub fn proven_sql(schema: &str, way: Way, at: Option<Lsn>) -> String {
    let at = at.map_or_else(|| "'null'".to_owned(), |at| text(&format!("\"{at}\"")));
    format!(
        "UPDATE pgrunbook.transfer SET proven = pg_catalog.jsonb_strip_nulls(proven || pg_catalog.jsonb_build_object('{way}', {at}::jsonb))
         WHERE schema = {}",
        text(schema)
    )
}

/// The statement that forgets a transfer.
pub fn delete_sql(schema: &str) -> String {
    format!("DELETE FROM pgrunbook.transfer WHERE schema = {}", text(schema))
}

/// Names and JSON; a NUL byte, which no server takes, is left out.
pub(super) fn text(value: &str) -> String {
    quote::literal(&value.replace('\0', "")).expect("NUL was taken out")
}
