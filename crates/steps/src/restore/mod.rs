//! Puts a backup in place of a database: restored beside it, then the names are swapped in one transaction. What was there
//! stays, under another name, until somebody drops it. A backup of one source is put in place of its schema alone, in one
//! transaction; the other schemas are not touched, and their applications go on.

mod source;
mod sqlite;
mod step;
mod swap;

pub use step::{KIND, put_back, undo_by};
