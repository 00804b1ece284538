//! The fence of a file: triggers that refuse every write, set in the transaction that holds the write lock.
//!
//! SQLite lets one writer in at a time. Whoever has begun an immediate transaction is alone, and sees everything that was
//! committed; when it commits with the triggers in place, nobody can have written in between
//! (<https://www.sqlite.org/lang_transaction.html>). `RAISE(ABORT)` takes back the statement that fired it; the message is
//! written into the trigger, since versions before 3.47 take nothing but a literal there.

use std::path::Path;
use std::time::{Duration, Instant};

use pgrunbook_engine::fault::{self, Point};
use pgrunbook_postgres::Lsn;
use rusqlite::{Connection, ErrorCode};

use super::catalog::{OURS, collect};
use super::error::SqliteError;
use super::notes;
use super::open::quoted;

/// One row: whether the triggers refuse, and which crossing set them.
pub const FENCE: &str = "_pgrunbook_fence";

/// How far the target's changes are written back: one row for each stream.
pub const STATE: &str = "_pgrunbook_state";

const MAKE: &str = "
CREATE TABLE IF NOT EXISTS _pgrunbook_fence (on_ INTEGER NOT NULL, id TEXT NOT NULL, message TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS _pgrunbook_state (
    stream TEXT PRIMARY KEY, lsn TEXT NOT NULL, marker TEXT, transactions INTEGER NOT NULL, changes INTEGER NOT NULL
);
DELETE FROM _pgrunbook_fence;";

/// The application's own tables: not virtual ones, nor what these keep their rows in.
const TABLES: &str = "SELECT name FROM pragma_table_list
WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
  AND name NOT LIKE '\\_pgrunbook%' ESCAPE '\\' ORDER BY name";

/// What is known of a fence that was set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sealed {
    pub tables: Vec<String>,
    pub triggers: usize,
    /// Tables on which a write was tried, and refused with the message.
    pub refused: usize,
}

/// Begins a transaction that is the only one that may write. Blocking.
///
/// # Errors
/// [`SqliteError::Busy`] if somebody else holds the write lock for longer than the budget, with who has the file open.
pub fn begin(connection: &Connection, path: &Path, budget: Duration) -> Result<(), SqliteError> {
    connection.busy_timeout(budget).map_err(SqliteError::of(path, "wait for its lock"))?;
    let begun = Instant::now();
    match connection.execute_batch("BEGIN IMMEDIATE") {
        Err(error) if is_busy(&error) => Err(busy(
            path,
            begun,
            "another connection is in a transaction that writes, and there is one writer at a time",
        )),
        done => done.map_err(SqliteError::of(path, "begin to write")),
    }
}

/// Commits it. In rollback-journal mode a commit waits for readers. Blocking.
///
/// # Errors
/// [`SqliteError::Busy`] if they do not end within the budget: the transaction is still open then, and can be undone.
pub fn commit(connection: &Connection, path: &Path, budget: Duration) -> Result<(), SqliteError> {
    connection.busy_timeout(budget).map_err(SqliteError::of(path, "wait for its lock"))?;
    let begun = Instant::now();
    fault::pass(Point::BeforeCommit);
    match connection.execute_batch("COMMIT") {
        Err(error) if is_busy(&error) => {
            Err(busy(path, begun, "another connection reads, and in rollback-journal mode a commit waits for it"))
        }
        done => {
            done.map_err(SqliteError::of(path, "commit"))?;
            fault::pass(Point::AfterCommit);
            Ok(())
        }
    }
}

/// Takes back what the connection has begun. Blocking.
///
/// # Errors
/// If the file cannot be reached.
pub fn rollback(connection: &Connection, path: &Path) -> Result<(), SqliteError> {
    match connection.is_autocommit() {
        true => Ok(()),
        false => connection.execute_batch("ROLLBACK").map_err(SqliteError::of(path, "roll back")),
    }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether what kept a write from the file may pass by itself: a lock, or a disk on which room can be made.
pub(super) fn may_pass(error: &rusqlite::Error) -> bool {
    is_busy(error) || matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory))
}

fn busy(path: &Path, begun: Instant, waits_for: &'static str) -> SqliteError {
    let others = openers(path);
    let open = if others.is_empty() { String::new() } else { format!(" (open in {})", others.join(", ")) };
    SqliteError::Busy { path: format!("{}{open}", path.display()), seconds: begun.elapsed().as_secs(), waits_for }
}

/// Sets the fence in the transaction that the connection is in, and tries a write on each table. `back` is the stream that
/// writes back, and from where on. Blocking.
///
/// # Errors
/// If a table takes a write all the same.
pub fn set(
    connection: &Connection,
    path: &Path,
    id: &str,
    message: &str,
    back: Option<(&str, Lsn)>,
) -> Result<Sealed, SqliteError> {
    let failed = || SqliteError::of(path, "set its fence");
    // Where nobody writes, nothing is to be noted.
    notes::remove(connection, path)?;
    connection.execute_batch(MAKE).map_err(failed())?;
    connection
        .execute("INSERT INTO _pgrunbook_fence (on_, id, message) VALUES (1, ?1, ?2)", [id, message])
        .map_err(failed())?;
    if let Some((stream, lsn)) = back {
        connection
            .execute(
                "INSERT OR REPLACE INTO _pgrunbook_state (stream, lsn, marker, transactions, changes)
                 VALUES (?1, ?2, NULL, coalesce((SELECT transactions FROM _pgrunbook_state WHERE stream = ?1), 0),
                         coalesce((SELECT changes FROM _pgrunbook_state WHERE stream = ?1), 0))",
                [stream, &lsn.to_string()],
            )
            .map_err(failed())?;
    }
    let mut sealed = Sealed { tables: tables(connection, path)?, ..Sealed::default() };
    for (number, table) in sealed.tables.iter().enumerate() {
        let said = message.replace("{table}", table);
        let literal = format!("'{}'", said.replace('\0', "").replace('\'', "''"));
        for event in ["insert", "update", "delete"] {
            let name = quoted(&format!("{OURS}_fence_{number}_{event}"));
            let table = quoted(table);
            connection
                .execute_batch(&format!(
                    "DROP TRIGGER IF EXISTS {name}; CREATE TRIGGER {name} BEFORE {event} ON {table}
                     WHEN (SELECT on_ FROM _pgrunbook_fence) BEGIN SELECT RAISE(ABORT, {literal}); END"
                ))
                .map_err(failed())?;
            sealed.triggers += 1;
        }
        refuses(connection, path, table, &said)?;
        sealed.refused += 1;
    }
    Ok(sealed)
}

/// Tries a write, and takes it back if it was not refused.
fn refuses(connection: &Connection, path: &Path, table: &str, said: &str) -> Result<(), SqliteError> {
    let failed = || SqliteError::of(path, "try its fence");
    connection.execute_batch("SAVEPOINT _pgrunbook_try").map_err(failed())?;
    let tried = connection.execute_batch(&format!("INSERT INTO main.{} DEFAULT VALUES", quoted(table)));
    connection.execute_batch("ROLLBACK TO _pgrunbook_try; RELEASE _pgrunbook_try").map_err(failed())?;
    match tried {
        Err(error) if error.to_string().contains(said) => Ok(()),
        other => {
            let what = other.map_or_else(|error| error.to_string(), |()| "the write was taken".to_owned());
            Err(SqliteError::NotFenced { path: path.display().to_string(), table: table.to_owned(), what })
        }
    }
}

/// The application's own tables, by name. Blocking.
pub(super) fn tables(connection: &Connection, path: &Path) -> Result<Vec<String>, SqliteError> {
    collect(connection, path, TABLES, |row| row.get(0))
}

fn is_there(connection: &Connection, path: &Path, table: &str) -> Result<bool, SqliteError> {
    let sql = format!("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{table}'");
    Ok(!collect(connection, path, &sql, |_| Ok(()))?.is_empty())
}

/// The id of the fence that stands, if one does. Blocking.
///
/// # Errors
/// If the file cannot be read.
pub fn standing(connection: &Connection, path: &Path) -> Result<Option<String>, SqliteError> {
    if !is_there(connection, path, FENCE)? {
        return Ok(None);
    }
    let found: Vec<String> = collect(connection, path, "SELECT id FROM _pgrunbook_fence", |row| row.get(0))?;
    Ok(found.into_iter().next())
}

/// How far a stream is written back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    pub lsn: Lsn,
    pub marker: Option<String>,
    pub transactions: u64,
    pub changes: u64,
}

/// How far a stream is written back, if it ever was. Blocking.
///
/// # Errors
/// If the file cannot be read.
pub fn position(connection: &Connection, path: &Path, stream: &str) -> Result<Option<Position>, SqliteError> {
    if !is_there(connection, path, STATE)? {
        return Ok(None);
    }
    let sql = "SELECT lsn, marker, transactions, changes, stream FROM _pgrunbook_state";
    let rows: Vec<(Position, String)> = collect(connection, path, sql, |row| {
        let lsn: String = row.get(0)?;
        let number = |at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
        let position = Position {
            lsn: lsn.parse().unwrap_or_default(),
            marker: row.get(1)?,
            transactions: number(2)?,
            changes: number(3)?,
        };
        Ok((position, row.get(4)?))
    })?;
    Ok(rows.into_iter().find(|(_, name)| name == stream).map(|(position, _)| position))
}

/// Whether anything of ours is in the file. Blocking.
///
/// # Errors
/// If it cannot be read.
pub fn is_touched(connection: &Connection, path: &Path) -> Result<bool, SqliteError> {
    let sql = "SELECT 1 FROM sqlite_master WHERE name LIKE '\\_pgrunbook%' ESCAPE '\\' LIMIT 1";
    Ok(!collect(connection, path, sql, |_| Ok(()))?.is_empty())
}

/// Forgets how far the target's changes are written back; the fence stays. Blocking.
///
/// # Errors
/// If the file cannot be written to.
pub fn forget_state(connection: &Connection, path: &Path) -> Result<(), SqliteError> {
    connection
        .execute_batch("DROP TABLE IF EXISTS _pgrunbook_state")
        .map_err(SqliteError::of(path, "clear what a transfer kept in it"))
}

/// Takes the fence away, in the transaction that the connection is in; `all`: everything of ours. Blocking.
///
/// # Errors
/// If the file cannot be written to.
pub fn lift(connection: &Connection, path: &Path, all: bool) -> Result<(), SqliteError> {
    let failed = || SqliteError::of(path, "lift its fence");
    let sql = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '\\_pgrunbook%' ESCAPE '\\'";
    let triggers: Vec<String> = collect(connection, path, sql, |row| row.get(0))?;
    for trigger in triggers {
        connection.execute_batch(&format!("DROP TRIGGER {}", quoted(&trigger))).map_err(failed())?;
    }
    connection.execute_batch("DROP TABLE IF EXISTS _pgrunbook_fence").map_err(failed())?;
    if all {
        notes::remove(connection, path)?;
        connection.execute_batch("DROP TABLE IF EXISTS _pgrunbook_state").map_err(failed())?;
    }
    Ok(())
}

/// The processes of this machine that have the file open, as far as this user may see them: for people only.
pub fn openers(path: &Path) -> Vec<String> {
    let Ok(path) = path.canonicalize() else { return Vec::new() };
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        if pid == std::process::id().to_string() {
            continue;
        }
        let files = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        if files.into_iter().any(|file| std::fs::read_link(file.path()).is_ok_and(|link| link == path)) {
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("{pid} {}", command.trim()));
        }
    }
    found
}
