//! Hands objects to sessions, as their tables and each other allow.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use pgrunbook_postgres::{ConnectOptions, PgError, Session, quote};
use tokio::task::JoinSet;

use super::{BuildError, Building, Built, Kind, Object};

/// Each session sorts in as much as its share of half of `shared_buffers`, at most 1 GB, and never less than the server's
/// own setting; and takes its share of the parallel workers that the server allows in all.
const RULE: &str = "SELECT pg_catalog.set_config('maintenance_work_mem', greatest(
        (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem'),
        least(1048576, (SELECT setting::int8 * 8 FROM pg_catalog.pg_settings WHERE name = 'shared_buffers') / 2 / $jobs)
    )::text || 'kB', false),
    pg_catalog.set_config('max_parallel_maintenance_workers', least(
        (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'max_parallel_maintenance_workers'),
        (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'max_parallel_workers') / $jobs
    )::text, false)";

/// Beside it. Commits wait for the disk: they are few, and the last of them makes all that came before it last, too.
const SETTINGS: &str = "SET statement_timeout = 0; SET client_min_messages = warning;
SET idle_in_transaction_session_timeout = 0; SET jit = off";

impl Object {
    /// The vacuum of a table; the leaves of a `root` of partitions are tables by themselves.
    pub fn vacuum(schema: &str, table: String, is_root: bool) -> Self {
        let what = if is_root { "ANALYZE" } else { "VACUUM (ANALYZE)" };
        let sql = format!("{what} {}.{}", ident(schema), ident(&table));
        Self { kind: Kind::Vacuum, name: format!("statistics of {table}"), table: Some(table), sql }
    }
}

/// A part of the work that one session does at a time.
#[derive(Debug, Clone)]
struct Part {
    object: Arc<Object>,
    does: Does,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Make,
    /// A foreign key that was added without a look at the rows.
    Validate,
}

/// Makes the objects, in an order that is right for them.
///
/// # Errors
/// [`BuildError`] of the first that fails; those under way are cancelled with their sessions.
///
/// Cancellation: dropping the future ends the sessions; each object is one statement, which is there or not.
pub async fn build(target: &ConnectOptions, objects: &[Object], how: Building<'_>) -> Result<(), BuildError> {
    let objects: Vec<Arc<Object>> = objects.iter().cloned().map(Arc::new).collect();
    let mut idle = Vec::new();
    for _ in 0..how.jobs.max(1) {
        idle.push(session(target, how.jobs.max(1)).await?);
    }
    let mut ready = how.ready.clone();
    let of = |kinds: &[Kind], does: Does| -> Vec<Part> {
        let mut parts: Vec<Part> = objects
            .iter()
            .filter(|object| kinds.contains(&object.kind))
            .map(|object| Part { object: Arc::clone(object), does })
            .collect();
        parts.sort_by_key(|part| part.object.kind);
        parts
    };
    round(&mut idle, of(&[Kind::Key, Kind::Index, Kind::Vacuum], Does::Make), &mut ready, &how).await?;
    // Each is done in an instant, and locks two tables: one session, so that none waits for another's.
    let mut one = idle.drain(..1).collect();
    round(&mut one, of(&[Kind::ForeignKey], Does::Make), &mut ready, &how).await?;
    idle.append(&mut one);
    let mut checks = of(&[Kind::ForeignKey], Does::Validate);
    if let Some(session) = idle.first() {
        // A table's are checked one after another: the longest row of them begins first.
        let sizes = sizes(session, how.schema).await?;
        let size = |part: &Part| part.object.table.as_ref().and_then(|table| sizes.get(table)).copied().unwrap_or(0);
        checks.sort_by_key(|part| std::cmp::Reverse(size(part)));
    }
    round(&mut idle, checks, &mut ready, &how).await?;
    let mut one: Vec<Session> = idle.drain(..1).collect();
    for kind in [Kind::Trigger, Kind::Policy, Kind::MaterializedView, Kind::Other] {
        round(&mut one, of(&[kind], Does::Make), &mut ready, &how).await?;
    }
    Ok(())
}

/// Bytes of the schema's tables.
const SIZES: &str = "SELECT c.relname::text, pg_catalog.pg_relation_size(c.oid)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r'";

async fn sizes(session: &Session, schema: &str) -> Result<HashMap<String, i64>, PgError> {
    let rows = session.client().query(SIZES, &[&schema]).await.map_err(|error| session.error(&error))?;
    Ok(rows.into_iter().map(|row| (row.get(0), row.get::<_, Option<i64>>(1).unwrap_or(0))).collect())
}

async fn session(target: &ConnectOptions, jobs: usize) -> Result<Session, PgError> {
    let session = Session::connect(target, "pgrunbook:build").await?;
    session.execute(SETTINGS).await?;
    session.execute(&RULE.replace("$jobs", &jobs.to_string())).await?;
    Ok(session)
}

type Ready = Option<tokio::sync::watch::Receiver<BTreeSet<String>>>;

/// Does all parts, on the idle sessions, and gives the sessions back.
async fn round(
    idle: &mut Vec<Session>,
    mut waiting: Vec<Part>,
    ready: &mut Ready,
    how: &Building<'_>,
) -> Result<(), BuildError> {
    let mut running = JoinSet::new();
    let mut under_way: Vec<Part> = Vec::new();
    loop {
        while !idle.is_empty() && !how.cancel.is_stopping() {
            let complete = ready.as_mut().map(|ready| ready.borrow_and_update().clone());
            let at = waiting.iter().position(|part| may_begin(part, &waiting, &under_way, complete.as_ref()));
            let Some(at) = at else { break };
            let Some(session) = idle.pop() else { break };
            let part = waiting.remove(at);
            under_way.push(part.clone());
            let schema = how.schema.to_owned();
            running.spawn(async move {
                let begun = Instant::now();
                let result = make(&session, &schema, &part).await;
                (session, part, result, begun.elapsed())
            });
        }
        if running.is_empty() && waiting.is_empty() {
            return Ok(());
        }
        if running.is_empty() && how.cancel.is_stopping() {
            return Err(BuildError::Stopped);
        }
        let more = async {
            match ready.as_mut() {
                Some(ready) => ready.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = running.join_next() => {
                let (session, part, result, took) = ended.map_err(|error| BuildError::Task(error.to_string()))?;
                let (kind, name) = (part.object.kind, part.object.name.clone());
                let was_there = result.map_err(|error| BuildError::Object { kind, name: name.clone(), error })?;
                under_way.retain(|other| !Arc::ptr_eq(&other.object, &part.object));
                idle.push(session);
                (how.tell)(&Built { name, table: part.object.table.clone(), was_there, took });
            }
            is_more = more => {
                if !is_more {
                    // Nobody will add a table any more: what waits for one waits in vain.
                    let complete = ready.take().map(|ready| ready.borrow().clone()).unwrap_or_default();
                    let orphan = waiting.iter().find_map(|part| part.object.table.as_ref().filter(|table| !complete.contains(*table)));
                    if let Some(table) = orphan {
                        return Err(BuildError::NoRows { table: table.clone() });
                    }
                }
            }
            () = how.cancel.aborting() => return Err(BuildError::Stopped),
        }
    }
}

/// Whether neither rows nor locks are in its way.
fn may_begin(part: &Part, waiting: &[Part], under_way: &[Part], complete: Option<&BTreeSet<String>>) -> bool {
    let Some(table) = &part.object.table else { return true };
    if complete.is_some_and(|complete| !complete.contains(table)) {
        return false;
    }
    let same = |other: &&Part| other.object.table.as_ref() == Some(table);
    match part.object.kind {
        // Locks the whole table.
        Kind::Key => !under_way.iter().any(|other| same(&other)),
        // Beside other indexes, behind all keys.
        Kind::Index => {
            let is_key = |other: &Part| same(&other) && other.object.kind == Kind::Key;
            !under_way.iter().chain(waiting).any(is_key)
        }
        // Not beside a build, and when no other comes.
        Kind::Vacuum => {
            let is_build = |other: &Part| same(&other) && matches!(other.object.kind, Kind::Key | Kind::Index);
            !under_way.iter().chain(waiting).any(is_build)
        }
        _ => !under_way.iter().any(|other| same(&other)),
    }
}

/// SQLSTATEs of what is there already: duplicate table (or index), object, function, schema.
const THERE: [&str; 4] = ["42P07", "42710", "42723", "42P06"];

/// Makes one object, unless it is there: whether it was.
async fn make(session: &Session, schema: &str, part: &Part) -> Result<bool, PgError> {
    let object = &part.object;
    let table = object.table.as_deref().map(|table| format!("{}.{}", ident(schema), ident(table)));
    let sql = object.sql.trim().trim_end_matches(';').trim_end();
    match (object.kind, &table) {
        (Kind::Key | Kind::ForeignKey, Some(table)) => {
            let validity = session.value(&constraint(table, &object.name)).await?;
            let stays_invalid = is_not_valid(sql);
            match (object.kind, part.does, validity.as_str()) {
                (Kind::ForeignKey, Does::Validate, "f") if !stays_invalid => {
                    session
                        .execute(&format!("ALTER TABLE {table} VALIDATE CONSTRAINT {}", ident(&object.name)))
                        .await?;
                    Ok(false)
                }
                (_, Does::Make, "") => {
                    // A partitioned table's cannot be added so before 18.
                    let is_parted = session.value(&kind_of(table)).await? == "p";
                    let is_later = object.kind == Kind::ForeignKey && !stays_invalid && !is_parted;
                    session.execute(&if is_later { format!("{sql} NOT VALID") } else { sql.to_owned() }).await?;
                    Ok(false)
                }
                _ => Ok(true),
            }
        }
        (Kind::Index, _) => {
            let index = format!("{}.{}", ident(schema), ident(&object.name));
            match session.value(&index_validity(&index)).await?.as_str() {
                "t" => return Ok(true),
                // What CREATE INDEX CONCURRENTLY leaves when it fails.
                "f" => session.execute(&format!("DROP INDEX {index}")).await?,
                _ => {}
            }
            session.execute(sql).await.map(|()| false)
        }
        _ => match session.execute(sql).await {
            Err(PgError::Server(error)) if THERE.contains(&error.sqlstate.as_str()) => Ok(true),
            result => result.map(|()| false),
        },
    }
}

fn is_not_valid(sql: &str) -> bool {
    let end: String = sql.chars().rev().take(9).collect::<String>().chars().rev().collect();
    end.eq_ignore_ascii_case("NOT VALID")
}

/// Its `convalidated`; nothing where it is not there.
fn constraint(table: &str, name: &str) -> String {
    format!(
        "SELECT convalidated FROM pg_catalog.pg_constraint
         WHERE conrelid = {}::pg_catalog.regclass AND conname = {}",
        text(table),
        text(name)
    )
}

fn kind_of(table: &str) -> String {
    format!("SELECT relkind FROM pg_catalog.pg_class WHERE oid = {}::pg_catalog.regclass", text(table))
}

fn index_validity(index: &str) -> String {
    format!("SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = pg_catalog.to_regclass({})", text(index))
}

fn ident(name: &str) -> String {
    quote::ident(&name.replace('\0', "")).expect("NUL was taken out")
}

fn text(value: &str) -> String {
    quote::literal(&value.replace('\0', "")).expect("NUL was taken out")
}
