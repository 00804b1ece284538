//! What a migration took from the application that runs now, seen in the catalogs before and after it.
//!
//! Reading guesses; here it does not matter by which words a thing went: `DROP ... CASCADE`, `DROP OWNED`, `REVOKE`, a `DO` block that
//! builds its statements. What counts is what an application can meet: a name that is gone, a privilege that is gone, a column that it must
//! now fill, rows that it sees or does not see. A policy or trigger that is dropped and made again as it was is no difference, and no
//! finding; dropped for good it is one, since the policy let rows be seen or kept them hidden, and the trigger filled or refused what the
//! application wrote. Constraints that only refuse (CHECK, foreign keys), indexes that only make faster, comments and settings may go.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_document::sql::{lex, split};
use pgrunbook_document::{Diagnostic, Severity};
use pgrunbook_postgres::Session;

use super::error::GateError;
use super::lint::{EXPAND, reason};
use super::{Files, Review, finding, read, squawk};
use crate::drift::{self, Change, Difference};
use crate::migrate::chain::Script;

/// What a database is made of, and the columns of its views, which no object of their own stands for.
pub(super) struct State {
    pub(super) things: drift::Before,
    views: BTreeMap<String, Vec<String>>,
}

/// Views with their columns and types (<https://www.postgresql.org/docs/15/catalog-pg-attribute.html>); tried on PostgreSQL 15.
const VIEW_COLUMNS: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
    pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod))
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('v', 'm')";

/// Reads what there is.
pub(super) async fn state(session: &Session) -> Result<State, GateError> {
    let things = drift::before(session).await?;
    let mut views: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in session.simple(VIEW_COLUMNS).await?.into_iter().flat_map(|answer| answer.rows) {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let (view, column) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        views.entry(view).or_default().push(column);
    }
    Ok(State { things, views })
}

/// Something that an application may miss.
struct Taken {
    severity: Severity,
    /// Its bare name, to look for in the file.
    name: String,
    /// Of a column, its table's.
    table: Option<String>,
    /// Whether reading tells of its kind.
    read: bool,
    message: String,
}

/// Kinds whose going, or whose change, reading knows by the words of a statement.
const READ: &[&str] = &[
    "schema",
    "extension",
    "collation",
    "cast",
    "enum",
    "domain",
    "type",
    "base type",
    "sequence",
    "function",
    "procedure",
    "aggregate",
    "operator",
    "server",
    "publication",
    "table",
    "foreign table",
    "column",
    "not null",
    "view",
    "materialized view",
];

/// Tells what is gone, or no longer what it was, behind some files: at the statement that names it, as far as one does. What reading
/// the file has told of already is not told again.
pub(super) fn tell(before: &State, after: &State, scripts: &[&Script], files: &Files, review: &mut Review) {
    let texts: Vec<(&Script, String)> =
        scripts.iter().filter_map(|script| Some((*script, read(&script.path).ok()?))).collect();
    let placed = taken(before, after).into_iter().filter_map(|one| {
        let naming = texts.iter().filter_map(|(script, text)| Some((*script, text, line(text, &one.name)?)));
        Some(match naming.min_by_key(|(_, _, (rank, _))| *rank) {
            Some((script, text, (_, at))) => (one, script, text, at),
            // The name is put together only when the file runs.
            None => texts.first().map(|(script, text)| (one, *script, text, dynamic(text)))?,
        })
    });
    // What is told below is told of other things.
    let untold: Vec<_> =
        placed.filter(|(one, script, _, _)| !one.is_told(review, &files.shown(&script.path))).collect();
    for (one, script, text, at) in untold {
        // squawk's reading may have named the statement; what is seen says more.
        let path = files.shown(&script.path);
        review.forget(|found, sources| {
            let source = sources.get(found.span.file).filter(|source| source.path == path);
            // It points at an action, such as `DROP DEFAULT`; the name stands before it.
            let shown = source.and_then(|source| {
                let begin = source.text.get(..found.span.start)?.rfind(';').map_or(0, |at| at + 1);
                source.text.get(begin..found.span.end)
            });
            squawk::says(found.code, "not-additive") && shown.is_some_and(|shown| names(shown, &one.name))
        });
        let found = finding("not-additive", one.severity, one.message).help(EXPAND);
        let found = match reason(text, "not-additive") {
            Some(reason) => Diagnostic {
                severity: Severity::Note,
                message: format!("{} (allowed: {reason})", found.message),
                ..found
            },
            None => found,
        };
        review.at(files, script, Some(at), found);
    }
}

impl Taken {
    /// Whether reading the file has told of it: a finding names it, and of a column its table too.
    fn is_told(&self, review: &Review, path: &str) -> bool {
        self.read
            && review.found.iter().filter(|one| one.code == "not-additive").any(|one| {
                let Some(source) = review.sources.get(one.span.file).filter(|source| source.path == path) else {
                    return false;
                };
                let shown = source.text.get(one.span.start..one.span.end).unwrap_or_default();
                let named = |name: &str| names(shown, name) || names(&one.message, name);
                named(&self.name) && self.table.as_deref().is_none_or(named)
            })
    }
}

/// The line of the statement that names a thing, from 1; those that take come first, then those that hold others, then those that make.
fn line(text: &str, name: &str) -> Option<(usize, usize)> {
    let rank = |head: &str| match head.to_ascii_uppercase().as_str() {
        "DROP" | "ALTER" | "REVOKE" => 0,
        "CREATE" | "COMMENT" | "GRANT" => 2,
        _ => 1,
    };
    let statements = split(text).statements;
    let naming = statements.iter().filter(|one| names(one.text(text), name));
    naming.map(|one| (rank(first_word(one.text(text))), one.line)).min_by_key(|(rank, _)| *rank)
}

/// The line of the first statement that may hold others.
fn dynamic(text: &str) -> usize {
    let statements = split(text).statements;
    let holds = |word: &str| matches!(word.to_ascii_uppercase().as_str(), "DO" | "CALL" | "SELECT");
    statements.iter().find(|one| holds(first_word(one.text(text)))).map_or(1, |one| one.line)
}

fn first_word(statement: &str) -> &str {
    lex(statement).find(|token| !token.is_blank()).map_or("", |token| &statement[token.range()])
}

/// Whether a text has a name as a whole word, in any case.
fn names(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), name.to_lowercase());
    let part = |c: char| c.is_alphanumeric() || c == '_';
    !name.is_empty()
        && text.match_indices(&name).any(|(at, _)| {
            !text[..at].chars().next_back().is_some_and(part)
                && !text[at + name.len()..].chars().next().is_some_and(part)
        })
}

/// The bare name in an identity: of `k on s.t`, `s.f(int)`, `s.t.c` and `TABLE s.t (c) to r`.
fn bare(kind: &str, identity: &str) -> String {
    let rest = match kind {
        "grant" | "column grant" | "owner" => {
            let place = identity.rsplit_once(" to ").map_or(identity, |(place, _)| place);
            place.trim_start_matches(|c: char| c.is_ascii_uppercase() || c == ' ')
        }
        _ => identity.split(" on ").next().unwrap_or_default(),
    };
    let rest = rest.split(['(', ':']).next().unwrap_or_default().trim_end();
    rest.rsplit('.').next().unwrap_or_default().trim_matches('"').to_owned()
}

/// Kinds that say how something is that stays: no application names them, or what they were decides above. Any other is missed when it goes.
const QUALITIES: &[&str] = &[
    "extension schema",
    "extension version",
    "shell type",
    "server version",
    "type of table",
    "unlogged",
    "access method of a table",
    "tablespace",
    "not null",
    "identity",
    "default",
    "owned by",
    "storage",
    "compression",
    "constraint",
    "index",
    "enforcement",
    "replica identity",
    "clustered on",
    "statistics",
    "statistics target",
    "option",
    "publication parameters",
    "subscribed publications",
    "subscription parameters",
    "comment",
    "security label",
    "owner",
    "default privileges",
    "grant",
    "column grant",
    "setting",
    "firing",
    "event trigger",
];

/// What is not there any more for who could use it before.
fn taken(before: &State, after: &State) -> Vec<Taken> {
    let differences = drift::changes(&before.things, &after.things);
    let extra: BTreeSet<(&str, &str)> = differences
        .iter()
        .filter(|one| one.change == Change::Extra)
        .map(|one| (one.kind.as_str(), one.identity.as_str()))
        .collect();
    let mut found: Vec<Taken> = differences
        .iter()
        .filter_map(|one| {
            let (severity, what) = judged(one, &extra)?;
            let message =
                format!("{} {} {what}, and the application that runs now may need it", one.kind, one.identity);
            let column = matches!(one.kind.as_str(), "column" | "not null");
            let table = one.identity.rsplit_once('.').filter(|_| column).map(|(table, _)| bare("table", table));
            let read = READ.contains(&one.kind.as_str());
            Some(Taken { severity, name: bare(&one.kind, &one.identity), table, read, message })
        })
        .collect();
    for (view, columns) in &before.views {
        // One that is gone is told above.
        let Some(now) = after.views.get(view) else { continue };
        for column in columns.iter().filter(|column| !now.contains(column)) {
            let message =
                format!("view {view} has no column {column} any more, and the application that runs now may need it");
            found.push(Taken { severity: Severity::Error, name: bare("view", view), table: None, read: true, message });
        }
    }
    found
}

/// Whether a difference takes something away, and in which words.
fn judged(one: &Difference, extra: &BTreeSet<(&str, &str)>) -> Option<(Severity, String)> {
    let (was, is) = (one.shadow.as_deref().unwrap_or_default(), one.live.as_deref().unwrap_or_default());
    let has = |kind: &str| extra.contains(&(kind, one.identity.as_str()));
    let (severity, what) = match (one.change, one.kind.as_str()) {
        (Change::Missing, "grant" | "column grant") if was != "nothing" => {
            (Severity::Error, format!("is taken back: {was}"))
        }
        // `ON CONFLICT` names it, or its columns.
        (Change::Missing, "constraint")
            if ["PRIMARY KEY", "UNIQUE", "EXCLUDE"].iter().any(|kind| was.starts_with(kind)) =>
        {
            (Severity::Error, "is gone, so that `ON CONFLICT` finds none".to_owned())
        }
        (Change::Missing, "index") if was.starts_with("CREATE UNIQUE") => {
            (Severity::Error, "is gone, so that `ON CONFLICT` finds none".to_owned())
        }
        (Change::Missing, "default") if !has("identity") => (Severity::Error, "is gone".to_owned()),
        (Change::Missing, "identity") if !has("default") => (Severity::Error, "is gone".to_owned()),
        (Change::Missing, kind) if !QUALITIES.contains(&kind) => (Severity::Error, "is gone".to_owned()),
        (Change::Extra, "not null") => (Severity::Error, "is new: it must be filled".to_owned()),
        // What is built in is no row of its own: this one says that less is left of it.
        (Change::Extra, "grant" | "column grant") if is == "nothing" || one.identity.ends_with(" to its owner") => {
            (Severity::Error, format!("is less than what is built in: {is}"))
        }
        (Change::Extra | Change::Different, "firing") if is != "ENABLE ALWAYS" => {
            (Severity::Error, format!("is now {is}"))
        }
        (Change::Extra, "row security" | "forced row security") => {
            (Severity::Warning, "is new: rows that no policy lets through are not seen".to_owned())
        }
        (Change::Extra, "policy") if is.starts_with("AS RESTRICTIVE") => {
            (Severity::Warning, "is new, and lets fewer rows be seen or written".to_owned())
        }
        (Change::Different, "policy") => {
            (Severity::Warning, "lets other rows be seen or written than before".to_owned())
        }
        (Change::Different, "owner") => (Severity::Warning, format!("was {was} and is {is}")),
        (Change::Different, "column" | "domain" | "base type" | "extension schema") => {
            (Severity::Error, format!("was {was} and is {is}"))
        }
        (Change::Different, "type") if !is.starts_with(was.trim_end_matches(')')) => {
            (Severity::Error, format!("was {was} and is {is}"))
        }
        (Change::Different, "enum") => {
            let gone: Vec<&str> = labels(was).difference(&labels(is)).copied().collect();
            if gone.is_empty() {
                return None;
            }
            (Severity::Error, format!("has no {} any more", gone.join(", ")))
        }
        (Change::Different, "function") if result(was) != result(is) => {
            (Severity::Error, format!("gave {} and gives {}", result(was), result(is)))
        }
        (Change::Different, "grant" | "column grant") => {
            let gone: Vec<&str> = privileges(was).difference(&privileges(is)).copied().collect();
            if gone.is_empty() {
                return None;
            }
            (Severity::Error, format!("is taken back: {}", gone.join(", ")))
        }
        // Values that the application gives itself are refused.
        (Change::Different, "identity") if was.starts_with('d') && is.starts_with('a') => {
            (Severity::Error, "was BY DEFAULT and is ALWAYS".to_owned())
        }
        _ => return None,
    };
    Some((severity, what))
}

/// The literals in an enum's definition.
fn labels(definition: &str) -> BTreeSet<&str> {
    lex(definition).map(|token| &definition[token.range()]).filter(|token| token.ends_with('\'')).collect()
}

fn privileges(list: &str) -> BTreeSet<&str> {
    list.split(", ").filter(|word| *word != "nothing").map(|word| word.trim_end_matches('*')).collect()
}

/// What a function gives, as `pg_get_functiondef` has it in a line of its own.
fn result(definition: &str) -> &str {
    definition.lines().find_map(|line| line.strip_prefix(" RETURNS ")).unwrap_or("nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_from_identities() {
        for (kind, identity, name) in [
            ("table", "public.notes", "notes"),
            ("column", "public.notes.\"Body\"", "Body"),
            ("constraint", "notes_pkey on public.notes", "notes_pkey"),
            ("function", "app.f(integer, app.kind)", "f"),
            ("grant", "TABLE public.notes to app", "notes"),
            ("column grant", "TABLE public.notes (body) to its owner", "notes"),
            ("owner", "TABLE public.notes", "notes"),
            ("schema", "app", "app"),
        ] {
            assert_eq!(bare(kind, identity), name, "{identity}");
        }
    }

    #[test]
    fn name_is_found_where_it_goes_and_as_a_whole_word() {
        let text = "CREATE TABLE notes2 (id int);\nCOMMENT ON TABLE notes IS 'x';\nDO $$ BEGIN EXECUTE 'DROP TABLE notes'; END $$;\n";
        assert_eq!(line(text, "notes"), Some((1, 3)));
        assert_eq!(line(text, "NOTES2"), Some((2, 1)));
        assert_eq!(line(text, "note"), None);
        assert_eq!(dynamic(text), 3);
        assert_eq!(dynamic("DROP TABLE a;"), 1);
    }

    #[test]
    fn enum_that_grew_took_nothing() {
        let labels = |text| labels(text);
        assert!(labels("AS ENUM ('a', 'it''s')").is_subset(&labels("AS ENUM ('x', 'a', 'it''s')")));
        assert!(!labels("AS ENUM ('a', 'b')").is_subset(&labels("AS ENUM ('a', 'c')")));
    }
}
