//! A file's way back, behind the switch: made, given up, accepted where the target has changed, and ended.

use std::collections::BTreeMap;
use std::time::Duration;

use pgrunbook_engine::{Cancel, StepError};
use pgrunbook_postgres::PgError;
use pgrunbook_postgres::replication::{CreateSlot, Replication};
use pgrunbook_postgres::slots::{self, CreateSlotError, Direction as Way};

use super::bring::{PATIENCE, SqliteEnds};
use super::error::SqliteError;
use super::open::{open_live, open_write};
use super::sync::blocking;
use super::writeback::What;
use super::{notes, seal, shape};
use crate::transfer::state::{self, Transfer, text};
use crate::transfer::streams::{Names, spools};
use crate::workplace::Workplace;

/// How long a slot may take to be made.
const SLOT_PATIENCE: Duration = Duration::from_secs(60);

/// How long the last writes may take to flow back.
const LAST: Duration = Duration::from_secs(60);

/// Makes publication and slot of the way back, unless they are there.
///
/// # Errors
/// If an open transaction keeps the slot from being made, who that is.
pub async fn make_way_back(ends: &SqliteEnds, transfer: &Transfer, cancel: &Cancel) -> Result<(), StepError> {
    let session = ends.session("pgrunbook:slot").await?;
    let names = Names::of(&transfer.schema, &transfer.target);
    let slot = names.slot(Way::Reverse);
    if slots::slot_state(&session, &slot).await.map_err(PgError::into_step_error)?.is_some() {
        return Ok(());
    }
    let shape = shape::recorded(&session, &transfer.schema).await?;
    let tables: Vec<(String, String)> =
        shape.tables.iter().map(|table| (transfer.schema.clone(), table.name.clone())).collect();
    for table in &shape.tables {
        // Without a key, an update must say the whole row that it changes.
        let place = table.place(&transfer.schema);
        let sql = format!(
            "SELECT 1 FROM pg_catalog.pg_class AS c WHERE c.oid = {}::pg_catalog.regclass AND c.relreplident = 'd'
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)",
            text(&place)
        );
        if session.value(&sql).await.map_err(PgError::into_step_error)? == "1" {
            let sql = format!("ALTER TABLE {place} REPLICA IDENTITY FULL");
            state::write(&session, &sql).await.map_err(PgError::into_step_error)?;
        }
    }
    slots::create_publication(&session, &slot, &tables).await.map_err(PgError::into_step_error)?;
    let connection = Replication::connect(&ends.options, "pgrunbook:slot").await;
    let mut connection = connection.map_err(PgError::into_step_error)?;
    let how = CreateSlot { temporary: false, export_snapshot: false, failover: connection.major() >= 17 };
    let made = tokio::select! {
        made = slots::create_slot(&mut connection, &session, &slot, how, SLOT_PATIENCE) => made,
        () = cancel.stopping() => return Err(StepError::interrupted("stopped while the slot was being made: there is none")),
    };
    match made {
        Ok(_) => Ok(()),
        Err(error @ CreateSlotError::Blocked { .. }) => {
            Err(StepError::unusable("slot-blocked", format!("{error}. Nothing was changed."))
                .help("end that transaction, or wait for it; then run again"))
        }
        Err(CreateSlotError::Postgres(error)) => Err(error.into_step_error()),
    }
}

/// What the way back needs to know; nothing if there is no slot for it.
///
/// # Errors
/// If the target cannot be asked.
pub async fn way_back(workplace: &Workplace, target: &str, transfer: &Transfer) -> Result<Option<What>, StepError> {
    let ends = SqliteEnds::of(workplace, target, &transfer.spec.from)?;
    let session = ends.session("pgrunbook:slot").await?;
    let slot = Names::of(&transfer.schema, &transfer.target).slot(Way::Reverse);
    if slots::slot_state(&session, &slot).await.map_err(PgError::into_step_error)?.is_none() {
        return Ok(None);
    }
    Ok(Some(What {
        target: ends.options,
        target_name: target.to_owned(),
        path: ends.path,
        transfer: transfer.clone(),
        spools: spools(workplace, target),
        limits: transfer.spec.limits(),
    }))
}

/// Drops slot, publication and spool of the way back.
///
/// # Errors
/// If the target cannot be asked, or the spool cannot be removed.
pub(super) async fn unmake_way_back(
    workplace: &Workplace,
    ends: &SqliteEnds,
    transfer: &Transfer,
) -> Result<(), StepError> {
    workplace.followers().end(&ends.target, &transfer.schema).await;
    let session = ends.session("pgrunbook:slot").await?;
    let slot = Names::of(&transfer.schema, &transfer.target).slot(Way::Reverse);
    slots::drop_slot_if_ours(&session, &slot).await.map_err(PgError::into_step_error)?;
    slots::drop_publication(&session, &slot).await.map_err(PgError::into_step_error)?;
    let folder = spools(workplace, &ends.target).join(&slot);
    match tokio::fs::remove_dir_all(&folder).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StepError::failed("spool", format!("{} cannot be removed: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// Ends a switched transfer. The file keeps its fence, so that nobody writes to what is no longer read.
///
/// # Errors
/// If a side cannot be reached; it may be called again.
pub async fn complete(
    workplace: &Workplace,
    target: &str,
    transfer: &Transfer,
    cancel: &Cancel,
) -> Result<BTreeMap<String, String>, StepError> {
    let ends = SqliteEnds::of(workplace, target, &transfer.spec.from)?;
    let mut facts = BTreeMap::new();
    if transfer.spec.reverse
        && transfer.lossy.is_none()
        && let Some(back) = workplace.followers().write_back(workplace, target, transfer).await?
    {
        let last = back.caught_up(LAST, cancel).await?;
        facts.insert("source_has_everything_up_to".to_owned(), last.to_string());
    }
    unmake_way_back(workplace, &ends, transfer).await?;
    let path = ends.path.clone();
    let cleared = blocking(move || {
        let connection = open_write(&path)?;
        seal::begin(&connection, &path, PATIENCE)?;
        seal::forget_state(&connection, &path)?;
        notes::remove(&connection, &path)?;
        seal::commit(&connection, &path, PATIENCE)
    });
    cleared.await.map_err(|error| error.told("Nothing flows back any more; complete it again."))?;
    facts.insert("file_stays_fenced".to_owned(), ends.path.display().to_string());
    Ok(facts)
}

/// After a person has looked: why nobody could go back now without a loss, where that is so. With `is_ddl`, at a changed schema
/// of the target: what is new there has no place in the file, and what is left is written back again.
///
/// # Errors
/// If the target cannot be asked.
pub async fn accept_change(
    workplace: &Workplace,
    target: &str,
    transfer: &Transfer,
    is_ddl: bool,
) -> Result<Option<String>, StepError> {
    let ends = SqliteEnds::of(workplace, target, &transfer.spec.from)?;
    let session = ends.session("pgrunbook:accept").await?;
    let mut shape = shape::recorded(&session, &transfer.schema).await?;
    if is_ddl {
        for table in &mut shape.tables {
            let now = shape::target_columns(&session, &transfer.schema, &table.name).await;
            let now = now.map_err(PgError::into_step_error)?;
            let began = table.began().to_vec();
            table.first = (now != began).then_some(began);
            table.target = now;
        }
        shape::record(&session, &transfer.schema, &ends.path, &shape).await.map_err(PgError::into_step_error)?;
    }
    let outgrown = shape.outgrown();
    Ok((!outgrown.is_empty()).then(|| {
        format!(
            "other columns than when it was cut over were accepted of {}: the file has no place for them",
            outgrown.join(", ")
        )
    }))
}

/// How far the target's changes are in the file.
///
/// # Errors
/// If the file cannot be read.
pub async fn written(
    workplace: &Workplace,
    target: &str,
    transfer: &Transfer,
) -> Result<Option<seal::Position>, StepError> {
    let ends = SqliteEnds::of(workplace, target, &transfer.spec.from)?;
    let stream = Names::of(&transfer.schema, &transfer.target).stream(Way::Reverse);
    let read = blocking(move || seal::position(&open_live(&ends.path)?, &ends.path, &stream));
    read.await.map_err(SqliteError::into_step_error)
}
