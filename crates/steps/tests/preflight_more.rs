//! Findings that take a cluster of their own, two roles, a full disk or a catalogue bent on purpose.

use std::time::Duration;

use pgrunbook_postgres::receiver::Limits;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared_of};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::transfer::preflight::{Origin, Wanted, preflight};
use pgrunbook_steps::transfer::{Finding, Severity, to_table};

use crate::preflight::{alone, cluster, connect, found, has, own, pair, say_what_to_do, wanted};
use crate::small_disk::SmallDisk;
use crate::structure::{databases, derived};

use Severity::{Consent, Note, Refuse, Warn};

const GOOD: &str = "CREATE TABLE public.good (id integer PRIMARY KEY, body text);";

/// The finding is there with this severity and object, and says this to whoever has to act.
fn tells(findings: &[Finding], code: &str, severity: Severity, object: &str, words: &str) {
    has(findings, code, severity, object);
    let said = findings.iter().any(|one| {
        one.code == code && one.object == object && (one.remedy.contains(words) || one.what.contains(words))
    });
    assert!(said, "{code} of {object} does not say `{words}`:\n{}", to_table(findings));
    say_what_to_do(findings);
}

/// Both sides in one cluster.
async fn both(cluster: &Sandbox) -> (Session, Session) {
    let from = connect(&cluster.database("legacy").await.unwrap()).await;
    let to = connect(&cluster.database("central").await.unwrap()).await;
    from.execute(GOOD).await.unwrap();
    (from, to)
}

/// A role that may connect, and no more.
async fn lesser(options: &ConnectOptions) -> (String, ConnectOptions) {
    let role = format!("meek_{}", options.database);
    connect(options).await.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'")).await.unwrap();
    let options = ConnectOptions { user: role.clone(), password: Some("x".to_owned()), ..options.clone() };
    (role, options)
}

#[tokio::test]
async fn tablespaces_stale_collations_and_hidden_transactions_are_named() {
    let cluster = alone(&[("max_slot_wal_keep_size", "64GB"), ("allow_in_place_tablespaces", "on")]).await;
    let (from, to) = both(&cluster).await;
    from.execute("CREATE TABLESPACE fast LOCATION ''").await.unwrap();
    from.execute(
        "CREATE TABLE t (id int PRIMARY KEY) TABLESPACE fast; CREATE INDEX by_body ON good (body) TABLESPACE fast;
         UPDATE pg_database SET datcollversion = '0.1' WHERE datname = 'legacy'",
    )
    .await
    .unwrap();
    let findings = preflight(&from, &to, &wanted()).await.unwrap();
    tells(&findings, "tablespace", Note, "table public.t", "tablespace fast; in the target it goes to the default one");
    tells(&findings, "tablespace", Note, "index public.by_body", "tablespace fast");
    tells(
        &findings,
        "collation-stale",
        Warn,
        "source database legacy",
        "REINDEX DATABASE legacy; ALTER DATABASE legacy REFRESH COLLATION VERSION",
    );
    assert!(!findings.iter().any(|one| one.code == "collation-stale" && one.object.starts_with("target")));

    let (role, options) = lesser(from.options()).await;
    let open = connect(from.options()).await;
    open.execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let findings = preflight(&connect(&options).await, &to, &wanted()).await.unwrap();
    let backend = format!("backend {}", open.backend_pid());
    tells(&findings, "hidden-transaction", Warn, &backend, &format!("GRANT pg_read_all_stats TO {role}"));

    // The slot of the way back waits at the target for the same.
    let (role, options) = lesser(to.options()).await;
    let meek = connect(&options).await;
    let findings = preflight(&from, &meek, &wanted()).await.unwrap();
    tells(&findings, "hidden-transaction", Warn, &backend, &format!("GRANT pg_read_all_stats TO {role}"));
    let one_way = preflight(&from, &meek, &Wanted { reverse: false, ..wanted() }).await.unwrap();
    assert!(!one_way.iter().any(|one| one.code == "hidden-transaction"), "{}", to_table(&one_way));
}

#[tokio::test]
async fn a_standby_on_either_side_is_refused() {
    let primary = alone(&[("max_slot_wal_keep_size", "64GB")]).await;
    let (from, to) = both(&primary).await;
    let standby = primary.standby().await.unwrap();
    let there = |session: &Session| standby.options().with_database(&session.options().database);
    let (from_standby, to_standby) = (connect(&there(&from)).await, connect(&there(&to)).await);
    for reverse in [true, false] {
        let wanted = Wanted { reverse, ..wanted() };
        let findings = preflight(&from, &to_standby, &wanted).await.unwrap();
        tells(&findings, "standby", Refuse, "target database central", "name the primary");
        assert_eq!(findings.iter().filter(|one| one.code == "standby").count(), 1, "{}", to_table(&findings));
        let findings = preflight(&from_standby, &to, &wanted).await.unwrap();
        tells(&findings, "standby", Refuse, "source database legacy", "name the primary");
    }
}

#[tokio::test]
async fn a_slot_that_times_out_on_postgresql_18_is_named() {
    let settings = [("idle_replication_slot_timeout", "2h"), ("max_slot_wal_keep_size", "64GB")];
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let cluster =
        Sandbox::start(SandboxOptions { major: Some(18), settings, ..SandboxOptions::default() }).await.unwrap();
    let (from, to) = both(&cluster).await;
    let findings = preflight(&from, &to, &wanted()).await.unwrap();
    for object in ["source database legacy", "target database central"] {
        tells(&findings, "idle-slot-timeout", Warn, object, "idle_replication_slot_timeout is 2h");
        tells(&findings, "idle-slot-timeout", Warn, object, "ALTER SYSTEM SET idle_replication_slot_timeout = 0");
    }
    let one_way = preflight(&from, &to, &Wanted { reverse: false, ..wanted() }).await.unwrap();
    assert_eq!(one_way.iter().filter(|one| one.code == "idle-slot-timeout").count(), 1, "{}", to_table(&one_way));
}

#[tokio::test]
async fn another_locale_at_the_target_is_named() {
    let (from, to) = pair("", "").await;
    let name = format!("other_{}", to.options().database);
    to.execute(&format!("CREATE DATABASE {name} ENCODING 'UTF8' LOCALE 'C.UTF-8' TEMPLATE template0")).await.unwrap();
    let other = connect(&to.options().with_database(&name)).await;
    let findings = own(preflight(&from, &other, &wanted()).await.unwrap());
    tells(&findings, "collation", Warn, &format!("target database {name}"), "It sorts by `provider c collate C.");
    assert_eq!(findings.len(), 1, "{}", to_table(&findings));
}

#[tokio::test]
async fn a_schema_that_may_not_be_used_and_jobs_that_may_not_be_seen_are_named() {
    let (from, to) = pair(
        "CREATE SCHEMA private; CREATE TABLE private.t (id int PRIMARY KEY); CREATE SCHEMA cron;
         CREATE TABLE cron.job (jobid bigint PRIMARY KEY, schedule text, command text, database text, active bool, username text);
         INSERT INTO cron.job VALUES (7, '* * * * *', 'SELECT 1', current_database(), true, 'postgres')",
        "",
    )
    .await;
    let (role, options) = lesser(from.options()).await;
    let meek = connect(&options).await;
    let private = Wanted { source_schema: "private".to_owned(), ..wanted() };
    let look = async |wanted: &Wanted| preflight(&meek, &to, wanted).await.unwrap();

    let findings = look(&private).await;
    tells(&findings, "no-usage", Refuse, "schema private", &format!("GRANT USAGE ON SCHEMA private TO {role}"));
    tells(&findings, "not-examined", Warn, "rule cron-job", "permission denied for schema cron");
    assert!(!findings.iter().any(|one| one.code == "cron-job"), "{}", to_table(&findings));

    // As pg_cron does: who is no superuser sees his own jobs alone.
    from.execute(&format!("GRANT USAGE ON SCHEMA private, cron TO {role}")).await.unwrap();
    tells(&look(&private).await, "not-examined", Warn, "rule cron-job", "permission denied for table job");
    from.execute(
        "GRANT SELECT ON cron.job TO PUBLIC; ALTER TABLE cron.job ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON cron.job USING (username = CURRENT_USER)",
    )
    .await
    .unwrap();
    let findings = look(&private).await;
    tells(&findings, "not-examined", Warn, "rule cron-job", "Row security hides");
    assert!(!findings.iter().any(|one| one.code == "no-usage"), "{}", to_table(&findings));
    let findings = own(preflight(&from, &to, &wanted()).await.unwrap());
    tells(&findings, "cron-job", Warn, "cron job 7", "UPDATE cron.job SET active = false WHERE jobid = 7");
    assert!(!findings.iter().any(|one| one.code == "not-examined"), "{}", to_table(&findings));
}

#[tokio::test]
async fn extensions_that_cannot_move_or_be_made_are_refused() {
    let cluster = cluster().await;
    // xml2 stays where it was made.
    let fixed =
        "CREATE EXTENSION xml2 SCHEMA public; CREATE TABLE t (id int PRIMARY KEY, ok bool DEFAULT xml_valid('<a/>'))";
    let there = "CREATE EXTENSION xml2 SCHEMA public";
    let findings = found(fixed, there, &wanted()).await;
    let words = "let the target's tables be made by migrations";
    tells(&findings, "extension-fixed", Refuse, "extension xml2", words);
    tells(&found(there, there, &wanted()).await, "extension-fixed", Warn, "extension xml2", words);
    let (from, to) = databases(&cluster, &cluster, &format!("{GOOD} {fixed}"), there).await;
    let structure = derived(&from, &to, &Wanted::new("tenant"), &[]).await.unwrap();
    tells(&structure.refused, "extension-fixed", Refuse, "extension xml2", words);

    // One whose files the target's server lacks.
    let gone = "CREATE EXTENSION citext; CREATE TABLE t (a citext PRIMARY KEY);
                UPDATE pg_extension SET extname = 'nowhere' WHERE extname = 'citext'";
    let findings = found(gone, "", &wanted()).await;
    tells(&findings, "extension-missing", Refuse, "extension nowhere", "install the package with nowhere");
    let (from, to) = databases(&cluster, &cluster, &format!("{GOOD} {gone}"), "").await;
    let structure = derived(&from, &to, &Wanted::new("tenant"), &[]).await.unwrap();
    tells(&structure.refused, "extension", Refuse, "extension nowhere", "install it on the target's server");
}

#[tokio::test]
async fn a_policy_for_a_role_that_the_scratch_lacks_is_refused() {
    let source = alone(&[]).await;
    let sql = format!("{GOOD} CREATE ROLE only_here; CREATE POLICY p ON good TO only_here USING (true)");
    let (from, to) = databases(&source, &cluster().await, &sql, "").await;
    let structure = derived(&from, &to, &Wanted::new("tenant"), &[]).await.unwrap();
    tells(
        &structure.refused,
        "policy-role",
        Refuse,
        "policy good p",
        "CREATE ROLE ... NOLOGIN in the target's cluster",
    );
}

#[tokio::test]
async fn shapes_of_tables_that_migrations_made_are_compared_also_on_postgresql_14() {
    let existing = Wanted { structure: Origin::Existing, ..wanted() };
    let source = "CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9); CREATE TABLE plain (id int PRIMARY KEY);
        CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, g int GENERATED ALWAYS AS (1) STORED,
            h int GENERATED ALWAYS AS (2) STORED);";
    let target = "CREATE SCHEMA tenant; CREATE TABLE tenant.good (id integer PRIMARY KEY, body text);
        CREATE TABLE tenant.parts (id int PRIMARY KEY); CREATE TABLE tenant.parts_1 (id int PRIMARY KEY);
        CREATE TABLE tenant.plain (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE tenant.t (id int PRIMARY KEY, h int);
        CREATE TABLE tenant.more (id int PRIMARY KEY);";
    let findings = found(source, target, &existing).await;
    let shape = Consent("partition-shape");
    tells(&findings, "existing-partitions", shape, "table tenant.parts", "rows are taken from the leaves");
    tells(&findings, "existing-partitions", shape, "table tenant.plain", "It is partitioned, and the source's is not");
    tells(&findings, "existing-identity", Warn, "column tenant.t.id", "one is an identity column");
    tells(&findings, "existing-column-missing", Note, "column tenant.t.g", "The source has it");
    tells(&findings, "existing-generated", Refuse, "column tenant.t.h", "nothing would fill it");
    assert!(!to_table(&findings).contains("tenant.more"), "{}", to_table(&findings));

    // A column of the target's own can be left out of what flows back, unless identity or version forbid it.
    let full = "CREATE SCHEMA tenant; CREATE TABLE tenant.good (id integer PRIMARY KEY, body text, extra int);
        ALTER TABLE tenant.good REPLICA IDENTITY FULL";
    let findings = found("", full, &existing).await;
    tells(&findings, "existing-extra-column", Refuse, "column tenant.good.extra", "by a FULL replica identity");
    tells(&findings, "existing-extra-column", Refuse, "column tenant.good.extra", "`reverse = false`");
    let one_way = found("", full, &Wanted { reverse: false, ..existing.clone() }).await;
    has(&one_way, "existing-extra-column", Note, "column tenant.good.extra");
    let old = shared_of(14, "structure-tests").await.unwrap();
    let (from, to) =
        databases(&old, &old, GOOD, &full.replace("ALTER TABLE tenant.good REPLICA IDENTITY FULL", "")).await;
    let findings = preflight(&connect(&from).await, &connect(&to).await, &existing).await.unwrap();
    let words = "PostgreSQL 14 cannot leave a column out of what flows back";
    tells(&findings, "existing-extra-column", Refuse, "column tenant.good.extra", words);

    // Whether it is empty nobody knows who may not read it.
    let (role, options) = lesser(&to).await;
    connect(&to).await.execute(&format!("GRANT USAGE ON SCHEMA tenant TO {role}")).await.unwrap();
    let findings = preflight(&connect(&from).await, &connect(&options).await, &existing).await.unwrap();
    let words = format!("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON tenant.good TO {role}");
    tells(&findings, "existing-no-select", Refuse, "table tenant.good", &words);
}

#[tokio::test]
async fn a_spool_that_cannot_have_its_limit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool/main");
    let (from, to) = pair("", "").await;
    let with = |spool_hard: u64, disk_free_min: u64| Wanted {
        limits: Limits { spool_soft: spool_hard / 2, spool_hard, disk_free_min },
        spool: Some(spool.clone()),
        ..wanted()
    };
    let look = async |wanted: &Wanted| own(preflight(&from, &to, wanted).await.unwrap());
    let object = format!("disk of {}", spool.display());
    tells(&look(&with(u64::MAX / 2, 0)).await, "spool-disk", Warn, &object, "of `spool_limit`");
    tells(
        &look(&with(u64::MAX / 2, u64::MAX / 2)).await,
        "spool-disk",
        Refuse,
        &object,
        "the stream would stop at once",
    );
    let enough = look(&with(1, 1)).await;
    assert!(enough.is_empty(), "{}", to_table(&enough));
    assert!(!spool.exists(), "it only looks");
}

#[tokio::test]
async fn a_target_whose_disk_is_too_small_is_named() {
    let Some(disk) = SmallDisk::wanted(128 << 20) else { return };
    let small = |name: &str| disk.path().join(name).display().to_string();
    let cluster = alone(&[("max_slot_wal_keep_size", "64GB"), ("max_wal_size", "32MB")]).await;
    let (from, to) = both(&cluster).await;
    // The server's own folder on that disk.
    to.execute(&format!("COPY (SELECT 1) TO PROGRAM 'mkdir -m 700 {} && cat > /dev/null'", small("rows")))
        .await
        .unwrap();
    to.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", small("rows"))).await.unwrap();
    to.execute("ALTER DATABASE central SET default_tablespace = small").await.unwrap();
    from.execute("INSERT INTO good SELECT i, repeat('x', 1000) FROM generate_series(1, 4000) AS i").await.unwrap();
    from.execute("CREATE TABLE left_out AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 8000)").await.unwrap();
    let look = async |exclude: &str| {
        let to = connect(to.options()).await;
        let wanted = Wanted { exclude: vec![exclude.to_owned()], ..wanted() };
        let mut findings = preflight(&from, &to, &wanted).await.unwrap();
        findings.retain(|one| one.code == "target-disk");
        findings
    };
    let object = "target database central";
    assert!(look("left_out").await.is_empty(), "it fits, with all of its log");
    // About 4.7 MB of table and 100 kB of index; and twice as much with the other table.
    disk.fill_but(8 << 20);
    let findings = look("left_out").await;
    tells(&findings, "target-disk", Warn, object, "lower max_wal_size");
    tells(&findings, "target-disk", Warn, object, "tables 4");
    let findings = look("").await;
    tells(&findings, "target-disk", Consent("target-disk"), object, &format!("{} has 8", small("rows")));
    tells(&findings, "target-disk", Consent("target-disk"), object, "then accept `target-disk`");
    disk.free();
    assert!(look("").await.is_empty());
}

#[tokio::test]
async fn a_locked_table_keeps_its_size_from_being_known_and_holds_up_nothing() {
    let (from, to) = pair("", "").await;
    let holder = connect(from.options()).await;
    holder.execute("BEGIN; LOCK TABLE good IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let looked = tokio::time::timeout(Duration::from_secs(60), preflight(&from, &to, &wanted())).await;
    let findings = own(looked.expect("it waits for whoever holds the table").unwrap());
    holder.execute("ROLLBACK").await.unwrap();
    let object = format!("target database {}", to.options().database);
    tells(&findings, "target-disk", Note, &object, "is not known");
    assert!(own(preflight(&from, &to, &wanted()).await.unwrap()).is_empty());
}
