//! Copies of a database: `pg_dump` in its custom format, SQLite's online backup; proven by reading the table of contents or
//! by an actual restore that is compared with the source at one snapshot.

mod compare;
mod dump;
pub mod programs;
pub(crate) mod sqlite;
mod step;

pub use compare::{Difference, TableSum, compare, sums, sums_of};
pub use dump::{
    Dump, DumpOptions, Selection, Verify, beside, digest, dump, dump_source, list, private, restore_into, without_fence,
};
pub use sqlite::{back_up as back_up_sqlite, check as check_sqlite};
pub use step::{KIND, path_of};
