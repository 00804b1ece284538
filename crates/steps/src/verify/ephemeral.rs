//! One throwaway server made of the project's files alone: what continuous integration asks.

use std::collections::BTreeMap;

use pgrunbook_engine::{Redactor, StepError};
use pgrunbook_postgres::sandbox::{PoolMode, Pooler, Sandbox, SandboxError, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use super::fill::{Filled, fill};
use crate::migrate::Around;
use crate::project::Project;
use crate::provision::{self, Provisioned};
use crate::rehearse::{PASSWORD, build};
use crate::surroundings::Surroundings;
use crate::topology::Topology;
use crate::workplace::{Place, Workplace};

/// A provisioned throwaway database, which goes away with this value.
pub struct Ephemeral {
    pub workplace: Workplace,
    /// As superuser.
    pub options: ConnectOptions,
    pub provisioned: Provisioned,
    pub filled: Filled,
    poolers: BTreeMap<String, (Pooler, ConnectOptions)>,
    _sandbox: Sandbox,
}

/// Why there is none. Nothing of the project's own was touched.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum EphemeralError {
    Sandbox(#[from] SandboxError),
    Step(#[from] StepError),
}

impl Ephemeral {
    /// Where the throwaway pooler is that stands for a target of the declaration.
    pub fn pooler(&self, target: &str) -> Option<ConnectOptions> {
        self.poolers.get(target).map(|(_, options)| options.clone())
    }
}

/// Starts a server, runs `[rehearsal] setup`, provisions, and puts a row into every table that is empty. Where the declaration
/// names a pooler, PgBouncer stands before it in transaction mode.
///
/// # Errors
/// If no server can be started, or a file fails.
pub async fn ephemeral(
    project: &Project,
    surroundings: &Surroundings,
    target: &str,
    major: Option<u32>,
    around: Around<'_>,
) -> Result<Ephemeral, EphemeralError> {
    let sandbox = Sandbox::start(SandboxOptions { major, ..SandboxOptions::default() }).await?;
    let environment = &project.environment.name;
    let topology = crate::topology::load(&project.root, environment).map_err(crate::topology::declaration_error)?;
    let name = topology.database.clone().unwrap_or_else(|| project.name.clone());
    let options = sandbox.database(&name).await?;
    let places = [(target.to_owned(), Place::Postgres(options.clone()))].into();
    let workplace =
        Workplace::new(project.root.clone(), surroundings.clone(), Redactor::new(), places, environment, true);
    build(&options, project).await?;
    let provisioned = provision::provision(&workplace, &options, &topology, &[], around).await?;
    let session = Session::connect(&options, "pgrunbook:ephemeral").await.map_err(PgError::into_step_error)?;
    let filled = fill(&session, &topology).await?;
    let poolers = poolers(&sandbox, &topology, &options).await?;
    Ok(Ephemeral { workplace, options, provisioned, filled, poolers, _sandbox: sandbox })
}

async fn poolers(
    sandbox: &Sandbox,
    topology: &Topology,
    options: &ConnectOptions,
) -> Result<BTreeMap<String, (Pooler, ConnectOptions)>, SandboxError> {
    let mut poolers = BTreeMap::new();
    for one in &topology.row_security {
        let Some(target) = one.pooler.as_ref().filter(|target| !poolers.contains_key(*target)) else { continue };
        let users: Vec<(&str, &str)> = one.roles.iter().map(|role| (role.as_str(), PASSWORD)).collect();
        let pooler = sandbox.pooler(PoolMode::Transaction, &users).await?;
        let through = pooler.through(options);
        poolers.insert(target.clone(), (pooler, through));
    }
    Ok(poolers)
}
