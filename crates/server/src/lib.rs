//! What pgrunbook answers over HTTP, for whoever can neither embed the guard nor start the program: does an application fit
//! the schema?
//!
//! The one idea: a request can never cost more than was said beforehand. A target has a few connections and no more, each
//! check is one query, each request has a deadline that holds for waiting, connecting and asking together, and a query whose
//! deadline passed is cancelled on the server before its connection's place is free again. So a database that hangs makes
//! answers of 503, and neither a heap of requests here nor one of backends there.
//!
//! Nothing here reads the environment, a file or a signal: databases, deadlines and the end come in from outside.

mod error;
mod guard;
mod listen;
mod metrics;
mod pool;
mod session;

pub use error::ServerError;
pub use guard::{Guarding, PATHS, shown};
pub use listen::Server;
pub use pool::{Database, Databases};
pub use session::{Asking, refused};
