//! SQLite's lexical rules: <https://www.sqlite.org/lang_expr.html>, and `sqlite3GetToken` in src/tokenize.c.

/// A token, with where it stands in the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub what: What,
    pub from: usize,
    pub to: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A keyword or a bare name, as written.
    Word(String),
    /// A name in double quotes, backticks or brackets.
    Quoted(String),
    /// In single quotes.
    Text(String),
    Blob(Vec<u8>),
    Integer(String),
    Real(String),
    /// An operator or a bracket.
    Sign(&'static str),
    /// A parameter, or a character that no token begins with.
    Other(char),
}

/// The longest first.
const SIGNS: &[&str] = &[
    "->>", "||", "->", "<<", ">>", "<=", ">=", "==", "!=", "<>", "(", ")", ",", ".", ";", "+", "-", "*", "/", "%", "&",
    "|", "~", "<", ">", "=",
];

impl Token {
    /// Whether it is this keyword.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(&self.what, What::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub fn is_sign(&self, sign: &str) -> bool {
        matches!(self.what, What::Sign(found) if found == sign)
    }

    /// The name it can stand for.
    pub fn name(&self) -> Option<&str> {
        match &self.what {
            // SQLite takes a text in single quotes for a name where only a name can stand.
            What::Word(name) | What::Quoted(name) | What::Text(name) => Some(name),
            _ => None,
        }
    }
}

/// All tokens of a text; comments and white space are left out. A text that ends within a token ends there.
pub fn tokens(sql: &str) -> Vec<Token> {
    let bytes = sql.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &sql[at..];
        let Some(first) = rest.chars().next() else { break };
        if first.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if rest.starts_with("--") {
            at += rest.find('\n').map_or(rest.len(), |end| end + 1);
            continue;
        }
        if let Some(comment) = rest.strip_prefix("/*") {
            at += comment.find("*/").map_or(rest.len(), |end| end + 4);
            continue;
        }
        let (what, length) = token(rest, first);
        tokens.push(Token { what, from: at, to: at + length });
        at += length;
    }
    tokens
}

fn token(rest: &str, first: char) -> (What, usize) {
    match first {
        '\'' => {
            let (text, length) = until(rest, '\'');
            return (What::Text(text), length);
        }
        '"' | '`' => {
            let (name, length) = until(rest, first);
            return (What::Quoted(name), length);
        }
        '[' => {
            let end = rest.find(']').unwrap_or(rest.len());
            return (What::Quoted(rest[1..end].to_owned()), (end + 1).min(rest.len()));
        }
        'x' | 'X' if rest[1..].starts_with('\'') => {
            let (digits, length) = until(&rest[1..], '\'');
            let bytes = digits.as_bytes().chunks(2).map(|pair| {
                std::str::from_utf8(pair)
                    .ok()
                    .filter(|pair| pair.len() == 2)
                    .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            });
            if let Some(bytes) = bytes.collect::<Option<Vec<u8>>>() {
                return (What::Blob(bytes), length + 1);
            }
        }
        _ => {}
    }
    let starts_number =
        first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|next: char| next.is_ascii_digit()));
    if starts_number {
        return number(rest);
    }
    if first.is_ascii_alphabetic() || first == '_' || !first.is_ascii() {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
        let length = rest.find(|c: char| !fits(c)).unwrap_or(rest.len());
        return (What::Word(rest[..length].to_owned()), length);
    }
    match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        Some(sign) => (What::Sign(sign), sign.len()),
        None => (What::Other(first), first.len_utf8()),
    }
}

/// What stands in quotes, a doubled quote being one; and how long it is with them.
fn until(rest: &str, quote: char) -> (String, usize) {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            text.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            text.push(c);
            chars.next();
        } else {
            return (text, at + c.len_utf8());
        }
    }
    (text, rest.len())
}

fn number(rest: &str) -> (What, usize) {
    let bytes = rest.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'_') {
            at += 1;
        }
        at
    };
    if bytes[0] == b'0' && matches!(bytes.get(1), Some(b'x' | b'X')) {
        let length = 2 + bytes[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        return (What::Integer(rest[..length].to_owned()), length);
    }
    let mut at = digits(0);
    let mut real = false;
    if bytes.get(at) == Some(&b'.') {
        real = true;
        at = digits(at + 1);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        if bytes.get(at + 1 + sign).is_some_and(u8::is_ascii_digit) {
            real = true;
            at = digits(at + 1 + sign);
        }
    }
    let text = rest[..at].replace('_', "");
    (if real { What::Real(text) } else { What::Integer(text) }, at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_texts_and_numbers_are_told_apart() {
        let found: Vec<What> =
            tokens("\"a\"\"b\" [c d] `e` 'it''s' x'0aFF' 1.5e3 .5 0x1F a$1 -- gone\n||/* too */<> é ?")
                .into_iter()
                .map(|token| token.what)
                .collect();
        let quoted = |name: &str| What::Quoted(name.to_owned());
        assert_eq!(
            found,
            [
                quoted("a\"b"),
                quoted("c d"),
                quoted("e"),
                What::Text("it's".to_owned()),
                What::Blob(vec![10, 255]),
                What::Real("1.5e3".to_owned()),
                What::Real(".5".to_owned()),
                What::Integer("0x1F".to_owned()),
                What::Word("a$1".to_owned()),
                What::Sign("||"),
                What::Sign("<>"),
                What::Word("é".to_owned()),
                What::Other('?'),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_ends(sql in "\\PC{0,60}") {
            let tokens = tokens(&sql);
            for token in tokens {
                prop_assert!(token.from < token.to && token.to <= sql.len() && sql.is_char_boundary(token.to));
            }
        }

        #[test]
        fn quotes_at_any_end_are_read(sql in "[\"'`\\[\\]x0-9.e \\-/*é]{0,40}") {
            prop_assert!(tokens(&sql).iter().all(|token| sql.is_char_boundary(token.from)));
        }
    }
}
