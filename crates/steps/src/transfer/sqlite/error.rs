//! What can go wrong with a SQLite file as a source, and what a person is told.

use std::path::Path;

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;
use rusqlite::ErrorCode;

use crate::transfer::finding::{Finding, to_table};

/// A value that does not fit its column, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadValue {
    pub table: String,
    pub column: String,
    /// `id = 5`
    pub key: String,
    /// Its storage class, and its length where it has one: the value itself may be a secret.
    pub what: String,
    pub why: String,
}

impl std::fmt::Display for BadValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, column, key, what, why } = self;
        write!(f, "table {table}, column {column}, {key}: {what} {why}")
    }
}

/// An error of reading the file, or of carrying it over.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    #[error("{path} cannot be opened: {why}")]
    CannotOpen { path: String, why: String },
    /// The file's own structure is broken. It is never repaired here.
    #[error("{path} is damaged: {what}")]
    Damaged { path: String, what: String },
    /// Another process held a lock for longer than was allowed.
    #[error("{path} was busy for {seconds} s: {waits_for}")]
    Busy { path: String, seconds: u64, waits_for: &'static str },
    /// The file needs something of the application that made it: a collation, a function, a module.
    #[error("{path} needs what only the application has: {what}")]
    Missing { path: String, what: String },
    #[error("{path}: cannot {doing}: {source}")]
    Sqlite { path: String, doing: String, source: rusqlite::Error },
    #[error("`{key} = \"{value}\"` in [map]: {why}")]
    Choice { key: String, value: String, why: String },
    /// The file changed after it was profiled: a value no longer fits.
    #[error("{0}")]
    Misfit(Box<BadValue>),
    #[error("{} things stand in the way\n{}", .0.len(), to_table(.0))]
    Refused(Vec<Finding>),
    #[error("{folder} has {free_bytes} bytes free, and the base image needs {need_bytes}")]
    Disk { folder: String, free_bytes: u64, need_bytes: u64 },
    #[error("{0} is in the target already")]
    Exists(String),
    #[error("{name} could not be made: {source}")]
    Object { name: String, source: PgError },
    #[error("cannot {what}: {source}")]
    File { what: String, source: std::io::Error },
    /// A table of the fenced file takes a write.
    #[error("table {table} of {path} is not fenced: {what}")]
    NotFenced { path: String, table: String, what: String },
    /// What the target did has no place in the file.
    #[error("table {table}, {key}: {why}")]
    Conflict { table: String, key: String, why: String },
    #[error("stopped on request")]
    Stopped,
    #[error(transparent)]
    Postgres(#[from] PgError),
}

impl SqliteError {
    /// What an error of SQLite on this file was, while something was done.
    pub fn of(path: &Path, doing: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> Self {
        let (path, doing) = (path.display().to_string(), doing.into());
        move |source| {
            let said = source.to_string();
            match source.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt) => {
                    Self::Damaged { path, what: format!("{said}, on trying to {doing}") }
                }
                Some(ErrorCode::NotADatabase) => Self::Damaged { path, what: said },
                Some(ErrorCode::CannotOpen) => Self::CannotOpen {
                    path,
                    why: format!("{said}; in WAL mode its folder must be writable, or a -shm file be there"),
                },
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    Self::Busy { path, seconds: 0, waits_for: "another process holds a lock on it" }
                }
                _ if said.contains("no such collation")
                    || said.contains("no such module")
                    || said.contains("no such function")
                    || said.contains("no such tokenizer") =>
                {
                    Self::Missing { path, what: said }
                }
                _ => Self::Sqlite { path, doing, source },
            }
        }
    }

    /// As the engine reports it, of work that only reads the file.
    pub fn into_step_error(self) -> StepError {
        self.told("The source was only read.")
    }

    /// As the engine reports it, with what is certainly safe.
    pub fn told(self, safe: &str) -> StepError {
        let text = format!("{self}. {safe}");
        match self {
            Self::Postgres(error) => error.into_step_error(),
            Self::CannotOpen { .. } => StepError::unusable("sqlite-open", text)
                .help("check the path, and that this user may read the file and its -wal and -shm"),
            Self::Damaged { .. } => StepError::unusable("sqlite-damaged", text).help(
                "make a sound copy (sqlite3 FILE .recover, or a backup) and name that; it is never repaired here",
            ),
            Self::Busy { .. } => StepError::failed("sqlite-busy", text)
                .help("wait for the writer or end it, then resume; WAL mode never makes readers wait"),
            Self::Missing { .. } => StepError::unusable("sqlite-missing", text)
                .help("skip that object by consent, or let the application drop it first"),
            Self::Choice { .. } => StepError::unusable("map", text),
            Self::Misfit(_) => StepError::failed("value", text).help(
                "run the preflight again: it lists every such value; then map the column otherwise or correct it",
            ),
            Self::Refused(_) => StepError::unusable("preflight", text).help("see the preflight for all of them"),
            Self::Disk { .. } => StepError::unusable("disk", text).help("free space, or set another work folder"),
            Self::Exists(_) => StepError::unusable("exists", text)
                .help("drop it if it is left over, or check it as a table made by migrations"),
            Self::Object { source, .. } => {
                let mut step = source.into_step_error();
                step.message = text;
                step
            }
            Self::NotFenced { .. } => StepError::failed("not-fenced", text),
            Self::Conflict { .. } => StepError::failed("conflict", text).help(
                "`pgrunbook parity FILE TARGET --schema-b SCHEMA` shows the rows; mend them, then \
                     `pgrunbook transfer accept SCHEMA --target TARGET --yes`",
            ),
            Self::Stopped => StepError::interrupted(text),
            error @ (Self::Sqlite { .. } | Self::File { .. }) => StepError::failed("sqlite", text).source(error),
        }
    }
}
