//! Trying, as every real role, what it can really do; and setting it against the declaration.
//!
//! The third oracle. What is expected comes from [`Topology::allows`](crate::topology::Topology::allows) and from nothing
//! else; whether it holds is found out by trying, and no access list is read for it. Tables are tried by plain `EXPLAIN`,
//! which checks privileges and changes nothing; what only a real statement shows (row security, append-only tables) is tried
//! in transactions that are rolled back.
//!
//! A check that cannot fail is worse than none: a denial counts only with a positive control and with rows to be kept
//! from, everything else is inconclusive, and nothing examined is a failure.

mod append_only;
mod attempt;
mod examine;
mod judge;
mod matrix;
mod objects;
mod pooler;
mod prove;
mod render;
mod role;
mod rows;
pub(crate) mod sample;
mod send;
mod step;
mod tally;
mod trial;

pub use matrix::{About, Action, Answer, Cell, Check, Coverage, Examined, Finding, Matrix, Method, Try, Verdict};
pub use prove::{How, STATEMENT_TIMEOUT, prove};
pub use render::VERSION;
pub use step::{KIND, Undecided, evidence, gate, passes};
