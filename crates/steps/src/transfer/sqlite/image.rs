//! The base image: a private copy of the file as it was at one moment.
//!
//! All rows are read from the copy, not from the file itself. Reading the file in place would be as consistent (one
//! connection that sees the same `data_version` before the first reader's transaction and after the last one's proves it),
//! and saves half a second a gigabyte; but in rollback-journal mode it would keep writers out for the whole load, and in WAL
//! mode keep the log from being checkpointed. The copy holds a lock for as long as it takes to write the pages, and can be
//! read again: after a crash, for parity, or to find what changed since. Of two processor seconds for 860 MB most are the
//! system's, in one read and one write for each page; so it is taken beside the preflight, not after it.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::catalog::data_version;
use super::error::SqliteError;
use super::open::open_live;

/// Space that must be left over on the disk beside the image.
const SPARE_BYTES: u64 = 64 << 20;

/// A file that was copied.
#[derive(Debug)]
pub struct Image {
    pub path: PathBuf,
    pub bytes: u64,
    /// How long the source was read.
    pub took: Duration,
    /// Sees later commits: [`Image::source_changed`].
    source: Connection,
    source_path: PathBuf,
    version: i64,
}

impl Image {
    /// Whether anybody committed to the source since the image was taken. Blocking.
    ///
    /// # Errors
    /// If the source cannot be read any more.
    pub fn source_changed(&self) -> Result<bool, SqliteError> {
        Ok(data_version(&self.source, &self.source_path)? != self.version)
    }
}

/// Copies the file into a folder, readable by this user only. Blocking. `budget`: how long to wait for a writer.
///
/// # Errors
/// [`SqliteError::Disk`] before anything is written; [`SqliteError::Busy`] if a writer does not let go in time.
pub fn take(source: &Path, folder: &Path, budget: Duration) -> Result<Image, SqliteError> {
    let begun = Instant::now();
    let connection = open_live(source)?;
    let bytes: i64 = connection
        .query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |row| row.get(0))
        .map_err(SqliteError::of(source, "measure it"))?;
    let bytes = bytes.unsigned_abs();
    let free = free_bytes(folder)?;
    if free < bytes + SPARE_BYTES {
        let folder = folder.display().to_string();
        return Err(SqliteError::Disk { folder, free_bytes: free, need_bytes: bytes + SPARE_BYTES });
    }
    let path = folder.join("base.sqlite");
    let file = |source: std::io::Error| SqliteError::File { what: format!("make {}", path.display()), source };
    if path.exists() {
        std::fs::remove_file(&path).map_err(file)?;
    }
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(file)?;
    let copied = copy(&connection, source, &path, budget, begun);
    if copied.is_err() {
        let _ = std::fs::remove_file(&path);
    }
    let version = copied?;
    Ok(Image { path, bytes, took: begun.elapsed(), source: connection, source_path: source.to_owned(), version })
}

fn free_bytes(folder: &Path) -> Result<u64, SqliteError> {
    let facts = rustix::fs::statvfs(folder).map_err(|error| SqliteError::File {
        what: format!("look at the disk of {}", folder.display()),
        source: error.into(),
    })?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// Returns the source's `data_version` as of the copy.
fn copy(
    connection: &Connection,
    source: &Path,
    path: &Path,
    budget: Duration,
    begun: Instant,
) -> Result<i64, SqliteError> {
    let mut target = Connection::open(path).map_err(SqliteError::of(path, "open it"))?;
    // It is thrown away with the run; a crash of the machine ends the run's load as well.
    target
        .execute_batch("PRAGMA journal_mode = off; PRAGMA synchronous = off")
        .map_err(SqliteError::of(path, "set it up"))?;
    loop {
        // A read transaction around it all: the version that is noted is the version that is copied.
        let tried = connection
            .execute_batch("BEGIN")
            .and_then(|()| connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())));
        let outcome = match tried {
            Ok(()) => {
                let version = data_version(connection, source)?;
                let backup = Backup::new(connection, &mut target).map_err(SqliteError::of(path, "copy into it"))?;
                // All pages at once: in steps, any commit of another process would begin it again.
                backup.step(-1).map(|step| (step, version))
            }
            Err(error) => Err(error),
        };
        let _ = connection.execute_batch("ROLLBACK");
        let busy = match outcome {
            Ok((StepResult::Done, version)) => return Ok(version),
            Ok(_) => true,
            Err(error) => match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => true,
                _ => return Err(SqliteError::of(source, "copy it")(error)),
            },
        };
        if busy && begun.elapsed() >= budget {
            return Err(SqliteError::Busy {
                path: source.display().to_string(),
                seconds: begun.elapsed().as_secs(),
                waits_for: "a writer holds its PENDING or EXCLUSIVE lock (rollback-journal mode, a commit under way or \
                            `locking_mode = exclusive`), and a reader needs SHARED",
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
