//! `migrate`: chains run forward and back, beside what `psql` does, and over crashes.

use std::process::Command;

use pgrunbook_engine::{Cancel, RunEnd, UNDO};
use pgrunbook_postgres::Session;
use pgrunbook_steps::migrate::adopt::{Tool, adopt, find};
use pgrunbook_steps::migrate::chain::Chain;
use pgrunbook_steps::migrate::layout::Version;
use pgrunbook_steps::migrate::{Act, Applied, Around, DryRun, Goal, Options, Runner, dry_run, dry_run_of_each};

use crate::bench::{Bench, failure};

const RUNBOOK: &str = "# Load

## Load

```toml step
migrate = \"load\"
target = \"main\"
chain = \"db\"
undo = \"down\"
```
";

const RUNBOOK_WITHOUT_UNDO: &str = "# Load

## Load

```toml step
migrate = \"load\"
target = \"main\"
chain = \"db\"
undo = \"none: the test drops it\"
```
";

/// Runs a chain without a runbook.
async fn go(bench: &Bench, goal: &Goal, options: Options) -> Result<Applied, pgrunbook_engine::StepError> {
    let chain = Chain::read("db", &bench.path("db")).unwrap();
    let cancel = Cancel::default();
    let tell = |line: String| bench.hand.said.lock().unwrap().push(line);
    let around = Around::by_hand(&cancel, "anna@desk", &tell);
    let runner = Runner { chain: &chain, target: &bench.database, options, around };
    let mut applied = Applied::default();
    runner.go(goal, &mut applied).await.map(|()| applied)
}

async fn up(bench: &Bench) -> Result<Applied, pgrunbook_engine::StepError> {
    go(bench, &Goal::Up(None), Options::default()).await
}

fn three(bench: &Bench) {
    bench.write("db/0001_a.sql", "CREATE TABLE a (id int PRIMARY KEY);\n");
    bench.write("db/0001_a.down.sql", "DROP TABLE a;\n");
    bench.write("db/0002_b.sql", "CREATE TABLE b (a int REFERENCES a);\nINSERT INTO a VALUES (1);\n");
    bench.write("db/0002_b.down.sql", "DROP TABLE b; DELETE FROM a;\n");
    bench.write(
        "db/0002_b.verify.sql",
        "-- expect: 1 row\nSELECT * FROM a;\n-- expect: error 23503\nINSERT INTO b VALUES (2);\n",
    );
    bench.write("db/0003_c.sql", "CREATE VIEW c AS SELECT * FROM a;\n");
    bench.write("db/0003_c.down.sql", "DROP VIEW c;\n");
}

const HISTORY: &str = "SELECT string_agg(version || ' ' || state, ', ' ORDER BY seq) FROM pgrunbook.migration";

#[tokio::test]
async fn chain_goes_up_in_a_run_and_down_with_its_undo() {
    let bench = Bench::new().await;
    three(&bench);
    let (run, end) = bench.run(RUNBOOK).await;
    assert_eq!(end, RunEnd::Completed);
    let evidence = bench.evidence(&run, "load").await;
    assert_eq!(evidence.summary, "0001, 0002, 0003 applied");
    assert_eq!(evidence.facts["verified"], serde_json::json!(["0002"]));
    assert_eq!(bench.value(HISTORY).await, "0001 applied, 0002 applied, 0003 applied");
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(bench.value("SELECT count(*) FROM pg_class WHERE relname IN ('a', 'b', 'c')").await, "0");
    assert_eq!(bench.value(HISTORY).await, "");
}

#[tokio::test]
async fn failed_file_leaves_nothing_and_the_files_before_it_stay() {
    let bench = Bench::new().await;
    three(&bench);
    bench.write("db/0002_b.sql", "CREATE TABLE b (a int);\n\nINSERT INTO b\nVALUES ('x');\n");
    let (run, end) = bench.run(RUNBOOK).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "sqlstate-22P02");
    assert!(message.starts_with("0002_b.sql, line 4: "), "{message}");
    assert!(message.contains("rolled back (0001 before it stays)"), "{message}");
    assert_eq!(bench.value(HISTORY).await, "0001 applied");
    // The way back takes what stays.
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(bench.value("SELECT to_regclass('a') IS NULL").await, "t");
}

#[tokio::test]
async fn nothing_pending_is_nothing_done() {
    let bench = Bench::new().await;
    three(&bench);
    up(&bench).await.unwrap();
    assert_eq!(up(&bench).await.unwrap(), Applied::default());
}

#[tokio::test]
async fn edited_file_is_shown_with_its_diff_and_nothing_is_done() {
    let bench = Bench::new().await;
    three(&bench);
    up(&bench).await.unwrap();
    bench.write("db/0001_a.sql", "CREATE TABLE a (id bigint PRIMARY KEY);\n");
    bench.write("db/0004_d.sql", "CREATE TABLE d ();\n");
    let error = up(&bench).await.unwrap_err();
    assert_eq!(error.code, "edited");
    assert!(
        error.message.contains("-CREATE TABLE a (id int PRIMARY KEY);\n+CREATE TABLE a (id bigint PRIMARY KEY);"),
        "{error}"
    );
    assert_eq!(bench.value("SELECT to_regclass('d') IS NULL").await, "t");
    // Line endings and a byte order mark are no edit.
    bench.write("db/0001_a.sql", "\u{feff}CREATE TABLE a (id int PRIMARY KEY);\r\n");
    assert_eq!(up(&bench).await.unwrap().versions, ["0004"]);
}

#[tokio::test]
async fn late_file_is_refused_unless_it_is_allowed() {
    let bench = Bench::new().await;
    three(&bench);
    std::fs::rename(bench.path("db/0002_b.sql"), bench.path("late")).unwrap();
    for name in ["db/0002_b.down.sql", "db/0002_b.verify.sql"] {
        std::fs::remove_file(bench.path(name)).unwrap();
    }
    up(&bench).await.unwrap();
    std::fs::rename(bench.path("late"), bench.path("db/0002_b.sql")).unwrap();
    let error = up(&bench).await.unwrap_err();
    assert_eq!(error.code, "out-of-order");
    let allowed = Options { out_of_order: true, ..Options::default() };
    assert_eq!(go(&bench, &Goal::Up(None), allowed).await.unwrap().versions, ["0002"]);
}

#[tokio::test]
async fn repeatable_files_follow_their_content_and_what_they_depend_on() {
    let bench = Bench::new().await;
    three(&bench);
    bench.write("db/R__top.sql", "-- depends: base\nCREATE OR REPLACE VIEW top AS SELECT * FROM base;\n");
    bench.write("db/R__base.sql", "CREATE OR REPLACE VIEW base AS SELECT id FROM a;\n");
    assert_eq!(up(&bench).await.unwrap().repeatable, ["base", "top"]);
    assert!(up(&bench).await.unwrap().repeatable.is_empty());
    bench.write("db/R__base.sql", "CREATE OR REPLACE VIEW base AS SELECT id, 1 AS n FROM a;\n");
    assert_eq!(up(&bench).await.unwrap().repeatable, ["base"]);
}

#[tokio::test]
async fn files_start_in_a_fresh_session() {
    let bench = Bench::new().await;
    // As pg_dump writes it.
    bench.write("db/1_dump.sql", "SELECT pg_catalog.set_config('search_path', '', false);\nSET check_function_bodies = false;\nCREATE TABLE public.one (n int);\nSET ROLE pg_monitor;\n");
    bench.write("db/2_next.sql", "CREATE TABLE two AS SELECT current_user AS u, current_setting('check_function_bodies') AS c FROM one;\nINSERT INTO two VALUES (current_user, current_setting('check_function_bodies'));\n");
    assert_eq!(up(&bench).await.unwrap().versions, ["1", "2"]);
    assert_eq!(bench.value("SELECT u || ' ' || c FROM two").await, "postgres on");
}

#[tokio::test]
async fn concurrent_index_runs_outside_of_a_transaction_and_is_repaired() {
    let bench = Bench::new().await;
    bench.write("db/1_t.sql", "CREATE TABLE t AS SELECT 1 AS n FROM generate_series(1, 2);\n");
    bench.write(
        "db/2_index.sql",
        "CREATE TABLE before_it ();\nSET maintenance_work_mem = '32MB';\nCREATE UNIQUE INDEX CONCURRENTLY t_n ON t (n);\nCREATE TABLE after_it ();\n",
    );
    let error = up(&bench).await.unwrap_err();
    assert_eq!(error.code, "sqlstate-23505");
    assert!(error.message.starts_with("2_index.sql, line 3: "), "{error}");
    assert_eq!(bench.value(HISTORY).await, "1 applied, 2 running");
    bench.execute("DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)").await;
    assert_eq!(up(&bench).await.unwrap().versions, ["2"]);
    assert!(
        bench.hand.said().contains("clearing away: DROP INDEX CONCURRENTLY IF EXISTS public.t_n"),
        "{}",
        bench.hand.said()
    );
    assert_eq!(bench.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_n'::regclass").await, "t");
    assert_eq!(bench.value("SELECT to_regclass('after_it') IS NOT NULL").await, "t");
    assert_eq!(bench.value(HISTORY).await, "1 applied, 2 applied");
}

#[tokio::test]
async fn two_runners_at_once_apply_each_file_once() {
    let bench = Bench::new().await;
    for number in 1..=20 {
        bench.write(&format!("db/{number:04}_n.sql"), &format!("CREATE TABLE n{number} (); SELECT pg_sleep(0.005);\n"));
    }
    let (one, two) = tokio::join!(up(&bench), up(&bench));
    assert_eq!(one.unwrap().versions.len() + two.unwrap().versions.len(), 20);
    assert_eq!(bench.value("SELECT count(*) FROM pgrunbook.migration").await, "20");
}

#[tokio::test]
async fn connection_lost_in_a_file_is_settled_by_the_history() {
    let bench = Bench::new().await;
    three(&bench);
    // The second file ends its own session: what its message's COMMIT did is for the history to say.
    bench.write("db/0002_b.sql", "CREATE TABLE b ();\nSELECT pg_terminate_backend(pg_backend_pid());\n");
    let (_, end) = bench.run(RUNBOOK).await;
    assert!(matches!(end, RunEnd::Failed { .. }), "{end:?}");
    assert_eq!(bench.value(HISTORY).await, "0001 applied");
    assert_eq!(bench.value("SELECT to_regclass('b') IS NULL").await, "t");
}

#[tokio::test]
async fn lock_is_waited_for_briefly_again_and_again() {
    let bench = Bench::new().await;
    three(&bench);
    go(&bench, &Goal::Up(Some(Version::parse("1").unwrap())), Options::default()).await.unwrap();
    bench.write("db/0002_b.sql", "ALTER TABLE a ADD n int;\n");
    std::fs::remove_file(bench.path("db/0002_b.verify.sql")).unwrap();
    let holder = bench.session().await;
    holder.execute("BEGIN; SELECT * FROM a").await.unwrap();
    let (applied, ()) = tokio::join!(up(&bench), async {
        while !bench.hand.said().contains("a lock is held by pid") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        // Nobody waits in the queue while it pauses: a reader gets through although the lock is still held.
        let reader = bench.session().await;
        while reader.execute("SET lock_timeout = '200ms'; SELECT * FROM a").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        holder.execute("COMMIT").await.unwrap();
    });
    assert_eq!(applied.unwrap().versions, ["0002", "0003"]);
}

#[tokio::test]
async fn failed_verification_is_named_and_the_migration_stays() {
    let bench = Bench::new().await;
    three(&bench);
    bench.write("db/0002_b.verify.sql", "\n-- expect: 0 rows\nSELECT * FROM a;\n");
    let error = up(&bench).await.unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("verification", "0002_b.verify.sql, line 2: expected 0 rows, got 1 row")
    );
    assert_eq!(bench.value(HISTORY).await, "0001 applied, 0002 applied");
}

#[tokio::test]
async fn dry_run_reports_locks_and_leaves_nothing() {
    let bench = Bench::new().await;
    bench.execute("CREATE TABLE old (n int)").await;
    bench.write("db/1_a.sql", "ALTER TABLE old ADD m int;\nCREATE TABLE fresh ();\n");
    bench.write("db/2_b.sql", "CREATE INDEX CONCURRENTLY i ON old (m);\n");
    let chain = Chain::read("db", &bench.path("db")).unwrap();
    let cancel = Cancel::default();
    let around = Around::by_hand(&cancel, "a", &|_| {});
    let runner = Runner { chain: &chain, target: &bench.database, options: Options::default(), around };
    let DryRun { ran, not_tried, locks, .. } = dry_run(&runner).await.unwrap();
    assert_eq!(ran, ["1_a.sql"]);
    assert!(not_tried[0].starts_with("2_b.sql: runs without a transaction"), "{not_tried:?}");
    assert_eq!(locks, [("old".to_owned(), "AccessExclusiveLock".to_owned())]);
    assert_eq!(bench.value("SELECT to_regclass('fresh') IS NULL").await, "t");
}

#[tokio::test]
async fn dry_run_of_each_says_what_each_statement_did_to_what_was_there() {
    let bench = Bench::new().await;
    bench.execute("CREATE TABLE old (n int); INSERT INTO old VALUES (1); CREATE TABLE gone (n int)").await;
    bench.write(
        "db/1_a.sql",
        "-- Wider.\nALTER TABLE old ALTER n TYPE bigint;\nCREATE TABLE fresh (n int);\nALTER TABLE old RENAME TO older;\n\
         ALTER TABLE older\n  ADD CHECK (n > 0);\nDROP TABLE gone;\nSELECT count(*) FROM fresh;\n",
    );
    let chain = Chain::read("db", &bench.path("db")).unwrap();
    let cancel = Cancel::default();
    let around = Around::by_hand(&cancel, "a", &|_| {});
    let runner = Runner { chain: &chain, target: &bench.database, options: Options::default(), around };
    let seen = dry_run_of_each(&runner).await.unwrap();
    let shown = |act: &Act| {
        let locks: Vec<_> = act.locks.iter().map(|(relation, mode)| format!("{relation} {mode}")).collect();
        let (rewrites, scans) = (act.rewrites.join(" "), act.scans.join(" "));
        format!("{}: {} [{}] rewrites [{rewrites}] scans [{scans}]", act.line, act.statement, locks.join(", "))
    };
    assert_eq!(
        seen.acts.iter().map(shown).collect::<Vec<_>>(),
        [
            "2: ALTER TABLE old ALTER n TYPE bigint [old AccessExclusiveLock, old ShareLock] rewrites [old] scans []",
            "5: ALTER TABLE older ADD CHECK (n > 0) [] rewrites [] scans [old]",
            "7: DROP TABLE gone [gone AccessExclusiveLock] rewrites [] scans []",
        ],
        "a table is called as others call it, and what the file makes is nobody's"
    );
    assert_eq!(seen.qualified["old"], "public.old");
    assert_eq!(bench.value("SELECT to_regclass('older') IS NULL AND to_regclass('gone') IS NOT NULL").await, "t");
}

#[tokio::test]
async fn what_a_file_leaves_set_stays_with_it() {
    let bench = Bench::new().await;
    bench.write("db/1_t.sql", "CREATE TABLE public.t AS SELECT 1 AS n;\n");
    // Neither its verify file, nor the history, nor giving the chain back may meet this role and this path.
    bench.write("db/2_last.sql", "SELECT pg_catalog.set_config('search_path', '', false);\nSET ROLE pg_monitor;\n");
    bench.write("db/2_last.verify.sql", "-- expect: value = 'postgres'\nSELECT current_user FROM t;\n");
    assert_eq!(up(&bench).await.unwrap().verified, ["2"]);
    bench.write("db/3_end.sql", "SET ROLE pg_monitor;\nSET default_transaction_read_only = on;\n");
    assert_eq!(up(&bench).await.unwrap().versions, ["3"]);
    assert_eq!(bench.value("SELECT count(*) FROM pgrunbook.migration_runner").await, "0");
}

#[tokio::test]
async fn role_of_a_file_without_transaction_does_not_keep_its_history() {
    let bench = Bench::new().await;
    let owner =
        format!("owner_{}", bench.value("SELECT oid FROM pg_database WHERE datname = current_database()").await);
    bench.execute(&format!("CREATE ROLE {owner}; CREATE SCHEMA s AUTHORIZATION {owner}")).await;
    bench.write(
        "db/1_i.sql",
        &format!("SET ROLE {owner};\nCREATE TABLE s.t (n int);\nCREATE INDEX CONCURRENTLY i ON s.t (n);\nCREATE TABLE s.u ();\n"),
    );
    let end = bench.run(RUNBOOK_WITHOUT_UNDO).await.1;
    assert_eq!(end, RunEnd::Completed);
    let owners =
        "SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_class WHERE relnamespace = 's'::regnamespace";
    assert_eq!(bench.value(owners).await, owner);
    assert_eq!(bench.value(HISTORY).await, "1 applied");
    bench.execute(&format!("DROP SCHEMA s CASCADE; DROP ROLE {owner}")).await;
}

#[tokio::test]
async fn dry_run_sees_each_file_as_a_run_would() {
    let bench = Bench::new().await;
    bench.write(
        "db/1_dump.sql",
        "SELECT pg_catalog.set_config('search_path', '', false);\nCREATE TABLE public.one (id int PRIMARY KEY);\n",
    );
    bench.write("db/2_next.sql", "CREATE TABLE two (n int REFERENCES one DEFERRABLE INITIALLY DEFERRED);\n");
    assert_eq!(dry(&bench).await.unwrap().ran, ["1_dump.sql", "2_next.sql"]);
    bench.write("db/3_late.sql", "INSERT INTO two VALUES (1);\n");
    let error = dry(&bench).await.unwrap_err();
    assert_eq!(error.code, "sqlstate-23503");
    assert!(error.message.starts_with("3_late.sql"), "{error}");
    assert_eq!(bench.value("SELECT to_regclass('one') IS NULL").await, "t");
}

#[tokio::test]
async fn transaction_characteristics_follow_a_file_that_leaves_traces() {
    let bench = Bench::new().await;
    let serializable = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;\nCREATE TABLE IF NOT EXISTS t AS SELECT current_setting('transaction_isolation') AS i;\n";
    bench.write("db/1_first.sql", serializable);
    bench.write("db/2_traces.sql", "DROP TABLE t;\nSET default_transaction_isolation = 'repeatable read';\n");
    bench.write("db/3_again.sql", serializable);
    let DryRun { ran, not_tried, .. } = dry(&bench).await.unwrap();
    assert_eq!(ran, ["1_first.sql", "2_traces.sql"]);
    assert!(not_tried[0].starts_with("3_again.sql: it begins with SET TRANSACTION"), "{not_tried:?}");
    assert_eq!(up(&bench).await.unwrap().versions, ["1", "2", "3"]);
    assert_eq!(bench.value("SELECT i FROM t").await, "serializable");
    bench.write("db/4_plain.sql", "CREATE TABLE u AS SELECT current_setting('transaction_isolation') AS i;\n");
    bench.write("db/4_plain.down.sql", "DROP TABLE u;\n");
    assert_eq!(up(&bench).await.unwrap().versions, ["4"]);
    assert_eq!(bench.value("SELECT i FROM u").await, "read committed");
}

#[tokio::test]
async fn dry_run_names_what_needs_the_files_before_it_committed() {
    let bench = Bench::new().await;
    bench.execute("CREATE TYPE mood AS ENUM ('calm'); CREATE TABLE t (m mood)").await;
    bench.write("db/1_add.sql", "ALTER TYPE mood ADD VALUE 'wild';\n");
    bench.write("db/2_use.sql", "INSERT INTO t VALUES ('wild');\n");
    let DryRun { ran, not_tried, .. } = dry(&bench).await.unwrap();
    assert_eq!(ran, ["1_add.sql"]);
    assert!(not_tried[0].starts_with("2_use.sql: it needs"), "{not_tried:?}");
    assert_eq!(up(&bench).await.unwrap().versions, ["1", "2"]);
}

async fn dry(bench: &Bench) -> Result<DryRun, pgrunbook_engine::StepError> {
    let chain = Chain::read("db", &bench.path("db")).unwrap();
    let cancel = Cancel::default();
    let around = Around::by_hand(&cancel, "a", &|_| {});
    dry_run(&Runner { chain: &chain, target: &bench.database, options: Options::default(), around }).await
}

#[tokio::test]
async fn history_of_other_tools_is_taken_over() {
    let cases = [
        (Tool::Flyway, "CREATE TABLE flyway_schema_history (installed_rank int, version text, type text, success bool);
            INSERT INTO flyway_schema_history VALUES (1, '1', 'SQL', true), (2, '2', 'SQL', true), (3, NULL, 'SQL', true)"),
        (Tool::Sqlx, "CREATE TABLE _sqlx_migrations (version bigint, success bool); INSERT INTO _sqlx_migrations VALUES (1, true), (2, true)"),
        (Tool::Supabase, "CREATE SCHEMA supabase_migrations; CREATE TABLE supabase_migrations.schema_migrations (version text);
            INSERT INTO supabase_migrations.schema_migrations VALUES ('0001'), ('0002')"),
        (Tool::Dbmate, "CREATE TABLE schema_migrations (version varchar); INSERT INTO schema_migrations VALUES ('0001'), ('0002')"),
        (Tool::GolangMigrate, "CREATE TABLE schema_migrations (version bigint, dirty bool); INSERT INTO schema_migrations VALUES (2, false)"),
        (Tool::Alembic, "CREATE TABLE alembic_version (version_num varchar); INSERT INTO alembic_version VALUES ('b')"),
        (Tool::Drizzle, "CREATE SCHEMA drizzle; CREATE TABLE drizzle.__drizzle_migrations (id serial, hash text, created_at bigint);
            INSERT INTO drizzle.__drizzle_migrations (hash, created_at) VALUES ('x', 1700000000001), ('y', 1700000000002)"),
    ];
    for (tool, setup) in cases {
        let bench = Bench::new().await;
        three(&bench);
        bench.write(
            "db/meta/_journal.json",
            r#"{"entries": [{"idx": 0, "when": 1700000000001, "tag": "0001_a"}, {"idx": 1, "when": 1700000000002, "tag": "0002_b"}]}"#,
        );
        bench.execute(setup).await;
        bench.execute("CREATE TABLE a (id int PRIMARY KEY)").await;
        let session = bench.session().await;
        assert_eq!(find(&session).await.unwrap(), Some(tool));
        let chain = Chain::read("db", &bench.path("db")).unwrap();
        let cancel = Cancel::default();
        let around = Around::by_hand(&cancel, "a", &|_| {});
        assert_eq!(adopt(&session, &chain, tool, &around).await.unwrap(), ["0001", "0002"], "{tool:?}");
        assert_eq!(up(&bench).await.unwrap().versions, ["0003"], "{tool:?}");
    }
}

/// Files that end in the same state and the same SQLSTATE as `psql --single-transaction -v ON_ERROR_STOP=1 -f`.
const CORPUS: &[(&str, &str)] = &[
    ("plain", "CREATE TABLE t (n int); INSERT INTO t VALUES (1); -- end"),
    (
        "dollar quotes",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $body$ SELECT 'a;b' || $x$;$x$ $body$;\nSELECT f();",
    ),
    ("nested comments", "/* a /* b; */ c; */ CREATE TABLE t (n int /* ; */);\n-- ; \nCREATE TABLE u ();"),
    (
        "begin atomic",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END;\nCREATE TABLE t ();",
    ),
    (
        "procedure atomic",
        "CREATE TABLE t (n int);\nCREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); END;\nCALL p();",
    ),
    (
        "copy",
        "CREATE TABLE t (a int, b text);\nCOPY t (a, b) FROM stdin;\n1\tone; two\n2\t\\N\n3\t\\\\.x\n\\.\nINSERT INTO t VALUES (4, 'four');",
    ),
    ("copy csv", "CREATE TABLE t (a int, b text);\nCOPY t FROM stdin WITH (FORMAT csv);\n1,\"a;b\"\n2,\n\\.\n"),
    ("copy fails", "CREATE TABLE t (a int);\nCOPY t FROM stdin;\n1\nx\n\\.\nCREATE TABLE u ();"),
    ("bom and crlf", "\u{feff}CREATE TABLE t (n int);\r\nINSERT INTO t VALUES (1);\r\n"),
    (
        "search path",
        "SELECT pg_catalog.set_config('search_path', '', false);\nCREATE SCHEMA s;\nCREATE TABLE s.t (n int);\nCREATE TABLE public.u ();",
    ),
    (
        "search path set",
        "CREATE SCHEMA s; SET search_path = s; CREATE TABLE t (n int); RESET search_path; CREATE TABLE u ();",
    ),
    (
        "strings",
        "CREATE TABLE t AS SELECT 'it''s; a' AS a, E'b\\';c' AS b, U&'\\0041;' AS c, $$;$$ AS d, B'1' AS e, \"current_user\"() AS f FROM (SELECT 1) x LIMIT 0;",
    ),
    ("syntax error", "CREATE TABLE t ();\nCREATE TABEL u ();"),
    ("unique violation", "CREATE TABLE t (n int PRIMARY KEY);\nINSERT INTO t VALUES (1), (1);\nCREATE TABLE u ();"),
    (
        "deferred at commit",
        "CREATE TABLE a (id int PRIMARY KEY);\nCREATE TABLE b (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO b VALUES (1);",
    ),
    (
        "savepoints",
        "CREATE TABLE t (n int);\nSAVEPOINT s;\nINSERT INTO t VALUES (1);\nROLLBACK TO s;\nINSERT INTO t VALUES (2);\nRELEASE s;",
    ),
    ("do block", "DO $$ BEGIN EXECUTE 'CREATE TABLE t (n int)'; RAISE NOTICE 'x;'; END $$;\nINSERT INTO t VALUES (1);"),
    ("raise", "CREATE TABLE t ();\nDO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'P0042'; END $$;"),
    ("unclosed string", "CREATE TABLE t ();\nSELECT 'open;"),
    ("unclosed comment", "CREATE TABLE t ();\n/* open"),
    ("empty", ""),
    ("only comments", "-- nothing\n/* here */\n;;\n"),
    ("no final newline", "CREATE TABLE t (n int)"),
    (
        "operators",
        "CREATE TABLE t AS SELECT ARRAY[1,2,3] AS a, (ARRAY[1,2,3])[1:2] AS b, '{}'::jsonb AS c, 1::int AS d;",
    ),
    ("type and enum", "CREATE TYPE mood AS ENUM ('a', 'b');\nCREATE TABLE t (m mood);\nINSERT INTO t VALUES ('c');"),
    (
        "transaction characteristics",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;\nCREATE TABLE t AS SELECT current_setting('transaction_isolation') AS i;",
    ),
    ("role", "CREATE TABLE t (n int); SET ROLE pg_monitor; SELECT * FROM t;"),
    ("standard strings off", "SET standard_conforming_strings = off;\nCREATE TABLE t AS SELECT 'a\\'b' AS x;"),
    (
        "rule with several statements",
        "CREATE TABLE t (n int);\nCREATE TABLE u (n int);\nCREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (NEW.n); INSERT INTO u VALUES (NEW.n));\nINSERT INTO t VALUES (1);",
    ),
    ("restrict", "\\restrict abc\nCREATE TABLE t (n int);\n\\unrestrict abc\n"),
];

/// What is there afterwards: the schema as pg_dump writes it, and the rows of every table.
fn state(database: &pgrunbook_postgres::ConnectOptions) -> String {
    let output = Command::new("pg_dump")
        .args(["--inserts", "--exclude-schema=pgrunbook"])
        .envs(database.libpq_env())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Newer releases put a random word around the dump.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn every_file_ends_as_with_psql() {
    for (name, text) in CORPUS {
        let (ours, theirs) = (Bench::new().await, Bench::new().await);
        ours.write("db/1_file.sql", text);
        theirs.write("file.sql", text);
        let error = up(&ours).await.err();
        let output = Command::new("psql")
            .args(["-X", "--single-transaction", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-f"])
            .arg(theirs.path("file.sql"))
            .envs(theirs.database.libpq_env())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // `ERROR:  42601: syntax error ...`
        let wanted = said.lines().find_map(|line| {
            let rest = line.split("ERROR:  ").nth(1)?;
            Some(rest.split(':').next()?.to_owned())
        });
        let found = error.as_ref().map(|error| error.code.trim_start_matches("sqlstate-").to_owned());
        assert_eq!(found, wanted, "{name}: {error:?}\npsql: {said}");
        assert_eq!(state(&ours.database), state(&theirs.database), "{name}");
    }
}

#[tokio::test]
async fn pooler_in_front_does_not_disturb_transactions() {
    let cluster = pgrunbook_postgres::sandbox::Sandbox::start(pgrunbook_postgres::sandbox::SandboxOptions::default())
        .await
        .unwrap();
    let direct = cluster.database("app").await.unwrap();
    let pooler = cluster.pooler(pgrunbook_postgres::sandbox::PoolMode::Transaction, &[]).await.unwrap();
    let bench = Bench::on(pooler.through(&direct));
    three(&bench);
    assert_eq!(up(&bench).await.unwrap().versions, ["0001", "0002", "0003"]);
    let session = Session::connect(&direct, "test").await.unwrap();
    assert_eq!(session.value(HISTORY).await.unwrap(), "0001 applied, 0002 applied, 0003 applied");
}

#[tokio::test]
async fn one_chain_runs_in_several_schemas_as_their_owner() {
    let bench = Bench::new().await;
    let owner = format!("owner_{}_{}", std::process::id(), bench.value("SELECT current_database()").await);
    bench
        .execute(&format!(
            "CREATE ROLE {owner}; CREATE SCHEMA a AUTHORIZATION {owner}; CREATE SCHEMA b AUTHORIZATION {owner}"
        ))
        .await;
    bench.write("core/0001_notes.sql", "CREATE TABLE notes (id int);\n");
    bench.write("core/0001_notes.down.sql", "DROP TABLE notes;\n");
    bench.write(
        "core/0001_notes.verify.sql",
        &format!("-- expect: value = '{owner}'\nINSERT INTO notes VALUES (1);\nSELECT current_user FROM notes;\n"),
    );
    bench.write("core/0002_index.sql", "CREATE INDEX CONCURRENTLY notes_id ON notes (id);\nCREATE TABLE more ();\n");
    bench
        .write("core/0002_index.down.sql", "DROP INDEX CONCURRENTLY IF EXISTS notes_id;\nDROP TABLE IF EXISTS more;\n");
    let step = |schema: &str| {
        format!(
            "```toml step\nmigrate = \"core-{schema}\"\ntarget = \"main\"\nchain = \"core\"\nschema = \"{schema}\"\n\
             as = \"{owner}\"\nundo = \"down\"\n```\n\n"
        )
    };
    let text = format!("## Apply\n\n{}{}", step("a"), step("b"));
    let (run, end) = bench.run(&text).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let made = "SELECT string_agg(schemaname || '.' || tablename || ' ' || tableowner, ', ' ORDER BY 1)
        FROM (SELECT schemaname, tablename, tableowner FROM pg_tables WHERE schemaname IN ('a', 'b')
              ORDER BY 1, 2) AS t";
    let wanted = format!("a.more {owner}, a.notes {owner}, b.more {owner}, b.notes {owner}");
    assert_eq!(bench.value(made).await, wanted);
    assert_eq!(
        bench.value("SELECT string_agg(DISTINCT chain, ' ' ORDER BY chain) FROM pgrunbook.migration").await,
        "core@a core@b"
    );
    let end = bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!(bench.value(made).await, "");
    assert_eq!(bench.value("SELECT count(*) FROM pgrunbook.migration").await, "0");
}
