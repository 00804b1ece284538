//! What each column becomes, from what it declares, what it holds, and what the step says.
//!
//! The default loses nothing. Where it cannot be decided without a guess (mixed storage classes, mixed spellings of
//! dates), the column gets the type that its declaration asks for, and the values that do not fit it are refused by name.

use super::calendar::Spelling;
use super::catalog::{Catalog, Collation, Column, Table};
use super::choice::{Choice, Choices, truth};
use super::error::SqliteError;
use super::kind::{Clock, Digits, Kind, Width};
use super::profile::{ColumnStats, Profile};

/// The tables that are carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub tables: Vec<TableMap>,
}

/// A table that is carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    /// As in SQLite and in PostgreSQL.
    pub name: String,
    /// Position in [`Catalog::tables`].
    pub source: usize,
    pub columns: Vec<ColumnMap>,
}

/// A column that is carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnMap {
    pub name: String,
    /// Position in the source's table.
    pub source: usize,
    pub kind: Kind,
    /// Compared byte by byte, as SQLite does it: texts of keys and indexes.
    pub collate_c: bool,
    /// The expression in PostgreSQL's SQL, of a column that the target computes itself: it is not copied.
    pub computed: Option<String>,
}

impl TableMap {
    /// The columns whose values travel, in order.
    pub fn copied(&self) -> impl Iterator<Item = &ColumnMap> {
        self.columns.iter().filter(|column| column.computed.is_none())
    }

    /// The column of a position in the source.
    pub fn of_source(&self, source: usize) -> Option<&ColumnMap> {
        self.columns.iter().find(|column| column.source == source)
    }
}

/// Decides for every column.
///
/// # Errors
/// [`SqliteError::Choice`] for a key of `[map]` that names nothing in the file.
pub fn propose(profile: &Profile, choices: &Choices) -> Result<Mapping, SqliteError> {
    known(&profile.catalog, choices)?;
    let mut tables = Vec::new();
    for (source, (table, stats)) in profile.catalog.tables.iter().zip(&profile.tables).enumerate() {
        if choices.skips_table(&table.name) {
            continue;
        }
        let mut columns = Vec::new();
        for (at, (column, stats)) in table.columns.iter().zip(&stats.columns).enumerate() {
            let kind = match choices.column(&table.name, &column.name) {
                Some(choice) => choice.kind(stats),
                None => Some(default_kind(column, stats)),
            };
            let Some(kind) = kind else { continue };
            let collate_c = kind == Kind::Text && (table.is_indexed(at) || column.collation != Collation::Binary);
            columns.push(ColumnMap { name: column.name.clone(), source: at, kind, collate_c, computed: None });
        }
        tables.push(TableMap { name: table.name.clone(), source, columns });
    }
    Ok(Mapping { tables })
}

fn known(catalog: &Catalog, choices: &Choices) -> Result<(), SqliteError> {
    for (key, word, choice) in choices.keys() {
        let is_table = catalog.tables.iter().any(|table| table.name == key);
        if is_table && choice == Choice::Skip {
            continue;
        }
        let names = |table: &Table| table.columns.iter().any(|column| format!("{}.{}", table.name, column.name) == key);
        if !catalog.tables.iter().any(names) {
            let tables: Vec<&str> = catalog.tables.iter().map(|table| table.name.as_str()).collect();
            let table = catalog
                .tables
                .iter()
                .find(|table| key.strip_prefix(&table.name).is_some_and(|rest| rest.starts_with('.')));
            let why = match table {
                _ if is_table => "of a whole table only `skip` can be said".to_owned(),
                Some(table) => {
                    let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
                    format!("no such column; table {} has {}", table.name, columns.join(", "))
                }
                None => format!("no such table; there is {}", tables.join(", ")),
            };
            return Err(SqliteError::Choice { key: key.to_owned(), value: word.to_owned(), why });
        }
    }
    Ok(())
}

/// The declared type's first word, in capitals.
fn first_word(declared: &str) -> String {
    declared.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default().to_ascii_uppercase()
}

pub(super) fn declares_truth(declared: &str) -> bool {
    matches!(first_word(declared).as_str(), "BOOLEAN" | "BOOL")
}

pub(super) fn declares_date(declared: &str) -> bool {
    matches!(first_word(declared).as_str(), "DATE" | "DATETIME" | "TIMESTAMP" | "TIMESTAMPTZ")
}

/// SQLite's affinity of a declared type: <https://www.sqlite.org/datatype3.html>, section 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

pub(super) fn affinity(declared: &str) -> Affinity {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        Affinity::Integer
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Affinity::Text
    } else if has("BLOB") || declared.is_empty() {
        Affinity::Blob
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Affinity::Real
    } else {
        Affinity::Numeric
    }
}

fn default_kind(column: &Column, stats: &ColumnStats) -> Kind {
    let word = first_word(&column.declared);
    match word.as_str() {
        "BOOLEAN" | "BOOL" => return Kind::Boolean(truth(stats)),
        "DATE" | "DATETIME" | "TIMESTAMP" | "TIMESTAMPTZ" => return date_kind(&word, stats),
        "JSON" => return Kind::Json,
        "NUMERIC" | "DECIMAL" => return Kind::Numeric(Digits::Number),
        // STRICT tables know it; elsewhere it has the affinity NUMERIC.
        "ANY" | "" => return as_found(stats),
        _ => {}
    }
    match affinity(&column.declared) {
        Affinity::Integer => Kind::Integer(Width::Eight),
        Affinity::Text => Kind::Text,
        Affinity::Real => Kind::Double,
        Affinity::Blob => Kind::Bytea,
        // A name that SQLite does not know (STRING, MONEY, TIME): what it turned into numbers are numbers.
        Affinity::Numeric => as_found(stats),
    }
}

/// The one storage class that was found. Of several, the first that is there: the others' values are refused.
fn as_found(stats: &ColumnStats) -> Kind {
    if stats.texts > 0 {
        Kind::Text
    } else if stats.blobs > 0 {
        Kind::Bytea
    } else if stats.reals > 0 && stats.integers > 0 {
        Kind::Numeric(Digits::Number)
    } else if stats.reals > 0 {
        Kind::Double
    } else if stats.integers > 0 {
        Kind::Integer(Width::Eight)
    } else {
        Kind::Text
    }
}

fn date_kind(word: &str, stats: &ColumnStats) -> Kind {
    let (zoned, plain) = stats.zones();
    let iso = |default: Spelling| Clock::Iso(stats.spelling().unwrap_or(default));
    if zoned > plain {
        Kind::Timestamptz(iso(Spelling::UTC))
    } else if plain > 0 && plain >= stats.dates {
        Kind::Timestamp(iso(Spelling::PLAIN))
    } else if stats.dates > 0 {
        Kind::Date
    } else {
        match word {
            "DATE" => Kind::Date,
            "TIMESTAMPTZ" => Kind::Timestamptz(Clock::Iso(Spelling::UTC)),
            _ => Kind::Timestamp(Clock::Iso(Spelling::PLAIN)),
        }
    }
}
