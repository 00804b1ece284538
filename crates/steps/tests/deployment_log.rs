//! The deployment log: a row of a table of the user's, in the transaction of the version row.

use pgrunbook_engine::{EngineError, RunEnd, UNDO};

use crate::bench::{Bench, failure};

/// One step that brings the schema to a version and logs it.
fn runbook(version: &str, log: &str) -> String {
    format!(
        "# T\n\n## Apply\n\n```toml step\nmigrate = \"load\"\ntarget = \"main\"\nchain = \"db\"\nundo = \"down\"\n\
         version_row = {{ version = \"{version}\" }}\ndeployment_log = \"{log}\"\n```\n"
    )
}

const LOG: &str = "audit.deployment_log";

const TABLE: &str = "CREATE SCHEMA audit; CREATE TABLE audit.deployment_log (id bigint GENERATED ALWAYS AS IDENTITY, deployed_at timestamptz NOT NULL,
    action varchar(20) NOT NULL, environment text NOT NULL, run text NOT NULL, step text NOT NULL, content_digest text NOT NULL,
    operator text NOT NULL, version text, migration text);";

/// Settings and log are there, and one migration is not.
async fn bench() -> Bench {
    let bench = Bench::new().await;
    bench.execute("CREATE TABLE bot_config (config_key text PRIMARY KEY, config_value jsonb NOT NULL)").await;
    bench.execute(TABLE).await;
    bench.write("db/0001_note.sql", "CREATE TABLE note (id int);\n");
    bench.write("db/0001_note.down.sql", "DROP TABLE note;\n");
    bench
}

/// What the log says, a line each.
async fn log(bench: &Bench) -> String {
    bench
        .value(
            "SELECT COALESCE(string_agg(concat_ws(' ', action, environment, step, operator, version, migration), E'\\n' ORDER BY id), '')
             FROM audit.deployment_log",
        )
        .await
}

async fn version(bench: &Bench) -> String {
    bench.value("SELECT COALESCE(max(config_value ->> 'version'), '') FROM bot_config").await
}

#[tokio::test]
async fn row_commits_with_the_version_and_one_more_when_it_is_taken_back() {
    let bench = bench().await;
    let (run, end) = bench.run(&runbook("1.0.0", LOG)).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(log(&bench).await, "deployed default load anna@desk 1.0.0 0001_note");
    let same = "SELECT count(DISTINCT xmin::text) FROM (SELECT xmin FROM audit.deployment_log UNION ALL SELECT xmin FROM bot_config
                UNION ALL SELECT xmin FROM pg_class WHERE relname = 'note') AS t";
    assert_eq!(bench.value(same).await, "1", "one transaction wrote all three");
    let plan = bench.engine().await.status(&run).await.unwrap().state.plan;
    let digests = bench.value("SELECT concat_ws(' ', run, content_digest) FROM audit.deployment_log").await;
    assert_eq!(digests, format!("{run} {}", plan.content_digest));
    let facts = bench.evidence(&run, "load").await.facts;
    assert_eq!(facts["version_row"]["after"], "1.0.0");
    assert!(facts["version_row"]["before"].is_null());
    assert_eq!(facts["migrations"][0]["version"], "0001");
    assert!(facts["migrations"][0]["duration_ms"].is_u64(), "{facts:?}");

    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(
        log(&bench).await,
        "deployed default load anna@desk 1.0.0 0001_note\nrolled back default load anna@desk 1.0.0 0001_note"
    );
    assert_eq!(version(&bench).await, "");
}

#[tokio::test]
async fn deployment_in_which_nothing_was_pending_is_logged_too() {
    let bench = bench().await;
    assert_eq!(bench.run(&runbook("1.0.0", LOG)).await.1, RunEnd::Completed);
    let (run, end) = bench.run(&runbook("1.0.0", LOG)).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(
        bench
            .value("SELECT config_value -> 'previous' IS NULL OR config_value ->> 'previous' IS NULL FROM bot_config")
            .await,
        "t",
        "the version row is not written anew"
    );
    assert_eq!(bench.evidence(&run, "load").await.facts["version_row"]["before"], "1.0.0");
    let (next, end) = bench.run(&runbook("1.0.1", LOG)).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(bench.evidence(&next, "load").await.facts["version_row"]["before"], "1.0.0");
    assert_eq!(bench.rollback(&next, UNDO).await, RunEnd::RolledBack);
    let expected = "deployed default load anna@desk 1.0.0 0001_note\ndeployed default load anna@desk 1.0.0 0001_note\n\
                    deployed default load anna@desk 1.0.1 0001_note\nrolled back default load anna@desk 1.0.1";
    assert_eq!(log(&bench).await, expected);
    assert_eq!(version(&bench).await, "1.0.0");
}

#[tokio::test]
async fn log_that_is_missing_or_of_another_shape_takes_the_migration_back_with_it() {
    let shapes = [
        ("DROP TABLE audit.deployment_log", "relation \"audit.deployment_log\" does not exist"),
        ("DROP SCHEMA audit CASCADE", "relation \"audit.deployment_log\" does not exist"),
        (
            "ALTER TABLE audit.deployment_log DROP COLUMN operator",
            "column \"operator\" of relation \"deployment_log\" does not exist",
        ),
        (
            "ALTER TABLE audit.deployment_log ALTER COLUMN run TYPE uuid USING NULL",
            "invalid input syntax for type uuid",
        ),
        ("ALTER TABLE audit.deployment_log ADD COLUMN ticket text NOT NULL", "null value in column \"ticket\""),
    ];
    for (change, why) in shapes {
        let bench = bench().await;
        bench.execute(change).await;
        let (_, end) = bench.run(&runbook("1.0.0", LOG)).await;
        let (_, code, message) = failure(&end);
        assert_eq!(code, "deployment-log", "{change}: {message}");
        assert!(message.contains(why) && message.contains("0001_note.sql is rolled back"), "{change}: {message}");
        let RunEnd::Failed { help: Some(help), .. } = &end else { panic!("{end:?}") };
        assert!(help.contains("CREATE TABLE audit.deployment_log (deployed_at timestamptz"), "{help}");
        assert_eq!(bench.value("SELECT to_regclass('note') IS NULL").await, "t", "{change}");
        assert_eq!(version(&bench).await, "", "{change}");
    }
    // An error of the version row is not the log's.
    let bench = bench().await;
    bench.execute("DROP TABLE bot_config").await;
    let (_, end) = bench.run(&runbook("1.0.0", LOG)).await;
    assert_eq!(failure(&end).1, "version-row");
    assert_eq!(log(&bench).await, "");
}

#[tokio::test]
async fn log_that_is_broken_keeps_nobody_from_going_back() {
    let bench = bench().await;
    let (run, end) = bench.run(&runbook("1.0.0", LOG)).await;
    assert_eq!(end, RunEnd::Completed);
    bench.execute("DROP SCHEMA audit CASCADE").await;
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(bench.value("SELECT to_regclass('note') IS NULL").await, "t");
    assert_eq!(version(&bench).await, "");
}

#[tokio::test]
async fn table_without_its_schema_is_refused_before_anything_is_done() {
    let bench = bench().await;
    let engine = bench.engine().await;
    let refused = engine.plan(&bench.parse(&runbook("1.0.0", "deployment_log")), &Default::default()).await;
    let Err(EngineError::Step { source, .. }) = refused else { panic!("{refused:?}") };
    assert!(source.message.contains("is no table with its schema"), "{}", source.message);
}
