//! `isolation` on a Redis target: every declared user logs in and tries.

use pgrunbook_document::Block;
use pgrunbook_engine::evidence::matrix::FACT;
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};

use super::Where;
use crate::isolation::Undecided;
use crate::redis::access::{self, Access};
use crate::redis::prove::{Proof, Subject, Verdict, prove};
use crate::registry::SkippedReading;
use crate::workplace::Workplace;

/// Findings that an error names; the evidence has them all.
const NAMED: usize = 3;

/// Tries what every declared user reaches.
///
/// Effect: idempotent: a key of each own prefix is written and deleted, and expires by itself. Undo: not needed.
struct Isolation {
    place: Where,
    access: Access,
    undecided: Undecided,
}

/// Builds the step. A rehearsal has no Redis of its own: it is skipped there.
///
/// # Errors
/// If nothing is declared, or it is wrong.
pub fn build(block: &Block, undecided: Undecided, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let access = access::load(workplace.root())?;
    if workplace.is_rehearsal() {
        return Ok(Box::new(SkippedReading(Effect::Idempotent, access.files)));
    }
    Ok(Box::new(Isolation { place: Where::of(block, workplace)?, access, undecided }))
}

/// The declared users, with their passwords where those have a value here.
pub fn subjects(access: &Access, workplace: &Workplace) -> Vec<Subject> {
    let subject = |user: &access::User| Subject {
        user: user.name.clone(),
        // A reference without a value is no fault: the user is not tried, and the evidence says so.
        password: workplace.secret(&user.password).ok(),
        prefixes: user.prefixes.clone(),
        reads: user.reads.clone(),
        may: user.may.clone(),
    };
    access.users.values().map(subject).collect()
}

impl Step for Isolation {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let summary = format!("try {} users on {}", self.access.users.len(), self.place.options()?.shown());
            Ok(Change { summary, files: self.access.files.clone(), ..Change::default() })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let subjects = subjects(&self.access, &self.place.workplace);
            let nonce = format!("pgrunbook:{}:{}", cx.run, cx.attempt);
            let proof = prove(self.place.options()?, &subjects, &[], &nonce, self.place.timeout).await?;
            gate(&proof, self.undecided)
        })
    }
}

/// Passes where every prefix is kept.
///
/// # Errors
/// With the worst of what is not, and all of it as evidence.
pub fn gate(proof: &Proof, undecided: Undecided) -> Result<Evidence, StepError> {
    let picture = serde_json::to_value(proof.picture()).expect("texts and numbers");
    let evidence = Evidence::of(proof.summary())
        .fact(FACT, picture)
        .fact("proved", proof.is_proved())
        .fact("findings", proof.findings())
        .fact("servers", proof.nodes.clone());
    if proof.is_proved() || undecided == Undecided::Allow && proof.is_kept() {
        return Ok(evidence);
    }
    if let Some(why) = &proof.convention {
        return Err(StepError::failed("isolation", why.clone())
            .help("use a server with ACLs (Redis 6.2 or newer), or a server for each environment")
            .evidence(evidence));
    }
    let findings = proof.findings();
    let shown = findings.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    let help = if proof.count(Verdict::Leaked) > 0 {
        "`pgrunbook topology plan` on this target says which rules differ from the declaration"
    } else if proof.count(Verdict::Broken) > 0 {
        "apply the topology first, and check the references of the passwords"
    } else {
        "give passwords by reference and bring the servers back, or `inconclusive = \"allow\"`"
    };
    Err(StepError::failed("isolation", format!("{}. {shown}", proof.summary())).help(help).evidence(evidence))
}
