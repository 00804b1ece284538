//! Opening a SQLite file to read it, and nothing else.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::SqliteError;

/// Opens a file that others may be writing to. It is never written to by us, nor repaired.
///
/// # Errors
/// If it is not there, is no SQLite file, or cannot be read as it is (a journal that must be rolled back first).
pub fn open_live(path: &Path) -> Result<Connection, SqliteError> {
    // Not `immutable`: that would ignore the locks, the journal and the write-ahead log of whoever writes.
    open(path, "mode=ro")
}

/// Opens a file to fence it, or to write back what was changed in the target.
///
/// # Errors
/// As [`open_live`]; if this user may not write to it.
pub fn open_write(path: &Path) -> Result<Connection, SqliteError> {
    drop(open_live(path)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(uri(path, "mode=rw"), flags).map_err(SqliteError::of(path, "open it to write"))?;
    // Foreign keys were judged where the change was made.
    connection
        .execute_batch("PRAGMA foreign_keys = off; PRAGMA recursive_triggers = off; PRAGMA cell_size_check = on")
        .map_err(SqliteError::of(path, "set it up"))?;
    connection.busy_timeout(BUSY).map_err(SqliteError::of(path, "set it up"))?;
    Ok(connection)
}

/// How long a lock of another process is waited for, unless a budget says otherwise.
const BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// Opens a file that belongs to us alone.
pub(super) fn open_image(path: &Path) -> Result<Connection, SqliteError> {
    open(path, "mode=ro&immutable=1")
}

fn open(path: &Path, how: &str) -> Result<Connection, SqliteError> {
    let shown = path.display().to_string();
    let metadata = std::fs::metadata(path)
        .map_err(|error| SqliteError::CannotOpen { path: shown.clone(), why: error.to_string() })?;
    if !metadata.is_file() {
        return Err(SqliteError::CannotOpen { path: shown, why: "it is not a file".to_owned() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri(path, how), flags).map_err(SqliteError::of(path, "open it"))?;
    // What a hostile file could do by its schema: call functions with effects from views and triggers.
    connection
        .execute_batch("PRAGMA trusted_schema = off; PRAGMA query_only = on; PRAGMA cell_size_check = on")
        .map_err(SqliteError::of(path, "set it up"))?;
    // The first read: here a journal that needs rolling back, or something that is no database, shows.
    connection
        .query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))
        .map_err(SqliteError::of(path, "read its schema"))?;
    Ok(connection)
}

/// <https://www.sqlite.org/uri.html>: everything but plain letters is escaped.
fn uri(path: &Path, how: &str) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("{uri}?{how}")
}

/// A name as SQLite quotes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
