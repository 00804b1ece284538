//! Whether a database is what its migrations make: the target beside a *shadow*, a throwaway database built from the files.
//!
//! Everything that PostgreSQL has DDL for is read from both sides as rows of text, by the server's own functions, and compared: objects,
//! and each quality of an object (owner, comment, grants, storage) as a row of its own. From the rows that differ come the
//! statements that mend the target. The one idea: a row brings its own SQL with it, so that no kind is known twice.
//!
//! Not compared: the order of a table's columns, which no `ALTER` changes; rows and the positions of sequences; what the whole cluster
//! shares, which are roles, tablespaces and the privileges of parameters (roles are the topology's).

mod alter;
mod catalog;
mod coming;
mod compare;
pub mod error;
mod follow;
mod going;
mod ignore;
mod mend;
mod model;
mod order;
mod read;
mod regrant;
pub(crate) mod shadow;

use pgrunbook_postgres::Session;

pub use compare::{Change, Difference};
pub use error::DriftError;
pub use ignore::Ignore;
pub use mend::{Mend, Statement};
pub use model::KINDS;
pub use shadow::{Shadow, ShadowOf};

/// How a target differs from its shadow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// By kind and name; empty where there is none.
    pub differences: Vec<Difference>,
    /// What makes the target like the shadow.
    pub mend: Mend,
    /// How many objects and qualities of objects the target has.
    pub item_count: usize,
}

/// Compares a target with its shadow, each under one snapshot. Both are only read.
///
/// # Errors
/// [`DriftError`], if one cannot be read, is older than PostgreSQL 15, or of another major version than the other.
pub async fn compare(live: &Session, shadow: &Session, ignore: &Ignore) -> Result<Drift, DriftError> {
    let compared = compared(live, shadow, ignore).await;
    // Either may be gone, and then there is nothing to end.
    let _ = tokio::join!(live.execute("ROLLBACK"), shadow.execute("ROLLBACK"));
    compared
}

/// What a database has, under one snapshot: to compare it more than once.
pub struct State(model::Snapshot);

/// Reads what a database has, and what of it rests on what.
///
/// # Errors
/// [`DriftError`], if it cannot be read or is older than PostgreSQL 15.
pub async fn state(session: &Session) -> Result<State, DriftError> {
    let read = async {
        let mut snapshot = read::items(session).await?;
        read::dependencies(session, &mut snapshot).await?;
        Ok(State(snapshot))
    };
    let read = read.await;
    session.execute("ROLLBACK").await?;
    read
}

/// Compares what a target has with what its shadow has.
///
/// # Errors
/// [`DriftError`], if one is of another major version than the other.
pub fn between(live: &State, shadow: &State, ignore: &Ignore) -> Result<Drift, DriftError> {
    let pairs = pairs(&live.0, &shadow.0, ignore)?;
    Ok(drift(&live.0, &shadow.0, &pairs))
}

/// What a database has, for a comparison of before and after.
pub(crate) struct Before(model::Snapshot);

/// Reads what a database has.
pub(crate) async fn before(session: &Session) -> Result<Before, DriftError> {
    let read = read::items(session).await;
    session.execute("ROLLBACK").await?;
    Ok(Before(read?))
}

/// What is different after something from what was before it, both read: missing is what went, extra what came.
pub(crate) fn changes(before: &Before, after: &Before) -> Vec<Difference> {
    let pairs = compare::pairs(&after.0, &before.0, &Ignore::standard());
    compare::told(&after.0, &before.0, &pairs)
}

/// What is different now.
pub(crate) async fn since(before: &Before, session: &Session) -> Result<Vec<Difference>, DriftError> {
    Ok(changes(before, &self::before(session).await?))
}

async fn compared(live: &Session, shadow: &Session, ignore: &Ignore) -> Result<Drift, DriftError> {
    let (there, wanted) = tokio::join!(read::items(live), read::items(shadow));
    let (mut there, mut wanted) = (there?, wanted?);
    let pairs = pairs(&there, &wanted, ignore)?;
    if pairs.is_empty() {
        return Ok(Drift { item_count: there.items.len(), ..Drift::default() });
    }
    let (first, second) = tokio::join!(read::dependencies(live, &mut there), read::dependencies(shadow, &mut wanted));
    first?;
    second?;
    Ok(drift(&there, &wanted, &pairs))
}

fn pairs(live: &model::Snapshot, shadow: &model::Snapshot, ignore: &Ignore) -> Result<Vec<compare::Pair>, DriftError> {
    if live.version / 10_000 != shadow.version / 10_000 {
        return Err(DriftError::OtherVersion { live: live.version / 10_000, shadow: shadow.version / 10_000 });
    }
    Ok(compare::pairs(live, shadow, ignore))
}

fn drift(live: &model::Snapshot, shadow: &model::Snapshot, pairs: &[compare::Pair]) -> Drift {
    Drift {
        differences: compare::told(live, shadow, pairs),
        mend: mend::mend(live, shadow, pairs),
        item_count: live.items.len(),
    }
}
