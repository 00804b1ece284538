//! What a request ends with.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Seconds after which a client may try again what could not be done now.
const RETRY_AFTER: &str = "1";

/// Why a request was not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The request is wrong, and will be tomorrow.
    BadRequest(String),
    Forbidden(String),
    NotFound(String),
    Conflict(String),
    /// Nothing is wrong with the request: the database takes no writes now, or cannot be reached.
    Unavailable {
        why: String,
        sqlstate: Option<String>,
        /// The connection was lost while the commit was on its way: whether it happened only the database knows. Sending
        /// the write again with the same key is safe.
        outcome_unknown: bool,
    },
    Internal(String),
}

impl Failure {
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::Unavailable { why: why.into(), sqlstate: None, outcome_unknown: false }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.status();
        match self {
            Self::BadRequest(why)
            | Self::Forbidden(why)
            | Self::NotFound(why)
            | Self::Conflict(why)
            | Self::Internal(why) => (status, Json(json!({ "ok": false, "error": why }))).into_response(),
            Self::Unavailable { why, sqlstate, outcome_unknown } => {
                let mut body = json!({ "ok": false, "error": why, "retry": true });
                if let Some(sqlstate) = sqlstate {
                    body["sqlstate"] = sqlstate.into();
                }
                if outcome_unknown {
                    body["outcome"] = "unknown".into();
                }
                let mut response = (status, Json(body)).into_response();
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
                response
            }
        }
    }
}

/// A moment as every answer spells it, whatever spelling the database keeps.
pub fn moment(text: &str) -> Value {
    // SQLite keeps what it was given: with `T` or a blank, with a zone or without one (which then is UTC).
    let zoned = text.replacen(' ', "T", 1);
    let parsed = zoned.parse::<jiff::Timestamp>().or_else(|_| format!("{zoned}Z").parse());
    parsed.map_or_else(|_| text.into(), |moment| moment.to_string().into())
}

/// Now, to the millisecond, which both databases keep exactly.
pub fn now() -> String {
    let now = jiff::Timestamp::now();
    let now = now.round(jiff::Unit::Millisecond).unwrap_or(now);
    format!("{now:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_spelled_in_one_way() {
        for text in ["2026-01-02T03:04:05.500Z", "2026-01-02 03:04:05.5", "2026-01-02T03:04:05.5+00:00"] {
            assert_eq!(moment(text), "2026-01-02T03:04:05.5Z", "{text}");
        }
        assert_eq!(moment("soon"), "soon", "what is none is shown as it is");
        assert!(now().ends_with('Z') && now().len() == 24, "{}", now());
    }
}
