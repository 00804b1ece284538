//! Names, with what stands for them.

use pgrunbook_document::sql::TokenKind;

use super::token::{is_brace, is_placeholder};
use super::{HOLE, Named, Part, Reader};

impl Reader<'_> {
    pub(super) fn behind_parentheses(&self, open: usize) -> usize {
        self.behind.get(open).copied().unwrap_or(self.tokens.len())
    }

    pub(super) fn is_reserved(&self, at: usize) -> bool {
        const RESERVED: &[&str] = &[
            "select",
            "set",
            "where",
            "values",
            "from",
            "using",
            "and",
            "or",
            "not",
            "null",
            "default",
            "with",
            "as",
            "case",
            "when",
            "then",
            "else",
            "end",
            "on",
            "returning",
            "order",
            "group",
            "having",
            "limit",
            "union",
            "into",
            "table",
            "to",
            "for",
            "in",
            "is",
            "if",
            "the",
            "only",
            "lateral",
            "unnest",
            "insert",
            "update",
            "delete",
        ];
        self.any(at, RESERVED) && !self.mark(at + 1, ".")
    }

    /// `name`, `schema.name`, `database.schema.name`, with holes. The name, and the token behind it.
    pub(super) fn name(&self, at: usize) -> Option<(Named, usize)> {
        let (mut parts, behind) = self.parts(at)?;
        let name = parts.pop()?;
        Some((Named::Relation { schema: parts.pop(), name }, behind))
    }

    /// `schema.table.column`: the table.
    pub(super) fn column(&self, at: usize) -> Option<(Named, usize)> {
        let (mut parts, behind) = self.parts(at)?;
        parts.pop();
        let name = parts.pop()?;
        Some((Named::Relation { schema: parts.pop(), name }, behind))
    }

    pub(super) fn parts(&self, at: usize) -> Option<(Vec<Part>, usize)> {
        if self.is_reserved(at) {
            return None;
        }
        let (first, mut behind) = self.partial(at)?;
        let mut parts = vec![first];
        while self.mark(behind, ".") {
            match self.partial(behind + 1) {
                Some((part, next)) => {
                    parts.push(part);
                    behind = next;
                }
                None => {
                    parts.push(Part { text: String::new(), whole: false });
                    behind += 1;
                }
            }
        }
        Some((parts, behind))
    }

    /// One part of a name, with what touches it: `t_{x}`, `{schema}`, `%s`, `:name`.
    pub(super) fn partial(&self, at: usize) -> Option<(Part, usize)> {
        let token = self.tokens.get(at)?;
        let (mut part, mut behind) = match self.part(at) {
            Some(part) => (part, at + 1),
            None if is_placeholder(token) => (Part { text: String::new(), whole: false }, self.behind_placeholder(at)),
            None => return None,
        };
        // What touches a name belongs to it.
        while let Some(next) = self.tokens.get(behind) {
            let touches = next.start == self.tokens[behind - 1].end;
            let goes_on = (is_placeholder(next) && !next.text.starts_with('?'))
                || (!part.whole && matches!(next.kind, TokenKind::Word));
            if !touches || !goes_on {
                break;
            }
            part.whole = false;
            behind = if is_placeholder(next) { self.behind_placeholder(behind) } else { behind + 1 };
        }
        Some((part, behind))
    }

    pub(super) fn behind_placeholder(&self, at: usize) -> usize {
        let token = &self.tokens[at];
        let text = |at: usize| self.tokens.get(at).map_or("", |token| token.text);
        let open = if is_brace(token) { at } else { at + 1 };
        // `{x}`, `{{ x }}`, `${x}`, `#{x}`.
        if text(open) == "{" && (open == at || self.tokens[open].start == token.end) {
            let mut depth = 0usize;
            for at in open..self.tokens.len().min(open + 24) {
                match text(at) {
                    "{" => depth += 1,
                    "}" => {
                        depth -= 1;
                        if depth == 0 {
                            return at + 1;
                        }
                    }
                    _ => {}
                }
            }
            return open + 1;
        }
        if token.text.ends_with('%') || matches!(token.text, "$" | "@" | "#") {
            // `%s`, `%(name)s`, `%1$s`, `$x`, `@x`.
            let mut next = at + 1;
            if text(next) == "(" && token.text.ends_with('%') {
                next = (self.behind_parentheses(next)).min(next + 4);
            }
            let touches = self.tokens.get(next).is_some_and(|word| {
                matches!(word.kind, TokenKind::Word | TokenKind::Number) && word.start == self.tokens[next - 1].end
            });
            return next + usize::from(touches);
        }
        at + 1
    }

    /// A word or quoted name as the server folds it, up to its first hole.
    pub(super) fn part(&self, at: usize) -> Option<Part> {
        let token = self.tokens.get(at)?;
        let full = match token.kind {
            TokenKind::Word => token.text.to_ascii_lowercase(),
            TokenKind::QuotedName => {
                let inner = token.text.trim_start_matches(['u', 'U', '&']);
                let inner = inner.strip_prefix('"').unwrap_or(inner);
                inner.strip_suffix('"').unwrap_or(inner).replace("\"\"", "\"")
            }
            _ => return None,
        };
        // A placeholder in quotes: `"{schema}"`, `"%s"`.
        let quoted = token.kind == TokenKind::QuotedName;
        let hole = full.find(|c| c == HOLE || (quoted && "{%$".contains(c)));
        Some(match hole {
            Some(hole) => Part { text: full[..hole].to_owned(), whole: false },
            None => Part { text: full, whole: true },
        })
    }
}
