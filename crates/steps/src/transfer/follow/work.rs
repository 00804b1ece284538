//! The task of one lane: one receiver, one applier, and what to do when either of them ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrunbook_postgres::apply::{Applier, ApplyError, Options, Rename, text_only_columns};
use pgrunbook_postgres::pgoutput::{Early, Event, Verdict};
use pgrunbook_postgres::receiver::{Receive, Receiver, Stopped as ReceiverStopped};
use pgrunbook_postgres::relation::FIRST_USER_OID;
use pgrunbook_postgres::replication::{Replication, StreamOptions};
use pgrunbook_postgres::slots::{self, Direction as Way};
use pgrunbook_postgres::spool::{Batch, Follow, FollowError, Source, Spool, SpoolError};
use pgrunbook_postgres::{Lsn, Session};
use tokio::sync::{mpsc, watch};

use super::{Order, Turn, What, bound};
use crate::parity::{Dirty, Reader};
use crate::transfer::standing::{End, Pauses, Standing};
use crate::transfer::state::{self, Stopped};
use crate::transfer::streams::other;
use crate::transfer::{ddl, ends};

/// How often what nobody needs any more is removed from the spool.
const SWEEP: Duration = Duration::from_secs(5);

/// How long whoever applies now may go on before its turn is taken: the backend of a killed process needs a moment.
const TURN: Duration = Duration::from_secs(2);

/// What a lane's task has.
pub(super) struct Work {
    pub what: Arc<What>,
    pub way: Way,
    pub publish: watch::Sender<Standing>,
    pub orders: mpsc::Receiver<Order>,
    pub dirty: Dirty,
    pub lost: Arc<AtomicBool>,
    /// Says which keys a change touches; nothing is noted without it.
    pub noting: Option<Reader>,
    /// What a transaction changes that is applied while it is open: noted when it is committed.
    pub noted_early: Option<(Verdict, Dirty)>,
    pub proven: Option<Lsn>,
}

impl Work {
    /// Follows, for ever, or until a person must act.
    pub async fn run(&mut self) {
        let mut pauses = Pauses::new();
        loop {
            let before = self.publish.borrow().reached;
            let what = self.what.clone();
            let slot = what.names.slot(self.way);
            let end = tokio::select! {
                biased;
                // Whatever it waits for: what its server keeps meanwhile is bounded.
                found = bound::watch(&what.ends, self.way, &slot, what.limits.spool_hard) => {
                    let at = self.publish.borrow().reached;
                    self.stop("spool", found.said(&slot), at)
                }
                // Without an error, nobody listens any more.
                end = self.follow() => match end {
                    Ok(()) => return,
                    Err(end) => end,
                },
            };
            match end {
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
        End::Stop(Box::new(Stopped {
            stream: self.what.names.stream(self.way),
            code: code.to_owned(),
            why: why.to_string(),
            lsn,
            statements: Vec::new(),
        }))
    }

    /// One try: until something fails.
    async fn follow(&mut self) -> Result<(), End> {
        let (what, way) = (self.what.clone(), self.way);
        let origin = what.ends.origin(way);
        let stream = what.names.stream(way);
        let mut applier = self.applier(&stream).await?;
        self.noted_early = None;
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
        let binary = text_only_columns(&session, &origin.schema).await?.is_empty()
            && have_same_types(&session, &origin.schema, what.ends.destination(way)).await?;
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

        // A stream that never applied anything begins where its slot does.
        let start = if position.transactions == 0 { position.lsn.max(spool.begins()) } else { position.lsn };
        receiver.applied(start);
        // Rows come before changes.
        if !what.applies {
            let why = receiver.ended().await;
            let at = spool.synced().borrow().lsn;
            return Err(self.receiver_ended(&why, &slot, at).await);
        }

        applier.reached(start);
        let from = self.proven.unwrap_or(start).min(start);
        let mut follow = match Follow::start_early(&spool, from, start) {
            Ok(follow) => follow,
            // The keys that changed since the last proof are no longer to be had: the next proof is a whole one.
            Err(SpoolError::Pruned { .. }) if from < start => {
                self.forget();
                Follow::start_early(&spool, start, start).map_err(|error| self.stop("spool", error, position.lsn))?
            }
            Err(error) => return Err(self.stop("spool", error, position.lsn)),
        };
        // Everything since is noted again.
        if self.proven.is_some() {
            self.dirty.take();
        }
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            receiver.applied(self.publish.borrow().reached);
            tokio::select! {
                biased;
                why = receiver.ended() => {
                    let at = applier.flush().await.map_or(position.lsn, |position| position.lsn);
                    return Err(self.receiver_ended(&why, &slot, at).await);
                }
                order = self.orders.recv() => match order {
                    None => return Ok(()),
                    Some(Order::Note(reader, tell)) => {
                        // What came of an open transaction was not noted.
                        self.let_go(&mut applier).await?;
                        self.noting = Some(reader);
                        let _ = tell.send(());
                    }
                    Some(Order::Proven(tell)) => {
                        let kept = spool.begins();
                        self.keep(kept).await?;
                        let _ = tell.send(());
                    }
                    Some(Order::Hold(tell, released)) => {
                        // Whoever holds it may wish to write there.
                        self.let_go(&mut applier).await?;
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
            let ends_early = matches!(event, Event::Early(Early::Commit { .. }));
            self.note(&event);
            if let Err(error) = applier.push(event).await {
                return Err(self.apply_failed(error).await);
            }
            if ends_early {
                self.note_early();
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

    /// Notes which keys an event changes. What cannot be noted is no fault of the stream: it is compared whole next time.
    fn note(&mut self, event: &Event) {
        let Some(noting) = &self.noting else { return };
        let noted = match (event, &self.noted_early) {
            (Event::Change(change), _) => noting.note(&self.dirty, change),
            (Event::Early(Early::Change(change)), Some((_, dirty))) => noting.note(dirty, change),
            (Event::Early(Early::Begin { verdict, .. }), _) => {
                self.noted_early = Some((verdict.clone(), self.dirty.like()));
                Ok(())
            }
            (Event::Early(Early::Undo), _) => {
                self.noted_early = None;
                Ok(())
            }
            _ => Ok(()),
        };
        if noted.is_err() {
            self.forget();
        }
    }

    /// A transaction that was applied while it was open is committed. If it was not kept, it comes again.
    fn note_early(&mut self) {
        let Some((verdict, dirty)) = self.noted_early.take() else { return };
        if verdict.is_kept() && self.dirty.absorb(&dirty).is_err() {
            self.forget();
        }
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
            Err(error) if error.may_pass() => Err(End::Again(error.to_string())),
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

    async fn let_go(&self, applier: &mut Applier) -> Result<(), End> {
        match applier.let_go().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.apply_failed(error).await),
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
        self.noted_early = None;
        self.dirty.take();
        // Not under the proof's own lock: whoever holds it may be waiting for this lane.
        self.lost.store(true, Ordering::SeqCst);
    }

    async fn apply_failed(&self, error: ApplyError) -> End {
        if error.may_pass() {
            return End::Again(error.to_string());
        }
        match &error {
            ApplyError::RelationChanged { lsn, .. } => {
                let statements = ddl::derive(&self.what.ends, &self.what.schema, self.way).await.unwrap_or_default();
                let stream = self.what.names.stream(self.way);
                let (code, why) = ("ddl".to_owned(), error.to_string());
                End::Stop(Box::new(Stopped { stream, code, why, lsn: *lsn, statements }))
            }
            ApplyError::Conflict { lsn, .. } => self.stop("conflict", &error, *lsn),
            ApplyError::Unfit { lsn, .. } | ApplyError::Stream { lsn, .. } => self.stop("apply", &error, *lsn),
            ApplyError::Postgres { lsn, .. } => self.stop("apply", &error, *lsn),
            _ => self.stop("apply", &error, Lsn::default()),
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
            // Room can be made, and then nothing is lost: so the slot stays, at its server's expense, as far as that may go.
            ReceiverStopped::Spool(error @ SpoolError::Full { .. }) => {
                let slot = format!(
                    "the slot {slot} stays, and its server keeps its WAL for it until there is room here, up to `spool_limit` ({} bytes)",
                    self.what.limits.spool_hard
                );
                self.stop("spool", format!("{error}; {slot}"), at)
            }
            ReceiverStopped::Spool(error) => self.stop("spool", error, at),
            ReceiverStopped::Refused(error) => self.stop("slot", error, at),
        }
    }
}

/// Whether each column is of one type on both sides: another type's binary form is another. Users' types have other OIDs
/// everywhere, and one binary form.
async fn have_same_types(session: &Session, schema: &str, other: &ends::End) -> Result<bool, End> {
    let there = Session::connect(&other.options, "pgrunbook:types").await?;
    let (here, there) = (types(session, schema).await?, types(&there, &other.schema).await?);
    let is_own = |oid: &u32| *oid >= FIRST_USER_OID;
    Ok(here
        .iter()
        .all(|(column, oid)| there.get(column).is_none_or(|other| other == oid || (is_own(other) && is_own(oid)))))
}

/// Types by table and column. From the catalog alone: what asks for a table's size waits for its lock, which a copy holds for as long as
/// it takes, and nothing would be received meanwhile.
async fn types(session: &Session, schema: &str) -> Result<BTreeMap<(String, String), u32>, End> {
    let answers = session.simple(&format!("{TYPES}{}", state::text(schema))).await?;
    let rows = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    let text = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    Ok(rows.iter().map(|row| ((text(row, 0), text(row, 1)), text(row, 2).parse().unwrap_or(0))).collect())
}

const TYPES: &str = "SELECT c.relname, a.attname, a.atttypid
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND n.nspname = ";
