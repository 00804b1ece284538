//! What a run acts on, as far as the engine must know it: who it is, and who else is at work on it.

use async_trait::async_trait;
use jiff::Timestamp;
use pgrunbook_document::StepId;
use serde::{Deserialize, Serialize};

use crate::step::StepError;

/// Who a target is. Two identities with the same `key` are the same thing, whatever address led there.
///
/// For PostgreSQL the key is system identifier and database OID; for HTTP the base URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name in the runbook.
    pub name: String,
    /// `postgres`, `http`, `sqlite`.
    pub kind: String,
    /// What the plan digest covers.
    pub key: String,
    /// What people read: `postgres://app@db1:5432/ledger, PostgreSQL 15.18`. Without secrets.
    pub shown: String,
    /// Where the plan was made on a timeline; it may move on (failover) with a person's consent.
    pub timeline: Option<u32>,
}

impl Identity {
    /// The same thing under another name.
    #[must_use]
    pub fn called(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }
}

/// A run's claim on a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub run: String,
    /// The runbook's title or path.
    pub runbook: String,
    /// Rises with each claim of the run; a transactional step asserts it inside its own transaction.
    pub epoch: u64,
    /// The person, as `user@host`.
    pub operator: String,
    pub host: String,
    pub pid: u32,
    pub since: Timestamp,
    /// The step at which the run stands.
    pub step: Option<StepId>,
}

/// A thing that steps act on.
#[async_trait]
pub trait Target: Send + Sync {
    /// The name in the runbook.
    fn name(&self) -> &str;

    /// Asks the target who it is now.
    async fn identify(&self) -> Result<Identity, StepError>;

    /// Raises the run's epoch on the target, so that a process that held an earlier one can no longer act.
    ///
    /// # Errors
    /// [`StepError::taken`] with the holder's claim if another run holds the target and still lives.
    async fn claim(&self, claim: &Claim) -> Result<(), StepError>;

    /// Gives the claim back; another run may begin.
    async fn release(&self, claim: &Claim) -> Result<(), StepError>;
}
