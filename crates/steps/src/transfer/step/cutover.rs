//! The block: `cutover = "to-the-new-side"`, `target = "main"`, `schemas = ["health"]`, `undo = "auto"`.

use std::time::Duration;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::pgbouncer::Door;
use serde::Deserialize;

use super::{duration, recorded, records};
use crate::fence::{RESUME_BUDGET, freeze, resume_all};
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::transfer::crossing::{Asked, Owner, Parity, Who, cutover, recover};
use crate::transfer::spec::Side;
use crate::transfer::state::Phase;
use crate::workplace::Workplace;

/// How long the streams may take to catch up before anything is fenced.
const CATCH_UP: Duration = Duration::from_secs(600);

/// How long writers may wait in all.
const BUDGET: Duration = Duration::from_secs(5);

/// How long one try to lock may hold writers up.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// The kind `cutover`.
pub const CUTOVER: Kind = Kind {
    spec: KindSpec {
        name: "cutover",
        language: Language::Toml,
        summary: "Fences the side that takes writes, applies the rest, proves both sides equal, and opens the other side.",
        fields: &[
            FieldSpec {
                name: "schemas",
                about: "The transfers that cut over at one moment, by their schemas in the target.",
                required: true,
            },
            FieldSpec {
                name: "to",
                about: "`target`; or `source`, to go back without losing a write.",
                required: false,
            },
            FieldSpec {
                name: "budget",
                about: "How long writers may wait until the other side is open; else everything is undone. `5s`.",
                required: false,
            },
            FieldSpec {
                name: "lock_timeout",
                about: "How long one try to lock may hold writers up. `500ms`.",
                required: false,
            },
            FieldSpec {
                name: "patience",
                about: "How long the streams may take to catch up before anything is fenced. `10m`.",
                required: false,
            },
            FieldSpec {
                name: "poolers",
                about: "PgBouncers that are paused first, as targets; a `switch` resumes them, or whoever leaves the run.",
                required: false,
            },
            FieldSpec {
                name: "switch_within",
                about: "A `switch` must follow so soon after the first lock, else everything is undone; with `poolers` as soon as `budget`, if nothing is said.",
                required: false,
            },
            FieldSpec { name: "message", about: "What refused writers read; `{table}` is the table.", required: false },
            FieldSpec {
                name: "as",
                about: "The application's role: a write is tried as it where it must be refused.",
                required: false,
            },
            FieldSpec {
                name: "parity",
                about: "`changed`: rows that changed since both sides were compared. `full`: all rows, while writers wait.",
                required: false,
            },
        ],
        needs_target: true,
        changes: true,
        undo_words: &["auto"],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Moves the right to write from one side to the other.
///
/// Effect: resolvable (the transfer's record and the fences say which side takes writes). Undo: `auto`, the same the
/// other way round.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "cutover")]
    _id: String,
    schemas: Vec<String>,
    #[serde(default = "target")]
    to: Side,
    budget: Option<String>,
    lock_timeout: Option<String>,
    patience: Option<String>,
    #[serde(default)]
    poolers: Vec<String>,
    switch_within: Option<String>,
    message: Option<String>,
    #[serde(rename = "as")]
    role: Option<String>,
    #[serde(default)]
    parity: Parity,
}

fn target() -> Side {
    Side::Target
}

struct Cutover {
    target: String,
    to: Side,
    asked: Asked,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    if fields.schemas.is_empty() {
        return Err(StepError::unusable("bad-value", format!("step `{}` names no schema", block.id)));
    }
    let budget = duration(fields.budget.as_deref(), BUDGET)?;
    let doors = fields
        .poolers
        .iter()
        .map(|name| Ok(Door::through(name, workplace.postgres(name)?)))
        .collect::<Result<Vec<_>, StepError>>()?;
    let switch_within = match &fields.switch_within {
        // The switch may be skipped there.
        _ if workplace.is_rehearsal() => None,
        Some(text) => Some(duration(Some(text), budget)?),
        None if doors.is_empty() => None,
        None => Some(budget),
    };
    Ok(Box::new(Cutover {
        target: required_target(block)?,
        to: fields.to,
        asked: Asked {
            schemas: fields.schemas,
            budget,
            lock_timeout: duration(fields.lock_timeout.as_deref(), LOCK_TIMEOUT)?,
            catch_up: duration(fields.patience.as_deref(), CATCH_UP)?,
            doors,
            switch_within,
            message: fields.message,
            trial_as: fields.role,
            parity: fields.parity,
        },
        workplace: workplace.clone(),
    }))
}

impl Cutover {
    async fn go(&self, cx: &RunCx<'_>, asked: &Asked, to: Side) -> Result<Evidence, StepError> {
        let say = |line: String| cx.say(line);
        // The marker of every attempt is another one.
        let id = format!("{}.{}.{}.{}", cx.run, cx.step, if to == self.to { "go" } else { "undo" }, cx.attempt);
        let who = Who {
            run: cx.run,
            operator: cx.operator,
            id: &id,
            step: cx.step.as_str(),
            direction: cx.direction,
            epoch: cx.epoch,
            folder: cx.artifacts,
        };
        cutover(&self.workplace, &self.target, asked, to, &who, cx.cancel, &say).await
    }

    /// Settles what a process before this one left half done.
    async fn recovered(&self, cx: &RunCx<'_>) -> Result<(), StepError> {
        let by = Owner { run: cx.run, epoch: cx.epoch, operator: cx.operator };
        recover(&self.workplace, &self.target, &self.asked.schemas, &by).await
    }

    /// Lets the poolers' clients go on, whichever side takes their writes.
    async fn resumed(&self) -> Result<(), StepError> {
        let resumed = resume_all(self.workplace.root(), &self.asked.doors, RESUME_BUDGET).await;
        resumed.map_err(|stuck| {
            StepError::failed("pooler-stuck", stuck.to_string()).help("type it now; then `pgrunbook resume`")
        })
    }

    /// Whether all transfers are on that side; `None` if some are and some are not.
    async fn are_at(&self, cx: &RunCx<'_>, to: Side) -> Result<Option<bool>, StepError> {
        self.recovered(cx).await?;
        let session = records(&self.workplace, &self.target, "pgrunbook:resolve").await?;
        let mut there = 0;
        for schema in &self.asked.schemas {
            let phase = recorded(&session, schema).await?.phase;
            there += usize::from((phase == Phase::Switched) == (to == Side::Target));
        }
        Ok(match there {
            0 => Some(false),
            all if all == self.asked.schemas.len() => Some(true),
            _ => None,
        })
    }

    async fn happened(&self, cx: &RunCx<'_>, to: Side) -> Result<Happened, StepError> {
        // Whoever was to resume them is gone, or does not know where it stands. One that does not answer keeps nobody from knowing
        // which side takes writes.
        if let Err(stuck) = self.resumed().await {
            cx.say(stuck.message);
        }
        let side = if to == Side::Target { "target" } else { "source" };
        Ok(match self.are_at(cx, to).await? {
            Some(true) => Happened::Yes(Evidence::of(format!("the {side} takes the writes"))),
            Some(false) => Happened::No,
            None => Happened::Partly(Evidence::of(format!("the {side} takes the writes of some schemas"))),
        })
    }
}

impl Step for Cutover {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let (from, to) = match self.to {
                Side::Target => ("source", "target"),
                Side::Source => ("target", "source"),
            };
            let schemas = self.asked.schemas.join(", ");
            let mut change = Change {
                summary: format!("fence the {from} of {schemas}, apply the rest, compare, open the {to}"),
                ..Change::default()
            };
            change.details.push(format!(
                "writers wait at most {:.1} s for the {to}; then everything is undone and they go on",
                self.asked.budget.as_secs_f64()
            ));
            change.details.push(match self.asked.switch_within {
            Some(within) => format!(
                "a switch must follow within {:.1} s of the first lock, and before the run is left; else everything is undone",
                within.as_secs_f64()
            ),
            None => format!("after that writers at the {from} are refused (SQLSTATE 25006) until they are led elsewhere"),
        });
            for door in &self.asked.doors {
                change
                    .details
                    .push(format!("PgBouncer {} is paused until a switch resumes it, or the run is left", door.name));
            }
            for schema in &self.asked.schemas {
                change.locks.push((format!("all tables of {schema} on the {from}"), "SHARE ROW EXCLUSIVE".to_owned()));
            }
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            self.recovered(cx).await?;
            self.go(cx, &self.asked, self.to).await
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { self.happened(cx, self.to).await })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            // What no switch has ended is undone already, or is now.
            freeze::give_up_of(cx.run, &self.asked.schemas).await;
            self.recovered(cx).await?;
            // Traffic was led back before, and nothing follows that could end another freeze.
            let asked = Asked { switch_within: None, ..self.asked.clone() };
            let outcome = self.go(cx, &asked, self.to.other()).await;
            let resumed = self.resumed().await;
            match (outcome, resumed) {
                (Ok(evidence), Ok(())) => Ok(evidence),
                (Ok(evidence), Err(stuck)) => Err(stuck.evidence(evidence)),
                (Err(error), Ok(())) => Err(error),
                (Err(error), Err(stuck)) => Err(StepError { message: format!("{error} And {stuck}"), ..error }),
            }
        })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { self.happened(cx, self.to.other()).await })
    }
}
