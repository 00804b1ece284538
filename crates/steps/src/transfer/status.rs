//! How far the transfers of a target are, for people and for monitoring.

use std::time::Duration;

use pgrunbook_engine::StepError;
use pgrunbook_postgres::slots::{self, Direction as Way, SlotState};
use pgrunbook_postgres::{Lsn, PgError, Session};
use serde_json::{Value, json};

use super::ends::Ends;
use super::sqlite;
use super::state::{self, Phase, Stopped, Transfer, text};
use super::step::records;
use super::streams::Names;
use crate::typed::typed;
use crate::workplace::Workplace;

/// One transfer.
#[derive(Debug, Clone)]
pub struct Status {
    pub schema: String,
    /// The project's name of the target.
    pub target: String,
    pub from: String,
    pub phase: Phase,
    /// Rows and bytes that the base copy has brought, and how many tables are complete, of how many.
    pub copied: Copied,
    /// What flows; empty before there are slots and after `complete`.
    pub streams: Vec<Stream>,
    pub stopped: Option<Stopped>,
    /// What keeps it from going on beside that: a side that does not answer, a slot that is lost or was never there.
    pub trouble: Option<String>,
    pub rollback: Rollback,
}

/// The base copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    pub rows: u64,
    pub bytes: u64,
    pub ranges_done: u64,
    pub ranges: u64,
    /// Since the first range was there; to the last, once all are.
    pub took: Duration,
    /// Rows that came in that time: those of the first range came before it.
    pub rows_timed: u64,
}

/// One way.
#[derive(Debug, Clone)]
pub struct Stream {
    pub way: Way,
    /// Everything that was committed before is applied.
    pub applied: Option<Lsn>,
    pub transactions: u64,
    pub changes: u64,
    /// What the origin has written since the position that is applied, in bytes; where nobody follows it may be less than this.
    /// `None`: of a file nothing tells it.
    pub lag_bytes: Option<u64>,
    /// What the origin's server keeps for us, in bytes.
    pub retained_bytes: u64,
    /// Somebody receives now. `None`: nobody has to, since a file is read again instead.
    pub is_followed: Option<bool>,
    /// Why the slot cannot be used any more.
    pub lost: Option<String>,
}

/// Whether going back is possible, and whether it would lose a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollback {
    /// The source still takes the writes: there is nothing to go back from.
    NotNeeded,
    Lossless,
    Lossy(String),
    Gone,
}

impl Rollback {
    /// `rollback is lossless: yes`.
    pub fn line(&self) -> String {
        match self {
            Self::NotNeeded => "the source takes the writes".to_owned(),
            Self::Lossless => "rollback is lossless: yes".to_owned(),
            Self::Lossy(why) => format!("rollback is lossless: NO, because {why}"),
            Self::Gone => "rollback is gone: the transfer is complete".to_owned(),
        }
    }
}

/// All transfers of a target, or one.
///
/// # Errors
/// If the target cannot be asked. A source that does not answer is told of in its transfer.
pub async fn status(workplace: &Workplace, target: &str, schema: Option<&str>) -> Result<Vec<Status>, StepError> {
    let session = records(workplace, target, "pgrunbook:status").await?;
    let transfers = state::all(&session).await.map_err(PgError::into_step_error)?;
    let mut all = Vec::new();
    for transfer in transfers.into_iter().filter(|one| schema.is_none_or(|schema| one.schema == schema)) {
        all.push(of(workplace, target, transfer, &session).await?);
    }
    Ok(all)
}

async fn of(workplace: &Workplace, target: &str, transfer: Transfer, session: &Session) -> Result<Status, StepError> {
    let names = Names::of(&transfer.schema, &transfer.target);
    let mut streams = Vec::new();
    let mut silent = None;
    if sqlite::is_file(workplace, &transfer.spec.from) {
        match of_file(workplace, target, &transfer, session).await {
            Ok(found) => streams = found,
            Err(error) => silent = Some(error.message),
        }
    } else if transfer.phase != Phase::Complete
        && let Ok(ends) = Ends::of(workplace, target, &transfer)
    {
        for way in [Way::Forward, Way::Reverse] {
            match stream(&ends, &names, way).await {
                Ok(Some(stream)) => streams.push(stream),
                Ok(None) => {}
                Err(error) => silent = Some(error.message),
            }
        }
    }
    let trouble = trouble(&transfer, &streams, silent.as_deref());
    let rollback = rollback(&transfer, &streams, silent);
    let mut copied = copied(session, &transfer.schema).await.map_err(PgError::into_step_error)?;
    if let Some((rows, bytes)) = sqlite::loaded(session, &transfer.schema).await.map_err(PgError::into_step_error)? {
        copied = Copied { rows, bytes, ..copied };
    }
    Ok(Status {
        copied,
        from: transfer.spec.from.clone(),
        phase: transfer.phase,
        streams,
        trouble,
        rollback,
        stopped: transfer.stopped,
        schema: transfer.schema,
        target: target.to_owned(),
    })
}

/// What a person must see to before the source is fenced; behind the switch it is why the way back is lossy.
fn trouble(transfer: &Transfer, streams: &[Stream], silent: Option<&str>) -> Option<String> {
    if let Some(why) = silent.filter(|_| transfer.phase != Phase::Complete) {
        return Some(format!("a side does not answer ({why})"));
    }
    if transfer.phase != Phase::Following {
        return None;
    }
    match streams.iter().find(|stream| stream.way == Way::Forward) {
        Some(Stream { lost: Some(why), .. }) => {
            Some(format!("the forward slot was lost ({why}): the transfer must begin again"))
        }
        None => Some("there is no forward slot: the transfer must begin again".to_owned()),
        Some(_) => None,
    }
}

fn rollback(transfer: &Transfer, streams: &[Stream], silent: Option<String>) -> Rollback {
    match transfer.phase {
        Phase::Complete => return Rollback::Gone,
        Phase::Switched | Phase::Back => {}
        _ => return Rollback::NotNeeded,
    }
    let reverse = streams.iter().find(|stream| stream.way == Way::Reverse);
    let lost = reverse.and_then(|stream| stream.lost.clone()).map(|why| format!("the reverse slot was lost ({why})"));
    let off = (!transfer.spec.reverse).then(|| "no writes flow back (`reverse = false`)".to_owned());
    let missing = (reverse.is_none() && silent.is_none()).then(|| "there is no reverse slot".to_owned());
    let silent = silent.map(|why| format!("a side does not answer ({why})"));
    match transfer.lossy.clone().or(off).or(lost).or(missing).or(silent) {
        Some(why) => Rollback::Lossy(why),
        None => Rollback::Lossless,
    }
}

/// The ways of a file: what was shipped from it, and what flows back.
async fn of_file(
    workplace: &Workplace,
    target: &str,
    transfer: &Transfer,
    session: &Session,
) -> Result<Vec<Stream>, StepError> {
    if transfer.phase == Phase::Complete {
        return Ok(Vec::new());
    }
    let mut streams = Vec::new();
    let (syncs, changes) = sqlite::shipped(session, &transfer.schema).await.map_err(PgError::into_step_error)?;
    streams.push(Stream {
        way: Way::Forward,
        applied: None,
        transactions: syncs,
        changes,
        lag_bytes: None,
        retained_bytes: 0,
        is_followed: None,
        lost: None,
    });
    let names = Names::of(&transfer.schema, &transfer.target);
    let slot = slots::slot_state(session, &names.slot(Way::Reverse)).await.map_err(PgError::into_step_error)?;
    if let Some(slot) = slot {
        let end = super::follow::insert_position(session).await?;
        let written = sqlite::written(workplace, target, transfer).await?;
        let at = written.as_ref().map(|written| written.lsn);
        let (transactions, changes) = written.map_or((0, 0), |written| (written.transactions, written.changes));
        streams.push(Stream::of_slot(Way::Reverse, slot, end, at, (transactions, changes)));
    }
    Ok(streams)
}

async fn stream(ends: &Ends, names: &Names, way: Way) -> Result<Option<Stream>, StepError> {
    let origin = ends.origin(way).session("pgrunbook:status").await?;
    let Some(slot) = slots::slot_state(&origin, &names.slot(way)).await.map_err(PgError::into_step_error)? else {
        return Ok(None);
    };
    let end = super::follow::insert_position(&origin).await?;
    let destination = ends.destination(way).session("pgrunbook:status").await?;
    let (applied, transactions, changes) =
        position(&destination, &names.stream(way)).await.map_err(PgError::into_step_error)?;
    Ok(Some(Stream::of_slot(way, slot, end, applied, (transactions, changes))))
}

impl Stream {
    /// What is recorded is the last transaction that was applied; whoever follows knows of those behind it that do not concern it, too.
    fn of_slot(way: Way, slot: SlotState, end: Lsn, recorded: Option<Lsn>, counted: (u64, u64)) -> Self {
        let SlotState { active_pid, confirmed, applied, retained_bytes, invalidation, .. } = slot;
        let at = applied.max(recorded).filter(|at| *at > Lsn::default()).or(confirmed).unwrap_or(end);
        Self {
            way,
            applied: recorded,
            transactions: counted.0,
            changes: counted.1,
            lag_bytes: Some(end.0.saturating_sub(at.0)),
            retained_bytes,
            is_followed: Some(active_pid.is_some()),
            lost: invalidation,
        }
    }
}

async fn position(session: &Session, stream: &str) -> Result<(Option<Lsn>, u64, u64), PgError> {
    if session.value("SELECT pg_catalog.to_regclass('pgrunbook.stream') IS NOT NULL").await? != "t" {
        return Ok((None, 0, 0));
    }
    let answers = session
        .simple(&format!("SELECT lsn, transactions, changes FROM pgrunbook.stream WHERE name = {}", text(stream)))
        .await?;
    let row = answers.last().and_then(|answer| answer.rows.first()).cloned().unwrap_or_default();
    let at = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    Ok((at(0).parse().ok(), at(1).parse().unwrap_or_default(), at(2).parse().unwrap_or_default()))
}

impl Status {
    /// The way that the application's writes flow now.
    fn live(&self) -> Way {
        match self.phase {
            Phase::Switched | Phase::Back => Way::Reverse,
            _ => Way::Forward,
        }
    }

    /// As a format: `pgrunbook transfer status --format json`.
    pub fn to_json(&self) -> Value {
        let streams: Vec<Value> = self
            .streams
            .iter()
            .map(|stream| {
                json!({
                    "way": stream.way.to_string(),
                    "applied": stream.applied.map(|lsn| lsn.to_string()),
                    "transactions": stream.transactions,
                    "changes": stream.changes,
                    "lag_bytes": stream.lag_bytes,
                    "retained_bytes": stream.retained_bytes,
                    "is_followed": stream.is_followed,
                    "lost": stream.lost,
                })
            })
            .collect();
        json!({
            "schema": self.schema,
            "from": self.from,
            "phase": self.phase.word(),
            "copied": {
                "rows": self.copied.rows, "bytes": self.copied.bytes, "ranges_done": self.copied.ranges_done,
                "ranges": self.copied.ranges, "rows_per_second": self.copied.rate(), "eta_seconds": self.copied.eta(),
            },
            "streams": streams,
            "stopped": self.stopped.as_ref().map(|stopped| json!({
                "stream": stopped.stream, "code": stopped.code, "why": stopped.why, "lsn": stopped.lsn.to_string(),
            })),
            "trouble": self.trouble,
            "rollback_is_lossless": match &self.rollback {
                Rollback::Lossless => Value::Bool(true),
                Rollback::Lossy(_) | Rollback::Gone => Value::Bool(false),
                Rollback::NotNeeded => Value::Null,
            },
            "rollback": self.rollback.line(),
        })
    }
}

impl Copied {
    /// Rows in a second; none where nothing tells how long they took: of a file, and of a copy of one range.
    pub fn rate(&self) -> Option<u64> {
        (!self.took.is_zero()).then(|| (self.rows_timed as f64 / self.took.as_secs_f64()) as u64)
    }

    /// Seconds that are left, as far as ranges are alike; none before the second is done.
    pub fn eta(&self) -> Option<u64> {
        let timed = self.ranges_done.saturating_sub(1);
        let left = self.ranges.saturating_sub(self.ranges_done);
        (timed > 0).then(|| (self.took.as_secs_f64() * left as f64 / timed as f64).ceil() as u64)
    }
}

/// For a terminal: a line each, and below it what a person must know.
pub fn table(all: &[Status]) -> String {
    let mut rows = vec![["SCHEMA", "FROM", "PHASE", "ROWS", "BYTES", "ROWS/S", "ETA", "LAG"].map(str::to_owned)];
    for one in all {
        let is_copying = one.copied.ranges > one.copied.ranges_done;
        let live = one.streams.iter().find(|stream| stream.way == one.live());
        rows.push([
            one.schema.clone(),
            one.from.clone(),
            one.phase.word().to_owned(),
            one.copied.rows.to_string(),
            size(one.copied.bytes),
            one.copied.rate().map_or_else(|| "-".to_owned(), |rate| rate.to_string()),
            match one.copied.eta() {
                Some(eta) if is_copying => format!("{eta} s"),
                _ => "-".to_owned(),
            },
            live.and_then(|stream| stream.lag_bytes).map_or_else(|| "-".to_owned(), size),
        ]);
    }
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        let Some(one) = at.checked_sub(1).and_then(|at| all.get(at)) else { continue };
        if let Some(stopped) = &one.stopped {
            text.push_str(&format!("  ! {} stands still since {}: {}\n", stopped.stream, stopped.lsn, stopped.why));
        }
        if let Some(trouble) = &one.trouble {
            text.push_str(&format!("  ! {trouble}\n"));
        }
        for stream in one.streams.iter().filter(|stream| stream.is_followed == Some(false) && one.phase.follows()) {
            text.push_str(&format!(
                "  ! nobody follows the {} stream; its server keeps {} for it: {}\n",
                stream.way,
                size(stream.retained_bytes),
                typed(&["transfer", "follow", "--target", &one.target, "--schema", &one.schema])
            ));
        }
        text.push_str(&format!("  {}\n", one.rollback.line()));
    }
    text
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

const COPIED: &str = "SELECT coalesce(sum(r.rows), 0), coalesce(sum(r.bytes), 0), count(r.*),
    (SELECT coalesce(sum(t.ranges), 0) FROM pgrunbook.transfer_table AS t WHERE t.schema = SCHEMA),
    coalesce((extract(epoch FROM (CASE WHEN count(r.*) >= (SELECT sum(t.ranges) FROM pgrunbook.transfer_table AS t
        WHERE t.schema = SCHEMA) THEN max(r.at) ELSE pg_catalog.clock_timestamp() END) - min(r.at)) * 1000)::bigint, 0),
    coalesce(sum(r.rows), 0) - coalesce((SELECT f.rows FROM pgrunbook.transfer_range AS f WHERE f.schema = SCHEMA
        ORDER BY f.at, f.relation, f.range_no LIMIT 1), 0)
FROM pgrunbook.transfer_range AS r WHERE r.schema = SCHEMA";

async fn copied(session: &Session, schema: &str) -> Result<Copied, PgError> {
    if session.value("SELECT pg_catalog.to_regclass('pgrunbook.transfer_range') IS NOT NULL").await? != "t" {
        return Ok(Copied::default());
    }
    let answers = session.simple(&COPIED.replace("SCHEMA", &text(schema))).await?;
    let row = answers.last().and_then(|answer| answer.rows.first()).cloned().unwrap_or_default();
    let number = |at: usize| row.get(at).cloned().flatten().and_then(|text| text.parse().ok()).unwrap_or_default();
    let took = Duration::from_millis(number(4));
    let (rows, bytes, ranges_done, ranges, rows_timed) = (number(0), number(1), number(2), number(3), number(5));
    Ok(Copied { rows, bytes, ranges_done, ranges, took, rows_timed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_what_is_left_count_from_the_first_range_on() {
        let copied = Copied {
            rows: 500,
            bytes: 9_000,
            ranges_done: 5,
            ranges: 8,
            took: Duration::from_secs(10),
            rows_timed: 400,
        };
        assert_eq!((copied.rate(), copied.eta()), (Some(40), Some(8)));
        assert_eq!(Copied { ranges: 5, ..copied }.eta(), Some(0));
    }

    #[test]
    fn a_file_and_a_single_range_have_no_rate() {
        let copied = Copied { rows: 2_000, bytes: 92_000, ..Copied::default() };
        assert_eq!((copied.rate(), copied.eta()), (None, None));
        let single = Copied { ranges_done: 1, ranges: 4, took: Duration::from_secs(3), ..copied };
        assert_eq!(single.eta(), None, "one range says nothing of the others");
    }
}
