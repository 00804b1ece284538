//! Drift: one change of every kind that a migration may make, found, and mended by the SQL that is offered.

mod commands;
mod every_kind;

use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::drift::{Change, Drift, Ignore, compare};

/// One of every kind of object, so that each can be changed.
const BASE: &str = include_str!("drift/base.sql");

/// A cluster of its own: roles and a tablespace are shared by all of one.
async fn cluster() -> Sandbox {
    let sandbox = shared("drift-tests", SandboxOptions::default()).await.unwrap();
    let session = Session::connect(&sandbox.options(), "test").await.unwrap();
    for role in ["drift_owner", "drift_reader", "drift_leaver", "drift_super SUPERUSER"] {
        // Another test may have made it.
        let _ = session.execute(&format!("CREATE ROLE {role}")).await;
    }
    session.execute("SET allow_in_place_tablespaces = on").await.unwrap();
    let _ = session.execute("CREATE TABLESPACE drift_space LOCATION ''").await;
    sandbox
}

async fn session(options: &ConnectOptions) -> Session {
    Session::connect(options, "test").await.unwrap()
}

async fn drift(live: &ConnectOptions, shadow: &ConnectOptions) -> Result<Drift, String> {
    compare(&session(live).await, &session(shadow).await, &Ignore::standard()).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn same_databases_have_no_drift() {
    let sandbox = cluster().await;
    let (one, two) = (sandbox.fresh_database("drift").await.unwrap(), sandbox.fresh_database("drift").await.unwrap());
    session(&one).await.execute(BASE).await.unwrap();
    // Objects get other numbers, and columns other gaps.
    session(&two).await.execute("CREATE TABLE gone (a int); DROP TABLE gone").await.unwrap();
    session(&two).await.execute(BASE).await.unwrap();
    session(&two)
        .await
        .execute("ALTER TABLE app.bystander ADD COLUMN z int; ALTER TABLE app.bystander DROP COLUMN z")
        .await
        .unwrap();
    let found = drift(&one, &two).await.unwrap();
    assert_eq!(found.differences, []);
    assert!(found.mend.is_empty() && found.item_count > 150, "{}", found.item_count);
}

#[tokio::test]
async fn what_is_ignored_is_not_told_and_not_touched() {
    let sandbox = cluster().await;
    let (live, shadow) =
        (sandbox.fresh_database("drift").await.unwrap(), sandbox.fresh_database("drift").await.unwrap());
    session(&live)
        .await
        .execute("CREATE SCHEMA cron; CREATE TABLE cron.job (id int PRIMARY KEY); CREATE VIEW seen AS SELECT 1 AS a; CREATE TABLE kept (a int); GRANT SELECT ON kept TO drift_reader")
        .await
        .unwrap();
    session(&shadow).await.execute("CREATE TABLE kept (a int)").await.unwrap();
    let mut ignore = Ignore::standard();
    ignore.add("schema:cron").unwrap();
    ignore.add("grant:TABLE public.kept*").unwrap();
    let found = compare(&session(&live).await, &session(&shadow).await, &ignore).await.unwrap();
    let told: Vec<_> =
        found.differences.iter().map(|one| (one.change, one.kind.as_str(), one.identity.as_str())).collect();
    assert_eq!(told, [(Change::Extra, "view", "public.seen")]);
    assert!(!found.mend.script(true).contains("cron"), "{}", found.mend.script(true));
}

#[tokio::test]
async fn passwords_of_user_mappings_are_nowhere() {
    let sandbox = cluster().await;
    let (live, shadow) =
        (sandbox.fresh_database("drift").await.unwrap(), sandbox.fresh_database("drift").await.unwrap());
    let sql = "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR drift_reader SERVER s OPTIONS (\"user\" 'u', password 'hunter2')";
    session(&live).await.execute(sql).await.unwrap();
    let there = drift(&live, &shadow).await.unwrap();
    let wanted = drift(&shadow, &live).await.unwrap();
    assert!(!format!("{there:?}{wanted:?}").contains("hunter2"));
    assert_eq!(there.differences.len(), 1, "{:?}", there.differences);
    assert!(
        wanted.mend.script(true).contains("OPTIONS (ADD password 'to_be_filled_in')"),
        "{}",
        wanted.mend.script(true)
    );
}

/// No provider of labels is packaged: the rows are written as `SECURITY LABEL` would, and what is offered is refused for want of one alone.
#[tokio::test]
async fn security_labels_are_told_with_what_sets_them() {
    let sandbox = cluster().await;
    let (live, shadow) =
        (sandbox.fresh_database("drift").await.unwrap(), sandbox.fresh_database("drift").await.unwrap());
    let made = "CREATE TABLE t (a int); CREATE FUNCTION f(n int) RETURNS int LANGUAGE sql RETURN n";
    let table = "'pg_class'::regclass, 't'::regclass::oid";
    let labels = [
        (&live, format!("({table}, 0, 'one'), ('pg_proc'::regclass, 'f'::regproc::oid, 0, 'two')")),
        (&shadow, format!("({table}, 0, 'other'), ({table}, 1, 'three')")),
    ];
    for (options, rows) in labels {
        let session = session(options).await;
        session.execute(made).await.unwrap();
        let sql = format!(
            "INSERT INTO pg_seclabel (classoid, objoid, objsubid, label, provider) SELECT r.*, 'house' FROM (VALUES {rows}) AS r"
        );
        session.execute(&sql).await.unwrap();
    }
    let found = drift(&live, &shadow).await.unwrap();
    let told: Vec<_> = found.differences.iter().map(|one| (one.change, one.identity.as_str())).collect();
    assert_eq!(
        told,
        [
            (Change::Missing, "COLUMN public.t.a for house"),
            (Change::Extra, "FUNCTION public.f(n integer) for house"),
            (Change::Different, "TABLE public.t for house"),
        ]
    );
    assert!(found.differences.iter().all(|one| one.kind == "security label"));
    let mut offered: Vec<_> = found.mend.statements.iter().map(|one| one.sql.as_str()).collect();
    offered.sort_unstable();
    assert_eq!(
        offered,
        [
            "SECURITY LABEL FOR house ON COLUMN public.t.a IS 'three'",
            "SECURITY LABEL FOR house ON FUNCTION public.f(n integer) IS NULL",
            "SECURITY LABEL FOR house ON TABLE public.t IS 'other'",
        ]
    );
    let there = session(&live).await;
    for sql in offered {
        let error = there.execute(sql).await.unwrap_err().to_string();
        assert!(error.contains("security label provider \"house\" is not loaded"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn what_holds_data_does_not_go_with_what_holds_none() {
    let sandbox = cluster().await;
    let (live, shadow) =
        (sandbox.fresh_database("drift").await.unwrap(), sandbox.fresh_database("drift").await.unwrap());
    let extra = "CREATE SCHEMA kept; CREATE TYPE kept.pair AS (a int, b int); CREATE TABLE kept.rows OF kept.pair;
        INSERT INTO kept.rows VALUES (1, 2); CREATE TABLE plain (p kept.pair); CREATE VIEW kept.seen AS SELECT a FROM kept.rows;
        CREATE FUNCTION handler() RETURNS fdw_handler LANGUAGE c AS '$libdir/file_fdw', 'file_fdw_handler';
        CREATE FOREIGN DATA WRAPPER w HANDLER handler; CREATE SERVER s FOREIGN DATA WRAPPER w;
        CREATE USER MAPPING FOR drift_reader SERVER s OPTIONS (password 'hunter2')";
    session(&live).await.execute(extra).await.unwrap();
    let wanted =
        "CREATE TABLE plain (); CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s TYPE 'other' FOREIGN DATA WRAPPER w;
        CREATE USER MAPPING FOR drift_reader SERVER s OPTIONS (password 'hunter3')";
    session(&shadow).await.execute(wanted).await.unwrap();
    let found = drift(&live, &shadow).await.unwrap();
    let there = session(&live).await;
    there.execute(&found.mend.script(false)).await.unwrap();
    let seen = "SELECT (SELECT count(*) FROM kept.rows), (SELECT count(*) FROM pg_attribute WHERE attrelid = 'plain'::regclass AND attname = 'p'),
        (SELECT umoptions[1] FROM pg_user_mappings), to_regclass('kept.seen'), to_regproc('handler')";
    let answers = there.simple(seen).await.unwrap();
    let cells: Vec<_> = answers[0].rows[0].iter().map(|cell| cell.as_deref()).collect();
    assert_eq!(cells, [Some("1"), Some("1"), Some("password=hunter2"), None, None], "{}", found.mend.script(false));
    // With what loses data nothing is left.
    let found = drift(&live, &shadow).await.unwrap();
    there.execute(&found.mend.script(true)).await.unwrap();
    assert_eq!(drift(&live, &shadow).await.unwrap().differences, []);
}

#[tokio::test]
async fn what_loses_data_is_marked_with_what_it_pulls_along() {
    let sandbox = cluster().await;
    let (live, shadow) =
        (sandbox.fresh_database("drift").await.unwrap(), sandbox.fresh_database("drift").await.unwrap());
    session(&live).await.execute("CREATE TABLE t (a int, b text); CREATE VIEW v AS SELECT b FROM t").await.unwrap();
    session(&shadow).await.execute("CREATE TABLE t (a int); CREATE INDEX i ON t (a)").await.unwrap();
    let found = drift(&live, &shadow).await.unwrap();
    let marked: Vec<_> = found.mend.statements.iter().map(|one| (one.sql.as_str(), one.lossy)).collect();
    assert_eq!(
        marked,
        [
            ("DROP VIEW public.v", false),
            ("ALTER TABLE public.t DROP COLUMN b", true),
            ("CREATE INDEX i ON public.t USING btree (a)", false),
        ]
    );
}
