//! The gate of a pull request: what a branch does to the database, found out before it is merged.
//!
//! The changed migrations are read (rules, edited history, missing down and verify files, literal secrets) and then *tried*: on a
//! throwaway server they go forward, are verified, go back, and forward again, with the locks they really take and the tables they
//! really write anew. A live target, where one is named, adds how many rows that concerns, which of its history the files contradict,
//! and whether it has drifted. The one idea: everything that is found is a finding with a place, so that one list serves a terminal, a
//! comment, SARIF, JUnit and workflow commands.

mod changed;
pub mod error;
mod lint;
mod render;
mod tenant;
mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgrunbook_document::{Diagnostic, Severity, Source, Span, secrets};
use pgrunbook_engine::StepError;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use crate::drift::{self, Drift, Ignore, Shadow, ShadowOf};
use crate::migrate::chain::{Chain, Script};
use crate::migrate::standing::Finding;
use crate::migrate::{Around, Runner};
use crate::project::{Code, Project};

pub use changed::Changed;
pub use error::GateError;
pub use lint::RULES as READING_RULES;
pub use render::{Form, render};
pub use trial::{Lock, Tried};

/// Files above this are not searched for secrets.
const LONGEST: u64 = 4 * 1024 * 1024;

/// What is reviewed, and how.
pub struct Wish<'a> {
    pub project: &'a Project,
    /// In the order in which they are applied.
    pub chains: Vec<Chain>,
    /// What the branch left; without it, every migration counts as changed.
    pub since: Option<String>,
    /// A live target, which is only read.
    pub target: Option<&'a ConnectOptions>,
    /// What of the target is not compared.
    pub ignore: Ignore,
    /// Files with expectations that must hold when everything is applied.
    pub smoke: Vec<PathBuf>,
    /// Roles that the files name and somebody else makes.
    pub roles: Vec<String>,
    /// Schemas whose tables must have row security, and grant something to each of `tenant_roles`.
    pub tenant_schemas: Vec<String>,
    pub tenant_roles: Vec<String>,
    /// The trees of code, if the project declares any.
    pub code: Option<Code>,
    /// Of the throwaway server; the target's if there is one.
    pub major: Option<u32>,
}

/// What a part of the review came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `lint`, `history`, `secrets`, `forward`, `verify`, `down`, `again`, `smoke`, `tenants`, `drift`, `boundary`.
    pub name: &'static str,
    /// In a few words; why it was not made, if `made` is false.
    pub said: String,
    pub made: bool,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Review {
    pub found: Vec<Diagnostic>,
    /// What the findings point into.
    pub sources: Vec<Source>,
    pub checks: Vec<Check>,
    /// The changed migrations, in the order in which they were applied.
    pub tried: Vec<Tried>,
    /// How the target differs from its shadow.
    pub drift: Option<Drift>,
    pub took: Duration,
}

impl Review {
    pub fn count(&self, severity: Severity) -> usize {
        self.found.iter().filter(|one| one.severity == severity).count()
    }

    /// Whether the change may be merged: without an error.
    pub fn passes(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    fn check(&mut self, name: &'static str, said: impl Into<String>) {
        self.checks.push(Check { name, said: said.into(), made: true });
    }

    fn skip(&mut self, name: &'static str, why: impl Into<String>) {
        self.checks.push(Check { name, said: why.into(), made: false });
    }

    /// The number of a source, which is read if it was not yet.
    fn source(&mut self, path: &str, text: impl FnOnce() -> String) -> usize {
        self.sources.iter().position(|source| source.path == path).unwrap_or_else(|| {
            self.sources.push(Source { path: path.to_owned(), text: text() });
            self.sources.len() - 1
        })
    }

    /// A finding about a script, at a line from 1; of the whole script without one.
    fn at(&mut self, files: &Files, script: &Script, line: Option<usize>, one: Diagnostic) {
        let file = self.source(&files.shown(&script.path), || read(&script.path));
        let text = &self.sources[file].text;
        let line = line.unwrap_or(1).saturating_sub(1);
        let start = text.split_inclusive('\n').take(line).map(str::len).sum::<usize>().min(text.len());
        let end = start + text[start..].lines().next().map_or(0, str::len);
        self.found.push(Diagnostic { span: Span { file, start, end }, ..one });
    }

    /// A finding about no file.
    fn about(&mut self, path: &str, one: Diagnostic) {
        let file = self.source(path, String::new);
        self.found.push(Diagnostic { span: Span { file, start: 0, end: 0 }, ..one });
    }
}

/// A finding whose place is not known yet.
fn finding(code: &'static str, severity: Severity, message: impl Into<String>) -> Diagnostic {
    let span = Span { file: 0, start: 0, end: 0 };
    Diagnostic { severity, ..Diagnostic::error(code, span, message) }
}

fn read(path: &Path) -> String {
    let small = std::fs::metadata(path).is_ok_and(|about| about.len() <= LONGEST);
    // What cannot be read is told by whoever runs it.
    if small {
        std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    } else {
        String::new()
    }
}

/// How paths are shown, and which files changed.
struct Files {
    /// The top of the repository, or the project.
    top: PathBuf,
    changed: Option<Changed>,
}

impl Files {
    fn shown(&self, path: &Path) -> String {
        let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let top = self.top.canonicalize().unwrap_or_else(|_| self.top.clone());
        full.strip_prefix(&top).unwrap_or(path).display().to_string()
    }

    /// Whether a script is new or has other content.
    fn is_changed(&self, script: &Script) -> bool {
        let Some(changed) = &self.changed else { return true };
        let path = self.shown(&script.path);
        changed.added.contains(&path) || changed.edited.contains(&path)
    }

    fn is_edited(&self, script: &Script) -> bool {
        self.changed.as_ref().is_some_and(|changed| changed.edited.contains(&self.shown(&script.path)))
    }
}

/// Reviews a change. Nothing but a throwaway server is written to.
///
/// # Errors
/// [`GateError`], if the review cannot be made; what is wrong with the change is never an error, but a finding.
pub async fn review(wish: &Wish<'_>, around: &Around<'_>) -> Result<Review, GateError> {
    if wish.chains.is_empty() {
        return Err(GateError::NoChain);
    }
    let begun = Instant::now();
    let mut review = Review::default();
    let changed = wish.since.as_ref().map(|since| Changed::since(&wish.project.root, since)).transpose()?;
    let top = changed.as_ref().map_or_else(|| wish.project.root.clone(), |changed| changed.top.clone());
    let files = Files { top, changed };
    reading(wish, &files, &mut review);
    secret(&files, wish, &mut review);
    let live = match wish.target {
        Some(options) => Some(Session::connect(options, "pgrunbook:review").await?),
        None => None,
    };
    history(wish, &files, live.as_ref(), &mut review).await?;
    trial::run(wish, &files, live.as_ref(), around, &mut review).await?;
    drifted(wish, live.as_ref(), around, &mut review).await?;
    boundary(wish, &mut review);
    review.took = begun.elapsed();
    Ok(review)
}

/// Lints the changed files, and looks for those that should be there.
fn reading(wish: &Wish<'_>, files: &Files, review: &mut Review) {
    let mut count = 0;
    for chain in &wish.chains {
        let ups = chain.migrations.iter().map(|one| &one.up).chain(chain.repeatable.iter().map(|one| &one.script));
        for script in ups.filter(|script| files.is_changed(script)) {
            count += 1;
            let text = read(&script.path);
            let range = script.part.clone().map_or(0..text.len(), |part| {
                usize::try_from(part.start).unwrap_or(0)..usize::try_from(part.end).unwrap_or(0).min(text.len())
            });
            let found = lint::lint(text.get(range.clone()).unwrap_or_default());
            let file = review.source(&files.shown(&script.path), || text.clone());
            review.found.extend(found.into_iter().map(|one| Diagnostic {
                severity: one.severity,
                help: Some(one.help.to_owned()),
                ..Diagnostic::error(
                    one.rule,
                    Span { file, start: range.start + one.range.start, end: range.start + one.range.end },
                    one.message,
                )
            }));
        }
        for migration in chain.migrations.iter().filter(|one| files.is_changed(&one.up)) {
            if migration.down.is_none() {
                let one = finding(
                    "missing-down",
                    Severity::Error,
                    format!("{} has no down file: it cannot be taken back", migration.title()),
                );
                review.at(
                    files,
                    &migration.up,
                    None,
                    one.help("put the way back beside it; if there is none, say so in a down file that raises"),
                );
            }
            if migration.verify.is_none() {
                let one = finding(
                    "missing-verify",
                    Severity::Warning,
                    format!("{} has no verify file: nobody asks whether it did what it should", migration.title()),
                );
                review.at(files, &migration.up, None, one.help("put a query with `-- expect:` beside it"));
            }
        }
    }
    review.check("lint", format!("{count} changed file(s) read"));
}

/// Looks for literal secrets in the lines that are new.
fn secret(files: &Files, wish: &Wish<'_>, review: &mut Review) {
    let whole: BTreeMap<String, Vec<(usize, usize)>> = match &files.changed {
        Some(changed) => changed.lines.clone(),
        None => wish
            .chains
            .iter()
            .flat_map(|chain| &chain.migrations)
            .flat_map(|one| [Some(&one.up), one.down.as_ref(), one.verify.as_ref()])
            .flatten()
            .map(|script| (files.shown(&script.path), vec![(1, usize::MAX)]))
            .collect(),
    };
    for (path, lines) in &whole {
        let text = read(&files.top.join(path));
        for secret in secrets::find(&text) {
            let line = text[..secret.range.start].matches('\n').count() + 1;
            if lines.iter().any(|(first, end)| (*first..*end).contains(&line)) {
                let file = review.source(path, || text.clone());
                let span = Span { file, start: secret.range.start, end: secret.range.end };
                review.found.push(
                    Diagnostic::error("literal-secret", span, format!("{} stands in the file", secret.what))
                        .help("take it out, and change it where it is used: a commit is for ever"),
                );
            }
        }
    }
    review.check("secrets", format!("the new lines of {} file(s) searched", whole.len()));
}

/// Whether the files contradict what is applied: at the target, or on the branch that this one goes to.
async fn history(wish: &Wish<'_>, files: &Files, live: Option<&Session>, review: &mut Review) -> Result<(), GateError> {
    const HELP: &str = "put the file back as it was, and write the change as a new migration";
    for chain in &wish.chains {
        for migration in chain.migrations.iter().filter(|one| files.is_edited(&one.up)) {
            let message = format!("{} was there before this branch, and has other content now", migration.title());
            review.at(files, &migration.up, None, finding("history-edited", Severity::Error, message).help(HELP));
        }
        let folder = files.shown(&chain.folder);
        let deleted: Vec<String> = files.changed.iter().flat_map(|changed| &changed.deleted).cloned().collect();
        for path in deleted.iter().filter(|path| Path::new(path).starts_with(&folder) && path.ends_with(".sql")) {
            let message = format!("{path} was there before this branch, and is gone");
            review.about(
                path,
                finding("history-edited", Severity::Error, message).help("bring it back: somewhere it is applied"),
            );
        }
        let Some(live) = live else { continue };
        let (standing, _) = Runner::standing(chain, live).await?;
        for found in &standing.findings {
            let version = match found {
                Finding::Edited { version, .. } | Finding::OutOfOrder { version, .. } => Some(version),
                Finding::Moved { to, .. } => Some(to),
                // The branch is only older than the target.
                Finding::Ahead { .. } | Finding::Renamed { .. } => continue,
                Finding::Deleted { .. } | Finding::Unfinished { .. } => None,
            };
            let one =
                finding("history-edited", Severity::Error, format!("at the target: {found}")).help(found.remedy());
            let there = version.and_then(|version| chain.migrations.iter().find(|one| one.version.as_str() == version));
            match there {
                Some(migration) => review.at(files, &migration.up, None, one),
                None => review.about(&folder, one),
            }
        }
    }
    let whom = match (&wish.since, live) {
        (Some(since), Some(_)) => format!("beside {since} and the target"),
        (Some(since), None) => format!("beside {since}"),
        (None, Some(_)) => "beside the target".to_owned(),
        (None, None) => {
            review.skip("history", "neither --since nor --target says what was there before");
            return Ok(());
        }
    };
    review.check("history", whom);
    Ok(())
}

/// Whether the target is what its history makes.
async fn drifted(
    wish: &Wish<'_>,
    live: Option<&Session>,
    around: &Around<'_>,
    review: &mut Review,
) -> Result<(), GateError> {
    let Some(live) = live else {
        review.skip("drift", "no --target is named");
        return Ok(());
    };
    let shadow = match Shadow::build(ShadowOf { chains: wish.chains.clone(), live, pending: false }, around).await {
        Ok(shadow) => shadow,
        // The same files failed in the trial, where it is told with its place; or they are edited.
        Err(drift::DriftError::Step(error)) => {
            review.skip("drift", format!("no shadow can be built: {}", error.message));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let session = Session::connect(&shadow.options, "pgrunbook:review").await?;
    let found = drift::compare(live, &session, &wish.ignore).await?;
    for one in &found.differences {
        let message = format!("{} {} is {} at the target", one.kind, one.identity, one.change.as_str());
        let help = "see `pgrunbook drift` for the SQL that mends it";
        review.about("target", finding("drift", Severity::Error, message).help(help));
    }
    review.check("drift", format!("{} objects and qualities of the target compared", found.item_count));
    review.drift = Some(found);
    Ok(())
}

/// Whether an application writes what belongs to another.
fn boundary(wish: &Wish<'_>, review: &mut Review) {
    let Some(code) = wish.code.as_ref().filter(|code| !code.trees.is_empty()) else {
        review.skip("boundary", "the project declares no trees of code");
        return;
    };
    match crate::boundary::review(&wish.project.root, code) {
        Ok(made) => {
            let first = review.sources.len();
            review.sources.extend(made.sources);
            review.found.extend(
                made.found
                    .into_iter()
                    .map(|one| Diagnostic { span: Span { file: one.span.file + first, ..one.span }, ..one }),
            );
            review.check("boundary", format!("{} file(s) of {} tree(s)", made.file_count, made.tree_count));
        }
        Err(error) => review.skip("boundary", error.to_string()),
    }
}

/// Where an error of a script says that it is.
fn line_of(error: &StepError) -> Option<usize> {
    let rest = error.message.split_once(", line ")?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl From<GateError> for StepError {
    fn from(error: GateError) -> Self {
        match error {
            GateError::Step(error) => error,
            GateError::Drift(error) => error.into(),
            GateError::Postgres(error) => PgError::into_step_error(error),
            GateError::Git { .. } => Self::unusable("review-git", error.to_string())
                .help("check out the whole history (`fetch-depth: 0`), and name a branch or commit with --since"),
            GateError::NoChain => {
                Self::unusable("review-chain", error.to_string()).help("pgrunbook review --chain db/migrations")
            }
            GateError::Chain(error) => Self::unusable(error.code(), error.to_string()).help(error.help()),
            GateError::Sandbox(_) => Self::unusable("review", error.to_string()),
        }
    }
}
