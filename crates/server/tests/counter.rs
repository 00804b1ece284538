//! Stands between the server and a database, and counts what is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgrunbook_postgres::ConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Counts connections, and messages by their first byte
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).
pub struct Counter {
    /// The database, through the counter.
    pub through: ConnectOptions,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    queries: AtomicUsize,
    others: AtomicUsize,
}

impl Counter {
    pub async fn before(database: &ConnectOptions) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut through = database.clone();
        through.hosts[0].port = listener.local_addr().unwrap().port();
        let server = (database.hosts[0].host.clone(), database.hosts[0].port);
        let seen = Arc::new(Seen::default());
        let counts = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let counts = Arc::clone(&counts);
                counts.connections.fetch_add(1, Ordering::SeqCst);
                let (mut from_server, mut to_server) = TcpStream::connect(server.clone()).await.unwrap().into_split();
                let (mut from_client, mut to_client) = client.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await.ok() });
                tokio::spawn(async move {
                    let mut first = true;
                    while let Ok((tag, message)) = message(&mut from_client, first).await {
                        first = false;
                        match tag {
                            Some(b'Q') => drop(counts.queries.fetch_add(1, Ordering::SeqCst)),
                            // Passwords and ends.
                            Some(b'p' | b'X') | None => {}
                            Some(_) => drop(counts.others.fetch_add(1, Ordering::SeqCst)),
                        }
                        if to_server.write_all(&message).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { through, seen }
    }

    /// Connections; queries of the simple protocol; other messages.
    pub fn seen(&self) -> (usize, usize, usize) {
        let Seen { connections, queries, others } = &*self.seen;
        (connections.load(Ordering::SeqCst), queries.load(Ordering::SeqCst), others.load(Ordering::SeqCst))
    }
}

async fn message(from: &mut (impl AsyncRead + Unpin), first: bool) -> std::io::Result<(Option<u8>, Vec<u8>)> {
    let mut message = Vec::new();
    let tag = if first { None } else { Some(from.read_u8().await?) };
    message.extend(tag);
    let length = from.read_u32().await?;
    message.extend(length.to_be_bytes());
    let at = message.len();
    message.resize(at + length as usize - 4, 0);
    from.read_exact(&mut message[at..]).await?;
    Ok((tag, message))
}
