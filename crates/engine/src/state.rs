//! The state of a run: the fold of its journal, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgrunbook_document::{ItemId, StepId};

use crate::journal::{Direction, EndState, ItemOutcome, Sealed};
use crate::plan::Plan;
use crate::step::{Approval, Evidence, Failure};

/// Where a step stands in one direction. Each state is set by the event it names.
#[derive(Debug, Clone, PartialEq)]
pub enum StepStatus {
    /// `Intent` without `Outcome`: under way, or the process died.
    Intended { attempt: u32 },
    /// `Outcome(Done)`, or a decision that it happened.
    Done { attempt: u32, evidence: Evidence, recovered: bool },
    /// `Outcome(Failed)`: certainly did not happen.
    Failed { attempt: u32, failure: Failure, code: String, message: String, help: Option<String> },
    /// `Outcome(DidNotHappen)`, or a decision to run it again.
    DidNotHappen { attempt: u32 },
    /// `Outcome(Unknown)`: a decision is needed.
    Unknown { attempt: u32, why: String },
}

/// A checklist line that was settled or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemState {
    pub outcome: ItemOutcome,
    pub by: String,
    pub note: Option<String>,
    pub in_advance: bool,
}

/// An event that cannot stand where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq}: {why}")]
pub struct BrokenJournal {
    pub seq: u64,
    pub why: String,
}

/// The state of a run.
#[derive(Debug, Clone)]
pub struct RunState {
    pub plan: Arc<Plan>,
    pub rehearsal: bool,
    /// Who began it.
    pub operator: String,
    pub epoch: u64,
    pub steps: BTreeMap<(StepId, Direction), StepStatus>,
    pub items: BTreeMap<ItemId, ItemState>,
    pub approvals: Vec<Approval>,
    pub confirmed: bool,
    /// What was accepted by a person.
    pub accepted: Vec<String>,
    /// The path on which the run goes back, once it does.
    pub turned_back: Option<String>,
    /// Ids of forward steps in the order in which they were done.
    pub done_order: Vec<StepId>,
    /// Why the process stopped last, if it stopped in good order.
    pub stopped: Option<String>,
    pub ended: Option<EndState>,
    /// The last event that was folded.
    pub last: Sealed,
}
