//! The block: `approve = "release"`, `count = 2`, `roles = ["dba"]`.

use std::collections::BTreeSet;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;

use crate::registry::{Kind, bound_fields, fields};
use crate::workplace::Workplace;

/// The kind `approve`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "approve",
        language: Language::Toml,
        summary: "Waits until people have approved this plan.",
        fields: &[
            FieldSpec { name: "count", about: "How many different people; 1 if nothing is said.", required: false },
            FieldSpec { name: "roles", about: "Roles of which each must be held by one of them.", required: false },
        ],
        needs_target: false,
        changes: false,
        undo_words: &[],
        check: |block| fields::<Approve>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Waits until people have approved this plan.
///
/// Effect: idempotent (it only counts). Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    #[serde(rename = "approve")]
    _id: String,
    #[serde(default = "one")]
    count: usize,
    #[serde(default)]
    roles: BTreeSet<String>,
}

fn one() -> usize {
    1
}

fn build(block: &Block, _workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Approve = bound_fields(block)?;
    if fields.count == 0 {
        return Err(StepError::unusable("bad-value", format!("step `{}`: an approval by nobody is none", block.id)));
    }
    Ok(Box::new(fields))
}

impl Step for Approve {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(
            async move { Ok(Change { summary: format!("wait for {}", self.wanted(self.count)), ..Change::default() }) },
        )
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let people: BTreeSet<&str> = cx.approvals.iter().map(|approval| approval.principal.as_str()).collect();
            let held = |role: &String| cx.approvals.iter().any(|approval| approval.roles.contains(role));
            let roles_missing: Vec<&String> = self.roles.iter().filter(|role| !held(role)).collect();
            let missing = self.count.saturating_sub(people.len()).max(usize::from(!roles_missing.is_empty()));
            if missing > 0 {
                let message = format!("{} approved; {} still missing", people.len(), self.wanted(missing));
                return Err(StepError::waiting("approval-missing", message).help(format!(
                    "an approver runs `pgrunbook approve {}`; then `pgrunbook resume {}`",
                    cx.run, cx.run
                )));
            }
            let names: Vec<&str> = people.into_iter().collect();
            Ok(Evidence::of(format!("approved by {}", names.join(", "))).fact("approvers", names))
        })
    }
}

impl Approve {
    fn wanted(&self, count: usize) -> String {
        let plural = if count == 1 { "approval" } else { "approvals" };
        if self.roles.is_empty() {
            format!("{count} {plural}")
        } else {
            let roles: Vec<&str> = self.roles.iter().map(String::as_str).collect();
            format!("{count} {plural}, with {} among them", roles.join(" and "))
        }
    }
}
