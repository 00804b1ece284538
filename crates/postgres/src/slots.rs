//! Slots and publications: their names, their state, how they are made without waiting for ever, and how they go.
//!
//! A slot that nobody reads keeps the source's log until its disk is full; so each has an owner who must drop it.

use std::fmt;
use std::time::Duration;

use pgrunbook_engine::fault::{self, Point};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::PgError;
use crate::lsn::Lsn;
use crate::quote;
use crate::replication::{CreateSlot, Replication, Slot};
use crate::session::Session;

/// PostgreSQL keeps 63 bytes of a name.
const NAME_LIMIT: usize = 63;

/// What every slot and publication of ours begins with.
const OURS: &str = "pgrunbook_";

/// Which way changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the legacy source to the target.
    Forward,
    /// Back.
    Reverse,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
        })
    }
}

/// The name of a transfer's slot and publication, `pgrunbook_<schema>_<direction>`: of the characters that a slot's name
/// may have, and at most 63 bytes. Where the schema's name does not fit as it is, a hash of it keeps the names apart.
pub fn stream_name(schema: &str, direction: Direction) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let plain = format!("{OURS}{schema}_{direction}");
    if plain.len() <= NAME_LIMIT && schema.chars().all(fits) {
        return plain;
    }
    let tail = format!("_{:016x}_{direction}", xxh3_64(schema.as_bytes()));
    let room = NAME_LIMIT - OURS.len() - tail.len();
    let head: String =
        schema.chars().map(|c| c.to_ascii_lowercase()).map(|c| if fits(c) { c } else { '_' }).take(room).collect();
    format!("{OURS}{head}{tail}")
}

/// How a slot is, by `pg_replication_slots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// The walsender that uses it.
    pub active_pid: Option<i32>,
    /// The server keeps its log from here on.
    pub restart_lsn: Option<Lsn>,
    /// What was confirmed: nothing that was committed before is sent again.
    pub confirmed: Option<Lsn>,
    /// What whoever uses it says to have applied. `None`: nobody uses it, or the role that asks may not know.
    pub applied: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub wal_status: Option<String>,
    /// How much log the server keeps for it.
    pub retained_bytes: u64,
    /// Why it cannot be used any more; `None`: it can.
    pub invalidation: Option<String>,
}

/// Tried on 14 to 18: columns that an older version lacks are asked through the row's JSON.
const SLOT_STATE: &str = "
SELECT s.active_pid, s.restart_lsn, s.confirmed_flush_lsn,
       (SELECT r.replay_lsn FROM pg_catalog.pg_stat_replication AS r WHERE r.pid = s.active_pid), s.wal_status,
       greatest(pg_catalog.pg_wal_lsn_diff(
           CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END, s.restart_lsn), 0)::bigint,
       coalesce(pg_catalog.to_jsonb(s) ->> 'invalidation_reason',
                CASE WHEN s.wal_status = 'lost' THEN 'wal_removed'
                     WHEN (pg_catalog.to_jsonb(s) ->> 'conflicting')::boolean THEN 'conflicting' END)
FROM pg_catalog.pg_replication_slots AS s
WHERE s.slot_name = ";

/// The statement that asks for a slot's state.
pub(crate) fn slot_state_sql(name: &str) -> Result<String, PgError> {
    let name = quote::literal(name).map_err(|_| PgError::Options("a slot's name holds a NUL byte".to_owned()))?;
    Ok(format!("{SLOT_STATE}{name}"))
}

/// What its answer says.
pub(crate) fn read_slot_state(row: Vec<Option<String>>) -> SlotState {
    let mut values = row.into_iter();
    let mut next = || values.next().flatten();
    SlotState {
        active_pid: next().and_then(|pid| pid.parse().ok()),
        restart_lsn: next().and_then(|lsn| lsn.parse().ok()),
        confirmed: next().and_then(|lsn| lsn.parse().ok()),
        applied: next().and_then(|lsn| lsn.parse().ok()),
        wal_status: next(),
        retained_bytes: next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
        invalidation: next(),
    }
}

/// How a slot is; `None`: there is none of that name.
///
/// # Errors
/// What the server says.
pub async fn slot_state(session: &Session, name: &str) -> Result<Option<SlotState>, PgError> {
    let answers = session.simple(&slot_state_sql(name)?).await?;
    Ok(answers.into_iter().next_back().and_then(|answer| answer.rows.into_iter().next()).map(read_slot_state))
}

/// Who keeps a slot from being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotBlocker {
    /// A prepared transaction, which no session holds: `COMMIT PREPARED` or `ROLLBACK PREPARED` ends it.
    Prepared { gid: String, owner: String, database: String, since: String },
    /// A session with an open transaction that has written.
    Session { pid: i32, user: String, application: String, state: String, since: String },
}

impl fmt::Display for SlotBlocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepared { gid, owner, database, since } => {
                write!(f, "the prepared transaction `{gid}` of `{owner}` in `{database}`, since {since}")
            }
            Self::Session { pid, user, application, state, since } => {
                write!(f, "pid {pid} (user `{user}`; application `{application}`; {state}), since {since}")
            }
        }
    }
}

/// A walsender that makes a slot waits for transactions, one after another, by their ids. `pg_blocking_pids` says 0 for a
/// prepared one. Tried on 14 to 18.
const SLOT_BLOCKERS: &str = "
SELECT p.gid, p.owner::text, p.database::text, p.prepared::text, NULL, NULL
FROM pg_catalog.pg_locks AS w
JOIN pg_catalog.pg_prepared_xacts AS p ON p.transaction = w.transactionid
WHERE w.pid = PID AND NOT w.granted
UNION ALL
SELECT a.pid::text, coalesce(a.usename::text, ''), coalesce(a.application_name, ''), coalesce(a.xact_start::text, ''),
       coalesce(a.state, ''), 'session'
FROM pg_catalog.pg_locks AS w
JOIN pg_catalog.pg_locks AS h ON h.locktype = 'transactionid' AND h.transactionid = w.transactionid AND h.granted
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = h.pid
WHERE w.pid = PID AND NOT w.granted";

/// Whom the backend `pid` waits for, which makes a slot.
///
/// # Errors
/// What the server says.
pub async fn slot_blockers(observer: &Session, pid: i32) -> Result<Vec<SlotBlocker>, PgError> {
    let answers = observer.simple(&SLOT_BLOCKERS.replace("PID", &pid.to_string())).await?;
    let rows = answers.into_iter().next_back().unwrap_or_default().rows;
    Ok(rows
        .into_iter()
        .map(|row| {
            let mut values = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || values.next().unwrap_or_default();
            let (first, owner, third, since, state, kind) = (next(), next(), next(), next(), next(), next());
            if kind == "session" {
                let pid = first.parse().unwrap_or(0);
                SlotBlocker::Session { pid, user: owner, application: third, state, since }
            } else {
                SlotBlocker::Prepared { gid: first, owner, database: third, since }
            }
        })
        .collect())
}

/// Why a slot was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateSlotError {
    /// It was given up, and no slot is left behind.
    #[error("no slot could be made within {} s: {}", .waited.as_secs(), named(.blockers))]
    Blocked { waited: Duration, blockers: Vec<SlotBlocker> },
    #[error(transparent)]
    Postgres(#[from] PgError),
}

fn named(blockers: &[SlotBlocker]) -> String {
    match blockers {
        [] => "the server waits for open transactions".to_owned(),
        [first] => format!("the server waits for {first}"),
        [first, rest @ ..] => format!("the server waits for {first} and {} more", rest.len()),
    }
}

/// Makes a slot, and gives up after `patience`: then who is in the way is named. `observer` is another session on the same
/// cluster. Before the last half second of it ends, `observer` looks; when given up, the server is asked to cancel, and
/// the connection must be dropped.
///
/// # Errors
/// [`CreateSlotError::Blocked`], or what the server says.
pub async fn create_slot(
    connection: &mut Replication,
    observer: &Session,
    name: &str,
    how: CreateSlot,
    patience: Duration,
) -> Result<Slot, CreateSlotError> {
    let pid = connection.backend_pid();
    fault::pass(Point::BeforeEffect);
    tokio::select! {
        made = connection.create_slot(name, how) => {
            let made = made?;
            fault::pass(Point::AfterEffect);
            Ok(made)
        }
        () = tokio::time::sleep(patience) => {
            // Asked while it still waits: afterwards nothing links the two. Then the dropped future cancels it.
            let blockers = slot_blockers(observer, pid).await?;
            Err(CreateSlotError::Blocked { waited: patience, blockers })
        }
    }
}

/// Drops a slot of ours that nobody uses; whether there was one. A walsender of ours that still holds it is ended first.
///
/// # Errors
/// [`PgError::Options`] where the name is not one that [`stream_name`] makes, or the slot is not one of pgoutput in this
/// database; what the server says.
pub async fn drop_slot_if_ours(session: &Session, name: &str) -> Result<bool, PgError> {
    if !name.starts_with(OURS) {
        return Err(PgError::Options(format!(
            "the slot `{name}` is not pgrunbook's: its name would begin with {OURS}"
        )));
    }
    let literal = quote::literal(name).map_err(|_| PgError::Options("a slot's name holds a NUL byte".to_owned()))?;
    const WHOSE: &str = "SELECT s.plugin = 'pgoutput' AND s.database = pg_catalog.current_database(), s.active_pid
FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_name = ";
    let begun = std::time::Instant::now();
    loop {
        let answers = session.simple(&format!("{WHOSE}{literal}")).await?;
        let Some(row) = answers.last().and_then(|answer| answer.rows.first()) else { return Ok(false) };
        if row.first().cloned().flatten().as_deref() != Some("t") {
            return Err(PgError::Options(format!("the slot `{name}` is not of this database and pgoutput: it stays")));
        }
        if let Some(pid) = row.get(1).cloned().flatten().and_then(|pid| pid.parse::<i32>().ok()) {
            session.simple(&format!("SELECT pg_catalog.pg_terminate_backend({pid})")).await?;
        }
        fault::pass(Point::BeforeEffect);
        match session.simple(&format!("SELECT pg_catalog.pg_drop_replication_slot({literal})")).await {
            Ok(_) => {
                fault::pass(Point::AfterEffect);
                return Ok(true);
            }
            // Gone meanwhile.
            Err(error) if error.sqlstate() == Some("42704") => return Ok(false),
            // Still held by the one that was told to end.
            Err(error) if error.sqlstate() == Some("55006") && begun.elapsed() < session.options().connect_timeout => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Makes a publication of exactly these tables (schema and name), of all their changes; one of that name is made over.
///
/// An UPDATE or DELETE on a published table without replica identity fails from then on: look before.
///
/// # Errors
/// What the server says.
pub async fn create_publication(session: &Session, name: &str, tables: &[(String, String)]) -> Result<(), PgError> {
    let whole = |(schema, table): &(String, String)| Published {
        schema: schema.clone(),
        table: table.clone(),
        columns: Vec::new(),
    };
    create_publication_of(session, name, &tables.iter().map(whole).collect::<Vec<_>>()).await
}

/// A table of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub schema: String,
    pub table: String,
    /// Only these columns, which must hold the replica identity: from PostgreSQL 15 on. All, if none is named.
    /// <https://www.postgresql.org/docs/current/logical-replication-col-lists.html>
    pub columns: Vec<String>,
}

/// As [`create_publication`], with columns.
///
/// # Errors
/// What the server says.
pub async fn create_publication_of(session: &Session, name: &str, tables: &[Published]) -> Result<(), PgError> {
    let nul = |_| PgError::Options("a table's or a column's name holds a NUL byte".to_owned());
    let quoted = quote::ident(name).map_err(nul)?;
    let list = tables
        .iter()
        .map(|Published { schema, table, columns }| {
            let name = format!("ONLY {}.{}", quote::ident(schema).map_err(nul)?, quote::ident(table).map_err(nul)?);
            let columns =
                columns.iter().map(|column| quote::ident(column).map_err(nul)).collect::<Result<Vec<_>, _>>()?;
            Ok(if columns.is_empty() { name } else { format!("{name} ({})", columns.join(", ")) })
        })
        .collect::<Result<Vec<_>, PgError>>()?
        .join(", ");
    let tables = if list.is_empty() { String::new() } else { format!(" FOR TABLE {list}") };
    made(session, &format!("BEGIN; DROP PUBLICATION IF EXISTS {quoted}; CREATE PUBLICATION {quoted}{tables}; COMMIT"))
        .await
}

/// Drops a publication, if there is one.
///
/// # Errors
/// What the server says.
pub async fn drop_publication(session: &Session, name: &str) -> Result<(), PgError> {
    let quoted =
        quote::ident(name).map_err(|_| PgError::Options("a publication's name holds a NUL byte".to_owned()))?;
    made(session, &format!("DROP PUBLICATION IF EXISTS {quoted}")).await
}

async fn made(session: &Session, sql: &str) -> Result<(), PgError> {
    fault::pass(Point::BeforeCommit);
    session.execute(sql).await?;
    fault::pass(Point::AfterCommit);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        assert_eq!(stream_name("health", Direction::Forward), "pgrunbook_health_forward");
        let long = "a".repeat(63);
        let names: Vec<_> = ["Health", "hEalth", "my-app", "my.app", "größe", "grüße", &long, &long[..62], &long[..36]]
            .into_iter()
            .flat_map(|schema| [stream_name(schema, Direction::Forward), stream_name(schema, Direction::Reverse)])
            .collect();
        for (at, name) in names.iter().enumerate() {
            assert!(name.len() <= 63, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            assert!(!names[at + 1..].contains(name), "{name}");
        }
    }
}
