//! The block: `restore = "put-back"`, `target = "main"`, `from = "pre-promotion"`.

use std::path::{Path, PathBuf};

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language, StepId};
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::identity::identify;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};
use serde::Deserialize;

use super::swap::{Names, exchange, exists, make_like, outside};
use super::{source, sqlite};
use crate::backup::programs::Audience;
use crate::backup::{beside, digest, list, restore_into};
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::workplace::{Place, Workplace};

/// The kind `restore`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "restore",
        language: Language::Toml,
        summary: "Puts a backup in place of a database; the database as it was is kept under another name.",
        fields: &[
            FieldSpec {
                name: "from",
                about: "The backup step of this runbook, or the path of a file that `backup` or `pg_dump -Fc` made.",
                required: true,
            },
            FieldSpec {
                name: "source",
                about: "Only this source, from a backup of it: its schema, in the database that goes on meanwhile.",
                required: false,
            },
        ],
        needs_target: true,
        changes: true,
        undo_words: &["auto"],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Puts a backup in place of a database.
///
/// Effect: resolvable, since the names of the databases tell which of them is in place. Undo: `auto` swaps them back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[expect(dead_code, reason = "read by the parser as the step's id")]
    restore: String,
    from: String,
    source: Option<String>,
}

struct Restore {
    target: String,
    from: String,
    /// The id of the one source that is put back.
    source: Option<String>,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let target = required_target(block)?;
    if fields.source.is_some() {
        workplace.postgres(&target)?;
        workplace.topology()?;
    }
    Ok(Box::new(Restore { target, from: fields.from, source: fields.source, workplace: workplace.clone() }))
}

/// The step that undoes another by restoring the backup that its `undo` names.
///
/// # Errors
/// If the backup's block names no target.
pub fn undo_by(by: &Block, _undone: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let source =
        by.own_text().parse::<toml::Table>().ok().and_then(|fields| Some(fields.get("source")?.as_str()?.to_owned()));
    Ok(Box::new(Restore {
        target: required_target(by)?,
        from: by.id.as_str().to_owned(),
        source,
        workplace: workplace.clone(),
    }))
}

impl Step for Restore {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let mut change = Change::default();
            match self.workplace.place(&self.target)? {
                Place::Postgres(options) if self.source.is_some() => {
                    let id = self.source.as_deref().unwrap_or_default();
                    source::plan(options, self.workplace.topology()?, id, &self.from, &mut change).await?;
                }
                Place::Postgres(options) => {
                    change.summary = format!("restore {} from {}", options.database, self.from);
                    change
                        .details
                        .push("all sessions of the database are ended; it is kept under another name".to_owned());
                }
                Place::Sqlite { path } => {
                    change.summary = format!("restore {} from {}", path.display(), self.from);
                    change.details.push("the file as it was is kept beside it".to_owned());
                }
                _ => return Err(StepError::unusable("no-target", format!("target `{}` is no database", self.target))),
            }
            change.warnings.push("what was written since the backup is no longer in place afterwards".to_owned());
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let file = self.file(cx)?;
            match self.workplace.place(&self.target)? {
                Place::Postgres(options) if self.source.is_some() => {
                    let (id, topology) = (self.source.as_deref().unwrap_or_default(), self.workplace.topology()?);
                    self.beside_is_recorded(cx, &file)?;
                    source::put_back(options, topology, id, &file, cx).await
                }
                // Nobody may put one source in place of a whole database.
                Place::Postgres(_) if beside(&file).exists() => {
                    let text = format!(
                        "the backup `{}` is of one source, and the step names none. Nothing was changed.",
                        self.from
                    );
                    Err(StepError::unusable("bad-backup", text)
                        .help("add `source = \"...\"`, the source that the backup is of"))
                }
                Place::Postgres(options) => {
                    let names = Names::of(&options.database, cx.run, &mark(cx.step, cx.direction));
                    let audience = Audience { step: cx.step, watcher: cx.watcher, cancel: cx.cancel };
                    let name = format!("pgrunbook:{}:{}", cx.run, cx.step);
                    restore(options, &self.target, &file, &names, &name, &self.workplace, audience).await
                }
                Place::Sqlite { path } => {
                    let (path, run) = (path.clone(), cx.run.to_owned());
                    let work = tokio::task::spawn_blocking(move || sqlite::put_back(&file, &path, &run));
                    work.await
                        .map_err(|error| StepError::failed("sqlite", format!("the copy was cut short: {error}")))?
                }
                _ => Err(StepError::unusable("no-target", format!("target `{}` is no database", self.target))),
            }
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            // Writing a SQLite copy back twice is the same as once.
            let Place::Postgres(options) = self.workplace.place(&self.target)? else { return Ok(Happened::No) };
            if self.source.is_some() {
                return source::resolve(options, cx, &mark(cx.step, cx.direction)).await;
            }
            let names = Names::of(&options.database, cx.run, &mark(cx.step, cx.direction));
            let session = outside(options, "pgrunbook:resolve").await?;
            if !exists(&session, &names.kept).await? {
                return Ok(Happened::No);
            }
            Ok(Happened::Yes(in_place(options, &self.target, &names).await?))
        })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            match self.workplace.place(&self.target)? {
                Place::Postgres(options) if self.source.is_some() => {
                    source::undo(options, self.workplace.topology()?, cx).await
                }
                Place::Postgres(options) => {
                    let names = Names::of(
                        &options.database,
                        cx.run,
                        &mark(cx.step, pgrunbook_engine::step::Direction::Forward),
                    );
                    self.workplace.close().await;
                    let session = outside(options, &format!("pgrunbook:{}:{}", cx.run, cx.step)).await?;
                    fault::pass(Point::BeforeEffect);
                    exchange(&session, &names.database, &names.fresh, &names.kept).await?;
                    fault::pass(Point::AfterEffect);
                    swapped_back(options, &self.target, &names).await
                }
                Place::Sqlite { path } => {
                    let (path, run) = (path.clone(), cx.run.to_owned());
                    let kept = sqlite::kept(&path, &run);
                    let work =
                        tokio::task::spawn_blocking(move || sqlite::put_back(&kept, &path, &format!("{run}-undo")));
                    work.await
                        .map_err(|error| StepError::failed("sqlite", format!("the copy was cut short: {error}")))?
                }
                _ => Err(StepError::unusable("no-target", format!("target `{}` is no database", self.target))),
            }
        })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let Place::Postgres(options) = self.workplace.place(&self.target)? else { return Ok(Happened::No) };
            if self.source.is_some() {
                return source::resolve_undo(options, cx).await;
            }
            let names =
                Names::of(&options.database, cx.run, &mark(cx.step, pgrunbook_engine::step::Direction::Forward));
            let session = outside(options, "pgrunbook:resolve").await?;
            if exists(&session, &names.kept).await? {
                return Ok(Happened::No);
            }
            Ok(Happened::Yes(swapped_back(options, &self.target, &names).await?))
        })
    }
}

impl Restore {
    /// Whether what stands beside the file is still what the backup recorded.
    fn beside_is_recorded(&self, cx: &RunCx<'_>, file: &Path) -> Result<(), StepError> {
        let recorded = self.from.parse::<StepId>().ok().and_then(|step| cx.recorded.get(&step));
        let Some(wanted) = recorded.and_then(|evidence| evidence.facts.get("source_sha256")?.as_str()) else {
            return Ok(());
        };
        match digest(&beside(file)) {
            Ok((_, found)) if found == wanted => Ok(()),
            _ => Err(StepError::unusable(
                "bad-backup",
                format!("{} is not the file that step `{}` recorded", beside(file).display(), self.from),
            )),
        }
    }

    /// The file, if it is still the one that was recorded.
    fn file(&self, cx: &RunCx<'_>) -> Result<PathBuf, StepError> {
        let recorded = self.from.parse::<StepId>().ok().and_then(|step| cx.recorded.get(&step));
        let Some(evidence) = recorded else {
            let path = self.workplace.root().join(&self.from);
            if path.is_file() {
                return Ok(path);
            }
            return Err(StepError::unusable(
                "no-backup",
                format!(
                    "there is no backup `{}`: no such step is done in this run, and no such file is there",
                    self.from
                ),
            ));
        };
        let fact = |name: &str| evidence.facts.get(name).and_then(|value| value.as_str()).map(str::to_owned);
        let (Some(file), Some(wanted)) = (fact("file"), fact("sha256")) else {
            return Err(StepError::unusable("no-backup", format!("step `{}` recorded no file", self.from)));
        };
        let folder = fact("folder").map(|folder| self.workplace.root().join(folder));
        let path = folder.unwrap_or_else(|| cx.artifacts.to_owned()).join(file);
        let (_, found) = digest(&path).map_err(|error| {
            StepError::unusable("no-backup", format!("the backup of step `{}` is gone: {error}", self.from))
        })?;
        if found != wanted {
            return Err(StepError::unusable(
                "bad-backup",
                format!("{} is not the file that step `{}` recorded: its digest differs", path.display(), self.from),
            ));
        }
        Ok(path)
    }
}

/// Puts a file in place of a target's database, outside of any run. `stamp` names what is kept.
///
/// # Errors
/// If the file is no backup, or the database cannot be exchanged; until then nothing is touched.
pub async fn put_back(
    workplace: &Workplace,
    target: &str,
    file: &Path,
    stamp: &str,
    audience: Audience<'_>,
) -> Result<Evidence, StepError> {
    let options = workplace.postgres(target)?;
    let names = Names::of(&options.database, stamp, "restore");
    restore(options, target, file, &names, "pgrunbook:restore", workplace, audience).await
}

pub(super) fn mark(step: &StepId, direction: pgrunbook_engine::step::Direction) -> String {
    format!("{step} {direction:?}")
}

async fn restore(
    options: &ConnectOptions,
    target: &str,
    file: &Path,
    names: &Names,
    application_name: &str,
    workplace: &Workplace,
    audience: Audience<'_>,
) -> Result<Evidence, StepError> {
    let session = outside(options, application_name).await?;
    let major = session
        .value("SELECT current_setting('server_version_num')::int / 10000")
        .await
        .map_err(PgError::into_step_error)?
        .parse()
        .unwrap_or(0);
    list(file, major, audience).await?;
    audience.say(format!("restoring into {}", names.fresh));
    make_like(&session, names).await?;
    restore_into(file, &options.with_database(&names.fresh), major, false, audience).await?;
    workplace.close().await;
    fault::pass(Point::BeforeEffect);
    exchange(&session, &names.database, &names.kept, &names.fresh).await?;
    fault::pass(Point::AfterEffect);
    in_place(options, target, names).await
}

/// What can be said once the restored database is in place.
async fn in_place(options: &ConnectOptions, target: &str, names: &Names) -> Result<Evidence, StepError> {
    let summary = format!("{} restored; as it was it is kept as {}", names.database, names.kept);
    became(options, target, Evidence::of(summary).fact("kept", names.kept.clone())).await
}

async fn swapped_back(options: &ConnectOptions, target: &str, names: &Names) -> Result<Evidence, StepError> {
    let summary = format!("{} is as it was before the restore; the restored one is {}", names.database, names.fresh);
    became(options, target, Evidence::of(summary).fact("kept", names.fresh.clone())).await
}

/// The database of that name is another one now: the run goes on with it.
async fn became(options: &ConnectOptions, target: &str, evidence: Evidence) -> Result<Evidence, StepError> {
    let session = Session::connect(options, "pgrunbook:identify").await.map_err(PgError::into_step_error)?;
    let identity = identify(&session, target).await.map_err(PgError::into_step_error)?;
    Ok(evidence.became_target(&identity))
}
