//! A transaction that is applied while the source still sends it.
//!
//! It is kept in memory until it is as large as a batch. Then it is written in pieces, as one that is too large to be kept, with
//! the difference that it can be taken back: by a ROLLBACK, whatever the reason, after which it comes again, whole, if it
//! commits. So nothing that goes wrong here is an error of the stream, unless the connection is lost: in the other attempt it
//! will go wrong again, with a commit to name, or it will not.
//!
//! The position moves in the same transaction, as always; before the source's commit there is none to move to.

use std::sync::Arc;
use std::time::Instant;

use super::{Applier, Current, Wait, senseless};
use crate::apply::Options;
use crate::apply::error::ApplyError;
use crate::apply::known;
use crate::apply::pending::Pending;
use crate::lsn::Lsn;
use crate::pgoutput::{self, Begin, Change, Commit, Relation, Verdict};

/// What is to be known of it until its end is known.
pub(super) struct Early {
    verdict: Verdict,
    /// When something came of it.
    last: Instant,
    /// Tables that were never seen before, which are remembered when it commits.
    pub met: Vec<Arc<Relation>>,
}

impl Current {
    /// Whether it is to be written before its end is known.
    pub(super) fn is_too_large(&self, options: &Options) -> bool {
        let is_batch = || self.changes.len() >= options.batch_rows || self.bytes > options.batch_bytes;
        self.bytes > options.held_bytes || (self.early.is_some() && is_batch())
    }
}

impl Applier {
    /// Takes back what was applied of a transaction that the source has not committed, with its locks; it comes again when it
    /// commits. Whoever waits for nobody to write on the destination needs this, and whoever must see all changes of it.
    ///
    /// # Errors
    /// As [`Applier::push`].
    pub async fn let_go(&mut self) -> Result<(), ApplyError> {
        if self.stopped {
            return Err(ApplyError::Stopped);
        }
        self.stopped = true;
        if self.is_early() {
            self.undo().await?;
            self.void = true;
        }
        self.stopped = false;
        Ok(())
    }

    pub(super) fn is_early(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.early.is_some())
    }

    /// Whether it is written, and nothing came of it for too long.
    pub(super) fn is_stale(&self) -> bool {
        let early = self.current.as_ref().filter(|current| current.large).and_then(|current| current.early.as_ref());
        early.is_some_and(|early| early.last.elapsed() >= self.options.early_patience)
    }

    /// [`Applier::hold`], for a change of an open transaction.
    pub(super) fn hold_early(&mut self, change: Change) -> Result<Option<Wait>, ApplyError> {
        if self.void {
            return Ok(None);
        }
        let Some(early) = self.current.as_mut().and_then(|current| current.early.as_mut()) else {
            return Err(senseless(self.ahead.lsn, "a change of an open transaction that never began"));
        };
        early.last = Instant::now();
        self.hold(change)
    }

    /// Does what [`Applier::hold_early`] could not.
    pub(super) async fn wait_early(&mut self, held: Result<Option<Wait>, ApplyError>) -> Result<(), ApplyError> {
        let done = match held {
            // It would keep readers out until the source commits.
            Ok(Some(Wait::Change(Change::Truncate { .. }))) => return self.take_back(None).await,
            Ok(Some(wait)) => self.wait(wait).await,
            held => held.map(drop),
        };
        match done {
            Err(error) => self.take_back(Some(error)).await,
            Ok(()) => Ok(()),
        }
    }

    /// Any other event of an open transaction; gives back its commit, if it is to be ended like others.
    pub(super) async fn early(&mut self, event: pgoutput::Early) -> Result<Option<Commit>, ApplyError> {
        match event {
            pgoutput::Early::Begin { xid, verdict } => {
                self.void = false;
                // Its commit lies behind everything that is applied.
                self.begin(Begin { xid, commit_lsn: Lsn(u64::MAX), ..Begin::default() })?;
                if let Some(current) = &mut self.current {
                    current.early = Some(Early { verdict, last: Instant::now(), met: Vec::new() });
                }
            }
            pgoutput::Early::Change(change) => {
                let held = self.hold_early(change);
                self.wait_early(held).await?;
            }
            pgoutput::Early::Undo => {
                self.undo().await?;
                self.void = false;
            }
            pgoutput::Early::Commit { begin, commit } => return self.end_early(begin, commit).await,
        }
        Ok(None)
    }

    async fn end_early(&mut self, begin: Begin, commit: Commit) -> Result<Option<Commit>, ApplyError> {
        if std::mem::take(&mut self.void) {
            return Ok(None);
        }
        let Some(early) = self.current.as_ref().and_then(|current| current.early.as_ref()) else {
            return Err(senseless(commit.end_lsn, "the end of an open transaction that never began"));
        };
        let verdict = early.verdict.clone();
        // Whoever tells it makes sure that it was not applied before. If it was, it comes again and is passed over as any other.
        if begin.commit_lsn < self.ahead.lsn {
            return self.undo().await.map(|()| None);
        }
        if let Err(error) = self.write_early().await {
            self.take_back(Some(error)).await?;
            self.void = false;
            return Ok(None);
        }
        verdict.say(true);
        let Some(current) = &mut self.current else { return Ok(None) };
        current.begin = begin;
        current.early = None;
        Ok(Some(commit))
    }

    /// All of it is written, if it is being written, and its tables are remembered.
    async fn write_early(&mut self) -> Result<(), ApplyError> {
        if self.is_large() {
            self.give(None).await?;
            self.server.writer().await?;
        }
        let met = self.current.as_ref().and_then(|current| current.early.as_ref()).map(|early| early.met.clone());
        for relation in met.unwrap_or_default() {
            self.remember(&relation).await?;
        }
        Ok(())
    }

    /// What could not be done is undone, and is no error then. What failed before it stays one.
    async fn take_back(&mut self, error: Option<ApplyError>) -> Result<(), ApplyError> {
        match (self.undo().await, error) {
            (Ok(()), error) if !self.server.is_gone() => {
                self.void = true;
                drop(error);
                Ok(())
            }
            (_, Some(error)) | (Err(error), None) => Err(error),
            (Ok(()), None) => Err(ApplyError::Stopped),
        }
    }

    async fn undo(&mut self) -> Result<(), ApplyError> {
        let Some(current) = self.current.take_if(|current| current.early.is_some()) else { return Ok(()) };
        if let Some(early) = current.early {
            early.verdict.say(false);
            self.tables.retain(|oid, _| early.met.iter().all(|met| met.oid != *oid));
            self.known.retain(|one| early.met.iter().all(|met| !known::same(one, met)));
        }
        if current.large {
            // All of this is of it: what was before it is committed.
            self.tables.values_mut().for_each(|table| table.pending = Pending::default());
            (self.rows, self.bytes) = (0, 0);
            return self.server.undo().await;
        }
        Ok(())
    }
}
