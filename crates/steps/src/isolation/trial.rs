//! One transaction that is rolled back, in which statements are tried one by one, each in a savepoint of its own.

use std::time::{Duration, Instant};

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{Answer as Rows, PgError, Session};

use super::matrix::{Answer, Method, Try, Verdict};
use super::objects::ident;
use super::send::answer_of;
use crate::topology::Role;

/// An open transaction. It is rolled back by [`Trial::end`], and by the server if the session is lost.
pub struct Trial<'a> {
    session: &'a Session,
}

/// What a statement came to.
pub struct Came {
    pub statement: String,
    pub answer: Answer,
    pub rows: Option<Rows>,
    pub took: Duration,
}

impl Came {
    /// The value in a column of the first row.
    pub fn value(&self, at: usize) -> Option<&str> {
        self.rows.as_ref()?.rows.first()?.get(at)?.as_deref()
    }

    /// Rows that were returned or changed.
    pub fn affected(&self) -> u64 {
        self.rows.as_ref().map_or(0, |rows| rows.affected)
    }

    pub fn sqlstate(&self) -> Option<&str> {
        self.answer.sqlstate.as_deref()
    }

    /// The try, with its verdict.
    pub fn judged(self, object: &str, verdict: Verdict, control: Option<&str>, why: Option<&str>) -> Try {
        Try {
            object: object.to_owned(),
            statement: self.statement,
            answer: self.answer,
            verdict,
            control: control.map(str::to_owned),
            why: why.map(str::to_owned),
            took: self.took,
        }
    }
}

impl<'a> Trial<'a> {
    /// Begins a transaction. `path`: the `search_path` in it.
    pub async fn begin(session: &'a Session, timeout: Duration, path: &[String]) -> Result<Self, StepError> {
        let names = path.iter().map(|name| ident(name)).collect::<Result<Vec<_>, _>>()?;
        let path =
            if names.is_empty() { String::new() } else { format!("SET LOCAL search_path = {};", names.join(", ")) };
        let sql = format!(
            "BEGIN; SET LOCAL statement_timeout = {0}; SET LOCAL lock_timeout = {0}; {path}",
            timeout.as_millis()
        );
        session.execute(&sql).await.map_err(PgError::into_step_error)?;
        Ok(Self { session })
    }

    /// Makes a statement whose effect stays until the end; an error leaves the transaction as it was.
    pub async fn keep(&self, sql: &str) -> Came {
        self.run(sql, "RELEASE SAVEPOINT probe").await
    }

    /// Makes a statement, and takes it back at once.
    pub async fn take_back(&self, sql: &str) -> Came {
        self.run(sql, "ROLLBACK TO SAVEPOINT probe; RELEASE SAVEPOINT probe").await
    }

    async fn run(&self, sql: &str, after: &str) -> Came {
        let begun = Instant::now();
        let result = async {
            self.session.execute("SAVEPOINT probe").await?;
            let result = self.session.simple(sql).await;
            let after = if result.is_err() { "ROLLBACK TO SAVEPOINT probe; RELEASE SAVEPOINT probe" } else { after };
            self.session.execute(after).await?;
            result
        }
        .await;
        let took = begun.elapsed();
        let (answer, rows) = match result {
            Ok(mut rows) => (Answer::fine("it works"), rows.pop()),
            Err(error) => (answer_of(Err(error), ""), None),
        };
        Came { statement: sql.to_owned(), answer, rows, took }
    }

    /// Goes on as a role, until the end.
    pub async fn go_on_as(&self, role: &Role) -> Result<Method, StepError> {
        let name = ident(&role.name)?;
        let came = self.keep(&format!("SET LOCAL SESSION AUTHORIZATION {name}")).await;
        if came.sqlstate().is_none() {
            return Ok(Method::SessionAuthorization);
        }
        let came = self.keep(&format!("SET LOCAL ROLE {name}")).await;
        Ok(if came.sqlstate().is_none() { Method::SetRole } else { Method::Not(came.answer.to_string()) })
    }

    /// Makes a row without triggers and references where the server lets us, so that only what is tried is tried.
    pub async fn plant(&self, sql: &str) -> Came {
        let replica = self.keep("SET LOCAL session_replication_role = replica").await.sqlstate().is_none();
        let came = self.keep(sql).await;
        if replica {
            self.keep("SET LOCAL session_replication_role = origin").await;
        }
        came
    }

    /// Rolls everything back.
    pub async fn end(self) -> Result<(), StepError> {
        self.session.execute("ROLLBACK").await.map_err(PgError::into_step_error)
    }
}
