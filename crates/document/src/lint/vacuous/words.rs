//! A SQL step as its rules see it: words, the statement that is judged, and what is expected of it.

use crate::expectation::{Comparison, Expectation};
use crate::model::{Block, Span, SqlBody};
use crate::sql::{Token, TokenKind, lex};

/// A SQL step and its tokens.
pub(super) struct Asked<'a> {
    pub(super) block: &'a Block,
    pub(super) body: &'a SqlBody,
    /// Whether its kind only looks: what it answers is a gate.
    pub(super) is_gate: bool,
    /// The tokens of all its statements that are not blank.
    pub(super) words: Vec<Word<'a>>,
    /// Where in `words` the last statement begins: the one that is judged.
    last: usize,
}

/// A token and its text.
#[derive(Clone, Copy)]
pub(super) struct Word<'a> {
    token: Token,
    pub(super) text: &'a str,
}

impl<'a> Word<'a> {
    /// Whether it is this keyword.
    pub(super) fn is(self, keyword: &str) -> bool {
        self.token.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    /// Whether it is an operator or a punctuation mark that is written so.
    pub(super) fn is_sign(self, sign: &str) -> bool {
        matches!(self.token.kind, TokenKind::Operator | TokenKind::Punctuation) && self.text == sign
    }

    /// The name that it writes, with quotes or without.
    pub(super) fn name(self) -> Option<&'a str> {
        match self.token.kind {
            TokenKind::Word => Some(self.text),
            TokenKind::QuotedName => Some(self.text.trim_start_matches(['u', 'U', '&']).trim_matches('"')),
            _ => None,
        }
    }

    /// Whether it writes one of these names.
    pub(super) fn names(self, names: &[&str]) -> bool {
        self.name().is_some_and(|name| names.iter().any(|known| name.eq_ignore_ascii_case(known)))
    }

    pub(super) fn is_string(self) -> bool {
        self.token.kind == TokenKind::String
    }

    pub(super) fn is_variable(self) -> bool {
        matches!(self.token.kind, TokenKind::Variable(_))
    }
}

impl<'a> Asked<'a> {
    /// Reads the statements of a SQL step. `None` for other steps.
    pub(super) fn of(block: &'a Block, is_gate: bool) -> Option<Self> {
        let body = block.sql.as_ref()?;
        let text = block.statements();
        let mut words: Vec<Word<'_>> = lex(text)
            .filter(|token| !token.is_blank())
            .map(|token| Word { token, text: &text[token.range()] })
            .collect();
        while words.last().is_some_and(|word| word.is_sign(";")) {
            words.pop();
        }
        let last = words.iter().rposition(|word| word.is_sign(";")).map_or(0, |at| at + 1);
        Some(Self { block, body, is_gate, words, last })
    }

    /// The words of the statement that is judged.
    pub(super) fn judged(&self) -> &[Word<'a>] {
        &self.words[self.last..]
    }

    /// The words of the statements before it.
    pub(super) fn before(&self) -> &[Word<'a>] {
        &self.words[..self.last]
    }

    /// Whether one of these names stands in any statement.
    pub(super) fn mentions(&self, names: &[&str]) -> bool {
        self.words.iter().any(|word| word.names(names))
    }

    /// Where a word stands in the file.
    pub(super) fn place(&self, word: Word<'_>) -> Span {
        let start = self.body.statements.start;
        self.block.locate(start + word.token.start..start + word.token.end)
    }

    pub(super) fn expectations(&self) -> impl Iterator<Item = &'a Expectation> {
        self.body.expectations.iter().map(|one| &one.value)
    }

    /// Whether the statement must fail.
    pub(super) fn expects_error(&self) -> bool {
        self.expectations().any(|one| matches!(one, Expectation::Error { .. }))
    }

    /// Whether the columns that are judged by name have this one among them.
    pub(super) fn expects_column(&self, name: &str) -> bool {
        self.expectations().any(|one| match one {
            Expectation::EachRow { column, .. } => column.eq_ignore_ascii_case(name),
            Expectation::Table { columns, .. } => columns.iter().any(|column| column.eq_ignore_ascii_case(name)),
            _ => false,
        })
    }

    /// Whether it passes where there is nothing: no row, a count of 0, or an `EXISTS` that is false.
    pub(super) fn expects_nothing(&self) -> bool {
        use Comparison::{Eq, Le, Lt};
        let judged = self.judged();
        self.expectations().any(|one| match one {
            Expectation::Rows(Eq | Le, 0) | Expectation::Rows(Lt, 1) => true,
            Expectation::Table { rows, .. } => rows.is_empty(),
            Expectation::Value(Eq | Le, value) if value == "0" => judged.iter().any(|word| word.is("count")),
            Expectation::Value(Eq, value) => match truth(value) {
                Some(true) => begins(judged, &["not", "exists"]) || compares_count_with_0(judged),
                Some(false) => begins(judged, &["exists"]),
                None => false,
            },
            _ => false,
        })
    }

    /// Whether it passes only where there is something.
    pub(super) fn expects_something(&self) -> bool {
        use Comparison::{Eq, Ge, Gt, Ne};
        !self.expects_nothing()
            && self.expectations().any(|one| match one {
                Expectation::Rows(Eq | Ge, rows) => *rows > 0,
                Expectation::Rows(Ne, rows) => *rows == 0,
                Expectation::Rows(Gt, _) | Expectation::Value(..) | Expectation::EachRow { .. } => true,
                Expectation::Table { rows, .. } => !rows.is_empty(),
                Expectation::Rows(..) | Expectation::Error { .. } => false,
            })
    }
}

/// What a value means to PostgreSQL as a boolean, in the spellings that people expect.
pub(super) fn truth(value: &str) -> Option<bool> {
    let is = |spellings: [&str; 2]| spellings.iter().any(|one| value.eq_ignore_ascii_case(one));
    match () {
        () if is(["t", "true"]) => Some(true),
        () if is(["f", "false"]) => Some(false),
        () => None,
    }
}

/// Whether a statement is `SELECT` and these keywords.
fn begins(words: &[Word<'_>], keywords: &[&str]) -> bool {
    let Some((first, rest)) = words.split_first() else { return false };
    first.is("select")
        && rest.len() >= keywords.len()
        && keywords.iter().zip(rest).all(|(keyword, word)| word.is(keyword))
}

/// Whether a statement is `SELECT count(...) = 0`.
fn compares_count_with_0(words: &[Word<'_>]) -> bool {
    if !begins(words, &["count"]) || !words.get(2).is_some_and(|word| word.is_sign("(")) {
        return false;
    }
    let close = 2 + group(&words[2..]);
    words.get(close).is_some_and(|word| word.is_sign("=")) && words.get(close + 1).is_some_and(|word| word.text == "0")
}

/// How many words the parentheses have with which words begin, both counted.
pub(super) fn group(words: &[Word<'_>]) -> usize {
    let mut depth = 0usize;
    for (at, word) in words.iter().enumerate() {
        if word.is_sign("(") {
            depth += 1;
        } else if word.is_sign(")") {
            depth = depth.saturating_sub(1);
        }
        if depth == 0 {
            return at + 1;
        }
    }
    words.len()
}
