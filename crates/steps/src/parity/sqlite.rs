//! A SQLite file as a side: its values take the binary form that the other side's column type has, or are refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pgrunbook_postgres::copy::numeric;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::mpsc;

use super::bucket::{Buckets, Looked, Sums};
use super::error::ParityError;
use super::keys::Keys;
use super::pair::{Column, Finding, JSONB, Pair, SideColumn, SideTable, TEXT, Which};
use super::rows::{BATCH, Batch, Rows, Skip};
use crate::transfer::sqlite::{Choice, Choices, Kind, Misfit, class_of};

/// A deferred transaction begins with what is read first.
const BEGIN: &str = "BEGIN; SELECT count(*) FROM sqlite_schema";

/// Of the tables themselves; what a virtual table keeps its rows in is that table's own affair.
const TABLES: &str = "SELECT name, type, wr FROM pragma_table_list
WHERE schema = 'main' AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
  AND name NOT LIKE '\\_pgrunbook%' ESCAPE '\\' ORDER BY name";

/// With generated columns (2 and 3), without hidden ones of virtual tables (1).
const COLUMNS: &str = "SELECT name, type, pk FROM pragma_table_xinfo(?1) WHERE hidden <> 1";

pub(super) struct SqliteSide {
    pub which: Which,
    pub label: String,
    /// In a read transaction from the beginning to the end.
    connection: Arc<Mutex<Connection>>,
    /// What was said of the file's columns.
    choices: Arc<Choices>,
}

impl SqliteSide {
    pub async fn open(which: Which, path: PathBuf, choices: Choices) -> Result<Self, ParityError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let label = format!("{} ({name})", which.word());
        let side = label.clone();
        let connection = blocking(move || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let failed = ParityError::sqlite(&side);
            let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
            connection.execute_batch(BEGIN).map_err(failed)?;
            Ok(connection)
        })
        .await?;
        Ok(Self { which, label, connection: Arc::new(Mutex::new(connection)), choices: Arc::new(choices) })
    }

    /// Ends the snapshot.
    pub async fn end(&self) -> Result<(), ParityError> {
        self.on(|connection, label| {
            if connection.is_autocommit() {
                Ok(())
            } else {
                connection.execute_batch("COMMIT").map_err(ParityError::sqlite(label))
            }
        })
        .await
    }

    /// Begins a new one.
    pub async fn renew(&self) -> Result<(), ParityError> {
        self.end().await?;
        self.on(|connection, label| connection.execute_batch(BEGIN).map_err(ParityError::sqlite(label))).await
    }

    async fn on<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &str) -> Result<T, ParityError> + Send + 'static,
    ) -> Result<T, ParityError> {
        let (connection, label) = (Arc::clone(&self.connection), self.label.clone());
        blocking(move || work(&connection.lock().unwrap_or_else(PoisonError::into_inner), &label)).await
    }

    pub async fn tables(&self) -> Result<(Vec<SideTable>, Vec<Finding>), ParityError> {
        let choices = Arc::clone(&self.choices);
        self.on(move |connection, label| {
            let (found, left_out, names) = tables(connection, &choices).map_err(ParityError::sqlite(label))?;
            match choices.keys().find(|(key, ..)| !names.contains(*key)) {
                None => Ok((found, left_out)),
                Some((key, ..)) => Err(ParityError::Unmapped { side: label.to_owned(), key: key.to_owned() }),
            }
        })
        .await
    }

    pub async fn extremes(&self, pair: &Arc<Pair>, key: &Column) -> Result<Option<(i64, i64)>, ParityError> {
        let (key, from) = (quoted(&key.name), self.which.of(&pair.sides).from.clone());
        self.on(move |connection, label| {
            // A key that is no integer is refused where its row is read.
            let sql = format!("SELECT min({key}), max({key}) FROM {from} WHERE typeof({key}) = 'integer'");
            let row = connection.query_row(&sql, [], |row| Ok(row.get::<_, Option<i64>>(0)?.zip(row.get(1)?)));
            row.map_err(ParityError::sqlite(label))
        })
        .await
    }

    pub async fn sums(&self, pair: &Arc<Pair>, buckets: &Arc<Buckets>, skip: &Skip) -> Result<Sums, ParityError> {
        let (pair, buckets, skip, which) = (Arc::clone(pair), Arc::clone(buckets), skip.clone(), self.which);
        self.on(move |connection, label| {
            let mut sums = Sums::new(buckets.count());
            let (mut scratch, mut spelled) = (Vec::new(), Vec::new());
            rows(connection, label, which, &pair, |row| {
                let row = pair.common(row, &mut spelled);
                let key = &row[..pair.key_end(row)];
                if skip.has(key)? {
                    sums.skipped += 1;
                } else {
                    sums.parts[buckets.of(key, &mut scratch)].add(row);
                }
                Ok(())
            })?;
            Ok(sums)
        })
        .await
    }

    /// The rows of some keys, by key. A file is read so fast that it is read whole.
    pub async fn by_keys(&self, pair: &Arc<Pair>, keys: &Keys) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ParityError> {
        let (pair, keys, which) = (Arc::clone(pair), keys.clone(), self.which);
        self.on(move |connection, label| {
            let mut found = BTreeMap::new();
            rows(connection, label, which, &pair, |row| {
                let key = &row[..pair.key_end(row)];
                if keys.contains(key) {
                    found.insert(key.to_vec(), row.to_vec());
                }
                Ok(())
            })?;
            Ok(found)
        })
        .await
    }

    pub fn ordered(&self, pair: &Arc<Pair>, buckets: &Arc<Buckets>, looked: &Looked) -> Rows {
        let (sender, receiver) = mpsc::channel(2);
        let (pair, buckets, looked, which) = (Arc::clone(pair), Arc::clone(buckets), looked.clone(), self.which);
        let (connection, label) = (Arc::clone(&self.connection), self.label.clone());
        tokio::task::spawn_blocking(move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = sorted(&connection, &label, which, &pair, &buckets, &looked, &sender) {
                // Nobody listens any more: the look was enough.
                let _ = sender.blocking_send(Err(error));
            }
        });
        Rows::new(receiver)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ParityError> + Send + 'static,
) -> Result<T, ParityError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ParityError::Task(error.to_string()))?
}

/// The tables, what is left out, and every name of which something can be said: `table` and `table.column`.
fn tables(
    connection: &Connection,
    choices: &Choices,
) -> rusqlite::Result<(Vec<SideTable>, Vec<Finding>, BTreeSet<String>)> {
    let (mut found, mut left_out, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut list = connection.prepare(TABLES)?;
    let mut rows = list.query([])?;
    while let Some(row) = rows.next()? {
        let (name, kind, without_rowid): (String, String, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if kind == "virtual" {
            left_out.push(Finding::NotCompared { table: name, why: "it is a virtual table".to_owned() });
            continue;
        }
        names.insert(name.clone());
        if choices.skips_table(&name) {
            left_out.push(Finding::Skipped { what: format!("table {name}") });
            continue;
        }
        let from = quoted(&name);
        let (mut columns, mut key) = (Vec::new(), Vec::new());
        let mut listed = connection.prepare_cached(COLUMNS)?;
        let mut info = listed.query([&name])?;
        while let Some(row) = info.next()? {
            let (column, type_name, place): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if place > 0 {
                key.push((place, column.clone()));
            }
            names.insert(format!("{name}.{column}"));
            let choice = choices.column(&name, &column);
            if choice == Some(Choice::Skip) {
                left_out.push(Finding::Skipped { what: format!("{name}.{column}") });
                continue;
            }
            columns.push(SideColumn {
                name: column,
                kind: choice.and_then(Choice::beside),
                type_name,
                type_oid: None,
                needs_text: false,
                is_enum: false,
                is_generated: false,
            });
        }
        key.sort();
        let count = if without_rowid { "count(*)" } else { "coalesce(max(rowid), 0)" };
        let estimate: i64 = connection.query_row(&format!("SELECT {count} FROM {from}"), [], |row| row.get(0))?;
        found.push(SideTable {
            name,
            from,
            columns,
            leaves: Vec::new(),
            key: key.into_iter().map(|(_, column)| column).collect(),
            rows_estimate: estimate.unsigned_abs(),
            pages: None,
        });
    }
    Ok((found, left_out, names))
}

/// SQLite's way of quoting a name.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Reads a table; `each` gets the bytes of each row.
fn rows(
    connection: &Connection,
    label: &str,
    which: Which,
    pair: &Pair,
    mut each: impl FnMut(&[u8]) -> Result<(), ParityError>,
) -> Result<(), ParityError> {
    let failed = ParityError::sqlite(label);
    let names: Vec<String> = pair.columns.iter().map(|column| quoted(&column.name)).collect();
    let sql = format!("SELECT {} FROM {}", names.join(", "), which.of(&pair.sides).from);
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut bytes = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        bytes.clear();
        for (at, column) in pair.columns.iter().enumerate() {
            let value = row.get_ref(at).map_err(failed)?;
            encode(value, column, &mut bytes).map_err(|refused| match refused {
                Refused::Type => ParityError::Type {
                    table: pair.name.clone(),
                    column: column.name.clone(),
                    type_name: column.type_name.clone(),
                },
                Refused::Value(misfit) => {
                    let key =
                        pair.identifying().iter().enumerate().filter_map(|(at, column)| {
                            Some(format!("{} = {}", column.name, shown(row.get_ref(at).ok()?)))
                        });
                    let class = class_of(value);
                    ParityError::Value {
                        side: label.to_owned(),
                        column: format!("{}.{}", pair.name, column.name),
                        key: key.collect::<Vec<_>>().join(", "),
                        found: format!("a value of the storage class {class} that is no {}", column.type_name),
                        why: misfit.to_string(),
                    }
                }
            })?;
        }
        each(&bytes)?;
    }
    Ok(())
}

/// Sorted in a private temporary database, which keeps on disk what is much.
fn sorted(
    connection: &Connection,
    label: &str,
    which: Which,
    pair: &Pair,
    buckets: &Buckets,
    looked: &Looked,
    sender: &mpsc::Sender<Result<Batch, ParityError>>,
) -> Result<(), ParityError> {
    let failed = ParityError::sqlite(label);
    let mut wanted = vec![false; buckets.count()];
    looked.buckets.iter().for_each(|at| wanted[*at] = true);
    let sorter = Connection::open("").map_err(failed)?;
    sorter
        .execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; CREATE TABLE sorted (key BLOB, row BLOB); BEGIN",
        )
        .map_err(failed)?;
    {
        let mut insert = sorter.prepare("INSERT INTO sorted (key, row) VALUES (?1, ?2)").map_err(failed)?;
        let (mut scratch, mut spelled) = (Vec::new(), Vec::new());
        rows(connection, label, which, pair, |row| {
            let row = pair.common(row, &mut spelled);
            let key = &row[..pair.key_end(row)];
            if wanted[buckets.of(key, &mut scratch)] {
                insert.execute((key, row)).map_err(failed)?;
            }
            Ok(())
        })?;
    }
    // Blobs are compared by their bytes.
    let mut select = sorter.prepare("SELECT row FROM sorted ORDER BY key").map_err(failed)?;
    let mut found = select.query([]).map_err(failed)?;
    let mut batch = Batch::default();
    while let Some(row) = found.next().map_err(failed)? {
        let value = row.get_ref(0).map_err(failed)?;
        batch.push(value.as_blob().unwrap_or_default());
        if batch.len() >= BATCH && sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
            return Ok(());
        }
    }
    let _ = sender.blocking_send(Ok(batch));
    Ok(())
}

/// Why a value has no place in a column of the other side.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// No value of a file can be compared with the type.
    Type,
    Value(Misfit),
}

impl From<Misfit> for Refused {
    fn from(misfit: Misfit) -> Self {
        Self::Value(misfit)
    }
}

/// Appends a value's length and then its bytes, as the send function of the column's type writes them: as a transfer loads it,
/// and beyond that what only other programs load. OIDs are those of PostgreSQL's `pg_type.dat`.
fn encode(value: ValueRef<'_>, column: &Column, into: &mut Vec<u8>) -> Result<(), Refused> {
    if value == ValueRef::Null {
        into.extend_from_slice(&(-1_i32).to_be_bytes());
        return Ok(());
    }
    let Some(oid) = column.oid else {
        return field(into, |into| {
            raw(value, into);
            Ok(())
        });
    };
    match (oid, value) {
        // Both servers and files find rows by it: what is respelled only here cannot be.
        (JSONB, _) if !column.is_respelled => Err(Refused::Type),
        // A column of numeric affinity keeps whole numbers as integers.
        (701, ValueRef::Integer(number)) if number.unsigned_abs() <= 1 << 53 => {
            fixed(&(number as f64).to_be_bytes(), into)
        }
        (700, ValueRef::Real(number)) if f64::from(number as f32).to_bits() == number.to_bits() => {
            fixed(&(number as f32).to_be_bytes(), into)
        }
        (700, _) => Err(Misfit::OutOfRange.into()),
        (TEXT, ValueRef::Integer(number)) if column.as_text => fixed(number.to_string().as_bytes(), into),
        (2950, ValueRef::Blob(bytes)) if bytes.len() == 16 => fixed(bytes, into),
        (2950, ValueRef::Text(text)) => field(into, |into| uuid(text, into)),
        (1700, _) if scale(column).is_some() => field(into, |into| scaled(value, scale(column).unwrap_or(0), into)),
        _ => {
            let said = column
                .kind
                .filter(|kind| matches!((oid, kind), (1114, Kind::Timestamp(_)) | (1184, Kind::Timestamptz(_))));
            let kind = said.or_else(|| Kind::beside(oid, value)).ok_or(Refused::Type)?;
            Ok(kind.forward(value, into)?)
        }
    }
}

fn fixed(bytes: &[u8], into: &mut Vec<u8>) -> Result<(), Refused> {
    field(into, |into| {
        into.extend_from_slice(bytes);
        Ok(())
    })
}

/// Writes a field, and its length before it.
fn field(into: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Refused>) -> Result<(), Refused> {
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    write(into)?;
    let length = i32::try_from(into.len() - start - 4).map_err(|_| Misfit::TooLong)?;
    into[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// So many digits behind the point the column's type keeps, if it says so.
fn scale(column: &Column) -> Option<usize> {
    column.type_name.split_once(',').and_then(|(_, rest)| rest.trim_end_matches(')').parse().ok())
}

/// A number with so many digits behind the point: none is dropped, but zeros.
fn scaled(value: ValueRef<'_>, scale: usize, into: &mut Vec<u8>) -> Result<(), Refused> {
    let text = match value {
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(text) => std::str::from_utf8(text).map_err(|_| Misfit::InvalidUtf8)?.to_owned(),
        ValueRef::Null | ValueRef::Blob(_) => return Err(Misfit::Class.into()),
    };
    if text.contains(['e', 'E', 'N', 'I', 'i']) {
        return numeric(&text, into).map_err(|_| Misfit::NotDecimal.into());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > scale {
        return Err(Misfit::TooFine.into());
    }
    let point = if scale == 0 { "" } else { "." };
    numeric(&format!("{whole}{point}{fraction:0<scale$}"), into).map_err(|_| Misfit::NotDecimal.into())
}

/// In any spelling; a transfer takes one.
fn uuid(text: &[u8], into: &mut Vec<u8>) -> Result<(), Refused> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits: Option<Vec<u8>> = text.iter().filter(|byte| **byte != b'-').map(|byte| digit(*byte)).collect();
    let digits = digits.filter(|digits| digits.len() == 32).ok_or(Misfit::NotUuid)?;
    into.extend(digits.chunks(2).map(|two| two[0] << 4 | two[1]));
    Ok(())
}

/// Between two files: the storage class, and the value.
fn raw(value: ValueRef<'_>, into: &mut Vec<u8>) {
    match value {
        ValueRef::Null => {}
        ValueRef::Integer(number) => {
            into.push(b'i');
            into.extend_from_slice(&number.to_be_bytes());
        }
        ValueRef::Real(number) => {
            into.push(b'r');
            into.extend_from_slice(&number.to_be_bytes());
        }
        ValueRef::Text(text) => {
            into.push(b't');
            into.extend_from_slice(text);
        }
        ValueRef::Blob(bytes) => {
            into.push(b'b');
            into.extend_from_slice(bytes);
        }
    }
}

/// What [`raw`] wrote, for people.
pub(super) fn in_words(value: &[u8]) -> String {
    match value.split_first() {
        Some((b'i', rest)) => rest.first_chunk().map_or(0, |eight| i64::from_be_bytes(*eight)).to_string(),
        Some((b'r', rest)) => format!("{:?}", rest.first_chunk().map_or(0.0, |eight| f64::from_be_bytes(*eight))),
        Some((b't', rest)) => String::from_utf8_lossy(rest).into_owned(),
        Some((_, rest)) => rest.iter().fold("x'".to_owned(), |text, byte| format!("{text}{byte:02x}")) + "'",
        None => String::new(),
    }
}

/// A value of a key in a message.
fn shown(value: ValueRef<'_>) -> String {
    let mut bytes = Vec::new();
    raw(value, &mut bytes);
    let text = if value == ValueRef::Null { "NULL".to_owned() } else { in_words(&bytes) };
    text.chars().take(60).collect()
}
