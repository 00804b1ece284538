//! The fence of a file without a run: what a person sees of it, and lets go when no run can go on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgrunbook_engine::StepError;
use rusqlite::Connection;

use super::bring::PATIENCE;
use super::catalog::collect;
use super::error::SqliteError;
use super::open::{open_live, open_write, quoted};
use super::seal;
use super::sync::blocking;
use crate::workplace::{Place, Workplace};

/// Triggers of a sealed table: for insert, update and delete.
const EACH: usize = 3;

const NOTHING: &str = "Nothing was changed.";

/// A fence that stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFence {
    /// The crossing that set it.
    pub id: String,
    /// What refused writers read; `{table}` stands for the table's name.
    pub message: String,
    /// The tables that it keeps writers out of.
    pub tables: Vec<String>,
    /// Tables of the file that take a write all the same.
    pub open: Vec<String>,
}

/// The path of a target that is a SQLite file; `None` for one that is not.
///
/// # Errors
/// If the project has no such target, or it has no value here.
pub fn file_of(workplace: &Workplace, target: &str) -> Result<Option<PathBuf>, StepError> {
    match workplace.place(target)? {
        Place::Sqlite { path } => Ok(Some(workplace.root().join(path))),
        _ => Ok(None),
    }
}

/// The fence that stands in a file, if one does. It only reads.
///
/// # Errors
/// If the file cannot be read.
pub async fn file_fence(path: &Path) -> Result<Option<FileFence>, StepError> {
    let path = path.to_owned();
    let found = blocking(move || held(&open_live(&path)?, &path));
    found.await.map_err(|error| error.told(NOTHING))
}

/// Lets writers go on in a file, under its write lock. Returns what stood there; `None` if this fence does not stand.
///
/// Who set it stays noted in the file: a crossing that was cut short is settled by whether it ever sealed the file, and a file that a
/// person opened was not opened by the crossing.
///
/// # Errors
/// If the file cannot be written to, or somebody holds its lock.
pub async fn drop_file_fence(path: &Path, id: &str) -> Result<Option<FileFence>, StepError> {
    let (path, id) = (path.to_owned(), id.to_owned());
    let dropped = blocking(move || {
        let connection = open_write(&path)?;
        seal::begin(&connection, &path, PATIENCE)?;
        let Some(held) = held(&connection, &path)?.filter(|held| held.id == id) else { return Ok(None) };
        for (trigger, _) in triggers(&connection, &path)? {
            let dropped = connection.execute_batch(&format!("DROP TRIGGER {}", quoted(&trigger)));
            dropped.map_err(SqliteError::of(&path, "lift its fence"))?;
        }
        seal::commit(&connection, &path, PATIENCE)?;
        Ok(Some(held))
    });
    dropped.await.map_err(|error| error.told(NOTHING))
}

/// Blocking.
fn held(connection: &Connection, path: &Path) -> Result<Option<FileFence>, SqliteError> {
    if seal::standing(connection, path)?.is_none() {
        return Ok(None);
    }
    let sql = "SELECT id, message, on_ FROM _pgrunbook_fence";
    let rows: Vec<(String, String, bool)> =
        collect(connection, path, sql, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, table) in triggers(connection, path)? {
        *counts.entry(table).or_default() += 1;
    }
    let Some((id, message, is_on)) = rows.into_iter().next().filter(|_| !counts.is_empty()) else { return Ok(None) };
    let refuses = |table: &String| is_on && counts.get(table).is_some_and(|count| *count >= EACH);
    let (tables, open) = seal::tables(connection, path)?.into_iter().partition(refuses);
    Ok(Some(FileFence { id, message, tables, open }))
}

/// The fence's triggers and their tables.
fn triggers(connection: &Connection, path: &Path) -> Result<Vec<(String, String)>, SqliteError> {
    let sql = "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '\\_pgrunbook\\_fence\\_%' ESCAPE '\\'";
    collect(connection, path, sql, |row| Ok((row.get(0)?, row.get(1)?)))
}
