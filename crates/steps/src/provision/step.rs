//! The block: `provision = "butlers"`, `target = "main"`, `only = ["health"]`.

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::{PgError, Session};
use serde::Deserialize;

use super::provision;
use crate::migrate::chain::Chain;
use crate::migrate::{Around, Runner};
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::topology;
use crate::workplace::Workplace;

/// The kind `provision`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "provision",
        language: Language::Toml,
        summary: "Makes the declared roles, schemas and grants, and applies every tenant's chains of migrations.",
        fields: &[FieldSpec { name: "only", about: "These tenants, and what all share.", required: false }],
        needs_target: true,
        changes: true,
        undo_words: &[],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Makes a database what the project's files say.
///
/// Effect: idempotent, since each part is. Undo: none of its own; what must go back is done by `topology` and `migrate`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "provision")]
    _id: String,
    #[serde(default)]
    only: Vec<String>,
}

struct Provision {
    target: String,
    only: Vec<String>,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let target = required_target(block)?;
    workplace.postgres(&target)?;
    Ok(Box::new(Provision { target, only: fields.only, workplace: workplace.clone() }))
}

impl Step for Provision {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let topology = self.workplace.topology()?.only(&self.only)?;
            let session = Session::connect(self.workplace.postgres(&self.target)?, "pgrunbook:plan")
                .await
                .map_err(PgError::into_step_error)?;
            let wish = topology::Wish { today: topology::today(cx.clock), prune: false, set_passwords: false };
            let plan = topology::plan(&session, &topology, &wish).await?;
            let mut change = Change { files: topology.files.clone(), ..Change::default() };
            change.details = topology::details(&plan);
            let mut pending = 0;
            for used in &topology::completed(&session, &topology).await?.chains {
                let folder = self.workplace.root().join(&used.folder);
                if used.optional && !folder.is_dir() {
                    continue;
                }
                let name = used.history();
                let chain = Chain::read(&name, &folder)
                    .map_err(|error| StepError::unusable(error.code(), error.to_string()).help(error.help()))?;
                for migration in &chain.migrations {
                    let path = format!("{}/{}", used.folder, migration.up.shown);
                    change.files.insert(path, migration.up.sha256.clone());
                }
                let (standing, _) = Runner::standing(&chain, &session).await.map_err(PgError::into_step_error)?;
                for migration in &standing.pending {
                    pending += 1;
                    change.details.push(format!("{name}: {}", migration.title()));
                }
            }
            change.summary = match (plan.statements.len(), pending) {
                (0, 0) => "nothing to change".to_owned(),
                (statements, pending) => format!("{statements} statement(s) of the topology, {pending} migration(s)"),
            };
            change.warnings = plan.warnings.into_iter().chain(plan.cannot).chain(plan.foreign).collect();
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let tell = |line: String| cx.say(line);
            let around = Around::of_step(cx, &tell);
            let options = self.workplace.postgres(&self.target)?;
            let done = provision(&self.workplace, options, self.workplace.topology()?, &self.only, around).await?;
            let files: usize = done.chains.iter().map(|(_, files)| files.len()).sum();
            let summary = match done.is_empty() {
                true => "everything was there".to_owned(),
                false => format!("{} statement(s) of the topology, {files} migration(s)", done.statements.len()),
            };
            let chains: serde_json::Map<String, serde_json::Value> =
                done.chains.into_iter().map(|(name, files)| (name, files.into())).collect();
            Ok(Evidence::of(summary)
                .fact("statements", done.statements)
                .fact("chains", chains)
                .fact("notes", done.notes))
        })
    }
}
