//! Names and values as SQL text. Nothing else in the project builds SQL from them.

/// The text holds a NUL byte, which no PostgreSQL name or value can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a NUL byte cannot be part of SQL text")]
pub struct HoldsNul;

/// Quotes a name as the server's `quote_ident` does: bare where it reads back as itself, in double quotes otherwise.
///
/// Bare are `[a-z_][a-z0-9_]*` that no version from 14 to 18 keeps for itself; a word that only one version reserves
/// is quoted for all, which is always right.
///
/// # Errors
///
/// Refuses a NUL byte.
pub fn ident(name: &str) -> Result<String, HoldsNul> {
    refuse_nul(name)?;
    let bytes = name.as_bytes();
    let bare = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || *b == b'_')
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_')
        && KEYWORDS.binary_search(&name).is_err();
    Ok(if bare { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) })
}

/// Quotes a value as the server's `quote_literal` does; one with a backslash becomes an `E''` string, so that it reads
/// the same whatever `standard_conforming_strings` says.
///
/// # Errors
///
/// Refuses a NUL byte.
pub fn literal(value: &str) -> Result<String, HoldsNul> {
    refuse_nul(value)?;
    let quoted = value.replace('\'', "''");
    Ok(if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") })
}

fn refuse_nul(text: &str) -> Result<(), HoldsNul> {
    if text.as_bytes().contains(&0) { Err(HoldsNul) } else { Ok(()) }
}

/// Every keyword that is not "unreserved": `pg_get_keywords()` of PostgreSQL 15 where `catcode <> 'U'`, and what 16 to
/// 18 added. Sorted by byte.
const KEYWORDS: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "json",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_object",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_table",
    "json_value",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "merge_action",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay_bare() {
        for name in ["a", "_a", "credit_lots", "t1", "oid", "begin", "comment"] {
            assert_eq!(ident(name).unwrap(), name);
        }
    }

    #[test]
    fn everything_else_is_quoted() {
        for (name, quoted) in [
            ("", "\"\""),
            ("A", "\"A\""),
            ("a b", "\"a b\""),
            ("1a", "\"1a\""),
            ("a$", "\"a$\""),
            ("a\"b", "\"a\"\"b\""),
            ("é", "\"é\""),
            ("select", "\"select\""),
            ("int", "\"int\""),
            ("left", "\"left\""),
            ("system_user", "\"system_user\""),
        ] {
            assert_eq!(ident(name).unwrap(), quoted);
        }
    }

    #[test]
    fn literals_double_quotes_and_backslashes() {
        for (value, quoted) in
            [("", "''"), ("it's", "'it''s'"), ("a\\b", "E'a\\\\b'"), ("\\'", "E'\\\\'''"), ("a\nb", "'a\nb'")]
        {
            assert_eq!(literal(value).unwrap(), quoted);
        }
    }

    #[test]
    fn nul_is_refused() {
        assert_eq!(ident("a\0"), Err(HoldsNul));
        assert_eq!(literal("\0"), Err(HoldsNul));
    }

    #[test]
    fn keywords_are_sorted() {
        assert!(KEYWORDS.is_sorted());
    }
}
