//! The one loop of run, resume and rollback.
//!
//! Intent, effect, outcome. The outcome of a step and the intent of the next are made durable in one append. After a
//! crash, or when a step itself does not know, there is one question: did it happen?

use std::path::PathBuf;
use std::sync::Arc;

use pgrunbook_document::StepId;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::gate;
use crate::journal::{Direction, EndState, Event, ItemOutcome, Outcome};
use crate::lease::Lease;
use crate::notice::{self, Occasion};
use crate::operator::{Doubt, ItemQuestion, Operator};
use crate::plan::PlannedEntry;
use crate::rollback;
use crate::run::{RunEnd, RunOptions, Waiting};
use crate::sign_off;
use crate::state::{RunState, Slot, StepStatus};
use crate::step::{Approval, Cancel, Effect, Failure, Happened, Notebook, RunCx, StepError};
use crate::target::Identity;
use crate::tell::Telling;
use crate::workshop::{Tool, Undoing, Workshop};
use crate::writer::Writer;

/// Which way a call wants to take a run.
pub(crate) enum Wish {
    /// On: forward, or further back if it has turned back.
    On,
    Back {
        path: String,
        reason: Option<String>,
    },
}

/// What one call of run or rollback works with.
pub(crate) struct Call<'a> {
    pub engine: &'a Engine,
    pub options: &'a RunOptions,
    pub operator: &'a dyn Operator,
    pub workshop: &'a Workshop,
    pub lease: &'a Lease,
    pub artifacts: PathBuf,
    pub writer: Writer<'a>,
    /// The phase whose targets were identified last.
    checked_phase: Option<(Direction, usize)>,
    /// Those in the journal that count now.
    pub approvals: Vec<Approval>,
    /// Whether a person was asked since the demands were looked at, which may have taken long.
    pub paused: bool,
    /// Who is told of it.
    pub telling: Telling,
}

/// Either the loop goes on, or the call has come to its end.
pub(crate) enum Flow {
    On,
    End(RunEnd),
}

/// How the engine comes to know what became of an attempt.
enum Question {
    /// Nobody watched: the process that began it is gone.
    AfterCrash,
    /// The step itself could not tell; what it said.
    InDoubt(StepError),
}

impl Engine {
    /// Takes a run as far as it goes. `run` is `resume` of a journal without steps.
    pub(crate) async fn proceed(
        &self,
        run: &str,
        wish: Wish,
        options: &RunOptions,
        operator: &dyn Operator,
    ) -> Result<RunEnd, EngineError> {
        let state = self.fold(run).await?;
        if let Some(end) = is_over(run, &state, &wish)? {
            self.tell_the_rest(run).await?;
            return Ok(end);
        }
        self.fits(&state, options)?;
        let workshop = Workshop::open(self, &state.plan)?;
        if let Wish::Back { path, .. } = &wish {
            rollback::refuse_if_closed(self, &workshop, run, &state, path, operator).await?;
        }
        let targets = match gate::targets(self, &state, None, options, operator).await {
            // What the step in doubt did may be just that.
            Err(EngineError::Moved(moved)) => match self.became(run, &state, &workshop, operator).await? {
                Some(became) => gate::targets(self, &state, Some(&became), options, operator).await?,
                None => return Err(EngineError::Moved(moved)),
            },
            targets => targets?,
        };
        let accepted = match targets {
            gate::Targets::Fit { accepted } => accepted,
            gate::Targets::Wait(what) => return Ok(RunEnd::Waiting { on: Waiting::Acceptance { what } }),
        };
        let artifacts = self.artifacts.join(run);
        tokio::fs::create_dir_all(&artifacts).await.map_err(|error| EngineError::Artifacts {
            folder: artifacts.display().to_string(),
            why: error.to_string(),
        })?;

        let lease = Lease::claim(self, run, &state.plan, &workshop).await?;
        // Another process may have written between the first look and the claim.
        let ended = match self.fold(run).await {
            Ok(state) => {
                let epoch = lease.epoch();
                let (journal, clock) = (Arc::clone(&self.journal), Arc::clone(&self.clock));
                let writer = Writer::new(run, epoch, state, journal, clock, operator, self.redactor.clone());
                let (checked_phase, approvals, paused) = (None, Vec::new(), false);
                let (workshop, lease) = (&workshop, &lease);
                let telling = Telling::new(self, &artifacts);
                let mut call = Call {
                    engine: self,
                    options,
                    operator,
                    workshop,
                    lease,
                    artifacts,
                    writer,
                    checked_phase,
                    approvals,
                    paused,
                    telling,
                };
                call.go(wish, accepted).await
            }
            Err(error) => Err(error),
        };
        let released = lease.release(self).await;
        let ended = ended?;
        released?;
        Ok(ended)
    }

    /// Who a target is now, if the step that stands open made it another one: asked by reading only.
    async fn became(
        &self,
        run: &str,
        state: &RunState,
        workshop: &Workshop,
        operator: &dyn Operator,
    ) -> Result<Option<Identity>, EngineError> {
        let Some((step, direction)) = state.in_doubt() else { return Ok(None) };
        let deed = deed(workshop, state, step, direction)?;
        let cx = RunCx {
            run,
            step,
            direction,
            attempt: state.step(step, direction).map_or(1, StepStatus::attempt),
            epoch: state.epoch,
            digest: deed.digest(),
            content_digest: &state.plan.content_digest,
            operator: &self.operator.principal,
            clock: &*self.clock,
            cancel: &Cancel::default(),
            watcher: operator,
            recorded: &state.recorded,
            notes: &state.notes(step, direction),
            notebook: None,
            artifacts: &self.artifacts.join(run),
            approvals: &[],
            sign_offs: &[],
            scene: &notice::NOWHERE,
        };
        let happened = match deed {
            Deed::Apply(tool) => tool.step.resolve(&cx).await,
            Deed::Undo(tool) => tool.step.resolve_undo(&cx).await,
        };
        Ok(match happened {
            Ok(Happened::Yes(evidence)) => evidence.became(),
            _ => None,
        })
    }

    /// What must fit before a process may take the run.
    fn fits(&self, state: &RunState, options: &RunOptions) -> Result<(), EngineError> {
        let plan = &state.plan;
        if plan.environment != self.environment.name {
            return Err(EngineError::WrongEnvironment {
                environment: self.environment.name.clone(),
                allowed: vec![plan.environment.clone()],
            });
        }
        if !options.answers.is_empty() && (plan.protected || self.environment.protected) {
            return Err(EngineError::AnswersRefused(plan.environment.clone()));
        }
        Ok(())
    }
}

/// The end of a run of which nothing is left to do in the wanted direction: it is told once more, so that a process
/// that died after its last word can be asked again.
fn is_over(run: &str, state: &RunState, wish: &Wish) -> Result<Option<RunEnd>, EngineError> {
    match (state.ended, wish) {
        (None, _) | (Some(EndState::Completed), Wish::Back { .. }) => Ok(None),
        (Some(EndState::Completed), Wish::On) => Ok(Some(RunEnd::Completed)),
        (Some(EndState::RolledBack), _) => Ok(Some(RunEnd::RolledBack)),
        (Some(EndState::Aborted), _) => Err(EngineError::Ended { run: run.to_owned(), how: "it was aborted" }),
    }
}

impl Call<'_> {
    async fn go(&mut self, wish: Wish, accepted: Vec<String>) -> Result<RunEnd, EngineError> {
        let end = self.advance(wish, accepted).await;
        // Nobody is in charge from here on.
        let left = self.engine.kinds.let_go(&self.writer.run).await;
        let end = end?;
        if !left.done.is_empty() && self.writer.state.ended.is_none() {
            self.writer.write(Event::Stopped { why: left.done.join("; ") }).await?;
        }
        self.telling.owe_end(&mut self.writer, &end)?;
        self.writer.flush().await?;
        self.telling.settle(&mut self.writer, &self.options.cancel).await?;
        Ok(end)
    }

    async fn advance(&mut self, wish: Wish, accepted: Vec<String>) -> Result<RunEnd, EngineError> {
        if let Some(end) = is_over(&self.writer.run, &self.writer.state, &wish)? {
            return Ok(end);
        }
        let person = &self.engine.operator;
        self.writer.note(Event::Claimed {
            epoch: self.writer.epoch,
            operator: person.principal.clone(),
            host: person.host.clone(),
            pid: person.pid,
        })?;
        for what in accepted {
            self.writer.note(Event::Accepted { what, by: person.principal.clone() })?;
        }
        self.writer.flush().await?;
        self.lease.claim_targets(&self.engine.redactor).await?;
        // What a process before this one held, and what it owed.
        self.engine.kinds.let_go(&self.writer.run).await;
        self.telling.send(&self.writer.state, true);

        if let Some(end) = self.settle_doubt(matches!(wish, Wish::Back { .. })).await? {
            return Ok(end);
        }
        if let Wish::Back { path, reason } = wish
            && self.writer.state.turned_back.as_ref() != Some(&path)
        {
            let by = self.engine.operator.principal.clone();
            self.writer.note(Event::TurnedBack { path, by, reason })?;
            self.owe(Occasion::Rollback).await?;
        }
        if let Flow::End(end) = gate::open(self).await? {
            return Ok(end);
        }
        let state = &self.writer.state;
        if state.direction() == Direction::Forward && state.steps.is_empty() && state.items.is_empty() {
            self.owe(Occasion::Started).await?;
        }
        loop {
            if self.options.cancel.is_stopping() {
                return self.stop("the operator asked to stop".to_owned()).await;
            }
            let Some(slot) = self.writer.state.next().cloned() else {
                if self.writer.state.direction() == Direction::Forward {
                    let left = self.engine.kinds.let_go(&self.writer.run).await;
                    if !left.undone.is_empty() {
                        let why = [left.done, left.undone].concat();
                        return self.stop(why.join("; ")).await;
                    }
                }
                return self.finish().await;
            };
            let flow = match self.enter_phase().await? {
                Flow::End(end) => Flow::End(end),
                Flow::On => match &slot {
                    Slot::Item(item) => self.settle_item(item).await?,
                    Slot::Step(step) => self.attempt(step).await?,
                },
            };
            if let Flow::End(end) = flow {
                // Together with the outcome.
                self.telling.owe_end(&mut self.writer, &end)?;
                self.writer.flush().await?;
                return Ok(end);
            }
        }
    }

    /// Owes and sends what is told of an occasion, durable together with what was noted before.
    async fn owe(&mut self, occasion: Occasion) -> Result<(), EngineError> {
        self.telling.owe(&mut self.writer, occasion, None, None)?;
        self.writer.flush().await?;
        self.telling.send(&self.writer.state, true);
        Ok(())
    }

    async fn finish(&mut self) -> Result<RunEnd, EngineError> {
        let (state, occasion, end) = match self.writer.state.direction() {
            Direction::Forward => (EndState::Completed, Occasion::Completed, RunEnd::Completed),
            Direction::Back => (EndState::RolledBack, Occasion::RolledBack, RunEnd::RolledBack),
        };
        self.writer.note(Event::Ended { state })?;
        self.owe(occasion).await?;
        Ok(end)
    }

    async fn stop(&mut self, why: String) -> Result<RunEnd, EngineError> {
        self.writer.write(Event::Stopped { why: why.clone() }).await?;
        Ok(RunEnd::Stopped { why })
    }

    /// Asks every target once more who it is when the first step of a phase comes up.
    async fn enter_phase(&mut self) -> Result<Flow, EngineError> {
        let state = &self.writer.state;
        let phase = (state.direction(), state.phase());
        // Those of the first phase were identified when this call took the run.
        let begins = self.checked_phase.is_some_and(|checked| checked != phase);
        self.checked_phase = Some(phase);
        if !begins {
            return Ok(Flow::On);
        }
        self.writer.flush().await?;
        match gate::targets(self.engine, &self.writer.state, None, self.options, self.operator).await {
            Ok(gate::Targets::Fit { accepted }) => {
                for what in accepted {
                    let by = self.engine.operator.principal.clone();
                    self.writer.write(Event::Accepted { what, by }).await?;
                }
                Ok(Flow::On)
            }
            Ok(gate::Targets::Wait(what)) => Ok(Flow::End(RunEnd::Waiting { on: Waiting::Acceptance { what } })),
            Err(error @ (EngineError::Moved(_) | EngineError::Target { .. })) => {
                Ok(Flow::End(self.stop(error.to_string()).await?))
            }
            Err(error) => Err(error),
        }
    }

    /// A checklist line that no step proves: answered in advance, or by the person at the keyboard.
    async fn settle_item(&mut self, id: &pgrunbook_document::ItemId) -> Result<Flow, EngineError> {
        self.writer.flush().await?;
        let plan = Arc::clone(&self.writer.state.plan);
        let found = plan.phases.iter().chain(&plan.rollback_paths).find_map(|phase| {
            phase.entries.iter().find_map(|entry| match entry {
                PlannedEntry::Item { id: found, text, roles, .. } if found == id => Some((phase, text, roles)),
                _ => None,
            })
        });
        let (phase, text, roles) = found.expect("the cursor stands on an item of the plan");
        let by = self.engine.operator.principal.clone();
        let waiting = || Waiting::Item { item: id.clone(), text: text.clone(), roles: roles.clone() };
        let in_advance = self.options.answers.get(id).cloned();
        let (answer, in_advance) = match in_advance {
            Some(answer) => (answer, true),
            None if !self.engine.people.may_act(&by, roles) => return Ok(Flow::End(RunEnd::Waiting { on: waiting() })),
            None => {
                let question = ItemQuestion { id, text, phase: &phase.title, roles };
                let asked = self.operator.item(question);
                match self.telling.meanwhile(&mut self.writer, asked).await? {
                    Some(answer) => (answer, false),
                    None => return Ok(Flow::End(RunEnd::Waiting { on: waiting() })),
                }
            }
        };
        let outcome = answer.outcome;
        let note = answer.note.filter(|note| !note.trim().is_empty());
        if outcome == ItemOutcome::NotApplicable && note.is_none() {
            return Ok(Flow::End(RunEnd::Waiting { on: waiting() }));
        }
        self.writer.note(Event::Item { item: id.clone(), outcome, by, note: note.clone(), in_advance })?;
        self.paused |= !in_advance;
        if outcome == ItemOutcome::Refused {
            let (item, text) = (id.clone(), text.clone());
            return Ok(Flow::End(RunEnd::Refused { item, text, outcome, note }));
        }
        Ok(Flow::On)
    }

    /// One attempt of the step whose turn it is.
    async fn attempt(&mut self, id: &StepId) -> Result<Flow, EngineError> {
        let direction = self.writer.state.direction();
        if self.paused
            && self.workshop.bench(id)?.changes
            && let Flow::End(end) = gate::again(self).await?
        {
            return Ok(Flow::End(end));
        }
        if let Flow::End(end) = gate::one_way(self, id, direction)? {
            return Ok(Flow::End(end));
        }
        let attempt = self.writer.state.step(id, direction).map_or(0, StepStatus::attempt) + 1;
        self.lease.stand_at(id);
        self.writer.note(Event::Intent { step: id.clone(), direction, attempt })?;
        // Together with the outcome of the step before.
        self.writer.flush().await?;
        self.telling.send(&self.writer.state, false);

        let result = self.act(id, direction, attempt).await?;
        let failure = match result {
            Ok(evidence) => {
                let became = evidence.became();
                let outcome = Outcome::Done { evidence, recovered: false };
                self.writer.note(Event::Outcome { step: id.clone(), direction, attempt, outcome })?;
                if became.is_some() {
                    self.writer.flush().await?;
                    self.lease.claim_targets(&self.engine.redactor).await?;
                }
                return Ok(Flow::On);
            }
            Err(error) if error.failure == Failure::InDoubt => {
                return self.ask(id, direction, attempt, Question::InDoubt(error), Turning::No).await;
            }
            Err(failure) => failure,
        };
        self.writer.note(Event::Outcome { step: id.clone(), direction, attempt, outcome: failed(&failure) })?;
        if failure.failure == Failure::Interrupted {
            return Ok(Flow::End(self.stop(format!("step `{id}` was interrupted: {}", failure.message)).await?));
        }
        Ok(Flow::End(self.end_of(id, direction, failure)))
    }

    /// What a failure of a step means for the run.
    fn end_of(&self, id: &StepId, direction: Direction, failure: StepError) -> RunEnd {
        let StepError { failure, code, message, help, .. } = failure;
        let step = id.clone();
        match (failure, direction) {
            (Failure::Waiting, _) => RunEnd::Waiting { on: Waiting::Step { step, code, message, help } },
            (_, Direction::Forward) => RunEnd::Failed { step, direction, failure, code, message, help },
            (_, Direction::Back) => {
                let undone = self.writer.state.undone();
                let left = self.writer.state.left().iter().filter_map(|slot| match slot {
                    Slot::Step(step) => Some(step.clone()),
                    Slot::Item(_) => None,
                });
                RunEnd::RollbackBlocked { step, code, message, help, undone, left: left.collect() }
            }
        }
    }

    /// Lets the step act, within its time, and passes on the operator's wish to stop.
    async fn act(
        &mut self,
        id: &StepId,
        direction: Direction,
        attempt: u32,
    ) -> Result<Result<crate::step::Evidence, StepError>, EngineError> {
        let engine = self.engine;
        let deed = deed(self.workshop, &self.writer.state, id, direction)?;
        let cancel = Cancel::default();
        // The step reads what was there when it began, while its notes are written behind it.
        let (run, recorded) = (self.writer.run.clone(), Arc::clone(&self.writer.state.recorded));
        let plan = Arc::clone(&self.writer.state.plan);
        let noted = self.writer.state.notes(id, direction);
        let sign_offs = sign_off::counting(engine, &run, &self.writer.state, id);
        let scene = self.telling.scene(&self.writer);
        let (notebook, mut pages) = Notebook::new(engine.redactor.clone());
        let mut cx = RunCx {
            run: &run,
            step: id,
            direction,
            attempt,
            epoch: self.writer.epoch,
            digest: deed.digest(),
            content_digest: &plan.content_digest,
            operator: &engine.operator.principal,
            clock: &*engine.clock,
            cancel: &cancel,
            watcher: self.operator,
            recorded: &recorded,
            artifacts: &self.artifacts,
            notes: &noted,
            notebook: Some(&notebook),
            approvals: &self.approvals,
            sign_offs: &sign_offs,
            scene: &scene,
        };
        let timeout = deed.timeout();
        let work = async {
            match deed {
                Deed::Apply(tool) => tool.step.apply(&mut cx).await,
                Deed::Undo(tool) => tool.step.undo(&mut cx).await,
            }
        };
        tokio::pin!(work);
        let over = async {
            match timeout {
                Some(timeout) => self.engine.clock.sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        let wishes = &self.options.cancel;
        let (mut stopping, mut aborting, mut timed_out) = (false, false, false);
        // Cancellation: the step is never dropped here; it is asked to cancel, and its answer is waited for.
        let result = loop {
            tokio::select! {
                biased;
                result = &mut work => break result,
                Some((note, durable)) = pages.recv() => {
                    let step = id.clone();
                    // Cancellation: the step waits for the answer, so that it stands still if the journal fails here.
                    self.writer.write(Event::Noted { step, direction, attempt, note }).await?;
                    let _ = durable.send(());
                }
                word = self.telling.next(&self.writer.state) => self.telling.take(word, &mut self.writer).await?,
                () = wishes.stopping(), if !stopping => {
                    stopping = true;
                    cancel.ask();
                }
                () = wishes.aborting(), if !aborting => {
                    aborting = true;
                    cancel.ask();
                }
                () = self.lease.lost(), if !aborting => {
                    (stopping, aborting) = (true, true);
                    cancel.ask();
                    cancel.ask();
                }
                () = &mut over, if !timed_out => {
                    timed_out = true;
                    cancel.ask();
                    cancel.ask();
                }
            }
        };
        Ok(result.map_err(|error| match timeout {
            Some(limit) if timed_out && !aborting => out_of_time(error, limit),
            _ => error,
        }))
    }

    fn deed(&self, id: &StepId, direction: Direction) -> Result<Deed<'_>, EngineError> {
        deed(self.workshop, &self.writer.state, id, direction)
    }

    /// For a question to the step: it notes nothing.
    fn context<'c>(
        &'c self,
        step: &'c StepId,
        direction: Direction,
        attempt: u32,
        digest: &'c str,
        cancel: &'c Cancel,
        notes: &'c [serde_json::Value],
    ) -> RunCx<'c> {
        RunCx {
            run: &self.writer.run,
            step,
            direction,
            attempt,
            epoch: self.writer.epoch,
            digest,
            content_digest: &self.writer.state.plan.content_digest,
            operator: &self.engine.operator.principal,
            clock: &*self.engine.clock,
            cancel,
            watcher: self.operator,
            recorded: &self.writer.state.recorded,
            notes,
            notebook: None,
            artifacts: &self.artifacts,
            approvals: &self.approvals,
            sign_offs: &[],
            scene: &notice::NOWHERE,
        }
    }

    /// After a crash: finds out about the step that stands open. Returns the end of the call if nobody can tell.
    async fn settle_doubt(&mut self, turns_back: bool) -> Result<Option<RunEnd>, EngineError> {
        let Some((step, direction)) = self.writer.state.in_doubt() else { return Ok(None) };
        let step = step.clone();
        let attempt = self.writer.state.step(&step, direction).map_or(0, StepStatus::attempt);
        let turning = if turns_back && direction == Direction::Forward { Turning::Yes } else { Turning::No };
        match self.ask(&step, direction, attempt, Question::AfterCrash, turning).await? {
            Flow::On => Ok(None),
            Flow::End(end) => {
                self.writer.flush().await?;
                Ok(Some(end))
            }
        }
    }

    /// The one question: did this attempt happen?
    async fn ask(
        &mut self,
        id: &StepId,
        direction: Direction,
        attempt: u32,
        question: Question,
        turning: Turning,
    ) -> Result<Flow, EngineError> {
        let happened = match self.happened(id, direction, attempt, turning).await? {
            Ok(happened) => happened,
            Err(error) => {
                // The target cannot be asked now. Nothing is written: the intent stands, and the next call asks again.
                let why = format!("it cannot be asked whether attempt {attempt} of step `{id}` happened: {error}");
                return Ok(Flow::End(RunEnd::Unknown { step: id.clone(), direction, why }));
            }
        };
        let event = |outcome| Event::Outcome { step: id.clone(), direction, attempt, outcome };
        match (happened, question) {
            (Happened::Yes(evidence), _) => {
                self.writer.note(event(Outcome::Done { evidence, recovered: true }))?;
                Ok(Flow::On)
            }
            (Happened::No, Question::AfterCrash) => {
                self.writer.note(event(Outcome::DidNotHappen))?;
                Ok(Flow::On)
            }
            (Happened::Partly(evidence), Question::AfterCrash) => {
                self.writer.note(event(Outcome::Partial { evidence }))?;
                Ok(Flow::On)
            }
            // It is settled now that it did not happen, and so it is a failure like any other: it is not tried
            // again without a person, who may want to see first why the connection broke.
            (Happened::No, Question::InDoubt(error)) => {
                let error = StepError { failure: Failure::Failed, ..error };
                self.writer.note(event(failed(&error)))?;
                Ok(Flow::End(self.end_of(id, direction, error)))
            }
            (Happened::Partly(evidence), Question::InDoubt(error)) => {
                let error = StepError { failure: Failure::Failed, ..error }.partly(evidence);
                self.writer.note(event(failed(&error)))?;
                Ok(Flow::End(self.end_of(id, direction, error)))
            }
            (Happened::Unknown(why), question) => {
                let why = match question {
                    Question::AfterCrash => why,
                    Question::InDoubt(error) => format!("{error}; {why}"),
                };
                if !matches!(self.writer.state.step(id, direction), Some(StepStatus::Unknown { .. })) {
                    self.writer.note(event(Outcome::Unknown { why: why.clone() }))?;
                }
                self.writer.flush().await?;
                self.let_decide(id, direction, attempt, why).await
            }
        }
    }

    /// Asks the step, if its effect class allows for an answer.
    async fn happened(
        &self,
        id: &StepId,
        direction: Direction,
        attempt: u32,
        turning: Turning,
    ) -> Result<Result<Happened, StepError>, EngineError> {
        let deed = self.deed(id, direction)?;
        let effect = deed.effect();
        let cancel = Cancel::default();
        let notes = self.writer.state.notes(id, direction);
        let cx = self.context(id, direction, attempt, deed.digest(), &cancel, &notes);
        let happened = match (effect, turning) {
            // Never resolved silently, whatever the step says.
            (Effect::Opaque, _) => {
                Happened::Unknown("an effect of this kind leaves no trace that could tell".to_owned())
            }
            // Running it again is safe, and that is what comes next.
            (Effect::Idempotent, Turning::No) => Happened::No,
            _ => {
                let resolved = match deed {
                    Deed::Apply(tool) => tool.step.resolve(&cx).await,
                    Deed::Undo(tool) => tool.step.resolve_undo(&cx).await,
                };
                match resolved {
                    // It will not be run again, and it may have happened: what can be undone must be.
                    Ok(Happened::Unknown(why)) if effect == Effect::Idempotent => {
                        Happened::Partly(crate::step::Evidence::of(why))
                    }
                    Ok(happened) => happened,
                    Err(error) => return Ok(Err(error)),
                }
            }
        };
        Ok(Ok(happened))
    }

    async fn let_decide(
        &mut self,
        id: &StepId,
        direction: Direction,
        attempt: u32,
        why: String,
    ) -> Result<Flow, EngineError> {
        let doubt = Doubt { step: id.clone(), direction, attempt, why };
        let asked = self.operator.decide(&doubt);
        let answer = self.telling.meanwhile(&mut self.writer, asked).await?;
        let answer = answer.filter(|answer| !answer.note.trim().is_empty());
        let Some(answer) = answer else {
            return Ok(Flow::End(RunEnd::Unknown { step: id.clone(), direction, why: doubt.why }));
        };
        let by = self.engine.operator.principal.clone();
        let (step, decision, note) = (id.clone(), answer.decision, answer.note);
        self.writer.write(Event::Decided { step, direction, decision, by, note }).await?;
        Ok(Flow::On)
    }
}

/// Whether the run turns back once the doubt is settled, so that the step will not be run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turning {
    No,
    Yes,
}

/// What is done with a step.
#[derive(Clone, Copy)]
enum Deed<'a> {
    Apply(&'a Tool),
    Undo(&'a Tool),
}

/// What an attempt at a step does, on the way on which the run is.
fn deed<'w>(
    workshop: &'w Workshop,
    state: &RunState,
    id: &StepId,
    direction: Direction,
) -> Result<Deed<'w>, EngineError> {
    let bench = workshop.bench(id)?;
    let on_undo_path = state.turned_back.as_deref() == Some(crate::state::UNDO);
    Ok(match (direction, &bench.undo) {
        (Direction::Back, Undoing::Own) if on_undo_path => Deed::Undo(&bench.step),
        (Direction::Back, Undoing::Other(tool)) if on_undo_path => Deed::Apply(tool),
        _ => Deed::Apply(&bench.step),
    })
}

impl<'a> Deed<'a> {
    fn digest(self) -> &'a str {
        let (Deed::Apply(tool) | Deed::Undo(tool)) = self;
        &tool.digest
    }

    fn effect(self) -> Effect {
        let (Deed::Apply(tool) | Deed::Undo(tool)) = self;
        tool.step.effect()
    }

    /// A step's limit is for doing it; taking it back must not be broken off.
    fn timeout(self) -> Option<std::time::Duration> {
        match self {
            Deed::Apply(tool) => tool.timeout,
            Deed::Undo(_) => None,
        }
    }
}

fn failed(error: &StepError) -> Outcome {
    Outcome::Failed {
        failure: error.failure,
        code: error.code.clone(),
        message: error.message.clone(),
        help: error.help.clone(),
        evidence: error.evidence.as_deref().cloned(),
        partial: error.partial,
    }
}

/// A step that was cancelled because its time was over says so, and keeps what it said of its effect.
fn out_of_time(error: StepError, limit: std::time::Duration) -> StepError {
    if !matches!(error.failure, Failure::Interrupted | Failure::Failed) {
        return error;
    }
    StepError {
        failure: Failure::Failed,
        code: "timeout".to_owned(),
        message: format!("not done within {limit:?} and cancelled: {}", error.message),
        ..error
    }
}
