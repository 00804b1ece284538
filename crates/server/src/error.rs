//! What can go wrong before anything is answered. What goes wrong with a request is its answer.

use std::net::SocketAddr;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The port is taken, needs more rights than the process has, or the address is none of this machine's.
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
}
