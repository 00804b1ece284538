//! Either side of a transfer fails over to its standby: what is lost with it is known, and nothing else is lost.

use std::time::{Duration, Instant};

use pgrunbook_engine::RunEnd;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, Session};

use crate::bench::failure;
use crate::transfer::{GO, MOVE, Move, logical};

const HEAD: &str = "# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n";

async fn until(options: &ConnectOptions, sql: &str) {
    let (session, begun) = (Session::connect(options, "test").await.unwrap(), Instant::now());
    while session.value(sql).await.unwrap() != "t" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come about: {sql}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn own() -> Sandbox {
    let settings = vec![("wal_level".to_owned(), "logical".to_owned())];
    Sandbox::start(SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap()
}

/// The primary dies, and its standby, which had everything, takes over.
async fn failed_over(primary: &Sandbox, standby: &Sandbox) {
    let session = Session::connect(&primary.options(), "test").await.unwrap();
    session.execute("CHECKPOINT").await.unwrap();
    let end = session.value("SELECT pg_current_wal_flush_lsn()").await.unwrap();
    until(&standby.options(), &format!("SELECT pg_last_wal_replay_lsn() >= '{end}'")).await;
    primary.kill().unwrap();
    Session::connect(&standby.options(), "test").await.unwrap().execute("SELECT pg_promote()").await.unwrap();
    until(&standby.options(), "SELECT NOT pg_is_in_recovery()").await;
}

fn at(sandbox: &Sandbox, database: &ConnectOptions) -> ConnectOptions {
    sandbox.options().with_database(&database.database)
}

#[tokio::test(flavor = "multi_thread")]
async fn source_that_failed_over_has_no_slot_so_nobody_cuts_over_and_the_transfer_begins_again() {
    let (source, target) = (own().await, own().await);
    let mut this = Move::at(&source, &target).await;
    let (run, end) = this.bench.run(MOVE).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let standby = source.standby().await.unwrap();
    this.at_legacy("UPDATE visit SET what = 'before the failover' WHERE id = 1").await;
    failed_over(&source, &standby).await;
    let promoted = at(&standby, &this.legacy);
    this.bench.moved(&this.legacy, &promoted);
    this.legacy = promoted;

    let (_, end) = this.bench.run(&format!("{HEAD}{GO}")).await;
    let (step, code, message) = failure(&end);
    assert_eq!((step.as_str(), code.as_str()), ("go", "no-stream"), "{message}");
    assert!(message.contains("there is no slot for it. Nothing was changed"), "{message}");
    this.at_legacy("UPDATE visit SET what = 'the application goes on' WHERE id = 2").await;

    let workplace = this.bench.workplace().await;
    let cancel = pgrunbook_engine::Cancel::default();
    pgrunbook_steps::transfer::abandon(&workplace, "main", "health", &run, &cancel).await.unwrap();
    let (_, end) = this.bench.run(&format!("{MOVE}{GO}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.is_equal().await;
    let said = "SELECT string_agg(what, ', ' ORDER BY id) FROM health.visit WHERE id <= 2";
    assert_eq!(this.bench.value(said).await, "before the failover, the application goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn target_that_failed_over_goes_on_from_the_position_that_it_has_itself() {
    let target = own().await;
    let mut this = Move::at(&logical().await, &target).await;
    let (_, end) = this.bench.run(MOVE).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let standby = target.standby().await.unwrap();
    this.at_legacy("UPDATE visit SET what = 'meanwhile' WHERE id <= 100; DELETE FROM note WHERE visit = 7").await;
    failed_over(&target, &standby).await;
    let (before, promoted) = (this.bench.database.clone(), at(&standby, &this.bench.database));
    this.bench.moved(&before, &promoted);
    this.at_legacy("INSERT INTO visit (what) VALUES ('after the failover')").await;

    let (_, end) = this.bench.run(&format!("{HEAD}{GO}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.is_equal().await;
    let said = "SELECT count(*) FROM health.visit WHERE what IN ('meanwhile', 'after the failover')";
    assert_eq!(this.bench.value(said).await, "101");
    // The way back leads from the server that took over.
    this.bench.execute("UPDATE health.visit SET what = 'home' WHERE id = 3").await;
    let back = GO.replace("\"go\"", "\"back\"").replace("budget", "to = \"source\"\nbudget");
    let (_, end) = this.bench.run(&format!("{HEAD}{back}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    assert_eq!(this.legacy_value("SELECT what FROM visit WHERE id = 3").await, "home");
    this.is_equal().await;
}
