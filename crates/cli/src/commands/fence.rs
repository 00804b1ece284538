//! `fence`: the operator's emergency exit: which schemas and files refuse writes, and letting writers go on.

use std::path::{Path, PathBuf};

use pgrunbook_engine::StepError;
use pgrunbook_postgres::Session;
use pgrunbook_postgres::pgbouncer::Door;
use pgrunbook_steps::fence::{self, Held, Lift, Standing};
use pgrunbook_steps::transfer::sqlite::{FileFence, drop_file_fence, file_fence, file_of};
use pgrunbook_steps::typed::quoted;
use pgrunbook_steps::workplace::Workplace;
use serde_json::json;

use crate::app::App;
use crate::args::{FenceAction, Output};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// How long a resume is tried: clients wait.
const RESUME_BUDGET: std::time::Duration = std::time::Duration::from_secs(30);

pub async fn fence(app: &App, action: FenceAction) -> Result<u8, Failure> {
    match action {
        FenceAction::Status { target, check } => {
            let workplace = app.workplace()?;
            match file_of(&workplace, &target)? {
                Some(path) => status_of_file(app, &workplace, &path, check).await,
                None => status(app, &workplace, &target, check).await,
            }
        }
        FenceAction::Drop { id, target, poolers, yes, confirm } => {
            let workplace = app.workplace()?;
            let doors = doors(&workplace, &poolers)?;
            let agreed = Agreed { yes, confirm: confirm.as_deref() };
            match file_of(&workplace, &target)? {
                Some(path) => drop_file(app, &workplace, &id, (&target, path), &doors, agreed).await,
                None => drop_fence(app, &workplace, &id, &target, &doors, agreed).await,
            }
        }
    }
}

/// What was typed to agree.
#[derive(Clone, Copy)]
struct Agreed<'a> {
    yes: bool,
    confirm: Option<&'a str>,
}

impl Agreed<'_> {
    /// In an emergency no runbook may be to hand, so that it goes in a protected environment too, by an exact text.
    fn or_refuse(self, app: &App, id: &str, message: String) -> Result<(), Failure> {
        let environment = app.project()?.environment;
        let wanted = format!("{}: drop fence {id}", environment.name);
        let exact = self.confirm == Some(wanted.as_str());
        if exact || (self.yes && !environment.protected) {
            return Ok(());
        }
        let help = match environment.protected {
            true => format!("{} is protected: say --confirm '{wanted}'", environment.name),
            false => "say --yes".to_owned(),
        };
        Err(Failure::unusable("confirm", message).help(help))
    }
}

fn doors(workplace: &Workplace, poolers: &[String]) -> Result<Vec<Door>, StepError> {
    poolers.iter().map(|name| Ok(Door::through(name, workplace.postgres(name)?))).collect()
}

fn unknown(id: &str, target: &str) -> Failure {
    Failure::unusable("fence-unknown", format!("no fence `{id}` stands in target `{target}`"))
        .help(format!("`pgrunbook fence status --target {}` names those that stand", quoted(target)))
}

/// Every fence that is recorded, with what is wrong with it.
async fn status(app: &App, workplace: &Workplace, target: &str, check: bool) -> Result<u8, Failure> {
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
    workplace: &Workplace,
    id: &str,
    target: &str,
    doors: &[Door],
    agreed: Agreed<'_>,
) -> Result<u8, Failure> {
    let session = Session::connect(workplace.postgres(target)?, "pgrunbook:fence").await?;
    let Some(held) = fence::list(&session).await?.into_iter().find(|held| held.id == id) else {
        return Err(unknown(id, target));
    };
    let message = format!(
        "this lets writers go on in {} table(s) of `{}`; what was read at the marker {} is then behind. Nothing was \
         touched",
        held.tables.len(),
        held.schema,
        held.marker
    );
    agreed.or_refuse(app, id, message)?;
    let cancel = app.cancel_on_signals();
    let operator = app.operator();
    let lift = Lift { schema: &held.schema, id: Some(id), by: &operator, ..Lift::default() };
    let lifted = fence::unfence(&session, &lift, &cancel).await.map_err(StepError::from);
    // Clients are let go on, whatever became of the fence.
    let resumed = fence::resume_all(workplace.root(), doors, RESUME_BUDGET).await;
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

/// The fence of a file, of which there is one at a time.
async fn status_of_file(app: &App, workplace: &Workplace, path: &Path, check: bool) -> Result<u8, Failure> {
    let held = file_fence(path).await?;
    let wrong: Vec<String> =
        held.iter().flat_map(|held| &held.open).map(|table| format!("{table} takes writes")).collect();
    if app.global.format == Output::Json {
        let fences: Vec<_> = held
            .iter()
            .map(|held| {
                json!({ "id": held.id, "file": path.display().to_string(), "tables": held.tables, "message": held.message, "wrong": wrong })
            })
            .collect();
        put(&json!({ "type": "fences", "fences": fences, "paused": fence::paused(workplace.root()) }).to_string());
    } else {
        match &held {
            Some(FileFence { id, message, tables, .. }) => {
                put(&format!("{id}  {}: {} table(s)", path.display(), tables.len()));
                put(&format!("  writers are told: {message}"));
            }
            None => put("The file is not fenced."),
        }
        for one in &wrong {
            put(&format!("  ! {one}"));
        }
        for one in fence::paused(workplace.root()) {
            put(&super::status::told_paused(&one));
        }
    }
    Ok(if check && !wrong.is_empty() { exit::FAILED } else { exit::DONE })
}

async fn drop_file(
    app: &App,
    workplace: &Workplace,
    id: &str,
    (target, path): (&str, PathBuf),
    doors: &[Door],
    agreed: Agreed<'_>,
) -> Result<u8, Failure> {
    let Some(held) = file_fence(&path).await?.filter(|held| held.id == id) else { return Err(unknown(id, target)) };
    let message = format!(
        "this lets writers go on in {} table(s) of {}; where the target has taken writes since, they are not in it, and `pgrunbook \
         transfer status` says whether it has. Nothing was touched",
        held.tables.len(),
        path.display()
    );
    agreed.or_refuse(app, id, message)?;
    let dropped = drop_file_fence(&path, id).await;
    // Clients are let go on, whatever became of the fence.
    let resumed = fence::resume_all(workplace.root(), doors, RESUME_BUDGET).await;
    let dropped = dropped?.ok_or_else(|| unknown(id, target))?;
    resumed.map_err(|error| Failure::from(StepError::in_doubt("pooler-stuck", error.to_string())))?;
    if app.global.format == Output::Json {
        put(
            &json!({ "type": "fence-dropped", "id": id, "file": path.display().to_string(), "tables": dropped.tables })
                .to_string(),
        );
    } else {
        put(&format!("Fence {id} is lifted: {} table(s) of {} take writes.", dropped.tables.len(), path.display()));
    }
    Ok(exit::DONE)
}
