//! All rows of a file and of the target that flows back into it, compared while writers are at work in the target.

use std::time::Duration;

use pgrunbook_engine::{Cancel, Evidence, StepError};
use serde_json::json;

use super::bring::SqliteEnds;
use super::keyed::Touched;
use super::shape;
use super::sync::{Access, Feed};
use crate::transfer::standing::{Which, stopped_error};
use crate::transfer::state::{Phase, Transfer};
use crate::typed::typed;
use crate::workplace::Workplace;

/// How long what flows back may need to come to where the target is.
const CATCH_UP: Duration = Duration::from_secs(3600);

/// So often rows are looked at that differed: under writers one may be on its way each time.
const LOOKS: u32 = 8;

/// Compares every row, and those that differ again, after what the target had committed until then is in the file.
///
/// The two sides are not looked at in one moment. A row that is equal once stays equal: what flows back later brings whole rows,
/// or stops.
///
/// # Errors
/// With the tables that differ; if nothing flows back, or the stream stands still; with the code `lossy`, if the target has
/// columns for which the file has no place.
pub async fn compare_live(
    workplace: &Workplace,
    target: &str,
    transfer: &Transfer,
    cancel: &Cancel,
) -> Result<Evidence, StepError> {
    let schema = &transfer.schema;
    if let Some(stopped) = &transfer.stopped {
        return Err(stopped_error(stopped, Which { schema, target }));
    }
    if transfer.phase != Phase::Switched {
        let phase = transfer.phase.word();
        return Err(StepError::unusable(
            "phase",
            format!("the transfer into {schema} is {phase}: a file is compared so after the switch, when the target flows into it"),
        )
        .help("before it, `follow` compares the file with the target each time"));
    }
    let ends = SqliteEnds::of(workplace, target, &transfer.spec.from)?;
    let Some(back) = workplace.followers().write_back(workplace, target, transfer).await? else {
        return Err(StepError::failed("no-stream", "nothing flows back into the file: there is no reverse slot"));
    };
    back.caught_up(CATCH_UP, cancel).await?;
    let session = ends.session("pgrunbook:parity").await?;
    let mut feed = Feed::open(session, &ends.path, transfer, Access::Read).await?;
    shape::unchanged(&feed.session, schema, &feed.shape).await?;
    let (touched, rows) = feed.compare_online().await?;
    let (mut looks, mut differences) = (1, Vec::new());
    while !touched.iter().all(Touched::is_nothing) && looks <= LOOKS {
        back.caught_up(CATCH_UP, cancel).await?;
        differences = feed.compare_touched(&touched).await?.words(&feed.shape);
        looks += 1;
        if differences.is_empty() {
            break;
        }
    }
    if !differences.is_empty() {
        return Err(StepError::failed(
            "parity",
            format!("the file is not what the target is: {}. Nothing was changed.", differences.join("; ")),
        )
        .help(format!(
            "`{}` shows the rows; those that are written without a pause are compared when going back",
            typed(&["parity", &transfer.spec.from, target, "--schema-b", schema])
        )));
    }
    Ok(Evidence::of(format!("{schema}: the file holds the rows of the target"))
        .fact("compared", json!({ "looks": looks, "rows": rows })))
}
