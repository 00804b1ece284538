//! What every journal must do. The engine runs it on SQLite; the `postgres` crate includes this file and runs it on
//! a journal in another cluster. Each function is one fact and needs a journal without any run.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use jiff::Timestamp;
use pgrunbook_engine::journal::{Event, Journal, JournalError, Sealed};
use pgrunbook_engine::target::Claim;

/// Runs every fact, each on a journal of its own.
pub async fn all<J: Journal, F: AsyncFn() -> J>(fresh: F) {
    appended_events_are_read_back_in_order_and_chained(&fresh().await).await;
    numbers_must_continue(&fresh().await).await;
    batch_is_all_or_none(&fresh().await).await;
    runs_are_listed_newest_first(&fresh().await).await;
    older_epoch_cannot_append(&fresh().await).await;
    second_claim_is_told_the_holder(&fresh().await).await;
    released_lease_can_be_taken_and_the_epoch_rises(&fresh().await).await;
    lease_of_a_dead_process_is_taken_over(&fresh().await).await;
    lease_of_another_host_is_not_taken_while_it_beats(&fresh().await).await;
    one_run_cannot_be_held_under_two_names(&fresh().await).await;
    heartbeat_shows_the_step_and_fails_after_a_takeover(&fresh().await).await;
    release_of_a_lost_lease_leaves_the_new_holder(&fresh().await).await;
    texts_of_every_kind_survive(&fresh().await).await;
}

/// A chain of `count` events, each saying its number.
fn chain(count: u64) -> Vec<Sealed> {
    let mut events: Vec<Sealed> = Vec::new();
    for number in 1..=count {
        let at = Timestamp::from_nanosecond(1_700_000_000_123_456_789 + i128::from(number)).unwrap();
        events.push(Sealed::seal(Event::Stopped { why: format!("event {number}") }, at, events.last()));
    }
    events
}

fn claim(run: &str) -> Claim {
    Claim {
        run: run.to_owned(),
        runbook: "Promote".to_owned(),
        epoch: 0,
        operator: "anna@desk".to_owned(),
        host: "desk".to_owned(),
        pid: std::process::id(),
        since: Timestamp::from_second(1_700_000_000).unwrap(),
        step: None,
    }
}

async fn appended_events_are_read_back_in_order_and_chained(journal: &impl Journal) {
    let events = chain(5);
    journal.append("r", 0, &events[..2]).await.unwrap();
    journal.append("r", 0, &events[2..]).await.unwrap();
    let read = journal.read("r").await.unwrap();
    assert_eq!(read, events);
    for (index, event) in read.iter().enumerate() {
        assert!(event.follows(index.checked_sub(1).map(|before| &read[before])), "event {} broke", event.seq);
    }
    assert!(journal.read("another").await.unwrap().is_empty());
}

async fn numbers_must_continue(journal: &impl Journal) {
    let events = chain(4);
    journal.append("r", 0, &events[..2]).await.unwrap();
    for wrong in [&events[1..2], &events[3..]] {
        let error = journal.append("r", 0, wrong).await.unwrap_err();
        assert!(matches!(error, JournalError::Behind), "{error}");
    }
    journal.append("r", 0, &events[2..]).await.unwrap();
}

async fn batch_is_all_or_none(journal: &impl Journal) {
    let events = chain(3);
    journal.append("r", 0, &events[..1]).await.unwrap();
    let with_a_gap = [events[1].clone(), events[1].clone()];
    journal.append("r", 0, &with_a_gap).await.unwrap_err();
    assert_eq!(journal.read("r").await.unwrap(), events[..1]);
}

async fn runs_are_listed_newest_first(journal: &impl Journal) {
    for (run, second) in [("b", 2), ("a", 1), ("c", 3)] {
        let at = Timestamp::from_second(second).unwrap();
        journal.append(run, 0, &[Sealed::seal(Event::Stopped { why: String::new() }, at, None)]).await.unwrap();
    }
    assert_eq!(journal.runs().await.unwrap(), ["c", "b", "a"]);
}

async fn older_epoch_cannot_append(journal: &impl Journal) {
    let events = chain(3);
    journal.append("r", 0, &events[..1]).await.unwrap();
    let epoch = journal.claim("n", &claim("r")).await.unwrap();
    assert_eq!(epoch, 1);
    let error = journal.append("r", 0, &events[1..2]).await.unwrap_err();
    assert!(matches!(error, JournalError::Behind), "{error}");
    journal.append("r", epoch, &events[1..2]).await.unwrap();
    let error = journal.append("r", epoch + 1, &events[2..]).await.unwrap_err();
    assert!(matches!(error, JournalError::Behind), "an epoch that nobody claimed: {error}");
}

async fn second_claim_is_told_the_holder(journal: &impl Journal) {
    let epoch = journal.claim("n", &claim("r")).await.unwrap();
    let second = Claim { operator: "bert@desk".to_owned(), ..claim("s") };
    let JournalError::Taken(holder) = journal.claim("n", &second).await.unwrap_err() else {
        panic!("not told who holds it")
    };
    assert_eq!(*holder, Claim { epoch, ..claim("r") });
    assert_eq!(journal.leases("desk").await.unwrap(), [("n".to_owned(), Claim { epoch, ..claim("r") })]);
    journal.claim("another name", &second).await.unwrap();
}

async fn released_lease_can_be_taken_and_the_epoch_rises(journal: &impl Journal) {
    let first = journal.claim("n", &claim("r")).await.unwrap();
    journal.release("n", &Claim { epoch: first, ..claim("r") }).await.unwrap();
    assert!(journal.leases("desk").await.unwrap().is_empty());
    let second = journal.claim("n", &claim("r")).await.unwrap();
    assert!(second > first, "{second} after {first}");
    let of_another_run = journal.claim("m", &claim("s")).await.unwrap();
    assert_eq!(of_another_run, 1, "epochs are the run's own");
}

async fn lease_of_a_dead_process_is_taken_over(journal: &impl Journal) {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    journal.claim("n", &Claim { pid, ..claim("r") }).await.unwrap();
    let epoch = journal.claim("n", &claim("r")).await.unwrap();
    assert_eq!(epoch, 2);
}

async fn lease_of_another_host_is_not_taken_while_it_beats(journal: &impl Journal) {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let elsewhere = Claim { pid, host: "elsewhere".to_owned(), ..claim("r") };
    journal.claim("n", &elsewhere).await.unwrap();
    let error = journal.claim("n", &claim("r")).await.unwrap_err();
    assert!(matches!(error, JournalError::Taken(_)), "a process number says nothing on another host: {error}");
}

async fn one_run_cannot_be_held_under_two_names(journal: &impl Journal) {
    journal.claim("n", &claim("r")).await.unwrap();
    let error = journal.claim("m", &claim("r")).await.unwrap_err();
    assert!(matches!(error, JournalError::Taken(_)), "{error}");
}

async fn heartbeat_shows_the_step_and_fails_after_a_takeover(journal: &impl Journal) {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let epoch = journal.claim("n", &Claim { pid, ..claim("r") }).await.unwrap();
    let held = Claim { pid, epoch, step: Some("load[health]".parse().unwrap()), ..claim("r") };
    journal.heartbeat("n", &held).await.unwrap();
    // From another host only the heartbeat tells; on its own it is known to be dead.
    assert_eq!(journal.leases("elsewhere").await.unwrap()[0].1, held);
    assert!(journal.leases(&held.host).await.unwrap().is_empty());
    journal.claim("n", &claim("r")).await.unwrap();
    let error = journal.heartbeat("n", &held).await.unwrap_err();
    assert!(matches!(error, JournalError::Behind), "{error}");
}

async fn release_of_a_lost_lease_leaves_the_new_holder(journal: &impl Journal) {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let lost = journal.claim("n", &Claim { pid, ..claim("r") }).await.unwrap();
    let epoch = journal.claim("n", &claim("r")).await.unwrap();
    journal.release("n", &Claim { pid, epoch: lost, ..claim("r") }).await.unwrap();
    assert_eq!(journal.leases("desk").await.unwrap(), [("n".to_owned(), Claim { epoch, ..claim("r") })]);
}

async fn texts_of_every_kind_survive(journal: &impl Journal) {
    let texts = ["", "'; DROP TABLE event; --", "naïve 日本 \u{1F40C}", "tab\tline\nquote\" \\ \u{1}", "1e400"];
    let mut events: Vec<Sealed> = Vec::new();
    for text in texts {
        let event = Event::Accepted { what: text.to_owned(), by: "b".to_owned() };
        events.push(Sealed::seal(event, Timestamp::UNIX_EPOCH, events.last()));
    }
    // The last digits of a float must come back, or its hash is another.
    let evidence = pgrunbook_engine::Evidence::of("floats").fact("a", 0.1 + 0.2).fact("b", 1.797_693_134_862_315_7e308);
    let outcome = pgrunbook_engine::journal::Outcome::Done { evidence, recovered: false };
    let (step, direction) = ("s".parse().unwrap(), pgrunbook_engine::journal::Direction::Forward);
    let event = Event::Outcome { step, direction, attempt: 1, outcome };
    events.push(Sealed::seal(event, Timestamp::UNIX_EPOCH, events.last()));
    journal.append("r", 0, &events).await.unwrap();
    let read = journal.read("r").await.unwrap();
    assert_eq!(read, events);
    assert!(read.last().unwrap().follows(read.iter().nth_back(1)));
}
