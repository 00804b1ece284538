//! A large transaction is applied while the source still sends it, and whatever makes that wrong takes it back.

use std::time::{Duration, Instant};

use pgrunbook_postgres::apply::{Applier, ApplyError, Options, Rename};
use pgrunbook_postgres::pgoutput::{Early, Event};
use pgrunbook_postgres::receiver::{Receiver, Stopped};
use pgrunbook_postgres::spool::{Batch, Follow, Spool};
use pgrunbook_postgres::{ConnectOptions, Session};

use super::pair::{cluster, rows};
use super::random::Chance;
use crate::replication::PATIENCE;
use crate::stream::Rig;

/// Enough that the server sends many blocks of a change of all rows.
const NOTES: &str = "
    CREATE TABLE note (id int PRIMARY KEY, body text, n int DEFAULT 0);
    CREATE TABLE log (id int PRIMARY KEY);
    INSERT INTO note SELECT i, repeat('x', 50), 0 FROM generate_series(1, 3000) AS i";

/// All that follows one slot, and the two sides.
struct Live {
    rig: Rig,
    target: Session,
    to: ConnectOptions,
    spool: Spool,
    receiver: Receiver,
    follow: Follow,
    applier: Applier,
    fences: u32,
}

impl Live {
    /// The same tables and rows on both sides, and a slot from here on.
    async fn new(tables: &str) -> Self {
        Self::with(tables, options()).await
    }

    async fn with(tables: &str, options: Options) -> Self {
        let cluster = cluster().await;
        let from = cluster.fresh_database("source").await.unwrap();
        let to = cluster.fresh_database("target").await.unwrap();
        // Its blocks are as small as can be.
        let from = ConnectOptions { options: Some("-c logical_decoding_work_mem=64kB".to_owned()), ..from };
        let rig = Rig::new(&from, tables).await;
        let target = Session::connect(&to, "test").await.unwrap();
        target.execute("CREATE SCHEMA tenant; SET search_path = tenant").await.unwrap();
        target.execute(tables).await.unwrap();
        let (spool, receiver) = rig.receive().await;
        let applier = Applier::open(&to, options).await.unwrap();
        let follow = Follow::start_early(&spool, rig.start, rig.start).unwrap();
        Self { rig, target, to, spool, receiver, follow, applier, fences: 0 }
    }

    async fn session(&self) -> Session {
        Session::connect(self.rig.writer.options(), "test").await.unwrap()
    }

    /// Applies what comes next.
    async fn step(&mut self) -> Result<(), ApplyError> {
        let batch = tokio::time::timeout(PATIENCE, self.follow.next()).await.expect("more was to come");
        self.take(batch.unwrap().unwrap()).await
    }

    async fn take(&mut self, batch: Batch) -> Result<(), ApplyError> {
        for event in batch.events {
            self.applier.push(event).await?;
        }
        if batch.caught_up {
            self.applier.flush().await?;
        }
        Ok(())
    }

    /// Everything that is committed at the source is applied.
    async fn catch_up(&mut self) -> Result<(), ApplyError> {
        self.fences += 1;
        let fence = format!("f-{}", self.fences);
        let sql = format!("SELECT pg_logical_emit_message(true, 'pgrunbook', 'fence:{fence}')");
        self.rig.writer.simple(&sql).await.unwrap();
        while self.applier.position().marker.as_deref() != Some(&fence) {
            self.step().await?;
        }
        Ok(())
    }

    /// The destination's transaction that has written to a table, if there is one.
    async fn writing(&self) -> Option<String> {
        let sql = format!(
            "SELECT a.backend_xid FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
             WHERE l.pid = {} AND l.relation = 'tenant.note'::regclass AND l.mode = 'RowExclusiveLock' LIMIT 1",
            self.applier.backend_pid()
        );
        Some(self.target.value(&sql).await.unwrap()).filter(|xid| !xid.is_empty())
    }

    /// Applies until the destination's transaction has written.
    async fn until_it_writes(&mut self) -> String {
        self.until(|writing| writing.is_some()).await.unwrap()
    }

    /// Applies until nothing is written any more.
    async fn until_it_is_undone(&mut self) {
        self.until(|writing| writing.is_none()).await;
    }

    async fn until(&mut self, is_there: impl Fn(&Option<String>) -> bool) -> Option<String> {
        let begun = Instant::now();
        loop {
            let writing = self.writing().await;
            if is_there(&writing) {
                return writing;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not come about: {writing:?}");
            // When all that was sent is taken, the destination may still be at work on it.
            if let Ok(batch) = tokio::time::timeout(Duration::from_millis(50), self.follow.next()).await {
                self.take(batch.unwrap().unwrap()).await.unwrap();
            }
        }
    }

    /// A transaction of the source changes all rows and is not committed; at the destination it is written.
    async fn opened(&mut self, statement: &str) -> (Session, String) {
        let session = self.session().await;
        session.execute(&format!("BEGIN; {statement}")).await.unwrap();
        let xid = self.until_it_writes().await;
        assert_eq!(self.changed_by(&xid).await, 0, "nobody sees it");
        (session, xid)
    }

    /// How many rows are of a transaction of the destination.
    async fn changed_by(&self, xid: &str) -> u64 {
        let sql = format!("SELECT count(*) FROM tenant.note WHERE xmin::text = '{xid}'");
        self.target.value(&sql).await.unwrap().parse().unwrap()
    }

    /// Both sides are equal.
    async fn same(&self) {
        for table in ["note", "log"] {
            let source = rows(&self.rig.writer, &format!("public.{table}")).await;
            assert!(source == rows(&self.target, &format!("tenant.{table}")).await, "{table}: {} rows", source.len());
        }
    }

    /// As another process would.
    async fn open_again(&mut self) {
        let patient = Options { patience: PATIENCE, ..options() };
        self.applier = Applier::open(&self.to, patient).await.unwrap();
        let from = self.applier.position().lsn.max(self.rig.start);
        self.applier.reached(from);
        self.follow = Follow::start_early(&self.spool, from, from).unwrap();
    }

    async fn end(self) {
        let Self { rig, receiver, follow, .. } = self;
        drop(follow);
        assert!(matches!(receiver.stop().await, Stopped::Asked));
        rig.remove().await;
    }
}

fn options() -> Options {
    // On a busy machine blocks may be seconds apart.
    Options {
        batch_rows: 100,
        early_patience: PATIENCE,
        ..Options::new("tenant:forward", Rename::one("public", "tenant"))
    }
}

const ALL: &str = "UPDATE note SET n = n + 1";

#[tokio::test]
async fn open_transaction_is_written_and_committed_with_its_commit() {
    let mut live = Live::new(NOTES).await;
    let (session, xid) = live.opened(ALL).await;
    // Neither this nor that waits for its end, or ends it.
    let before = live.applier.flush().await.unwrap();
    assert_eq!(live.applier.settle().await.unwrap(), before);
    session.execute("INSERT INTO log VALUES (1); DELETE FROM note WHERE id > 2990; COMMIT").await.unwrap();
    live.catch_up().await.unwrap();
    assert_eq!(live.changed_by(&xid).await, 2990, "it was the transaction that was open");
    live.same().await;
    let position = live.applier.position();
    assert_eq!((position.transactions, position.changes), (2, 3000 + 1 + 10));
    let row = live.target.value("SELECT lsn FROM pgrunbook.stream").await.unwrap();
    assert_eq!(row, position.lsn.to_string());
    live.end().await;
}

#[tokio::test]
async fn whatever_makes_it_wrong_takes_it_back() {
    // What follows in the same transaction, what another does then, and how the first one ends.
    for (then, other, end) in [
        ("", "", "ROLLBACK"),
        ("SAVEPOINT b; DELETE FROM note WHERE id < 1500", "", "ROLLBACK TO a; INSERT INTO log VALUES (1); COMMIT"),
        (
            "SAVEPOINT b; SAVEPOINT c; DELETE FROM note WHERE id < 1500; RELEASE c",
            "",
            "ROLLBACK TO b; UPDATE note SET n = n + 10 WHERE id < 2000; COMMIT",
        ),
        // It sees what the other one has committed, and changes it.
        ("", "INSERT INTO note VALUES (5000, 'between', 7)", "UPDATE note SET n = 8 WHERE id = 5000; COMMIT"),
        ("", "INSERT INTO log VALUES (1)", "DELETE FROM log; COMMIT"),
        ("", "INSERT INTO log VALUES (1)", "ROLLBACK"),
        ("TRUNCATE log; INSERT INTO note SELECT i, '', 1 FROM generate_series(6000, 9000) AS i", "", "COMMIT"),
    ] {
        let mut live = Live::new(NOTES).await;
        let (session, xid) = live.opened(&format!("SAVEPOINT a; {ALL}")).await;
        session.execute(then).await.unwrap();
        if !other.is_empty() {
            live.rig.writer.execute(other).await.unwrap();
            live.until_it_is_undone().await;
            // Also of this: everything of the others is applied while it is open, and stays.
            live.catch_up().await.unwrap();
        }
        session.execute(end).await.unwrap();
        live.catch_up().await.unwrap();
        assert_eq!(live.changed_by(&xid).await, 0, "{then}; {other}; {end}");
        live.same().await;
        live.end().await;
    }
}

#[tokio::test]
async fn it_is_let_go_where_it_is_in_the_way_or_stands_still() {
    for settles in [true, false] {
        let mut live = Live::with(NOTES, Options { early_patience: Duration::ZERO, ..options() }).await;
        let (session, xid) = live.opened(ALL).await;
        let done = if settles { live.applier.settle().await.map(drop) } else { live.applier.let_go().await };
        done.unwrap();
        assert_eq!(live.writing().await, None);
        // Nobody waits for its locks.
        live.target.execute("BEGIN; LOCK TABLE tenant.note; COMMIT").await.unwrap();
        session.execute(ALL).await.unwrap();
        session.execute("COMMIT").await.unwrap();
        live.catch_up().await.unwrap();
        assert_eq!(live.changed_by(&xid).await, 0);
        live.same().await;
        live.end().await;
    }
}

#[tokio::test]
async fn what_the_destination_refuses_is_an_error_once_it_is_committed() {
    for commits in [false, true] {
        let mut live = Live::new(NOTES).await;
        live.target.execute("DELETE FROM tenant.note WHERE id = 1500").await.unwrap();
        let (session, _) = live.opened(&format!("{ALL} WHERE id < 1000")).await;
        // Behind the row that is missing there is more, and no error.
        session.execute(&format!("{ALL} WHERE id >= 1000")).await.unwrap();
        live.until_it_is_undone().await;
        live.rig.writer.execute("INSERT INTO log VALUES (1)").await.unwrap();
        live.catch_up().await.unwrap();
        assert_eq!(rows(&live.target, "tenant.log").await.len(), 1);
        if !commits {
            session.execute("ROLLBACK").await.unwrap();
            live.catch_up().await.unwrap();
            live.end().await;
            continue;
        }
        session.execute("COMMIT").await.unwrap();
        let after = live.rig.writer.value("SELECT pg_current_wal_insert_lsn()").await.unwrap().parse().unwrap();
        let error = live.catch_up().await.unwrap_err();
        let ApplyError::Conflict { key, lsn, .. } = &error else { panic!("{error}") };
        assert!(key == "id=1500" && *lsn > live.applier.position().lsn && *lsn < after, "{error}");
        live.end().await;
    }
}

#[tokio::test]
async fn table_that_an_open_transaction_changed_is_not_known_before_it_commits() {
    let mut live = Live::new(NOTES).await;
    let known = "SELECT count(*) FROM pgrunbook.stream_relation";
    let (session, _) = live.opened(ALL).await;
    session.execute("ROLLBACK").await.unwrap();
    live.catch_up().await.unwrap();
    assert_eq!(live.target.value(known).await.unwrap(), "0");
    let (session, xid) = live.opened(ALL).await;
    session.execute("COMMIT").await.unwrap();
    live.catch_up().await.unwrap();
    assert_eq!((live.changed_by(&xid).await, live.target.value(known).await.unwrap().as_str()), (3000, "1"));
    // As another table it stops nothing before its commit.
    let session = live.session().await;
    session.execute(&format!("BEGIN; ALTER TABLE note ADD more int; {ALL}; ROLLBACK")).await.unwrap();
    live.catch_up().await.unwrap();
    session.execute(ALL).await.unwrap();
    live.catch_up().await.unwrap();
    live.same().await;
    session.execute(&format!("BEGIN; ALTER TABLE note ADD more int; {ALL}; COMMIT")).await.unwrap();
    let error = live.catch_up().await.unwrap_err();
    assert!(matches!(error, ApplyError::RelationChanged { .. }), "{error}");
    live.end().await;
}

#[tokio::test]
async fn crash_in_the_middle_leaves_nothing_and_loses_nothing() {
    let mut live = Live::new(NOTES).await;
    let (session, xid) = live.opened(ALL).await;
    let before = live.applier.position();
    live.target.execute(&format!("SELECT pg_terminate_backend({})", live.applier.backend_pid())).await.unwrap();
    session.execute(&format!("{ALL}; COMMIT")).await.unwrap();
    let error = live.catch_up().await.unwrap_err();
    // What it was doing may be told why.
    assert!(error.may_pass(), "{error}");
    assert_eq!(live.changed_by(&xid).await, 0);
    live.open_again().await;
    assert_eq!(live.applier.position().transactions, before.transactions);
    live.catch_up().await.unwrap();
    live.same().await;
    assert_eq!(live.target.value("SELECT DISTINCT n FROM tenant.note").await.unwrap(), "2");
    // What is applied is not told early again, or at all.
    let (session, _) = live.opened(ALL).await;
    session.execute("COMMIT").await.unwrap();
    live.catch_up().await.unwrap();
    let applied = live.applier.position().lsn;
    live.follow = Follow::start_early(&live.spool, live.rig.start, applied).unwrap();
    let mut events = Vec::new();
    while !matches!(events.last(), Some(Event::Commit(commit)) if commit.end_lsn >= applied) {
        events.extend(tokio::time::timeout(PATIENCE, live.follow.next()).await.unwrap().unwrap().unwrap().events);
    }
    assert!(!events.iter().any(|event| matches!(event, Event::Early(_))));
    for event in events {
        live.applier.push(event).await.unwrap();
    }
    live.catch_up().await.unwrap();
    live.same().await;
    live.end().await;
}

#[tokio::test]
async fn walsender_that_is_killed_in_the_middle_sends_it_again() {
    let mut live = Live::new(NOTES).await;
    let (session, xid) = live.opened(ALL).await;
    let name = &live.rig.what.application_name;
    let kill =
        format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication WHERE application_name = '{name}'");
    assert_eq!(live.rig.writer.value(&kill).await.unwrap(), "1");
    session.execute(&format!("{ALL}; COMMIT")).await.unwrap();
    live.catch_up().await.unwrap();
    assert_eq!(live.changed_by(&xid).await, 0);
    live.same().await;
    assert_eq!(live.target.value("SELECT DISTINCT n FROM tenant.note").await.unwrap(), "2");
    live.end().await;
}

#[tokio::test]
async fn echo_is_passed_over_also_while_it_is_open() {
    let options = Options { skip_applied_by: Some("tenant:reverse".to_owned()), ..options() };
    let mut live = Live::with(NOTES, options).await;
    let echo = "SELECT pg_logical_emit_message(true, 'pgrunbook', 'applied:tenant:reverse')";
    let session = live.session().await;
    session.execute(&format!("BEGIN; {echo}; {ALL}")).await.unwrap();
    // It is told early, and nothing of it is written.
    let mut told = 0;
    while told < 1000 {
        let batch = tokio::time::timeout(PATIENCE, live.follow.next()).await.unwrap().unwrap().unwrap();
        for event in batch.events {
            told += usize::from(matches!(event, Event::Early(Early::Change(_))));
            live.applier.push(event).await.unwrap();
        }
    }
    assert_eq!(live.writing().await, None);
    session.execute("COMMIT").await.unwrap();
    live.catch_up().await.unwrap();
    assert_eq!(live.applier.position().transactions, 1, "the fence");
    assert_eq!(live.target.value("SELECT DISTINCT n FROM tenant.note").await.unwrap(), "0");
    live.end().await;
}

/// Two sessions that change the same rows, in small and large transactions, with parts and wholes rolled back.
async fn random_transactions_arrive(seed: u64) {
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let mut live = Live::new(NOTES).await;
    let sessions = [live.session().await, live.session().await];
    for session in &sessions {
        session.execute("SET lock_timeout = '20ms'").await.unwrap();
    }
    for _ in 0..60 {
        let session = &sessions[usize::from(chance.below(4) == 0)];
        let (id, n) = (chance.below(3000), chance.below(9));
        let statement = match chance.below(16) {
            0..3 => "BEGIN".to_owned(),
            3 => "SAVEPOINT s".to_owned(),
            4 => "ROLLBACK TO s".to_owned(),
            5 => "ROLLBACK".to_owned(),
            6..8 => "COMMIT".to_owned(),
            8..11 => format!("UPDATE note SET n = n + {n} WHERE id > {id}"),
            11 => format!("DELETE FROM note WHERE id BETWEEN {id} AND {}", id + 40),
            12 => format!("INSERT INTO note SELECT max(id) + 1, 'more', {n} FROM note"),
            13 => format!("UPDATE note SET id = -id WHERE id > {}", 2900 + n * 10),
            14 => format!("INSERT INTO log VALUES ({n}) ON CONFLICT DO NOTHING"),
            _ => format!("DELETE FROM log WHERE id > {n}"),
        };
        // What cannot be done is not done; a transaction in which it could not ends with a rollback.
        let _ = session.execute(&statement).await;
        // Now and then nothing is taken, so that more comes together.
        while chance.below(3) > 0
            && let Ok(batch) = tokio::time::timeout(Duration::from_millis(20), live.follow.next()).await
        {
            let batch = batch.unwrap().unwrap();
            for event in batch.events {
                live.applier.push(event).await.unwrap();
            }
            match chance.below(20) {
                0 => live.applier.let_go().await.unwrap(),
                1 => drop(live.applier.settle().await.unwrap()),
                _ => {}
            }
        }
        if chance.below(25) == 0 {
            live.target.execute(&format!("SELECT pg_terminate_backend({})", live.applier.backend_pid())).await.unwrap();
            live.open_again().await;
        }
    }
    for session in &sessions {
        // What failed in it makes a rollback of it.
        session.execute("COMMIT").await.unwrap();
    }
    live.catch_up().await.unwrap();
    live.same().await;
    live.end().await;
}

#[tokio::test]
async fn random_transactions_arrive_while_they_are_open() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    for seed in [1, 2, 3, u64::from(now.subsec_nanos())] {
        random_transactions_arrive(seed).await;
    }
}
