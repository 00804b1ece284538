//! The project's channels, as the engine has them told of a run.

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::notice::{Messenger, Notice, Promise};
use pgrunbook_engine::{Direction, Occasion, Plan, Scene};
use reqwest::{Client, Url};
use serde_json::json;

use super::config::{Channel, usual};
use super::error::DeliveryError;
use super::{mail, webhook};
use crate::workplace::Workplace;

/// The addresses that a channel may have.
const WEBHOOK: &str = "webhook";
const SLACK: &str = "slack";
const SMTP: &str = "smtp";

/// Delivers to the channels of a project.
pub struct Channels {
    workplace: Workplace,
    client: OnceLock<Client>,
    timeout: Duration,
}

impl Channels {
    /// The channels of a workplace's project. Reads no secret yet.
    pub fn new(workplace: Workplace) -> Self {
        Self { workplace, client: OnceLock::new(), timeout: webhook::REQUEST_TIMEOUT }
    }

    /// The same with another time for one delivery.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// One notice for each address of a channel, without secrets: what is journaled is what is sent.
    ///
    /// # Errors
    /// If there is no such channel.
    pub fn notices(
        &self,
        channel: &str,
        occasion: Occasion,
        key: &str,
        subject: &str,
        text: &str,
    ) -> Result<Vec<Notice>, String> {
        let (subject, text) = (self.workplace.redact(subject), self.workplace.redact(text));
        let addresses = addresses(self.workplace.notices().channel(channel)?);
        let notice = |address: &str| Notice {
            key: format!("{key}/{channel}/{address}"),
            occasion,
            channel: channel.to_owned(),
            address: address.to_owned(),
            subject: subject.clone(),
            text: text.clone(),
        };
        Ok(addresses.into_iter().map(notice).collect())
    }

    async fn try_once(&self, notice: &Notice) -> Result<String, DeliveryError> {
        let channel = self.workplace.notices().channel(&notice.channel).map_err(DeliveryError::NoAddress)?;
        let Notice { key, subject, text, .. } = notice;
        let reference = match (notice.address.as_str(), channel) {
            (WEBHOOK, Channel { webhook: Some(url), .. }) => url,
            (SLACK, Channel { slack: Some(url), .. }) => url,
            (SMTP, Channel { mail: Some(mail), .. }) => &mail.server,
            (other, _) => {
                let why = format!("channel `{}` has no address `{other}` any more", notice.channel);
                return Err(DeliveryError::NoAddress(why));
            }
        };
        let url = self.workplace.secret(reference).map_err(|error| DeliveryError::NoAddress(error.message))?;
        if let (SMTP, Some(mail)) = (notice.address.as_str(), &channel.mail) {
            // A server may repeat it.
            if let Some(password) = Url::parse(url.trim()).ok().as_ref().and_then(Url::password) {
                self.workplace.learn(password);
            }
            return mail::send(&url, mail, key, subject, text, self.timeout).await;
        }
        let body = match notice.address.as_str() {
            SLACK => webhook::slack(subject, text),
            _ => json!({
                "subject": subject,
                "text": text,
                "run": key.split('/').next(),
                "occasion": notice.occasion,
                "dedupe_key": key,
            }),
        };
        let status = webhook::post(self.client()?, &url, key, &body).await?;
        Ok(format!("it answered {status}"))
    }

    fn client(&self) -> Result<&Client, DeliveryError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let made = crate::http::client(self.timeout).map_err(DeliveryError::Http)?;
        Ok(self.client.get_or_init(|| made))
    }
}

fn addresses(channel: &Channel) -> Vec<&'static str> {
    let Channel { webhook, slack, mail } = channel;
    let all = [(WEBHOOK, webhook.is_some()), (SLACK, slack.is_some()), (SMTP, mail.is_some())];
    all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

#[async_trait]
impl Messenger for Channels {
    fn is_silent(&self) -> bool {
        self.workplace.notices().is_silent()
    }

    fn check(&self, plan: &Plan) -> Result<(), String> {
        for (occasion, wish) in &self.workplace.notices().wishes {
            let direction = match occasion {
                Occasion::Rollback | Occasion::RolledBack => Direction::Back,
                _ => Direction::Forward,
            };
            let promised = self.workplace.notices().promising(direction).map(|_| Timestamp::UNIX_EPOCH);
            let scene = Scene { update_due: promised, ..Scene::of_plan(plan) };
            wish.template
                .render(&scene)
                .map_err(|error| format!("what is told when a run is `{}`: {error}", occasion.word()))?;
        }
        Ok(())
    }

    fn compose(&self, occasion: Occasion, more: Option<&str>, scene: &Scene) -> Vec<Notice> {
        let notices = self.workplace.notices();
        let (channel, template) = match (occasion, notices.wishes.get(&occasion)) {
            (_, Some(wish)) => (&wish.channel, wish.template.clone()),
            (Occasion::Overdue, None) => {
                let back = notices.promising(Direction::Back);
                let promising = back.filter(|_| scene.is_back).or_else(|| notices.promising(Direction::Forward));
                let Some(wish) = promising else { return Vec::new() };
                (&wish.channel, usual(occasion))
            }
            (_, None) => return Vec::new(),
        };
        // The plan was checked; one of a run that began before the project's file was changed may still not fit.
        let rendered = template.render(scene).or_else(|_| usual(occasion).render(scene));
        let Ok((subject, text)) = rendered else { return Vec::new() };
        let more = more.map_or_else(String::new, |more| format!("/{more}"));
        let key = format!("{}/{}{more}", scene.run, occasion.word());
        self.notices(channel, occasion, &key, &subject, &text).unwrap_or_default()
    }

    fn promise(&self, direction: Direction) -> Option<Promise> {
        let wish = self.workplace.notices().promising(direction)?;
        let (every, grace) = wish.updates?;
        Some(Promise { channel: wish.channel.clone(), every, grace })
    }

    async fn deliver(&self, notice: &Notice) -> Result<String, String> {
        fault::pass(Point::BeforeEffect);
        let sent = self.try_once(notice).await;
        fault::pass(Point::AfterEffect);
        sent.map_err(|error| self.workplace.redact(&error.to_string()))
    }
}
