//! What can go wrong with a switch.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;
use pgrunbook_postgres::pgbouncer::PoolerError;

/// Why a switch was not made or not taken back. Never holds a value that was to be written.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    #[error("{path} cannot be {what}: {source}. Nothing was switched.")]
    File { path: String, what: &'static str, source: std::io::Error },
    #[error("{path}: {why}. Nothing was switched.")]
    Content { path: String, why: String },
    #[error("{path} was changed by somebody else while it was being switched. It was left as they wrote it.")]
    Raced { path: String },
    #[error(
        "{path} is not as this step left it: somebody changed it since. It was not touched; what it was before the switch is \
         kept in {kept}."
    )]
    Changed { path: String, kept: String },
    #[error("{path} has {count} names (hard links): replacing it would part them. Nothing was switched.")]
    HardLinks { path: String, count: u64 },
    #[error("{table}: {why}. Nothing was switched.")]
    Row { table: String, why: String },
    #[error(transparent)]
    Pooler(#[from] PoolerError),
    #[error(transparent)]
    Server(#[from] PgError),
}

impl SwitchError {
    fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "switch-file",
            Self::Content { .. } => "switch-content",
            Self::Raced { .. } | Self::Changed { .. } => "switch-changed",
            Self::HardLinks { .. } => "switch-links",
            Self::Row { .. } => "switch-row",
            Self::Pooler(_) => "pooler",
            Self::Server(_) => "server",
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::File { .. } => "check the path, its owner and its mode".to_owned(),
            Self::Raced { .. } => "look at the change, then resume".to_owned(),
            Self::Changed { path, kept } => format!(
                "compare them (diff {kept} {path}), put back by hand what must be, and mark the step as undone; or restore the \
                 file to what the switch wrote, and roll back again"
            ),
            Self::HardLinks { .. } => "name the one file that the application reads".to_owned(),
            Self::Pooler(PoolerError::Stuck(_)) => "type it now; then resume".to_owned(),
            _ => return None,
        })
    }
}

impl From<SwitchError> for StepError {
    fn from(error: SwitchError) -> Self {
        let (code, text, help) = (error.code(), error.to_string(), error.help());
        let step = match error {
            SwitchError::Server(error) => return error.into_step_error(),
            SwitchError::Raced { .. } | SwitchError::Changed { .. } | SwitchError::Row { .. } => {
                Self::failed(code, text)
            }
            SwitchError::Pooler(_) => Self::in_doubt(code, text),
            _ => Self::unusable(code, text),
        };
        match help {
            Some(help) => step.help(help),
            None => step,
        }
        .source(error)
    }
}
