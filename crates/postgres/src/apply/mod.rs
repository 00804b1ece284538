//! Applies a stream of changes to PostgreSQL: exactly once, in batches, and never past what it does not understand.
//!
//! The one idea: many transactions of the source become one transaction of the destination, in which each row is touched
//! once. What happened to a row in the batch is folded into one change ([`fold`]), and the changes of a table are carried
//! over by `COPY` and applied by one statement for each kind. The position is written in the same transaction, so after
//! any crash the row in `pgrunbook.stream` says what is there. Every statement must change as many rows as it was given:
//! the destination has no other writer, so another count is a bug or a trespasser, and stops the stream with the row named.
//!
//! While the server writes one batch ([`server`]), the next one is folded. A large transaction may be written while the source still
//! sends it (`applier/early.rs`), and is taken back unless it is the next one to commit.
//!
//! Sessions run with `session_replication_role = replica`: foreign keys and origin-only triggers do not act, the source
//! has judged already. Triggers that are `ENABLE ALWAYS` or `ENABLE REPLICA` do fire, and where an update had to be made as a
//! deletion and an insertion (see [`write`]) they see these.
//!
//! The connection must be one server session: through PgBouncer only in session mode.

mod applier;
mod copy;
mod destination;
mod error;
mod fold;
mod known;
mod pending;
mod server;
mod write;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::lsn::Lsn;
use crate::snapshot::Snapshot;

pub use applier::Applier;
pub use destination::{TextOnly, text_only_columns};
pub use error::ApplyError;

/// Messages of this prefix are ours.
const PREFIX: &str = "pgrunbook";

/// How a stream is applied.
pub struct Options {
    /// `<schema>:forward` or `<schema>:reverse`: the name of the position's row and of the tag on what is written.
    pub stream: String,
    pub rename: Rename,
    /// A batch is committed when it holds so many rows, and with fewer when the server has nothing to do ...
    pub batch_rows: usize,
    /// ... or so many bytes ...
    pub batch_bytes: usize,
    /// ... or when the server has nothing to do and its first transaction came so long ago. Looked at when an event comes: who
    /// waits for events calls [`Applier::flush`] when none came in this time.
    pub batch_delay: Duration,
    /// A transaction larger than this is written in pieces before its end is known, in one transaction all the same. One that is
    /// told early ([`Early`](crate::pgoutput::Early)) is from the size of a batch on.
    pub held_bytes: usize,
    /// What is written of an open transaction of the source holds locks on the destination. It is taken back when nothing more came
    /// of it in this time, looked at by [`Applier::settle`].
    pub early_patience: Duration,
    /// How long to wait for the one who applies this stream now to go away; a killed process's backend needs a moment.
    pub patience: Duration,
    /// The name of the stream of the other direction: what its applier wrote came from here, and is not sent back.
    pub skip_applied_by: Option<String>,
    /// At most one for a table.
    pub pass_over: Vec<PassOver>,
}

impl Options {
    /// The defaults, as measured in `docs/decisions/0007-batch-applier.md`.
    pub fn new(stream: impl Into<String>, rename: Rename) -> Self {
        Self {
            stream: stream.into(),
            rename,
            batch_rows: 65_536,
            batch_bytes: 16 << 20,
            batch_delay: Duration::from_millis(200),
            held_bytes: 64 << 20,
            early_patience: Duration::from_secs(3),
            patience: Duration::from_secs(10),
            skip_applied_by: None,
            pass_over: Vec::new(),
        }
    }
}

/// A table was copied under a later snapshot than the stream begins at, and is exactly as that snapshot shows it: whatever a
/// transaction did to it that the snapshot sees is passed over, all else is applied as strictly as ever. How a table gets
/// there: `docs/decisions/0008-base-copy-resume.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassOver {
    /// The source's names of schema and table.
    pub schema: String,
    pub table: String,
    pub snapshot: Snapshot,
    /// A position of the source when the snapshot had been taken: it sees nothing that ended behind it.
    pub until: Lsn,
}

/// Which schema of the source is which of the destination. Others keep their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rename(BTreeMap<String, String>);

impl Rename {
    /// One schema becomes another.
    pub fn one(source: impl Into<String>, destination: impl Into<String>) -> Self {
        Self::default().and(source, destination)
    }

    #[must_use]
    pub fn and(mut self, source: impl Into<String>, destination: impl Into<String>) -> Self {
        self.0.insert(source.into(), destination.into());
        self
    }

    /// The destination's name of a schema.
    pub fn schema<'a>(&'a self, source: &'a str) -> &'a str {
        self.0.get(source).map_or(source, String::as_str)
    }
}

/// How far a stream is applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// The end of the last transaction that was applied or skipped: the source's position.
    pub lsn: Lsn,
    /// As far as this the destination's disk has it: what is before may be confirmed to a slot or swept from a spool.
    pub durable: Lsn,
    /// The id of the last fence that was passed.
    pub marker: Option<String>,
    /// Transactions that were applied, in the life of the stream.
    pub transactions: u64,
    /// Changes of rows as the source sent them, before they were folded, and truncations.
    pub changes: u64,
}
