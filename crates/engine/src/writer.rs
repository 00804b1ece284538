//! The one hand that writes a run's journal: seals events, folds them, and makes them durable in batches.

use std::borrow::Cow;
use std::sync::Arc;

use crate::clock::Clock;
use crate::fault::{self, Point};
use crate::journal::{Event, Journal, JournalError, Sealed};
use crate::operator::Operator;
use crate::redact::Redactor;
use crate::state::RunState;

/// Writes events of a run that this process has claimed.
pub(crate) struct Writer<'a> {
    pub run: String,
    pub epoch: u64,
    /// With everything that was noted, also what is not durable yet.
    pub state: RunState,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    operator: &'a dyn Operator,
    redactor: Redactor,
    /// Noted and not durable. Never more than the outcome of one step and the intent of the next, or what one person
    /// did at once.
    pending: Vec<Sealed>,
}

impl<'a> Writer<'a> {
    pub fn new(
        run: &str,
        epoch: u64,
        state: RunState,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        operator: &'a dyn Operator,
        redactor: Redactor,
    ) -> Self {
        Self { run: run.to_owned(), epoch, state, journal, clock, operator, redactor, pending: Vec::new() }
    }

    /// Folds an event, to be made durable by the next [`Writer::flush`].
    pub fn note(&mut self, mut event: Event) -> Result<(), JournalError> {
        // What steps say comes without secrets already; these are the words of people and of the engine.
        match &mut event {
            Event::Item { note: Some(text), .. }
            | Event::Decided { note: text, .. }
            | Event::TurnedBack { reason: Some(text), .. }
            | Event::Accepted { what: text, .. }
            | Event::Overridden { reason: text, .. }
            | Event::NoticeSent { said: text, .. }
            | Event::Stopped { why: text } => {
                if let Cow::Owned(clean) = self.redactor.redact(text) {
                    *text = clean;
                }
            }
            Event::NoticeDue { notice, .. } => {
                for text in [&mut notice.subject, &mut notice.text] {
                    if let Cow::Owned(clean) = self.redactor.redact(text) {
                        *text = clean;
                    }
                }
            }
            _ => {}
        }
        let sealed = Sealed::seal_behind(event, self.clock.now(), &self.state.head);
        // An event that cannot follow must never be written; that the engine made one is a mistake in the engine.
        self.state.apply(&sealed).map_err(|broken| broken.of(&self.run))?;
        self.pending.push(sealed);
        Ok(())
    }

    /// Makes everything that was noted durable, in one append.
    pub async fn flush(&mut self) -> Result<(), JournalError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        fault::pass(Point::BeforeAppend);
        self.journal.append(&self.run, self.epoch, &self.pending).await?;
        fault::pass(Point::AfterAppend);
        for event in self.pending.drain(..) {
            self.operator.event(&self.run, &event);
        }
        Ok(())
    }

    /// Notes an event and makes it durable.
    pub async fn write(&mut self, event: Event) -> Result<(), JournalError> {
        self.note(event)?;
        self.flush().await
    }
}
