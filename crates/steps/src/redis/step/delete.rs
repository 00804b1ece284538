//! The block: `redis-delete = "clear-staging"`, `target = "cache"`, `prefix = "stg:cache:"`, `confirm = "${clear}"`,
//! `undo = "one-way: ..."`.

use pgrunbook_document::{Block, Diagnostic, FieldSpec, KindSpec, Language, Undo};
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;

use super::{Where, keep};
use crate::redis::delete::{Cut, How, delete};
use crate::redis::error::RedisFault;
use crate::redis::keys::{self, count};
use crate::redis::node::{Nodes, connect};
use crate::redis::prefix::Prefix;
use crate::redis::scan::BATCH;
use crate::registry::{Kind, Skipped, bound_fields, fields};
use crate::workplace::Workplace;

/// The kind `redis-delete`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "redis-delete",
        language: Language::Toml,
        summary: "Deletes the keys of a prefix in a Redis, in batches by UNLINK.",
        fields: &[
            FieldSpec {
                name: "prefix",
                about: "What the keys begin with, literally; ends with the separator: `stg:cache:`.",
                required: true,
            },
            FieldSpec {
                name: "confirm",
                about: "Exactly `ENVIRONMENT: delete PREFIX in TARGET`; a variable lets the operator give it.",
                required: true,
            },
            FieldSpec { name: "at_most", about: "With more keys nothing is deleted.", required: false },
            FieldSpec { name: "separator", about: "What a prefix ends with; `:` if nothing is said.", required: false },
            FieldSpec { name: "batch", about: "Keys that one SCAN looks at; 64 if nothing is said.", required: false },
            FieldSpec {
                name: "rehearse",
                about: "Whether a rehearsal deletes too; else it is skipped there.",
                required: false,
            },
        ],
        needs_target: true,
        changes: true,
        undo_words: &[],
        check,
    },
    build,
    undo_by: None,
};

/// Deletes the keys of a prefix.
///
/// Effect: resolvable, since a walk that came to its end is noted in the run's folder; one that did not goes on. Undo: none
/// that this step knows: `one-way`, or a block that fills the keys anew.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "redis-delete")]
    _id: String,
    prefix: String,
    confirm: String,
    at_most: Option<u64>,
    #[serde(default = "colon")]
    separator: char,
    batch: Option<u32>,
    #[serde(default)]
    rehearse: bool,
}

fn colon() -> char {
    ':'
}

fn check(block: &Block) -> Result<(), Diagnostic> {
    fields::<Fields>(block)?;
    match &block.undo {
        Some(undo) if matches!(undo.value, Undo::None(_)) => {
            let message = "keys that are deleted are gone: that is no `none`".to_owned();
            Err(Diagnostic::error("redis-delete", undo.span, message).help(
                "say so, and an approval is asked for: undo = \"one-way: why\"; or name the block that fills them anew",
            ))
        }
        _ => Ok(()),
    }
}

struct Delete {
    place: Where,
    prefix: Prefix,
    fields: Fields,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let prefix = bounded_by(&fields.prefix, fields.separator)?;
    let place = Where::of(block, workplace)?;
    if workplace.is_rehearsal() && !fields.rehearse {
        return Ok(Box::new(Skipped(Effect::Resolvable)));
    }
    Ok(Box::new(Delete { place, prefix, fields }))
}

/// A prefix that may be deleted by.
///
/// # Errors
/// If it is empty or too wide.
pub fn bounded_by(text: &str, separator: char) -> Result<Prefix, StepError> {
    Prefix::bounded(text, separator).map_err(|why| {
        StepError::unusable("redis-prefix", format!("{why}. Nothing was touched."))
            .help("name what is to go as far as possible: `stg:cache:`")
    })
}

/// The text that must be given, exactly, to delete by a prefix.
pub fn confirmation(environment: &str, prefix: &Prefix, target: &str) -> String {
    format!("{environment}: delete {prefix} in {target}")
}

impl Delete {
    /// Why it may not be done.
    fn unconfirmed(&self) -> Option<String> {
        let wanted = confirmation(self.place.workplace.environment(), &self.prefix, &self.place.target);
        (self.fields.confirm != wanted).then(|| format!("it is not confirmed: `confirm` must be exactly \"{wanted}\""))
    }

    async fn count(&self, nodes: &mut Nodes, cx: &RunCx<'_>) -> Result<u64, StepError> {
        let tell = |keys| cx.amount(keys, None, "keys counted");
        let batch = self.fields.batch.unwrap_or(BATCH);
        let how = keys::How { batch, sample: 0, show: 0, keep: None, cancel: cx.cancel, tell: &tell };
        Ok(count(nodes, &self.prefix, how).await?.keys)
    }
}

impl Step for Delete {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let options = self.place.options()?;
            let mut change = Change { blocked: self.unconfirmed(), ..Change::default() };
            let mut nodes = match connect(options, self.place.timeout).await {
                Ok(nodes) => nodes,
                // Forward it stops the run before it begins, all the same; but a way back for a Redis must not keep a runbook for other
                // troubles from being planned.
                Err(fault) if fault.is_down() => {
                    change.summary =
                        format!("delete the keys that begin with `{}` in {}", self.prefix, options.shown());
                    change.blocked = Some(fault.to_string());
                    return Ok(change);
                }
                Err(fault) => return Err(fault.into()),
            };
            let batch = self.fields.batch.unwrap_or(BATCH);
            let how = keys::How { batch, sample: 100, show: 0, keep: None, cancel: cx.cancel, tell: &|_| {} };
            let counted = count(&mut nodes, &self.prefix, how).await?;
            change.summary =
                format!("delete {} keys that begin with `{}` in {}", counted.keys, self.prefix, options.shown());
            change.details = counted.details();
            change.warnings.push("what is deleted is gone: nothing brings it back".to_owned());
            if let Some(most) = self.fields.at_most.filter(|most| counted.keys > *most) {
                let text = format!("{} keys are more than {most}, which `at_most` allows", counted.keys);
                change.blocked.get_or_insert(text);
            }
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            if let Some(why) = self.unconfirmed() {
                return Err(StepError::unusable("confirm", format!("{why}. Nothing was touched.")));
            }
            let options = self.place.options()?;
            let place = options.key();
            let mut nodes = connect(options, self.place.timeout).await?;
            // What an attempt that was cut short has deleted.
            let before = keep(cx).cut_short(&place, &self.prefix).map_or(0, |mark| mark.deleted);
            let held = self.count(&mut nodes, cx).await?;
            if let Some(most) = self.fields.at_most.filter(|most| held > *most) {
                let more = if before > 0 { " more" } else { "" };
                let message =
                    format!("{held} keys begin with `{}`, more than {most}. Nothing{more} was deleted.", self.prefix);
                return Err(
                    StepError::failed("redis-too-many", message).help("look at them first: `pgrunbook redis keys`")
                );
            }
            let tell = |keys| cx.amount(keys, Some(held + before), "keys");
            let batch = self.fields.batch.unwrap_or(BATCH);
            let how =
                How { batch, keep: Some((&place, keep(cx))), counted: Some(held), cancel: cx.cancel, tell: &tell };
            let deleted = delete(&mut nodes, &self.prefix, how).await.map_err(|cut| self.cut(cut))?;
            fault::pass(Point::AfterEffect);
            let written = if deleted.is_written { "; others go on writing keys there" } else { "; none is left" };
            Ok(Evidence::of(format!("{} keys that begin with `{}` deleted{written}", deleted.keys, self.prefix))
                .fact("prefix", self.prefix.as_str())
                .fact("counted_before", deleted.counted.unwrap_or(held))
                .fact("deleted", deleted.keys)
                .fact("walks", deleted.walks)
                .fact("left_none", !deleted.is_written)
                .fact("resumed", deleted.resumed)
                .fact("took_us", deleted.took.as_micros() as u64))
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let Some(mark) = keep(cx).finished(&self.place.options()?.key(), &self.prefix) else {
                return Ok(Happened::No);
            };
            let summary = format!("{} keys that begin with `{}` deleted, as was noted", mark.deleted, self.prefix);
            let evidence = Evidence::of(summary).fact("prefix", self.prefix.as_str()).fact("deleted", mark.deleted);
            Ok(Happened::Yes(match mark.counted {
                Some(counted) => evidence.fact("counted_before", counted),
                None => evidence,
            }))
        })
    }
}

impl Delete {
    fn cut(&self, cut: Cut) -> StepError {
        let interrupted = matches!(cut.fault, RedisFault::Stopped { .. });
        let mut error = StepError::from(cut.fault);
        if cut.deleted == 0 {
            return error;
        }
        if !interrupted {
            error.message =
                format!("{}. {} keys are deleted, and stay so.", error.message.trim_end_matches('.'), cut.deleted);
        }
        error.help("`pgrunbook resume` goes on where it stopped").partly(
            Evidence::of(format!("{} keys that begin with `{}` deleted so far", cut.deleted, self.prefix))
                .fact("deleted", cut.deleted),
        )
    }
}
