//! A process that stood still and was taken over opens nothing, and what passes a fence keeps anybody from crossing.

use pgrunbook_engine::{RunEnd, RunOptions};
use pgrunbook_postgres::Session;
use pgrunbook_postgres::sandbox::url;

use super::front::until;
use crate::bench::failure;
use crate::transfer::{GO, MOVE, Move};

const HEAD: &str = "# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n";

/// Crosses while another process does `theirs` in the target, and `old` in the source, between the fence's beginning and the opening.
/// How it ended.
async fn crosses_while(this: &Move, theirs: &str, old: &str) -> (String, RunEnd) {
    // The fence waits for it. It writes nothing, or the slot of the way back would wait for it before, and so would other tests'.
    let writer = this.session().await;
    writer.execute("BEGIN; LOCK TABLE visit IN ROW EXCLUSIVE MODE").await.unwrap();
    let other = this.bench.session().await;
    let run = this.bench.begin(&format!("{HEAD}{GO}")).await;
    let (engine, options) = (this.bench.engine().await, RunOptions::default());
    let beside = async {
        let phase = "SELECT phase FROM pgrunbook.transfer WHERE schema = 'health'";
        until("it is under way", async || other.value(phase).await.unwrap() == "forth").await;
        other.execute(theirs).await.unwrap();
        this.at_legacy(old).await;
        writer.execute("COMMIT").await.unwrap();
    };
    let (end, ()) = tokio::join!(engine.run(&run, &options, &this.bench.hand), beside);
    (run, end.unwrap())
}

/// As a process does that takes a run over, in every database of it.
const TAKE_OVER: &str = "UPDATE pgrunbook.claim SET epoch = epoch + 1";

#[tokio::test(flavor = "multi_thread")]
async fn process_that_lost_its_run_in_the_freeze_does_not_open_the_target() {
    let this = Move::new().await;
    assert!(matches!(this.bench.run(MOVE).await.1, RunEnd::Completed));
    let (run, end) = crosses_while(&this, TAKE_OVER, TAKE_OVER).await;
    let (step, _, message) = failure(&end);
    assert_eq!(step, "go", "{message}");
    assert!(message.contains("was taken over by another process"), "{message}");
    // It has not opened the target, and settled nothing: that is for whoever has the run.
    assert_eq!(this.bench.value("SELECT phase FROM pgrunbook.transfer").await, "forth");
    let refused = this.bench.session().await.execute("DELETE FROM health.note").await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("25006"), "{refused}");
    let end = this.bench.resume(&run).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.is_equal().await;
    assert_eq!(this.bench.value("SELECT phase FROM pgrunbook.transfer").await, "switched");
}

#[tokio::test(flavor = "multi_thread")]
async fn crossing_that_another_process_has_settled_does_not_open_the_target() {
    let this = Move::new().await;
    assert!(matches!(this.bench.run(MOVE).await.1, RunEnd::Completed));
    // As a recovery records it.
    let settled = "UPDATE pgrunbook.transfer SET phase = 'following', crossing = NULL";
    let (run, end) = crosses_while(&this, settled, "").await;
    let (step, _, message) = failure(&end);
    assert_eq!(step, "go", "{message}");
    assert!(message.contains("another one has settled it"), "{message}");
    assert_eq!(this.bench.value("SELECT phase FROM pgrunbook.transfer").await, "following");
    this.at_legacy("UPDATE visit SET what = 'goes on' WHERE id = 2").await;
    let end = this.bench.resume(&run).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.is_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_that_writes_past_the_fence_keeps_anybody_from_crossing() {
    let this = Move::new().await;
    assert!(matches!(this.bench.run(MOVE).await.1, RunEnd::Completed));
    // Another server's rows come into the legacy table.
    let elsewhere = super::cluster().await.fresh_database("elsewhere").await.unwrap();
    let publisher = Session::connect(&elsewhere, "test").await.unwrap();
    publisher
        .execute("CREATE TABLE visit (id bigint PRIMARY KEY, what text NOT NULL, at timestamptz); CREATE PUBLICATION p FOR TABLE visit")
        .await
        .unwrap();
    let name = format!("s_{}", this.legacy.database);
    let subscribe = format!(
        "CREATE SUBSCRIPTION {name} CONNECTION '{}' PUBLICATION p WITH (copy_data = false, slot_name = '{name}')",
        url(&elsewhere)
    );
    this.at_legacy(&subscribe).await;
    let (run, end) = this.bench.run(&format!("{HEAD}{GO}")).await;
    let RunEnd::Failed { code, message, help: Some(help), .. } = &end else { panic!("{end:?}") };
    assert_eq!(code, "fence-subscription", "{message}");
    assert!(message.contains(&name) && message.contains("writers go on"), "{message}");
    assert_eq!(help, &format!("ALTER SUBSCRIPTION {name} DISABLE; then run again"));
    assert_eq!(this.bench.value("SELECT phase FROM pgrunbook.transfer").await, "following");
    this.at_legacy(&format!("ALTER SUBSCRIPTION {name} DISABLE")).await;
    let end = this.bench.resume(&run).await;
    this.at_legacy(&format!("DROP SUBSCRIPTION {name}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn transfer_is_completed_without_its_source_only_where_that_is_said() {
    let (source, target) = (own().await, own().await);
    let this = Move::at(&source, &target).await;
    let (_, end) = this.bench.run(&format!("{MOVE}{GO}")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    tokio::task::block_in_place(|| source.kill()).unwrap();
    let all = pgrunbook_steps::transfer::status(&this.bench.workplace().await, "main", None).await.unwrap();
    let trouble = all[0].trouble.clone().unwrap_or_default();
    assert!(trouble.starts_with("a side does not answer"), "{trouble}");
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    let complete = |more: &str| {
        format!(
            "# End\n\n## End\n\n```toml step\ncomplete = \"end\"\ntarget = \"main\"\nschema = \"health\"\n{more}\
             undo = \"none: the reverse stream ends\"\n```\n"
        )
    };
    let (_, end) = this.bench.run(&complete("")).await;
    let RunEnd::Failed { help: Some(help), .. } = &end else { panic!("{end:?}") };
    assert!(help.contains("without_source = true"), "{help}");
    assert!(help.contains("`pgrunbook transfer complete health --target main --without-source --yes`"), "{help}");
    assert_eq!(this.bench.value(slots).await, "1");
    let (_, end) = this.bench.run(&complete("without_source = true\n")).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    assert_eq!(this.bench.value(slots).await, "0", "the target keeps no log for nobody");
    assert_eq!(this.bench.value("SELECT phase FROM pgrunbook.transfer").await, "complete");
    this.bench.execute("INSERT INTO health.visit (what) VALUES ('goes on')").await;
}

async fn own() -> pgrunbook_postgres::sandbox::Sandbox {
    pgrunbook_postgres::sandbox::Sandbox::start(pgrunbook_postgres::sandbox::SandboxOptions::default()).await.unwrap()
}
