//! The block: `isolation = "tenants-apart"`, `target = "main"`.

use std::collections::BTreeSet;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::evidence::matrix::FACT;
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;

use super::matrix::{Action, Finding, Matrix, Verdict};
use super::prove::{How, STATEMENT_TIMEOUT, prove};
use crate::redis;
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::topology::today;
use crate::workplace::{Place, Workplace};

/// The kind `isolation`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "isolation",
        language: Language::Toml,
        summary: "Tries, as every declared role, what it can really do, and is a gate: everything must be as declared.",
        fields: &[
            FieldSpec {
                name: "all_objects",
                about: "`true`: tries each object, and not one for each kind and pattern of privileges.",
                required: false,
            },
            FieldSpec {
                name: "roles",
                about: "Only these roles; all that are declared if none is named.",
                required: false,
            },
            FieldSpec {
                name: "schemas",
                about: "Only these schemas, and those that each role may use, as controls.",
                required: false,
            },
            FieldSpec {
                name: "inconclusive",
                about: "`allow`: what could not be decided does not fail the step; else `deny`.",
                required: false,
            },
        ],
        needs_target: true,
        changes: false,
        undo_words: &[],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Whether a step may pass with what could not be decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Undecided {
    #[default]
    Deny,
    Allow,
}

/// Proves a topology by trying.
///
/// Effect: idempotent, since everything that is tried is taken back. Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[expect(dead_code, reason = "read by the parser as the step's id")]
    isolation: String,
    #[serde(default)]
    all_objects: bool,
    #[serde(default)]
    roles: BTreeSet<String>,
    #[serde(default)]
    schemas: BTreeSet<String>,
    #[serde(default)]
    inconclusive: Undecided,
}

struct Isolation {
    target: String,
    fields: Fields,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let target = required_target(block)?;
    if let Ok(Place::Redis(_)) = workplace.place(&target) {
        if fields.all_objects || !fields.roles.is_empty() || !fields.schemas.is_empty() {
            let message = format!("step `{}`: `all_objects`, `roles` and `schemas` are for PostgreSQL", block.id);
            return Err(StepError::unusable("bad-value", message));
        }
        return redis::build_isolation(block, fields.inconclusive, workplace);
    }
    Ok(Box::new(Isolation { target, fields, workplace: workplace.clone() }))
}

impl Step for Isolation {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let topology = self.workplace.topology()?;
            let roles = topology
                .bounded_roles()
                .filter(|role| self.fields.roles.is_empty() || self.fields.roles.contains(&role.name));
            let summary = format!("try {} roles on {} schemas", roles.count(), topology.schemas.len());
            Ok(Change { summary, files: topology.files.clone(), ..Change::default() })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let topology = self.workplace.topology()?;
            let options = self.workplace.postgres(&self.target)?;
            let some = |names: &BTreeSet<String>| (!names.is_empty()).then(|| names.clone());
            let name = format!("pgrunbook:{}:{}", cx.run, cx.step);
            let how = How {
                all_objects: self.fields.all_objects,
                roles: some(&self.fields.roles),
                schemas: some(&self.fields.schemas),
                today: today(cx.clock),
                // A reference that has no value here is no fault: the role is tried in another way, and the evidence says so.
                password: &|reference| self.workplace.role_password(reference).ok(),
                pooler: &|target| self.workplace.postgres(target).ok().cloned(),
                statement_timeout: STATEMENT_TIMEOUT,
                application_name: &name,
                cancel: cx.cancel,
                tell: &|done, total| cx.amount(done, Some(total), "roles"),
            };
            let matrix = prove(options, topology, &how).await?;
            gate(&matrix, self.fields.inconclusive)
        })
    }
}

/// What a matrix is in the evidence.
pub fn evidence(matrix: &Matrix) -> Evidence {
    let picture = serde_json::to_value(matrix.picture()).expect("texts and numbers");
    Evidence::of(matrix.summary())
        .fact(FACT, picture)
        .fact("checks", matrix.checks_json())
        .fact("coverage", matrix.coverage_json())
        .fact("proved", matrix.is_proved())
}

/// Whether everything is as declared, and decided as far as it must be.
pub fn passes(matrix: &Matrix, undecided: Undecided) -> bool {
    let none = |verdict| matrix.of(verdict).next().is_none();
    let decided = none(Verdict::Inconclusive) && matrix.by_real_roles();
    none(Verdict::Leaked) && none(Verdict::Broken) && (decided || undecided == Undecided::Allow)
}

/// Passes where everything is as declared.
///
/// # Errors
/// With the first of what is not, and the whole matrix as evidence.
pub fn gate(matrix: &Matrix, undecided: Undecided) -> Result<Evidence, StepError> {
    let evidence = evidence(matrix);
    if passes(matrix, undecided) {
        return Ok(evidence);
    }
    let [leaked, broken, unsure] =
        [Verdict::Leaked, Verdict::Broken, Verdict::Inconclusive].map(|verdict| first(matrix, verdict));
    let message = match leaked.or(broken).or(unsure) {
        Some(found) => {
            let tried = found.tried;
            let why = tried.why.as_ref().map_or_else(String::new, |why| format!("; {why}"));
            format!(
                "{} {}, {}: {} ({}{why}). {}. Nothing was changed",
                found.role,
                found.what,
                tried.object,
                tried.verdict.word(),
                tried.answer,
                matrix.summary()
            )
        }
        None => matrix.summary(),
    };
    let help = if leaked.is_some() {
        "`pgrunbook probe` lists each with its statement; revoke what was granted, or declare it"
    } else if broken.is_some() {
        "`pgrunbook probe` lists each with its statement; grant what is declared, or declare less"
    } else {
        "`pgrunbook probe` says why of each; give passwords by reference, fill empty tables, or `inconclusive = \"allow\"`"
    };
    Err(StepError::failed("isolation", message).help(help).evidence(evidence))
}

/// The one that is told of: what can be done in a schema says more than that it can be entered.
fn first(matrix: &Matrix, verdict: Verdict) -> Option<Finding<'_>> {
    matrix.of(verdict).find(|found| found.what != Action::Usage.word()).or_else(|| matrix.of(verdict).next())
}
