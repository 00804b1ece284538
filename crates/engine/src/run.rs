//! One loop for run, resume and rollback.

use std::collections::BTreeMap;

use pgrunbook_document::{ItemId, StepId};

use crate::demand::{Demand, Override};
use crate::journal::{Direction, ItemOutcome};
use crate::operator::ItemAnswer;
use crate::step::{Approval, Cancel, Failure};

/// What a call of [`crate::Engine::run`] or [`crate::Engine::rollback`] may use.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// The operator's wish to stop.
    pub cancel: Cancel,
    /// Approvals to add to those in the journal; verified against the plan digest before anything else.
    pub approvals: Vec<Approval>,
    /// Checklist items answered in advance, by id; refused in protected environments.
    pub answers: BTreeMap<ItemId, ItemAnswer>,
    /// Accept a target's new timeline (failover) without asking.
    pub accept_timeline: bool,
    /// The confirmation text, if it was given as an option.
    pub confirmation: Option<String>,
    /// Demands to go on without, for this call alone.
    pub overrides: Vec<Override>,
}

/// How far a call went. Decides the exit code.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEnd {
    /// Forward to the end. Exit 0.
    Completed,
    /// Back to the end. Exit 0.
    RolledBack,
    /// A step or gate failed; resume tries it again. Exit 1.
    Failed { step: StepId, direction: Direction, failure: Failure, code: String, message: String, help: Option<String> },
    /// An undo failed: what is undone and what is not. Resume tries it again; there is no way forward. Exit 1.
    RollbackBlocked {
        step: StepId,
        code: String,
        message: String,
        help: Option<String>,
        undone: Vec<StepId>,
        left: Vec<StepId>,
    },
    /// A person refused a checklist line. Exit 1.
    Refused { item: ItemId, text: String, outcome: ItemOutcome, note: Option<String> },
    /// A person must act, and nobody who may is here. Exit 3.
    Waiting { on: Waiting },
    /// Nobody can tell whether an effect happened. Exit 4.
    Unknown { step: StepId, direction: Direction, why: String },
    /// The operator stopped it; resume goes on. Exit 1.
    Stopped { why: String },
}

/// What a run waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Demands of the environment that are not held: rehearsals, windows, incidents.
    Demands { environment: String, runbook: String, missing: Vec<Demand> },
    /// A checklist line.
    Item { item: ItemId, text: String, roles: Vec<String> },
    /// Approvals of the plan digest: why they are needed, how many are missing, roles of which each is needed.
    Approvals { why: String, missing: u32, roles: Vec<String> },
    /// The exact confirmation text.
    Confirmation { wanted: String },
    /// A deviation that must be accepted.
    Acceptance { what: String },
    /// A step that says so (`approve`, `sign-off`).
    Step { step: StepId, code: String, message: String, help: Option<String> },
}
