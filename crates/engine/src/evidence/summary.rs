//! The deployment summary: one page of a run for those who were not there, and what is left to do after it.
//!
//! Made of the journal alone, like the report, and so the same whenever it is asked for.

use std::fmt::Write as _;

use jiff::Timestamp;
use pgrunbook_document::StepId;
use serde_json::{Value, json};

use super::report::{code, heading, inline, table, when};
use super::{demands, word};
use crate::journal::{Direction, Event, ItemOutcome, Sealed};
use crate::plan::{PlannedEntry, PlannedUndo};
use crate::state::{Overriding, RunState, Slot, StepStatus};
use crate::way_back::WayBack;

/// The fact in which a step records the migrations that it applied: `[{"version": "0011", "duration_ms": 12}]`.
pub const MIGRATIONS: &str = "migrations";

/// The fact in which a step records the version that applications read: `{"place": ..., "before": ..., "after": ...}`.
pub const VERSION_ROW: &str = "version_row";

/// What a run did to an environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub run: String,
    /// `completed`, `rolled back`, `not ended`.
    pub ended: &'static str,
    /// The step that failed or is unknown, and why, where the run stands at one.
    pub stands_at: Option<(StepId, String)>,
    /// The line or step that is next, where something is left in the run's direction.
    pub next: Option<String>,
    pub steps_done: usize,
    pub steps: usize,
    pub migrations: Vec<Migrated>,
    pub versions: Vec<VersionChange>,
    /// Before the first step.
    pub since: Option<Timestamp>,
    /// The last event.
    pub until: Option<Timestamp>,
    pub checklist: Vec<Open>,
    /// Everybody who took the run, in order, each once.
    pub operators: Vec<String>,
    /// How long the way back took, or has taken up to the last event; `None`: it did not turn back.
    pub way_back: Option<WayBack>,
}

/// A migration that a step applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    pub step: StepId,
    pub version: String,
    pub duration_ms: Option<u64>,
}

/// The version that applications read, before a step and after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionChange {
    pub place: String,
    /// `None`: there was none.
    pub before: Option<String>,
    pub after: Option<String>,
}

/// A line that somebody must still look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub text: String,
    pub roles: Vec<String>,
    /// The phase of the runbook; `None`: the environment names it.
    pub phase: Option<String>,
}

impl Summary {
    /// Of a run's state and its whole journal. `after`: what the environment wants to be looked at after a deployment.
    pub fn of(run: &str, state: &RunState, events: &[Sealed], after: &[String]) -> Self {
        let stands_at = state.steps.iter().find_map(|((step, _), status)| match status {
            StepStatus::Failed { message, .. } => Some((step.clone(), message.clone())),
            StepStatus::Unknown { why, .. } => {
                Some((step.clone(), format!("nobody can tell whether it happened: {why}")))
            }
            StepStatus::Intended { .. } | StepStatus::Done { .. } | StepStatus::DidNotHappen { .. } => None,
        });
        let mut operators: Vec<String> = Vec::new();
        for sealed in events {
            if let Event::Claimed { operator, .. } = &sealed.event
                && !operators.contains(operator)
            {
                operators.push(operator.clone());
            }
        }
        let named = after.iter().map(|text| Open { text: text.clone(), roles: Vec::new(), phase: None });
        Self {
            run: run.to_owned(),
            ended: word(state),
            stands_at,
            next: next(state),
            steps_done: state.plan.steps().filter(|step| state.is_done(&step.id)).count(),
            steps: state.plan.steps().count(),
            migrations: migrations(state),
            versions: versions(state),
            since: events.iter().find(|sealed| matches!(sealed.event, Event::Intent { .. })).map(|sealed| sealed.at),
            until: events.last().map(|sealed| sealed.at),
            checklist: open_lines(state).into_iter().chain(named).collect(),
            operators,
            way_back: events.last().and_then(|last| WayBack::of(state, last.at)),
        }
    }

    /// For people. `evidence`: where the bundle is, or how it is made.
    pub fn markdown(&self, state: &RunState, evidence: &str) -> String {
        let plan = &state.plan;
        let mut text = format!("# Deployment: {}\n\n", inline(&plan.title));
        let took = self.took_millis().map_or_else(String::new, |millis| format!(", in {}", shown_millis(millis)));
        let _ = writeln!(text, "**{}** in environment {}{took}.\n", self.ended, code(&plan.environment));
        match (&self.stands_at, &self.next) {
            (Some((step, why)), _) => _ = writeln!(text, "It stands at {}: {}\n", code(step.as_str()), inline(why)),
            (None, Some(next)) => _ = writeln!(text, "Next: {}\n", inline(next)),
            (None, None) => {}
        }
        if let Some(way_back) = &self.way_back {
            let _ = writeln!(text, "{way_back}\n");
        }
        let people: Vec<_> = state
            .approvals
            .iter()
            .map(|approval| {
                let roles =
                    if approval.roles.is_empty() { String::new() } else { format!(" ({})", approval.roles.join(", ")) };
                inline(&format!("{}{roles}", approval.principal))
            })
            .collect();
        let times = match (self.since, self.until) {
            (Some(since), Some(until)) => format!("{} to {}", when(since), when(until)),
            _ => "no step was begun".to_owned(),
        };
        let targets: Vec<_> =
            plan.targets.iter().map(|target| format!("{}: {}", inline(&target.name), code(&target.shown))).collect();
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        table(
            &mut text,
            &["", ""],
            &[
                row("run", code(&self.run)),
                row("runbook", code(&plan.runbook)),
                row("targets", targets.join("; ")),
                row("run by", inline(&self.operators.join(", "))),
                row("approved by", if people.is_empty() { "nobody".to_owned() } else { people.join(", ") }),
                row("steps", format!("{} of {} done", self.steps_done, self.steps)),
                row("time", times),
                row("content digest", code(&plan.content_digest)),
                row("plan digest", code(&plan.plan_digest)),
                row("evidence", inline(evidence)),
            ],
        );
        demands::section(&mut text, state);
        for version in &self.versions {
            let shown = |version: &Option<String>| version.as_deref().map_or_else(|| "none".to_owned(), code);
            let (before, after) = (shown(&version.before), shown(&version.after));
            let _ = writeln!(text, "Schema version in {}: {before} before, {after} now.\n", code(&version.place));
        }
        if !self.migrations.is_empty() {
            heading(&mut text, "Migrations");
            let rows: Vec<_> = self
                .migrations
                .iter()
                .map(|one| {
                    let took = one.duration_ms.map_or_else(String::new, |millis| shown_millis(millis.into()));
                    vec![code(&one.version), code(one.step.as_str()), took]
                })
                .collect();
            table(&mut text, &["applied", "step", "took"], &rows);
        }
        heading(&mut text, "Post-deployment checklist");
        if self.checklist.is_empty() {
            text.push_str("Nothing is left open.\n");
        }
        for one in &self.checklist {
            let mut line = one.text.clone();
            if !one.roles.is_empty() {
                let _ = write!(line, " (@{})", one.roles.join(", @"));
            }
            if let Some(phase) = &one.phase {
                let _ = write!(line, " — {phase}");
            }
            let _ = writeln!(text, "- [ ] {}", inline(&line));
        }
        text
    }

    /// The same as one object. Format version 1: fields may be added.
    pub fn json(&self, state: &RunState, evidence: &str) -> Value {
        let plan = &state.plan;
        let millis = self.took_millis();
        json!({
            "format": 1,
            "run": self.run,
            "title": plan.title,
            "runbook": plan.runbook,
            "environment": plan.environment,
            "ended": self.ended,
            "stands_at": self.stands_at.as_ref().map(|(step, why)| json!({ "step": step, "why": why })),
            "next": self.next,
            "steps": { "done": self.steps_done, "all": self.steps },
            "content_digest": plan.content_digest,
            "plan_digest": plan.plan_digest,
            "targets": plan.targets.iter().map(|one| json!({ "name": one.name, "shown": one.shown })).collect::<Vec<_>>(),
            "operators": self.operators,
            "approvals": state.approvals.iter()
                .map(|one| json!({ "principal": one.principal, "roles": one.roles, "key": one.key })).collect::<Vec<_>>(),
            "demands": state.demands,
            "reviews": reviews(state),
            "migrations": self.migrations.iter()
                .map(|one| json!({ "step": one.step, "version": one.version, "duration_ms": one.duration_ms }))
                .collect::<Vec<_>>(),
            "versions": self.versions.iter()
                .map(|one| json!({ "place": one.place, "before": one.before, "after": one.after })).collect::<Vec<_>>(),
            "since": self.since,
            "until": self.until,
            "duration_ms": millis.and_then(|millis| u64::try_from(millis).ok()),
            "way_back": self.way_back.as_ref().map(WayBack::json),
            "evidence": evidence,
            "checklist": self.checklist.iter()
                .map(|one| json!({ "text": one.text, "roles": one.roles, "phase": one.phase })).collect::<Vec<_>>(),
        })
    }

    fn took_millis(&self) -> Option<i128> {
        Some(self.until?.duration_since(self.since?).as_millis())
    }
}

/// The review items of a run, as they leave the process.
pub fn reviews(state: &RunState) -> Vec<Value> {
    state.overrides.iter().map(review).collect()
}

/// A review item as it leaves the process. Format version 1: fields may be added. `closed` is `null` while it is open.
pub fn review(one: &Overriding) -> Value {
    let closed = one.closed.as_ref().map(|closed| {
        let closing = &closed.closing;
        json!({ "by": closing.by, "reason": closing.reason, "at": closed.at, "key": closing.key })
    });
    json!({
        "item": one.seq, "demand": one.demand, "by": one.by, "reason": one.reason, "found": one.found, "at": one.at,
        "closed": closed,
    })
}

fn next(state: &RunState) -> Option<String> {
    if state.ended.is_some() {
        return None;
    }
    let item = match state.next()? {
        Slot::Step(step) => return Some(format!("step {step}")),
        Slot::Item(item) => item,
    };
    let entries = state.plan.phases.iter().chain(&state.plan.rollback_paths).flat_map(|phase| &phase.entries);
    entries.into_iter().find_map(|entry| match entry {
        PlannedEntry::Item { id, text, .. } if id == item => Some(text.clone()),
        _ => None,
    })
}

fn migrations(state: &RunState) -> Vec<Migrated> {
    let mut found = Vec::new();
    for step in &state.done_order {
        let fact = state.recorded.get(step).and_then(|evidence| evidence.facts.get(MIGRATIONS));
        for one in fact.and_then(Value::as_array).into_iter().flatten() {
            let Some(version) = one["version"].as_str() else { continue };
            let (step, version) = (step.clone(), version.to_owned());
            found.push(Migrated { step, version, duration_ms: one["duration_ms"].as_u64() });
        }
    }
    found
}

fn versions(state: &RunState) -> Vec<VersionChange> {
    let facts = state.done_order.iter().filter_map(|step| state.recorded.get(step)?.facts.get(VERSION_ROW));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let one = |fact: &Value| {
        Some(VersionChange { place: text(&fact["place"])?, before: text(&fact["before"]), after: text(&fact["after"]) })
    };
    facts.filter_map(one).collect()
}

/// The lines behind the last change that nobody has settled and no step has proven. A run that turned back has none.
fn open_lines(state: &RunState) -> Vec<Open> {
    if state.turned_back.is_some() {
        return Vec::new();
    }
    let entries: Vec<_> =
        state.plan.phases.iter().flat_map(|phase| phase.entries.iter().map(move |entry| (phase, entry))).collect();
    let changes =
        |entry: &PlannedEntry| matches!(entry, PlannedEntry::Step(step) if step.undo != PlannedUndo::NotNeeded);
    let behind = entries.iter().rposition(|(_, entry)| changes(entry)).map_or(0, |last| last + 1);
    let open = |(phase, entry): &(&crate::plan::PlannedPhase, &PlannedEntry)| match entry {
        PlannedEntry::Item { id, text, roles, proofs } => {
            let settled = match proofs.as_slice() {
                [] => state.items.get(id).is_some_and(|item| item.outcome != ItemOutcome::Refused),
                proofs => proofs
                    .iter()
                    .all(|proof| matches!(state.step(proof, Direction::Forward), Some(StepStatus::Done { .. }))),
            };
            (!settled).then(|| Open { text: text.clone(), roles: roles.clone(), phase: Some(phase.title.clone()) })
        }
        PlannedEntry::Step(_) => None,
    };
    entries[behind..].iter().filter_map(open).collect()
}

pub(crate) fn shown_millis(millis: i128) -> String {
    match millis {
        millis if millis < 1_000 => format!("{millis} ms"),
        millis if millis < 60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        millis if millis % 60_000 < 1_000 => format!("{} min", millis / 60_000),
        millis => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1_000),
    }
}
