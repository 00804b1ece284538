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
    /// All of it can be taken back: see [`Server::undo`].
    pub early: bool,
}

/// Where the writer is. When this is dropped, so is the connection, and what was not committed is rolled back.
pub(super) enum Server {
    Idle(Box<Writer>),
    Working(Task),
    /// It could not do what was early, which was told.
    Failed(Box<Writer>),
    /// It failed, which was told.
    Gone,
}

/// Ends when it is dropped.
pub(super) struct Task(JoinHandle<Result<Box<Writer>, Failure>>);

struct Failure {
    error: ApplyError,
    /// Only where the work was early.
    writer: Option<Box<Writer>>,
}

impl Server {
    /// The writer, once it has written what it was given.
    ///
    /// # Errors
    /// What it could not do; after this it is gone.
    pub(super) async fn writer(&mut self) -> Result<&mut Writer, ApplyError> {
        if let Self::Working(task) = self {
            // Otherwise somebody ended the runtime.
            let done = (&mut task.0).await.unwrap_or(Err(Failure { error: ApplyError::Stopped, writer: None }));
            let (server, result) = match done {
                Ok(writer) => (Self::Idle(writer), Ok(())),
                Err(Failure { error, writer }) => (writer.map_or(Self::Gone, Self::Failed), Err(error)),
            };
            *self = server;
            result?;
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

    /// Takes back what is not committed, done or not, once the writer has come to its end; all of that was early.
    ///
    /// # Errors
    /// If something else than early work failed, or the connection is gone.
    pub(super) async fn undo(&mut self) -> Result<(), ApplyError> {
        match self.writer().await {
            Ok(writer) => writer.rollback().await,
            Err(error) => match std::mem::replace(self, Self::Gone) {
                Self::Failed(mut writer) => {
                    writer.rollback().await?;
                    *self = Self::Idle(writer);
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// Whether it failed at something that cannot be taken back.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
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
    async fn done_by(self, mut writer: Box<Writer>) -> Result<Box<Writer>, Failure> {
        let early = self.early;
        match self.write(&mut writer).await {
            Ok(()) => Ok(writer),
            Err(error) => Err(Failure { error, writer: early.then_some(writer) }),
        }
    }

    async fn write(self, writer: &mut Writer) -> Result<(), ApplyError> {
        writer.begin().await?;
        for (destination, pending) in self.tables {
            writer.drain(&destination, pending).await?;
        }
        match self.commit {
            Some((position, wait_for_disk)) => writer.commit_at(&position, wait_for_disk).await,
            None => Ok(()),
        }
    }
}
