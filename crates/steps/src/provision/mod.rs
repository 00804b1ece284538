//! From an empty server to a working one: database, roles, schemas, grants, and the chains of migrations of every tenant.
//!
//! The topology is applied twice: before the chains, so that what they create is covered by default privileges from the
//! beginning, and after them, for grants on objects by name. Everything is safe to run again.

mod step;

use std::collections::BTreeSet;

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{ConnectOptions, PgError, Session, quote};

use crate::migrate::chain::Chain;
use crate::migrate::{self, Around, Goal, Inside, Runner};
use crate::secret::Reference;
use crate::topology::{self, ChainUse, How, Topology};
use crate::workplace::Workplace;

pub use step::KIND;

/// The database that every cluster has, for making another.
const MAINTENANCE: &str = "postgres";

/// What was made; empty where everything was there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provisioned {
    /// The database, where it was not there.
    pub database: Option<String>,
    /// Statements of the topology, in order.
    pub statements: Vec<String>,
    /// Chains with the versions (and repeatable files) that were applied: `db/core@health`.
    pub chains: Vec<(String, Vec<String>)>,
    /// What could not be done here, or is declared and not there.
    pub notes: Vec<String>,
}

impl Provisioned {
    /// Whether nothing was to do.
    pub fn is_empty(&self) -> bool {
        self.database.is_none() && self.statements.is_empty() && self.chains.is_empty()
    }
}

/// Makes the target's database, if it is not there.
///
/// # Errors
/// If the role may not create databases, or the server cannot be reached.
pub async fn database(options: &ConnectOptions, topology: &Topology) -> Result<Option<String>, StepError> {
    let name = &options.database;
    if let Some(declared) = topology.database.as_ref().filter(|declared| *declared != name) {
        let message = format!("the target goes to the database `{name}`, and {} is for `{declared}`", topology.source);
        return Err(StepError::unusable("wrong-database", format!("{message}. Nothing was changed."))
            .help("mend the target's url, or `name` under [database]"));
    }
    match Session::connect(options, "pgrunbook:provision").await {
        Ok(_) => return Ok(None),
        // 3D000: invalid_catalog_name.
        Err(error) if error.sqlstate() == Some("3D000") => {}
        Err(error) => return Err(error.into_step_error()),
    }
    let session = Session::connect(&options.with_database(MAINTENANCE), "pgrunbook:provision")
        .await
        .map_err(PgError::into_step_error)?;
    let quoted = quote::ident(name).map_err(|error| StepError::unusable("database", error.to_string()))?;
    match session.execute(&format!("CREATE DATABASE {quoted}")).await {
        Ok(()) => Ok(Some(name.clone())),
        // 42P04, 23505: another process was faster.
        Err(error) if matches!(error.sqlstate(), Some("42P04" | "23505")) => Ok(None),
        Err(error) => Err(error.into_step_error()),
    }
}

/// Makes roles, schemas and grants, and applies the chains, in the database of a target that is there.
///
/// `only`: these tenants, and what all share.
///
/// # Errors
/// Of the topology, or of the first migration that fails; everything before it stays.
pub async fn provision(
    workplace: &Workplace,
    options: &ConnectOptions,
    topology: &Topology,
    only: &[String],
    around: Around<'_>,
) -> Result<Provisioned, StepError> {
    let topology = &topology.only(only)?;
    let mut done = Provisioned::default();
    let session = Session::connect(options, "pgrunbook:provision").await.map_err(PgError::into_step_error)?;
    apply(workplace, &session, topology, &around, &mut done).await?;
    let mut ran = false;
    for used in &topology::completed(&session, topology).await?.chains {
        if let Some(applied) = chain(workplace, options, topology, used, &around).await? {
            ran = true;
            done.chains.push(applied);
        }
    }
    // What is granted by name, and what is guarded, has come with the chains.
    if ran || !done.notes.is_empty() {
        done.notes.clear();
        apply(workplace, &session, topology, &around, &mut done).await?;
    }
    Ok(done)
}

/// Applies what is pending of one chain, as the owner, with its schema first. The name of its history and the files;
/// none, where nothing was to do.
pub(crate) async fn chain(
    workplace: &Workplace,
    options: &ConnectOptions,
    topology: &Topology,
    used: &ChainUse,
    around: &Around<'_>,
) -> Result<Option<(String, Vec<String>)>, StepError> {
    let folder = workplace.root().join(&used.folder);
    if used.optional && !folder.is_dir() {
        return Ok(None);
    }
    let name = used.history();
    let chain = Chain::read(&name, &folder).map_err(|error| {
        StepError::unusable(error.code(), format!("{name}: {error}. Nothing of it was run.")).help(error.help())
    })?;
    let runner = Runner {
        chain: &chain,
        target: options,
        options: migrate::Options {
            inside: Inside {
                role: Some(topology.owner.clone()),
                search_path: vec![used.schema.clone(), "public".to_owned()],
            },
            ..migrate::Options::default()
        },
        around: around.clone(),
    };
    let mut applied = migrate::Applied::default();
    runner.go(&Goal::Up(None), &mut applied).await.map_err(|error| {
        let message = format!("{name}: {}", error.message);
        StepError { message, ..error }
    })?;
    let files: Vec<String> = applied.versions.into_iter().chain(applied.repeatable).collect();
    Ok((!files.is_empty()).then_some((name, files)))
}

async fn apply(
    workplace: &Workplace,
    session: &Session,
    topology: &Topology,
    around: &Around<'_>,
    done: &mut Provisioned,
) -> Result<(), StepError> {
    let how = How {
        wish: topology::Wish { today: topology::today(around.clock), prune: false, set_passwords: false },
        expect_revokes: None,
        password: &|reference: &Reference| workplace.role_password(reference),
        assert: around.assert.clone(),
        record: None,
        locks: Default::default(),
        clock: around.clock,
        cancel: around.cancel,
        tell: around.tell,
    };
    let applied = topology::apply(session, topology, &how).await?;
    for statement in &applied.plan.statements {
        (around.tell)(format!("{}  -- {}", statement.sql.lines().next().unwrap_or_default(), statement.why));
    }
    done.statements.extend(applied.plan.statements.into_iter().map(|one| one.sql));
    let waiting = applied.plan.waiting.into_iter().map(|one| format!("{one}: declared, and not there"));
    let notes: BTreeSet<String> = applied.plan.cannot.into_iter().chain(waiting).collect();
    done.notes.extend(notes);
    Ok(())
}
