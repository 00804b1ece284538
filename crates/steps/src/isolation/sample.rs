//! Rows made from the types of a table's columns, for transactions that are rolled back.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::Session;

use super::objects::{ident, literal};
use crate::topology::Table;

/// A column, as far as a row needs it.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    /// With its modifier: `character varying(20)`.
    type_name: String,
    /// Of the type, or of what its domain is made of.
    base: String,
    category: String,
    /// It has no default, and does not take NULL.
    needed: bool,
    /// Its value can be given.
    writable: bool,
    /// Part of a key or a reference: another value breaks something else.
    constrained: bool,
}

/// <https://www.postgresql.org/docs/current/catalog-pg-attribute.html>,
/// <https://www.postgresql.org/docs/current/catalog-pg-type.html> (categories).
const COLUMNS: &str = "\
SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), b.typname::text, b.typcategory::text,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '',
       a.attgenerated = '' AND a.attidentity <> 'a',
       EXISTS (SELECT FROM pg_catalog.pg_constraint AS k
               WHERE k.conrelid = a.attrelid AND a.attnum = ANY (k.conkey) AND k.contype IN ('p', 'f', 'u', 'x'))
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type AS b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum";

/// The columns of a table; none where there is no such table.
///
/// # Errors
/// If the catalog cannot be read.
pub async fn columns(session: &Session, table: &Table) -> Result<Vec<Column>, StepError> {
    let rows = session.client().query(COLUMNS, &[&table.schema, &table.name]).await;
    let rows = rows.map_err(|error| session.error(&error).into_step_error())?;
    Ok(rows
        .iter()
        .map(|row| Column {
            name: row.get(0),
            type_name: row.get(1),
            base: row.get(2),
            category: row.get(3),
            needed: row.get(4),
            writable: row.get(5),
            constrained: row.get(6),
        })
        .collect())
}

/// An expression that makes a value of a column's type; `None` for types of which nothing is known.
pub fn value(column: &Column) -> Option<String> {
    let made = match (column.category.as_str(), column.base.as_str()) {
        (_, "uuid") => "pg_catalog.gen_random_uuid()".to_owned(),
        (_, "json" | "jsonb") => "'{}'".to_owned(),
        (_, "bytea") => "'\\x00'".to_owned(),
        (_, "xml") => "'<a/>'".to_owned(),
        (_, "macaddr") => "'08:00:2b:01:02:03'".to_owned(),
        ("N", _) => "(1 + pg_catalog.floor(pg_catalog.random() * 30000))::integer".to_owned(),
        ("S", _) => "pg_catalog.md5(pg_catalog.random()::text)".to_owned(),
        ("B", _) => "(pg_catalog.random() < 0.5)".to_owned(),
        ("D", "date") => "(pg_catalog.now() - pg_catalog.random() * interval '1000 days')".to_owned(),
        ("D", "time" | "timetz") => "(pg_catalog.now()::time)".to_owned(),
        ("D", _) => "(pg_catalog.now() - pg_catalog.random() * interval '1000 days')".to_owned(),
        ("T", _) => "interval '1 hour'".to_owned(),
        ("I", _) => "'127.0.0.1'".to_owned(),
        ("E", _) => format!("(pg_catalog.enum_range(NULL::{}))[1]", column.type_name),
        ("A", _) => "'{}'".to_owned(),
        ("R", _) => "'empty'".to_owned(),
        ("V", _) => "B'0'".to_owned(),
        _ => return None,
    };
    Some(format!("({made})::{}", column.type_name))
}

/// An INSERT of one row: these columns as given, the others as far as they must be.
///
/// # Errors
/// The column for which there is no value, as a sentence.
pub fn insert(table: &Table, columns: &[Column], given: &[(&str, String)]) -> Result<String, String> {
    let mut names = Vec::new();
    let mut values = Vec::new();
    for column in columns {
        let value = match given.iter().find(|(name, _)| *name == column.name) {
            Some((_, value)) => value.clone(),
            None if column.needed => value(column).ok_or_else(|| {
                format!("no value is known for the column {} of type {}", column.name, column.type_name)
            })?,
            None => continue,
        };
        names.push(ident(&column.name).map_err(|error| error.message)?);
        values.push(value);
    }
    let name = name_of(table).map_err(|error| error.message)?;
    if names.is_empty() {
        return Ok(format!("INSERT INTO {name} DEFAULT VALUES"));
    }
    Ok(format!("INSERT INTO {name} ({}) VALUES ({})", names.join(", "), values.join(", ")))
}

/// The column that is changed to see whether a row can be changed: one that nothing else depends on, if there is one.
pub fn changeable<'a>(columns: &'a [Column], but: Option<&str>) -> Option<&'a Column> {
    let fits = |column: &&Column| column.writable && Some(column.name.as_str()) != but && value(column).is_some();
    let mut found: Vec<&Column> = columns.iter().filter(fits).collect();
    found.sort_by_key(|column| column.constrained);
    found.first().copied()
}

/// A table's name as SQL.
///
/// # Errors
/// If it holds a NUL byte.
pub fn name_of(table: &Table) -> Result<String, StepError> {
    Ok(format!("{}.{}", ident(&table.schema)?, ident(&table.name)?))
}

/// A literal of a type that the declaration names.
///
/// # Errors
/// If it holds a NUL byte.
pub fn typed(value: &str, type_name: &str) -> Result<String, StepError> {
    Ok(format!("{}::{type_name}", literal(value)?))
}

/// A context that belongs to no tenant: the nil UUID, zero, or a text.
pub fn context(type_name: &str) -> String {
    match type_name {
        "uuid" => "00000000-0000-0000-0000-000000000000",
        "text" | "varchar" | "name" | "citext" => "pgrunbook",
        name if name.starts_with("character") => "pgrunbook",
        _ => "0",
    }
    .to_owned()
}

/// An expression for a tenant that is not there yet.
pub fn tenant(type_name: &str) -> String {
    match type_name {
        "uuid" => "pg_catalog.gen_random_uuid()::text",
        "smallint" | "int2" => "(-1 - pg_catalog.floor(pg_catalog.random() * 30000))::text",
        "integer" | "int" | "int4" | "bigint" | "int8" | "numeric" => {
            "(-1 - pg_catalog.floor(pg_catalog.random() * 2000000000))::text"
        }
        _ => "'pgrunbook-' || pg_catalog.substr(pg_catalog.md5(pg_catalog.random()::text), 1, 12)",
    }
    .to_owned()
}
