//! The ways back of a run, and which are open now.

use pgrunbook_document::{RollbackPath, StepId, Validity};

use crate::engine::{Engine, PathStatus};
use crate::error::EngineError;
use crate::journal::{Direction, EndState};
use crate::notice;
use crate::operator::Operator;
use crate::plan::PlannedUndo;
use crate::state::{RunState, Slot, UNDO};
use crate::step::{Cancel, RunCx};
use crate::workshop::Workshop;

/// Every way back, and whether it is open. Runs the checks that `while check` names, and changes nothing.
pub(crate) async fn paths(
    engine: &Engine,
    workshop: &Workshop,
    run: &str,
    state: &RunState,
    operator: &dyn Operator,
) -> Result<Vec<PathStatus>, EngineError> {
    let mut paths = vec![PathStatus {
        slug: UNDO.to_owned(),
        title: "Undo what was done, last in first out".to_owned(),
        open: undo_is_open(state),
        steps: steps(state, UNDO),
    }];
    for path in &workshop.rollback_paths {
        paths.push(PathStatus {
            slug: path.slug.clone(),
            title: path.title.clone(),
            open: section_is_open(engine, workshop, run, state, path, operator).await?,
            steps: steps(state, &path.slug),
        });
    }
    Ok(paths)
}

/// Refuses a path that does not exist or is not open. A path on which the run goes back already stays open.
pub(crate) async fn refuse_if_closed(
    engine: &Engine,
    workshop: &Workshop,
    run: &str,
    state: &RunState,
    path: &str,
    operator: &dyn Operator,
) -> Result<(), EngineError> {
    if state.turned_back.as_deref() == Some(path) {
        return Ok(());
    }
    let open = if path == UNDO {
        undo_is_open(state)
    } else {
        let section = workshop.rollback_paths.iter().find(|section| section.slug == path);
        let section = section.ok_or_else(|| EngineError::NoSuchPath(path.to_owned()))?;
        section_is_open(engine, workshop, run, state, section, operator).await?
    };
    open.map_err(|why| EngineError::PathClosed { path: path.to_owned(), why })
}

fn steps(state: &RunState, path: &str) -> Vec<StepId> {
    let slots = state.way_back(path);
    let steps = slots.iter().flat_map(|slots| slots.iter()).filter_map(|slot| match slot {
        Slot::Step(step) => Some(step.clone()),
        Slot::Item(_) => None,
    });
    steps.collect()
}

fn ended(state: &RunState) -> Result<(), String> {
    match state.ended {
        None | Some(EndState::Completed) => Ok(()),
        Some(EndState::RolledBack) => Err("the run was rolled back to its end".to_owned()),
        Some(EndState::Aborted) => Err("the run was aborted".to_owned()),
    }
}

fn undo_is_open(state: &RunState) -> Result<(), String> {
    ended(state)?;
    for step in state.plan.steps() {
        if let PlannedUndo::OneWay { why } = &step.undo
            && (state.is_done(&step.id) || state.partial.as_ref() == Some(&step.id))
        {
            return Err(format!("step `{}` is done and cannot be taken back: {why}", step.id));
        }
    }
    Ok(())
}

async fn section_is_open(
    engine: &Engine,
    workshop: &Workshop,
    run: &str,
    state: &RunState,
    path: &RollbackPath,
    operator: &dyn Operator,
) -> Result<Result<(), String>, EngineError> {
    if let Err(why) = ended(state) {
        return Ok(Err(why));
    }
    for valid in &path.valid {
        let holds = match &valid.value {
            Validity::Until(step) => match workshop.instances(step).find(|id| has_begun(state, id)) {
                Some(begun) => Err(format!("it was open until step `{begun}`, and that has begun")),
                None => Ok(()),
            },
            Validity::After(step) => is_after(workshop, state, step),
            Validity::For(limit, step) => is_after(workshop, state, step).and_then(|()| {
                let last = workshop.instances(step).filter_map(|id| state.done_at.get(id)).max();
                let age = last.map(|last| engine.clock.now().duration_since(*last));
                match age {
                    Some(age) if age.unsigned_abs() <= *limit => Ok(()),
                    _ => Err(format!("it was open for {limit:?} after step `{step}`, and that time is over")),
                }
            }),
            Validity::While(check) => check_holds(engine, workshop, run, state, check, operator).await?,
        };
        if let Err(why) = holds {
            return Ok(Err(why));
        }
    }
    Ok(Ok(()))
}

fn has_begun(state: &RunState, step: &StepId) -> bool {
    state.step(step, Direction::Forward).is_some()
}

fn is_after(workshop: &Workshop, state: &RunState, step: &StepId) -> Result<(), String> {
    match workshop.instances(step).find(|id| !state.is_done(id)) {
        Some(open) => Err(format!("it opens after step `{open}`, and that is not done")),
        None => Ok(()),
    }
}

/// Runs a check of the path now, outside of the journal: it changes nothing.
async fn check_holds(
    engine: &Engine,
    workshop: &Workshop,
    run: &str,
    state: &RunState,
    check: &StepId,
    operator: &dyn Operator,
) -> Result<Result<(), String>, EngineError> {
    let bench = workshop.bench(check)?;
    if bench.changes {
        return Ok(Err(format!("step `{check}` is no check: it changes something")));
    }
    let tool = &bench.step;
    let mut cx = RunCx {
        run,
        step: check,
        direction: Direction::Back,
        attempt: 0,
        epoch: state.epoch,
        digest: &tool.digest,
        content_digest: &state.plan.content_digest,
        operator: &engine.operator.principal,
        clock: &*engine.clock,
        cancel: &Cancel::default(),
        watcher: operator,
        recorded: &state.recorded,
        notes: &[],
        notebook: None,
        artifacts: &engine.artifacts,
        approvals: &[],
        sign_offs: &[],
        scene: &notice::NOWHERE,
    };
    let result = tool.step.apply(&mut cx).await;
    Ok(result.map(drop).map_err(|error| format!("check `{check}` does not hold: {error}")))
}
