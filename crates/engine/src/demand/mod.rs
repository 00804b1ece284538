//! What an environment demands before the first change of any forward run there, and how it stands.
//!
//! Each demand is looked at anew whenever a call is about to begin; going back demands nothing. A person whom the
//! environment lets do so may override a demand, for the call they say it with and with a reason; that is an event of the
//! journal, and stays open to be reviewed.

mod rehearsed;
pub mod window;

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::gate;
use crate::plan::Plan;
use crate::run::RunOptions;
use crate::state::RunState;
use crate::step::StepError;
use window::{Window, Windows};

/// Which demand. Stands in the journal by this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DemandName {
    /// The content went forward and back on a throwaway server.
    Rehearsal,
    /// It went through another environment.
    RehearsedIn,
    /// What is deployed leaves a row in a log of its target.
    DeploymentLog,
    /// It is a time at which the environment may be changed.
    Window,
    /// No incident is open.
    Incident,
    /// Enough people approved the plan.
    Approvals,
    /// The operator gave the exact text.
    Confirmation,
}

/// What can be overridden. The confirmation text is not among them: whoever overrides can type it; and neither is the
/// deployment log: whoever overrides can name one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overridable {
    /// Both the rehearsal and the run in another environment.
    Rehearsal,
    Window,
    Incident,
    Approvals,
}

/// A person's wish to go on without a demand, for one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    pub demand: Overridable,
    /// Who decided it and why, in a sentence.
    pub reason: String,
}

/// A demand, and how it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    pub name: DemandName,
    /// A noun: `2 approval(s) of this plan`.
    pub demanded: String,
    pub standing: Standing,
}

/// How a demand stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// By what.
    Held(String),
    /// What was found instead, and what to do about it.
    Missing { found: String, remedy: Remedy },
    /// What was found instead, and who goes on all the same.
    Overridden { found: String, by: String, reason: String },
}

/// What to do about a demand that is missing. The command is for the caller to name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    Rehearse,
    RunIn {
        environment: String,
    },
    RollBackIn {
        environment: String,
        run: String,
    },
    /// Name the log in the runbook.
    NameLog,
    /// Until the next window, if there is one.
    Wait {
        opens: Option<String>,
    },
    /// Close what is open.
    Resolve,
    /// Let the source of incidents answer.
    Reach,
    Approve,
    Confirm {
        wanted: String,
    },
}

/// A demand as it stood when a run was let begin: what the journal keeps. Format version 1, as the journal's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandRecord {
    pub name: DemandName,
    pub demanded: String,
    /// By what it was held; `null`: it was overridden, which is an event of its own.
    pub held: Option<String>,
}

/// Where open incidents are asked for.
#[async_trait]
pub trait Incidents: Send + Sync {
    /// What is asked, for people and without secrets: ``SQL on `main` ``.
    fn shown(&self) -> String;

    /// What is open now, one line for each.
    ///
    /// # Errors
    /// If it cannot be known. That is never the same as that nothing is open.
    async fn open(&self) -> Result<Vec<String>, StepError>;
}

impl DemandName {
    /// The word for it in tables and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rehearsal => "rehearsal",
            Self::RehearsedIn => "rehearsed in",
            Self::DeploymentLog => "deployment log",
            Self::Window => "window",
            Self::Incident => "incident",
            Self::Approvals => "approvals",
            Self::Confirmation => "confirmation",
        }
    }

    /// Whether it is known before a run is begun; the others are asked for when it is.
    fn is_known_before(self) -> bool {
        match self {
            Self::Rehearsal | Self::RehearsedIn | Self::DeploymentLog | Self::Window | Self::Incident => true,
            Self::Approvals | Self::Confirmation => false,
        }
    }
}

impl Overridable {
    /// Whether overriding this overrides that.
    pub fn covers(self, demand: DemandName) -> bool {
        match self {
            Self::Rehearsal => matches!(demand, DemandName::Rehearsal | DemandName::RehearsedIn),
            Self::Window => demand == DemandName::Window,
            Self::Incident => demand == DemandName::Incident,
            Self::Approvals => demand == DemandName::Approvals,
        }
    }
}

impl Demand {
    /// Whether nothing keeps the run from going on as far as this goes.
    pub fn is_met(&self) -> bool {
        !matches!(self.standing, Standing::Missing { .. })
    }

    /// What the journal keeps of it.
    pub(crate) fn record(&self) -> DemandRecord {
        let held = match &self.standing {
            Standing::Held(by) => Some(by.clone()),
            Standing::Missing { .. } | Standing::Overridden { .. } => None,
        };
        DemandRecord { name: self.name, demanded: self.demanded.clone(), held }
    }
}

/// `2 approval(s) of this plan: 1 is there (bert)`.
impl std::fmt::Display for Demand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Standing::Held(found) | Standing::Missing { found, .. } | Standing::Overridden { found, .. }) =
            &self.standing;
        write!(f, "{}: {found}", self.demanded)
    }
}

/// Those that are missing and known before a run is begun.
pub(crate) fn missing_before(demands: &[Demand]) -> Vec<Demand> {
    demands.iter().filter(|demand| demand.name.is_known_before() && !demand.is_met()).cloned().collect()
}

/// Open incidents that are named; the others are counted.
const SHOWN_INCIDENTS: usize = 10;

/// Fewer words or letters than these say nothing: `urgent`, `see above`, `x x x`.
const REASON_WORDS: usize = 3;
const REASON_LETTERS: usize = 12;

impl Engine {
    /// Every demand of the environment on a plan, and how it stands now, with what `options` bring (approvals, the
    /// confirmation text, overrides). Changes nothing, and asks nobody but the journal, the clock and the source of
    /// incidents. Empty: the environment demands nothing.
    ///
    /// # Errors
    /// If the journal cannot be read, or an override is not allowed.
    pub async fn demands(&self, plan: &Plan, options: &RunOptions) -> Result<Vec<Demand>, EngineError> {
        self.standing(plan, None, options).await
    }

    /// The same for a run, with what its journal has.
    pub(crate) async fn standing(
        &self,
        plan: &Plan,
        state: Option<&RunState>,
        options: &RunOptions,
    ) -> Result<Vec<Demand>, EngineError> {
        self.may_override(options)?;
        let environment = &self.environment;
        let mut demands = Vec::new();
        // A rehearsal cannot have had one. Its own environment demands nothing; the others are for whoever resumes it in one
        // that does.
        let is_rehearsal = state.is_some_and(|state| state.rehearsal);
        if !is_rehearsal && (environment.rehearsal_required || environment.rehearsed_in.is_some()) {
            let past = self.past().await?;
            if environment.rehearsal_required {
                demands.push(rehearsed::rehearsal(plan, &past));
            }
            if let Some(other) = &environment.rehearsed_in {
                demands.push(rehearsed::in_environment(plan, &past, other, environment.rehearsed_back));
            }
        }
        demands.extend(self.deployment_log(plan));
        demands.extend(self.window());
        demands.extend(self.incident().await);
        demands.extend(gate::approvals(self, plan, state, options));
        demands.extend(self.confirmation(state, options));
        for demand in &mut demands {
            self.overridden(demand, options);
        }
        Ok(demands)
    }

    fn deployment_log(&self, plan: &Plan) -> Option<Demand> {
        if !self.environment.deployment_log_required {
            return None;
        }
        let logs = plan.deployment_logs();
        let silent: Vec<_> =
            logs.iter().filter(|(_, logs)| logs.is_empty()).map(|(name, _)| format!("`{name}`")).collect();
        let standing = if logs.is_empty() {
            Standing::Held("no step deploys".to_owned())
        } else if silent.is_empty() {
            let shown = |(target, logs): (&&str, &BTreeSet<&str>)| {
                logs.iter().map(|log| format!("{log} on `{target}`")).collect::<Vec<_>>().join(", ")
            };
            Standing::Held(logs.iter().map(shown).collect::<Vec<_>>().join(", "))
        } else {
            let found = format!("no step leaves one on {}", silent.join(", "));
            Standing::Missing { found, remedy: Remedy::NameLog }
        };
        let demanded = "a row in the target's deployment log, committed with the change".to_owned();
        Some(Demand { name: DemandName::DeploymentLog, demanded, standing })
    }

    fn window(&self) -> Option<Demand> {
        let windows: &[Window] = &self.environment.windows;
        if windows.is_empty() {
            return None;
        }
        let now = self.clock.now();
        let standing = match Windows::at(windows, now) {
            Windows::Open { until: None } => Standing::Held("open".to_owned()),
            Windows::Open { until: Some(end) } => {
                let (left, end) = (window::until(&end, now), window::shown(&end));
                Standing::Held(format!("open until {end}, {left} left"))
            }
            Windows::Closed { next } => {
                let opens = next.map(|next| (window::shown(&next), window::until(&next, now)));
                let found = match &opens {
                    Some((next, left)) => format!("closed; the next opens {next}, in {left}"),
                    None => "closed, and none opens within two weeks".to_owned(),
                };
                Standing::Missing { found, remedy: Remedy::Wait { opens: opens.map(|(next, _)| next) } }
            }
        };
        let texts: Vec<_> = windows.iter().map(|window| format!("`{}`", window.text())).collect();
        Some(Demand { name: DemandName::Window, demanded: format!("a window ({})", texts.join(", ")), standing })
    }

    async fn incident(&self) -> Option<Demand> {
        let source = self.incidents.as_ref()?;
        let shown = source.shown();
        let standing = match source.open().await {
            Ok(open) if open.is_empty() => Standing::Held(format!("none is open, says {shown}")),
            Ok(open) => {
                let first: Vec<_> = open.iter().take(SHOWN_INCIDENTS).map(String::as_str).collect();
                let found = self.redactor.redact(&first.join("; ")).into_owned();
                Standing::Missing { found: format!("{} open: {found}", open.len()), remedy: Remedy::Resolve }
            }
            Err(error) => {
                let why = self.redactor.redact(&error.message).into_owned();
                let found = format!("it cannot be known whether one is open: {shown}: {why}");
                Standing::Missing { found, remedy: Remedy::Reach }
            }
        };
        Some(Demand { name: DemandName::Incident, demanded: "no open incident".to_owned(), standing })
    }

    fn confirmation(&self, state: Option<&RunState>, options: &RunOptions) -> Option<Demand> {
        let wanted = self.environment.confirm.as_ref()?;
        let standing = if state.is_some_and(|state| state.confirmed) || options.confirmation.as_ref() == Some(wanted) {
            Standing::Held("given".to_owned())
        } else {
            let found = if options.confirmation.is_some() { "another text was given" } else { "not given" };
            Standing::Missing { found: found.to_owned(), remedy: Remedy::Confirm { wanted: wanted.clone() } }
        };
        let demanded = format!("the text \"{wanted}\"");
        Some(Demand { name: DemandName::Confirmation, demanded, standing })
    }

    /// Turns a demand that is missing into one that is overridden, if it is.
    fn overridden(&self, demand: &mut Demand, options: &RunOptions) {
        let Standing::Missing { found, .. } = &demand.standing else { return };
        let Some(wish) = options.overrides.iter().find(|wish| wish.demand.covers(demand.name)) else { return };
        demand.standing = Standing::Overridden {
            found: found.clone(),
            by: self.operator.principal.clone(),
            reason: self.redactor.redact(wish.reason.trim()).into_owned(),
        };
    }

    /// Refuses overrides by somebody who may not, or that give no reason. Asked also where the demand is held: nobody
    /// learns only in an emergency that they may not.
    fn may_override(&self, options: &RunOptions) -> Result<(), EngineError> {
        if options.overrides.is_empty() {
            return Ok(());
        }
        let (environment, who) = (&self.environment, &self.operator.principal);
        let refused = |why: String| Err(EngineError::Override { environment: environment.name.clone(), why });
        if environment.override_roles.is_empty() {
            return refused("it allows nobody to".to_owned());
        }
        if !self.people.roles_of(who).any(|role| environment.override_roles.contains(role)) {
            let roles: Vec<_> = environment.override_roles.iter().cloned().collect();
            return refused(format!("{who} holds none of the roles that may ({})", roles.join(", ")));
        }
        match options.overrides.iter().find(|wish| !says_something(&wish.reason)) {
            Some(wish) => refused(format!("\"{}\" is no reason", wish.reason.trim())),
            None => Ok(()),
        }
    }
}

/// Whether a reason is one.
pub(crate) fn says_something(reason: &str) -> bool {
    let words: BTreeSet<_> = reason.split_whitespace().collect();
    words.len() >= REASON_WORDS && reason.chars().filter(|c| c.is_alphabetic()).count() >= REASON_LETTERS
}
