//! Who holds up a fence: sessions, and prepared transactions, which have no session.

use std::fmt;
use std::time::Duration;

use pgrunbook_postgres::{PgError, Session};

/// Characters of a query that are shown.
const SHOWN: usize = 80;

/// Somebody who holds a lock that a fence waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Session {
        pid: i32,
        user: Option<String>,
        application: Option<String>,
        /// `active`, `idle in transaction`; `None` where the role may not see it.
        state: Option<String>,
        /// How long its transaction is open.
        open_for: Option<Duration>,
        /// Its present or last query, shortened.
        query: Option<String>,
    },
    Prepared {
        gid: String,
        owner: String,
        prepared_for: Duration,
    },
}

impl Holder {
    /// The statement that ends it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Session { pid, .. } => Some(format!("end that session: SELECT pg_terminate_backend({pid})")),
            Self::Prepared { gid, .. } => {
                let gid = gid.replace('\'', "''");
                Some(format!("end that transaction: COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}'"))
            }
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session { pid, user, application, state, open_for, query } => {
                let state = state.clone().map(|state| match open_for {
                    Some(age) => format!("{state} for {}", seconds(*age)),
                    None => state,
                });
                let facts: Vec<String> = [
                    user.as_ref().map(|user| format!("user `{user}`")),
                    application.as_ref().map(|name| format!("application `{name}`")),
                    state,
                    query.as_ref().map(|query| format!("query `{query}`")),
                ]
                .into_iter()
                .flatten()
                .collect();
                write!(f, "pid {pid}")?;
                if facts.is_empty() { Ok(()) } else { write!(f, " ({})", facts.join("; ")) }
            }
            Self::Prepared { gid, owner, prepared_for } => {
                write!(f, "the prepared transaction `{gid}` (of `{owner}`, prepared {} ago)", seconds(*prepared_for))
            }
        }
    }
}

fn seconds(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// `pg_blocking_pids` gives 0 for a prepared transaction; which one it is, only `pg_locks` can tell, by the transaction id
/// that the same virtual transaction holds. Tried on 15.
/// See <https://www.postgresql.org/docs/15/view-pg-locks.html>.
const HOLDERS: &str = r"
WITH blocking AS (SELECT DISTINCT b.pid FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) AS b(pid))
SELECT a.pid, a.usename::text, nullif(a.application_name, ''), a.state,
       greatest(0, extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start))::pg_catalog.int8, a.query, NULL::text, NULL::text
FROM blocking AS b JOIN pg_catalog.pg_stat_activity AS a ON a.pid = b.pid
UNION ALL
SELECT NULL, NULL, NULL, NULL, greatest(0, extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared))::pg_catalog.int8, NULL, p.gid, p.owner::text
FROM pg_catalog.pg_prepared_xacts AS p
WHERE 0 IN (SELECT b.pid FROM blocking AS b)
  AND EXISTS (
    SELECT FROM pg_catalog.pg_locks AS x
    JOIN pg_catalog.pg_locks AS l ON l.virtualtransaction = x.virtualtransaction AND l.pid IS NULL
    JOIN pg_catalog.pg_locks AS w ON w.pid = $1 AND NOT w.granted
        AND w.relation = l.relation AND w.database = l.database
    WHERE x.pid IS NULL AND x.locktype = 'transactionid' AND x.transactionid = p.transaction)";

/// Who holds what the backend `pid` waits for now; asked on another session.
///
/// # Errors
/// If the server cannot be asked.
pub(super) async fn holders(observer: &Session, pid: i32) -> Result<Vec<Holder>, PgError> {
    let sql = HOLDERS.replace("$1", &pid.to_string());
    let answers = observer.simple(&sql).await?;
    let rows = answers.last().map(|answer| answer.rows.as_slice()).unwrap_or_default();
    Ok(rows.iter().map(|row| holder(row)).collect())
}

fn holder(row: &[Option<String>]) -> Holder {
    let text = |at: usize| row.get(at).cloned().flatten();
    let age = text(4).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    match (text(6), text(7)) {
        (Some(gid), Some(owner)) => Holder::Prepared { gid, owner, prepared_for: age.unwrap_or_default() },
        _ => Holder::Session {
            pid: text(0).and_then(|pid| pid.parse().ok()).unwrap_or_default(),
            user: text(1),
            application: text(2),
            state: text(3),
            open_for: age,
            query: text(5).map(|query| shortened(&query)).filter(|query| !query.is_empty()),
        },
    }
}

/// In one line, and not longer than people read.
fn shortened(query: &str) -> String {
    let line = query.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_reads_as_a_sentence() {
        let session = Holder::Session {
            pid: 4711,
            user: Some("app".to_owned()),
            application: Some("psql".to_owned()),
            state: Some("idle in transaction".to_owned()),
            open_for: Some(Duration::from_secs(725)),
            query: Some(shortened(&format!("UPDATE notes\n   SET body = '{}'", "ä".repeat(90)))),
        };
        let text = session.to_string();
        assert!(text.starts_with(
            "pid 4711 (user `app`; application `psql`; idle in transaction for 12 min; query `UPDATE notes SET"
        ));
        assert!(text.ends_with("ä...`)"), "{text}");
        let prepared =
            Holder::Prepared { gid: "it's".to_owned(), owner: "app".to_owned(), prepared_for: Duration::from_secs(3) };
        assert_eq!(prepared.to_string(), "the prepared transaction `it's` (of `app`, prepared 3 s ago)");
        assert!(prepared.remedy().unwrap().contains("ROLLBACK PREPARED 'it''s'"));
    }
}
