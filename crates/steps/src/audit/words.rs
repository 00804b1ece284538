//! What the text of a function or a policy speaks of: names of other schemas' tables, and whether they are written.
//!
//! No parser: a function's body may be of any language, and half of it may stand in strings that are put together. Names
//! count wherever they stand, also in strings, and only comments are left out.

use std::collections::BTreeSet;

use pgrunbook_document::sql::lex::{Token, TokenKind, lex};

use crate::topology::Privilege;

/// A name that a text speaks of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mention {
    pub schema: Option<String>,
    pub name: String,
    /// What is done with it, as far as the words before it say.
    pub does: Privilege,
}

/// Every name with a schema, and every name without one that stands where a table does.
pub fn mentions(text: &str) -> BTreeSet<Mention> {
    let mut found = BTreeSet::new();
    collect(text, 0, &mut found);
    found
}

/// Strings in strings are looked into; nobody nests them deeper.
const DEPTH: usize = 4;

fn collect(text: &str, depth: usize, found: &mut BTreeSet<Mention>) {
    let tokens: Vec<Token> = lex(text).filter(|token| !token.is_blank()).collect();
    let of = |at: usize| tokens.get(at).map_or("", |token: &Token| &text[token.range()]);
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            TokenKind::String | TokenKind::DollarString if depth < DEPTH => {
                collect(inner(&text[token.range()]), depth + 1, found);
            }
            TokenKind::Word | TokenKind::QuotedName => {
                let name = folded(of(at));
                // The second half of a name is told with the first.
                if at > 0 && of(at - 1) == "." {
                    continue;
                }
                let is_name = |at: usize| {
                    tokens.get(at).is_some_and(|token| matches!(token.kind, TokenKind::Word | TokenKind::QuotedName))
                };
                let does = does(&tokens[..at], text);
                if of(at + 1) == "." && is_name(at + 2) {
                    let does = does.unwrap_or(Privilege::Select);
                    found.insert(Mention { schema: Some(name), name: folded(of(at + 2)), does });
                } else if let Some(does) = does.filter(|_| !matches!(name.as_str(), "only" | "table" | "lateral")) {
                    found.insert(Mention { schema: None, name, does });
                }
            }
            _ => {}
        }
    }
}

/// What the words before a name say of it; none where no table is named.
fn does(before: &[Token], text: &str) -> Option<Privilege> {
    let words: Vec<String> =
        before.iter().rev().take(3).map(|token| text[token.range()].to_ascii_lowercase()).collect();
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let skipped = match word(0) {
        "only" | "table" => 1,
        _ => 0,
    };
    match (word(skipped), word(skipped + 1)) {
        ("into", "insert" | "merge") => Some(Privilege::Insert),
        ("from", "delete") => Some(Privilege::Delete),
        ("update", "for" | "do" | "before" | "after" | "or" | "key") => None,
        ("update", _) => Some(Privilege::Update),
        ("truncate", _) => Some(Privilege::Truncate),
        ("from" | "join" | "using", _) => Some(Privilege::Select),
        _ => None,
    }
}

/// A string's text between its quotes, as it stands: doubled quotes separate no words.
fn inner(literal: &str) -> &str {
    let open = literal.find(['\'', '$']).unwrap_or(0);
    if literal[open..].starts_with('\'') {
        let end = literal.rfind('\'').unwrap_or(literal.len());
        return literal.get(open + 1..end).unwrap_or_default();
    }
    let tag = literal[1..].find('$').map_or(0, |at| at + 2);
    literal.get(tag..literal.len().saturating_sub(tag)).unwrap_or_default()
}

/// A name as the catalog has it.
fn folded(word: &str) -> String {
    match word.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').unwrap_or(quoted).replace("\"\"", "\""),
        None => word.to_lowercase(),
    }
}

/// The words of a text in lower case, without comments and strings: for what a body does, not what it speaks of.
fn words(text: &str) -> Vec<String> {
    lex(text)
        .filter(|token| !token.is_blank() && !matches!(token.kind, TokenKind::String | TokenKind::DollarString))
        .map(|token| text[token.range()].to_lowercase())
        .collect()
}

/// Whether a body may end in an error on purpose: `RAISE` of a level that stops.
pub fn raises(body: &str) -> bool {
    let words = words(body);
    let told = |word: &str| matches!(word, "notice" | "warning" | "info" | "log" | "debug");
    words.iter().enumerate().any(|(at, word)| word == "raise" && !words.get(at + 1).is_some_and(|next| told(next)))
}

/// Whether a body puts a statement together while it runs.
pub fn is_dynamic(body: &str) -> bool {
    let words = words(body);
    let grants = |at: usize| matches!(words.get(at + 1).map(String::as_str), Some("on" | "function" | "procedure"));
    words.iter().enumerate().any(|(at, word)| word == "execute" && !grants(at))
}

/// Whether a body switches triggers off.
pub fn disables_triggers(body: &str) -> bool {
    let lower = body.to_lowercase();
    let words = words(body);
    lower.contains("session_replication_role")
        || words.windows(2).any(|pair| pair[0] == "disable" && pair[1] == "trigger")
        || (lower.contains("disable trigger") && is_dynamic(body))
}

/// Whether an expression lets everything through where a value is missing: `coalesce(...)`, or `... IS NULL OR ...`.
pub fn fails_open(expression: &str) -> bool {
    let words = words(expression);
    let or = words.iter().any(|word| word == "or");
    let null = words.windows(2).any(|pair| pair[0] == "is" && pair[1] == "null");
    let constant = words.iter().any(|word| word == "coalesce");
    (or && null) || constant
}

/// Whether an expression is true for every row.
pub fn is_always_true(expression: &str) -> bool {
    let bare = expression.trim().trim_matches(['(', ')']).trim().to_lowercase();
    // The server writes a comparison with true in brackets of its own.
    let pairs = words(expression);
    let beside = |pair: &[String]| (pair[0] == "or" && pair[1] == "true") || (pair[0] == "true" && pair[1] == "or");
    matches!(bare.as_str(), "true" | "1 = 1") || pairs.windows(2).any(beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `schema.name does`, sorted.
    fn check(text: &str, expected: &[&str]) {
        let found: Vec<String> = mentions(text)
            .iter()
            .map(|one| {
                let schema = one.schema.as_deref().map_or_else(String::new, |schema| format!("{schema}."));
                format!("{schema}{} {}", one.name, one.does)
            })
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn names_of_other_schemas_are_found_wherever_they_stand() {
        check("SELECT * FROM general.notes", &["general.notes SELECT"]);
        check("insert into \"General\".\"No tes\" values (1)", &["General.No tes INSERT"]);
        check("DELETE FROM ONLY general.notes", &["general.notes DELETE"]);
        check("EXECUTE 'UPDATE general.notes SET x = ''y'''", &["general.notes UPDATE"]);
        check("TRUNCATE TABLE general.notes", &["general.notes TRUNCATE"]);
        check("BEGIN PERFORM general.f(); END", &["general.f SELECT"]);
        check("-- general.notes\n/* general.notes */ SELECT 1", &[]);
    }

    #[test]
    fn names_without_schema_count_where_a_table_stands() {
        check("SELECT a FROM notes JOIN contacts USING (id)", &["contacts SELECT", "notes SELECT"]);
        check("SELECT a FROM t FOR UPDATE", &["t SELECT"]);
    }

    #[test]
    fn what_a_body_does_is_told() {
        assert!(raises("BEGIN RAISE EXCEPTION 'no'; END") && raises("RAISE USING ERRCODE = 'P0001'"));
        assert!(!raises("RAISE NOTICE 'x'") && !raises("-- RAISE EXCEPTION") && !raises("SELECT 'raise'"));
        assert!(is_dynamic("EXECUTE format('x')") && !is_dynamic("GRANT EXECUTE ON FUNCTION f() TO a"));
        assert!(disables_triggers("ALTER TABLE t DISABLE TRIGGER a"));
        assert!(disables_triggers("PERFORM set_config('session_replication_role', 'replica', true)"));
        assert!(fails_open("(a IS NULL) OR (a = b)") && fails_open("(t = COALESCE(f(), t))"));
        assert!(!fails_open("(tenant = app.current_tenant())"));
        assert!(is_always_true("true") && is_always_true("(a = 1) OR true") && !is_always_true("(open = true)"));
    }
}
