//! The applier: takes events, makes batches, keeps the position.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lsn::Lsn;
use crate::options::ConnectOptions;
use crate::pgoutput::{Begin, Cell, Change, Commit, Event, Old, Relation, Row};
use crate::session::Session;

use super::destination::{self, Misfit};
use super::error::ApplyError;
use super::fold::{Clash, Op, Step};
use super::known::{self, position, text};
use super::pending::{Pending, Table, Took, key_of, row_size, shown_key};
use super::write::Writer;
use super::{Options, Position, Touch, Touched};

/// Messages of this prefix are ours.
const PREFIX: &str = "pgrunbook";

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

/// Applies one stream to one database.
///
/// Commits do not wait for the disk (`synchronous_commit = off`). That is safe because the position is in the same
/// transaction: a crash of the destination loses the last batches together with their positions, never one without the
/// other, and the stream is read again from what is left. Hence what was read must be kept until [`Position::durable`] has
/// passed it. A batch that ends with a fence waits for the disk.
pub struct Applier {
    writer: Writer,
    options: Options,
    tables: HashMap<u32, Table>,
    known: Vec<Relation>,
    committed: Position,
    /// With what is folded and not yet committed.
    ahead: Position,
    /// Whether there is anything of `ahead` to be written, or only a position that moved.
    changed: bool,
    skipped: u64,
    rows: usize,
    bytes: usize,
    since: Option<Instant>,
    current: Option<Current>,
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
        let committed = Position {
            lsn,
            durable: Lsn::default(),
            marker: cell(1),
            transactions: cell(2).and_then(|count| count.parse().ok()).unwrap_or_default(),
            changes: cell(3).and_then(|count| count.parse().ok()).unwrap_or_default(),
        };
        let known = known::load(&session, &options.stream).await.map_err(failed)?;
        let mut applier = Self {
            writer: Writer::new(session, lsn),
            options,
            tables: HashMap::new(),
            known,
            ahead: committed.clone(),
            committed,
            changed: false,
            skipped: 0,
            rows: 0,
            bytes: 0,
            since: None,
            current: None,
            stopped: false,
        };
        // What the row says was perhaps committed by a process that did not wait for the disk.
        applier.write_position(true).await?;
        Ok(applier)
    }

    /// What is committed.
    pub fn position(&self) -> Position {
        self.committed.clone()
    }

    /// The server process that applies.
    pub fn backend_pid(&self) -> i32 {
        self.writer.session.backend_pid()
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

    /// Takes the next event. May commit what came before it.
    ///
    /// # Errors
    /// [`ApplyError`]; after one, the applier is at its end.
    pub async fn push(&mut self, event: Event) -> Result<(), ApplyError> {
        if self.stopped {
            return Err(ApplyError::Stopped);
        }
        // Cancellation: dropped in the middle, the connection may be anywhere; only a new applier knows where.
        self.stopped = true;
        match event {
            Event::Begin(begin) => self.begin(begin)?,
            Event::Change(change) => self.change(change).await?,
            Event::Commit(commit) => self.end(commit).await?,
        }
        self.stopped = false;
        Ok(())
    }

    /// Commits all transactions of the source whose end has come. Where they changed nothing (they were skipped), only the
    /// position in memory moves, which [`Applier::settle`] writes.
    ///
    /// # Errors
    /// As [`Applier::push`].
    pub async fn flush(&mut self) -> Result<Position, ApplyError> {
        if self.stopped {
            return Err(ApplyError::Stopped);
        }
        if !self.current.as_ref().is_some_and(|current| current.large) {
            self.stopped = true;
            self.commit_batch().await?;
            self.stopped = false;
        }
        Ok(self.position())
    }

    /// [`Applier::flush`], and waits until the destination's disk has it: [`Position::durable`] is then [`Position::lsn`].
    ///
    /// # Errors
    /// As [`Applier::push`].
    pub async fn settle(&mut self) -> Result<Position, ApplyError> {
        self.flush().await?;
        let large = self.current.as_ref().is_some_and(|current| current.large);
        if !large && (self.committed.durable < self.committed.lsn || self.skipped > 0) {
            self.stopped = true;
            self.write_position(true).await?;
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
            changes: Vec::new(),
            bytes: 0,
            count: 0,
            marker: None,
            skip,
            first: true,
            large: false,
        });
        Ok(())
    }

    async fn change(&mut self, change: Change) -> Result<(), ApplyError> {
        let Some(current) = &mut self.current else {
            return Err(senseless(self.ahead.lsn, "a change outside of a transaction"));
        };
        let first = std::mem::replace(&mut current.first, false);
        if current.skip {
            return Ok(());
        }
        let (size, rows) = match &change {
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
                return Ok(());
            }
            Change::Insert { new, .. } => (row_size(new), 1),
            Change::Update { old, new, .. } => {
                let before = old.as_ref().map_or(0, |(Old::Key(row) | Old::Full(row))| row_size(row));
                (before + row_size(new), 1)
            }
            Change::Delete { old: Old::Key(row) | Old::Full(row), .. } => (row_size(row), 1),
            Change::Truncate { relations, .. } => (64 * relations.len(), 1),
        };
        current.bytes += size;
        current.count += rows;
        let (large, lsn) = (current.large, current.begin.commit_lsn);
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
        if large {
            return self.fold(change).await;
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        current.changes.push(change);
        if current.bytes > self.options.held_bytes {
            current.large = true;
            let changes = std::mem::take(&mut current.changes);
            self.commit_batch().await?;
            for change in changes {
                self.fold(change).await?;
            }
        }
        Ok(())
    }

    async fn end(&mut self, commit: Commit) -> Result<(), ApplyError> {
        let Some(current) = &mut self.current else {
            return Err(senseless(commit.end_lsn, "the end of a transaction that never began"));
        };
        if current.begin.commit_lsn != commit.commit_lsn || commit.end_lsn <= commit.commit_lsn {
            return Err(senseless(commit.end_lsn, "the end of another transaction than began"));
        }
        let changes = std::mem::take(&mut current.changes);
        let (skip, large, count) = (current.skip, current.large, current.count);
        let marker = if skip { None } else { current.marker.take() };
        for change in changes {
            if !skip {
                self.fold(change).await?;
            }
        }
        self.current = None;
        if commit.end_lsn <= self.ahead.lsn {
            return Ok(());
        }
        self.ahead.lsn = commit.end_lsn;
        if skip || (count == 0 && marker.is_none()) {
            self.skipped += 1;
        } else {
            self.changed = true;
            self.ahead.transactions += 1;
            self.ahead.changes += count;
            self.since.get_or_insert_with(Instant::now);
        }
        let fenced = marker.is_some();
        if fenced {
            self.ahead.marker = marker;
        }
        let full = self.rows >= self.options.batch_rows || self.bytes >= self.options.batch_bytes;
        let late = self.since.is_some_and(|since| since.elapsed() >= self.options.batch_delay);
        if fenced || large || full || late || self.skipped >= SKIPPED {
            self.commit_batch().await?;
        }
        Ok(())
    }

    /// Makes sure that a relation is what it was, and has a place.
    async fn meet(&mut self, relation: &Arc<Relation>, lsn: Lsn) -> Result<(), ApplyError> {
        if let Some(table) = self.tables.get_mut(&relation.oid) {
            if Arc::ptr_eq(&table.relation, relation) {
                return Ok(());
            }
            if table.relation == *relation {
                table.relation = Arc::clone(relation);
                return Ok(());
            }
        }
        let shown = format!("{}.{}", relation.schema, relation.name);
        let before = self.known.iter().find(|known| known::same(known, relation)).cloned();
        if let Some(before) = &before
            && **relation != *before
        {
            let difference = known::difference(before, relation);
            let (before, after) = (Some(Box::new(before.clone())), Box::new(Relation::clone(relation)));
            return self
                .stop_before(ApplyError::RelationChanged { table: shown, before, after, difference, lsn })
                .await;
        }
        let schema = self.options.rename.schema(&relation.schema).to_owned();
        let found = destination::find(&self.writer.session, relation, &schema).await;
        let destination = match found {
            Ok(destination) => Arc::new(destination),
            Err(Misfit::Absent(difference)) => {
                let after = Box::new(Relation::clone(relation));
                return self
                    .stop_before(ApplyError::RelationChanged {
                        table: shown,
                        before: before.map(Box::new),
                        after,
                        difference,
                        lsn,
                    })
                    .await;
            }
            Err(Misfit::Unfit(why)) => {
                return self
                    .stop_before(ApplyError::Unfit { table: format!("{schema}.{}", relation.name), why, lsn })
                    .await;
            }
            Err(Misfit::Failed(error)) => return Err(ApplyError::of(format!("to look at {shown}"), lsn, error)),
        };
        if before.is_none() {
            self.remember(relation).await?;
        }
        let rule =
            self.options.merge.iter().position(|rule| rule.schema == relation.schema && rule.table == relation.name);
        let table = Table { relation: Arc::clone(relation), destination, rule, pending: Pending::default() };
        self.tables.insert(relation.oid, table);
        Ok(())
    }

    async fn remember(&mut self, relation: &Relation) -> Result<(), ApplyError> {
        let sql = known::remember_sql(&self.options.stream, &self.known, relation);
        self.writer.run("to remember a table", &sql).await?;
        self.known.retain(|known| !known::same(known, relation));
        self.known.push(relation.clone());
        Ok(())
    }

    /// Everything before the current transaction is committed, nothing of it, and then the error is given.
    async fn stop_before(&mut self, error: ApplyError) -> Result<(), ApplyError> {
        if self.current.as_ref().is_some_and(|current| current.large) {
            self.writer.rollback().await?;
        } else {
            self.commit_batch().await?;
        }
        Err(error)
    }

    /// Takes a change into the batch. Its relations were met.
    async fn fold(&mut self, change: Change) -> Result<(), ApplyError> {
        let Some(current) = &self.current else { return Ok(()) };
        let (lsn, xid) = (current.begin.commit_lsn, current.begin.xid);
        match change {
            Change::Insert { relation, new } => self.fold_row(&relation, RowChange::Insert(new), lsn, xid).await?,
            Change::Update { relation, old, new } => {
                self.fold_row(&relation, RowChange::Update(old, new), lsn, xid).await?;
            }
            Change::Delete { relation, old } => self.fold_row(&relation, RowChange::Delete(old), lsn, xid).await?,
            Change::Truncate { relations, cascade, restart_identity } => {
                self.truncate(&relations, cascade, restart_identity, xid).await?;
            }
            Change::Message { .. } => {}
        }
        if self.bytes > self.options.held_bytes {
            self.drain_all().await?;
        }
        Ok(())
    }

    async fn truncate(
        &mut self,
        relations: &[Arc<Relation>],
        cascade: bool,
        restart_identity: bool,
        xid: u32,
    ) -> Result<(), ApplyError> {
        // A copy that saw it is of after it.
        let named: Vec<Arc<Relation>> =
            relations.iter().filter(|relation| !self.is_seen_by_copy(relation, xid)).cloned().collect();
        let names: Vec<String> = named
            .iter()
            .filter_map(|relation| self.tables.get(&relation.oid).map(|table| table.destination.name.clone()))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        // Through CASCADE it may reach any table.
        self.drain_all().await?;
        self.begin_target().await?;
        let sql = format!(
            "TRUNCATE {} {} {}",
            names.join(", "),
            if restart_identity { "RESTART IDENTITY" } else { "CONTINUE IDENTITY" },
            if cascade { "CASCADE" } else { "RESTRICT" }
        );
        self.writer.run(&format!("to truncate {}", names.join(", ")), &sql).await?;
        if let Some(seen) = &mut self.options.seen {
            seen(Touched::Truncated(&named));
        }
        Ok(())
    }

    fn is_seen_by_copy(&self, relation: &Relation, xid: u32) -> bool {
        let rule = self.tables.get(&relation.oid).and_then(|table| self.options.merge.get(table.rule?));
        rule.is_some_and(|rule| self.ahead.lsn <= rule.until && rule.snapshot.sees(xid))
    }

    async fn fold_row(
        &mut self,
        relation: &Arc<Relation>,
        mut change: RowChange,
        lsn: Lsn,
        xid: u32,
    ) -> Result<(), ApplyError> {
        // It is in the rows that were copied, exactly.
        if self.is_seen_by_copy(relation, xid) {
            return Ok(());
        }
        let tolerant = false;
        let Some(table) = self.tables.get(&relation.oid) else {
            return Err(senseless(lsn, "a change of a table that was not described"));
        };
        let destination = Arc::clone(&table.destination);
        if change.rows().any(|row| row.len() != relation.columns.len()) {
            return Err(senseless(lsn, "a row has another number of columns than its table"));
        }
        change.fill(relation);
        self.make_room(relation, &change, tolerant, lsn).await?;
        self.rows += 1;
        self.bytes += change.rows().map(row_size).sum::<usize>();
        let Some(table) = self.tables.get_mut(&relation.oid) else { return Ok(()) };
        let pending = &mut table.pending;
        pending.tolerant = tolerant;
        if destination.key.is_empty() {
            // Copied whole, as ranges of it cannot be found again.
            return if tolerant { Ok(()) } else { change.count_into(pending, lsn) };
        }
        let key = |row: &Row| {
            key_of(&destination, row).ok_or_else(|| senseless(lsn, "a change does not say which row it is of"))
        };
        let steps = match change {
            RowChange::Insert(new) => {
                if new.contains(&Cell::Unchanged) {
                    return Err(senseless(lsn, "a new row came in parts"));
                }
                [Some((key(&new)?, Step::Insert(new))), None]
            }
            RowChange::Delete(Old::Key(old) | Old::Full(old)) => [Some((key(&old)?, Step::Delete(old))), None],
            RowChange::Update(None, new) => [Some((key(&new)?, Step::Update(new))), None],
            RowChange::Update(Some(Old::Key(old) | Old::Full(old)), new) => {
                let (before, after) = (key(&old)?, key(&new)?);
                if before == after {
                    [Some((after, Step::Update(new))), None]
                } else if !new.contains(&Cell::Unchanged) {
                    // All of the row is known, so it may as well be another row.
                    [Some((before, Step::Delete(old))), Some((after, Step::Insert(new)))]
                } else if self.move_row(relation, &old, &new, tolerant, lsn).await? {
                    return Ok(());
                } else {
                    [Some((before, Step::Delete(old))), Some((after, Step::Update(new)))]
                }
            }
        };
        let Some(table) = self.tables.get_mut(&relation.oid) else { return Ok(()) };
        table.pending.tolerant = tolerant;
        for (key, step) in steps.into_iter().flatten() {
            let key_row = match &step {
                Step::Insert(row) | Step::Update(row) | Step::Delete(row) => shown_key(&destination, relation, row),
            };
            table.pending.change(key, step, lsn).map_err(|clash| ApplyError::Conflict {
                table: destination.shown.clone(),
                key: key_row,
                what: match clash {
                    Clash::There => "it is inserted a second time",
                    Clash::Gone => "it is changed after it was deleted",
                }
                .to_owned(),
                lsn,
            })?;
        }
        Ok(())
    }

    /// Writes what waits for a table where the change cannot join it: it is in another form, or under another rule.
    async fn make_room(
        &mut self,
        relation: &Relation,
        change: &RowChange,
        tolerant: bool,
        lsn: Lsn,
    ) -> Result<(), ApplyError> {
        let Some(table) = self.tables.get_mut(&relation.oid) else { return Ok(()) };
        let mut took = change.rows().map(|row| table.pending.takes(row)).max().unwrap_or(Took::AsKnown);
        if took == Took::Otherwise || (table.pending.tolerant != tolerant && !table.pending.is_empty()) {
            self.drain_one(relation.oid).await?;
            let Some(table) = self.tables.get_mut(&relation.oid) else { return Ok(()) };
            took = change.rows().map(|row| table.pending.takes(row)).max().unwrap_or(Took::AsKnown);
        }
        let Some(table) = self.tables.get(&relation.oid) else { return Ok(()) };
        match took {
            Took::AsKnown => Ok(()),
            Took::Learning => match table.unfit() {
                None => Ok(()),
                Some(why) => Err(ApplyError::Unfit { table: table.destination.shown.clone(), why, lsn }),
            },
            Took::Otherwise => Err(senseless(lsn, "a row has a column both as text and as binary")),
        }
    }

    /// Applies an update of the key that did not send everything, alone. Whether it did: else a copy has brought the new row
    /// already, and the old one only has to go.
    async fn move_row(
        &mut self,
        relation: &Relation,
        old: &Row,
        new: &Row,
        tolerant: bool,
        lsn: Lsn,
    ) -> Result<bool, ApplyError> {
        let forms = self.tables.get(&relation.oid).map(|table| table.pending.forms.clone()).unwrap_or_default();
        self.drain_one(relation.oid).await?;
        self.begin_target().await?;
        let Some(table) = self.tables.get_mut(&relation.oid) else { return Ok(true) };
        table.pending.forms.clone_from(&forms);
        if tolerant && self.writer.has(table, &forms, new).await? {
            return Ok(false);
        }
        self.writer.move_row(table, &forms, old, new, tolerant, lsn).await?;
        if let Some(seen) = &mut self.options.seen {
            seen(Touched::Row { relation: &table.relation, key: old, change: Touch::Deleted });
            seen(Touched::Row { relation: &table.relation, key: new, change: Touch::Inserted });
        }
        Ok(true)
    }

    async fn begin_target(&mut self) -> Result<(), ApplyError> {
        let tag = text(&format!("applied:{}", self.options.stream));
        self.writer.begin(&format!("SELECT pg_catalog.pg_logical_emit_message(true, '{PREFIX}', {tag})")).await
    }

    async fn drain_all(&mut self) -> Result<(), ApplyError> {
        let waiting: Vec<u32> =
            self.tables.iter().filter(|(_, table)| !table.pending.is_empty()).map(|(oid, _)| *oid).collect();
        for oid in waiting {
            self.drain_one(oid).await?;
        }
        self.rows = 0;
        self.bytes = 0;
        Ok(())
    }

    async fn drain_one(&mut self, oid: u32) -> Result<(), ApplyError> {
        let Some(table) = self.tables.get_mut(&oid) else { return Ok(()) };
        let pending = std::mem::take(&mut table.pending);
        if pending.is_empty() {
            return Ok(());
        }
        self.begin_target().await?;
        let Some(table) = self.tables.get(&oid) else { return Ok(()) };
        if let Some(seen) = &mut self.options.seen {
            for folded in pending.rows.values() {
                let change = match &folded.op {
                    Op::Insert(_) => Touch::Inserted,
                    Op::Update(_) | Op::Replace(_) => Touch::Updated,
                    Op::Delete(_) => Touch::Deleted,
                };
                seen(Touched::Row { relation: &table.relation, key: folded.op.row(), change });
            }
            for counted in pending.bag.values() {
                let change = if counted.more < 0 { Touch::Deleted } else { Touch::Inserted };
                for _ in 0..counted.more.unsigned_abs() {
                    seen(Touched::Row { relation: &table.relation, key: &counted.row, change });
                }
            }
        }
        self.writer.drain(table, pending).await
    }

    /// Commits what is folded; the end of its last transaction has come.
    async fn commit_batch(&mut self) -> Result<(), ApplyError> {
        if !self.changed {
            let durable = self.committed.durable;
            self.committed = Position { durable, ..self.ahead.clone() };
            return if self.skipped >= SKIPPED { self.write_position(false).await } else { Ok(()) };
        }
        self.begin_target().await?;
        self.drain_all().await?;
        let fenced = self.ahead.marker != self.committed.marker;
        self.write_position(fenced).await
    }

    /// Moves the position's row to `ahead` and commits; in the transaction that is open, or in one of its own, which carries
    /// no tag: there is nothing in it for the other direction.
    async fn write_position(&mut self, wait_for_disk: bool) -> Result<(), ApplyError> {
        let wait = if wait_for_disk { "SET LOCAL synchronous_commit = on;" } else { "" };
        let begin = if self.writer.is_open() { "" } else { "BEGIN;" };
        let sql = format!(
            "{begin} {wait} UPDATE pgrunbook.stream AS s SET lsn = {}, marker = {}, transactions = {}, changes = {},
                 at = pg_catalog.clock_timestamp()
             WHERE s.name = {} AND s.lsn = {}",
            position(self.ahead.lsn),
            self.ahead.marker.as_deref().map_or_else(|| "NULL".to_owned(), text),
            self.ahead.transactions,
            self.ahead.changes,
            text(&self.options.stream),
            position(self.writer.lsn)
        );
        let moved = self.writer.run("to move the position", &sql).await?;
        if moved.last().is_none_or(|answer| answer.affected != 1) {
            self.writer.rollback().await?;
            let (stream, expected) = (self.options.stream.clone(), self.writer.lsn);
            return Err(ApplyError::Usurped { stream, expected });
        }
        self.writer.commit().await?;
        let durable = if wait_for_disk { self.ahead.lsn } else { self.committed.durable };
        self.committed = Position { durable, ..self.ahead.clone() };
        self.ahead.durable = durable;
        self.writer.lsn = self.ahead.lsn;
        self.changed = false;
        self.skipped = 0;
        self.since = None;
        Ok(())
    }
}

/// A change of one row.
enum RowChange {
    Insert(Row),
    Update(Option<Old>, Row),
    Delete(Old),
}

impl RowChange {
    fn rows(&self) -> impl Iterator<Item = &Row> {
        let (old, new) = match self {
            Self::Insert(new) => (None, Some(new)),
            Self::Update(old, new) => (old.as_ref(), Some(new)),
            Self::Delete(old) => (Some(old), None),
        };
        old.map(|(Old::Key(row) | Old::Full(row))| row).into_iter().chain(new)
    }

    /// Puts what the old row says into what the new row left out.
    fn fill(&mut self, relation: &Relation) {
        let Self::Update(Some(old), new) = self else { return };
        let full = matches!(old, Old::Full(_));
        let (Old::Key(old) | Old::Full(old)) = old;
        for ((cell, old), column) in new.iter_mut().zip(old).zip(&relation.columns) {
            if *cell == Cell::Unchanged && (full || column.is_key) {
                cell.clone_from(old);
            }
        }
    }

    /// Of a table without a key: a row less, a row more.
    fn count_into(self, pending: &mut Pending, lsn: Lsn) -> Result<(), ApplyError> {
        let (old, new) = match self {
            Self::Insert(new) => (None, Some(new)),
            Self::Update(Some(Old::Full(old)), new) => (Some(old), Some(new)),
            Self::Delete(Old::Full(old)) => (Some(old), None),
            Self::Update(..) | Self::Delete(_) => {
                return Err(senseless(lsn, "a change of a table without a key does not say which row it is of"));
            }
        };
        for (row, more) in old.map(|row| (row, -1)).into_iter().chain(new.map(|row| (row, 1))) {
            if row.contains(&Cell::Unchanged) {
                return Err(senseless(lsn, "a row of a table without a key came in parts"));
            }
            pending.count(row, more, lsn);
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
