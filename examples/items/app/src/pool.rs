//! Connections that are kept for the next request.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{Client, NoTls};

/// So many connections at the most; a request waits for its turn.
pub struct Pool {
    dsn: String,
    turns: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Client>>>,
}

/// A connection for one request. It goes back only by [`Lease::back`]: a request that ends in the middle of a transaction,
/// because its client went away, takes its connection with it.
pub struct Lease {
    client: Client,
    idle: Arc<Mutex<Vec<Client>>>,
    _turn: OwnedSemaphorePermit,
}

impl Pool {
    pub fn new(dsn: String, size: usize) -> Self {
        Self { dsn, turns: Arc::new(Semaphore::new(size)), idle: Arc::default() }
    }

    /// A connection on which `opening` has been done. One that was kept may have died meanwhile: then `opening` is tried
    /// once more on a new one, which is safe as long as it only begins something.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses `opening`.
    pub async fn begin(&self, opening: &str) -> Result<Lease, tokio_postgres::Error> {
        // A semaphore is closed only by `close`, which nobody calls.
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("the semaphore is never closed");
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (client, fresh) = match kept.filter(|client| !client.is_closed()) {
            Some(client) => (client, false),
            None => (self.connect().await?, true),
        };
        let mut lease = Lease { client, idle: Arc::clone(&self.idle), _turn: turn };
        match lease.batch_execute(opening).await {
            Ok(()) => Ok(lease),
            // Others that are kept are likely as dead.
            Err(error) if !fresh && (lease.is_closed() || error.is_closed() || gone(&error)) => {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                lease.client = self.connect().await?;
                lease.batch_execute(opening).await?;
                Ok(lease)
            }
            Err(error) => Err(error),
        }
    }

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        connect(&self.dsn).await
    }
}

/// A connection of its own.
///
/// # Errors
/// If the server cannot be reached.
pub async fn connect(dsn: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    // Its end is seen by the next who uses the client.
    tokio::spawn(connection);
    Ok(client)
}

/// Whether the server ended the connection (admin_shutdown, crash_shutdown, cannot_connect_now, connection exceptions).
pub fn gone(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(state) => {
            matches!(state.code(), "57P01" | "57P02" | "57P03" | "57P05" | "53300") || state.code().starts_with("08")
        }
        // Not the server's word but the connection's.
        None => true,
    }
}

impl Lease {
    /// For the next request. Its transaction is over.
    pub fn back(self) {
        let Self { client, idle, _turn } = self;
        if !client.is_closed() {
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        }
    }
}

impl std::ops::Deref for Lease {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}
