//! What SQL does beyond the database that it runs in: to roles, other databases and settings, which all databases of a server share.
//!
//! Read before anything is run on a server that somebody gave. No grammar: the words behind a verb, also within the bodies of
//! routines and of DO. What is built at run time is not read, and so refused where its verb stands there.

use std::collections::BTreeSet;

use pgrunbook_document::sql::{TokenKind, lex};

/// Something that reaches beyond, and its line, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beyond {
    pub line: usize,
    pub what: Reach,
}

/// What it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// A role is made; `None`: its name is not in the text.
    Makes(Option<String>),
    /// Roles are altered, dropped or commented on; `None` among them: one whose name is not in the text.
    Changes(Vec<Option<String>>),
    /// Of these roles, to or from these.
    Membership(Vec<Option<String>>, Vec<Option<String>>),
    /// Something that is no role, in words.
    Server(&'static str),
}

impl Beyond {
    /// Why it may not be run on a server that has these roles; `None`: it may.
    pub fn refusal(&self, there: &BTreeSet<String>) -> Option<String> {
        let is_there = |name: &Option<String>| name.as_ref().is_none_or(|name| there.contains(name));
        let shown = |name: &Option<String>| {
            name.as_ref()
                .map_or_else(|| "a role that the text does not name".to_owned(), |name| format!("role `{name}`"))
        };
        match &self.what {
            Reach::Makes(Some(_)) => None,
            Reach::Makes(None) => Some("makes a role that the text does not name".to_owned()),
            Reach::Changes(roles) => {
                let role = roles.iter().find(|role| is_there(role))?;
                Some(format!("changes {}", shown(role)))
            }
            Reach::Membership(roles, members) => {
                let role = roles.iter().find(|role| is_there(role))?;
                let member = members.iter().find(|member| is_there(member))?;
                Some(format!("changes who is a member of {}: {}", shown(role), shown(member)))
            }
            Reach::Server(what) => Some((*what).to_owned()),
        }
    }
}

/// What a text reaches, in its order.
pub(super) fn beyond(text: &str) -> Vec<Beyond> {
    let mut found = Vec::new();
    look(text, 1, &Within::File, &mut found);
    found
}

/// Where a text stands.
enum Within<'a> {
    File,
    /// Of a routine or a DO.
    Body,
    /// A literal in this body: counts only where a statement begins with it.
    Literal(&'a str),
}

/// A word, a name in quotes as it is meant, or one character.
struct Word<'a> {
    upper: String,
    raw: &'a str,
    line: usize,
    kind: TokenKind,
}

fn look(text: &str, first_line: usize, within: &Within<'_>, found: &mut Vec<Beyond>) {
    let (mut line, mut counted) = (first_line, 0);
    let mut words = Vec::new();
    for token in lex(text).filter(|token| !token.is_blank()) {
        line += text[counted..token.start].matches('\n').count();
        counted = token.start;
        let raw = &text[token.start..token.end];
        words.push(Word { upper: raw.to_ascii_uppercase(), raw, line, kind: token.kind });
    }
    for at in 0..words.len() {
        let begins = at == 0 || !matches!(within, Within::Literal(_));
        if begins && let Some(what) = reach(&words[at..], within) {
            found.push(Beyond { line: words[at].line, what });
        }
        let word = &words[at];
        match word.kind {
            TokenKind::DollarString => {
                let tag = word.raw[1..].find('$').map_or(0, |end| end + 2);
                let body = word.raw.get(tag..word.raw.len().saturating_sub(tag)).unwrap_or_default();
                match within {
                    Within::File => look(body, word.line, &Within::Body, found),
                    Within::Body => look(body, word.line, &Within::Literal(text), found),
                    // Two deep, however deep it goes on.
                    Within::Literal(_) => {}
                }
            }
            // An old body: CREATE FUNCTION ... AS '...'; or what EXECUTE is given.
            TokenKind::String if matches!(within, Within::Body) => {
                let body = word.raw.trim_start_matches(['E', 'e']).trim_matches('\'').replace("''", "'");
                look(&body, word.line, &Within::Literal(text), found);
            }
            TokenKind::String
                if matches!(within, Within::File)
                    && at.checked_sub(1).is_some_and(|before| is(&words, before, "AS") || is(&words, before, "DO")) =>
            {
                look(&word.raw.trim_matches('\'').replace("''", "'"), word.line, &Within::Body, found);
            }
            _ => {}
        }
    }
}

fn is(words: &[Word<'_>], at: usize, what: &str) -> bool {
    words.get(at).is_some_and(|word| word.upper == what)
}

/// What the statement reaches whose first word is the first of these.
fn reach(words: &[Word<'_>], within: &Within<'_>) -> Option<Reach> {
    let second = words.get(1).map_or("", |word| word.upper.as_str());
    let is_role = matches!(second, "ROLE" | "USER" | "GROUP") && !is(words, 2, "MAPPING");
    match (words[0].upper.as_str(), second) {
        ("CREATE", _) if is_role => Some(Reach::Makes(names(&words[2..]).into_iter().next().flatten())),
        ("ALTER" | "DROP", _) if is_role => Some(Reach::Changes(names(&words[2..]))),
        ("COMMENT" | "LABEL", "ON") if is(words, 2, "ROLE") => Some(Reach::Changes(names(&words[3..]))),
        ("DROP" | "REASSIGN", "OWNED") if is(words, 2, "BY") => Some(Reach::Changes(names(&words[3..]))),
        ("ALTER", "SYSTEM") => Some(Reach::Server("changes the server's settings")),
        ("CREATE" | "ALTER" | "DROP", "TABLESPACE") => Some(Reach::Server("changes tablespaces")),
        ("CREATE" | "DROP", "DATABASE") => Some(Reach::Server("makes or drops a database")),
        ("ALTER", "DATABASE") => match within {
            // Its own it can only name by asking for it.
            Within::Literal(body) if names(&words[2..]) == [None] && body.contains("current_database") => None,
            _ => Some(Reach::Server("changes a database that it names")),
        },
        ("GRANT", _) => membership(words, "TO"),
        ("REVOKE", _) => membership(words, "FROM"),
        _ => None,
    }
}

/// Words of a GRANT that are looked at.
const LONGEST: usize = 1_000;

/// GRANT and REVOKE without ON: of roles.
fn membership(words: &[Word<'_>], between: &str) -> Option<Reach> {
    if is(words, 1, "OPTION") {
        return None;
    }
    let words = &words[..words.len().min(LONGEST)];
    let end = words.iter().position(|word| word.raw == ";").unwrap_or(words.len());
    let split = words[..end].iter().position(|word| word.upper == between)?;
    if words[..split].iter().any(|word| word.upper == "ON") {
        return None;
    }
    let of = if is(words, 2, "OPTION") && is(words, 3, "FOR") { 4 } else { 1 };
    Some(Reach::Membership(names(words.get(of..split)?), names(&words[split + 1..end])))
}

/// Names with commas between them. What is no name is one that the text does not say.
fn names(words: &[Word<'_>]) -> Vec<Option<String>> {
    let mut words = words.iter().filter(|word| !matches!(word.upper.as_str(), "IF" | "NOT" | "EXISTS" | "GROUP"));
    let mut names = Vec::new();
    while let Some(word) = words.next() {
        names.push(match (word.kind, word.upper.as_str()) {
            (TokenKind::Word, "CURRENT_USER" | "CURRENT_ROLE" | "SESSION_USER" | "ALL") => None,
            (TokenKind::Word, _) => Some(word.raw.to_lowercase()),
            (TokenKind::QuotedName, _) if word.raw.starts_with('"') => {
                Some(word.raw.trim_matches('"').replace("\"\"", "\""))
            }
            _ => None,
        });
        if words.next().is_none_or(|comma| comma.raw != ",") {
            break;
        }
    }
    if names.is_empty() { vec![None] } else { names }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there() -> BTreeSet<String> {
        ["app", "postgres", "Odd"].map(str::to_owned).into()
    }

    #[track_caller]
    fn check(sql: &str, wanted: &[&str]) {
        let found: Vec<String> =
            beyond(sql).iter().filter_map(|one| Some(format!("{} {}", one.line, one.refusal(&there())?))).collect();
        assert_eq!(found, wanted, "{sql}");
    }

    #[test]
    fn what_is_new_may_be_made_changed_and_granted() {
        check(
            "CREATE ROLE fresh LOGIN;\nALTER ROLE fresh SET search_path = x;\nGRANT app TO fresh;\nDROP ROLE IF EXISTS fresh;",
            &[],
        );
        check("GRANT fresh TO app; COMMENT ON ROLE fresh IS 'CREATE ROLE app'; DROP OWNED BY fresh", &[]);
        assert_eq!(beyond("CREATE USER \"Fresh\"")[0].what, Reach::Makes(Some("Fresh".to_owned())));
    }

    #[test]
    fn what_is_there_is_refused_at_its_line() {
        check("SELECT 1;\n\nALTER ROLE app NOLOGIN", &["3 changes role `app`"]);
        check("DROP ROLE fresh, \"Odd\"", &["1 changes role `Odd`"]);
        check("GRANT app TO postgres", &["1 changes who is a member of role `app`: role `postgres`"]);
        check(
            "REVOKE ADMIN OPTION FOR app FROM postgres",
            &["1 changes who is a member of role `app`: role `postgres`"],
        );
        check(
            "GRANT app TO CURRENT_USER",
            &["1 changes who is a member of role `app`: a role that the text does not name"],
        );
        check("ALTER ROLE ALL SET work_mem = '1GB'", &["1 changes a role that the text does not name"]);
        check("REASSIGN OWNED BY app TO fresh", &["1 changes role `app`"]);
        check("ALTER SYSTEM SET wal_level = logical", &["1 changes the server's settings"]);
        check("ALTER DATABASE postgres SET x.y = 'z'", &["1 changes a database that it names"]);
    }

    #[test]
    fn bodies_and_what_they_execute_are_read() {
        check("DO $$\nBEGIN\n  CREATE ROLE fresh;\n  ALTER ROLE app LOGIN;\nEND $$;", &["4 changes role `app`"]);
        check(
            "DO $do$\nBEGIN\n  EXECUTE format('CREATE ROLE %I', 'x');\nEND $do$;",
            &["3 makes a role that the text does not name"],
        );
        check(
            "DO $$BEGIN EXECUTE 'ALTER ROLE app LOGIN'; RAISE 'first ALTER ROLE app'; END$$",
            &["1 changes role `app`"],
        );
        check("DO 'BEGIN ALTER ROLE app LOGIN; END'", &["1 changes role `app`"]);
        check(
            "DO $$BEGIN EXECUTE 'ALTER DATABASE postgres SET a.b = ' || current_database(); END$$",
            &["1 changes a database that it names"],
        );
        check("DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET a.b = 1', current_database()); END$$", &[]);
    }

    #[test]
    fn privileges_on_objects_and_user_mappings_are_within() {
        check("GRANT SELECT ON notes TO app; REVOKE ALL ON SCHEMA public FROM app", &[]);
        check("ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO app", &[]);
        check("GRANT SELECT ON notes TO app WITH GRANT OPTION; REVOKE GRANT OPTION FOR SELECT ON notes FROM app", &[]);
        check("CREATE USER MAPPING FOR app SERVER s; DROP USER MAPPING FOR app SERVER s", &[]);
        check("COMMENT ON TABLE notes IS 'ALTER ROLE app'; INSERT INTO notes VALUES ('ALTER ROLE app')", &[]);
    }
}
