//! What the guard needs of a driver: one statement, its rows as text, and why there are none.

use std::future::Future;

/// A row's values in text form, in order of the columns; `None` is null.
pub type Row = Vec<Option<String>>;

/// Somebody who can ask the server one thing.
///
/// Every column that the guard asks for has the type `text`.
pub trait Connection: Send {
    /// Sends `sql` by the simple query protocol: one message there, one answer back.
    ///
    /// # Errors
    /// What the server said, or that none answered.
    fn rows(&mut self, sql: &str) -> impl Future<Output = Result<Vec<Row>, Refusal>> + Send;
}

impl<C: Connection> Connection for &mut C {
    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Refusal> {
        (**self).rows(sql).await
    }
}

/// Why there are no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No server answered, or the connection broke. Without anything secret in it.
    Unreachable(String),
    /// The server said no.
    Server {
        /// Five characters; see <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
        sqlstate: String,
        /// The primary message. DETAIL may hold data and is not kept.
        message: String,
    },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::Server { sqlstate, message } => write!(f, "{message} (SQLSTATE {sqlstate})"),
        }
    }
}

impl std::error::Error for Refusal {}

/// A connection that is made when it is first needed, and again after it broke.
///
/// A guard that is bypassed then starts even where no server answers, and flags come back with the server.
#[derive(Debug)]
pub struct Connecting<F, C> {
    connect: F,
    connection: Option<C>,
}

impl<F, C> Connecting<F, C> {
    /// Connects by `connect`, later.
    pub fn new(connect: F) -> Self {
        Self { connect, connection: None }
    }
}

impl<F, Fut, C> Connection for Connecting<F, C>
where
    F: FnMut() -> Fut + Send,
    Fut: Future<Output = Result<C, Refusal>> + Send,
    C: Connection,
{
    async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Refusal> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => (self.connect)().await?,
        };
        let answer = connection.rows(sql).await;
        // A connection whose answer was not awaited to its end, or that broke, is not used again: it is gone by now, or
        // would answer the wrong question.
        if !matches!(answer, Err(Refusal::Unreachable(_))) {
            self.connection = Some(connection);
        }
        answer
    }
}
