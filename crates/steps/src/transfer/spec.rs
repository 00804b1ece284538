//! What a transfer was asked to do: the fields of its step, as they are recorded in the target.

use std::collections::{BTreeMap, BTreeSet};

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

/// Which way changes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// From the source to the target.
    Forward,
    /// From the target back to the source.
    Reverse,
}

impl Way {
    /// As it is part of names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
        }
    }

    /// The stream of a schema that flows this way: `health:forward`.
    pub fn stream(self, schema: &str) -> String {
        format!("{schema}:{}", self.word())
    }

    /// The other way.
    pub fn other(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }
}
