//! The load: the image's rows into new tables, over several connections, and then their keys and indexes.
//!
//! A table that is not much larger than its share travels over one connection, in the transaction that makes it: so it is
//! written frozen, and needs no vacuum. A larger one is cut into ranges. As soon as a table is complete its indexes are
//! built, while others still travel. Whatever fails, what was made is dropped, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt;
use pgrunbook_engine::Cancel;
use pgrunbook_postgres::rowhash::RowSum;
use pgrunbook_postgres::{ConnectOptions, PgError, Session, quote};
use tokio::sync::mpsc;

use super::catalog::Catalog;
use super::error::SqliteError;
use super::fill;
use super::image::Image;
use super::jobs::{Job, Jobs};
use super::map::Mapping;
use super::piece::{self, Piece};
use super::rows::{last_number, read};
use super::structure::{Object, ObjectKind, Structure};
use crate::transfer::spec::Making;
use crate::transfer::state;

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
    /// Whether the tables are made, or are there and empty: then their keys, indexes and checks stay as they are, their
    /// triggers do not fire, and their foreign keys are checked when all rows are in.
    pub structure: Making,
    /// Tables of fewer bytes are never cut into ranges.
    pub whole_bytes: u64,
    /// Rows that were read and handed over so far, of all tables: who waits may look.
    pub handed: Arc<AtomicU64>,
}

impl Default for How {
    fn default() -> Self {
        Self {
            connections: 2,
            index_memory: "256MB".to_owned(),
            analyze: true,
            mark: "pgrunbook transfer".to_owned(),
            structure: Making::Create,
            whole_bytes: 32 << 20,
            handed: Arc::default(),
        }
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
    /// The transactions that brought the rows.
    pub transactions: Vec<u32>,
}

impl Loaded {
    /// Whether the tables hold what was brought and nothing else: so many rows, each written by a transaction of the load. It costs no
    /// more than a count, and says enough of tables that were made for these rows, since they store what they are sent.
    ///
    /// # Errors
    /// What the server says.
    pub async fn is_untouched(&self, session: &Session, schema: &str) -> Result<bool, PgError> {
        for table in &self.tables {
            let ours: Vec<String> = table.transactions.iter().map(u32::to_string).collect();
            // What is frozen, too, shows who wrote it (https://www.postgresql.org/docs/15/ddl-system-columns.html).
            let sql = format!(
                "SELECT pg_catalog.count(*) = {}
                     AND pg_catalog.count(*) FILTER (WHERE xmin OPERATOR(pg_catalog.<>) ALL ('{{{}}}'::pg_catalog.xid[])) = 0
                 FROM {}",
                table.sum.rows,
                ours.join(","),
                place(schema, &table.name)
            );
            if session.value(&sql).await? != "t" {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Chunks that wait for each connection at most.
const CHUNKS: usize = 4;

/// Ranges of a table that is cut.
const RANGES: u32 = 16;

/// Makes the tables in the schema, and the schema if it is missing, fills them, and makes their keys. With
/// [`Making::Existing`] it fills the tables that are there.
///
/// # Errors
/// [`SqliteError::Exists`] before anything is made, if a table or an index of such a name is there, and [`SqliteError::Refused`] if one
/// that should be there is not, or not fit, or not empty; [`SqliteError::Misfit`] for a value that does not fit;
/// [`SqliteError::Object`] for a key that cannot be made. Whatever was made is dropped again, what was filled emptied.
pub async fn load(
    target: &ConnectOptions,
    schema: &str,
    image: Arc<Image>,
    plan: Arc<Plan>,
    how: &How,
    cancel: &Cancel,
) -> Result<Loaded, SqliteError> {
    let begun = Instant::now();
    let admin = connect(target, how).await?;
    let (plan, makes_schema) = match how.structure {
        Making::Create => (plan.clone(), prepare(&admin, schema, &plan, how).await?),
        Making::Existing => (Arc::new(fill::fit(&admin, schema, &plan).await?), false),
    };
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
    if how.structure == Making::Existing {
        // Rows are carried over as they are: what triggers did to them has been done.
        session.execute("SET session_replication_role = replica").await?;
    }
    Ok(session)
}

fn place(schema: &str, table: &str) -> String {
    format!("{}.{}", ident(schema), ident(table))
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
ORDER BY c.relname";

/// Looks that nothing is in the way, and makes the schema. Returns whether it was missing.
async fn prepare(admin: &Session, schema: &str, plan: &Plan, how: &How) -> Result<bool, SqliteError> {
    let names: Vec<String> = plan.structure.names().into_iter().collect();
    let there = admin.client().query(THERE, &[&schema, &names]).await.map_err(|error| admin.error(&error))?;
    if !there.is_empty() {
        let named: Vec<String> = there.iter().map(|row| format!("{schema}.{}", row.get::<_, &str>(0))).collect();
        return Err(SqliteError::Exists(named.join(", ")));
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
    let made = state::write(admin, &sql).await;
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

/// Drops the plan's tables that carry the mark, and with `schema_too` the schema, if nothing else is in it: after a load
/// that failed, or whose process ended in the middle. Returns their names.
///
/// With [`Making::Existing`] it empties the plan's tables, which carry no mark: only who knows that a load of this plan had
/// found them empty and had begun may ask for it.
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
    if how.structure == Making::Existing {
        return fill::empty(session, schema, plan).await;
    }
    let names: Vec<&str> = plan.structure.before.iter().map(|object| object.name.as_str()).collect();
    let rows =
        session.client().query(MARKED, &[&schema, &names, &how.mark]).await.map_err(|error| session.error(&error))?;
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let places: Vec<String> = names.iter().map(|name| place(schema, name)).collect();
    if !places.is_empty() {
        // Together: their foreign keys may refer to one another.
        state::write(session, &format!("DROP TABLE {}", places.join(", "))).await?;
    }
    if schema_too {
        state::write(session, &format!("DROP SCHEMA {}", ident(schema))).await?;
    }
    Ok(names)
}

struct Copier<'a> {
    target: &'a ConnectOptions,
    schema: &'a str,
    image: Arc<Image>,
    plan: Arc<Plan>,
    how: &'a How,
    cancel: &'a Cancel,
    begun: Instant,
}

impl Copier<'_> {
    async fn everything(&self, admin: &Session) -> Result<Loaded, SqliteError> {
        let (pieces, cut) = self.pieces().await?;
        let makes = self.how.structure == Making::Create;
        for table in cut.iter().filter(|_| makes) {
            self.make_table(admin, &self.plan.structure.before[*table]).await?;
        }
        let after: &[Object] = if makes { &self.plan.structure.after } else { &[] };
        let mut indexes: BTreeMap<usize, Vec<Job>> = BTreeMap::new();
        for (number, object) in after.iter().enumerate() {
            if object.kind == ObjectKind::Index {
                let table = self.plan.mapping.tables.iter().position(|map| map.name == object.table);
                indexes.entry(table.unwrap_or_default()).or_default().push(Job::Make(number));
            }
        }
        let copies = pieces
            .into_iter()
            .map(|piece| (piece.table, Job::Copy { piece, frozen: makes && !cut.contains(&piece.table) }));
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
            for object in after.iter().filter(|object| object.kind == kind) {
                make(admin, object).await?;
            }
        }
        if !makes {
            fill::check_foreign_keys(admin, self.schema, &self.plan).await?;
        }
        self.continue_identities(admin).await?;
        let is_validation = |number: &usize| after[*number].kind == ObjectKind::Validation;
        let mut last: Vec<Job> = (0..after.len()).filter(is_validation).map(Job::Make).collect();
        if self.how.analyze {
            last.extend((0..self.plan.mapping.tables.len()).map(Job::Analyze));
        }
        self.work(&Jobs::all(last), &mut loaded).await?;
        // This commit waits for the disk, and with it all before it in the log.
        admin
            .execute(
                "SET synchronous_commit = on; SELECT pg_catalog.pg_logical_emit_message(true, 'pgrunbook-load', 'end')",
            )
            .await?;
        loaded.took = self.begun.elapsed();
        Ok(loaded)
    }

    /// The pieces of all tables, the largest tables first; and the tables that are cut.
    async fn pieces(&self) -> Result<(Vec<Piece>, Vec<usize>), SqliteError> {
        let (image, plan, connections) = (self.image.clone(), self.plan.clone(), self.how.connections.max(1));
        let whole_bytes = self.how.whole_bytes;
        blocking(move || {
            let connection = image.open()?;
            let total: u64 = plan.bytes.iter().sum();
            let mut order: Vec<usize> = (0..plan.mapping.tables.len()).collect();
            order.sort_by_key(|table| std::cmp::Reverse(plan.bytes[*table]));
            let (mut pieces, mut cut) = (Vec::new(), Vec::new());
            for number in order {
                let bytes = plan.bytes[number];
                // A fifth more than its share: then the other connections would wait for it.
                let is_large = connections > 1
                    && bytes > whole_bytes
                    && u128::from(bytes) * connections as u128 * 5 > u128::from(total) * 6;
                let table = &plan.catalog.tables[plan.mapping.tables[number].source];
                let parts = piece::cut(&connection, image.source(), table, number, if is_large { RANGES } else { 1 })?;
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
        let place = place(self.schema, &object.name);
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
                        sum.transactions.extend(part.transactions);
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
                session.execute(&format!("ANALYZE {}", place(self.schema, name))).await?;
                Ok(None)
            }
        }
    }

    /// Copies a piece in a transaction of its own. Returns its sum.
    async fn copy(&self, session: &Session, piece: Piece, frozen: bool) -> Result<LoadedTable, SqliteError> {
        session.execute("BEGIN").await?;
        let transaction = session.value("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.xid").await?;
        let map = &self.plan.mapping.tables[piece.table];
        if frozen {
            self.make_table(session, &self.plan.structure.before[piece.table]).await?;
        }
        let columns: Vec<String> = map.copied().map(|column| ident(&column.name)).collect();
        let sql = format!(
            "COPY {} ({}) FROM STDIN (FORMAT binary{})",
            place(self.schema, &map.name),
            columns.join(", "),
            if frozen { ", FREEZE" } else { "" }
        );
        let sink = session.client().copy_in::<_, Bytes>(&sql).await.map_err(|error| session.error(&error))?;
        let mut sink = std::pin::pin!(sink);
        let (sender, mut receiver) = mpsc::channel::<Bytes>(CHUNKS);
        let (plan, image, cancel) = (self.plan.clone(), self.image.clone(), self.cancel.clone());
        let handed = self.how.handed.clone();
        let reader = tokio::task::spawn_blocking(move || read(&plan, &image, piece, &sender, &handed, &cancel));
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
        let mut part = read?;
        part.transactions.extend(transaction.parse::<u32>());
        sink.close().await.map_err(|error| session.error(&error))?;
        state::write(session, "COMMIT").await?;
        Ok(part)
    }

    /// New rows continue behind the highest number that SQLite ever gave.
    async fn continue_identities(&self, admin: &Session) -> Result<(), SqliteError> {
        let (image, plan) = (self.image.clone(), self.plan.clone());
        let highest = blocking(move || {
            let connection = image.open()?;
            let mut highest = Vec::new();
            for map in &plan.mapping.tables {
                let table = &plan.catalog.tables[map.source];
                if let Some(last) = last_number(&connection, image.source(), table, map)? {
                    highest.push(last);
                }
            }
            Ok(highest)
        })
        .await?;
        for (table, column, last) in highest {
            let Some(next) = last.max(0).checked_add(1) else { continue };
            let (place, name) = (place(self.schema, &table), ident(&column));
            let sql = match self.how.structure {
                Making::Create => format!("ALTER TABLE {place} ALTER COLUMN {name} RESTART WITH {next}"),
                // An identity or a serial; nothing where the column has no sequence of its own.
                Making::Existing => format!(
                    "SELECT pg_catalog.setval(pg_catalog.pg_get_serial_sequence({}, {}), {next}, false)",
                    literal(&place),
                    literal(&column)
                ),
            };
            state::write(admin, &sql).await?;
        }
        Ok(())
    }
}

fn named(object: &Object) -> String {
    format!("{} {} of table {}", object.kind.word(), object.name, object.table)
}

async fn make(session: &Session, object: &Object) -> Result<(), SqliteError> {
    state::write(session, &object.sql).await.map_err(|source| SqliteError::Object { name: named(object), source })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SqliteError> + Send + 'static,
) -> Result<T, SqliteError> {
    tokio::task::spawn_blocking(work).await.expect("nothing in here panics, and nobody cancels it")
}
