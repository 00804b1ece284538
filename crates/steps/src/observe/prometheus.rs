//! What Prometheus answers, as numbers.
//!
//! Format: <https://prometheus.io/docs/prometheus/latest/querying/api/>.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// A question over a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub length: Duration,
    /// Time between two points.
    pub resolution: Duration,
    pub reduce: Reduce,
}

/// What is made of the points of a range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduce {
    Last,
    #[default]
    Mean,
    Max,
    Min,
}

/// Points of a range that may be missing, of 10: a scrape that came late.
const MISSING_OF_TEN: usize = 1;

/// A point: the server's time in seconds, and the value.
pub type Point = (f64, f64);

/// The value of an instant query: a scalar, or a vector of one.
///
/// # Errors
/// Why there is none: one sentence.
pub fn instant(answer: &Value) -> Result<Point, String> {
    let data = data(answer)?;
    match data["resultType"].as_str() {
        Some("scalar") => point(&data["result"]),
        Some("vector") => match data["result"].as_array().map(Vec::as_slice).unwrap_or_default() {
            [] => Err("an empty result: no such series, or none that was scraped lately".to_owned()),
            [one] => point(&one["value"]),
            many => Err(format!("{} series, and one is wanted: aggregate in the query", many.len())),
        },
        other => Err(format!("a result of type {}", other.unwrap_or("none"))),
    }
}

/// The points of a range query, with as many as there should be.
///
/// # Errors
/// Why there is no value: one sentence.
pub fn range(answer: &Value, range: &Range) -> Result<Point, String> {
    let data = data(answer)?;
    if data["resultType"] != "matrix" {
        return Err(format!("a result of type {}", data["resultType"].as_str().unwrap_or("none")));
    }
    let points = match data["result"].as_array().map(Vec::as_slice).unwrap_or_default() {
        [] => return Err("an empty result: no such series in this range".to_owned()),
        [one] => one["values"].as_array().map(Vec::as_slice).unwrap_or_default(),
        many => return Err(format!("{} series, and one is wanted: aggregate in the query", many.len())),
    };
    let points = points.iter().map(point).collect::<Result<Vec<_>, _>>()?;
    let full = (range.length.as_millis() / range.resolution.as_millis().max(1)) as usize;
    let missing = full.saturating_sub(points.len());
    if missing * 10 > full * MISSING_OF_TEN {
        return Err(format!("{} of {full} points: the series has gaps", points.len()));
    }
    let values = points.iter().map(|point| point.1);
    let last = points.last().copied().ok_or("no point at all")?;
    let value = match range.reduce {
        Reduce::Last => last.1,
        Reduce::Mean => values.sum::<f64>() / points.len() as f64,
        Reduce::Max => values.fold(f64::MIN, f64::max),
        Reduce::Min => values.fold(f64::MAX, f64::min),
    };
    Ok((last.0, value))
}

fn data(answer: &Value) -> Result<&Value, String> {
    match answer["status"].as_str() {
        Some("success") => Ok(&answer["data"]),
        Some("error") => Err(format!(
            "{}: {}",
            answer["errorType"].as_str().unwrap_or("error"),
            answer["error"].as_str().unwrap_or("no reason given")
        )),
        _ => Err("an answer that is not Prometheus's".to_owned()),
    }
}

/// `[1435781430.781, "0.5"]`
fn point(value: &Value) -> Result<Point, String> {
    let text = value[1].as_str().ok_or("a point without a value")?;
    let at = value[0].as_f64().ok_or("a point without a time")?;
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok((at, number)),
        Ok(number) => Err(format!("{number}, which is no number to compare")),
        Err(_) => Err(format!("`{text}`, which is no number")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vector(values: &[&str]) -> Value {
        let series: Vec<Value> =
            values.iter().map(|value| json!({ "metric": {}, "value": [1_435_781_430.781, value] })).collect();
        json!({ "status": "success", "data": { "resultType": "vector", "result": series } })
    }

    fn matrix(values: &[&str]) -> Value {
        let points: Vec<Value> = values.iter().enumerate().map(|(at, value)| json!([1_000 + at * 10, value])).collect();
        json!({ "status": "success", "data": { "resultType": "matrix", "result": [{ "metric": {}, "values": points }] } })
    }

    const MINUTE: Range =
        Range { length: Duration::from_secs(60), resolution: Duration::from_secs(10), reduce: Reduce::Mean };

    #[test]
    fn one_number_is_a_value_and_everything_else_is_none() {
        assert_eq!(instant(&vector(&["0.25"])), Ok((1_435_781_430.781, 0.25)));
        let scalar = json!({ "status": "success", "data": { "resultType": "scalar", "result": [7, "3"] } });
        assert_eq!(instant(&scalar), Ok((7.0, 3.0)));
        for (answer, why) in [
            (vector(&[]), "an empty result"),
            (vector(&["NaN"]), "NaN"),
            (vector(&["+Inf"]), "inf"),
            (vector(&["1", "2"]), "2 series"),
            (vector(&["x"]), "no number"),
            (matrix(&["1"]), "type matrix"),
            (json!({ "status": "error", "errorType": "bad_data", "error": "parse error" }), "bad_data: parse error"),
            (json!({ "answer": 42 }), "not Prometheus's"),
            (json!([]), "not Prometheus's"),
        ] {
            let said = instant(&answer).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn range_is_reduced_and_gaps_are_no_value() {
        let of = |values: &[&str], reduce| range(&matrix(values), &Range { reduce, ..MINUTE });
        let six = ["1", "2", "3", "4", "5", "9"];
        assert_eq!(of(&six, Reduce::Mean), Ok((1_050.0, 4.0)));
        assert_eq!(of(&six, Reduce::Max), Ok((1_050.0, 9.0)));
        assert_eq!(of(&six, Reduce::Min), Ok((1_050.0, 1.0)));
        assert_eq!(of(&six, Reduce::Last), Ok((1_050.0, 9.0)));
        assert!(of(&six[..4], Reduce::Mean).unwrap_err().contains("4 of 6 points"));
        assert!(of(&["1", "NaN", "3", "4", "5", "6"], Reduce::Max).is_err());
        assert!(of(&[], Reduce::Last).is_err());
    }
}
