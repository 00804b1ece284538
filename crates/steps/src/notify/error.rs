//! Why a message did not reach its receiver. Never holds an address: that may be a secret.

/// What went wrong with one delivery.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The reference to the address has no value, or the project has no such channel.
    #[error("{0}")]
    NoAddress(String),
    #[error("it answered {0}")]
    Status(u16),
    /// No answer at all.
    #[error("{0}")]
    Http(String),
    #[error("the SMTP URL cannot be used: {0}")]
    Url(&'static str),
    #[error("the mail cannot be written: {0}")]
    Mail(String),
    #[error("the mail server refused it: {0}")]
    Refused(String),
    #[error("the mail server could not be spoken to: {0}")]
    Smtp(String),
}
