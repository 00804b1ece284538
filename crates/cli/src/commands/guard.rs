//! `guard`: does an application fit the schema? For applications that cannot embed the crate.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;

use pgrunbook_document::parse_duration;
use pgrunbook_guard::{Connecting, Guard, GuardError, Name, Outcome, Refusal, Source, VersionRow};
use pgrunbook_postgres::{ConnectOptions, ConnectSpec, Session};
use pgrunbook_server::{Asking, refused, shown};
use pgrunbook_steps::open::connect_options;
use pgrunbook_steps::secret::Reference;

use crate::app::App;
use crate::args::{GuardAction, GuardArgs, Output, SourceArgs};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// What the application finds the outcome in.
const OUTCOME: &str = "PGRUNBOOK_GUARD_OUTCOME";

pub async fn guard(app: &App, action: GuardAction) -> Result<u8, Failure> {
    match action {
        GuardAction::Check(args) => {
            let outcome = check(app, &args).await?;
            match app.global.format {
                Output::Json => put(&shown(&outcome).to_string()),
                _ => put(&outcome.to_string()),
            }
            Ok(exit::DONE)
        }
        GuardAction::Exec { guard, command } => {
            let outcome = check(app, &guard).await?;
            // Standard output is the application's.
            if matches!(outcome, Outcome::Compatible(_)) {
                app.aside(&outcome.to_string());
            }
            Err(become_it(&command, &outcome))
        }
    }
}

/// Does not return, unless the program cannot be started.
fn become_it(command: &[OsString], outcome: &Outcome) -> Failure {
    let [program, arguments @ ..] = command else {
        return Failure::unusable("command", "there is no command to start");
    };
    let error = std::process::Command::new(program).args(arguments).env(OUTCOME, outcome.code()).exec();
    let schema = match outcome {
        Outcome::Compatible(_) => "the schema fits",
        Outcome::Bypassed(_) => "the schema was not checked",
    };
    Failure::unusable("command", format!("{} cannot be started: {error}", Path::new(program).display()))
        .help(format!("{schema}; check the command's name and PATH"))
}

/// Checks, and writes the metrics of whatever came of it.
async fn check(app: &App, args: &GuardArgs) -> Result<Outcome, Failure> {
    let asked = ask(app, args).await?;
    let Some(path) = &args.metrics else { return Ok(asked?) };
    let text = match &asked {
        Ok(outcome) => outcome.prometheus(),
        Err(refused) => refused.prometheus(),
    };
    let written = write(&app.surroundings.cwd.join(path), &text);
    match asked {
        Ok(outcome @ Outcome::Compatible(_)) => written.map(|()| outcome),
        // An emergency does not wait for a file, and what keeps the application from starting is not the file.
        other => {
            if let Err(failure) = written {
                app.aside(&format!("warning: {}; go by what is said here", failure.message));
            }
            Ok(other?)
        }
    }
}

async fn ask(app: &App, args: &GuardArgs) -> Result<Result<Outcome, GuardError>, Failure> {
    let source = source(&args.source)?;
    let wait = parse_duration(&args.wait)
        .ok_or_else(|| Failure::unusable("bad-value", format!("`{}` is no duration such as 30s", args.wait)))?;
    let skip = app.surroundings.env.get("SKIP_SCHEMA_GUARD").map(String::as_str);
    let guard = Guard::new(&args.app_version, source).and_then(|guard| guard.wait(wait).skip(skip));
    let guard = match guard {
        Ok(guard) => guard,
        Err(refused) => return Ok(Err(refused)),
    };
    // An application that skips the check starts without a project, and without a server.
    let options = if skip == Some("true") { None } else { Some(database(app, args)?) };
    let mut connection = Connecting::new(|| {
        let options = options.clone();
        async move {
            let options = options.ok_or_else(|| Refusal::Unreachable("the check is skipped".to_owned()))?;
            Session::connect(&options, "pgrunbook:guard").await.map(Asking).map_err(|error| refused(&error))
        }
    });
    Ok(guard.check(&mut connection).await)
}

/// Where the version stands, as it was typed.
pub fn source(args: &SourceArgs) -> Result<Source, Failure> {
    if let Some(chain) = &args.chain {
        return Ok(Source::history(chain.clone()));
    }
    let columns = args.columns.split_once(',').filter(|(key, value)| !key.is_empty() && !value.is_empty());
    let (key_column, value_column) =
        columns.ok_or_else(|| Failure::unusable("bad-value", "--columns wants KEY,VALUE"))?;
    Ok(Source::Row(VersionRow {
        table: Name::parse(&args.table).map_err(|error| Failure::unusable("bad-value", error.to_string()))?,
        key: args.key.clone(),
        environment: args.row_environment.clone(),
        key_column: key_column.to_owned(),
        value_column: value_column.to_owned(),
    }))
}

fn database(app: &App, args: &GuardArgs) -> Result<ConnectOptions, Failure> {
    match &args.database {
        Some(text) => given(app, text),
        None => Ok(app.workplace()?.postgres(args.target.as_deref().unwrap_or("main"))?.clone()),
    }
}

/// What `--database` says. A URL may hold a password: it is never part of what is said.
pub fn given(app: &App, text: &str) -> Result<ConnectOptions, Failure> {
    let reference = Reference::parse(text);
    let shown = if reference.is_secret() { reference.shown() } else { "--database".to_owned() };
    let value = reference
        .resolve(&app.root(), &app.surroundings)
        .map_err(|error| Failure::unusable("database", error.to_string()))?;
    Ok(connect_options(&ConnectSpec::Given { text: value, origin: shown }, &app.surroundings)?)
}

/// Written beside it and renamed: a collector never reads half of it.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| Failure::unusable("file", format!("{} cannot be written: {error}", path.display())))
}

impl From<GuardError> for Failure {
    fn from(error: GuardError) -> Self {
        let exit = if error.is_verdict() { exit::FAILED } else { exit::UNUSABLE };
        Self { exit, ..Self::unusable(error.code(), error.what()) }.help(error.remedy())
    }
}
