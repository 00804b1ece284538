//! What the engine asks the person who runs a runbook, and what it tells them while it runs.

use async_trait::async_trait;
use pgrunbook_document::{ItemId, StepId};

use crate::journal::{Decision, Direction, ItemOutcome, Sealed};
use crate::step::Watcher;

/// The person at the keyboard, or nobody. Every question may be answered with `None`: nobody is here.
#[async_trait]
pub trait Operator: Watcher {
    /// An event became durable.
    fn event(&self, run: &str, event: &Sealed);

    /// Asks for the outcome of a checklist line.
    async fn item(&self, question: ItemQuestion<'_>) -> Option<ItemAnswer>;

    /// Asks whether an effect happened that nobody can know. There is no default answer.
    async fn decide(&self, doubt: &Doubt) -> Option<DoubtAnswer>;

    /// Asks for the exact confirmation text of a protected environment.
    async fn confirmation(&self, wanted: &str) -> Option<String>;

    /// Asks whether a deviation (a target's timeline moved) is accepted.
    async fn accept(&self, what: &str) -> Option<bool>;
}

/// A checklist line that waits for a person.
#[derive(Debug, Clone, Copy)]
pub struct ItemQuestion<'a> {
    pub id: &'a ItemId,
    pub text: &'a str,
    /// Title of the phase.
    pub phase: &'a str,
    pub roles: &'a [String],
}

/// What the person said of it. `note` must hold the reason if it is not applicable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemAnswer {
    pub outcome: ItemOutcome,
    pub note: Option<String>,
}

/// An effect of which nobody can tell whether it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    pub step: StepId,
    pub direction: Direction,
    pub attempt: u32,
    pub why: String,
}

/// The operator's answer to a [`Doubt`], with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoubtAnswer {
    pub decision: Decision,
    pub note: String,
}
