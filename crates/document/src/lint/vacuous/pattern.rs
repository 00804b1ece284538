//! Rules about patterns: one that matches nothing, and one of roles where nobody asks whether a role matches it.

use std::collections::BTreeSet;

use crate::diagnostic::Diagnostic;

use super::words::{Asked, Word, group};

/// Columns of the catalogs and of the information schema that hold the name of a role which has something.
const ROLE_COLUMNS: &[&str] = &["grantee", "rolname", "usename", "role_name"];

/// How many words are looked through for the other parenthesis, so that no text takes long.
const FAR: usize = 256;

/// A comparison of something with a pattern.
struct Match<'w, 'a> {
    /// What stands before the operator, and before its `NOT`.
    left: &'w [Word<'a>],
    negated: bool,
    operator: Operator,
    /// The strings and variables after the operator: one, or those of `ANY (ARRAY[...])`.
    patterns: Vec<Word<'a>>,
    /// What stands behind the pattern.
    right: &'w [Word<'a>],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// `LIKE`, `ILIKE`, `SIMILAR TO`, `~~`, `~~*`: `_` and `%` are wildcards and a backslash escapes.
    Like,
    /// `~`, `~*`, `^@`.
    Other,
}

/// The comparison whose operator stands at a place, if one does.
fn matched<'w, 'a>(words: &'w [Word<'a>], at: usize) -> Option<Match<'w, 'a>> {
    let word = words[at];
    let (operator, after) = if word.is("like") || word.is("ilike") || word.is_sign("~~") || word.is_sign("~~*") {
        (Operator::Like, at + 1)
    } else if word.is("similar") && words.get(at + 1).is_some_and(|next| next.is("to")) {
        (Operator::Like, at + 2)
    } else if word.is_sign("~") || word.is_sign("~*") || word.is_sign("^@") {
        (Operator::Other, at + 1)
    } else {
        return None;
    };
    let negated = at > 0 && words[at - 1].is("not");
    let first = *words.get(after)?;
    let (patterns, behind) = if first.is("any") || first.is("all") || first.is("some") {
        let list = &words[after + 1..words.len().min(after + FAR)];
        let length = group(list);
        (list[..length].iter().copied().filter(|word| is_pattern(*word)).collect(), after + 1 + length)
    } else if is_pattern(first) {
        (vec![first], after + 1)
    } else {
        return None;
    };
    let left = &words[..at - usize::from(negated)];
    Some(Match { left, negated, operator, patterns, right: &words[behind..] })
}

fn is_pattern(word: Word<'_>) -> bool {
    word.is_string() || word.is_variable()
}

/// Finds `LIKE 'a\\_%'`: with standard strings the first backslash escapes the second, and not the wildcard.
pub(super) fn doubled_backslash(asked: &Asked<'_>, found: &mut Vec<Diagnostic>) {
    for at in 0..asked.words.len() {
        let Some(matched) = matched(&asked.words, at).filter(|matched| matched.operator == Operator::Like) else {
            continue;
        };
        let escape =
            matched.right.first().is_some_and(|word| word.is("escape")).then(|| matched.right.get(1)).flatten();
        if escape.is_some_and(|escape| escape.text != r"'\'") {
            continue;
        }
        for pattern in matched.patterns {
            let Some(single) = single_backslash(pattern.text) else { continue };
            found.push(
                Diagnostic::warning(
                    "doubled-backslash",
                    asked.place(pattern),
                    "`\\\\` in this pattern is a backslash that must be there, and the wildcard behind it stays one: names hold no \
                     backslash, so nothing matches and nothing is examined",
                )
                .help(format!(
                    "write `{single}`; where a backslash is meant, say so with a single one and `ESCAPE ''`"
                )),
            );
        }
    }
}

/// A standard string in which each doubled backslash before a wildcard is a single one. `None` where there is no such, or
/// where others are doubled too: then a backslash is meant (`'C:\\Users\\%'`).
fn single_backslash(string: &str) -> Option<String> {
    if !string.starts_with(['\'', 'n', 'N']) {
        return None;
    }
    let mut single = String::with_capacity(string.len());
    let mut doubled = false;
    let mut rest = string;
    while let Some(at) = rest.find('\\') {
        let (before, from) = rest.split_at(at);
        let behind = from.trim_start_matches('\\');
        let run = &from[..from.len() - behind.len()];
        single.push_str(before);
        match (run.len(), behind.starts_with(['_', '%'])) {
            (2, true) => {
                doubled = true;
                single.push('\\');
            }
            (2.., _) => return None,
            _ => single.push('\\'),
        }
        rest = behind;
    }
    single.push_str(rest);
    doubled.then_some(single)
}

/// Finds checks that no role which matches a pattern has something, where nothing shows that any role matches it.
pub(super) fn nobody_examined(all: &[&Asked<'_>], found: &mut Vec<Diagnostic>) {
    let gates = || all.iter().filter(|asked| asked.is_gate);
    let examined: BTreeSet<&str> = gates()
        .filter(|asked| asked.expects_something())
        .flat_map(|asked| role_patterns(asked.judged()))
        .map(|one| one.pattern.text)
        .collect();
    for asked in gates().filter(|asked| asked.expects_nothing()) {
        let judged = asked.judged();
        let patterns = role_patterns(judged);
        let is_examined = |pattern: &str| {
            examined.contains(pattern) || patterns.iter().any(|one| one.in_not_exists && one.pattern.text == pattern)
        };
        // Who asks for the roles themselves means it: no such role is there.
        let unseen = patterns
            .iter()
            .find(|one| !one.in_not_exists && !is_examined(one.pattern.text) && (one.is_grantee || asks_more(judged)));
        if let Some(RolePattern { pattern, .. }) = unseen {
            found.push(
                Diagnostic::warning(
                    "nobody-examined",
                    asked.place(*pattern),
                    "nothing is also what this finds where no role matches the pattern: no step shows that any was examined",
                )
                .help(format!(
                    "add a check that they are there, `SELECT rolname FROM pg_roles WHERE rolname LIKE {}` with \
                     `-- expect: rows >= 1` or their number",
                    pattern.text
                )),
            );
        }
    }
}

/// Finds patterns that match none of the roles that are declared: what asks about them asks about nobody.
pub(super) fn matches_no_role(asked: &Asked<'_>, roles: &BTreeSet<String>, found: &mut Vec<Diagnostic>) {
    for one in role_patterns(asked.judged()).iter().filter(|one| one.is_like) {
        let Some(pattern) = plain_string(one.pattern.text) else { continue };
        // Roles of PostgreSQL's own are nobody's declaration.
        if pattern.starts_with("pg") || roles.iter().any(|role| like(&pattern, role)) {
            continue;
        }
        found.push(
            Diagnostic::warning(
                "matches-no-role",
                asked.place(one.pattern),
                "none of the roles that the topology declares matches this pattern: whatever is asked here is asked of nobody",
            )
            .help(format!("declared are {}", few(roles))),
        );
    }
}

/// The first names of many.
fn few(roles: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = roles.iter().take(4).map(String::as_str).collect();
    let more = if roles.len() > shown.len() { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// The value of a string in single quotes, without an escape syntax of its own.
fn plain_string(text: &str) -> Option<String> {
    let inside = text.strip_prefix('\'')?.strip_suffix('\'')?;
    Some(inside.replace("''", "'"))
}

/// `LIKE`, as <https://www.postgresql.org/docs/current/functions-matching.html> has it.
fn like(pattern: &str, name: &str) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => name.is_empty(),
        Some('%') => {
            let rest = pattern.as_str();
            (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| like(rest, &name[at..]))
        }
        Some('_') => {
            let mut name = name.chars();
            name.next().is_some() && like(pattern.as_str(), name.as_str())
        }
        Some(character) => {
            let wanted = if character == '\\' { pattern.next().unwrap_or('\\') } else { character };
            name.strip_prefix(wanted).is_some_and(|rest| like(pattern.as_str(), rest))
        }
    }
}

/// A pattern with which the name of a role is compared.
struct RolePattern<'a> {
    pattern: Word<'a>,
    /// Compared by `LIKE` itself.
    is_like: bool,
    /// Whether the column holds those that were granted something.
    is_grantee: bool,
    /// Whether it stands in a `NOT EXISTS (...)`: a row comes out where nothing matches.
    in_not_exists: bool,
}

fn role_patterns<'a>(words: &[Word<'a>]) -> Vec<RolePattern<'a>> {
    let mut patterns = Vec::new();
    // For each parenthesis that is open, whether it is that of a `NOT EXISTS` or inside one.
    let mut open: Vec<bool> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        if word.is_sign("(") {
            // Behind the statement's first word it is the question itself.
            let not_exists = at > 3 && words[at - 1].is("exists") && words[at - 2].is("not");
            open.push(not_exists || open.last() == Some(&true));
        } else if word.is_sign(")") {
            open.pop();
        } else if let Some(matched) = matched(words, at).filter(|matched| !matched.negated)
            && let Some(column) = role_column(matched.left)
            && let Some(pattern) = matched.patterns.first()
        {
            patterns.push(RolePattern {
                pattern: *pattern,
                is_like: word.is("like"),
                is_grantee: column.eq_ignore_ascii_case("grantee"),
                in_not_exists: open.last() == Some(&true),
            });
        }
    }
    patterns
}

/// The column of a role's name with which words end: `g.grantee::text`, `lower(rolname)`, `pg_get_userbyid(a.grantee)`.
fn role_column<'a>(words: &[Word<'a>]) -> Option<&'a str> {
    let mut words = words;
    while let [rest @ .., cast, _] = words
        && cast.is_sign("::")
    {
        words = rest;
    }
    let (last, before) = words.split_last()?;
    if !last.is_sign(")") {
        return last.name().filter(|_| last.names(ROLE_COLUMNS));
    }
    let mut depth = 1usize;
    for word in before.iter().rev().take(FAR) {
        if word.is_sign(")") {
            depth += 1;
        } else if word.is_sign("(") {
            depth -= 1;
        }
        if depth == 0 {
            return None;
        }
        if word.names(ROLE_COLUMNS) {
            return word.name();
        }
    }
    None
}

/// Whether a statement asks for more than the names of roles.
fn asks_more(words: &[Word<'_>]) -> bool {
    words.iter().enumerate().any(|(at, word)| {
        let begins_condition = || word.is("where") || word.is("and") || word.is("or") || word.is("on");
        word.is("join")
            || word.is("exists")
            || word.name().is_some_and(|name| name.starts_with("has_"))
            || (begins_condition() && !names_role(&words[at + 1..]))
    })
}

/// Whether a condition begins with the column of a role's name.
fn names_role(words: &[Word<'_>]) -> bool {
    let words = words.iter().skip_while(|word| word.is("not") || word.is_sign("(")).take(3).collect::<Vec<_>>();
    match words[..] {
        [_, dot, column] if dot.is_sign(".") => column.names(ROLE_COLUMNS),
        [column, ..] => column.names(ROLE_COLUMNS),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_matches_as_the_server_does() {
        for (pattern, name, wanted) in [
            (r"butler\_%\_app", "butler_health_app", true),
            (r"butler\_%\_app", "butlerxhealth_app", false),
            (r"butler\\_%\\_app", "butler_health_app", false),
            ("%_app", "x_app", true),
            ("_", "é", true),
            ("", "", true),
            ("%", "", true),
            ("a%b%c", "axxbyyc", true),
            ("a%b%c", "axxbyy", false),
            (r"a\", "a\\", true),
        ] {
            assert_eq!(like(pattern, name), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn doubled_backslashes_become_single_ones() {
        for (string, single) in [
            (r"'butler\\_%\\_app'", Some(r"'butler\_%\_app'")),
            (r"N'a\\%'", Some(r"N'a\%'")),
            (r"'butler\_%'", None),
            (r"E'butler\\_%'", None),
            (r"U&'a\\_'", None),
            (r"'C:\\Users\\%'", None),
            (r"'a\\\_'", None),
            (r"'a\\'", None),
            ("'a'", None),
        ] {
            assert_eq!(single_backslash(string).as_deref(), single, "{string}");
        }
    }
}
