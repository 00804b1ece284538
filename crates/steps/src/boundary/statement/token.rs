//! The tokens that count, and what strings mean.

use std::ops::Range;

use pgrunbook_document::sql::{ProblemKind, TokenKind, lex, statements};

use super::{HEADS, HOLE, Text, Token};

pub(super) fn is_string(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::String | TokenKind::DollarString)
}

pub(super) fn is_brace(token: &Token<'_>) -> bool {
    token.text == "{"
}

/// What stands for a value or name that is filled in.
pub(super) fn is_placeholder(token: &Token<'_>) -> bool {
    match token.kind {
        TokenKind::Parameter | TokenKind::Variable(_) => true,
        TokenKind::Other => matches!(token.text, "{" | "$"),
        TokenKind::Operator => {
            token.text.starts_with('%') || token.text.starts_with('?') || matches!(token.text, "@" | "#" | "<")
        }
        _ => false,
    }
}

/// The tokens of a text that count, a semicolon between its statements. The data of a COPY is left out, and `\copy` is
/// the statement it stands for.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut all = Vec::new();
    for piece in statements(text) {
        match piece {
            Ok(statement) => take(text, statement.range, &mut all),
            Err(problem) if matches!(&problem.kind, ProblemKind::Meta { name } if name == "copy") => {
                let end = problem.range.end;
                take(text, problem.range.start + 1..end, &mut all);
                if let Some(end) = all.last().map(|token: &Token<'_>| token.end) {
                    all.push(Token { kind: TokenKind::Punctuation, text: ";", start: end, end });
                }
                continue;
            }
            Err(_) => continue,
        }
        if let Some(end) = all.last().map(|token| token.end) {
            all.push(Token { kind: TokenKind::Punctuation, text: ";", start: end, end });
        }
    }
    // A last statement that nobody ended goes on elsewhere.
    let ended = text.trim_end().ends_with(';');
    if !ended && all.last().is_some_and(|token| token.text == ";") {
        all.pop();
    }
    all
}

pub(super) fn take<'a>(text: &'a str, range: Range<usize>, all: &mut Vec<Token<'a>>) {
    for token in lex(&text[range.clone()]).filter(|token| !token.is_blank() && token.kind != TokenKind::Meta) {
        let (start, end) = (range.start + token.start, range.start + token.end);
        let word = &text[start..end];
        // `{prefix}INSERT`: the hole is one token, the word another.
        let behind = word.trim_start_matches(HOLE);
        let joined = behind.len() < word.len() && HEADS.iter().any(|head| behind.eq_ignore_ascii_case(head));
        if token.kind == TokenKind::Word && joined {
            let middle = end - behind.len();
            all.push(Token { kind: token.kind, text: &text[start..middle], start, end: middle });
            all.push(Token { kind: token.kind, text: behind, start: middle, end });
        } else {
            all.push(Token { kind: token.kind, text: word, start, end });
        }
    }
}

pub(super) fn behind_parentheses(tokens: &[Token<'_>]) -> Vec<usize> {
    let mut behind = vec![tokens.len(); tokens.len()];
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" => open.push(at),
            ")" => {
                if let Some(open) = open.pop() {
                    behind[open] = at + 1;
                }
            }
            ";" => open.drain(..).for_each(|open| behind[open] = at),
            _ => {}
        }
    }
    behind
}

/// What a string means.
pub(super) fn string(source: &Text, token: &Token<'_>) -> Text {
    if token.kind == TokenKind::DollarString {
        let tag = token.text[1..].find('$').map_or(1, |at| at + 2);
        let end = token.text.len().saturating_sub(tag).max(tag);
        return source.slice(token.start + tag..token.start + end.min(token.text.len()));
    }
    let open = token.text.find('\'').map_or(0, |at| at + 1);
    let end =
        if token.text.len() > open && token.text.ends_with('\'') { token.text.len() - 1 } else { token.text.len() };
    let escaped = token.text.starts_with(['e', 'E']);
    let mut text = Text::default();
    let mut characters = token.text[open..end].char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let place = source.at(token.start + open + at);
        let doubled = character == '\'' || (escaped && character == '\\');
        match characters.peek() {
            Some((_, next)) if doubled && (*next == '\'' || character == '\\') => {
                text.push(if *next == 'n' { '\n' } else { *next }, place);
                characters.next();
            }
            _ => text.push(character, place),
        }
    }
    text
}
