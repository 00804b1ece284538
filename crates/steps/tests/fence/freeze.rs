//! The budget of a freeze: with a clock that is moved by hand, and on a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use pgrunbook_engine::step::Direction;
use pgrunbook_engine::{Cancel, Clock};
use pgrunbook_postgres::Session;
use pgrunbook_steps::fence::freeze::{Undo, current};
use pgrunbook_steps::fence::{self, Freeze, Lift, Standing, Whose};
use tokio::sync::watch;

use super::{Legacy, assert_refused};

/// Stands still until it is moved.
struct HandClock {
    begun: Instant,
    moved: watch::Sender<Duration>,
}

impl HandClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), moved: watch::Sender::new(Duration::ZERO) })
    }

    fn advance(&self, by: Duration) {
        self.moved.send_modify(|moved| *moved += by);
    }
}

#[async_trait]
impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn instant(&self) -> Instant {
        self.begun + *self.moved.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let end = *self.moved.borrow() + duration;
        self.moved.subscribe().wait_for(|moved| *moved >= end).await.unwrap();
    }
}

/// Counts how often it was run.
fn counting(count: &Arc<AtomicUsize>, answer: Result<(), String>) -> Undo {
    let count = count.clone();
    Box::new(move || {
        Box::pin(async move {
            count.fetch_add(1, Ordering::SeqCst);
            answer
        })
    })
}

fn whose(schema: &str) -> Whose {
    Whose {
        run: "run".to_owned(),
        step: "stop".to_owned(),
        direction: Direction::Forward,
        schemas: vec![schema.to_owned()],
        folder: None,
    }
}

const BUDGET: Duration = Duration::from_secs(5);

#[tokio::test]
async fn disarmed_in_time_nothing_is_undone() {
    let (clock, count) = (HandClock::new(), Arc::new(AtomicUsize::new(0)));
    let freeze = Freeze::begin(whose("disarmed"), BUDGET, clock.clone(), counting(&count, Ok(())));
    tokio::task::yield_now().await;
    clock.advance(Duration::from_millis(4_999));
    assert_eq!(freeze.left(), Duration::from_millis(1));
    let found = current("disarmed").unwrap();
    assert_eq!(found.disarm().await, Ok(Duration::from_millis(4_999)));
    clock.advance(BUDGET);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    assert_eq!(freeze.disarm().await, Ok(Duration::from_millis(4_999)));
    assert_eq!(freeze.give_up().await, Err(Duration::from_millis(4_999)));
    assert_eq!(freeze.ended(), None);
}

#[tokio::test]
async fn expired_it_is_undone_once_and_a_later_switch_learns_of_it() {
    let (clock, count) = (HandClock::new(), Arc::new(AtomicUsize::new(0)));
    let freeze =
        Freeze::begin(whose("expired"), BUDGET, clock.clone(), counting(&count, Err("db1 is gone".to_owned())));
    tokio::task::yield_now().await;
    clock.advance(BUDGET);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let thaw = freeze.disarm().await.unwrap_err();
    assert!(thaw.expired && thaw.undone == Err("db1 is gone".to_owned()), "{thaw:?}");
    assert!(thaw.to_string().contains("the undo FAILED, writers may still be held: db1 is gone"), "{thaw}");
    assert_eq!(freeze.give_up().await, Ok(thaw.clone()));
    assert_eq!((count.load(Ordering::SeqCst), freeze.ended()), (1, Some(thaw)));
}

/// Seeds only decide who of the two is spawned first; the assertion holds for every order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_switch_and_the_budgets_end_exactly_one_wins() {
    let mut won = [0, 0];
    for round in 0..200 {
        let (clock, count) = (HandClock::new(), Arc::new(AtomicUsize::new(0)));
        let freeze = Freeze::begin(whose(&format!("race-{round}")), BUDGET, clock.clone(), counting(&count, Ok(())));
        let switch = {
            let freeze = freeze.clone();
            tokio::spawn(async move { freeze.disarm().await })
        };
        clock.advance(BUDGET);
        let disarmed = switch.await.unwrap().is_ok();
        let undone = freeze.give_up().await.is_ok();
        assert_ne!(disarmed, undone, "round {round}");
        assert_eq!(count.load(Ordering::SeqCst), usize::from(undone));
        won[usize::from(undone)] += 1;
    }
    println!("the switch won {}, the budget {}", won[0], won[1]);
}

#[tokio::test]
async fn on_a_server_the_fence_is_lifted_when_the_budget_is_over() {
    let legacy = Legacy::new().await;
    let undo: Undo = {
        let options = legacy.options.clone();
        Box::new(move || {
            Box::pin(async move {
                let session = Session::connect(&options, "thaw").await.map_err(|error| error.to_string())?;
                let lift = Lift { schema: "s", by: "budget", ..Lift::default() };
                let lifted = fence::unfence(&session, &lift, &Cancel::default()).await;
                lifted.map(drop).map_err(|error| error.to_string())
            })
        })
    };
    let clock = HandClock::new();
    let freeze = Freeze::begin(whose(&legacy.options.database), BUDGET, clock.clone(), undo);
    legacy.set("budget").await.unwrap();
    assert_refused(&legacy.session, "DELETE FROM s.acct WHERE id = 1").await;
    clock.advance(BUDGET);
    let begun = Instant::now();
    while freeze.ended().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it was never undone");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(legacy.standing().await, Standing::Unfenced);
    legacy.session.execute("DELETE FROM s.acct WHERE id = 1").await.unwrap();
    assert!(freeze.disarm().await.is_err());
}
