//! Leads the application elsewhere: a value in its configuration file, a row in a registry of tenants, a command, or a
//! line of PgBouncer's.
//!
//! A switch is what a freeze waits for. It claims the freeze before it does anything, so that the budget's end cannot let
//! writers go in the middle of it; when it is made the freeze is over, and when it fails the freeze is undone.

mod env;
mod error;
mod file;
mod row;
mod step;
mod toml_file;

pub mod pooler;

pub use error::SwitchError;
pub(crate) use file::{read as read_file, replace as replace_file};
pub use step::KIND;
