//! A step behind the redactor: whatever it says, the engine hears it without secrets.

use pgrunbook_document::{Block, StepId};

use super::Redactor;
use crate::engine::Engine;
use crate::step::{Change, Doing, Effect, Evidence, Happened, PlanCx, Progress, RunCx, Step, StepError, Watcher};

impl Engine {
    /// Builds the step of a block. The only way in which the engine comes to a step of its own.
    pub(crate) fn build(&self, block: &Block) -> Result<Box<dyn Step>, StepError> {
        self.quiet(self.kinds.build(block))
    }

    /// The same for a step that undoes another.
    pub(crate) fn undo_by(&self, by: &Block, step: &Block) -> Option<Result<Box<dyn Step>, StepError>> {
        self.kinds.undo_by(by, step).map(|built| self.quiet(built))
    }

    fn quiet(&self, built: Result<Box<dyn Step>, StepError>) -> Result<Box<dyn Step>, StepError> {
        match built {
            Ok(step) => Ok(Box::new(Quiet { step, redactor: self.redactor.clone() })),
            Err(error) => Err(self.redactor.redact_error(error)),
        }
    }
}

impl Redactor {
    /// The same error without secrets. Its cause is left out: nobody can look into it.
    pub(crate) fn redact_error(&self, error: StepError) -> StepError {
        StepError {
            message: self.redact(&error.message).into_owned(),
            help: error.help.map(|help| self.redact(&help).into_owned()),
            evidence: error.evidence.map(|evidence| Box::new(self.redact_evidence(*evidence))),
            source: None,
            ..error
        }
    }

    fn redact_evidence(&self, mut evidence: Evidence) -> Evidence {
        evidence.summary = self.redact(&evidence.summary).into_owned();
        let mut facts = serde_json::Value::Object(evidence.facts.into_iter().collect());
        self.redact_value(&mut facts);
        evidence.facts = match facts {
            serde_json::Value::Object(facts) => facts.into_iter().collect(),
            _ => std::collections::BTreeMap::new(),
        };
        evidence
    }
}

struct Quiet {
    step: Box<dyn Step>,
    redactor: Redactor,
}

impl Quiet {
    fn evidence(&self, result: Result<Evidence, StepError>) -> Result<Evidence, StepError> {
        result
            .map(|evidence| self.redactor.redact_evidence(evidence))
            .map_err(|error| self.redactor.redact_error(error))
    }

    fn happened(&self, result: Result<Happened, StepError>) -> Result<Happened, StepError> {
        Ok(match result.map_err(|error| self.redactor.redact_error(error))? {
            Happened::Yes(evidence) => Happened::Yes(self.redactor.redact_evidence(evidence)),
            Happened::Partly(evidence) => Happened::Partly(self.redactor.redact_evidence(evidence)),
            Happened::Unknown(why) => Happened::Unknown(self.redactor.redact(&why).into_owned()),
            Happened::No => Happened::No,
        })
    }
}

/// Progress, without secrets.
struct QuietWatcher<'a> {
    watcher: &'a dyn Watcher,
    redactor: &'a Redactor,
}

impl Watcher for QuietWatcher<'_> {
    fn progress(&self, step: &StepId, progress: Progress) {
        let progress = match progress {
            Progress::Line { text } => Progress::Line { text: self.redactor.redact(&text).into_owned() },
            amount @ Progress::Amount { .. } => amount,
        };
        self.watcher.progress(step, progress);
    }
}

impl Step for Quiet {
    fn effect(&self) -> Effect {
        self.step.effect()
    }

    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let change = self.step.plan(cx).await.map_err(|error| self.redactor.redact_error(error))?;
            let clean = |text: String| self.redactor.redact(&text).into_owned();
            let all = |texts: Vec<String>| texts.into_iter().map(clean).collect();
            Ok(Change {
                summary: clean(change.summary),
                details: all(change.details),
                warnings: all(change.warnings),
                blocked: change.blocked.map(clean),
                ..change
            })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let watcher = QuietWatcher { watcher: cx.watcher, redactor: &self.redactor };
            let mut cx = RunCx { watcher: &watcher, ..*cx };
            self.evidence(self.step.apply(&mut cx).await)
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { self.happened(self.step.resolve(cx).await) })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let watcher = QuietWatcher { watcher: cx.watcher, redactor: &self.redactor };
            let mut cx = RunCx { watcher: &watcher, ..*cx };
            self.evidence(self.step.undo(&mut cx).await)
        })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { self.happened(self.step.resolve_undo(cx).await) })
    }
}
