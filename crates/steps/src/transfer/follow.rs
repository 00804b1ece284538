//! Follows the streams of one transfer in this process: receives, spools, applies, until it is dropped.
//!
//! Each way is a lane: a task with one receiver and one applier. Whoever holds the applier's lock on the destination
//! follows; a second process waits for it, and takes over when the first is gone. A lane begins anew after every error that
//! may pass, and stands still, with the reason recorded in the target, where going on needs a person.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgrunbook_engine::{Cancel, StepError};
use pgrunbook_postgres::apply::{Applier, ApplyError, Options, PassOver, Rename, text_only_columns};
use pgrunbook_postgres::pgoutput::Event;
use pgrunbook_postgres::receiver::{Limits, Receive, Receiver, Stopped as ReceiverStopped};
use pgrunbook_postgres::replication::{Replication, StreamOptions};
use pgrunbook_postgres::slots::{self, Direction as Way};
use pgrunbook_postgres::spool::{Batch, Follow, FollowError, Source, Spool, SpoolError};
use pgrunbook_postgres::{Lsn, PgError, Session};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::copy;
use super::ddl;
use super::ends::Ends;
use super::proof::{self, Proof};
use super::sqlite::{WriteBack, way_back};
use super::state::{self, Stopped, Transfer};
use super::step::{recorded, records};
use super::streams::{Names, other};
use crate::parity::{Dirty, Prover, Reader};
use crate::workplace::Workplace;

/// How often what nobody needs any more is removed from the spool.
const SWEEP: Duration = Duration::from_secs(5);

/// How long whoever applies now may go on before its turn is taken: the backend of a killed process needs a moment.
const TURN: Duration = Duration::from_secs(2);

/// A first pause after an error that may pass, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How far a lane is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Everything that the origin committed before this is applied. Moves on also while nothing concerns our tables.
    pub reached: Lsn,
    /// The id of the last fence that was passed.
    pub marker: Option<String>,
    pub transactions: u64,
    pub changes: u64,
    pub spool_bytes: u64,
    /// What it waits for, if it is not at work: another process that follows, a server that does not answer.
    pub waits: Option<String>,
    /// Why it stands still until a person acts.
    pub stopped: Option<Stopped>,
}

/// The streams of one transfer. Ends when it is dropped; what was applied stays.
pub struct Follower {
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
        Self { lanes: ways.iter().map(&mut lane).collect() }
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
        self.lanes
            .iter()
            .find(|lane| lane.way == way)
            .ok_or_else(|| StepError::failed("no-stream", format!("no {way} stream is followed")))
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

    /// Waits until the way has applied everything up to a position, then stops applying.
    ///
    /// # Errors
    /// If the stream stands still.
    pub async fn hold(&self, way: Way, at_least: Lsn, cancel: &Cancel) -> Result<Hold, StepError> {
        let lane = self.lane(way)?;
        lane.wait(Duration::MAX, cancel, |standing| standing.reached >= at_least, &format!("{at_least}")).await?;
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
        let mut work =
            Work { what, way, publish, orders: taken, dirty: dirty.clone(), lost: lost.clone(), noting, proven };
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

    fn stands_still(&self) -> StepError {
        let standing = self.standing.borrow();
        match &standing.stopped {
            Some(stopped) => stopped_error(stopped),
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
        let begun = Instant::now();
        let mut standing = self.standing.clone();
        loop {
            {
                let now = standing.borrow_and_update();
                if is_there(&now) {
                    return Ok(());
                }
                if let Some(stopped) = &now.stopped {
                    return Err(stopped_error(stopped));
                }
            }
            let left = within.saturating_sub(begun.elapsed());
            tokio::select! {
                changed = standing.changed() => if changed.is_err() {
                    return Err(self.stands_still());
                },
                () = tokio::time::sleep(left.min(Duration::from_secs(86_400))) => {
                    let now = standing.borrow().clone();
                    let why = now.waits.map_or_else(String::new, |why| format!("; it waits: {why}"));
                    return Err(StepError::failed(
                        "lag",
                        format!(
                            "the {} stream did not come to {what} within {} s: it is at {}{why}. Nothing was changed.",
                            self.way, within.as_secs(), now.reached
                        ),
                    )
                    .help("`pgrunbook transfer status` shows lag and rate; run again when it has caught up"));
                }
                () = cancel.stopping() => {
                    return Err(StepError::interrupted("stopped while waiting for the stream; it can go on"));
                }
            }
        }
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
    if let Some(stopped) = &transfer.stopped {
        return Err(stopped_error(stopped));
    }
    if transfer.phase.follows() {
        workplace.followers().follow(workplace, target, &transfer, Turn::Wait).await?;
    }
    Ok(())
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
        spools: workplace.root().join(".pgrunbook/spool").join(target),
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

/// What a stream that stands still is to whoever needs it.
pub fn stopped_error(stopped: &Stopped) -> StepError {
    let help = match stopped.code.as_str() {
        "ddl" => "look at it, then `pgrunbook transfer accept` makes the same change on the other side and goes on",
        "conflict" => "`pgrunbook parity` shows the rows; mend them, then `pgrunbook transfer accept`",
        _ => "`pgrunbook transfer status` shows it; after it is mended, `pgrunbook transfer accept` goes on",
    };
    StepError::failed(
        format!("stream-{}", stopped.code),
        format!(
            "stream {} stands still since {}: {}. Everything before is applied.",
            stopped.stream, stopped.lsn, stopped.why
        ),
    )
    .help(help)
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

struct Work {
    what: Arc<What>,
    way: Way,
    publish: watch::Sender<Standing>,
    orders: mpsc::Receiver<Order>,
    dirty: Dirty,
    lost: Arc<AtomicBool>,
    /// Says which keys a change touches; nothing is noted without it.
    noting: Option<Reader>,
    proven: Option<Lsn>,
}

/// Why one try ended.
enum End {
    /// It may pass.
    Again(String),
    /// A person must act.
    Stop(Stopped),
}

impl From<PgError> for End {
    fn from(error: PgError) -> Self {
        Self::Again(error.to_string())
    }
}

impl Work {
    async fn run(&mut self) {
        let mut pause = PAUSES.0;
        loop {
            let before = self.publish.borrow().reached;
            // Without an error, nobody listens any more.
            let Err(end) = self.follow().await else { return };
            match end {
                End::Again(why) => {
                    if self.publish.borrow().reached > before {
                        pause = PAUSES.0;
                    }
                    self.publish.send_modify(|standing| standing.waits = Some(why));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                End::Stop(stopped) => {
                    self.record(&stopped).await;
                    self.publish.send_modify(|standing| standing.stopped = Some(stopped));
                    return;
                }
            }
        }
    }

    /// Writes down why it stands still, so that other processes and later ones know.
    async fn record(&self, stopped: &Stopped) {
        let mut sql = state::stopped_sql(&self.what.schema, Some(stopped));
        if self.way == Way::Reverse {
            let why = format!("the reverse stream stands still since {}: {}", stopped.lsn, stopped.why);
            sql = format!("{sql}; {}", state::lossy_sql(&self.what.schema, &why));
        }
        let Ok(session) = self.what.ends.target.session("pgrunbook:stopped").await else { return };
        // What cannot be recorded is still told to whoever waits here, and found again by whoever follows next.
        let _ = session.execute(&sql).await;
    }

    fn stop(&self, code: &str, why: impl ToString, lsn: Lsn) -> End {
        End::Stop(Stopped {
            stream: self.what.names.stream(self.way),
            code: code.to_owned(),
            why: why.to_string(),
            lsn,
            statements: Vec::new(),
        })
    }

    /// One try: until something fails.
    async fn follow(&mut self) -> Result<(), End> {
        let (what, way) = (self.what.clone(), self.way);
        let origin = what.ends.origin(way);
        let stream = what.names.stream(way);
        let mut applier = self.applier(&stream).await?;
        let position = applier.position();
        self.publish.send_modify(|standing| {
            standing.reached = standing.reached.max(position.lsn);
            standing.marker = position.marker.clone();
            standing.transactions = position.transactions;
            standing.changes = position.changes;
            standing.waits = None;
        });

        let mut connection = Replication::connect(&origin.options, &format!("pgrunbook:{stream}")).await?;
        let major = connection.major();
        let system = connection.identify_system().await?;
        drop(connection);
        let source = Source { system: system.identifier, timeline: system.timeline };
        // The option is for a whole stream.
        let session = Session::connect(&origin.options, "pgrunbook:types").await?;
        let binary = text_only_columns(&session, &origin.schema).await?.is_empty();
        drop(session);
        let slot = what.names.slot(way);
        let begin = self.begin(&slot, position.lsn).await?;
        let folder = what.spools.join(&slot);
        let (spool, writer) = match Spool::open(&folder, source, begin).await {
            Ok(opened) => opened,
            Err(error @ (SpoolError::Full { .. } | SpoolError::Damaged { .. } | SpoolError::OtherSource { .. })) => {
                return Err(self.stop("spool", error, position.lsn));
            }
            Err(error) => return Err(End::Again(error.to_string())),
        };
        let receive = Receive {
            connect: origin.options.clone(),
            application_name: format!("pgrunbook:{stream}"),
            slot: slot.clone(),
            stream: StreamOptions { binary: major >= 14 && binary, ..StreamOptions::best(major, vec![slot.clone()]) },
            limits: what.limits,
        };
        let mut receiver = Receiver::start(spool.clone(), writer, receive);
        let mut received = receiver.received();

        // Rows come before changes.
        if !what.applies {
            let why = receiver.ended().await;
            return Err(self.receiver_ended(&why, &slot, position.lsn).await);
        }

        // A stream that never applied anything begins where its slot does.
        let start = if position.transactions == 0 { position.lsn.max(spool.begins()) } else { position.lsn };
        applier.reached(start);
        let from = self.proven.unwrap_or(start).min(start);
        let mut follow = match Follow::start(&spool, from) {
            Ok(follow) => follow,
            // The keys that changed since the last proof are no longer to be had: the next proof is a whole one.
            Err(SpoolError::Pruned { .. }) if from < start => {
                self.forget();
                Follow::start(&spool, start).map_err(|error| self.stop("spool", error, position.lsn))?
            }
            Err(error) => return Err(self.stop("spool", error, position.lsn)),
        };
        // Everything since is noted again.
        if self.proven.is_some() {
            self.dirty.take();
        }
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                biased;
                why = receiver.ended() => {
                    let at = applier.flush().await.map_or(position.lsn, |position| position.lsn);
                    return Err(self.receiver_ended(&why, &slot, at).await);
                }
                order = self.orders.recv() => match order {
                    None => return Ok(()),
                    Some(Order::Note(reader, tell)) => {
                        self.noting = Some(reader);
                        let _ = tell.send(());
                    }
                    Some(Order::Proven(tell)) => {
                        let kept = spool.begins();
                        self.keep(kept).await?;
                        let _ = tell.send(());
                    }
                    Some(Order::Hold(tell, released)) => {
                        self.flush(&mut applier).await?;
                        let at = self.publish.borrow().reached;
                        if tell.send((at, spool.clone())).is_ok() {
                            let _ = released.await;
                        }
                    }
                },
                batch = follow.next() => {
                    let batch = match batch {
                        Ok(Some(batch)) => batch,
                        // The receiver has ended, and knows why.
                        Ok(None) | Err(FollowError::Spool(SpoolError::Closed { .. })) => {
                            let why = receiver.ended().await;
                            return Err(self.receiver_ended(&why, &slot, applier.position().lsn).await);
                        }
                        Err(error) => return Err(self.stop("spool", error, applier.position().lsn)),
                    };
                    let applied = applier.position().lsn;
                    // The destination may hold us up for as long as it likes; the source's disk is watched all the same.
                    tokio::select! {
                        biased;
                        why = receiver.ended() => return Err(self.receiver_ended(&why, &slot, applied).await),
                        taken = self.take(&mut applier, batch) => taken?,
                    }
                }
                changed = received.changed() => {
                    if changed.is_ok() {
                        let received = received.borrow_and_update().clone();
                        self.publish.send_modify(|standing| {
                            standing.spool_bytes = received.spool_bytes;
                            standing.waits = received.interrupted;
                        });
                    }
                }
                _ = sweep.tick() => {
                    let position = match applier.settle().await {
                        Ok(position) => position,
                        Err(error) => return Err(self.apply_failed(error).await),
                    };
                    if spool.bytes() > what.limits.spool_soft / 2 {
                        self.forget();
                    }
                    let needed = self.proven.map_or(position.durable, |proven| proven.min(position.durable));
                    if let Err(error) = spool.prune(needed) {
                        return Err(End::Again(error.to_string()));
                    }
                }
            }
        }
    }

    /// Notes and applies some events.
    async fn take(&mut self, applier: &mut Applier, batch: Batch) -> Result<(), End> {
        for event in batch.events {
            if let (Some(noting), Event::Change(change)) = (&self.noting, &event)
                && noting.note(&self.dirty, change).is_err()
            {
                // What cannot be noted is no fault of the stream: it is compared whole next time.
                self.forget();
            }
            if let Err(error) = applier.push(event).await {
                return Err(self.apply_failed(error).await);
            }
        }
        if batch.caught_up {
            self.flush(applier).await?;
            self.publish.send_modify(|standing| standing.reached = standing.reached.max(batch.position));
        } else {
            self.tell(&applier.position());
        }
        Ok(())
    }

    async fn applier(&self, stream: &str) -> Result<Applier, End> {
        let (what, way) = (&self.what, self.way);
        let (origin, destination) = (what.ends.origin(way), what.ends.destination(way));
        let mut options = Options::new(stream, Rename::one(&origin.schema, &destination.schema));
        options.skip_applied_by = Some(what.names.stream(other(way)));
        if what.turn == Turn::Take {
            options.patience = TURN;
        }
        if way == Way::Forward {
            options.pass_over = what.pass_over.clone();
        }
        match Applier::open(&destination.options, options).await {
            Ok(applier) => Ok(applier),
            Err(ApplyError::Busy { pid, .. }) if what.turn == Turn::Take => {
                // Whoever has it loses its connection, and then waits for us as we would for it.
                let session = Session::connect(&destination.options, "pgrunbook:turn").await?;
                session.execute(&format!("SELECT pg_catalog.pg_terminate_backend({})", state::text(&pid))).await?;
                Err(End::Again(format!("pid {pid} has it")))
            }
            Err(error @ ApplyError::Busy { .. }) => Err(End::Again(error.to_string())),
            Err(error) if error.is_lost() => Err(End::Again(error.to_string())),
            Err(error) => Err(self.stop("apply", error, Lsn::default())),
        }
    }

    /// Where a spool begins that is not there yet: with what the slot sends first.
    async fn begin(&self, slot: &str, position: Lsn) -> Result<Lsn, End> {
        let session = Session::connect(&self.what.ends.origin(self.way).options, "pgrunbook:slot").await?;
        match slots::slot_state(&session, slot).await? {
            Some(state) => Ok(state.confirmed.unwrap_or_default().max(position)),
            None => Err(self.stop("slot", format!("the slot {slot} is not there"), position)),
        }
    }

    async fn flush(&self, applier: &mut Applier) -> Result<(), End> {
        match applier.flush().await {
            Ok(position) => {
                self.tell(&position);
                Ok(())
            }
            Err(error) => Err(self.apply_failed(error).await),
        }
    }

    fn tell(&self, position: &pgrunbook_postgres::apply::Position) {
        self.publish.send_if_modified(|standing| {
            let moved = standing.reached < position.lsn || standing.marker != position.marker;
            standing.reached = standing.reached.max(position.lsn);
            standing.marker.clone_from(&position.marker);
            standing.transactions = position.transactions;
            standing.changes = position.changes;
            moved
        });
    }

    /// Both sides are equal but for what was noted since `from`: a later process reads it again from the spool.
    async fn keep(&mut self, from: Lsn) -> Result<(), End> {
        let session = Session::connect(&self.what.ends.target.options, "pgrunbook:proven").await?;
        session.execute(&state::proven_sql(&self.what.schema, self.way, Some(from))).await?;
        self.proven = Some(from);
        Ok(())
    }

    /// The next look must be at everything: what was noted is not kept any longer.
    fn forget(&mut self) {
        self.proven = None;
        self.noting = None;
        self.dirty.take();
        // Not under the proof's own lock: whoever holds it may be waiting for this lane.
        self.lost.store(true, Ordering::SeqCst);
    }

    async fn apply_failed(&self, error: ApplyError) -> End {
        match &error {
            ApplyError::Lost { .. } | ApplyError::Busy { .. } | ApplyError::Usurped { .. } | ApplyError::Stopped => {
                End::Again(error.to_string())
            }
            ApplyError::RelationChanged { lsn, .. } => {
                let statements = ddl::derive(&self.what.ends, self.way).await.unwrap_or_default();
                let stream = self.what.names.stream(self.way);
                End::Stop(Stopped { stream, code: "ddl".to_owned(), why: error.to_string(), lsn: *lsn, statements })
            }
            ApplyError::Conflict { lsn, .. } => self.stop("conflict", &error, *lsn),
            ApplyError::Unfit { lsn, .. } | ApplyError::Stream { lsn, .. } => self.stop("apply", &error, *lsn),
            ApplyError::Postgres { lsn, source, .. } => match source.sqlstate() {
                // Shut down, out of memory, disk or connections, deadlock, cannot connect now: these pass.
                Some(state) if state.starts_with("57P") || state.starts_with("53") || state.starts_with("40") => {
                    End::Again(error.to_string())
                }
                _ => self.stop("apply", &error, *lsn),
            },
            ApplyError::ReplicaRole { .. } => self.stop("apply", &error, Lsn::default()),
        }
    }

    /// What the end of the receiver means. Where the source would keep its log for us without end, the slot is dropped:
    /// the sync must begin again, and the source's disk is safe.
    async fn receiver_ended(&self, why: &ReceiverStopped, slot: &str, at: Lsn) -> End {
        match why {
            ReceiverStopped::Asked => End::Again("the receiver was stopped".to_owned()),
            ReceiverStopped::SpoolFull { .. } | ReceiverStopped::DiskLow { .. } => {
                let dropped = match self.what.ends.origin(self.way).session("pgrunbook:slot").await {
                    Ok(session) => slots::drop_slot_if_ours(&session, slot).await.is_ok(),
                    Err(_) => false,
                };
                let slot = match dropped {
                    true => format!("the slot {slot} was dropped, so that its server's disk does not fill"),
                    false => format!("and the slot {slot} could not be dropped: drop it, or its server's disk fills"),
                };
                self.stop("spool", format!("{why}; {slot}; the transfer must begin again"), at)
            }
            ReceiverStopped::SlotMissing(_) | ReceiverStopped::SlotInvalidated { .. } | ReceiverStopped::Gap { .. } => {
                self.stop("slot", why, at)
            }
            ReceiverStopped::OtherSource { .. } => self.stop("source", why, at),
            ReceiverStopped::Spool(error) => self.stop("spool", error, at),
            ReceiverStopped::Refused(error) => self.stop("slot", error, at),
        }
    }
}
