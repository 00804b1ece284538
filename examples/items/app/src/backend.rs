//! Either mode, by the same words.

use serde_json::Value;

use crate::answer::Failure;
use crate::config::{Config, Mode};
use crate::postgres::Postgres;
use crate::profile::Write;
use crate::sqlite::Sqlite;

/// Where the rows are, as the mode says. There is no way from one to the other but a restart.
pub enum Backend {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Backend {
    pub fn new(config: &Config) -> Self {
        match (config.mode, &config.postgres_dsn) {
            (Mode::PostgresPrimary, Some(dsn)) => Self::Postgres(Postgres::new(dsn, config)),
            _ => Self::Sqlite(Sqlite::new(config.sqlite_dir.clone())),
        }
    }

    pub async fn health(&self, source: Option<&str>) -> Result<(), Failure> {
        match self {
            Self::Sqlite(one) => one.health(source).await,
            Self::Postgres(one) => one.health(source).await,
        }
    }

    pub async fn sources(&self) -> Result<Vec<String>, Failure> {
        match self {
            Self::Sqlite(one) => one.sources(),
            Self::Postgres(one) => one.sources().await,
        }
    }

    /// Items and notes of a source.
    pub async fn counts(&self, source: &str) -> Result<(i64, i64), Failure> {
        match self {
            Self::Sqlite(one) => one.counts(source).await,
            Self::Postgres(one) => one.counts(source).await,
        }
    }

    pub async fn items(&self, source: &str, limit: i64, words: &[String]) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Sqlite(one) => one.items(source, limit, words).await,
            Self::Postgres(one) => one.items(source, limit, words).await,
        }
    }

    pub async fn item(&self, source: &str, id: i64) -> Result<Value, Failure> {
        match self {
            Self::Sqlite(one) => one.item(source, id).await,
            Self::Postgres(one) => one.item(source, id).await,
        }
    }

    pub async fn notes(&self, source: &str, id: i64) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Sqlite(one) => one.notes(source, id).await,
            Self::Postgres(one) => one.notes(source, id).await,
        }
    }

    pub async fn edit(&self, source: &str, key: &str) -> Result<Option<Value>, Failure> {
        match self {
            Self::Sqlite(one) => one.edit(source, key).await,
            Self::Postgres(one) => one.edit(source, key).await,
        }
    }

    pub async fn write(&self, source: &str, write: Write) -> Result<Value, Failure> {
        match self {
            Self::Sqlite(one) => one.write(source, write).await,
            Self::Postgres(one) => one.write(source, &write).await,
        }
    }
}
