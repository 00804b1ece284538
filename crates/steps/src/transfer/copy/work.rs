//! Workers that take ranges until none is left, the largest table's first.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::relation::{Shape, column_list, select_list};
use pgrunbook_postgres::{ConnectOptions, Lsn, PgError, Session};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::error::BaseCopyError;
use super::pipe::{Broken, Flow, pipe};
use super::record::{Plan, text};
use super::session::{Holder, reader, searching, writer};
use super::settle::settle;
use super::stage::Stage;
use super::{How, Pair, Told};
use crate::transfer::state;

/// How often a range is tried whose connection was lost: a server that is restarted comes back in a few seconds.
const ATTEMPTS: u32 = 5;

/// The pause after the first loss; it doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// What a table's rows are when all its ranges are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// All of it.
    Whole,
    /// All of it, in a table that others refer to: it cannot be truncated.
    Referenced,
    /// Only rows that no transaction has written since the plan's snapshot; then it is settled.
    Settled,
}

impl Rest {
    /// What empties a table of the target within a transaction. It waits for whatever of a dead copy is still being committed.
    pub fn emptied(self, table: &str) -> String {
        match self {
            Self::Whole | Self::Settled => format!("TRUNCATE ONLY {table}"),
            Self::Referenced => format!(
                "LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE; SET LOCAL session_replication_role = replica;
                 DELETE FROM ONLY {table}; SET LOCAL session_replication_role = DEFAULT"
            ),
        }
    }
}

/// A table and what is to be done for it.
pub(super) struct TableWork {
    pub pair: Pair,
    pub plan: Plan,
    pub shapes: Vec<Shape>,
    /// How its rows get in where some columns travel as text.
    pub stage: Option<Stage>,
    pub rest: Rest,
    left: AtomicUsize,
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl TableWork {
    /// Its missing ranges.
    pub fn new(pair: &Pair, plan: Plan, rest: Rest) -> Self {
        Self {
            shapes: pair.source.travelling().map(|column| column.shape.clone()).collect(),
            stage: Stage::of(pair),
            left: AtomicUsize::new(usize::try_from(plan.ranges).unwrap_or(0).saturating_sub(plan.done.len())),
            pair: pair.clone(),
            plan,
            rest,
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    fn moved(&self) -> (u64, u64) {
        (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Emptied and filled in one transaction: then the rows can be frozen.
    fn is_sole(&self) -> bool {
        self.plan.ranges == 1 && self.rest == Rest::Whole
    }

    fn is_settled_after(&self) -> bool {
        self.rest == Rest::Settled
    }

    fn bounds(&self, range: i32) -> (i64, Option<i64>) {
        let low = i64::from(range) * self.plan.range_pages;
        (low, (range + 1 < self.plan.ranges).then(|| low + self.plan.range_pages))
    }

    /// The rows of a range at the source.
    fn read(&self, range: i32) -> String {
        let mut conditions = Vec::new();
        let (low, high) = self.bounds(range);
        if low > 0 {
            conditions.push(format!("ctid >= '({low},0)'::pg_catalog.tid"));
        }
        if let Some(high) = high {
            conditions.push(format!("ctid < '({high},0)'::pg_catalog.tid"));
        }
        if self.is_settled_after() {
            conditions.push(super::settle::unchanged(&self.plan.base));
        }
        let mut select =
            format!("SELECT {} FROM ONLY {}", select_list(&self.pair.source.columns), self.pair.source.sql());
        if !conditions.is_empty() {
            select.push_str(&format!(" WHERE {}", conditions.join(" AND ")));
        }
        format!("COPY ({select}) TO STDOUT (FORMAT binary)")
    }
}

/// One range of one table, or the settling of it.
#[derive(Debug, Clone, Copy)]
enum Task {
    Range { table: usize, range: i32 },
    Settle { table: usize },
}

/// What the workers share. They send no messages to each other: each takes the next task.
pub(super) struct Shared {
    pub source: ConnectOptions,
    pub target: ConnectOptions,
    pub exported: String,
    pub snapshot: String,
    pub after: Lsn,
    pub schema: String,
    pub tables: Vec<TableWork>,
    queue: Mutex<VecDeque<Task>>,
    cancel: Cancel,
}

/// A worker's word that a table moved on, or is complete.
struct Moved {
    table: usize,
    is_complete: bool,
}

/// Does all that is to be done for the tables, and returns them.
pub(super) async fn run(
    source: &ConnectOptions,
    target: &ConnectOptions,
    holder: &Holder,
    tables: Vec<TableWork>,
    how: &How<'_>,
) -> Result<(), BaseCopyError> {
    let mut order: Vec<usize> = (0..tables.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(tables[*at].pair.source.bytes));
    let mut queue = VecDeque::new();
    for table in order {
        let work = &tables[table];
        let missing = (0..work.plan.ranges).filter(|range| work.plan.done.binary_search(range).is_err());
        queue.extend(missing.map(|range| Task::Range { table, range }));
        if work.is_settled_after() && work.left.load(Ordering::Relaxed) == 0 {
            queue.push_back(Task::Settle { table });
        }
    }
    let shared = Arc::new(Shared {
        source: source.clone(),
        target: target.clone(),
        exported: holder.exported.clone(),
        snapshot: holder.snapshot.clone(),
        after: holder.after,
        schema: how.schema.to_owned(),
        tables,
        queue: Mutex::new(queue),
        cancel: how.cancel.clone(),
    });
    let begun = Instant::now();
    let (sender, mut heard) = mpsc::channel(256);
    // Dropped with this future, and the workers with it.
    let mut workers = JoinSet::new();
    for _ in 0..how.jobs.max(1) {
        workers.spawn(work(Arc::clone(&shared), sender.clone()));
    }
    drop(sender);
    let mut finished = BTreeSet::new();
    let mut hear = |moved: Moved| {
        let table = &shared.tables[moved.table];
        let (rows, bytes) = table.moved();
        let name = table.pair.target.name.clone();
        (how.tell)(&Told {
            table: name.clone(),
            rows,
            bytes,
            elapsed: begun.elapsed(),
            is_complete: moved.is_complete,
        });
        if moved.is_complete {
            finished.insert(name);
            if let Some(sender) = how.finished {
                sender.send_modify(|set| set.extend(finished.iter().cloned()));
            }
        }
    };
    loop {
        tokio::select! {
            Some(moved) = heard.recv() => hear(moved),
            ended = workers.join_next() => match ended {
                Some(Ok(result)) => result?,
                Some(Err(error)) => return Err(BaseCopyError::Task(error.to_string())),
                None => break,
            },
            () = how.cancel.aborting() => return Err(BaseCopyError::Stopped),
        }
    }
    while let Ok(moved) = heard.try_recv() {
        hear(moved);
    }
    Ok(())
}

/// Takes tasks until none is left.
async fn work(shared: Arc<Shared>, sender: mpsc::Sender<Moved>) -> Result<(), BaseCopyError> {
    let mut sessions = None;
    loop {
        let task = shared.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(task) = task else { return Ok(()) };
        if shared.cancel.is_stopping() {
            return Err(BaseCopyError::Stopped);
        }
        let (Task::Range { table, .. } | Task::Settle { table }) = task;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match once(&shared, task, &mut sessions, &sender).await {
                Ok(()) => break,
                // Whatever became of the range: its record says so at the next attempt.
                Err(error) if attempt < ATTEMPTS && is_loss(&error) => {
                    sessions = None;
                    tokio::time::sleep(PAUSE * 2_u32.pow(attempt - 1)).await;
                }
                Err(error) => return Err(error),
            }
        }
        let work = &shared.tables[table];
        let is_complete = match task {
            Task::Settle { .. } => true,
            Task::Range { .. } => {
                let is_last = work.left.fetch_sub(1, Ordering::SeqCst) == 1;
                if is_last && work.is_settled_after() {
                    shared.queue.lock().unwrap_or_else(PoisonError::into_inner).push_front(Task::Settle { table });
                }
                is_last && !work.is_settled_after()
            }
        };
        let _ = sender.send(Moved { table, is_complete }).await;
    }
}

fn is_loss(error: &BaseCopyError) -> bool {
    let (BaseCopyError::Table { error, .. } | BaseCopyError::Server(error)) = error else { return false };
    // What a session that stands is told of a statement, it would be told again.
    !matches!(error, PgError::Server(_)) && error.may_pass()
}

async fn once(
    shared: &Shared,
    task: Task,
    sessions: &mut Option<(Session, Session)>,
    sender: &mpsc::Sender<Moved>,
) -> Result<(), BaseCopyError> {
    if sessions.is_none() {
        let reader = reader(&shared.source, &shared.exported).await?;
        *sessions = Some((reader, writer(&shared.target).await?));
    }
    let Some((source, target)) = sessions else { return Ok(()) };
    match task {
        Task::Range { table, range } => {
            let told = |rows: u64, bytes: u64| {
                let work = &shared.tables[table];
                work.rows.fetch_add(rows, Ordering::Relaxed);
                work.bytes.fetch_add(bytes, Ordering::Relaxed);
                // Full: somebody else's word is on its way.
                let _ = sender.try_send(Moved { table, is_complete: false });
            };
            copy_range(shared, &shared.tables[table], range, (source, target), told).await
        }
        Task::Settle { table } => settle(shared, &shared.tables[table], source, target).await,
    }
}

/// Copies a range and records it, in one transaction; nothing if it is recorded already.
async fn copy_range(
    shared: &Shared,
    work: &TableWork,
    range: i32,
    (source, target): (&Session, &Session),
    told: impl FnMut(u64, u64),
) -> Result<(), BaseCopyError> {
    let table = work.pair.target.sql();
    let failed = |error: PgError| BaseCopyError::Table { table: table.clone(), error };
    source.execute(&searching(&work.pair.source.schema)).await.map_err(failed)?;
    let (low, high) = work.bounds(range);
    let record = format!(
        "schema = {} AND relation = {} AND range_no = {range}",
        text(&shared.schema),
        text(&work.pair.target.name)
    );
    // First of all: it waits for a predecessor whose last COMMIT is still under way, and finds its row.
    let claim = format!(
        "BEGIN; {}; INSERT INTO pgrunbook.transfer_range
             (schema, relation, range_no, low, high, rows, bytes, sum_a, sum_b, snapshot)
         VALUES ({}, {}, {range}, {low}, {}, 0, 0, 0, 0, {}) ON CONFLICT DO NOTHING",
        searching(&work.pair.target.schema).replace("SET ", "SET LOCAL "),
        text(&shared.schema),
        text(&work.pair.target.name),
        high.map_or_else(|| "NULL".to_owned(), |high| high.to_string()),
        text(&shared.snapshot)
    );
    let answers = target.simple(&claim).await.map_err(failed)?;
    if answers.last().is_none_or(|answer| answer.affected == 0) {
        target.execute("ROLLBACK").await.map_err(failed)?;
        return Ok(());
    }
    let freeze = if work.is_sole() && work.stage.is_none() { ", FREEZE" } else { "" };
    if work.is_sole() {
        target.execute(&format!("TRUNCATE ONLY {table}")).await.map_err(failed)?;
    }
    let write = match &work.stage {
        None => {
            format!("COPY {table} ({}) FROM STDIN (FORMAT binary{freeze})", column_list(&work.pair.source.columns))
        }
        Some(stage) => {
            target.execute(&stage.make()).await.map_err(failed)?;
            stage.fill()
        }
    };
    let flow = through(work, (source, &work.read(range)), (target, &write), told).await?;
    let mut end = String::new();
    if let Some(stage) = &work.stage {
        end.push_str(&stage.empty_into(&table));
        end.push_str("; ");
    }
    let [a, b] = flow.sum.sums.map(u64::cast_signed);
    end.push_str(&format!(
        "UPDATE pgrunbook.transfer_range SET rows = {}, bytes = {}, sum_a = {a}, sum_b = {b},
             at = pg_catalog.clock_timestamp() WHERE {record}; COMMIT",
        flow.sum.rows, flow.bytes
    ));
    state::write(target, &end).await.map_err(failed)
}

/// A pipe whose errors name the table.
pub(super) async fn through(
    work: &TableWork,
    read: (&Session, &str),
    write: (&Session, &str),
    told: impl FnMut(u64, u64),
) -> Result<Flow, BaseCopyError> {
    pipe(read, write, &work.shapes, told).await.map_err(|broken| match broken {
        Broken::Source(error) => BaseCopyError::Table { table: work.pair.source.sql(), error },
        Broken::Target(error) => BaseCopyError::Table { table: work.pair.target.sql(), error },
        Broken::Format(error) => BaseCopyError::Format { table: work.pair.source.sql(), error },
    })
}
