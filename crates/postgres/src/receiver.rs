//! The thread that brings a slot's changes to a spool, and tells the source only of what is safe there.
//!
//! It begins anew after every error that may pass, without doubling anything: the stream goes on from where the spool is
//! whole. It ends, and says why, where going on would lose changes or fill a disk.

use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::error::PgError;
use crate::lsn::Lsn;
use crate::options::ConnectOptions;
use crate::replication::{Incoming, Replication, Stream, StreamOptions};
use crate::slots::{read_slot_state, slot_state_sql};
use crate::spool::{Source, Spool, SpoolError, Writer, free_bytes};

/// A first pause after an error, and the longest: each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// So much is gathered before it is handed to the disk, while more is at hand.
const GATHER: usize = 1 << 20;

/// When less than this came at once, more is let come together before it is read: the server sends each message by itself, and
/// to be woken for each costs both sides more than the message. Less than a near connection's window: when a full one came, the next
/// is on its way.
const LITTLE: usize = 8 << 10;
const PAUSE: Duration = Duration::from_millis(6);

/// How much the spool may take. It is freed by segments of 64 MB: what is below a few of them stops it for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From here on it receives slowly, in bytes.
    pub spool_soft: u64,
    /// Here it stops, in bytes.
    pub spool_hard: u64,
    /// It stops when the disk has less room than this, in bytes.
    pub disk_free_min: u64,
}

/// What it receives, and how.
#[derive(Debug, Clone)]
pub struct Receive {
    pub connect: ConnectOptions,
    /// As `pg_stat_activity` shows it.
    pub application_name: String,
    pub slot: String,
    pub stream: StreamOptions,
    pub limits: Limits,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Every transaction that ended here or before is in the spool, on disk. This is what the slot is confirmed.
    pub lsn: Lsn,
    /// How far the server had sent or looked through its log when it was last heard.
    pub server_end: Lsn,
    pub spool_bytes: u64,
    /// Above the soft limit: whoever reads the spool is too slow.
    pub is_filling: bool,
    /// Why it is not connected now; `None` while it is.
    pub interrupted: Option<String>,
    /// How often it connected.
    pub connections: u64,
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// It was asked to.
    #[error("it was asked to stop")]
    Asked,
    /// The spool has reached its hard limit. The source keeps its log for the slot now: drop the slot.
    #[error("the spool holds {bytes} bytes, and may hold {limit}")]
    SpoolFull { bytes: u64, limit: u64 },
    /// The disk has too little room. The source keeps its log for the slot now: drop the slot.
    #[error("the disk of {folder} has {free} bytes left, and must have {limit}")]
    DiskLow { folder: String, free: u64, limit: u64 },
    #[error("the slot `{0}` is not there")]
    SlotMissing(String),
    /// The source no longer has the log that it needs.
    #[error("the slot `{slot}` was invalidated: {why}")]
    SlotInvalidated { slot: String, why: String },
    /// The slot was confirmed further than the spool goes: changes between are lost, or the spool is not this slot's.
    #[error(
        "the slot `{slot}` goes on at {confirmed}, and the spool ends at {spool}: what is between is not to be had"
    )]
    Gap { slot: String, confirmed: Lsn, spool: Lsn },
    /// Another cluster answers, or another history of it.
    #[error("the server is system {found}, and the spool is of system {expected}")]
    OtherSource { found: Source, expected: Source },
    /// The spool cannot be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The server refuses, and trying again will not help.
    #[error(transparent)]
    Refused(PgError),
}

/// A thread that receives. When this is dropped it ends soon, as if it had been asked to.
pub struct Receiver {
    received: watch::Receiver<Received>,
    applied: watch::Sender<Lsn>,
    stop: watch::Sender<bool>,
    /// Until it was told why it ended.
    ended: Option<oneshot::Receiver<Stopped>>,
}

impl Receiver {
    /// Begins to receive into the spool whose writer this is.
    pub fn start(spool: Spool, writer: Writer, what: Receive) -> Self {
        let (publish, received) = watch::channel(Received {
            lsn: writer.end(),
            server_end: writer.end(),
            spool_bytes: spool.bytes(),
            is_filling: false,
            interrupted: None,
            connections: 0,
        });
        let (stop, stopping) = watch::channel(false);
        let (apply, applied) = watch::channel(Lsn(0));
        let (tell, ended) = oneshot::channel();
        let work = async move {
            let mut pump = Pump { spool, writer, what, publish, applied, stopping };
            let why = pump.run().await;
            match (why, pump.writer.close().await) {
                (Stopped::Asked, Err(error)) => Stopped::Spool(error),
                (why, _) => why,
            }
        };
        // A thread and a runtime of its own: while it pauses nobody must wait for the socket, or is woken for each message.
        let thread = std::thread::Builder::new().name("receive".to_owned());
        let started = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let why = runtime.map_or_else(|error| no_thread(&error), |runtime| runtime.block_on(work));
            // Nobody is there to be told when it was dropped.
            let _ = tell.send(why);
        });
        let ended = started.map_or_else(
            |error| {
                let (tell, ended) = oneshot::channel();
                let _ = tell.send(no_thread(&error));
                ended
            },
            |_| ended,
        );
        Self { received, applied: apply, stop, ended: Some(ended) }
    }

    /// Everything that the source committed before this is applied: the source's server is told, and shows it as `replay_lsn` of
    /// `pg_stat_replication` to whoever asks how far behind the destination is.
    pub fn applied(&self, lsn: Lsn) {
        self.applied.send_if_modified(|applied| {
            let further = lsn > *applied;
            *applied = lsn.max(*applied);
            further
        });
    }

    /// How far it is; changes whenever it is further.
    pub fn received(&self) -> watch::Receiver<Received> {
        self.received.clone()
    }

    /// Waits until it ends by itself. The reason is told once; then it is [`Stopped::Asked`].
    ///
    /// Cancellation: may be asked again.
    pub async fn ended(&mut self) -> Stopped {
        let Some(ended) = &mut self.ended else { return Stopped::Asked };
        let why = ended.await;
        self.ended = None;
        // Otherwise it panicked, which it does nowhere.
        why.unwrap_or(Stopped::Asked)
    }

    /// Ends it: what it has is synced and confirmed first.
    pub async fn stop(mut self) -> Stopped {
        self.stop.send_replace(true);
        self.ended().await
    }
}

fn no_thread(error: &std::io::Error) -> Stopped {
    Stopped::Refused(PgError::Client(format!("a thread to receive cannot be started: {error}")))
}

/// Why a connection ended.
enum End {
    Stop(Stopped),
    Again(PgError),
}

impl From<SpoolError> for End {
    fn from(error: SpoolError) -> Self {
        Self::Stop(Stopped::Spool(error))
    }
}

struct Pump {
    spool: Spool,
    writer: Writer,
    what: Receive,
    publish: watch::Sender<Received>,
    applied: watch::Receiver<Lsn>,
    stopping: watch::Receiver<bool>,
}

impl Pump {
    async fn run(&mut self) -> Stopped {
        let mut pause = PAUSES.0;
        loop {
            let before = self.publish.borrow().lsn;
            let error = match self.connection().await {
                End::Stop(why) => return why,
                End::Again(error) => error,
            };
            self.publish.send_modify(|received| received.interrupted = Some(error.to_string()));
            if self.publish.borrow().lsn > before {
                pause = PAUSES.0;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = asked(&mut self.stopping) => return Stopped::Asked,
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// One connection, to its end.
    async fn connection(&mut self) -> End {
        let mut stopping = self.stopping.clone();
        let begun = tokio::select! {
            begun = self.begin() => begun,
            () = asked(&mut stopping) => return End::Stop(Stopped::Asked),
        };
        let mut stream = match begun {
            Ok(stream) => stream,
            Err(end) => return end,
        };
        self.writer.restart();
        self.publish.send_modify(|received| {
            received.interrupted = None;
            received.connections += 1;
        });
        let Err(end) = self.pump(&mut stream).await;
        if matches!(end, End::Stop(_)) {
            self.finish(&stream).await;
            stream.close().await;
        }
        end
    }

    /// Connects, and makes sure that this is the place to go on from.
    async fn begin(&mut self) -> Result<Stream, End> {
        let slot = self.what.slot.clone();
        let mut connection =
            Replication::connect(&self.what.connect, &self.what.application_name).await.map_err(passing)?;
        let system = connection.identify_system().await.map_err(passing)?;
        let found = Source { system: system.identifier, timeline: system.timeline };
        if found != self.spool.source() {
            let expected = self.spool.source();
            return Err(End::Stop(Stopped::OtherSource { found, expected }));
        }
        let sql = slot_state_sql(&slot).map_err(passing)?;
        let rows = connection.query(&sql).await.map_err(passing)?;
        let Some(state) = rows.into_iter().next().map(read_slot_state) else {
            return Err(End::Stop(Stopped::SlotMissing(slot)));
        };
        if let Some(why) = state.invalidation {
            return Err(End::Stop(Stopped::SlotInvalidated { slot, why }));
        }
        let spool = self.writer.end();
        match state.confirmed {
            Some(confirmed) if confirmed > spool => Err(End::Stop(Stopped::Gap { slot, confirmed, spool })),
            _ => connection.start(&slot, spool, &self.what.stream).await.map_err(passing),
        }
    }

    /// Receives until something ends it.
    async fn pump(&mut self, stream: &mut Stream) -> Result<std::convert::Infallible, End> {
        let mut synced = self.writer.synced();
        let mut stopping = self.stopping.clone();
        let mut applied = self.applied.clone();
        let mut server_end = Lsn(0);
        loop {
            // What is at hand, without waiting.
            while self.writer.buffered() < GATHER {
                match stream.try_next().map_err(passing)? {
                    Some(incoming) => self.take(incoming, &mut server_end)?,
                    None => break,
                }
            }
            let came = self.writer.buffered();
            self.writer.flush().await?;
            self.report(stream, synced.borrow_and_update().lsn, server_end);
            self.keep_limits()?;
            if (1..LITTLE).contains(&came) {
                // Not by a timer of the runtime, which would be woken by the socket meanwhile.
                std::thread::sleep(PAUSE);
            }
            tokio::select! {
                biased;
                () = asked(&mut stopping) => return Err(End::Stop(Stopped::Asked)),
                // When the thread that writes ended, flushing says why.
                _ = synced.changed() => {}
                // Whoever would tell is gone: so the whole ends soon.
                Ok(()) = applied.changed() => {}
                incoming = stream.next() => match incoming.map_err(passing)? {
                    Some(incoming) => self.take(incoming, &mut server_end)?,
                    None => {
                        let address = self.what.connect.address();
                        return Err(End::Again(PgError::Lost { address, why: "the server ended the stream".to_owned() }));
                    }
                },
            }
        }
    }

    fn take(&mut self, incoming: Incoming, server_end: &mut Lsn) -> Result<(), End> {
        match incoming {
            Incoming::Frame(frame) => {
                *server_end = frame.wal_end.max(*server_end);
                self.writer.append(frame.wal_start, &frame.data)?;
            }
            Incoming::Keepalive(keepalive) => {
                *server_end = keepalive.wal_end.max(*server_end);
                self.writer.reached(keepalive.wal_end);
            }
        }
        Ok(())
    }

    fn report(&self, stream: &Stream, synced: Lsn, server_end: Lsn) {
        stream.confirm(synced, *self.applied.borrow());
        let bytes = self.spool.bytes();
        let is_filling = bytes >= self.what.limits.spool_soft;
        self.publish.send_if_modified(|received| {
            let end = received.server_end.max(server_end);
            let news = received.lsn != synced || received.server_end != end || received.is_filling != is_filling;
            (received.lsn, received.server_end) = (synced, end);
            (received.spool_bytes, received.is_filling) = (bytes, is_filling);
            news
        });
    }

    /// What is received slowly here is kept by the server in the meantime: so it is received as fast as it comes, or not at all.
    fn keep_limits(&self) -> Result<(), End> {
        let Limits { spool_hard, disk_free_min, .. } = self.what.limits;
        let bytes = self.spool.bytes();
        if bytes >= spool_hard {
            return Err(End::Stop(Stopped::SpoolFull { bytes, limit: spool_hard }));
        }
        let folder = self.spool.folder();
        if let Ok(free) = free_bytes(folder)
            && free < disk_free_min
        {
            let folder = folder.display().to_string();
            return Err(End::Stop(Stopped::DiskLow { folder, free, limit: disk_free_min }));
        }
        Ok(())
    }

    /// Syncs what is whole, and confirms it.
    async fn finish(&mut self, stream: &Stream) {
        let mut synced = self.writer.synced();
        let end = self.writer.end();
        if self.writer.flush().await.is_ok() {
            // The thread publishes, or ends.
            while synced.borrow_and_update().lsn < end && synced.changed().await.is_ok() {}
        }
        let lsn = synced.borrow().lsn;
        self.report(stream, lsn, Lsn(0));
    }
}

/// Waits until it is to stop: it is asked to, or nobody is there any more who could ask.
async fn asked(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Whether an error may pass by itself.
fn passing(error: PgError) -> End {
    let again = match &error {
        PgError::Client(_) => true,
        // The slot is still held, somebody cancelled it, an internal matter of the server.
        PgError::Refused { error: server, .. } | PgError::Server(server) => {
            server.sqlstate == "55006" || matches!(server.sqlstate.get(..2), Some("57" | "58" | "XX"))
        }
        _ => false,
    };
    match again || error.may_pass() {
        true => End::Again(error),
        false => End::Stop(Stopped::Refused(error)),
    }
}
