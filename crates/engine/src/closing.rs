//! Closings: what somebody else says of a demand that was overridden, once they have looked at it.
//!
//! An override leaves a review item in the journal. It is closed by an event of its own, also long after the run has ended: by
//! another person than the one who overrode, with a reason. Where the project names signers it is a signature over the run, the
//! plan, the reason and the override with everything before it, and so cannot be carried to another item.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::demand::says_something;
use crate::engine::Engine;
use crate::environment::People;
use crate::error::EngineError;
use crate::journal::{Event, JournalError};
use crate::redact::Redactor;
use crate::signers::{self, SignatureError};
use crate::state::{Overriding, RunState};

/// What a closing's signature is made for: `ssh-keygen -Y sign -n pgrunbook-review`.
pub const NAMESPACE: &str = "pgrunbook-review";

/// How often a closing is written anew where another event came between.
const TRIES: usize = 5;

/// A review item that was closed. Format version 1, as the journal's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// Number of the event in which the demand was overridden.
    pub item: u64,
    /// Who closed it; as `allowed_signers` names them, if it is signed.
    pub by: String,
    /// What they found, in a sentence.
    pub reason: String,
    /// Hash of the event in which the demand was overridden, in hex.
    pub head: String,
    /// The armored SSHSIG; `None`: the project names nobody who could sign.
    pub signature: Option<String>,
    /// Fingerprint of the key, if it is signed.
    pub key: Option<String>,
}

/// `closed by bert: the fix was right (SHA256:...)`.
impl std::fmt::Display for Closing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.key.as_deref().unwrap_or("not signed");
        write!(f, "closed by {}: {} ({key})", self.by, self.reason)
    }
}

/// A reason as it is signed and recorded: one line, without secrets.
pub fn reason(given: &str, redactor: &Redactor) -> String {
    redactor.redact(&given.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

/// The text that is signed. `reason` is one line, as [`reason`] makes it.
pub fn text(run: &str, plan_digest: &str, item: &Overriding, reason: &str) -> String {
    format!(
        "pgrunbook review of run {run}, item {}: plan {plan_digest}, journal {}, closed: {reason}\n",
        item.seq, item.head
    )
}

impl Closing {
    /// Whether the signature is one over this, by the key that it carries. Returns that key's fingerprint; `None` where it is not
    /// signed.
    pub(crate) fn check(
        &self,
        run: &str,
        plan_digest: &str,
        item: &Overriding,
    ) -> Result<Option<String>, SignatureError> {
        let text = text(run, plan_digest, item, &self.reason);
        self.signature.as_deref().map(|signature| signers::check(NAMESPACE, text.as_bytes(), signature)).transpose()
    }

    /// The same, and that the person may sign at that time.
    pub(crate) fn verify(
        &self,
        run: &str,
        plan_digest: &str,
        item: &Overriding,
        allowed_signers: &str,
        at: Timestamp,
    ) -> Result<Option<String>, SignatureError> {
        let text = text(run, plan_digest, item, &self.reason);
        let verify =
            |signature: &str| signers::verify(NAMESPACE, text.as_bytes(), signature, &self.by, allowed_signers, at);
        self.signature.as_deref().map(verify).transpose()
    }
}

impl Engine {
    /// Closes a review item of a run as the operator. `item`: the number of the event in which the demand was overridden.
    /// `given`: what was found. `signature`: armored, over [`text`]; needed where the project names signers.
    ///
    /// # Errors
    /// [`EngineError::Closing`] if there is no such item or it is closed, the operator overrode it, the reason says nothing, or
    /// the signature is not one by them over this item and reason; [`JournalError::Taken`] if a process is at work on the run.
    pub async fn close_review(
        &self,
        run: &str,
        item: u64,
        given: &str,
        signature: Option<&str>,
    ) -> Result<Closing, EngineError> {
        let by = self.operator.principal.clone();
        let refuse = |why: String| EngineError::Closing { principal: by.clone(), why };
        let reason = reason(given, &self.redactor);
        if !says_something(&reason) {
            return Err(refuse(format!("\"{reason}\" does not say what was found")));
        }
        for number in 1.. {
            let status = self.status(run).await?;
            if let Some(holder) = status.holder {
                return Err(JournalError::Taken(Box::new(holder)).into());
            }
            let mut state = status.state;
            let overriding = state.overrides.iter().find(|one| one.seq == item);
            let overriding = overriding.ok_or_else(|| refuse(format!("event {item} overrode nothing")))?;
            let mut closing = Closing {
                item,
                by: by.clone(),
                reason: reason.clone(),
                head: overriding.head.clone(),
                signature: signature.map(str::to_owned),
                key: None,
            };
            closing.key = verify(&self.people, run, &state, overriding, &closing, self.clock.now()).map_err(refuse)?;
            let mut tried = state.clone();
            tried.close(&closing, self.clock.now()).map_err(refuse)?;
            match self.append_to(run, &mut state, vec![Event::ReviewClosed { closing: closing.clone() }]).await {
                // Somebody else wrote, or a process took the run: looked at once more.
                Err(JournalError::Behind) if number < TRIES => {}
                appended => return Ok(appended.map(|()| closing)?),
            }
        }
        unreachable!("the loop returns with its last try")
    }
}

/// The fingerprint of the key, or why the closing does not count.
fn verify(
    people: &People,
    run: &str,
    state: &RunState,
    item: &Overriding,
    closing: &Closing,
    at: Timestamp,
) -> Result<Option<String>, String> {
    if people.allowed_signers.is_some() && closing.signature.is_none() {
        return Err("the project names who may sign, and it is not signed".to_owned());
    }
    let allowed = people.allowed_signers.as_deref().unwrap_or_default();
    closing.verify(run, &state.plan.plan_digest, item, allowed, at).map_err(|error| error.to_string())
}
