//! Statements that write rows, and `COPY`.

use pgrunbook_document::sql::TokenKind;

use super::token::{is_brace, is_string};
use super::{Act, Frame, HOLE, Mode, Named, Reader, Verb};

impl Reader<'_> {
    pub(super) fn temporary(&mut self, named: &Named, from: usize, behind: usize) {
        if let Named::Relation { schema: None, name } = named {
            self.push(from, from, behind, Act::Temporary(name.text.clone()));
        }
    }

    pub(super) fn insert(&mut self, at: usize) -> Option<usize> {
        const NEXT: &[&str] = &["default", "overriding", "values", "value", "select", "with", "table"];
        let from = at + 2;
        let (named, behind) = self.target(from)?;
        let next = if self.is(behind, "as") { behind + 2 } else { behind };
        let fits = self.mark(next, "(") || self.any(next, NEXT) || (self.ends(next) && self.mode != Mode::Fragment);
        if self.is_strict() && !fits {
            return None;
        }
        self.write(at, from, behind, "INSERT", named);
        Some(next.max(behind))
    }

    pub(super) fn delete(&mut self, at: usize) -> Option<usize> {
        let from = at + 2 + usize::from(self.is(at + 2, "only"));
        let (named, behind) = self.target(from)?;
        let next = self.alias(behind, &["where", "using", "returning"]);
        let fits = self.any(next, &["where", "using", "returning"])
            || (self.ends(next) && (self.mode != Mode::Fragment || self.mark(next, ")")));
        if self.is_strict() && !fits {
            return None;
        }
        self.write(at, from, behind, "DELETE", named);
        Some(next)
    }

    pub(super) fn update(&mut self, at: usize, frame: &mut Frame) -> Option<usize> {
        let from = at + 1 + usize::from(self.is(at + 1, "only"));
        let (named, behind) = self.name(from)?;
        let next = self.alias(behind, &["set"]);
        let elsewhere = ["for", "on", "or", "before", "after", "of", "key", "grant", "revoke"];
        if self.is(next, "set") || (self.is_hole(next) && !self.before(at, &elsewhere)) {
            frame.verb = Verb::Other;
            self.write(at, from, behind, "UPDATE", named);
            return Some(next);
        }
        // What follows is added elsewhere, or this is a label.
        let alone = behind >= self.tokens.len() && self.mode == Mode::Statement && self.begins(at);
        if alone {
            self.push(at, from, behind, Act::Write { verb: "UPDATE", named, sure: false });
            return Some(next);
        }
        None
    }

    pub(super) fn merge(&mut self, at: usize) -> Option<usize> {
        let from = at + 2 + usize::from(self.is(at + 2, "only"));
        let (named, behind) = self.target(from)?;
        let next = self.alias(behind, &["using"]);
        if self.is_strict() && !self.is(next, "using") && !(self.ends(next) && self.mode != Mode::Fragment) {
            return None;
        }
        self.write(at, from, behind, "MERGE", named);
        Some(next)
    }

    pub(super) fn truncate(&mut self, at: usize) -> Option<usize> {
        let with_table = self.is(at + 1, "table");
        let mut from = at + 1 + usize::from(with_table);
        from += usize::from(self.is(from, "only"));
        if self.any(from, &["on"]) || self.mark(from, "(") {
            return None;
        }
        let mut targets = Vec::new();
        while let Some((named, behind)) = if with_table { self.target(from) } else { self.name(from) } {
            let next = behind + usize::from(self.mark(behind, "*"));
            targets.push((from, behind, named));
            from = next;
            if !self.mark(next, ",") {
                break;
            }
            from = next + 1 + usize::from(self.is(next + 1, "only"));
        }
        let fits = self.ends(from) || self.any(from, &["restart", "continue", "cascade", "restrict"]);
        if targets.is_empty() || (self.is_strict() && !fits) {
            return None;
        }
        for (from, behind, named) in targets {
            self.write(at, from, behind, "TRUNCATE", named);
        }
        Some(from)
    }

    pub(super) fn copy(&mut self, at: usize) -> Option<usize> {
        let from = at + 1 + usize::from(self.is(at + 1, "binary"));
        let (named, behind) = self.name(from)?;
        let mut next = behind;
        if self.mark(next, "(") {
            next = self.behind_parentheses(next);
        }
        if self.is(next, "to") {
            self.read_of(named, from, behind);
            return Some(next + 1);
        }
        if self.is(next, "from") {
            let source = self.tokens.get(next + 1);
            let fits = self.any(next + 1, &["stdin", "program", "pstdin"])
                || source.is_some_and(|token| is_string(token.kind) || token.kind == TokenKind::Parameter)
                || self.tokens[at].text.starts_with('\\');
            if self.is_strict() && !fits && !self.is_hole(next + 1) {
                return None;
            }
            // `Copy {a} from {b}` is more often a message than a statement.
            let message = self.is_strict() && self.is_hole(from) && !fits;
            if !message {
                self.write(at, from, behind, "COPY FROM", named);
            }
            return Some(next + 2);
        }
        if self.mode == Mode::Statement && (next >= self.tokens.len() || self.is_hole(next)) && !self.is_hole(from) {
            self.push(at, from, behind, Act::Write { verb: "COPY", named, sure: false });
        }
        None
    }

    /// `SELECT ... INTO t`, `IMPORT FOREIGN SCHEMA ... INTO s`, and `{verb} INTO t`.
    pub(super) fn into(&mut self, at: usize, head: usize, frame: Frame) -> Option<usize> {
        if self.is(head, "import") {
            let part = self.part(at + 1)?;
            self.write(at, at + 1, at + 2, "IMPORT FOREIGN SCHEMA", Named::Schema(part));
            return Some(at + 2);
        }
        let behind_hole = at.checked_sub(1).is_some_and(|at| self.tokens[at].text.ends_with(HOLE));
        let first = behind_hole && at == head + 1;
        if self.mode == Mode::Procedure || (frame.verb != Verb::Select && !first) {
            return None;
        }
        let mut from = at + 1;
        let temporary = self.any(from, &["temp", "temporary"]);
        while self.any(from, &["temp", "temporary", "unlogged", "table"]) {
            from += 1;
        }
        // `INTO :x` and `INTO @x` are variables of a host language.
        let is_name = self
            .tokens
            .get(from)
            .is_some_and(|token| matches!(token.kind, TokenKind::Word | TokenKind::QuotedName) || is_brace(token));
        let (named, behind) = self.name(from).filter(|_| is_name)?;
        if temporary {
            self.temporary(&named, from, behind);
        } else if first {
            self.push(at, from, behind, Act::Write { verb: "INTO", named, sure: false });
        } else {
            self.write(at, from, behind, "SELECT INTO", named);
        }
        Some(behind)
    }
}
