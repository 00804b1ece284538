//! Makes the rows that differ in B what they are in A: just those rows, in one transaction, with each count asserted.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::SinkExt;
use pgrunbook_postgres::copy::{HEADER, TRAILER};
use pgrunbook_postgres::{ConnectOptions, Session};

use super::compare::{Ask, Parity, Place, TableParity, What};
use super::error::ParityError;
use super::keys::{self, Keys};
use super::pair::{Pair, Which, ident};
use super::side::Side;

/// Rows that one repair writes at most: more is a copy, and no repair.
pub const ROWS: usize = 10_000;

/// What a repair would do in one table of B.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub table: String,
    pub insert: usize,
    pub update: usize,
    pub delete: usize,
}

impl std::fmt::Display for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: insert {}, update {}, delete {}", self.table, self.insert, self.update, self.delete)
    }
}

/// What was done, and what the keys hold afterwards.
#[derive(Debug, Clone)]
pub struct Repaired {
    pub planned: Vec<Planned>,
    /// No trigger fired, and no foreign key was checked.
    pub as_replica: bool,
    /// The repaired keys, compared again.
    pub after: Vec<TableParity>,
}

impl Repaired {
    /// Whether the repaired rows are now the same.
    pub fn holds(&self) -> bool {
        self.after.iter().all(TableParity::holds)
    }
}

/// Whether the rows of a side can be repaired: those of a database can. Where it is, and its schema.
///
/// # Errors
/// [`ParityError::IntoFile`] of a file.
pub fn can_repair(b: &Place) -> Result<(&ConnectOptions, &str), ParityError> {
    match b {
        Place::Postgres { options, schema } => Ok((options.as_ref(), schema.as_str())),
        Place::Sqlite { path, .. } => Err(ParityError::IntoFile(path.display().to_string())),
    }
}

/// What a repair of these differences would do.
///
/// # Errors
/// [`ParityError::Repair`] where it cannot be done row by row.
pub fn plan(parity: &Parity) -> Result<Vec<Planned>, ParityError> {
    let refuse = |why: String| Err(ParityError::Repair(why));
    if let Some(finding) = parity.findings.iter().find(|finding| finding.is_difference()) {
        return refuse(format!("rows cannot be repaired where tables differ: {finding}"));
    }
    let mut planned = Vec::new();
    for table in parity.tables.iter().filter(|table| !table.holds()) {
        if table.key.is_empty() {
            return refuse(format!("table {} has no key by which its rows could be repaired", table.name));
        }
        if table.totals.all() != table.listed.len() as u64 {
            return refuse(format!(
                "{} rows of table {} differ, more than the {ROWS} that are repaired one by one",
                table.totals.all(),
                table.name
            ));
        }
        let count = |is: fn(&What) -> bool| table.listed.iter().filter(|one| is(&one.what)).count();
        planned.push(Planned {
            table: table.name.clone(),
            insert: count(|what| *what == What::MissingInB),
            update: count(|what| matches!(what, What::Differs(_))),
            delete: count(|what| *what == What::MissingInA),
        });
    }
    Ok(planned)
}

/// Does it. B must be a PostgreSQL schema ([`can_repair`]). The rows are read from A anew, so that what is written is what A has now.
///
/// # Errors
/// If a row count is not the planned one, or a side says no: nothing was changed then.
pub async fn repair(places: [&Place; 2], parity: &Parity, ask: &Ask<'_>) -> Result<Repaired, ParityError> {
    let (options, schema) = can_repair(places[1])?;
    let planned = plan(parity)?;
    let source = Sides::open(places, ask).await?;
    let label = source.sides[1].label().to_owned();
    let failed = ParityError::server(&label);
    let session = Session::connect(options, ask.application_name).await.map_err(failed)?;
    session
        .execute(&format!("BEGIN; SET LOCAL row_security = off; SET LOCAL search_path = {}", ident(schema)))
        .await
        .map_err(failed)?;
    // Without the right to it triggers fire as for any writer; an error would end the transaction.
    let replica = "SAVEPOINT replica; SET LOCAL session_replication_role = replica; RELEASE replica";
    let as_replica = session.execute(replica).await.is_ok();
    if !as_replica {
        session.execute("ROLLBACK TO replica").await.map_err(failed)?;
    }
    let mut repaired = BTreeMap::new();
    for table in parity.tables.iter().filter(|table| !table.holds()) {
        let Some(pair) = source.pairs.iter().find(|pair| pair.name == table.name) else {
            return Err(ParityError::Repair(format!("table {} is not there any more", table.name)));
        };
        one(&session, &label, &source.sides[0], pair, table).await?;
        let keys: Keys = table.listed.iter().map(|one| one.bytes.clone()).collect();
        repaired.insert(table.name.clone(), keys);
    }
    session.execute("COMMIT").await.map_err(failed)?;
    drop(source);
    let again = Sides::open(places, ask).await?;
    let mut after = Vec::new();
    for (table, keys) in repaired {
        if let Some(pair) = again.pairs.iter().find(|pair| pair.name == table) {
            after.push(keys::compare(&again.sides, pair, &keys, ask.shown).await?);
        }
    }
    Ok(Repaired { planned, as_replica, after })
}

/// Both sides, open.
struct Sides {
    sides: [Side; 2],
    pairs: Vec<Arc<Pair>>,
}

impl Sides {
    async fn open(places: [&Place; 2], ask: &Ask<'_>) -> Result<Self, ParityError> {
        let open = |which, place| Side::open(which, place, 1, ask.application_name);
        let (a, b) = tokio::try_join!(open(Which::A, places[0]), open(Which::B, places[1]))?;
        let sides = [a, b];
        let (pairs, _) = super::compare::matched(&sides, ask.tables, ask.exclude).await?;
        Ok(Self { sides, pairs })
    }
}

async fn one(
    session: &Session,
    label: &str,
    a: &Side,
    pair: &Arc<Pair>,
    table: &TableParity,
) -> Result<(), ParityError> {
    let failed = ParityError::server(label);
    let target = Which::B.of(&pair.sides);
    let of = |what: fn(&What) -> bool| -> Keys {
        table.listed.iter().filter(|one| what(&one.what)).map(|one| one.bytes.clone()).collect()
    };
    let (insert, update, delete) = (
        of(|what| *what == What::MissingInB),
        of(|what| matches!(what, What::Differs(_))),
        of(|what| *what == What::MissingInA),
    );
    let side_of = |name: &str| target.columns.iter().find(|column| column.name == name);
    let type_of = |name: &str| side_of(name).map_or("text", |column| column.type_name.as_str());
    let columns: Vec<String> = pair
        .columns
        .iter()
        .map(|column| {
            let type_name = if column.as_text { "pg_catalog.text" } else { type_of(&column.name) };
            format!("{} {type_name}", ident(&column.name))
        })
        .collect();
    let scratch = "pg_temp.pgrunbook_repair";
    session
        .execute(&format!("CREATE TEMPORARY TABLE pgrunbook_repair ({}) ON COMMIT DROP", columns.join(", ")))
        .await
        .map_err(failed)?;
    let matched = pair.columns[..pair.key_len].iter().map(|column| {
        let cast = if column.as_text { format!("::{}", type_of(&column.name)) } else { String::new() };
        format!("t.{0} = r.{0}{cast}", ident(&column.name))
    });
    let matched = matched.collect::<Vec<_>>().join(" AND ");
    let written: Vec<_> =
        pair.columns.iter().filter(|column| side_of(&column.name).is_some_and(|one| !one.is_generated)).collect();
    let value = |column: &super::pair::Column| {
        let cast = if column.as_text { format!("::{}", type_of(&column.name)) } else { String::new() };
        format!("r.{}{cast}", ident(&column.name))
    };
    let names = written.iter().map(|column| ident(&column.name)).collect::<Vec<_>>().join(", ");
    let values = written.iter().map(|column| value(column)).collect::<Vec<_>>().join(", ");
    let sets = written.iter().filter(|column| !pair.columns[..pair.key_len].contains(column));
    let sets = sets.map(|column| format!("{} = {}", ident(&column.name), value(column))).collect::<Vec<_>>().join(", ");
    let qualified = target.from.trim_start_matches("ONLY ");
    for (what, keys, sql) in [
        ("deleted", &delete, format!("DELETE FROM {} AS t USING {scratch} AS r WHERE {matched}", target.from)),
        ("updated", &update, format!("UPDATE {} AS t SET {sets} FROM {scratch} AS r WHERE {matched}", target.from)),
        (
            "inserted",
            &insert,
            format!("INSERT INTO {qualified} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {scratch} AS r"),
        ),
    ] {
        if keys.is_empty() {
            continue;
        }
        session.execute(&format!("TRUNCATE {scratch}")).await.map_err(failed)?;
        let rows =
            if what == "deleted" { key_rows(pair, keys) } else { a.by_keys(pair, keys).await?.into_values().collect() };
        if rows.len() != keys.len() {
            return Err(ParityError::Repair(format!(
                "{} of {} rows of table {} are not in A any more",
                keys.len() - rows.len(),
                keys.len(),
                pair.name
            )));
        }
        fill(session, label, pair, scratch, &rows).await?;
        let answers = session.simple(&sql).await.map_err(failed)?;
        let changed = answers.last().map_or(0, |answer| answer.affected);
        if changed != keys.len() as u64 {
            return Err(ParityError::Repair(format!(
                "{changed} rows of table {} would have been {what}, and not {}",
                pair.name,
                keys.len()
            )));
        }
    }
    session.execute("DROP TABLE pg_temp.pgrunbook_repair").await.map_err(failed)
}

/// Rows that hold the key alone.
fn key_rows(pair: &Pair, keys: &Keys) -> Vec<Vec<u8>> {
    let null = (-1_i32).to_be_bytes();
    keys.iter()
        .map(|key| {
            let mut row = key.to_vec();
            (pair.key_len..pair.columns.len()).for_each(|_| row.extend_from_slice(&null));
            row
        })
        .collect()
}

async fn fill(session: &Session, label: &str, pair: &Pair, into: &str, rows: &[Vec<u8>]) -> Result<(), ParityError> {
    let failed = |error: tokio_postgres::Error| ParityError::server(label)(session.error(&error));
    let sink = session.client().copy_in::<_, bytes::Bytes>(&format!("COPY {into} FROM STDIN (FORMAT binary)")).await;
    let sink = sink.map_err(failed)?;
    futures_util::pin_mut!(sink);
    let count = i16::try_from(pair.columns.len()).unwrap_or(i16::MAX).to_be_bytes();
    sink.send(bytes::Bytes::from_static(HEADER)).await.map_err(failed)?;
    for row in rows {
        sink.send([&count[..], row].concat().into()).await.map_err(failed)?;
    }
    sink.send(bytes::Bytes::from_static(TRAILER)).await.map_err(failed)?;
    sink.finish().await.map_err(failed)?;
    Ok(())
}
