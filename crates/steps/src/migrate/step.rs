//! The block: `migrate = "eng"`, `target = "main"`, `chain = "db/migrations/eng"`, `undo = "down"`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::evidence::summary::{MIGRATIONS, VERSION_ROW};
use pgrunbook_engine::{Change, Deployment, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::ledger::{self, Entry};
use pgrunbook_postgres::{PgError, Session};
use serde::Deserialize;
use serde_json::json;

use super::chain::Chain;
use super::deployment_log::{Action, LogTable, LogWrite};
use super::error::ChainError;
use super::history;
use super::layout::Version;
use super::runner::{Applied, Around, Goal, Inside, Options, Runner, chain_error};
use super::standing::{Finding, RowState};
use super::text::Text;
use super::version_row::{VersionRow, VersionWrite};
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::workplace::Workplace;

/// The kind `migrate`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "migrate",
        language: Language::Toml,
        summary: "Applies the pending migrations of a chain, each in one transaction with its row in the history.",
        fields: &[
            FieldSpec {
                name: "chain",
                about: "The folder of the migrations, relative to the project.",
                required: true,
            },
            FieldSpec { name: "to", about: "The version up to which they are applied; else all.", required: false },
            FieldSpec {
                name: "down_to",
                about: "Goes down instead, to this version, which stays; `\"0\"` takes everything back.",
                required: false,
            },
            FieldSpec {
                name: "out_of_order",
                about: "Whether files that stand before applied ones are applied too.",
                required: false,
            },
            FieldSpec {
                name: "schema",
                about: "The schema that unqualified names are in; the chain has a history of its own for each.",
                required: false,
            },
            FieldSpec {
                name: "as",
                about: "The role that the files run as, and that owns what they create.",
                required: false,
            },
            FieldSpec {
                name: "verify",
                about: "Whether the verify files are run after each migration; they are, if nothing is said.",
                required: false,
            },
            FieldSpec {
                name: "version_row",
                about: "The row that applications' guards read: `{ version = \"1.1.0\" }`, and where it is not `bot_config`, `schema_version`: `table`, `key`, `environment`, `key_column`, `value_column`. Written with the last migration.",
                required: false,
            },
            FieldSpec {
                name: "deployment_log",
                about: "A table `schema.table` that gets a row in the same transaction: `deployed_at`, `action`, `environment`, `run`, `step`, `content_digest`, `operator`, `version`, `migration`.",
                required: false,
            },
        ],
        needs_target: true,
        changes: true,
        undo_words: &["down"],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Applies the pending migrations of a chain.
///
/// Effect: transactional, since each file's row is committed with it. Undo: `down`, by the down files of what this step
/// applied.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "migrate")]
    _id: String,
    chain: String,
    to: Option<String>,
    down_to: Option<String>,
    #[serde(default)]
    out_of_order: bool,
    schema: Option<String>,
    #[serde(rename = "as")]
    role: Option<String>,
    #[serde(default = "yes")]
    verify: bool,
    version_row: Option<VersionRow>,
    deployment_log: Option<String>,
}

fn yes() -> bool {
    true
}

struct Migrate {
    target: String,
    /// What the history is kept under: as the runbook writes it, with the schema where one is named.
    chain: String,
    folder: PathBuf,
    goal: Goal,
    out_of_order: bool,
    verify: bool,
    inside: Inside,
    version_row: Option<VersionRow>,
    deployment_log: Option<LogTable>,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let target = required_target(block)?;
    workplace.postgres(&target)?;
    let version =
        |text: &str| Version::parse(text).ok_or_else(|| chain_error(ChainError::NotAVersion { text: text.to_owned() }));
    let goal = match (&fields.to, &fields.down_to) {
        (to, None) => Goal::Up(to.as_deref().map(version).transpose()?),
        (None, Some(to)) if to == "0" => Goal::Down(None),
        (None, Some(to)) => Goal::Down(Some(version(to)?)),
        (Some(_), Some(_)) => {
            return Err(StepError::unusable("bad-value", format!("step `{}` has both `to` and `down_to`", block.id)));
        }
    };
    if let Some(row) = &fields.version_row {
        row.check().map_err(|why| StepError::unusable("bad-value", format!("step `{}`: {why}", block.id)))?;
    }
    let log_table = |text: &String| {
        LogTable::parse(text).ok_or_else(|| {
            let why = format!("step `{}`: `deployment_log = {text:?}` is no table with its schema", block.id);
            StepError::unusable("bad-value", why).help("write it as `schema.table`")
        })
    };
    let deployment_log = fields.deployment_log.as_ref().map(log_table).transpose()?;
    Ok(Box::new(Migrate {
        target,
        folder: workplace.root().join(&fields.chain),
        chain: match &fields.schema {
            Some(schema) => super::chain_in(&fields.chain, schema),
            None => fields.chain,
        },
        inside: Inside {
            role: fields.role,
            search_path: fields.schema.into_iter().flat_map(|schema| [schema, "public".to_owned()]).collect(),
        },
        goal,
        out_of_order: fields.out_of_order,
        verify: fields.verify,
        version_row: fields.version_row,
        deployment_log,
        workplace: workplace.clone(),
    }))
}

impl Migrate {
    fn read(&self) -> Result<Chain, StepError> {
        Chain::read(&self.chain, &self.folder).map_err(chain_error)
    }

    async fn session(&self, name: &str) -> Result<Session, StepError> {
        Session::connect(self.workplace.postgres(&self.target)?, name).await.map_err(PgError::into_step_error)
    }

    async fn go(
        &self,
        cx: &RunCx<'_>,
        goal: &Goal,
        version: Option<VersionWrite>,
        log: Option<LogWrite>,
    ) -> Result<(Applied, Result<(), StepError>), StepError> {
        let chain = self.read()?;
        let tell = |line: String| cx.say(line);
        let runner = Runner {
            chain: &chain,
            target: self.workplace.postgres(&self.target)?,
            options: Options {
                out_of_order: self.out_of_order,
                verify: self.verify,
                inside: self.inside.clone(),
                version,
                log,
                ..Options::default()
            },
            around: Around::of_step(cx, &tell),
        };
        let mut applied = Applied::default();
        let done = runner.go(goal, &mut applied).await;
        Ok((applied, done))
    }

    /// What this step writes into the deployment log.
    fn log(&self, cx: &RunCx<'_>, action: Action) -> Option<LogWrite> {
        let version = self.version_row.as_ref().map(|row| row.version.as_str());
        let table = self.deployment_log.as_ref()?;
        Some(LogWrite::of(cx, table, action, self.workplace.environment(), version))
    }

    /// What is logged of this step when it is done.
    fn action(&self) -> Action {
        match self.goal {
            Goal::Up(_) => Action::Deployed,
            Goal::Down(_) => Action::RolledBack,
        }
    }

    /// The row that says that this step was rolled back: where one says that it deployed, none says this yet, and it can be
    /// written. A log that is broken keeps nobody from going back.
    async fn log_of_undo(&self, session: &Session, cx: &RunCx<'_>) -> Result<Option<LogWrite>, StepError> {
        let (Some(deployed), Some(back)) = (self.log(cx, Action::Deployed), self.log(cx, Action::RolledBack)) else {
            return Ok(None);
        };
        if let Some(why) = back.obstacle(session).await.map_err(PgError::into_step_error)? {
            cx.say(format!("{} gets no row for this: {why}", back.table.shown()));
            return Ok(None);
        }
        let there = deployed.is_done(session).await.map_err(PgError::into_step_error)?;
        let written = back.is_done(session).await.map_err(PgError::into_step_error)?;
        Ok((there && !written).then_some(back))
    }

    /// What this step of this run has applied, in order of its writing: versions, and how long each took.
    async fn applied_by(&self, session: &Session, cx: &RunCx<'_>) -> Result<Vec<Done>, StepError> {
        let kept = history::read(session, &self.chain).await.map_err(PgError::into_step_error)?;
        let own = kept.into_iter().filter(|kept| {
            !kept.row.repeatable
                && kept.row.run.as_deref() == Some(cx.run)
                && kept.step.as_deref() == Some(cx.step.as_str())
        });
        Ok(own.map(|kept| Done { version: kept.row.version, duration_ms: kept.row.duration_ms }).collect())
    }

    fn evidence(done: &[Done], applied: &Applied) -> Evidence {
        let versions: Vec<&str> = done.iter().map(|one| one.version.as_str()).collect();
        let summary = match (versions.as_slice(), applied.repeatable.len()) {
            ([], 0) => "nothing was pending".to_owned(),
            ([], count) => format!("{count} repeatable file(s) applied again"),
            (versions, 0) => format!("{} applied", versions.join(", ")),
            (versions, count) => format!("{} applied, and {count} repeatable file(s)", versions.join(", ")),
        };
        let migrations = done
            .iter()
            .map(|one| json!({ "version": one.version, "duration_ms": one.duration_ms }))
            .collect::<Vec<_>>();
        let evidence = Evidence::of(summary)
            .fact("applied", versions)
            .fact("repeatable", applied.repeatable.clone())
            .fact("verified", applied.verified.clone());
        if migrations.is_empty() { evidence } else { evidence.fact(MIGRATIONS, migrations) }
    }

    /// The same with what became of the version row.
    async fn with_version(&self, evidence: Evidence, session: &Session, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let Some(row) = &self.version_row else { return Ok(evidence) };
        let change = row.change(session, Some((cx.run, cx.step.as_str()))).await;
        let (before, after) = change.map_err(PgError::into_step_error)?;
        Ok(evidence.fact(VERSION_ROW, json!({ "place": row.place(), "before": before, "after": after })))
    }
}

/// A migration that this step applied.
struct Done {
    version: String,
    duration_ms: Option<i64>,
}

impl Step for Migrate {
    fn effect(&self) -> Effect {
        Effect::Transactional
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let chain = self.read()?;
            let session = self.session("pgrunbook:plan").await?;
            let (standing, _) = Runner::standing(&chain, &session).await.map_err(PgError::into_step_error)?;
            let mut change = Change::default();
            for migration in &chain.migrations {
                let scripts = [Some(&migration.up), migration.down.as_ref(), migration.verify.as_ref()];
                for script in scripts.into_iter().flatten() {
                    change.files.insert(format!("{}/{}", self.chain, script.shown), script.sha256.clone());
                }
            }
            for file in &chain.repeatable {
                change.files.insert(format!("{}/{}", self.chain, file.script.shown), file.script.sha256.clone());
            }
            for finding in &standing.findings {
                let passes = matches!(finding, Finding::OutOfOrder { .. }) && self.out_of_order;
                if finding.blocks() && !passes && matches!(self.goal, Goal::Up(_)) {
                    change.blocked.get_or_insert_with(|| format!("{finding}; {}", finding.remedy()));
                } else {
                    change.warnings.push(finding.to_string());
                }
            }
            match &self.goal {
                Goal::Up(to) => {
                    if let Some(to) = to
                        && chain.find(to).is_none()
                    {
                        return Err(chain_error(ChainError::NoSuchVersion { version: to.to_string() }));
                    }
                    let within = |version: &Version| to.as_ref().is_none_or(|to| version <= to);
                    let pending: Vec<_> = standing.pending.iter().filter(|one| within(&one.version)).collect();
                    change.summary = match pending.as_slice() {
                        [] => "nothing is pending".to_owned(),
                        [one] => format!("apply {}", one.title()),
                        [first, .., last] => {
                            format!("apply {} migrations, {} to {}", pending.len(), first.version, last.version)
                        }
                    };
                    for migration in pending {
                        let text = Text::read(&migration.up).map_err(chain_error)?;
                        let count = text.statements.len();
                        let note = text.mode.note().map_or_else(String::new, |note| format!("; {note}"));
                        let down = if migration.down.is_some() { "" } else { "; no down file" };
                        change.details.push(format!("{}: {count} statement(s){note}{down}", migration.title()));
                    }
                    if standing.pending.is_empty() || to.is_none() {
                        let names =
                            standing.repeatable.iter().map(|file| format!("{}: applied again", file.script.shown));
                        change.details.extend(names);
                    }
                }
                Goal::Down(to) => {
                    let above = |version: &str| {
                        Version::parse(version).is_some_and(|version| to.as_ref().is_none_or(|to| version > *to))
                    };
                    let rows: Vec<_> = standing.applied.iter().filter(|row| above(&row.version)).collect();
                    change.summary = match rows.as_slice() {
                        [] => "nothing to take back".to_owned(),
                        rows => format!(
                            "take back {}",
                            rows.iter().rev().map(|row| row.version.as_str()).collect::<Vec<_>>().join(", ")
                        ),
                    };
                }
            }
            change.deployment = Some(Deployment { log: self.deployment_log.as_ref().map(LogTable::shown) });
            if let Some(table) = &self.deployment_log {
                change.details.push(format!("{} gets a row, with the last of them", table.shown()));
            }
            if let Some(row) = &self.version_row {
                change.details.push(format!("{} becomes {}, with the last of them", row.place(), row.version));
            }
            // What is applied when the run begins must be what was applied when it was planned.
            let newest = standing.newest.map_or_else(|| "nothing".to_owned(), |version| version.to_string());
            if self.is_first(&standing.applied) {
                change.preconditions.insert(format!("chain {}", self.chain), newest);
            }
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let version = self.version_row.clone().map(VersionWrite::Set);
            let (applied, done) = self.go(cx, &self.goal, version, self.log(cx, self.action())).await?;
            let down = matches!(self.goal, Goal::Down(_));
            match done {
                Ok(()) if down => Ok(Evidence::of(match applied.versions.as_slice() {
                    [] => "nothing was to be taken back".to_owned(),
                    versions => format!("{} taken back", versions.join(", ")),
                })
                .fact("taken_back", applied.versions)),
                Ok(()) => {
                    let session = self.session("pgrunbook:history").await?;
                    let own = self.applied_by(&session, cx).await?;
                    self.with_version(Self::evidence(&own, &applied), &session, cx).await
                }
                Err(error) if applied.versions.is_empty() && applied.repeatable.is_empty() => Err(error),
                Err(error) => {
                    let stays = applied.versions.join(", ");
                    let message = format!("{} ({stays} before it stays)", error.message);
                    let own: Vec<_> = applied
                        .versions
                        .iter()
                        .map(|version| Done { version: version.clone(), duration_ms: None })
                        .collect();
                    let evidence = Self::evidence(&own, &applied);
                    Err(StepError { message, ..error }.partly(evidence))
                }
            }
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let session = self.session("pgrunbook:resolve").await?;
            ledger::settle(&session, cx.run).await.map_err(PgError::into_step_error)?;
            let chain = self.read()?;
            let (standing, kept) = Runner::standing(&chain, &session).await.map_err(PgError::into_step_error)?;
            let own = |kept: &&history::Kept| {
                kept.row.run.as_deref() == Some(cx.run) && kept.step.as_deref() == Some(cx.step.as_str())
            };
            let mut unfinished = kept.iter().filter(own).filter(|kept| kept.row.state != RowState::Applied);
            if let Some(kept) = unfinished.find(|kept| kept.row.mode == "own") {
                return Ok(Happened::Unknown(format!(
                    "{} {} controls its own transactions and was interrupted",
                    kept.row.version, kept.row.name
                )));
            }
            let versions = self.applied_by(&session, cx).await?;
            let left = match &self.goal {
                Goal::Up(to) => {
                    let pending = standing.pending.iter().any(|one| to.as_ref().is_none_or(|to| one.version <= *to));
                    pending || (to.is_none() && !standing.repeatable.is_empty())
                }
                Goal::Down(to) => standing.applied.iter().any(|row| {
                    Version::parse(&row.version).is_some_and(|version| to.as_ref().is_none_or(|to| version > *to))
                }),
            };
            // Behind a migration without a transaction the version row is a commit of its own.
            let left =
                left || match self.version_row.clone().map(VersionWrite::Set) {
                    Some(write) => !write.is_done(&session, None).await.map_err(PgError::into_step_error)?,
                    None => false,
                } || match self.log(cx, Action::Deployed) {
                    Some(write) => !write.is_done(&session).await.map_err(PgError::into_step_error)?,
                    None => false,
                };
            let evidence = self.with_version(Self::evidence(&versions, &Applied::default()), &session, cx).await?;
            Ok(match (left, versions.is_empty(), &self.goal) {
                (false, _, _) => Happened::Yes(evidence),
                (true, true, _) | (true, _, Goal::Down(_)) => Happened::No,
                (true, false, Goal::Up(_)) => Happened::Partly(evidence),
            })
        })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let session = self.session("pgrunbook:history").await?;
            let own: BTreeSet<String> =
                self.applied_by(&session, cx).await?.into_iter().map(|one| one.version).collect();
            drop(session);
            let Some(lowest) = own.iter().filter_map(|version| Version::parse(version)).min() else {
                return self.take_back_version(cx).await;
            };
            let chain = self.read()?;
            // Down to what stood below the lowest; whatever was put above it since must go first, and is not ours to take.
            let below = chain.migrations.iter().rev().find(|one| one.version < lowest).map(|one| one.version.clone());
            let session = self.session("pgrunbook:history").await?;
            let kept = history::read(&session, &self.chain).await.map_err(PgError::into_step_error)?;
            let foreign = kept.iter().find(|kept| {
                !kept.row.repeatable
                    && !own.contains(&kept.row.version)
                    && Version::parse(&kept.row.version).is_some_and(|version| version > lowest)
            });
            if let Some(kept) = foreign {
                return Err(StepError::failed(
                    "not-ours",
                    format!(
                        "{} {} was applied above it by {}, not by this step",
                        kept.row.version, kept.row.name, kept.row.applied_by
                    ),
                )
                .help("take that one back first: pgrunbook migrate down"));
            }
            let log = self.log_of_undo(&session, cx).await?;
            drop(session);
            let restore = self.version_row.clone().map(VersionWrite::Restore);
            let (applied, done) = self.go(cx, &Goal::Down(below), restore, log).await?;
            match done {
                Ok(()) => Ok(Evidence::of(format!("{} taken back", applied.versions.join(", ")))
                    .fact("taken_back", applied.versions)),
                Err(error) => Err(error),
            }
        })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let session = self.session("pgrunbook:resolve").await?;
            ledger::settle(&session, cx.run).await.map_err(PgError::into_step_error)?;
            let left = self.applied_by(&session, cx).await?;
            let restored = match self.version_row.clone().map(VersionWrite::Restore) {
                Some(write) => {
                    let run = Some((cx.run, cx.step.as_str()));
                    write.is_done(&session, run).await.map_err(PgError::into_step_error)?
                }
                None => true,
            };
            // What is written with it in one transaction; alone only where nothing else was to be taken back.
            let logged = !left.is_empty() || !restored || self.log_of_undo(&session, cx).await?.is_none();
            Ok(if left.is_empty() && restored && logged {
                Happened::Yes(Evidence::of("taken back, as the history says"))
            } else {
                Happened::No
            })
        })
    }
}

impl Migrate {
    /// The undo of a step that found everything applied: at most the version row and a row of the log are its own.
    async fn take_back_version(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let run = Some((cx.run, cx.step.as_str()));
        let session = self.session("pgrunbook:version-row").await?;
        let mut sql = String::new();
        let mut said = Vec::new();
        if let Some(row) = &self.version_row {
            let write = VersionWrite::Restore(row.clone());
            if !write.is_done(&session, run).await.map_err(PgError::into_step_error)? {
                sql.push_str(&write.sql("", run));
                said.push(format!("{} is what it was", row.place()));
            }
        }
        if let Some(write) = self.log_of_undo(&session, cx).await? {
            sql.push_str(&write.sql(""));
            said.push(format!("{} has a row more", write.table.shown()));
        }
        if sql.is_empty() {
            return Ok(Evidence::of("nothing to take back: this step applied nothing"));
        }
        let sql = format!("BEGIN; {}; {sql}COMMIT", Entry::of(cx).assert_sql());
        session.execute(&sql).await.map_err(PgError::into_step_error)?;
        Ok(Evidence::of(said.join("; ")))
    }

    /// Whether this step is the chain's next: the history that a later step of the same runbook will meet is made by the
    /// steps before it.
    fn is_first(&self, applied: &[super::standing::Row]) -> bool {
        match &self.goal {
            Goal::Up(Some(to)) => {
                let newest = applied.iter().filter_map(|row| Version::parse(&row.version)).max();
                newest.is_none_or(|newest| newest < *to)
            }
            Goal::Up(None) => true,
            Goal::Down(_) => false,
        }
    }
}
