//! Open incidents of an environment: rows of a query, or a place in a JSON document.
//!
//! Whoever cannot be asked has not said that nothing is open: every answer but a plain one is an error.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use pgrunbook_engine::{Incidents, StepError};
use pgrunbook_postgres::{PgError, Session};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::http::{Request, ask};
use crate::secret::Reference;
use crate::workplace::Workplace;

/// Where open incidents are asked for, as `pgrunbook.toml` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentSource {
    pub place: Where,
    /// How long an answer is waited for.
    pub limit: Duration,
}

/// A database or a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// Each row is an open incident; its first column is shown.
    Sql { target: String, sql: String },
    /// The JSON pointer (RFC 6901) leads to a list of open incidents, their number, or whether there are any.
    Http { url: Reference, headers: BTreeMap<String, Reference>, json: String },
}

impl IncidentSource {
    /// Where `pgrunbook.toml` gives no `timeout`: a status page that takes longer is not there.
    pub const LIMIT: Duration = Duration::from_secs(10);
}

/// A source in an open project.
pub struct Asked {
    pub source: IncidentSource,
    pub workplace: Workplace,
}

#[async_trait]
impl Incidents for Asked {
    fn shown(&self) -> String {
        match &self.source.place {
            Where::Sql { target, .. } => format!("SQL on `{target}`"),
            Where::Http { url, json, .. } => format!("{json} of {}", shown_url(url)),
        }
    }

    async fn open(&self) -> Result<Vec<String>, StepError> {
        let asked = async {
            match &self.source.place {
                Where::Sql { target, sql } => self.rows(target, sql).await,
                Where::Http { url, headers, json } => self.page(url, headers, json).await,
            }
        };
        // Cancellation: a question that is dropped has changed nothing.
        match tokio::time::timeout(self.source.limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(unknown(format!("no answer within {:?}", self.source.limit))),
        }
    }
}

impl Asked {
    async fn rows(&self, target: &str, sql: &str) -> Result<Vec<String>, StepError> {
        let options = self.workplace.postgres(target)?;
        let session = Session::connect(options, "pgrunbook:incidents").await.map_err(PgError::into_step_error)?;
        let limit = self.source.limit.as_millis().max(1);
        // A line break ends a comment, which would swallow what follows.
        let text = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {limit};\n{sql}\n; ROLLBACK");
        let answers = session.simple(&text).await.map_err(PgError::into_step_error)?;
        let answer = answers.into_iter().rev().find(|answer| !answer.columns.is_empty());
        let answer = answer.ok_or_else(|| unknown("the statement is no query: it returns no rows".to_owned()))?;
        let first = |row: Vec<Option<String>>| row.into_iter().next().flatten().unwrap_or_else(|| "(null)".to_owned());
        Ok(answer.rows.into_iter().map(|row| one_line(&first(row))).collect())
    }

    async fn page(
        &self,
        url: &Reference,
        headers: &BTreeMap<String, Reference>,
        json: &str,
    ) -> Result<Vec<String>, StepError> {
        let client = crate::http::client(self.source.limit).map_err(unknown)?;
        let url = self.workplace.secret(url)?;
        let headers = headers.iter().map(|(name, value)| Ok((name.clone(), self.workplace.secret(value)?)));
        let headers = headers.collect::<Result<_, StepError>>()?;
        let answer = ask(&client, &Request { method: Method::GET, url, headers }).await.map_err(unknown)?;
        if answer.status != StatusCode::OK {
            return Err(unknown(format!("status {}", answer.status.as_u16())));
        }
        let value: Value =
            serde_json::from_slice(&answer.body).map_err(|_| unknown("the answer is not JSON".to_owned()))?;
        open_of(value.pointer(json), json).map_err(unknown)
    }
}

/// What a place in a document says of open incidents.
fn open_of(found: Option<&Value>, json: &str) -> Result<Vec<String>, String> {
    match found {
        None => Err(format!("the answer has no {json}")),
        Some(Value::Array(open)) => Ok(open.iter().map(title).collect()),
        Some(Value::Bool(open)) => Ok(if *open { vec![format!("{json} is true")] } else { Vec::new() }),
        Some(Value::Number(number)) => match number.as_u64() {
            Some(0) => Ok(Vec::new()),
            Some(count) => Ok(vec![format!("{json} is {count}")]),
            None => Err(format!("{json} is {number}, which is no number of incidents")),
        },
        Some(other) => {
            Err(format!("{json} is {}, neither a list, a number, true nor false", one_line(&other.to_string())))
        }
    }
}

/// What people call an incident of a list.
fn title(incident: &Value) -> String {
    let named = ["title", "name", "summary", "id"].iter().find_map(|field| incident.get(field)?.as_str());
    match named.or(incident.as_str()) {
        Some(text) => one_line(text),
        None => one_line(&incident.to_string()),
    }
}

/// Characters of an incident that are shown.
const SHOWN_CHARS: usize = 120;

/// A text of strangers as one short line that moves no terminal's cursor.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS).collect();
    if line.len() < text.len() {
        line.push('…');
    }
    line
}

fn unknown(why: String) -> StepError {
    StepError::failed("incidents", why)
}

/// The reference, or a URL without what may be a secret: who asks, and the query.
fn shown_url(url: &Reference) -> String {
    let Reference::Plain(text) = url else { return url.shown() };
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &text[..scheme + 3], &text[at + 1..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_plain_answer_says_that_nothing_is_open() {
        let says = |value: Value| open_of(value.pointer("/open"), "/open");
        let none: Vec<String> = Vec::new();
        for (value, expected) in [
            (json!({ "open": [] }), none.clone()),
            (json!({ "open": 0 }), none.clone()),
            (json!({ "open": false }), none),
            (json!({ "open": 2 }), vec!["/open is 2".to_owned()]),
            (json!({ "open": true }), vec!["/open is true".to_owned()]),
            (
                json!({ "open": [{ "id": "7", "name": "payments" }, "search", { "n": 1 }] }),
                vec!["payments".to_owned(), "search".to_owned(), "{\"n\":1}".to_owned()],
            ),
        ] {
            assert_eq!(says(value.clone()), Ok(expected), "{value}");
        }
        for value in [
            json!({}),
            json!([]),
            json!({ "open": null }),
            json!({ "open": "" }),
            json!({ "open": -1 }),
            json!({ "open": 0.5 }),
            json!({ "open": {} }),
        ] {
            assert!(says(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn words_of_strangers_are_one_short_line() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc"), "a [2Jb c");
        assert_eq!(one_line(&"ä".repeat(200)), format!("{}…", "ä".repeat(120)));
    }

    #[test]
    fn url_is_shown_without_secrets() {
        assert_eq!(shown_url(&Reference::parse("env:STATUS_URL")), "env:STATUS_URL");
        let open = Reference::Plain("https://anna:hunter2@status.example.com/api?key=hunter2".to_owned());
        assert_eq!(shown_url(&open), "https://status.example.com/api");
    }
}
