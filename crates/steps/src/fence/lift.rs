//! Lifts a fence: writers go on at once, whoever reads.
//!
//! `DROP TRIGGER` wants an ACCESS EXCLUSIVE lock and would queue behind the longest report, with every later reader behind
//! itself. `DISABLE TRIGGER` wants SHARE ROW EXCLUSIVE, which no reader holds up. So one transaction disables all and
//! records it, and the drops follow one by one, where they are to be had; a disabled trigger that stays costs nothing.

use pgrunbook_engine::Cancel;
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_postgres::{PgError, Session};

use super::error::FenceError;
use super::guard::{Patience, Tries, begin};
use super::standing::{Held, Trigger, held, triggers};
use crate::topology::{ident, literal};

/// How long a drop waits; readers queue behind it so long.
const DROP_TIMEOUT_MS: u64 = 100;

/// What is to be lifted.
#[derive(Debug, Clone, Default)]
pub struct Lift<'a> {
    pub schema: &'a str,
    /// Only this fence; `None`: whatever refuses writes there.
    pub id: Option<&'a str>,
    /// Who lifts it.
    pub by: &'a str,
    pub patience: Patience,
    pub assert: Option<String>,
    pub record: Option<String>,
}

/// What was lifted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lifted {
    /// The recorded fence, if one stood.
    pub id: Option<String>,
    /// Tables on which writers go on.
    pub tables: Vec<String>,
    /// Tables on which a disabled trigger stays, since a reader held up its drop.
    pub left: Vec<String>,
    /// Grants that could not be given back, with why.
    pub not_granted: Vec<String>,
}

impl Lifted {
    /// Whether there was anything to lift.
    pub fn is_nothing(&self) -> bool {
        self.id.is_none() && self.tables.is_empty()
    }
}

/// A trigger with its table's name.
struct Named {
    table: String,
    trigger: Trigger,
}

/// Lifts a fence, whole or half, recorded or not. Lifting what is not fenced does nothing.
///
/// # Errors
/// [`FenceError::Blocked`] when the patience is over: then the fence stands as it was. [`FenceError::Other`] if another
/// fence than `id` stands.
pub async fn unfence(session: &Session, lift: &Lift<'_>, cancel: &Cancel) -> Result<Lifted, FenceError> {
    let mut tries = Tries::begin(session, &lift.patience, lift.schema, "lifted").await?;
    let lifted = loop {
        let held = held(session, lift.schema).await?;
        if let (Some(held), Some(id)) = (&held, lift.id)
            && held.id != id
        {
            let (schema, id, found) = (lift.schema.to_owned(), id.to_owned(), held.id.clone());
            return Err(FenceError::Other { schema, id, found });
        }
        let named = of_schema(session, lift.schema, held.as_ref()).await?;
        match tries.once(session, attempt(session, lift, held.as_ref(), &named), cancel).await? {
            Some(mut lifted) => {
                lifted.id = held.map(|held| held.id);
                break (lifted, named);
            }
            None if cancel.is_aborting() => return Err(FenceError::Stopped { schema: lift.schema.to_owned() }),
            None => {}
        }
    };
    let (mut lifted, named) = lifted;
    for one in &named {
        let dropped = session
            .execute(&format!(
                "BEGIN; SET LOCAL lock_timeout = {DROP_TIMEOUT_MS}; DROP TRIGGER IF EXISTS {} ON {}; COMMIT",
                ident(&one.trigger.name),
                one.table
            ))
            .await;
        match dropped {
            Ok(()) => {}
            Err(error @ PgError::Lost { .. }) => return Err(error.into()),
            Err(_) => {
                session.execute("ROLLBACK").await?;
                lifted.left.push(one.table.clone());
            }
        }
    }
    lifted.left.dedup();
    Ok(lifted)
}

/// The triggers of the schema's tables and of those that the record names, by table.
async fn of_schema(session: &Session, schema: &str, held: Option<&Held>) -> Result<Vec<Named>, PgError> {
    let all = triggers(session).await?;
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = all.iter().map(|one| one.table.to_string()).collect();
    let answers = session
        .simple(&format!(
            "SELECT c.oid::pg_catalog.int8, n.nspname, c.relname FROM pg_catalog.pg_class AS c
             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid IN ({})
             ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\"",
            ids.join(", ")
        ))
        .await?;
    let mut named = Vec::new();
    for row in answers.last().map(|answer| answer.rows.as_slice()).unwrap_or_default() {
        let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let (oid, table) = (text(0), format!("{}.{}", ident(&text(1)), ident(&text(2))));
        if text(1) != schema && !held.is_some_and(|held| held.tables.contains(&table)) {
            continue;
        }
        let here = all.iter().filter(|one| one.table.to_string() == oid);
        named.extend(here.map(|trigger| Named { table: table.clone(), trigger: trigger.clone() }));
    }
    Ok(named)
}

async fn attempt(session: &Session, lift: &Lift<'_>, held: Option<&Held>, named: &[Named]) -> Result<Lifted, PgError> {
    let mut lifted = Lifted::default();
    session.execute(&begin(&lift.patience, lift.assert.as_deref())).await?;
    let mut text = String::new();
    for one in named.iter().filter(|one| !one.trigger.disabled) {
        text.push_str(&format!("ALTER TABLE ONLY {} DISABLE TRIGGER {};\n", one.table, ident(&one.trigger.name)));
        if lifted.tables.last() != Some(&one.table) {
            lifted.tables.push(one.table.clone());
        }
    }
    if !text.is_empty() {
        session.execute(&text).await?;
    }
    if let Some(held) = held {
        if held.weak {
            lifted.not_granted = super::privilege::given_back(session, &held.id).await?;
            lifted.tables.clone_from(&held.tables);
        }
        session
            .execute(&format!(
                "UPDATE pgrunbook.fence SET state = 'lifted', lifted_at = pg_catalog.clock_timestamp(), lifted_by = {}
                 WHERE id = {} AND state = 'fenced'",
                literal(lift.by),
                literal(&held.id)
            ))
            .await?;
    }
    if let Some(record) = &lift.record {
        session.execute(record).await?;
    }
    fault::pass(Point::BeforeCommit);
    session.execute("COMMIT").await?;
    fault::pass(Point::AfterCommit);
    Ok(lifted)
}
