//! Why there is no review.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;
use pgrunbook_postgres::sandbox::SandboxError;
use pgrunbook_postgres::scratch::ScratchError;

use crate::drift::DriftError;
use crate::migrate::error::ChainError;

/// Why a change cannot be reviewed. Nothing was touched but a throwaway server, or temporary databases that are gone.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("git does not say what changed: {said}")]
    Git { said: String },
    #[error("the repeatable files as they were before cannot be written to a folder of their own: {why}")]
    Beside { why: String },
    #[error("there is nothing to review: name a folder of migrations with --chain")]
    NoChain,
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The server that was given is asked for the database that is reviewed.
    #[error("--shadow-on leads to the target's own database ({address}); nothing was made")]
    IsTarget { address: String },
    /// A file does to a server that was given what would outlive the review.
    #[error("{place} {what}, and {address} shares that with all its databases; nothing was made")]
    Beyond { place: String, what: String, address: String },
    /// What a file does to a server that was given cannot be known.
    #[error(
        "{place} cannot be tried on the server at {address}, where it might touch other databases: {why}; nothing was made"
    )]
    Unread { place: String, why: String, address: String },
    #[error("the review was stopped; what it had made is gone, but for what was named above")]
    Stopped,
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Drift(#[from] DriftError),
    #[error(transparent)]
    Step(#[from] StepError),
}
