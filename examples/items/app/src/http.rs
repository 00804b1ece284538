//! What is asked over HTTP, and how it is answered.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use crate::answer::Failure;
use crate::backend::Backend;
use crate::config::{Config, Mode};
use crate::log::Log;
use crate::postgres::Postgres;
use crate::profile::{LIMIT, What, Write, words};

/// Which profile a request is about.
const SOURCE_HEADER: &str = "x-source-id";
const SOURCE_PARAMETER: &str = "source_id";
/// The client's name for a write.
const KEY_HEADER: &str = "idempotency-key";
/// Which backend has answered: on every response, so that a client knows where its write is.
const BACKEND_HEADER: &str = "x-backend";

/// The service.
pub struct App {
    backend: Backend,
    mode: Mode,
    /// Makes sources in PostgreSQL, also while the profiles are still files.
    bootstrap: Option<Postgres>,
    admin_token: Option<String>,
    log: Log,
}

type Answer = Result<Json<Value>, Failure>;

impl App {
    pub fn new(config: &Config, log: Log) -> Self {
        let dsn = config.postgres_dsn.as_ref().or(config.admin_dsn.as_ref());
        Self {
            backend: Backend::new(config),
            mode: config.mode,
            bootstrap: dsn.map(|dsn| Postgres::new(dsn, config)),
            admin_token: config.admin_token.clone(),
            log,
        }
    }
}

/// Everything that the service answers.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/stats", get(stats))
        .route("/items", get(items))
        .route("/items/{id}", get(item))
        .route("/items/{id}/meta", put(meta))
        .route("/items/{id}/notes", get(notes).post(note_new))
        .route("/items/{id}/notes/{note}", put(note_edit).delete(note_delete))
        .route("/edits/{key}", get(edit))
        .route("/admin/bootstrap/schema", post(bootstrap))
        .fallback(async || Failure::NotFound("there is no such path".to_owned()))
        .layer(from_fn_with_state(Arc::clone(&app), logged))
        .with_state(app)
}

async fn logged(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let source = source(request.headers(), request.uri()).ok().flatten();
    let mut response = next.run(request).await;
    let backend = app.mode.backend();
    response.headers_mut().insert(BACKEND_HEADER, HeaderValue::from_static(backend));
    app.log.line(response.status().as_u16(), method.as_str(), &path, source.as_deref(), backend, begun.elapsed());
    response
}

async fn health(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Response {
    let asked = async {
        let source = source(&headers, &uri)?;
        app.backend.health(source.as_deref()).await?;
        Ok(source)
    };
    match asked.await {
        Ok(source) => Json(json!({
            "ok": true, "backend": app.mode.backend(), "source": source, "version": env!("CARGO_PKG_VERSION"),
        }))
        .into_response(),
        Err(failure @ Failure::Unavailable { .. }) => {
            let Failure::Unavailable { why, sqlstate, .. } = failure else {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            };
            let body = json!({ "ok": false, "backend": app.mode.backend(), "error": why, "sqlstate": sqlstate });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
        Err(failure) => failure.into_response(),
    }
}

/// Of the named source; of all if none is named.
async fn stats(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Answer {
    let backend = app.mode.backend();
    if let Some(source) = source(&headers, &uri)? {
        let (items, notes) = app.backend.counts(&source).await?;
        return Ok(Json(json!({ "backend": backend, "source": source, "items": items, "notes": notes })));
    }
    let mut sources = Map::new();
    let (mut all_items, mut all_notes) = (0, 0);
    for source in app.backend.sources().await? {
        let (items, notes) = app.backend.counts(&source).await?;
        (all_items, all_notes) = (all_items + items, all_notes + notes);
        sources.insert(source, json!({ "items": items, "notes": notes }));
    }
    Ok(Json(json!({ "backend": backend, "items": all_items, "notes": all_notes, "sources": sources })))
}

async fn items(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Answer {
    let source = named(&headers, &uri)?;
    let limit = match parameter(&uri, "limit")? {
        None => LIMIT.0,
        Some(text) => match text.parse() {
            Ok(limit) if (1..=LIMIT.1).contains(&limit) => limit,
            _ => return Err(Failure::BadRequest(format!("limit is a number from 1 to {}", LIMIT.1))),
        },
    };
    let query = parameter(&uri, "q")?.unwrap_or_default();
    let words = words(&query);
    // What holds no word finds nothing, and not everything.
    let found = if words.is_empty() && !query.is_empty() {
        Vec::new()
    } else {
        app.backend.items(&source, limit, &words).await?
    };
    Ok(Json(json!({ "source": source, "items": found })))
}

async fn item(State(app): State<Arc<App>>, Path(id): Path<String>, headers: HeaderMap, uri: Uri) -> Answer {
    let source = named(&headers, &uri)?;
    let item = app.backend.item(&source, number(&id)?).await?;
    Ok(Json(json!({ "source": source, "item": item })))
}

async fn notes(State(app): State<Arc<App>>, Path(id): Path<String>, headers: HeaderMap, uri: Uri) -> Answer {
    let source = named(&headers, &uri)?;
    let notes = app.backend.notes(&source, number(&id)?).await?;
    Ok(Json(json!({ "source": source, "notes": notes })))
}

async fn edit(State(app): State<Arc<App>>, Path(key): Path<String>, headers: HeaderMap, uri: Uri) -> Answer {
    let source = named(&headers, &uri)?;
    let edit = app.backend.edit(&source, &key).await?;
    edit.map(Json).ok_or_else(|| Failure::NotFound("nothing was done under this key".to_owned()))
}

async fn meta(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Answer {
    let what = What::Meta(Value::Object(object(&body)?).to_string());
    written(&app, &headers, &uri, &id, what).await
}

async fn note_new(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let fields = object(&body)?;
    let what = What::NoteNew { author: text(&fields, "author")?, body: text(&fields, "body")? };
    let answer = written(&app, &headers, &uri, &id, what).await?;
    Ok((StatusCode::CREATED, answer))
}

async fn note_edit(
    State(app): State<Arc<App>>,
    Path((id, note)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Answer {
    let what = What::NoteEdit { note: number(&note)?, body: text(&object(&body)?, "body")? };
    written(&app, &headers, &uri, &id, what).await
}

async fn note_delete(
    State(app): State<Arc<App>>,
    Path((id, note)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let what = What::NoteDelete { note: number(&note)? };
    written(&app, &headers, &uri, &id, what).await
}

async fn written(app: &App, headers: &HeaderMap, uri: &Uri, id: &str, what: What) -> Answer {
    let source = named(headers, uri)?;
    let key = header(headers, KEY_HEADER)?;
    if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > 200) {
        return Err(Failure::BadRequest("Idempotency-Key has from 1 to 200 characters".to_owned()));
    }
    app.backend.write(&source, Write::new(key, number(id)?, what)).await.map(Json)
}

/// Makes the source of the request in PostgreSQL, in either mode: that is done before the switch.
async fn bootstrap(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Answer {
    let Some(token) = &app.admin_token else {
        return Err(Failure::Forbidden("set ITEMS_ADMIN_TOKEN to allow this".to_owned()));
    };
    let given = header(&headers, "authorization")?;
    if given.as_deref().and_then(|given| given.strip_prefix("Bearer ")).is_none_or(|given| !same(given, token)) {
        return Err(Failure::Forbidden("the administrator's token is missing or wrong".to_owned()));
    }
    let source = named(&headers, &uri)?;
    match &app.bootstrap {
        Some(postgres) => postgres.bootstrap(&source).await.map(Json),
        None => Err(Failure::Forbidden("set ITEMS_POSTGRES_ADMIN_DSN to make sources here".to_owned())),
    }
}

/// Whether two secrets are one; how long it takes tells only their lengths.
fn same(left: &str, right: &str) -> bool {
    left.len() == right.len() && left.bytes().zip(right.bytes()).fold(0, |all, (left, right)| all | (left ^ right)) == 0
}

/// The source that header and parameter name; none if neither does.
fn source(headers: &HeaderMap, uri: &Uri) -> Result<Option<String>, Failure> {
    let chosen = match (header(headers, SOURCE_HEADER)?, parameter(uri, SOURCE_PARAMETER)?) {
        (Some(header), Some(parameter)) if header != parameter => {
            let why = format!("X-Source-ID says {header:?}, and source_id says {parameter:?}");
            return Err(Failure::BadRequest(why));
        }
        (header, parameter) => header.or(parameter),
    };
    match chosen {
        Some(source) if source.is_empty() => Err(Failure::BadRequest("the source is empty".to_owned())),
        chosen => Ok(chosen),
    }
}

/// The same where one must be named: there is no profile that is meant otherwise.
fn named(headers: &HeaderMap, uri: &Uri) -> Result<String, Failure> {
    source(headers, uri)?.ok_or_else(|| Failure::BadRequest("name the source: X-Source-ID or source_id".to_owned()))
}

fn header(headers: &HeaderMap, name: &str) -> Result<Option<String>, Failure> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Failure::BadRequest(format!("{name} is given twice")));
    }
    let text = first.map(|value| value.to_str().map(str::to_owned)).transpose();
    text.map_err(|_| Failure::BadRequest(format!("{name} is no plain text")))
}

/// A parameter of the query, decoded.
fn parameter(uri: &Uri, name: &str) -> Result<Option<String>, Failure> {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut found = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).filter(|(key, _)| *key == name);
    let (first, second) = (found.next(), found.next());
    if second.is_some() {
        return Err(Failure::BadRequest(format!("{name} is given twice")));
    }
    let wrong = || Failure::BadRequest(format!("{name} is not encoded as a URL's parameter"));
    first.map(|(_, value)| decoded(value).ok_or_else(wrong)).transpose()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(rest.next()?)? * 16 + digit(rest.next()?)?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn number(text: &str) -> Result<i64, Failure> {
    text.parse().map_err(|_| Failure::BadRequest(format!("{text:?} is no number")))
}

fn object(body: &Bytes) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Failure::BadRequest("the body is JSON, and no object".to_owned())),
        Err(error) => Err(Failure::BadRequest(format!("the body is no JSON: {error}"))),
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<String, Failure> {
    match fields.get(name).and_then(Value::as_str) {
        // PostgreSQL keeps no NUL in a text, and SQLite must not keep what could not move.
        Some(text) if text.contains('\0') => Err(Failure::BadRequest(format!("{name} holds a NUL"))),
        Some(text) => Ok(text.to_owned()),
        None => Err(Failure::BadRequest(format!("the body has no text {name:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_decoded_or_refused() {
        let read = |query: &str| parameter(&format!("/items?{query}").parse().unwrap(), "q");
        assert_eq!(read("limit=3&q=a+b%C3%A9").unwrap().unwrap(), "a bé");
        assert_eq!(read("limit=3").unwrap(), None);
        for wrong in ["q=%", "q=%4", "q=%zz", "q=%ff", "q=a&q=b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
