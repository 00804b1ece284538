//! One runner at a time for each chain.
//!
//! A row in `pgrunbook.migration_runner` names the runner. It is a lock that a transaction pooler cannot break: every
//! migration touches it in its own transaction, so a runner at work is known by the lock on its row or its busy backend, a
//! waiting one by its heartbeat, and a dead one by its backend that is gone.

use std::time::Duration;

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{PgError, Session};

use super::history::{create, is_missing, literal};
use super::runner::Around;

/// A runner whose backend is idle and that has written nothing for this long is taken for dead: behind a pooler the
/// backend outlives it. Longer than any pause between two attempts to get a lock.
const EXPIRY: &str = "90 s";

/// How often a waiting runner looks.
const EVERY: Duration = Duration::from_millis(500);

/// The right to change a chain. Give it back with [`Lease::release`].
#[derive(Debug)]
pub struct Lease {
    chain: String,
    pub token: String,
}

impl Lease {
    /// Takes the chain, or waits for the runner that has it.
    ///
    /// # Errors
    /// If it still has it at the deadline.
    pub async fn take(
        session: &Session,
        chain: &str,
        run: Option<&str>,
        wait: Duration,
        around: &Around<'_>,
    ) -> Result<Self, StepError> {
        let token = token(session);
        let begun = around.clock.instant();
        let mut told = None;
        loop {
            match claim(session, chain, &token, run, around.operator).await {
                Ok(true) => return Ok(Self { chain: chain.to_owned(), token }),
                Ok(false) => {}
                Err(error) if is_missing(&error) => {
                    create(session).await?;
                    continue;
                }
                // Its transaction is under way: alive.
                Err(error) if error.sqlstate() == Some("55P03") => {}
                Err(error) => return Err(error.into_step_error()),
            }
            let holder = holder(session, chain).await.map_err(PgError::into_step_error)?;
            let holder = holder.unwrap_or_else(|| "another runner".to_owned());
            let waited = around.clock.instant().duration_since(begun);
            if waited >= wait || around.cancel.is_stopping() {
                return Err(StepError::unusable(
                    "chain-taken",
                    format!(
                        "chain `{chain}` is being changed by {holder}, after {waited:.0?} still. Nothing was changed."
                    ),
                )
                .help("wait for it to end, or end its session if it hangs; then run this again"));
            }
            if told.as_ref() != Some(&holder) {
                around.say(format!("waiting for {holder}, who is changing chain `{chain}`"));
                told = Some(holder);
            }
            tokio::select! {
                () = around.clock.sleep(EVERY.min(wait.saturating_sub(waited))) => {}
                () = around.cancel.stopping() => {}
            }
        }
    }

    /// Gives the chain back, with the durations that were measured (version, repeatable, milliseconds).
    ///
    /// # Errors
    /// If the connection is lost; the chain is then taken over when somebody asks for it.
    pub async fn release(self, session: &Session, durations: &[(String, bool, u128)]) -> Result<(), PgError> {
        let chain = literal(&self.chain);
        // The last file's role has no right to the history, and its settings may forbid the change, or keep it
        // from the disk. They count for the transaction that a message begins with, so that one is ended.
        let mut text = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; BEGIN; COMMIT;".to_owned();
        if !durations.is_empty() {
            let values: Vec<_> = durations
                .iter()
                .map(|(version, repeatable, ms)| format!("({}, {repeatable}, {ms})", literal(version)))
                .collect();
            text.push_str(&format!(
                "UPDATE pgrunbook.migration AS m SET duration_ms = v.ms FROM (VALUES {}) AS v (version, repeatable, ms)
                 WHERE m.chain = {chain} AND m.version = v.version AND m.repeatable = v.repeatable;",
                values.join(", ")
            ));
        }
        text.push_str(&format!(
            "DELETE FROM pgrunbook.migration_runner WHERE chain = {chain} AND token = {}",
            literal(&self.token)
        ));
        session.execute(&text).await
    }
}

/// A name for this runner that no other has.
fn token(session: &Session) -> String {
    use std::hash::{BuildHasher, Hasher};
    let mut random = std::collections::hash_map::RandomState::new().build_hasher();
    random.write_i32(session.backend_pid());
    format!("{}-{}-{:016x}", std::process::id(), session.backend_pid(), random.finish())
}

async fn claim(
    session: &Session,
    chain: &str,
    token: &str,
    run: Option<&str>,
    operator: &str,
) -> Result<bool, PgError> {
    let text = format!(
        "BEGIN; SET LOCAL lock_timeout = '500ms';
         INSERT INTO pgrunbook.migration_runner AS r (chain, token, operator, run, backend_start)
         VALUES ({chain}, {token}, {operator}, {run},
             (SELECT backend_start FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()))
         ON CONFLICT (chain) DO UPDATE SET token = excluded.token, operator = excluded.operator, run = excluded.run,
             since = excluded.since, heartbeat_at = excluded.heartbeat_at, backend_pid = excluded.backend_pid,
             backend_start = excluded.backend_start
         WHERE NOT EXISTS (
             SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = r.backend_pid
             AND (a.backend_start = r.backend_start OR a.backend_start IS NULL OR r.backend_start IS NULL)
             AND (a.state IS DISTINCT FROM 'idle' OR r.heartbeat_at >= pg_catalog.clock_timestamp() - interval '{EXPIRY}'))
         RETURNING token;
         COMMIT",
        chain = literal(chain),
        token = literal(token),
        operator = literal(operator),
        run = run.map_or("NULL".to_owned(), literal),
    );
    match session.simple(&text).await {
        Ok(answers) => Ok(answers.iter().any(|answer| !answer.rows.is_empty())),
        Err(error) => {
            session.execute("ROLLBACK").await?;
            Err(error)
        }
    }
}

async fn holder(session: &Session, chain: &str) -> Result<Option<String>, PgError> {
    let answers = session
        .simple(&format!(
            "SELECT operator || COALESCE(' (run ' || run || ')', '') || ', backend ' || backend_pid || ', since '
                 || pg_catalog.to_char(since, 'YYYY-MM-DD HH24:MI:SS TZ')
             FROM pgrunbook.migration_runner WHERE chain = {}",
            literal(chain)
        ))
        .await?;
    Ok(answers.last().and_then(|answer| answer.rows.first()?.first()?.clone()))
}
