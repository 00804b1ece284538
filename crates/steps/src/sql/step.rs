//! The SQL steps of a runbook: `check` and `probe`, which leave nothing behind, and `apply`, which changes the database.

use std::time::{Duration, Instant};

use pgrunbook_document::expectation::Expectation;
use pgrunbook_document::sql::{Class, Control, classify, split};
use pgrunbook_document::{Block, Diagnostic, SqlBody, StepId, Within};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, PlanCx, RunCx, Step, StepError};
use sha2::{Digest, Sha256};

use super::judge::Judge;
use super::send::{Answered, Question, ask};
use crate::registry::required_target;
use crate::workplace::Workplace;

/// A gate: statements that only read, and what their last one must answer.
///
/// Effect: idempotent (a read-only transaction that is rolled back). Undo: not needed.
#[derive(Debug)]
pub struct Check(Asking);

/// An attempt: statements that may write, always rolled back, and what their last one must answer.
///
/// What is deferred to the end of the transaction is checked before the verdict. Values taken from sequences are not
/// given back. Effect: idempotent. Undo: not needed.
#[derive(Debug)]
pub struct Probe(Asking);

/// What both have.
#[derive(Debug)]
struct Asking {
    target: String,
    workplace: Workplace,
    text: Statements,
    timeout: Option<Duration>,
    read_only: bool,
}

/// The statements of a block, cut and looked at.
#[derive(Debug)]
pub(super) struct Statements {
    pub text: String,
    /// The last statement's text.
    pub last: String,
    pub count: usize,
    pub role: Option<String>,
    pub expectations: Vec<Expectation>,
    pub within: Option<Within>,
    pub show: Vec<String>,
}

impl Check {
    /// Reads a block whose variables are bound.
    ///
    /// # Errors
    /// If its statements cannot be a check.
    pub fn new(block: &Block, workplace: &Workplace) -> Result<Self, StepError> {
        Asking::new(block, workplace, true).map(Self)
    }
}

impl Probe {
    /// Reads a block whose variables are bound.
    ///
    /// # Errors
    /// If its statements cannot be a probe.
    pub fn new(block: &Block, workplace: &Workplace) -> Result<Self, StepError> {
        Asking::new(block, workplace, false).map(Self)
    }
}

/// Finds what keeps a block from being a check or a probe, for lint. Variables need not be bound.
pub(super) fn lint(block: &Block) -> Result<(), Diagnostic> {
    let Some(body) = &block.sql else { return Ok(()) };
    match refusal(block.statements(), Around::Transaction) {
        None => Ok(()),
        Some(refusal) => {
            let place = body.statements.start + refusal.range.start..body.statements.start + refusal.range.end;
            Err(Diagnostic::error(refusal.code, block.locate(place), refusal.what).help(refusal.help))
        }
    }
}

/// What goes around a block's statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Around {
    /// One transaction: nothing in it may end it.
    Transaction,
    /// Perhaps none.
    Anything,
}

/// Why statements cannot be run in a step.
pub(super) struct Refusal {
    pub code: &'static str,
    pub what: String,
    pub help: String,
    pub range: std::ops::Range<usize>,
}

/// Why a text cannot run within a transaction that is rolled back: one sentence, with what to do instead.
pub(crate) fn refused_in_transaction(text: &str) -> Option<String> {
    refusal(text, Around::Transaction).map(|refusal| format!("{}: {}", refusal.what, refusal.help))
}

pub(super) fn refusal(text: &str, around: Around) -> Option<Refusal> {
    let cut = split(text);
    if let Some(problem) = cut.problems.first() {
        return Some(Refusal {
            code: "not-sql",
            what: problem.kind.to_string(),
            help: problem.kind.help().to_owned(),
            range: problem.range.clone(),
        });
    }
    if cut.statements.is_empty() {
        return Some(Refusal {
            code: "no-statement",
            what: "this step has no statement".to_owned(),
            help: "write the query below the directives".to_owned(),
            range: 0..text.len(),
        });
    }
    cut.statements.iter().find_map(|statement| {
        let refused = |code, what: String, help: &str| {
            Some(Refusal { code, what, help: help.to_owned(), range: statement.range.clone() })
        };
        if statement.head == "COPY" || statement.head.starts_with("COPY ") {
            return refused(
                "copy",
                "COPY has no place in a step".to_owned(),
                "use INSERT or SELECT, or put the data into a migration",
            );
        }
        match classify(statement.text(text)) {
            Class::Control(Control::Savepoint) | Class::Plain => None,
            Class::Control(_) => refused(
                "transaction-control",
                format!("`{}` would end the transaction that the step runs in", first_word(&statement.head)),
                "leave it out: a check and a probe are always rolled back, an apply is committed with its record",
            ),
            Class::Outside(outside) if around == Around::Transaction => refused(
                "needs-no-transaction",
                format!("{} cannot run inside a transaction", crate::migrate::shown(&outside)),
                "use an `apply` step for it",
            ),
            Class::Outside(_) => None,
        }
    })
}

fn first_word(head: &str) -> &str {
    head.split(' ').next().unwrap_or(head)
}

/// The statements of a block.
pub(super) fn statements(block: &Block) -> Result<Statements, StepError> {
    statements_around(block, Around::Transaction)
}

pub(super) fn statements_around(block: &Block, around: Around) -> Result<Statements, StepError> {
    let Some(SqlBody { role, expectations, within, show, .. }) = &block.sql else {
        return Err(StepError::unusable("not-sql", format!("step `{}` is not a SQL step", block.id)));
    };
    let text = block.statements().to_owned();
    if let Some(refusal) = refusal(&text, around) {
        return Err(
            StepError::unusable(refusal.code, format!("step `{}`: {}", block.id, refusal.what)).help(refusal.help)
        );
    }
    let cut = split(&text).statements;
    let last = cut.last().map_or_else(String::new, |last| last.text(&text).to_owned());
    Ok(Statements {
        count: cut.len(),
        last,
        role: role.as_ref().map(|role| role.value.clone()),
        expectations: expectations.iter().map(|expectation| expectation.value.clone()).collect(),
        within: *within,
        show: show.clone(),
        text,
    })
}

impl Step for Check {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move { Ok(self.0.planned("checks, by reading only")) })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { self.0.until_it_holds(cx).await })
    }
}

impl Step for Probe {
    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let mut change = self.0.planned("tries, and rolls back");
            if self.0.text.text.to_ascii_lowercase().contains("nextval") {
                change.details.push("values it takes from sequences are not given back".to_owned());
            }
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move { self.0.until_it_holds(cx).await })
    }
}

/// What came of one question.
struct Tried {
    verdict: Result<String, StepError>,
    evidence: Evidence,
}

impl Asking {
    fn new(block: &Block, workplace: &Workplace, read_only: bool) -> Result<Self, StepError> {
        let target = required_target(block)?;
        workplace.postgres(&target)?;
        let text = statements(block)?;
        Ok(Self { target, workplace: workplace.clone(), text, timeout: block.timeout, read_only })
    }

    fn planned(&self, what: &str) -> Change {
        let role = self.text.role.as_ref().map_or_else(String::new, |role| format!(" as {role}"));
        let count = match self.text.count {
            1 => String::new(),
            count => format!(" ({count} statements)"),
        };
        let mut change = Change { summary: format!("{what}{role}{count}"), ..Change::default() };
        if let Some(within) = self.text.within {
            change.details.push(format!("tried every {:?} for {:?}", within.every, within.limit));
        }
        change
    }

    /// Asks once, or again and again until it holds or the time is over.
    async fn until_it_holds(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let begun = cx.clock.instant();
        let mut tries = 0u32;
        loop {
            tries += 1;
            let Tried { verdict, mut evidence } = self.once(cx).await?;
            if tries > 1 {
                evidence = evidence.fact("tries", tries);
            }
            let error = match verdict {
                Ok(summary) => return Ok(Evidence { summary, ..evidence }),
                Err(error) => error,
            };
            let again = self.text.within.filter(|within| {
                let past = cx.clock.instant().duration_since(begun);
                past < within.limit && !cx.cancel.is_stopping()
            });
            let Some(within) = again else {
                let evidence = Evidence { summary: error.message.clone(), ..evidence };
                let message = match tries {
                    1 => error.message.clone(),
                    _ => format!("{}, in {tries} tries", error.message),
                };
                return Err(StepError { message, ..error }.evidence(evidence));
            };
            cx.say(format!("{}; again in {:?}", error.message, within.every));
            let left = within.limit.saturating_sub(cx.clock.instant().duration_since(begun));
            tokio::select! {
                () = cx.clock.sleep(within.every.min(left)) => {}
                () = cx.cancel.stopping() => {}
            }
        }
    }

    async fn once(&self, cx: &RunCx<'_>) -> Result<Tried, StepError> {
        let question = Question {
            read_only: self.read_only,
            role: self.text.role.as_deref(),
            timeout: self.timeout,
            text: &self.text.text,
            constraints: !self.read_only,
        };
        let name = application_name(cx.run, cx.step);
        loop {
            let session = self.workplace.session(&self.target, &name).await?;
            let mut judge = Judge::new(&self.text.expectations, &self.text.last);
            let begun = Instant::now();
            match ask(&session, &question, &mut judge, cx.cancel).await {
                Ok(answered) => {
                    let took = begun.elapsed();
                    self.workplace.give_back(session).await;
                    return self.judged(cx, &judge, &answered, took);
                }
                // A kept connection that the server had closed meanwhile: nothing has happened.
                Err(_) if session.reused && session.is_closed() => {}
                Err(error) => {
                    let error = error.into_step_error();
                    // Whatever the transaction did, it was never to be committed.
                    return Err(StepError { failure: pgrunbook_engine::step::Failure::Failed, ..error });
                }
            }
        }
    }

    fn judged(
        &self,
        cx: &RunCx<'_>,
        judge: &Judge<'_>,
        answered: &Answered,
        took: Duration,
    ) -> Result<Tried, StepError> {
        if let Some(raised) = &answered.raised {
            if raised.sqlstate == "57014" && cx.cancel.is_aborting() {
                return Err(StepError::interrupted("interrupted; the statement was cancelled and rolled back"));
            }
            if answered.before {
                let role = self.text.role.as_deref().unwrap_or_default();
                return Err(StepError::failed(
                    format!("sqlstate-{}", raised.sqlstate),
                    format!("the connection's role cannot become `{role}`: {}", raised.message),
                )
                .help(format!("GRANT {role} TO the role that connects, or correct the name after `as:`")));
            }
        }
        let evidence = self.evidence(judge, answered, took);
        let verdict = judge.verdict(answered.raised().as_ref()).map_err(|sentence| match &answered.raised {
            Some(raised) if !judge.expects_error() => {
                let error = StepError::failed(format!("sqlstate-{}", raised.sqlstate), sentence);
                match &raised.hint {
                    Some(hint) => error.help(hint.clone()),
                    None => error,
                }
            }
            _ => StepError::failed("gate", sentence),
        });
        // An expected error proves something only if it is the last statement's.
        let verdict = match &answered.raised {
            Some(raised) if verdict.is_ok() && answered.done + 1 < self.text.count && raised.sqlstate != "42601" => {
                Err(StepError::failed(
                    "gate",
                    format!(
                        "expected the last of {} statements to fail, got {}: {} from statement {} already",
                        self.text.count,
                        raised.sqlstate,
                        raised.message,
                        answered.done + 1
                    ),
                ))
            }
            _ => verdict,
        };
        Ok(Tried { verdict, evidence })
    }

    fn evidence(&self, judge: &Judge<'_>, answered: &Answered, took: Duration) -> Evidence {
        let mut evidence = Evidence::default()
            .fact("query_sha256", format!("{:x}", Sha256::digest(&self.text.text)))
            .fact("target", self.workplace.postgres(&self.target).map_or_else(|_| String::new(), ToString::to_string))
            .fact("row_count", judge.seen.row_count)
            .fact("micros", u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if let Some(role) = &self.text.role {
            evidence = evidence.fact("role", role.clone());
        }
        if let Some(raised) = &answered.raised {
            evidence = evidence.fact("sqlstate", raised.sqlstate.clone()).fact("message", raised.message.clone());
        }
        match judge.sample(&self.text.show) {
            Some(sample) => evidence.fact("sample", sample),
            None => evidence,
        }
    }
}

/// `pgrunbook:<run>:<step>`.
pub(crate) fn application_name(run: &str, step: &StepId) -> String {
    format!("pgrunbook:{run}:{step}")
}
