//! Real requests over HTTP, real servers of PostgreSQL behind them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod counter;
mod end;
mod load;
mod place;
