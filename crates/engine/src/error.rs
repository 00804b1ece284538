//! What can keep a plan from being made or a run from going on. In all of these no effect was begun.

use pgrunbook_document::{Diagnostic, StepId};

use crate::demand::Demand;
use crate::journal::JournalError;
use crate::plan::Moved;
use crate::step::{Failure, StepError};

/// Why the engine did not begin, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the runbook has {} that must be put right first", errors(.0.len()))]
    Document(Vec<Diagnostic>),
    #[error("no value for {}", list(.0))]
    MissingVariables(Vec<String>),
    #[error("the runbook declares no variable {}", list(.0))]
    UnknownVariables(Vec<String>),
    #[error("this runbook may only run in {}, not in `{environment}`", list(.allowed))]
    WrongEnvironment { environment: String, allowed: Vec<String> },
    #[error("the project has no target `{0}` in this environment")]
    UnknownTarget(String),
    #[error("step `{step}`: {source}")]
    Step { step: StepId, source: Box<StepError> },
    #[error("target `{target}`: {source}")]
    Target { target: String, source: Box<StepError> },
    #[error("the plan does not fit any more: {}", moved(.0))]
    Moved(Vec<Moved>),
    #[error("step `{step}` could not run now: {why}")]
    Blocked { step: StepId, why: String },
    #[error("environment `{environment}` demands {}", demanded(.missing))]
    Demands { environment: String, runbook: String, missing: Vec<Demand> },
    #[error("environment `{environment}` can not be overridden: {why}; nothing was touched")]
    Override { environment: String, why: String },
    #[error("the confirmation text is not right: environment `{environment}` demands exactly \"{wanted}\"")]
    NotConfirmed { environment: String, wanted: String },
    #[error("environment `{0}` is protected: checklist items cannot be answered in advance there")]
    AnswersRefused(String),
    #[error("approval by {principal} does not count: {why}")]
    Approval { principal: String, why: String },
    #[error("the sign-off by {principal} does not count: {why}")]
    SignOff { principal: String, why: String },
    #[error("the review by {principal} does not count: {why}")]
    Closing { principal: String, why: String },
    #[error("people could not be told of its runs: {0}")]
    Notices(String),
    #[error("there is no run `{0}`")]
    NoSuchRun(String),
    #[error("run {run} has ended ({how}); begin a new one")]
    Ended { run: String, how: &'static str },
    #[error("run {run} is going back on path `{path}`; it cannot go forward again")]
    GoingBack { run: String, path: String },
    #[error("rollback path `{path}` is not open: {why}")]
    PathClosed { path: String, why: String },
    #[error("the runbook has no rollback path `{0}`")]
    NoSuchPath(String),
    #[error("no decision is open on step `{0}`")]
    NothingToDecide(StepId),
    #[error("run {run} was written in format {found}; this pgrunbook knows up to {known}: nothing was touched")]
    NewerFormat { run: String, found: u32, known: u32 },
    #[error("the plan is of format {found}; this pgrunbook knows up to {known}: nothing was touched")]
    NewerPlan { found: u32, known: u32 },
    #[error("step `{step}` of the frozen plan reads differently in this version of pgrunbook: nothing was touched")]
    ReadsDifferently { step: StepId },
    #[error("the folder {folder} for the run's files cannot be made: {why}")]
    Artifacts { folder: String, why: String },
    #[error("the journal lives in the cluster of target `{target}`, which this runbook changes: nothing was touched")]
    JournalInTarget { target: String },
    #[error(transparent)]
    Journal(JournalError),
}

impl From<JournalError> for EngineError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Newer { run, found, known } => Self::NewerFormat { run, found, known },
            error => Self::Journal(error),
        }
    }
}

impl EngineError {
    pub(crate) fn of_step(step: &StepId, source: StepError) -> Self {
        Self::Step { step: step.clone(), source: Box::new(nothing_begun(source)) }
    }

    pub(crate) fn of_target(target: &str, source: StepError) -> Self {
        Self::Target { target: target.to_owned(), source: Box::new(nothing_begun(source)) }
    }
}

/// A step calls a lost connection a doubt, since it cannot know what it was asked for; here no effect was begun, and so there
/// is none.
fn nothing_begun(error: StepError) -> StepError {
    if error.failure != Failure::InDoubt {
        return error;
    }
    let help = error.help.or_else(|| Some("say it again once the server answers".to_owned()));
    let message = format!("{}. Nothing was changed.", error.message.trim_end_matches('.'));
    StepError { failure: Failure::Unusable, message, help, ..error }
}

fn errors(count: usize) -> String {
    if count == 1 { "one error".to_owned() } else { format!("{count} errors") }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn moved(moved: &[Moved]) -> String {
    moved.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn demanded(missing: &[Demand]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; and ")
}
