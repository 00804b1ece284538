//! Versions, settings, slots and WAL of both sides.

use std::time::Instant;

use pgrunbook_postgres::{Lsn, Session};

use super::{Finding, Origin, Severity, TransferError, Wanted};
use crate::backup::programs;
use crate::transfer::disk::Disk;
use crate::transfer::status::size;

/// What a server says of itself.
pub(super) struct Facts {
    pub version: u32,
    pub role: String,
    pub superuser: bool,
    pub replication: bool,
    pub database: String,
    wal_level: String,
    standby: bool,
    slots_free: i64,
    senders_free: i64,
    /// Megabytes; negative where there is no limit.
    slot_keep: i64,
    idle_slot: String,
    encoding: String,
    collate: String,
    /// The collation's version as it was recorded, and as the system's library has it now; 15 and later.
    collation_recorded: String,
    collation_actual: String,
    pub disk: Disk,
}

/// <https://www.postgresql.org/docs/current/runtime-config-replication.html>
const FACTS: &str = "SELECT pg_catalog.current_setting('server_version_num')::int / 10000,
    CURRENT_USER::text, r.rolsuper,
    r.rolsuper OR r.rolreplication OR EXISTS (SELECT FROM pg_catalog.pg_roles AS m WHERE m.rolname = 'rds_replication'
        AND pg_catalog.pg_has_role(CURRENT_USER, m.oid, 'MEMBER')),
    d.datname::text,
    pg_catalog.current_setting('wal_level'),
    pg_catalog.pg_is_in_recovery(),
    pg_catalog.current_setting('max_replication_slots')::bigint
        - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots),
    pg_catalog.current_setting('max_wal_senders')::bigint
        - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walsender'),
    (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'),
    coalesce(pg_catalog.current_setting('idle_replication_slot_timeout', true), '0'),
    pg_catalog.pg_encoding_to_char(d.encoding)::text,
    pg_catalog.concat_ws(' ', 'provider', coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c'), 'collate', d.datcollate,
        'ctype', d.datctype, coalesce(pg_catalog.to_jsonb(d) ->> 'daticulocale', pg_catalog.to_jsonb(d) ->> 'datlocale')),
    coalesce(pg_catalog.to_jsonb(d) ->> 'datcollversion', '')
FROM pg_catalog.pg_database AS d, pg_catalog.pg_roles AS r
WHERE d.datname = pg_catalog.current_database() AND r.rolname = CURRENT_USER";

/// Since 15.
const COLLATION_NOW: &str = "SELECT coalesce(pg_catalog.pg_database_collation_actual_version(oid), '')
FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";

impl Facts {
    pub async fn read(session: &Session) -> Result<Self, TransferError> {
        let failed = |error: tokio_postgres::Error| session.error(&error);
        let row = session.client().query_one(FACTS, &[]).await.map_err(failed)?;
        let version = row.get::<_, i32>(0).unsigned_abs();
        let collation_actual = match version {
            15.. => session.value(COLLATION_NOW).await?,
            _ => String::new(),
        };
        Ok(Self {
            version,
            role: row.get(1),
            superuser: row.get(2),
            replication: row.get(3),
            database: row.get(4),
            wal_level: row.get(5),
            standby: row.get(6),
            slots_free: row.get(7),
            senders_free: row.get(8),
            slot_keep: row.get(9),
            idle_slot: row.get(10),
            encoding: row.get(11),
            collate: row.get(12),
            collation_recorded: row.get(13),
            collation_actual,
            disk: Disk::of(session).await?,
        })
    }
}

/// What the settings of both sides allow.
pub(super) fn settings(from: &Facts, to: &Facts, wanted: &Wanted, findings: &mut Vec<Finding>) {
    sender("source", from, wanted, findings);
    if wanted.reverse {
        sender("target", to, wanted, findings);
    }
    if to.standby && !wanted.reverse {
        findings.push(standby("target", to));
    }
    condition("source", from, findings);
    condition("target", to, findings);
    if to.version < from.version {
        let what = format!("It is PostgreSQL {}, older than the source's {}.", to.version, from.version);
        findings.push(
            Finding::new(Severity::Refuse, "target-older", server("target", to), what)
                .remedy("upgrade the target: definitions of a newer version may not be understood"),
        );
    }
    if wanted.structure == Origin::Create
        && let Err(error) = programs::find("pg_dump", from.version)
    {
        let remedy = error.help.clone().unwrap_or_default();
        findings
            .push(Finding::new(Severity::Refuse, "no-pg-dump", "program pg_dump", format!("{error}.")).remedy(remedy));
    }
    encoding(from, to, findings);
    if from.collate != to.collate {
        let what = format!(
            "It sorts by `{}`, and the source by `{}`: ORDER BY and LIKE may differ.",
            to.collate, from.collate
        );
        findings.push(
            Finding::new(Severity::Warn, "collation", server("target", to), what)
                .remedy("if it matters, make the database with the source's locale, or columns with COLLATE"),
        );
    } else if from.collation_actual != to.collation_actual && !from.collation_actual.is_empty() {
        let what = format!(
            "Its collation library has version {}, the source's {}: some texts sort differently.",
            to.collation_actual, from.collation_actual
        );
        findings.push(Finding::new(Severity::Note, "collation-version", server("target", to), what));
    }
}

/// The same of a target whose source is no server, and holds its texts as UTF-8.
pub(super) fn settings_alone(to: &Facts, wanted: &Wanted, findings: &mut Vec<Finding>) {
    match wanted.reverse {
        true => sender("target", to, wanted, findings),
        false if to.standby => findings.push(standby("target", to)),
        false => {}
    }
    condition("target", to, findings);
    if to.encoding != "UTF8" {
        let what = format!("Its encoding is {}, the source's UTF8: texts would not be the same.", to.encoding);
        findings.push(
            Finding::new(Severity::Refuse, "encoding", server("target", to), what)
                .remedy("make the target's database with ENCODING 'UTF8'"),
        );
    }
}

/// What is to be said of a server, whatever it is for.
fn condition(side: &str, facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.version < 14 {
        let what = format!("It is PostgreSQL {}; 14 and later are supported.", facts.version);
        findings.push(Finding::new(Severity::Refuse, "version", server(side, facts), what).remedy("upgrade it first"));
    }
    if facts.collation_recorded != facts.collation_actual && facts.version >= 15 {
        let what = format!(
            "Its collation was made with version {} of the library, which now is {}: indexes on text may be out of order.",
            facts.collation_recorded, facts.collation_actual
        );
        let remedy = format!("REINDEX DATABASE {0}; ALTER DATABASE {0} REFRESH COLLATION VERSION", facts.database);
        findings.push(Finding::new(Severity::Warn, "collation-stale", server(side, facts), what).remedy(remedy));
    }
}

/// What a side needs from which changes are read.
fn sender(side: &str, facts: &Facts, wanted: &Wanted, findings: &mut Vec<Finding>) {
    let object = server(side, facts);
    let mut add = |severity, code, what: String, remedy: &str| {
        findings.push(Finding::new(severity, code, object.clone(), what).remedy(remedy));
    };
    if facts.standby {
        add(Severity::Refuse, "standby", "It is a standby.".to_owned(), "name the primary");
    }
    if facts.wal_level != "logical" {
        add(
            Severity::Refuse,
            "wal-level",
            format!("wal_level is {}: changes cannot be read.", facts.wal_level),
            "ALTER SYSTEM SET wal_level = logical, and restart the server",
        );
    }
    if facts.slots_free < 1 {
        add(
            Severity::Refuse,
            "no-slot",
            "All replication slots are in use.".to_owned(),
            "drop one that nobody needs, or raise max_replication_slots and restart the server",
        );
    } else if facts.slots_free < FEW {
        add(
            Severity::Warn,
            "few-slots",
            few(facts.slots_free, "replication slot"),
            "before more transfers than that: drop slots that nobody needs, or raise max_replication_slots and restart the server",
        );
    }
    if facts.senders_free < 1 {
        add(
            Severity::Refuse,
            "no-walsender",
            "All WAL senders are in use.".to_owned(),
            "end one, or raise max_wal_senders and restart the server",
        );
    } else if facts.senders_free < FEW {
        add(
            Severity::Warn,
            "few-walsenders",
            few(facts.senders_free, "WAL sender"),
            "before more transfers than that: end what nobody needs, or raise max_wal_senders and restart the server",
        );
    }
    if facts.slot_keep < 0 {
        add(
            Severity::Warn,
            "slot-keep-size",
            unbounded(facts.disk.log, wanted.limits.spool_hard),
            "ALTER SYSTEM SET max_slot_wal_keep_size = '...' (a part of the free disk), and reload",
        );
    }
    if !facts.idle_slot.starts_with('0') {
        add(
            Severity::Warn,
            "idle-slot-timeout",
            format!(
                "idle_replication_slot_timeout is {}: after such a pause the slot is gone, and the copy begins anew.",
                facts.idle_slot
            ),
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0 until the transfer is complete, and reload",
        );
    }
}

/// Each transfer is looked at alone, and does not know how many more there will be: below this it is said how many there can be.
const FEW: i64 = 5;

fn few(free: i64, what: &str) -> String {
    let are = if free == 1 { " is" } else { "s are" };
    format!(
        "{free} {what}{are} free, and each transfer takes one here (two, where its source and its target are both on this server)."
    )
}

/// What may come of a slot that the server does not limit; `limit` is the one that we keep to.
fn unbounded(free: Option<u64>, limit: u64) -> String {
    let free = match free {
        Some(free) if free < limit => format!(", and {} are free there now", size(free)),
        _ => String::new(),
    };
    format!(
        "max_slot_wal_keep_size is not set: a slot that nobody reads can fill the disk. pgrunbook drops its own at `spool_limit` \
         ({}), as long as it is at work{free}.",
        size(limit)
    )
}

fn standby(side: &str, facts: &Facts) -> Finding {
    Finding::new(Severity::Refuse, "standby", server(side, facts), "It is a standby.").remedy("name the primary")
}

fn encoding(from: &Facts, to: &Facts, findings: &mut Vec<Finding>) {
    if from.encoding == to.encoding {
        return;
    }
    let (severity, what) = if to.encoding == "UTF8" && from.encoding != "SQL_ASCII" {
        (
            Severity::Warn,
            format!(
                "The source's texts are {} and are converted to UTF8: they take another number of bytes.",
                from.encoding
            ),
        )
    } else {
        (
            Severity::Refuse,
            format!("Its encoding is {}, the source's {}: texts would not be the same.", to.encoding, from.encoding),
        )
    };
    findings.push(
        Finding::new(severity, "encoding", server("target", to), what)
            .remedy("make the target's database with ENCODING 'UTF8'"),
    );
}

pub(super) fn server(side: &str, facts: &Facts) -> String {
    format!("{side} database {}", facts.database)
}

/// A position in the source's WAL, and when it was there.
pub(super) struct WalMark {
    lsn: Option<Lsn>,
    at: Instant,
}

const POSITION: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
    ELSE pg_catalog.pg_current_wal_insert_lsn() END::text";

impl WalMark {
    pub async fn now(session: &Session) -> Result<Self, TransferError> {
        let lsn = session.value(POSITION).await?.parse().ok();
        Ok(Self { lsn, at: Instant::now() })
    }
}

/// How long the source's slot can wait for us: its WAL rate since the mark, against the slot's limit and the free disk.
pub(super) async fn wal_rate(
    session: &Session,
    facts: &Facts,
    begun: WalMark,
    wanted: &Wanted,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    if wanted.measure.is_zero() {
        return Ok(());
    }
    tokio::time::sleep(wanted.measure.saturating_sub(begun.at.elapsed())).await;
    let ended = WalMark::now(session).await?;
    let (Some(first), Some(last)) = (begun.lsn, ended.lsn) else { return Ok(()) };
    let bytes = last.0.saturating_sub(first.0);
    let seconds = ended.at.duration_since(begun.at).as_secs_f64();
    if seconds <= 0.0 {
        return Ok(());
    }
    let rate = bytes as f64 / seconds;
    let limit = u64::try_from(facts.slot_keep).ok().map(|megabytes| (megabytes << 20, "max_slot_wal_keep_size"));
    let room = [limit, facts.disk.log.map(|bytes| (bytes, "the free disk"))];
    let Some((room, of)) = room.into_iter().flatten().min() else { return Ok(()) };
    // An hour: less than a base copy of a big database takes, while which the spool may be slow.
    if rate * 3600.0 > room as f64 {
        let what = format!(
            "It writes {:.1} MB of WAL a second: a slot that waits fills {of} ({} MB) in {:.0} minutes.",
            rate / 1e6,
            room / 1_000_000,
            room as f64 / rate / 60.0
        );
        findings.push(
            Finding::new(Severity::Warn, "wal-rate", server("source", facts), what)
                .remedy("raise max_slot_wal_keep_size, free disk, or begin at a quieter hour"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server against which nothing can be said.
    fn healthy(version: u32) -> Facts {
        Facts {
            version,
            role: "postgres".to_owned(),
            superuser: true,
            replication: true,
            database: "x".to_owned(),
            wal_level: "logical".to_owned(),
            standby: false,
            slots_free: FEW,
            senders_free: FEW,
            slot_keep: 1,
            idle_slot: "0".to_owned(),
            encoding: "UTF8".to_owned(),
            collate: "provider c".to_owned(),
            collation_recorded: "2.36".to_owned(),
            collation_actual: "2.36".to_owned(),
            disk: Disk::default(),
        }
    }

    fn found(from: &Facts, to: &Facts) -> Vec<(&'static str, Severity, String)> {
        let mut findings = Vec::new();
        let wanted = Wanted { structure: Origin::Existing, ..Wanted::new("tenant") };
        settings(from, to, &wanted, &mut findings);
        findings.into_iter().map(|one| (one.code, one.severity, one.object)).collect()
    }

    #[test]
    fn versions_are_held_against_what_is_supported_and_each_other() {
        assert_eq!(found(&healthy(15), &healthy(15)), []);
        let old = ("version", Severity::Refuse, "source database x".to_owned());
        assert_eq!(found(&healthy(13), &healthy(15)), [old]);
        let codes: Vec<_> = found(&healthy(14), &healthy(13)).into_iter().map(|one| (one.0, one.2)).collect();
        let object = "target database x".to_owned();
        assert_eq!(codes, [("version", object.clone()), ("target-older", object)]);
    }

    #[test]
    fn few_slots_and_senders_are_told_before_the_second_transfer_fails() {
        let one = Facts { slots_free: 1, senders_free: 4, ..healthy(15) };
        let of = |side: &str, code, severity| (code, severity, format!("{side} database x"));
        let warned = |side| [of(side, "few-slots", Severity::Warn), of(side, "few-walsenders", Severity::Warn)];
        assert_eq!(found(&one, &healthy(15)), warned("source"));
        assert_eq!(found(&healthy(15), &one), warned("target"));
        let none = Facts { slots_free: 0, senders_free: 0, ..healthy(15) };
        let refused = [of("source", "no-slot", Severity::Refuse), of("source", "no-walsender", Severity::Refuse)];
        assert_eq!(found(&none, &healthy(15)), refused, "the one or the other");
        let said = few(1, "replication slot");
        assert!(said.starts_with("1 replication slot is free, and each transfer takes one here"), "{said}");
        assert!(few(4, "WAL sender").starts_with("4 WAL senders are free"), "{}", few(4, "WAL sender"));
    }

    #[test]
    fn collations_of_another_library_are_noted() {
        let newer = Facts { collation_recorded: "2.41".to_owned(), collation_actual: "2.41".to_owned(), ..healthy(15) };
        let noted = ("collation-version", Severity::Note, "target database x".to_owned());
        assert_eq!(found(&healthy(15), &newer), [noted]);
        // PostgreSQL 14 does not say.
        let silent = Facts { collation_recorded: String::new(), collation_actual: String::new(), ..healthy(14) };
        assert_eq!(found(&silent, &newer), []);
    }

    #[test]
    fn a_pg_dump_that_is_too_old_is_refused_where_tables_are_made() {
        let mut findings = Vec::new();
        // Of which no programs can be there.
        settings(&healthy(99), &healthy(99), &Wanted::new("tenant"), &mut findings);
        let said: Vec<_> = findings.iter().map(|one| (one.code, one.severity, one.object.as_str())).collect();
        assert_eq!(said, [("no-pg-dump", Severity::Refuse, "program pg_dump")]);
        assert!(!findings[0].remedy.is_empty());
    }

    #[test]
    fn a_slot_without_a_limit_is_held_against_the_disk() {
        let plain = unbounded(None, 16_000_000_000);
        assert!(plain.ends_with("at `spool_limit` (16 GB), as long as it is at work."), "{plain}");
        assert_eq!(unbounded(Some(16_000_000_000), 16_000_000_000), plain, "it has the room");
        let short = unbounded(Some(3_000_000_000), 16_000_000_000);
        assert!(short.ends_with("at work, and 3000 MB are free there now."), "{short}");
    }
}
