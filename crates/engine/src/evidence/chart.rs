//! Curves that a step recorded, drawn in the report: the fact [`FACT`] of a step's evidence.
//!
//! The engine knows nothing of what they show. A point that has no value stays a gap in the curve, with a mark below it:
//! what was not seen must not look like what was good.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::report::escaped;

/// The fact that holds charts.
pub const FACT: &str = "charts";

/// The version of the format. A reader shows a newer one as it shows any other fact.
pub const VERSION: u32 = 1;

/// Points that one curve draws at most: a page of more is slow, and no screen shows it.
const POINTS: usize = 2_000;

/// All charts of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Charts {
    pub version: u32,
    pub charts: Vec<Chart>,
}

/// One curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    pub name: String,
    /// Behind each value: `ms`; may be empty.
    pub unit: String,
    /// One line about it: the verdict.
    pub note: String,
    pub tone: Tone,
    /// By time.
    pub points: Vec<Point>,
    pub levels: Vec<Level>,
    pub moments: Vec<Moment>,
}

/// How a curve, or a point of it, came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    Good,
    Bad,
    /// It is not known.
    Unsure,
    /// It was only looked at.
    Plain,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Unsure => "unsure",
            Self::Plain => "plain",
        }
    }
}

/// Seconds since the beginning, the value if there was one, and how it came out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point(pub f64, pub Option<f64>, pub Tone);

/// A line across: a limit, a baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Level {
    pub label: String,
    pub value: f64,
    /// [`Tone::Bad`] for a limit.
    pub tone: Tone,
}

/// A line upright: a stage begins, a process takes up again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since the beginning.
    pub at: f64,
    pub label: String,
}

impl Charts {
    /// The charts of a fact, if they are of the version that this engine knows.
    pub fn read(value: &serde_json::Value) -> Option<Self> {
        Self::deserialize(value).ok().filter(|charts| charts.version == VERSION)
    }
}

/// The drawing's size, in units of its own: the page scales it.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 170.0;
/// Room for the numbers at the left and the times below.
const LEFT: f64 = 64.0;
const BELOW: f64 = 24.0;
const ABOVE: f64 = 12.0;

/// The pictures of all charts of a step, each with its line.
pub(super) fn html(charts: &Charts) -> String {
    let mut html = String::from("</p>\n");
    for chart in &charts.charts {
        let _ = write!(
            html,
            "<figure class=\"chart\"><figcaption><b>{}</b> <span class=\"{}\">{}</span></figcaption>",
            escaped(&chart.name),
            chart.tone.class(),
            escaped(&chart.note)
        );
        draw(&mut html, chart);
        html.push_str("</figure>\n");
    }
    html.push_str("<p>");
    html
}

/// One line about each, where there is no picture.
pub(super) fn summary(charts: &Charts) -> String {
    let lines: Vec<String> = charts.charts.iter().map(|chart| format!("{}: {}", chart.name, chart.note)).collect();
    lines.join("; ")
}

fn draw(html: &mut String, chart: &Chart) {
    let every = chart.points.len().div_ceil(POINTS).max(1);
    let points: Vec<Point> = chart.points.iter().step_by(every).copied().collect();
    let values = points.iter().filter_map(|point| point.1).chain(chart.levels.iter().map(|level| level.value));
    let (low, high) = values.fold((0.0_f64, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let high = if high > low { high } else { low + 1.0 };
    // The highest line is not the frame.
    let high = high + (high - low) * 0.08;
    let begin = points.first().map_or(0.0, |point| point.0).min(0.0);
    let end = points.last().map_or(1.0, |point| point.0).max(begin + 1.0);
    let x = |at: f64| LEFT + (at - begin) / (end - begin) * (WIDTH - LEFT - 8.0);
    let y = |value: f64| ABOVE + (high - value) / (high - low) * (HEIGHT - ABOVE - BELOW);
    let floor = y(low);

    let label = escaped(&format!("{}: {}", chart.name, chart.note));
    let _ = write!(html, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">");
    let _ = write!(html, "<path class=\"axis\" d=\"M{LEFT} {ABOVE}V{floor:.1}H{:.1}\"/>", WIDTH - 8.0);
    let _ = write!(html, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 6.0, floor, number(low));
    for moment in &chart.moments {
        let at = x(moment.at.clamp(begin, end));
        let _ = write!(html, "<path class=\"moment\" d=\"M{at:.1} {ABOVE}V{floor:.1}\"/>");
        let _ = write!(html, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", at + 3.0, ABOVE + 8.0, escaped(&moment.label));
    }
    for level in &chart.levels {
        let (at, class) = (y(level.value), level.tone.class());
        let _ = write!(html, "<path class=\"level {class}\" d=\"M{LEFT} {at:.1}H{:.1}\"/>", WIDTH - 8.0);
        let text = escaped(&format!("{} {}{}", level.label, number(level.value), unit(&chart.unit)));
        let _ = write!(
            html,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            WIDTH - 10.0,
            at - 3.0
        );
    }
    curve(html, &points, &x, &y);
    for point in &points {
        let at = x(point.0);
        match point.1 {
            Some(value) if point.2 != Tone::Good => {
                let _ = write!(
                    html,
                    "<circle class=\"{}\" cx=\"{at:.1}\" cy=\"{:.1}\" r=\"2.5\"/>",
                    point.2.class(),
                    y(value)
                );
            }
            Some(_) => {}
            // What was not seen.
            None => {
                let _ = write!(html, "<path class=\"missing\" d=\"M{at:.1} {:.1}v6\"/>", floor - 6.0);
            }
        }
    }
    let last = escaped(&seconds(end));
    let _ = write!(
        html,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{last}</text></svg>",
        WIDTH - 8.0,
        HEIGHT - 8.0
    );
}

/// The curve, broken where a value is missing.
fn curve(html: &mut String, points: &[Point], x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) {
    let mut path = String::new();
    let mut pen_is_down = false;
    for point in points {
        match point.1 {
            Some(value) => {
                let _ = write!(path, "{}{:.1} {:.1}", if pen_is_down { 'L' } else { 'M' }, x(point.0), y(value));
                pen_is_down = true;
            }
            None => pen_is_down = false,
        }
    }
    if !path.is_empty() {
        let _ = write!(html, "<path class=\"curve\" d=\"{path}\"/>");
    }
}

fn unit(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}

/// A number with as many digits as people read.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let text = match size {
        _ if size >= 100.0 || value == 0.0 => format!("{value:.0}"),
        _ if size >= 1.0 => format!("{value:.2}"),
        _ if size >= 0.001 => format!("{value:.4}"),
        _ => return format!("{value:.2e}"),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ if seconds < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            name: "errors <b>".to_owned(),
            unit: "%".to_owned(),
            note: "fails: 9".to_owned(),
            tone: Tone::Bad,
            points: vec![
                Point(10.0, Some(1.0), Tone::Good),
                Point(20.0, None, Tone::Unsure),
                Point(30.0, Some(9.0), Tone::Bad),
            ],
            levels: vec![Level { label: "limit".to_owned(), value: 2.0, tone: Tone::Bad }],
            moments: vec![Moment { at: 20.0, label: "50 %".to_owned() }],
        }
    }

    #[test]
    fn curve_is_broken_where_nothing_was_seen() {
        let html = html(&Charts { version: VERSION, charts: vec![chart()] });
        let curve = html.split("class=\"curve\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((curve.matches('M').count(), curve.matches('L').count()), (2, 0), "{curve}");
        assert_eq!(html.matches("class=\"missing\"").count(), 1);
        assert_eq!(html.matches("<circle class=\"bad\"").count(), 1);
        assert!(html.contains("limit 2 %") && html.contains("50 %"), "{html}");
        assert!(html.contains("errors &lt;b&gt;") && !html.contains("<b>errors <b>"), "{html}");
    }

    #[test]
    fn chart_without_points_or_of_one_value_is_drawn() {
        for points in [vec![], vec![Point(0.0, Some(0.0), Tone::Good)], vec![Point(5.0, None, Tone::Unsure)]] {
            let chart = Chart { points, levels: Vec::new(), ..chart() };
            let html = html(&Charts { version: VERSION, charts: vec![chart] });
            assert!(html.contains("</svg>") && !html.contains("NaN") && !html.contains("inf"), "{html}");
        }
    }

    #[test]
    fn charts_of_a_newer_version_are_no_picture() {
        let mut value = serde_json::to_value(Charts { version: VERSION, charts: vec![chart()] }).unwrap();
        assert!(Charts::read(&value).is_some());
        value["version"] = (VERSION + 1).into();
        assert_eq!(Charts::read(&value), None);
    }

    #[test]
    fn numbers_are_as_people_write_them() {
        let shown = |value: f64| number(value);
        assert_eq!(
            [0.0, 0.5, 1.0, 12.345, 118.4, 0.0123, 0.000_012].map(shown),
            ["0", "0.5", "1", "12.35", "118", "0.0123", "1.20e-5"]
        );
    }
}
