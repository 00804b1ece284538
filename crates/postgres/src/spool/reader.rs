//! Reading a spool that may still grow.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::record::{self, Found, HEAD, Kind};
use super::{Extent, Shared, SpoolError};
use crate::lsn::Lsn;

/// How much is read at once.
const CHUNK: usize = 256 * 1024;

/// One record of a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A message of pgoutput. The LSN is where it comes from in the log.
    Message(Lsn, Bytes),
    /// A table that is known from earlier, as a message of pgoutput.
    Relation(Bytes),
    /// Everything that ended before was sent.
    Position(Lsn),
    /// The connection began anew.
    Restart,
}

/// Reads records in order. It reads files without async: run it where that is allowed.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    written: watch::Receiver<Extent>,
    segment: u64,
    file: Option<File>,
    /// Where the next read begins; what is in `buffer` lies right before.
    offset: u64,
    buffer: BytesMut,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, written: watch::Receiver<Extent>, segment: u64) -> Self {
        Self { shared, written, segment, file: None, offset: 0, buffer: BytesMut::new() }
    }

    /// The next record; `None` at the end of what is written.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`], or the file system's.
    pub fn read(&mut self) -> Result<Option<Record>, SpoolError> {
        loop {
            match record::look(&self.buffer) {
                Found::Whole(kind, lsn) => {
                    let head = self.buffer.first_chunk().expect("a whole record has a head");
                    let record = self.buffer.split_to(record::length_of(head)).freeze();
                    return Ok(Some(match kind {
                        Kind::Message => Record::Message(lsn, record::data(&record)),
                        Kind::Relation => Record::Relation(record::data(&record)),
                        Kind::Position => Record::Position(lsn),
                        Kind::Restart => Record::Restart,
                    }));
                }
                Found::Damaged => return Err(self.damaged("a checksum is wrong")),
                Found::Partly => {}
            }
            let end = *self.written.borrow();
            let to = match self.segment.cmp(&end.segment) {
                std::cmp::Ordering::Less => u64::MAX,
                std::cmp::Ordering::Equal => end.offset,
                std::cmp::Ordering::Greater => 0,
            };
            if !self.fill(to)? {
                if self.segment >= end.segment {
                    return if self.buffer.is_empty() { Ok(None) } else { Err(self.damaged("it ends early")) };
                }
                if !self.buffer.is_empty() {
                    return Err(self.damaged("it ends early"));
                }
                self.segment += 1;
                self.file = None;
                self.offset = 0;
            }
        }
    }

    /// Waits until there may be more.
    ///
    /// # Errors
    /// [`SpoolError::Closed`] when nobody writes any more.
    pub async fn grown(&mut self) -> Result<(), SpoolError> {
        let path = &self.shared.folder;
        self.written.changed().await.map_err(|_| SpoolError::Closed { path: path.clone() })
    }

    /// Marks what is there now as seen, so that [`Reader::grown`] waits for more than this.
    pub fn look(&mut self) {
        self.written.borrow_and_update();
    }

    /// Reads more, no further than `to`; whether there was more.
    fn fill(&mut self, to: u64) -> Result<bool, SpoolError> {
        let path = self.shared.path(self.segment);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if to == 0 {
                    return Ok(false);
                }
                let mut file = File::open(&path).map_err(SpoolError::io("open", &path))?;
                let mut head = [0; HEAD];
                file.read_exact(&mut head).map_err(SpoolError::io("read", &path))?;
                if record::read_head(&head).is_none() {
                    return Err(SpoolError::Damaged { path, offset: 0, what: "it does not begin as a segment does" });
                }
                self.offset = HEAD as u64;
                self.file.insert(file)
            }
        };
        let room = usize::try_from(to.saturating_sub(self.offset)).unwrap_or(usize::MAX).min(CHUNK);
        if room == 0 {
            return Ok(false);
        }
        let begun = self.buffer.len();
        self.buffer.resize(begun + room, 0);
        let read = file.read(&mut self.buffer[begun..]).map_err(SpoolError::io("read", &path))?;
        self.buffer.truncate(begun + read);
        self.offset += read as u64;
        Ok(read > 0)
    }

    fn damaged(&self, what: &'static str) -> SpoolError {
        let path = self.shared.path(self.segment);
        SpoolError::Damaged { path, offset: self.offset - self.buffer.len() as u64, what }
    }
}
