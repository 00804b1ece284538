//! The kinds of step that exist, as data. The document knows none by name; whoever parses hands them in.

use crate::diagnostic::Diagnostic;
use crate::model::{Block, Language};

/// All kinds of step that a runbook may use.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary<'a>(pub &'a [KindSpec]);

/// One kind of step: what its block may hold.
#[derive(Debug, Clone, Copy)]
pub struct KindSpec {
    /// The key that names it: `migrate`.
    pub name: &'static str,
    pub language: Language,
    /// One sentence for `--help` and the reference.
    pub summary: &'static str,
    /// Its own fields; those that every kind has (`target`, `undo`, `timeout`, `for_each`, `valid`, `at`) are not listed.
    pub fields: &'static [FieldSpec],
    /// Whether it acts on a target that must be named.
    pub needs_target: bool,
    /// Whether a step of this kind changes something and so must say how it is undone.
    pub changes: bool,
    /// Values of `undo` that it understands beside `none: why`, `one-way: why` and the name of an undo block:
    /// `auto`, `down`.
    pub undo_words: &'static [&'static str],
    /// Reads the block's own fields into the kind's type and drops the result: finds wrong types and values.
    pub check: fn(&Block) -> Result<(), Diagnostic>,
}

/// One field of a kind.
#[derive(Debug, Clone, Copy)]
pub struct FieldSpec {
    pub name: &'static str,
    /// One sentence for the reference.
    pub about: &'static str,
    pub required: bool,
}

impl<'a> Vocabulary<'a> {
    /// The kind of this name.
    pub fn find(self, name: &str) -> Option<&'a KindSpec> {
        self.0.iter().find(|kind| kind.name == name)
    }
}
