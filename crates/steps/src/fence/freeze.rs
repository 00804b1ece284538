//! The budget of a freeze: writers wait for us no longer than was promised, whatever this process is doing.
//!
//! A freeze is begun with its undo (lift the fence, resume the poolers). Who comes first decides, under one lock: a switch
//! that disarms it, or the budget's end, which runs the undo once. If the process dies, the fence stands, and
//! `resume` or `pgrunbook fence drop` take over.
//!
//! A freeze belongs to a run. A process that leaves the run gives up what no switch has ended ([`super::let_go`]), and what was
//! undone behind a step's outcome stands in the run's folder, so that no later process switches traffic to a closed side.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgrunbook_engine::Clock;
use pgrunbook_engine::step::Direction;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Whose freeze it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    pub run: String,
    /// The step that froze.
    pub step: String,
    /// A way back has switches of its own: they end what was frozen on it, and nothing else.
    pub direction: Direction,
    /// What is frozen, by the names that a switch may say.
    pub schemas: Vec<String>,
    /// The run's folder; `None`: what became of it is not kept.
    pub folder: Option<PathBuf>,
}

impl Whose {
    fn file(&self) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{}.undone", self.step)))
    }

    /// Whether a switch that names this schema means it; one that names none means any.
    fn is_meant(&self, schema: Option<&str>) -> bool {
        schema.is_none_or(|schema| self.schemas.iter().any(|own| own == schema))
    }
}

/// A freeze that was undone behind its step's outcome, as the run's folder keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Undone {
    pub step: String,
    pub direction: Direction,
    pub schemas: Vec<String>,
    pub why: String,
}

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what step `{}` froze was undone, since {}: writers are where they were", self.step, self.why)
    }
}

/// Those of a run, by step.
pub(super) fn undone(folder: &Path) -> Vec<Undone> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let read = |path: PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
    let mut found: Vec<Undone> =
        files.filter(|path| path.extension().is_some_and(|end| end == "undone")).filter_map(read).collect();
    found.sort_by(|one, other| one.step.cmp(&other.step));
    found
}

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
    whose: Whose,
    clock: Arc<dyn Clock>,
    begun: Instant,
    budget: Duration,
    state: Mutex<State>,
    ended: watch::Sender<bool>,
    /// Somebody was told how it ended.
    told: AtomicBool,
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
                // The caller tells it.
                freeze.is_news();
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
        write!(f, "Freeze({}, {:?})", self.0.whose.schemas.join("+"), self.0.budget)
    }
}

/// The freezes of this process that are under way, and how those of runs at work ended, in the order in which they began.
static CURRENT: Mutex<Vec<Freeze>> = Mutex::new(Vec::new());

/// The freeze of a schema that is under way in this process, or ended last.
pub fn current(schema: &str) -> Option<Freeze> {
    lock(&CURRENT).iter().rev().find(|freeze| freeze.0.whose.is_meant(Some(schema))).cloned()
}

/// A run's freezes in this process, in the order in which they began.
pub(crate) fn of_run(run: &str) -> Vec<Freeze> {
    lock(&CURRENT).iter().filter(|freeze| freeze.0.whose.run == run).cloned().collect()
}

/// Forgets a run's freezes that have ended: what was undone stands in the run's folder.
pub(super) fn forget_ended(run: &str) {
    lock(&CURRENT).retain(|freeze| !(freeze.0.whose.run == run && *freeze.0.ended.borrow()));
}

/// Gives up what a run froze of these schemas, if it did and no switch has ended it.
pub(crate) async fn give_up_of(run: &str, schemas: &[String]) {
    for freeze in of_run(run).into_iter().filter(|one| schemas.iter().any(|name| one.0.whose.is_meant(Some(name)))) {
        let _ = freeze.give_up().await;
        freeze.is_news();
    }
}

/// Forgets how an earlier freeze of the same ended, if it has: one that is under way stays.
pub(super) fn forget(whose: &Whose) {
    let is_same = |one: &Whose| one.run == whose.run && one.schemas.iter().any(|name| whose.schemas.contains(name));
    lock(&CURRENT).retain(|freeze| !(is_same(&freeze.0.whose) && *freeze.0.ended.borrow()));
    if let Some(file) = whose.file() {
        let _ = std::fs::remove_file(file);
    }
}

/// Why a switch may not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSwitch {
    /// In this process.
    #[error("{0}")]
    Thawed(Thaw),
    /// By a process before this one, as the run's folder says.
    #[error("{0}")]
    Undone(String),
    #[error("{} freezes of this run are under way ({}), and the switch does not say which it ends", .0.len(), .0.join(", "))]
    Several(Vec<String>),
}

/// Claims the freeze that a switch ends: that of the schema which it names; else the one that its run has under way.
/// `None`: nothing of the run is frozen, or another switch came before.
///
/// # Errors
/// [`NoSwitch`]: then nothing may be switched.
pub async fn claim(
    run: &str,
    direction: Direction,
    schema: Option<&str>,
    folder: &Path,
) -> Result<Option<Claim>, NoSwitch> {
    let (mut all, mut kept) = (of_run(run), undone(folder));
    all.retain(|one| one.0.whose.direction == direction);
    kept.retain(|one| one.direction == direction);
    let named = |name: &str| {
        all.iter().any(|one| one.0.whose.is_meant(Some(name)))
            || kept.iter().any(|one| one.schemas.iter().any(|own| own == name))
    };
    // A name that nothing frozen has must not leave a freeze running behind a switch.
    let schema = schema.filter(|name| named(name));
    let meant: Vec<&Freeze> = all.iter().filter(|one| one.0.whose.is_meant(schema)).collect();
    if let Some((freeze, thaw)) = meant.iter().find_map(|freeze| Some((freeze, freeze.ended()?))) {
        freeze.is_news();
        return Err(NoSwitch::Thawed(thaw));
    }
    let open: Vec<&Freeze> = meant.into_iter().filter(|freeze| !*freeze.0.ended.borrow()).collect();
    match open.as_slice() {
        [] => {
            let is_meant = |one: &&Undone| schema.is_none_or(|schema| one.schemas.iter().any(|own| own == schema));
            match kept.iter().find(is_meant) {
                Some(undone) => Err(NoSwitch::Undone(undone.to_string())),
                None => Ok(None),
            }
        }
        [freeze] => freeze.claim().await.map_err(NoSwitch::Thawed),
        several => Err(NoSwitch::Several(several.iter().map(|one| one.0.whose.schemas.join("+")).collect())),
    }
}

/// A panic elsewhere must not keep writers out.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Freeze {
    /// Begins a freeze. When `budget` is over and nobody has disarmed it, `undo` runs, once, on a task of its own.
    ///
    /// Call it before the first writer waits: before PAUSE and the fence.
    pub fn begin(whose: Whose, budget: Duration, clock: Arc<dyn Clock>, undo: Undo) -> Self {
        forget(&whose);
        let run = whose.run.clone();
        let freeze = Self(Arc::new(Shared {
            whose,
            begun: clock.instant(),
            clock,
            budget,
            state: Mutex::new(State::Frozen(undo)),
            ended: watch::Sender::new(false),
            told: AtomicBool::new(false),
        }));
        {
            let mut current = lock(&CURRENT);
            // Another run's that ended are asked for by nobody.
            current.retain(|one| one.0.whose.run == run || !*one.0.ended.borrow());
            current.push(freeze.clone());
        }
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
        // Before it is begun: it may be cut short.
        self.keep_undone(expired);
        let undone = match tokio::spawn(undo()).await {
            Ok(undone) => undone,
            Err(error) => Err(format!("the undo was cut short: {error}")),
        };
        *lock(&self.0.state) = State::Thawed(Thaw { after: self.elapsed(), expired, undone });
        self.0.ended.send_replace(true);
    }

    /// Leaves word for later processes. What cannot be kept is still known in this one.
    fn keep_undone(&self, expired: bool) {
        let whose = &self.0.whose;
        let why = if expired { "its budget was over" } else { "the process left the run before traffic was switched" };
        let (step, schemas) = (whose.step.clone(), whose.schemas.clone());
        let undone = Undone { step, direction: whose.direction, schemas, why: why.to_owned() };
        if let (Some(path), Ok(text)) = (whose.file(), serde_json::to_vec(&undone)) {
            let _ = super::doors::write_whole(&path, &text);
        }
    }

    /// Whether nobody has been told how it ended; asked once.
    pub(super) fn is_news(&self) -> bool {
        !self.0.told.swap(true, Ordering::SeqCst)
    }

    /// The step that froze.
    pub(super) fn step(&self) -> &str {
        &self.0.whose.step
    }

    /// Waits until it was disarmed or undone.
    async fn has_ended(&self) {
        let mut ended = self.0.ended.subscribe();
        // The sender lives as long as this.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}
