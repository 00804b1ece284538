//! Transactions behind which the creation of a slot hangs without a word: it waits for every one that has an xid, of every
//! database of the cluster, and for forgotten prepared ones for ever.
//!
//! See <https://www.postgresql.org/docs/current/view-pg-prepared-xacts.html>,
//! <https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW>.

use super::{Rule, Severity};

/// At the source, whose slot feeds the target.
pub(super) const SOURCE: &[Rule] = &[
    Rule::new("prepared-transaction", Severity::Refuse, PREPARED),
    Rule::new("long-transaction", Severity::Refuse, LONG),
    Rule::new("hidden-transaction", Severity::Warn, HIDDEN),
    Rule::new("slot-retains", Severity::Warn, RETAINED),
];

/// At the target, whose slot feeds the source after the switch.
pub(super) const TARGET: &[Rule] = &[
    Rule::new("prepared-transaction", Severity::Refuse, PREPARED),
    Rule::new("long-transaction", Severity::Refuse, LONG_AT_TARGET),
    Rule::new("hidden-transaction", Severity::Warn, HIDDEN),
    Rule::new("slot-retains", Severity::Warn, RETAINED),
];

const PREPARED: &str = "SELECT NULL::text,
    pg_catalog.format('prepared transaction %L', p.gid),
    pg_catalog.format('It is open for %s s in the database %s, by %s: a replication slot would wait for it.',
        pg_catalog.round(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - p.prepared))::text, p.database, p.owner),
    pg_catalog.format('in the database %I: COMMIT PREPARED %L or ROLLBACK PREPARED %L', p.database, p.gid, p.gid)
FROM pg_catalog.pg_prepared_xacts AS p
WHERE $1::text IS NOT NULL AND pg_catalog.clock_timestamp() - p.prepared > pg_catalog.make_interval(secs => $2::float8)
ORDER BY p.prepared";

macro_rules! long {
    ($but:literal) => {
        concat!(
            "SELECT NULL::text,
    pg_catalog.format('backend %s', a.pid),
    pg_catalog.format('Its transaction is open for %s s (%s, application %L, role %s, database %s) and has an xid: a '
        'replication slot would wait for it.',
        pg_catalog.round(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start))::text, a.state,
        a.application_name, a.usename, a.datname),
    pg_catalog.format('end it there, or SELECT pg_catalog.pg_terminate_backend(%s)', a.pid)
FROM pg_catalog.pg_stat_activity AS a
WHERE $1::text IS NOT NULL AND a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
  AND pg_catalog.clock_timestamp() - a.xact_start > pg_catalog.make_interval(secs => $2::float8)",
            $but,
            "\nORDER BY a.xact_start"
        )
    };
}

const LONG: &str = long!("");

/// Other transfers load into the same cluster, a large table or index in one transaction: nobody forgot them, and they end long
/// before a slot is made there, which is at the switch.
const LONG_AT_TARGET: &str = long!(" AND NOT pg_catalog.starts_with(a.application_name, 'pgrunbook:')");

/// Of other roles' sessions only a member of pg_read_all_stats sees since when; that there is an xid, everybody.
const HIDDEN: &str = "SELECT NULL::text,
    pg_catalog.format('backend %s', a.pid),
    pg_catalog.format('Its transaction has an xid, and role %s may not see since when it is open.', CURRENT_USER),
    pg_catalog.format('GRANT pg_read_all_stats TO %I', CURRENT_USER)
FROM pg_catalog.pg_stat_activity AS a
WHERE $1::text IS NOT NULL AND a.backend_xid IS NOT NULL AND a.xact_start IS NULL";

/// More than a gigabyte, or an inactive one that keeps what it has.
const RETAINED: &str = "SELECT NULL::text,
    pg_catalog.format('slot %s', s.slot_name),
    pg_catalog.format('It is %s and keeps %s of WAL.', CASE WHEN s.active THEN 'active' ELSE 'inactive' END,
        pg_catalog.pg_size_pretty(w.kept)),
    pg_catalog.format('if nobody needs it: SELECT pg_catalog.pg_drop_replication_slot(%L)', s.slot_name)
FROM pg_catalog.pg_replication_slots AS s,
     LATERAL (SELECT pg_catalog.pg_wal_lsn_diff(
         CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
              ELSE pg_catalog.pg_current_wal_lsn() END, s.restart_lsn) AS kept) AS w
WHERE $1::text IS NOT NULL AND s.restart_lsn IS NOT NULL AND NOT s.temporary
  AND (w.kept > 1073741824 OR NOT s.active)
ORDER BY w.kept DESC";
