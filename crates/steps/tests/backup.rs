//! `backup` and `restore`.

use pgrunbook_engine::RunEnd;

use crate::bench::{Bench, failure};

const ROUND: &str = "# Round

## Backup

```toml step
backup = \"before\"
target = \"main\"
verify = \"restore\"
```

## Change

```sql step
-- apply: more    target: main
-- undo: none: the backup takes it back
INSERT INTO \"Odd name\" VALUES (3, 'lost');
```

## Rollback: restore

```toml step
restore = \"back\"
from = \"before\"
target = \"main\"
undo = \"auto\"
```
";

async fn bench() -> Bench {
    let bench = Bench::new().await;
    bench
        .execute(
            "CREATE TABLE \"Odd name\" (id int PRIMARY KEY, t text); INSERT INTO \"Odd name\" VALUES (1, 'a'), (2, NULL);
             CREATE TABLE log (f float8, j jsonb); INSERT INTO log SELECT random(), '{\"a\": 1}' FROM generate_series(1, 100)",
        )
        .await;
    bench
}

/// The file that a backup recorded.
fn file(bench: &Bench, run: &str, evidence: &pgrunbook_engine::Evidence) -> std::path::PathBuf {
    bench.path(&format!(".pgrunbook/runs/{run}/{}", evidence.facts["file"].as_str().unwrap()))
}

#[tokio::test]
async fn backup_is_verified_by_a_restore_and_put_back() {
    let bench = bench().await;
    bench
        .execute(&format!(
            "ALTER DATABASE {0} SET search_path = '$user', 'public', 'x y'; GRANT CONNECT ON DATABASE {0} TO PUBLIC",
            bench.database.database
        ))
        .await;
    let (run, end) = bench.run(ROUND).await;
    assert_eq!(end, RunEnd::Completed);
    let evidence = bench.evidence(&run, "before").await;
    assert_eq!(evidence.facts["tables_compared"], 2);
    assert_eq!(evidence.facts["rows_compared"], 102);
    assert!(evidence.facts["lsn"].as_str().unwrap().contains('/'));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(file(&bench, &run, &evidence)).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600, "a backup is for its owner alone");
    assert_eq!(bench.value("SELECT count(*) FROM \"Odd name\"").await, "3");

    assert_eq!(bench.rollback(&run, "rollback-restore").await, RunEnd::RolledBack);
    assert_eq!(bench.value("SELECT count(*) FROM \"Odd name\"").await, "2");
    assert_eq!(bench.value("SHOW search_path").await, "\"$user\", public, \"x y\"");
    let kept = bench.evidence(&run, "back").await.facts["kept"].as_str().unwrap().to_owned();
    let old = pgrunbook_postgres::Session::connect(&bench.database.with_database(&kept), "test").await.unwrap();
    assert_eq!(old.value("SELECT count(*) FROM \"Odd name\"").await.unwrap(), "3", "what was there is kept");
}

#[tokio::test]
async fn policies_for_roles_are_restored_where_the_roles_are_not() {
    let bench = bench().await;
    let role = format!("Reader of {}", bench.database.database);
    bench
        .execute(&format!(
            "CREATE ROLE \"{role}\"; CREATE POLICY own ON log TO \"{role}\", CURRENT_USER USING (f > 0);
             ALTER TABLE log ENABLE ROW LEVEL SECURITY"
        ))
        .await;
    let (run, end) = bench.run(ROUND).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(bench.evidence(&run, "before").await.facts["tables_compared"], 2);
}

#[tokio::test]
async fn step_is_undone_by_the_backup_that_it_names() {
    let bench = bench().await;
    let text = ROUND.replace("undo: none: the backup takes it back", "undo: before").replace("\"restore\"", "\"list\"");
    let (run, end) = bench.run(&text).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(bench.rollback(&run, pgrunbook_engine::UNDO).await, RunEnd::RolledBack);
    assert_eq!(bench.value("SELECT count(*) FROM \"Odd name\"").await, "2");
}

#[tokio::test]
async fn damaged_backup_is_not_restored() {
    let bench = bench().await;
    let (run, _) = bench.run(&ROUND.replace("\"restore\"", "\"list\"")).await;
    let file = file(&bench, &run, &bench.evidence(&run, "before").await);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (_, code, message) = failure(&bench.rollback(&run, "rollback-restore").await);
    assert_eq!(code, "bad-backup");
    assert!(message.contains("its digest differs"), "{message}");
    assert_eq!(bench.value("SELECT count(*) FROM \"Odd name\"").await, "3", "nothing was touched");
}

#[tokio::test]
async fn restore_of_a_file_that_is_no_backup_names_it() {
    let bench = bench().await;
    bench.write("dump.sql", "SELECT 1;");
    let text = "# Restore\n\n## Restore\n\n```toml step\nrestore = \"back\"\nfrom = \"dump.sql\"\ntarget = \"main\"\nundo = \"auto\"\n```\n";
    let (_, end) = bench.run(text).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "bad-backup");
    assert!(message.contains("does not appear to be a valid archive"), "{message}");
}

#[tokio::test]
async fn sqlite_file_goes_the_same_way() {
    let mut bench = Bench::new().await;
    bench.config("[targets.items]\nsqlite = \"items.db\"\n");
    let path = bench.path("items.db");
    let open = || rusqlite::Connection::open(&path).unwrap();
    open().execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1)").unwrap();
    let text = ROUND.replace("target = \"main\"", "target = \"items\"").replace("verify = \"restore\"\n", "");
    let text = text.replace("\"Odd name\" VALUES (3, 'lost')", "other VALUES (1)");
    bench.execute("CREATE TABLE other (n int)").await;
    let (run, end) = bench.run(&text).await;
    assert_eq!(end, RunEnd::Completed);
    open().execute_batch("DELETE FROM t").unwrap();
    assert_eq!(bench.rollback(&run, "rollback-restore").await, RunEnd::RolledBack);
    let rows: i64 = open().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}
