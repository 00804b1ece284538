//! A target that dies in the middle of a batch, and comes back.

use std::time::{Duration, Instant};

use pgrunbook_engine::RunEnd;
use pgrunbook_postgres::Session;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_steps::transfer::keep_following;

use crate::transfer::{GO, MOVE, Move, logical};

/// Waits until the target answers `t`; while it is down it does not answer.
async fn until(this: &Move, sql: &str) {
    let begun = Instant::now();
    loop {
        if let Ok(session) = Session::connect(&this.bench.database, "test").await
            && session.value(sql).await.is_ok_and(|answer| answer == "t")
        {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come about: {sql}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn target_that_dies_while_a_batch_is_written_gets_everything_once() {
    let settings = vec![("wal_level".to_owned(), "logical".to_owned())];
    let target = Sandbox::start(SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap();
    let this = Move::at(&logical().await, &target).await;
    // Without a key nothing but the count would tell of a row that came twice.
    this.at_legacy("CREATE TABLE heard (who text); ALTER TABLE heard REPLICA IDENTITY FULL").await;
    let text = MOVE.replace("undo =", "accept = [\"replica-identity-full\"]\nundo =");
    let (_, end) = this.bench.run(&text).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    // Where nothing has flowed yet there is no line of it.
    let told = "SELECT coalesce(sum(transactions), 0) || ' ' || coalesce(sum(changes), 0)
        FROM pgrunbook.stream WHERE name LIKE 'health%:forward'";
    let numbers = |told: &str| told.split(' ').map(|one| one.parse::<u64>().unwrap()).collect::<Vec<_>>();
    let before = numbers(&this.bench.value(told).await);

    // One row of the batch is held: the others of its transaction are written, and not committed.
    let holder = this.bench.session().await;
    holder.execute("BEGIN; SELECT FROM health.note WHERE visit = 500 AND n = 3 FOR UPDATE").await.unwrap();
    for sql in [
        "INSERT INTO visit (what) SELECT 'new' FROM generate_series(1, 200)",
        "UPDATE note SET text = 'changed'",
        "INSERT INTO heard SELECT 'who' FROM generate_series(1, 50)",
        "DELETE FROM visit WHERE id > 650",
    ] {
        this.at_legacy(sql).await;
    }
    let workplace = this.bench.workplace().await;
    keep_following(&workplace, "main", "health").await.unwrap();
    let stands = "SELECT count(*) > 0 FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
        WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.backend_xid IS NOT NULL AND a.query LIKE '%health%note%'";
    until(&this, stands).await;
    // What came before it may be committed.
    let held = numbers(&this.bench.value(told).await);
    assert!(held[0] <= before[0] + 1 && held[1] <= before[1] + 200, "the update is committed: {held:?}");
    tokio::task::block_in_place(|| {
        target.kill().unwrap();
        target.restart().unwrap();
    });

    // The same follower goes on.
    let all = format!(
        "SELECT sum(transactions) >= {} FROM pgrunbook.stream WHERE name LIKE 'health%:forward'",
        before[0] + 4
    );
    until(&this, &all).await;
    assert_eq!(numbers(&this.bench.value(told).await), [before[0] + 4, before[1] + 200 + 1500 + 50 + 50]);
    let rows = "SELECT (SELECT count(*) FROM health.visit) || ' ' || (SELECT count(*) FROM health.heard) || ' '
        || (SELECT count(*) FROM health.note WHERE text = 'changed')";
    assert_eq!(this.bench.value(rows).await, "650 50 1500");
    workplace.followers().end("main", "health").await;
    let (_, end) =
        this.bench.run(&format!("# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n{GO}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.is_equal().await;
}
