//! The proof that no writer is left: what is seen of the fence, of old transactions, and of a write that is tried.

use std::time::{Duration, Instant};

use pgrunbook_postgres::{Lsn, PgError, Session};
use serde_json::{Value, json};

use super::error::FenceError;
use super::privilege;
use super::standing::{self, held, triggers};
use super::table::{Table, tables};
use crate::topology::{ident, literal};

/// What a refused write is told. See <https://www.postgresql.org/docs/15/errcodes-appendix.html>.
const READ_ONLY: &str = "25006";

/// How long a transaction that began before the fence, and only now ran into it, may take to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// A write that was tried, and rolled back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    pub role: String,
    pub table: String,
    pub statement: String,
    /// What refused it; `None`: nothing did.
    pub sqlstate: Option<String>,
    pub message: String,
}

/// What is known of a fence that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub id: String,
    pub schema: String,
    /// By privileges: superusers write on.
    pub weak: bool,
    pub marker: Lsn,
    /// Where the WAL stood when the proof was made.
    pub lsn: Lsn,
    /// Tables with working triggers, or without a grant to write.
    pub guarded: Vec<String>,
    /// What is open: a table without a working trigger, a grant that is left, an enabled subscription.
    pub holes: Vec<String>,
    /// Transactions older than the fence that hold a writer's lock, prepared ones among them.
    pub older: Vec<String>,
    pub trials: Vec<Trial>,
    /// Sessions that are connected: user, application, how many. For people.
    pub sessions: Vec<(String, String, u64)>,
    /// What no trigger stops and is there: large objects, foreign tables, subscriptions, the replica role.
    pub bypasses: Vec<String>,
}

impl Proof {
    /// Whether it proves that nobody writes.
    ///
    /// # Errors
    /// What speaks against it.
    pub fn holds(&self) -> Result<(), Vec<String>> {
        let refused = |trial: &&Trial| match trial.sqlstate.as_deref() {
            // A published table without replica identity refuses by itself, before any trigger.
            Some(READ_ONLY | "55000") => false,
            Some("42501") => !self.weak,
            _ => true,
        };
        let mut why = self.holes.clone();
        why.extend(self.older.iter().map(|one| format!("{one} is older than the fence and may still write")));
        why.extend(self.trials.iter().filter(refused).map(|trial| match &trial.sqlstate {
            None => format!("`{}` as {} was not refused", trial.statement, trial.role),
            Some(state) => format!("`{}` as {} ended with {state}: {}", trial.statement, trial.role, trial.message),
        }));
        if why.is_empty() { Ok(()) } else { Err(why) }
    }

    /// For the evidence.
    pub fn facts(&self) -> Value {
        let sessions: Vec<Value> = self
            .sessions
            .iter()
            .map(|(user, application, count)| json!({ "user": user, "application": application, "count": count }))
            .collect();
        let trials: Vec<Value> = self
            .trials
            .iter()
            .map(|one| {
                json!({ "role": one.role, "statement": one.statement, "sqlstate": one.sqlstate, "message": one.message })
            })
            .collect();
        json!({
            "holds": self.holds().is_ok(), "weak": self.weak, "marker": self.marker.to_string(), "lsn": self.lsn.to_string(),
            "guarded": self.guarded, "holes": self.holes, "older": self.older, "trials": trials, "sessions": sessions,
            "bypasses": self.bypasses
        })
    }
}

/// Looks whether the fence of a schema holds. Writes are tried as the connected role, in transactions that are rolled back.
///
/// # Errors
/// [`FenceError::Broken`] if no fence stands there.
pub async fn prove(session: &Session, schema: &str) -> Result<Proof, FenceError> {
    prove_as(session, schema, None).await
}

/// The same, and as the application's role too.
pub(super) async fn prove_as(session: &Session, schema: &str, role: Option<&str>) -> Result<Proof, FenceError> {
    let Some(fence) = held(session, schema).await? else {
        return Err(FenceError::Broken { schema: schema.to_owned(), why: vec!["no fence is recorded".to_owned()] });
    };
    let found = tables(session, schema, &[]).await?;
    let fenced = |table: &&Table| fence.whole || fence.tables.contains(&table.sql());
    // Children in other schemas hang below the tables of this one, so that all are found from here.
    let here: Vec<&Table> = found.tables.iter().filter(fenced).collect();
    let ids: Vec<u32> = here.iter().map(|table| table.oid).collect();
    let holes = match fence.weak {
        true => privilege::left(session, &ids).await?,
        false => {
            let set = triggers(session).await?;
            here.iter().filter_map(|table| standing::lacks(table, &set)).collect()
        }
    };
    let mut holes = holes;
    holes.extend(
        subscribed(session, &ids)
            .await?
            .into_iter()
            .map(|name| format!("subscription {name} is enabled, and applies to these tables in the replica role")),
    );
    let begun = Instant::now();
    let mut older = older(session, &ids, fence.xid).await?;
    while !older.is_empty() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
        older = self::older(session, &ids, fence.xid).await?;
    }
    let mut trials = Vec::new();
    if !fence.weak {
        trials = tried(session, None, &here).await?;
    }
    if let Some(role) = role {
        trials.extend(tried(session, Some(role), &here).await?);
    }
    let lsn = session.value("SELECT pg_catalog.pg_current_wal_insert_lsn()::text").await?;
    let mut bypasses: Vec<String> = found.foreign.iter().map(|name| format!("the foreign table {name}")).collect();
    bypasses.extend(rows(session, BYPASSES).await?.into_iter().map(|row| row.concat()));
    let sessions = rows(session, SESSIONS).await?;
    Ok(Proof {
        guarded: here.iter().map(|table| table.sql()).collect(),
        holes,
        older,
        trials,
        sessions: sessions
            .into_iter()
            .map(|mut row| {
                (std::mem::take(&mut row[0]), std::mem::take(&mut row[1]), row[2].parse().unwrap_or_default())
            })
            .collect(),
        bypasses,
        lsn: lsn.parse().unwrap_or_default(),
        id: fence.id,
        schema: fence.schema,
        weak: fence.weak,
        marker: fence.marker,
    })
}

/// The enabled subscriptions that apply to one of these tables, as SQL names them: their workers pass every trigger.
pub(super) async fn subscribed(session: &Session, tables: &[u32]) -> Result<Vec<String>, PgError> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = tables.iter().map(u32::to_string).collect();
    Ok(rows(session, &SUBSCRIBED.replace("$1", &ids.join(", "))).await?.into_iter().map(|row| row.concat()).collect())
}

/// A table is in `pg_subscription_rel` as soon as it is subscribed to.
/// See <https://www.postgresql.org/docs/15/catalog-pg-subscription-rel.html>.
const SUBSCRIBED: &str = "SELECT pg_catalog.quote_ident(s.subname) FROM pg_catalog.pg_subscription AS s
WHERE s.subenabled AND EXISTS (SELECT FROM pg_catalog.pg_subscription_rel AS r WHERE r.srsubid = s.oid AND r.srrelid IN ($1))
ORDER BY s.subname";

async fn rows(session: &Session, sql: &str) -> Result<Vec<Vec<String>>, PgError> {
    let answers = session.simple(sql).await?;
    let rows = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    Ok(rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
}

const SESSIONS: &str = "SELECT coalesce(a.usename::text, ''), coalesce(a.application_name, ''), count(*)::text
FROM pg_catalog.pg_stat_activity AS a
WHERE a.datname = pg_catalog.current_database() AND a.backend_type = 'client backend'
  AND a.pid <> pg_catalog.pg_backend_pid() AND NOT pg_catalog.starts_with(a.application_name, 'pgrunbook:')
GROUP BY 1, 2 ORDER BY 1, 2";

/// Tried on 15.
const BYPASSES: &str = "SELECT count(*)::text || ' large object(s), which no trigger guards'
FROM pg_catalog.pg_largeobject_metadata HAVING count(*) > 0
UNION ALL
SELECT 'the subscription ' || s.subname || ', whose worker writes in the replica role'
FROM pg_catalog.pg_subscription AS s
WHERE s.subenabled AND s.subdbid = (SELECT d.oid FROM pg_catalog.pg_database AS d
                                    WHERE d.datname = pg_catalog.current_database())
UNION ALL
SELECT 'sessions of ' || coalesce('role ' || pg_catalog.quote_ident(r.rolname), 'any role') || ', which begin with ' || s.setting
FROM pg_catalog.pg_db_role_setting AS g CROSS JOIN pg_catalog.unnest(g.setconfig) AS s(setting)
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = g.setrole
WHERE s.setting = 'session_replication_role=replica'
  AND (g.setdatabase = 0 OR g.setdatabase = (SELECT d.oid FROM pg_catalog.pg_database AS d
                                             WHERE d.datname = pg_catalog.current_database()))";

/// A transaction that wrote has an id, which it holds a lock on: the ids tell which began before the fence, whoever asks.
/// `age` compares across the wrap of 32 bits.
async fn older(session: &Session, tables: &[u32], fence: u64) -> Result<Vec<String>, PgError> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = tables.iter().map(u32::to_string).collect();
    let sql = format!(
        "SELECT DISTINCT coalesce('the transaction of pid ' || l.pid,
                    'the prepared transaction ' || coalesce((SELECT pg_catalog.quote_literal(p.gid)
                        FROM pg_catalog.pg_prepared_xacts AS p WHERE p.transaction = x.transactionid), ''))
         FROM pg_catalog.pg_locks AS l
         JOIN pg_catalog.pg_locks AS x ON x.virtualtransaction = l.virtualtransaction AND x.pid IS NOT DISTINCT FROM l.pid
             AND x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' AND x.granted
         WHERE l.locktype = 'relation' AND l.granted AND l.relation IN ({})
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
           AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
           AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
           AND pg_catalog.age(x.transactionid) > pg_catalog.age('{fence}'::pg_catalog.xid8::pg_catalog.xid)",
        ids.join(", ")
    );
    Ok(rows(session, &sql).await?.into_iter().map(|row| row.concat()).collect())
}

/// What may be tried on a table, of what the role may do there: none of these changes a row.
const VERBS: &str = "SELECT pg_catalog.has_table_privilege(w.who, w.what, 'DELETE'), pg_catalog.has_table_privilege(w.who, w.what, 'INSERT'),
       pg_catalog.has_table_privilege(w.who, w.what, 'UPDATE'), pg_catalog.has_table_privilege(w.who, w.what, 'TRUNCATE'),
       (SELECT pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = w.what AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity = ''
        ORDER BY a.attnum LIMIT 1)";

/// Tries a write on each table that the role may write. Statement triggers fire although no row is touched.
async fn tried(session: &Session, role: Option<&str>, tables: &[&Table]) -> Result<Vec<Trial>, PgError> {
    let shown = role.unwrap_or(&session.options().user).to_owned();
    let who = role.map_or_else(|| "CURRENT_USER::name".to_owned(), |role| format!("{}::name", literal(role)));
    let mut trials = Vec::new();
    for table in tables {
        let name = table.sql();
        let asked = format!("{VERBS} FROM (SELECT {who}, {}::oid) AS w(who, what)", table.oid);
        let may = rows(session, &asked).await?.into_iter().next().unwrap_or_default();
        let may = |at: usize| may.get(at).map(String::as_str).unwrap_or_default();
        let statement = match () {
            () if may(1) == "t" => format!("INSERT INTO {name} SELECT WHERE false"),
            () if may(0) == "t" => format!("DELETE FROM {name} WHERE false"),
            () if may(2) == "t" && !may(4).is_empty() => format!("UPDATE {name} SET {} = DEFAULT WHERE false", may(4)),
            () if may(3) == "t" => format!("TRUNCATE {name}"),
            // It could not write there before the fence either.
            () => continue,
        };
        let role = role.map_or_else(String::new, |role| format!("SET LOCAL ROLE {}; ", ident(role)));
        let outcome =
            session.execute(&format!("BEGIN; SET LOCAL lock_timeout = 1000; {role}{statement}; ROLLBACK")).await;
        let (sqlstate, message) = match outcome {
            Ok(()) => (None, String::new()),
            Err(PgError::Server(error)) => {
                session.execute("ROLLBACK").await?;
                (Some(error.sqlstate), error.message)
            }
            Err(error) => return Err(error),
        };
        trials.push(Trial { role: shown.clone(), table: name, statement, sqlstate, message });
    }
    Ok(trials)
}
