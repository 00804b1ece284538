//! Why a database cannot be compared.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;
use pgrunbook_postgres::sandbox::SandboxError;

/// Why there is no comparison. Neither side was changed.
#[derive(Debug, thiserror::Error)]
pub enum DriftError {
    #[error("the server is PostgreSQL {version}, and drift is told of 15 and newer")]
    TooOld { version: u32 },
    #[error("the target is PostgreSQL {live}, and the shadow {shadow}: they print definitions differently")]
    OtherVersion { live: u32, shadow: u32 },
    #[error("`{pattern}` is no pattern of what to ignore: {why}")]
    Pattern { pattern: String, why: String },
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A file of the chain failed in the shadow.
    #[error(transparent)]
    Step(#[from] StepError),
}

impl DriftError {
    /// Stable name of what went wrong.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooOld { .. } => "drift-too-old",
            Self::OtherVersion { .. } => "drift-other-version",
            Self::Pattern { .. } => "drift-pattern",
            Self::Postgres(_) => "drift-postgres",
            Self::Sandbox(_) => "drift-sandbox",
            Self::Step(_) => "drift-shadow",
        }
    }
}

impl From<DriftError> for StepError {
    fn from(error: DriftError) -> Self {
        match error {
            DriftError::Postgres(error) => error.into_step_error(),
            DriftError::Step(error) => error,
            other => {
                let (code, message) = (other.code(), other.to_string());
                let help = match other {
                    DriftError::OtherVersion { live, .. } => {
                        format!(
                            "install PostgreSQL {live}'s server programs, so that the shadow is of the same version"
                        )
                    }
                    DriftError::Pattern { .. } => {
                        "a pattern is a kind, a colon and a name with `*`: `grant:*`, `table:audit.*`".to_owned()
                    }
                    _ => "neither side was changed".to_owned(),
                };
                Self::unusable(code, message).help(help)
            }
        }
    }
}
