//! Makes it so: in one transaction, in which what was intended is read back before it is committed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::step::Failure;
use pgrunbook_engine::{Cancel, Clock, StepError};
use pgrunbook_postgres::retry::{Blocker, LOCK_NOT_AVAILABLE, LockPolicy, LockRetry};
use pgrunbook_postgres::{PgError, Session};

use super::diff::{Gone, Order, Plan, Statement, Wish, diff};
use super::model::{Kind, Topology};
use super::sources::completed;
use super::state::State;
use super::write::{ident, literal, object};

/// Advisory lock: one topology is applied at a time. The key's first half is pgrunbook's (see the ledger), 2 is this.
pub const LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock(1885827694, 2)";

/// More than this part of what was granted is not taken away without `expect_revokes`.
const REVOKED_PART: usize = 10;

/// Another transaction was at the same role or ACL: it changed the tuple (`XX000`), made the role (`23505`, `42710`) or dropped
/// it (`42704`). Roles are the whole cluster's, and [`LOCK`] is this database's. The whole is tried again, on what is there then.
const COLLISIONS: [&str; 4] = ["sqlstate-XX000", "sqlstate-23505", "sqlstate-42710", "sqlstate-42704"];

/// How often it is.
const ATTEMPTS: u32 = 10;

/// How a topology is applied.
pub struct How<'a> {
    pub wish: Wish,
    /// Exactly so many granted privileges are expected to go.
    pub expect_revokes: Option<usize>,
    /// The password of a role, by reference.
    pub password: &'a (dyn Fn(&crate::secret::Reference) -> Result<String, StepError> + Send + Sync),
    /// Begins the transaction: that the run's epoch is still this process's.
    pub assert: Option<String>,
    /// Ends it: the statements that record what happened.
    pub record: Option<&'a (dyn Fn(&Applied) -> String + Send + Sync)>,
    pub locks: LockPolicy,
    pub clock: &'a dyn Clock,
    pub cancel: &'a Cancel,
    /// Tells a line.
    pub tell: &'a (dyn Fn(String) + Send + Sync),
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    pub plan: Plan,
    /// What takes it back, in the order in which it must run: (role to run as, statement).
    pub undo: Vec<(Option<String>, String)>,
    /// Statements for which there is no way back.
    pub one_way: Vec<String>,
}

/// Schemas whose state a declaration needs.
fn schemas(topology: &Topology) -> BTreeSet<&str> {
    let declared = topology.schemas.keys().map(String::as_str);
    declared.chain(topology.retired_schemas.iter().map(String::as_str)).chain(["public"]).collect()
}

/// Reads what is there, and says what would be done. Changes nothing. Registered sources take part, as of the same snapshot.
///
/// # Errors
/// If the server cannot be asked, or the mapping of sources is not to be trusted.
pub async fn plan(session: &Session, topology: &Topology, wish: &Wish) -> Result<Plan, StepError> {
    let lost = PgError::into_step_error;
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(lost)?;
    let read = async {
        let topology = completed(session, topology).await?;
        let state = State::read(session, &schemas(&topology)).await.map_err(lost)?;
        Ok(diff(&topology, &state, wish))
    };
    let plan = read.await;
    session.execute("ROLLBACK").await.map_err(lost)?;
    plan
}

/// Applies a topology. Nothing of it stays if any of it fails, or if what was taken away is still effective.
///
/// # Errors
/// A statement's error; a plan that takes away more than is expected; a privilege that is still effective.
pub async fn apply(session: &Session, topology: &Topology, how: &How<'_>) -> Result<Applied, StepError> {
    let mut retry = LockRetry::new(&how.locks, how.clock, how.cancel);
    let mut collisions = 0;
    loop {
        let attempt = attempt(session, topology, how);
        let blocked = |blockers: &[Blocker], pause| (how.tell)(crate::sql::held_by(blockers, pause));
        match retry.once(session, attempt, blocked).await.map_err(PgError::into_step_error)? {
            None => {}
            Some(Err(error)) if COLLISIONS.contains(&error.code.as_str()) && collisions < ATTEMPTS => {
                collisions += 1;
                (how.tell)("another session was at the same role or privilege: beginning again".to_owned());
            }
            Some(done) => return done,
        }
    }
}

async fn attempt(session: &Session, topology: &Topology, how: &How<'_>) -> Result<Result<Applied, StepError>, PgError> {
    let outcome = in_transaction(session, topology, how).await;
    if outcome.is_err() && !session.is_closed() {
        // What is open is rolled back; a connection that is lost now is closed, and the server does it by itself.
        let _ = session.execute("ROLLBACK").await;
    }
    match outcome {
        Err(Stopped::Locked(error)) => Err(error),
        Err(Stopped::Error(error)) => Ok(Err(error)),
        Ok(applied) => Ok(Ok(applied)),
    }
}

enum Stopped {
    /// A lock was not to be had in time: to be tried again.
    Locked(PgError),
    Error(StepError),
}

impl From<PgError> for Stopped {
    fn from(error: PgError) -> Self {
        if error.sqlstate() == Some(LOCK_NOT_AVAILABLE) {
            return Self::Locked(error);
        }
        // Until COMMIT is sent, a lost connection is no doubt: nothing was committed.
        let error = error.into_step_error();
        let failure = if error.failure == Failure::InDoubt { Failure::Failed } else { error.failure };
        Self::Error(StepError { failure, ..error })
    }
}

async fn in_transaction(session: &Session, topology: &Topology, how: &How<'_>) -> Result<Applied, Stopped> {
    // The advisory lock is waited for as long as it takes; the timeout is for relations.
    session.execute(&format!("BEGIN; {LOCK}; {}", how.locks.set_local())).await?;
    if let Some(assert) = &how.assert {
        session.execute(assert).await?;
    }
    let completed = completed(session, topology).await.map_err(Stopped::Error)?;
    let topology = completed.as_ref();
    let state = State::read(session, &schemas(topology)).await?;
    let plan = diff(topology, &state, &how.wish);
    refuse(&plan, how.expect_revokes).map_err(Stopped::Error)?;
    for (at, statement) in plan.statements.iter().enumerate() {
        if how.cancel.is_stopping() {
            let message = "stopped; nothing was changed: the statements before were rolled back";
            return Err(Stopped::Error(StepError::interrupted(message)));
        }
        run(session, topology, statement, how).await.map_err(|stopped| match stopped {
            Stopped::Error(error) => {
                let message = format!(
                    "statement {} of {} ({}): {}; rolled back",
                    at + 1,
                    plan.statements.len(),
                    statement.sql,
                    error.message
                );
                Stopped::Error(StepError { message, ..error })
            }
            locked => locked,
        })?;
    }
    if !plan.is_empty() {
        look_again(session, topology, &plan, &how.wish).await?;
    }
    let undo = plan.statements.iter().rev();
    let undo = undo.filter_map(|one| one.undo.clone().map(|sql| (one.run_as.clone(), sql))).collect();
    let one_way = plan.statements.iter().filter(|one| one.undo.is_none()).map(|one| one.sql.clone()).collect();
    let applied = Applied { plan, undo, one_way };
    finish(session, &applied, how).await?;
    Ok(applied)
}

/// The record, and COMMIT.
async fn finish(session: &Session, applied: &Applied, how: &How<'_>) -> Result<(), Stopped> {
    fault::pass(Point::BeforeCommit);
    if let Some(record) = how.record {
        session.execute(&record(applied)).await?;
    }
    let committed = session.execute("COMMIT").await;
    fault::pass(Point::AfterCommit);
    // From here a lost connection is a doubt, and is reported as one.
    committed.map_err(|error| Stopped::Error(error.into_step_error()))
}

fn refuse(plan: &Plan, expected: Option<usize>) -> Result<(), StepError> {
    let revokes = plan.revokes();
    let many = revokes * REVOKED_PART > plan.granted && revokes > REVOKED_PART;
    match expected {
        Some(expected) if expected != revokes => Err(StepError::failed(
            "revokes",
            format!(
                "the plan takes away {revokes} granted privilege(s), and {expected} were expected. Nothing was changed."
            ),
        )),
        None if many => Err(StepError::failed(
            "revokes",
            format!("the plan takes away {revokes} of {} granted privileges. Nothing was changed.", plan.granted),
        )
        .help(format!(
            "read the plan; if it is right, say so: expect_revokes = {revokes} (--expect-revokes {revokes})"
        ))),
        _ => Ok(()),
    }
}

async fn run(session: &Session, topology: &Topology, one: &Statement, how: &How<'_>) -> Result<(), Stopped> {
    let mut sql = one.sql.clone();
    if let Some(role) = &one.password_of
        && let Some(reference) = topology.roles.get(role).and_then(|role| role.password.as_ref())
    {
        let password = (how.password)(reference).map_err(Stopped::Error)?;
        // The server never sees the password, so that neither its log nor pg_stat_activity does.
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        sql = sql.replace(&literal(&format!("SCRAM of {}", reference.shown())), &literal(&verifier));
    }
    as_role(session, one.run_as.as_deref(), &sql).await.map_err(Stopped::from)
}

async fn as_role(session: &Session, role: Option<&str>, sql: &str) -> Result<(), PgError> {
    match role {
        Some(role) => session.execute(&format!("SET LOCAL ROLE {}; {sql}; RESET ROLE", ident(role))).await,
        None => session.execute(sql).await,
    }
}

/// Before COMMIT: a second plan must be empty, and nothing that was taken away may still be effective by another path.
async fn look_again(session: &Session, topology: &Topology, plan: &Plan, wish: &Wish) -> Result<(), Stopped> {
    let state = State::read(session, &schemas(topology)).await?;
    let wish = Wish { set_passwords: false, ..*wish };
    let second = diff(topology, &state, &wish);
    let left: Vec<&Statement> = second
        .statements
        .iter()
        .filter(|one| !plan.statements.iter().any(|done| done.sql == one.sql && done.order == Order::Prune))
        .collect();
    if let Some(first) = left.first() {
        let message = format!(
            "after its {} statement(s) the plan is not empty: {} more, the first is {}; rolled back",
            plan.statements.len(),
            left.len(),
            first.sql
        );
        return Err(Stopped::Error(StepError::failed("not-settled", message)));
    }
    let still = still_effective(session, &plan.gone).await?;
    if let Some(first) = still.first() {
        let path = path_of(&state, first);
        let message = format!(
            "{} was taken from {} on {}, and is still effective: {path}; rolled back",
            first.privilege,
            ident(&first.role),
            object(&first.object)
        );
        return Err(Stopped::Error(
            StepError::failed("still-effective", message)
                .help("take the other path away as well, or declare it; `pgrunbook audit` names all of them"),
        ));
    }
    Ok(())
}

async fn still_effective(session: &Session, gone: &BTreeSet<Gone>) -> Result<Vec<Gone>, PgError> {
    let mut by_number: BTreeMap<String, &Gone> = BTreeMap::new();
    let mut asked = Vec::new();
    for (number, one) in gone.iter().enumerate() {
        let function = match one.object.kind {
            Kind::Sequence => "has_sequence_privilege",
            Kind::Function | Kind::Procedure => "has_function_privilege",
            Kind::Type => "has_type_privilege",
            _ => "has_table_privilege",
        };
        let (role, name) = (literal(&one.role), literal(&object(&one.object)));
        // Without USAGE of the schema a privilege on what is in it reaches nothing.
        let schema = literal(&one.object.schema);
        asked.push(format!(
            "SELECT {number} WHERE pg_catalog.has_schema_privilege({role}, {schema}, 'USAGE')
             AND pg_catalog.{function}({role}, {name}, '{}')",
            one.privilege
        ));
        by_number.insert(number.to_string(), one);
    }
    let mut still = Vec::new();
    for part in asked.chunks(500) {
        for answer in session.simple(&part.join(" UNION ALL ")).await? {
            let numbers = answer.rows.iter().filter_map(|row| row.first().cloned().flatten());
            still.extend(numbers.filter_map(|number| by_number.get(&number).map(|one| (*one).clone())));
        }
    }
    still.sort();
    Ok(still)
}

/// By which way a role still has a privilege, as far as the state tells.
fn path_of(state: &State, one: &Gone) -> String {
    let held = state.objects.iter().find(|held| held.object == one.object);
    if let Some(held) = held {
        if held.owned.owner == one.role {
            return format!("{} owns it", ident(&one.role));
        }
        let mut open = vec![(one.role.clone(), ident(&one.role))];
        let mut seen = BTreeSet::new();
        while let Some((role, path)) = open.pop() {
            if !seen.insert(role.clone()) {
                continue;
            }
            let grants = |grantee: &str| {
                held.owned.acl.iter().any(|entry| entry.grantee == grantee && entry.privilege == one.privilege)
            };
            if role != one.role && (grants(&role) || held.owned.owner == role) {
                return path;
            }
            let other = held.owned.acl.iter().find(|entry| entry.grantee == role && entry.privilege == one.privilege);
            if let Some(other) = other {
                return format!("{} granted it too", ident(&other.grantor));
            }
            let above = state.memberships.iter().filter(|membership| membership.member == role);
            open.extend(above.map(|membership| {
                (membership.role.clone(), format!("{path} -> member of {}", ident(&membership.role)))
            }));
        }
    }
    "by a predefined role, an attribute or PUBLIC".to_owned()
}

/// Takes an application back: the recorded statements, in one transaction with the record.
///
/// # Errors
/// A statement's error: nothing was changed.
pub async fn undo(session: &Session, statements: &[(Option<String>, String)], how: &How<'_>) -> Result<(), StepError> {
    let mut retry = LockRetry::new(&how.locks, how.clock, how.cancel);
    loop {
        let attempt = async {
            let done = undo_in_transaction(session, statements, how).await;
            if done.is_err() && !session.is_closed() {
                let _ = session.execute("ROLLBACK").await;
            }
            match done {
                Err(Stopped::Locked(error)) => Err(error),
                Err(Stopped::Error(error)) => Ok(Err(error)),
                Ok(()) => Ok(Ok(())),
            }
        };
        let blocked = |blockers: &[Blocker], pause| (how.tell)(crate::sql::held_by(blockers, pause));
        if let Some(done) = retry.once(session, attempt, blocked).await.map_err(PgError::into_step_error)? {
            return done;
        }
    }
}

async fn undo_in_transaction(
    session: &Session,
    statements: &[(Option<String>, String)],
    how: &How<'_>,
) -> Result<(), Stopped> {
    session.execute(&format!("BEGIN; {LOCK}; {}", how.locks.set_local())).await?;
    if let Some(assert) = &how.assert {
        session.execute(assert).await?;
    }
    for (role, sql) in statements {
        as_role(session, role.as_deref(), sql).await.map_err(|error| match Stopped::from(error) {
            Stopped::Error(error) => {
                let message = format!("{sql}: {}; rolled back, nothing was taken back", error.message);
                Stopped::Error(StepError { message, ..error })
            }
            locked => locked,
        })?;
    }
    finish(session, &Applied::default(), how).await
}

/// Today, for exceptions that end.
pub fn today(clock: &dyn Clock) -> Date {
    clock.now().to_zoned(jiff::tz::TimeZone::UTC).date()
}
