//! Claims and the ledger: who may act, and what is known to be committed.

use jiff::Timestamp;
use pgrunbook_engine::step::Direction;
use pgrunbook_engine::{Claim, Target};
use pgrunbook_postgres::ledger::Entry;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, PostgresTarget, Session};

pub fn claim(run: &str, epoch: u64) -> Claim {
    Claim {
        run: run.to_owned(),
        runbook: "Promote".to_owned(),
        epoch,
        operator: "anna@desk".to_owned(),
        host: "desk".to_owned(),
        pid: 17,
        since: "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap(),
        step: Some("load".parse().unwrap()),
    }
}

pub fn entry(run: &str, epoch: u64) -> Entry<'_> {
    Entry { run, step: "load", direction: Direction::Forward, attempt: 1, epoch, digest: "00", operator: "anna@desk" }
}

pub async fn session(options: &ConnectOptions) -> Session {
    Session::connect(options, "test").await.unwrap()
}

#[tokio::test]
async fn another_run_is_told_who_is_at_work() {
    let options = crate::database().await;
    let (first, second) = (PostgresTarget::new("main", options.clone()), PostgresTarget::new("main", options));
    first.claim(&claim("r1", 1)).await.unwrap();
    let error = second.claim(&claim("r2", 1)).await.unwrap_err();
    assert_eq!(
        error.message,
        "run r1 of \"Promote\" is at work on this target: anna@desk (pid 17), since 2026-01-02T03:04:05Z, at step \
         `load`. Nothing was changed."
    );
    first.release(&claim("r1", 1)).await.unwrap();
    second.claim(&claim("r2", 1)).await.unwrap();
}

#[tokio::test]
async fn claim_of_a_process_that_died_is_taken_over() {
    let options = crate::database().await;
    let (first, second) = (PostgresTarget::new("main", options.clone()), PostgresTarget::new("main", options));
    first.claim(&claim("r1", 1)).await.unwrap();
    // Its connections end with it.
    drop(first);
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while second.claim(&claim("r2", 1)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn process_that_wakes_up_late_commits_nothing() {
    let options = crate::database().await;
    let late = PostgresTarget::new("main", options.clone());
    late.claim(&claim("r1", 1)).await.unwrap();
    let worker = session(&options).await;
    let (before, after) = (entry("r1", 1), entry("r1", 2));

    // Another process takes the same run over while the first one still holds its claim.
    let next = PostgresTarget::new("main", options.clone());
    next.claim(&claim("r1", 2)).await.unwrap();
    let error = worker.execute(&format!("BEGIN; {}; CREATE TABLE t ()", before.assert_sql())).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some(pgrunbook_postgres::ledger::FENCED));
    worker.execute("ROLLBACK").await.unwrap();

    worker
        .execute(&format!("BEGIN; {}; CREATE TABLE t (); {}; COMMIT", after.assert_sql(), after.record_sql()))
        .await
        .unwrap();
    assert!(after.is_recorded(&worker).await.unwrap());
    // And an older claim never comes back.
    next.release(&claim("r1", 2)).await.unwrap();
    assert_eq!(late.claim(&claim("r1", 1)).await.unwrap_err().code, "fenced");
}

#[tokio::test]
async fn question_waits_for_the_transaction_that_is_under_way() {
    let options = crate::database().await;
    let target = PostgresTarget::new("main", options.clone());
    target.claim(&claim("r1", 1)).await.unwrap();
    // A transaction whose client is gone and whose server does not know yet: it is ended, and did not commit.
    let lost = Session::connect(&options, "pgrunbook:r1:load").await.unwrap();
    let entry = entry("r1", 1);
    lost.execute(&format!("BEGIN; {}; {}", entry.assert_sql(), entry.record_sql())).await.unwrap();
    let asker = session(&options).await;
    assert!(!entry.is_recorded(&asker).await.unwrap());
    assert!(lost.execute("COMMIT").await.is_err());
    assert!(!entry.is_recorded(&asker).await.unwrap());
}

#[tokio::test]
async fn twenty_at_once_install_one_schema() {
    let options = crate::database().await;
    let installs = (0..20).map(|_| {
        let options = options.clone();
        tokio::spawn(async move {
            let session = session(&options).await;
            pgrunbook_postgres::ledger::install(&session).await
        })
    });
    for install in installs.collect::<Vec<_>>() {
        install.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn role_that_may_not_create_schemas_is_told_what_to_grant() {
    let cluster = crate::cluster().await;
    let options = cluster.fresh_database("ledger").await.unwrap();
    let role = format!("plain_{}", options.database);
    session(&options).await.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'p'")).await.unwrap();
    let plain = ConnectOptions { user: role.clone(), password: Some("p".to_owned()), ..options.clone() };
    let error = PostgresTarget::new("main", plain).claim(&claim("r1", 1)).await.unwrap_err();
    assert_eq!(error.code, "cannot-claim");
    assert!(error.help.unwrap().contains(&format!("GRANT CREATE ON DATABASE {} TO {role}", options.database)));
}

#[tokio::test]
async fn standby_cannot_be_claimed() {
    let primary = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let standby = primary.standby().await.unwrap();
    let error = PostgresTarget::new("main", standby.options()).claim(&claim("r1", 1)).await.unwrap_err();
    assert_eq!(error.code, "read-only");
}

#[tokio::test]
async fn shared_backend_is_no_place_for_a_claim() {
    use pgrunbook_postgres::sandbox::PoolMode;
    let cluster = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let shared = cluster.pooler(PoolMode::Transaction, &[]).await.unwrap();
    let error = PostgresTarget::new("main", shared.options()).claim(&claim("r1", 1)).await.unwrap_err();
    assert_eq!(error.code, "pooler");
    let direct = PostgresTarget::new("main", cluster.options());
    direct.claim(&claim("r1", 1)).await.unwrap();
}

#[tokio::test]
async fn identity_is_that_of_the_database_and_not_of_the_way_there() {
    let cluster = crate::cluster().await;
    let (one, two) = (cluster.fresh_database("who").await.unwrap(), cluster.fresh_database("who").await.unwrap());
    let key =
        async |options: &ConnectOptions| PostgresTarget::new("main", options.clone()).identify().await.unwrap().key;
    let by_socket = ConnectOptions {
        hosts: vec![pgrunbook_postgres::options::HostPort {
            host: cluster.socket_folder().display().to_string(),
            port: one.hosts[0].port,
        }],
        ..one.clone()
    };
    assert_eq!(key(&one).await, key(&by_socket).await);
    assert_ne!(key(&one).await, key(&two).await);
}
