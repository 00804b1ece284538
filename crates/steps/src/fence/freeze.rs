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
    /// By [`Freeze::claim`]: a switch is under way, and the budget's end does not matter any more.
    Claimed(Undo),
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

/// A switch that is under way. Dropped without [`Claim::switched`], the freeze is undone: nothing was switched.
#[derive(Debug)]
pub struct Claim(Option<Freeze>);

impl Claim {
    /// It is switched. The freeze's length.
    pub fn switched(mut self) -> Duration {
        let Some(freeze) = self.0.take() else { return Duration::ZERO };
        let after = freeze.settle_claim(true).unwrap_or_default();
        freeze.0.ended.send_replace(true);
        after
    }

    /// It was not switched: the undo runs now.
    ///
    /// # Errors
    /// Never as long as this is the claim: the length, if the switch was made elsewhere.
    pub async fn give_up(mut self) -> Result<Thaw, Duration> {
        match self.0.take() {
            Some(freeze) => {
                freeze.settle_claim(false);
                freeze.give_up().await
            }
            None => Err(Duration::ZERO),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(freeze) = self.0.take() {
            freeze.settle_claim(false);
            // Outside of a runtime there is nobody who could undo it: the process ends, and the fence stands.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { freeze.run_undo(false).await });
            }
        }
    }
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

/// Forgets how an earlier freeze of a schema ended, if it has: one that is under way stays.
pub(super) fn forget(schema: &str) {
    let mut current = lock(&CURRENT);
    if current.get(schema).is_some_and(|freeze| *freeze.0.ended.borrow()) {
        current.remove(schema);
    }
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

    /// The switch begins: from here on the budget's end undoes nothing, so that writers are never let go in the middle of it.
    /// `None`: another switch was made before.
    ///
    /// # Errors
    /// [`Thaw`] if the undo came first; it is waited for, so that nothing is half undone when this returns.
    pub async fn claim(&self) -> Result<Option<Claim>, Thaw> {
        loop {
            {
                let mut state = lock(&self.0.state);
                match std::mem::replace(&mut *state, State::Thawing) {
                    State::Frozen(undo) => {
                        *state = State::Claimed(undo);
                        return Ok(Some(Claim(Some(self.clone()))));
                    }
                    other => *state = other,
                }
                if let State::Disarmed(_) = &*state {
                    return Ok(None);
                }
            }
            self.has_ended().await;
            if let Some(thaw) = self.ended() {
                return Err(thaw);
            }
        }
    }

    /// The switch is made: the budget does not matter any more. The freeze's length. Safe to call again.
    ///
    /// # Errors
    /// As [`Freeze::claim`].
    pub async fn disarm(&self) -> Result<Duration, Thaw> {
        if let Some(claim) = self.claim().await? {
            return Ok(claim.switched());
        }
        match &*lock(&self.0.state) {
            State::Disarmed(after) => Ok(*after),
            _ => Ok(self.elapsed()),
        }
    }

    /// From [`Freeze::claim`] to the end: what was claimed is switched, or thawed.
    fn settle_claim(&self, switched: bool) -> Option<Duration> {
        let mut state = lock(&self.0.state);
        match std::mem::replace(&mut *state, State::Thawing) {
            State::Claimed(undo) if switched => {
                let after = self.elapsed();
                *state = State::Disarmed(after);
                drop(undo);
                Some(after)
            }
            State::Claimed(undo) => {
                *state = State::Frozen(undo);
                None
            }
            other => {
                *state = other;
                None
            }
        }
    }

    /// Gives the freeze up now: the undo runs, unless it was disarmed. A switch that is under way is waited for.
    ///
    /// # Errors
    /// How long the freeze took, if the switch was made.
    pub async fn give_up(&self) -> Result<Thaw, Duration> {
        // On a task of its own: the undo goes on if the caller is dropped.
        let this = self.clone();
        let _ = tokio::spawn(async move { this.run_undo(false).await }).await;
        self.has_ended().await;
        match &*lock(&self.0.state) {
            State::Thawed(thaw) => Ok(thaw.clone()),
            State::Disarmed(after) => Err(*after),
            State::Frozen(_) | State::Claimed(_) | State::Thawing => unreachable!("it ended"),
        }
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
}
