//! Which table of one side stands against which of the other, and how their columns are read so that equal rows give
//! equal bytes.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_postgres::quote;
use pgrunbook_postgres::relation::{FIRST_USER_OID, Generated, Shape, Table, TableKind, Travels, TypeKind};

use super::error::ParityError;
use crate::transfer::sqlite::{Kind, common_jsonb};

/// `text`.
pub(super) const TEXT: u32 = 25;
/// `jsonb`.
pub(super) const JSONB: u32 = 3802;
/// `bigint`, `smallint` and `integer`.
pub(super) const INTEGERS: [u32; 3] = [20, 21, 23];

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    A,
    B,
}

impl Which {
    /// Of a pair of things, this side's.
    pub fn of<T>(self, pair: &[T; 2]) -> &T {
        &pair[self as usize]
    }

    /// Its letter.
    pub fn word(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }
}

/// A table as one side has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SideTable {
    pub name: String,
    /// What stands behind FROM; for a file its quoted name.
    pub from: String,
    pub columns: Vec<SideColumn>,
    /// Partitions that hold its rows: the stream may name them in its stead.
    pub leaves: Vec<String>,
    /// Columns of the key; empty where there is none.
    pub key: Vec<String>,
    pub rows_estimate: u64,
    /// Blocks, where ranges of them can be read by themselves.
    pub pages: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct SideColumn {
    pub name: String,
    pub type_name: String,
    /// None in a file.
    pub type_oid: Option<u32>,
    /// Its binary form is not the same in another database, or there is none.
    pub needs_text: bool,
    /// Its binary form is its label.
    pub is_enum: bool,
    /// The server computes it: it is compared, and never written.
    pub is_generated: bool,
    /// Of a file: how it counts moments, where that was said.
    pub kind: Option<Kind>,
}

/// A table that both sides have.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub name: String,
    /// The key's columns first, in the key's order; then the others by name.
    pub(super) columns: Vec<Column>,
    /// How many of them are the key; 0: whole rows are compared, as a multiset.
    pub(super) key_len: usize,
    pub(super) sides: [SideTable; 2],
}

/// A column that is compared.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub name: String,
    /// As side A names it, or B where A is a file.
    pub type_name: String,
    /// Of the values as they are compared; none between two files.
    pub oid: Option<u32>,
    /// Read as text, since the types or their binary forms differ.
    pub as_text: bool,
    /// An enumeration of A: its binary form is its text.
    pub is_enum: bool,
    /// `jsonb` beside a file: PostgreSQL spells it anew, so one spelling of both is compared.
    pub is_respelled: bool,
    /// How the file counts moments, where that was said.
    pub kind: Option<Kind>,
}

impl SideTable {
    /// Types are the server's business: a file has none.
    fn is_file(&self) -> bool {
        self.columns.iter().all(|column| column.type_oid.is_none())
    }
}

/// What stands against parity before a row is read, or must be known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A table that this side does not have.
    TableMissing { table: String, from: Which },
    /// Columns that this side's table does not have.
    ColumnsMissing { table: String, from: Which, columns: Vec<String> },
    /// Rows that are elsewhere are not compared.
    NotCompared { table: String, why: String },
    /// What the operator said shall not be compared: for people to know, no difference.
    Skipped { what: String },
    /// Two types that are compared by their text: for people to know, no difference.
    TypesDiffer { table: String, column: String, types: [String; 2] },
}

impl Finding {
    /// Whether it is a difference.
    pub fn is_difference(&self) -> bool {
        !matches!(self, Self::TypesDiffer { .. } | Self::Skipped { .. })
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TableMissing { table, from } => write!(f, "{table}: there is no such table in {}", from.word()),
            Self::ColumnsMissing { table, from, columns } => {
                write!(f, "{table}: {} has no column {}", from.word(), columns.join(", "))
            }
            Self::NotCompared { table, why } => write!(f, "{table}: not compared: {why}"),
            Self::Skipped { what } => write!(f, "{what}: not compared, as was asked"),
            Self::TypesDiffer { table, column, types: [a, b] } => {
                write!(f, "{table}.{column}: {a} in A and {b} in B, compared as text")
            }
        }
    }
}

/// The tables of a PostgreSQL schema whose rows are compared, and what is left out.
pub(super) fn side_tables(described: Vec<Table>, sub_partitioned: &BTreeSet<u32>) -> (Vec<SideTable>, Vec<Finding>) {
    let mut tables = Vec::new();
    let mut left_out = Vec::new();
    let mut leaves: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for table in &described {
        if let TableKind::Leaf { root, .. } = &table.kind {
            leaves.entry(root.clone()).or_default().push(table.name.clone());
        }
    }
    for table in described {
        let only = match &table.kind {
            TableKind::Ordinary => "ONLY ",
            TableKind::Partitioned if sub_partitioned.contains(&table.oid) => continue,
            // Read through its root, so that the two may be cut into partitions in different ways.
            TableKind::Leaf { .. } => continue,
            TableKind::Partitioned => "",
            TableKind::Foreign => {
                left_out.push(Finding::NotCompared { table: table.name, why: "it is a foreign table".to_owned() });
                continue;
            }
        };
        let columns = table.columns.iter().map(|column| SideColumn {
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            type_oid: Some(column.type_oid),
            needs_text: column.travels == Travels::Text
                || column.shape != Shape::Plain
                || column.generated != Generated::No,
            is_enum: column.type_kind == TypeKind::Enum,
            is_generated: column.generated != Generated::No,
            kind: None,
        });
        tables.push(SideTable {
            from: format!("{only}{}", table.sql()),
            columns: columns.collect(),
            leaves: leaves.remove(&table.name).unwrap_or_default(),
            key: table.key.as_ref().map(|key| key.columns.clone()).unwrap_or_default(),
            rows_estimate: table.rows_estimate.map_or(table.pages * 50, |rows| rows as u64),
            pages: (table.kind == TableKind::Ordinary).then_some(table.pages),
            name: table.name,
        });
    }
    (tables, left_out)
}

/// Sets the tables of two sides against each other. `tables`: only these, if any; `exclude`: not these.
pub(super) fn pairs(
    sides: [Vec<SideTable>; 2],
    tables: &[String],
    exclude: &[String],
) -> Result<(Vec<Pair>, Vec<Finding>), ParityError> {
    let wanted = |name: &String| (tables.is_empty() || tables.contains(name)) && !exclude.contains(name);
    let [a, b] = sides.map(|tables| {
        tables.into_iter().map(|table| (table.name.clone(), table)).collect::<BTreeMap<String, SideTable>>()
    });
    if let Some(name) = tables.iter().find(|name| !a.contains_key(*name) && !b.contains_key(*name)) {
        return Err(ParityError::NoTable(name.clone()));
    }
    let names: BTreeSet<String> = a.keys().chain(b.keys()).filter(|name| wanted(name)).cloned().collect();
    let (mut found, mut findings) = (Vec::new(), Vec::new());
    for name in names {
        match (a.get(&name), b.get(&name)) {
            (Some(a), Some(b)) => found.push(pair(a, b, &mut findings)?),
            (None, _) => findings.push(Finding::TableMissing { table: name, from: Which::A }),
            (_, None) => findings.push(Finding::TableMissing { table: name, from: Which::B }),
        }
    }
    if found.is_empty() && findings.is_empty() {
        return Err(ParityError::Nothing);
    }
    Ok((found, findings))
}

fn pair(a: &SideTable, b: &SideTable, findings: &mut Vec<Finding>) -> Result<Pair, ParityError> {
    let missing = |here: &SideTable, there: &SideTable| -> Vec<String> {
        let has = |name: &str| there.columns.iter().any(|column| column.name == name);
        here.columns.iter().filter(|column| !has(&column.name)).map(|column| column.name.clone()).collect()
    };
    for (from, columns) in [(Which::A, missing(b, a)), (Which::B, missing(a, b))] {
        if !columns.is_empty() {
            findings.push(Finding::ColumnsMissing { table: a.name.clone(), from, columns });
        }
    }
    let mut columns: Vec<Column> = Vec::new();
    for one in &a.columns {
        let Some(other) = b.columns.iter().find(|column| column.name == one.name) else { continue };
        let (column, differ) = column(one, other);
        if differ {
            findings.push(Finding::TypesDiffer {
                table: a.name.clone(),
                column: one.name.clone(),
                types: [one.type_name.clone(), other.type_name.clone()],
            });
        }
        columns.push(column);
    }
    if columns.is_empty() {
        return Err(ParityError::NoColumn(a.name.clone()));
    }
    // The key of either side tells rows apart; A's where both have one.
    let usable = |key: &&Vec<String>| {
        !key.is_empty() && key.iter().all(|name| columns.iter().any(|column| column.name == *name))
    };
    let key: &[String] = [&a.key, &b.key].into_iter().find(usable).map_or(&[], Vec::as_slice);
    let place = |column: &Column| key.iter().position(|name| *name == column.name).unwrap_or(usize::MAX);
    columns.sort_by(|one, other| place(one).cmp(&place(other)).then_with(|| one.name.cmp(&other.name)));
    for column in columns.iter_mut().take(key.len()) {
        // Their hashes are computed at the servers, too, with the type's OID among the bytes.
        if column.oid.is_some_and(|oid| oid >= FIRST_USER_OID) {
            (column.as_text, column.oid) = (true, Some(TEXT));
        }
    }
    // Not of what rows are found by: the servers know nothing of our spelling.
    let with_file = a.is_file() || b.is_file();
    for column in columns.iter_mut().skip(key.len()).filter(|_| with_file && !key.is_empty()) {
        column.is_respelled = column.oid == Some(JSONB);
    }
    Ok(Pair { name: a.name.clone(), key_len: key.len(), columns, sides: [a.clone(), b.clone()] })
}

/// How a column is read so that equal values are equal bytes, and whether the types differ.
fn column(a: &SideColumn, b: &SideColumn) -> (Column, bool) {
    let named = |as_text: bool, oid: Option<u32>, type_name: &str| Column {
        name: a.name.clone(),
        type_name: type_name.to_owned(),
        oid,
        as_text,
        is_enum: a.is_enum,
        is_respelled: false,
        kind: a.kind.or(b.kind),
    };
    let (Some(left), Some(right)) = (a.type_oid, b.type_oid) else {
        // A file's values take the form of the other side's type.
        let (oid, typed) = if a.type_oid.is_some() { (a.type_oid, a) } else { (b.type_oid, b) };
        return if typed.needs_text || oid.is_some_and(|oid| oid >= FIRST_USER_OID) {
            (named(true, Some(TEXT), &typed.type_name), false)
        } else {
            (named(false, oid, &typed.type_name), false)
        };
    };
    // Users' types have other OIDs in each database; the same sort of type, by its name, has the same binary form.
    let bare = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let same = left == right
        || (left >= FIRST_USER_OID && right >= FIRST_USER_OID && bare(&a.type_name) == bare(&b.type_name));
    if same && !a.needs_text && !b.needs_text {
        (named(false, Some(left), &a.type_name), false)
    } else {
        (named(true, Some(TEXT), &a.type_name), !same)
    }
}

impl Pair {
    /// The columns, as a PostgreSQL side reads them.
    pub(super) fn select(&self) -> String {
        self.columns.iter().map(Column::select).collect::<Vec<_>>().join(", ")
    }

    /// The columns that make the key, or the whole row where there is none.
    pub(super) fn identifying(&self) -> &[Column] {
        if self.key_len == 0 { &self.columns } else { &self.columns[..self.key_len] }
    }

    /// The same as the fields of one record.
    pub(super) fn record(&self) -> String {
        self.identifying().iter().map(Column::select).collect::<Vec<_>>().join(", ")
    }

    /// Whether a relation of the stream is it, or a partition of it.
    pub(super) fn is_called(&self, relation: &str) -> bool {
        self.name == relation || self.sides.iter().any(|side| side.leaves.iter().any(|leaf| leaf == relation))
    }

    pub(super) fn rows_estimate(&self) -> u64 {
        self.sides.iter().map(|side| side.rows_estimate).max().unwrap_or(0)
    }

    /// A row's bytes as they are compared: equal values, equal bytes. `scratch` is used where something is spelled anew.
    pub(super) fn common<'a>(&self, row: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if !self.columns.iter().any(|column| column.is_respelled) {
            return row;
        }
        scratch.clear();
        for (column, field) in self.columns.iter().zip(fields(row)) {
            let Some(field) = field else {
                scratch.extend_from_slice(&(-1_i32).to_be_bytes());
                continue;
            };
            let start = scratch.len();
            scratch.extend_from_slice(&[0; 4]);
            // A version, then the text: as `jsonb_send` has it.
            match field {
                [1, text @ ..] if column.is_respelled => {
                    let common = std::str::from_utf8(text).ok().and_then(common_jsonb);
                    scratch.push(1);
                    scratch.extend_from_slice(common.as_ref().map_or(text, String::as_bytes));
                }
                _ => scratch.extend_from_slice(field),
            }
            let length = i32::try_from(scratch.len() - start - 4).unwrap_or(i32::MAX);
            scratch[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
        scratch
    }

    /// Where in a row's bytes the identifying fields end.
    pub(super) fn key_end(&self, row: &[u8]) -> usize {
        if self.key_len == 0 {
            return row.len();
        }
        let mut at = 0;
        for _ in 0..self.key_len {
            let length = row.get(at..).and_then(|rest| rest.first_chunk()).map_or(-1, |four| i32::from_be_bytes(*four));
            at += 4 + usize::try_from(length).unwrap_or(0);
        }
        at.min(row.len())
    }
}

impl Column {
    pub(super) fn select(&self) -> String {
        let name = ident(&self.name);
        if self.as_text { format!("{name}::pg_catalog.text") } else { name }
    }
}

/// A name from a catalog, which holds no NUL.
pub(super) fn ident(name: &str) -> String {
    quote::ident(&name.replace('\0', "")).expect("NUL was taken out")
}

/// The fields of a row's bytes; None is NULL.
pub(super) fn fields(row: &[u8]) -> Vec<Option<&[u8]>> {
    let mut fields = Vec::new();
    let mut rest = row;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) if length <= after.len() => {
                fields.push(Some(&after[..length]));
                rest = &after[length..];
            }
            Ok(_) => break,
            Err(_) => {
                fields.push(None);
                rest = after;
            }
        }
    }
    fields
}
