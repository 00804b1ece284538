//! Keeps writers out of the tables of one schema, at one exact place of the WAL, and proves that none is left.
//!
//! One transaction locks every table against writers, sets triggers that refuse every write with SQLSTATE 25006 and a text
//! that says where to write now, emits the marker `fence:<id>` into the WAL, and commits. Whoever wrote before it is in the
//! stream before the marker, and nobody writes after it: "caught up" is not a lag, it is *the marker was applied*.
//! Sessions with `session_replication_role = replica` pass, since the triggers fire for the origin only: that is how
//! changes flow back into what is fenced.
//!
//! What a fence does not stop, because no trigger can: `nextval` and `setval`, large objects, foreign tables, DDL, and sessions in
//! the replica role. [`prove`] names what of these it finds. See <https://www.postgresql.org/docs/15/sql-createtrigger.html>.

mod doors;
mod error;
mod freezing;
mod guard;
mod holder;
mod lift;
mod privilege;
mod proof;
mod standing;
mod step;
mod table;

pub mod freeze;

pub use doors::{Paused, paused, resume_all};
pub(crate) use doors::{let_go, pause_all};
pub use error::FenceError;
pub(crate) use error::by_hand;
pub use freeze::{Claim, Freeze, NoSwitch, Thaw, Whose};
pub use freezing::{Freezing, Frozen};
pub(crate) use freezing::{RESUME_BUDGET, Retries};
pub use guard::{By, Fence, Fenced, Patience, fence, refuse_fed};
pub use holder::Holder;
pub use lift::{Lift, Lifted, unfence};
pub use proof::{Proof, Trial, prove};
pub use standing::{Held, Standing, TRIGGER_NAMES, install, list, state};
pub use step::{FENCE, UNFENCE};

use pgrunbook_postgres::{PgError, Session};

/// What is certain of one fence, by its id, after a connection was lost at its COMMIT.
///
/// # Errors
/// If the database cannot be asked.
pub async fn is_committed(session: &Session, id: &str) -> Result<bool, PgError> {
    standing::is_committed(session, id).await
}
