//! The guard and the flags, as an application meets them, on real servers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod errors;
mod flagd;
mod flags;
mod open_feature;
mod place;
mod trips;
mod versions;
mod waiting;
