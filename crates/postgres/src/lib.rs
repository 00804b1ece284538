//! What every capability needs of PostgreSQL and nothing that only one needs.
//!
//! Connections as users have them ([`options`]) and sessions ([`session`]).

pub mod error;
pub mod options;
pub mod session;
mod tls;

pub use error::{PgError, ServerError};
pub use options::{ConnectOptions, ConnectSpec, Surroundings};
/// The one place that builds SQL from names and values.
pub use pgrunbook_document::sql::quote;
pub use session::{Answer, Notice, Session};
