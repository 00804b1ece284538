//! The psql variables of a text: `:'name'` as a literal, `:"name"` as an identifier.
//!
//! They are replaced as `psql` replaces them: not in strings, quoted names, comments and dollar quotes. There is no
//! raw substitution.

use std::ops::Range;

use super::lex::{TokenKind, VariableForm, lex};
use super::quote;

/// One use of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub range: Range<usize>,
    pub name: String,
    pub form: VariableForm,
}

/// Why a text's variables cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubstituteError {
    #[error("the variable `{name}` has no value")]
    Unset { name: String, range: Range<usize> },
    #[error("`:{name}` would be replaced as it stands; write :'{name}' for a literal or :\"{name}\" for an identifier")]
    Raw { name: String, range: Range<usize> },
    #[error("`:{{?{name}}}` asks whether a variable is set, which only psql can answer")]
    Test { name: String, range: Range<usize> },
    #[error("the value of `{name}` holds a NUL byte")]
    Nul { name: String, range: Range<usize> },
}

impl SubstituteError {
    /// Where in the text.
    pub fn range(&self) -> Range<usize> {
        match self {
            Self::Unset { range, .. }
            | Self::Raw { range, .. }
            | Self::Test { range, .. }
            | Self::Nul { range, .. } => range.clone(),
        }
    }
}

/// Every use of a variable in a text, in order. The bounds of an array slice (`a[1:n]`, `a[:n]`) are none.
pub fn variables(text: &str) -> Vec<Variable> {
    let mut found = Vec::new();
    let mut brackets = 0usize;
    for token in lex(text) {
        let part = &text[token.range()];
        match token.kind {
            TokenKind::Punctuation if part == "[" => brackets += 1,
            TokenKind::Punctuation if part == "]" => brackets = brackets.saturating_sub(1),
            TokenKind::Variable(VariableForm::Raw) if brackets > 0 => {}
            // `1:2`: psql would look for a variable named 2; nobody means one.
            TokenKind::Variable(VariableForm::Raw) if part.as_bytes()[1].is_ascii_digit() => {}
            TokenKind::Variable(form) => {
                let name = part.trim_matches([':', '\'', '"', '{', '?', '}']).to_owned();
                found.push(Variable { range: token.range(), name, form });
            }
            _ => {}
        }
    }
    found
}

/// Replaces the variables of a text.
///
/// # Errors
///
/// The first variable that has no value, or that is not written as a literal or an identifier.
pub fn substitute<V: AsRef<str>>(text: &str, value: impl Fn(&str) -> Option<V>) -> Result<String, SubstituteError> {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for Variable { range, name, form } in variables(text) {
        let quote = match form {
            VariableForm::Literal => quote::literal,
            VariableForm::Identifier => quote::ident,
            VariableForm::Raw => return Err(SubstituteError::Raw { name, range }),
            VariableForm::Test => return Err(SubstituteError::Test { name, range }),
        };
        let Some(value) = value(&name) else {
            return Err(SubstituteError::Unset { name, range });
        };
        let Ok(quoted) = quote(value.as_ref()) else {
            return Err(SubstituteError::Nul { name, range });
        };
        out.push_str(&text[at..range.start]);
        if touches(&out, &quoted) {
            out.push(' ');
        }
        out.push_str(&quoted);
        at = range.end;
        if touches(&quoted, &text[at..]) {
            out.push(' ');
        }
    }
    out.push_str(&text[at..]);
    Ok(out)
}

/// Whether two texts would grow together into another token: `a` and `E'...'`, `'a'` and `'b'`.
fn touches(left: &str, right: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii();
    match (left.chars().next_back(), right.chars().next()) {
        (Some(left), Some(right)) => {
            (word(left) && (word(right) || matches!(right, '\'' | '"'))) || {
                matches!(left, '\'' | '"') && left == right
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str) -> Option<&'static str> {
        match name {
            "v" => Some("it's"),
            "t" => Some("My Table"),
            "p" => Some("plain"),
            "b" => Some("a\\b"),
            "n" => Some("nul\0"),
            _ => None,
        }
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(substitute(text, value).as_deref(), Ok(expected), "{text:?}");
    }

    #[test]
    fn literals_and_identifiers_are_quoted() {
        check("SELECT :'v' FROM :\"t\"", "SELECT 'it''s' FROM \"My Table\"");
        check("SELECT :'b'::text FROM :\"p\".t", "SELECT E'a\\\\b'::text FROM plain.t");
        check("now() - :'p'::interval", "now() - 'plain'::interval");
    }

    #[test]
    fn strings_names_comments_and_dollar_quotes_stay() {
        for text in ["':''v'''", "\":'v'\"", "-- :'v'\n", "/* :'v' */", "$$:'v'$$", "E'\\':v'"] {
            check(text, text);
        }
    }

    #[test]
    fn casts_assignments_and_slices_are_no_variables() {
        for text in ["a::v", "f(a := 1)", "a[1:2]", "a[:v]", "a[i:v + b[1:n]]", "1:2"] {
            check(text, text);
        }
    }

    #[test]
    fn replaced_tokens_do_not_grow_together() {
        check("SELECT:'b'", "SELECT E'a\\\\b'");
        check("SELECT:\"p\"FROM", "SELECT plain FROM");
        check("'x':'v'", "'x' 'it''s'");
    }

    #[test]
    fn what_cannot_be_replaced_is_named() {
        let error = |text: &str| substitute(text, value).unwrap_err();
        assert_eq!(error("a :'x'"), SubstituteError::Unset { name: "x".into(), range: 2..6 });
        assert_eq!(error(":v"), SubstituteError::Raw { name: "v".into(), range: 0..2 });
        assert_eq!(error(":{?v}"), SubstituteError::Test { name: "v".into(), range: 0..5 });
        assert_eq!(error(":'n'"), SubstituteError::Nul { name: "n".into(), range: 0..4 });
    }
}
