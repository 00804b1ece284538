//! Keys whose rows were changed since they were last known to be equal.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pgrunbook_postgres::pgoutput::{Cell, Change, Old, Relation, Row};
use rusqlite::{Connection, OptionalExtension};

use super::error::ParityError;
use super::keys::Keys;
use super::pair::{Column, Pair, TEXT};

/// Bytes of keys that are kept in memory; beyond it they go into a file.
const MEMORY: usize = 64 << 20;

/// What an entry of a set costs beside the key itself.
const ENTRY: usize = 48;

/// A change of one table, in words of parity: which keys it touched, and how the number of rows moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    pub keys: Vec<Vec<u8>>,
    /// +1 for an insert, -1 for a delete.
    pub rows: i64,
    /// The whole table: a TRUNCATE, or a table without a key.
    pub whole: bool,
}

/// The dirty keys of all tables of a transfer. Cheap to clone: clones share the set.
///
/// They are lost with the process: after a crash a base pass begins anew, or they are read again from the spool.
#[derive(Debug, Clone)]
pub struct Dirty(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    tables: BTreeMap<String, Table>,
    bytes: usize,
    limit: usize,
    folder: PathBuf,
    spilled: Option<Spill>,
}

#[derive(Debug, Default)]
struct Table {
    keys: HashSet<Vec<u8>>,
    whole: bool,
    rows: i64,
}

/// A database in a file of its own, which nobody else opens; it goes when it is dropped.
#[derive(Debug)]
struct Spill {
    connection: Connection,
    file: tempfile::TempPath,
}

impl Dirty {
    /// An empty set; `folder` is where a file is made if memory does not suffice.
    pub fn new(folder: &Path) -> Self {
        Self::with_memory(folder, MEMORY)
    }

    /// The same with another limit, in bytes.
    pub fn with_memory(folder: &Path, limit: usize) -> Self {
        let (tables, folder) = (BTreeMap::new(), folder.to_owned());
        Self(Arc::new(Mutex::new(Inner { tables, bytes: 0, limit, folder, spilled: None })))
    }

    /// Notes what a change touched.
    ///
    /// # Errors
    /// [`ParityError::Spill`] if the file cannot be written.
    pub fn note(&self, table: &str, touched: Touched) -> Result<(), ParityError> {
        let mut inner = self.lock();
        let one = inner.tables.entry(table.to_owned()).or_default();
        one.rows += touched.rows;
        one.whole |= touched.whole;
        let mut added = 0;
        for key in touched.keys {
            let length = key.len() + ENTRY;
            added += if one.keys.insert(key) { length } else { 0 };
        }
        inner.bytes += added;
        if inner.bytes > inner.limit { inner.spill() } else { Ok(()) }
    }

    /// Takes everything out of another set, cheaply where it is all in memory.
    ///
    /// # Errors
    /// As [`Dirty::note`].
    pub fn absorb(&self, other: &Self) -> Result<(), ParityError> {
        let tables: Vec<(String, Table)> = {
            let mut inner = other.lock();
            inner.bytes = 0;
            let name = |(name, one): (&String, &mut Table)| {
                let keys = std::mem::take(&mut one.keys);
                (name.clone(), Table { keys, whole: one.whole, rows: std::mem::take(&mut one.rows) })
            };
            inner.tables.iter_mut().map(name).collect()
        };
        for (name, Table { keys, whole, rows }) in tables {
            self.note(&name, Touched { keys: keys.into_iter().collect(), rows, whole })?;
        }
        // What is in its file.
        self.add_keys(other)
    }

    /// The keys of another set, without its counts.
    ///
    /// # Errors
    /// As [`Dirty::note`].
    pub(super) fn add_keys(&self, other: &Self) -> Result<(), ParityError> {
        for table in other.tables() {
            let mut after = None;
            loop {
                let keys = other.keys(&table, after.as_deref(), super::keys::AT_ONCE)?;
                let Some(last) = keys.iter().last() else { break };
                after = Some(last.to_vec());
                self.note_keys(&table, &keys)?;
            }
            if other.is_whole(&table) {
                self.mark_whole(&table);
            }
        }
        Ok(())
    }

    pub(super) fn note_keys(&self, table: &str, keys: &Keys) -> Result<(), ParityError> {
        let keys = keys.iter().map(<[u8]>::to_vec).collect();
        self.note(table, Touched { keys, ..Touched::default() })
    }

    pub(super) fn mark_whole(&self, table: &str) {
        self.lock().tables.entry(table.to_owned()).or_default().whole = true;
    }

    /// An empty set of the same limits.
    pub fn like(&self) -> Self {
        let inner = self.lock();
        Self::with_memory(&inner.folder, inner.limit)
    }

    /// Takes everything out, as a set of its own.
    pub fn take(&self) -> Self {
        let empty = self.like();
        std::mem::swap(&mut *self.lock(), &mut *empty.lock());
        empty
    }

    /// Whether a row's key is in it.
    ///
    /// # Errors
    /// [`ParityError::Spill`] if the file cannot be read.
    pub fn has(&self, table: &str, key: &[u8]) -> Result<bool, ParityError> {
        let inner = self.lock();
        if inner.tables.get(table).is_some_and(|one| one.whole || one.keys.contains(key)) {
            return Ok(true);
        }
        let Some(spill) = &inner.spilled else { return Ok(false) };
        spill.has(table, key).map_err(|error| spill.failed(&error))
    }

    /// Some keys of a table in order, behind `after`; none when all were given. Keys that were there before the first call
    /// are all given, whatever is added in between.
    ///
    /// # Errors
    /// [`ParityError::Spill`] if the file cannot be read.
    pub fn keys(&self, table: &str, after: Option<&[u8]>, count: usize) -> Result<Keys, ParityError> {
        let inner = self.lock();
        let behind = |key: &&Vec<u8>| after.is_none_or(|after| key.as_slice() > after);
        let kept = inner.tables.get(table).map(|one| &one.keys);
        let mut found: Vec<Vec<u8>> = kept.into_iter().flatten().filter(behind).cloned().collect();
        if let Some(spill) = &inner.spilled {
            found.extend(spill.keys(table, after, count).map_err(|error| spill.failed(&error))?);
        }
        found.sort_unstable();
        found.dedup();
        found.truncate(count);
        Ok(found.into_iter().collect())
    }

    /// These keys were found equal at a position behind every change of them that was noted: they are clean.
    ///
    /// # Errors
    /// [`ParityError::Spill`] if the file cannot be written.
    pub fn clean(&self, table: &str, keys: &Keys) -> Result<(), ParityError> {
        let mut inner = self.lock();
        let mut freed = 0;
        if let Some(one) = inner.tables.get_mut(table) {
            for key in keys.iter() {
                freed += if one.keys.remove(key) { key.len() + ENTRY } else { 0 };
            }
        }
        inner.bytes -= freed;
        let Some(spill) = &inner.spilled else { return Ok(()) };
        spill.forget(table, keys).map_err(|error| spill.failed(&error))
    }

    /// The tables that something was noted of.
    pub fn tables(&self) -> Vec<String> {
        self.lock().tables.keys().cloned().collect()
    }

    /// Whether the whole table must be compared again.
    pub fn is_whole(&self, table: &str) -> bool {
        self.lock().tables.get(table).is_some_and(|one| one.whole)
    }

    /// By how many the number of rows moved in the changes that were noted.
    pub fn rows(&self, table: &str) -> i64 {
        self.lock().tables.get(table).map_or(0, |one| one.rows)
    }

    /// How many keys of a table are in it.
    ///
    /// # Errors
    /// [`ParityError::Spill`] if the file cannot be read.
    pub fn len(&self, table: &str) -> Result<u64, ParityError> {
        let inner = self.lock();
        let kept = inner.tables.get(table).map_or(0, |one| one.keys.len() as u64);
        let Some(spill) = &inner.spilled else { return Ok(kept) };
        // Keys of both are few: a key goes back to memory when it is touched again.
        let both = inner
            .tables
            .get(table)
            .map_or(Ok(0), |one| one.keys.iter().try_fold(0, |both, key| Ok(both + u64::from(spill.has(table, key)?))));
        let spilled = both.and_then(|both| Ok(spill.count(table)? - both));
        Ok(kept + spilled.map_err(|error| spill.failed(&error))?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Moves all keys from memory into the file.
    fn spill(&mut self) -> Result<(), ParityError> {
        if self.spilled.is_none() {
            let failed = |error: std::io::Error| ParityError::Spill { path: self.folder.display().to_string(), error };
            let file = tempfile::Builder::new().prefix("dirty-").tempfile_in(&self.folder).map_err(failed)?;
            let file = file.into_temp_path();
            let connection = Spill::open(&file).map_err(|error| failed(std::io::Error::other(error)))?;
            self.spilled = Some(Spill { connection, file });
        }
        let Some(spill) = &self.spilled else { return Ok(()) };
        spill.take(&mut self.tables).map_err(|error| spill.failed(&error))?;
        self.bytes = 0;
        Ok(())
    }
}

impl Spill {
    fn open(file: &Path) -> rusqlite::Result<Connection> {
        let connection = Connection::open(file)?;
        connection.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
             CREATE TABLE dirty (name TEXT, key BLOB, PRIMARY KEY (name, key)) WITHOUT ROWID",
        )?;
        Ok(connection)
    }

    fn take(&self, tables: &mut BTreeMap<String, Table>) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN")?;
        {
            let mut insert =
                self.connection.prepare_cached("INSERT OR IGNORE INTO dirty (name, key) VALUES (?1, ?2)")?;
            for (name, table) in tables {
                for key in table.keys.drain() {
                    insert.execute((name.as_str(), key))?;
                }
                table.keys.shrink_to_fit();
            }
        }
        self.connection.execute_batch("COMMIT")
    }

    fn has(&self, table: &str, key: &[u8]) -> rusqlite::Result<bool> {
        let mut find = self.connection.prepare_cached("SELECT 1 FROM dirty WHERE name = ?1 AND key = ?2")?;
        find.query_row((table, key), |_| Ok(())).optional().map(|found| found.is_some())
    }

    fn keys(&self, table: &str, after: Option<&[u8]>, count: usize) -> rusqlite::Result<Vec<Vec<u8>>> {
        let sql = "SELECT key FROM dirty WHERE name = ?1 AND key > ?2 ORDER BY key LIMIT ?3";
        let mut find = self.connection.prepare_cached(sql)?;
        // No key is empty, so all are behind the empty one.
        let limit = i64::try_from(count).unwrap_or(i64::MAX);
        find.query_map((table, after.unwrap_or_default(), limit), |row| row.get(0))?.collect()
    }

    fn forget(&self, table: &str, keys: &Keys) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN")?;
        {
            let mut delete = self.connection.prepare_cached("DELETE FROM dirty WHERE name = ?1 AND key = ?2")?;
            for key in keys.iter() {
                delete.execute((table, key))?;
            }
        }
        self.connection.execute_batch("COMMIT")
    }

    fn count(&self, table: &str) -> rusqlite::Result<u64> {
        self.connection.query_row("SELECT count(*) FROM dirty WHERE name = ?1", [table], |row| row.get(0))
    }

    fn failed(&self, error: &rusqlite::Error) -> ParityError {
        ParityError::Spill { path: self.file.display().to_string(), error: std::io::Error::other(error.to_string()) }
    }
}

/// What a change touched in a table that is compared. None of a message, or of another table.
///
/// # Errors
/// [`ParityError::KeyText`] or [`ParityError::NoKey`] where the stream does not tell the key as it is compared.
pub(super) fn touched(pair: &Pair, change: &Change) -> Result<Option<Touched>, ParityError> {
    let is_it = |relation: &Relation| pair.is_called(&relation.name);
    let keyless = pair.key_len == 0;
    let mut touched = Touched { whole: keyless, ..Touched::default() };
    let mut key = |relation: &Relation, row: &Row, before: Option<&Row>| {
        if !keyless {
            touched.keys.push(key_of(pair, relation, row, before)?);
        }
        Ok::<(), ParityError>(())
    };
    match change {
        Change::Insert { relation, new } if is_it(relation) => {
            key(relation, new, None)?;
            touched.rows = 1;
        }
        Change::Update { relation, old, new } if is_it(relation) => {
            let before = old.as_ref().map(|(Old::Key(row) | Old::Full(row))| row);
            key(relation, new, before)?;
            if let Some(before) = before {
                key(relation, before, None)?;
            } else if !keyless {
                told(pair, relation)?;
            }
        }
        Change::Delete { relation, old: Old::Key(row) | Old::Full(row) } if is_it(relation) => {
            told(pair, relation)?;
            key(relation, row, None)?;
            touched.rows = -1;
        }
        Change::Truncate { relations, .. } if relations.iter().any(|one| is_it(one)) => touched.whole = true,
        _ => return Ok(None),
    }
    Ok(Some(touched))
}

/// The source must write the compared key of each row that it changes.
fn told(pair: &Pair, relation: &Relation) -> Result<(), ParityError> {
    let is_key = |name: &str| relation.columns.iter().any(|column| column.name == name && column.is_key);
    if pair.columns[..pair.key_len].iter().all(|column| is_key(&column.name)) {
        return Ok(());
    }
    Err(ParityError::NoKey { table: pair.name.clone() })
}

fn key_of(pair: &Pair, relation: &Relation, row: &Row, before: Option<&Row>) -> Result<Vec<u8>, ParityError> {
    let mut key = Vec::new();
    for column in &pair.columns[..pair.key_len] {
        let at = relation.columns.iter().position(|one| one.name == column.name);
        let cell = at.and_then(|at| match row.get(at) {
            // Out of line and not touched: the old key is told then.
            Some(Cell::Unchanged) => before.and_then(|before| before.get(at)),
            cell => cell,
        });
        let wrong = || ParityError::KeyText {
            table: pair.name.clone(),
            column: column.name.clone(),
            type_name: column.type_name.clone(),
        };
        let value = match cell {
            Some(Cell::Null) => None,
            Some(Cell::Binary(bytes)) if !column.as_text || is_text(column, relation, at) => Some(bytes.to_vec()),
            Some(Cell::Text(text)) => Some(binary(column, text).ok_or_else(wrong)?),
            Some(Cell::Binary(_) | Cell::Unchanged) | None => return Err(wrong()),
        };
        let length = value.as_ref().map_or(Ok(-1), |value| i32::try_from(value.len())).map_err(|_| wrong())?;
        key.extend_from_slice(&length.to_be_bytes());
        key.extend(value.into_iter().flatten());
    }
    Ok(key)
}

/// Whether the binary form of a key that is read as text is that text: `text` and its kin, and enumerations.
fn is_text(column: &Column, relation: &Relation, at: Option<usize>) -> bool {
    let oid = at.and_then(|at| relation.columns.get(at)).map(|one| one.type_oid);
    matches!(oid, Some(TEXT | 1043)) || column.is_enum
}

/// The binary form of a few types' text: those that keys nearly always have.
fn binary(column: &Column, text: &[u8]) -> Option<Vec<u8>> {
    let words = std::str::from_utf8(text).ok()?;
    match column.oid? {
        TEXT | 1043 | 1042 | 19 => Some(text.to_vec()),
        20 => words.parse::<i64>().ok().map(|number| number.to_be_bytes().to_vec()),
        21 => words.parse::<i16>().ok().map(|number| number.to_be_bytes().to_vec()),
        23 => words.parse::<i32>().ok().map(|number| number.to_be_bytes().to_vec()),
        2950 => {
            let digits: String = words.chars().filter(|sign| *sign != '-').collect();
            let value = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
            Some(value.to_be_bytes().to_vec())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: i32) -> Vec<u8> {
        [4_i32.to_be_bytes(), number.to_be_bytes()].concat()
    }

    #[test]
    fn keys_beyond_the_memory_are_kept_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let dirty = Dirty::with_memory(folder.path(), 1_000);
        for number in 0..1_000 {
            dirty.note("t", Touched { keys: vec![key(number), key(number / 2)], rows: 1, whole: false }).unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!((dirty.len("t").unwrap(), dirty.rows("t"), dirty.is_whole("t")), (1_000, 1_000, false));
        assert!(dirty.has("t", &key(0)).unwrap() && dirty.has("t", &key(999)).unwrap());
        assert!(!dirty.has("t", &key(1_000)).unwrap() && !dirty.has("u", &key(0)).unwrap());

        let (mut after, mut seen) = (None, 0);
        loop {
            let some = dirty.keys("t", after.as_deref(), 64).unwrap();
            let Some(last) = some.iter().last().map(<[u8]>::to_vec) else { break };
            assert!(some.iter().all(|key| after.as_deref().is_none_or(|after| key > after)));
            seen += some.len();
            after = Some(last);
        }
        assert_eq!(seen, 1_000);
        dirty.clean("t", &(0..500).map(key).collect()).unwrap();
        assert_eq!(dirty.len("t").unwrap(), 500);
        drop(dirty);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_absorbed_is_taken_out_of_memory_and_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for limit in [1_000, usize::MAX] {
            let (dirty, other) = (Dirty::new(folder.path()), Dirty::with_memory(folder.path(), limit));
            dirty.note("t", Touched { keys: vec![key(-1), key(7)], rows: 1, whole: false }).unwrap();
            for number in 0..1_000 {
                other.note("t", Touched { keys: vec![key(number)], rows: -1, whole: false }).unwrap();
            }
            other.note("u", Touched { keys: Vec::new(), rows: 0, whole: true }).unwrap();
            dirty.absorb(&other).unwrap();
            assert_eq!((dirty.len("t").unwrap(), dirty.rows("t"), dirty.is_whole("t")), (1_001, -999, false));
            assert!(dirty.is_whole("u") && dirty.has("t", &key(999)).unwrap());
            assert_eq!(other.rows("t"), 0);
        }
    }
}
