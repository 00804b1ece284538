//! One scan over every row: what the columns really hold, whatever they declare.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::ValueRef;

use super::calendar::{self, Fraction, NotADate, Spelling, Zone};
use super::catalog::{Catalog, Column, Table, collect, data_version};
use super::error::SqliteError;
use super::expression;
use super::open::quoted;
use super::piece::{self, Piece};
use super::preflight::Reading;

/// A profiled file.
#[derive(Debug, Clone)]
pub struct Profile {
    pub catalog: Catalog,
    /// Of each table of the catalog.
    pub tables: Vec<TableStats>,
    /// Rows of `foreign_key_check`, by table and parent.
    pub orphans: BTreeMap<(String, String), u64>,
    /// Why `foreign_key_check` could not be run.
    pub foreign_key_problem: Option<String>,
    /// What `quick_check` says of values, not of pages: a NULL in a column that is NOT NULL.
    pub violations: Vec<String>,
    /// Somebody committed while it was read.
    pub changed_meanwhile: bool,
}

#[derive(Debug, Clone, Default)]
pub struct TableStats {
    pub rows: u64,
    pub columns: Vec<ColumnStats>,
    /// How many rows do not fulfil a CHECK, by its position.
    pub failed_checks: BTreeMap<usize, u64>,
}

impl TableStats {
    fn empty(table: &Table) -> Self {
        Self { columns: vec![ColumnStats::default(); table.columns.len()], ..Self::default() }
    }

    fn merge(&mut self, part: Self) {
        self.rows += part.rows;
        for (sum, part) in self.columns.iter_mut().zip(part.columns) {
            sum.merge(part);
        }
    }

    /// Bytes of all values, as PostgreSQL will hold them, more or less.
    pub fn bytes(&self) -> u64 {
        self.rows * 28 + self.columns.iter().map(|column| column.bytes).sum::<u64>()
    }
}

/// What a column holds.
#[derive(Debug, Clone, Default)]
pub struct ColumnStats {
    pub nulls: u64,
    pub integers: u64,
    pub reals: u64,
    pub texts: u64,
    pub blobs: u64,
    /// Integers other than 0 and 1.
    pub other_integers: u64,
    pub smallest: Option<i64>,
    pub largest: Option<i64>,
    pub invalid_utf8: u64,
    pub with_nul: u64,
    pub longest_bytes: u64,
    pub bytes: u64,
    /// Of columns that may be truth values: `true` or `false`, `t` or `f`.
    pub words: u64,
    pub letters: u64,
    /// Of columns that may be dates.
    pub dates: u64,
    pub not_dates: u64,
    pub spellings: BTreeMap<Spelling, u64>,
}

impl ColumnStats {
    pub fn values(&self) -> u64 {
        self.integers + self.reals + self.texts + self.blobs
    }

    fn add(&mut self, value: ValueRef<'_>, looks: Looks, utf16: bool) {
        match value {
            ValueRef::Null => self.nulls += 1,
            ValueRef::Integer(number) => {
                self.integers += 1;
                self.bytes += 8;
                self.other_integers += u64::from(number != 0 && number != 1);
                self.smallest = Some(self.smallest.map_or(number, |old| old.min(number)));
                self.largest = Some(self.largest.map_or(number, |old| old.max(number)));
            }
            ValueRef::Real(_) => {
                self.reals += 1;
                self.bytes += 8;
            }
            ValueRef::Text(text) => {
                self.texts += 1;
                self.measure(text.len());
                match std::str::from_utf8(text) {
                    Ok(text) if utf16 && text.contains(char::REPLACEMENT_CHARACTER) => self.invalid_utf8 += 1,
                    Ok(_) => {}
                    Err(_) => self.invalid_utf8 += 1,
                }
                self.with_nul += u64::from(text.contains(&0));
                if looks.truth {
                    self.words += u64::from(matches!(text, b"true" | b"false"));
                    self.letters += u64::from(matches!(text, b"t" | b"f"));
                }
                if looks.dates {
                    self.look_at_date(text);
                }
            }
            ValueRef::Blob(bytes) => {
                self.blobs += 1;
                self.measure(bytes.len());
            }
        }
    }

    fn measure(&mut self, length: usize) {
        let length = length as u64;
        self.bytes += length + 4;
        self.longest_bytes = self.longest_bytes.max(length);
    }

    fn look_at_date(&mut self, text: &[u8]) {
        match calendar::parse_stamp(text) {
            Ok(stamp) => *self.spellings.entry(stamp.spelling).or_default() += 1,
            // The shape decides about the type; that the value does not fit it is found later, with its key.
            Err(NotADate::Impossible | NotADate::TooFine) => {}
            Err(NotADate::Shape) => match calendar::parse_date(text) {
                Ok(_) => self.dates += 1,
                Err(NotADate::Impossible | NotADate::TooFine) => {}
                Err(NotADate::Shape) => self.not_dates += 1,
            },
        }
    }

    /// Times with a zone, and without.
    pub fn zones(&self) -> (u64, u64) {
        let count = |zoned: bool| {
            self.spellings.iter().filter(|(one, _)| (one.zone != Zone::Absent) == zoned).map(|(_, count)| count).sum()
        };
        (count(true), count(false))
    }

    /// The commonest spelling of its times.
    pub fn spelling(&self) -> Option<Spelling> {
        let (most, _) = self.spellings.iter().max_by_key(|(_, count)| **count)?;
        // Programs that write a fraction only where there is one.
        let digits =
            self.spellings.keys().filter(|one| one.letter == most.letter && one.zone == most.zone).map(|one| match one
                .fraction
            {
                Fraction::Digits(digits) | Fraction::WhenAny(digits) => digits,
            });
        let mut digits: Vec<u8> = digits.collect();
        digits.sort_unstable();
        digits.dedup();
        let fraction = match digits[..] {
            [0, some] => Fraction::WhenAny(some),
            _ => most.fraction,
        };
        Some(Spelling { fraction, ..*most })
    }

    fn merge(&mut self, other: Self) {
        let Self { nulls, integers, reals, texts, blobs, other_integers, smallest, largest, .. } = other;
        self.nulls += nulls;
        self.integers += integers;
        self.reals += reals;
        self.texts += texts;
        self.blobs += blobs;
        self.other_integers += other_integers;
        self.smallest = [self.smallest, smallest].into_iter().flatten().min();
        self.largest = [self.largest, largest].into_iter().flatten().max();
        self.invalid_utf8 += other.invalid_utf8;
        self.with_nul += other.with_nul;
        self.longest_bytes = self.longest_bytes.max(other.longest_bytes);
        self.bytes += other.bytes;
        self.words += other.words;
        self.letters += other.letters;
        self.dates += other.dates;
        self.not_dates += other.not_dates;
        for (spelling, count) in other.spellings {
            *self.spellings.entry(spelling).or_default() += count;
        }
    }
}

/// What beside the storage class is looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Looks {
    truth: bool,
    dates: bool,
}

/// Reads the whole file once. Blocking.
///
/// `is_date` says of which columns (table, column) the texts are looked at as dates, beside those that are declared so.
///
/// # Errors
/// If the file cannot be opened, is damaged, or needs what only the application has.
pub(super) fn profile(
    reading: Reading<'_>,
    readers: usize,
    is_date: &(dyn Fn(&str, &str) -> bool + Sync),
) -> Result<Profile, SqliteError> {
    let path = reading.file();
    let connection = reading.open()?;
    let catalog = Catalog::read(&connection, path)?;
    let before = data_version(&connection, path)?;
    let looks: Vec<Vec<Looks>> = catalog
        .tables
        .iter()
        .map(|table| {
            let look = |column: &Column| Looks {
                truth: super::map::declares_truth(&column.declared),
                dates: super::map::declares_date(&column.declared) || is_date(&table.name, &column.name),
            };
            table.columns.iter().map(look).collect()
        })
        .collect();
    // The check of the pages is one long job: it begins first, and the others read rows beside it.
    let mut jobs = vec![Read::Pages];
    for (number, table) in catalog.tables.iter().enumerate() {
        jobs.extend((!table.checks.is_empty()).then_some(Read::Checks(number)));
        jobs.extend(piece::cut(&connection, path, table, number, 8)?.into_iter().map(Read::Rows));
    }
    let utf16 = catalog.encoding != "UTF-8";
    let read = |connection: &rusqlite::Connection, job: Read| match job {
        Read::Pages => quick_check(connection, path).map(Seen::Violations),
        Read::Checks(number) => Ok(Seen::Checks(number, failed_checks(connection, &catalog.tables[number]))),
        Read::Rows(piece) => {
            let table = &catalog.tables[piece.table];
            scan(connection, piece, table, &looks[piece.table], utf16)
                .map(|stats| Seen::Rows(piece.table, stats))
                .map_err(|error| SqliteError::of(path, format!("read table {}", table.name))(error))
        }
    };
    let mut tables: Vec<TableStats> = catalog.tables.iter().map(TableStats::empty).collect();
    let mut violations = Vec::new();
    for seen in piece::work(jobs, readers, || reading.open(), read)? {
        match seen {
            Seen::Violations(said) => violations.extend(said),
            Seen::Checks(number, failed) => tables[number].failed_checks.extend(failed),
            Seen::Rows(number, part) => tables[number].merge(part),
        }
    }
    let (orphans, foreign_key_problem) = orphans(&connection, path)?;
    let changed_meanwhile = data_version(&connection, path)? != before;
    Ok(Profile { catalog, tables, orphans, foreign_key_problem, violations, changed_meanwhile })
}

/// What one reader does at a time.
enum Read {
    Pages,
    /// The CHECKs of the table of this position.
    Checks(usize),
    Rows(Piece),
}

enum Seen {
    Violations(Vec<String>),
    /// Of the table of this position.
    Checks(usize, Vec<(usize, u64)>),
    /// Of the table of this position.
    Rows(usize, TableStats),
}

fn scan(
    connection: &rusqlite::Connection,
    piece: Piece,
    table: &Table,
    looks: &[Looks],
    utf16: bool,
) -> rusqlite::Result<TableStats> {
    let mut stats = TableStats::empty(table);
    let mut statement = connection.prepare(&piece.select(table, 0..table.columns.len()))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        stats.rows += 1;
        for (at, column) in stats.columns.iter_mut().enumerate() {
            column.add(row.get_ref(at)?, looks[at], utf16);
        }
    }
    Ok(stats)
}

/// Whether the pages are sound. Returns what it says of values.
fn quick_check(connection: &rusqlite::Connection, path: &Path) -> Result<Vec<String>, SqliteError> {
    let said: Vec<String> = collect(connection, path, "PRAGMA quick_check(100)", |row| row.get(0))?;
    let of_values = |line: &String| {
        line.starts_with("NULL value in ")
            || line.starts_with("CHECK constraint failed")
            || line.starts_with("non-")
            || line.starts_with("TEXT value in ")
            || line.starts_with("NUMERIC value in ")
    };
    let said: Vec<String> = said.into_iter().filter(|line| line != "ok").collect();
    match said.iter().find(|line| !of_values(line)) {
        Some(line) => Err(SqliteError::Damaged { path: path.display().to_string(), what: line.clone() }),
        None => Ok(said),
    }
}

/// How many rows do not fulfil a CHECK of the table, by its position. SQLite's own check does not see them here: of a file that
/// is opened to be read it does not even parse them. Only plain expressions are asked: the target gets no others.
fn failed_checks(connection: &rusqlite::Connection, table: &Table) -> Vec<(usize, u64)> {
    let failed = |(at, (_, text)): (usize, &(Option<String>, String))| {
        expression::parse(text).ok()?;
        let sql = format!("SELECT count(*) FROM main.{} WHERE NOT ({text})", quoted(&table.name));
        // One that cannot be asked (a collation of the application's) is the load's to find.
        let rows: i64 = connection.query_row(&sql, [], |row| row.get(0)).ok()?;
        (rows > 0).then_some((at, rows.unsigned_abs()))
    };
    table.checks.iter().enumerate().filter_map(failed).collect()
}

type Orphans = BTreeMap<(String, String), u64>;

fn orphans(connection: &rusqlite::Connection, path: &Path) -> Result<(Orphans, Option<String>), SqliteError> {
    let sql = "SELECT \"table\", parent, count(*) FROM pragma_foreign_key_check GROUP BY 1, 2";
    let rows =
        collect(connection, path, sql, |row| Ok(((row.get(0)?, row.get(1)?), row.get::<_, i64>(2)?.unsigned_abs())));
    match rows {
        Ok(rows) => Ok((rows.into_iter().collect(), None)),
        // A parent without a unique key, or none at all: a fact about the declaration, not about the file.
        Err(SqliteError::Sqlite { source, .. }) => Ok((Orphans::new(), Some(source.to_string()))),
        Err(error) => Err(error),
    }
}
