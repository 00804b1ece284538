//! Places at which a test may kill the process: before and after every durable write.
//!
//! All names stand here, so that a test can enumerate them. Absent from release builds. With `PGRUNBOOK_FAULT_TRACE`
//! set, each point that is passed is appended to that file (one line: the name); with `PGRUNBOOK_FAULT=N` the process
//! kills itself with SIGKILL at the N-th point it passes, counted from 1 over all names.

/// A place between two writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before events are appended to the journal.
    BeforeAppend,
    /// After events are durable in the journal.
    AfterAppend,
    /// Before a run's lease is claimed, in the journal or on a target.
    BeforeClaim,
    /// After it.
    AfterClaim,
    /// Inside a target's transaction, after the effect and before COMMIT.
    BeforeCommit,
    /// After COMMIT, before anything else knows.
    AfterCommit,
    /// Before an effect that is not transactional (a statement outside a transaction, a file, a request, a command).
    BeforeEffect,
    /// After it.
    AfterEffect,
}

impl Point {
    /// Every point.
    pub const ALL: &'static [Self] = &[
        Self::BeforeAppend,
        Self::AfterAppend,
        Self::BeforeClaim,
        Self::AfterClaim,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforeEffect,
        Self::AfterEffect,
    ];
}

/// Passes a point. Does nothing in release builds.
#[cfg(not(debug_assertions))]
pub fn pass(_point: Point) {}

/// Passes a point, and dies there if the environment says so.
#[cfg(debug_assertions)]
pub fn pass(point: Point) {
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static PASSED: AtomicU64 = AtomicU64::new(0);
    static FATAL: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("PGRUNBOOK_FAULT").ok().and_then(|text| text.parse().ok()));
    static TRACE: LazyLock<Option<std::ffi::OsString>> = LazyLock::new(|| std::env::var_os("PGRUNBOOK_FAULT_TRACE"));

    let number = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    if let Some(path) = &*TRACE
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
    {
        // A test that cannot be traced fails by its own count; nothing to do here.
        let _ = writeln!(file, "{point:?}");
    }
    if *FATAL == Some(number) {
        let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
        std::process::abort();
    }
}
