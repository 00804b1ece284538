//! The block: `notify = "begun"`, `url = "env:CHAT_WEBHOOK"`, `text = "The migration has begun."`.

use std::time::Duration;

use async_trait::async_trait;
use pgrunbook_document::{Block, FieldSpec, KindSpec, Language};
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::{Change, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use reqwest::Client;
use serde::Deserialize;
use serde_json::json;

use crate::registry::{Kind, Skipped, bound_fields, fields};
use crate::secret::Reference;
use crate::workplace::Workplace;

/// For one delivery.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits between tries: a receiver that restarts is back within these.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// The kind `notify`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "notify",
        language: Language::Toml,
        summary: "Sends a message to a webhook, with a key by which a second delivery can be told.",
        fields: &[
            FieldSpec {
                name: "url",
                about: "The webhook: `env:`, `file:`, `cmd:`, or a URL without a secret in it.",
                required: true,
            },
            FieldSpec { name: "text", about: "What to say; `${variable}` is replaced.", required: true },
            FieldSpec {
                name: "required",
                about: "Whether the run stops if it cannot be delivered; true if nothing is said.",
                required: false,
            },
            FieldSpec {
                name: "rehearse",
                about: "Whether a rehearsal sends too; else it is skipped there.",
                required: false,
            },
        ],
        needs_target: false,
        changes: false,
        undo_words: &[],
        check: |block| fields::<Notify>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Sends a message to a webhook.
///
/// Effect: idempotent (the dedupe key tells a second delivery). Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Notify {
    #[serde(rename = "notify")]
    _id: String,
    url: String,
    text: String,
    #[serde(default = "yes")]
    required: bool,
    #[serde(default)]
    rehearse: bool,
}

fn yes() -> bool {
    true
}

struct Message {
    url: Reference,
    text: String,
    required: bool,
    client: Client,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Notify = bound_fields(block)?;
    if workplace.is_rehearsal() && !fields.rehearse {
        return Ok(Box::new(Skipped(Effect::Idempotent)));
    }
    let client = Client::builder()
        .timeout(block.timeout.unwrap_or(REQUEST_TIMEOUT))
        .build()
        .map_err(|error| StepError::unusable("http-client", format!("HTTP cannot be set up: {error}")))?;
    let url = Reference::parse(&fields.url);
    Ok(Box::new(Message { url, text: fields.text, required: fields.required, client, workplace: workplace.clone() }))
}

#[async_trait]
impl Step for Message {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    async fn plan(&self, _cx: &PlanCx<'_>) -> Result<Change, StepError> {
        Ok(Change { summary: format!("send {:?} to {}", self.text, self.url.shown()), ..Change::default() })
    }

    async fn apply(&self, cx: &mut RunCx<'_>) -> Result<Evidence, StepError> {
        let url = self.workplace.secret(&self.url)?;
        // Without the attempt: a second delivery of the same message is the same message.
        let key = format!("{}/{}", cx.run, cx.step);
        let body = json!({ "text": self.text, "run": cx.run, "step": cx.step.as_str(), "dedupe_key": key });
        let mut why = String::new();
        for (number, pause) in PAUSES.iter().map(Some).chain([None]).enumerate() {
            fault::pass(Point::BeforeEffect);
            let request =
                self.client.post(&url).header("Idempotency-Key", &key).header("Content-Type", "application/json");
            let sent = request.body(body.to_string()).send().await;
            fault::pass(Point::AfterEffect);
            let tries = number as u64 + 1;
            why = match sent {
                Ok(response) if response.status().is_success() => {
                    let status = response.status().as_u16();
                    let evidence = Evidence::of(format!("sent, answered {status}"));
                    return Ok(evidence.fact("dedupe_key", key).fact("status", status).fact("tries", tries));
                }
                Ok(response) => format!("it answered {}", response.status().as_u16()),
                Err(error) => crate::http::cause(&error),
            };
            let Some(pause) = pause.filter(|_| !cx.cancel.is_stopping()) else { break };
            cx.say(format!("not delivered: {why}; again in {pause:?}"));
            tokio::select! {
                () = cx.clock.sleep(*pause) => {}
                () = cx.cancel.stopping() => {}
            }
        }
        if self.required {
            return Err(StepError::failed(
                "not-delivered",
                format!("the message to {} was not delivered: {why}", self.url.shown()),
            )
            .help("resume tries again; `required = false` lets the run go on without it"));
        }
        Ok(Evidence::of(format!("not delivered: {why}; the run goes on, as `required = false` says"))
            .fact("dedupe_key", key)
            .fact("delivered", false))
    }
}
