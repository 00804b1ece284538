//! A throwaway server that stands for the project's databases, so that a runbook can be run forward and back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pgrunbook_document::sql::quote;
use pgrunbook_engine::step::{Progress, Watcher};
use pgrunbook_engine::{Cancel, Environment, StepError};
use pgrunbook_postgres::sandbox::{SUPERUSER, Sandbox, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use crate::backup::programs::Audience;
use crate::backup::restore_into;
use crate::backup::sqlite::back_up;
use crate::open::{OpenError, Opened, open_at, places};
use crate::project::Project;
use crate::surroundings::Surroundings;
use crate::workplace::Place;

/// What the throwaway databases begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The files of `[rehearsal] setup`, in order.
    Files,
    /// A dump that `backup` or `pg_dump -Fc` made.
    Dump(PathBuf),
}

/// A project opened on a throwaway server, which goes away with this value.
pub struct Rehearsal {
    pub opened: Opened,
    sandbox: Sandbox,
}

impl Rehearsal {
    /// A connection as superuser to the throwaway database of a target; none if it is not a PostgreSQL target.
    pub fn superuser(&self, target: &str) -> Option<ConnectOptions> {
        let options = self.opened.workplace.postgres(target).ok()?;
        Some(self.sandbox.options().with_database(&options.database))
    }
}

/// Why there is no rehearsal. The real targets were not touched.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum RehearsalError {
    Open(#[from] OpenError),
    Sandbox(#[from] pgrunbook_postgres::sandbox::SandboxError),
    Step(#[from] StepError),
}

/// The password of every role on the throwaway server, which listens on this machine alone.
pub(crate) const PASSWORD: &str = "rehearsal";

/// Starts a throwaway server, builds the starting point, and opens the project on it.
///
/// Every PostgreSQL target of the project gets a database of its real name, and connects as a role of its real name: one
/// that the starting point makes, else an ordinary one that owns the database. Gates for people are left out; steps that
/// act outside the databases hold still.
///
/// # Errors
/// If no server can be started, or the starting point cannot be built.
pub async fn rehearse(
    mut project: Project,
    surroundings: &Surroundings,
    principal: Option<&str>,
    source: &Source,
) -> Result<Rehearsal, RehearsalError> {
    let sandbox = Sandbox::start(SandboxOptions::default()).await?;
    let mut throwaway = BTreeMap::new();
    let mut made: BTreeMap<String, ConnectOptions> = BTreeMap::new();
    for (name, place) in places(&project, surroundings) {
        // A target that has no value here is rehearsed all the same: its name is enough.
        let (database, user) = match &place {
            Place::Postgres(options) => (options.database.clone(), options.user.clone()),
            Place::Unusable(_) if is_postgres(&project, &name) => (project.name.clone(), "rehearsal".to_owned()),
            // A file is copied: a rehearsed cutover would fence it, and a rehearsed write would stay.
            Place::Sqlite { path } if path.exists() => {
                let copy = sandbox.folder().join(format!("{}.db", made.len() + throwaway.len()));
                let (from, into) = (path.clone(), copy.clone());
                let copied = tokio::task::spawn_blocking(move || back_up(&from, &into)).await;
                copied.map_err(|error| StepError::failed("sqlite", error.to_string()))??;
                throwaway.insert(name, Place::Sqlite { path: copy });
                continue;
            }
            _ => {
                throwaway.insert(name, place);
                continue;
            }
        };
        let first = !made.contains_key(&database);
        if first {
            let options = match database.as_str() {
                "postgres" => sandbox.options(),
                other => sandbox.database(other).await?,
            };
            made.insert(database.clone(), options);
        }
        let superuser = made[&database].clone();
        // Who is superuser there is superuser here.
        if user == SUPERUSER {
            throwaway.insert(name, Place::Postgres(superuser));
            continue;
        }
        role(&superuser, &user, first).await?;
        throwaway
            .insert(name, Place::Postgres(ConnectOptions { user, password: Some(PASSWORD.to_owned()), ..superuser }));
    }
    for superuser in made.values() {
        start_with(superuser, &project, source, sandbox.major()).await?;
    }
    // What the starting point made may have taken the password or the right to log in away.
    for (name, place) in &throwaway {
        if let Place::Postgres(options) = place
            && options.user != SUPERUSER
        {
            let superuser = &made[&options.database];
            let session = Session::connect(superuser, "pgrunbook:rehearsal").await.map_err(PgError::into_step_error)?;
            let user = ident(&options.user, name)?;
            session
                .execute(&format!("ALTER ROLE {user} LOGIN PASSWORD '{PASSWORD}'"))
                .await
                .map_err(PgError::into_step_error)?;
        }
    }
    let Environment { name, vars, .. } = project.environment;
    project.environment = Environment { name, vars, ..Environment::default() };
    // Whoever rehearses stands for everybody.
    project.people.clear();
    let opened = open_at(project, surroundings, principal, throwaway, true).await?;
    Ok(Rehearsal { opened, sandbox })
}

fn is_postgres(project: &Project, target: &str) -> bool {
    matches!(project.targets.get(target), Some(crate::project::TargetConfig::Postgres { .. }))
}

/// Makes a role, if there is none; the first of a database owns it.
async fn role(superuser: &ConnectOptions, user: &str, owner: bool) -> Result<(), StepError> {
    let run = PgError::into_step_error;
    let session = Session::connect(superuser, "pgrunbook:rehearsal").await.map_err(run)?;
    let quoted = ident(user, user)?;
    let literal = quote::literal(user).map_err(|_| nul(user))?;
    let there = session.value(&format!("SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = {literal}")).await;
    if there.map_err(run)? == "0" {
        session
            .execute(&format!("CREATE ROLE {quoted} LOGIN CREATEROLE CREATEDB PASSWORD '{PASSWORD}'"))
            .await
            .map_err(run)?;
    }
    if owner && superuser.database != "postgres" {
        let database = ident(&superuser.database, user)?;
        session.execute(&format!("ALTER DATABASE {database} OWNER TO {quoted}")).await.map_err(run)?;
        session.execute(&format!("ALTER SCHEMA public OWNER TO {quoted}")).await.map_err(run)?;
    }
    Ok(())
}

async fn start_with(
    superuser: &ConnectOptions,
    project: &Project,
    source: &Source,
    major: u32,
) -> Result<(), StepError> {
    match source {
        Source::Dump(path) => {
            let step = "rehearsal".parse().expect("a constant that is a step's id");
            let audience = Audience { step: &step, watcher: &Silent, cancel: &Cancel::default() };
            restore_into(path, superuser, major, true, audience).await
        }
        Source::Files => build(superuser, project).await,
    }
}

/// Runs the files of `[rehearsal] setup`, in order.
pub(crate) async fn build(superuser: &ConnectOptions, project: &Project) -> Result<(), StepError> {
    let session = Session::connect(superuser, "pgrunbook:rehearsal").await.map_err(PgError::into_step_error)?;
    for path in &project.rehearsal_setup {
        let shown = path.strip_prefix(&project.root).unwrap_or(path).display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| StepError::unusable("rehearsal", format!("{shown} cannot be read: {error}")))?;
        session.execute(&text).await.map_err(|error| {
            StepError::unusable("rehearsal", format!("{shown}, which builds the starting point, failed: {error}"))
        })?;
    }
    Ok(())
}

fn ident(name: &str, target: &str) -> Result<String, StepError> {
    quote::ident(name).map_err(|_| nul(target))
}

fn nul(target: &str) -> StepError {
    StepError::unusable("name", format!("a name of target `{target}` holds a NUL byte"))
}

/// Nobody hears.
pub struct Silent;

impl Watcher for Silent {
    fn progress(&self, _step: &pgrunbook_document::StepId, _progress: Progress) {}
}
