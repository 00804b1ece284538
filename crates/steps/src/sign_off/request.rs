//! What a run that stands at a sign-off asks for: for those who sign it.

use pgrunbook_document::StepId;
use pgrunbook_engine::{People, RunState, SignOff, Slot, StepError, sign_off};

use super::step::Wanted;

/// What is to be signed, and by whom still.
#[derive(Debug, Clone)]
pub struct Request {
    run: String,
    plan_digest: String,
    /// The step that waits.
    pub step: StepId,
    /// Hash of the event with which it began: the head of the journal that is signed.
    pub head: String,
    wanted: Wanted,
    signed: Vec<SignOff>,
}

impl Request {
    /// The sign-off at which a run stands.
    ///
    /// # Errors
    /// If it stands elsewhere, or has not come there yet.
    pub fn of(run: &str, state: &RunState) -> Result<Self, StepError> {
        let nothing = |why: String| {
            StepError::unusable("no-sign-off", format!("run {run} waits for no sign-off: {why}"))
                .help(format!("`pgrunbook status {run}` says where it stands"))
        };
        let Some(Slot::Step(step)) = state.next() else {
            return Err(nothing("it does not stand at a step".to_owned()));
        };
        let planned = state.plan.all_steps().find(|planned| planned.id == *step);
        let Some(planned) = planned.filter(|planned| planned.kind == super::KIND.spec.name) else {
            return Err(nothing(format!("it stands at step `{step}`")));
        };
        let head = state.began(step).ok_or_else(|| nothing(format!("step `{step}` has not begun")))?;
        let signed = state.sign_offs.iter().filter(|sign_off| sign_off.step == *step).cloned().collect();
        Ok(Self {
            run: run.to_owned(),
            plan_digest: state.plan.plan_digest.clone(),
            step: step.clone(),
            head: head.to_owned(),
            wanted: Wanted::read(&planned.text)?,
            signed,
        })
    }

    /// Roles for which nobody has signed yet, in the order of the runbook.
    pub fn missing(&self) -> Vec<&str> {
        self.wanted.missing(&self.signed)
    }

    /// The role for which a person signs: the one they name, or the only one of those missing that they hold.
    ///
    /// # Errors
    /// If it is not asked for, is signed for, is not theirs, or must be somebody else's since they signed for another.
    pub fn role(&self, people: &People, principal: &str, named: Option<&str>) -> Result<&str, StepError> {
        let refuse = |why: String| StepError::unusable("sign-off", format!("{why}. Nothing was recorded."));
        if let Some(other) = self.signed.iter().find(|other| self.wanted.distinct && other.principal == principal) {
            return Err(refuse(format!(
                "{principal} signed as {} already, and each role needs its own person",
                other.role
            ))
            .help("`distinct = false` lets one person sign for several roles"));
        }
        let missing = self.missing();
        let holds = |role: &str| people.roles_of(principal).any(|held| held == role);
        if let Some(named) = named {
            let Some(role) = self.wanted.roles.iter().find(|role| *role == named) else {
                return Err(refuse(format!("step `{}` asks for no sign-off by `{named}`", self.step)));
            };
            if !missing.contains(&named) {
                return Err(refuse(format!("`{named}` has signed already")));
            }
            if !holds(named) {
                return Err(refuse(format!("{principal} does not hold the role `{named}`")).help(HOLDERS));
            }
            return Ok(role);
        }
        let theirs: Vec<&str> = missing.iter().copied().filter(|role| holds(role)).collect();
        match theirs.as_slice() {
            [only] => Ok(only),
            [] if missing.is_empty() => Err(refuse("everybody has signed".to_owned())),
            [] => Err(refuse(format!("{principal} holds none of the roles that are missing: {}", missing.join(", ")))
                .help(HOLDERS)),
            several => Err(refuse(format!("{principal} holds several of the roles that are missing"))
                .help(format!("say for which: --role {}", several.join(" or --role ")))),
        }
    }

    /// The text that is signed for a role.
    pub fn text(&self, role: &str) -> String {
        sign_off::text(&self.run, &self.plan_digest, &self.step, role, &self.head)
    }
}

const HOLDERS: &str = "[people] in pgrunbook.toml says who holds which role; --as says who you are";
