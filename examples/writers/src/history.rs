//! What was accepted, when, and by which side.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One write that a side has accepted. Times are since the writers began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub writer: usize,
    /// Of this writer, from 1 and without a gap.
    pub seq: u64,
    /// When the attempt that was accepted began.
    pub sent: Duration,
    pub answered: Duration,
    /// The side, as it calls itself: database, port and schema, or the service's backend. Empty where an earlier attempt turned
    /// out to have been accepted, since nobody has said by which side.
    pub side: String,
}

/// All that the writers of one seed have done.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub seed: u64,
    /// By writer.
    pub accepted: Vec<Vec<Accepted>>,
    /// Attempts that were not accepted, by SQLSTATE or status; `connection` where it was lost or refused.
    pub failures: BTreeMap<String, u64>,
    /// The write each writer was at when it was told to stop and no side answered any more: it may have happened, or not.
    pub unsettled: Vec<(usize, u64)>,
}

/// From the last write that the old side accepted to the first that the new one did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    pub from: String,
    pub to: String,
    pub last_before: Duration,
    pub first_after: Duration,
}

impl Freeze {
    pub fn duration(&self) -> Duration {
        self.first_after.saturating_sub(self.last_before)
    }
}

impl History {
    /// Writes that were accepted.
    pub fn writes(&self) -> usize {
        self.accepted.iter().map(Vec::len).sum()
    }

    /// Each change of side, in order: forward, back, and forward again are three. Two sides that take writes at once change all
    /// the while. An attempt that began on one side may be accepted by the other, where a pooler held it back.
    pub fn freezes(&self) -> Vec<Freeze> {
        let mut all: Vec<&Accepted> = self.accepted.iter().flatten().filter(|one| !one.side.is_empty()).collect();
        all.sort_by_key(|one| one.answered);
        let mut freezes: Vec<Freeze> = Vec::new();
        let Some(first) = all.first() else { return freezes };
        let (mut side, mut last) = (first.side.as_str(), first.answered);
        for one in all {
            if one.side != side {
                let (from, to) = (side.to_owned(), one.side.clone());
                freezes.push(Freeze { from, to, last_before: last, first_after: one.answered });
            }
            (side, last) = (&one.side, one.answered);
        }
        freezes
    }

    /// The longest time in which no side accepted anything, and when it began.
    pub fn longest_gap(&self) -> (Duration, Duration) {
        let mut moments: Vec<Duration> = self.accepted.iter().flatten().map(|one| one.answered).collect();
        moments.sort_unstable();
        moments.windows(2).map(|two| (two[1] - two[0], two[0])).max().unwrap_or_default()
    }

    /// How many writes of each writer count: those that were accepted, and whether one more may be there.
    pub(crate) fn bounds(&self, writer: usize) -> (u64, bool) {
        let accepted = self.accepted.get(writer).map_or(0, |all| all.len() as u64);
        (accepted, self.unsettled.iter().any(|(one, _)| *one == writer))
    }
}

/// What the final side holds against the history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Writes that were compared.
    pub writes: usize,
    /// Accepted, and not there.
    pub lost: Vec<String>,
    /// There more than once.
    pub doubled: Vec<String>,
    /// There, and never accepted.
    pub strange: Vec<String>,
    /// There, and otherwise than the writes leave it.
    pub altered: Vec<String>,
}

impl Verdict {
    /// Whether nothing is lost, doubled, strange or altered.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.strange.is_empty() && self.altered.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writes, lost, doubled, strange, altered } = self;
        write!(
            f,
            "{writes} writes: {} lost, {} doubled, {} strange, {} altered",
            lost.len(),
            doubled.len(),
            strange.len(),
            altered.len()
        )?;
        for (word, keys) in [("lost", lost), ("doubled", doubled), ("strange", strange), ("altered", altered)] {
            for key in keys.iter().take(5) {
                write!(f, "\n  {word}: {key}")?;
            }
        }
        Ok(())
    }
}

/// The key of a write, which no other has.
pub(crate) fn key(seed: u64, writer: usize, seq: u64) -> String {
    format!("{seed:x}-{writer}-{seq}")
}

/// What a write writes: now and then so long that it is stored out of line.
pub(crate) fn value(seed: u64, writer: usize, seq: u64) -> String {
    let mut state = seed ^ (writer as u64).rotate_left(40) ^ seq.rotate_left(8);
    let words = if seq.is_multiple_of(16) { 200 } else { 2 };
    (0..words).map(|_| format!("{:016x}", mixed(&mut state))).collect()
}

/// splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(side: &str, sent: u64, answered: u64) -> Accepted {
        let (sent, answered) = (Duration::from_millis(sent), Duration::from_millis(answered));
        Accepted { writer: 0, seq: 1, sent, answered, side: side.to_owned() }
    }

    #[test]
    fn an_attempt_that_a_pooler_held_back_ends_a_freeze() {
        let history =
            History { accepted: vec![vec![at("a", 0, 9)], vec![at("a", 1, 2), at("b", 5, 50)]], ..History::default() };
        let freezes: Vec<_> = history.freezes().iter().map(|one| one.duration().as_millis()).collect();
        assert_eq!(freezes, [41]);
    }

    #[test]
    fn a_freeze_is_between_the_last_of_one_side_and_the_first_of_the_other() {
        let history = History {
            accepted: vec![
                vec![at("a", 0, 1), at("", 5, 6), at("b", 40, 50)],
                vec![at("a", 2, 9), at("b", 45, 51), at("a", 80, 90)],
            ],
            ..History::default()
        };
        let freezes: Vec<_> =
            history.freezes().iter().map(|one| (one.from.clone(), one.duration().as_millis())).collect();
        assert_eq!(freezes, [("a".to_owned(), 41), ("b".to_owned(), 39)]);
        assert_eq!(history.longest_gap(), (Duration::from_millis(41), Duration::from_millis(9)));
    }

    #[test]
    fn what_is_written_depends_on_seed_writer_and_number_alone() {
        assert_eq!(value(7, 2, 5), value(7, 2, 5));
        let others = [value(8, 2, 5), value(7, 3, 5), value(7, 2, 6)];
        assert!(others.iter().all(|one| *one != value(7, 2, 5)));
        assert_eq!(value(7, 2, 16).len(), 3200);
    }
}
