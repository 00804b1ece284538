//! Has people told of a run while it goes on: what is owed is delivered beside the steps, promised updates are watched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::{Event, JournalError};
use crate::notice::{Messenger, Occasion, Said, Scene};
use crate::remind::{self, Due, Promised};
use crate::run::{RunEnd, Waiting};
use crate::state::{RunState, StepStatus};
use crate::step::{Cancel, Direction};
use crate::writer::Writer;

/// How often the folder is looked at in which other processes leave what a person said.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long after a delivery that failed the next step tries it again. Occasions do so at once.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What a call of run or rollback tells, and to whom.
pub(crate) struct Telling {
    messenger: Arc<dyn Messenger>,
    clock: Arc<dyn Clock>,
    operator: String,
    /// Where other processes leave what a person said.
    inbox: PathBuf,
    /// Deliveries that go on beside the run. Dropped with it: what is not recorded stays owed.
    under_way: JoinSet<Delivery>,
    /// Keys of these.
    going: BTreeSet<String>,
    /// When a key failed last in this process.
    failed: BTreeMap<String, Instant>,
    /// Files that cannot be read: looked at once.
    unreadable: BTreeSet<PathBuf>,
}

/// A notice's key, and what became of it.
type Delivery = (String, Result<String, String>);

/// What happened beside the run.
pub(crate) enum Word {
    /// A delivery came to its end.
    Delivered(Delivery),
    /// It is time to look at the promised update, and for what other processes said.
    Look,
}

impl Telling {
    pub fn new(engine: &Engine, artifacts: &Path) -> Self {
        Self {
            messenger: Arc::clone(&engine.messenger),
            clock: Arc::clone(&engine.clock),
            operator: engine.operator.principal.clone(),
            inbox: inbox(artifacts),
            under_way: JoinSet::new(),
            going: BTreeSet::new(),
            failed: BTreeMap::new(),
            unreadable: BTreeSet::new(),
        }
    }

    /// What can be told of the run now.
    pub fn scene(&self, writer: &Writer<'_>) -> Scene {
        remind::scene(&*self.messenger, &writer.run, &writer.state, &self.operator, self.clock.now())
    }

    /// Notes what is owed on an occasion, for the next append: durable together with what it tells of. What was owed before
    /// is not owed again. `reason`: where the run's own is not meant.
    pub fn owe(
        &self,
        writer: &mut Writer<'_>,
        occasion: Occasion,
        more: Option<&str>,
        reason: Option<String>,
    ) -> Result<(), JournalError> {
        if self.messenger.is_silent() {
            return Ok(());
        }
        let mut scene = self.scene(writer);
        scene.reason = reason.or(scene.reason);
        for notice in self.messenger.compose(occasion, more, &scene) {
            if !writer.state.notices.iter().any(|owed| owed.notice.key == notice.key) {
                writer.note(Event::NoticeDue { notice, by: None })?;
            }
        }
        Ok(())
    }

    /// Notes what is owed at the end of a call.
    pub fn owe_end(&self, writer: &mut Writer<'_>, end: &RunEnd) -> Result<(), JournalError> {
        let attempt = |step, direction| {
            let attempt = writer.state.step(step, direction).map_or(0, StepStatus::attempt);
            let undo = if direction == Direction::Back { "undo-" } else { "" };
            format!("{undo}{step}.{attempt}")
        };
        let (occasion, more, reason) = match end {
            // Told with the event itself.
            RunEnd::Completed | RunEnd::RolledBack => return Ok(()),
            // Whoever stopped it knows.
            RunEnd::Stopped { .. } => return Ok(()),
            RunEnd::Failed { step, direction, message, .. } => {
                (Occasion::Failed, attempt(step, *direction), message.clone())
            }
            RunEnd::Unknown { step, direction, why } => (Occasion::Failed, attempt(step, *direction), why.clone()),
            RunEnd::RollbackBlocked { step, message, .. } => {
                (Occasion::Failed, attempt(step, Direction::Back), format!("the way back is blocked: {message}"))
            }
            RunEnd::Refused { item, text, note, .. } => {
                let note = note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
                (Occasion::Failed, item.to_string(), format!("\"{text}\" was refused{note}"))
            }
            RunEnd::Waiting { on } => {
                let (more, what) = waits_for(on);
                (Occasion::Waiting, more, what)
            }
        };
        self.owe(writer, occasion, Some(&more), Some(reason))
    }

    /// Begins to deliver what is owed and durable. `eager`: also what failed a moment ago.
    pub fn send(&mut self, state: &RunState, eager: bool) {
        let now = self.clock.instant();
        for owed in state.notices.iter().filter(|owed| owed.delivered.is_none()) {
            let key = &owed.notice.key;
            let waits = self.failed.get(key).is_some_and(|failed| now.duration_since(*failed) < AGAIN_AFTER);
            if (waits && !eager) || !self.going.insert(key.clone()) {
                continue;
            }
            let (messenger, notice) = (Arc::clone(&self.messenger), owed.notice.clone());
            self.under_way.spawn(async move {
                let delivered = messenger.deliver(&notice).await;
                (notice.key, delivered)
            });
        }
    }

    /// Waits for what happens beside the run.
    ///
    /// Cancellation: nothing is lost; a delivery that has ended is told by the next call.
    pub async fn next(&mut self, state: &RunState) -> Word {
        if self.messenger.is_silent() {
            return std::future::pending().await;
        }
        let now = self.clock.now();
        let look = match Promised::of(&*self.messenger, state).map(|promised| promised.due(now)) {
            Some(Due::In(wait)) => wait.min(LOOK_EVERY),
            Some(Due::Now | Due::Overdue) | None => LOOK_EVERY,
        };
        let clock = Arc::clone(&self.clock);
        tokio::select! {
            Some(ended) = self.under_way.join_next(), if !self.under_way.is_empty() => match ended {
                Ok(delivery) => Word::Delivered(delivery),
                // It panicked, which is a mistake in the messenger: what it was to deliver stays owed.
                Err(_) => Word::Look,
            },
            () = clock.sleep(look) => Word::Look,
        }
    }

    /// Records what happened, and does what follows from it.
    pub async fn take(&mut self, word: Word, writer: &mut Writer<'_>) -> Result<(), EngineError> {
        match word {
            Word::Delivered(delivery) => self.record(delivery, writer).await,
            Word::Look => self.look(writer).await,
        }
    }

    /// Does a work that takes a person's time, and meanwhile what else there is to do.
    pub async fn meanwhile<T>(
        &mut self,
        writer: &mut Writer<'_>,
        work: impl Future<Output = T>,
    ) -> Result<T, EngineError> {
        tokio::pin!(work);
        loop {
            let word = tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                word = self.next(&writer.state) => word,
            };
            self.take(word, writer).await?;
        }
    }

    /// Waits until every delivery under way has come to its end, and records it.
    /// What is owed and was not delivered is tried once more: after this call nothing may happen for long.
    pub async fn settle(&mut self, writer: &mut Writer<'_>, cancel: &Cancel) -> Result<(), EngineError> {
        if self.messenger.is_silent() {
            return Ok(());
        }
        self.take_in(writer).await?;
        self.send(&writer.state, true);
        self.wait_for_all(writer, cancel).await?;
        if !self.failed.is_empty() && !cancel.is_stopping() {
            self.clock.sleep(LOOK_EVERY).await;
            self.send(&writer.state, true);
            self.wait_for_all(writer, cancel).await?;
        }
        Ok(())
    }

    async fn wait_for_all(&mut self, writer: &mut Writer<'_>, cancel: &Cancel) -> Result<(), EngineError> {
        loop {
            let ended = tokio::select! {
                ended = self.under_way.join_next() => ended,
                // They stay owed.
                () = cancel.aborting() => return Ok(()),
            };
            match ended {
                Some(Ok(delivery)) => self.record(delivery, writer).await?,
                Some(Err(_)) => {}
                None => return Ok(()),
            }
        }
    }

    async fn record(&mut self, delivery: Delivery, writer: &mut Writer<'_>) -> Result<(), EngineError> {
        let (key, delivered) = delivery;
        self.going.remove(&key);
        let event = match delivered {
            Ok(said) => {
                self.failed.remove(&key);
                Event::NoticeSent { key, delivered: true, said }
            }
            Err(said) => {
                self.failed.insert(key.clone(), self.clock.instant());
                Event::NoticeSent { key, delivered: false, said }
            }
        };
        Ok(writer.write(event).await?)
    }

    async fn look(&mut self, writer: &mut Writer<'_>) -> Result<(), EngineError> {
        // First: what a person said may be the update that is due.
        self.take_in(writer).await?;
        let Some(promised) = Promised::of(&*self.messenger, &writer.state) else { return Ok(()) };
        match promised.due(self.clock.now()) {
            Due::In(_) => {}
            Due::Now => writer.write(Event::UpdateDue { channel: promised.channel }).await?,
            // It is said once for each word that is missing: what was not delivered is tried again by its own rule.
            Due::Overdue if promised.is_told => self.send(&writer.state, false),
            Due::Overdue => {
                self.owe(writer, Occasion::Overdue, Some(&promised.more()), None)?;
                writer.flush().await?;
                self.send(&writer.state, true);
            }
        }
        Ok(())
    }

    /// Records what other processes left for this one.
    async fn take_in(&mut self, writer: &mut Writer<'_>) -> Result<(), EngineError> {
        for path in left_in(&self.inbox) {
            if self.unreadable.contains(&path) {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let Ok(said) = serde_json::from_str::<Said>(&text) else {
                // No file of ours: they are put in place whole.
                self.unreadable.insert(path);
                continue;
            };
            // One that was recorded by a process that died before it could remove the file.
            if !writer.state.notices.iter().any(|told| told.notice.key == said.notice.key) {
                for event in said.events() {
                    writer.note(event)?;
                }
                writer.flush().await?;
            }
            let _ = std::fs::remove_file(&path);
        }
        Ok(())
    }
}

impl Said {
    /// What is recorded of it.
    pub(crate) fn events(self) -> [Event; 2] {
        let Self { notice, by, delivered, said } = self;
        let key = notice.key.clone();
        [Event::NoticeDue { notice, by: Some(by) }, Event::NoticeSent { key, delivered, said }]
    }
}

/// The folder in which other processes leave what a person said of a run.
pub(crate) fn inbox(artifacts: &Path) -> PathBuf {
    artifacts.join("said")
}

/// What lies in it, in the order in which it was said.
fn left_in(inbox: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(inbox).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    paths.sort();
    paths
}

/// What tells one pause from another in the same run (what is waited for, and not how often), and the same in words.
fn waits_for(on: &Waiting) -> (String, String) {
    match on {
        Waiting::Demands { environment, missing, .. } => {
            let demanded: Vec<_> = missing.iter().map(|demand| demand.demanded.as_str()).collect();
            ("demands".to_owned(), format!("environment `{environment}` demands {}", demanded.join("; ")))
        }
        Waiting::Item { item, text, .. } => (item.to_string(), format!("\"{text}\"")),
        Waiting::Approvals { why, .. } => ("approvals".to_owned(), format!("approvals are missing: {why}")),
        Waiting::Confirmation { .. } => ("confirmation".to_owned(), "the confirmation text was not given".to_owned()),
        Waiting::Acceptance { what } => ("acceptance".to_owned(), what.clone()),
        Waiting::Step { step, message, .. } => (step.to_string(), message.clone()),
    }
}
