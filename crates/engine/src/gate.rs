//! What must hold before effects may begin: the right targets, approvals, the confirmation text.

use std::collections::BTreeSet;

use pgrunbook_document::StepId;

use crate::advance::{Call, Flow};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::{Direction, Event};
use crate::operator::Operator;
use crate::plan::Moved;
use crate::run::{RunEnd, RunOptions, Waiting};
use crate::state::RunState;
use crate::step::Approval;
use crate::target::Identity;

/// Whether the targets are those of the plan.
pub(crate) enum Targets {
    /// They are, with these deviations that a person has accepted just now.
    Fit { accepted: Vec<String> },
    /// A deviation waits for a person.
    Wait(String),
}

/// Asks every target of the plan who it is. `became`: who a target is if the step in doubt happened.
///
/// # Errors
/// [`EngineError::Moved`] if one is another; that can never be accepted.
pub(crate) async fn targets(
    engine: &Engine,
    state: &RunState,
    became: Option<&Identity>,
    options: &RunOptions,
    operator: &dyn Operator,
) -> Result<Targets, EngineError> {
    let before = became.and_then(|became| state.identity(&became.name)).map(|identity| identity.key.clone());
    let mut others = Vec::new();
    let mut deviations = Vec::new();
    for planned in &state.plan.targets {
        let found = engine.identify(&planned.name).await?;
        let planned = state.identities.get(&planned.name).unwrap_or(planned);
        // Another name of the same thing became another one with it.
        let planned = match became {
            Some(became) if before.as_ref() == Some(&planned.key) => &became.called(&planned.name),
            _ => planned,
        };
        match planned.moved_to(&found) {
            None => {}
            Some(moved @ Moved::Timeline { .. }) => deviations.push(moved.to_string()),
            Some(moved) => others.push(moved),
        }
    }
    if !others.is_empty() {
        return Err(EngineError::Moved(others));
    }
    let mut accepted = Vec::new();
    for what in deviations {
        if state.accepted.contains(&what) {
            continue;
        }
        if options.accept_timeline || operator.accept(&what).await == Some(true) {
            accepted.push(what);
        } else {
            return Ok(Targets::Wait(what));
        }
    }
    Ok(Targets::Fit { accepted })
}

/// Records new approvals, and before the first effect demands what the environment demands.
///
/// Going back demands nothing, and looks at no approval: nobody is kept from a way out.
pub(crate) async fn open(call: &mut Call<'_>) -> Result<Flow, EngineError> {
    let forward = call.writer.state.direction() == Direction::Forward;
    for approval in call.options.approvals.iter().filter(|_| forward) {
        let state = &call.writer.state;
        if state.approvals.contains(approval) {
            continue;
        }
        verify(call.engine, state, approval)
            .map_err(|why| EngineError::Approval { principal: approval.principal.clone(), why })?;
        call.writer.note(Event::Approved { approval: approval.clone() })?;
    }
    call.writer.flush().await?;
    call.approvals = counting(call.engine, &call.writer.state);
    let state = &call.writer.state;
    let environment = &call.engine.environment;
    if !forward || !state.steps.is_empty() {
        return Ok(Flow::On);
    }
    if let Some(waiting) = missing(call, environment.approvals, &environment.approver_roles) {
        return Ok(Flow::End(RunEnd::Waiting { on: waiting }));
    }
    let Some(wanted) = environment.confirm.as_deref().filter(|_| !state.confirmed) else { return Ok(Flow::On) };
    let given = match &call.options.confirmation {
        Some(text) => Some(text.clone()),
        None => call.operator.confirmation(wanted).await,
    };
    match given {
        None => {
            let wanted = wanted.to_owned();
            Ok(Flow::End(RunEnd::Waiting { on: Waiting::Confirmation { wanted } }))
        }
        Some(text) if text == wanted => {
            let by = call.engine.operator.principal.clone();
            call.writer.write(Event::Confirmed { by, text }).await?;
            Ok(Flow::On)
        }
        Some(_) => Err(EngineError::NotConfirmed { environment: environment.name.clone(), wanted: wanted.to_owned() }),
    }
}

/// A step after which there is no way back needs an approval, wherever it runs.
pub(crate) fn one_way(call: &Call<'_>, id: &StepId, direction: Direction) -> Result<Flow, EngineError> {
    // What a rehearsal cannot take back goes away with its server.
    if direction == Direction::Back || call.writer.state.rehearsal {
        return Ok(Flow::On);
    }
    let Some(why) = &call.workshop.bench(id)?.one_way else { return Ok(Flow::On) };
    let count = call.engine.environment.approvals.max(1);
    Ok(match missing(call, count, &call.engine.environment.approver_roles) {
        None => Flow::On,
        Some(Waiting::Approvals { missing, roles, .. }) => {
            let why = format!("step `{id}` cannot be taken back: {why}");
            Flow::End(RunEnd::Waiting { on: Waiting::Approvals { why, missing, roles } })
        }
        Some(waiting) => Flow::End(RunEnd::Waiting { on: waiting }),
    })
}

/// What is missing in the approvals that count.
fn missing(call: &Call<'_>, count: u32, roles: &BTreeSet<String>) -> Option<Waiting> {
    let approvers: BTreeSet<_> = call.approvals.iter().map(|approval| approval.principal.as_str()).collect();
    let missing = count.saturating_sub(u32::try_from(approvers.len()).unwrap_or(u32::MAX));
    let people = &call.engine.people;
    let held = |role: &String| approvers.iter().any(|approver| people.roles_of(approver).any(|held| held == role));
    let roles: Vec<_> = roles.iter().filter(|role| !held(role)).cloned().collect();
    if missing == 0 && roles.is_empty() {
        return None;
    }
    let why = format!("environment `{}` demands them before the first effect", call.engine.environment.name);
    Some(Waiting::Approvals { why, missing: missing.max(u32::from(!roles.is_empty())), roles })
}

/// The approvals in the journal that count now: whoever lost a key or became the operator since counts no more.
fn counting(engine: &Engine, state: &RunState) -> Vec<Approval> {
    state.approvals.iter().filter(|approval| verify(engine, state, approval).is_ok()).cloned().collect()
}

fn verify(engine: &Engine, state: &RunState, approval: &Approval) -> Result<(), String> {
    if approval.plan_digest != state.plan.plan_digest {
        return Err("it was given for another plan".to_owned());
    }
    if [&state.operator, &engine.operator.principal].contains(&&approval.principal) {
        return Err("whoever runs it cannot approve it".to_owned());
    }
    let Approval { plan_digest, principal, signature, .. } = approval;
    let now = engine.clock.now();
    crate::approval::verify(plan_digest, principal, signature, &engine.people, now)
        .map(drop)
        .map_err(|error| error.to_string())
}
