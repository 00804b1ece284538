//! Two sides, compared whole: sums of every part in one pass over each, then only the parts that differ, row by row.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::rowhash::RowSum;
use pgrunbook_postgres::{ConnectOptions, Lsn};

use super::bucket::{Buckets, Looked, unequal};
use super::error::ParityError;
use super::pair::{Finding, Pair, Which, fields, pairs};
use super::rows::Skip;
use super::side::Side;
use crate::transfer::sqlite::Choices;

/// Where a side is.
#[derive(Debug, Clone)]
pub enum Place {
    /// A schema of a database.
    Postgres { options: Box<ConnectOptions>, schema: String },
    /// A file, and what was said of its columns in the words of a transfer's `map`: how moments are counted, and what is not
    /// compared. The types are the other side's.
    Sqlite { path: std::path::PathBuf, choices: Choices },
}

/// What is compared, and how.
pub struct Ask<'a> {
    /// Only these tables, by name; all if none is named.
    pub tables: &'a [String],
    /// Not these.
    pub exclude: &'a [String],
    /// Connections on each side, all in one snapshot.
    pub jobs: usize,
    /// Differences of each table that are kept with their values. All are counted.
    pub shown: usize,
    pub application_name: &'a str,
    pub cancel: &'a Cancel,
    /// Told of every table that is done: how many, of how many.
    pub tell: &'a (dyn Fn(u64, u64) + Send + Sync),
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Parity {
    pub sides: [Seen; 2],
    pub tables: Vec<TableParity>,
    pub findings: Vec<Finding>,
    pub took: Duration,
}

/// A side as it was read.
#[derive(Debug, Clone)]
pub struct Seen {
    pub label: String,
    /// `pg_current_snapshot()`; none of a file.
    pub snapshot: Option<String>,
    /// A position that is not before any commit that the snapshot sees.
    pub lsn: Option<Lsn>,
}

/// One table of both sides.
#[derive(Debug, Clone)]
pub struct TableParity {
    pub name: String,
    /// The columns of the key; empty where whole rows were compared.
    pub key: Vec<String>,
    pub sums: [RowSum; 2],
    /// Rows whose keys were left out.
    pub skipped: [u64; 2],
    pub totals: Totals,
    /// The first of the differences.
    pub listed: Vec<Difference>,
}

impl TableParity {
    /// All rows of B, with those that were left out.
    pub(super) fn rows_of_b(&self) -> i64 {
        i64::try_from(self.sums[1].rows + self.skipped[1]).unwrap_or(i64::MAX)
    }

    /// Takes what was found in other rows of the table.
    pub(super) fn merge(&mut self, other: Self, shown: usize) {
        for (sum, more) in self.sums.iter_mut().zip(other.sums) {
            sum.merge(more);
        }
        let (totals, more) = (&mut self.totals, other.totals);
        totals.missing_in_a += more.missing_in_a;
        totals.missing_in_b += more.missing_in_b;
        totals.differ += more.differ;
        self.listed.extend(other.listed);
        self.listed.truncate(shown);
    }
}

/// How many rows differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub missing_in_a: u64,
    pub missing_in_b: u64,
    pub differ: u64,
}

impl Totals {
    /// One row more that is not the same.
    pub(super) fn count(&mut self, order: Ordering) {
        match order {
            Ordering::Less => self.missing_in_b += 1,
            Ordering::Greater => self.missing_in_a += 1,
            Ordering::Equal => self.differ += 1,
        }
    }

    pub fn all(self) -> u64 {
        self.missing_in_a + self.missing_in_b + self.differ
    }
}

/// A row that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The identifying fields in their binary form, each with its length: what tells the row apart.
    pub(super) bytes: Vec<u8>,
    /// Its key in words: column and value, or the whole row where there is no key.
    pub key: Vec<(String, Option<String>)>,
    pub what: What,
}

/// In which way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    MissingInA,
    MissingInB,
    Differs(Vec<Cell>),
}

/// A column whose two values differ; None is NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    pub column: String,
    pub values: [Option<String>; 2],
}

impl Parity {
    /// Whether the two sides hold the same.
    pub fn holds(&self) -> bool {
        self.differences() == 0 && !self.findings.iter().any(Finding::is_difference)
    }

    /// Rows that differ.
    pub fn differences(&self) -> u64 {
        self.tables.iter().map(|table| table.totals.all()).sum()
    }

    /// Rows of one side.
    pub fn rows(&self, which: Which) -> u64 {
        self.tables.iter().map(|table| which.of(&table.sums).rows).sum()
    }
}

/// Compares two sides, each in one snapshot of its own.
///
/// The two snapshots are of two moments: it is a proof where nobody writes in between (a fence, a restored copy). Under
/// writers see [`super::base_pass`].
///
/// # Errors
/// [`ParityError`] if a side cannot be read whole; differences are no error.
pub async fn compare(places: [&Place; 2], ask: &Ask<'_>) -> Result<Parity, ParityError> {
    tokio::select! {
        parity = all(places, ask) => parity,
        () = ask.cancel.stopping() => Err(ParityError::Interrupted),
    }
}

async fn all(places: [&Place; 2], ask: &Ask<'_>) -> Result<Parity, ParityError> {
    let begun = Instant::now();
    let [a, b] = places;
    let open = |which, place| Side::open(which, place, ask.jobs, ask.application_name);
    let (a, b) = tokio::try_join!(open(Which::A, a), open(Which::B, b))?;
    let sides = [a, b];
    let (pairs, findings) = matched(&sides, ask.tables, ask.exclude).await?;
    let mut tables = Vec::new();
    for pair in &pairs {
        tables.push(table(&sides, pair, ask.shown, &Skip::default()).await?);
        (ask.tell)(tables.len() as u64, pairs.len() as u64);
    }
    let seen = sides.each_ref().map(Side::seen);
    Ok(Parity { sides: seen, tables, findings, took: begun.elapsed() })
}

/// The tables of both sides, set against each other.
pub(super) async fn matched(
    sides: &[Side; 2],
    tables: &[String],
    exclude: &[String],
) -> Result<(Vec<Arc<Pair>>, Vec<Finding>), ParityError> {
    let [(a, left_of_a), (b, left_of_b)] = [sides[0].tables().await?, sides[1].tables().await?];
    let (pairs, mut findings) = pairs([a, b], tables, exclude)?;
    let named = |finding: &Finding| match finding {
        Finding::NotCompared { table, .. } => (tables.is_empty() || tables.contains(table)) && !exclude.contains(table),
        _ => true,
    };
    findings.extend(left_of_a.into_iter().chain(left_of_b).filter(named));
    Ok((pairs.into_iter().map(Arc::new).collect(), findings))
}

/// Compares one table.
pub(super) async fn table(
    sides: &[Side; 2],
    pair: &Arc<Pair>,
    shown: usize,
    skip: &Skip,
) -> Result<TableParity, ParityError> {
    let buckets = Arc::new(Buckets::new(pair, extremes(sides, pair).await?));
    let (a, b) = tokio::try_join!(sides[0].sums(pair, &buckets, skip), sides[1].sums(pair, &buckets, skip))?;
    let mut found = TableParity {
        name: pair.name.clone(),
        key: pair.columns[..pair.key_len].iter().map(|column| column.name.clone()).collect(),
        sums: [a.total(), b.total()],
        skipped: [a.skipped, b.skipped],
        totals: Totals::default(),
        listed: Vec::new(),
    };
    let unequal = unequal(&a, &b);
    if unequal.is_empty() {
        return Ok(found);
    }
    let mut unlike = Vec::new();
    for looked in buckets.conditions(pair, &unequal) {
        let seen = [RowSum::default(); 2];
        let mut merge = Merge { pair, skip, shown, seen, totals: &mut found.totals, unlike: &mut unlike };
        merge.run(sides, &buckets, &looked).await?;
        let seen = merge.seen;
        for ((side, first), again) in sides.iter().zip([&a, &b]).zip(seen) {
            if first.of(&looked.buckets) != again {
                return Err(ParityError::Unsteady { side: side.label().to_owned(), table: pair.name.clone() });
            }
        }
    }
    for one in unlike {
        found.listed.push(in_words(sides, pair, one).await?);
    }
    Ok(found)
}

async fn extremes(sides: &[Side; 2], pair: &Arc<Pair>) -> Result<Option<(i64, i64)>, ParityError> {
    let Some(key) = Buckets::ranged(pair) else { return Ok(None) };
    let (a, b) = tokio::try_join!(sides[0].extremes(pair, key), sides[1].extremes(pair, key))?;
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (one, other) => one.or(other),
    })
}

/// The second look: both sides' rows of the unequal parts, in one order.
struct Merge<'a> {
    pair: &'a Arc<Pair>,
    skip: &'a Skip,
    shown: usize,
    seen: [RowSum; 2],
    totals: &'a mut Totals,
    unlike: &'a mut Vec<Unlike>,
}

/// Rows that are not the same, as bytes.
pub(super) struct Unlike {
    pub key: Vec<u8>,
    /// Less: only A has it. Greater: only B has it.
    pub order: Ordering,
    pub rows: [Vec<u8>; 2],
}

impl Merge<'_> {
    async fn run(&mut self, sides: &[Side; 2], buckets: &Arc<Buckets>, looked: &Looked) -> Result<(), ParityError> {
        let mut a = sides[0].ordered(self.pair, buckets, looked);
        let mut b = sides[1].ordered(self.pair, buckets, looked);
        loop {
            a.fill().await?;
            b.fill().await?;
            let order = match (a.front(), b.front()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a[..self.pair.key_end(a)].cmp(&b[..self.pair.key_end(b)]),
            };
            let row_a = a.front().filter(|_| order.is_le()).unwrap_or_default();
            let row_b = b.front().filter(|_| order.is_ge()).unwrap_or_default();
            self.judge(order, row_a, row_b)?;
            if order.is_le() {
                a.advance();
            }
            if order.is_ge() {
                b.advance();
            }
        }
    }

    fn judge(&mut self, order: Ordering, a: &[u8], b: &[u8]) -> Result<(), ParityError> {
        let row = if order.is_le() { a } else { b };
        let key = &row[..self.pair.key_end(row)];
        if self.skip.has(key)? {
            return Ok(());
        }
        if order.is_le() {
            self.seen[0].add(a);
        }
        if order.is_ge() {
            self.seen[1].add(b);
        }
        if a == b {
            return Ok(());
        }
        self.totals.count(order);
        if self.unlike.len() < self.shown {
            self.unlike.push(Unlike { key: key.to_vec(), order, rows: [a.to_vec(), b.to_vec()] });
        }
        Ok(())
    }
}

/// Puts a difference in words: a server that knows the types prints the values.
pub(super) async fn in_words(sides: &[Side; 2], pair: &Pair, one: Unlike) -> Result<Difference, ParityError> {
    let mut key = Vec::new();
    for (column, value) in pair.identifying().iter().zip(fields(&one.key)) {
        key.push((column.name.clone(), Side::text(sides, column, value).await?));
    }
    let what = match (one.order, &one.rows) {
        (Ordering::Less, _) => What::MissingInB,
        (Ordering::Greater, _) => What::MissingInA,
        (Ordering::Equal, [a, b]) => {
            let mut cells = Vec::new();
            for (column, (a, b)) in pair.columns.iter().zip(fields(a).into_iter().zip(fields(b))) {
                if a != b {
                    let values = [Side::text(sides, column, a).await?, Side::text(sides, column, b).await?];
                    cells.push(Cell { column: column.name.clone(), values });
                }
            }
            What::Differs(cells)
        }
    };
    Ok(Difference { bytes: one.key, key, what })
}
