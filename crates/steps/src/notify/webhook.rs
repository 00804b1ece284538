//! Webhooks: JSON with a key by which a second delivery can be told, and Slack's incoming webhooks.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};

use super::error::DeliveryError;

/// For one delivery, if nothing else is said.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters of a text that Slack takes: <https://docs.slack.dev/changelog/2018-truncating-really-long-messages>.
const SLACK_CHARS: usize = 40_000;

/// Posts JSON. The key is a header too, so that whoever stands in front of the receiver can tell a second delivery.
pub(super) async fn post(client: &Client, url: &str, key: &str, body: &Value) -> Result<u16, DeliveryError> {
    // A step's name may hold the value of a variable.
    let plain: String = key.chars().map(|c| if c.is_ascii_graphic() { c } else { '-' }).collect();
    let request = client.post(url).header("Idempotency-Key", plain).header("Content-Type", "application/json");
    match request.body(body.to_string()).send().await {
        Ok(response) if response.status().is_success() => Ok(response.status().as_u16()),
        Ok(response) => Err(DeliveryError::Status(response.status().as_u16())),
        Err(error) => Err(DeliveryError::Http(crate::http::cause(&error))),
    }
}

/// The body of Slack's incoming webhooks: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>.
pub(super) fn slack(subject: &str, text: &str) -> Value {
    let said = match subject {
        "" => mrkdwn(text),
        subject => format!("*{}*\n{}", mrkdwn(subject), mrkdwn(text)),
    };
    json!({ "text": said.chars().take(SLACK_CHARS).collect::<String>() })
}

/// Slack's three control characters; `<!channel>` in a value calls nobody.
fn mrkdwn(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_is_told_nothing_but_text() {
        let body = slack("[ROLLBACK] a & b", "<!channel> now");
        assert_eq!(body["text"], "*[ROLLBACK] a &amp; b*\n&lt;!channel&gt; now");
    }
}
