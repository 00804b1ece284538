//! What the target has of a file, and how the file differs from it: by whole rows, with or without a key.
//!
//! A row is known by the hash of its canonical bytes, and found again by where it lies in the target (`ctid`), which only
//! we change while it is fenced. A changed row is one that is gone and one that is new. The truth is always the target: what
//! is kept here is read from it, and read again after any doubt.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::pin::pin;

use futures_util::StreamExt;
use pgrunbook_postgres::copy::{CopyError, RowSplitter};
use pgrunbook_postgres::rowhash::RowSum;
use pgrunbook_postgres::{PgError, Session};
use rusqlite::Connection;
use xxhash_rust::xxh3::xxh3_128;

use super::error::{BadValue, SqliteError};
use super::jsonb;
use super::kind::{Kind, described, excerpt};
use super::prove::no_replacement;
use super::shape::{Carried, Shape};

/// The rows that the target has, by table of the shape: hash and place, sorted. 32 bytes for each row.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub tables: Vec<Vec<Seen>>,
    /// Over the same bytes, in the manner of parity.
    pub sums: Vec<RowSum>,
}

/// One row of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub hash: u128,
    /// Block and offset.
    pub at: u64,
}

impl Seen {
    /// As the type `tid` is written.
    pub fn tid(self) -> String {
        format!("({},{})", self.at >> 16, self.at & 0xFFFF)
    }
}

/// Rows that one statement names by where they lie.
pub const AT_ONCE: usize = 20_000;

/// Places as a text of type `tid[]`.
pub fn tids(rows: &[Seen]) -> String {
    let places: Vec<String> = rows.iter().map(|seen| format!("\"{}\"", seen.tid())).collect();
    format!("{{{}}}", places.join(","))
}

/// How a file differs from the target.
#[derive(Debug, Clone, Default)]
pub struct Diff {
    pub tables: Vec<TableDiff>,
}

#[derive(Debug, Clone, Default)]
pub struct TableDiff {
    /// Over the rows of the file that were looked at.
    pub sum: RowSum,
    /// Rows of the target that the file does not have.
    pub gone: Vec<Seen>,
    /// Hashes of rows that the target does not have, and the rows as COPY takes them.
    pub new: Vec<u128>,
    pub bytes: Vec<u8>,
}

impl Diff {
    /// Rows that are gone, and rows that are new.
    pub fn changes(&self) -> (u64, u64) {
        self.tables.iter().fold((0, 0), |(gone, new), one| (gone + one.gone.len() as u64, new + one.new.len() as u64))
    }

    /// Rows of the file that were looked at.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|one| one.sum.rows).sum()
    }

    /// The tables in which another look found something else.
    pub fn unlike(&self, other: &Self, shape: &Shape) -> Vec<String> {
        let differs = |one: &TableDiff, other: &TableDiff| {
            let places = |diff: &TableDiff| {
                let mut gone = diff.gone.clone();
                gone.sort_unstable();
                gone.iter().map(|seen| seen.hash).collect::<Vec<_>>()
            };
            !same(&one.new, &other.new) || places(one) != places(other)
        };
        let tables = shape.tables.iter().zip(self.tables.iter().zip(&other.tables));
        tables.filter(|(_, (one, other))| differs(one, other)).map(|(table, _)| table.name.clone()).collect()
    }

    /// `items: 1 row more here, 2 there`, for each table that differs.
    pub fn words(&self, shape: &Shape) -> Vec<String> {
        let tables =
            self.tables.iter().zip(&shape.tables).filter(|(one, _)| !one.gone.is_empty() || !one.new.is_empty());
        let words = |(one, table): (&TableDiff, &Carried)| {
            format!("{}: {} rows of the file alone, {} of the target alone", table.name, one.new.len(), one.gone.len())
        };
        tables.map(words).collect()
    }
}

/// The bytes that all spellings of a row have in common.
fn common<'a>(table: &Carried, has_jsonb: bool, body: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if !has_jsonb {
        return body;
    }
    scratch.clear();
    let mut rest = body;
    for column in &table.columns {
        let Some((length, after)) = rest.split_first_chunk::<4>() else { break };
        let size = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0).min(after.len());
        let (field, after) = after.split_at(size);
        rest = after;
        let text = match (column.kind, field) {
            (Kind::Jsonb, [1, text @ ..]) => std::str::from_utf8(text).ok().and_then(jsonb::common),
            _ => None,
        };
        match text {
            Some(text) => {
                scratch.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
                scratch.extend_from_slice(text.as_bytes());
            }
            None => {
                scratch.extend_from_slice(length);
                scratch.extend_from_slice(field);
            }
        }
    }
    scratch
}

/// Reads what COPY gives of `ctid` and the table's columns: a place, a hash and the sum for each row.
///
/// # Errors
/// What the server says.
pub async fn returned(session: &Session, table: &Carried, sql: &str) -> Result<(Vec<Seen>, RowSum), PgError> {
    let mut seen = Vec::new();
    let sum = returned_each(session, table, sql, &mut |_, one| seen.push(one)).await?;
    Ok((seen, sum))
}

/// As [`returned`], with each row as the server sent it.
///
/// # Errors
/// What the server says.
pub async fn returned_each(
    session: &Session,
    table: &Carried,
    sql: &str,
    each: &mut (dyn FnMut(&[u8], Seen) + Send),
) -> Result<RowSum, PgError> {
    let columns = u16::try_from(table.columns.len() + 1).unwrap_or(u16::MAX);
    let has_jsonb = table.has_jsonb();
    let mut splitter = RowSplitter::new(columns);
    let (mut sum, mut scratch) = (RowSum::default(), Vec::new());
    let stream = session.client().copy_out(sql).await.map_err(|error| session.error(&error))?;
    let mut stream = pin!(stream);
    let broken = |error: CopyError| PgError::Client(error.to_string());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| session.error(&error))?;
        splitter
            .push(&chunk, |row| {
                // `tid` is sent as four bytes of block and two of offset.
                if let Some(([0, 0, 0, 6, a, b, c, d, e, f], body)) = row.body().split_first_chunk::<10>() {
                    let bytes = common(table, has_jsonb, body, &mut scratch);
                    sum.add(bytes);
                    let at = u64::from_be_bytes([0, 0, *a, *b, *c, *d, *e, *f]);
                    each(body, Seen { hash: xxh3_128(bytes), at });
                }
                Ok::<_, CopyError>(())
            })
            .map_err(broken)?;
    }
    splitter.finish().map_err(broken)?;
    Ok(sum)
}

/// Reads all rows that the target has.
///
/// # Errors
/// If it cannot be read.
pub async fn read_target(session: &Session, schema: &str, shape: &Shape) -> Result<Known, PgError> {
    let mut known = Known::default();
    for table in &shape.tables {
        let (seen, sum) = read_table(session, schema, table).await?;
        known.tables.push(seen);
        known.sums.push(sum);
    }
    Ok(known)
}

/// Reads all rows that the target has in one table, sorted.
///
/// # Errors
/// If it cannot be read.
pub async fn read_table(session: &Session, schema: &str, table: &Carried) -> Result<(Vec<Seen>, RowSum), PgError> {
    let sql = format!("COPY (SELECT ctid, {} FROM {}) TO STDOUT (FORMAT binary)", table.list(), table.place(schema));
    let (mut seen, sum) = returned(session, table, &sql).await?;
    seen.sort_unstable();
    Ok((seen, sum))
}

/// Reads the file, in the transaction that its connection is in, and compares. Blocking.
///
/// # Errors
/// [`SqliteError::Misfit`] for a value that does not fit; if the file cannot be read.
pub fn diff(connection: &Connection, path: &Path, shape: &Shape, known: &Known) -> Result<Diff, SqliteError> {
    let mut all = Diff::default();
    let nothing = Vec::new();
    for (number, table) in shape.tables.iter().enumerate() {
        let known = known.tables.get(number).unwrap_or(&nothing);
        all.tables.push(table_diff(connection, path, shape, table, known)?);
    }
    Ok(all)
}

/// As [`diff()`], of one table. Blocking.
///
/// # Errors
/// As [`diff()`].
pub fn table_diff(
    connection: &Connection,
    path: &Path,
    shape: &Shape,
    table: &Carried,
    known: &[Seen],
) -> Result<TableDiff, SqliteError> {
    let failed = || SqliteError::of(path, format!("read table {}", table.name));
    let mut statement = connection.prepare(&table.select()).map_err(failed())?;
    let mut rows = statement.query([]).map_err(failed())?;
    let mut matcher = Matcher::new(shape, table, known);
    while let Some(row) = rows.next().map_err(failed())? {
        matcher.row(path, row)?;
    }
    Ok(matcher.finish())
}

/// Matches rows of the file with those that the target has.
pub struct Matcher<'a> {
    shape: &'a Shape,
    table: &'a Carried,
    /// Sorted.
    known: &'a [Seen],
    taken: Vec<bool>,
    /// Where in a run of equal rows the next one is that was not met: only of rows that are there several times.
    runs: HashMap<u128, usize>,
    found: TableDiff,
    has_jsonb: bool,
    count: [u8; 2],
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

impl<'a> Matcher<'a> {
    pub fn new(shape: &'a Shape, table: &'a Carried, known: &'a [Seen]) -> Self {
        Self {
            shape,
            table,
            known,
            taken: vec![false; known.len()],
            runs: HashMap::new(),
            found: TableDiff::default(),
            has_jsonb: table.has_jsonb(),
            count: u16::try_from(table.columns.len()).unwrap_or(u16::MAX).to_be_bytes(),
            buffer: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// A row of the file, with the columns that travel.
    ///
    /// # Errors
    /// [`SqliteError::Misfit`] for a value that does not fit; if the file cannot be read.
    pub fn row(&mut self, path: &Path, row: &rusqlite::Row<'_>) -> Result<(), SqliteError> {
        let Self { shape, table, known, taken, runs, found, buffer, scratch, .. } = self;
        buffer.clear();
        for (at, column) in table.columns.iter().enumerate() {
            let value = match row.get_ref(at) {
                Ok(value) => value,
                Err(error) => return Err(SqliteError::of(path, format!("read table {}", table.name))(error)),
            };
            let checked = if shape.utf16 { no_replacement(value) } else { Ok(()) };
            checked.and_then(|()| column.kind.forward(value, buffer)).map_err(|misfit| {
                SqliteError::Misfit(Box::new(BadValue {
                    table: table.name.clone(),
                    column: column.name.clone(),
                    key: key_of(table, row),
                    what: described(value),
                    why: misfit.to_string(),
                }))
            })?;
        }
        let bytes = common(table, self.has_jsonb, buffer, scratch);
        found.sum.add(bytes);
        let hash = xxh3_128(bytes);
        let first = known.partition_point(|seen| seen.hash < hash);
        let is = |at: usize| known.get(at).is_some_and(|seen| seen.hash == hash);
        let at = if is(first + 1) && is(first) { *runs.entry(hash).or_insert(first) } else { first };
        if is(at) && !taken[at] {
            taken[at] = true;
            if let Some(next) = runs.get_mut(&hash) {
                *next += 1;
            }
        } else {
            found.new.push(hash);
            found.bytes.extend_from_slice(&self.count);
            found.bytes.extend_from_slice(buffer);
        }
        Ok(())
    }

    /// What differs.
    pub fn finish(self) -> TableDiff {
        let mut found = self.found;
        let rows = self.known.iter().zip(self.taken);
        found.gone = rows.filter(|(_, taken)| !taken).map(|(seen, _)| *seen).collect();
        found
    }
}

/// The row's key, for people.
fn key_of(table: &Carried, row: &rusqlite::Row<'_>) -> String {
    let part = |at: &usize| {
        let value = row.get_ref(*at).map_or_else(|_| "?".to_owned(), excerpt);
        format!("{} = {value}", table.columns[*at].name)
    };
    match table.key.is_empty() {
        true => "a row without a key".to_owned(),
        false => table.key.iter().map(part).collect::<Vec<_>>().join(", "),
    }
}

/// What the target has after a difference was shipped.
pub fn after(known: &Known, diff: &Diff, placed: Vec<Vec<Seen>>) -> Known {
    let mut after = Known { tables: Vec::new(), sums: diff.tables.iter().map(|one| one.sum).collect() };
    for ((before, diff), placed) in known.tables.iter().zip(&diff.tables).zip(placed) {
        let mut rows: Vec<Seen> = match diff.gone.is_empty() {
            true => before.clone(),
            // Both are sorted.
            false => {
                let mut gone = diff.gone.iter().copied().peekable();
                before.iter().copied().filter(|seen| gone.next_if_eq(seen).is_none()).collect()
            }
        };
        if !placed.is_empty() {
            rows.extend(placed);
            rows.sort_unstable();
        }
        after.tables.push(rows);
    }
    after
}

/// Whether two lists of hashes are the same, in any order.
pub fn same(left: &[u128], right: &[u128]) -> bool {
    let count = |all: &[u128]| {
        let mut counted = BTreeMap::new();
        for hash in all {
            *counted.entry(*hash).or_insert(0_u64) += 1;
        }
        counted
    };
    left.len() == right.len() && count(left) == count(right)
}
