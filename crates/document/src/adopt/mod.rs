//! Reads a prose runbook and proposes the same text with steps marked where the intent is clear.
//!
//! Line by line, so that everything that was not understood stays as it is, byte for byte. The proposal says no more
//! than the prose did: a check whose result nobody described accepts any number of rows, a change whose way back nobody
//! described is `one-way`, and a note tells of both.

mod expected;
mod step;

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::Regex;

use crate::diagnostic::{Diagnostic, Severity};
use crate::model::Span;
use crate::shell;
use crate::vocabulary::Vocabulary;

use step::{Found, Step};

/// What `pgrunbook adopt` writes beside a prose runbook.
#[derive(Debug, Clone)]
pub struct Proposal {
    pub markdown: String,
    /// What became of the prose, and what did not, pointing into the original.
    pub diagnostics: Vec<Diagnostic>,
}

/// Proposes steps for a prose runbook. A text that already has steps keeps them.
///
/// `path` is for the sentence at the top. Only kinds and fields that the vocabulary has are used.
pub fn adopt(path: &str, text: &str, vocabulary: Vocabulary<'_>) -> Proposal {
    let lines = lines(text);
    let mut reader = Reader {
        text,
        vocabulary,
        out: String::with_capacity(text.len() * 2),
        diagnostics: Vec::new(),
        ids: existing_ids(text),
        section: Section::default(),
        settings_written: text.contains("```toml runbook"),
        backup: None,
        lead_in: String::new(),
        hidden: 0,
        proven: false,
        blank_follows: true,
        list: None,
    };
    let mut at = 0;
    while at < lines.len() {
        at = reader.line(&lines, at);
    }
    reader.write_settings();
    reader.diagnostics.sort_by_key(|found| (found.span.start, found.code));
    let left = reader.diagnostics.iter().filter(|found| found.severity == Severity::Warning).count();
    if left > 0 {
        let whole = Span { file: 0, start: 0, end: lines.first().map_or(0, |line| line.text.trim_end().len()) };
        reader.diagnostics.insert(
            0,
            Diagnostic {
                severity: Severity::Note,
                ..Diagnostic::error(
                    "adopt",
                    whole,
                    match left {
                        1 => format!("one place of {path} needs a decision; it is named below"),
                        left => format!("{left} places of {path} need a decision; each is named below"),
                    },
                )
            },
        );
    }
    Proposal { markdown: reader.out, diagnostics: reader.diagnostics }
}

/// One line with its ending, and where it begins.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    start: usize,
    text: &'a str,
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut at = 0;
    text.split_inclusive('\n')
        .map(|line| {
            let start = at;
            at += line.len();
            Line { start, text: line }
        })
        .collect()
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is constant and compiles")
}

static HEADING: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(#{1,6})\s+(.*?)\s*#*\s*$"));
static FENCE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\s*)(`{3,}|~{3,})\s*(.*?)\s*$"));
static ITEM: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\s*)[-*+]\s+\[([ xX])\]\s+(.*?)\s*$"));
static NUMBERED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\d+[.)])(\s+)(\S.*)$"));
static BULLET: LazyLock<Regex> = LazyLock::new(|| pattern(r"^([-*+])(\s+)([^\s\[].*)$"));
static DONE_BY_PEOPLE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)checklist|pre-?flight|cutover (?:steps|window)|rollback|sign-?off|safety snapshot|criteria|validation gates|must (?:pass|be true)|before any|during cutover",
    )
});
static NOT_DONE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)troubleshoot|failure|overview|purpose|security|environment|config|how (?:the|to)|prerequisites|contact|support|escalation|secrets|documentation|timeline|communication template|contract|local|triggers?\b|strategies|notes",
    )
});
static SQL_IN_ITEM: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)`((?:select|with|show|table)\s[^`]+)`"));
static ROLE_EXISTS: LazyLock<Regex> = LazyLock::new(|| pattern(r"`([a-z_][a-z0-9_]*)` role exists"));

/// Where in the document the reader is.
#[derive(Debug, Default)]
struct Section {
    /// Of the `##` heading: whether it is a rollback path.
    rollback: bool,
    /// The nearest heading.
    title: String,
    /// Its `##` heading.
    phase: String,
}

struct Reader<'a> {
    text: &'a str,
    vocabulary: Vocabulary<'a>,
    out: String,
    diagnostics: Vec<Diagnostic>,
    ids: HashSet<String>,
    section: Section,
    settings_written: bool,
    /// The first backup that was proposed: what a restore takes.
    backup: Option<String>,
    /// The last paragraph before a list, which says whether the list is to be done.
    lead_in: String,
    /// How many `<details>` and HTML comments are open: no step can stand inside.
    hidden: usize,
    /// Whether a marked block follows the line that is being read.
    proven: bool,
    /// Whether the line behind the one that is being read is blank, or there is none.
    blank_follows: bool,
    /// The note about the list that is being read, and how many of its lines became items.
    list: Option<(usize, usize)>,
}

impl<'a> Reader<'a> {
    /// Reads what begins at a line; gives the line behind it.
    fn line(&mut self, lines: &[Line<'a>], at: usize) -> usize {
        let line = lines[at];
        let content = line.text.trim_end();
        if let Some(fence) = FENCE.captures(content).filter(|fence| !fence[3].contains('`')) {
            return self.fence(lines, at, &fence);
        }
        let next = lines[at + 1..].iter().map(|line| line.text.trim()).find(|line| !line.is_empty());
        self.proven = next.is_some_and(|next| FENCE.captures(next).is_some_and(|fence| fence[3].ends_with(" step")));
        self.blank_follows = lines.get(at + 1).is_none_or(|line| line.text.trim().is_empty());
        self.hidden += content.matches("<details").count() + content.matches("<!--").count();
        self.hidden = self.hidden.saturating_sub(content.matches("</details").count() + content.matches("-->").count());
        if let Some(heading) = HEADING.captures(content) {
            self.heading(lines, at, heading[1].len(), &heading[2]);
        } else if let Some(item) = ITEM.captures(content) {
            self.item(line, &item);
        } else if let Some((mark, gap, rest)) = list_line(content) {
            self.list_line(line, mark, gap, rest);
        } else {
            if !content.trim().is_empty() && !line.text.starts_with([' ', '\t']) {
                content.clone_into(&mut self.lead_in);
                self.list = None;
            }
            self.out.push_str(line.text);
        }
        at + 1
    }

    fn heading(&mut self, lines: &[Line<'a>], at: usize, level: usize, title: &str) {
        if level == 2 {
            self.write_settings();
            self.section.rollback = title.to_lowercase().contains("rollback");
            title.clone_into(&mut self.section.phase);
        }
        title.clone_into(&mut self.section.title);
        self.lead_in.clear();
        self.list = None;
        let line = lines[at];
        if level == 3 && self.section.rollback && is_path_of_its_own(&lines[at..]) {
            self.out.push_str(&line.text[1..]);
            self.note(
                "adopt-rollback-path",
                line.start..line.start + line.text.trim_end().len(),
                format!("\"{title}\" becomes a rollback path of its own"),
                "run as one, the ways back of this section would follow each other",
            );
        } else {
            self.out.push_str(line.text);
        }
    }

    /// A checklist line: never ticked, and proven where it holds a query.
    fn item(&mut self, line: Line<'_>, item: &regex::Captures<'_>) {
        let (indent, tick, text) = (&item[1], &item[2], &item[3]);
        if tick != " " {
            let mark = line.text.find('[').unwrap_or(0);
            self.out.push_str(&line.text[..=mark]);
            self.out.push(' ');
            self.out.push_str(&line.text[mark + 2..]);
            self.note(
                "adopt-unticked",
                line.start + mark..line.start + mark + 3,
                "the tick was taken off".to_owned(),
                "what was done is kept in the run's journal, never in the file",
            );
        } else {
            self.out.push_str(line.text);
        }
        self.prove(line, indent, text);
    }

    /// Puts a check under a checklist line that holds a query, or names a role that must exist.
    fn prove(&mut self, line: Line<'_>, indent: &str, text: &str) {
        if self.hidden > 0 || self.proven {
            return;
        }
        let step = if let Some(sql) = SQL_IN_ITEM.captures(text) {
            let none = text.trim_start().to_lowercase().starts_with("no ");
            let expected = none.then(|| expected::Expected { text: "0 rows".to_owned(), guessed: None });
            step::query(&sql[1], text, expected).into_iter().next()
        } else {
            ROLE_EXISTS.captures(text).map(|role| step::role_exists(&role[1], text.contains("LOGIN")))
        };
        let Some(step) = step.filter(|step| self.known(step)) else { return };
        if !self.out.ends_with('\n') {
            self.out.push('\n');
        }
        self.out.push('\n');
        let span = line.start + indent.len()..line.start + line.text.trim_end().len();
        self.write(step, &format!("{indent}  "), span);
        if !self.blank_follows {
            self.out.push('\n');
        }
    }

    /// A line of a list without boxes becomes a checklist line where it is something to do.
    fn list_line(&mut self, line: Line<'_>, mark: &str, gap: &str, rest: &str) {
        let numbered = mark.starts_with(|c: char| c.is_ascii_digit());
        let about = [&self.section.phase, &self.section.title].map(String::as_str);
        let by_heading = DONE_BY_PEOPLE.is_match(about[1]) || (DONE_BY_PEOPLE.is_match(about[0]) && numbered);
        let by_lead_in = DONE_BY_PEOPLE.is_match(&self.lead_in);
        let excluded = about.iter().any(|title| NOT_DONE.is_match(title)) || NOT_DONE.is_match(&self.lead_in);
        if excluded || !(by_lead_in || (by_heading && numbered)) {
            self.out.push_str(line.text);
            return;
        }
        self.out.push_str("- [ ] ");
        self.out.push_str(rest);
        self.out.push_str(&line.text[mark.len() + gap.len() + rest.len()..]);
        self.tell_of_item(line);
        self.prove(line, "", rest);
    }

    /// One note for a whole list.
    fn tell_of_item(&mut self, line: Line<'_>) {
        let end = line.start + line.text.trim_end().len();
        let (place, count) = self.list.unwrap_or((self.diagnostics.len(), 0));
        self.list = Some((place, count + 1));
        match self.diagnostics.get_mut(place).filter(|_| count > 0) {
            Some(note) => {
                note.span.end = end;
                note.message = format!("these {} lines become checklist items", count + 1);
            }
            None => self.note(
                "adopt-item",
                line.start..end,
                "this line becomes a checklist item".to_owned(),
                "a person confirms each; nest a step under one to prove it",
            ),
        }
    }

    /// A fenced block. Gives the line behind it.
    fn fence(&mut self, lines: &[Line<'a>], at: usize, fence: &regex::Captures<'_>) -> usize {
        let (indent, ticks, info) = (&fence[1], &fence[2], &fence[3]);
        let closes = |line: &Line<'_>| {
            let trimmed = line.text.trim();
            trimmed.len() >= ticks.len() && trimmed.chars().all(|c| ticks.starts_with(c))
        };
        let end = lines[at + 1..].iter().position(closes).map_or(lines.len(), |found| at + 1 + found);
        let after = (end + 1).min(lines.len());
        let body = &lines[at + 1..end.min(lines.len())];
        let whole = lines[at].start..lines[after - 1].start + lines[after - 1].text.trim_end().len();
        let text: String =
            body.iter().map(|line| line.text.strip_prefix(indent).unwrap_or(line.text.trim_start())).collect();
        let marked = info.split_whitespace().nth(1).is_some();
        let language = info.split_whitespace().next().unwrap_or("").to_lowercase();
        let follows = lines[after..].iter().take(3).map(|line| line.text.trim()).find(|line| !line.is_empty());
        let parts = match language.as_str() {
            _ if marked || end == lines.len() || self.hidden > 0 => None,
            "sql" | "postgresql" | "pgsql" => Some(self.sql_block(&text, follows)),
            "bash" | "sh" | "shell" | "console" | "zsh" => self.shell_block(&text),
            _ => None,
        };
        match parts {
            Some(parts) if parts.iter().any(|part| matches!(part, Part::Step(_))) => {
                let body_start = body.first().filter(|_| indent.is_empty()).map(|line| line.start);
                self.replace(indent, &language, parts, whole, body_start);
            }
            other => {
                for line in &lines[at..after] {
                    self.out.push_str(line.text);
                }
                self.tell_of_left(&language, &text, other.unwrap_or_default(), whole, marked);
            }
        }
        after
    }

    /// Writes the parts of a block in the place of the block.
    fn replace(
        &mut self,
        indent: &str,
        language: &str,
        parts: Vec<Part>,
        whole: std::ops::Range<usize>,
        body_start: Option<usize>,
    ) {
        let mut begun = false;
        for part in parts {
            if begun {
                self.out.push('\n');
            }
            begun = true;
            match part {
                Part::Step(step) => {
                    let place = step.place.clone().zip(body_start).map(|(at, start)| start + at.start..start + at.end);
                    self.write(*step, indent, place.unwrap_or_else(|| whole.clone()));
                }
                Part::Prose(text) => self.indented(indent, &format!("{text}\n")),
                Part::Left { text, why } => {
                    self.indented(indent, &format!("```{language}\n{}\n```\n", text.trim_end()));
                    if let Some(why) = why {
                        self.warn("adopt-left", whole.clone(), why.0, why.1);
                    }
                }
            }
        }
    }

    fn indented(&mut self, indent: &str, text: &str) {
        for line in text.split_inclusive('\n') {
            if !line.trim().is_empty() {
                self.out.push_str(indent);
            }
            self.out.push_str(line);
        }
    }

    /// Says why a block stayed as it is.
    fn tell_of_left(
        &mut self,
        language: &str,
        text: &str,
        parts: Vec<Part>,
        whole: std::ops::Range<usize>,
        marked: bool,
    ) {
        let whys: Vec<_> = parts
            .into_iter()
            .filter_map(|part| match part {
                Part::Left { why, .. } => why,
                _ => None,
            })
            .collect();
        if whys.is_empty() && !marked && ["bash", "sh", "shell", "sql"].contains(&language) && !text.trim().is_empty() {
            self.note(
                "adopt-left",
                whole,
                "this block stays as it is: it is not run".to_owned(),
                "write a `sh` step for a command that belongs to the runbook, or a `- [ ]` line for a person",
            );
        } else {
            for why in whys {
                self.warn("adopt-left", whole.clone(), why.0, why.1);
            }
        }
    }

    /// Writes a step, with an id of its own, and tells of it.
    fn write(&mut self, step: Step, indent: &str, span: std::ops::Range<usize>) {
        let id = self.unique(&step.name);
        if step.kind == "backup" && !self.section.rollback {
            self.backup.get_or_insert_with(|| id.clone());
        }
        let block = step.block(&id, self.vocabulary);
        self.indented(indent, &block);
        let message = format!("this becomes the {} step `{id}`", step.kind);
        match step.doubt {
            Some(doubt) => self.warn("adopt-step", span, format!("{message}: {}", doubt.0), doubt.1),
            None => self.note("adopt-step", span, message, "read it once more before it is run"),
        }
    }

    /// The steps of a SQL block; an `Expected:` right behind it is that of its last query.
    fn sql_block(&mut self, text: &str, follows: Option<&str>) -> Vec<Part> {
        let expected = follows.and_then(expected::lead).and_then(expected::read);
        let title = self.section.title.clone();
        let steps = step::statements(text, &title, expected);
        self.parts(text, steps)
    }

    fn parts(&self, text: &str, found: Found) -> Vec<Part> {
        match found {
            Found::Steps(steps) if !steps.is_empty() && steps.iter().all(|step| self.known(step)) => {
                steps.into_iter().map(|step| Part::Step(Box::new(step))).collect()
            }
            Found::Not(why) => vec![Part::Left { text: text.to_owned(), why: Some(why) }],
            Found::Steps(_) => vec![Part::Left { text: text.to_owned(), why: None }],
        }
    }

    /// The steps of a shell block with what is between them. `None` where it is no script.
    fn shell_block(&mut self, text: &str) -> Option<Vec<Part>> {
        if let Some(parts) = self.sql_in_shell(text) {
            return Some(parts);
        }
        let pieces = shell::pieces(text)?;
        let mut parts: Vec<Part> = Vec::new();
        let mut comment: Vec<String> = Vec::new();
        let mut about = self.section.title.clone();
        for piece in pieces {
            match piece {
                shell::Piece::Blank => flush(&mut comment, &mut parts),
                shell::Piece::Comment(said) => match expected::lead(&said) {
                    Some(expects) => {
                        if !apply_expectation(&mut parts, expects) {
                            comment.push(said);
                        }
                    }
                    None => comment.push(said),
                },
                shell::Piece::Command(range) => {
                    if let Some(said) = comment.last() {
                        said.clone_into(&mut about);
                    }
                    let command = &text[range.clone()];
                    let backup = self.backup.clone().or_else(|| backup_in(&parts));
                    match step::command(command, &about, backup.as_deref()) {
                        Found::Steps(steps) if steps.iter().all(|step| self.known(step)) => {
                            flush(&mut comment, &mut parts);
                            parts.extend(steps.into_iter().map(|step| Part::Step(Box::new(step.at(range.clone())))));
                        }
                        Found::Steps(_) => leave(&mut comment, &mut parts, command, None),
                        Found::Not(("", _)) => leave(&mut comment, &mut parts, command, None),
                        Found::Not(why) => leave(&mut comment, &mut parts, command, Some(why)),
                    }
                }
            }
        }
        flush(&mut comment, &mut parts);
        step::settle_backups(&mut parts);
        Some(parts)
    }

    /// A shell block whose commands are SQL: the comments cut it into steps.
    fn sql_in_shell(&mut self, text: &str) -> Option<Vec<Part>> {
        let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
        if !step::begins_like_sql(first) {
            return None;
        }
        let mut parts = Vec::new();
        let mut about = self.section.title.clone();
        let mut sql = String::new();
        let close = |sql: &mut String, about: &str, parts: &mut Vec<Part>| {
            if !sql.trim().is_empty() {
                let found = step::statements(sql, about, None);
                parts.extend(self.parts(sql, found));
            }
            sql.clear();
        };
        for line in text.split_inclusive('\n') {
            match line.trim().strip_prefix('#') {
                Some(comment) => {
                    close(&mut sql, &about, &mut parts);
                    comment.trim_start_matches('#').trim().clone_into(&mut about);
                    parts.extend(prose(&about).map(Part::Prose));
                }
                None => sql.push_str(line),
            }
        }
        close(&mut sql, &about, &mut parts);
        Some(parts)
    }

    fn known(&self, step: &Step) -> bool {
        self.vocabulary.find(step.kind).is_some()
    }

    /// An id that nothing else in the document has.
    fn unique(&mut self, name: &str) -> String {
        let base = slug(name);
        let mut id = base.clone();
        let mut number = 2;
        while !self.ids.insert(id.clone()) {
            id = format!("{base}-{number}");
            number += 1;
        }
        id
    }

    fn write_settings(&mut self) {
        if !self.settings_written {
            self.settings_written = true;
            if !self.out.is_empty() && !self.out.ends_with("\n\n") {
                self.out.push_str(if self.out.ends_with('\n') { "\n" } else { "\n\n" });
            }
            self.out.push_str("```toml runbook\ntargets = [\"main\"]\n```\n\n");
        }
    }

    fn note(&mut self, code: &'static str, place: std::ops::Range<usize>, message: String, help: &'static str) {
        let found = Diagnostic { severity: Severity::Note, ..Diagnostic::error(code, self.span(place), message) };
        self.diagnostics.push(found.help(help));
    }

    fn warn(
        &mut self,
        code: &'static str,
        place: std::ops::Range<usize>,
        message: impl Into<String>,
        help: &'static str,
    ) {
        self.diagnostics.push(Diagnostic::warning(code, self.span(place), message).help(help));
    }

    fn span(&self, place: std::ops::Range<usize>) -> Span {
        Span { file: 0, start: place.start, end: place.end.min(self.text.len()) }
    }
}

/// What a block is made of.
#[derive(Debug, Clone)]
enum Part {
    Step(Box<Step>),
    /// A comment that becomes a line of text.
    Prose(String),
    /// Something that stays a block that is not run, and why.
    Left {
        text: String,
        why: Option<(&'static str, &'static str)>,
    },
}

/// Comments that no command took become text.
fn flush(comment: &mut Vec<String>, parts: &mut Vec<Part>) {
    let lines: Vec<_> = comment.drain(..).filter_map(|line| prose(&line)).collect();
    if !lines.is_empty() {
        parts.push(Part::Prose(lines.join("\n")));
    }
}

/// A comment as a line of Markdown that shows the same: without the number that only counted it, and without what would
/// make it markup. `None` for rulers and empty lines.
fn prose(comment: &str) -> Option<String> {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d+[.)]\s+"));
    let line = NUMBER.replace(comment.trim(), "");
    if !line.chars().any(char::is_alphanumeric) {
        return None;
    }
    let mut line = line.replace('<', "\\<").replace("```", "`").replace("~~~", "~");
    if line.starts_with(['#', '>', '|']) {
        line.insert(0, '\\');
    }
    Some(line)
}

/// Keeps a command as it is, together with the comments above it and with what was kept just before.
fn leave(comment: &mut Vec<String>, parts: &mut Vec<Part>, command: &str, why: Option<(&'static str, &'static str)>) {
    let mut text: String = comment.drain(..).map(|line| format!("# {line}\n")).collect();
    text.push_str(command);
    text.push('\n');
    match parts.last_mut() {
        Some(Part::Left { text: before, why: before_why }) if before_why.is_none() || why.is_none() => {
            before.push_str(&text);
            *before_why = before_why.or(why);
        }
        _ => parts.push(Part::Left { text, why }),
    }
}

/// Gives the last step the expectation that a comment behind it names.
fn apply_expectation(parts: &mut [Part], expects: &str) -> bool {
    match (parts.last_mut(), expected::read(expects)) {
        (Some(Part::Step(step)), Some(expected)) => {
            step.expect(expected);
            true
        }
        _ => false,
    }
}

fn backup_in(parts: &[Part]) -> Option<String> {
    parts.iter().find_map(|part| match part {
        Part::Step(step) if step.kind == "backup" => Some(slug(&step.name)),
        _ => None,
    })
}

/// Whether the section that begins with a heading is a way back with something to run.
fn is_path_of_its_own(lines: &[Line<'_>]) -> bool {
    let title = lines[0].text.to_lowercase();
    let body = lines[1..].iter().take_while(|line| {
        !(line.text.starts_with("# ") || line.text.starts_with("## ") || line.text.starts_with("### "))
    });
    title.contains("rollback")
        && !NOT_DONE.is_match(&title)
        && body.into_iter().any(|line| line.text.trim_start().starts_with("```"))
}

/// A line of a list at the margin: its mark, the blanks behind it, the rest.
fn list_line(content: &str) -> Option<(&str, &str, &str)> {
    let found = NUMBERED.captures(content).or_else(|| BULLET.captures(content))?;
    Some((found.get(1)?.as_str(), found.get(2)?.as_str(), found.get(3)?.as_str()))
}

/// The ids that steps of the text already have.
fn existing_ids(text: &str) -> HashSet<String> {
    static ID: LazyLock<Regex> =
        LazyLock::new(|| pattern(r#"(?m)^\s*(?:-- [a-z]+:\s+|[a-z]+\s*=\s*")([a-z][a-z0-9-]*)"#));
    ID.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// A step's id from a few words: `Migration 0008: Tenant Context Guard (first)` is `migration-0008-tenant-context-guard`.
fn slug(words: &str) -> String {
    const ID_BYTES: usize = 44; // leaves room for a number and for the value of a `for_each` in a line of a report
    static NOISE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"(?i)^\W*(?:(?:step )?\d+[.):]\s*)?(?:verify|test|check|note|option \d+|invariant test)\s*:?\s+|\([^)]*\)|^\W*\d+(?:\.\d+)*[.)]?\s",
        )
    });
    let words = NOISE.replace_all(words, " ");
    let mut id = String::new();
    for word in words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        if id.len() + word.len() >= ID_BYTES {
            break;
        }
        if !id.is_empty() {
            id.push('-');
        }
        id.push_str(&word.to_ascii_lowercase());
    }
    let id = id.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    if id.is_empty() { "step".to_owned() } else { id.to_owned() }
}

#[cfg(test)]
mod tests;
