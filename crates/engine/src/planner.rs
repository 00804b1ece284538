//! Makes a plan: variables resolved, every step asked what it would do, digests taken.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgrunbook_document::{Runbook, Source, StepId, VarValue};
use sha2::{Digest, Sha256};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::expand::{self, Bound, BoundUndo, Section, SectionEntry};
use crate::plan::{FORMAT, Moved, Plan, PlannedEntry, PlannedPhase, PlannedStep, PlannedUndo};
use crate::step::{Cancel, PlanCx};
use crate::target::Identity;

/// The runbook's variables, by name.
type Values = BTreeMap<String, VarValue>;

impl Engine {
    /// Resolves every step against the live targets. Changes nothing.
    ///
    /// `overrides` win over the environment's values, and these over the runbook's defaults. Secret references stay
    /// references.
    ///
    /// # Errors
    /// If the runbook has errors, a variable has no value, or a target cannot be reached. That a step could not run
    /// now is no error: the plan says so.
    pub async fn plan(&self, runbook: &Runbook, overrides: &BTreeMap<String, VarValue>) -> Result<Plan, EngineError> {
        let allowed = &runbook.settings.environments;
        if !allowed.is_empty() && !allowed.contains(&self.environment.name) {
            return Err(EngineError::WrongEnvironment {
                environment: self.environment.name.clone(),
                allowed: allowed.clone(),
            });
        }
        let variables = resolve(runbook, &self.environment.vars, overrides)?;
        let expanded = expand::expand(runbook, &variables, self.kinds.vocabulary()).map_err(EngineError::Document)?;
        let targets = self.identities(runbook, &expanded.phases, &expanded.rollback_paths).await?;
        let within = runbook.settings.rollback_within;
        let phases = self.sections(&expanded.phases, &variables, within).await?;
        let rollback_paths = self.sections(&expanded.rollback_paths, &variables, within).await?;

        let path = runbook.sources.first().map_or_else(String::new, |source| source.path.clone());
        let mut plan = Plan {
            format: FORMAT,
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            made_at: self.clock.now(),
            title: runbook.title.clone().unwrap_or_else(|| path.clone()),
            runbook: path,
            environment: self.environment.name.clone(),
            protected: self.environment.protected,
            sources: runbook.sources.clone(),
            targets,
            variables,
            phases,
            rollback_paths,
            rollback_within_ms: within.and_then(|limit| u64::try_from(limit.as_millis()).ok()),
            content_digest: String::new(),
            plan_digest: String::new(),
        };
        plan.content_digest = content_digest(&plan);
        plan.plan_digest = plan_digest(&plan);
        self.messenger.check(&plan).map_err(EngineError::Notices)?;
        Ok(plan)
    }

    /// Plans once more what was planned before, from the files as they are now, and refuses if anything moved.
    ///
    /// # Errors
    /// As [`Engine::plan`], and [`EngineError::Moved`] with everything that is not as it was. A moved timeline alone
    /// is left to the run, where a person may accept it.
    pub async fn renew(&self, saved: &Plan, runbook: &Runbook) -> Result<Plan, EngineError> {
        let fresh = self.plan(runbook, &saved.variables).await?;
        let mut moved = saved.compare(&fresh);
        moved.retain(|moved| !matches!(moved, Moved::Timeline { .. }));
        if !moved.is_empty() {
            return Err(EngineError::Moved(moved));
        }
        Ok(saved.clone())
    }

    /// Who every target is that the runbook or one of its blocks names.
    async fn identities(
        &self,
        runbook: &Runbook,
        phases: &[Section],
        paths: &[Section],
    ) -> Result<Vec<Identity>, EngineError> {
        let mut names: BTreeSet<&str> = runbook.settings.targets.iter().map(|name| name.value.as_str()).collect();
        for section in phases.iter().chain(paths) {
            for bound in section.steps() {
                let undo = match &bound.undo {
                    BoundUndo::Block(block) | BoundUndo::By(block) => block.target.as_ref(),
                    _ => None,
                };
                names.extend(bound.block.target.iter().chain(undo).map(|target| target.value.as_str()));
            }
        }
        let mut identities = Vec::new();
        for name in names {
            identities.push(self.identify(name).await?);
        }
        Ok(identities)
    }

    pub(crate) async fn identify(&self, name: &str) -> Result<Identity, EngineError> {
        let target = self.targets.get(name).ok_or_else(|| EngineError::UnknownTarget(name.to_owned()))?;
        target.identify().await.map_err(|source| EngineError::of_target(name, self.redactor.redact_error(source)))
    }

    async fn sections(
        &self,
        sections: &[Section],
        variables: &Values,
        within: Option<Duration>,
    ) -> Result<Vec<PlannedPhase>, EngineError> {
        let mut phases = Vec::new();
        for section in sections {
            let mut entries = Vec::new();
            for entry in &section.entries {
                entries.push(match entry {
                    SectionEntry::Item { id, text, roles, proofs } => PlannedEntry::Item {
                        id: id.clone(),
                        text: text.clone(),
                        roles: roles.clone(),
                        proofs: proofs.clone(),
                    },
                    SectionEntry::Step(bound) => {
                        PlannedEntry::Step(Box::new(self.step(bound, variables, within).await?))
                    }
                });
            }
            phases.push(PlannedPhase { slug: section.slug.clone(), title: section.title.clone(), entries });
        }
        Ok(phases)
    }

    async fn step(
        &self,
        bound: &Bound,
        variables: &Values,
        rollback_within: Option<Duration>,
    ) -> Result<PlannedStep, EngineError> {
        let block = &bound.block;
        let at = |source| EngineError::of_step(&block.id, source);
        let step = self.build(block).map_err(at)?;
        let (cancel, clock) = (Cancel::default(), &*self.clock);
        let change = step
            .plan(&PlanCx { step: &block.id, clock, cancel: &cancel, people: &self.people, variables, rollback_within })
            .await
            .map_err(at)?;
        // What undoes it must be buildable too: a way back that is found broken on the way back is none.
        let undo = match &bound.undo {
            BoundUndo::NotNeeded => PlannedUndo::NotNeeded,
            BoundUndo::Own { word } => PlannedUndo::Own { word: word.clone() },
            BoundUndo::Block(by) => {
                self.build(by).map_err(|source| EngineError::of_step(&by.id, source))?;
                PlannedUndo::Block { id: by.id.clone(), text: by.text.clone() }
            }
            BoundUndo::By(by) => {
                self.undo_by(by, block).ok_or_else(|| at(cannot_undo(&by.id, &by.kind)))?.map_err(at)?;
                PlannedUndo::Block { id: by.id.clone(), text: by.text.clone() }
            }
            BoundUndo::Nothing { why } => PlannedUndo::Nothing { why: why.clone() },
            BoundUndo::OneWay { why } => PlannedUndo::OneWay { why: why.clone() },
        };
        Ok(PlannedStep {
            id: block.id.clone(),
            kind: block.kind.clone(),
            target: block.target.as_ref().map(|target| target.value.clone()),
            effect: step.effect(),
            text: block.text.clone(),
            digest: expand::digest(block),
            change,
            undo,
        })
    }
}

pub(crate) fn cannot_undo(by: &StepId, kind: &str) -> crate::step::StepError {
    crate::step::StepError::unusable(
        "undo",
        format!("its undo names step `{by}`, and a `{kind}` step cannot undo another step"),
    )
    .help("name a block marked `undo`, or a backup step")
}

impl Section {
    pub(crate) fn steps(&self) -> impl Iterator<Item = &Bound> {
        self.entries.iter().filter_map(|entry| match entry {
            SectionEntry::Step(bound) => Some(&**bound),
            SectionEntry::Item { .. } => None,
        })
    }
}

/// The value of every variable that the runbook declares.
fn resolve(
    runbook: &Runbook,
    environment: &BTreeMap<String, VarValue>,
    overrides: &BTreeMap<String, VarValue>,
) -> Result<BTreeMap<String, VarValue>, EngineError> {
    let declared = &runbook.settings.vars;
    let unknown: Vec<_> = overrides.keys().filter(|name| !declared.contains_key(*name)).cloned().collect();
    if !unknown.is_empty() {
        return Err(EngineError::UnknownVariables(unknown));
    }
    let mut missing = Vec::new();
    let mut values = BTreeMap::new();
    for (name, variable) in declared {
        match overrides.get(name).or_else(|| environment.get(name)).or(variable.default.as_ref()) {
            Some(value) => drop(values.insert(name.clone(), value.clone())),
            None => missing.push(name.clone()),
        }
    }
    if missing.is_empty() { Ok(values) } else { Err(EngineError::MissingVariables(missing)) }
}

/// Over the texts of the runbook and its includes, and the files that steps read. Where the project lies, in which
/// environment and on which machine, does not matter.
pub(crate) fn content_digest(plan: &Plan) -> String {
    let mut parts = Parts::new("pgrunbook content 1");
    for Source { text, .. } in &plan.sources {
        parts.add(text);
    }
    for (path, digest) in plan.files() {
        parts.add(path);
        parts.add(digest);
    }
    parts.digest()
}

/// Over the content digest, the targets' identity keys and the variables.
pub(crate) fn plan_digest(plan: &Plan) -> String {
    let mut parts = Parts::new("pgrunbook plan 1");
    parts.add(&plan.content_digest);
    for target in &plan.targets {
        parts.add(&target.name);
        parts.add(&target.key);
    }
    for (name, value) in &plan.variables {
        parts.add(name);
        match value {
            VarValue::Text(text) => parts.add(text),
            VarValue::List(values) => {
                parts.add(&values.len().to_string());
                values.iter().for_each(|value| parts.add(value));
            }
        }
    }
    // Plans of runbooks that declare none keep the digest that they had before there was such a setting.
    if let Some(limit) = plan.rollback_within_ms {
        parts.add("rollback_within_ms");
        parts.add(&limit.to_string());
    }
    parts.digest()
}

/// A digest over parts of which each is led by its length: no two lists of parts are the same bytes.
struct Parts(Sha256);

impl Parts {
    fn new(purpose: &str) -> Self {
        let mut parts = Self(Sha256::new());
        parts.add(purpose);
        parts
    }

    fn add(&mut self, part: &str) {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    fn digest(self) -> String {
        format!("{:x}", self.0.finalize())
    }
}
