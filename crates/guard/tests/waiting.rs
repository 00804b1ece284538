//! Migrations that are under way, as another tool makes them: a transaction that writes the version row. Those of
//! `pgrunbook migrate` itself are in the tests of `migrate`.

use std::time::Duration;

use pgrunbook_guard::{Guard, GuardError, Notice, Outcome, Source};
use pgrunbook_postgres::sandbox::url;
use tokio::sync::mpsc;

use crate::place::{Place, connect};

const SET: &str = "BEGIN; UPDATE bot_config SET config_value = '{\"version\": \"1.1.0\"}'";

#[tokio::test]
async fn migration_that_is_under_way_is_waited_for() {
    let place = Place::at("1.0.0").await;
    // The role sees neither pgrunbook's tables nor what other backends do.
    let role = place.role("GRANT SELECT ON bot_config TO ROLE").await;
    let migrator = place.session().await;
    migrator.execute(SET).await.unwrap();
    let (tell, mut told) = mpsc::unbounded_channel();
    let guard = Guard::new("1.1.0", Source::bot_config()).unwrap().wait(Duration::from_secs(60));
    let guard = guard.tell(move |notice| tell.send(notice.clone()).unwrap());
    let mut client = connect(&url(&role)).await;
    let application = tokio::spawn(async move { guard.check(&mut client).await });
    let Some(Notice::Waiting { who, .. }) = told.recv().await else { panic!("it waits for nobody") };
    assert!(who.starts_with("backend ") && who.ends_with("which changes public.bot_config"), "{who}");
    migrator.execute("COMMIT").await.unwrap();
    let Ok(Outcome::Compatible(fits)) = application.await.unwrap() else { panic!("it does not fit") };
    assert_eq!(fits.stored.version, "1.1.0");
    assert!(fits.waited > Duration::ZERO);
    assert!(told.recv().await.is_none(), "it was told twice");
}

#[tokio::test]
async fn migration_that_does_not_end_is_not_waited_for_beyond_the_deadline() {
    let place = Place::at("1.0.0").await;
    let migrator = place.session().await;
    migrator.execute(SET).await.unwrap();
    let guard = Guard::new("1.1.0", Source::bot_config()).unwrap().wait(Duration::from_millis(300));
    let error = guard.tell(|_| ()).check(&mut place.client().await).await.unwrap_err();
    let GuardError::StillMigrating { waited, last, .. } = &error else { panic!("{error}") };
    assert!(*waited >= Duration::from_millis(300));
    assert_eq!(last.code(), "application-newer");
    assert!(error.to_string().contains("which changes public.bot_config were still under way"), "{error}");
    assert!(error.is_verdict());
}

#[tokio::test]
async fn migration_that_is_rolled_back_ends_the_wait() {
    let place = Place::at("1.0.0").await;
    let migrator = place.session().await;
    migrator.execute(SET).await.unwrap();
    let (tell, mut told) = mpsc::unbounded_channel();
    let guard = Guard::new("1.1.0", Source::bot_config()).unwrap().wait(Duration::from_secs(60));
    let guard = guard.tell(move |notice| tell.send(notice.clone()).unwrap());
    let mut client = place.client().await;
    let application = tokio::spawn(async move { guard.check(&mut client).await });
    assert!(told.recv().await.is_some());
    migrator.execute("ROLLBACK").await.unwrap();
    let error = application.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "application-newer", "{error}");
}

#[tokio::test]
async fn what_no_migration_can_mend_is_not_waited_for() {
    let place = Place::at("2.0.0").await;
    let migrator = place.session().await;
    migrator.execute(SET).await.unwrap();
    let guard = Guard::new("1.1.0", Source::bot_config()).unwrap().wait(Duration::from_secs(600));
    let error = guard.check(&mut place.client().await).await.unwrap_err();
    assert_eq!(error.code(), "majors-differ");
}

#[tokio::test]
async fn first_migration_that_makes_the_table_is_waited_for() {
    let place = Place::new().await;
    // Nothing of the table is to be seen before the commit, but the history is there and is being written.
    place.execute("CREATE SCHEMA pgrunbook; CREATE TABLE pgrunbook.migration (version text)").await;
    let migrator = place.session().await;
    let table = "CREATE TABLE bot_config (config_key text, config_value jsonb)";
    let row = "INSERT INTO bot_config VALUES ('schema_version', '{\"version\": \"1.0.0\"}')";
    migrator.execute(&format!("BEGIN; INSERT INTO pgrunbook.migration VALUES ('1'); {table}; {row}")).await.unwrap();
    let (tell, mut told) = mpsc::unbounded_channel();
    let guard = Guard::new("1.0.0", Source::bot_config()).unwrap().wait(Duration::from_secs(60));
    let guard = guard.tell(move |notice| tell.send(notice.clone()).unwrap());
    let mut client = place.client().await;
    let application = tokio::spawn(async move { guard.check(&mut client).await });
    assert!(told.recv().await.is_some());
    migrator.execute("COMMIT").await.unwrap();
    assert!(application.await.unwrap().is_ok());
}
