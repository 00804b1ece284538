//! The image: a file as it was at one moment, while others go on writing to it.
//!
//! In WAL mode readers do not hinder writers: some connections are pinned to one state, and nothing is copied. The log is not
//! checkpointed past that state meanwhile, so it grows by what is written.
//!
//! In rollback-journal mode whoever reads keeps writers out, so the file is copied and the copy is read; a writer waits only
//! for the copying. While a reader's lock is held the file does not change: its bytes are copied, 900 MB in 0.4 s where the
//! disk keeps up. (SQLite's backup, page by page, takes 2.5 s of a processor for it.)

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::ops::Deref;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::catalog::data_version;
use super::error::SqliteError;
use super::open::{open_image, open_live};

/// Space that must be left over on the disk beside a copy.
const SPARE_BYTES: u64 = 64 << 20;

/// How long to wait before a writer that is in the way is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// A file at one moment.
#[derive(Debug)]
pub struct Image {
    pub bytes: u64,
    /// How long a writer had to wait, or until all connections saw the same state.
    pub took: Duration,
    kept: Kept,
    source: PathBuf,
    /// Sees later commits: [`Image::source_changed`].
    watch: Mutex<Connection>,
    version: i64,
}

#[derive(Debug)]
enum Kept {
    Copy(PathBuf),
    /// Connections in a transaction each, of which all see the same.
    Pinned {
        idle: Mutex<Vec<Connection>>,
        returned: Condvar,
    },
}

/// A connection that sees the image. When it is dropped another reader may have it.
#[derive(Debug)]
pub struct Seen<'a> {
    connection: Option<Connection>,
    of: Option<(&'a Mutex<Vec<Connection>>, &'a Condvar)>,
}

impl Deref for Seen<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        if let (Some(connection), Some((idle, returned))) = (self.connection.take(), self.of) {
            lock(idle).push(connection);
            returned.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Image {
    /// A connection that sees it. Blocking: where it is not a copy there are `readers` of them.
    ///
    /// # Errors
    /// If the copy cannot be opened.
    pub fn open(&self) -> Result<Seen<'_>, SqliteError> {
        match &self.kept {
            Kept::Copy(path) => Ok(Seen { connection: Some(open_image(path)?), of: None }),
            Kept::Pinned { idle, returned } => {
                let mut waiting = lock(idle);
                loop {
                    match waiting.pop() {
                        Some(connection) => {
                            return Ok(Seen { connection: Some(connection), of: Some((idle, returned)) });
                        }
                        None => waiting = returned.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            }
        }
    }

    /// The same, for as long as the caller likes: one reader fewer is left.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn part_with_one(&self) -> Result<Connection, SqliteError> {
        let mut seen = self.open()?;
        seen.of = None;
        Ok(seen.connection.take().expect("it is there until it is dropped"))
    }

    /// The file that it shows.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Where its copy is, if it is one.
    pub fn copy(&self) -> Option<&Path> {
        match &self.kept {
            Kept::Copy(path) => Some(path),
            Kept::Pinned { .. } => None,
        }
    }

    /// Whether anybody committed to the source since the image was taken. Blocking.
    ///
    /// # Errors
    /// If the source cannot be read any more.
    pub fn source_changed(&self) -> Result<bool, SqliteError> {
        Ok(data_version(&lock(&self.watch), &self.source)? != self.version)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Kept::Copy(path) = &self.kept {
            // It is of no use to anybody else; one that stays is overwritten by the next.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes the image of a file for so many readers at once. A copy, where there must be one, goes into the folder, readable by
/// this user only, until the image is dropped. Blocking. `budget`: how long to wait for a writer.
///
/// # Errors
/// [`SqliteError::Disk`] before anything is written; [`SqliteError::Busy`] if a writer does not let go in time.
pub fn take(source: &Path, folder: &Path, readers: usize, budget: Duration) -> Result<Image, SqliteError> {
    let begun = Instant::now();
    let watch = open_live(source)?;
    let (bytes, is_copied) = measure(&watch, source)?;
    let (kept, version) = match is_copied {
        false => pin(&watch, source, readers.max(1), budget)?,
        true => copy(&watch, source, folder, bytes, budget)?,
    };
    Ok(Image { bytes, took: begun.elapsed(), kept, source: source.to_owned(), watch: Mutex::new(watch), version })
}

/// The file's bytes, and whether its image would be a copy.
fn measure(watch: &Connection, source: &Path) -> Result<(u64, bool), SqliteError> {
    let bytes: i64 = watch
        .query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |row| row.get(0))
        .map_err(SqliteError::of(source, "measure it"))?;
    let mode: String = watch
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .map_err(SqliteError::of(source, "read journal_mode"))?;
    Ok((bytes.unsigned_abs(), mode != "wal"))
}

/// How many bytes must be free for the image of a file: none where it is no copy. Blocking.
///
/// # Errors
/// If the file cannot be read.
pub fn copied_bytes(source: &Path) -> Result<u64, SqliteError> {
    let (bytes, is_copied) = measure(&open_live(source)?, source)?;
    Ok(if is_copied { bytes + SPARE_BYTES } else { 0 })
}

/// Does something again until no writer is in the way. `Ok(None)` says that one was.
fn patiently<T>(
    source: &Path,
    budget: Duration,
    mut once: impl FnMut() -> Result<Option<T>, SqliteError>,
) -> Result<T, SqliteError> {
    let begun = Instant::now();
    loop {
        if let Some(done) = once()? {
            return Ok(done);
        }
        if begun.elapsed() >= budget {
            return Err(SqliteError::Busy {
                path: source.display().to_string(),
                seconds: begun.elapsed().as_secs(),
                waits_for: "a writer holds its PENDING or EXCLUSIVE lock (rollback-journal mode, a commit under way or \
                            `locking_mode = exclusive`), and a reader needs SHARED",
            });
        }
        std::thread::sleep(PAUSE);
    }
}

/// Begins to read: from here on the connection sees one state. Whether no writer was in the way.
fn begin(connection: &Connection, source: &Path) -> Result<bool, SqliteError> {
    let begun = connection
        .execute_batch("BEGIN")
        .and_then(|()| connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())));
    match begun {
        Ok(()) => Ok(true),
        Err(error) => {
            end(connection);
            match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Ok(false),
                _ => Err(SqliteError::of(source, "begin to read")(error)),
            }
        }
    }
}

fn end(connection: &Connection) {
    // Without a transaction there is nothing to end.
    let _ = connection.execute_batch("ROLLBACK");
}

/// Brings connections to one state: if nobody committed from before the first began until after the last one has, they all see
/// the same.
fn pin(watch: &Connection, source: &Path, readers: usize, budget: Duration) -> Result<(Kept, i64), SqliteError> {
    let connections = (0..readers).map(|_| open_live(source)).collect::<Result<Vec<_>, _>>()?;
    let version = patiently(source, budget, || {
        let before = data_version(watch, source)?;
        let mut all = true;
        for connection in &connections {
            all = all && begin(connection, source)?;
        }
        if all && data_version(watch, source)? == before {
            return Ok(Some(before));
        }
        connections.iter().for_each(end);
        Ok(None)
    })?;
    Ok((Kept::Pinned { idle: Mutex::new(connections), returned: Condvar::new() }, version))
}

/// Copies the file while a reader's lock keeps it as it is. Returns its `data_version` as of the copy.
fn copy(
    watch: &Connection,
    source: &Path,
    folder: &Path,
    bytes: u64,
    budget: Duration,
) -> Result<(Kept, i64), SqliteError> {
    let free = free_bytes(folder)?;
    if free < bytes + SPARE_BYTES {
        let folder = folder.display().to_string();
        return Err(SqliteError::Disk { folder, free_bytes: free, need_bytes: bytes + SPARE_BYTES });
    }
    let path = folder.join("base.sqlite");
    let failed = |source| SqliteError::File { what: format!("make {}", path.display()), source };
    if path.exists() {
        std::fs::remove_file(&path).map_err(failed)?;
    }
    let mut options = File::options();
    let mut to = options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let copied = patiently(source, budget, || {
        if !begin(watch, source)? {
            return Ok(None);
        }
        let copied = data_version(watch, source).and_then(|version| {
            copy_bytes(source, &mut to, &path)?;
            Ok(Some(version))
        });
        end(watch);
        copied
    });
    match copied {
        Ok(version) => Ok((Kept::Copy(path), version)),
        Err(error) => {
            let _ = std::fs::remove_file(&path);
            Err(error)
        }
    }
}

fn free_bytes(folder: &Path) -> Result<u64, SqliteError> {
    pgrunbook_postgres::spool::free_bytes(folder)
        .map_err(|source| SqliteError::File { what: format!("look at the disk of {}", folder.display()), source })
}

/// Files whose bytes were read, by device and number.
///
/// They stay open as long as the process lives: by POSIX, closing any descriptor of a file drops every lock that the process
/// has on it, those of SQLite's connections too (<https://www.sqlite.org/howtocorrupt.html>, section 2.2).
static READ: Mutex<BTreeMap<(u64, u64), Arc<File>>> = Mutex::new(BTreeMap::new());

fn copy_bytes(source: &Path, to: &mut File, path: &Path) -> Result<(), SqliteError> {
    let failed = |what: &str, path: &Path| {
        let what = format!("{what} {}", path.display());
        move |source: std::io::Error| SqliteError::File { what, source }
    };
    let facts = std::fs::metadata(source).map_err(failed("look at", source))?;
    let key = (facts.dev(), facts.ino());
    let from = {
        let mut read = lock(&READ);
        match read.get(&key) {
            Some(file) => file.clone(),
            None => {
                let file = Arc::new(File::open(source).map_err(failed("open", source))?);
                read.insert(key, file.clone());
                file
            }
        }
    };
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match from.read_at(&mut buffer, at) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                to.write_all(&buffer[..read]).map_err(failed("write", path))?;
                at += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", source)(error)),
        }
    }
}
