//! What the steps of a project share while they are planned and run: its targets, their sessions, and the redactor.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use pgrunbook_engine::{Redactor, StepError};
use pgrunbook_postgres::{ConnectOptions, PgError, Session};
use tokio::sync::Mutex;

use crate::notify::Notices;
use crate::redis::RedisOptions;
use crate::secret::Reference;
use crate::surroundings::Surroundings;
use crate::topology::{self, Topology};
use crate::transfer::Followers;

/// What a target's name stands for, with its references resolved.
#[derive(Debug, Clone)]
pub enum Place {
    Postgres(ConnectOptions),
    Http {
        base: String,
    },
    Sqlite {
        path: PathBuf,
    },
    Redis(RedisOptions),
    /// It has no value here (a variable that is not set), and why.
    Unusable(String),
}

/// The targets of an open project. Cheap to clone; every step holds one.
#[derive(Clone)]
pub struct Workplace(Arc<Inner>);

struct Inner {
    root: PathBuf,
    surroundings: Surroundings,
    redactor: Redactor,
    places: BTreeMap<String, Place>,
    rehearsal: bool,
    /// Where people are told.
    notices: Notices,
    /// The environment's name: a declaration may differ in each.
    environment: String,
    /// Read when it is asked for first, since most projects declare none.
    topology: OnceLock<Topology>,
    /// One idle session for each target: kept from one step to the next.
    idle: Mutex<BTreeMap<String, Session>>,
    /// The transfers that this process follows: they go on from one step to the next.
    followers: Followers,
}

/// A session on loan; given back by [`Workplace::give_back`], closed if dropped.
pub struct Loan {
    target: String,
    session: Session,
    /// An earlier step used it: the server may have closed it since.
    pub reused: bool,
}

impl std::ops::Deref for Loan {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl std::ops::DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

/// Names only: options hold passwords.
impl std::fmt::Debug for Workplace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.places.keys()).finish()
    }
}

impl Workplace {
    /// A workplace with these targets. In a rehearsal they are those of the throwaway cluster.
    ///
    /// `redactor` learns every secret before it is used.
    pub fn new(
        root: PathBuf,
        surroundings: Surroundings,
        redactor: Redactor,
        places: BTreeMap<String, Place>,
        environment: &str,
        rehearsal: bool,
    ) -> Self {
        for place in places.values() {
            match place {
                Place::Postgres(ConnectOptions { password: Some(password), .. }) => _ = redactor.learn(password),
                Place::Redis(options) => options.secrets().for_each(|secret| _ = redactor.learn(secret)),
                _ => {}
            }
        }

        Self(Arc::new(Inner {
            root,
            surroundings,
            redactor,
            places,
            rehearsal,
            notices: Notices::default(),
            environment: environment.to_owned(),
            topology: OnceLock::new(),
            idle: Mutex::new(BTreeMap::new()),
            followers: Followers::default(),
        }))
    }

    /// The same with a project's channels and templates.
    ///
    /// # Panics
    /// If it was handed on before: whoever has it would know nothing of them.
    #[must_use]
    pub fn with_notices(mut self, notices: Notices) -> Self {
        Arc::get_mut(&mut self.0).expect("nobody has it yet").notices = notices;
        self
    }

    /// Where people are told, and in which words.
    pub fn notices(&self) -> &Notices {
        &self.0.notices
    }

    /// Keeps a part of a secret (the password in a URL) out of everything that is said.
    pub fn learn(&self, secret: &str) {
        self.0.redactor.learn(secret);
    }

    /// A text without the secrets that are known.
    pub fn redact(&self, text: &str) -> String {
        self.0.redactor.redact(text).into_owned()
    }

    /// Whether the targets are throwaway ones, so that steps that act on the world outside hold still.
    pub fn is_rehearsal(&self) -> bool {
        self.0.rehearsal
    }

    /// The value of a reference.
    ///
    /// # Errors
    /// If it has none; the message names the reference and never a value.
    pub fn secret(&self, reference: &Reference) -> Result<String, StepError> {
        let value = reference
            .resolve(&self.0.root, &self.0.surroundings)
            .map_err(|error| StepError::unusable("no-value", error.to_string()).source(error))?;
        if reference.is_secret() {
            self.0.redactor.learn(&value);
        }
        Ok(value)
    }

    /// The password of a declared role. On a throwaway server every role has that server's.
    ///
    /// # Errors
    /// As [`Workplace::secret`].
    pub fn role_password(&self, reference: &Reference) -> Result<String, StepError> {
        if self.0.rehearsal { Ok(crate::rehearse::PASSWORD.to_owned()) } else { self.secret(reference) }
    }

    /// The project's declaration of roles, schemas and access, in this environment.
    ///
    /// # Errors
    /// If there is none, or it is wrong.
    pub fn topology(&self) -> Result<&Topology, StepError> {
        if let Some(topology) = self.0.topology.get() {
            return Ok(topology);
        }
        let read = topology::load(&self.0.root, &self.0.environment).map_err(topology::declaration_error)?;
        Ok(self.0.topology.get_or_init(|| read))
    }

    /// The project's folder.
    pub fn root(&self) -> &std::path::Path {
        &self.0.root
    }

    pub fn surroundings(&self) -> &Surroundings {
        &self.0.surroundings
    }

    pub fn places(&self) -> &BTreeMap<String, Place> {
        &self.0.places
    }

    /// What a target's name stands for.
    ///
    /// # Errors
    /// If the project has no such target.
    pub fn place(&self, target: &str) -> Result<&Place, StepError> {
        match self.0.places.get(target) {
            Some(Place::Unusable(why)) => Err(StepError::unusable("no-value", format!("target `{target}`: {why}"))
                .help("set it, or write another reference in pgrunbook.toml")),
            Some(place) => Ok(place),
            None => {
                let known: Vec<&str> = self.0.places.keys().map(String::as_str).collect();
                Err(StepError::unusable("no-target", format!("the project has no target `{target}`"))
                    .help(format!("pgrunbook.toml has {}", known.join(", "))))
            }
        }
    }

    /// Where a PostgreSQL target is.
    ///
    /// # Errors
    /// If there is no such target, or it is of another kind.
    pub fn postgres(&self, target: &str) -> Result<&ConnectOptions, StepError> {
        match self.place(target)? {
            Place::Postgres(options) => Ok(options),
            _ => Err(StepError::unusable("no-target", format!("target `{target}` is no PostgreSQL database"))),
        }
    }

    /// Where a Redis target is.
    ///
    /// # Errors
    /// If there is no such target, or it is of another kind.
    pub fn redis(&self, target: &str) -> Result<&RedisOptions, StepError> {
        match self.place(target)? {
            Place::Redis(options) => Ok(options),
            _ => Err(StepError::unusable("no-target", format!("target `{target}` is no Redis"))
                .help("a Redis is a target with `redis = \"redis://...\"`, or whose `url` begins so")),
        }
    }

    /// The environment's name.
    pub fn environment(&self) -> &str {
        &self.0.environment
    }

    /// A session on a target: the one that an earlier step gave back, or a new one.
    ///
    /// # Errors
    /// [`PgError`] of connecting, as the engine reports it.
    pub async fn session(&self, target: &str, application_name: &str) -> Result<Loan, StepError> {
        let options = self.postgres(target)?;
        let kept = self.0.idle.lock().await.remove(target);
        if let Some(session) = kept.filter(|session| !session.is_closed()) {
            return Ok(Loan { target: target.to_owned(), session, reused: true });
        }
        let session = Session::connect(options, application_name).await.map_err(PgError::into_step_error)?;
        Ok(Loan { target: target.to_owned(), session, reused: false })
    }

    /// Keeps a session for the next step. The caller has left nothing in it: no open transaction, no changed setting
    /// that the next step would not set itself.
    pub async fn give_back(&self, loan: Loan) {
        if !loan.session.is_closed() {
            self.0.idle.lock().await.insert(loan.target, loan.session);
        }
    }

    /// The transfers that this process follows.
    pub fn followers(&self) -> &Followers {
        &self.0.followers
    }

    /// Closes all idle sessions: before a target is restored, or a run ends.
    pub async fn close(&self) {
        self.0.idle.lock().await.clear();
    }
}
