//! The one place where a project's kinds, targets, journal and people are put together into an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use pgrunbook_engine::journal::sqlite::SqliteJournal;
use pgrunbook_engine::notice::Silent;
use pgrunbook_engine::{
    Claim, Engine, Identity, Incidents, Journal, JournalError, Messenger, People, Person, Redactor, StepError,
    SystemClock, Target,
};
use pgrunbook_postgres::{ConnectOptions, ConnectSpec, PgError, PostgresJournal, PostgresTarget};

use crate::incidents::Asked;
use crate::notify::Channels;
use crate::project::{JournalConfig, Project, TargetConfig};
use crate::redis::{RedisOptions, is_redis};
use crate::registry::Registry;
use crate::secret::Reference;
use crate::surroundings::Surroundings;
use crate::workplace::{Place, Workplace};

/// A project that is ready to plan and run.
pub struct Opened {
    pub engine: Engine,
    pub workplace: Workplace,
    pub project: Project,
}

/// Why a project could not be opened. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the journal cannot be reached: {0}")]
    JournalTarget(Box<StepError>),
    #[error("the allowed signers in {path} cannot be read: {why}")]
    AllowedSigners { path: String, why: String },
}

/// Opens a project in its environment. `principal` is who acts (`--as`); without it `user@host`.
///
/// Connects to no target. A target whose reference has no value fails where it is used.
///
/// # Errors
/// [`OpenError`] if the journal or the project's people cannot be read.
pub async fn open(project: Project, surroundings: &Surroundings, principal: Option<&str>) -> Result<Opened, OpenError> {
    let places = places(&project, surroundings);
    open_at(project, surroundings, principal, places, false).await
}

/// The same with other targets: those of a rehearsal.
///
/// # Errors
/// As [`open`].
pub(crate) async fn open_at(
    project: Project,
    surroundings: &Surroundings,
    principal: Option<&str>,
    places: BTreeMap<String, Place>,
    rehearsal: bool,
) -> Result<Opened, OpenError> {
    let redactor = Redactor::new();
    let journal = journal(&project, surroundings).await?;
    let people = people(&project)?;
    let user = surroundings.user.as_deref().unwrap_or("unknown");
    let operator = Person {
        principal: principal.map_or_else(|| format!("{user}@{}", surroundings.host), str::to_owned),
        host: surroundings.host.clone(),
        pid: surroundings.pid,
    };
    let targets = places.iter().map(|(name, place)| (name.clone(), target(name, place))).collect();
    let workplace = Workplace::new(
        project.root.clone(),
        surroundings.clone(),
        redactor.clone(),
        places,
        &project.environment.name,
        rehearsal,
    )
    .with_notices(project.notices.clone());
    // What a rehearsal does is nobody's news.
    let messenger: Arc<dyn Messenger> =
        if rehearsal { Arc::new(Silent) } else { Arc::new(Channels::new(workplace.clone())) };
    // Whoever rehearses on a throwaway server disturbs nobody.
    let incidents = project
        .incidents
        .clone()
        .filter(|_| !rehearsal)
        .map(|source| Arc::new(Asked { source, workplace: workplace.clone() }) as Arc<dyn Incidents>);
    let engine = Engine {
        journal,
        clock: Arc::new(SystemClock),
        kinds: Arc::new(Registry { workplace: workplace.clone() }),
        targets,
        environment: project.environment.clone(),
        incidents,
        people,
        operator,
        redactor,
        messenger,
        root: project.root.clone(),
        artifacts: project.root.join(".pgrunbook/runs"),
    };
    Ok(Opened { engine, workplace, project })
}

/// What the project's targets stand for.
pub fn places(project: &Project, surroundings: &Surroundings) -> BTreeMap<String, Place> {
    let place = |name: &String, config: &TargetConfig| match config {
        TargetConfig::Postgres { url } => {
            let spec = match url {
                None => ConnectSpec::Environment,
                Some(reference) => match reference.resolve(&project.root, surroundings) {
                    // What is behind a reference may be either: a Redis names itself.
                    Ok(text) if is_redis(&text) => return redis(&project.root, &text, None),
                    Ok(text) => ConnectSpec::Given { text, origin: format!("target `{name}`") },
                    Err(error) => return Place::Unusable(error.to_string()),
                },
            };
            match connect_options(&spec, surroundings) {
                Ok(options) => Place::Postgres(options),
                Err(error) => Place::Unusable(error.to_string()),
            }
        }
        TargetConfig::Redis { url, password } => {
            let value = |reference: &Reference| reference.resolve(&project.root, surroundings);
            match (value(url), password.as_ref().map(value).transpose()) {
                (Ok(url), Ok(password)) => redis(&project.root, &url, password),
                (Err(error), _) | (_, Err(error)) => Place::Unusable(error.to_string()),
            }
        }
        TargetConfig::Http { base } => match base.resolve(&project.root, surroundings) {
            Ok(base) => Place::Http { base },
            Err(error) => Place::Unusable(error.to_string()),
        },
        TargetConfig::Sqlite { path } => Place::Sqlite { path: path.clone() },
    };
    project.targets.iter().map(|(name, config)| (name.clone(), place(name, config))).collect()
}

fn redis(root: &Path, url: &str, password: Option<String>) -> Place {
    match RedisOptions::parse(url, root) {
        Ok(options) => Place::Redis(RedisOptions { password: password.or(options.password.clone()), ..options }),
        Err(why) => Place::Unusable(why),
    }
}

/// Where a connection goes, in these surroundings.
///
/// # Errors
/// If it cannot be understood.
pub fn connect_options(spec: &ConnectSpec, surroundings: &Surroundings) -> Result<ConnectOptions, PgError> {
    let env = |name: &str| surroundings.var(name);
    let around = pgrunbook_postgres::Surroundings {
        env: &env,
        home: surroundings.home.as_deref(),
        user: surroundings.user.as_deref(),
    };
    ConnectOptions::resolve(spec, &around)
}

async fn journal(project: &Project, surroundings: &Surroundings) -> Result<Arc<dyn Journal>, OpenError> {
    match &project.journal {
        JournalConfig::Sqlite(path) => Ok(Arc::new(SqliteJournal::open(path)?)),
        JournalConfig::Postgres(reference) => {
            let unusable = |why: String| OpenError::JournalTarget(Box::new(StepError::unusable("journal", why)));
            let text = reference.resolve(&project.root, surroundings).map_err(|error| unusable(error.to_string()))?;
            let spec = ConnectSpec::Given { text, origin: "the journal's url".to_owned() };
            let options = connect_options(&spec, surroundings).map_err(|error| unusable(error.to_string()))?;
            Ok(Arc::new(PostgresJournal::open(&options).await?))
        }
    }
}

fn people(project: &Project) -> Result<People, OpenError> {
    let allowed_signers =
        match &project.allowed_signers {
            None => None,
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| OpenError::AllowedSigners {
                path: path.display().to_string(),
                why: error.to_string(),
            })?),
        };
    let mut roles: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (role, principals) in &project.people {
        for principal in principals {
            roles.entry(principal.clone()).or_default().insert(role.clone());
        }
    }
    Ok(People { allowed_signers, roles })
}

fn target(name: &str, place: &Place) -> Arc<dyn Target> {
    match place {
        Place::Postgres(options) => Arc::new(PostgresTarget::new(name, options.clone())),
        Place::Http { base } => Arc::new(Passive { name: name.to_owned(), who: Ok(("http", base.clone())) }),
        Place::Sqlite { path } => Arc::new(Passive { name: name.to_owned(), who: Ok(("sqlite", absolute(path))) }),
        // By its address: a Redis that is down may be no failure, and one that starts anew is the same.
        Place::Redis(options) => Arc::new(Passive { name: name.to_owned(), who: Ok(("redis", options.key())) }),
        Place::Unusable(why) => Arc::new(Passive { name: name.to_owned(), who: Err(why.clone()) }),
    }
}

/// The same file by every way that leads to it.
fn absolute(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// A target that is what its name says and keeps no records: a base URL, a file. One process at a time is held by the
/// run's lease in the journal alone.
struct Passive {
    name: String,
    /// Kind and key; or why it cannot be used.
    who: Result<(&'static str, String), String>,
}

#[async_trait]
impl Target for Passive {
    fn name(&self) -> &str {
        &self.name
    }

    async fn identify(&self) -> Result<Identity, StepError> {
        match &self.who {
            Ok((kind, key)) => Ok(Identity {
                name: self.name.clone(),
                kind: (*kind).to_owned(),
                key: key.clone(),
                shown: key.clone(),
                timeline: None,
            }),
            Err(why) => Err(StepError::unusable("no-value", why.clone())
                .help("set it, or write another reference in pgrunbook.toml")),
        }
    }

    async fn claim(&self, _claim: &Claim) -> Result<(), StepError> {
        Ok(())
    }

    async fn release(&self, _claim: &Claim) -> Result<(), StepError> {
        Ok(())
    }
}
