//! A database for one test, and connections to it.

use pgrunbook_guard::{Guard, GuardError, Outcome, Source};
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared, url};
use pgrunbook_postgres::{ConnectOptions, Session};
use tokio_postgres::{Client, NoTls};

pub async fn cluster() -> Sandbox {
    shared("guard-tests", SandboxOptions::default()).await.unwrap()
}

pub struct Place {
    pub database: ConnectOptions,
}

impl Place {
    pub async fn new() -> Self {
        Self { database: cluster().await.fresh_database("guard").await.unwrap() }
    }

    /// With the table of the seed, and this version in it.
    pub async fn at(version: &str) -> Self {
        let place = Self::new().await;
        place.execute("CREATE TABLE bot_config (config_key text PRIMARY KEY, config_value jsonb)").await;
        let json =
            format!(r#"{{"version": "{version}", "migration": "0001_baseline", "timestamp": "2025-08-11T00:00:00Z"}}"#);
        place.execute(&format!("INSERT INTO bot_config VALUES ('schema_version', '{json}')")).await;
        place
    }

    pub async fn session(&self) -> Session {
        Session::connect(&self.database, "test").await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        self.session().await.execute(sql).await.unwrap();
    }

    pub async fn client(&self) -> Client {
        connect(&url(&self.database)).await
    }

    /// The same database as a role that can do nothing yet.
    pub async fn role(&self, grants: &str) -> ConnectOptions {
        let name = format!("app_{}", self.database.database);
        self.execute(&format!("CREATE ROLE \"{name}\" LOGIN PASSWORD 'app'")).await;
        if !grants.is_empty() {
            self.execute(&grants.replace("ROLE", &format!("\"{name}\""))).await;
        }
        ConnectOptions { user: name, password: Some("app".to_owned()), ..self.database.clone() }
    }

    pub async fn check(&self, app: &str, source: Source) -> Result<Outcome, GuardError> {
        Guard::new(app, source)?.check(&mut self.client().await).await
    }
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    client
}
