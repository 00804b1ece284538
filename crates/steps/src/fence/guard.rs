//! Sets a fence: lock, triggers, marker and record in one transaction.

use std::pin::pin;
use std::time::{Duration, Instant};

use pgrunbook_engine::Cancel;
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_postgres::retry::LOCK_NOT_AVAILABLE;
use pgrunbook_postgres::{Lsn, PgError, Session};

use super::error::FenceError;
use super::holder::{self, Holder};
use super::proof::{Proof, prove_as, subscribed};
use super::standing::{Held, ROW_TRIGGER, TRIGGER, held, install, is_committed};
use super::table::{Found, tables};
use super::{lift, privilege};
use crate::topology::literal;

/// Characters of a message; it is shown to every writer that is refused.
const MESSAGE_LIMIT: usize = 1_000;

/// Characters of an id; it stands in the marker and in names of sessions.
const ID_LIMIT: usize = 200;

/// `query_canceled`: a `statement_timeout`, among others.
const QUERY_CANCELED: &str = "57014";

/// `deadlock_detected`.
const DEADLOCK: &str = "40P01";

/// How writers are kept out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    /// Triggers that refuse, also superusers. Needs the tables' owner.
    #[default]
    Triggers,
    /// Privileges taken away, for where triggers cannot be made. Weaker: superusers write on, and writers hear only
    /// "permission denied".
    Privileges,
}

/// How long writers may be made to wait, and how long it is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// How long one try waits for all its locks together: no writer queues behind it for longer.
    pub lock_timeout: Duration,
    /// How many tries at most; 0: as many as the budget has room for.
    pub attempts: u32,
    /// How long it is tried in all.
    pub budget: Duration,
}

impl Patience {
    /// As many tries as the budget has room for, and at least one whose end is within it: only then it can be told who was in the way.
    pub fn within(lock_timeout: Duration, budget: Duration) -> Self {
        Self { lock_timeout: lock_timeout.min(budget / 3), attempts: 0, budget }
    }
}

impl Default for Patience {
    /// Tries of half a second, for half a minute.
    fn default() -> Self {
        Self { lock_timeout: Duration::from_millis(500), attempts: 0, budget: Duration::from_secs(30) }
    }
}

/// A fence that is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    /// Names the marker `fence:<id>`; never used twice in a database.
    pub id: String,
    pub schema: String,
    /// Only these tables of it; none: all. What hangs below them is taken along.
    pub tables: Vec<String>,
    /// What refused writers read. `{table}` in it is replaced by the table's name, and nothing else.
    pub message: String,
    pub by: By,
    pub patience: Patience,
    pub run: Option<String>,
    pub operator: String,
    /// The application's role: a write is tried as it, and must be refused.
    pub trial_as: Option<String>,
    /// The statement that the transaction begins with: that this process still owns the run.
    pub assert: Option<String>,
    /// The statement that it ends with: the ledger's row.
    pub record: Option<String>,
}

/// A fence that was set.
#[derive(Debug, Clone, PartialEq)]
pub struct Fenced {
    pub id: String,
    pub schema: String,
    /// Where the marker stands.
    pub marker: Lsn,
    /// The WAL's insert position right after the COMMIT: everything that writers committed is before it.
    pub lsn: Lsn,
    /// The server's time of the fence, ISO 8601.
    pub at: String,
    /// From the first try to the locks.
    pub waited: Duration,
    pub tries: u32,
    /// How long the locks were held: what a writer waited at most, beside the tries.
    pub locked_for: Duration,
    /// As SQL names them, in the order in which they were locked.
    pub tables: Vec<String>,
    /// By privileges.
    pub weak: bool,
    pub proof: Proof,
}

/// Sets a fence and proves it.
///
/// Safe to give up at any moment: until the COMMIT nothing is changed, and a session that is dropped rolls back. A session
/// in the replica role may not be used. One that fails the proof is lifted again.
///
/// # Errors
/// [`FenceError::Blocked`] with who held it up when the patience is over; [`FenceError::Held`] if another fence stands.
/// With [`PgError::Lost`] at the COMMIT it is in doubt, and [`super::is_committed`] tells.
pub async fn fence(session: &Session, wish: &Fence, cancel: &Cancel) -> Result<Fenced, FenceError> {
    check(wish)?;
    install(session).await?;
    if is_committed(session, &wish.id).await? {
        return Err(FenceError::Used { id: wish.id.clone(), schema: wish.schema.clone() });
    }
    let begun = Instant::now();
    let mut found = tables(session, &wish.schema, &wish.tables).await?;
    refuse_subscribed(session, &wish.schema, &found).await?;
    let mut tries = Tries::begin(session, &wish.patience, &wish.schema, "set").await?;
    let set = loop {
        lockable(session, wish, &found)?;
        if let Some(standing) = held(session, &wish.schema).await? {
            let Held { id, since, operator, .. } = standing;
            return Err(FenceError::Held { schema: wish.schema.clone(), id, since, operator });
        }
        if cancel.is_stopping() {
            return Err(FenceError::Stopped { schema: wish.schema.clone() });
        }
        match tries.once(session, attempt(session, wish, &found), cancel).await? {
            Some(Attempt::Set(set)) => break set,
            // A table came or went between the look and the locks.
            Some(Attempt::Moved(now)) => found = now,
            None => {}
        }
    };
    let locked = set.locked_at.duration_since(begun);
    let proof = prove_as(session, &wish.schema, wish.trial_as.as_deref()).await?;
    if let Err(why) = proof.holds() {
        let lift = lift::Lift { schema: &wish.schema, id: Some(&wish.id), by: &wish.operator, ..lift::Lift::default() };
        lift::unfence(session, &lift, cancel).await?;
        return Err(FenceError::Broken { schema: wish.schema.clone(), why });
    }
    Ok(Fenced {
        id: wish.id.clone(),
        schema: wish.schema.clone(),
        marker: set.marker,
        lsn: set.lsn,
        at: set.at,
        waited: locked,
        tries: tries.made,
        locked_for: set.locked_for,
        tables: found.tables.iter().map(super::table::Table::sql).collect(),
        weak: wish.by == By::Privileges,
        proof,
    })
}

/// Refuses a schema into which an enabled subscription writes: its worker is in the replica role, which no fence stops.
///
/// # Errors
/// [`FenceError::Subscribed`] with those to disable first.
pub async fn refuse_fed(session: &Session, schema: &str) -> Result<(), FenceError> {
    let found = tables(session, schema, &[]).await?;
    refuse_subscribed(session, schema, &found).await
}

async fn refuse_subscribed(session: &Session, schema: &str, found: &Found) -> Result<(), FenceError> {
    let ids: Vec<u32> = found.tables.iter().map(|table| table.oid).collect();
    let names = subscribed(session, &ids).await?;
    match names.is_empty() {
        true => Ok(()),
        false => Err(FenceError::Subscribed { schema: schema.to_owned(), names }),
    }
}

fn check(wish: &Fence) -> Result<(), FenceError> {
    let refuse = |why: &str| Err(FenceError::Wish { id: wish.id.clone(), why: why.to_owned() });
    let holds_nul = [&wish.id, &wish.schema, &wish.message, &wish.operator].iter().any(|text| text.contains('\0'));
    match wish {
        _ if holds_nul => refuse("a text holds a NUL byte"),
        Fence { id, .. } if id.is_empty() || id.chars().count() > ID_LIMIT => refuse("its id has 1 to 200 characters"),
        Fence { message, .. } if message.trim().is_empty() => refuse("it needs a message that says where to write now"),
        Fence { message, .. } if message.chars().count() > MESSAGE_LIMIT => {
            refuse("its message has at most 1,000 characters")
        }
        Fence { patience, .. } if patience.lock_timeout.is_zero() => {
            refuse("a `lock_timeout` of 0 would make writers wait without end")
        }
        _ => Ok(()),
    }
}

fn lockable(session: &Session, wish: &Fence, found: &Found) -> Result<(), FenceError> {
    let missing: Vec<String> =
        wish.tables.iter().filter(|name| !found.tables.iter().any(|table| table.name == **name)).cloned().collect();
    if found.tables.is_empty() || !missing.is_empty() {
        return Err(FenceError::NoTable { schema: wish.schema.clone(), missing });
    }
    // DROP TRIGGER is the owner's, so that a fence that could not be lifted is never set.
    let others: Vec<String> = found
        .tables
        .iter()
        .filter(|table| !table.owned)
        .map(|table| format!("{} (of {})", table.sql(), table.owner))
        .collect();
    if wish.by == By::Triggers && !others.is_empty() {
        return Err(FenceError::NotOwner { role: session.options().user.clone(), tables: others });
    }
    Ok(())
}

/// A committed fence.
struct Set {
    marker: Lsn,
    lsn: Lsn,
    at: String,
    locked_at: Instant,
    locked_for: Duration,
}

enum Attempt {
    Set(Set),
    Moved(Found),
}

async fn attempt(session: &Session, wish: &Fence, found: &Found) -> Result<Attempt, PgError> {
    let names: Vec<String> = found.tables.iter().map(super::table::Table::sql).collect();
    let only: Vec<String> = names.iter().map(|name| format!("ONLY {name}")).collect();
    session.execute(&begin(&wish.patience, wish.assert.as_deref())).await?;
    session.execute(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", only.join(", "))).await?;
    let locked_at = Instant::now();
    // From here on writers wait. What was prepared before the locks may be stale by now.
    session.execute("SET LOCAL statement_timeout = 0").await?;
    let now = tables(session, &wish.schema, &wish.tables).await?;
    // Another operator may have been faster, and held the locks that this one waited for.
    if now != *found || held(session, &wish.schema).await?.is_some() {
        session.execute("ROLLBACK").await?;
        return Ok(Attempt::Moved(now));
    }
    let (closing, undo) = match wish.by {
        By::Triggers => (triggers(found, &wish.message), Vec::new()),
        By::Privileges => privilege::taken(session, found).await?,
    };
    let record = wish.record.as_ref().map_or_else(String::new, |record| format!("; {record}"));
    let run = wish.run.as_deref().map_or_else(|| "NULL".to_owned(), literal);
    let marker = session
        .value(&format!(
            "{closing}{record};
             WITH marker AS (SELECT pg_catalog.pg_logical_emit_message(true, 'pgrunbook', {marker}) AS lsn)
             INSERT INTO pgrunbook.fence (id, schema, state, kind, message, tables, whole, run, operator, marker, undo)
             SELECT {id}, {schema}, 'fenced', '{kind}', {message}, {tables}, {whole}, {run}, {operator}, lsn, {undo}
             FROM marker RETURNING marker",
            marker = literal(&format!("fence:{}", wish.id)),
            id = literal(&wish.id),
            schema = literal(&wish.schema),
            kind = if wish.by == By::Triggers { "triggers" } else { "privileges" },
            message = literal(&wish.message),
            tables = texts(&names),
            whole = wish.tables.is_empty(),
            operator = literal(&wish.operator),
            undo = texts(&undo),
        ))
        .await?;
    fault::pass(Point::BeforeCommit);
    session.execute("COMMIT").await?;
    let locked_for = locked_at.elapsed();
    fault::pass(Point::AfterCommit);
    let answers = session.simple(AFTER).await?;
    let row = answers.into_iter().next_back().and_then(|answer| answer.rows.into_iter().next()).unwrap_or_default();
    let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let lsn = |text: String| {
        text.parse::<Lsn>().map_err(|error| PgError::Client(format!("the server gave no position: {error}")))
    };
    Ok(Attempt::Set(Set { marker: lsn(marker)?, lsn: lsn(text(0))?, at: text(1), locked_at, locked_for }))
}

const AFTER: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text,
    pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// Begins a transaction whose waits are short. `lock_timeout` is for each lock, so `statement_timeout` limits them all.
/// A fence that a crash forgets would be none: `synchronous_commit` is on at least locally.
pub(super) fn begin(patience: &Patience, assert: Option<&str>) -> String {
    let wait = patience.lock_timeout.as_millis().max(1);
    let assert = assert.map_or_else(String::new, |assert| format!("; {assert}"));
    format!(
        "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {wait};
         SET LOCAL statement_timeout = 0;
         SELECT pg_catalog.set_config('synchronous_commit', 'local', true)
         WHERE pg_catalog.current_setting('synchronous_commit') = 'off'{assert}; SET LOCAL statement_timeout = {wait}"
    )
}

/// Sets the triggers, in the order of the locks. `OR REPLACE` also wakes one that a lifted fence left disabled.
fn triggers(found: &Found, message: &str) -> String {
    let message = literal(message);
    let mut text = String::new();
    for table in &found.tables {
        let name = table.sql();
        text.push_str(&format!(
            "CREATE OR REPLACE TRIGGER {TRIGGER} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {name}
             FOR EACH STATEMENT EXECUTE FUNCTION pgrunbook.refuse_write({message});\n"
        ));
        if table.led_from_outside && !table.partitioned {
            text.push_str(&format!(
                "CREATE OR REPLACE TRIGGER {ROW_TRIGGER} BEFORE INSERT OR UPDATE OR DELETE ON {name}
                 FOR EACH ROW EXECUTE FUNCTION pgrunbook.refuse_write({message});\n"
            ));
        }
    }
    text.push_str("SELECT 1");
    text
}

/// A literal of type `text[]`.
pub(super) fn texts(texts: &[String]) -> String {
    let all: Vec<String> = texts.iter().map(|text| literal(text)).collect();
    format!("ARRAY[{}]::pg_catalog.text[]", all.join(", "))
}

/// Tries that wait briefly, let everything go, and begin again; and who held them up.
pub(super) struct Tries<'a> {
    patience: &'a Patience,
    schema: &'a str,
    done: &'static str,
    observer: Session,
    begun: Instant,
    pub made: u32,
    seen: Vec<Holder>,
}

impl<'a> Tries<'a> {
    /// Opens a second session beside `session`: it looks who is in the way while the first waits, since afterwards it is
    /// too late to ask.
    pub async fn begin(
        session: &Session,
        patience: &'a Patience,
        schema: &'a str,
        done: &'static str,
    ) -> Result<Self, PgError> {
        let observer = Session::connect(session.options(), "pgrunbook:fence:observer").await?;
        Ok(Self { patience, schema, done, observer, begun: Instant::now(), made: 0, seen: Vec::new() })
    }

    /// One try. `None`: it was held up, everything was let go, and the pause is over.
    pub async fn once<T>(
        &mut self,
        session: &Session,
        attempt: impl Future<Output = Result<T, PgError>>,
        cancel: &Cancel,
    ) -> Result<Option<T>, FenceError> {
        self.made += 1;
        let wait = self.patience.lock_timeout;
        let (observer, pid) = (&self.observer, session.backend_pid());
        let mut look = pin!(async move {
            tokio::time::sleep(wait / 2).await;
            holder::holders(observer, pid).await.unwrap_or_default()
        });
        let mut work = pin!(attempt);
        let mut looking = true;
        // Cancellation: only the look is dropped half-way; it reads.
        let result = loop {
            tokio::select! {
                biased;
                result = &mut work => break result,
                found = &mut look, if looking => {
                    looking = false;
                    if !found.is_empty() {
                        self.seen = found;
                    }
                }
            }
        };
        let error = match result {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        if !matches!(error, PgError::Lost { .. }) {
            // Lets every lock go before anything else is done.
            session.execute("ROLLBACK").await?;
        }
        if !matches!(error.sqlstate(), Some(LOCK_NOT_AVAILABLE | QUERY_CANCELED | DEADLOCK)) {
            return Err(error.into());
        }
        let spent = self.begun.elapsed();
        // As long a pause as a wait: writers have at least half of the time for themselves.
        let over = (self.patience.attempts > 0 && self.made >= self.patience.attempts)
            || spent + wait + wait > self.patience.budget;
        if over {
            return Err(FenceError::Blocked {
                schema: self.schema.to_owned(),
                done: self.done,
                attempts: self.made,
                waited: spent,
                holders: std::mem::take(&mut self.seen),
            });
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = cancel.stopping() => {}
        }
        Ok(None)
    }
}
