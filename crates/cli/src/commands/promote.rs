//! `promote`: all demands of an environment at once, then a run, then the deployment summary.

use std::io::Write as _;
use std::path::Path;

use pgrunbook_engine::evidence::summary::Summary;
use pgrunbook_engine::{Demand, DemandName, EngineError, Plan};
use pgrunbook_steps::Opened;
use serde_json::json;

use super::demands::{listed, values};
use super::run::{finish, go, options, planned, say};
use crate::app::App;
use crate::args::{Global, Output, PromoteArgs};
use crate::console::{paint, put};
use crate::exit;
use crate::failure::Failure;

/// Says how the demands stand, and, if none is missing, runs.
pub async fn promote(app: &App, args: &PromoteArgs) -> Result<u8, Failure> {
    let overrides = super::demands::overrides(&args.overrides.overrides, &args.overrides.reason)?;
    let global = Global { environment: Some(args.to.clone()), ..app.global.clone() };
    let app = &App { global, surroundings: app.surroundings.clone() };
    let opened = app.open().await?;
    let plan = planned(app, &opened, &args.file, args.plan.as_deref(), &args.vars).await?;
    let options = options(app, &opened, &plan, &args.consent, overrides)?;
    let demands = opened.engine.demands(&plan, &options).await?;

    let asks = app.is_interactive() && !args.consent.no_input && args.consent.confirm.is_none();
    let is_asked_for = |demand: &&Demand| asks && demand.name == DemandName::Confirmation;
    let missing = demands.iter().filter(|demand| !demand.is_met()).filter(|demand| !is_asked_for(demand)).count();
    let file = args.file.display().to_string();
    let warning = unlogged(&plan).filter(|_| !demands.iter().any(|demand| demand.name == DemandName::DeploymentLog));
    if app.global.format == Output::Json {
        let value = json!({
            "type": "demands", "environment": args.to, "runbook": plan.runbook, "content_digest": plan.content_digest,
            "plan_digest": plan.plan_digest, "missing": missing, "demands": values(&demands, &file),
            "warnings": warning.as_slice(),
        });
        put(&value.to_string());
    } else {
        put(&heading(&plan));
        let may_override = !opened.engine.environment.override_roles.is_empty();
        if let Some(warning) = &warning {
            put(&format!("{} {warning}\n", paint(app.colour(), "33", "!")));
        }
        put(&match demands.as_slice() {
            [] => format!("Environment {} demands nothing.", args.to),
            demands => {
                format!("Demanded before the first change:\n{}", listed(demands, &file, may_override, app.colour()))
            }
        });
    }
    // A text that is not the right one is a mistake, and no wait.
    if let Some(wanted) = opened.engine.environment.confirm.clone()
        && args.consent.confirm.as_ref().is_some_and(|given| *given != wanted)
    {
        return Err(EngineError::NotConfirmed { environment: args.to.clone(), wanted }.into());
    }
    if missing > 0 {
        let text = format!("{missing} of {} demands are missing. Nothing was begun.", demands.len());
        return Ok(stop(app, exit::WAITING, "waiting", &text));
    }
    if args.check {
        let blocked = plan.steps().find_map(|step| Some((&step.id, step.change.blocked.as_ref()?)));
        return Ok(match blocked {
            Some((step, why)) => stop(
                app,
                exit::FAILED,
                "blocked",
                &format!("Step `{step}` could not run now: {why}. Nothing was begun."),
            ),
            None => stop(app, exit::DONE, "checked", "Nothing is missing. Nothing was begun, as --check says."),
        });
    }
    say(app, "");
    let (run, end) = go(app, &opened, &plan, &options, &args.consent).await?;
    let written = summary(app, &opened, &run, args.summary.as_deref()).await;
    let code = finish(app, &opened.engine, &run, end).await?;
    written.map(|()| code)
}

fn heading(plan: &Plan) -> String {
    let targets: String =
        plan.targets.iter().map(|target| format!("target {}: {}\n", target.name, target.shown)).collect();
    let changing = plan.undo_coverage().changing;
    format!(
        "Promote \"{}\" to {}: {} steps, of which {changing} change something\n{targets}content {}\nplan    {}\n",
        plan.title,
        plan.environment,
        plan.steps().count(),
        plan.content_digest,
        plan.plan_digest
    )
}

/// That a plan leaves no row of itself in a target that it deploys to, where no demand says so.
fn unlogged(plan: &Plan) -> Option<String> {
    let logs = plan.deployment_logs();
    let silent: Vec<_> = logs.iter().filter(|(_, logs)| logs.is_empty()).map(|(name, _)| format!("`{name}`")).collect();
    if logs.is_empty() {
        return Some("No step of this runbook leaves a row in a deployment log.".to_owned());
    }
    (!silent.is_empty()).then(|| {
        format!(
            "No step leaves a row of this deployment in a log on {}: a `migrate` step does, with deployment_log = \"schema.table\".",
            silent.join(", ")
        )
    })
}

/// Says why nothing was begun; the exit code.
fn stop(app: &App, code: u8, end: &str, text: &str) -> u8 {
    match app.global.format {
        Output::Json => put(&json!({ "type": "end", "end": end, "exit": code, "text": text, "next": [] }).to_string()),
        _ => put(&format!("\n{text}")),
    }
    code
}

/// Writes the evidence bundle and the deployment summary of a run: to standard output, and behind what stands in `file`.
/// Nothing where no step was begun.
pub async fn summary(app: &App, opened: &Opened, run: &str, file: Option<&Path>) -> Result<(), Failure> {
    let engine = &opened.engine;
    let state = engine.status(run).await?.state;
    let events = engine.journal.read(run).await?;
    let summary = Summary::of(run, &state, &events, &engine.environment.after);
    if summary.since.is_none() {
        return Ok(());
    }
    // The change is made, and its summary must not be lost over a key that cannot be read.
    let evidence = match super::proof::bundle(app, opened, run, None, None).await {
        Ok(bundle) => {
            let folder = bundle.folder.strip_prefix(&app.surroundings.cwd).unwrap_or(&bundle.folder);
            folder.display().to_string()
        }
        Err(failure) => format!("not written: {}; make it: pgrunbook report {run}", failure.message),
    };
    let text = engine.redactor.redact(&summary.markdown(&state, &evidence)).into_owned();
    match app.global.format {
        Output::Json => {
            put(&json!({ "type": "summary", "summary": summary.json(&state, &evidence) }).to_string());
        }
        _ => put(&format!("\n{text}")),
    }
    let Some(file) = file else { return Ok(()) };
    let path = app.surroundings.cwd.join(file);
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut to| to.write_all(text.as_bytes()));
    written.map_err(|error| {
        let message = format!("the deployment summary cannot be written to {}: {error}", file.display());
        Failure { exit: exit::FAILED, ..Failure::unusable("summary", message) }
            .help(format!("the run is recorded: pgrunbook status {run}"))
    })
}
