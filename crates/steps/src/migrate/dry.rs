//! A dry run: everything that is pending, in one transaction that is rolled back, and the locks it took.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_engine::{Cancel, StepError};
use pgrunbook_postgres::{PgError, Session};

use super::runner::{AFRESH, Runner, chain_error};
use super::send::{self, Broken};
use super::text::Text;

/// What a dry run saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DryRun {
    /// Files that ran and were rolled back.
    pub ran: Vec<String>,
    /// Files that cannot run in a transaction, and why: from here on nothing was tried.
    pub not_tried: Vec<String>,
    /// Relations that were locked stronger than a reader locks them, with the mode.
    pub locks: Vec<(String, String)>,
    /// Tables that were there and were written anew.
    pub rewrites: Vec<String>,
    /// Tables that were there and were read from end to end.
    pub scans: Vec<String>,
    /// What each statement of the first file did; empty where that was not asked for, or the file makes everything that it touches.
    pub acts: Vec<Act>,
    /// Each relation that is named above, with its schema and in quotes where it needs them.
    pub qualified: BTreeMap<String, String>,
}

impl DryRun {
    /// Makes the sums of what each statement did.
    pub(super) fn sum_up(&mut self) {
        let all = |of: fn(&Act) -> &Vec<String>| {
            let all: BTreeSet<_> = self.acts.iter().flat_map(of).cloned().collect();
            all.into_iter().collect::<Vec<_>>()
        };
        let (rewrites, scans) = (all(|act| &act.rewrites), all(|act| &act.scans));
        let locks: BTreeSet<_> = self.acts.iter().flat_map(|act| &act.locks).cloned().collect();
        self.locks = locks.into_iter().collect();
        self.rewrites = rewrites;
        self.scans = scans;
    }
}

/// What one statement did to relations that were there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Act {
    /// From 1, in the file.
    pub line: usize,
    /// Its beginning, in one line.
    pub statement: String,
    /// Locks that the transaction did not hold before it.
    pub locks: Vec<(String, String)>,
    /// Tables that it wrote anew.
    pub rewrites: Vec<String>,
    /// Tables that it read from end to end.
    pub scans: Vec<String>,
}

/// Characters of a statement that are shown.
const SHOWN: usize = 100;

/// Relations that are locked by more than a reader.
const LOCKS: &str = "SELECT DISTINCT l.relation, l.mode FROM pg_catalog.pg_locks AS l
    WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.mode <> 'AccessShareLock'
      AND l.relation >= 16384
    ORDER BY 1, 2";

/// Of some relations, without those that hold the long values of others: whether it is a table, the file that holds its rows, how often this transaction read it from end to end, and its
/// name, short and whole.
const FILES: &str = "SELECT c.oid, c.relkind IN ('r', 'm'), c.relfilenode, pg_catalog.pg_stat_get_xact_numscans(c.oid),
        c.oid::pg_catalog.regclass::text, pg_catalog.format('%I.%I', n.nspname, c.relname)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = ANY ('{OIDS}'::pg_catalog.oid[]) AND n.nspname NOT IN ('pgrunbook', 'pg_toast')";

/// The same while the transaction goes on: relations that are locked, the modes, their files, and how often they were read.
pub(super) const NOW: &str =
    "SELECT l.relation, l.mode, coalesce(c.relfilenode, 0), pg_catalog.pg_stat_get_xact_numscans(l.relation)
    FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
    WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.mode <> 'AccessShareLock'
      AND l.relation >= 16384";

/// How the transaction stood after a statement: an answer of [`NOW`].
type Glance = Vec<Vec<String>>;

/// A statement's rows, without nulls.
async fn cells(session: &Session, sql: &str) -> Result<Vec<Vec<String>>, StepError> {
    let answers = session.simple(sql).await.map_err(PgError::into_step_error)?;
    let rows = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    Ok(rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
}

/// What the server answers where only the missing commit of an earlier file is in the way: an enum value that is not safe
/// to use yet, and a table with pending trigger events.
const UNCOMMITTED: [&str; 2] = ["55P04", "55006"];

/// Runs what is pending and takes it back.
///
/// # Errors
/// If a file fails, with its line; nothing stays.
pub async fn dry_run(runner: &Runner<'_>) -> Result<DryRun, StepError> {
    run(runner, Look::AtTheEnd).await
}

/// The same, and what each statement of the first file does: two more round trips for each statement but the last.
///
/// # Errors
/// As [`dry_run`].
pub async fn dry_run_of_each(runner: &Runner<'_>) -> Result<DryRun, StepError> {
    run(runner, Look::AfterEach).await
}

/// When locks and files are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    AtTheEnd,
    AfterEach,
}

async fn run(runner: &Runner<'_>, look: Look) -> Result<DryRun, StepError> {
    let read = PgError::into_step_error;
    let session = Session::connect(runner.target, "pgrunbook:dry-run").await.map_err(read)?;
    let (standing, _) = Runner::standing(runner.chain, &session).await.map_err(read)?;
    let mut seen = DryRun::default();
    session.execute(&format!("BEGIN; {}", runner.options.locks.set_local())).await.map_err(read)?;
    let versioned = standing.pending.iter().map(|migration| &migration.up);
    // Lines and beginnings of the first file's statements, and how it stood after each but the last.
    let mut statements = Vec::new();
    let mut glances: Vec<Glance> = Vec::new();
    let scripts: Vec<_> = versioned.chain(standing.repeatable.iter().map(|file| &file.script)).collect();
    for script in scripts {
        let text = Text::read(script).map_err(chain_error)?;
        let first = seen.ran.is_empty();
        let why = match text.mode.note() {
            Some(note) => Some(note),
            None if !seen.not_tried.is_empty() => Some("it comes after one that was not tried".to_owned()),
            None if text.sets_transaction && !first => {
                Some("it begins with SET TRANSACTION, and this transaction has begun".to_owned())
            }
            None => None,
        };
        if let Some(why) = why {
            seen.not_tried.push(format!("{}: {why}", script.shown));
            continue;
        }
        let count = text.statements.len();
        // In a run the file has a session as good as new, and its commit checks what is deferred. The second savepoint
        // takes back that constraints are no longer deferred. (Before SET TRANSACTION there can be none.)
        let enter = runner.options.inside.enter(true);
        let before = match first {
            true => enter,
            false => format!("{AFRESH}{};SAVEPOINT pgrunbook_file;{enter}", runner.options.locks.set_local()),
        };
        let after = "SAVEPOINT pgrunbook_dry; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO pgrunbook_dry;";
        let sent = if first && look == Look::AfterEach {
            let shown = |at: usize| (text.statements[at].line + text.lines_before, beginning(text.statement(at)));
            statements = (0..count).map(shown).collect();
            each(&session, &text, [&before, after], runner.around.cancel, &mut glances).await
        } else {
            send::run(&session, &text, 0..count, &before, after, runner.around.cancel).await
        };
        match sent {
            Ok(()) => seen.ran.push(script.shown.clone()),
            Err(Broken::Lost(error)) => return Err(read(error)),
            Err(Broken::Raised(raised)) if !first && UNCOMMITTED.contains(&raised.error.sqlstate.as_str()) => {
                session.execute("ROLLBACK TO pgrunbook_file").await.map_err(read)?;
                let why = &raised.error.message;
                seen.not_tried.push(format!("{}: it needs the files before it committed: {why}", script.shown));
            }
            Err(Broken::Raised(raised)) => {
                let step = PgError::Server(Box::new(raised.error.clone())).into_step_error();
                let message = format!("{}, line {}: {}; rolled back", script.shown, raised.line, step.message);
                return Err(StepError { message, ..step });
            }
        }
    }
    // What the files make is locked too, and is in nobody's way: another session does not see it.
    let observer = Session::connect(runner.target, "pgrunbook:dry-run").await.map_err(read)?;
    let locked = cells(&session, LOCKS).await?;
    let oids: BTreeSet<&str> = locked.iter().map(|row| row[0].as_str()).collect();
    let oids = oids.into_iter().collect::<Vec<_>>().join(",");
    let before = cells(&observer, &FILES.replace("OIDS", &oids)).await?;
    let was = |oid: &str| before.iter().find(|row| row[0] == oid);
    for row in &locked {
        if let Some(was) = was(&row[0]) {
            seen.locks.push((was[4].clone(), row[1].clone()));
            seen.qualified.insert(was[4].clone(), was[5].clone());
        }
    }
    seen.locks.sort();
    let now = cells(&session, &FILES.replace("OIDS", &oids)).await?;
    for row in &now {
        let Some(was) = was(&row[0]).filter(|was| was[1] == "t") else { continue };
        if was[2] != row[2] {
            seen.rewrites.push(was[4].clone());
        } else if row[3] != "0" {
            seen.scans.push(was[4].clone());
        }
    }
    if look == Look::AfterEach && !seen.locks.is_empty() {
        let last = |locked: &Vec<String>| {
            let file = now.iter().find(|row| row[0] == locked[0]);
            let cell = |at: usize| file.map_or_else(|| "0".to_owned(), |row| row[at].clone());
            vec![locked[0].clone(), locked[1].clone(), cell(2), cell(3)]
        };
        glances.push(locked.iter().map(last).collect());
        seen.acts = acts(&statements, &glances, &before);
    }
    session.execute("ROLLBACK").await.map_err(read)?;
    Ok(seen)
}

/// Sends the statements of a script one by one, and looks after each but the last. `around`: what goes in front of the first and
/// behind the last.
async fn each(
    session: &Session,
    text: &Text,
    around: [&str; 2],
    cancel: &Cancel,
    glances: &mut Vec<Glance>,
) -> Result<(), Broken> {
    let count = text.statements.len();
    if count < 2 {
        return send::run(session, text, 0..count, around[0], around[1], cancel).await;
    }
    for at in 0..count {
        let before = if at == 0 { around[0] } else { "" };
        let after = if at + 1 == count { around[1] } else { "" };
        send::run(session, text, at..at + 1, before, after, cancel).await?;
        if at + 1 < count {
            let answers = session.simple(NOW).await?;
            let rows = answers.into_iter().flat_map(|answer| answer.rows);
            glances.push(rows.map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect());
        }
    }
    Ok(())
}

/// What came with each statement. `before`: an answer of [`FILES`] by somebody who does not see the transaction.
fn acts(statements: &[(usize, String)], glances: &[Glance], before: &[Vec<String>]) -> Vec<Act> {
    let mut held: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut files: BTreeMap<&str, (&str, &str)> =
        before.iter().map(|row| (row[0].as_str(), (row[2].as_str(), "0"))).collect();
    let mut acts = Vec::new();
    for ((line, statement), glance) in statements.iter().zip(glances) {
        let mut act = Act { line: *line, statement: statement.clone(), ..Act::default() };
        let mut looked = BTreeSet::new();
        for row in glance {
            let [oid, mode, file, reads] = &row[..] else { continue };
            let (oid, mode, file, reads) = (oid.as_str(), mode.as_str(), file.as_str(), reads.as_str());
            let Some(was) = before.iter().find(|was| was[0] == oid) else { continue };
            if held.insert((oid, mode)) {
                act.locks.push((was[4].clone(), mode.to_owned()));
            }
            if !looked.insert(oid) {
                continue;
            }
            let last = files.insert(oid, (file, reads)).unwrap_or((file, "0"));
            // A table that is gone has no file.
            if was[1] == "t" && file != "0" {
                if last.0 != file {
                    act.rewrites.push(was[4].clone());
                } else if last.1 != reads {
                    act.scans.push(was[4].clone());
                }
            }
        }
        act.locks.sort();
        act.rewrites.sort();
        act.scans.sort();
        if !(act.locks.is_empty() && act.rewrites.is_empty() && act.scans.is_empty()) {
            acts.push(act);
        }
    }
    acts
}

/// The beginning of a statement, in one line.
pub(super) fn beginning(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN {
        return line;
    }
    line.chars().take(SHOWN).chain(['…']).collect()
}
