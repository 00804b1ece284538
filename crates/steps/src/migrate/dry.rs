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
}

/// Relations that are locked by more than a reader.
const LOCKS: &str = "SELECT DISTINCT l.relation, l.relation::regclass::text, l.mode FROM pg_catalog.pg_locks AS l
    WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.mode <> 'AccessShareLock'
      AND l.relation >= 16384
    ORDER BY 2, 3";

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
    let answers = session.simple(LOCKS).await.map_err(read)?;
    let rows = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    // What the files make is locked too, and is in nobody's way: another session does not see it.
    let observer = Session::connect(runner.target, "pgrunbook:dry-run").await.map_err(read)?;
    for row in rows {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || cells.next().unwrap_or_default();
        let (oid, relation, mode) = (next(), next(), next());
        let ours = format!(
            "SELECT count(*) FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
             WHERE c.oid = {} AND n.nspname <> 'pgrunbook'",
            oid.parse::<u32>().unwrap_or_default()
        );
        if observer.value(&ours).await.map_err(read)? == "1" {
            seen.locks.push((relation, mode));
        }
    }
    session.execute("ROLLBACK").await.map_err(read)?;
    Ok(seen)
}
