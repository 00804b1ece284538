//! The blocks of a cutover: `preflight`, `transfer`, `follow`, `cutover`, `complete`.

mod complete;
mod cutover;
mod follow;
mod load;
mod preflight;

use std::time::Duration;

use pgrunbook_engine::{RunCx, StepError};
use pgrunbook_postgres::{PgError, Session};

pub use complete::COMPLETE;
pub use cutover::CUTOVER;
pub use follow::FOLLOW;
pub use load::TRANSFER;
pub use preflight::PREFLIGHT;

use super::state::{self, Transfer};
use crate::workplace::Workplace;

/// A session on the target, for the records.
pub(super) async fn records(workplace: &Workplace, target: &str, name: &str) -> Result<Session, StepError> {
    Session::connect(workplace.postgres(target)?, name).await.map_err(PgError::into_step_error)
}

/// The transfer into a schema.
pub(super) async fn recorded(session: &Session, schema: &str) -> Result<Transfer, StepError> {
    state::find(session, schema).await.map_err(PgError::into_step_error)?.ok_or_else(|| {
        StepError::unusable(
            "no-transfer",
            format!("nothing was transferred into the schema {schema}. Nothing was changed."),
        )
        .help(format!(
            "a `transfer` step comes before this one, or `pgrunbook transfer start --from SOURCE --schema {schema}`"
        ))
    })
}

/// The name of a session of this attempt.
fn session_name(cx: &RunCx<'_>) -> String {
    format!("pgrunbook:{}:{}", cx.run, cx.step)
}

/// A duration as people write it: `500 ms`, `5s`.
fn duration(text: Option<&str>, default: Duration) -> Result<Duration, StepError> {
    match text {
        None => Ok(default),
        Some(text) => pgrunbook_document::parse_duration(text).ok_or_else(|| {
            StepError::unusable("bad-value", format!("{text:?} is no duration: they look like 500ms or 5s"))
        }),
    }
}
