//! Asks an HTTP endpoint, and holds its answer against what is expected: health checks, smoke checks.
//!
//! Only GET and HEAD: a check does not change what it looks at. Redirects are not followed, so that what is expected
//! is what that address answers.

mod answer;
mod step;

pub(crate) use answer::{Request, ask, cause};
pub use step::KIND;
