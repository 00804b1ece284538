//! Follows the streams of one transfer in this process: receives, spools, applies, until it is dropped.
//!
//! Each way is a lane: a task with one receiver and one applier. Whoever holds the applier's lock on the destination
//! follows; a second process waits for it, and takes over when the first is gone. A lane begins anew after every error that
//! may pass, and stands still, with the reason recorded in the target, where going on needs a person.

mod bound;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrunbook_engine::{Cancel, StepError};
use pgrunbook_postgres::apply::PassOver;
use pgrunbook_postgres::receiver::Limits;
use pgrunbook_postgres::slots::{self, Direction as Way};
use pgrunbook_postgres::spool::Spool;
use pgrunbook_postgres::{Lsn, PgError, Session};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::copy;
use super::ends::Ends;
use super::proof::{self, Proof};
use super::sqlite::{self, WriteBack, way_back};
use super::standing::{Standing, Wish};
pub use super::standing::{Which, stopped_error};
use super::state::{Phase, Transfer};
use super::step::{recorded, records};
use super::streams::{Names, spools};
use crate::parity::{Dirty, Prover, Reader};
use crate::typed::on_transfer;
use crate::workplace::Workplace;
use work::Work;

/// The streams of one transfer. Ends when it is dropped; what was applied stays.
pub struct Follower {
    schema: String,
    /// The project's name of the target.
    target: String,
    lanes: Vec<Lane>,
}

struct Lane {
    way: Way,
    standing: watch::Receiver<Standing>,
    orders: mpsc::Sender<Order>,
    dirty: Dirty,
    proof: Arc<Mutex<Proof>>,
    /// What was noted is no longer kept: the next look must be at everything.
    lost: Arc<AtomicBool>,
    ends: Ends,
    task: JoinHandle<()>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a lane is asked for.
enum Order {
    /// Commit what is there, tell where that is, and apply nothing more until the second is dropped.
    Hold(oneshot::Sender<(Lsn, Spool)>, oneshot::Receiver<()>),
    /// Note which keys change, from now on.
    Note(Reader, oneshot::Sender<()>),
    /// Both sides are equal but for what is noted. What the spool holds now is kept for a later process.
    Proven(oneshot::Sender<()>),
}

/// While this lives, nothing is applied.
pub struct Hold {
    /// Everything that the origin committed before this is applied, and nothing later.
    pub at: Lsn,
    /// What was received.
    pub spool: Spool,
    _release: oneshot::Sender<()>,
}

/// What a lane needs to know.
pub struct What {
    pub ends: Ends,
    pub names: Names,
    pub schema: String,
    /// The project's folder for spools.
    pub spools: PathBuf,
    pub limits: Limits,
    pub pass_over: Vec<PassOver>,
    /// Both sides were equal at this position of a way's origin: what changed since is noted again.
    pub proven: Vec<(Way, Lsn, Prover)>,
    /// Whether to apply, or to receive alone: while rows are being copied.
    pub applies: bool,
    pub turn: Turn,
}

impl Follower {
    /// Begins to follow these ways.
    pub fn start(mut what: What, ways: &[Way]) -> Self {
        let mut proven = std::mem::take(&mut what.proven);
        let what = Arc::new(what);
        let mut lane = |way: &Way| {
            let known = proven.iter().position(|(of, ..)| of == way).map(|at| proven.swap_remove(at));
            Lane::start(what.clone(), *way, known.map(|(_, lsn, prover)| (lsn, prover)))
        };
        let (schema, target) = (what.schema.clone(), what.ends.target.name.clone());
        Self { schema, target, lanes: ways.iter().map(&mut lane).collect() }
    }

    /// The schema of the transfer, in the target.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Which ways it follows.
    pub fn ways(&self) -> impl Iterator<Item = Way> {
        self.lanes.iter().map(|lane| lane.way)
    }

    /// Ends it, and waits until it has.
    async fn end(&self) {
        for lane in &self.lanes {
            lane.task.abort();
        }
        for lane in &self.lanes {
            // An aborted task lets go of its locks and files when it is next polled.
            while !lane.task.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    fn lane(&self, way: Way) -> Result<&Lane, StepError> {
        self.lanes.iter().find(|lane| lane.way == way).ok_or_else(|| {
            let what = format!("no {way} stream is followed: there is no slot for it. Nothing was changed.");
            let abandon = on_transfer("abandon", &self.schema, &self.target, &["--yes"]);
            StepError::failed("no-stream", what)
                .help(format!("without its slot a transfer must begin again: undo it, or {abandon}"))
        })
    }

    /// How far a way is.
    pub fn standing(&self, way: Way) -> Option<Standing> {
        self.lane(way).ok().map(|lane| lane.standing.borrow().clone())
    }

    /// The keys that changed since both sides were compared last.
    ///
    /// # Errors
    /// If that way is not followed.
    pub fn dirty(&self, way: Way) -> Result<Dirty, StepError> {
        Ok(self.lane(way)?.dirty.clone())
    }

    /// What is known of both sides' equality.
    ///
    /// # Errors
    /// If that way is not followed.
    pub async fn proof(&self, way: Way) -> Result<OwnedMutexGuard<Proof>, StepError> {
        let lane = self.lane(way)?;
        let mut proof = lane.proof.clone().lock_owned().await;
        if lane.lost.swap(false, Ordering::SeqCst) {
            *proof = Proof::default();
        }
        Ok(proof)
    }

    /// Waits until everything is applied that the origin had committed when this was called; returns that position.
    ///
    /// # Errors
    /// If the stream stands still, or does not come so far in this time.
    pub async fn caught_up(&self, way: Way, within: Duration, cancel: &Cancel) -> Result<Lsn, StepError> {
        let lane = self.lane(way)?;
        let session = lane.ends.origin(way).session("pgrunbook:lag").await?;
        let end = insert_position(&session).await?;
        flush(&session).await;
        lane.wait(within, cancel, |standing| standing.reached >= end, &format!("{end}")).await?;
        Ok(end)
    }

    /// Waits until a fence is applied, whose marker was written there. Where several schemas of one database are fenced, each
    /// stream sees all their markers and remembers the last: the position says the same. Whoever calls limits the time.
    ///
    /// # Errors
    /// If the stream stands still.
    pub async fn fenced(&self, way: Way, id: &str, at: Lsn) -> Result<(), StepError> {
        let lane = self.lane(way)?;
        let is_passed = |standing: &Standing| standing.marker.as_deref() == Some(id) || standing.reached > at;
        lane.wait(Duration::MAX, &Cancel::default(), is_passed, "the fence").await
    }

    /// Waits until a way stands still, and says why: for whoever works beside it and would do so in vain. Of a way that is
    /// not followed nothing is ever heard.
    pub async fn stands_still(&self, way: Way) -> StepError {
        let Ok(lane) = self.lane(way) else { return std::future::pending().await };
        let mut standing = lane.standing.clone();
        // Or until the lane is gone, which says as much.
        let _ = standing.wait_for(|standing| standing.stopped.is_some()).await;
        lane.stands_still()
    }

    /// Waits until the way has applied everything up to a position, then stops applying.
    ///
    /// # Errors
    /// If the stream stands still.
    pub async fn hold(&self, way: Way, at_least: Lsn, cancel: &Cancel) -> Result<Hold, StepError> {
        let lane = self.lane(way)?;
        let name = at_least.to_string();
        let mut there =
            std::pin::pin!(lane.wait(Duration::MAX, cancel, |standing| standing.reached >= at_least, &name));
        tokio::select! {
            biased;
            there = &mut there => there?,
            () = lane.flush() => there.await?,
        }
        let mut released = None;
        let (at, spool) = lane
            .order(cancel, |tell| {
                let (release, until) = oneshot::channel();
                released = Some(release);
                Order::Hold(tell, until)
            })
            .await?;
        let release = released.ok_or_else(|| lane.stands_still())?;
        Ok(Hold { at, spool, _release: release })
    }

    /// Notes which keys change on a way, from now on.
    ///
    /// # Errors
    /// If the stream stands still.
    pub async fn note(&self, way: Way, reader: Reader) -> Result<(), StepError> {
        self.lane(way)?.order(&Cancel::default(), |tell| Order::Note(reader.clone(), tell)).await
    }

    /// Both sides are equal but for the keys that are noted.
    ///
    /// # Errors
    /// If the stream stands still.
    pub async fn proven(&self, way: Way) -> Result<(), StepError> {
        self.lane(way)?.order(&Cancel::default(), Order::Proven).await
    }
}

impl Lane {
    fn start(what: Arc<What>, way: Way, known: Option<(Lsn, Prover)>) -> Self {
        let (publish, standing) = watch::channel(Standing::default());
        let (orders, taken) = mpsc::channel(4);
        let dirty = Dirty::new(&what.spools);
        let ends = what.ends.clone();
        let (proven, prover) = known.unzip();
        let noting = prover.as_ref().map(Prover::reader);
        let proof = Arc::new(Mutex::new(Proof { holds: prover.is_some(), prover }));
        let lost = Arc::new(AtomicBool::new(false));
        let mut work = Work {
            what,
            way,
            publish,
            orders: taken,
            dirty: dirty.clone(),
            lost: lost.clone(),
            noting,
            noted_early: None,
            proven,
        };
        let task = tokio::spawn(async move { work.run().await });
        Self { way, standing, orders, dirty, proof, lost, ends, task }
    }

    /// Gives an order, and again where the lane began anew in between.
    async fn order<T>(
        &self,
        cancel: &Cancel,
        mut order: impl FnMut(oneshot::Sender<T>) -> Order,
    ) -> Result<T, StepError> {
        loop {
            let (tell, told) = oneshot::channel();
            if self.orders.send(order(tell)).await.is_err() {
                return Err(self.stands_still());
            }
            tokio::select! {
                told = told => if let Ok(told) = told {
                    return Ok(told);
                },
                () = cancel.stopping() => return Err(StepError::interrupted("stopped while waiting for the stream")),
            }
        }
    }

    /// Has the origin make its log durable, if nobody else does in the meantime. Best done beside waiting for a position.
    async fn flush(&self) {
        tokio::time::sleep(UNASKED).await;
        if let Ok(session) = self.ends.origin(self.way).session("pgrunbook:flush").await {
            flush(&session).await;
        }
    }

    fn which(&self) -> Which<'_> {
        self.ends.which()
    }

    fn stands_still(&self) -> StepError {
        let standing = self.standing.borrow();
        match &standing.stopped {
            Some(stopped) => stopped_error(stopped, self.which()),
            None => StepError::failed("no-stream", format!("the {} stream is not followed any more", self.way)),
        }
    }

    async fn wait(
        &self,
        within: Duration,
        cancel: &Cancel,
        is_there: impl Fn(&Standing) -> bool,
        what: &str,
    ) -> Result<(), StepError> {
        let stream = format!("the {} stream", self.way);
        let wish = Wish { which: self.which(), stream: &stream, what, within, cancel };
        wish.wait(self.standing.clone(), is_there).await
    }
}

/// Who follows, if another process does already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// This one, now: a step has to order the lanes about. The other one waits until it is its turn again.
    Take,
    /// The other one, until it ends.
    Wait,
}

/// The transfers that are followed in this process, by target and schema.
#[derive(Default)]
pub struct Followers {
    streams: Mutex<BTreeMap<(String, String), Arc<Follower>>>,
    files: Mutex<BTreeMap<(String, String), Arc<WriteBack>>>,
}

impl Followers {
    /// The follower of a transfer, which begins if there is none, or if a way was made since, or if a lane ended.
    ///
    /// # Errors
    /// If a side cannot be asked which streams there are.
    pub async fn follow(
        &self,
        workplace: &Workplace,
        target: &str,
        transfer: &Transfer,
        turn: Turn,
    ) -> Result<Arc<Follower>, StepError> {
        let mut followers = self.streams.lock().await;
        let key = (target.to_owned(), transfer.schema.clone());
        let ends = Ends::of(workplace, target, transfer)?;
        let names = Names::of(&transfer.schema, &transfer.target);
        let ways = ways(&ends, &names).await?;
        if let Some(follower) = followers.get(&key)
            && follower.ways().eq(ways.iter().copied())
            && follower.lanes.iter().all(|lane| !lane.task.is_finished())
        {
            return Ok(follower.clone());
        }
        // Its locks and its spool's writer go with it.
        if let Some(before) = followers.remove(&key) {
            before.end().await;
        }
        let what = What { turn, ..what(workplace, target, transfer, ends, names, &ways).await? };
        let follower = Arc::new(Follower::start(what, &ways));
        followers.insert(key, follower.clone());
        Ok(follower)
    }

    /// Ends following one transfer, or nothing.
    pub async fn end(&self, target: &str, schema: &str) {
        let key = (target.to_owned(), schema.to_owned());
        let follower = self.streams.lock().await.remove(&key);
        if let Some(follower) = follower {
            follower.end().await;
        }
        let back = self.files.lock().await.remove(&key);
        if let Some(back) = back {
            back.end().await;
        }
    }

    /// The way back into a SQLite file, which begins if it is not followed; nothing where there is no slot for it.
    ///
    /// # Errors
    /// If the target cannot be asked.
    pub async fn write_back(
        &self,
        workplace: &Workplace,
        target: &str,
        transfer: &Transfer,
    ) -> Result<Option<Arc<WriteBack>>, StepError> {
        let mut files = self.files.lock().await;
        let key = (target.to_owned(), transfer.schema.clone());
        if let Some(back) = files.get(&key).filter(|back| back.is_alive()) {
            return Ok(Some(back.clone()));
        }
        files.remove(&key);
        let Some(what) = way_back(workplace, target, transfer).await? else { return Ok(None) };
        let back = Arc::new(WriteBack::start(what));
        files.insert(key, back.clone());
        Ok(Some(back))
    }
}

/// Sees to it that a recorded transfer is followed by this process, if there is anything to follow.
///
/// # Errors
/// Why a stream of it stands still.
pub async fn keep_following(workplace: &Workplace, target: &str, schema: &str) -> Result<(), StepError> {
    let records = records(workplace, target, "pgrunbook:follow").await?;
    let transfer = recorded(&records, schema).await?;
    let which = Which { schema, target };
    if let Some(stopped) = &transfer.stopped {
        return Err(stopped_error(&bound::stopped(workplace, target, &transfer, stopped, &records).await?, which));
    }
    if !transfer.phase.follows() {
        return Ok(());
    }
    if !sqlite::is_file(workplace, &transfer.spec.from) {
        workplace.followers().follow(workplace, target, &transfer, Turn::Wait).await?;
        return Ok(());
    }
    let back = workplace.followers().write_back(workplace, target, &transfer).await?;
    if let Some(stopped) = back.and_then(|back| back.standing().stopped) {
        return Err(stopped_error(&stopped, which));
    }
    // No server tells what was written into a file: it is looked at once more.
    if transfer.phase == Phase::Following {
        sqlite::follow(workplace, target, &transfer, "pgrunbook:follow").await?;
    }
    Ok(())
}

/// Whether what keeps a transfer from being followed may pass by itself: a server that starts again, a file that somebody holds.
pub fn may_pass(error: &StepError) -> bool {
    error.code == "sqlite-busy" || pgrunbook_postgres::error::may_pass(error)
}

/// The ways that have a slot.
async fn ways(ends: &Ends, names: &Names) -> Result<Vec<Way>, StepError> {
    let mut ways = Vec::new();
    for way in [Way::Forward, Way::Reverse] {
        let session = ends.origin(way).session("pgrunbook:slot").await?;
        if slots::slot_state(&session, &names.slot(way)).await.map_err(PgError::into_step_error)?.is_some() {
            ways.push(way);
        }
    }
    Ok(ways)
}

/// What a recorded transfer's lanes need to know.
async fn what(
    workplace: &Workplace,
    target: &str,
    transfer: &Transfer,
    ends: Ends,
    names: Names,
    ways: &[Way],
) -> Result<What, StepError> {
    let mut proven = Vec::new();
    for (way, lsn) in transfer.proven.iter().filter(|(way, _)| ways.contains(way)) {
        proven.push((*way, *lsn, proof::open(&ends, transfer, *way).await?));
    }
    let what = What {
        schema: transfer.schema.clone(),
        spools: spools(workplace, target),
        limits: transfer.spec.limits(),
        pass_over: copy::rules(
            &ends.target.session("pgrunbook:rules").await?,
            &transfer.schema,
            &transfer.spec.source_schema,
        )
        .await
        .map_err(PgError::into_step_error)?,
        proven,
        applies: transfer.phase.follows(),
        turn: Turn::Take,
        ends,
        names,
    };
    Ok(what)
}

/// The end of what a server has written, as far as commits are concerned.
///
/// # Errors
/// If it cannot be asked.
pub async fn insert_position(session: &Session) -> Result<Lsn, StepError> {
    let position =
        session.value("SELECT pg_catalog.pg_current_wal_insert_lsn()").await.map_err(PgError::into_step_error)?;
    position.parse().map_err(|error: pgrunbook_postgres::lsn::NotAnLsn| StepError::failed("lsn", error.to_string()))
}

/// A server that is written to makes its log durable sooner by itself: no connection is made for it.
const UNASKED: Duration = Duration::from_millis(50);

/// Makes durable what a server has written so far. A server sends no more of its log than is on its disk, and what belongs to no commit
/// (pages that a reader of the catalogs tidied up) gets there only when the running transactions are noted next: on an idle server up
/// to 15 seconds later (`LOG_SNAPSHOT_INTERVAL_MS` in PostgreSQL's `bgwriter.c`). A server that refuses lets one wait for that.
pub async fn flush(session: &Session) {
    let _ = session.execute(FLUSH).await;
}

const FLUSH: &str = "BEGIN; SET LOCAL synchronous_commit = local;
    SELECT pg_catalog.pg_logical_emit_message(true, 'pgrunbook', 'flush'); COMMIT";
