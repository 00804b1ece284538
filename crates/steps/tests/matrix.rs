//! What can go wrong with a transfer as a whole, and what is then certainly safe. The other lines of the matrix have their tests
//! nearer to what breaks: `docs/decisions/0010-failure-matrix.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use pgrunbook_engine::{Clock, RunEnd, RunOptions};
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, url};
use pgrunbook_postgres::{ConnectOptions, Session};

use crate::bench::{Bench, failure};
use crate::small_disk::SmallDisk;
use crate::transfer::{GO, LEGACY, MOVE, Move, logical};

const HEAD: &str = "# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n";
const FOLLOW: &str =
    "## Follow\n\n```toml step\nfollow = \"near\"\ntarget = \"main\"\nschema = \"health\"\npatience = \"60s\"\n```\n\n";

/// Loads, and then stops: what follows is another run.
async fn loaded(this: &Move, transfer: &str) {
    let (_, end) = this.bench.run(transfer).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
}

/// Waits until a question answers `t`.
async fn until(options: &ConnectOptions, sql: &str) {
    let (session, begun) = (Session::connect(options, "test").await.unwrap(), Instant::now());
    while session.value(sql).await.unwrap() != "t" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come about: {sql}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writer_that_holds_its_row_through_the_freeze_goes_on_and_nothing_is_changed() {
    let target = own(&[]).await;
    let this = Move::at(&logical().await, &target).await;
    loaded(&this, MOVE).await;
    let writer = this.session().await;
    writer.execute("BEGIN; UPDATE visit SET what = 'held' WHERE id = 1").await.unwrap();
    let (run, end) = this.bench.run(&format!("{HEAD}{}", GO.replace("20s", "2s"))).await;
    let (step, _, message) = failure(&end);
    assert_eq!(step, "go", "{message}");
    assert!(message.contains("go on where they were"), "{message}");
    // Whoever waited behind the lock is not behind it any more, and the writer commits.
    this.at_legacy("UPDATE visit SET what = 'beside' WHERE id = 2").await;
    writer.execute("COMMIT").await.unwrap();
    assert_eq!(this.bench.value("SELECT phase FROM pgrunbook.transfer WHERE schema = 'health'").await, "following");
    let end = this.bench.resume(&run).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.is_equal().await;
    assert_eq!(
        this.bench.value("SELECT string_agg(what, ' ' ORDER BY id) FROM health.visit WHERE id <= 2").await,
        "held beside"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_one_cuts_over_and_the_other_changes_nothing() {
    // Two clusters: a writer's transaction on the target's own would hold up the slot for the way back.
    let target = own(&[]).await;
    let this = Move::at(&logical().await, &target).await;
    loaded(&this, MOVE).await;
    let mut other = Bench::on(this.bench.database.clone());
    other.config(&format!("[targets.old]\nurl = \"{}\"\n", url(&this.legacy)));
    let go = format!("{HEAD}{GO}");
    let (mine, theirs) = (this.bench.begin(&go).await, other.begin(&go).await);
    // The first waits for a writer, so that the second certainly comes meanwhile.
    let writer = this.session().await;
    writer.execute("BEGIN; UPDATE visit SET what = 'held' WHERE id = 1").await.unwrap();
    let (engine, options) = (this.bench.engine().await, RunOptions::default());
    let first = engine.run(&mine, &options, &this.bench.hand);
    let second = async {
        until(&this.bench.database, "SELECT phase = 'forth' FROM pgrunbook.transfer WHERE schema = 'health'").await;
        let engine = other.engine().await;
        let end = engine.run(&theirs, &RunOptions::default(), &other.hand).await;
        writer.execute("COMMIT").await.unwrap();
        end
    };
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(first, Ok(RunEnd::Completed)), "{first:?}");
    assert!(!matches!(second, Ok(RunEnd::Completed)), "{second:?}");
    this.is_equal().await;
    assert_eq!(this.bench.value("SELECT phase FROM pgrunbook.transfer WHERE schema = 'health'").await, "switched");
    let refused = this.session().await.execute("DELETE FROM note").await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("25006"), "{refused}");
    this.bench.execute("INSERT INTO health.visit (what) VALUES ('open')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_spool_stops_the_stream_and_drops_the_slot_and_the_source_goes_on() {
    let this = Move::new().await;
    loaded(&this, &MOVE.replace("undo =", "spool_limit = 200000\nundo =")).await;
    // Held up at the target, while the source writes more than the spool may take.
    let holder = this.bench.session().await;
    holder.execute("BEGIN; LOCK TABLE health.note IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let write = "UPDATE note SET text = repeat(md5(random()::text), 30)";
    this.at_legacy(write).await;
    let (_, end) = this.bench.run(&format!("{HEAD}{FOLLOW}")).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "stream-spool", "{message}");
    assert!(message.contains("was dropped, so that its server's disk does not fill"), "{message}");
    holder.execute("ROLLBACK").await.unwrap();
    let left = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(this.legacy_value(left).await, "0");
    this.at_legacy("INSERT INTO visit (what) VALUES ('the source goes on')").await;
    // Nobody cuts over with what is not whole.
    let (_, end) = this.bench.run(&format!("{HEAD}{GO}")).await;
    assert_eq!(failure(&end).1, "stream-spool", "{end:?}");
}

async fn own(settings: &[(&str, &str)]) -> Sandbox {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sandbox::start(SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slot_that_the_server_gave_up_stops_the_stream_and_says_so() {
    let cluster = own(&[
        ("wal_level", "logical"),
        ("max_slot_wal_keep_size", "1MB"),
        ("max_wal_size", "32MB"),
        ("min_wal_size", "32MB"),
    ])
    .await;
    let this = Move::at(&cluster, &cluster).await;
    loaded(&this, MOVE).await;
    // Nobody follows between two runs.
    let session = this.session().await;
    for _ in 0..6 {
        session
            .execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000)) FROM generate_series(1, 20)")
            .await
            .unwrap();
        session.execute("SELECT pg_switch_wal()").await.unwrap();
        session.execute("CHECKPOINT").await.unwrap();
    }
    until(
        &this.legacy,
        "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name LIKE 'pgrunbook%forward'",
    )
    .await;
    let trouble = async || {
        let all = pgrunbook_steps::transfer::status(&this.bench.workplace().await, "main", None).await.unwrap();
        assert_eq!(all[0].to_json()["trouble"].as_str(), all[0].trouble.as_deref());
        all[0].trouble.clone().unwrap_or_default()
    };
    // It is told before anybody follows.
    assert!(trouble().await.starts_with("the forward slot was lost"), "{}", trouble().await);
    let (_, end) = this.bench.run(&format!("{HEAD}{FOLLOW}")).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "stream-slot", "{message}");
    this.at_legacy("UPDATE visit SET what = 'the source goes on' WHERE id = 1").await;
    session.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").await.unwrap();
    assert!(trouble().await.starts_with("there is no forward slot"), "{}", trouble().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn target_without_a_connection_left_is_waited_for() {
    let cluster =
        own(&[("wal_level", "logical"), ("max_connections", "40"), ("superuser_reserved_connections", "0")]).await;
    let source = own(&[("wal_level", "logical")]).await;
    let this = Move::at(&source, &cluster).await;
    loaded(&this, MOVE).await;
    this.at_legacy("UPDATE visit SET what = 'late' WHERE id <= 100").await;
    // All but those that the run itself needs to begin; the lane finds none.
    let run = this.bench.begin(&format!("{HEAD}{FOLLOW}{GO}")).await;
    let mut hogs = Vec::new();
    let error = loop {
        match Session::connect(&this.bench.database, "hog").await {
            Ok(session) => hogs.push(session),
            Err(error) => break error,
        }
    };
    assert_eq!(error.sqlstate(), Some("53300"), "{error}");
    let engine = this.bench.engine().await;
    let first = engine.run(&run, &RunOptions::default(), &this.bench.hand).await;
    assert!(!matches!(first, Ok(RunEnd::Completed)), "{first:?}");
    // Nothing of the source was touched.
    this.at_legacy("UPDATE visit SET what = 'later' WHERE id = 1").await;
    // In the middle of following they come back one after the other.
    let freed = async {
        while let Some(hog) = hogs.pop() {
            drop(hog);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let again = async {
        loop {
            if let Ok(RunEnd::Completed) = engine.run(&run, &RunOptions::default(), &this.bench.hand).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), async { tokio::join!(freed, again) }).await.unwrap();
    this.is_equal().await;
}

/// Rows cannot be copied into `note` of the target before this ends.
pub async fn held(this: &Move) -> Session {
    let target = this.bench.session().await;
    let tables = LEGACY.lines().filter(|line| !line.contains("INSERT INTO")).collect::<Vec<_>>().join("\n");
    target
        .execute(&format!("CREATE SCHEMA health; SET search_path = health; {tables}; RESET search_path"))
        .await
        .unwrap();
    // Another migration's, with a row that is none of the transfer's.
    target
        .execute(
            "CREATE TABLE health.seed (visit bigint REFERENCES health.visit); INSERT INTO health.seed VALUES (NULL)",
        )
        .await
        .unwrap();
    let holder = this.bench.session().await;
    holder.execute("BEGIN; LOCK TABLE health.note IN EXCLUSIVE MODE").await.unwrap();
    holder
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_that_runs_full_while_rows_are_copied_ends_the_copy_and_the_source_goes_on() {
    let Some(disk) = SmallDisk::wanted(32 << 20) else { return };
    let target = own(&[]).await;
    // Of its own: what others write would be kept by its slot, and `spool_limit` bounds that, too.
    let source = own(&[("wal_level", "logical")]).await;
    let this = Move::at(&source, &target).await;
    this.bench.write(".pgrunbook/there", "");
    std::os::unix::fs::symlink(disk.path(), this.bench.path(".pgrunbook/spool")).unwrap();
    let holder = held(&this).await;
    let text = MOVE.replace("undo =", "structure = \"existing\"\nspool_limit = 8000000\nundo =");
    let run = this.bench.begin(&text).await;
    let (engine, options) = (this.bench.engine().await, RunOptions::default());
    let filled = async {
        until(
            &this.legacy,
            "SELECT count(*) = 1 FROM pg_replication_slots WHERE active AND database = current_database()",
        )
        .await;
        disk.fill_but(4 << 20);
        this.at_legacy("UPDATE visit SET what = 'while it is copied' WHERE id = 1").await;
    };
    let (end, ()) = tokio::join!(engine.run(&run, &options, &this.bench.hand), filled);
    let (step, code, message) = failure(&end.unwrap());
    assert_eq!((step.as_str(), code.as_str()), ("load", "stream-spool"), "{message}");
    for words in [
        "the disk of ",
        "and must have 8000000",
        "was dropped, so that its server's disk does not fill",
        "must begin again",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let left = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(this.legacy_value(left).await, "0");
    this.at_legacy("UPDATE visit SET what = 'the source goes on' WHERE id = 2").await;
    // With room alone it does not go on: what happened meanwhile is not to be had any more.
    disk.free();
    holder.execute("ROLLBACK").await.unwrap();
    assert_eq!(failure(&this.bench.resume(&run).await).1, "stream-spool");
    let end = this.bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    let left = "SELECT (SELECT count(*) FROM health.visit) || ' ' || (SELECT count(*) FROM health.seed)";
    assert_eq!(this.bench.value(left).await, "0 1", "its own rows are gone, and nobody else's");
    let (_, end) = this.bench.run(&format!("{text}{GO}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.is_equal().await;
}

/// Wall time that is years off, and goes back and forth.
struct Wild(AtomicI64);

#[async_trait]
impl Clock for Wild {
    fn now(&self) -> Timestamp {
        let count = self.0.fetch_add(1, Ordering::SeqCst);
        let years = if count % 2 == 0 { 20 } else { -20 };
        Timestamp::now() + SignedDuration::from_hours(years * 365 * 24) + SignedDuration::from_secs(count)
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_that_is_years_off_and_jumps_changes_nothing() {
    let this = Move::new().await;
    let mut engine = this.bench.engine().await;
    engine.clock = Arc::new(Wild(AtomicI64::new(0)));
    let run = this.bench.begin(&format!("{MOVE}{GO}")).await;
    let end = engine.run(&run, &RunOptions::default(), &this.bench.hand).await.unwrap();
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.is_equal().await;
    this.bench.execute("UPDATE health.visit SET what = 'after' WHERE id = 7").await;
    let end = engine.rollback(&run, "undo", None, &RunOptions::default(), &this.bench.hand).await.unwrap();
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!(this.legacy_value("SELECT what FROM visit WHERE id = 7").await, "after");
}
