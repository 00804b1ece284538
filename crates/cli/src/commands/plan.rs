//! `plan`: what a runbook would do.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use pgrunbook_engine::demand::window::{self, Window, Windows};
use pgrunbook_engine::plan::{PlannedEntry, PlannedPhase, PlannedStep, PlannedUndo};
use pgrunbook_engine::way_back::shown as shown_time;
use pgrunbook_engine::{Engine, Plan};

use super::lint::write_whole;
use crate::app::{App, variables};
use crate::args::{Output, Vars};
use crate::console::{paint, put};
use crate::exit;
use crate::failure::Failure;

/// Prints the plan, and saves it where it is wanted. Exit 1 if a step could not run now.
pub async fn plan(app: &App, file: &Path, vars: &Vars, out: Option<&Path>) -> Result<u8, Failure> {
    let runbook = app.runbook(file)?;
    let opened = app.open().await?;
    let plan = opened
        .engine
        .plan(&runbook, &variables(&vars.vars)?)
        .await
        .map_err(|error| Failure::of_plan(error, &runbook.sources, app.colour()))?;
    match app.global.format {
        Output::Json => put(&serde_json::to_string(&plan).unwrap_or_default()),
        _ => put(&shown(&plan, &opened.engine, app.colour())),
    }
    if let Some(out) = out {
        let text = serde_json::to_string_pretty(&plan).unwrap_or_default();
        write_whole(&app.surroundings.cwd.join(out), &text)?;
        if app.global.format != Output::Json {
            put(&format!("Saved as {0}. Run it: pgrunbook run {1} --plan {0}", out.display(), file.display()));
        }
    }
    let blocked = plan.steps().any(|step| step.change.blocked.is_some());
    Ok(if blocked { exit::FAILED } else { exit::DONE })
}

/// A plan for people.
pub fn shown(plan: &Plan, engine: &Engine, colour: bool) -> String {
    let environment = &engine.environment;
    let mut text = String::new();
    let bold = |text: &str| paint(colour, "1", text);
    let _ = writeln!(text, "{}", bold(&plan.title));
    let protected = if plan.protected { ", protected" } else { "" };
    let _ = writeln!(text, "environment {}{protected}", plan.environment);
    for target in &plan.targets {
        let _ = writeln!(text, "target {}: {}", target.name, target.shown);
    }
    for phase in &plan.phases {
        section(&mut text, phase, &bold(&phase.title), colour);
    }
    for path in &plan.rollback_paths {
        section(
            &mut text,
            path,
            &format!(
                "{} {}",
                bold(&path.title),
                paint(colour, "2", &format!("(only with `rollback --path {}`)", path.slug))
            ),
            colour,
        );
    }
    let coverage = plan.undo_coverage();
    let _ = writeln!(text);
    let _ = writeln!(
        text,
        "Undo: {} of {} changing steps can be taken back.{}",
        coverage.undoable,
        coverage.changing,
        match coverage.one_way.as_slice() {
            [] => String::new(),
            steps => format!(" One way: {}.", steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        }
    );
    if coverage.undoable > 0 || !plan.rollback_paths.is_empty() {
        let _ = match plan.rollback_within() {
            Some(within) => writeln!(text, "Way back: at most {}, as declared; it is measured.", shown_time(within)),
            None => writeln!(text, "Way back: how long it may take is not declared (`rollback_within`)."),
        };
    }
    let mut demands = Vec::new();
    if environment.rehearsal_required {
        demands.push("a rehearsal of this content".to_owned());
    }
    if let Some(other) = &environment.rehearsed_in {
        let back = if environment.rehearsed_back { " and back" } else { "" };
        demands.push(format!("a run of this content in `{other}`{back}"));
    }
    if environment.deployment_log_required {
        demands.push("a row in the target's deployment log".to_owned());
    }
    if !environment.windows.is_empty() {
        demands.push(window(&environment.windows, engine.clock.now()));
    }
    if engine.incidents.is_some() {
        demands.push("no open incident".to_owned());
    }
    if environment.approvals > 0 {
        demands.push(format!("{} approval(s) of this plan", environment.approvals));
    }
    if let Some(confirm) = &environment.confirm {
        demands.push(format!("the text \"{confirm}\""));
    }
    if !demands.is_empty() {
        let _ = writeln!(text, "Before the first step: {}.", demands.join(", "));
    }
    let _ = writeln!(text, "content {}", plan.content_digest);
    let _ = write!(text, "plan    {}", plan.plan_digest);
    text
}

/// The windows, and how they stand.
fn window(windows: &[Window], now: Timestamp) -> String {
    let texts: Vec<_> = windows.iter().map(|window| format!("`{}`", window.text())).collect();
    let stands = match Windows::at(windows, now) {
        Windows::Open { until: None } => "open now".to_owned(),
        Windows::Open { until: Some(end) } => {
            format!("open now, until {}, {} left", window::shown(&end), window::until(&end, now))
        }
        Windows::Closed { next: Some(next) } => format!("closed now, the next opens {}", window::shown(&next)),
        Windows::Closed { next: None } => "closed now, and none opens within two weeks".to_owned(),
    };
    format!("a window ({}: {stands})", texts.join(", "))
}

fn section(text: &mut String, phase: &PlannedPhase, title: &str, colour: bool) {
    if phase.entries.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    for entry in &phase.entries {
        match entry {
            PlannedEntry::Item { text: line, roles, proofs, .. } => {
                let roles = if roles.is_empty() { String::new() } else { format!(" (@{})", roles.join(", @")) };
                let how = if proofs.is_empty() { ": a person confirms" } else { ", proven by:" };
                let _ = writeln!(text, "  □ {line}{roles}{how}");
            }
            PlannedEntry::Step(step) => one(text, step, colour),
        }
    }
}

fn one(text: &mut String, step: &PlannedStep, colour: bool) {
    let dim = |text: &str| paint(colour, "2", text);
    let target = step.target.as_ref().map_or_else(String::new, |target| format!(" on {target}"));
    let _ = writeln!(text, "  • {} {}{target}: {}", step.kind, step.id, step.change.summary);
    for line in &step.change.details {
        let _ = writeln!(text, "      {}", dim(line));
    }
    for (relation, mode) in &step.change.locks {
        let _ = writeln!(text, "      locks {relation}: {mode}");
    }
    for line in &step.change.warnings {
        let _ = writeln!(text, "      {} {line}", paint(colour, "33", "warning:"));
    }
    if let Some(why) = &step.change.blocked {
        let _ = writeln!(text, "      {} {why}", paint(colour, "31", "cannot run now:"));
    }
    let undo = match &step.undo {
        PlannedUndo::NotNeeded => return,
        PlannedUndo::Own { word } => format!("undone by itself ({word})"),
        PlannedUndo::Block { id, .. } => format!("undone by `{id}`"),
        PlannedUndo::Nothing { why } => format!("nothing to undo: {why}"),
        PlannedUndo::OneWay { why } => format!("cannot be undone: {why}; needs an approval"),
    };
    let _ = writeln!(text, "      {}", dim(&undo));
}
