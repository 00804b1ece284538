//! A file's transfer up to the crossing: look, load, follow, give up.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgrunbook_engine::step::Progress;
use pgrunbook_engine::{Cancel, Evidence, StepError};
use pgrunbook_postgres::identity::identify;
use pgrunbook_postgres::slots::{self, Direction as Way};
use pgrunbook_postgres::{ConnectOptions, PgError, Session, quote};
use serde_json::json;

use super::back::unmake_way_back;
use super::choice::Choices;
use super::error::SqliteError;
use super::existing::check_existing;
use super::image::{self, Image};
use super::load::{self, How, Loaded};
use super::open::{open_live, open_write};
use super::preflight::{Preflight, preflight as look_at, preflight_with_image};
use super::shape::{self, Shape};
use super::sync::{Access, Feed, Synced, blocking};
use super::{notes, seal};
use crate::fence::{self, Lift};
use crate::transfer::TransferError;
use crate::transfer::disk::{self, Disk, Need};
use crate::transfer::finding::{Finding, Severity, accept, blocking as in_the_way};
use crate::transfer::load::Loader;
use crate::transfer::preflight;
use crate::transfer::spec::{Making, Spec, Sync};
use crate::transfer::standing::stopped_error;
use crate::transfer::state::{self, Phase, Transfer, text};
use crate::transfer::streams::{Names, spools};
use crate::workplace::{Place, Workplace};

/// How long a writer may keep the file from being read.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Both ends of a transfer from a file.
#[derive(Debug, Clone)]
pub struct SqliteEnds {
    /// The project's names.
    pub from: String,
    pub target: String,
    pub path: PathBuf,
    pub options: ConnectOptions,
}

/// Whether a source is a SQLite file.
pub fn is_file(workplace: &Workplace, from: &str) -> bool {
    matches!(workplace.place(from), Ok(Place::Sqlite { .. }))
}

impl SqliteEnds {
    /// The ends of a transfer.
    ///
    /// # Errors
    /// If the project has no such targets, or the file is not there.
    pub fn of(workplace: &Workplace, target: &str, from: &str) -> Result<Self, StepError> {
        let Place::Sqlite { path } = workplace.place(from)? else {
            return Err(StepError::unusable("no-target", format!("target `{from}` is no SQLite file")));
        };
        let path = workplace.root().join(path);
        let path = path.canonicalize().map_err(|error| {
            StepError::unusable(
                "sqlite-open",
                format!("{} cannot be opened: {error}. Nothing was changed.", path.display()),
            )
        })?;
        let options = workplace.postgres(target)?.clone();
        Ok(Self { from: from.to_owned(), target: target.to_owned(), path, options })
    }

    /// A session on the target.
    ///
    /// # Errors
    /// As the engine reports it.
    pub async fn session(&self, name: &str) -> Result<Session, StepError> {
        Session::connect(&self.options, name).await.map_err(PgError::into_step_error)
    }

    /// Names the file beyond its path: another one in its place is another source.
    async fn key(&self) -> Result<String, StepError> {
        let path = self.path.clone();
        let application = blocking(move || {
            let connection = open_live(&path)?;
            connection
                .query_row("PRAGMA application_id", [], |row| row.get::<_, i64>(0))
                .map_err(SqliteError::of(&path, "read application_id"))
        });
        let application = application.await.map_err(SqliteError::into_step_error)?;
        Ok(format!("sqlite:{}:{application}", self.path.display()))
    }
}

/// The comment on everything that a transfer makes in the target.
fn mark(schema: &str) -> String {
    format!("pgrunbook transfer of a SQLite file into {schema}")
}

/// The words of `[map]`, with the excluded tables.
fn choices(spec: &Spec) -> Result<Choices, StepError> {
    let excluded = spec.exclude.iter().map(|table| (table.as_str(), "skip"));
    let said = spec.map.iter().map(|(key, word)| (key.as_str(), word.as_str()));
    Choices::parse(excluded.chain(said)).map_err(SqliteError::into_step_error)
}

/// Looks at both sides for everything that stands in the way.
///
/// # Errors
/// If a side cannot be asked.
pub async fn look(loader: &Loader<'_>, ends: &SqliteEnds) -> Result<(Preflight, Vec<Finding>), StepError> {
    let (path, schema, choices) = (ends.path.clone(), loader.schema.to_owned(), choices(loader.spec)?);
    let readers = loader.jobs;
    let looked = blocking(move || {
        let looked = look_at(&path, &choices, &schema, readers)?;
        // Whoever copies it asks again.
        Ok((image::copied_bytes(&path).unwrap_or_default(), looked))
    });
    let (copied, looked) = looked.await.map_err(SqliteError::into_step_error)?;
    let folder = image_folder(loader.workplace, loader.target, loader.schema);
    let findings = findings(loader, ends, &looked, disk::of_copy(&folder, copied)).await?;
    Ok((looked, findings))
}

/// The same, of an image that can be loaded.
async fn look_to_load(loader: &Loader<'_>, ends: &SqliteEnds) -> Result<(Preflight, Image), StepError> {
    let folder = image_folder(loader.workplace, loader.target, loader.schema);
    tokio::fs::create_dir_all(&folder)
        .await
        .map_err(|error| StepError::failed("file", format!("{} cannot be made: {error}", folder.display())))?;
    let (path, schema, choices) = (ends.path.clone(), loader.schema.to_owned(), choices(loader.spec)?);
    let readers = loader.jobs;
    let looked = blocking(move || preflight_with_image(&path, &choices, &schema, readers, &folder, PATIENCE)).await;
    let (looked, image) = looked.map_err(SqliteError::into_step_error)?;
    let findings = findings(loader, ends, &looked, None).await?;
    let refused: Vec<Finding> = in_the_way(&findings).cloned().collect();
    if !refused.is_empty() {
        drop(image);
        remove_image(loader.workplace, loader.target, loader.schema).await;
        return Err(TransferError::Findings { findings: refused }.into());
    }
    Ok((looked, image))
}

fn image_folder(workplace: &Workplace, target: &str, schema: &str) -> PathBuf {
    spools(workplace, target).join(format!("{schema}_image"))
}

/// Takes an image away that nobody reads any more, also one of a process that was killed: it holds all that the file does.
pub async fn remove_image(workplace: &Workplace, target: &str, schema: &str) {
    let _ = tokio::fs::remove_dir_all(image_folder(workplace, target, schema)).await;
}

async fn findings(
    loader: &Loader<'_>,
    ends: &SqliteEnds,
    looked: &Preflight,
    of_copy: Option<Finding>,
) -> Result<Vec<Finding>, StepError> {
    let excluded = |finding: &Finding| {
        let table = finding.object.strip_prefix("table ");
        finding.code == "skipped" && table.is_some_and(|table| loader.spec.exclude.contains(table))
    };
    let mut findings: Vec<Finding> = looked.findings.iter().filter(|finding| !excluded(finding)).cloned().collect();
    findings.extend(of_copy);
    let session = ends.session("pgrunbook:preflight").await?;
    let found = state::find(&session, loader.schema).await.map_err(PgError::into_step_error)?;
    let begun = found.is_some();
    if loader.spec.structure == Making::Existing {
        // What the file declares beside columns and rows is the migrations' affair.
        let declares = |finding: &Finding| !matches!(finding.severity, Severity::Consent(_)) || is_of_rows(finding);
        findings.retain(declares);
        let more = check_existing(&session, loader.schema, looked).await.map_err(SqliteError::into_step_error)?;
        findings.extend(more.into_iter().filter(|finding| !begun || finding.code != "not-empty"));
    }
    findings.extend(of_target(&session, loader, looked, found.as_ref()).await?);
    if !begun {
        // What an earlier attempt brought takes its room already.
        let catalog = &looked.profile.catalog;
        let need = Need::of_file(catalog.page_count.saturating_mul(catalog.page_bytes));
        let there = Disk::of(&session).await.map_err(PgError::into_step_error)?;
        findings.extend(disk::of_rows(format!("target database {}", session.options().database), &there, Ok(need)));
    }
    if loader.spec.reverse {
        findings.extend(disk::of_spool(&spools(loader.workplace, loader.target), loader.spec.limits()));
    }
    if loader.spec.sync == Sync::DirtyKeys {
        let (path, found) = (ends.path.clone(), looked.clone());
        let shape = blocking(move || Shape::of(&found, &open_live(&path)?, &path)).await;
        findings.extend(notes::announced(&shape.map_err(SqliteError::into_step_error)?, &looked.profile.catalog));
    }
    let accepted: Vec<String> = loader.spec.accept.iter().cloned().collect();
    accept(&mut findings, &accepted);
    Ok(findings)
}

/// Consents that concern rows, whoever made the tables.
fn is_of_rows(finding: &Finding) -> bool {
    matches!(finding.code, "skipped" | "null-in-key" | "orphans")
}

/// What the target must be able to do, and what stands there already.
async fn of_target(
    session: &Session,
    loader: &Loader<'_>,
    looked: &Preflight,
    begun: Option<&Transfer>,
) -> Result<Vec<Finding>, StepError> {
    let mut findings = preflight::of_target(session, &loader.wanted(), &looked.structure.names()).await?;
    if let Some(transfer) = begun {
        // What an earlier attempt brought is what this one goes on with, and a slot that it made is in use by right.
        let slot = Names::of(loader.schema, &transfer.target).slot(Way::Reverse);
        let has_slot = slots::slot_state(session, &slot).await.map_err(PgError::into_step_error)?.is_some();
        findings.retain(|finding| match finding.code {
            "collision" | "schema-not-empty" => false,
            "no-slot" | "no-walsender" => !has_slot,
            _ => true,
        });
    }
    Ok(findings)
}

/// Brings the rows of a file, and makes the target as the file is now.
///
/// # Errors
/// With the reason; it may be called again and goes on.
pub async fn bring(loader: &Loader<'_>) -> Result<Evidence, StepError> {
    let ends = SqliteEnds::of(loader.workplace, loader.target, &loader.spec.from)?;
    let name = format!("pgrunbook:{}:transfer", loader.run);
    let records = ends.session(&name).await?;
    state::install(&records).await.map_err(PgError::into_step_error)?;
    shape::install(&records).await.map_err(PgError::into_step_error)?;
    fence::install(&records).await?;
    let found = state::find(&records, loader.schema).await.map_err(PgError::into_step_error)?;
    let (mut transfer, looked) = match found {
        Some(transfer) => (same(loader, &ends, transfer).await?, None),
        None => {
            let (transfer, looked) = begin(loader, &ends, &records).await?;
            (transfer, Some(looked))
        }
    };
    let mut evidence = Evidence::of(String::new());
    let mut is_caught_up = false;
    // What a process that died behind the rows had not proven yet is loaded again: its image is gone with it.
    if transfer.phase < Phase::Following {
        let (fresh, image) = match looked {
            Some(looked) => looked,
            None => look_to_load(loader, &ends).await?,
        };
        (evidence, is_caught_up) =
            load_rows(loader, &ends, &records, &mut transfer, &fresh, Arc::new(image), evidence).await?;
    }
    if let Some(stopped) = &transfer.stopped {
        return Err(stopped_error(stopped, loader.which()));
    }
    if transfer.phase == Phase::Following {
        let synced = match is_caught_up {
            true => Synced::default(),
            false => follow(loader.workplace, loader.target, &transfer, &name).await?,
        };
        evidence = evidence.fact("caught_up", synced.facts());
    }
    evidence.summary = format!("{} is in {} and can follow {}", loader.schema, loader.target, ends.path.display());
    Ok(evidence)
}

async fn same(loader: &Loader<'_>, ends: &SqliteEnds, transfer: Transfer) -> Result<Transfer, StepError> {
    let key = ends.key().await?;
    if transfer.source == key && transfer.spec == *loader.spec {
        return Ok(transfer);
    }
    let why = if transfer.source == key { "was asked for differently" } else { "came from another file" };
    Err(StepError::unusable(
        "another-transfer",
        format!(
            "the schema {} is being transferred already, and that transfer {why}. Nothing was changed.",
            loader.schema
        ),
    )
    .help(loader.or_the_same_again()))
}

async fn begin(
    loader: &Loader<'_>,
    ends: &SqliteEnds,
    records: &Session,
) -> Result<(Transfer, (Preflight, Image)), StepError> {
    let looked = look_to_load(loader, ends).await?;
    let target_key = identify(records, loader.target).await.map_err(PgError::into_step_error)?.key;
    let sql = state::insert_sql(loader.schema, &ends.key().await?, &target_key, loader.spec, loader.run);
    state::write(records, &sql).await.map_err(PgError::into_step_error)?;
    let transfer = state::find(records, loader.schema).await.map_err(PgError::into_step_error)?;
    let transfer = transfer.ok_or_else(|| StepError::failed("transfer", "the record of the transfer is gone"))?;
    Ok((transfer, looked))
}

/// Brings the rows. Also whether nobody wrote to the file meanwhile: then there is nothing to catch up with.
async fn load_rows(
    loader: &Loader<'_>,
    ends: &SqliteEnds,
    records: &Session,
    transfer: &mut Transfer,
    looked: &Preflight,
    image: Arc<Image>,
    evidence: Evidence,
) -> Result<(Evidence, bool), StepError> {
    let schema = loader.schema;
    if transfer.phase == Phase::Building {
        // The guard goes with the tables, and its record must not say that it stands.
        let lift = Lift { schema, by: loader.operator, ..Lift::default() };
        fence::unfence(records, &lift, loader.cancel).await?;
    }
    take_away(records, schema, &transfer.spec, transfer.phase).await?;
    let (seen, found) = (image.clone(), looked.clone());
    let shape = blocking(move || Shape::of(&found, &*seen.open()?, seen.source())).await;
    let mut shape = shape.map_err(SqliteError::into_step_error)?;
    let existing = loader.spec.structure == Making::Existing;
    if existing {
        shape::note_target(records, schema, &mut shape).await.map_err(PgError::into_step_error)?;
    }
    shape::record(records, schema, &ends.path, &shape).await.map_err(PgError::into_step_error)?;
    phase(records, transfer, Phase::Copying).await?;

    let mut plan = looked.plan();
    for map in &mut plan.mapping.tables {
        let Some(carried) = shape.table(&map.name) else { continue };
        for column in &mut map.columns {
            if let Some(travels) = carried.columns.iter().find(|one| one.name == column.name) {
                column.kind = travels.kind;
            }
        }
    }
    let plan = Arc::new(plan);
    let how = How { connections: loader.jobs, mark: mark(schema), structure: loader.spec.structure, ..How::default() };
    let total = plan.mapping.tables.iter().map(|map| looked.profile.tables[map.source].rows).sum();
    let how_far = HowFar { loader, records, handed: how.handed.clone(), total, bytes: image.bytes };
    let loading = load::load(&ends.options, schema, image.clone(), plan, &how, loader.cancel);
    let loaded = tokio::select! {
        biased;
        loaded = loading => loaded.map_err(SqliteError::into_step_error)?,
        // Cancellation: a number that was sent is followed by the final one, on the same connection.
        never = how_far.keep_telling() => match never {},
    };
    how_far.tell();
    if !existing {
        shape::note_target(records, schema, &mut shape).await.map_err(PgError::into_step_error)?;
    }
    shape::record(records, schema, &ends.path, &shape).await.map_err(PgError::into_step_error)?;
    let rows: u64 = loaded.tables.iter().map(|table| table.sum.rows).sum();
    let sql = format!(
        "UPDATE pgrunbook.transfer_file SET rows = {rows}, bytes = {} WHERE schema = {}",
        image.bytes,
        text(schema)
    );
    state::write(records, &sql).await.map_err(PgError::into_step_error)?;
    phase(records, transfer, Phase::Building).await?;
    prove(loader, ends, records, transfer, &loaded, &image).await?;
    let (image_bytes, read_for) = (image.bytes, image.took);
    let is_changed = blocking(move || image.source_changed()).await.map_err(SqliteError::into_step_error)?;
    // Triggers that note what changes are set by the first look at the file.
    let is_caught_up = transfer.spec.sync == Sync::Rescan && !is_changed;
    // Before it is recorded that nothing is left to do.
    remove_image(loader.workplace, loader.target, schema).await;
    phase(records, transfer, Phase::Following).await?;

    let tables: Vec<_> = loaded
        .tables
        .iter()
        .map(|table| {
            json!({ "table": table.name, "rows": table.sum.rows, "respelled": table.respelled,
                    "sums": table.sum.sums.map(|sum| format!("{sum:016x}")) })
        })
        .collect();
    let evidence = evidence
        .fact("rows", rows)
        .fact("tables", tables)
        .fact("image_bytes", image_bytes)
        .fact("file_read_us", u64::try_from(read_for.as_micros()).unwrap_or(u64::MAX));
    Ok((evidence, is_caught_up))
}

/// Who waits for a load sees it go on this often: seldom enough to cost nothing, often enough not to take it for dead.
const TOLD: Duration = Duration::from_secs(1);

/// How far a load is, for who waits here and for `transfer status` elsewhere.
struct HowFar<'a> {
    loader: &'a Loader<'a>,
    records: &'a Session,
    handed: Arc<AtomicU64>,
    /// Rows of the image.
    total: u64,
    /// Of the image.
    bytes: u64,
}

impl HowFar<'_> {
    /// Returns how many rows have been handed over.
    fn tell(&self) -> u64 {
        let done = self.handed.load(Ordering::Relaxed);
        let amount = Progress::Amount { done, total: Some(self.total), unit: "rows" };
        self.loader.watcher.progress(self.loader.step, amount);
        done
    }

    /// Begins at once, over what an attempt before may have left there.
    async fn keep_telling(&self) -> Infallible {
        let mut ticks = tokio::time::interval(TOLD);
        loop {
            ticks.tick().await;
            let done = self.tell();
            // As much of the file as of its rows.
            let bytes = u128::from(self.bytes) * u128::from(done) / u128::from(self.total.max(1));
            let sql = format!(
                "UPDATE pgrunbook.transfer_file SET rows = {done}, bytes = {bytes} WHERE schema = {}",
                text(self.loader.schema)
            );
            // It is only told: what was loaded is recorded behind the load.
            let _ = self.records.execute(&sql).await;
        }
    }
}

/// Nobody writes to the target from here on, and it is what the image is: then the transfer can follow.
async fn prove(
    loader: &Loader<'_>,
    ends: &SqliteEnds,
    records: &Session,
    transfer: &Transfer,
    loaded: &Loaded,
    image: &Arc<Image>,
) -> Result<(), StepError> {
    let schema = loader.schema;
    let shape = shape::recorded(records, schema).await?;
    if !shape.tables.is_empty() {
        loader.guard(&ends.session(&format!("pgrunbook:{}:guard", loader.run)).await?).await?;
    }
    let session = ends.session("pgrunbook:verify").await?;
    // Who wrote there before the guard stood left rows of their own, or took some away. Tables that others made may store something else
    // than they are sent.
    let is_untouched = transfer.spec.structure == Making::Create
        && loaded.is_untouched(&session, schema).await.map_err(PgError::into_step_error)?;
    let mut feed = Feed::of_image(session, image.clone(), transfer).await?;
    let differences = if is_untouched { Vec::new() } else { feed.compare().await?.words(&shape) };
    if !differences.is_empty() {
        return Err(StepError::failed(
            "load-differs",
            format!("what was loaded into {schema} is not what the file held: {}", differences.join("; ")),
        )
        .help("somebody else wrote to the target meanwhile: undo, and begin again"));
    }
    feed.set_numbers().await?;
    Ok(())
}

async fn phase(records: &Session, transfer: &mut Transfer, phase: Phase) -> Result<(), StepError> {
    let sql = state::phase_sql(&transfer.schema, phase, None);
    state::write(records, &sql).await.map_err(PgError::into_step_error)?;
    transfer.phase = phase;
    Ok(())
}

/// Makes the target as the file is now.
///
/// # Errors
/// As [`Feed::sync`].
pub async fn follow(workplace: &Workplace, target: &str, transfer: &Transfer, name: &str) -> Result<Synced, StepError> {
    let ends = SqliteEnds::of(workplace, target, &transfer.spec.from)?;
    let session = ends.session(name).await?;
    let access = match transfer.spec.sync {
        Sync::Rescan => Access::Read,
        Sync::DirtyKeys => Access::Write,
    };
    let mut feed = Feed::open(session, &ends.path, transfer, access).await?;
    feed.sync().await
}

const MARKED: &str = "
SELECT c.relname
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r' AND pg_catalog.obj_description(c.oid, 'pg_class') = $2
ORDER BY c.relname";

/// Takes away what an attempt brought: the tables that it made, or the rows in those that were there.
async fn take_away(session: &Session, schema: &str, spec: &Spec, phase: Phase) -> Result<(), StepError> {
    let execute = async |sql: String| state::write(session, &sql).await.map_err(PgError::into_step_error);
    let schema_name = quote::ident(schema).unwrap_or_default();
    if spec.structure == Making::Existing {
        if phase == Phase::Prepared {
            return Ok(());
        }
        // They were empty when it began.
        let shape = shape::recorded(session, schema).await?;
        let tables: Vec<String> = shape.tables.iter().map(|table| table.place(schema)).collect();
        if !tables.is_empty() {
            execute(format!("TRUNCATE {}", tables.join(", "))).await?;
        }
        return Ok(());
    }
    let mark = mark(schema);
    let rows = session.client().query(MARKED, &[&schema, &mark]).await;
    let rows = rows.map_err(|error| session.error(&error).into_step_error())?;
    let tables: Vec<String> =
        rows.iter().map(|row| format!("{schema_name}.{}", quote::ident(row.get(0)).unwrap_or_default())).collect();
    if !tables.is_empty() {
        execute(format!("DROP TABLE {}", tables.join(", "))).await?;
    }
    let made = format!(
        "SELECT 1 FROM pg_catalog.pg_namespace AS n WHERE n.nspname = {} AND pg_catalog.obj_description(n.oid, 'pg_namespace') = {}",
        text(schema),
        text(&mark)
    );
    if session.value(&made).await.map_err(PgError::into_step_error)? == "1" {
        execute(format!("DROP SCHEMA {schema_name}")).await?;
    }
    Ok(())
}

/// Gives a transfer up that was not switched: nothing of it stays on either side.
///
/// # Errors
/// If a side cannot be reached; it may be called again.
pub async fn abandon(
    workplace: &Workplace,
    target: &str,
    transfer: &Transfer,
    run: &str,
    cancel: &Cancel,
) -> Result<(), StepError> {
    let ends = SqliteEnds::of(workplace, target, &transfer.spec.from)?;
    unmake_way_back(workplace, &ends, transfer).await?;
    let session = ends.session(&format!("pgrunbook:{run}:abandon")).await?;
    let schema = &transfer.schema;
    fence::unfence(&session, &Lift { schema, by: run, ..Lift::default() }, cancel).await?;
    take_away(&session, schema, &transfer.spec, transfer.phase).await?;
    let path = ends.path.clone();
    let cleared = blocking(move || {
        // A file in which there is nothing of ours is not written to.
        if seal::is_touched(&open_live(&path)?, &path)? {
            let connection = open_write(&path)?;
            seal::begin(&connection, &path, PATIENCE)?;
            seal::lift(&connection, &path, true)?;
            seal::commit(&connection, &path, PATIENCE)?;
        }
        Ok(())
    });
    cleared.await.map_err(|error| error.told("What is in the target was taken away already."))?;
    remove_image(workplace, target, schema).await;
    let sql =
        format!("DELETE FROM pgrunbook.transfer_file WHERE schema = {}; {}", text(schema), state::delete_sql(schema));
    state::write(&session, &sql).await.map_err(PgError::into_step_error)
}

/// Rows and bytes that the load brought; nothing where no file was loaded into the schema.
///
/// # Errors
/// If the target cannot be asked.
pub async fn loaded(session: &Session, schema: &str) -> Result<Option<(u64, u64)>, PgError> {
    numbers(session, schema, "rows, bytes").await
}

/// How often the target was made like the file since, and the rows that this changed.
///
/// # Errors
/// If the target cannot be asked.
pub async fn shipped(session: &Session, schema: &str) -> Result<(u64, u64), PgError> {
    Ok(numbers(session, schema, "syncs, changes").await?.unwrap_or_default())
}

async fn numbers(session: &Session, schema: &str, columns: &str) -> Result<Option<(u64, u64)>, PgError> {
    if session.value("SELECT pg_catalog.to_regclass('pgrunbook.transfer_file') IS NOT NULL").await? != "t" {
        return Ok(None);
    }
    let sql = format!("SELECT {columns} FROM pgrunbook.transfer_file WHERE schema = {}", text(schema));
    let answers = session.simple(&sql).await?;
    let row = answers.last().and_then(|answer| answer.rows.first()).cloned();
    let number = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().and_then(|text| text.parse().ok());
    Ok(row.map(|row| (number(&row, 0).unwrap_or_default(), number(&row, 1).unwrap_or_default())))
}
