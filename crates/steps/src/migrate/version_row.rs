//! The version row: what an application's schema guard reads, written with the migrations that it speaks of.
//!
//! `{"version": "1.1.0", "migration": "0011_index", "timestamp": "..."}` under a key of a table of settings. It is written
//! in the transaction of the last migration, so that it never promises what is not there; taken back in the transaction
//! of the first that is undone, so that it stops promising first. Beside those three it holds what it was before
//! (`previous`) and who wrote it (`run`): that is what an undo goes by.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{PgError, Session};
use serde::Deserialize;

use super::history::{idents, literal};

/// Where the eighth version before stands: that and what was before it is forgotten, so that the row does not grow for
/// ever. A run that is undone after that many others takes the row away, and no application starts on a guess.
const OLDEST: &str = "'{previous,previous,previous,previous,previous,previous,previous,previous}'";

/// Where the row is, and the version that it is to say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRow {
    /// `TABLE` or `SCHEMA.TABLE`.
    #[serde(default = "table")]
    pub table: String,
    #[serde(default = "key")]
    pub key: String,
    /// Where the table holds several environments: the value of its column `environment`.
    pub environment: Option<String>,
    #[serde(default = "key_column")]
    pub key_column: String,
    #[serde(default = "value_column")]
    pub value_column: String,
    /// A semantic version.
    pub version: String,
}

fn table() -> String {
    "bot_config".to_owned()
}

fn key() -> String {
    "schema_version".to_owned()
}

fn key_column() -> String {
    "config_key".to_owned()
}

fn value_column() -> String {
    "config_value".to_owned()
}

/// What becomes of the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionWrite {
    /// It says the version.
    Set(VersionRow),
    /// It is again what it was before this step of this run wrote it.
    Restore(VersionRow),
}

impl VersionRow {
    /// A row in its usual place.
    pub fn usual(version: &str) -> Self {
        Self {
            table: table(),
            key: key(),
            environment: None,
            key_column: key_column(),
            value_column: value_column(),
            version: version.to_owned(),
        }
    }

    /// Refuses what no guard could read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        semver::Version::parse(&self.version)
            .map_err(|error| format!("`version_row`: {:?} is no semantic version: {error}", self.version))?;
        if self.table.split_once('.').map_or(self.table.is_empty(), |(a, b)| a.is_empty() || b.is_empty()) {
            return Err(format!("`version_row`: {:?} is no table", self.table));
        }
        Ok(())
    }

    /// `bot_config (schema_version)`.
    pub fn place(&self) -> String {
        match &self.environment {
            Some(environment) => format!("{} ({}, {environment})", self.table, self.key),
            None => format!("{} ({})", self.table, self.key),
        }
    }

    fn table_sql(&self) -> String {
        let parts = self.table.split_once('.').map_or_else(|| vec![self.table.as_str()], |(a, b)| vec![a, b]);
        parts.into_iter().map(ident).collect::<Vec<_>>().join(".")
    }

    fn at(&self) -> String {
        let environment = self
            .environment
            .as_deref()
            .map_or_else(String::new, |environment| format!(" AND environment = {}", literal(environment)));
        format!("{} = {}{environment}", ident(&self.key_column), literal(&self.key))
    }

    /// The column as `jsonb`, whatever it is.
    fn json(&self) -> String {
        format!("{}::text::jsonb", ident(&self.value_column))
    }

    /// What stands there: the version, and who wrote it. A table that is not there says nothing.
    async fn stands(&self, session: &Session) -> Result<Option<(Option<String>, Option<String>)>, PgError> {
        let query = format!(
            "SELECT {json} ->> 'version', {json} ->> 'run' FROM {} WHERE {}",
            self.table_sql(),
            self.at(),
            json = self.json()
        );
        match session.simple(&query).await {
            Ok(answers) => {
                let row = answers.into_iter().next_back().and_then(|answer| answer.rows.into_iter().next());
                Ok(row.map(|row| {
                    let mut row = row.into_iter();
                    (row.next().flatten(), row.next().flatten())
                }))
            }
            Err(error) if super::history::is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl VersionRow {
    /// The version before this step of this run, and the one that stands there now. What the row was before is in the row,
    /// for as long as nobody else writes it.
    pub(super) async fn change(
        &self,
        session: &Session,
        run: Option<(&str, &str)>,
    ) -> Result<(Option<String>, Option<String>), PgError> {
        let query = format!(
            "SELECT {json} ->> 'version', {json} ->> 'run', {json} -> 'previous' ->> 'version' FROM {} WHERE {}",
            self.table_sql(),
            self.at(),
            json = self.json()
        );
        let answers = match session.simple(&query).await {
            Ok(answers) => answers,
            Err(error) if super::history::is_missing(&error) => return Ok((None, None)),
            Err(error) => return Err(error),
        };
        let row = answers.into_iter().next_back().and_then(|answer| answer.rows.into_iter().next()).unwrap_or_default();
        let [version, by, previous] = <[Option<String>; 3]>::try_from(row).unwrap_or_default();
        let before = if by.is_some() && by == writer(run) { previous } else { version.clone() };
        Ok((before, version))
    }
}

fn ident(name: &str) -> String {
    idents(&[name.to_owned()])
}

impl VersionWrite {
    /// Whether nothing is to be written: the version stands there, or is not this step's.
    pub(super) async fn is_done(&self, session: &Session, run: Option<(&str, &str)>) -> Result<bool, PgError> {
        Ok(match self {
            Self::Set(row) => {
                row.stands(session).await?.is_some_and(|(version, _)| version.as_ref() == Some(&row.version))
            }
            Self::Restore(row) => {
                let ours = writer(run);
                !row.stands(session).await?.is_some_and(|(_, by)| by.is_some() && by == ours)
            }
        })
    }

    /// The statements, each with its end. `migration`: the last one that is applied, as `0011_index`.
    pub(super) fn sql(&self, migration: &str, run: Option<(&str, &str)>) -> String {
        match self {
            Self::Set(row) => {
                let by = writer(run).map_or_else(String::new, |by| format!("'run', {}::text, ", literal(&by)));
                let json = |previous: &str| {
                    format!(
                        "pg_catalog.jsonb_build_object('version', {}::text, 'migration', {}::text, 'timestamp', \
                         pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', \
                         'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), {by}'previous', {previous})",
                        literal(&row.version),
                        literal(migration)
                    )
                };
                let previous = format!(
                    "CASE pg_catalog.jsonb_typeof({json}) WHEN 'object' THEN {json} #- {OLDEST} END",
                    json = row.json()
                );
                let (environment, its) = row
                    .environment
                    .as_deref()
                    .map_or_else(Default::default, |name| ("environment, ", format!("{}, ", literal(name))));
                let (table, at, column) = (row.table_sql(), row.at(), ident(&row.value_column));
                format!(
                    "UPDATE {table} SET {column} = {} WHERE {at};
                     INSERT INTO {table} ({}, {environment}{column})
                     SELECT {}, {its}{} WHERE NOT EXISTS (SELECT FROM {table} WHERE {at});\n",
                    json(&previous),
                    ident(&row.key_column),
                    literal(&row.key),
                    json("NULL::jsonb"),
                )
            }
            Self::Restore(row) => {
                let Some(by) = writer(run) else { return String::new() };
                let (table, at, json) = (row.table_sql(), row.at(), row.json());
                let ours = format!("{at} AND {json} ->> 'run' = {}", literal(&by));
                format!(
                    "DELETE FROM {table} WHERE {ours} AND COALESCE(pg_catalog.jsonb_typeof({json} -> 'previous'), 'null') = 'null';
                     UPDATE {table} SET {} = {json} -> 'previous' WHERE {ours};\n",
                    ident(&row.value_column)
                )
            }
        }
    }

    fn row(&self) -> &VersionRow {
        match self {
            Self::Set(row) | Self::Restore(row) => row,
        }
    }

    /// What a person is told when the server refuses the row.
    pub(super) fn failed(&self, error: StepError, outcome: &str) -> StepError {
        let place = self.row().place();
        StepError {
            code: "version-row".to_owned(),
            message: format!("the version was not written into {place}: {}; {outcome}", error.message),
            ..error
        }
        .help("let a migration make the table, with a key and a value column, or name the one that is there: `version_row`")
    }
}

/// Who wrote it.
fn writer(run: Option<(&str, &str)>) -> Option<String> {
    run.map(|(run, step)| format!("{run}:{step}"))
}
