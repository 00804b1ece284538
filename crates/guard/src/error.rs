//! Why an application must not start, and what to do about it.

use std::fmt;
use std::time::Duration;

use crate::connection::Refusal;
use crate::source::{Source, Stored};

/// Why an application must not start. Shown, it says what is wrong and what to do; nothing of it is secret.
///
/// Written by hand and not derived: whoever embeds this crate carries its dependencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardError {
    /// The application's own version cannot be read. Nothing was asked.
    AppVersion { text: String, why: String },
    /// `SKIP_SCHEMA_GUARD` is neither `true` nor `false`. Nothing was asked, and nothing is skipped.
    Skip { value: String },
    /// No server answers.
    Unreachable { why: String },
    /// The server answers, and does not let the role in, or does not have the database.
    Login { refusal: Refusal },
    /// No answer in time: mostly somebody holds a lock on the table.
    Unanswered { table: String, after: Duration },
    /// The table is not there.
    NoTable { table: String, app: String },
    /// The table is there, and says nothing of a version.
    NoRow { place: String, app: String },
    /// The row is there, and cannot be read.
    Malformed { place: String, why: String },
    /// The role may not read the table.
    Denied { table: String, grant: String },
    /// The database is older than what the application was written for.
    ApplicationNewer { app: String, stored: Stored },
    /// The first numbers differ; `older`: the database's is the smaller one.
    MajorsDiffer { app: String, stored: Stored, older: bool },
    /// A migration that the application needs is half done.
    Unfinished { chain: String, version: String, state: String },
    /// Newer migrations are applied, and the one that the application needs is not.
    Missing { chain: String, app: String, newest: String },
    /// Migrations were under way for as long as the application would wait.
    StillMigrating { waited: Duration, who: String, last: Box<Self> },
    /// The server said something else.
    Server { refusal: Refusal },
}

impl GuardError {
    pub(crate) fn of(refusal: Refusal, source: &Source, app: &str) -> Self {
        let Refusal::Server { sqlstate, message } = &refusal else {
            return Self::Unreachable { why: refusal.to_string() };
        };
        match sqlstate.as_str() {
            "28000" | "28P01" | "3D000" => Self::Login { refusal },
            // Starting up, shutting down, full: nobody is there who answers.
            code if code.starts_with("57P") || code.starts_with("08") || code == "53300" => {
                Self::Unreachable { why: refusal.to_string() }
            }
            "42P01" | "3F000" => Self::NoTable { table: source.table(), app: app.to_owned() },
            "42703" => Self::Malformed { place: source.table(), why: message.clone() },
            "42501" => Self::Denied { table: source.table(), grant: source.grant() },
            _ => Self::Server { refusal },
        }
    }

    /// Stable name of what is wrong.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AppVersion { .. } => "app-version",
            Self::Skip { .. } => "skip",
            Self::Unreachable { .. } => "unreachable",
            Self::Login { .. } => "login",
            Self::Unanswered { .. } => "unanswered",
            Self::NoTable { .. } => "no-table",
            Self::NoRow { .. } => "no-version",
            Self::Malformed { .. } => "malformed",
            Self::Denied { .. } => "denied",
            Self::ApplicationNewer { .. } => "application-newer",
            Self::MajorsDiffer { .. } => "majors-differ",
            Self::Unfinished { .. } => "unfinished",
            Self::Missing { .. } => "missing",
            Self::StillMigrating { .. } => "still-migrating",
            Self::Server { .. } => "server",
        }
    }

    /// Whether the database was read, and the application does not fit it; else nobody knows whether it does.
    pub fn is_verdict(&self) -> bool {
        match self {
            Self::NoTable { .. }
            | Self::NoRow { .. }
            | Self::Malformed { .. }
            | Self::ApplicationNewer { .. }
            | Self::MajorsDiffer { .. }
            | Self::Unfinished { .. }
            | Self::Missing { .. }
            | Self::StillMigrating { .. } => true,
            Self::AppVersion { .. }
            | Self::Skip { .. }
            | Self::Unreachable { .. }
            | Self::Login { .. }
            | Self::Unanswered { .. }
            | Self::Denied { .. }
            | Self::Server { .. } => false,
        }
    }

    /// The same lines as [`Outcome::prometheus`](crate::Outcome::prometheus) has, for a start that was refused: the bypass that an earlier one
    /// left in a file is over.
    pub fn prometheus(&self) -> String {
        format!(
            "# HELP pgrunbook_guard_bypassed 1 if the application started without a check of the schema.\n\
             # TYPE pgrunbook_guard_bypassed gauge\n\
             pgrunbook_guard_bypassed 0\n\
             # HELP pgrunbook_guard_refused Why the application was kept from starting.\n\
             # TYPE pgrunbook_guard_refused gauge\n\
             pgrunbook_guard_refused{{code=\"{}\"}} 1\n",
            self.code()
        )
    }

    /// Whether migrations that are under way can mend it.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::MajorsDiffer { older, .. } => *older,
            Self::NoTable { .. }
            | Self::NoRow { .. }
            | Self::ApplicationNewer { .. }
            | Self::Unfinished { .. }
            | Self::Missing { .. } => true,
            _ => false,
        }
    }

    /// What is wrong.
    pub fn what(&self) -> String {
        match self {
            Self::AppVersion { text, why } => format!("the application's version {text:?} cannot be read: {why}"),
            Self::Skip { value } => {
                format!(
                    "SKIP_SCHEMA_GUARD is {value:?}, which is neither `true` nor `false`; the schema was not checked"
                )
            }
            Self::Unreachable { why } => format!("the database does not answer, so the schema is not known: {why}"),
            Self::Login { refusal } => format!("the database refused the connection: {refusal}"),
            Self::Unanswered { table, after } => {
                format!("the database did not say within {after:.0?} what {table} holds")
            }
            Self::NoTable { table, app } => {
                format!("there is no table {table}, so the schema has no version; the application needs {app}")
            }
            Self::NoRow { place, app } => format!("{place} says nothing of a version; the application needs {app}"),
            Self::Malformed { place, why } => format!("the version in {place} cannot be read: {why}"),
            Self::Denied { table, .. } => format!("the application's role may not read {table}"),
            Self::ApplicationNewer { app, stored } => {
                format!("the application needs schema {app}, and the database is at {}", shown(stored))
            }
            Self::MajorsDiffer { app, stored, .. } => {
                format!("the application was written for schema {app}, and the database is at {}", shown(stored))
            }
            Self::Unfinished { chain, version, state } => {
                format!("migration {version} of {chain} is half done (`{state}`)")
            }
            Self::Missing { chain, app, newest } => {
                format!("the application needs migration {app} of {chain}; {newest} is applied, and {app} is not")
            }
            Self::StillMigrating { waited, who, last } => {
                format!("{}; migrations by {who} were still under way after {waited:.0?}", last.what())
            }
            Self::Server { refusal } => format!("the database could not say which schema it has: {refusal}"),
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::AppVersion { .. } => "write it as MAJOR.MINOR.PATCH (APP_SCHEMA_VERSION=1.4.0)".to_owned(),
            Self::Skip { .. } => "set it to `true` to start without the check in an emergency, or unset it".to_owned(),
            Self::Unreachable { .. } => "start the server, or mend the address; `SELECT 1` by psql shows it".to_owned(),
            Self::Login { .. } => "check user, password, database and pg_hba.conf".to_owned(),
            Self::Unanswered { table, .. } => {
                format!("find who holds a lock on {table} (pg_locks), or whether the server is overloaded")
            }
            Self::NoTable { table, .. } => {
                format!("run the migrations; if {table} is in another schema, name it with the schema")
            }
            Self::NoRow { .. } => "run the migrations with a version row, or write the row".to_owned(),
            Self::Malformed { .. } => {
                r#"write {"version": "1.4.0", "migration": "...", "timestamp": "..."}"#.to_owned()
            }
            Self::Denied { grant, .. } => grant.clone(),
            Self::ApplicationNewer { .. } => "run the migrations, then start again".to_owned(),
            Self::MajorsDiffer { older: true, .. } => {
                "run the migrations up to the application's major version, or deploy the application before it"
                    .to_owned()
            }
            Self::MajorsDiffer { older: false, .. } => {
                "deploy the application that belongs to the database's major version".to_owned()
            }
            Self::Unfinished { .. } => {
                "let the migration end; if nobody runs it, `pgrunbook migrate status`".to_owned()
            }
            Self::Missing { .. } => "apply it out of order: `pgrunbook migrate up --out-of-order`".to_owned(),
            Self::StillMigrating { .. } => {
                "wait for it to end and start again, or let the guard wait longer".to_owned()
            }
            Self::Server { .. } => "look into the server's log".to_owned(),
        }
    }
}

/// `1.0.0 (0001_baseline, 2025-08-11T...)`.
fn shown(stored: &Stored) -> String {
    let rest: Vec<&str> = [&stored.migration, &stored.timestamp].into_iter().filter_map(|one| one.as_deref()).collect();
    if rest.is_empty() { stored.version.clone() } else { format!("{} ({})", stored.version, rest.join(", ")) }
}

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. Remedy: {}", self.what(), self.remedy())
    }
}

impl std::error::Error for GuardError {}
