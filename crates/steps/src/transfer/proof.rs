//! That both sides of a transfer are equal, proven while writers are at work, so that a crossing looks at changed rows only.
//!
//! The machine is `parity`'s [`Prover`]; here it is joined to the streams: the lane notes which keys change, stands still
//! between two transactions when a snapshot is taken, and keeps in its spool what a later process must note again.

use std::time::Instant;

use async_trait::async_trait;
use pgrunbook_engine::{Cancel, Evidence, StepError};
use pgrunbook_postgres::pgoutput::Event;
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::spool::{Follow, Spool};
use pgrunbook_postgres::{Lsn, PgError, Snapshot};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::ends::{End, Ends};
use super::follow::{Follower, Hold, Turn};
use super::sqlite;
use super::state::{self, Phase, Transfer};
use super::step::{recorded, records};
use crate::parity::{Aligned, Ask, Difference, Dirty, ParityError, Pass, Place, Prover, Reader, TableParity, What};
use crate::workplace::Workplace;

/// Dirty keys that a freeze compares without being felt; more are looked at before it.
const FEW: u64 = 5_000;

/// Connections on each side.
const JOBS: usize = 2;

/// Differences that are told with their keys.
const SHOWN: usize = 20;

/// What is known of one way.
#[derive(Default)]
pub struct Proof {
    pub prover: Option<Prover>,
    /// Both sides were equal but for the dirty keys.
    pub holds: bool,
}

/// Both sides of a way, ready to be compared: its origin first.
///
/// # Errors
/// If a side cannot be read.
pub async fn open(ends: &Ends, transfer: &Transfer, way: Way) -> Result<Prover, StepError> {
    let place = |end: &End| Place::Postgres { options: Box::new(end.options.clone()), schema: end.schema.clone() };
    let (origin, destination) = (place(ends.origin(way)), place(ends.destination(way)));
    let exclude: Vec<String> = transfer.spec.exclude.iter().cloned().collect();
    let ask = Ask {
        tables: &[],
        exclude: &exclude,
        jobs: JOBS,
        shown: SHOWN,
        application_name: "pgrunbook:parity",
        cancel: &Cancel::default(),
        tell: &|_, _| {},
    };
    Ok(Prover::open([&origin, &destination], &ask).await?)
}

/// Sees to it that a crossing this way will find few rows to compare, and that the other way's changes are noted from now on.
///
/// # Errors
/// With the differences, if both sides are not equal.
pub async fn prepare(
    ends: &Ends,
    transfer: &Transfer,
    follower: &Follower,
    way: Way,
    cancel: &Cancel,
) -> Result<Value, StepError> {
    for each in follower.ways() {
        let mut proof = follower.proof(each).await?;
        if proof.prover.is_none() {
            let prover = open(ends, transfer, each).await?;
            follower.note(each, prover.reader()).await?;
            proof.prover = Some(prover);
            proof.holds = false;
        }
    }
    look(follower, way, cancel).await
}

/// What was proven holds no more, of either way.
///
/// # Errors
/// If a way ended meanwhile.
pub async fn forget(follower: &Follower) -> Result<(), StepError> {
    for way in follower.ways() {
        *follower.proof(way).await? = Proof::default();
    }
    Ok(())
}

/// Compares every row of a transfer's two sides at one exact position, while writers are at work. Of a file, which has no
/// positions, after the switch, and what differs again after it caught up.
///
/// # Errors
/// With the differences; or if the transfer follows nothing now.
pub async fn compare_live(
    workplace: &Workplace,
    target: &str,
    schema: &str,
    cancel: &Cancel,
) -> Result<Evidence, StepError> {
    let records = records(workplace, target, "pgrunbook:parity").await?;
    let transfer = recorded(&records, schema).await?;
    if sqlite::is_file(workplace, &transfer.spec.from) {
        let evidence = sqlite::compare_live(workplace, target, &transfer, cancel).await?;
        records.execute(&state::lossless_sql(schema)).await.map_err(PgError::into_step_error)?;
        return Ok(evidence);
    }
    let way = match transfer.phase {
        Phase::Following => Way::Forward,
        Phase::Switched => Way::Reverse,
        phase => {
            return Err(StepError::unusable(
                "phase",
                format!("the transfer into {schema} is {} and follows nothing now", phase.word()),
            ));
        }
    };
    let ends = Ends::of(workplace, target, &transfer)?;
    let follower = workplace.followers().follow(workplace, target, &transfer, Turn::Take).await?;
    follower.proof(way).await?.holds = false;
    let looked = prepare(&ends, &transfer, &follower, way, cancel).await?;
    if way == Way::Reverse && transfer.lossy.is_some() {
        records.execute(&state::lossless_sql(schema)).await.map_err(PgError::into_step_error)?;
    }
    Ok(Evidence::of(format!("{schema}: both sides hold the same rows, at one position")).fact("compared", looked))
}

/// One look at both sides under writers: at everything the first time, and then at what changed since.
///
/// # Errors
/// With the differences, if both sides are not equal.
pub async fn look(follower: &Follower, way: Way, cancel: &Cancel) -> Result<Value, StepError> {
    let (mut proof, dirty) = (follower.proof(way).await?, follower.dirty(way)?);
    let Proof { prover: Some(prover), holds } = &mut *proof else {
        return Err(StepError::failed("parity", "this way is not compared"));
    };
    let begun = Instant::now();
    let aligned = Lanes { follower, way, cancel, held: Mutex::new(None), reader: prover.reader() };
    let mut looks = Vec::new();
    if !*holds {
        let pass = prover.base_pass(&aligned, &dirty).await?;
        refuse(follower.schema(), &pass)?;
        looks.push(pass);
        *holds = true;
        follower.proven(way).await?;
    }
    // What changed meanwhile; under load there is always something left.
    for _ in 0..3 {
        if count(&dirty)? <= FEW {
            break;
        }
        let pass = prover.recheck(&aligned, &dirty).await?;
        refuse(follower.schema(), &pass)?;
        looks.push(pass);
    }
    prover.rest().await?;
    let rows: u64 = looks.iter().flat_map(|pass| &pass.tables).map(|table| table.sums[1].rows).sum();
    Ok(
        json!({ "looks": looks.len(), "rows": rows, "ms": u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX) }),
    )
}

/// In the freeze: compares what is still dirty, while neither side is written.
///
/// # Errors
/// With the differences, if both sides are not equal.
pub async fn settle(follower: &Follower, way: Way, whole: bool) -> Result<Value, StepError> {
    let (mut proof, dirty) = (follower.proof(way).await?, follower.dirty(way)?);
    let Proof { prover: Some(prover), holds: true } = &mut *proof else {
        return Err(StepError::failed("parity", "both sides were not compared before the freeze"));
    };
    if whole {
        prover.mark_all(&dirty);
    }
    let keys = count(&dirty)?;
    let pass = prover.settle(&dirty).await?;
    prover.rest().await?;
    refuse(follower.schema(), &pass)?;
    let (mut counts, mut compared) = (serde_json::Map::new(), 0);
    for table in &pass.tables {
        // Where no first look has counted them, what was read just now: a truncated table whole; of one that was equal when this
        // way began, what was written since.
        let known = prover.rows(&table.name, &dirty);
        compared += known.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(table.sums[1].rows);
        if let Some(rows) = known {
            counts.insert(table.name.clone(), rows.into());
        }
    }
    Ok(json!({
        "changed_keys": keys, "tables": pass.tables.len(), "rows": counts, "compared": compared, "differences": 0,
    }))
}

/// Both sides are equal now, and neither is written: only what the other way brings from here on is dirty there.
///
/// # Errors
/// If the other way is not followed.
pub async fn turn(follower: &Follower, way: Way) -> Result<(), StepError> {
    follower.dirty(way)?.take();
    let mut proof = follower.proof(way).await?;
    proof.holds = proof.prover.is_some();
    drop(proof);
    follower.proven(way).await
}

fn count(dirty: &Dirty) -> Result<u64, StepError> {
    let mut all = 0;
    for table in dirty.tables() {
        all += dirty.len(&table)?;
    }
    Ok(all)
}

fn refuse(schema: &str, pass: &Pass) -> Result<(), StepError> {
    let mut lines = Vec::new();
    for table in pass.tables.iter().filter(|table| !table.holds()) {
        let totals = table.totals;
        lines.push(format!(
            "{}: {} rows missing on the first side, {} on the second, {} differ",
            table.name, totals.missing_in_a, totals.missing_in_b, totals.differ
        ));
        lines.extend(table.listed.iter().take(TOLD).map(|difference| in_words(table, difference)));
    }
    if lines.is_empty() {
        return Ok(());
    }
    Err(StepError::failed("parity", format!("both sides of {schema} are not equal: {}", lines.join("; ")))
        .help("`pgrunbook parity` shows the rows and repairs them; find out who wrote to the side that nobody should write to")
        .evidence(Evidence::of(format!("both sides of {schema} are not equal")).fact("differences", lines)))
}

/// Rows of a table that the refusal names.
const TOLD: usize = 5;

/// Characters of a key's value that are told.
const LENGTH: usize = 40;

/// A row by its key, and which of its columns differ. Values are not told: what refuses is written down and handed round. Without a
/// key only the whole row could be told.
fn in_words(table: &TableParity, difference: &Difference) -> String {
    let value = |value: &Option<String>| match value {
        Some(value) => {
            value.chars().take(LENGTH).map(|sign| if sign.is_control() { '\u{fffd}' } else { sign }).collect()
        }
        None => "NULL".to_owned(),
    };
    let key: Vec<String> = match table.key.is_empty() {
        true => vec!["a row without a key".to_owned()],
        false => difference.key.iter().map(|(column, one)| format!("{column} = {}", value(one))).collect(),
    };
    let what = match &difference.what {
        What::MissingInA => "missing on the first side".to_owned(),
        What::MissingInB => "missing on the second side".to_owned(),
        What::Differs(cells) => {
            let columns: Vec<&str> = cells.iter().map(|cell| cell.column.as_str()).collect();
            format!("differs in {}", columns.join(", "))
        }
    };
    format!("{}: {}: {what}", table.name, key.join(", "))
}

/// The lanes as parity needs them.
struct Lanes<'a> {
    follower: &'a Follower,
    way: Way,
    cancel: &'a Cancel,
    held: Mutex<Option<Hold>>,
    reader: Reader,
}

#[async_trait]
impl Aligned for Lanes<'_> {
    async fn pause_behind(&self, lsn: Lsn) -> Result<Lsn, ParityError> {
        let hold = self
            .follower
            .hold(self.way, lsn, self.cancel)
            .await
            .map_err(|error| ParityError::Aligned(error.message))?;
        let at = hold.at;
        *self.held.lock().await = Some(hold);
        Ok(at)
    }

    async fn unseen(&self, seen: &Snapshot) -> Result<Dirty, ParityError> {
        let held = self.held.lock().await;
        let Some(hold) = &*held else { return Err(ParityError::Aligned("the applier is not held".to_owned())) };
        let unseen = self.follower.dirty(self.way).map_err(|error| ParityError::Aligned(error.message))?.like();
        note_unseen(&hold.spool, hold.at, seen, &self.reader, &unseen).await?;
        Ok(unseen)
    }

    async fn resume(&self) {
        self.held.lock().await.take();
    }
}

/// Notes the changes of transactions that ended up to `at` and that the snapshot does not see: the spool has them, since
/// only what is durable on the other side is removed from it, and that is long after it became visible here.
async fn note_unseen(
    spool: &Spool,
    at: Lsn,
    seen: &Snapshot,
    reader: &Reader,
    unseen: &Dirty,
) -> Result<(), ParityError> {
    let mut follow = Follow::start(spool, spool.begins()).map_err(|error| ParityError::Aligned(error.to_string()))?;
    let mut notes = false;
    while let Some(batch) = follow.next().await.map_err(|error| ParityError::Aligned(error.to_string()))? {
        for event in &batch.events {
            match event {
                Event::Begin(begin) => notes = !seen.sees(begin.xid),
                Event::Change(change) if notes => reader.note(unseen, change)?,
                Event::Change(_) | Event::Commit(_) | Event::Early(_) => {}
            }
        }
        if batch.position >= at || batch.caught_up {
            break;
        }
    }
    Ok(())
}
