//! A session as the guard asks it.

use pgrunbook_guard::{Connection, Refusal, Row};
use pgrunbook_postgres::{PgError, Session};

/// A session that a guard can ask.
pub struct Asking(pub Session);

impl Connection for Asking {
    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Refusal> {
        let answers = self.0.simple(sql).await.map_err(|error| refused(&error))?;
        Ok(answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default())
    }
}

/// What an error of PostgreSQL's means to the guard. Without DETAIL, which may hold data.
pub fn refused(error: &PgError) -> Refusal {
    match error {
        PgError::Refused { error, .. } | PgError::Server(error) => {
            Refusal::Server { sqlstate: error.sqlstate.clone(), message: error.message.clone() }
        }
        other => Refusal::Unreachable(other.to_string()),
    }
}
