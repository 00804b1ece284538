//! The block: `complete = "no-way-back"`, `target = "main"`, `schema = "health"`, `undo = "one-way: ..."`.

use async_trait::async_trait;
use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;

use super::{recorded, records, session_name};
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::transfer::complete::complete;
use crate::transfer::state::Phase;
use crate::workplace::Workplace;

/// The kind `complete`.
pub const COMPLETE: Kind = Kind {
    spec: KindSpec {
        name: "complete",
        language: Language::Toml,
        summary: "Ends a transfer: nothing flows back any more, and rollback is gone. The source stays fenced.",
        fields: &[FieldSpec { name: "schema", about: "The transfer, by its schema in the target.", required: true }],
        needs_target: true,
        changes: true,
        undo_words: &[],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Ends a transfer.
///
/// Effect: resolvable (the record says so, and slots and publications are there or not). Undo: none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "complete")]
    _id: String,
    schema: String,
}

struct Complete {
    target: String,
    schema: String,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    Ok(Box::new(Complete { target: required_target(block)?, schema: fields.schema, workplace: workplace.clone() }))
}

#[async_trait]
impl Step for Complete {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    async fn plan(&self, _cx: &PlanCx<'_>) -> Result<Change, StepError> {
        Ok(Change {
            summary: format!("end the transfer into {}", self.schema),
            details: vec!["slots and publications are dropped on both sides; the source stays fenced".to_owned()],
            warnings: vec!["after this, going back would lose every write made since".to_owned()],
            ..Change::default()
        })
    }

    async fn apply(&self, cx: &mut RunCx<'_>) -> Result<Evidence, StepError> {
        complete(&self.workplace, &self.target, &self.schema, &session_name(cx), cx.cancel).await
    }

    async fn resolve(&self, _cx: &RunCx<'_>) -> Result<Happened, StepError> {
        let session = records(&self.workplace, &self.target, "pgrunbook:resolve").await?;
        Ok(match recorded(&session, &self.schema).await?.phase {
            Phase::Complete => Happened::Yes(Evidence::of(format!("the transfer into {} is complete", self.schema))),
            // What was dropped already is passed over by the next attempt.
            _ => Happened::No,
        })
    }
}
