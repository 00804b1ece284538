//! The block: `notify = "begun"`, `channel = "ops"`, `text = "The migration has begun."`.

use std::time::Duration;

use pgrunbook_document::{Block, Diagnostic, FieldSpec, KindSpec, Language};
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::notice::{Messenger, Notice};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Occasion, PlanCx, RunCx, Scene, Step, StepError};
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use super::hand::Words;
use super::messenger::Channels;
use super::webhook;
use crate::registry::{Kind, Skipped, bound_fields, fields};
use crate::secret::Reference;
use crate::workplace::Workplace;

/// Waits between tries: a receiver that restarts is back within these.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// The kind `notify`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "notify",
        language: Language::Toml,
        summary: "Sends a message to a channel or a webhook, with a key by which a second delivery can be told.",
        fields: &[
            FieldSpec {
                name: "channel",
                about: "Where it goes: a `[channels.NAME]` of pgrunbook.toml. This or `url`.",
                required: false,
            },
            FieldSpec {
                name: "url",
                about: "A webhook: `env:`, `file:`, `cmd:`, or a URL without a secret in it. This or `channel`.",
                required: false,
            },
            FieldSpec {
                name: "text",
                about: "What to say; `${variable}` is replaced. This or `template`.",
                required: false,
            },
            FieldSpec { name: "subject", about: "One line above the text.", required: false },
            FieldSpec {
                name: "template",
                about: "What to say: a `[templates.NAME]` of pgrunbook.toml. This or `text`.",
                required: false,
            },
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
        check,
    },
    build,
    undo_by: None,
};

/// Sends a message to a channel or a webhook.
///
/// Effect: idempotent (the dedupe key tells a second delivery). Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Notify {
    #[serde(rename = "notify")]
    _id: String,
    channel: Option<String>,
    url: Option<String>,
    text: Option<String>,
    subject: Option<String>,
    template: Option<String>,
    #[serde(default = "yes")]
    required: bool,
    #[serde(default)]
    rehearse: bool,
}

fn yes() -> bool {
    true
}

enum Receiver {
    Channel(String),
    Webhook(Reference),
}

impl Notify {
    /// Where it goes and what it says.
    fn read(self) -> Result<(Receiver, Words), &'static str> {
        let receiver = match (self.channel, self.url) {
            (Some(channel), None) => Receiver::Channel(channel),
            (None, Some(url)) => Receiver::Webhook(Reference::parse(&url)),
            _ => return Err("it needs a `channel` or a `url`, and not both"),
        };
        let words = match (self.text, self.template, self.subject) {
            (Some(text), None, subject) => Words::Own { subject, text },
            (None, Some(template), None) => Words::Template(template),
            (None, Some(_), Some(_)) => return Err("a template has its own subject"),
            _ => return Err("it needs a `text` or a `template`, and not both"),
        };
        Ok((receiver, words))
    }
}

fn check(block: &Block) -> Result<(), Diagnostic> {
    let fields: Notify = fields(block)?;
    fields.read().map(drop).map_err(|why| Diagnostic::error("bad-value", block.id_span, why))
}

struct Message {
    receiver: Receiver,
    words: Words,
    required: bool,
    client: Client,
    channels: Channels,
    workplace: Workplace,
}

/// One delivery.
enum Errand {
    Notice(Notice),
    Webhook { url: String, key: String, body: Value },
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Notify = bound_fields(block)?;
    if workplace.is_rehearsal() && !fields.rehearse {
        return Ok(Box::new(Skipped(Effect::Idempotent)));
    }
    let timeout = block.timeout.unwrap_or(webhook::REQUEST_TIMEOUT);
    let client = crate::http::client(timeout).map_err(|why| StepError::unusable("http-client", why))?;
    let required = fields.required;
    let unusable = |why| StepError::unusable("bad-value", format!("step `{}`: {why}", block.id));
    let (receiver, words) = fields.read().map_err(unusable)?;
    let channels = Channels::new(workplace.clone()).within(timeout);
    Ok(Box::new(Message { receiver, words, required, client, channels, workplace: workplace.clone() }))
}

impl Step for Message {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let scene = Scene {
                variables: cx.variables.clone(),
                rollback_within: cx.rollback_within,
                rollback_due: cx.rollback_within.map(|_| cx.clock.now()),
                update_due: self.channels.promise(pgrunbook_engine::Direction::Forward).map(|_| cx.clock.now()),
                ..Scene::default()
            };
            // A template that does not fit is said here, and not when it is needed.
            self.words.said(&self.workplace, &scene)?;
            let words = match &self.words {
                Words::Own { text, .. } => format!("{text:?}"),
                Words::Template(name) => format!("template `{name}`"),
            };
            let receiver = match &self.receiver {
                Receiver::Webhook(url) => url.shown(),
                Receiver::Channel(channel) => {
                    self.workplace.notices().channel(channel).map_err(|why| StepError::unusable("channel", why))?;
                    format!("channel `{channel}`")
                }
            };
            Ok(Change { summary: format!("send {words} to {receiver}"), ..Change::default() })
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            // Without the attempt: a second delivery of the same message is the same message.
            let key = format!("{}/{}", cx.run, cx.step);
            let (subject, text) = self.words.said(&self.workplace, cx.scene)?;
            let mut answers = Vec::new();
            let mut tries = 0;
            for errand in self.errands(cx, &key, &subject, &text)? {
                let (delivered, tried) = self.deliver(&errand, cx).await;
                tries += tried;
                match delivered {
                    Ok(answer) => answers.push(answer),
                    Err(why) if self.required => {
                        return Err(StepError::failed(
                            "not-delivered",
                            format!("the message to {} was not delivered: {why}", self.shown(&errand)),
                        )
                        .help("resume tries again; `required = false` lets the run go on without it"));
                    }
                    Err(why) => {
                        let summary = format!("not delivered: {why}; the run goes on, as `required = false` says");
                        return Ok(Evidence::of(summary).fact("dedupe_key", key).fact("delivered", false));
                    }
                }
            }
            let evidence = Evidence::of(format!("sent, {}", answers.join(", ")));
            Ok(evidence.fact("dedupe_key", key).fact("tries", tries))
        })
    }
}

impl Message {
    fn errands(&self, cx: &RunCx<'_>, key: &str, subject: &str, text: &str) -> Result<Vec<Errand>, StepError> {
        match &self.receiver {
            Receiver::Channel(channel) => {
                let notices = self.channels.notices(channel, Occasion::Update, key, subject, text);
                let notices = notices.map_err(|why| StepError::unusable("channel", why))?;
                Ok(notices.into_iter().map(Errand::Notice).collect())
            }
            Receiver::Webhook(url) => {
                let url = self.workplace.secret(url)?;
                let body = json!({
                    "subject": subject, "text": text, "run": cx.run, "step": cx.step.as_str(), "dedupe_key": key,
                });
                Ok(vec![Errand::Webhook { url, key: key.to_owned(), body }])
            }
        }
    }

    /// Tries until it is delivered, a few times. What became of it, and how many tries it took.
    async fn deliver(&self, errand: &Errand, cx: &RunCx<'_>) -> (Result<String, String>, u64) {
        let mut tries = 0;
        let mut pauses = PAUSES.iter();
        loop {
            tries += 1;
            let sent = match errand {
                Errand::Notice(notice) => self.channels.deliver(notice).await,
                Errand::Webhook { url, key, body } => {
                    fault::pass(Point::BeforeEffect);
                    let sent = webhook::post(&self.client, url, key, body).await;
                    fault::pass(Point::AfterEffect);
                    sent.map(|status| format!("it answered {status}")).map_err(|error| error.to_string())
                }
            };
            let why = match sent {
                Ok(answer) => return (Ok(answer), tries),
                Err(why) => why,
            };
            let Some(pause) = pauses.next().filter(|_| !cx.cancel.is_stopping()) else { return (Err(why), tries) };
            cx.say(format!("not delivered: {why}; again in {pause:?}"));
            tokio::select! {
                () = cx.clock.sleep(*pause) => {}
                () = cx.cancel.stopping() => {}
            }
        }
    }

    fn shown(&self, errand: &Errand) -> String {
        match (errand, &self.receiver) {
            (Errand::Notice(notice), _) => format!("channel `{}` ({})", notice.channel, notice.address),
            (Errand::Webhook { .. }, Receiver::Webhook(url)) => url.shown(),
            (Errand::Webhook { .. }, Receiver::Channel(channel)) => format!("channel `{channel}`"),
        }
    }
}
