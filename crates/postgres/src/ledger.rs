//! The schema `pgrunbook` in a target: which run is at work there, and which effects it has committed.
//!
//! A transactional step begins its transaction with [`Entry::assert_sql`] and ends it with [`Entry::record_sql`]: the
//! effect and the record of it are committed together or not at all, and only by the process that claimed the run last.

use std::time::Duration;

use pgrunbook_engine::step::Direction;
use pgrunbook_engine::{Claim, RunCx};

use crate::error::PgError;
use crate::quote;
use crate::session::Session;

/// The schema of everything that pgrunbook keeps in a target.
pub const SCHEMA: &str = "pgrunbook";

/// What a transaction ends with whose run was claimed by another process since. Class `RB` is nobody else's.
pub const FENCED: &str = "RB001";

/// Makes what is missing; run in one transaction under an advisory lock, since `IF NOT EXISTS` alone races.
///
/// Locks of the key pair (1885827694, n) are pgrunbook's: its first four letters. 0: this; 1: a run is at work here.
const INSTALL: &str = r"
BEGIN;
SELECT pg_catalog.pg_advisory_xact_lock(1885827694, 0);
CREATE SCHEMA IF NOT EXISTS pgrunbook;
CREATE TABLE IF NOT EXISTS pgrunbook.claim (
    run text PRIMARY KEY,
    epoch bigint NOT NULL,
    runbook text NOT NULL,
    operator text NOT NULL,
    host text NOT NULL,
    pid bigint NOT NULL,
    since timestamptz NOT NULL,
    step text,
    backend integer NOT NULL,
    released boolean NOT NULL DEFAULT false
);
CREATE TABLE IF NOT EXISTS pgrunbook.ledger (
    run text NOT NULL,
    step text NOT NULL,
    direction text NOT NULL,
    attempt bigint NOT NULL,
    epoch bigint NOT NULL,
    digest text NOT NULL,
    operator text NOT NULL,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    xid text NOT NULL DEFAULT pg_catalog.pg_current_xact_id()::text,
    PRIMARY KEY (run, step, direction, attempt)
);
CREATE OR REPLACE FUNCTION pgrunbook.assert_epoch(run text, epoch bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE found bigint;
BEGIN
    SELECT c.epoch INTO found FROM pgrunbook.claim AS c WHERE c.run = assert_epoch.run FOR SHARE;
    IF found IS DISTINCT FROM assert_epoch.epoch THEN
        RAISE EXCEPTION USING ERRCODE = 'RB001',
            MESSAGE = format('run %s was taken over by another process (epoch %s, this one has %s)',
                assert_epoch.run, coalesce(found::text, 'none'), assert_epoch.epoch);
    END IF;
END $$;
COMMENT ON SCHEMA pgrunbook IS 'Which runbook is at work in this database, and what it has committed.';
COMMIT";

/// Whether everything of [`INSTALL`] is there.
const INSTALLED: &str = "SELECT pg_catalog.to_regclass('pgrunbook.claim') IS NOT NULL
    AND pg_catalog.to_regclass('pgrunbook.ledger') IS NOT NULL
    AND pg_catalog.to_regprocedure('pgrunbook.assert_epoch(text,bigint)') IS NOT NULL";

/// How long a claim waits for the transactions and backends of the process before it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the schema, unless it is there.
///
/// # Errors
/// If the role may not create schemas in this database.
pub async fn install(session: &Session) -> Result<(), PgError> {
    if session.value(INSTALLED).await? == "t" {
        return Ok(());
    }
    if let Err(error) = session.execute(INSTALL).await {
        // The transaction is open and failed; the session is used further.
        let _ = session.execute("ROLLBACK").await;
        return Err(error);
    }
    Ok(())
}

/// Makes what a capability keeps in this database beside the ledger, unless `installed` says `t`. One transaction, under the lock of the
/// ledger's installation: `IF NOT EXISTS` alone races.
///
/// # Errors
/// If the role may not; nothing is made then.
pub async fn install_beside(session: &Session, installed: &str, sql: &str) -> Result<(), PgError> {
    install(session).await?;
    if session.value(installed).await? == "t" {
        return Ok(());
    }
    session.execute(&format!("SELECT pg_catalog.pg_advisory_xact_lock(1885827694, 0); {sql}")).await
}

/// One attempt of one step, as the ledger records it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub run: &'a str,
    pub step: &'a str,
    pub direction: Direction,
    pub attempt: u32,
    pub epoch: u64,
    pub digest: &'a str,
    pub operator: &'a str,
}

impl<'a> Entry<'a> {
    /// The entry of the attempt that is under way.
    pub fn of(cx: &'a RunCx<'_>) -> Self {
        Self {
            run: cx.run,
            step: cx.step.as_str(),
            direction: cx.direction,
            attempt: cx.attempt,
            epoch: cx.epoch,
            digest: cx.digest,
            operator: cx.operator,
        }
    }

    /// The statement that a transaction begins with: it fails with [`FENCED`] if another process has taken over, and
    /// holds the claim until the transaction ends.
    pub fn assert_sql(&self) -> String {
        assert_sql(self.run, self.epoch)
    }

    /// The statement that a transaction ends with, as the role that connected (`RESET ROLE` goes before it).
    pub fn record_sql(&self) -> String {
        format!(
            "INSERT INTO pgrunbook.ledger (run, step, direction, attempt, epoch, digest, operator)
             VALUES ({}, {}, '{}', {}, {}, {}, {})",
            text(self.run),
            text(self.step),
            word(self.direction),
            self.attempt,
            self.epoch,
            text(self.digest),
            text(self.operator)
        )
    }

    /// Whether the attempt was committed. Waits until nothing of this run is under way any more, so that the answer
    /// stays true.
    ///
    /// # Errors
    /// If the target cannot be asked, or a backend of the lost connection does not go away.
    pub async fn is_recorded(&self, session: &Session) -> Result<bool, PgError> {
        settle(session, self.run).await?;
        if session.value("SELECT pg_catalog.to_regclass('pgrunbook.ledger') IS NOT NULL").await? != "t" {
            return Ok(false);
        }
        let found = session
            .value(&format!(
                "SELECT count(*) FROM pgrunbook.ledger
                 WHERE run = {} AND step = {} AND direction = '{}' AND attempt = {}",
                text(self.run),
                text(self.step),
                word(self.direction),
                self.attempt
            ))
            .await?;
        Ok(found == "1")
    }
}

/// As [`Entry::assert_sql`].
pub fn assert_sql(run: &str, epoch: u64) -> String {
    format!("SELECT pgrunbook.assert_epoch({}, {epoch})", text(run))
}

/// Records who has a run in a database that its plan does not name and nobody claimed, so that [`assert_sql`] holds there too: the
/// other side of a transfer. A claim that stands stays; the epoch only rises.
///
/// # Errors
/// With [`FENCED`] if another process has taken the run over; if somebody holds the record for five seconds.
pub async fn hold(session: &Session, run: &str, epoch: u64, operator: &str) -> Result<(), PgError> {
    install(session).await?;
    let held = session
        .execute(&format!(
            "BEGIN;
             SET LOCAL lock_timeout = 5000;
             INSERT INTO pgrunbook.claim AS c (run, epoch, runbook, operator, host, pid, since, backend, released)
             VALUES ({}, {epoch}, '', {}, '', 0, pg_catalog.clock_timestamp(), 0, true)
             ON CONFLICT (run) DO UPDATE SET epoch = excluded.epoch WHERE c.epoch < excluded.epoch;
             {};
             COMMIT",
            text(run),
            text(operator),
            assert_sql(run, epoch)
        ))
        .await;
    if held.is_err() {
        let _ = session.execute("ROLLBACK").await;
    }
    held
}

/// Ends the backends of this run that are still at work for a connection that was lost or a process that was
/// killed, and waits until they are gone: only then is what they did certain.
///
/// # Errors
/// If the target cannot be asked, or they do not go away in half a minute.
pub async fn settle(session: &Session, run: &str) -> Result<(), PgError> {
    // `starts_with`: a run's id holds no pattern characters, but nothing here should rest on that. Idle ones have
    // nothing under way, and may be this process's own.
    let at_work = format!(
        "FROM pg_catalog.pg_stat_activity WHERE pid <> pg_catalog.pg_backend_pid()
         AND datname = pg_catalog.current_database()
         AND pg_catalog.starts_with(application_name, {}) AND state IS DISTINCT FROM 'idle'",
        text(&format!("pgrunbook:{run}:"))
    );
    let begun = std::time::Instant::now();
    let mut told = false;
    loop {
        let left = session.value(&format!("SELECT count(*) {at_work}")).await?;
        if left == "0" {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(PgError::Client(format!(
                "{left} backend(s) of run {run} are still at work after {} s",
                PATIENCE.as_secs()
            )));
        }
        if !told {
            session.execute(&format!("SELECT pg_catalog.pg_terminate_backend(pid) {at_work}")).await?;
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claimed {
    Yes,
    /// Another run is at work here.
    Held(Box<Claim>),
    /// A later process has claimed the same run.
    Behind,
}

/// Claims the database for a run, on a session that is kept open until [`release`]: an advisory lock of that session is
/// how others know that the claim lives.
///
/// # Errors
/// If the target cannot be asked.
pub async fn claim(session: &Session, claim: &Claim) -> Result<Claimed, PgError> {
    install(session).await?;
    let begun = std::time::Instant::now();
    while session.value("SELECT pg_catalog.pg_try_advisory_lock(1885827694, 1)").await? != "t" {
        match holder(session).await? {
            // The journal let this process take the run over: whoever holds the lock is its dead or sleeping
            // predecessor.
            Some((holder, backend)) if holder.run == claim.run => {
                session.execute(&format!("SELECT pg_catalog.pg_terminate_backend({backend})")).await?;
            }
            Some((holder, _)) => return Ok(Claimed::Held(Box::new(holder))),
            // Between the lock and the row, or between the row's end and the lock's.
            None => {}
        }
        if begun.elapsed() > PATIENCE {
            return Err(PgError::Client(
                "the claim of another run on this database is held by nobody known".to_owned(),
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    settle(session, &claim.run).await?;
    let taken = session
        .value(&format!(
            "INSERT INTO pgrunbook.claim AS c (run, epoch, runbook, operator, host, pid, since, step, backend)
             VALUES ({}, {}, {}, {}, {}, {}, {}, {}, pg_catalog.pg_backend_pid())
             ON CONFLICT (run) DO UPDATE SET epoch = excluded.epoch, operator = excluded.operator,
                 host = excluded.host, pid = excluded.pid, since = excluded.since, step = excluded.step,
                 backend = excluded.backend, released = false
             WHERE c.epoch <= excluded.epoch
             RETURNING c.epoch",
            text(&claim.run),
            claim.epoch,
            text(&claim.runbook),
            text(&claim.operator),
            text(&claim.host),
            claim.pid,
            text(&claim.since.to_string()),
            claim.step.as_ref().map_or_else(|| "NULL".to_owned(), |step| text(step.as_str())),
        ))
        .await?;
    if taken.is_empty() {
        session.execute("SELECT pg_catalog.pg_advisory_unlock(1885827694, 1)").await?;
        return Ok(Claimed::Behind);
    }
    Ok(Claimed::Yes)
}

/// Gives a claim back.
///
/// # Errors
/// If the target cannot be told; the claim then ends with its session.
pub async fn release(session: &Session, claim: &Claim) -> Result<(), PgError> {
    session
        .execute(&format!(
            "UPDATE pgrunbook.claim SET released = true WHERE run = {} AND epoch = {};
             SELECT pg_catalog.pg_advisory_unlock(1885827694, 1)",
            text(&claim.run),
            claim.epoch
        ))
        .await
}

/// The claim whose session holds the lock, and that session's backend.
async fn holder(session: &Session) -> Result<Option<(Claim, i32)>, PgError> {
    let answers = session
        .simple(
            "SELECT c.run, c.runbook, c.epoch, c.operator, c.host, c.pid,
                 pg_catalog.to_char(c.since AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), c.step, c.backend
             FROM pgrunbook.claim AS c JOIN pg_catalog.pg_locks AS l
                 ON l.pid = c.backend AND l.locktype = 'advisory' AND l.granted
                AND l.classid::bigint = 1885827694 AND l.objid::bigint = 1
                AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
             WHERE NOT c.released ORDER BY c.since DESC LIMIT 1",
        )
        .await?;
    let Some(row) = answers.last().and_then(|answer| answer.rows.first()) else { return Ok(None) };
    let value = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let claim = Claim {
        run: value(0),
        runbook: value(1),
        epoch: value(2).parse().unwrap_or_default(),
        operator: value(3),
        host: value(4),
        pid: value(5).parse().unwrap_or_default(),
        since: value(6).parse().unwrap_or_default(),
        step: value(7).parse().ok(),
    };
    Ok(Some((claim, value(8).parse().unwrap_or_default())))
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "forward",
        Direction::Back => "back",
    }
}

/// Texts that come here are ids, digests and names of people; a NUL byte, which no server takes, is left out.
fn text(value: &str) -> String {
    quote::literal(&value.replace('\0', "")).expect("NUL was taken out")
}
