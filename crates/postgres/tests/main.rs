//! What the crate promises, on real servers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apply;
mod copy_out;
mod full;
#[path = "../../engine/tests/shared/journal_suite.rs"]
mod journal_suite;
mod ledger;
mod relation;
mod replication;
mod sandbox;
mod small_disk;
mod spool;
mod stream;
mod tls;
mod versions;

use pgrunbook_postgres::ConnectOptions;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared};

/// The cluster that all tests share.
pub async fn cluster() -> Sandbox {
    shared("tests", SandboxOptions::default()).await.unwrap()
}

/// A database for one test.
pub async fn database() -> ConnectOptions {
    cluster().await.fresh_database("postgres").await.unwrap()
}

#[tokio::test]
async fn postgres_journal_does_what_every_journal_must() {
    journal_suite::all(async || pgrunbook_postgres::PostgresJournal::open(&database().await).await.unwrap()).await;
}

#[tokio::test]
async fn events_are_not_changed_even_by_their_owner() {
    let options = database().await;
    let journal = pgrunbook_postgres::PostgresJournal::open(&options).await.unwrap();
    drop(journal);
    let session = pgrunbook_postgres::Session::connect(&options, "test").await.unwrap();
    session.execute("INSERT INTO pgrunbook_journal.event VALUES ('r', 1, 'at', '{}', '', '')").await.unwrap();
    for statement in [
        "UPDATE pgrunbook_journal.event SET at = ''",
        "DELETE FROM pgrunbook_journal.event",
        "TRUNCATE pgrunbook_journal.event",
        "SET session_replication_role = replica; DELETE FROM pgrunbook_journal.event",
    ] {
        let error = session.execute(statement).await.unwrap_err();
        assert!(error.to_string().contains("the journal is append-only"), "{statement}: {error}");
    }
}
