//! The block: `complete = "no-way-back"`, `target = "main"`, `schema = "health"`, `undo = "one-way: ..."`.

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;

use super::{recorded, records, session_name};
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::transfer::complete::{Source, complete};
use crate::transfer::state::Phase;
use crate::workplace::Workplace;

/// The kind `complete`.
pub const COMPLETE: Kind = Kind {
    spec: KindSpec {
        name: "complete",
        language: Language::Toml,
        summary: "Ends a transfer: nothing flows back any more, and rollback is gone. The source stays fenced.",
        fields: &[
            FieldSpec { name: "schema", about: "The transfer, by its schema in the target.", required: true },
            FieldSpec {
                name: "without_source",
                about: "`true`: the source's server is gone for good, and is not asked any more.",
                required: false,
            },
        ],
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
    #[serde(default)]
    without_source: bool,
}

struct Complete {
    target: String,
    schema: String,
    without_source: bool,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    Ok(Box::new(Complete {
        target: required_target(block)?,
        schema: fields.schema,
        without_source: fields.without_source,
        workplace: workplace.clone(),
    }))
}

impl Step for Complete {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let details = match self.without_source {
                true => "the source is not asked any more; slot and publication of the target are dropped",
                false => "slots and publications are dropped on both sides; the source stays fenced",
            };
            Ok(Change {
                summary: format!("end the transfer into {}", self.schema),
                details: vec![details.to_owned()],
                warnings: vec!["after this, going back would lose every write made since".to_owned()],
                ..Change::default()
            })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let name = session_name(cx);
            let source = if self.without_source { Source::Gone } else { Source::There };
            complete(&self.workplace, &self.target, &self.schema, &name, cx.cancel, source).await
        })
    }

    fn resolve<'a>(&'a self, _cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let session = records(&self.workplace, &self.target, "pgrunbook:resolve").await?;
            Ok(match recorded(&session, &self.schema).await?.phase {
                Phase::Complete => {
                    Happened::Yes(Evidence::of(format!("the transfer into {} is complete", self.schema)))
                }
                // What was dropped already is passed over by the next attempt.
                _ => Happened::No,
            })
        })
    }
}
