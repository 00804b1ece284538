//! The budget of a freeze: writers wait for us no longer than was promised, whatever this process is doing.
//!
//! A freeze is begun with its undo (lift the fence, resume the poolers). Who comes first decides, under one lock: a switch
//! that disarms it, or the budget's end, which runs the undo once. If the process dies, the fence stands, and
//! `resume` or `pgrunbook fence drop` take over.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgrunbook_engine::Clock;
use tokio::sync::watch;

/// What thaws: lifts the fence and resumes the poolers. Its error says what a person must do.
pub type Undo = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send>;

/// How a freeze ended without a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thaw {
    /// From the beginning to the end of the undo.
    pub after: Duration,
    /// The budget was over; else somebody gave the freeze up.
    pub expired: bool,
    /// What the undo said.
    pub undone: Result<(), String>,
}

impl fmt::Display for Thaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.expired { "its budget was over" } else { "it was given up" };
        write!(f, "the freeze was undone after {} ms, since {why}", self.after.as_millis())?;
        match &self.undone {
            Ok(()) => write!(f, ": writers go on where they were"),
            Err(error) => write!(f, "; and the undo FAILED, writers may still be held: {error}"),
        }
    }
}

impl std::error::Error for Thaw {}

/// Who set it is beside each. Changed under one lock.
enum State {
    /// By [`Freeze::begin`].
    Frozen(Undo),
    /// By whoever took the undo out.
    Thawing,
    /// By the undo's end.
    Thawed(Thaw),
    /// By [`Freeze::disarm`].
    Disarmed(Duration),
}

struct Shared {
    name: String,
    clock: Arc<dyn Clock>,
    begun: Instant,
    budget: Duration,
    state: Mutex<State>,
    ended: watch::Sender<bool>,
}

/// A freeze that is under way. Clones are the same freeze; dropping them all does not end it.
#[derive(Clone)]
pub struct Freeze(Arc<Shared>);

impl fmt::Debug for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Freeze({}, {:?})", self.0.name, self.0.budget)
    }
}

/// The freezes of this process, by schema.
static CURRENT: Mutex<BTreeMap<String, Freeze>> = Mutex::new(BTreeMap::new());

/// The freeze of a schema that is under way in this process, or ended last.
pub fn current(schema: &str) -> Option<Freeze> {
    lock(&CURRENT).get(schema).cloned()
}

/// A panic elsewhere must not keep writers out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Freeze {
    /// Begins a freeze of `schema`. When `budget` is over and nobody has disarmed it, `undo` runs, once, on a task of its own.
    ///
    /// Call it before the first writer waits: before PAUSE and the fence.
    pub fn begin(schema: &str, budget: Duration, clock: Arc<dyn Clock>, undo: Undo) -> Self {
        let freeze = Self(Arc::new(Shared {
            name: schema.to_owned(),
            begun: clock.instant(),
            clock,
            budget,
            state: Mutex::new(State::Frozen(undo)),
            ended: watch::Sender::new(false),
        }));
        lock(&CURRENT).insert(schema.to_owned(), freeze.clone());
        let guard = freeze.clone();
        tokio::spawn(async move {
            let expired = tokio::select! {
                () = guard.0.clock.sleep(budget) => true,
                () = guard.has_ended() => false,
            };
            if expired {
                guard.run_undo(true).await;
            }
        });
        freeze
    }

    /// How much of the budget is left.
    pub fn left(&self) -> Duration {
        self.0.budget.saturating_sub(self.elapsed())
    }

    fn elapsed(&self) -> Duration {
        self.0.clock.instant().saturating_duration_since(self.0.begun)
    }

    /// The switch is made: the budget does not matter any more. The freeze's length. Safe to call again.
    ///
    /// # Errors
    /// [`Thaw`] if the undo came first; it is waited for, so that nothing is half undone when this returns.
    pub async fn disarm(&self) -> Result<Duration, Thaw> {
        let disarmed = {
            let mut state = lock(&self.0.state);
            match &*state {
                State::Frozen(_) => {
                    let after = self.elapsed();
                    *state = State::Disarmed(after);
                    Some(after)
                }
                State::Disarmed(after) => Some(*after),
                State::Thawing | State::Thawed(_) => None,
            }
        };
        match disarmed {
            Some(after) => {
                self.0.ended.send_replace(true);
                Ok(after)
            }
            None => Err(self.thawed().await),
        }
    }

    /// Gives the freeze up now: the undo runs, unless it was disarmed. `Err`: it was disarmed.
    ///
    /// # Errors
    /// How long the freeze took, if the switch was made.
    pub async fn give_up(&self) -> Result<Thaw, Duration> {
        // On a task of its own: the undo goes on if the caller is dropped.
        let this = self.clone();
        let _ = tokio::spawn(async move { this.run_undo(false).await }).await;
        if let State::Disarmed(after) = &*lock(&self.0.state) {
            return Err(*after);
        }
        Ok(self.thawed().await)
    }

    /// How it ended, if it was undone.
    pub fn ended(&self) -> Option<Thaw> {
        match &*lock(&self.0.state) {
            State::Thawed(thaw) => Some(thaw.clone()),
            _ => None,
        }
    }

    /// Takes the undo out and runs it; whoever comes second finds none.
    async fn run_undo(&self, expired: bool) {
        let taken = {
            let mut state = lock(&self.0.state);
            match std::mem::replace(&mut *state, State::Thawing) {
                State::Frozen(undo) => Some(undo),
                other => {
                    *state = other;
                    None
                }
            }
        };
        let Some(undo) = taken else { return };
        let undone = match tokio::spawn(undo()).await {
            Ok(undone) => undone,
            Err(error) => Err(format!("the undo was cut short: {error}")),
        };
        *lock(&self.0.state) = State::Thawed(Thaw { after: self.elapsed(), expired, undone });
        self.0.ended.send_replace(true);
    }

    /// Waits until it was disarmed or undone.
    async fn has_ended(&self) {
        let mut ended = self.0.ended.subscribe();
        // The sender lives as long as this.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    async fn thawed(&self) -> Thaw {
        self.has_ended().await;
        self.ended().expect("it ended and was not disarmed, so it was undone")
    }
}
