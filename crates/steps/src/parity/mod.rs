//! Whether two sides hold the same rows: schemas of PostgreSQL databases, or SQLite files.
//!
//! Two rows are the same if the bytes are that binary COPY gives of them, and of nothing else: `-0` is not `0`, `1.0` is not
//! `1.00`. One pass over each side, both at once, sums hashes of rows in parts that are cut by the key; only parts whose sums
//! differ are read again, by key, and merged row by row. So equality costs about one COPY, and memory does not grow with rows.
//! Why the rows are hashed here and not by the servers is measured in `docs/decisions/0009-row-hashes.md`.
//!
//! [`compare`] looks at two snapshots of two moments: a proof where nobody writes. [`Prover`] is for a transfer whose source is
//! written all the while: its looks are aligned at a position of the stream, and in the freeze only keys that were changed last
//! are compared. The argument why that proves equality stands in `base.rs`.

mod base;
mod bucket;
mod compare;
mod dirty;
mod error;
mod keys;
mod lookup3;
mod naming;
mod pair;
mod postgres;
mod repair;
mod report;
mod rows;
mod sample;
mod side;
mod sqlite;
mod step;

pub use base::{Aligned, Pass, Prover, Reader};
pub use compare::{Ask, Cell, Difference, Parity, Place, Seen, TableParity, Totals, What, compare};
pub use dirty::{Dirty, Touched};
pub use error::ParityError;
pub use keys::Keys;
pub use naming::Naming;
pub use pair::{Finding, Pair, Which};
pub use repair::{Planned, ROWS, Repaired, can_repair, plan, repair};
pub use report::{VERSION, Values, evidence};
pub use sample::{Sampled, Samples, Wrong, sample};
pub use step::{KIND, choices, gate, place};
