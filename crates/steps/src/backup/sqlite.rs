//! SQLite's online backup: <https://www.sqlite.org/backup.html>. Writers go on meanwhile.

use std::path::Path;
use std::time::Duration;

use pgrunbook_engine::StepError;
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

/// Pages copied at a time; between two such steps writers get their turn.
const PAGES: std::ffi::c_int = 1_024;

fn failed(path: &Path) -> impl Fn(rusqlite::Error) -> StepError {
    let path = path.display().to_string();
    move |error| StepError::failed("sqlite", format!("{path}: {error}"))
}

fn open(path: &Path) -> Result<Connection, StepError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .map_err(|error| StepError::unusable("sqlite", format!("{} cannot be opened: {error}", path.display())))
}

/// Copies a database file while it is in use. Blocking.
///
/// # Errors
/// If one of the files cannot be opened or written.
pub fn back_up(source: &Path, copy: &Path) -> Result<(), StepError> {
    let source_connection = open(source)?;
    let mut copy_connection = Connection::open(copy).map_err(failed(copy))?;
    let backup = Backup::new(&source_connection, &mut copy_connection).map_err(failed(copy))?;
    backup.run_to_completion(PAGES, Duration::from_millis(5), None).map_err(failed(source))
}

/// Whether a database file is whole: `PRAGMA integrity_check`. Returns the number of its tables. Blocking.
///
/// # Errors
/// With the first problem that SQLite names.
pub fn check(path: &Path) -> Result<u64, StepError> {
    let connection = open(path)?;
    let answer: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed(path))?;
    if answer != "ok" {
        return Err(StepError::failed("bad-backup", format!("{}: {answer}", path.display())));
    }
    connection
        .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))
        .map_err(failed(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_in_use_is_copied_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (source, copy) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let connection = Connection::open(&source).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (v); INSERT INTO t VALUES (1), (2)")
            .unwrap();
        back_up(&source, &copy).unwrap();
        assert_eq!(check(&copy).unwrap(), 1);
        let rows: i64 = Connection::open(&copy).unwrap().query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!(rows, 2);
    }

    #[test]
    fn damaged_copy_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        std::fs::write(&path, "this is no database, however long it goes on; a header has a hundred bytes".repeat(9))
            .unwrap();
        assert!(check(&path).unwrap_err().message.contains("not a database"));
    }
}
