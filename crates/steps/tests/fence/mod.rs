//! Fences on real servers: under load, held up, half done, and by whom they are passed.

mod freeze;
mod front;
mod guard;
mod load;
mod paused;
mod pooler;
mod taken;

use std::time::Duration;

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared};
use pgrunbook_postgres::{ConnectOptions, PgError, Session};
use pgrunbook_steps::fence::{self, Fence, FenceError, Fenced, Lift, Lifted, Patience, Standing};

/// What refused writers read in these tests. A format's signs in it mean nothing.
pub const MESSAGE: &str = "table {table} of this database was cut over to health on db1: write there (100% %I %s {x})";

pub async fn cluster() -> Sandbox {
    shared("fence-tests", SandboxOptions::default()).await.unwrap()
}

/// A database with a schema of tables that are written in every way.
pub struct Legacy {
    pub options: ConnectOptions,
    pub session: Session,
    /// A role that may write everywhere and owns nothing; unique in the cluster.
    pub app: String,
}

impl Legacy {
    pub async fn new() -> Self {
        let options = cluster().await.fresh_database("fence").await.unwrap();
        let session = Session::connect(&options, "test").await.unwrap();
        let app = format!("app_{}", options.database);
        session
            .execute(&format!(
                "CREATE ROLE {app} LOGIN PASSWORD 'app';
                 CREATE SCHEMA s;
                 CREATE TABLE s.acct (id int PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
                 INSERT INTO s.acct SELECT g, 0 FROM generate_series(1, 64) AS g;
                 CREATE TABLE s.\"odd \"\"name\" (id int);
                 GRANT USAGE ON SCHEMA s TO {app};
                 GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA s TO {app}"
            ))
            .await
            .unwrap();
        Self { options, session, app }
    }

    /// The application's connection.
    pub fn as_app(&self) -> ConnectOptions {
        ConnectOptions { user: self.app.clone(), password: Some("app".to_owned()), ..self.options.clone() }
    }

    pub async fn connect(&self, name: &str) -> Session {
        Session::connect(&self.options, name).await.unwrap()
    }

    pub fn wish(&self, id: &str) -> Fence {
        Fence {
            id: id.to_owned(),
            schema: "s".to_owned(),
            message: MESSAGE.to_owned(),
            operator: "anna@desk".to_owned(),
            trial_as: Some(self.app.clone()),
            ..Fence::default()
        }
    }

    /// Gives way after few, short tries.
    pub fn hasty(&self, id: &str) -> Fence {
        Fence { patience: hasty(), ..self.wish(id) }
    }

    pub async fn set(&self, id: &str) -> Result<Fenced, FenceError> {
        fence::fence(&self.session, &self.wish(id), &Cancel::default()).await
    }

    pub async fn lift(&self) -> Result<Lifted, FenceError> {
        let lift = Lift { schema: "s", by: "anna@desk", ..Lift::default() };
        fence::unfence(&self.session, &lift, &Cancel::default()).await
    }

    pub async fn standing(&self) -> Standing {
        fence::state(&self.session, "s").await.unwrap()
    }

    /// Whether any trigger of a fence is there, in whatever state.
    pub async fn triggers(&self) -> String {
        self.session.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgrunbook_fence%'").await.unwrap()
    }
}

pub fn hasty() -> Patience {
    Patience { lock_timeout: Duration::from_millis(200), attempts: 2, budget: Duration::from_secs(20) }
}

/// The SQLSTATE and message of a statement that is refused.
pub async fn refused(session: &Session, sql: &str) -> (String, String) {
    match session.execute(sql).await {
        Err(PgError::Server(error)) => (error.sqlstate.clone(), error.message.clone()),
        other => panic!("`{sql}` was not refused: {other:?}"),
    }
}

/// Refused by the fence, and by nothing else.
pub async fn assert_refused(session: &Session, sql: &str) {
    let (sqlstate, message) = refused(session, sql).await;
    assert_eq!(sqlstate, "25006", "`{sql}`: {message}");
}
