//! What the preflight of a SQLite file says: each finding raised by a real file, with its severity, object and remedy; and what
//! the target and the disks must have for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgrunbook_document::StepId;
use pgrunbook_engine::{Cancel, Evidence, StepError};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::transfer::preflight::{Wanted, of_target};
use pgrunbook_steps::transfer::sqlite::check_existing;
use pgrunbook_steps::transfer::{Finding, Loader, Making, Severity, Spec, Sync, to_table};

use crate::bench::{Bench, Hand, cluster};
use crate::preflight::{alone, say_what_to_do};
use crate::small_disk::SmallDisk;
use crate::sqlite::{File, database};

use Severity::{Consent, Note, Refuse, Warn};

/// The finding is there with this severity and object, and says this to whoever has to act.
fn tells(findings: &[Finding], code: &str, severity: Severity, object: &str, words: &str) {
    let hits = || findings.iter().filter(|one| one.code == code && one.object == object && one.severity == severity);
    assert!(hits().next().is_some(), "no {code} of {object}:\n{}", to_table(findings));
    let said = hits().any(|one| one.remedy.contains(words) || one.what.contains(words));
    assert!(said, "{code} of {object} does not say `{words}`:\n{}", to_table(findings));
    say_what_to_do(findings);
}

#[test]
fn names_that_postgresql_does_not_take_are_refused() {
    let long = "n".repeat(64);
    let wide: Vec<String> = (0..=1_600).map(|at| format!("c{at} INT")).collect();
    let file = File::new(&format!(
        "CREATE TABLE t (a INT PRIMARY KEY, \"\" INT, xmin INT, {long} INT, fine_{} INT);
         CREATE TABLE \"\" (a INT PRIMARY KEY); CREATE TABLE {long} (a INT PRIMARY KEY);
         CREATE TABLE wide ({}); CREATE TABLE lone (a INT)",
        "x".repeat(58),
        wide.join(", ")
    ));
    let found = file.look(&[("lone.a", "skip")]).unwrap().findings;
    let rename = "rename it, or skip it in [map]";
    tells(&found, "empty-name", Refuse, "table ", rename);
    tells(&found, "empty-name", Refuse, "column t.", rename);
    tells(&found, "reserved-name", Refuse, "column t.xmin", rename);
    tells(&found, "long-name", Refuse, &format!("column t.{long}"), rename);
    tells(&found, "long-name", Refuse, &format!("table {long}"), "its name has 64 bytes, and PostgreSQL keeps 63");
    tells(&found, "columns", Refuse, "table wide", "has 1601 columns, and PostgreSQL takes 1,600");
    tells(&found, "columns", Refuse, "table lone", "skip the table in [map]");
    assert_eq!(found.iter().filter(|one| one.code.ends_with("-name")).count(), 5, "{}", to_table(&found));
}

#[test]
fn declarations_without_an_equal_ask_for_consent() {
    let file = File::new(
        "CREATE TABLE c (a TEXT PRIMARY KEY, b TEXT);
         PRAGMA writable_schema = on;
         UPDATE sqlite_master SET sql = 'CREATE TABLE c (a TEXT PRIMARY KEY, b TEXT COLLATE klingon)' WHERE name = 'c';
         PRAGMA writable_schema = off;",
    );
    let found = file.look(&[]).unwrap().findings;
    tells(&found, "collation", Consent("collations"), "column c.b", "compared by klingon");
    tells(&found, "collation", Consent("collations"), "column c.b", "accept `collations`");

    let file = File::new(
        "CREATE TABLE g (a INT UNIQUE ON CONFLICT REPLACE, b TEXT AS (printf('%05d', a)) STORED);
         CREATE TABLE k (x INT, y INT, PRIMARY KEY (x, y)); CREATE TABLE l (id INTEGER PRIMARY KEY, body TEXT, doc JSON);
         CREATE INDEX by_body ON l (body); CREATE INDEX by_doc ON l (doc); CREATE UNIQUE INDEX by_y ON k (y);
         INSERT INTO l VALUES (1, printf('%3000s', 'x'), '{}');
         CREATE TABLE p (id INTEGER PRIMARY KEY, b INT); CREATE TABLE f (id INTEGER PRIMARY KEY, b INT REFERENCES p (b));
         CREATE TABLE gone (id INTEGER PRIMARY KEY); INSERT INTO gone VALUES (1), (2);",
    );
    let found = file.look(&[("k.y", "skip"), ("gone", "skip")]).unwrap().findings;
    tells(&found, "on-conflict", Warn, "table g", "say it in the application's INSERT");
    tells(&found, "generated", Consent("generated"), "column g.b", "its values are carried over as plain ones");
    tells(&found, "generated", Consent("generated"), "column g.b", "accept `generated`, or skip it in [map]");
    tells(&found, "no-key", Warn, "table g", "told apart only by all their values");
    tells(&found, "index", Consent("indexes"), "table k", "a column of its primary key is skipped");
    tells(&found, "index", Consent("indexes"), "index by_y", "a column of it is skipped");
    tells(&found, "index", Consent("indexes"), "index by_body", "its longest entry has 3000 bytes");
    tells(&found, "index", Consent("indexes"), "index by_doc", "json cannot be compared");
    tells(&found, "foreign-key", Consent("foreign-keys"), "table f", "what it refers to is not unique");
    tells(&found, "foreign-key-check", Warn, "file", "foreign key mismatch");
    tells(&found, "skipped", Consent("skip"), "table gone", "is skipped with its 2 rows");
    tells(&found, "skipped", Consent("skip"), "column k.y", "accept `skip`");
}

#[test]
fn rows_that_break_their_own_rules_are_refused() {
    let file = File::new(
        "CREATE TABLE v (id INTEGER PRIMARY KEY, n INT); INSERT INTO v VALUES (1, NULL);
         CREATE TABLE w (id INTEGER PRIMARY KEY, s INT CHECK (s > 0));
         PRAGMA ignore_check_constraints = on; INSERT INTO w VALUES (2, -5);
         PRAGMA writable_schema = on;
         UPDATE sqlite_master SET sql = 'CREATE TABLE v (id INTEGER PRIMARY KEY, n INT NOT NULL)' WHERE name = 'v';
         PRAGMA writable_schema = off;",
    );
    let found = file.look(&[]).unwrap().findings;
    tells(&found, "null-in-not-null", Refuse, "column v.n", "is NOT NULL and holds 1 NULLs");
    tells(&found, "null-in-not-null", Refuse, "column v.n", "correct the rows in the source");
    tells(&found, "violated", Refuse, "file", "NULL value in v.n");
    tells(&found, "violated", Refuse, "table w", "CHECK (s > 0) does not hold for 1 of its rows");
    tells(&found, "violated", Refuse, "table w", "correct the rows in the source");
    let without = file.look(&[("w", "skip")]).unwrap().findings;
    assert!(!without.iter().any(|one| one.code == "violated" && one.object == "table w"), "{}", to_table(&without));
}

#[test]
fn values_that_a_chosen_type_does_not_take_are_refused() {
    let file = File::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, i INT, n TEXT, u TEXT, at TIMESTAMP, k TIMESTAMP UNIQUE);
         INSERT INTO t VALUES (1, 70000, '1e5', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '2024-01-01 00:00:00+02:00', '2024-01-01 00:00:00+02:00');
         INSERT INTO t VALUES (2, 1, '1.50', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2024-01-01 00:00:00Z', '2024-01-01 00:00:00Z');
         INSERT INTO t VALUES (3, 1, '2', NULL, '2024-01-02 00:00:00Z', '2024-01-02 00:00:00Z');",
    );
    let map = [("t.i", "smallint"), ("t.n", "numeric"), ("t.u", "uuid")];
    let found = file.look(&map).unwrap().findings;
    tells(&found, "out-of-range", Refuse, "column t.i", "becomes smallint, and 1 of 3 values do not fit");
    tells(&found, "out-of-range", Refuse, "column t.i", "\"t.i\" = \"text\", or \"skip\"");
    tells(&found, "not-decimal", Refuse, "column t.n", "is no plain decimal number");
    tells(&found, "not-uuid", Refuse, "column t.u", "1 of 2 values");
    tells(&found, "respelled", Warn, "column t.at", "1 of 3 values keep their value and would be spelled otherwise");
    tells(&found, "key-respelled", Refuse, "column t.k", "two of them may be one value");
    tells(&found, "key-respelled", Refuse, "column t.k", "\"t.k\" = \"text\" in [map]");
    assert!(!found.iter().any(|one| one.code == "key-respelled" && one.object == "column t.at"));
}

#[test]
fn a_file_that_is_written_to_meanwhile_is_noted() {
    let file = File::new(
        "PRAGMA journal_mode = wal; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
         WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 20000) INSERT INTO t SELECT i, 'x' FROM i;",
    );
    let at_rest = file.look(&[]).unwrap().findings;
    assert!(at_rest.iter().all(|one| one.code != "in-use"), "{}", to_table(&at_rest));
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = file.open();
        scope.spawn(|| {
            let writer = writer;
            while !ends.load(Ordering::SeqCst) {
                // What is the same as before would not be written.
                writer.execute_batch("UPDATE t SET v = random() WHERE id = 1").unwrap();
            }
        });
        let begun = Instant::now();
        let found = loop {
            let found = file.look(&[]).unwrap().findings;
            if found.iter().any(|one| one.code == "in-use") || begun.elapsed() > Duration::from_secs(60) {
                break found;
            }
        };
        ends.store(true, Ordering::SeqCst);
        tells(&found, "in-use", Note, "file", "the load looks at every value again");
    });
}

#[tokio::test]
async fn tables_that_are_there_and_do_not_fit_are_refused() {
    let file =
        File::new("CREATE TABLE t (a INT, b INT, c INT); CREATE TABLE u (a INT); INSERT INTO t VALUES (1, 2, 3)");
    let session = database().await;
    session
        .execute("CREATE SCHEMA tenant; CREATE TABLE tenant.t (a bigint, b bigint GENERATED ALWAYS AS (1) STORED)")
        .await
        .unwrap();
    let found = check_existing(&session, "tenant", &file.look(&[]).unwrap()).await.unwrap();
    let remedy = "change it by a migration, or say otherwise in [map]";
    tells(&found, "no-table", Refuse, "table tenant.u", remedy);
    tells(&found, "no-column", Refuse, "column t.c", remedy);
    tells(&found, "generated", Refuse, "column t.b", "is a plain column here, and generated in the target");
    assert_eq!(found.len(), 3, "{}", to_table(&found));
}

/// What a step asks for that moves the target `old`.
fn spec() -> Spec {
    Spec {
        from: "old".to_owned(),
        source_schema: String::new(),
        structure: Making::Create,
        exclude: BTreeSet::new(),
        accept: BTreeSet::new(),
        map: BTreeMap::new(),
        reverse: true,
        sync: Sync::Rescan,
        spool_limit: Some(1),
    }
}

/// A project whose source `old` is this file.
fn bench(target: ConnectOptions, sql: &str) -> Bench {
    let mut bench = Bench::on(target);
    bench.config("[targets.old]\nsqlite = \"old.db\"\n");
    rusqlite::Connection::open(bench.path("old.db")).unwrap().execute_batch(sql).unwrap();
    bench
}

async fn looked(bench: &Bench, spec: &Spec) -> Vec<Finding> {
    with_loader(bench, spec, async |loader| loader.look().await.unwrap()).await
}

async fn loads(bench: &Bench, spec: &Spec) -> Result<Evidence, StepError> {
    with_loader(bench, spec, async |loader| loader.load().await).await
}

async fn with_loader<T>(bench: &Bench, spec: &Spec, work: impl AsyncFnOnce(Loader<'_>) -> T) -> T {
    let (step, hand, cancel): (StepId, _, _) = ("look".parse().unwrap(), Hand::default(), Cancel::default());
    let workplace = bench.workplace().await;
    work(Loader {
        workplace: &workplace,
        target: "main",
        schema: "tenant",
        spec,
        jobs: 2,
        run: "look",
        operator: "anna",
        cancel: &cancel,
        step: &step,
        watcher: &hand,
    })
    .await
}

const SMALL: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'x');";

#[tokio::test]
async fn a_target_that_cannot_apply_or_send_is_refused() {
    let none = [("max_replication_slots", "0"), ("max_wal_senders", "0")];
    let poor = alone(&[&none[..], &[("wal_level", "replica"), ("max_wal_size", "32MB")]].concat()).await;
    let options = poor.database("central").await.unwrap();
    let session = Session::connect(&options, "test").await.unwrap();
    session.execute("CREATE ROLE meek LOGIN PASSWORD 'x'; CREATE SCHEMA tenant").await.unwrap();
    let meek = ConnectOptions { user: "meek".to_owned(), password: Some("x".to_owned()), ..options.clone() };
    let found = looked(&bench(meek, SMALL), &spec()).await;
    let target = "target database central";
    tells(&found, "wal-level", Refuse, target, "ALTER SYSTEM SET wal_level = logical, and restart the server");
    tells(&found, "no-slot", Refuse, target, "raise max_replication_slots");
    tells(&found, "no-walsender", Refuse, target, "raise max_wal_senders");
    tells(&found, "slot-keep-size", Warn, target, "ALTER SYSTEM SET max_slot_wal_keep_size");
    tells(&found, "no-replication", Refuse, target, "ALTER ROLE meek REPLICATION");
    tells(&found, "no-database-create", Refuse, target, "GRANT CREATE ON DATABASE central TO meek");
    tells(&found, "no-create", Refuse, "schema tenant", "GRANT CREATE, USAGE ON SCHEMA tenant TO meek");
    tells(&found, "no-replica-role", Refuse, target, "GRANT SET ON PARAMETER session_replication_role TO meek");
    // It may not know where the rows will be.
    tells(&found, "target-disk", Note, target, "the file has 8192 B");
    let bench = bench(options, SMALL);
    let one_way = looked(&bench, &Spec { reverse: false, ..spec() }).await;
    assert!(one_way.is_empty(), "{}", to_table(&one_way));
}

#[tokio::test]
async fn everything_that_stands_in_the_schema_already_is_named_at_once() {
    let target = cluster().await.fresh_database("taken").await.unwrap();
    let session = Session::connect(&target, "test").await.unwrap();
    let more = "CREATE INDEX by_v ON t (v); CREATE TABLE u (a INT PRIMARY KEY);";
    let bench = bench(target, &format!("{SMALL} {more}"));
    let taken = "CREATE SCHEMA tenant; CREATE TABLE tenant.t (mine int); CREATE TABLE tenant.x (a int);
        CREATE INDEX by_v ON tenant.x (a); CREATE VIEW tenant.u AS SELECT 1 AS one";
    session.execute(taken).await.unwrap();
    let found = looked(&bench, &spec()).await;
    let remedy = "give the transfer another schema";
    for object in ["table tenant.t", "index tenant.by_v", "view tenant.u"] {
        tells(&found, "collision", Refuse, object, remedy);
    }
    tells(
        &found,
        "schema-not-empty",
        Warn,
        "schema tenant",
        "1 objects that the source does not have, such as table x",
    );
    assert_eq!(found.iter().filter(|one| one.code == "collision").count(), 3, "{}", to_table(&found));
    let error = loads(&bench, &spec()).await.unwrap_err();
    assert_eq!(error.code, "preflight", "{error}");
    for named in ["tenant.t", "tenant.by_v", "tenant.u"] {
        assert!(error.message.contains(named), "{error}");
    }
    assert_eq!(session.value("SELECT count(*) FROM tenant.t").await.unwrap(), "0", "it stays as it is");

    session.execute("DROP VIEW tenant.u; DROP TABLE tenant.t, tenant.x").await.unwrap();
    loads(&bench, &spec()).await.unwrap();
    // What it brought itself is in nobody's way.
    let found = looked(&bench, &spec()).await;
    assert!(!found.iter().any(|one| one.code == "collision"), "{}", to_table(&found));
}

#[tokio::test]
async fn what_the_slot_of_the_way_back_would_wait_for_and_another_encoding_are_named() {
    let server = alone(&[("max_slot_wal_keep_size", "64GB")]).await;
    let admin = Session::connect(&server.options(), "test").await.unwrap();
    let ascii = "CREATE DATABASE central TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'";
    admin.execute(ascii).await.unwrap();
    let session = Session::connect(&server.options().with_database("central"), "test").await.unwrap();
    session.execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'").await.unwrap();
    let (open, ours) = (
        Session::connect(&server.options(), "somebody's psql").await.unwrap(),
        Session::connect(&server.options(), "pgrunbook:load").await.unwrap(),
    );
    for one in [&open, &ours] {
        one.execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    }
    let wanted = Wanted { long_transaction: Duration::ZERO, ..Wanted::new("tenant") };
    let found = of_target(&session, &wanted, &BTreeSet::new()).await.unwrap();
    let remedy = "ROLLBACK PREPARED 'forgotten'";
    tells(&found, "prepared-transaction", Refuse, "prepared transaction 'forgotten'", remedy);
    let backend = format!("backend {}", open.backend_pid());
    tells(&found, "long-transaction", Refuse, &backend, "pg_terminate_backend");
    tells(&found, "encoding", Refuse, "target database central", "ENCODING 'UTF8'");
    assert_eq!(found.len(), 3, "another transfer's load ends by itself:\n{}", to_table(&found));
    let one_way = of_target(&session, &Wanted { reverse: false, ..wanted }, &BTreeSet::new()).await.unwrap();
    assert_eq!(one_way.len(), 1, "{}", to_table(&one_way));
}

#[tokio::test]
async fn what_dirty_keys_cannot_tell_row_by_row_is_named() {
    let target = cluster().await.fresh_database("dirty").await.unwrap();
    let bench = bench(target, &format!("{SMALL} CREATE TABLE heard (who TEXT);"));
    let found = looked(&bench, &Spec { sync: Sync::DirtyKeys, ..spec() }).await;
    tells(
        &found,
        "dirty-keys",
        Consent("dirty-keys"),
        "sync = \"dirty-keys\"",
        "accept `dirty-keys`, or leave `sync` out",
    );
    tells(&found, "rescanned", Warn, "table heard", "after a change it is read whole");
    assert!(!found.iter().any(|one| one.code == "rescanned" && one.object == "table t"), "{}", to_table(&found));
    let consented = Spec { sync: Sync::DirtyKeys, accept: ["dirty-keys".to_owned()].into(), ..spec() };
    tells(&looked(&bench, &consented).await, "dirty-keys", Note, "sync = \"dirty-keys\"", "(accepted: dirty-keys)");
}

#[tokio::test]
async fn disks_that_are_too_small_for_a_file_are_named() {
    let target = cluster().await.fresh_database("disk").await.unwrap();
    let bench = bench(target, SMALL);
    let spools = |found: &[Finding]| found.iter().filter(|one| one.code == "spool-disk").count();
    let wish = Spec { spool_limit: Some(u64::MAX / 2), ..spec() };
    let object = format!("disk of {}", bench.path(".pgrunbook/spool/main").display());
    tells(&looked(&bench, &wish).await, "spool-disk", Warn, &object, "of `spool_limit`");
    assert_eq!(spools(&looked(&bench, &Spec { reverse: false, ..wish }).await), 0, "nothing is received here");
    assert_eq!(spools(&looked(&bench, &spec()).await), 0);

    // A project on a disk that takes no copy of the file.
    let Some(disk) = SmallDisk::wanted(32 << 20) else { return };
    std::fs::create_dir_all(bench.path(".pgrunbook")).unwrap();
    std::os::unix::fs::symlink(disk.path(), bench.path(".pgrunbook/spool")).unwrap();
    let object = format!("disk of {}", bench.path(".pgrunbook/spool/main/tenant_image").display());
    let found = looked(&bench, &spec()).await;
    tells(&found, "copy-disk", Refuse, &object, "`PRAGMA journal_mode = wal` in the file");
    let file = rusqlite::Connection::open(bench.path("old.db")).unwrap();
    file.execute_batch("PRAGMA journal_mode = wal").unwrap();
    let found = looked(&bench, &spec()).await;
    assert!(!found.iter().any(|one| one.code == "copy-disk"), "{}", to_table(&found));
    disk.fill_but(1 << 20);
    let limit = Spec { spool_limit: Some(8 << 20), ..spec() };
    let object = format!("disk of {}", bench.path(".pgrunbook/spool/main").display());
    tells(&looked(&bench, &limit).await, "spool-disk", Refuse, &object, "the stream would stop at once");
}
