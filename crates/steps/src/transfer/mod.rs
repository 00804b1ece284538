//! Moves a legacy source's live data into a schema of a PostgreSQL database, and keeps following its changes.
//!
//! [`preflight`] says everything that stands in the way, before anything is changed. [`structure`] makes the schema.

mod error;
mod finding;
pub mod preflight;
pub mod structure;

pub use error::TransferError;
pub use finding::{Finding, Severity, accept, blocking, to_json, to_table};

pub mod build;
pub mod copy;
