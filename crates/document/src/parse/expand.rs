//! Binds variables and `for_each`, at plan time: a block becomes the text that runs.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::diagnostic::Diagnostic;
use crate::expectation::Expectation;
use crate::model::{Block, ForEachValues, Language, VarValue};
use crate::sql::substitute;

use super::nearest;
use super::toml::common_ranges;

/// Values by the variables' names.
pub type Values = BTreeMap<String, VarValue>;

impl Block {
    /// The block's text with the keys that every kind knows blanked out, so that the rest can be read into the kind's own
    /// type and every byte stays where it was. SQL steps have no such text: theirs are directives.
    pub fn own_text(&self) -> String {
        let mut bytes = self.text.clone().into_bytes();
        for range in common_ranges(&self.text) {
            for byte in &mut bytes[range] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        String::from_utf8(bytes).expect("whole characters were replaced by blanks")
    }

    /// One block for each value of its `for_each`, or the block itself, with all variables replaced.
    ///
    /// # Errors
    /// A variable without a value, a list where a text is needed, or a text where `for_each` needs a list.
    pub fn expand(&self, values: &Values) -> Result<Vec<Self>, Diagnostic> {
        let Some(for_each) = &self.for_each else { return Ok(vec![self.bind(values)?]) };
        let listed = match &for_each.value.values {
            ForEachValues::Listed(listed) => listed.clone(),
            ForEachValues::Variable(name) => match values.get(name) {
                Some(VarValue::List(listed)) => listed.clone(),
                Some(VarValue::Text(_)) => {
                    return Err(Diagnostic::error(
                        "not-a-list",
                        for_each.span,
                        format!("`{name}` is a text, and `for_each` needs a list"),
                    )
                    .help(format!("write `vars.{name} = [\"...\"]`")));
                }
                None => return Err(unset(name, values, for_each.span)),
            },
        };
        if listed.is_empty() {
            return Err(Diagnostic::error("empty-for-each", for_each.span, "`for_each` has nothing to expand over"));
        }
        let mut seen = std::collections::BTreeSet::new();
        listed
            .iter()
            .map(|value| {
                if !seen.insert(value) {
                    return Err(Diagnostic::error(
                        "duplicate-id",
                        for_each.span,
                        format!("`for_each` has `{value}` twice"),
                    ));
                }
                let mut values = values.clone();
                values.insert(for_each.value.variable.clone(), VarValue::Text(value.clone()));
                let mut instance = self.bind(&values)?;
                instance.id = self.id.instance(value);
                instance.for_each = None;
                Ok(instance)
            })
            .collect()
    }

    fn bind(&self, values: &Values) -> Result<Self, Diagnostic> {
        let mut bound = self.clone();
        match (self.language, &mut bound.sql) {
            (Language::Sql, Some(sql)) => {
                let range = sql.statements.clone();
                let statements = substitute(&self.text[range.clone()], |name| match values.get(name) {
                    Some(VarValue::Text(text)) => Some(text.as_str()),
                    _ => None,
                })
                .map_err(|problem| {
                    let place = problem.range();
                    let span = self.locate(range.start + place.start..range.start + place.end);
                    Diagnostic::error("unset-variable", span, problem.to_string())
                })?;
                bound.text = format!("{}{statements}", &self.text[..range.start]);
                sql.statements = range.start..bound.text.len();
                if let Some(role) = &mut sql.role {
                    role.value = in_text(&role.value, values, |name| unset(name, values, role.span))?;
                }
                for expectation in &mut sql.expectations {
                    let span = expectation.span;
                    for text in texts(&mut expectation.value) {
                        *text = in_text(text, values, |name| unset(name, values, span))?;
                    }
                }
            }
            _ => bound.text = in_toml(self, values)?,
        }
        if let Some(target) = &mut bound.target {
            target.value = in_text(&target.value, values, |name| unset(name, values, target.span))?;
        }
        Ok(bound)
    }
}

fn texts(expectation: &mut Expectation) -> Vec<&mut String> {
    match expectation {
        Expectation::Value(_, value) | Expectation::EachRow { value, .. } => vec![value],
        Expectation::Error { message_contains, .. } => message_contains.iter_mut().collect(),
        Expectation::Table { rows, .. } => rows.iter_mut().flatten().collect(),
        Expectation::Rows(..) => Vec::new(),
    }
}

fn unset(name: &str, values: &Values, span: crate::model::Span) -> Diagnostic {
    let known: Vec<&str> = values.keys().map(String::as_str).collect();
    let diagnostic = match values.get(name) {
        Some(VarValue::List(_)) => {
            return Diagnostic::error("list-variable", span, format!("`{name}` is a list"))
                .help("only `for_each` can use a list");
        }
        _ => Diagnostic::error("unset-variable", span, format!("the variable `{name}` has no value")),
    };
    match nearest(name, &known) {
        Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
        None => diagnostic.help(format!(
            "declare `vars.{name}` in the `toml runbook` block; `$${{{name}}}` stands for the text itself"
        )),
    }
}

/// Replaces `${name}` in a text that was already read; `$${` is a `${` that stays.
fn in_text(text: &str, values: &Values, unset: impl Fn(&str) -> Diagnostic) -> Result<String, Diagnostic> {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for used in uses(text, 0..text.len()) {
        out.push_str(&text[at..used.range.start]);
        at = used.range.end;
        match used.name {
            None => out.push_str("${"),
            Some(name) => match values.get(name) {
                Some(VarValue::Text(value)) => out.push_str(value),
                _ => return Err(unset(name)),
            },
        }
    }
    out.push_str(&text[at..]);
    Ok(out)
}

/// Replaces `${name}` inside the basic strings of a TOML block, with TOML's escapes, so that no value can end its string.
fn in_toml(block: &Block, values: &Values) -> Result<String, Diagnostic> {
    let text = &block.text;
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for string in strings(text) {
        for used in uses(text, string.range.clone()) {
            let span = block.locate(used.range.clone());
            if !string.is_basic {
                return Err(Diagnostic::error(
                    "literal-string",
                    span,
                    "`${...}` is not replaced in a text in single quotes",
                )
                .help("use double quotes"));
            }
            out.push_str(&text[at..used.range.start]);
            at = used.range.end;
            match used.name.map(|name| (name, values.get(name))) {
                None => out.push_str("${"),
                Some((_, Some(VarValue::Text(value)))) => out.push_str(&escape(value)),
                // A list stays a reference: `for_each` reads it.
                Some((_, Some(VarValue::List(_)))) => out.push_str(&text[used.range]),
                Some((name, None)) => return Err(unset(name, values, span)),
            }
        }
    }
    out.push_str(&text[at..]);
    Ok(out)
}

/// A value inside a basic string (TOML 1.0, "String").
fn escape(value: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// One `${name}`, or `$${` (no name).
struct Use<'a> {
    range: Range<usize>,
    name: Option<&'a str>,
}

fn uses(text: &str, within: Range<usize>) -> Vec<Use<'_>> {
    let mut found = Vec::new();
    let mut at = within.start;
    while let Some(offset) = text[at..within.end].find("${") {
        let start = at + offset;
        if text[within.start..start].ends_with('$') {
            found.push(Use { range: start - 1..start + 2, name: None });
            at = start + 2;
            continue;
        }
        at = start + 2;
        if let Some(length) = text[at..within.end].find('}') {
            found.push(Use { range: start..at + length + 1, name: Some(&text[at..at + length]) });
            at += length + 1;
        }
    }
    found
}

/// A string in a TOML text, without its quotes.
struct TomlString {
    range: Range<usize>,
    is_basic: bool,
}

/// The strings of a text that is known to be TOML.
fn strings(text: &str) -> Vec<TomlString> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'#' => at = text[at..].find('\n').map_or(bytes.len(), |n| at + n),
            quote @ (b'"' | b'\'') => {
                let is_basic = quote == b'"';
                let long = [quote; 3];
                let fence: &[u8] = if bytes[at..].starts_with(&long) { &long } else { &long[..1] };
                let start = at + fence.len();
                let mut end = start;
                while end < bytes.len() && !bytes[end..].starts_with(fence) {
                    end += if is_basic && bytes[end] == b'\\' { 2 } else { 1 };
                }
                let end = end.min(bytes.len());
                found.push(TomlString { range: start..end, is_basic });
                at = end + fence.len();
            }
            _ => at += 1,
        }
    }
    found
}
