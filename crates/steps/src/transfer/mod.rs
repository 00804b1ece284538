//! Moves a legacy source's live data into a schema of a PostgreSQL database, keeps following its changes, and lets writers
//! cross to the other side and back without losing a write.
//!
//! [`preflight`] says everything that stands in the way, before anything is changed. [`structure`] makes the schema, `copy`
//! brings the rows under the snapshot of a slot, `follow` applies what the slot brings since, and `crossing` moves the right
//! to write. What is recorded of a transfer (`state`) is in the database it leads to.
//! [`preflight`] says everything that stands in the way, before anything is changed. [`structure`] makes the schema.
//! [`sqlite`] is all of it for a SQLite file as the source.

mod accept;
mod complete;
mod build;
pub mod copy;
mod crossing;
mod ddl;
mod ends;
mod error;
mod finding;
mod follow;
pub mod preflight;
mod proof;
mod sequences;
mod spec;
mod status;
mod step;
mod load;
mod state;
mod streams;
pub mod sqlite;
pub mod structure;

pub use accept::{Offer, accept as accept_stop, offer};
pub use complete::complete;
pub use error::TransferError;
pub use finding::{Finding, Severity, accept, blocking, to_json, to_table};
pub use follow::{Follower, Followers, Standing};
pub use spec::{Making, Side, Spec, Sync};
pub use status::{Rollback, Status, Stream, status};
pub use step::{COMPLETE, CUTOVER, FOLLOW, PREFLIGHT, TRANSFER};
