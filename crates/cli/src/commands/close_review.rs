//! `close-review`.

use pgrunbook_engine::closing;
use pgrunbook_engine::evidence::summary::review;
use pgrunbook_engine::state::Overriding;
use pgrunbook_steps::Opened;
use pgrunbook_steps::typed::quoted;
use serde_json::json;

use super::proof::{armored, how_to_sign, must_name_signers};
use crate::app::App;
use crate::args::{CloseReviewArgs, Output};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// Closes a review item of a run, or lists those that are open.
///
/// Without a reason nothing is recorded; where the project names signers, neither without a signature.
pub async fn close_review(app: &App, args: &CloseReviewArgs) -> Result<u8, Failure> {
    let opened = app.open().await?;
    let engine = &opened.engine;
    let run = match &args.run {
        Some(run) => Some(run.clone()),
        None => newest(&opened).await?,
    };
    let Some(run) = run else {
        let environment = &engine.environment.name;
        let message = format!("no run in environment `{environment}` has a review item that is open");
        if args.reason.is_some() {
            return Err(Failure::unusable("close-review", message).help("`pgrunbook status` lists the runs"));
        }
        app.say(&message, &json!({ "type": "review-items", "run": null, "open": 0 }));
        return Ok(exit::DONE);
    };
    let state = engine.status(&run).await?.state;
    let open: Vec<&Overriding> = state.open_reviews().collect();
    let Some(given) = &args.reason else {
        return Ok(list(app, &run, &state.overrides));
    };
    let item = match (args.item, open.as_slice()) {
        (Some(number), _) => state.overrides.iter().find(|one| one.seq == number).ok_or_else(|| {
            Failure::unusable("close-review", format!("event {number} of run {run} is no review item"))
                .help(format!("`pgrunbook close-review {run}` lists them"))
        })?,
        (None, [one]) => *one,
        (None, []) => {
            return Err(Failure::unusable("close-review", format!("no review item of run {run} is open")));
        }
        (None, several) => {
            let listed: String = several.iter().map(|one| format!("  --item {}  {one}\n", one.seq)).collect();
            let mut failure =
                Failure::unusable("close-review", format!("{} review items of run {run} are open", several.len()))
                    .help("say which with --item; nothing was recorded");
            failure.report = listed;
            return Err(failure);
        }
    };
    let reason = closing::reason(given, &engine.redactor);
    let text = closing::text(&run, &state.plan.plan_digest, item, &reason);
    let signs = args.key.is_some() || args.signature.is_some();
    if signs {
        must_name_signers(&engine.people, "close a review item")?;
    }
    let armored = armored(app, closing::NAMESPACE, &text, args.key.as_deref(), args.signature.as_deref())?;
    if armored.is_none() && engine.people.allowed_signers.is_some() {
        if app.global.format == Output::Json {
            put(&json!({ "type": "review-item", "run": run, "item": item.seq, "text": text }).to_string());
        } else {
            put("Look at what happened (`pgrunbook show`), then sign exactly this text with your SSH key:\n");
            let command = format!("close-review {run} --item {} --reason {}", item.seq, quoted(&reason));
            put(&how_to_sign(closing::NAMESPACE, &text, &command, "review.txt"));
        }
        return Ok(exit::WAITING);
    }
    let closed = engine.close_review(&run, item.seq, given, armored.as_deref()).await?;
    let left = open.len().saturating_sub(1);
    app.say(
        &format!("Review of \"{item}\" {closed}\nOpen to be reviewed: {left}"),
        &json!({
            "type": "review-closed", "run": run, "item": closed.item, "by": closed.by, "reason": closed.reason,
            "key": closed.key, "open": left,
        }),
    );
    Ok(exit::DONE)
}

/// Every item, open or closed. Exit 3 while one is open: somebody is waited for.
fn list(app: &App, run: &str, items: &[Overriding]) -> u8 {
    for one in items {
        if app.global.format == Output::Json {
            let mut value = review(one);
            value["type"] = "review-item".into();
            value["run"] = run.into();
            put(&value.to_string());
            continue;
        }
        match &one.closed {
            Some(closed) => put(&format!("✓ {:>4}  {one}\n        {}", one.seq, closed.closing)),
            None => put(&format!("! {:>4}  {one}", one.seq)),
        }
    }
    let first = items.iter().find(|one| one.closed.is_none());
    match (app.global.format, first) {
        (Output::Json, _) if !items.is_empty() => {}
        (Output::Json, _) => put(&json!({ "type": "review-items", "run": run, "open": 0 }).to_string()),
        (_, None) => put(&format!("Nothing of run {run} is open to be reviewed.")),
        (_, Some(one)) => put(&format!(
            "\nSomebody else than who overrode looks at it: pgrunbook close-review {run} --item {} --as NAME --reason \"what was found\"",
            one.seq
        )),
    }
    if first.is_some() { exit::WAITING } else { exit::DONE }
}

/// The newest run of the environment with an open item.
async fn newest(opened: &Opened) -> Result<Option<String>, Failure> {
    let engine = &opened.engine;
    for run in engine.journal.runs().await? {
        // A broken run must not hide the others.
        let Ok(status) = engine.status(&run).await else { continue };
        if status.state.plan.environment == engine.environment.name && status.state.open_reviews().next().is_some() {
            return Ok(Some(run));
        }
    }
    Ok(None)
}
