//! From a spool to events, in a thread of its own.

use tokio::sync::mpsc;

use super::{Reader, Record, Spool, SpoolError};
use crate::lsn::Lsn;
use crate::pgoutput::assemble::{AssembleError, Assembler};
use crate::pgoutput::{Early, Event};

/// So many events come together where there are as many.
const BATCH: usize = 1024;

/// So many batches wait for whoever follows; then reading waits.
const WAITING: usize = 8;

/// Why there are no more events.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
}

/// Some events, in order. A transaction may lie in several batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// May be empty, when only the position moved.
    pub events: Vec<Event>,
    /// Every transaction that ended here or before is in this batch, in one before it, or concerns none of the tables.
    pub position: Lsn,
    /// Nothing more was in the spool then: waiting for more before acting on these gains nothing.
    pub caught_up: bool,
}

/// The changes of a spool as they come. Ends when it is dropped.
pub struct Follow {
    batches: mpsc::Receiver<Result<Batch, FollowError>>,
}

impl Follow {
    /// Follows all transactions that ended after `from`. Large ones that are still open are kept in unnamed files in
    /// the spool's folder.
    ///
    /// # Errors
    /// [`SpoolError::Pruned`] if the spool does not reach back so far.
    pub fn start(spool: &Spool, from: Lsn) -> Result<Self, SpoolError> {
        Self::of(spool, from, |assembler| assembler)
    }

    /// The same, and a large transaction that lies wholly behind `applied` is told while it is open: see [`Early`]. Whoever
    /// gets its events must give the verdict, as an [`Applier`](crate::apply::Applier) does.
    ///
    /// # Errors
    /// As [`Follow::start`].
    pub fn start_early(spool: &Spool, from: Lsn, applied: Lsn) -> Result<Self, SpoolError> {
        Self::of(spool, from, |assembler| assembler.telling_early(applied))
    }

    fn of(spool: &Spool, from: Lsn, how: impl FnOnce(Assembler) -> Assembler) -> Result<Self, SpoolError> {
        let reader = spool.reader(from)?;
        let assembler = how(Assembler::new(spool.folder(), from));
        let (sender, batches) = mpsc::channel(WAITING);
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name("follow".to_owned());
        let work = move || {
            if let Err(error) = read(reader, assembler, from, &sender, &runtime) {
                // Nobody follows any more: nobody needs to know.
                let _ = sender.blocking_send(Err(error));
            }
        };
        thread.spawn(work).map_err(SpoolError::io("start a thread for", spool.folder()))?;
        Ok(Self { batches })
    }

    /// The next events; waits for them. `None` after an error was told.
    ///
    /// Cancellation: nothing is lost.
    ///
    /// # Errors
    /// [`FollowError`]: damage, or messages that make no sense. [`SpoolError::Closed`] at the end of a spool that is no
    /// longer written.
    pub async fn next(&mut self) -> Result<Option<Batch>, FollowError> {
        self.batches.recv().await.transpose()
    }
}

fn read(
    mut reader: Reader,
    mut assembler: Assembler,
    from: Lsn,
    batches: &mpsc::Sender<Result<Batch, FollowError>>,
    runtime: &tokio::runtime::Handle,
) -> Result<(), FollowError> {
    let mut events = Vec::with_capacity(BATCH);
    let mut told = from;
    let mut send = |events: &mut Vec<Event>, position: Lsn, caught_up: bool| {
        if events.is_empty() && position == told {
            return true;
        }
        told = position;
        let events = std::mem::replace(events, Vec::with_capacity(BATCH));
        batches.blocking_send(Ok(Batch { events, position, caught_up })).is_ok()
    };
    loop {
        // Seen before it is read: what comes meanwhile is not waited for.
        reader.look();
        while let Some(record) = reader.read()? {
            match record {
                Record::Message(lsn, data) => assembler.push(lsn, &data)?,
                Record::Relation(data) => assembler.describe(&data)?,
                Record::Position(lsn) => assembler.reached(lsn),
                Record::Restart => assembler.restart(),
            }
            while let Some(event) = assembler.next_event()? {
                // After it the assembler waits for whoever gets it.
                let asks = matches!(event, Event::Early(Early::Commit { .. }));
                events.push(event);
                if (asks || events.len() >= BATCH) && !send(&mut events, assembler.position(), false) {
                    return Ok(());
                }
            }
        }
        if !send(&mut events, assembler.position(), true) {
            return Ok(());
        }
        let closed = runtime.block_on(async {
            tokio::select! {
                grown = reader.grown() => grown.map(|()| false),
                () = batches.closed() => Ok(true),
            }
        })?;
        if closed {
            return Ok(());
        }
    }
}
