//! The tables behind a fence: those of the schema, and whatever hangs below them.

use pgrunbook_postgres::{PgError, Session};

use crate::topology::{ident, literal};

/// A table that can be written directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// `p`: a partitioned table, which holds no rows itself.
    pub partitioned: bool,
    pub owner: String,
    /// Whether the connected role may alter it.
    pub owned: bool,
    /// A parent that is not fenced leads rows into it, or changes them: statement triggers do not fire for that.
    pub led_from_outside: bool,
}

impl Table {
    /// As SQL names it.
    pub fn sql(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.name))
    }
}

/// What a schema holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// In the fixed order in which they are locked: schema and name, bytewise.
    pub tables: Vec<Table>,
    /// Foreign tables: their rows are elsewhere, and no lock holds them.
    pub foreign: Vec<String>,
}

/// Children may stand in other schemas; they are taken along. Tried on 15.
///
/// See <https://www.postgresql.org/docs/15/catalog-pg-inherits.html>.
fn sql(schema: &str, only: &[String]) -> String {
    let named = match only {
        [] => String::new(),
        only => {
            let names: Vec<String> = only.iter().map(|name| literal(name)).collect();
            format!("AND c.relname IN ({})", names.join(", "))
        }
    };
    format!(
        "WITH RECURSIVE picked AS (
             SELECT c.oid FROM pg_catalog.pg_class AS c
             WHERE c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = {schema})
               AND c.relkind IN ('r', 'p', 'f') {named}
             UNION
             SELECT i.inhrelid FROM picked AS p JOIN pg_catalog.pg_inherits AS i ON i.inhparent = p.oid
         ), above AS (
             SELECT p.oid, i.inhparent AS ancestor
             FROM picked AS p JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = p.oid
             UNION
             SELECT a.oid, i.inhparent FROM above AS a JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = a.ancestor
         )
         SELECT c.oid::pg_catalog.int8, n.nspname, c.relname, c.relkind::text,
                pg_catalog.pg_get_userbyid(c.relowner), pg_catalog.pg_has_role(c.relowner, 'USAGE'),
                EXISTS (SELECT FROM above AS a WHERE a.oid = c.oid AND a.ancestor NOT IN (SELECT p.oid FROM picked AS p))
         FROM picked AS p JOIN pg_catalog.pg_class AS c ON c.oid = p.oid
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'f')
         ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\"",
        schema = literal(schema)
    )
}

/// Lists the tables of a schema, or those of `only`.
///
/// # Errors
/// If the catalogs cannot be read.
pub(super) async fn tables(session: &Session, schema: &str, only: &[String]) -> Result<Found, PgError> {
    let answers = session.simple(&sql(schema, only)).await?;
    let mut found = Found::default();
    for row in answers.last().map(|answer| answer.rows.as_slice()).unwrap_or_default() {
        let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let is = |at: usize| text(at) == "t";
        let table = Table {
            oid: text(0).parse().unwrap_or_default(),
            schema: text(1),
            name: text(2),
            partitioned: text(3) == "p",
            owner: text(4),
            owned: is(5),
            led_from_outside: is(6),
        };
        if text(3) == "f" { found.foreign.push(table.sql()) } else { found.tables.push(table) }
    }
    Ok(found)
}
