//! Tables cut into ranges of their rowid, and threads that work on them.

use std::collections::VecDeque;
use std::ops::Deref;
use std::path::Path;
use std::sync::Mutex;

use rusqlite::Connection;

use super::catalog::{Table, select};
use super::error::SqliteError;
use super::open::quoted;

/// A range of a table's rows; without bounds the whole table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Position in the list of tables.
    pub table: usize,
    /// Rowids greater than this.
    pub after: Option<i64>,
    /// Rowids up to this.
    pub up_to: Option<i64>,
}

impl Piece {
    /// The SELECT of its rows.
    pub fn select(&self, table: &Table, columns: impl Iterator<Item = usize>) -> String {
        let rowid = table.rowid.unwrap_or_default();
        let condition = match (self.after, self.up_to) {
            (None, None) => String::new(),
            (Some(after), None) => format!(" WHERE {rowid} > {after}"),
            (None, Some(up_to)) => format!(" WHERE {rowid} <= {up_to}"),
            (Some(after), Some(up_to)) => format!(" WHERE {rowid} > {after} AND {rowid} <= {up_to}"),
        };
        select(table, columns, &condition)
    }
}

/// Cuts a table into at most so many ranges of equal width, open at both ends: no rowid is between them.
///
/// A table without a rowid to ask for stays whole.
///
/// # Errors
/// If the file cannot be read.
pub fn cut(
    connection: &Connection,
    path: &Path,
    table: &Table,
    number: usize,
    pieces: u32,
) -> Result<Vec<Piece>, SqliteError> {
    let whole = vec![Piece { table: number, after: None, up_to: None }];
    let Some(rowid) = table.rowid.filter(|_| pieces > 1) else { return Ok(whole) };
    let sql = format!(
        "SELECT (SELECT min({rowid}) FROM main.{name}), (SELECT max({rowid}) FROM main.{name})",
        name = quoted(&table.name)
    );
    let ends: (Option<i64>, Option<i64>) = connection
        .query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(SqliteError::of(path, format!("read table {}", table.name)))?;
    let (Some(low), Some(high)) = ends else { return Ok(whole) };
    let (low, width) = (i128::from(low), i128::from(high) - i128::from(low) + 1);
    let bound = |at: u32| i64::try_from(low + width * i128::from(at) / i128::from(pieces) - 1).ok();
    let mut bounds: Vec<i64> = (1..pieces).filter_map(bound).collect();
    bounds.dedup();
    let mut cut = Vec::with_capacity(bounds.len() + 1);
    let mut after = None;
    for bound in bounds {
        cut.push(Piece { table: number, after, up_to: Some(bound) });
        after = Some(bound);
    }
    cut.push(Piece { table: number, after, up_to: None });
    Ok(cut)
}

/// Works on all jobs (pieces, and what else is to be read) in several threads, each with a connection of its own; they are
/// begun in their order, and the first error ends them all.
///
/// # Errors
/// The first error of opening or working.
pub fn work<J: Send, T: Send, C: Deref<Target = Connection>>(
    jobs: Vec<J>,
    threads: usize,
    open: impl Fn() -> Result<C, SqliteError> + Sync,
    work: impl Fn(&Connection, J) -> Result<T, SqliteError> + Sync,
) -> Result<Vec<T>, SqliteError> {
    let threads = threads.clamp(1, jobs.len().max(1));
    let queue = Mutex::new(VecDeque::from(jobs));
    let next = || queue.lock().ok().and_then(|mut queue| queue.pop_front());
    let stop = || {
        if let Ok(mut queue) = queue.lock() {
            queue.clear();
        }
    };
    let one = || -> Result<Vec<T>, SqliteError> {
        let connection = open()?;
        let mut done = Vec::new();
        while let Some(job) = next() {
            match work(&connection, job) {
                Ok(result) => done.push(result),
                Err(error) => {
                    stop();
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let mut all = Vec::new();
        for handle in handles {
            all.extend(handle.join().expect("nothing in a reader panics")?);
        }
        Ok(all)
    })
}
