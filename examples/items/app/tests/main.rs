//! The service as a process, on files and on a real PostgreSQL, directly and behind a real PgBouncer.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod modes;
mod outage;
mod project;
mod runbook;
mod whole;
