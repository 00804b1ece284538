//! The engine's tests from outside.

mod closing;
mod crash;
mod demands;
mod evidence;
mod gates;
mod notices;
mod running;
mod sign_off;
mod way_back;
mod world;

#[path = "shared/journal_suite.rs"]
mod journal_suite;

#[tokio::test]
async fn sqlite_journal_does_what_every_journal_must() {
    let folder = tempfile::tempdir().expect("a folder for the journals");
    let count = std::cell::Cell::new(0);
    journal_suite::all(async || {
        count.set(count.get() + 1);
        let path = folder.path().join(format!("{}.db", count.get()));
        pgrunbook_engine::journal::sqlite::SqliteJournal::open(&path).expect("a fresh journal")
    })
    .await;
}
