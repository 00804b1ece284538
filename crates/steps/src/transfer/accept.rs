//! Lets a stream go on that stands still: after a person has looked.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::{Lsn, PgError};

use super::ends::Ends;
use super::state::{self, Phase, Stopped, Transfer, text};
use super::step::{recorded, records};
use super::streams::Names;
use super::{ddl, since, sqlite};
use crate::typed::on_transfer;
use crate::workplace::Workplace;

/// What stands in the way of a stream or of a crossing, and what would be done about it.
#[derive(Debug, Clone)]
pub struct Offer {
    /// With the code `altered` nothing stands still: the next crossing would refuse what changed.
    pub stopped: Stopped,
    /// Statements for the side that the stream leads to; lines that begin with `--` are for people.
    pub statements: Vec<String>,
    /// That side, as the project calls it.
    pub on: String,
}

/// What accepting would do for the transfer into a schema; `None` where nothing stands still and nothing was altered.
///
/// # Errors
/// If there is no such transfer, or a side cannot be asked.
pub async fn offer(workplace: &Workplace, target: &str, schema: &str) -> Result<Option<Offer>, StepError> {
    let session = records(workplace, target, "pgrunbook:accept").await?;
    let transfer = recorded(&session, schema).await?;
    let Some(stopped) = transfer.stopped.clone() else { return offer_altered(workplace, target, &transfer).await };
    if sqlite::is_file(workplace, &transfer.spec.from) {
        return Ok(Some(Offer { statements: Vec::new(), on: transfer.spec.from, stopped }));
    }
    let ends = Ends::of(workplace, target, &transfer)?;
    let way = way_of(&stopped);
    let statements = if stopped.code == "ddl" { ddl::derive(&ends, schema, way).await? } else { Vec::new() };
    Ok(Some(Offer { statements, on: ends.destination(way).name.clone(), stopped }))
}

/// What changed on the side that takes writes since the transfer began, and not on the other. What no statement can be derived
/// for is told in a line for people: accepting leaves it as it is.
async fn offer_altered(workplace: &Workplace, target: &str, transfer: &Transfer) -> Result<Option<Offer>, StepError> {
    if sqlite::is_file(workplace, &transfer.spec.from) || !matches!(transfer.phase, Phase::Following | Phase::Switched)
    {
        return Ok(None);
    }
    let ends = Ends::of(workplace, target, transfer)?;
    let way = since::live_way(transfer.phase);
    let since = since::look(&ends, transfer, way).await?;
    if since.differences.is_empty() {
        return Ok(None);
    }
    let mut statements = ddl::derive(&ends, &transfer.schema, way).await?;
    // A default may hold a line break, and what is behind it would be a statement.
    statements.extend(since.differences.iter().map(|one| format!("-- {}", ddl::one_line(one))));
    let stopped = Stopped {
        stream: Names::of(&transfer.schema, &transfer.target).stream(way),
        code: "altered".to_owned(),
        why: format!("{} was altered since the transfer began", ends.origin(way).name),
        lsn: Lsn::default(),
        statements: Vec::new(),
    };
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
            format!("no stream of {schema} stands still, and nothing was altered. Nothing was changed."),
        ));
    };
    if let Some(instead) = instead {
        offer.statements = instead.to_vec();
    }
    let session = records(workplace, target, "pgrunbook:accept").await?;
    let transfer = recorded(&session, schema).await?;
    if sqlite::is_file(workplace, &transfer.spec.from) {
        workplace.followers().end(target, schema).await;
        let outgrown = sqlite::accept_change(workplace, target, &transfer, offer.stopped.code == "ddl").await?;
        let mut sql = state::stopped_sql(schema, None);
        if way_of(&offer.stopped) == Way::Reverse {
            let lossy = match outgrown {
                Some(why) => state::still_lossy_sql(schema, &why),
                None => state::unproven_sql(schema, offer.stopped.lsn),
            };
            sql = format!("BEGIN; {sql}; {lossy}; COMMIT");
        }
        session.execute(&sql).await.map_err(PgError::into_step_error)?;
        return Ok(offer);
    }
    let ends = Ends::of(workplace, target, &transfer)?;
    let names = Names::of(schema, &transfer.target);
    let way = way_of(&offer.stopped);
    let there = ends.destination(way).session("pgrunbook:accept").await?;
    let (is_ddl, is_altered) = (offer.stopped.code == "ddl", offer.stopped.code == "altered");
    if is_ddl || is_altered {
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
            .help(format!(
                "make the change there yourself, then {}; or give the statements: {} with `--instead SQL`, once for each",
                on_transfer("accept", schema, target, &["--yes"]),
                on_transfer("accept", schema, target, &["--yes"])
            )));
        }
    }
    let mut sql = vec![state::stopped_sql(schema, None)];
    if is_altered || (is_ddl && instead.is_some()) {
        // What a person has decided is what stood there from now on. Whether the rows are alike nobody knows.
        sql.extend(since::admit(&ends, &transfer, way).await?);
        sql.extend([Way::Forward, Way::Reverse].map(|way| state::proven_sql(schema, way, None)));
    }
    if !is_altered && way == Way::Reverse {
        sql.push(state::unproven_sql(schema, offer.stopped.lsn));
    }
    session.execute(&format!("BEGIN; {}; COMMIT", sql.join("; "))).await.map_err(PgError::into_step_error)?;
    // A follower of this process has ended with its lane; the next one begins anew.
    workplace.followers().end(target, schema).await;
    Ok(offer)
}

fn way_of(stopped: &Stopped) -> Way {
    if stopped.stream.ends_with(":reverse") { Way::Reverse } else { Way::Forward }
}
