//! Chains of migrations: an ordered set of SQL files with its own history in one schema of the target.

pub mod chain;
pub mod error;
pub mod history;
pub mod layout;
pub mod standing;
pub mod text;

pub use text::shown;
