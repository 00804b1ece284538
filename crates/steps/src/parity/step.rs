//! The block: `parity = "same-rows"`, `target = "main"`, `from = "legacy"`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;
use serde_json::json;

use super::compare::{Ask, Parity, Place, compare};
use super::naming::Naming;
use super::repair::{self, ROWS};
use super::report::{Values, evidence};
use super::sample::{Sampled, Samples, sample};
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::transfer;
use crate::transfer::sqlite::{Choices, SqliteError};
use crate::workplace::{self, Workplace};

/// The kind `parity`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "parity",
        language: Language::Toml,
        summary: "Compares every row of two sides, and is a gate: they must be the same.",
        fields: &[
            FieldSpec {
                name: "from",
                about: "The target that is side A: PostgreSQL or SQLite. Side B is `target`.",
                required: true,
            },
            FieldSpec { name: "schema", about: "The schema of side B; else `public`.", required: false },
            FieldSpec { name: "from_schema", about: "The schema of side A; else `public`.", required: false },
            FieldSpec { name: "tables", about: "Only these tables, by name.", required: false },
            FieldSpec { name: "exclude", about: "Not these tables.", required: false },
            FieldSpec {
                name: "mode",
                about: "`full`: every row, in two snapshots between which nobody may write. `live`: of a transfer, at one exact position, under writers.",
                required: false,
            },
            FieldSpec { name: "jobs", about: "Connections on each side, in one snapshot; else 1.", required: false },
            FieldSpec {
                name: "samples",
                about: "So many rows of each table are also read as the role `as`.",
                required: false,
            },
            FieldSpec {
                name: "as",
                about: "The application's role: tables by their bare names, through its `search_path`.",
                required: false,
            },
            FieldSpec {
                name: "map",
                about: "Of a SQLite side, as in `transfer`: `\"items.at\" = \"timestamptz from unix seconds\"`, or `skip`.",
                required: false,
            },
            FieldSpec {
                name: "show_values",
                about: "Columns whose values may stand in the evidence; else it names rows by keyed hashes.",
                required: false,
            },
            FieldSpec {
                name: "repair",
                about: "`true`: rows that differ are made in B what they are in A, in one transaction, and compared again.",
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

/// Differences of each table that are kept in the evidence.
const SHOWN: usize = 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Full,
    /// Of a transfer that is followed.
    Live,
}

/// Proves that two sides hold the same rows.
///
/// Effect: idempotent, since it only reads; a repair makes again what it made. Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[expect(dead_code, reason = "read by the parser as the step's id")]
    parity: String,
    from: String,
    #[serde(default = "public")]
    schema: String,
    #[serde(default = "public")]
    from_schema: String,
    #[serde(default)]
    tables: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    mode: Mode,
    jobs: Option<u8>,
    samples: Option<NonZeroU32>,
    r#as: Option<String>,
    #[serde(default)]
    map: BTreeMap<String, String>,
    #[serde(default)]
    show_values: BTreeSet<String>,
    #[serde(default)]
    repair: bool,
}

fn public() -> String {
    "public".to_owned()
}

struct Parities {
    target: String,
    fields: Fields,
    choices: Choices,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    if fields.samples.is_some() != fields.r#as.is_some() {
        return Err(StepError::unusable(
            "bad-value",
            format!("step `{}`: `samples` and `as` belong together", block.id),
        ));
    }
    if fields.mode == Mode::Live && (fields.repair || fields.samples.is_some()) {
        return Err(StepError::unusable(
            "bad-value",
            format!("step `{}`: `live` compares a transfer's rows; `samples` and `repair` are of `full`", block.id),
        ));
    }
    let choices = choices(&fields.map)?;
    Ok(Box::new(Parities { target: required_target(block)?, fields, choices, workplace: workplace.clone() }))
}

/// What was said of a file's columns.
///
/// # Errors
/// With the list of words, for one that is not among them.
pub fn choices(map: &BTreeMap<String, String>) -> Result<Choices, StepError> {
    Choices::parse(map.iter().map(|(key, word)| (key.as_str(), word.as_str()))).map_err(SqliteError::into_step_error)
}

/// What a target's name stands for as a side. `choices`: what was said of its columns, if it is a file.
///
/// # Errors
/// If there is no such target, or it holds no rows.
pub fn place(workplace: &Workplace, target: &str, schema: &str, choices: &Choices) -> Result<Place, StepError> {
    match workplace.place(target)? {
        workplace::Place::Postgres(options) => {
            Ok(Place::Postgres { options: Box::new(options.clone()), schema: schema.to_owned() })
        }
        workplace::Place::Sqlite { path } => Ok(Place::Sqlite { path: path.clone(), choices: choices.clone() }),
        _ => Err(StepError::unusable("no-target", format!("target `{target}` holds no tables"))),
    }
}

impl Parities {
    fn place(&self, target: &str, schema: &str) -> Result<Place, StepError> {
        place(&self.workplace, target, schema, &self.choices)
    }
}

impl Step for Parities {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let Fields { from, from_schema, schema, repair: repairs, .. } = &self.fields;
            self.place(from, from_schema)?;
            let b = self.place(&self.target, schema)?;
            let mut change = Change {
                summary: format!("compare every row of {from} ({from_schema}) and {} ({schema})", self.target),
                ..Change::default()
            };
            if *repairs {
                repair::can_repair(&b)?;
                change.warnings.push(format!("rows of {schema} that differ are overwritten, and not kept"));
            }
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let fields = &self.fields;
            if fields.mode == Mode::Live {
                return transfer::compare_live(&self.workplace, &self.target, &fields.schema, cx.cancel).await;
            }
            let a = self.place(&fields.from, &fields.from_schema)?;
            let b = self.place(&self.target, &fields.schema)?;
            let name = format!("pgrunbook:{}:{}", cx.run, cx.step);
            let ask = Ask {
                tables: &fields.tables,
                exclude: &fields.exclude,
                jobs: fields.jobs.unwrap_or(1).into(),
                shown: if fields.repair { ROWS } else { SHOWN },
                application_name: &name,
                cancel: cx.cancel,
                tell: &|done, total| cx.amount(done, Some(total), "tables"),
            };
            let values =
                if fields.show_values.is_empty() { Values::Hidden } else { Values::Of(fields.show_values.clone()) };
            let mut parity = compare([&a, &b], &ask).await?;
            let mut repaired = None;
            if fields.repair && parity.differences() > 0 {
                for planned in repair::plan(&parity)? {
                    cx.say(format!("repair {planned}"));
                }
                let done = repair::repair([&a, &b], &parity, &ask).await?;
                repaired = Some(done.planned.iter().map(ToString::to_string).collect::<Vec<_>>());
                // The whole, not only what was written.
                parity = compare([&a, &b], &Ask { shown: SHOWN, ..ask }).await?;
            }
            let sampled = match (&fields.r#as, fields.samples) {
                (Some(role), Some(count)) => {
                    let how = Samples {
                        count,
                        role,
                        tables: &fields.tables,
                        exclude: &fields.exclude,
                        application_name: &name,
                    };
                    Some(sample(&a, &b, &how).await?)
                }
                _ => None,
            };
            let naming = Naming::of(self.workplace.root())?;
            let evidence = gate(&parity, sampled.as_ref(), &values, &naming)?;
            Ok(match repaired {
                Some(planned) => evidence.fact("repaired", json!(planned)),
                None => evidence,
            })
        })
    }
}

/// Passes where both sides hold the same, and the role reads it.
///
/// # Errors
/// With the first of what is not, and all of it as evidence.
pub fn gate(
    parity: &Parity,
    sampled: Option<&Sampled>,
    values: &Values,
    naming: &Naming,
) -> Result<Evidence, StepError> {
    let evidence = evidence(parity, sampled, values, naming);
    if parity.holds() && sampled.is_none_or(Sampled::holds) {
        return Ok(evidence);
    }
    let structural = parity.findings.iter().find(|finding| finding.is_difference()).map(ToString::to_string);
    let table = parity.tables.iter().find(|table| !table.holds()).map(|table| {
        let totals = table.totals;
        format!(
            "table {}: {} rows missing in A, {} missing in B, {} differ",
            table.name, totals.missing_in_a, totals.missing_in_b, totals.differ
        )
    });
    let wrong = sampled.and_then(|sampled| {
        sampled.wrong.first().map(|one| format!("as {}, table {}: {}", sampled.role, one.table, one.what))
    });
    let first = structural.or(table).or(wrong).unwrap_or_default();
    Err(StepError::failed("parity", format!("{}; {first}. Nothing was changed", evidence.summary))
        .help("`pgrunbook parity` lists the rows with both values; `repair = true` makes B's what A's are")
        .evidence(evidence))
}
