//! What the rows of before hold in a column that came.
//!
//! `ADD COLUMN ... DEFAULT` writes no row where the default is not volatile: PostgreSQL keeps the value beside the column
//! (`pg_attribute.attmissingval`), and every row of before has it. It stays the same when the default becomes another later,
//! and it is gone once the table is rewritten. A volatile default rewrites the table, and so each row has a value of its own.
//! Source: "System Catalogs", `pg_attribute`; `ALTER TABLE`, Notes.

use std::collections::HashMap;

use pgrunbook_postgres::{PgError, Session};

/// What a column's default is, and was for the rows of before.
#[derive(Debug, Clone, Default)]
pub struct Came {
    /// As PostgreSQL prints it, every name with its schema.
    pub default: Option<String>,
    /// It names what is not PostgreSQL's own: a sequence, a function.
    pub is_bound: bool,
    /// The value of all rows of before, as its type prints it.
    pub kept: Option<String>,
}

/// What came, by table and column; also of tables that are partitions, whose columns are those of the table above.
#[derive(Debug, Default)]
pub struct Columns {
    found: HashMap<(String, String), Came>,
    partitions: Vec<String>,
}

/// Texts that mean the same value in every session that reads them.
const PINNED: &str = "BEGIN READ ONLY; SET LOCAL search_path = ''; SET LOCAL DateStyle = 'ISO, YMD';
SET LOCAL IntervalStyle = 'postgres'; SET LOCAL TimeZone = 'UTC'; SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'";

/// A partitioned table has no rows, and its leaves keep the value. What they do not all keep alike is not known.
const CAME: &str =
    "SELECT c.relname::text, c.relispartition, a.attname::text, pg_catalog.pg_get_expr(d.adbin, d.adrelid),
    EXISTS (
        SELECT FROM pg_catalog.pg_depend AS p
        WHERE p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid
          AND NOT (p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.refobjid = c.oid)
          AND NOT (p.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND p.refobjid = a.atttypid)),
    k.value
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum AND a.attgenerated = ''
CROSS JOIN LATERAL (
    SELECT CASE WHEN pg_catalog.bool_and(l.atthasmissing)
                 AND pg_catalog.count(DISTINCT pg_catalog.array_to_string(l.attmissingval, '')) = 1
           THEN pg_catalog.min(pg_catalog.array_to_string(l.attmissingval, '')) END AS value
    FROM (
        SELECT c.oid AS relid WHERE c.relkind = 'r'
        UNION
        SELECT t.relid FROM pg_catalog.pg_partition_tree(c.oid) AS t WHERE t.isleaf AND c.relkind = 'p'
    ) AS r
    JOIN pg_catalog.pg_attribute AS l ON l.attrelid = r.relid AND l.attname = a.attname
) AS k
WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p')";

impl Columns {
    /// Reads them of a schema.
    ///
    /// # Errors
    /// If the catalogs cannot be read.
    pub async fn read(session: &Session, schema: &str) -> Result<Self, PgError> {
        session.execute(PINNED).await?;
        let rows = session.client().query(CAME, &[&schema]).await.map_err(|error| session.error(&error));
        // In a transaction that failed this ends it as well.
        session.execute("COMMIT").await?;
        let mut columns = Self::default();
        for row in rows? {
            let (table, column): (String, String) = (row.get(0), row.get(2));
            if row.get(1) && !columns.partitions.contains(&table) {
                columns.partitions.push(table.clone());
            }
            columns.found.insert((table, column), Came { default: row.get(3), is_bound: row.get(4), kept: row.get(5) });
        }
        Ok(columns)
    }

    /// Whether the table is a part of another, with which it is altered.
    pub fn is_partition(&self, table: &str) -> bool {
        self.partitions.iter().any(|one| one == table)
    }

    /// What of a column.
    pub fn of(&self, table: &str, column: &str) -> Came {
        self.found.get(&(table.to_owned(), column.to_owned())).cloned().unwrap_or_default()
    }
}

impl Came {
    /// Whether the default gives the value that the rows of before have: it is that constant, as PostgreSQL prints it.
    pub fn is_constant(&self, literal: &str, type_name: &str) -> bool {
        let (Some(default), Some(kept)) = (&self.default, &self.kept) else { return false };
        let is_bool =
            type_name == "boolean" && matches!((kept.as_str(), default.as_str()), ("t", "true") | ("f", "false"));
        let is_number = default == kept && default.parse::<f64>().is_ok();
        let cast = default.strip_prefix(literal).and_then(|rest| rest.strip_prefix("::"));
        let is_name = |c: char| c.is_ascii_alphanumeric() || " _\".[](),".contains(c);
        is_bool || is_number || cast.is_some_and(|cast| cast.chars().all(is_name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_constant_is_one() {
        let is_constant = |default: &str, kept: &str, literal: &str, type_name: &str| {
            let came = Came { default: Some(default.to_owned()), is_bound: false, kept: Some(kept.to_owned()) };
            came.is_constant(literal, type_name)
        };
        for (default, kept, literal, type_name) in [
            ("5", "5", "'5'", "integer"),
            ("'-5'::integer", "-5", "'-5'", "integer"),
            ("false", "f", "'f'", "boolean"),
            ("'home'::character varying", "home", "'home'", "character varying(20)"),
            ("'{a,b}'::text[]", "{a,b}", "'{a,b}'", "text[]"),
            ("'sad'::public.mood", "sad", "'sad'", "public.mood"),
        ] {
            assert!(is_constant(default, kept, literal, type_name), "{default}");
        }
        for (default, kept, literal, type_name) in [
            ("6", "5", "'5'", "integer"),
            ("true", "f", "'f'", "boolean"),
            ("now()", "2026-01-01 00:00:00+00", "'2026-01-01 00:00:00+00'", "timestamp with time zone"),
            ("'5'::integer + 1", "5", "'5'", "integer"),
            ("'a'::text || 'b'::text", "a", "'a'", "text"),
            ("CURRENT_USER", "CURRENT_USER", "'CURRENT_USER'", "name"),
        ] {
            assert!(!is_constant(default, kept, literal, type_name), "{default}");
        }
    }
}
