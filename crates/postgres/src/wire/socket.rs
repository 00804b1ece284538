//! From a host to a stream of bytes: TCP or a socket file, and TLS as `sslmode` says, as ordinary sessions have it.

use std::io::ErrorKind;
use std::path::Path;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use super::Purpose;
use crate::error::PgError;
use crate::options::{ConnectOptions, HostPort, SslMode};
use crate::tls;

/// The receive buffer of a replication connection to the same host, in bytes. A walsender sends each message by itself: while the window is
/// open each is a packet, whose whole way the sender pays. A small window, which closes while the reader pauses, lets messages come
/// together in the sender's buffer. Linux doubles it. Set before the connection is made: a sender that was once offered much
/// waits for half of that. Not for a network, where the kernel's own tuning lets the window grow with the distance.
const NEAR: u32 = 16 << 10;

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// A connection, whatever it runs over: one dynamic call for each large read.
pub(crate) type Socket = Box<dyn Duplex>;

/// Connects and agrees on TLS; nothing of the start-up was said yet.
pub(super) async fn open(
    options: &ConnectOptions,
    place: &HostPort,
    address: &str,
    purpose: Purpose,
) -> Result<Socket, PgError> {
    let unreachable =
        |error: std::io::Error| PgError::Unreachable { address: address.to_owned(), why: error.to_string() };
    if place.host.starts_with('/') {
        let path = Path::new(&place.host).join(format!(".s.PGSQL.{}", place.port));
        let socket = UnixStream::connect(path).await.map_err(unreachable)?;
        return encrypted(socket, options, None, address).await;
    }
    let socket = connect(place, purpose).await.map_err(unreachable)?;
    socket.set_nodelay(true).map_err(unreachable)?;
    encrypted(socket, options, Some(&place.host), address).await
}

/// The first of the host's addresses that answers.
async fn connect(place: &HostPort, purpose: Purpose) -> std::io::Result<TcpStream> {
    let mut refused = std::io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in lookup_host((place.host.as_str(), place.port)).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if address.ip().is_loopback() && purpose == Purpose::Replication {
            socket.set_recv_buffer_size(NEAR)?;
        }
        match socket.connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

async fn encrypted<S>(
    mut socket: S,
    options: &ConnectOptions,
    host: Option<&str>,
    address: &str,
) -> Result<Socket, PgError>
where
    S: Duplex + std::fmt::Debug + 'static,
{
    // No server offers TLS over its socket file: like the driver, `prefer` goes on without it.
    let required = match options.ssl.mode {
        SslMode::Disable => return Ok(Box::new(socket)),
        SslMode::Prefer => false,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => true,
    };
    let failed = |why: String| PgError::Tls { address: address.to_owned(), why };
    let io = |error: std::io::Error| failed(error.to_string());
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await.map_err(io)?;
    socket.flush().await.map_err(io)?;
    let answer = socket.read_u8().await.map_err(io)?;
    if answer != b'S' {
        let why = "server does not support TLS".to_owned();
        return if required { Err(failed(why)) } else { Ok(Box::new(socket)) };
    }
    let Some(host) = host else { return Err(failed("there is no host name to check".to_owned())) };
    let mut connector = tls::connector(&options.ssl)?;
    let connect =
        MakeTlsConnect::<S>::make_tls_connect(&mut connector, host).map_err(|error| failed(error.to_string()))?;
    Ok(Box::new(connect.connect(socket).await.map_err(io)?))
}
