//! Ships a difference to the target, in one transaction that asserts its counts.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::rowhash::RowSum;
use pgrunbook_postgres::{PgError, Session};

use super::diff::{self, AT_ONCE, Diff, Seen, same, tids};
use super::keyed::copy_in;
use super::shape::{Carried, Shape};
use crate::transfer::state::{self, text};

/// How many rows the file has now, for those who ask how far a transfer is.
pub enum Size {
    Is(u64),
    /// By so many, and shrank by so many.
    Grew(u64, u64),
}

/// What a difference was in the target.
pub struct Shipped {
    /// Where the new rows lie, by table.
    pub placed: Vec<Vec<Seen>>,
    /// Over the new rows, and over those that are gone, by table.
    pub sums: Vec<(RowSum, RowSum)>,
}

/// Ships a difference in one transaction, in which each statement must change what it was given. `and`: what is recorded
/// with it.
///
/// # Errors
/// If the target is not as it is known; then the transaction is to be taken back.
pub async fn ship(
    session: &Session,
    schema: &str,
    shape: &Shape,
    stream: &str,
    diff: &Diff,
    size: &Size,
    and: &str,
) -> Result<Shipped, StepError> {
    let run = async |sql: &str| session.execute(sql).await.map_err(PgError::into_step_error);
    // The tag comes first: whoever reads the other way passes over what came from here. Keys and triggers were judged by
    // the file, and the target's guard lets nobody else in.
    run(&format!(
        "BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL client_encoding = 'UTF8';
         SELECT pg_catalog.pg_logical_emit_message(true, 'pgrunbook', {})",
        text(&format!("applied:{stream}"))
    ))
    .await?;
    let wrong = |table: &Carried, what: &str, asked: usize, done: usize| {
        StepError::failed(
            "conflict",
            format!("table {} of {schema}: {asked} rows were to be {what}, and {done} were, or others. Nothing was shipped.", table.name),
        )
        .help("somebody else writes to the target: `pgrunbook fence status --target TARGET` shows whether it is fenced")
    };
    let mut sums = Vec::new();
    for (table, diff) in shape.tables.iter().zip(&diff.tables) {
        let mut gone = RowSum::default();
        for part in diff.gone.chunks(AT_ONCE) {
            let sql = format!(
                "COPY (DELETE FROM {} WHERE ctid = ANY ('{}'::pg_catalog.tid[]) RETURNING ctid, {}) TO STDOUT (FORMAT binary)",
                table.place(schema),
                tids(part),
                table.list()
            );
            let (deleted, sum) = diff::returned(session, table, &sql).await.map_err(PgError::into_step_error)?;
            let hashes = |rows: &[Seen]| rows.iter().map(|seen| seen.hash).collect::<Vec<_>>();
            if !same(&hashes(&deleted), &hashes(part)) {
                return Err(wrong(table, "deleted", part.len(), deleted.len()));
            }
            gone.merge(sum);
        }
        sums.push((RowSum::default(), gone));
    }
    let mut placed = Vec::new();
    for (number, (table, diff)) in shape.tables.iter().zip(&diff.tables).enumerate() {
        if diff.new.is_empty() {
            placed.push(Vec::new());
            continue;
        }
        let (stage, place, list) = (format!("pg_temp.pgrunbook_new_{number}"), table.place(schema), table.list());
        run(&format!(
            "CREATE TEMP TABLE pgrunbook_new_{number} ON COMMIT DROP AS SELECT {list} FROM {place} WITH NO DATA"
        ))
        .await?;
        copy_in(session, &format!("COPY {stage} ({list}) FROM STDIN (FORMAT binary)"), &diff.bytes)
            .await
            .map_err(PgError::into_step_error)?;
        let sql = format!(
            "COPY (INSERT INTO {place} ({list}) OVERRIDING SYSTEM VALUE SELECT {list} FROM {stage} RETURNING ctid, {list})
             TO STDOUT (FORMAT binary)"
        );
        let (rows, sum) = diff::returned(session, table, &sql).await.map_err(PgError::into_step_error)?;
        sums[number].0 = sum;
        let hashes: Vec<u128> = rows.iter().map(|seen| seen.hash).collect();
        if !same(&hashes, &diff.new) {
            return Err(wrong(table, "inserted", diff.new.len(), rows.len()));
        }
        placed.push(rows);
    }
    let (gone, new) = diff.changes();
    let rows = match size {
        Size::Is(rows) => rows.to_string(),
        Size::Grew(new, gone) => format!("rows + {new} - {gone}"),
    };
    let ends = format!(
        "UPDATE pgrunbook.transfer_file SET syncs = syncs + 1, changes = changes + {}, rows = {rows},
             synced_at = pg_catalog.clock_timestamp() WHERE schema = {}{and}; COMMIT",
        gone + new,
        text(schema)
    );
    state::write(session, &ends).await.map_err(PgError::into_step_error)?;
    Ok(Shipped { placed, sums })
}
