//! What depends on the version of PostgreSQL, on every one that is supported. `scripts/need servers` fetches those that the
//! system lacks.

use crate::{audit, parity};

#[tokio::test]
async fn audit_on_postgresql_14() {
    audit::holds_on(14).await;
}

#[tokio::test]
async fn audit_on_postgresql_16() {
    audit::holds_on(16).await;
}

#[tokio::test]
async fn audit_on_postgresql_17() {
    audit::holds_on(17).await;
}

#[tokio::test]
async fn audit_on_postgresql_18() {
    audit::holds_on(18).await;
}

#[tokio::test]
async fn parity_of_postgresql_14_and_18() {
    parity::holds_between(14, 18).await;
}

#[tokio::test]
async fn parity_of_postgresql_16_and_17() {
    parity::holds_between(16, 17).await;
}
