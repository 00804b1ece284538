//! What must hold before effects may begin: the right targets, approvals, the confirmation text.

use std::collections::BTreeSet;

use pgrunbook_document::StepId;

use crate::advance::{Call, Flow};
use crate::demand::{Demand, DemandName, Remedy, Standing, missing_before};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::journal::{Direction, Event};
use crate::operator::Operator;
use crate::plan::{Moved, Plan};
use crate::run::{RunEnd, RunOptions, Waiting};
use crate::state::{Overriding, RunState};
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
        verify(call.engine, &state.plan.plan_digest, Some(&state.operator), approval)
            .map_err(|why| EngineError::Approval { principal: approval.principal.clone(), why })?;
        call.writer.note(Event::Approved { approval: approval.clone() })?;
    }
    call.writer.flush().await?;
    call.approvals = counting(call.engine, &call.writer.state);
    if !forward || has_begun_to_change(call)? {
        return Ok(Flow::On);
    }
    let mut demands = match look(call).await? {
        Ok(demands) => demands,
        Err(end) => return Ok(Flow::End(end)),
    };
    if let Flow::End(end) = confirm(call, &mut demands).await? {
        return Ok(Flow::End(end));
    }
    record(call, &demands).await?;
    Ok(Flow::On)
}

/// Looks at the demands once more before the first change, where a person was asked since: a window may have closed, and an
/// incident begun.
pub(crate) async fn again(call: &mut Call<'_>) -> Result<Flow, EngineError> {
    call.writer.flush().await?;
    if call.writer.state.direction() != Direction::Forward || has_begun_to_change(call)? {
        return Ok(Flow::On);
    }
    match look(call).await? {
        Ok(demands) => record(call, &demands).await.map(|()| Flow::On),
        Err(end) => Ok(Flow::End(end)),
    }
}

/// Whether a changing step was begun. From then on it is under way, and is not kept from its end.
fn has_begun_to_change(call: &Call<'_>) -> Result<bool, EngineError> {
    for (id, direction) in call.writer.state.steps.keys() {
        if *direction == Direction::Forward && call.workshop.bench(id)?.changes {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The environment's demands, of which all but the confirmation text are held or overridden; or what is waited for.
async fn look(call: &mut Call<'_>) -> Result<Result<Vec<Demand>, RunEnd>, EngineError> {
    let (engine, state) = (call.engine, &call.writer.state);
    let demands = engine.standing(&state.plan, Some(state), call.options).await?;
    call.paused = false;
    let missing = missing_before(&demands);
    if !missing.is_empty() {
        let environment = engine.environment.name.clone();
        let runbook = call.writer.state.plan.runbook.clone();
        return Ok(Err(RunEnd::Waiting { on: Waiting::Demands { environment, runbook, missing } }));
    }
    if demands.iter().any(|demand| demand.name == DemandName::Approvals && !demand.is_met())
        && let Some((missing, roles)) =
            missing_approvals(engine, &call.approvals, engine.environment.approvals, &engine.environment.approver_roles)
    {
        let why = format!("environment `{}` demands them before the first effect", engine.environment.name);
        return Ok(Err(RunEnd::Waiting { on: Waiting::Approvals { why, missing, roles } }));
    }
    Ok(Ok(demands))
}

/// The exact text, from the option or the person.
async fn confirm(call: &mut Call<'_>, demands: &mut [Demand]) -> Result<Flow, EngineError> {
    let environment = &call.engine.environment;
    let confirmed = call.writer.state.confirmed;
    let Some(wanted) = environment.confirm.as_deref().filter(|_| !confirmed) else { return Ok(Flow::On) };
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
            for demand in demands.iter_mut().filter(|demand| demand.name == DemandName::Confirmation) {
                demand.standing = Standing::Held("given".to_owned());
            }
            Ok(Flow::On)
        }
        Some(_) => Err(EngineError::NotConfirmed { environment: environment.name.clone(), wanted: wanted.to_owned() }),
    }
}

/// Records how the demands stood, and each override once.
async fn record(call: &mut Call<'_>, demands: &[Demand]) -> Result<(), EngineError> {
    for demand in demands {
        let Standing::Overridden { found, by, reason } = &demand.standing else { continue };
        let said = |one: &Overriding| one.demand == demand.name && one.by == *by && one.reason == *reason;
        if !call.writer.state.overrides.iter().any(said) {
            let (found, by, reason) = (found.clone(), by.clone(), reason.clone());
            call.writer.note(Event::Overridden { demand: demand.name, found, by, reason })?;
        }
    }
    let demands: Vec<_> = demands.iter().map(Demand::record).collect();
    if call.writer.state.demands != demands {
        call.writer.note(Event::Demands { demands })?;
    }
    Ok(call.writer.flush().await?)
}

/// How the demand for approvals stands: with those of the journal, and those that a call brings.
pub(crate) fn approvals(
    engine: &Engine,
    plan: &Plan,
    state: Option<&RunState>,
    options: &RunOptions,
) -> Option<Demand> {
    let environment = &engine.environment;
    let (count, roles) = (environment.approvals, &environment.approver_roles);
    if count == 0 && roles.is_empty() {
        return None;
    }
    let operator = state.map(|state| state.operator.as_str());
    let kept = state.into_iter().flat_map(|state| &state.approvals).chain(&options.approvals);
    let counting: Vec<Approval> =
        kept.filter(|approval| verify(engine, &plan.plan_digest, operator, approval).is_ok()).cloned().collect();
    let names: BTreeSet<_> = counting.iter().map(|approval| approval.principal.as_str()).collect();
    let there = names.into_iter().collect::<Vec<_>>().join(", ");
    let standing = match missing_approvals(engine, &counting, count, roles) {
        None => Standing::Held(format!("by {there}")),
        Some((missing, roles)) => {
            let there = if there.is_empty() { String::new() } else { format!(" (there: {there})") };
            let roles = if roles.is_empty() { String::new() } else { format!(", by {}", roles.join(" and ")) };
            Standing::Missing { found: format!("{missing} missing{roles}{there}"), remedy: Remedy::Approve }
        }
    };
    let by = match roles.iter().cloned().collect::<Vec<_>>().as_slice() {
        [] => String::new(),
        roles => format!(" by {}", roles.join(" and ")),
    };
    let demanded = format!("{} approval(s) of this plan{by}", count.max(1));
    Some(Demand { name: DemandName::Approvals, demanded, standing })
}

/// A step after which there is no way back needs an approval, wherever it runs.
pub(crate) fn one_way(call: &Call<'_>, id: &StepId, direction: Direction) -> Result<Flow, EngineError> {
    // What a rehearsal cannot take back goes away with its server.
    if direction == Direction::Back || call.writer.state.rehearsal {
        return Ok(Flow::On);
    }
    let Some(why) = &call.workshop.bench(id)?.one_way else { return Ok(Flow::On) };
    let engine = call.engine;
    let count = engine.environment.approvals.max(1);
    Ok(match missing_approvals(engine, &call.approvals, count, &engine.environment.approver_roles) {
        None => Flow::On,
        Some((missing, roles)) => {
            let why = format!("step `{id}` cannot be taken back: {why}");
            Flow::End(RunEnd::Waiting { on: Waiting::Approvals { why, missing, roles } })
        }
    })
}

/// How many approvals are missing among those that count, and the roles that nobody of them holds.
fn missing_approvals(
    engine: &Engine,
    approvals: &[Approval],
    count: u32,
    roles: &BTreeSet<String>,
) -> Option<(u32, Vec<String>)> {
    let approvers: BTreeSet<_> = approvals.iter().map(|approval| approval.principal.as_str()).collect();
    let missing = count.saturating_sub(u32::try_from(approvers.len()).unwrap_or(u32::MAX));
    let held =
        |role: &String| approvers.iter().any(|approver| engine.people.roles_of(approver).any(|held| held == role));
    let roles: Vec<_> = roles.iter().filter(|role| !held(role)).cloned().collect();
    if missing == 0 && roles.is_empty() {
        return None;
    }
    Some((missing.max(u32::from(!roles.is_empty())), roles))
}

/// The approvals in the journal that count now: whoever lost a key or became the operator since counts no more.
fn counting(engine: &Engine, state: &RunState) -> Vec<Approval> {
    let counts =
        |approval: &&Approval| verify(engine, &state.plan.plan_digest, Some(&state.operator), approval).is_ok();
    state.approvals.iter().filter(counts).cloned().collect()
}

/// Whether an approval counts for a plan, and for a run that `operator` began.
fn verify(engine: &Engine, plan_digest: &str, operator: Option<&str>, approval: &Approval) -> Result<(), String> {
    if approval.plan_digest != plan_digest {
        return Err("it was given for another plan".to_owned());
    }
    if operator == Some(&approval.principal) || engine.operator.principal == approval.principal {
        return Err("whoever runs it cannot approve it".to_owned());
    }
    let Approval { principal, signature, .. } = approval;
    let now = engine.clock.now();
    crate::approval::verify(plan_digest, principal, signature, &engine.people, now)
        .map(drop)
        .map_err(|error| error.to_string())
}
