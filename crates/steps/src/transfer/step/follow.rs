//! The block: `follow = "caught-up"`, `target = "main"`, `schema = "health"`.

use std::time::Duration;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::slots::Direction as Way;
use serde::Deserialize;

use super::{duration, recorded, records, session_name};
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::transfer::follow::Turn;
use crate::transfer::sqlite;
use crate::transfer::state::{Phase, Transfer};
use crate::workplace::Workplace;

/// The kind `follow`.
pub const FOLLOW: Kind = Kind {
    spec: KindSpec {
        name: "follow",
        language: Language::Toml,
        summary: "Follows a transfer's changes until everything that was committed when the step began is on the other side.",
        fields: &[
            FieldSpec { name: "schema", about: "The transfer, by its schema in the target.", required: true },
            FieldSpec {
                name: "patience",
                about: "How long it may take to catch up, such as `10m`; an hour if nothing is said.",
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

/// Waits until a transfer has caught up, and goes on following while the run lasts.
///
/// Effect: idempotent, since what is applied is applied once. Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "follow")]
    _id: String,
    schema: String,
    patience: Option<String>,
}

struct Follow {
    target: String,
    schema: String,
    patience: Duration,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    Ok(Box::new(Follow {
        target: required_target(block)?,
        schema: fields.schema,
        patience: duration(fields.patience.as_deref(), Duration::from_secs(3600))?,
        workplace: workplace.clone(),
    }))
}

impl Follow {
    /// Of a file: it is read again, or what was written in the target flows back.
    async fn file(&self, cx: &RunCx<'_>, transfer: &Transfer, way: Way) -> Result<Evidence, StepError> {
        let (workplace, target) = (&self.workplace, &self.target);
        if way == Way::Forward {
            let synced = sqlite::follow(workplace, target, transfer, &session_name(cx)).await?;
            return Ok(Evidence::of(format!("{} is as its file is now", self.schema)).fact("synced", synced.facts()));
        }
        let Some(back) = workplace.followers().write_back(workplace, target, transfer).await? else {
            return Err(StepError::failed(
                "no-stream",
                format!("nothing flows back from {} into its file", self.schema),
            ));
        };
        let at = back.caught_up(self.patience, cx.cancel).await?;
        let standing = back.standing();
        Ok(Evidence::of(format!("{}: everything up to {at} is in the file", self.schema))
            .fact("position", at.to_string())
            .fact("transactions", standing.transactions)
            .fact("changes", standing.changes))
    }
}

impl Step for Follow {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            Ok(Change { summary: format!("apply what was changed for {} meanwhile", self.schema), ..Change::default() })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let session = records(&self.workplace, &self.target, &session_name(cx)).await?;
            let transfer = recorded(&session, &self.schema).await?;
            let way = match transfer.phase {
                Phase::Following => Way::Forward,
                Phase::Switched => Way::Reverse,
                phase => {
                    return Err(StepError::unusable(
                        "phase",
                        format!(
                            "the transfer into {} is {} and follows nothing now. Nothing was changed.",
                            self.schema,
                            phase.word()
                        ),
                    ));
                }
            };
            if sqlite::is_file(&self.workplace, &transfer.spec.from) {
                return self.file(cx, &transfer, way).await;
            }
            let follower =
                self.workplace.followers().follow(&self.workplace, &self.target, &transfer, Turn::Take).await?;
            let at = follower.caught_up(way, self.patience, cx.cancel).await?;
            let standing = follower.standing(way).unwrap_or_default();
            Ok(Evidence::of(format!("{}: everything up to {at} is applied", self.schema))
                .fact("position", at.to_string())
                .fact("transactions", standing.transactions)
                .fact("changes", standing.changes))
        })
    }
}
