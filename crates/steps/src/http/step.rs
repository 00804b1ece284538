//! The block: `http = "healthy"`, `target = "app"`, `get = "/health"`, `expect_status = 200`, `within = "30s every 1s"`.

use std::collections::BTreeMap;
use std::time::Duration;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language, Within, parse_within};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::Value;

use crate::http::answer::{Answer, Expected, Request, ask, fault};
use crate::registry::{Kind, Skipped, bound_fields, fields};
use crate::secret::Reference;
use crate::workplace::{Place, Workplace};

/// For one request, where the step gives no `timeout`: a health check that takes longer is not healthy.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The kind `http`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "http",
        language: Language::Toml,
        summary: "Asks an HTTP endpoint and holds its answer against what is expected.",
        fields: &[
            FieldSpec {
                name: "target",
                about: "An HTTP base URL, below which `get` or `head` is; not needed where that is a whole URL.",
                required: false,
            },
            FieldSpec { name: "get", about: "Path below the target's base, or a whole URL.", required: false },
            FieldSpec { name: "head", about: "The same, asked with HEAD.", required: false },
            FieldSpec {
                name: "headers",
                about: "Headers to send; values may be `env:`, `file:`, `cmd:`.",
                required: false,
            },
            FieldSpec { name: "expect_status", about: "The status; 200 if nothing is said.", required: false },
            FieldSpec { name: "expect_body", about: "A text that the body contains.", required: false },
            FieldSpec { name: "expect_json", about: "JSON pointers with the value each must have.", required: false },
            FieldSpec { name: "within", about: "Try again until it holds: `30s every 1s`.", required: false },
            FieldSpec {
                name: "rehearse",
                about: "Whether a rehearsal asks too; else it is skipped there.",
                required: false,
            },
        ],
        needs_target: false,
        changes: false,
        undo_words: &[],
        check: |block| fields::<Http>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Asks an HTTP endpoint and holds its answer against what is expected.
///
/// Effect: idempotent (it only looks). Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    http: String,
    get: Option<String>,
    head: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default = "ok")]
    expect_status: u16,
    expect_body: Option<String>,
    #[serde(default)]
    expect_json: BTreeMap<String, Value>,
    within: Option<String>,
    #[serde(default)]
    rehearse: bool,
}

fn ok() -> u16 {
    200
}

/// The step with its address worked out.
struct Check {
    method: Method,
    url: String,
    headers: BTreeMap<String, Reference>,
    expected: Expected,
    within: Option<Within>,
    client: Client,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Http = bound_fields(block)?;
    let wrong = |what: &str| StepError::unusable("bad-value", format!("step `{}`: {what}", fields.http));
    let (method, path) = match (&fields.get, &fields.head) {
        (Some(path), None) => (Method::GET, path),
        (None, Some(path)) => (Method::HEAD, path),
        _ => return Err(wrong("write either `get` or `head`")),
    };
    let url = if path.starts_with("http://") || path.starts_with("https://") {
        path.clone()
    } else {
        let target = block.target.as_ref().ok_or_else(|| wrong("name a `target`, or write the whole URL"))?;
        match workplace.place(&target.value)? {
            Place::Http { base } => format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/')),
            _ => return Err(wrong("its target is no HTTP base URL")),
        }
    };
    let within = match &fields.within {
        Some(text) => Some(parse_within(text).ok_or_else(|| wrong("write `within = \"30s every 1s\"`"))?),
        None => None,
    };
    if workplace.is_rehearsal() && !fields.rehearse {
        return Ok(Box::new(Skipped(Effect::Idempotent)));
    }
    let client = super::client(block.timeout.unwrap_or(REQUEST_TIMEOUT))
        .map_err(|why| StepError::unusable("http-client", why))?;
    let headers = fields.headers.into_iter().map(|(name, value)| (name, Reference::parse(&value))).collect();
    let expected =
        Expected { status: fields.expect_status, body_contains: fields.expect_body, json: fields.expect_json };
    Ok(Box::new(Check { method, url, headers, expected, within, client, workplace: workplace.clone() }))
}

impl Step for Check {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let summary = format!("{} {} must answer {}", self.method, self.url, self.expected.status);
            Ok(Change { summary, ..Change::default() })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            let headers = self.headers.iter().map(|(name, value)| Ok((name.clone(), self.workplace.secret(value)?)));
            let headers = headers.collect::<Result<_, StepError>>()?;
            let request = Request { method: self.method.clone(), url: self.url.clone(), headers };
            let begin = cx.clock.instant();
            let mut tries = 0u64;
            loop {
                tries += 1;
                let answer = ask(&self.client, &request).await;
                let why = match &answer {
                    Ok(answer) => fault(answer, &self.expected),
                    Err(why) => Some(why.clone()),
                };
                let Some(why) = why else { return Ok(self.evidence(answer.as_ref().ok(), "as expected", tries)) };
                let again = self.within.filter(|within| cx.clock.instant() - begin + within.every <= within.limit);
                let Some(within) = again.filter(|_| !cx.cancel.is_stopping()) else {
                    let evidence = self.evidence(answer.as_ref().ok(), &why, tries);
                    return Err(
                        StepError::failed("gate", format!("{} {}: {why}", self.method, self.url)).evidence(evidence)
                    );
                };
                cx.say(format!("{why}; again in {:?}", within.every));
                tokio::select! {
                    () = cx.clock.sleep(within.every) => {}
                    () = cx.cancel.stopping() => {}
                }
            }
        })
    }
}

impl Check {
    fn evidence(&self, answer: Option<&Answer>, verdict: &str, tries: u64) -> Evidence {
        let evidence = Evidence::of(format!("{} {}: {verdict}", self.method, self.url)).fact("tries", tries);
        match answer {
            Some(answer) => {
                evidence.fact("status", answer.status.as_u16()).fact("body_bytes", answer.body.len() as u64)
            }
            None => evidence,
        }
    }
}
