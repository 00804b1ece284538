//! Writes the target's changes into the file: whole transactions, each once.
//!
//! The position is in the file (`_pgrunbook_state`) and is written in the transaction of what it tells, so that after any
//! crash the file says how far it is. Only what a change really changed is written: a column whose value is the same keeps its
//! spelling. Triggers of the file that would do again what the target has done are taken out for as long as the transaction
//! lasts, which nobody else sees.

use std::path::Path;
use std::sync::Arc;

use pgrunbook_postgres::Lsn;
use pgrunbook_postgres::pgoutput::{Cell, Change, Event, Old, Relation, Row};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::catalog::data_version;
use super::error::SqliteError;
use super::jsonb;
use super::keyed::{self, Touched};
use super::kind::{Kind, excerpt};
use super::open::quoted;
use super::seal::{self, Position};
use super::shape::{Carried, Shape};

/// Why nothing more is written back.
#[derive(Debug)]
pub enum Failed {
    /// It may pass.
    Again(Box<SqliteError>),
    /// A person must act; the stable name of why.
    Stop(&'static str, Box<SqliteError>),
}

fn again(error: SqliteError) -> Failed {
    Failed::Again(Box::new(error))
}

/// Writes to one file. Used from one thread at a time.
pub struct Back {
    connection: Connection,
    path: std::path::PathBuf,
    shape: Arc<Shape>,
    /// `health:reverse`.
    stream: String,
    /// The first message of what came from the file: `applied:health:forward`.
    passed_over: String,
    /// What the ids of this schema's fences end with: other schemas' markers come too.
    ours: String,
    /// What is committed in the file.
    pub position: Position,
    /// Everything up to here is in the file, or concerns it not.
    pub reached: Lsn,
    open: Option<Position>,
    current: Current,
    /// What is written from a moment on.
    flowed: Option<Flowed>,
}

/// What was written into the file since a moment at which no transaction was open.
struct Flowed {
    /// The file's `data_version`, as our connection counts: it stays as long as nobody else commits.
    version: i64,
    /// By position in the shape.
    tables: Vec<Touched>,
}

/// The transaction whose changes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Current {
    /// Nothing of it came.
    Fresh,
    /// It is from the file itself, or the file has it.
    Skip,
    Take,
}

impl Back {
    /// Blocking.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn new(
        connection: Connection,
        path: &Path,
        shape: Arc<Shape>,
        stream: String,
        other: &str,
        schema: &str,
    ) -> Result<Self, SqliteError> {
        let position = seal::position(&connection, path, &stream)?.unwrap_or_default();
        let reached = position.lsn;
        let passed_over = format!("applied:{other}");
        Ok(Self {
            connection,
            path: path.to_owned(),
            shape,
            stream,
            passed_over,
            ours: fence_id("", schema),
            position,
            reached,
            open: None,
            current: Current::Fresh,
            flowed: None,
        })
    }

    /// From now on it is noted which rows are written, if no transaction is half written now: whether that is so. Blocking.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn note_what_flows(&mut self) -> Result<bool, SqliteError> {
        if self.open.is_some() {
            return Ok(false);
        }
        let version = data_version(&self.connection, &self.path)?;
        self.flowed = Some(Flowed { version, tables: vec![Touched::default(); self.shape.tables.len()] });
        Ok(true)
    }

    /// The rows that were written since that was asked for; nothing if anybody else has committed to the file, or a
    /// transaction is half written. Blocking.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn what_flowed(&self) -> Result<Option<Vec<Touched>>, SqliteError> {
        let Some(flowed) = self.flowed.as_ref().filter(|_| self.open.is_none()) else { return Ok(None) };
        let is_ours = data_version(&self.connection, &self.path)? == flowed.version;
        Ok(is_ours.then(|| flowed.tables.clone()))
    }

    /// Notes the rows that a change is about.
    fn note(&mut self, change: &Change) -> Result<(), Failed> {
        let Some(mut flowed) = self.flowed.take() else { return Ok(()) };
        let done = self.note_into(&mut flowed, change);
        self.flowed = Some(flowed);
        done
    }

    fn note_into(&self, flowed: &mut Flowed, change: &Change) -> Result<(), Failed> {
        let mut rows = Vec::new();
        match change {
            Change::Insert { relation, new } => rows.push((relation, Some(new))),
            Change::Update { relation, old, new } => {
                rows.push((relation, Some(new)));
                if let Some(Old::Key(old) | Old::Full(old)) = old {
                    rows.push((relation, Some(old)));
                }
            }
            Change::Delete { relation, old: Old::Key(old) | Old::Full(old) } => rows.push((relation, Some(old))),
            Change::Truncate { relations, .. } => rows.extend(relations.iter().map(|relation| (relation, None))),
            Change::Message { .. } => {}
        }
        for (relation, row) in rows {
            let number = self.shape.tables.iter().position(|table| table.name == relation.name);
            let Some(touched) = number.and_then(|number| flowed.tables.get_mut(number)) else { continue };
            let table = self.table(relation)?;
            let key = match row {
                Some(row) if keyed::is_keyed(table) => self.key(table, relation, row)?,
                _ => None,
            };
            match key {
                Some(key) => {
                    touched.keys.insert(key);
                }
                None => touched.whole = true,
            }
        }
        Ok(())
    }

    /// The key of one of the target's rows; nothing where the row does not say it.
    fn key(&self, table: &Carried, relation: &Relation, row: &Row) -> Result<Option<Vec<u8>>, Failed> {
        let mut values = vec![None; table.key.len()];
        for (column, cell) in cells(table, relation, row) {
            let at = table.key.iter().position(|at| table.columns[*at].name == column.name);
            if let Some(value) = at.and_then(|at| values.get_mut(at)) {
                *value = self.value(table, &column.name, column.kind, cell)?;
            }
        }
        let values: Option<Vec<Value>> = values.into_iter().collect();
        Ok(values.and_then(|values| keyed::key(&self.shape, table, values.iter().map(ValueRef::from))))
    }

    /// Whether the file is fenced now. Blocking.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_fenced(&self) -> Result<bool, SqliteError> {
        Ok(seal::standing(&self.connection, &self.path)?.is_some())
    }

    /// Writes some events, and commits unless they end within a transaction. Blocking.
    ///
    /// # Errors
    /// [`Failed`]; the open transaction is taken back, and what was committed stays.
    pub fn push(&mut self, events: &[Event], reached: Lsn) -> Result<(), Failed> {
        let done = self.all(events);
        if done.is_err() {
            self.open = None;
            let _ = seal::rollback(&self.connection, &self.path);
        }
        done?;
        if self.open.is_none() {
            self.reached = self.reached.max(reached);
        }
        Ok(())
    }

    fn all(&mut self, events: &[Event]) -> Result<(), Failed> {
        let mut within = self.current != Current::Fresh;
        for event in events {
            match event {
                Event::Begin(_) => {
                    self.current = Current::Fresh;
                    within = true;
                }
                Event::Change(change) => self.change(change)?,
                // Not asked for: a file has one writer, which would wait for the end of the source's transaction.
                Event::Early(_) => {}
                Event::Commit(commit) => {
                    within = false;
                    self.current = Current::Fresh;
                    if let Some(open) = &mut self.open {
                        open.lsn = open.lsn.max(commit.end_lsn);
                        open.transactions += 1;
                    }
                }
            }
        }
        if within { Ok(()) } else { self.close() }
    }

    fn change(&mut self, change: &Change) -> Result<(), Failed> {
        if let Change::Message { prefix, content } = change {
            if prefix != "pgrunbook" {
                return Ok(());
            }
            if self.current == Current::Fresh && content.as_ref() == self.passed_over.as_bytes() {
                self.current = Current::Skip;
                return Ok(());
            }
            let marker = std::str::from_utf8(content).ok().and_then(|text| text.strip_prefix("fence:"));
            let marker = marker.filter(|marker| marker.ends_with(&self.ours));
            if let (Some(marker), true) = (marker, self.current != Current::Skip) {
                let marker = marker.to_owned();
                self.current = Current::Take;
                if let Some(open) = self.begin_if_fenced()? {
                    open.marker = Some(marker);
                }
            }
            return Ok(());
        }
        if self.current == Current::Skip {
            return Ok(());
        }
        self.current = Current::Take;
        if self.begin_if_fenced()?.is_none() {
            let why = "was changed in the target while the file takes the writes".to_owned();
            let table = match change {
                Change::Insert { relation, .. } | Change::Update { relation, .. } | Change::Delete { relation, .. } => {
                    relation.name.clone()
                }
                _ => "a table".to_owned(),
            };
            return Err(Failed::Stop(
                "conflict",
                Box::new(SqliteError::Conflict { table, key: "a row".to_owned(), why }),
            ));
        }
        self.row(change)?;
        self.note(change)?;
        if let Some(open) = &mut self.open {
            open.changes += 1;
        }
        Ok(())
    }

    /// Begins to write, with our own triggers off and those out that would do things again; nothing where no fence stands.
    fn begin_if_fenced(&mut self) -> Result<Option<&mut Position>, Failed> {
        if self.open.is_none() {
            if !self.is_fenced().map_err(again)? {
                return Ok(None);
            }
            seal::begin(&self.connection, &self.path, std::time::Duration::from_secs(5)).map_err(again)?;
            let now = seal::position(&self.connection, &self.path, &self.stream).map_err(again)?;
            // Somebody else wrote here: what is known of the position no longer holds.
            if now.as_ref().is_none_or(|now| *now != self.position) {
                self.position = now.unwrap_or_default();
            }
            self.open = Some(self.position.clone());
            let mut sql = "UPDATE _pgrunbook_fence SET on_ = 0;".to_owned();
            for name in self.shape.repeats.keys() {
                sql.push_str(&format!("DROP TRIGGER IF EXISTS main.{};", quoted(name)));
            }
            self.run(&sql)?;
        }
        Ok(self.open.as_mut())
    }

    fn run(&self, sql: &str) -> Result<(), Failed> {
        self.connection.execute_batch(sql).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: rusqlite::Error) -> Failed {
        let may_pass = seal::may_pass(&error);
        let error = SqliteError::of(&self.path, "write back")(error);
        let error = Box::new(error);
        if may_pass { Failed::Again(error) } else { Failed::Stop("apply", error) }
    }

    fn close(&mut self) -> Result<(), Failed> {
        let Some(open) = self.open.clone() else { return Ok(()) };
        let mut sql = String::new();
        for trigger in self.shape.repeats.values() {
            sql.push_str(trigger);
            sql.push(';');
        }
        self.run(&sql)?;
        self.connection
            .execute(
                "INSERT OR REPLACE INTO _pgrunbook_state (stream, lsn, marker, transactions, changes)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                rusqlite::params![
                    self.stream,
                    open.lsn.to_string(),
                    open.marker,
                    i64::try_from(open.transactions).unwrap_or(i64::MAX),
                    i64::try_from(open.changes).unwrap_or(i64::MAX)
                ],
            )
            .map_err(|error| self.failed(error))?;
        self.run("UPDATE _pgrunbook_fence SET on_ = 1")?;
        seal::commit(&self.connection, &self.path, std::time::Duration::from_secs(5)).map_err(again)?;
        self.reached = self.reached.max(open.lsn);
        self.position = open;
        self.open = None;
        Ok(())
    }

    /// The table of a relation, which must be declared as it was.
    fn table(&self, relation: &Relation) -> Result<&Carried, Failed> {
        let stop = |why: String| {
            let (table, key) = (relation.name.clone(), "its columns".to_owned());
            Failed::Stop("ddl", Box::new(SqliteError::Conflict { table, key, why }))
        };
        let table =
            self.shape.table(&relation.name).ok_or_else(|| stop("no table of the file is called so".to_owned()))?;
        let now: Vec<(&str, u32)> = relation.columns.iter().map(|one| (one.name.as_str(), one.type_oid)).collect();
        let before: Vec<(&str, u32)> = table.target.iter().map(|(name, oid)| (name.as_str(), *oid)).collect();
        if now != before {
            let names = |all: &[(&str, u32)]| all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            return Err(stop(format!("were {}, and are {} in the target now", names(&before), names(&now))));
        }
        Ok(table)
    }

    fn row(&self, change: &Change) -> Result<(), Failed> {
        match change {
            Change::Insert { relation, new } => {
                let table = self.table(relation)?;
                let (mut names, mut values) = (Vec::new(), Vec::new());
                for (column, cell) in cells(table, relation, new) {
                    let value = self.value(table, &column.name, column.kind, cell)?;
                    names.push(quoted(&column.name));
                    values.push(value.unwrap_or(Value::Null));
                }
                let places = vec!["?"; values.len()].join(", ");
                let sql = format!("INSERT INTO main.{} ({}) VALUES ({places})", quoted(&table.name), names.join(", "));
                let mut statement = self.connection.prepare_cached(&sql).map_err(|error| self.failed(error))?;
                statement.execute(params_from_iter(values)).map_err(|error| self.failed(error)).map(drop)
            }
            Change::Update { relation, old, new } => {
                let table = self.table(relation)?;
                let before = match old {
                    Some(Old::Key(row) | Old::Full(row)) => row,
                    None => new,
                };
                let whole = matches!(old, Some(Old::Full(_)));
                let found = self.find(table, relation, before, whole)?;
                let (mut sets, mut values) = (Vec::new(), Vec::new());
                for (column, cell) in cells(table, relation, new) {
                    let Some(value) = self.value(table, &column.name, column.kind, cell)? else { continue };
                    let at = table.columns.iter().position(|one| one.name == column.name).unwrap_or_default();
                    if !is_same(column.kind, &found.row[at], &value) {
                        sets.push(format!("{} = ?", quoted(&column.name)));
                        values.push(value);
                    }
                }
                if sets.is_empty() {
                    return Ok(());
                }
                values.extend(found.by);
                let sql =
                    format!("UPDATE main.{} SET {} WHERE {}", quoted(&table.name), sets.join(", "), found.condition);
                self.one(table, &sql, values)
            }
            Change::Delete { relation, old } => {
                let table = self.table(relation)?;
                let (Old::Key(row) | Old::Full(row)) = old;
                let found = self.find(table, relation, row, matches!(old, Old::Full(_)))?;
                let sql = format!("DELETE FROM main.{} WHERE {}", quoted(&table.name), found.condition);
                self.one(table, &sql, found.by)
            }
            Change::Truncate { relations, .. } => {
                for relation in relations {
                    let table = self.table(relation)?;
                    self.run(&format!("DELETE FROM main.{}", quoted(&table.name)))?;
                }
                Ok(())
            }
            Change::Message { .. } => Ok(()),
        }
    }

    /// A statement that changes exactly one row.
    fn one(&self, table: &Carried, sql: &str, values: Vec<Value>) -> Result<(), Failed> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| self.failed(error))?;
        let changed = statement.execute(params_from_iter(values)).map_err(|error| self.failed(error))?;
        match changed {
            1 => Ok(()),
            other => Err(conflict(table, "a row", format!("{other} rows were changed where it was to be one"))),
        }
    }

    /// The file's row for one of the target's: by the key, or as a whole.
    fn find(&self, table: &Carried, relation: &Relation, row: &Row, whole: bool) -> Result<Found, Failed> {
        let mut wanted = Vec::new();
        for (column, cell) in cells(table, relation, row) {
            let at = table.columns.iter().position(|one| one.name == column.name).unwrap_or_default();
            let is_wanted = if table.key.is_empty() { whole } else { table.key.contains(&at) };
            if is_wanted && let Some(value) = self.value(table, &column.name, column.kind, cell)? {
                wanted.push((at, value));
            }
        }
        let shown: Vec<String> = wanted
            .iter()
            .map(|(at, value)| format!("{} = {}", table.columns[*at].name, excerpt(ValueRef::from(value))))
            .collect();
        let key = shown.join(", ");
        let is_short = wanted.is_empty() || (!table.key.is_empty() && wanted.len() != table.key.len());
        if is_short || (table.key.is_empty() && table.rowid.is_none()) {
            return Err(conflict(table, "a row", "the target does not say which row it was".to_owned()));
        }
        // By whole rows, a value may be spelled otherwise in the file: those are compared one by one.
        let asked: Vec<&(usize, Value)> =
            wanted.iter().filter(|(at, _)| !table.key.is_empty() || table.columns[*at].kind.is_exact()).collect();
        let rowid = table.rowid.as_deref().filter(|_| table.key.is_empty());
        let terms: Vec<String> =
            asked.iter().map(|(at, _)| format!("{} IS ?", quoted(&table.columns[*at].name))).collect();
        let condition = if terms.is_empty() { "1".to_owned() } else { terms.join(" AND ") };
        let sql = format!(
            "SELECT {}, {} FROM main.{} WHERE {condition}",
            table.list(),
            rowid.unwrap_or("0"),
            quoted(&table.name)
        );
        let by: Vec<Value> = asked.iter().map(|(_, value)| value.clone()).collect();
        let mut statement = self.connection.prepare_cached(&sql).map_err(|error| self.failed(error))?;
        let mut rows = statement.query(params_from_iter(by.clone())).map_err(|error| self.failed(error))?;
        let mut found = None;
        while let Some(row) = rows.next().map_err(|error| self.failed(error))? {
            let values: Result<Vec<Value>, _> = (0..=table.columns.len()).map(|at| row.get::<_, Value>(at)).collect();
            let mut values = values.map_err(|error| self.failed(error))?;
            let number = values.pop().unwrap_or(Value::Null);
            if !wanted.iter().all(|(at, value)| is_same(table.columns[*at].kind, &values[*at], value)) {
                continue;
            }
            match rowid {
                // Of equal rows any is as good.
                Some(rowid) => {
                    return Ok(Found { row: values, condition: format!("{rowid} = ?"), by: vec![number] });
                }
                None if found.is_some() => return Err(conflict(table, &key, "several rows have this key".to_owned())),
                None => found = Some(Found { row: values, condition: condition.clone(), by: by.clone() }),
            }
        }
        found.ok_or_else(|| conflict(table, &key, "the file has no such row".to_owned()))
    }

    /// The file's value of a cell; nothing for one that the change did not touch.
    fn value(&self, table: &Carried, column: &str, kind: Kind, cell: &Cell) -> Result<Option<Value>, Failed> {
        let value = match cell {
            Cell::Unchanged => return Ok(None),
            Cell::Null => Ok(Value::Null),
            Cell::Binary(bytes) => kind.inverse(Some(bytes)),
            Cell::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => kind.inverse_of_text(Some(text)),
                Err(_) => Err(super::kind::Misfit::Malformed),
            },
        };
        value
            .map(Some)
            .map_err(|misfit| conflict(table, &format!("column {column}"), format!("a value of the target {misfit}")))
    }
}

/// The id of the target's fence in a crossing: each schema's is its own.
pub fn fence_id(crossing: &str, schema: &str) -> String {
    format!("{crossing}.{schema}")
}

struct Found {
    /// The values of the columns that travel, as they are in the file.
    row: Vec<Value>,
    condition: String,
    by: Vec<Value>,
}

fn conflict(table: &Carried, key: &str, why: String) -> Failed {
    Failed::Stop("conflict", Box::new(SqliteError::Conflict { table: table.name.clone(), key: key.to_owned(), why }))
}

/// The cells of the columns that travel. The target's other columns have no place in the file.
fn cells<'a>(
    table: &'a Carried,
    relation: &'a Relation,
    row: &'a Row,
) -> impl Iterator<Item = (&'a super::shape::Travels, &'a Cell)> {
    relation
        .columns
        .iter()
        .zip(row)
        .filter_map(|(column, cell)| table.columns.iter().find(|one| one.name == column.name).map(|one| (one, cell)))
}

/// Whether a value of the file is, there, the value that the target has.
fn is_same(kind: Kind, here: &Value, there: &Value) -> bool {
    if here == there {
        return true;
    }
    if kind.is_exact() {
        return false;
    }
    if let (Kind::Jsonb, Value::Text(here), Value::Text(there)) = (kind, here, there) {
        return jsonb::common(here).is_some_and(|here| Some(here) == jsonb::common(there));
    }
    let bytes = |value: &Value| {
        let mut bytes = Vec::new();
        kind.forward(ValueRef::from(value), &mut bytes).ok().map(|()| bytes)
    };
    bytes(here).is_some_and(|here| Some(here) == bytes(there))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_flowed_is_known_only_as_long_as_nobody_else_commits() {
        for journal in ["wal", "delete"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.db");
            let other = Connection::open(&path).unwrap();
            other.pragma_update(None, "journal_mode", journal).unwrap();
            other.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
            let shape = Shape { utf16: false, tables: Vec::new(), declared: BTreeMap::new(), repeats: BTreeMap::new() };
            let connection = super::super::open::open_write(&path).unwrap();
            let mut back = Back::new(connection, &path, Arc::new(shape), "s".to_owned(), "o", "health").unwrap();
            assert_eq!(back.what_flowed().unwrap(), None, "nobody asked for it");
            assert!(back.note_what_flows().unwrap());
            back.connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
            assert_eq!(back.what_flowed().unwrap(), Some(Vec::new()), "our own commits are no others'");
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            assert_eq!(back.what_flowed().unwrap(), Some(Vec::new()), "a lock is no commit");
            other.execute_batch("INSERT INTO t VALUES (2); COMMIT").unwrap();
            assert_eq!(back.what_flowed().unwrap(), None);
        }
    }

    #[test]
    fn disk_without_room_may_pass_and_a_broken_constraint_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (body TEXT NOT NULL)").unwrap();
        let shape = Shape { utf16: false, tables: Vec::new(), declared: BTreeMap::new(), repeats: BTreeMap::new() };
        let connection = super::super::open::open_write(&path).unwrap();
        let back = Back::new(connection, &path, Arc::new(shape), "s".to_owned(), "o", "health").unwrap();
        back.connection.pragma_update(None, "max_page_count", 2).unwrap();
        let full = back.run("INSERT INTO t VALUES (zeroblob(1000000))");
        assert!(matches!(full, Err(Failed::Again(_))), "room can be made, and then it goes on by itself");
        let broken = back.run("INSERT INTO t VALUES (NULL)");
        assert!(matches!(broken, Err(Failed::Stop("apply", _))), "nothing but a person can mend it");
    }
}
