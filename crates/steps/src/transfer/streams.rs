//! Publications and slots of a transfer: what the server of each side keeps for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pgrunbook_engine::{Cancel, StepError};
use pgrunbook_postgres::relation::{Filter, Table, describe};
use pgrunbook_postgres::replication::{CreateSlot, Replication, Slot};
use pgrunbook_postgres::slots::{self, CreateSlotError, Direction as Way, Published};
use pgrunbook_postgres::{PgError, Session};
use xxhash_rust::xxh3::xxh3_64;

use super::ends::Ends;
use super::state::Transfer;
use crate::workplace::Workplace;

/// How long a slot may take to be made: it waits for every transaction that has written, and we do not let them be
/// forgotten ones.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the streams of a transfer are called: by schema and target, since slots are the cluster's and one source may be
/// copied into two databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(String);

impl Names {
    /// Of the transfer into `schema` of the database with this identity key.
    pub fn of(schema: &str, target_key: &str) -> Self {
        Self(format!("{schema}_{:06x}", xxh3_64(target_key.as_bytes()) & 0xFF_FFFF))
    }

    /// Of the slot and of the publication.
    pub fn slot(&self, way: Way) -> String {
        slots::stream_name(&self.0, way)
    }

    /// Of the stream: in the tag on what is applied, and of the position's row.
    pub fn stream(&self, way: Way) -> String {
        format!("{}:{way}", self.0)
    }
}

const RECORDED: &str = "SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'pgrunbook' AND c.relname = 'transfer'
      AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'))";

const UNFINISHED: &str = "SELECT t.schema, t.target FROM pgrunbook.transfer AS t WHERE t.phase <> 'complete'";

/// The publications by which this database's changes flow back while a transfer is not complete, and the schema of each: what
/// an audit finds and need not report. The name alone proves nothing, since anybody may choose one: it is the name that the
/// record of a transfer leads to. None where the role may not read the record.
///
/// # Errors
/// What the server says.
pub async fn kept_publications(session: &Session) -> Result<BTreeMap<String, String>, PgError> {
    if session.value(RECORDED).await? != "t" {
        return Ok(BTreeMap::new());
    }
    let rows = session.simple(UNFINISHED).await?.pop().unwrap_or_default().rows;
    let of = |row: Vec<Option<String>>| {
        let mut values = row.into_iter();
        let (schema, target) = (values.next()??, values.next()??);
        Some((Names::of(&schema, &target).slot(Way::Reverse), schema))
    };
    Ok(rows.into_iter().filter_map(of).collect())
}

/// The other way.
pub fn other(way: Way) -> Way {
    match way {
        Way::Forward => Way::Reverse,
        Way::Reverse => Way::Forward,
    }
}

/// Publishes the tables of the way's origin: on the way back, of a table that has columns of its own, those of the source.
///
/// # Errors
/// If the role may not, or no table is there.
pub async fn publish(
    session: &Session,
    ends: &Ends,
    transfer: &Transfer,
    names: &Names,
    way: Way,
) -> Result<(), StepError> {
    let (origin, destination) = (ends.origin(way), ends.destination(way));
    let tables = describe(session, &origin.schema, Filter::All).await.map_err(PgError::into_step_error)?;
    let there = destination.session("pgrunbook:slot").await?;
    let others = describe(&there, &destination.schema, Filter::All).await.map_err(PgError::into_step_error)?;
    let tables: Vec<Published> = tables
        .into_iter()
        .filter(|table| table.holds_rows() && !transfer.spec.exclude.contains(&table.name))
        .map(|table| {
            let other = others.iter().find(|other| other.name == table.name);
            let columns = if way == Way::Reverse { common(&table, other) } else { Vec::new() };
            Published { columns, schema: table.schema, table: table.name }
        })
        .collect();
    slots::create_publication_of(session, &names.slot(way), &tables).await.map_err(PgError::into_step_error)
}

/// The columns that travel and that both have; none where those are all, so that what comes later is published, too.
fn common(table: &Table, other: Option<&Table>) -> Vec<String> {
    let Some(other) = other else { return Vec::new() };
    let has = |name: &str| other.columns.iter().any(|column| column.name == name);
    let (both, alone): (Vec<_>, Vec<_>) =
        table.travelling().map(|column| column.name.clone()).partition(|name| has(name));
    if alone.is_empty() { Vec::new() } else { both }
}

/// Makes publication and slot of a way, unless they are there. With `export`, the connection that made the slot is
/// returned: as long as it is idle, its snapshot can be imported.
///
/// # Errors
/// If an open transaction keeps the slot from being made, who that is.
pub async fn make(
    ends: &Ends,
    transfer: &Transfer,
    names: &Names,
    way: Way,
    export: bool,
    cancel: &Cancel,
) -> Result<Option<(Replication, Slot)>, StepError> {
    let origin = ends.origin(way);
    let session = origin.session("pgrunbook:slot").await?;
    let name = names.slot(way);
    if slots::slot_state(&session, &name).await.map_err(PgError::into_step_error)?.is_some() {
        return Ok(None);
    }
    publish(&session, ends, transfer, names, way).await?;
    let mut connection =
        Replication::connect(&origin.options, "pgrunbook:slot").await.map_err(PgError::into_step_error)?;
    // A standby that takes over then has the slot too.
    let how = CreateSlot { temporary: false, export_snapshot: export, failover: connection.major() >= 17 };
    let made = tokio::select! {
        made = slots::create_slot(&mut connection, &session, &name, how, PATIENCE) => made,
        () = cancel.stopping() => return Err(StepError::interrupted("stopped while the slot was being made: there is none")),
    };
    match made {
        Ok(slot) => Ok(Some((connection, slot))),
        Err(error @ CreateSlotError::Blocked { .. }) => {
            Err(StepError::unusable("slot-blocked", format!("{error}. Nothing was changed."))
                .help("end that transaction, or wait for it; then run again"))
        }
        Err(CreateSlotError::Postgres(error)) => Err(error.into_step_error()),
    }
}

/// Drops slot and publication of a way, if they are there.
///
/// # Errors
/// If the server cannot be asked.
pub async fn unmake(ends: &Ends, names: &Names, way: Way) -> Result<(), StepError> {
    let session = ends.origin(way).session("pgrunbook:slot").await?;
    let name = names.slot(way);
    slots::drop_slot_if_ours(&session, &name).await.map_err(PgError::into_step_error)?;
    slots::drop_publication(&session, &name).await.map_err(PgError::into_step_error)
}

/// The folder of all that a target's transfers keep on local disk.
pub fn spools(workplace: &Workplace, target: &str) -> PathBuf {
    workplace.root().join(".pgrunbook/spool").join(target)
}

/// Where a way's changes are kept on local disk until they are applied.
pub fn spool_folder(workplace: &Workplace, target: &str, names: &Names, way: Way) -> PathBuf {
    spools(workplace, target).join(names.slot(way))
}
