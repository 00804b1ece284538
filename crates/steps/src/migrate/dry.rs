//! A dry run: everything that is pending, in one transaction that is rolled back, and the locks it took.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{PgError, Session};

use super::runner::{Runner, chain_error};
use super::send::{self, Broken};
use super::text::{Mode, Text};

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
        if text.mode != Mode::Transaction || !seen.not_tried.is_empty() {
            let why = text.mode.note().unwrap_or_else(|| "it comes after one that was not tried".to_owned());
            seen.not_tried.push(format!("{}: {why}", script.shown));
            continue;
        }
        let count = text.statements.len();
        match send::run(&session, &text, 0..count, "", "", runner.around.cancel).await {
            Ok(()) => seen.ran.push(script.shown.clone()),
            Err(Broken::Lost(error)) => return Err(read(error)),
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
