//! The check: one query where it fits, and patience where migrations are under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Refusal, Row};
use crate::error::GuardError;
use crate::outcome::{Bypassed, Compatible, Notice, Outcome};
use crate::quote::literal;
use crate::source::{Source, Wanted};

/// How long migrations that are under way are waited for, if nothing else is said.
pub const WAIT: Duration = Duration::from_secs(30);

/// How long one answer may take while nothing is waited for: a lock on the table, or a server that hangs.
const ANSWER: Duration = Duration::from_secs(10);

/// The first pause between two looks, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What an application asks before it serves anybody.
#[derive(Clone)]
pub struct Guard {
    app: String,
    wanted: Wanted,
    source: Source,
    wait: Duration,
    answer: Duration,
    skip: bool,
    tell: Arc<dyn Fn(&Notice) + Send + Sync>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("app", &self.app).field("source", &self.source).finish_non_exhaustive()
    }
}

/// Checks with everything at its default: waits for [`WAIT`], skips nothing.
///
/// # Errors
/// [`GuardError`]: the application must not start.
pub async fn check(app_version: &str, source: Source, connection: &mut impl Connection) -> Result<Outcome, GuardError> {
    Guard::new(app_version, source)?.check(connection).await
}

impl Guard {
    /// A guard of an application that was written for `app_version`: a semantic version for [`Source::Row`], the number of
    /// the last migration it needs for [`Source::History`].
    ///
    /// # Errors
    /// If the version is none.
    pub fn new(app_version: &str, source: Source) -> Result<Self, GuardError> {
        let wanted = source.wanted(app_version)?;
        let tell = |notice: &Notice| eprintln!("{notice}");
        Ok(Self {
            app: app_version.to_owned(),
            wanted,
            source,
            wait: WAIT,
            answer: ANSWER,
            skip: false,
            tell: Arc::new(tell),
        })
    }

    /// How long migrations that are under way are waited for; zero: not at all, and nobody looks whether there are any.
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// How long one answer may take, the connection included; ten seconds, if nothing is said. While migrations may be
    /// waited for, a lock of theirs may be as well: then the deadline of [`Self::wait`] counts, where it is later.
    #[must_use]
    pub fn answer_within(self, answer: Duration) -> Self {
        Self { answer, ..self }
    }

    /// What the variable `SKIP_SCHEMA_GUARD` holds: `true` starts without a check, in an emergency; `false`, an empty text
    /// and none do not.
    ///
    /// # Errors
    /// Any other value: what is meant for an emergency must not be half understood.
    pub fn skip(self, value: Option<&str>) -> Result<Self, GuardError> {
        let skip = match value {
            Some("true") => true,
            None | Some("" | "false") => false,
            Some(value) => return Err(GuardError::Skip { value: value.to_owned() }),
        };
        Ok(Self { skip, ..self })
    }

    /// Where notices go; else to standard error. A bypass is never silent: what is told here belongs into the log at its
    /// highest level.
    #[must_use]
    pub fn tell(self, tell: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        Self { tell: Arc::new(tell), ..self }
    }

    /// Asks: one query if the application fits. If it does not, and migrations are under way that may mend it, waits for
    /// them up to the deadline.
    ///
    /// # Errors
    /// [`GuardError`]: the application must not start.
    pub async fn check(&self, connection: &mut impl Connection) -> Result<Outcome, GuardError> {
        if self.skip {
            let bypassed = Bypassed { app: self.app.clone() };
            (self.tell)(&Notice::Bypassed(bypassed.clone()));
            return Ok(Outcome::Bypassed(bypassed));
        }
        let begun = Instant::now();
        let mut pause = PAUSES.0;
        let mut told = None;
        let mut looked_at_nobody = false;
        loop {
            let error = match self.look(connection, begun).await {
                Ok(fits) => {
                    let waited = if told.is_some() { begun.elapsed() } else { Duration::ZERO };
                    return Ok(Outcome::Compatible(Compatible { waited, ..fits }));
                }
                Err(error) => error,
            };
            if self.wait.is_zero() || !error.may_pass() {
                return Err(error);
            }
            let Some(who) = self.under_way(connection, begun).await? else {
                // They may have ended between the two questions: the answer to the first is old then.
                if looked_at_nobody {
                    return Err(error);
                }
                looked_at_nobody = true;
                continue;
            };
            looked_at_nobody = false;
            let waited = begun.elapsed();
            if waited >= self.wait {
                return Err(GuardError::StillMigrating { waited, who, last: Box::new(error) });
            }
            if told.as_ref() != Some(&who) {
                (self.tell)(&Notice::Waiting { who: who.clone(), until: self.wait });
                told = Some(who);
            }
            tokio::time::sleep(jittered(pause).min(self.wait - waited)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn look(&self, connection: &mut impl Connection, begun: Instant) -> Result<Compatible, GuardError> {
        match self.ask(connection, &self.source.sql(), begun).await? {
            Ok(rows) => self.source.decide(&self.wanted, &rows),
            Err(refusal) => Err(GuardError::of(refusal, &self.source, &self.app)),
        }
    }

    /// One question. Where migrations may be waited for, a lock of theirs may be as well.
    async fn ask(
        &self,
        connection: &mut impl Connection,
        sql: &str,
        begun: Instant,
    ) -> Result<Result<Vec<Row>, Refusal>, GuardError> {
        let patience = self.wait.saturating_sub(begun.elapsed()).max(self.answer);
        let answer = tokio::time::timeout(patience, connection.rows(sql)).await;
        answer.map_err(|_| GuardError::Unanswered { table: self.source.table(), after: patience })
    }

    /// Who is at work on the schema.
    ///
    /// `pgrunbook migrate` names itself in `pgrunbook.migration_runner` while it is. Where the role may not read that, or
    /// another tool migrates, a lock tells: whoever changes the version or the history holds one, and `pg_locks` shows it
    /// to everybody.
    async fn under_way(&self, connection: &mut impl Connection, begun: Instant) -> Result<Option<String>, GuardError> {
        for sql in [self.runner_sql(), self.locks_sql()] {
            match self.ask(connection, &sql, begun).await? {
                Ok(rows) => {
                    if let Some(Some(Some(who))) = rows.first().map(|row| row.first().cloned()) {
                        return Ok(Some(who));
                    }
                }
                Err(Refusal::Server { sqlstate, .. }) if matches!(sqlstate.as_str(), "42P01" | "3F000" | "42501") => {}
                Err(refusal) => return Err(GuardError::of(refusal, &self.source, &self.app)),
            }
        }
        Ok(None)
    }

    /// A runner counts as alive by the rule by which `migrate` itself takes a chain over. Tried on PostgreSQL 14 to 18; the
    /// columns of other roles' backends that are hidden are null
    /// (<https://www.postgresql.org/docs/current/monitoring-stats.html>).
    fn runner_sql(&self) -> String {
        let chain = match &self.source {
            Source::History(history) => format!("r.chain = {} AND ", literal(&history.chain)),
            Source::Row(_) => String::new(),
        };
        format!(
            "SELECT r.operator || COALESCE(' (run ' || r.run || ')', '') || ', since '
                 || pg_catalog.to_char(r.since, 'YYYY-MM-DD HH24:MI:SS TZ')
             FROM pgrunbook.migration_runner AS r
             WHERE {chain}EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = r.backend_pid
                 AND (a.backend_start = r.backend_start OR a.backend_start IS NULL OR r.backend_start IS NULL)
                 AND (a.state IS DISTINCT FROM 'idle'
                     OR r.heartbeat_at >= pg_catalog.clock_timestamp() - interval '90 s'))
             LIMIT 1"
        )
    }

    /// See <https://www.postgresql.org/docs/current/view-pg-locks.html>.
    fn locks_sql(&self) -> String {
        let table = match &self.source {
            Source::History(_) => String::new(),
            Source::Row(row) => format!("c.oid = pg_catalog.to_regclass({}) OR ", literal(&row.table.sql())),
        };
        format!(
            "SELECT 'backend ' || l.pid || ', which changes ' || n.nspname || '.' || c.relname
             FROM pg_catalog.pg_locks AS l
             JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
             WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
                 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
                 AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareUpdateExclusiveLock')
                 AND ({table}n.nspname = 'pgrunbook' AND c.relname IN ('migration', 'migration_runner'))
             LIMIT 1"
        )
    }
}

/// Between three quarters and all of a pause: two hundred instances that start together do not ask together.
fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    pause.mul_f64(0.75 + 0.25 * (random >> 11) as f64 / (1_u64 << 53) as f64)
}
