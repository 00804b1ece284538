//! Where flags are read from.

use std::future::Future;
use std::path::PathBuf;

use super::table::{self, MOST};
use super::{FlagSet, flagd};
use crate::connection::{Connection, Refusal};
use crate::quote::{Name, NotAName, ident, literal};

/// A file above this is refused.
const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Why flags could not be read. Without anything secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginError(pub String);

impl std::fmt::Display for OriginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OriginError {}

impl From<Refusal> for OriginError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.to_string())
    }
}

/// Somewhere that all flags can be read from at once.
pub trait Origin: Send {
    /// Reads them all.
    ///
    /// # Errors
    /// Why it could not.
    fn read(&mut self) -> impl Future<Output = Result<FlagSet, OriginError>> + Send;
}

/// The table `pgrunbook.flag`: see [`TABLE_SQL`](super::TABLE_SQL). One query for all flags.
#[derive(Debug)]
pub struct Table<C>(pub C);

impl<C: Connection> Origin for Table<C> {
    async fn read(&mut self) -> Result<FlagSet, OriginError> {
        let rows = self.0.rows(table::READ_SQL).await?;
        if rows.len() > MOST {
            return Err(OriginError(format!("pgrunbook.flag has more than {MOST} flags")));
        }
        Ok(table::of_rows(rows))
    }
}

/// A row of JSON in a table of settings: `config_value` where `config_key` is `feature_flags`.
#[derive(Debug)]
pub struct BotConfig<C> {
    pub connection: C,
    pub table: Name,
    pub key: String,
    /// Where the table holds several: the value of its column `environment`.
    pub environment: Option<String>,
    pub key_column: String,
    pub value_column: String,
}

impl<C> BotConfig<C> {
    /// The row `feature_flags` of this table.
    ///
    /// # Errors
    /// If it is not a name.
    pub fn of(connection: C, table: &str) -> Result<Self, NotAName> {
        Ok(Self {
            connection,
            table: Name::parse(table)?,
            key: "feature_flags".to_owned(),
            environment: None,
            key_column: "config_key".to_owned(),
            value_column: "config_value".to_owned(),
        })
    }
}

impl<C: Connection> Origin for BotConfig<C> {
    async fn read(&mut self) -> Result<FlagSet, OriginError> {
        let environment = self
            .environment
            .as_deref()
            .map_or_else(String::new, |name| format!(" AND environment = {}", literal(name)));
        let sql = format!(
            "SELECT {}::text FROM {} WHERE {} = {}{environment} LIMIT 2",
            ident(&self.value_column),
            self.table.sql(),
            ident(&self.key_column),
            literal(&self.key)
        );
        let rows = self.connection.rows(&sql).await?;
        let place = format!("{} ({})", self.table, self.key);
        match rows.as_slice() {
            [] => Err(OriginError(format!("{place} is not there"))),
            [row] => {
                let text = row.first().cloned().flatten().unwrap_or_default();
                table::parse_json(&text).map_err(|why| OriginError(format!("{place}: {why}")))
            }
            _ => Err(OriginError(format!("{place} is there several times: name the environment"))),
        }
    }
}

/// A file in flagd's format.
#[derive(Debug, Clone)]
pub struct File(pub PathBuf);

impl Origin for File {
    async fn read(&mut self) -> Result<FlagSet, OriginError> {
        let path = self.0.clone();
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || {
            let size = std::fs::metadata(&path)?.len();
            if size > FILE_BYTES {
                return Err(std::io::Error::other(format!("{size} bytes are too many")));
            }
            std::fs::read_to_string(&path)
        });
        let text = match read.await {
            Ok(read) => read.map_err(|error| OriginError(format!("{shown}: {error}")))?,
            Err(error) => return Err(OriginError(format!("{shown}: {error}"))),
        };
        flagd::parse(&text).map_err(|why| OriginError(format!("{shown}: {why}")))
    }
}
