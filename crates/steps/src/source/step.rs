//! The block: `source = "bootstrap-assets"`, `source_id = "assets_1"`, `target = "main"`, `undo = "auto"`.

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Clock, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::ledger;
use pgrunbook_postgres::{PgError, Session};
use serde::Deserialize;

use super::bootstrap::{Bootstrapped, Standing, bootstrap, standing};
use super::name::search_path_of;
use super::undo;
use crate::migrate::Around;
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::topology::{self, Wish};
use crate::workplace::Workplace;

/// The kind `source`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "source",
        language: Language::Toml,
        summary: "Bootstraps one source: its row in the mapping, its schema, its chains of migrations, its roles' access.",
        fields: &[
            FieldSpec {
                name: "source_id",
                about: "The source, as the application names it; its schema's name is made of it.",
                required: true,
            },
            FieldSpec {
                name: "only_missing",
                about: "Whether a source that has its row and its schema is left as it is, also where migrations wait.",
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

/// Bootstraps one source.
///
/// Effect: resolvable (mapping, schema, histories and grants say how far it came). Undo: `auto`, what it made, which is
/// kept in the target; a schema with rows of the application is never dropped.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "source")]
    _id: String,
    source_id: String,
    #[serde(default)]
    only_missing: bool,
}

struct Source {
    target: String,
    id: String,
    only_missing: bool,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let target = required_target(block)?;
    workplace.postgres(&target)?;
    Ok(Box::new(Source {
        target,
        id: fields.source_id,
        only_missing: fields.only_missing,
        workplace: workplace.clone(),
    }))
}

impl Source {
    async fn session(&self, name: &str) -> Result<Session, StepError> {
        Session::connect(self.workplace.postgres(&self.target)?, name).await.map_err(PgError::into_step_error)
    }

    async fn standing(&self, session: &Session, clock: &dyn Clock) -> Result<Standing, StepError> {
        let wish = Wish { today: topology::today(clock), prune: false, set_passwords: false };
        standing(&self.workplace, session, self.workplace.topology()?, &self.id, &wish).await
    }

    /// Whether the source has what it is only to be made for.
    fn leaves(&self, standing: &Standing) -> bool {
        self.only_missing && standing.registered && standing.there
    }

    fn evidence(&self, done: &Bootstrapped) -> Evidence {
        let chains: serde_json::Map<String, serde_json::Value> =
            done.chains.iter().map(|(name, files)| (name.clone(), files.clone().into())).collect();
        let mut evidence = Evidence::of(done.summary())
            .fact("source_id", self.id.clone())
            .fact("made_schema", done.made.schema)
            .fact("made_row", done.made.row)
            .fact("made_mapping", done.made.table)
            .fact("statements", done.statements.clone())
            .fact("chains", chains);
        if let Some(schema) = &done.schema {
            evidence = evidence.fact("schema", schema.as_str()).fact("search_path", search_path_of(schema));
        }
        evidence
    }
}

impl Step for Source {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let session = self.session("pgrunbook:plan").await?;
            let standing = self.standing(&session, cx.clock).await?;
            let (id, schema) = (&self.id, &standing.schema);
            if self.leaves(&standing) {
                let summary = format!("nothing to do: the source {id:?} has the schema {schema}");
                return Ok(Change { summary, ..Change::default() });
            }
            let mut change = Change { files: standing.files.clone(), ..Change::default() };
            change.summary = match (standing.is_made(), standing.there) {
                (true, _) => format!("nothing to do: the source {id:?} has the schema {schema}"),
                (false, true) => format!("take over the schema {schema} for the source {id:?}"),
                (false, false) => format!("make the schema {schema} for the source {id:?}"),
            };
            if !standing.registered {
                change.details.push(format!("the source {id:?} is registered with {schema}"));
            }
            change.details.extend(standing.pending.iter().cloned());
            change.details.extend(standing.access.iter().cloned());
            change.blocked = standing.obstacle.as_ref().map(ToString::to_string);
            if !standing.provisioned && standing.obstacle.is_none() {
                let text = "the declared roles and schemas are not there yet: a step before this one must make them";
                change.warnings.push(text.to_owned());
            }
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            if self.only_missing {
                let session = self.session(&crate::sql::application_name(cx.run, cx.step)).await?;
                let standing = self.standing(&session, cx.clock).await?;
                let began = undo::is_kept(&session, cx.run, cx.step.as_str()).await?;
                if self.leaves(&standing) && !began {
                    let evidence = Evidence::of(format!("{} was there, and is left as it is", standing.schema));
                    return Ok(evidence.fact("source_id", self.id.clone()).fact("schema", standing.schema));
                }
            }
            let tell = |line: String| cx.say(line);
            let around = Around::of_step(cx, &tell);
            let options = self.workplace.postgres(&self.target)?;
            let mut done = Bootstrapped::default();
            let outcome =
                bootstrap(&self.workplace, options, self.workplace.topology()?, &self.id, &around, &mut done).await;
            let Err(error) = outcome else { return Ok(self.evidence(&done)) };
            // Also what an attempt before this one made must be taken back.
            let session = self.session("pgrunbook:source").await;
            let kept = match session {
                Ok(session) => undo::is_kept(&session, cx.run, cx.step.as_str()).await.unwrap_or(true),
                Err(_) => done.schema.is_some(),
            };
            Err(if kept { error.partly(self.evidence(&done)) } else { error })
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let session = self.session("pgrunbook:resolve").await?;
            ledger::settle(&session, cx.run).await.map_err(PgError::into_step_error)?;
            let standing = self.standing(&session, cx.clock).await?;
            let evidence = Evidence::of(format!("{} is there", standing.schema))
                .fact("source_id", self.id.clone())
                .fact("schema", standing.schema.clone());
            if standing.is_made() {
                return Ok(Happened::Yes(evidence));
            }
            Ok(match undo::is_kept(&session, cx.run, cx.step.as_str()).await? {
                true => Happened::Partly(evidence),
                false => Happened::No,
            })
        })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let session = self.session(&crate::sql::application_name(cx.run, cx.step)).await?;
            let tell = |line: String| cx.say(line);
            let around = Around::of_step(cx, &tell);
            let told = undo::undo(&session, self.workplace.topology()?, &self.id, &around).await?;
            Ok(match told.is_empty() {
                true => Evidence::of("nothing to take back: this step made nothing"),
                false => Evidence::of(told.join("; ")),
            })
        })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let session = self.session("pgrunbook:resolve").await?;
            ledger::settle(&session, cx.run).await.map_err(PgError::into_step_error)?;
            Ok(match undo::is_kept(&session, cx.run, cx.step.as_str()).await? {
                true => Happened::No,
                false => Happened::Yes(Evidence::of("nothing that this step made is left")),
            })
        })
    }
}
