//! The block: `preflight = "ready"`, `from = "legacy_health"`, `target = "main"`, `schema = "health"`.

use pgrunbook_document::{Block, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};

use super::load::{ASKED, Asked, Fields};
use crate::registry::{Kind, fields};
use crate::transfer::{Finding, TransferError, blocking, to_json};
use crate::workplace::Workplace;

/// The kind `preflight`.
pub const PREFLIGHT: Kind = Kind {
    spec: KindSpec {
        name: "preflight",
        language: Language::Toml,
        summary: "Looks at both sides for everything that stands in the way of a transfer, at once, and is a gate.",
        fields: ASKED,
        needs_target: true,
        changes: false,
        undo_words: &[],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Looks before anything is changed.
///
/// Effect: idempotent, it only reads. Undo: not needed.
struct Preflight(Asked);

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    Ok(Box::new(Preflight(Asked::of(block, workplace)?)))
}

impl Step for Preflight {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let summary =
                format!("look whether {} can move into {} of {}", self.0.spec.from, self.0.schema, self.0.target);
            Ok(Change { summary, ..Change::default() })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let findings = self.0.loader(cx.run, cx.operator, cx.cancel, cx.step, cx.watcher).look().await?;
            let refused: Vec<Finding> = blocking(&findings).cloned().collect();
            let evidence = Evidence::of(match findings.len() {
                0 => "nothing stands in the way".to_owned(),
                some if refused.is_empty() => {
                    format!("nothing stands in the way; {some} findings are told in the evidence")
                }
                some => format!("{some} findings, {} of them in the way", refused.len()),
            })
            .fact("findings", to_json(&findings));
            if refused.is_empty() {
                return Ok(evidence);
            }
            Err(StepError::from(TransferError::Findings { findings: refused }).evidence(evidence))
        })
    }
}
