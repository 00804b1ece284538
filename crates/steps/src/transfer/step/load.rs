//! The block: `transfer = "move-health"`, `from = "legacy_health"`, `target = "main"`, `schema = "health"`, `undo = "auto"`.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language, StepId};
use pgrunbook_engine::step::Watcher;
use pgrunbook_engine::{Cancel, Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;

use super::records;
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::rehearse::Silent;
use crate::transfer::load::{Loader, abandon};
use crate::transfer::spec::{Making, Spec, Sync};
use crate::transfer::state::{self, Phase};
use crate::transfer::{Finding, blocking, sqlite};
use crate::workplace::Workplace;

/// What both `preflight` and `transfer` are told.
pub(super) const ASKED: &[FieldSpec] = &[
    FieldSpec { name: "from", about: "The source: a PostgreSQL target or a SQLite file.", required: true },
    FieldSpec { name: "schema", about: "The schema in the target that it becomes.", required: true },
    FieldSpec { name: "source_schema", about: "PostgreSQL: the schema that moves; `public`.", required: false },
    FieldSpec {
        name: "structure",
        about: "`create`: tables are made after the source's. `existing`: they are there, and are checked.",
        required: false,
    },
    FieldSpec { name: "exclude", about: "Tables that stay behind.", required: false },
    FieldSpec {
        name: "accept",
        about: "Findings that are consented to, by the names that the preflight gives.",
        required: false,
    },
    FieldSpec {
        name: "map",
        about: "SQLite: what columns become, where it is not the default: `\"items.score\" = \"numeric\"`.",
        required: false,
    },
    FieldSpec {
        name: "sync",
        about: "SQLite: `rescan`, or `dirty-keys`, which sets triggers on the source.",
        required: false,
    },
    FieldSpec { name: "reverse", about: "Whether writes after the switch flow back; `true`.", required: false },
    FieldSpec { name: "jobs", about: "Connections at a time on each side; 2.", required: false },
    FieldSpec {
        name: "spool_limit",
        about: "How many bytes a stream may take of local disk, or its slot of its server's; 16 GB. There it stops, and that disk is safe.",
        required: false,
    },
];

/// The kind `transfer`.
pub const TRANSFER: Kind = Kind {
    spec: KindSpec {
        name: "transfer",
        language: Language::Toml,
        summary: "Copies a live source into a schema of the target under one snapshot, and follows its changes from there.",
        fields: ASKED,
        needs_target: true,
        changes: true,
        undo_words: &["auto"],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Copies a source and begins to follow it.
///
/// Effect: resolvable (the transfer's record says how far it came, and each range of rows commits with its own). Undo:
/// `auto`, everything that it made on both sides is taken away, unless the target has the writes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    #[serde(rename = "transfer", alias = "preflight")]
    _id: String,
    from: String,
    schema: String,
    source_schema: Option<String>,
    #[serde(default)]
    structure: Making,
    #[serde(default)]
    exclude: BTreeSet<String>,
    #[serde(default)]
    accept: BTreeSet<String>,
    #[serde(default)]
    map: BTreeMap<String, String>,
    #[serde(default)]
    sync: Sync,
    #[serde(default = "yes")]
    reverse: bool,
    #[serde(default = "two")]
    jobs: usize,
    spool_limit: Option<u64>,
}

fn yes() -> bool {
    true
}

fn two() -> usize {
    2
}

/// A transfer as a block asks for it.
pub(super) struct Asked {
    pub target: String,
    pub schema: String,
    pub spec: Spec,
    pub jobs: usize,
    pub workplace: Workplace,
}

impl Asked {
    pub fn of(block: &Block, workplace: &Workplace) -> Result<Self, StepError> {
        let fields: Fields = bound_fields(block)?;
        if fields.jobs == 0 {
            return Err(StepError::unusable("bad-value", format!("step `{}`: `jobs` is at least 1", block.id)));
        }
        let spec = Spec {
            source_schema: match fields.source_schema {
                Some(schema) => schema,
                None if sqlite::is_file(workplace, &fields.from) => String::new(),
                None => "public".to_owned(),
            },
            from: fields.from,
            structure: fields.structure,
            exclude: fields.exclude,
            accept: fields.accept,
            map: fields.map,
            reverse: fields.reverse,
            sync: fields.sync,
            spool_limit: fields.spool_limit,
        };
        let target = required_target(block)?;
        Ok(Self { target, schema: fields.schema, spec, jobs: fields.jobs, workplace: workplace.clone() })
    }

    pub fn loader<'a>(
        &'a self,
        run: &'a str,
        operator: &'a str,
        cancel: &'a Cancel,
        step: &'a StepId,
        watcher: &'a dyn Watcher,
    ) -> Loader<'a> {
        let Self { target, schema, spec, jobs, workplace } = self;
        Loader { workplace, target, schema, spec, jobs: *jobs, run, operator, cancel, step, watcher }
    }

    /// What a plan says of what was found.
    pub fn told(&self, change: &mut Change, findings: &[Finding]) {
        // Tables that migrations make: the step that applies them may come before this one. The transfer looks again.
        let is_to_come = |one: &Finding| {
            self.spec.structure == Making::Existing && matches!(one.code, "no-table" | "existing-missing")
        };
        change.warnings.extend(findings.iter().map(|one| {
            let yet = if is_to_come(one) { " Not yet: a step before this one must make it." } else { "" };
            format!("{}: {}{yet}", one.object, one.what)
        }));
        let refused: Vec<String> = blocking(findings)
            .filter(|one| !is_to_come(one))
            .map(|one| format!("{}: {}", one.object, one.what.trim_end_matches('.')))
            .collect();
        if let Some(first) = refused.first() {
            let more = if refused.len() > 1 { format!("; and {} more", refused.len() - 1) } else { String::new() };
            change.blocked =
                Some(format!("this stands in the way of the transfer into {}: {first}{more}", self.schema));
        }
    }
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    Ok(Box::new(Transfer(Asked::of(block, workplace)?)))
}

struct Transfer(Asked);

impl Step for Transfer {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let Asked { target, schema, spec, .. } = &self.0;
            let mut change = Change {
                summary: format!("copy {} into the schema {schema} of {target}, and follow it", spec.from),
                ..Change::default()
            };
            let session = records(&self.0.workplace, target, "pgrunbook:plan").await?;
            if let Some(transfer) = state::find(&session, schema).await.map_err(|error| error.into_step_error())? {
                change.details.push(format!("it is {} already, and goes on from there", transfer.phase.word()));
                return Ok(change);
            }
            let loader = self.0.loader("plan", "", cx.cancel, cx.step, &Silent);
            self.0.told(&mut change, &loader.look().await?);
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let loaded = self.0.loader(cx.run, cx.operator, cx.cancel, cx.step, cx.watcher).load().await;
            let Err(error) = loaded else { return loaded };
            // What was begun stays, is taken up by the next attempt, and taken away by an undo.
            let begun = match records(&self.0.workplace, &self.0.target, "pgrunbook:transfer").await {
                Ok(session) => state::find(&session, &self.0.schema).await.map_or(true, |found| found.is_some()),
                Err(_) => true,
            };
            let evidence = Evidence::of(format!("the transfer into {} was begun", self.0.schema));
            Err(if begun { error.partly(evidence) } else { error })
        })
    }

    fn resolve<'a>(&'a self, _cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let session = records(&self.0.workplace, &self.0.target, "pgrunbook:resolve").await?;
            let found = state::find(&session, &self.0.schema).await.map_err(|error| error.into_step_error())?;
            let evidence =
                |phase: Phase| Evidence::of(format!("the transfer into {} is {}", self.0.schema, phase.word()));
            Ok(match found {
                None => {
                    // It may have died between a file's image and the record. Nothing else of it is anywhere, and nobody undoes it.
                    sqlite::remove_image(&self.0.workplace, &self.0.target, &self.0.schema).await;
                    Happened::No
                }
                Some(transfer) if transfer.phase.follows() => Happened::Yes(evidence(transfer.phase)),
                Some(transfer) => Happened::Partly(evidence(transfer.phase)),
            })
        })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { abandon(&self.0.workplace, &self.0.target, &self.0.schema, cx.run, cx.cancel).await })
    }

    fn resolve_undo<'a>(&'a self, _cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let session = records(&self.0.workplace, &self.0.target, "pgrunbook:resolve").await?;
            let found = state::find(&session, &self.0.schema).await.map_err(|error| error.into_step_error())?;
            Ok(match found {
                // What was taken away already is passed over by the next attempt.
                Some(_) => Happened::No,
                None => Happened::Yes(Evidence::of(format!("there is no transfer into {}", self.0.schema))),
            })
        })
    }
}
