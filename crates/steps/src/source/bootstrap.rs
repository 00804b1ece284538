//! Makes one source: its row in the mapping, its schema, what its chains bring, and what its roles may do there.
//!
//! In this order: the row reserves the name, so that of two ids that give one name only one goes on; the roles come in last,
//! so that nobody meets a schema that is half made, and what the chains have brought can be told from what the application
//! wrote. Every part asks what is there first: after a crash it is simply run again.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_engine::StepError;
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_postgres::retry::LockPolicy;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use super::error::SourceError;
use super::name::{SchemaName, check_id, declared, sanitise};
use super::registry;
use super::undo;
use crate::migrate::Around;
use crate::migrate::Runner;
use crate::migrate::chain::Chain;
use crate::provision;
use crate::secret::Reference;
use crate::topology::{self, Applied, How, Sources, Topology, Wish, ident, literal, table};
use crate::workplace::Workplace;

/// How often registering is begun anew, where an application wrote to the mapping or a role at the same moment.
const ATTEMPTS: u32 = 5;

/// What a bootstrap made, of what it needs; the rest was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// The mapping table.
    pub table: bool,
    /// The source's row in it.
    pub row: bool,
    pub schema: bool,
}

/// What was done; empty where everything was there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bootstrapped {
    /// None until the source is registered.
    pub schema: Option<SchemaName>,
    pub made: Made,
    /// Chains with the files that were applied.
    pub chains: Vec<(String, Vec<String>)>,
    /// Statements that gave the roles their access.
    pub statements: Vec<String>,
}

impl Bootstrapped {
    /// Whether nothing was to do.
    pub fn is_empty(&self) -> bool {
        self.made == Made::default() && self.chains.is_empty() && self.statements.is_empty()
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let schema = self.schema.as_ref().map_or("", SchemaName::as_str);
        if self.is_empty() {
            return format!("{schema} was there");
        }
        let files: usize = self.chains.iter().map(|(_, files)| files.len()).sum();
        let how = if self.made.schema { "made" } else { "taken over" };
        format!("{schema} {how}, {files} migration(s), {} statement(s) of access", self.statements.len())
    }
}

/// Makes a source, as far as it is not there. Safe to run again, and at the same time as others.
///
/// `done` says what was made, also where a later part fails.
///
/// # Errors
/// A source that cannot be: see [`SourceError`]. The first migration that fails; everything before it stays, and no role
/// gets access.
pub async fn bootstrap(
    workplace: &Workplace,
    options: &ConnectOptions,
    topology: &Topology,
    id: &str,
    around: &Around<'_>,
    done: &mut Bootstrapped,
) -> Result<(), StepError> {
    let sources = declared(topology)?;
    let name = match around.run {
        Some((run, step)) => format!("pgrunbook:{run}:{step}"),
        None => "pgrunbook:source".to_owned(),
    };
    let session = Session::connect(options, &name).await.map_err(PgError::into_step_error)?;
    let wish = wish(around);
    // What is not this source's is not changed: it must be there.
    let rest = topology::plan(&session, &topology.narrowed(&BTreeSet::new()), &wish).await?;
    if let Some(first) = rest.statements.first() {
        let missing = match rest.statements.len() {
            1 => format!("{} is missing", first.sql),
            more => format!("{} is missing, and {} more", first.sql, more - 1),
        };
        return Err(SourceError::NotProvisioned { missing }.into());
    }
    let (schema, made) = registered(&session, topology, sources, id, around).await?;
    let whole = topology.with_sources(&[(id.to_owned(), schema.as_str().to_owned())])?;
    let part = whole.narrowed(&BTreeSet::from([schema.as_str()]));
    done.schema = Some(schema.clone());
    done.made = made;
    for used in &part.chains {
        if let Some(applied) = provision::chain(workplace, options, topology, used, around).await? {
            done.chains.push(applied);
        }
    }
    let left = match around.run {
        Some((run, step)) => undo::left(&session, topology, &schema, run, step).await?,
        None => None,
    };
    let record = |applied: &Applied| match around.run {
        Some((run, step)) => undo::keep_access(run, step, applied, left.as_ref()),
        None => String::new(),
    };
    let how = How {
        wish,
        expect_revokes: None,
        password: &|reference: &Reference| workplace.secret(reference),
        assert: around.assert.clone(),
        record: Some(&record),
        locks: LockPolicy::default(),
        clock: around.clock,
        cancel: around.cancel,
        tell: around.tell,
    };
    let applied = topology::apply(&session, &part, &how).await?;
    done.statements = applied.plan.statements.into_iter().map(|one| one.sql).collect();
    Ok(())
}

pub(super) fn wish(around: &Around<'_>) -> Wish {
    Wish { today: topology::today(around.clock), prune: false, set_passwords: false }
}

/// Registers, again where others did something to the same rows or privileges at the same moment.
async fn registered(
    session: &Session,
    topology: &Topology,
    sources: &Sources,
    id: &str,
    around: &Around<'_>,
) -> Result<(SchemaName, Made), SourceError> {
    let mut attempt = 1;
    loop {
        let outcome = register(session, topology, sources, id, around).await;
        if outcome.is_err() && !session.is_closed() {
            // What is open is rolled back; of a connection that is lost now, the server does it by itself.
            let _ = session.execute("ROLLBACK").await;
        }
        match outcome {
            // unique_violation: the next look says whose it is. tuple concurrently updated: a role or an ACL.
            Err(SourceError::Server(error))
                if matches!(error.sqlstate(), Some("23505" | "XX000")) && attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

/// The mapping, the row and the schema, in one transaction with the record of what of them was made.
async fn register(
    session: &Session,
    topology: &Topology,
    sources: &Sources,
    id: &str,
    around: &Around<'_>,
) -> Result<(SchemaName, Made), SourceError> {
    let locks = LockPolicy::default();
    let lock = topology::LOCK;
    session.execute(&format!("BEGIN; {lock}; {}; SET LOCAL search_path = pg_catalog", locks.set_local())).await?;
    if let Some(assert) = &around.assert {
        session.execute(assert).await?;
    }
    let mut made = Made::default();
    let (registry, owner) = (table(&sources.registry), ident(&topology.owner));
    let home = &sources.registry.schema;
    if owner_of(session, home).await?.is_none() {
        let missing = format!("CREATE SCHEMA {} is missing", ident(home));
        return Err(SourceError::NotProvisioned { missing });
    }
    if registry::is_there(session, sources).await? {
        registry::check_shape(session, sources).await?;
    } else {
        as_owner(session, &owner, &registry::create(sources)).await?;
        made.table = true;
    }
    let schema = match registry::schema_of(session, sources, id).await? {
        // The mapping decides, also where another pattern would give another name today.
        Some(name) => registry::parsed(topology, sources, id, &name)?,
        None => {
            let schema = sanitise(topology, id)?;
            if let Some(holder) = registry::holder_of(session, sources, &schema).await? {
                return Err(SourceError::Collision { id: id.to_owned(), schema: schema.to_string(), holder });
            }
            let row = format!(
                "INSERT INTO {registry} (source_id, schema_name) VALUES ({}, {})",
                literal(id),
                literal(schema.as_str())
            );
            as_owner(session, &owner, &row).await?;
            made.row = true;
            schema
        }
    };
    if made.table || made.row {
        // A role that shall find its schemas reads the mapping, and writes nothing there.
        let roles: Vec<String> = sources.roles.iter().map(|role| ident(role)).collect();
        let (roles, home) = (roles.join(", "), ident(home));
        let grants = format!("GRANT USAGE ON SCHEMA {home} TO {roles}; GRANT SELECT ON TABLE {registry} TO {roles}");
        as_owner(session, &owner, &grants).await?;
    }
    match owner_of(session, schema.as_str()).await? {
        None => {
            session.execute(&format!("CREATE SCHEMA {} AUTHORIZATION {owner}", ident(schema.as_str()))).await?;
            made.schema = true;
        }
        Some(other) if other != topology.owner => {
            let (schema, wanted) = (schema.to_string(), topology.owner.clone());
            return Err(SourceError::Stranger { schema, owner: other, wanted });
        }
        Some(_) => {}
    }
    if let Some((run, step)) = around.run {
        session.execute(&undo::keep(run, step, id, &schema, made)).await?;
        made = undo::made(session, run, step).await?;
    }
    fault::pass(Point::BeforeCommit);
    let committed = session.execute("COMMIT").await;
    fault::pass(Point::AfterCommit);
    committed?;
    Ok((schema, made))
}

/// Runs a statement as the role that everything belongs to.
pub(super) async fn as_owner(session: &Session, owner: &str, sql: &str) -> Result<(), SourceError> {
    Ok(session.execute(&format!("SET LOCAL ROLE {owner}; {sql}; RESET ROLE")).await?)
}

/// Who owns a schema; none where it is not there.
async fn owner_of(session: &Session, schema: &str) -> Result<Option<String>, SourceError> {
    let owner = session
        .value(&format!(
            "SELECT pg_catalog.pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace AS n WHERE n.nspname = {}",
            literal(schema)
        ))
        .await?;
    Ok((!owner.is_empty()).then_some(owner))
}

/// How far a source is from being made.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub schema: String,
    pub registered: bool,
    pub there: bool,
    /// Statements, with why.
    pub access: Vec<String>,
    /// Migrations that are to be applied.
    pub pending: Vec<String>,
    /// Files whose content takes part, with their digests.
    pub files: BTreeMap<String, String>,
    /// Whether everything is there that is not this source's.
    pub provisioned: bool,
    /// Why it cannot be made now.
    pub obstacle: Option<SourceError>,
}

impl Standing {
    pub fn is_made(&self) -> bool {
        self.registered && self.there && self.provisioned && self.access.is_empty() && self.pending.is_empty()
    }
}

/// Looks how far a source is. Changes nothing.
pub(super) async fn standing(
    workplace: &Workplace,
    session: &Session,
    topology: &Topology,
    id: &str,
    wish: &Wish,
) -> Result<Standing, StepError> {
    let sources = declared(topology)?;
    check_id(id)?;
    let mut standing = Standing { files: topology.files.clone(), ..Standing::default() };
    let there = registry::is_there(session, sources).await?;
    if there {
        registry::check_shape(session, sources).await?;
    }
    let found = if there { registry::schema_of(session, sources, id).await? } else { None };
    let schema = match found {
        Some(name) => {
            standing.registered = true;
            registry::parsed(topology, sources, id, &name)?
        }
        None => sanitise(topology, id)?,
    };
    standing.schema = schema.to_string();
    if there
        && !standing.registered
        && let Some(holder) = registry::holder_of(session, sources, &schema).await?
    {
        standing.obstacle = Some(SourceError::Collision { id: id.to_owned(), schema: schema.to_string(), holder });
        return Ok(standing);
    }
    match owner_of(session, schema.as_str()).await? {
        None => {}
        Some(owner) => {
            standing.there = true;
            if owner != topology.owner {
                let wanted = topology.owner.clone();
                standing.obstacle = Some(SourceError::Stranger { schema: schema.to_string(), owner, wanted });
                return Ok(standing);
            }
        }
    }
    let whole = topology.with_sources(&[(id.to_owned(), schema.as_str().to_owned())])?;
    let part = whole.narrowed(&BTreeSet::from([schema.as_str()]));
    let rest = topology::plan(session, &topology.narrowed(&BTreeSet::new()), wish).await?;
    standing.provisioned = rest.is_empty() && owner_of(session, &sources.registry.schema).await?.is_some();
    let mut plan = topology::plan(session, &part, wish).await?;
    plan.statements.retain(|one| !rest.statements.contains(one));
    standing.access = topology::details(&plan);
    for used in &part.chains {
        let (name, folder) = (used.history(), workplace.root().join(&used.folder));
        let chain = Chain::read(&name, &folder)
            .map_err(|error| StepError::unusable(error.code(), error.to_string()).help(error.help()))?;
        for migration in &chain.migrations {
            standing.files.insert(format!("{}/{}", used.folder, migration.up.shown), migration.up.sha256.clone());
        }
        for file in &chain.repeatable {
            standing.files.insert(format!("{}/{}", used.folder, file.script.shown), file.script.sha256.clone());
        }
        let (history, _) = Runner::standing(&chain, session).await.map_err(PgError::into_step_error)?;
        standing.pending.extend(history.pending.iter().map(|migration| format!("{name}: {}", migration.title())));
        standing.pending.extend(history.repeatable.iter().map(|file| format!("{name}: {}", file.script.shown)));
    }
    Ok(standing)
}
