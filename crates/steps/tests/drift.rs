//! Drift: one change of every kind that a migration may make, found, and mended by the SQL that is offered.

use std::time::{Duration, Instant};

use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::drift::{Change, Drift, Ignore, compare};

const BASE: &str = include_str!("drift/base.sql");
const CHANGES: &str = include_str!("drift/changes.sql");

/// A cluster of its own: roles and a tablespace are shared by all of one.
async fn cluster() -> Sandbox {
    let sandbox = shared("drift-tests", SandboxOptions::default()).await.unwrap();
    let session = Session::connect(&sandbox.options(), "test").await.unwrap();
    for role in ["drift_owner", "drift_reader"] {
        // Another test may have made it.
        let _ = session.execute(&format!("CREATE ROLE {role}")).await;
    }
    session.execute("SET allow_in_place_tablespaces = on").await.unwrap();
    let _ = session.execute("CREATE TABLESPACE drift_space LOCATION ''").await;
    sandbox
}

/// One more database like the base.
async fn copy(sandbox: &Sandbox, base: &ConnectOptions, name: &str) -> ConnectOptions {
    let admin = Session::connect(&sandbox.options(), "test").await.unwrap();
    gone(sandbox, name).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    // Sessions that were closed may still be on their way out.
    while let Err(error) = admin.execute(&format!("CREATE DATABASE {name} TEMPLATE {}", base.database)).await {
        assert!(error.sqlstate() == Some("55006") && Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let options = sandbox.options().with_database(name);
    // A copy of a database has no subscriptions.
    let session = Session::connect(&options, "test").await.unwrap();
    session.execute(SUBSCRIPTION).await.unwrap();
    options
}

/// Drops a database, and the subscriptions that would keep it.
async fn gone(sandbox: &Sandbox, name: &str) {
    if let Ok(session) = Session::connect(&sandbox.options().with_database(name), "test").await {
        for subscription in ["from_afar", "second"] {
            let sql = format!("ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE)");
            if session.execute(&sql).await.is_ok() {
                session.execute(&format!("DROP SUBSCRIPTION {subscription}")).await.unwrap();
            }
        }
    }
    let admin = session(&sandbox.options()).await;
    admin.execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
}

const SUBSCRIPTION: &str = "CREATE SUBSCRIPTION from_afar CONNECTION 'host=nowhere' PUBLICATION theirs WITH (connect = false, slot_name = NONE)";

async fn session(options: &ConnectOptions) -> Session {
    Session::connect(options, "test").await.unwrap()
}

async fn drift(live: &ConnectOptions, shadow: &ConnectOptions) -> Result<Drift, String> {
    compare(&session(live).await, &session(shadow).await, &Ignore::standard()).await.map_err(|error| error.to_string())
}

/// Applies what is offered, what loses data included.
async fn mend(live: &ConnectOptions, shadow: &ConnectOptions, found: &Drift) -> Result<(), String> {
    let script = found.mend.script(true);
    let session = session(live).await;
    for one in &found.mend.before {
        session.execute(&one.sql).await.map_err(|error| format!("{error} of\n{script}"))?;
    }
    let rest = script.split_once("BEGIN;\n").map_or("", |(_, rest)| rest);
    session.execute(&format!("BEGIN;\n{rest}")).await.map_err(|error| format!("{error} of\n{script}"))?;
    let left = drift(live, shadow).await?;
    if left.differences.is_empty() { Ok(()) } else { Err(format!("left: {:#?} after\n{script}", left.differences)) }
}

/// A change in one direction, then in the other, then back to where both were.
async fn tried(
    what: &str,
    sql: &str,
    base: &ConnectOptions,
    changed: &ConnectOptions,
    other: &ConnectOptions,
) -> Result<(), String> {
    session(changed).await.execute(sql).await.map_err(|error| format!("the change itself: {error}"))?;
    // Not every change can be made in both directions: an extension goes up only, and nobody asks for an invalid index.
    let (what, ways) = match what.split_once(' ') {
        Some(("<", what)) => (what, &[(other, changed)][..]),
        Some((">", what)) => (what, &[(changed, base)][..]),
        _ => (what, &[(other, changed), (changed, base), (other, base)][..]),
    };
    let named = |found: &Drift, what: &str| {
        found.differences.iter().any(|one| format!("{} {}", one.kind, one.identity) == what)
    };
    for (live, shadow) in ways.iter().copied() {
        let found = drift(live, shadow).await?;
        if !named(&found, what) {
            return Err(format!("not found, but {:#?}", found.differences));
        }
        mend(live, shadow, &found).await?;
    }
    Ok(())
}

/// Tests that share the changes between them, so that two cores have something to do.
const SHARES: usize = 4;

async fn share(number: usize) {
    let sandbox = cluster().await;
    let base = sandbox.fresh_database("drift").await.unwrap();
    session(&base).await.execute(BASE).await.unwrap();
    let names: Vec<String> = ["a", "b"].iter().map(|end| format!("{}_{end}", base.database)).collect();
    let mut copies = Vec::new();
    for name in &names {
        copies.push(copy(&sandbox, &base, name).await);
    }
    let mut failed = Vec::new();
    let cases: Vec<&str> =
        CHANGES.split("-- ").filter(|case| !case.trim().is_empty()).skip(number).step_by(SHARES).collect();
    for case in &cases {
        let (what, sql) = case.split_once('\n').unwrap();
        let tried = tried(what, sql, &base, &copies[0], &copies[1]).await;
        if let Err(why) = &tried {
            failed.push(format!("== {what}\n{why}"));
        }
        if tried.is_err() || what.starts_with('<') {
            for (name, place) in names.iter().zip(&mut copies) {
                *place = copy(&sandbox, &base, name).await;
            }
        }
    }
    for name in names.iter().chain([&base.database]) {
        gone(&sandbox, name).await;
    }
    assert!(cases.len() > 30);
    assert!(failed.is_empty(), "{} of {} failed\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[tokio::test]
async fn every_kind_of_change_is_found_and_mended_1() {
    share(0).await;
}

#[tokio::test]
async fn every_kind_of_change_is_found_and_mended_2() {
    share(1).await;
}

#[tokio::test]
async fn every_kind_of_change_is_found_and_mended_3() {
    share(2).await;
}

#[tokio::test]
async fn every_kind_of_change_is_found_and_mended_4() {
    share(3).await;
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
