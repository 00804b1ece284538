//! A crossing: the right to write moves from one side of a transfer to the other, and no write is lost.
//!
//! At any moment at most one side takes writes. A crossing fences the side that did, applies everything up to the fence's
//! marker to the other side, proves that both are equal there, and opens the other side. Until that last act everything
//! can be taken back by lifting one fence, and is, whenever anything fails or takes longer than its budget. Forth and back
//! are the same machine with the sides exchanged.
//!
//! What happens while writers wait is only what depends on changes: the work that depends on the amount of data
//! ([`Leg::prepare`]) comes before the fence.

mod postgres;
mod sqlite;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use pgrunbook_engine::step::{Direction, Failure};
use pgrunbook_engine::{Cancel, Evidence, StepError, SystemClock};
use pgrunbook_postgres::error::may_pass;
use pgrunbook_postgres::pgbouncer::Door;
use pgrunbook_postgres::{PgError, Session, ledger};

use super::spec::Side;
use super::sqlite::is_file;
use super::standing::{Which, stopped_error};
use super::state::{self, Phase};
use super::step::{recorded, records};
use crate::fence::freeze::{Freeze, Undo};
use crate::fence::{Patience, RESUME_BUDGET, Retries, Whose, pause_all, resume_all};
use crate::workplace::Workplace;

pub use postgres::PostgresLeg;
pub use sqlite::SqliteLeg;

/// What an operator asks of a crossing.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The transfers that cross at one moment, by schema.
    pub schemas: Vec<String>,
    /// From the first lock to the opened side; when it is over, everything is undone.
    pub budget: Duration,
    pub lock_timeout: Duration,
    /// How long may be waited, before anything is fenced, for the streams to catch up.
    pub catch_up: Duration,
    /// Poolers in front of the application. They stay paused after a success, until traffic was switched.
    pub doors: Vec<Door>,
    /// From the first lock until traffic was switched; when it is over, everything is undone.
    pub switch_within: Option<Duration>,
    /// What writers on the fenced side read.
    pub message: Option<String>,
    /// The application's role, as which a write is tried on the fenced side.
    pub trial_as: Option<String>,
    pub parity: Parity,
}

/// Which rows are compared while writers wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    /// Those that changed since both sides were compared last.
    #[default]
    Changed,
    /// All.
    Full,
}

/// Who crosses.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    pub run: &'a str,
    pub operator: &'a str,
    /// Names this crossing: the fence's marker carries it. Never used twice.
    pub id: &'a str,
    pub step: &'a str,
    pub direction: Direction,
    /// Of this process: it may cross only as long as it has the run.
    pub epoch: u64,
    /// The run's folder.
    pub folder: &'a Path,
}

/// Which process settles what another one left.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    pub run: &'a str,
    pub epoch: u64,
    pub operator: &'a str,
}

impl Owner<'_> {
    /// Sees to it that nothing of the run's earlier processes is under way in a database, and that nothing of them can begin.
    async fn take(&self, session: &Session) -> Result<(), StepError> {
        // A session in the middle of a transaction would hold the record up.
        ledger::settle(session, self.run).await.map_err(PgError::into_step_error)?;
        ledger::hold(session, self.run, self.epoch, self.operator).await.map_err(PgError::into_step_error)?;
        ledger::settle(session, self.run).await.map_err(PgError::into_step_error)
    }
}

/// How one crossing goes: what was asked, and by whom.
#[derive(Debug, Clone)]
pub struct How {
    pub asked: Asked,
    pub run: String,
    pub operator: String,
    pub id: String,
    pub step: String,
    pub direction: Direction,
    pub epoch: u64,
    /// The project's folder.
    pub root: PathBuf,
}

impl How {
    fn patience(&self) -> Patience {
        Patience::within(self.asked.lock_timeout, self.asked.budget)
    }

    /// The statement with which every transaction of a crossing begins: another process may have taken the run over while
    /// this one stood still.
    fn assert(&self) -> String {
        ledger::assert_sql(&self.run, self.epoch)
    }
}

/// The statement that records a phase of a transfer if `now` holds of what is recorded, and fails otherwise: somebody else has
/// settled the crossing, or begun another.
fn phase_if(schema: &str, phase: Phase, crossing: Option<&str>, now: &str) -> String {
    let update = format!("{} AND {now}", state::phase_sql(schema, phase, crossing));
    let why = format!("the crossing of {schema} is not this process's any more: another one has settled it");
    let body = format!(
        "BEGIN {update}; IF NOT FOUND THEN RAISE EXCEPTION USING ERRCODE = '{}', MESSAGE = {}; END IF; END",
        ledger::FENCED,
        state::text(&why)
    );
    format!("DO {}", state::text(&body))
}

/// The condition that this crossing is under way.
fn is_mine(id: &str) -> String {
    format!("crossing = {}", state::text(id))
}

/// The condition that none is under way, and the transfer in this phase.
fn is_at(phase: Phase) -> String {
    format!("phase = {} AND crossing IS NULL", state::text(phase.word()))
}

/// What one transfer does in a crossing.
pub enum Leg {
    Postgres(Box<PostgresLeg>),
    Sqlite(Box<SqliteLeg>),
}

impl Leg {
    fn schema(&self) -> &str {
        match self {
            Self::Postgres(leg) => leg.schema(),
            Self::Sqlite(leg) => leg.schema(),
        }
    }

    fn by_hand(&self) -> String {
        match self {
            Self::Postgres(leg) => leg.by_hand(),
            Self::Sqlite(leg) => leg.by_hand(),
        }
    }

    /// Everything that can be done while writers are at work: the streams catch up, the way back is made ready, what was
    /// copied is compared.
    async fn prepare(&mut self, how: &How, cancel: &Cancel) -> Result<(), StepError> {
        match self {
            Self::Postgres(leg) => leg.prepare(how, cancel).await,
            Self::Sqlite(leg) => leg.prepare(how, cancel).await,
        }
    }

    /// Stops the writers.
    async fn fence(&mut self, how: &How, cancel: &Cancel) -> Result<(), StepError> {
        match self {
            Self::Postgres(leg) => leg.fence(how, cancel).await,
            Self::Sqlite(leg) => leg.fence(how, cancel).await,
        }
    }

    /// Applies what they wrote, and proves that both sides are equal.
    async fn settle(&mut self, how: &How) -> Result<(), StepError> {
        match self {
            Self::Postgres(leg) => leg.settle(how).await,
            Self::Sqlite(leg) => leg.settle(how).await,
        }
    }

    /// Lets writers in on the other side. After this the crossing has happened.
    async fn open(&mut self, how: &How, cancel: &Cancel) -> Result<Evidence, StepError> {
        match self {
            Self::Postgres(leg) => leg.open(how, cancel).await,
            Self::Sqlite(leg) => leg.open(how, cancel).await,
        }
    }

    /// Lets writers go on where they were.
    async fn undo(&mut self, how: &How) -> Result<(), StepError> {
        match self {
            Self::Postgres(leg) => leg.undo(how).await,
            Self::Sqlite(leg) => leg.undo(how).await,
        }
    }
}

/// What a crossing took and showed.
#[derive(Debug, Default)]
struct Crossed {
    /// From the first lock, or the poolers' pause, to the opened side.
    frozen: Duration,
    /// By schema.
    legs: Vec<(String, Evidence)>,
}

impl Crossed {
    /// Rows that were proven equal, of all schemas.
    fn compared(&self) -> u64 {
        self.legs.iter().filter_map(|(_, leg)| leg.facts.get("parity")?.get("compared")?.as_u64()).sum()
    }
}

/// Moves the right to write of these transfers to one side. Those that are there already stay.
///
/// # Errors
/// With the reason; then writers are where they were, unless the error says that it happened in parts.
pub async fn cutover(
    workplace: &Workplace,
    target: &str,
    asked: &Asked,
    to: Side,
    who: &Who<'_>,
    cancel: &Cancel,
    say: &(dyn Fn(String) + Sync),
) -> Result<Evidence, StepError> {
    let mut legs = legs(workplace, target, &asked.schemas, to, who).await?;
    let side = to.word();
    if legs.is_empty() {
        return Ok(Evidence::of(format!("the {side} takes the writes already")).fact("frozen_us", 0));
    }
    let how = How {
        asked: asked.clone(),
        run: who.run.to_owned(),
        operator: who.operator.to_owned(),
        id: who.id.to_owned(),
        step: who.step.to_owned(),
        direction: who.direction,
        epoch: who.epoch,
        root: workplace.root().to_owned(),
    };
    let crossed = cross(&mut legs, to, &how, cancel, say).await?;
    if let Some(within) = asked.switch_within {
        arm(workplace, target, to, &how, who.folder, within.saturating_sub(crossed.frozen));
    }
    let mut evidence = Evidence::of(format!(
        "the {side} takes the writes of {}; writers waited {:.0} ms; {} rows compared, none differs",
        asked.schemas.join(", "),
        crossed.frozen.as_secs_f64() * 1e3,
        crossed.compared()
    ))
    .fact("frozen_us", u64::try_from(crossed.frozen.as_micros()).unwrap_or(u64::MAX))
    .fact("to", side)
    .fact("fence", how.id.clone());
    for (schema, leg) in crossed.legs {
        evidence = evidence.fact(&schema, serde_json::to_value(leg.facts).expect("JSON values"));
    }
    Ok(evidence)
}

async fn legs(
    workplace: &Workplace,
    target: &str,
    schemas: &[String],
    to: Side,
    who: &Who<'_>,
) -> Result<Vec<Leg>, StepError> {
    let records = records(workplace, target, &format!("pgrunbook:{}:cutover", who.run)).await?;
    let (before, after) = match to {
        Side::Target => (Phase::Following, Phase::Switched),
        Side::Source => (Phase::Switched, Phase::Following),
    };
    let mut legs = Vec::new();
    for schema in schemas {
        let transfer = recorded(&records, schema).await?;
        if transfer.phase == after {
            continue;
        }
        if transfer.phase != before {
            return Err(StepError::unusable(
                "phase",
                format!(
                    "the transfer into {schema} is {}, and must be {} to cut over to the {}. Nothing was changed.",
                    transfer.phase.word(),
                    before.word(),
                    to.word()
                ),
            ));
        }
        // Whatever was feared once: all rows are compared on the way back, and that says more.
        if let Some(stopped) = &transfer.stopped {
            return Err(stopped_error(stopped, Which { schema, target }));
        }
        legs.push(match is_file(workplace, &transfer.spec.from) {
            true => Leg::Sqlite(Box::new(SqliteLeg::new(workplace, target, transfer, to)?)),
            false => Leg::Postgres(Box::new(PostgresLeg::new(workplace, target, transfer, to)?)),
        });
    }
    Ok(legs)
}

/// If traffic is not switched in this time, everything is undone.
fn arm(workplace: &Workplace, target: &str, to: Side, how: &How, folder: &Path, left: Duration) {
    let (workplace, target, how, folder) = (workplace.clone(), target.to_owned(), how.clone(), folder.to_owned());
    let whose = Whose {
        run: how.run.clone(),
        step: how.step.clone(),
        direction: how.direction,
        schemas: how.asked.schemas.clone(),
        folder: Some(folder.clone()),
    };
    // The poolers are paused already, and this is the last that is armed.
    let back = Asked {
        doors: Vec::new(),
        switch_within: None,
        budget: resume_budget(&how.asked),
        catch_up: resume_budget(&how.asked),
        ..how.asked.clone()
    };
    let undo: Undo = Box::new(move || {
        Box::pin(async move {
            let mut retries = Retries::within(back.budget);
            let undone = loop {
                // The marker of every try is another one.
                let id = format!("{}.expired{}", how.id, retries.number);
                let who = Who {
                    run: &how.run,
                    operator: &how.operator,
                    id: &id,
                    step: &how.step,
                    direction: how.direction,
                    epoch: how.epoch,
                    folder: &folder,
                };
                let crossed =
                    Box::pin(cutover(&workplace, &target, &back, to.other(), &who, &Cancel::default(), &|_| {})).await;
                match crossed {
                    Err(error) if retries.again(may_pass(&error)).await => {}
                    done => break done,
                }
            };
            // Whatever became of it: nobody waits at a pooler for a process that may be gone.
            let resumed = resume_all(workplace.root(), &how.asked.doors, resume_budget(&back)).await;
            let undone = undone.map(drop).map_err(|error| error.message);
            match (undone, resumed) {
                (Ok(()), Ok(())) => Ok(()),
                (Err(why), Ok(())) => Err(why),
                (Ok(()), Err(stuck)) => Err(format!("the {} takes the writes again; {stuck}", to.other().word())),
                (Err(why), Err(stuck)) => Err(format!("{why}; {stuck}")),
            }
        })
    });
    Freeze::begin(whose, left, Arc::new(SystemClock), undo);
}

/// How long it is tried to let clients go on.
fn resume_budget(asked: &Asked) -> Duration {
    asked.budget.max(RESUME_BUDGET)
}

/// Crosses with all these transfers at one moment.
async fn cross(
    legs: &mut [Leg],
    to: Side,
    how: &How,
    cancel: &Cancel,
    say: &(dyn Fn(String) + Sync),
) -> Result<Crossed, StepError> {
    try_join_all(legs.iter_mut().map(|leg| leg.prepare(how, cancel))).await?;
    if cancel.is_stopping() {
        return Err(StepError::interrupted("stopped before anything was fenced: writers go on"));
    }

    let begun = Instant::now();
    let frozen = tokio::time::timeout(how.asked.budget, async {
        pause_all(&how.root, [&how.run, &how.step], &how.asked.doors, how.asked.budget).await.map_err(|error| {
            StepError::failed("pooler", error.to_string()).help("look at the pooler: `SHOW POOLS` in its console")
        })?;
        try_join_all(legs.iter_mut().map(|leg| leg.fence(how, cancel))).await?;
        try_join_all(legs.iter_mut().map(|leg| leg.settle(how))).await?;
        if cancel.is_aborting() {
            return Err(StepError::interrupted("stopped before the other side was opened"));
        }
        Ok(())
    })
    .await;
    let outcome = frozen.unwrap_or_else(|_| {
        Err(StepError::failed(
            "freeze-budget",
            format!("the freeze was not over within its budget of {:.1} s", how.asked.budget.as_secs_f64()),
        )
        .help("look at the lag and at long transactions of the writers, or give a larger `budget`"))
    });
    if let Err(error) = outcome {
        say(format!("giving up after {} ms: writers go on where they were", begun.elapsed().as_millis()));
        return Err(undone(legs, how, error).await);
    }

    let mut crossed = Crossed::default();
    let opened = join_all(legs.iter_mut().map(|leg| leg.open(how, cancel))).await;
    let mut failed = Vec::new();
    for (at, outcome) in opened.into_iter().enumerate() {
        match outcome {
            Ok(evidence) => crossed.legs.push((legs[at].schema().to_owned(), evidence)),
            Err(error) => failed.push((at, error)),
        }
    }
    crossed.frozen = begun.elapsed();
    let is_in_doubt = |failed: &[(usize, StepError)]| failed.iter().any(|(_, error)| error.failure == Failure::InDoubt);
    if failed.is_empty() {
        return Ok(crossed);
    }
    if crossed.legs.is_empty() && !is_in_doubt(&failed) {
        let (_, error) = failed.swap_remove(0);
        return Err(undone(legs, how, error).await);
    }
    Err(partly(legs, how, to, &crossed, failed).await)
}

/// Some are open, and some could not be opened: of these writers go on where they were, and not nowhere. Which side has one that
/// may have been opened nobody knows: it stays as it is.
async fn partly(
    legs: &mut [Leg],
    how: &How,
    to: Side,
    crossed: &Crossed,
    failed: Vec<(usize, StepError)>,
) -> StepError {
    let done: Vec<&str> = crossed.legs.iter().map(|(schema, _)| schema.as_str()).collect();
    let evidence = Evidence::of(format!("{} of {} take writes on the {}", done.len(), legs.len(), to.word()))
        .fact("schemas", done.clone());
    let mut said = Vec::new();
    for (at, error) in &failed {
        said.push(format!("schema {}: {}", legs[*at].schema(), error.message.trim_end_matches('.')));
    }
    let is_shut = |at: usize| failed.iter().any(|(of, error)| *of == at && error.failure != Failure::InDoubt);
    let shut = legs.iter_mut().enumerate().filter(|(at, _)| is_shut(*at)).map(|(_, leg)| leg);
    let (back, mut left, by_hand) = let_go(shut, how).await;
    if let Err(stuck) = resume_all(&how.root, &how.asked.doors, resume_budget(&how.asked)).await {
        left.push(stuck.to_string());
    }
    let mut message = format!("{}.", said.join("; "));
    if !done.is_empty() {
        message.push_str(&format!(" The {} takes the writes of {}.", to.word(), done.join(", ")));
    }
    if !back.is_empty() {
        message.push_str(&format!(" Writers of {} go on where they were; nothing was lost.", back.join(", ")));
    }
    if !left.is_empty() {
        message.push_str(&format!(" And {}", left.join("; ")));
    }
    // What is in doubt counts: it is looked at before anything is done again.
    let at = failed.iter().position(|(_, error)| error.failure == Failure::InDoubt).unwrap_or_default();
    let first = failed.into_iter().nth(at).map(|(_, error)| error);
    let first = first.unwrap_or_else(|| StepError::failed("crossing", "some were not opened"));
    let told = StepError { message, ..first };
    let told = if by_hand.is_empty() { told } else { told.help(by_hand) };
    told.partly(evidence)
}

/// Lets everybody go on where they were.
async fn undone(legs: &mut [Leg], how: &How, error: StepError) -> StepError {
    let (_, mut left, by_hand) = let_go(legs.iter_mut(), how).await;
    if let Err(stuck) = resume_all(&how.root, &how.asked.doors, resume_budget(&how.asked)).await {
        left.push(stuck.to_string());
    }
    let message = error.message.trim_end_matches('.').to_owned();
    if left.is_empty() {
        return StepError { message: format!("{message}. Writers go on where they were; nothing was lost."), ..error };
    }
    let told = StepError { message: format!("{message}. And {}", left.join("; ")), ..error };
    // A pooler that stays paused says itself what to do.
    if by_hand.is_empty() { told } else { told.help(by_hand) }
}

/// Undoes these: the schemas of which writers go on, what is said of the others, and how a person opens those.
async fn let_go(legs: impl Iterator<Item = &mut Leg>, how: &How) -> (Vec<String>, Vec<String>, String) {
    let undo_one = async |leg: &mut Leg| (undo(leg, how).await, leg.schema().to_owned(), leg.by_hand());
    let (mut back, mut left, mut by_hand) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (outcome, schema, how) in join_all(legs.map(undo_one)).await {
        match outcome {
            Ok(()) => back.push(schema),
            Err(error) => {
                left.push(format!("schema {schema} is still fenced: {error}"));
                by_hand.insert(how);
            }
        }
    }
    (back, left, by_hand.into_iter().collect::<Vec<_>>().join("; "))
}

/// Undoes what one leg did.
async fn undo(leg: &mut Leg, how: &How) -> Result<(), StepError> {
    let mut retries = Retries::within(resume_budget(&how.asked));
    loop {
        match leg.undo(how).await {
            Err(error) if retries.again(may_pass(&error)).await => {}
            done => return done,
        }
    }
}

/// After a crash in a crossing: what was not opened is undone, what was is recorded. Does nothing where none is under way.
///
/// # Errors
/// If a side cannot be asked, also not after a while: writers may be waiting for it. It may be called again.
pub async fn recover(workplace: &Workplace, target: &str, schemas: &[String], by: &Owner<'_>) -> Result<(), StepError> {
    let mut retries = Retries::within(RESUME_BUDGET);
    loop {
        match settle(workplace, target, schemas, by).await {
            Err(error) if retries.again(may_pass(&error)).await => {}
            done => return done,
        }
    }
}

async fn settle(workplace: &Workplace, target: &str, schemas: &[String], by: &Owner<'_>) -> Result<(), StepError> {
    let records = records(workplace, target, &format!("pgrunbook:{}:recover", by.run)).await?;
    for schema in schemas {
        let transfer = recorded(&records, schema).await?;
        let (Phase::Forth | Phase::Back, Some(id)) = (transfer.phase, transfer.crossing.clone()) else { continue };
        if is_file(workplace, &transfer.spec.from) {
            sqlite::recover(workplace, target, &transfer, &id, by, &records).await?;
        } else {
            postgres::recover(workplace, target, &transfer, &id, by, &records).await?;
        }
    }
    Ok(())
}
