//! Sources: schemas that no file lists. A table of the database maps each source id to its schema; the declaration says
//! where that table is, what such a schema's name looks like, and who may do what in all of them.
//!
//! The declaration alone is read without a database. [`completed`] adds the sources that are registered in one, so that
//! plan, audit and probe treat their schemas as what they are.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{PgError, Session};

use super::expand::{NAME_BYTES, schema_name, word};
use super::model::{AccessSet, ChainUse, Objects, Privilege, Rule, Schema, Table, Topology};
use super::write;

/// What the declaration says of sources, and which there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The mapping table.
    pub registry: Table,
    /// What stands before the source in a schema's name, and what after it.
    pub before: String,
    pub after: String,
    /// The roles that all sources share.
    pub roles: Vec<String>,
    /// What they may do in every source's schema.
    pub access: AccessSet,
    /// Folders of the chains that are applied in every source's schema, in order.
    pub chains: Vec<String>,
    /// Source ids with their schemas. Empty until [`Topology::with_sources`].
    pub registered: BTreeMap<String, String>,
}

impl Sources {
    /// The pattern of the schemas' names, as the declaration writes it.
    pub fn pattern(&self) -> String {
        format!("{}{{source}}{}", self.before, self.after)
    }

    /// Whether a name is one that the pattern gives.
    fn fits(&self, schema: &str) -> bool {
        schema.len() > self.before.len() + self.after.len()
            && schema.starts_with(&self.before)
            && schema.ends_with(&self.after)
    }
}

impl Topology {
    /// Whether a schema may be a source's: a strict identifier of the pattern that is nobody else's.
    ///
    /// # Errors
    /// Why not, as the end of a sentence that begins with the name: `is reserved`.
    pub fn may_be_sources(&self, schema: &str) -> Result<(), String> {
        let Some(sources) = &self.sources else { return Err("is no source's: no sources are declared".to_owned()) };
        if schema.len() > NAME_BYTES {
            return Err(format!("has {} bytes, and PostgreSQL keeps {NAME_BYTES}", schema.len()));
        }
        if !word(schema) {
            return Err("is not lower-case letters, digits and underscores, beginning with a letter".to_owned());
        }
        if schema_name(schema).is_err() {
            return Err("is reserved".to_owned());
        }
        if !sources.fits(schema) {
            return Err(format!("is no name that the pattern {} gives", sources.pattern()));
        }
        let registered = sources.registered.values().any(|one| one == schema);
        if self.retired_schemas.contains(schema) || (self.schemas.contains_key(schema) && !registered) {
            return Err(format!("is declared in {} for something else", self.source));
        }
        Ok(())
    }

    /// The same with these sources: their schemas, what the sources' roles may do in them, and their chains. The roles may
    /// read the mapping too.
    ///
    /// # Errors
    /// If a mapping leads to a schema that is not a source's, or two lead to one: nothing may be granted by it.
    pub fn with_sources(&self, registered: &[(String, String)]) -> Result<Self, StepError> {
        let Some(sources) = &self.sources else { return Ok(self.clone()) };
        let mut whole = self.clone();
        // Those of an earlier look may be gone.
        for schema in sources.registered.values() {
            whole.schemas.remove(schema);
            whole.chains.retain(|chain| chain.schema != *schema);
            whole.roles.values_mut().for_each(|role| drop(role.access.remove(schema)));
        }
        let mut ids: BTreeMap<&str, &str> = BTreeMap::new();
        for (id, schema) in registered {
            let wrong = |why: String| {
                let registry = &sources.registry;
                let message = format!("{registry} maps the source {id:?} to the schema {schema:?}, which {why}");
                StepError::unusable("source-mapping", format!("{message}. Nothing was changed."))
                    .help(format!("mend or delete that row of {registry}"))
            };
            self.may_be_sources(schema).map_err(wrong)?;
            if let Some(other) = ids.insert(schema, id) {
                return Err(wrong(format!("is the source {other:?}'s already: two sources never share one")));
            }
            let kept = Schema { name: schema.clone(), tenant: None, owner_rights: BTreeSet::new() };
            whole.schemas.insert(schema.clone(), kept);
            for role in &sources.roles {
                if let Some(role) = whole.roles.get_mut(role) {
                    role.access.insert(schema.clone(), sources.access.clone());
                }
            }
            whole.chains.extend(sources.chains.iter().map(|folder| ChainUse {
                folder: folder.clone(),
                schema: schema.clone(),
                tenant: None,
                layer: "source".to_owned(),
                optional: false,
            }));
        }
        let table = Objects::Named { name: sources.registry.name.clone(), columns: BTreeSet::new() };
        for role in &sources.roles {
            let Some(role) = whole.roles.get_mut(role) else { continue };
            let set = role.access.entry(sources.registry.schema.clone());
            let set = set.or_insert_with(|| AccessSet { name: "sources".to_owned(), rules: Vec::new() });
            let read = Rule { privilege: Privilege::Select, objects: table.clone() };
            if !set.rules.contains(&read) {
                set.rules.push(read);
            }
        }
        if let Some(sources) = &mut whole.sources {
            sources.registered = registered.iter().cloned().collect();
        }
        Ok(whole)
    }

    /// The same for these schemas alone: all roles, and of the rest what is about them.
    #[must_use]
    pub fn narrowed(&self, schemas: &BTreeSet<&str>) -> Self {
        let mut part = self.clone();
        let stays = |schema: &str| schemas.contains(schema);
        part.schemas.retain(|name, _| stays(name));
        part.retired_schemas.clear();
        part.chains.retain(|chain| stays(&chain.schema));
        part.row_security.iter_mut().for_each(|one| one.tables.retain(|table| stays(&table.schema)));
        part.row_security.retain(|one| stays(&one.guard.schema) || !one.tables.is_empty());
        part.append_only.retain(|one| stays(&one.table.schema));
        for role in part.roles.values_mut() {
            role.access.retain(|schema, _| stays(schema));
        }
        part.sources = None;
        part
    }
}

/// The declaration with the sources that are registered in a database; as it is, where it declares none, or none was ever
/// registered. In the caller's transaction, if one is open.
///
/// # Errors
/// If the mapping cannot be read, or leads where it must not.
pub async fn completed<'t>(session: &Session, topology: &'t Topology) -> Result<Cow<'t, Topology>, StepError> {
    let Some(sources) = &topology.sources else { return Ok(Cow::Borrowed(topology)) };
    let table = write::table(&sources.registry);
    let there = format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", write::literal(&table));
    if session.value(&there).await.map_err(PgError::into_step_error)? != "t" {
        return Ok(Cow::Borrowed(topology));
    }
    let read =
        format!("SELECT s.source_id::pg_catalog.text, s.schema_name::pg_catalog.text FROM {table} AS s ORDER BY 1");
    let answers = session.simple(&read).await.map_err(PgError::into_step_error)?;
    let rows = answers.into_iter().flat_map(|answer| answer.rows);
    let registered: Vec<(String, String)> = rows
        .map(|row| {
            let mut values = row.into_iter().map(Option::unwrap_or_default);
            (values.next().unwrap_or_default(), values.next().unwrap_or_default())
        })
        .collect();
    topology.with_sources(&registered).map(Cow::Owned)
}
