//! The legacy schema's definitions, under another name.
pub mod existing;
