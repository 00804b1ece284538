//! The writers themselves: on servers that die, are fenced and are changed for others, directly and behind a PgBouncer.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use pgrunbook_postgres::Session;
use pgrunbook_postgres::sandbox::{PoolMode, Sandbox, SandboxOptions, shared, url};
use pgrunbook_postgres::{ConnectOptions, sandbox};
use tokio_postgres::NoTls;
use writers::sql::{Place, Writers, tables};
use writers::{History, Verdict};

const SOON: Duration = Duration::from_secs(60);

async fn execute(options: &ConnectOptions, sql: &str) {
    Session::connect(options, "test").await.unwrap().execute(sql).await.unwrap();
}

fn place(options: &ConnectOptions, schema: Option<&str>, pooled: bool) -> Place {
    Place { url: url(options), schema: schema.map(str::to_owned), pooled }
}

async fn verdict(history: &History, options: &ConnectOptions, schema: Option<&str>) -> Verdict {
    let (client, connection) = tokio_postgres::connect(&url(options), NoTls).await.unwrap();
    tokio::spawn(connection);
    history.verify(&client, schema).await.unwrap()
}

async fn fresh() -> (Sandbox, ConnectOptions) {
    let sandbox = shared("writers", SandboxOptions::default()).await.unwrap();
    let database = sandbox.fresh_database("writers").await.unwrap();
    (sandbox, database)
}

#[tokio::test]
async fn what_was_accepted_is_there_and_each_damage_is_seen() {
    let (_sandbox, database) = fresh().await;
    execute(&database, &format!("CREATE SCHEMA \"a b\"; {}", tables(Some("a b")))).await;
    let writers = Writers::start(place(&database, Some("a b"), false), 8, 1);
    writers.wait_for(800, SOON).await;
    let history = writers.stop().await;
    assert!(history.failures.is_empty() && history.unsettled.is_empty(), "{:?}", history.failures);
    assert!(history.freezes().is_empty(), "one side is no switch");
    let whole = verdict(&history, &database, Some("a b")).await;
    assert!(whole.is_whole() && whole.writes >= 800, "{whole}");
    for (damage, wanted) in [
        ("DELETE FROM writer_log WHERE key = '1-3-7'", (1, 0, 0, 0)),
        (
            "ALTER TABLE writer_log DROP CONSTRAINT writer_log_pkey; INSERT INTO writer_log SELECT * FROM writer_log WHERE key = '1-2-5'",
            (1, 1, 0, 0),
        ),
        ("INSERT INTO writer_log (key, writer, seq, value) VALUES ('1-0-999999', 0, 999999, '')", (1, 1, 1, 0)),
        ("UPDATE writer_log SET value = 'other' WHERE key = '1-4-4'", (1, 1, 1, 1)),
        ("UPDATE writer_row SET value = 'other' WHERE id = (SELECT min(id) FROM writer_row)", (1, 1, 1, 2)),
        ("DELETE FROM writer_row WHERE id = (SELECT max(id) FROM writer_row)", (2, 1, 1, 2)),
        ("INSERT INTO writer_row VALUES (-1, 0, 1, '')", (2, 1, 2, 2)),
    ] {
        execute(&database, &format!("SET search_path = \"a b\"; {damage}")).await;
        let seen = verdict(&history, &database, Some("a b")).await;
        let counts = (seen.lost.len(), seen.doubled.len(), seen.strange.len(), seen.altered.len());
        assert_eq!(counts, wanted, "{damage}\n{seen}");
    }
}

#[tokio::test]
async fn a_write_that_nobody_answered_is_neither_lost_nor_done_twice() {
    let sandbox = Sandbox::start(SandboxOptions { durable: true, ..SandboxOptions::default() }).await.unwrap();
    let database = sandbox.fresh_database("writers").await.unwrap();
    execute(&database, &tables(None)).await;
    let pooler = sandbox
        .pooler(PoolMode::Transaction, &[(sandbox::SUPERUSER, database.password.as_deref().unwrap())])
        .await
        .unwrap();
    for (number, (options, pooled)) in
        [(database.clone(), false), (pooler.through(&database), true)].into_iter().enumerate()
    {
        execute(&database, "TRUNCATE writer_log, writer_row").await;
        let writers = Writers::start(place(&options, None, pooled), 8, 2 + number as u64);
        writers.wait_for(200, SOON).await;
        sandbox.kill().unwrap();
        sandbox.restart().unwrap();
        writers.wait_for(200, SOON).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        for _ in 0..5 {
            execute(&database, end).await;
            writers.wait_for(20, SOON).await;
        }
        assert!(writers.failed() > 0, "they have noticed");
        let history = writers.stop().await;
        let whole = verdict(&history, &database, None).await;
        assert!(whole.is_whole() && whole.writes >= 500, "{whole}");
    }
}

#[tokio::test]
async fn a_switch_is_told_by_the_sides_themselves() {
    let (sandbox, old) = fresh().await;
    let new = sandbox.fresh_database("writers_new").await.unwrap();
    execute(&old, &tables(None)).await;
    execute(&new, &format!("CREATE SCHEMA health; {}", tables(Some("health")))).await;
    let writers = Writers::start(place(&old, None, false), 8, 4);
    writers.wait_for(200, SOON).await;
    // A cutover by hand: nobody writes any more, everything is copied, and the writers are led over.
    execute(
        &old,
        "CREATE FUNCTION fence() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN RAISE EXCEPTION 'being moved' USING ERRCODE = '25006'; END$$;
         CREATE TRIGGER fence BEFORE INSERT ON writer_log EXECUTE FUNCTION fence()",
    )
    .await;
    for table in ["writer_log", "writer_row"] {
        let pipe = format!(
            "psql -X -q -d \"$OLD\" -c 'COPY {table} TO STDOUT' | psql -X -q -d \"$NEW\" -c 'COPY health.{table} FROM STDIN'"
        );
        let urls = [("OLD", url(&old)), ("NEW", url(&new))];
        assert!(std::process::Command::new("sh").args(["-c", &pipe]).envs(urls).status().unwrap().success());
    }
    writers.switch_to(place(&new, Some("health"), false));
    writers.wait_for(200, SOON).await;
    let history = writers.stop().await;
    assert!(
        history.failures.keys().all(|state| state == "25006") && !history.failures.is_empty(),
        "{:?}",
        history.failures
    );
    let whole = verdict(&history, &new, Some("health")).await;
    assert!(whole.is_whole(), "{whole}");
    let behind = verdict(&history, &old, None).await;
    assert!(behind.lost.len() >= 200, "the old side lacks what came after: {behind}");
    let freezes = history.freezes();
    let [freeze] = freezes.as_slice() else { panic!("{freezes:?}") };
    assert!(freeze.from.ends_with(":public") && freeze.to.ends_with(":health"), "{freeze:?}");
    assert!(freeze.duration() > Duration::ZERO && freeze.duration() <= history.longest_gap().0, "{freeze:?}");
}
