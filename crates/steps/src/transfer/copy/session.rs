//! The sessions of a copy: one that holds the source's snapshot, and pairs that work under it.

use pgrunbook_postgres::{ConnectOptions, Lsn, PgError, Session, quote};

use super::record::text;

/// So that values mean the same whatever the role or the database is set to; and rows that a policy hides are an error.
const PINNED: &str = "SET row_security = off; SET statement_timeout = 0; SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0; SET jit = off; SET synchronize_seqscans = off;
SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; SET extra_float_digits = 3;
SET bytea_output = 'hex'; SET xmlbinary = 'base64'; SET lc_monetary = 'C'";

/// For the target beside them: triggers and foreign keys that are not for replicas do not fire; a lost commit is found by its missing
/// record, so none needs to wait for the disk.
const TARGET: &str = "SET session_replication_role = replica; SET synchronous_commit = off";

/// The source's snapshot, held so that others can use it: workers come and go.
pub(super) struct Holder {
    pub session: Session,
    /// What others import.
    pub exported: String,
    /// As `pg_current_snapshot()` prints it.
    pub snapshot: String,
    /// A position behind all that the snapshot sees.
    pub after: Lsn,
}

/// Under which snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) enum Under<'a> {
    /// One that another session has exported.
    Imported(&'a str),
    Own,
}

impl Holder {
    /// Opens it, and keeps the tables (in SQL) from being truncated, rewritten or altered until it is dropped, as `pg_dump` does.
    pub async fn open(source: &ConnectOptions, under: Under<'_>, tables: &[String]) -> Result<Self, PgError> {
        let session = Session::connect(source, "pgrunbook:copy:snapshot").await?;
        session.execute(PINNED).await?;
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        if let Under::Imported(snapshot) = under {
            session.execute(&format!("SET TRANSACTION SNAPSHOT {}", text(snapshot))).await?;
        }
        if !tables.is_empty() {
            // This takes no snapshot: an own one is taken when the tables stand still.
            session.execute(&format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", tables.join(", ONLY "))).await?;
        }
        let snapshot = session.value("SELECT pg_catalog.pg_current_snapshot()").await?;
        let exported = session.value("SELECT pg_catalog.pg_export_snapshot()").await?;
        let after = session.value("SELECT pg_catalog.pg_current_wal_insert_lsn()").await?;
        let after = after.parse().map_err(|error| PgError::Client(format!("{error}")))?;
        Ok(Self { session, exported, snapshot, after })
    }
}

/// A source's session under the snapshot, in whose schema names are looked up.
pub(super) async fn reader(source: &ConnectOptions, exported: &str) -> Result<Session, PgError> {
    let session = Session::connect(source, "pgrunbook:copy").await?;
    session.execute(PINNED).await?;
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    session.execute(&format!("SET TRANSACTION SNAPSHOT {}", text(exported))).await?;
    Ok(session)
}

/// A target's session that writes rows as a replica does.
pub(super) async fn writer(target: &ConnectOptions) -> Result<Session, PgError> {
    let session = Session::connect(target, "pgrunbook:copy").await?;
    session.execute(PINNED).await?;
    session.execute(TARGET).await?;
    Ok(session)
}

/// Text forms of `regclass` and its like name objects of this schema without it, so that they mean the transfer's own on
/// both sides.
pub(super) fn searching(schema: &str) -> String {
    format!("SET search_path = {}", ident(schema))
}

/// A name from the catalog.
pub(super) fn ident(name: &str) -> String {
    quote::ident(&name.replace('\0', "")).expect("NUL was taken out")
}
