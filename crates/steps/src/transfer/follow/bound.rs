//! What a slot may cost its server: limits stop the sync, and never the database that it comes from.

use std::time::Duration;

use pgrunbook_engine::StepError;
use pgrunbook_postgres::slots::{self, Direction as Way};
use pgrunbook_postgres::{PgError, Session};

use crate::transfer::ends::Ends;
use crate::transfer::sqlite;
use crate::transfer::state::{self, Stopped, Transfer};
use crate::transfer::streams::Names;
use crate::workplace::Workplace;

/// How often it is asked what the slot keeps.
const WATCH: Duration = Duration::from_secs(30);

/// A slot that kept more than it may.
#[derive(Debug, Clone, Copy)]
pub struct TooMuch {
    pub kept: u64,
    pub limit: u64,
}

impl TooMuch {
    /// What happened to it, in words.
    pub fn said(self, slot: &str) -> String {
        format!(
            "the slot {slot} kept {} bytes of WAL, more than `spool_limit` ({} bytes): it was dropped, so that its server's disk does \
             not fill; the transfer must begin again",
            self.kept, self.limit
        )
    }
}

/// Drops a slot for which its server keeps more of its log than `limit`, in bytes.
///
/// # Errors
/// If its server cannot be asked.
pub async fn bound(origin: &Session, slot: &str, limit: u64) -> Result<Option<TooMuch>, PgError> {
    let kept = slots::slot_state(origin, slot).await?.map_or(0, |state| state.retained_bytes);
    if kept <= limit || !slots::drop_slot_if_ours(origin, slot).await? {
        return Ok(None);
    }
    Ok(Some(TooMuch { kept, limit }))
}

/// Waits until a slot keeps too much, and drops it. A server that does not answer is asked again.
pub async fn watch(ends: &Ends, way: Way, slot: &str, limit: u64) -> TooMuch {
    loop {
        tokio::time::sleep(WATCH).await;
        let Ok(origin) = ends.origin(way).session("pgrunbook:slot").await else { continue };
        if let Ok(Some(found)) = bound(&origin, slot, limit).await {
            return found;
        }
    }
}

/// Why a stream stands still, after its slot was looked at: nobody reads it now, and its server keeps its log for it.
///
/// # Errors
/// If the records cannot be written.
pub async fn stopped(
    workplace: &Workplace,
    target: &str,
    transfer: &Transfer,
    stopped: &Stopped,
    records: &Session,
) -> Result<Stopped, StepError> {
    let way = if stopped.stream.ends_with(":reverse") { Way::Reverse } else { Way::Forward };
    let origin = match sqlite::is_file(workplace, &transfer.spec.from) {
        true if way == Way::Forward => return Ok(stopped.clone()),
        true => Session::connect(workplace.postgres(target)?, "pgrunbook:slot").await.map_err(PgError::into_step_error),
        false => Ends::of(workplace, target, transfer)?.origin(way).session("pgrunbook:slot").await,
    };
    // A server that is down keeps nothing more; it is looked at again.
    let Ok(origin) = origin else { return Ok(stopped.clone()) };
    let slot = Names::of(&transfer.schema, &transfer.target).slot(way);
    let limit = transfer.spec.limits().spool_hard;
    let Some(found) = bound(&origin, &slot, limit).await.map_err(PgError::into_step_error)? else {
        return Ok(stopped.clone());
    };
    let why = format!("{}; and {}", stopped.why, found.said(&slot));
    let now = Stopped { code: "spool".to_owned(), why, ..stopped.clone() };
    let mut sql = state::stopped_sql(&transfer.schema, Some(&now));
    if way == Way::Reverse {
        sql = format!("{sql}; {}", state::lossy_sql(&transfer.schema, &now.why));
    }
    records.execute(&sql).await.map_err(PgError::into_step_error)?;
    Ok(now)
}
