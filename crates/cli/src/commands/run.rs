//! `run`, `resume`, `rollback` and `rehearse`.

use std::collections::BTreeMap;
use std::path::Path;

use pgrunbook_document::{ItemId, StepId};
use pgrunbook_engine::journal::{Decision, Direction, ItemOutcome};
use pgrunbook_engine::{
    Cancel, Engine, ItemAnswer, Override, Plan, Purpose, RunEnd, RunOptions, Status, UNDO, Waiting,
};
use pgrunbook_steps::breach::{BreachError, Report, break_in};
use pgrunbook_steps::rehearse::Rehearsal;
use pgrunbook_steps::typed::quoted;
use pgrunbook_steps::{Opened, Source, rehearse as rehearsal};
use serde::Deserialize;

use super::after::After;
use crate::app::{App, variables};
use crate::args::{Consent, Output, Overrides, Vars};
use crate::console::{Console, aside, put};
use crate::exit;
use crate::failure::Failure;
use crate::signals;

/// Plans (or takes a saved plan), begins and runs.
pub async fn run(
    app: &App,
    file: &Path,
    saved: Option<&Path>,
    vars: &Vars,
    consent: &Consent,
    overrides: &Overrides,
) -> Result<u8, Failure> {
    let overrides = super::demands::overrides(&overrides.overrides, &overrides.reason)?;
    let opened = app.open().await?;
    let plan = planned(app, &opened, file, saved, vars).await?;
    let options = options(app, &opened, &plan, consent, overrides)?;
    let (run, end) = go(app, &opened, &plan, &options, consent).await?;
    finish(app, &opened.engine, &run, end).await
}

/// The plan of a file, or the saved one as it is still right.
pub async fn planned(
    app: &App,
    opened: &Opened,
    file: &Path,
    saved: Option<&Path>,
    vars: &Vars,
) -> Result<Plan, Failure> {
    let runbook = app.runbook(file)?;
    let engine = &opened.engine;
    let Some(path) = saved else {
        let plan = engine.plan(&runbook, &variables(&vars.vars)?).await;
        return plan.map_err(|error| Failure::of_plan(error, &runbook.sources, app.colour()));
    };
    let text = super::lint::read(app, path)?;
    let saved: Plan = serde_json::from_str(&text)
        .map_err(|error| Failure::unusable("plan", format!("{} is no plan: {error}", path.display())))?;
    if !saved.is_whole() {
        return Err(Failure::unusable(
            "moved",
            format!("{} was edited: its digest is not that of its content. Nothing was touched", path.display()),
        )
        .help("make a new plan and let it be approved"));
    }
    Ok(engine.renew(&saved, &runbook).await?)
}

/// Begins a run of a plan, and takes it as far as it goes.
pub async fn go(
    app: &App,
    opened: &Opened,
    plan: &Plan,
    options: &RunOptions,
    consent: &Consent,
) -> Result<(String, RunEnd), Failure> {
    let engine = &opened.engine;
    let run = engine.begin_with(plan.clone(), Purpose::Real, options).await?;
    say(app, &format!("Run {run}: {}", plan.title));
    let console = Console::new(app, plan, options.cancel.clone(), consent.no_input, false);
    let end = engine.run(&run, options, &console).await?;
    Ok((run, end))
}

/// Goes on with a run.
pub async fn resume(
    app: &App,
    run: Option<&str>,
    decide: Option<&str>,
    consent: &Consent,
    overrides: &Overrides,
    summary: Option<&Path>,
) -> Result<u8, Failure> {
    // The first reason is for the decision, unless there is one for all.
    let reasons = match decide {
        Some(_) if overrides.reason.len() > 1 => &overrides.reason[1..],
        _ => overrides.reason.as_slice(),
    };
    let given = super::demands::overrides(&overrides.overrides, reasons)?;
    let opened = app.open().await?;
    let engine = &opened.engine;
    let status = find(engine, run, true).await?;
    let run = status.run;
    if let (Some(decide), Some(reason)) = (decide, overrides.reason.first()) {
        let (step, decision) = decision(decide)?;
        engine.decide(&run, &step, decision, reason).await?;
    }
    let plan = &status.state.plan;
    let options = options(app, &opened, plan, consent, given)?;
    say(app, &format!("Run {run}: {}", plan.title));
    let console = Console::new(app, plan, options.cancel.clone(), consent.no_input, status.state.rehearsal);
    let end = engine.run(&run, &options, &console).await?;
    let written = match summary {
        Some(file) => super::promote::summary(app, &opened, &run, Some(file)).await,
        None => Ok(()),
    };
    let code = finish(app, engine, &run, end).await?;
    written.map(|()| code)
}

fn decision(text: &str) -> Result<(StepId, Decision), Failure> {
    let wrong = || {
        Failure::unusable("decide", format!("`{text}` is no decision"))
            .help("write STEP=done (it happened) or STEP=again (run it again)")
    };
    let (step, answer) = text.split_once('=').ok_or_else(wrong)?;
    let decision = match answer {
        "done" => Decision::Done,
        "again" => Decision::Again,
        _ => return Err(wrong()),
    };
    Ok((step.parse().map_err(|_| wrong())?, decision))
}

/// Goes back.
pub async fn rollback(
    app: &App,
    run: Option<&str>,
    path: Option<&str>,
    reason: Option<String>,
    consent: &Consent,
) -> Result<u8, Failure> {
    let opened = app.open().await?;
    let engine = &opened.engine;
    let status = find_to_take_back(engine, run).await?;
    let run = status.run;
    let plan = &status.state.plan;
    let options = options(app, &opened, plan, consent, Vec::new())?;
    let console = Console::new(app, plan, options.cancel.clone(), consent.no_input, status.state.rehearsal);
    let path = match (path, &status.state.turned_back) {
        (Some(path), _) => path.to_owned(),
        (None, Some(path)) => path.clone(),
        (None, None) => {
            let paths = engine.paths(&run, &console).await?;
            let open: Vec<_> = paths.iter().filter(|path| path.open.is_ok()).collect();
            match open.as_slice() {
                [only] => only.slug.clone(),
                _ => {
                    let mut failure = Failure::unusable("path", "choose a way back with --path; nothing was touched");
                    failure.report = super::status::shown_paths(&paths);
                    return Err(failure);
                }
            }
        }
    };
    say(app, &format!("Run {run}: {}", plan.title));
    let end = engine.rollback(&run, &path, reason, &options, &console).await;
    finish(app, engine, &run, end?).await
}

/// Forward and back on a throwaway server.
pub async fn rehearse(app: &App, file: &Path, vars: &Vars, from: Option<&Path>, gates: bool) -> Result<u8, Failure> {
    let runbook = app.runbook(file)?;
    let project = app.project()?;
    let source = match from {
        Some(dump) => Source::Dump(app.surroundings.cwd.join(dump)),
        None => Source::Files,
    };
    say(app, "Starting a throwaway server for the rehearsal");
    let rehearsal = rehearsal(project, &app.surroundings, app.global.principal.as_deref(), &source).await?;
    let engine = &rehearsal.opened.engine;
    let plan = engine
        .plan(&runbook, &variables(&vars.vars)?)
        .await
        .map_err(|error| Failure::of_plan(error, &runbook.sources, app.colour()))?;
    let consent = Consent { answers: None, confirm: None, accept_timeline: false, no_input: true };
    let options = options(app, &rehearsal.opened, &plan, &consent, Vec::new())?;
    let run = engine.begin(plan.clone(), Purpose::Rehearsal).await?;
    say(app, &format!("Rehearsal {run}: {}", plan.title));
    let console = Console::new(app, &plan, options.cancel.clone(), true, true);
    let end = engine.run(&run, &options, &console).await?;
    if end != RunEnd::Completed {
        return finish(app, engine, &run, end).await;
    }
    let report = match gates {
        true => Some(try_gates(app, &rehearsal, &run, &plan).await?),
        false => None,
    };
    let end = engine.rollback(&run, UNDO, Some("rehearsal".to_owned()), &options, &console).await?;
    if end == RunEnd::RolledBack {
        say(app, &format!("Rehearsed forward and back. content {}", plan.content_digest));
    }
    let code = finish(app, engine, &run, end).await?;
    Ok(match report {
        Some(report) if code == exit::DONE => say_gates(app, &report),
        _ => code,
    })
}

/// Plants what the declared topology makes possible, where the runbook has just run forward.
async fn try_gates(app: &App, rehearsal: &Rehearsal, run: &str, plan: &Plan) -> Result<Report, Failure> {
    let workplace = &rehearsal.opened.workplace;
    let about = |kinds: &[&str]| plan.steps().find(|step| kinds.contains(&step.kind.as_str()));
    let step = about(&["topology", "provision", "isolation", "audit"]).or_else(|| about(&["check", "probe", "apply"]));
    let superuser = step.and_then(|step| rehearsal.superuser(step.target.as_deref()?));
    let superuser = superuser.ok_or_else(|| {
        Failure::unusable("break", "this runbook has no step on a PostgreSQL target: nothing was tried")
    })?;
    let tell = |line: String| say(app, &format!("  {line}"));
    let engine = &rehearsal.opened.engine;
    break_in(engine, run, plan, &superuser, workplace.topology()?, &tell).await.map_err(|error| match error {
        BreachError::Engine(error) => error.into(),
        BreachError::Step(error) => error.into(),
        BreachError::Server(error) => error.into(),
    })
}

/// What the gates said, and the exit code: a check that cannot fail is a failure, as is a violation that nobody notices.
fn say_gates(app: &App, report: &Report) -> u8 {
    let bad = !report.green.is_empty() || !report.unnoticed.is_empty() || report.planted == 0;
    let code = if bad { exit::FAILED } else { exit::DONE };
    if app.global.format == Output::Json {
        let texts = |ids: &[StepId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        let noticed: serde_json::Map<_, _> =
            report.noticed.iter().map(|(gate, what)| (gate.to_string(), what.clone().into())).collect();
        put(&serde_json::json!({
            "type": "break", "planted": report.planted, "noticed": noticed, "green": texts(&report.green),
            "about_other_things": texts(&report.about_other_things), "unnoticed": report.unnoticed,
            "not_judged": report.not_judged.iter().map(|(gate, why)| (gate.to_string(), why)).collect::<Vec<_>>(),
            "not_planted": report.not_planted,
        })
        .to_string());
        return code;
    }
    put(&format!("{} violation(s) were planted, one at a time.", report.planted));
    for (gate, what) in &report.noticed {
        put(&format!("  ✓ {gate} noticed {}", what.len()));
    }
    for gate in &report.green {
        put(&format!(
            "  ✗ {gate} stayed green whatever was planted: a check that cannot fail, or one of something else"
        ));
    }
    for gate in &report.about_other_things {
        put(&format!("  · {gate} speaks of nothing that is declared, and stayed green"));
    }
    for (gate, why) in &report.not_judged {
        put(&format!("  ? {gate} does not hold at the end of the runbook anyway: {why}"));
    }
    for what in &report.unnoticed {
        put(&format!("  ✗ no gate noticed: {what}"));
    }
    for (what, why) in &report.not_planted {
        put(&format!("  ? could not be planted: {what}: {why}"));
    }
    code
}

/// The run that is meant where none is named: the newest of this environment, or the one that has not ended.
///
/// Runs that were begun and never taken up (refused, since somebody else was at work) count only if there is no other. Between
/// several open ones nothing is guessed.
pub async fn find(engine: &Engine, run: Option<&str>, open: bool) -> Result<Status, Failure> {
    if let Some(run) = run {
        return Ok(engine.status(run).await?);
    }
    let mut found = Vec::new();
    for run in engine.journal.runs().await? {
        let status = engine.status(&run).await?;
        if status.state.plan.environment != engine.environment.name {
            continue;
        }
        if !status.state.rehearsal && (!open || status.state.ended.is_none()) {
            // The newest is meant: an older run that is broken is in nobody's way.
            if !open && status.state.epoch > 0 {
                return Ok(status);
            }
            found.push(status);
        }
    }
    if found.iter().any(|status| status.state.epoch > 0) {
        found.retain(|status| status.state.epoch > 0);
    }
    if open && found.len() > 1 {
        let mut failure = Failure::unusable("run", format!("{} runs are open; nothing was touched", found.len()))
            .help("say which: pgrunbook resume RUN");
        failure.report =
            found.iter().map(|status| format!("  {}  {}\n", status.run, status.state.plan.title)).collect();
        return Err(failure);
    }
    let what = if open { "no run is open" } else { "there is no run yet" };
    let none = || Failure::unusable("run", what).help("begin one: pgrunbook run RUNBOOK.md");
    found.into_iter().next().ok_or_else(none)
}

/// The run that goes back where none is named: as [`find`], but a run that has ended is not taken back in place of a newer one that was
/// never taken up. Whoever kills a run that has just begun, and takes it back, means that one.
async fn find_to_take_back(engine: &Engine, run: Option<&str>) -> Result<Status, Failure> {
    let status = find(engine, run, false).await?;
    if run.is_some() || status.state.ended.is_none() {
        return Ok(status);
    }
    for newer in engine.journal.runs().await? {
        if newer == status.run {
            break;
        }
        let newer = engine.status(&newer).await?;
        if newer.state.plan.environment == engine.environment.name && !newer.state.rehearsal {
            let said = format!(
                "the newest run, {} ({}), was never taken up and changed nothing",
                newer.run, newer.state.plan.title
            );
            return Err(Failure::unusable("run", format!("{said}; nothing was touched")).help(format!(
                "to take back the one before it, {}: pgrunbook rollback {}",
                status.state.plan.title, status.run
            )));
        }
    }
    Ok(status)
}

/// What a person said in advance, and the signals that stop a run.
pub fn options(
    app: &App,
    opened: &Opened,
    plan: &Plan,
    consent: &Consent,
    overrides: Vec<Override>,
) -> Result<RunOptions, Failure> {
    let answers = match &consent.answers {
        None => BTreeMap::new(),
        Some(path) => answers(app, plan, path)?,
    };
    let options = RunOptions {
        cancel: Cancel::default(),
        approvals: super::proof::kept(opened, plan)?,
        answers,
        accept_timeline: consent.accept_timeline,
        confirmation: consent.confirm.clone(),
        overrides,
    };
    let quiet = app.global.format == Output::Json;
    signals::heed(&options.cancel, move |cancelled| match cancelled {
        _ if quiet => {}
        true => aside("\nCancelling the step."),
        false => {
            aside("\nStopping after this step; the run can be resumed. Press Ctrl-C again to cancel the step.");
        }
    });
    Ok(options)
}

/// `"line of the checklist" = "confirmed"`, or `{ outcome = "not-applicable", note = "why" }`; also by the item's id.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Word(String),
    Whole { outcome: String, note: Option<String> },
}

fn answers(app: &App, plan: &Plan, path: &Path) -> Result<BTreeMap<ItemId, ItemAnswer>, Failure> {
    let text = super::lint::read(app, path)?;
    let bad = |why: String| Failure::unusable("answers", format!("{}: {why}", path.display()));
    let given: BTreeMap<String, Answer> = toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?;
    let mut answers = BTreeMap::new();
    for (name, answer) in given {
        let item =
            plan.phases.iter().chain(&plan.rollback_paths).flat_map(|phase| &phase.entries).find_map(
                |entry| match entry {
                    pgrunbook_engine::plan::PlannedEntry::Item { id, text, .. } if *text == name || id.0 == name => {
                        Some(id.clone())
                    }
                    _ => None,
                },
            );
        let item = item.ok_or_else(|| bad(format!("the plan has no checklist line \"{name}\"")))?;
        let (outcome, note) = match answer {
            Answer::Word(outcome) => (outcome, None),
            Answer::Whole { outcome, note } => (outcome, note),
        };
        let outcome = match outcome.as_str() {
            "confirmed" => ItemOutcome::Confirmed,
            "not-applicable" if note.is_some() => ItemOutcome::NotApplicable,
            "not-applicable" => return Err(bad(format!("\"{name}\": say in `note` why it is not applicable"))),
            "refused" => ItemOutcome::Refused,
            other => return Err(bad(format!("`{other}` is no answer: confirmed, not-applicable or refused"))),
        };
        answers.insert(item, ItemAnswer { outcome, note });
    }
    Ok(answers)
}

pub fn say(app: &App, text: &str) {
    if app.global.format != Output::Json {
        put(text);
    }
}

/// Says how far it went, how long the way back took, and what goes on; the exit code.
pub async fn finish(app: &App, engine: &Engine, run: &str, end: RunEnd) -> Result<u8, Failure> {
    let code = exit::of_end(&end);
    let again = app.again();
    // What the run came to is known already: a journal that cannot be read any more must not hide it.
    let after = engine.status(run).await.map(|status| After::of(engine, &status)).unwrap_or_default();
    let next = format!("pgrunbook resume {run}{again}");
    let back = format!("pgrunbook rollback {run}{again}");
    let way = |direction: Direction| if direction == Direction::Back { "Its undo" } else { "It" };
    let (word, text, then) = match end {
        RunEnd::Completed => ("completed", String::new(), String::new()),
        RunEnd::RolledBack => ("rolled-back", String::new(), String::new()),
        RunEnd::Failed { step, direction, help, .. } => (
            "failed",
            format!(
                "Stopped at step `{step}`. {} did not happen; what was done before stays.{}",
                way(direction),
                help.map_or_else(String::new, |help| format!("\n  help: {help}"))
            ),
            format!("{next}\n{back}"),
        ),
        RunEnd::RollbackBlocked { step, help, undone, left, .. } => {
            let list = |steps: &[StepId]| match steps {
                [] => "nothing".to_owned(),
                steps => steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            };
            let help = help.map_or_else(String::new, |help| format!("\n  help: {help}"));
            (
                "rollback-blocked",
                format!("The way back is blocked at `{step}`. Undone: {}. Left: {}.{help}", list(&undone), list(&left)),
                next,
            )
        }
        RunEnd::Refused { text, note, .. } => {
            let note = note.map_or_else(String::new, |note| format!(": {note}"));
            ("refused", format!("Refused: \"{text}\"{note}."), format!("{next}\n{back}"))
        }
        RunEnd::Waiting { on } => ("waiting", waiting(&on), waiting_command(&on, run, &again, &next)),
        RunEnd::Unknown { step, direction, why } => (
            "unknown",
            format!(
                "Nobody can tell whether step `{step}`{} happened: {why}.\nLook at the target, then say what became of it; there is no default.",
                if direction == Direction::Back { " (its undo)" } else { "" }
            ),
            format!(
                "{next} --decide {step}=done --reason \"how you know\"\n{next} --decide {step}=again --reason \"why that is safe\""
            ),
        ),
        RunEnd::Stopped { why } => ("stopped", format!("Stopped: {why}."), format!("{next}\n{back}")),
    };
    if app.global.format == Output::Json {
        let mut value = serde_json::json!({ "type": "end", "run": run, "end": word, "exit": code, "text": text, "next": then.lines().collect::<Vec<_>>() });
        after.add_to(&mut value, run, &again);
        put(&value.to_string());
        return Ok(code);
    }
    if let Some(way_back) = &after.way_back {
        put(&way_back.to_string());
    }
    if !text.is_empty() {
        put(&format!("\n{text}"));
    }
    for command in then.lines() {
        put(&format!("  {command}"));
    }
    if let Some(update) = after.update(run, &again, engine.clock.now()) {
        put(&update);
    }
    Ok(code)
}

fn waiting(on: &Waiting) -> String {
    match on {
        Waiting::Demands { environment, runbook, missing } => super::demands::waiting(environment, runbook, missing),
        Waiting::Item { text, roles, .. } => {
            let who = if roles.is_empty() { "a person".to_owned() } else { format!("@{}", roles.join(", @")) };
            format!("Waiting for {who}: \"{text}\"")
        }
        Waiting::Approvals { why, missing, roles } => {
            let roles = if roles.is_empty() { String::new() } else { format!(" (roles: {})", roles.join(", ")) };
            format!("Waiting for {missing} approval(s){roles}: {why}.")
        }
        Waiting::Confirmation { wanted } => format!("Waiting for the confirmation text \"{wanted}\"."),
        Waiting::Acceptance { what } => format!("Waiting for somebody to accept it: {what}."),
        Waiting::Step { message, help, .. } => {
            format!("Waiting: {message}{}", help.as_ref().map_or_else(String::new, |help| format!("\n  help: {help}")))
        }
    }
}

fn waiting_command(on: &Waiting, run: &str, again: &str, next: &str) -> String {
    let approve = format!("pgrunbook approve {run}{again}");
    match on {
        Waiting::Demands { .. } => next.to_owned(),
        Waiting::Item { .. } => format!("{next}\n{next} --answers FILE"),
        Waiting::Step { code, .. } if code == "sign-off-missing" => format!("pgrunbook sign-off {run}{again}\n{next}"),
        Waiting::Approvals { .. } | Waiting::Step { .. } => format!("{approve}\n{next}"),
        Waiting::Confirmation { wanted } => format!("{next} --confirm {}", quoted(wanted)),
        Waiting::Acceptance { .. } => format!("{next} --accept-timeline"),
    }
}
