//! What the journal says of earlier runs of a content: was it rehearsed, did it go through another environment, did it
//! come back from there.

use jiff::Timestamp;

use super::{Demand, DemandName, Remedy, Standing};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::EndState;
use crate::plan::Plan;
use crate::state::RunState;

/// A run of the journal, as far as a demand asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    pub run: String,
    pub runbook: String,
    pub environment: String,
    pub content_digest: String,
    pub rehearsal: bool,
    /// Whether it went forward to its end.
    pub completed: bool,
    /// Whether it went back to the beginning after that.
    pub went_back: bool,
    pub begun: Timestamp,
}

impl Engine {
    /// Every run of the journal that can be read, newest first.
    pub(crate) async fn past(&self) -> Result<Vec<Past>, EngineError> {
        let mut past = Vec::new();
        for run in self.journal.runs().await? {
            // A run of another version, or a broken one, is no rehearsal; and no reason to refuse this plan.
            let Ok(events) = self.journal.read(&run).await else { continue };
            let Some(begun) = events.first().map(|event| event.at) else { continue };
            let Ok(state) = RunState::fold(&events) else { continue };
            past.push(Past {
                run,
                runbook: state.plan.runbook.clone(),
                environment: state.plan.environment.clone(),
                content_digest: state.plan.content_digest.clone(),
                rehearsal: state.rehearsal,
                completed: state.completed,
                went_back: state.completed && state.ended == Some(EndState::RolledBack),
                begun,
            });
        }
        Ok(past)
    }
}

/// How the demand stands that this content was rehearsed on a throwaway server.
pub(super) fn rehearsal(plan: &Plan, past: &[Past]) -> Demand {
    let found = past.iter().filter(|one| one.rehearsal);
    let mut same = found.clone().filter(|one| one.content_digest == plan.content_digest);
    let standing = match same.clone().find(|one| one.went_back) {
        Some(one) => Standing::Held(format!("{} of {}", one.run, day(one.begun))),
        None => {
            let other = || found.clone().find(|one| one.runbook == plan.runbook);
            let found = match (same.next(), other()) {
                (Some(one), _) => format!("{} of {} did not go forward and back to its end", one.run, day(one.begun)),
                (None, Some(one)) => {
                    format!(
                        "{} of {} was of other content (digest {})",
                        one.run,
                        day(one.begun),
                        short(&one.content_digest)
                    )
                }
                (None, None) => "there is none in the journal".to_owned(),
            };
            Standing::Missing { found, remedy: Remedy::Rehearse }
        }
    };
    let demanded =
        format!("a rehearsal of this content (digest {}) that went forward and back", short(&plan.content_digest));
    Demand { name: DemandName::Rehearsal, demanded, standing }
}

/// How the demand stands that this content went through another environment, and back if `back`.
pub(super) fn in_environment(plan: &Plan, past: &[Past], environment: &str, back: bool) -> Demand {
    let there = past.iter().filter(|one| !one.rehearsal && one.environment == environment);
    let same: Vec<&Past> = there.clone().filter(|one| one.content_digest == plan.content_digest).collect();
    let completed = same.iter().find(|one| one.completed);
    let returned = same.iter().find(|one| one.went_back);
    let run_there = || Remedy::RunIn { environment: environment.to_owned() };
    let named = |one: &Past| format!("{} of {}", one.run, day(one.begun));
    let standing = match (completed, returned) {
        (Some(one), None) if back => Standing::Missing {
            found: format!("{} completed there and never went back", named(one)),
            remedy: Remedy::RollBackIn { environment: environment.to_owned(), run: one.run.clone() },
        },
        (Some(_), Some(one)) if back => Standing::Held(format!("{} completed there and went back", named(one))),
        (Some(one), _) => Standing::Held(format!("{} completed there", named(one))),
        (None, _) => {
            let other = || there.clone().find(|one| one.runbook == plan.runbook);
            let found = match (same.first(), other()) {
                (Some(one), _) => format!("{} there did not come to its end", named(one)),
                (None, Some(one)) => format!(
                    "{} there was of other content (digest {}): something was edited since",
                    named(one),
                    short(&one.content_digest)
                ),
                (None, None) => format!("the journal has no run of {} there", plan.runbook),
            };
            Standing::Missing { found, remedy: run_there() }
        }
    };
    let and_back = if back { " and wholly back" } else { "" };
    let demanded = format!(
        "a run of this content (digest {}) in `{environment}` to its end{and_back}",
        short(&plan.content_digest)
    );
    Demand { name: DemandName::RehearsedIn, demanded, standing }
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
