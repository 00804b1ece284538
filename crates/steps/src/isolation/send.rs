//! Statements of one role over one connection, many in flight: the answers come back in order.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use pgrunbook_postgres::{Answer as Rows, PgError, Session};

use super::attempt::{Ask, Attempt};
use super::matrix::Answer;

/// Statements that are under way at once on one connection. More gain nothing: one session answers one after the other,
/// and 64 hide the way there and back.
pub const IN_FLIGHT: usize = 64;

/// Expressions of one statement; a result has at most 1,664 columns.
const EXPRESSIONS: usize = 400;

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    pub answer: Answer,
    /// The catalog's answer, where it was asked.
    pub yes: Option<bool>,
    /// The plan, where it is needed.
    pub plan: Option<String>,
    pub took: Duration,
}

/// Makes every attempt. The replies are in the same order.
pub async fn send(session: &Session, attempts: &[Attempt<'_>]) -> Vec<Reply> {
    let mut replies: Vec<Option<Reply>> = vec![None; attempts.len()];
    let tried = (0..attempts.len()).filter_map(|at| match &attempts[at].ask {
        Ask::Try(sql) | Ask::Enter(sql) => Some((at, sql.as_str())),
        Ask::Catalog(_) => None,
    });
    let mut begun = Instant::now();
    let tried: Vec<_> = tried.map(|(at, sql)| made(session, at, sql)).collect();
    let mut answers = stream::iter(tried).buffered(IN_FLIGHT);
    while let Some((at, result)) = answers.next().await {
        // The server was at work on this one since it answered the one before.
        let took = begun.elapsed();
        begun = Instant::now();
        let attempt = &attempts[at];
        let plan = match &result {
            Ok(found) if attempt.reaches => {
                let rows = found.iter().flat_map(|answer| &answer.rows);
                Some(rows.filter_map(|row| row.first().cloned().flatten()).collect::<Vec<_>>().join("\n"))
            }
            _ => None,
        };
        let answer = match (&attempt.ask, result) {
            (Ask::Enter(_), Err(error)) if error.sqlstate() == Some("42P01") => {
                Answer::fine("the schema was entered; nothing of that name is in it")
            }
            (_, result) => answer_of(result.map(drop), "it works"),
        };
        replies[at] = Some(Reply { answer, yes: None, plan, took });
    }
    drop(answers);
    let asked: Vec<(usize, &str)> = (0..attempts.len())
        .filter_map(|at| match &attempts[at].ask {
            Ask::Catalog(expression) => Some((at, expression.as_str())),
            _ => None,
        })
        .collect();
    let expressions: Vec<&str> = asked.iter().map(|(_, expression)| *expression).collect();
    for ((at, _), reply) in asked.iter().zip(ask(session, &expressions).await) {
        replies[*at] = Some(reply);
    }
    replies.into_iter().map(|reply| reply.expect("every attempt is tried or asked")).collect()
}

/// One statement, with its number.
async fn made(session: &Session, at: usize, sql: &str) -> (usize, Result<Vec<Rows>, PgError>) {
    (at, session.simple(sql).await)
}

/// Asks yes-or-no expressions, many with each statement.
pub async fn ask(session: &Session, expressions: &[&str]) -> Vec<Reply> {
    let mut begun = Instant::now();
    let mut replies = Vec::with_capacity(expressions.len());
    let statements: Vec<(usize, String)> =
        expressions.chunks(EXPRESSIONS).map(|chunk| (chunk.len(), format!("SELECT {}", chunk.join(", ")))).collect();
    let asked: Vec<_> = statements.iter().map(|(count, sql)| made(session, *count, sql)).collect();
    let mut answers = stream::iter(asked).buffered(IN_FLIGHT);
    while let Some((count, result)) = answers.next().await {
        let took = begun.elapsed() / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        begun = Instant::now();
        match result {
            Ok(found) => {
                let row = found.last().and_then(|answer| answer.rows.first()).cloned().unwrap_or_default();
                replies.extend((0..count).map(|at| {
                    let yes = row.get(at).and_then(Option::as_deref).map(|text| text == "t");
                    let answer = match yes {
                        Some(yes) => Answer::fine(if yes { "true" } else { "false" }),
                        None => Answer::none("NULL: it is gone"),
                    };
                    Reply { answer, yes, plan: None, took }
                }));
            }
            Err(error) => {
                let answer = answer_of(Err(error), "");
                let reply = Reply { answer, yes: None, plan: None, took };
                replies.extend(std::iter::repeat_n(reply, count));
            }
        }
    }
    replies
}

/// What a result says.
pub fn answer_of(result: Result<(), PgError>, fine: &str) -> Answer {
    match result {
        Ok(()) => Answer::fine(fine),
        Err(PgError::Server(error)) => Answer { sqlstate: Some(error.sqlstate), message: error.message },
        Err(error) => Answer::none(error.to_string()),
    }
}
