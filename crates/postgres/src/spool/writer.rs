//! Writing a spool: records are gathered here, and written and synced by a thread of its own.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use super::record::{self, Kind};
use super::recover::{HINT, Recovered, hint};
use super::{Extent, Segment, Shared, Spool, SpoolError};
use crate::lsn::Lsn;
use crate::pgoutput::track::{Step, Tracker};

/// A segment ends with the first whole thing behind this.
const SEGMENT: u64 = 64 << 20;

/// So much is synced together at most, ...
const SYNC_BYTES: u64 = 8 << 20;
/// ... and nothing waits longer.
const SYNC_AFTER: Duration = Duration::from_millis(50);

/// So much may wait to be written; then [`Writer::flush`] waits.
const IN_FLIGHT: usize = 16 << 20;

/// The one who writes. Records are kept in memory until [`Writer::flush`]; call it when nothing more is at hand.
pub struct Writer {
    shared: Arc<Shared>,
    tracker: Tracker,
    buffer: Vec<u8>,
    /// The segment, and where in it the buffer begins.
    number: u64,
    offset: u64,
    /// Where in the segment the last whole thing ends, and the last transaction.
    whole: (u64, Lsn),
    ready: Vec<Command>,
    commands: Option<Sender<Command>>,
    room: Arc<Semaphore>,
    failure: Arc<Mutex<Option<SpoolError>>>,
    synced: watch::Receiver<Extent>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    /// `whole`: where in the segment, and of which transaction, the last whole thing ends.
    Write { bytes: Vec<u8>, whole: (u64, Lsn) },
    /// Begin this segment, with these bytes.
    Roll { number: u64, bytes: Vec<u8>, whole: (u64, Lsn) },
    /// Cut the segment off here.
    Cut { offset: u64 },
}

impl Writer {
    pub(super) fn start(recovered: Recovered) -> Result<(Spool, Self), SpoolError> {
        let Recovered { lock, folder, source, segments, tracker, end } = recovered;
        let number = segments.files.back().map_or(1, |segment| segment.number);
        let bytes = segments.files.iter().map(|segment| segment.bytes).sum();
        let shared = Arc::new(Shared { folder, source, bytes: AtomicU64::new(bytes), segments: Mutex::new(segments) });
        let whole = (end, tracker.lsn);
        let extent = Extent { lsn: tracker.lsn, segment: number, offset: end };
        let (publish_written, written) = watch::channel(extent);
        let (publish_synced, synced) = watch::channel(extent);
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        let failure = Arc::new(Mutex::new(None));
        let (commands, orders) = channel();
        let disk = Disk {
            _lock: lock,
            shared: shared.clone(),
            file: None,
            number,
            written: end,
            whole,
            unsynced: 0,
            publish_written,
            publish_synced,
        };
        let (in_thread, told) = (room.clone(), failure.clone());
        let path = shared.folder.clone();
        let thread = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || {
                if let Err(error) = disk.work(&orders, &in_thread) {
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
                // Whoever waits for room is told.
                in_thread.close();
            })
            .map_err(SpoolError::io("start a thread for", &path))?;
        let spool = Spool { shared: shared.clone(), written, synced: synced.clone() };
        let mut writer = Self {
            shared,
            tracker,
            buffer: Vec::new(),
            number,
            offset: end,
            whole,
            ready: Vec::new(),
            commands: Some(commands),
            room,
            failure,
            synced,
            thread: Some(thread),
        };
        if end == 0 {
            writer.begin_segment(number);
        }
        Ok((spool, writer))
    }

    /// Where the last transaction ended that is in the spool whole: what the stream goes on from.
    pub fn end(&self) -> Lsn {
        self.whole.1
    }

    /// How far it is synced; changes whenever it is further.
    pub fn synced(&self) -> watch::Receiver<Extent> {
        self.synced.clone()
    }

    /// How much waits for [`Writer::flush`], in bytes.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Takes the next message of the stream, which comes from `lsn` in the log.
    ///
    /// # Errors
    /// [`SpoolError::Message`] if it is malformed, or tells of two-phase commit.
    pub fn append(&mut self, lsn: Lsn, data: &Bytes) -> Result<(), SpoolError> {
        let step = self.tracker.note(data)?;
        let before = self.buffer.len();
        record::put(&mut self.buffer, Kind::Message, lsn, data);
        self.grew(before);
        match step {
            Step::Within => {}
            Step::Whole => self.note_whole(),
            Step::Streams(xid) => {
                self.shared.segments().streams.insert(xid, self.number);
            }
            Step::Streamed(xid) => {
                self.shared.segments().note_streamed(xid, self.tracker.lsn);
                self.note_whole();
            }
        }
        Ok(())
    }

    /// The server has sent everything that was committed before `lsn`. Nothing is written where that says nothing new.
    pub fn reached(&mut self, lsn: Lsn) {
        if self.tracker.is_outside() && lsn > self.tracker.lsn {
            self.tracker.lsn = lsn;
            self.put(Kind::Position, lsn);
        }
    }

    /// A connection begins: the server sends again what is not whole, so that is taken back.
    pub fn restart(&mut self) {
        let (end, lsn) = self.whole;
        let before = self.offset + self.buffer.len() as u64;
        if end >= self.offset {
            self.buffer.truncate(usize::try_from(end - self.offset).unwrap_or(usize::MAX));
        } else {
            self.buffer.clear();
            self.offset = end;
            self.ready.push(Command::Cut { offset: end });
        }
        self.shared.bytes.fetch_sub(before.saturating_sub(end), Ordering::Relaxed);
        self.tracker.restart();
        self.shared.segments().streams.clear();
        self.put(Kind::Restart, lsn);
    }

    /// Hands everything to the thread that writes; waits while too much is with it.
    ///
    /// # Errors
    /// What the thread could not do: [`SpoolError::Full`], [`SpoolError::Io`].
    pub async fn flush(&mut self) -> Result<(), SpoolError> {
        if self.room.is_closed() {
            return Err(self.failed());
        }
        if !self.buffer.is_empty() {
            let bytes = std::mem::take(&mut self.buffer);
            self.buffer.reserve(bytes.len().min(IN_FLIGHT));
            self.offset += bytes.len() as u64;
            self.shared.segments().note_end(self.whole.1);
            self.ready.push(Command::Write { bytes, whole: self.whole });
        }
        for command in std::mem::take(&mut self.ready) {
            let Ok(permits) = self.room.acquire_many(command.weight()).await else { return Err(self.failed()) };
            permits.forget();
            let sent = self.commands.as_ref().map(|commands| commands.send(command));
            if !matches!(sent, Some(Ok(()))) {
                return Err(self.failed());
            }
        }
        Ok(())
    }

    /// Writes and syncs everything that is whole, and ends.
    ///
    /// # Errors
    /// As [`Writer::flush`].
    pub async fn close(mut self) -> Result<(), SpoolError> {
        self.flush().await?;
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // It panics nowhere; if it did, its hint says what was synced.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn failed(&self) -> SpoolError {
        let told = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        told.unwrap_or_else(|| SpoolError::Closed { path: self.shared.folder.clone() })
    }

    fn put(&mut self, kind: Kind, lsn: Lsn) {
        let before = self.buffer.len();
        record::put(&mut self.buffer, kind, lsn, &[]);
        self.grew(before);
        self.note_whole();
    }

    fn grew(&self, before: usize) {
        self.shared.bytes.fetch_add((self.buffer.len() - before) as u64, Ordering::Relaxed);
    }

    fn note_whole(&mut self) {
        self.whole = (self.offset + self.buffer.len() as u64, self.tracker.lsn);
        if self.whole.0 >= SEGMENT && self.tracker.is_outside() {
            let bytes = std::mem::take(&mut self.buffer);
            {
                let mut segments = self.shared.segments();
                segments.note_end(self.whole.1);
                if let Some(last) = segments.files.back_mut() {
                    last.bytes = self.whole.0;
                }
            }
            self.ready.push(Command::Write { bytes, whole: self.whole });
            self.begin_segment(self.number + 1);
            let (begins, number) = (self.whole.1, self.number);
            let bytes = self.offset;
            self.shared.segments().files.push_back(Segment { number, begins, needed_until: begins, bytes });
        }
    }

    /// A segment begins with what the server takes for known.
    fn begin_segment(&mut self, number: u64) {
        let lsn = self.tracker.lsn;
        let mut bytes = record::head(self.shared.source, lsn).to_vec();
        for relation in self.tracker.described() {
            record::put(&mut bytes, Kind::Relation, lsn, relation);
        }
        self.number = number;
        self.offset = bytes.len() as u64;
        self.whole = (self.offset, lsn);
        self.shared.bytes.fetch_add(self.offset, Ordering::Relaxed);
        self.ready.push(Command::Roll { number, bytes, whole: self.whole });
    }
}

impl Command {
    /// What it takes of the room.
    fn weight(&self) -> u32 {
        let bytes = match self {
            Self::Write { bytes, .. } | Self::Roll { bytes, .. } => bytes.len(),
            Self::Cut { .. } => 0,
        };
        u32::try_from(bytes.min(IN_FLIGHT)).unwrap_or(u32::MAX)
    }
}

/// What the thread has.
struct Disk {
    /// Until the last byte is written.
    _lock: File,
    shared: Arc<Shared>,
    file: Option<File>,
    number: u64,
    written: u64,
    whole: (u64, Lsn),
    unsynced: u64,
    publish_written: watch::Sender<Extent>,
    publish_synced: watch::Sender<Extent>,
}

impl Disk {
    fn work(mut self, orders: &Receiver<Command>, room: &Semaphore) -> Result<(), SpoolError> {
        let mut since = Instant::now();
        loop {
            let order = if self.unsynced == 0 {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_timeout(SYNC_AFTER.saturating_sub(since.elapsed()))
            };
            match order {
                Ok(command) => {
                    if self.unsynced == 0 {
                        since = Instant::now();
                    }
                    let weight = command.weight();
                    self.obey(command)?;
                    room.add_permits(weight as usize);
                }
                Err(RecvTimeoutError::Timeout) => self.sync()?,
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
            if self.unsynced >= SYNC_BYTES || (self.unsynced > 0 && since.elapsed() >= SYNC_AFTER) {
                self.sync()?;
            }
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), SpoolError> {
        match command {
            Command::Write { bytes, whole } => {
                self.write(&bytes)?;
                self.reached(whole);
            }
            Command::Roll { number, bytes, whole } => {
                // Only the last segment may be torn.
                self.sync()?;
                let path = self.shared.path(number);
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create(true).truncate(true).open(&path);
                self.file = Some(file.map_err(SpoolError::io("make", &path))?);
                sync_folder(&self.shared.folder)?;
                (self.number, self.written) = (number, 0);
                self.write(&bytes)?;
                self.reached(whole);
            }
            Command::Cut { offset } => {
                let path = self.shared.path(self.number);
                let file = self.file()?;
                file.set_len(offset).map_err(SpoolError::io("cut", &path))?;
                file.seek(SeekFrom::Start(offset)).map_err(SpoolError::io("write", &path))?;
                self.written = offset;
            }
        }
        Ok(())
    }

    fn file(&mut self) -> Result<&mut File, SpoolError> {
        if self.file.is_none() {
            let path = self.shared.path(self.number);
            let opened = OpenOptions::new().read(true).write(true).open(&path);
            let mut file = opened.map_err(SpoolError::io("open", &path))?;
            // What a crash left behind the last whole thing goes.
            file.set_len(self.written).map_err(SpoolError::io("cut", &path))?;
            file.seek(SeekFrom::Start(self.written)).map_err(SpoolError::io("write", &path))?;
            self.file = Some(file);
        }
        Ok(self.file.as_mut().expect("it was just opened"))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let path = self.shared.path(self.number);
        self.file()?.write_all(bytes).map_err(SpoolError::io("write", &path))?;
        self.written += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        Ok(())
    }

    /// What is whole may be read.
    fn reached(&mut self, whole: (u64, Lsn)) {
        self.whole = whole;
        self.publish_written.send_replace(self.extent());
    }

    fn extent(&self) -> Extent {
        let (offset, lsn) = self.whole;
        Extent { lsn, segment: self.number, offset }
    }

    fn sync(&mut self) -> Result<(), SpoolError> {
        if self.unsynced == 0 {
            return Ok(());
        }
        let path = self.shared.path(self.number);
        self.file()?.sync_data().map_err(SpoolError::io("sync", &path))?;
        self.unsynced = 0;
        let extent = self.extent();
        let hinted = self.shared.folder.join(HINT);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&hinted);
        let noted = file.and_then(|file| file.write_all_at(&hint(extent.segment, extent.offset), 0));
        noted.map_err(SpoolError::io("write", &hinted))?;
        self.publish_synced.send_replace(extent);
        Ok(())
    }
}

/// A new file is there after a crash only if its folder was synced.
fn sync_folder(folder: &Path) -> Result<(), SpoolError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(SpoolError::io("sync", folder))
}
