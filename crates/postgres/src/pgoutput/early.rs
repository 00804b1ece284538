//! A transaction that is told before its end is known.
//!
//! While a large transaction is streamed and no other one commits, whoever applies may already do what it did, and commit when it
//! does. That is a guess, so it can be taken back by either side, and what was taken back is told once more, whole, at its
//! commit: like every transaction that was never told early.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use super::{Begin, Change, Commit};

/// What is told of it, one transaction at a time: `Begin`, then any number of `Change`, then `Undo` or `Commit`. Between them
/// comes no event of another transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Early {
    /// Nothing that was told before is open, and the transaction lies behind everything that was applied.
    Begin {
        /// The top-level transaction.
        xid: u32,
        verdict: Verdict,
    },
    /// Also of its subtransactions: if one of them that was told is rolled back, all is undone.
    Change(Change),
    /// Nothing counts that was told early.
    Undo,
    /// It is committed, and all of it was told. The next event is only told after the verdict: if it was not kept, the transaction
    /// comes again with its `Begin`.
    Commit { begin: Begin, commit: Commit },
}

/// Where whoever applies says whether a transaction that was told early is kept. If all copies are dropped, it is not.
#[derive(Debug, Clone)]
pub struct Verdict {
    kept: Arc<OnceLock<bool>>,
    said: SyncSender<()>,
}

/// Where it is heard.
#[derive(Debug)]
pub(crate) struct Judged {
    kept: Arc<OnceLock<bool>>,
    said: Receiver<()>,
}

impl Verdict {
    pub(crate) fn new() -> (Self, Judged) {
        let kept = Arc::new(OnceLock::new());
        let (say, said) = sync_channel(1);
        (Self { kept: Arc::clone(&kept), said: say }, Judged { kept, said })
    }

    /// Says it; what was said first counts. `true` only once its commit was told, and all of it is there to be committed.
    pub fn say(&self, kept: bool) {
        let _ = self.kept.set(kept);
        // Full: it was said before. Closed: nobody wants to know any more.
        let _ = self.said.try_send(());
    }

    /// Whether it was said that it is kept.
    pub fn is_kept(&self) -> bool {
        self.kept.get() == Some(&true)
    }
}

/// Equal is only the same one.
impl PartialEq for Verdict {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kept, &other.kept)
    }
}

impl Eq for Verdict {}

impl Judged {
    /// Whether it is known already that it will not be kept.
    pub fn is_refused(&self) -> bool {
        self.kept.get() == Some(&false)
    }

    /// Waits until it is said, or nobody is left to say it; whether it is kept. Blocks its thread.
    pub fn wait(&self) -> bool {
        let _ = self.said.recv();
        self.kept.get() == Some(&true)
    }
}
