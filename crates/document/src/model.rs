//! The runbook as a value: what stands in the file, in the order in which it stands there.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::expectation::Expectation;

/// A place in one of the runbook's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Index into [`Runbook::sources`]: 0 is the runbook itself, the rest its includes.
    pub file: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The place as a range of bytes of its file.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    pub value: T,
    pub span: Span,
}

/// One file of the runbook: its path as the user wrote it (for messages) and its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub path: String,
    pub text: String,
}

/// A whole runbook.
#[derive(Debug, Clone)]
pub struct Runbook {
    /// The runbook's own file first, then its includes in order of appearance.
    pub sources: Vec<Source>,
    /// The first `#` heading.
    pub title: Option<String>,
    /// The `toml runbook` block, or its defaults.
    pub settings: Settings,
    /// The `##` sections that are run forward, in order. A section without items and steps is here too (it is prose).
    pub phases: Vec<Phase>,
    /// The `##` sections whose heading contains "rollback".
    pub rollback_paths: Vec<RollbackPath>,
    /// Blocks marked `undo`, wherever they stand: run only to undo the step that names them.
    pub undo_blocks: Vec<Block>,
}

/// What the `toml runbook` block says.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub span: Option<Span>,
    /// The targets' names, as `pgrunbook.toml` gives them meaning.
    pub targets: Vec<Spanned<String>>,
    pub vars: BTreeMap<String, Variable>,
    /// Who answers for this runbook; free text.
    pub owner: Option<String>,
    /// Environments in which this runbook may run; empty: any.
    pub environments: Vec<String>,
    /// How long a way back may take, from the moment at which a run turns back.
    pub rollback_within: Option<Duration>,
}

/// A variable that the runbook declares.
#[derive(Debug, Clone)]
pub struct Variable {
    pub span: Span,
    /// `None`: must be given by environment or `--var`.
    pub default: Option<VarValue>,
    /// What it means, for people.
    pub about: Option<String>,
}

/// A variable's value. A list can only be used by `for_each`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum VarValue {
    Text(String),
    List(Vec<String>),
}

/// A `##` section that is run forward.
#[derive(Debug, Clone)]
pub struct Phase {
    /// GitHub's slug of the heading.
    pub slug: String,
    pub title: String,
    pub span: Span,
    pub entries: Vec<Entry>,
}

/// A `##` section whose heading contains "rollback": a way back, run only when it is chosen.
#[derive(Debug, Clone)]
pub struct RollbackPath {
    pub slug: String,
    pub title: String,
    pub span: Span,
    pub entries: Vec<Entry>,
    /// All must hold for the path to be open. From the `valid` keys of its blocks.
    pub valid: Vec<Spanned<Validity>>,
}

/// What stands in a phase: a checklist line or a step.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a runbook holds few, and they are read far more often than moved")]
pub enum Entry {
    Item(Item),
    Step(Block),
}

/// A `- [ ]` line.
#[derive(Debug, Clone)]
pub struct Item {
    /// `<phase slug>/<first 8 hex digits of the text's SHA-256>`: editing the text voids an earlier confirmation.
    pub id: ItemId,
    /// The line's text without the roles, as plain text.
    pub text: String,
    /// Roles (`@release-manager`) of which one must confirm; empty: anybody.
    pub roles: Vec<String>,
    pub span: Span,
    /// Steps nested under the line: they prove it. Empty: a person confirms.
    pub proofs: Vec<Block>,
}

/// The language of a block, the first word of its info string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    Sql,
    Toml,
}

/// An executable block.
#[derive(Debug, Clone)]
pub struct Block {
    pub id: StepId,
    /// The kind's name: `check`, `apply`, `migrate`, ...
    pub kind: String,
    pub language: Language,
    /// The block's text with the indentation of a list item removed; what is shown, digested and frozen.
    pub text: String,
    /// The whole fenced block in the file.
    pub span: Span,
    /// Where the id is written.
    pub id_span: Span,
    /// For each line of `text`: its first byte in `text`, and that byte in the file.
    pub line_starts: Vec<(usize, usize)>,
    /// The target's name, if one is given. The kind decides whether it needs one.
    pub target: Option<Spanned<String>>,
    pub undo: Option<Spanned<Undo>>,
    pub timeout: Option<Duration>,
    /// Names the variable that is bound and the values it takes; expanded at plan time.
    pub for_each: Option<Spanned<ForEach>>,
    /// Relative to T, only for people: `T-30m`.
    pub at: Option<String>,
    /// SQL steps only; empty otherwise.
    pub sql: Option<SqlBody>,
}

/// What only SQL steps have: the directives and the statement text.
#[derive(Debug, Clone)]
pub struct SqlBody {
    /// Byte range of the statements in [`Block::text`], after the directive lines.
    pub statements: Range<usize>,
    /// `as:` the role the statements run under (`SET LOCAL ROLE`).
    pub role: Option<Spanned<String>>,
    /// All must hold.
    pub expectations: Vec<Spanned<Expectation>>,
    /// `within: 5m every 15s`: try again until it holds.
    pub within: Option<Within>,
    /// `show: col, col`: the columns whose values may be kept as evidence.
    pub show: Vec<String>,
}

/// How long and how often a check is tried before it has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    pub limit: Duration,
    pub every: Duration,
}

/// How a step is undone, as its `undo` key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// Derived by the kind from what it recorded.
    Auto,
    /// Nothing to undo, and why.
    None(String),
    /// Cannot be undone, and why; asks for an approval.
    OneWay(String),
    /// A word that the kind understands (`down`), the id of an `undo` block, or the id of a backup.
    Named(String),
}

/// `for_each = { tenant = ["a", "b"] }`, or `{ tenant = "${tenants}" }` with a list variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForEach {
    pub variable: String,
    pub values: ForEachValues,
}

/// The values of a `for_each`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForEachValues {
    Listed(Vec<String>),
    /// A variable that holds a list.
    Variable(String),
}

/// When a rollback path is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validity {
    /// `until step X`: while X has not begun.
    Until(StepId),
    /// `after step X`: once X is done.
    After(StepId),
    /// `5m after step X`: once X is done and for this long.
    For(Duration, StepId),
    /// `while check X`: while the check X, in the same section, passes.
    While(StepId),
}

/// A step's id: lower-case letters, digits and hyphens, beginning with a letter; after expansion of a `for_each`
/// followed by the value in brackets (`load[health]`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StepId(String);

/// Why a text is not a step's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a step id: use lower-case letters, digits and hyphens, beginning with a letter, at most 63 bytes"
)]
pub struct InvalidStepId(pub String);

impl StepId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the instance of a `for_each` step for one value.
    pub fn instance(&self, value: &str) -> Self {
        Self(format!("{}[{value}]", self.0))
    }
}

impl FromStr for StepId {
    type Err = InvalidStepId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, instance) = match text.split_once('[') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let name_fits = name.len() <= 63
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        let instance_fits = instance.is_none_or(|rest| rest.len() > 1 && rest.ends_with(']') && !rest.contains('\n'));
        if name_fits && instance_fits { Ok(Self(text.to_owned())) } else { Err(InvalidStepId(text.to_owned())) }
    }
}

impl TryFrom<String> for StepId {
    type Error = InvalidStepId;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<StepId> for String {
    fn from(id: StepId) -> Self {
        id.0
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A checklist line's id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ItemId(pub String);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Runbook {
    /// Every step that is run forward, in order: proofs of items where their item stands.
    pub fn forward_steps(&self) -> impl Iterator<Item = &Block> {
        self.phases.iter().flat_map(|phase| steps_of(&phase.entries))
    }

    /// Every block of the runbook: forward, rollback paths, undo blocks.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.forward_steps()
            .chain(self.rollback_paths.iter().flat_map(|path| steps_of(&path.entries)))
            .chain(&self.undo_blocks)
    }
}

/// The steps among the entries of a section, in order.
pub fn steps_of(entries: &[Entry]) -> impl Iterator<Item = &Block> {
    entries.iter().flat_map(|entry| match entry {
        Entry::Step(block) => std::slice::from_ref(block),
        Entry::Item(item) => item.proofs.as_slice(),
    })
}

impl Block {
    /// Where a byte range of [`Block::text`] stands in the file.
    pub fn locate(&self, range: Range<usize>) -> Span {
        locate(&self.line_starts, self.span, range)
    }

    /// The statements of a SQL step; the empty string for other kinds.
    pub fn statements(&self) -> &str {
        self.sql.as_ref().map_or("", |sql| &self.text[sql.statements.clone()])
    }
}

/// Where a byte range of a block's text stands in its file, by the places of its lines.
pub(crate) fn locate(line_starts: &[(usize, usize)], block: Span, range: Range<usize>) -> Span {
    let byte = |byte: usize| {
        let line = line_starts.partition_point(|(start, _)| *start <= byte).saturating_sub(1);
        line_starts.get(line).map_or(block.start, |(start, in_file)| (in_file + (byte - start)).min(block.end))
    };
    let start = byte(range.start);
    Span { file: block.file, start, end: byte(range.end).max(start) }
}
