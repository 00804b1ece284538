//! Tables that are in the target already, made by migrations: whether they take the file's rows as they are.

use pgrunbook_postgres::Session;

use super::error::SqliteError;
use super::kind::Kind;
use super::preflight::Preflight;
use crate::transfer::finding::{Finding, Severity};

pub(super) const COLUMNS: &str = "
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
       a.atthasdef OR a.attidentity <> '' AS has_default, a.attgenerated <> '' AS is_generated
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum";

/// Compares each table of the mapping with the schema's table of that name.
///
/// A type is as good as the mapping's if it holds each of the column's values exactly: a narrower integer where the
/// profile says that all fit.
///
/// # Errors
/// If the target cannot be asked.
pub async fn check_existing(session: &Session, schema: &str, looked: &Preflight) -> Result<Vec<Finding>, SqliteError> {
    let mut findings = Vec::new();
    for map in &looked.mapping.tables {
        let rows =
            session.client().query(COLUMNS, &[&schema, &map.name]).await.map_err(|error| session.error(&error))?;
        let table = format!("table {schema}.{}", map.name);
        let mut find = |code, object: String, what: String| {
            let finding = Finding::new(Severity::Refuse, code, object, what);
            findings.push(finding.remedy("change it by a migration, or say otherwise in [map]"));
        };
        if rows.is_empty() {
            find("no-table", table, "is not in the target".to_owned());
            continue;
        }
        for column in &map.columns {
            let object = format!("column {}.{}", map.name, column.name);
            let there = rows.iter().find(|row| row.get::<_, &str>(0) == column.name);
            let Some(there) = there else {
                find("no-column", object, "is not in the target".to_owned());
                continue;
            };
            let found: &str = there.get(1);
            let stats = &looked.profile.tables[map.source].columns[column.source];
            let range = (stats.smallest.unwrap_or(0), stats.largest.unwrap_or(0));
            if there.get::<_, bool>(4) {
                if column.computed.is_none() {
                    find("generated", object, "is a plain column here, and generated in the target".to_owned());
                }
            } else if !takes(found, column.kind, range, stats.longest_bytes) {
                let what =
                    format!("is {found} in the target, which does not hold every value of {}", column.kind.sql_type());
                find("other-type", object, what);
            } else if there.get::<_, bool>(2) && stats.nulls > 0 {
                find("null", object, format!("is NOT NULL in the target, and {} values are NULL", stats.nulls));
            }
        }
        for row in &rows {
            let name: &str = row.get(0);
            let is_new = !map.columns.iter().any(|column| column.name == name);
            if is_new && row.get(2) && !row.get::<_, bool>(3) && !row.get::<_, bool>(4) {
                let what = "is NOT NULL without a default in the target, and not in the file".to_owned();
                find("new-column", format!("column {}.{name}", map.name), what);
            }
        }
        if holds_rows(session, schema, &map.name).await? {
            let finding = Finding::new(Severity::Refuse, "not-empty", table, "holds rows already");
            findings.push(finding.remedy("empty it, if nobody needs them"));
        }
    }
    Ok(findings)
}

/// Whether the table has any row.
pub(super) async fn holds_rows(session: &Session, schema: &str, table: &str) -> Result<bool, SqliteError> {
    let place = [schema, table].map(|name| pgrunbook_postgres::quote::ident(name).unwrap_or_default()).join(".");
    Ok(session.value(&format!("SELECT 1 FROM {place} LIMIT 1")).await? == "1")
}

/// Whether a column of that type holds the values as they are.
fn takes(found: &str, kind: Kind, (least, most): (i64, i64), longest: u64) -> bool {
    match (kind, found) {
        (Kind::Integer(_), "bigint") => true,
        (Kind::Integer(_), "integer") => i32::try_from(least).is_ok() && i32::try_from(most).is_ok(),
        (Kind::Integer(_), "smallint") => i16::try_from(least).is_ok() && i16::try_from(most).is_ok(),
        (Kind::Text, found) => {
            let limit = found.strip_prefix("character varying(").and_then(|rest| rest.strip_suffix(')'));
            // Bytes are at least as many as characters.
            let fits = limit.and_then(|limit| limit.parse::<u64>().ok()).is_some_and(|limit| longest <= limit);
            fits || matches!(found, "text" | "character varying")
        }
        (kind, found) => found == kind.sql_type(),
    }
}
