//! Watches a file that cannot run in one transaction while it is applied, statement by statement.
//!
//! A dry run takes everything back, and so cannot try such a file. Here each statement that may stand in a transaction gets one of its
//! own, and is looked at before that commits, as a dry run does. What may not is looked at by somebody beside, who holds a weak lock on
//! every table until the statement waits for it: so the lock with which it begins is always seen, however short it is held. What it
//! locks later is seen if it is there long enough to be met. A table that was written anew has another file afterwards, whatever the way.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgrunbook_document::sql::{Class, Control, classify};
use pgrunbook_engine::Cancel;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use super::dry::{Act, DryRun, NOW, beginning};
use super::send::{self, Broken, Raised};
use super::text::Text;

/// Between two looks from beside: a look takes about as long.
const PAUSE: Duration = Duration::from_millis(1);

/// What there is: a relation, whether it is a table, the file that holds its rows, its name, short and whole.
const RELATIONS: &str = "SELECT c.oid, c.relkind IN ('r', 'm'), c.relfilenode, c.oid::pg_catalog.regclass::text,
        pg_catalog.format('%I.%I', n.nspname, c.relname)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND n.nspname NOT IN ('pgrunbook', 'pg_toast') AND n.nspname !~ '^pg_temp_'";

/// The tables that can be held, in one line of SQL.
const HOLDABLE: &str =
    "SELECT coalesce(pg_catalog.string_agg(pg_catalog.format('ONLY %I.%I', n.nspname, c.relname), ', ' ORDER BY c.oid), '')
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pgrunbook', 'pg_toast') AND n.nspname !~ '^pg_temp_'";

/// What a session holds or waits for: relation (0 where it is none), mode, and whether it waits.
const OF: &str = "SELECT CASE WHEN l.locktype = 'relation' THEN l.relation ELSE 0 END, l.mode, NOT l.granted
    FROM pg_catalog.pg_locks AS l WHERE l.pid = PID AND (l.locktype = 'relation' AND l.mode <> 'AccessShareLock' OR NOT l.granted)";

/// Somebody who looks on while a file is applied.
pub struct Watch {
    beside: Session,
    state: Mutex<State>,
}

/// What a watch saw.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// As a dry run says it; nothing in it was taken back.
    pub seen: DryRun,
    /// Statements that commit by themselves in their middle, by line: of what they lock, only the first was sure to be met.
    pub unsure: Vec<(usize, String)>,
}

#[derive(Default)]
struct State {
    /// As [`RELATIONS`] was before the file.
    before: Vec<Vec<String>>,
    /// The file of each relation of `before`, now.
    files: BTreeMap<String, String>,
    /// Whether the file's own transaction is open; and what that holds and has read.
    open: bool,
    held: BTreeSet<(String, String)>,
    reads: BTreeMap<String, String>,
    watched: Watched,
}

/// A relation, a mode, and if it is known a file and how often it was read.
type Glance = Vec<Vec<String>>;

impl Watch {
    /// Begins to look on.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn begin(target: &ConnectOptions) -> Result<Self, PgError> {
        let beside = Session::connect(target, "pgrunbook:watch").await?;
        let before = cells(&beside, RELATIONS).await?;
        let files = before.iter().map(|row| (row[0].clone(), row[2].clone())).collect();
        Ok(Self { beside, state: Mutex::new(State { before, files, ..State::default() }) })
    }

    /// What was seen.
    pub fn end(self) -> Watched {
        let mut watched = self.state.into_inner().unwrap_or_else(PoisonError::into_inner).watched;
        watched.seen.sum_up();
        watched
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one statement of a script in a transaction of its own, with `before` and `after` around it in that.
    pub(super) async fn plain(
        &self,
        session: &Session,
        text: &Text,
        at: usize,
        [before, after]: [&str; 2],
        cancel: &Cancel,
    ) -> Result<(), Broken> {
        send::run(session, text, at..at + 1, &format!("BEGIN;{before}"), "", cancel).await?;
        let glance = cells(session, NOW).await?;
        session.execute(&format!("{after}COMMIT")).await.map_err(|error| match error {
            PgError::Server(error) => {
                let line = text.statements[at].line + text.lines_before;
                Broken::Raised(Box::new(Raised { error: *error, line }))
            }
            lost => Broken::Lost(lost),
        })?;
        self.note(text, at, &glance, None);
        self.refresh().await?;
        Ok(())
    }

    /// Runs one statement of a script that controls its own transactions.
    pub(super) async fn own(&self, session: &Session, text: &Text, at: usize, cancel: &Cancel) -> Result<(), Broken> {
        let bare = || send::run(session, text, at..at + 1, "", "", cancel);
        let head = text.statements[at].head.as_str();
        let open = self.state().open;
        match classify(text.statement(at)) {
            Class::Control(control) => {
                bare().await?;
                self.controlled(control, text.statement(at)).await?;
            }
            // What sets a transaction's characteristics must come before any query.
            _ if open && head.starts_with("SET ") => bare().await?,
            _ if open => {
                bare().await?;
                let glance = cells(session, NOW).await?;
                self.note(text, at, &glance, None);
            }
            Class::Plain if !commits(head) => self.plain(session, text, at, ["", ""], cancel).await?,
            _ => self.outside(session, text, at, cancel).await?,
        }
        Ok(())
    }

    /// Follows the file's own transactions.
    async fn controlled(&self, control: Control, statement: &str) -> Result<(), PgError> {
        let goes_on = statement.to_lowercase().contains("chain") && !statement.to_lowercase().contains("no chain");
        let open = match control {
            Control::Begin => true,
            Control::Commit | Control::Rollback => goes_on,
            Control::Savepoint => return Ok(()),
            Control::Prepare | Control::Prepared => false,
        };
        {
            let mut state = self.state();
            state.open = open;
            state.held.clear();
            state.reads.clear();
        }
        // What was rolled back has its old file again.
        if open { Ok(()) } else { self.refresh().await.map(drop) }
    }

    /// Runs a statement without a transaction, and looks on from beside.
    pub(super) async fn outside(
        &self,
        session: &Session,
        text: &Text,
        at: usize,
        cancel: &Cancel,
    ) -> Result<(), Broken> {
        let mut holding = self.hold().await?;
        let held = holding;
        let question = OF.replace("PID", &session.backend_pid().to_string());
        let mut glance = Glance::new();
        let done = {
            let mut statement = pin!(send::run(session, text, at..at + 1, "", "", cancel));
            loop {
                let look = async {
                    let rows = cells(&self.beside, &question).await;
                    tokio::time::sleep(PAUSE).await;
                    rows
                };
                // Cancellation: an answer that nobody waits for any more is thrown away by the driver.
                let rows = tokio::select! {
                    done = &mut statement => break done,
                    rows = look => rows?,
                };
                let waits = rows.iter().any(|row| row[2] == "t");
                glance.extend(rows.into_iter().filter(|row| row[0] != "0"));
                if holding && waits {
                    holding = false;
                    self.beside.execute("COMMIT").await?;
                }
            }
        };
        if holding {
            self.beside.execute("COMMIT").await?;
        }
        done?;
        let changed = self.refresh().await?;
        self.note(text, at, &glance, Some(&changed));
        if commits(&text.statements[at].head) || !held {
            let line = text.statements[at].line + text.lines_before;
            self.state().watched.unsure.push((line, beginning(text.statement(at))));
        }
        Ok(())
    }

    /// Takes a lock on every table that keeps out whatever wants to change its shape, and itself; whether there is one.
    async fn hold(&self) -> Result<bool, PgError> {
        let tables = self.beside.value(HOLDABLE).await?;
        if tables.is_empty() {
            return Ok(true);
        }
        let lock = format!("BEGIN; LOCK TABLE {tables} IN SHARE UPDATE EXCLUSIVE MODE NOWAIT");
        match self.beside.execute(&lock).await {
            Ok(()) => Ok(true),
            // Not this role's, or more tables than there is room for locks.
            Err(PgError::Server(_)) => self.beside.execute("ROLLBACK").await.map(|()| false),
            Err(lost) => Err(lost),
        }
    }

    /// Looks at the files anew: the relations whose file is another than was noted.
    async fn refresh(&self) -> Result<BTreeSet<String>, PgError> {
        let now = cells(&self.beside, RELATIONS).await?;
        let mut state = self.state();
        let mut changed = BTreeSet::new();
        for row in now {
            if let Some(file) = state.files.get_mut(&row[0])
                && *file != row[2]
            {
                file.clone_from(&row[2]);
                changed.insert(row[0].clone());
            }
        }
        Ok(changed)
    }

    /// Notes what came with a statement. `changed`: relations with another file, where the glance does not say it.
    fn note(&self, text: &Text, at: usize, glance: &Glance, changed: Option<&BTreeSet<String>>) {
        let mut state = self.state();
        let State { before, files, open, held, reads, watched, .. } = &mut *state;
        if !*open {
            held.clear();
            reads.clear();
        }
        let line = text.statements[at].line + text.lines_before;
        let mut act = Act { line, statement: beginning(text.statement(at)), ..Act::default() };
        let mut qualified = |was: &Vec<String>| {
            watched.seen.qualified.insert(was[3].clone(), was[4].clone());
            was[3].clone()
        };
        for was in before.iter() {
            let oid = was[0].as_str();
            let rows: Vec<_> = glance.iter().filter(|row| row[0] == oid).collect();
            for row in &rows {
                if held.insert((oid.to_owned(), row[1].clone())) {
                    act.locks.push((qualified(was), row[1].clone()));
                }
            }
            if was[1] != "t" {
                continue;
            }
            if let Some(changed) = changed {
                if changed.contains(oid) {
                    act.rewrites.push(qualified(was));
                }
            } else if let Some(row) = rows.first().filter(|row| row[2] != "0") {
                let read = reads.insert(oid.to_owned(), row[3].clone()).unwrap_or_else(|| "0".to_owned());
                if files.insert(oid.to_owned(), row[2].clone()).is_some_and(|file| file != row[2]) {
                    act.rewrites.push(qualified(was));
                } else if read != row[3] {
                    act.scans.push(qualified(was));
                }
            }
        }
        act.locks.sort();
        if !(act.locks.is_empty() && act.rewrites.is_empty() && act.scans.is_empty()) {
            watched.seen.acts.push(act);
        }
    }
}

/// Whether a statement may commit in its middle, so that a transaction around it would break it.
fn commits(head: &str) -> bool {
    matches!(head.split(' ').next(), Some("CALL" | "DO"))
}

/// A statement's rows, without nulls.
async fn cells(session: &Session, sql: &str) -> Result<Vec<Vec<String>>, PgError> {
    let rows = session.simple(sql).await?.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    Ok(rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
}
