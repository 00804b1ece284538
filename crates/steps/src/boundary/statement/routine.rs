//! Texts that a statement holds: bodies of routines, what is executed, names of sequences.

use pgrunbook_document::sql::TokenKind;

use super::token::{is_string, string};
use super::{Act, HOLE, Mode, Reader, Text};

impl Reader<'_> {
    /// `nextval('eng.t_id_seq')` moves the sequence.
    pub(super) fn sequence(&mut self, at: usize) {
        let Some(token) = self.tokens.get(at + 2).filter(|token| is_string(token.kind)) else { return };
        let inner = string(self.source, token);
        let named = Reader::new(&inner, self.mode).name(0);
        if let Some((named, _)) = named {
            self.write(at, at + 2, at + 3, if self.is(at, "nextval") { "nextval" } else { "setval" }, named);
        }
    }

    /// Texts that a function executes.
    pub(super) fn arguments(&mut self, open: usize) {
        let behind = self.behind_parentheses(open);
        for at in (open..behind).take(64) {
            let token = self.tokens[at];
            if is_string(token.kind) {
                let text = string(self.source, &token);
                self.push(at, at, at + 1, Act::Inner { text, mode: None, path: None });
            }
        }
    }

    /// The bodies of a routine, behind `DO` or `CREATE FUNCTION`.
    pub(super) fn bodies(&mut self, at: usize, from: Option<usize>) {
        // As far as lists of arguments go.
        let most = self.tokens.len().min(at + 800);
        let end = (at..most).find(|at| self.mark(*at, ";")).unwrap_or(most);
        let language = (at..end)
            .find(|at| self.is(*at, "language"))
            .and_then(|at| self.tokens.get(at + 1))
            .map_or_else(|| "plpgsql".to_owned(), |token| token.text.trim_matches(['"', '\'']).to_ascii_lowercase());
        let path = (at..end).find(|at| self.is(*at, "search_path") && self.before(*at, &["set"]));
        let path = path.and_then(|at| self.path(at + 2).0);
        for at in from.unwrap_or(at)..end {
            let token = self.tokens[at];
            // Of strings only the one behind AS or DO: others are defaults and settings.
            let single = token.kind == TokenKind::String && self.before(at, &["as", "do"]);
            if token.kind != TokenKind::DollarString && !single {
                continue;
            }
            let text = string(self.source, &token);
            let act = match language.as_str() {
                "sql" => Act::Inner { text, mode: Some(Mode::File), path: path.clone() },
                "plpgsql" => Act::Inner { text, mode: Some(Mode::Procedure), path: path.clone() },
                "c" | "internal" => continue,
                _ => Act::Foreign { text, language: language.clone() },
            };
            self.push(at, at, at + 1, act);
        }
    }

    /// `EXECUTE 'INSERT INTO ' || name || ...` in a procedure.
    pub(super) fn execute(&mut self, at: usize) -> Option<usize> {
        if self.mode != Mode::Procedure || self.any(at + 1, &["function", "procedure", "on"]) {
            return None;
        }
        Some(self.assembled(at + 1))
    }

    /// A text that is put together of strings and values.
    pub(super) fn assembled(&mut self, from: usize) -> usize {
        let mut text = Text::default();
        let mut at = from;
        while at < self.tokens.len() && !self.mark(at, ";") && !self.any(at, &["into", "using", "loop"]) {
            let token = self.tokens[at];
            if is_string(token.kind) {
                text.append(&string(self.source, &token));
            } else if !matches!(token.text, "||" | "(" | ")") && !self.any(at, &["format", "concat"]) {
                text.push_hole(self.source.at(token.start));
            }
            at += 1;
        }
        let known = text.value.chars().any(|c| c != HOLE && !c.is_whitespace());
        let act = if known { Act::Inner { text, mode: None, path: None } } else { Act::Opaque };
        self.push(from, from, at, act);
        at
    }
}
