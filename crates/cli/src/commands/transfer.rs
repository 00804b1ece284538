//! `transfer`: a cutover's moving parts without a runbook, and the long-running follower between two runs.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use pgrunbook_document::StepId;
use pgrunbook_engine::StepError;
use pgrunbook_engine::step::{Progress, Watcher};
use pgrunbook_steps::Workplace;
use pgrunbook_steps::transfer::{
    self, Loader, Making, Offer, Rollback, Source, Spec, Status, Sync, abandon, blocking, complete, go_on, offer,
    status, to_json, to_table,
};
use pgrunbook_steps::typed::quoted;
use serde_json::json;

use crate::app::App;
use crate::args::{Output, TransferAction, TransferWish};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// How often the follower's table is printed.
const BEAT: Duration = Duration::from_secs(2);

pub async fn transfer(app: &App, action: TransferAction) -> Result<u8, Failure> {
    match action {
        TransferAction::Preflight { wish, target } => preflight(app, &wish, &target).await,
        TransferAction::Start { wish, target } => start(app, &wish, &target).await,
        TransferAction::Follow { target, schema } => follow(app, &target, schema.as_deref()).await,
        TransferAction::Status { target, schema, check } => show(app, &target, schema.as_deref(), check).await,
        TransferAction::Accept { schema, target, yes, instead } => {
            accept(app, &schema, &target, yes, (!instead.is_empty()).then_some(instead.as_slice())).await
        }
        TransferAction::Complete { schema, target, without_source, yes } => {
            end(app, &schema, &target, yes, End::Complete(if without_source { Source::Gone } else { Source::There }))
                .await
        }
        TransferAction::Abandon { schema, target, yes } => end(app, &schema, &target, yes, End::Abandon).await,
    }
}

/// Lines and rows of a load, told as they come.
struct Aside<'a>(&'a App);

impl Watcher for Aside<'_> {
    fn progress(&self, _step: &StepId, progress: Progress) {
        if let Progress::Line { text } = progress {
            self.0.aside(&text);
        }
    }
}

/// The values of `--map`.
pub fn map(pairs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let read = |pair: &String| match pair.split_once('=') {
        Some((column, kind)) => Ok((column.trim().to_owned(), kind.trim().to_owned())),
        None => Err(Failure::unusable("map", format!("--map {pair}: write it as TABLE.COLUMN=KIND"))),
    };
    pairs.iter().map(read).collect()
}

fn spec(wish: &TransferWish) -> Result<Spec, Failure> {
    Ok(Spec {
        from: wish.from.clone(),
        source_schema: wish.source_schema.clone(),
        structure: if wish.existing { Making::Existing } else { Making::Create },
        exclude: wish.exclude.iter().cloned().collect(),
        accept: wish.accept.iter().cloned().collect(),
        map: map(&wish.map)?,
        reverse: !wish.no_reverse,
        sync: if wish.dirty_keys { Sync::DirtyKeys } else { Sync::Rescan },
        spool_limit: wish.spool_limit,
    })
}

async fn preflight(app: &App, wish: &TransferWish, target: &str) -> Result<u8, Failure> {
    let (workplace, spec, cancel) = (app.workplace()?, spec(wish)?, app.cancel_on_signals());
    let step = "preflight".parse().expect("a constant that is a step's id");
    let loader = Loader {
        workplace: &workplace,
        target,
        schema: &wish.schema,
        spec: &spec,
        jobs: wish.jobs,
        run: "preflight",
        operator: &app.operator(),
        cancel: &cancel,
        step: &step,
        watcher: &Aside(app),
    };
    let findings = loader.look().await?;
    let stands = blocking(&findings).count();
    if app.global.format == Output::Json {
        put(&json!({ "type": "preflight", "findings": to_json(&findings), "blocking": stands }).to_string());
    } else {
        put(to_table(&findings).trim_end());
        put(&match (findings.len(), stands) {
            (0, _) => "Nothing stands in the way.".to_owned(),
            (all, 0) => format!("{all} findings, none of them in the way."),
            (all, stands) => format!("{all} findings, {stands} of them in the way. Nothing was changed."),
        });
    }
    Ok(if stands == 0 { exit::DONE } else { exit::FAILED })
}

async fn start(app: &App, wish: &TransferWish, target: &str) -> Result<u8, Failure> {
    app.refuse_if_protected("transfer start", "transfer = \"move\"")?;
    let (workplace, spec, cancel) = (app.workplace()?, spec(wish)?, app.cancel_on_signals());
    let step = "transfer".parse().expect("a constant that is a step's id");
    let operator = app.operator();
    let loader = Loader {
        workplace: &workplace,
        target,
        schema: &wish.schema,
        spec: &spec,
        jobs: wish.jobs,
        run: "by-hand",
        operator: &operator,
        cancel: &cancel,
        step: &step,
        watcher: &Aside(app),
    };
    let evidence = loader.load().await?;
    match app.global.format {
        Output::Json => {
            put(&json!({ "type": "transfer", "summary": evidence.summary, "facts": evidence.facts }).to_string());
        }
        _ => {
            put(&format!("{}.", evidence.summary));
            put(&format!(
                "Follow on with: pgrunbook transfer follow --target {} --schema {}",
                quoted(target),
                quoted(&wish.schema)
            ));
        }
    }
    Ok(exit::DONE)
}

/// Follows until it is stopped: what runs between two runs of a runbook, as a service.
async fn follow(app: &App, target: &str, schema: Option<&str>) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let cancel = app.cancel_on_signals();
    app.aside("following; Ctrl-C stops, and what was applied stays");
    let mut has_followed = false;
    loop {
        match follow_once(app, &workplace, target, schema).await {
            Ok(true) => has_followed = true,
            Ok(false) => {
                app.aside("nothing is to be followed");
                return Ok(exit::DONE);
            }
            // At first it is the wrong address; later it is a server that starts again, or a file that somebody holds.
            Err(error) if has_followed && transfer::may_pass(&error) => {
                app.aside(&format!("{}; following goes on when it passes", error.message.trim_end_matches('.')));
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(BEAT) => {}
            () = cancel.stopping() => return Ok(exit::DONE),
        }
    }
}

/// One look at all transfers, each of which is followed from then on: whether there is anything to follow.
async fn follow_once(app: &App, workplace: &Workplace, target: &str, schema: Option<&str>) -> Result<bool, StepError> {
    let all = status(workplace, target, schema).await?;
    let (mut stands, mut waits) = (None, None);
    for one in &all {
        match transfer::keep_following(workplace, target, &one.schema).await {
            Ok(()) => {}
            Err(error) if transfer::may_pass(&error) => waits = waits.or(Some(error)),
            Err(error) => stands = stands.or(Some(error)),
        }
    }
    render(app, &all);
    match stands.or(waits) {
        Some(error) => Err(error),
        None => Ok(all.iter().any(|one| !one.streams.is_empty())),
    }
}

async fn show(app: &App, target: &str, schema: Option<&str>, check: bool) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let all = status(&workplace, target, schema).await?;
    render(app, &all);
    let is_well =
        |one: &Status| one.stopped.is_none() && one.trouble.is_none() && !matches!(one.rollback, Rollback::Lossy(_));
    Ok(if check && !all.iter().all(is_well) { exit::FAILED } else { exit::DONE })
}

fn render(app: &App, all: &[Status]) {
    if app.global.format == Output::Json {
        let transfers: Vec<_> = all.iter().map(Status::to_json).collect();
        put(&json!({ "type": "transfers", "transfers": transfers }).to_string());
        return;
    }
    if all.is_empty() {
        put("Nothing is transferred into this target.");
        return;
    }
    put(transfer::table(all).trim_end());
    let _ = std::io::stdout().flush();
}

async fn accept(app: &App, schema: &str, target: &str, yes: bool, instead: Option<&[String]>) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let Some(found) = offer(&workplace, target, schema).await? else {
        app.say(
            &format!("No stream of {schema} stands still."),
            &json!({ "type": "accepted", "schema": schema, "stream": null }),
        );
        return Ok(exit::DONE);
    };
    tell_offer(app, &found, instead);
    if !yes {
        return Err(Failure::unusable("confirm", "nothing was changed")
            .help("look at the statements; --yes makes them and lets the stream go on, --instead SQL makes others"));
    }
    app.refuse_if_protected("transfer accept", "apply")?;
    go_on(&workplace, target, schema, instead).await?;
    let stream = &found.stopped.stream;
    app.say(
        &format!(
            "The stream {stream} may go on: `pgrunbook transfer follow --target {} --schema {}`, or the next step of the run.",
            quoted(target),
            quoted(schema)
        ),
        &json!({ "type": "accepted", "schema": schema, "stream": stream }),
    );
    Ok(exit::DONE)
}

fn tell_offer(app: &App, found: &Offer, instead: Option<&[String]>) {
    let statements = instead.map_or_else(|| found.statements.clone(), <[String]>::to_vec);
    if app.global.format == Output::Json {
        put(&json!({
            "type": "stopped", "stream": found.stopped.stream, "code": found.stopped.code, "why": found.stopped.why,
            "lsn": found.stopped.lsn.to_string(), "on": found.on, "statements": statements
        })
        .to_string());
        return;
    }
    put(&match found.stopped.code.as_str() {
        "altered" => format!("{}: {}", found.stopped.stream, found.stopped.why),
        _ => format!("{} stands still since {}: {}", found.stopped.stream, found.stopped.lsn, found.stopped.why),
    });
    if !statements.is_empty() {
        put(&format!("On {} would be run:", found.on));
        for statement in &statements {
            put(&format!("  {statement};"));
        }
    }
}

/// How a transfer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Complete(Source),
    Abandon,
}

async fn end(app: &App, schema: &str, target: &str, yes: bool, how: End) -> Result<u8, Failure> {
    let (command, step, loss) = match how {
        End::Complete(_) => ("transfer complete", "complete", "after it there is no way back to the source"),
        End::Abandon => ("transfer abandon", "transfer", "what was copied into the schema is taken away"),
    };
    app.refuse_if_protected(command, step)?;
    if !yes {
        return Err(Failure::unusable("confirm", format!("{loss}; nothing was changed")).help("say --yes"));
    }
    let (workplace, cancel) = (app.workplace()?, app.cancel_on_signals());
    let evidence = match how {
        End::Complete(source) => complete(&workplace, target, schema, "pgrunbook:complete", &cancel, source).await?,
        End::Abandon => abandon(&workplace, target, schema, "by-hand", &cancel).await?,
    };
    app.say(
        &format!("{}.", evidence.summary),
        &json!({ "type": "transfer-ended", "schema": schema, "summary": evidence.summary, "facts": evidence.facts }),
    );
    Ok(exit::DONE)
}
