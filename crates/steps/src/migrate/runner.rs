//! Takes a chain up or down.

use std::time::{Duration, Instant};

use pgrunbook_document::sql::{Class, classify};
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::step::Failure;
use pgrunbook_engine::{Cancel, Clock, RunCx, StepError, SystemClock};
use pgrunbook_postgres::ledger;
use pgrunbook_postgres::retry::{LOCK_NOT_AVAILABLE, LockPolicy, LockRetry};
use pgrunbook_postgres::{ConnectOptions, PgError, ServerError, Session};

use super::chain::{Chain, Migration, Repeatable, Script, normalise};
use super::deployment_log::LogWrite;
use super::error::ChainError;
use super::history::{self, Entry, Kept};
use super::layout::Version;
use super::lease::Lease;
use super::send::{self, Broken, Raised};
use super::standing::{Finding, RowState, Standing, compare};
use super::text::{Mode, Text};
use super::verify;
use super::version_row::VersionWrite;
use super::watch::Watch;
use crate::sql::{Stands, held_by, is_finished_by, stands};

/// What a runner needs to know of whoever called it.
#[derive(Clone)]
pub struct Around<'a> {
    pub clock: &'a dyn Clock,
    pub cancel: &'a Cancel,
    /// Who runs it, as `user@host`.
    pub operator: &'a str,
    /// The run and step of a runbook that it acts for.
    pub run: Option<(&'a str, &'a str)>,
    /// A statement that each transaction begins with: that the run's epoch is still this process's.
    pub assert: Option<String>,
    /// Tells a line.
    pub tell: &'a (dyn Fn(String) + Send + Sync),
    /// Looks on where a file cannot run in one transaction.
    pub watch: Option<&'a Watch>,
}

impl<'a> Around<'a> {
    /// Of a step of a run: each transaction begins by making sure that the run is still this process's.
    pub fn of_step(cx: &'a RunCx<'_>, tell: &'a (dyn Fn(String) + Send + Sync)) -> Self {
        Self {
            clock: cx.clock,
            cancel: cx.cancel,
            operator: cx.operator,
            run: Some((cx.run, cx.step.as_str())),
            assert: Some(ledger::Entry::of(cx).assert_sql()),
            tell,
            watch: None,
        }
    }

    /// Of a person who calls it by hand: for no run, by the clock on the wall.
    pub fn by_hand(cancel: &'a Cancel, operator: &'a str, tell: &'a (dyn Fn(String) + Send + Sync)) -> Self {
        Self { clock: &SystemClock, cancel, operator, run: None, assert: None, tell, watch: None }
    }

    pub(super) fn say(&self, line: impl Into<String>) {
        (self.tell)(line.into());
    }
}

/// How far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Everything that is pending, or up to and with this version.
    Up(Option<Version>),
    /// Down to this version, which stays; or everything.
    Down(Option<Version>),
}

/// How.
#[derive(Debug, Clone)]
pub struct Options {
    /// Also apply files that stand before applied ones.
    pub out_of_order: bool,
    /// Run the verify files.
    pub verify: bool,
    pub locks: LockPolicy,
    /// How long to wait for another runner of the chain.
    pub wait: Duration,
    /// Where and as whom the files run; the history is kept by the role that connected.
    pub inside: Inside,
    /// What the version row says afterwards.
    pub version: Option<VersionWrite>,
    /// The row of the deployment log that is written with it.
    pub log: Option<LogWrite>,
}

/// Where and as whom files run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    /// The role that what they create belongs to.
    pub role: Option<String>,
    /// Empty: the session's own.
    pub search_path: Vec<String>,
}

impl Inside {
    /// The statements that go in front of a file; `LOCAL` where it runs in a transaction.
    pub(super) fn enter(&self, local: bool) -> String {
        let local = if local { "LOCAL " } else { "" };
        let mut sql = String::new();
        if !self.search_path.is_empty() {
            sql.push_str(&format!("SET {local}search_path = {};", history::idents(&self.search_path)));
        }
        if let Some(role) = &self.role {
            sql.push_str(&format!("SET {local}ROLE {};", history::idents(std::slice::from_ref(role))));
        }
        sql
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            out_of_order: false,
            verify: true,
            locks: LockPolicy::default(),
            wait: Duration::from_secs(60),
            inside: Inside::default(),
            version: None,
            log: None,
        }
    }
}

/// What a runner did, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Versions, as their files write them.
    pub versions: Vec<String>,
    /// Names of repeatable files.
    pub repeatable: Vec<String>,
    /// Versions whose verify file held.
    pub verified: Vec<String>,
}

/// A chain and where it is applied.
pub struct Runner<'a> {
    pub chain: &'a Chain,
    pub target: &'a ConnectOptions,
    pub options: Options,
    pub around: Around<'a>,
}

/// Why one file was not applied.
enum Stopped {
    /// Certainly not: nothing of it stays.
    Error(StepError),
    /// Nobody here knows.
    Doubt(StepError),
}

impl Runner<'_> {
    /// How the chain stands to its history.
    ///
    /// # Errors
    /// If the target cannot be asked.
    pub async fn standing<'c>(chain: &'c Chain, session: &Session) -> Result<(Standing<'c>, Vec<Kept>), PgError> {
        let kept = history::read(session, &chain.name).await?;
        let rows: Vec<_> = kept.iter().map(|kept| kept.row.clone()).collect();
        // Contents are large and needed only for a diff.
        let edited: Vec<String> = compare(chain, &rows, |_| None)
            .findings
            .into_iter()
            .filter_map(|finding| match finding {
                Finding::Edited { version, .. } => Some(version),
                _ => None,
            })
            .collect();
        let mut contents = std::collections::BTreeMap::new();
        for version in edited {
            if let Some(content) = history::content(session, &chain.name, &version).await? {
                contents.insert(version, content);
            }
        }
        Ok((compare(chain, &rows, |version| contents.get(version).cloned()), kept))
    }

    /// Takes the chain where it should be.
    ///
    /// # Errors
    /// If the files do not fit the history, or one fails. Everything before it stays applied, and is named in the error's
    /// evidence by whoever turns it into one.
    pub async fn go(&self, goal: &Goal, applied: &mut Applied) -> Result<(), StepError> {
        let name = self.application_name();
        let session = Session::connect(self.target, &name).await.map_err(PgError::into_step_error)?;
        let (standing, _) = Self::standing(self.chain, &session).await.map_err(nothing_touched)?;
        self.refuse(&standing, goal)?;
        if self.work(&standing, goal)?.is_empty() && self.version_stands(&session).await? {
            return Ok(());
        }
        let around = &self.around;
        let lease =
            Lease::take(&session, &self.chain.name, around.run.map(|(run, _)| run), self.options.wait, around).await?;
        let mut durations = Vec::new();
        let done = self.go_on(&session, &lease, goal, applied, &mut durations).await;
        // A lease that cannot be given back now is taken over: its backend will be gone. But the migrations are durable
        // only with it, so without it nobody knows how far they came.
        match (done, lease.release(&session, &durations).await) {
            (Ok(()), Err(error)) => {
                let error = error.into_step_error();
                Err(StepError { failure: Failure::InDoubt, ..error })
            }
            (done, _) => done,
        }
    }

    /// Whether the version row and the log need nothing, or none is asked for.
    async fn version_stands(&self, session: &Session) -> Result<bool, StepError> {
        Ok(self.row_stands(session).await? && self.log_stands(session).await?)
    }

    async fn row_stands(&self, session: &Session) -> Result<bool, StepError> {
        match &self.options.version {
            Some(write) => write.is_done(session, self.around.run).await.map_err(nothing_touched),
            None => Ok(true),
        }
    }

    async fn log_stands(&self, session: &Session) -> Result<bool, StepError> {
        match &self.options.log {
            Some(write) => write.is_done(session).await.map_err(nothing_touched),
            None => Ok(true),
        }
    }

    /// The statements that write the version row and the log when `migration` is the last that is applied. `logged`: the log has its row,
    /// of an attempt that died between that and its last statement.
    fn version_sql(&self, migration: &str, logged: bool) -> Option<String> {
        let row = self.options.version.as_ref().map(|write| write.sql(migration, self.around.run));
        let log = self.options.log.as_ref().filter(|_| !logged).map(|write| write.sql(migration));
        (row.is_some() || log.is_some()).then(|| [row, log].into_iter().flatten().collect())
    }

    /// The version row and the log alone, where no migration is to run.
    async fn write_version(&self, session: &Session, standing: &Standing<'_>) -> Result<(), StepError> {
        let (row_stands, log_stands) = (self.row_stands(session).await?, self.log_stands(session).await?);
        let newest = standing
            .applied
            .iter()
            .filter_map(|row| Some((Version::parse(&row.version)?, row)))
            .max_by(|a, b| a.0.cmp(&b.0));
        let migration = newest.map_or_else(String::new, |(_, row)| format!("{}_{}", row.version, row.name));
        let assert = self.around.assert.as_ref().map_or_else(String::new, |sql| format!("{sql};"));
        let mut sql = String::new();
        if let Some(write) = self.options.version.as_ref().filter(|_| !row_stands) {
            sql.push_str(&write.sql(&migration, self.around.run));
        }
        if let Some(write) = self.options.log.as_ref().filter(|_| !log_stands) {
            sql.push_str(&write.sql(&migration));
        }
        let done = session.execute(&format!("BEGIN; {assert}{sql}COMMIT")).await;
        if let Err(PgError::Server(error)) = done {
            session.execute("ROLLBACK").await.map_err(nothing_touched)?;
            return Err(self.refused(*error, "nothing was changed"));
        }
        done.map_err(PgError::into_step_error)
    }

    /// What a person is told when the server refuses the version row or the log.
    fn refused(&self, error: ServerError, outcome: &str) -> StepError {
        let (row, log) = (&self.options.version, &self.options.log);
        let log = log.as_ref().filter(|log| row.is_none() || log.is_meant(&error));
        let step = PgError::Server(Box::new(error)).into_step_error();
        match (log, row) {
            (Some(log), _) => log.failed(step, outcome),
            (None, Some(row)) => row.failed(step, outcome),
            (None, None) => step,
        }
    }

    /// Whether an error that came with the version row and the log is theirs. What a deferred constraint says at the commit is
    /// the file's own.
    fn is_of_version(&self, error: &ServerError) -> bool {
        error.sqlstate.starts_with("42") || self.options.log.as_ref().is_some_and(|log| log.is_meant(error))
    }

    pub(super) fn application_name(&self) -> String {
        match self.around.run {
            Some((run, step)) => format!("pgrunbook:{run}:{step}"),
            None => "pgrunbook:migrate".to_owned(),
        }
    }

    async fn go_on(
        &self,
        session: &Session,
        lease: &Lease,
        goal: &Goal,
        applied: &mut Applied,
        durations: &mut Vec<(String, bool, u128)>,
    ) -> Result<(), StepError> {
        // Another runner may have come before.
        let (standing, kept) = Self::standing(self.chain, session).await.map_err(nothing_touched)?;
        self.refuse(&standing, goal)?;
        let mut clean = true;
        let tasks = self.work(&standing, goal)?;
        if tasks.is_empty() && !self.version_stands(session).await? {
            return self.write_version(session, &standing).await;
        }
        // Up: with the last. Down: with the first, since what it takes back is not there any more.
        let down = matches!(goal, Goal::Down(_));
        let writes_at = if down { 0 } else { tasks.len().saturating_sub(1) };
        // A log that cannot be asked cannot be written either, and that says why.
        let logged = self.log_stands(session).await.unwrap_or(false);
        let mut newest = standing.applied.last().map(|row| format!("{}_{}", row.version, row.name)).unwrap_or_default();
        for (at, task) in tasks.into_iter().enumerate() {
            if let Task::Up(migration) = &task {
                newest = format!("{}_{}", migration.version, migration.name);
            }
            let version_row = if at == writes_at { self.version_sql(&newest, logged) } else { None };
            let version_row = version_row.as_deref();
            if self.around.cancel.is_stopping() && !applied.versions.is_empty() {
                return Err(StepError::interrupted("stopped between two migrations, as the operator asked"));
            }
            let begun = Instant::now();
            match task {
                Task::Up(migration) => {
                    let unfinished = kept.iter().find(|kept| {
                        kept.row.state == RowState::Running
                            && !kept.row.repeatable
                            && Version::parse(&kept.row.version).as_ref() == Some(&migration.version)
                    });
                    self.around.say(format!("applying {}", migration.title()));
                    let text = self.read(&migration.up)?;
                    let content = String::from_utf8(migration.up.read().map_err(chain_error)?).unwrap_or_default();
                    let content = normalise(&content);
                    let version = migration.version.to_string();
                    let entry = Entry {
                        chain: &self.chain.name,
                        version: &version,
                        repeatable: false,
                        name: &migration.name,
                        sha256: Some(&migration.up.sha256),
                        content: Some(&content),
                        mode: text.mode.name(),
                        origin: "up",
                        operator: self.around.operator,
                        run: self.around.run,
                    };
                    let from = unfinished.map(|kept| kept.row.statements_done as usize);
                    self.apply(session, lease, &text, &entry, from, version_row, &mut clean).await?;
                    durations.push((version.clone(), false, begun.elapsed().as_millis()));
                    applied.versions.push(version.clone());
                    if let Some(script) = migration.verify.as_ref().filter(|_| self.options.verify) {
                        // In the schema and as the role that the file ran in; the history is not that role's.
                        let enter = self.options.inside.enter(false);
                        if !clean || !enter.is_empty() {
                            let fresh = if clean { "" } else { AFRESH };
                            session.execute(&format!("{fresh}{enter}")).await.map_err(nothing_touched)?;
                        }
                        let verified = verify::run(session, script, self.around.cancel).await;
                        clean = false;
                        let own = if enter.is_empty() { Ok(()) } else { session.execute(OWN_ROLE).await };
                        verified.and(own.map_err(nothing_touched))?;
                        let set = "verified_at = pg_catalog.clock_timestamp()";
                        let update = history::update(&self.chain.name, &version, &lease.token, set);
                        session.execute(&update).await.map_err(nothing_touched)?;
                        applied.verified.push(version);
                    }
                }
                Task::Repeat(file) => {
                    self.around.say(format!("applying {}", file.script.shown));
                    let text = self.read(&file.script)?;
                    let entry = Entry {
                        chain: &self.chain.name,
                        version: &file.name,
                        repeatable: true,
                        name: &file.name,
                        sha256: Some(&file.script.sha256),
                        content: None,
                        mode: text.mode.name(),
                        origin: "up",
                        operator: self.around.operator,
                        run: self.around.run,
                    };
                    if text.mode != Mode::Transaction {
                        return Err(StepError::unusable(
                            "repeatable",
                            format!("{}: a file that is applied again must run in one transaction", text.shown),
                        ));
                    }
                    self.apply(session, lease, &text, &entry, None, version_row, &mut clean).await?;
                    durations.push((file.name.clone(), true, begun.elapsed().as_millis()));
                    applied.repeatable.push(file.name.clone());
                }
                Task::Down(migration, script) => {
                    self.around.say(format!("taking back {}", migration.title()));
                    let text = self.read(script)?;
                    self.take_back(session, lease, migration, &text, version_row, &mut clean).await?;
                    applied.versions.push(migration.version.to_string());
                }
            }
        }
        Ok(())
    }

    fn read(&self, script: &Script) -> Result<Text, StepError> {
        Text::read(script).map_err(chain_error)
    }

    /// Refuses a chain whose files do not fit the history.
    fn refuse(&self, standing: &Standing<'_>, goal: &Goal) -> Result<(), StepError> {
        let blocks = |finding: &&Finding| match finding {
            Finding::OutOfOrder { .. } => !self.options.out_of_order && matches!(goal, Goal::Up(_)),
            // A chain that goes down may be ahead of, or beside, what is above.
            Finding::Ahead { .. } => matches!(goal, Goal::Up(_)),
            finding => finding.blocks(),
        };
        let found: Vec<&Finding> = standing.findings.iter().filter(blocks).collect();
        let Some(first) = found.first() else { return Ok(()) };
        let mut message = first.to_string();
        if let Finding::Edited { diff: Some(diff), .. } = first {
            message.push_str(&format!(":\n{diff}"));
        }
        if found.len() > 1 {
            message.push_str(&format!(" (and {} more)", found.len() - 1));
        }
        Err(StepError::unusable(first.code(), format!("{message}\nNothing was changed.")).help(first.remedy()))
    }

    /// What there is to do, in order.
    fn work<'c>(&'c self, standing: &Standing<'c>, goal: &Goal) -> Result<Vec<Task<'c>>, StepError> {
        match goal {
            Goal::Up(to) => {
                if let Some(to) = to
                    && self.chain.find(to).is_none()
                {
                    return Err(chain_error(ChainError::NoSuchVersion { version: to.to_string() }));
                }
                let within = |migration: &&&Migration| to.as_ref().is_none_or(|to| migration.version <= *to);
                let mut tasks: Vec<Task<'c>> =
                    standing.pending.iter().filter(within).map(|migration| Task::Up(migration)).collect();
                // What is applied again may need the last migration.
                if tasks.len() == standing.pending.len() {
                    tasks.extend(standing.repeatable.iter().map(|file| Task::Repeat(file)));
                }
                Ok(tasks)
            }
            Goal::Down(to) => {
                let mut tasks = Vec::new();
                for row in standing.applied.iter().rev() {
                    let Some(version) = Version::parse(&row.version) else { continue };
                    if to.as_ref().is_some_and(|to| version <= *to) {
                        continue;
                    }
                    if row.origin == "baseline" {
                        break;
                    }
                    let migration = self.chain.find(&version).ok_or_else(|| {
                        StepError::unusable(
                            "no-file",
                            format!("{} {} is applied, and its file is gone", row.version, row.name),
                        )
                    })?;
                    let down = migration.down.as_ref().ok_or_else(|| {
                        StepError::unusable("no-down", format!("{} has no down file", migration.title()))
                            .help(format!("write {}", migration.up.shown.replace(".sql", ".down.sql")))
                    })?;
                    tasks.push(Task::Down(migration, down));
                }
                Ok(tasks)
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what one file needs; a struct of it would be named after this function"
    )]
    async fn apply(
        &self,
        session: &Session,
        lease: &Lease,
        text: &Text,
        entry: &Entry<'_>,
        done: Option<usize>,
        version: Option<&str>,
        clean: &mut bool,
    ) -> Result<(), StepError> {
        match &text.mode {
            Mode::Transaction => {
                let row = history::insert(entry, &lease.token, RowState::Applied);
                self.in_transaction(session, text, &row, version, clean).await
            }
            Mode::Statements { .. } => self.by_statements(session, lease, text, entry, done, version).await,
            Mode::Own { line } => {
                if done.is_some() {
                    return Err(StepError::in_doubt(
                        "unfinished",
                        format!(
                            "{} controls its own transactions (line {line}) and was interrupted: look at what it did",
                            text.shown
                        ),
                    )
                    .help("say what became of it: pgrunbook migrate baseline --accept VERSION (all of it is there), or --forget VERSION (none of it is)"));
                }
                let row = history::insert(entry, &lease.token, RowState::Running);
                let enter = self.options.inside.enter(false);
                session.execute(&format!("{AFRESH}{row};{enter}")).await.map_err(nothing_touched)?;
                self.own(session, text).await?;
                let update = history::update(entry.chain, entry.version, &lease.token, "state = 'applied'");
                let version = version.unwrap_or_default();
                let fresh = if version.is_empty() { OWN_ROLE } else { AFRESH };
                let done = session.execute(&format!("{fresh}{update}{version}")).await;
                done.map_err(|error| self.version_failed(error, version))
            }
        }
    }

    /// The usual way: one transaction, mostly one message.
    async fn in_transaction(
        &self,
        session: &Session,
        text: &Text,
        row: &str,
        version: Option<&str>,
        clean: &mut bool,
    ) -> Result<(), StepError> {
        let policy = &self.options.locks;
        let mut retry = LockRetry::new(policy, self.around.clock, self.around.cancel);
        loop {
            // A file that was tried once has left its traces, if it leaves any.
            let attempt = self.attempt(session, text, row, version, std::mem::replace(clean, !text.leaves_traces()));
            let tell = |blockers: &[_], pause| self.around.say(held_by(blockers, pause));
            let tried = retry.once(session, attempt, tell).await;
            match tried.map_err(PgError::into_step_error)? {
                Some(Ok(())) => return Ok(()),
                Some(Err(Stopped::Error(error) | Stopped::Doubt(error))) => return Err(error),
                None => {}
            }
        }
    }

    async fn attempt(
        &self,
        session: &Session,
        text: &Text,
        row: &str,
        version: Option<&str>,
        clean: bool,
    ) -> Result<Result<(), Stopped>, PgError> {
        // A file finds the session as a new connection would have it; the first one does anyway. All in one message, so
        // that a pooler cannot send the parts to two backends. The empty transaction is there because a message's first
        // statement begins one already, with the characteristics that are being reset.
        let fresh = if clean { String::new() } else { format!("{AFRESH}BEGIN; COMMIT;") };
        let assert = self.around.assert.as_ref().map_or_else(String::new, |sql| format!("{sql};"));
        // Each commit is atomic with its row, but need not wait for the disk: giving the lease back is a commit that does,
        // and nothing counts as applied before. See docs/decisions/0003.
        let set = format!("{}; SET LOCAL synchronous_commit = off", self.options.locks.set_local());
        let enter = self.options.inside.enter(true);
        let (before, after) = if text.sets_transaction {
            (format!("{fresh}BEGIN;{enter}"), format!("{OWN_ROLE}{assert}{row};"))
        } else {
            (format!("{fresh}BEGIN; {set}; {assert}{row};{enter}"), String::new())
        };
        let count = text.statements.len();
        // The table of the version row may be one that the file makes, so the row comes behind it: as the role that
        // connected, and found as that role finds it. In a message of its own, whose errors are not the file's.
        let commit = version.map_or_else(
            || "COMMIT".to_owned(),
            |version| format!("{OWN_ROLE}SET LOCAL search_path TO DEFAULT;{version}COMMIT"),
        );
        // In a test build the commit is its own message, so that the process can die before it.
        let (last, commit) = if cfg!(debug_assertions) || version.is_some() {
            (after, commit.as_str())
        } else {
            (format!("{after}COMMIT;"), "")
        };
        let mut committing = false;
        let mut done = send::run(session, text, 0..count, &before, &last, self.around.cancel).await;
        if done.is_ok() && !commit.is_empty() {
            fault::pass(Point::BeforeCommit);
            committing = true;
            done = session.execute(commit).await.map_err(|error| match error {
                PgError::Server(error) => Broken::Raised(Box::new(Raised { error: *error, line: 1 })),
                lost => Broken::Lost(lost),
            });
            fault::pass(Point::AfterCommit);
        }
        match done {
            Ok(()) => Ok(Ok(())),
            Err(Broken::Raised(raised)) => {
                session.execute("ROLLBACK").await?;
                if raised.error.sqlstate == LOCK_NOT_AVAILABLE {
                    return Err(PgError::Server(Box::new(raised.error.clone())));
                }
                if committing && version.is_some() && self.is_of_version(&raised.error) {
                    let outcome = format!("{} is rolled back", text.shown);
                    return Ok(Err(Stopped::Error(self.refused(raised.error.clone(), &outcome))));
                }
                Ok(Err(Stopped::Error(self.explained(text, &raised, "rolled back"))))
            }
            // COMMIT travels with the file: whether it arrived, only the history knows.
            Err(Broken::Lost(error)) => {
                let error = error.into_step_error();
                Ok(Err(Stopped::Doubt(StepError { failure: Failure::InDoubt, ..error })))
            }
        }
    }

    /// Without a transaction around it: each statement is recorded when it is done.
    async fn by_statements(
        &self,
        session: &Session,
        lease: &Lease,
        text: &Text,
        entry: &Entry<'_>,
        done: Option<usize>,
        version: Option<&str>,
    ) -> Result<(), StepError> {
        let resumed = done.is_some();
        let done = done.unwrap_or(0);
        let assert = self.around.assert.as_ref().map_or_else(String::new, |sql| format!("{sql};"));
        session.execute(&format!("{AFRESH}{assert}")).await.map_err(nothing_touched)?;
        if !resumed {
            let row = history::insert(entry, &lease.token, RowState::Running);
            session.execute(&row).await.map_err(nothing_touched)?;
        }
        let enter = self.options.inside.enter(false);
        session.execute(&enter).await.map_err(nothing_touched)?;
        for at in 0..text.statements.len() {
            let head = text.statements[at].head.as_str();
            let settings = head.starts_with("SET ") || head.starts_with("RESET ");
            if at < done {
                // What it set is needed by the statements that are left.
                if settings {
                    self.alone(session, text, at..at + 1).await?;
                }
                continue;
            }
            if self.around.cancel.is_stopping() && at > done {
                return Err(StepError::interrupted(format!(
                    "stopped after {at} of {} statements of {}, as the operator asked",
                    text.statements.len(),
                    text.shown
                )));
            }
            let set = format!("statements_done = {}", at + 1);
            let update = history::update(entry.chain, entry.version, &lease.token, &set);
            // The role that the file chose has no right to the history.
            let (role, next_role) = (format!("{enter}{}", text.roles(at)), format!("{enter}{}", text.roles(at + 1)));
            let aside = |roles: &str| if roles.is_empty() { "" } else { OWN_ROLE };
            let update = format!("{}{update}{next_role}", aside(&next_role));
            let Class::Outside(outside) = classify(text.statement(at)) else {
                // With its record, in one transaction.
                let (before, cancel) = (format!("{}{assert}{role}", aside(&role)), self.around.cancel);
                let done = match self.around.watch {
                    Some(watch) => watch.plain(session, text, at, [&before, &update], cancel).await,
                    None => {
                        let (before, after) = (format!("BEGIN; {before}"), format!("{update}COMMIT;"));
                        send::run(session, text, at..at + 1, &before, &after, cancel).await
                    }
                };
                if let Err(broken) = done {
                    return Err(self.broken(session, text, broken).await);
                }
                continue;
            };
            if resumed && at == done {
                match stands(session, &outside).await.map_err(nothing_touched)? {
                    Stands::Done => {
                        self.around.say(format!("{} is there already", super::shown(&outside)));
                        session.execute(&update).await.map_err(nothing_touched)?;
                        continue;
                    }
                    Stands::Open { before } => {
                        for statement in &before {
                            self.around.say(format!("clearing away: {statement}"));
                            session.execute(statement).await.map_err(nothing_touched)?;
                        }
                        if is_finished_by(&before) {
                            session.execute(&update).await.map_err(nothing_touched)?;
                            continue;
                        }
                    }
                    Stands::Unknown(why) => {
                        return Err(StepError::in_doubt(
                            "unfinished",
                            format!("{}, line {}: {why}", text.shown, text.statements[at].line + text.lines_before),
                        ));
                    }
                }
            }
            fault::pass(Point::BeforeEffect);
            match self.around.watch {
                Some(watch) => {
                    if let Err(broken) = watch.outside(session, text, at, self.around.cancel).await {
                        return Err(self.broken(session, text, broken).await);
                    }
                }
                None => self.alone(session, text, at..at + 1).await?,
            }
            fault::pass(Point::AfterEffect);
            session.execute(&update).await.map_err(nothing_touched)?;
        }
        let update = history::update(entry.chain, entry.version, &lease.token, "state = 'applied'");
        let version = version.unwrap_or_default();
        let done = session.execute(&format!("{OWN_ROLE}{AFRESH}{update}{version}")).await;
        done.map_err(|error| self.version_failed(error, version))
    }

    /// A statement that says that all is done, and with which the version row may travel. What ran before it stays.
    fn version_failed(&self, error: PgError, version: &str) -> StepError {
        match error {
            PgError::Server(error) if !version.is_empty() && self.is_of_version(&error) => {
                let step = self.refused(*error, "the migration's statements stay, and are recorded");
                StepError { failure: Failure::Failed, ..step }
            }
            error => nothing_touched(error),
        }
    }

    /// The statements of a file that controls its own transactions.
    async fn own(&self, session: &Session, text: &Text) -> Result<(), StepError> {
        let count = text.statements.len();
        let Some(watch) = self.around.watch else { return self.alone(session, text, 0..count).await };
        for at in 0..count {
            if let Err(broken) = watch.own(session, text, at, self.around.cancel).await {
                return Err(self.broken(session, text, broken).await);
            }
        }
        Ok(())
    }

    /// Statements as they are, each its own.
    async fn alone(&self, session: &Session, text: &Text, which: std::ops::Range<usize>) -> Result<(), StepError> {
        for at in which {
            if let Err(broken) = send::run(session, text, at..at + 1, "", "", self.around.cancel).await {
                return Err(self.broken(session, text, broken).await);
            }
        }
        Ok(())
    }

    async fn broken(&self, session: &Session, text: &Text, broken: Broken) -> StepError {
        match broken {
            Broken::Raised(raised) => {
                // Harmless where no transaction is open.
                let _ = session.execute("ROLLBACK").await;
                self.explained(text, &raised, "the statements before it stay, and are recorded")
            }
            Broken::Lost(error) => error.into_step_error(),
        }
    }

    async fn take_back(
        &self,
        session: &Session,
        lease: &Lease,
        migration: &Migration,
        text: &Text,
        row: Option<&str>,
        clean: &mut bool,
    ) -> Result<(), StepError> {
        let version = migration.version.to_string();
        let delete = history::delete(&self.chain.name, &version, &lease.token);
        // A way down may drop the row's table: the row is written before it.
        let row = row.unwrap_or_default();
        match &text.mode {
            Mode::Transaction => self.in_transaction(session, text, &format!("{delete}{row}"), None, clean).await,
            Mode::Own { line } => Err(StepError::unusable(
                "own-transaction",
                format!("{}, line {line}: a down file cannot control transactions", text.shown),
            )
            .help("leave BEGIN and COMMIT out: it runs in one transaction with its record")),
            Mode::Statements { .. } => {
                // Each statement of a way down must be safe to run again: there is no row to count them in.
                session.execute(AFRESH).await.map_err(nothing_touched)?;
                let update = history::update(&self.chain.name, &version, &lease.token, "state = 'reverting'");
                let enter = self.options.inside.enter(false);
                session.execute(&format!("{update}{row}{enter}")).await.map_err(nothing_touched)?;
                for at in 0..text.statements.len() {
                    if let Class::Outside(outside) = classify(text.statement(at))
                        && stands(session, &outside).await.map_err(nothing_touched)? == Stands::Done
                    {
                        continue;
                    }
                    fault::pass(Point::BeforeEffect);
                    self.alone(session, text, at..at + 1).await?;
                    fault::pass(Point::AfterEffect);
                }
                session.execute(&format!("{OWN_ROLE}{AFRESH}{delete}")).await.map_err(nothing_touched)
            }
        }
    }

    fn explained(&self, text: &Text, raised: &Raised, outcome: &str) -> StepError {
        let error = &raised.error;
        if error.sqlstate == "57014" && self.around.cancel.is_aborting() {
            return StepError::interrupted(format!("interrupted in {}; {outcome}", text.shown));
        }
        if error.sqlstate == pgrunbook_postgres::ledger::FENCED {
            return StepError::failed("fenced", error.message.clone());
        }
        if history::is_taken_over(error) {
            return StepError::failed("fenced", "another runner has taken this chain over: this one stops");
        }
        let place = format!("{}, line {}", text.shown, raised.line);
        let step = PgError::Server(Box::new(ServerError::clone(error))).into_step_error();
        StepError { message: format!("{place}: {}; {outcome}", step.message), ..step }
    }
}

/// One thing to do.
enum Task<'c> {
    Up(&'c Migration),
    Repeat(&'c Repeatable),
    Down(&'c Migration, &'c Script),
}

/// Makes the session that of the role that connected.
const OWN_ROLE: &str = "RESET SESSION AUTHORIZATION; RESET ROLE;";

/// What a file may have left in the session, taken away. `DISCARD ALL` cannot travel with other statements.
pub(super) const AFRESH: &str = "RESET SESSION AUTHORIZATION; RESET ALL; DEALLOCATE ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; \
                      DISCARD SEQUENCES; SELECT pg_catalog.pg_advisory_unlock_all();";

/// As the engine reports it.
pub(super) fn chain_error(error: ChainError) -> StepError {
    let (code, help) = (error.code(), error.help());
    let mut message = error.to_string();
    if let ChainError::Refused { sqlstate: Some(sqlstate), .. } = &error {
        message.push_str(&format!(" (SQLSTATE {sqlstate})"));
    }
    StepError::unusable(code, format!("{message}. Nothing of it was run.")).help(help).source(error)
}

/// Reading and bookkeeping: a lost connection here is no doubt about a migration.
pub(super) fn nothing_touched(error: PgError) -> StepError {
    let step = error.into_step_error();
    StepError { failure: Failure::Failed, ..step }
}
