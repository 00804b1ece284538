//! Rows on their way from a side: their bytes, in batches.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::error::ParityError;

/// Rows in a batch; two batches wait at most.
pub(super) const BATCH: usize = 256;

/// Some rows, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    pub fn push(&mut self, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }
}

/// Rows in order, one at a time.
pub(super) struct Rows {
    receiver: mpsc::Receiver<Result<Batch, ParityError>>,
    batch: Batch,
    at: usize,
}

impl Rows {
    pub fn new(receiver: mpsc::Receiver<Result<Batch, ParityError>>) -> Self {
        Self { receiver, batch: Batch::default(), at: 0 }
    }

    /// Makes sure that there is a row in front, unless there are no more.
    pub async fn fill(&mut self) -> Result<(), ParityError> {
        while self.at >= self.batch.len() {
            let Some(batch) = self.receiver.recv().await else { break };
            (self.batch, self.at) = (batch?, 0);
        }
        Ok(())
    }

    /// The row in front.
    pub fn front(&self) -> Option<&[u8]> {
        let end = *self.batch.ends.get(self.at)?;
        let start = self.at.checked_sub(1).map_or(0, |before| self.batch.ends[before]);
        Some(&self.batch.bytes[start..end])
    }

    pub fn advance(&mut self) {
        self.at += 1;
    }
}

/// Whether a key is left out.
pub(super) type Left = dyn Fn(&[u8]) -> Result<bool, ParityError> + Send + Sync;

/// Keys that are left out on both sides.
#[derive(Clone, Default)]
pub(super) struct Skip(pub Option<Arc<Left>>);

impl Skip {
    pub fn has(&self, key: &[u8]) -> Result<bool, ParityError> {
        self.0.as_ref().map_or(Ok(false), |has| has(key))
    }
}
