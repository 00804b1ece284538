//! Poolers that are paused, and the word that is left of it: a PAUSE outlives whoever asked for it, and its clients hang.
//!
//! Before a pooler is paused a small file in `.pgrunbook/paused/` says so, and it goes when the pooler was resumed. So a process that
//! was killed in between is no secret: `status` shows what may stand paused, and the next process of the run resumes it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::{LetGo, StepError};
use pgrunbook_postgres::PgError;
use pgrunbook_postgres::pgbouncer::{self, Door, PoolerError};
use serde::{Deserialize, Serialize};

use super::freeze;
use super::freezing::RESUME_BUDGET;
use crate::workplace::Workplace;

/// A pooler that was told to pause and, as far as is known, not to resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// The target's name.
    pub pooler: String,
    /// As its clients name it.
    pub database: String,
    pub run: String,
    pub step: String,
    /// What a person types to let its clients go on.
    pub command: String,
}

fn folder(root: &Path) -> PathBuf {
    root.join(".pgrunbook/paused")
}

/// A file for each pooler; names of targets are no names of files.
fn file(root: &Path, door: &Door) -> PathBuf {
    let mut name = String::new();
    for byte in door.name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    folder(root).join(format!("{name}.json"))
}

/// Writes a file whole or not at all, and has it on disk.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    let beside = path.with_extension("new");
    let mut new = std::fs::File::create(&beside)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    std::fs::rename(&beside, path)?;
    std::fs::File::open(parent)?.sync_all()
}

/// The poolers that may stand paused in a project, by name.
pub fn paused(root: &Path) -> Vec<Paused> {
    let files = std::fs::read_dir(folder(root)).into_iter().flatten().flatten().map(|entry| entry.path());
    let read = |path: PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
    let mut found: Vec<Paused> =
        files.filter(|path| path.extension().is_some_and(|end| end == "json")).filter_map(read).collect();
    found.sort_by(|one, other| one.pooler.cmp(&other.pooler));
    found
}

/// Pauses every pooler as [`pgbouncer::pause_all`] does, and leaves word of it first.
///
/// # Errors
/// As there; and if no word can be left: then nothing was paused.
pub(crate) async fn pause_all(
    root: &Path,
    [run, step]: [&str; 2],
    doors: &[Door],
    timeout: Duration,
) -> Result<(), PoolerError> {
    if doors.is_empty() {
        return Ok(());
    }
    for door in doors {
        let word = Paused {
            pooler: door.name.clone(),
            database: door.database.clone(),
            run: run.to_owned(),
            step: step.to_owned(),
            command: door.resume_command(),
        };
        let written =
            serde_json::to_vec(&word).map_err(Into::into).and_then(|text| write_whole(&file(root, door), &text));
        if let Err(error) = written {
            let why = format!("it was not paused, since no word of it could be left in .pgrunbook/paused: {error}");
            return Err(PoolerError::Console { name: door.name.clone(), source: PgError::Client(why) });
        }
    }
    fault::pass(Point::BeforeEffect);
    let outcome = pgbouncer::pause_all(doors, timeout).await;
    fault::pass(Point::AfterEffect);
    match &outcome {
        // Its own way back failed.
        Ok(()) | Err(PoolerError::Stuck(_)) => {}
        Err(_) => doors.iter().for_each(|door| _ = std::fs::remove_file(file(root, door))),
    }
    outcome
}

/// Resumes every pooler as [`pgbouncer::resume_all`] does, whoever paused it, and takes the word of it away.
///
/// # Errors
/// As there; of those that are stuck the word stays.
pub async fn resume_all(root: &Path, doors: &[Door], budget: Duration) -> Result<(), PoolerError> {
    let outcome = pgbouncer::resume_all(doors, budget).await;
    let is_stuck = |door: &&Door| match &outcome {
        Err(PoolerError::Stuck(stuck)) => stuck.iter().any(|one| one.name == door.name),
        Err(_) => true,
        Ok(()) => false,
    };
    for door in doors.iter().filter(|door| !is_stuck(door)) {
        let _ = std::fs::remove_file(file(root, door));
    }
    outcome
}

/// Lets go what a run holds only as long as a process is in charge: freezes that no switch has ended are undone, and poolers
/// that it left paused are resumed. Where a fence stands on purpose it goes on standing, and says so to whoever writes.
pub async fn let_go(workplace: &Workplace, run: &str) -> LetGo {
    let root = workplace.root();
    let mut left = LetGo::default();
    for freeze in freeze::of_run(run) {
        // One that a switch has ended is nobody's to give up.
        if let (Ok(thaw), true) = (freeze.give_up().await, freeze.is_news()) {
            left.done.push(format!("step `{}`: {thaw}", freeze.step()));
        }
    }
    freeze::forget_ended(run);
    left.undone = freeze::undone(&root.join(".pgrunbook/runs").join(run)).iter().map(ToString::to_string).collect();
    for one in paused(root).into_iter().filter(|one| one.run == run) {
        let door = workplace.postgres(&one.pooler).map(|options| Door::through(&one.pooler, options));
        let resumed = match door {
            Ok(door) => resume_all(root, &[Door { database: one.database.clone(), ..door }], RESUME_BUDGET)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(format!("CLIENTS STILL WAIT: {error}; type `{}`", one.command)),
        };
        left.done.push(match resumed {
            Ok(()) => format!("pooler `{}`, which step `{}` paused, was resumed", one.pooler, one.step),
            Err(why) => why,
        });
    }
    left
}

/// What a pooler's refusal is to a step.
pub(super) fn pooler_error(error: PoolerError) -> StepError {
    let text = error.to_string();
    match &error {
        PoolerError::Console { .. } => StepError::unusable("pooler", format!("{text}. No client waits."))
            .help("the target must lead through PgBouncer, as a user of its `admin_users`"),
        PoolerError::NoDatabase { .. } => StepError::unusable("pooler", format!("{text}. No client waits."))
            .help("SHOW DATABASES on its console says which it knows"),
        PoolerError::NotPaused { .. } => StepError::failed("pooler-timeout", text)
            .help("end the long transactions, or give the step a longer `budget`, then resume"),
        PoolerError::Stuck(_) => StepError::in_doubt("pooler-stuck", text).help("type it now; then resume"),
    }
    .source(error)
}
