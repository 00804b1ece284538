//! Holds a reading against a metric's limits. Pure.

use std::time::Duration;

use super::window::Mark;

/// What a source answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Finite.
    pub value: f64,
    /// How many events it was made of (requests, rows), if the source says.
    pub traffic: Option<f64>,
    /// How old the newest thing in it is, if the source says. Seconds.
    pub age: Option<f64>,
}

/// What a value may be.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limit {
    pub max: Option<f64>,
    pub min: Option<f64>,
    /// At most this many times the baseline.
    pub max_of_baseline: Option<f64>,
    /// At least this many times the baseline.
    pub min_of_baseline: Option<f64>,
    /// What it may be off beyond that, in the metric's own unit: a tenth more than nothing is nothing.
    pub slack: f64,
    /// Fewer events than this, and the value says nothing.
    pub min_traffic: Option<f64>,
    /// Older than this, and it says nothing.
    pub max_age: Option<Duration>,
}

impl Limit {
    /// Whether there is anything that a value could break.
    pub fn is_set(&self) -> bool {
        [self.max, self.min, self.max_of_baseline, self.min_of_baseline].iter().any(Option::is_some)
    }

    /// The same for one who only looks: a number is good if it says something.
    pub fn without_bounds(&self) -> Self {
        Self { max: None, min: None, max_of_baseline: None, min_of_baseline: None, ..*self }
    }

    /// Whether it takes a baseline.
    pub fn needs_baseline(&self) -> bool {
        self.max_of_baseline.is_some() || self.min_of_baseline.is_some()
    }

    /// The highest value that is good, with the baseline.
    pub fn highest(&self, baseline: Option<f64>) -> Option<f64> {
        let relative = self.max_of_baseline.zip(baseline).map(|(times, baseline)| baseline * times + self.slack);
        match (self.max, relative) {
            (Some(max), Some(relative)) => Some(max.min(relative)),
            (max, relative) => max.or(relative),
        }
    }

    /// The lowest value that is good, with the baseline.
    pub fn lowest(&self, baseline: Option<f64>) -> Option<f64> {
        let relative = self.min_of_baseline.zip(baseline).map(|(times, baseline)| baseline * times - self.slack);
        match (self.min, relative) {
            (Some(min), Some(relative)) => Some(min.max(relative)),
            (min, relative) => min.or(relative),
        }
    }

    /// How a reading came out, and why it says nothing.
    pub fn judge(&self, reading: &Reading, baseline: Option<f64>) -> (Mark, Option<String>) {
        let unsure = |why: String| (Mark::Unsure, Some(why));
        if !reading.value.is_finite() {
            return unsure("not a number".to_owned());
        }
        if let Some(least) = self.min_traffic {
            match reading.traffic {
                None => return unsure("the source does not say how much traffic there was".to_owned()),
                Some(traffic) if traffic.is_nan() || traffic < least => {
                    return unsure(format!("too little traffic: {traffic} of at least {least}"));
                }
                Some(_) => {}
            }
        }
        if let Some(oldest) = self.max_age {
            match reading.age {
                None => return unsure("the source does not say how old it is".to_owned()),
                // From the future: one of the clocks is wrong, and nobody knows how old it is.
                Some(age) if !age.is_finite() || age > oldest.as_secs_f64() || age < -oldest.as_secs_f64() => {
                    return unsure(format!("{age:.0} s old, and {} s are allowed", oldest.as_secs()));
                }
                Some(_) => {}
            }
        }
        if self.needs_baseline() && baseline.is_none() {
            return unsure("there is no baseline to compare with".to_owned());
        }
        let high = self.highest(baseline).is_some_and(|highest| reading.value > highest);
        let low = self.lowest(baseline).is_some_and(|lowest| reading.value < lowest);
        (if high || low { Mark::Bad } else { Mark::Good }, None)
    }
}

/// One pair of windows of a burn rate: both must burn at `factor`, so that what is over long since does not fail, and a
/// short spike neither. Google's SRE workbook, chapter 5, names 14.4 for 1 h and 5 m, and 6 for 6 h and 30 m.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BurnWindow {
    pub long: Duration,
    pub short: Duration,
    pub factor: f64,
}

/// How near the worst pair is to burning, 1 being there. `ratios`: the share of errors in the long and the short window of
/// each pair. `objective`: the share that shall be good, below 1.
pub fn burn(objective: f64, pairs: &[BurnWindow], ratios: &[(f64, f64)]) -> f64 {
    let budget = 1.0 - objective;
    let pairs = pairs.iter().zip(ratios);
    pairs.map(|(pair, (long, short))| long.min(*short) / budget / pair.factor).fold(0.0, f64::max)
}

/// The middle of what was seen: one bad minute before the change does not allow for bad ones behind it.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(value: f64) -> Reading {
        Reading { value, traffic: None, age: None }
    }

    #[test]
    fn tenth_more_than_the_baseline_is_good_and_more_is_bad() {
        let limit = Limit { max_of_baseline: Some(1.1), ..Limit::default() };
        let mark = |value| limit.judge(&reading(value), Some(100.0)).0;
        assert_eq!([mark(109.9), mark(110.0), mark(110.1)], [Mark::Good, Mark::Good, Mark::Bad]);
        assert_eq!(limit.judge(&reading(1.0), None).0, Mark::Unsure, "without a baseline nothing is known");
    }

    #[test]
    fn baseline_of_nothing_needs_slack() {
        let limit = Limit { max_of_baseline: Some(1.1), slack: 0.01, ..Limit::default() };
        let mark = |value| limit.judge(&reading(value), Some(0.0)).0;
        assert_eq!([mark(0.01), mark(0.02)], [Mark::Good, Mark::Bad]);
    }

    #[test]
    fn rate_may_not_fall_below_its_share_of_the_baseline() {
        let limit = Limit { min_of_baseline: Some(0.9), max: Some(500.0), ..Limit::default() };
        let mark = |value| limit.judge(&reading(value), Some(200.0)).0;
        assert_eq!([mark(180.0), mark(179.0), mark(501.0)], [Mark::Good, Mark::Bad, Mark::Bad]);
    }

    #[test]
    fn little_old_and_unknown_are_never_good() {
        let limit = Limit {
            max: Some(1.0),
            min_traffic: Some(20.0),
            max_age: Some(Duration::from_secs(60)),
            ..Limit::default()
        };
        let mark = |traffic, age| limit.judge(&Reading { value: 0.0, traffic, age }, None).0;
        assert_eq!(mark(Some(20.0), Some(59.0)), Mark::Good);
        for (traffic, age) in [
            (None, Some(1.0)),
            (Some(19.0), Some(1.0)),
            (Some(f64::NAN), Some(1.0)),
            (Some(20.0), None),
            (Some(20.0), Some(61.0)),
            (Some(20.0), Some(-3_600.0)),
            (Some(20.0), Some(f64::NAN)),
        ] {
            assert_eq!(mark(traffic, age), Mark::Unsure, "{traffic:?} {age:?}");
        }
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Limit { max: Some(1.0), ..Limit::default() }.judge(&reading(value), None).0, Mark::Unsure);
        }
    }

    #[test]
    fn burn_needs_the_long_and_the_short_window() {
        let pairs = [
            BurnWindow { long: Duration::from_secs(3_600), short: Duration::from_secs(300), factor: 14.4 },
            BurnWindow { long: Duration::from_secs(21_600), short: Duration::from_secs(1_800), factor: 6.0 },
        ];
        let at = |ratios: [(f64, f64); 2]| burn(0.999, &pairs, &ratios);
        // 1.44 % errors are 14.4 times a budget of 0.1 %.
        assert!((at([(0.0144, 0.0144), (0.0, 0.0)]) - 1.0).abs() < 1e-9);
        assert!(at([(0.5, 0.0), (0.5, 0.0)]) < 1e-9, "it is over");
        assert!(at([(0.0, 0.5), (0.0, 0.5)]) < 1e-9, "a spike");
        assert!(at([(0.0, 0.0), (0.012, 0.009)]) > 1.0, "the slow pair alone");
    }

    #[test]
    fn median_is_not_moved_by_one_bad_minute() {
        assert_eq!(median(vec![100.0, 9_000.0, 101.0]), Some(101.0));
        assert_eq!(median(vec![1.0, 2.0]), Some(1.5));
        assert_eq!(median(Vec::new()), None);
    }
}
