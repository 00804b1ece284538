//! Redis: how it is, whose prefixes are kept from whom, counting the keys of a prefix, and deleting them.
//!
//! A prefix (`stg:`, `prod:`) is a convention until access rules bind users to it, and until that was tried. `access/`
//! makes the rules what `topology.toml` declares (the step `topology` on a Redis target), `prove/` logs in with each
//! credential and tries (the step `isolation`). `scan.rs` walks keys so that others hardly notice, and never by `KEYS`;
//! `keys.rs` counts by it, `delete.rs` deletes by it. Whoever is asked is one server at a time: `node.rs` finds those behind
//! an address, be it one server, a cluster or Sentinels.
//!
//! A Redis that is down may be no failure: `optional = true` records the step as degraded.

pub mod access;
mod address;
pub mod delete;
mod error;
mod health;
pub mod keys;
mod node;
mod prefix;
pub mod prove;
mod scan;
mod step;

pub use address::{RedisOptions, is_redis};
pub use error::RedisFault;
pub use health::{Limits, NodeHealth, PINGS, health};
pub use node::{Nodes, Role, TIMEOUT, connect};
pub use prefix::{Prefix, SHORTEST};
pub use scan::{BATCH, Keep};
pub use step::{DELETE, HEALTH, KEYS, bounded_by, confirmation, gate, subjects, topology_details};

pub(crate) use step::{build_access, build_isolation};
