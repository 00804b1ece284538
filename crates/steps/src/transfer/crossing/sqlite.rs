//! What the transfer of one SQLite file does in a crossing.
//!
//! Forth, the file's write lock is held from the fence to the end: what is read then is the last state. It is shipped to
//! PostgreSQL and committed there first; then the triggers that refuse writes are committed in the file; then the target is
//! opened. A crash before the second leaves the file writable and right; a crash before the third leaves it fenced and the
//! target closed, and recovery lifts the triggers. Back, it is the other way round.

use std::sync::Arc;
use std::time::Instant;

use pgrunbook_engine::{Cancel, Evidence, StepError};
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::{PgError, Session, ledger};

use super::{How, Owner, Parity, is_at, is_mine, phase_if};
use crate::fence::{self, Fence, Lift};
use crate::transfer::spec::Side;
use crate::transfer::sqlite::keyed::Touched;
use crate::transfer::sqlite::sync::blocking;
use crate::transfer::sqlite::{
    Access, Feed, SqliteEnds, SqliteError, WriteBack, fence_id, make_way_back, openers, seal, shape,
};
use crate::transfer::state::{self, Phase, Transfer};
use crate::transfer::streams::Names;
use crate::workplace::Workplace;

/// What was certainly not lost when the file could not be written to.
const SAFE: &str = "What was committed in the file is there";

/// How long a recovery waits for the file's write lock.
const RECOVERY: std::time::Duration = std::time::Duration::from_secs(30);

/// A file that crosses.
pub struct SqliteLeg {
    workplace: Workplace,
    target: String,
    transfer: Transfer,
    to: Side,
    ends: SqliteEnds,
    /// Made in `prepare`, so that nothing connects while writers wait.
    ready: Option<Ready>,
    evidence: Evidence,
}

struct Ready {
    /// With the connection that holds the file's write lock.
    feed: Feed,
    /// For fences and records, in the target.
    records: Session,
    back: Option<Arc<WriteBack>>,
    /// On the way back: what was found before the fence.
    compared: Option<Compared>,
}

/// A comparison of all rows, made while writers were at work.
struct Compared {
    /// What differed, since the two sides are not looked at in one moment.
    touched: Vec<Touched>,
    rows: u64,
}

impl SqliteLeg {
    /// A leg of a recorded transfer.
    ///
    /// # Errors
    /// If the project does not have its ends.
    pub fn new(workplace: &Workplace, target: &str, transfer: Transfer, to: Side) -> Result<Self, StepError> {
        let ends = SqliteEnds::of(workplace, target, &transfer.spec.from)?;
        let evidence = Evidence::of(String::new());
        Ok(Self { workplace: workplace.clone(), target: target.to_owned(), transfer, to, ends, ready: None, evidence })
    }

    pub fn schema(&self) -> &str {
        &self.transfer.schema
    }

    /// How a person lets writers go on where this fenced them.
    pub fn by_hand(&self) -> String {
        match self.to {
            Side::Target => {
                format!("resume the run, or roll it back: that opens the file {} again", self.transfer.spec.from)
            }
            Side::Source => fence::by_hand(&self.target),
        }
    }

    /// The phases before, during and after this crossing.
    fn phases(&self) -> [Phase; 3] {
        match self.to {
            Side::Target => [Phase::Following, Phase::Forth, Phase::Switched],
            Side::Source => [Phase::Switched, Phase::Back, Phase::Following],
        }
    }

    fn note(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        self.evidence = std::mem::take(&mut self.evidence).fact(name, value);
    }

    pub async fn prepare(&mut self, how: &How, cancel: &Cancel) -> Result<(), StepError> {
        let name = format!("pgrunbook:{}:crossing", how.run);
        if self.to == Side::Target && self.transfer.spec.reverse {
            make_way_back(&self.ends, &self.transfer, cancel).await?;
        }
        let back = self.workplace.followers().write_back(&self.workplace, &self.target, &self.transfer).await?;
        if let Some(back) = &back {
            if self.to == Side::Target {
                back.keep_all();
            }
            back.caught_up(how.asked.catch_up, cancel).await?;
        } else if self.to == Side::Source {
            return Err(StepError::failed("no-stream", "nothing flows back into the file: there is no reverse slot")
                .help("going back would lose what was written since the switch"));
        }
        let session = self.ends.session(&name).await?;
        let mut compared = None;
        let mut feed = Feed::open(session, &self.ends.path, &self.transfer, Access::Write).await?;
        if self.to == Side::Target {
            // The first reads both sides whole; the second only what changed meanwhile.
            let first = feed.sync().await?;
            if feed.is_noting() {
                let proven = feed.prove().await?;
                self.note("compared_before", proven);
            }
            let second = feed.sync().await?;
            self.note("synced_before", serde_json::Value::from(vec![first.facts(), second.facts()]));
        } else {
            shape::unchanged(&feed.session, self.schema(), &feed.shape).await?;
            fence::refuse_fed(&feed.session, self.schema()).await?;
            if let Some(back) = &back {
                compared = self.compare_before(&mut feed, back).await?;
                back.caught_up(how.asked.catch_up, cancel).await?;
            }
        }
        let records = self.ends.session(&name).await?;
        fence::install(&records).await?;
        ledger::hold(&records, &how.run, how.epoch, &how.operator).await.map_err(PgError::into_step_error)?;
        self.ready = Some(Ready { feed, records, back, compared });
        Ok(())
    }

    /// Compares all rows while writers are at work in the target. What flows back is noted from before that on: at the fence,
    /// the rows that were found to differ and those that flowed back since are all that can differ.
    async fn compare_before(&mut self, feed: &mut Feed, back: &WriteBack) -> Result<Option<Compared>, StepError> {
        if !back.note_what_flows().await {
            return Ok(None);
        }
        let begun = Instant::now();
        let (touched, rows) = feed.compare_online().await?;
        self.note("compared_before", serde_json::json!({ "rows": rows, "took_us": micros(begun) }));
        Ok(Some(Compared { touched, rows }))
    }

    fn ready(&mut self) -> Result<&mut Ready, StepError> {
        self.ready.as_mut().ok_or_else(|| StepError::failed("crossing", "the crossing was not prepared"))
    }

    pub async fn fence(&mut self, how: &How, cancel: &Cancel) -> Result<(), StepError> {
        let [before, during, _] = self.phases();
        let (to, schema) = (self.to, self.transfer.schema.clone());
        let begun = Instant::now();
        let recorded = phase_if(&schema, during, Some(&how.id), &is_at(before));
        let target = self.target.clone();
        let ready = self.ready()?;
        execute(&ready.records, &format!("{}; {recorded}", how.assert())).await?;
        if to == Side::Target {
            // Less than the budget: who holds it up is to be told.
            let budget = how.asked.budget.mul_f64(0.8);
            writing(&ready.feed, move |connection, path| seal::begin(connection, path, budget)).await?;
            // From here on nobody settles this crossing but who waits for the file's lock.
            let mine = phase_if(&schema, during, Some(&how.id), &is_mine(&how.id));
            execute(&ready.records, &format!("{}; {mine}", how.assert())).await?;
        } else {
            let message = how.asked.message.clone();
            let wish = Fence {
                id: fence_id(&how.id, &schema),
                schema: schema.clone(),
                message: message
                    .unwrap_or_else(|| "table {table} was cut over to its file again: write there".to_owned()),
                patience: how.patience(),
                run: Some(how.run.clone()),
                operator: how.operator.clone(),
                trial_as: how.asked.trial_as.clone(),
                assert: Some(how.assert()),
                ..Fence::default()
            };
            let fenced = fence::fence(&ready.records, &wish, cancel).await.map_err(|error| error.at(&target))?;
            let proof = fenced.proof.facts();
            self.note("marker", fenced.marker.to_string());
            self.note("no_writer_left", proof);
        }
        self.note("fence_us", micros(begun));
        Ok(())
    }

    pub async fn settle(&mut self, how: &How) -> Result<(), StepError> {
        if self.to == Side::Source { self.settle_back(how).await } else { self.settle_forth(how).await }
    }

    async fn settle_forth(&mut self, how: &How) -> Result<(), StepError> {
        let stream = Names::of(&self.transfer.schema, &self.transfer.target).stream(Way::Reverse);
        let message = how.asked.message.clone().unwrap_or_else(|| {
            format!("table {{table}} was cut over to schema {} of {}: write there", self.transfer.schema, self.target)
        });
        let path = self.ends.path.clone();
        let full = how.asked.parity == Parity::Full;
        let ready = self.ready()?;

        let begun = Instant::now();
        let synced = ready.feed.sync().await?;
        let numbers = ready.feed.set_numbers().await?;
        let drained = micros(begun);

        // Each row of the target was read in `prepare`, or was read back as it was written: what is known of it is what it
        // has, and the file's last state was compared with it row by row; with dirty keys, each row that was noted since all
        // were compared. `full` reads both sides again.
        let begun = Instant::now();
        let again = full || ready.feed.leaves_open(&synced);
        let differences = if again { ready.feed.compare().await?.words(&ready.feed.shape) } else { Vec::new() };
        if !differences.is_empty() {
            return Err(StepError::failed(
                "parity",
                format!("the two sides are not equal: {}", differences.join("; ")),
            ));
        }
        let sums = ready.feed.sums().await?;
        let proof = match again {
            true => serde_json::json!({ "by": "all rows of both sides read while the file's write lock was held" }),
            false => ready.feed.proof(&synced),
        };
        let compared = micros(begun);

        // From here on what flows back is told by the file: what came before is from it.
        let reached = ready.back.as_ref().map(|back| back.standing().reached);
        let id = how.id.clone();
        let sealed = writing(&ready.feed, move |connection, path| {
            seal::set(connection, path, &id, &message, reached.map(|lsn| (stream.as_str(), lsn)))
        })
        .await?;
        let open = tokio::task::spawn_blocking(move || openers(&path)).await.unwrap_or_default();
        self.note("last_sync", synced.facts());
        self.note("drain_us", drained);
        self.note("sequences", serde_json::to_value(&numbers).expect("names and numbers"));
        let compared_all = compared_rows(&sums);
        let parity = serde_json::json!({
            "differences": 0, "compared": compared_all, "tables": sums, "read_again": again, "proof": proof,
        });
        self.note("parity", parity);
        self.note("parity_us", compared);
        self.note("fenced_tables", sealed.tables.clone());
        self.note(
            "no_writer_left",
            serde_json::json!({
                "write_lock_held": true, "triggers": sealed.triggers, "writes_tried_and_refused": sealed.refused,
                "processes_that_have_it_open": open,
            }),
        );
        Ok(())
    }

    async fn settle_back(&mut self, how: &How) -> Result<(), StepError> {
        let id = fence_id(&how.id, &self.transfer.schema);
        let budget = how.asked.budget;
        let full = how.asked.parity == Parity::Full;
        let ready = self.ready()?;
        let begun = Instant::now();
        if let Some(back) = &ready.back {
            back.marker(&id).await?;
        }
        let drained = micros(begun);
        let begun = Instant::now();
        writing(&ready.feed, move |connection, path| seal::begin(connection, path, budget)).await?;
        let flowed = match (&ready.back, &ready.compared) {
            (Some(back), Some(compared)) if !full => {
                let flowed = back.what_flowed().await;
                flowed.map(|flowed| (together(&compared.touched, &flowed), compared.rows))
            }
            _ => None,
        };
        let (diff, proof) = match &flowed {
            Some((touched, rows)) => {
                let names = ready.feed.shape.tables.iter().zip(touched).filter(|(_, touched)| touched.whole);
                let proof = serde_json::json!({
                    "by": "all rows compared before the freeze, and in it every row that differed then or flowed back since; \
                           nobody else committed to the file meanwhile",
                    "rows_compared_before": rows,
                    "keys_compared_in_the_freeze": touched.iter().map(|touched| touched.keys.len()).sum::<usize>(),
                    "tables_compared_whole": names.map(|(table, _)| table.name.as_str()).collect::<Vec<_>>(),
                });
                (ready.feed.compare_touched(touched).await?, proof)
            }
            None => {
                let by = "all rows of both sides read while both were closed to writers";
                (ready.feed.compare().await?, serde_json::json!({ "by": by }))
            }
        };
        let differences = diff.words(&ready.feed.shape);
        if !differences.is_empty() {
            return Err(StepError::failed(
                "parity",
                format!("the file is not what the target is: {}", differences.join("; ")),
            )
            .help("`pgrunbook parity` shows the rows"));
        }
        let mut parity = serde_json::json!({ "differences": 0, "proof": proof });
        match &flowed {
            Some((_, rows)) => parity["compared"] = serde_json::json!(rows),
            None => {
                let sums = ready.feed.sums().await?;
                parity["compared"] = compared_rows(&sums).into();
                parity["tables"] = sums;
            }
        }
        writing(&ready.feed, |connection, path| seal::lift(connection, path, false)).await?;
        let compared = micros(begun);
        self.note("drain_us", drained);
        self.note("parity", parity);
        self.note("parity_us", compared);
        Ok(())
    }

    pub async fn open(&mut self, how: &How, cancel: &Cancel) -> Result<Evidence, StepError> {
        let [_, during, after] = self.phases();
        let (to, schema) = (self.to, self.transfer.schema.clone());
        let phase = format!("{}; {}", how.assert(), phase_if(&schema, after, None, &is_mine(&how.id)));
        let budget = how.asked.budget;
        let ready = self.ready()?;
        if to == Side::Source {
            // The file's lock is held, and whoever settles this crossing takes that first.
            let mine = phase_if(&schema, during, Some(&how.id), &is_mine(&how.id));
            execute(&ready.records, &format!("{}; {mine}", how.assert())).await?;
        }
        writing(&ready.feed, move |connection, path| seal::commit(connection, path, budget)).await?;
        if to == Side::Source {
            // The file is open: the crossing has happened, whatever comes now. All rows were compared for it.
            let recorded = format!("{phase}; {}", state::lossless_sql(&schema));
            execute(&ready.records, &recorded).await.map_err(|error| {
                StepError::in_doubt("phase", format!("the file takes the writes, and that was not recorded: {error}"))
            })?;
            return Ok(std::mem::take(&mut self.evidence));
        }
        let lift = Lift {
            schema: &schema,
            by: &how.operator,
            patience: how.patience(),
            record: Some(phase),
            ..Lift::default()
        };
        let lifted = fence::unfence(&ready.records, &lift, cancel).await?;
        self.note("opened_tables", lifted.tables);
        Ok(std::mem::take(&mut self.evidence))
    }

    pub async fn undo(&mut self, how: &How) -> Result<(), StepError> {
        let [before, ..] = self.phases();
        if let Some(ready) = &self.ready {
            writing(&ready.feed, seal::rollback).await?;
        }
        if self.to == Side::Target {
            unseal(&self.ends, &how.id).await?;
        }
        let records = self.ends.session(&format!("pgrunbook:{}:crossing-undo", how.run)).await?;
        if self.to == Side::Source {
            let id = fence_id(&how.id, self.schema());
            let assert = Some(how.assert());
            let lift = Lift { schema: self.schema(), id: Some(&id), by: &how.operator, assert, ..Lift::default() };
            fence::unfence(&records, &lift, &Cancel::default()).await.map_err(|error| error.at(&self.target))?;
        }
        // One that another process has settled is left as it is.
        let recorded = format!("{} AND {}", state::phase_sql(self.schema(), before, None), is_mine(&how.id));
        execute(&records, &format!("{}; {recorded}", how.assert())).await
    }
}

/// What either look says may differ.
fn together(one: &[Touched], other: &[Touched]) -> Vec<Touched> {
    let mut all = one.to_vec();
    all.resize(one.len().max(other.len()), Touched::default());
    for (sum, more) in all.iter_mut().zip(other) {
        sum.merge(more);
    }
    all
}

/// Takes a committed fence of a crossing away again.
async fn unseal(ends: &SqliteEnds, id: &str) -> Result<(), StepError> {
    let (path, id) = (ends.path.clone(), id.to_owned());
    blocking(move || {
        let connection = crate::transfer::sqlite::open_write(&path)?;
        let wait = std::time::Duration::from_secs(30);
        if seal::standing(&connection, &path)?.as_deref() == Some(id.as_str()) {
            seal::begin(&connection, &path, wait)?;
            seal::lift(&connection, &path, false)?;
            seal::commit(&connection, &path, wait)?;
        }
        Ok(())
    })
    .await
    .map_err(|error| error.told(SAFE))
}

/// Settles a crossing that a crash cut short. Forth, the target is opened and recorded in one transaction: where that is not
/// recorded, the file is the side that takes writes. Back, the file says whether it was opened.
pub async fn recover(
    workplace: &Workplace,
    target: &str,
    transfer: &Transfer,
    id: &str,
    by: &Owner<'_>,
    records: &Session,
) -> Result<(), StepError> {
    let ends = SqliteEnds::of(workplace, target, &transfer.spec.from)?;
    by.take(records).await?;
    let schema = &transfer.schema;
    if transfer.phase == Phase::Forth {
        unseal(&ends, id).await?;
    } else {
        // With the file's lock: a process that stood still between its last look and its commit would open it behind this one.
        let path = ends.path.clone();
        let held = blocking(move || {
            let connection = crate::transfer::sqlite::open_write(&path)?;
            seal::begin(&connection, &path, RECOVERY)?;
            let stands = seal::standing(&connection, &path)?.is_some();
            Ok((connection, path, stands))
        });
        let (connection, path, stands) = held.await.map_err(|error| error.told(SAFE))?;
        let mut also = String::new();
        let phase = if stands {
            let id = fence_id(id, schema);
            let session = ends.session(&format!("pgrunbook:{}:recover", by.run)).await?;
            if fence::is_committed(&session, &id).await.map_err(PgError::into_step_error)? {
                let lift = Lift { schema, id: Some(&id), by: "recovery", ..Lift::default() };
                fence::unfence(&session, &lift, &Cancel::default()).await?;
            }
            Phase::Switched
        } else {
            // It is opened only after all rows were compared.
            also = format!("{} AND {}; ", state::lossless_sql(schema), is_mine(id));
            Phase::Following
        };
        execute(records, &format!("{also}{} AND {}", state::phase_sql(schema, phase, None), is_mine(id))).await?;
        return blocking(move || seal::rollback(&connection, &path)).await.map_err(|error| error.told(SAFE));
    }
    let settled = state::phase_sql(schema, Phase::Following, None);
    execute(records, &format!("{settled} AND {}", is_mine(id))).await
}

async fn writing<T: Send + 'static>(
    feed: &Feed,
    work: impl FnOnce(&rusqlite::Connection, &std::path::Path) -> Result<T, SqliteError> + Send + 'static,
) -> Result<T, StepError> {
    let (connection, path) = (feed.connection.clone(), feed.path.clone());
    let done = blocking(move || work(&connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner), &path));
    done.await.map_err(|error| error.told(SAFE))
}

/// Rows of all tables, of what [`Feed::sums`] tells.
fn compared_rows(sums: &serde_json::Value) -> u64 {
    sums.as_array().into_iter().flatten().filter_map(|table| table["rows"].as_u64()).sum()
}

fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

async fn execute(session: &Session, sql: &str) -> Result<(), StepError> {
    state::write(session, sql).await.map_err(PgError::into_step_error)
}
