//! `topology` on a Redis target: users and their rules.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pgrunbook_document::Block;
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};

use super::{Where, artifact};
use crate::redis::access::{self, Access, Applied, Before, Kept, Plan, apply, is_undone, plan, undo};
use crate::registry::SkippedReading;
use crate::secret::Reference;
use crate::workplace::Workplace;

/// The version of the file that is kept for the way back.
const VERSION: u32 = 1;

/// Makes Redis users what the declaration says.
///
/// Effect: resolvable, since the servers tell their rules. Undo: `auto`, the rules as they were, which are kept in the run's
/// folder (mode 0600: they hold hashes of passwords).
struct Users {
    place: Where,
    access: Access,
}

/// Builds the step. A rehearsal has no Redis of its own: it is skipped there.
///
/// # Errors
/// If nothing is declared, or it is wrong.
pub fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let access = access::load(workplace.root())?;
    if workplace.is_rehearsal() {
        return Ok(Box::new(SkippedReading(Effect::Resolvable, access.files)));
    }
    Ok(Box::new(Users { place: Where::of(block, workplace)?, access }))
}

/// What people read of a plan, line by line.
pub fn topology_details(plan: &Plan) -> Vec<String> {
    plan.orders.iter().map(|one| format!("{}  -- at {}: {}", one.shown, one.at, one.why)).collect()
}

fn evidence(applied: &Applied) -> Evidence {
    let count = applied.plan.orders.len();
    let summary = match (count, applied.saved.len()) {
        (0, _) => "nothing was to be changed".to_owned(),
        (_, 0) => format!("{count} rules set, in memory alone"),
        (_, saved) => format!("{count} rules set, and saved on {saved} servers"),
    };
    let facts = [
        ("rules", topology_details(&applied.plan)),
        ("warnings", applied.plan.warnings.clone()),
        ("foreign", applied.plan.foreign.iter().cloned().collect()),
        ("saved", applied.saved.clone()),
    ];
    let told = facts.into_iter().filter(|(_, lines)| !lines.is_empty());
    told.fold(Evidence::of(summary), |evidence, (name, lines)| evidence.fact(name, lines))
}

/// How it was before the first attempt; a later one must not take what an earlier one made for it.
fn keep_first(path: &Path, before: &Before) -> Result<(), StepError> {
    if path.exists() {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!("how the users were cannot be kept for the way back: {error}. Nothing was changed.");
        StepError::unusable("redis-keep", message)
    };
    let next = path.with_extension("next");
    let text =
        serde_json::to_vec(&Kept { version: VERSION, before: before.clone() }).map_err(|error| failed(&error))?;
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&next, path)
    };
    write().map_err(|error| failed(&error))
}

fn kept(path: &Path) -> Option<Before> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (kept.version == VERSION).then_some(kept.before)
}

impl Users {
    async fn planned(&self) -> Result<Plan, StepError> {
        let password = |reference: &Reference| self.place.workplace.secret(reference);
        plan(self.place.options()?, &self.access, &password, self.place.timeout).await
    }
}

impl Step for Users {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let plan = self.planned().await?;
            let mut change =
                Change { files: self.access.files.clone(), details: topology_details(&plan), ..Change::default() };
            change.summary = match plan.orders.len() {
                0 => "nothing to change".to_owned(),
                count => format!("{count} rules of users to set"),
            };
            change.warnings = plan.warnings;
            change
                .warnings
                .extend(plan.foreign.iter().map(|user| format!("user `{user}` is not declared, and stays as it is")));
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let password = |reference: &Reference| self.place.workplace.secret(reference);
            let path = artifact(cx.artifacts, cx.step.as_str());
            let mut keep = |before: &Before| {
                keep_first(&path, before)?;
                fault::pass(Point::BeforeEffect);
                Ok(())
            };
            let options = self.place.options()?;
            let applied = apply(options, &self.access, &password, self.place.timeout, &mut keep).await?;
            fault::pass(Point::AfterEffect);
            Ok(evidence(&applied))
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            if kept(&artifact(cx.artifacts, cx.step.as_str())).is_none() {
                return Ok(Happened::No);
            }
            let plan = self.planned().await?;
            Ok(match plan.orders.len() {
                0 => Happened::Yes(Evidence::of("every rule is as declared, as the servers say")),
                left => Happened::Partly(Evidence::of(format!("{left} rules are not as declared yet"))),
            })
        })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let path = artifact(cx.artifacts, cx.step.as_str());
            let Some(before) = kept(&path) else {
                let message = format!("how the users were is not kept in {}", cx.artifacts.display());
                return Err(StepError::failed("no-undo", message).help("it is kept on the machine that ran the step"));
            };
            fault::pass(Point::BeforeEffect);
            let done = undo(self.place.options()?, &before, self.place.timeout).await?;
            fault::pass(Point::AfterEffect);
            let users: usize = before.values().map(std::collections::BTreeMap::len).sum();
            Ok(Evidence::of(format!("{users} rules are as they were, on {} servers", done.len())).fact("servers", done))
        })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let Some(before) = kept(&artifact(cx.artifacts, cx.step.as_str())) else { return Ok(Happened::No) };
            let undone = is_undone(self.place.options()?, &before, self.place.timeout).await?;
            Ok(if undone { Happened::Yes(Evidence::of("the rules are as they were")) } else { Happened::No })
        })
    }
}
