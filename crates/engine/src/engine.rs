//! The engine: everything a project puts together to plan and run its runbooks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use pgrunbook_document::StepId;
use sha2::{Digest, Sha256};

use crate::advance::Wish;
use crate::clock::Clock;
use crate::demand::{self, Incidents};
use crate::environment::{Environment, People, Person};
use crate::error::EngineError;
use crate::fault::{self, Point};
use crate::journal::{Decision, Event, Journal, JournalError, Outcome, Sealed};
use crate::kinds::Kinds;
use crate::notice::{self, Messenger};
use crate::operator::Operator;
use crate::plan::{Moved, Plan};
use crate::redact::Redactor;
use crate::rollback;
use crate::run::{RunEnd, RunOptions};
use crate::state::{RunState, StepStatus};
use crate::step::{Cancel, Direction, Effect, Evidence, RunCx, StepError, Watcher};
use crate::target::{Claim, Target};
use crate::workshop::Workshop;

/// Plans and runs. Holds no state of any run: that is the fold of its journal.
pub struct Engine {
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    pub kinds: Arc<dyn Kinds>,
    /// By the name in the runbook.
    pub targets: BTreeMap<String, Arc<dyn Target>>,
    pub environment: Environment,
    /// Where open incidents are asked for, if the environment demands that there are none.
    pub incidents: Option<Arc<dyn Incidents>>,
    pub people: People,
    pub operator: Person,
    /// Knows the secrets of this process; in front of everything that is written or shown.
    pub redactor: Redactor,
    /// Tells people who are not at the terminal.
    pub messenger: Arc<dyn Messenger>,
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
    /// Records a new run of a plan, and returns its id. Touches no target.
    ///
    /// A plan that was saved goes through [`Engine::renew`] first.
    ///
    /// # Errors
    /// If the plan was edited, a step of it could not run now, the journal lives in a cluster that it changes, or the
    /// environment demands what is not there: a rehearsal, a window, that no incident is open.
    pub async fn begin(&self, plan: Plan, purpose: Purpose) -> Result<String, EngineError> {
        self.begin_with(plan, purpose, &RunOptions::default()).await
    }

    /// The same with the options of the call of [`Engine::run`] that follows: what it overrides does not keep the run from
    /// being begun. Recorded is that only when the run goes on.
    ///
    /// # Errors
    /// As [`Engine::begin`]; and if somebody overrides who may not.
    pub async fn begin_with(&self, plan: Plan, purpose: Purpose, options: &RunOptions) -> Result<String, EngineError> {
        if plan.format > crate::plan::FORMAT {
            return Err(EngineError::NewerPlan { found: plan.format, known: crate::plan::FORMAT });
        }
        if !plan.is_whole() {
            return Err(EngineError::Moved(vec![Moved::Digest]));
        }
        if let Some((step, why)) = plan.steps().find_map(|step| Some((step.id.clone(), step.change.blocked.clone()?))) {
            return Err(EngineError::Blocked { step, why });
        }
        let workshop = Workshop::open(self, &plan)?;
        self.refuse_journal_in_target(&plan, &workshop).await?;
        if purpose == Purpose::Real {
            let missing = demand::missing_before(&self.demands(&plan, options).await?);
            if !missing.is_empty() {
                let (environment, runbook) = (self.environment.name.clone(), plan.runbook.clone());
                return Err(EngineError::Demands { environment, runbook, missing });
            }
        }
        let digest = plan.plan_digest.clone();
        let begun = Event::Begun {
            format: crate::plan::FORMAT,
            plan: Box::new(plan),
            operator: self.operator.principal.clone(),
            host: self.operator.host.clone(),
            rehearsal: purpose == Purpose::Rehearsal,
        };
        let now = self.clock.now();
        let begun = [Sealed::seal(begun, now, None)];
        let mut number = 0;
        loop {
            let run = run_id(now, &digest, self.operator.pid, number);
            fault::pass(Point::BeforeAppend);
            match self.journal.append(&run, 0, &begun).await {
                // Another run that began in this second has the name.
                Err(JournalError::Behind) => number += 1,
                appended => {
                    appended?;
                    fault::pass(Point::AfterAppend);
                    return Ok(run);
                }
            }
        }
    }

    /// Takes a run as far as it goes: the first time, or after a stop, a failure or a crash. A run that has turned
    /// back goes on going back.
    ///
    /// # Errors
    /// If the call could not begin or not go on; what had been done is in the journal.
    pub async fn run(&self, run: &str, options: &RunOptions, operator: &dyn Operator) -> Result<RunEnd, EngineError> {
        self.proceed(run, Wish::On, options, operator).await
    }

    /// Turns a run back on a path ([`crate::UNDO`] or the slug of a rollback section) and takes it as far as it goes.
    ///
    /// A rollback that is blocked on one path may go on on another that is open.
    ///
    /// # Errors
    /// As [`Engine::run`]; and if the path does not exist or is not open.
    pub async fn rollback(
        &self,
        run: &str,
        path: &str,
        reason: Option<String>,
        options: &RunOptions,
        operator: &dyn Operator,
    ) -> Result<RunEnd, EngineError> {
        let wish = Wish::Back { path: path.to_owned(), reason };
        self.proceed(run, wish, options, operator).await
    }

    /// Answers, ahead of a resume, whether an effect happened that is unknown. `note` is the reason.
    ///
    /// # Errors
    /// [`EngineError::NothingToDecide`] if nothing is open about that step; [`JournalError::Taken`] if a process is at
    /// work on the run.
    pub async fn decide(&self, run: &str, step: &StepId, decision: Decision, note: &str) -> Result<(), EngineError> {
        if let Some(holder) = self.status(run).await?.holder {
            return Err(JournalError::Taken(Box::new(holder)).into());
        }
        let mut state = self.fold(run).await?;
        let direction = match state.in_doubt() {
            Some((open, direction)) if open == step && !note.trim().is_empty() => direction,
            _ => return Err(EngineError::NothingToDecide(step.clone())),
        };
        let mut events = Vec::new();
        if let Some(StepStatus::Intended { attempt }) = state.step(step, direction).cloned() {
            let outcome = Outcome::Unknown { why: "the target could not be asked".to_owned() };
            events.push(Event::Outcome { step: step.clone(), direction, attempt, outcome });
        }
        let by = self.operator.principal.clone();
        let note = self.redactor.redact(note).into_owned();
        events.push(Event::Decided { step: step.clone(), direction, decision, by, note });
        Ok(self.append_to(run, &mut state, events).await?)
    }

    /// Appends events without taking the run: only while nobody else is at work on it.
    pub(crate) async fn append_to(
        &self,
        run: &str,
        state: &mut RunState,
        events: Vec<Event>,
    ) -> Result<(), JournalError> {
        let mut sealed = Vec::new();
        for event in events {
            let event = Sealed::seal_behind(event, self.clock.now(), &state.head);
            state.apply(&event).map_err(|broken| broken.of(run))?;
            sealed.push(event);
        }
        fault::pass(Point::BeforeAppend);
        self.journal.append(run, state.epoch, &sealed).await?;
        fault::pass(Point::AfterAppend);
        Ok(())
    }

    /// Where a run stands, by its journal.
    pub async fn status(&self, run: &str) -> Result<Status, EngineError> {
        let state = self.fold(run).await?;
        let holder = self
            .journal
            .leases(&self.operator.host)
            .await?
            .into_iter()
            .map(|(_, claim)| claim)
            .find(|claim| claim.run == run);
        Ok(Status { run: run.to_owned(), state, holder })
    }

    /// Every way back of a run, and whether it is open now. Runs the checks on which a path's validity rests.
    pub async fn paths(&self, run: &str, operator: &dyn Operator) -> Result<Vec<PathStatus>, EngineError> {
        let state = self.fold(run).await?;
        let workshop = Workshop::open(self, &state.plan)?;
        rollback::paths(self, &workshop, run, &state, operator).await
    }

    /// Runs that rehearsed this content: forward to the end, then back to the end. Newest first.
    pub async fn rehearsals(&self, content_digest: &str) -> Result<Vec<String>, EngineError> {
        let past = self.past().await?.into_iter();
        let same = past.filter(|one| one.rehearsal && one.went_back && one.content_digest == content_digest);
        Ok(same.map(|one| one.run).collect())
    }

    /// Tries forward gates of a plan once more, in order: steps of these kinds that change nothing. Nothing is journaled,
    /// so that a rehearsal can ask what its gates say of a world that was made wrong on purpose.
    ///
    /// # Errors
    /// If the plan's texts cannot be read; what a gate says is in the answer.
    pub async fn try_gates(
        &self,
        run: &str,
        plan: &Plan,
        kinds: &[&str],
        clock: &dyn Clock,
        watcher: &dyn Watcher,
    ) -> Result<Vec<(StepId, Result<Evidence, StepError>)>, EngineError> {
        let workshop = Workshop::open(self, plan)?;
        let state = self.fold(run).await?;
        let mut answers = Vec::new();
        for planned in plan.steps().filter(|planned| kinds.contains(&planned.kind.as_str())) {
            let bench = workshop.bench(&planned.id)?;
            if bench.changes || bench.step.step.effect() != Effect::Idempotent {
                continue;
            }
            let mut cx = RunCx {
                run,
                step: &planned.id,
                direction: Direction::Forward,
                attempt: 1,
                epoch: state.epoch,
                digest: &bench.step.digest,
                content_digest: &plan.content_digest,
                operator: &self.operator.principal,
                clock,
                cancel: &Cancel::default(),
                watcher,
                recorded: &state.recorded,
                notes: &[],
                notebook: None,
                artifacts: &self.artifacts.join(run),
                approvals: &[],
                sign_offs: &[],
                scene: &notice::NOWHERE,
            };
            answers.push((planned.id.clone(), bench.step.step.apply(&mut cx).await));
        }
        Ok(answers)
    }

    /// Reads and folds a run's journal.
    pub(crate) async fn fold(&self, run: &str) -> Result<RunState, EngineError> {
        let events = self.journal.read(run).await?;
        if events.is_empty() {
            return Err(EngineError::NoSuchRun(run.to_owned()));
        }
        Ok(RunState::fold(&events).map_err(|broken| broken.of(run))?)
    }

    /// A restore or a switch there would take the journal with it.
    async fn refuse_journal_in_target(&self, plan: &Plan, workshop: &Workshop) -> Result<(), EngineError> {
        let Some(cluster) = self.journal.cluster().await? else { return Ok(()) };
        let inside = |key: &str| {
            key.strip_prefix(&cluster).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
        };
        let changed = plan.targets.iter().find(|t| workshop.claimed.contains(&t.name) && inside(&t.key));
        match changed {
            Some(target) => Err(EngineError::JournalInTarget { target: target.name.clone() }),
            None => Ok(()),
        }
    }
}

/// Sorts by time, can be typed, and is short enough for `application_name`: `20261121-041502-3fa9`.
fn run_id(now: Timestamp, plan_digest: &str, pid: u32, number: u32) -> String {
    let mut hasher = Sha256::new();
    hasher.update(plan_digest);
    hasher.update(pid.to_be_bytes());
    hasher.update(number.to_be_bytes());
    hasher.update(now.as_nanosecond().to_be_bytes());
    let digest = format!("{:x}", hasher.finalize());
    format!("{}-{}", now.strftime("%Y%m%d-%H%M%S"), &digest[..4])
}
