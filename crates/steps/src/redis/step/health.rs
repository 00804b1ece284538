//! The block: `redis-health = "cache-is-up"`, `target = "cache"`, `max_p99 = "5ms"`, `optional = true`.

use std::time::Duration;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language, Within, parse_duration, parse_within};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;
use serde_json::Value;

use super::{Where, degraded, without};
use crate::redis::health::{Limits, NodeHealth, PINGS, health};
use crate::redis::node::Role;
use crate::registry::{Kind, Skipped, bound_fields, fields};
use crate::workplace::Workplace;

/// The kind `redis-health`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "redis-health",
        language: Language::Toml,
        summary: "Asks a Redis how it is, and holds it against limits.",
        fields: &[
            FieldSpec {
                name: "pings",
                about: "Round trips that are measured; 100 if nothing is said.",
                required: false,
            },
            FieldSpec { name: "max_p50", about: "Half of the round trips take at most this: `1ms`.", required: false },
            FieldSpec { name: "max_p99", about: "99 in 100 take at most this.", required: false },
            FieldSpec {
                name: "max_memory",
                about: "Share of `maxmemory` that may be used, or of the machine's memory where there is none: `80%`.",
                required: false,
            },
            FieldSpec { name: "max_evicted", about: "Keys evicted since the server started.", required: false },
            FieldSpec { name: "role", about: "`primary` or `replica`.", required: false },
            FieldSpec { name: "min_replicas", about: "Replicas that must be online.", required: false },
            FieldSpec {
                name: "max_lag",
                about: "Since the other side of the replication was heard: `10s`.",
                required: false,
            },
            FieldSpec {
                name: "persistent",
                about: "`true`: it writes an AOF or RDB files, and the last writing went well.",
                required: false,
            },
            FieldSpec { name: "within", about: "Try again until it holds: `30s every 1s`.", required: false },
            FieldSpec {
                name: "optional",
                about: "`true`: a Redis that is down or breaks a limit does not stop the run; recorded as degraded.",
                required: false,
            },
            FieldSpec {
                name: "rehearse",
                about: "Whether a rehearsal asks too; else it is skipped there.",
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

/// Asks a Redis how it is.
///
/// Effect: idempotent (it only looks). Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "redis-health")]
    id: String,
    pings: Option<u32>,
    max_p50: Option<String>,
    max_p99: Option<String>,
    max_memory: Option<String>,
    max_evicted: Option<u64>,
    role: Option<RoleWord>,
    min_replicas: Option<u64>,
    max_lag: Option<String>,
    #[serde(default)]
    persistent: bool,
    within: Option<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    rehearse: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleWord {
    Primary,
    Replica,
}

struct Health {
    place: Where,
    limits: Limits,
    pings: u32,
    within: Option<Within>,
    optional: bool,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let wrong = |what: String| StepError::unusable("bad-value", format!("step `{}`: {what}", fields.id));
    let time = |name: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => parse_duration(text).map(Some).ok_or_else(|| wrong(format!("write {name} = \"5ms\""))),
    };
    let max_memory_percent = match &fields.max_memory {
        None => None,
        Some(text) => Some(percent(text).ok_or_else(|| wrong("write max_memory = \"80%\"".to_owned()))?),
    };
    let limits = Limits {
        max_p50: time("max_p50", &fields.max_p50)?,
        max_p99: time("max_p99", &fields.max_p99)?,
        max_memory_percent,
        max_evicted: fields.max_evicted,
        role: fields.role.map(|role| match role {
            RoleWord::Primary => Role::Primary,
            RoleWord::Replica => Role::Replica,
        }),
        min_replicas: fields.min_replicas,
        max_lag: time("max_lag", &fields.max_lag)?,
        persistent: fields.persistent,
    };
    let within = match &fields.within {
        None => None,
        Some(text) => Some(parse_within(text).ok_or_else(|| wrong("write within = \"30s every 1s\"".to_owned()))?),
    };
    let place = Where::of(block, workplace)?;
    if workplace.is_rehearsal() && !fields.rehearse {
        return Ok(Box::new(Skipped(Effect::Idempotent)));
    }
    Ok(Box::new(Health { place, limits, pings: fields.pings.unwrap_or(PINGS), within, optional: fields.optional }))
}

/// `80%`.
fn percent(text: &str) -> Option<f64> {
    let number: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&number).then_some(number)
}

impl Step for Health {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let optional = if self.optional { "; may be down" } else { "" };
            let summary = format!("ask {} how it is, by {} pings{optional}", self.place.options()?.shown(), self.pings);
            Ok(Change { summary, ..Change::default() })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let options = self.place.options()?;
            let begin = cx.clock.instant();
            loop {
                let asked = health(options, self.pings, self.place.timeout).await;
                let faults: Vec<String> = match &asked {
                    Ok(nodes) => nodes.iter().flat_map(|node| node.faults(&self.limits)).collect(),
                    Err(fault) => vec![fault.to_string()],
                };
                let Some(first) = faults.first() else {
                    return Ok(evidence(&asked.unwrap_or_default(), "as it should be"));
                };
                let again = self.within.filter(|within| cx.clock.instant() - begin + within.every <= within.limit);
                let Some(within) = again.filter(|_| !cx.cancel.is_stopping()) else {
                    return match asked {
                        Ok(_) if self.optional => Ok(degraded(&faults.join("; ")).fact("faults", faults)),
                        Ok(nodes) => {
                            let evidence = evidence(&nodes, first).fact("faults", faults.clone());
                            Err(StepError::failed("gate", faults.join("; ")).evidence(evidence))
                        }
                        Err(fault) => without(self.optional, fault),
                    };
                };
                cx.say(format!("{first}; again in {:?}", within.every));
                tokio::select! {
                    () = cx.clock.sleep(within.every) => {}
                    () = cx.cancel.stopping() => {}
                }
            }
        })
    }
}

fn evidence(nodes: &[NodeHealth], verdict: &str) -> Evidence {
    let summary = match nodes {
        [one] => format!("{}: {verdict}", one.line()),
        all => {
            let slowest = all.iter().map(NodeHealth::p99).max().unwrap_or(Duration::ZERO);
            format!("{} servers, the slowest p99 {slowest:?}: {verdict}", all.len())
        }
    };
    let servers: Vec<Value> = nodes.iter().map(NodeHealth::json).collect();
    Evidence::of(summary).fact("servers", servers)
}
