//! The block: `redis-keys = "staging-keys"`, `target = "cache"`, `prefix = "stg:"`, `at_most = 100000`.

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;

use super::{Where, keep, without};
use crate::redis::keys::{Counted, How, count};
use crate::redis::node::connect;
use crate::redis::prefix::Prefix;
use crate::redis::scan::BATCH;
use crate::registry::{Kind, Skipped, bound_fields, fields};
use crate::workplace::Workplace;

/// Keys that are looked at closer where nobody says otherwise.
const SAMPLE: usize = 100;

/// The kind `redis-keys`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "redis-keys",
        language: Language::Toml,
        summary: "Counts the keys of a prefix in a Redis by SCAN, and looks closer at some.",
        fields: &[
            FieldSpec { name: "prefix", about: "What the keys begin with, literally: `stg:`.", required: true },
            FieldSpec { name: "at_least", about: "Fewer keys fail the step.", required: false },
            FieldSpec { name: "at_most", about: "More keys fail the step.", required: false },
            FieldSpec {
                name: "sample",
                about: "Keys whose type, expiry and size are looked at; 100 if nothing is said.",
                required: false,
            },
            FieldSpec {
                name: "show",
                about: "Names of sampled keys that are kept as evidence; none else.",
                required: false,
            },
            FieldSpec { name: "batch", about: "Keys that one SCAN looks at; 64 if nothing is said.", required: false },
            FieldSpec {
                name: "optional",
                about: "`true`: a Redis that is down does not stop the run; recorded as degraded.",
                required: false,
            },
            FieldSpec {
                name: "rehearse",
                about: "Whether a rehearsal counts too; else it is skipped there.",
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

/// Counts the keys of a prefix.
///
/// Effect: idempotent (it only looks). Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "redis-keys")]
    id: String,
    prefix: String,
    at_least: Option<u64>,
    at_most: Option<u64>,
    sample: Option<usize>,
    #[serde(default)]
    show: usize,
    batch: Option<u32>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    rehearse: bool,
}

struct Keys {
    place: Where,
    prefix: Prefix,
    fields: Fields,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let prefix = Prefix::parse(&fields.prefix)
        .map_err(|why| StepError::unusable("bad-value", format!("step `{}`: {why}", fields.id)))?;
    let place = Where::of(block, workplace)?;
    if workplace.is_rehearsal() && !fields.rehearse {
        return Ok(Box::new(Skipped(Effect::Idempotent)));
    }
    Ok(Box::new(Keys { place, prefix, fields }))
}

impl Step for Keys {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let summary =
                format!("count the keys that begin with `{}` in {}", self.prefix, self.place.options()?.shown());
            Ok(Change { summary, ..Change::default() })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let options = self.place.options()?;
            let mut nodes = match connect(options, self.place.timeout).await {
                Ok(nodes) => nodes,
                Err(fault) => return without(self.fields.optional, fault),
            };
            let place = options.key();
            let tell = |keys| cx.amount(keys, None, "keys");
            let how = How {
                batch: self.fields.batch.unwrap_or(BATCH),
                sample: self.fields.sample.unwrap_or(SAMPLE),
                show: self.fields.show,
                keep: Some((&place, keep(cx))),
                cancel: cx.cancel,
                tell: &tell,
            };
            let counted = match count(&mut nodes, &self.prefix, how).await {
                Ok(counted) => counted,
                Err(fault) => return without(self.fields.optional, fault),
            };
            let evidence = evidence(&counted, &self.prefix);
            let (found, bounds) = (counted.keys, (self.fields.at_least, self.fields.at_most));
            let message = match bounds {
                (Some(least), _) if found < least => {
                    format!("{found} keys begin with `{}`, fewer than {least}", self.prefix)
                }
                (_, Some(most)) if found > most => {
                    format!("{found} keys begin with `{}`, more than {most}", self.prefix)
                }
                _ => return Ok(evidence),
            };
            Err(StepError::failed("gate", message).evidence(evidence))
        })
    }
}

fn evidence(counted: &Counted, prefix: &Prefix) -> Evidence {
    let serde_json::Value::Object(facts) = counted.json() else { unreachable!("it is written as an object") };
    let evidence = Evidence::of(counted.summary(prefix)).fact("prefix", prefix.as_str());
    facts.into_iter().fold(evidence, |evidence, (name, value)| evidence.fact(&name, value))
}
