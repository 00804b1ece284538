//! What can be told of a migration by reading it.
//!
//! No grammar: the words of each statement, as PostgreSQL's own scanner cuts them, and what stands behind a verb. A file says that a rule
//! is not for it in a comment, with the reason: `-- review: allow not-additive: the old column is unused since 2.4`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use pgrunbook_document::Severity;
use pgrunbook_document::sql::{TokenKind, lex, split};

/// The rules that read, and what each finds.
pub const RULES: &[(&str, &str)] = &[
    ("not-additive", "What the application that runs now may still need is dropped, renamed, or given another type."),
    ("not-null-without-default", "A column that the application that runs now cannot fill."),
    (
        "constraint-validates",
        "A constraint that checks every row while nobody writes; `NOT VALID` and then `VALIDATE` do not.",
    ),
    ("index-blocks-writers", "An index that is made while nobody writes; `CONCURRENTLY` does not."),
    ("every-row", "An UPDATE or DELETE of every row."),
    ("grant-to-public", "A privilege for every role that is and will be."),
    ("definer-search-path", "A SECURITY DEFINER function that finds its objects by the caller's search_path."),
    ("allow-without-reason", "A rule that is set aside without saying why."),
];

/// A finding, by its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub rule: &'static str,
    pub severity: Severity,
    pub range: Range<usize>,
    pub message: String,
    pub help: Cow<'static, str>,
}

/// What reading a file came to.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub found: Vec<Found>,
    /// Statements about nothing but what the file itself has made before them.
    pub fresh: Vec<Range<usize>>,
}

/// A word of a statement; names are in lower case and without quotes, as far as they were written so.
struct Word {
    upper: String,
    /// How many parentheses are open around it.
    depth: usize,
    range: Range<usize>,
}

/// Reads a file. What it sets aside is not yet taken into account ([`set_aside`]).
pub(super) fn read(text: &str) -> Reading {
    let mut reading = Reading::default();
    let mut made = BTreeSet::new();
    for statement in split(text).statements {
        let words = words(text, statement.range.clone());
        if look(&words, &mut made, &mut reading.found) {
            reading.fresh.push(statement.range);
        }
    }
    reading
}

/// Makes notes of the findings that the file sets aside, and adds those of setting aside without a reason.
pub(super) fn set_aside(text: &str, found: &mut Vec<Found>) {
    let allowed = allowed(text, found);
    for one in found {
        if let Some(reason) = allowed.get(one.rule) {
            one.severity = Severity::Note;
            one.message.push_str(&format!(" (allowed: {reason})"));
        }
    }
}

/// Tables that a file makes, as they are written, without quotes.
pub fn tables(text: &str) -> Vec<(String, Range<usize>)> {
    split(text)
        .statements
        .iter()
        .filter_map(|statement| {
            let words = words(text, statement.range.clone());
            let at = words.iter().take(4).position(|word| word.upper == "TABLE")?;
            (words.first()?.upper == "CREATE").then(|| (name(&words, at + 1), statement.range.clone()))
        })
        .collect()
}

fn words(text: &str, range: Range<usize>) -> Vec<Word> {
    let mut depth = 0usize;
    let mut words = Vec::new();
    for token in lex(&text[range.clone()]).filter(|token| !token.is_blank()) {
        let place = range.start + token.start..range.start + token.end;
        let raw = &text[place.clone()];
        match raw {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        let upper = match token.kind {
            TokenKind::QuotedName => raw.to_owned(),
            _ => raw.to_ascii_uppercase(),
        };
        words.push(Word { upper, depth, range: place });
    }
    words
}

fn is(words: &[Word], at: usize, what: &str) -> bool {
    what.split(' ').enumerate().all(|(step, word)| words.get(at + step).is_some_and(|one| one.upper == word))
}

/// Whether the words come one after another anywhere from a place.
fn has(words: &[Word], what: &str) -> bool {
    (0..words.len()).any(|at| is(words, at, what))
}

/// The qualified name at a place, behind `IF [NOT] EXISTS` and `ONLY`.
fn name(words: &[Word], at: usize) -> String {
    let mut at = at;
    while words
        .get(at)
        .is_some_and(|word| matches!(word.upper.as_str(), "IF" | "NOT" | "EXISTS" | "ONLY" | "CONCURRENTLY"))
    {
        at += 1;
    }
    let mut out = String::new();
    while let Some(word) = words.get(at) {
        out.push_str(word.upper.to_lowercase().trim_matches('"'));
        match words.get(at + 1) {
            Some(dot) if dot.upper == "." => out.push('.'),
            _ => break,
        }
        at += 2;
    }
    out
}

/// Looks at a statement, and says whether it is about nothing but what was made before.
fn look(words: &[Word], made: &mut BTreeSet<String>, found: &mut Vec<Found>) -> bool {
    let Some(first) = words.first() else { return false };
    let mut fresh = false;
    let whole = first.range.start..words.last().map_or(first.range.end, |word| word.range.end);
    let mut add = |rule: &'static str, severity: Severity, range: Range<usize>, message: String, help: &'static str| {
        found.push(Found { rule, severity, range, message, help: help.into() });
    };
    match first.upper.as_str() {
        "CREATE" => {
            let kinds = ["TABLE", "VIEW", "TYPE", "DOMAIN", "FUNCTION", "PROCEDURE", "SEQUENCE", "SCHEMA"];
            let kind = words.iter().take(5).position(|word| kinds.contains(&word.upper.as_str()));
            // What may have been there is not made here.
            let new = !has(words, "IF NOT EXISTS") && !is(words, 1, "OR REPLACE");
            if let Some(at) = kind.filter(|_| new) {
                made.insert(name(words, at + 1));
                fresh = true;
            }
            let index = words.iter().take(3).position(|word| word.upper == "INDEX");
            if let Some(at) = index
                && let Some(on) = words.iter().position(|word| word.upper == "ON" && word.depth == 0)
            {
                let table = name(words, on + 1);
                fresh |= made.contains(&table);
                if words.get(at + 1).is_none_or(|word| word.upper != "CONCURRENTLY") && !made.contains(&table) {
                    let message = format!("writers of {table} wait until the index is made");
                    add(
                        "index-blocks-writers",
                        Severity::Warning,
                        whole.clone(),
                        message,
                        "make it with CREATE INDEX CONCURRENTLY, in a file of its own",
                    );
                }
            }
            let function = words.iter().take(5).any(|word| matches!(word.upper.as_str(), "FUNCTION" | "PROCEDURE"));
            if function && has(words, "SECURITY DEFINER") && !has(words, "SET SEARCH_PATH") {
                let message =
                    "the function runs with its owner's privileges on what the caller's search_path finds".to_owned();
                add(
                    "definer-search-path",
                    Severity::Error,
                    whole,
                    message,
                    "add SET search_path = pg_catalog, and the schemas it needs",
                );
            }
        }
        "DROP" => {
            if is(words, 1, "OWNED") {
                let message = "all that a role owns goes, and all that was granted to it".to_owned();
                add("not-additive", Severity::Error, whole, message, EXPAND);
                return false;
            }
            let Some(at) = words.iter().take(3).position(|word| DROPPED.contains(&word.upper.as_str())) else {
                return false;
            };
            // Commas within parentheses are between a function's arguments.
            let names = words[at + 1..].split(|word| word.upper == "," && word.depth == 0).map(|words| name(words, 0));
            let gone: Vec<String> = names.filter(|name| !made.contains(name)).collect();
            fresh = gone.is_empty();
            if !fresh {
                let message = format!(
                    "{} {} goes while the application that uses it may still run",
                    words[at].upper.to_lowercase(),
                    gone.join(", ")
                );
                add("not-additive", Severity::Error, whole, message, EXPAND);
            }
        }
        "TRUNCATE" => add("not-additive", Severity::Error, whole, "every row goes".to_owned(), EXPAND),
        "ALTER" => {
            let at = words.iter().take(4).position(|word| {
                matches!(word.upper.as_str(), "TABLE" | "VIEW" | "TYPE" | "SCHEMA" | "SEQUENCE" | "FUNCTION")
            });
            let Some(at) = at else { return false };
            let altered = name(words, at + 1);
            if made.contains(&altered) {
                return true;
            }
            if words[at].upper == "TABLE" {
                actions(words, at + 1, &altered, &mut add);
            } else if has(words, "RENAME TO")
                || has(words, "RENAME COLUMN")
                || has(words, "DROP ATTRIBUTE")
                || has(words, "RENAME VALUE")
            {
                add(
                    "not-additive",
                    Severity::Error,
                    whole,
                    format!("{altered} has another name for the application that runs now"),
                    EXPAND,
                );
            }
        }
        "UPDATE" | "DELETE" if !words.iter().any(|word| word.upper == "WHERE" && word.depth == 0) => {
            let message = format!("{} of every row, in one transaction with its locks", first.upper);
            add(
                "every-row",
                Severity::Warning,
                whole,
                message,
                "say which rows with WHERE, or change them in batches outside of the migration",
            );
        }
        "GRANT" if has(words, "TO PUBLIC") => {
            add(
                "grant-to-public",
                Severity::Warning,
                whole,
                "every role of the cluster gets it".to_owned(),
                "name the roles that need it",
            );
        }
        _ => {}
    }
    fresh
}

/// What to do in place of taking away.
pub(super) const EXPAND: &str = "expand first: add the new beside the old, move the application, and drop the old in a later release; \
    or say why here: `-- review: allow not-additive: REASON`";

/// What an application may use by its name. Of indexes, triggers, policies and the like the trial says what their going means: they are
/// often dropped to be made again in the next statement.
const DROPPED: &[&str] = &[
    "TABLE",
    "VIEW",
    "TYPE",
    "DOMAIN",
    "FUNCTION",
    "PROCEDURE",
    "ROUTINE",
    "AGGREGATE",
    "OPERATOR",
    "SEQUENCE",
    "SCHEMA",
    "EXTENSION",
    "COLLATION",
    "CAST",
    "SERVER",
    "PUBLICATION",
    "DATABASE",
];

/// The actions of an ALTER TABLE.
fn actions(
    words: &[Word],
    from: usize,
    table: &str,
    add: &mut impl FnMut(&'static str, Severity, Range<usize>, String, &'static str),
) {
    let verbs = [
        "ADD", "DROP", "ALTER", "RENAME", "VALIDATE", "SET", "ENABLE", "DISABLE", "FORCE", "NO", "OWNER", "REPLICA",
        "CLUSTER", "ATTACH", "DETACH", "INHERIT",
    ];
    let Some(start) =
        (from..words.len()).find(|at| words[*at].depth == 0 && verbs.contains(&words[*at].upper.as_str()))
    else {
        return;
    };
    for action in words[start..].split(|word| word.upper == "," && word.depth == 0) {
        let Some(first) = action.first() else { continue };
        let range = first.range.start..action.last().map_or(first.range.end, |word| word.range.end);
        let second = action.get(1).map(|word| word.upper.as_str()).unwrap_or_default();
        let constraint = matches!(second, "CONSTRAINT" | "CHECK" | "FOREIGN" | "PRIMARY" | "UNIQUE" | "EXCLUDE");
        match first.upper.as_str() {
            "ADD" if constraint => {
                let checks = has(action, "FOREIGN KEY") || has(action, "CHECK (");
                if checks && !has(action, "NOT VALID") {
                    let message = format!("every row of {table} is checked while nobody writes");
                    add(
                        "constraint-validates",
                        Severity::Warning,
                        range,
                        message,
                        "add it NOT VALID, and VALIDATE CONSTRAINT in the next file",
                    );
                }
            }
            "ADD" => {
                let filled = ["DEFAULT", "GENERATED", "SERIAL", "BIGSERIAL", "SMALLSERIAL"];
                let default = action.iter().any(|word| word.depth == 0 && filled.contains(&word.upper.as_str()));
                if (has(action, "NOT NULL") || has(action, "PRIMARY KEY")) && !default {
                    let column = name(action, if second == "COLUMN" { 2 } else { 1 });
                    let message =
                        format!("{table}.{column} must be filled, and the application that runs now does not know it");
                    add(
                        "not-null-without-default",
                        Severity::Error,
                        range,
                        message,
                        "make it nullable at first, or give it a DEFAULT",
                    );
                }
            }
            "DROP" if !constraint => {
                let column = name(action, if second == "COLUMN" { 2 } else { 1 });
                let message = format!("{table}.{column} goes while the application that uses it may still run");
                add("not-additive", Severity::Error, range, message, EXPAND);
            }
            "RENAME" => add(
                "not-additive",
                Severity::Error,
                range,
                format!("{table} has another name, or a column of it has"),
                EXPAND,
            ),
            "SET" if second == "SCHEMA" => {
                add("not-additive", Severity::Error, range, format!("{table} has another name"), EXPAND);
            }
            "ALTER" => {
                let column = name(action, if second == "COLUMN" { 2 } else { 1 });
                if has(action, "SET NOT NULL") {
                    let message = format!(
                        "{table}.{column} must be filled, and the application that runs now may leave it empty"
                    );
                    add("not-additive", Severity::Error, range, message, EXPAND);
                } else if action.iter().any(|word| word.upper == "TYPE" && word.depth == 0) {
                    let message = format!("{table}.{column} has another type, and the table may be written anew");
                    add("not-additive", Severity::Error, range, message, EXPAND);
                }
            }
            _ => {}
        }
    }
}

/// Why a file sets a rule aside, if it does and says why.
pub(super) fn reason(text: &str, rule: &str) -> Option<String> {
    allowed(text, &mut Vec::new()).remove(rule)
}

/// Rules that the file sets aside, with the reasons.
fn allowed(text: &str, found: &mut Vec<Found>) -> BTreeMap<String, String> {
    let mut allowed = BTreeMap::new();
    for token in lex(text).filter(|token| token.kind == TokenKind::LineComment) {
        let comment = text[token.range()].trim_start_matches('-').trim();
        let Some(rest) = comment.strip_prefix("review: allow ") else { continue };
        match rest.split_once(':') {
            Some((rule, reason)) if !reason.trim().is_empty() => {
                allowed.insert(rule.trim().to_owned(), reason.trim().to_owned());
            }
            _ => found.push(Found {
                rule: "allow-without-reason",
                severity: Severity::Error,
                range: token.range(),
                message: "a rule is set aside, and nobody knows why".to_owned(),
                help: "write `-- review: allow RULE: REASON`".into(),
            }),
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lint(text: &str) -> Vec<Found> {
        let mut found = read(text).found;
        set_aside(text, &mut found);
        found
    }

    /// The rules that a text breaks, in order.
    fn check(text: &str, rules: &[&str]) {
        let found: Vec<_> =
            lint(text).into_iter().filter(|one| one.severity != Severity::Note).map(|one| one.rule).collect();
        assert_eq!(found, rules, "{text}");
    }

    #[test]
    fn what_takes_away_is_not_additive() {
        for text in [
            "DROP TABLE a;",
            "DROP TABLE IF EXISTS s.a CASCADE;",
            "DROP MATERIALIZED VIEW v;",
            "ALTER TABLE a DROP COLUMN b;",
            "ALTER TABLE a DROP b;",
            "ALTER TABLE IF EXISTS ONLY s.a RENAME TO c;",
            "ALTER TABLE a RENAME COLUMN b TO c;",
            "ALTER TABLE a ALTER COLUMN b TYPE bigint;",
            "ALTER TABLE a ALTER b SET DATA TYPE bigint USING b::bigint;",
            "ALTER TABLE a ALTER b SET NOT NULL;",
            "ALTER TABLE a SET SCHEMA s;",
            "ALTER TYPE e RENAME VALUE 'a' TO 'b';",
            "TRUNCATE a;",
            "DROP EXTENSION hstore;",
            "DROP AGGREGATE total(int);",
            "DROP ROUTINE f;",
            "DROP OPERATOR === (int, int);",
            "DROP OWNED BY app;",
            "CREATE TABLE new (id int); DROP TABLE new, old;",
            "CREATE FUNCTION f(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1'; DROP FUNCTION f(int, int), g(int);",
        ] {
            check(text, &["not-additive"]);
        }
        check("ALTER TABLE a ADD COLUMN b int, DROP COLUMN c, ADD d int DEFAULT 1;", &["not-additive"]);
    }

    #[test]
    fn what_adds_is_additive() {
        for text in [
            "CREATE TABLE a (id int NOT NULL); ALTER TABLE a ADD b int NOT NULL; DROP TABLE a; CREATE INDEX ON a (id);",
            "ALTER TABLE a ADD COLUMN b int, ADD COLUMN c numeric(10, 2) NOT NULL DEFAULT 0;",
            "ALTER TABLE a ADD COLUMN b bigint GENERATED ALWAYS AS IDENTITY NOT NULL;",
            "ALTER TABLE a DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (b > 0) NOT VALID;",
            "ALTER TABLE a ALTER COLUMN b SET DEFAULT 1; ALTER TABLE a ENABLE ROW LEVEL SECURITY;",
            "COMMENT ON TABLE a IS 'DROP TABLE a; UPDATE a';",
            "DROP INDEX i; DROP TRIGGER t ON a; DROP POLICY p ON a;",
            "CREATE INDEX CONCURRENTLY i ON a (b);",
            "UPDATE a SET b = 1 WHERE c; DELETE FROM a WHERE c;",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS 'SELECT 1';",
        ] {
            check(text, &[]);
        }
    }

    #[test]
    fn what_may_have_been_there_is_not_new() {
        check("CREATE TABLE IF NOT EXISTS notes (id int); ALTER TABLE notes DROP COLUMN body;", &["not-additive"]);
        check("CREATE OR REPLACE VIEW v AS SELECT 1; DROP VIEW v;", &["not-additive"]);
        check("CREATE SCHEMA IF NOT EXISTS app; DROP SCHEMA app CASCADE;", &["not-additive"]);
        check(
            "CREATE TABLE IF NOT EXISTS a (id int); ALTER TABLE a ADD b int NOT NULL;",
            &["not-null-without-default"],
        );
        check("CREATE TABLE IF NOT EXISTS a (id int); CREATE INDEX ON a (id);", &["index-blocks-writers"]);
        check("CREATE TABLE new (id int); DROP TABLE new;", &[]);
    }

    #[test]
    fn each_rule_finds_its_own() {
        check("ALTER TABLE a ADD COLUMN b int NOT NULL;", &["not-null-without-default"]);
        check("ALTER TABLE a ADD COLUMN IF NOT EXISTS b uuid NOT NULL;", &["not-null-without-default"]);
        check("ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES c;", &["constraint-validates"]);
        check("CREATE UNIQUE INDEX i ON a (b);", &["index-blocks-writers"]);
        check("UPDATE a SET b = (SELECT 1 WHERE true);", &["every-row"]);
        check("GRANT SELECT ON a TO PUBLIC;", &["grant-to-public"]);
        check("CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';", &["definer-search-path"]);
    }

    #[test]
    fn rule_is_set_aside_only_with_a_reason() {
        check("-- review: allow not-additive: unused since 2.4\nDROP TABLE a;", &[]);
        check("-- review: allow not-additive\nDROP TABLE a;", &["not-additive", "allow-without-reason"]);
        let noted = lint("-- review: allow not-additive: unused since 2.4\nDROP TABLE a;");
        assert!(noted[0].message.ends_with("(allowed: unused since 2.4)"), "{noted:?}");
    }
}
