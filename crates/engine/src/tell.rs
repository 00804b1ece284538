//! Has people told of a run while it goes on: what is owed is delivered beside the steps, promised updates are watched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::{Event, JournalError};
use crate::notice::{Messenger, Occasion, Promise, Said, Scene};
use crate::run::{RunEnd, Waiting};
use crate::state::{RunState, StepStatus};
use crate::step::{Cancel, Direction};
use crate::writer::Writer;

/// How often the folder is looked at in which other processes leave what a person said.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long after a delivery that failed the next step tries it again. Occasions do so at once.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

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

/// What is to be done about a promised update.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Nothing, for so long.
    In(Duration),
    /// The operator is reminded.
    Now,
    /// The channel is told.
    Overdue,
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
        let mut scene = Scene::of(&writer.run, &writer.state, &self.operator);
        if let Some(promise) = self.messenger.promise(writer.state.direction()) {
            scene.update_due = Some(later(self.clock.now(), promise.every));
        }
        scene
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
        let look = match self.due(state) {
            Some((_, Due::In(wait))) => wait.min(LOOK_EVERY),
            Some((_, Due::Now | Due::Overdue)) | None => LOOK_EVERY,
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
        match self.due(&writer.state) {
            Some((promise, Due::Now)) => {
                writer.write(Event::UpdateDue { channel: promise.channel }).await?;
            }
            Some((promise, Due::Overdue)) => {
                let told = writer.state.notices.iter().filter(|told| told.notice.occasion == Occasion::Overdue);
                let more = (told.filter(|told| told.notice.channel == promise.channel).count() + 1).to_string();
                self.owe(writer, Occasion::Overdue, Some(&more), None)?;
                writer.flush().await?;
                self.send(&writer.state, true);
            }
            Some((_, Due::In(_))) | None => {}
        }
        Ok(())
    }

    /// Whether a promised update is due, by the last word in its channel.
    fn due(&self, state: &RunState) -> Option<(Promise, Due)> {
        // Nothing is promised of a run that has ended, or before it has begun.
        let begun = state.turned_back.is_some() || !state.steps.is_empty();
        if state.ended.is_some() || !begun {
            return None;
        }
        let promise = self.messenger.promise(state.direction())?;
        let last = state.notices.iter().rev().find(|told| told.notice.channel == promise.channel)?.at;
        let due = due(self.clock.now(), last, state.reminded.get(&promise.channel).copied(), &promise);
        Some((promise, due))
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

fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// `last`: when the channel heard a word last; `reminded`: when the operator was reminded last.
fn due(now: Timestamp, last: Timestamp, reminded: Option<Timestamp>, promise: &Promise) -> Due {
    let due = later(last, promise.every);
    let overdue = later(due, promise.grace);
    let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
    if now < due {
        return Due::In(until(due));
    }
    if now >= overdue {
        return Due::Overdue;
    }
    match reminded {
        Some(reminded) if reminded >= due => Due::In(until(overdue)),
        _ => Due::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_is_due_once_and_overdue_after_the_grace() {
        let at = |minute: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let promise = Promise { channel: "ops".to_owned(), every: minutes(15), grace: minutes(5) };
        let due = |now, last, reminded: Option<i64>| due(at(now), at(last), reminded.map(at), &promise);
        assert_eq!(due(10, 0, None), Due::In(minutes(5)));
        assert_eq!(due(15, 0, None), Due::Now);
        assert_eq!(due(16, 0, Some(15)), Due::In(minutes(4)), "reminded once");
        assert_eq!(due(20, 0, Some(15)), Due::Overdue);
        assert_eq!(due(20, 18, Some(15)), Due::In(minutes(13)), "a word in the channel is an update");
        assert_eq!(due(33, 18, Some(15)), Due::Now, "a reminder counts for one update");
        assert_eq!(due(5, 10, None), Due::In(minutes(20)), "a clock that was set back");
    }
}
