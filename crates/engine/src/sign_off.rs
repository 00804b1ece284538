//! Sign-offs: a person's signature, in a role, over what a run has done so far.
//!
//! What is signed names the run, its plan and the head of its journal at the moment the step began that waits for it. Each
//! link of the journal hangs on all those before, so the signature is one over everything that had happened, and cannot
//! be carried to another run or another result of this one. A step begins once for this purpose: an attempt after a
//! pause or a crash waits for the same signatures.

use jiff::Timestamp;
use pgrunbook_document::StepId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::environment::People;
use crate::error::EngineError;
use crate::fault::{self, Point};
use crate::journal::{Event, JournalError, Sealed};
use crate::signers::{self, SignatureError};
use crate::state::RunState;
use crate::step::Evidence;

/// What a sign-off's signature is made for: `ssh-keygen -Y sign -n pgrunbook-sign-off`.
pub const NAMESPACE: &str = "pgrunbook-sign-off";

/// The fact in which a step that waited for sign-offs records those that it counted.
const SIGNED: &str = "signed";

/// How often a sign-off is written anew where another one came between.
const TRIES: usize = 5;

/// A sign-off that was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignOff {
    /// The step that waits for it.
    pub step: StepId,
    /// The role in which it was given.
    pub role: String,
    /// Who signed, as `allowed_signers` names them.
    pub principal: String,
    /// Hash of the event with which the step began, in hex.
    pub head: String,
    /// The armored SSHSIG.
    pub signature: String,
    /// Fingerprint of the key.
    pub key: String,
}

/// The text that is signed.
///
/// `head` is the hash of the event with which `step` began.
pub fn text(run: &str, plan_digest: &str, step: &StepId, role: &str, head: &str) -> String {
    format!("pgrunbook sign-off of run {run}, step {step}, as {role}: plan {plan_digest}, journal {head}\n")
}

impl SignOff {
    fn text(&self, run: &str, plan_digest: &str) -> String {
        text(run, plan_digest, &self.step, &self.role, &self.head)
    }

    /// Whether the signature is one over this, by the key that it carries. Returns that key's fingerprint.
    pub(crate) fn check(&self, run: &str, plan_digest: &str) -> Result<String, SignatureError> {
        signers::check(NAMESPACE, self.text(run, plan_digest).as_bytes(), &self.signature)
    }

    /// The same, and that the principal may sign at that time.
    pub(crate) fn verify(
        &self,
        run: &str,
        plan_digest: &str,
        allowed_signers: &str,
        at: Timestamp,
    ) -> Result<String, SignatureError> {
        let text = self.text(run, plan_digest);
        signers::verify(NAMESPACE, text.as_bytes(), &self.signature, &self.principal, allowed_signers, at)
    }
}

impl Evidence {
    /// The same with the sign-offs that a step counted: that each of them is in the journal is verified with the bundle.
    #[must_use]
    pub fn signed(self, sign_offs: &[&SignOff]) -> Self {
        let one = |one: &&SignOff| json!({ "role": one.role, "principal": one.principal, "key": one.key });
        self.fact(SIGNED, sign_offs.iter().map(one).collect::<Vec<_>>())
    }
}

/// The sign-offs that a step says it counted: role, principal, key.
pub(crate) fn counted(evidence: &Evidence) -> Vec<[String; 3]> {
    let listed = evidence.facts.get(SIGNED).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    listed.iter().map(|one| [text(one, "role"), text(one, "principal"), text(one, "key")]).collect()
}

impl Engine {
    /// Records the operator's sign-off of a step that has begun and waits.
    ///
    /// # Errors
    /// [`EngineError::SignOff`] if the step has not begun or is done, the role is not theirs or is signed for already, or the
    /// signature is not one by them over this run's plan and the head of its journal when the step began;
    /// [`JournalError::Taken`] if a process is at work on the run.
    pub async fn sign_off(
        &self,
        run: &str,
        step: &StepId,
        role: &str,
        signature: &str,
    ) -> Result<SignOff, EngineError> {
        let principal = self.operator.principal.clone();
        let refuse = |why: String| EngineError::SignOff { principal: principal.clone(), why };
        for number in 1.. {
            let status = self.status(run).await?;
            if let Some(holder) = status.holder {
                return Err(JournalError::Taken(Box::new(holder)).into());
            }
            let mut state = status.state;
            let head = state.began(step).ok_or_else(|| refuse(format!("step `{step}` has not begun")))?.to_owned();
            let mut sign_off = SignOff {
                step: step.clone(),
                role: role.to_owned(),
                principal: principal.clone(),
                head,
                signature: signature.to_owned(),
                key: String::new(),
            };
            let now = self.clock.now();
            sign_off.key = verify(&self.people, run, &state, &sign_off, now).map_err(refuse)?;
            let event = Sealed::seal_behind(Event::SignedOff { sign_off: sign_off.clone() }, now, &state.head);
            state.apply(&event).map_err(|broken| refuse(broken.why))?;
            fault::pass(Point::BeforeAppend);
            match self.journal.append(run, state.epoch, &[event]).await {
                // Somebody else signed, or a process took the run: looked at once more.
                Err(JournalError::Behind) if number < TRIES => {}
                appended => {
                    appended?;
                    fault::pass(Point::AfterAppend);
                    return Ok(sign_off);
                }
            }
        }
        unreachable!("the loop returns with its last try")
    }
}

/// The sign-offs of a step that count now: whoever lost a key or a role since counts no more.
pub(crate) fn counting(engine: &Engine, run: &str, state: &RunState, step: &StepId) -> Vec<SignOff> {
    let now = engine.clock.now();
    let of_step = state.sign_offs.iter().filter(|sign_off| sign_off.step == *step);
    of_step.filter(|sign_off| verify(&engine.people, run, state, sign_off, now).is_ok()).cloned().collect()
}

/// The fingerprint of the key, or why it does not count.
fn verify(people: &People, run: &str, state: &RunState, sign_off: &SignOff, at: Timestamp) -> Result<String, String> {
    if !people.roles_of(&sign_off.principal).any(|role| role == sign_off.role) {
        return Err(format!("they do not hold the role `{}`", sign_off.role));
    }
    let allowed = people.allowed_signers.as_deref().unwrap_or_default();
    sign_off.verify(run, &state.plan.plan_digest, allowed, at).map_err(|error| error.to_string())
}
