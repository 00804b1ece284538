//! Waits until each role has signed what happened.
//!
//! An approval is given to a plan, before; a sign-off to a result, after: an SSH signature over the run, its plan and the head
//! of its journal when the step began. The engine verifies signatures and tells a step which ones count. So this
//! step only counts, and a run that stands here resumes by itself once the last one is in.

mod request;
mod step;

pub use request::Request;
pub use step::KIND;
