//! Brings a table whose ranges are of an earlier snapshot to a later one, exactly.
//!
//! A version of a row never moves within its file. So what the later snapshot sees, and no transaction has written since the
//! earlier one, is where it was: it came with its range, or comes with one that was missing. The rest is read anew here.

use pgrunbook_postgres::relation::{Shape, Travels};
use pgrunbook_postgres::{PgError, Session};

use super::Pair;
use super::error::BaseCopyError;
use super::pipe::{Broken, pipe};
use super::record::{Plan, locked_sql, settled_sql};
use super::session::{ident, searching};
use super::stage::Stage;
use super::work::{Shared, TableWork};

/// Whether the ranges that are in can be kept.
pub(super) fn is_possible(pair: &Pair, plan: &Plan, filenode: i64) -> bool {
    let is_binary = |name: &String| {
        pair.source.columns.iter().any(|column| column.name == *name && column.travels == Travels::Binary)
    };
    let has_key = pair.source.key.as_ref().is_some_and(|key| key.columns.iter().all(is_binary));
    plan.filenode == filenode && !plan.done.is_empty() && has_key
}

/// Rows that were there before any transaction was under way that the snapshot does not see.
///
/// `xmin` of a row may be a subtransaction, of which a snapshot's list says nothing; all numbers below its `xmin` are over.
/// Rows older than 2^31 transactions seem to be of the future: they are read again, which does no harm.
pub(super) fn unchanged(snapshot: &str) -> String {
    format!("pg_catalog.age(xmin) > pg_catalog.age('{}'::pg_catalog.xid)", horizon(snapshot))
}

fn changed(snapshot: &str) -> String {
    format!("pg_catalog.age(xmin) <= pg_catalog.age('{}'::pg_catalog.xid)", horizon(snapshot))
}

/// The lower 32 bits of a snapshot's `xmin`: what a row holds of a transaction's number.
fn horizon(snapshot: &str) -> u32 {
    snapshot.split(':').next().and_then(|xmin| xmin.parse::<u64>().ok()).unwrap_or(0) as u32
}

/// Replaces the rows that changed, and takes away those that are gone, in one transaction.
pub(super) async fn settle(
    shared: &Shared,
    work: &TableWork,
    source: &Session,
    target: &Session,
) -> Result<(), BaseCopyError> {
    let (from, table) = (work.pair.source.sql(), work.pair.target.sql());
    let failed = |error: PgError| BaseCopyError::Table { table: table.clone(), error };
    let Some(key) = &work.pair.source.key else { return Ok(()) };
    let stage = Stage::new(&work.pair);
    let keys = key.columns.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ");
    source.execute(&searching(&work.pair.source.schema)).await.map_err(failed)?;
    // A predecessor whose client is gone may still be at it: it is waited for, and what it did is seen.
    let make = format!(
        "BEGIN; {}; {}; {}; CREATE TEMP TABLE pgrunbook_key ON COMMIT DROP AS SELECT {keys} FROM ONLY {table} WITH NO DATA",
        locked_sql(&shared.schema, &work.pair.target.name),
        searching(&work.pair.target.schema).replace("SET ", "SET LOCAL "),
        stage.make()
    );
    target.execute(&make).await.map_err(failed)?;
    let select = pgrunbook_postgres::relation::select_list(&work.pair.source.columns);
    let read =
        format!("COPY (SELECT {select} FROM ONLY {from} WHERE {}) TO STDOUT (FORMAT binary)", changed(&work.plan.base));
    super::work::through(work, (source, &read), (target, &stage.fill()), |_, _| {}).await?;
    let read = format!("COPY (SELECT {keys} FROM ONLY {from}) TO STDOUT (FORMAT binary)");
    let write = format!("COPY pg_temp.pgrunbook_key ({keys}) FROM STDIN (FORMAT binary)");
    // Hashed for nothing, so as plain bytes.
    let shapes = vec![Shape::Plain; key.columns.len()];
    let piped = pipe((source, &read), (target, &write), &shapes, |_, _| {}).await;
    piped.map_err(|broken| match broken {
        Broken::Source(error) => BaseCopyError::Table { table: from.clone(), error },
        Broken::Target(error) => failed(error),
        Broken::Format(error) => BaseCopyError::Format { table: from.clone(), error },
    })?;
    let same = |other: &str| {
        let pair = |name: &String| format!("{other}.{0} = t.{0}", ident(name));
        key.columns.iter().map(pair).collect::<Vec<_>>().join(" AND ")
    };
    let finish = format!(
        "ANALYZE pg_temp.pgrunbook_stage; ANALYZE pg_temp.pgrunbook_key;
         DELETE FROM ONLY {table} AS t WHERE NOT EXISTS (SELECT FROM pg_temp.pgrunbook_key AS k WHERE {});
         DELETE FROM ONLY {table} AS t USING pg_temp.pgrunbook_stage AS s WHERE {};
         {}; {}; COMMIT",
        same("k"),
        same("s"),
        stage.empty_into(&table),
        settled_sql(&shared.schema, &work.pair.target.name, &shared.snapshot, shared.after),
    );
    target.execute(&finish).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn horizon_is_what_a_row_can_hold() {
        assert_eq!(horizon("731:735:732"), 731);
        assert_eq!(horizon(&format!("{}:{}:", (3u64 << 32) + 9, (3u64 << 32) + 9)), 9);
    }
}
