//! The blocks: `fence = "stop-writers"` and `unfence = "let-writers-go"`.

use std::time::Duration;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language, parse_duration};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::ledger::{self, Entry};
use pgrunbook_postgres::pgbouncer::Door;
use pgrunbook_postgres::{PgError, Session};
use serde::Deserialize;

use super::doors::{pooler_error, resume_all};
use super::freezing::{Freezing, RESUME_BUDGET};
use super::guard::{By, Fence, Fenced, Patience};
use super::lift::{Lift, Lifted, unfence};
use super::standing::{Held, Standing};
use super::{freeze, table};
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::workplace::Workplace;

const SCHEMA: FieldSpec = FieldSpec {
    name: "schema",
    about: "The schema whose tables are meant; `public` if nothing is said.",
    required: false,
};

const POOLERS: FieldSpec = FieldSpec {
    name: "poolers",
    about: "Targets that lead through a PgBouncer: each is paused before, by a user of its `admin_users`.",
    required: false,
};

const LOCK_TIMEOUT: FieldSpec = FieldSpec {
    name: "lock_timeout",
    about: "How long one try waits for all locks, and writers behind it; 500 ms if nothing is said.",
    required: false,
};

const PATIENCE: FieldSpec =
    FieldSpec { name: "patience", about: "How long it is tried in all; 30 s if nothing is said.", required: false };

/// The kind `fence`.
pub const FENCE: Kind = Kind {
    spec: KindSpec {
        name: "fence",
        language: Language::Toml,
        summary: "Has all tables of a schema refuse writes (SQLSTATE 25006), at one marked place of the WAL, and proves it.",
        fields: &[
            SCHEMA,
            FieldSpec { name: "tables", about: "Only these tables of it.", required: false },
            FieldSpec {
                name: "message",
                about: "What refused writers read; `{table}` in it becomes the table's name.",
                required: true,
            },
            LOCK_TIMEOUT,
            PATIENCE,
            FieldSpec {
                name: "budget",
                about: "How long writers may be held in all until a `switch`; then everything is undone. Without it, as long as it \
                        takes.",
                required: false,
            },
            POOLERS,
            FieldSpec { name: "as", about: "The application's role: a write is tried as it.", required: false },
            FieldSpec {
                name: "by",
                about: "`triggers`, or `privileges` where triggers cannot be made, which is weaker.",
                required: false,
            },
        ],
        needs_target: true,
        changes: true,
        undo_words: &["auto"],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build: build_fence,
    undo_by: None,
};

/// The kind `unfence`.
pub const UNFENCE: Kind = Kind {
    spec: KindSpec {
        name: "unfence",
        language: Language::Toml,
        summary: "Lifts a schema's fence, whole or half, and resumes the poolers.",
        fields: &[SCHEMA, LOCK_TIMEOUT, PATIENCE, POOLERS],
        needs_target: true,
        changes: true,
        undo_words: &[],
        check: |block| fields::<LiftFields>(block).map(drop),
    },
    build: build_unfence,
    undo_by: None,
};

/// Fences a schema.
///
/// Effect: transactional (its row in `pgrunbook.fence` commits with it). Undo: auto.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "fence")]
    _id: String,
    #[serde(default = "public")]
    schema: String,
    #[serde(default)]
    tables: Vec<String>,
    message: String,
    lock_timeout: Option<Span>,
    patience: Option<Span>,
    budget: Option<Span>,
    #[serde(default)]
    poolers: Vec<String>,
    #[serde(rename = "as")]
    role: Option<String>,
    #[serde(default)]
    by: Way,
}

/// Lifts a schema's fence.
///
/// Effect: resolvable (the record says whether a fence stands).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LiftFields {
    #[serde(rename = "unfence")]
    _id: String,
    #[serde(default = "public")]
    schema: String,
    lock_timeout: Option<Span>,
    patience: Option<Span>,
    #[serde(default)]
    poolers: Vec<String>,
}

fn public() -> String {
    "public".to_owned()
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    #[default]
    Triggers,
    Privileges,
}

/// A duration as runbooks write it: `500ms`, `5s`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let span = parse_duration(&text).filter(|span| !span.is_zero());
        span.map(Self).ok_or_else(|| format!("`{text}` is no duration: write `500ms` or `5s`"))
    }
}

fn patience(lock_timeout: Option<Span>, budget: Option<Span>) -> Patience {
    let usual = Patience::default();
    Patience {
        lock_timeout: lock_timeout.map_or(usual.lock_timeout, |span| span.0),
        budget: budget.map_or(usual.budget, |span| span.0),
        ..usual
    }
}

fn doors(names: &[String], workplace: &Workplace) -> Result<Vec<Door>, StepError> {
    names.iter().map(|name| Ok(Door::through(name, workplace.postgres(name)?))).collect()
}

struct FenceStep {
    target: String,
    freezing: Freezing,
    workplace: Workplace,
}

fn build_fence(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let target = required_target(block)?;
    let wish = Fence {
        schema: fields.schema,
        tables: fields.tables,
        message: fields.message,
        by: match fields.by {
            Way::Triggers => By::Triggers,
            Way::Privileges => By::Privileges,
        },
        patience: patience(fields.lock_timeout, fields.patience),
        trial_as: fields.role,
        ..Fence::default()
    };
    let freezing = Freezing {
        target: target.clone(),
        options: workplace.postgres(&target)?.clone(),
        wish,
        doors: doors(&fields.poolers, workplace)?,
        // The switch that would end it may be skipped in a rehearsal.
        budget: fields.budget.map(|span| span.0).filter(|_| !workplace.is_rehearsal()),
        root: workplace.root().to_owned(),
    };
    Ok(Box::new(FenceStep { target, freezing, workplace: workplace.clone() }))
}

/// The fence's id: told from those of other attempts and other runs.
fn id(cx: &RunCx<'_>) -> String {
    let attempt = format!("{}:{}", cx.step, cx.attempt);
    let run: String = cx.run.chars().take(100).collect();
    format!("{run}:{attempt}")
}

fn evidence(fenced: &Fenced) -> Evidence {
    let weak = if fenced.weak { " by privileges, which superusers pass" } else { "" };
    Evidence::of(format!(
        "{} table(s) of `{}` refuse writes{weak}: writers waited {} ms, the marker is at {}",
        fenced.tables.len(),
        fenced.schema,
        fenced.locked_for.as_millis(),
        fenced.marker
    ))
    .fact("fence", fenced.id.clone())
    .fact("schema", fenced.schema.clone())
    .fact("marker", fenced.marker.to_string())
    .fact("lsn", fenced.lsn.to_string())
    .fact("at", fenced.at.clone())
    .fact("tries", fenced.tries)
    .fact("waited_ms", u64::try_from(fenced.waited.as_millis()).unwrap_or(u64::MAX))
    .fact("locked_ms", u64::try_from(fenced.locked_for.as_millis()).unwrap_or(u64::MAX))
    .fact("tables", fenced.tables.clone())
    .fact("proof", fenced.proof.facts())
}

fn recorded(held: &Held) -> Evidence {
    Evidence::of(format!("`{}` is fenced since {}, the marker is at {}", held.schema, held.since, held.marker))
        .fact("fence", held.id.clone())
        .fact("schema", held.schema.clone())
        .fact("marker", held.marker.to_string())
        .fact("tables", held.tables.clone())
}

impl FenceStep {
    async fn session(&self, name: &str) -> Result<Session, StepError> {
        Session::connect(self.workplace.postgres(&self.target)?, name).await.map_err(PgError::into_step_error)
    }
}

impl Step for FenceStep {
    fn effect(&self) -> Effect {
        Effect::Transactional
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let session = self.session("pgrunbook:plan").await?;
            let wish = &self.freezing.wish;
            let found = table::tables(&session, &wish.schema, &wish.tables).await.map_err(PgError::into_step_error)?;
            let mut change = Change {
                summary: format!("have {} table(s) of `{}` refuse writes", found.tables.len(), wish.schema),
                ..Change::default()
            };
            change.locks = found.tables.iter().map(|table| (table.sql(), "SHARE ROW EXCLUSIVE".to_owned())).collect();
            change.details.push(format!("writers read: {}", wish.message));
            for door in &self.freezing.doors {
                change
                    .details
                    .push(format!("PAUSE {} on pooler `{}`, until a switch or the undo", door.database, door.name));
            }
            match self.freezing.budget {
                Some(budget) => change.details.push(format!("all is undone if no switch is made within {budget:?}")),
                None => change.warnings.push("no `budget`: writers are refused until somebody acts".to_owned()),
            }
            if wish.by == By::Privileges {
                change.warnings.push("by privileges: superusers write on".to_owned());
            }
            for name in found.foreign {
                change.warnings.push(format!("the foreign table {name} cannot be fenced"));
            }
            if found.tables.is_empty() {
                change.warnings.push("there is no such table yet".to_owned());
            }
            if let Standing::Fenced(held) =
                super::state(&session, &wish.schema).await.map_err(PgError::into_step_error)?
            {
                change
                    .warnings
                    .push(format!("`{}` is fenced already, by `{}` since {}", wish.schema, held.id, held.since));
            }
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let entry = Entry::of(cx);
            let wish = Fence {
                id: id(cx),
                run: Some(cx.run.to_owned()),
                operator: cx.operator.to_owned(),
                assert: Some(entry.assert_sql()),
                record: Some(entry.record_sql()),
                ..self.freezing.wish.clone()
            };
            let frozen = Freezing { wish, ..self.freezing.clone() }.begin(cx).await?;
            Ok(evidence(&frozen.fenced))
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let session = self.session("pgrunbook:resolve").await?;
            ledger::settle(&session, cx.run).await.map_err(PgError::into_step_error)?;
            match super::state(&session, &self.freezing.wish.schema).await.map_err(PgError::into_step_error)? {
                Standing::Fenced(held) if held.id == id(cx) => Ok(Happened::Yes(recorded(&held))),
                Standing::Broken { held: Some(held), why } if held.id == id(cx) => {
                    Ok(Happened::Partly(recorded(&held).fact("wrong", why)))
                }
                _ => {
                    // The process that held the budget is gone: whoever it paused goes on.
                    resume_all(self.workplace.root(), &self.freezing.doors, RESUME_BUDGET)
                        .await
                        .map_err(pooler_error)?;
                    Ok(Happened::No)
                }
            }
        })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            freeze::give_up_of(cx.run, std::slice::from_ref(&self.freezing.wish.schema)).await;
            let lift = LiftStep {
                target: self.target.clone(),
                schema: self.freezing.wish.schema.clone(),
                patience: self.freezing.wish.patience.clone(),
                doors: self.freezing.doors.clone(),
                workplace: self.workplace.clone(),
            };
            lift.lift(cx).await
        })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let session = self.session("pgrunbook:resolve").await?;
            ledger::settle(&session, cx.run).await.map_err(PgError::into_step_error)?;
            unfenced(&session, &self.freezing.wish.schema).await
        })
    }
}

async fn unfenced(session: &Session, schema: &str) -> Result<Happened, StepError> {
    Ok(match super::state(session, schema).await.map_err(PgError::into_step_error)? {
        // Poolers may still be paused: resuming again costs nothing.
        Standing::Unfenced => Happened::Partly(Evidence::of(format!("`{schema}` takes writes"))),
        Standing::Fenced(_) | Standing::Broken { .. } => Happened::No,
    })
}

struct LiftStep {
    target: String,
    schema: String,
    patience: Patience,
    doors: Vec<Door>,
    workplace: Workplace,
}

fn build_unfence(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: LiftFields = bound_fields(block)?;
    let target = required_target(block)?;
    workplace.postgres(&target)?;
    Ok(Box::new(LiftStep {
        target,
        schema: fields.schema,
        patience: patience(fields.lock_timeout, fields.patience),
        doors: doors(&fields.poolers, workplace)?,
        workplace: workplace.clone(),
    }))
}

impl LiftStep {
    async fn lift(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let options = self.workplace.postgres(&self.target)?;
        let name = crate::sql::application_name(cx.run, cx.step);
        let session = Session::connect(options, &name).await.map_err(PgError::into_step_error)?;
        let lift = Lift {
            schema: &self.schema,
            id: None,
            by: cx.operator,
            patience: self.patience.clone(),
            assert: Some(Entry::of(cx).assert_sql()),
            record: None,
        };
        let lifted = unfence(&session, &lift, cx.cancel).await.map_err(|error| error.at(&self.target))?;
        resume_all(self.workplace.root(), &self.doors, RESUME_BUDGET).await.map_err(pooler_error)?;
        Ok(lifted_evidence(&self.schema, &lifted))
    }
}

fn lifted_evidence(schema: &str, lifted: &Lifted) -> Evidence {
    let text = match lifted.is_nothing() {
        true => format!("`{schema}` was not fenced"),
        false => format!("{} table(s) of `{schema}` take writes again", lifted.tables.len()),
    };
    let mut evidence = Evidence::of(text).fact("tables", lifted.tables.clone());
    if let Some(id) = &lifted.id {
        evidence = evidence.fact("fence", id.clone());
    }
    if !lifted.left.is_empty() {
        evidence = evidence.fact("disabled_triggers_left", lifted.left.clone());
    }
    if !lifted.not_granted.is_empty() {
        evidence = evidence.fact("not_granted", lifted.not_granted.clone());
    }
    evidence
}

impl Step for LiftStep {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let options = self.workplace.postgres(&self.target)?;
            let session = Session::connect(options, "pgrunbook:plan").await.map_err(PgError::into_step_error)?;
            let standing = super::state(&session, &self.schema).await.map_err(PgError::into_step_error)?;
            let mut change = Change::default();
            change.summary = match standing {
                Standing::Unfenced => format!("lift the fence of `{}`, which has none now", self.schema),
                Standing::Fenced(held) => {
                    format!(
                        "let writers go on in {} table(s) of `{}`, fenced since {}",
                        held.tables.len(),
                        held.schema,
                        held.since
                    )
                }
                Standing::Broken { why, .. } => {
                    change.warnings.extend(why);
                    format!("lift what is left of the fence of `{}`", self.schema)
                }
            };
            change
                .details
                .extend(self.doors.iter().map(|door| format!("RESUME {} on pooler `{}`", door.database, door.name)));
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { self.lift(cx).await })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let options = self.workplace.postgres(&self.target)?;
            let session = Session::connect(options, "pgrunbook:resolve").await.map_err(PgError::into_step_error)?;
            ledger::settle(&session, cx.run).await.map_err(PgError::into_step_error)?;
            unfenced(&session, &self.schema).await
        })
    }
}
