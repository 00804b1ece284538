//! The block: `observe = "steady"`, `interval = "30s"`, `for = "30m"`, and `[metric.NAME]` tables.

use std::collections::BTreeMap;
use std::time::Duration;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language, StepId, parse_duration};
use pgrunbook_engine::evidence::chart;
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;
use serde_json::json;

use super::ask::{Asker, NoReading};
use super::declare::{Declared, FileDigest, MetricFields, Span, metrics_of};
use super::error::ObserveError;
use super::limit::median;
use super::picture;
use super::watch::{Course, Verdict, Watch, asked_once, charts, samples};
use crate::registry::{Kind, bound_fields, fields};
use crate::sql::application_name;
use crate::workplace::Workplace;

/// The kind `observe`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "observe",
        language: Language::Toml,
        summary: "Watches metrics over a window, and is a gate: pass, fail, or inconclusive, which is never a pass.",
        fields: &[
            FieldSpec {
                name: "target",
                about: "Where metrics are asked that name no `target` of their own: a database, or an HTTP base URL.",
                required: false,
            },
            FieldSpec {
                name: "metric",
                about: "Tables `[metric.NAME]` behind the other keys: where the number comes from, and what it may be.",
                required: false,
            },
            FieldSpec {
                name: "metrics",
                about: "A file of such tables, relative to the project; its digest is part of the plan.",
                required: false,
            },
            FieldSpec {
                name: "interval",
                about: "Time between two samples; 30 s if nothing is said.",
                required: false,
            },
            FieldSpec { name: "for", about: "How long is watched, counted in samples: `30m`.", required: false },
            FieldSpec { name: "count", about: "The same as a number of samples.", required: false },
            FieldSpec {
                name: "warm_up",
                about: "What is shown at the beginning and not judged: as long as the change needs to settle, and as far back as a sample looks.",
                required: false,
            },
            FieldSpec {
                name: "deadline",
                about: "When a window that is not settled is inconclusive; twice its length if nothing is said.",
                required: false,
            },
            FieldSpec {
                name: "baseline",
                about: "The id of the `observe` step that captured the baseline before the change.",
                required: false,
            },
            FieldSpec {
                name: "capture",
                about: "`true`: captures a baseline. Limits are not judged; a number must be there all the same.",
                required: false,
            },
            FieldSpec {
                name: "rehearse",
                about: "Whether a rehearsal asks metrics outside of its server too. It asks each once and judges none.",
                required: false,
            },
        ],
        needs_target: false,
        changes: false,
        undo_words: &[],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Watches metrics over a window.
///
/// Effect: idempotent (it only looks; samples that were taken are kept over a crash). Undo: not needed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(rename = "observe")]
    id: String,
    #[serde(default)]
    metric: BTreeMap<String, MetricFields>,
    metrics: Option<String>,
    interval: Option<String>,
    #[serde(rename = "for")]
    length: Option<String>,
    count: Option<u32>,
    warm_up: Option<String>,
    deadline: Option<String>,
    baseline: Option<String>,
    #[serde(default)]
    capture: bool,
    #[serde(default)]
    rehearse: bool,
}

struct Observe {
    metrics: Vec<Declared>,
    file: Option<FileDigest>,
    span: Span,
    deadline: Duration,
    baseline: Option<StepId>,
    capture: bool,
    rehearse: bool,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let refuse = |why: String| StepError::unusable("bad-value", format!("step `{}`: {why}", fields.id));
    let span =
        Span::read(fields.interval.as_deref(), fields.length.as_deref(), fields.count, fields.warm_up.as_deref())
            .map_err(refuse)?;
    let deadline = match &fields.deadline {
        Some(text) => parse_duration(text).ok_or_else(|| refuse("`deadline` is not a time".to_owned()))?,
        None => span.length() * 2,
    };
    if deadline < span.length() {
        return Err(refuse(format!("`deadline` is shorter than the window, which takes {:?}", span.length())));
    }
    let (metrics, file) = metrics_of(block, &fields.metric, fields.metrics.as_deref(), workplace)?;
    metrics.iter().try_for_each(|metric| metric.fits(&span)).map_err(refuse)?;
    let baseline = match &fields.baseline {
        Some(id) => Some(id.parse().map_err(|_| refuse(format!("`baseline` is no step's id: {id}")))?),
        None => None,
    };
    let compared = || metrics.iter().filter(|metric| metric.limit.needs_baseline());
    if !fields.capture && baseline.is_none() && compared().next().is_some() {
        return Err(refuse(
            "a metric is compared with a baseline: name the step that captured it as `baseline`".into(),
        ));
    }
    if metrics.iter().all(|metric| metric.dry_run) {
        return Err(refuse("every metric is `dry_run`: nothing could fail".to_owned()));
    }
    Ok(Box::new(Observe {
        metrics,
        file,
        span,
        deadline,
        baseline,
        capture: fields.capture,
        rehearse: fields.rehearse,
        workplace: workplace.clone(),
    }))
}

/// The baselines that a step recorded, for the metrics that are compared.
///
/// # Errors
/// If it recorded none for one of them.
pub(crate) fn baselines_of(
    cx: &RunCx<'_>,
    step: Option<&StepId>,
    metrics: &[Declared],
) -> Result<BTreeMap<String, f64>, StepError> {
    let Some(step) = step else { return Ok(BTreeMap::new()) };
    let recorded = cx.recorded(step).and_then(|evidence| evidence.facts.get("baseline"));
    let of = |name: &str| recorded.and_then(|all| all.get(name)?.as_f64());
    let missing: Vec<String> = metrics
        .iter()
        .filter(|metric| metric.limit.needs_baseline() && of(&metric.name).is_none())
        .map(|metric| metric.name.clone())
        .collect();
    if !missing.is_empty() {
        return Err(ObserveError::NoBaseline { step: step.to_string(), metrics: missing }.into());
    }
    Ok(metrics.iter().filter_map(|metric| Some((metric.name.clone(), of(&metric.name)?))).collect())
}

/// A plan's lines about metrics: each is asked once.
pub(crate) async fn planned(
    change: &mut Change,
    metrics: &[Declared],
    span: &Span,
    workplace: &Workplace,
    ask_outside: bool,
    cx: &PlanCx<'_>,
) -> Result<(), StepError> {
    let asker = Asker::new(workplace, span.interval, "pgrunbook:plan");
    let answers = asked_once(&asker, metrics, cx.clock, ask_outside).await;
    for (metric, (name, answer)) in metrics.iter().zip(answers) {
        let gate = if metric.dry_run { "shown only".to_owned() } else { picture::bounds(metric, None) };
        let now = match &answer {
            Ok(value) => format!("now {value}"),
            Err(no) => format!("no number now ({})", no.why()),
        };
        change.details.push(format!("{name}: {now}; {gate}; {}", metric.source.shown()));
        if metric.looks_back.is_some_and(|back| back > span.interval * (span.warm_up + 1)) {
            change.details.push(format!(
                "{name} looks further back than `warm_up`: its first samples are also of the time before the change"
            ));
        }
    }
    Ok(())
}

/// Each metric asked once, as a rehearsal does: what is wrong with one is found, what it says is not judged.
pub(crate) async fn rehearsed(
    metrics: &[Declared],
    span: &Span,
    workplace: &Workplace,
    ask_outside: bool,
    cx: &RunCx<'_>,
) -> Result<Evidence, StepError> {
    let asker = Asker::new(workplace, span.interval, &application_name(cx.run, cx.step));
    let mut said = Vec::new();
    for (name, answer) in asked_once(&asker, metrics, cx.clock, ask_outside).await {
        match answer {
            Ok(value) => said.push(format!("{name} {value}")),
            Err(NoReading::Missing(why)) => said.push(format!("{name}: {why}")),
            Err(NoReading::Wrong(why)) => return Err(ObserveError::Wrong { metric: name, why }.into()),
        }
    }
    Ok(Evidence::of(format!("asked once in this rehearsal, not judged: {}", said.join("; "))).fact("rehearsed", true))
}

impl Observe {
    fn evidence(&self, verdict: &str, course: &Course, baselines: &BTreeMap<String, f64>) -> Evidence {
        let lines = self.metrics.iter().map(|metric| {
            let values = course.values(&metric.name, self.span.warm_up);
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
            match values.is_empty() {
                true => format!("{}: no number", metric.name),
                false if low == high => format!("{} {}", metric.name, picture::valued(low, &metric.unit)),
                false => {
                    format!("{} {} to {}", metric.name, picture::valued(low, ""), picture::valued(high, &metric.unit))
                }
            }
        });
        let lines = lines.collect::<Vec<_>>().join(", ");
        let rounds = course.rounds.len();
        Evidence::of(format!("{verdict} over {rounds} samples: {lines}"))
            .fact("outcome", verdict)
            .fact("rounds", rounds)
            .fact("interval_seconds", self.span.interval.as_secs_f64())
            .fact("samples", samples(&self.metrics, course))
            .fact(chart::FACT, charts(&self.metrics, &self.span, baselines, course))
    }
}

impl Step for Observe {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let what = if self.capture { "capture the baseline of" } else { "watch" };
            let mut change = Change {
                summary: format!(
                    "{what} {} metric(s): {} samples, one each {:?}",
                    self.metrics.len(),
                    self.span.count + self.span.warm_up,
                    self.span.interval
                ),
                ..Change::default()
            };
            change.files.extend(self.file.clone());
            let ask_outside = self.rehearse || !self.workplace.is_rehearsal();
            planned(&mut change, &self.metrics, &self.span, &self.workplace, ask_outside, cx).await?;
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            if self.workplace.is_rehearsal() {
                return rehearsed(&self.metrics, &self.span, &self.workplace, self.rehearse, cx).await;
            }
            let baselines = match self.capture {
                true => BTreeMap::new(),
                false => baselines_of(cx, self.baseline.as_ref(), &self.metrics)?,
            };
            let (mut course, _) = Course::read(cx.notes)?;
            if !course.rounds.is_empty() {
                cx.say(format!("goes on with the {} samples that it has", course.rounds.len()));
            }
            let asker = Asker::new(&self.workplace, self.span.interval, &application_name(cx.run, cx.step));
            let watch = Watch {
                metrics: &self.metrics,
                span: self.span,
                baselines: &baselines,
                deadline: self.deadline,
                asker: &asker,
                capture: self.capture,
            };
            match watch.hold(cx, &mut course, || async { Ok(()) }).await? {
                Verdict::Pass if self.capture => {
                    let middle = |metric: &Declared| {
                        let values = course.values(&metric.name, self.span.warm_up);
                        Some((metric.name.clone(), json!(median(values)?)))
                    };
                    let baseline: serde_json::Map<_, _> = self.metrics.iter().filter_map(middle).collect();
                    Ok(self.evidence("captured", &course, &baselines).fact("baseline", baseline))
                }
                Verdict::Pass => Ok(self.evidence("pass", &course, &baselines)),
                Verdict::Fail(why) => {
                    let evidence = self.evidence("fail", &course, &baselines);
                    Err(StepError::from(ObserveError::Failed { why }).evidence(evidence))
                }
                Verdict::Inconclusive(why) => {
                    let evidence = self.evidence("inconclusive", &course, &baselines);
                    let rounds = course.rounds.len();
                    Err(StepError::from(ObserveError::Inconclusive { rounds, why }).evidence(evidence))
                }
            }
        })
    }
}
