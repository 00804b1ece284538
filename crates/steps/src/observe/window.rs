//! Counts the samples of one metric in a window, and says how the window stands. Pure.
//!
//! A count knows no time. So nothing that happens to clocks and processes can make a window pass, and the count of a run
//! that was taken up again is the count of all its samples.

use serde::{Deserialize, Serialize};

/// How one sample came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// A number within the limits.
    Good,
    /// A number beyond a limit.
    Bad,
    /// No number that could be judged.
    Unsure,
}

/// What a window asks of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Samples at the beginning that are shown and not judged.
    pub warm_up: u32,
    /// Samples behind them that a window has at least; at least 1.
    pub count: u32,
    /// Of these and later ones, how many must have been a number.
    pub min_samples: u32,
    /// More bad samples than this, and it fails.
    pub failure_limit: Option<u32>,
    /// As many bad samples in a row, and it fails.
    pub consecutive_failures: Option<u32>,
    /// As many samples without a number in a row, and it is inconclusive.
    pub unanswered_limit: Option<u32>,
}

/// The samples of a metric so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All, with those of the warm-up.
    pub rounds: u32,
    pub good: u32,
    pub bad: u32,
    pub unsure: u32,
    bad_in_row: u32,
    unsure_in_row: u32,
    last: Option<Mark>,
}

/// How a window stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// More samples are wanted.
    Open,
    Passed,
    Failed,
    /// Too many samples in a row had no number.
    Unsure,
}

impl Tally {
    /// Counts one more sample.
    pub fn add(&mut self, mark: Mark, rule: &Rule) {
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds <= rule.warm_up {
            return;
        }
        match mark {
            Mark::Good => {
                self.good += 1;
                (self.bad_in_row, self.unsure_in_row) = (0, 0);
            }
            Mark::Bad => {
                self.bad += 1;
                self.bad_in_row += 1;
                self.unsure_in_row = 0;
            }
            // What was not seen does not end a row of bad ones.
            Mark::Unsure => {
                self.unsure += 1;
                self.unsure_in_row += 1;
            }
        }
        self.last = Some(mark);
    }

    /// Samples that were a number and count.
    pub fn covered(&self) -> u32 {
        self.good + self.bad
    }

    /// How the window stands. It never ends as passed on a sample that is not good.
    pub fn standing(&self, rule: &Rule) -> Standing {
        let over = |limit: Option<u32>, count: u32| limit.is_some_and(|limit| count >= limit);
        if rule.failure_limit.is_some_and(|limit| self.bad > limit) || over(rule.consecutive_failures, self.bad_in_row)
        {
            return Standing::Failed;
        }
        if over(rule.unanswered_limit, self.unsure_in_row) {
            return Standing::Unsure;
        }
        let seen = self.covered() + self.unsure;
        if seen >= rule.count && self.covered() >= rule.min_samples && self.last == Some(Mark::Good) {
            return Standing::Passed;
        }
        Standing::Open
    }

    /// Samples still wanted at least.
    pub fn wanted(&self, rule: &Rule) -> u32 {
        let warm_up = rule.warm_up.saturating_sub(self.rounds);
        let by_count = rule.count.saturating_sub(self.covered() + self.unsure);
        let by_samples = rule.min_samples.saturating_sub(self.covered());
        warm_up + by_count.max(by_samples)
    }
}

/// How many samples of `interval` cover `span`: the last part counts whole.
pub fn samples_for(span: std::time::Duration, interval: std::time::Duration) -> u32 {
    u32::try_from(span.as_millis().div_ceil(interval.as_millis().max(1))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn rules() -> impl Strategy<Value = Rule> {
        let limit = || proptest::option::of(0u32..4);
        (0u32..4, 1u32..8, 1u32..8, limit(), proptest::option::of(1u32..4), proptest::option::of(1u32..4)).prop_map(
            |(warm_up, count, min_samples, failure_limit, consecutive_failures, unanswered_limit)| Rule {
                warm_up,
                count,
                min_samples,
                failure_limit,
                consecutive_failures,
                unanswered_limit,
            },
        )
    }

    fn marks() -> impl Strategy<Value = Vec<Mark>> {
        let mark = prop_oneof![4 => Just(Mark::Good), 1 => Just(Mark::Bad), 1 => Just(Mark::Unsure)];
        proptest::collection::vec(mark, 0..40)
    }

    /// Goes through the samples as a watch does: to the first that settles the window.
    fn settled(marks: &[Mark], rule: &Rule) -> (Standing, Tally) {
        let mut tally = Tally::default();
        for mark in marks {
            tally.add(*mark, rule);
            let standing = tally.standing(rule);
            if standing != Standing::Open {
                return (standing, tally);
            }
        }
        (Standing::Open, tally)
    }

    proptest! {
        #[test]
        fn window_passes_only_by_what_was_seen(marks in marks(), rule in rules()) {
            let (standing, tally) = settled(&marks, &rule);
            if standing == Standing::Passed {
                let judged = &marks[rule.warm_up as usize..tally.rounds as usize];
                let count = |wanted| judged.iter().filter(|mark| **mark == wanted).count();
                prop_assert!(judged.len() >= rule.count as usize);
                prop_assert!(count(Mark::Good) + count(Mark::Bad) >= rule.min_samples as usize);
                prop_assert_eq!(judged.last(), Some(&Mark::Good));
                prop_assert!(rule.failure_limit.is_none_or(|limit| count(Mark::Bad) <= limit as usize));
                let longest = judged.split(|mark| *mark == Mark::Good).map(|row| row.iter().filter(|mark| **mark == Mark::Bad).count()).max();
                prop_assert!(rule.consecutive_failures.is_none_or(|limit| longest.unwrap_or(0) < limit as usize));
            }
        }

        #[test]
        fn what_was_not_seen_never_brings_a_verdict_of_pass_nearer(marks in marks(), rule in rules(), at in 0usize..40) {
            // Every sample must be a number: the usual rule.
            let rule = Rule { min_samples: rule.count, unanswered_limit: None, ..rule };
            let (before, _) = settled(&marks, &rule);
            let mut more = marks.clone();
            more.insert(at.min(marks.len()), Mark::Unsure);
            let (after, _) = settled(&more, &rule);
            // With a warm-up, a sample without a number may take the place of one that would have counted.
            if rule.warm_up == 0 && before != Standing::Passed {
                prop_assert_ne!(after, Standing::Passed);
            }
        }

        #[test]
        fn nothing_seen_is_never_a_pass(rounds in 0usize..100, rule in rules()) {
            let (standing, tally) = settled(&vec![Mark::Unsure; rounds], &rule);
            prop_assert!(matches!(standing, Standing::Open | Standing::Unsure));
            prop_assert!(tally.wanted(&rule) > 0);
        }

        #[test]
        fn run_that_is_taken_up_again_stands_where_it_stood(marks in marks(), rule in rules(), cut in 0usize..40) {
            let cut = cut.min(marks.len());
            let mut tally = Tally::default();
            marks[..cut].iter().for_each(|mark| tally.add(*mark, &rule));
            // What the journal holds are the samples; the count is made of them anew.
            let mut again = Tally::default();
            marks[..cut].iter().for_each(|mark| again.add(*mark, &rule));
            marks[cut..].iter().for_each(|mark| { tally.add(*mark, &rule); again.add(*mark, &rule); });
            prop_assert_eq!(tally, again);
            prop_assert_eq!(tally.standing(&rule), again.standing(&rule));
        }

        #[test]
        fn as_many_good_samples_as_are_wanted_pass(marks in marks(), rule in rules()) {
            let (standing, tally) = settled(&marks, &rule);
            if standing == Standing::Open {
                // Those left of a warm-up included. A row of good ones cannot fail.
                let more = tally.wanted(&rule).max(1);
                let mut all = marks.clone();
                all.extend(std::iter::repeat_n(Mark::Good, more as usize));
                prop_assert_eq!(settled(&all, &rule).0, Standing::Passed);
            }
        }

        #[test]
        fn samples_cover_a_span_and_no_interval_more(span in 1u64..10_000_000, interval in 1u64..100_000) {
            let count = u64::from(samples_for(Duration::from_millis(span), Duration::from_millis(interval)));
            prop_assert!(count * interval >= span);
            prop_assert!((count - 1) * interval < span);
        }
    }
}
