//! Who a server's database is, whatever address led there.

use pgrunbook_engine::Identity;

use crate::error::PgError;
use crate::session::Session;

/// System identifier, database OID, timeline, version, whether it is a standby.
///
/// See <https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-CONTROLDATA>. A primary's timeline is
/// that of the file it writes now; the control file knows it only from the last checkpoint on.
const WHO: &str = "SELECT s.system_identifier, d.oid, pg_catalog.current_setting('server_version'),
    pg_catalog.pg_is_in_recovery(),
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())
         ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int
    END
FROM pg_catalog.pg_control_system() AS s, pg_catalog.pg_database AS d
WHERE d.datname = pg_catalog.current_database()";

/// Asks the server which database this is.
///
/// The key is `{system identifier}/{database OID}`: the same for every name, address and pooler that leads there, another
/// for a copy that was made with `initdb`, and another for a database that was dropped and made anew.
///
/// # Errors
/// If the server refuses; some managed services keep `pg_control_system()` from ordinary roles.
pub async fn identify(session: &Session, name: &str) -> Result<Identity, PgError> {
    let answers = session.simple(WHO).await?;
    let row = answers.last().and_then(|answer| answer.rows.first()).cloned().unwrap_or_default();
    let mut values = row.into_iter().map(Option::unwrap_or_default);
    let mut next = || values.next().unwrap_or_default();
    let (system, oid, version, standby, timeline) = (next(), next(), next(), next(), next());
    let role = if standby == "t" { ", a standby" } else { "" };
    let version = version.split_whitespace().next().unwrap_or_default();
    Ok(Identity {
        name: name.to_owned(),
        kind: "postgres".to_owned(),
        key: format!("{system}/{oid}"),
        shown: format!("{}, PostgreSQL {version}{role}", session.options()),
        timeline: timeline.parse().ok(),
    })
}
