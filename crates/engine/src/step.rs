//! The contract between the engine and a kind of step.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use pgrunbook_document::{StepId, VarValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::Clock;
use crate::environment::People;
use crate::notice::Scene;
use crate::redact::Redactor;
use crate::sign_off::SignOff;
use crate::target::Identity;

/// The fact that holds a target's new identity.
const BECAME: &str = "target_identity";

/// How the engine knows, after a crash, whether a step's effect happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// A ledger row commits with the effect.
    Transactional,
    /// The target itself can be asked.
    Resolvable,
    /// Running it again is safe.
    Idempotent,
    /// It cannot be known: the operator is asked.
    Opaque,
}

/// What a step does, under way: boxed by the step itself. An `async fn` of the `async-trait` crate does the same under bounds on its
/// lifetimes, for which the compiler looks anew into everything below each such function: a third of the time that the steps took it.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, StepError>> + Send + 'a>>;

/// One kind of step, bound to one block of a runbook.
pub trait Step: Send + Sync {
    fn effect(&self) -> Effect;

    /// Says what would happen, by reading only.
    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change>;

    /// Does it. Called only after the intent is durable.
    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence>;

    /// After a crash or a lost connection: whether the attempt named in `cx` happened, by reading only.
    ///
    /// The default answer stops the run and asks the operator.
    fn resolve<'a>(&'a self, _cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { Ok(Happened::Unknown("this kind of step cannot tell".to_owned())) })
    }

    /// Takes it back. Called only for steps whose effect happened, or happened in parts ([`StepError::partly`],
    /// [`Happened::Partly`]), after the intent of the undo is durable.
    fn undo<'a>(&'a self, _cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { Err(StepError::failed("no-undo", "this step does not know how to undo itself")) })
    }

    /// After a crash during [`Step::undo`]: whether that attempt happened.
    fn resolve_undo<'a>(&'a self, _cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { Ok(Happened::Unknown("this kind of step cannot tell whether it was undone".to_owned())) })
    }
}

/// The answer to "did it happen?".
#[derive(Debug, Clone, PartialEq)]
pub enum Happened {
    /// It did; what can still be said of it.
    Yes(Evidence),
    /// It did not.
    No,
    /// In parts (two of four migrations): the next attempt takes them up, and an undo takes them back.
    Partly(Evidence),
    /// Nobody can tell, and why.
    Unknown(String),
}

/// What a step would do, for the plan. Read off the live target; changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// One line: `apply 4 migrations (0008 to 0011)`.
    pub summary: String,
    /// More lines for people, in order.
    pub details: Vec<String>,
    /// Files whose content takes part, by path relative to the project, with SHA-256 in hex. Part of the content digest.
    pub files: BTreeMap<String, String>,
    /// Locks it will take, as far as they can be known: (relation, mode).
    pub locks: Vec<(String, String)>,
    /// What would be lost or could not be undone.
    pub warnings: Vec<String>,
    /// A reason for which this step could not run now; planning goes on, running is refused.
    pub blocked: Option<String>,
    /// Facts about the target that the change rests on; a difference when the run begins voids approvals.
    pub preconditions: BTreeMap<String, String>,
    /// Set by a step that deploys a version to its target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
}

/// What a step that deploys leaves behind of it in the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The table that gets a row in the transaction of the change, for people; `None`: there is no such row.
    pub log: Option<String>,
}

/// What a step recorded. Goes through the redactor before it is written anywhere.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// One line: `0 rows, as expected`.
    pub summary: String,
    /// What was seen, by name; also what undo needs (a previous value, a path).
    pub facts: BTreeMap<String, Value>,
}

impl Evidence {
    /// Evidence of one line.
    pub fn of(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), facts: BTreeMap::new() }
    }

    /// The same with one more fact.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// The same, of a step after which a target is another one: a restore that made the database anew. From here on
    /// the run expects this identity, and claims the target again.
    #[must_use]
    pub fn became_target(self, identity: &Identity) -> Self {
        let value = serde_json::to_value(identity).expect("an identity is texts and a number");
        self.fact(BECAME, value)
    }

    /// The identity that a target has since this step, if the step made it another one.
    pub fn became(&self) -> Option<Identity> {
        serde_json::from_value(self.facts.get(BECAME)?.clone()).ok()
    }
}

/// What kind of failure it was; decides what the engine does next and the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// It did not happen, certainly: rolled back, refused, or a gate did not hold.
    Failed,
    /// The input is wrong, or the target cannot be reached; nothing was touched.
    Unusable,
    /// A person must act first (approve, confirm). Nothing was touched.
    Waiting,
    /// Interrupted by the operator; what had begun was rolled back.
    Interrupted,
    /// It may have happened: `resolve` is asked.
    InDoubt,
}

/// What went wrong in a step: what happened, to which object, what is certainly safe, what to do next.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    pub failure: Failure,
    /// Stable name: `gate`, `sqlstate-42501`, `connect`.
    pub code: String,
    /// One or two sentences.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
    /// What was seen nevertheless (the rows that broke a gate).
    pub evidence: Option<Box<Evidence>>,
    /// Parts of it happened and stay: a rollback undoes them. Set by [`StepError::partly`].
    pub partial: bool,
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl StepError {
    fn new(failure: Failure, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            failure,
            code: code.into(),
            message: message.into(),
            help: None,
            evidence: None,
            partial: false,
            source: None,
        }
    }

    /// It certainly did not happen.
    pub fn failed(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Failure::Failed, code, message)
    }

    /// Bad input or an unreachable target; nothing was touched.
    pub fn unusable(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Failure::Unusable, code, message)
    }

    /// A person must act first.
    pub fn waiting(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Failure::Waiting, code, message)
    }

    /// Stopped by the operator, cleanly.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::new(Failure::Interrupted, "interrupted", message)
    }

    /// Nobody here knows whether it happened.
    pub fn in_doubt(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Failure::InDoubt, code, message)
    }

    /// Another run holds the target: who, where, since when, at which step.
    pub fn taken(holder: &crate::target::Claim) -> Self {
        let at = holder.step.as_ref().map_or_else(String::new, |step| format!(", at step `{step}`"));
        Self::new(
            Failure::Unusable,
            "taken",
            format!(
                "run {} of \"{}\" is at work on this target: {} (pid {}), since {}{at}. Nothing was changed.",
                holder.run, holder.runbook, holder.operator, holder.pid, holder.since
            ),
        )
    }

    /// The same with a hint.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with what was seen.
    #[must_use]
    pub fn evidence(mut self, evidence: Evidence) -> Self {
        self.evidence = Some(Box::new(evidence));
        self
    }

    /// The same, for a step of several parts of which some happened and stay (two of four migrations): the next
    /// attempt takes them up, and a rollback calls [`Step::undo`] with this evidence recorded.
    #[must_use]
    pub fn partly(mut self, evidence: Evidence) -> Self {
        self.evidence = Some(Box::new(evidence));
        self.partial = true;
        self
    }

    /// The same with its cause.
    #[must_use]
    pub fn source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

/// The operator's wish to stop: once, stop after the present statement; twice, cancel the statement.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    asked: AtomicU8,
    changed: Notify,
}

impl Cancel {
    /// The operator asks (again).
    pub fn ask(&self) {
        // Saturating: a third Ctrl-C means no more than the second.
        let _ = self.0.asked.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| Some(n.saturating_add(1)));
        self.0.changed.notify_waiters();
    }

    /// Asked once: begin nothing new.
    pub fn is_stopping(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst) >= 1
    }

    /// Asked twice: cancel what is under way.
    pub fn is_aborting(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst) >= 2
    }

    /// Waits until asked once.
    pub async fn stopping(&self) {
        self.asked(1).await;
    }

    /// Waits until asked twice.
    pub async fn aborting(&self) {
        self.asked(2).await;
    }

    async fn asked(&self, times: u8) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that an ask between the look and the wait is not missed.
            changed.as_mut().enable();
            if self.0.asked.load(Ordering::SeqCst) >= times {
                return;
            }
            changed.await;
        }
    }
}

/// What a long step tells while it runs; shown, not journaled.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "progress", rename_all = "snake_case")]
pub enum Progress {
    /// A line for the operator.
    Line { text: String },
    /// How far it is. `total` unknown: `None`. `unit` is `bytes`, `rows`, `files`, `statements`.
    Amount { done: u64, total: Option<u64>, unit: &'static str },
}

/// Takes a step's progress. Must not block.
pub trait Watcher: Send + Sync {
    fn progress(&self, step: &StepId, progress: Progress);
}

/// Where a step under way notes things: leads to the one hand that writes the run's journal.
pub struct Notebook {
    pages: mpsc::Sender<Page>,
    redactor: Redactor,
}

/// A note, and whom to tell that it is durable.
pub(crate) type Page = (Value, oneshot::Sender<()>);

impl Notebook {
    /// An empty one. Whoever holds the other end makes each page durable and answers.
    pub(crate) fn new(redactor: Redactor) -> (Self, mpsc::Receiver<Page>) {
        // A step waits for each note: there is never more than one.
        let (pages, written) = mpsc::channel(1);
        (Self { pages, redactor }, written)
    }

    async fn note(&self, mut note: Value) -> Result<(), StepError> {
        self.redactor.redact_value(&mut note);
        let (sender, durable) = oneshot::channel();
        let gone = || StepError::in_doubt("journal", "the journal could not take what the step noted");
        self.pages.send((note, sender)).await.map_err(|_| gone())?;
        durable.await.map_err(|_| gone())
    }
}

/// What planning may use.
pub struct PlanCx<'a> {
    pub step: &'a StepId,
    pub clock: &'a dyn Clock,
    pub cancel: &'a Cancel,
    /// Who holds which role, and who may sign.
    pub people: &'a People,
    /// The runbook's variables.
    pub variables: &'a BTreeMap<String, VarValue>,
    /// How long a way back may take, if the runbook declares it.
    pub rollback_within: Option<Duration>,
}

/// Which way a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Forward,
    Back,
}

/// What an attempt may use. Only the engine makes one, after the intent is durable.
pub struct RunCx<'a> {
    pub run: &'a str,
    pub step: &'a StepId,
    pub direction: Direction,
    /// From 1; a retry after a failure or a crash is a new attempt.
    pub attempt: u32,
    pub epoch: u64,
    /// SHA-256 of the step's block and its variables, in hex: what a ledger row records.
    pub digest: &'a str,
    /// The plan's content digest, in hex: the same in every environment.
    pub content_digest: &'a str,
    pub operator: &'a str,
    pub clock: &'a dyn Clock,
    pub cancel: &'a Cancel,
    pub watcher: &'a dyn Watcher,
    /// Evidence of the steps of this run that are done, by id: forward evidence, also while going back.
    pub recorded: &'a BTreeMap<StepId, Evidence>,
    /// The run's folder for files that steps make (dumps): exists.
    pub artifacts: &'a std::path::Path,
    /// What this step noted in attempts that a crash, the operator or a pause broke off, in order.
    pub notes: &'a [Value],
    /// Where it notes more; nowhere while it is only asked.
    pub notebook: Option<&'a Notebook>,
    /// Approvals that count for this run now, each `principal (role)`; for the `approve` step.
    pub approvals: &'a [Approval],
    /// Sign-offs of this step that count now.
    pub sign_offs: &'a [SignOff],
    /// What a message may speak of.
    pub scene: &'a Scene,
}

/// An approval that was verified and is bound to this run's plan digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The approver, as `allowed_signers` names them.
    pub principal: String,
    /// Roles the project gives to them.
    pub roles: Vec<String>,
    /// The plan digest that was signed.
    pub plan_digest: String,
    /// The armored SSHSIG.
    pub signature: String,
    /// Fingerprint of the key.
    pub key: String,
}

impl RunCx<'_> {
    /// Tells the operator a line.
    pub fn say(&self, text: impl Into<String>) {
        self.watcher.progress(self.step, Progress::Line { text: text.into() });
    }

    /// Tells how far it is.
    pub fn amount(&self, done: u64, total: Option<u64>, unit: &'static str) {
        self.watcher.progress(self.step, Progress::Amount { done, total, unit });
    }

    /// Notes what an attempt after a crash goes on from: durable in the journal when this returns. Small, and not often:
    /// each is an event of the run's chain.
    ///
    /// # Errors
    /// If the journal cannot take it. The step ends there and then; what it did since its last note is not known to
    /// anybody.
    pub async fn note(&self, note: Value) -> Result<(), StepError> {
        match self.notebook {
            Some(notebook) => notebook.note(note).await,
            None => Ok(()),
        }
    }

    /// What the step with this id recorded when it was done, if it was.
    pub fn recorded(&self, step: &StepId) -> Option<&Evidence> {
        self.recorded.get(step)
    }
}
