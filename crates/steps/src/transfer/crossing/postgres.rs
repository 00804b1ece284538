//! What one PostgreSQL transfer does in a crossing.

use std::sync::Arc;
use std::time::Instant;

use pgrunbook_engine::{Cancel, Evidence, StepError};
use pgrunbook_postgres::slots::Direction as Way;
use pgrunbook_postgres::{Lsn, PgError, Session, ledger};

use super::{How, Owner, is_at, is_mine, phase_if};
use crate::fence::{self, Fence, Lift};
use crate::topology::ident;
use crate::transfer::ends::{End, Ends};
use crate::transfer::follow::{Follower, Turn};
use crate::transfer::proof;
use crate::transfer::sequences::{positions, set_positions};
use crate::transfer::since::{self, Since};
use crate::transfer::spec::Side;
use crate::transfer::state::{self, Phase, Transfer};
use crate::transfer::streams::{self, Names, other};
use crate::transfer::structure::POPULATED;
use crate::workplace::Workplace;

/// A PostgreSQL transfer that crosses.
pub struct PostgresLeg {
    workplace: Workplace,
    target: String,
    transfer: Transfer,
    to: Side,
    ends: Ends,
    /// Made in `prepare`, so that nothing connects while writers wait.
    ready: Option<Ready>,
    /// Where the fence's marker stands in the log of the side that was fenced.
    marker: Lsn,
    evidence: Evidence,
}

struct Ready {
    follower: Arc<Follower>,
    /// On the side that takes writes before the crossing.
    from: Session,
    /// On the side that takes them after it.
    onto: Session,
    /// For the records, in the target.
    records: Session,
    /// What both sides were when they were looked at.
    since: Since,
}

impl PostgresLeg {
    /// A leg of a recorded transfer.
    ///
    /// # Errors
    /// If the project does not have its targets.
    pub fn new(workplace: &Workplace, target: &str, transfer: Transfer, to: Side) -> Result<Self, StepError> {
        let ends = Ends::of(workplace, target, &transfer)?;
        let evidence = Evidence::of(String::new());
        let (workplace, target, marker) = (workplace.clone(), target.to_owned(), Lsn(u64::MAX));
        Ok(Self { workplace, target, transfer, to, ends, ready: None, marker, evidence })
    }

    pub fn schema(&self) -> &str {
        &self.transfer.schema
    }

    /// How a person lets writers go on where this fenced them.
    pub fn by_hand(&self) -> String {
        fence::by_hand(&self.from().name)
    }

    fn way(&self) -> Way {
        match self.to {
            Side::Target => Way::Forward,
            Side::Source => Way::Reverse,
        }
    }

    fn from(&self) -> &End {
        self.ends.origin(self.way())
    }

    fn onto(&self) -> &End {
        self.ends.destination(self.way())
    }

    /// The phases before, during and after this crossing.
    fn phases(&self) -> [Phase; 3] {
        match self.to {
            Side::Target => [Phase::Following, Phase::Forth, Phase::Switched],
            Side::Source => [Phase::Switched, Phase::Back, Phase::Following],
        }
    }

    pub async fn prepare(&mut self, how: &How, cancel: &Cancel) -> Result<(), StepError> {
        let name = format!("pgrunbook:{}:crossing", how.run);
        let since = since::refuse_altered(&self.ends, &self.transfer, self.way()).await?;
        if self.to == Side::Target && self.transfer.spec.reverse {
            let names = Names::of(&self.transfer.schema, &self.transfer.target);
            streams::make(&self.ends, &self.transfer, &names, Way::Reverse, false, cancel).await?;
        }
        let follower =
            self.workplace.followers().follow(&self.workplace, &self.target, &self.transfer, Turn::Take).await?;
        follower.caught_up(self.way(), how.asked.catch_up, cancel).await?;
        let was_lossy = self.to == Side::Source && self.transfer.lossy.is_some();
        if since.moved || was_lossy {
            // Rows may differ that nobody wrote (a default of a column that came), or what stopped the stream was put right by hand.
            proof::forget(&follower).await?;
        }
        let ready = Ready {
            from: self.from().session(&name).await?,
            onto: self.onto().session(&name).await?,
            records: self.ends.target.session(&name).await?,
            follower,
            since,
        };
        fence::refuse_fed(&ready.from, &self.from().schema).await?;
        let compared = proof::prepare(&self.ends, &self.transfer, &ready.follower, self.way(), cancel).await?;
        if let Some(sql) = ready.since.renew_sql(&self.transfer.schema, self.way()) {
            execute(&ready.records, &sql).await?;
        }
        if was_lossy {
            execute(&ready.records, &state::lossless_sql(&self.transfer.schema)).await?;
        }
        if self.to == Side::Target {
            refresh(&ready.onto, &self.onto().schema).await?;
        }
        fence::install(&ready.from).await?;
        fence::install(&ready.onto).await?;
        for session in [&ready.from, &ready.onto] {
            ledger::hold(session, &how.run, how.epoch, &how.operator).await.map_err(PgError::into_step_error)?;
        }
        // What came in while both sides were compared.
        ready.follower.caught_up(self.way(), how.asked.catch_up, cancel).await?;
        self.ready = Some(ready);
        self.evidence = std::mem::take(&mut self.evidence).fact("compared_before", compared);
        Ok(())
    }

    /// The fence of this transfer in this crossing: several schemas of one database have one each.
    fn fence_id(&self, how: &How) -> String {
        format!("{}.{}", how.id, self.transfer.schema)
    }

    fn ready(&mut self) -> Result<&mut Ready, StepError> {
        self.ready.as_mut().ok_or_else(|| StepError::failed("crossing", "the crossing was not prepared"))
    }

    pub async fn fence(&mut self, how: &How, cancel: &Cancel) -> Result<(), StepError> {
        let [before, during, _] = self.phases();
        let (from, onto) = (self.from().clone(), self.onto().clone());
        let schema = self.transfer.schema.clone();
        let id = self.fence_id(how);
        let begun = Instant::now();
        let ready = self.ready()?;
        let recorded = phase_if(&schema, during, Some(&id), &is_at(before));
        execute(&ready.records, &format!("{}; {recorded}", how.assert())).await?;
        let message = how.asked.message.clone().unwrap_or_else(|| {
            format!("table {{table}} was cut over to schema {} of {}: write there", onto.schema, onto.name)
        });
        let wish = Fence {
            id,
            schema: from.schema,
            message,
            patience: how.patience(),
            run: Some(how.run.clone()),
            operator: how.operator.clone(),
            trial_as: how.asked.trial_as.clone(),
            assert: Some(how.assert()),
            ..Fence::default()
        };
        let fenced = fence::fence(&ready.from, &wish, cancel).await.map_err(|error| error.at(&from.name))?;
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.marker = fenced.marker;
        let evidence = std::mem::take(&mut self.evidence);
        self.evidence = evidence
            .fact("fence_us", took)
            .fact("fenced_tables", fenced.tables.clone())
            .fact("fenced_at", fenced.at.clone())
            .fact("marker", fenced.marker.to_string())
            .fact("locked_us", u64::try_from(fenced.locked_for.as_micros()).unwrap_or(u64::MAX))
            .fact("no_writer_left", fenced.proof.facts());
        Ok(())
    }

    pub async fn settle(&mut self, how: &How) -> Result<(), StepError> {
        let way = self.way();
        let (from, onto) = (self.from().clone(), self.onto().clone());
        let (id, marker) = (self.fence_id(how), self.marker);
        let (ends, transfer) = (self.ends.clone(), self.transfer.clone());
        let ready = self.ready()?;

        let begun = Instant::now();
        // Comparing all rows took its time: what was made meanwhile, and a table that was filled, is behind the fence too.
        let unchanged = ready.since.refuse_changed(&ready.from, &ends, &transfer, way);
        let drained = async {
            ready.follower.fenced(way, &id, marker).await?;
            Ok(begun.elapsed())
        };
        let (drained, ()) = tokio::try_join!(drained, unchanged)?;
        let wanted = positions(&ready.from, &from.schema).await.map_err(PgError::into_step_error)?;
        let set = set_positions(&ready.onto, &onto.schema, &wanted).await.map_err(PgError::into_step_error)?;

        let begun = Instant::now();
        let proven = proof::settle(&ready.follower, way, how.asked.parity == super::Parity::Full).await?;
        let compared = begun.elapsed();
        // Before anybody writes there, and within the budget: from now on the other way's changes are what may differ. Where this
        // crossing is undone, the next one says so again.
        if ready.follower.ways().any(|followed| followed == other(way)) {
            proof::turn(&ready.follower, other(way)).await?;
        }
        let evidence = std::mem::take(&mut self.evidence);
        self.evidence = evidence
            .fact("drain_us", u64::try_from(drained.as_micros()).unwrap_or(u64::MAX))
            .fact("sequences", serde_json::to_value(&set).expect("names and numbers"))
            .fact("parity_us", u64::try_from(compared.as_micros()).unwrap_or(u64::MAX))
            .fact("parity", proven);
        Ok(())
    }

    pub async fn open(&mut self, how: &How, cancel: &Cancel) -> Result<Evidence, StepError> {
        let [_, _, after] = self.phases();
        let (to, onto) = (self.to, self.onto().clone());
        let (schema, id) = (self.transfer.schema.clone(), self.fence_id(how));
        let ready = self.ready()?;
        let phase = phase_if(&schema, after, None, &is_mine(&id));
        // Where the records are is where the target's fence is: both in one transaction. The source's fence is lifted
        // before it is recorded: a crash between finds it lifted, which settles the question.
        let lift = Lift {
            schema: &onto.schema,
            by: &how.operator,
            patience: how.patience(),
            assert: Some(how.assert()),
            record: (to == Side::Target).then(|| phase.clone()),
            ..Lift::default()
        };
        let lifted = fence::unfence(&ready.onto, &lift, cancel).await.map_err(|error| error.at(&onto.name))?;
        if to == Side::Source {
            // The side is open: whatever happens now, the other one stays fenced, and the next attempt records it.
            execute(&ready.records, &format!("{}; {phase}", how.assert())).await.map_err(|error| {
                StepError::in_doubt(
                    "unrecorded",
                    format!(
                        "the {} takes the writes of {schema}, which could not be recorded: {}",
                        to.word(),
                        error.message
                    ),
                )
            })?;
        }
        let evidence = std::mem::take(&mut self.evidence);
        Ok(evidence.fact("opened_tables", lifted.tables))
    }

    pub async fn undo(&mut self, how: &How) -> Result<(), StepError> {
        let [before, ..] = self.phases();
        let name = format!("pgrunbook:{}:crossing-undo", how.run);
        let id = self.fence_id(how);
        // The crossing's own sessions may be in the middle of a statement.
        let from = self.from().session(&name).await?;
        let assert = Some(how.assert());
        let lift = Lift { schema: &self.from().schema, id: Some(&id), by: &how.operator, assert, ..Lift::default() };
        fence::unfence(&from, &lift, &Cancel::default()).await.map_err(|error| error.at(&self.from().name))?;
        let records = self.ends.target.session(&name).await?;
        // One that another process has settled is left as it is.
        let recorded = format!("{} AND {}", state::phase_sql(&self.transfer.schema, before, None), is_mine(&id));
        execute(&records, &format!("{}; {recorded}", how.assert())).await
    }
}

/// Settles a crossing that a crash cut short. The other side was opened, or it was not: that side says which.
pub async fn recover(
    workplace: &Workplace,
    target: &str,
    transfer: &Transfer,
    id: &str,
    by: &Owner<'_>,
    records: &Session,
) -> Result<(), StepError> {
    let ends = Ends::of(workplace, target, transfer)?;
    let name = format!("pgrunbook:{}:recover", by.run);
    let to = if transfer.phase == Phase::Forth { Side::Target } else { Side::Source };
    let (from, onto, before, after) = match to {
        Side::Target => (&ends.source, &ends.target, Phase::Following, Phase::Switched),
        Side::Source => (&ends.target, &ends.source, Phase::Switched, Phase::Following),
    };
    let (from_session, onto_session) = (from.session(&name).await?, onto.session(&name).await?);
    for session in [&from_session, &onto_session] {
        by.take(session).await?;
    }
    // Forth, the phase is recorded as the target is opened. Back, the source is opened first.
    let is_fenced = |standing: &fence::Standing| !matches!(standing, fence::Standing::Unfenced);
    let opened = match to {
        Side::Target => false,
        Side::Source => {
            let fenced_from =
                is_fenced(&fence::state(&from_session, &from.schema).await.map_err(PgError::into_step_error)?);
            fenced_from
                && !is_fenced(&fence::state(&onto_session, &onto.schema).await.map_err(PgError::into_step_error)?)
        }
    };
    let phase = if opened {
        after
    } else {
        let lift = Lift { schema: &from.schema, id: Some(id), by: "recovery", ..Lift::default() };
        match fence::unfence(&from_session, &lift, &Cancel::default()).await {
            Ok(_) => {}
            Err(error) => return Err(error.at(&from.name)),
        }
        before
    };
    execute(records, &format!("{} AND {}", state::phase_sql(&transfer.schema, phase, None), is_mine(id))).await
}

/// Materialized views show what they showed when they were made. Before the freeze, since it takes as long as there is data.
async fn refresh(session: &Session, schema: &str) -> Result<(), StepError> {
    // One that reads another comes after it.
    let views =
        session.simple(&POPULATED.replace("{schema}", &state::text(schema))).await.map_err(PgError::into_step_error)?;
    let rows = views.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    for name in rows.into_iter().filter_map(|row| row.into_iter().next().flatten()) {
        execute(session, &format!("REFRESH MATERIALIZED VIEW {}.{}", ident(schema), ident(&name))).await?;
    }
    Ok(())
}

async fn execute(session: &Session, sql: &str) -> Result<(), StepError> {
    state::write(session, sql).await.map_err(PgError::into_step_error)
}
