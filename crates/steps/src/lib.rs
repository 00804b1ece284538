//! One folder per capability, all of one shape; and the one place where a project is opened.
//!
//! [`registry`] is the list of kinds: dispatch, vocabulary, reference and the contract test come from it. `open` puts
//! kinds, journal, clock, targets and redactor together; the CLI and the tests all begin there.

mod approve;
pub mod audit;
pub mod backup;
pub mod boundary;
pub mod breach;
pub mod drift;
pub mod fence;
mod flag;
pub mod gate;
mod http;
pub mod isolation;
pub mod migrate;
pub mod notify;
mod observe;
pub mod parity;
mod process;
pub mod provision;
pub mod redis;
pub mod restore;
mod sh;
pub mod sign_off;
pub mod source;
pub mod sql;
pub mod switch;
pub mod topology;
pub mod transfer;
pub mod verify;

pub mod incidents;
pub mod open;
pub mod project;
pub mod registry;
pub mod rehearse;
pub mod secret;
pub mod surroundings;
pub mod typed;
pub mod workplace;

pub use open::{OpenError, Opened, open};
pub use project::{Project, ProjectError};
pub use registry::{KINDS, Kind};
pub use rehearse::{Rehearsal, Source, rehearse};
pub use surroundings::Surroundings;
pub use workplace::Workplace;
