//! The definitions of a database as `pg_dump` prints them, one object at a time.
//!
//! The text is cut at the comments that `pg_dump` writes above each object. They are looked for among the tokens, so that
//! nothing that stands inside a function's body or a string is taken for one.

use pgrunbook_document::sql::{Token, TokenKind, lex, statements};
use pgrunbook_postgres::ConnectOptions;

use super::super::error::TransferError;
use super::Object;
use crate::backup::programs::{Audience, call, find};

/// An object, and the schema it is in; `-` for what is in none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dumped {
    pub schema: String,
    pub object: Object,
}

/// Dumps the definitions of a database: all of them, or those of one schema.
///
/// Owners, privileges, publications and subscriptions are left out: what these are in the target is the topology's and the
/// stream's business.
pub(super) async fn definitions(
    database: &ConnectOptions,
    major: u32,
    schema: Option<&str>,
    audience: Audience<'_>,
) -> Result<Vec<Dumped>, TransferError> {
    let failed = |error: pgrunbook_engine::StepError| TransferError::Program {
        program: "pg_dump".to_owned(),
        said: error.to_string(),
    };
    let program = find("pg_dump", major).map_err(failed)?;
    let file = tempfile::NamedTempFile::new()
        .map_err(|error| TransferError::File { what: "a temporary one".to_owned(), error })?;
    let mut arguments: Vec<String> = [
        "--schema-only",
        "--no-owner",
        "--no-privileges",
        "--no-publications",
        "--no-subscriptions",
        "--no-security-labels",
        "--no-tablespaces",
        "--no-password",
        "--lock-wait-timeout=30s",
        "--encoding=UTF8",
    ]
    .map(str::to_owned)
    .into();
    arguments.push(format!("--file={}", file.path().display()));
    // A pattern: quoted it is only itself.
    arguments.extend(schema.map(|name| format!("--schema=\"{}\"", name.replace('"', "\"\""))));
    call(&program, &arguments, Some(database), None, audience).await.map_err(failed)?;
    let text = std::fs::read_to_string(file.path())
        .map_err(|error| TransferError::File { what: "the dump".to_owned(), error })?;
    Ok(split(&text))
}

/// Cuts a dump into its objects, in its order.
pub(super) fn split(text: &str) -> Vec<Dumped> {
    let tokens: Vec<Token> = lex(text).collect();
    let is_rule = |token: Option<&Token>| {
        token.is_some_and(|one| one.kind == TokenKind::LineComment && &text[one.range()] == "--")
    };
    let mut heads = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        // `--`, line break, `-- Name: ...`, line break, `--`.
        if token.kind == TokenKind::LineComment
            && at >= 2
            && is_rule(tokens.get(at - 2))
            && is_rule(tokens.get(at + 2))
            && let Some(head) = head(&text[token.range()])
        {
            heads.push((tokens[at - 2].start, tokens[at + 2].end, head));
        }
    }
    let complete = "--\n-- PostgreSQL database dump complete\n--";
    let end = text.rfind(complete).unwrap_or(text.len());
    let ends: Vec<usize> = heads.iter().skip(1).map(|head| head.0).chain([end]).collect();
    let mut dumped = Vec::new();
    for ((_, from, (name, kind, schema)), to) in heads.into_iter().zip(ends) {
        let sql = without_settings(&text[from..to.max(from)]);
        if !sql.is_empty() {
            let table = table_of(&kind, &sql);
            dumped.push(Dumped { schema, object: Object { kind, name, table, sql } });
        }
    }
    dumped
}

/// Name, type and schema. A name may hold anything but a line break; the words behind it hold no semicolon but a schema's.
fn head(comment: &str) -> Option<(String, String, String)> {
    let rest = comment.strip_prefix("-- Name: ")?;
    let (rest, _owner) = rest.rsplit_once("; Owner: ")?;
    let (rest, schema) = rest.rsplit_once("; Schema: ")?;
    let (name, kind) = rest.rsplit_once("; Type: ")?;
    Some((name.to_owned(), kind.to_owned(), schema.to_owned()))
}

/// The statements, without psql's own commands, and without settings: they belong to whatever came next in the dump.
fn without_settings(text: &str) -> String {
    let mut kept = String::new();
    for token in lex(text) {
        if token.kind != TokenKind::Meta {
            kept.push_str(&text[token.range()]);
        }
    }
    let mut sql = Vec::new();
    for statement in statements(&kept).flatten() {
        let one = statement.text(&kept).trim();
        if !one.starts_with("SET default_table") {
            sql.push(format!("{one};"));
        }
    }
    sql.join("\n\n")
}

/// Words of SQL that matter: no blanks, no comments.
pub(super) fn words(text: &str) -> Vec<Token> {
    lex(text).filter(|token| !token.is_blank()).collect()
}

/// The name that a word or a quoted name stands for.
pub(super) fn name_of(text: &str) -> String {
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => text.to_ascii_lowercase(),
    }
}

pub(super) fn is_name(token: &Token) -> bool {
    matches!(token.kind, TokenKind::Word | TokenKind::QuotedName)
}

/// The table that an object is made on, where it is one of those that are.
fn table_of(kind: &str, sql: &str) -> Option<String> {
    let before: &[&str] = match kind {
        "TABLE" | "CONSTRAINT" | "FK CONSTRAINT" | "CHECK CONSTRAINT" | "DEFAULT" | "ROW SECURITY" | "TABLE ATTACH" => {
            &["TABLE"]
        }
        "INDEX" | "TRIGGER" | "POLICY" => &["ON"],
        "RULE" => &["TO", "TABLE"],
        "SEQUENCE OWNED BY" => &["BY"],
        _ => return None,
    };
    let words = words(sql);
    let text = |at: usize| words.get(at).map(|token: &Token| &sql[token.range()]);
    let mut at = 0;
    while at < words.len() {
        // `schema.table` behind the word; ONLY may stand between.
        if text(at).is_some_and(|word| before.iter().any(|one| word.eq_ignore_ascii_case(one))) {
            let skip = usize::from(text(at + 1).is_some_and(|word| word.eq_ignore_ascii_case("ONLY")));
            let (dot, name) = (at + 2 + skip, at + 3 + skip);
            if text(dot) == Some(".") && words.get(name).is_some_and(is_name) {
                return text(name).map(name_of);
            }
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_cut_at_its_own_comments_only() {
        let text = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET statement_timeout = 0;\n\n\
            --\n-- Name: f(integer); Type: FUNCTION; Schema: public; Owner: -\n--\n\n\
            CREATE FUNCTION public.f(integer) RETURNS text\n    LANGUAGE sql\n    AS $_$\n--\n-- Name: x; Type: TABLE; Schema: y; Owner: -\n--\nSELECT ';' $_$;\n\n\n\
            SET default_table_access_method = heap;\n\n\
            --\n-- Name: a; Type: x; Type: TABLE; Schema: public; Owner: -\n--\n\nCREATE TABLE public.\"a; Type: x\" ();\n\n\
            --\n-- Name: my t pk; Type: CONSTRAINT; Schema: public; Owner: -\n--\n\nALTER TABLE ONLY public.\"my t\"\n    ADD CONSTRAINT pk PRIMARY KEY (id);\n\n\n\
            --\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n";
        let dumped = split(text);
        let shown: Vec<_> = dumped
            .iter()
            .map(|one| (one.object.kind.as_str(), one.object.name.as_str(), one.object.table.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                ("FUNCTION", "f(integer)", None),
                ("TABLE", "a; Type: x", Some("a; Type: x")),
                ("CONSTRAINT", "my t pk", Some("my t")),
            ]
        );
        assert!(dumped[0].object.sql.ends_with("SELECT ';' $_$;"), "{}", dumped[0].object.sql);
        assert_eq!(dumped[1].object.sql, "CREATE TABLE public.\"a; Type: x\" ();");
    }

    #[test]
    fn the_table_is_read_off_the_statement() {
        for (kind, sql, table) in [
            ("INDEX", "CREATE INDEX \"on\" ON ONLY t.\"A b\" USING btree (x)", "A b"),
            (
                "TRIGGER",
                "CREATE TRIGGER g BEFORE UPDATE OF on_hand ON t.stock FOR EACH ROW EXECUTE FUNCTION t.f()",
                "stock",
            ),
            ("POLICY", "CREATE POLICY p ON t.notes USING (true)", "notes"),
            ("FK CONSTRAINT", "ALTER TABLE ONLY t.a ADD CONSTRAINT f FOREIGN KEY (x) REFERENCES t.b(y)", "a"),
            ("SEQUENCE OWNED BY", "ALTER SEQUENCE t.s OWNED BY t.a.id", "a"),
        ] {
            assert_eq!(table_of(kind, sql).as_deref(), Some(table), "{sql}");
        }
    }
}
