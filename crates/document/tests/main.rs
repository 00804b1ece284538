//! The document crate on whole files.

mod secrets;
