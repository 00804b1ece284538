//! What the crate promises, on real servers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ledger;
mod sandbox;

use pgrunbook_postgres::ConnectOptions;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared};

/// The cluster that all tests share.
pub async fn cluster() -> Sandbox {
    shared("tests", SandboxOptions::default()).await.unwrap()
}

/// A database for one test.
pub async fn database() -> ConnectOptions {
    cluster().await.fresh_database("postgres").await.unwrap()
}
