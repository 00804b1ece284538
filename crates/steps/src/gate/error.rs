//! Why there is no review.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;
use pgrunbook_postgres::sandbox::SandboxError;

use crate::drift::DriftError;
use crate::migrate::error::ChainError;

/// Why a change cannot be reviewed. Nothing was touched but a throwaway server.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("git does not say what changed: {said}")]
    Git { said: String },
    #[error("there is nothing to review: name a folder of migrations with --chain")]
    NoChain,
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Drift(#[from] DriftError),
    #[error(transparent)]
    Step(#[from] StepError),
}
