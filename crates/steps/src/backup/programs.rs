//! PostgreSQL's client programs: which one, with which connection, and how they are watched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgrunbook_engine::step::{Progress, Watcher};
use pgrunbook_engine::{Cancel, StepError};
use pgrunbook_postgres::ConnectOptions;

use crate::process::{Ended, Finished, run};

/// How often progress is shown.
const EVERY: Duration = Duration::from_millis(500);

/// What a program needs to know of whoever waits for it.
#[derive(Clone, Copy)]
pub struct Audience<'a> {
    pub step: &'a pgrunbook_document::StepId,
    pub watcher: &'a dyn Watcher,
    pub cancel: &'a Cancel,
}

impl Audience<'_> {
    /// Tells a line.
    pub fn say(&self, text: impl Into<String>) {
        self.watcher.progress(self.step, Progress::Line { text: text.into() });
    }
}

/// The newest installed program of a name whose major version is at least `at_least`: `pg_dump` refuses newer servers.
///
/// # Errors
/// If there is none; says what to install.
pub fn find(name: &str, at_least: u32) -> Result<PathBuf, StepError> {
    let found = pgrunbook_postgres::sandbox::installed()
        .filter(|binaries| binaries.major >= at_least)
        .map(|binaries| binaries.program(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        StepError::unusable("no-program", format!("`{name}` of PostgreSQL {at_least} or newer is not installed"))
            .help(format!("install it: apt install postgresql-client-{at_least} (Debian), or put its folder on PATH"))
    })
}

/// Runs a program on a connection, and shows how a file grows meanwhile.
///
/// The connection goes by libpq's variables: a password never is an argument, which every user of the machine can read.
///
/// # Errors
/// If it cannot be started, is stopped, or fails; with the last lines it said.
pub(crate) async fn call(
    program: &Path,
    arguments: &[String],
    options: Option<&ConnectOptions>,
    growing: Option<(&Path, Option<u64>)>,
    audience: Audience<'_>,
) -> Result<Finished, StepError> {
    let name = program.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut env: BTreeMap<String, String> = options.map(ConnectOptions::libpq_env).unwrap_or_default();
    // Messages are read by people of all countries, and one test; paths and numbers do not depend on it.
    env.insert("LC_MESSAGES".to_owned(), "C".to_owned());
    env.insert("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
    let argv: Vec<String> = std::iter::once(program.display().to_string()).chain(arguments.iter().cloned()).collect();
    let work = run(&argv, &env, Path::new("/"), audience.cancel, |line| audience.say(line));
    tokio::pin!(work);
    let finished = loop {
        tokio::select! {
            finished = &mut work => break finished,
            () = tokio::time::sleep(EVERY), if growing.is_some() => {
                let Some((path, total)) = growing else { continue };
                let done = std::fs::metadata(path).map_or(0, |data| data.len());
                audience.watcher.progress(audience.step, Progress::Amount { done, total, unit: "bytes" });
            }
        }
    };
    let finished = finished
        .map_err(|error| StepError::failed("spawn", format!("`{name}` cannot be started: {error}")).source(error))?;
    match &finished.ended {
        Ended::Exited(status) if status.success() => Ok(finished),
        Ended::Stopped => Err(StepError::interrupted(format!("interrupted; `{name}` was stopped"))),
        Ended::Exited(status) => {
            let said = finished.tail.last().map_or_else(|| status.to_string(), |line| line.trim().to_owned());
            Err(StepError::failed("program", said))
        }
    }
}
