//! Notices: what people who are not at the terminal are told of a run, and how the engine has them told.
//!
//! A notice is made durable in the same append as what it tells of (the run turns back, ends), then it is delivered, then what
//! became of it is recorded. So each is owed once, whatever dies; it is delivered at least once, and carries a key by
//! which a receiver tells a second delivery. A channel that is down stops nothing: the notice stays owed.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use pgrunbook_document::VarValue;
use serde::{Deserialize, Serialize};

use crate::journal::Direction;
use crate::plan::Plan;
use crate::state::RunState;

/// What a notice tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// The first step begins.
    Started,
    /// The run has stopped until a person acts.
    Waiting,
    /// A step failed, a person refused a line, or nobody can tell whether an effect happened.
    Failed,
    /// The run turns back.
    Rollback,
    /// It is back at its beginning, or at the end of another way back.
    RolledBack,
    /// It went forward to its end.
    Completed,
    /// An update that was promised did not come in time.
    Overdue,
    /// A person's own words.
    Update,
}

impl Occasion {
    /// The word for it: `rolled-back`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Rollback => "rollback",
            Self::RolledBack => "rolled-back",
            Self::Completed => "completed",
            Self::Overdue => "overdue",
            Self::Update => "update",
        }
    }
}

/// One message to one address of one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The same for every delivery of it: run, occasion, what more tells it from others, channel and address.
    pub key: String,
    pub occasion: Occasion,
    /// The project's name for where it goes.
    pub channel: String,
    /// Which of the channel's addresses: `webhook`, `slack`, `smtp`.
    pub address: String,
    /// One line.
    pub subject: String,
    pub text: String,
}

/// A notice, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeState {
    pub notice: Notice,
    pub at: Timestamp,
    /// Who said it, if it was a person.
    pub by: Option<String>,
    /// What the receiver answered.
    pub delivered: Option<String>,
    /// Why it was not delivered when it was tried last.
    pub failed: Option<String>,
}

/// A person's notice that was sent by another process than the one at work on the run, which records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub notice: Notice,
    pub by: String,
    pub delivered: bool,
    /// What the receiver answered, or why it was not delivered.
    pub said: String,
}

/// What a template may speak of: where a run stands when something is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scene {
    /// The run's id.
    pub run: String,
    /// The runbook's title.
    pub title: String,
    pub environment: String,
    pub operator: String,
    /// Why it goes back, else how the step failed.
    pub reason: Option<String>,
    /// The step that failed last on the way forward.
    pub failed_step: Option<String>,
    /// When the next update is promised, if one is.
    pub update_due: Option<Timestamp>,
    /// How long a way back may take, if the runbook declares it.
    pub rollback_within: Option<Duration>,
    /// When it is to be at its end: so long after the run turned back, or from now on.
    pub rollback_due: Option<Timestamp>,
    /// Which way the run goes.
    pub is_back: bool,
    /// The runbook's variables.
    pub variables: BTreeMap<String, VarValue>,
}

/// The scene of a step that is only asked something: it tells nobody.
pub(crate) static NOWHERE: Scene = Scene {
    run: String::new(),
    title: String::new(),
    environment: String::new(),
    operator: String::new(),
    reason: None,
    failed_step: None,
    update_due: None,
    rollback_within: None,
    rollback_due: None,
    is_back: false,
    variables: BTreeMap::new(),
};

impl Scene {
    /// What every run of a plan has, before there is one: for asking whether a template fits.
    pub fn of_plan(plan: &Plan) -> Self {
        let within = plan.rollback_within();
        Self {
            title: plan.title.clone(),
            environment: plan.environment.clone(),
            variables: plan.variables.clone(),
            rollback_within: within,
            rollback_due: within.map(|within| later(plan.made_at, within)),
            ..Self::default()
        }
    }

    /// Where a run stands now.
    pub fn of(run: &str, state: &RunState, operator: &str, now: Timestamp) -> Self {
        let failed = state.failed.as_ref();
        let within = state.plan.rollback_within();
        Self {
            run: run.to_owned(),
            title: state.plan.title.clone(),
            environment: state.plan.environment.clone(),
            operator: operator.to_owned(),
            reason: state.reason.clone().or_else(|| failed.map(|(_, why)| why.clone())),
            failed_step: failed.map(|(step, _)| step.to_string()),
            update_due: None,
            rollback_within: within,
            rollback_due: within.map(|within| later(state.turned_at.unwrap_or(now), within)),
            is_back: state.turned_back.is_some(),
            variables: state.plan.variables.clone(),
        }
    }
}

/// So long after a moment; the last moment there is, if that is beyond it.
pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// How often updates are promised while something is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    pub channel: String,
    /// From one word in the channel to the next.
    pub every: Duration,
    /// How long after that the channel itself is told that an update is overdue.
    pub grace: Duration,
}

/// Tells people who are not at the terminal.
#[async_trait]
pub trait Messenger: Send + Sync {
    /// Whether it never tells anything: then nothing is waited for either.
    fn is_silent(&self) -> bool;

    /// Whether everything that it may have to tell of a plan's runs can be told.
    ///
    /// # Errors
    /// A sentence: a template that speaks of what a run of this plan does not have.
    fn check(&self, plan: &Plan) -> Result<(), String>;

    /// What is told of an occasion, to whom. `more` tells this occasion from others of its kind in the same run, if there
    /// can be several: the step that failed, and its attempt.
    fn compose(&self, occasion: Occasion, more: Option<&str>, scene: &Scene) -> Vec<Notice>;

    /// The updates that are promised while a run goes this way.
    fn promise(&self, direction: Direction) -> Option<Promise>;

    /// Delivers a notice, within a time of its own. Returns what the receiver answered, in a few words.
    ///
    /// # Errors
    /// Why it was not delivered, in a sentence without secrets.
    async fn deliver(&self, notice: &Notice) -> Result<String, String>;
}

/// Tells nobody anything: a project without channels, and a rehearsal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

#[async_trait]
impl Messenger for Silent {
    fn is_silent(&self) -> bool {
        true
    }

    fn check(&self, _plan: &Plan) -> Result<(), String> {
        Ok(())
    }

    fn compose(&self, _occasion: Occasion, _more: Option<&str>, _scene: &Scene) -> Vec<Notice> {
        Vec::new()
    }

    fn promise(&self, _direction: Direction) -> Option<Promise> {
        None
    }

    async fn deliver(&self, _notice: &Notice) -> Result<String, String> {
        Err("there is no channel".to_owned())
    }
}
