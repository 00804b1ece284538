//! The applier: takes events, makes batches, keeps the position.

mod change;
mod early;
mod meet;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::lsn::Lsn;
use crate::options::ConnectOptions;
use crate::pgoutput::{self, Begin, Change, Commit, Event, Old, Relation};
use crate::session::Session;

use change::Rest;
use early::Early;

use super::error::ApplyError;
use super::known::{self, text};
use super::pending::{Table, row_size};
use super::server::{Server, Work};
use super::write::Writer;
use super::{Options, PREFIX, Position};

/// What an applier's session must not inherit. The joins: a batch is looked up row by row through the key's index, whatever the
/// planner thinks of tables it has no statistics of yet.
const SETTINGS: &str = "
    SET row_security = off; SET search_path = ''; SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, YMD';
    SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex';
    SET xmloption = 'content'; SET lc_monetary = 'C'; SET lc_numeric = 'C'; SET array_nulls = on;
    SET standard_conforming_strings = on; SET default_transaction_isolation = 'read committed';
    SET default_transaction_read_only = off; SET default_transaction_deferrable = off; SET statement_timeout = 0;
    SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET jit = off; SET temp_buffers = '32MB';
    SET enable_hashjoin = off; SET enable_mergejoin = off; SET synchronous_commit = off";

/// Skipped transactions after which the position is written all the same. Writing it for each would echo between the two
/// directions for ever where empty transactions are sent (before 15).
const SKIPPED: u64 = 10_000;

/// So many rows are worth a batch of their own while the server has nothing to do; fewer cost it more for each row.
const ENOUGH: usize = 10_000;

/// Room for so many changes is kept from one transaction to the next.
const SPARE: usize = 1024;

/// Applies one stream to one database.
///
/// Commits do not wait for the disk (`synchronous_commit = off`). That is safe because the position is in the same
/// transaction: a crash of the destination loses the last batches together with their positions, never one without the
/// other, and the stream is read again from what is left. Hence what was read must be kept until [`Position::durable`] has
/// passed it. A batch that ends with a fence waits for the disk.
pub struct Applier {
    server: Server,
    backend_pid: i32,
    options: Options,
    tables: HashMap<u32, Table>,
    known: Vec<Relation>,
    committed: watch::Receiver<Position>,
    /// With what is folded, and what the server is writing.
    ahead: Position,
    /// Whether there is anything of `ahead` to be given to the server, or only a position that moved.
    changed: bool,
    /// A fence is among it.
    fenced: bool,
    skipped: u64,
    rows: usize,
    bytes: usize,
    since: Option<Instant>,
    current: Option<Current>,
    /// What still comes of a transaction that was told early does not count: it was taken back, and comes again.
    void: bool,
    /// Kept for its room.
    spare: Vec<Change>,
    stopped: bool,
}

/// The source's transaction whose events are coming in.
struct Current {
    begin: Begin,
    changes: Vec<Change>,
    bytes: usize,
    count: u64,
    marker: Option<String>,
    skip: bool,
    first: bool,
    /// It is being written before its end is known.
    large: bool,
    /// The source has not committed it yet.
    early: Option<Early>,
}

/// What a change waits for.
enum Wait {
    /// Its table must be looked at, or its transaction is too large to be kept.
    Change(Change),
    /// What waits for its table must be written first.
    Rest(Rest),
    /// Of a transaction that is being written there is enough for another piece.
    Piece,
}

impl Applier {
    /// Connects, makes the tables of the position where they are missing, and takes the stream for itself.
    ///
    /// # Errors
    /// [`ApplyError::ReplicaRole`], [`ApplyError::Busy`] after [`Options::patience`], or what connecting says.
    pub async fn open(connect: &ConnectOptions, options: Options) -> Result<Self, ApplyError> {
        let failed = |error| ApplyError::of("to open the stream", Lsn::default(), error);
        let session = Session::connect(connect, &format!("pgrunbook:{}", options.stream)).await.map_err(failed)?;
        session.execute(SETTINGS).await.map_err(failed)?;
        match session.execute("SET session_replication_role = replica").await {
            Err(source) if source.sqlstate() == Some("42501") => {
                let role = session.value("SELECT pg_catalog.quote_ident(current_user)").await.map_err(failed)?;
                return Err(ApplyError::ReplicaRole { role, source });
            }
            result => result.map_err(failed)?,
        }
        take(&session, &options).await?;
        known::install(&session).await.map_err(failed)?;
        let stream = text(&options.stream);
        let found = session
            .simple(&format!(
                "INSERT INTO pgrunbook.stream (name, lsn) VALUES ({stream}, '0/0') ON CONFLICT DO NOTHING;
                 SELECT s.lsn, s.marker, s.transactions, s.changes FROM pgrunbook.stream AS s WHERE s.name = {stream}"
            ))
            .await
            .map_err(failed)?;
        let row = found.last().and_then(|answer| answer.rows.first()).cloned().unwrap_or_default();
        let cell = |at: usize| row.get(at).cloned().flatten();
        let lsn = cell(0).and_then(|lsn| lsn.parse().ok()).unwrap_or_default();
        let position = Position {
            lsn,
            durable: Lsn::default(),
            marker: cell(1),
            transactions: cell(2).and_then(|count| count.parse().ok()).unwrap_or_default(),
            changes: cell(3).and_then(|count| count.parse().ok()).unwrap_or_default(),
        };
        let known = known::load(&session, &options.stream).await.map_err(failed)?;
        let backend_pid = session.backend_pid();
        let (publish, committed) = watch::channel(position.clone());
        let mut writer = Writer::new(session, &options.stream, publish);
        // What the row says was perhaps committed by a process that did not wait for the disk.
        writer.commit_at(&position, true).await?;
        Ok(Self {
            server: Server::Idle(Box::new(writer)),
            backend_pid,
            options,
            tables: HashMap::new(),
            known,
            committed,
            ahead: position,
            changed: false,
            fenced: false,
            skipped: 0,
            rows: 0,
            bytes: 0,
            since: None,
            current: None,
            void: false,
            spare: Vec::new(),
            stopped: false,
        })
    }

    /// What is committed. A batch may be on its way; [`Applier::flush`] waits for it.
    pub fn position(&self) -> Position {
        self.committed.borrow().clone()
    }

    /// The server process that applies.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// Takes a table as it is now, after a person has looked at [`ApplyError::RelationChanged`] and made the destination fit.
    ///
    /// # Errors
    /// If the destination cannot be told.
    pub async fn accept(&mut self, relation: &Relation) -> Result<(), ApplyError> {
        self.remember(relation).await?;
        self.tables.retain(|_, table| !known::same(&table.relation, relation));
        Ok(())
    }

    /// Takes the next event. What came before it may be given to the server, which writes it while more is taken; a fence is
    /// waited for.
    ///
    /// # Errors
    /// [`ApplyError`], of this event or of one before it; after one, the applier is at its end.
    pub async fn push(&mut self, event: Event) -> Result<(), ApplyError> {
        if self.stopped {
            return Err(ApplyError::Stopped);
        }
        // Cancellation: dropped in the middle, nobody knows what of the event was taken.
        self.stopped = true;
        // Whatever waits for the server is boxed: most events need not wait, and would carry the room for it along.
        let committed = match event {
            Event::Begin(begin) => {
                self.begin(begin)?;
                None
            }
            Event::Change(change) => {
                if let Some(wait) = self.hold(change)? {
                    Box::pin(self.wait(wait)).await?;
                }
                None
            }
            Event::Early(pgoutput::Early::Change(change)) => {
                match self.hold_early(change) {
                    Ok(None) => {}
                    held => Box::pin(self.wait_early(held)).await?,
                }
                None
            }
            Event::Early(early) => Box::pin(self.early(early)).await?,
            Event::Commit(commit) => Some(commit),
        };
        if let Some(commit) = committed {
            let mut changes = self.held(&commit)?;
            for change in changes.drain(..) {
                if let Some(rest) = self.fold_here(change)? {
                    Box::pin(self.fold_there(rest)).await?;
                }
                if self.bytes > self.options.held_bytes {
                    Box::pin(self.give(None)).await?;
                }
            }
            self.spare = changes;
            self.spare.shrink_to(SPARE);
            if self.end(&commit) {
                Box::pin(self.commit_batch()).await?;
            }
        }
        self.stopped = false;
        Ok(())
    }

    /// Commits all transactions of the source whose end has come, and waits for it. Where they changed nothing (they were
    /// skipped), only the position in memory moves, which [`Applier::settle`] writes.
    ///
    /// # Errors
    /// As [`Applier::push`].
    pub async fn flush(&mut self) -> Result<Position, ApplyError> {
        if self.stopped {
            return Err(ApplyError::Stopped);
        }
        self.stopped = true;
        if !self.is_large() {
            self.commit_batch().await?;
        }
        // What is written early was begun when all before it was committed.
        if !(self.is_large() && self.is_early()) {
            self.server.writer().await?;
        }
        self.stopped = false;
        Ok(self.position())
    }

    /// [`Applier::flush`], and waits until the destination's disk has it: [`Position::durable`] is then [`Position::lsn`], unless
    /// a transaction is being written whose end did not come. If it is open at the source and nothing came of it for
    /// [`Options::early_patience`], it is taken back.
    ///
    /// # Errors
    /// As [`Applier::push`].
    pub async fn settle(&mut self) -> Result<Position, ApplyError> {
        if self.is_stale() {
            self.let_go().await?;
        }
        let position = self.flush().await?;
        if !self.is_large() && (position.durable < position.lsn || self.skipped > 0) {
            self.stopped = true;
            self.server.writer().await?.commit_at(&self.ahead, true).await?;
            self.skipped = 0;
            self.stopped = false;
        }
        Ok(self.position())
    }

    /// Every transaction of the source that ended here or before was pushed, or does not concern this stream. Moves the
    /// position in memory, as a skipped transaction does.
    pub fn reached(&mut self, lsn: Lsn) {
        if lsn > self.ahead.lsn {
            self.ahead.lsn = lsn;
            self.skipped = self.skipped.max(1);
        }
    }

    fn begin(&mut self, begin: Begin) -> Result<(), ApplyError> {
        if self.current.is_some() {
            return Err(senseless(begin.commit_lsn, "a transaction begins inside another"));
        }
        // Commit records do not overlap: one that begins before the end of an applied one is that one, or an earlier.
        let skip = begin.commit_lsn < self.ahead.lsn;
        self.current = Some(Current {
            begin,
            changes: std::mem::take(&mut self.spare),
            bytes: 0,
            count: 0,
            marker: None,
            skip,
            first: true,
            large: false,
            early: None,
        });
        Ok(())
    }

    fn is_large(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.large)
    }

    /// Keeps a change until its transaction ends, or folds it where that is being written. Says where the server is needed.
    fn hold(&mut self, change: Change) -> Result<Option<Wait>, ApplyError> {
        let Some(current) = &mut self.current else {
            return Err(senseless(self.ahead.lsn, "a change outside of a transaction"));
        };
        let first = std::mem::replace(&mut current.first, false);
        if current.skip {
            return Ok(None);
        }
        let (size, relation) = match &change {
            Change::Message { prefix, content } => {
                if prefix == PREFIX {
                    let content = String::from_utf8_lossy(content);
                    if let (true, Some(by)) = (first, content.strip_prefix("applied:")) {
                        current.skip = self.options.skip_applied_by.as_deref() == Some(by);
                    }
                    if let Some(id) = content.strip_prefix("fence:") {
                        current.marker = Some(id.to_owned());
                    }
                }
                return Ok(None);
            }
            Change::Insert { relation, new } => (row_size(new), Some(relation)),
            Change::Update { relation, old, new } => {
                let before = old.as_ref().map_or(0, |(Old::Key(row) | Old::Full(row))| row_size(row));
                (before + row_size(new), Some(relation))
            }
            Change::Delete { relation, old: Old::Key(row) | Old::Full(row) } => (row_size(row), Some(relation)),
            Change::Truncate { relations, .. } => (64 * relations.len(), None),
        };
        current.bytes += size;
        current.count += 1;
        let is_met = relation.is_some_and(|relation| {
            self.tables.get(&relation.oid).is_some_and(|table| Arc::ptr_eq(&table.relation, relation))
        });
        if !is_met || (!current.large && current.is_too_large(&self.options)) {
            return Ok(Some(Wait::Change(change)));
        }
        if current.large {
            let rest = self.fold_here(change)?;
            return Ok(rest.map(Wait::Rest).or_else(|| self.is_piece().then_some(Wait::Piece)));
        }
        current.changes.push(change);
        Ok(None)
    }

    /// Whether there is enough of a large transaction to be written.
    fn is_piece(&self) -> bool {
        self.rows >= self.options.batch_rows || self.bytes > self.options.held_bytes.min(self.options.batch_bytes)
    }

    /// Does what [`Applier::hold`] could not.
    async fn wait(&mut self, wait: Wait) -> Result<(), ApplyError> {
        match wait {
            Wait::Change(change) => self.change(change).await?,
            Wait::Rest(rest) => self.fold_there(rest).await?,
            Wait::Piece => {}
        }
        if self.is_large() && self.is_piece() { self.give(None).await } else { Ok(()) }
    }

    /// A change of a table that was not met, or that makes its transaction too large to be kept.
    async fn change(&mut self, change: Change) -> Result<(), ApplyError> {
        let lsn = self.current.as_ref().map_or(self.ahead.lsn, |current| current.begin.commit_lsn);
        match &change {
            Change::Insert { relation, .. } | Change::Update { relation, .. } | Change::Delete { relation, .. } => {
                self.meet(relation, lsn).await?;
            }
            Change::Truncate { relations, .. } => {
                for relation in relations {
                    self.meet(relation, lsn).await?;
                }
            }
            Change::Message { .. } => {}
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        current.changes.push(change);
        if !current.large && !current.is_too_large(&self.options) {
            return Ok(());
        }
        // It is written before its end is known.
        let changes = std::mem::take(&mut current.changes);
        if !std::mem::replace(&mut current.large, true) {
            self.commit_batch().await?;
            // Whatever fails from here on is of this transaction.
            self.server.writer().await?;
        }
        for change in changes {
            if let Some(rest) = self.fold_here(change)? {
                self.fold_there(rest).await?;
            }
        }
        Ok(())
    }

    /// The changes of a transaction that ends here, which are still to be folded.
    fn held(&mut self, commit: &Commit) -> Result<Vec<Change>, ApplyError> {
        let Some(current) = &mut self.current else {
            return Err(senseless(commit.end_lsn, "the end of a transaction that never began"));
        };
        if current.begin.commit_lsn != commit.commit_lsn || commit.end_lsn <= commit.commit_lsn {
            return Err(senseless(commit.end_lsn, "the end of another transaction than began"));
        }
        let mut changes = std::mem::take(&mut current.changes);
        if current.skip {
            changes.clear();
        }
        Ok(changes)
    }

    /// A transaction ended, all of which is folded; whether it is time to commit.
    fn end(&mut self, commit: &Commit) -> bool {
        let Some(current) = self.current.take() else { return false };
        if commit.end_lsn <= self.ahead.lsn {
            return false;
        }
        let marker = current.marker.filter(|_| !current.skip);
        self.ahead.lsn = commit.end_lsn;
        if current.skip || (current.count == 0 && marker.is_none()) {
            self.skipped += 1;
        } else {
            self.changed = true;
            self.ahead.transactions += 1;
            self.ahead.changes += current.count;
            self.since.get_or_insert_with(Instant::now);
        }
        if marker.is_some() {
            self.fenced = true;
            self.ahead.marker = marker;
        }
        let full = self.rows >= self.options.batch_rows || self.bytes >= self.options.batch_bytes;
        // While the server is busy there is time to make the batch larger.
        let due = self.rows >= ENOUGH || self.since.is_some_and(|since| since.elapsed() >= self.options.batch_delay);
        let is_time = due && !self.server.is_busy();
        self.fenced || current.large || full || self.skipped >= SKIPPED || is_time
    }

    /// Gives what is folded to the server, to commit at this position or, where there is none, as a part of what comes.
    async fn give(&mut self, commit: Option<(Position, bool)>) -> Result<(), ApplyError> {
        let waiting = self.tables.values_mut().filter(|table| !table.pending.is_empty());
        let tables = waiting.map(|table| (Arc::clone(&table.destination), table.pending.take())).collect();
        self.rows = 0;
        self.bytes = 0;
        // Once its end is known it is like any other.
        let early = commit.is_none() && self.is_early();
        self.server.give(Work { tables, commit, early }).await
    }

    /// Commits what is folded; the end of its last transaction has come. Waits for fences only.
    async fn commit_batch(&mut self) -> Result<(), ApplyError> {
        if self.changed {
            let fenced = std::mem::take(&mut self.fenced);
            self.give(Some((self.ahead.clone(), fenced))).await?;
            self.changed = false;
            self.skipped = 0;
            self.since = None;
            if fenced {
                self.server.writer().await?;
            }
            return Ok(());
        }
        let writer = self.server.writer().await?;
        if self.skipped >= SKIPPED {
            writer.commit_at(&self.ahead, false).await?;
            self.skipped = 0;
        } else {
            writer.reached(&self.ahead);
        }
        Ok(())
    }
}

/// Takes the stream's lock, which lasts as long as the session.
async fn take(session: &Session, options: &Options) -> Result<(), ApplyError> {
    let failed = |error| ApplyError::of("to take the stream", Lsn::default(), error);
    let key = format!("pg_catalog.hashtextextended({}, 1885827694)", text(&format!("stream {}", options.stream)));
    let begun = Instant::now();
    while session.value(&format!("SELECT pg_catalog.pg_try_advisory_lock({key})")).await.map_err(failed)? != "t" {
        if begun.elapsed() > options.patience {
            let holder = format!(
                "SELECT l.pid FROM pg_catalog.pg_locks AS l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                 AND (l.classid::bigint << 32 | l.objid::bigint) = {key}
                 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
            );
            let pid = session.value(&holder).await.map_err(failed)?;
            return Err(ApplyError::Busy { stream: options.stream.clone(), pid });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn senseless(lsn: Lsn, what: &str) -> ApplyError {
    ApplyError::Stream { what: what.to_owned(), lsn }
}
