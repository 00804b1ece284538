//! What can go wrong while rows are copied.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;
use pgrunbook_postgres::copy::CopyError;

/// Why the base copy stops. What was copied stays recorded: `resume` goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum BaseCopyError {
    #[error("the copy into schema {schema} was begun before. Nothing was changed.")]
    Begun { schema: String },
    #[error("there is no copy into schema {schema} to go on with. Nothing was changed.")]
    NotBegun { schema: String },
    #[error("the target table {table} is not empty. Nothing was changed.")]
    NotEmpty { table: String },
    #[error("the target table {table} has no column {column} to take the source's. Nothing was changed.")]
    NoColumn { table: String, column: String },
    #[error("table {table} was not in the plan of the copy that is to go on. Nothing was changed.")]
    NotPlanned { table: String },
    #[error("table {table} has no counterpart in the target. Nothing was changed.")]
    NoTable { table: String },
    #[error(
        "table {table} was truncated or rewritten since the snapshot was taken, which so cannot see its rows. Nothing was changed."
    )]
    Rewritten { table: String },
    #[error("the copy was stopped; what is complete is recorded in the target")]
    Stopped,
    #[error("the source sent rows of {table} that are not binary COPY: {error}. The range was rolled back.")]
    Format { table: String, error: CopyError },
    #[error("copying {table}: {error}. The range was rolled back.")]
    Table {
        table: String,
        #[source]
        error: PgError,
    },
    #[error("a part of the copy failed in this program: {0}")]
    Task(String),
    #[error(transparent)]
    Server(#[from] PgError),
}

impl BaseCopyError {
    /// Stable name of what went wrong.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Begun { .. } => "copy-begun",
            Self::NotBegun { .. } => "copy-not-begun",
            Self::NotEmpty { .. } => "copy-not-empty",
            Self::NoColumn { .. } => "copy-no-column",
            Self::NotPlanned { .. } => "copy-not-planned",
            Self::NoTable { .. } => "copy-no-table",
            Self::Rewritten { .. } => "copy-rewritten",
            Self::Stopped => "stopped",
            Self::Format { .. } => "copy-format",
            Self::Table { .. } | Self::Server(_) => "server",
            Self::Task(_) => "task",
        }
    }
}

impl From<BaseCopyError> for StepError {
    fn from(error: BaseCopyError) -> Self {
        let help = match &error {
            BaseCopyError::Begun { .. } => "`pgrunbook resume` goes on with it; undo it to begin anew",
            BaseCopyError::NotEmpty { .. } => "empty it, or give the transfer another schema",
            BaseCopyError::Rewritten { .. } => "drop the slot and begin anew, when nobody truncates or rewrites tables",
            BaseCopyError::NoTable { .. } | BaseCopyError::NoColumn { .. } => {
                "make the schema anew: the source's has changed since"
            }
            BaseCopyError::NotPlanned { .. } => "undo the copy and begin anew: the source's tables have changed since",
            _ => "mend the cause, then `pgrunbook resume`: ranges that are complete are not copied again",
        };
        match error {
            BaseCopyError::Stopped => Self::interrupted(error.to_string()),
            BaseCopyError::Server(error) => error.into_step_error(),
            BaseCopyError::Table { .. } | BaseCopyError::Format { .. } | BaseCopyError::Task(_) => {
                Self::failed(error.code(), error.to_string()).help(help).source(error)
            }
            _ => Self::unusable(error.code(), error.to_string()).help(help).source(error),
        }
    }
}
