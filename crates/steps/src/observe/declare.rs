//! Metrics as a runbook has them, and what they become.

use std::collections::BTreeMap;
use std::time::Duration;

use pgrunbook_document::{Block, parse_duration};
use pgrunbook_engine::StepError;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::ask::{Source, Wanted};
use super::limit::{BurnWindow, Limit};
use super::prometheus::{Range, Reduce};
use super::window::{Rule, samples_for};
use crate::secret::Reference;
use crate::topology::{ident, literal};
use crate::workplace::{Place, Workplace};

/// A metric, as `[metric.NAME]` has it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricFields {
    sql: Option<String>,
    http: Option<String>,
    prometheus: Option<String>,
    log: Option<String>,
    target: Option<String>,
    #[serde(rename = "as")]
    role: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    value: Option<String>,
    traffic: Option<String>,
    at: Option<String>,
    range: Option<String>,
    resolution: Option<String>,
    reduce: Option<Reduce>,
    time: Option<String>,
    window: Option<String>,
    measure: Option<Measure>,
    #[serde(rename = "where")]
    filter: Option<String>,
    bad: Option<String>,
    of: Option<String>,
    percentile: Option<f64>,
    unit: Option<String>,
    max: Option<f64>,
    min: Option<f64>,
    max_of_baseline: Option<f64>,
    min_of_baseline: Option<f64>,
    slack: Option<f64>,
    burn: Option<BurnFields>,
    min_traffic: Option<f64>,
    max_age: Option<String>,
    min_samples: Option<u32>,
    failure_limit: Option<u32>,
    consecutive_failures: Option<u32>,
    unanswered_limit: Option<u32>,
    #[serde(default)]
    dry_run: bool,
    /// Of a ramp.
    stages: Option<Vec<f64>>,
}

/// What is measured of a log table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Measure {
    Count,
    Ratio,
    Percentile,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct BurnFields {
    objective: f64,
    windows: Vec<BurnPair>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct BurnPair {
    long: String,
    short: String,
    factor: f64,
}

/// How long is watched, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub interval: Duration,
    pub count: u32,
    pub warm_up: u32,
}

impl Span {
    /// `interval = "30s"`, `for = "30m"` or `count = 60`, `warm_up = "1m"`.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub fn read(
        interval: Option<&str>,
        length: Option<&str>,
        count: Option<u32>,
        warm_up: Option<&str>,
    ) -> Result<Self, String> {
        let interval = duration("interval", interval.unwrap_or("30s"))?;
        if interval.is_zero() {
            return Err("`interval` is no time at all".to_owned());
        }
        let count = match (length, count) {
            (Some(length), None) => samples_for(duration("for", length)?, interval),
            (None, Some(count)) => count,
            (None, None) => return Err("write how long is watched: `for = \"30m\"` or `count = 60`".to_owned()),
            (Some(_), Some(_)) => return Err("write either `for` or `count`".to_owned()),
        };
        if count == 0 {
            return Err("a window has at least one sample".to_owned());
        }
        let warm_up = match warm_up {
            Some(text) => samples_for(duration("warm_up", text)?, interval),
            None => 0,
        };
        Ok(Self { interval, count, warm_up })
    }

    /// How long it takes where every sample comes.
    pub fn length(&self) -> Duration {
        self.interval * (self.count + self.warm_up)
    }
}

/// A metric that can be asked and judged.
#[derive(Debug, Clone)]
pub struct Declared {
    pub name: String,
    pub unit: String,
    pub source: Source,
    pub wanted: Wanted,
    pub limit: Limit,
    min_samples: Option<u32>,
    failure_limit: Option<u32>,
    consecutive_failures: Option<u32>,
    unanswered_limit: Option<u32>,
    /// Measured and shown, and no gate.
    pub dry_run: bool,
    /// The stages of a ramp that it gates, in per cent; `None`: all.
    pub stages: Option<Vec<f64>>,
    /// How far back a sample looks, if it is known.
    pub looks_back: Option<Duration>,
}

impl Declared {
    /// What a window asks of it.
    pub fn rule(&self, span: &Span) -> Rule {
        // Said nothing: not one bad sample. Who names a row of bad ones lets single ones pass.
        let failure_limit = self.failure_limit.or(if self.consecutive_failures.is_some() { None } else { Some(0) });
        Rule {
            warm_up: span.warm_up,
            count: span.count,
            min_samples: self.min_samples.unwrap_or(span.count),
            failure_limit,
            consecutive_failures: self.consecutive_failures,
            unanswered_limit: self.unanswered_limit,
        }
    }

    /// Whether a window has as many samples as it asks for.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub fn fits(&self, span: &Span) -> Result<(), String> {
        match self.min_samples {
            Some(least) if least == 0 || least > span.count => Err(format!(
                "metric `{}`: `min_samples` is {least}, and the window has {} samples: none would be too few, more never come",
                self.name, span.count
            )),
            _ => Ok(()),
        }
    }

    /// Whether it is asked of a database of this project, which a rehearsal has too.
    pub fn is_inside(&self) -> bool {
        matches!(self.source, Source::Sql { .. })
    }
}

/// A file of metrics: `[metric.NAME]`, as in a step.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsFile {
    #[serde(default)]
    metric: BTreeMap<String, MetricFields>,
}

/// A file that takes part: its path relative to the project, and its SHA-256 in hex.
pub type FileDigest = (String, String);

/// The metrics of a block: its own, and those of `file`; of the same name, its own.
///
/// # Errors
/// If the file cannot be read, or a metric is wrong.
pub fn metrics_of(
    block: &Block,
    own: &BTreeMap<String, MetricFields>,
    file: Option<&str>,
    workplace: &Workplace,
) -> Result<(Vec<Declared>, Option<FileDigest>), StepError> {
    let refuse = |why: String| StepError::unusable("bad-value", format!("step `{}`: {why}", block.id));
    let mut all = BTreeMap::new();
    let mut digest = None;
    if let Some(path) = file {
        let text = std::fs::read_to_string(workplace.root().join(path))
            .map_err(|error| refuse(format!("the metrics in {path} cannot be read: {error}")))?;
        let read: MetricsFile =
            toml::from_str(&text).map_err(|error| refuse(format!("{path}: {}", error.message())))?;
        all = read.metric;
        digest = Some((path.to_owned(), format!("{:x}", Sha256::digest(text.as_bytes()))));
    }
    all.extend(own.iter().map(|(name, fields)| (name.clone(), fields.clone())));
    if all.is_empty() {
        return Err(refuse("it has no metric: write `[metric.NAME]` tables behind its other keys".to_owned()));
    }
    let target = block.target.as_ref().map(|target| target.value.as_str());
    let declared = all.iter().map(|(name, fields)| {
        declare(name, fields, target, workplace).map_err(|why| match why {
            Wrong::Text(why) => refuse(format!("metric `{name}`: {why}")),
            Wrong::Step(error) => *error,
        })
    });
    Ok((declared.collect::<Result<_, _>>()?, digest))
}

enum Wrong {
    Text(String),
    /// Of a target, in its own words.
    Step(Box<StepError>),
}

impl From<String> for Wrong {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Wrong {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<StepError> for Wrong {
    fn from(error: StepError) -> Self {
        Self::Step(Box::new(error))
    }
}

fn declare(name: &str, fields: &MetricFields, target: Option<&str>, workplace: &Workplace) -> Result<Declared, Wrong> {
    let sources = [&fields.sql, &fields.http, &fields.prometheus, &fields.log];
    if sources.iter().filter(|source| source.is_some()).count() != 1 {
        return Err("write exactly one of `sql`, `http`, `prometheus`, `log`".into());
    }
    stray(fields)?;
    let target = fields.target.as_deref().or(target).ok_or("name a `target`, here or in the step")?;
    let mut looks_back = None;
    let source = if let Some(text) = &fields.sql {
        sql(target, fields, text.clone(), workplace)?
    } else if let Some(table) = &fields.log {
        let (text, window) = log(table, fields)?;
        looks_back = window;
        sql(target, fields, text, workplace)?
    } else {
        let Place::Http { base } = workplace.place(target)? else {
            return Err(format!("its target `{target}` is no HTTP base URL").into());
        };
        let base = base.trim_end_matches('/').to_owned();
        let headers = fields.headers.iter().map(|(name, value)| (name.clone(), Reference::parse(value))).collect();
        match (&fields.http, &fields.prometheus) {
            (Some(path), _) => Source::Http {
                url: format!("{base}/{}", path.trim_start_matches('/')),
                headers,
                value: fields.value.clone().ok_or("`http` needs `value`, the JSON pointer of the number: `/p95_ms`")?,
                traffic: fields.traffic.clone(),
                at: fields.at.clone(),
            },
            (_, query) => {
                let range = match &fields.range {
                    None => None,
                    Some(text) => {
                        let length = duration("range", text)?;
                        let resolution = match &fields.resolution {
                            Some(text) => duration("resolution", text)?,
                            None => (length / 20).max(Duration::from_secs(1)),
                        };
                        if resolution.is_zero()
                            || length < resolution
                            || length.as_secs() / 11_000 > resolution.as_secs()
                        {
                            // Prometheus answers no more than 11,000 points for a series.
                            return Err("`range` has between 1 and 11,000 times its `resolution`".into());
                        }
                        looks_back = Some(length);
                        Some(Range { length, resolution, reduce: fields.reduce.unwrap_or_default() })
                    }
                };
                let query = query.clone().unwrap_or_default();
                Source::Prometheus { base, headers, query, traffic: fields.traffic.clone(), range }
            }
        }
    };
    let limit = limit(fields)?;
    let wanted = match &fields.burn {
        None => Wanted::Value,
        Some(burn) => {
            let (objective, pairs) = burn_of(burn)?;
            if !source.has_window() {
                return Err(
                    "a burn rate is asked over several windows: write `$window` where the query names one".into()
                );
            }
            looks_back = pairs.iter().map(|pair| pair.short).max();
            Wanted::Burn { objective, pairs }
        }
    };
    if fields.window.is_some() && (!source.has_window() || wanted != Wanted::Value) {
        return Err("`window` goes where the query says `$window`, and `burn` has windows of its own".into());
    }
    if wanted == Wanted::Value && source.has_window() {
        match &fields.window {
            Some(text) => looks_back = Some(duration("window", text)?),
            None => return Err("its query says `$window`: write `window = \"5m\"`, or `burn`".into()),
        }
    }
    let source = match (&wanted, looks_back) {
        (Wanted::Value, Some(window)) => source.over(window),
        _ => source,
    };
    // At 1 the budget burns as fast as a pair of windows names.
    let limit = if fields.burn.is_some() { Limit { max: Some(1.0), ..limit } } else { limit };
    Ok(Declared {
        name: name.to_owned(),
        unit: fields.unit.clone().unwrap_or_default(),
        source,
        wanted,
        limit,
        min_samples: fields.min_samples,
        failure_limit: fields.failure_limit,
        consecutive_failures: fields.consecutive_failures,
        unanswered_limit: fields.unanswered_limit,
        dry_run: fields.dry_run,
        stages: fields.stages.clone(),
        looks_back,
    })
}

/// Fields that say nothing for the metric's source would be believed to say something.
fn stray(fields: &MetricFields) -> Result<(), Wrong> {
    let source = [
        ("sql", fields.sql.is_some()),
        ("http", fields.http.is_some()),
        ("prometheus", fields.prometheus.is_some()),
        ("log", fields.log.is_some()),
    ];
    let source = source.iter().find(|source| source.1).map_or("", |source| source.0);
    let uses: [(&str, bool, &[&str]); 14] = [
        ("as", fields.role.is_some(), &["sql", "log"]),
        ("headers", !fields.headers.is_empty(), &["http", "prometheus"]),
        ("value", fields.value.is_some(), &["http"]),
        ("traffic", fields.traffic.is_some(), &["http", "prometheus"]),
        ("at", fields.at.is_some(), &["http"]),
        ("range", fields.range.is_some(), &["prometheus"]),
        ("resolution", fields.resolution.is_some(), &["prometheus"]),
        ("reduce", fields.reduce.is_some(), &["prometheus"]),
        ("time", fields.time.is_some(), &["log"]),
        ("measure", fields.measure.is_some(), &["log"]),
        ("where", fields.filter.is_some(), &["log"]),
        ("bad", fields.bad.is_some(), &["log"]),
        ("of", fields.of.is_some(), &["log"]),
        ("percentile", fields.percentile.is_some(), &["log"]),
    ];
    match uses.iter().find(|(_, used, sources)| *used && !sources.contains(&source)) {
        Some((field, ..)) => Err(format!("`{field}` says nothing for a metric from `{source}`").into()),
        None => Ok(()),
    }
}

fn limit(fields: &MetricFields) -> Result<Limit, Wrong> {
    let limit = Limit {
        max: fields.max,
        min: fields.min,
        max_of_baseline: fields.max_of_baseline,
        min_of_baseline: fields.min_of_baseline,
        slack: fields.slack.unwrap_or(0.0),
        min_traffic: fields.min_traffic,
        max_age: fields.max_age.as_deref().map(|text| duration("max_age", text)).transpose()?,
    };
    let numbers = [limit.max, limit.min, limit.max_of_baseline, limit.min_of_baseline, limit.min_traffic];
    if numbers.iter().flatten().chain([&limit.slack]).any(|number| !number.is_finite()) || limit.slack < 0.0 {
        return Err("a limit is a finite number, and `slack` is none below 0".into());
    }
    let has_most = limit.max.is_some() || limit.max_of_baseline.is_some();
    if fields.measure == Some(Measure::Count) && has_most && limit.min_traffic.is_none() && !fields.dry_run {
        return Err(
            "a count of a log that nobody writes is 0, which would pass: write `min_traffic`, the rows that are \
                    there at least (0 where an empty log is good)"
                .into(),
        );
    }
    if limit.slack != 0.0 && !limit.needs_baseline() {
        return Err("`slack` goes with `max_of_baseline` or `min_of_baseline`".into());
    }
    if fields.burn.is_some() && limit.is_set() {
        return Err("a metric with `burn` has no other limit".into());
    }
    if !limit.is_set() && fields.burn.is_none() && !fields.dry_run {
        return Err("it has no limit (`max`, `min`, `max_of_baseline`, `min_of_baseline`, `burn`), and nothing could \
                    fail: write one, or `dry_run = true`"
            .into());
    }
    Ok(limit)
}

fn burn_of(fields: &BurnFields) -> Result<(f64, Vec<BurnWindow>), Wrong> {
    if !(fields.objective > 0.0 && fields.objective < 1.0) {
        return Err("`objective` is the share that shall be good, between 0 and 1: 0.999".into());
    }
    let pairs: Vec<BurnWindow> = fields
        .windows
        .iter()
        .map(|pair| {
            let (long, short) = (duration("long", &pair.long)?, duration("short", &pair.short)?);
            match short < long && !short.is_zero() && pair.factor > 0.0 && pair.factor.is_finite() {
                true => Ok(BurnWindow { long, short, factor: pair.factor }),
                false => Err("`short` is shorter than `long`, and `factor` above 0".to_owned()),
            }
        })
        .collect::<Result<_, String>>()?;
    match pairs.is_empty() {
        true => Err("`burn` needs `windows`".into()),
        false => Ok((fields.objective, pairs)),
    }
}

fn sql(target: &str, fields: &MetricFields, text: String, workplace: &Workplace) -> Result<Source, Wrong> {
    workplace.postgres(target)?;
    // As it will be sent, or `$window` would be read as a parameter.
    let sent = text.replace(super::ask::WINDOW, "'1 second'");
    if let Some(why) = crate::sql::refused_in_transaction(&sent) {
        return Err(why.into());
    }
    Ok(Source::Sql { target: target.to_owned(), role: fields.role.clone(), text })
}

/// The query of a metric over a log table. The window's end is the server's clock, so that ours may be wrong.
fn log(table: &str, fields: &MetricFields) -> Result<(String, Option<Duration>), Wrong> {
    let parts: Vec<&str> = table.split('.').collect();
    let [schema, relation] = parts.as_slice() else {
        return Err(format!("`log` is `schema.table`, and this is `{table}`").into());
    };
    let time = ident(fields.time.as_deref().ok_or("`log` needs `time`, the column that says when")?);
    let window = match &fields.window {
        Some(text) => Some(duration("window", text)?),
        None if fields.burn.is_some() => None,
        None => return Err("`log` needs `window`: how far back a sample looks".into()),
    };
    let bad = || fields.bad.as_deref().ok_or("it needs `bad`, a condition on a row: `level = 'ERROR'`");
    let value = match fields.measure.ok_or("`log` needs `measure`: `count`, `ratio` or `percentile`")? {
        Measure::Count => match &fields.bad {
            Some(bad) => format!("pg_catalog.count(*) FILTER (WHERE {})", condition(bad)?),
            None => "pg_catalog.count(*)".to_owned(),
        },
        // Nothing of nothing is no ratio: NULL, and so no number.
        Measure::Ratio => format!(
            "pg_catalog.count(*) FILTER (WHERE {})::float8 / nullif(pg_catalog.count(*), 0)",
            condition(bad()?)?
        ),
        Measure::Percentile => {
            let at = fields.percentile.ok_or("a percentile needs `percentile`: 0.95")?;
            if !(0.0..=1.0).contains(&at) {
                return Err("`percentile` is between 0 and 1".into());
            }
            let of = ident(fields.of.as_deref().ok_or("a percentile needs `of`, the column")?);
            format!("pg_catalog.percentile_cont({at}) WITHIN GROUP (ORDER BY {of}::float8)")
        }
    };
    let filter = match &fields.filter {
        Some(text) => format!("\n  AND {}", condition(text)?),
        None => String::new(),
    };
    let text = format!(
        "SELECT {value} AS value, pg_catalog.count(*) AS traffic,\n       \
         extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.max({time})) AS age\nFROM {}.{}\n\
         WHERE {time} > pg_catalog.now() - {}::interval AND {time} <= pg_catalog.now(){filter}",
        ident(schema),
        ident(relation),
        super::ask::WINDOW,
    );
    Ok((text, window))
}

/// A condition in brackets of its own.
fn condition(text: &str) -> Result<String, Wrong> {
    // The line break ends a comment, which would swallow the bracket.
    let bracketed = format!("({text}\n)");
    let is_one = |text: &str| {
        let cut = pgrunbook_document::sql::split(text);
        cut.problems.is_empty() && cut.statements.len() == 1
    };
    // By itself too: within brackets a semicolon is none to the splitter.
    match is_one(text) && is_one(&format!("SELECT {bracketed}")) {
        true => Ok(bracketed),
        false => Err(format!("`{text}` is no condition on a row").into()),
    }
}

fn duration(field: &str, text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("`{field}` is not a time: write `30s`, `5m` or `1h 30m`"))
}

/// A window as an interval of SQL.
pub fn interval_literal(window: Duration) -> String {
    literal(&format!("{} seconds", window.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> MetricFields {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn log_metric_is_a_query_over_the_servers_clock() {
        let metric = fields(
            "log = \"audit.service_logs\"\ntime = \"logged_at\"\nwindow = \"10m\"\nmeasure = \"ratio\"\n\
             bad = \"level = 'ERROR' -- or worse\"\nwhere = \"service = 'ingest'\"",
        );
        let (text, window) = log("audit.service_logs", &metric).unwrap_or_else(|_| panic!());
        assert_eq!(window, Some(Duration::from_secs(600)));
        insta::assert_snapshot!(text, @r#"
        SELECT pg_catalog.count(*) FILTER (WHERE (level = 'ERROR' -- or worse
        ))::float8 / nullif(pg_catalog.count(*), 0) AS value, pg_catalog.count(*) AS traffic,
               extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.max(logged_at)) AS age
        FROM audit.service_logs
        WHERE logged_at > pg_catalog.now() - $window::interval AND logged_at <= pg_catalog.now()
          AND (service = 'ingest'
        )
        "#);
    }

    #[test]
    fn metric_that_cannot_fail_is_refused() {
        let why = |text: &str| match limit(&fields(text)) {
            Err(Wrong::Text(why)) => why,
            other => panic!("{:?}", other.is_ok()),
        };
        assert!(why("sql = \"SELECT 1\"").contains("nothing could fail"));
        assert!(why("sql = \"SELECT 1\"\nmax = nan").contains("finite"));
        assert!(why("sql = \"SELECT 1\"\nmax = 1\nslack = 1").contains("slack"));
        assert!(limit(&fields("sql = \"SELECT 1\"\ndry_run = true")).is_ok());
        let count = "log = \"a.logs\"\nmeasure = \"count\"\nmax = 0";
        assert!(why(count).contains("min_traffic"));
        assert!(limit(&fields(&format!("{count}\nmin_traffic = 0"))).is_ok());
    }

    #[test]
    fn field_of_another_source_is_refused() {
        let why = |text: &str| match stray(&fields(text)) {
            Err(Wrong::Text(why)) => why,
            _ => String::new(),
        };
        assert_eq!(why("sql = \"SELECT 1\"\nvalue = \"/x\"\nmax = 1"), "`value` says nothing for a metric from `sql`");
        assert_eq!(why("http = \"/m\"\nvalue = \"/x\"\nmax = 1"), "");
    }

    #[test]
    fn condition_cannot_leave_its_brackets_by_a_comment_or_a_second_statement() {
        assert!(condition("level = 'ERROR'; DROP TABLE x").is_err());
        assert!(condition("true); DROP TABLE x; SELECT (true").is_err());
        assert!(condition("level = 'ERR").is_err());
        assert!(condition("level = 'a;b' -- why").is_ok());
    }

    #[test]
    fn span_is_counted_in_samples() {
        let span = |interval, length, count, warm_up| Span::read(interval, length, count, warm_up);
        let minutes = span(Some("30s"), Some("30m"), None, Some("45s")).unwrap();
        assert_eq!((minutes.count, minutes.warm_up), (60, 2));
        assert_eq!(minutes.length(), Duration::from_secs(31 * 60));
        assert!(span(None, None, None, None).is_err());
        assert!(span(Some("0s"), Some("1m"), None, None).is_err());
        assert!(span(None, Some("1m"), Some(2), None).is_err());
    }
}
