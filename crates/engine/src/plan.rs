//! The plan: every step resolved against the live targets, frozen, with the digests that approvals are bound to.
//!
//! Format version 1. A reader of a later version reads it; an earlier one refuses by the number.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pgrunbook_document::{ItemId, Source, StepId, VarValue};
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
    pub variables: BTreeMap<String, VarValue>,
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

/// One thing that is not as it was when a plan was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// A file of the runbook: with a unified diff.
    Source {
        path: String,
        diff: String,
    },
    /// A file that a step reads: its digests.
    File {
        path: String,
    },
    /// The target of this name is another one, or is not there.
    Target {
        name: String,
        planned: String,
        found: String,
    },
    /// The same target on another timeline (failover).
    Timeline {
        name: String,
        planned: Option<u32>,
        found: Option<u32>,
    },
    Variable {
        name: String,
    },
    /// A fact about a target that a step rests on.
    Precondition {
        step: StepId,
        fact: String,
        planned: String,
        found: String,
    },
    /// The environment, or how well it is protected.
    Environment {
        planned: String,
        found: String,
    },
    /// A step that one of the plans does not have, or has in another place.
    Step {
        step: StepId,
    },
}

impl std::fmt::Display for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source { path, diff } => {
                let place = diff.lines().find(|line| line.starts_with("@@")).unwrap_or_default();
                write!(f, "{path} was edited {place}")
            }
            Self::File { path } => write!(f, "{path} was edited"),
            Self::Target { name, planned, found } => write!(f, "target `{name}` was {planned} and is {found}"),
            Self::Timeline { name, planned, found } => {
                let shown = |timeline: &Option<u32>| timeline.map_or_else(|| "unknown".to_owned(), |t| t.to_string());
                write!(f, "target `{name}` moved from timeline {} to {}", shown(planned), shown(found))
            }
            Self::Variable { name } => write!(f, "variable `{name}` has another value"),
            Self::Precondition { step, fact, planned, found } => {
                write!(f, "step `{step}`: {fact} was {planned} and is {found}")
            }
            Self::Environment { planned, found } => write!(f, "the environment was {planned} and is {found}"),
            Self::Step { step } => write!(f, "step `{step}` is not what it was"),
        }
    }
}
