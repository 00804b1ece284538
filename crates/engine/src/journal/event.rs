//! The events of a run, and how they are sealed. Format version 1: new variants may be added, none may change.

use jiff::Timestamp;
use pgrunbook_document::{ItemId, StepId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::JournalError;
use crate::closing::Closing;
use crate::demand::{DemandName, DemandRecord};
use crate::notice::Notice;
use crate::plan::{FORMAT, Plan};
use crate::sign_off::SignOff;
use crate::step::{Approval, Evidence, Failure};

pub use crate::step::Direction;

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first event of every run.
    Begun { format: u32, plan: Box<Plan>, operator: String, host: String, rehearsal: bool },
    /// A process took the run: the first after `Begun`, one for each resume and takeover.
    Claimed { epoch: u64, operator: String, host: String, pid: u32 },
    /// A checklist line was settled by a person.
    Item { item: ItemId, outcome: ItemOutcome, by: String, note: Option<String>, in_advance: bool },
    /// An approval that was verified.
    Approved { approval: Approval },
    /// A sign-off that was verified, of a step that waits for it.
    SignedOff { sign_off: SignOff },
    /// The exact confirmation text was given.
    Confirmed { by: String, text: String },
    /// A person went on without a demand of the environment: what was found instead, and why they did. Open to be reviewed.
    Overridden { demand: DemandName, found: String, by: String, reason: String },
    /// Somebody else looked at what was overridden. May follow `Ended`.
    ReviewClosed { closing: Closing },
    /// Every demand of the environment, each held or overridden, when the run was let begin to change something. The last
    /// of several counts.
    Demands { demands: Vec<DemandRecord> },
    /// Written before the effect.
    Intent { step: StepId, direction: Direction, attempt: u32 },
    /// What a long step noted between its intent and its outcome (samples of an observation, a stage that was reached):
    /// an attempt after a crash goes on from it.
    Noted { step: StepId, direction: Direction, attempt: u32, note: Value },
    /// Written after it.
    Outcome { step: StepId, direction: Direction, attempt: u32, outcome: Outcome },
    /// The operator's answer where the effect was unknown.
    Decided { step: StepId, direction: Direction, decision: Decision, by: String, note: String },
    /// The run turns back on this path (`undo` or the slug of a rollback section), or goes on on another one if this
    /// one is blocked. There is no turning forward again. May follow `Ended { Completed }`.
    TurnedBack { path: String, by: String, reason: Option<String> },
    /// A target's timeline moved and a person accepted it, or a like deviation.
    Accepted { what: String, by: String },
    /// People are owed this notice; written together with what it tells of. `by`: a person's own words.
    NoticeDue { notice: Notice, by: Option<String> },
    /// What became of a delivery of it: what the receiver answered, or why it was not delivered.
    NoticeSent { key: String, delivered: bool, said: String },
    /// The operator was reminded that an update is due that was promised in this channel.
    UpdateDue { channel: String },
    /// The process stops; the run can be resumed.
    Stopped { why: String },
    /// Nothing is left to do: the run went forward to its end, or back to the beginning.
    Ended { state: EndState },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndState {
    Completed,
    RolledBack,
    Aborted,
}

/// What a person said of a checklist line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemOutcome {
    Confirmed,
    /// With a reason in `note`.
    NotApplicable,
    Refused,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// `recovered`: found to have happened after a crash, not seen to happen.
    Done { evidence: Evidence, recovered: bool },
    /// Certainly did not happen; or, if `partial`, in parts that the next attempt takes up and an undo takes back.
    Failed {
        failure: Failure,
        code: String,
        message: String,
        help: Option<String>,
        evidence: Option<Evidence>,
        partial: bool,
    },
    /// After a crash: found not to have happened; the next attempt begins.
    DidNotHappen,
    /// After a crash: found to have happened in parts; the next attempt takes them up, an undo takes them back.
    Partial { evidence: Evidence },
    /// Nobody can tell; a decision is needed.
    Unknown { why: String },
}

/// The operator's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It happened.
    Done,
    /// It did not happen, or may happen twice: run it again.
    Again,
}

/// An event in its chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sealed {
    /// From 1.
    pub seq: u64,
    /// For people.
    pub at: Timestamp,
    pub event: Event,
    /// Hash of the event before; 64 zeros for the first.
    pub previous: String,
    /// SHA-256 in hex over `previous`, `seq`, `at` and `event`.
    pub hash: String,
}

/// The end of a chain: what the next event is linked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub seq: u64,
    pub hash: String,
}

impl Default for Head {
    /// The head of a chain without events.
    fn default() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }
}

impl Sealed {
    /// Seals an event behind the one before.
    pub fn seal(event: Event, at: Timestamp, before: Option<&Self>) -> Self {
        Self::seal_behind(event, at, &before.map(Self::head).unwrap_or_default())
    }

    /// Seals an event behind the head of a chain.
    pub fn seal_behind(event: Event, at: Timestamp, head: &Head) -> Self {
        let seq = head.seq + 1;
        let hash = chain_hash(&head.hash, seq, at, &event);
        Self { seq, at, event, previous: head.hash.clone(), hash }
    }

    /// Reads an event as [`super::Journal::append`] was given it, its parts as text. What every journal's `read` uses.
    ///
    /// # Errors
    /// [`JournalError::Newer`] if a newer pgrunbook wrote the run; [`JournalError::Broken`] if it cannot be read.
    pub fn read(
        run: &str,
        seq: u64,
        at: &str,
        event: &str,
        previous: String,
        hash: String,
    ) -> Result<Self, JournalError> {
        let broken = |why: String| JournalError::Broken { run: run.to_owned(), seq, why };
        let at = at.parse().map_err(|error| broken(format!("its time cannot be read: {error}")))?;
        // Before anything else of it is understood: a newer format may hold anything.
        let newer = |found| JournalError::Newer { run: run.to_owned(), found, known: FORMAT };
        match serde_json::from_str(event) {
            Ok(Event::Begun { format, .. }) if format > FORMAT => Err(newer(format)),
            Ok(event) => Ok(Self { seq, at, event, previous, hash }),
            Err(error) => {
                let format = serde_json::from_str::<Value>(event).ok().and_then(|value| {
                    let is_begun = value.get("event").is_some_and(|name| name == "begun");
                    u32::try_from(value.get("format").filter(|_| is_begun)?.as_u64()?).ok()
                });
                match format {
                    Some(format) if format > FORMAT => Err(newer(format)),
                    _ => Err(broken(format!("it cannot be read: {error}"))),
                }
            }
        }
    }

    /// The head of the chain that ends here.
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash.clone() }
    }

    /// Whether the hash is right for the content, and the link for the event before.
    pub fn follows(&self, before: Option<&Self>) -> bool {
        self.is_behind(&before.map(Self::head).unwrap_or_default())
    }

    /// Whether the hash is right for the content, and the link for the head of the chain before.
    pub fn is_behind(&self, head: &Head) -> bool {
        self.seq == head.seq + 1
            && self.previous == head.hash
            && self.hash == chain_hash(&self.previous, self.seq, self.at, &self.event)
    }
}

fn chain_hash(previous: &str, seq: u64, at: Timestamp, event: &Event) -> String {
    let content = serde_json::json!({ "seq": seq, "at": at.to_string(), "event": event });
    let mut hasher = Sha256::new();
    hasher.update(previous.as_bytes());
    // serde_json sorts the keys of its maps, so the text is the same wherever it is made.
    hasher.update(content.to_string().as_bytes());
    format!("{:x}", hasher.finalize())
}
