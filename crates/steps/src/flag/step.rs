//! The block: `flag = "ingest-on"`, `name = "ingest"`, `enabled = true` or `percent = 10`.

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;
use serde_json::Value;

use super::error::FlagError;
use super::store::{Place, PlaceFields, Setting, State};
use crate::observe::{Course, Note};
use crate::registry::{Kind, Skipped, bound_fields, fields};
use crate::workplace::Workplace;

/// What both kinds say of the place.
pub(super) const PLACE_FIELDS: [FieldSpec; 7] = [
    FieldSpec { name: "name", about: "The flag's name; the step's id if nothing is said.", required: false },
    FieldSpec {
        name: "table",
        about: "A table of settings in the `target`, with JSON of all flags in one row: `public.bot_config`. Without it and `file`: the table `pgrunbook.flag`.",
        required: false,
    },
    FieldSpec { name: "key", about: "Which row of it; `feature_flags` if nothing is said.", required: false },
    FieldSpec {
        name: "environment",
        about: "Which row of several: the value of the table's column `environment`.",
        required: false,
    },
    FieldSpec { name: "key_column", about: "`config_key` if nothing is said.", required: false },
    FieldSpec { name: "value_column", about: "`config_value` if nothing is said.", required: false },
    FieldSpec { name: "file", about: "A file in flagd's format, relative to the project.", required: false },
];

/// The kind `flag`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "flag",
        language: Language::Toml,
        summary: "Sets a feature flag, and remembers what it was.",
        fields: &[
            PLACE_FIELDS[0],
            FieldSpec { name: "enabled", about: "`false` throws the kill switch.", required: false },
            FieldSpec {
                name: "percent",
                about: "The share of keys that get the feature, 0 to 100; the flag is enabled by it.",
                required: false,
            },
            FieldSpec {
                name: "target",
                about: "The database that the flag is in, needed without `file`.",
                required: false,
            },
            PLACE_FIELDS[1],
            PLACE_FIELDS[2],
            PLACE_FIELDS[3],
            PLACE_FIELDS[4],
            PLACE_FIELDS[5],
            PLACE_FIELDS[6],
            FieldSpec {
                name: "rehearse",
                about: "Whether a rehearsal sets it in a file too; else it is skipped there.",
                required: false,
            },
        ],
        needs_target: false,
        changes: true,
        undo_words: &["auto"],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Sets a feature flag, remembering what it was.
///
/// Effect: resolvable (the flag's state says whether it happened). Undo: auto.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    flag: String,
    name: Option<String>,
    enabled: Option<bool>,
    percent: Option<f64>,
    table: Option<String>,
    key: Option<String>,
    environment: Option<String>,
    key_column: Option<String>,
    value_column: Option<String>,
    file: Option<String>,
    #[serde(default)]
    rehearse: bool,
}

struct Flag {
    place: Place,
    setting: Setting,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let refuse = |why: &str| StepError::unusable("bad-value", format!("step `{}`: {why}", fields.flag));
    let setting = Setting { enabled: fields.enabled, percent: fields.percent };
    if setting == Setting::default() {
        return Err(refuse("write what it shall be: `enabled = false`, or `percent = 10`"));
    }
    if !percent_is_one(setting.percent) {
        return Err(refuse("`percent` is between 0 and 100, in thousandths at most"));
    }
    let place = PlaceFields {
        name: fields.name.unwrap_or_else(|| fields.flag.clone()),
        table: fields.table,
        key: fields.key,
        environment: fields.environment,
        key_column: fields.key_column,
        value_column: fields.value_column,
        file: fields.file,
    };
    let place = Place::read_fields(block, place, workplace)?;
    if place.is_outside() && workplace.is_rehearsal() && !fields.rehearse {
        return Ok(Box::new(Skipped(Effect::Resolvable)));
    }
    Ok(Box::new(Flag { place, setting }))
}

/// Whether it is a share, in thousandths of a per cent at most.
pub(super) fn percent_is_one(percent: Option<f64>) -> bool {
    // 16.1 is no sum of halves: a thousand times it is 16,100.000000000002.
    let is_fine = |percent: f64| (percent * 1_000.0 - (percent * 1_000.0).round()).abs() < 1e-6;
    percent.is_none_or(|percent| (0.0..=100.0).contains(&percent) && is_fine(percent))
}

/// What the flag was, as an attempt before this one noted it. `None`: none did.
pub(super) fn noted_before(notes: &[Note]) -> Option<State> {
    notes.iter().find_map(|note| match note {
        Note::Before { value } => Some(value.clone()),
        _ => None,
    })
}

/// What a step recorded of the flag before and after it.
pub(super) fn recorded(cx: &RunCx<'_>) -> Option<(State, State)> {
    let facts = &cx.recorded(cx.step)?.facts;
    let state = |name: &str| facts.get(name).map(|value| if value.is_null() { None } else { Some(value.clone()) });
    Some((state("previous")?, state("set")?))
}

/// Facts from which [`recorded`] reads.
pub(super) fn with_states(evidence: Evidence, previous: &State, set: &State) -> Evidence {
    let value = |state: &State| state.clone().unwrap_or(Value::Null);
    evidence.fact("previous", value(previous)).fact("set", value(set))
}

/// Puts a flag back as it was, unless somebody else set it since.
pub(super) async fn put_back(place: &Place, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
    let Some((previous, set)) = recorded(cx) else {
        return Err(StepError::failed("flag", format!("it is not recorded what flag `{}` was", place.name)));
    };
    let now = place.state().await?;
    if now != previous {
        if now != set {
            return Err(place.changed(&now, &set).into());
        }
        fault::pass(Point::BeforeEffect);
        place.exchange(cx, &set, &previous).await?;
        fault::pass(Point::AfterEffect);
    }
    Ok(Evidence::of(format!("{} is {} again, as it was, in {}", place.name, place.words(&previous), place.shown())))
}

/// Whether a flag was put back.
pub(super) async fn is_put_back(place: &Place, cx: &RunCx<'_>) -> Result<Happened, StepError> {
    let Some((previous, _)) = recorded(cx) else { return Ok(Happened::No) };
    let now = place.state().await?;
    Ok(match now == previous {
        true => Happened::Yes(Evidence::of(format!("{} is {} again", place.name, place.words(&previous)))),
        // The undo itself says if somebody else has set it.
        false => Happened::No,
    })
}

impl Flag {
    fn evidence(&self, previous: &State, set: &State) -> Evidence {
        let (before, after) = (self.place.words(previous), self.place.words(set));
        let said = match previous == set {
            true => format!("{} was {after} already, in {}", self.place.name, self.place.shown()),
            false => format!("{} is {after}, and was {before}, in {}", self.place.name, self.place.shown()),
        };
        with_states(Evidence::of(said).fact("flag", self.place.name.clone()), previous, set)
    }
}

impl Step for Flag {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let summary = format!("set flag `{}` in {}", self.place.name, self.place.shown());
            let mut change = Change { summary, ..Change::default() };
            match self.place.state().await {
                Ok(before) => {
                    let after = self.place.with(&before, &self.setting)?;
                    change.details.push(format!("{} -> {}", self.place.words(&before), self.place.words(&after)));
                }
                // A step before this one may make the place.
                Err(error) => change.warnings.push(error.to_string()),
            }
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let (_, notes) = Course::read(cx.notes)?;
            let now = self.place.state().await?;
            let previous = match noted_before(&notes) {
                Some(before) => before,
                None => {
                    let note = Note::Before { value: now.clone() };
                    cx.note(serde_json::to_value(&note).expect("JSON")).await?;
                    now.clone()
                }
            };
            let wanted = self.place.with(&previous, &self.setting)?;
            if now != wanted {
                if now != previous {
                    return Err(self.place.changed(&now, &previous).into());
                }
                fault::pass(Point::BeforeEffect);
                self.place.exchange(cx, &previous, &wanted).await?;
                fault::pass(Point::AfterEffect);
            }
            Ok(self.evidence(&previous, &wanted))
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let (_, notes) = Course::read(cx.notes)?;
            let Some(previous) = noted_before(&notes) else { return Ok(Happened::No) };
            let wanted = self.place.with(&previous, &self.setting)?;
            let now = self.place.state().await?;
            Ok(match () {
                () if now == wanted => Happened::Yes(self.evidence(&previous, &wanted)),
                () if now == previous => Happened::No,
                () => Happened::Unknown(FlagError::to_string(&self.place.changed(&now, &wanted))),
            })
        })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { put_back(&self.place, cx).await })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { is_put_back(&self.place, cx).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thousandth_of_a_per_cent_is_a_share() {
        for thousandth in 0..=100_000 {
            let percent: f64 = format!("{}.{:03}", thousandth / 1_000, thousandth % 1_000).parse().unwrap();
            assert!(percent_is_one(Some(percent)), "{percent}");
        }
        for wrong in [-0.001, 100.001, 0.0001, f64::NAN, f64::INFINITY] {
            assert!(!percent_is_one(Some(wrong)), "{wrong}");
        }
    }
}
