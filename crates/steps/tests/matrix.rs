//! What can go wrong with a transfer as a whole, and what is then certainly safe. The other lines of the matrix have their tests
//! nearer to what breaks: `docs/decisions/0010-failure-matrix.md`.

use std::time::{Duration, Instant};

use pgrunbook_engine::{RunEnd, RunOptions};
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, url};
use pgrunbook_postgres::{ConnectOptions, Session};

use crate::bench::{Bench, failure};
use crate::transfer::{GO, MOVE, Move, logical};

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
    let (_, end) = this.bench.run(&format!("{HEAD}{FOLLOW}")).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "stream-slot", "{message}");
    this.at_legacy("UPDATE visit SET what = 'the source goes on' WHERE id = 1").await;
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
