//! How a chain on disk stands to its history in the target: what is pending, and what does not fit. Pure.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use similar::TextDiff;

use super::chain::{Chain, Migration, Repeatable, normalise};
use super::layout::Version;

/// A row of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// As the file's name says it; of a repeatable file its name.
    pub version: String,
    pub name: String,
    pub repeatable: bool,
    /// Of the normalised content; `None`: it was adopted without its file, or baselined.
    pub sha256: Option<String>,
    pub state: RowState,
    /// `transaction`, `statements`, `own`; how it was run.
    pub mode: String,
    /// Statements that are certainly done, where it was run statement by statement.
    pub statements_done: u32,
    /// The run that applied it, if a runbook did.
    pub run: Option<String>,
    pub applied_by: String,
    pub applied_at: Timestamp,
    pub duration_ms: Option<i64>,
    /// Where the row comes from: `up`, `baseline`, or the tool whose history was adopted.
    pub origin: String,
    /// Order in which rows were written.
    pub seq: i64,
}

/// How far a row's script is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    Applied,
    /// Begun outside of a transaction and not finished.
    Running,
    /// Being taken back outside of a transaction, and not finished.
    Reverting,
}

impl RowState {
    /// As the table keeps it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Running => "running",
            Self::Reverting => "reverting",
        }
    }
}

/// Something in the history that does not fit the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// An applied file has other content now. `diff` is unified, if the history kept the content.
    Edited { version: String, name: String, diff: Option<String> },
    /// An applied file is gone.
    Deleted { version: String, name: String, applied_at: Timestamp },
    /// An applied file has another version now.
    Moved { from: String, to: String, name: String },
    /// An applied file has another name now; harmless.
    Renamed { version: String, from: String, to: String },
    /// A file that is not applied stands before one that is.
    OutOfOrder { version: String, name: String, newest: String },
    /// The history is ahead of the files: an older checkout.
    Ahead { version: String, name: String },
    /// A file was begun outside of a transaction and not finished.
    Unfinished { version: String, name: String, mode: String, statements_done: u32 },
}

impl Finding {
    /// Stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Edited { .. } => "edited",
            Self::Deleted { .. } => "deleted",
            Self::Moved { .. } => "moved",
            Self::Renamed { .. } => "renamed",
            Self::OutOfOrder { .. } => "out-of-order",
            Self::Ahead { .. } => "ahead",
            Self::Unfinished { .. } => "unfinished",
        }
    }

    /// Whether nothing may be applied before it is settled.
    pub fn blocks(&self) -> bool {
        match self {
            Self::Edited { .. } | Self::Deleted { .. } | Self::Moved { .. } | Self::OutOfOrder { .. } => true,
            Self::Ahead { .. } => true,
            Self::Renamed { .. } | Self::Unfinished { .. } => false,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Edited { version, .. } => format!(
                "put the file back as it was and write the change as a new migration; if only comments or layout \
                 changed, `pgrunbook migrate baseline --accept {version}` takes the new content for the old"
            ),
            Self::Deleted { version, .. } => format!(
                "bring the file back from version control; if it was folded into another on purpose, `pgrunbook \
                 migrate baseline --forget {version}` drops its row"
            ),
            Self::Moved { from, to, .. } => {
                format!(
                    "give the file its version {from} back, or if it was never applied elsewhere, `pgrunbook migrate baseline --forget {from}` and `--accept {to}`"
                )
            }
            Self::Renamed { .. } => "nothing: the name in the history follows with the next migration".to_owned(),
            Self::OutOfOrder { newest, .. } => format!(
                "give it a version after {newest}; or if it depends on nothing that came later, allow it with \
                 `out_of_order = true` (`--out-of-order`)"
            ),
            Self::Ahead { .. } => "update the checkout to the one that was applied".to_owned(),
            Self::Unfinished { mode, .. } if mode == "own" => {
                "look at what it did, then say so: `pgrunbook migrate resume --decide done` or `again`".to_owned()
            }
            Self::Unfinished { .. } => "`pgrunbook migrate resume` (or `up`) goes on where it stopped".to_owned(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited { version, name, .. } => {
                write!(f, "{version} {name} was edited after it had been applied")
            }
            Self::Deleted { version, name, applied_at } => {
                write!(f, "{version} {name} was applied at {applied_at}, and its file is gone")
            }
            Self::Moved { from, to, name } => {
                write!(f, "{name} was applied as version {from}, and its file is {to} now")
            }
            Self::Renamed { version, from, to } => write!(f, "{version} was applied as {from} and is called {to} now"),
            Self::OutOfOrder { version, name, newest } => {
                write!(f, "{version} {name} is not applied, and {newest}, which comes after it, is")
            }
            Self::Ahead { version, name } => {
                write!(f, "{version} {name} is applied, and these files end before it: an older checkout?")
            }
            Self::Unfinished { version, name, statements_done, .. } => {
                let count = if *statements_done == 1 { "statement" } else { "statements" };
                write!(f, "{version} {name} was begun and not finished: {statements_done} {count} done")
            }
        }
    }
}

/// How a chain stands.
#[derive(Debug, Clone, Default)]
pub struct Standing<'a> {
    /// Not applied yet, in order; of a chain's `to` nothing is known here.
    pub pending: Vec<&'a Migration>,
    /// Changed since they were applied last, or new.
    pub repeatable: Vec<&'a Repeatable>,
    /// Applied versions, in order of version.
    pub applied: Vec<Row>,
    pub findings: Vec<Finding>,
    /// The highest applied version.
    pub newest: Option<Version>,
}

impl Standing<'_> {
    /// The findings that keep the chain from going on.
    pub fn blocking(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.blocks())
    }
}

/// Compares.
///
/// `content` gives the content that the history kept of a version, if it did: asked only for edited files.
pub fn compare<'a>(chain: &'a Chain, rows: &[Row], content: impl Fn(&str) -> Option<String>) -> Standing<'a> {
    let mut standing = Standing::default();
    let (repeatable, versioned): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.repeatable);
    let mut rows_by_version: BTreeMap<Version, &Row> = BTreeMap::new();
    let mut unreadable = Vec::new();
    for row in versioned {
        match Version::parse(&row.version) {
            Some(version) => drop(rows_by_version.insert(version, row)),
            // Alembic's identifiers are no numbers.
            None => unreadable.push(row),
        }
    }
    standing.newest = rows_by_version
        .iter()
        .rev()
        .find(|(_, row)| row.state == RowState::Applied)
        .map(|(version, _)| version.clone());
    let last_file = chain.migrations.last().map(|migration| &migration.version);
    let baseline = rows_by_version.iter().rev().find(|(_, row)| row.origin == "baseline").map(|(version, _)| version);

    for migration in &chain.migrations {
        match rows_by_version.get(&migration.version) {
            None if baseline.is_some_and(|baseline| migration.version <= *baseline) => {}
            None => {
                if let Some(newest) = &standing.newest
                    && migration.version < *newest
                {
                    standing.findings.push(Finding::OutOfOrder {
                        version: migration.version.to_string(),
                        name: migration.name.clone(),
                        newest: newest.to_string(),
                    });
                }
                standing.pending.push(migration);
            }
            Some(row) => standing.findings.extend(look(migration, row, &content)),
        }
        if rows_by_version.get(&migration.version).is_some_and(|row| row.state == RowState::Running) {
            standing.pending.push(migration);
        }
    }
    for (version, row) in &rows_by_version {
        if chain.find(version).is_some() || row.origin == "baseline" {
            continue;
        }
        let same = standing.pending.iter().find(|pending| row.sha256.as_ref() == Some(&pending.up.sha256));
        standing.findings.push(match same {
            Some(moved) => {
                Finding::Moved { from: row.version.clone(), to: moved.version.to_string(), name: row.name.clone() }
            }
            None if last_file.is_some_and(|last| version > last) => {
                Finding::Ahead { version: row.version.clone(), name: row.name.clone() }
            }
            None => {
                Finding::Deleted { version: row.version.clone(), name: row.name.clone(), applied_at: row.applied_at }
            }
        });
    }
    // A file that only moved is not also out of order.
    let moved: Vec<String> = standing
        .findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Moved { to, .. } => Some(to.clone()),
            _ => None,
        })
        .collect();
    standing.findings.retain(|finding| match finding {
        Finding::OutOfOrder { version, .. } => !moved.contains(version),
        _ => true,
    });

    for file in &chain.repeatable {
        let row = repeatable.iter().find(|row| row.version == file.name);
        if row.is_none_or(|row| row.sha256.as_ref() != Some(&file.script.sha256) || row.state != RowState::Applied) {
            standing.repeatable.push(file);
        }
    }
    standing.applied = rows_by_version.into_values().chain(unreadable).cloned().collect();
    standing
}

fn look(migration: &Migration, row: &Row, content: &impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let version = migration.version.to_string();
    if row.state != RowState::Applied {
        findings.push(Finding::Unfinished {
            version: version.clone(),
            name: migration.name.clone(),
            mode: row.mode.clone(),
            statements_done: row.statements_done,
        });
    }
    if row.sha256.as_ref().is_some_and(|sha256| *sha256 != migration.up.sha256) {
        let diff = content(&row.version).and_then(|before| {
            let after = String::from_utf8(migration.up.read().ok()?).ok()?;
            Some(diff(&before, &normalise(&after), &migration.up.shown))
        });
        findings.push(Finding::Edited { version: version.clone(), name: migration.name.clone(), diff });
    } else if !row.name.is_empty() && row.name != migration.name && row.origin == "up" {
        findings.push(Finding::Renamed { version, from: row.name.clone(), to: migration.name.clone() });
    }
    findings
}

/// What an edit changed.
pub fn diff(before: &str, after: &str, shown: &str) -> String {
    TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(2)
        .header(&format!("{shown} (applied)"), &format!("{shown} (now)"))
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(version: &str, name: &str, content: &str) -> Row {
        use sha2::{Digest, Sha256};
        Row {
            version: version.into(),
            name: name.into(),
            repeatable: false,
            sha256: Some(format!("{:x}", Sha256::digest(content))),
            state: RowState::Applied,
            mode: "transaction".into(),
            statements_done: 0,
            run: None,
            applied_by: "me".into(),
            applied_at: Timestamp::UNIX_EPOCH,
            duration_ms: None,
            origin: "up".into(),
            seq: 0,
        }
    }

    /// The pending versions, the codes of the findings, and the first diff.
    fn check(files: &[(&str, &str)], rows: &[Row], pending: &[&str], codes: &[&str]) -> Vec<Finding> {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let chain = Chain::read("c", folder.path()).unwrap();
        let standing = compare(&chain, rows, |_| Some("SELECT 1;\n".into()));
        assert_eq!(standing.pending.iter().map(|m| m.version.as_str()).collect::<Vec<_>>(), pending);
        assert_eq!(standing.findings.iter().map(Finding::code).collect::<Vec<_>>(), codes);
        standing.findings
    }

    #[test]
    fn what_is_not_applied_is_pending() {
        let files = [("1_a.sql", "a"), ("2_b.sql", "b"), ("3_c.sql", "c")];
        check(&files, &[], &["1", "2", "3"], &[]);
        check(&files, &[row("1", "a", "a")], &["2", "3"], &[]);
        check(&files, &[row("0001", "a", "a")], &["2", "3"], &[]);
        let baseline = Row { origin: "baseline".into(), sha256: None, ..row("2", "b", "") };
        check(&files, &[baseline], &["3"], &[]);
    }

    #[test]
    fn an_edit_is_shown_with_its_diff() {
        let findings = check(&[("1_a.sql", "SELECT 2;\n")], &[row("1", "a", "SELECT 1;\n")], &[], &["edited"]);
        let Finding::Edited { diff: Some(diff), .. } = &findings[0] else { panic!("{findings:?}") };
        assert!(diff.contains("-SELECT 1;\n+SELECT 2;\n"), "{diff}");
        assert!(findings[0].blocks());
    }

    #[test]
    fn each_misfit_has_its_own_report() {
        let files = [("1_a.sql", "a"), ("3_c.sql", "c")];
        let (one, three) = (row("1", "a", "a"), row("3", "c", "c"));
        check(&files, std::slice::from_ref(&three), &["1"], &["out-of-order"]);
        check(&files, &[one.clone(), row("2", "b", "b"), three.clone()], &[], &["deleted"]);
        check(&files, &[one.clone(), three.clone(), row("4", "d", "d")], &[], &["ahead"]);
        check(&files, &[one.clone(), row("2", "c", "c")], &["3"], &["moved"]);
        check(&files, &[row("1", "old", "a"), three.clone()], &[], &["renamed"]);
        // Given a version below one that is applied: only the move is told.
        check(&[("2_x.sql", "x"), ("3_c.sql", "c")], &[row("1", "x", "x"), three.clone()], &["2"], &["moved"]);
        let half = Row { state: RowState::Running, statements_done: 1, mode: "statements".into(), ..three };
        let findings = check(&files, &[one, half], &["3"], &["unfinished"]);
        assert_eq!(findings[0].to_string(), "3 c was begun and not finished: 1 statement done");
    }

    #[test]
    fn every_remedy_says_what_to_do() {
        let findings = [
            Finding::Edited { version: "1".into(), name: String::new(), diff: None },
            Finding::Deleted { version: "1".into(), name: String::new(), applied_at: Timestamp::UNIX_EPOCH },
            Finding::OutOfOrder { version: "1".into(), name: String::new(), newest: "2".into() },
        ];
        for (finding, part) in findings.iter().zip(["--accept 1", "--forget 1", "out_of_order"]) {
            assert!(finding.remedy().contains(part), "{}", finding.remedy());
        }
    }
}
