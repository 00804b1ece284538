//! Writes from one application's tree of code to what belongs to another's.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use pgrunbook_document::{Diagnostic, Severity, Source, Span, secrets};

use super::error::ReviewError;
use super::files::{Content, content, files};
use super::join::{Joined, texts};
use super::language::{Language, PYTHON, SCRIPT, Sort, Syntax, UNKNOWN, sort};
use super::mapping::{Mapping, MappingAct, mappings};
use super::scan::{Piece, PieceSort, scan, shell};
use super::statement::{Act, Mode, Named, Part, PathEntry, mode, path, uses};
use super::text::{HOLE, Text};
use crate::project::{Code, CodeTree, FILE, Namespace};

/// The rules, and what each finds.
pub const RULES: &[(&str, &str)] = &[
    ("boundary-mapping", "A model, table or client that is mapped to what another tree may write."),
    ("boundary-no-files", "A tree whose patterns match no file that is read."),
    ("boundary-read", "A read of what another tree may write, where `may_read` does not list it."),
    ("boundary-undeclared", "A write, or a judged read, outside of what any tree declares."),
    (
        "boundary-unknown",
        "What cannot be told: a name that only the running program knows, a file that cannot be read.",
    ),
    ("boundary-write", "A statement that changes what another tree may write."),
];

/// What a review found.
#[derive(Debug)]
pub struct Review {
    pub found: Vec<Diagnostic>,
    /// What the findings point into, with secrets blotted out.
    pub sources: Vec<Source>,
    /// How many files were read.
    pub file_count: usize,
    pub tree_count: usize,
}

impl Review {
    pub fn count(&self, severity: Severity) -> usize {
        self.found.iter().filter(|one| one.severity == severity).count()
    }
}

/// Reviews every file of the trees that a project declares.
///
/// # Errors
/// [`ReviewError`]: no trees, or a pattern that is none. What stands in the files is never an error, but a finding.
pub fn review(root: &Path, code: &Code) -> Result<Review, ReviewError> {
    if code.trees.is_empty() {
        return Err(ReviewError::NoTrees { path: code.path.clone() });
    }
    let mut review = Review { found: Vec::new(), sources: Vec::new(), file_count: 0, tree_count: code.trees.len() };
    let mut read = vec![0usize; code.trees.len()];
    for file in files(root, code)? {
        let (text, unknown) = match content(&file) {
            Content::Text(text) => (text, None),
            Content::Unread => continue,
            Content::Unknown(why) => (String::new(), Some(why)),
        };
        let sort = sort(&file.path, &text);
        if unknown.is_none() && matches!(sort, Sort::Prose) {
            continue;
        }
        review.file_count += 1;
        let mut found = Vec::new();
        for tree in file.trees {
            read[tree] += 1;
            match &unknown {
                Some(why) => {
                    let message = format!("unknown: {} was not reviewed, {why}", file.path);
                    let help = "mend it, or take it out of the tree: \"!path\" in `files`";
                    found.push((0..0, Severity::Unknown, "boundary-unknown", message, help.to_owned()));
                }
                None => found.append(&mut judged(&code.trees, tree, &text, sort)),
            }
        }
        review.add(file.path, text, found);
    }
    for (tree, _) in code.trees.iter().zip(read).filter(|(_, read)| *read == 0) {
        let message = format!("no file of tree `{}` was read", tree.name);
        let help = "correct the patterns; prose, images and what .gitignore names are not read".to_owned();
        let one = (tree.files_place.clone(), Severity::Error, "boundary-no-files", message, help);
        review.add(FILE.to_owned(), code.text.clone(), vec![one]);
    }
    Ok(review)
}

type Finding = (Range<usize>, Severity, &'static str, String, String);

impl Review {
    fn add(&mut self, path: String, mut text: String, mut found: Vec<Finding>) {
        if found.is_empty() {
            return;
        }
        found.sort_by(|a, b| (a.0.start, a.0.end, a.2, &a.3).cmp(&(b.0.start, b.0.end, b.2, &b.3)));
        found.dedup_by(|a, b| a.0 == b.0 && a.2 == b.2 && a.3 == b.3);
        let file = self.sources.len();
        for (range, severity, code, message, help) in found {
            let end = range.end.min(text.len());
            let start = text.floor_char_boundary(range.start.min(end));
            let span = Span { file, start, end: text.ceil_char_boundary(end) };
            self.found.push(Diagnostic { severity, ..Diagnostic::error(code, span, message).help(help) });
        }
        for secret in secrets::find(&text).into_iter().rev() {
            let blot: String = text[secret.range.clone()]
                .chars()
                .flat_map(|c| std::iter::repeat_n(if c == '\n' { '\n' } else { '*' }, c.len_utf8()))
                .collect();
            text.replace_range(secret.range, &blot);
        }
        self.sources.push(Source { path, text });
    }
}

/// What is found in one file.
fn judged(trees: &[CodeTree], tree: usize, text: &str, sort: Sort) -> Vec<Finding> {
    let mut judge = Judge {
        trees,
        tree,
        found: Vec::new(),
        path: None,
        local: false,
        temporary: BTreeSet::new(),
        depth: 0,
        sure: true,
    };
    match sort {
        Sort::Prose => {}
        Sort::Sql => judge.statements(&Text::verbatim(text, 0), Mode::File),
        Sort::Code(language) => judge.code(text, language, None),
    }
    judge.found
}

/// How deep texts may stand in texts: a statement in a body in a script in a string. Deeper ones are unknown.
const DEPTH: usize = 12;

struct Judge<'a> {
    trees: &'a [CodeTree],
    tree: usize,
    found: Vec<Finding>,
    /// The search path as the file set it last.
    path: Option<Vec<PathEntry>>,
    /// Whether it holds for the transaction only.
    local: bool,
    temporary: BTreeSet<String>,
    depth: usize,
    /// Whether what is read is known to be SQL.
    sure: bool,
}

/// To whom a name belongs.
enum Owner {
    /// To the tree itself, or to nobody that counts.
    Own,
    Others(Vec<String>),
    Undeclared,
    Unknown,
}

/// A text or name of a source, in the order in which the source has them.
enum Event {
    Text(Joined),
    Bare(Joined, Mode),
    Mapping(Mapping),
}

impl Judge<'_> {
    fn tree(&self) -> &CodeTree {
        &self.trees[self.tree]
    }

    /// Reads code: the source itself, or code that stands in a text of it.
    fn code(&mut self, source: &str, language: &'static Language, outer: Option<&Text>) {
        let mut events = Vec::new();
        for stream in scan(source, language) {
            events.extend(texts(source, &stream, language).into_iter().map(|text| (text.at, Event::Text(text))));
            events.extend(mappings(source, &stream).into_iter().map(|one| (one.range.start, Event::Mapping(one))));
            bare(source, &stream, language, &mut events);
        }
        events.sort_by_key(|(at, _)| *at);
        let place = |text: Text| match outer {
            Some(outer) => text.within(outer),
            None => text,
        };
        for (_, event) in events {
            match event {
                Event::Text(text) => self.text(&place(text.text)),
                Event::Bare(text, mode) => {
                    let sure = std::mem::replace(&mut self.sure, mode == Mode::Statement);
                    self.bare(&place(text.text), mode);
                    self.sure = sure;
                }
                Event::Mapping(mut mapping) => {
                    if let Some(outer) = outer {
                        mapping.range = outer.range(&mapping.range);
                    }
                    self.mapping(&mapping);
                }
            }
        }
    }

    /// A string of a program.
    fn text(&mut self, text: &Text) {
        if self.depth > DEPTH {
            return self
                .unknown(text.range(&(0..text.value.len())), "unknown: texts stand in texts too deep to be read");
        }
        let margin = text.value.trim_start().starts_with('|').then(|| without_margin(text));
        let text = margin.as_ref().unwrap_or(text);
        if let Some(mode) = mode(&text.value) {
            self.statements(text, mode);
        } else if runs_psql(&text.value) {
            self.depth += 1;
            for stream in shell(&text.value) {
                for inner in texts(&text.value, &stream, &super::language::SHELL) {
                    self.text(&inner.text.within(text));
                }
            }
            self.depth -= 1;
        } else if let Some(entries) = connection_path(&text.value) {
            self.path = Some(entries);
        }
    }

    /// Words of a source that read like a statement: only the first one, since nobody knows where it ends.
    fn bare(&mut self, text: &Text, mode: Mode) {
        for one in uses(text, mode).into_iter().filter(|one| one.verb_at == 0) {
            if let Act::Write { verb, named, sure: true } = &one.act
                && matches!(self.owner(named), Owner::Others(_))
            {
                self.write(verb, named, text.range(&one.range), true);
            }
        }
    }

    fn statements(&mut self, text: &Text, mode: Mode) {
        if self.depth > DEPTH {
            let range = text.range(&(0..text.value.len()));
            return self.unknown(range, "unknown: statements stand in statements too deep to be read");
        }
        self.depth += 1;
        for one in uses(text, mode) {
            let range = text.range(&one.range);
            match one.act {
                Act::Write { verb, named, sure } => self.write(verb, &named, range, sure),
                Act::Read { named } => self.read(&named, range),
                Act::Temporary(name) => {
                    self.temporary.insert(name);
                }
                Act::Path { entries, local } => {
                    if entries.as_ref().is_some_and(|entries| entries.first().is_some_and(Option::is_none)) {
                        self.unknown(range, "unknown: the search path is set to what only the running program knows");
                    }
                    (self.path, self.local) = (entries, local);
                }
                Act::TransactionEnd => {
                    if self.local {
                        (self.path, self.local) = (None, false);
                    }
                }
                Act::Inner { text, mode, path } => self.inner(&text, mode, path),
                Act::Foreign { text, language } => {
                    let language = match language.as_str() {
                        name if name.starts_with("plpython") => &PYTHON,
                        "plv8" | "plcoffee" | "pljs" => &SCRIPT,
                        _ => &UNKNOWN,
                    };
                    self.code(&text.value, language, Some(&text));
                }
                Act::Opaque => {
                    self.unknown(range, "unknown: EXECUTE runs a text that is built elsewhere");
                }
            }
        }
        self.depth -= 1;
    }

    /// What a statement holds: the body of a routine, with the search path it sets for itself, or a text that is executed.
    fn inner(&mut self, text: &Text, mode: Option<Mode>, path: Option<Vec<PathEntry>>) {
        let before = (self.path.clone(), self.local);
        if path.is_some() {
            self.path = path;
        }
        match mode {
            Some(mode) => self.statements(text, mode),
            None => self.text(text),
        }
        (self.path, self.local) = before;
    }

    fn write(&mut self, verb: &str, named: &Named, range: Range<usize>, sure: bool) {
        let (tree, shown) = (self.tree().name.clone(), self.shown(named));
        match self.owner(named) {
            Owner::Own => {}
            Owner::Others(others) if sure && self.sure => {
                let message = format!("`{tree}` writes {shown} ({verb}), where only {} may", listed(&others));
                let help = format!("leave it to {}, or allow it: `may_write` of [code.{tree}]", listed(&others));
                self.found.push((range, Severity::Error, "boundary-write", message, help));
            }
            Owner::Others(others) => {
                let message = format!(
                    "unknown: this may be a statement that writes {shown} ({verb}), where only {} may",
                    listed(&others)
                );
                self.unknown(range, message);
            }
            Owner::Undeclared if sure && self.sure => {
                let message = format!("`{tree}` writes {shown} ({verb}), which no tree declares");
                let help = format!("declare it in pgrunbook.toml: `may_write` of [code.{tree}], or of another tree");
                self.found.push((range, Severity::Note, "boundary-undeclared", message, help));
            }
            Owner::Undeclared => {}
            Owner::Unknown if sure && self.sure => {
                self.unknown(range, format!("unknown: what {verb} writes, only the running program knows"));
            }
            Owner::Unknown => {}
        }
    }

    fn read(&mut self, named: &Named, range: Range<usize>) {
        let Some(may_read) = &self.tree().may_read else { return };
        if !self.sure || may_read.iter().any(|entry| self.covers(entry, named)) {
            return;
        }
        let (tree, shown) = (self.tree().name.clone(), self.shown(named));
        let help = format!("allow it in pgrunbook.toml: `may_read` of [code.{tree}]");
        match self.owner(named) {
            Owner::Own => {}
            Owner::Others(others) => {
                let message = format!("`{tree}` reads {shown}, which belongs to {}", listed(&others));
                self.found.push((range, Severity::Error, "boundary-read", message, help));
            }
            Owner::Undeclared if is_catalog(named) => {}
            Owner::Undeclared => {
                let message = format!("`{tree}` reads {shown}, which no tree declares");
                self.found.push((range, Severity::Note, "boundary-undeclared", message, help));
            }
            Owner::Unknown => {
                self.unknown(range, "unknown: what is read here, only the running program knows");
            }
        }
    }

    fn mapping(&mut self, mapping: &Mapping) {
        let (named, range) = (&mapping.named, mapping.range.clone());
        let (tree, shown) = (self.tree().name.clone(), self.shown(named));
        match (&mapping.act, self.owner(named)) {
            (MappingAct::Write(verb), _) => self.write(verb, named, range, true),
            (MappingAct::Read, Owner::Unknown) => {}
            (MappingAct::Read, _) => self.read(named, range),
            (act, Owner::Others(others)) => {
                let may_read = self.tree().may_read.as_deref().unwrap_or_default();
                if *act == MappingAct::Handle || may_read.iter().any(|entry| self.covers(entry, named)) {
                    let message = format!(
                        "unknown: whether {shown}, where only {} may write, is written or only read",
                        listed(&others)
                    );
                    self.unknown(range, message);
                } else {
                    let message = format!("`{tree}` maps {shown}, where only {} may write", listed(&others));
                    let help = format!("map a view that may be read, or allow it: `may_write` of [code.{tree}]");
                    self.found.push((range, Severity::Error, "boundary-mapping", message, help));
                }
            }
            _ => {}
        }
    }

    fn unknown(&mut self, range: Range<usize>, message: impl Into<String>) {
        let help = "write the schema and table out, or see to it by hand and take the file out of the tree: \"!path\" in `files`";
        self.found.push((range, Severity::Unknown, "boundary-unknown", message.into(), help.to_owned()));
    }

    /// How a name is shown: `eng.t`, with `…` for what is not known.
    fn shown(&self, named: &Named) -> String {
        let part = |part: &Part| format!("{}{}", part.text, if part.whole { "" } else { "…" });
        match named {
            Named::Schema(schema) => format!("schema `{}`", part(schema)),
            Named::Relation { schema: Some(schema), name } => format!("`{}.{}`", part(schema), part(name)),
            Named::Relation { schema: None, name } => match self.first_of_path() {
                Some(Some(schema)) => format!("`{}` in `{schema}` of the search path", part(name)),
                _ => format!("`{}`", part(name)),
            },
        }
    }

    /// The schema that an unqualified name means, as far as the file says so.
    fn first_of_path(&self) -> Option<&PathEntry> {
        self.path.as_ref()?.iter().find(|entry| !matches!(entry.as_deref(), Some("$user" | "pg_catalog" | "pg_temp")))
    }

    fn owner(&self, named: &Named) -> Owner {
        match named {
            Named::Schema(schema) if schema.whole => self.owner_in(&schema.text, None),
            Named::Schema(_) => Owner::Unknown,
            Named::Relation { schema: Some(schema), name } if schema.whole => self.owner_in(&schema.text, Some(name)),
            Named::Relation { schema: Some(_), .. } => Owner::Unknown,
            Named::Relation { schema: None, name } => self.owner_unqualified(name),
        }
    }

    fn owner_unqualified(&self, name: &Part) -> Owner {
        if name.whole && self.temporary.contains(&name.text) {
            return Owner::Own;
        }
        // What is filled in at the beginning may bring its schema along.
        if !name.whole && name.text.is_empty() {
            return Owner::Unknown;
        }
        let first = match self.first_of_path() {
            Some(Some(first)) => first.as_str(),
            // It was told where the path was set.
            Some(None) => return Owner::Own,
            None => "public",
        };
        match self.owner_in(first, Some(name)) {
            // Where nothing is said of the path, an unqualified name is the tree's own.
            Owner::Undeclared if self.first_of_path().is_none() => Owner::Own,
            Owner::Own => {
                let later = self.path.iter().flatten().flatten().filter(|schema| *schema != first);
                let mut others = later.filter(|schema| matches!(self.owner_in(schema, Some(name)), Owner::Others(_)));
                if others.next().is_some() { Owner::Unknown } else { Owner::Own }
            }
            owner => owner,
        }
    }

    /// The owners of a schema, or of a table in it. A prefix says more than a schema, a longer prefix more than a shorter.
    fn owner_in(&self, schema: &str, name: Option<&Part>) -> Owner {
        if schema.starts_with("pg_temp") {
            return Owner::Own;
        }
        let mut best: Option<usize> = None;
        let mut owners: BTreeSet<usize> = BTreeSet::new();
        let mut undecided = false;
        for (tree, entry) in
            self.trees.iter().enumerate().flat_map(|(at, tree)| tree.may_write.iter().map(move |one| (at, one)))
        {
            let rank = match (entry, name) {
                (Namespace::Schema(own), _) if own == schema => 0,
                (Namespace::Prefix(prefix), Some(name)) if schema == "public" => {
                    if name.text.starts_with(prefix.as_str()) {
                        prefix.len()
                    } else {
                        undecided |= !name.whole && prefix.starts_with(name.text.as_str()) && tree != self.tree;
                        continue;
                    }
                }
                _ => continue,
            };
            if best.is_none_or(|best| rank > best) {
                best = Some(rank);
                owners.clear();
            }
            if best == Some(rank) {
                owners.insert(tree);
            }
        }
        match () {
            () if owners.is_empty() && undecided => Owner::Unknown,
            () if owners.is_empty() => Owner::Undeclared,
            () if owners.contains(&self.tree) && undecided => Owner::Unknown,
            () if owners.contains(&self.tree) => Owner::Own,
            () => Owner::Others(owners.into_iter().map(|tree| self.trees[tree].name.clone()).collect()),
        }
    }

    /// Whether an entry of `may_read` lists a name.
    fn covers(&self, entry: &Namespace, named: &Named) -> bool {
        let (schema, name) = match named {
            Named::Schema(schema) => (schema.whole.then_some(schema.text.as_str()), None),
            Named::Relation { schema: Some(schema), name } => {
                (schema.whole.then_some(schema.text.as_str()), Some(name))
            }
            Named::Relation { schema: None, name } => {
                let first = self.first_of_path().map(|entry| entry.as_deref());
                (first.unwrap_or(Some("public")), Some(name))
            }
        };
        match (entry, schema, name) {
            (Namespace::Schema(own), Some(schema), _) => own == schema,
            (Namespace::Prefix(prefix), Some("public"), Some(name)) => name.text.starts_with(prefix.as_str()),
            _ => false,
        }
    }
}

fn is_catalog(named: &Named) -> bool {
    let schema = match named {
        Named::Schema(schema) | Named::Relation { schema: Some(schema), .. } => &schema.text,
        Named::Relation { schema: None, .. } => return false,
    };
    matches!(schema.as_str(), "pg_catalog" | "information_schema" | "pg_toast")
}

fn listed(names: &[String]) -> String {
    let mut text = String::new();
    for (at, name) in names.iter().enumerate() {
        let _ = write!(text, "{}`{name}`", if at == 0 { "" } else { ", " });
    }
    text
}

/// Kotlin's `trimMargin` and Scala's `stripMargin`: what stands before a bar, and the bar, belong to the source.
fn without_margin(text: &Text) -> Text {
    let mut value = String::with_capacity(text.value.len());
    for line in text.value.split_inclusive('\n') {
        let indent = line.len() - line.trim_start().len();
        let behind = line[indent..].trim_start_matches('|');
        value.extend(std::iter::repeat_n(' ', line.len() - behind.len()));
        value.push_str(behind);
    }
    text.with(value)
}

/// Whether a text is a command that has `psql` run something.
fn runs_psql(text: &str) -> bool {
    text.match_indices("psql").any(|(at, _)| {
        let bytes = text.as_bytes();
        let apart = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        apart(at.checked_sub(1).and_then(|at| bytes.get(at))) && apart(bytes.get(at + 4))
    })
}

/// The search path that a connection string or its options set: `-c search_path=eng`, `?currentSchema=eng`.
fn connection_path(text: &str) -> Option<Vec<PathEntry>> {
    const KEYS: &[&str] = &["search_path=", "search_path%3D", "search_path%3d", "currentSchema="];
    let behind = KEYS.iter().find_map(|key| text.find(key).map(|at| &text[at + key.len()..]))?;
    let list = behind.split([' ', '&', ';', '\'', '\n']).next()?;
    let entries = path(&list.replace("%2C", ",").replace("%22", "\""));
    (!entries.is_empty()).then_some(entries)
}

/// Words of a source, outside of strings, that read like a statement. In a language that is known they are what a string
/// was misread for, and no more than a suspicion; in others statements stand bare.
fn bare(source: &str, stream: &[Piece], language: &'static Language, events: &mut Vec<(usize, Event)>) {
    const VERBS: &[(&str, &[&str])] = &[
        ("insert", &["into"]),
        ("delete", &["from"]),
        ("merge", &["into"]),
        ("update", &[]),
        ("copy", &[]),
        ("truncate", &["table"]),
        ("alter", &["table", "schema", "view"]),
        ("drop", &["table", "schema", "view", "trigger"]),
        ("create", &["table", "schema", "view", "trigger", "index"]),
    ];
    /// As far as a statement's target and what proves it stand apart.
    const REACH: usize = 300;
    let word = |at: usize| match stream.get(at) {
        Some(Piece { sort: PieceSort::Word, range }) => Some(&source[range.clone()]),
        _ => None,
    };
    for (at, piece) in stream.iter().enumerate() {
        let Some(first) = word(at) else { continue };
        let Some((_, seconds)) = VERBS.iter().find(|(verb, _)| first.eq_ignore_ascii_case(verb)) else { continue };
        let next = (at + 1..stream.len()).take(4).find(|at| !matches!(stream[*at].sort, PieceSort::Line));
        let second = next.and_then(word);
        if !seconds.is_empty()
            && !second.is_some_and(|second| seconds.iter().any(|one| second.eq_ignore_ascii_case(one)))
        {
            continue;
        }
        let start = piece.range.start;
        let end = source.floor_char_boundary((start + REACH).min(source.len()));
        let text = &source[start..end];
        let text = text.split("\n\n").next().unwrap_or(text);
        let begins = at == 0
            || matches!(
                stream[at - 1].sort,
                PieceSort::Line | PieceSort::Mark(b'>' | b'-' | b'|' | b':' | b'"' | b'\'' | b';')
            );
        let unknown = language.syntax == Syntax::Unknown && begins;
        // What an element of XML or a quote ends, ends there.
        let text = if unknown { text.split(['<', '"']).next().unwrap_or(text) } else { text };
        let mode = if unknown { Mode::Statement } else { Mode::Fragment };
        if !text.contains(HOLE) {
            events.push((start, Event::Bare(Joined { at: start, text: Text::verbatim(text, start) }, mode)));
        }
    }
}

/// Where the findings of one text stand.
#[cfg(test)]
pub(super) fn judged_text(trees: &[CodeTree], tree: usize, name: &str, text: &str) -> Vec<Range<usize>> {
    judged(trees, tree, text, sort(name, text)).into_iter().map(|found| found.0).collect()
}
