//! The document crate on whole files.

#[cfg(test)]
mod secrets;
