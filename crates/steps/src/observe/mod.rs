//! Watches metrics over a window, and is a gate: pass, fail, or inconclusive.
//!
//! The one idea: a window is counted in samples that were seen, never in time that went by. A laptop that slept, a clock
//! that was set, a process that was killed and a source that was down make the window longer; none makes it pass. A
//! sample without a number (no row, NaN, too little traffic, too old) is neither good nor bad, and is never counted as
//! good.
//!
//! [`declare`] reads metrics as a runbook has them, [`ask`] measures one, [`limit`] judges a reading, [`window`] counts
//! samples (pure), and [`watch`] goes round until a window is settled: for the step `observe` here and for the stages of
//! a `ramp` (`crate::flag`).

mod ask;
mod declare;
mod error;
mod limit;
mod picture;
mod prometheus;
mod step;
mod watch;
mod window;

pub(crate) use ask::Asker;
pub(crate) use declare::{Declared, FileDigest, MetricFields, Span, metrics_of};
pub use step::KIND;
pub(crate) use step::{baselines_of, planned, rehearsed};
pub(crate) use watch::{Course, Note, Verdict, Watch, charts, samples};
