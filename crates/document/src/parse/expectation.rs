//! Reads an expectation as people write it.

use std::sync::LazyLock;

use regex::Regex;

use crate::expectation::{Comparison, Expectation};

static ROWS: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\d+) rows?$"));
static ROWS_COMPARED: LazyLock<Regex> = LazyLock::new(|| pattern(r"^rows?\s*(=|<>|!=|<=|>=|<|>)\s*(\d+)$"));
static VALUE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^value\s*(=|<>|!=|<=|>=|<|>)\s*(.+)$"));
static EACH_ROW: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"^each row\s+("(?:[^"]|"")+"|[A-Za-z_?][A-Za-z0-9_$?]*)\s*(=|<>|!=|<=|>=|<|>)\s*(.+)$"#)
});
static ERROR: LazyLock<Regex> = LazyLock::new(|| pattern(r"^error\s+([0-9A-Z]{5})(?:\s*~\s*(.+))?$"));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is constant and compiles")
}

/// What was understood, or what to write instead.
pub(super) fn expectation(text: &str) -> Result<Expectation, &'static str> {
    let text = text.trim();
    if let Some(found) = ROWS.captures(text) {
        return Ok(Expectation::Rows(Comparison::Eq, number(&found[1])?));
    }
    if let Some(found) = ROWS_COMPARED.captures(text) {
        return Ok(Expectation::Rows(comparison(&found[1]), number(&found[2])?));
    }
    if let Some(found) = VALUE.captures(text) {
        return Ok(Expectation::Value(comparison(&found[1]), literal(&found[2])?));
    }
    if let Some(found) = EACH_ROW.captures(text) {
        let column = found[1].trim_matches('"').replace("\"\"", "\"");
        return Ok(Expectation::EachRow { column, comparison: comparison(&found[2]), value: literal(&found[3])? });
    }
    if let Some(found) = ERROR.captures(text) {
        let message_contains = found.get(2).map(|part| literal(part.as_str())).transpose()?;
        return Ok(Expectation::Error { sqlstate: found[1].to_owned(), message_contains });
    }
    Err(
        "write `0 rows`, `rows >= 1`, `value = 't'`, `each row COLUMN = 'v'`, `error 42501` or `error P0001 ~ 'part of the message'`",
    )
}

fn number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "the number of rows is too large")
}

fn comparison(sign: &str) -> Comparison {
    match sign {
        "<>" | "!=" => Comparison::Ne,
        "<" => Comparison::Lt,
        "<=" => Comparison::Le,
        ">" => Comparison::Gt,
        ">=" => Comparison::Ge,
        _ => Comparison::Eq,
    }
}

/// `'it''s'` or a bare word or number.
fn literal(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    match text.strip_prefix('\'') {
        Some(rest) => {
            let inner = rest.strip_suffix('\'').ok_or("the text is not closed: write 'text'")?;
            if inner.replace("''", "").contains('\'') {
                return Err("a quote inside the text is written twice: 'it''s'");
            }
            Ok(inner.replace("''", "'"))
        }
        None if text.chars().any(char::is_whitespace) => Err("put the text in quotes: 'some text'"),
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let rows = |comparison, count| Ok(Expectation::Rows(comparison, count));
        assert_eq!(expectation("0 rows"), rows(Comparison::Eq, 0));
        assert_eq!(expectation("1 row"), rows(Comparison::Eq, 1));
        assert_eq!(expectation("rows >= 1"), rows(Comparison::Ge, 1));
        assert_eq!(expectation("value = 't'"), Ok(Expectation::Value(Comparison::Eq, "t".to_owned())));
        assert_eq!(expectation("value < 42"), Ok(Expectation::Value(Comparison::Lt, "42".to_owned())));
        assert_eq!(expectation("value = 'it''s'"), Ok(Expectation::Value(Comparison::Eq, "it's".to_owned())));
        assert_eq!(
            expectation("each row has_usage = true"),
            Ok(Expectation::EachRow {
                column: "has_usage".to_owned(),
                comparison: Comparison::Eq,
                value: "true".to_owned()
            })
        );
        assert_eq!(
            expectation("error P0001 ~ 'community_id is not set'"),
            Ok(Expectation::Error {
                sqlstate: "P0001".to_owned(),
                message_contains: Some("community_id is not set".to_owned())
            })
        );
        assert_eq!(
            expectation("error 42501"),
            Ok(Expectation::Error { sqlstate: "42501".to_owned(), message_contains: None })
        );
    }

    #[test]
    fn nonsense_is_refused_with_the_forms() {
        for text in ["about 40k rows", "no rows", "error 425", "value = 'open", "value = two words", ""] {
            assert!(expectation(text).is_err(), "{text}");
        }
    }
}
