//! Parity of a transfer whose source is written all the while: exact, and in the freeze only as long as what changed last.
//!
//! # Why it proves equality
//!
//! Let `S` be a snapshot of the source, `L` a position read after `S` was taken, and `T` a snapshot of the target that is
//! taken while the applier stands still between two transactions, having applied exactly the transactions whose commits end
//! at or before a position `P`, with `P >= L`. Nothing else writes the target's tables.
//!
//! 1. A transaction that `S` sees had written its commit record before it became visible, so its commit is at or before `L`,
//!    hence at or before `P`: `T` holds its changes.
//! 2. Of the transactions that `T` holds and `S` does not see, the stream names every changed key. The caller gives these
//!    keys ([`Aligned::unseen`]); whether `S` sees a transaction is decided by its number ([`Snapshot::sees`]), never by
//!    comparing positions: a commit record may be written long before its transaction becomes visible (synchronous standbys).
//! 3. For any other key, `S` and `T` rest on the same transactions in the same order. So a key outside of (2) that is equal
//!    in `S` and `T` *was copied and applied rightly up to P*, and one that is not was not: no false alarm, and nothing missed.
//! 4. The keys of (2), and every key that is changed behind `P`, are dirty ([`Reader::note`]). A key that is not dirty was
//!    equal at an aligned position, and neither side has changed it since. So when the writers are fenced, and the applier has
//!    applied the fence's marker, both sides are equal if and only if they are equal in the dirty keys, and hold no others:
//!    a row that the target has too many was seen in the last base pass, or its key is dirty.
//!
//! What it rests on: the target has no other writer; an old key is in the stream whenever the compared key changes (checked
//! for each relation); and the sums of hashes, 128 bits for each part of a table, which two unlike parts share by chance with a
//! probability of about 2^-128.
//!
//! Counts need no scan: the rows that `T` held, plus one for each insert and minus one for each delete behind `P`
//! ([`Prover::rows`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use pgrunbook_postgres::pgoutput::Change;
use pgrunbook_postgres::{Lsn, Snapshot};

use super::compare::{Ask, Place, TableParity, matched, table};
use super::dirty::{Dirty, touched};
use super::error::ParityError;
use super::keys::{self, AT_ONCE, Keys};
use super::pair::{Finding, Pair, Which};
use super::rows::Skip;
use super::side::Side;

/// What whoever applies the stream does for an aligned look at both sides.
#[async_trait]
pub trait Aligned: Send + Sync {
    /// Waits until everything up to `lsn` of the source is applied, then holds the applier still between two transactions.
    /// The answer is how far it has applied. By then every change up to there was noted ([`Reader::note`]).
    async fn pause_behind(&self, lsn: Lsn) -> Result<Lsn, ParityError>;

    /// What the transactions changed that are applied and that `seen` does not see, noted into a set of its own.
    ///
    /// It must look back as far as there are transactions that a snapshot taken before [`Aligned::pause_behind`] may not see:
    /// all that the spool holds is always enough.
    async fn unseen(&self, seen: &Snapshot) -> Result<Dirty, ParityError>;

    /// Lets the applier go on. Always called after a call of [`Aligned::pause_behind`], also when it failed.
    async fn resume(&self);
}

/// Says which keys a change touches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader(Arc<Vec<Arc<Pair>>>);

impl Reader {
    /// Notes what a change touched. To be called for each change that is applied, before it is committed at the target. A
    /// table whose compared key the stream does not tell is compared whole.
    ///
    /// # Errors
    /// If the set cannot be kept.
    pub fn note(&self, dirty: &Dirty, change: &Change) -> Result<(), ParityError> {
        for pair in self.0.iter() {
            match touched(pair, change) {
                Ok(Some(touched)) => dirty.note(&pair.name, touched)?,
                Ok(None) => {}
                Err(ParityError::KeyText { .. } | ParityError::NoKey { .. }) => dirty.mark_whole(&pair.name),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Both sides of a transfer, with sessions that are kept: a look in the freeze begins with no login and reads no catalog.
pub struct Prover {
    sides: [Side; 2],
    pairs: Arc<Vec<Arc<Pair>>>,
    findings: Vec<Finding>,
    shown: usize,
    /// Rows of each table at the target, as of what was taken out of the dirty set last.
    rows: BTreeMap<String, i64>,
}

/// What an aligned look found.
#[derive(Debug, Clone)]
pub struct Pass {
    pub tables: Vec<TableParity>,
    /// Of the source's snapshot.
    pub source: Option<Lsn>,
    /// How far the applier had come when the target was looked at.
    pub applied: Option<Lsn>,
}

impl Pass {
    /// Whether all that was compared is the same.
    pub fn holds(&self) -> bool {
        self.tables.iter().all(TableParity::holds)
    }
}

impl Prover {
    /// Opens both sides: the source first.
    ///
    /// # Errors
    /// [`ParityError`] if a side cannot be read.
    pub async fn open(places: [&Place; 2], ask: &Ask<'_>) -> Result<Self, ParityError> {
        let open = |which, place| Side::open(which, place, ask.jobs, ask.application_name);
        let (a, b) = tokio::try_join!(open(Which::A, places[0]), open(Which::B, places[1]))?;
        let sides = [a, b];
        let (pairs, findings) = matched(&sides, ask.tables, ask.exclude).await?;
        Ok(Self { sides, pairs: Arc::new(pairs), findings, shown: ask.shown, rows: BTreeMap::new() })
    }

    /// What differs before a row is read.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What notes the changes of the stream.
    pub fn reader(&self) -> Reader {
        Reader(Arc::clone(&self.pairs))
    }

    /// Gives up both snapshots, so that the servers can clean up: between two looks.
    ///
    /// # Errors
    /// If a session was lost.
    pub async fn rest(&self) -> Result<(), ParityError> {
        tokio::try_join!(self.sides[0].end(), self.sides[1].end())?;
        Ok(())
    }

    /// Compares everything, while the source is written. `dirty` is the set that the applied changes are noted in; afterwards
    /// it holds what must still be looked at.
    ///
    /// # Errors
    /// [`ParityError`] if a look was not possible; the set then holds what it held.
    pub async fn base_pass(&mut self, aligned: &dyn Aligned, dirty: &Dirty) -> Result<Pass, ParityError> {
        let (look, taken, unseen) = self.align(aligned, dirty).await?;
        let found = self.all(&unseen).await;
        match found {
            Ok(tables) => {
                for table in &tables {
                    self.rows.insert(table.name.clone(), table.rows_of_b());
                    if !table.holds() {
                        // Not all of its rows are listed: only the whole can say that it was put right.
                        dirty.mark_whole(&table.name);
                    }
                }
                dirty.add_keys(&unseen)?;
                Ok(Pass { tables, ..look })
            }
            Err(error) => {
                dirty.absorb(&taken)?;
                Err(error)
            }
        }
    }

    /// Looks again at dirty keys while the source is written, and takes out of the set what is equal.
    ///
    /// # Errors
    /// As [`Prover::base_pass`].
    pub async fn recheck(&mut self, aligned: &dyn Aligned, dirty: &Dirty) -> Result<Pass, ParityError> {
        let (look, taken, unseen) = self.align(aligned, dirty).await?;
        for (table, rows) in &mut self.rows {
            *rows += taken.rows(table);
        }
        let found = self.dirty_keys(&taken, Some(&unseen)).await;
        match found {
            Ok((tables, left)) => {
                for table in tables.iter().filter(|table| taken.is_whole(&table.name)) {
                    self.rows.insert(table.name.clone(), table.rows_of_b());
                }
                dirty.add_keys(&left)?;
                dirty.add_keys(&unseen)?;
                Ok(Pass { tables, ..look })
            }
            Err(error) => {
                dirty.add_keys(&taken)?;
                Err(error)
            }
        }
    }

    /// In the freeze: the writers are fenced and the marker is applied, so both sides stand still, and the dirty keys decide.
    /// A table that must be looked at whole is.
    ///
    /// # Errors
    /// [`ParityError`] if a look was not possible.
    pub async fn settle(&mut self, dirty: &Dirty) -> Result<Pass, ParityError> {
        let [a, b] = &mut self.sides;
        tokio::try_join!(a.renew(), b.renew())?;
        let (tables, _) = self.dirty_keys(dirty, None).await?;
        Ok(Pass { tables, source: self.sides[0].seen().lsn, applied: None })
    }

    /// Has everything compared by the next [`Prover::settle`].
    pub fn mark_all(&self, dirty: &Dirty) {
        self.pairs.iter().for_each(|pair| dirty.mark_whole(&pair.name));
    }

    /// Compares the rows of these keys, in both sides' present snapshots; `renew` first where they must be new.
    ///
    /// # Errors
    /// If there is no such table, or it has no key.
    pub async fn compare_keys(&self, table: &str, keys: &Keys) -> Result<TableParity, ParityError> {
        let pair = self.pairs.iter().find(|pair| pair.name == table);
        let pair = pair.ok_or_else(|| ParityError::NoTable(table.to_owned()))?;
        if pair.key_len == 0 {
            return Err(ParityError::NoKey { table: table.to_owned() });
        }
        keys::compare(&self.sides, pair, keys, self.shown).await
    }

    /// Takes new snapshots of both sides.
    ///
    /// # Errors
    /// If a session was lost.
    pub async fn renew(&mut self) -> Result<(), ParityError> {
        let [a, b] = &mut self.sides;
        tokio::try_join!(a.renew(), b.renew())?;
        Ok(())
    }

    /// How many rows the target has in a table, counted from the last base pass on by the changes. None before there was
    /// one, or where the table was truncated since.
    pub fn rows(&self, table: &str, dirty: &Dirty) -> Option<i64> {
        if dirty.is_whole(table) {
            return None;
        }
        Some(self.rows.get(table)? + dirty.rows(table))
    }

    /// Takes both snapshots. What was noted up to the target's is taken out of the set.
    async fn align(&mut self, aligned: &dyn Aligned, dirty: &Dirty) -> Result<(Pass, Dirty, Dirty), ParityError> {
        self.sides[0].renew().await?;
        let seen = self.sides[0].seen();
        let (Some(lsn), Some(snapshot)) = (seen.lsn, seen.snapshot) else {
            return Err(ParityError::Aligned("a file has no positions: compare it while it is locked".to_owned()));
        };
        let visible = Snapshot::parse(&snapshot).map_err(|error| ParityError::Aligned(error.to_string()))?;
        let looked = self.while_paused(aligned, dirty, lsn, &visible).await;
        aligned.resume().await;
        let (applied, taken, unseen) = looked?;
        Ok((Pass { tables: Vec::new(), source: Some(lsn), applied: Some(applied) }, taken, unseen))
    }

    async fn while_paused(
        &mut self,
        aligned: &dyn Aligned,
        dirty: &Dirty,
        lsn: Lsn,
        visible: &Snapshot,
    ) -> Result<(Lsn, Dirty, Dirty), ParityError> {
        let applied = aligned.pause_behind(lsn).await?;
        if applied < lsn {
            return Err(ParityError::Aligned(format!("the applier stopped at {applied}, before {lsn}")));
        }
        self.sides[1].renew().await?;
        let unseen = aligned.unseen(visible).await?;
        Ok((applied, dirty.take(), unseen))
    }

    async fn all(&self, unseen: &Dirty) -> Result<Vec<TableParity>, ParityError> {
        let mut tables = Vec::new();
        for pair in self.pairs.iter() {
            // Truncated in between: nothing can be said of it before the next look.
            if !unseen.is_whole(&pair.name) {
                tables.push(table(&self.sides, pair, self.shown, &skip(pair, unseen)?).await?);
            }
        }
        Ok(tables)
    }

    /// Compares what is dirty, but for what `without` names. What is not equal is left, and told of.
    async fn dirty_keys(
        &self,
        dirty: &Dirty,
        without: Option<&Dirty>,
    ) -> Result<(Vec<TableParity>, Dirty), ParityError> {
        let left = dirty.like();
        let mut tables = Vec::new();
        for pair in self.pairs.iter() {
            let name = &pair.name;
            if without.is_some_and(|without| without.is_whole(name)) {
                continue;
            }
            if dirty.is_whole(name) {
                let none = Skip::default();
                let skip = without.map_or(Ok(none), |without| skip(pair, without))?;
                let found = table(&self.sides, pair, self.shown, &skip).await?;
                if !found.holds() {
                    left.mark_whole(name);
                }
                tables.push(found);
                continue;
            }
            let mut sum: Option<TableParity> = None;
            let mut after = None;
            loop {
                let some = dirty.keys(name, after.as_deref(), AT_ONCE)?;
                let Some(last) = some.iter().last() else { break };
                after = Some(last.to_vec());
                let mut clear = Keys::default();
                for key in some.iter() {
                    if !without.map_or(Ok(false), |without| without.has(name, key))? {
                        clear.push(key);
                    }
                }
                let found = keys::compare(&self.sides, pair, &clear, self.shown).await?;
                if !found.holds() {
                    left.note_keys(name, &clear)?;
                }
                match &mut sum {
                    Some(sum) => sum.merge(found, self.shown),
                    None => sum = Some(found),
                }
            }
            tables.extend(sum);
        }
        Ok((tables, left))
    }
}

fn skip(pair: &Pair, unseen: &Dirty) -> Result<Skip, ParityError> {
    if unseen.len(&pair.name)? == 0 {
        return Ok(Skip::default());
    }
    let (unseen, name) = (unseen.clone(), pair.name.clone());
    Ok(Skip(Some(Arc::new(move |key| unseen.has(&name, key)))))
}
