//! The steps of a run, built from the texts that its plan froze.
//!
//! Everything is built before anything is touched. A text that this version of pgrunbook reads differently than the
//! one that planned it keeps the run from going on: nothing is guessed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgrunbook_document::{RollbackPath, Runbook, Severity, StepId, parse};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::expand::{self, Bound, BoundUndo};
use crate::plan::Plan;
use crate::planner::cannot_undo;
use crate::step::Step;

/// Every step of a run, ready to act.
pub(crate) struct Workshop {
    /// Forward steps, and the steps of rollback paths: ids are unique over both.
    benches: BTreeMap<StepId, Bench>,
    /// With their validity, which the plan does not hold.
    pub rollback_paths: Vec<RollbackPath>,
    /// Targets of which something may be changed: these are claimed.
    pub claimed: BTreeSet<String>,
}

/// A step and what undoes it.
pub(crate) struct Bench {
    pub step: Tool,
    pub undo: Undoing,
    /// Whether it may change something.
    pub changes: bool,
    /// Why there is no way back after it, if there is none.
    pub one_way: Option<String>,
}

/// A built step, and what it runs with.
pub(crate) struct Tool {
    pub step: Box<dyn Step>,
    pub digest: String,
    pub timeout: Option<Duration>,
}

/// Who takes a step back.
pub(crate) enum Undoing {
    Nobody,
    /// The step itself.
    Own,
    /// Another step, by being applied.
    Other(Tool),
}

impl Workshop {
    /// Builds every step of a plan.
    pub fn open(engine: &Engine, plan: &Plan) -> Result<Self, EngineError> {
        let runbook = read(engine, plan)?;
        let vocabulary = engine.kinds.vocabulary();
        let expanded = expand::expand(&runbook, &plan.variables, vocabulary).map_err(EngineError::Document)?;
        let mut benches = BTreeMap::new();
        let mut claimed = BTreeSet::new();
        let mut planned = plan.all_steps();
        for bound in expanded.phases.iter().chain(&expanded.rollback_paths).flat_map(expand::Section::steps) {
            let id = &bound.block.id;
            let bench = bench(engine, bound)?;
            if !planned.next().is_some_and(|planned| planned.id == *id && planned.digest == bench.step.digest) {
                return Err(EngineError::ReadsDifferently { step: id.clone() });
            }
            if bench.changes {
                claimed.extend(bound.block.target.iter().map(|target| target.value.clone()));
                if let BoundUndo::Block(by) = &bound.undo {
                    claimed.extend(by.target.iter().map(|target| target.value.clone()));
                }
            }
            benches.insert(id.clone(), bench);
        }
        if let Some(missing) = planned.next() {
            return Err(EngineError::ReadsDifferently { step: missing.id.clone() });
        }
        for target in &claimed {
            if !engine.targets.contains_key(target) {
                return Err(EngineError::UnknownTarget(target.clone()));
            }
        }
        Ok(Self { benches, rollback_paths: runbook.rollback_paths, claimed })
    }

    /// The bench of a step of the plan.
    pub fn bench(&self, step: &StepId) -> Result<&Bench, EngineError> {
        self.benches.get(step).ok_or_else(|| EngineError::ReadsDifferently { step: step.clone() })
    }

    /// Ids of a step as a document names it: itself, or its instances.
    pub fn instances<'a>(&'a self, step: &'a StepId) -> impl Iterator<Item = &'a StepId> {
        let led = format!("{step}[");
        self.benches.keys().filter(move |id| *id == step || id.as_str().starts_with(&led))
    }
}

fn bench(engine: &Engine, bound: &Bound) -> Result<Bench, EngineError> {
    let block = &bound.block;
    let at = |source| EngineError::of_step(&block.id, source);
    let tool = |step, by: &pgrunbook_document::Block| Tool { step, digest: expand::digest(by), timeout: by.timeout };
    let undo = match &bound.undo {
        BoundUndo::NotNeeded | BoundUndo::Nothing { .. } | BoundUndo::OneWay { .. } => Undoing::Nobody,
        BoundUndo::Own { .. } => Undoing::Own,
        BoundUndo::Block(by) => {
            Undoing::Other(tool(engine.build(by).map_err(|source| EngineError::of_step(&by.id, source))?, by))
        }
        BoundUndo::By(by) => {
            let step = engine.undo_by(by, block).ok_or_else(|| at(cannot_undo(&by.id, &by.kind)))?;
            Undoing::Other(Tool { step: step.map_err(at)?, digest: expand::digest(by), timeout: None })
        }
    };
    let changes = !matches!(bound.undo, BoundUndo::NotNeeded);
    let one_way = match &bound.undo {
        BoundUndo::OneWay { why } => Some(why.clone()),
        _ => None,
    };
    Ok(Bench { step: tool(engine.build(block).map_err(at)?, block), undo, changes, one_way })
}

/// Parses the frozen texts: includes are found among the plan's own sources.
fn read(engine: &Engine, plan: &Plan) -> Result<Runbook, EngineError> {
    let frozen = |path: &str| {
        let source = plan.sources.iter().skip(1).find(|source| source.path == path);
        source.map(|source| source.text.clone()).ok_or_else(|| format!("the plan does not hold {path}"))
    };
    let text = plan.sources.first().map_or("", |source| &source.text);
    let parsed = parse(&plan.runbook, text, &frozen, engine.kinds.vocabulary());
    let errors: Vec<_> = parsed.diagnostics.into_iter().filter(|found| found.severity == Severity::Error).collect();
    if errors.is_empty() { Ok(parsed.runbook) } else { Err(EngineError::Document(errors)) }
}
