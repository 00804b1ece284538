//! What a transfer was asked to do: the fields of its step, as they are recorded in the target.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_postgres::receiver::Limits;
use serde::{Deserialize, Serialize};

/// What a transfer was asked to do. Recorded when it begins; later steps read it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The project's name of the source: a PostgreSQL database or a SQLite file.
    pub from: String,
    /// PostgreSQL: the schema whose tables move.
    #[serde(default)]
    pub source_schema: String,
    pub structure: Making,
    /// Tables that stay behind.
    #[serde(default)]
    pub exclude: BTreeSet<String>,
    /// Findings of the preflight that the operator consented to, by name.
    #[serde(default)]
    pub accept: BTreeSet<String>,
    /// SQLite: what columns become, where it is not the default: `items.score` to `numeric`.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// Whether writes made after the switch flow back.
    pub reverse: bool,
    /// SQLite: how changes are found.
    #[serde(default)]
    pub sync: Sync,
    /// How much of the local disk a stream may take, in bytes; where it stops.
    #[serde(default)]
    pub spool_limit: Option<u64>,
}

/// Where a spool stops unless the step says otherwise, in bytes.
const SPOOL_LIMIT: u64 = 16 << 30;

/// Room that is left on the local disk, in bytes.
const DISK_FREE_MIN: u64 = 1 << 30;

impl Spec {
    /// How much the spools may take.
    pub fn limits(&self) -> Limits {
        limits(self.spool_limit)
    }
}

/// How much spools may take by a step's `spool_limit`, in bytes.
pub(super) fn limits(spool_limit: Option<u64>) -> Limits {
    let hard = spool_limit.unwrap_or(SPOOL_LIMIT);
    Limits { spool_soft: hard / 2, spool_hard: hard, disk_free_min: DISK_FREE_MIN.min(hard) }
}

/// Where the target's tables come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Making {
    /// Made after the source's own.
    #[default]
    Create,
    /// They are there, made by migrations, and are checked against the source's.
    Existing,
}

/// How changes of a SQLite file are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// The file is read again and compared with what was read last.
    #[default]
    Rescan,
    /// Triggers note the keys of changed rows: this alters the source's schema.
    DirtyKeys,
}

/// One side of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Where the data was.
    Source,
    /// Where it goes.
    Target,
}

impl Side {
    /// As it is written and shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}
