//! Waiting for locks without holding up everybody else: a short `lock_timeout`, a pause, another try.
//!
//! A statement that waits for a strong lock queues every later reader behind it
//! (<https://www.postgresql.org/docs/15/explicit-locking.html>). So it waits only briefly, gives way, and tries again
//! after a pause that grows and varies, so that two runners do not meet again and again. Idea: pgroll's `pkg/db/db.go`.

use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use pgrunbook_engine::{Cancel, Clock};

use crate::error::PgError;
use crate::options::ConnectOptions;
use crate::session::Session;

/// `lock_not_available`: what a `lock_timeout` raises, and `NOWAIT`.
pub const LOCK_NOT_AVAILABLE: &str = "55P03";

/// How long to wait for a lock, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockPolicy {
    /// `lock_timeout` of each attempt: how long others may queue behind it.
    pub lock_timeout: Duration,
    /// How many attempts in all; at least one.
    pub attempts: u32,
    /// The pause after the first attempt; doubles with each further one.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
}

impl Default for LockPolicy {
    /// 2 s of waiting, up to 30 times, with pauses of 1 to 30 s: about a quarter of an hour in all, of which others
    /// queue for a minute.
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(2),
            attempts: 30,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
        }
    }
}

impl LockPolicy {
    /// `SET` for a session, or `SET LOCAL` for a transaction. In milliseconds.
    pub fn set_local(&self) -> String {
        format!("SET LOCAL lock_timeout = {}", self.lock_timeout.as_millis())
    }

    /// The same for the session.
    pub fn set_session(&self) -> String {
        format!("SET lock_timeout = {}", self.lock_timeout.as_millis())
    }

    /// The pause after attempt number `attempt`, from 1: doubled each time, and shortened by up to half.
    fn pause(&self, attempt: u32, chance: u32) -> Duration {
        let doubled = self.first_pause.saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
        let whole = doubled.min(self.longest_pause);
        whole / 2 + (whole / 2).mul_f64(f64::from(chance % 1000) / 1000.0)
    }
}

/// A session that holds what another waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocker {
    pub pid: i32,
    pub user: Option<String>,
    pub application: Option<String>,
    /// `active`, `idle in transaction`. `None` where the role may not see it.
    pub state: Option<String>,
    /// How long its transaction is open.
    pub transaction_age: Option<Duration>,
    /// How long ago its present or last statement began.
    pub statement_age: Option<Duration>,
    /// What it holds: relations, by name, if any.
    pub relations: Vec<String>,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        let user = self.user.as_deref().map(|user| format!("user `{user}`"));
        let application =
            self.application.as_deref().filter(|name| !name.is_empty()).map(|name| format!("application `{name}`"));
        let state = self.state.clone().map(|state| match self.transaction_age {
            Some(age) => format!("{state}, transaction open for {}", whole_seconds(age)),
            None => state,
        });
        let relations = (!self.relations.is_empty()).then(|| format!("holds {}", self.relations.join(", ")));
        let facts: Vec<_> = [user, application, state, relations].into_iter().flatten().collect();
        if facts.is_empty() { Ok(()) } else { write!(f, " ({})", facts.join("; ")) }
    }
}

fn whole_seconds(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// Tried on 14 to 18. `pg_blocking_pids` also counts those who wait before us in the queue, which is what people must
/// know.
const BLOCKERS: &str = "
SELECT a.pid,
       a.usename::text,
       a.application_name,
       a.state,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8,
       extract(epoch FROM clock_timestamp() - a.query_start)::float8,
       ARRAY(SELECT DISTINCT l.relation::regclass::text
             FROM pg_catalog.pg_locks l
             JOIN pg_catalog.pg_locks w ON w.pid = $1 AND NOT w.granted AND w.relation = l.relation
             WHERE l.pid = a.pid AND l.granted AND l.locktype = 'relation')
FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) AS b(pid)
JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
ORDER BY a.xact_start NULLS LAST";

/// Who holds what the backend `pid` waits for now. Asked from another session.
pub async fn blockers(observer: &Session, pid: i32) -> Result<Vec<Blocker>, PgError> {
    let rows = observer.client().query(BLOCKERS, &[&pid]).await.map_err(|error| observer.error(&error))?;
    let read = |error: tokio_postgres::Error| observer.error(&error);
    rows.iter()
        .map(|row| {
            let age = |seconds: Option<f64>| seconds.and_then(|s| Duration::try_from_secs_f64(s.max(0.0)).ok());
            Ok(Blocker {
                pid: row.try_get(0).map_err(read)?,
                user: row.try_get(1).map_err(read)?,
                application: row.try_get(2).map_err(read)?,
                state: row.try_get(3).map_err(read)?,
                transaction_age: age(row.try_get(4).map_err(read)?),
                statement_age: age(row.try_get(5).map_err(read)?),
                relations: row.try_get(6).map_err(read)?,
            })
        })
        .collect()
}

/// Who held up a session, seen from a second one while the first still waited.
///
/// After the failure it is too late to ask: the wait is over, and nothing links the two any more. So this looks while
/// the attempt runs, halfway into its `lock_timeout`.
async fn watch(options: &ConnectOptions, pid: i32, after: Duration) -> Vec<Blocker> {
    tokio::time::sleep(after).await;
    let Ok(observer) = Session::connect(options, "pgrunbook:blockers").await else { return Vec::new() };
    blockers(&observer, pid).await.unwrap_or_default()
}

/// Attempts that wait briefly for their locks, give way, and begin again.
pub struct LockRetry<'a> {
    policy: &'a LockPolicy,
    clock: &'a dyn Clock,
    cancel: &'a Cancel,
    begun: Instant,
    attempts: u32,
    seen: Vec<Blocker>,
}

impl<'a> LockRetry<'a> {
    /// No attempt was made yet.
    pub fn new(policy: &'a LockPolicy, clock: &'a dyn Clock, cancel: &'a Cancel) -> Self {
        Self { policy, clock, cancel, begun: clock.instant(), attempts: 0, seen: Vec::new() }
    }

    /// One attempt. It runs on `session`, sets the policy's `lock_timeout` ([`LockPolicy::set_local`]), and leaves the
    /// session fit for another: it rolls back what it began. `None`: it did not get a lock, `waited` was told who holds
    /// it and how long the pause is, and the pause is over.
    ///
    /// # Errors
    /// [`PgError::Locked`] if it was the last attempt, or the operator wants to stop; any other error as it is.
    pub async fn once<T>(
        &mut self,
        session: &Session,
        attempt: impl Future<Output = Result<T, PgError>>,
        waited: impl FnOnce(&[Blocker], Duration),
    ) -> Result<Option<T>, PgError> {
        self.attempts += 1;
        let mut look = pin!(watch(session.options(), session.backend_pid(), self.policy.lock_timeout / 2));
        let mut work = pin!(attempt);
        let mut watching = true;
        // Cancellation: only the look is dropped half-way; it reads.
        let result = loop {
            tokio::select! {
                biased;
                result = &mut work => break result,
                found = &mut look, if watching => {
                    watching = false;
                    if !found.is_empty() {
                        self.seen = found;
                    }
                }
            }
        };
        let error = match result {
            Ok(done) => return Ok(Some(done)),
            Err(PgError::Server(error)) if error.sqlstate == LOCK_NOT_AVAILABLE => error,
            Err(other) => return Err(other),
        };
        if self.attempts >= self.policy.attempts.max(1) || self.cancel.is_stopping() {
            let seconds = (self.clock.instant() - self.begun).as_secs();
            let blockers = std::mem::take(&mut self.seen);
            return Err(PgError::Locked { seconds, attempts: self.attempts, blockers, error });
        }
        let pause = self.policy.pause(self.attempts, self.clock.now().subsec_nanosecond().unsigned_abs() / 1000);
        waited(&self.seen, pause);
        tokio::select! {
            () = self.clock.sleep(pause) => {}
            () = self.cancel.stopping() => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_vary_by_half() {
        let policy = LockPolicy::default();
        assert_eq!(policy.pause(1, 0), Duration::from_millis(500));
        assert!(policy.pause(1, 999) < Duration::from_secs(1));
        assert_eq!(policy.pause(3, 0), Duration::from_secs(2));
        assert_eq!(policy.pause(60, 0), Duration::from_secs(15));
    }

    #[test]
    fn blocker_reads_as_a_sentence() {
        let blocker = Blocker {
            pid: 4711,
            user: Some("app".to_owned()),
            application: Some("psql".to_owned()),
            state: Some("idle in transaction".to_owned()),
            transaction_age: Some(Duration::from_secs(725)),
            statement_age: None,
            relations: vec!["notes".to_owned()],
        };
        assert_eq!(
            blocker.to_string(),
            "pid 4711 (user `app`; application `psql`; idle in transaction, transaction open for 12 min; holds notes)"
        );
    }
}
