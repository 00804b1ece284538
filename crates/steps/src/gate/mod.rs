//! The gate of a pull request: what a branch does to the database, found out before it is merged.
//!
//! The changed migrations are read (rules, edited history, missing down and verify files, literal secrets) and then *tried*: on a
//! throwaway server, or in a temporary database on a server that somebody gives, they go forward, are verified, go back, and forward again, with the locks they really take and the tables they
//! really write anew. A live target, where one is named, adds how many rows that concerns, which of its history the files contradict,
//! and whether it has drifted. The one idea: everything that is found is a finding with a place, so that one list serves a terminal, a
//! comment, SARIF, JUnit and workflow commands.

mod additive;
mod before;
mod beyond;
mod changed;
mod declared;
pub mod error;
mod ground;
mod lint;
mod plans;
mod render;
mod size;
mod squawk;
mod statistics;
mod tenant;
mod trial;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgrunbook_document::{Diagnostic, Severity, Source, Span, secrets};
use pgrunbook_engine::StepError;
use pgrunbook_postgres::sandbox::SandboxError;
use pgrunbook_postgres::scratch::ScratchError;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use crate::drift::{self, Drift, Ignore, Shadow, ShadowOf};
use crate::migrate::chain::{Chain, Migration, Script};
use crate::migrate::standing::Finding;
use crate::migrate::text::{Mode, Text};
use crate::migrate::{Around, Runner};
use crate::project::{Code, FILE, Project, ProjectError};
use before::Before;
use ground::Ground;

pub use changed::Changed;
pub use error::GateError;
pub use ground::Server;
pub use lint::RULES as READING_RULES;
pub use plans::Planned;
pub use render::{Form, render};
pub use size::Size;
pub use squawk::Rules as SquawkRules;
pub use statistics::Columns;
pub use trial::Tried;

/// Rows at the target from which on writing or reading all of a table under a lock is no small matter, unless somebody says otherwise.
pub const LARGE: i64 = 100_000;

/// Files above this are not read: what they hold is unknown.
const LONGEST: u64 = 16 * 1024 * 1024;

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
    /// Schemas whose tables must have row security, and grant something to each of `tenant_roles`; of none, the project's topology says it.
    pub tenant_schemas: Vec<String>,
    pub tenant_roles: Vec<String>,
    /// The trees of code, if the project declares any.
    pub code: Option<Code>,
    /// Of the throwaway server; the target's if there is one.
    pub major: Option<u32>,
    /// A server on which temporary databases are made, in place of a throwaway server.
    pub on: Option<&'a ConnectOptions>,
    /// Rows at the target from which on writing or reading all of a table under a lock is no small matter.
    pub large: i64,
    /// Whether the values that the target's statistics hold may go to the throwaway server.
    pub columns: Columns,
}

/// What a part of the review came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `lint`, `history`, `secrets`, `server`, `forward`, `verify`, `down`, `again`, `smoke`, `tenants`, `plans`, `drift`, `boundary`.
    pub name: &'static str,
    /// In a few words; why it was not made, if it was not.
    pub said: String,
    pub outcome: Outcome,
}

/// How a part of the review ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Made, and no error was found.
    Held,
    /// Made, and there is an error among what it found.
    Failed,
    /// Asked for, and nobody can tell.
    Unknown,
    /// Not asked for, or there was nothing to ask of.
    Skipped,
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
    /// How the target would plan the smoke statements, in their order.
    pub plans: Vec<Planned>,
    /// How the target differs from its shadow.
    pub drift: Option<Drift>,
    /// Where the change was tried.
    pub server: Option<Server>,
    pub took: Duration,
    /// The file that a form names which must name one, for findings that are about none.
    pub anchor: String,
    /// How many findings belong to the checks so far.
    checked: usize,
}

impl Review {
    pub fn count(&self, severity: Severity) -> usize {
        self.found.iter().filter(|one| one.severity == severity).count()
    }

    /// Whether the change may be merged: without an error.
    pub fn passes(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    /// Whether nobody can tell of a part: no error, and no pass.
    pub fn is_unknown(&self) -> bool {
        self.passes() && self.count(Severity::Unknown) > 0
    }

    /// Ends a part of the review: what was found since the one before says how.
    fn check(&mut self, name: &'static str, said: impl Into<String>) {
        let worst = self.found[self.checked.min(self.found.len())..].iter().map(|one| one.severity).max();
        let outcome = match worst {
            Some(Severity::Error) => Outcome::Failed,
            Some(Severity::Unknown) => Outcome::Unknown,
            _ => Outcome::Held,
        };
        self.checked = self.found.len();
        self.checks.push(Check { name, said: said.into(), outcome });
    }

    fn skip(&mut self, name: &'static str, why: impl Into<String>) {
        self.checks.push(Check { name, said: why.into(), outcome: Outcome::Skipped });
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
        let file = self.source(&files.shown(&script.path), || read(&script.path).unwrap_or_default());
        let text = &self.sources[file].text;
        let line = line.unwrap_or(1).saturating_sub(1);
        let start = text.split_inclusive('\n').take(line).map(str::len).sum::<usize>().min(text.len());
        let end = start + text[start..].lines().next().map_or(0, str::len);
        self.found.push(Diagnostic { span: Span { file, start, end }, ..one });
    }

    /// Takes findings back that another says better.
    fn forget(&mut self, is_known: impl Fn(&Diagnostic, &[Source]) -> bool) {
        let (sources, checked, mut at, mut gone) = (&self.sources, self.checked, 0, 0);
        self.found.retain(|one| {
            let known = is_known(one, sources);
            gone += usize::from(known && at < checked);
            at += 1;
            !known
        });
        self.checked -= gone;
    }

    /// A finding about a file that is not read.
    fn about(&mut self, path: &str, one: Diagnostic) {
        let file = self.source(path, String::new);
        self.found.push(Diagnostic { span: Span { file, start: 0, end: 0 }, ..one });
    }

    /// A finding about no file: of the target, or of a folder.
    fn nowhere(&mut self, one: Diagnostic) {
        self.found.push(Diagnostic { span: Span { file: NOWHERE, start: 0, end: 0 }, ..one });
    }

    /// A finding about a file whose content nobody knows.
    fn unread(&mut self, path: &str, what: &str, why: &str) {
        let one = finding("not-read", Severity::Unknown, format!("unknown: {path} was not {what}, {why}"));
        self.about(path, one.help("split it, or look at it yourself"));
    }
}

/// The number of no source.
const NOWHERE: usize = usize::MAX;

/// A finding whose place is not known yet.
fn finding(code: &'static str, severity: Severity, message: impl Into<String>) -> Diagnostic {
    let span = Span { file: 0, start: 0, end: 0 };
    Diagnostic { severity, ..Diagnostic::error(code, span, message) }
}

/// A file that is of no chain.
fn script(path: &Path, files: &Files) -> Script {
    Script {
        path: path.to_owned(),
        shown: files.shown(path),
        part: None,
        lines_before: 0,
        sha256: String::new(),
        bytes: 0,
        without_transaction: false,
    }
}

/// The text of a file, or why there is none. What is no UTF-8 is read as far as it is.
fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| format!("it cannot be read: {error}"))?;
    match file.take(LONGEST + 1).read_to_end(&mut bytes) {
        Err(error) => Err(format!("it cannot be read: {error}")),
        Ok(length) if length as u64 > LONGEST => Err(format!("it is longer than {} MiB", LONGEST >> 20)),
        Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// How paths are shown, and which files changed.
struct Files {
    /// The top of the repository, or the project.
    top: PathBuf,
    changed: Option<Changed>,
    before: Before,
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

    /// Whether a file of a migration is new or has other content.
    fn is_touched(&self, migration: &Migration) -> bool {
        let files = [Some(&migration.up), migration.down.as_ref(), migration.verify.as_ref()];
        files.into_iter().flatten().any(|script| self.is_changed(script))
    }

    fn is_edited(&self, script: &Script) -> bool {
        self.changed.as_ref().is_some_and(|changed| changed.edited.contains(&self.shown(&script.path)))
    }
}

/// Reviews a change. Nothing but a throwaway server is written to, or temporary databases on the server of the wish, which are dropped
/// whatever happens; `around.tell` hears what cannot be. Asked to stop, it stops at once.
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
    let mut files = Files { top, changed, before: Before::default() };
    if let Some(changed) = &files.changed {
        files.before = Before::of(wish, changed, |path| files.shown(path))?;
    }
    review.anchor = anchor(wish, &files);
    reading(wish, &files, &mut review);
    secret(&files, wish, &mut review);
    let live = match wish.target {
        Some(options) => Some(Session::connect(options, "pgrunbook:review").await?),
        None => None,
    };
    history(wish, &files, live.as_ref(), &mut review).await?;
    // Cancellation: what is dropped halfway ran where nothing is kept, and what was made there is taken away below.
    let mut ground = tokio::select! {
        ground = Ground::open(wish, &files, live.as_ref(), around, &mut review) => ground?,
        () = around.cancel.stopping() => return Err(GateError::Stopped),
    };
    let quiet = Around { tell: &|_| {}, ..around.clone() };
    let tried = tokio::select! {
        tried = try_out(wish, &files, live.as_ref(), &mut ground, &quiet, &mut review) => tried,
        () = around.cancel.stopping() => Err(GateError::Stopped),
    };
    ground.clear(&mut review, around.tell).await;
    tried?;
    boundary(wish, &files, &mut review);
    review.took = begun.elapsed();
    Ok(review)
}

/// The project's file, else the first that is reviewed.
fn anchor(wish: &Wish<'_>, files: &Files) -> String {
    let project = wish.project.root.join(FILE);
    if project.is_file() {
        return files.shown(&project);
    }
    let first = wish.chains.iter().flat_map(|chain| &chain.migrations).next();
    first.map_or_else(|| FILE.to_owned(), |migration| files.shown(&migration.up.path))
}

/// Everything that is made on a server.
async fn try_out(
    wish: &Wish<'_>,
    files: &Files,
    live: Option<&Session>,
    ground: &mut Ground,
    around: &Around<'_>,
    review: &mut Review,
) -> Result<(), GateError> {
    let plot = ground.plot(wish, live, review).await?;
    trial::run(wish, files, live, &plot, around, review).await?;
    drop(plot);
    drifted(wish, live, ground, around, review).await
}

impl Wish<'_> {
    /// What our own rules and squawk's have to say of a script's text.
    fn read(&self, script: &Script, text: &str) -> Vec<lint::Found> {
        let reading = lint::read(text);
        // What cannot be sent fails in the trial, and is not watched either.
        let watched = Text::read(script).is_ok_and(|text| text.mode == Mode::Transaction);
        let manner = squawk::Manner { rules: &self.project.squawk, watched, major: self.major };
        let mut found = squawk::lint(text, &reading, &manner);
        found.extend(reading.found);
        found.sort_by_key(|one| one.range.start);
        lint::set_aside(text, &mut found);
        found
    }
}

/// Lints the changed files, and looks for those that should be there.
fn reading(wish: &Wish<'_>, files: &Files, review: &mut Review) {
    let mut count = 0;
    for chain in &wish.chains {
        let ups = chain.migrations.iter().map(|one| &one.up).chain(chain.repeatable.iter().map(|one| &one.script));
        for script in ups.filter(|script| files.is_changed(script)) {
            let path = files.shown(&script.path);
            let text = match read(&script.path) {
                Ok(text) => text,
                Err(why) => {
                    review.unread(&path, "linted", &why);
                    continue;
                }
            };
            count += 1;
            let range = script.part.clone().map_or(0..text.len(), |part| {
                usize::try_from(part.start).unwrap_or(0)..usize::try_from(part.end).unwrap_or(0).min(text.len())
            });
            let found = wish.read(script, text.get(range.clone()).unwrap_or_default());
            let file = review.source(&path, || text.clone());
            review.found.extend(found.into_iter().map(|one| Diagnostic {
                severity: one.severity,
                help: Some(one.help.into_owned()),
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
    let mut searched = 0;
    for (path, lines) in &whole {
        let full = files.top.join(path);
        // A link's target and a submodule's commit hold none.
        if !std::fs::symlink_metadata(&full).is_ok_and(|about| about.is_file()) {
            continue;
        }
        let text = match read(&full) {
            // What git calls binary, for the same reason.
            Ok(text) if text.as_bytes().iter().take(8000).any(|byte| *byte == 0) => continue,
            Ok(text) => text,
            Err(_) if is_binary(&full) => continue,
            Err(why) => {
                review.unread(path, "searched for secrets", &why);
                continue;
            }
        };
        searched += 1;
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
    review.check("secrets", format!("the new lines of {searched} file(s) searched"));
}

/// Whether a file is no text, by its first 8,000 bytes as git tells it.
fn is_binary(path: &Path) -> bool {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(8000).read_to_end(&mut bytes));
    read.is_ok() && bytes.contains(&0)
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
                None => review.nowhere(one),
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

/// Nobody can tell whether the target has drifted.
fn no_shadow(review: &mut Review, why: &str, help: &'static str) {
    let message = format!("unknown: the target cannot be compared, since no shadow can be built: {why}");
    review.nowhere(finding("drift-unknown", Severity::Unknown, message).help(help));
    review.check("drift", "no shadow can be built");
}

/// Whether the target is what its history makes.
async fn drifted(
    wish: &Wish<'_>,
    live: Option<&Session>,
    ground: &mut Ground,
    around: &Around<'_>,
    review: &mut Review,
) -> Result<(), GateError> {
    let Some(live) = live else {
        review.skip("drift", "no --target is named");
        return Ok(());
    };
    if review.found.iter().any(|one| one.code == "other-version") {
        review.skip(
            "drift",
            "the server that was given is of another version than the target: it prints definitions differently",
        );
        return Ok(());
    }
    let on = ground.another().await?;
    let given = on.is_some();
    let of = ShadowOf { chains: wish.chains.clone(), live, pending: false, on };
    let shadow = match Shadow::build(of, around).await {
        Ok(shadow) => shadow,
        // There whoever connects may not be all that the target's role is.
        Err(drift::DriftError::Postgres(error @ PgError::Server(_))) if given => {
            no_shadow(
                review,
                &format!("the server that was given refuses: {error}"),
                "give a role that may do what the target's may",
            );
            return Ok(());
        }
        // Where the same files failed in the trial, it is told there with its place; or they are edited.
        Err(drift::DriftError::Step(error)) => {
            no_shadow(review, &error.message, "mend the files that the target's history names, then ask again");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let session = Session::connect(&shadow.options, "pgrunbook:review").await?;
    let found = drift::compare(live, &session, &wish.ignore).await?;
    for one in &found.differences {
        let message = format!("{} {} is {} at the target", one.kind, one.identity, one.change.as_str());
        let help = "see `pgrunbook drift` for the SQL that mends it";
        review.nowhere(finding("drift", Severity::Error, message).help(help));
    }
    review.check("drift", format!("{} objects and qualities of the target compared", found.item_count));
    review.drift = Some(found);
    Ok(())
}

/// Whether an application writes what belongs to another.
fn boundary(wish: &Wish<'_>, files: &Files, review: &mut Review) {
    let Some(code) = wish.code.as_ref().filter(|code| !code.trees.is_empty()) else {
        review.skip("boundary", "the project declares no trees of code");
        return;
    };
    let root = &wish.project.root;
    match crate::boundary::review(root, code) {
        Ok(made) => {
            let first = review.sources.len();
            // Its paths are relative to the project, those of a gate to the repository.
            let sources = made.sources.into_iter();
            review.sources.extend(sources.map(|one| Source { path: files.shown(&root.join(&one.path)), ..one }));
            review.found.extend(
                made.found
                    .into_iter()
                    .map(|one| Diagnostic { span: Span { file: one.span.file + first, ..one.span }, ..one }),
            );
            review.check("boundary", format!("{} file(s) of {} tree(s)", made.file_count, made.tree_count));
        }
        Err(error) => {
            let one = finding("boundary-unknown", Severity::Unknown, format!("unknown: no code was read: {error}"));
            let help = "correct it; `pgrunbook review boundary` tries it alone";
            match error {
                crate::boundary::ReviewError::Project(ProjectError::Malformed { path, text, span, .. }) => {
                    let file = review.source(&files.shown(&root.join(path)), || text);
                    let span = span.unwrap_or_default();
                    let span = Span { file, start: span.start, end: span.end };
                    review.found.push(Diagnostic { span, ..one.help(help) });
                }
                _ => review.nowhere(one.help(help)),
            }
            review.check("boundary", "no code was read");
        }
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
            GateError::Sandbox(SandboxError::NoBinaries { .. }) => Self::unusable("review", error.to_string())
                .help("install PostgreSQL's server programs, or name a server with --shadow-on"),
            GateError::Sandbox(_) | GateError::Beside { .. } => Self::unusable("review", error.to_string()),
            GateError::Scratch(ScratchError::Postgres(error)) => PgError::into_step_error(error),
            GateError::Scratch(ScratchError::MayNot { ref user, .. }) => {
                let help = format!("as a superuser there: ALTER ROLE {user} CREATEDB; or leave --shadow-on out: then a throwaway server is started");
                Self::unusable("review-shadow", format!("{error}; nothing was made")).help(help)
            }
            GateError::Scratch(_) => Self::unusable("review-shadow", format!("{error}; nothing was made"))
                .help("name a primary with --shadow-on, or leave it out: then a throwaway server is started"),
            GateError::IsTarget { .. } => Self::unusable("review-target", error.to_string())
                .help("name another database with --shadow-on, best on another server: temporary ones are made beside it"),
            GateError::Unread { .. } => Self::unusable("review-unread", error.to_string())
                .help("leave --shadow-on out: a throwaway server has no other databases"),
            GateError::Beyond { .. } => Self::unusable("review-beyond", error.to_string()).help(
                "leave --shadow-on out: a throwaway server is the change's own; or give a server that does not have the role",
            ),
            GateError::Stopped => Self::interrupted(error.to_string()),
        }
    }
}
