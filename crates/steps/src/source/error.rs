//! What can go wrong with sources.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;

/// Why a source cannot be found, made or taken back. Nothing was changed in any of these, but where the server says so.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{declaration} declares no sources")]
    Undeclared { declaration: String },
    #[error("the source id {id:?} {why}. Nothing was changed.")]
    Id { id: String, why: String },
    #[error("there is no source {id:?} in {registry}{}", near_of(near))]
    Unknown { id: String, registry: String, near: Vec<String>, count: usize },
    #[error(
        "the source {id:?} would have the schema {schema}, which is the source {holder:?}'s: two sources never share one. \
         Nothing was changed."
    )]
    Collision { id: String, schema: String, holder: String },
    #[error("this database is not as declared: {missing}. Nothing was changed.")]
    NotProvisioned { missing: String },
    #[error("{registry} {why}. Nothing was changed.")]
    Registry { registry: String, why: String, help: String },
    #[error(
        "the schema {schema} is there, belongs to {owner} and not to {wanted}, and is no source's. Nothing was changed."
    )]
    Stranger { schema: String, owner: String, wanted: String },
    #[error("the schema {schema} holds rows that came after its bootstrap: {}. Nothing was taken back.", tables.join(", "))]
    NotEmpty { schema: String, tables: Vec<String> },
    #[error("outside of the schema {schema} something rests on it: {}. Nothing was taken back.", objects.join(", "))]
    RestedOn { schema: String, objects: Vec<String> },
    #[error(transparent)]
    Server(#[from] PgError),
}

fn near_of(near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => {
            let near: Vec<String> = near.iter().map(|one| format!("{one:?}")).collect();
            format!("; did you mean {}?", near.join(" or "))
        }
    }
}

impl SourceError {
    /// Stable name of what went wrong.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Undeclared { .. } => "no-sources",
            Self::Id { .. } => "source-id",
            Self::Unknown { .. } => "unknown-source",
            Self::Collision { .. } => "source-collision",
            Self::NotProvisioned { .. } => "not-provisioned",
            Self::Registry { .. } => "source-registry",
            Self::Stranger { .. } => "source-schema",
            Self::NotEmpty { .. } => "source-not-empty",
            Self::RestedOn { .. } => "source-rested-on",
            Self::Server(_) => "server",
        }
    }

    /// What to do next.
    pub fn help(&self) -> String {
        match self {
            Self::Undeclared { .. } => {
                "add a table [sources] with `registry = \"schema.table\"` and `roles = [...]`".to_owned()
            }
            Self::Id { .. } | Self::Collision { .. } => {
                "give it another id: letters and digits tell sources apart, case and signs do not".to_owned()
            }
            Self::Unknown { count: 0, .. } => {
                "none is registered yet: `pgrunbook source add ID` or a step `source` does it".to_owned()
            }
            Self::Unknown { count, .. } => {
                format!("`pgrunbook source list` has the {count}; `pgrunbook source add ID` makes another")
            }
            Self::NotProvisioned { .. } => {
                "bring it there first: `pgrunbook provision`, or a step `provision` before this one".to_owned()
            }
            Self::Registry { help, .. } => help.clone(),
            Self::Stranger { schema, wanted, .. } => {
                format!("if it is this source's: ALTER SCHEMA {schema} OWNER TO {wanted}; else give the source another id")
            }
            Self::NotEmpty { .. } => {
                "undo what loaded them, or empty the tables, and roll back again; if the rows shall stay, so does the schema"
                    .to_owned()
            }
            Self::RestedOn { .. } => "drop these first, and roll back again".to_owned(),
            Self::Server(_) => String::new(),
        }
    }
}

impl From<SourceError> for StepError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Server(error) => error.into_step_error(),
            error @ (SourceError::NotEmpty { .. } | SourceError::RestedOn { .. }) => {
                Self::failed(error.code(), error.to_string()).help(error.help()).source(error)
            }
            error => Self::unusable(error.code(), error.to_string()).help(error.help()).source(error),
        }
    }
}
