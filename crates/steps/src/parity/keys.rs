//! Given rows only, by their keys: what a freeze has time for.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::BufMut;
use futures_util::TryStreamExt;
use pgrunbook_postgres::Session;
use pgrunbook_postgres::rowhash::RowSum;
use tokio_postgres::types::{FromSql, Type};

use super::compare::{TableParity, Totals, Unlike, in_words};
use super::error::ParityError;
use super::pair::{Column, Pair, Which, fields, ident};
use super::postgres::Raw;
use super::side::Side;

/// Keys in one statement: arrays of this size are sent at once, and each row is found by the key's index.
pub const AT_ONCE: usize = 5_000;

/// Keys of one table: of each its fields with their lengths, as binary COPY writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(BTreeSet<Vec<u8>>);

impl Keys {
    pub fn push(&mut self, key: &[u8]) {
        if !self.0.contains(key) {
            self.0.insert(key.to_vec());
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.0.contains(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }
}

impl FromIterator<Vec<u8>> for Keys {
    fn from_iter<T: IntoIterator<Item = Vec<u8>>>(keys: T) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// Compares the rows of these keys in both sides' present snapshots. A key that neither has is the same.
pub(super) async fn compare(
    sides: &[Side; 2],
    pair: &Arc<Pair>,
    keys: &Keys,
    shown: usize,
) -> Result<TableParity, ParityError> {
    let mut found = TableParity {
        name: pair.name.clone(),
        key: pair.columns[..pair.key_len].iter().map(|column| column.name.clone()).collect(),
        sums: [RowSum::default(); 2],
        skipped: [0; 2],
        totals: Totals::default(),
        listed: Vec::new(),
    };
    let all: Vec<&[u8]> = keys.iter().collect();
    let mut spelled = [Vec::new(), Vec::new()];
    for some in all.chunks(AT_ONCE) {
        let some: Keys = some.iter().map(|key| key.to_vec()).collect();
        let (a, b) = tokio::try_join!(sides[0].by_keys(pair, &some), sides[1].by_keys(pair, &some))?;
        for key in some.iter() {
            let [left, right] = &mut spelled;
            let rows = [a.get(key).map(|row| pair.common(row, left)), b.get(key).map(|row| pair.common(row, right))];
            for (sum, row) in found.sums.iter_mut().zip(rows) {
                row.into_iter().for_each(|row| sum.add(row));
            }
            let order = match rows {
                [a, b] if a == b => continue,
                [Some(_), None] => Ordering::Less,
                [None, _] => Ordering::Greater,
                [Some(_), Some(_)] => Ordering::Equal,
            };
            found.totals.count(order);
            if found.listed.len() < shown {
                let rows = rows.map(|row| row.unwrap_or_default().to_vec());
                let one = Unlike { key: key.to_vec(), order, rows };
                found.listed.push(in_words(sides, pair, one).await?);
            }
        }
    }
    Ok(found)
}

/// The rows of some keys of a PostgreSQL table, by key.
///
/// `from` stands behind FROM. The lateral subquery is kept one by OFFSET 0: with `= ANY` the planner reads the whole table
/// (0.32 s for 5,000 keys of a million, where this takes less than half).
pub(super) async fn read_keys(
    session: &Session,
    label: &str,
    which: Which,
    pair: &Pair,
    from: &str,
    keys: &Keys,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ParityError> {
    let failed = |error: tokio_postgres::Error| ParityError::server(label)(session.error(&error));
    let columns = &pair.columns[..pair.key_len];
    let side = which.of(&pair.sides);
    let type_of = |column: &Column| {
        side.columns.iter().find(|one| one.name == column.name).map_or("text", |one| one.type_name.as_str()).to_owned()
    };
    let (mut arrays, mut names, mut equal) = (Vec::new(), Vec::new(), Vec::new());
    for (at, column) in columns.iter().enumerate() {
        let place = at + 1;
        arrays.push(format!("${place}"));
        names.push(format!("pgrunbook_{place}"));
        // A key that is read as text is found by its own type: that is what the index is of.
        let cast = if column.as_text { format!("::{}", type_of(column)) } else { String::new() };
        equal.push(format!("pgrunbook_row.{} = pgrunbook_key.pgrunbook_{place}{cast}", ident(&column.name)));
    }
    // Without an index on it each key would read the whole table.
    let offset = if side.key.iter().eq(columns.iter().map(|column| &column.name)) { "OFFSET 0" } else { "" };
    let sql = format!(
        "SELECT pgrunbook_found.* FROM ROWS FROM (pg_catalog.unnest({})) AS pgrunbook_key({}) CROSS JOIN LATERAL (\
         SELECT {} FROM {from} AS pgrunbook_row WHERE {} {offset}) AS pgrunbook_found",
        arrays.join("), pg_catalog.unnest("),
        names.join(", "),
        pair.select(),
        equal.join(" AND "),
    );
    let mut types = Vec::new();
    let mut values = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let oid = column.oid.unwrap_or(super::pair::TEXT);
        let element = Type::from_oid(oid).ok_or_else(|| key_type(pair, column))?;
        types.push(array_type(&element).ok_or_else(|| key_type(pair, column))?);
        values.push(array(oid, keys, at));
    }
    let raw: Vec<Raw<'_>> = values.iter().map(|value| Raw(value)).collect();
    let statement = session.client().prepare_typed(&sql, &types).await.map_err(failed)?;
    let rows = session
        .client()
        .query_raw(&statement, raw.iter().map(|value| value as &(dyn tokio_postgres::types::ToSql + Sync)))
        .await;
    let rows = rows.map_err(failed)?;
    futures_util::pin_mut!(rows);
    let mut found = BTreeMap::new();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let mut bytes = Vec::new();
        for at in 0..pair.columns.len() {
            match row.try_get::<_, Option<Bytes<'_>>>(at).map_err(failed)? {
                None => bytes.put_i32(-1),
                Some(Bytes(value)) => {
                    bytes.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                    bytes.extend_from_slice(value);
                }
            }
        }
        found.insert(bytes[..pair.key_end(&bytes)].to_vec(), bytes);
    }
    Ok(found)
}

fn key_type(pair: &Pair, column: &Column) -> ParityError {
    ParityError::Type {
        table: pair.name.clone(),
        column: column.name.clone(),
        type_name: format!("{}, by which rows are not looked for", column.type_name),
    }
}

/// The array type of an element's type, as the driver knows it.
fn array_type(element: &Type) -> Option<Type> {
    use tokio_postgres::types::Kind;
    // Built-in types have OIDs below this one.
    (16..10_000).filter_map(Type::from_oid).find(|one| matches!(one.kind(), Kind::Array(of) if of == element))
}

/// One field of all keys as an array in binary form (`array_send`).
fn array(oid: u32, keys: &Keys, field: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_i32(1);
    bytes.put_i32(0);
    bytes.put_u32(oid);
    bytes.put_i32(i32::try_from(keys.len()).unwrap_or(i32::MAX));
    bytes.put_i32(1);
    for key in keys.iter() {
        match fields(key).get(field).copied().flatten() {
            None => bytes.put_i32(-1),
            Some(value) => {
                bytes.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                bytes.extend_from_slice(value);
            }
        }
    }
    bytes
}

/// A value in its binary form, whatever its type.
struct Bytes<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Bytes<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
