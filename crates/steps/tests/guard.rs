//! What an application's guard reads of what `migrate` writes: the version row, the history, and that it is at work.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use pgrunbook_engine::{Cancel, RunEnd, StepError};
use pgrunbook_guard::{Guard, GuardError, Notice, Outcome, Source, check};
use pgrunbook_postgres::ConnectOptions;
use pgrunbook_postgres::sandbox::url;
use pgrunbook_steps::migrate::chain::Chain;
use pgrunbook_steps::migrate::{Applied, Around, Goal, Options, Runner, VersionRow, VersionWrite};
use tokio::sync::mpsc;
use tokio_postgres::{Client, NoTls};

use crate::bench::{Bench, failure};

const UNDO: &str = "undo";

/// One step that brings the schema to a version.
fn runbook(version: &str) -> String {
    format!(
        "# T\n\n## Apply\n\n```toml step\nmigrate = \"load\"\ntarget = \"main\"\nchain = \"db\"\nundo = \"down\"\nversion_row = {{ version = \"{version}\" }}\n```\n"
    )
}

const BASELINE: &str = "CREATE TABLE bot_config (config_key text PRIMARY KEY, config_value jsonb NOT NULL);\n";

fn baseline(bench: &Bench) {
    bench.write("db/0001_baseline.sql", BASELINE);
    bench.write("db/0001_baseline.down.sql", "DROP TABLE bot_config;\n");
}

fn second(bench: &Bench) {
    bench.write("db/0002_note.sql", "CREATE TABLE note (id int);\n");
    bench.write("db/0002_note.down.sql", "DROP TABLE note;\n");
}

async fn client(options: &ConnectOptions) -> Client {
    let (client, connection) = tokio_postgres::connect(&url(options), NoTls).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    client
}

async fn guarded(bench: &Bench, app: &str, source: Source) -> Result<Outcome, GuardError> {
    check(app, source, &mut client(&bench.database).await).await
}

/// What the row says: version and migration.
async fn row(bench: &Bench) -> String {
    let sql = "SELECT COALESCE(string_agg(concat_ws(' ', config_value ->> 'version', config_value ->> 'migration'), ', '), '')
               FROM bot_config WHERE config_key = 'schema_version'";
    bench.value(sql).await
}

async fn up(bench: &Bench, version: VersionRow) -> Result<Applied, StepError> {
    let chain = Chain::read("db", &bench.path("db")).unwrap();
    let cancel = Cancel::default();
    let tell = |_: String| ();
    let around = Around::by_hand(&cancel, "anna@desk", &tell);
    let options = Options { version: Some(VersionWrite::Set(version)), ..Options::default() };
    let runner = Runner { chain: &chain, target: &bench.database, options, around };
    let mut applied = Applied::default();
    runner.go(&Goal::Up(None), &mut applied).await.map(|()| applied)
}

#[tokio::test]
async fn version_row_goes_forward_and_back_with_its_migrations() {
    let bench = Bench::new().await;
    baseline(&bench);
    let (first, end) = bench.run(&runbook("1.0.0")).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(row(&bench).await, "1.0.0 0001_baseline");
    let Ok(Outcome::Compatible(fits)) = guarded(&bench, "1.0.0", Source::bot_config()).await else { panic!() };
    assert!(fits.stored.timestamp.unwrap().starts_with("20"));
    assert_eq!(guarded(&bench, "1.1.0", Source::bot_config()).await.unwrap_err().code(), "application-newer");
    assert_eq!(guarded(&bench, "0002", Source::history("db")).await.unwrap_err().code(), "application-newer");

    second(&bench);
    let (next, end) = bench.run(&runbook("1.1.0")).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(row(&bench).await, "1.1.0 0002_note");
    // One transaction wrote both.
    let same = "SELECT (SELECT xmin::text FROM bot_config) = (SELECT xmin::text FROM pg_class WHERE relname = 'note')";
    assert_eq!(bench.value(same).await, "t");
    for (app, source) in
        [("1.1.0", Source::bot_config()), ("1.0.0", Source::bot_config()), ("2", Source::history("db"))]
    {
        guarded(&bench, app, source).await.unwrap();
    }

    assert_eq!(bench.rollback(&next, UNDO).await, RunEnd::RolledBack);
    assert_eq!(row(&bench).await, "1.0.0 0001_baseline");
    assert_eq!(guarded(&bench, "1.1.0", Source::bot_config()).await.unwrap_err().code(), "application-newer");
    assert_eq!(guarded(&bench, "0002", Source::history("db")).await.unwrap_err().code(), "application-newer");
    assert_eq!(bench.rollback(&first, UNDO).await, RunEnd::RolledBack);
    assert_eq!(guarded(&bench, "1.0.0", Source::bot_config()).await.unwrap_err().code(), "no-table");
    assert_eq!(guarded(&bench, "0001", Source::history("db")).await.unwrap_err().code(), "no-version");
}

#[tokio::test]
async fn version_alone_is_written_and_taken_back_where_all_is_applied() {
    let bench = Bench::new().await;
    baseline(&bench);
    assert_eq!(bench.run(&runbook("1.0.0")).await.1, RunEnd::Completed);
    let (run, end) = bench.run(&runbook("1.0.1")).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(row(&bench).await, "1.0.1 0001_baseline");
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(row(&bench).await, "1.0.0 0001_baseline");
    assert_eq!(bench.value("SELECT to_regclass('bot_config') IS NOT NULL").await, "t");
}

#[tokio::test]
async fn row_does_not_grow_for_ever() {
    let bench = Bench::new().await;
    baseline(&bench);
    for patch in 0..12 {
        up(&bench, VersionRow::usual(&format!("1.0.{patch}"))).await.unwrap();
    }
    let kept =
        "SELECT config_value ->> 'version', config_value #>> (array_fill('previous'::text, ARRAY[8]) || 'version'::text),
                       config_value #> array_fill('previous'::text, ARRAY[9]) FROM bot_config";
    let answers = bench.session().await.simple(kept).await.unwrap();
    assert_eq!(answers[0].rows[0], [Some("1.0.11".to_owned()), Some("1.0.3".to_owned()), None]);
}

#[tokio::test]
async fn row_that_somebody_wrote_since_is_not_taken_back() {
    let bench = Bench::new().await;
    baseline(&bench);
    assert_eq!(bench.run(&runbook("1.0.0")).await.1, RunEnd::Completed);
    second(&bench);
    let (run, end) = bench.run(&runbook("1.1.0")).await;
    assert_eq!(end, RunEnd::Completed);
    bench.execute("UPDATE bot_config SET config_value = '{\"version\": \"1.2.0\"}'").await;
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(bench.value("SELECT config_value ->> 'version' FROM bot_config").await, "1.2.0");
}

#[tokio::test]
async fn missing_table_takes_the_migration_back_with_it() {
    let bench = Bench::new().await;
    second(&bench);
    let (_, end) = bench.run(&runbook("1.0.0")).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "version-row");
    assert!(message.contains("not written into bot_config (schema_version)"), "{message}");
    assert!(message.contains("0002_note.sql is rolled back"), "{message}");
    assert_eq!(bench.value("SELECT to_regclass('note') IS NULL").await, "t");
    assert_eq!(guarded(&bench, "0002", Source::history("db")).await.unwrap_err().code(), "no-version");
}

#[tokio::test]
async fn version_follows_a_migration_without_a_transaction() {
    let bench = Bench::new().await;
    baseline(&bench);
    second(&bench);
    bench.write("db/0003_index.sql", "CREATE INDEX CONCURRENTLY note_id ON note (id);\n");
    bench.write("db/0003_index.down.sql", "DROP INDEX CONCURRENTLY note_id;\n");
    let (run, end) = bench.run(&runbook("1.2.0")).await;
    assert_eq!(end, RunEnd::Completed);
    assert_eq!(row(&bench).await, "1.2.0 0003_index");
    assert_eq!(bench.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(bench.value("SELECT to_regclass('bot_config') IS NULL").await, "t");
}

#[tokio::test]
async fn row_fits_the_table_that_is_there() {
    let bench = Bench::new().await;
    bench.execute("CREATE SCHEMA app; CREATE TABLE app.settings (name text, environment text, value text)").await;
    bench.execute("INSERT INTO app.settings VALUES ('schema', 'staging', 'not even JSON')").await;
    second(&bench);
    let row = VersionRow {
        table: "app.settings".to_owned(),
        key: "schema".to_owned(),
        environment: Some("production".to_owned()),
        key_column: "name".to_owned(),
        value_column: "value".to_owned(),
        ..VersionRow::usual("1.1.0")
    };
    up(&bench, row.clone()).await.unwrap();
    let source = pgrunbook_guard::VersionRow {
        key: "schema".to_owned(),
        environment: Some("production".to_owned()),
        key_column: "name".to_owned(),
        value_column: "value".to_owned(),
        ..pgrunbook_guard::VersionRow::of("app.settings").unwrap()
    };
    guarded(&bench, "1.1.0", Source::Row(source)).await.unwrap();
    // Nothing to do: nothing is written.
    let before = bench.value("SELECT value FROM app.settings WHERE environment = 'production'").await;
    assert_eq!(up(&bench, row).await.unwrap(), Applied::default());
    assert_eq!(bench.value("SELECT value FROM app.settings WHERE environment = 'production'").await, before);
    assert_eq!(bench.value("SELECT count(*) FROM app.settings").await, "2");
}

#[test]
fn version_that_no_guard_reads_is_refused() {
    for version in ["1.0", "v1.0.0", ""] {
        assert!(VersionRow::usual(version).check().unwrap_err().contains("no semantic version"), "{version}");
    }
    let row = VersionRow { table: ".x".to_owned(), ..VersionRow::usual("1.0.0") };
    assert!(row.check().unwrap_err().contains("is no table"));
}

#[tokio::test]
async fn migration_that_is_half_done_does_not_count() {
    let bench = Bench::new().await;
    baseline(&bench);
    let half = "CREATE TABLE note (id int);\nCREATE INDEX CONCURRENTLY note_id ON note (id);\nSELECT 1 / 0;\n";
    bench.write("db/0002_half.sql", half);
    up(&bench, VersionRow::usual("1.1.0")).await.unwrap_err();
    let error = guarded(&bench, "0002", Source::history("db")).await.unwrap_err();
    assert_eq!(error.code(), "unfinished", "{error}");
    assert!(error.to_string().contains("migration 0002 of db is half done"), "{error}");
    guarded(&bench, "0001", Source::history("db")).await.unwrap();
    assert_eq!(row(&bench).await, "");
}

#[tokio::test]
async fn gap_in_the_history_is_named() {
    let bench = Bench::new().await;
    baseline(&bench);
    bench.write("db/0003_later.sql", "SELECT 1;\n");
    up(&bench, VersionRow::usual("1.0.0")).await.unwrap();
    let error = guarded(&bench, "0002", Source::history("db")).await.unwrap_err();
    assert_eq!(error.code(), "missing", "{error}");
    assert!(error.to_string().contains("0003 is applied, and 0002 is not"), "{error}");
}

/// A migration that is under way for as long as the session holds the lock.
async fn under_way(bench: &Bench) -> pgrunbook_postgres::Session {
    baseline(bench);
    up(bench, VersionRow::usual("1.0.0")).await.unwrap();
    bench.write("db/0002_long.sql", "SELECT pg_advisory_xact_lock(4711);\nCREATE TABLE note (id int);\n");
    let holder = bench.session().await;
    holder.execute("SELECT pg_advisory_lock(4711)").await.unwrap();
    holder
}

#[tokio::test]
async fn runner_at_work_is_waited_for_by_its_name() {
    for (app, source) in [("1.1.0", Source::bot_config()), ("0002", Source::history("db"))] {
        let bench = Bench::new().await;
        let holder = under_way(&bench).await;
        let (tell, mut told) = mpsc::unbounded_channel();
        let guard = Guard::new(app, source).unwrap().wait(Duration::from_secs(60));
        let guard = guard.tell(move |notice| tell.send(notice.clone()).unwrap());
        let mut application = client(&bench.database).await;
        let migrating = up(&bench, VersionRow::usual("1.1.0"));
        let starting = async {
            // Not before it is at work: nobody is waited for who has not begun.
            wait_for(&bench, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").await;
            guard.check(&mut application).await
        };
        let releasing = async {
            let Some(Notice::Waiting { who, .. }) = told.recv().await else { panic!("it waits for nobody") };
            assert!(who.starts_with("anna@desk, since 20"), "{who}");
            holder.execute("SELECT pg_advisory_unlock(4711)").await.unwrap();
        };
        let (migrated, started, ()) = tokio::join!(migrating, starting, releasing);
        assert_eq!(migrated.unwrap().versions, ["0002"]);
        let Ok(Outcome::Compatible(fits)) = started else { panic!("{started:?}") };
        assert!(fits.waited > Duration::ZERO);
    }
}

#[tokio::test]
async fn runner_that_does_not_end_is_named_at_the_deadline() {
    let bench = Bench::new().await;
    let holder = under_way(&bench).await;
    let mut application = client(&bench.database).await;
    let migrating = up(&bench, VersionRow::usual("1.1.0"));
    let starting = async {
        wait_for(&bench, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").await;
        let guard = Guard::new("1.1.0", Source::bot_config()).unwrap().wait(Duration::from_millis(300)).tell(|_| ());
        let error = guard.check(&mut application).await.unwrap_err();
        holder.execute("SELECT pg_advisory_unlock(4711)").await.unwrap();
        error
    };
    let (migrated, error) = tokio::join!(migrating, starting);
    migrated.unwrap();
    assert_eq!(error.code(), "still-migrating", "{error}");
    assert!(error.to_string().contains("migrations by anna@desk, since 20"), "{error}");
}

/// Until the count is not zero.
async fn wait_for(bench: &Bench, count: &str) {
    let session = bench.session().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let mine = format!("{count} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())");
    while session.value(&mine).await.unwrap() == "0" {
        assert!(std::time::Instant::now() < deadline, "nobody waits for the lock");
        tokio::task::yield_now().await;
    }
}
