//! A sync by noted keys: reads what was noted, ships it, forgets it; and what that proves.

use std::time::{Duration, Instant};

use pgrunbook_engine::StepError;
use pgrunbook_postgres::PgError;
use pgrunbook_postgres::rowhash::RowSum;
use serde_json::json;

use super::catalog::data_version;
use super::diff::Diff;
use super::error::SqliteError;
use super::notes::{self, Noted, Read, Trail};
use super::shape::{self, declared};
use super::ship::Size;
use super::sync::{Feed, Found, Synced, begin_own, end_own};
use crate::transfer::state;

/// How often all rows are compared before notes that are in doubt each time are given up.
const TRIES: usize = 2;

/// How long a writer may keep us from setting triggers, or from forgetting what was shipped.
const WRITER: Duration = Duration::from_secs(5);

/// What is known where triggers note the keys of changed rows.
#[derive(Default)]
pub(super) struct Noting {
    /// What was set, and how far it is shipped; nothing if that is in doubt.
    pub trail: Option<Trail>,
    /// Sums over the rows of the target, kept up from a comparison of all rows on.
    pub sums: Option<Vec<RowSum>>,
    /// All rows were compared, and the notes had named every one that differed.
    pub proven: Option<Proven>,
}

/// A comparison of all rows, while writers were at work.
#[derive(Debug, Clone)]
pub(super) struct Proven {
    rows: u64,
    took: Duration,
    /// Keys that were noted since, and compared again.
    since: u64,
}

/// What a look at the notes brought.
pub(super) enum LookedAtNotes {
    Same,
    Doubt(String),
    Differs { version: i64, noted: Box<Noted>, diff: Diff },
}

impl Feed {
    /// Sets the triggers anew, unless this is in the freeze of a cutover, which takes them away.
    pub(super) async fn set_triggers(&mut self) -> Result<(), StepError> {
        let (shape, owner) = (self.shape.clone(), self.stream.clone());
        let set = self.on(move |connection, path| match connection.is_autocommit() {
            true => notes::set(connection, path, &shape, &owner, WRITER).map(Some),
            false => Ok(None),
        });
        let trail = set.await?;
        self.noting = Some(Noting { trail, ..Noting::default() });
        Ok(())
    }

    /// What records how far the notes are shipped; nothing where there are none.
    pub(super) fn trail_sql(&self) -> String {
        match &self.noting {
            Some(noting) => format!("; {}", shape::trail_sql(&self.schema, noting.trail.as_ref())),
            None => String::new(),
        }
    }

    /// Reads what was noted, and how those rows differ, in the transaction that the file's connection is in.
    pub(super) async fn look_at_notes(&mut self) -> Result<LookedAtNotes, StepError> {
        let Some(noting) = &self.noting else { return Ok(LookedAtNotes::Same) };
        let (shape, trail, last) = (self.shape.clone(), noting.trail.clone(), self.version);
        let read = self.on(move |connection, path| {
            let version = data_version(connection, path)?;
            if last == Some(version) {
                return Ok(None);
            }
            let differences = shape.differences(&declared(connection, path)?);
            if !differences.is_empty() {
                return Ok(Some((version, Err(differences))));
            }
            Ok(Some((version, Ok(notes::read(connection, path, &shape, trail.as_ref())?))))
        });
        let (version, noted) = match read.await? {
            None => return Ok(LookedAtNotes::Same),
            Some((_, Err(differences))) => return Err(self.schema_changed(&differences)),
            Some((_, Ok(Read::Doubt(why)))) => return Ok(LookedAtNotes::Doubt(why)),
            Some((version, Ok(Read::Noted(noted)))) => (version, noted),
        };
        let diff = self.compare_touched(&noted.tables).await?;
        Ok(LookedAtNotes::Differs { version, noted, diff })
    }

    /// Ships what was noted, and forgets the notes; `forgets`: unless the transaction goes on in which the file was read.
    pub(super) async fn ship_noted(
        &mut self,
        version: i64,
        noted: &Noted,
        diff: &Diff,
        forgets: bool,
    ) -> Result<Synced, StepError> {
        let names = self.shape.tables.iter().zip(&noted.tables).filter(|(_, touched)| touched.whole);
        let whole = names.map(|(table, _)| table.name.clone()).collect();
        let found = Found::Noted { notes: noted.notes, keys: noted.keys(), whole };
        let (deleted, inserted) = diff.changes();
        let mut noting = self.noting.take().unwrap_or_default();
        let trail = noting.trail.take().map(|trail| Trail { epoch: noted.epoch, up_to: noted.up_to, ..trail });
        let record = format!("; {}", shape::trail_sql(&self.schema, trail.as_ref()));
        self.version = None;
        let sums = noting.sums.take();
        // Until it is certain what the target has, nothing of it is believed.
        self.noting = Some(Noting::default());
        if deleted + inserted > 0 {
            self.known = None;
            let shipped = self.ship(diff, Size::Grew(inserted, deleted), record).await?;
            noting.sums = sums.map(|mut sums| {
                for (sum, (new, gone)) in sums.iter_mut().zip(shipped.sums) {
                    sum.merge(new);
                    sum.take(gone);
                }
                sums
            });
        } else {
            noting.sums = sums;
            if noted.up_to > 0 {
                let sql = format!("SELECT 1{record}");
                state::write(&self.session, &sql).await.map_err(PgError::into_step_error)?;
            }
        }
        if let Some(proven) = &mut noting.proven {
            proven.since += noted.keys();
        }
        noting.trail = trail;
        self.noting = Some(noting);
        self.version = Some(version);
        if forgets && noted.up_to > 0 {
            self.forget(noted).await?;
        }
        Ok(Synced { deleted, inserted, found, took: Duration::ZERO })
    }

    /// Forgets notes that are shipped. A writer that does not let us is no harm: they are repeated.
    async fn forget(&mut self, noted: &Noted) -> Result<(), StepError> {
        let up_to = noted.up_to;
        let forgotten = self.on(move |connection, path| match notes::forget(connection, path, up_to, WRITER) {
            Err(SqliteError::Busy { .. }) => Ok(false),
            done => done.map(|()| true),
        });
        if !forgotten.await? {
            return Ok(());
        }
        if let Some(trail) = self.noting.as_mut().and_then(|noting| noting.trail.as_mut()) {
            *trail = Trail { epoch: noted.epoch + 1, up_to: 0, ..trail.clone() };
        }
        let sql = format!("SELECT 1{}", self.trail_sql());
        state::write(&self.session, &sql).await.map_err(PgError::into_step_error)
    }

    /// With dirty keys, and while writers are at work: compares all rows, ships what differs, and looks whether the notes had
    /// named every row of it. From then on a sync of noted keys proves that all rows are equal; or the notes are not believed,
    /// and every further sync compares all rows.
    ///
    /// # Errors
    /// As [`Feed::sync`].
    pub async fn prove(&mut self) -> Result<serde_json::Value, StepError> {
        for _ in 0..TRIES {
            if let Some(facts) = self.try_to_prove().await? {
                return Ok(facts);
            }
            // Somebody changed the schema just then: the triggers are set anew.
            self.sync().await?;
        }
        self.noting = None;
        Ok(json!({ "not_believed": "the notes were in doubt each time that all rows were to be compared" }))
    }

    async fn try_to_prove(&mut self) -> Result<Option<serde_json::Value>, StepError> {
        let begun = Instant::now();
        self.known = None;
        self.version = None;
        let known = self.known().await?;
        // Both looks are in one transaction: they see one state of the file.
        let own = self.on(begin_own).await?;
        let looked: Result<(LookedAtNotes, Diff), StepError> = async {
            let noted = self.look_at_notes().await?;
            let all = self.look(&known, None).await?;
            Ok((noted, all.map(|(_, diff)| diff).unwrap_or_default()))
        }
        .await;
        if own {
            self.on(end_own).await?;
        }
        let (looked, all) = looked?;
        let (version, noted, diff) = match looked {
            LookedAtNotes::Differs { version, noted, diff } => (version, noted, diff),
            LookedAtNotes::Same | LookedAtNotes::Doubt(_) => return Ok(None),
        };
        let unnoted = all.unlike(&diff, &self.shape);
        let rows = all.rows();
        self.ship_noted(version, &noted, &all, own).await?;
        self.known = None;
        if !unnoted.is_empty() {
            self.noting = None;
            let sql = shape::trail_sql(&self.schema, None);
            self.session.execute(&sql).await.map_err(PgError::into_step_error)?;
            let why = format!("rows of {} changed and were not noted", unnoted.join(", "));
            return Ok(Some(json!({ "rows": rows, "not_believed": why })));
        }
        if let Some(noting) = &mut self.noting {
            // Of both sides' sums over all rows, the file's is what the target has now.
            noting.sums = Some(all.tables.iter().map(|table| table.sum).collect());
            noting.proven = Some(Proven { rows, took: begun.elapsed(), since: 0 });
        }
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(Some(json!({ "rows": rows, "took_us": took })))
    }

    /// Whether it is found by notes what changed.
    pub fn is_noting(&self) -> bool {
        self.noting.is_some()
    }

    /// Whether a sync left it open that rows differ which were not noted: nobody has compared all rows since the triggers were
    /// set.
    pub fn leaves_open(&self, last: &Synced) -> bool {
        let is_proven = self.noting.as_ref().is_none_or(|noting| noting.proven.is_some());
        !is_proven && !matches!(last.found, Found::All(_))
    }

    /// On what it rests that both sides are equal after a sync, for the evidence.
    pub fn proof(&self, last: &Synced) -> serde_json::Value {
        let proven = self.noting.as_ref().and_then(|noting| noting.proven.as_ref());
        match (&last.found, proven) {
            (Found::Noted { .. } | Found::Unchanged, Some(proven)) => json!({
                "by": "all rows compared before the freeze, and since then every row whose key was noted",
                "rows_compared_before": proven.rows,
                "compared_before_in_us": u64::try_from(proven.took.as_micros()).unwrap_or(u64::MAX),
                "keys_noted_since": proven.since,
            }),
            _ => json!({ "by": "all rows of the file compared while its write lock was held" }),
        }
    }
}
