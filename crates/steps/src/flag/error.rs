//! What can go wrong with a flag.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;

use crate::switch::SwitchError;

/// Why a flag was not set, or not put back.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    #[error("flag `{flag}` in {place}: {why}. It was not set.")]
    Place { flag: String, place: String, why: String },
    #[error(
        "flag `{flag}` in {place} is {found}, and this step left it at {left}: somebody else set it. It was left as they \
         set it."
    )]
    Changed { flag: String, place: String, found: String, left: String },
    #[error(
        "flag `{flag}` in {place} is switched off, and a ramp does not switch on what somebody switched off. Nothing was set."
    )]
    Killed { flag: String, place: String },
    #[error("stage {percent} % of flag `{flag}` did not hold: {}. The flag is back at {back}.", .why.join("; "))]
    Gate { flag: String, percent: f64, back: String, why: Vec<String> },
    #[error(
        "stage {percent} % of flag `{flag}` stayed inconclusive: {}. What was not seen is not counted as good; the flag is \
         back at {back}.",
        .why.join("; ")
    )]
    Inconclusive { flag: String, percent: f64, back: String, why: Vec<String> },
    #[error(transparent)]
    File(#[from] SwitchError),
    #[error(transparent)]
    Server(#[from] PgError),
}

impl From<FlagError> for StepError {
    fn from(error: FlagError) -> Self {
        let text = error.to_string();
        let step = match error {
            FlagError::Server(error) => return error.into_step_error(),
            FlagError::File(error) => return error.into(),
            FlagError::Place { .. } => Self::unusable("flag", text),
            FlagError::Changed { .. } => Self::failed("flag-changed", text)
                .help("find out who set it and why; then resume, or set it back by hand and roll back"),
            FlagError::Killed { .. } => Self::failed("flag-killed", text)
                .help("find out who did and why; switch it on with a share of 0 (a `flag` step before the ramp can), then resume"),
            FlagError::Gate { .. } => Self::failed("ramp", text)
                .help("look at the chart in `pgrunbook report`; resume to try again from there, or roll back"),
            FlagError::Inconclusive { .. } => Self::failed("ramp-inconclusive", text)
                .help("mend what is not seen, then resume: the ramp goes on from where the flag stands"),
        };
        step.source(error)
    }
}
