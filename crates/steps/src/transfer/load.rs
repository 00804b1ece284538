//! The first half of a transfer: look, make the schema, make the slot, copy the rows, build the rest, catch up.
//!
//! Each phase is recorded before it begins, and may be begun again: what an attempt left is either taken up (rows that are
//! in, indexes that are built) or taken away and made anew (a schema without rows, a slot whose snapshot is gone).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgrunbook_document::StepId;
use pgrunbook_engine::step::{Progress, Watcher};
use pgrunbook_engine::{Cancel, Evidence, StepError};
use pgrunbook_postgres::identity::identify;
use pgrunbook_postgres::relation::{Filter, Table, describe};
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::{PgError, Session};
use serde_json::json;
use tokio::sync::watch;

use super::copy::{self, BaseCopyError, Copied, How, Told, pair};
use super::ends::Ends;
use super::follow::Turn;
use super::preflight::{Origin, Wanted, preflight};
use super::since;
use super::spec::{Making, Side, Spec};
use super::standing::{Which, stopped_error};
use super::state::{self, Phase, Transfer};
use super::streams::{self, Names};
use super::structure::{self, Object, Structure};
use super::{Finding, TransferError, accept, blocking, build, disk, sqlite};
use crate::backup::programs::Audience;
use crate::fence::{self, Fence, Lift};
use crate::typed::on_transfer;
use crate::workplace::Workplace;

/// About how much of a table's file is one range, in bytes.
const RANGE: u64 = 64 << 20;

/// An index that was built in less is not worth a line: a schema has hundreds.
const TOLD: Duration = Duration::from_secs(1);

/// How long the first catching up may take. Behind it `follow` waits further.
const CATCH_UP: Duration = Duration::from_secs(24 * 3600);

/// Who loads, and how.
pub struct Loader<'a> {
    pub workplace: &'a Workplace,
    /// The project's name of the target.
    pub target: &'a str,
    pub schema: &'a str,
    pub spec: &'a Spec,
    /// How many connections at a time on each side.
    pub jobs: usize,
    pub run: &'a str,
    pub operator: &'a str,
    pub cancel: &'a Cancel,
    /// Who hears how far it is, and as which step.
    pub step: &'a StepId,
    pub watcher: &'a dyn Watcher,
}

impl Loader<'_> {
    fn name(&self) -> String {
        format!("pgrunbook:{}:transfer", self.run)
    }

    fn say(&self, text: String) {
        self.watcher.progress(self.step, Progress::Line { text });
    }

    fn ends(&self) -> Result<Ends, StepError> {
        Ends::named(self.workplace, self.target, self.schema, self.spec)
    }

    /// What the preflight is asked for.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted {
            source_schema: self.spec.source_schema.clone(),
            exclude: self.spec.exclude.iter().cloned().collect(),
            structure: match self.spec.structure {
                Making::Create => Origin::Create,
                Making::Existing => Origin::Existing,
            },
            reverse: self.spec.reverse,
            limits: self.spec.limits(),
            spool: Some(streams::spools(self.workplace, self.target)),
            ..Wanted::new(self.schema)
        }
    }

    /// Everything that stands in the way, with what was consented to marked so.
    ///
    /// # Errors
    /// If a side cannot be asked.
    pub async fn look(&self) -> Result<Vec<Finding>, StepError> {
        if sqlite::is_file(self.workplace, &self.spec.from) {
            let ends = sqlite::SqliteEnds::of(self.workplace, self.target, &self.spec.from)?;
            return Ok(sqlite::look(self, &ends).await?.1);
        }
        let ends = self.ends()?;
        let (source, target) = (ends.source.session(&self.name()).await?, ends.target.session(&self.name()).await?);
        let mut findings = preflight(&source, &target, &self.wanted()).await?;
        // What an earlier attempt brought is what this one goes on with.
        if state::find(&target, self.schema).await.map_err(PgError::into_step_error)?.is_some() {
            findings.retain(|finding| !matches!(finding.code, "collision" | "schema-not-empty" | disk::TARGET));
        }
        let accepted: Vec<String> = self.spec.accept.iter().cloned().collect();
        accept(&mut findings, &accepted);
        Ok(findings)
    }

    /// Brings the rows, and follows until it has caught up.
    ///
    /// # Errors
    /// With the reason; it may be called again and goes on.
    pub async fn load(&self) -> Result<Evidence, StepError> {
        if sqlite::is_file(self.workplace, &self.spec.from) {
            return Box::pin(sqlite::bring(self)).await;
        }
        let ends = self.ends()?;
        let records = ends.target.session(&self.name()).await?;
        state::install(&records).await.map_err(PgError::into_step_error)?;
        let source = ends.source.session(&self.name()).await?;
        let mut transfer = match state::find(&records, self.schema).await.map_err(PgError::into_step_error)? {
            Some(transfer) => self.same(transfer, &source).await?,
            None => self.begin(&source, &records).await?,
        };
        if let Some(stopped) = &transfer.stopped {
            return Err(stopped_error(stopped, self.which()));
        }
        let mut evidence = Evidence::of(String::new());
        let mut is_built = false;
        if transfer.phase == Phase::Prepared {
            // Before it is read to be made again: what changes from here on is found.
            self.record(&source, &records, Side::Source).await?;
        }
        let structure = match (self.spec.structure, transfer.phase) {
            (Making::Create, Phase::Prepared | Phase::Copying | Phase::Building) => Some(self.derive(&ends).await?),
            _ => None,
        };
        if let (Phase::Prepared, Some(structure)) = (transfer.phase, &structure) {
            self.prepare(&ends, &transfer, structure).await?;
        }
        if matches!(transfer.phase, Phase::Prepared | Phase::Copying) {
            let copied = self.rows(&ends, &mut transfer, &records, structure.as_ref()).await?;
            let rows: u64 = copied.tables.iter().map(|table| table.rows).sum();
            evidence = evidence.fact("rows", rows).fact("tables", tables_json(&copied));
            is_built = structure.is_some();
            self.phase(&records, &mut transfer, Phase::Building).await?;
        }
        if transfer.phase == Phase::Building {
            if !is_built {
                // What was built while rows were copied is passed over.
                self.build(&ends, structure.as_ref(), None).await?;
            }
            if let Some(structure) = &structure {
                structure.verify(&records).await?;
            }
            self.record(&records, &records, Side::Target).await?;
            if !self.tables(&records, self.schema).await?.is_empty() {
                self.guard(&ends.target.session(&self.name()).await?).await?;
            }
            self.phase(&records, &mut transfer, Phase::Following).await?;
            // From now on it applies.
            self.workplace.followers().end(self.target, self.schema).await;
        }
        if transfer.phase == Phase::Following {
            let follower =
                self.workplace.followers().follow(self.workplace, self.target, &transfer, Turn::Take).await?;
            let at = follower.caught_up(Way::Forward, CATCH_UP, self.cancel).await?;
            evidence = evidence.fact("caught_up_to", at.to_string());
        }
        evidence.summary = format!("{} is in {} and follows {}", self.schema, self.target, self.spec.from);
        Ok(evidence)
    }

    /// Records what a side is now.
    async fn record(&self, session: &Session, records: &Session, side: Side) -> Result<(), StepError> {
        let schema = if side == Side::Source { &self.spec.source_schema } else { self.schema };
        let print = since::Print::read(session, schema, &self.spec.exclude).await?;
        since::install(records).await.map_err(PgError::into_step_error)?;
        let sql = since::record_sql(self.schema, side, &print);
        state::write(records, &sql).await.map_err(PgError::into_step_error)
    }

    async fn phase(&self, records: &Session, transfer: &mut Transfer, phase: Phase) -> Result<(), StepError> {
        let sql = state::phase_sql(self.schema, phase, None);
        state::write(records, &sql).await.map_err(PgError::into_step_error)?;
        transfer.phase = phase;
        Ok(())
    }

    /// Of which transfer this is.
    pub(super) fn which(&self) -> Which<'_> {
        Which { schema: self.schema, target: self.target }
    }

    /// What a person does who asks for another transfer than the one that was begun.
    pub(super) fn or_the_same_again(&self) -> String {
        let abandon = on_transfer("abandon", self.schema, self.target, &["--yes"]);
        format!("undo the step that began it, or {abandon}; or ask for the same again")
    }

    /// A transfer that was begun before goes on only from the same source.
    async fn same(&self, transfer: Transfer, source: &Session) -> Result<Transfer, StepError> {
        let key = identify(source, &self.spec.from).await.map_err(PgError::into_step_error)?.key;
        if transfer.source != key || transfer.spec != *self.spec {
            let why = if transfer.source == key { "was asked for differently" } else { "came from another database" };
            return Err(StepError::unusable(
                "another-transfer",
                format!(
                    "the schema {} is being transferred already, and that transfer {why}. Nothing was changed.",
                    self.schema
                ),
            )
            .help(self.or_the_same_again()));
        }
        Ok(transfer)
    }

    /// Looks, derives the schema, and records that it begins.
    async fn begin(&self, source: &Session, records: &Session) -> Result<Transfer, StepError> {
        let findings = self.look().await?;
        let refused: Vec<Finding> = blocking(&findings).cloned().collect();
        if !refused.is_empty() {
            return Err(TransferError::Findings { findings: refused }.into());
        }
        let (source_key, target_key) = (
            identify(source, &self.spec.from).await.map_err(PgError::into_step_error)?.key,
            identify(records, self.target).await.map_err(PgError::into_step_error)?.key,
        );
        let sql = state::insert_sql(self.schema, &source_key, &target_key, self.spec, self.run);
        state::write(records, &sql).await.map_err(PgError::into_step_error)?;
        state::find(records, self.schema)
            .await
            .map_err(PgError::into_step_error)?
            .ok_or_else(|| StepError::failed("transfer", "the record of the transfer is gone"))
    }

    /// What the schema will be made of. Derived anew by each attempt: the source's catalog is where it is written.
    async fn derive(&self, ends: &Ends) -> Result<Structure, StepError> {
        let accepted: Vec<String> = self.spec.accept.iter().cloned().collect();
        let audience = Audience { step: self.step, watcher: self.watcher, cancel: self.cancel };
        let (source, target) = (&ends.source.options, &ends.target.options);
        let mut structure = structure::derive(source, target, &self.wanted(), &accepted, audience).await?;
        structure.ready()?;
        // A declared schema has a declared owner, and its default privileges are for what that role makes.
        structure.owner = self.declared_owner();
        for rewrite in &structure.rewritten {
            self.say(format!("{} names {} and was rewritten", rewrite.object, self.spec.source_schema));
        }
        Ok(structure)
    }

    /// The owner that the topology declares, where it declares the schema at all.
    fn declared_owner(&self) -> Option<String> {
        let topology = self.workplace.topology().ok()?;
        topology.schemas.contains_key(self.schema).then(|| topology.owner.clone())
    }

    /// Makes the tables. What an earlier attempt made is taken away first: no row is in it.
    async fn prepare(&self, ends: &Ends, transfer: &Transfer, structure: &Structure) -> Result<(), StepError> {
        let id = Names::of(self.schema, &transfer.target).slot(Way::Forward);
        let mut session = ends.target.session(&self.name()).await?;
        if structure::is_marked(&session, self.schema, &id).await? {
            structure::drop_marked(&mut session, self.schema, &id).await?;
        }
        structure::create_before(&mut session, structure, self.schema, &id).await?;
        Ok(())
    }

    async fn tables(&self, session: &Session, schema: &str) -> Result<Vec<Table>, StepError> {
        let mut tables = describe(session, schema, Filter::All).await.map_err(PgError::into_step_error)?;
        tables.retain(|table| !self.spec.exclude.contains(&table.name));
        Ok(tables)
    }

    /// Copies the rows, and builds what belongs to a table as soon as its rows are complete.
    async fn rows(
        &self,
        ends: &Ends,
        transfer: &mut Transfer,
        records: &Session,
        structure: Option<&Structure>,
    ) -> Result<Copied, StepError> {
        let (finished, ready) = watch::channel(BTreeSet::new());
        let copying = async {
            let copied = self.copy(ends, transfer, records, &finished).await;
            if copied.is_ok() {
                // Roots of partitions, too: they hold no rows, and nobody has told of them.
                let target = ends.target.session(&self.name()).await?;
                let all = self.tables(&target, self.schema).await?;
                finished.send_modify(|set| set.extend(all.into_iter().map(|table| table.name)));
            }
            // Whoever waits for a table that was not completed waits no longer.
            drop(finished);
            copied
        };
        let building = async {
            match structure {
                Some(_) => self.build(ends, structure, Some(ready)).await,
                None => Ok(()),
            }
        };
        let (copied, built) = tokio::join!(copying, building);
        let copied = copied?;
        built?;
        Ok(copied)
    }

    /// Copies the rows: under the snapshot of a slot that is made now, or further after a crash.
    async fn copy(
        &self,
        ends: &Ends,
        transfer: &mut Transfer,
        records: &Session,
        finished: &watch::Sender<BTreeSet<String>>,
    ) -> Result<Copied, StepError> {
        let names = Names::of(self.schema, &transfer.target);
        let source = ends.source.session(&self.name()).await?;
        let target = ends.target.session(&self.name()).await?;
        let pairs = pair(
            self.tables(&source, &self.spec.source_schema).await?,
            &describe(&target, self.schema, Filter::All).await.map_err(PgError::into_step_error)?,
        )?;
        let told = std::sync::Mutex::new(BTreeMap::new());
        let tell = |table: &Told| {
            let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            told.insert(table.table.clone(), table.rows);
            let done = told.values().sum();
            self.watcher.progress(self.step, Progress::Amount { done, total: None, unit: "rows" });
        };
        let how = How {
            schema: self.schema,
            jobs: self.jobs,
            range_bytes: RANGE,
            cancel: self.cancel,
            tell: &tell,
            finished: Some(finished),
        };
        if transfer.phase == Phase::Copying {
            let copying = copy::resume(&ends.source.options, &ends.target.options, &pairs, &how);
            match self.while_received(transfer, copying).await? {
                Ok(copied) => return Ok(copied),
                // It ended before the first range was planned, and with it the snapshot: from the slot on again.
                Err(BaseCopyError::NotBegun { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.workplace.followers().end(self.target, self.schema).await;
        streams::unmake(ends, &names, Way::Forward).await?;
        let folder = streams::spool_folder(self.workplace, self.target, &names, Way::Forward);
        let _ = tokio::fs::remove_dir_all(&folder).await;
        copy::forget(records, self.schema).await?;
        let made = streams::make(ends, transfer, &names, Way::Forward, true, self.cancel).await?;
        let Some((connection, slot)) = made else {
            return Err(StepError::failed("slot", "somebody else made the slot of this transfer meanwhile"));
        };
        let snapshot = slot.snapshot.clone().unwrap_or_default();
        self.phase(records, transfer, Phase::Copying).await?;
        let copying = copy::copy(&ends.source.options, &snapshot, &ends.target.options, &pairs, &how);
        let copied = self.while_received(transfer, copying).await;
        // The snapshot lives as long as this connection is idle.
        drop(connection);
        Ok(copied??)
    }

    /// Copies while the changes are received. Rows without the changes behind them are worth nothing: where those can be
    /// received no more, copying ends too.
    ///
    /// Cancellation: a copy that is dropped can be resumed.
    async fn while_received<T>(&self, transfer: &Transfer, copying: impl Future<Output = T>) -> Result<T, StepError> {
        let followers = self.workplace.followers();
        let follower = followers.follow(self.workplace, self.target, transfer, Turn::Take).await?;
        tokio::select! {
            biased;
            error = follower.stands_still(Way::Forward) => Err(error),
            copied = copying => Ok(copied),
        }
    }

    /// Builds indexes, constraints and what else comes after the rows.
    async fn build(
        &self,
        ends: &Ends,
        structure: Option<&Structure>,
        ready: Option<watch::Receiver<BTreeSet<String>>>,
    ) -> Result<(), StepError> {
        let mut objects = self.vacuums(ends).await?;
        objects.extend(structure.iter().flat_map(|structure| &structure.after).map(built));
        let tell = |built: &build::Built| {
            if !built.was_there && built.took >= TOLD {
                self.say(format!("built {} in {:.1} s", built.name, built.took.as_secs_f64()));
            }
        };
        let how = build::Building { schema: self.schema, jobs: self.jobs, cancel: self.cancel, tell: &tell, ready };
        Ok(build::build(&ends.target.options, &objects, how).await?)
    }

    /// The planner of the target knows nothing of rows that came by COPY, and their pages are not known to be visible to all: foreign
    /// keys are checked three times as fast when they are, and autovacuum need not come by afterwards.
    async fn vacuums(&self, ends: &Ends) -> Result<Vec<build::Object>, StepError> {
        let session = ends.target.session(&self.name()).await?;
        let found = session.client().query(TABLES, &[&self.schema]).await.map_err(|error| session.error(&error));
        let tables = found.map_err(PgError::into_step_error)?.into_iter().map(|row| (row.get(0), row.get(1)));
        let of = |(table, is_root): (String, bool)| build::Object::vacuum(self.schema, table, is_root);
        Ok(tables.filter(|(table, _)| !self.spec.exclude.contains(table)).map(of).collect())
    }

    /// Nobody writes to the target before it is opened: what was copied must stay what was copied. `session` is the target's.
    pub(super) async fn guard(&self, session: &Session) -> Result<(), StepError> {
        let standing = fence::state(session, self.schema).await.map_err(PgError::into_step_error)?;
        if !matches!(standing, fence::Standing::Unfenced) {
            return Ok(());
        }
        let name = format!("{}.guard.{}", self.run, self.schema);
        // One that was given up and begun again had a guard before.
        let mut id = name.clone();
        for number in 2_u32.. {
            if !fence::is_committed(session, &id).await.map_err(PgError::into_step_error)? {
                break;
            }
            id = format!("{name}.{number}");
        }
        let wish = Fence {
            id,
            schema: self.schema.to_owned(),
            message: format!("table {{table}} of {} still follows {}: write there", self.schema, self.spec.from),
            run: Some(self.run.to_owned()),
            operator: self.operator.to_owned(),
            ..Fence::default()
        };
        fence::fence(session, &wish, self.cancel).await?;
        Ok(())
    }
}

/// A schema's tables, from the catalog alone, since some of them may be locked; and whether each is the root of partitions, whose
/// leaves are vacuumed by themselves.
const TABLES: &str = "SELECT c.relname::text, c.relkind = 'p'
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') ORDER BY c.relname";

/// An object of the structure as the build wants it.
fn built(object: &Object) -> build::Object {
    let kind = match object.kind.as_str() {
        "CONSTRAINT" => build::Kind::Key,
        "INDEX" => build::Kind::Index,
        "FK CONSTRAINT" => build::Kind::ForeignKey,
        "TRIGGER" => build::Kind::Trigger,
        "POLICY" => build::Kind::Policy,
        "MATERIALIZED VIEW DATA" => build::Kind::MaterializedView,
        _ => build::Kind::Other,
    };
    // A dump names a constraint, a trigger or a policy with its table before it.
    let name = object.table.as_ref().and_then(|table| object.name.strip_prefix(table.as_str())?.strip_prefix(' '));
    build::Object {
        kind,
        name: name.unwrap_or(&object.name).to_owned(),
        table: object.table.clone(),
        sql: object.sql.clone(),
    }
}

fn tables_json(copied: &Copied) -> serde_json::Value {
    copied
        .tables
        .iter()
        .map(|table| {
            json!({
                "table": table.relation, "rows": table.rows, "bytes": table.bytes,
                "sums": table.sum.map(|sum| sum.sums.map(|sum| format!("{sum:016x}"))),
            })
        })
        .collect()
}

/// Gives a transfer up that was not switched: nothing of it stays on either side.
///
/// # Errors
/// If the target takes the writes, or a side cannot be asked; it may be called again.
pub async fn abandon(
    workplace: &Workplace,
    target: &str,
    schema: &str,
    run: &str,
    cancel: &Cancel,
) -> Result<Evidence, StepError> {
    let records = Session::connect(workplace.postgres(target)?, &format!("pgrunbook:{run}:abandon"))
        .await
        .map_err(PgError::into_step_error)?;
    let Some(transfer) = state::find(&records, schema).await.map_err(PgError::into_step_error)? else {
        sqlite::remove_image(workplace, target, schema).await;
        return Ok(Evidence::of(format!("there is no transfer into {schema}")));
    };
    if matches!(transfer.phase, Phase::Forth | Phase::Switched | Phase::Back | Phase::Complete) {
        return Err(StepError::unusable(
            "phase",
            format!(
                "the transfer into {schema} is {}: the target has the writes. Nothing was changed.",
                transfer.phase.word()
            ),
        )
        .help("go back first: undo the `cutover` step, or `cutover` with to = \"source\""));
    }
    workplace.followers().end(target, schema).await;
    if sqlite::is_file(workplace, &transfer.spec.from) {
        sqlite::abandon(workplace, target, &transfer, run, cancel).await?;
        return Ok(Evidence::of(format!("the transfer into {schema} was given up; nothing of it is left")));
    }
    let ends = Ends::of(workplace, target, &transfer)?;
    let names = Names::of(schema, &transfer.target);
    for way in [Way::Forward, Way::Reverse] {
        streams::unmake(&ends, &names, way).await?;
        let _ = tokio::fs::remove_dir_all(streams::spool_folder(workplace, target, &names, way)).await;
    }
    let mut session = ends.target.session(&format!("pgrunbook:{run}:abandon")).await?;
    let lift = Lift { schema, by: run, ..Lift::default() };
    fence::unfence(&session, &lift, cancel).await?;
    match transfer.spec.structure {
        Making::Create => {
            structure::drop_marked(&mut session, schema, &names.slot(Way::Forward)).await?;
        }
        // They were empty when it began, and nobody else could write.
        Making::Existing => copy::empty(&session, schema).await?,
    }
    copy::forget(&session, schema).await?;
    for way in [Way::Forward, Way::Reverse] {
        let sql = state::forget_stream_sql(&names.stream(way));
        let there = ends.destination(way).session("pgrunbook:abandon").await?;
        state::write(&there, &sql).await.map_err(PgError::into_step_error)?;
    }
    state::write(&session, &since::forget_sql(schema)).await.map_err(PgError::into_step_error)?;
    state::write(&session, &state::delete_sql(schema)).await.map_err(PgError::into_step_error)?;
    Ok(Evidence::of(format!("the transfer into {schema} was given up; nothing of it is left")))
}
