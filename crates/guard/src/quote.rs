//! Names and values as SQL text; nothing else in this crate builds SQL from them.

use std::fmt;

/// A table's name, with its schema or without: `bot_config`, `app.bot_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    schema: Option<String>,
    name: String,
}

/// A text that names nothing in PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAName(pub String);

impl fmt::Display for NotAName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a name: write NAME or SCHEMA.NAME, without quotes", self.0)
    }
}

impl std::error::Error for NotAName {}

impl Name {
    /// Reads `NAME` or `SCHEMA.NAME`. What is left and right of the first point is taken as it is, capitals included.
    ///
    /// # Errors
    /// If a part is empty or holds NUL.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        let fits = |part: &str| !part.is_empty() && !part.contains('\0');
        if !fits(name) || !schema.is_none_or(fits) {
            return Err(NotAName(text.to_owned()));
        }
        Ok(Self { schema: schema.map(str::to_owned), name: name.to_owned() })
    }

    /// As SQL, always in quotes.
    pub(crate) fn sql(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", ident(schema), ident(&self.name)),
            None => ident(&self.name),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// A name in quotes. NUL, which no name holds, is left out.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('\0', "").replace('"', "\"\""))
}

/// A value in quotes, as `quote_literal` writes it: with a backslash as `E''`, so that it reads the same whatever
/// `standard_conforming_strings` says. NUL, which no value holds, is left out.
pub fn literal(value: &str) -> String {
    let quoted = value.replace('\0', "").replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_cannot_end_their_quotes() {
        assert_eq!(Name::parse("app.bot\"; DROP").map(|name| name.sql()), Ok("\"app\".\"bot\"\"; DROP\"".to_owned()));
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
        for text in ["", ".a", "a.", "a\0"] {
            assert_eq!(Name::parse(text), Err(NotAName(text.to_owned())));
        }
    }
}
