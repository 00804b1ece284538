//! Tells people or programs: by webhooks, Slack and mail; by a step, of itself on an occasion, or by hand.
//!
//! Where people listen and in which words they are told stands once in `pgrunbook.toml`. At least once: after a crash a message
//! is sent again with the same key (in the body, in the header `Idempotency-Key`, as the mail's Message-ID), so
//! that the receiver can tell. What is told of itself the engine owes by the run's journal
//! ([`pgrunbook_engine::notice`]); here it is composed and delivered.

mod config;
mod error;
mod hand;
mod mail;
mod messenger;
mod step;
mod template;
mod webhook;

pub use config::Notices;
pub(crate) use config::{ChannelTable, NotifyTable, TemplateTable};
pub use error::DeliveryError;
pub use hand::{Words, by_hand};
pub use messenger::Channels;
pub use step::KIND;
pub use template::{Template, TemplateError};
