//! The search path that a statement sets.

use super::token::{is_string, string};
use super::{Act, HOLE, Named, PathEntry, Reader};

impl Reader<'_> {
    /// `SET search_path`, `SET SCHEMA`, `RESET`, `DISCARD ALL`, `set_config('search_path', ...)`.
    pub(super) fn settings(&mut self, at: usize, head: usize) -> Option<usize> {
        // A setting of a role, database or routine is none of the session.
        if self.any(head, &["alter", "create", "update"]) && head != at {
            return None;
        }
        if self.is(at, "set_config") {
            let setting = self.tokens.get(at + 2).filter(|token| is_string(token.kind))?;
            if !string(self.source, setting).value.trim().eq_ignore_ascii_case("search_path") {
                return None;
            }
            let value = self.tokens.get(at + 4)?;
            let entries = if is_string(value.kind) { path(&string(self.source, value).value) } else { vec![None] };
            self.push(at, at + 4, at + 5, Act::Path { entries: Some(entries), local: self.is(at + 6, "true") });
            return Some(at + 5);
        }
        if self.is(at, "reset") || self.is(at, "discard") {
            if self.any(at + 1, &["search_path", "all"]) {
                self.push(at, at + 1, at + 2, Act::Path { entries: None, local: false });
            }
            return None;
        }
        let local = self.is(at + 1, "local");
        let from = at + 1 + usize::from(local || self.is(at + 1, "session"));
        if self.is(from, "schema") {
            let value = self.tokens.get(from + 1)?;
            let entries =
                if is_string(value.kind) { vec![entry(&string(self.source, value).value)] } else { vec![None] };
            self.push(at, from + 1, from + 2, Act::Path { entries: Some(entries), local });
            return Some(from + 2);
        }
        if !self.is(from, "search_path") || !(self.is(from + 1, "to") || self.mark(from + 1, "=")) {
            return None;
        }
        let (entries, behind) = self.path(from + 2);
        self.push(at, from + 2, behind, Act::Path { entries, local });
        Some(behind)
    }

    /// The list behind `search_path TO`.
    pub(super) fn path(&self, mut at: usize) -> (Option<Vec<PathEntry>>, usize) {
        if self.is(at, "default") {
            return (None, at + 1);
        }
        let mut entries = Vec::new();
        loop {
            match self.tokens.get(at) {
                Some(token) if is_string(token.kind) => {
                    // As one name it would be one schema; drivers and people mean a list.
                    entries.extend(path(&string(self.source, token).value));
                    at += 1;
                }
                Some(token) if token.text.eq_ignore_ascii_case("\"$user\"") => {
                    entries.push(Some("$user".to_owned()));
                    at += 1;
                }
                _ => match self.name(at) {
                    Some((Named::Relation { schema: None, name }, behind)) => {
                        entries.push(name.whole.then_some(name.text));
                        at = behind;
                    }
                    _ => {
                        entries.push(None);
                        at += 1;
                    }
                },
            }
            if !self.mark(at, ",") {
                return (Some(entries), at.min(self.tokens.len()));
            }
            at += 1;
        }
    }
}

/// The entries of a search path that is written as one text.
pub(in crate::boundary) fn path(text: &str) -> Vec<PathEntry> {
    text.split(',').filter(|one| !one.trim().is_empty()).map(entry).collect()
}

fn entry(text: &str) -> PathEntry {
    let text = text.trim();
    let name = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').unwrap_or(quoted).replace("\"\"", "\""),
        None => text.to_ascii_lowercase(),
    };
    let known = !name.contains([HOLE, '{', '}', '%', '?', ':']) && (name == "$user" || !name.contains('$'));
    known.then_some(name)
}
