//! Approvals: a person's signature over a plan's digest.

use jiff::Timestamp;

use crate::environment::People;
use crate::plan::Plan;
use crate::signers::{self, SignatureError};
use crate::step::Approval;

/// What an approval's signature is made for: `ssh-keygen -Y sign -n pgrunbook-approval`.
pub const NAMESPACE: &str = "pgrunbook-approval";

/// The text that an approver signs.
pub fn text(plan_digest: &str) -> String {
    format!("pgrunbook approval of plan {plan_digest}\n")
}

/// Makes an approval of a signature, if it is one.
///
/// # Errors
/// If the signature is not by `principal` over this plan, or the project allows nobody to sign.
pub fn approve(
    plan: &Plan,
    principal: &str,
    signature: &str,
    people: &People,
    at: Timestamp,
) -> Result<Approval, SignatureError> {
    let key = verify(&plan.plan_digest, principal, signature, people, at)?;
    Ok(Approval {
        principal: principal.to_owned(),
        roles: people.roles_of(principal).map(str::to_owned).collect(),
        plan_digest: plan.plan_digest.clone(),
        signature: signature.to_owned(),
        key,
    })
}

/// Whether a signature is one by `principal` over a plan. Returns the key's fingerprint.
pub(crate) fn verify(
    plan_digest: &str,
    principal: &str,
    signature: &str,
    people: &People,
    at: Timestamp,
) -> Result<String, SignatureError> {
    let allowed = people.allowed_signers.as_deref().unwrap_or_default();
    signers::verify(NAMESPACE, text(plan_digest).as_bytes(), signature, principal, allowed, at)
}
