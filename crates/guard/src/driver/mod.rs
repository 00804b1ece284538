//! Drivers as [`Connection`](crate::Connection)s: one file each, behind the feature of its name.

#[cfg(feature = "sqlx")]
pub mod sqlx;
#[cfg(feature = "tokio-postgres")]
pub mod tokio_postgres;
