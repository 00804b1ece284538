//! The journal: append-only and hash-chained. What a run is, is the fold of its events.
//!
//! Each event is chained to the one before: `hash = SHA-256(previous hash || canonical JSON of seq, at, event)`.

mod event;
pub mod sqlite;

pub use event::{Decision, Direction, EndState, Event, Head, ItemOutcome, Outcome, Sealed};

use async_trait::async_trait;

use crate::target::Claim;

/// Where journals are kept: SQLite in the project's folder, or a PostgreSQL in another cluster.
///
/// Dumb storage: it neither folds nor hashes. Order is by sequence number.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Makes events durable, all or none. Their sequence numbers continue the run's.
    ///
    /// # Errors
    /// [`JournalError::Behind`] if the run already holds an event of that number or the epoch has moved (another
    /// process took over); [`JournalError::Storage`] if it cannot be known to be durable: the caller must stop.
    async fn append(&self, run: &str, epoch: u64, events: &[Sealed]) -> Result<(), JournalError>;

    /// All events of a run, in order. Empty if there is no such run.
    async fn read(&self, run: &str) -> Result<Vec<Sealed>, JournalError>;

    /// Ids of all runs, newest first.
    async fn runs(&self) -> Result<Vec<String>, JournalError>;

    /// Takes the lease of a run under `name` (runbook, environment and targets), raising its epoch; `claim.epoch` is
    /// ignored and the new epoch is returned.
    ///
    /// A lease of a process that is known to be dead (same host, no such pid) or whose heartbeat is older than
    /// [`LEASE_EXPIRY`] is taken over.
    ///
    /// # Errors
    /// [`JournalError::Taken`] with the holder's claim.
    async fn claim(&self, name: &str, claim: &Claim) -> Result<u64, JournalError>;

    /// Shows that the holder lives, and at which step it stands.
    ///
    /// # Errors
    /// [`JournalError::Behind`] if the lease was taken over.
    async fn heartbeat(&self, name: &str, claim: &Claim) -> Result<(), JournalError>;

    /// Gives the lease back.
    async fn release(&self, name: &str, claim: &Claim) -> Result<(), JournalError>;

    /// Who holds a lease now, by name: holders that live, as far as it can be known on `host`.
    async fn leases(&self, host: &str) -> Result<Vec<(String, Claim)>, JournalError>;

    /// The cluster the journal lives in (`system_identifier`), if it lives in one; to refuse a journal in the target.
    async fn cluster(&self) -> Result<Option<String>, JournalError>;
}

/// After this long without a heartbeat a lease may be taken over. Heartbeats come every 5 s.
pub const LEASE_EXPIRY: std::time::Duration = std::time::Duration::from_secs(30);

/// What can go wrong with a journal.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    #[error("another process took over this run; nothing more was written by this one")]
    Behind,
    #[error("run {} of \"{}\" is already under way: {} (pid {}), since {}", .0.run, .0.runbook, .0.operator, .0.pid, .0.since)]
    Taken(Box<Claim>),
    #[error("the journal at {place} cannot be {what}: {why}")]
    Storage { place: String, what: &'static str, why: String },
    #[error("run {run} is of format {found}; this pgrunbook knows up to {known}: nothing was touched")]
    Newer { run: String, found: u32, known: u32 },
    #[error("the journal of run {run} is broken at event {seq}: {why}")]
    Broken { run: String, seq: u64, why: String },
}
