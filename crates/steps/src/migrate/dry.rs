//! A dry run: everything that is pending, in one transaction that is rolled back, and the locks it took.

use pgrunbook_engine::StepError;
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
}

/// Relations that are locked by more than a reader.
const LOCKS: &str = "SELECT DISTINCT l.relation, l.relation::regclass::text, l.mode FROM pg_catalog.pg_locks AS l
    WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.mode <> 'AccessShareLock'
      AND l.relation >= 16384
    ORDER BY 2, 3";

/// Of some relations: whether it is a table, the file that holds its rows, and how often this transaction read it from end to end.
const FILES: &str = "SELECT c.oid, c.relkind IN ('r', 'm'), c.relfilenode, coalesce(s.seq_scan, 0)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_stat_xact_all_tables AS s ON s.relid = c.oid
    WHERE c.oid = ANY ('{OIDS}'::pg_catalog.oid[]) AND n.nspname <> 'pgrunbook'";

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
    let read = PgError::into_step_error;
    let session = Session::connect(runner.target, "pgrunbook:dry-run").await.map_err(read)?;
    let (standing, _) = Runner::standing(runner.chain, &session).await.map_err(read)?;
    let mut seen = DryRun::default();
    session.execute(&format!("BEGIN; {}", runner.options.locks.set_local())).await.map_err(read)?;
    let versioned = standing.pending.iter().map(|migration| &migration.up);
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
        match send::run(&session, &text, 0..count, &before, after, runner.around.cancel).await {
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
    let oids: Vec<&str> = locked.iter().map(|row| row[0].as_str()).collect();
    let before = cells(&observer, &FILES.replace("OIDS", &oids.join(","))).await?;
    let was = |oid: &str| before.iter().find(|row| row[0] == oid);
    for row in &locked {
        if was(&row[0]).is_some() {
            seen.locks.push((row[1].clone(), row[2].clone()));
        }
    }
    for row in cells(&session, &FILES.replace("OIDS", &oids.join(","))).await? {
        let Some(was) = was(&row[0]).filter(|was| was[1] == "t") else { continue };
        let name = locked.iter().find(|locked| locked[0] == row[0]).map(|locked| locked[1].clone()).unwrap_or_default();
        if was[2] != row[2] {
            seen.rewrites.push(name);
        } else if row[3] != "0" {
            seen.scans.push(name);
        }
    }
    session.execute("ROLLBACK").await.map_err(read)?;
    Ok(seen)
}
