//! How long a way back takes, and whether that is within what the runbook declares (`rollback_within`).
//!
//! It is measured and not promised: by the journal's times, from the moment at which the run first turned back, on whatever
//! path, to the last step or line of the way back. Waiting for a person counts, as does the time while nobody was at work:
//! whoever waits for the old state waits for that too.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::evidence::summary::shown_millis;
use crate::journal::EndState;
use crate::state::RunState;

/// The time of a way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayBack {
    /// When the run turned back.
    pub since: Timestamp,
    /// When the last thing on it was done; while it is under way, when it was looked at.
    pub until: Timestamp,
    /// How long it may take, if the runbook declares that.
    pub within: Option<Duration>,
    /// Whether it came to its end.
    pub is_over: bool,
}

impl WayBack {
    /// Of a run, as it stands `now`; `None`: it has not turned back.
    pub fn of(state: &RunState, now: Timestamp) -> Option<Self> {
        let since = state.turned_at?;
        let is_over = state.ended == Some(EndState::RolledBack);
        // Nothing was to be done: it was over when it turned.
        let until = if is_over { state.back_at.unwrap_or(since) } else { now };
        Some(Self { since, until, within: state.plan.rollback_within(), is_over })
    }

    /// How long it took, or has taken so far. A clock that was set back took nothing.
    pub fn took(&self) -> Duration {
        Duration::try_from(self.until.duration_since(self.since)).unwrap_or_default()
    }

    /// Whether it is within what is declared; `None`: nothing is, or that cannot be said yet.
    pub fn held(&self) -> Option<bool> {
        let held = self.took() <= self.within?;
        (self.is_over || !held).then_some(held)
    }

    /// As it leaves the process. Format version 1: fields may be added.
    pub fn json(&self) -> Value {
        let millis = |time: Duration| u64::try_from(time.as_millis()).ok();
        json!({
            "since": self.since,
            "until": self.until,
            "over": self.is_over,
            "took_ms": millis(self.took()),
            "within_ms": self.within.and_then(millis),
            "held": self.held(),
        })
    }
}

/// `12.3 s`, `5 min`.
pub fn shown(time: Duration) -> String {
    shown_millis(i128::try_from(time.as_millis()).unwrap_or(i128::MAX))
}

/// One sentence.
impl fmt::Display for WayBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = shown(self.took());
        match (self.is_over, self.within.map(|within| (self.took() <= within, shown(within)))) {
            (true, None) => {
                write!(f, "The way back took {took}; how long it may take is not declared (`rollback_within`).")
            }
            (true, Some((true, within))) => write!(f, "The way back took {took}: held, within {within}."),
            (true, Some((false, within))) => {
                write!(f, "The way back took {took}: NOT HELD, it was to take at most {within}.")
            }
            (false, None) => write!(f, "The way back has taken {took} so far."),
            (false, Some((true, within))) => {
                write!(f, "The way back has taken {took} so far, of at most {within}.")
            }
            (false, Some((false, within))) => {
                write!(f, "The way back has taken {took} so far: NOT HELD, it was to take at most {within}.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(seconds: i64, within: Option<u64>, is_over: bool) -> WayBack {
        let since = Timestamp::UNIX_EPOCH;
        let until = since + jiff::SignedDuration::from_secs(seconds);
        WayBack { since, until, within: within.map(Duration::from_secs), is_over }
    }

    #[test]
    fn limit_is_held_or_not_and_nothing_is_said_too_early() {
        for (seconds, within, is_over, held) in [
            (12, Some(300), true, Some(true)),
            (300, Some(300), true, Some(true)),
            (301, Some(300), true, Some(false)),
            (301, Some(300), false, Some(false)),
            (12, Some(300), false, None),
            (12, None, true, None),
            (-5, Some(0), true, Some(true)),
        ] {
            assert_eq!(taken(seconds, within, is_over).held(), held, "{seconds} of {within:?}");
        }
    }

    #[test]
    fn sentence_says_both_times() {
        assert_eq!(taken(12, Some(300), true).to_string(), "The way back took 12.0 s: held, within 5 min.");
        assert_eq!(
            taken(362, Some(300), true).to_string(),
            "The way back took 6 min 2 s: NOT HELD, it was to take at most 5 min."
        );
        assert_eq!(
            taken(62, Some(300), false).to_string(),
            "The way back has taken 1 min 2 s so far, of at most 5 min."
        );
    }
}
