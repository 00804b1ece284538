//! Whether two databases hold the same rows, table by table.

use std::collections::BTreeMap;
use std::fmt;

use pgrunbook_document::sql::quote;
use pgrunbook_engine::StepError;
use pgrunbook_postgres::{PgError, Session};

/// The rows of one table: how many, and a sum over hashes of each row's text, which does not depend on their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSum {
    /// `schema.table`, quoted where it must be.
    pub table: String,
    pub rows: u64,
    pub sum: String,
}

/// What is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Missing(String),
    Rows { table: String, wanted: u64, found: u64 },
    Content(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(table) => write!(f, "table {table} is missing"),
            Self::Rows { table, wanted, found } => write!(f, "table {table} has {found} rows instead of {wanted}"),
            Self::Content(table) => write!(f, "table {table} has as many rows, and others"),
        }
    }
}

/// Ordinary tables of users. Those of pgrunbook itself change while a run is at work.
const TABLES: &str = "SELECT n.nspname, c.relname FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgrunbook') AND n.nspname !~ '^pg_'
    ORDER BY 1, 2";

/// The sums of every table, in the session's present snapshot. Tables named in `without` are left out.
///
/// # Errors
/// If a table cannot be read: a backup that is not seen whole is not verified.
pub async fn sums(session: &Session, without: &[String]) -> Result<Vec<TableSum>, StepError> {
    sums_of(session, &[], without).await
}

/// The same of the tables in these schemas alone; of all if none is named.
///
/// # Errors
/// As [`sums`].
pub async fn sums_of(session: &Session, schemas: &[String], without: &[String]) -> Result<Vec<TableSum>, StepError> {
    let read = |error: PgError| error.into_step_error();
    // Row level security would hide rows in silence; the texts of values depend on these settings.
    session
        .execute(
            "SET row_security = off; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'iso_8601';
             SET timezone = 'UTC'; SET extra_float_digits = 3; SET bytea_output = 'hex'",
        )
        .await
        .map_err(read)?;
    let tables = session.simple(TABLES).await.map_err(read)?;
    let mut sums = Vec::new();
    for row in tables.last().map(|answer| answer.rows.as_slice()).unwrap_or_default() {
        let name = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let (schema, relation) = (name(0), name(1));
        if !schemas.is_empty() && !schemas.contains(&schema) {
            continue;
        }
        if without.iter().any(|table| *table == relation || *table == format!("{schema}.{relation}")) {
            continue;
        }
        let quoted = |name: &str| quote::ident(name).map_err(|_| StepError::failed("name", "a name holds a NUL byte"));
        let table = format!("{}.{}", quoted(&schema)?, quoted(&relation)?);
        let answers = session
            .simple(&format!(
                "SELECT count(*), COALESCE(sum(pg_catalog.hashtextextended(t::text, 0)::numeric), 0) FROM ONLY {table} AS t"
            ))
            .await
            .map_err(read)?;
        let row = answers.last().and_then(|answer| answer.rows.first()).cloned().unwrap_or_default();
        let value = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        sums.push(TableSum { table, rows: value(0).parse().unwrap_or(0), sum: value(1) });
    }
    Ok(sums)
}

/// What `found` lacks of `wanted`, or has otherwise.
pub fn compare(wanted: &[TableSum], found: &[TableSum]) -> Vec<Difference> {
    let by_name: BTreeMap<&str, &TableSum> = found.iter().map(|table| (table.table.as_str(), table)).collect();
    let difference = |wanted: &TableSum| match by_name.get(wanted.table.as_str()) {
        None => Some(Difference::Missing(wanted.table.clone())),
        Some(found) if found.rows != wanted.rows => {
            Some(Difference::Rows { table: wanted.table.clone(), wanted: wanted.rows, found: found.rows })
        }
        Some(found) if found.sum != wanted.sum => Some(Difference::Content(wanted.table.clone())),
        Some(_) => None,
    };
    wanted.iter().filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, rows: u64, sum: &str) -> TableSum {
        TableSum { table: name.to_owned(), rows, sum: sum.to_owned() }
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let wanted = [table("a", 1, "5"), table("b", 1, "5"), table("c", 1, "5"), table("d", 1, "5")];
        let found = [table("a", 1, "5"), table("b", 2, "5"), table("c", 1, "6"), table("e", 9, "9")];
        let said: Vec<String> = compare(&wanted, &found).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            ["table b has 2 rows instead of 1", "table c has as many rows, and others", "table d is missing",]
        );
    }
}
