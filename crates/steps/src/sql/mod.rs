//! SQL in a runbook: `check`, `probe` and `apply`.
//!
//! A check reads and is a gate. A probe may write and is always rolled back: for what must be denied. An apply changes the
//! database, and its record in the ledger commits with it.

mod apply;
mod judge;
mod outside;
mod send;
mod step;

pub use apply::Apply;
pub(crate) use apply::held_by;
pub use judge::{Judge, Raised, Seen};
pub use outside::{Stands, is_finished_by, stands};
pub use send::{Answered, Question, Streamed, ask};
pub use step::{Check, Probe};
pub(crate) use step::{application_name, refused_in_transaction};

use pgrunbook_document::{Block, KindSpec, Language};

use crate::registry::Kind;

/// The kind `check`.
pub const CHECK: Kind = Kind {
    spec: KindSpec {
        name: "check",
        language: Language::Sql,
        summary: "Reads in a read-only transaction, and is a gate: what its last statement answers must be as expected.",
        fields: &[],
        needs_target: true,
        changes: false,
        undo_words: &[],
        check: step::lint,
    },
    build: |block, workplace| Ok(Box::new(Check::new(block, workplace)?)),
    undo_by: None,
};

/// The kind `probe`.
pub const PROBE: Kind = Kind {
    spec: KindSpec {
        name: "probe",
        language: Language::Sql,
        summary: "Tries something, also writes, and is always rolled back: proves what must be allowed or denied.",
        fields: &[],
        needs_target: true,
        changes: false,
        undo_words: &[],
        check: step::lint,
    },
    build: |block, workplace| Ok(Box::new(Probe::new(block, workplace)?)),
    undo_by: None,
};

/// The kind `apply`.
pub const APPLY: Kind = Kind {
    spec: KindSpec {
        name: "apply",
        language: Language::Sql,
        summary: "Changes the database in one transaction, together with the record that it did.",
        fields: &[],
        needs_target: true,
        changes: true,
        undo_words: &[],
        check: |block: &Block| apply::lint(block),
    },
    build: |block, workplace| Ok(Box::new(Apply::new(block, workplace)?)),
    undo_by: None,
};
