//! Promised updates: when the next is due, and who is reminded of it while no process is at work on the run.
//!
//! A process that is at work looks by itself (`tell.rs`). One that has stopped (a way back is blocked, a person must act) is gone
//! when an update matters most: then it is said at its end what is due, and whoever wants to be reminded calls
//! [`Engine::remind`] again and again.

use std::time::Duration;

use jiff::Timestamp;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::{Direction, Event, JournalError, Sealed};
use crate::notice::{Messenger, Occasion, Scene, later};
use crate::state::RunState;
use crate::tell::AGAIN_AFTER;

/// The update that is promised of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promised {
    pub channel: String,
    /// When the channel is to hear the next word.
    pub at: Timestamp,
    /// When it is told that none has come.
    pub overdue_at: Timestamp,
    /// When the operator was reminded last.
    reminded: Option<Timestamp>,
    /// Whether the channel was, or is still to be, told that none has come.
    pub(crate) is_told: bool,
    /// How often a channel was told that so far.
    told: usize,
}

/// What is to be done about a promised update.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing, for so long.
    In(Duration),
    /// The operator is reminded.
    Now,
    /// The channel is told.
    Overdue,
}

/// What [`Engine::remind`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reminded {
    /// Nothing is promised: the run has ended, has not begun, or nobody is told of it.
    Nothing,
    /// Another process is at work on the run, and reminds.
    AtWork,
    /// What was to be done about this update is done and recorded.
    Looked(Promised),
}

impl Promised {
    /// By the last word that reached the channel, or by the moment at which the promise began. `None`: nothing is promised of a
    /// run that has ended, before it has begun, or of a rehearsal.
    pub(crate) fn of(messenger: &dyn Messenger, state: &RunState) -> Option<Self> {
        let begun = state.turned_back.is_some() || !state.steps.is_empty();
        if state.ended.is_some() || state.rehearsal || !begun {
            return None;
        }
        let promise = messenger.promise(state.direction())?;
        let mut words = state.notices.iter().filter(|told| told.notice.channel == promise.channel);
        let first = words.clone().next().map(|told| told.at);
        let since = match state.direction() {
            Direction::Back => state.turned_at,
            Direction::Forward => first,
        };
        // A word that did not arrive is no word: whoever listens there has heard nothing.
        let heard = words.clone().filter(|told| told.delivered.is_some()).map(|told| told.at).next_back();
        let last = since.max(heard)?;
        let at = later(last, promise.every);
        let overdue_at = later(at, promise.grace);
        let is_overdue = |occasion| occasion == Occasion::Overdue;
        let told = words.clone().filter(|told| is_overdue(told.notice.occasion)).count();
        let is_told = words.any(|told| is_overdue(told.notice.occasion) && told.at > last);
        let reminded = state.reminded.get(&promise.channel).copied();
        Some(Self { channel: promise.channel, at, overdue_at, reminded, is_told, told })
    }

    pub(crate) fn due(&self, now: Timestamp) -> Due {
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        if now < self.at {
            return Due::In(until(self.at));
        }
        if now >= self.overdue_at {
            return Due::Overdue;
        }
        match self.reminded {
            Some(reminded) if reminded >= self.at => Due::In(until(self.overdue_at)),
            _ => Due::Now,
        }
    }

    /// What tells the next notice that one is overdue from those before.
    pub(crate) fn more(&self) -> String {
        (self.told + 1).to_string()
    }
}

/// What can be told of a run now.
pub(crate) fn scene(messenger: &dyn Messenger, run: &str, state: &RunState, operator: &str, now: Timestamp) -> Scene {
    let promise = messenger.promise(state.direction());
    Scene { update_due: promise.map(|promise| later(now, promise.every)), ..Scene::of(run, state, operator, now) }
}

impl Engine {
    /// The update that is promised of a run in this state, if one is.
    pub fn promised(&self, state: &RunState) -> Option<Promised> {
        Promised::of(&*self.messenger, state)
    }

    /// Does for a run that nobody is at work on what a process at work would do: notes in the journal that an update is due, has
    /// the channel told when it is overdue, and tries again what could not be delivered. Claims nothing: whoever
    /// resumes the run is not in its way.
    ///
    /// # Errors
    /// If the journal cannot be read or written.
    pub async fn remind(&self, run: &str) -> Result<Reminded, EngineError> {
        let events = self.journal.read(run).await?;
        let status = self.status(run).await?;
        if status.holder.is_some() {
            return Ok(Reminded::AtWork);
        }
        let mut state = status.state;
        let now = self.clock.now();
        let Some(promised) = self.promised(&state).filter(|_| !self.messenger.is_silent()) else {
            return Ok(Reminded::Nothing);
        };
        let owed = match promised.due(now) {
            Due::Now => vec![Event::UpdateDue { channel: promised.channel.clone() }],
            Due::Overdue if !promised.is_told => {
                let scene = scene(&*self.messenger, run, &state, &self.operator.principal, now);
                let notices = self.messenger.compose(Occasion::Overdue, Some(&promised.more()), &scene);
                let due = notices.into_iter().map(|mut notice| {
                    for text in [&mut notice.subject, &mut notice.text] {
                        *text = self.redactor.redact(text).into_owned();
                    }
                    Event::NoticeDue { notice, by: None }
                });
                due.collect()
            }
            Due::In(_) | Due::Overdue => Vec::new(),
        };
        if !owed.is_empty() && !self.append_unless_taken(run, &mut state, owed).await? {
            return Ok(Reminded::AtWork);
        }
        let owed: Vec<_> = state.notices.iter().filter(|told| told.delivered.is_none()).cloned().collect();
        for told in owed {
            let key = told.notice.key.clone();
            if last_failure(&events, &key).is_some_and(|failed| now < later(failed, AGAIN_AFTER)) {
                continue;
            }
            let (delivered, said) = match self.messenger.deliver(&told.notice).await {
                Ok(said) => (true, said),
                Err(said) => (false, said),
            };
            let said = self.redactor.redact(&said).into_owned();
            let sent = vec![Event::NoticeSent { key, delivered, said }];
            if !self.append_unless_taken(run, &mut state, sent).await? {
                return Ok(Reminded::AtWork);
            }
        }
        Ok(self.promised(&state).map_or(Reminded::Nothing, Reminded::Looked))
    }

    /// `false`: another process has written meanwhile, and this one has not.
    async fn append_unless_taken(
        &self,
        run: &str,
        state: &mut RunState,
        events: Vec<Event>,
    ) -> Result<bool, EngineError> {
        match self.append_to(run, state, events).await {
            Err(JournalError::Behind | JournalError::Taken(_)) => Ok(false),
            appended => Ok(appended.map(|()| true)?),
        }
    }
}

/// When a notice could not be delivered last.
fn last_failure(events: &[Sealed], key: &str) -> Option<Timestamp> {
    events.iter().rev().find_map(|sealed| match &sealed.event {
        Event::NoticeSent { key: failed, delivered: false, .. } if failed == key => Some(sealed.at),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    #[test]
    fn update_is_due_once_and_overdue_after_the_grace() {
        let at = |minute: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let due = |now, last: i64, reminded: Option<i64>| {
            let promised = Promised {
                channel: "ops".to_owned(),
                at: at(last + 15),
                overdue_at: at(last + 20),
                reminded: reminded.map(at),
                is_told: false,
                told: 0,
            };
            promised.due(at(now))
        };
        assert_eq!(due(10, 0, None), Due::In(minutes(5)));
        assert_eq!(due(15, 0, None), Due::Now);
        assert_eq!(due(16, 0, Some(15)), Due::In(minutes(4)), "reminded once");
        assert_eq!(due(20, 0, Some(15)), Due::Overdue);
        assert_eq!(due(20, 18, Some(15)), Due::In(minutes(13)), "a word in the channel is an update");
        assert_eq!(due(33, 18, Some(15)), Due::Now, "a reminder counts for one update");
        assert_eq!(due(5, 10, None), Due::In(minutes(20)), "a clock that was set back");
    }
}
