//! The deployment log: a table of the user's that says who deployed what and when, written with the version row.
//!
//! One row for each step of a run that deployed, and one for each that was rolled back, in the transaction of the last
//! migration that is applied or of the first that is taken back: so the log never speaks of what is not there.

use pgrunbook_engine::{RunCx, StepError};
use pgrunbook_postgres::{PgError, ServerError, Session};

use super::history::{idents, is_missing, literal};

/// A schema-qualified table with the columns of [`COLUMNS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTable {
    schema: String,
    table: String,
}

/// What the table must have; other columns need a default.
const COLUMNS: [&str; 9] =
    ["deployed_at", "action", "environment", "run", "step", "content_digest", "operator", "version", "migration"];

/// How long a way back waits for a log that somebody has locked, before it goes without.
const OBSTACLE_WAIT: &str = "5s";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Deployed,
    RolledBack,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Deployed => "deployed",
            Self::RolledBack => "rolled back",
        }
    }
}

/// A row that is to be written, but for the migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogWrite {
    pub table: LogTable,
    pub action: Action,
    pub environment: String,
    pub run: String,
    pub step: String,
    pub content_digest: String,
    pub operator: String,
    /// The version that is deployed, or that is rolled back; `None` where the step writes no version row.
    pub version: Option<String>,
}

impl LogTable {
    /// Reads `SCHEMA.TABLE`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (schema, table) = text.split_once('.')?;
        let plain = |name: &str| !name.is_empty() && !name.contains(['.', '"', '\0']);
        (plain(schema) && plain(table)).then(|| Self { schema: schema.to_owned(), table: table.to_owned() })
    }

    /// As the runbook writes it.
    pub fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    fn sql(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.table))
    }
}

fn ident(name: &str) -> String {
    idents(&[name.to_owned()])
}

impl LogWrite {
    /// What a step of a run writes.
    pub fn of(cx: &RunCx<'_>, table: &LogTable, action: Action, environment: &str, version: Option<&str>) -> Self {
        Self {
            table: table.clone(),
            action,
            environment: environment.to_owned(),
            run: cx.run.to_owned(),
            step: cx.step.to_string(),
            content_digest: cx.content_digest.to_owned(),
            operator: cx.operator.to_owned(),
            version: version.map(str::to_owned),
        }
    }

    /// Whether the row stands there. A table that is not there has none.
    pub(super) async fn is_done(&self, session: &Session) -> Result<bool, PgError> {
        let query = format!(
            "SELECT count(*) FROM {} WHERE run = {} AND step = {} AND action = {}",
            self.table.sql(),
            literal(&self.run),
            literal(&self.step),
            literal(self.action.word())
        );
        match session.value(&query).await {
            Ok(count) => Ok(count != "0"),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Why the row could not be written now; `None` if it could. Leaves nothing behind.
    pub(super) async fn obstacle(&self, session: &Session) -> Result<Option<String>, PgError> {
        let tried = format!("BEGIN; SET LOCAL lock_timeout = '{OBSTACLE_WAIT}'; {}ROLLBACK", self.sql(""));
        match session.execute(&tried).await {
            Ok(()) => Ok(None),
            Err(PgError::Server(error)) => {
                session.execute("ROLLBACK").await?;
                Ok(Some(error.message))
            }
            Err(error) => Err(error),
        }
    }

    /// The statement, with its end. `migration`: the last one that is applied, as `0011_index`; or empty. The values are literals of
    /// no type, so that they fit a column of the user's.
    pub(super) fn sql(&self, migration: &str) -> String {
        let optional = |text: &str| if text.is_empty() { "NULL".to_owned() } else { literal(text) };
        let version = optional(self.version.as_deref().unwrap_or_default());
        let values = [
            "pg_catalog.clock_timestamp()".to_owned(),
            literal(self.action.word()),
            literal(&self.environment),
            literal(&self.run),
            literal(&self.step),
            literal(&self.content_digest),
            literal(&self.operator),
            version,
            optional(migration),
        ];
        format!("INSERT INTO {} ({}) VALUES ({});\n", self.table.sql(), COLUMNS.join(", "), values.join(", "))
    }

    /// Whether an error of the server speaks of this table.
    pub(super) fn is_meant(&self, error: &ServerError) -> bool {
        let named =
            |name: &str| error.message.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name);
        error.object.as_deref().is_some_and(|object| object.starts_with(&self.table.shown()))
            || named(&self.table.table)
            || (error.sqlstate == "42501" && named(&self.table.schema))
            // A value that a column does not take names none either. The version row is JSON, and its errors say so.
            || (error.sqlstate.starts_with("22") && !error.message.contains("json"))
            // `column "run" is of type uuid but expression is of type text` names no table.
            || (error.sqlstate == "42804" && COLUMNS.iter().any(|column| named(column)))
    }

    /// What a person is told when the server refuses the row.
    pub(super) fn failed(&self, error: StepError, outcome: &str) -> StepError {
        let table = self.table.shown();
        StepError {
            code: "deployment-log".to_owned(),
            message: format!("the deployment was not written into {table}: {}; {outcome}", error.message),
            ..error
        }
        .help(format!(
            "let a migration make it, and grant INSERT and SELECT on it: CREATE TABLE {} (deployed_at timestamptz, action text, environment text, \
             run text, step text, content_digest text, operator text, version text, migration text)",
            self.table.sql()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_named_with_its_schema() {
        assert_eq!(
            LogTable::parse("audit.deployment_log").map(|table| table.sql()).as_deref(),
            Some("audit.deployment_log")
        );
        assert_eq!(LogTable::parse("Audit.Log").map(|table| table.sql()).as_deref(), Some("\"Audit\".\"Log\""));
        for text in ["deployment_log", "a.b.c", ".log", "audit.", "audit.\"log\""] {
            assert_eq!(LogTable::parse(text), None, "{text}");
        }
    }
}
