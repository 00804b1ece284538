//! The kinds of step. Dispatch, the linter's vocabulary, the reference and the contract test come from this list, and
//! nothing else lists kinds.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use async_trait::async_trait;
use pgrunbook_document::{Block, Diagnostic, KindSpec, Span, Vocabulary};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Kinds, LetGo, PlanCx, RunCx, Step, StepError};
use serde::de::DeserializeOwned;

use crate::workplace::Workplace;
use crate::{
    approve, audit, backup, fence, flag, http, isolation, migrate, notify, observe, parity, provision, redis, restore,
    sh, sign_off, source, sql, switch, topology, transfer,
};

/// One kind of step.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What its block may hold.
    pub spec: KindSpec,
    /// Builds the step of a block whose variables are bound. Touches nothing.
    pub build: Build,
    /// Builds the step that undoes another by means of one of this kind (a restore of a backup).
    pub undo_by: Option<UndoBy>,
}

/// Builds the step of a block.
pub type Build = fn(&Block, &Workplace) -> Result<Box<dyn Step>, StepError>;

/// Builds, from the block that the `undo` names and the block that is undone, the step that undoes it.
pub type UndoBy = fn(&Block, &Block, &Workplace) -> Result<Box<dyn Step>, StepError>;

/// Every kind.
pub const KINDS: &[Kind] = &[
    sql::CHECK,
    sql::PROBE,
    sql::APPLY,
    audit::KIND,
    migrate::KIND,
    topology::KIND,
    provision::KIND,
    isolation::KIND,
    source::KIND,
    source::CHECK,
    transfer::PREFLIGHT,
    transfer::TRANSFER,
    transfer::FOLLOW,
    parity::KIND,
    transfer::CUTOVER,
    fence::FENCE,
    fence::UNFENCE,
    switch::KIND,
    transfer::COMPLETE,
    flag::FLAG,
    flag::RAMP,
    observe::KIND,
    backup::KIND,
    restore::KIND,
    approve::KIND,
    sign_off::KIND,
    http::KIND,
    redis::HEALTH,
    redis::KEYS,
    redis::DELETE,
    sh::KIND,
    notify::KIND,
];

static SPECS: LazyLock<Vec<KindSpec>> = LazyLock::new(|| KINDS.iter().map(|kind| kind.spec).collect());

/// All kinds as data, for the parser and the linter.
pub fn vocabulary() -> Vocabulary<'static> {
    Vocabulary(&SPECS)
}

/// The kinds bound to a project's targets, as the engine wants them.
pub struct Registry {
    pub workplace: Workplace,
}

#[async_trait]
impl Kinds for Registry {
    fn vocabulary(&self) -> Vocabulary<'_> {
        vocabulary()
    }

    fn build(&self, block: &Block) -> Result<Box<dyn Step>, StepError> {
        (find(&block.kind)?.build)(block, &self.workplace)
    }

    fn undo_by(&self, by: &Block, step: &Block) -> Option<Result<Box<dyn Step>, StepError>> {
        let undo_by = find(&by.kind).ok()?.undo_by?;
        Some(undo_by(by, step, &self.workplace))
    }

    async fn let_go(&self, run: &str) -> LetGo {
        crate::fence::let_go(&self.workplace, run).await
    }
}

fn find(name: &str) -> Result<&'static Kind, StepError> {
    KINDS
        .iter()
        .find(|kind| kind.spec.name == name)
        .ok_or_else(|| StepError::unusable("no-kind", format!("`{name}` is not a kind of step")))
}

/// Reads a TOML block's own fields into the kind's type.
///
/// # Errors
/// A diagnostic at the place of the wrong value.
pub fn fields<T: DeserializeOwned>(block: &Block) -> Result<T, Diagnostic> {
    toml::from_str(&block.own_text()).map_err(|error| {
        let place: Span = error.span().map_or(block.span, |range| block.locate(range));
        Diagnostic::error("bad-value", place, error.message().to_owned())
    })
}

/// The same while a step is built: the block was linted, but its variables are bound only now.
///
/// # Errors
/// As the engine reports it.
pub fn bound_fields<T: DeserializeOwned>(block: &Block) -> Result<T, StepError> {
    fields(block).map_err(|found| StepError::unusable("bad-value", format!("step `{}`: {}", block.id, found.message)))
}

/// The target that a step must name.
///
/// # Errors
/// If it names none.
pub fn required_target(block: &Block) -> Result<String, StepError> {
    match &block.target {
        Some(target) => Ok(target.value.clone()),
        None => Err(StepError::unusable("no-target", format!("step `{}` names no target", block.id))),
    }
}

/// Stands for a step that acts on the world outside the rehearsal's cluster, and was not told that it may.
pub struct Skipped(pub Effect);

impl Step for Skipped {
    fn effect(&self) -> Effect {
        self.0
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            Ok(Change {
                summary: "skipped in a rehearsal; `rehearse = true` runs it there too".to_owned(),
                ..Change::default()
            })
        })
    }

    fn apply<'a>(&'a self, _cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            Ok(Evidence::of("skipped in this rehearsal: it acts outside the throwaway cluster").fact("skipped", true))
        })
    }

    fn undo<'a>(&'a self, _cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(
            async move { Ok(Evidence::of("nothing to undo: it was skipped in this rehearsal").fact("skipped", true)) },
        )
    }
}

/// The same of a step that reads files: they are part of the content that is rehearsed, or the run that follows has another digest.
pub struct SkippedReading(pub Effect, pub BTreeMap<String, String>);

impl Step for SkippedReading {
    fn effect(&self) -> Effect {
        self.0
    }

    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move { Ok(Change { files: self.1.clone(), ..Skipped(self.0).plan(cx).await? }) })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { Skipped(self.0).apply(cx).await })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { Skipped(self.0).undo(cx).await })
    }
}
