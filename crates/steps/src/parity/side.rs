//! A side, whatever it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bucket::{Buckets, Looked, Sums};
use super::compare::{Place, Seen};
use super::error::ParityError;
use super::keys::{Keys, read_keys};
use super::pair::{Column, Finding, Pair, SideTable, Which};
use super::postgres::PostgresSide;
use super::rows::{Rows, Skip};
use super::sqlite::SqliteSide;

/// An open side, read in one snapshot.
pub(super) enum Side {
    Postgres(PostgresSide),
    Sqlite(SqliteSide),
}

impl Side {
    pub async fn open(which: Which, place: &Place, jobs: usize, application_name: &str) -> Result<Self, ParityError> {
        match place {
            Place::Postgres { options, schema } => {
                let label = format!("{} ({}, schema {schema})", which.word(), options.database);
                let open = PostgresSide::open(which, options, schema, label, jobs, application_name);
                Ok(Self::Postgres(open.await?))
            }
            Place::Sqlite { path, choices } => {
                Ok(Self::Sqlite(SqliteSide::open(which, path.clone(), choices.clone()).await?))
            }
        }
    }

    /// Ends its snapshot.
    pub async fn end(&self) -> Result<(), ParityError> {
        match self {
            Self::Postgres(side) => side.end().await,
            Self::Sqlite(side) => side.end().await,
        }
    }

    /// Takes a new snapshot.
    pub async fn renew(&mut self) -> Result<(), ParityError> {
        match self {
            Self::Postgres(side) => side.renew().await,
            Self::Sqlite(side) => side.renew().await,
        }
    }

    pub fn label(&self) -> &str {
        match self {
            Self::Postgres(side) => &side.label,
            Self::Sqlite(side) => &side.label,
        }
    }

    pub fn seen(&self) -> Seen {
        match self {
            Self::Postgres(side) => {
                Seen { label: side.label.clone(), snapshot: Some(side.snapshot.clone()), lsn: side.lsn }
            }
            Self::Sqlite(side) => Seen { label: side.label.clone(), snapshot: None, lsn: None },
        }
    }

    pub async fn tables(&self) -> Result<(Vec<SideTable>, Vec<Finding>), ParityError> {
        match self {
            Self::Postgres(side) => side.tables().await,
            Self::Sqlite(side) => side.tables().await,
        }
    }

    /// The least and the greatest value of an integer key; none of a table without rows.
    pub async fn extremes(&self, pair: &Arc<Pair>, key: &Column) -> Result<Option<(i64, i64)>, ParityError> {
        match self {
            Self::Postgres(side) => side.extremes(pair, key).await,
            Self::Sqlite(side) => side.extremes(pair, key).await,
        }
    }

    /// Reads every row once.
    pub async fn sums(&self, pair: &Arc<Pair>, buckets: &Arc<Buckets>, skip: &Skip) -> Result<Sums, ParityError> {
        match self {
            Self::Postgres(side) => side.sums(pair, buckets, skip).await,
            Self::Sqlite(side) => side.sums(pair, buckets, skip).await,
        }
    }

    /// The rows of some keys, by key.
    pub async fn by_keys(&self, pair: &Arc<Pair>, keys: &Keys) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ParityError> {
        match self {
            Self::Postgres(side) => {
                let from = &side.which.of(&pair.sides).from;
                read_keys(side.session(), &side.label, side.which, pair, from, keys).await
            }
            Self::Sqlite(side) => side.by_keys(pair, keys).await,
        }
    }

    /// The rows of some parts, in the order of their identifying bytes.
    pub fn ordered(&self, pair: &Arc<Pair>, buckets: &Arc<Buckets>, looked: &Looked) -> Rows {
        match self {
            Self::Postgres(side) => side.ordered(pair, &looked.condition),
            Self::Sqlite(side) => side.ordered(pair, buckets, looked),
        }
    }

    /// A value in words, from a server that knows its type.
    pub async fn text(sides: &[Self; 2], column: &Column, value: Option<&[u8]>) -> Result<Option<String>, ParityError> {
        let Some(value) = value else { return Ok(None) };
        for side in sides {
            if let (Self::Postgres(side), Some(oid)) = (side, column.oid) {
                return Ok(Some(side.text_of(oid, value).await?));
            }
        }
        Ok(Some(super::sqlite::in_words(value)))
    }
}
