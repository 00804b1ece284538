//! Markdown to [`Runbook`].
//!
//! Three passes: `markdown` flattens the file into headings, checklist lines and marked blocks; this module groups them
//! into phases and rollback paths; `sql` and `toml` read the blocks. A block that cannot be read is reported and left
//! out; everything else is still there.

mod expand;
mod expectation;
mod markdown;
mod sql;
mod toml;

use std::collections::HashMap;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use sha2::{Digest, Sha256};

use crate::diagnostic::Diagnostic;
use crate::expectation::Expectation;
use crate::model::{
    Block, Entry, ForEach, Item, ItemId, Language, Phase, RollbackPath, Runbook, Settings, Source, Span, Spanned,
    SqlBody, StepId, Undo, Validity,
};
use crate::vocabulary::Vocabulary;

use markdown::{ExpectedTable, MarkedBlock, Piece};

pub use expand::Values;
pub use sql::parse_within;

/// Reads the text of an included file by the path that the runbook names, relative to the runbook.
///
/// An error is one sentence for the user.
pub type Loader<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// A runbook and everything that was found while reading it.
#[derive(Debug, Clone)]
pub struct Parsed {
    pub runbook: Runbook,
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a runbook.
///
/// `path` is for messages; `loader` is asked for included files. Never fails: what cannot be read is reported, with its
/// place, and left out. The diagnostics are those of reading; [`crate::lint`] finds the rest.
pub fn parse(path: &str, text: &str, loader: Loader<'_>, vocabulary: Vocabulary<'_>) -> Parsed {
    let mut reader = Reader { vocabulary, loader: Some(loader), sources: Vec::new(), diagnostics: Vec::new() };
    let mut document = reader.document(path, text);
    reader.splice_includes(&mut document);
    let mut title = None;
    std::mem::swap(&mut title, &mut document.title);
    let runbook = Runbook {
        sources: reader.sources,
        title,
        settings: document.settings,
        phases: document.phases,
        rollback_paths: document.rollback_paths,
        undo_blocks: document.undo_blocks,
    };
    let mut diagnostics = reader.diagnostics;
    diagnostics.sort_by_key(|found| (found.span.file, found.span.start, found.code));
    Parsed { runbook, diagnostics }
}

/// One file, read.
struct Document {
    title: Option<String>,
    settings: Settings,
    phases: Vec<Phase>,
    rollback_paths: Vec<RollbackPath>,
    undo_blocks: Vec<Block>,
    /// Where an include stands: section, place among its entries, what it names.
    includes: Vec<IncludeAt>,
}

struct IncludeAt {
    rollback: bool,
    section: usize,
    entry: usize,
    path: Spanned<String>,
}

/// A block that is being read: its text and how its bytes map to the file.
pub(crate) struct Draft<'a> {
    pub(crate) text: &'a str,
    pub(crate) span: Span,
    line_starts: &'a [(usize, usize)],
    expected: Option<&'a ExpectedTable>,
}

impl Draft<'_> {
    pub(crate) fn locate(&self, range: Range<usize>) -> Span {
        crate::model::locate(self.line_starts, self.span, range)
    }
}

/// What every kind of step has in common, as its block says it.
#[derive(Default)]
struct Common {
    kind: String,
    id: Option<(StepId, Span)>,
    target: Option<Spanned<String>>,
    undo: Option<Spanned<Undo>>,
    timeout: Option<Duration>,
    for_each: Option<Spanned<ForEach>>,
    valid: Option<Spanned<Validity>>,
    at: Option<String>,
    sql: Option<SqlBody>,
}

struct Reader<'a> {
    vocabulary: Vocabulary<'a>,
    /// Absent while an included file is read: includes are one level deep.
    loader: Option<Loader<'a>>,
    sources: Vec<Source>,
    diagnostics: Vec<Diagnostic>,
}

/// A marked block, read.
enum Read {
    Step(Block, Option<Spanned<Validity>>),
    Undo(Block),
    Settings(Settings),
    Include(Spanned<String>),
    Nothing,
}

impl Reader<'_> {
    fn document(&mut self, path: &str, text: &str) -> Document {
        let file = self.sources.len();
        self.sources.push(Source { path: path.to_owned(), text: text.to_owned() });
        let mut document = Document {
            title: None,
            settings: Settings::default(),
            phases: Vec::new(),
            rollback_paths: Vec::new(),
            undo_blocks: Vec::new(),
            includes: Vec::new(),
        };
        let mut slugs = Slugs::default();
        // Whether the present section is a rollback path; `None` before the first `##`.
        let mut section: Option<bool> = None;
        for piece in markdown::pieces(text) {
            match piece {
                Piece::Heading { level: 1, title, .. } => {
                    slugs.of(&title);
                    document.title.get_or_insert(title);
                }
                Piece::Heading { level: 2, title, start, end } => {
                    let span = Span { file, start, end };
                    let slug = slugs.of(&title);
                    let rollback = title.to_lowercase().contains("rollback");
                    section = Some(rollback);
                    if rollback {
                        document.rollback_paths.push(RollbackPath {
                            slug,
                            title,
                            span,
                            entries: Vec::new(),
                            valid: Vec::new(),
                        });
                    } else {
                        document.phases.push(Phase { slug, title, span, entries: Vec::new() });
                    }
                }
                Piece::Heading { title, .. } => {
                    slugs.of(&title);
                }
                Piece::Html { start, end } => self.steps_in_html(text, file, start..end),
                Piece::Item(marked) => {
                    let rollback = *section.get_or_insert_with(|| begin_unnamed_phase(&mut document, file));
                    let (slug, _) = section_of(&mut document, rollback);
                    let slug = slug.to_owned();
                    let span = Span { file, start: marked.start, end: marked.end };
                    if marked.checked {
                        self.diagnostics.push(
                            Diagnostic::error("checked-item", span, "this line is ticked in the file")
                                .label("`[x]`")
                                .help("write `- [ ]`: what was done is kept in the run's journal, never in the file"),
                        );
                    }
                    let (item_text, roles) = roles_of(&marked.text);
                    let mut item =
                        Item { id: item_id(&slug, &item_text), text: item_text, roles, span, proofs: Vec::new() };
                    for block in &marked.blocks {
                        match self.block(block, file) {
                            Read::Step(block, valid) => {
                                item.proofs.push(block);
                                if let (true, Some(valid)) = (rollback, valid) {
                                    add_validity(&mut document, valid);
                                }
                            }
                            Read::Include(path) => self.diagnostics.push(
                                Diagnostic::error(
                                    "nested-include",
                                    path.span,
                                    "an include cannot stand under a checklist line",
                                )
                                .help("put it between the lines"),
                            ),
                            other => self.keep(&mut document, other),
                        }
                    }
                    section_of(&mut document, rollback).1.push(Entry::Item(item));
                }
                Piece::Block(marked) => {
                    let read = self.block(&marked, file);
                    match read {
                        Read::Step(block, valid) => {
                            let rollback = *section.get_or_insert_with(|| begin_unnamed_phase(&mut document, file));
                            section_of(&mut document, rollback).1.push(Entry::Step(block));
                            match valid {
                                Some(valid) if rollback => add_validity(&mut document, valid),
                                Some(valid) => self.diagnostics.push(
                                    Diagnostic::error(
                                        "valid-outside-rollback",
                                        valid.span,
                                        "`valid` belongs to a rollback path",
                                    )
                                    .help("put the block under a `##` heading that contains \"rollback\""),
                                ),
                                None => {}
                            }
                        }
                        Read::Include(path) => {
                            let rollback = *section.get_or_insert_with(|| begin_unnamed_phase(&mut document, file));
                            let entry = section_of(&mut document, rollback).1.len();
                            let section =
                                if rollback { document.rollback_paths.len() } else { document.phases.len() } - 1;
                            document.includes.push(IncludeAt { rollback, section, entry, path });
                        }
                        other => self.keep(&mut document, other),
                    }
                }
            }
        }
        document
    }

    /// Keeps what belongs to the whole document.
    fn keep(&mut self, document: &mut Document, read: Read) {
        match read {
            Read::Undo(block) => document.undo_blocks.push(block),
            Read::Settings(settings) => {
                if let (Some(_), Some(again)) = (document.settings.span, settings.span) {
                    self.diagnostics.push(
                        Diagnostic::error("two-settings", again, "this is the second `toml runbook` block")
                            .help("put all settings into the first"),
                    );
                } else {
                    document.settings = settings;
                }
            }
            Read::Step(..) | Read::Include(_) | Read::Nothing => {}
        }
    }

    /// A step inside a piece of raw HTML is not rendered, and not run: say so.
    fn steps_in_html(&mut self, text: &str, file: usize, range: Range<usize>) {
        let html = &text[range.clone()];
        for marker in ["sql step", "toml step", "sql undo", "toml undo", "toml runbook"] {
            if let Some(at) = html.find(marker) {
                let start = range.start + at;
                self.diagnostics.push(
                    Diagnostic::error(
                        "step-in-html",
                        Span { file, start, end: start + marker.len() },
                        "a step inside raw HTML is not run, and its reader does not see it",
                    )
                    .help("move it out of the comment or element"),
                );
            }
        }
    }

    fn block(&mut self, marked: &MarkedBlock, file: usize) -> Read {
        let span = Span { file, start: marked.start, end: marked.end };
        let found = &mut self.diagnostics;
        let mut words = marked.info.split_whitespace();
        let (language, marker) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if !matches!(marker, "step" | "undo" | "runbook") {
            if let Some(meant) = nearest(marker, &["step", "undo", "runbook"]) {
                found.push(
                    Diagnostic::warning(
                        "unmarked-block",
                        span,
                        format!("`{language} {marker}` marks nothing: this block is not run"),
                    )
                    .help(format!("did you mean `{language} {meant}`?")),
                );
            }
            return Read::Nothing;
        }
        if let Some(more) = words.next() {
            found.push(
                Diagnostic::error("info-string", span, format!("`{more}` after `{marker}` is not shown to the reader"))
                    .help("put it into the block"),
            );
        }
        let language = match language {
            "sql" => Language::Sql,
            "toml" => Language::Toml,
            other => {
                found.push(
                    Diagnostic::error("unknown-language", span, format!("a step cannot be written in `{other}`"))
                        .help("steps are `sql step` or `toml step`; a shell command is a `toml step` of kind `sh`"),
                );
                return Read::Nothing;
            }
        };
        if marked.collapsed {
            found.push(
                Diagnostic::error("step-in-details", span, "a step inside <details> is hidden from its reader")
                    .help("move it out of the collapsed part"),
            );
        }
        if !marked.closed {
            found.push(
                Diagnostic::error("open-fence", span, "this block has no closing fence")
                    .help("close it with the same fence on a line of its own"),
            );
        }
        let draft =
            Draft { text: &marked.text, span, line_starts: &marked.line_starts, expected: marked.expected.as_ref() };
        if marker == "runbook" {
            if language == Language::Sql {
                found.push(Diagnostic::error("unknown-language", span, "a runbook's settings are written in `toml`"));
                return Read::Nothing;
            }
            return Read::Settings(toml::settings(&draft, found));
        }
        let mut include = None;
        let common = match language {
            Language::Sql => sql::read(&draft, self.vocabulary, found),
            Language::Toml => toml::read(&draft, self.vocabulary, &mut include, found),
        };
        if let Some(path) = include {
            return Read::Include(path);
        }
        let Some(Common { kind, id: Some((id, id_span)), target, undo, timeout, for_each, valid, at, sql }) = common
        else {
            return Read::Nothing;
        };
        let block = Block {
            id,
            kind,
            language,
            text: marked.text.clone(),
            span,
            id_span,
            line_starts: marked.line_starts.clone(),
            target,
            undo,
            timeout,
            for_each,
            at,
            sql,
        };
        if marker == "undo" { Read::Undo(block) } else { Read::Step(block, valid) }
    }

    /// Puts the entries of included phases where their includes stand.
    fn splice_includes(&mut self, document: &mut Document) {
        // From the last to the first, so that the places of those before stay right.
        for include in std::mem::take(&mut document.includes).into_iter().rev() {
            let Some(entries) = self.included(&include.path, &mut document.undo_blocks) else { continue };
            let into = if include.rollback {
                document.rollback_paths.get_mut(include.section).map(|path| &mut path.entries)
            } else {
                document.phases.get_mut(include.section).map(|phase| &mut phase.entries)
            };
            if let Some(into) = into {
                into.splice(include.entry..include.entry, entries);
            }
        }
    }

    fn included(&mut self, named: &Spanned<String>, undo_blocks: &mut Vec<Block>) -> Option<Vec<Entry>> {
        let (path, slug) = match named.value.split_once('#') {
            Some((path, slug)) => (path, Some(slug)),
            None => (named.value.as_str(), None),
        };
        let loader = self.loader?;
        let text = match loader(path) {
            Ok(text) => text,
            Err(why) => {
                self.diagnostics.push(Diagnostic::error("missing-include", named.span, why));
                return None;
            }
        };
        let known = self.sources.iter().position(|source| source.path == path);
        if known == Some(0) {
            self.diagnostics.push(Diagnostic::error("nested-include", named.span, "a runbook cannot include itself"));
            return None;
        }
        let mut document = self.document(path, &text);
        for deeper in &document.includes {
            self.diagnostics.push(
                Diagnostic::error("nested-include", deeper.path.span, "an included file cannot include another")
                    .help("includes are one level deep: include both from the runbook"),
            );
        }
        undo_blocks.append(&mut document.undo_blocks);
        let phases = document.phases.into_iter();
        match slug {
            None => Some(phases.flat_map(|phase| phase.entries).collect()),
            Some(slug) => {
                let slugs: Vec<String> = phases.as_slice().iter().map(|phase| phase.slug.clone()).collect();
                let entries = phases.into_iter().find(|phase| phase.slug == slug).map(|phase| phase.entries);
                if entries.is_none() {
                    let names: Vec<&str> = slugs.iter().map(String::as_str).collect();
                    let diagnostic =
                        Diagnostic::error("missing-include", named.span, format!("{path} has no phase `{slug}`"));
                    self.diagnostics.push(match nearest(slug, &names) {
                        Some(meant) => diagnostic.help(format!("did you mean `{path}#{meant}`?")),
                        None => diagnostic.help(format!("its phases are {}", names.join(", "))),
                    });
                }
                entries
            }
        }
    }
}

/// What stands before the first `##`: a phase without a heading.
fn begin_unnamed_phase(document: &mut Document, file: usize) -> bool {
    let title = document.title.clone().unwrap_or_else(|| "Beginning".to_owned());
    document.phases.push(Phase {
        slug: "beginning".to_owned(),
        title,
        span: Span { file, start: 0, end: 0 },
        entries: Vec::new(),
    });
    false
}

/// The slug and the entries of the section that is being read.
fn section_of(document: &mut Document, rollback: bool) -> (&str, &mut Vec<Entry>) {
    if rollback {
        let path = document.rollback_paths.last_mut().expect("a rollback path was begun by its heading");
        (&path.slug, &mut path.entries)
    } else {
        let phase = document.phases.last_mut().expect("a phase was begun, by its heading or without one");
        (&phase.slug, &mut phase.entries)
    }
}

fn add_validity(document: &mut Document, valid: Spanned<Validity>) {
    if let Some(path) = document.rollback_paths.last_mut() {
        path.valid.push(valid);
    }
}

/// GitHub's slugs: lower case, blanks to hyphens, punctuation dropped, a number behind a slug that is taken.
#[derive(Default)]
struct Slugs(HashMap<String, usize>);

impl Slugs {
    fn of(&mut self, title: &str) -> String {
        let slug: String = title
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            })
            .collect();
        let count = self.0.entry(slug.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { slug } else { format!("{slug}-{}", *count - 1) }
    }
}

/// The text of a checklist line without the roles at its end, and the roles.
fn roles_of(text: &str) -> (String, Vec<String>) {
    let mut rest = text.trim_end();
    let mut roles = Vec::new();
    while let Some((before, last)) = rest.rsplit_once(char::is_whitespace) {
        let word = last.trim_end_matches(',');
        if let Some(role) = word.strip_prefix('@').filter(|role| is_role(role)) {
            roles.push(role.to_owned());
        } else if roles.is_empty() || !matches!(word, "or" | "—" | "–" | "-") {
            break;
        }
        rest = before.trim_end();
    }
    roles.reverse();
    (rest.to_owned(), roles)
}

fn is_role(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '/')
}

fn item_id(slug: &str, text: &str) -> ItemId {
    let digest = format!("{:x}", Sha256::digest(text.as_bytes()));
    ItemId(format!("{slug}/{}", &digest[..8]))
}

fn expected(draft: &Draft<'_>) -> Option<Spanned<Expectation>> {
    let table = draft.expected?;
    let span = Span { file: draft.span.file, start: table.start, end: table.end };
    let value = Expectation::Table { columns: table.columns.clone(), rows: table.rows.clone() };
    Some(Spanned { value, span })
}

fn step_id(text: &str, span: Span, found: &mut Vec<Diagnostic>) -> Option<(StepId, Span)> {
    // `[` is for the instances of a `for_each`; nobody writes one.
    match StepId::from_str(text) {
        Ok(id) if !text.contains('[') => Some((id, span)),
        _ => {
            let problem = crate::model::InvalidStepId(text.to_owned());
            found.push(Diagnostic::error("bad-id", span, problem.to_string()));
            None
        }
    }
}

/// `auto`, `none: why`, `one-way: why`, or a name.
fn undo(text: &str, span: Span, found: &mut Vec<Diagnostic>) -> Option<Spanned<Undo>> {
    let text = text.trim();
    let (word, why) = match text.split_once(':') {
        Some((word, why)) => (word.trim(), why.trim()),
        None => (text, ""),
    };
    let value = match (word, why) {
        ("none" | "one-way", "") => {
            found.push(
                Diagnostic::error("undo-without-why", span, format!("`{word}` needs a reason"))
                    .help(format!("write `{word}: why`")),
            );
            return None;
        }
        ("none", why) => Undo::None(why.to_owned()),
        ("one-way", why) => Undo::OneWay(why.to_owned()),
        ("auto", "") => Undo::Auto,
        (name, "") if name.parse::<StepId>().is_ok() => Undo::Named(name.to_owned()),
        _ => {
            found.push(
                Diagnostic::error("bad-undo", span, format!("`{text}` does not say how the step is undone"))
                    .help("write `auto`, the id of an undo block or of a backup, `none: why` or `one-way: why`"),
            );
            return None;
        }
    };
    Some(Spanned { value, span })
}

/// `until step X`, `after step X`, `5m after step X`, `while check X`.
fn validity(text: &str, span: Span, found: &mut Vec<Diagnostic>) -> Option<Spanned<Validity>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let id = |text: &str| text.parse::<StepId>().ok();
    let value = match words.as_slice() {
        ["until", "step", step] => id(step).map(Validity::Until),
        ["after", "step", step] => id(step).map(Validity::After),
        ["while", "check", step] => id(step).map(Validity::While),
        [time @ .., "after", "step", step] => {
            id(step).zip(parse_duration(&time.join(" "))).map(|(step, time)| Validity::For(time, step))
        }
        _ => None,
    };
    if value.is_none() {
        found.push(
            Diagnostic::error("bad-valid", span, format!("`{text}` does not say when this path is open"))
                .help("write `until step X`, `after step X`, `5m after step X` or `while check X`"),
        );
    }
    value.map(|value| Spanned { value, span })
}

fn duration(text: &str, span: Span, found: &mut Vec<Diagnostic>) -> Option<Duration> {
    let value = parse_duration(text);
    if value.is_none() {
        found.push(
            Diagnostic::error("bad-duration", span, format!("`{text}` is not a time"))
                .help("write `30s`, `5m` or `1h 30m`"),
        );
    }
    value
}

/// One expectation as a directive writes it; the error says what to write instead.
///
/// # Errors
/// If the text is none.
pub fn parse_expectation(text: &str) -> Result<crate::expectation::Expectation, &'static str> {
    expectation::expectation(text)
}

/// `30s`, `5m`, `1h 30m`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    text.starts_with(|c: char| c.is_ascii_digit()).then_some(())?;
    Duration::try_from(text.parse::<SignedDuration>().ok()?).ok()
}

/// A variable's name.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The known words that were probably meant, the likeliest first; case does not count.
pub fn near<'k>(word: &str, known: &[&'k str]) -> Vec<&'k str> {
    let word = word.to_lowercase();
    let mut found: Vec<(usize, &str)> = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 3).max(1))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// The known word that was probably meant.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    near(word, known).into_iter().next()
}

#[cfg(test)]
mod tests;
