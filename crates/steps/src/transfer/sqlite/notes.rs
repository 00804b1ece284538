//! Dirty keys: triggers in the file note which rows change, so that a sync reads those alone.
//!
//! A trigger after each INSERT, UPDATE and DELETE writes the row's key into one table of ours, in the application's own
//! transaction. What REPLACE deletes on its way fires no delete trigger
//! (<https://www.sqlite.org/pragma.html#pragma_recursive_triggers>): for each unique index that is not the key's own, a
//! trigger before INSERT and UPDATE notes the rows that collide there, whether they are going to be replaced or not. A note
//! too many costs a comparison; a note too few would cost a row. Where one cannot be sure of that, only the table's name is
//! noted, and the table is compared whole.
//!
//! The notes are believed only as long as nothing speaks against them: the record of the last sync ([`Trail`]) says which
//! triggers were set, the schema's version, and how often notes were forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::catalog::{Catalog, Collation, Column, Table, TermOf, collect};
use super::error::SqliteError;
use super::keyed::{self, Touched, is_keyed};
use super::lex::{What, tokens};
use super::open::quoted;
use super::seal;
use super::shape::{Carried, Shape};
use crate::transfer::finding::{Finding, Severity};

/// The word by which an operator consents to triggers in the file.
pub const CONSENT: &str = "dirty-keys";

/// More notes than this are not gathered: the file is read again, which needs no memory for each of them.
const MOST: i64 = 1_000_000;

/// Our tables and triggers of this kind, and no others.
const OBJECTS: &str = "SELECT type, name, coalesce(sql, '') FROM sqlite_master
WHERE name = '_pgrunbook_dirty' OR name LIKE '\\_pgrunbook\\_dirty\\_%' ESCAPE '\\'";

/// What was set into a file, and how far its notes are shipped: recorded with what was shipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    /// Of this setting of the triggers: another has another one.
    pub id: String,
    /// How often notes had been forgotten when they were read last.
    pub epoch: i64,
    /// The last note that is shipped, as long as it is not known that it was forgotten; else 0.
    pub up_to: i64,
    pub schema_version: i64,
    /// Hash over tables and triggers, with their SQL.
    pub objects: String,
    /// By position in the shape: whether rows are noted by their keys. Of the other tables it is noted that they changed.
    pub by_key: Vec<bool>,
}

/// What was noted.
#[derive(Debug, Clone, Default)]
pub struct Noted {
    /// How often notes were forgotten before.
    pub epoch: i64,
    /// The last note; 0 if there is none.
    pub up_to: i64,
    pub notes: u64,
    /// By position in the shape.
    pub tables: Vec<Touched>,
}

impl Noted {
    /// Distinct keys.
    pub fn keys(&self) -> u64 {
        self.tables.iter().map(|table| table.keys.len() as u64).sum()
    }
}

/// What a look at the notes brought.
pub enum Read {
    Noted(Box<Noted>),
    /// Why they are not believed.
    Doubt(String),
}

/// How the changes of a table are noted.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// By key. For each unique index whose collisions REPLACE may resolve by deleting a row of another key: a condition on
    /// such a row, and when an UPDATE can bring one about.
    Key(Vec<Collision>),
    /// Only that it changed, and why.
    Whole(String),
}

#[derive(Debug, PartialEq, Eq)]
struct Collision {
    /// On the rows of the table, with the new row as NEW.
    condition: String,
    /// An UPDATE changes what the index holds.
    changes: String,
}

fn way(carried: &Carried, table: &Table) -> Way {
    if carried.key.is_empty() {
        return Way::Whole("it has no primary key, or not all of it travels".to_owned());
    }
    if !is_keyed(carried) {
        return Way::Whole("values of its key can be spelled in several ways".to_owned());
    }
    let mut collisions = Vec::new();
    for index in table.indexes.iter().filter(|index| index.is_unique) {
        let is_binary = |at: &usize| {
            let of_key =
                |term: &super::catalog::Term| term.what == TermOf::Column(*at) && term.collation == Collation::Binary;
            index.terms.iter().any(of_key)
        };
        // Who collides here has the same key, which the new row's own note names.
        if table.key.iter().all(is_binary) {
            continue;
        }
        let (mut condition, mut changes) = (Vec::new(), Vec::new());
        for term in &index.terms {
            let TermOf::Column(at) = term.what else {
                return Way::Whole(format!("its unique index {} is over an expression", index.name));
            };
            let column = &table.columns[at];
            let collation = match &term.collation {
                Collation::Binary => "BINARY",
                Collation::NoCase => "NOCASE",
                Collation::Rtrim => "RTRIM",
                Collation::Other(name) => {
                    return Way::Whole(format!("its unique index {} is compared by {name}", index.name));
                }
            };
            if column.generated.is_some() {
                return Way::Whole(format!("its unique index {} is over a generated column", index.name));
            }
            let name = quoted(&column.name);
            let Some(new) = new_value(column, table.key.contains(&at)) else {
                return Way::Whole(format!("the default of its unique column {} is an expression", column.name));
            };
            condition.push(format!("{name} = {new} COLLATE {collation}"));
            changes.push(format!("OLD.{name} IS NOT {new} COLLATE BINARY"));
        }
        // A row that the index does not hold cannot collide there.
        condition.extend(index.condition.as_ref().map(|text| format!("({text})")));
        let is_partial = index.condition.is_some();
        collisions.push(Collision {
            condition: condition.join(" AND "),
            // Whether the index holds a row may depend on any column.
            changes: if is_partial { "1".to_owned() } else { changes.join(" OR ") },
        });
    }
    Way::Key(collisions)
}

/// The value that a row is going to have: REPLACE takes the default for a NULL where there may be none. Nothing where the
/// default is computed.
fn new_value(column: &Column, in_key: bool) -> Option<String> {
    let new = format!("NEW.{}", quoted(&column.name));
    let Some(default) = column.default.as_ref().filter(|_| column.not_null || in_key) else { return Some(new) };
    let found = tokens(default);
    let literal = match &found[..] {
        [sign, rest] if sign.is_sign("-") || sign.is_sign("+") => rest,
        [one] => one,
        _ => return None,
    };
    if literal.is("NULL") {
        return Some(new);
    }
    matches!(literal.what, What::Text(_) | What::Blob(_) | What::Integer(_) | What::Real(_))
        .then(|| format!("coalesce({new}, {default})"))
}

/// What is asked of the operator before the file is written to.
pub fn announced(shape: &Shape, catalog: &Catalog) -> Vec<Finding> {
    let ways = ways(shape, catalog);
    let triggers: usize =
        ways.iter().enumerate().map(|(number, way)| triggers(number, &shape.tables[number], way).len()).sum();
    let whole: Vec<&str> = shape
        .tables
        .iter()
        .zip(&ways)
        .filter(|(_, way)| matches!(way, Way::Whole(_)))
        .map(|(table, _)| table.name.as_str())
        .collect();
    let whole = match whole.is_empty() {
        true => String::new(),
        false => format!(". Of {} it is noted only that they changed", whole.join(", ")),
    };
    let mut findings = vec![
        Finding::new(
            Severity::Consent(CONSENT),
            CONSENT,
            "sync = \"dirty-keys\"",
            format!(
                "writes into the file: the tables _pgrunbook_dirty and _pgrunbook_dirty_head, and {triggers} triggers \
                 _pgrunbook_dirty_* on {} tables. In the application's own transactions they note the key of each row that is \
                 inserted, updated or deleted (a row of its own each, until the next sync), and look for rows that a REPLACE \
                 would delete: a single-row update takes about 1.3 of its time, an insert up to 1.9. The cutover, `complete` and the undo take all of it \
                 away. Writes of connections that switch triggers off, and by sqlite3_blob_write, are not noted{whole}",
                ways.len()
            ),
        )
        .remedy("accept `dirty-keys`, or leave `sync` out: then the file is read again, and nothing is written into it"),
    ];
    for (table, way) in shape.tables.iter().zip(&ways) {
        if let Way::Whole(why) = way {
            let what = format!("{why}: after a change it is read whole, also while writers wait for a cutover");
            findings.push(
                Finding::new(Severity::Warn, "rescanned", format!("table {}", table.name), what).remedy(
                    "where it is large, give it a primary key of plain columns and drop such an index before, or plan for the time",
                ),
            );
        }
    }
    findings
}

fn ways(shape: &Shape, catalog: &Catalog) -> Vec<Way> {
    let of = |carried: &Carried| match catalog.table(&carried.name) {
        Some(table) => way(carried, table),
        None => Way::Whole("it is not there".to_owned()),
    };
    shape.tables.iter().map(of).collect()
}

/// The triggers of one table.
fn triggers(number: usize, table: &Carried, way: &Way) -> Vec<String> {
    let place = quoted(&table.name);
    let trigger = |event: &str, when: &str, body: &str| {
        let (moment, event_sql) = match event {
            "bi" => ("BEFORE", "INSERT"),
            "bu" => ("BEFORE", "UPDATE"),
            "ai" => ("AFTER", "INSERT"),
            "au" => ("AFTER", "UPDATE"),
            _ => ("AFTER", "DELETE"),
        };
        format!(
            "CREATE TRIGGER _pgrunbook_dirty_{number}_{event} {moment} {event_sql} ON {place} {when}BEGIN {body} END"
        )
    };
    let collisions = match way {
        Way::Whole(_) => {
            let body = format!("INSERT INTO _pgrunbook_dirty (tab) VALUES ({number});");
            return ["ai", "au", "ad"].iter().map(|event| trigger(event, "", &body)).collect();
        }
        Way::Key(collisions) => collisions,
    };
    let names: Vec<String> = table.key.iter().map(|at| quoted(&table.columns[*at].name)).collect();
    let fields: Vec<String> = (0..names.len()).map(|at| format!("k{at}")).collect();
    let insert = format!("INSERT INTO _pgrunbook_dirty (tab, {})", fields.join(", "));
    let of = |row: &str| names.iter().map(|name| format!("{row}{name}")).collect::<Vec<_>>().join(", ");
    let moved: Vec<String> = names.iter().map(|name| format!("NEW.{name} IS NOT OLD.{name} COLLATE BINARY")).collect();
    let note = |row: &str| format!("{insert} VALUES ({number}, {});", of(row));
    let both = format!("{} {insert} SELECT {number}, {} WHERE {};", note("OLD."), of("NEW."), moved.join(" OR "));
    let mut all = vec![trigger("ai", "", &note("NEW.")), trigger("au", "", &both), trigger("ad", "", &note("OLD."))];
    if !collisions.is_empty() {
        let found =
            |one: &Collision| format!("{insert} SELECT {number}, {} FROM {place} WHERE {};", of(""), one.condition);
        let body: Vec<String> = collisions.iter().map(found).collect();
        let changes: Vec<String> = collisions.iter().map(|one| format!("({})", one.changes)).collect();
        all.push(trigger("bi", "", &body.join(" ")));
        all.push(trigger("bu", &format!("WHEN {} ", changes.join(" OR ")), &body.join(" ")));
    }
    all
}

/// Sets the triggers anew, in a transaction of its own; whatever was noted before is forgotten. Blocking.
///
/// # Errors
/// If another transfer notes in this file; if the write lock cannot be had; if a trigger would break a statement of the
/// application.
pub fn set(
    connection: &Connection,
    path: &Path,
    shape: &Shape,
    owner: &str,
    budget: Duration,
) -> Result<Trail, SqliteError> {
    seal::begin(connection, path, budget)?;
    let done = put(connection, path, shape, owner).and_then(|trail| {
        seal::commit(connection, path, budget)?;
        Ok(trail)
    });
    if done.is_err() {
        let _ = seal::rollback(connection, path);
    }
    done
}

fn put(connection: &Connection, path: &Path, shape: &Shape, owner: &str) -> Result<Trail, SqliteError> {
    let failed = || SqliteError::of(path, "set the triggers that note keys");
    if let Some(other) = owner_of(connection, path)?.filter(|other| other != owner) {
        let why = format!("notes the keys of the transfer {other} already: one transfer of a file can");
        let (table, key) = ("_pgrunbook_dirty".to_owned(), path.display().to_string());
        return Err(SqliteError::Conflict { table, key, why });
    }
    remove(connection, path)?;
    let catalog = Catalog::read(connection, path)?;
    let mut ways = ways(shape, &catalog);
    let widest = shape.tables.iter().map(|table| table.key.len()).max().unwrap_or(0).max(1);
    // Without a type, a column keeps each value with its storage class.
    let keys: Vec<String> = (0..widest).map(|at| format!("k{at}")).collect();
    connection
        .execute_batch(&format!(
            "CREATE TABLE _pgrunbook_dirty (seq INTEGER PRIMARY KEY, tab INTEGER NOT NULL, {});
             CREATE TABLE _pgrunbook_dirty_head (id TEXT NOT NULL, owner TEXT NOT NULL, epoch INTEGER NOT NULL)",
            keys.join(", ")
        ))
        .map_err(failed())?;
    connection
        .execute("INSERT INTO _pgrunbook_dirty_head VALUES (hex(randomblob(16)), ?1, 0)", [owner])
        .map_err(failed())?;
    for (number, table) in shape.tables.iter().enumerate() {
        let Some(way) = ways.get_mut(number) else { continue };
        connection.execute_batch("SAVEPOINT _pgrunbook_set").map_err(failed())?;
        let made = make(connection, table, number, way);
        if made.is_err() && matches!(way, Way::Key(_)) {
            // The condition of an index may need what only the application has.
            connection.execute_batch("ROLLBACK TO _pgrunbook_set").map_err(failed())?;
            *way = Way::Whole("its indexes cannot be asked here".to_owned());
            make(connection, table, number, way).map_err(failed())?;
        } else {
            made.map_err(failed())?;
        }
        connection.execute_batch("RELEASE _pgrunbook_set").map_err(failed())?;
    }
    Ok(Trail {
        id: head(connection, path)?.map(|(id, _)| id).unwrap_or_default(),
        epoch: 0,
        up_to: 0,
        schema_version: schema_version(connection, path)?,
        objects: hash(&objects(connection, path)?),
        by_key: ways.iter().map(|way| matches!(way, Way::Key(_))).collect(),
    })
}

/// Makes a table's triggers, and prepares statements that fire them: a trigger that cannot be compiled would break those of
/// the application.
fn make(connection: &Connection, table: &Carried, number: usize, way: &Way) -> rusqlite::Result<()> {
    for sql in triggers(number, table, way) {
        connection.execute_batch(&sql)?;
    }
    let place = quoted(&table.name);
    let Some(column) = table.columns.first().map(|column| quoted(&column.name)) else { return Ok(()) };
    for sql in [
        format!("INSERT INTO main.{place} DEFAULT VALUES"),
        format!("UPDATE main.{place} SET {column} = {column}"),
        format!("DELETE FROM main.{place}"),
    ] {
        connection.prepare(&sql)?;
    }
    Ok(())
}

/// Takes tables and triggers away, in the transaction that the connection is in. Blocking.
///
/// # Errors
/// If the file cannot be written to.
pub fn remove(connection: &Connection, path: &Path) -> Result<(), SqliteError> {
    let found: Vec<(String, String, String)> =
        collect(connection, path, OBJECTS, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for kind in ["trigger", "table"] {
        for (_, name, _) in found.iter().filter(|(of, ..)| of == kind) {
            connection
                .execute_batch(&format!("DROP {kind} IF EXISTS main.{}", quoted(name)))
                .map_err(SqliteError::of(path, "take away the triggers that note keys"))?;
        }
    }
    Ok(())
}

fn objects(connection: &Connection, path: &Path) -> Result<BTreeMap<String, String>, SqliteError> {
    let rows: Vec<(String, String)> = collect(connection, path, OBJECTS, |row| Ok((row.get(1)?, row.get(2)?)))?;
    Ok(rows.into_iter().collect())
}

fn hash(objects: &BTreeMap<String, String>) -> String {
    let all: Vec<String> = objects.iter().map(|(name, sql)| format!("{name}\0{sql}")).collect();
    format!("{:032x}", xxh3_128(all.join("\0").as_bytes()))
}

fn schema_version(connection: &Connection, path: &Path) -> Result<i64, SqliteError> {
    connection
        .query_row("PRAGMA main.schema_version", [], |row| row.get(0))
        .map_err(SqliteError::of(path, "read schema_version"))
}

/// Id and epoch of what is set.
fn head(connection: &Connection, path: &Path) -> Result<Option<(String, i64)>, SqliteError> {
    if !objects(connection, path)?.contains_key("_pgrunbook_dirty_head") {
        return Ok(None);
    }
    let sql = "SELECT id, epoch FROM main._pgrunbook_dirty_head";
    Ok(collect(connection, path, sql, |row| Ok((row.get(0)?, row.get(1)?)))?.pop())
}

fn owner_of(connection: &Connection, path: &Path) -> Result<Option<String>, SqliteError> {
    if !objects(connection, path)?.contains_key("_pgrunbook_dirty_head") {
        return Ok(None);
    }
    Ok(collect(connection, path, "SELECT owner FROM main._pgrunbook_dirty_head", |row| row.get(0))?.pop())
}

/// Reads what was noted, in the transaction that the connection is in, if it can be believed. Blocking.
///
/// # Errors
/// If the file cannot be read.
pub fn read(connection: &Connection, path: &Path, shape: &Shape, trail: Option<&Trail>) -> Result<Read, SqliteError> {
    let doubt = |why: &str| Ok(Read::Doubt(why.to_owned()));
    let Some(trail) = trail else { return doubt("the triggers were not set yet") };
    let objects = objects(connection, path)?;
    if objects.is_empty() {
        return doubt("the triggers are not there");
    }
    if hash(&objects) != trail.objects {
        return doubt("the triggers are not those that were set");
    }
    if schema_version(connection, path)? != trail.schema_version {
        return doubt("the file's schema was changed, or it was vacuumed: the triggers may have been away meanwhile");
    }
    let Some((id, epoch)) = head(connection, path)? else { return doubt("what was noted has no beginning") };
    let last: Option<i64> = connection
        .query_row("SELECT max(seq) FROM main._pgrunbook_dirty", [], |row| row.get(0))
        .map_err(SqliteError::of(path, "read what was noted"))?;
    let last = last.unwrap_or(0);
    let goes_on = epoch == trail.epoch && last >= trail.up_to || epoch == trail.epoch + 1 && trail.up_to > 0;
    if id != trail.id || !goes_on {
        return doubt(
            "what was noted is not from where the last sync ended: the file was put back to an earlier state",
        );
    }
    let count: i64 = connection
        .query_row("SELECT count(*) FROM (SELECT 1 FROM main._pgrunbook_dirty LIMIT ?1)", [MOST + 1], |row| row.get(0))
        .map_err(SqliteError::of(path, "read what was noted"))?;
    if count > MOST {
        return doubt("more than a million changes were noted: reading the file again is the shorter way");
    }
    gather(connection, path, shape, trail, epoch, last).map(|noted| Read::Noted(Box::new(noted)))
}

fn gather(
    connection: &Connection,
    path: &Path,
    shape: &Shape,
    trail: &Trail,
    epoch: i64,
    up_to: i64,
) -> Result<Noted, SqliteError> {
    let failed = |error| SqliteError::of(path, "read what was noted")(error);
    let mut noted = Noted { epoch, up_to, notes: 0, tables: vec![Touched::default(); shape.tables.len()] };
    let mut statement = connection.prepare("SELECT * FROM main._pgrunbook_dirty ORDER BY seq").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        noted.notes += 1;
        let number = row.get::<_, i64>(1).ok().and_then(|number| usize::try_from(number).ok());
        let Some((table, touched)) =
            number.and_then(|number| Some((shape.tables.get(number)?, noted.tables.get_mut(number)?)))
        else {
            continue;
        };
        if !number.and_then(|number| trail.by_key.get(number)).copied().unwrap_or(false) {
            touched.whole = true;
            continue;
        }
        let values: Result<Vec<ValueRef<'_>>, _> = (0..table.key.len()).map(|at| row.get_ref(at + 2)).collect();
        match keyed::key(shape, table, values.map_err(failed)?.into_iter()) {
            Some(key) => {
                touched.keys.insert(key);
            }
            // It cannot be in the target; whether it is in the file, a look at all rows tells, and refuses it by name.
            None => touched.whole = true,
        }
    }
    for touched in noted.tables.iter_mut().filter(|touched| touched.whole) {
        touched.keys = BTreeSet::new();
    }
    Ok(noted)
}

/// Forgets what was shipped: in the transaction that the connection is in, or in a short one of its own. Blocking.
///
/// # Errors
/// If the write lock cannot be had in this time; then it is noted still, and the next sync repeats it.
pub fn forget(connection: &Connection, path: &Path, up_to: i64, budget: Duration) -> Result<(), SqliteError> {
    let own = connection.is_autocommit();
    if own {
        seal::begin(connection, path, budget)?;
    }
    let failed = || SqliteError::of(path, "forget what was noted");
    let work = || -> Result<(), SqliteError> {
        connection.execute("DELETE FROM main._pgrunbook_dirty WHERE seq <= ?1", [up_to]).map_err(failed())?;
        connection.execute_batch("UPDATE main._pgrunbook_dirty_head SET epoch = epoch + 1").map_err(failed())?;
        if own { seal::commit(connection, path, budget) } else { Ok(()) }
    };
    let done = work();
    if own && done.is_err() {
        let _ = seal::rollback(connection, path);
    }
    done
}
