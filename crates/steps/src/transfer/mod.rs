//! Moves a legacy source's live data into a schema of a PostgreSQL database, keeps following its changes, and lets writers
//! cross to the other side and back without losing a write.
//!
//! [`preflight`] says everything that stands in the way, before anything is changed. [`structure`] makes the schema, `copy`
//! brings the rows under the snapshot of a slot, `follow` applies what the slot brings since, and `crossing` moves the right
//! to write. What is recorded of a transfer (`state`) is in the database it leads to.
//! [`sqlite`] is all of it for a SQLite file as the source.

mod accept;
pub mod build;
mod came;
mod complete;
pub mod copy;
mod crossing;
mod ddl;
mod disk;
mod follow;
mod load;
pub mod preflight;
mod proof;
mod sequences;
mod since;
pub mod sqlite;
mod standing;
mod streams;
pub mod structure;

mod ends;
mod spec;
mod state;
mod status;

mod error;
mod finding;
mod step;

pub use accept::{Offer, go_on, offer};
pub use complete::{Source, complete};
pub use error::TransferError;
pub use finding::{Finding, Severity, accept, blocking, to_json, to_table};
pub use follow::{Follower, Followers, keep_following, may_pass};
pub use load::{Loader, abandon};
pub use proof::compare_live;
pub use spec::{Making, Side, Spec, Sync};
pub use standing::Standing;
pub use status::{Rollback, Status, Stream, status, table};
pub use step::{COMPLETE, CUTOVER, FOLLOW, PREFLIGHT, TRANSFER};
pub(crate) use streams::kept_publications;
