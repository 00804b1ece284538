//! Bytes of pgoutput to messages, all kinds of protocol 1 to 4.
//!
//! Whatever the bytes are: it never panics, and allocates no more than the message itself could hold. Values are slices
//! of the message. Source: <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>.

use bytes::Bytes;

use super::{Cell, Column, Old, Relation, ReplicaIdentity, Row};
use crate::lsn::Lsn;

/// One message. `xid` is there only inside a streamed block: the transaction, or subtransaction, that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Begin {
        commit_lsn: Lsn,
        committed_at: i64,
        xid: u32,
    },
    Commit(CommitAt),
    Origin {
        commit_lsn: Lsn,
        name: String,
    },
    /// Of `pg_logical_emit_message`.
    Logical {
        xid: Option<u32>,
        transactional: bool,
        lsn: Lsn,
        prefix: String,
        content: Bytes,
    },
    Relation {
        xid: Option<u32>,
        relation: Relation,
    },
    Type {
        xid: Option<u32>,
        oid: u32,
        schema: String,
        name: String,
    },
    Insert {
        xid: Option<u32>,
        relation: u32,
        new: Row,
    },
    Update {
        xid: Option<u32>,
        relation: u32,
        old: Option<Old>,
        new: Row,
    },
    Delete {
        xid: Option<u32>,
        relation: u32,
        old: Old,
    },
    Truncate {
        xid: Option<u32>,
        relations: Vec<u32>,
        cascade: bool,
        restart_identity: bool,
    },
    StreamStart {
        xid: u32,
        /// The first block of this transaction.
        first: bool,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        at: CommitAt,
    },
    StreamAbort {
        xid: u32,
        /// The same as `xid` where the whole transaction was aborted.
        subxid: u32,
        /// Where and when, with parallel streaming.
        at: Option<(Lsn, i64)>,
    },
    BeginPrepare(Prepared),
    Prepare(Prepared),
    CommitPrepared(Prepared),
    RollbackPrepared {
        prepared_end_lsn: Lsn,
        end_lsn: Lsn,
        prepared_at: i64,
        rolled_back_at: i64,
        xid: u32,
        gid: String,
    },
    StreamPrepare(Prepared),
}

/// Where and when a transaction was committed. Times are microseconds since 2000-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitAt {
    pub commit_lsn: Lsn,
    pub end_lsn: Lsn,
    pub committed_at: i64,
}

/// What the messages of two-phase commit say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Of the prepare, or of the commit.
    pub lsn: Lsn,
    pub end_lsn: Lsn,
    pub at: i64,
    pub xid: u32,
    pub gid: String,
}

/// The bytes are not what pgoutput sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} of pgoutput is malformed at byte {offset}: {what}")]
pub struct DecodeError {
    /// The kind of message.
    pub kind: &'static str,
    /// From the message's first byte.
    pub offset: usize,
    pub what: &'static str,
}

/// Knows whether a streamed block is open: in it, messages carry the id of their transaction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Decoder {
    in_block: bool,
}

impl Decoder {
    /// Reads the next message of a stream.
    ///
    /// # Errors
    /// [`DecodeError`] with kind and offset; the decoder can go on with the next message.
    pub fn decode(&mut self, message: &Bytes) -> Result<Message, DecodeError> {
        let message = decode(message, self.in_block)?;
        match message {
            Message::StreamStart { .. } => self.in_block = true,
            Message::StreamStop => self.in_block = false,
            _ => {}
        }
        Ok(message)
    }

    /// A connection began anew: no block is open.
    pub fn reset(&mut self) {
        self.in_block = false;
    }
}

/// Reads one message; `in_block` where it stands between Stream Start and Stream Stop.
///
/// # Errors
/// As [`Decoder::decode`].
pub fn decode(message: &Bytes, in_block: bool) -> Result<Message, DecodeError> {
    let mut cursor = Cursor { bytes: message, at: 0, kind: "a message" };
    let tag = cursor.u8()?;
    cursor.kind = kind(tag);
    let decoded = match tag {
        b'B' => Message::Begin { commit_lsn: cursor.lsn()?, committed_at: cursor.i64()?, xid: cursor.u32()? },
        b'C' => {
            cursor.u8()?;
            Message::Commit(cursor.commit_at()?)
        }
        b'O' => Message::Origin { commit_lsn: cursor.lsn()?, name: cursor.text()? },
        b'M' => {
            let xid = cursor.xid(in_block)?;
            let transactional = cursor.u8()? & 1 == 1;
            let (lsn, prefix) = (cursor.lsn()?, cursor.text()?);
            let length = cursor.length()?;
            Message::Logical { xid, transactional, lsn, prefix, content: cursor.slice(length)? }
        }
        b'R' => Message::Relation { xid: cursor.xid(in_block)?, relation: cursor.relation()? },
        b'Y' => Message::Type {
            xid: cursor.xid(in_block)?,
            oid: cursor.u32()?,
            schema: cursor.text()?,
            name: cursor.text()?,
        },
        b'I' => {
            let (xid, relation) = (cursor.xid(in_block)?, cursor.u32()?);
            cursor.expect(b'N')?;
            Message::Insert { xid, relation, new: cursor.row()? }
        }
        b'U' => {
            let (xid, relation) = (cursor.xid(in_block)?, cursor.u32()?);
            let old = cursor.old()?;
            if old.is_some() {
                cursor.expect(b'N')?;
            }
            Message::Update { xid, relation, old, new: cursor.row()? }
        }
        b'D' => {
            let (xid, relation) = (cursor.xid(in_block)?, cursor.u32()?);
            let Some(old) = cursor.old()? else { return Err(cursor.wrong("a key or an old row must follow")) };
            Message::Delete { xid, relation, old }
        }
        b'T' => {
            let xid = cursor.xid(in_block)?;
            let count = cursor.length()?;
            let flags = cursor.u8()?;
            if cursor.left() / 4 < count {
                return Err(cursor.wrong("more tables are announced than there are bytes for"));
            }
            let relations = (0..count).map(|_| cursor.u32()).collect::<Result<_, _>>()?;
            Message::Truncate { xid, relations, cascade: flags & 1 != 0, restart_identity: flags & 2 != 0 }
        }
        b'S' => Message::StreamStart { xid: cursor.u32()?, first: cursor.u8()? == 1 },
        b'E' => Message::StreamStop,
        b'c' => {
            let xid = cursor.u32()?;
            cursor.u8()?;
            Message::StreamCommit { xid, at: cursor.commit_at()? }
        }
        b'A' => {
            let (xid, subxid) = (cursor.u32()?, cursor.u32()?);
            let at = if cursor.left() == 0 { None } else { Some((cursor.lsn()?, cursor.i64()?)) };
            Message::StreamAbort { xid, subxid, at }
        }
        b'b' => Message::BeginPrepare(cursor.prepared()?),
        b'P' => {
            cursor.u8()?;
            Message::Prepare(cursor.prepared()?)
        }
        b'K' => {
            cursor.u8()?;
            Message::CommitPrepared(cursor.prepared()?)
        }
        b'r' => {
            cursor.u8()?;
            Message::RollbackPrepared {
                prepared_end_lsn: cursor.lsn()?,
                end_lsn: cursor.lsn()?,
                prepared_at: cursor.i64()?,
                rolled_back_at: cursor.i64()?,
                xid: cursor.u32()?,
                gid: cursor.text()?,
            }
        }
        b'p' => {
            cursor.u8()?;
            Message::StreamPrepare(cursor.prepared()?)
        }
        _ => return Err(DecodeError { kind: "a message", offset: 0, what: "its kind is unknown" }),
    };
    if cursor.left() > 0 {
        return Err(cursor.wrong("bytes are left over"));
    }
    Ok(decoded)
}

/// The name of a kind, for people.
fn kind(tag: u8) -> &'static str {
    match tag {
        b'B' => "Begin",
        b'C' => "Commit",
        b'O' => "Origin",
        b'M' => "Message",
        b'R' => "Relation",
        b'Y' => "Type",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'S' => "Stream Start",
        b'E' => "Stream Stop",
        b'c' => "Stream Commit",
        b'A' => "Stream Abort",
        b'b' => "Begin Prepare",
        b'P' => "Prepare",
        b'K' => "Commit Prepared",
        b'r' => "Rollback Prepared",
        b'p' => "Stream Prepare",
        _ => "a message",
    }
}

struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
    kind: &'static str,
}

impl Cursor<'_> {
    fn wrong(&self, what: &'static str) -> DecodeError {
        DecodeError { kind: self.kind, offset: self.at, what }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some(bytes) = self.bytes[self.at..].first_chunk::<N>() else { return Err(self.wrong("it ends early")) };
        self.at += N;
        Ok(*bytes)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    fn lsn(&mut self) -> Result<Lsn, DecodeError> {
        self.array().map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    fn xid(&mut self, in_block: bool) -> Result<Option<u32>, DecodeError> {
        in_block.then(|| self.u32()).transpose()
    }

    /// A length or count, which is never negative.
    fn length(&mut self) -> Result<usize, DecodeError> {
        let at = self.at;
        let length = i32::from_be_bytes(self.array()?);
        usize::try_from(length).map_err(|_| DecodeError { kind: self.kind, offset: at, what: "a length is negative" })
    }

    fn slice(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if self.left() < length {
            return Err(self.wrong("it ends early"));
        }
        let slice = self.bytes.slice(self.at..self.at + length);
        self.at += length;
        Ok(slice)
    }

    /// A text that ends with NUL. We ask for UTF-8.
    fn text(&mut self) -> Result<String, DecodeError> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|byte| *byte == 0) else { return Err(self.wrong("a text has no end")) };
        let Ok(text) = std::str::from_utf8(&rest[..end]) else { return Err(self.wrong("a text is not UTF-8")) };
        let text = text.to_owned();
        self.at += end + 1;
        Ok(text)
    }

    fn expect(&mut self, tag: u8) -> Result<(), DecodeError> {
        let at = self.at;
        if self.u8()? == tag {
            return Ok(());
        }
        Err(DecodeError { kind: self.kind, offset: at, what: "a new row must follow" })
    }

    fn commit_at(&mut self) -> Result<CommitAt, DecodeError> {
        Ok(CommitAt { commit_lsn: self.lsn()?, end_lsn: self.lsn()?, committed_at: self.i64()? })
    }

    fn prepared(&mut self) -> Result<Prepared, DecodeError> {
        let (lsn, end_lsn, at) = (self.lsn()?, self.lsn()?, self.i64()?);
        Ok(Prepared { lsn, end_lsn, at, xid: self.u32()?, gid: self.text()? })
    }

    /// How many of at least `least` bytes each.
    fn count(&mut self, least: usize) -> Result<usize, DecodeError> {
        let at = self.at;
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if self.left() / least < count {
            let what = "more columns are announced than there are bytes for";
            return Err(DecodeError { kind: self.kind, offset: at, what });
        }
        Ok(count)
    }

    fn relation(&mut self) -> Result<Relation, DecodeError> {
        let (oid, schema, name) = (self.u32()?, self.text()?, self.text()?);
        // The schema pg_catalog is sent as an empty text.
        let schema = if schema.is_empty() { "pg_catalog".to_owned() } else { schema };
        let at = self.at;
        let identity = match self.u8()? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            _ => return Err(DecodeError { kind: self.kind, offset: at, what: "the replica identity is unknown" }),
        };
        let count = self.count(10)?;
        let columns = (0..count)
            .map(|_| {
                let flags = self.u8()?;
                Ok(Column {
                    name: self.text()?,
                    is_key: flags & 1 == 1,
                    type_oid: self.u32()?,
                    type_modifier: self.array().map(i32::from_be_bytes)?,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Relation { oid, schema, name, identity, columns })
    }

    fn row(&mut self) -> Result<Row, DecodeError> {
        let count = self.count(1)?;
        let mut row = Vec::with_capacity(count);
        for _ in 0..count {
            let at = self.at;
            row.push(match self.u8()? {
                b'n' => Cell::Null,
                b'u' => Cell::Unchanged,
                b't' => {
                    let length = self.length()?;
                    Cell::Text(self.slice(length)?)
                }
                b'b' => {
                    let length = self.length()?;
                    Cell::Binary(self.slice(length)?)
                }
                _ => return Err(DecodeError { kind: self.kind, offset: at, what: "a value's kind is unknown" }),
            });
        }
        Ok(row)
    }

    /// A key or an old row, if one is there; else the mark of the new row was taken.
    fn old(&mut self) -> Result<Option<Old>, DecodeError> {
        let at = self.at;
        match self.u8()? {
            b'K' => Ok(Some(Old::Key(self.row()?))),
            b'O' => Ok(Some(Old::Full(self.row()?))),
            b'N' => Ok(None),
            _ => Err(DecodeError { kind: self.kind, offset: at, what: "a row's kind is unknown" }),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
