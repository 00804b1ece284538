//! A PostgreSQL database as the engine's target.

use async_trait::async_trait;
use pgrunbook_engine::{Claim, Identity, StepError, Target};
use tokio::sync::Mutex;

use crate::error::PgError;
use crate::identity::identify;
use crate::ledger::{self, Claimed};
use crate::options::ConnectOptions;
use crate::pooler::shares_its_backend;
use crate::session::Session;

/// A database, and the session that holds the claim on it while a run is at work.
pub struct PostgresTarget {
    name: String,
    options: ConnectOptions,
    held: Mutex<Option<Session>>,
}

impl PostgresTarget {
    /// Connects to nothing yet.
    pub fn new(name: impl Into<String>, options: ConnectOptions) -> Self {
        Self { name: name.into(), options, held: Mutex::new(None) }
    }
}

#[async_trait]
impl Target for PostgresTarget {
    fn name(&self) -> &str {
        &self.name
    }

    async fn identify(&self) -> Result<Identity, StepError> {
        // The claim's session, where there is one: a run asks before each phase.
        let held = self.held.lock().await;
        if let Some(session) = held.as_ref().filter(|session| !session.is_closed())
            && let Ok(identity) = identify(session, &self.name).await
        {
            return Ok(identity);
        }
        drop(held);
        let session = Session::connect(&self.options, "pgrunbook:identify").await.map_err(PgError::into_step_error)?;
        identify(&session, &self.name).await.map_err(nothing_touched)
    }

    async fn claim(&self, claim: &Claim) -> Result<(), StepError> {
        let mut held = self.held.lock().await;
        *held = None;
        let session = Session::connect(&self.options, &format!("pgrunbook:{}:claim", claim.run))
            .await
            .map_err(PgError::into_step_error)?;
        if session.value("SELECT pg_catalog.pg_is_in_recovery()").await.map_err(nothing_touched)? == "t" {
            return Err(StepError::unusable(
                "read-only",
                format!(
                    "target `{}` ({}) is a standby and takes no writes. Nothing was changed.",
                    self.name, self.options
                ),
            )
            .help("name the primary, or several hosts with target_session_attrs=read-write"));
        }
        if shares_its_backend(&session).await.map_err(nothing_touched)? {
            return Err(StepError::unusable(
                "pooler",
                format!(
                    "target `{}` ({}) is reached through a pooler that shares backends between clients: a claim on it would \
                     not hold. Nothing was changed.",
                    self.name, self.options
                ),
            )
            .help("give this target a direct connection; checks and probes may go through the pooler by a target of their own"));
        }
        match ledger::claim(&session, claim).await.map_err(|error| self.cannot_claim(error))? {
            Claimed::Yes => {
                *held = Some(session);
                Ok(())
            }
            Claimed::Held(holder) => Err(StepError::taken(&holder)),
            Claimed::Behind => Err(StepError::failed(
                "fenced",
                format!("run {} was taken over by another process: this one stops", claim.run),
            )),
        }
    }

    async fn release(&self, claim: &Claim) -> Result<(), StepError> {
        match self.held.lock().await.take() {
            Some(session) => ledger::release(&session, claim).await.map_err(nothing_touched),
            None => Ok(()),
        }
    }
}

impl PostgresTarget {
    fn cannot_claim(&self, error: PgError) -> StepError {
        let role = &self.options.user;
        match error.sqlstate() {
            Some("42501") => StepError::unusable(
                "cannot-claim",
                format!(
                    "role `{role}` may not keep pgrunbook's records in this database: {error}. Nothing was changed."
                ),
            )
            .help(format!(
                "let an owner of database `{db}` run: GRANT CREATE ON DATABASE {db} TO {role} (once); if the schema \
                 `pgrunbook` belongs to another role, run as that role",
                db = self.options.database,
            ))
            .source(error),
            Some("25006") => StepError::unusable(
                "read-only",
                format!("target `{}` takes no writes: {error}. Nothing was changed.", self.name),
            )
            .help("look at default_transaction_read_only of the role and the database")
            .source(error),
            _ => nothing_touched(error),
        }
    }
}

/// Asking and claiming change nothing that matters: a lost connection here is no doubt.
fn nothing_touched(error: PgError) -> StepError {
    let step = error.into_step_error();
    StepError { failure: pgrunbook_engine::step::Failure::Unusable, ..step }
}
