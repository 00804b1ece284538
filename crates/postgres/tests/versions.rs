//! What the crate promises holds on every supported version of PostgreSQL. `scripts/need servers` fetches those that
//! the system lacks.

use std::time::Duration;

use pgrunbook_engine::{Cancel, SystemClock, Target};
use pgrunbook_postgres::retry::{LockPolicy, LockRetry, blockers};
use pgrunbook_postgres::sandbox::{self, Binaries, Sandbox, SandboxError, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, PgError, PostgresJournal, PostgresTarget, Session, ledger};

use crate::journal_suite;
use crate::ledger::{claim, entry, session};

#[tokio::test]
async fn postgresql_14() {
    holds_on(14).await;
}

#[tokio::test]
async fn postgresql_15() {
    holds_on(15).await;
}

#[tokio::test]
async fn postgresql_16() {
    holds_on(16).await;
}

#[tokio::test]
async fn postgresql_17() {
    holds_on(17).await;
}

#[tokio::test]
async fn postgresql_18() {
    holds_on(18).await;
}

/// One cluster, and one database, for all facts of a version, since making them takes most of the time.
async fn holds_on(major: u32) {
    let options = SandboxOptions { major: Some(major), ..SandboxOptions::default() };
    let cluster = Sandbox::start(options).await.unwrap_or_else(|error| panic!("{error}: run scripts/need servers"));
    assert_eq!(cluster.major(), major);
    copies_of_a_template_are_clusters_of_their_own(&cluster).await;
    let database = cluster.options();
    let asker = session(&database).await;
    assert_eq!(version(&asker).await, major);
    database_is_identified(&database, major).await;
    ledger_says_what_was_committed(&database).await;
    lock_is_waited_for_briefly_and_had_in_the_end(&database).await;
    blocker_is_named(&database).await;
    let empty_journal = async || {
        asker.execute("DROP SCHEMA IF EXISTS pgrunbook_journal CASCADE").await.unwrap();
        PostgresJournal::open(&database).await.unwrap()
    };
    journal_suite::all(empty_journal).await;
}

/// With another identifier and another password than the template and than each other.
async fn copies_of_a_template_are_clusters_of_their_own(cluster: &Sandbox) {
    let name = format!("template{}", std::process::id());
    let first = sandbox::shared_of(cluster.major(), &name).await.unwrap();
    let options = SandboxOptions { major: Some(cluster.major()), ..SandboxOptions::default() };
    let (one, two) = (Sandbox::start(options.clone()).await.unwrap(), Sandbox::start(options).await.unwrap());
    let mut identifiers = std::collections::BTreeSet::new();
    for cluster in [cluster, &first, &one, &two] {
        let session = session(&cluster.options()).await;
        let identifier = session.value("SELECT system_identifier FROM pg_control_system()").await.unwrap();
        assert!(identifiers.insert(identifier), "{identifiers:?}");
        assert_eq!(session.value("SELECT pg_catalog.pg_is_in_recovery()").await.unwrap(), "f");
    }
    // That of the template's password is in no copy.
    let hash = async |cluster: &Sandbox| {
        let sql = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = 'postgres'";
        session(&cluster.options()).await.value(sql).await.unwrap()
    };
    let hashes = [hash(&first).await, hash(&one).await, hash(&two).await];
    assert!(hashes.iter().all(|hash| hash.starts_with("SCRAM-SHA-256$1:")), "{hashes:?}");
    let stranger = ConnectOptions { password: first.options().password, ..one.options() };
    let Err(error) = Session::connect(&stranger, "test").await else { panic!("it connected") };
    assert_eq!(error.sqlstate(), Some("28P01"));
    sandbox::down(first.name()).unwrap();
    std::fs::remove_file(first.folder().with_extension("lock")).unwrap();
}

async fn version(session: &Session) -> u32 {
    session.value("SHOW server_version_num").await.unwrap().parse::<u32>().unwrap() / 10_000
}

async fn database_is_identified(options: &ConnectOptions, major: u32) {
    let asker = session(options).await;
    let system = asker.value("SELECT system_identifier FROM pg_control_system()").await.unwrap();
    let oid = asker.value("SELECT oid FROM pg_database WHERE datname = current_database()").await.unwrap();
    let identity = PostgresTarget::new("main", options.clone()).identify().await.unwrap();
    assert_eq!(identity.key, format!("{system}/{oid}"));
    assert!(identity.shown.contains(&format!("PostgreSQL {major}.")), "{}", identity.shown);
    assert_eq!(identity.timeline, Some(1));
}

async fn ledger_says_what_was_committed(options: &ConnectOptions) {
    let (target, other) = (PostgresTarget::new("main", options.clone()), PostgresTarget::new("main", options.clone()));
    target.claim(&claim("r1", 2)).await.unwrap();
    assert!(other.claim(&claim("r2", 1)).await.unwrap_err().message.starts_with("run r1 of \"Promote\" is at work"));
    let (worker, now) = (session(options).await, entry("r1", 2));
    let under_way = format!("BEGIN; {}; CREATE TABLE loaded (); {}", now.assert_sql(), now.record_sql());
    worker.execute(&format!("{under_way}; ROLLBACK")).await.unwrap();
    assert!(!now.is_recorded(&worker).await.unwrap());
    worker.execute(&format!("{under_way}; COMMIT")).await.unwrap();
    assert!(now.is_recorded(&worker).await.unwrap());
    let fenced = worker.execute(&format!("BEGIN; {}", entry("r1", 1).assert_sql())).await.unwrap_err();
    assert_eq!(fenced.sqlstate(), Some(ledger::FENCED));
    target.release(&claim("r1", 2)).await.unwrap();
    other.claim(&claim("r2", 1)).await.unwrap();
}

async fn lock_is_waited_for_briefly_and_had_in_the_end(options: &ConnectOptions) {
    let (holder, worker) = (session(options).await, session(options).await);
    holder.execute("CREATE TABLE contended ()").await.unwrap();
    holder.execute("BEGIN; LOCK TABLE contended").await.unwrap();
    let policy = LockPolicy {
        lock_timeout: Duration::from_millis(20),
        attempts: 2,
        first_pause: Duration::ZERO,
        longest_pause: Duration::ZERO,
    };
    let cancel = Cancel::default();
    let attempt = async || {
        let tried =
            worker.execute(&format!("BEGIN; {}; ALTER TABLE contended ADD n int; COMMIT", policy.set_local())).await;
        if tried.is_err() {
            worker.execute("ROLLBACK").await?;
        }
        tried
    };

    let mut in_vain = LockRetry::new(&policy, &SystemClock, &cancel);
    assert_eq!(in_vain.once(&worker, attempt(), |_, _| {}).await.unwrap(), None);
    let error = in_vain.once(&worker, attempt(), |_, _| {}).await.unwrap_err();
    assert!(matches!(error, PgError::Locked { attempts: 2, .. }), "{error}");

    let mut retry = LockRetry::new(&policy, &SystemClock, &cancel);
    assert_eq!(retry.once(&worker, attempt(), |_, _| {}).await.unwrap(), None);
    holder.execute("ROLLBACK").await.unwrap();
    assert_eq!(retry.once(&worker, attempt(), |_, _| {}).await.unwrap(), Some(()));
    assert_eq!(worker.value("SELECT count(n) FROM contended").await.unwrap(), "0");
}

async fn blocker_is_named(options: &ConnectOptions) {
    let (holder, waiter, observer) = (session(options).await, session(options).await, session(options).await);
    holder.execute("CREATE TABLE blocked ()").await.unwrap();
    holder.execute("BEGIN; LOCK TABLE blocked").await.unwrap();
    let waiting = waiter.backend_pid();
    let wait = async { waiter.execute("SELECT FROM blocked").await.unwrap() };
    let look = async {
        let found = loop {
            let found = blockers(&observer, waiting).await.unwrap();
            if !found.is_empty() {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        holder.execute("ROLLBACK").await.unwrap();
        found
    };
    let both = async { tokio::join!(wait, look) };
    let ((), found) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    assert_eq!((found.len(), found[0].pid), (1, holder.backend_pid()));
    assert_eq!(found[0].state.as_deref(), Some("idle in transaction"));
    assert_eq!(found[0].relations, ["blocked"]);
}

/// The cache folder's servers have no client programs: another's `pg_basebackup` is taken.
#[tokio::test]
async fn standby_of_the_oldest_version_is_made_by_a_newer_ones_program() {
    let options = SandboxOptions { major: Some(14), ..SandboxOptions::default() };
    let primary = Sandbox::start(options).await.unwrap();
    let standby = primary.standby().await.unwrap();
    let session = session(&standby.options()).await;
    assert_eq!(version(&session).await, 14);
    assert_eq!(session.value("SELECT pg_is_in_recovery()").await.unwrap(), "t");
}

#[tokio::test]
async fn shared_clusters_of_two_versions_are_two() {
    let name = format!("v{}", std::process::id());
    let (one, other) = (sandbox::shared_of(14, &name).await.unwrap(), sandbox::shared_of(18, &name).await.unwrap());
    assert_eq!((one.major(), other.major()), (14, 18));
    let again = sandbox::shared_of(14, &name).await.unwrap();
    assert_eq!(again.url(), one.url());
    let options = SandboxOptions { major: Some(18), ..SandboxOptions::default() };
    let error = sandbox::shared(one.name(), options).await.unwrap_err();
    assert_eq!(error.to_string(), format!("sandbox `{name}-14` is PostgreSQL 14, and 18 was asked for"));
    for sandbox in [one, other] {
        sandbox::down(sandbox.name()).unwrap();
        // It stays for whoever shares the next cluster of that name, which is nobody.
        std::fs::remove_file(sandbox.folder().with_extension("lock")).unwrap();
    }
}

#[test]
fn version_that_is_not_there_is_refused_with_those_that_are() {
    let there = Binaries::of(14).unwrap();
    let error = Binaries::of(9).unwrap_err();
    assert!(matches!(error, SandboxError::NoVersion { major: 9, .. }), "{error}");
    assert!(error.to_string().contains(&format!("14 ({})", there.folder.display())), "{error}");
}
