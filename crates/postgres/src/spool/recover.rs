//! What a spool's folder holds, after whatever happened.
//!
//! All segments but the last were synced whole before the next began: any wrong byte there is damage. In the last one, what
//! lies before the synced end (a hint in the file `synced`, written after each sync) was synced too; what lies behind may
//! be torn, and is cut off with everything behind the last thing that is whole.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::record::{self, Found, HEAD, Kind};
use super::{Segment, Segments, Source, SpoolError};
use crate::lsn::Lsn;
use crate::pgoutput::track::{Step, Tracker};

/// How much is read at once.
const CHUNK: usize = 1024 * 1024;

/// The name of the hint.
pub(super) const HINT: &str = "synced";

/// Who has the lock of this file may write.
const LOCK: &str = "lock";

/// How long a writer that is ending may take to sync what it has.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// A spool as it was found, ready to be written on.
pub(super) struct Recovered {
    pub lock: File,
    pub folder: PathBuf,
    pub source: Source,
    pub segments: Segments,
    pub tracker: Tracker,
    /// Where the last segment is whole; 0: it is still to be begun.
    pub end: u64,
}

/// Reads and checks everything, and cuts off what is not whole.
pub(super) fn recover(folder: &Path, source: Source, start: Lsn) -> Result<Recovered, SpoolError> {
    fs::create_dir_all(folder).map_err(SpoolError::io("make", folder))?;
    let lock = lock(folder)?;
    let numbers = numbers(folder)?;
    let mut recovered = Recovered {
        lock,
        folder: folder.to_owned(),
        source,
        segments: Segments::default(),
        tracker: Tracker::at(start),
        end: 0,
    };
    let hint = read_hint(folder);
    for (at, number) in numbers.iter().enumerate() {
        let path = folder.join(format!("{number:010}.spool"));
        if numbers.get(at + 1).is_some_and(|next| *next != number + 1) {
            return Err(SpoolError::Damaged { path, offset: 0, what: "the segment that should follow is missing" });
        }
        let last = at + 1 == numbers.len();
        let safe = match hint {
            _ if !last => u64::MAX,
            Some((segment, offset)) if segment == *number => offset,
            _ => 0,
        };
        recovered.segment(&path, *number, safe, at == 0)?;
    }
    if recovered.segments.files.is_empty() {
        recovered.segments.files.push_back(Segment { number: 1, begins: start, needed_until: start, bytes: 0 });
    }
    Ok(recovered)
}

impl Recovered {
    /// Reads a segment; its first `safe` bytes were synced.
    fn segment(&mut self, path: &Path, number: u64, safe: u64, first: bool) -> Result<(), SpoolError> {
        let damaged = |offset, what| SpoolError::Damaged { path: path.to_owned(), offset, what };
        let mut file = File::open(path).map_err(SpoolError::io("open", path))?;
        let size = file.metadata().map_err(SpoolError::io("look at", path))?.len();
        let mut head = Vec::new();
        (&mut file).take(HEAD as u64).read_to_end(&mut head).map_err(SpoolError::io("read", path))?;
        let Some((found, begins)) = record::read_head(&head) else {
            if safe > 0 {
                return Err(damaged(0, "it does not begin as a segment does"));
            }
            // Begun, and never synced: begin it again.
            self.end = 0;
            let begins = self.tracker.lsn;
            self.segments.files.push_back(Segment { number, begins, needed_until: begins, bytes: 0 });
            return Ok(());
        };
        if found != self.source {
            let (found, expected) = (found.to_string(), self.source.to_string());
            return Err(SpoolError::OtherSource { path: path.to_owned(), found, expected });
        }
        if first {
            self.tracker.lsn = begins;
        }
        self.segments.files.push_back(Segment { number, begins, needed_until: begins, bytes: size });
        let mut buffer = BytesMut::new();
        let mut at = HEAD as u64;
        self.end = at;
        let mut whole_end = self.tracker.lsn;
        loop {
            match record::look(&buffer) {
                Found::Whole(kind, lsn) => {
                    let head = buffer.first_chunk().expect("a whole record has a head");
                    let record = buffer.split_to(record::length_of(head)).freeze();
                    at += record.len() as u64;
                    if self.note(kind, lsn, &record::data(&record), number)? {
                        self.end = at;
                        whole_end = self.tracker.lsn;
                    }
                }
                Found::Damaged if at < safe => return Err(damaged(at, "a checksum is wrong")),
                Found::Damaged => break,
                Found::Partly => {
                    let begun = buffer.len();
                    buffer.resize(begun + CHUNK, 0);
                    let read = file.read(&mut buffer[begun..]).map_err(SpoolError::io("read", path))?;
                    buffer.truncate(begun + read);
                    if read == 0 {
                        if at < safe.min(size) || (safe == u64::MAX && !buffer.is_empty()) {
                            return Err(damaged(at, "a record ends early"));
                        }
                        break;
                    }
                }
            }
        }
        if safe != u64::MAX && size < safe {
            return Err(damaged(size, "it was longer when it was synced"));
        }
        if safe != u64::MAX {
            // The last segment: what is behind the last whole thing comes again.
            self.tracker.restart();
            self.tracker.lsn = whole_end;
            if let Some(last) = self.segments.files.back_mut() {
                last.bytes = self.end;
            }
        }
        Ok(())
    }

    /// Takes a record into account; whether something is whole behind it.
    fn note(&mut self, kind: Kind, lsn: Lsn, data: &bytes::Bytes, number: u64) -> Result<bool, SpoolError> {
        let whole = match kind {
            Kind::Relation => {
                self.tracker.note(data)?;
                true
            }
            Kind::Position => {
                self.tracker.lsn = self.tracker.lsn.max(lsn);
                true
            }
            Kind::Restart => {
                self.tracker.restart();
                self.segments.streams.clear();
                true
            }
            Kind::Message => match self.tracker.note(data)? {
                Step::Within => false,
                Step::Whole => true,
                Step::Streams(xid) => {
                    self.segments.streams.insert(xid, number);
                    false
                }
                Step::Streamed(xid) => {
                    self.segments.note_streamed(xid, self.tracker.lsn);
                    true
                }
            },
        };
        if whole {
            self.segments.note_end(self.tracker.lsn);
        }
        Ok(whole)
    }
}

fn lock(folder: &Path) -> Result<File, SpoolError> {
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(SpoolError::io("make", &path))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => return Err(SpoolError::Busy { path: folder.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(SpoolError::Io { what: "lock", path, source }),
        }
    }
}

fn numbers(folder: &Path) -> Result<Vec<u64>, SpoolError> {
    let entries = fs::read_dir(folder).map_err(SpoolError::io("read", folder))?;
    let mut numbers: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".spool")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Segment and offset of the last sync, as bytes of the hint.
pub(super) fn hint(segment: u64, offset: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&segment.to_le_bytes());
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    let check = xxh3_64_with_seed(&bytes[..16], 1);
    bytes[16..].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// The hint is written without a sync of its own: after a crash of the machine it may be older, or missing.
fn read_hint(folder: &Path) -> Option<(u64, u64)> {
    let bytes = fs::read(folder.join(HINT)).ok()?;
    let (segment, rest) = bytes.split_first_chunk::<8>()?;
    let (offset, _) = rest.split_first_chunk::<8>()?;
    let (segment, offset) = (u64::from_le_bytes(*segment), u64::from_le_bytes(*offset));
    (bytes == hint(segment, offset)).then_some((segment, offset))
}
