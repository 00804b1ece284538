//! Writes folded changes: per table and kind one `COPY` and one statement.
//!
//! Deletions go first, then updates, then insertions. Insertions are copied straight into the table where the server takes the
//! cells as they come. Other changes are copied into a temporary table made from the columns themselves (so types, modifiers and
//! collations agree without being named), and joined from there by the operators of the key's index.
//!
//! Between two consistent states the order of rows does not matter as long as only the key keeps them apart: a row is touched
//! once. Another unique index or an exclusion constraint can refuse a row in the middle of an UPDATE (two rows exchange a
//! value). Then the update is undone and made as a deletion of all of its rows and an insertion of what they become, which
//! no order can refuse; so it is done at once where a column is `GENERATED ALWAYS AS IDENTITY`, which no UPDATE may set.
//! Deferrable constraints are not checked here at all: their triggers are origin-only.

mod bag;
mod layout;

use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use tokio::sync::watch;

use crate::error::PgError;
use crate::lsn::Lsn;
use crate::pgoutput::{Cell, Row};
use crate::session::{Answer, Session};

use layout::Layout;

use super::copy::Format;
use super::destination::Destination;
use super::error::ApplyError;
use super::fold::Op;
use super::known::{position, text};
use super::pending::{Folded, Pending};
use super::{PREFIX, Position};

/// So much is sent to the server in one piece.
const CHUNK: usize = 256 << 10;

const UNIQUE_VIOLATION: &str = "23505";
const EXCLUSION_VIOLATION: &str = "23P01";

/// The destination's session, its temporary tables, and the position's row.
pub(super) struct Writer {
    pub session: Session,
    stream: String,
    /// The position that is committed; also for errors.
    lsn: Lsn,
    publish: watch::Sender<Position>,
    stages: HashMap<Layout, Stage>,
    /// Which target transaction this is, so that a stage knows whether it was used in it.
    transaction: u64,
    open: bool,
}

struct Stage {
    name: String,
    made_in: u64,
    used_in: u64,
}

/// Updates of one set of columns, in a temporary table: its name and layout, the rows, the columns.
type StagedUpdate<'a> = ((String, Layout), &'a [Item<'a>], Vec<usize>);

/// One row on its way: what finds it, and what it becomes.
#[derive(Clone, Copy)]
struct Item<'a> {
    found_by: &'a Row,
    row: &'a Row,
    lsn: Lsn,
}

impl Writer {
    pub(super) fn new(session: Session, stream: &str, publish: watch::Sender<Position>) -> Self {
        let lsn = publish.borrow().lsn;
        Self { session, stream: stream.to_owned(), lsn, publish, stages: HashMap::new(), transaction: 0, open: false }
    }

    pub(super) async fn run(&self, doing: &str, sql: &str) -> Result<Vec<Answer>, ApplyError> {
        self.session.simple(sql).await.map_err(|error| self.failed(doing, error))
    }

    fn failed(&self, doing: &str, error: PgError) -> ApplyError {
        ApplyError::of(doing, self.lsn, error)
    }

    /// Begins the target transaction with the stream's tag, unless it has begun.
    pub(super) async fn begin(&mut self) -> Result<(), ApplyError> {
        if !self.open {
            let tag = text(&format!("applied:{}", self.stream));
            let sql = format!("BEGIN; SELECT pg_catalog.pg_logical_emit_message(true, '{PREFIX}', {tag})");
            self.run("to begin a transaction", &sql).await?;
            self.open = true;
            self.transaction += 1;
        }
        Ok(())
    }

    /// Moves the position's row and commits; in the transaction that is open, or in one of its own, which carries no tag:
    /// there is nothing in it for the other direction.
    pub(super) async fn commit_at(&mut self, to: &Position, wait_for_disk: bool) -> Result<(), ApplyError> {
        let wait = if wait_for_disk { "SET LOCAL synchronous_commit = on;" } else { "" };
        let begin = if self.open { "" } else { "BEGIN;" };
        let sql = format!(
            "{begin} {wait} UPDATE pgrunbook.stream AS s SET lsn = {}, marker = {}, transactions = {}, changes = {},
                 at = pg_catalog.clock_timestamp()
             WHERE s.name = {} AND s.lsn = {}",
            position(to.lsn),
            to.marker.as_deref().map_or_else(|| "NULL".to_owned(), text),
            to.transactions,
            to.changes,
            text(&self.stream),
            position(self.lsn)
        );
        let moved = self.run("to move the position", &sql).await?;
        if affected(&moved) != 1 {
            self.rollback().await?;
            return Err(ApplyError::Usurped { stream: self.stream.clone(), expected: self.lsn });
        }
        self.open = false;
        self.run("to commit", "COMMIT").await?;
        self.lsn = to.lsn;
        self.reached(to);
        if wait_for_disk {
            self.publish.send_modify(|position| position.durable = to.lsn);
        }
        Ok(())
    }

    /// Says that the stream is applied up to here; the position's row may be behind, where there was nothing to write.
    pub(super) fn reached(&self, to: &Position) {
        self.publish.send_modify(|position| *position = Position { durable: position.durable, ..to.clone() });
    }

    pub(super) async fn rollback(&mut self) -> Result<(), ApplyError> {
        if std::mem::take(&mut self.open) {
            // What was made in it goes with it.
            self.stages.retain(|_, stage| stage.made_in != self.transaction);
        }
        self.run("to roll back", "ROLLBACK").await.map(drop)
    }

    /// Writes what waits for a table; the transaction is open.
    pub(super) async fn drain(&mut self, destination: &Destination, pending: Pending) -> Result<(), ApplyError> {
        if !pending.bag.is_empty() {
            return self.bag(destination, pending).await;
        }
        let Pending { forms, rows, .. } = pending;
        let mut sorted: Vec<(Box<[u8]>, Folded)> = rows.into_iter().collect();
        sorted.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let (mut deleted, mut inserted) = (Vec::new(), Vec::new());
        let mut updated: BTreeMap<Vec<usize>, Vec<Item<'_>>> = BTreeMap::new();
        for (_, Folded { op, lsn }) in &sorted {
            let item = Item { found_by: op.row(), row: op.row(), lsn: *lsn };
            match op {
                Op::Delete(_) => deleted.push(item),
                Op::Insert(_) => inserted.push(item),
                Op::Update(row) | Op::Replace(row) => {
                    updated.entry(destination.sets(row)).or_default().push(item);
                }
            }
        }
        if !deleted.is_empty() {
            self.delete(destination, &forms, &deleted).await?;
        }
        if !updated.is_empty() {
            self.update(destination, &forms, updated).await?;
        }
        if !inserted.is_empty() {
            self.insert(destination, &forms, &inserted).await?;
        }
        Ok(())
    }

    /// An update that changes the key and did not send everything: the row is rewritten from what is there.
    pub(super) async fn move_row(
        &mut self,
        destination: &Destination,
        forms: &[Option<Format>],
        old: &Row,
        new: &Row,
        lsn: Lsn,
    ) -> Result<(), ApplyError> {
        let sent: Vec<usize> =
            destination.written.iter().copied().filter(|at| new.get(*at) != Some(&Cell::Unchanged)).collect();
        let items = [Item { found_by: old, row: new, lsn }];
        let staged = self.stage(destination, forms, &sent, destination.key.len(), &items).await?;
        self.run("to set a savepoint", "SAVEPOINT pgrunbook_step").await?;
        self.rewrite(destination, &[(staged, &items, sent)]).await
    }

    async fn delete(
        &mut self,
        destination: &Destination,
        forms: &[Option<Format>],
        items: &[Item<'_>],
    ) -> Result<(), ApplyError> {
        let (name, layout) = self.stage(destination, forms, &[], destination.key.len(), items).await?;
        let found = layout.found(destination);
        // The savepoint is for the second look: what was deleted is not there any more to be told from what never was.
        let sql =
            format!("SAVEPOINT pgrunbook_step; DELETE FROM {} AS t USING {name} AS s WHERE {found}", destination.name);
        let deleted = affected(&self.run(&format!("to delete rows of {}", destination.shown), &sql).await?);
        if deleted != items.len() as u64 {
            self.run("to look again", "ROLLBACK TO SAVEPOINT pgrunbook_step").await?;
            return Err(self.missing(destination, &name, &layout, items, "to be deleted").await);
        }
        self.run("to release a savepoint", "RELEASE SAVEPOINT pgrunbook_step").await.map(drop)
    }

    async fn update(
        &mut self,
        destination: &Destination,
        forms: &[Option<Format>],
        updated: BTreeMap<Vec<usize>, Vec<Item<'_>>>,
    ) -> Result<(), ApplyError> {
        let careful = destination.may_collide || destination.always;
        if !careful {
            for (set, items) in updated {
                let (name, layout) = self.stage(destination, forms, &set, destination.key.len(), &items).await?;
                let done = self
                    .run(&format!("to update rows of {}", destination.shown), &layout.update(destination, &name))
                    .await?;
                if affected(&done) != items.len() as u64 {
                    return Err(self.missing(destination, &name, &layout, &items, "to be updated").await);
                }
            }
            return Ok(());
        }
        let mut staged = Vec::new();
        for (set, items) in &updated {
            let stage = self.stage(destination, forms, set, destination.key.len(), items).await?;
            staged.push((stage, items.as_slice(), set.clone()));
        }
        self.run("to set a savepoint", "SAVEPOINT pgrunbook_step").await?;
        if !destination.always {
            match self.update_staged(destination, &staged).await {
                Ok(()) => {
                    return self.run("to release a savepoint", "RELEASE SAVEPOINT pgrunbook_step").await.map(drop);
                }
                Err(error) if collided(&error) => {
                    self.run("to go back to a savepoint", "ROLLBACK TO SAVEPOINT pgrunbook_step").await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.rewrite(destination, &staged).await
    }

    async fn update_staged(&self, destination: &Destination, staged: &[StagedUpdate<'_>]) -> Result<(), ApplyError> {
        for ((name, layout), items, _) in staged {
            let done = self
                .run(&format!("to update rows of {}", destination.shown), &layout.update(destination, name))
                .await?;
            if affected(&done) != items.len() as u64 {
                return Err(self.missing(destination, name, layout, items, "to be updated").await);
            }
        }
        Ok(())
    }

    /// Updates as a deletion of all rows and an insertion of what they become. A savepoint `pgrunbook_step` is set; it is
    /// released.
    async fn rewrite(&mut self, destination: &Destination, staged: &[StagedUpdate<'_>]) -> Result<(), ApplyError> {
        let whole = self.whole(destination).await?;
        for ((name, layout), items, set) in staged {
            let becomes: Vec<String> = destination
                .written
                .iter()
                .map(|at| match set.iter().position(|set| set == at) {
                    Some(offset) => layout.value(destination, layout.key + offset),
                    None => format!("t.{}", destination.columns[*at].name),
                })
                .chain(destination.extra.iter().map(|name| format!("t.{name}")))
                .collect();
            let sql = format!(
                "WITH gone AS (DELETE FROM {} AS t USING {name} AS s WHERE {} RETURNING {}) \
                 INSERT INTO {whole} SELECT * FROM gone",
                destination.name,
                layout.found(destination),
                becomes.join(", ")
            );
            let done = self.run(&format!("to take rows of {} away", destination.shown), &sql).await?;
            if affected(&done) != items.len() as u64 {
                self.run("to look again", "ROLLBACK TO SAVEPOINT pgrunbook_step").await?;
                return Err(self.missing(destination, name, layout, items, "to be updated").await);
            }
        }
        let sql = format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM {whole}; RELEASE SAVEPOINT pgrunbook_step",
            destination.name,
            destination.all_names()
        );
        self.run(&format!("to put rows of {} back", destination.shown), &sql).await.map(drop).map_err(|error| {
            conflict(destination, error, staged.first().and_then(|(_, items, _)| items.first()).map(|item| item.lsn))
        })
    }

    async fn insert(
        &mut self,
        destination: &Destination,
        forms: &[Option<Format>],
        items: &[Item<'_>],
    ) -> Result<(), ApplyError> {
        let doing = format!("to insert rows into {}", destination.shown);
        let lsn = items.last().map(|item| item.lsn);
        let layout = Layout::new(destination, forms, &destination.written, 0);
        if layout.columns.iter().any(|column| column.cast) {
            let (name, layout) = self.stage(destination, forms, &destination.written, 0, items).await?;
            let values: Vec<String> = (0..layout.columns.len()).map(|at| layout.value(destination, at)).collect();
            let sql = format!(
                "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {name} AS s",
                destination.name,
                destination.written_names(),
                values.join(", ")
            );
            return self.run(&doing, &sql).await.map(drop).map_err(|error| conflict(destination, error, lsn));
        }
        let sql = format!(
            "COPY {} ({}) FROM STDIN {}",
            destination.name,
            destination.written_names(),
            layout.format.option()
        );
        let rows = items.iter().map(|item| (None, *item));
        self.copy(&doing, &sql, &layout, rows).await.map_err(|error| conflict(destination, error, lsn))
    }

    /// Which of the staged rows the destination does not have.
    async fn missing(
        &self,
        destination: &Destination,
        name: &str,
        layout: &Layout,
        items: &[Item<'_>],
        what: &str,
    ) -> ApplyError {
        let columns: Vec<String> =
            (0..layout.key).map(|at| format!("{}::pg_catalog.text", layout.value(destination, at))).collect();
        let sql = format!(
            "SELECT s.n, {} FROM {name} AS s WHERE NOT EXISTS (SELECT FROM {} AS t WHERE {}) ORDER BY s.n LIMIT 1",
            columns.join(", "),
            destination.name,
            layout.found(destination)
        );
        let answers = match self.run("to look again", &sql).await {
            Ok(answers) => answers,
            Err(error) => return error,
        };
        let row = answers.last().and_then(|answer| answer.rows.first()).cloned().unwrap_or_default();
        let mut values = row.into_iter();
        let at: Option<usize> = values.next().flatten().and_then(|n| n.parse().ok());
        let item = at.and_then(|at| items.get(at));
        let key: Vec<String> = destination
            .key
            .iter()
            .zip(values)
            .map(|(key, value)| {
                format!("{}={}", destination.columns[key.column].name, value.unwrap_or_else(|| "NULL".to_owned()))
            })
            .collect();
        ApplyError::Conflict {
            table: destination.shown.clone(),
            key: key.join(", "),
            what: format!("it is {what}, and is not there"),
            lsn: item.map_or(self.lsn, |item| item.lsn),
        }
    }

    /// Brings rows into a temporary table: first what finds them, then what is set.
    async fn stage(
        &mut self,
        destination: &Destination,
        forms: &[Option<Format>],
        set: &[usize],
        key: usize,
        items: &[Item<'_>],
    ) -> Result<(String, Layout), ApplyError> {
        let columns: Vec<usize> =
            destination.key.iter().take(key).map(|key| key.column).chain(set.iter().copied()).collect();
        let layout = Layout::new(destination, forms, &columns, key);
        let rows = items.iter().enumerate().map(|(at, item)| (Some(i32::try_from(at).unwrap_or(i32::MAX)), *item));
        let name = self.staged(destination, &layout, rows).await?;
        Ok((name, layout))
    }

    async fn staged<'a>(
        &mut self,
        destination: &Destination,
        layout: &Layout,
        rows: impl Iterator<Item = (Option<i32>, Item<'a>)>,
    ) -> Result<String, ApplyError> {
        let selected: Vec<String> = layout
            .columns
            .iter()
            .enumerate()
            .map(|(at, staged)| {
                let cast = if staged.cast { "::pg_catalog.text" } else { "" };
                format!("t.{}{cast} AS c{at}", destination.columns[staged.column].name)
            })
            .collect();
        let select = std::iter::once("0 AS n".to_owned()).chain(selected).collect::<Vec<_>>().join(", ");
        let name = self.ready(layout, &select, destination).await?;
        let sql = format!("COPY {name} FROM STDIN {}", layout.format.option());
        self.copy(&format!("to bring changes of {}", destination.shown), &sql, layout, rows).await?;
        Ok(name)
    }

    /// A temporary table of all columns that the destination's table takes.
    async fn whole(&mut self, destination: &Destination) -> Result<String, ApplyError> {
        let layout = Layout {
            table: destination.name.clone(),
            format: Format::Binary,
            columns: Vec::new(),
            key: 0,
            whole: true,
        };
        self.ready(&layout, &destination.all_names(), destination).await
    }

    /// An empty temporary table of this layout.
    async fn ready(&mut self, layout: &Layout, select: &str, destination: &Destination) -> Result<String, ApplyError> {
        let transaction = self.transaction;
        if let Some(stage) = self.stages.get_mut(layout) {
            let name = stage.name.clone();
            let dirty = stage.used_in == transaction;
            stage.used_in = transaction;
            if dirty {
                self.run("to empty a temporary table", &format!("TRUNCATE {name}")).await?;
            }
            return Ok(name);
        }
        let name = format!("pg_temp.pgrunbook_stage_{}", self.stages.len());
        // Emptied when the transaction ends, without a catalog change each time, as TRUNCATE would make.
        let sql = format!(
            "CREATE TEMPORARY TABLE {} ON COMMIT DELETE ROWS AS SELECT {select} FROM {} AS t WITH NO DATA",
            name.replace("pg_temp.", ""),
            destination.name
        );
        self.run(&format!("to make a temporary table for {}", destination.shown), &sql).await?;
        self.stages.insert(layout.clone(), Stage { name: name.clone(), made_in: transaction, used_in: transaction });
        Ok(name)
    }

    async fn copy<'a>(
        &self,
        doing: &str,
        sql: &str,
        layout: &Layout,
        rows: impl Iterator<Item = (Option<i32>, Item<'a>)>,
    ) -> Result<(), ApplyError> {
        let failed = |error: tokio_postgres::Error| self.failed(doing, self.session.error(&error));
        let sink = self.session.client().copy_in::<_, Bytes>(sql).await.map_err(failed)?;
        let mut sink = std::pin::pin!(sink);
        let mut buffer = BytesMut::with_capacity(CHUNK + 4096);
        layout.format.begin(&mut buffer);
        for (count, item) in rows {
            let cells = layout.columns.iter().enumerate().map(|(at, staged)| {
                let row = if at < layout.key { item.found_by } else { item.row };
                row.get(staged.column).unwrap_or(&Cell::Null)
            });
            layout.format.row(&mut buffer, cells, count);
            if buffer.len() >= CHUNK {
                sink.send(buffer.split().freeze()).await.map_err(failed)?;
            }
        }
        layout.format.end(&mut buffer);
        sink.send(buffer.freeze()).await.map_err(failed)?;
        sink.finish().await.map_err(failed).map(drop)
    }
}

/// Rows of the last statement that changed or returned some.
fn affected(answers: &[Answer]) -> u64 {
    answers.last().map_or(0, |answer| answer.affected)
}

fn collided(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Postgres { source, .. }
        if matches!(source.sqlstate(), Some(UNIQUE_VIOLATION | EXCLUSION_VIOLATION)))
}

/// An insertion that found a row in its place, as what it is: the server names the key in its DETAIL.
fn conflict(destination: &Destination, error: ApplyError, lsn: Option<Lsn>) -> ApplyError {
    let (true, Some(lsn)) = (collided(&error), lsn) else { return error };
    match error {
        ApplyError::Postgres { source: PgError::Server(server), .. } => {
            let key = server.detail.clone().unwrap_or_default();
            let what = format!("it is to be inserted, and another is in its place ({})", server.message);
            ApplyError::Conflict { table: destination.shown.clone(), key, what, lsn }
        }
        error => error,
    }
}
