//! Asks a metric's source for one reading.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use jiff::Timestamp;
use pgrunbook_engine::{Clock, StepError};
use pgrunbook_postgres::{PgError, Session};
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;

use super::declare::{Declared, interval_literal};
use super::limit::{BurnWindow, Reading, burn};
use super::prometheus::{self, Range};
use crate::http::{Request, ask as ask_http};
use crate::secret::Reference;
use crate::topology::ident;
use crate::workplace::Workplace;

/// What a query names its window by.
pub const WINDOW: &str = "$window";

/// No answer is waited for longer than this, and none longer than the interval between two samples.
const LONGEST: Duration = Duration::from_secs(30);

/// Where a number comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A query in a read-only transaction; log tables too.
    Sql { target: String, role: Option<String>, text: String },
    /// A JSON document, by pointers.
    Http {
        url: String,
        headers: BTreeMap<String, Reference>,
        value: String,
        traffic: Option<String>,
        at: Option<String>,
    },
    Prometheus {
        base: String,
        headers: BTreeMap<String, Reference>,
        query: String,
        traffic: Option<String>,
        range: Option<Range>,
    },
}

/// What is made of the answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    Value,
    /// See [`burn`].
    Burn {
        objective: f64,
        pairs: Vec<BurnWindow>,
    },
}

impl Source {
    /// Whether its query asks over a window that is put in.
    pub fn has_window(&self) -> bool {
        match self {
            Self::Sql { text, .. } => text.contains(WINDOW),
            Self::Prometheus { query, .. } => query.contains(WINDOW),
            Self::Http { .. } => false,
        }
    }

    /// The same over one window.
    pub fn over(&self, window: Duration) -> Self {
        // Prometheus takes no fractions of a unit: `300000ms`.
        let promql = || format!("{}ms", window.as_millis());
        match self {
            Self::Sql { target, role, text } => Self::Sql {
                target: target.clone(),
                role: role.clone(),
                text: text.replace(WINDOW, &interval_literal(window)),
            },
            Self::Prometheus { base, headers, query, traffic, range } => Self::Prometheus {
                base: base.clone(),
                headers: headers.clone(),
                query: query.replace(WINDOW, &promql()),
                traffic: traffic.as_ref().map(|query| query.replace(WINDOW, &promql())),
                range: *range,
            },
            http @ Self::Http { .. } => http.clone(),
        }
    }

    /// What is asked, for the plan.
    pub fn shown(&self) -> String {
        match self {
            Self::Sql { target, role, .. } => match role {
                Some(role) => format!("SQL on `{target}` as {role}"),
                None => format!("SQL on `{target}`"),
            },
            Self::Http { url, value, .. } => format!("{value} of {}", without_user(url)),
            Self::Prometheus { base, query, .. } => format!("`{query}` of {}", without_user(base)),
        }
    }
}

/// Why there is no reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoReading {
    /// It may come: the source is down, empty, slow.
    Missing(String),
    /// The question is wrong: the source says so.
    Wrong(String),
}

impl NoReading {
    /// Why, in one sentence.
    pub fn why(&self) -> &str {
        let (Self::Missing(why) | Self::Wrong(why)) = self;
        why
    }
}

fn missing(why: impl Into<String>) -> NoReading {
    NoReading::Missing(why.into())
}

/// Asks sources, within a time.
pub struct Asker<'a> {
    workplace: &'a Workplace,
    /// Set up by the first question that needs it: reading the machine's certificates takes longer than most questions in SQL.
    client: OnceLock<Client>,
    limit: Duration,
    application_name: String,
}

impl<'a> Asker<'a> {
    /// One that waits for no answer longer than `interval`.
    pub fn new(workplace: &'a Workplace, interval: Duration, application_name: &str) -> Self {
        let limit = interval.clamp(Duration::from_secs(1), LONGEST);
        Self { workplace, client: OnceLock::new(), limit, application_name: application_name.to_owned() }
    }

    fn client(&self) -> Result<&Client, NoReading> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = crate::http::client(self.limit).map_err(NoReading::Wrong)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// One reading of a metric.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn reading(&self, metric: &Declared, clock: &dyn Clock) -> Result<Reading, NoReading> {
        let Wanted::Burn { objective, pairs } = &metric.wanted else {
            return self.ask(&metric.source, clock).await;
        };
        let mut ratios = Vec::new();
        let mut least: Option<f64> = None;
        for pair in pairs {
            let mut both = [0.0; 2];
            for (ratio, window) in both.iter_mut().zip([pair.long, pair.short]) {
                let reading = self.ask(&metric.source.over(window), clock).await?;
                *ratio = reading.value;
                // The window with the least traffic says the least.
                least = match (least, reading.traffic) {
                    (Some(least), Some(traffic)) => Some(least.min(traffic)),
                    (least, traffic) => least.or(traffic),
                };
            }
            ratios.push((both[0], both[1]));
        }
        Ok(Reading { value: burn(*objective, pairs, &ratios), traffic: least, age: None })
    }

    async fn ask(&self, source: &Source, clock: &dyn Clock) -> Result<Reading, NoReading> {
        match source {
            Source::Sql { target, role, text } => self.sql(target, role.as_deref(), text).await,
            Source::Http { url, headers, value, traffic, at } => {
                let json = self.json(url.clone(), headers).await?;
                let number = |pointer: &str| match json.pointer(pointer) {
                    None => Err(missing(format!("the answer has no {pointer}"))),
                    Some(found) => found
                        .as_f64()
                        .or_else(|| found.as_str()?.trim().parse().ok())
                        .filter(|number| number.is_finite())
                        .ok_or_else(|| missing(format!("{pointer} is {}, which is no number", short(found)))),
                };
                let age = match at {
                    None => None,
                    Some(pointer) => Some(age(json.pointer(pointer), clock.now()).ok_or_else(|| {
                        missing(format!("{pointer} is no time: a number of seconds since 1970, or RFC 3339"))
                    })?),
                };
                Ok(Reading { value: number(value)?, traffic: traffic.as_deref().map(number).transpose()?, age })
            }
            Source::Prometheus { base, headers, query, traffic, range } => {
                let traffic = match traffic {
                    Some(query) => Some(self.instant(base, headers, query).await?.1),
                    None => None,
                };
                let Some(range) = range else {
                    // Age: Prometheus answers what it scraped within the last five minutes as if it were of now.
                    let (_, value) = self.instant(base, headers, query).await?;
                    return Ok(Reading { value, traffic, age: None });
                };
                // The server's clock names the range, so that ours may be wrong.
                let (now, _) = self.instant(base, headers, "time()").await?;
                let begin = now - range.length.as_secs_f64();
                let parameters = [
                    ("query", query.clone()),
                    ("start", format!("{begin:.3}")),
                    ("end", format!("{now:.3}")),
                    ("step", format!("{}", range.resolution.as_secs_f64())),
                ];
                let answer = self.json(prometheus_url(base, "query_range", &parameters)?, headers).await?;
                let (at, value) = prometheus::range(&answer, range).map_err(missing)?;
                Ok(Reading { value, traffic, age: Some(now - at) })
            }
        }
    }

    async fn instant(
        &self,
        base: &str,
        headers: &BTreeMap<String, Reference>,
        query: &str,
    ) -> Result<prometheus::Point, NoReading> {
        let url = prometheus_url(base, "query", &[("query", query.to_owned())])?;
        let answer = self.json(url, headers).await?;
        prometheus::instant(&answer).map_err(missing)
    }

    async fn json(&self, url: String, headers: &BTreeMap<String, Reference>) -> Result<Value, NoReading> {
        let headers = headers.iter().map(|(name, value)| Ok((name.clone(), self.workplace.secret(value)?)));
        let headers = headers.collect::<Result<_, StepError>>().map_err(|error| NoReading::Wrong(error.message))?;
        let answer = ask_http(self.client()?, &Request { method: Method::GET, url, headers }).await.map_err(missing)?;
        let json = serde_json::from_slice::<Value>(&answer.body).ok();
        match answer.status {
            StatusCode::OK => json.ok_or_else(|| missing("the answer is not JSON")),
            // Prometheus says with these what is wrong with the query.
            status @ (StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::NOT_FOUND) => {
                let why = json.and_then(|json| json["error"].as_str().map(str::to_owned)).unwrap_or_default();
                Err(NoReading::Wrong(format!("status {} {why}", status.as_u16()).trim().to_owned()))
            }
            status => Err(missing(format!("status {}", status.as_u16()))),
        }
    }

    /// One row; columns `value` (or the first), `traffic` and `age` (seconds).
    async fn sql(&self, target: &str, role: Option<&str>, text: &str) -> Result<Reading, NoReading> {
        let down = |error: StepError| missing(error.message);
        let loan = self.workplace.session(target, &self.application_name).await.map_err(down)?;
        let reused = loan.reused;
        match self.query(&loan, role, text).await {
            // The server closed it since the sample before: that says nothing about this one.
            Err(PgError::Lost { .. }) if reused => {
                drop(loan);
                let fresh = self.workplace.session(target, &self.application_name).await.map_err(down)?;
                let answer = self.query(&fresh, role, text).await;
                self.workplace.give_back(fresh).await;
                reading_of(answer)
            }
            answer => {
                self.workplace.give_back(loan).await;
                reading_of(answer)
            }
        }
    }

    async fn query(&self, session: &Session, role: Option<&str>, text: &str) -> Result<Row, PgError> {
        let role = role.map(|role| format!("SET LOCAL ROLE {};", ident(role))).unwrap_or_default();
        let limit = self.limit.as_millis();
        // A line break ends a comment, which would swallow what follows.
        let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}; {role}\n{text}\n; ROLLBACK");
        let answered = session.simple(&begin).await;
        if answered.is_err() && !session.is_closed() {
            session.execute("ROLLBACK").await?;
        }
        let answer = answered?.into_iter().rev().find(|answer| !answer.columns.is_empty()).unwrap_or_default();
        let count = answer.rows.len();
        let row = answer.rows.into_iter().next().unwrap_or_default();
        Ok(Row { count, columns: answer.columns, row })
    }
}

struct Row {
    count: usize,
    columns: Vec<String>,
    row: Vec<Option<String>>,
}

fn reading_of(answer: Result<Row, PgError>) -> Result<Reading, NoReading> {
    let row = match answer {
        Ok(row) => row,
        // Cancelled by the limit, a server that goes down, resources: it may come. What else the server says of the
        // statement it will say again.
        Err(PgError::Server(error)) if matches!(error.sqlstate.get(..2), Some("57" | "53" | "08" | "40" | "55")) => {
            return Err(missing(error.message));
        }
        Err(PgError::Server(error)) => {
            return Err(NoReading::Wrong(format!("{} ({})", error.message, error.sqlstate)));
        }
        Err(error) => return Err(missing(error.to_string())),
    };
    match row.count {
        0 => return Err(missing("no row")),
        1 => {}
        many => return Err(NoReading::Wrong(format!("{many} rows, and one is wanted"))),
    }
    let column = |name: &str| row.columns.iter().position(|column| column == name);
    let number = |at: usize| match row.row.get(at).and_then(Option::as_deref) {
        None => Err(missing(format!("{} is NULL", row.columns[at]))),
        Some(text) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(missing(format!("{} is {text}, which is no number", row.columns[at]))),
        },
    };
    let value = number(column("value").unwrap_or(0))?;
    // Without a row there is no newest one.
    let optional = |name: &str| column(name).map(number).and_then(Result::ok);
    Ok(Reading { value, traffic: optional("traffic"), age: optional("age") })
}

fn prometheus_url(base: &str, what: &str, parameters: &[(&str, String)]) -> Result<String, NoReading> {
    Url::parse_with_params(&format!("{base}/api/v1/{what}"), parameters)
        .map(String::from)
        .map_err(|error| NoReading::Wrong(format!("{} is no base URL: {error}", without_user(base))))
}

/// A URL without who asks: a password may be in it.
fn without_user(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
        _ => url.to_owned(),
    }
}

/// How old a time is, in seconds.
fn age(at: Option<&Value>, now: Timestamp) -> Option<f64> {
    let now = now.as_nanosecond() as f64 / 1e9;
    let at = match at? {
        Value::String(text) => text.parse::<Timestamp>().ok()?.as_nanosecond() as f64 / 1e9,
        number => number.as_f64()?,
    };
    // Milliseconds since 1970 are what many write: no time before the year 5138 is as large in seconds.
    Some(now - if at > 1e11 { at / 1e3 } else { at })
}

/// A value that a message shows.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_read_of_seconds_milliseconds_and_texts() {
        let now: Timestamp = "2026-11-21T10:00:10Z".parse().unwrap();
        let of = |value: Value| age(Some(&value), now).map(f64::round);
        assert_eq!(of("2026-11-21T10:00:00Z".into()), Some(10.0));
        assert_eq!(of((now.as_second() - 5).into()), Some(5.0));
        assert_eq!(of((now.as_millisecond() - 5_000).into()), Some(5.0));
        assert_eq!(of("yesterday".into()), None);
        assert_eq!(age(None, now), None);
    }

    #[test]
    fn url_is_shown_without_its_password() {
        assert_eq!(without_user("http://me:secret@prom:9090/x"), "http://prom:9090/x");
        assert_eq!(without_user("http://prom:9090"), "http://prom:9090");
    }

    #[test]
    fn window_is_put_in_as_each_language_writes_it() {
        let sql = Source::Sql { target: "main".to_owned(), role: None, text: "SELECT $window::interval".to_owned() };
        let Source::Sql { text, .. } = sql.over(Duration::from_secs(300)) else { panic!() };
        assert_eq!(text, "SELECT '300 seconds'::interval");
        let prometheus = Source::Prometheus {
            base: String::new(),
            headers: BTreeMap::new(),
            query: "rate(x[$window])".to_owned(),
            traffic: None,
            range: None,
        };
        let Source::Prometheus { query, .. } = prometheus.over(Duration::from_secs(300)) else { panic!() };
        assert_eq!(query, "rate(x[300000ms])");
    }
}
