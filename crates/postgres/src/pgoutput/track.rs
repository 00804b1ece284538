//! Where transactions end in a stream of messages, seen from their first bytes: what a spool must know, and no more.

use std::collections::{BTreeMap, HashMap};

use bytes::{BufMut, Bytes, BytesMut};

use super::decode::{DecodeError, Message, decode};
use crate::lsn::Lsn;

/// Follows a stream without looking at rows.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    open: Open,
    /// Where the last transaction ended.
    pub lsn: Lsn,
    /// What the server takes for known, by OID: descriptions as they came, without the id of a transaction.
    pub relations: BTreeMap<u32, Bytes>,
    /// Of transactions that are streamed and did not end yet: what they describe becomes known when they commit.
    pending: HashMap<u32, BTreeMap<u32, Bytes>>,
}

#[derive(Debug, Default)]
enum Open {
    #[default]
    Nothing,
    Transaction,
    Block(u32),
}

/// What a message was for the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// More of the same must follow.
    Within,
    /// Something is whole here.
    Whole,
    /// The first block of a streamed transaction begins.
    Streams(u32),
    /// A streamed transaction was committed or aborted; something is whole.
    Streamed(u32),
}

impl Tracker {
    /// Begins behind `lsn`, with nothing known.
    pub fn at(lsn: Lsn) -> Self {
        Self { lsn, ..Self::default() }
    }

    /// Notes the next message.
    ///
    /// # Errors
    /// If one of those that matter here is malformed, or tells of two-phase commit.
    pub fn note(&mut self, data: &Bytes) -> Result<Step, DecodeError> {
        let tag = data.first().copied().unwrap_or_default();
        let block = match self.open {
            Open::Block(xid) => Some(xid),
            _ => None,
        };
        match tag {
            // Most messages: nothing to see.
            b'I' | b'U' | b'D' | b'T' | b'Y' | b'O' => return Ok(Step::Within),
            b'M' => return Ok(if matches!(self.open, Open::Nothing) { Step::Whole } else { Step::Within }),
            b'B' => {
                self.open = Open::Transaction;
                return Ok(Step::Within);
            }
            b'b' | b'P' | b'K' | b'r' | b'p' => {
                let what = "the slot sends prepared transactions, which is not supported";
                return Err(DecodeError { kind: "Prepare", offset: 0, what });
            }
            _ => {}
        }
        Ok(match decode(data, block.is_some())? {
            Message::Commit(at) => {
                self.open = Open::Nothing;
                self.lsn = self.lsn.max(at.end_lsn);
                Step::Whole
            }
            Message::Relation { relation, .. } => {
                let known = match block {
                    Some(xid) => self.pending.entry(xid).or_default(),
                    None => &mut self.relations,
                };
                known.insert(relation.oid, without_xid(data, block.is_some()));
                if matches!(self.open, Open::Nothing) { Step::Whole } else { Step::Within }
            }
            Message::StreamStart { xid, first } => {
                self.open = Open::Block(xid);
                if first {
                    self.pending.remove(&xid);
                    Step::Streams(xid)
                } else {
                    Step::Within
                }
            }
            Message::StreamStop => {
                self.open = Open::Nothing;
                Step::Whole
            }
            Message::StreamCommit { xid, at } => {
                self.lsn = self.lsn.max(at.end_lsn);
                self.relations.append(&mut self.pending.remove(&xid).unwrap_or_default());
                Step::Streamed(xid)
            }
            Message::StreamAbort { xid, subxid, .. } if xid == subxid => {
                self.pending.remove(&xid);
                Step::Streamed(xid)
            }
            _ => Step::Whole,
        })
    }

    /// What whoever begins to read here must be told: what is known, and what is described in a transaction that is still open and
    /// was not known before. Of the latter nothing more is said when it commits.
    pub fn described(&self) -> impl Iterator<Item = &Bytes> {
        let open = self.pending.values().flatten().filter(|(oid, _)| !self.relations.contains_key(oid));
        self.relations.values().chain(open.map(|(_, description)| description))
    }

    /// Nothing is open: a position between transactions means something.
    pub fn is_outside(&self) -> bool {
        matches!(self.open, Open::Nothing)
    }

    /// The server sends everything again that did not end.
    pub fn restart(&mut self) {
        self.open = Open::Nothing;
        self.pending.clear();
    }
}

/// A copy of its own, so that it does not hold the buffer it was read into.
fn without_xid(data: &Bytes, in_block: bool) -> Bytes {
    let mut copy = BytesMut::with_capacity(data.len());
    copy.put_u8(data[0]);
    copy.extend_from_slice(&data[if in_block { 5 } else { 1 }..]);
    copy.freeze()
}
