//! Reads the directives of a SQL step: leading `--` comments, which leave the block valid SQL.

use std::ops::Range;
use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::model::{Language, Span, Spanned, SqlBody, Within};
use crate::parse::expectation::expectation;
use crate::parse::{Common, Draft, duration, nearest};
use crate::vocabulary::Vocabulary;

/// Directives that are no kind.
const DIRECTIVES: &[&str] = &["target", "as", "expect", "within", "timeout", "show", "undo", "valid", "for_each", "at"];

/// One `key: value` of a directive line, with its places in the block's text.
struct Directive<'a> {
    key: &'a str,
    key_range: Range<usize>,
    value: &'a str,
    value_range: Range<usize>,
}

/// What the directives of a block say.
pub(super) fn read(draft: &Draft<'_>, vocabulary: Vocabulary<'_>, found: &mut Vec<Diagnostic>) -> Option<Common> {
    let kinds: Vec<&str> =
        vocabulary.0.iter().filter(|kind| kind.language == Language::Sql).map(|kind| kind.name).collect();
    let (directives, statements_start) = directives(draft, &kinds, found);

    let mut common = Common::default();
    let mut kind: Option<(&str, Span)> = None;
    let mut sql = SqlBody {
        statements: statements_start..draft.text.len(),
        role: None,
        expectations: Vec::new(),
        within: None,
        show: Vec::new(),
    };
    for directive in &directives {
        let place = draft.locate(directive.value_range.clone());
        let value = directive.value;
        if value.is_empty() {
            let key = directive.key;
            found.push(Diagnostic::error(
                "empty-directive",
                draft.locate(directive.key_range.clone()),
                format!("`{key}:` says nothing"),
            ));
            continue;
        }
        match directive.key {
            "target" => common.target = Some(Spanned { value: value.to_owned(), span: place }),
            "as" => sql.role = Some(Spanned { value: value.to_owned(), span: place }),
            "expect" => match expectation(value) {
                Ok(value) => sql.expectations.push(Spanned { value, span: place }),
                Err(help) => found.push(
                    Diagnostic::error("bad-expectation", place, format!("`{value}` is not an expectation")).help(help),
                ),
            },
            "within" => match parse_within(value) {
                Some(value) => sql.within = Some(value),
                None => found.push(
                    Diagnostic::error("bad-duration", place, format!("`{value}` is not a time to try"))
                        .help("write `within: 5m every 15s`"),
                ),
            },
            "timeout" => common.timeout = duration(value, place, found),
            "show" => sql.show = value.split(',').map(|column| column.trim().to_owned()).collect(),
            "undo" => common.undo = super::undo(value, place, found),
            "valid" => common.valid = super::validity(value, place, found),
            "for_each" => common.for_each = for_each(value, place, found),
            "at" => common.at = Some(value.to_owned()),
            name => {
                if let Some((first, _)) = kind {
                    found.push(
                        Diagnostic::error("two-kinds", place, format!("this step is both `{first}` and `{name}`"))
                            .help("one block is one step"),
                    );
                } else {
                    kind = Some((name, place));
                    common.id = super::step_id(value, place, found);
                }
            }
        }
    }
    if let Some(table) = super::expected(draft) {
        sql.expectations.push(table);
    }
    let Some((kind, _)) = kind else {
        // A kind that was misspelt is reported already.
        let misspelt =
            |one: &Diagnostic| one.code == "unknown-directive" && draft.span.range().contains(&one.span.start);
        if found.iter().any(misspelt) {
            return None;
        }
        let wanted = kinds.iter().map(|kind| format!("`-- {kind}: some-id`")).collect::<Vec<_>>().join(" or ");
        found.push(
            Diagnostic::error("no-kind", draft.span, "this SQL step does not say what it is")
                .help(format!("begin the block with {wanted}")),
        );
        return None;
    };
    common.kind = kind.to_owned();
    common.sql = Some(sql);
    Some(common)
}

/// The directives of the leading comment lines, and where the statements begin: after the last line with a directive.
fn directives<'a>(draft: &Draft<'a>, kinds: &[&str], found: &mut Vec<Diagnostic>) -> (Vec<Directive<'a>>, usize) {
    let mut directives = Vec::new();
    let mut statements_start = 0;
    let mut at = 0;
    for line in draft.text.split_inclusive('\n') {
        let line_start = at;
        at += line.len();
        let trimmed = line.trim();
        if trimmed.is_empty() {
            continue;
        }
        if !trimmed.starts_with("--") {
            break;
        }
        let comment_start = line_start + line.find("--").unwrap_or(0) + 2;
        let comment = draft.text[comment_start..at].trim_end();
        let known = |key: &str| DIRECTIVES.contains(&key) || kinds.contains(&key);
        let starts = key_starts(comment, &known);
        if starts.first().is_none_or(|first| !comment[..*first].trim().is_empty()) {
            looks_like_directive(draft, comment, comment_start, kinds, found);
            continue;
        }
        statements_start = at;
        for (number, start) in starts.iter().enumerate() {
            let end = starts.get(number + 1).copied().unwrap_or(comment.len());
            let piece = &comment[*start..end];
            let (key, value) = piece.split_once(':').unwrap_or((piece, ""));
            let value_start = start + key.len() + 1 + (value.len() - value.trim_start().len());
            let value = value.trim();
            directives.push(Directive {
                key,
                key_range: comment_start + start..comment_start + start + key.len(),
                value,
                value_range: comment_start + value_start..comment_start + value_start + value.len(),
            });
        }
    }
    (directives, statements_start)
}

/// Where a known key begins in a comment: at its start, or after two or more blanks.
fn key_starts(comment: &str, known: &dyn Fn(&str) -> bool) -> Vec<usize> {
    let bytes = comment.as_bytes();
    let mut starts = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !comment.is_char_boundary(at) {
            at += 1;
            continue;
        }
        let begins = at == 0
            || starts.is_empty() && comment[..at].trim().is_empty()
            || at >= 2 && bytes[at - 1].is_ascii_whitespace() && bytes[at - 2].is_ascii_whitespace()
            || bytes[at - 1] == b'\t';
        if begins && (bytes[at].is_ascii_lowercase()) {
            let key_end =
                comment[at..].find(|c: char| !(c.is_ascii_lowercase() || c == '_')).map_or(bytes.len(), |n| at + n);
            if bytes.get(key_end) == Some(&b':') && known(&comment[at..key_end]) {
                starts.push(at);
            }
            at = key_end.max(at + 1);
        } else {
            at += 1;
        }
    }
    starts
}

/// An unknown key that was probably meant as a directive: `-- expects: 0 rows`.
fn looks_like_directive(
    draft: &Draft<'_>,
    comment: &str,
    comment_start: usize,
    kinds: &[&str],
    found: &mut Vec<Diagnostic>,
) {
    let text = comment.trim_start();
    let start = comment_start + (comment.len() - text.len());
    let Some((key, _)) = text.split_once(':') else { return };
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphabetic() || c == '_' || c == '-') {
        return;
    }
    let all: Vec<&str> = DIRECTIVES.iter().copied().chain(kinds.iter().copied()).collect();
    if let Some(meant) = nearest(key, &all) {
        found.push(
            Diagnostic::error(
                "unknown-directive",
                draft.locate(start..start + key.len()),
                format!("`{key}:` is not a directive"),
            )
            .label("not a directive")
            .help(format!("did you mean `{meant}:`?")),
        );
    }
}

/// `5m every 15s`, or `5m` alone: then every 5 seconds.
pub fn parse_within(text: &str) -> Option<Within> {
    let (limit, every) = match text.split_once("every") {
        Some((limit, every)) => (limit.trim().trim_end_matches(','), every.trim()),
        None => (text.trim(), "5s"),
    };
    let limit = super::parse_duration(limit)?;
    let every = super::parse_duration(every)?;
    (every > Duration::ZERO).then_some(Within { limit, every })
}

/// `tenant in health, general` or `tenant in ${tenants}`.
fn for_each(text: &str, place: Span, found: &mut Vec<Diagnostic>) -> Option<Spanned<crate::model::ForEach>> {
    let parsed = text.split_once(" in ").map(|(variable, values)| (variable.trim(), values.trim()));
    let Some((variable, values)) = parsed.filter(|(variable, values)| super::is_name(variable) && !values.is_empty())
    else {
        found.push(
            Diagnostic::error("bad-for-each", place, format!("`{text}` does not name a variable and its values"))
                .help("write `for_each: tenant in health, general` or `for_each: tenant in ${tenants}`"),
        );
        return None;
    };
    let values = match values.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(list) => crate::model::ForEachValues::Variable(list.to_owned()),
        None => crate::model::ForEachValues::Listed(values.split(',').map(|value| value.trim().to_owned()).collect()),
    };
    Some(Spanned { value: crate::model::ForEach { variable: variable.to_owned(), values }, span: place })
}
