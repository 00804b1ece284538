//! The one redactor that stands in front of every sink: journal, evidence, reports, errors, logs, terminal.
//!
//! It knows the resolved secrets and finds them in every form in which they usually leave a program: raw, URL-encoded,
//! base64 (in any alignment), hexadecimal, JSON-escaped, quoted for SQL or a shell, and mixtures of these. What it was
//! never told it finds by shape ([`pgrunbook_document::secrets`]): passwords in URLs, `password=...`, tokens, private
//! keys. It replaces, and cannot tell afterwards what stood there.

mod form;
mod step;
mod writer;

pub use writer::RedactingWriter;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use pgrunbook_document::secrets;
use regex::Regex;
use serde_json::Value;

/// What stands where a secret stood. Shorter than any secret that is looked for inside other text, so that it can
/// contain none.
pub const MARK: &str = "***";

/// Secrets shorter than this are only replaced where they stand as a whole word.
pub const SHORTEST: usize = 4;

/// Knows secrets and takes them out of text. Clones share what they know.
#[derive(Clone, Default)]
pub struct Redactor(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    secrets: BTreeSet<String>,
    forms: Vec<Regex>,
    /// Whether one of them goes over several lines.
    multiline: bool,
}

/// How well a secret can be kept out of sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// In every form.
    Fully,
    /// Shorter than [`SHORTEST`] bytes: only where it stands raw and as a whole word, since everything else would tear
    /// holes into ordinary text. Worth a warning.
    WholeWordsOnly,
    /// Empty: there is nothing to hide.
    Nothing,
}

impl Redactor {
    /// One that knows no secret yet; shapes are found nevertheless.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a secret out of everything that is redacted from now on. A line end behind it is not part of it.
    pub fn learn(&self, secret: &str) -> Learned {
        let secret = secret.trim_end_matches(['\r', '\n']);
        let learned = match secret.len() {
            0 => return Learned::Nothing,
            length if length < SHORTEST => Learned::WholeWordsOnly,
            _ => Learned::Fully,
        };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.secrets.insert(secret.to_owned()) {
            known.forms.extend(form::all(secret));
            known.multiline |= secret.contains(['\n', '\r']);
        }
        learned
    }

    /// The text without secrets; borrowed where there were none.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let found = self.find(text);
        if found.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(replaced(text, &found)) }
    }

    /// Takes secrets out of every text of a JSON value: strings, keys, numbers that are a secret, and strings under a
    /// key that says that they are secret.
    pub fn redact_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(redacted) = self.redact(text) {
                    *text = redacted;
                }
            }
            Value::Number(number) => {
                let text = number.to_string();
                if !self.find_known(&text).is_empty() {
                    *value = Value::String(MARK.to_owned());
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.redact_value(value)),
            Value::Object(map) => {
                for (key, mut value) in std::mem::take(map) {
                    if let Value::String(text) = &value
                        && is_secret_field(&key, text)
                    {
                        value = Value::String(MARK.to_owned());
                    }
                    self.redact_value(&mut value);
                    map.insert(self.redact(&key).into_owned(), value);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Where secrets stand: in order, none touching another.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = self.find_known(text);
        found.extend(secrets::find(text).into_iter().map(|secret| secret.range));
        if text.contains("PRIVATE KEY") {
            found.extend(PRIVATE_KEY.find_iter(text).map(|block| block.range()));
        }
        merged(found)
    }

    fn find_known(&self, text: &str) -> Vec<Range<usize>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        merged(known.forms.iter().flat_map(|form| overlapping(form, text)).collect())
    }

    fn is_multiline(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).multiline
    }
}

/// Says how much it knows, never what.
impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Redactor({} secrets)", known.secrets.len())
    }
}

const PRIVATE_KEY_BEGINS: &str = r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----";
const PRIVATE_KEY_ENDS: &str = r"-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----";

/// A whole private key, or what there is of one.
static PRIVATE_KEY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(&format!(r"(?s){PRIVATE_KEY_BEGINS}.*?(?:{PRIVATE_KEY_ENDS}|\z)"))
        .expect("a constant, and a test compiles it")
});

/// Every place at which a form stands, also those that overlap: pieces of a secret that repeats itself do.
fn overlapping<'t>(form: &'t Regex, text: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
    let mut at = 0;
    std::iter::from_fn(move || {
        let found = form.find_at(text, at)?.range();
        at = found.start + text[found.start..].chars().next().map_or(1, char::len_utf8);
        Some(found)
    })
}

/// Whether a value is secret because of the name it stands under.
fn is_secret_field(key: &str, text: &str) -> bool {
    let assignment = format!("{key}={text}");
    !text.is_empty() && secrets::find(&assignment).iter().any(|secret| secret.range.start == key.len() + 1)
}

fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn replaced(text: &str, ranges: &[Range<usize>]) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut at = 0;
    for range in ranges {
        clean.push_str(&text[at..range.start]);
        clean.push_str(MARK);
        at = range.end;
    }
    clean.push_str(&text[at..]);
    clean
}

#[cfg(test)]
mod tests;
