//! `/guard`: the guard's check as an answer of HTTP. `/health` and `/metrics` beside it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use pgrunbook_guard::{Guard, GuardError, Outcome, Source};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::metrics::Metrics;
use crate::pool::{Database, Databases};

/// What is answered.
pub const PATHS: &str = "/guard?app_version=VERSION[&target=NAME][&environment=NAME], /health, /metrics";

/// How a request is written.
const USAGE: &str = "GET /guard?app_version=1.4.0, with &target=NAME and &environment=NAME where there are several";

/// Everything that checks need.
#[derive(Debug)]
pub struct Guarding {
    /// Where each database says its version.
    source: Source,
    databases: Databases,
    /// The deadline of a request: waiting for a connection, connecting and the query.
    answer_within: Duration,
    /// Skip every check, as `SKIP_SCHEMA_GUARD=true` does.
    skip: bool,
    metrics: Metrics,
}

impl Guarding {
    /// What is asked of `databases`, with this deadline for each request.
    ///
    /// `skip` is what the variable `SKIP_SCHEMA_GUARD` holds: `true` answers every check without asking, loudly.
    ///
    /// # Errors
    /// [`GuardError::Skip`], if it holds anything else than `true`, `false` or nothing.
    pub fn new(
        source: Source,
        databases: Databases,
        answer_within: Duration,
        skip: Option<&str>,
    ) -> Result<Self, GuardError> {
        // Any version will do: both kinds of source can read this one.
        Guard::new("1.0.0", source.clone())?.skip(skip)?;
        Ok(Self { source, databases, answer_within, skip: skip == Some("true"), metrics: Metrics::default() })
    }

    /// The deadline of a request.
    pub fn answer_within(&self) -> Duration {
        self.answer_within
    }

    /// What is answered where.
    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/guard", get(guard))
            .route("/health", get(async || answer(StatusCode::OK, json!({ "type": "health", "status": "up" }))))
            .route("/metrics", get(metrics))
            .fallback(async || {
                answer(StatusCode::NOT_FOUND, trouble("path", "there is nothing here", &format!("there is {PATHS}")))
            })
            .method_not_allowed_fallback(async || {
                answer(StatusCode::METHOD_NOT_ALLOWED, trouble("method", "only GET is answered", USAGE))
            })
            .with_state(Arc::new(self))
    }

    /// Which database a request is about; else what is wrong with the request.
    fn database(&self, asked: &Asked) -> Result<(&str, &str, &Database), Value> {
        let environments = &self.databases.environments;
        let known = || environments.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let Some(environment) = asked.environment.as_ref().or(self.databases.default.as_ref()) else {
            let help = format!("name one with &environment=: {}", known());
            return Err(trouble("environment", "there are several environments, and none was named", &help));
        };
        let Some((environment, targets)) = environments.get_key_value(environment) else {
            let message = format!("there is no environment `{environment}`");
            return Err(trouble("environment", &message, &format!("there is {}", known())));
        };
        let target = asked.target.as_deref().unwrap_or("main");
        let Some((target, database)) = targets.get_key_value(target) else {
            let message = format!("environment {environment} has no PostgreSQL target `{target}`");
            let names: Vec<_> = targets.keys().map(String::as_str).collect();
            let help = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
            return Err(trouble("no-target", &message, &help));
        };
        Ok((environment, target, database))
    }

    async fn check(&self, app_version: &str, mut database: &Database) -> Result<Outcome, GuardError> {
        // Nobody is kept waiting for migrations: whoever asks over HTTP can ask again.
        let guard = Guard::new(app_version, self.source.clone())?.wait(Duration::ZERO);
        let guard = guard.answer_within(self.answer_within).skip(self.skip.then_some("true"))?;
        guard.check(&mut database).await
    }
}

/// A request's query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    app_version: String,
    target: Option<String>,
    environment: Option<String>,
}

async fn guard(State(guarding): State<Arc<Guarding>>, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    let unclear = |value: Value| {
        guarding.metrics.unclear();
        answer(StatusCode::BAD_REQUEST, value)
    };
    let Query(asked) = match asked {
        Ok(asked) => asked,
        Err(rejection) => return unclear(trouble("query", &rejection.body_text(), USAGE)),
    };
    let (environment, target, database) = match guarding.database(&asked) {
        Ok(found) => found,
        Err(value) => return unclear(value),
    };
    let place = |mut value: Value| {
        value["environment"] = environment.into();
        value["target"] = target.into();
        value
    };
    // A version that is none is the request's fault, whatever the database says.
    if let Err(error) = Guard::new(&asked.app_version, guarding.source.clone()) {
        let mut help = error.remedy();
        if asked.app_version.contains(' ') {
            help = "a `+` is written %2B in a query (1.4.0%2Blinux)".to_owned();
        }
        return unclear(place(trouble(error.code(), &error.what(), &help)));
    }
    if let (Some(why), false) = (database.unusable(), guarding.skip) {
        guarding.metrics.checked(environment, target, "no-value");
        let help = "set it where the server is started, and start it again";
        let value = trouble("no-value", &format!("target `{target}`: {why}"), help);
        return answer(StatusCode::SERVICE_UNAVAILABLE, place(value));
    }
    match guarding.check(&asked.app_version, database).await {
        Ok(outcome) => {
            guarding.metrics.checked(environment, target, outcome.code());
            answer(StatusCode::OK, place(shown(&outcome)))
        }
        Err(error) => {
            guarding.metrics.checked(environment, target, error.code());
            answer(status(&error), place(trouble(error.code(), &error.what(), &error.remedy())))
        }
    }
}

/// 409: the database was read, and the application does not fit. 503: nobody can tell, or the database does not say.
fn status(error: &GuardError) -> StatusCode {
    match error {
        GuardError::AppVersion { .. } => StatusCode::BAD_REQUEST,
        GuardError::ApplicationNewer { .. }
        | GuardError::MajorsDiffer { .. }
        | GuardError::Unfinished { .. }
        | GuardError::Missing { .. }
        | GuardError::StillMigrating { .. } => StatusCode::CONFLICT,
        GuardError::Skip { .. }
        | GuardError::Unreachable { .. }
        | GuardError::Login { .. }
        | GuardError::Unanswered { .. }
        | GuardError::NoTable { .. }
        | GuardError::NoRow { .. }
        | GuardError::Malformed { .. }
        | GuardError::Denied { .. }
        | GuardError::Server { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn metrics(State(guarding): State<Arc<Guarding>>) -> Response {
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([kind], guarding.metrics.prometheus(guarding.skip)).into_response()
}

/// The keys that a failure has in `--format json`.
fn trouble(code: &str, message: &str, help: &str) -> Value {
    json!({ "type": "error", "code": code, "message": message, "help": help })
}

/// True now, and perhaps not in a second.
fn answer(status: StatusCode, value: Value) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(value)).into_response()
}

/// What a check came to, as one JSON object; version 1.
pub fn shown(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Bypassed(bypassed) => {
            json!({ "type": "guard", "outcome": outcome.code(), "app": bypassed.app })
        }
        Outcome::Compatible(fits) => json!({
            "type": "guard",
            "outcome": outcome.code(),
            "app": fits.app,
            "database": fits.stored.version,
            "migration": fits.stored.migration,
            "timestamp": fits.stored.timestamp,
            "waited_ms": fits.waited.as_millis() as u64,
        }),
    }
}
