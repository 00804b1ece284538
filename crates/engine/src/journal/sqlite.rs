//! The journal in one SQLite file: WAL, `synchronous=FULL`, one connection on a thread of its own.
//!
//! A commit returns only after the WAL is synced (<https://www.sqlite.org/pragma.html#pragma_synchronous>). After any
//! error of the storage the connection is thrown away: what SQLite believes of the file is then not worth much, and
//! the next call opens it again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::{Journal, JournalError, LEASE_EXPIRY, Sealed};
use crate::process;
use crate::target::Claim;

/// Version of the tables, in `user_version`.
const SCHEMA_VERSION: i64 = 1;

/// Another process writes for a few milliseconds; after this long something is wrong with it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// `epoch.epoch` guards every append; `event` is append-only by triggers, so that not even a `sqlite3` prompt edits
/// it by accident. Statements tried on SQLite 3.51.
const SCHEMA: &str = "
CREATE TABLE event (
    run      TEXT    NOT NULL,
    seq      INTEGER NOT NULL CHECK (seq > 0),
    at       TEXT    NOT NULL,
    event    TEXT    NOT NULL,
    previous TEXT    NOT NULL,
    hash     TEXT    NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE epoch (
    run   TEXT    NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE lease (
    name         TEXT    NOT NULL PRIMARY KEY,
    run          TEXT    NOT NULL,
    runbook      TEXT    NOT NULL,
    epoch        INTEGER NOT NULL,
    operator     TEXT    NOT NULL,
    host         TEXT    NOT NULL,
    pid          INTEGER NOT NULL,
    process      TEXT,
    since        TEXT    NOT NULL,
    step         TEXT,
    heartbeat_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER event_is_never_updated BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER event_is_never_deleted BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
";

/// A journal in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteJournal {
    place: String,
    jobs: mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce(&mut Slot) + Send>;

impl SqliteJournal {
    /// Opens the file, and makes it and its folder where they do not exist.
    ///
    /// # Errors
    /// If it cannot be read or written, is no journal, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let place = path.display().to_string();
        let mut slot = Slot { path: path.to_owned(), connection: None };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| JournalError::Storage {
                place: place.clone(),
                what: "created",
                why: error.to_string(),
            })?;
        }
        slot.connection().map_err(|error| error.at(&place, "opened"))?;

        let (jobs, mut inbox) = mpsc::channel::<Job>(16);
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                while let Some(job) = inbox.blocking_recv() {
                    job(&mut slot);
                }
            })
            .map_err(|error| JournalError::Storage { place: place.clone(), what: "opened", why: error.to_string() })?;
        Ok(Self { place, jobs })
    }

    /// Runs `work` on the journal's thread. A failure of the storage closes the connection.
    ///
    /// Cancellation: a caller that goes away leaves the work to be done; it is one transaction.
    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |slot| {
            let result = slot.connection().and_then(work);
            if let Err(Fault::Sqlite(_) | Fault::Format(_)) = &result {
                slot.connection = None;
            }
            // The caller may be gone.
            let _ = answer.send(result);
        });
        let gone = || JournalError::Storage { place: self.place.clone(), what, why: "its thread is gone".to_owned() };
        self.jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map_err(|fault| fault.at(&self.place, what))
    }
}

/// The connection, or the way to it.
struct Slot {
    path: PathBuf,
    connection: Option<Connection>,
}

impl Slot {
    fn connection(&mut self) -> Result<&mut Connection, Fault> {
        if self.connection.is_none() {
            self.connection = Some(connect(&self.path)?);
        }
        Ok(self.connection.as_mut().expect("set in the line above"))
    }
}

fn connect(path: &Path) -> Result<Connection, Fault> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.set_prepared_statement_cache_capacity(16);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
        }
        SCHEMA_VERSION => transaction.rollback()?,
        newer => {
            return Err(Fault::Format(format!(
                "its tables are of version {newer}, and this pgrunbook knows up to {SCHEMA_VERSION}"
            )));
        }
    }
    Ok(connection)
}

/// What can go wrong on the journal's thread.
enum Fault {
    Sqlite(rusqlite::Error),
    Format(String),
    Behind,
    Taken(Box<Claim>),
    Unreadable(JournalError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Fault {
    fn at(self, place: &str, what: &'static str) -> JournalError {
        let storage = |why| JournalError::Storage { place: place.to_owned(), what, why };
        match self {
            Self::Sqlite(error) => storage(sentence(&error)),
            Self::Format(why) => storage(why),
            Self::Behind => JournalError::Behind,
            Self::Taken(claim) => JournalError::Taken(claim),
            Self::Unreadable(error) => error,
        }
    }
}

fn sentence(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
        Some(ErrorCode::ReadOnly) => "it is read-only".to_owned(),
        Some(ErrorCode::DatabaseBusy) => "another process holds it".to_owned(),
        Some(ErrorCode::NotADatabase) => "it is not a SQLite file".to_owned(),
        _ => error.to_string(),
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn append(&self, run: &str, epoch: u64, events: &[Sealed]) -> Result<(), JournalError> {
        let run = run.to_owned();
        let rows = events
            .iter()
            .map(|sealed| {
                let text = serde_json::to_string(&sealed.event).map_err(|error| JournalError::Storage {
                    place: self.place.clone(),
                    what: "written",
                    why: error.to_string(),
                })?;
                Ok((sealed.seq, sealed.at.to_string(), text, sealed.previous.clone(), sealed.hash.clone()))
            })
            .collect::<Result<Vec<_>, JournalError>>()?;
        self.call("written", move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if current_epoch(&transaction, &run)? != epoch {
                return Err(Fault::Behind);
            }
            {
                let last: u64 = transaction
                    .prepare_cached("SELECT coalesce(max(seq), 0) FROM event WHERE run = ?1")?
                    .query_row([&run], |row| row.get(0))?;
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO event (run, seq, at, event, previous, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?;
                for (expected, (seq, at, event, previous, hash)) in (last + 1..).zip(rows) {
                    if seq != expected {
                        return Err(Fault::Behind);
                    }
                    insert.execute(params![run, seq, at, event, previous, hash])?;
                }
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    async fn read(&self, run: &str) -> Result<Vec<Sealed>, JournalError> {
        let run = run.to_owned();
        self.call("read", move |connection| {
            let mut select = connection
                .prepare_cached("SELECT seq, at, event, previous, hash FROM event WHERE run = ?1 ORDER BY seq")?;
            let mut rows = select.query([&run])?;
            let mut events = Vec::new();
            while let Some(row) = rows.next()? {
                let seq: u64 = row.get(0)?;
                let (at, event): (String, String) = (row.get(1)?, row.get(2)?);
                let sealed = Sealed::read(&run, seq, &at, &event, row.get(3)?, row.get(4)?);
                events.push(sealed.map_err(Fault::Unreadable)?);
            }
            Ok(events)
        })
        .await
    }

    async fn runs(&self) -> Result<Vec<String>, JournalError> {
        self.call("read", |connection| {
            let runs = connection
                .prepare_cached("SELECT run FROM event WHERE seq = 1 ORDER BY at DESC, run DESC")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(runs)
        })
        .await
    }

    async fn claim(&self, name: &str, claim: &Claim) -> Result<u64, JournalError> {
        let (name, claim) = (name.to_owned(), claim.clone());
        self.call("written", move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // A run has one lease only, and a lease one run: both ways there must be nobody else.
            let holders = holders(&transaction, "WHERE name = ?1 OR run = ?2", params![name, claim.run])?;
            for holder in holders {
                if holder.lives(&claim.host) {
                    return Err(Fault::Taken(Box::new(holder.claim)));
                }
            }
            let epoch = current_epoch(&transaction, &claim.run)? + 1;
            transaction
                .prepare_cached(
                    "INSERT INTO epoch (run, epoch) VALUES (?1, ?2) ON CONFLICT (run) DO UPDATE SET epoch = excluded.epoch",
                )?
                .execute(params![claim.run, epoch])?;
            transaction
                .prepare_cached("DELETE FROM lease WHERE name = ?1 OR run = ?2")?
                .execute(params![name, claim.run])?;
            transaction
                .prepare_cached(
                    "INSERT INTO lease (name, run, runbook, epoch, operator, host, pid, process, since, step, heartbeat_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                )?
                .execute(params![
                    name,
                    claim.run,
                    claim.runbook,
                    epoch,
                    claim.operator,
                    claim.host,
                    claim.pid,
                    process::mark(claim.pid),
                    claim.since.to_string(),
                    claim.step.as_ref().map(|step| step.as_str()),
                    Timestamp::now().as_millisecond(),
                ])?;
            transaction.commit()?;
            Ok(epoch)
        })
        .await
    }

    async fn heartbeat(&self, name: &str, claim: &Claim) -> Result<(), JournalError> {
        let (name, claim) = (name.to_owned(), claim.clone());
        self.call("written", move |connection| {
            let changed = connection
                .prepare_cached(
                    "UPDATE lease SET heartbeat_ms = ?4, step = ?5 WHERE name = ?1 AND run = ?2 AND epoch = ?3",
                )?
                .execute(params![
                    name,
                    claim.run,
                    claim.epoch,
                    Timestamp::now().as_millisecond(),
                    claim.step.as_ref().map(|step| step.as_str())
                ])?;
            if changed == 1 { Ok(()) } else { Err(Fault::Behind) }
        })
        .await
    }

    async fn release(&self, name: &str, claim: &Claim) -> Result<(), JournalError> {
        let (name, claim) = (name.to_owned(), claim.clone());
        self.call("written", move |connection| {
            connection
                .prepare_cached("DELETE FROM lease WHERE name = ?1 AND run = ?2 AND epoch = ?3")?
                .execute(params![name, claim.run, claim.epoch])?;
            Ok(())
        })
        .await
    }

    async fn leases(&self, host: &str) -> Result<Vec<(String, Claim)>, JournalError> {
        let host = host.to_owned();
        self.call("read", move |connection| {
            let living = holders(connection, "", [])?.into_iter().filter(|holder| holder.lives(&host));
            Ok(living.map(|holder| (holder.name, holder.claim)).collect())
        })
        .await
    }

    async fn cluster(&self) -> Result<Option<String>, JournalError> {
        Ok(None)
    }
}

fn current_epoch(connection: &Connection, run: &str) -> Result<u64, Fault> {
    Ok(connection
        .prepare_cached("SELECT epoch FROM epoch WHERE run = ?1")?
        .query_row([run], |row| row.get(0))
        .optional()?
        .unwrap_or(0))
}

/// Who holds a lease, and what is known of their life.
struct Holder {
    name: String,
    claim: Claim,
    process: Option<String>,
    heartbeat_ms: i64,
}

impl Holder {
    /// Asked from `host`. A process of the same host is asked for directly; of another, only the heartbeat tells.
    fn lives(&self, host: &str) -> bool {
        if self.claim.host == host && !process::lives(self.claim.pid, self.process.as_deref()) {
            return false;
        }
        let silent_ms = Timestamp::now().as_millisecond() - self.heartbeat_ms;
        silent_ms < i64::try_from(LEASE_EXPIRY.as_millis()).unwrap_or(i64::MAX)
    }
}

fn holders(connection: &Connection, filter: &str, values: impl rusqlite::Params) -> Result<Vec<Holder>, Fault> {
    let text = format!(
        "SELECT name, run, runbook, epoch, operator, host, pid, process, since, step, heartbeat_ms FROM lease {filter} ORDER BY name"
    );
    let mut select = connection.prepare_cached(&text)?;
    let mut rows = select.query(values)?;
    let mut holders = Vec::new();
    while let Some(row) = rows.next()? {
        let (since, step): (String, Option<String>) = (row.get(8)?, row.get(9)?);
        holders.push(Holder {
            name: row.get(0)?,
            claim: Claim {
                run: row.get(1)?,
                runbook: row.get(2)?,
                epoch: row.get(3)?,
                operator: row.get(4)?,
                host: row.get(5)?,
                pid: row.get(6)?,
                since: since.parse().map_err(|error| Fault::Format(format!("a lease holds no time: {error}")))?,
                step: step.and_then(|step| step.parse().ok()),
            },
            process: row.get(7)?,
            heartbeat_ms: row.get(10)?,
        });
    }
    Ok(holders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Event;

    fn stopped(why: &str, before: Option<&Sealed>) -> Sealed {
        Sealed::seal(Event::Stopped { why: why.to_owned() }, Timestamp::UNIX_EPOCH, before)
    }

    fn open() -> (tempfile::TempDir, SqliteJournal) {
        let folder = tempfile::tempdir().unwrap();
        let journal = SqliteJournal::open(&folder.path().join("deep/journal.db")).unwrap();
        (folder, journal)
    }

    #[tokio::test]
    async fn full_disk_is_one_clear_sentence_and_nothing_is_written() {
        let (_folder, journal) = open();
        let first = stopped("first", None);
        journal.append("r", 0, std::slice::from_ref(&first)).await.unwrap();
        journal
            .call("written", |connection| {
                let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
                connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
                Ok(())
            })
            .await
            .unwrap();
        let second = stopped(&"long ".repeat(10_000), Some(&first));
        let error = journal.append("r", 0, std::slice::from_ref(&second)).await.unwrap_err();
        assert!(error.to_string().ends_with("cannot be written: the disk is full"), "{error}");
        assert_eq!(journal.read("r").await.unwrap(), std::slice::from_ref(&first));
        // The connection was opened anew, without the limit.
        journal.append("r", 0, &[second]).await.unwrap();
    }

    #[tokio::test]
    async fn events_can_be_neither_changed_nor_deleted() {
        let (_folder, journal) = open();
        journal.append("r", 0, &[stopped("first", None)]).await.unwrap();
        for statement in ["UPDATE event SET hash = ''", "DELETE FROM event"] {
            let error = journal.call("written", |connection| Ok(connection.execute(statement, [])?)).await.unwrap_err();
            assert!(error.to_string().contains("append-only"), "{error}");
        }
    }

    #[tokio::test]
    async fn newer_tables_are_refused() {
        let (folder, journal) = open();
        journal.call("written", |c| Ok(c.pragma_update(None, "user_version", 2)?)).await.unwrap();
        let error = SqliteJournal::open(&folder.path().join("deep/journal.db")).unwrap_err();
        assert!(error.to_string().contains("its tables are of version 2"), "{error}");
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        std::fs::write(&path, "this is a text and not a database, and long enough to be read as one".repeat(100))
            .unwrap();
        let error = SqliteJournal::open(&path).unwrap_err();
        assert!(error.to_string().ends_with("it is not a SQLite file"), "{error}");
    }

    #[tokio::test]
    async fn commits_are_synced() {
        let (_folder, journal) = open();
        let pragmas = journal
            .call("read", |c| {
                let mode: String = c.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
                let synchronous: i64 = c.pragma_query_value(None, "synchronous", |row| row.get(0))?;
                Ok((mode, synchronous))
            })
            .await
            .unwrap();
        assert_eq!(pragmas, ("wal".to_owned(), 2), "2 is FULL");
    }
}
