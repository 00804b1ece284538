//! Asks an HTTP endpoint, and holds its answer against what is expected: health checks, smoke checks.
//!
//! Only GET and HEAD: a check does not change what it looks at. Redirects are not followed, so that what is expected
//! is what that address answers.

use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;

mod answer;
mod step;

pub(crate) use answer::{Request, ask, cause};
pub use step::KIND;

/// What asks an address, or tells it something. Redirects are not followed: the page of a login that stands in front answers 200
/// to everything, and would be sent the address, which may be secret, as the `Referer`. `limit` is for each request.
///
/// # Errors
/// Why HTTP cannot be set up, in one sentence.
pub(crate) fn client(limit: Duration) -> Result<Client, String> {
    let built = Client::builder().timeout(limit).redirect(Policy::none()).build();
    built.map_err(|error| format!("HTTP cannot be set up: {error}"))
}
