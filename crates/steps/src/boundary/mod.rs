//! Reviews of what an application's sources do to databases, without a database.
//!
//! [`review()`] finds writes from one application's tree of code to what belongs to another's: schemas, or tables with a
//! prefix. It advises; what enforces a boundary is the privilege that is not granted.
//!
//! The one idea: three answers, not two. A crossing is an error, a name that only the running program knows is *unknown*
//! and no pass, and only what was read and understood counts as clean.

mod crossings;
pub mod error;
mod files;
mod join;
mod language;
mod mapping;
mod scan;
mod statement;
mod text;

#[cfg(test)]
mod tests;

pub use crossings::{RULES, Review, review};
pub use error::ReviewError;
pub use files::LONGEST;
