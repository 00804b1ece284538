//! What a batch is to do to one table.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::lsn::Lsn;
use crate::pgoutput::{Cell, Relation, Row};

use super::PassOver;
use super::copy::Format;
use super::destination::Destination;
use super::fold::{self, Clash, Op, Step};

/// A table of the stream.
pub(super) struct Table {
    pub relation: Arc<Relation>,
    pub destination: Arc<Destination>,
    /// What of it is passed over.
    pub pass_over: Option<PassOver>,
    pub pending: Pending,
}

/// Folded changes that wait for the end of the batch.
#[derive(Default)]
pub(super) struct Pending {
    /// In which form each column comes; unknown while there were only NULLs.
    pub forms: Vec<Option<Format>>,
    /// By the bytes of the key.
    pub rows: HashMap<Box<[u8]>, Folded, Hashing>,
    /// Where rows have no key: by the bytes of the whole row, how many more (or fewer) there are to be of it.
    pub bag: HashMap<Box<[u8]>, Counted, Hashing>,
}

/// XXH3 with a seed that nobody outside can know: keys are the source's, and each row is hashed.
#[derive(Clone)]
pub(super) struct Hashing(u64);

impl Default for Hashing {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for Hashing {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher(self.0)
    }
}

pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(super) struct Folded {
    pub op: Op,
    /// Of the last transaction that changed it.
    pub lsn: Lsn,
}

pub(super) struct Counted {
    pub row: Row,
    pub more: i64,
    pub lsn: Lsn,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.bag.is_empty()
    }

    /// Folds a change of the row with this key.
    pub(super) fn change(&mut self, key: Box<[u8]>, step: Step, lsn: Lsn) -> Result<(), Clash> {
        match self.rows.entry(key) {
            Entry::Vacant(entry) => {
                if let Some(op) = fold::next(None, step)? {
                    entry.insert(Folded { op, lsn });
                }
            }
            Entry::Occupied(entry) => {
                let (key, folded) = entry.remove_entry();
                if let Some(op) = fold::next(Some(folded.op), step)? {
                    self.rows.insert(key, Folded { op, lsn });
                }
            }
        }
        Ok(())
    }

    /// Takes what waits, and leaves room for as much again.
    pub(super) fn take(&mut self) -> Self {
        let (rows, bag) = (self.rows.len(), self.bag.len());
        let hashing = self.rows.hasher().clone();
        let empty = Self {
            forms: Vec::new(),
            rows: HashMap::with_capacity_and_hasher(rows, hashing.clone()),
            bag: HashMap::with_capacity_and_hasher(bag, hashing),
        };
        std::mem::replace(self, empty)
    }

    /// Counts a row without a key.
    pub(super) fn count(&mut self, row: Row, more: i64, lsn: Lsn) {
        let entry = self.bag.entry(bytes_of(row.iter())).or_insert(Counted { row, more: 0, lsn });
        entry.more += more;
        entry.lsn = lsn;
    }

    /// Whether a row comes in the same forms as those before it; notes them.
    pub(super) fn takes(&mut self, row: &Row) -> Took {
        self.forms.resize(row.len().max(self.forms.len()), None);
        let mut took = Took::AsKnown;
        for (cell, form) in row.iter().zip(&mut self.forms) {
            match (form_of(cell), *form) {
                (None, _) => {}
                (Some(new), None) => {
                    *form = Some(new);
                    took = Took::Learning;
                }
                (Some(new), Some(known)) if new == known => {}
                (Some(_), Some(_)) => return Took::Otherwise,
            }
        }
        took
    }
}

/// How the forms of a row's cells compare with those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Took {
    AsKnown,
    /// A column had a value for the first time.
    Learning,
    Otherwise,
}

impl Table {
    /// Whether the rows that were copied have what a transaction did: the applier has come to `reached`.
    pub(super) fn is_passed_over(&self, xid: u32, reached: Lsn) -> bool {
        self.pass_over.as_ref().is_some_and(|rule| reached <= rule.until && rule.snapshot.sees(xid))
    }

    /// Why the cells cannot be given to the server as they come: a value in the binary form of one type may well be a valid
    /// value of another, and a wrong one.
    pub(super) fn unfit(&self) -> Option<String> {
        let columns = self.destination.columns.iter().zip(&self.pending.forms).zip(&self.relation.columns);
        columns.into_iter().find_map(|((target, form), column)| {
            let wrong = *form == Some(Format::Binary) && !target.binary_fits;
            wrong.then(|| {
                format!(
                    "column `{}` comes in the binary form of another type (OID {}) than its own, {}; read the stream \
                     without `binary`",
                    column.name, column.type_oid, target.type_name
                )
            })
        })
    }
}

fn form_of(cell: &Cell) -> Option<Format> {
    match cell {
        Cell::Null | Cell::Unchanged => None,
        Cell::Text(_) => Some(Format::Text),
        Cell::Binary(_) => Some(Format::Binary),
    }
}

/// Cells as bytes that are equal only for equal cells. Numbers and timestamps in binary sort by their value, as far as they are
/// positive, so that a sorted batch walks the index in order.
pub(super) fn bytes_of<'a>(cells: impl Iterator<Item = &'a Cell>) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(16);
    for cell in cells {
        let (tag, value): (u8, &[u8]) = match cell {
            Cell::Null => (0, &[]),
            Cell::Unchanged => (1, &[]),
            Cell::Text(value) => (2, value),
            Cell::Binary(value) => (3, value),
        };
        bytes.push(tag);
        bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
        bytes.extend_from_slice(value);
    }
    bytes.into_boxed_slice()
}

/// The key of a row, if all of it is there.
pub(super) fn key_of(destination: &Destination, row: &Row) -> Option<Box<[u8]>> {
    let cells = destination.key.iter().map(|key| row.get(key.column));
    if cells.clone().any(|cell| cell.is_none_or(|cell| matches!(cell, Cell::Unchanged))) {
        return None;
    }
    Some(bytes_of(cells.flatten()))
}

/// What a row costs in memory, about: the cells and what the allocator takes.
pub(super) fn row_size(row: &Row) -> usize {
    let values: usize = row
        .iter()
        .map(|cell| match cell {
            Cell::Text(bytes) | Cell::Binary(bytes) => bytes.len(),
            Cell::Null | Cell::Unchanged => 0,
        })
        .sum();
    values + row.len() * size_of::<Cell>() + 128
}

/// The key of a row for people.
pub(super) fn shown_key(destination: &Destination, relation: &Relation, row: &Row) -> String {
    let shown = destination.key.iter().filter_map(|key| {
        let (column, cell) = (relation.columns.get(key.column)?, row.get(key.column)?);
        Some(format!("{}={}", column.name, shown_cell(column.type_oid, cell)))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn shown_cell(type_oid: u32, cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Unchanged => "(not sent)".to_owned(),
        Cell::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        // int8, int2 and int4; name, text, bpchar and varchar.
        Cell::Binary(bytes) => match (type_oid, &bytes[..]) {
            (20, &[a, b, c, d, e, f, g, h]) => i64::from_be_bytes([a, b, c, d, e, f, g, h]).to_string(),
            (21, &[a, b]) => i16::from_be_bytes([a, b]).to_string(),
            (23, &[a, b, c, d]) => i32::from_be_bytes([a, b, c, d]).to_string(),
            (19 | 25 | 1042 | 1043, text) => String::from_utf8_lossy(text).into_owned(),
            (_, other) => other.iter().map(|byte| format!("{byte:02x}")).collect(),
        },
    }
}
