//! The plan: every step resolved against the live targets, frozen, with the digests that approvals are bound to.
//!
//! Format version 1. A reader of a later version reads it; an earlier one refuses by the number.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pgrunbook_document::{ItemId, Source, StepId};
use serde::{Deserialize, Serialize};

use crate::step::{Change, Effect};
use crate::target::Identity;

/// The version that this engine writes.
pub const FORMAT: u32 = 1;

/// A frozen plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// Version of the engine that wrote it.
    pub engine: String,
    pub made_at: Timestamp,
    /// Path of the runbook relative to the project, and its title.
    pub runbook: String,
    pub title: String,
    pub environment: String,
    pub protected: bool,
    /// The frozen text of the runbook and its includes: a run goes on with these, whatever becomes of the files.
    pub sources: Vec<Source>,
    pub targets: Vec<Identity>,
    /// Values after defaults, environment and options. Secret references stay references.
    pub variables: BTreeMap<String, String>,
    pub phases: Vec<PlannedPhase>,
    pub rollback_paths: Vec<PlannedPhase>,
    /// Over runbook, includes, migrations and declarations: the same in every environment. SHA-256, hex.
    pub content_digest: String,
    /// Over the content digest, the targets' identity keys and the variables. SHA-256, hex.
    pub plan_digest: String,
}

/// A phase or a rollback path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedPhase {
    pub slug: String,
    pub title: String,
    pub entries: Vec<PlannedEntry>,
}

/// An item or a step in the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "lowercase")]
pub enum PlannedEntry {
    /// A checklist line. `proofs` names the steps that prove it (they follow it as steps); empty: a person confirms.
    Item {
        id: ItemId,
        text: String,
        roles: Vec<String>,
        proofs: Vec<StepId>,
    },
    Step(Box<PlannedStep>),
}

/// A step in the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    pub id: StepId,
    pub kind: String,
    pub target: Option<String>,
    pub effect: Effect,
    /// The block as it will run: variables of `for_each` bound.
    pub text: String,
    /// SHA-256 over kind, text and variables, hex.
    pub digest: String,
    pub change: Change,
    pub undo: PlannedUndo,
}

/// How a step would be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum PlannedUndo {
    /// It changes nothing.
    NotNeeded,
    /// The step itself knows: `auto`, `down`.
    Own { word: String },
    /// Another block does it: an undo block, or a restore of the named backup.
    Block { id: StepId, text: String },
    /// Nothing to take back, and why.
    Nothing { why: String },
    /// Cannot be taken back, and why.
    OneWay { why: String },
}

impl Plan {
    /// Every forward step, in order.
    pub fn steps(&self) -> impl Iterator<Item = &PlannedStep> {
        self.phases.iter().flat_map(PlannedPhase::steps)
    }
}

impl PlannedPhase {
    /// Its steps, in order.
    pub fn steps(&self) -> impl Iterator<Item = &PlannedStep> {
        self.entries.iter().filter_map(|entry| match entry {
            PlannedEntry::Step(step) => Some(&**step),
            PlannedEntry::Item { .. } => None,
        })
    }
}
