//! To the first host that takes us, and the request that cancels what runs there.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::{Wire, login, socket};
use crate::error::PgError;
use crate::options::{ConnectOptions, HostPort};

/// What a connection is for: it decides what is said at the start-up, and how a socket to the same host is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Commands and the stream of logical replication.
    Replication,
    /// Rows of COPY, in bulk.
    Rows,
}

/// What a cancel request is signed with.
#[derive(Clone, Copy)]
pub(crate) struct BackendKey {
    pub pid: i32,
    secret: i32,
}

impl BackendKey {
    pub fn new(pid: i32, secret: i32) -> Self {
        Self { pid, secret }
    }
}

/// A connection that is logged in and idle.
pub(crate) struct Connection {
    pub wire: Wire,
    pub options: ConnectOptions,
    /// The host that took us.
    pub place: HostPort,
    pub key: BackendKey,
    /// The major version.
    pub server_version: u32,
}

/// Connects under a name that `pg_stat_activity` shows, to the first host that takes us.
///
/// # Errors
/// [`PgError::Unreachable`], [`PgError::Refused`] or [`PgError::Tls`], of the last host that was tried.
pub(crate) async fn connect(options: &ConnectOptions, name: &str, purpose: Purpose) -> Result<Connection, PgError> {
    let mut last = PgError::Options("the connection names no host".to_owned());
    for place in &options.hosts {
        let attempt = tokio::time::timeout(options.connect_timeout, try_host(options, place, name, purpose));
        last = match attempt.await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => PgError::Unreachable {
                address: address(options, place),
                why: format!("no answer within {:?}", options.connect_timeout),
            },
        };
    }
    Err(last)
}

async fn try_host(
    options: &ConnectOptions,
    place: &HostPort,
    name: &str,
    purpose: Purpose,
) -> Result<Connection, PgError> {
    let address = address(options, place);
    let socket = socket::open(options, place, &address, purpose).await?;
    let mut wire = Wire::new(socket, address);
    let greeting = login::log_in(&mut wire, options, name, purpose).await?;
    if options.read_write {
        let rows = wire.query("SHOW transaction_read_only").await?;
        if rows.first().and_then(|row| row.first()).is_some_and(|value| value.as_deref() == Some("on")) {
            let why = "it is read only, and a server that takes writes was asked for".to_owned();
            return Err(PgError::Unreachable { address: wire.address, why });
        }
    }
    Ok(Connection {
        wire,
        options: options.clone(),
        place: place.clone(),
        key: greeting.key,
        server_version: greeting.server_version,
    })
}

/// Asks the server to cancel what this backend does. A server that cannot be reached cancels by itself, or died.
pub(crate) async fn cancel(options: &ConnectOptions, place: &HostPort, key: BackendKey) {
    let address = address(options, place);
    let attempt = async {
        let mut wire = Wire::new(socket::open(options, place, &address, Purpose::Rows).await?, address);
        let mut buffer = BytesMut::new();
        frontend::cancel_request(key.pid, key.secret, &mut buffer);
        wire.send(&buffer).await?;
        // The server has dealt with it when it closes.
        wire.drain().await;
        Ok::<_, PgError>(())
    };
    let _ = tokio::time::timeout(options.connect_timeout, attempt).await;
}

/// The address of one host, as errors name it.
fn address(options: &ConnectOptions, place: &HostPort) -> String {
    ConnectOptions { hosts: vec![place.clone()], ..options.clone() }.address()
}
