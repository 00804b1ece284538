//! The block: `ramp = "ingest"`, `stages = [10, 50, 100]`, `hold = ["30m", "1h", "5m"]`, and `[metric.NAME]` tables.
//!
//! A stage is noted before the flag is set to it, and every sample of its hold as it comes: a process that dies is taken
//! up again in the stage where it stood, with the samples that it had. Before every sample the flag itself is looked at:
//! once somebody else has set it (threw the kill switch), the ramp is over, and leaves it alone.

use std::collections::BTreeMap;
use std::time::Duration;

use pgrunbook_document::{Block, FieldSpec, KindSpec, Language, StepId, parse_duration};
use pgrunbook_engine::evidence::chart;
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use serde::Deserialize;

use super::error::FlagError;
use super::step::{PLACE_FIELDS, is_put_back, noted_before, percent_is_one, put_back, recorded, with_states};
use super::store::{Place, PlaceFields, Setting, State};
use crate::observe::{
    Asker, Course, Declared, FileDigest, MetricFields, Note, Span, Verdict, Watch, baselines_of, charts, metrics_of,
    planned, rehearsed, samples,
};
use crate::registry::{Kind, SkippedReading, bound_fields, fields};
use crate::sql::application_name;
use crate::workplace::Workplace;

/// The kind `ramp`.
pub const KIND: Kind = Kind {
    spec: KindSpec {
        name: "ramp",
        language: Language::Toml,
        summary: "Gives a feature to more and more keys, by stages that are each held and gated by metrics.",
        fields: &[
            PLACE_FIELDS[0],
            FieldSpec { name: "stages", about: "Per cent of keys, rising: `[10, 50, 100]`.", required: true },
            FieldSpec {
                name: "hold",
                about: "How long each stage is held, counted in samples: `\"30m\"`, or one for each: `[\"30m\", \"1h\", \"5m\"]`.",
                required: true,
            },
            FieldSpec {
                name: "on_fail",
                about: "Where a stage that does not hold goes back to: `back` (the stage before; if nothing is said) or `zero`.",
                required: false,
            },
            FieldSpec {
                name: "metric",
                about: "The gates: `[metric.NAME]`, as in `observe`; of every stage, or of those that its `stages` names: `stages = [50, 100]`.",
                required: false,
            },
            FieldSpec { name: "metrics", about: "A file of such tables, relative to the project.", required: false },
            FieldSpec {
                name: "interval",
                about: "Time between two samples; 30 s if nothing is said.",
                required: false,
            },
            FieldSpec {
                name: "warm_up",
                about: "At the beginning of each stage: samples that are shown and not judged.",
                required: false,
            },
            FieldSpec {
                name: "deadline",
                about: "When a stage that is inconclusive has failed; twice its hold if nothing is said.",
                required: false,
            },
            FieldSpec {
                name: "baseline",
                about: "The id of the `observe` step that captured the baseline before.",
                required: false,
            },
            FieldSpec {
                name: "target",
                about: "The database that the flag is in, needed without `file`; also where metrics are asked that name no `target` of their own.",
                required: false,
            },
            PLACE_FIELDS[1],
            PLACE_FIELDS[2],
            PLACE_FIELDS[3],
            PLACE_FIELDS[4],
            PLACE_FIELDS[5],
            PLACE_FIELDS[6],
            FieldSpec {
                name: "rehearse",
                about: "Whether a rehearsal also asks metrics, and sets a file, outside of its server. It holds no stage.",
                required: false,
            },
        ],
        needs_target: false,
        changes: true,
        undo_words: &["auto"],
        check: |block| fields::<Fields>(block).map(drop),
    },
    build,
    undo_by: None,
};

/// Gives a feature to more and more keys.
///
/// Effect: resolvable (notes and the flag's state say how far it came). Undo: auto.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    ramp: String,
    name: Option<String>,
    stages: Vec<f64>,
    /// A text, or one for each stage.
    hold: toml::Value,
    #[serde(default)]
    on_fail: OnFail,
    #[serde(default)]
    metric: BTreeMap<String, MetricFields>,
    metrics: Option<String>,
    interval: Option<String>,
    warm_up: Option<String>,
    deadline: Option<String>,
    baseline: Option<String>,
    table: Option<String>,
    key: Option<String>,
    environment: Option<String>,
    key_column: Option<String>,
    value_column: Option<String>,
    file: Option<String>,
    #[serde(default)]
    rehearse: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnFail {
    #[default]
    Back,
    Zero,
}

struct Stage {
    percent: f64,
    span: Span,
    deadline: Duration,
    /// All of the ramp's; those that do not gate this stage are measured and shown in it.
    metrics: Vec<Declared>,
}

struct Ramp {
    place: Place,
    stages: Vec<Stage>,
    on_fail: OnFail,
    metrics: Vec<Declared>,
    metrics_file: Option<FileDigest>,
    baseline: Option<StepId>,
    rehearse: bool,
    workplace: Workplace,
}

fn build(block: &Block, workplace: &Workplace) -> Result<Box<dyn Step>, StepError> {
    let fields: Fields = bound_fields(block)?;
    let refuse = |why: String| StepError::unusable("bad-value", format!("step `{}`: {why}", fields.ramp));
    let rising = fields.stages.windows(2).all(|pair| pair[0] < pair[1]);
    if fields.stages.is_empty() || !rising || fields.stages.iter().any(|stage| !percent_is_one(Some(*stage))) {
        return Err(refuse("`stages` rise, between 0 and 100, in thousandths at most: `[10, 50, 100]`".to_owned()));
    }
    let holds = holds(&fields.hold, fields.stages.len()).map_err(refuse)?;
    let deadline = match &fields.deadline {
        Some(text) => Some(parse_duration(text).ok_or_else(|| refuse("`deadline` is not a time".to_owned()))?),
        None => None,
    };
    let (metrics, metrics_file) = metrics_of(block, &fields.metric, fields.metrics.as_deref(), workplace)?;
    for metric in &metrics {
        let no_stage = |percent: &&f64| !fields.stages.contains(percent);
        if let Some(percent) = metric.stages.iter().flatten().find(no_stage) {
            return Err(refuse(format!("metric `{}` gates {percent} %, which is no stage of this ramp", metric.name)));
        }
    }
    let mut stages = Vec::new();
    for (percent, hold) in fields.stages.iter().zip(&holds) {
        let span = Span::read(fields.interval.as_deref(), Some(hold), None, fields.warm_up.as_deref());
        let span = span.map_err(refuse)?;
        let deadline = deadline.unwrap_or(span.length() * 2);
        if deadline < span.length() {
            return Err(refuse(format!("`deadline` is shorter than the hold of {percent} %, {:?}", span.length())));
        }
        let metrics = gates(&metrics, *percent);
        metrics.iter().filter(|one| !one.dry_run).try_for_each(|one| one.fits(&span)).map_err(refuse)?;
        if metrics.iter().all(|metric| metric.dry_run) {
            return Err(refuse(format!("no metric gates {percent} %: the stage could not fail")));
        }
        stages.push(Stage { percent: *percent, span, deadline, metrics });
    }
    let baseline = match &fields.baseline {
        Some(id) => Some(id.parse().map_err(|_| refuse(format!("`baseline` is no step's id: {id}")))?),
        None if metrics.iter().any(|metric| metric.limit.needs_baseline()) => {
            return Err(refuse("a metric is compared with a baseline: name the step that captured it".to_owned()));
        }
        None => None,
    };
    let place = PlaceFields {
        name: fields.name.unwrap_or_else(|| fields.ramp.clone()),
        table: fields.table,
        key: fields.key,
        environment: fields.environment,
        key_column: fields.key_column,
        value_column: fields.value_column,
        file: fields.file,
    };
    let place = Place::read_fields(block, place, workplace)?;
    if place.is_outside() && workplace.is_rehearsal() && !fields.rehearse {
        return Ok(Box::new(SkippedReading(Effect::Resolvable, metrics_file.into_iter().collect())));
    }
    let (on_fail, rehearse, workplace) = (fields.on_fail, fields.rehearse, workplace.clone());
    Ok(Box::new(Ramp { place, stages, on_fail, metrics, metrics_file, baseline, rehearse, workplace }))
}

/// The metrics as a stage has them: who does not gate it is only shown.
fn gates(metrics: &[Declared], percent: f64) -> Vec<Declared> {
    let at = |metric: &Declared| {
        let elsewhere = metric.stages.as_ref().is_some_and(|stages| !stages.contains(&percent));
        let mut metric = metric.clone();
        metric.dry_run |= elsewhere;
        metric
    };
    metrics.iter().map(at).collect()
}

/// One hold for each stage.
fn holds(hold: &toml::Value, stages: usize) -> Result<Vec<String>, String> {
    let wrong = || "`hold` is a time, or a list of one for each stage: `[\"30m\", \"1h\", \"5m\"]`".to_owned();
    match hold {
        toml::Value::String(text) => Ok(vec![text.clone(); stages]),
        toml::Value::Array(all) if all.len() == stages => {
            all.iter().map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

/// How far the attempts before came.
struct Progress {
    /// What the flag was before the first of them.
    previous: State,
    /// The stage that is under way or comes next, and whether an attempt before this one began it.
    stage: usize,
    begun: bool,
    /// It went back, for this reason, and may not have come to say so.
    back: Option<String>,
}

impl Ramp {
    fn state_of(&self, previous: &State, percent: f64) -> Result<State, FlagError> {
        self.place.with(previous, &Setting { enabled: None, percent: Some(percent) })
    }

    /// What the flag is before stage `number` begins.
    fn state_before(&self, previous: &State, number: usize) -> Result<State, FlagError> {
        match number.checked_sub(1).and_then(|before| self.stages.get(before)) {
            Some(stage) => self.state_of(previous, stage.percent),
            None => Ok(previous.clone()),
        }
    }

    /// Where a stage that does not hold goes back to.
    fn state_back(&self, previous: &State, number: usize) -> Result<State, FlagError> {
        match self.on_fail {
            OnFail::Back => self.state_before(previous, number),
            OnFail::Zero => self.state_of(previous, 0.0),
        }
    }

    async fn progress(&self, cx: &RunCx<'_>, notes: &[Note], now: &State) -> Result<Progress, StepError> {
        let last = notes.iter().rev().find_map(|note| match note {
            Note::Stage { number, .. } => Some(*number),
            _ => None,
        });
        let back = notes.iter().find_map(|note| match note {
            Note::Back { why, .. } => Some(why.clone()),
            _ => None,
        });
        if let Some(previous) = noted_before(notes) {
            return Ok(Progress { previous, stage: last.unwrap_or(0), begun: last.is_some(), back });
        }
        let earlier = recorded(cx);
        // A plain `false` is how a flag begins; where a stage was set before, somebody switched it off.
        let plain = earlier.is_some() && *now == Some(serde_json::Value::Bool(false));
        if plain || self.place.is_killed(now) {
            let (flag, place) = (self.place.name.clone(), self.place.shown());
            return Err(FlagError::Killed { flag, place }.into());
        }
        // What it was before the first attempt, where one failed and this is another.
        let previous = earlier.map_or_else(|| now.clone(), |(previous, _)| previous);
        cx.note(serde_json::to_value(Note::Before { value: previous.clone() }).expect("JSON")).await?;
        Ok(Progress { stage: self.first_stage(now), previous, begun: false, back: None })
    }

    /// The first stage that is not below what the flag is now.
    fn first_stage(&self, now: &State) -> usize {
        let percent = self.place.percent(now).unwrap_or(0.0);
        self.stages.iter().position(|stage| stage.percent >= percent).unwrap_or(self.stages.len() - 1)
    }

    /// Sets the flag to a stage. `from`: what it may be before, beside the stage itself.
    async fn set(&self, cx: &RunCx<'_>, from: &State, to: &State) -> Result<(), StepError> {
        let now = self.place.state().await?;
        if now == *to {
            return Ok(());
        }
        if now != *from {
            return Err(self.place.changed(&now, from).into());
        }
        fault::pass(Point::BeforeEffect);
        self.place.exchange(cx, from, to).await?;
        fault::pass(Point::AfterEffect);
        Ok(())
    }

    fn evidence(
        &self,
        summary: String,
        number: usize,
        course: &Course,
        baselines: &BTreeMap<String, f64>,
        states: (&State, &State),
    ) -> Evidence {
        let stages: Vec<f64> = self.stages.iter().map(|stage| stage.percent).collect();
        let Stage { span, metrics, .. } = &self.stages[number.min(self.stages.len() - 1)];
        let evidence = Evidence::of(summary)
            .fact("flag", self.place.name.clone())
            .fact("stages", stages)
            .fact("rounds", course.rounds.len())
            .fact("samples", samples(&self.metrics, course))
            .fact(chart::FACT, charts(metrics, span, baselines, course));
        with_states(evidence, states.0, states.1)
    }

    /// What is to be said of a ramp that ended in the middle.
    fn parts(
        &self,
        number: usize,
        course: &Course,
        baselines: &BTreeMap<String, f64>,
        states: (&State, &State),
    ) -> Evidence {
        let said = format!(
            "{} is {} after {} samples, and was {}",
            self.place.name,
            self.place.words(states.1),
            course.rounds.len(),
            self.place.words(states.0)
        );
        self.evidence(said, number, course, baselines, states)
    }

    /// Goes back from a stage that did not hold.
    async fn go_back(
        &self,
        cx: &RunCx<'_>,
        number: usize,
        verdict: Verdict,
        progress: &Progress,
        course: &mut Course,
        baselines: &BTreeMap<String, f64>,
    ) -> Result<StepError, StepError> {
        let previous = &progress.previous;
        let percent = self.stages[number].percent;
        let (stage, back) = (self.state_of(previous, percent)?, self.state_back(previous, number)?);
        let (flag, words) = (self.place.name.clone(), self.place.words(&back));
        let (why, inconclusive) = match verdict {
            Verdict::Inconclusive(why) => (why, true),
            Verdict::Fail(why) => (why, false),
            Verdict::Pass => (Vec::new(), false),
        };
        if progress.back.is_none() {
            let note = Note::Back { percent: self.place.percent(&back).unwrap_or(0.0), why: why.join("; ") };
            cx.note(serde_json::to_value(&note).expect("JSON")).await?;
            course.follow(&note);
        }
        cx.say(format!("{flag} goes back to {words}"));
        self.set(cx, &stage, &back).await.map_err(|error| {
            let evidence = self.parts(number, course, baselines, (previous, &stage));
            error.partly(evidence)
        })?;
        let error = match inconclusive {
            true => FlagError::Inconclusive { flag, percent, back: words, why },
            false => FlagError::Gate { flag, percent, back: words, why },
        };
        let evidence = self.parts(number, course, baselines, (previous, &back));
        Ok(StepError::from(error).partly(evidence))
    }

    async fn stages(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let baselines = baselines_of(cx, self.baseline.as_ref(), &self.metrics)?;
        let (mut course, notes) = Course::read(cx.notes)?;
        let now = self.place.state().await?;
        let progress = self.progress(cx, &notes, &now).await?;
        let previous = &progress.previous;
        if let Some(why) = progress.back.clone() {
            let verdict = Verdict::Fail(vec![why]);
            let error = self.go_back(cx, progress.stage, verdict, &progress, &mut course, &baselines).await?;
            return Err(error);
        }
        let mut from = match progress.begun {
            // Where a sample was taken the stage was set: anything else is somebody's.
            true if course.rounds.len() > course.begun => {
                self.state_of(previous, self.stages[progress.stage].percent)?
            }
            true => self.state_before(previous, progress.stage)?,
            false => now,
        };
        for (number, stage) in self.stages.iter().enumerate().skip(progress.stage) {
            let state = self.state_of(previous, stage.percent)?;
            let is_begun = progress.begun && number == progress.stage;
            if !is_begun {
                let note = Note::Stage { number, percent: stage.percent };
                cx.note(serde_json::to_value(&note).expect("JSON")).await?;
                course.follow(&note);
            }
            let partly = |error: StepError, set: &State, course: &Course| {
                let evidence = self.parts(number, course, &baselines, (previous, set));
                error.partly(evidence)
            };
            self.set(cx, &from, &state).await.map_err(|error| partly(error, &from, &course))?;
            let of = self.stages.len();
            let again = if is_begun { ", taken up again" } else { "" };
            cx.say(format!(
                "{} at {} %, stage {} of {of}{again}: held for {} samples, one each {:?}",
                self.place.name,
                stage.percent,
                number + 1,
                stage.span.count + stage.span.warm_up,
                stage.span.interval
            ));
            let asker = Asker::new(&self.workplace, stage.span.interval, &application_name(cx.run, cx.step));
            let watch = Watch {
                metrics: &stage.metrics,
                span: stage.span,
                baselines: &baselines,
                deadline: stage.deadline,
                asker: &asker,
                capture: false,
            };
            let still = || async {
                match self.place.state().await? {
                    now if now == state => Ok::<(), StepError>(()),
                    now => Err(self.place.changed(&now, &state).into()),
                }
            };
            let verdict = watch.hold(cx, &mut course, still).await.map_err(|error| partly(error, &state, &course))?;
            if verdict != Verdict::Pass {
                return Err(self.go_back(cx, number, verdict, &progress, &mut course, &baselines).await?);
            }
            from = state;
        }
        let stages: Vec<String> = self.stages.iter().map(|stage| format!("{}", stage.percent)).collect();
        let said = format!(
            "{} is {} after stages {} and {} samples, and was {}",
            self.place.name,
            self.place.words(&from),
            stages.join(", "),
            course.rounds.len(),
            self.place.words(previous)
        );
        Ok(self.evidence(said, self.stages.len(), &course, &baselines, (previous, &from)))
    }

    /// Every stage set once, and every metric asked once.
    async fn rehearse(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let previous = self.place.state().await?;
        let mut from = previous.clone();
        for stage in &self.stages {
            let state = self.state_of(&previous, stage.percent)?;
            self.set(cx, &from, &state).await?;
            from = state;
        }
        let asked = rehearsed(&self.metrics, &self.stages[0].span, &self.workplace, self.rehearse, cx).await;
        let evidence = match asked {
            Ok(evidence) => evidence,
            Err(error) => return Err(error.partly(with_states(Evidence::of("set"), &previous, &from))),
        };
        let said = format!("{} went through {} stages; {}", self.place.name, self.stages.len(), evidence.summary);
        Ok(with_states(Evidence { summary: said, ..evidence }, &previous, &from))
    }
}

impl Step for Ramp {
    fn effect(&self) -> Effect {
        Effect::Resolvable
    }

    fn plan<'a>(&'a self, cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let stages: Vec<String> =
                self.stages.iter().map(|stage| format!("{} % for {:?}", stage.percent, stage.span.length())).collect();
            let summary = format!("ramp flag `{}` in {}: {}", self.place.name, self.place.shown(), stages.join(", "));
            let mut change = Change { summary, ..Change::default() };
            match self.place.state().await {
                Ok(now) => {
                    self.state_of(&now, self.stages[0].percent)?;
                    let begins = self.stages[self.first_stage(&now)].percent;
                    change.details.push(format!("it is {} now; begins with {begins} %", self.place.words(&now)));
                    if self.place.is_killed(&now) {
                        change.warnings.push(
                            "it is switched off now, which a ramp leaves so: a step before switches it on".to_owned(),
                        );
                    }
                }
                Err(error) => change.warnings.push(error.to_string()),
            }
            change.details.push(match self.on_fail {
                OnFail::Back => "a stage that does not hold goes back to the stage before".to_owned(),
                OnFail::Zero => "a stage that does not hold goes back to 0 %".to_owned(),
            });
            for metric in &self.metrics {
                if let Some(stages) = &metric.stages {
                    let stages: Vec<String> = stages.iter().map(|percent| format!("{percent} %")).collect();
                    change.details.push(format!("{} gates {} alone", metric.name, stages.join(", ")));
                }
            }
            change.files.extend(self.metrics_file.clone());
            let ask_outside = self.rehearse || !self.workplace.is_rehearsal();
            planned(&mut change, &self.metrics, &self.stages[0].span, &self.workplace, ask_outside, cx).await?;
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(
            async move { if self.workplace.is_rehearsal() { self.rehearse(cx).await } else { self.stages(cx).await } },
        )
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let (course, notes) = Course::read(cx.notes)?;
            let Some(previous) = noted_before(&notes) else {
                // In a rehearsal nothing is noted; the flag is of a throwaway server.
                return Ok(if self.workplace.is_rehearsal() {
                    Happened::Unknown("a rehearsal notes no stages".to_owned())
                } else {
                    Happened::No
                });
            };
            let last = notes.iter().rev().find_map(|note| match note {
                Note::Stage { number, .. } => Some(*number),
                _ => None,
            });
            let Some(last) = last else { return Ok(Happened::No) };
            let Some(stage) = self.stages.get(last) else {
                return Ok(Happened::Unknown("a stage that is none".to_owned()));
            };
            // What this run may have left. Anything else is somebody's, and the next attempt says so.
            let may_be = [
                self.state_of(&previous, stage.percent)?,
                self.state_before(&previous, last)?,
                self.state_back(&previous, last)?,
            ];
            let now = self.place.state().await?;
            let set = if may_be.contains(&now) { now } else { may_be[0].clone() };
            Ok(Happened::Partly(self.parts(last, &course, &BTreeMap::new(), (&previous, &set))))
        })
    }

    fn undo<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { put_back(&self.place, cx).await })
    }

    fn resolve_undo<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move { is_put_back(&self.place, cx).await })
    }
}
