//! Rows by their keys, on both sides: what a sync or a proof needs that knows which rows changed.
//!
//! A key is known by the bytes that its columns have in a binary COPY. That is sound only where two keys that differ in the
//! file always differ in the target and the other way round ([`is_keyed`]): either side is asked with its own equality,
//! which may be coarser (a collation), and answers that are not byte for byte the key that was asked for are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;
use pgrunbook_postgres::copy::{HEADER, TRAILER};
use pgrunbook_postgres::{PgError, Session};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::diff::{self, Matcher, Seen, TableDiff};
use super::error::SqliteError;
use super::kind::Kind;
use super::open::quoted;
use super::prove::no_replacement;
use super::shape::{Carried, Shape};

/// Which rows of a table may differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// As [`key`] makes them.
    pub keys: BTreeSet<Vec<u8>>,
    /// Any row: all of the table must be looked at.
    pub whole: bool,
}

impl Touched {
    pub fn is_nothing(&self) -> bool {
        self.keys.is_empty() && !self.whole
    }

    /// Adds what another saw.
    pub fn merge(&mut self, other: &Self) {
        self.keys.extend(other.keys.iter().cloned());
        self.whole |= other.whole;
    }
}

/// Whether a table's rows can be told apart by a key that is the same on both sides.
pub fn is_keyed(table: &Carried) -> bool {
    let fits = |kind: Kind| matches!(kind, Kind::Integer(_) | Kind::Text | Kind::Bytea | Kind::Uuid | Kind::Date);
    !table.key.is_empty() && table.key.iter().all(|at| fits(table.columns[*at].kind))
}

/// The key of these values of the key's columns, in its order; nothing for one that cannot be in the target, or that nobody
/// could tell from another.
pub fn key<'a>(shape: &Shape, table: &Carried, values: impl Iterator<Item = ValueRef<'a>>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (at, value) in table.key.iter().zip(values) {
        if shape.utf16 {
            no_replacement(value).ok()?;
        }
        table.columns[*at].kind.forward(value, &mut bytes).ok()?;
    }
    Some(bytes)
}

/// The fields of a row in a binary COPY, each with its length.
fn fields(mut body: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, _) = body.split_first_chunk::<4>()?;
        let size = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let (field, rest) = body.split_at_checked(4 + size)?;
        body = rest;
        Some(field)
    })
}

/// The key of a row that is written as in a binary COPY.
pub fn key_of_row(table: &Carried, body: &[u8]) -> Vec<u8> {
    let all: Vec<&[u8]> = fields(body).collect();
    table.key.iter().filter_map(|at| all.get(*at)).flat_map(|field| field.iter().copied()).collect()
}

/// The keys of rows as a binary COPY takes them, one behind the other.
pub fn keys_of_rows(table: &Carried, mut rows: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut keys = BTreeSet::new();
    while let Some((_, body)) = rows.split_first_chunk::<2>() {
        let all: Vec<&[u8]> = fields(body).take(table.columns.len()).collect();
        keys.insert(table.key.iter().filter_map(|at| all.get(*at)).flat_map(|field| field.iter().copied()).collect());
        rows = body.get(all.iter().map(|field| field.len()).sum()..).unwrap_or_default();
    }
    keys
}

/// The values that the file has for a key's columns.
fn values(table: &Carried, key: &[u8]) -> Option<Vec<Value>> {
    let of = |(at, field): (&usize, &[u8])| {
        let is_null = field.starts_with(&(-1_i32).to_be_bytes());
        table.columns[*at].kind.inverse((!is_null).then_some(&field[4..])).ok()
    };
    let values: Vec<Value> = table.key.iter().zip(fields(key)).map_while(of).collect();
    (values.len() == table.key.len()).then_some(values)
}

/// Compares the rows of the file that have these keys with those that the target has for them. Blocking.
///
/// # Errors
/// [`SqliteError::Misfit`] for a value that does not fit; if the file cannot be read.
pub fn compare(
    connection: &Connection,
    path: &Path,
    shape: &Shape,
    table: &Carried,
    keys: &BTreeSet<Vec<u8>>,
    there: &[Seen],
) -> Result<TableDiff, SqliteError> {
    let failed = |error| SqliteError::of(path, format!("read table {} by its keys", table.name))(error);
    let terms: Vec<String> = table.key.iter().map(|at| format!("{} IS ?", quoted(&table.columns[*at].name))).collect();
    let sql = format!("{} WHERE {}", table.select(), terms.join(" AND "));
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let mut matcher = Matcher::new(shape, table, there);
    for wanted in keys {
        let Some(values) = values(table, wanted) else { continue };
        let mut rows = statement.query(params_from_iter(values)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let found: Result<Vec<ValueRef<'_>>, _> = table.key.iter().map(|at| row.get_ref(*at)).collect();
            let found = key(shape, table, found.map_err(failed)?.into_iter());
            // Another row, which is equal only to a collation; it is in here if it was touched. One whose key does not fit
            // is refused by name.
            if found.as_ref().is_none_or(|found| found == wanted) {
                matcher.row(path, row)?;
            }
        }
    }
    Ok(matcher.finish())
}

/// Reads the rows of the target that have these keys, sorted, in the transaction that the session is in.
///
/// # Errors
/// What the server says.
pub async fn target_rows(
    session: &Session,
    schema: &str,
    table: &Carried,
    keys: &BTreeSet<Vec<u8>>,
) -> Result<Vec<Seen>, PgError> {
    // NULL is equal to nothing there: keys with NULLs in the same columns are asked for together.
    let mut groups: BTreeMap<Vec<bool>, Vec<u8>> = BTreeMap::new();
    let count = u16::try_from(table.key.len()).unwrap_or(u16::MAX).to_be_bytes();
    for key in keys {
        let nulls = fields(key).map(|field| field.starts_with(&(-1_i32).to_be_bytes())).collect();
        let rows = groups.entry(nulls).or_default();
        rows.extend_from_slice(&count);
        rows.extend_from_slice(key);
    }
    let (place, mut found) = (table.place(schema), Vec::new());
    let names: Vec<String> = table.key.iter().map(|at| quoted(&table.columns[*at].name)).collect();
    let list: Vec<String> = table.columns.iter().map(|column| format!("t.{}", quoted(&column.name))).collect();
    for (nulls, rows) in groups {
        // Without its statistics the server would take some hundreds of keys for thousands, and read the whole table.
        session
            .execute(&format!(
                "DROP TABLE IF EXISTS pg_temp.pgrunbook_keys;
                 CREATE TEMP TABLE pgrunbook_keys ON COMMIT DROP AS SELECT {} FROM {place} WITH NO DATA",
                names.join(", ")
            ))
            .await?;
        copy_in(
            session,
            &format!("COPY pg_temp.pgrunbook_keys ({}) FROM STDIN (FORMAT binary)", names.join(", ")),
            &rows,
        )
        .await?;
        session.execute("ANALYZE pg_temp.pgrunbook_keys").await?;
        let terms: Vec<String> = names
            .iter()
            .zip(&nulls)
            .map(|(name, is_null)| if *is_null { format!("t.{name} IS NULL") } else { format!("t.{name} = k.{name}") })
            .collect();
        let sql = format!(
            "COPY (SELECT t.ctid, {} FROM pg_temp.pgrunbook_keys AS k JOIN {place} AS t ON {}) TO STDOUT (FORMAT binary)",
            list.join(", "),
            terms.join(" AND ")
        );
        let mut take = |body: &[u8], seen: Seen| {
            if keys.contains(&key_of_row(table, body)) {
                found.push(seen);
            }
        };
        diff::returned_each(session, table, &sql, &mut take).await?;
    }
    found.sort_unstable();
    // Of keys that only a collation holds for equal, each finds the other's rows too.
    found.dedup();
    Ok(found)
}

/// The keys of rows of the target, by where they lie, in the snapshot that the session holds.
///
/// # Errors
/// What the server says.
pub async fn keys_at(
    session: &Session,
    schema: &str,
    table: &Carried,
    rows: &[Seen],
) -> Result<BTreeSet<Vec<u8>>, PgError> {
    let mut keys = BTreeSet::new();
    for part in rows.chunks(diff::AT_ONCE) {
        let sql = format!(
            "COPY (SELECT ctid, {} FROM {} WHERE ctid = ANY ('{}'::pg_catalog.tid[])) TO STDOUT (FORMAT binary)",
            table.list(),
            table.place(schema),
            diff::tids(part)
        );
        let mut take = |body: &[u8], _| {
            keys.insert(key_of_row(table, body));
        };
        diff::returned_each(session, table, &sql, &mut take).await?;
    }
    Ok(keys)
}

/// Sends rows without their header and trailer.
///
/// # Errors
/// What the server says.
pub async fn copy_in(session: &Session, sql: &str, rows: &[u8]) -> Result<(), PgError> {
    let failed = |error: tokio_postgres::Error| session.error(&error);
    let mut sink = pin!(session.client().copy_in::<_, Bytes>(sql).await.map_err(failed)?);
    sink.send(Bytes::from_static(HEADER)).await.map_err(failed)?;
    for part in rows.chunks(256 << 10) {
        sink.send(Bytes::copy_from_slice(part)).await.map_err(failed)?;
    }
    sink.send(Bytes::from_static(TRAILER)).await.map_err(failed)?;
    sink.close().await.map_err(failed)
}
