//! Whether the disks have the room that a transfer takes: here for what is spooled, at the target for the rows, at a slot's
//! server for its log.
//!
//! PostgreSQL has no function that says how much of a disk is free. Where a server is a process of this machine its file
//! system says it; of any other one it is told what will be needed, and a person looks.

use std::path::{Path, PathBuf};

use pgrunbook_postgres::receiver::Limits;
use pgrunbook_postgres::spool::free_bytes;
use pgrunbook_postgres::{PgError, Session};

use super::finding::{Finding, Severity};
use super::status::size;

/// Finding of a spool that cannot have what `spool_limit` gives it.
pub const SPOOL: &str = "spool-disk";

/// Finding of rows that do not fit, or of which nobody knows; and the word by which they are tried all the same.
pub const TARGET: &str = "target-disk";

/// A spool of less stops for nothing: it is freed by segments of 64 MB.
const FEW: u64 = 256 << 20;

/// What is known of the disks of a server.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// Where the database's rows are; empty where the role may not know.
    folder: PathBuf,
    /// Free bytes there; nothing where the server is not on this machine.
    rows: Option<u64>,
    /// Free bytes where its log is.
    pub log: Option<u64>,
    /// How many bytes of log it lets come together between two checkpoints.
    max_wal: u64,
}

/// A new table goes to `default_tablespace`, or to the database's own.
const PLACES: &str = "SELECT coalesce((SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'), ''),
    coalesce(pg_catalog.pg_tablespace_location(coalesce(
        (SELECT t.oid FROM pg_catalog.pg_tablespace AS t WHERE t.spcname = pg_catalog.current_setting('default_tablespace')),
        d.dattablespace)), ''),
    (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'max_wal_size')
FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()";

impl Disk {
    /// Of a session's server and database.
    ///
    /// # Errors
    /// If the server cannot be asked. What it does not tell is not known, and no error.
    pub async fn of(session: &Session) -> Result<Self, PgError> {
        let row = session.client().query_one(PLACES, &[]).await.map_err(|error| session.error(&error))?;
        let data = PathBuf::from(row.get::<_, &str>(0));
        // One without a place of its own is below the data directory.
        let folder = match row.get::<_, &str>(1) {
            "" => data.clone(),
            place => data.join(place),
        };
        let here = runs_here(session);
        let free = |folder: &Path| if here && folder.is_absolute() { free_bytes(folder).ok() } else { None };
        // Only the server's own user sees whether the log is on a disk of its own.
        let log = free(&data.join("pg_wal")).or_else(|| free(&data));
        let max_wal = row.get::<_, Option<i64>>(2).unwrap_or_default().unsigned_abs() << 20;
        Ok(Self { rows: free(&folder), log, folder, max_wal })
    }
}

/// Whether the backend is a process of this machine: a container, a forwarded port and a pooler answer at its address, too.
fn runs_here(session: &Session) -> bool {
    let near = |host: &str| host.starts_with('/') || matches!(host, "localhost" | "127.0.0.1" | "::1");
    if !session.options().hosts.iter().all(|one| near(&one.host)) {
        return false;
    }
    // Without a /proc to look at, the address is believed.
    if !Path::new("/proc/self/comm").exists() {
        return true;
    }
    let name = std::fs::read_to_string(format!("/proc/{}/comm", session.backend_pid())).unwrap_or_default();
    matches!(name.trim_end(), "postgres" | "postmaster")
}

/// What rows will take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub bytes: u64,
    /// Of what that is the sum: `tables 12 GB, indexes 3 GB`.
    pub of: String,
}

const PATIENCE: &str = "BEGIN READ ONLY; SET LOCAL lock_timeout = '1s'";

/// Asked of every relation: their sizes wait for whoever has one locked.
const SIZES: &str = "SELECT c.relname::text, coalesce(pg_catalog.pg_table_size(c.oid), 0),
    coalesce(pg_catalog.pg_indexes_size(c.oid), 0)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND c.relkind IN ('r', 'm') AND c.relpersistence <> 't'";

impl Need {
    /// What the tables of a schema take at the source, of those whose names are taken: about what they will take elsewhere.
    ///
    /// # Errors
    /// If a table is locked; if the server cannot be asked.
    pub async fn of_schema(session: &Session, schema: &str, takes: impl Fn(&str) -> bool) -> Result<Self, PgError> {
        session.execute(PATIENCE).await?;
        let rows = session.client().query(SIZES, &[&schema]).await.map_err(|error| session.error(&error));
        session.execute("ROLLBACK").await?;
        let (mut tables, mut indexes) = (0_u64, 0_u64);
        for row in rows?.iter().filter(|row| takes(row.get(0))) {
            tables = tables.saturating_add(row.get::<_, i64>(1).unsigned_abs());
            indexes = indexes.saturating_add(row.get::<_, i64>(2).unsigned_abs());
        }
        let of = format!("tables {}, indexes {}", size(tables), size(indexes));
        Ok(Self { bytes: tables.saturating_add(indexes), of })
    }

    /// What a SQLite file's rows and indexes take there: PostgreSQL's take as much, or more.
    pub fn of_file(bytes: u64) -> Self {
        Self { bytes, of: format!("the file has {}", size(bytes)) }
    }
}

/// Whether what rows need is there. `object`: what is said to lack it; `need`: or why that is not known.
pub fn of_rows(object: String, disk: &Disk, need: Result<Need, String>) -> Option<Finding> {
    let need = match need {
        Ok(need) => need,
        Err(why) => {
            let what = format!("How much room the rows will take is not known: {why}.");
            return Some(Finding::new(Severity::Note, TARGET, object, what).remedy("look at its server's disk before"));
        }
    };
    let Need { bytes, of } = &need;
    let with_log = bytes.saturating_add(disk.max_wal);
    let (log, place) = (size(disk.max_wal), disk.folder.display());
    let (severity, what, remedy) = match disk.rows {
        None => (
            Severity::Note,
            format!(
                "The rows will take about {} ({of}), and the log up to {log} beside (max_wal_size). How much is free there \
                 is not known here.",
                size(*bytes)
            ),
            "look at its server's disk before".to_owned(),
        ),
        Some(free) if free < *bytes => (
            Severity::Consent(TARGET),
            format!("The rows will take about {} ({of}), and {place} has {} free.", size(*bytes), size(free)),
            format!(
                "free {} more, or enlarge the disk; where the source's tables are mostly empty pages a copy is smaller: then \
                 accept `{TARGET}`",
                size(bytes - free)
            ),
        ),
        Some(free) if free < with_log => (
            Severity::Warn,
            format!(
                "The rows will take about {} ({of}), and {place} has {} free: not enough for as much log as max_wal_size \
                 ({log}) lets come together beside.",
                size(*bytes),
                size(free)
            ),
            format!("free {} more, or lower max_wal_size", size(with_log - free)),
        ),
        Some(_) => return None,
    };
    Some(Finding::new(severity, TARGET, object, what).remedy(remedy))
}

/// Whether the disk here has what a stream's spool may take. The folder need not be there yet.
pub fn of_spool(folder: &Path, limits: Limits) -> Option<Finding> {
    let there = folder.ancestors().find(|one| one.exists()).unwrap_or(folder);
    spool(folder, free_bytes(there).map_err(|error| error.to_string()), limits)
}

fn spool(folder: &Path, free: Result<u64, String>, limits: Limits) -> Option<Finding> {
    let object = format!("disk of {}", folder.display());
    let Limits { spool_hard, disk_free_min, .. } = limits;
    let (severity, what, remedy) = match free {
        Err(why) => (
            Severity::Note,
            format!("How much is free there for what is received could not be read: {why}."),
            "look at it before".to_owned(),
        ),
        Ok(free) if free < disk_free_min => (
            Severity::Refuse,
            format!(
                "It has {} free, and {} must stay free: the stream would stop at once.",
                size(free),
                size(disk_free_min)
            ),
            format!("free {} more, or have the project on a larger disk", size(disk_free_min - free)),
        ),
        Ok(free) if free < spool_hard.saturating_add(disk_free_min) => (
            Severity::Warn,
            format!(
                "It has {} free, of which {} must stay free: the stream stops, and its slot is dropped, before the spool has the \
                 {} of `spool_limit`.",
                size(free),
                size(disk_free_min),
                size(spool_hard)
            ),
            match free - disk_free_min {
                ..FEW => format!("free {} more", size(spool_hard.saturating_add(disk_free_min) - free)),
                left => format!(
                    "free {} more; or say `spool_limit = {left}`, if that is enough",
                    size(spool_hard.saturating_add(disk_free_min) - free)
                ),
            },
        ),
        Ok(_) => return None,
    };
    Some(Finding::new(severity, SPOOL, object, what).remedy(remedy))
}

/// Whether the disk here has what a copy of a file takes: `bytes`, with what must be left over.
pub fn of_copy(folder: &Path, bytes: u64) -> Option<Finding> {
    let there = folder.ancestors().find(|one| one.exists()).unwrap_or(folder);
    let free = free_bytes(there).ok().filter(|free| *free < bytes)?;
    let what = format!(
        "It has {} free, and {} are needed: a file without a write-ahead log is copied before it is read.",
        size(free),
        size(bytes)
    );
    let remedy = format!(
        "free {} more, have the project on a larger disk, or `PRAGMA journal_mode = wal` in the file",
        size(bytes - free)
    );
    let object = format!("disk of {}", folder.display());
    Some(Finding::new(Severity::Refuse, "copy-disk", object, what).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn said(found: Option<Finding>) -> (&'static str, Option<&'static str>, String, String) {
        found.map_or(("", None, String::new(), String::new()), |one| {
            (one.severity.word(), one.severity.consent(), one.what, one.remedy)
        })
    }

    #[test]
    fn rows_are_held_against_what_is_free_and_the_log_beside_them() {
        let of = |rows: Option<u64>, bytes: u64| {
            let disk = Disk { folder: "/data".into(), rows, log: None, max_wal: 2 * GB };
            let need = Need { bytes, of: "tables 9 GB, indexes 3 GB".to_owned() };
            said(of_rows("target database x".to_owned(), &disk, Ok(need)))
        };
        assert_eq!(of(Some(14 * GB), 12 * GB).0, "", "all of it fits to the byte");
        let (severity, consent, what, remedy) = of(Some(14 * GB - 1), 12 * GB);
        assert_eq!((severity, consent), ("warn", None));
        assert!(
            what.contains("12 GB (tables 9 GB, indexes 3 GB)") && what.contains("max_wal_size (2000 MB)"),
            "{what}"
        );
        assert_eq!(remedy, "free 1 B more, or lower max_wal_size");
        assert_eq!(of(Some(12 * GB), 12 * GB).0, "warn");
        let (severity, consent, what, remedy) = of(Some(12 * GB - 5_000_000_000), 12 * GB);
        assert_eq!((severity, consent), ("consent", Some("target-disk")));
        assert!(what.contains("/data has 7000 MB free"), "{what}");
        assert!(remedy.starts_with("free 5000 MB more"), "{remedy}");
        let (severity, _, what, remedy) = of(None, 12 * GB);
        assert_eq!((severity, remedy.as_str()), ("note", "look at its server's disk before"));
        assert!(what.contains("about 12 GB") && what.contains("not known here"), "{what}");
        // A sum that no disk holds is no overflow.
        assert_eq!(of(Some(u64::MAX), u64::MAX).0, "");
        assert_eq!(of(Some(u64::MAX - 1), u64::MAX).0, "consent");
    }

    #[test]
    fn a_size_that_is_not_known_is_told_and_stops_nothing() {
        let disk = Disk { rows: Some(0), ..Disk::default() };
        let (severity, consent, what, _) =
            said(of_rows("target database x".to_owned(), &disk, Err("a table is locked".to_owned())));
        assert_eq!((severity, consent), ("note", None));
        assert_eq!(what, "How much room the rows will take is not known: a table is locked.");
    }

    #[test]
    fn a_spool_needs_its_limit_and_what_must_stay_free() {
        let limits = Limits { spool_soft: 8 * GB, spool_hard: 16 * GB, disk_free_min: GB };
        let of = |free: u64| said(spool(Path::new("/p/spool"), Ok(free), limits));
        assert_eq!(of(17 * GB).0, "");
        let (severity, _, what, remedy) = of(17 * GB - 10_000_000);
        assert_eq!(severity, "warn");
        assert!(
            what.contains("of which 1000 MB must stay free") && what.contains("the 16 GB of `spool_limit`"),
            "{what}"
        );
        assert_eq!(remedy, "free 10 MB more; or say `spool_limit = 15990000000`, if that is enough");
        assert_eq!(of(GB).3, "free 16 GB more", "nothing is left to be had");
        let (severity, _, what, remedy) = of(GB - 300_000_000);
        assert_eq!(severity, "refuse");
        assert!(what.contains("It has 700 MB free"), "{what}");
        assert_eq!(remedy, "free 300 MB more, or have the project on a larger disk");
        let (severity, _, what, _) = said(spool(Path::new("/p/spool"), Err("no such device".to_owned()), limits));
        assert_eq!(severity, "note");
        assert!(what.contains("no such device"), "{what}");
    }

    #[test]
    fn a_folder_that_is_to_come_has_the_disk_of_the_one_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        let all = Limits { spool_soft: 0, spool_hard: u64::MAX, disk_free_min: 0 };
        let (severity, _, what, _) = said(of_spool(&deep, all));
        assert_eq!(severity, "warn", "its free bytes were read: {what}");
        assert_eq!(of_spool(&deep, Limits { spool_soft: 0, spool_hard: 0, disk_free_min: 0 }), None);
        assert_eq!(of_copy(&deep, u64::MAX).map(|one| one.code), Some("copy-disk"));
        assert_eq!(of_copy(&deep, 0), None);
    }
}
