//! The backslash commands of `psql`: not SQL, so no server understands them, and what to use instead.

use std::ops::Range;

use super::lex::{TokenKind, lex};

/// One backslash command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaCommand {
    /// With its arguments.
    pub range: Range<usize>,
    /// Without the backslash: `gexec`, `d+`.
    pub name: String,
    /// What to use instead.
    pub advice: &'static str,
}

/// The backslash commands of a text that have to go. Those that `pg_dump` writes around its output are not among them,
/// and the data of a `COPY` is not looked at.
pub fn meta_commands(text: &str) -> Vec<MetaCommand> {
    super::split::statements(text)
        .filter_map(Result::err)
        .filter_map(|problem| match problem.kind {
            super::ProblemKind::Meta { name } => {
                Some(MetaCommand { range: problem.range, advice: advice(&name), name })
            }
            _ => None,
        })
        .collect()
}

/// The first backslash command anywhere in a text that may be no more than a shell's argument: `\d credit_lots`.
pub fn first_meta(text: &str) -> Option<MetaCommand> {
    lex(text).find(|token| token.kind == TokenKind::Meta).map(|token| {
        let name = name_of(&text[token.range()]);
        MetaCommand { range: token.range(), name: name.to_owned(), advice: advice(name) }
    })
}

/// The name in a command's text, without the backslash.
pub(super) fn name_of(command: &str) -> &str {
    let rest = &command[1..];
    match rest.chars().next() {
        Some(one @ (';' | ':' | '\\' | '.' | '!' | '?')) => &rest[..one.len_utf8()],
        _ => rest.split(|c: char| c.is_whitespace() || c == '\\').next().unwrap_or(""),
    }
}

/// Written by `pg_dump` since the releases of August 2025 (CVE-2025-8714); without meaning for whoever knows no other
/// backslash command.
pub(super) fn is_accepted(name: &str) -> bool {
    matches!(name, "restrict" | "unrestrict")
}

/// Whether the command sends the statement before it.
pub(super) fn sends(name: &str) -> bool {
    matches!(name, "g" | "gx" | "gexec" | "gset" | "gdesc" | "crosstabview" | "watch" | "bind_named" | "parse")
}

/// What to use instead of a backslash command.
pub fn advice(name: &str) -> &'static str {
    match name.trim_end_matches(['+', 'S', 'x']) {
        "i" | "ir" | "include" | "include_relative" => {
            "put the file's statements here, or make it a migration of its own"
        }
        "set" | "unset" | "prompt" | "getenv" => {
            "declare a variable of the runbook and write :'name' (a literal) or :\"name\" (an identifier)"
        }
        "gset" => "let the next statement compute the value itself, or check it with `expect: value = ...`",
        "copy" => "use `COPY ... FROM stdin;` with the data behind it, ended by a line `\\.`",
        "if" | "elif" | "else" | "endif" => {
            "a runbook has no branches: put the condition into a check before this step, or into a DO block"
        }
        "gexec" => "build and run the statements in a DO block: `EXECUTE format(...)`",
        "g" | "gx" => "end the statement with a semicolon",
        "gdesc" | "bind" | "bind_named" | "parse" | "close" | "crosstabview" => {
            "end the statement with a semicolon; the result is only counted and compared"
        }
        "watch" => "use a check with `within: 5m every 15s`",
        "c" | "connect" => "name another target in a step of its own",
        "." => "this ends the data of a COPY ... FROM stdin, and there is none above it",
        ";" => "write `;` to end the statement",
        ":" => "write `:` alone; only :'name' and :\"name\" are replaced",
        "\\" => "begin the next statement on a line of its own",
        "!" | "o" | "out" | "w" | "write" | "s" | "e" | "edit" | "ef" | "ev" | "cd" | "setenv" => {
            "use a `sh` step for what happens outside of the database"
        }
        "d" => {
            "check the catalog: SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = \
                'name'::regclass AND attnum > 0 AND NOT attisdropped"
        }
        "dt" => "check the catalog: SELECT tablename FROM pg_tables WHERE schemaname = 'name'",
        "di" => {
            "check the catalog: SELECT indexrelid::regclass, indisvalid FROM pg_index WHERE indrelid = 'name'::regclass"
        }
        "dv" | "dm" => "check the catalog: SELECT viewname FROM pg_views (or matviewname FROM pg_matviews)",
        "ds" => "check the catalog: SELECT sequencename, last_value FROM pg_sequences",
        "dn" => "check the catalog: SELECT nspname FROM pg_namespace",
        "du" | "dg" | "drg" => {
            "check the catalog: SELECT rolname, rolcanlogin, rolsuper FROM pg_roles; members are in pg_auth_members"
        }
        "df" | "da" => "check the catalog: SELECT oid::regprocedure FROM pg_proc WHERE proname = 'name'",
        "dp" | "z" => "check the privilege itself: SELECT has_table_privilege('role', 'table', 'SELECT')",
        "ddp" => "check the catalog: SELECT * FROM pg_default_acl",
        "drds" => "check the catalog: SELECT setconfig FROM pg_db_role_setting",
        "dy" => "check the catalog: SELECT evtname, evtenabled FROM pg_event_trigger",
        "dRp" => "check the catalog: SELECT * FROM pg_publication_tables",
        "dRs" => "check the catalog: SELECT subname, subenabled FROM pg_subscription",
        "dT" | "dD" => "check the catalog: SELECT oid::regtype, typtype FROM pg_type",
        "l" | "list" => "check the catalog: SELECT datname FROM pg_database",
        "sf" => "check the catalog: SELECT pg_get_functiondef('name'::regproc)",
        "sv" => "check the catalog: SELECT pg_get_viewdef('name'::regclass)",
        "conninfo" => "check it: SELECT current_database(), current_user, inet_server_addr()",
        "password" => "use an apply step with ALTER ROLE and a secret by reference",
        name if name.starts_with('d') => "check the catalog that `psql -E` shows for this command",
        name if name.starts_with("lo_") => "use the functions lo_import, lo_export and lo_unlink",
        "q" | "quit" => "leave it out: the end of the text is the end",
        _ => "leave it out: it only changes what psql prints",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, names: &[&str]) {
        let found: Vec<_> = meta_commands(text).into_iter().map(|command| command.name).collect();
        assert_eq!(found, names, "{text:?}");
    }

    #[test]
    fn commands_outside_of_strings_and_comments_are_found() {
        check("\\i a.sql\n\\ir b.sql\n\\d+ t\n\\! rm\n\\dt\n", &["i", "ir", "d+", "!", "dt"]);
        check("SELECT '\\d', E'\\\\d', \"\\d\", $$\\d$$ -- \\d\n/* \\d */;", &[]);
        check("COPY t FROM stdin;\n\\N\n\\.\n\\q\n", &["q"]);
        check("\\restrict k\nSELECT 1;\n\\unrestrict k\n", &[]);
        check("\\.\nSELECT 1\\; SELECT 2;", &[".", ";"]);
        check("\\", &[""]);
    }

    #[test]
    fn advice_names_what_to_use() {
        for (name, part) in [
            ("i", "migration"),
            ("set", "variable"),
            ("copy", "COPY"),
            ("if", "DO block"),
            ("gexec", "DO block"),
            ("g", "semicolon"),
            ("gx", "semicolon"),
            ("connect", "target"),
            ("d", "pg_attribute"),
            ("d+", "pg_attribute"),
            ("dtS+", "pg_tables"),
            ("dFp", "psql -E"),
            ("!", "sh"),
            ("watch", "within"),
            ("timing", "leave it out"),
        ] {
            assert!(advice(name).contains(part), "{name}: {}", advice(name));
        }
    }
}
