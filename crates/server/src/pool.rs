//! The databases that can be asked, each with its few connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgrunbook_guard::{Connection, Refusal, Row};
use pgrunbook_postgres::{ConnectOptions, Session};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::session::{Asking, refused};

/// How these connections call themselves in `pg_stat_activity`.
const NAME: &str = "pgrunbook:serve";

/// How long a place stays taken at most after a query's deadline, for the request to cancel it.
const CANCEL: Duration = Duration::from_secs(2);

/// Targets by name, by environment.
#[derive(Debug, Default)]
pub struct Databases {
    /// The environment that is meant where a request names none; `None`: it must.
    pub default: Option<String>,
    pub environments: BTreeMap<String, BTreeMap<String, Database>>,
}

/// A target: where it is, and the connections to it.
pub struct Database {
    /// Else why it has no address here: a variable that is not set.
    place: Result<ConnectOptions, String>,
    /// One permit for each connection that may be open.
    turns: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Session>>>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Database {
    /// A target with so many connections at most, none of which is made before it is needed. `place` is where it is, or why
    /// nobody knows; the latter is told to whoever asks, so it holds no secret.
    pub fn new(place: Result<ConnectOptions, String>, connections: usize) -> Self {
        Self { place, turns: Arc::new(Semaphore::new(connections.max(1))), idle: Arc::default() }
    }

    /// Why it cannot be asked, if that is known without asking.
    pub fn unusable(&self) -> Option<&str> {
        self.place.as_ref().err().map(String::as_str)
    }

    fn idle(&self) -> Vec<Session> {
        std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn connect(&self) -> Result<Session, Refusal> {
        let options = self.place.as_ref().map_err(|why| Refusal::Unreachable(why.clone()))?;
        Session::connect(options, NAME).await.map_err(|error| refused(&error))
    }
}

/// One question: waits for a turn, and asks an idle connection or a new one.
impl Connection for &Database {
    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Refusal> {
        let closed = |_| Refusal::Unreachable("the server ends".to_owned());
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(closed)?;
        let found = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(session) = found else {
            let session = self.connect().await?;
            return Turn::new(self, session, turn).ask(sql).await.0;
        };
        let (answer, turn) = Turn::new(self, session, turn).ask(sql).await;
        match (answer, turn) {
            // It had died since it was used last, and so have the others then. Nobody knows yet whether the server is there.
            (Err(refusal), Some(turn)) if is_gone(&refusal) => {
                drop(self.idle());
                let session = self.connect().await?;
                Turn::new(self, session, turn).ask(sql).await.0
            }
            (answer, _) => answer,
        }
    }
}

/// The server ended the connection, or will.
fn is_gone(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Unreachable(_) => true,
        Refusal::Server { sqlstate, .. } => sqlstate.starts_with("57P") || sqlstate.starts_with("08"),
    }
}

/// A connection while it is asked.
struct Turn {
    /// `None` once it was answered.
    asked: Option<(Asking, OwnedSemaphorePermit)>,
    idle: Arc<Mutex<Vec<Session>>>,
}

impl Turn {
    fn new(database: &Database, session: Session, turn: OwnedSemaphorePermit) -> Self {
        Self { asked: Some((Asking(session), turn)), idle: Arc::clone(&database.idle) }
    }

    /// The answer; and the turn, if the connection is gone and another may be made in its place.
    async fn ask(mut self, sql: &str) -> (Result<Vec<Row>, Refusal>, Option<OwnedSemaphorePermit>) {
        let answer = match &mut self.asked {
            Some((session, _)) => session.rows(sql).await,
            None => Err(Refusal::Unreachable("it was asked already".to_owned())),
        };
        let Some((Asking(session), turn)) = self.asked.take() else { return (answer, None) };
        if answer.as_ref().err().is_some_and(is_gone) || session.is_closed() {
            return (answer, Some(turn));
        }
        // Before the turn goes: whoever is next finds it.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        (answer, None)
    }
}

impl Drop for Turn {
    /// Cancellation: the deadline passed. A connection that is only dropped leaves a backend behind that goes on waiting, for a
    /// lock as long as that is held; and the next request would add one.
    fn drop(&mut self) {
        let Some((Asking(session), turn)) = self.asked.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            // A server that hangs does not take the request to cancel either.
            let _ = tokio::time::timeout(CANCEL, session.cancel()).await;
            drop(session);
            drop(turn);
        });
    }
}
