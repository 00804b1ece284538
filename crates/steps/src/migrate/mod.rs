//! Chains of migrations: an ordered set of SQL files with its own history in one schema of the target.
//!
//! A file runs in one transaction with its row in the history; a file that cannot is run statement by statement, and
//! each statement is recorded. What a crash or a lost connection leaves is settled by the history, never guessed.

pub mod adopt;
pub mod chain;
mod correct;
mod deployment_log;
mod dry;
pub mod error;
pub mod history;
pub mod layout;
mod lease;
mod runner;
mod send;
pub mod standing;
mod step;
pub mod text;
mod verify;
mod version_row;
mod watch;

pub use correct::Correction;
pub use deployment_log::{Action, LogTable, LogWrite};
pub use dry::{Act, DryRun, dry_run, dry_run_of_each};
pub use runner::{Applied, Around, Goal, Inside, Options, Runner};
pub use step::KIND;
pub use text::shown;
pub(crate) use verify::{Asked, asked, run as verify_script};
pub use version_row::{VersionRow, VersionWrite};
pub use watch::{Watch, Watched};

/// The name of a chain that is applied in one of several schemas: each has a history of its own.
pub fn chain_in(chain: &str, schema: &str) -> String {
    format!("{chain}@{schema}")
}
