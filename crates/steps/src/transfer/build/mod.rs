//! What comes after the rows: keys, indexes, foreign keys, and then what stands on them; in parallel, and resumable.
//!
//! Keys and indexes of a table are built as soon as its rows are complete, a table's constraints one after another (each
//! locks it) and its indexes side by side; then it is vacuumed and analyzed. Foreign keys come when all tables have theirs: added `NOT VALID`, which locks two
//! tables for an instant, and then validated under locks that readers and writers do not meet, one at a time for each table.
//! The rest follows in the order given. What is there already is passed over, so that a build that died is begun again.
//!
//! Sources: "ALTER TABLE", notes on `VALIDATE CONSTRAINT`, and "Explicit Locking" in PostgreSQL's documentation.

mod run;

use std::collections::BTreeSet;

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::PgError;
use tokio::sync::watch;

pub use run::build;

/// One object of the target's schema, and the statement that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub kind: Kind,
    /// Of the constraint, index, trigger or the like; without schema.
    pub name: String,
    /// The table it belongs to, in the transfer's schema.
    pub table: Option<String>,
    pub sql: String,
}

/// When it is made, and how it is known that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A primary key, unique or exclusion constraint.
    Key,
    Index,
    /// The table's visibility map and statistics, once its indexes are there.
    Vacuum,
    /// A foreign key. One that is not valid at the source says `NOT VALID` itself, and stays so.
    ForeignKey,
    Trigger,
    Policy,
    MaterializedView,
    /// Whatever else: it is there if the server says that it is.
    Other,
}

/// How a build is done.
pub struct Building<'a> {
    /// The schema in which the tables are.
    pub schema: &'a str,
    /// How many at a time; at least one.
    pub jobs: usize,
    pub cancel: &'a Cancel,
    /// Hears what was made. Must not block.
    pub tell: &'a (dyn Fn(&Built) + Sync),
    /// The tables whose rows are complete; without it, all are.
    pub ready: Option<watch::Receiver<BTreeSet<String>>>,
}

/// One object that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    pub name: String,
    pub table: Option<String>,
    /// It was there before.
    pub was_there: bool,
    pub took: std::time::Duration,
}

/// Why a build stops. What was made stays, and is passed over the next time.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{kind:?} {name} cannot be made: {error}. Nothing of it is there; what was made before stays.")]
    Object {
        kind: Kind,
        name: String,
        #[source]
        error: PgError,
    },
    #[error("the build was stopped; what was made stays")]
    Stopped,
    /// The copy ended before this table was complete.
    #[error("the rows of {table} are not complete, so its indexes were not built")]
    NoRows { table: String },
    #[error("a part of the build failed in this program: {0}")]
    Task(String),
    #[error(transparent)]
    Server(#[from] PgError),
}

impl From<BuildError> for pgrunbook_engine::StepError {
    fn from(error: BuildError) -> Self {
        let help = "mend the cause, then `pgrunbook resume`: what is there already is passed over";
        match error {
            BuildError::Stopped => Self::interrupted(error.to_string()),
            BuildError::Server(error) => error.into_step_error(),
            error => Self::failed("build", error.to_string()).help(help).source(error),
        }
    }
}
