//! One change into the batch.

use std::sync::Arc;

use super::{Applier, senseless};
use crate::apply::error::ApplyError;
use crate::apply::fold::{Clash, Step};
use crate::apply::pending::{Pending, Took, key_of, row_size, shown_key};
use crate::lsn::Lsn;
use crate::pgoutput::{Cell, Change, Old, Relation, Row};

/// A change of one row.
pub(super) enum RowChange {
    Insert(Row),
    Update(Option<Old>, Row),
    Delete(Old),
}

/// What cannot be folded without the server.
pub(super) enum Rest {
    /// What waits for its table must be written first.
    Row(Arc<Relation>, RowChange),
    /// Names of tables, and what follows them.
    Truncate(Vec<String>, &'static str),
}

impl Applier {
    /// Takes a change of the current transaction into the batch; its relations were met. Gives back what needs the server.
    pub(super) fn fold_here(&mut self, change: Change) -> Result<Option<Rest>, ApplyError> {
        match change {
            Change::Insert { relation, new } => self.fold_row(relation, RowChange::Insert(new)),
            Change::Update { relation, old, new } => self.fold_row(relation, RowChange::Update(old, new)),
            Change::Delete { relation, old } => self.fold_row(relation, RowChange::Delete(old)),
            Change::Message { .. } => Ok(None),
            Change::Truncate { relations, cascade, restart_identity } => {
                let xid = self.current.as_ref().map_or(0, |current| current.begin.xid);
                let tables = relations.iter().filter_map(|relation| self.tables.get(&relation.oid));
                // A copy that saw it is of after it.
                let emptied = tables.filter(|table| !table.is_passed_over(xid, self.ahead.lsn));
                let names: Vec<String> = emptied.map(|table| table.destination.name.clone()).collect();
                let how = match (restart_identity, cascade) {
                    (true, true) => "RESTART IDENTITY CASCADE",
                    (true, false) => "RESTART IDENTITY RESTRICT",
                    (false, true) => "CONTINUE IDENTITY CASCADE",
                    (false, false) => "CONTINUE IDENTITY RESTRICT",
                };
                Ok(if names.is_empty() { None } else { Some(Rest::Truncate(names, how)) })
            }
        }
    }

    /// What [`Applier::fold_here`] gave back.
    pub(super) async fn fold_there(&mut self, rest: Rest) -> Result<(), ApplyError> {
        let (relation, change) = match rest {
            Rest::Row(relation, change) => (relation, change),
            Rest::Truncate(names, how) => {
                // Through CASCADE it may reach any table.
                self.give(None).await?;
                let names = names.join(", ");
                let writer = self.server.writer().await?;
                return writer.run(&format!("to truncate {names}"), &format!("TRUNCATE {names} {how}")).await.map(drop);
            }
        };
        let lsn = self.current.as_ref().map_or(self.ahead.lsn, |current| current.begin.commit_lsn);
        let writer = self.server.writer().await?;
        writer.begin().await?;
        if let Some(table) = self.tables.get_mut(&relation.oid) {
            writer.drain(&table.destination, table.pending.take()).await?;
        }
        match self.fold_row(Arc::clone(&relation), change)? {
            None => Ok(()),
            // An update of the key that did not send everything is applied alone.
            Some(Rest::Row(_, RowChange::Update(Some(Old::Key(old) | Old::Full(old)), new)))
                if new.contains(&Cell::Unchanged) =>
            {
                let Some(table) = self.tables.get(&relation.oid) else { return Ok(()) };
                let writer = self.server.writer().await?;
                writer.move_row(&table.destination, &table.pending.forms, &old, &new, lsn).await
            }
            Some(_) => Err(senseless(lsn, "a row has a column both as text and as binary")),
        }
    }

    fn fold_row(&mut self, relation: Arc<Relation>, mut change: RowChange) -> Result<Option<Rest>, ApplyError> {
        let Some(current) = &self.current else { return Ok(None) };
        let (lsn, xid) = (current.begin.commit_lsn, current.begin.xid);
        let Some(table) = self.tables.get_mut(&relation.oid) else {
            return Err(senseless(lsn, "a change of a table that was not described"));
        };
        // It is in the rows that were copied.
        if table.is_passed_over(xid, self.ahead.lsn) {
            return Ok(None);
        }
        if change.rows().any(|row| row.len() != relation.columns.len()) {
            return Err(senseless(lsn, "a row has another number of columns than its table"));
        }
        change.fill(&relation);
        match change.rows().map(|row| table.pending.takes(row)).max().unwrap_or(Took::AsKnown) {
            Took::AsKnown => {}
            Took::Learning => {
                if let Some(why) = table.unfit() {
                    return Err(ApplyError::Unfit { table: table.destination.shown.clone(), why, lsn });
                }
            }
            Took::Otherwise => return Ok(Some(Rest::Row(relation, change))),
        }
        let size = change.rows().map(row_size).sum::<usize>();
        let destination = &*table.destination;
        let pending = &mut table.pending;
        if destination.key.is_empty() {
            change.count_into(pending, lsn)?;
        } else {
            let key = |row: &Row| {
                key_of(destination, row).ok_or_else(|| senseless(lsn, "a change does not say which row it is of"))
            };
            let (first, second) = match change {
                RowChange::Insert(new) => {
                    if new.contains(&Cell::Unchanged) {
                        return Err(senseless(lsn, "a new row came in parts"));
                    }
                    ((key(&new)?, Step::Insert(new)), None)
                }
                RowChange::Delete(Old::Key(old) | Old::Full(old)) => ((key(&old)?, Step::Delete(old)), None),
                RowChange::Update(None, new) => ((key(&new)?, Step::Update(new)), None),
                RowChange::Update(Some(old), new) => {
                    let (Old::Key(old_row) | Old::Full(old_row)) = &old;
                    let (before, after) = (key(old_row)?, key(&new)?);
                    if before == after {
                        ((after, Step::Update(new)), None)
                    } else if new.contains(&Cell::Unchanged) {
                        return Ok(Some(Rest::Row(relation, RowChange::Update(Some(old), new))));
                    } else {
                        // All of the row is known, so it may as well be another row.
                        let (Old::Key(old) | Old::Full(old)) = old;
                        ((before, Step::Delete(old)), Some((after, Step::Insert(new))))
                    }
                }
            };
            for (key, step) in std::iter::once(first).chain(second) {
                pending.change(key, step, lsn).map_err(|clash| {
                    let (what, row) = match clash {
                        Clash::There(row) => ("it is inserted a second time", row),
                        Clash::Gone(row) => ("it is changed after it was deleted", row),
                    };
                    let key = shown_key(destination, &relation, &row);
                    ApplyError::Conflict { table: destination.shown.clone(), key, what: what.to_owned(), lsn }
                })?;
            }
        }
        self.rows += 1;
        self.bytes += size;
        Ok(None)
    }
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
