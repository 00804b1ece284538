//! The way of a command, with another that tells whether it is done.

use std::collections::BTreeMap;

use async_trait::async_trait;
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::{Change, Effect, Evidence, Happened, RunCx, StepError};

use super::Way;
use crate::process::{Ended, run};
use crate::workplace::Workplace;

/// Always there, so that a command finds its programs and its user's files.
const ALWAYS: [&str; 2] = ["PATH", "HOME"];

pub(super) struct Act {
    pub command: Vec<String>,
    pub check: Option<Vec<String>>,
    pub undo: Option<Vec<String>>,
    pub workplace: Workplace,
}

impl Act {
    /// The exit status, and the last lines; `None`: it was stopped.
    async fn run(&self, argv: &[String], cx: &RunCx<'_>) -> Result<(Option<i32>, Vec<String>), StepError> {
        let surroundings = self.workplace.surroundings();
        let env: BTreeMap<String, String> =
            ALWAYS.iter().filter_map(|name| Some(((*name).to_owned(), surroundings.var(name)?))).collect();
        let finished =
            run(argv, &env, self.workplace.root(), cx.cancel, |line| cx.say(line)).await.map_err(|error| {
                StepError::failed("spawn", format!("`{}` cannot be started: {error}", argv[0])).source(error)
            })?;
        Ok(match finished.ended {
            // A signal is no status of success.
            Ended::Exited(status) => (Some(status.code().unwrap_or(-1)), finished.tail),
            Ended::Stopped => (None, finished.tail),
        })
    }

    /// Whether the effect is there; `None`: nothing can tell.
    async fn is_done(&self, cx: &RunCx<'_>) -> Result<Option<bool>, StepError> {
        let Some(check) = &self.check else { return Ok(None) };
        match self.run(check, cx).await?.0 {
            Some(status) => Ok(Some(status == 0)),
            None => Err(StepError::interrupted(format!("`{}` was stopped", check[0]))),
        }
    }

    /// Runs one of the commands, and looks whether the effect is there, or gone.
    async fn act(&self, argv: &[String], there: bool, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        fault::pass(Point::BeforeEffect);
        let (status, tail) = self.run(argv, cx).await?;
        fault::pass(Point::AfterEffect);
        let evidence = Evidence::of(format!("`{}` ended with 0", argv.join(" "))).fact("output", tail);
        match status {
            None => {
                Err(StepError::in_doubt("stopped", "the command was stopped, and may have done a part of its work")
                    .evidence(evidence))
            }
            // What it did nobody knows, unless there is a check; the engine asks it.
            Some(status) if status != 0 => {
                let text = format!("`{}` ended with {status}, and may have done a part of its work", argv[0]);
                Err(StepError::in_doubt("exit-status", text).evidence(evidence))
            }
            Some(_) => match self.is_done(cx).await? {
                Some(done) if done != there => {
                    let text = format!("`{}` ended with 0, and its `check` says that it did nothing", argv[0]);
                    Err(StepError::failed("switch-check", text).evidence(evidence))
                }
                _ => Ok(evidence),
            },
        }
    }

    fn told(done: Option<bool>, there: bool) -> Happened {
        match done {
            None => Happened::Unknown("a command without `check` cannot tell".to_owned()),
            Some(done) if done == there => Happened::Yes(Evidence::of("its `check` says so")),
            Some(_) => Happened::No,
        }
    }
}

#[async_trait]
impl Way for Act {
    fn effect(&self) -> Effect {
        if self.check.is_some() { Effect::Resolvable } else { Effect::Opaque }
    }

    async fn plan(&self) -> Result<Change, StepError> {
        let mut change = Change { summary: format!("run `{}`", self.command.join(" ")), ..Change::default() };
        change.warnings.push("a command cannot be planned: what it changes is not known beforehand".to_owned());
        if let Some(check) = &self.check {
            change.details.push(format!("done when `{}` ends with 0", check.join(" ")));
        }
        match &self.undo {
            Some(undo) => change.details.push(format!("undone by `{}`", undo.join(" "))),
            None => change.warnings.push("no `undo_command`: a rollback stops here".to_owned()),
        }
        Ok(change)
    }

    async fn apply(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        if self.is_done(cx).await? == Some(true) {
            return Ok(Evidence::of("nothing to do: its `check` says that it is done").fact("already", true));
        }
        self.act(&self.command, true, cx).await
    }

    async fn resolve(&self, cx: &RunCx<'_>) -> Result<Happened, StepError> {
        Ok(Self::told(self.is_done(cx).await?, true))
    }

    async fn undo(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        if cx.recorded(cx.step).is_some_and(|evidence| evidence.facts.contains_key("already")) {
            return Ok(Evidence::of("nothing to take back: it was done before this run"));
        }
        let undo = self.undo.as_ref().ok_or_else(|| {
            StepError::failed("no-undo", format!("step `{}` has no `undo_command`", cx.step))
                .help("take it back by hand and mark it as done")
        })?;
        self.act(undo, false, cx).await
    }

    async fn resolve_undo(&self, cx: &RunCx<'_>) -> Result<Happened, StepError> {
        Ok(Self::told(self.is_done(cx).await?, false))
    }
}
