//! `fence`: the operator's emergency exit: which schemas refuse writes, and letting writers go on.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::Session;
use pgrunbook_postgres::pgbouncer::Door;
use pgrunbook_steps::fence::{self, Held, Lift, Standing};
use serde_json::json;

use crate::app::{App, quoted};
use crate::args::{FenceAction, Output};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// How long a resume is tried: clients wait.
const RESUME_BUDGET: std::time::Duration = std::time::Duration::from_secs(30);

pub async fn fence(app: &App, action: FenceAction) -> Result<u8, Failure> {
    match action {
        FenceAction::Status { target, check } => status(app, &target, check).await,
        FenceAction::Drop { id, target, poolers, yes, confirm } => {
            drop_fence(app, &id, &target, &poolers, yes, confirm.as_deref()).await
        }
    }
}

/// Every fence that is recorded, with what is wrong with it.
async fn status(app: &App, target: &str, check: bool) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let session = Session::connect(workplace.postgres(target)?, "pgrunbook:fence").await?;
    let mut shown = Vec::new();
    for held in fence::list(&session).await? {
        let why = match fence::state(&session, &held.schema).await? {
            Standing::Broken { why, .. } => why,
            Standing::Fenced(_) | Standing::Unfenced => Vec::new(),
        };
        shown.push((held, why));
    }
    if app.global.format == Output::Json {
        let fences: Vec<_> = shown.iter().map(|(held, why)| value(held, why)).collect();
        put(&json!({ "type": "fences", "fences": fences, "paused": fence::paused(workplace.root()) }).to_string());
    } else {
        for (held, why) in &shown {
            let weak = if held.weak { ", by privileges" } else { "" };
            put(&format!(
                "{}  {}: {} table(s){weak}, marker at {}",
                held.id,
                held.schema,
                held.tables.len(),
                held.marker
            ));
            let run = held.run.as_ref().map_or_else(String::new, |run| format!(", run {run}"));
            put(&format!("  since {} by {}{run}", held.since, held.operator));
            for one in why {
                put(&format!("  ! {one}"));
            }
        }
        if shown.is_empty() {
            put("No schema is fenced.");
        }
        for one in fence::paused(workplace.root()) {
            put(&super::status::told_paused(&one));
        }
    }
    let whole = shown.iter().all(|(_, why)| why.is_empty());
    Ok(if check && !whole { exit::FAILED } else { exit::DONE })
}

fn value(held: &Held, why: &[String]) -> serde_json::Value {
    json!({
        "id": held.id, "schema": held.schema, "tables": held.tables, "weak": held.weak, "since": held.since,
        "operator": held.operator, "run": held.run, "marker": held.marker.to_string(), "wrong": why
    })
}

async fn drop_fence(
    app: &App,
    id: &str,
    target: &str,
    poolers: &[String],
    yes: bool,
    confirm: Option<&str>,
) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let session = Session::connect(workplace.postgres(target)?, "pgrunbook:fence").await?;
    let Some(held) = fence::list(&session).await?.into_iter().find(|held| held.id == id) else {
        return Err(Failure::unusable("fence-unknown", format!("no fence `{id}` stands in target `{target}`"))
            .help(format!("`pgrunbook fence status --target {}` names those that stand", quoted(target))));
    };
    let doors: Vec<Door> = poolers
        .iter()
        .map(|name| Ok(Door::through(name, workplace.postgres(name)?)))
        .collect::<Result<_, StepError>>()?;
    // In an emergency no runbook may be to hand, so that it goes in a protected environment too, by an exact text.
    let environment = app.project()?.environment;
    let wanted = format!("{}: drop fence {id}", environment.name);
    let agreed = if environment.protected { confirm == Some(wanted.as_str()) } else { yes || confirm == Some(&wanted) };
    if !agreed {
        let message = format!(
            "this lets writers go on in {} table(s) of `{}`; what was read at the marker {} is then behind. Nothing was \
             touched",
            held.tables.len(),
            held.schema,
            held.marker
        );
        let help = match environment.protected {
            true => format!("{} is protected: say --confirm '{wanted}'", environment.name),
            false => "say --yes".to_owned(),
        };
        return Err(Failure::unusable("confirm", message).help(help));
    }
    let cancel = app.cancel_on_signals();
    let operator = app.operator();
    let lift = Lift { schema: &held.schema, id: Some(id), by: &operator, ..Lift::default() };
    let lifted = fence::unfence(&session, &lift, &cancel).await.map_err(StepError::from);
    // Clients are let go on, whatever became of the fence.
    let resumed = fence::resume_all(workplace.root(), &doors, RESUME_BUDGET).await;
    let lifted = lifted?;
    resumed.map_err(|error| Failure::from(StepError::in_doubt("pooler-stuck", error.to_string())))?;
    if app.global.format == Output::Json {
        put(&json!({
            "type": "fence-dropped", "id": id, "schema": held.schema, "tables": lifted.tables,
            "disabled_triggers_left": lifted.left, "not_granted": lifted.not_granted
        })
        .to_string());
        return Ok(exit::DONE);
    }
    put(&format!("Fence {id} is lifted: {} table(s) of `{}` take writes.", lifted.tables.len(), held.schema));
    for table in &lifted.left {
        put(&format!(
            "  a disabled trigger stays on {table}, since a reader is in the way of its drop: it does nothing"
        ));
    }
    for grant in &lifted.not_granted {
        put(&format!("  ! not granted again: {grant}"));
    }
    Ok(exit::DONE)
}
