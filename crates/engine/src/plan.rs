//! The plan: every step resolved against the live targets, frozen, with the digests that approvals are bound to.
//!
//! Format version 1. A reader of a later version reads it; an earlier one refuses by the number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use pgrunbook_document::{ItemId, Source, StepId, VarValue};
use serde::{Deserialize, Serialize};

use crate::planner;
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
    /// How long a way back may take, in milliseconds, if the runbook declares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_within_ms: Option<u64>,
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
    /// SHA-256 over kind, id and text, hex. Variables are in the text.
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
    /// Whether its digests are those of its content.
    pub fn is_whole(&self) -> bool {
        self.content_digest == planner::content_digest(self) && self.plan_digest == planner::plan_digest(self)
    }

    /// How long a way back may take, if the runbook declares it.
    pub fn rollback_within(&self) -> Option<Duration> {
        self.rollback_within_ms.map(Duration::from_millis)
    }

    /// Every forward step, in order.
    pub fn steps(&self) -> impl Iterator<Item = &PlannedStep> {
        self.phases.iter().flat_map(PlannedPhase::steps)
    }

    /// Every step, forward and on rollback paths.
    pub fn all_steps(&self) -> impl Iterator<Item = &PlannedStep> {
        self.phases.iter().chain(&self.rollback_paths).flat_map(PlannedPhase::steps)
    }

    /// Files whose content takes part, with their digests: by path, each once.
    pub fn files(&self) -> BTreeMap<&str, &str> {
        let files = self.all_steps().flat_map(|step| &step.change.files);
        files.map(|(path, digest)| (path.as_str(), digest.as_str())).collect()
    }

    /// Targets to which a forward step deploys, with the tables that get a row of it there; no table: nothing is logged.
    pub fn deployment_logs(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut logs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for step in self.steps() {
            if let (Some(target), Some(deployment)) = (&step.target, &step.change.deployment) {
                logs.entry(target).or_default().extend(deployment.log.as_deref());
            }
        }
        logs
    }

    /// How many steps change something, and how many of these can be taken back.
    pub fn undo_coverage(&self) -> UndoCoverage {
        let mut coverage = UndoCoverage::default();
        for step in self.steps() {
            match &step.undo {
                PlannedUndo::NotNeeded => {}
                PlannedUndo::Own { .. } | PlannedUndo::Block { .. } => {
                    coverage.changing += 1;
                    coverage.undoable += 1;
                }
                PlannedUndo::Nothing { .. } => coverage.changing += 1,
                PlannedUndo::OneWay { .. } => {
                    coverage.changing += 1;
                    coverage.one_way.push(step.id.clone());
                }
            }
        }
        coverage
    }

    /// Everything in which `other` is not what this plan is. What both would do anyway is compared by the steps' texts
    /// and preconditions; summaries, sizes and locks may differ.
    pub fn compare(&self, other: &Self) -> Vec<Moved> {
        let mut moved = Vec::new();
        if (&self.environment, self.protected) != (&other.environment, other.protected) {
            moved.push(Moved::Environment { planned: self.shown_environment(), found: other.shown_environment() });
        }
        self.compare_sources(other, &mut moved);
        let (files, other_files) = (self.files(), other.files());
        let paths: BTreeSet<_> = files.keys().chain(other_files.keys()).collect();
        for path in paths {
            if files.get(path) != other_files.get(path) {
                moved.push(Moved::File { path: (*path).to_owned() });
            }
        }
        self.compare_targets(other, &mut moved);
        let names: BTreeSet<_> = self.variables.keys().chain(other.variables.keys()).collect();
        for name in names {
            if self.variables.get(name) != other.variables.get(name) {
                moved.push(Moved::Variable { name: name.clone() });
            }
        }
        self.compare_steps(other, &mut moved);
        if moved.is_empty() && self.plan_digest != other.plan_digest {
            moved.push(Moved::Digest);
        }
        moved
    }

    fn shown_environment(&self) -> String {
        if self.protected { format!("`{}` (protected)", self.environment) } else { format!("`{}`", self.environment) }
    }

    fn compare_sources(&self, other: &Self, moved: &mut Vec<Moved>) {
        for index in 0..self.sources.len().max(other.sources.len()) {
            let (before, after) = (self.sources.get(index), other.sources.get(index));
            let text = |source: Option<&Source>| source.map_or_else(String::new, |source| source.text.clone());
            let (old, new) = (text(before), text(after));
            if old != new {
                let path = before.or(after).map_or_else(String::new, |source| source.path.clone());
                let diff = similar::TextDiff::from_lines(&old, &new);
                let diff = diff.unified_diff().context_radius(2).header("planned", "now").to_string();
                moved.push(Moved::Source { path, diff });
            }
        }
    }

    fn compare_targets(&self, other: &Self, moved: &mut Vec<Moved>) {
        let by_name = |plan: &Self| -> BTreeMap<String, Identity> {
            plan.targets.iter().map(|target| (target.name.clone(), target.clone())).collect()
        };
        let (before, after) = (by_name(self), by_name(other));
        let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for name in names {
            let shown = |identity: Option<&Identity>| {
                identity.map_or_else(|| "not named".to_owned(), |identity| identity.shown.clone())
            };
            match (before.get(name), after.get(name)) {
                (Some(planned), Some(found)) => moved.extend(planned.moved_to(found)),
                (planned, found) => {
                    moved.push(Moved::Target { name: name.clone(), planned: shown(planned), found: shown(found) });
                }
            }
        }
    }

    fn compare_steps(&self, other: &Self, moved: &mut Vec<Moved>) {
        let (before, after): (Vec<_>, Vec<_>) = (self.all_steps().collect(), other.all_steps().collect());
        for index in 0..before.len().max(after.len()) {
            match (before.get(index), after.get(index)) {
                (Some(planned), Some(found)) if planned.id == found.id => {
                    // What a demand rests on is compared too: a saved plan is a file that anybody can edit.
                    let whole = |step: &PlannedStep| {
                        (step.digest.clone(), step.undo.clone(), step.text.clone(), step.change.deployment.clone())
                    };
                    if whole(planned) != whole(found) {
                        moved.push(Moved::Step { step: planned.id.clone() });
                    }
                    planned.compare_preconditions(found, moved);
                }
                (planned, found) => {
                    moved.extend(planned.or(found).map(|step| Moved::Step { step: step.id.clone() }));
                    // From here on every step stands in another place; one is enough to say so.
                    return;
                }
            }
        }
    }
}

impl PlannedStep {
    fn compare_preconditions(&self, found: &Self, moved: &mut Vec<Moved>) {
        let (before, after) = (&self.change.preconditions, &found.change.preconditions);
        let facts: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for fact in facts {
            if before.get(fact) != after.get(fact) {
                let shown = |value: Option<&String>| value.cloned().unwrap_or_else(|| "not there".to_owned());
                moved.push(Moved::Precondition {
                    step: self.id.clone(),
                    fact: fact.clone(),
                    planned: shown(before.get(fact)),
                    found: shown(after.get(fact)),
                });
            }
        }
    }
}

impl Identity {
    /// In what the target that was found is not this one.
    pub fn moved_to(&self, found: &Self) -> Option<Moved> {
        if self.key != found.key {
            return Some(Moved::Target {
                name: self.name.clone(),
                planned: self.shown.clone(),
                found: found.shown.clone(),
            });
        }
        (self.timeline != found.timeline).then(|| Moved::Timeline {
            name: self.name.clone(),
            planned: self.timeline,
            found: found.timeline,
        })
    }
}

/// How much of what a plan changes can be taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UndoCoverage {
    /// Forward steps that change something.
    pub changing: usize,
    /// Of these, those that are undone by themselves, by a block or by a backup.
    pub undoable: usize,
    /// Those after which there is no way back.
    pub one_way: Vec<StepId>,
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
    /// The plan's digest is not that of its content: the plan itself was edited.
    Digest,
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
            Self::Digest => f.write_str("the plan itself was edited: its digest is not that of its content"),
        }
    }
}
