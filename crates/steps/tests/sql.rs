//! `check`, `probe` and `apply`.

use pgrunbook_engine::{RunEnd, UNDO};

use crate::bench::{Bench, failure};

/// A runbook of one phase with one SQL step.
fn one(block: &str) -> String {
    format!("# One\n\n## Phase\n\n```sql step\n{block}\n```\n")
}

#[tokio::test]
async fn check_is_a_gate() {
    let bench = Bench::new().await;
    let (run, end) =
        bench.run(&one("-- check: two    target: main\n-- expect: 2 rows\n-- show: n\nSELECT n, 's' AS hidden FROM generate_series(1, 2) AS n;")).await;
    assert_eq!(end, RunEnd::Completed);
    let evidence = bench.evidence(&run, "two").await;
    assert_eq!(evidence.summary, "2 rows, as expected");
    assert_eq!(evidence.facts["sample"], serde_json::json!([{ "n": "1" }, { "n": "2" }]));

    let (run, end) = bench.run(&one("-- check: none    target: main\n-- expect: 0 rows\nSELECT 1;")).await;
    let (step, code, message) = failure(&end);
    assert_eq!((step.as_str(), code.as_str(), message.as_str()), ("none", "gate", "expected 0 rows, got 1 row"));
    assert_eq!(bench.evidence(&run, "none").await.facts["row_count"], 1);
}

#[tokio::test]
async fn check_cannot_write() {
    let bench = Bench::new().await;
    let (_, end) = bench.run(&one("-- check: sly    target: main\nCREATE TABLE t ();")).await;
    assert_eq!(failure(&end).1, "sqlstate-25006");
}

#[tokio::test]
async fn check_is_tried_again_until_it_holds() {
    let bench = Bench::new().await;
    bench.execute("CREATE SEQUENCE s").await;
    // A probe, since only what is not rolled back can tell tries apart: a sequence.
    let (run, end) = bench
        .run(&one(
            "-- probe: third    target: main\n-- expect: value >= 3\n-- within: 20s every 10ms\nSELECT nextval('s');",
        ))
        .await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(bench.evidence(&run, "third").await.facts["tries"], 3);
}

#[tokio::test]
async fn probe_leaves_nothing_behind_and_meets_deferred_constraints() {
    let bench = Bench::new().await;
    bench
        .execute(
            "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED)",
        )
        .await;
    let (_, end) =
        bench.run(&one("-- probe: orphan    target: main\n-- expect: error 23503\nINSERT INTO b VALUES (7);")).await;
    assert_eq!(end, RunEnd::Completed);
    let (_, end) = bench.run(&one("-- probe: parent    target: main\nINSERT INTO a VALUES (7);")).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(bench.value("SELECT count(*) FROM a").await, "0");
}

#[tokio::test]
async fn expected_error_counts_only_for_the_last_statement() {
    let bench = Bench::new().await;
    let (_, end) = bench
        .run(&one("-- probe: early    target: main\n-- expect: error 42P01\nSELECT * FROM missing;\nSELECT * FROM also_missing;"))
        .await;
    assert!(failure(&end).2.contains("from statement 1 already"), "{end:?}");
}

#[tokio::test]
async fn role_that_cannot_be_taken_is_no_expected_error() {
    let bench = Bench::new().await;
    let (_, end) =
        bench.run(&one("-- probe: as    target: main    as: nobody_known\n-- expect: error 22023\nSELECT 1;")).await;
    assert!(failure(&end).2.contains("cannot become `nobody_known`"), "{end:?}");
}

const APPLY: &str = "# Apply

## Phase

```sql step
-- apply: make    target: main    undo: drop
CREATE TABLE t (n int);
INSERT INTO t VALUES (1), (2);
```

```sql undo
-- apply: drop    target: main
DROP TABLE t;
```
";

#[tokio::test]
async fn apply_commits_with_its_ledger_row_and_is_undone() {
    let bench = Bench::new().await;
    let (run, end) = bench.run(APPLY).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(bench.value("SELECT count(*) FROM t").await, "2");
    let ledger = "SELECT string_agg(step || ' ' || direction, ', ' ORDER BY at) FROM pgrunbook.ledger";
    assert_eq!(bench.value(ledger).await, "make forward");
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(bench.value("SELECT to_regclass('t') IS NULL").await, "t");
    assert_eq!(bench.value(ledger).await, "make forward, make back");
}

#[tokio::test]
async fn apply_that_fails_leaves_nothing() {
    let bench = Bench::new().await;
    let text = APPLY.replace("(2);", "('x');");
    let (run, end) = bench.run(&text).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "sqlstate-22P02");
    assert!(message.starts_with("in statement 2 of 2, ") && message.ends_with("; rolled back"), "{message}");
    assert_eq!(bench.value("SELECT to_regclass('t') IS NULL").await, "t");
    assert_eq!(bench.value("SELECT count(*) FROM pgrunbook.ledger").await, "0");
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
}

#[tokio::test]
async fn apply_takes_back_what_is_not_as_expected() {
    let bench = Bench::new().await;
    bench.execute("CREATE TABLE t AS SELECT 1 AS n").await;
    let (_, end) = bench
        .run(&one(
            "-- apply: none    target: main\n-- undo: none: a test\n-- expect: 0 rows\nDELETE FROM t RETURNING n;",
        ))
        .await;
    assert_eq!(failure(&end).2, "expected 0 rows, got 1 row; rolled back");
    assert_eq!(bench.value("SELECT count(*) FROM t").await, "1");
}

#[tokio::test]
async fn apply_gives_way_and_tries_again_while_a_lock_is_held() {
    let bench = Bench::new().await;
    bench.execute("CREATE TABLE t (n int)").await;
    let holder = bench.session().await;
    holder.execute("BEGIN; SELECT * FROM t").await.unwrap();
    let text = one("-- apply: add    target: main\n-- undo: none: a test\nALTER TABLE t ADD m int;");
    let run = bench.begin(&text).await;
    let (end, ()) = tokio::join!(bench.resume(&run), async {
        while !bench.hand.said().contains("a lock is held by pid") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        holder.execute("COMMIT").await.unwrap();
    });
    assert_eq!(end, RunEnd::Completed);
    assert!(bench.hand.said().contains("idle in transaction"), "{}", bench.hand.said());
}

#[tokio::test]
async fn index_that_an_attempt_left_invalid_is_built_anew() {
    let bench = Bench::new().await;
    bench.execute("CREATE TABLE t AS SELECT 1 AS n FROM generate_series(1, 2)").await;
    let text =
        one("-- apply: index    target: main\n-- undo: none: a test\nCREATE UNIQUE INDEX CONCURRENTLY t_n ON t (n);");
    let (run, end) = bench.run(&text).await;
    assert_eq!(failure(&end).1, "sqlstate-23505");
    assert_eq!(bench.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_n'::regclass").await, "f");
    bench.execute("DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)").await;
    assert_eq!(bench.resume(&run).await, RunEnd::Completed);
    assert_eq!(bench.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_n'::regclass").await, "t");
    assert_eq!(
        bench.evidence(&run, "index").await.facts["repaired"],
        serde_json::json!(["DROP INDEX CONCURRENTLY IF EXISTS public.t_n"])
    );
}
