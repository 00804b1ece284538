//! Turns the Markdown of a runbook into a [`Runbook`], and says everything that is wrong with it.
//!
//! Pure: no disk, clock or network. Every node knows its [`Span`], and nothing gives up at the first mistake: a
//! parse returns the runbook *and* all diagnostics.

pub mod adopt;
pub mod diagnostic;
pub mod expectation;
pub mod fmt;
pub mod lint;
pub mod model;
pub mod parse;
pub mod render;
pub mod secrets;
mod shell;
pub mod sql;
pub mod vocabulary;

pub use adopt::{Proposal, adopt};
pub use diagnostic::{Diagnostic, Severity};
pub use fmt::format;
pub use lint::{lint, lint_knowing};
pub use model::*;
pub use parse::{Loader, Parsed, Values, near, parse, parse_duration, parse_expectation, parse_within};
pub use render::{Format, render};
pub use vocabulary::{FieldSpec, KindSpec, Vocabulary};
