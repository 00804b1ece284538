//! What an application asks at start-up, and what it asks while it runs: does my code fit this schema, and which flags
//! are on?
//!
//! The one idea: a question is one statement of the simple query protocol, whose answer is text. So a check is one round
//! trip with any driver, works through a transaction pooler, and leaves no prepared statement behind; and a driver is
//! anything that is a [`Connection`]. With the feature `tokio-postgres` its client is one, with `sqlx` its connections and
//! pools are. Nothing here knows the rest of pgrunbook, writes to a database, or brings a TLS stack.
//!
//! ```no_run
//! # #[cfg(feature = "tokio-postgres")]
//! # async fn start(client: &tokio_postgres::Client) -> Result<(), pgrunbook_guard::GuardError> {
//! use pgrunbook_guard::{Guard, Source};
//!
//! let skip = std::env::var("SKIP_SCHEMA_GUARD").ok();
//! let outcome = Guard::new("1.4.0", Source::bot_config())?.skip(skip.as_deref())?.check(&mut &*client).await?;
//! println!("{outcome}");
//! # Ok(())
//! # }
//! ```

mod check;
mod connection;
pub mod driver;
mod error;
pub mod flag;
mod outcome;
mod quote;
mod source;
mod version;

pub use check::{Guard, WAIT, check};
pub use connection::{Connecting, Connection, Refusal, Row};
pub use error::GuardError;
pub use outcome::{Bypassed, Compatible, Notice, Outcome};
pub use quote::{Name, NotAName};
pub use source::{History, Source, Stored, VersionRow};
pub use version::{ChainVersion, Fit, Verdict, compare};
