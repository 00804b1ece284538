//! Turns a runbook into a plan and a plan into a run.
//!
//! The engine knows steps only by the [`Step`] contract, time only by a [`Clock`], storage only by a [`Journal`], and
//! what it acts on only as a [`Target`]. It knows no database. The state of a run is the fold of its journal, and
//! nothing else.

pub mod clock;
pub mod fault;
pub mod journal;
pub mod plan;
pub mod step;
pub mod target;

pub use clock::Clock;
pub use journal::{Event, Journal};
pub use plan::Plan;
pub use step::{Cancel, Change, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
pub use target::{Claim, Identity, Target};
