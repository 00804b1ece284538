//! Carries the positions of sequences from one side to the other, while neither takes writes.
//!
//! `last_value` and `is_called` are what a sequence is (<https://www.postgresql.org/docs/current/functions-sequence.html>);
//! logical replication carries neither. Sequences are matched by name; what one side alone has stays as it is.

use std::collections::BTreeMap;

use pgrunbook_postgres::{PgError, Session, quote};
use serde::Serialize;

use super::state::{self, text};

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Position {
    pub last_value: i64,
    /// Whether `last_value` was handed out already.
    pub is_called: bool,
}

/// Where the sequences of a schema stand, by name.
///
/// # Errors
/// If one cannot be read.
pub async fn positions(session: &Session, schema: &str) -> Result<BTreeMap<String, Position>, PgError> {
    let names = session
        .simple(&format!(
            "SELECT c.relname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
             WHERE c.relkind = 'S' AND n.nspname = {} ORDER BY c.relname",
            text(schema)
        ))
        .await?;
    let names: Vec<String> = rows(names).filter_map(|row| row.into_iter().next().flatten()).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut each = Vec::new();
    for name in &names {
        each.push(format!("SELECT {} AS name, last_value, is_called FROM {}", text(name), qualified(schema, name)?));
    }
    let mut found = BTreeMap::new();
    for row in rows(session.simple(&each.join(" UNION ALL ")).await?) {
        let mut values = row.into_iter().map(Option::unwrap_or_default);
        let (name, last_value, is_called) = (values.next(), values.next(), values.next());
        let position = Position {
            last_value: last_value.unwrap_or_default().parse().unwrap_or_default(),
            is_called: is_called.as_deref() == Some("t"),
        };
        found.insert(name.unwrap_or_default(), position);
    }
    Ok(found)
}

/// Sets the sequences of a schema that it has in common with the other side; returns those that were set.
///
/// # Errors
/// If one cannot be set: a range that is narrower here refuses a value from there.
pub async fn set_positions(
    session: &Session,
    schema: &str,
    wanted: &BTreeMap<String, Position>,
) -> Result<BTreeMap<String, Position>, PgError> {
    let here = positions(session, schema).await?;
    let common: BTreeMap<String, Position> =
        wanted.iter().filter(|(name, _)| here.contains_key(*name)).map(|(name, at)| (name.clone(), *at)).collect();
    let mut calls = Vec::new();
    for (name, position) in &common {
        calls.push(format!(
            "pg_catalog.setval({}::pg_catalog.regclass, {}, {})",
            text(&qualified(schema, name)?),
            position.last_value,
            position.is_called
        ));
    }
    if !calls.is_empty() {
        state::write(session, &format!("SELECT {}", calls.join(", "))).await?;
    }
    Ok(common)
}

fn qualified(schema: &str, name: &str) -> Result<String, PgError> {
    let ident = |name: &str| quote::ident(name).map_err(|error| PgError::Client(error.to_string()));
    Ok(format!("{}.{}", ident(schema)?, ident(name)?))
}

fn rows(answers: Vec<pgrunbook_postgres::Answer>) -> impl Iterator<Item = Vec<Option<String>>> {
    answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default().into_iter()
}
