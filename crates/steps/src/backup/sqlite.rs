//! SQLite's online backup: <https://www.sqlite.org/backup.html>. Writers go on meanwhile.

use std::path::Path;
use std::time::Duration;

use pgrunbook_engine::StepError;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

/// Pages copied at a time where readers keep writers waiting; between two such steps writers get their turn.
const PAGES: std::ffi::c_int = 1_024;
/// All that are left.
const ALL: std::ffi::c_int = -1;
/// How often writers may have their turn at the cost of beginning anew: then they wait once, for the whole copy.
const BEGINNINGS: u32 = 5;

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
/// What somebody else writes between two steps makes SQLite begin the copy anew, so under steady writers a copy of many steps never ends. With a
/// write-ahead log readers keep nobody waiting, and it is one step.
///
/// # Errors
/// If one of the files cannot be opened or written.
pub fn back_up(source: &Path, copy: &Path) -> Result<(), StepError> {
    let source_connection = open(source)?;
    let mode: String =
        source_connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(failed(source))?;
    let has_log = mode == "wal";
    let mut copy_connection = Connection::open(copy).map_err(failed(copy))?;
    let backup = Backup::new(&source_connection, &mut copy_connection).map_err(failed(copy))?;
    let (mut left, mut begun) = (std::ffi::c_int::MAX, 0);
    loop {
        let pages = if has_log || begun > BEGINNINGS { ALL } else { PAGES };
        let step = backup.step(pages).map_err(failed(source))?;
        if step == StepResult::Done {
            return Ok(());
        }
        // Not where somebody else holds the file: nothing was copied then.
        if step == StepResult::More {
            let remaining = backup.progress().remaining;
            begun += u32::from(remaining >= left || left == std::ffi::c_int::MAX);
            left = remaining;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
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

    /// A copy of many steps, while another connection writes without a pause. Whoever writes is not refused.
    fn copied_under_writes(mode: &str) {
        let folder = tempfile::tempdir().unwrap();
        let (source, copy) = (folder.path().join("a.db"), folder.path().join("b.db"));
        let writer = Connection::open(&source).unwrap();
        writer
            .execute_batch(&format!(
                "PRAGMA journal_mode = {mode}; PRAGMA synchronous = off; CREATE TABLE t (n INTEGER PRIMARY KEY, v BLOB);
                 INSERT INTO t SELECT value, zeroblob(4000) FROM (WITH RECURSIVE n (value) AS
                     (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 6000) SELECT value FROM n)"
            ))
            .unwrap();
        let (done, is_done) = std::sync::mpsc::channel();
        let to = copy.clone();
        std::thread::spawn(move || done.send(back_up(&source, &to)));
        let begun = std::time::Instant::now();
        let mut written = 0;
        let copied = loop {
            writer.execute("UPDATE t SET v = randomblob(4000) WHERE n = 1 + ?1 % 6000", [written]).unwrap();
            written += 1;
            match is_done.try_recv() {
                Ok(copied) => break copied,
                Err(_) => assert!(begun.elapsed() < Duration::from_secs(120), "no end after {written} writes"),
            }
        };
        copied.unwrap();
        assert_eq!(check(&copy).unwrap(), 1);
        let rows: i64 = Connection::open(&copy).unwrap().query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!(rows, 6000);
    }

    #[test]
    fn copy_ends_while_others_write_with_a_log() {
        copied_under_writes("wal");
    }

    #[test]
    fn copy_ends_while_others_write_without_a_log() {
        copied_under_writes("delete");
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
