//! What an environment demands, for people: how each demand stands, and what to do about it.

use std::fmt::Write as _;

use pgrunbook_engine::{Demand, DemandName, Overridable, Override, Remedy, Standing};
use pgrunbook_steps::typed::quoted;
use serde_json::{Value, json};

use crate::args::OverrideDemand;
use crate::console::paint;
use crate::failure::Failure;

/// What a person goes on without: each demand with its reason, or one reason for all.
pub fn overrides(demands: &[OverrideDemand], reasons: &[String]) -> Result<Vec<Override>, Failure> {
    let reason = |at: usize| match reasons {
        [one] => Some(one),
        reasons if reasons.len() == demands.len() => reasons.get(at),
        _ => None,
    };
    demands
        .iter()
        .enumerate()
        .map(|(at, demand)| {
            let demand = match demand {
                OverrideDemand::Window => Overridable::Window,
                OverrideDemand::Incident => Overridable::Incident,
                OverrideDemand::Rehearsal => Overridable::Rehearsal,
                OverrideDemand::Approvals => Overridable::Approvals,
            };
            match reason(at) {
                Some(reason) => Ok(Override { demand, reason: reason.clone() }),
                None => Err(Failure::unusable(
                    "override",
                    format!("{} demands are overridden, and {} reasons are given", demands.len(), reasons.len()),
                )
                .help("give one --reason for all, or one behind each --override")),
            }
        })
        .collect()
}

/// What to do about a demand that is missing; `None`: nothing is missing. `runbook`: its path, for commands.
pub fn remedy(demand: &Demand, runbook: &str) -> Option<String> {
    let Standing::Missing { remedy, .. } = &demand.standing else { return None };
    let runbook = quoted(runbook);
    Some(match remedy {
        Remedy::Rehearse => {
            format!("`pgrunbook rehearse {runbook}` runs it forward and back on a throwaway server")
        }
        Remedy::RunIn { environment } => {
            format!("`pgrunbook run {runbook} --environment {}`", quoted(environment))
        }
        Remedy::RollBackIn { environment, run } => {
            format!(
                "`pgrunbook rollback {run} --environment {}`, or a run there that goes forward and back",
                quoted(environment)
            )
        }
        Remedy::NameLog => {
            "name the log in a `migrate` step of that target: deployment_log = \"schema.table\"".to_owned()
        }
        Remedy::Wait { opens: Some(opens) } => format!("wait until {opens}"),
        Remedy::Wait { opens: None } => "name a window in pgrunbook.toml: `windows`".to_owned(),
        Remedy::Resolve => "close the incidents".to_owned(),
        Remedy::Reach => {
            "let the source of incidents answer: `incidents` in pgrunbook.toml says what is asked".to_owned()
        }
        Remedy::Approve => format!(
            "`pgrunbook plan {runbook} --out plan.json`, and each approver `pgrunbook approve plan.json --as NAME --key KEY`"
        ),
        Remedy::Confirm { wanted } => format!("--confirm {}", quoted(wanted)),
    })
}

/// The word to override a demand with, if it can be.
fn override_word(name: DemandName) -> Option<&'static str> {
    match name {
        DemandName::Rehearsal | DemandName::RehearsedIn => Some("rehearsal"),
        DemandName::Window => Some("window"),
        DemandName::Incident => Some("incident"),
        DemandName::Approvals => Some("approvals"),
        DemandName::Confirmation | DemandName::DeploymentLog => None,
    }
}

/// All demands, one under the other. `may_override`: whether the environment lets anybody override.
pub fn listed(demands: &[Demand], runbook: &str, may_override: bool, colour: bool) -> String {
    let mut text = String::new();
    for demand in demands {
        let (mark, found) = match &demand.standing {
            Standing::Held(by) => (paint(colour, "32", "✓"), by.clone()),
            Standing::Missing { found, .. } => (paint(colour, "31", "✗"), found.clone()),
            Standing::Overridden { found, by, reason } => {
                (paint(colour, "1;31", "!"), format!("OVERRIDDEN by {by}: {reason} (found: {found})"))
            }
        };
        let _ = writeln!(text, "  {mark} {}: {found}", demand.demanded);
        if let Some(remedy) = remedy(demand, runbook) {
            let _ = writeln!(text, "      {}", paint(colour, "2", &remedy));
            if let Some(word) = override_word(demand.name).filter(|_| may_override) {
                let or = format!("or, with a role that may: --override {word} --reason \"who decided it and why\"");
                let _ = writeln!(text, "      {}", paint(colour, "2", &or));
            }
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// The same as data.
pub fn values(demands: &[Demand], runbook: &str) -> Vec<Value> {
    let one = |demand: &Demand| {
        let (standing, found, by, reason) = match &demand.standing {
            Standing::Held(found) => ("held", found, None, None),
            Standing::Missing { found, .. } => ("missing", found, None, None),
            Standing::Overridden { found, by, reason } => ("overridden", found, Some(by), Some(reason)),
        };
        json!({
            "demand": demand.name, "demanded": demand.demanded, "standing": standing, "found": found,
            "by": by, "reason": reason, "remedy": remedy(demand, runbook),
        })
    };
    demands.iter().map(one).collect()
}

/// What a run that was begun waits for.
pub fn waiting(environment: &str, runbook: &str, missing: &[Demand]) -> String {
    let listed = listed(missing, runbook, false, false);
    format!("Waiting: environment `{environment}` demands, before the first change:\n{listed}")
}
