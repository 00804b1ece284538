//! What passes by itself is waited for, as long as there is time: above all where writers wait for it.

use std::time::{Duration, Instant};

use pgrunbook_engine::{RunEnd, RunOptions};
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::fence::freeze::current;

use crate::bench::{Bench, failure};
use crate::transfer::{GO, MOVE, Move};

const HEAD: &str = "# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n";

async fn own() -> Sandbox {
    let settings = vec![("wal_level".to_owned(), "logical".to_owned())];
    Sandbox::start(SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap()
}

/// Waits until a question answers `t`; one that cannot be asked yet is asked again.
async fn until(options: &ConnectOptions, sql: &str) {
    let begun = Instant::now();
    loop {
        let session = Session::connect(options, "test").await.unwrap();
        if session.value(sql).await.is_ok_and(|answer| answer == "t") {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come about: {sql}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn source_that_is_down_when_a_freeze_is_undone_is_waited_for_and_its_writers_go_on() {
    let (source, target) = (own().await, own().await);
    let this = Move::at(&source, &target).await;
    let (_, end) = this.bench.run(MOVE).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    // Whoever holds this keeps the target from being opened, until the budget is over.
    let holder = this.bench.session().await;
    holder.execute("BEGIN; LOCK TABLE health.visit IN ROW EXCLUSIVE MODE").await.unwrap();
    let run = this.bench.begin(&format!("{HEAD}{}", GO.replace("20s", "3s"))).await;
    let (engine, options) = (this.bench.engine().await, RunOptions::default());
    let opening = "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'pgrunbook:fence:observer'";
    let beside = async {
        until(&this.bench.database, opening).await;
        tokio::task::block_in_place(|| source.kill()).unwrap();
        until(&this.bench.database, &opening.replace("= 1", "= 0")).await;
        tokio::task::block_in_place(|| source.restart()).unwrap();
    };
    let (end, ()) = tokio::join!(engine.run(&run, &options, &this.bench.hand), beside);
    // What it follows it would take from whoever resumes.
    drop(engine);
    let (step, code, message) = failure(&end.unwrap());
    assert_eq!((step.as_str(), code.as_str()), ("go", "fence-timeout"), "{message}");
    assert!(message.ends_with("Writers go on where they were; nothing was lost."), "{message}");
    this.at_legacy("UPDATE visit SET what = 'goes on' WHERE id = 1").await;
    assert_eq!(this.bench.value("SELECT phase FROM pgrunbook.transfer WHERE schema = 'health'").await, "following");

    holder.execute("ROLLBACK").await.unwrap();
    let end = this.bench.resume(&run).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.is_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_is_down_when_the_budget_ends_is_waited_for_and_its_fence_lifted() {
    let server = own().await;
    let bench = Bench::on(server.database("legacy").await.unwrap());
    bench.execute("CREATE TABLE notes (id int)").await;
    let file = bench.path("go").display().to_string();
    let text = format!(
        "# Stop\n\n## Stop\n\n```toml step\nfence = \"stop\"\ntarget = \"main\"\nmessage = \"moved\"\nbudget = \"2s\"\nundo = \"auto\"\n\
         ```\n\n```toml step\nsh = \"wait\"\nrun = \"while [ ! -e '{file}' ]; do sleep 0.02; done\"\nundo = \"none: it waits\"\n```\n"
    );
    let run = bench.begin(&text).await;
    let (engine, options) = (bench.engine().await, RunOptions::default());
    let beside = async {
        until(&bench.database, "SELECT count(*) = 1 FROM pgrunbook.fence WHERE state = 'fenced'").await;
        tokio::task::block_in_place(|| server.kill()).unwrap();
        let freeze = current("public").unwrap();
        let begun = Instant::now();
        while !freeze.left().is_zero() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the budget does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(freeze.ended(), None, "it is not given up while the server may come back");
        tokio::task::block_in_place(|| server.restart()).unwrap();
        while freeze.ended().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it is not undone");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bench.write("go", "");
        freeze.ended().unwrap()
    };
    // The engine may have noticed, too: then it gives the freeze up before its budget is over.
    let (_, thaw) = tokio::join!(engine.run(&run, &options, &bench.hand), beside);
    assert_eq!(thaw.undone, Ok(()), "{thaw}");
    bench.execute("INSERT INTO notes VALUES (1)").await;
}
