//! One request, and what is wrong with its answer.

use std::collections::BTreeMap;

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

/// Bodies are read up to here: a health check that answers more is cut off, and judged by what was read.
const BODY_LIMIT: usize = 1 << 20;

/// What is asked, with secrets resolved.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// What the answer must be.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) status: u16,
    pub(super) body_contains: Option<String>,
    /// JSON pointers (RFC 6901) with the value each must have.
    pub(super) json: BTreeMap<String, Value>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

/// Sends a request. The error is one sentence and holds no header.
pub(crate) async fn ask(client: &Client, request: &Request) -> Result<Answer, String> {
    let mut builder = client.request(request.method.clone(), &request.url);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let mut response = builder.send().await.map_err(|error| cause(&error))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| cause(&error))? {
        let room = BODY_LIMIT - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == BODY_LIMIT {
            break;
        }
    }
    Ok(Answer { status, body })
}

/// The innermost cause, without the URL, which may hold a token.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "no answer in time".to_owned() } else { "the request failed".to_owned() };
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}

/// The first thing that is not as expected.
pub(super) fn fault(answer: &Answer, expected: &Expected) -> Option<String> {
    if answer.status.as_u16() != expected.status {
        return Some(format!("expected status {}, got {}", expected.status, answer.status.as_u16()));
    }
    let text = String::from_utf8_lossy(&answer.body);
    if let Some(part) = &expected.body_contains
        && !text.contains(part)
    {
        return Some(format!("the body does not contain {part:?}"));
    }
    if expected.json.is_empty() {
        return None;
    }
    let Ok(json) = serde_json::from_slice::<Value>(&answer.body) else {
        return Some("the body is not JSON".to_owned());
    };
    expected.json.iter().find_map(|(pointer, wanted)| match json.pointer(pointer) {
        Some(found) if found == wanted => None,
        Some(found) => Some(format!("{pointer} is {found}, expected {wanted}")),
        None => Some(format!("the body has no {pointer}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: &Expected) -> String {
        let answer = Answer { status: StatusCode::from_u16(status).unwrap(), body: body.as_bytes().to_vec() };
        fault(&answer, expected).unwrap_or_default()
    }

    #[test]
    fn an_answer_is_held_against_all_that_is_expected() {
        let json =
            BTreeMap::from([("/keys/0/kid".to_owned(), Value::from("a")), ("/ok".to_owned(), Value::from(true))]);
        let expected = Expected { status: 200, body_contains: Some("kid".to_owned()), json };
        assert_eq!(check(200, r#"{"ok":true,"keys":[{"kid":"a"}]}"#, &expected), "");
        assert_eq!(check(503, "{}", &expected), "expected status 200, got 503");
        assert_eq!(check(200, "{}", &expected), "the body does not contain \"kid\"");
        assert_eq!(check(200, "kid", &expected), "the body is not JSON");
        assert_eq!(check(200, r#"{"kid":1}"#, &expected), "the body has no /keys/0/kid");
        assert_eq!(check(200, r#"{"ok":"true","keys":[{"kid":"a"}]}"#, &expected), "/ok is \"true\", expected true");
    }
}
