//! What was received and not yet applied, on local disk: the source keeps no log for our slowness.
//!
//! A spool is a folder of segment files with checksummed records, written by one [`Writer`] and read by any number of
//! [`Reader`]s. Two ideas to know:
//!
//! - **Readers see whole things only.** The end that is published is synced to disk and lies between transactions (or
//!   between blocks of streamed ones). What lies behind it is cut off after a crash or a lost connection, as the server
//!   sends it again: so nothing is doubled.
//! - **Each segment can be read for itself.** It begins between transactions, with the descriptions of all tables that
//!   the server takes for known. So segments from the front can be removed.

mod follow;
mod reader;
mod record;
mod recover;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::lsn::Lsn;

pub use follow::{Batch, Follow, FollowError};
pub use reader::{Reader, Record};
pub use writer::Writer;

/// Bytes that may still be written where this folder is, by a user without privileges.
///
/// # Errors
/// If the folder is not there, or its file system does not say.
pub fn free_bytes(folder: &Path) -> std::io::Result<u64> {
    let facts = rustix::fs::statvfs(folder)?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// What can go wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("cannot {what} {}: {source}", .path.display())]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    /// The file system has no room, or the quota is used up. What was confirmed to the server is safe.
    #[error("no room on the disk for {}", .path.display())]
    Full { path: PathBuf },
    /// Bytes that were safely written are not as they were.
    #[error("{} is damaged at byte {offset}: {what}", .path.display())]
    Damaged { path: PathBuf, offset: u64, what: &'static str },
    /// The folder holds the changes of another cluster.
    #[error("{} belongs to another source: system {found}, and this is {expected}", .path.display())]
    OtherSource { path: PathBuf, found: String, expected: String },
    /// Another process, or another writer of this one, has it.
    #[error("{} is in use: another process receives into it", .path.display())]
    Busy { path: PathBuf },
    /// What is asked for was removed from it.
    #[error("{} no longer holds what came after {from}: it begins at {begins}", .path.display())]
    Pruned { path: PathBuf, from: Lsn, begins: Lsn },
    /// What the server sent cannot be spooled.
    #[error(transparent)]
    Message(#[from] crate::pgoutput::decode::DecodeError),
    /// The writer stopped, by an error that was told to whoever writes.
    #[error("the spool {} is no longer written", .path.display())]
    Closed { path: PathBuf },
}

impl SpoolError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io { what, path, source },
        }
    }
}

/// Whose changes a spool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The cluster's system identifier.
    pub system: u64,
    pub timeline: u32,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on timeline {}", self.system, self.timeline)
    }
}

/// How far the spool goes: what is written, or what is also on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Every transaction that ended here or before is in the spool, and nothing that ended later is seen.
    pub lsn: Lsn,
    segment: u64,
    offset: u64,
}

/// A handle on a spool for everybody but its writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    written: watch::Receiver<Extent>,
    synced: watch::Receiver<Extent>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    source: Source,
    bytes: AtomicU64,
    segments: Mutex<Segments>,
}

/// Which files there are, and how long each is needed.
#[derive(Debug, Default)]
struct Segments {
    /// In order; the last is the one that is written.
    files: VecDeque<Segment>,
    /// Of streamed transactions that did not end: the segment of their first block.
    streams: BTreeMap<u32, u64>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    number: u64,
    /// What was before it ended here.
    begins: Lsn,
    /// Something in it belongs to a transaction that ended here, and to none that ended later.
    needed_until: Lsn,
    bytes: u64,
}

impl Segments {
    /// The first that somebody needs who has applied everything up to `lsn`.
    fn first_needed(&self, lsn: Lsn) -> Option<&Segment> {
        let open = self.streams.values().min().copied().unwrap_or(u64::MAX);
        self.files.iter().find(|segment| segment.needed_until > lsn || segment.number >= open).or(self.files.back())
    }

    fn note_end(&mut self, lsn: Lsn) {
        if let Some(last) = self.files.back_mut() {
            last.needed_until = last.needed_until.max(lsn);
        }
    }

    /// A streamed transaction ended at `lsn`: its first block is needed until then.
    fn note_streamed(&mut self, xid: u32, lsn: Lsn) {
        if let Some(number) = self.streams.remove(&xid)
            && let Some(segment) = self.files.iter_mut().find(|segment| segment.number == number)
        {
            segment.needed_until = segment.needed_until.max(lsn);
        }
    }
}

impl Shared {
    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:010}.spool"))
    }
}

impl Spool {
    /// Opens the spool in `folder`, or begins one there for a slot whose consistent point is `start`. What a crash left
    /// half-written is cut off. Everything is read and checked once: about a second a gigabyte.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] with file and offset, [`SpoolError::OtherSource`], [`SpoolError::Busy`] where another
    /// writer does not let go of it within ten seconds, or the file system's.
    pub async fn open(folder: &Path, source: Source, start: Lsn) -> Result<(Self, Writer), SpoolError> {
        let folder = folder.to_owned();
        let recovered = tokio::task::spawn_blocking(move || recover::recover(&folder, source, start)).await;
        let recovered = recovered.expect("nothing in it panics, and nobody cancels it")?;
        Writer::start(recovered)
    }

    /// Everything that ended after `from`, and perhaps something before it; from now on, for ever.
    ///
    /// It goes as far as is written, and does not wait until that is on disk: only what the slot is told must be. When the
    /// machine dies, whoever has applied more than the spool then holds gets it from the server once more, and passes it over.
    ///
    /// # Errors
    /// [`SpoolError::Pruned`] if it does not reach back so far.
    pub fn reader(&self, from: Lsn) -> Result<Reader, SpoolError> {
        let number = {
            let segments = self.shared.segments();
            let begins = segments.files.front().map_or(Lsn(0), |first| first.begins);
            if from < begins {
                return Err(SpoolError::Pruned { path: self.shared.folder.clone(), from, begins });
            }
            // The newest file may not be there yet.
            segments.first_needed(from).map_or(0, |segment| segment.number).min(self.written.borrow().segment)
        };
        Ok(Reader::new(self.shared.clone(), self.written.clone(), number))
    }

    /// Removes segments of which nobody needs anything who has applied everything that ended at `below` or before.
    /// Blocking, and short: it removes files.
    ///
    /// # Errors
    /// If a file cannot be removed; those before it were.
    pub fn prune(&self, below: Lsn) -> Result<(), SpoolError> {
        let keep = self.shared.segments().first_needed(below).map_or(0, |segment| segment.number);
        // What is written now, or was not yet synced past, is never removed.
        let keep = keep.min(self.synced.borrow().segment);
        loop {
            let first = match self.shared.segments().files.front() {
                Some(first) if first.number < keep => *first,
                _ => return Ok(()),
            };
            let path = self.shared.path(first.number);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(SpoolError::io("remove", &path)(error));
                }
                _ => {}
            }
            self.shared.segments().files.pop_front();
            self.shared.bytes.fetch_sub(first.bytes, Ordering::Relaxed);
        }
    }

    /// Where it begins: everything that ended later is in it.
    pub fn begins(&self) -> Lsn {
        self.shared.segments().files.front().map_or(Lsn(0), |first| first.begins)
    }

    /// How large it is, with what was not yet synced.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// How far it goes on disk; changes whenever it goes further.
    pub fn synced(&self) -> watch::Receiver<Extent> {
        self.synced.clone()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Whose changes it holds.
    pub fn source(&self) -> Source {
        self.shared.source
    }
}
