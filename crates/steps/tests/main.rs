//! The kinds of step, run by the engine on real servers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acts;
mod audit;
mod backup;
mod bench;
mod build;
mod clock;
mod contract;
mod copy;
mod deployment_log;
mod dirty_keys;
mod drift;
mod failover;
mod fence;
mod file_back;
mod flag;
mod guard;
mod isolation;
mod lost;
mod matrix;
mod migrate;
mod observe;
mod parity;
mod parity_live;
mod parity_sqlite;
mod parity_step;
mod passing;
mod preflight;
mod preflight_more;
mod redis;
mod since;
#[path = "../../postgres/tests/small_disk.rs"]
mod small_disk;
mod source;
mod source_back;
mod sql;
mod sqlite;
mod sqlite_findings;
mod sqlite_load;
mod structure;
mod switch;
mod tenants;
mod topology;
mod transfer;
mod transfer_sqlite;
mod versions;
