//! The one transaction that is told before its commit.
//!
//! Its blocks are kept as those of every streamed transaction, so nothing is lost when it is undone. That happens whenever it can
//! no longer be the next one to commit (another one has), when something of it is rolled back, when the connection begins
//! anew, and when whoever applies has refused. It is then not told early again, since only a first block begins that.

use bytes::Bytes;

use super::super::decode::decode;
use super::super::{Early, Event, Judged, Verdict};
use super::relations::Relations;
use super::{AssembleError, Assembler};
use crate::lsn::Lsn;

pub(super) struct Telling {
    xid: u32,
    /// Until the first change is told.
    verdict: Option<Verdict>,
    judged: Judged,
    /// What is described in it holds when it is committed, and only then.
    relations: Relations,
}

impl Telling {
    /// Whether it is this transaction, and something of it was told.
    pub(super) fn has_told(&self, xid: u32) -> bool {
        self.xid == xid && self.verdict.is_none()
    }

    /// Waits for the verdict; the tables as they are behind it, if it was kept.
    pub(super) fn kept(self) -> Option<Relations> {
        self.judged.wait().then_some(self.relations)
    }
}

impl Assembler {
    /// Large transactions are told while they are open ([`Early`]), if they begin at `from` or behind: nothing that was applied
    /// may be told early, and whether it was is not known before its commit.
    #[must_use]
    pub fn telling_early(mut self, from: Lsn) -> Self {
        self.early_from = Some(from);
        self
    }

    /// A block begins, whose first change is at `lsn`.
    pub(super) fn look_for_early(&mut self, xid: u32, first: bool, lsn: Lsn) {
        if self.early.as_ref().is_some_and(|early| early.judged.is_refused()) {
            self.undo_early();
        }
        // The server also sends blocks of other databases' transactions, for what they invalidate: with nothing in them, and open for
        // as long as those are.
        let has_told = self.early.as_ref().is_some_and(|early| early.verdict.is_none());
        if first && !has_told && self.early_from.is_some_and(|from| lsn >= from) {
            let (verdict, judged) = Verdict::new();
            self.early = Some(Telling { xid, verdict: Some(verdict), judged, relations: self.relations.clone() });
        }
    }

    /// Tells a message of a block, if its transaction is the one.
    pub(super) fn tell_early(&mut self, xid: u32, data: &Bytes) {
        let Some(early) = self.early.as_mut().filter(|early| early.xid == xid) else { return };
        let change =
            decode(data, true).map_err(AssembleError::from).and_then(|message| early.relations.change(message));
        match change {
            Ok(None) => {}
            Ok(Some(change)) => {
                let begin = early.verdict.take().map(|verdict| Early::Begin { xid, verdict });
                let told = begin.into_iter().chain([Early::Change(change)]);
                self.queue.extend(told.map(Event::Early));
            }
            // An error if it commits; it may yet be rolled back.
            Err(_) => self.undo_early(),
        }
    }

    pub(super) fn undo_early_of(&mut self, xid: u32) {
        if self.early.as_ref().is_some_and(|early| early.xid == xid) {
            self.undo_early();
        }
    }

    pub(super) fn undo_early(&mut self) {
        if self.early.take().is_some_and(|early| early.verdict.is_none()) {
            self.queue.push_back(Event::Early(Early::Undo));
        }
    }
}
