//! Every value there and back: which do not fit, and whose spelling would change.

use std::collections::BTreeMap;

use rusqlite::types::{Value, ValueRef};

use super::catalog::Table;
use super::error::SqliteError;
use super::kind::{Kind, LONGEST, Misfit, described, excerpt};
use super::map::{ColumnMap, Mapping, TableMap};
use super::piece::{self, Piece};
use super::preflight::Reading;
use super::profile::{ColumnStats, Profile};

/// Examples of misfits that are kept for each column.
const EXAMPLES: usize = 5;

/// What was found in one column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// Values, without NULLs.
    pub values: u64,
    /// Values that a write-back would spell otherwise.
    pub respelled: u64,
    /// Values that do not fit, with the first few.
    pub misfits: BTreeMap<&'static str, Misfits>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfits {
    pub count: u64,
    pub why: String,
    /// Key, storage class and length of the value.
    pub examples: Vec<String>,
}

/// By position of the table and of the column in the mapping.
pub type Proofs = BTreeMap<(usize, usize), Proof>;

/// Whether a column's statistics leave a question open.
fn is_open(kind: Kind, stats: &ColumnStats) -> bool {
    let foreign = match kind {
        Kind::Integer(_) => stats.reals + stats.texts + stats.blobs,
        Kind::Double => stats.integers + stats.texts + stats.blobs,
        Kind::Text => stats.integers + stats.reals + stats.blobs,
        Kind::Bytea => stats.integers + stats.reals + stats.texts,
        _ => 0,
    };
    let too_long = stats.longest_bytes >= LONGEST as u64;
    kind.needs_a_look() || foreign + stats.invalid_utf8 + stats.with_nul > 0 || too_long
}

/// Tries every value of the columns whose statistics leave a question open. Blocking.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn prove(
    reading: Reading<'_>,
    profile: &Profile,
    mapping: &Mapping,
    readers: usize,
) -> Result<Proofs, SqliteError> {
    let path = reading.file();
    let connection = reading.open()?;
    let mut pieces = Vec::new();
    let mut open = Vec::new();
    for (number, map) in mapping.tables.iter().enumerate() {
        let stats = &profile.tables[map.source];
        let columns: Vec<usize> = (0..map.columns.len())
            .filter(|at| is_open(map.columns[*at].kind, &stats.columns[map.columns[*at].source]))
            .collect();
        if !columns.is_empty() && stats.rows > 0 {
            pieces.extend(piece::cut(&connection, path, &profile.catalog.tables[map.source], number, 8)?);
        }
        open.push(columns);
    }
    let utf16 = profile.catalog.encoding != "UTF-8";
    let parts = piece::work(
        pieces,
        readers,
        || reading.open(),
        |connection, piece| {
            let map = &mapping.tables[piece.table];
            let table = &profile.catalog.tables[map.source];
            let found = try_piece(connection, piece, table, map, &open[piece.table], utf16)
                .map_err(SqliteError::of(path, format!("read table {}", table.name)))?;
            Ok((piece.table, found))
        },
    )?;
    let mut proofs = Proofs::new();
    for (table, found) in parts {
        for (column, part) in found {
            let proof = proofs.entry((table, column)).or_default();
            proof.values += part.values;
            proof.respelled += part.respelled;
            for (code, more) in part.misfits {
                match proof.misfits.get_mut(code) {
                    Some(sum) => {
                        sum.count += more.count;
                        sum.examples.extend(more.examples);
                        sum.examples.truncate(EXAMPLES);
                    }
                    None => {
                        proof.misfits.insert(code, more);
                    }
                }
            }
        }
    }
    Ok(proofs)
}

fn try_piece(
    connection: &rusqlite::Connection,
    piece: Piece,
    table: &Table,
    map: &TableMap,
    open: &[usize],
    utf16: bool,
) -> rusqlite::Result<BTreeMap<usize, Proof>> {
    let keys = key_columns(table);
    let sources = keys.iter().copied().chain(open.iter().map(|at| map.columns[*at].source));
    let mut sql = piece.select(table, sources);
    // The rowid is the last word about a row without a key.
    if let Some(rowid) = table.rowid.filter(|_| keys.is_empty()) {
        sql = sql.replacen(" FROM main.", &format!(", {rowid} FROM main."), 1);
    }
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut proofs: BTreeMap<usize, Proof> = open.iter().map(|at| (*at, Proof::default())).collect();
    let mut field = Vec::new();
    while let Some(row) = rows.next()? {
        for (position, at) in open.iter().enumerate() {
            let value = row.get_ref(keys.len() + position)?;
            let column = &map.columns[*at];
            let proof = proofs.entry(*at).or_default();
            match there_and_back(column, value, utf16, &mut field) {
                Ok(same) => {
                    proof.values += u64::from(value != ValueRef::Null);
                    proof.respelled += u64::from(!same);
                }
                Err(misfit) => {
                    proof.values += 1;
                    let entry = proof.misfits.entry(misfit.code()).or_insert_with(|| Misfits {
                        count: 0,
                        why: misfit.to_string(),
                        examples: Vec::new(),
                    });
                    entry.count += 1;
                    if entry.examples.len() < EXAMPLES {
                        let key = describe_key(table, &keys, row, keys.len() + open.len());
                        entry.examples.push(format!("{key}: {}", described(value)));
                    }
                }
            }
        }
    }
    Ok(proofs)
}

/// Whether the value comes back as it was.
pub(super) fn there_and_back(
    column: &ColumnMap,
    value: ValueRef<'_>,
    utf16: bool,
    field: &mut Vec<u8>,
) -> Result<bool, Misfit> {
    field.clear();
    if utf16 {
        no_replacement(value)?;
    }
    column.kind.forward(value, field)?;
    if column.kind.is_exact() || value == ValueRef::Null {
        return Ok(true);
    }
    comes_back(column.kind, value, &field[4..])
}

/// Whether the inverse of a field is the value it came from.
pub(super) fn comes_back(kind: Kind, value: ValueRef<'_>, field: &[u8]) -> Result<bool, Misfit> {
    let back = kind.inverse(Some(field))?;
    Ok(ValueRef::from(&back) == value || same_number(&back, value))
}

/// INTEGER 5 and REAL 5.0 are one value to SQLite, and which of them a column of affinity NUMERIC keeps is its own doing.
fn same_number(back: &Value, value: ValueRef<'_>) -> bool {
    let (real, integer) = match (back, value) {
        (Value::Real(real), ValueRef::Integer(integer)) => (*real, integer),
        (Value::Integer(integer), ValueRef::Real(real)) => (real, *integer),
        _ => return false,
    };
    // Beyond 2^53 several integers are one double.
    real.abs() < 9_007_199_254_740_992.0 && real == integer as f64
}

/// SQLite turns UTF-16 that is not well-formed into replacement characters: then nobody can tell which it was.
pub(super) fn no_replacement(value: ValueRef<'_>) -> Result<(), Misfit> {
    match value {
        ValueRef::Text(text) if text.windows(3).any(|three| three == "\u{FFFD}".as_bytes()) => Err(Misfit::InvalidUtf8),
        _ => Ok(()),
    }
}

fn key_columns(table: &Table) -> Vec<usize> {
    table.key.clone()
}

/// `id = 5`, `(a, b) = (1, 'x')`, `rowid = 7`.
fn describe_key(table: &Table, keys: &[usize], row: &rusqlite::Row<'_>, rowid_at: usize) -> String {
    let shown = |at: usize| row.get_ref(at).map_or_else(|_| "?".to_owned(), excerpt);
    let names: Vec<&str> = keys.iter().map(|at| table.columns[*at].name.as_str()).collect();
    let values: Vec<String> = (0..keys.len()).map(shown).collect();
    match (&names[..], &values[..]) {
        ([], _) => match table.rowid {
            Some(_) => format!("rowid = {}", shown(rowid_at)),
            None => "a row without a key".to_owned(),
        },
        ([name], [value]) => format!("{name} = {value}"),
        _ => format!("({}) = ({})", names.join(", "), values.join(", ")),
    }
}
