//! What is refused for a while, and servers that go away: no 500, and no write lost.

use std::time::Duration;

use pgrunbook_postgres::sandbox::{PoolMode, Sandbox, SandboxOptions};
use rusqlite::Connection;
use serde_json::json;
use writers::http::Writers;

use crate::bench::{Bench, Serving};

const SOON: Duration = Duration::from_secs(60);

/// As the fence of a cutover does it. Each write takes `edits` first: so does this, and nobody waits in a circle.
const FENCE: &str = "
LOCK TABLE src_assets_1.edits, src_assets_1.notes, src_assets_1.items IN SHARE ROW EXCLUSIVE MODE;
CREATE FUNCTION src_assets_1.fence() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'assets_1 is being moved' USING ERRCODE = '25006'; END$$;
CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON src_assets_1.items EXECUTE FUNCTION src_assets_1.fence();
CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON src_assets_1.notes EXECUTE FUNCTION src_assets_1.fence();
CREATE TRIGGER fence BEFORE INSERT OR UPDATE OR DELETE ON src_assets_1.edits EXECUTE FUNCTION src_assets_1.fence();";

#[tokio::test]
async fn a_fence_in_postgresql_is_a_503_and_loses_no_write() {
    let bench = Bench::new().await;
    bench.profile("assets_1", 40);
    let serving = bench.postgres();
    bench.load(&serving, "assets_1").await;
    let writers = Writers::start(serving.service("assets_1", 40), 8, 11);
    writers.wait_for(40, SOON).await;
    bench.execute(FENCE).await;
    let refused = serving.ask("PUT", "/items/1/meta", &[("X-Source-ID", "assets_1")], Some(json!({}))).await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (503, "1"));
    assert_eq!(refused.body["sqlstate"], "25006");
    assert!(refused.body["error"].as_str().unwrap().contains("is being moved"), "{}", refused.body);
    assert_eq!(serving.get("assets_1", "/items/1").await.status, 200, "reading goes on");
    bench.execute("DROP FUNCTION src_assets_1.fence() CASCADE").await;
    writers.wait_for(40, SOON).await;
    let history = writers.stop().await;
    assert!(history.failures.keys().all(|status| status == "503"), "{:?}", history.failures);
    let verdict = history.verify_service(&serving.service("assets_1", 40)).await.unwrap();
    assert!(verdict.is_whole(), "{verdict}");

    // And the proof can fail: each kind of damage is seen.
    let key = "SELECT key FROM src_assets_1.edits WHERE kind = 'meta' AND item_id = 1 ORDER BY at DESC LIMIT 1";
    bench.execute(&format!("DELETE FROM src_assets_1.edits WHERE key = ({key})")).await;
    bench.execute("UPDATE src_assets_1.items SET meta = '{}' WHERE id = 1").await;
    bench.execute("INSERT INTO src_assets_1.notes (item_id, author, body, created_at, updated_at)
         SELECT item_id, author, body, created_at, updated_at FROM src_assets_1.notes WHERE starts_with(author, 'writer ') LIMIT 1").await;
    let verdict = history.verify_service(&serving.service("assets_1", 40)).await.unwrap();
    assert_eq!((verdict.lost.len(), verdict.altered.len(), verdict.doubled.len()), (1, 1, 1), "{verdict}");
}

#[tokio::test]
async fn a_fence_in_sqlite_is_a_503_and_loses_no_write() {
    let bench = Bench::new().await;
    let file = bench.profile("assets_1", 40);
    let serving = bench.sqlite();
    let writers = Writers::start(serving.service("assets_1", 40), 8, 12);
    writers.wait_for(40, SOON).await;
    let db = Connection::open(&file).unwrap();
    db.busy_timeout(SOON).unwrap();
    db.execute_batch(
        "BEGIN IMMEDIATE;
         CREATE TRIGGER fence_a BEFORE UPDATE ON items BEGIN SELECT RAISE(ABORT, 'assets_1 is being moved'); END;
         CREATE TRIGGER fence_b BEFORE INSERT ON notes BEGIN SELECT RAISE(ABORT, 'assets_1 is being moved'); END;
         COMMIT",
    )
    .unwrap();
    let refused = serving.ask("PUT", "/items/1/meta", &[("X-Source-ID", "assets_1")], Some(json!({}))).await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (503, "1"));
    assert_eq!(refused.body["error"], "assets_1 is being moved");
    db.execute_batch("BEGIN IMMEDIATE; DROP TRIGGER fence_a; DROP TRIGGER fence_b; COMMIT").unwrap();
    writers.wait_for(40, SOON).await;
    let history = writers.stop().await;
    assert!(history.failures.keys().all(|status| status == "503"), "{:?}", history.failures);
    let verdict = history.verify_service(&serving.service("assets_1", 40)).await.unwrap();
    assert!(verdict.is_whole(), "{verdict}");
}

#[tokio::test]
async fn a_server_that_dies_and_comes_back_loses_no_write() {
    let bench =
        Bench::on(Sandbox::start(SandboxOptions { durable: true, ..SandboxOptions::default() }).await.unwrap()).await;
    bench.profile("assets_1", 40);
    let direct = bench.postgres();
    bench.load(&direct, "assets_1").await;
    let pooler = bench.sandbox.pooler(PoolMode::Transaction, &[(bench.role().as_str(), "app")]).await.unwrap();
    let pooled = bench.serve(&bench.env("POSTGRES_PRIMARY", &pooler.through(&bench.runtime())));
    // Half of the writers go through the pooler: both must find their way back.
    let all =
        [Writers::start(direct.service("assets_1", 40), 4, 13), Writers::start(pooled.service("assets_1", 40), 4, 14)];
    for kill in [true, false] {
        for writers in &all {
            writers.wait_for(20, SOON).await;
        }
        if kill {
            bench.sandbox.kill().unwrap();
        } else {
            bench.sandbox.stop().unwrap();
        }
        let down = direct.get("assets_1", "/health").await;
        assert_eq!((down.status, &down.body["ok"]), (503, &json!(false)), "{}", down.body);
        bench.sandbox.restart().unwrap();
    }
    for writers in all {
        writers.wait_for(20, SOON).await;
        let history = writers.stop().await;
        assert!(history.failures.keys().all(|status| status == "503"), "{:?}", history.failures);
        let mut verdict = history.verify_service(&direct.service("assets_1", 40)).await.unwrap();
        // Both wrote to the same items: whose meta was last is not for one history to say.
        verdict.altered.retain(|what| !what.starts_with("meta of item"));
        assert!(verdict.is_whole() && verdict.writes >= 60, "{verdict}");
    }
    let log = std::fs::read_to_string(bench.path("items.log")).unwrap();
    assert!(log.lines().any(|line| line.contains(" 503 ")) && !log.lines().any(|line| line.contains(" 500 ")));
}

#[tokio::test]
async fn a_restart_in_the_other_mode_answers_what_was_asked_before() {
    let bench = Bench::new().await;
    bench.profile("assets_1", 40);
    let first = bench.sqlite();
    bench.admin_made(&first).await;
    let writers = Writers::start(first.service("assets_1", 40), 8, 15);
    writers.wait_for(40, SOON).await;
    let port = first.address.clone();
    assert!(first.end().success(), "it ends in good order");
    assert!(!bench.path("items.pid").exists());
    // The same file with the same address: what a switch does to it is one line.
    let file = bench.path("SQLITE.env");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("ITEMS_LISTEN=127.0.0.1:0", &format!("ITEMS_LISTEN={port}"))).unwrap();
    let second = Serving::start(&file);
    writers.wait_for(40, SOON).await;
    let history = writers.stop().await;
    assert!(history.failures.keys().all(|status| status == "connection"), "{:?}", history.failures);
    let verdict = history.verify_service(&second.service("assets_1", 40)).await.unwrap();
    assert!(verdict.is_whole(), "{verdict}");
    drop(second);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("MODE=SQLITE", "MODE=POSTGRES_PRIMARY")).unwrap();
    let third = Serving::start(&file);
    assert_eq!(third.get("assets_1", "/health").await.body["backend"], "postgres_primary");
    assert_eq!(third.get("assets_1", "/stats").await.body["items"], 0, "nothing was moved, and nothing is made up");
}

impl Bench {
    async fn admin_made(&self, serving: &Serving) {
        assert_eq!(serving.admin("assets_1", crate::bench::TOKEN).await.status, 200);
    }
}
