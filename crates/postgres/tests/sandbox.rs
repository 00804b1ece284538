//! Throwaway clusters come, hold, and go.

use pgrunbook_postgres::sandbox::{self, PoolMode, Sandbox, SandboxOptions};
use pgrunbook_postgres::{PgError, Session};

async fn value(options: &pgrunbook_postgres::ConnectOptions, sql: &str) -> String {
    Session::connect(options, "test").await.unwrap().value(sql).await.unwrap()
}

#[tokio::test]
async fn cluster_lives_as_long_as_its_value_and_survives_a_kill() {
    let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let folder = sandbox.folder().to_owned();
    let options = sandbox.database("kept").await.unwrap();
    assert_eq!(value(&options, "SHOW wal_level").await, "logical");
    value(&options, "CREATE TABLE t AS SELECT 7 AS n").await;
    sandbox.kill().unwrap();
    assert!(matches!(Session::connect(&options, "test").await, Err(PgError::Unreachable { .. })));
    sandbox.restart().unwrap();
    assert_eq!(value(&options, "SELECT n FROM t").await, "7");
    drop(sandbox);
    assert!(!folder.exists());
}

#[tokio::test]
async fn name_is_taken_once_and_found_by_others() {
    let name = format!("named-{}", std::process::id());
    let options = SandboxOptions { name: Some(name.clone()), detach: true, ..SandboxOptions::default() };
    let first = Sandbox::start(options.clone()).await.unwrap();
    let again = Sandbox::start(options).await.unwrap_err();
    assert_eq!(again.to_string(), format!("a sandbox `{name}` is already running"));
    drop(first);
    assert!(sandbox::list().unwrap().contains(&name));
    let found = sandbox::find(&name).unwrap();
    assert_eq!(value(&found.options(), "SELECT 1").await, "1");
    sandbox::down(&name).unwrap();
    assert!(!found.folder().exists());
    assert!(sandbox::down(&name).is_err());
    assert!(sandbox::find("../etc").is_err());
}

#[tokio::test]
async fn wrong_password_is_refused_with_the_place_named() {
    let cluster = crate::cluster().await;
    let options = pgrunbook_postgres::ConnectOptions { password: Some("wrong".to_owned()), ..cluster.options() };
    let Err(error) = Session::connect(&options, "test").await else { panic!("it connected") };
    assert_eq!(error.sqlstate(), Some("28P01"));
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[tokio::test]
async fn transaction_pooler_gives_one_backend_to_two_clients() {
    let cluster = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let pooler = cluster.pooler(PoolMode::Transaction, &[]).await.unwrap();
    let one = Session::connect(&pooler.options(), "one").await.unwrap();
    let two = Session::connect(&pooler.options(), "two").await.unwrap();
    let pid = "SELECT pg_backend_pid()";
    assert_eq!(one.value(pid).await.unwrap(), two.value(pid).await.unwrap());
    pooler.stop();
    assert!(Session::connect(&pooler.options(), "three").await.is_err());
}

#[tokio::test]
async fn standby_follows_and_takes_no_writes() {
    let primary = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let standby = primary.standby().await.unwrap();
    let session = Session::connect(&standby.options(), "test").await.unwrap();
    assert_eq!(session.value("SELECT pg_is_in_recovery()").await.unwrap(), "t");
    let error = session.execute("CREATE TABLE t (n int)").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("25006"));
}
