//! Tells people or programs, by a webhook.
//!
//! At least once: after a crash the message is sent again, with the same dedupe key in the body and in the header
//! `Idempotency-Key`, so that the receiver can tell.

mod step;

pub use step::KIND;
