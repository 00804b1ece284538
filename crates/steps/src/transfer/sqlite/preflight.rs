//! Everything that is known of a file before anything is changed: its profile, the mapping, and all findings at once.
//!
//! Every value is looked at before the load, although the load looks at each again: the findings must come all at once and
//! before the target is touched. The check of the pages is one long job: rows are read beside it.

use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::catalog::Origin;
use super::choice::{Choice, Choices};
use super::error::SqliteError;
use super::image::{self, Image, Seen};
use super::load::Plan;
use super::map::{Mapping, propose};
use super::open::open_live;
use super::profile::{Profile, profile};
use super::prove::{Proofs, prove};
use super::structure::{Structure, structure};
use crate::transfer::finding::{Finding, Severity};

/// A file that was looked at.
#[derive(Debug, Clone)]
pub struct Preflight {
    pub profile: Profile,
    pub mapping: Mapping,
    pub structure: Structure,
    pub proofs: Proofs,
    pub findings: Vec<Finding>,
}

impl Preflight {
    /// What the load needs of it.
    pub fn plan(&self) -> Plan {
        Plan {
            catalog: self.profile.catalog.clone(),
            mapping: self.mapping.clone(),
            structure: self.structure.clone(),
            bytes: self.mapping.tables.iter().map(|map| self.profile.tables[map.source].bytes()).collect(),
        }
    }
}

/// Where the rows of a file are read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reading<'a> {
    /// In the file itself, beside those who write to it.
    Live(&'a Path),
    Image(&'a Image),
}

/// A connection to it.
pub(super) enum Reader<'a> {
    Live(Connection),
    Image(Seen<'a>),
}

impl Deref for Reader<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Live(connection) => connection,
            Self::Image(seen) => seen,
        }
    }
}

impl<'a> Reading<'a> {
    /// What messages name.
    pub fn file(self) -> &'a Path {
        match self {
            Self::Live(path) => path,
            Self::Image(image) => image.source(),
        }
    }

    pub fn open(self) -> Result<Reader<'a>, SqliteError> {
        Ok(match self {
            Self::Live(path) => Reader::Live(open_live(path)?),
            Self::Image(image) => Reader::Image(image.open()?),
        })
    }
}

/// Reads the file twice at most, in several threads, and changes nothing. Blocking.
///
/// # Errors
/// If the file cannot be read as it is, or the choices name what is not in it.
pub fn preflight(path: &Path, choices: &Choices, schema: &str, readers: usize) -> Result<Preflight, SqliteError> {
    look(Reading::Live(path), choices, schema, readers)
}

fn look(reading: Reading<'_>, choices: &Choices, schema: &str, readers: usize) -> Result<Preflight, SqliteError> {
    let is_date =
        |table: &str, column: &str| matches!(choices.column(table, column), Some(Choice::Moment { .. } | Choice::Date));
    let profile = profile(reading, readers, &is_date)?;
    let mut mapping = propose(&profile, choices)?;
    let proofs = prove(reading, &profile, &mapping, readers)?;
    let mut findings = skipped(&profile, choices);
    findings.extend(misfits(&mapping, &proofs));
    findings.extend(respelled_keys(&profile, &mapping, &proofs));
    let (structure, more) = structure(&profile, &mut mapping, schema);
    findings.extend(more);
    Ok(Preflight { profile, mapping, structure, proofs, findings })
}

/// Takes the file's image for so many readers and looks at that: what is looked at is what will be loaded. Blocking.
///
/// # Errors
/// As [`preflight`] and [`image::take`].
pub fn preflight_with_image(
    path: &Path,
    choices: &Choices,
    schema: &str,
    readers: usize,
    folder: &Path,
    budget: Duration,
) -> Result<(Preflight, Image), SqliteError> {
    // One more for what is asked beside the rows.
    let image = image::take(path, folder, readers + 1, budget)?;
    let looked = look(Reading::Image(&image), choices, schema, readers)?;
    Ok((looked, image))
}

/// What the step leaves out: said again, so that it is seen where people look.
fn skipped(profile: &Profile, choices: &Choices) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (table, stats) in profile.catalog.tables.iter().zip(&profile.tables) {
        if choices.skips_table(&table.name) {
            let what = format!("is skipped with its {} rows, as [map] says", stats.rows);
            findings.push(
                Finding::new(Severity::Consent("skip"), "skipped", format!("table {}", table.name), what)
                    .remedy("accept `skip`"),
            );
            continue;
        }
        for (column, stats) in table.columns.iter().zip(&stats.columns) {
            if choices.column(&table.name, &column.name) == Some(Choice::Skip) {
                let object = format!("column {}.{}", table.name, column.name);
                let what = format!("is skipped with its {} values, as [map] says", stats.values());
                findings.push(Finding::new(Severity::Consent("skip"), "skipped", object, what).remedy("accept `skip`"));
            }
        }
    }
    findings
}

fn misfits(mapping: &Mapping, proofs: &Proofs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ((table, column), proof) in proofs {
        let map = &mapping.tables[*table];
        let column = &map.columns[*column];
        let object = format!("column {}.{}", map.name, column.name);
        for (code, misfits) in &proof.misfits {
            let what = format!(
                "becomes {}, and {} of {} values do not fit: what {}",
                column.kind.sql_type(),
                misfits.count,
                proof.values,
                misfits.why
            );
            let key = format!("{}.{}", map.name, column.name);
            let remedy =
                format!("correct the rows, or give it another type in [map]: \"{key}\" = \"text\", or \"skip\"");
            let finding = Finding::new(Severity::Refuse, code, object.clone(), what).remedy(remedy);
            findings.push(finding.excerpt(misfits.examples.join("; ")));
        }
        if proof.respelled > 0 {
            let what = format!(
                "{} of {} values keep their value and would be spelled otherwise if they were written back",
                proof.respelled, proof.values
            );
            findings.push(
                Finding::new(Severity::Warn, "respelled", object, what)
                    .remedy("rows that nobody changes stay as they are"),
            );
        }
    }
    findings
}

/// Values that come back as they were cannot have become equal; of the others in a unique key nobody knows yet.
fn respelled_keys(profile: &Profile, mapping: &Mapping, proofs: &Proofs) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ((table, column), proof) in proofs.iter().filter(|(_, proof)| proof.respelled > 0) {
        let map = &mapping.tables[*table];
        let column = &map.columns[*column];
        let source = &profile.catalog.tables[map.source];
        let in_unique = source.indexes.iter().any(|index| {
            (index.is_unique || index.origin == Origin::PrimaryKey)
                && index.terms.iter().any(|term| term.what == super::catalog::TermOf::Column(column.source))
        });
        if in_unique || source.key.contains(&column.source) {
            let what = format!(
                "is part of a unique key, and {} values have several spellings: two of them may be one value as {}",
                proof.respelled,
                column.kind.sql_type()
            );
            let key = format!("{}.{}", map.name, column.name);
            findings.push(
                Finding::new(Severity::Refuse, "key-respelled", format!("column {key}"), what)
                    .remedy(format!("\"{key}\" = \"text\" in [map]")),
            );
        }
    }
    findings
}
