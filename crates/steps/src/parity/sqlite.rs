//! A SQLite file as a side: its values take the binary form that the other side's column type has, or are refused by name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pgrunbook_postgres::copy::numeric;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::mpsc;

use super::bucket::{Buckets, Looked, Sums};
use super::error::ParityError;
use super::keys::Keys;
use super::pair::{BYTEA, Column, Finding, Pair, SideColumn, SideTable, TEXT, Which};
use super::rows::{BATCH, Batch, Rows, Skip};

/// A deferred transaction begins with what is read first.
const BEGIN: &str = "BEGIN; SELECT count(*) FROM sqlite_schema";

/// Of the tables themselves; what a virtual table keeps its rows in is that table's own affair.
const TABLES: &str = "SELECT name, type, wr FROM pragma_table_list
WHERE schema = 'main' AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
  AND name NOT LIKE '\\_pgrunbook%' ESCAPE '\\' ORDER BY name";

/// With generated columns (2 and 3), without hidden ones of virtual tables (1).
const COLUMNS: &str = "SELECT name, type, pk FROM pragma_table_xinfo(?1) WHERE hidden <> 1";

/// What binary forms count from.
const EPOCH: jiff::civil::Date = jiff::civil::date(2000, 1, 1);

pub(super) struct SqliteSide {
    pub which: Which,
    pub label: String,
    /// In a read transaction from the beginning to the end.
    connection: Arc<Mutex<Connection>>,
}

impl SqliteSide {
    pub async fn open(which: Which, path: PathBuf) -> Result<Self, ParityError> {
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
        Ok(Self { which, label, connection: Arc::new(Mutex::new(connection)) })
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
        self.on(|connection, label| tables(connection).map_err(ParityError::sqlite(label))).await
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
            let mut scratch = Vec::new();
            rows(connection, label, which, &pair, |row| {
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

fn tables(connection: &Connection) -> rusqlite::Result<(Vec<SideTable>, Vec<Finding>)> {
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    let mut list = connection.prepare(TABLES)?;
    let mut rows = list.query([])?;
    while let Some(row) = rows.next()? {
        let (name, kind, without_rowid): (String, String, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if kind == "virtual" {
            left_out.push(Finding::NotCompared { table: name, why: "it is a virtual table".to_owned() });
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
            columns.push(SideColumn {
                name: column,
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
    Ok((found, left_out))
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
            let start = bytes.len();
            bytes.extend_from_slice(&(-1_i32).to_be_bytes());
            if value == ValueRef::Null {
                continue;
            }
            encode(value, column, &mut bytes).map_err(|refused| match refused {
                Refused::Type => ParityError::Type {
                    table: pair.name.clone(),
                    column: column.name.clone(),
                    type_name: column.type_name.clone(),
                },
                Refused::Value => {
                    let key =
                        pair.identifying().iter().enumerate().filter_map(|(at, column)| {
                            Some(format!("{} = {}", column.name, shown(row.get_ref(at).ok()?)))
                        });
                    ParityError::Value {
                        side: label.to_owned(),
                        column: format!("{}.{}", pair.name, column.name),
                        key: key.collect::<Vec<_>>().join(", "),
                        found: format!("a value of the storage class {} that is no {}", class(value), column.type_name),
                    }
                }
            })?;
            let length = i32::try_from(bytes.len() - start - 4).unwrap_or(i32::MAX);
            bytes[start..start + 4].copy_from_slice(&length.to_be_bytes());
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
        let mut scratch = Vec::new();
        rows(connection, label, which, pair, |row| {
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
    Value,
}

/// Writes a value, not NULL, as the send function of the column's type does. OIDs are those of PostgreSQL's `pg_type.dat`.
fn encode(value: ValueRef<'_>, column: &Column, into: &mut Vec<u8>) -> Result<(), Refused> {
    let Some(oid) = column.oid else {
        raw(value, into);
        return Ok(());
    };
    match (oid, value) {
        (16, ValueRef::Integer(flag @ 0..=1)) => into.push(u8::from(flag == 1)),
        (16, ValueRef::Text(text)) => into.push(match text {
            b"t" | b"true" => 1,
            b"f" | b"false" => 0,
            _ => return Err(Refused::Value),
        }),
        (20, ValueRef::Integer(number)) => into.extend_from_slice(&number.to_be_bytes()),
        (21, ValueRef::Integer(number)) => fitting::<i16, 2>(number, i16::to_be_bytes, into)?,
        (23, ValueRef::Integer(number)) => fitting::<i32, 4>(number, i32::to_be_bytes, into)?,
        (701, ValueRef::Real(number)) => into.extend_from_slice(&number.to_be_bytes()),
        // A column of numeric affinity keeps whole numbers as integers.
        (701, ValueRef::Integer(number)) if number.unsigned_abs() <= 1 << 53 => {
            into.extend_from_slice(&(number as f64).to_be_bytes());
        }
        (700, ValueRef::Real(number)) if f64::from(number as f32).to_bits() == number.to_bits() => {
            into.extend_from_slice(&(number as f32).to_be_bytes());
        }
        (TEXT | 1043 | 114, ValueRef::Text(text)) if !text.contains(&0) && std::str::from_utf8(text).is_ok() => {
            into.extend_from_slice(text);
        }
        (TEXT, ValueRef::Integer(number)) if column.as_text => into.extend_from_slice(number.to_string().as_bytes()),
        (BYTEA, ValueRef::Blob(bytes)) => into.extend_from_slice(bytes),
        (1700, ValueRef::Integer(number)) => decimal(&number.to_string(), column, into)?,
        (1700, ValueRef::Real(number)) => decimal(&format!("{number:?}"), column, into)?,
        (1700, ValueRef::Text(text)) => decimal(utf8(text)?, column, into)?,
        (1082, ValueRef::Text(text)) => {
            let date: jiff::civil::Date = utf8(text)?.parse().map_err(|_| Refused::Value)?;
            let days = date.since((jiff::Unit::Day, EPOCH)).map_err(|_| Refused::Value)?.get_days();
            into.extend_from_slice(&days.to_be_bytes());
        }
        (1114, ValueRef::Text(text)) => {
            let text = utf8(text)?;
            // A zone would be dropped in silence.
            if text.parse::<jiff::Timestamp>().is_ok() {
                return Err(Refused::Value);
            }
            let when: jiff::civil::DateTime = text.parse().map_err(|_| Refused::Value)?;
            let zoned = when.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| Refused::Value)?;
            micros(zoned.timestamp(), into)?;
        }
        (1184, ValueRef::Text(text)) => micros(utf8(text)?.parse().map_err(|_| Refused::Value)?, into)?,
        (2950, ValueRef::Blob(bytes)) if bytes.len() == 16 => into.extend_from_slice(bytes),
        (2950, ValueRef::Text(text)) => uuid(text, into)?,
        (16 | 20 | 21 | 23 | 700 | 701 | TEXT | 1043 | 114 | BYTEA | 1700 | 1082 | 1114 | 1184 | 2950, _) => {
            return Err(Refused::Value);
        }
        _ => return Err(Refused::Type),
    }
    Ok(())
}

fn utf8(text: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(text).map_err(|_| Refused::Value)
}

fn fitting<T: TryFrom<i64>, const N: usize>(
    number: i64,
    bytes: fn(T) -> [u8; N],
    into: &mut Vec<u8>,
) -> Result<(), Refused> {
    into.extend_from_slice(&bytes(T::try_from(number).map_err(|_| Refused::Value)?));
    Ok(())
}

/// With as many digits behind the point as the column's type keeps, if it says so.
fn decimal(text: &str, column: &Column, into: &mut Vec<u8>) -> Result<(), Refused> {
    let scale = column.type_name.split_once(',').and_then(|(_, rest)| rest.trim_end_matches(')').parse::<usize>().ok());
    let Some(scale) = scale.filter(|_| !text.contains(['e', 'E', 'N', 'I'])) else {
        return numeric(text, into).map_err(|_| Refused::Value);
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > scale {
        return Err(Refused::Value);
    }
    numeric(&format!("{whole}.{fraction:0<scale$}"), into).map_err(|_| Refused::Value)
}

fn micros(when: jiff::Timestamp, into: &mut Vec<u8>) -> Result<(), Refused> {
    // Digits behind the sixth would be rounded away.
    if when.subsec_nanosecond() % 1000 != 0 {
        return Err(Refused::Value);
    }
    let epoch = EPOCH.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| Refused::Value)?.timestamp();
    into.extend_from_slice(&(when.as_microsecond() - epoch.as_microsecond()).to_be_bytes());
    Ok(())
}

fn uuid(text: &[u8], into: &mut Vec<u8>) -> Result<(), Refused> {
    let digits: Vec<u8> = utf8(text)?
        .bytes()
        .filter(|byte| *byte != b'-')
        .map(|byte| char::from(byte).to_digit(16).map(|digit| digit as u8).ok_or(Refused::Value))
        .collect::<Result<_, _>>()?;
    if digits.len() != 32 {
        return Err(Refused::Value);
    }
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

fn class(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Null => "null",
        ValueRef::Integer(_) => "integer",
        ValueRef::Real(_) => "real",
        ValueRef::Text(_) => "text",
        ValueRef::Blob(_) => "blob",
    }
}

/// A value of a key in a message.
fn shown(value: ValueRef<'_>) -> String {
    let mut bytes = Vec::new();
    raw(value, &mut bytes);
    let text = if value == ValueRef::Null { "NULL".to_owned() } else { in_words(&bytes) };
    text.chars().take(60).collect()
}
