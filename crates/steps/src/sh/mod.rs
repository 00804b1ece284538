//! Runs a command: the way out for what no kind covers.
//!
//! Nobody can know whether a command that was cut short did its work, so its effect class is opaque: after a crash the
//! operator is asked. It sees only the variables that it names, and its output is shown line by line.

mod step;

pub use step::KIND;
