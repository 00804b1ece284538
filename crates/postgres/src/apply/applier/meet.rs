//! A table is met for the first time, or again after the server described it anew.

use std::sync::Arc;

use super::Applier;
use crate::apply::destination::{self, Misfit};
use crate::apply::error::ApplyError;
use crate::apply::known;
use crate::apply::pending::{Pending, Table};
use crate::lsn::Lsn;
use crate::pgoutput::Relation;

impl Applier {
    /// Makes sure that a relation is what it was, and has a place.
    pub(super) async fn meet(&mut self, relation: &Arc<Relation>, lsn: Lsn) -> Result<(), ApplyError> {
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
        let found = destination::find(&self.server.writer().await?.session, relation, &schema).await;
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
            match self.current.as_mut().and_then(|current| current.early.as_mut()) {
                // It is so only if the transaction is committed.
                Some(early) => early.met.push(Arc::clone(relation)),
                None => self.remember(relation).await?,
            }
        }
        let mut rules = self.options.pass_over.iter();
        let pass_over = rules.find(|rule| rule.schema == relation.schema && rule.table == relation.name).cloned();
        let table = Table { relation: Arc::clone(relation), destination, pass_over, pending: Pending::default() };
        self.tables.insert(relation.oid, table);
        Ok(())
    }

    pub(super) async fn remember(&mut self, relation: &Relation) -> Result<(), ApplyError> {
        let sql = known::remember_sql(&self.options.stream, &self.known, relation);
        self.server.writer().await?.run("to remember a table", &sql).await?;
        self.known.retain(|known| !known::same(known, relation));
        self.known.push(relation.clone());
        Ok(())
    }

    /// Everything before the current transaction is committed, nothing of it, and then the error is given.
    async fn stop_before(&mut self, error: ApplyError) -> Result<(), ApplyError> {
        if self.is_large() {
            self.server.writer().await?.rollback().await?;
        } else {
            self.commit_batch().await?;
            self.server.writer().await?;
        }
        Err(error)
    }
}
