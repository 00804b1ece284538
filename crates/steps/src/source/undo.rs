//! Takes a bootstrap back: what it made, and nothing that somebody has come to need since.
//!
//! What a step made is kept in the target, in the transaction that made it. A schema goes only if this step made it and it
//! holds what its chains brought and no row more; the look and the drop are one transaction that has every table locked.

use std::collections::BTreeMap;

use pgrunbook_engine::fault::{self, Point};
use pgrunbook_postgres::retry::{Blocker, LOCK_NOT_AVAILABLE, LockPolicy, LockRetry};
use pgrunbook_postgres::{PgError, Session};

use super::bootstrap::{Made, as_owner};
use super::error::SourceError;
use super::name::{SchemaName, declared};
use super::registry;
use crate::migrate::{self, Around};
use crate::topology::{self, Applied, Sources, Topology, ident, literal, table};

/// One row for each step of a run that bootstraps. `brought`: tables with rows when the roles got access, with a digest.
const KEPT: &str = "CREATE TABLE IF NOT EXISTS pgrunbook.source_undo (
    run text NOT NULL, step text NOT NULL, source_id text NOT NULL, schema_name text NOT NULL,
    made_table boolean NOT NULL, made_row boolean NOT NULL, made_schema boolean NOT NULL,
    access jsonb NOT NULL DEFAULT '[]', brought jsonb,
    PRIMARY KEY (run, step))";

/// The statements that keep what was made. A later attempt of the same step adds to it.
pub(super) fn keep(run: &str, step: &str, id: &str, schema: &SchemaName, made: Made) -> String {
    format!(
        "{KEPT}; INSERT INTO pgrunbook.source_undo AS u
             (run, step, source_id, schema_name, made_table, made_row, made_schema)
         VALUES ({}, {}, {}, {}, {}, {}, {})
         ON CONFLICT (run, step) DO UPDATE SET made_table = u.made_table OR excluded.made_table,
             made_row = u.made_row OR excluded.made_row, made_schema = u.made_schema OR excluded.made_schema",
        literal(run),
        literal(step),
        literal(id),
        literal(schema.as_str()),
        made.table,
        made.row,
        made.schema
    )
}

/// The statement that keeps how the roles got access, in the transaction in which they get it.
pub(super) fn keep_access(run: &str, step: &str, applied: &Applied, left: Option<&BTreeMap<String, String>>) -> String {
    let access = serde_json::to_string(&applied.undo).expect("texts are JSON");
    let brought = left.map(|left| serde_json::to_string(left).expect("texts are JSON"));
    format!(
        "UPDATE pgrunbook.source_undo SET access = {}::pg_catalog.jsonb OPERATOR(pg_catalog.||) access,
             brought = coalesce(brought, {}::pg_catalog.jsonb)
         WHERE run = {} AND step = {}",
        literal(&access),
        brought.map_or_else(|| "NULL".to_owned(), |brought| literal(&brought)),
        literal(run),
        literal(step)
    )
}

/// What a step made.
struct Kept {
    schema: String,
    made: Made,
    /// What takes its grants back: (role to run as, statement).
    access: Vec<(Option<String>, String)>,
    /// None until the roles have access.
    brought: Option<BTreeMap<String, String>>,
}

async fn kept(session: &Session, run: &str, step: &str) -> Result<Option<Kept>, SourceError> {
    if session.value("SELECT pg_catalog.to_regclass('pgrunbook.source_undo') IS NOT NULL").await? != "t" {
        return Ok(None);
    }
    let answers = session
        .simple(&format!(
            "SELECT schema_name, made_table, made_row, made_schema, access, brought FROM pgrunbook.source_undo
             WHERE run = {} AND step = {}",
            literal(run),
            literal(step)
        ))
        .await?;
    let Some(row) = answers.last().and_then(|answer| answer.rows.first()) else { return Ok(None) };
    let text = |at: usize| row.get(at).cloned().flatten();
    let truth = |at: usize| text(at).as_deref() == Some("t");
    let broken = |error: serde_json::Error| {
        SourceError::Server(PgError::Client(format!("pgrunbook.source_undo cannot be read: {error}")))
    };
    Ok(Some(Kept {
        schema: text(0).unwrap_or_default(),
        made: Made { table: truth(1), row: truth(2), schema: truth(3) },
        access: serde_json::from_str(&text(4).unwrap_or_default()).map_err(broken)?,
        brought: text(5).map(|text| serde_json::from_str(&text)).transpose().map_err(broken)?,
    }))
}

/// What a step has made, with its attempts before this one.
pub(super) async fn made(session: &Session, run: &str, step: &str) -> Result<Made, SourceError> {
    Ok(kept(session, run, step).await?.map_or_else(Made::default, |kept| kept.made))
}

/// Whether a step has made something that its undo would take back.
pub(super) async fn is_kept(session: &Session, run: &str, step: &str) -> Result<bool, SourceError> {
    Ok(kept(session, run, step).await?.is_some())
}

/// Whether somebody else than its owner may see into a schema already.
const OPEN: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
    WHERE n.nspname = SCHEMA AND a.grantee <> n.nspowner)";

/// The rows that the chains of a new schema brought: tables with a digest of each. None where it is kept already, or others
/// could write there before: then nobody can tell whose rows they are.
pub(super) async fn left(
    session: &Session,
    topology: &Topology,
    schema: &SchemaName,
    run: &str,
    step: &str,
) -> Result<Option<BTreeMap<String, String>>, SourceError> {
    let wanted = kept(session, run, step).await?.is_some_and(|kept| kept.made.schema && kept.brought.is_none());
    if !wanted || session.value(&OPEN.replace("SCHEMA", &literal(schema.as_str()))).await? == "t" {
        return Ok(None);
    }
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let read = async {
        let mut found = BTreeMap::new();
        see_all(session, topology).await?;
        for (name, hidden) in tables(session, schema.as_str()).await? {
            if hidden {
                continue;
            }
            let digest = digest(session, schema.as_str(), &name).await?;
            if !digest.starts_with("0:") {
                found.insert(name, digest);
            }
        }
        Ok(Some(found))
    };
    let found = read.await;
    if !session.is_closed() {
        session.execute("ROLLBACK").await?;
    }
    found
}

/// Begins to read what is in the schema, as the owner if the operator is no superuser: a policy that would hide rows must
/// be an error, since a count must not lie.
async fn see_all(session: &Session, topology: &Topology) -> Result<(), SourceError> {
    session.execute("SET LOCAL search_path = pg_catalog; SET LOCAL row_security = off").await?;
    let superuser = "SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user";
    if session.value(superuser).await? != "t" {
        session.execute(&format!("SET LOCAL ROLE {}", ident(&topology.owner))).await?;
    }
    Ok(())
}

/// The tables of a schema, each with whether its policies hide rows from its owner, too.
async fn tables(session: &Session, schema: &str) -> Result<Vec<(String, bool)>, SourceError> {
    let asked = format!(
        "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AND NOT (r.rolsuper OR r.rolbypassrls)
         FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         JOIN pg_catalog.pg_roles AS r ON r.rolname = current_user
         WHERE n.nspname = {} AND c.relkind = 'r' ORDER BY 1",
        literal(schema)
    );
    let pairs = registry::pairs(&session.simple(&asked).await?);
    Ok(pairs.into_iter().map(|(name, hidden)| (name, hidden == "t")).collect())
}

/// The count of a table's rows, and the sum of their hashes: the same whatever their order.
async fn digest(session: &Session, schema: &str, name: &str) -> Result<String, SourceError> {
    let asked = format!(
        "SELECT pg_catalog.concat(pg_catalog.count(*), ':',
             pg_catalog.sum(pg_catalog.hashtextextended(ROW(t.*)::pg_catalog.text, 0)))
         FROM ONLY {}.{} AS t",
        ident(schema),
        ident(name)
    );
    Ok(session.value(&asked).await?)
}

/// What outside of a schema rests on what is inside, as PostgreSQL names it. `CASCADE` would take it along.
///
/// Tried on 14 to 18. Parts of something (a rule of a view, a constraint or default of a table) are known by the schema of
/// the whole, which is the first part of their address; types have an address of one part, `schema.name`.
const OUTSIDE: &str = "
WITH inside AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS classid, c.oid AS objid FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = pg_catalog.to_regnamespace(SCHEMA)
    UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid FROM pg_catalog.pg_proc AS p
    WHERE p.pronamespace = pg_catalog.to_regnamespace(SCHEMA)
    UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid FROM pg_catalog.pg_type AS t
    WHERE t.typnamespace = pg_catalog.to_regnamespace(SCHEMA))
SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
FROM pg_catalog.pg_depend AS d
JOIN inside AS i ON i.classid = d.refclassid AND i.objid = d.refobjid
CROSS JOIN LATERAL pg_catalog.pg_identify_object_as_address(d.classid, d.objid, d.objsubid) AS a
WHERE d.deptype = 'n' AND a.object_names[1] <> SCHEMA
  AND NOT pg_catalog.starts_with(a.object_names[1], pg_catalog.quote_ident(SCHEMA) || '.')
ORDER BY 1";

/// What was taken back, for people: one line each.
pub(super) type TakenBack = Vec<String>;

/// Takes back what a step made.
///
/// # Errors
/// [`SourceError::NotEmpty`], [`SourceError::RestedOn`]: nothing was taken back.
pub(super) async fn undo(
    session: &Session,
    topology: &Topology,
    id: &str,
    around: &Around<'_>,
) -> Result<TakenBack, SourceError> {
    let locks = LockPolicy::default();
    let mut retry = LockRetry::new(&locks, around.clock, around.cancel);
    loop {
        let attempt = async {
            let done = in_transaction(session, topology, id, &locks, around).await;
            if done.is_err() && !session.is_closed() {
                let _ = session.execute("ROLLBACK").await;
            }
            match done {
                Err(SourceError::Server(error)) if error.sqlstate() == Some(LOCK_NOT_AVAILABLE) => Err(error),
                done => Ok(done),
            }
        };
        let blocked = |blockers: &[Blocker], pause| (around.tell)(crate::sql::held_by(blockers, pause));
        if let Some(done) = retry.once(session, attempt, blocked).await? {
            return done;
        }
    }
}

async fn in_transaction(
    session: &Session,
    topology: &Topology,
    id: &str,
    locks: &LockPolicy,
    around: &Around<'_>,
) -> Result<TakenBack, SourceError> {
    let sources = declared(topology)?;
    let (run, step) = around.run.unwrap_or_default();
    let lock = topology::LOCK;
    session.execute(&format!("BEGIN; {lock}; {}; SET LOCAL search_path = pg_catalog", locks.set_local())).await?;
    if let Some(assert) = &around.assert {
        session.execute(assert).await?;
    }
    let Some(kept) = kept(session, run, step).await? else {
        session.execute("ROLLBACK").await?;
        return Ok(Vec::new());
    };
    let mut told = Vec::new();
    let owner = ident(&topology.owner);
    let there =
        session.value(&format!("SELECT pg_catalog.to_regnamespace({}) IS NOT NULL", literal(&kept.schema))).await?
            == "t";
    if kept.made.schema && there {
        look(session, topology, &kept).await?;
        as_owner(session, &owner, &format!("DROP SCHEMA {} CASCADE", ident(&kept.schema))).await?;
        for folder in &sources.chains {
            forget(session, &migrate::chain_in(folder, &kept.schema)).await?;
        }
        told.push(format!("the schema {} dropped: it held nothing but what its chains brought", kept.schema));
    } else if there {
        for (role, sql) in &kept.access {
            let role = role.as_deref().map_or_else(String::new, |role| format!("SET LOCAL ROLE {};", ident(role)));
            session.execute(&format!("{role} {sql}; RESET ROLE")).await?;
        }
        told.push(format!("the schema {} stays with what is in it: it was there before", kept.schema));
    }
    if kept.made.row && registry::is_there(session, sources).await? {
        let row = format!(
            "DELETE FROM {} WHERE source_id::pg_catalog.text = {} AND schema_name::pg_catalog.text = {}",
            table(&sources.registry),
            literal(id),
            literal(&kept.schema)
        );
        as_owner(session, &owner, &row).await?;
        told.push(format!("the source {id:?} is no longer in {}", sources.registry));
    }
    if kept.made.table && drop_mapping(session, sources, &owner).await? {
        // Those who saw into its schema for its sake alone.
        let (home, today) = (&sources.registry.schema, topology::today(around.clock));
        for role in sources.roles.iter().filter(|role| !topology.uses_schema(role, home, today)) {
            let sql = format!("REVOKE USAGE ON SCHEMA {} FROM {}", ident(home), ident(role));
            as_owner(session, &owner, &sql).await?;
        }
        told.push(format!("{} dropped: it was empty", sources.registry));
    }
    let forget = format!("DELETE FROM pgrunbook.source_undo WHERE run = {} AND step = {}", literal(run), literal(step));
    session.execute(&forget).await?;
    fault::pass(Point::BeforeCommit);
    let committed = session.execute("COMMIT").await;
    fault::pass(Point::AfterCommit);
    committed?;
    Ok(told)
}

/// Whether the schema can go: with every table locked, so that the answer stays true.
async fn look(session: &Session, topology: &Topology, kept: &Kept) -> Result<(), SourceError> {
    let schema = ident(&kept.schema);
    see_all(session, topology).await?;
    let mut names: Vec<(String, bool)> = Vec::new();
    loop {
        let now = tables(session, &kept.schema).await?;
        if now == names {
            break;
        }
        // One may have come while the others were waited for.
        names = now;
        let all: Vec<String> = names.iter().map(|(name, _)| format!("{schema}.{}", ident(name))).collect();
        if !all.is_empty() {
            session.execute(&format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", all.join(", ONLY "))).await?;
        }
    }
    // Before the roles have access, nobody but the chains has written there.
    let closed = session.value(&OPEN.replace("SCHEMA", &literal(&kept.schema))).await? != "t";
    if closed && kept.brought.is_none() {
        names.clear();
    }
    let mut full = Vec::new();
    for (name, hidden) in names {
        if hidden {
            full.push(format!("{name} (its policies hide them)"));
            continue;
        }
        let changed = match kept.brought.as_ref().and_then(|brought| brought.get(&name)) {
            Some(before) => {
                let now = digest(session, &kept.schema, &name).await?;
                now != *before && !now.starts_with("0:")
            }
            None => {
                let any = format!("SELECT EXISTS (SELECT FROM ONLY {schema}.{})", ident(&name));
                session.value(&any).await? == "t"
            }
        };
        if changed {
            full.push(name);
        }
    }
    session.execute("RESET ROLE").await?;
    if !full.is_empty() {
        return Err(SourceError::NotEmpty { schema: kept.schema.clone(), tables: full });
    }
    let objects = rested_on(session, &kept.schema).await?;
    if objects.is_empty() { Ok(()) } else { Err(SourceError::RestedOn { schema: kept.schema.clone(), objects }) }
}

/// What outside of a schema rests on what is inside of it: views, foreign keys, defaults, one line each.
///
/// # Errors
/// If the server cannot be asked.
pub async fn rested_on(session: &Session, schema: &str) -> Result<Vec<String>, PgError> {
    let outside = session.simple(&OUTSIDE.replace("SCHEMA", &literal(schema))).await?;
    Ok(outside.into_iter().flat_map(|one| one.rows).filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// The history of what is gone.
async fn forget(session: &Session, chain: &str) -> Result<(), SourceError> {
    if session.value("SELECT pg_catalog.to_regclass('pgrunbook.migration') IS NOT NULL").await? == "t" {
        session.execute(&format!("DELETE FROM pgrunbook.migration WHERE chain = {}", literal(chain))).await?;
    }
    Ok(())
}

/// Drops the mapping where no source is left in it and nothing rests on it.
async fn drop_mapping(session: &Session, sources: &Sources, owner: &str) -> Result<bool, SourceError> {
    let name = table(&sources.registry);
    if !registry::is_there(session, sources).await? {
        return Ok(false);
    }
    session.execute(&format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE; SAVEPOINT mapping")).await?;
    if session.value(&format!("SELECT EXISTS (SELECT FROM {name})")).await? == "t" {
        return Ok(false);
    }
    match as_owner(session, owner, &format!("DROP TABLE {name}")).await {
        Ok(()) => Ok(true),
        // dependent_objects_still_exist
        Err(SourceError::Server(error)) if error.sqlstate() == Some("2BP01") => {
            session.execute("ROLLBACK TO SAVEPOINT mapping").await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
