//! How far a stream is, and waiting for it: the same for what is followed between databases and for what flows into a file.

use std::time::{Duration, Instant};

use pgrunbook_engine::{Cancel, StepError};
use pgrunbook_postgres::{Lsn, PgError};
use tokio::sync::watch;

use super::state::Stopped;
use crate::typed::{on_transfer, typed};

/// How far a stream is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Everything that the origin committed before this is applied. Moves on also while nothing concerns our tables.
    pub reached: Lsn,
    /// The id of the last fence that was passed.
    pub marker: Option<String>,
    pub transactions: u64,
    pub changes: u64,
    pub spool_bytes: u64,
    /// What it waits for, if it is not at work: another process that follows, a server that does not answer.
    pub waits: Option<String>,
    /// Why it stands still until a person acts.
    pub stopped: Option<Stopped>,
}

/// Why one try to follow ended.
pub enum End {
    /// It may pass.
    Again(String),
    /// A person must act.
    Stop(Box<Stopped>),
}

impl From<PgError> for End {
    fn from(error: PgError) -> Self {
        Self::Again(error.to_string())
    }
}

/// The pauses between tries: each twice the one before, up to five seconds, and short again once a try came further.
#[derive(Debug)]
pub struct Pauses(Duration);

impl Pauses {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    pub fn new() -> Self {
        Self(Self::SHORTEST)
    }

    /// Says why a try that had begun at `before` ended, and waits for the next.
    pub async fn after(&mut self, publish: &watch::Sender<Standing>, before: Lsn, why: String) {
        if publish.borrow().reached > before {
            self.0 = Self::SHORTEST;
        }
        publish.send_modify(|standing| standing.waits = Some(why));
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Self::LONGEST);
    }
}

/// Of which transfer something is: for the commands that a person is told.
#[derive(Debug, Clone, Copy)]
pub struct Which<'a> {
    pub schema: &'a str,
    /// The project's name of the target.
    pub target: &'a str,
}

/// What is waited for, and how long.
pub struct Wish<'a> {
    pub which: Which<'a>,
    /// In words: `the forward stream`.
    pub stream: &'a str,
    /// Where it shall come to, in words: `the fence`.
    pub what: &'a str,
    pub within: Duration,
    pub cancel: &'a Cancel,
}

impl Which<'_> {
    fn status(&self) -> String {
        format!("`{}`", typed(&["transfer", "status", "--target", self.target, "--schema", self.schema]))
    }
}

impl Wish<'_> {
    /// Waits until the stream is there.
    ///
    /// # Errors
    /// If it stands still or ended, does not come so far in this time, or the operator stops.
    pub async fn wait(
        &self,
        mut standing: watch::Receiver<Standing>,
        is_there: impl Fn(&Standing) -> bool,
    ) -> Result<(), StepError> {
        let Self { which, stream, what, within, cancel } = self;
        let begun = Instant::now();
        loop {
            {
                let now = standing.borrow_and_update();
                if is_there(&now) {
                    return Ok(());
                }
                if let Some(stopped) = &now.stopped {
                    return Err(stopped_error(stopped, *which));
                }
            }
            let left = within.saturating_sub(begun.elapsed());
            tokio::select! {
                changed = standing.changed() => if changed.is_err() {
                    // Why it ended may have been told last.
                    return Err(match &standing.borrow().stopped {
                        Some(stopped) => stopped_error(stopped, *which),
                        None => StepError::failed("no-stream", format!("{stream} is not followed any more")),
                    });
                },
                () = tokio::time::sleep(left.min(Duration::from_secs(86_400))) => {
                    let now = standing.borrow().clone();
                    let why = now.waits.map_or_else(String::new, |why| format!("; it waits: {why}"));
                    let (seconds, reached) = (within.as_secs(), now.reached);
                    return Err(StepError::failed(
                        "lag",
                        format!("{stream} did not come to {what} within {seconds} s: it is at {reached}{why}. Nothing was changed."),
                    )
                    .help(format!("{} shows lag and rate; run again when it has caught up", which.status())));
                }
                () = cancel.stopping() => {
                    return Err(StepError::interrupted(format!("stopped while waiting for {stream}; it can go on")));
                }
            }
        }
    }
}

/// What a stream that stands still is to whoever needs it.
pub fn stopped_error(stopped: &Stopped, which: Which<'_>) -> StepError {
    let accept = |more: &[&str]| on_transfer("accept", which.schema, which.target, more);
    let help = match stopped.code.as_str() {
        "ddl" => format!(
            "{} shows the statements; {} makes the same change on the other side and goes on",
            accept(&[]),
            accept(&["--yes"])
        ),
        "conflict" => format!(
            "put that row on the side that follows as it was before this change, then {}: the stream makes the change \
             again; then compare all rows (`parity` with mode = \"live\")",
            accept(&["--yes"])
        ),
        _ => format!("{} shows it; after it is mended, {} goes on", which.status(), accept(&["--yes"])),
    };
    StepError::failed(
        format!("stream-{}", stopped.code),
        format!(
            "stream {} stands still since {}: {}. What came before is safe.",
            stopped.stream, stopped.lsn, stopped.why
        ),
    )
    .help(help)
}
