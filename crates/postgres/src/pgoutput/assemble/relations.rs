//! The tables as the server described them, and changes in their terms.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::decode::Message;
use super::super::{Change, Old, Relation, Row};
use super::AssembleError;

/// By the source's OID. A copy is cheap.
#[derive(Debug, Clone, Default)]
pub(super) struct Relations(HashMap<u32, Arc<Relation>>);

impl Relations {
    pub(super) fn learn(&mut self, relation: Relation) {
        // What did not change stays the same value, so that it can be compared by address.
        if self.0.get(&relation.oid).is_none_or(|known| **known != relation) {
            self.0.insert(relation.oid, Arc::new(relation));
        }
    }

    /// The change that a message tells; `None` where it only describes, or is no part of a transaction.
    pub(super) fn change(&mut self, message: Message) -> Result<Option<Change>, AssembleError> {
        Ok(Some(match message {
            Message::Relation { relation, .. } => {
                self.learn(relation);
                return Ok(None);
            }
            Message::Insert { relation, new, .. } => Change::Insert { relation: self.fitting(relation, &[&new])?, new },
            Message::Update { relation, old, new, .. } => {
                let relation = match &old {
                    None => self.fitting(relation, &[&new])?,
                    Some(Old::Key(row) | Old::Full(row)) => self.fitting(relation, &[row, &new])?,
                };
                Change::Update { relation, old, new }
            }
            Message::Delete { relation, old, .. } => {
                let (Old::Key(row) | Old::Full(row)) = &old;
                Change::Delete { relation: self.fitting(relation, &[row])?, old }
            }
            Message::Truncate { relations, cascade, restart_identity, .. } => {
                let relations = relations.into_iter().map(|oid| self.fitting(oid, &[])).collect::<Result<_, _>>()?;
                Change::Truncate { relations, cascade, restart_identity }
            }
            Message::Logical { transactional: true, prefix, content, .. } => Change::Message { prefix, content },
            Message::Logical { .. } | Message::Type { .. } => return Ok(None),
            Message::BeginPrepare(prepared)
            | Message::Prepare(prepared)
            | Message::CommitPrepared(prepared)
            | Message::StreamPrepare(prepared) => return Err(AssembleError::TwoPhase { gid: prepared.gid }),
            Message::RollbackPrepared { gid, .. } => return Err(AssembleError::TwoPhase { gid }),
            _ => return Err(AssembleError::Order("the end of a block where none is open")),
        }))
    }

    /// The relation, whose columns these rows have.
    fn fitting(&self, oid: u32, rows: &[&Row]) -> Result<Arc<Relation>, AssembleError> {
        let relation = self.0.get(&oid).ok_or(AssembleError::UnknownRelation { oid })?;
        let expected = relation.columns.len();
        match rows.iter().find(|row| row.len() != expected) {
            None => Ok(relation.clone()),
            Some(row) => {
                let name = format!("{}.{}", relation.schema, relation.name);
                Err(AssembleError::Width { relation: name, expected, found: row.len() })
            }
        }
    }
}
