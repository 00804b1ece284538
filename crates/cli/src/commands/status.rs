//! `status`, `show` and `watch`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use pgrunbook_document::StepId;
use pgrunbook_engine::evidence::summary::reviews;
use pgrunbook_engine::journal::{Direction, EndState, Outcome, Sealed};
use pgrunbook_engine::{Cancel, Event, PathStatus, Reminded, Status, StepStatus};
use pgrunbook_steps::fence::{Paused, paused};
use serde_json::json;

use super::after::{self, After};
use super::run::find;
use crate::app::App;
use crate::args::Output;
use crate::console::{Console, aside, line, put};
use crate::exit;
use crate::failure::Failure;

/// Lists the runs, or says where one stands.
pub async fn status(app: &App, run: Option<&str>) -> Result<u8, Failure> {
    let opened = app.open().await?;
    let engine = &opened.engine;
    let Some(run) = run else {
        for run in engine.journal.runs().await? {
            match engine.status(&run).await {
                Ok(status) if app.global.format == Output::Json => put(&summary(&status).to_string()),
                Ok(status) => {
                    let rehearsal = if status.state.rehearsal { ", rehearsal" } else { "" };
                    let review = if status.state.open_reviews().next().is_some() { "  ! to be reviewed" } else { "" };
                    put(&format!(
                        "{run}  {}  ({}{rehearsal})  {}{review}",
                        word(&status),
                        status.state.plan.environment,
                        status.state.plan.title
                    ));
                }
                // A broken run must not hide the others.
                Err(error) if app.global.format == Output::Json => {
                    put(&json!({ "type": "status", "run": run, "error": error.to_string() }).to_string());
                }
                Err(error) => put(&format!("{run}  {error}")),
            }
        }
        for one in paused(&opened.project.root) {
            match app.global.format {
                Output::Json => put(&json!({ "type": "paused", "pooler": one }).to_string()),
                _ => put(&told_paused(&one)),
            }
        }
        return Ok(exit::DONE);
    };
    let status = engine.status(run).await?;
    let after = After::of(engine, &status);
    let console = Console::new(app, &status.state.plan, Cancel::default(), true, false);
    let paths = match engine.paths(run, &console).await {
        Ok(paths) => paths,
        // A target that cannot be asked must not hide where the run stands.
        Err(error) => {
            aside(&format!("the ways back cannot be told now: {error}"));
            Vec::new()
        }
    };
    if app.global.format == Output::Json {
        let mut value = summary(&status);
        value["steps"] = steps(&status);
        after.add_to(&mut value, run, &app.again());
        let of_run = paused(&opened.project.root).into_iter().filter(|one| one.run == run);
        value["paused"] = json!(of_run.collect::<Vec<_>>());
        value["paths"] = paths
            .iter()
            .map(|path| json!({ "path": path.slug, "title": path.title, "open": path.open.is_ok(), "why": path.open.as_ref().err(), "steps": path.steps }))
            .collect();
        put(&value.to_string());
        return Ok(exit::DONE);
    }
    put(&text(&status));
    if let Some(way_back) = &after.way_back {
        put(&way_back.to_string());
    }
    for one in paused(&opened.project.root).iter().filter(|one| one.run == run) {
        put(&told_paused(one));
    }
    put(&shown_paths(&paths));
    if let Some(update) = after.update(run, &app.again(), engine.clock.now()) {
        put(&update);
    }
    Ok(exit::DONE)
}

/// A pooler whose clients may hang, and what lets them go on.
pub fn told_paused(one: &Paused) -> String {
    format!(
        "! pooler `{}` may stand paused by step `{}` of run {}: clients of `{}` wait. `pgrunbook resume {}` or `rollback` lets them go \
         on; by hand: {}",
        one.pooler, one.step, one.run, one.database, one.run, one.command
    )
}

/// Where a run stands, in a word.
fn word(status: &Status) -> String {
    let state = &status.state;
    match (state.ended, &status.holder, state.in_doubt()) {
        (Some(EndState::Completed), ..) => "completed".to_owned(),
        (Some(EndState::RolledBack), ..) => "rolled back".to_owned(),
        (Some(EndState::Aborted), ..) => "aborted".to_owned(),
        (None, Some(holder), _) => format!("under way by {} on {}", holder.operator, holder.host),
        (None, None, Some((step, _))) => format!("unfinished at {step}"),
        (None, None, None) => "open".to_owned(),
    }
}

fn summary(status: &Status) -> serde_json::Value {
    let plan = &status.state.plan;
    json!({
        "type": "status",
        "run": status.run,
        "title": plan.title,
        "environment": plan.environment,
        "state": word(status),
        "ended": status.state.ended,
        "rehearsal": status.state.rehearsal,
        "operator": status.state.operator,
        "content_digest": plan.content_digest,
        "plan_digest": plan.plan_digest,
        "turned_back": status.state.turned_back,
        "reviews": reviews(&status.state),
    })
}

fn steps(status: &Status) -> serde_json::Value {
    let one = |((step, direction), state): (&(StepId, Direction), &StepStatus)| {
        let (word, text) = told(state);
        json!({ "step": step, "direction": direction, "status": word, "text": text, "attempt": state.attempt() })
    };
    status.state.steps.iter().map(one).collect()
}

fn told(state: &StepStatus) -> (&'static str, String) {
    match state {
        StepStatus::Intended { .. } => ("begun", "begun, and no outcome is recorded".to_owned()),
        StepStatus::Done { evidence, .. } => ("done", evidence.summary.clone()),
        StepStatus::Failed { message, .. } => ("failed", message.clone()),
        StepStatus::DidNotHappen { .. } => ("open", "did not happen".to_owned()),
        StepStatus::Unknown { why, .. } => ("unknown", why.clone()),
    }
}

fn text(status: &Status) -> String {
    let state = &status.state;
    let mut text = format!("{}: {}\n", status.run, state.plan.title);
    let _ = writeln!(text, "{} in environment {}, begun by {}", word(status), state.plan.environment, state.operator);
    for one in &state.overrides {
        let _ = match &one.closed {
            Some(closed) => writeln!(text, "  ✓ reviewed: {one}; {}", closed.closing),
            None => writeln!(text, "  ! to be reviewed: {one}"),
        };
    }
    for step in state.plan.all_steps() {
        for direction in [Direction::Forward, Direction::Back] {
            let Some(found) = state.step(&step.id, direction) else { continue };
            let (_, said) = told(found);
            let mark = match found {
                StepStatus::Done { .. } => "✓",
                StepStatus::Failed { .. } => "✗",
                StepStatus::Unknown { .. } => "?",
                StepStatus::Intended { .. } | StepStatus::DidNotHappen { .. } => "·",
            };
            let undo = if direction == Direction::Back { "undo " } else { "" };
            let _ = writeln!(text, "  {mark} {undo}{}  {said}", step.id);
        }
    }
    text
}

/// Every way back, and whether it is open.
pub fn shown_paths(paths: &[PathStatus]) -> String {
    let mut text = String::from("Ways back:\n");
    for path in paths {
        let steps = path.steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let _ = match &path.open {
            Ok(()) => writeln!(
                text,
                "  --path {}  {}: {}",
                path.slug,
                path.title,
                if steps.is_empty() { "nothing to do" } else { &steps }
            ),
            Err(why) => writeln!(text, "  (closed) {}  {}: {why}", path.slug, path.title),
        };
    }
    text.truncate(text.trim_end().len());
    text
}

/// Prints a run's journal.
pub async fn show(app: &App, run: Option<&str>) -> Result<u8, Failure> {
    let opened = app.open().await?;
    let run = find(&opened.engine, run, false).await?.run;
    let events = opened.engine.journal.read(&run).await?;
    for sealed in &events {
        if app.global.format == Output::Json {
            put(&serde_json::to_string(sealed).unwrap_or_default());
            continue;
        }
        let at = sealed.at.strftime("%Y-%m-%d %H:%M:%S");
        match &sealed.event {
            Event::Begun { operator, host, plan, .. } => {
                put(&format!(
                    "{:>4} {at}  begun by {operator} on {host}: {} (plan {})",
                    sealed.seq,
                    plan.title,
                    &plan.plan_digest[..12]
                ));
            }
            Event::Intent { step, attempt, direction } => {
                let undo = if *direction == Direction::Back { "undo " } else { "" };
                put(&format!("{:>4} {at}  > {undo}{step}, attempt {attempt}", sealed.seq));
            }
            event => {
                let text = line(event, None, app.colour()).unwrap_or_else(|| "taken up".to_owned());
                put(&format!("{:>4} {at}  {}", sealed.seq, text.trim()));
            }
        }
        if let Event::Outcome { outcome: Outcome::Done { evidence, .. } | Outcome::Partial { evidence }, .. } =
            &sealed.event
        {
            for (name, value) in &evidence.facts {
                put(&format!("                                {name} = {value}"));
            }
        }
    }
    Ok(exit::DONE)
}

/// How often it is looked whether something came.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Prints the events of a run as they come, until it ends or nobody is at work on it; with `remind` on until it ends, and what a
/// process at work would do about promised updates is done.
pub async fn watch(app: &App, run: Option<&str>, remind: bool) -> Result<u8, Failure> {
    let opened = app.open().await?;
    let engine = &opened.engine;
    let run = find(engine, run, false).await?.run;
    let (mut seen, mut begun) = (0, BTreeMap::new());
    let mut told = None;
    loop {
        for sealed in engine.journal.read(&run).await? {
            if sealed.seq > seen {
                seen = sealed.seq;
                print(app, &sealed, &mut begun);
            }
        }
        let status = engine.status(&run).await?;
        if status.state.ended.is_some() || (status.holder.is_none() && !remind) {
            return Ok(exit::DONE);
        }
        if remind {
            match engine.remind(&run).await? {
                Reminded::Nothing if status.holder.is_none() => {
                    app.aside("no update is promised of this run: nobody is to be reminded");
                    return Ok(exit::DONE);
                }
                Reminded::Nothing | Reminded::AtWork => {}
                // Once for each word that is promised.
                Reminded::Looked(promised) if told != Some(promised.at) => {
                    told = Some(promised.at);
                    app.aside(&format!(
                        "the next word in channel `{}` is due by {}, and overdue at {}",
                        promised.channel,
                        after::clock_time(promised.at),
                        after::clock_time(promised.overdue_at)
                    ));
                }
                Reminded::Looked(_) => {}
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One event, as it came; `begun`: when each step began.
fn print(app: &App, sealed: &Sealed, begun: &mut BTreeMap<StepId, Timestamp>) {
    if app.global.format == Output::Json {
        put(&serde_json::to_string(sealed).unwrap_or_default());
        return;
    }
    let mut took = None;
    match &sealed.event {
        Event::Intent { step, .. } => drop(begun.insert(step.clone(), sealed.at)),
        Event::Outcome { step, .. } => {
            took = begun.get(step).and_then(|at| Duration::try_from(sealed.at.duration_since(*at)).ok());
        }
        _ => {}
    }
    if let Some(text) = line(&sealed.event, took, app.colour()) {
        put(&text);
    }
}
