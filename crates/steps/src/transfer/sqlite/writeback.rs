//! The way back: what is written in the target flows into the file, in this process, until it is dropped.
//!
//! A receiver spools what the slot sends and confirms it; what is spooled is written into the file. While the file takes the
//! writes, all that comes is what came from it, and is passed over.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgrunbook_engine::{Cancel, StepError};
use pgrunbook_postgres::receiver::{Limits, Receive, Receiver, Stopped as ReceiverStopped};
use pgrunbook_postgres::replication::{Replication, StreamOptions};
use pgrunbook_postgres::slots::{self, Direction as Way};
use pgrunbook_postgres::spool::{Follow, FollowError, Source, Spool, SpoolError};
use pgrunbook_postgres::{ConnectOptions, Lsn, PgError, Session};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::apply::{Back, Failed};
use super::error::SqliteError;
use super::keyed::Touched;
use super::open::open_write;
use super::shape;
use super::sync::{blocking, try_lock};
use crate::transfer::follow::{flush, insert_position};
use crate::transfer::standing::{End, Pauses, Standing, Which, Wish};
use crate::transfer::state::{self, Stopped, Transfer};
use crate::transfer::streams::Names;

/// How often what nobody needs any more is removed from the spool.
const SWEEP: Duration = Duration::from_secs(5);

/// How long a half written transaction may keep us from noting what is written.
const NOTING: Duration = Duration::from_secs(30);

/// What it needs to know.
#[derive(Debug, Clone)]
pub struct What {
    pub target: ConnectOptions,
    /// As the project calls it.
    pub target_name: String,
    pub path: PathBuf,
    pub transfer: Transfer,
    /// The folder of the target's spools.
    pub spools: PathBuf,
    pub limits: Limits,
}

/// The way back of one transfer. Ends when it is dropped; what was written stays.
pub struct WriteBack {
    target: ConnectOptions,
    target_name: String,
    schema: String,
    standing: watch::Receiver<Standing>,
    keep: Arc<AtomicBool>,
    applier: Current,
    task: JoinHandle<()>,
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WriteBack {
    /// Begins.
    pub fn start(what: What) -> Self {
        let (publish, standing) = watch::channel(Standing::default());
        let keep = Arc::new(AtomicBool::new(false));
        let (target, target_name) = (what.target.clone(), what.target_name.clone());
        let schema = what.transfer.schema.clone();
        let names = Names::of(&what.transfer.schema, &what.transfer.target);
        let applier = Current::default();
        let work = Work { what, names, publish, keep: keep.clone(), current: applier.clone() };
        let task = tokio::spawn(async move { work.run().await });
        Self { target, target_name, schema, standing, keep, applier, task }
    }

    /// How far it is.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Whether it goes on.
    pub fn is_alive(&self) -> bool {
        !self.task.is_finished()
    }

    /// Ends it, and waits until it has.
    pub async fn end(&self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// From now on the spool is kept until the file says how far it is: a crossing begins.
    pub fn keep_all(&self) {
        self.keep.store(true, Ordering::SeqCst);
    }

    /// From now on it is noted which rows are written into the file: whether that is so.
    pub async fn note_what_flows(&self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < NOTING {
            let Some(applier) = self.now() else { return false };
            match on(&applier, Back::note_what_flows).await {
                Some(Ok(true)) => return true,
                // A transaction is half written.
                Some(Ok(false)) => tokio::time::sleep(Duration::from_millis(10)).await,
                Some(Err(_)) | None => return false,
            }
        }
        false
    }

    /// The rows that were written into the file since, by position in the shape; nothing if that is not known for certain.
    pub async fn what_flowed(&self) -> Option<Vec<Touched>> {
        let applier = self.now()?;
        on(&applier, |back| back.what_flowed()).await?.ok()?
    }

    fn now(&self) -> Option<Applier> {
        self.applier.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until everything is in the file that the target had committed when this was called.
    ///
    /// # Errors
    /// If it stands still, or does not come so far in this time.
    pub async fn caught_up(&self, within: Duration, cancel: &Cancel) -> Result<Lsn, StepError> {
        let session = Session::connect(&self.target, "pgrunbook:lag").await.map_err(PgError::into_step_error)?;
        let end = insert_position(&session).await?;
        flush(&session).await;
        self.wait(within, cancel, |standing| standing.reached >= end, &end.to_string()).await?;
        Ok(end)
    }

    /// Waits until everything before a fence of the target is in the file. Whoever calls limits the time.
    ///
    /// # Errors
    /// If it stands still.
    pub async fn marker(&self, id: &str) -> Result<(), StepError> {
        let is_passed = |standing: &Standing| standing.marker.as_deref() == Some(id);
        self.wait(Duration::from_secs(86_400), &Cancel::default(), is_passed, "the fence").await
    }

    async fn wait(
        &self,
        within: Duration,
        cancel: &Cancel,
        is_there: impl Fn(&Standing) -> bool,
        what: &str,
    ) -> Result<(), StepError> {
        let which = Which { schema: &self.schema, target: &self.target_name };
        let wish = Wish { which, stream: "what flows back into the file", what, within, cancel };
        wish.wait(self.standing.clone(), is_there).await
    }
}

struct Work {
    what: What,
    names: Names,
    publish: watch::Sender<Standing>,
    keep: Arc<AtomicBool>,
    current: Current,
}

/// The applier, used in threads that may wait.
type Applier = Arc<Mutex<Back>>;

/// The one of the present try.
type Current = Arc<Mutex<Option<Applier>>>;

async fn on<T: Send + 'static, E: Send + 'static>(
    back: &Applier,
    work: impl FnOnce(&mut Back) -> Result<T, E> + Send + 'static,
) -> Option<Result<T, E>> {
    let back = back.clone();
    let joined = tokio::task::spawn_blocking(move || work(&mut back.lock().unwrap_or_else(PoisonError::into_inner)));
    joined.await.ok()
}

impl Work {
    async fn run(&self) {
        let mut pauses = Pauses::new();
        loop {
            let before = self.publish.borrow().reached;
            match self.follow().await {
                End::Again(why) => pauses.after(&self.publish, before, why).await,
                End::Stop(stopped) => {
                    self.record(&stopped).await;
                    self.publish.send_modify(|standing| standing.stopped = Some(*stopped));
                    return;
                }
            }
        }
    }

    /// Writes down why it stands still, so that other processes and later ones know.
    async fn record(&self, stopped: &Stopped) {
        let schema = &self.what.transfer.schema;
        let why = format!("what flows back stands still since {}: {}", stopped.lsn, stopped.why);
        let sql = format!("{}; {}", state::stopped_sql(schema, Some(stopped)), state::lossy_sql(schema, &why));
        let Ok(session) = Session::connect(&self.what.target, "pgrunbook:stopped").await else { return };
        // What cannot be recorded is still told to whoever waits here, and found again by whoever follows next.
        let _ = session.execute(&sql).await;
    }

    fn stop(&self, code: &str, why: impl ToString, lsn: Lsn) -> End {
        End::Stop(Box::new(Stopped {
            stream: self.names.stream(Way::Reverse),
            code: code.to_owned(),
            why: why.to_string(),
            lsn,
            statements: Vec::new(),
        }))
    }

    fn failed(&self, failed: Failed, lsn: Lsn) -> End {
        match failed {
            Failed::Again(error) => End::Again(error.to_string()),
            Failed::Stop(code, error) => self.stop(code, error, lsn),
        }
    }

    /// One try: until something fails.
    async fn follow(&self) -> End {
        match self.try_follow().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn try_follow(&self) -> Result<std::convert::Infallible, End> {
        let what = &self.what;
        let session = Session::connect(&what.target, "pgrunbook:back").await?;
        if !try_lock(&session, &what.transfer.schema, "back").await? {
            return Err(End::Again("another process writes back".to_owned()));
        }
        let stream = self.names.stream(Way::Reverse);
        let slot = self.names.slot(Way::Reverse);
        let confirmed = match slots::slot_state(&session, &slot).await? {
            Some(state) => state.confirmed.unwrap_or_default(),
            None => return Err(self.stop("slot", format!("the slot {slot} is not there"), Lsn::default())),
        };
        let back = self.applier(&session, &stream).await?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(back.clone());
        let Some((position, is_fenced)) =
            on(&back, |back| Ok::<_, SqliteError>((back.position.clone(), back.is_fenced()?)))
                .await
                .and_then(Result::ok)
        else {
            return Err(End::Again("the file cannot be read".to_owned()));
        };

        let mut connection = Replication::connect(&what.target, &format!("pgrunbook:{stream}")).await?;
        let major = connection.major();
        let system = connection.identify_system().await?;
        drop(connection);
        let source = Source { system: system.identifier, timeline: system.timeline };
        let folder = what.spools.join(&slot);
        let (spool, writer) = match Spool::open(&folder, source, confirmed.max(position.lsn)).await {
            Ok(opened) => opened,
            Err(error @ (SpoolError::Full { .. } | SpoolError::Damaged { .. } | SpoolError::OtherSource { .. })) => {
                return Err(self.stop("spool", error, position.lsn));
            }
            Err(error) => return Err(End::Again(error.to_string())),
        };
        let receive = Receive {
            connect: what.target.clone(),
            application_name: format!("pgrunbook:{stream}"),
            slot: slot.clone(),
            stream: StreamOptions::best(major, vec![slot.clone()]),
            limits: what.limits,
        };
        let mut receiver = Receiver::start(spool.clone(), writer, receive);
        let mut received = receiver.received();

        // While the file takes the writes there is nothing that must not be missed: all that comes came from it.
        let from = if is_fenced { position.lsn } else { position.lsn.max(spool.begins()) };
        let mut follow = Follow::start(&spool, from).map_err(|error| self.stop("spool", error, position.lsn))?;
        self.publish.send_modify(|standing| {
            standing.reached = standing.reached.max(from);
            standing.marker.clone_from(&position.marker);
            standing.waits = None;
        });
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            receiver.applied(self.publish.borrow().reached);
            tokio::select! {
                biased;
                why = receiver.ended() => return Err(self.receiver_ended(&why, &session, &slot).await),
                batch = follow.next() => {
                    let at = self.publish.borrow().reached;
                    let batch = match batch {
                        Ok(Some(batch)) => batch,
                        Ok(None) | Err(FollowError::Spool(SpoolError::Closed { .. })) => {
                            return Err(End::Again("the spool is no longer written".to_owned()));
                        }
                        Err(error) => return Err(self.stop("spool", error, at)),
                    };
                    let done = on(&back, move |back| {
                        back.push(&batch.events, batch.position)?;
                        Ok::<_, Failed>((back.reached, back.position.clone()))
                    });
                    match done.await {
                        Some(Ok((reached, position))) => self.publish.send_modify(|standing| {
                            standing.reached = standing.reached.max(reached);
                            standing.marker = position.marker;
                            standing.transactions = position.transactions;
                            standing.changes = position.changes;
                        }),
                        Some(Err(failed)) => return Err(self.failed(failed, at)),
                        None => return Err(End::Again("the writing was stopped".to_owned())),
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
                    let kept = on(&back, |back| {
                        Ok::<_, SqliteError>(if back.is_fenced()? { Some(back.position.lsn) } else { None })
                    });
                    let kept = match kept.await {
                        Some(Ok(Some(lsn))) => lsn,
                        Some(Ok(None)) if !self.keep.load(Ordering::SeqCst) => self.publish.borrow().reached,
                        _ => continue,
                    };
                    if let Err(error) = spool.prune(kept) {
                        return Err(End::Again(error.to_string()));
                    }
                }
            }
        }
    }

    async fn applier(&self, session: &Session, stream: &str) -> Result<Applier, End> {
        let transfer = &self.what.transfer;
        let shape = shape::recorded(session, &transfer.schema).await.map_err(|error| End::Again(error.message))?;
        let (path, stream) = (self.what.path.clone(), stream.to_owned());
        let (other, schema) = (self.names.stream(Way::Forward), transfer.schema.clone());
        let opened = blocking(move || {
            let connection = open_write(&path)?;
            Back::new(connection, &path, Arc::new(shape), stream, &other, &schema)
        });
        Ok(Arc::new(Mutex::new(opened.await.map_err(|error| End::Again(error.to_string()))?)))
    }

    /// As for a stream between databases: where the server would keep its log for us without end, the slot is dropped.
    async fn receiver_ended(&self, why: &ReceiverStopped, session: &Session, slot: &str) -> End {
        let at = self.publish.borrow().reached;
        match why {
            ReceiverStopped::Asked => End::Again("the receiver was stopped".to_owned()),
            ReceiverStopped::SpoolFull { .. } | ReceiverStopped::DiskLow { .. } => {
                let said = match slots::drop_slot_if_ours(session, slot).await {
                    Ok(_) => format!("the slot {slot} was dropped, so that its server's disk does not fill"),
                    Err(_) => format!("and the slot {slot} could not be dropped: drop it, or its server's disk fills"),
                };
                self.stop("spool", format!("{why}; {said}"), at)
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
