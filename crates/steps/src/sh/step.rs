//! The block: `sh = "stop-ingest"`, `run = "systemctl stop ingest"`, `undo_run = "systemctl start ingest"`.

use std::collections::BTreeMap;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;

use crate::process::{Ended, run};
use crate::registry::{Kind, Skipped, bound_fields, fields};
use crate::secret::Reference;

use crate::workplace::Workplace;

/// The kind `sh`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "sh",
        language: Language::Toml,
        summary: "Runs a command. Nothing can be known of its effect after a crash: the operator is asked.",
        fields: &[
            FieldSpec { name: "run", about: "A line for `/bin/sh -c`.", required: false },
            FieldSpec { name: "argv", about: "Program and arguments, without a shell.", required: false },
            FieldSpec { name: "undo_run", about: "A line that takes it back, for `undo = \"auto\"`.", required: false },
            FieldSpec {
                name: "env",
                about: "Names of the variables that it may see; `PATH` and `HOME` always.",
                required: false,
            },
            FieldSpec {
                name: "set_env",
                about: "Variables for it alone; values may be `env:`, `file:`, `cmd:`.",
                required: false,
            },
            FieldSpec {
                name: "expect_exit",
                about: "The exit status that means success; 0 if nothing is said.",
                required: false,
            },
            FieldSpec {
                name: "rehearse",
                about: "Whether a rehearsal runs it too; else it is skipped there.",
                required: false,
            },
        ],
        needs_target: false,
        changes: true,
        undo_words: &["auto"],
        check: |block| fields::<Sh>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Runs a command.
///
/// Effect: opaque. Undo: `auto` by `undo_run`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sh {
    sh: String,
    run: Option<String>,
    argv: Option<Vec<String>>,
    undo_run: Option<String>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    set_env: BTreeMap<String, String>,
    #[serde(default)]
    expect_exit: i32,
    #[serde(default)]
    rehearse: bool,
}

/// Always there, so that a command finds its programs and its user's files.
const ALWAYS: [&str; 2] = ["PATH", "HOME"];

struct Shell {
    argv: Vec<String>,
    undo: Option<Vec<String>>,
    env: Vec<String>,
    set_env: BTreeMap<String, Reference>,
    expect_exit: i32,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Sh = bound_fields(block)?;
    let shell = |line: String| vec!["/bin/sh".to_owned(), "-c".to_owned(), line];
    let argv = match (fields.run, fields.argv) {
        (Some(line), None) => shell(line),
        (None, Some(argv)) if !argv.is_empty() => argv,
        _ => {
            return Err(StepError::unusable(
                "bad-value",
                format!("step `{}`: write either `run` or `argv`", fields.sh),
            ));
        }
    };
    if workplace.is_rehearsal() && !fields.rehearse {
        return Ok(Box::new(Skipped(Effect::Idempotent)));
    }
    Ok(Box::new(Shell {
        argv,
        undo: fields.undo_run.map(shell),
        env: fields.env,
        set_env: fields.set_env.into_iter().map(|(name, value)| (name, Reference::parse(&value))).collect(),
        expect_exit: fields.expect_exit,
        workplace: workplace.clone(),
    }))
}

impl Step for Shell {
    fn effect(&self) -> Effect {
        Effect::Opaque
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let line = |argv: &[String]| argv.last().filter(|_| argv.len() == 3 && argv[1] == "-c").cloned();
            let shown = line(&self.argv).unwrap_or_else(|| self.argv.join(" "));
            let mut change = Change { summary: format!("run `{shown}`"), ..Change::default() };
            change.warnings.push("a command cannot be planned: what it changes is not known beforehand".to_owned());
            if let Some(undo) = self.undo.as_deref().and_then(line) {
                change.details.push(format!("undone by `{undo}`"));
            }
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { self.execute(&self.argv, cx).await })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let undo = self.undo.as_ref().ok_or_else(|| {
                StepError::failed("no-undo", format!("step `{}` has no `undo_run`", cx.step))
                    .help("write `undo_run = \"...\"`, or take it back by hand and mark it as done")
            })?;
            self.execute(undo, cx).await
        })
    }
}

impl Shell {
    async fn execute(&self, argv: &[String], cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let surroundings = self.workplace.surroundings();
        let names = ALWAYS.iter().map(|name| (*name).to_owned()).chain(self.env.iter().cloned());
        let mut env: BTreeMap<String, String> =
            names.filter_map(|name| surroundings.var(&name).map(|value| (name, value))).collect();
        for (name, value) in &self.set_env {
            env.insert(name.clone(), self.workplace.secret(value)?);
        }
        fault::pass(Point::BeforeEffect);
        let finished =
            run(argv, &env, self.workplace.root(), cx.cancel, |line| cx.say(line)).await.map_err(|error| {
                StepError::failed("spawn", format!("`{}` cannot be started: {error}", argv[0])).source(error)
            })?;
        fault::pass(Point::AfterEffect);
        let evidence = Evidence::of("").fact("output", finished.tail);
        match finished.ended {
            Ended::Exited(status) if status.code() == Some(self.expect_exit) => {
                Ok(Evidence { summary: status.to_string(), ..evidence })
            }
            Ended::Exited(status) => {
                let message = format!("the command ended with {status}, expected exit status {}", self.expect_exit);
                Err(StepError::failed("exit-status", message)
                    .evidence(Evidence { summary: status.to_string(), ..evidence }))
            }
            Ended::Stopped => {
                Err(StepError::in_doubt("stopped", "the command was stopped, and may have done a part of its work")
                    .evidence(Evidence { summary: "stopped".to_owned(), ..evidence }))
            }
        }
    }
}
