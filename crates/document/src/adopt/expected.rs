//! What prose says a result should be, as an expectation where it is clear enough.

use std::sync::LazyLock;

use regex::Regex;

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is constant and compiles")
}

static LEAD: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^\W*expect(?:ed|s)?(?: result| output)?\s*:\s*(.+)$"));
static ROWS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^(at least |more than |>=? ?)?(\d+|no|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\s+rows?\b",
    )
});
static ERROR: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^(?:an? )?error\b[:\s]*(.*)$"));
/// Five letters or digits; a word in capitals is told apart by having no digit.
static SQLSTATE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b[0-9A-Z]{5}\b"));
static COLUMN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^`?([A-Za-z_][A-Za-z0-9_]*) ?= ?'?([A-Za-z0-9_.-]+)'?`?\W*$"));
static VALUE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[`']([^`']+)[`']\W*$|^([0-9]+|t|f|true|false)\W*$"));

/// An expectation read from prose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// As a directive says it: `0 rows`.
    pub(super) text: String,
    /// What had to be guessed, for the person who reads the proposal.
    pub(super) guessed: Option<&'static str>,
}

impl Expected {
    fn sure(text: String) -> Self {
        Self { text, guessed: None }
    }

    /// Whether the statement is meant to fail.
    pub(super) fn is_error(&self) -> bool {
        self.text.starts_with("error ")
    }
}

/// What stands behind `Expected:` in a line, if the line is such a one.
pub(super) fn lead(line: &str) -> Option<&str> {
    LEAD.captures(line.trim()).and_then(|found| found.get(1)).map(|rest| rest.as_str())
}

/// Reads what stands behind `Expected:`.
pub(super) fn read(said: &str) -> Option<Expected> {
    let said = said.trim();
    if let Some(found) = ROWS.captures(said) {
        let count = count(&found[2])?;
        return Some(Expected::sure(match found.get(1).map(|word| word.as_str().trim().to_lowercase()).as_deref() {
            None | Some("") => format!("{count} {}", if count == 1 { "row" } else { "rows" }),
            Some("at least" | ">=") => format!("rows >= {count}"),
            Some(_) => format!("rows > {count}"),
        }));
    }
    if let Some(found) = ERROR.captures(said) {
        return Some(error(&found[1]));
    }
    if let Some(found) = COLUMN.captures(said) {
        return Some(Expected::sure(format!("each row {} = {}", &found[1], literal(&found[2]))));
    }
    let value = VALUE.captures(said)?;
    let value = value.get(1).or_else(|| value.get(2))?;
    Some(Expected::sure(format!("value = {}", literal(value.as_str()))))
}

/// The error that prose speaks of: by its SQLSTATE, else by what PostgreSQL answers in such a case.
pub(super) fn error(said: &str) -> Expected {
    let code = SQLSTATE.find_iter(said).find(|code| code.as_str().bytes().any(|byte| byte.is_ascii_digit()));
    if let Some(code) = code {
        let noise = ['(', ')', ',', ':', ' '];
        let around = [&said[..code.start()], &said[code.end()..]].map(|part| part.trim_matches(noise));
        let message = around.into_iter().find(|part| !part.is_empty());
        return Expected::sure(match message {
            None => format!("error {}", code.as_str()),
            Some(message) => format!("error {} ~ {}", code.as_str(), literal(message)),
        });
    }
    let lower = said.to_lowercase();
    let known = [
        ("permission denied", "42501"),
        ("row-level security", "42501"),
        ("row level security", "42501"),
        ("rls", "42501"),
        ("already exists", "42P07"),
        ("does not exist", "42P01"),
        ("duplicate", "23505"),
        ("unique", "23505"),
        ("foreign key", "23503"),
        ("not-null", "23502"),
        ("check constraint", "23514"),
    ];
    let code = known.iter().find(|(words, _)| lower.contains(words)).map_or("P0001", |(_, code)| code);
    Expected { text: format!("error {code}"), guessed: Some("the SQLSTATE is a guess: the text names none") }
}

/// A text in the quotes that an expectation takes.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn count(word: &str) -> Option<u64> {
    const WORDS: [&str; 13] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    let word = word.to_lowercase();
    match WORDS.iter().position(|known| *known == word) {
        Some(at) => u64::try_from(at).ok(),
        None if word == "no" => Some(0),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<&str>) {
        let found = lead(line).and_then(read).map(|found| found.text);
        assert_eq!(found.as_deref(), expected, "{line}");
    }

    #[test]
    fn what_prose_expects() {
        check("Expected: six rows.", Some("6 rows"));
        check("# Expected: 0 rows (no data yet), but no errors", Some("0 rows"));
        check("Expected: one row", Some("1 row"));
        check("Expected result: at least 3 rows", Some("rows >= 3"));
        check("# Expected: no rows", Some("0 rows"));
        check("# Expected: relrowsecurity = t", Some("each row relrowsecurity = 't'"));
        check("Expected: `postgres_primary`", Some("value = 'postgres_primary'"));
        check("Expected: 42", Some("value = '42'"));
        check(
            "# Expected: ERROR: app.community_id is not set (P0001)",
            Some("error P0001 ~ 'app.community_id is not set'"),
        );
        check("# Expected: ERROR (RLS blocks without SET LOCAL)", Some("error 42501"));
        check("# Expected: error 42P07", Some("error 42P07"));
        check("Expected: it's fine", None);
        check("Expected role config contains:", None);
        check("Nothing expected here", None);
    }
}
