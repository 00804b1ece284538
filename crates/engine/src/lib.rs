//! Turns a runbook into a plan and a plan into a run.
//!
//! The engine knows steps only by the [`Step`] contract, time only by a [`Clock`], storage only by a [`Journal`], and
//! what it acts on only as a [`Target`]. It knows no database. The state of a run is the fold of its journal, and
//! nothing else.

mod advance;
pub mod approval;
pub mod clock;
pub mod closing;
pub mod demand;
pub mod engine;
pub mod environment;
pub mod error;
pub mod evidence;
mod expand;
pub mod fault;
mod gate;
pub mod journal;
pub mod kinds;
mod lease;
pub mod notice;
pub mod operator;
pub mod plan;
mod planner;
pub mod process;
pub mod redact;
pub mod remind;
mod rollback;
pub mod run;
pub mod said;
pub mod sign_off;
pub mod signers;
pub mod state;
pub mod step;
pub mod target;
mod tell;
pub mod way_back;
mod workshop;
mod writer;

pub use clock::{Clock, SystemClock};
pub use closing::Closing;
pub use demand::{Demand, DemandName, Incidents, Overridable, Override, Remedy, Standing};
pub use engine::{Engine, PathStatus, Purpose, Status};
pub use environment::{Environment, People, Person};
pub use error::EngineError;
pub use journal::{Event, Journal, JournalError};
pub use kinds::{Kinds, LetGo};
pub use notice::{Messenger, Occasion, Scene};
pub use operator::{Doubt, DoubtAnswer, ItemAnswer, ItemQuestion, Operator};
pub use plan::{Moved, Plan, UndoCoverage};
pub use redact::{RedactingWriter, Redactor};
pub use remind::{Promised, Reminded};
pub use run::{RunEnd, RunOptions, Waiting};
pub use sign_off::SignOff;
pub use state::{BrokenJournal, RunState, Slot, StepStatus, UNDO};
pub use step::{
    Cancel, Change, Deployment, Direction, Doing, Effect, Evidence, Happened, Notebook, PlanCx, RunCx, Step, StepError,
};
pub use target::{Claim, Identity, Target};
pub use way_back::WayBack;
