//! Mail by SMTP. `smtp://` encrypts with STARTTLS or says nothing; `smtps://` is encrypted from its first byte.

use std::time::Duration;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::Error as SmtpError;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use reqwest::Url;

use super::config::Mail;
use super::error::DeliveryError;

/// What stands in the project's environment to send in the clear, to a server on this machine or in a trusted net.
const IN_THE_CLEAR: &str = "tls=none";

/// Sends a mail to all its receivers. Returns what the server answered.
///
/// `url`: `smtp://[user:password@]host[:port][?tls=none]` or `smtps://...`.
pub(super) async fn send(
    url: &str,
    mail: &Mail,
    key: &str,
    subject: &str,
    text: &str,
    timeout: Duration,
) -> Result<String, DeliveryError> {
    let message = message(mail, key, subject, text)?;
    let url = server(url)?;
    // A URL that cannot be understood is not repeated: it holds the password.
    let transport =
        AsyncSmtpTransport::<Tokio1Executor>::from_url(&url).map_err(|_| DeliveryError::Url("it is none"))?;
    let answer = transport.timeout(Some(timeout)).build().send(message).await.map_err(|error| refusal(&error))?;
    Ok(format!("it answered {}", answer.code()))
}

/// The URL as the mail library reads it: without a word about TLS it would send in the clear.
fn server(text: &str) -> Result<String, DeliveryError> {
    let mut url = Url::parse(text.trim()).map_err(|_| DeliveryError::Url("it is none"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(DeliveryError::Url("it names no host"));
    }
    match (url.scheme(), url.query()) {
        ("smtps", None) => {}
        ("smtp", None) => url.set_query(Some("tls=required")),
        ("smtp", Some(IN_THE_CLEAR)) if url.password().is_some() => {
            return Err(DeliveryError::Url("it sends a password in the clear"));
        }
        ("smtp", Some(IN_THE_CLEAR)) => url.set_query(None),
        ("smtp" | "smtps", Some(_)) => return Err(DeliveryError::Url("behind `?` may only stand `tls=none`")),
        _ => return Err(DeliveryError::Url("it must begin with smtp:// or smtps://")),
    }
    Ok(url.into())
}

fn message(mail: &Mail, key: &str, subject: &str, text: &str) -> Result<Message, DeliveryError> {
    let wrong = |error: lettre::error::Error| DeliveryError::Mail(error.to_string());
    let mut message = Message::builder().from(mail.from.clone()).subject(subject).message_id(Some(message_id(key)));
    for to in &mail.to {
        message = message.to(to.clone());
    }
    let header =
        |name: &'static str, value: &str| HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned());
    message
        // No answer of a machine to a machine: RFC 3834, section 5.
        .raw_header(header("Auto-Submitted", "auto-generated"))
        .header(ContentType::TEXT_PLAIN)
        .body(text.to_owned())
        .map_err(wrong)
}

/// The same for every delivery of a notice: readers of mail show it once. Of the characters that RFC 5322 allows.
fn message_id(key: &str) -> String {
    let plain: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("<{plain}@pgrunbook>")
}

fn refusal(error: &SmtpError) -> DeliveryError {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        why = inner.to_string();
        source = inner.source();
    }
    match error.status() {
        Some(code) => DeliveryError::Refused(format!("{code} {why}")),
        None if error.is_timeout() => DeliveryError::Smtp("no answer in time".to_owned()),
        None => DeliveryError::Smtp(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_is_encrypted_unless_the_url_says_otherwise_and_a_password_always() {
        let read = |url: &str| server(url).map_err(|error| error.to_string());
        assert_eq!(read("smtp://u:p@mail:25").unwrap(), "smtp://u:p@mail:25?tls=required");
        assert_eq!(read("smtps://mail").unwrap(), "smtps://mail");
        assert_eq!(read("smtp://localhost?tls=none").unwrap(), "smtp://localhost");
        for (url, why) in [
            ("smtp://u:hunter2@mail?tls=none", "a password in the clear"),
            ("smtp://mail?tls=opportunistic", "only stand `tls=none`"),
            ("https://u:hunter2@mail", "must begin with smtp://"),
            ("hunter2", "it is none"),
            ("smtp:hunter2", "names no host"),
        ] {
            let message = read(url).unwrap_err();
            assert!(message.contains(why) && !message.contains("hunter2"), "{url}: {message}");
        }
    }

    #[test]
    fn values_become_no_headers() {
        let mail = Mail {
            server: crate::secret::Reference::parse("env:SMTP"),
            from: "pgrunbook <runs@example.com>".parse().unwrap(),
            to: vec!["ops@example.com".parse().unwrap()],
        };
        let sent =
            message(&mail, "run/rollback/ops\r\nBcc: eve@x", "a\r\nBcc: eve@example.com", "text\r\n.\r\nmore").unwrap();
        let formatted = String::from_utf8(sent.formatted()).unwrap();
        let (head, _) = formatted.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(head.contains("Message-ID: <run-rollback-ops--Bcc--eve-x@pgrunbook>"), "{head}");
    }
}
