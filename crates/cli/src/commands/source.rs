//! `source`: the mapping of sources to schemas, looked at and added to without a runbook.

use pgrunbook_engine::{Cancel, StepError};
use pgrunbook_postgres::Session;
use pgrunbook_steps::migrate::Around;
use pgrunbook_steps::source::{self, Bootstrapped};
use serde_json::json;

use crate::app::App;
use crate::args::{Output, SourceAction};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

pub async fn source(app: &App, action: SourceAction) -> Result<u8, Failure> {
    match action {
        SourceAction::List { target, check } => list(app, &target, check).await,
        SourceAction::Resolve { source_id, target } => resolve(app, &source_id, &target).await,
        SourceAction::Add { source_id, target } => add(app, &source_id, &target).await,
    }
}

async fn list(app: &App, target: &str, check: bool) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let session = Session::connect(workplace.postgres(target)?, "pgrunbook:source").await?;
    let listing = source::list(&session, workplace.topology()?).await.map_err(StepError::from)?;
    if app.global.format == Output::Json {
        let sources: Vec<_> = listing
            .sources
            .iter()
            .map(|one| json!({ "source_id": one.source_id, "schema": one.schema, "wrong": one.wrong }))
            .collect();
        put(&json!({ "type": "sources", "sources": sources, "unregistered": listing.unregistered }).to_string());
    } else {
        let width = listing.sources.iter().map(|one| one.source_id.chars().count()).max().unwrap_or_default();
        for one in &listing.sources {
            let wrong = one.wrong.as_ref().map_or_else(String::new, |wrong| format!("  ! {wrong}"));
            put(&format!("{:width$}  {}{wrong}", one.source_id, one.schema));
        }
        for schema in &listing.unregistered {
            put(&format!("! the schema {schema} is no source's"));
        }
        if listing.sources.is_empty() {
            put("No source is registered.");
        }
    }
    Ok(if check && !listing.is_whole() { exit::FAILED } else { exit::DONE })
}

async fn resolve(app: &App, id: &str, target: &str) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let session = Session::connect(workplace.postgres(target)?, "pgrunbook:source").await?;
    let schema = source::lookup(&session, workplace.topology()?, id).await.map_err(StepError::from)?;
    put(&match app.global.format {
        Output::Json => json!({
            "type": "source", "source_id": id, "schema": schema.as_str(), "search_path": source::search_path_of(&schema)
        })
        .to_string(),
        _ => schema.to_string(),
    });
    Ok(exit::DONE)
}

async fn add(app: &App, id: &str, target: &str) -> Result<u8, Failure> {
    let workplace = app.workplace()?;
    let options = workplace.postgres(target)?;
    app.refuse_if_protected("source add", "source = \"bootstrap\"")?;
    let cancel: Cancel = app.cancel_on_signals();
    let operator = app.operator();
    let tell = |line: String| app.tell(&line);
    let around = Around::by_hand(&cancel, &operator, &tell);
    let mut done = Bootstrapped::default();
    source::bootstrap(&workplace, options, workplace.topology()?, id, &around, &mut done).await?;
    if app.global.format == Output::Json {
        let chains: serde_json::Map<_, _> =
            done.chains.iter().map(|(name, files)| (name.clone(), json!(files))).collect();
        put(&json!({
            "type": "source-added", "source_id": id, "schema": done.schema.as_ref().map(source::SchemaName::as_str),
            "made_schema": done.made.schema, "made_row": done.made.row, "made_mapping": done.made.table,
            "statements": done.statements, "chains": chains
        })
        .to_string());
        return Ok(exit::DONE);
    }
    for (chain, files) in &done.chains {
        put(&format!("  {chain}: {}", files.join(", ")));
    }
    put(&format!("{}.", done.summary()));
    Ok(exit::DONE)
}
