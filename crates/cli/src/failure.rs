//! What a command says when it cannot do what was asked: one sentence, and what to do next.

use pgrunbook_engine::step::Failure as StepFailure;
use pgrunbook_engine::{EngineError, JournalError, StepError};
use pgrunbook_postgres::PgError;
use pgrunbook_postgres::sandbox::SandboxError;
use pgrunbook_steps::{OpenError, ProjectError};

use crate::commands::remedy;
use crate::exit;

/// Why a command ended before its end.
#[derive(Debug)]
pub struct Failure {
    pub exit: u8,
    /// Stable name.
    pub code: String,
    pub message: String,
    pub help: Option<String>,
    /// Printed before the message, as it is: a lint report, a diff.
    pub report: String,
}

impl Failure {
    /// Bad input; nothing was touched.
    pub fn unusable(code: &str, message: impl Into<String>) -> Self {
        Self { exit: exit::UNUSABLE, code: code.to_owned(), message: message.into(), help: None, report: String::new() }
    }

    /// What the engine says of a runbook, pointing into its sources.
    pub fn of_plan(error: EngineError, sources: &[pgrunbook_document::Source], colour: bool) -> Self {
        match error {
            EngineError::Document(found) => Self {
                report: pgrunbook_document::render(&found, sources, pgrunbook_document::Format::Human { colour }),
                ..Self::unusable("document", EngineError::Document(found).to_string())
            },
            error => error.into(),
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        let mut failure = Self::unusable("engine", message);
        match error {
            EngineError::Step { source, .. } | EngineError::Target { source, .. } => {
                let inner = Self::from(*source);
                failure = Self { message: failure.message, ..inner };
            }
            EngineError::Document(found) => {
                failure.code = "document".to_owned();
                failure.report = found.iter().map(|one| format!("{}: {}\n", one.code, one.message)).collect();
            }
            EngineError::MissingVariables(names) => {
                failure.code = "variable".to_owned();
                let first = names.first().cloned().unwrap_or_default();
                failure.help =
                    Some(format!("give it: --var {first}=VALUE, or in pgrunbook.toml under the environment's `vars`"));
            }
            EngineError::Moved(moved) => {
                failure.code = "moved".to_owned();
                failure.help = Some("make a new plan and let it be approved: nothing was touched".to_owned());
                for one in moved {
                    if let pgrunbook_engine::Moved::Source { diff, .. } = one {
                        failure.report.push_str(&diff);
                    }
                }
            }
            EngineError::Demands { runbook, missing, .. } => {
                failure.exit = exit::WAITING;
                failure.code = "demands".to_owned();
                let remedies: Vec<_> = missing.iter().filter_map(|demand| remedy(demand, &runbook)).collect();
                failure.help = Some(format!("{}\nnothing was begun", remedies.join("\n")));
            }
            EngineError::Override { .. } => {
                failure.code = "override".to_owned();
                failure.help = Some(
                    "`override_roles` of the environment names who may; the reason says who decided it and why, in a sentence"
                        .to_owned(),
                );
            }
            EngineError::NotConfirmed { .. } => {
                failure.code = "confirmation".to_owned();
                failure.help = Some("give it with --confirm \"...\", exactly; nothing was touched".to_owned());
            }
            EngineError::PathClosed { .. } | EngineError::NoSuchPath(_) => {
                failure.code = "path".to_owned();
                failure.help = Some("`pgrunbook status RUN` shows every way back, and which are open".to_owned());
            }
            EngineError::NoSuchRun(_) => {
                failure.code = "run".to_owned();
                failure.help = Some("`pgrunbook status` lists the runs".to_owned());
            }
            EngineError::Blocked { .. } => failure.code = "blocked".to_owned(),
            EngineError::Notices(_) => failure.code = "notify".to_owned(),
            EngineError::Approval { .. } => failure.code = "approval".to_owned(),
            EngineError::SignOff { .. } => {
                failure.code = "sign-off".to_owned();
                failure.help =
                    Some("say who you are with --as NAME, as allowed_signers has it; nothing was recorded".to_owned());
            }
            EngineError::Closing { .. } => {
                failure.code = "close-review".to_owned();
                failure.help = Some(
                    "somebody else than who overrode says who they are (--as NAME, as allowed_signers has it) and what they found; nothing was recorded"
                        .to_owned(),
                );
            }
            EngineError::Journal(error) => failure = Self::from(error),
            EngineError::JournalInTarget { .. } => {
                failure.code = "journal-in-target".to_owned();
                failure.help =
                    Some("keep the journal in a file, or in another cluster: `[journal]` in pgrunbook.toml".to_owned());
            }
            _ => {}
        }
        failure
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let mut failure = Self::unusable("journal", error.to_string());
        match error {
            JournalError::Taken(holder) => {
                failure.code = "taken".to_owned();
                let at = holder.step.map_or_else(String::new, |step| format!(" It stands at step `{step}`."));
                failure.message.push_str(&format!(".{at}"));
                failure.help = Some(format!("`pgrunbook watch {}` shows what it does", holder.run));
            }
            JournalError::Behind => {
                failure.exit = exit::FAILED;
                failure.code = "taken-over".to_owned();
            }
            JournalError::Storage { .. } => {
                failure.exit = exit::FAILED;
                failure.help = Some(
                    "free space or mend the file's permissions, then `pgrunbook resume`: nothing is done before it is recorded"
                        .to_owned(),
                );
            }
            JournalError::Broken { .. } => {
                failure.code = "broken-journal".to_owned();
                failure.help = Some(
                    "the journal was changed by hand or damaged: restore the file from a backup; nothing was touched"
                        .to_owned(),
                );
            }
            JournalError::Newer { .. } => failure.help = Some("update pgrunbook".to_owned()),
        }
        failure
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Self {
            exit: match error.failure {
                StepFailure::Unusable => exit::UNUSABLE,
                StepFailure::Waiting => exit::WAITING,
                StepFailure::InDoubt => exit::UNKNOWN,
                StepFailure::Failed | StepFailure::Interrupted => exit::FAILED,
            },
            code: error.code,
            message: error.message,
            help: error.help,
            report: String::new(),
        }
    }
}

impl From<ProjectError> for Failure {
    fn from(error: ProjectError) -> Self {
        let mut failure = Self::unusable("project", error.to_string());
        match error {
            ProjectError::Malformed { path, text, span: Some(span), message } => {
                let place = pgrunbook_document::Span { file: 0, start: span.start, end: span.end };
                let one = pgrunbook_document::Diagnostic::error("project", place, message);
                let source = pgrunbook_document::Source { path, text };
                let format = pgrunbook_document::Format::Human { colour: false };
                failure.report = pgrunbook_document::render(&[one], &[source], format);
                failure.message = "pgrunbook.toml cannot be used".to_owned();
            }
            ProjectError::ChooseEnvironment { .. } => failure.help = Some("choose one: --environment NAME".to_owned()),
            _ => {}
        }
        failure
    }
}

impl From<pgrunbook_steps::boundary::ReviewError> for Failure {
    fn from(error: pgrunbook_steps::boundary::ReviewError) -> Self {
        use pgrunbook_steps::boundary::ReviewError;
        match error {
            ReviewError::Project(error) => error.into(),
            ReviewError::NoTrees { .. } => Self::unusable("review", error.to_string())
                .help("name each application's files and schemas: [code.NAME] with `files` and `may_write`"),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Journal(error) => Self { exit: exit::UNUSABLE, ..Self::from(error) },
            error => Self::unusable("open", error.to_string()),
        }
    }
}

impl From<pgrunbook_steps::parity::ParityError> for Failure {
    fn from(error: pgrunbook_steps::parity::ParityError) -> Self {
        StepError::from(error).into()
    }
}

impl From<PgError> for Failure {
    fn from(error: PgError) -> Self {
        error.into_step_error().into()
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let help = match &error {
            SandboxError::NoBinaries { .. } => {
                Some("install it: apt install postgresql (Debian, Ubuntu), or put its programs on PATH".to_owned())
            }
            SandboxError::NoVersion { major, .. } => Some(format!(
                "take one that is there, or install it: apt install postgresql-{major} (Debian, Ubuntu; all versions \
                 from https://apt.postgresql.org)"
            )),
            SandboxError::NoProgram { major, .. } => {
                Some(format!("install it: apt install postgresql-client-{major} (Debian, Ubuntu)"))
            }
            _ => None,
        };
        Self { help, ..Self::unusable("sandbox", error.to_string()) }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::unusable("file", error.to_string())
    }
}

impl From<pgrunbook_steps::rehearse::RehearsalError> for Failure {
    fn from(error: pgrunbook_steps::rehearse::RehearsalError) -> Self {
        use pgrunbook_steps::rehearse::RehearsalError;
        match error {
            RehearsalError::Open(error) => error.into(),
            RehearsalError::Sandbox(error) => error.into(),
            RehearsalError::Step(error) => error.into(),
        }
    }
}
