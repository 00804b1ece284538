//! What a check costs the server: messages are counted on their way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pgrunbook_guard::{Connection, Guard, Source, check};
use pgrunbook_postgres::ConnectOptions;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, url};
use sqlx_core::connection::Connection as _;
use sqlx_postgres::{PgConnection, PgPoolOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::place::{Place, connect};

/// Stands between clients and a server, and counts what clients send after the start of the connection, by the messages'
/// first byte (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).
struct Counter {
    url: String,
    seen: Arc<Mutex<BTreeMap<char, usize>>>,
}

impl Counter {
    async fn before(database: &ConnectOptions) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut through = database.clone();
        through.hosts[0].port = listener.local_addr().unwrap().port();
        let server = (database.hosts[0].host.clone(), database.hosts[0].port);
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let counts = seen.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, counts) = (server.clone(), counts.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    let (mut from_server, mut to_server) = server.into_split();
                    let (mut from_client, mut to_client) = client.into_split();
                    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await.ok() });
                    let mut first = true;
                    while let Ok((tag, message)) = message(&mut from_client, first).await {
                        if let Some(tag) = tag {
                            *counts.lock().unwrap().entry(tag).or_default() += 1;
                        }
                        first = false;
                        if to_server.write_all(&message).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { url: url(&through), seen }
    }

    /// What was sent since it was asked last; but for passwords and ends.
    fn take(&self) -> BTreeMap<char, usize> {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.retain(|tag, _| !"pX".contains(*tag));
        seen
    }
}

async fn message(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    first: bool,
) -> std::io::Result<(Option<char>, Vec<u8>)> {
    let mut message = Vec::new();
    let tag = if first { None } else { Some(from.read_u8().await?) };
    message.extend(tag);
    let length = from.read_u32().await?;
    message.extend(length.to_be_bytes());
    let at = message.len();
    message.resize(at + length as usize - 4, 0);
    from.read_exact(&mut message[at..]).await?;
    Ok((tag.map(char::from), message))
}

/// One `Query`, and nothing else: no `Parse`, `Sync` or `Flush` that an answer is awaited for.
#[track_caller]
fn one_query(seen: &BTreeMap<char, usize>) {
    assert_eq!(*seen, BTreeMap::from([('Q', 1)]));
}

async fn counted(counter: &Counter, connection: &mut impl Connection) {
    counter.take();
    check("1.0.0", Source::bot_config(), connection).await.unwrap();
    one_query(&counter.take());
}

#[tokio::test]
async fn check_is_one_round_trip_with_every_driver() {
    let place = Place::at("1.0.0").await;
    let counter = Counter::before(&place.database).await;
    let client = connect(&counter.url).await;
    counted(&counter, &mut &client).await;
    counted(&counter, &mut &client).await;
    let mut connection = PgConnection::connect(&counter.url).await.unwrap();
    counted(&counter, &mut connection).await;
    let pool = PgPoolOptions::new().max_connections(1).test_before_acquire(false).connect(&counter.url).await.unwrap();
    counted(&counter, &mut &pool).await;
    // A prepared statement would be more: the counter sees it.
    counter.take();
    client.query("SELECT 1", &[]).await.unwrap();
    assert!(counter.take().contains_key(&'P'));
}

#[tokio::test]
async fn error_is_told_by_every_driver_alike() {
    let place = Place::new().await;
    let mut pool = PgPoolOptions::new().max_connections(1).connect(&url(&place.database)).await.unwrap();
    let error = check("1.0.0", Source::bot_config(), &mut pool).await.unwrap_err();
    assert_eq!(error.code(), "no-table");
    pool.close().await;
    let error = check("1.0.0", Source::bot_config(), &mut pool).await.unwrap_err();
    assert_eq!(error.code(), "unreachable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_starts_at_once_cost_one_query_each() {
    let settings = vec![("max_connections".to_owned(), "230".to_owned())];
    let sandbox = Sandbox::start(SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap();
    let place = Place { database: sandbox.database("many").await.unwrap() };
    place.execute("CREATE TABLE bot_config (config_key text, config_value jsonb)").await;
    place.execute("INSERT INTO bot_config VALUES ('schema_version', '{\"version\": \"1.0.0\"}')").await;
    let counter = Counter::before(&place.database).await;
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let config: tokio_postgres::Config = counter.url.parse().unwrap();
        starts.spawn(async move {
            let mut connection = pgrunbook_guard::driver::tokio_postgres::connecting(config, tokio_postgres::NoTls);
            Guard::new("1.0.0", Source::bot_config()).unwrap().check(&mut connection).await
        });
    }
    let mut fit = 0;
    while let Some(start) = starts.join_next().await {
        start.unwrap().unwrap();
        fit += 1;
    }
    assert_eq!(fit, 200);
    assert_eq!(counter.take(), BTreeMap::from([('Q', 200)]));
}
