//! Staying in sync: the file is read again when it changed, and what differs is shipped in one transaction.
//!
//! No trigger and no table is put into the file for it. What the target has is held in memory and was read from it; nobody
//! else writes there while the transfer follows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt;
use pgrunbook_engine::StepError;
use pgrunbook_postgres::copy::{HEADER, TRAILER};
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::{PgError, Session};
use rusqlite::Connection;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::catalog::data_version;
use super::diff::{self, Diff, Known, Seen, same};
use super::error::SqliteError;
use super::image::Image;
use super::open::{open_live, open_write, quoted};
use super::shape::{self, Carried, Shape, declared};
use crate::transfer::state::{Transfer, text};
use crate::transfer::streams::Names;

/// How long to wait for another process that is at work on the same transfer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Rows that one statement deletes.
const AT_ONCE: usize = 20_000;

/// A connection to the file that several threads use, one after another.
pub type Shared = Arc<Mutex<Connection>>;

/// Whether the file's connection may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// Keeps the target as the file is. One at a time for each transfer.
pub struct Feed {
    pub session: Session,
    pub connection: Shared,
    pub path: PathBuf,
    pub schema: String,
    pub shape: Arc<Shape>,
    /// `health:forward`, the tag of what it writes.
    stream: String,
    /// What the target has, unless that is in doubt.
    known: Option<Arc<Known>>,
    /// The file's `data_version`, as this connection counts, when the target was made like it.
    version: Option<i64>,
}

/// What one look at the file brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Synced {
    pub deleted: u64,
    pub inserted: u64,
    /// The file had not changed: it was not read.
    pub unchanged: bool,
    pub took: Duration,
}

impl Synced {
    /// For the evidence.
    pub fn facts(&self) -> serde_json::Value {
        json!({
            "rows_deleted": self.deleted, "rows_inserted": self.inserted, "file_unchanged": self.unchanged,
            "took_us": u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
        })
    }
}

impl Feed {
    /// Takes hold of a transfer.
    ///
    /// # Errors
    /// If another process holds it, or a side cannot be reached.
    pub async fn open(session: Session, path: &Path, transfer: &Transfer, access: Access) -> Result<Self, StepError> {
        let file = path.to_owned();
        let opened = blocking(move || match access {
            Access::Read => open_live(&file),
            Access::Write => open_write(&file),
        });
        let connection = opened.await.map_err(SqliteError::into_step_error)?;
        Self::with(session, connection, path, transfer).await
    }

    /// The same, but the file stays as its image shows it.
    ///
    /// # Errors
    /// As [`Feed::open`].
    pub async fn of_image(session: Session, image: Arc<Image>, transfer: &Transfer) -> Result<Self, StepError> {
        let path = image.source().to_owned();
        let connection = blocking(move || image.part_with_one()).await.map_err(SqliteError::into_step_error)?;
        Self::with(session, connection, &path, transfer).await
    }

    async fn with(
        session: Session,
        connection: Connection,
        path: &Path,
        transfer: &Transfer,
    ) -> Result<Self, StepError> {
        let shape = shape::recorded(&session, &transfer.schema).await?;
        lock(&session, &transfer.schema, "feed").await?;
        Ok(Self {
            session,
            connection: Arc::new(Mutex::new(connection)),
            path: path.to_owned(),
            schema: transfer.schema.clone(),
            shape: Arc::new(shape),
            stream: Names::of(&transfer.schema, &transfer.target).stream(Way::Forward),
            known: None,
            version: None,
        })
    }

    /// Works with the file's connection in a thread that may wait.
    ///
    /// # Errors
    /// What the work returns.
    pub async fn on<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &Path) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, StepError> {
        let (connection, path) = (self.connection.clone(), self.path.clone());
        blocking(move || work(&connection.lock().unwrap_or_else(PoisonError::into_inner), &path))
            .await
            .map_err(SqliteError::into_step_error)
    }

    /// Makes the target as the file is now: as the transaction sees it in which the connection is, or as it is committed.
    ///
    /// # Errors
    /// If the file's schema changed; if a value does not fit; if either side cannot be reached. Then nothing was shipped.
    pub async fn sync(&mut self) -> Result<Synced, StepError> {
        let begun = Instant::now();
        let known = self.known().await?;
        let Some((version, diff)) = self.look(&known, self.version).await? else {
            return Ok(Synced { unchanged: true, took: begun.elapsed(), ..Synced::default() });
        };
        let (deleted, inserted) = diff.changes();
        if deleted + inserted > 0 {
            self.known = None;
            self.version = None;
            let placed = match ship(&self.session, &self.schema, &self.shape, &self.stream, &diff).await {
                Ok(placed) => placed,
                Err(error) => {
                    let _ = self.session.execute("ROLLBACK").await;
                    return Err(error);
                }
            };
            self.known = Some(Arc::new(diff::after(&known, &diff, placed)));
        }
        self.version = Some(version);
        Ok(Synced { deleted, inserted, unchanged: false, took: begun.elapsed() })
    }

    /// Reads both sides whole, and compares. Changes nothing.
    ///
    /// # Errors
    /// If a side cannot be read.
    pub async fn compare(&mut self) -> Result<Diff, StepError> {
        self.known = None;
        let known = self.known().await?;
        let looked = self.look(&known, None).await?;
        looked.map(|(_, diff)| diff).ok_or_else(|| StepError::failed("parity", "the file was not read"))
    }

    /// What the target has: counts and sums by table.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn sums(&mut self) -> Result<serde_json::Value, StepError> {
        let known = self.known().await?;
        let of = |(table, sum): (&Carried, &pgrunbook_postgres::rowhash::RowSum)| json!({ "table": table.name, "rows": sum.rows, "sums": sum.sums.map(|sum| format!("{sum:016x}")) });
        Ok(self.shape.tables.iter().zip(&known.sums).map(of).collect())
    }

    async fn known(&mut self) -> Result<Arc<Known>, StepError> {
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        self.version = None;
        let read = diff::read_target(&self.session, &self.schema, &self.shape).await;
        let known = Arc::new(read.map_err(PgError::into_step_error)?);
        self.known = Some(known.clone());
        Ok(known)
    }

    /// The file's version and how it differs; nothing if it is still the one that was read last.
    async fn look(&self, known: &Arc<Known>, last: Option<i64>) -> Result<Option<(i64, Diff)>, StepError> {
        let (known, shape) = (known.clone(), self.shape.clone());
        let looked = self
            .on(move |connection, path| {
                let own = connection.is_autocommit();
                if own {
                    begin_read(connection).map_err(SqliteError::of(path, "begin to read"))?;
                }
                let looked = look(connection, path, &shape, &known, last);
                if own {
                    let _ = connection.execute_batch("ROLLBACK");
                }
                looked
            })
            .await?;
        match looked {
            Looked::Same => Ok(None),
            Looked::Read(version, diff) => Ok(Some((version, diff))),
            Looked::Changed(differences) => Err(StepError::failed(
                "file-schema",
                format!(
                    "the schema of {} changed: {}. Nothing was shipped.",
                    self.path.display(),
                    differences.join("; ")
                ),
            )
            .help("change it back; or give the transfer up (undo its step) and begin again")),
        }
    }

    /// Sets the numbers that the target hands out behind those that the file gave.
    ///
    /// # Errors
    /// If a side cannot be reached.
    pub async fn set_numbers(&self) -> Result<BTreeMap<String, i64>, StepError> {
        let shape = self.shape.clone();
        let last = self.on(move |connection, path| numbers(connection, path, &shape)).await?;
        let mut set = BTreeMap::new();
        for (table, column, last) in last {
            let place = [self.schema.as_str(), &table].map(quoted).join(".");
            let sequence = format!("SELECT pg_catalog.pg_get_serial_sequence({}, {})", text(&place), text(&column));
            let sequence = self.session.value(&sequence).await.map_err(PgError::into_step_error)?;
            if sequence.is_empty() || last < 1 {
                continue;
            }
            let sql = format!(
                "SELECT pg_catalog.setval({}::pg_catalog.regclass, {last}) FROM {sequence}
                 WHERE last_value < {last} OR last_value = {last} AND NOT is_called",
                text(&sequence)
            );
            self.session.execute(&sql).await.map_err(PgError::into_step_error)?;
            set.insert(format!("{table}.{column}"), last);
        }
        Ok(set)
    }
}

/// A read transaction begins with what is read first.
fn begin_read(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))
}

enum Looked {
    Same,
    Read(i64, Diff),
    Changed(Vec<String>),
}

fn look(
    connection: &Connection,
    path: &Path,
    shape: &Shape,
    known: &Known,
    last: Option<i64>,
) -> Result<Looked, SqliteError> {
    let version = data_version(connection, path)?;
    if last == Some(version) {
        return Ok(Looked::Same);
    }
    let differences = shape.differences(&declared(connection, path)?);
    if !differences.is_empty() {
        return Ok(Looked::Changed(differences));
    }
    Ok(Looked::Read(version, diff::diff(connection, path, shape, known)?))
}

/// The last number that each table of the file gave: its highest, or what AUTOINCREMENT noted.
fn numbers(connection: &Connection, path: &Path, shape: &Shape) -> Result<Vec<(String, String, i64)>, SqliteError> {
    let mut found = Vec::new();
    for table in &shape.tables {
        let Some(column) = &table.numbered else { continue };
        let failed = || SqliteError::of(path, format!("read the keys of {}", table.name));
        let sql = format!("SELECT max({}) FROM main.{}", quoted(column), quoted(&table.name));
        let highest: Option<i64> = connection.query_row(&sql, [], |row| row.get(0)).map_err(failed())?;
        let noted: Option<i64> = match table.autoincrement {
            true => connection
                .query_row("SELECT max(seq) FROM sqlite_sequence WHERE name = ?1", [&table.name], |row| row.get(0))
                .map_err(failed())?,
            false => None,
        };
        found.push((table.name.clone(), column.clone(), highest.unwrap_or(0).max(noted.unwrap_or(0))));
    }
    Ok(found)
}

/// Ships a difference in one transaction, in which each statement must change what it was given. Returns where the new rows
/// lie, by table.
async fn ship(
    session: &Session,
    schema: &str,
    shape: &Shape,
    stream: &str,
    diff: &Diff,
) -> Result<Vec<Vec<Seen>>, StepError> {
    let run = async |sql: &str| session.execute(sql).await.map_err(PgError::into_step_error);
    // The tag comes first: whoever reads the other way passes over what came from here. Keys and triggers were judged by
    // the file, and the target's guard lets nobody else in.
    run(&format!(
        "BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL client_encoding = 'UTF8';
         SELECT pg_catalog.pg_logical_emit_message(true, 'pgrunbook', {})",
        text(&format!("applied:{stream}"))
    ))
    .await?;
    let wrong = |table: &Carried, what: &str, asked: usize, done: usize| {
        StepError::failed(
            "conflict",
            format!("table {} of {schema}: {asked} rows were to be {what}, and {done} were, or others. Nothing was shipped.", table.name),
        )
        .help("somebody else writes to the target: `pgrunbook fence status` shows whether it is fenced")
    };
    for (table, diff) in shape.tables.iter().zip(&diff.tables) {
        for part in diff.gone.chunks(AT_ONCE) {
            let places: Vec<String> = part.iter().map(|seen| format!("\"{}\"", seen.tid())).collect();
            let sql = format!(
                "COPY (DELETE FROM {} WHERE ctid = ANY ('{{{}}}'::pg_catalog.tid[]) RETURNING ctid, {}) TO STDOUT (FORMAT binary)",
                table.place(schema),
                places.join(","),
                table.list()
            );
            let (deleted, _) = diff::returned(session, table, &sql).await.map_err(PgError::into_step_error)?;
            let hashes = |rows: &[Seen]| rows.iter().map(|seen| seen.hash).collect::<Vec<_>>();
            if !same(&hashes(&deleted), &hashes(part)) {
                return Err(wrong(table, "deleted", part.len(), deleted.len()));
            }
        }
    }
    let mut placed = Vec::new();
    for (number, (table, diff)) in shape.tables.iter().zip(&diff.tables).enumerate() {
        if diff.new.is_empty() {
            placed.push(Vec::new());
            continue;
        }
        let (stage, place, list) = (format!("pg_temp.pgrunbook_new_{number}"), table.place(schema), table.list());
        run(&format!(
            "CREATE TEMP TABLE pgrunbook_new_{number} ON COMMIT DROP AS SELECT {list} FROM {place} WITH NO DATA"
        ))
        .await?;
        copy_in(session, &format!("COPY {stage} ({list}) FROM STDIN (FORMAT binary)"), &diff.bytes)
            .await
            .map_err(PgError::into_step_error)?;
        let sql = format!(
            "COPY (INSERT INTO {place} ({list}) OVERRIDING SYSTEM VALUE SELECT {list} FROM {stage} RETURNING ctid, {list})
             TO STDOUT (FORMAT binary)"
        );
        let (rows, _) = diff::returned(session, table, &sql).await.map_err(PgError::into_step_error)?;
        let hashes: Vec<u128> = rows.iter().map(|seen| seen.hash).collect();
        if !same(&hashes, &diff.new) {
            return Err(wrong(table, "inserted", diff.new.len(), rows.len()));
        }
        placed.push(rows);
    }
    let (gone, new) = diff.changes();
    let rows: u64 = diff.tables.iter().map(|one| one.rows).sum();
    run(&format!(
        "UPDATE pgrunbook.transfer_file SET syncs = syncs + 1, changes = changes + {}, rows = {rows},
             synced_at = pg_catalog.clock_timestamp() WHERE schema = {}; COMMIT",
        gone + new,
        text(schema)
    ))
    .await?;
    Ok(placed)
}

async fn copy_in(session: &Session, sql: &str, rows: &[u8]) -> Result<(), PgError> {
    let failed = |error: tokio_postgres::Error| session.error(&error);
    let mut sink = pin!(session.client().copy_in::<_, Bytes>(sql).await.map_err(failed)?);
    sink.send(Bytes::from_static(HEADER)).await.map_err(failed)?;
    for part in rows.chunks(256 << 10) {
        sink.send(Bytes::copy_from_slice(part)).await.map_err(failed)?;
    }
    sink.send(Bytes::from_static(TRAILER)).await.map_err(failed)?;
    sink.close().await.map_err(failed)
}

/// Holds a transfer for this session: nobody else does the same work on it meanwhile.
///
/// # Errors
/// If another process holds it for longer than a killed one's session needs to end.
pub async fn lock(session: &Session, schema: &str, what: &str) -> Result<(), StepError> {
    let begun = Instant::now();
    loop {
        if try_lock(session, schema, what).await.map_err(PgError::into_step_error)? {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(StepError::unusable(
                "busy",
                format!("another process of pgrunbook is at work on the transfer into {schema}. Nothing was changed."),
            )
            .help("end that process, then run again"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As [`lock`], without waiting.
///
/// # Errors
/// If the server cannot be asked.
pub async fn try_lock(session: &Session, schema: &str, what: &str) -> Result<bool, PgError> {
    let key = xxh3_64(format!("{what}:{schema}").as_bytes()) as i32;
    Ok(session.value(&format!("SELECT pg_catalog.pg_try_advisory_lock(1885827694, {key})")).await? == "t")
}

/// Work on a file, in a thread that may wait.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SqliteError> + Send + 'static,
) -> Result<T, SqliteError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(SqliteError::Stopped))
}
