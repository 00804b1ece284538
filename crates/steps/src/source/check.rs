//! The block: `registry = "mapping-is-whole"`, `target = "main"`, `sources = ["assets_1"]`.

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::{PgError, Session};
use serde::Deserialize;

use super::error::SourceError;
use super::name::declared;
use super::registry::{self, Listing, list};
use crate::registry::{Kind, bound_fields, fields, required_target};
use crate::topology::Topology;
use crate::workplace::Workplace;

/// The kind `registry`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "registry",
        language: Language::Toml,
        summary: "Is a gate: every source in the mapping has its schema, and every schema of the pattern its source.",
        fields: &[FieldSpec { name: "sources", about: "Sources that must be registered.", required: false }],
        needs_target: true,
        changes: false,
        undo_words: &[],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "registry")]
    _id: String,
    #[serde(default)]
    sources: Vec<String>,
}

/// Holds the mapping against the schemas.
///
/// Effect: idempotent (it only reads). Undo: not needed.
struct Checked {
    target: String,
    sources: Vec<String>,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let target = required_target(block)?;
    workplace.postgres(&target)?;
    Ok(Box::new(Checked { target, sources: fields.sources, workplace: workplace.clone() }))
}

impl Step for Checked {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let named = match self.sources.as_slice() {
                [] => String::new(),
                sources => format!(", {} among them", sources.join(", ")),
            };
            Ok(Change { summary: format!("hold the mapping against the schemas{named}"), ..Change::default() })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let name = crate::sql::application_name(cx.run, cx.step);
            let session = Session::connect(self.workplace.postgres(&self.target)?, &name)
                .await
                .map_err(PgError::into_step_error)?;
            let topology = self.workplace.topology()?;
            let (listing, found) = findings(&session, topology, &self.sources).await?;
            if found.is_empty() {
                let listed: Vec<String> =
                    listing.sources.iter().map(|one| format!("{}={}", one.source_id, one.schema)).collect();
                return Ok(
                    Evidence::of(format!("{} source(s), each with its schema", listed.len())).fact("sources", listed)
                );
            }
            Err(StepError::failed("source-registry", found.join("; "))
                .help("a step `source` makes what is missing; a schema of nobody's is for a person to judge"))
        })
    }
}

/// What is wrong with the mapping, one line each; nothing if `sources` are in it and everything fits.
///
/// # Errors
/// If the declaration has no sources, or the server cannot be asked.
pub async fn findings(
    session: &Session,
    topology: &Topology,
    sources: &[String],
) -> Result<(Listing, Vec<String>), SourceError> {
    let listing = list(session, topology).await?;
    let mut found = Vec::new();
    match registry::check_shape(session, declared(topology)?).await {
        // Missing altogether: then the sources are, too.
        Ok(()) => {}
        Err(SourceError::Registry { registry, why, .. }) => found.push(format!("{registry} {why}")),
        Err(error) => return Err(error),
    }
    let missing = sources.iter().filter(|id| listing.sources.iter().all(|one| one.source_id != **id));
    found.extend(missing.map(|id| format!("the source {id:?} is not registered")));
    found.extend(
        listing
            .sources
            .iter()
            .filter_map(|one| Some(format!("the source {:?}: {}", one.source_id, one.wrong.as_ref()?))),
    );
    found.extend(listing.unregistered.iter().map(|schema| format!("the schema {schema} is no source's")));
    Ok((listing, found))
}
