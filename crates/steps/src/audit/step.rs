//! The block: `audit = "apart"`, `target = "main"`, `level = "warning"`.

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::PgError;
use serde::Deserialize;

use super::finding::Severity;
use super::{audit, render};
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::topology::{completed, today};
use crate::workplace::Workplace;

/// The kind `audit`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "audit",
        language: Language::Toml,
        summary: "Reads off the catalogs what every role really reaches, and is a gate: nothing that is not declared.",
        fields: &[FieldSpec {
            name: "level",
            about: "The least that fails: `error`, `warning` or `note`; `warning` if nothing is said.",
            required: false,
        }],
        needs_target: true,
        changes: false,
        undo_words: &[],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "audit")]
    _id: String,
    #[serde(default)]
    level: Level,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Error,
    #[default]
    Warning,
    Note,
}

/// Reads off the catalogs what every role really reaches.
///
/// Effect: idempotent (it only reads). Undo: not needed.
struct Audited {
    workplace: Workplace,
    target: String,
    level: Severity,
}

/// As many are told in the message; all are in the evidence.
const TOLD: usize = 3;

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let level = match fields.level {
        Level::Error => Severity::Error,
        Level::Warning => Severity::Warning,
        Level::Note => Severity::Note,
    };
    Ok(Box::new(Audited { workplace: workplace.clone(), target: required_target(block)?, level }))
}

impl Step for Audited {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let topology = self.workplace.topology()?;
            Ok(Change {
                summary: format!(
                    "audit {} roles and {} schemas against {}",
                    topology.roles.len(),
                    topology.schemas.len(),
                    topology.source
                ),
                files: topology.files.clone(),
                ..Change::default()
            })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let topology = self.workplace.topology()?;
            let name = format!("pgrunbook:{}:{}", cx.run, cx.step);
            let session = self.workplace.session(&self.target, &name).await?;
            // A read that was cut off changed nothing.
            let failed = |error: PgError| match error {
                PgError::Lost { .. } => StepError::failed("connection-lost", format!("{error}. Nothing was changed.")),
                error => error.into_step_error(),
            };
            let topology = completed(&session, topology).await?;
            let audited = audit(&session, &topology, today(cx.clock)).await.map_err(failed)?;
            self.workplace.give_back(session).await;
            let counted = render::counted(&audited);
            let evidence = Evidence::of(counted.clone())
                .fact("finding_count", audited.findings.len())
                .fact("findings", render::findings(&audited))
                .fact("examined", render::examined(&audited));
            let failing: Vec<_> = audited.at_least(self.level).collect();
            if failing.is_empty() {
                return Ok(evidence);
            }
            let told: Vec<String> = failing.iter().take(TOLD).map(|one| one.path.clone()).collect();
            let more = failing.len().saturating_sub(TOLD);
            let more = if more == 0 { String::new() } else { format!("; and {more} more") };
            Err(StepError::failed("gate", format!("{counted}: {}{more}", told.join("; ")))
                .help(format!(
                    "`pgrunbook audit --target {}` shows every finding, with the SQL that mends it",
                    self.target
                ))
                .evidence(evidence))
        })
    }
}
