//! Rows for the empty tables of a throwaway database: a denial counts only where there is something to be kept from.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{PgError, Session, quote};

use crate::isolation::sample;
use crate::topology::{Table, Topology};

/// What became of the empty tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filled {
    /// Tables that got a row.
    pub rows: usize,
    /// Tables for which none could be made, and why: what is tried on them is inconclusive.
    pub empty: Vec<(String, String)>,
}

const TABLES: &str = "
SELECT n.nspname, c.relname
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1, 2";

/// Puts a row into every empty table of the declared schemas, with values made from the types of its columns. References and
/// triggers are out of force meanwhile, so only ever on a throwaway server, as its superuser.
///
/// # Errors
/// If the server cannot be asked.
pub async fn fill(session: &Session, topology: &Topology) -> Result<Filled, StepError> {
    let failed = PgError::into_step_error;
    session.execute("SET session_replication_role = replica; SET row_security = off").await.map_err(failed)?;
    let mut filled = Filled::default();
    let answers = session.simple(TABLES).await.map_err(failed)?;
    for row in answers.iter().flat_map(|answer| &answer.rows) {
        let [Some(schema), Some(name)] = row.as_slice() else { continue };
        if !topology.schemas.contains_key(schema) {
            continue;
        }
        let table = Table { schema: schema.clone(), name: name.clone() };
        let shown = [schema, name].map(|name| quote::ident(name).unwrap_or_default()).join(".");
        if session.value(&format!("SELECT EXISTS (SELECT FROM {shown})")).await.map_err(failed)? == "t" {
            continue;
        }
        match one_row(session, &table, &shown).await? {
            Ok(()) => filled.rows += 1,
            Err(why) => filled.empty.push((table.to_string(), why)),
        }
    }
    session.execute("RESET session_replication_role; RESET row_security").await.map_err(failed)?;
    Ok(filled)
}

/// Several tries, since a value made by chance may meet a check.
async fn one_row(session: &Session, table: &Table, shown: &str) -> Result<Result<(), String>, StepError> {
    let columns = sample::columns(session, table).await?;
    let insert = match sample::insert(table, &columns, &[]) {
        Ok(insert) => insert,
        Err(why) => return Ok(Err(why)),
    };
    match session.execute(&insert).await {
        Ok(()) => return Ok(Ok(())),
        // 23514: a value made by chance meets a check. The table is a throwaway one, and what its rows may hold is not
        // what is tried.
        Err(PgError::Server(error)) if error.sqlstate == "23514" => {}
        Err(PgError::Server(error)) => return Ok(Err(error.message.clone())),
        Err(lost) => return Err(lost.into_step_error()),
    }
    drop_checks(session, table, shown).await?;
    match session.execute(&insert).await {
        Ok(()) => Ok(Ok(())),
        Err(PgError::Server(error)) => Ok(Err(error.message.clone())),
        Err(lost) => Err(lost.into_step_error()),
    }
}

async fn drop_checks(session: &Session, table: &Table, shown: &str) -> Result<(), StepError> {
    let literal = |text: &str| quote::literal(text).unwrap_or_else(|_| "NULL".to_owned());
    let checks = format!(
        "SELECT k.conname FROM pg_catalog.pg_constraint AS k
         JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE k.contype = 'c' AND n.nspname = {} AND c.relname = {}",
        literal(&table.schema),
        literal(&table.name)
    );
    let answers = session.simple(&checks).await.map_err(PgError::into_step_error)?;
    for name in answers.iter().flat_map(|answer| &answer.rows).filter_map(|row| row.first()?.as_deref()) {
        let name = quote::ident(name).unwrap_or_default();
        let drop = format!("ALTER TABLE {shown} DROP CONSTRAINT IF EXISTS {name}");
        session.execute(&drop).await.map_err(PgError::into_step_error)?;
    }
    Ok(())
}
