//! Connections over HTTP/1.1: bounded in number, in what they may send and in how long they may take, and ended in order.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::error::ServerError;
use crate::guard::Guarding;

/// Connections that are open at a time; more wait in the kernel's queue. Each costs a few kilobytes and one file.
const OPEN: usize = 1_000;

/// Bytes that a request's line and headers may have. hyper takes no less than 8 KiB; bodies are not read at all.
const HEAD: usize = 16 * 1024;

/// How long a request's headers may take to arrive, and how long a connection may be quiet between two requests.
const QUIET: Duration = Duration::from_secs(15);

/// The pause after a connection could not be taken: this process has no files left until others end.
const NO_FILES: Duration = Duration::from_millis(100);

/// A server that listens, and does not answer yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    guarding: Guarding,
}

impl Server {
    /// Takes the port; 0 takes any.
    ///
    /// # Errors
    /// [`ServerError::Listen`].
    pub async fn bind(address: SocketAddr, guarding: Guarding) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, guarding })
    }

    /// Where it listens, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `ended` is ready. From then on nothing new is taken, what was asked is answered, and what is not done a
    /// second after its deadline is cut off. Returns how many connections that were.
    pub async fn serve(self, ended: impl Future<Output = ()>) -> usize {
        let Self { listener, guarding, .. } = self;
        let grace = guarding.answer_within() + Duration::from_secs(1);
        let routes = guarding.routes();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(QUIET).max_buf_size(HEAD);
        let graceful = GracefulShutdown::new();
        let open = Arc::new(Semaphore::new(OPEN));
        let mut connections = JoinSet::new();
        let mut ended = pin!(ended);
        loop {
            let (stream, place) = tokio::select! {
                () = &mut ended => break,
                accepted = accept(&listener, &open) => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes.clone()));
            let connection = graceful.watch(connection);
            connections.spawn(async move {
                // A client that goes away, or speaks no HTTP, is nobody's concern but its own.
                let _ = connection.await;
                drop(place);
            });
        }
        // Whoever comes now is refused, and finds another server.
        drop(listener);
        if tokio::time::timeout(grace, graceful.shutdown()).await.is_ok() {
            return 0;
        }
        while connections.try_join_next().is_some() {}
        connections.len()
    }
}

async fn accept(listener: &TcpListener, open: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        // Cancellation: a permit that is not handed on goes back.
        let Ok(place) = Arc::clone(open).acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => {
                // An answer is one small packet.
                let _ = stream.set_nodelay(true);
                return (stream, place);
            }
            Err(_) => tokio::time::sleep(NO_FILES).await,
        }
    }
}
