//! The block: `backup = "pre-promotion"`, `target = "main"`, `verify = "restore"`.

use std::path::{Path, PathBuf};

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language, StepId};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::{ConnectOptions, PgError, Session};
use serde::Deserialize;

use super::dump::{DumpOptions, Verify, beside, digest, dump, dump_source, durable, partial, private, size_of};
use super::programs::{Audience, find};
use super::sqlite;
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::workplace::{Place, Workplace};

/// The kind `backup`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "backup",
        language: Language::Toml,
        summary: "Copies a database into one file of the run, and proves that it can be restored.",
        fields: &[
            FieldSpec {
                name: "verify",
                about: "`list`: read the table of contents. `restore`: restore into a throwaway server and compare.",
                required: false,
            },
            FieldSpec { name: "schemas", about: "Only these schemas; all if none is named.", required: false },
            FieldSpec {
                name: "source",
                about: "Only this source: its schema, its row in the mapping, and how far its chains have come.",
                required: false,
            },
            FieldSpec {
                name: "exclude_data",
                about: "Tables whose rows are left out, as `table` or `schema.table`.",
                required: false,
            },
            FieldSpec { name: "folder", about: "Where the file goes; else the run's own folder.", required: false },
        ],
        needs_target: true,
        changes: false,
        undo_words: &[],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: Some(crate::restore::undo_by),
};

/// Copies a database into a file.
///
/// Effect: resolvable, since the file gets its name only when it is whole and verified. Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[expect(dead_code, reason = "read by the parser as the step's id")]
    backup: String,
    #[serde(default)]
    verify: Verify,
    #[serde(default)]
    schemas: Vec<String>,
    source: Option<String>,
    #[serde(default)]
    exclude_data: Vec<String>,
    folder: Option<PathBuf>,
}

struct Backup {
    target: String,
    options: DumpOptions,
    /// The id of the one source that is dumped.
    source: Option<String>,
    /// Relative to the project.
    folder: Option<PathBuf>,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let target = required_target(block)?;
    if fields.source.is_some() {
        if !fields.schemas.is_empty() {
            let text = format!("step `{}` names `schemas` and `source`: the source's schema is the one", block.id);
            return Err(StepError::unusable("bad-value", text));
        }
        workplace.postgres(&target)?;
        workplace.topology()?;
    }
    Ok(Box::new(Backup {
        source: fields.source,
        target,
        options: DumpOptions { verify: fields.verify, schemas: fields.schemas, exclude_data: fields.exclude_data },
        folder: fields.folder,
        workplace: workplace.clone(),
    }))
}

/// The file of a backup step: named by run and step, so that a run never takes another's for its own.
pub fn path_of(folder: &Path, run: &str, step: &StepId, sqlite: bool) -> PathBuf {
    let extension = if sqlite { "db" } else { "dump" };
    folder.join(format!("{run}.{}.{extension}", step.as_str().replace(['/', '[', ']'], "_")))
}

impl Step for Backup {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let how = match self.options.verify {
                Verify::List => "verified by its table of contents",
                Verify::Restore => "verified by a restore",
            };
            let mut change = Change::default();
            match self.workplace.place(&self.target)? {
                Place::Postgres(options) => {
                    let (size, major) = self.facts(options).await?;
                    change.summary = match &self.source {
                        Some(id) => format!("dump the source {id:?} of {}, {how}", options.database),
                        None => format!("dump {} ({}), {how}", options.database, size_of(size)),
                    };
                    if let Err(error) = find("pg_dump", major) {
                        change.blocked = Some(error.message);
                    }
                }
                Place::Sqlite { path } => {
                    let size = std::fs::metadata(path).map_err(|error| {
                        StepError::unusable("sqlite", format!("{} cannot be read: {error}", path.display()))
                    })?;
                    change.summary = format!("copy {} ({}), checked", path.display(), size_of(size.len()));
                }
                _ => return Err(no_database(&self.target)),
            }
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let path = self.path(cx)?;
            match self.workplace.place(&self.target)? {
                Place::Postgres(options) => {
                    let name = format!("pgrunbook:{}:{}", cx.run, cx.step);
                    let audience = Audience { step: cx.step, watcher: cx.watcher, cancel: cx.cancel };
                    let made = match &self.source {
                        Some(id) => {
                            let one = (self.workplace.topology()?, id.as_str());
                            dump_source(options, &path, &self.options, one, &name, audience).await?
                        }
                        None => dump(options, &path, &self.options, &name, audience).await?,
                    };
                    Ok(self.placed(made.evidence))
                }
                Place::Sqlite { path: source } => Ok(self.placed(copy_sqlite(source.clone(), path).await?)),
                _ => Err(no_database(&self.target)),
            }
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let path = self.path(cx)?;
            if !path.exists() {
                return Ok(Happened::No);
            }
            let (bytes, sha256) = digest(&path)?;
            let mut evidence = described(&path, bytes, sha256);
            if let Some(id) = &self.source {
                evidence = evidence.fact("source_id", id.clone()).fact("source_sha256", digest(&beside(&path))?.1);
            }
            Ok(Happened::Yes(self.placed(evidence)))
        })
    }
}

impl Backup {
    fn path(&self, cx: &RunCx<'_>) -> Result<PathBuf, StepError> {
        let sqlite = matches!(self.workplace.place(&self.target)?, Place::Sqlite { .. });
        let folder = self.folder.as_ref().map(|folder| self.workplace.root().join(folder));
        Ok(path_of(folder.as_deref().unwrap_or(cx.artifacts), cx.run, cx.step, sqlite))
    }

    /// Where the file is, for the restore: in the run's own folder if nothing is said.
    fn placed(&self, evidence: Evidence) -> Evidence {
        match &self.folder {
            Some(folder) => evidence.fact("folder", folder.display().to_string()),
            None => evidence,
        }
    }

    /// Bytes of the database, and the server's major version.
    async fn facts(&self, options: &ConnectOptions) -> Result<(u64, u32), StepError> {
        let session = Session::connect(options, "pgrunbook:plan").await.map_err(PgError::into_step_error)?;
        let answers = session
            .simple("SELECT pg_database_size(current_database()), current_setting('server_version_num')::int / 10000")
            .await
            .map_err(PgError::into_step_error)?;
        let row = answers.last().and_then(|answer| answer.rows.first()).cloned().unwrap_or_default();
        let number = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        Ok((number(0).parse().unwrap_or(0), number(1).parse().unwrap_or(0)))
    }
}

async fn copy_sqlite(source: PathBuf, path: PathBuf) -> Result<Evidence, StepError> {
    let work = tokio::task::spawn_blocking(move || {
        let partial = partial(&path);
        let _ = std::fs::remove_file(&partial);
        private(&partial)?;
        sqlite::back_up(&source, &partial)?;
        let tables = sqlite::check(&partial)?;
        let (bytes, sha256) = digest(&partial)?;
        durable(&partial, &path)?;
        let evidence = described(&path, bytes, sha256).fact("tables", tables).fact("verified", "integrity_check");
        Ok(evidence.fact("source", source.display().to_string()))
    });
    work.await.map_err(|error| StepError::failed("sqlite", format!("the copy was cut short: {error}")))?
}

fn described(path: &Path, bytes: u64, sha256: String) -> Evidence {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Evidence::of(format!("{} in {name}", size_of(bytes))).fact("file", name).fact("bytes", bytes).fact("sha256", sha256)
}

fn no_database(target: &str) -> StepError {
    StepError::unusable("no-target", format!("target `{target}` is no database"))
}
