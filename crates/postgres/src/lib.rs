//! What every capability needs of PostgreSQL and nothing that only one needs.
//!
//! Connections as users have them ([`options`]), sessions ([`session`]), who a database is ([`identity`]), the records that
//! a run keeps in it ([`ledger`]), the engine's view of it ([`target`]), the engine's
//! journal in another cluster ([`journal`]), throwaway clusters ([`sandbox`]), and temporary databases on a given server
//! ([`scratch`]). For moving rows: tables as they are ([`relation`]), the binary format of COPY ([`copy`]), changes ([`pgoutput`]), and sums of hashes ([`rowhash`]).

pub mod apply;
pub mod copy;
pub mod error;
pub mod identity;
pub mod journal;
pub mod ledger;
pub mod lsn;
pub mod options;
pub mod pgbouncer;
pub mod pgoutput;
pub mod pooler;
pub mod receiver;
pub mod relation;
pub mod replication;
pub mod retry;
pub mod rowhash;
pub mod sandbox;
pub mod scratch;
pub mod session;
pub mod slots;
pub mod snapshot;
pub mod spool;
pub mod target;
mod tls;
mod wire;

pub use error::{PgError, ServerError};
pub use journal::PostgresJournal;
pub use lsn::Lsn;
pub use options::{ConnectOptions, ConnectSpec, Surroundings};
/// The one place that builds SQL from names and values.
pub use pgrunbook_document::sql::quote;
pub use session::{Answer, Notice, Session};
pub use snapshot::{NotASnapshot, Snapshot};
pub use target::PostgresTarget;
