//! Sets feature flags: at once (`flag`), or by stages with a gate each (`ramp`).
//!
//! Three places: the table `pgrunbook.flag`, a row of JSON in a table of settings, a file in flagd's format. All three are
//! read by `pgrunbook-guard`. What the flag was is journaled before it is set, and put back by the undo; nothing is ever
//! written over what somebody else has set meanwhile: a kill switch that was thrown stays thrown.

mod error;
mod flagd;
mod json_text;
mod ramp;
mod step;
mod store;

pub use ramp::KIND as RAMP;
pub use step::KIND as FLAG;
