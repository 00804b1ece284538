//! Messages to [`Event`]s: whole transactions, one after another, in the order of their commits.
//!
//! Transactions that the server sends before they end are kept by their top-level id, in memory while they are small and
//! then in files, and told when their commit comes. What an aborted subtransaction did is left out then. Order is by
//! commit and never by begin: a transaction that began first may commit last.
//!
//! Transactions without a change are not told; 14 sends one for each that concerns other tables only.
//!
//! Non-transactional logical messages are dropped: they belong to no transaction, and have no place in that order.
//!
//! Where it is asked for, a transaction is also told before its commit: see [`early`].

mod early;
mod relations;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};

use super::decode::{CommitAt, DecodeError, Decoder, Message, decode};
use super::{Begin, Commit, Early, Event, Relation};
use crate::lsn::Lsn;

use early::Telling;
use relations::Relations;

/// How much of one streamed transaction stays in memory.
const IN_MEMORY: usize = 256 * 1024;

/// Why no event can be made of a message.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The server always describes a table first.
    #[error("a change is to the table with OID {oid}, which was not described")]
    UnknownRelation { oid: u32 },
    #[error("a row of {relation} has {found} values, and the table {expected} columns")]
    Width { relation: String, expected: usize, found: usize },
    #[error("messages in an order that cannot be: {0}")]
    Order(&'static str),
    /// The slot was made for two-phase commit, and ours never are.
    #[error("the slot sends prepared transactions (`{gid}`), which is not supported: make it without two_phase")]
    TwoPhase { gid: String },
    #[error("a streamed transaction cannot be kept in {}: {source}", .folder.display())]
    Spill { folder: PathBuf, source: std::io::Error },
}

/// Makes events of messages: [`Assembler::push`] one, then [`Assembler::next_event`] until there is none.
///
/// It reads and writes files, without async: run it where that is allowed.
pub struct Assembler {
    folder: PathBuf,
    after: Lsn,
    decoder: Decoder,
    relations: Relations,
    state: State,
    streamed: HashMap<u32, Streamed>,
    queue: VecDeque<Event>,
    /// Transactions that begin there or behind may be told early.
    early_from: Option<Lsn>,
    early: Option<Telling>,
    /// It was told early and is committed: whether it was kept is not known yet. If not, `replay` has it.
    asked: Option<Telling>,
    replay: Option<Replay>,
    /// Where the last transaction ended that was told whole, or left out.
    position: Lsn,
}

/// Where in the stream of messages it stands.
#[derive(Debug)]
enum State {
    Outside,
    /// Begin came, and no change yet.
    Begun(Begin),
    Inside,
    /// In a transaction that need not be told.
    Skipping,
    /// In a block of this transaction.
    Block(u32),
}

/// A transaction that is not known to be committed.
#[derive(Default)]
struct Streamed {
    memory: Vec<u8>,
    file: Option<File>,
    aborted: HashSet<u32>,
    /// Tables, which the server takes for known once it is committed.
    described: Vec<Relation>,
    origin: Option<String>,
    /// Its first block is not here: it cannot be told.
    headless: bool,
}

/// A streamed transaction that is being told.
struct Replay {
    /// Until the first change comes.
    begin: Option<Begin>,
    buffer: BytesMut,
    file: Option<File>,
    aborted: HashSet<u32>,
    commit: Commit,
}

impl Assembler {
    /// Tells transactions that ended after `after`. Large ones are kept in unnamed files of `folder`, which must exist.
    pub fn new(folder: &Path, after: Lsn) -> Self {
        Self {
            folder: folder.to_owned(),
            after,
            decoder: Decoder::default(),
            relations: Relations::default(),
            state: State::Outside,
            streamed: HashMap::new(),
            queue: VecDeque::new(),
            early_from: None,
            early: None,
            asked: None,
            replay: None,
            position: after,
        }
    }

    /// Every transaction that ended here or before was told whole, or left out.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// The server had committed everything before `lsn` and sent it.
    pub fn reached(&mut self, lsn: Lsn) {
        self.position = self.position.max(lsn);
    }

    /// The connection began anew: the server sends every transaction again that it had not sent whole.
    pub fn restart(&mut self) {
        self.undo_early();
        self.decoder.reset();
        self.state = State::Outside;
        self.streamed.clear();
    }

    /// A description that was kept from earlier, outside of any transaction.
    ///
    /// # Errors
    /// If it is not one.
    pub fn describe(&mut self, data: &Bytes) -> Result<(), AssembleError> {
        match decode(data, false)? {
            Message::Relation { relation, .. } => self.relations.learn(relation),
            _ => return Err(AssembleError::Order("another message where a table should be described")),
        }
        Ok(())
    }

    /// Takes a message, and where in the log it comes from. All events of the one before must have been taken.
    ///
    /// # Errors
    /// [`AssembleError`]; nothing sensible can follow.
    pub fn push(&mut self, lsn: Lsn, data: &Bytes) -> Result<(), AssembleError> {
        if self.replay.is_some() {
            return Err(AssembleError::Order("the events of the message before were not taken"));
        }
        if let State::Block(xid) = self.state {
            return self.push_in_block(xid, data);
        }
        let message = self.decoder.decode(data)?;
        match message {
            Message::Begin { commit_lsn, committed_at, xid } => {
                if !matches!(self.state, State::Outside) {
                    return Err(AssembleError::Order("a transaction begins inside another"));
                }
                // It was streamed in part to a connection that is gone, and now comes whole.
                self.undo_early_of(xid);
                self.streamed.remove(&xid);
                // Commit records do not overlap: one that begins before `after` ends there at the latest.
                self.state = if commit_lsn < self.after {
                    State::Skipping
                } else {
                    State::Begun(Begin { xid, commit_lsn, committed_at, origin: None })
                };
            }
            Message::Origin { name, .. } => {
                if let State::Begun(begin) = &mut self.state {
                    begin.origin = Some(name);
                }
            }
            Message::Commit(at) => {
                match self.state {
                    State::Skipping | State::Begun(_) => self.reached(at.end_lsn),
                    State::Inside => self.queue.push_back(Event::Commit(commit(&at))),
                    _ => return Err(AssembleError::Order("a commit without a begin")),
                }
                self.state = State::Outside;
            }
            Message::StreamStart { xid, first } => {
                if !matches!(self.state, State::Outside) {
                    return Err(AssembleError::Order("a block begins inside a transaction"));
                }
                if first {
                    self.undo_early_of(xid);
                    self.streamed.remove(&xid);
                }
                // Its first block may lie before where the reading began, if it ended before `after`.
                self.streamed.entry(xid).or_insert_with(|| Streamed { headless: !first, ..Streamed::default() });
                self.state = State::Block(xid);
                self.look_for_early(xid, first, lsn);
            }
            Message::StreamCommit { xid, at } => self.commit_streamed(xid, &at)?,
            Message::StreamAbort { xid, subxid, .. } => {
                self.undo_early_of(xid);
                if xid == subxid {
                    self.streamed.remove(&xid);
                } else if let Some(streamed) = self.streamed.get_mut(&xid) {
                    streamed.aborted.insert(subxid);
                }
            }
            other => {
                // Described is what another transaction is about to change.
                if matches!(other, Message::Relation { .. }) {
                    self.undo_early();
                }
                if let Some(change) = self.relations.change(other)? {
                    self.tell_begin();
                    match self.state {
                        State::Inside => self.queue.push_back(Event::Change(change)),
                        State::Skipping => {}
                        _ => return Err(AssembleError::Order("a change outside of a transaction")),
                    }
                }
            }
        }
        Ok(())
    }

    /// The next event, in the order in which they are to be applied. After [`Early::Commit`] it blocks until the verdict is said.
    ///
    /// # Errors
    /// As [`Assembler::push`].
    pub fn next_event(&mut self) -> Result<Option<Event>, AssembleError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                if let Event::Commit(commit) = &event {
                    self.reached(commit.end_lsn);
                }
                return Ok(Some(event));
            }
            if let Some(asked) = self.asked.take()
                && let Some(relations) = asked.kept()
            {
                self.relations = relations;
                if let Some(kept) = self.replay.take() {
                    self.reached(kept.commit.end_lsn);
                }
            }
            let Some(replay) = &mut self.replay else { return Ok(None) };
            match replay.next(&self.folder)? {
                Some(data) => {
                    let message = decode(&data, true)?;
                    // What a subtransaction described holds although it was rolled back: the server does not say it again.
                    let describes = matches!(message, Message::Relation { .. });
                    let aborted = !describes && xid_of(&message).is_some_and(|xid| replay.aborted.contains(&xid));
                    if !aborted && let Some(change) = self.relations.change(message)? {
                        if let Some(begin) = self.replay.as_mut().and_then(|replay| replay.begin.take()) {
                            self.undo_early();
                            self.queue.push_back(Event::Begin(begin));
                        }
                        self.queue.push_back(Event::Change(change));
                    }
                }
                None => {
                    let (empty, commit) = (replay.begin.is_some(), replay.commit);
                    self.replay = None;
                    self.reached(commit.end_lsn);
                    if !empty {
                        return Ok(Some(Event::Commit(commit)));
                    }
                }
            }
        }
    }

    /// The first change comes.
    fn tell_begin(&mut self) {
        if let State::Begun(begin) = &mut self.state {
            let begin = std::mem::take(begin);
            self.undo_early();
            self.queue.push_back(Event::Begin(begin));
            self.state = State::Inside;
        }
    }

    /// Keeps the message as it is, for when the transaction commits.
    fn push_in_block(&mut self, xid: u32, data: &Bytes) -> Result<(), AssembleError> {
        let streamed = self.streamed.entry(xid).or_default();
        match data.first() {
            Some(b'E') => {
                self.decoder.reset();
                self.state = State::Outside;
            }
            Some(b'O') => {
                if let Message::Origin { name, .. } = decode(data, true)? {
                    streamed.origin = Some(name);
                }
            }
            Some(b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M') => {
                let length = u32::try_from(data.len()).map_err(|_| AssembleError::Order("a message of 4 GB"))?;
                streamed.memory.extend_from_slice(&length.to_be_bytes());
                streamed.memory.extend_from_slice(data);
                if streamed.memory.len() > IN_MEMORY {
                    streamed.spill(&self.folder)?;
                }
                if data.first() == Some(&b'R')
                    && let Message::Relation { relation, .. } = decode(data, true)?
                {
                    streamed.described.push(relation);
                }
                self.tell_early(xid, data);
            }
            _ => return Err(AssembleError::Order("a message that cannot stand in a block")),
        }
        Ok(())
    }

    fn commit_streamed(&mut self, xid: u32, at: &CommitAt) -> Result<(), AssembleError> {
        let streamed = self.streamed.remove(&xid);
        let mut streamed = match streamed {
            streamed if at.end_lsn <= self.after => {
                self.undo_early_of(xid);
                streamed.into_iter().flat_map(|streamed| streamed.described).for_each(|one| self.relations.learn(one));
                return Ok(());
            }
            None | Some(Streamed { headless: true, .. }) => {
                return Err(AssembleError::Order("a streamed transaction commits whose first block is missing"));
            }
            Some(streamed) => streamed,
        };
        let (commit_lsn, committed_at) = (at.commit_lsn, at.committed_at);
        let origin = streamed.origin.take();
        let begin = Begin { xid, commit_lsn, committed_at, origin };
        let mut file = streamed.file.take();
        let failed = |source| AssembleError::Spill { folder: self.folder.clone(), source };
        let buffer = match &mut file {
            Some(file) => {
                file.write_all(&streamed.memory).and_then(|()| file.rewind()).map_err(failed)?;
                BytesMut::new()
            }
            None => BytesMut::from(Bytes::from(streamed.memory)),
        };
        if let Some(early) = self.early.take_if(|early| early.has_told(xid)) {
            self.queue.push_back(Event::Early(Early::Commit { begin: begin.clone(), commit: commit(at) }));
            self.asked = Some(early);
        }
        self.replay = Some(Replay { begin: Some(begin), buffer, file, aborted: streamed.aborted, commit: commit(at) });
        Ok(())
    }
}

impl Streamed {
    fn spill(&mut self, folder: &Path) -> Result<(), AssembleError> {
        let failed = |source| AssembleError::Spill { folder: folder.to_owned(), source };
        let file = match &mut self.file {
            Some(file) => file,
            // Without a name: it is gone when this process is.
            None => self.file.insert(tempfile::tempfile_in(folder).map_err(failed)?),
        };
        file.write_all(&self.memory).map_err(failed)?;
        self.memory.clear();
        Ok(())
    }
}

impl Replay {
    /// The next message that was kept.
    fn next(&mut self, folder: &Path) -> Result<Option<Bytes>, AssembleError> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if self.buffer.len() - 4 >= length {
                    self.buffer.advance(4);
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            let mut chunk = vec![0; IN_MEMORY];
            let read = file.read(&mut chunk);
            let read = read.map_err(|source| AssembleError::Spill { folder: folder.to_owned(), source })?;
            if read == 0 {
                self.file = None;
            }
            self.buffer.extend_from_slice(&chunk[..read]);
        }
    }
}

fn commit(at: &CommitAt) -> Commit {
    Commit { commit_lsn: at.commit_lsn, end_lsn: at.end_lsn }
}

fn xid_of(message: &Message) -> Option<u32> {
    match message {
        Message::Logical { xid, .. }
        | Message::Relation { xid, .. }
        | Message::Type { xid, .. }
        | Message::Insert { xid, .. }
        | Message::Update { xid, .. }
        | Message::Delete { xid, .. }
        | Message::Truncate { xid, .. } => *xid,
        _ => None,
    }
}

#[cfg(test)]
mod tests;
