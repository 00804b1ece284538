//! Waits until people have approved this plan.
//!
//! An approval is an SSH signature over the plan digest; the engine verifies it and tells a step which ones count. So
//! this step only counts, and a run that stands here resumes by itself once the last one is in.

mod step;

pub use step::KIND;
