//! The writer at work beside the applier: one batch is written while the next one is folded.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::Position;
use super::destination::Destination;
use super::error::ApplyError;
use super::pending::Pending;
use super::write::Writer;

/// What is to be written at once.
pub(super) struct Work {
    pub tables: Vec<(Arc<Destination>, Pending)>,
    /// What to commit, and whether to wait for the disk; none where more of the transaction comes.
    pub commit: Option<(Position, bool)>,
}

/// Where the writer is. When this is dropped, so is the connection, and what was not committed is rolled back.
pub(super) enum Server {
    Idle(Box<Writer>),
    Working(Task),
    /// It failed, which was told.
    Gone,
}

/// Ends when it is dropped.
pub(super) struct Task(JoinHandle<Result<Box<Writer>, ApplyError>>);

impl Server {
    /// The writer, once it has written what it was given.
    ///
    /// # Errors
    /// What it could not do; after this it is gone.
    pub(super) async fn writer(&mut self) -> Result<&mut Writer, ApplyError> {
        if let Self::Working(task) = self {
            let done = (&mut task.0).await;
            *self = Self::Gone;
            // Otherwise somebody ended the runtime.
            *self = Self::Idle(done.unwrap_or(Err(ApplyError::Stopped))?);
        }
        match self {
            Self::Idle(writer) => Ok(writer),
            _ => Err(ApplyError::Stopped),
        }
    }

    /// Gives it work, once it has done what it was given before.
    pub(super) async fn give(&mut self, work: Work) -> Result<(), ApplyError> {
        self.writer().await?;
        if let Self::Idle(writer) = std::mem::replace(self, Self::Gone) {
            *self = Self::Working(Task(tokio::spawn(work.done_by(writer))));
        }
        Ok(())
    }

    /// Whether it still writes, so that there is time to fold more.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Working(task) if !task.0.is_finished())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Work {
    async fn done_by(self, mut writer: Box<Writer>) -> Result<Box<Writer>, ApplyError> {
        writer.begin().await?;
        for (destination, pending) in self.tables {
            writer.drain(&destination, pending).await?;
        }
        if let Some((position, wait_for_disk)) = self.commit {
            writer.commit_at(&position, wait_for_disk).await?;
        }
        Ok(writer)
    }
}
