//! Text to tokens: the rules of `psqlscan.l`, one function a token.
//!
//! The tokens of a text cover it without gaps. Every byte is looked at a bounded number of times, so lexing is linear.
//!
//! One rule is the server's and not `psql`'s: a string goes on over a line break (`E'a'` newline `'b\''`) with the
//! escapes it began with, where `psql`, reading line by line, forgets them.

use std::ops::Range;

/// One token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// What a token is, as far as splitting and substituting need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Blanks, tabs, line breaks, and a byte order mark at the very beginning.
    Space,
    /// `-- to the end of the line`.
    LineComment,
    /// `/* may /* nest */ */`.
    BlockComment,
    /// An identifier without quotes, or a keyword.
    Word,
    /// `"name"` or `U&"name"`.
    QuotedName,
    /// `'...'`, `E'...'`, `B'...'`, `X'...'`, `N'...'` or `U&'...'`, with its continuations on further lines.
    String,
    /// `$$...$$` or `$tag$...$tag$`.
    DollarString,
    Number,
    /// `$1`.
    Parameter,
    Operator,
    /// One of `, ( ) [ ] . ;` and a colon that begins nothing else, or `::`, `..`, `:=`.
    Punctuation,
    /// A psql variable.
    Variable(VariableForm),
    /// A psql backslash command with its arguments, to the end of the line or to `\\`.
    Meta,
    /// A byte that begins nothing: a lone `$`, a brace, a control character.
    Other,
    /// Opened here and never closed: the rest of the text.
    Unclosed(Unclosed),
}

/// How a psql variable is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariableForm {
    /// `:'name'`: as a literal.
    Literal,
    /// `:"name"`: as an identifier.
    Identifier,
    /// `:name`: as it is.
    Raw,
    /// `:{?name}`: whether it is set.
    Test,
}

/// What was opened and not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclosed {
    String,
    QuotedName,
    DollarString,
    Comment,
}

impl Token {
    /// The place as a range of bytes.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// Whether it is only a blank or a comment.
    pub fn is_blank(self) -> bool {
        matches!(self.kind, TokenKind::Space | TokenKind::LineComment | TokenKind::BlockComment)
    }
}

/// The tokens of a text, one after the other.
pub fn lex(text: &str) -> Lexer<'_> {
    Lexer { bytes: text.as_bytes(), at: 0, signs_end: 0 }
}

/// Iterator over the tokens of a text.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Up to here each `+` and `-` is an operator of its own: kept so that a long run of them is read once.
    signs_end: usize,
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let start = self.at;
        let first = *self.bytes.get(start)?;
        let kind = self.token(first);
        debug_assert!(self.at > start, "a token has at least one byte");
        Some(Token { kind, start, end: self.at })
    }
}

impl Lexer<'_> {
    /// The first byte that is not read yet.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Goes on at another byte, which must be the boundary of a character: used to step over the data of a `COPY`.
    pub(super) fn seek(&mut self, at: usize) {
        self.at = at;
    }

    /// Reads one token whose first byte is given, and moves behind it.
    fn token(&mut self, first: u8) -> TokenKind {
        match (first, self.peek(1)) {
            (b' ' | b'\t' | b'\n' | b'\r' | b'\x0B' | b'\x0C', _) => self.space(),
            (0xEF, _) if self.at == 0 && self.bytes.starts_with(b"\xEF\xBB\xBF") => self.take(3, TokenKind::Space),
            (b'-', Some(b'-')) => {
                self.skip_line();
                TokenKind::LineComment
            }
            (b'/', Some(b'*')) => self.block_comment(),
            (b'\'', _) => self.string(1, Escapes::No),
            (b'e' | b'E', Some(b'\'')) => self.string(2, Escapes::Backslash),
            (b'n' | b'N', Some(b'\'')) => self.string(2, Escapes::No),
            (b'b' | b'B' | b'x' | b'X', Some(b'\'')) => self.string(2, Escapes::NotEvenDoubled),
            (b'u' | b'U', Some(b'&')) if self.peek(2) == Some(b'\'') => self.string(3, Escapes::No),
            (b'u' | b'U', Some(b'&')) if self.peek(2) == Some(b'"') => self.quoted_name(3),
            (b'"', _) => self.quoted_name(1),
            (b'$', _) => self.dollar(),
            (b'0'..=b'9', _) | (b'.', Some(b'0'..=b'9')) => self.number(),
            (b':', next) => self.colon(next),
            (b'.', Some(b'.')) => self.take(2, TokenKind::Punctuation),
            (b',' | b'(' | b')' | b'[' | b']' | b'.' | b';', _) => self.take(1, TokenKind::Punctuation),
            (b'\\', next) => self.backslash(next),
            (byte, _) if is_word_start(byte) => {
                self.skip_while(is_word_byte);
                TokenKind::Word
            }
            (byte, _) if is_operator(byte) => self.operator(),
            _ => self.take(1, TokenKind::Other),
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn take(&mut self, length: usize, kind: TokenKind) -> TokenKind {
        self.at += length;
        kind
    }

    fn skip_while(&mut self, belongs: impl Fn(u8) -> bool) {
        self.at += run(&self.bytes[self.at..], belongs);
    }

    /// To the end of the line, before its line break.
    fn skip_line(&mut self) {
        self.skip_while(|byte| byte != b'\n' && byte != b'\r');
    }

    fn unclosed(&mut self, what: Unclosed) -> TokenKind {
        self.at = self.bytes.len();
        TokenKind::Unclosed(what)
    }

    fn space(&mut self) -> TokenKind {
        self.skip_while(is_space);
        TokenKind::Space
    }

    fn block_comment(&mut self) -> TokenKind {
        let mut depth = 0usize;
        while let Some(byte) = self.peek(0) {
            match (byte, self.peek(1)) {
                (b'/', Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return TokenKind::BlockComment;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.unclosed(Unclosed::Comment)
    }

    /// A string whose opening (prefix and quote) has a length.
    fn string(&mut self, opening: usize, escapes: Escapes) -> TokenKind {
        self.at += opening;
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\\' if escapes == Escapes::Backslash => self.at += 2,
                b'\'' if escapes != Escapes::NotEvenDoubled && self.peek(1) == Some(b'\'') => self.at += 2,
                b'\'' => {
                    self.at += 1;
                    match continuation(&self.bytes[self.at..]) {
                        Some(length) => self.at += length,
                        None => return TokenKind::String,
                    }
                }
                _ => self.at += 1,
            }
        }
        self.unclosed(Unclosed::String)
    }

    fn quoted_name(&mut self, opening: usize) -> TokenKind {
        self.at += opening;
        while let Some(byte) = self.peek(0) {
            match (byte, self.peek(1)) {
                (b'"', Some(b'"')) => self.at += 2,
                (b'"', _) => return self.take(1, TokenKind::QuotedName),
                _ => self.at += 1,
            }
        }
        self.unclosed(Unclosed::QuotedName)
    }

    /// `$1`, `$tag$...$tag$`, or a lone `$`.
    fn dollar(&mut self) -> TokenKind {
        let rest = &self.bytes[self.at + 1..];
        if rest.first().is_some_and(u8::is_ascii_digit) {
            let digits = run(rest, |byte| byte.is_ascii_digit());
            self.at += 1 + digits;
            self.junk();
            return TokenKind::Parameter;
        }
        let tag = if rest.first().is_some_and(|byte| is_word_start(*byte)) { run(rest, is_variable_byte) } else { 0 };
        if rest.get(tag) != Some(&b'$') {
            return self.take(1, TokenKind::Other);
        }
        let delimiter = &self.bytes[self.at..self.at + tag + 2];
        let body = self.at + delimiter.len();
        match find(&self.bytes[body..], delimiter) {
            Some(found) => {
                self.at = body + found + delimiter.len();
                TokenKind::DollarString
            }
            None => self.unclosed(Unclosed::DollarString),
        }
    }

    fn number(&mut self) -> TokenKind {
        let digits = |byte: u8| byte.is_ascii_digit() || byte == b'_';
        if self.peek(0) == Some(b'0') && matches!(self.peek(1), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B')) {
            let length = run(&self.bytes[self.at + 2..], |byte| byte.is_ascii_hexdigit() || byte == b'_');
            if length > 0 {
                self.at += 2 + length;
                self.junk();
                return TokenKind::Number;
            }
        }
        self.skip_while(digits);
        // `1..10` is three tokens.
        if self.peek(0) == Some(b'.') && self.peek(1) != Some(b'.') {
            self.at += 1;
            self.skip_while(digits);
        }
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
            if self.peek(1 + sign).is_some_and(|byte| byte.is_ascii_digit()) {
                self.at += 1 + sign;
                self.skip_while(digits);
            }
        }
        self.junk();
        TokenKind::Number
    }

    /// Letters that touch a number: one token with it since PostgreSQL 15, which then refuses it.
    fn junk(&mut self) {
        if self.peek(0).is_some_and(is_word_start) {
            self.skip_while(is_word_byte);
        }
    }

    fn colon(&mut self, next: Option<u8>) -> TokenKind {
        let name = |from: usize| self.bytes.get(self.at + from..).map_or(0, |rest| run(rest, is_variable_byte));
        match next {
            Some(b':' | b'=') => self.take(2, TokenKind::Punctuation),
            Some(quote @ (b'\'' | b'"')) => {
                let length = name(2);
                if length == 0 || self.peek(2 + length) != Some(quote) {
                    return self.take(1, TokenKind::Punctuation);
                }
                let form = if quote == b'"' { VariableForm::Identifier } else { VariableForm::Literal };
                self.take(3 + length, TokenKind::Variable(form))
            }
            Some(b'{') if self.peek(2) == Some(b'?') => {
                let length = name(3);
                if length == 0 || self.peek(3 + length) != Some(b'}') {
                    return self.take(1, TokenKind::Punctuation);
                }
                self.take(4 + length, TokenKind::Variable(VariableForm::Test))
            }
            _ => match name(1) {
                0 => self.take(1, TokenKind::Punctuation),
                length => self.take(1 + length, TokenKind::Variable(VariableForm::Raw)),
            },
        }
    }

    /// `\;` and `\:` are two bytes long; any other command takes its arguments too.
    fn backslash(&mut self, next: Option<u8>) -> TokenKind {
        if matches!(next, Some(b';' | b':')) {
            return self.take(2, TokenKind::Meta);
        }
        self.at += 1;
        if self.peek(0) == Some(b'\\') {
            return self.take(1, TokenKind::Meta);
        }
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\n' | b'\r' => break,
                b'\\' if self.peek(1) == Some(b'\\') => {
                    self.at += 2;
                    break;
                }
                _ => self.at += 1,
            }
        }
        TokenKind::Meta
    }

    fn operator(&mut self) -> TokenKind {
        if self.at < self.signs_end {
            return self.take(1, TokenKind::Operator);
        }
        let text = &self.bytes[self.at..];
        let mut length = run(text, is_operator);
        // A comment begins inside what looks like one operator: `+/* */`, `*-- `.
        if let Some(comment) = (1..length).find(|at| matches!(text.get(*at..at + 2), Some([b'/', b'*'] | [b'-', b'-'])))
        {
            length = comment;
        }
        // `=-` is two operators, `?-` is one: only a character that SQL itself does not use lets one end in a sign.
        let foreign = |byte: &u8| b"~!@#^&|`?%".contains(byte);
        if length > 1 && !text[..length].iter().any(foreign) {
            self.signs_end = self.at + length;
            while length > 1 && matches!(text[length - 1], b'+' | b'-') {
                length -= 1;
            }
        }
        self.take(length, TokenKind::Operator)
    }
}

/// What a string knows of escapes beside its closing quote.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// `''` is a quote.
    No,
    /// `''` and `\'` are quotes.
    Backslash,
    /// Bit strings: the first quote closes.
    NotEvenDoubled,
}

/// Length of the blank with at least one line break, and the quote behind it, after which a string goes on.
fn continuation(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut line_broken = false;
    loop {
        match (rest.get(at)?, rest.get(at + 1)) {
            (b'\n' | b'\r', _) => {
                line_broken = true;
                at += 1;
            }
            (b' ' | b'\t' | b'\x0B' | b'\x0C', _) => at += 1,
            (b'-', Some(b'-')) => {
                at += run(&rest[at..], |byte| byte != b'\n' && byte != b'\r');
                rest.get(at)?;
            }
            (b'\'', _) if line_broken => return Some(at + 1),
            _ => return None,
        }
    }
}

/// How many bytes at the beginning belong together.
fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !belongs(*byte)).unwrap_or(bytes.len())
}

/// First place of a dollar quote's delimiter. It begins with `$` and holds no other but the last, so that a place that
/// fails is left in one step and the search stays linear.
fn find(bytes: &[u8], delimiter: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        from += bytes[from..].iter().position(|byte| *byte == b'$')?;
        if bytes[from..].starts_with(delimiter) {
            return Some(from);
        }
        from += 1;
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0B' | b'\x0C')
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word_byte(byte: u8) -> bool {
    is_variable_byte(byte) || byte == b'$'
}

fn is_variable_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn is_operator(byte: u8) -> bool {
    b"~!@#^&|`?+-*/%<>=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::TokenKind as K;
    use super::VariableForm as V;
    use super::*;

    /// The tokens that are not blank, as kind and text.
    fn check(text: &str, expected: &[(TokenKind, &str)]) {
        let tokens: Vec<_> =
            lex(text).filter(|token| token.kind != K::Space).map(|token| (token.kind, &text[token.range()])).collect();
        assert_eq!(tokens, expected, "{text:?}");
    }

    #[test]
    fn strings() {
        check("'it''s' x", &[(K::String, "'it''s'"), (K::Word, "x")]);
        check(r"'a\' b", &[(K::String, r"'a\'"), (K::Word, "b")]);
        check(r"E'a\'b' c", &[(K::String, r"E'a\'b'"), (K::Word, "c")]);
        check(r"e'\\' c", &[(K::String, r"e'\\'"), (K::Word, "c")]);
        check("U&'d\\0061''t' UESCAPE '!'", &[(K::String, "U&'d\\0061''t'"), (K::Word, "UESCAPE"), (K::String, "'!'")]);
        check("B'01' x'1F' N'n'", &[(K::String, "B'01'"), (K::String, "x'1F'"), (K::String, "N'n'")]);
        check("b'0''1'", &[(K::String, "b'0'"), (K::String, "'1'")]);
        check("type'a'", &[(K::Word, "type"), (K::String, "'a'")]);
    }

    #[test]
    fn strings_go_on_after_a_line_break() {
        check("'a'\n  'b;'", &[(K::String, "'a'\n  'b;'")]);
        check("'a' -- x'\n-- y\n 'b'", &[(K::String, "'a' -- x'\n-- y\n 'b'")]);
        check("E'a'\r\n'\\''", &[(K::String, "E'a'\r\n'\\''")]);
        check("'a' 'b'", &[(K::String, "'a'"), (K::String, "'b'")]);
        check("'a' /* \n */ 'b'", &[(K::String, "'a'"), (K::BlockComment, "/* \n */"), (K::String, "'b'")]);
        check("'a'\n-'b'", &[(K::String, "'a'"), (K::Operator, "-"), (K::String, "'b'")]);
    }

    #[test]
    fn dollar_quotes() {
        check("$$;'$$", &[(K::DollarString, "$$;'$$")]);
        check("$é1$ $$ $é$ $é1$ x", &[(K::DollarString, "$é1$ $$ $é$ $é1$"), (K::Word, "x")]);
        check("$a$ $a $a$", &[(K::DollarString, "$a$ $a $a$")]);
        check("$a$$b$a$", &[(K::DollarString, "$a$$b$a$")]);
        check("a$$b$$", &[(K::Word, "a$$b$$")]);
        check("$1$$x$$", &[(K::Parameter, "$1"), (K::DollarString, "$$x$$")]);
        check("$a b", &[(K::Other, "$"), (K::Word, "a"), (K::Word, "b")]);
    }

    #[test]
    fn comments() {
        check("/* a /* b */ ; */ x", &[(K::BlockComment, "/* a /* b */ ; */"), (K::Word, "x")]);
        check("/**/x/*/**/*/", &[(K::BlockComment, "/**/"), (K::Word, "x"), (K::BlockComment, "/*/**/*/")]);
        check("a--;'\nb", &[(K::Word, "a"), (K::LineComment, "--;'"), (K::Word, "b")]);
        check("1 -- \r2", &[(K::Number, "1"), (K::LineComment, "-- "), (K::Number, "2")]);
    }

    #[test]
    fn operators_stop_at_comments() {
        check("1+/* */2", &[(K::Number, "1"), (K::Operator, "+"), (K::BlockComment, "/* */"), (K::Number, "2")]);
        check("a*--x\n", &[(K::Word, "a"), (K::Operator, "*"), (K::LineComment, "--x")]);
        check("a=-1", &[(K::Word, "a"), (K::Operator, "="), (K::Operator, "-"), (K::Number, "1")]);
        check("a?-b", &[(K::Word, "a"), (K::Operator, "?-"), (K::Word, "b")]);
        check("a->>'b'", &[(K::Word, "a"), (K::Operator, "->>"), (K::String, "'b'")]);
        check("@-/* x */", &[(K::Operator, "@-"), (K::BlockComment, "/* x */")]);
    }

    #[test]
    fn variables_casts_and_slices() {
        check(
            ":'v':\"v\":v:{?v}",
            &[
                (K::Variable(V::Literal), ":'v'"),
                (K::Variable(V::Identifier), ":\"v\""),
                (K::Variable(V::Raw), ":v"),
                (K::Variable(V::Test), ":{?v}"),
            ],
        );
        check("a::int", &[(K::Word, "a"), (K::Punctuation, "::"), (K::Word, "int")]);
        check("a:=1", &[(K::Word, "a"), (K::Punctuation, ":="), (K::Number, "1")]);
        check(":'a b'", &[(K::Punctuation, ":"), (K::String, "'a b'")]);
        check(":''", &[(K::Punctuation, ":"), (K::String, "''")]);
        check("':v' \":v\"", &[(K::String, "':v'"), (K::QuotedName, "\":v\"")]);
    }

    #[test]
    fn names() {
        check("\"a\"\"b;\" U&\"\\0061\"", &[(K::QuotedName, "\"a\"\"b;\""), (K::QuotedName, "U&\"\\0061\"")]);
        check("naïve_1$", &[(K::Word, "naïve_1$")]);
        check("u & 1", &[(K::Word, "u"), (K::Operator, "&"), (K::Number, "1")]);
    }

    #[test]
    fn numbers() {
        check("1..10", &[(K::Number, "1"), (K::Punctuation, ".."), (K::Number, "10")]);
        check(
            "1.5e-3 .5 1e 0x1F 1_000",
            &[(K::Number, "1.5e-3"), (K::Number, ".5"), (K::Number, "1e"), (K::Number, "0x1F"), (K::Number, "1_000")],
        );
    }

    #[test]
    fn backslash_commands_take_their_line() {
        check("\\set x '1;'\nSELECT", &[(K::Meta, "\\set x '1;'"), (K::Word, "SELECT")]);
        check("\\echo a \\\\ b", &[(K::Meta, "\\echo a \\\\"), (K::Word, "b")]);
        check("a\\;b", &[(K::Word, "a"), (K::Meta, "\\;"), (K::Word, "b")]);
    }

    #[test]
    fn what_is_not_closed_takes_the_rest() {
        for (text, what) in [
            ("'a;", Unclosed::String),
            ("E'a\\'", Unclosed::String),
            ("E'\\", Unclosed::String),
            ("\"a", Unclosed::QuotedName),
            ("$x$ $x", Unclosed::DollarString),
            ("/* /* */", Unclosed::Comment),
        ] {
            check(text, &[(K::Unclosed(what), text)]);
        }
    }

    #[test]
    fn long_runs_of_half_tokens_stay_linear() {
        for half in ["$a", "'a'\n", "/*", "'a' --\n", ":'", "\\", "+-", "$$a"] {
            let text = half.repeat(200_000 / half.len());
            assert!(lex(&text).map(|token| token.end - token.start).sum::<usize>() == text.len());
        }
    }

    proptest::proptest! {
        #[test]
        fn tokens_cover_the_text(text in "([-+*/'\"$:;\\\\(){}?a-eE0-9&uU é\n]|\\$a\\$|/\\*|\\*/){0,60}") {
            let mut at = 0;
            for token in lex(&text) {
                proptest::prop_assert_eq!(token.start, at);
                proptest::prop_assert!(text.is_char_boundary(token.end));
                at = token.end;
            }
            proptest::prop_assert_eq!(at, text.len());
        }
    }
}
