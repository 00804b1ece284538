//! `apply`: statements that change the database, committed together with the record that they did.

use std::time::{Duration, Instant};

use pgrunbook_document::sql::{Class, Outside, classify, quote, split};
use pgrunbook_document::{Block, Diagnostic};
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::step::{Failure, Progress};
use pgrunbook_engine::{Change, Doing, Effect, Evidence, Happened, PlanCx, RunCx, Step, StepError};
use pgrunbook_postgres::ledger::Entry;
use pgrunbook_postgres::retry::{Blocker, LOCK_NOT_AVAILABLE, LockPolicy, LockRetry};
use pgrunbook_postgres::{PgError, Session};
use sha2::{Digest, Sha256};

use super::judge::Judge;
use super::outside::{Stands, is_finished_by, stands};
use super::send::{Answered, Streamed};
use super::step::{Around, Statements, application_name, refusal, statements_around};
use crate::registry::required_target;
use crate::workplace::Workplace;

/// Changes the database.
///
/// Effect: transactional; of a single statement that cannot run in a transaction, resolvable where the catalog tells
/// whether it happened. Undo: the block that `undo` names.
pub struct Apply {
    target: String,
    workplace: Workplace,
    text: Statements,
    timeout: Option<Duration>,
    /// The statement that cannot run in a transaction, if it is one.
    outside: Option<Outside>,
}

/// Finds what keeps a block from being an apply, for lint.
pub(super) fn lint(block: &Block) -> Result<(), Diagnostic> {
    let Some(body) = &block.sql else { return Ok(()) };
    let place = |range: std::ops::Range<usize>| {
        block.locate(body.statements.start + range.start..body.statements.start + range.end)
    };
    if let Some(refusal) = refusal(block.statements(), Around::Anything) {
        return Err(Diagnostic::error(refusal.code, place(refusal.range), refusal.what).help(refusal.help));
    }
    match alone(block.statements()) {
        Ok(_) => Ok(()),
        Err((what, range)) => Err(Diagnostic::error("needs-no-transaction", place(range), what)
            .help("give it a step of its own, so that a crash leaves no doubt about the others")),
    }
}

/// The statement that cannot run in a transaction: it must be alone.
fn alone(text: &str) -> Result<Option<Outside>, (String, std::ops::Range<usize>)> {
    let cut = split(text).statements;
    for statement in &cut {
        let Class::Outside(outside) = classify(statement.text(text)) else { continue };
        let shown = crate::migrate::shown(&outside);
        if cut.len() > 1 {
            return Err((
                format!("{shown} cannot run in a transaction with other statements"),
                statement.range.clone(),
            ));
        }
        if let Outside::CreateIndex { index: None, .. } = outside {
            return Err((
                format!("{shown} needs a name, by which it can be found after a crash"),
                statement.range.clone(),
            ));
        }
        return Ok(Some(outside));
    }
    Ok(None)
}

impl Apply {
    /// Reads a block whose variables are bound.
    ///
    /// # Errors
    /// If its statements cannot be an apply.
    pub fn new(block: &Block, workplace: &Workplace) -> Result<Self, StepError> {
        let target = required_target(block)?;
        workplace.postgres(&target)?;
        let text = statements_around(block, Around::Anything)?;
        let outside = alone(&text.text)
            .map_err(|(what, _)| StepError::unusable("needs-no-transaction", format!("step `{}`: {what}", block.id)))?;
        Ok(Self { target, workplace: workplace.clone(), text, timeout: block.timeout, outside })
    }

    async fn connect(&self, cx: &RunCx<'_>) -> Result<Session, StepError> {
        let options = self.workplace.postgres(&self.target)?;
        Session::connect(options, &application_name(cx.run, cx.step)).await.map_err(PgError::into_step_error)
    }

    /// Everything in one transaction, that waits briefly for its locks and begins again if it does not get them.
    async fn in_transaction(&self, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let session = self.connect(cx).await?;
        let entry = Entry::of(cx);
        let policy = LockPolicy::default();
        let begun = Instant::now();
        let mut retry = LockRetry::new(&policy, cx.clock, cx.cancel);
        let evidence = loop {
            let mut judge = Judge::new(&self.text.expectations, &self.text.last);
            let attempt = self.attempt(&session, &entry, &policy, &mut judge, cx);
            let tried = retry.once(&session, attempt, |blockers, pause| cx.say(held_by(blockers, pause))).await;
            if let Some(done) = tried.map_err(PgError::into_step_error)? {
                break done?;
            }
        };
        Ok(evidence.fact("micros", u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)))
    }

    async fn attempt(
        &self,
        session: &Session,
        entry: &Entry<'_>,
        policy: &LockPolicy,
        judge: &mut Judge<'_>,
        cx: &RunCx<'_>,
    ) -> Result<Result<Evidence, StepError>, PgError> {
        // Until COMMIT is sent, a lost connection is no doubt: nothing was committed.
        let lost = |error: PgError| {
            let error = error.into_step_error();
            StepError { failure: Failure::Failed, ..error }
        };
        let (before, count) = self.preamble(entry, policy);
        let first = match Streamed::send(session, &format!("{before}{}", self.text.text)).await {
            Ok(sent) => sent.read(session, count, Some(judge), cx.cancel).await,
            Err(error) => Err(error),
        };
        let answered = match first {
            Ok(answered) => answered,
            Err(error) => return Ok(Err(lost(error))),
        };
        let verdict = match &answered.raised {
            Some(raised) if raised.sqlstate == LOCK_NOT_AVAILABLE => {
                session.execute("ROLLBACK").await?;
                return Err(PgError::Server(Box::new(raised.clone())));
            }
            Some(raised) => Err(self.explained(raised, &answered, cx)),
            None => {
                judge.verdict(None).map_err(|sentence| StepError::failed("gate", format!("{sentence}; rolled back")))
            }
        };
        let summary = match verdict {
            Ok(summary) => summary,
            Err(error) => {
                // A connection that is lost now is closed: the server rolls back by itself.
                let _ = session.execute("ROLLBACK").await;
                return Ok(Err(error));
            }
        };
        fault::pass(Point::BeforeCommit);
        let end = format!("RESET SESSION AUTHORIZATION; RESET ROLE; {}; COMMIT", entry.record_sql());
        let committed = session.execute(&end).await;
        fault::pass(Point::AfterCommit);
        if let Err(error) = committed {
            if !session.is_closed() {
                // A deferred constraint at COMMIT, say: rolled back, certainly.
                let _ = session.execute("ROLLBACK").await;
            }
            return Ok(Err(error.into_step_error()));
        }
        Ok(Ok(self.evidence(summary, judge)))
    }

    fn preamble(&self, entry: &Entry<'_>, policy: &LockPolicy) -> (String, usize) {
        let mut text = format!("BEGIN;{};{};", policy.set_local(), entry.assert_sql());
        let mut count = 3;
        if let Some(timeout) = self.timeout {
            text.push_str(&format!("SET LOCAL statement_timeout = {};", timeout.as_millis().max(1)));
            count += 1;
        }
        if let Some(role) = &self.text.role {
            // A role's name comes from a runbook, which holds no NUL.
            text.push_str(&format!("SET LOCAL ROLE {};", quote::ident(role).unwrap_or_default()));
            count += 1;
        }
        (text, count)
    }

    /// What the server's refusal means to the operator.
    fn explained(&self, raised: &pgrunbook_postgres::ServerError, answered: &Answered, cx: &RunCx<'_>) -> StepError {
        if raised.sqlstate == "57014" && cx.cancel.is_aborting() {
            return StepError::interrupted("interrupted; the statement was cancelled and rolled back");
        }
        if raised.sqlstate == pgrunbook_postgres::ledger::FENCED {
            return StepError::failed("fenced", raised.message.clone());
        }
        let place = match (answered.before, self.text.count) {
            (true, _) => "before its first statement, ".to_owned(),
            (false, 1) => String::new(),
            (false, count) => format!("in statement {} of {count}, ", answered.done + 1),
        };
        let error = PgError::Server(Box::new(raised.clone())).into_step_error();
        StepError { message: format!("{place}{}; rolled back", error.message), ..error }
    }

    fn evidence(&self, summary: String, judge: &Judge<'_>) -> Evidence {
        let mut evidence = Evidence::of(summary)
            .fact("statements", self.text.count)
            .fact("query_sha256", format!("{:x}", Sha256::digest(&self.text.text)))
            .fact("row_count", judge.seen.row_count);
        if let Some(role) = &self.text.role {
            evidence = evidence.fact("role", role.clone());
        }
        match judge.sample(&self.text.show) {
            Some(sample) => evidence.fact("sample", sample),
            None => evidence,
        }
    }

    /// A single statement that the server runs only outside of a transaction.
    async fn on_its_own(&self, outside: &Outside, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        let session = self.connect(cx).await?;
        let read = |error: PgError| {
            let error = error.into_step_error();
            StepError { failure: Failure::Failed, ..error }
        };
        session.execute(&Entry::of(cx).assert_sql()).await.map_err(read)?;
        let Stands::Open { before } = stands(&session, outside).await.map_err(read)? else {
            return self.run_alone(&session, cx).await;
        };
        for statement in &before {
            cx.watcher.progress(cx.step, Progress::Line { text: format!("clearing away: {statement}") });
            session.execute(statement).await.map_err(read)?;
        }
        if is_finished_by(&before) {
            return Ok(Evidence::of("finished what an earlier attempt had begun").fact("repaired", before));
        }
        let evidence = self.run_alone(&session, cx).await?;
        Ok(if before.is_empty() { evidence } else { evidence.fact("repaired", before) })
    }

    async fn run_alone(&self, session: &Session, cx: &RunCx<'_>) -> Result<Evidence, StepError> {
        if let Some(timeout) = self.timeout {
            let set = format!("SET statement_timeout = {}", timeout.as_millis().max(1));
            session.execute(&set).await.map_err(PgError::into_step_error)?;
        }
        if let Some(role) = &self.text.role {
            let set = format!("SET ROLE {}", quote::ident(role).unwrap_or_default());
            session.execute(&set).await.map_err(PgError::into_step_error)?;
        }
        let mut judge = Judge::new(&self.text.expectations, &self.text.last);
        fault::pass(Point::BeforeEffect);
        let sent = Streamed::send(session, &self.text.text).await.map_err(PgError::into_step_error)?;
        let answered = sent.read(session, 0, Some(&mut judge), cx.cancel).await.map_err(PgError::into_step_error)?;
        fault::pass(Point::AfterEffect);
        match &answered.raised {
            None => match judge.verdict(None) {
                Ok(summary) => Ok(self.evidence(summary, &judge)),
                Err(sentence) => Err(StepError::failed("gate", sentence)),
            },
            Some(raised) if raised.sqlstate == "57014" && cx.cancel.is_aborting() => Err(StepError::interrupted(
                "interrupted; what the statement left half done is cleared away by the next attempt",
            )),
            Some(raised) => Err(PgError::Server(Box::new(raised.clone())).into_step_error()),
        }
    }
}

/// For the operator, while a lock is waited for.
pub(crate) fn held_by(blockers: &[Blocker], pause: Duration) -> String {
    let who = blockers.first().map_or_else(|| "another session".to_owned(), ToString::to_string);
    format!("a lock is held by {who}; gave way, again in {pause:.1?}")
}

impl Step for Apply {
    fn effect(&self) -> Effect {
        if self.outside.is_some() { Effect::Resolvable } else { Effect::Transactional }
    }

    fn plan<'a>(&'a self, _cx: &'a PlanCx<'_>) -> Doing<'a, Change> {
        Box::pin(async move {
            let role = self.text.role.as_ref().map_or_else(String::new, |role| format!(" as {role}"));
            let count =
                if self.text.count == 1 { "1 statement".to_owned() } else { format!("{} statements", self.text.count) };
            let how = match &self.outside {
                Some(outside) => format!("{} outside of a transaction", crate::migrate::shown(outside)),
                None => "in one transaction".to_owned(),
            };
            let mut change = Change { summary: format!("{count}{role}, {how}"), ..Change::default() };
            for statement in split(&self.text.text).statements.iter().take(20) {
                let line = statement.text(&self.text.text).split_whitespace().collect::<Vec<_>>().join(" ");
                let shown: String = line.chars().take(100).collect();
                let more = if shown.len() < line.len() { "…" } else { "" };
                change.details.push(format!("{shown}{more}"));
            }
            Ok(change)
        })
    }

    fn apply<'a>(&'a self, cx: &'a mut RunCx<'_>) -> Doing<'a, Evidence> {
        Box::pin(async move {
            match &self.outside {
                Some(outside) => self.on_its_own(outside, cx).await,
                None => self.in_transaction(cx).await,
            }
        })
    }

    fn resolve<'a>(&'a self, cx: &'a RunCx<'_>) -> Doing<'a, Happened> {
        Box::pin(async move {
            let options = self.workplace.postgres(&self.target)?;
            let session = Session::connect(options, "pgrunbook:resolve").await.map_err(PgError::into_step_error)?;
            let Some(outside) = &self.outside else {
                let recorded = Entry::of(cx).is_recorded(&session).await.map_err(PgError::into_step_error)?;
                let evidence = Evidence::of("committed, as the ledger says").fact("statements", self.text.count);
                return Ok(if recorded { Happened::Yes(evidence) } else { Happened::No });
            };
            pgrunbook_postgres::ledger::settle(&session, cx.run).await.map_err(PgError::into_step_error)?;
            Ok(match stands(&session, outside).await.map_err(PgError::into_step_error)? {
                Stands::Done => Happened::Yes(Evidence::of("it is there, as the catalog says")),
                Stands::Open { .. } => Happened::No,
                Stands::Unknown(why) => Happened::Unknown(why.to_owned()),
            })
        })
    }
}
