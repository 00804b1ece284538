//! What can go wrong while two sides are compared. Nothing is changed by a comparison.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;
use pgrunbook_postgres::copy::CopyError;

/// Why two sides cannot be compared, or rows not be repaired.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// A server said no, or is not there.
    #[error("{side}: {error}")]
    Server { side: String, error: PgError },
    /// A server sent what binary COPY never is.
    #[error("{side}: what came of table {table} is not what COPY writes: {error}")]
    Copy { side: String, table: String, error: CopyError },
    /// A file cannot be read.
    #[error("{side}: {error}")]
    Sqlite { side: String, error: rusqlite::Error },
    /// A value of a file that has no place in the column's type on the other side.
    #[error("{side}: {column} holds {found} in the row {key}: it {why}")]
    Value { side: String, column: String, key: String, found: String, why: String },
    /// A type that the values of a file cannot be compared with.
    #[error("{table}.{column} is {type_name}: values of a SQLite file cannot be compared with it")]
    Type { table: String, column: String, type_name: String },
    /// Something was said of a column that a file does not have.
    #[error("{side}: `map` names {key}, and there is no such table or column")]
    Unmapped { side: String, key: String },
    /// A table was named that neither side has.
    #[error("there is no table {0} on either side")]
    NoTable(String),
    /// Nothing was there to compare: that proves nothing.
    #[error("there is no table that both sides have")]
    Nothing,
    /// A table without a column that both sides have.
    #[error("table {0} has no column that both sides have")]
    NoColumn(String),
    /// What was read again is not what was read first.
    #[error("{side}: table {table} was read twice in one snapshot, and the rows were not the same")]
    Unsteady { side: String, table: String },
    /// A key in a form that cannot be compared with what COPY gives.
    #[error(
        "table {table}: the stream gives the key column {column} as text, and {type_name} is compared in its binary form"
    )]
    KeyText { table: String, column: String, type_name: String },
    /// A change of a table that is not compared, or that has no key.
    #[error("table {table} has no key that tells its rows apart, so changes of it cannot be followed row by row")]
    NoKey { table: String },
    /// The file that dirty keys are spilled to.
    #[error("dirty keys cannot be kept in {path}: {error}")]
    Spill { path: String, error: std::io::Error },
    /// The project's secret by which rows are named in evidence.
    #[error("rows cannot be named: {path}: {error}")]
    Naming { path: String, error: std::io::Error },
    /// Where the two sides meet could not be found.
    #[error("{0}")]
    Aligned(String),
    /// No rows can be read as the role.
    #[error("{0}")]
    Samples(String),
    /// A repair would do what it cannot, or did what it should not have done.
    #[error("{0}. Nothing was changed.")]
    Repair(String),
    /// A repair was asked of a side that is a file.
    #[error("{0} is a SQLite file, and a repair writes to a database only. Nothing was changed.")]
    IntoFile(String),
    #[error("stopped before the comparison was done")]
    Interrupted,
    /// A task of this program ended early.
    #[error("{0}")]
    Task(String),
}

impl ParityError {
    /// Stable name of what went wrong.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Server { .. } => "server",
            Self::Copy { .. } => "parity-copy",
            Self::Sqlite { .. } => "parity-sqlite",
            Self::Value { .. } => "parity-value",
            Self::Unmapped { .. } => "parity-map",
            Self::Type { .. } => "parity-type",
            Self::NoTable(_) => "no-table",
            Self::Nothing => "nothing-examined",
            Self::NoColumn(_) => "parity-columns",
            Self::Unsteady { .. } => "parity-unsteady",
            Self::KeyText { .. } => "parity-key",
            Self::NoKey { .. } => "parity-no-key",
            Self::Spill { .. } => "parity-spill",
            Self::Naming { .. } => "parity-naming",
            Self::Aligned(_) => "parity-aligned",
            Self::Samples(_) => "parity-samples",
            Self::Repair(_) | Self::IntoFile(_) => "parity-repair",
            Self::Interrupted => "interrupted",
            Self::Task(_) => "parity-task",
        }
    }

    /// What to do next.
    fn help(&self) -> &'static str {
        match self {
            Self::Server { .. } => {
                "read the server's answer; the comparison needs SELECT on all tables, and sees all rows or fails"
            }
            Self::Copy { .. } | Self::Task(_) => "run it again; if it happens again, report it as a fault of pgrunbook",
            Self::Sqlite { .. } => "look whether the file is whole (`PRAGMA quick_check`) and not locked",
            Self::Value { .. } => "correct the value, or say in `map` how the column counts moments",
            Self::Unmapped { .. } => "write `map` as the transfer has it: `table.column`, or a `table` that is skipped",
            Self::Type { .. } => "leave the table out with `exclude`, or map the column to another type",
            Self::NoTable(_) | Self::Nothing => "look at the schemas' names and the filters `tables` and `exclude`",
            Self::NoColumn(_) => "look whether the two are the same table",
            Self::Unsteady { .. } => {
                "run it again; a server of the other byte order cannot be looked into by key hashes"
            }
            Self::KeyText { .. } => "read the stream with the option binary 'true'",
            Self::NoKey { .. } => "give the table a primary key, or compare it whole while its writers are fenced",
            Self::Naming { .. } => "look at its rights; without it a new one is made, and rows get other names",
            Self::Spill { .. } => "look at free space and rights of the folder",
            Self::Aligned(_) => "look at the state of the transfer, then run it again",
            Self::Samples(_) => {
                "samples are read from a database, of tables with a primary key; leave them out where there are none"
            }
            Self::Repair(_) => "compare again and look at the rows; they may have changed in between",
            Self::IntoFile(_) => {
                "make the database side B, if the file is right; else correct the file as its application would"
            }
            Self::Interrupted => "run it again",
        }
    }

    pub(super) fn server(side: &str) -> impl Fn(PgError) -> Self + Copy + '_ {
        move |error| Self::Server { side: side.to_owned(), error }
    }

    pub(super) fn sqlite(side: &str) -> impl Fn(rusqlite::Error) -> Self + Copy + '_ {
        move |error| Self::Sqlite { side: side.to_owned(), error }
    }
}

impl From<ParityError> for StepError {
    fn from(error: ParityError) -> Self {
        let text =
            format!("{error}{}", if error.to_string().ends_with("changed.") { "" } else { ". Nothing was changed." });
        let help = error.help();
        match error {
            ParityError::Interrupted => Self::interrupted(text),
            ParityError::Server { error: server, side } => {
                let step = server.into_step_error();
                Self { message: format!("{side}: {}", step.message), ..step }
            }
            other @ ParityError::IntoFile(_) => Self::unusable(other.code(), text).help(help),
            other => Self::failed(other.code(), text).help(help).source(other),
        }
    }
}
