//! The base copy: exact under its snapshot, and exact again after it was killed while others wrote.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::relation::{Filter, describe};
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::transfer::copy::{BaseCopyError, Copied, How, Pair, Told, copy, forget, pair, resume};
use tokio::sync::Notify;

async fn session(options: &ConnectOptions) -> Session {
    Session::connect(options, "test").await.unwrap()
}

/// A legacy database in `public`, with what a copy can stumble over, and its empty counterpart in the schema `health`.
const STRUCTURE: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE big (id bigint PRIMARY KEY, body text, felt mood[], refers regclass, n int NOT NULL DEFAULT 0,
    twice bigint GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE wide (a text COLLATE \"C\", b int GENERATED ALWAYS AS IDENTITY, long text, PRIMARY KEY (b, a));
CREATE TABLE keyless (id int, v int);
CREATE TABLE parted (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (MINVALUE) TO (500);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (500) TO (MAXVALUE);
CREATE TABLE empty (id int);";

const ROWS: &str = "
INSERT INTO big (id, body, felt, refers) SELECT n, repeat(md5(n::text), 1 + n % 7), '{ok,NULL}', 'wide' FROM generate_series(1, 6000) n;
INSERT INTO wide (a, long) SELECT 'k' || n, repeat(md5(n::text), 200) FROM generate_series(1, 800) n;
INSERT INTO keyless SELECT n, n FROM generate_series(1, 2000) n;
INSERT INTO parted SELECT n, n FROM generate_series(1, 1000) n;";

/// What writers did, to be done again elsewhere: a statement with the one table that it changes, in the order of each writer.
const LOG: &str = "CREATE SCHEMA log; CREATE TABLE log.done (n bigserial, writer int, xid xid8 DEFAULT pg_current_xact_id(), tab text, sql text)";

const TABLES: [&str; 6] = ["big", "wide", "keyless", "parted_low", "parted_high", "empty"];

struct Both {
    source: ConnectOptions,
    target: ConnectOptions,
}

async fn both(cluster: &Sandbox, other: &Sandbox) -> Both {
    let (source, target) =
        (cluster.fresh_database("copy_from").await.unwrap(), other.fresh_database("copy_to").await.unwrap());
    let from = session(&source).await;
    from.execute(&format!("{STRUCTURE}; {ROWS}; {LOG}; ANALYZE")).await.unwrap();
    let to = session(&target).await;
    // Types get other OIDs than at the source.
    to.execute("CREATE TYPE earlier AS ENUM ('a'); CREATE SCHEMA health; SET search_path = health").await.unwrap();
    to.execute(STRUCTURE).await.unwrap();
    // As migrations make them: what others refer to cannot be truncated.
    to.execute("CREATE TABLE refers (big bigint REFERENCES big ON DELETE CASCADE, b int, a text, parted int REFERENCES parted, FOREIGN KEY (b, a) REFERENCES wide)")
        .await
        .unwrap();
    Both { source, target }
}

impl Both {
    async fn pairs(&self) -> Vec<Pair> {
        let source = describe(&session(&self.source).await, "public", Filter::All).await.unwrap();
        let target = describe(&session(&self.target).await, "health", Filter::All).await.unwrap();
        pair(source, &target).unwrap()
    }

    /// Each table's rows in an order of their own, as one text.
    async fn contents(&self, of: &Session, schema: &str) -> Vec<String> {
        let mut all = Vec::new();
        of.execute(&format!("SET search_path = {schema}")).await.unwrap();
        for table in TABLES {
            let sql = format!(
                "SELECT count(*) || ' rows of {table}: ' || coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM {table} t"
            );
            all.push(of.value(&sql).await.unwrap());
        }
        all
    }
}

fn how<'a>(cancel: &'a Cancel, tell: &'a (dyn Fn(&Told) + Sync)) -> How<'a> {
    How { schema: "health", jobs: 3, range_bytes: 32 * 1024, cancel, tell, finished: None }
}

/// A session that keeps a snapshot, and its name.
async fn snapshot(source: &ConnectOptions) -> (Session, String) {
    let keeper = session(source).await;
    keeper.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let name = keeper.value("SELECT pg_export_snapshot()").await.unwrap();
    (keeper, name)
}

#[tokio::test]
async fn every_row_is_copied_and_hashed_under_the_snapshot() {
    let cluster = crate::bench::cluster().await;
    let both = both(&cluster, &cluster).await;
    let pairs = both.pairs().await;
    let (keeper, name) = snapshot(&both.source).await;
    let writer = session(&both.source).await;
    writer.execute("UPDATE big SET n = 1; DELETE FROM wide; INSERT INTO empty VALUES (1)").await.unwrap();
    let complete = Mutex::new(Vec::new());
    let tell = |told: &Told| {
        if told.is_complete {
            complete.lock().unwrap().push(told.table.clone());
        }
    };
    let cancel = Cancel::default();
    let copied = copy(&both.source, &name, &both.target, &pairs, &how(&cancel, &tell)).await.unwrap();
    assert_eq!(complete.lock().unwrap().len(), TABLES.len());
    assert_eq!(copied.rules, [], "it is the stream's own snapshot");
    let to = session(&both.target).await;
    assert_eq!(both.contents(&to, "health").await, both.contents(&keeper, "public").await);
    assert_eq!(
        to.value("SELECT count(*) FROM health.big WHERE refers = 'health.wide'::regclass").await.unwrap(),
        "6000"
    );
    let records = "SELECT count(*) > 20 AND sum(rows) = 6000 FROM pgrunbook.transfer_range WHERE relation = 'big'";
    assert_eq!(to.value(records).await.unwrap(), "t");
    // The sum is that of the target's rows, read back.
    let big = copied.tables.iter().find(|table| table.relation == "big").unwrap();
    let target = &pairs.iter().find(|pair| pair.target.name == "big").unwrap().target;
    assert_eq!(big.sum.unwrap(), sum_of(&to, target).await);

    let again = copy(&both.source, &name, &both.target, &pairs, &how(&cancel, &tell)).await.unwrap_err();
    assert!(matches!(again, BaseCopyError::Begun { .. }), "{again}");
    forget(&to, "health").await.unwrap();
    let again = copy(&both.source, &name, &both.target, &pairs, &how(&cancel, &tell)).await.unwrap_err();
    assert!(matches!(again, BaseCopyError::NotEmpty { .. }), "{again}");
}

async fn sum_of(session: &Session, table: &pgrunbook_postgres::relation::Table) -> pgrunbook_postgres::rowhash::RowSum {
    use futures_util::StreamExt;
    use pgrunbook_postgres::copy::{CopyError, RowSplitter, canonical};
    let list = pgrunbook_postgres::relation::select_list(&table.columns);
    let sql = format!("COPY (SELECT {list} FROM ONLY {}) TO STDOUT (FORMAT binary)", table.sql());
    let shapes: Vec<_> = table.travelling().map(|column| column.shape.clone()).collect();
    let (mut splitter, mut sum, mut scratch) =
        (RowSplitter::new(shapes.len() as u16), pgrunbook_postgres::rowhash::RowSum::default(), Vec::new());
    session.execute("SET search_path = health").await.unwrap();
    let mut stream = std::pin::pin!(session.client().copy_out(&sql).await.unwrap());
    while let Some(chunk) = stream.next().await {
        splitter
            .push(&chunk.unwrap(), |row| {
                sum.add(canonical(row, &shapes, &mut scratch)?);
                Ok::<_, CopyError>(())
            })
            .unwrap();
    }
    sum
}

/// Writes until told to stop: transactions of a few statements, with savepoints, each of them recorded. Writers have keys
/// of their own, so that the order between them does not matter.
async fn write(source: ConnectOptions, writer: u32, seed: u64, stop: Arc<AtomicBool>) -> u32 {
    let session = session(&source).await;
    let mut state = seed.wrapping_mul(2).wrapping_add(u64::from(writer)) | 1;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut transactions = 0;
    let mut fresh = 1_000_000 + u64::from(writer);
    while !stop.load(Ordering::SeqCst) {
        let mut sql = "BEGIN; SELECT pg_current_xact_id();".to_owned();
        for _ in 0..=next(3) {
            // Odd keys are one writer's, even ones the other's.
            let id = 2 * next(2900) + 2 + u64::from(writer);
            let value = next(1000);
            fresh += 2;
            let (table, statement) = match next(10) {
                0 => ("big", format!("DELETE FROM big WHERE id = {id}")),
                1 => ("big", format!("INSERT INTO big (id, body) VALUES ({fresh}, 'new')")),
                2 => ("big", format!("UPDATE big SET id = {fresh} WHERE id = {id}")),
                // A key that another row may have left.
                3 => ("big", format!("INSERT INTO big (id, body) VALUES ({id}, 'again') ON CONFLICT DO NOTHING")),
                4 => {
                    ("wide", format!("UPDATE wide SET a = 'm{fresh}' WHERE b = {}", 2 * (id % 400) + u64::from(writer)))
                }
                5 => ("keyless", format!("UPDATE keyless SET v = {value} WHERE id = {}", id % 2000)),
                6 => ("parted_low", format!("UPDATE parted_low SET v = {value} WHERE id = {}", id % 500)),
                _ => ("big", format!("UPDATE big SET n = {value}, body = body || 'x' WHERE id = {id}")),
            };
            let logged = statement.replace('\'', "''");
            let log = format!("INSERT INTO log.done (writer, tab, sql) VALUES ({writer}, '{table}', '{logged}')");
            sql.push_str(&format!("SAVEPOINT s; {statement}; {log}; RELEASE s;"));
            if next(4) == 0 {
                sql.push_str("SAVEPOINT r; UPDATE big SET n = -1 WHERE id % 2 = 5; ROLLBACK TO r;");
            }
        }
        sql.push_str("COMMIT");
        session.execute(&sql).await.unwrap();
        transactions += 1;
    }
    transactions
}

/// Does on the target what writers did since the first snapshot, as an applier would, passing over what the rules say.
async fn replay(both: &Both, first: &str, copied: &Copied) -> (u32, u32) {
    let (from, to) = (session(&both.source).await, session(&both.target).await);
    to.execute("SET search_path = health; SET session_replication_role = replica").await.unwrap();
    let sees = copied.rules.iter().fold("false".to_owned(), |sql, rule| {
        format!("{sql} OR (tab = '{}' AND pg_visible_in_snapshot(xid, '{}'))", rule.table, rule.snapshot)
    });
    let sql = format!("SELECT sql, {sees} FROM log.done WHERE NOT pg_visible_in_snapshot(xid, '{first}') ORDER BY n");
    let answers = from.simple(&sql).await.unwrap();
    let (mut done, mut passed, mut batch) = (0, 0, String::new());
    for row in &answers[0].rows {
        if row[1].as_deref() == Some("t") {
            passed += 1;
        } else {
            batch.push_str(row[0].as_deref().unwrap());
            batch.push(';');
            done += 1;
        }
    }
    to.execute(&batch).await.unwrap();
    (done, passed)
}

/// What kills a copy.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    FutureDropped,
    BackendsTerminated,
    TargetKilled,
}

/// Copies while others write, kills it again and again, resumes, replays, compares.
async fn survives(seed: u64, death: Death, source: &Sandbox, target: &Sandbox) {
    let both = both(source, target).await;
    let pairs = both.pairs().await;
    // Under way when the snapshot is taken: with the number of a subtransaction in its rows.
    let early = session(&both.source).await;
    early
        .execute(
            "BEGIN; SELECT pg_current_xact_id(); SAVEPOINT s; UPDATE big SET n = 77 WHERE id IN (1, 5999);
             INSERT INTO log.done (writer, tab, sql) VALUES (9, 'big', 'UPDATE big SET n = 77 WHERE id IN (1, 5999)')",
        )
        .await
        .unwrap();
    let (keeper, name) = snapshot(&both.source).await;
    let first = keeper.value("SELECT pg_current_snapshot()").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..2).map(|writer| tokio::spawn(write(both.source.clone(), writer, seed, Arc::clone(&stop)))).collect();
    let cancel = Cancel::default();
    let mut result = None;
    for round in 0..40u32 {
        let (heard, die) = (AtomicU32::new(0), Notify::new());
        // Each round gets further.
        let after = 1 + (seed as u32 + round * 7) % 5 + round * 3;
        let tell = |_: &Told| {
            if heard.fetch_add(1, Ordering::SeqCst) + 1 == after {
                die.notify_one();
            }
        };
        let how = how(&cancel, &tell);
        let run = async {
            if round == 0 {
                copy(&both.source, &name, &both.target, &pairs, &how).await
            } else {
                resume(&both.source, &both.target, &pairs, &how).await
            }
        };
        tokio::pin!(run);
        let ended = tokio::select! {
            ended = &mut run => Some(ended),
            () = die.notified() => match death {
                Death::FutureDropped => None,
                Death::BackendsTerminated => {
                    let admin = session(&both.target).await;
                    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgrunbook:copy' AND datname = current_database()").await.unwrap();
                    Some(run.await)
                }
                Death::TargetKilled => {
                    target.kill().unwrap();
                    target.restart().unwrap();
                    Some(run.await)
                }
            },
        };
        if round == 0 {
            early.execute("COMMIT").await.unwrap();
            keeper.execute("ROLLBACK").await.unwrap();
        }
        if let Some(Ok(copied)) = ended {
            result = Some(copied);
            break;
        }
    }
    let copied = result.expect("complete after forty rounds");
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        assert!(writer.await.unwrap() > 0, "somebody wrote meanwhile");
    }
    let (done, passed) = replay(&both, &first, &copied).await;
    let (from, to) = (session(&both.source).await, session(&both.target).await);
    let (there, here) = (both.contents(&from, "public").await, both.contents(&to, "health").await);
    assert_eq!(there, here, "seed {seed}, {death:?}: {done} replayed, {passed} passed over, rules {:?}", copied.rules);
    if death == Death::FutureDropped {
        assert!(!copied.rules.is_empty() && passed > 0, "seed {seed}: it was killed, so something was resumed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_whose_future_is_dropped_is_resumed_exactly() {
    let cluster = crate::bench::cluster().await;
    for seed in [1, 2, 3] {
        survives(seed, Death::FutureDropped, &cluster, &cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_whose_backends_are_terminated_goes_on() {
    let cluster = crate::bench::cluster().await;
    survives(4, Death::BackendsTerminated, &cluster, &cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_whose_target_crashes_is_resumed_exactly() {
    let cluster = crate::bench::cluster().await;
    let target = Sandbox::start(SandboxOptions::default()).await.unwrap();
    survives(5, Death::TargetKilled, &cluster, &target).await;
}
