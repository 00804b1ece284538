//! Lets a stream go on that stands still: after a person has looked.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;
use pgrunbook_postgres::slots::Direction as Way;

use super::ddl;
use super::ends::Ends;
use super::sqlite;
use super::state::{self, Stopped, text};
use super::step::{recorded, records};
use super::streams::Names;
use crate::workplace::Workplace;

/// What stands in the way of a stream, and what would be done about it.
#[derive(Debug, Clone)]
pub struct Offer {
    pub stopped: Stopped,
    /// Statements for the side that the stream leads to; lines that begin with `--` are for people.
    pub statements: Vec<String>,
    /// That side, as the project calls it.
    pub on: String,
}

/// What accepting would do for the transfer into a schema; `None` where nothing stands still.
///
/// # Errors
/// If there is no such transfer, or a side cannot be asked.
pub async fn offer(workplace: &Workplace, target: &str, schema: &str) -> Result<Option<Offer>, StepError> {
    let session = records(workplace, target, "pgrunbook:accept").await?;
    let transfer = recorded(&session, schema).await?;
    let Some(stopped) = transfer.stopped.clone() else { return Ok(None) };
    if sqlite::is_file(workplace, &transfer.spec.from) {
        return Ok(Some(Offer { statements: Vec::new(), on: transfer.spec.from, stopped }));
    }
    let ends = Ends::of(workplace, target, &transfer)?;
    let way = way_of(&stopped);
    let statements = if stopped.code == "ddl" { ddl::derive(&ends, way).await? } else { Vec::new() };
    Ok(Some(Offer { statements, on: ends.destination(way).name.clone(), stopped }))
}

/// Does it: the statements (other ones, if they are given) in one transaction, and the stream may go on.
///
/// # Errors
/// If a statement fails; then nothing was changed.
pub async fn go_on(
    workplace: &Workplace,
    target: &str,
    schema: &str,
    instead: Option<&[String]>,
) -> Result<Offer, StepError> {
    let Some(mut offer) = offer(workplace, target, schema).await? else {
        return Err(StepError::unusable(
            "not-stopped",
            format!("no stream of {schema} stands still. Nothing was changed."),
        ));
    };
    if let Some(instead) = instead {
        offer.statements = instead.to_vec();
    }
    let session = records(workplace, target, "pgrunbook:accept").await?;
    let transfer = recorded(&session, schema).await?;
    if sqlite::is_file(workplace, &transfer.spec.from) {
        workplace.followers().end(target, schema).await;
        if offer.stopped.code == "ddl" {
            sqlite::accept_change(workplace, target, &transfer).await?;
        }
        session.execute(&state::stopped_sql(schema, None)).await.map_err(PgError::into_step_error)?;
        return Ok(offer);
    }
    let ends = Ends::of(workplace, target, &transfer)?;
    let names = Names::of(schema, &transfer.target);
    let way = way_of(&offer.stopped);
    let there = ends.destination(way).session("pgrunbook:accept").await?;
    if offer.stopped.code == "ddl" {
        let mut sql = vec!["BEGIN".to_owned()];
        sql.extend(offer.statements.iter().cloned());
        // What the stream knew of the tables no longer holds: it compares them with the destination anew.
        sql.push(format!("DELETE FROM pgrunbook.stream_relation WHERE stream = {}", text(&names.stream(way))));
        sql.push("COMMIT".to_owned());
        if let Err(error) = there.execute(&sql.join(";\n")).await {
            let _ = there.execute("ROLLBACK").await;
            return Err(StepError::failed(
                "accept",
                format!("the same change cannot be made on {}: {error}. Nothing was changed.", offer.on),
            )
            .help("make the change there yourself, then `pgrunbook transfer accept --done`"));
        }
    }
    session.execute(&state::stopped_sql(schema, None)).await.map_err(PgError::into_step_error)?;
    // A follower of this process has ended with its lane; the next one begins anew.
    workplace.followers().end(target, schema).await;
    Ok(offer)
}

fn way_of(stopped: &Stopped) -> Way {
    if stopped.stream.ends_with(":reverse") { Way::Reverse } else { Way::Forward }
}
