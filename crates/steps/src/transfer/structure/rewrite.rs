//! The legacy schema's name in places that PostgreSQL does not rename: texts that become SQL only when they run.
//!
//! Names in the bodies of functions are rewritten token by token, never inside a literal. A literal that may become SQL
//! (`EXECUTE 'SELECT ... FROM public.t'`, `to_regclass('public.t')`) is a doubt: what it would become is shown, and done by
//! consent only. Rows and comments are data, and stay.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_document::sql::{Token, TokenKind};
use pgrunbook_postgres::quote;

use super::Object;
use super::dump::{is_name, name_of, words};

/// What is called how, and where it goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    pub from: String,
    pub to: String,
    /// Relations, types, functions, ... of the schema itself.
    pub own: BTreeSet<String>,
    /// The same of extensions, with the schema each is in at the target.
    pub extensions: BTreeMap<String, String>,
    /// Schemas of extensions that a search_path needs beside ours.
    pub shared: Vec<String>,
}

/// A text with the names changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rewritten {
    /// What is certain is changed.
    pub sure: String,
    /// What is doubtful, too.
    pub all: String,
    /// What is doubtful, in words.
    pub doubts: Vec<String>,
    /// Dynamic SQL that does not name the schema.
    pub dynamic: bool,
}

impl Rewritten {
    fn same(text: &str) -> Self {
        Self { sure: text.to_owned(), all: text.to_owned(), ..Self::default() }
    }
}

/// A change of a text at a place.
struct Edit {
    range: std::ops::Range<usize>,
    text: String,
    sure: bool,
}

impl Names {
    /// An object of the dump with the names that PostgreSQL has left.
    pub fn object(&self, object: &Object) -> Rewritten {
        match object.kind.as_str() {
            "COMMENT" => Rewritten::same(&object.sql),
            "FUNCTION" | "PROCEDURE" => self.function(&object.sql),
            _ => self.literals(&object.sql),
        }
    }

    /// `CREATE FUNCTION ... SET search_path TO 'public' AS $$...$$`.
    fn function(&self, sql: &str) -> Rewritten {
        let tokens = words(sql);
        let text = |at: usize| tokens.get(at).map_or("", |token: &Token| &sql[token.range()]);
        let is = |at: usize, word: &str| text(at).eq_ignore_ascii_case(word);
        let mut edits = Vec::new();
        let mut doubts = Vec::new();
        let mut dynamic = false;
        let mut language = String::new();
        let mut at = 0;
        while at < tokens.len() {
            if is(at, "LANGUAGE") && language.is_empty() {
                language = name_of(text(at + 1));
            } else if is(at, "SET") && is(at + 1, "search_path") {
                at = self.search_path(sql, &tokens, at + 3, &mut edits);
                continue;
            } else if is(at, "AS") && tokens.get(at + 1).is_some_and(|next| next.kind == TokenKind::DollarString) {
                let place = tokens[at + 1].range();
                let (open, body, close) = dollars(&sql[place.clone()]);
                let inner = match language.as_str() {
                    "sql" | "plpgsql" => self.body(body),
                    _ => self.foreign_body(body, &language),
                };
                for (sure, body) in [(true, &inner.sure), (false, &inner.all)] {
                    edits.push(Edit { range: place.clone(), text: format!("{open}{body}{close}"), sure });
                }
                doubts.extend(inner.doubts);
                dynamic = inner.dynamic;
                at += 2;
                continue;
            } else if tokens[at].kind == TokenKind::String {
                self.literal(sql, &tokens, at, &mut edits, &mut doubts);
            }
            at += 1;
        }
        Rewritten { dynamic, ..applied(sql, &edits, doubts) }
    }

    /// The list behind `SET search_path TO`: names as strings, as the server prints them.
    fn search_path(&self, sql: &str, tokens: &[Token], mut at: usize, edits: &mut Vec<Edit>) -> usize {
        let mut names = Vec::new();
        let mut place: Option<std::ops::Range<usize>> = None;
        while let Some(token) = tokens.get(at) {
            let text = &sql[token.range()];
            let name = match token.kind {
                TokenKind::String => text.trim_matches('\'').replace("''", "'"),
                TokenKind::Word | TokenKind::QuotedName => name_of(text),
                _ => break,
            };
            names.push(name);
            place = Some(place.map_or(token.start, |place| place.start)..token.end);
            at += 1;
            if tokens.get(at).is_none_or(|token| &sql[token.range()] != ",") {
                break;
            }
            at += 1;
        }
        if let Some(range) = place.filter(|_| names.contains(&self.from)) {
            let mut path: Vec<String> = Vec::new();
            for name in names {
                let more = if name == self.from { self.shared.clone() } else { Vec::new() };
                let name = if name == self.from { self.to.clone() } else { name };
                for one in std::iter::once(name).chain(more) {
                    if !path.contains(&one) {
                        path.push(one);
                    }
                }
            }
            let text = path.iter().filter_map(|name| quote::literal(name).ok()).collect::<Vec<_>>().join(", ");
            edits.push(Edit { range: range.clone(), text: text.clone(), sure: true });
            edits.push(Edit { range, text, sure: false });
        }
        at
    }

    /// A body in SQL or PL/pgSQL.
    pub fn body(&self, body: &str) -> Rewritten {
        let tokens = words(body);
        let text = |at: usize| tokens.get(at).map_or("", |token: &Token| &body[token.range()]);
        let mut edits = Vec::new();
        let mut doubts = Vec::new();
        let mut dynamic = false;
        for (at, token) in tokens.iter().enumerate() {
            match token.kind {
                TokenKind::Word | TokenKind::QuotedName => {
                    let word = text(at);
                    if word.eq_ignore_ascii_case("execute") && !text(at + 1).eq_ignore_ascii_case("function") {
                        dynamic = true;
                    }
                    if name_of(word) != self.from || (at > 0 && text(at - 1) == ".") {
                        continue;
                    }
                    if text(at + 1) == "." && tokens.get(at + 2).is_some_and(is_name) {
                        let named = name_of(text(at + 2));
                        match self.home(&named) {
                            Some(schema) => {
                                for sure in [true, false] {
                                    edits.push(Edit { range: token.range(), text: ident(schema), sure });
                                }
                            }
                            None => doubts.push(format!("`{}.{named}` names nothing that moves", self.from)),
                        }
                    } else if self.is_schema_here(body, &tokens, at) {
                        edits.push(Edit { range: token.range(), text: ident(&self.to), sure: false });
                        doubts.push(format!("`{} {word}` sets or names the schema itself", text(at.saturating_sub(1))));
                    }
                }
                TokenKind::String | TokenKind::DollarString => {
                    self.literal(body, &tokens, at, &mut edits, &mut doubts);
                }
                _ => {}
            }
        }
        Rewritten { dynamic, ..applied(body, &edits, doubts) }
    }

    /// `search_path = public`, `IN SCHEMA public`: not the role PUBLIC, not a column's or an alias's name.
    fn is_schema_here(&self, body: &str, tokens: &[Token], at: usize) -> bool {
        let before: Vec<String> =
            tokens[at.saturating_sub(3)..at].iter().map(|token| body[token.range()].to_ascii_lowercase()).collect();
        before.last().is_some_and(|word| word == "schema") || before.iter().any(|word| word == "search_path")
    }

    /// A body in a language that is not read here.
    fn foreign_body(&self, body: &str, language: &str) -> Rewritten {
        let (all, hits) = self.text(body);
        if hits == 0 {
            return Rewritten::same(body);
        }
        let doubts = vec![format!("its body is {language}, which is not read here, and names `{}.`", self.from)];
        Rewritten { sure: body.to_owned(), all, doubts, dynamic: false }
    }

    /// Anything else that the server has printed: names are right, texts are doubts.
    fn literals(&self, sql: &str) -> Rewritten {
        let tokens = words(sql);
        let (mut edits, mut doubts) = (Vec::new(), Vec::new());
        for (at, token) in tokens.iter().enumerate() {
            if matches!(token.kind, TokenKind::String | TokenKind::DollarString) {
                self.literal(sql, &tokens, at, &mut edits, &mut doubts);
            }
        }
        applied(sql, &edits, doubts)
    }

    /// A literal that names the schema with something in it; or the schema alone, where that is what it can mean.
    fn literal(&self, sql: &str, tokens: &[Token], at: usize, edits: &mut Vec<Edit>, doubts: &mut Vec<String>) {
        let token = tokens[at];
        let text = &sql[token.range()];
        let (replaced, hits) = self.text(text);
        if hits > 0 {
            edits.push(Edit { range: token.range(), text: replaced, sure: false });
            doubts.push(format!("the literal {} names `{}.`", shortened(text), self.from));
        } else if text == format!("'{}'", self.from) {
            let near = tokens[at.saturating_sub(6)..at].iter().map(|token| sql[token.range()].to_ascii_lowercase());
            let words = [
                "table_schema",
                "schemaname",
                "nspname",
                "schema_name",
                "search_path",
                "'search_path'",
                "format",
                "quote_ident",
            ];
            if near.into_iter().any(|word| words.contains(&word.as_str()) || word.ends_with("_schema")) {
                let text = quote::literal(&self.to).unwrap_or_default();
                edits.push(Edit { range: token.range(), text, sure: false });
                doubts.push(format!("the literal '{}' seems to be the schema's name", self.from));
            }
        }
    }

    /// `public.` inside a text, before a name that moves, a place holder, or the text's end; and how often.
    fn text(&self, text: &str) -> (String, usize) {
        let mut out = String::new();
        let mut hits = 0;
        let mut done = 0;
        let plain = format!("{}.", self.from);
        let quoted = format!("\"{}\".", self.from.replace('"', "\"\""));
        let mut at = 0;
        while at < text.len() {
            let found = [&quoted, &plain].into_iter().find(|form| starts_with(&text[at..], form));
            let fresh = !text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "_$.\"".contains(c));
            if let (Some(form), true) = (found, fresh) {
                let rest = &text[at + form.len()..];
                if let Some(schema) = self.target_of(rest) {
                    out.push_str(&text[done..at]);
                    // Inside a literal a quote of the name would have to be doubled once more.
                    out.push_str(&ident(schema).replace('\'', "''"));
                    out.push('.');
                    hits += 1;
                    at += form.len();
                    done = at;
                    continue;
                }
            }
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
        out.push_str(&text[done..]);
        (out, hits)
    }

    /// Where what follows `public.` in a text lives: a known name there, or a name that is yet to be put in, here.
    fn target_of(&self, rest: &str) -> Option<&str> {
        match rest.chars().next() {
            None | Some('%' | '\'' | '$') => return Some(&self.to),
            Some('"') => {
                let inner = &rest[1..];
                let end = inner.find('"')?;
                return if end == 0 { Some(&self.to) } else { self.home(&inner[..end]) };
            }
            _ => {}
        }
        let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '$').collect();
        self.home(&word.to_ascii_lowercase())
    }

    /// The schema in which a name of the legacy schema is at the target.
    fn home(&self, name: &str) -> Option<&str> {
        if self.own.contains(name) {
            return Some(&self.to);
        }
        self.extensions.get(name).map(String::as_str)
    }
}

fn starts_with(text: &str, form: &str) -> bool {
    text.as_bytes().get(..form.len()).is_some_and(|start| start.eq_ignore_ascii_case(form.as_bytes()))
        && text.is_char_boundary(form.len())
}

fn ident(name: &str) -> String {
    quote::ident(name).expect("a name that the server gave has no NUL")
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short.replace('\n', " ")
}

/// `$x$`, what is between, `$x$`.
fn dollars(text: &str) -> (&str, &str, &str) {
    let length = text[1..].find('$').map_or(1, |at| at + 2);
    let end = text.len().saturating_sub(length).max(length);
    (&text[..length], &text[length..end], &text[end..])
}

/// The text with the sure edits, and with all. A sure edit stands in both lists.
fn applied(text: &str, edits: &[Edit], doubts: Vec<String>) -> Rewritten {
    let with = |sure: bool| {
        let mut out = String::new();
        let mut done = 0;
        for edit in edits.iter().filter(|edit| edit.sure == sure) {
            out.push_str(&text[done..edit.range.start]);
            out.push_str(&edit.text);
            done = edit.range.end;
        }
        out.push_str(&text[done..]);
        out
    };
    Rewritten { sure: with(true), all: with(false), doubts, dynamic: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            from: "public".to_owned(),
            to: "Health 1".to_owned(),
            own: ["acct", "f", "My T"].map(str::to_owned).into(),
            extensions: [("citext".to_owned(), "ext".to_owned())].into(),
            shared: vec!["ext".to_owned()],
        }
    }

    fn body(text: &str, sure: &str, all: &str, doubts: usize) {
        let found = names().body(text);
        assert_eq!((found.sure.as_str(), found.all.as_str()), (sure, all), "{text}");
        assert_eq!(found.doubts.len(), doubts, "{:?}", found.doubts);
    }

    #[test]
    fn names_in_bodies_are_rewritten_outside_of_literals() {
        let here =
            "SELECT public.f(x.public.acct), PUBLIC.\"My T\".a, v::public.citext -- public.acct\n FROM \"public\".acct";
        let there = "SELECT \"Health 1\".f(x.public.acct), \"Health 1\".\"My T\".a, v::ext.citext -- public.acct\n FROM \"Health 1\".acct";
        body(here, there, there, 0);
        body(
            "DECLARE r public.acct%ROWTYPE;",
            "DECLARE r \"Health 1\".acct%ROWTYPE;",
            "DECLARE r \"Health 1\".acct%ROWTYPE;",
            0,
        );
        body("GRANT SELECT ON acct TO public", "GRANT SELECT ON acct TO public", "GRANT SELECT ON acct TO public", 0);
    }

    #[test]
    fn a_name_that_does_not_move_is_a_doubt() {
        body("SELECT public.gone", "SELECT public.gone", "SELECT public.gone", 1);
    }

    #[test]
    fn literals_that_become_sql_are_doubts() {
        for (text, all) in [
            ("EXECUTE 'DELETE FROM public.acct'", "EXECUTE 'DELETE FROM \"Health 1\".acct'"),
            ("EXECUTE 'DELETE FROM public.' || t", "EXECUTE 'DELETE FROM \"Health 1\".' || t"),
            ("EXECUTE format('SELECT 1 FROM public.%I', t)", "EXECUTE format('SELECT 1 FROM \"Health 1\".%I', t)"),
            ("EXECUTE $q$SELECT 1 FROM \"public\".\"My T\"$q$", "EXECUTE $q$SELECT 1 FROM \"Health 1\".\"My T\"$q$"),
            ("PERFORM to_regclass('public.acct')", "PERFORM to_regclass('\"Health 1\".acct')"),
            ("WHERE table_schema = 'public'", "WHERE table_schema = 'Health 1'"),
            (
                "PERFORM set_config('search_path', 'public', true)",
                "PERFORM set_config('search_path', 'Health 1', true)",
            ),
            ("SET LOCAL search_path = public", "SET LOCAL search_path = \"Health 1\""),
            (
                "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM x",
                "REVOKE ALL ON ALL TABLES IN SCHEMA \"Health 1\" FROM x",
            ),
        ] {
            body(text, text, all, 1);
        }
    }

    #[test]
    fn texts_that_only_look_like_it_stay() {
        for text in [
            "IF visibility = 'public' THEN",
            "RAISE 'see www.public.acct or public.example'",
            "SELECT 'republic.acct', 'public acct'",
        ] {
            body(text, text, text, 0);
        }
    }

    #[test]
    fn a_search_path_of_a_function_gets_the_shared_schemas_too() {
        let sql = "CREATE FUNCTION public.f() RETURNS int\n    LANGUAGE plpgsql\n    SET search_path TO 'public', 'pg_temp'\n    AS $_$ BEGIN RETURN public.f(); END $_$;";
        let found = names().object(&Object {
            kind: "FUNCTION".to_owned(),
            name: "f()".to_owned(),
            table: None,
            sql: sql.to_owned(),
        });
        let expected = sql
            .replace("'public', 'pg_temp'", "'Health 1', 'ext', 'pg_temp'")
            .replace("RETURN public.f", "RETURN \"Health 1\".f");
        assert_eq!((found.sure, found.doubts.len()), (expected, 0));
    }

    #[test]
    fn dynamic_sql_without_the_name_is_noticed() {
        assert!(names().body("EXECUTE 'TRUNCATE ' || t").dynamic);
        assert!(!names().body("SELECT 1").dynamic);
    }

    proptest::proptest! {
        #[test]
        fn any_body_is_read(text in "([ '\"$.;%a-c\n]|public|acct|EXECUTE|\\$q\\$|é){0,40}") {
            let found = names().body(&text);
            let _ = names().object(&Object { kind: "FUNCTION".to_owned(), name: String::new(), table: None, sql: format!("CREATE FUNCTION x LANGUAGE sql AS {text}") });
            proptest::prop_assert!(found.doubts.is_empty() <= (found.sure == found.all));
        }
    }
}
