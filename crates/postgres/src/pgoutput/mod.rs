//! What the output plugin `pgoutput` says: changes of rows, grouped in transactions, in the order of their commits.
//!
//! Source: "Logical Replication Message Formats" and "Logical Streaming Replication Protocol" of PostgreSQL's
//! documentation, protocol versions 1 (10), 2 (14: streamed transactions), 3 (15: two-phase) and 4 (16: parallel streams).

pub mod assemble;
pub mod decode;
mod early;
pub(crate) mod track;

use std::sync::Arc;

use bytes::Bytes;

use crate::lsn::Lsn;

pub(crate) use early::Judged;
pub use early::{Early, Verdict};

/// A table as the source describes it; sent before its first change, and again whenever it became another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The source's OID of it: what changes refer to.
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub identity: ReplicaIdentity,
    /// The published columns, in order. Generated columns are not among them (before 18).
    pub columns: Vec<Column>,
}

/// One column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Part of the replica identity. Under [`ReplicaIdentity::Full`] every column is.
    pub is_key: bool,
    pub type_oid: u32,
    /// -1 where the type takes none.
    pub type_modifier: i32,
}

/// What the source writes of a row that is updated or deleted (`relreplident`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    Nothing,
    /// The whole row.
    Full,
    /// The columns of a unique index.
    Index,
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    Null,
    /// Out of line and not touched by the update: the source did not send it.
    Unchanged,
    /// As the type's output function prints it.
    Text(Bytes),
    /// As the type's send function gives it.
    Binary(Bytes),
}

/// A row: one cell for each column of its relation, in order.
pub type Row = Vec<Cell>;

/// What identifies a row before the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// Only the columns of the replica identity have values; the others are [`Cell::Null`] and mean nothing.
    Key(Row),
    /// The whole row, under [`ReplicaIdentity::Full`].
    Full(Row),
}

/// One change of a committed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Insert {
        relation: Arc<Relation>,
        new: Row,
    },
    Update {
        relation: Arc<Relation>,
        /// Absent where no column of the replica identity changed (and the identity is not the full row).
        old: Option<Old>,
        new: Row,
    },
    Delete {
        relation: Arc<Relation>,
        old: Old,
    },
    /// The tables of one `TRUNCATE`, which belong together.
    Truncate {
        relations: Vec<Arc<Relation>>,
        cascade: bool,
        restart_identity: bool,
    },
    /// Of `pg_logical_emit_message`, transactional.
    Message {
        prefix: String,
        content: Bytes,
    },
}

/// One event of the stream as an applier wants it: whole transactions, one after another, in the order of their commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Begin(Begin),
    Change(Change),
    Commit(Commit),
    /// Of a transaction whose end is not known. Only where it was asked for.
    Early(Early),
}

/// A transaction begins, of which it is known that it was committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Begin {
    pub xid: u32,
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// Microseconds since 2000-01-01, by the source's clock: for people only.
    pub committed_at: i64,
    /// The replication origin it came from, if it was applied from elsewhere.
    pub origin: Option<String>,
}

/// Its last change was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// Where its commit record ends: what was applied up to here includes it. Strictly rising in the stream.
    pub end_lsn: Lsn,
}
