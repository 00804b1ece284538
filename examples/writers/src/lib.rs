//! Clients that write at full speed, and keep an append-only history of what was accepted.
//!
//! The history is held against the final side of a cutover: nothing lost, nothing doubled. What is written is a function of the
//! seed, the writer and the number of the write, so that the final rows can be computed from the history alone. Each write has a
//! key that is stored in the same transaction; where nobody knows whether a commit happened, it is sent again, and the key says so.

mod history;
pub mod http;
pub mod sql;

pub use history::{Accepted, Freeze, History, Verdict};
