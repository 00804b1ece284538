//! A schema of a PostgreSQL database as a side: everything is read in one snapshot, over binary COPY.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;
use pgrunbook_postgres::copy::{CopyError, CopyOut, Row, RowSplitter};
use pgrunbook_postgres::relation::{Filter, describe};
use pgrunbook_postgres::{ConnectOptions, Lsn, PgError, Session, quote};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::bucket::{Buckets, Sums};
use super::error::ParityError;
use super::pair::{Column, Finding, Pair, SideTable, Which, ident, side_tables};
use super::rows::{BATCH, Batch, Rows, Skip};

/// What rows and their texts may depend on, and what would hide rows. `search_path` decides how names of objects are
/// printed: relative to the side's own schema, since that is what differs.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL row_security = off;
SET LOCAL DateStyle = 'ISO, YMD';
SET LOCAL IntervalStyle = 'postgres';
SET LOCAL TimeZone = 'UTC';
SET LOCAL extra_float_digits = 3;
SET LOCAL bytea_output = 'hex';
SET LOCAL xmlbinary = 'base64';
SET LOCAL lc_monetary = 'C';
SET LOCAL jit = off;
SET LOCAL max_parallel_workers_per_gather = 0;
SET LOCAL idle_in_transaction_session_timeout = 0";

/// Where the snapshot stands. A standby has no position to write at; what it has replayed is its position.
const POSITION: &str = "SELECT pg_catalog.pg_current_snapshot()::text,
    (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
          ELSE pg_catalog.pg_current_wal_insert_lsn() END)::text";

const SUB_PARTITIONED: &str = "SELECT c.oid FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'p' AND c.relispartition";

const SCHEMA: &str = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1";

/// Below so many pages a table is not cut: a statement costs more than it saves.
const PAGES: u64 = 1024;

/// Connections that read whole tables under the session's snapshot.
#[derive(Default)]
struct Shared {
    /// The snapshot's name for others, once one has asked.
    exported: Option<String>,
    /// Idle, in the snapshot.
    inside: Vec<CopyOut>,
    /// Idle, in none. They are kept: in a freeze nobody waits for a log-in.
    outside: Vec<CopyOut>,
}

/// An open side. Its snapshot is held until it is dropped.
pub(super) struct PostgresSide {
    pub which: Which,
    pub label: String,
    schema: String,
    /// Holds the snapshot.
    session: Arc<Session>,
    /// Tables are read by so many connections at once.
    jobs: usize,
    application_name: String,
    shared: Mutex<Shared>,
    /// `pg_current_snapshot()`.
    pub snapshot: String,
    /// Read right after the snapshot was taken: no commit that it sees is behind it.
    pub lsn: Option<Lsn>,
}

impl PostgresSide {
    /// Connects, and takes a snapshot. Further connections, `jobs` of them, are made when a table is read whole.
    pub async fn open(
        which: Which,
        options: &ConnectOptions,
        schema: &str,
        label: String,
        jobs: usize,
        application_name: &str,
    ) -> Result<Self, ParityError> {
        let failed = ParityError::server(&label);
        let session = Arc::new(Session::connect(options, application_name).await.map_err(failed)?);
        let there = session.client().query_opt(SCHEMA, &[&schema]).await;
        if there.map_err(|error| failed(session.error(&error)))?.is_none() {
            let error = PgError::Options(format!("there is no schema {schema}"));
            return Err(ParityError::Server { side: label, error });
        }
        let (schema, snapshot) = (schema.to_owned(), String::new());
        let (jobs, application_name, shared) = (jobs.max(1), application_name.to_owned(), Mutex::default());
        let mut side = Self { which, label, schema, session, jobs, application_name, shared, snapshot, lsn: None };
        side.begin().await?;
        Ok(side)
    }

    /// Ends the snapshot.
    pub async fn end(&self) -> Result<(), ParityError> {
        let mut shared = self.shared.lock().await;
        shared.exported = None;
        let inside = std::mem::take(&mut shared.inside);
        let ended = inside.into_iter().map(|reader| reader.execute("ROLLBACK"));
        // One that fails is gone, and with it its snapshot.
        shared.outside.extend(join_all(ended).await.into_iter().flatten());
        self.session.execute("ROLLBACK").await.map_err(self.failed())
    }

    /// Takes a new one.
    pub async fn renew(&mut self) -> Result<(), ParityError> {
        self.end().await?;
        self.begin().await
    }

    async fn begin(&mut self) -> Result<(), ParityError> {
        // One message: in a freeze each turn counts.
        let answers =
            self.session.simple(&format!("{};\n{POSITION}", self.begin_sql())).await.map_err(self.failed())?;
        let row = answers.into_iter().next_back().and_then(|answer| answer.rows.into_iter().next());
        let mut row = row.unwrap_or_default();
        let lsn = row.pop().flatten().and_then(|text| text.parse().ok());
        let snapshot = row.pop().flatten().unwrap_or_default();
        (self.lsn, self.snapshot) = (lsn, snapshot);
        Ok(())
    }

    fn begin_sql(&self) -> String {
        format!("{BEGIN};\nSET LOCAL search_path = {}", ident(&self.schema))
    }

    /// A connection in the session's snapshot.
    async fn reader(&self) -> Result<CopyOut, PgError> {
        let mut shared = self.shared.lock().await;
        if let Some(reader) = shared.inside.pop() {
            return Ok(reader);
        }
        let exported = match &shared.exported {
            Some(exported) => exported.clone(),
            None => {
                let exported = self.session.value("SELECT pg_catalog.pg_export_snapshot()").await?;
                shared.exported.insert(exported).clone()
            }
        };
        let name = quote::literal(&exported).expect("the server's own name holds no NUL");
        let import = self.begin_sql().replacen(';', &format!(";\nSET TRANSACTION SNAPSHOT {name};"), 1);
        while let Some(reader) = shared.outside.pop() {
            // Another is made where the server has ended this one meanwhile.
            if let Ok(reader) = reader.execute(&import).await {
                return Ok(reader);
            }
        }
        CopyOut::connect(self.session.options(), &self.application_name).await?.execute(&import).await
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn failed(&self) -> impl Fn(PgError) -> ParityError + Copy + '_ {
        ParityError::server(&self.label)
    }

    pub async fn tables(&self) -> Result<(Vec<SideTable>, Vec<Finding>), ParityError> {
        let session = self.session();
        let described = describe(session, &self.schema, Filter::All).await.map_err(self.failed())?;
        let rows = session.client().query(SUB_PARTITIONED, &[&self.schema]).await;
        let rows = rows.map_err(|error| self.failed()(session.error(&error)))?;
        let sub_partitioned: BTreeSet<u32> = rows.iter().map(|row| row.get(0)).collect();
        Ok(side_tables(described, &sub_partitioned))
    }

    /// The least and the greatest value of an integer key.
    pub async fn extremes(&self, pair: &Pair, key: &Column) -> Result<Option<(i64, i64)>, ParityError> {
        let (key, from) = (key.select(), &self.which.of(&pair.sides).from);
        let sql = format!("SELECT pg_catalog.min({key})::int8, pg_catalog.max({key})::int8 FROM {from}");
        let row = self.session().client().query_one(&sql, &[]).await;
        let row = row.map_err(|error| self.failed()(self.session().error(&error)))?;
        Ok(row.get::<_, Option<i64>>(0).zip(row.get::<_, Option<i64>>(1)))
    }

    /// Reads every row once.
    pub async fn sums(&self, pair: &Arc<Pair>, buckets: &Arc<Buckets>, skip: &Skip) -> Result<Sums, ParityError> {
        let table = self.which.of(&pair.sides);
        let pages = table.pages.filter(|pages| *pages >= PAGES && self.jobs > 1);
        let parts = if pages.is_some() { self.jobs as u64 } else { 1 };
        let mut tasks = JoinSet::new();
        for number in 0..parts {
            // The last one takes what was added since the pages were counted.
            let from = pages.map_or(0, |pages| pages * number / parts);
            let to = pages.filter(|_| number + 1 < parts).map(|pages| pages * (number + 1) / parts);
            let range = match to {
                Some(to) => format!(" WHERE ctid >= '({from},0)' AND ctid < '({to},0)'"),
                None if from > 0 => format!(" WHERE ctid >= '({from},0)'"),
                None => String::new(),
            };
            let sql = format!("COPY (SELECT {} FROM {}{range}) TO STDOUT (FORMAT binary)", pair.select(), table.from);
            let reader = self.reader().await.map_err(self.failed())?;
            let (pair, buckets, skip, label) =
                (Arc::clone(pair), Arc::clone(buckets), skip.clone(), self.label.clone());
            tasks.spawn(async move {
                let columns = u16::try_from(pair.columns.len()).unwrap_or(u16::MAX);
                let (mut scratch, mut spelled, of) = (Vec::new(), Vec::new(), Arc::clone(&pair));
                let sums = Sums::new(buckets.count());
                let each = move |sums: &mut Sums, row: Row<'_>| {
                    let row = of.common(row.body(), &mut spelled);
                    let key = &row[..of.key_end(row)];
                    if skip.has(key)? {
                        sums.skipped += 1;
                    } else {
                        sums.parts[buckets.of(key, &mut scratch)].add(row);
                    }
                    Ok(())
                };
                reader.rows(&sql, columns, sums, each).await.map_err(|stop: Stop| stop.on(&label, &pair))
            });
        }
        let mut sums = Sums::new(buckets.count());
        while let Some(part) = tasks.join_next().await {
            let (reader, part) = part.map_err(|error| ParityError::Task(error.to_string()))??;
            self.shared.lock().await.inside.push(reader);
            sums.merge(&part);
        }
        Ok(sums)
    }

    /// The rows that a condition takes, in the order of their identifying bytes.
    pub fn ordered(&self, pair: &Arc<Pair>, condition: &str) -> Rows {
        // The order of bytes is the same everywhere, and the one in which they are merged here.
        let sql = format!(
            "COPY (SELECT {} FROM {} WHERE {condition} ORDER BY pg_catalog.record_send(ROW({}))) TO STDOUT (FORMAT binary)",
            pair.select(),
            self.which.of(&pair.sides).from,
            pair.record()
        );
        let (sender, receiver) = mpsc::channel(2);
        let (session, pair, label) = (Arc::clone(&self.session), Arc::clone(pair), self.label.clone());
        tokio::spawn(async move {
            let (mut batch, mut spelled) = (Batch::default(), Vec::new());
            let (again, columns) = (sender.clone(), pair.columns.len());
            let result = read(
                &session,
                &label,
                &pair,
                columns,
                &sql,
                |batch_row| {
                    batch.push(pair.common(batch_row, &mut spelled));
                    if batch.len() >= BATCH { Some(std::mem::take(&mut batch)) } else { None }
                },
                &again,
            )
            .await;
            let last = result.map(|()| batch);
            // Nobody listens any more: the look was enough.
            let _ = sender.send(last).await;
        });
        Rows::new(receiver)
    }

    /// Values as people read them.
    pub async fn text_of(&self, oid: u32, value: &[u8]) -> Result<String, ParityError> {
        let client = self.session().client();
        let failed = |error: tokio_postgres::Error| self.failed()(self.session().error(&error));
        let one = Type::from_oid(oid)
            .unwrap_or_else(|| Type::new("user".to_owned(), oid, tokio_postgres::types::Kind::Simple, String::new()));
        let statement = client.prepare_typed("SELECT ($1)::pg_catalog.text", &[one]).await.map_err(failed)?;
        let row = client.query_one(&statement, &[&Raw(value)]).await.map_err(failed)?;
        Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
    }
}

/// Bytes in a type's binary form, whatever the type.
#[derive(Debug)]
pub(super) struct Raw<'a>(pub &'a [u8]);

impl ToSql for Raw<'_> {
    fn to_sql(&self, _: &Type, out: &mut bytes::BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// What ended the reading of rows.
enum Stop {
    Server(PgError),
    Copy(CopyError),
    Parity(ParityError),
}

impl From<PgError> for Stop {
    fn from(error: PgError) -> Self {
        Self::Server(error)
    }
}

impl From<CopyError> for Stop {
    fn from(error: CopyError) -> Self {
        Self::Copy(error)
    }
}

impl From<ParityError> for Stop {
    fn from(error: ParityError) -> Self {
        Self::Parity(error)
    }
}

impl Stop {
    fn on(self, label: &str, pair: &Pair) -> ParityError {
        match self {
            Self::Server(error) => ParityError::server(label)(error),
            Self::Copy(error) => ParityError::Copy { side: label.to_owned(), table: pair.name.clone(), error },
            Self::Parity(error) => error,
        }
    }
}

/// Runs a COPY, handing on full batches as they are made.
async fn read(
    session: &Session,
    label: &str,
    pair: &Pair,
    columns: usize,
    sql: &str,
    mut each: impl FnMut(&[u8]) -> Option<Batch>,
    sender: &mpsc::Sender<Result<Batch, ParityError>>,
) -> Result<(), ParityError> {
    let failed = |error: tokio_postgres::Error| ParityError::server(label)(session.error(&error));
    let wrong = |error: CopyError| ParityError::Copy { side: label.to_owned(), table: pair.name.clone(), error };
    let mut splitter = RowSplitter::new(u16::try_from(columns).unwrap_or(u16::MAX));
    let stream = session.client().copy_out(sql).await.map_err(failed)?;
    futures_util::pin_mut!(stream);
    let mut ready = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(failed)?;
        splitter
            .push(&chunk, |row| {
                ready.extend(each(row.body()));
                Ok::<(), CopyError>(())
            })
            .map_err(wrong)?;
        for batch in ready.drain(..) {
            if sender.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
    }
    splitter.finish().map_err(wrong)
}
