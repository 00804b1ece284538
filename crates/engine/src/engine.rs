//! The engine: everything a project puts together to plan and run its runbooks.
#![expect(clippy::unused_async, reason = "signatures first")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pgrunbook_document::{Runbook, StepId, VarValue};

use crate::clock::Clock;
use crate::environment::{Environment, People, Person};
use crate::error::EngineError;
use crate::journal::{Decision, Direction, Journal};
use crate::kinds::Kinds;
use crate::operator::Operator;
use crate::plan::Plan;
use crate::run::{RunEnd, RunOptions};
use crate::state::RunState;
use crate::target::{Claim, Target};

/// Plans and runs. Holds no state of any run: that is the fold of its journal.
pub struct Engine {
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    pub kinds: Arc<dyn Kinds>,
    /// By the name in the runbook.
    pub targets: BTreeMap<String, Arc<dyn Target>>,
    pub environment: Environment,
    pub people: People,
    pub operator: Person,
    /// The project's folder.
    pub root: PathBuf,
    /// Where steps put files: one folder below it for each run.
    pub artifacts: PathBuf,
}

/// Where a run stands.
#[derive(Debug, Clone)]
pub struct Status {
    pub run: String,
    pub state: RunState,
    /// The process that is at work on it now.
    pub holder: Option<Claim>,
}

/// A way back, and whether it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStatus {
    /// `undo`, or the slug of a rollback section.
    pub slug: String,
    pub title: String,
    /// Or why not.
    pub open: Result<(), String>,
    /// What would be done, in order.
    pub steps: Vec<StepId>,
}

/// Whether a run is the real thing or a rehearsal on a throwaway cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Real,
    Rehearsal,
}

impl Engine {
    /// Resolves every step against the live targets. Changes nothing.
    pub async fn plan(&self, _runbook: &Runbook, _overrides: &BTreeMap<String, VarValue>) -> Result<Plan, EngineError> {
        todo!()
    }

    /// Records a new run of a plan, and returns its id. Plans once more against the live targets and refuses if
    /// anything moved, naming what.
    pub async fn begin(&self, _plan: Plan, _purpose: Purpose) -> Result<String, EngineError> {
        todo!()
    }

    /// Takes a run forward as far as it goes: the first time, or after a stop, a failure or a crash.
    ///
    /// A run that has turned back goes on going back.
    pub async fn run(
        &self,
        _run: &str,
        _options: &RunOptions,
        _operator: &dyn Operator,
    ) -> Result<RunEnd, EngineError> {
        todo!()
    }

    /// Turns a run back on a path (`undo` or the slug of a rollback section) and takes it back as far as it goes.
    pub async fn rollback(
        &self,
        _run: &str,
        _path: &str,
        _reason: Option<String>,
        _options: &RunOptions,
        _operator: &dyn Operator,
    ) -> Result<RunEnd, EngineError> {
        todo!()
    }

    /// Answers, ahead of a resume, whether an unknown effect happened.
    pub async fn decide(
        &self,
        _run: &str,
        _step: &StepId,
        _direction: Direction,
        _decision: Decision,
        _note: &str,
    ) -> Result<(), EngineError> {
        todo!()
    }

    /// Where a run stands, by its journal.
    pub async fn status(&self, _run: &str) -> Result<Status, EngineError> {
        todo!()
    }

    /// Every way back of a run, and whether it is open now.
    pub async fn paths(&self, _run: &str) -> Result<Vec<PathStatus>, EngineError> {
        todo!()
    }

    /// Runs that rehearsed this content: forward to the end, then back to the end. Newest first.
    pub async fn rehearsals(&self, _content_digest: &str) -> Result<Vec<String>, EngineError> {
        todo!()
    }
}
