//! A piece's rows as binary COPY, and the numbers that a table has given.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use pgrunbook_engine::Cancel;
use pgrunbook_postgres::copy::{HEADER, TRAILER};
use pgrunbook_postgres::rowhash::RowSum;
use rusqlite::types::ValueRef;
use tokio::sync::mpsc;

use super::catalog::Table;
use super::error::{BadValue, SqliteError};
use super::image::Image;
use super::kind::{described, excerpt};
use super::load::{LoadedTable, Plan};
use super::map::{ColumnMap, TableMap};
use super::open::quoted;
use super::piece::Piece;
use super::prove::{comes_back, no_replacement};

/// Bytes that a reader gathers before it hands them over.
const CHUNK: usize = 256 << 10;

/// Reads a piece and hands it over in chunks of binary COPY; `handed` counts its rows chunk by chunk. Blocking.
pub(super) fn read(
    plan: &Plan,
    image: &Image,
    piece: Piece,
    sender: &mpsc::Sender<Bytes>,
    handed: &AtomicU64,
    cancel: &Cancel,
) -> Result<LoadedTable, SqliteError> {
    let map = &plan.mapping.tables[piece.table];
    let table = &plan.catalog.tables[map.source];
    let columns: Vec<&ColumnMap> = map.copied().collect();
    // Built only when there is an error: it is asked for every field.
    let failed = |error| SqliteError::of(image.source(), format!("read table {}", table.name))(error);
    let connection = image.open()?;
    let mut statement =
        connection.prepare(&piece.select(table, columns.iter().map(|column| column.source))).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let count = u16::try_from(columns.len()).unwrap_or(u16::MAX).to_be_bytes();
    let utf16 = plan.catalog.encoding != "UTF-8";
    let mut respelled = vec![0_u64; columns.len()];
    let mut sum = RowSum::default();
    let mut counted = 0;
    let mut buffer = Vec::with_capacity(CHUNK + (CHUNK >> 2));
    buffer.extend_from_slice(HEADER);
    while let Some(row) = rows.next().map_err(failed)? {
        buffer.extend_from_slice(&count);
        let start = buffer.len();
        for (at, column) in columns.iter().enumerate() {
            let value = row.get_ref(at).map_err(failed)?;
            let field = buffer.len();
            let checked = if utf16 { no_replacement(value) } else { Ok(()) };
            let written = checked.and_then(|()| column.kind.forward(value, &mut buffer)).and_then(|()| {
                if column.kind.is_exact() || value == ValueRef::Null {
                    return Ok(true);
                }
                comes_back(column.kind, value, &buffer[field + 4..])
            });
            match written {
                Ok(same) => respelled[at] += u64::from(!same),
                Err(misfit) => {
                    return Err(SqliteError::Misfit(Box::new(BadValue {
                        table: table.name.clone(),
                        column: column.name.clone(),
                        key: key_of(table, &columns, row),
                        what: described(value),
                        why: misfit.to_string(),
                    })));
                }
            }
        }
        sum.add(&buffer[start..]);
        if buffer.len() >= CHUNK {
            let chunk = std::mem::replace(&mut buffer, Vec::with_capacity(CHUNK + (CHUNK >> 2)));
            if sender.blocking_send(chunk.into()).is_err() || cancel.is_stopping() {
                return Err(SqliteError::Stopped);
            }
            handed.fetch_add(sum.rows - counted, Ordering::Relaxed);
            counted = sum.rows;
        }
    }
    buffer.extend_from_slice(TRAILER);
    sender.blocking_send(buffer.into()).map_err(|_| SqliteError::Stopped)?;
    handed.fetch_add(sum.rows - counted, Ordering::Relaxed);
    let named = columns.iter().zip(respelled).filter(|(_, count)| *count > 0);
    let respelled = named.map(|(column, count)| (column.name.clone(), count)).collect();
    Ok(LoadedTable { name: map.name.clone(), sum, respelled, transactions: Vec::new() })
}

/// The row's key, as far as it travels.
fn key_of(table: &Table, columns: &[&ColumnMap], row: &rusqlite::Row<'_>) -> String {
    let parts: Vec<String> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| table.key.contains(&column.source))
        .map(|(at, column)| {
            let value = row.get_ref(at).map_or_else(|_| "?".to_owned(), excerpt);
            format!("{} = {value}", column.name)
        })
        .collect();
    if parts.is_empty() { "a row without a key".to_owned() } else { parts.join(", ") }
}

type Last = Option<(String, String, i64)>;

/// The identity column of a table and the last number that was given: the table's highest, or what AUTOINCREMENT noted.
pub(super) fn last_number(
    connection: &rusqlite::Connection,
    path: &Path,
    table: &Table,
    map: &TableMap,
) -> Result<Last, SqliteError> {
    let column = table.rowid_alias.and_then(|at| map.of_source(at));
    let Some(column) = column.filter(|column| matches!(column.kind, super::kind::Kind::Integer(_))) else {
        return Ok(None);
    };
    let sql = format!("SELECT max({}) FROM main.{}", quoted(&column.name), quoted(&table.name));
    let highest: Option<i64> =
        connection.query_row(&sql, [], |row| row.get(0)).map_err(SqliteError::of(path, "read a key"))?;
    let mut last = highest.unwrap_or(0);
    if table.autoincrement {
        let noted: Option<i64> = connection
            .query_row("SELECT max(seq) FROM sqlite_sequence WHERE name = ?1", [&table.name], |row| row.get(0))
            .map_err(SqliteError::of(path, "read sqlite_sequence"))?;
        last = last.max(noted.unwrap_or(0));
    }
    Ok(Some((map.name.clone(), column.name.clone(), last)))
}
