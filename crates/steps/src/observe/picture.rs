//! What people see of samples: a line with a curve of blocks in the terminal, charts in the report.

use std::collections::BTreeMap;

use pgrunbook_engine::evidence::chart::{Chart, Charts, Level, Moment, Point, Tone, VERSION, number};
use serde_json::Value;

use super::declare::{Declared, Span};
use super::watch::{Course, Sample};
use super::window::{Mark, Standing};

/// Samples in a line of the terminal.
const WIDE: usize = 24;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The last samples as blocks; `?` where there was no number.
pub fn spark(samples: impl Iterator<Item = (Option<f64>, Mark)>) -> String {
    let all: Vec<_> = samples.collect();
    let shown = &all[all.len().saturating_sub(WIDE)..];
    let values = || shown.iter().filter_map(|(value, _)| *value);
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
    let block = |value: f64| {
        // All alike is a flat line at the foot.
        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
        BLOCKS[((share * 7.0).round() as usize).min(7)]
    };
    let one = |(value, mark): &(Option<f64>, Mark)| match (value, mark) {
        (None, _) | (_, Mark::Unsure) => '?',
        (Some(value), _) => block(*value),
    };
    shown.iter().map(one).collect()
}

/// A metric's last sample, its bounds, and its curve.
pub fn line(metric: &Declared, sample: &Sample, baseline: Option<f64>, spark: &str) -> String {
    let mark = match sample.mark {
        Mark::Good => "",
        Mark::Bad => " ✗",
        Mark::Unsure => " ?",
    };
    let said = match (sample.value, &sample.why) {
        (Some(value), None) => format!("{} ({})", valued(value, &metric.unit), bounds(metric, baseline)),
        (Some(value), Some(why)) => format!("{}, {why}", valued(value, &metric.unit)),
        (None, why) => why.clone().unwrap_or_default(),
    };
    let dry = if metric.dry_run { " [no gate]" } else { "" };
    format!("{}{mark} {said} {spark}{dry}", metric.name)
}

/// `at most 1.1 ms`, with the baseline.
pub fn bounds(metric: &Declared, baseline: Option<f64>) -> String {
    let of = |text: &str, bound: Option<f64>| bound.map(|bound| format!("{text} {}", valued(bound, &metric.unit)));
    let both: Vec<String> =
        [of("at most", metric.limit.highest(baseline)), of("at least", metric.limit.lowest(baseline))]
            .into_iter()
            .flatten()
            .collect();
    match (both.is_empty(), metric.limit.needs_baseline(), baseline) {
        (_, true, Some(baseline)) => {
            format!("{}, baseline {}", both.join(", "), valued(baseline, &metric.unit))
        }
        (_, true, None) => "held against the baseline".to_owned(),
        (true, ..) => "no limit".to_owned(),
        _ => both.join(", "),
    }
}

/// A value with its unit.
pub fn valued(value: f64, unit: &str) -> String {
    match unit {
        "" => number(value),
        "%" => format!("{} %", number(value)),
        unit => format!("{} {unit}", number(value)),
    }
}

/// The charts of all metrics, as evidence has them.
pub fn charts(metrics: &[Declared], span: &Span, baselines: &BTreeMap<String, f64>, course: &Course) -> Value {
    let of = |metric: &Declared| {
        let baseline = baselines.get(&metric.name).copied();
        let rule = metric.rule(span);
        let tally = course.tally(&metric.name, &rule);
        let (tone, verdict) = match (tally.standing(&rule), metric.dry_run) {
            (_, true) => (Tone::Plain, "shown, no gate"),
            (Standing::Passed, _) => (Tone::Good, "pass"),
            (Standing::Failed, _) => (Tone::Bad, "fail"),
            (Standing::Open | Standing::Unsure, _) => (Tone::Unsure, "inconclusive"),
        };
        let point = |(seconds, sample): (f64, &Sample)| {
            let tone = match sample.mark {
                Mark::Good => Tone::Good,
                Mark::Bad => Tone::Bad,
                Mark::Unsure => Tone::Unsure,
            };
            Point(seconds, sample.value, tone)
        };
        let all = course.rounds.iter().filter_map(|round| Some((round.seconds, round.samples.get(&metric.name)?)));
        let level =
            |label: &str, value: Option<f64>, tone| value.map(|value| Level { label: label.to_owned(), value, tone });
        let levels = [
            level("at most", metric.limit.highest(baseline), Tone::Bad),
            level("at least", metric.limit.lowest(baseline), Tone::Bad),
            level("baseline", baseline, Tone::Plain),
        ];
        Chart {
            name: metric.name.clone(),
            unit: metric.unit.clone(),
            note: format!(
                "{verdict}: {} good, {} beyond, {} without a number; {}",
                tally.good,
                tally.bad,
                tally.unsure,
                bounds(metric, baseline)
            ),
            tone,
            points: all.map(point).collect(),
            levels: levels.into_iter().flatten().collect(),
            moments: course.moments.iter().map(|(at, label)| Moment { at: *at, label: label.clone() }).collect(),
        }
    };
    let charts = Charts { version: VERSION, charts: metrics.iter().map(of).collect() };
    serde_json::to_value(charts).expect("numbers that are finite, and texts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_of_blocks_shows_what_was_not_seen() {
        let samples = [(Some(0.0), Mark::Good), (None, Mark::Unsure), (Some(7.0), Mark::Bad), (Some(3.0), Mark::Good)];
        assert_eq!(spark(samples.into_iter()), "▁?█▄");
        assert_eq!(spark([(Some(5.0), Mark::Good); 3].into_iter()), "▁▁▁");
        assert_eq!(spark(std::iter::empty()), "");
        assert_eq!(spark([(Some(1.0), Mark::Good); 100].into_iter()).chars().count(), WIDE);
    }
}
