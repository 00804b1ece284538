//! Puts a backup in place of a database: restored beside it, then the names are swapped in one transaction. What was there
//! stays, under another name, until somebody drops it.

mod sqlite;
mod step;
mod swap;

pub use step::{KIND, put_back, undo_by};
