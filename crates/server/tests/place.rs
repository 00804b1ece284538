//! A server of HTTP for one test, the database that it asks, and a client.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use pgrunbook_guard::Source;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_server::{Database, Databases, Guarding, Server};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than anything here takes: a test that hangs says so.
const PATIENCE: Duration = Duration::from_secs(60);

/// A deadline for requests that no test reaches which does not mean to.
pub const LONG: Duration = Duration::from_secs(30);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// A database with the version row of this version.
pub async fn at(version: &str) -> ConnectOptions {
    let cluster = shared("server-tests", SandboxOptions::default()).await.unwrap();
    let database = cluster.fresh_database("served").await.unwrap();
    fill(&database, version).await;
    database
}

/// The same on a server of its own.
pub async fn alone(version: &str) -> (Sandbox, ConnectOptions) {
    let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let database = sandbox.database("served").await.unwrap();
    fill(&database, version).await;
    (sandbox, database)
}

async fn fill(database: &ConnectOptions, version: &str) {
    execute(database, "CREATE TABLE bot_config (config_key text PRIMARY KEY, config_value jsonb)").await;
    let json = format!(r#"{{"version": "{version}", "migration": "0001_baseline"}}"#);
    execute(database, &format!("INSERT INTO bot_config VALUES ('schema_version', '{json}')")).await;
}

pub async fn session(database: &ConnectOptions) -> Session {
    Session::connect(database, "test").await.unwrap()
}

pub async fn execute(database: &ConnectOptions, sql: &str) {
    session(database).await.execute(sql).await.unwrap();
}

/// Waits until a statement says this.
pub async fn until(database: &ConnectOptions, sql: &str, wanted: &str) {
    let session = session(database).await;
    let looked = async {
        while session.value(sql).await.unwrap() != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(&format!("{sql} is {wanted}"), looked).await;
}

/// One environment `default` with one target `main`.
pub fn one(database: &ConnectOptions, connections: usize) -> Databases {
    several(Some("default"), [("default", "main", Ok(database.clone()))], connections)
}

pub fn several<const N: usize>(
    default: Option<&str>,
    targets: [(&str, &str, Result<ConnectOptions, String>); N],
    connections: usize,
) -> Databases {
    let mut environments: BTreeMap<String, BTreeMap<String, Database>> = BTreeMap::new();
    for (environment, target, place) in targets {
        let targets = environments.entry(environment.to_owned()).or_default();
        targets.insert(target.to_owned(), Database::new(place, connections));
    }
    Databases { default: default.map(str::to_owned), environments }
}

/// A server that runs until it is ended, or the test is over.
pub struct Served {
    pub address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    served: JoinHandle<usize>,
}

impl Served {
    pub async fn new(source: Source, databases: Databases, answer_within: Duration, skip: Option<&str>) -> Self {
        let guarding = Guarding::new(source, databases, answer_within, skip).unwrap();
        let server = Server::bind(([127, 0, 0, 1], 0).into(), guarding).await.unwrap();
        let address = server.address();
        let (end, ended) = oneshot::channel();
        let served = tokio::spawn(server.serve(async move { drop(ended.await) }));
        Self { address, end: Some(end), served }
    }

    /// Of one database with the usual row.
    pub async fn of(database: &ConnectOptions) -> Self {
        Self::new(Source::bot_config(), one(database, 2), LONG, None).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::to(self.address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
    }

    pub async fn guard(&self, query: &str) -> Answer {
        self.get(&format!("/guard?{query}")).await
    }

    /// As SIGTERM does.
    pub fn end(&mut self) {
        self.end.take().unwrap().send(()).unwrap();
    }

    /// Connections that were cut.
    pub async fn ended(self) -> usize {
        within("the server ends", self.served).await.unwrap()
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Sends a text, and reads until the server closes.
    pub async fn to(address: SocketAddr, request: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A server that refuses what is too long closes before all of it was sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut text = Vec::new();
        let read = within("an answer", stream.read_to_end(&mut text)).await;
        assert!(read.is_ok() || !text.is_empty(), "{read:?}");
        Self::of(&String::from_utf8(text).unwrap())
    }

    pub fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer of HTTP: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// This status, and what the answer says in short.
    #[track_caller]
    pub fn says(&self, status: u16, code: &str, message: &str, help: &str) {
        let json = self.json();
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        assert_eq!((self.status, text("code").as_str()), (status, code), "{json}");
        assert!(text("message").contains(message) && text("help").contains(help), "{json}");
    }

    #[track_caller]
    pub fn fits(&self) {
        assert_eq!((self.status, self.json()["outcome"].as_str()), (200, Some("equal")), "{}", self.body);
    }
}
