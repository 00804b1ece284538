//! What can go wrong with a transfer.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;

use super::finding::{Finding, to_table};

/// Why a transfer stops.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("the schema `{schema}` does not exist in {at}. Nothing was changed.")]
    NoSchema { schema: String, at: String },
    #[error("the schema {schema} is there and no transfer of pgrunbook made it: {why}. Nothing was changed.")]
    Stranger { schema: String, why: String },
    #[error("{} in the way. Nothing was changed.\n{}", counted(findings.len()), to_table(findings))]
    Findings { findings: Vec<Finding> },
    #[error("{kind} {name} of the legacy database cannot be made in {place}: {error}. {safe}")]
    Object {
        kind: String,
        name: String,
        /// `a scratch database`, `the schema health`.
        place: String,
        /// What is certainly as it was.
        safe: &'static str,
        #[source]
        error: Box<PgError>,
    },
    #[error("the schema that was made is not the source's: {}", differences.join("; "))]
    Differs { differences: Vec<String> },
    #[error("no scratch database can be had: {why}. Nothing was changed.")]
    Scratch { why: String },
    #[error("`{program}` failed: {said}. Nothing was changed.")]
    Program { program: String, said: String },
    #[error("a file of its own cannot be used: {what}: {error}. Nothing was changed.")]
    File { what: String, error: std::io::Error },
    #[error(transparent)]
    Server(#[from] PgError),
}

impl TransferError {
    /// Stable name of what went wrong.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSchema { .. } => "no-schema",
            Self::Stranger { .. } => "transfer-schema",
            Self::Findings { .. } => "preflight",
            Self::Object { .. } => "structure-object",
            Self::Differs { .. } => "structure-differs",
            Self::Scratch { .. } => "no-scratch",
            Self::Program { .. } => "program",
            Self::File { .. } => "file",
            Self::Server(_) => "server",
        }
    }

    /// What to do next.
    pub fn help(&self) -> String {
        match self {
            Self::NoSchema { .. } => "check `source_schema` and the connection".to_owned(),
            Self::Stranger { schema, .. } => {
                format!("give the transfer another schema, or drop {schema} yourself if nobody needs it")
            }
            Self::Findings { .. } => {
                "mend what is refused; where it says consent, name that word in the step's `accept` to go on".to_owned()
            }
            Self::Object { .. } => "mend the object at the source, or leave it out with `exclude`, and begin again".to_owned(),
            Self::Differs { .. } => {
                "somebody changed the schema meanwhile, or the versions differ in more than is known: undo, and begin again"
                    .to_owned()
            }
            Self::Scratch { .. } => {
                "ALTER ROLE ... CREATEDB on the target, or install PostgreSQL here (apt install postgresql)".to_owned()
            }
            Self::Program { .. } | Self::File { .. } | Self::Server(_) => String::new(),
        }
    }
}

impl From<TransferError> for StepError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Server(error) => error.into_step_error(),
            error @ TransferError::Differs { .. } => {
                Self::failed(error.code(), error.to_string()).help(error.help()).source(error)
            }
            error => Self::unusable(error.code(), error.to_string()).help(error.help()).source(error),
        }
    }
}

fn counted(findings: usize) -> String {
    if findings == 1 { "1 finding stands".to_owned() } else { format!("{findings} findings stand") }
}
