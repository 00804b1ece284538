//! Drift: one change of every kind that a migration may make, found, and mended by the SQL that is offered.

use std::time::{Duration, Instant};

use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::drift::{self, Change, Drift, Ignore, State, between, compare};

const BASE: &str = include_str!("drift/base.sql");
/// What is created, altered and dropped; and what has a form of `ALTER` of its own: renaming, moving, giving away, extensions.
const CHANGES: [&str; 2] = [include_str!("drift/changes.sql"), include_str!("drift/forms.sql")];

/// A change: what must be found, and its statements.
struct Case {
    found: Vec<&'static str>,
    sql: String,
}

/// Lines that begin with `-- ` name what must be found; the lines behind them make it so.
fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in CHANGES.iter().flat_map(|text| text.lines()) {
        let Some(name) = line.strip_prefix("-- ") else {
            let case = cases.last_mut().expect("what makes a change stands behind its name");
            case.sql.push_str(line);
            case.sql.push('\n');
            continue;
        };
        match cases.last_mut() {
            Some(case) if case.sql.is_empty() => case.found.push(name),
            _ => cases.push(Case { found: vec![name], sql: String::new() }),
        }
    }
    cases
}

/// A cluster of its own: roles and a tablespace are shared by all of one.
async fn cluster() -> Sandbox {
    let sandbox = shared("drift-tests", SandboxOptions::default()).await.unwrap();
    let session = Session::connect(&sandbox.options(), "test").await.unwrap();
    for role in ["drift_owner", "drift_reader", "drift_super SUPERUSER"] {
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
    while let Err(error) =
        admin.execute(&format!("CREATE DATABASE {name} TEMPLATE {} STRATEGY FILE_COPY", base.database)).await
    {
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
        for subscription in ["from_afar", "second", "renamed"] {
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

/// A database, a session in it, and what it has: read again only when it was changed, since reading takes longest.
struct Side {
    session: Session,
    state: State,
}

impl Side {
    async fn of(options: &ConnectOptions) -> Self {
        let session = session(options).await;
        let state = drift::state(&session).await.unwrap();
        Self { session, state }
    }

    async fn execute(&mut self, sql: &str) -> Result<(), String> {
        self.session.execute(sql).await.map_err(|error| error.to_string())?;
        self.state = drift::state(&self.session).await.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Applies what is offered, what loses data included.
    async fn mend(&mut self, found: &Drift) -> Result<(), String> {
        for one in &found.mend.before {
            self.session.execute(&one.sql).await.map_err(|error| error.to_string())?;
        }
        let script = found.mend.script(true);
        let rest = script.split_once("BEGIN;\n").map_or("", |(_, rest)| rest);
        self.execute(&format!("BEGIN;\n{rest}")).await
    }
}

/// What all changes begin with, and two copies of it.
struct Three {
    base: State,
    changed: Side,
    other: Side,
}

#[derive(Clone, Copy)]
enum Way {
    /// The other is made what the changed one is.
    Forth,
    /// The changed one is made what it was.
    Back,
    /// And so is the other.
    OtherBack,
}

impl Three {
    /// What differs on a way, of what is made alike.
    fn drift(&self, way: Way) -> Drift {
        let (live, shadow) = match way {
            Way::Forth => (&self.other.state, &self.changed.state),
            Way::Back => (&self.changed.state, &self.base),
            Way::OtherBack => (&self.other.state, &self.base),
        };
        between(live, shadow, &Ignore::standard()).unwrap()
    }

    /// A change in one direction, then in the other, then back to where both were.
    async fn tried(&mut self, case: &Case) -> Result<(), String> {
        self.changed.execute(&case.sql).await.map_err(|error| format!("the change itself: {error}"))?;
        // Not every change can be made in both directions: an extension goes up only, and nobody asks for an invalid index.
        let ways = match case.found[0].split_once(' ') {
            Some(("<", _)) => &[Way::Forth][..],
            Some((">", _)) => &[Way::Back][..],
            _ => &[Way::Forth, Way::Back, Way::OtherBack][..],
        };
        for way in ways.iter().copied() {
            let found = self.drift(way);
            let told: Vec<String> =
                found.differences.iter().map(|one| format!("{} {}", one.kind, one.identity)).collect();
            for what in case.found.iter().map(|what| what.trim_start_matches(['<', '>', ' '])) {
                if !told.iter().any(|one| one == what) {
                    return Err(format!("`{what}` is not found, but {told:#?}"));
                }
            }
            let live = match way {
                Way::Back => &mut self.changed,
                Way::Forth | Way::OtherBack => &mut self.other,
            };
            let script = found.mend.script(true);
            live.mend(&found).await.map_err(|error| format!("{error} of\n{script}"))?;
            let left = self.drift(way).differences;
            if !left.is_empty() {
                return Err(format!("left: {left:#?} after\n{script}"));
            }
        }
        Ok(())
    }
}

/// Tests that share the changes between them, so that two cores have something to do.
const SHARES: usize = 4;

async fn share(number: usize) {
    let sandbox = cluster().await;
    let base = sandbox.fresh_database("drift").await.unwrap();
    session(&base).await.execute(BASE).await.unwrap();
    let state = Side::of(&base).await.state;
    let names = ["a", "b"].map(|end| format!("{}_{end}", base.database));
    let fresh = async |base_state: State| Three {
        base: base_state,
        changed: Side::of(&copy(&sandbox, &base, &names[0]).await).await,
        other: Side::of(&copy(&sandbox, &base, &names[1]).await).await,
    };
    let mut three = fresh(state).await;
    let mut failed = Vec::new();
    let cases: Vec<Case> = cases().into_iter().skip(number).step_by(SHARES).collect();
    for case in &cases {
        let tried = three.tried(case).await;
        if let Err(why) = &tried {
            failed.push(format!("== {}\n{why}", case.found.join(", ")));
        }
        if tried.is_err() || case.found[0].starts_with('<') {
            three = fresh(three.base).await;
        }
    }
    drop(three);
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
