//! Writers that speak to PostgreSQL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Statement};

use crate::history::{Accepted, History, Verdict, key, value};

/// After a failure, so that a fence is not the load of the test: writers of the field wait longer.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a writer that shall stop asks for the outcome of its last write.
const SETTLE: Duration = Duration::from_secs(60);

/// Where writers write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub url: String,
    /// The schema of the tables; none where the role's `search_path` says it.
    pub schema: Option<String>,
    /// Whether a pooler in transaction mode is between: then no statement is prepared by name, since the next transaction may
    /// have another server.
    pub pooled: bool,
}

/// The tables of the writers, to be made where they begin: `writer_log`, only ever added to, and `writer_row`, whose rows are
/// inserted, updated and deleted.
pub fn tables(schema: Option<&str>) -> String {
    let (log, row) = (table(schema, "writer_log"), table(schema, "writer_row"));
    format!(
        "CREATE TABLE {log} (
             key    text PRIMARY KEY,
             writer integer NOT NULL,
             seq    bigint NOT NULL,
             value  text NOT NULL,
             at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
         );
         CREATE TABLE {row} (
             id     bigint PRIMARY KEY,
             writer integer NOT NULL,
             seq    bigint NOT NULL,
             value  text NOT NULL
         )"
    )
}

fn table(schema: Option<&str>, name: &str) -> String {
    schema.map_or_else(|| name.to_owned(), |schema| format!("\"{}\".{name}", schema.replace('"', "\"\"")))
}

/// What the write of a number does beside its line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Insert(i64),
    Update(i64),
    Delete(i64),
}

/// In fours: a row comes, is changed, an older one is changed (if it is still there), and every second one goes.
fn op(writer: usize, seq: u64) -> Op {
    let id = |slot: u64| i64::try_from(writer as u64 * 1_000_000_000 + slot).unwrap_or(i64::MAX);
    let slot = seq / 4;
    match seq % 4 {
        0 => Op::Insert(id(slot)),
        1 => Op::Update(id(slot)),
        2 => Op::Update(id(slot.saturating_sub(3))),
        _ if slot % 2 == 1 => Op::Delete(id(slot)),
        _ => Op::Update(id(slot / 2)),
    }
}

/// Writers at work.
pub struct Writers {
    seed: u64,
    place: watch::Sender<Place>,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Writer>>,
}

struct Writer {
    number: usize,
    seed: u64,
    think: Duration,
    began: Instant,
    accepted: Vec<Accepted>,
    failures: BTreeMap<String, u64>,
    unsettled: Option<u64>,
}

impl Writers {
    /// Starts so many, each with a connection of its own. The [`tables`] must be there.
    pub fn start(place: Place, count: usize, seed: u64) -> Self {
        Self::thinking(place, count, seed, Duration::ZERO)
    }

    /// The same, each of which does nothing for so long after a write was accepted: at full speed they take all processors,
    /// and what a test is about has to wait for them.
    pub fn thinking(place: Place, count: usize, seed: u64, think: Duration) -> Self {
        let (place, seen) = watch::channel(place);
        let (stop, accepted, failed) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let began = Instant::now();
        let tasks = (0..count)
            .map(|number| {
                let writer = Writer {
                    number,
                    seed,
                    think,
                    began,
                    accepted: Vec::new(),
                    failures: BTreeMap::new(),
                    unsettled: None,
                };
                tokio::spawn(writer.work(seen.clone(), Arc::clone(&stop), Arc::clone(&accepted), Arc::clone(&failed)))
            })
            .collect();
        Self { seed, place, stop, accepted, failed, tasks }
    }

    /// Leads them to another place, each after the write that it is at.
    pub fn switch_to(&self, place: Place) {
        self.place.send_replace(place);
    }

    /// Writes that were accepted until now.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Attempts that failed until now.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Waits until so many more are accepted.
    ///
    /// # Panics
    /// If that has not come about within the time: then the servers are not what the test wanted.
    pub async fn wait_for(&self, more: u64, within: Duration) {
        let (wanted, began) = (self.accepted() + more, Instant::now());
        while self.accepted() < wanted {
            assert!(
                began.elapsed() < within,
                "{} writes more were to be accepted within {within:?}, and {} were",
                more,
                more - (wanted - self.accepted())
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets each finish what it is at, and tells what was accepted.
    ///
    /// # Panics
    /// If a writer has.
    pub async fn stop(self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let mut history = History { seed: self.seed, ..History::default() };
        for task in self.tasks {
            let writer = task.await.expect("a writer does not panic");
            for (state, count) in writer.failures {
                *history.failures.entry(state).or_default() += count;
            }
            history.unsettled.extend(writer.unsettled.map(|seq| (writer.number, seq)));
            history.accepted.push(writer.accepted);
        }
        history
    }
}

impl Writer {
    async fn work(
        mut self,
        mut place: watch::Receiver<Place>,
        stop: Arc<AtomicBool>,
        accepted: Arc<AtomicU64>,
        failed: Arc<AtomicU64>,
    ) -> Self {
        let mut link: Option<Link> = None;
        let mut told: Option<Instant> = None;
        let mut seq = 1;
        let mut tried = false;
        loop {
            if stop.load(Ordering::Relaxed) {
                let since = *told.get_or_insert_with(Instant::now);
                // What was never sent is no loss; what was sent is asked for as long as there is hope.
                if !tried {
                    break;
                }
                if since.elapsed() > SETTLE {
                    self.unsettled = Some(seq);
                    break;
                }
            }
            if place.has_changed().unwrap_or(false) {
                link = None;
            }
            let sent = self.began.elapsed();
            let outcome = async {
                let open = match &mut link {
                    Some(open) => open,
                    None => {
                        let wanted = place.borrow_and_update().clone();
                        link.insert(Link::open(&wanted).await?)
                    }
                };
                tried = true;
                open.write(self.seed, self.number, seq).await
            };
            match outcome.await {
                Ok(side) => {
                    let answered = self.began.elapsed();
                    self.accepted.push(Accepted {
                        writer: self.number,
                        seq,
                        sent,
                        answered,
                        side: side.unwrap_or_default(),
                    });
                    accepted.fetch_add(1, Ordering::Relaxed);
                    seq += 1;
                    tried = false;
                    if !self.think.is_zero() {
                        tokio::time::sleep(self.think).await;
                    }
                }
                Err(error) => {
                    let state = error.code().map_or_else(|| "connection".to_owned(), |code| code.code().to_owned());
                    *self.failures.entry(state).or_default() += 1;
                    failed.fetch_add(1, Ordering::Relaxed);
                    let usable = match &link {
                        Some(open) if error.code().is_some() && !open.client.is_closed() => {
                            open.client.batch_execute("ROLLBACK").await.is_ok()
                        }
                        _ => false,
                    };
                    if !usable {
                        link = None;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self
    }
}

/// A connection with what is prepared on it.
struct Link {
    client: Client,
    statements: Vec<Sql>,
}

struct Sql {
    text: String,
    types: Vec<Type>,
    /// None through a pooler.
    prepared: Option<Statement>,
}

const LOG: usize = 0;
const INSERT: usize = 1;
const UPDATE: usize = 2;
const DELETE: usize = 3;

impl Link {
    async fn open(place: &Place) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&place.url, NoTls).await?;
        tokio::spawn(connection);
        let (log, row) = (table(place.schema.as_deref(), "writer_log"), table(place.schema.as_deref(), "writer_row"));
        let texts = [
            (
                // Which side it was is read off the row's own table.
                format!(
                    "INSERT INTO {log} AS l (key, writer, seq, value) VALUES ($1, $2, $3, $4) ON CONFLICT (key) DO NOTHING
                     RETURNING pg_catalog.concat_ws(':', pg_catalog.current_database(), pg_catalog.current_setting('port'),
                         (SELECT c.relnamespace::pg_catalog.regnamespace FROM pg_catalog.pg_class AS c WHERE c.oid = l.tableoid))"
                ),
                vec![Type::TEXT, Type::INT4, Type::INT8, Type::TEXT],
            ),
            (
                format!("INSERT INTO {row} (id, writer, seq, value) VALUES ($1, $2, $3, $4)"),
                vec![Type::INT8, Type::INT4, Type::INT8, Type::TEXT],
            ),
            (
                format!("UPDATE {row} SET writer = $2, seq = $3, value = $4 WHERE id = $1"),
                vec![Type::INT8, Type::INT4, Type::INT8, Type::TEXT],
            ),
            (format!("DELETE FROM {row} WHERE id = $1"), vec![Type::INT8]),
        ];
        let mut statements = Vec::new();
        for (text, types) in texts {
            let prepared = if place.pooled { None } else { Some(client.prepare_typed(&text, &types).await?) };
            statements.push(Sql { text, types, prepared });
        }
        Ok(Self { client, statements })
    }

    /// One write, in one transaction: the side that took it, or none if it had been taken before.
    async fn write(&self, seed: u64, writer: usize, seq: u64) -> Result<Option<String>, tokio_postgres::Error> {
        let number = i32::try_from(writer).unwrap_or(i32::MAX);
        let (key, text, count) =
            (key(seed, writer, seq), value(seed, writer, seq), i64::try_from(seq).unwrap_or(i64::MAX));
        self.client.batch_execute("BEGIN").await?;
        let rows = self.run(LOG, &[&key, &number, &count, &text]).await?;
        let side = rows.first().map(|row| row.get::<_, String>(0));
        if side.is_some() {
            match op(writer, seq) {
                Op::Insert(id) => self.run(INSERT, &[&id, &number, &count, &text]).await?,
                Op::Update(id) => self.run(UPDATE, &[&id, &number, &count, &text]).await?,
                Op::Delete(id) => self.run(DELETE, &[&id]).await?,
            };
        }
        self.client.batch_execute("COMMIT").await?;
        Ok(side)
    }

    async fn run(
        &self,
        which: usize,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        let sql = &self.statements[which];
        match &sql.prepared {
            Some(prepared) => self.client.query(prepared, values).await,
            None => {
                let typed: Vec<_> = values.iter().copied().zip(sql.types.iter().cloned()).collect();
                self.client.query_typed(&sql.text, &typed).await
            }
        }
    }
}

impl History {
    /// Holds a final side against the history: each accepted write is there once, no other is, and the rows are as the writes
    /// leave them one after the other.
    ///
    /// # Errors
    /// If the side cannot be read.
    pub async fn verify(&self, client: &Client, schema: Option<&str>) -> Result<Verdict, tokio_postgres::Error> {
        let mut verdict = Verdict { writes: self.writes(), ..Verdict::default() };
        let log = format!("SELECT key, writer, seq, value FROM {} ORDER BY writer, seq", table(schema, "writer_log"));
        let mut found: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for row in client.query(&log, &[]).await? {
            let (key, value): (String, String) = (row.get(0), row.get(3));
            found.entry(key).and_modify(|one| one.0 += 1).or_insert((1, value));
        }
        let mut wanted_rows: BTreeMap<i64, (i64, String)> = BTreeMap::new();
        for writer in 0..self.accepted.len() {
            let (mut last, one_more) = self.bounds(writer);
            if one_more && found.contains_key(&key(self.seed, writer, last + 1)) {
                last += 1;
            }
            for seq in 1..=last {
                let (key, text) = (key(self.seed, writer, seq), value(self.seed, writer, seq));
                match found.remove(&key) {
                    None => verdict.lost.push(key),
                    Some((count, _)) if count > 1 => verdict.doubled.push(key),
                    Some((_, there)) if there != text => verdict.altered.push(key),
                    Some(_) => {}
                }
                let count = i64::try_from(seq).unwrap_or(i64::MAX);
                match op(writer, seq) {
                    Op::Insert(id) => drop(wanted_rows.insert(id, (count, text))),
                    Op::Update(id) => {
                        if let Some(row) = wanted_rows.get_mut(&id) {
                            *row = (count, text);
                        }
                    }
                    Op::Delete(id) => drop(wanted_rows.remove(&id)),
                }
            }
        }
        verdict.strange.extend(found.into_keys());
        let rows = format!("SELECT id, seq, value FROM {}", table(schema, "writer_row"));
        for row in client.query(&rows, &[]).await? {
            let (id, seq, value): (i64, i64, String) = (row.get(0), row.get(1), row.get(2));
            match wanted_rows.remove(&id) {
                None => verdict.strange.push(format!("row {id}")),
                Some(wanted) if wanted != (seq, value) => {
                    verdict.altered.push(format!("row {id}: of write {seq} instead of {}", wanted.0));
                }
                Some(_) => {}
            }
        }
        verdict.lost.extend(wanted_rows.into_keys().map(|id| format!("row {id}")));
        Ok(verdict)
    }
}
