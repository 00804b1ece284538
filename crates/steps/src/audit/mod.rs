//! What every role really reaches, read off the catalogs, and compared with the declaration.
//!
//! The second of the three oracles. The declaration says what shall be, the probes try what can be done, and this asks the
//! catalogs for every way by which something is reached: grants and their options, PUBLIC, ownership, membership of every
//! kind, attributes, default privileges, and code that runs with another's rights. It shares the declaration's words and
//! [`Topology::allows`](crate::topology::Topology::allows) with the rest, and no reading of the catalogs.
//!
//! ACLs are joined with the closure of the memberships here, and not by asking `has_table_privilege` for every pair: the
//! pairs grow with the square of the tenants.

mod catalog;
mod finding;
mod look;
mod reach;
pub mod render;
mod sql;
mod step;
mod words;

use jiff::civil::Date;
use pgrunbook_postgres::{PgError, Session};

use crate::topology::Topology;

pub use finding::{Audit, Examined, Finding, RULES, Rule, Severity};
pub use render::render;
pub use step::KIND;

/// Audits a database in one read-only snapshot, which is over when this returns.
///
/// # Errors
/// If the server refuses a query, or the connection is lost. Nothing was changed.
pub async fn audit(session: &Session, topology: &Topology, today: Date) -> Result<Audit, PgError> {
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let audited = audit_within(session, topology, today).await;
    // What failed is told; a transaction that only read leaves nothing when its end fails too.
    let ended = session.execute("ROLLBACK").await;
    let audited = audited?;
    ended.map(|()| audited)
}

/// The same inside a transaction that the caller has opened, and may have changed something in: what would be found if it
/// were committed. Leaves the transaction as it was.
///
/// # Errors
/// As [`audit`].
pub async fn audit_within(session: &Session, topology: &Topology, today: Date) -> Result<Audit, PgError> {
    session.execute("SAVEPOINT pgrunbook_audit; SET LOCAL search_path = pg_catalog").await?;
    let read = catalog::read(session, topology).await;
    let ended = session.execute("ROLLBACK TO SAVEPOINT pgrunbook_audit; RELEASE SAVEPOINT pgrunbook_audit").await;
    let catalog = read?;
    ended?;
    Ok(look::look(&catalog, topology, today))
}
