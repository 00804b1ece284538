//! What can go wrong between this program and a server, and what a person is told.

use std::fmt;

use pgrunbook_engine::StepError;

use crate::retry::Blocker;
use tokio_postgres::error::{DbError, ErrorPosition};

/// An error of a connection or a statement.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The connection options make no sense; nothing was tried.
    #[error("{0}")]
    Options(String),
    /// No server answered at the address.
    #[error("no PostgreSQL server answers at {address}: {why}")]
    Unreachable { address: String, why: String },
    /// The server answered and refused the connection.
    #[error("{address} refused the connection: {}", .error.message)]
    Refused { address: String, error: Box<ServerError> },
    /// TLS could not be agreed on.
    #[error("no TLS connection to {address}: {why}")]
    Tls { address: String, why: String },
    /// A statement failed on the server.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// The connection was lost while a statement was under way.
    #[error("the connection to {address} was lost: {why}")]
    Lost { address: String, why: String },
    /// A lock was not to be had, in all the attempts that were allowed. Nothing was changed.
    #[error("a lock was not to be had in {attempts} attempts over {seconds} s{}", held_by(.blockers))]
    Locked { seconds: u64, attempts: u32, blockers: Vec<Blocker>, error: Box<ServerError> },
    /// The client library failed in another way.
    #[error("{0}")]
    Client(String),
    /// A program of PostgreSQL is missing or failed.
    #[error("{0}")]
    Program(String),
}

/// What the server says of an error.
///
/// See <https://www.postgresql.org/docs/current/protocol-error-fields.html>. `detail` may hold personal data: it goes
/// through the redactor like everything else, and is left out where only a sentence is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    pub sqlstate: String,
    pub severity: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Character of the statement, from 1.
    pub position: Option<u32>,
    pub context: Option<String>,
    /// `schema.table`, `constraint`: the object the error is about.
    pub object: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)
    }
}

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> Self {
        let table = error.table().map(|table| match error.schema() {
            Some(schema) => format!("{schema}.{table}"),
            None => table.to_owned(),
        });
        let position = match error.position() {
            Some(ErrorPosition::Original(position)) => Some(*position),
            _ => None,
        };
        Self {
            sqlstate: error.code().code().to_owned(),
            severity: error.severity().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            position,
            context: error.where_().map(str::to_owned),
            object: error.constraint().map(str::to_owned).or(table),
        }
    }
}

impl PgError {
    /// What a statement's failure was, over a connection to `address`.
    pub fn of_statement(error: &tokio_postgres::Error, address: &str) -> Self {
        match error.as_db_error() {
            // 57P01 to 57P03: the server ended the session; what was under way may or may not have been committed.
            Some(db) if matches!(db.code().code(), "57P01" | "57P02" | "57P03") => {
                Self::Lost { address: address.to_owned(), why: db.message().to_owned() }
            }
            Some(db) => Self::Server(Box::new(db.into())),
            None if error.is_closed() || is_io(error) => {
                Self::Lost { address: address.to_owned(), why: root_cause(error) }
            }
            None => Self::Client(root_cause(error)),
        }
    }

    /// What a connection attempt's failure was.
    pub fn of_connection(error: &tokio_postgres::Error, address: &str) -> Self {
        let address = address.to_owned();
        match error.as_db_error() {
            Some(db) => Self::Refused { address, error: Box::new(db.into()) },
            None => {
                let why = root_cause(error);
                let text = error.to_string();
                if text.contains("TLS") { Self::Tls { address, why } } else { Self::Unreachable { address, why } }
            }
        }
    }

    /// The server's SQLSTATE, where a server spoke.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) | Self::Refused { error, .. } | Self::Locked { error, .. } => Some(&error.sqlstate),
            _ => None,
        }
    }

    /// Whether it may pass by itself, so that to try again may help: the server is gone, starts or stops, has no connection,
    /// memory or disk to spare just now, or ended this transaction for the sake of another.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Unreachable { .. } => true,
            Self::Refused { error, .. } | Self::Server(error) => {
                matches!(error.sqlstate.get(..2), Some("08" | "40" | "53")) || error.sqlstate.starts_with("57P")
            }
            _ => false,
        }
    }

    /// As the engine reports it: bad input where nothing can have been touched, in doubt where the connection was lost.
    ///
    /// A caller that knows that nothing had been sent yet, or that the transaction cannot have been committed, turns a
    /// lost connection into a failure by itself.
    pub fn into_step_error(self) -> StepError {
        let text = self.to_string();
        match &self {
            Self::Options(_) | Self::Program(_) => StepError::unusable("options", text),
            Self::Unreachable { .. } => StepError::unusable("unreachable", format!("{text}. Nothing was changed."))
                .help("check host and port, that the server runs, and that its pg_hba.conf and firewall let you in"),
            Self::Tls { .. } => StepError::unusable("tls", format!("{text}. Nothing was changed."))
                .help("check sslmode and sslrootcert; `sslmode=require` encrypts without checking the certificate"),
            Self::Refused { error, .. } => {
                let help = match error.sqlstate.as_str() {
                    "28P01" => "check the password: PGPASSWORD, ~/.pgpass, or the reference in pgrunbook.toml",
                    "28000" => "check that the role exists and may log in from here (pg_hba.conf)",
                    "3D000" => "check the database's name",
                    "53300" => "all connections are in use: end some, or wait",
                    "57P03" => "the server is starting up or shutting down: try again in a moment",
                    _ => "check the connection's user, password and database",
                };
                StepError::unusable(format!("sqlstate-{}", error.sqlstate), format!("{text}. Nothing was changed."))
                    .help(help)
            }
            Self::Server(error) => {
                let mut step = match error.sqlstate.as_str() {
                    "57014" => StepError::interrupted(text),
                    sqlstate => StepError::failed(format!("sqlstate-{sqlstate}"), text),
                };
                step.help = error.hint.clone().or_else(|| help_for(&error.sqlstate));
                step
            }
            Self::Locked { .. } => StepError::failed("sqlstate-55P03", format!("{text}. Nothing was changed."))
                .help("wait for that session or end it: SELECT pg_terminate_backend(pid); then resume"),
            Self::Lost { .. } => StepError::in_doubt("connection-lost", text),
            Self::Client(_) => StepError::failed("client", text),
        }
        .source(self)
    }
}

/// Whether what a step failed by may pass by itself, as [`PgError::may_pass`] says of its cause.
pub fn may_pass(error: &StepError) -> bool {
    let cause = error.source.as_deref().and_then(|cause| cause.downcast_ref::<PgError>());
    cause.is_some_and(PgError::may_pass)
}

fn held_by(blockers: &[Blocker]) -> String {
    match blockers.first() {
        None => String::new(),
        Some(first) if blockers.len() == 1 => format!("; it is held by {first}"),
        Some(first) => format!("; it is held by {first} and {} more", blockers.len() - 1),
    }
}

fn help_for(sqlstate: &str) -> Option<String> {
    let help = match sqlstate {
        "25006" => {
            "this server is read only: a standby, or default_transaction_read_only is on; connect to the primary"
        }
        "42501" => "the role lacks a privilege; grant it, or connect as another role",
        "53100" => "the server's disk is full; nothing was committed: free space, then resume",
        "53200" => {
            "the server ran out of shared memory: raise max_locks_per_transaction, or do less in one transaction"
        }
        "55P03" => "somebody holds a lock that is needed; try again, or raise lock_timeout",
        "40P01" => "a deadlock with another transaction; nothing was committed: try again",
        _ => return None,
    };
    Some(help.to_owned())
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<std::io::Error>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// The innermost cause: the outer ones of the library only say that there was one.
fn root_cause(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{PgError, ServerError};

    fn server(sqlstate: &str) -> Box<ServerError> {
        Box::new(ServerError {
            sqlstate: sqlstate.to_owned(),
            severity: "FATAL".to_owned(),
            message: "refused".to_owned(),
            detail: None,
            hint: None,
            position: None,
            context: None,
            object: None,
        })
    }

    #[test]
    fn server_that_starts_or_has_no_room_may_answer_later_and_what_is_wrong_stays_wrong() {
        let (address, why) = (|| "here".to_owned(), || "gone".to_owned());
        assert!(PgError::Lost { address: address(), why: why() }.may_pass());
        assert!(PgError::Unreachable { address: address(), why: why() }.may_pass());
        assert!(!PgError::Tls { address: address(), why: why() }.may_pass());
        assert!(!PgError::Options(why()).may_pass());
        for (sqlstate, passes) in [
            ("57P03", true),  // cannot_connect_now
            ("57P01", true),  // admin_shutdown
            ("53300", true),  // too_many_connections
            ("53100", true),  // disk_full
            ("40P01", true),  // deadlock_detected
            ("08006", true),  // connection_failure
            ("28P01", false), // invalid_password
            ("3D000", false), // invalid_catalog_name
            ("57014", false), // query_canceled
            ("42501", false), // insufficient_privilege
            ("23505", false), // unique_violation
        ] {
            assert_eq!(
                PgError::Refused { address: address(), error: server(sqlstate) }.may_pass(),
                passes,
                "{sqlstate}"
            );
            assert_eq!(PgError::Server(server(sqlstate)).may_pass(), passes, "{sqlstate}");
        }
    }
}
