//! Sends statements to a server, reads what the last one answers, and cancels where the operator wants it.
//!
//! Everything that goes before the statements travels with them in one simple query, and what goes after is sent before
//! their answer is read: one round trip.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use pgrunbook_document::sql::quote;
use pgrunbook_engine::Cancel;
use pgrunbook_postgres::{PgError, ServerError, Session};
use tokio_postgres::SimpleQueryMessage;

use super::judge::{Judge, Raised};

/// What is asked of a server, inside a transaction that is always rolled back.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub read_only: bool,
    /// The role the statements run under.
    pub role: Option<&'a str>,
    pub timeout: Option<Duration>,
    pub text: &'a str,
    /// Checks what is deferred to the end of the transaction before it is rolled back.
    pub constraints: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Answered {
    /// The error, if there was one.
    pub raised: Option<ServerError>,
    /// Statements of the text that were done before it.
    pub done: usize,
    /// The error was raised before the text was reached: by the role or the timeout.
    pub before: bool,
}

impl Answered {
    /// As a judge reads it.
    pub fn raised(&self) -> Option<Raised> {
        self.raised.as_ref().map(|error| Raised { sqlstate: error.sqlstate.clone(), message: error.message.clone() })
    }
}

/// Asks, and lets the judge see the last result.
///
/// # Errors
/// If the connection was lost: nothing happened, as the transaction was never to be committed.
pub async fn ask(
    session: &Session,
    question: &Question<'_>,
    judge: &mut Judge<'_>,
    cancel: &Cancel,
) -> Result<Answered, PgError> {
    let (before, before_count) = preamble(question);
    let first = Streamed::send(session, &format!("{before}{}", question.text)).await?;
    let constraints = match question.constraints {
        true => Some(Streamed::send(session, "SET CONSTRAINTS ALL IMMEDIATE").await?),
        false => None,
    };
    let rollback = Streamed::send(session, "ROLLBACK").await?;

    let mut answered = first.read(session, before_count, Some(judge), cancel).await?;
    if let Some(constraints) = constraints {
        let late = constraints.read(session, 0, None, cancel).await?;
        if answered.raised.is_none() {
            answered.raised = late.raised;
        }
    }
    rollback.read(session, 0, None, cancel).await?;
    reset(session, question.text).await?;
    Ok(answered)
}

fn preamble(question: &Question<'_>) -> (String, usize) {
    let mut text = String::from(if question.read_only { "BEGIN READ ONLY;" } else { "BEGIN;" });
    let mut count = 1;
    if let Some(timeout) = question.timeout {
        text.push_str(&format!("SET LOCAL statement_timeout = {};", timeout.as_millis().max(1)));
        count += 1;
    }
    if let Some(role) = question.role {
        // A role's name comes from a runbook, which holds no NUL.
        let role = quote::ident(role).unwrap_or_default();
        text.push_str(&format!("SET LOCAL ROLE {role};"));
        count += 1;
    }
    (text, count)
}

/// A rollback takes back settings, roles, temporary tables, cursors and LISTEN. What it leaves is dropped here, where the
/// text can have made such a thing at all.
async fn reset(session: &Session, text: &str) -> Result<(), PgError> {
    let text = text.to_ascii_lowercase();
    let mut leftover = String::new();
    for (word, statement) in [
        ("prepare", "DEALLOCATE ALL;"),
        ("advisory", "SELECT pg_catalog.pg_advisory_unlock_all();"),
        ("nextval", "DISCARD SEQUENCES;"),
    ] {
        if text.contains(word) {
            leftover.push_str(statement);
        }
    }
    if leftover.is_empty() { Ok(()) } else { session.execute(&leftover).await }
}

/// A query that was sent and whose answer is not read yet.
pub struct Streamed(tokio_postgres::SimpleQueryStream);

impl Streamed {
    /// Sends. Returns as soon as it is on its way.
    ///
    /// # Errors
    /// If the connection is closed.
    pub async fn send(session: &Session, text: &str) -> Result<Self, PgError> {
        session.client().simple_query_raw(text).await.map(Self).map_err(|error| session.error(&error))
    }

    /// Reads the answer; the results of the first `before` statements are not the judge's business. An error of the
    /// server is an answer.
    ///
    /// # Errors
    /// If the connection was lost.
    pub async fn read(
        self,
        session: &Session,
        before: usize,
        mut judge: Option<&mut Judge<'_>>,
        cancel: &Cancel,
    ) -> Result<Answered, PgError> {
        let mut stream = pin!(self.0);
        let mut answered = Answered::default();
        let (mut complete, mut returns_rows) = (0usize, false);
        let mut aborting = pin!(cancel.aborting());
        let mut cancelled = false;
        loop {
            // Cancellation: a stream that is polled again goes on where it was.
            let message = tokio::select! {
                message = stream.next() => message,
                () = &mut aborting, if !cancelled => {
                    cancelled = true;
                    session.cancel().await?;
                    continue;
                }
            };
            match message {
                None => return Ok(answered),
                Some(Err(error)) => match session.error(&error) {
                    PgError::Server(error) => {
                        answered.before = complete < before;
                        answered.raised = Some(*error);
                    }
                    lost => return Err(lost),
                },
                Some(Ok(SimpleQueryMessage::RowDescription(columns))) => {
                    returns_rows = true;
                    if let Some(judge) = judge.as_mut().filter(|_| complete >= before) {
                        judge.result(columns.iter().map(|column| column.name().to_owned()).collect());
                    }
                }
                Some(Ok(SimpleQueryMessage::Row(row))) => {
                    if let Some(judge) = judge.as_mut().filter(|_| complete >= before) {
                        judge.row(|at| row.get(at).map(ToOwned::to_owned));
                    }
                }
                Some(Ok(SimpleQueryMessage::CommandComplete(row_count))) => {
                    if complete >= before {
                        answered.done += 1;
                        if let Some(judge) = judge.as_mut().filter(|_| !returns_rows) {
                            judge.changed(row_count);
                        }
                    }
                    complete += 1;
                    returns_rows = false;
                }
                Some(Ok(_)) => {}
            }
        }
    }
}
