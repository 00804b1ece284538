//! What depends on the version of PostgreSQL, on every one that is supported. `scripts/need servers` fetches those that the
//! system lacks.

use crate::audit;

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
