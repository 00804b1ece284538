//! What there is to be tried, read by the privileged session: objects by schema, their columns, whether they hold rows,
//! and which of them stand for others.
//!
//! Access lists are read here for one purpose: two objects of a kind with the same ones need not both be tried. Neither an
//! expectation nor a verdict rests on them.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use futures_util::stream;
use pgrunbook_engine::StepError;
use pgrunbook_postgres::{PgError, Session, quote};

use super::send::IN_FLIGHT;
use crate::topology::{Kind, Object, Objects, Topology};

/// Whether a relation holds rows: a denial on an empty one proves nothing of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filled {
    Yes,
    No,
    /// It could not be asked, and why.
    Unknown(String),
    /// It is nothing that has rows of its own.
    Irrelevant,
}

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Whether it can be written at all: a column of a view may not.
    pub writable: bool,
}

/// One object that can be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub object: Object,
    pub oid: u32,
    pub columns: Vec<Column>,
    /// Whether INSERT, UPDATE and DELETE are possible for anybody.
    pub writes: [bool; 3],
    pub filled: Filled,
    /// A view, or a table with rules: what is read or written is not what is named.
    pub rewritten: bool,
    /// For a function that can be called by `EXPLAIN`: the call.
    pub call: Option<String>,
    /// A sequence that belongs to an identity column: nobody needs a privilege for it.
    pub identity: bool,
    /// Objects of a schema with the same pattern stand for each other.
    pattern: String,
}

/// What a schema holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    pub oid: u32,
    pub objects: Vec<Found>,
}

/// All places, and what is part of what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Landscape {
    pub places: Vec<Place>,
    /// Declared schemas that there are not.
    pub missing: Vec<String>,
    /// A partition's or child's (schema, name) to those of its parents, near and far.
    pub parents: BTreeMap<(String, String), Vec<(String, String)>>,
    /// Objects that there are, tried or not.
    pub object_count: usize,
}

/// The schema that everybody may enter: only its tables and sequences are looked at, and who may create in it.
pub const PUBLIC: &str = "public";

/// This program's own records: nobody fills them, and whether they are empty says nothing.
const OWN: [&str; 2] = ["pgrunbook", "pgrunbook_journal"];

/// PostgreSQL 14 to 18: <https://www.postgresql.org/docs/current/catalog-pg-namespace.html>. Schemas of the server itself
/// and of extensions are nobody's declaration.
const SCHEMAS: &str = "\
SELECT n.nspname::text, n.oid
FROM pg_catalog.pg_namespace AS n
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (n.nspname = ANY ($1) OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = n.oid AND d.deptype = 'e'))
ORDER BY n.nspname";

/// <https://www.postgresql.org/docs/current/catalog-pg-class.html>. 28 are the bits of INSERT, UPDATE and DELETE in
/// `pg_relation_is_updatable`.
const RELATIONS: &str = "\
SELECT n.nspname::text, c.relname::text, c.oid, c.relkind::text,
       pg_catalog.concat_ws(' ', c.relowner, c.relacl, a.acls, c.reloptions, c.relrowsecurity, c.relhasrules,
                            c.relispartition),
       CASE WHEN c.relkind IN ('r', 'p') THEN 28
            WHEN c.relkind IN ('v', 'f') THEN pg_catalog.pg_relation_is_updatable(c.oid, true)
            ELSE 0 END,
       c.relhasrules,
       coalesce(a.names, '{}'), coalesce(a.writable, '{}'),
       EXISTS (SELECT FROM pg_catalog.pg_depend AS d
               WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'),
       c.relkind = 'S' AND EXISTS (
               SELECT FROM pg_catalog.pg_depend AS d
               WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'i')
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT pg_catalog.array_agg(t.attname::text ORDER BY t.attnum) AS names,
           pg_catalog.array_agg(CASE WHEN c.relkind IN ('v', 'f')
                                     THEN pg_catalog.pg_column_is_updatable(c.oid, t.attnum, true)
                                     ELSE true END ORDER BY t.attnum) AS writable,
           pg_catalog.string_agg(t.attacl::text, ' ' ORDER BY t.attnum) AS acls
    FROM pg_catalog.pg_attribute AS t
    WHERE t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped AND c.relkind <> 'S'
) AS a ON true
WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
ORDER BY n.nspname, c.reltuples DESC, c.relname";

/// <https://www.postgresql.org/docs/current/catalog-pg-proc.html>. Pseudo-types and domains as arguments cannot be written
/// as a NULL of their type.
const ROUTINES: &str = "\
SELECT n.nspname::text, p.proname::text, p.oid, p.prokind::text, p.provolatile::text,
       pg_catalog.oidvectortypes(p.proargtypes),
       coalesce(a.types, '{}'), coalesce(a.plain, true), p.provariadic <> 0,
       pg_catalog.concat_ws(' ', p.proowner, p.proacl, p.prosecdef),
       EXISTS (SELECT FROM pg_catalog.pg_depend AS d
               WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
LEFT JOIN LATERAL (
    SELECT pg_catalog.array_agg(pg_catalog.format_type(t.oid, NULL) ORDER BY u.at) AS types,
           pg_catalog.bool_and(t.typtype NOT IN ('p', 'd')) AS plain
    FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS u (type, at)
    JOIN pg_catalog.pg_type AS t ON t.oid = u.type
) AS a ON true
WHERE n.nspname = ANY ($1)
ORDER BY n.nspname, p.proname, p.oid";

/// <https://www.postgresql.org/docs/current/catalog-pg-inherits.html>
const PARENTS: &str = "\
WITH RECURSIVE up (child, parent) AS (
    SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits AS i
    UNION
    SELECT up.child, i.inhparent FROM up JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = up.parent
)
SELECT cn.nspname::text, c.relname::text, pn.nspname::text, p.relname::text
FROM up
JOIN pg_catalog.pg_class AS c ON c.oid = up.child AND c.relkind IN ('r', 'p', 'f')
JOIN pg_catalog.pg_namespace AS cn ON cn.oid = c.relnamespace
JOIN pg_catalog.pg_class AS p ON p.oid = up.parent
JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace";

/// Reads the schemas and what is in them; of objects that stand for each other one is kept, unless `all`.
///
/// # Errors
/// If the catalog cannot be read.
pub async fn survey(session: &Session, topology: &Topology, all: bool) -> Result<Landscape, StepError> {
    let fail = |error: tokio_postgres::Error| session.error(&error).into_step_error();
    let client = session.client();
    let declared: Vec<&str> = topology.schemas.keys().map(String::as_str).collect();
    let mut places: Vec<Place> = client
        .query(SCHEMAS, &[&declared])
        .await
        .map_err(fail)?
        .iter()
        .map(|row| Place { name: row.get(0), oid: row.get(1), objects: Vec::new() })
        .collect();
    let names: Vec<String> = places.iter().map(|place| place.name.clone()).collect();
    let missing = declared.iter().filter(|name| !names.iter().any(|there| there == *name));
    let missing = missing.map(|name| (*name).to_owned()).collect();
    let at: BTreeMap<String, usize> = names.iter().cloned().zip(0..).collect();
    for row in client.query(RELATIONS, &[&names]).await.map_err(fail)? {
        let schema: String = row.get(0);
        let place = &mut places[at[&schema]];
        // What an extension brings is as the extension wants it: the audit says what that gives away.
        if !row.get::<_, bool>(9) {
            place.objects.push(relation(schema, &row));
        }
    }
    for row in client.query(ROUTINES, &[&names]).await.map_err(fail)? {
        let schema: String = row.get(0);
        let place = &mut places[at[&schema]];
        // Everybody may enter `public`, and executes what is there unless somebody said otherwise.
        if place.name != PUBLIC && !row.get::<_, bool>(10) {
            place.objects.push(routine(schema, &row)?);
        }
    }
    let mut parents: BTreeMap<(String, String), Vec<(String, String)>> = BTreeMap::new();
    for row in client.query(PARENTS, &[]).await.map_err(fail)? {
        parents.entry((row.get(0), row.get(1))).or_default().push((row.get(2), row.get(3)));
    }
    let object_count = places.iter().map(|place| place.objects.len()).sum();
    look_for_rows(session, &mut places).await;
    if !all {
        for place in &mut places {
            let named = named(topology, &place.name);
            let objects = std::mem::take(&mut place.objects);
            place.objects = representatives(objects, &named);
        }
    }
    Ok(Landscape { places, missing, parents, object_count })
}

fn relation(schema: String, row: &tokio_postgres::Row) -> Found {
    let kind = match row.get::<_, &str>(3) {
        "v" => Kind::View,
        "m" => Kind::MaterializedView,
        "f" => Kind::ForeignTable,
        "S" => Kind::Sequence,
        _ => Kind::Table,
    };
    let writes: i32 = row.get(5);
    let names: Vec<String> = row.get(7);
    let writable: Vec<bool> = row.get(8);
    let columns = names.into_iter().zip(writable).map(|(name, writable)| Column { name, writable }).collect();
    let has_rows =
        !OWN.contains(&schema.as_str()) && matches!(kind, Kind::Table | Kind::MaterializedView | Kind::ForeignTable);
    Found {
        object: Object { schema, name: row.get(1), kind },
        oid: row.get(2),
        columns,
        writes: [8, 4, 16].map(|bit| writes & bit != 0),
        filled: if has_rows { Filled::No } else { Filled::Irrelevant },
        rewritten: row.get(6),
        call: None,
        identity: row.get(10),
        pattern: format!("{kind:?} {writes} {} {}", row.get::<_, bool>(10), row.get::<_, &str>(4)),
    }
}

fn routine(schema: String, row: &tokio_postgres::Row) -> Result<Found, StepError> {
    let (name, kind, volatility): (String, &str, &str) = (row.get(1), row.get(3), row.get(4));
    let types: Vec<String> = row.get(6);
    let plain: bool = row.get(7);
    // An immutable function without arguments would be run while the statement is planned.
    let by_trying = kind == "f" && plain && !(volatility == "i" && types.is_empty());
    let call = if by_trying { Some(call(&schema, &name, &types, row.get(8))?) } else { None };
    let arguments: &str = row.get(5);
    let word = if kind == "p" { Kind::Procedure } else { Kind::Function };
    Ok(Found {
        object: Object { schema, name: format!("{name}({arguments})"), kind: word },
        oid: row.get(2),
        columns: Vec::new(),
        writes: [false; 3],
        filled: Filled::Irrelevant,
        rewritten: false,
        pattern: format!("{kind} {} {}", call.is_some(), row.get::<_, &str>(9)),
        call,
        identity: false,
    })
}

/// `OFFSET 0` keeps the arguments from being constants: a strict function of a constant NULL would be folded away, and
/// nobody would ask for the privilege.
fn call(schema: &str, name: &str, types: &[String], variadic: bool) -> Result<String, StepError> {
    let function = format!("{}.{}", ident(schema)?, ident(name)?);
    if types.is_empty() {
        return Ok(format!("EXPLAIN SELECT {function}()"));
    }
    let last = types.len();
    let argument = |at: usize| if variadic && at == last { format!("VARIADIC a.a{at}") } else { format!("a.a{at}") };
    let arguments: Vec<String> = (1..=last).map(argument).collect();
    let nulls: Vec<String> = types.iter().map(|name| format!("NULL::{name}")).collect();
    let names: Vec<String> = (1..=last).map(|at| format!("a{at}")).collect();
    Ok(format!(
        "EXPLAIN SELECT {function}({}) FROM (VALUES ({}) OFFSET 0) AS a({})",
        arguments.join(", "),
        nulls.join(", "),
        names.join(", ")
    ))
}

/// Asks every table whether it holds a row.
async fn look_for_rows(session: &Session, places: &mut [Place]) {
    let tables = places.iter_mut().flat_map(|place| &mut place.objects).filter(|found| found.filled == Filled::No);
    let asked: Vec<_> = tables.map(|found| look(session, found)).collect();
    stream::iter(asked).buffered(IN_FLIGHT).collect::<Vec<()>>().await;
}

async fn look(session: &Session, found: &mut Found) {
    let answer = match qualified(&found.object) {
        Ok(name) => session.value(&format!("SELECT EXISTS (SELECT FROM {name})")).await,
        Err(error) => Err(PgError::Client(error.message)),
    };
    found.filled = match answer.as_deref() {
        Ok("t") => Filled::Yes,
        Ok(_) => Filled::No,
        Err(error) => Filled::Unknown(error.to_string()),
    };
}

/// Objects that the declaration names one by one: none of them stands for others.
fn named<'a>(topology: &'a Topology, schema: &str) -> BTreeSet<&'a str> {
    let rules =
        topology.roles.values().filter_map(|role| role.access.get(schema)).flat_map(|set| &set.rules).filter_map(
            |rule| match &rule.objects {
                Objects::Named { name, .. } => Some(name.as_str()),
                Objects::Every(_) => None,
            },
        );
    let exceptions = topology.exceptions.iter().filter_map(|one| {
        let (on, name) = one.on.split_once('.')?;
        (on == schema && name != "*").then_some(name)
    });
    rules.chain(exceptions).collect()
}

/// One object for each kind and pattern of privileges: the first that holds rows.
fn representatives(objects: Vec<Found>, named: &BTreeSet<&str>) -> Vec<Found> {
    let mut kept: Vec<Found> = Vec::new();
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for found in objects {
        if named.contains(found.object.name.as_str()) {
            kept.push(found);
            continue;
        }
        match at.get(&found.pattern) {
            Some(at) if kept[*at].filled != Filled::Yes && found.filled == Filled::Yes => kept[*at] = found,
            Some(_) => {}
            None => {
                at.insert(found.pattern.clone(), kept.len());
                kept.push(found);
            }
        }
    }
    kept
}

/// A name as SQL.
pub fn ident(name: &str) -> Result<String, StepError> {
    quote::ident(name).map_err(|error| StepError::unusable("name", error.to_string()))
}

/// A value as SQL.
pub fn literal(value: &str) -> Result<String, StepError> {
    quote::literal(value).map_err(|error| StepError::unusable("name", error.to_string()))
}

/// A relation's qualified name as SQL.
pub fn qualified(object: &Object) -> Result<String, StepError> {
    Ok(format!("{}.{}", ident(&object.schema)?, ident(&object.name)?))
}

impl Landscape {
    /// The columns of a relation that is tried.
    pub fn columns(&self, schema: &str, name: &str) -> &[Column] {
        let place = self.places.iter().find(|place| place.name == schema);
        let found = place.and_then(|place| place.objects.iter().find(|found| found.object.name == name));
        found.map_or(&[], |found| &found.columns)
    }
}
