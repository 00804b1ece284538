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

/// What a curve is drawn against.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Frame {
    /// The highest and the lowest value that is good.
    pub highest: Option<f64>,
    pub lowest: Option<f64>,
    pub baseline: Option<f64>,
}

impl Frame {
    /// Of a metric.
    pub fn of(metric: &Declared, baseline: Option<f64>) -> Self {
        Self { highest: metric.limit.highest(baseline), lowest: metric.limit.lowest(baseline), baseline }
    }

    /// What the lowest and the highest block stand for: the limits, as far as there are any. A baseline stands in the middle, if only one
    /// limit is there; without one, what is limited from above begins with 0, so that half of a limit looks like half of it.
    fn ends(&self, values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
        let all = values.chain(self.baseline);
        let (least, most) = (all.clone().fold(f64::MAX, f64::min), all.fold(f64::MIN, f64::max));
        match (self.lowest, self.highest, self.baseline) {
            (Some(lowest), Some(highest), _) => (lowest, highest),
            (None, Some(highest), Some(baseline)) if baseline < highest => (2.0 * baseline - highest, highest),
            (None, Some(highest), _) => (least.min(0.0), highest),
            (Some(lowest), None, Some(baseline)) if baseline > lowest => (lowest, 2.0 * baseline - lowest),
            (Some(lowest), None, _) => (lowest, most),
            (None, None, _) => (least, most),
        }
    }
}

/// The last samples as blocks between the ends of the frame, behind a bar with the baseline's before it; `▲` and `▼` are beyond a limit, `✗` is
/// bad in another way, `?` was no number.
pub fn spark(samples: impl Iterator<Item = (Option<f64>, Mark)>, frame: &Frame) -> String {
    let all: Vec<_> = samples.collect();
    let shown = &all[all.len().saturating_sub(WIDE)..];
    let (foot, top) = frame.ends(shown.iter().filter_map(|(value, _)| *value));
    let block = |value: f64| {
        // All alike, and no limit above it: a flat line at the foot.
        let share = if top > foot { ((value - foot) / (top - foot)).clamp(0.0, 1.0) } else { 0.0 };
        BLOCKS[((share * 7.0).round() as usize).min(7)]
    };
    let one = |(value, mark): &(Option<f64>, Mark)| match (value, mark) {
        (None, _) | (_, Mark::Unsure) => '?',
        (Some(value), _) if frame.highest.is_some_and(|highest| *value > highest) => '▲',
        (Some(value), _) if frame.lowest.is_some_and(|lowest| *value < lowest) => '▼',
        (Some(_), Mark::Bad) => '✗',
        (Some(value), Mark::Good) => block(*value),
    };
    let curve = shown.iter().map(one);
    match frame.baseline.filter(|_| !shown.is_empty()) {
        Some(baseline) => [block(baseline), '│'].into_iter().chain(curve).collect(),
        None => curve.collect(),
    }
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

    const NONE: Frame = Frame { highest: None, lowest: None, baseline: None };

    fn good<const N: usize>(values: [f64; N], frame: &Frame) -> String {
        spark(values.into_iter().map(|value| (Some(value), Mark::Good)), frame)
    }

    #[test]
    fn curve_of_blocks_shows_what_was_not_seen() {
        let samples = [(Some(0.0), Mark::Good), (None, Mark::Unsure), (Some(7.0), Mark::Good), (Some(3.0), Mark::Good)];
        assert_eq!(spark(samples.into_iter(), &NONE), "▁?█▄");
        assert_eq!(good([5.0; 3], &NONE), "▁▁▁");
        assert_eq!(spark(std::iter::empty(), &NONE), "");
        assert_eq!(good([1.0; 100], &NONE).chars().count(), WIDE);
    }

    #[test]
    fn limit_is_the_full_height_and_what_is_beyond_is_marked() {
        let at_most = Frame { highest: Some(10.0), ..NONE };
        assert_eq!(good([0.0; 2], &at_most), "▁▁");
        assert_eq!(good([5.0; 2], &at_most), "▅▅", "half of it");
        assert_eq!(good([10.0; 2], &at_most), "██", "at its limit, and not like nothing");
        let bad = [(Some(2.0), Mark::Good), (Some(10.1), Mark::Bad), (Some(3.0), Mark::Bad)];
        assert_eq!(spark(bad.into_iter(), &at_most), "▂▲✗", "bad for another reason than the limit");
        assert_eq!(good([0.0; 2], &Frame { highest: Some(0.0), ..NONE }), "▁▁");
        let at_least = Frame { lowest: Some(90.0), ..NONE };
        assert_eq!(good([90.0, 100.0, 89.0, 0.0], &at_least), "▁█▼▼");
        let both = Frame { lowest: Some(1.0), highest: Some(8.0), ..NONE };
        assert_eq!(good([1.0, 4.0, 8.0, 9.0, 0.0], &both), "▁▄█▲▼");
    }

    #[test]
    fn baseline_stands_before_the_curve_on_its_scale() {
        let frame = Frame { highest: Some(110.0), baseline: Some(100.0), ..NONE };
        assert_eq!(good([90.0, 50.0, 100.0, 110.0, 111.0], &frame), "▅│▁▁▅█▲");
        let frame = Frame { lowest: Some(90.0), baseline: Some(100.0), ..NONE };
        assert_eq!(good([90.0, 100.0, 110.0, 500.0, 89.0], &frame), "▅│▁▅██▼");
        // A limit that the baseline breaks is in the scale all the same.
        let frame = Frame { highest: Some(100.0), baseline: Some(120.0), ..NONE };
        assert_eq!(good([50.0, 120.0], &frame), "█│▅▲");
        assert_eq!(good([0.0, 7.0], &Frame { baseline: Some(7.0), ..NONE }), "█│▁█");
    }
}
