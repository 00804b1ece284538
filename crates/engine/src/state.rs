//! The state of a run: the fold of its journal, and nothing else.
//!
//! Steps run strictly in the order of the plan, so the state is little more than a cursor in each direction. An event
//! that cannot follow (a step before its turn, an outcome without an intent, a turn forward again) is a broken journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use pgrunbook_document::{ItemId, StepId};

use crate::closing::Closing;
use crate::demand::{DemandName, DemandRecord};
use crate::journal::{Decision, Direction, EndState, Event, Head, ItemOutcome, JournalError, Outcome, Sealed};
use crate::notice::NoticeState;
use crate::plan::{self, Plan, PlannedEntry, PlannedPhase, PlannedStep, PlannedUndo};
use crate::sign_off::SignOff;
use crate::step::{Approval, Evidence, Failure};
use crate::target::Identity;

/// The path that undoes what was done, last in first out. Every runbook has it.
pub const UNDO: &str = "undo";

/// Where a step stands in one direction.
#[derive(Debug, Clone, PartialEq)]
pub enum StepStatus {
    /// Set by `Intent`: under way, or the process died.
    Intended { attempt: u32 },
    /// Set by `Outcome(Done)`, or a decision that it happened.
    Done { attempt: u32, evidence: Evidence, recovered: bool },
    /// Set by `Outcome(Failed)`.
    Failed { attempt: u32, failure: Failure, code: String, message: String, help: Option<String> },
    /// Set by `Outcome(DidNotHappen)`, `Outcome(Partial)`, or a decision to run it again.
    DidNotHappen { attempt: u32 },
    /// Set by `Outcome(Unknown)`: a decision is needed.
    Unknown { attempt: u32, why: String },
}

impl StepStatus {
    /// The number of the last attempt.
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Intended { attempt }
            | Self::Done { attempt, .. }
            | Self::Failed { attempt, .. }
            | Self::DidNotHappen { attempt }
            | Self::Unknown { attempt, .. } => *attempt,
        }
    }
}

/// A checklist line that was settled or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemState {
    pub outcome: ItemOutcome,
    pub by: String,
    pub note: Option<String>,
    pub in_advance: bool,
}

/// A demand that somebody went on without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overriding {
    pub demand: DemandName,
    /// What was found instead of it.
    pub found: String,
    pub by: String,
    pub reason: String,
    pub at: Timestamp,
    /// Number of the event, from 1: what names it as a review item.
    pub seq: u64,
    /// Hash of the event, in hex: what a closing is bound to.
    pub head: String,
    /// What somebody else found when they looked at it; `None`: open to be reviewed.
    pub closed: Option<Closed>,
}

/// A review item that was closed, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub closing: Closing,
    pub at: Timestamp,
}

/// `window: overridden by anna: ... (closed; the next opens ...)`.
impl std::fmt::Display for Overriding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} overridden by {}: {} ({})", self.demand.word(), self.by, self.reason, self.found)
    }
}

/// An event that cannot stand where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq}: {why}")]
pub struct BrokenJournal {
    pub seq: u64,
    pub why: String,
}

impl BrokenJournal {
    /// The same, naming the run.
    pub fn of(self, run: &str) -> JournalError {
        JournalError::Broken { run: run.to_owned(), seq: self.seq, why: self.why }
    }
}

/// The state of a run.
#[derive(Debug, Clone)]
pub struct RunState {
    pub plan: Arc<Plan>,
    pub rehearsal: bool,
    /// Who began it.
    pub operator: String,
    /// 0 before a process took it.
    pub epoch: u64,
    pub steps: BTreeMap<(StepId, Direction), StepStatus>,
    pub items: BTreeMap<ItemId, ItemState>,
    pub approvals: Vec<Approval>,
    /// In the order in which they were given.
    pub sign_offs: Vec<SignOff>,
    pub confirmed: bool,
    /// The environment's demands as they stood when the run was let begin.
    pub demands: Vec<DemandRecord>,
    /// Demands that somebody went on without: each is to be reviewed, until somebody else closes it.
    pub overrides: Vec<Overriding>,
    /// What was accepted by a person.
    pub accepted: Vec<String>,
    /// The path on which the run goes back, once it does.
    pub turned_back: Option<String>,
    /// When it turned back first, on whatever path.
    pub turned_at: Option<Timestamp>,
    /// When the last thing on the way back was settled: a step of it was done, or a line.
    pub back_at: Option<Timestamp>,
    /// Why it turned back, if that was said.
    pub reason: Option<String>,
    /// What people are told, in the order in which it was owed.
    pub notices: Vec<NoticeState>,
    /// When the operator was reminded last of an update, by channel.
    pub reminded: BTreeMap<String, Timestamp>,
    /// Ids of forward steps in the order in which they were done.
    pub done_order: Vec<StepId>,
    /// A forward step that happened in parts and was not finished since. There is at most one: the last.
    pub partial: Option<StepId>,
    /// What steps recorded: forward steps, done or in parts, and the steps of the path back.
    pub recorded: Arc<BTreeMap<StepId, Evidence>>,
    /// What steps noted since they last began anew, by direction: kept over a crash, an interruption and a pause, and
    /// gone once the step is done or failed.
    notes: BTreeMap<(StepId, Direction), Arc<Vec<serde_json::Value>>>,
    /// Hash of the event with which a step's first attempt began.
    began: BTreeMap<StepId, String>,
    /// The forward step that failed or is unknown, and what was said of it.
    pub failed: Option<(StepId, String)>,
    /// When forward steps were done.
    pub done_at: BTreeMap<StepId, Timestamp>,
    /// Targets that a step made anew, by name: who they are since.
    pub identities: BTreeMap<String, Identity>,
    /// Whether it once went forward to its end.
    pub completed: bool,
    /// Why the process stopped last, if it stopped in good order and nobody took the run since.
    pub stopped: Option<String>,
    pub ended: Option<EndState>,
    /// The last event that was folded.
    pub head: Head,
    forward: Course,
    back: Option<Course>,
    /// The step that is intended or unknown: nothing else may begin.
    open: Option<(StepId, Direction)>,
}

/// What is to be settled in one direction, in order, and how far it is.
#[derive(Debug, Clone)]
struct Course {
    slots: Arc<[Slot]>,
    next: usize,
    /// For each section of the course, the slot after its last.
    ends: Arc<[usize]>,
}

/// One thing to be settled: a checklist line that a person settles, or a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    Item(ItemId),
    Step(StepId),
}

impl RunState {
    /// Folds a whole journal, and checks its chain.
    ///
    /// # Errors
    /// The first event whose link or place is wrong; event 0 if there is none at all.
    pub fn fold(events: &[Sealed]) -> Result<Self, BrokenJournal> {
        let (first, rest) =
            events.split_first().ok_or_else(|| BrokenJournal { seq: 0, why: "the journal is empty".to_owned() })?;
        let mut state = Self::begin(first)?;
        if !first.is_behind(&Head::default()) {
            return Err(unlinked(first));
        }
        for event in rest {
            if !event.is_behind(&state.head) {
                return Err(unlinked(event));
            }
            state.apply(event)?;
        }
        Ok(state)
    }

    /// The state after the first event.
    pub fn begin(first: &Sealed) -> Result<Self, BrokenJournal> {
        let Event::Begun { format, plan, operator, rehearsal, .. } = &first.event else {
            return Err(BrokenJournal { seq: first.seq, why: "a run begins with `begun`".to_owned() });
        };
        if first.seq != 1 {
            return Err(BrokenJournal { seq: first.seq, why: "a run begins with event 1".to_owned() });
        }
        if *format > plan::FORMAT {
            let why = format!("it is of format {format}, and this pgrunbook knows up to {}", plan::FORMAT);
            return Err(BrokenJournal { seq: first.seq, why });
        }
        Ok(Self {
            rehearsal: *rehearsal,
            operator: operator.clone(),
            epoch: 0,
            steps: BTreeMap::new(),
            items: BTreeMap::new(),
            approvals: Vec::new(),
            sign_offs: Vec::new(),
            confirmed: false,
            demands: Vec::new(),
            overrides: Vec::new(),
            accepted: Vec::new(),
            turned_back: None,
            turned_at: None,
            back_at: None,
            reason: None,
            notices: Vec::new(),
            reminded: BTreeMap::new(),
            done_order: Vec::new(),
            partial: None,
            recorded: Arc::default(),
            notes: BTreeMap::new(),
            began: BTreeMap::new(),
            failed: None,
            done_at: BTreeMap::new(),
            identities: BTreeMap::new(),
            completed: false,
            stopped: None,
            ended: None,
            head: first.head(),
            forward: Course::over(&plan.phases),
            back: None,
            open: None,
            plan: Arc::new((**plan).clone()),
        })
    }

    /// Folds one more event. Its number is checked, its hash is not: that is [`RunState::fold`]'s.
    ///
    /// # Errors
    /// If the event cannot follow; the state is then not to be used.
    pub fn apply(&mut self, sealed: &Sealed) -> Result<(), BrokenJournal> {
        let broken = |why: String| BrokenJournal { seq: sealed.seq, why };
        if sealed.seq != self.head.seq + 1 {
            return Err(broken(format!("it stands behind event {}", self.head.seq)));
        }
        let before = self.back.as_ref().map(|course| course.next);
        self.follow(&sealed.event, sealed.at).map_err(broken)?;
        let turned = matches!(sealed.event, Event::TurnedBack { .. });
        if !turned && self.back.as_ref().map(|course| course.next) > before {
            self.back_at = Some(sealed.at);
        }
        self.head = sealed.head();
        if let Event::Intent { step, attempt: 1, .. } = &sealed.event {
            self.began.entry(step.clone()).or_insert_with(|| sealed.hash.clone());
        }
        if let (Event::Overridden { .. }, Some(last)) = (&sealed.event, self.overrides.last_mut()) {
            last.head.clone_from(&sealed.hash);
        }
        Ok(())
    }

    /// What may follow what. This is the only place that knows.
    fn follow(&mut self, event: &Event, at: Timestamp) -> Result<(), String> {
        match (self.ended, event) {
            (None, _) => {}
            // People are told of the end, too.
            (Some(_), Event::NoticeDue { .. } | Event::NoticeSent { .. }) => {}
            // It is looked at when there is time for it.
            (Some(_), Event::ReviewClosed { .. }) => {}
            // A completed run can still be taken back.
            (
                Some(EndState::Completed),
                Event::Claimed { .. }
                | Event::TurnedBack { .. }
                | Event::Stopped { .. }
                | Event::Approved { .. }
                | Event::Accepted { .. },
            ) => {}
            (Some(_), _) => return Err("the run has ended".to_owned()),
        }
        if self.epoch == 0
            && !matches!(
                event,
                Event::Claimed { .. }
                    | Event::Approved { .. }
                    | Event::Confirmed { .. }
                    | Event::Accepted { .. }
                    | Event::NoticeDue { .. }
                    | Event::NoticeSent { .. }
            )
        {
            return Err("no process had taken the run".to_owned());
        }
        match event {
            Event::Begun { .. } => Err("the run had begun".to_owned()),
            Event::Claimed { epoch, .. } if *epoch <= self.epoch => {
                Err(format!("epoch {epoch} does not rise above {}", self.epoch))
            }
            Event::Claimed { epoch, .. } => {
                self.epoch = *epoch;
                self.stopped = None;
                Ok(())
            }
            Event::Item { item, outcome, by, note, in_advance } => {
                let settled =
                    ItemState { outcome: *outcome, by: by.clone(), note: note.clone(), in_advance: *in_advance };
                self.settle_item(item, settled)
            }
            Event::Approved { approval } if approval.plan_digest != self.plan.plan_digest => {
                Err(format!("{} approved another plan", approval.principal))
            }
            Event::Approved { approval } => {
                self.approvals.push(approval.clone());
                Ok(())
            }
            Event::SignedOff { sign_off } => self.sign(sign_off),
            Event::Confirmed { .. } => {
                self.confirmed = true;
                Ok(())
            }
            Event::Overridden { demand, found, by, reason } => self.go_without(*demand, found, by, reason, at),
            Event::ReviewClosed { closing } => self.close(closing, at),
            Event::Demands { demands } => self.let_begin(demands),
            Event::Intent { step, direction, attempt } => self.intend(step, *direction, *attempt),
            Event::Noted { step, direction, attempt, note } => self.keep_note(step, *direction, *attempt, note),
            Event::Outcome { step, direction, attempt, outcome } => {
                self.conclude(step, *direction, *attempt, outcome, at)
            }
            Event::Decided { step, direction, decision, note, .. } => {
                self.decide(step, *direction, *decision, note, at)
            }
            Event::TurnedBack { path, reason, .. } => {
                self.turn_back(path)?;
                self.turned_at.get_or_insert(at);
                self.reason.clone_from(reason);
                Ok(())
            }
            Event::NoticeDue { notice, by } => {
                if self.notices.iter().any(|other| other.notice.key == notice.key) {
                    return Err(format!("the notice {} was owed before", notice.key));
                }
                let (notice, by) = (notice.clone(), by.clone());
                self.notices.push(NoticeState { notice, at, by, delivered: None, failed: None });
                Ok(())
            }
            Event::NoticeSent { key, delivered, said } => {
                let owed = self.notices.iter_mut().find(|owed| owed.notice.key == *key && owed.delivered.is_none());
                let owed = owed.ok_or_else(|| format!("the notice {key} was not owed"))?;
                if *delivered {
                    owed.delivered = Some(said.clone());
                } else {
                    owed.failed = Some(said.clone());
                }
                Ok(())
            }
            Event::UpdateDue { channel } => {
                self.reminded.insert(channel.clone(), at);
                Ok(())
            }
            Event::Accepted { what, .. } => {
                self.accepted.push(what.clone());
                Ok(())
            }
            Event::Stopped { why } => {
                self.stopped = Some(why.clone());
                Ok(())
            }
            Event::Ended { state } => self.end(*state),
        }
    }

    fn settle_item(&mut self, item: &ItemId, settled: ItemState) -> Result<(), String> {
        self.nothing_open()?;
        if !matches!(self.course().slot(), Some(Slot::Item(next)) if next == item) {
            return Err(format!("it is not the turn of item {item}"));
        }
        if settled.in_advance && self.plan.protected {
            return Err(format!("item {item} was answered in advance in a protected environment"));
        }
        if settled.outcome == ItemOutcome::NotApplicable && settled.note.as_deref().is_none_or(|n| n.trim().is_empty())
        {
            return Err(format!("item {item} was left out without a reason"));
        }
        let passes = settled.outcome != ItemOutcome::Refused;
        self.items.insert(item.clone(), settled);
        if passes {
            self.advance();
        }
        Ok(())
    }

    fn go_without(
        &mut self,
        demand: DemandName,
        found: &str,
        by: &str,
        reason: &str,
        at: Timestamp,
    ) -> Result<(), String> {
        if matches!(demand, DemandName::Confirmation | DemandName::DeploymentLog) {
            return Err(format!("the demand `{}` was overridden, which cannot be", demand.word()));
        }
        if reason.trim().is_empty() {
            return Err(format!("the demand `{}` was overridden without a reason", demand.word()));
        }
        let (found, by, reason) = (found.to_owned(), by.to_owned(), reason.to_owned());
        let seq = self.head.seq + 1;
        self.overrides.push(Overriding { demand, found, by, reason, at, seq, head: String::new(), closed: None });
        Ok(())
    }

    /// Closes a review item. That its signature counts is not known here.
    pub(crate) fn close(&mut self, closing: &Closing, at: Timestamp) -> Result<(), String> {
        let Closing { item, by, reason, head, .. } = closing;
        let Some(overriding) = self.overrides.iter_mut().find(|one| one.seq == *item) else {
            return Err(format!("event {item} overrode nothing"));
        };
        if let Some(closed) = &overriding.closed {
            return Err(format!("item {item} was closed before, by {}", closed.closing.by));
        }
        if overriding.by == *by {
            return Err(format!("{by} overrode it, and somebody else reviews it"));
        }
        if overriding.head != *head {
            return Err(format!("{by} closed an item of another journal"));
        }
        if reason.trim().is_empty() {
            return Err(format!("{by} closed item {item} without saying what was found"));
        }
        overriding.closed = Some(Closed { closing: closing.clone(), at });
        Ok(())
    }

    /// Review items that nobody has closed.
    pub fn open_reviews(&self) -> impl Iterator<Item = &Overriding> {
        self.overrides.iter().filter(|one| one.closed.is_none())
    }

    fn let_begin(&mut self, demands: &[DemandRecord]) -> Result<(), String> {
        let is_met = |record: &&DemandRecord| {
            record.held.is_some() || self.overrides.iter().any(|overriding| overriding.demand == record.name)
        };
        if let Some(record) = demands.iter().find(|record| !is_met(record)) {
            return Err(format!("the run was let begin without {}", record.demanded));
        }
        self.demands = demands.to_vec();
        Ok(())
    }

    fn sign(&mut self, sign_off: &SignOff) -> Result<(), String> {
        let SignOff { step, role, principal, head, key, .. } = sign_off;
        match (self.began(step), self.next()) {
            (None, _) => return Err(format!("{principal} signed off step `{step}`, which has not begun")),
            (Some(began), _) if began != head => {
                return Err(format!(
                    "{principal} signed off another result: step `{step}` began elsewhere in a journal"
                ));
            }
            (Some(_), Some(Slot::Step(next))) if next == step => {}
            (Some(_), _) => return Err(format!("step `{step}` waits for no sign-off any more")),
        }
        if self.sign_offs.iter().any(|other| (&other.step, &other.role, &other.key) == (step, role, key)) {
            return Err(format!("{principal} signed off step `{step}` as {role} before"));
        }
        self.sign_offs.push(sign_off.clone());
        Ok(())
    }

    fn intend(&mut self, step: &StepId, direction: Direction, attempt: u32) -> Result<(), String> {
        self.nothing_open()?;
        if direction != self.direction() {
            return Err(match direction {
                Direction::Forward => format!("step `{step}` goes forward, and the run had turned back"),
                Direction::Back => format!("step `{step}` goes back, and the run had not turned back"),
            });
        }
        if !matches!(self.course().slot(), Some(Slot::Step(next)) if next == step) {
            return Err(format!("it is not the turn of step `{step}`"));
        }
        let key = (step.clone(), direction);
        let before = self.steps.get(&key).map_or(0, StepStatus::attempt);
        if attempt != before + 1 {
            return Err(format!("attempt {attempt} of step `{step}` follows attempt {before}"));
        }
        self.open = Some(key.clone());
        self.steps.insert(key, StepStatus::Intended { attempt });
        Ok(())
    }

    fn keep_note(
        &mut self,
        step: &StepId,
        direction: Direction,
        attempt: u32,
        note: &serde_json::Value,
    ) -> Result<(), String> {
        let key = (step.clone(), direction);
        match self.steps.get(&key) {
            Some(StepStatus::Intended { attempt: intended }) if *intended == attempt => {}
            _ => return Err(format!("attempt {attempt} of step `{step}` noted something while it was not under way")),
        }
        Arc::make_mut(self.notes.entry(key).or_default()).push(note.clone());
        Ok(())
    }

    fn conclude(
        &mut self,
        step: &StepId,
        direction: Direction,
        attempt: u32,
        outcome: &Outcome,
        at: Timestamp,
    ) -> Result<(), String> {
        let key = (step.clone(), direction);
        match (self.steps.get(&key), outcome) {
            (Some(StepStatus::Intended { attempt: intended }), _) if *intended == attempt => {}
            // Asked once more after an unknown outcome, the target could tell.
            (
                Some(StepStatus::Unknown { attempt: unknown, .. }),
                Outcome::Done { recovered: true, .. } | Outcome::DidNotHappen | Outcome::Partial { .. },
            ) if *unknown == attempt => {}
            _ => return Err(format!("attempt {attempt} of step `{step}` has an outcome that cannot follow")),
        }
        self.open = None;
        let goes_on = match outcome {
            Outcome::Done { .. } => false,
            Outcome::Failed { failure, .. } => matches!(failure, Failure::Interrupted | Failure::Waiting),
            Outcome::DidNotHappen | Outcome::Partial { .. } | Outcome::Unknown { .. } => true,
        };
        if !goes_on {
            self.notes.remove(&key);
        }
        let status = match outcome {
            Outcome::Done { evidence, recovered } => {
                self.record(step, direction, evidence);
                self.done(step, direction, at);
                StepStatus::Done { attempt, evidence: evidence.clone(), recovered: *recovered }
            }
            Outcome::Failed { failure, code, message, help, evidence, partial } => {
                if *partial {
                    self.in_parts(step, direction, evidence.as_ref());
                }
                let (code, message, help) = (code.clone(), message.clone(), help.clone());
                StepStatus::Failed { attempt, failure: *failure, code, message, help }
            }
            Outcome::DidNotHappen => StepStatus::DidNotHappen { attempt },
            Outcome::Partial { evidence } => {
                self.in_parts(step, direction, Some(evidence));
                StepStatus::DidNotHappen { attempt }
            }
            Outcome::Unknown { why } => {
                self.open = Some(key.clone());
                StepStatus::Unknown { attempt, why: why.clone() }
            }
        };
        if direction == Direction::Forward {
            self.remember_failure(step, &status);
        }
        self.steps.insert(key, status);
        Ok(())
    }

    fn remember_failure(&mut self, step: &StepId, status: &StepStatus) {
        match status {
            StepStatus::Failed { failure: Failure::Waiting | Failure::Interrupted, .. } => {}
            StepStatus::Failed { message, .. } => self.failed = Some((step.clone(), message.clone())),
            StepStatus::Unknown { why, .. } => self.failed = Some((step.clone(), why.clone())),
            StepStatus::Done { .. } if self.failed.as_ref().is_some_and(|(failed, _)| failed == step) => {
                self.failed = None;
            }
            StepStatus::Done { .. } | StepStatus::Intended { .. } | StepStatus::DidNotHappen { .. } => {}
        }
    }

    fn decide(
        &mut self,
        step: &StepId,
        direction: Direction,
        decision: Decision,
        note: &str,
        at: Timestamp,
    ) -> Result<(), String> {
        let key = (step.clone(), direction);
        let Some(StepStatus::Unknown { attempt, .. }) = self.steps.get(&key) else {
            return Err(format!("nothing was unknown about step `{step}`"));
        };
        let attempt = *attempt;
        if note.trim().is_empty() {
            return Err(format!("the decision on step `{step}` has no reason"));
        }
        self.open = None;
        let status = match decision {
            Decision::Done => {
                self.notes.remove(&key);
                let evidence = Evidence::of(format!("by decision: {note}"));
                self.record(step, direction, &evidence);
                self.done(step, direction, at);
                StepStatus::Done { attempt, evidence, recovered: true }
            }
            Decision::Again => StepStatus::DidNotHappen { attempt },
        };
        if direction == Direction::Forward {
            self.remember_failure(step, &status);
        }
        self.steps.insert(key, status);
        Ok(())
    }

    fn turn_back(&mut self, path: &str) -> Result<(), String> {
        self.nothing_open()?;
        if self.turned_back.as_deref() == Some(path) {
            return Err(format!("the run was on path `{path}`"));
        }
        let slots = self.way_back(path).ok_or_else(|| format!("the plan has no rollback path `{path}`"))?;
        let mut course = Course { ends: Arc::new([slots.len()]), slots, next: 0 };
        // What an earlier path has settled stays settled.
        while course.slot().is_some_and(|slot| self.is_settled_back(slot)) {
            course.next += 1;
        }
        self.back = Some(course);
        self.turned_back = Some(path.to_owned());
        self.ended = None;
        Ok(())
    }

    fn end(&mut self, state: EndState) -> Result<(), String> {
        self.nothing_open()?;
        let fits = match state {
            EndState::Completed => self.turned_back.is_none() && self.course().slot().is_none(),
            EndState::RolledBack => self.turned_back.is_some() && self.course().slot().is_none(),
            EndState::Aborted => true,
        };
        if !fits {
            return Err("something is left to do".to_owned());
        }
        self.completed |= state == EndState::Completed;
        self.ended = Some(state);
        Ok(())
    }

    /// Who a target is as far as this run knows: as planned, or since a step made it another one.
    pub fn identity(&self, name: &str) -> Option<&Identity> {
        let planned = || self.plan.targets.iter().find(|target| target.name == name);
        self.identities.get(name).or_else(planned)
    }

    /// An undo does not hide what its step recorded on the way forward: other undos may rest on it.
    fn record(&mut self, step: &StepId, direction: Direction, evidence: &Evidence) {
        if let Some(identity) = evidence.became() {
            // Every name of the same thing: a target, and the pooler in front of it.
            let before = self.identity(&identity.name).map(|before| before.key.clone());
            let plan = Arc::clone(&self.plan);
            for target in &plan.targets {
                if target.name == identity.name
                    || self.identity(&target.name).map(|other| &other.key) == before.as_ref()
                {
                    self.identities.insert(target.name.clone(), identity.called(&target.name));
                }
            }
        }
        if direction == Direction::Forward || !self.recorded.contains_key(step) {
            Arc::make_mut(&mut self.recorded).insert(step.clone(), evidence.clone());
        }
    }

    fn done(&mut self, step: &StepId, direction: Direction, at: Timestamp) {
        if direction == Direction::Forward {
            self.done_at.insert(step.clone(), at);
            self.done_order.push(step.clone());
            self.partial = None;
        }
        self.advance();
    }

    fn in_parts(&mut self, step: &StepId, direction: Direction, evidence: Option<&Evidence>) {
        if direction == Direction::Forward {
            self.partial = Some(step.clone());
            Arc::make_mut(&mut self.recorded).insert(step.clone(), evidence.cloned().unwrap_or_default());
        }
    }

    fn nothing_open(&self) -> Result<(), String> {
        match &self.open {
            Some((step, _)) => Err(format!("step `{step}` had no outcome yet")),
            None => Ok(()),
        }
    }

    fn advance(&mut self) {
        match &mut self.back {
            Some(course) => course.next += 1,
            None => self.forward.next += 1,
        }
    }

    fn course(&self) -> &Course {
        self.back.as_ref().unwrap_or(&self.forward)
    }

    fn is_settled_back(&self, slot: &Slot) -> bool {
        match slot {
            Slot::Step(step) => {
                matches!(self.steps.get(&(step.clone(), Direction::Back)), Some(StepStatus::Done { .. }))
            }
            Slot::Item(item) => self.items.get(item).is_some_and(|item| item.outcome != ItemOutcome::Refused),
        }
    }

    /// Which way the run goes.
    pub fn direction(&self) -> Direction {
        if self.turned_back.is_some() { Direction::Back } else { Direction::Forward }
    }

    /// The step that is intended or unknown, if there is one.
    pub fn in_doubt(&self) -> Option<(&StepId, Direction)> {
        self.open.as_ref().map(|(step, direction)| (step, *direction))
    }

    /// What is to be settled next in the direction of the run; `None` at its end.
    pub fn next(&self) -> Option<&Slot> {
        self.course().slot()
    }

    /// The index of the phase in which the next thing stands. A path back is one phase.
    pub(crate) fn phase(&self) -> usize {
        let course = self.course();
        course.ends.partition_point(|end| *end <= course.next)
    }

    /// What is still to be settled in the direction of the run, in order.
    pub fn left(&self) -> &[Slot] {
        let course = self.course();
        &course.slots[course.next..]
    }

    /// Where a step stands; `None`: no attempt yet.
    pub fn step(&self, step: &StepId, direction: Direction) -> Option<&StepStatus> {
        self.steps.get(&(step.clone(), direction))
    }

    /// Hash of the event with which a step first began, if it has.
    pub fn began(&self, step: &StepId) -> Option<&str> {
        self.began.get(step).map(String::as_str)
    }

    /// What a step noted since it last began anew, in order.
    pub fn notes(&self, step: &StepId, direction: Direction) -> Arc<Vec<serde_json::Value>> {
        self.notes.get(&(step.clone(), direction)).cloned().unwrap_or_default()
    }

    /// Whether a step is done forward.
    pub fn is_done(&self, step: &StepId) -> bool {
        matches!(self.step(step, Direction::Forward), Some(StepStatus::Done { .. }))
    }

    /// Steps that were taken back, or done on the way back, in the order of the path.
    pub fn undone(&self) -> Vec<StepId> {
        let Some(course) = &self.back else { return Vec::new() };
        let steps = course.slots[..course.next].iter().filter_map(|slot| match slot {
            Slot::Step(step) => Some(step.clone()),
            Slot::Item(_) => None,
        });
        steps.collect()
    }

    /// What a path would do from here: for `undo`, the steps that happened, last in first out, as far as they change
    /// something that can be taken back. `None` if there is no such path.
    pub fn way_back(&self, path: &str) -> Option<Arc<[Slot]>> {
        if path != UNDO {
            return self
                .plan
                .rollback_paths
                .iter()
                .find(|phase| phase.slug == path)
                .map(|phase| slots(phase).collect());
        }
        let planned: BTreeMap<&StepId, &PlannedStep> = self.plan.steps().map(|step| (&step.id, step)).collect();
        let happened = self.partial.iter().chain(self.done_order.iter().rev());
        let undone = happened.filter(|step| {
            planned.get(step).is_some_and(|s| matches!(s.undo, PlannedUndo::Own { .. } | PlannedUndo::Block { .. }))
        });
        Some(undone.cloned().map(Slot::Step).collect())
    }
}

impl Course {
    fn over(sections: &[PlannedPhase]) -> Self {
        let mut all = Vec::new();
        let mut ends = Vec::new();
        for section in sections {
            all.extend(slots(section));
            ends.push(all.len());
        }
        Self { slots: all.into(), next: 0, ends: ends.into() }
    }

    fn slot(&self) -> Option<&Slot> {
        self.slots.get(self.next)
    }
}

/// What a phase asks for: items that no step proves, and steps.
fn slots(phase: &PlannedPhase) -> impl Iterator<Item = Slot> {
    phase.entries.iter().filter_map(|entry| match entry {
        PlannedEntry::Item { id, proofs, .. } => proofs.is_empty().then(|| Slot::Item(id.clone())),
        PlannedEntry::Step(step) => Some(Slot::Step(step.id.clone())),
    })
}

fn unlinked(event: &Sealed) -> BrokenJournal {
    BrokenJournal { seq: event.seq, why: "its hash does not fit its content and the event before".to_owned() }
}
