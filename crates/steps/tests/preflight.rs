//! The preflight: a healthy pair of databases gives no finding, and each thing that stands in the way, made alone on a real
//! server, is named with its object.

use std::time::Duration;

use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::transfer::preflight::{Origin, Wanted, preflight};
use pgrunbook_steps::transfer::{Finding, Severity, to_table};

use Severity::{Consent, Note, Refuse, Warn};

/// A cluster whose settings nothing can be said against.
pub async fn cluster() -> Sandbox {
    let settings = vec![("max_slot_wal_keep_size".to_owned(), "64GB".to_owned())];
    shared("structure-tests", SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap()
}

const GOOD: &str = "CREATE TABLE public.good (id integer PRIMARY KEY, body text);";

pub async fn connect(options: &ConnectOptions) -> Session {
    Session::connect(options, "pgrunbook:test").await.unwrap()
}

pub fn wanted() -> Wanted {
    Wanted { measure: Duration::ZERO, ..Wanted::new("tenant") }
}

pub async fn pair(source: &str, target: &str) -> (Session, Session) {
    let cluster = cluster().await;
    let from = connect(&cluster.fresh_database("pre_from").await.unwrap()).await;
    let to = connect(&cluster.fresh_database("pre_to").await.unwrap()).await;
    from.execute(GOOD).await.unwrap();
    from.execute(source).await.unwrap();
    to.execute(target).await.unwrap();
    (from, to)
}

/// Other tests of the cluster may have transactions and slots: these have tests with clusters of their own.
pub fn own(findings: Vec<Finding>) -> Vec<Finding> {
    let of_cluster = [
        "prepared-transaction",
        "long-transaction",
        "hidden-transaction",
        "slot-retains",
        "no-slot",
        "few-slots",
        "few-walsenders",
    ];
    // How full the disk of this machine is says nothing.
    let of_machine = |one: &Finding| one.code == "target-disk" && one.severity == Warn;
    findings.into_iter().filter(|one| !of_cluster.contains(&one.code) && !of_machine(one)).collect()
}

pub async fn found(source: &str, target: &str, wanted: &Wanted) -> Vec<Finding> {
    let (from, to) = pair(source, target).await;
    own(preflight(&from, &to, wanted).await.unwrap())
}

/// Only what is and stays needs nothing to be done.
pub fn say_what_to_do(findings: &[Finding]) {
    let silent: Vec<_> = findings.iter().filter(|one| one.severity != Note && one.remedy.is_empty()).collect();
    assert!(silent.is_empty(), "nothing is said of what to do: {silent:#?}");
}

/// The finding is there, with this severity and object, and every other one is of a code in `beside`.
async fn check(source: &str, target: &str, wanted: &Wanted, expected: (&str, Severity, &str), beside: &[&str]) {
    let findings = found(source, target, wanted).await;
    let (code, severity, object) = expected;
    let hit = findings.iter().find(|one| one.code == code && one.object == object);
    let Some(hit) = hit else { panic!("no {code} of {object} for {source} {target}:\n{}", to_table(&findings)) };
    assert_eq!(hit.severity, severity, "{source}\n{}", to_table(&findings));
    assert!(!hit.what.is_empty());
    say_what_to_do(&findings);
    let others: Vec<_> = findings.iter().filter(|one| one.code != code && !beside.contains(&one.code)).collect();
    assert!(others.is_empty(), "{source} gave others, too: {others:#?}");
}

#[tokio::test]
async fn a_healthy_pair_has_no_finding() {
    let findings = found("CREATE VIEW v AS SELECT id FROM good; CREATE INDEX ON good (body);", "", &wanted()).await;
    assert!(findings.is_empty(), "{}", to_table(&findings));
}

#[tokio::test]
async fn what_is_in_tables_is_named() {
    let cases: &[(&str, &str, Severity, &str, &[&str])] = &[
        ("CREATE TABLE t (a int)", "no-identity", Consent("replica-identity-full"), "table public.t", &[]),
        (
            "CREATE TABLE t (a int PRIMARY KEY DEFERRABLE)",
            "no-identity",
            Consent("replica-identity-full"),
            "table public.t",
            &["deferrable-unique"],
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING",
            "no-identity",
            Consent("replica-identity-full"),
            "table public.t",
            &[],
        ),
        (
            "CREATE TABLE t (a int NOT NULL UNIQUE, b int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY USING INDEX t_a_key;
             ALTER TABLE t DROP CONSTRAINT t_a_key",
            "no-identity",
            Consent("replica-identity-full"),
            "table public.t",
            &[],
        ),
        ("CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL", "identity-full", Warn, "table public.t", &[]),
        (
            "CREATE TABLE t (a int, j json); ALTER TABLE t REPLICA IDENTITY FULL",
            "no-equality",
            Consent("match-by-text"),
            "column public.t.j",
            &["identity-full"],
        ),
        (
            "CREATE DOMAIN dx AS xml; CREATE TABLE t (a varchar(3), b int[], c numrange, x dx)",
            "no-equality",
            Consent("match-by-text"),
            "column public.t.x",
            &["no-identity", "type"],
        ),
        (
            "CREATE TABLE t (a jsonb, p point[])",
            "no-equality",
            Consent("match-by-text"),
            "column public.t.p",
            &["no-identity"],
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9)",
            "partitioned",
            Note,
            "table public.t",
            &[],
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9);
             ALTER TABLE t1 REPLICA IDENTITY FULL",
            "partition-identity",
            Warn,
            "table public.t1",
            &["partitioned"],
        ),
        (
            "CREATE TABLE t (PRIMARY KEY (id)) INHERITS (good)",
            "inheritance",
            Warn,
            "table public.t",
            &[],
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY, b int GENERATED ALWAYS AS (a + 1) STORED)",
            "generated-column",
            Note,
            "column public.t.b",
            &[],
        ),
        (
            "CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
            "identity-column",
            Note,
            "column public.t.a",
            &["sequence"],
        ),
        ("CREATE UNLOGGED TABLE t (a int PRIMARY KEY)", "unlogged", Refuse, "table public.t", &[]),
        (
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE t (a int) SERVER s",
            "foreign-table",
            Consent("foreign-table"),
            "foreign table public.t",
            &[],
        ),
        ("CREATE TEMPORARY TABLE t (a int)", "temporary", Note, "temporary table t", &[]),
        ("SELECT lo_create(0)", "large-object", Consent("large-objects-stay"), "large objects", &[]),
        (
            "CREATE TABLE t (a int PRIMARY KEY, l oid); INSERT INTO t VALUES (1, lo_create(0))",
            "large-object",
            Refuse,
            "large objects of public.t.l",
            &["lo-column"],
        ),
        (
            "CREATE DOMAIN lo AS oid; CREATE TABLE t (a int PRIMARY KEY, l lo); INSERT INTO t VALUES (1, lo_create(0))",
            "large-object",
            Refuse,
            "large objects of public.t.l",
            &["lo-column", "type"],
        ),
        ("CREATE TABLE t (a int PRIMARY KEY, l oid)", "lo-column", Warn, "column public.t.l", &[]),
        ("CREATE TABLE t (a int PRIMARY KEY, r regclass[])", "reg-column", Warn, "column public.t.r", &[]),
        ("CREATE TABLE t ()", "no-column", Note, "table public.t", &["no-identity"]),
        (
            "CREATE TABLE t (a int PRIMARY KEY, b int CONSTRAINT u UNIQUE DEFERRABLE)",
            "deferrable-unique",
            Warn,
            "constraint u on public.t",
            &[],
        ),
        (
            "CREATE TABLE t (a int PRIMARY KEY); ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
            "not-valid",
            Note,
            "constraint c on public.t",
            &[],
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; CREATE TRIGGER g BEFORE INSERT ON good
             FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE good DISABLE TRIGGER g",
            "disabled-trigger",
            Note,
            "trigger g on public.good",
            &[],
        ),
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; CREATE TRIGGER g BEFORE INSERT ON good
             FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE good ENABLE ALWAYS TRIGGER g",
            "always-trigger",
            Consent("always-trigger"),
            "trigger g on public.good",
            &[],
        ),
        (
            "CREATE RULE r AS ON DELETE TO good DO INSTEAD NOTHING; ALTER TABLE good ENABLE REPLICA RULE r",
            "always-rule",
            Consent("always-trigger"),
            "rule r on public.good",
            &[],
        ),
        ("CREATE RULE r AS ON DELETE TO good DO INSTEAD NOTHING", "rule", Note, "rule r on public.good", &[]),
        (
            "CREATE ACCESS METHOD mine TYPE TABLE HANDLER heap_tableam_handler; CREATE TABLE t (a int PRIMARY KEY) USING mine",
            "access-method",
            Warn,
            "table public.t",
            &[],
        ),
    ];
    for (sql, code, severity, object, beside) in cases {
        check(sql, "", &wanted(), (code, *severity, object), beside).await;
    }
}

#[tokio::test]
async fn an_invalid_index_stays_behind() {
    let (from, to) = pair("INSERT INTO good VALUES (1, 'a'), (2, 'a')", "").await;
    from.execute("CREATE UNIQUE INDEX CONCURRENTLY twice ON good (body)").await.unwrap_err();
    let findings = own(preflight(&from, &to, &wanted()).await.unwrap());
    assert_eq!(findings.len(), 1, "{}", to_table(&findings));
    assert_eq!((findings[0].code, findings[0].object.as_str()), ("invalid-index", "index public.twice"));
}

#[tokio::test]
async fn what_is_beside_the_tables_is_named() {
    let cases: &[(&str, &str, Severity, &str, &[&str])] = &[
        ("CREATE SEQUENCE s", "sequence", Note, "sequence public.s", &[]),
        ("CREATE SEQUENCE s CACHE 9", "sequence-cache", Consent("sequence-cache"), "sequence public.s", &["sequence"]),
        (
            "CREATE MATERIALIZED VIEW m AS SELECT 1 AS one",
            "materialized-view",
            Note,
            "materialized view public.m",
            &[],
        ),
        ("CREATE TYPE mood AS ENUM ('sad')", "type", Note, "enum public.mood", &[]),
        ("CREATE TYPE pair AS (a int)", "type", Note, "composite type public.pair", &[]),
        (
            "CREATE SCHEMA other; CREATE TABLE other.p (a int PRIMARY KEY); ALTER TABLE good ADD FOREIGN KEY (id) REFERENCES other.p",
            "other-schema",
            Refuse,
            "public.good",
            &[],
        ),
        (
            "CREATE SCHEMA other; CREATE VIEW other.v AS SELECT * FROM good",
            "used-from-outside",
            Warn,
            "other.v",
            &[],
        ),
        (
            "CREATE FUNCTION f(int) RETURNS int LANGUAGE internal AS 'int4abs'",
            "c-function",
            Warn,
            "function public.f(integer)",
            &[],
        ),
        (
            "CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER et ON sql_drop
             EXECUTE FUNCTION e()",
            "event-trigger",
            Warn,
            "event trigger et",
            &[],
        ),
        (
            "CREATE PUBLICATION p FOR TABLES IN SCHEMA public",
            "publication-schema",
            Warn,
            "publication p",
            &[],
        ),
        (
            "DO 'BEGIN CREATE ROLE preflight_giver; EXCEPTION WHEN duplicate_object THEN NULL; END';
             ALTER DEFAULT PRIVILEGES FOR ROLE preflight_giver IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC",
            "default-privileges",
            Note,
            "default privileges of preflight_giver in public",
            &[],
        ),
        (
            "CREATE COLLATION pg_catalog.only_here FROM \"C\"; CREATE TABLE t (a int PRIMARY KEY, b text COLLATE only_here)",
            "collation-missing",
            Refuse,
            "collation only_here",
            &[],
        ),
        (
            "CREATE SCHEMA cron; CREATE TABLE cron.job (jobid bigint PRIMARY KEY, schedule text, command text, database text, active bool);
             INSERT INTO cron.job VALUES (7, '* * * * *', 'SELECT 1', current_database(), true)",
            "cron-job",
            Warn,
            "cron job 7",
            &[],
        ),
    ];
    for (sql, code, severity, object, beside) in cases {
        check(sql, "", &wanted(), (code, *severity, object), beside).await;
    }
}

#[tokio::test]
async fn a_publication_of_all_tables_is_named_on_either_side() {
    let (from, to) =
        pair("CREATE PUBLICATION everything FOR ALL TABLES", "CREATE PUBLICATION everything FOR ALL TABLES").await;
    let findings = own(preflight(&from, &to, &wanted()).await.unwrap());
    let objects: Vec<_> = findings.iter().map(|one| (one.code, one.object.clone())).collect();
    let of = |session: &Session| {
        ("publication-all", format!("publication everything of database {}", session.options().database))
    };
    assert_eq!(objects, [of(&from), of(&to)]);
}

/// SQL at the source, SQL at the target; code, severity and object; codes beside it.
type BothSides = (&'static str, &'static str, &'static str, Severity, &'static str, &'static [&'static str]);

#[tokio::test]
async fn what_both_sides_must_share_is_named() {
    let cases: &[BothSides] = &[
        (
            "CREATE EXTENSION citext; CREATE TABLE t (a citext PRIMARY KEY)",
            "",
            "extension-missing",
            Refuse,
            "extension citext",
            &[],
        ),
        ("CREATE EXTENSION citext", "", "extension-missing", Warn, "extension citext", &[]),
        (
            "CREATE EXTENSION citext",
            "CREATE SCHEMA shared; CREATE EXTENSION citext SCHEMA shared",
            "extension-schema",
            Note,
            "extension citext",
            &[],
        ),
        (
            "CREATE EXTENSION citext",
            "CREATE SCHEMA tenant; CREATE EXTENSION citext SCHEMA tenant",
            "extension-schema",
            Refuse,
            "extension citext",
            &[],
        ),
        (
            "CREATE EXTENSION citext VERSION '1.4'",
            "CREATE EXTENSION citext",
            "extension-version",
            Warn,
            "extension citext",
            &[],
        ),
        ("", "CREATE SCHEMA tenant; CREATE TABLE tenant.good (a int)", "collision", Refuse, "table tenant.good", &[]),
        (
            "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE SCHEMA tenant; CREATE FUNCTION tenant.f(int) RETURNS int LANGUAGE sql AS 'SELECT 2'",
            "collision",
            Refuse,
            "function tenant.f(integer)",
            &[],
        ),
        ("", "CREATE SCHEMA tenant; CREATE VIEW tenant.v AS SELECT 1", "schema-not-empty", Warn, "schema tenant", &[]),
        (
            "CREATE TRUSTED LANGUAGE mine HANDLER plpgsql_call_handler; CREATE FUNCTION f() RETURNS int LANGUAGE mine AS 'BEGIN END'",
            "",
            "language-missing",
            Refuse,
            "language mine",
            &[],
        ),
    ];
    for (source, target, code, severity, object, beside) in cases {
        check(source, target, &wanted(), (code, *severity, object), beside).await;
    }
}

#[tokio::test]
async fn names_that_cannot_be_are_refused() {
    let with = |change: &dyn Fn(&mut Wanted)| {
        let mut one = wanted();
        change(&mut one);
        one
    };
    let long = "ä".repeat(32);
    let cases: Vec<(Wanted, &str, Severity, String, &[&str])> = vec![
        (with(&|one| one.schema = "pgrunbook".into()), "schema-name", Refuse, "schema pgrunbook".into(), &[]),
        (with(&|one| one.schema = "pg_x".into()), "schema-name", Refuse, "schema pg_x".into(), &[]),
        (with(&|one| one.schema.clone_from(&long)), "schema-name", Refuse, format!("schema {long}"), &[]),
        (with(&|one| one.tables = vec!["goood".into()]), "no-table", Refuse, "table public.goood".into(), &["nothing"]),
        (with(&|one| one.exclude = vec!["goood".into()]), "no-table", Warn, "table public.goood".into(), &[]),
        (with(&|one| one.exclude = vec!["good".into()]), "nothing", Refuse, "schema public".into(), &[]),
        (
            with(&|one| one.runtime_role = Some("nobody_at_all".into())),
            "no-runtime-role",
            Refuse,
            "role nobody_at_all".into(),
            &[],
        ),
    ];
    for (wanted, code, severity, object, beside) in cases {
        check("", "", &wanted, (code, severity, &object), beside).await;
    }
}

/// A cluster alone: what is said of it hangs on what else runs there.
pub async fn alone(settings: &[(&str, &str)]) -> Sandbox {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sandbox::start(SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap()
}

pub fn has(findings: &[Finding], code: &str, severity: Severity, object: &str) {
    let hit = findings.iter().any(|one| one.code == code && one.severity == severity && one.object == object);
    assert!(hit, "no {code} of {object}:\n{}", to_table(findings));
    say_what_to_do(findings);
}

#[tokio::test]
async fn settings_slots_and_senders_are_named() {
    let poor = alone(&[("wal_level", "replica"), ("max_replication_slots", "0"), ("max_wal_senders", "0")]).await;
    let rich = cluster().await;
    let from = connect(&poor.database("legacy").await.unwrap()).await;
    from.execute(GOOD).await.unwrap();
    let to = connect(&rich.fresh_database("pre_to").await.unwrap()).await;
    let findings = preflight(&from, &to, &wanted()).await.unwrap();
    let object = "source database legacy";
    has(&findings, "wal-level", Refuse, object);
    has(&findings, "no-slot", Refuse, object);
    has(&findings, "no-walsender", Refuse, object);
    has(&findings, "slot-keep-size", Warn, object);
    let back = preflight_back(&to, &from).await;
    has(&back, "wal-level", Refuse, "target database legacy");
}

/// The other way round: only the reverse stream needs anything of the target's WAL.
async fn preflight_back(source: &Session, target: &Session) -> Vec<Finding> {
    source.execute(GOOD).await.unwrap();
    let without = Wanted { reverse: false, ..wanted() };
    let findings = preflight(source, target, &without).await.unwrap();
    assert!(findings.iter().all(|one| one.code != "wal-level"), "{}", to_table(&findings));
    preflight(source, target, &wanted()).await.unwrap()
}

#[tokio::test]
async fn what_a_slot_would_wait_for_is_named() {
    let cluster = alone(&[("max_slot_wal_keep_size", "64GB")]).await;
    let from = connect(&cluster.database("legacy").await.unwrap()).await;
    let to = connect(&cluster.database("central").await.unwrap()).await;
    from.execute(GOOD).await.unwrap();
    from.execute("BEGIN; INSERT INTO good VALUES (1); PREPARE TRANSACTION 'forgotten'").await.unwrap();
    let open = Session::connect(&cluster.options(), "somebody's psql").await.unwrap();
    open.execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    from.execute("SELECT pg_create_physical_replication_slot('left', true)").await.unwrap();
    let once = Wanted { long_transaction: Duration::ZERO, ..wanted() };
    let findings = preflight(&from, &to, &once).await.unwrap();
    has(&findings, "prepared-transaction", Refuse, "prepared transaction 'forgotten'");
    has(&findings, "long-transaction", Refuse, &format!("backend {}", open.backend_pid()));
    has(&findings, "slot-retains", Warn, "slot left");
    let named = findings.iter().find(|one| one.code == "long-transaction").unwrap();
    assert!(named.what.contains("somebody''s psql"), "{}", named.what);
    let patient = preflight(&from, &to, &wanted()).await.unwrap();
    assert!(patient.iter().all(|one| !one.code.ends_with("-transaction")), "{}", to_table(&patient));
}

#[tokio::test]
async fn more_wal_than_a_slot_may_keep_is_named() {
    let cluster = alone(&[("max_slot_wal_keep_size", "1MB")]).await;
    let from = connect(&cluster.database("legacy").await.unwrap()).await;
    let to = connect(&cluster.database("central").await.unwrap()).await;
    from.execute(GOOD).await.unwrap();
    let writer = connect(from.options()).await;
    let busy = tokio::spawn(async move {
        loop {
            writer.execute("SELECT pg_logical_emit_message(false, 'load', repeat('x', 100000))").await.unwrap();
        }
    });
    let measured = Wanted { measure: Duration::from_millis(200), ..wanted() };
    let findings = preflight(&from, &to, &measured).await.unwrap();
    busy.abort();
    has(&findings, "wal-rate", Warn, "source database legacy");
    assert!(findings.iter().any(|one| one.code == "wal-rate" && one.what.contains("max_slot_wal_keep_size")));
}

#[tokio::test]
async fn what_a_lesser_role_may_not_is_named() {
    let cluster = cluster().await;
    let (from, to) =
        (cluster.fresh_database("pre_from").await.unwrap(), cluster.fresh_database("pre_to").await.unwrap());
    let role = format!("lesser_{}", from.database);
    let admin = connect(&from).await;
    admin
        .execute(&format!(
            "{GOOD} CREATE ROLE {role} LOGIN PASSWORD 'x'; CREATE ROLE {role}_app;
             CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; GRANT SELECT ON hidden TO {role};
             CREATE TABLE of_app (id int PRIMARY KEY); CREATE POLICY p ON of_app TO {role}_app USING (true)"
        ))
        .await
        .unwrap();
    connect(&to).await.execute("CREATE SCHEMA tenant").await.unwrap();
    let as_role = |options: &ConnectOptions| ConnectOptions {
        user: role.clone(),
        password: Some("x".to_owned()),
        ..options.clone()
    };
    let wanted = Wanted { runtime_role: Some(format!("{role}_app")), ..wanted() };
    let (source, target) = (connect(&as_role(&from)).await, connect(&as_role(&to)).await);
    let findings = preflight(&source, &target, &wanted).await.unwrap();
    for (code, severity, object) in [
        ("no-replication", Refuse, format!("source database {}", from.database)),
        ("no-replication", Refuse, format!("target database {}", to.database)),
        ("no-database-create", Refuse, format!("source database {}", from.database)),
        ("no-replica-role", Refuse, format!("source database {}", from.database)),
        ("no-replica-role", Refuse, format!("target database {}", to.database)),
        ("no-select", Refuse, "table public.good".to_owned()),
        ("no-owner", Refuse, "table public.good".to_owned()),
        ("no-write", Refuse, "table public.good".to_owned()),
        ("rls-hides", Refuse, "table public.hidden".to_owned()),
        ("no-create", Refuse, "schema tenant".to_owned()),
        ("no-set-role", Warn, format!("role {role}_app")),
        // Where the rows will be, it may not know.
        ("target-disk", Note, format!("target database {}", to.database)),
    ] {
        has(&findings, code, severity, &object);
    }
    // What the remedies say is enough.
    admin
        .execute(&format!(
            "GRANT postgres, pg_read_all_settings TO {role}; GRANT {role}_app TO {role}; ALTER ROLE {role} REPLICATION BYPASSRLS;
             GRANT SET ON PARAMETER session_replication_role TO {role}"
        ))
        .await
        .unwrap();
    let findings = own(preflight(&source, &target, &wanted).await.unwrap());
    admin.execute(&format!("REVOKE postgres FROM {role}")).await.unwrap();
    assert!(findings.is_empty(), "{}", to_table(&findings));
}

#[tokio::test]
async fn roles_that_only_the_source_has_are_named() {
    let cluster = alone(&[("max_slot_wal_keep_size", "64GB")]).await;
    let from = connect(&cluster.database("legacy").await.unwrap()).await;
    let to = connect(&self::cluster().await.fresh_database("pre_to").await.unwrap()).await;
    from.execute(GOOD).await.unwrap();
    from.execute(
        "CREATE ROLE only_here; CREATE ROLE granted_here; CREATE POLICY p ON good TO only_here USING (true);
         GRANT SELECT ON good TO granted_here",
    )
    .await
    .unwrap();
    let findings = own(preflight(&from, &to, &wanted()).await.unwrap());
    has(&findings, "policy-role", Refuse, "role only_here");
    has(&findings, "grant-role", Note, "role granted_here");
    assert_eq!(findings.len(), 2, "{}", to_table(&findings));
}

#[tokio::test]
async fn an_older_target_on_postgresql_14_and_other_encodings_are_refused() {
    let cluster = cluster().await;
    let older = pgrunbook_postgres::sandbox::shared_of(14, "structure-tests").await.unwrap();
    let from = connect(&cluster.fresh_database("pre_from").await.unwrap()).await;
    from.execute(GOOD).await.unwrap();
    let to = connect(&older.fresh_database("pre_to").await.unwrap()).await;
    let findings = own(preflight(&from, &to, &wanted()).await.unwrap());
    has(&findings, "target-older", Refuse, &format!("target database {}", to.options().database));
    let name = format!("latin_{}", from.options().database);
    from.execute(&format!("CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0")).await.unwrap();
    let latin = connect(&from.options().with_database(&name)).await;
    let findings = own(preflight(&from, &latin, &wanted()).await.unwrap());
    has(&findings, "encoding", Refuse, &format!("target database {name}"));
    latin.execute(GOOD).await.unwrap();
    let findings = own(preflight(&latin, &from, &wanted()).await.unwrap());
    has(&findings, "encoding", Warn, &format!("target database {}", from.options().database));
}

#[tokio::test]
async fn a_subscription_is_a_writer() {
    // It is made without a connection, and then takes one for itself that nobody answers.
    let sql = "CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p
               WITH (connect = false, slot_name = NONE);";
    let (from, to) = pair("", "").await;
    from.execute(sql).await.unwrap();
    let disabled = own(preflight(&from, &to, &wanted()).await.unwrap());
    assert!(disabled.is_empty(), "{}", to_table(&disabled));
    from.execute("ALTER SUBSCRIPTION sub SET (slot_name = 'nobody'); ALTER SUBSCRIPTION sub ENABLE").await.unwrap();
    let findings = own(preflight(&from, &to, &wanted()).await.unwrap());
    from.execute(
        "ALTER SUBSCRIPTION sub DISABLE; ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub",
    )
    .await
    .unwrap();
    has(&findings, "subscription", Consent("subscription"), "subscription sub");
}

#[tokio::test]
async fn a_schema_that_is_not_there_is_an_error() {
    let (from, to) = pair("", "").await;
    let error = preflight(&from, &to, &Wanted { source_schema: "pubic".to_owned(), ..wanted() }).await.unwrap_err();
    assert!(error.to_string().starts_with("the schema `pubic` does not exist in "), "{error}");
}

#[tokio::test]
async fn generated_columns_under_full_break_postgresql_18() {
    for major in [14, 16, 17, 18] {
        let cluster = pgrunbook_postgres::sandbox::shared_of(major, "structure-tests").await.unwrap();
        let from = connect(&cluster.fresh_database("pre_from").await.unwrap()).await;
        let to = connect(&cluster.fresh_database("pre_to").await.unwrap()).await;
        from.execute(GOOD).await.unwrap();
        from.execute(
            "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a + 1) STORED); ALTER TABLE t REPLICA IDENTITY FULL",
        )
        .await
        .unwrap();
        let findings = own(preflight(&from, &to, &wanted()).await.unwrap());
        let refused = findings.iter().any(|one| one.code == "generated-full" && one.object == "column public.t.b");
        assert_eq!(refused, major == 18, "{major}:\n{}", to_table(&findings));
        has(&findings, "identity-full", Warn, "table public.t");
    }
}

#[tokio::test]
async fn tables_made_by_migrations_are_compared() {
    let existing = Wanted { structure: Origin::Existing, ..wanted() };
    let source = "CREATE TYPE mood AS ENUM ('sad', 'ok');
        CREATE TABLE t (id int PRIMARY KEY, n int, v varchar(9), m mood, nn text NOT NULL, u int UNIQUE, ni int, j json,
            gone int, big bigint, gen int);
        CREATE TABLE missing (id int PRIMARY KEY); CREATE TABLE nokey (id int PRIMARY KEY);";
    let target = "CREATE SCHEMA tenant; CREATE TABLE tenant.good (id integer PRIMARY KEY, body text);
        CREATE TYPE tenant.mood AS ENUM ('sad', 'OK');
        CREATE TABLE tenant.t (id int PRIMARY KEY, n bigint, v text, m tenant.mood, nn text, u int, ni int NOT NULL, j jsonb,
            big int, gen int GENERATED ALWAYS AS (id) STORED, extra int, must int NOT NULL, filled int NOT NULL DEFAULT 1);
        CREATE UNLOGGED TABLE tenant.nokey (id int UNIQUE);
        CREATE INDEX slow ON tenant.good (body); ALTER TABLE tenant.nokey ADD CONSTRAINT fk FOREIGN KEY (id) REFERENCES tenant.good;
        INSERT INTO tenant.good VALUES (1);";
    let findings = found(source, target, &existing).await;
    for (code, severity, object) in [
        ("existing-missing", Refuse, "table tenant.missing"),
        ("existing-rows", Refuse, "table tenant.good"),
        ("existing-unlogged", Refuse, "table tenant.nokey"),
        ("existing-type", Consent("wider-type"), "column tenant.t.n"),
        ("existing-type", Consent("wider-type"), "column tenant.t.v"),
        ("existing-type", Refuse, "column tenant.t.m"),
        ("existing-type", Refuse, "column tenant.t.j"),
        ("existing-type", Refuse, "column tenant.t.big"),
        ("existing-null", Warn, "column tenant.t.nn"),
        ("existing-null", Warn, "column tenant.nokey.id"),
        ("existing-not-null", Consent("not-null"), "column tenant.t.ni"),
        ("existing-key", Warn, "table tenant.t"),
        ("existing-key", Refuse, "table tenant.nokey"),
        ("existing-key", Consent("more-unique"), "table tenant.nokey"),
        ("existing-column-missing", Refuse, "column tenant.t.gone"),
        ("existing-generated", Refuse, "column tenant.t.gen"),
        ("existing-extra-column", Note, "column tenant.t.extra"),
        ("existing-extra-column", Note, "column tenant.t.filled"),
        ("existing-extra-column", Refuse, "column tenant.t.must"),
        ("existing-indexes", Note, "table tenant.good"),
        ("existing-foreign-keys", Note, "table tenant.nokey"),
    ] {
        has(&findings, code, severity, object);
    }
    let count = findings.iter().filter(|one| one.code.starts_with("existing-")).count();
    assert_eq!(count, 21, "{}", to_table(&findings));
    let same =
        found("", "CREATE SCHEMA tenant; CREATE TABLE tenant.good (id integer PRIMARY KEY, body text)", &existing)
            .await;
    assert!(same.is_empty(), "{}", to_table(&same));
}
