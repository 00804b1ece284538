//! The examples' runbooks on real servers, through the program as a user calls it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod project;

mod butlers;
mod demos;
mod pipeline;
mod promotion;
mod tls;
mod workflows;
