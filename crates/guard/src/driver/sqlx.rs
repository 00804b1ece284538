//! `sqlx`: connections and pools of PostgreSQL.
//!
//! The facade `sqlx` re-exports these very types, so what an application gets from it can be passed on. It is not named
//! here because it would bring SQLite's and MySQL's drivers into the lock file.
//!
//! A pool that tests a connection before it hands it out (`test_before_acquire`, its default) asks the server once more
//! for that; a connection that was just made is not tested.

use futures_util::TryStreamExt;
use sqlx_core::error::Error;
use sqlx_core::executor::Executor;
use sqlx_core::pool::Pool;
use sqlx_core::raw_sql::raw_sql;
use sqlx_core::row::Row as _;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgRow, Postgres};

use crate::connection::{Connection, Refusal, Row};

impl Connection for PgConnection {
    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Refusal> {
        simple(self, sql).await
    }
}

impl Connection for &Pool<Postgres> {
    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Refusal> {
        simple(*self, sql).await
    }
}

impl Connection for Pool<Postgres> {
    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Refusal> {
        simple(&*self, sql).await
    }
}

/// By the simple query protocol; `query` would prepare first, and take a second round trip.
async fn simple<'c>(executor: impl Executor<'c, Database = Postgres>, sql: &str) -> Result<Vec<Row>, Refusal> {
    // Safe: the crate's own `quote` is the only maker of these texts.
    let rows: Vec<PgRow> =
        raw_sql(AssertSqlSafe(sql.to_owned())).fetch(executor).try_collect().await.map_err(|error| refused(&error))?;
    rows.iter()
        .map(|row| (0..row.len()).map(|at| row.try_get(at)).collect::<Result<Row, _>>())
        .collect::<Result<_, _>>()
        .map_err(|error| refused(&error))
}

/// What an error means to the guard: for those who connect themselves.
pub fn refused(error: &Error) -> Refusal {
    match error {
        Error::Database(db) => {
            let sqlstate = db.code().map_or_else(String::new, std::borrow::Cow::into_owned);
            Refusal::Server { sqlstate, message: db.message().to_owned() }
        }
        other => Refusal::Unreachable(other.to_string()),
    }
}
