//! Staying in sync: what differs between the file and the target is shipped in one transaction.
//!
//! By default the file is read again when it changed, and no trigger and no table is put into it; what the target has is held
//! in memory and was read from it. With dirty keys only the rows are read, on both sides, whose keys were noted
//! ([`notes`]). Nobody else writes to the target while the transfer follows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgrunbook_engine::StepError;
use pgrunbook_postgres::rowhash::RowSum;
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::{PgError, Session};
use rusqlite::Connection;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::catalog::data_version;
use super::diff::{self, Diff, Known, Seen, TableDiff};
use super::error::SqliteError;
use super::image::Image;
use super::keyed::{self, Touched};
use super::noted::{LookedAtNotes, Noting};
use super::open::{open_live, open_write, quoted};
use super::shape::{self, Carried, Shape, declared};
use super::ship::{Shipped, Size, ship};
use crate::transfer::spec::Sync;
use crate::transfer::state::{self, Transfer, text};
use crate::transfer::streams::Names;

/// How long to wait for another process that is at work on the same transfer.
const PATIENCE: Duration = Duration::from_secs(10);

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
    pub(super) stream: String,
    /// What the target has, unless that is in doubt.
    pub(super) known: Option<Arc<Known>>,
    /// The file's `data_version`, as this connection counts, when the target was made like it.
    pub(super) version: Option<i64>,
    /// With dirty keys only.
    pub(super) noting: Option<Noting>,
}

/// How it was found out what differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Found {
    /// The file had not changed: it was not read.
    #[default]
    Unchanged,
    /// All rows were compared; and why, where noted keys would have done.
    All(Option<String>),
    /// The rows were compared that were noted, and these tables whole.
    Noted { notes: u64, keys: u64, whole: Vec<String> },
}

/// What one look at the file brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Synced {
    pub deleted: u64,
    pub inserted: u64,
    pub found: Found,
    pub took: Duration,
}

impl Synced {
    /// For the evidence.
    pub fn facts(&self) -> serde_json::Value {
        let mut facts = json!({
            "rows_deleted": self.deleted, "rows_inserted": self.inserted,
            "file_unchanged": self.found == Found::Unchanged,
            "took_us": u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
        });
        match &self.found {
            Found::Unchanged | Found::All(None) => {}
            Found::All(Some(why)) => facts["all_rows_because"] = json!(why),
            Found::Noted { notes, keys, whole } => {
                facts["noted"] = json!({ "notes": notes, "keys": keys, "tables_compared_whole": whole });
            }
        }
        facts
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
        let noting = match (transfer.spec.sync, access) {
            (Sync::DirtyKeys, Access::Write) => {
                let trail = shape::trail(&session, &transfer.schema).await?;
                Some(Noting { trail, ..Noting::default() })
            }
            _ => None,
        };
        Self::with(session, connection, path, transfer, noting).await
    }

    /// The same, but the file stays as its image shows it.
    ///
    /// # Errors
    /// As [`Feed::open`].
    pub async fn of_image(session: Session, image: Arc<Image>, transfer: &Transfer) -> Result<Self, StepError> {
        let path = image.source().to_owned();
        let connection = blocking(move || image.part_with_one()).await.map_err(SqliteError::into_step_error)?;
        Self::with(session, connection, &path, transfer, None).await
    }

    async fn with(
        session: Session,
        connection: Connection,
        path: &Path,
        transfer: &Transfer,
        noting: Option<Noting>,
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
            noting,
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
        if self.noting.is_none() {
            return self.sync_all(None).await;
        }
        let begun = Instant::now();
        let own = self.on(begin_own).await?;
        let looked = self.look_at_notes().await;
        if own {
            self.on(end_own).await?;
        }
        match looked? {
            LookedAtNotes::Same => Ok(Synced { took: begun.elapsed(), ..Synced::default() }),
            LookedAtNotes::Doubt(why) => self.sync_all(Some(why)).await,
            LookedAtNotes::Differs { version, noted, diff } => {
                let mut synced = self.ship_noted(version, &noted, &diff, own).await?;
                synced.took = begun.elapsed();
                Ok(synced)
            }
        }
    }

    /// Compares all rows. With dirty keys, because of a doubt: the triggers are set anew first.
    pub(super) async fn sync_all(&mut self, doubt: Option<String>) -> Result<Synced, StepError> {
        let begun = Instant::now();
        if doubt.is_some() {
            self.known = None;
            self.set_triggers().await?;
        }
        let known = self.known().await?;
        let Some((version, diff)) = self.look(&known, self.version).await? else {
            return Ok(Synced { took: begun.elapsed(), ..Synced::default() });
        };
        let (deleted, inserted) = diff.changes();
        if deleted + inserted > 0 {
            self.known = None;
            self.version = None;
            let shipped = self.ship(&diff, Size::Is(diff.rows()), self.trail_sql()).await?;
            self.known = Some(Arc::new(diff::after(&known, &diff, shipped.placed)));
        } else if self.noting.is_some() {
            let sql = format!("SELECT 1{}", self.trail_sql());
            state::write(&self.session, &sql).await.map_err(PgError::into_step_error)?;
        }
        self.version = Some(version);
        if let Some(noting) = &mut self.noting {
            noting.sums = self.known.take().map(|known| known.sums.clone());
        }
        Ok(Synced { deleted, inserted, found: Found::All(doubt), took: begun.elapsed() })
    }

    /// Compares the rows that may differ, in the transaction that the file's connection is in. Changes nothing.
    ///
    /// # Errors
    /// If a value does not fit; if a side cannot be read.
    pub async fn compare_touched(&self, touched: &[Touched]) -> Result<Diff, StepError> {
        // The keys go into a table that lasts as long as the transaction.
        self.session
            .execute("BEGIN; SET LOCAL client_min_messages = warning")
            .await
            .map_err(PgError::into_step_error)?;
        let read = async {
            let mut there = Vec::new();
            for (table, touched) in self.shape.tables.iter().zip(touched) {
                there.push(match touched {
                    Touched { whole: true, .. } => diff::read_table(&self.session, &self.schema, table).await?.0,
                    _ if touched.is_nothing() => Vec::new(),
                    _ => keyed::target_rows(&self.session, &self.schema, table, &touched.keys).await?,
                });
            }
            Ok(there)
        };
        let there = read.await.map_err(PgError::into_step_error);
        let ended = self.session.execute("ROLLBACK").await;
        let there: Vec<Vec<Seen>> = there?;
        ended.map_err(PgError::into_step_error)?;
        let (shape, touched) = (self.shape.clone(), touched.to_vec());
        self.on(move |connection, path| {
            let mut diff = Diff::default();
            for ((table, touched), there) in shape.tables.iter().zip(&touched).zip(&there) {
                diff.tables.push(match touched {
                    Touched { whole: true, .. } => diff::table_diff(connection, path, &shape, table, there)?,
                    _ if touched.is_nothing() => TableDiff::default(),
                    _ => keyed::compare(connection, path, &shape, table, &touched.keys, there)?,
                });
            }
            Ok(diff)
        })
        .await
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
        let sums = match self.noting.as_ref().and_then(|noting| noting.sums.clone()) {
            Some(sums) => sums,
            None => self.known().await?.sums.clone(),
        };
        let of = |(table, sum): (&Carried, &RowSum)| json!({ "table": table.name, "rows": sum.rows, "sums": sum.sums.map(|sum| format!("{sum:016x}")) });
        Ok(self.shape.tables.iter().zip(&sums).map(of).collect())
    }

    /// Compares all rows while writers are at work in the target and their writes flow into the file: the rows that differ, or
    /// may, since the two sides are not looked at in one moment. Changes nothing.
    ///
    /// # Errors
    /// If a side cannot be read.
    pub async fn compare_online(&mut self) -> Result<(Vec<Touched>, u64), StepError> {
        self.known = None;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.session.execute(begin).await.map_err(PgError::into_step_error)?;
        let compared = self.compare_in_snapshot().await;
        let ended = self.session.execute("ROLLBACK").await;
        self.known = None;
        let compared = compared?;
        ended.map_err(PgError::into_step_error)?;
        Ok(compared)
    }

    async fn compare_in_snapshot(&mut self) -> Result<(Vec<Touched>, u64), StepError> {
        let known = self.known().await?;
        let looked = self.look(&known, None).await?;
        let diff = looked.map(|(_, diff)| diff).ok_or_else(|| StepError::failed("parity", "the file was not read"))?;
        let mut touched = Vec::new();
        for (table, one) in self.shape.tables.iter().zip(&diff.tables) {
            let mut differing = Touched::default();
            if !keyed::is_keyed(table) {
                differing.whole = !one.gone.is_empty() || !one.new.is_empty();
            } else {
                let gone = keyed::keys_at(&self.session, &self.schema, table, &one.gone).await;
                differing.keys = gone.map_err(PgError::into_step_error)?;
                differing.keys.extend(keyed::keys_of_rows(table, &one.bytes));
            }
            touched.push(differing);
        }
        Ok((touched, diff.rows()))
    }

    pub(super) async fn known(&mut self) -> Result<Arc<Known>, StepError> {
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
    pub(super) async fn look(&self, known: &Arc<Known>, last: Option<i64>) -> Result<Option<(i64, Diff)>, StepError> {
        let (known, shape) = (known.clone(), self.shape.clone());
        let looked = self
            .on(move |connection, path| {
                let own = begin_own(connection, path)?;
                let looked = look(connection, path, &shape, &known, last);
                if own {
                    end_own(connection, path)?;
                }
                looked
            })
            .await?;
        match looked {
            Looked::Same => Ok(None),
            Looked::Read(version, diff) => Ok(Some((version, diff))),
            Looked::Changed(differences) => Err(self.schema_changed(&differences)),
        }
    }

    pub(super) fn schema_changed(&self, differences: &[String]) -> StepError {
        let changes = differences.join("; ");
        StepError::failed(
            "file-schema",
            format!("the schema of {} changed: {changes}. Nothing was shipped.", self.path.display()),
        )
        .help("change it back; or give the transfer up (undo its step) and begin again")
    }

    pub(super) async fn ship(&self, diff: &Diff, size: Size, and: String) -> Result<Shipped, StepError> {
        let shipped = ship(&self.session, &self.schema, &self.shape, &self.stream, diff, &size, &and).await;
        if shipped.is_err() {
            let _ = self.session.execute("ROLLBACK").await;
        }
        shipped
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
            state::write(&self.session, &sql).await.map_err(PgError::into_step_error)?;
            set.insert(format!("{table}.{column}"), last);
        }
        Ok(set)
    }
}

/// Begins a transaction to read, unless the connection is in one: whether it did.
pub(super) fn begin_own(connection: &Connection, path: &Path) -> Result<bool, SqliteError> {
    if !connection.is_autocommit() {
        return Ok(false);
    }
    // It begins with what is read first.
    let begun = connection
        .execute_batch("BEGIN")
        .and_then(|()| connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())));
    if begun.is_err() {
        let _ = end_own(connection, path);
    }
    begun.map_err(SqliteError::of(path, "begin to read"))?;
    Ok(true)
}

pub(super) fn end_own(connection: &Connection, path: &Path) -> Result<(), SqliteError> {
    match connection.is_autocommit() {
        true => Ok(()),
        false => connection.execute_batch("ROLLBACK").map_err(SqliteError::of(path, "end to read")),
    }
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
