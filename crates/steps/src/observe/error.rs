//! What can go wrong with an observation.

use pgrunbook_engine::StepError;

/// Why an observation did not pass. What it watched is as it was: it only looks.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    #[error("{}. Nothing was changed by looking.", .why.join("; "))]
    Failed { why: Vec<String> },
    #[error("inconclusive after {rounds} samples: {}. What was not seen is not counted as good.", .why.join("; "))]
    Inconclusive { rounds: usize, why: Vec<String> },
    #[error("stopped after {rounds} samples, which are kept")]
    Stopped { rounds: usize },
    #[error("step `{step}` recorded no baseline for {}", .metrics.join(", "))]
    NoBaseline { step: String, metrics: Vec<String> },
    #[error("metric `{metric}` cannot be asked here: {why}")]
    Wrong { metric: String, why: String },
    #[error("the notes of this step cannot be read: {0}")]
    Notes(String),
}

impl From<ObserveError> for StepError {
    fn from(error: ObserveError) -> Self {
        let text = error.to_string();
        let step = match &error {
            ObserveError::Failed { .. } => Self::failed("observation", text)
                .help("look at the chart in `pgrunbook report`; resume to watch a new window, or roll back"),
            ObserveError::Inconclusive { .. } => Self::waiting("inconclusive", text)
                .help("mend what is not seen, then resume: the samples are kept, and the window is made longer"),
            ObserveError::Stopped { .. } => Self::interrupted(text),
            ObserveError::NoBaseline { .. } => Self::unusable("no-baseline", text)
                .help("an `observe` step with `capture = true` and these metrics must be done before the change"),
            ObserveError::Wrong { .. } => Self::failed("metric", text).help("mend the metric, then plan again"),
            ObserveError::Notes(_) => Self::unusable("notes", text),
        };
        step.source(error)
    }
}
