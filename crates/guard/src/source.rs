//! Where a database says which version it is at: a row that people can read, or the history of migrations.

use semver::Version;
use serde_json::Value;

use crate::connection::Row;
use crate::error::GuardError;
use crate::outcome::Compatible;
use crate::quote::{Name, NotAName, ident, literal};
use crate::version::{ChainVersion, Fit, Verdict, compare};

/// Where the version stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A row with JSON in it; the application names a semantic version.
    Row(VersionRow),
    /// The history that `pgrunbook migrate` keeps; the application names the last migration that it needs.
    History(History),
}

/// A row of a table of settings: `{"version": "1.0.0", "migration": "0001_baseline", "timestamp": "..."}` under a key.
///
/// `version` must be there; the other two are shown where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// Without a schema it is found by the connection's `search_path`.
    pub table: Name,
    /// The value of `key_column`.
    pub key: String,
    /// Where the table holds several environments: the value of its column `environment`.
    pub environment: Option<String>,
    /// Text.
    pub key_column: String,
    /// `jsonb`, `json` or text.
    pub value_column: String,
}

impl VersionRow {
    /// `config_value` where `config_key` is `schema_version`, of this table.
    ///
    /// # Errors
    /// If it is not a name.
    pub fn of(table: &str) -> Result<Self, NotAName> {
        Ok(Self {
            table: Name::parse(table)?,
            key: "schema_version".to_owned(),
            environment: None,
            key_column: "config_key".to_owned(),
            value_column: "config_value".to_owned(),
        })
    }
}

/// The history of one chain, in `pgrunbook.migration`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// As the runbook or the command names it: `db/migrations`, or `db/migrations@tenant` in a schema of its own.
    pub chain: String,
}

/// What a database said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub version: String,
    /// The last migration, as whoever wrote it says.
    pub migration: Option<String>,
    /// When, as whoever wrote it says; not read.
    pub timestamp: Option<String>,
}

/// The version that an application was written for, as its source understands it.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Row(Version),
    History(ChainVersion),
}

impl Source {
    /// `bot_config`, key `schema_version`.
    pub fn bot_config() -> Self {
        Self::Row(VersionRow {
            table: Name::parse("bot_config").expect("a name"),
            key: "schema_version".to_owned(),
            environment: None,
            key_column: "config_key".to_owned(),
            value_column: "config_value".to_owned(),
        })
    }

    /// The history of a chain.
    pub fn history(chain: impl Into<String>) -> Self {
        Self::History(History { chain: chain.into() })
    }

    /// The table, for people.
    pub(crate) fn table(&self) -> String {
        match self {
            Self::Row(row) => row.table.to_string(),
            Self::History(_) => "pgrunbook.migration".to_owned(),
        }
    }

    /// What grants the right to read it, for people.
    pub(crate) fn grant(&self) -> String {
        match self {
            Self::Row(row) => format!("GRANT SELECT ON {} TO the application's role", row.table.sql()),
            Self::History(_) => "GRANT USAGE ON SCHEMA pgrunbook, and SELECT ON pgrunbook.migration and \
                                 pgrunbook.migration_runner, TO the application's role"
                .to_owned(),
        }
    }

    pub(crate) fn wanted(&self, app: &str) -> Result<Wanted, GuardError> {
        let wrong = |why: String| GuardError::AppVersion { text: app.to_owned(), why };
        match self {
            Self::Row(_) => Version::parse(app).map(Wanted::Row).map_err(|error| wrong(error.to_string())),
            Self::History(_) => ChainVersion::parse(app)
                .map(Wanted::History)
                .ok_or_else(|| wrong("the number of a migration is wanted, such as 0011".to_owned())),
        }
    }

    /// The one statement of a check.
    pub(crate) fn sql(&self) -> String {
        match self {
            Self::Row(row) => {
                let environment = row
                    .environment
                    .as_deref()
                    .map_or_else(String::new, |name| format!(" AND environment = {}", literal(name)));
                format!(
                    "SELECT {value}::text FROM {table} WHERE {key} = {wanted}{environment} LIMIT 2",
                    value = ident(&row.value_column),
                    table = row.table.sql(),
                    key = ident(&row.key_column),
                    wanted = literal(&row.key),
                )
            }
            Self::History(history) => format!(
                "SELECT version, state, origin, name FROM pgrunbook.migration
                 WHERE chain = {} AND NOT repeatable ORDER BY seq",
                literal(&history.chain)
            ),
        }
    }

    /// Reads the answer to [`Self::sql`].
    pub(crate) fn decide(&self, wanted: &Wanted, rows: &[Row]) -> Result<Compatible, GuardError> {
        match (self, wanted) {
            (Self::Row(row), Wanted::Row(app)) => row.decide(app, rows),
            (Self::History(history), Wanted::History(app)) => history.decide(app, rows),
            // `wanted` was made by this source.
            _ => Err(GuardError::AppVersion {
                text: format!("{wanted:?}"),
                why: "it belongs to another source".to_owned(),
            }),
        }
    }
}

impl VersionRow {
    /// `bot_config (schema_version)`, for people.
    fn place(&self) -> String {
        match &self.environment {
            Some(environment) => format!("{} ({}, {environment})", self.table, self.key),
            None => format!("{} ({})", self.table, self.key),
        }
    }

    fn decide(&self, app: &Version, rows: &[Row]) -> Result<Compatible, GuardError> {
        let malformed = |why: String| GuardError::Malformed { place: self.place(), why };
        let text = match rows {
            [] => return Err(GuardError::NoRow { place: self.place(), app: app.to_string() }),
            [row] => row.first().cloned().flatten().ok_or_else(|| malformed("it is null".to_owned()))?,
            _ => return Err(malformed("there are several rows; name the environment".to_owned())),
        };
        let value: Value = serde_json::from_str(&text).map_err(|error| malformed(format!("no JSON: {error}")))?;
        let field = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let version = field("version").ok_or_else(|| malformed("`version` is not there, or no text".to_owned()))?;
        let database = Version::parse(&version)
            .map_err(|error| malformed(format!("`version` is {version:?}, no semantic version: {error}")))?;
        let stored = Stored { version, migration: field("migration"), timestamp: field("timestamp") };
        match compare(app, &database) {
            Verdict::Fits(fit) => Ok(Compatible::new(app.to_string(), stored, fit)),
            Verdict::ApplicationNewer => Err(GuardError::ApplicationNewer { app: app.to_string(), stored }),
            Verdict::MajorsDiffer => {
                Err(GuardError::MajorsDiffer { app: app.to_string(), stored, older: database.major < app.major })
            }
        }
    }
}

impl History {
    /// Fits if the migration that the application needs is applied, and none up to it is under way or half done.
    fn decide(&self, app: &ChainVersion, rows: &[Row]) -> Result<Compatible, GuardError> {
        let mut newest: Option<(ChainVersion, String)> = None;
        let mut there = false;
        for row in rows {
            let [Some(version), Some(state), Some(origin), Some(name)] = row.as_slice() else { continue };
            let Some(version) = ChainVersion::parse(version) else { continue };
            if state != "applied" {
                if version <= *app {
                    return Err(GuardError::Unfinished {
                        chain: self.chain.clone(),
                        version: version.to_string(),
                        state: state.clone(),
                    });
                }
                continue;
            }
            // A history that was begun in the middle stands for everything before it.
            there |= version == *app || (origin == "baseline" && *app <= version);
            if newest.as_ref().is_none_or(|(newest, _)| *newest < version) {
                newest = Some((version, name.clone()));
            }
        }
        let Some((newest, name)) = newest else {
            return Err(GuardError::NoRow { place: format!("chain {}", self.chain), app: app.to_string() });
        };
        let migration = Some(format!("{newest}_{name}"));
        let stored = Stored { version: newest.to_string(), migration, timestamp: None };
        match (there, newest < *app) {
            (true, _) if newest == *app => Ok(Compatible::new(app.to_string(), stored, Fit::Equal)),
            (true, _) => Ok(Compatible::new(app.to_string(), stored, Fit::DatabaseNewer)),
            (false, true) => Err(GuardError::ApplicationNewer { app: app.to_string(), stored }),
            (false, false) => {
                Err(GuardError::Missing { chain: self.chain.clone(), app: app.to_string(), newest: stored.version })
            }
        }
    }
}
