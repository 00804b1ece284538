//! Goes round: waits, asks every metric, notes the samples in the journal, until the window is settled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pgrunbook_engine::{Clock, RunCx, StepError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ask::{Asker, NoReading};
use super::declare::{Declared, Span};
use super::error::ObserveError;
use super::picture;
use super::window::{Mark, Rule, Standing, Tally};

pub(crate) use super::picture::charts;

/// Samples of a metric that evidence lists at most; all of them are in the journal.
const SAMPLES: usize = 500;

/// Rounds of a window of which every one is told; of a longer one only so many.
const TOLD: u32 = 60;

/// What is noted in the journal. Version 1: variants and optional fields may be added, none may change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// One sample of each metric.
    Round(Round),
    /// A ramp began, with the flag as it was; `null`: it was not there.
    Before { value: Option<Value> },
    /// A stage of a ramp begins: its number from 0; a window begins anew.
    Stage { number: usize, percent: f64 },
    /// A ramp went back.
    Back { percent: f64, why: String },
}

/// One sample of each metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Wall time, for people.
    pub at: Timestamp,
    /// Monotonic seconds since the first attempt began; what a crash took is not in it.
    pub seconds: f64,
    pub samples: BTreeMap<String, Sample>,
    /// What was odd about the time: a gap, a clock that moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odd: Option<String>,
}

/// One sample of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub mark: Mark,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<f64>,
    /// Why it is no number, or says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a window ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// The metrics that broke a limit, and how.
    Fail(Vec<String>),
    /// What was not seen.
    Inconclusive(Vec<String>),
}

/// What is watched, and how.
pub struct Watch<'a> {
    pub metrics: &'a [Declared],
    pub span: Span,
    /// By metric.
    pub baselines: &'a BTreeMap<String, f64>,
    /// Longer than this in one attempt, and what is not settled is inconclusive.
    pub deadline: Duration,
    pub asker: &'a Asker<'a>,
    /// Only captures: every number is good.
    pub capture: bool,
}

/// The samples of a window so far: the fold of the notes.
#[derive(Debug, Clone, Default)]
pub struct Course {
    pub rounds: Vec<Round>,
    /// The round with which the present window begins.
    pub begun: usize,
    /// What happened at which second, for the chart.
    pub moments: Vec<(f64, String)>,
}

impl Course {
    /// Of the notes of the attempts before.
    ///
    /// # Errors
    /// If a note is not one of these.
    pub fn read(notes: &[Value]) -> Result<(Self, Vec<Note>), ObserveError> {
        let mut course = Self::default();
        let mut all = Vec::new();
        for note in notes {
            let note = Note::deserialize(note).map_err(|error| ObserveError::Notes(error.to_string()))?;
            course.follow(&note);
            all.push(note);
        }
        if !course.rounds.is_empty() {
            course.moments.push((course.seconds(), "taken up again".to_owned()));
        }
        Ok((course, all))
    }

    /// Takes one more note in.
    pub fn follow(&mut self, note: &Note) {
        match note {
            Note::Round(round) => self.rounds.push(round.clone()),
            Note::Before { .. } => {}
            Note::Stage { percent, .. } => {
                self.begun = self.rounds.len();
                self.moments.push((self.seconds(), format!("{percent} %")));
            }
            Note::Back { percent, .. } => self.moments.push((self.seconds(), format!("back to {percent} %"))),
        }
    }

    /// Seconds up to the last sample.
    pub fn seconds(&self) -> f64 {
        self.rounds.last().map_or(0.0, |round| round.seconds)
    }

    /// The samples of a metric in the present window.
    fn samples<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Sample> {
        self.rounds[self.begun.min(self.rounds.len())..].iter().filter_map(move |round| round.samples.get(name))
    }

    /// The present window's count of a metric.
    pub fn tally(&self, name: &str, rule: &Rule) -> Tally {
        let mut tally = Tally::default();
        self.samples(name).for_each(|sample| tally.add(sample.mark, rule));
        tally
    }

    /// Values of a metric in the present window, without those of the warm-up.
    pub fn values(&self, name: &str, warm_up: u32) -> Vec<f64> {
        let samples = self.samples(name).skip(warm_up as usize);
        samples.filter(|sample| sample.mark != Mark::Unsure).filter_map(|sample| sample.value).collect()
    }
}

impl Watch<'_> {
    fn rule(&self, metric: &Declared) -> Rule {
        metric.rule(&self.span)
    }

    /// How the present window stands; `None`: open.
    pub fn verdict(&self, course: &Course) -> Option<Verdict> {
        let mut failed = Vec::new();
        let mut unsure = Vec::new();
        let mut open = false;
        for metric in self.metrics.iter().filter(|metric| !metric.dry_run) {
            let rule = self.rule(metric);
            let tally = course.tally(&metric.name, &rule);
            match tally.standing(&rule) {
                Standing::Passed => {}
                Standing::Open => open = true,
                Standing::Failed => failed.push(self.failure(metric, course, &tally)),
                Standing::Unsure => unsure.push(self.missing(metric, course, &tally)),
            }
        }
        match (failed.is_empty(), unsure.is_empty(), open) {
            (false, _, _) => Some(Verdict::Fail(failed)),
            (true, false, _) => Some(Verdict::Inconclusive(unsure)),
            (true, true, false) => Some(Verdict::Pass),
            (true, true, true) => None,
        }
    }

    fn failure(&self, metric: &Declared, course: &Course, tally: &Tally) -> String {
        let value = course.samples(&metric.name).filter(|sample| sample.mark == Mark::Bad).last();
        let value = value.and_then(|sample| sample.value).unwrap_or_default();
        let bounds = picture::bounds(metric, self.baselines.get(&metric.name).copied());
        format!(
            "{} is {}, and {bounds} ({} of {} samples are beyond it)",
            metric.name,
            picture::valued(value, &metric.unit),
            tally.bad,
            tally.covered()
        )
    }

    fn missing(&self, metric: &Declared, course: &Course, tally: &Tally) -> String {
        let why = course.samples(&metric.name).filter_map(|sample| sample.why.as_deref()).last();
        format!(
            "{}: {} of {} samples are a number{}",
            metric.name,
            tally.covered(),
            tally.covered() + tally.unsure,
            why.map(|why| format!(", the last because: {why}")).unwrap_or_default()
        )
    }

    /// What is not settled, at the deadline.
    fn unsettled(&self, course: &Course) -> Vec<String> {
        let gating = self.metrics.iter().filter(|metric| !metric.dry_run);
        let open = gating.filter_map(|metric| {
            let rule = self.rule(metric);
            let tally = course.tally(&metric.name, &rule);
            (tally.standing(&rule) != Standing::Passed).then(|| self.missing(metric, course, &tally))
        });
        open.collect()
    }

    /// Goes round until the window is settled. A sample looks back: the first comes after one interval.
    ///
    /// `still` is asked before every sample: whether what is watched is still what was set.
    ///
    /// # Errors
    /// If the operator stops it, `still` does, or the journal cannot take a note. Every sample so far is noted.
    pub async fn hold<F, T>(&self, cx: &RunCx<'_>, course: &mut Course, still: F) -> Result<Verdict, StepError>
    where
        F: Fn() -> T,
        T: Future<Output = Result<(), StepError>>,
    {
        // Noted before a crash, and not acted on. What was inconclusive is looked at further.
        if let Some(verdict @ (Verdict::Pass | Verdict::Fail(_))) = self.verdict(course) {
            return Ok(verdict);
        }
        let before = course.seconds();
        let begun = cx.clock.instant();
        let mut last = (cx.clock.now(), begun);
        let mut due = begun + self.span.interval;
        loop {
            tokio::select! {
                () = cx.clock.sleep(due.saturating_duration_since(cx.clock.instant())) => {}
                () = cx.cancel.stopping() => {}
            }
            if cx.cancel.is_stopping() {
                return Err(ObserveError::Stopped { rounds: course.rounds.len() - course.begun }.into());
            }
            still().await?;
            let (at, instant) = (cx.clock.now(), cx.clock.instant());
            let samples = self.round(cx.clock).await;
            let seconds = before + (instant - begun).as_secs_f64();
            let note = Note::Round(Round { at, seconds, samples, odd: self.odd(last, (at, instant)) });
            last = (at, instant);
            cx.note(serde_json::to_value(&note).expect("numbers that are finite, and texts")).await?;
            course.follow(&note);
            self.tell(cx, course);
            if let Some(verdict) = self.verdict(course) {
                return Ok(verdict);
            }
            // What took longer than an interval is one sample all the same: none is made up for.
            due += self.span.interval;
            if due <= cx.clock.instant() {
                due = cx.clock.instant() + self.span.interval;
            }
            if cx.clock.instant() - begun >= self.deadline {
                return Ok(Verdict::Inconclusive(self.unsettled(course)));
            }
        }
    }

    /// Samples every metric once.
    pub async fn round(&self, clock: &dyn Clock) -> BTreeMap<String, Sample> {
        let mut samples = BTreeMap::new();
        for metric in self.metrics {
            let sample = match self.asker.reading(metric, clock).await {
                Err(no) => Sample { mark: Mark::Unsure, value: None, traffic: None, why: Some(no.why().to_owned()) },
                Ok(reading) => {
                    let limit = if self.capture { metric.limit.without_bounds() } else { metric.limit };
                    let (mark, why) = limit.judge(&reading, self.baselines.get(&metric.name).copied());
                    let finite = |number: f64| number.is_finite().then_some(number);
                    Sample { mark, value: finite(reading.value), traffic: reading.traffic.and_then(finite), why }
                }
            };
            samples.insert(metric.name.clone(), sample);
        }
        samples
    }

    /// What is odd about the time between two samples. It changes no verdict: windows are counted in samples.
    fn odd(&self, last: (Timestamp, Instant), now: (Timestamp, Instant)) -> Option<String> {
        let passed = (now.1 - last.1).as_secs_f64();
        let wall = now.0.duration_since(last.0).as_secs_f64();
        let interval = self.span.interval.as_secs_f64();
        let moved = wall - passed;
        if moved.abs() > interval.max(2.0) {
            return Some(format!(
                "{passed:.0} s went by and the clock moved by {wall:.0} s: it was set, or the machine slept"
            ));
        }
        (passed > 2.0 * interval).then(|| format!("a gap of {passed:.0} s, which counts as one sample"))
    }

    fn tell(&self, cx: &RunCx<'_>, course: &Course) {
        let Some(round) = course.rounds.last() else { return };
        let gating = || self.metrics.iter().filter(|metric| !metric.dry_run);
        let wanted = |metric: &Declared| {
            let rule = self.rule(metric);
            course.tally(&metric.name, &rule).wanted(&rule)
        };
        let left = gating().map(wanted).max().unwrap_or(0);
        let done = u32::try_from(course.rounds.len() - course.begun).unwrap_or(u32::MAX);
        let total = done.saturating_add(left);
        cx.amount(done.into(), Some(total.into()), "samples");
        if let Some(odd) = &round.odd {
            cx.say(odd.clone());
        }
        let every = (self.span.count / TOLD).max(1);
        if done.is_multiple_of(every) || round.samples.values().any(|sample| sample.mark != Mark::Good) {
            let metrics: Vec<String> = self
                .metrics
                .iter()
                .filter_map(|metric| {
                    let sample = round.samples.get(&metric.name)?;
                    let baseline = self.baselines.get(&metric.name).copied();
                    let samples = course.samples(&metric.name).map(|sample| (sample.value, sample.mark));
                    let spark = picture::spark(samples, &picture::Frame::of(metric, baseline));
                    Some(picture::line(metric, sample, baseline, &spark))
                })
                .collect();
            cx.say(format!("{done} of {total}  {}", metrics.join("   ")));
        }
    }
}

/// Asks each metric once: for a plan, and in a rehearsal.
pub async fn asked_once(
    asker: &Asker<'_>,
    metrics: &[Declared],
    clock: &dyn Clock,
    ask_outside: bool,
) -> Vec<(String, Result<String, NoReading>)> {
    let mut answers = Vec::new();
    for metric in metrics {
        let answer = if metric.is_inside() || ask_outside {
            asker.reading(metric, clock).await.map(|reading| {
                let traffic = reading.traffic.map(|traffic| format!(", of {traffic}")).unwrap_or_default();
                format!("{}{traffic}", picture::valued(reading.value, &metric.unit))
            })
        } else {
            Err(NoReading::Missing("not asked in a rehearsal: it is outside of its server".to_owned()))
        };
        answers.push((metric.name.clone(), answer));
    }
    answers
}

/// The samples of all metrics, as evidence has them: `[seconds, value or null, mark, why]`, capped.
pub fn samples(metrics: &[Declared], course: &Course) -> Value {
    let of = |metric: &Declared| {
        let all: Vec<(f64, &Sample)> =
            course.rounds.iter().filter_map(|round| Some((round.seconds, round.samples.get(&metric.name)?))).collect();
        let every = all.len().div_ceil(SAMPLES).max(1);
        // What is not good is listed as far as there is room, whatever is left out between.
        let kept: Vec<Value> = all
            .iter()
            .enumerate()
            .filter(|(at, (_, sample))| at.is_multiple_of(every) || sample.mark != Mark::Good)
            .take(2 * SAMPLES)
            .map(|(_, (seconds, sample))| match &sample.why {
                Some(why) => json!([seconds, sample.value, sample.mark, why]),
                None => json!([seconds, sample.value, sample.mark]),
            })
            .collect();
        (metric.name.clone(), json!({ "taken": all.len(), "listed": kept }))
    };
    Value::Object(metrics.iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 1 wrote them: a run that was begun by an earlier pgrunbook is gone on with.
    #[test]
    fn notes_of_version_1_are_read_and_written() {
        for line in [
            r#"{"note":"before","value":null}"#,
            r#"{"note":"before","value":{"enabled":true,"percentage":10}}"#,
            r#"{"note":"stage","number":1,"percent":50.0}"#,
            r#"{"note":"round","at":"2026-11-21T12:00:10Z","seconds":10.0,"samples":{"errors":{"mark":"good","value":0.001,"traffic":20.0},"p95":{"mark":"unsure","why":"no row"}},"odd":"a gap"}"#,
            r#"{"note":"round","at":"2026-11-21T12:00:20Z","seconds":20.5,"samples":{"errors":{"mark":"bad","value":2.5}}}"#,
            r#"{"note":"back","percent":10.0,"why":"errors"}"#,
        ] {
            let note: Note = serde_json::from_str(line).unwrap();
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_value(&note).unwrap(), value);
        }
    }

    #[test]
    fn stage_begins_a_window_anew_and_what_was_before_is_kept_for_the_chart() {
        let round = |seconds: f64, mark| {
            let sample = Sample { mark, value: Some(1.0), traffic: None, why: None };
            let samples = [("errors".to_owned(), sample)].into();
            json!(Note::Round(Round { at: Timestamp::UNIX_EPOCH, seconds, samples, odd: None }))
        };
        let stage = |number, percent| json!(Note::Stage { number, percent });
        let notes =
            [stage(0, 10.0), round(10.0, Mark::Good), round(20.0, Mark::Bad), stage(1, 50.0), round(30.0, Mark::Good)];
        let (course, _) = Course::read(&notes).unwrap();
        let rule = Rule {
            warm_up: 0,
            count: 1,
            min_samples: 1,
            failure_limit: Some(0),
            consecutive_failures: None,
            unanswered_limit: None,
        };
        assert_eq!((course.rounds.len(), course.begun), (3, 2));
        assert_eq!(course.tally("errors", &rule).standing(&rule), Standing::Passed);
        let labels: Vec<_> = course.moments.iter().map(|(at, label)| format!("{at} {label}")).collect();
        assert_eq!(labels, ["0 10 %", "20 50 %", "30 taken up again"]);
    }
}
