//! One source put back: its schema takes the place of the present one, which is kept under another name.
//!
//! All of it is one transaction of one `psql`: the present schema is renamed, the script that `pg_restore` makes of the backup is
//! run, the mapping and the histories of the chains are put right, and a row says that it happened. Where any of it fails nothing
//! has happened. No other schema is touched, and nobody else waits.

use std::path::{Path, PathBuf};

use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::step::Direction;
use pgrunbook_engine::{Change, Evidence, Happened, RunCx, StepError};
use pgrunbook_postgres::ledger::{self, Entry};
use pgrunbook_postgres::retry::LockPolicy;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};
use sha2::{Digest, Sha256};

use super::step::mark;
use crate::backup::programs::{Audience, call, find};
use crate::backup::{Selection, beside, list, private, without_fence};
use crate::fence;
use crate::source::{self, Exchange, Exchanged, Snapshot, exchanged, rested_on, take_back};
use crate::topology::Topology;

/// Bytes of a name that PostgreSQL keeps.
const NAME_BYTES: usize = 63;

/// Looks what would be exchanged, and what stands in the way.
pub(super) async fn plan(
    options: &ConnectOptions,
    topology: &Topology,
    id: &str,
    from: &str,
    change: &mut Change,
) -> Result<(), StepError> {
    let session = Session::connect(options, "pgrunbook:plan").await.map_err(PgError::into_step_error)?;
    change.summary = format!("put the source {id:?} of {} back from {from}", options.database);
    change.details.push("its schema as it is now is kept under another name; no other schema is touched".to_owned());
    change.warnings.push(format!("what was written to {id:?} since the backup is no longer in place afterwards"));
    let listing = source::list(&session, topology).await?;
    match listing.sources.iter().find(|one| one.source_id == id) {
        Some(one) => change.blocked = in_the_way(&session, &one.schema).await?.map(|(text, _)| text),
        None => change.warnings.push(format!("{id:?} is not registered now: it will be again")),
    }
    Ok(())
}

/// What would go on using the schema that is put away; with what to do.
async fn in_the_way(session: &Session, schema: &str) -> Result<Option<(String, &'static str)>, StepError> {
    let objects = rested_on(session, schema).await.map_err(PgError::into_step_error)?;
    if !objects.is_empty() {
        let text = format!(
            "outside of the schema {schema} something rests on it: {}. Nothing was changed.",
            objects.join(", ")
        );
        return Ok(Some((text, "drop these first, and make them again afterwards")));
    }
    Ok(None)
}

pub(super) async fn put_back(
    options: &ConnectOptions,
    topology: &Topology,
    id: &str,
    file: &Path,
    cx: &RunCx<'_>,
) -> Result<Evidence, StepError> {
    let snapshot = snapshot_beside(file, id)?;
    let session = Session::connect(options, &crate::sql::application_name(cx.run, cx.step))
        .await
        .map_err(PgError::into_step_error)?;
    let audience = Audience { step: cx.step, watcher: cx.watcher, cancel: cx.cancel };
    let major = session
        .value("SELECT pg_catalog.current_setting('server_version_num')::int / 10000")
        .await
        .map_err(PgError::into_step_error)?
        .parse()
        .unwrap_or(0);
    list(file, major, audience).await?;
    if let Some((text, help)) = in_the_way(&session, &snapshot.schema).await? {
        return Err(StepError::failed("source-rested-on", text).help(help));
    }
    let step = mark(cx.step, cx.direction);
    let kept = name("before", cx.run, &step, &snapshot.schema);
    let exchange = Exchange { run: cx.run, step: &step, kept: &kept };
    let head = format!(
        "{};\n{};\n{}",
        LockPolicy::default().set_local(),
        Entry::of(cx).assert_sql(),
        source::before(topology, &snapshot, &exchange)?
    );
    // The script's own settings end with the session; its `search_path` is empty.
    let tail = source::after(topology, &snapshot)?;
    let scripts = Scripts::new(cx.artifacts, &kept)?;
    std::fs::write(&scripts.head, head).map_err(|error| unwritten(&scripts.head, &error))?;
    std::fs::write(&scripts.tail, tail).map_err(|error| unwritten(&scripts.tail, &error))?;
    let mut made = vec![format!("--file={}", scripts.body.display()), file.display().to_string()];
    // A fence that stood when the backup was made comes back only where one stands now.
    let is_open = matches!(
        fence::state(&session, &snapshot.schema).await.map_err(PgError::into_step_error)?,
        fence::Standing::Unfenced
    );
    let selection = if is_open { without_fence(file, major, audience).await? } else { None };
    made.extend(selection.iter().map(Selection::argument));
    call(&find("pg_restore", major)?, &made, None, None, audience).await?;
    drop(selection);
    audience.say(format!("restoring {}", snapshot.schema));
    let mut arguments: Vec<String> = [
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        // One line, which is the one that is shown.
        "--set=VERBOSITY=terse",
        "--no-password",
        "--output=/dev/null",
    ]
    .map(str::to_owned)
    .into();
    arguments.push("--single-transaction".to_owned());
    arguments.extend([&scripts.head, &scripts.body, &scripts.tail].map(|path| format!("--file={}", path.display())));
    fault::pass(Point::BeforeEffect);
    let done = call(&find("psql", major)?, &arguments, Some(options), None, audience).await;
    fault::pass(Point::AfterEffect);
    done.map_err(|error| match error.code.as_ref() {
        "program" => StepError::failed(
            "restore",
            // Before it stands the place in a script that is gone.
            format!(
                "the source {id:?} was not put back: {}. It is as it was before.",
                error.message.split_once("ERROR:").map_or(error.message.as_str(), |(_, said)| said.trim())
            ),
        ),
        _ => error,
    })?;
    match exchanged(&session, cx.run, &step).await.map_err(PgError::into_step_error)? {
        Some(done) => Ok(in_place(&done)),
        None => Err(StepError::failed("restore", format!("the source {id:?} was not put back, and nobody said why"))),
    }
}

/// What stands beside a dump, if it is of this source.
fn snapshot_beside(file: &Path, id: &str) -> Result<Snapshot, StepError> {
    let path = beside(file);
    let unusable = |why: String| {
        StepError::unusable(
            "bad-backup",
            format!("{} is no backup of the source {id:?}: {why}. Nothing was changed.", file.display()),
        )
        .help("a step `backup` with `source` makes one")
    };
    let text = std::fs::read_to_string(&path).map_err(|error| unusable(format!("{}: {error}", path.display())))?;
    let snapshot = Snapshot::parse(&text).map_err(|error| unusable(format!("{}: {error}", path.display())))?;
    if snapshot.source_id != id {
        return Err(unusable(format!("it is of the source {:?}", snapshot.source_id)));
    }
    Ok(snapshot)
}

pub(super) async fn resolve(options: &ConnectOptions, cx: &RunCx<'_>, step: &str) -> Result<Happened, StepError> {
    let session = Session::connect(options, "pgrunbook:resolve").await.map_err(PgError::into_step_error)?;
    // What is still at work commits or ends first.
    ledger::settle(&session, cx.run).await.map_err(PgError::into_step_error)?;
    Ok(match exchanged(&session, cx.run, step).await.map_err(PgError::into_step_error)? {
        Some(done) => Happened::Yes(in_place(&done)),
        None => Happened::No,
    })
}

pub(super) async fn undo(options: &ConnectOptions, topology: &Topology, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
    let session = Session::connect(options, &crate::sql::application_name(cx.run, cx.step))
        .await
        .map_err(PgError::into_step_error)?;
    let step = mark(cx.step, Direction::Forward);
    let known = exchanged(&session, cx.run, &step).await.map_err(PgError::into_step_error)?;
    let Some(known) = known else { return Ok(Evidence::of("nothing to take back: this step put nothing back")) };
    let away = name("restored", cx.run, &step, &known.schema);
    fault::pass(Point::BeforeEffect);
    take_back(&session, topology, cx.run, &step, &away, &Entry::of(cx).assert_sql()).await?;
    fault::pass(Point::AfterEffect);
    let summary = format!("{} is as it was before the restore; the restored one is {away}", known.schema);
    Ok(Evidence::of(summary).fact("kept", away))
}

pub(super) async fn resolve_undo(options: &ConnectOptions, cx: &RunCx<'_>) -> Result<Happened, StepError> {
    let session = Session::connect(options, "pgrunbook:resolve").await.map_err(PgError::into_step_error)?;
    ledger::settle(&session, cx.run).await.map_err(PgError::into_step_error)?;
    let step = mark(cx.step, Direction::Forward);
    Ok(match exchanged(&session, cx.run, &step).await.map_err(PgError::into_step_error)? {
        Some(_) => Happened::No,
        None => Happened::Yes(Evidence::of("the source is as it was before the restore")),
    })
}

fn in_place(done: &Exchanged) -> Evidence {
    let mut summary = format!("the source {:?} restored in {}", done.source_id, done.schema);
    if let Some(kept) = &done.kept {
        summary.push_str(&format!("; as it was it is kept as {kept}"));
    }
    if done.made_row {
        summary.push_str("; it is registered again");
    }
    let evidence = Evidence::of(summary)
        .fact("source_id", done.source_id.clone())
        .fact("schema", done.schema.clone())
        .fact("made_row", done.made_row);
    match &done.kept {
        Some(kept) => evidence.fact("kept", kept.clone()),
        None => evidence,
    }
}

/// A name that belongs to one step of one run, and begins unlike a source's schema.
fn name(word: &str, run: &str, step: &str, schema: &str) -> String {
    let mark = &format!("{:x}", Sha256::digest(step))[..4];
    let mut name = format!("{word}_{}_{mark}_{schema}", run.replace('-', "_"));
    while name.len() > NAME_BYTES {
        name.pop();
    }
    name
}

fn unwritten(path: &Path, error: &std::io::Error) -> StepError {
    StepError::failed("file", format!("{} cannot be written: {error}", path.display()))
}

/// The three parts of the transaction, readable by their owner alone, and gone afterwards: they hold every row.
struct Scripts {
    head: PathBuf,
    body: PathBuf,
    tail: PathBuf,
}

impl Scripts {
    fn new(folder: &Path, name: &str) -> Result<Self, StepError> {
        let part = |word: &str| folder.join(format!("{name}.{word}.sql"));
        let scripts = Self { head: part("head"), body: part("body"), tail: part("tail") };
        for path in [&scripts.head, &scripts.body, &scripts.tail] {
            private(path)?;
        }
        Ok(scripts)
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        for path in [&self.head, &self.body, &self.tail] {
            let _ = std::fs::remove_file(path);
        }
    }
}
