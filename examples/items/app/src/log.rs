//! One line for each request: when, status, what was asked, of which source, and how long it took.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A file that lines are added to; or nothing, where none was named.
#[derive(Debug, Default)]
pub struct Log(Option<Mutex<File>>);

impl Log {
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let file = path.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self(file.map(Mutex::new)))
    }

    /// Writes one line, whole: what a request names stands in quotes, and cannot begin a line of its own.
    pub fn line(&self, status: u16, method: &str, path: &str, source: Option<&str>, backend: &str, took: Duration) {
        let Some(file) = &self.0 else { return };
        let (now, source) = (crate::answer::now(), source.unwrap_or("-"));
        let line = format!(
            "{now} {status} {method} {path:?} source={source:?} backend={backend} ms={:.1}\n",
            took.as_secs_f64() * 1e3
        );
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // A log on a full disk is no reason to refuse a request.
        let _ = file.write_all(line.as_bytes());
    }
}
