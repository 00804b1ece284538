//! The load: the image's rows into new tables, over several connections, and then their keys and indexes.
//!
//! A table that is not much larger than its share travels over one connection, in the transaction that makes it: so it is
//! written frozen, and needs no vacuum. A larger one is cut into ranges. As soon as a table is complete its indexes are
//! built, while others still travel. Whatever fails, what was made is dropped, and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt;
use pgrunbook_engine::Cancel;
use pgrunbook_postgres::copy::{HEADER, TRAILER};
use pgrunbook_postgres::rowhash::RowSum;
use pgrunbook_postgres::{ConnectOptions, Session, quote};
use rusqlite::types::ValueRef;
use tokio::sync::mpsc;

use super::catalog::{Catalog, Table};
use super::error::{BadValue, SqliteError};
use super::jobs::{Job, Jobs};
use super::kind::{class_of, excerpt};
use super::map::{ColumnMap, Mapping, TableMap};
use super::open::{open_image, quoted};
use super::piece::{self, Piece};
use super::prove::{comes_back, no_replacement};
use super::structure::{Object, ObjectKind, Structure};

/// What is loaded. [`super::Preflight::plan`] gives it.
#[derive(Debug, Clone)]
pub struct Plan {
    pub catalog: Catalog,
    pub mapping: Mapping,
    pub structure: Structure,
    /// Bytes of each table of the mapping, more or less: for the order of the work.
    pub bytes: Vec<u64>,
}

/// How it is loaded.
#[derive(Debug, Clone)]
pub struct How {
    /// Connections to the target, each with a thread that reads.
    pub connections: usize,
    /// `maintenance_work_mem` of each connection.
    pub index_memory: String,
    /// Whether the planner gets its statistics at the end.
    pub analyze: bool,
    /// The comment that marks each table and a schema that was made: so that a later run knows what it may drop.
    pub mark: String,
}

impl Default for How {
    fn default() -> Self {
        Self { connections: 2, index_memory: "256MB".to_owned(), analyze: true, mark: "pgrunbook transfer".to_owned() }
    }
}

/// What was loaded.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    pub tables: Vec<LoadedTable>,
    /// Until the last row was in, and until everything was.
    pub copied: Duration,
    pub took: Duration,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadedTable {
    pub name: String,
    /// Over the fields that travelled, in the order of [`TableMap::copied`].
    pub sum: RowSum,
    /// Values that a write-back would spell otherwise, by column.
    pub respelled: BTreeMap<String, u64>,
}

/// Bytes that a reader gathers before it hands them over: at most four such chunks wait for each connection.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 4;

/// Tables smaller than this are never cut.
const WHOLE_BYTES: u64 = 32 << 20;
/// Ranges of a table that is cut.
const RANGES: u32 = 16;

/// Makes the tables in the schema, and the schema if it is missing, fills them, and makes their keys.
///
/// # Errors
/// [`SqliteError::Exists`] before anything is made, if a table of that name is there; [`SqliteError::Misfit`] for a value
/// that does not fit; [`SqliteError::Object`] for a key that cannot be made. Whatever was made is dropped again.
pub async fn load(
    target: &ConnectOptions,
    schema: &str,
    image: &Path,
    plan: Arc<Plan>,
    how: &How,
    cancel: &Cancel,
) -> Result<Loaded, SqliteError> {
    let begun = Instant::now();
    let admin = connect(target, how).await?;
    let makes_schema = prepare(&admin, schema, &plan, how).await?;
    let copy = Copier { target, schema, image, plan, how, cancel, begun };
    let result = copy.everything(&admin).await;
    if result.is_err() {
        // The first error is the one to tell.
        let _ = discard(&admin, schema, &copy.plan, how, makes_schema).await;
    }
    result
}

async fn connect(target: &ConnectOptions, how: &How) -> Result<Session, SqliteError> {
    let session = Session::connect(target, "pgrunbook:load").await?;
    let memory = quote::literal(&how.index_memory).map_err(|_| SqliteError::Stopped)?;
    session
        .execute(&format!(
            "SET search_path = pg_catalog; SET client_encoding = 'UTF8'; SET statement_timeout = 0; \
             SET idle_in_transaction_session_timeout = 0; SET synchronous_commit = off; SET maintenance_work_mem = {memory}"
        ))
        .await?;
    Ok(session)
}

fn ident(name: &str) -> String {
    quote::ident(name).unwrap_or_else(|_| "\"\"".to_owned())
}

fn literal(text: &str) -> String {
    quote::literal(&text.replace('\0', "")).unwrap_or_else(|_| "''".to_owned())
}

const THERE: &str = "
SELECT c.relname
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY ($2)
ORDER BY c.relname LIMIT 1";

/// Looks that nothing is in the way, and makes the schema. Returns whether it was missing.
async fn prepare(admin: &Session, schema: &str, plan: &Plan, how: &How) -> Result<bool, SqliteError> {
    let objects = plan.structure.before.iter().chain(&plan.structure.after);
    let names: Vec<&str> = objects
        .filter(|object| matches!(object.kind, ObjectKind::Table | ObjectKind::Index))
        .map(|object| object.name.as_str())
        .collect();
    let there = admin.client().query_opt(THERE, &[&schema, &names]).await.map_err(|error| admin.error(&error))?;
    if let Some(row) = there {
        return Err(SqliteError::Exists(format!("{schema}.{}", row.get::<_, &str>(0))));
    }
    let sql = format!("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = {}", literal(schema));
    if !admin.value(&sql).await?.is_empty() {
        return Ok(false);
    }
    let schema_name = ident(schema);
    let sql = format!(
        "BEGIN; CREATE SCHEMA {schema_name}; COMMENT ON SCHEMA {schema_name} IS {}; COMMIT",
        literal(&how.mark)
    );
    let made = admin.execute(&sql).await;
    if made.is_err() {
        let _ = admin.execute("ROLLBACK").await;
    }
    made.map_err(|source| SqliteError::Object { name: format!("schema {schema}"), source })?;
    Ok(true)
}

const MARKED: &str = "
SELECT c.relname
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_description AS d
  ON d.objoid = c.oid AND d.objsubid = 0 AND d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
WHERE n.nspname = $1 AND c.relname = ANY ($2) AND c.relkind = 'r' AND d.description = $3";

/// Drops the plan's tables that carry the mark, and with `schema_too` the schema, if nothing else is in it.
///
/// # Errors
/// If the server refuses; then nothing was dropped.
pub async fn discard(
    session: &Session,
    schema: &str,
    plan: &Plan,
    how: &How,
    schema_too: bool,
) -> Result<Vec<String>, SqliteError> {
    let names: Vec<&str> = plan.structure.before.iter().map(|object| object.name.as_str()).collect();
    let rows =
        session.client().query(MARKED, &[&schema, &names, &how.mark]).await.map_err(|error| session.error(&error))?;
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let places: Vec<String> = names.iter().map(|name| format!("{}.{}", ident(schema), ident(name))).collect();
    if !places.is_empty() {
        // Together: their foreign keys may refer to one another.
        session.execute(&format!("DROP TABLE {}", places.join(", "))).await?;
    }
    if schema_too {
        session.execute(&format!("DROP SCHEMA {}", ident(schema))).await?;
    }
    Ok(names)
}

struct Copier<'a> {
    target: &'a ConnectOptions,
    schema: &'a str,
    image: &'a Path,
    plan: Arc<Plan>,
    how: &'a How,
    cancel: &'a Cancel,
    begun: Instant,
}

impl Copier<'_> {
    async fn everything(&self, admin: &Session) -> Result<Loaded, SqliteError> {
        let (pieces, cut) = self.pieces().await?;
        for table in &cut {
            self.make_table(admin, &self.plan.structure.before[*table]).await?;
        }
        let mut indexes: BTreeMap<usize, Vec<Job>> = BTreeMap::new();
        for (number, object) in self.plan.structure.after.iter().enumerate() {
            if object.kind == ObjectKind::Index {
                let table = self.plan.mapping.tables.iter().position(|map| map.name == object.table);
                indexes.entry(table.unwrap_or_default()).or_default().push(Job::Make(number));
            }
        }
        let copies =
            pieces.into_iter().map(|piece| (piece.table, Job::Copy { piece, frozen: !cut.contains(&piece.table) }));
        let jobs = Jobs::new(copies.collect(), indexes);
        let mut loaded = Loaded {
            tables: self
                .plan
                .mapping
                .tables
                .iter()
                .map(|map| LoadedTable { name: map.name.clone(), ..LoadedTable::default() })
                .collect(),
            ..Loaded::default()
        };
        self.work(&jobs, &mut loaded).await?;
        for kind in [ObjectKind::Constraint, ObjectKind::ForeignKey] {
            for object in self.plan.structure.after.iter().filter(|object| object.kind == kind) {
                make(admin, object).await?;
            }
        }
        self.continue_identities(admin).await?;
        let is_validation = |number: &usize| self.plan.structure.after[*number].kind == ObjectKind::Validation;
        let mut last: Vec<Job> = (0..self.plan.structure.after.len()).filter(is_validation).map(Job::Make).collect();
        if self.how.analyze {
            last.extend((0..self.plan.mapping.tables.len()).map(Job::Analyze));
        }
        self.work(&Jobs::all(last), &mut loaded).await?;
        // This commit waits for the disk, and with it all before it in the log.
        if let Some(map) = self.plan.mapping.tables.first() {
            let place = format!("{}.{}", ident(self.schema), ident(&map.name));
            let mark = literal(&self.how.mark);
            admin.execute(&format!("SET synchronous_commit = on; COMMENT ON TABLE {place} IS {mark}")).await?;
        }
        loaded.took = self.begun.elapsed();
        Ok(loaded)
    }

    /// The pieces of all tables, the largest tables first; and the tables that are cut.
    async fn pieces(&self) -> Result<(Vec<Piece>, Vec<usize>), SqliteError> {
        let (image, plan, connections) = (self.image.to_owned(), self.plan.clone(), self.how.connections.max(1));
        blocking(move || {
            let connection = open_image(&image)?;
            let total: u64 = plan.bytes.iter().sum();
            let mut order: Vec<usize> = (0..plan.mapping.tables.len()).collect();
            order.sort_by_key(|table| std::cmp::Reverse(plan.bytes[*table]));
            let (mut pieces, mut cut) = (Vec::new(), Vec::new());
            for number in order {
                let bytes = plan.bytes[number];
                // A fifth more than its share: then the other connections would wait for it.
                let is_large = connections > 1
                    && bytes > WHOLE_BYTES
                    && u128::from(bytes) * connections as u128 * 5 > u128::from(total) * 6;
                let table = &plan.catalog.tables[plan.mapping.tables[number].source];
                let parts = piece::cut(&connection, &image, table, number, if is_large { RANGES } else { 1 })?;
                if parts.len() > 1 {
                    cut.push(number);
                }
                pieces.extend(parts);
            }
            Ok((pieces, cut))
        })
        .await
    }

    async fn make_table(&self, session: &Session, object: &Object) -> Result<(), SqliteError> {
        let place = format!("{}.{}", ident(self.schema), ident(&object.name));
        let sql = format!("{}; COMMENT ON TABLE {place} IS {}", object.sql, literal(&self.how.mark));
        session.execute(&sql).await.map_err(|source| SqliteError::Object { name: named(object), source })
    }

    /// Works on all jobs over all connections; the first error ends it.
    async fn work(&self, jobs: &Jobs, loaded: &mut Loaded) -> Result<(), SqliteError> {
        let workers = (0..self.how.connections.clamp(1, 64)).map(|_| self.worker(jobs));
        let results = futures_util::future::join_all(workers).await;
        let mut first = None;
        for result in results {
            match result {
                Ok(parts) => {
                    for (table, part) in parts {
                        let sum = &mut loaded.tables[table];
                        sum.sum.merge(part.sum);
                        for (column, count) in part.respelled {
                            *sum.respelled.entry(column).or_default() += count;
                        }
                    }
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        if loaded.copied == Duration::ZERO {
            loaded.copied = jobs.copied_at().unwrap_or_else(Instant::now).duration_since(self.begun);
        }
        first.map_or(Ok(()), Err)
    }

    async fn worker(&self, jobs: &Jobs) -> Result<Vec<(usize, LoadedTable)>, SqliteError> {
        let mut done = Vec::new();
        let session = match connect(self.target, self.how).await {
            Ok(session) => session,
            Err(error) => {
                jobs.give_up();
                return Err(error);
            }
        };
        while let Some(job) = jobs.next().await {
            let result =
                if self.cancel.is_stopping() { Err(SqliteError::Stopped) } else { self.one(&session, job).await };
            match result {
                Ok(part) => {
                    done.extend(part);
                    jobs.done(job);
                }
                Err(error) => {
                    jobs.give_up();
                    return Err(error);
                }
            }
        }
        Ok(done)
    }

    async fn one(&self, session: &Session, job: Job) -> Result<Option<(usize, LoadedTable)>, SqliteError> {
        match job {
            Job::Copy { piece, frozen } => {
                let part = self.copy(session, piece, frozen).await;
                if part.is_err() {
                    let _ = session.execute("ROLLBACK").await;
                }
                Ok(Some((piece.table, part?)))
            }
            Job::Make(number) => make(session, &self.plan.structure.after[number]).await.map(|()| None),
            Job::Analyze(table) => {
                let name = &self.plan.mapping.tables[table].name;
                session.execute(&format!("ANALYZE {}.{}", ident(self.schema), ident(name))).await?;
                Ok(None)
            }
        }
    }

    /// Copies a piece in a transaction of its own. Returns its sum.
    async fn copy(&self, session: &Session, piece: Piece, frozen: bool) -> Result<LoadedTable, SqliteError> {
        session.execute("BEGIN").await?;
        let map = &self.plan.mapping.tables[piece.table];
        if frozen {
            self.make_table(session, &self.plan.structure.before[piece.table]).await?;
        }
        let columns: Vec<String> = map.copied().map(|column| ident(&column.name)).collect();
        let sql = format!(
            "COPY {}.{} ({}) FROM STDIN (FORMAT binary{})",
            ident(self.schema),
            ident(&map.name),
            columns.join(", "),
            if frozen { ", FREEZE" } else { "" }
        );
        let sink = session.client().copy_in::<_, Bytes>(&sql).await.map_err(|error| session.error(&error))?;
        let mut sink = std::pin::pin!(sink);
        let (sender, mut receiver) = mpsc::channel::<Bytes>(CHUNKS);
        let (plan, image, cancel) = (self.plan.clone(), self.image.to_owned(), self.cancel.clone());
        let reader = tokio::task::spawn_blocking(move || read(&plan, &image, piece, &sender, &cancel));
        let mut sent = Ok(());
        while let Some(chunk) = receiver.recv().await {
            sent = sink.send(chunk).await.map_err(|error| session.error(&error));
            if sent.is_err() {
                break;
            }
        }
        // The reader sees that nobody listens, and ends.
        drop(receiver);
        let read = reader.await.expect("nothing in the reader panics, and nobody cancels it");
        // The server's word first: the reader's end is then only its consequence.
        sent?;
        // Without the end of COPY the server throws the rows away.
        let part = read?;
        sink.close().await.map_err(|error| session.error(&error))?;
        session.execute("COMMIT").await?;
        Ok(part)
    }

    /// New rows continue behind the highest number that SQLite ever gave.
    async fn continue_identities(&self, admin: &Session) -> Result<(), SqliteError> {
        let (image, plan) = (self.image.to_owned(), self.plan.clone());
        let highest = blocking(move || {
            let connection = open_image(&image)?;
            let mut highest = Vec::new();
            for map in &plan.mapping.tables {
                let table = &plan.catalog.tables[map.source];
                if let Some(last) = last_number(&connection, &image, table, map)? {
                    highest.push(last);
                }
            }
            Ok(highest)
        })
        .await?;
        for (table, column, last) in highest {
            let Some(next) = last.max(0).checked_add(1) else { continue };
            admin
                .execute(&format!(
                    "ALTER TABLE {}.{} ALTER COLUMN {} RESTART WITH {next}",
                    ident(self.schema),
                    ident(&table),
                    ident(&column)
                ))
                .await?;
        }
        Ok(())
    }
}

fn named(object: &Object) -> String {
    format!("{} {} of table {}", object.kind.word(), object.name, object.table)
}

async fn make(session: &Session, object: &Object) -> Result<(), SqliteError> {
    session.execute(&object.sql).await.map_err(|source| SqliteError::Object { name: named(object), source })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SqliteError> + Send + 'static,
) -> Result<T, SqliteError> {
    tokio::task::spawn_blocking(work).await.expect("nothing in here panics, and nobody cancels it")
}

type Last = Option<(String, String, i64)>;

/// The identity column of a table and the last number that was given: the table's highest, or what AUTOINCREMENT noted.
fn last_number(
    connection: &rusqlite::Connection,
    image: &Path,
    table: &Table,
    map: &TableMap,
) -> Result<Last, SqliteError> {
    let column = table.rowid_alias.and_then(|at| map.of_source(at));
    let Some(column) = column.filter(|column| matches!(column.kind, super::kind::Kind::Integer(_))) else {
        return Ok(None);
    };
    let sql = format!("SELECT max({}) FROM main.{}", quoted(&column.name), quoted(&table.name));
    let highest: Option<i64> =
        connection.query_row(&sql, [], |row| row.get(0)).map_err(SqliteError::of(image, "read a key"))?;
    let mut last = highest.unwrap_or(0);
    if table.autoincrement {
        let noted: Option<i64> = connection
            .query_row("SELECT max(seq) FROM sqlite_sequence WHERE name = ?1", [&table.name], |row| row.get(0))
            .map_err(SqliteError::of(image, "read sqlite_sequence"))?;
        last = last.max(noted.unwrap_or(0));
    }
    Ok(Some((map.name.clone(), column.name.clone(), last)))
}

/// Reads a piece and hands it over in chunks of binary COPY. Blocking.
fn read(
    plan: &Plan,
    image: &Path,
    piece: Piece,
    sender: &mpsc::Sender<Bytes>,
    cancel: &Cancel,
) -> Result<LoadedTable, SqliteError> {
    let map = &plan.mapping.tables[piece.table];
    let table = &plan.catalog.tables[map.source];
    let columns: Vec<&ColumnMap> = map.copied().collect();
    // Built only when there is an error: it is asked for every field.
    let failed = |error| SqliteError::of(image, format!("read table {}", table.name))(error);
    let connection = open_image(image)?;
    let mut statement =
        connection.prepare(&piece.select(table, columns.iter().map(|column| column.source))).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let count = u16::try_from(columns.len()).unwrap_or(u16::MAX).to_be_bytes();
    let utf16 = plan.catalog.encoding != "UTF-8";
    let mut respelled = vec![0_u64; columns.len()];
    let mut sum = RowSum::default();
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
                        class: class_of(value),
                        excerpt: excerpt(value),
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
        }
    }
    buffer.extend_from_slice(TRAILER);
    sender.blocking_send(buffer.into()).map_err(|_| SqliteError::Stopped)?;
    let named = columns.iter().zip(respelled).filter(|(_, count)| *count > 0);
    let respelled = named.map(|(column, count)| (column.name.clone(), count)).collect();
    Ok(LoadedTable { name: map.name.clone(), sum, respelled })
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

/// Where a run keeps its image.
pub fn image_folder(run_folder: &Path, schema: &str) -> PathBuf {
    run_folder.join("sqlite").join(schema)
}
