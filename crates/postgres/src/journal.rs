//! The engine's journal in a PostgreSQL: for teams that want one place for all runs. In another cluster than the targets.
//!
//! Same tables and promises as the SQLite journal: an append is one transaction with `synchronous_commit`, guarded by the
//! run's epoch; events are never updated, deleted or truncated, not even by their owner.

use async_trait::async_trait;
use jiff::Timestamp;
use pgrunbook_engine::journal::{LEASE_EXPIRY, Sealed};
use pgrunbook_engine::{Claim, Journal, JournalError, process};
use tokio::sync::{Mutex, MutexGuard};

use crate::error::PgError;
use crate::options::ConnectOptions;
use crate::quote;
use crate::session::Session;

/// Version 1 of the tables.
const VERSION: &str = "1";

/// What a writer is told whose epoch is over. Class `RB` is nobody else's.
const BEHIND: &str = "RB002";

/// Serialises everything that decides about leases; the second number is that of `ledger`'s locks plus two.
const LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock(1885827694, 2)";

const SCHEMA: &str = r"
CREATE SCHEMA IF NOT EXISTS pgrunbook_journal;
CREATE TABLE IF NOT EXISTS pgrunbook_journal.version (version text NOT NULL);
INSERT INTO pgrunbook_journal.version SELECT '1' WHERE NOT EXISTS (SELECT FROM pgrunbook_journal.version);
CREATE TABLE IF NOT EXISTS pgrunbook_journal.event (
    run text NOT NULL,
    seq bigint NOT NULL CHECK (seq > 0),
    at text NOT NULL,
    event text NOT NULL,
    previous text NOT NULL,
    hash text NOT NULL,
    PRIMARY KEY (run, seq)
);
CREATE TABLE IF NOT EXISTS pgrunbook_journal.epoch (run text PRIMARY KEY, epoch bigint NOT NULL);
CREATE TABLE IF NOT EXISTS pgrunbook_journal.lease (
    name text PRIMARY KEY,
    run text NOT NULL UNIQUE,
    runbook text NOT NULL,
    epoch bigint NOT NULL,
    operator text NOT NULL,
    host text NOT NULL,
    pid bigint NOT NULL,
    process text,
    since text NOT NULL,
    step text,
    heartbeat_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE OR REPLACE FUNCTION pgrunbook_journal.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS
    'BEGIN RAISE EXCEPTION ''the journal is append-only''; END';
CREATE OR REPLACE TRIGGER event_is_never_changed BEFORE UPDATE OR DELETE ON pgrunbook_journal.event
    FOR EACH ROW EXECUTE FUNCTION pgrunbook_journal.refuse();
CREATE OR REPLACE TRIGGER event_is_never_truncated BEFORE TRUNCATE ON pgrunbook_journal.event
    FOR EACH STATEMENT EXECUTE FUNCTION pgrunbook_journal.refuse();
ALTER TABLE pgrunbook_journal.event ENABLE ALWAYS TRIGGER event_is_never_changed;
ALTER TABLE pgrunbook_journal.event ENABLE ALWAYS TRIGGER event_is_never_truncated;
CREATE OR REPLACE FUNCTION pgrunbook_journal.may_append(run text, epoch bigint, first bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE found bigint; last bigint;
BEGIN
    SELECT e.epoch INTO found FROM pgrunbook_journal.epoch AS e WHERE e.run = may_append.run FOR UPDATE;
    SELECT coalesce(max(v.seq), 0) INTO last FROM pgrunbook_journal.event AS v WHERE v.run = may_append.run;
    IF coalesce(found, 0) <> may_append.epoch OR last + 1 <> may_append.first THEN
        RAISE EXCEPTION USING ERRCODE = 'RB002', MESSAGE = 'another process took over';
    END IF;
END $$;
";

/// A journal in a database.
pub struct PostgresJournal {
    options: ConnectOptions,
    kept: Mutex<Option<Session>>,
    cluster: String,
}

impl PostgresJournal {
    /// Connects, and makes the tables where they are not there.
    ///
    /// # Errors
    /// If it cannot be reached or written, or was written by a newer version.
    pub async fn open(options: &ConnectOptions) -> Result<Self, JournalError> {
        let journal = Self { options: options.clone(), kept: Mutex::new(None), cluster: String::new() };
        let kept = journal.session().await.map_err(|error| journal.cannot("opened", &error))?;
        let session = open(&kept);
        let fails = |error: PgError| journal.cannot("opened", &error);
        let there = "SELECT pg_catalog.to_regprocedure('pgrunbook_journal.may_append(text,bigint,bigint)') IS NOT NULL";
        if session.value(there).await.map_err(fails)? != "t" {
            let made = session.execute(&format!("BEGIN; {LOCK}; {SCHEMA} COMMIT")).await;
            if let Err(error) = made {
                let _ = session.execute("ROLLBACK").await;
                return Err(fails(error));
            }
        }
        let version = session.value("SELECT version FROM pgrunbook_journal.version").await.map_err(fails)?;
        if version != VERSION {
            let why = format!("its tables are of version {version}, and this pgrunbook knows up to {VERSION}");
            return Err(JournalError::Storage { place: options.to_string(), what: "opened", why });
        }
        let cluster =
            session.value("SELECT system_identifier FROM pg_catalog.pg_control_system()").await.map_err(fails)?;
        drop(kept);
        Ok(Self { cluster, ..journal })
    }

    /// The connection; a new one where the last was lost.
    async fn session(&self) -> Result<MutexGuard<'_, Option<Session>>, PgError> {
        let mut kept = self.kept.lock().await;
        if kept.as_ref().is_none_or(Session::is_closed) {
            let session = Session::connect(&self.options, "pgrunbook:journal").await?;
            // A role or database may have it off: an event that was appended must survive the machine.
            session.execute("SET synchronous_commit = on; SET default_transaction_read_only = off").await?;
            *kept = Some(session);
        }
        Ok(kept)
    }

    fn cannot(&self, what: &'static str, error: &PgError) -> JournalError {
        JournalError::Storage { place: self.options.to_string(), what, why: error.to_string() }
    }

    /// Runs a text; what failed is rolled back.
    async fn run(&self, what: &'static str, text: &str) -> Result<Vec<Vec<Option<String>>>, JournalError> {
        let kept = self.session().await.map_err(|error| self.cannot(what, &error))?;
        let session = open(&kept);
        match session.simple(text).await {
            Ok(answers) => {
                // The last result that has columns: COMMIT and the like have none.
                let rows = answers.into_iter().rev().find(|answer| !answer.columns.is_empty());
                Ok(rows.map(|answer| answer.rows).unwrap_or_default())
            }
            Err(error) => {
                if !session.is_closed() {
                    let _ = session.execute("ROLLBACK").await;
                }
                Err(match error.sqlstate() {
                    // Another process has written the same number.
                    Some(BEHIND | "23505") => JournalError::Behind,
                    _ => self.cannot(what, &error),
                })
            }
        }
    }

    /// Who holds leases, with whether they live as far as it can be known on `host`.
    async fn holders(&self, host: &str, filter: &str) -> Result<Vec<(String, Claim, bool)>, JournalError> {
        let rows = self
            .run(
                "read",
                &format!(
                    "SELECT name, run, runbook, epoch, operator, host, pid, process, since, step,
                         heartbeat_at > pg_catalog.clock_timestamp() - interval '{} s'
                     FROM pgrunbook_journal.lease {filter} ORDER BY name",
                    LEASE_EXPIRY.as_secs()
                ),
            )
            .await?;
        Ok(rows.into_iter().map(|row| holder(&row, host)).collect())
    }
}

fn open<'s>(kept: &'s MutexGuard<'_, Option<Session>>) -> &'s Session {
    kept.as_ref().expect("`session` has set it")
}

fn holder(row: &[Option<String>], host: &str) -> (String, Claim, bool) {
    let optional = |at: usize| row.get(at).cloned().flatten();
    let value = |at: usize| optional(at).unwrap_or_default();
    let claim = Claim {
        run: value(1),
        runbook: value(2),
        epoch: value(3).parse().unwrap_or_default(),
        operator: value(4),
        host: value(5),
        pid: value(6).parse().unwrap_or_default(),
        since: value(8).parse().unwrap_or(Timestamp::UNIX_EPOCH),
        step: optional(9).and_then(|step| step.parse().ok()),
    };
    let dead = claim.host == host && !process::lives(claim.pid, optional(7).as_deref());
    let lives = !dead && value(10) == "t";
    (value(0), claim, lives)
}

/// Everything that comes here is text of ours or of people; what the server cannot hold is left out.
fn text(value: &str) -> String {
    quote::literal(&value.replace('\0', "")).expect("NUL was taken out")
}

#[async_trait]
impl Journal for PostgresJournal {
    async fn append(&self, run: &str, epoch: u64, events: &[Sealed]) -> Result<(), JournalError> {
        let Some(first) = events.first() else { return Ok(()) };
        // Their numbers must follow each other: the guard looks at the first alone.
        if events.windows(2).any(|pair| pair[1].seq != pair[0].seq + 1) {
            return Err(JournalError::Behind);
        }
        let mut values = Vec::with_capacity(events.len());
        for sealed in events {
            let event = serde_json::to_string(&sealed.event).map_err(|error| JournalError::Storage {
                place: self.options.to_string(),
                what: "written",
                why: error.to_string(),
            })?;
            values.push(format!(
                "({}, {}, {}, {}, {}, {})",
                text(run),
                sealed.seq,
                text(&sealed.at.to_string()),
                text(&event),
                text(&sealed.previous),
                text(&sealed.hash)
            ));
        }
        let statement = format!(
            "BEGIN; SELECT pgrunbook_journal.may_append({}, {epoch}, {});
             INSERT INTO pgrunbook_journal.event (run, seq, at, event, previous, hash) VALUES {}; COMMIT",
            text(run),
            first.seq,
            values.join(", ")
        );
        self.run("written", &statement).await.map(drop)
    }

    async fn read(&self, run: &str) -> Result<Vec<Sealed>, JournalError> {
        let rows = self
            .run(
                "read",
                &format!(
                    "SELECT seq, at, event, previous, hash FROM pgrunbook_journal.event WHERE run = {} ORDER BY seq",
                    text(run)
                ),
            )
            .await?;
        rows.into_iter()
            .map(|row| {
                let value = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
                let seq = value(0).parse().unwrap_or_default();
                Sealed::read(run, seq, &value(1), &value(2), value(3), value(4))
            })
            .collect()
    }

    async fn runs(&self) -> Result<Vec<String>, JournalError> {
        let statement = "SELECT run FROM pgrunbook_journal.event WHERE seq = 1 ORDER BY at DESC, run DESC";
        let rows = self.run("read", statement).await?;
        Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    async fn claim(&self, name: &str, claim: &Claim) -> Result<u64, JournalError> {
        // Looked at first, and once more inside the transaction that takes it: who comes between the two wins.
        let filter = format!("WHERE name = {} OR run = {}", text(name), text(&claim.run));
        let holders = self.holders(&claim.host, &filter).await?;
        if let Some((_, holder, _)) = holders.iter().find(|(_, _, lives)| *lives) {
            return Err(JournalError::Taken(Box::new(holder.clone())));
        }
        // Those that were seen, and are dead: only these may be taken over.
        let dead: Vec<String> = holders
            .iter()
            .map(|(name, holder, _)| format!("({}, {}, {})", text(name), text(&holder.run), holder.epoch))
            .collect();
        let left = if dead.is_empty() {
            String::new()
        } else {
            format!(" AND (name, run, epoch) NOT IN (VALUES {})", dead.join(", "))
        };
        let mark = process::mark(claim.pid).map_or_else(|| "NULL".to_owned(), |mark| text(&mark));
        let statement = format!(
            "BEGIN; {LOCK};
             DO $$ BEGIN
                 IF EXISTS (SELECT FROM pgrunbook_journal.lease {filter_in}{left}) THEN
                     RAISE EXCEPTION USING ERRCODE = '{BEHIND}', MESSAGE = 'taken meanwhile';
                 END IF;
             END $$;
             DELETE FROM pgrunbook_journal.lease {filter};
             INSERT INTO pgrunbook_journal.epoch AS e (run, epoch) VALUES ({run}, 1)
                 ON CONFLICT (run) DO UPDATE SET epoch = e.epoch + 1;
             INSERT INTO pgrunbook_journal.lease (name, run, runbook, epoch, operator, host, pid, process, since, step)
                 SELECT {name}, {run}, {runbook}, epoch, {operator}, {host}, {pid}, {mark}, {since}, {step}
                 FROM pgrunbook_journal.epoch WHERE run = {run}
                 RETURNING epoch;
             COMMIT",
            filter_in = filter.replacen("WHERE ", "WHERE (", 1) + ")",
            name = text(name),
            run = text(&claim.run),
            runbook = text(&claim.runbook),
            operator = text(&claim.operator),
            host = text(&claim.host),
            pid = claim.pid,
            since = text(&claim.since.to_string()),
            step = claim.step.as_ref().map_or_else(|| "NULL".to_owned(), |step| text(step.as_str())),
        );
        match self.run("written", &statement).await {
            Ok(rows) => {
                let epoch = rows.first().and_then(|row| row.first().cloned().flatten());
                Ok(epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or_default())
            }
            Err(JournalError::Behind) => {
                let holders = self.holders(&claim.host, &filter).await?;
                match holders.into_iter().next() {
                    Some((_, holder, _)) => Err(JournalError::Taken(Box::new(holder))),
                    None => Err(JournalError::Behind),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn heartbeat(&self, name: &str, claim: &Claim) -> Result<(), JournalError> {
        let rows = self
            .run(
                "written",
                &format!(
                    "UPDATE pgrunbook_journal.lease SET heartbeat_at = pg_catalog.clock_timestamp(), step = {}
                     WHERE name = {} AND run = {} AND epoch = {} RETURNING name",
                    claim.step.as_ref().map_or_else(|| "NULL".to_owned(), |step| text(step.as_str())),
                    text(name),
                    text(&claim.run),
                    claim.epoch
                ),
            )
            .await?;
        if rows.is_empty() { Err(JournalError::Behind) } else { Ok(()) }
    }

    async fn release(&self, name: &str, claim: &Claim) -> Result<(), JournalError> {
        self.run(
            "written",
            &format!(
                "DELETE FROM pgrunbook_journal.lease WHERE name = {} AND run = {} AND epoch = {}",
                text(name),
                text(&claim.run),
                claim.epoch
            ),
        )
        .await
        .map(drop)
    }

    async fn leases(&self, host: &str) -> Result<Vec<(String, Claim)>, JournalError> {
        let holders = self.holders(host, "").await?;
        Ok(holders.into_iter().filter(|(_, _, lives)| *lives).map(|(name, claim, _)| (name, claim)).collect())
    }

    async fn cluster(&self) -> Result<Option<String>, JournalError> {
        Ok(Some(self.cluster.clone()))
    }
}
