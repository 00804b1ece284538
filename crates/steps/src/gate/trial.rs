//! The changed migrations, tried: forward, verified, back, and forward again, in a database of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pgrunbook_document::Severity;
use pgrunbook_engine::StepError;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use super::error::GateError;
use super::ground::Plot;
use super::size::{Size, sizes};
use super::{Files, Review, Wish, additive, finding, line_of, plans, script, tenant};
use crate::drift::{self, Difference};
use crate::migrate::chain::{Chain, Migration, Script};
use crate::migrate::{
    Act, Applied, Around, DryRun, Goal, Options, Runner, Watch, Watched, dry_run_of_each, verify_script,
};

/// Above so many changed migrations what each down file leaves is not looked at one by one, but together.
const ONE_BY_ONE: usize = 20;

/// What keeps others out, weakest first: <https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES>.
const MODES: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

/// What a changed migration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The file.
    pub path: String,
    pub title: String,
    /// What each statement did to what was there.
    pub acts: Vec<Act>,
    /// Relations that were locked, with the mode as `pg_locks` names it.
    pub locks: Vec<(String, String)>,
    /// What the target has of them, by the same names; of those that it does not have yet there is nothing.
    pub sizes: BTreeMap<String, Size>,
    /// Tables that were written anew.
    pub rewrites: Vec<String>,
    /// Tables that were read from end to end.
    pub scans: Vec<String>,
    /// Where locks may have been missed, and why.
    pub unseen: Option<String>,
    pub took: Duration,
}

/// Where the trial is made.
struct Place<'a> {
    options: ConnectOptions,
    session: Session,
    around: Around<'a>,
    /// [`Wish::large`].
    large: i64,
}

/// Whether a lock keeps writers out, or readers too.
pub(super) fn is_heavy(mode: &str) -> bool {
    rank(mode) >= rank("ShareLock")
}

/// How much a lock keeps out; only for comparison.
pub(super) fn rank(mode: &str) -> Option<usize> {
    MODES.iter().position(|one| *one == mode)
}

/// Tries the chains, and asks of what they made.
pub(super) async fn run(
    wish: &Wish<'_>,
    files: &Files,
    live: Option<&Session>,
    plot: &Plot,
    around: &Around<'_>,
    review: &mut Review,
) -> Result<(), GateError> {
    let session = Session::connect(&plot.options, "pgrunbook:review").await?;
    crate::rehearse::build(&plot.options, wish.project).await?;
    let place = Place { options: plot.options.clone(), session, around: around.clone(), large: wish.large };
    let mut whole = true;
    let mut new = BTreeSet::new();
    for chain in &wish.chains {
        whole &= place.chain(chain, files, live, &mut new, review).await?;
    }
    if !whole {
        for name in ["smoke", "tenants", "plans"] {
            review.skip(name, "not every migration could be applied");
        }
        return Ok(());
    }
    smoke(wish, files, &place, review).await;
    let today = crate::topology::today(around.clock);
    tenant::look(wish, files, &place.session, &new, today, review).await?;
    // Last: from there on the files of tables are full of holes.
    plans::look(wish, files, live, plot, &place.session, review).await
}

impl Place<'_> {
    fn runner<'c>(&'c self, chain: &'c Chain) -> Runner<'c> {
        Runner {
            chain,
            target: &self.options,
            options: Options { out_of_order: true, ..Options::default() },
            around: self.around.clone(),
        }
    }

    /// Tries one chain; whether it came to its end. `new` gets the tables that it made from the first change on.
    async fn chain(
        &self,
        chain: &Chain,
        files: &Files,
        live: Option<&Session>,
        new: &mut BTreeSet<String>,
        review: &mut Review,
    ) -> Result<bool, GateError> {
        let way = Way::of(chain, files);
        if way.first > 0
            && let Err(error) = self.up(&part(chain, way.first)).await
        {
            self.failed(chain, files, "forward", error, review);
            return Ok(false);
        }
        let kept = self.as_before(chain, &way, files, review).await;
        let before = tenant::tables(&self.session).await?;
        let mut states = BTreeMap::from([(way.first, additive::state(&self.session).await?)]);
        for (at, migration) in chain.migrations.iter().enumerate().skip(way.first) {
            let until = part(chain, at + 1);
            if files.is_changed(&migration.up) {
                if !self.one(&until, migration, files, live, review).await? {
                    return Ok(false);
                }
            } else if let Err(error) = self.up(&until).await {
                let check = if error.code == "verification" { "verify" } else { "forward" };
                self.failed(&until, files, check, error, review);
                return Ok(false);
            }
            if way.is_looked_at(at + 1) {
                states.insert(at + 1, additive::state(&self.session).await?);
                if let Some(before) = states.get(&at).filter(|_| files.is_changed(&migration.up)) {
                    additive::tell(before, &states[&(at + 1)], &[&migration.up], files, review);
                }
            }
        }
        if !way.is_each()
            && let (Some(before), Some(after)) = (states.get(&way.first), states.get(&way.end))
        {
            let ups = chain.migrations.iter().map(|one| &one.up).filter(|up| files.is_changed(up));
            additive::tell(before, after, &ups.collect::<Vec<_>>(), files, review);
        }
        let behind = way.end - way.first - way.touched.len();
        let behind = if behind > 0 { format!(", {behind} unchanged behind the first") } else { String::new() };
        let (changed, first) = (way.touched.len(), way.first);
        let kept = if kept > 0 { format!(" and {kept} repeatable file(s) as they were before") } else { String::new() };
        let said = format!("{changed} changed migration(s) of {} applied to {first} others{kept}{behind}", chain.name);
        review.check("forward", said);
        let verified = chain.migrations[way.first..].iter().filter(|one| one.verify.is_some()).count();
        review.check("verify", format!("{verified} verify file(s) held"));
        if !self.back(chain, &way, &states, files, review).await? {
            return Ok(false);
        }
        if let Err(error) = self.up(chain).await {
            self.failed(chain, files, "again", error, review);
            return Ok(false);
        }
        review.check("again", format!("{} applied to its end", chain.name));
        new.extend(tenant::tables(&self.session).await?.difference(&before).cloned());
        Ok(true)
    }

    /// Applies the repeatable files as they were before, since at the target they are; how many. Not where a migration in the middle
    /// changed: then nobody can tell what they rested on.
    async fn as_before(&self, chain: &Chain, way: &Way, files: &Files, review: &mut Review) -> usize {
        let repeatable = files.before.chain(&chain.name);
        if repeatable.is_empty() || way.touched.len() < way.end - way.first {
            return 0;
        }
        let chain = Chain { repeatable: repeatable.to_vec(), ..part(chain, way.first) };
        match self.up(&chain).await {
            Ok(()) => repeatable.len(),
            Err(error) => {
                let message = format!("a repeatable file as it was before cannot be applied: {}", error.message);
                let help = "whether the change fits what these files made at the target is not tried";
                review.nowhere(finding("before-failed", Severity::Warning, message).help(help));
                0
            }
        }
    }

    async fn up(&self, chain: &Chain) -> Result<(), StepError> {
        self.runner(chain).go(&Goal::Up(None), &mut Applied::default()).await
    }

    /// Applies what is pending: first as a dry run, or watched, if no dry run can try it.
    async fn applied(&self, until: &Chain) -> Result<Watched, StepError> {
        let mut runner = self.runner(until);
        let seen = dry_run_of_each(&runner).await?;
        if seen.not_tried.is_empty() {
            runner.go(&Goal::Up(None), &mut Applied::default()).await?;
            return Ok(Watched { seen, unsure: Vec::new() });
        }
        let watch = Watch::begin(&self.options).await.map_err(PgError::into_step_error)?;
        runner.around.watch = Some(&watch);
        runner.go(&Goal::Up(None), &mut Applied::default()).await?;
        drop(runner);
        Ok(watch.end())
    }

    /// Applies one migration, and tells what it did to what was there.
    async fn one(
        &self,
        until: &Chain,
        migration: &Migration,
        files: &Files,
        live: Option<&Session>,
        review: &mut Review,
    ) -> Result<bool, GateError> {
        let begun = Instant::now();
        let (seen, unseen) = match self.applied(until).await {
            Ok(watched) => {
                for (line, statement) in &watched.unsure {
                    let message = format!(
                        "`{statement}` commits by itself: of what it locks, only the first was sure to be seen"
                    );
                    let help = "look at what it locks and for how long, or write it as statements of the file";
                    let one = finding("not-watched", Severity::Warning, message).help(help);
                    review.at(files, &migration.up, Some(*line), one);
                }
                let unsure = watched.unsure.iter().map(|(line, statement)| format!("line {line}: {statement}"));
                let unsure = unsure.collect::<Vec<_>>().join(", ");
                (watched.seen, (!unsure.is_empty()).then(|| format!("what commits by itself: {unsure}")))
            }
            Err(error) => {
                let check = if error.code == "verification" { "verify" } else { "forward" };
                self.failed(until, files, check, error, review);
                return Ok(false);
            }
        };
        let there = match live {
            Some(live) => sizes(live, seen.qualified.values()).await?,
            None => BTreeMap::new(),
        };
        let sizes: BTreeMap<String, Size> =
            seen.qualified.iter().filter_map(|(name, whole)| Some((name.clone(), there.get(whole)?.clone()))).collect();
        for act in &seen.acts {
            for (tables, code, what) in [
                (&act.rewrites, "table-rewrite", "is written anew while nobody reads or writes it"),
                (&act.scans, "table-scan", "is read from end to end under the migration's locks"),
            ] {
                for table in tables {
                    let (severity, counted) = match (live, sizes.get(table)) {
                        (Some(_), Some(size)) => (size.weight(self.large), format!(": {} at the target", size.shown())),
                        (Some(_), None) => (Severity::Note, "; the target does not have it yet".to_owned()),
                        (None, _) => (Severity::Warning, String::new()),
                    };
                    let severity = if code == "table-scan" { severity.min(Severity::Warning) } else { severity };
                    let under = strongest(&seen, table).map_or_else(String::new, |mode| format!(", under {mode}"));
                    let one = finding(code, severity, format!("{table} {what}{counted}{under}"));
                    let help = "split it: add beside, fill in batches, switch";
                    review.at(files, &migration.up, Some(act.line), one.help(help));
                }
            }
        }
        review.tried.push(Tried {
            path: files.shown(&migration.up.path),
            title: migration.title(),
            acts: seen.acts,
            locks: seen.locks,
            sizes,
            rewrites: seen.rewrites,
            scans: seen.scans,
            unseen,
            took: begun.elapsed(),
        });
        Ok(true)
    }

    /// Takes the changed migrations back, newest first, as far as there are down files, and compares each state with that before.
    async fn back(
        &self,
        chain: &Chain,
        way: &Way,
        states: &BTreeMap<usize, additive::State>,
        files: &Files,
        review: &mut Review,
    ) -> Result<bool, GateError> {
        let count = way.end - way.oldest;
        if count == 0 {
            review.skip("down", if way.first == way.end { "nothing changed" } else { "the newest has no down file" });
            return Ok(true);
        }
        let stops: Vec<usize> = if way.is_each() { (way.oldest..way.end).rev().collect() } else { vec![way.oldest] };
        let (mut left, mut known) = (0, BTreeSet::new());
        for stop in stops {
            let to = stop.checked_sub(1).map(|at| chain.migrations[at].version.clone());
            if let Err(error) = self.runner(chain).go(&Goal::Down(to), &mut Applied::default()).await {
                self.failed(chain, files, "down", error, review);
                return Ok(false);
            }
            let Some(state) = states.get(&stop) else { continue };
            let mut found = drift::since(&state.things, &self.session).await?;
            // What a newer one left is still there, and is not the older one's.
            found.retain(|one| known.insert((one.kind.clone(), one.identity.clone())));
            if way.is_each() && !way.touched.contains(&stop) {
                continue;
            }
            left += found.len();
            let migration = &chain.migrations[stop];
            let script = migration.down.as_ref().unwrap_or(&migration.up);
            let whose = if way.is_each() {
                "the down file".to_owned()
            } else {
                format!("the down files back to that of {}", migration.title())
            };
            for one in found.iter().take(20) {
                review.at(files, script, None, leaves(one, &whose));
            }
        }
        let rest = match way.oldest.checked_sub(1).filter(|_| way.oldest > way.first) {
            Some(at) => {
                format!("; {} not, since {} has no down file", way.oldest - way.first, chain.migrations[at].title())
            }
            None => String::new(),
        };
        review.check("down", format!("{count} taken back, {left} thing(s) not as before{rest}"));
        Ok(true)
    }

    /// Tells of a script that failed, at its place.
    fn failed(&self, chain: &Chain, files: &Files, check: &'static str, error: StepError, review: &mut Review) {
        let code = match check {
            "verify" => "verify-failed",
            "down" => "down-failed",
            "again" => "again-failed",
            _ => "migration-failed",
        };
        let one = finding(code, Severity::Error, error.message.clone());
        let one = match &error.help {
            Some(help) => one.help(help.clone()),
            None => one,
        };
        match scripts(chain)
            .filter(|script| error.message.contains(script.shown.as_str()))
            .max_by_key(|script| script.shown.len())
        {
            Some(script) => review.at(files, script, line_of(&error), one),
            None => review.nowhere(one),
        }
        review.check(check, "failed");
    }
}

/// The way through a chain: what is tried, and where its state is kept.
struct Way {
    /// Position of the first migration of which a file changed.
    first: usize,
    /// How many there are.
    end: usize,
    /// Positions of those of which a file changed.
    touched: BTreeSet<usize>,
    /// Position of the oldest that can be taken back; `end` if the newest cannot.
    oldest: usize,
}

impl Way {
    fn of(chain: &Chain, files: &Files) -> Self {
        let end = chain.migrations.len();
        let touched: BTreeSet<usize> = (0..end).filter(|at| files.is_touched(&chain.migrations[*at])).collect();
        let first = touched.first().copied().unwrap_or(end);
        let backable = chain.migrations[first..].iter().rev().take_while(|one| one.down.is_some()).count();
        Self { first, end, touched, oldest: end - backable }
    }

    /// Whether each migration is looked at by itself.
    fn is_each(&self) -> bool {
        self.end - self.first <= ONE_BY_ONE
    }

    /// Whether the state before the migration at a position is kept.
    fn is_looked_at(&self, at: usize) -> bool {
        self.is_each() || at == self.oldest || at == self.end
    }
}

fn leaves(one: &Difference, whose: &str) -> pgrunbook_document::Diagnostic {
    let change = match one.change {
        drift::Change::Extra => "stays",
        drift::Change::Missing => "is gone for good",
        drift::Change::Different => "is not as it was",
    };
    finding("down-incomplete", Severity::Error, format!("after {whose} {} {} {change}", one.kind, one.identity))
        .help("the down file takes back all that the migration did, and nothing else")
}

/// The first migrations of a chain, without its repeatable files.
fn part(chain: &Chain, count: usize) -> Chain {
    Chain { migrations: chain.migrations[..count].to_vec(), repeatable: Vec::new(), ..chain.clone() }
}

fn scripts(chain: &Chain) -> impl Iterator<Item = &Script> {
    let versioned = chain.migrations.iter().flat_map(|one| [Some(&one.up), one.down.as_ref(), one.verify.as_ref()]);
    versioned.flatten().chain(chain.repeatable.iter().map(|file| &file.script))
}

/// The strongest lock that is held on a relation at the end.
fn strongest<'s>(seen: &'s DryRun, relation: &str) -> Option<&'s str> {
    let modes = seen.locks.iter().filter(|(name, _)| name == relation).map(|(_, mode)| mode.as_str());
    modes.max_by_key(|mode| rank(mode))
}

async fn smoke(wish: &Wish<'_>, files: &Files, place: &Place<'_>, review: &mut Review) {
    if wish.smoke.is_empty() {
        review.skip("smoke", "no --smoke file is named");
        return;
    }
    let mut held = 0;
    for path in &wish.smoke {
        let script = script(path, files);
        match verify_script(&place.session, &script, place.around.cancel).await {
            Ok(()) => held += 1,
            Err(error) => {
                let one = finding("smoke-failed", Severity::Error, error.message.clone());
                review.at(files, &script, line_of(&error), one);
            }
        }
    }
    review.check("smoke", format!("{held} of {} file(s) held", wish.smoke.len()));
}
