//! Why a stream stopped.

use crate::error::PgError;
use crate::lsn::Lsn;
use crate::pgoutput::Relation;

/// An applier that has returned one of these is at its end: what was not committed is rolled back, and the position says
/// what was. Open it again to go on.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The role may not do what an applier must.
    #[error(
        "role `{role}` may not set session_replication_role, without which triggers and foreign keys act a second time. \
         Nothing was changed. As a superuser: GRANT SET ON PARAMETER session_replication_role TO {role} (PostgreSQL 15 and \
         newer; before, only superusers may)"
    )]
    ReplicaRole { role: String, source: PgError },
    /// Another applier has the stream.
    #[error("stream `{stream}` is being applied by another process (its backend: {pid}). Nothing was changed")]
    Busy { stream: String, pid: String },
    /// The position's row is not where this applier left it.
    #[error(
        "the position of stream `{stream}` is no longer {expected}: somebody else has written it. The batch was not applied"
    )]
    Usurped { stream: String, expected: Lsn },
    /// The destination is not as the source was: the row is missing, or there is one already.
    #[error("{table}, row {key}: {what} (the source's transaction at {lsn}). The batch was not applied")]
    Conflict { table: String, key: String, what: String, lsn: Lsn },
    /// The source's table is another than before, or than the destination's. Nothing of the transaction was applied,
    /// everything before it was.
    #[error("{table} became another before the transaction at {lsn}: {difference}")]
    RelationChanged {
        /// The source's name of it.
        table: String,
        /// Absent where the stream begins with it, and it does not fit the destination.
        before: Option<Box<Relation>>,
        after: Box<Relation>,
        /// For people: what is different.
        difference: String,
        lsn: Lsn,
    },
    /// The destination's table cannot take the changes.
    #[error("{table} cannot take the changes of the transaction at {lsn}: {why}. Nothing of it was applied")]
    Unfit { table: String, why: String, lsn: Lsn },
    /// The events do not make sense, which is a fault of whoever sent them.
    #[error("the stream makes no sense at {lsn}: {what}")]
    Stream { what: String, lsn: Lsn },
    /// The connection was lost. Open the applier again: the position tells what was committed.
    #[error("the connection to the destination was lost while applying what is after {lsn}")]
    Lost { lsn: Lsn, source: PgError },
    /// The server refused something.
    #[error("{doing} failed after {lsn}: {source}. The batch was not applied")]
    Postgres { doing: String, lsn: Lsn, source: PgError },
    /// It had failed before.
    #[error("the applier has stopped at an error before; open it again")]
    Stopped,
}

impl ApplyError {
    /// Whether to open the applier again may help: see [`PgError::may_pass`]. Also where another has the stream, or had.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Busy { .. } | Self::Usurped { .. } | Self::Stopped => true,
            Self::Postgres { source, .. } => source.may_pass(),
            _ => false,
        }
    }

    /// Of a statement of the batch after `lsn`.
    pub(super) fn of(doing: impl Into<String>, lsn: Lsn, source: PgError) -> Self {
        match source {
            PgError::Lost { .. } | PgError::Unreachable { .. } => Self::Lost { lsn, source },
            source => Self::Postgres { doing: doing.into(), lsn, source },
        }
    }
}
