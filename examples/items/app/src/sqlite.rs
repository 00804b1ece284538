//! The mode `SQLITE`: a file for each profile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, ffi, params,
};
use serde_json::{Map, Value, json};

use crate::answer::{Failure, moment};
use crate::profile::{What, Write, json_of, no_item, no_note, unknown_source};

/// What a profile's file holds.
pub const SCHEMA: &str = include_str!("../../db/legacy.sql");

/// How long a request waits for another that writes.
const BUSY: Duration = Duration::from_secs(5);

const ITEM: &str = "
SELECT i.id, i.title, i.body, i.score, i.pinned, i.meta, i.note_count, i.created_at, i.updated_at
FROM items AS i";

const NOTE: &str = "SELECT n.id, n.item_id, n.author, n.body, n.created_at, n.updated_at FROM notes AS n";

/// The profiles in a folder: `<source>.db`.
#[derive(Clone)]
pub struct Sqlite {
    folder: PathBuf,
    idle: Arc<Mutex<HashMap<String, Vec<Connection>>>>,
}

impl Sqlite {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, idle: Arc::default() }
    }

    /// The profile's file, if the source can be one's name and it is there.
    fn path(&self, source: &str) -> Option<PathBuf> {
        let plain =
            !source.is_empty() && source.chars().all(|one| one.is_ascii_alphanumeric() || one == '_' || one == '-');
        plain.then(|| self.folder.join(format!("{source}.db"))).filter(|path| path.is_file())
    }

    pub fn sources(&self) -> Result<Vec<String>, Failure> {
        let entries = std::fs::read_dir(&self.folder)
            .map_err(|error| Failure::unavailable(format!("the folder of the profiles cannot be read: {error}")))?;
        let names =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".db").map(str::to_owned));
        let mut names: Vec<String> = names.filter(|name| self.path(name).is_some()).collect();
        names.sort();
        Ok(names)
    }

    /// Works on a profile, away from the tasks that must not block.
    async fn with<T: Send + 'static>(
        &self,
        source: &str,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let path = self.path(source).ok_or_else(|| unknown_source(source))?;
        let (idle, source) = (Arc::clone(&self.idle), source.to_owned());
        let work = tokio::task::spawn_blocking(move || {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&source).and_then(Vec::pop);
            let mut connection = kept.map_or_else(|| open(&path), Ok).map_err(failure)?;
            let outcome = work(&mut connection);
            idle.lock().unwrap_or_else(PoisonError::into_inner).entry(source).or_default().push(connection);
            outcome
        });
        work.await.map_err(|error| Failure::Internal(format!("the work was cut short: {error}")))?
    }

    pub async fn health(&self, source: Option<&str>) -> Result<(), Failure> {
        match source {
            None => self.sources().map(drop),
            Some(source) => self.with(source, |db| db.query_row("SELECT 1", [], |_| Ok(())).map_err(failure)).await,
        }
    }

    pub async fn counts(&self, source: &str) -> Result<(i64, i64), Failure> {
        let sql = "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM notes)";
        self.with(source, |db| db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failure)).await
    }

    pub async fn items(&self, source: &str, limit: i64, words: &[String]) -> Result<Vec<Value>, Failure> {
        let query = words.iter().map(|word| format!("\"{word}\"*")).collect::<Vec<_>>().join(" ");
        let work = move |db: &mut Connection| match query.as_str() {
            "" => items(db, &format!("{ITEM} ORDER BY i.id LIMIT ?1"), params![limit]),
            query => {
                let sql = format!(
                    "{ITEM} WHERE i.id IN (SELECT rowid FROM items_fts WHERE items_fts MATCH ?2) ORDER BY i.id LIMIT ?1"
                );
                items(db, &sql, params![limit, query])
            }
        };
        self.with(source, work).await
    }

    pub async fn item(&self, source: &str, id: i64) -> Result<Value, Failure> {
        let work = move |db: &mut Connection| {
            items(db, &format!("{ITEM} WHERE i.id = ?1"), params![id])?.pop().ok_or_else(|| no_item(id))
        };
        self.with(source, work).await
    }

    pub async fn notes(&self, source: &str, id: i64) -> Result<Vec<Value>, Failure> {
        let work = move |db: &mut Connection| {
            let transaction = db.transaction().map_err(failure)?;
            let there = transaction
                .query_row("SELECT 1 FROM items WHERE id = ?1", [id], |_| Ok(()))
                .optional()
                .map_err(failure)?;
            there.ok_or_else(|| no_item(id))?;
            rows(&transaction, &format!("{NOTE} WHERE n.item_id = ?1 ORDER BY n.id"), params![id], note)
        };
        self.with(source, work).await
    }

    /// What a key did; none if nothing was done under it.
    pub async fn edit(&self, source: &str, key: &str) -> Result<Option<Value>, Failure> {
        let key = key.to_owned();
        let work = move |db: &mut Connection| {
            let read = |row: &Row<'_>| {
                Ok(json!({
                    "key": key, "kind": row.get::<_, String>(0)?, "item_id": row.get::<_, i64>(1)?,
                    "note_id": row.get::<_, Option<i64>>(2)?, "value": row.get::<_, String>(3)?,
                }))
            };
            let sql = "SELECT kind, item_id, note_id, value FROM edits WHERE key = ?1";
            db.query_row(sql, [&key], read).optional().map_err(failure)
        };
        self.with(source, work).await
    }

    pub async fn write(&self, source: &str, write: Write) -> Result<Value, Failure> {
        let work = move |db: &mut Connection| {
            // The lock is taken at once: a transaction that reads first could not get it any more.
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failure)?;
            let answer = written(&transaction, &write)?;
            transaction.commit().map_err(failure)?;
            Ok(answer)
        };
        self.with(source, work).await
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    // Not CREATE: a profile that is not there is no empty one.
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY)?;
    db.execute_batch("PRAGMA foreign_keys = on")?;
    Ok(db)
}

fn written(db: &Transaction<'_>, write: &Write) -> Result<Value, Failure> {
    let (id, at) = (write.item, write.at.as_str());
    if let Some(key) = &write.key {
        let before = db
            .query_row("SELECT kind, item_id, note_id FROM edits WHERE key = ?1", [key], |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()
            .map_err(failure)?;
        if let Some((kind, item, note)) = before {
            return write.replayed(&kind, item, note);
        }
    }
    let changed = match &write.what {
        What::Meta(text) => db.execute("UPDATE items SET meta = ?2, updated_at = ?3 WHERE id = ?1", params![id, text, at]),
        What::NoteNew { author, body } => db.execute(
            "INSERT INTO notes (item_id, author, body, created_at, updated_at) SELECT id, ?2, ?3, ?4, ?4 FROM items WHERE id = ?1",
            params![id, author, body, at],
        ),
        What::NoteEdit { note, body } => db.execute(
            "UPDATE notes SET body = ?3, updated_at = ?4 WHERE item_id = ?1 AND id = ?2",
            params![id, note, body, at],
        ),
        What::NoteDelete { note } => db.execute("DELETE FROM notes WHERE item_id = ?1 AND id = ?2", params![id, note]),
    };
    let changed = changed.map_err(failure)?;
    let note = match write.what {
        What::Meta(_) => None,
        // The trigger on notes inserts nothing, so that this is the note's.
        What::NoteNew { .. } => Some(db.last_insert_rowid()),
        What::NoteEdit { note, .. } | What::NoteDelete { note } => Some(note),
    };
    match (changed, &write.what) {
        (0, What::Meta(_) | What::NoteNew { .. }) => return Err(no_item(id)),
        (0, What::NoteEdit { note, .. } | What::NoteDelete { note }) => return Err(no_note(id, *note)),
        _ => {}
    }
    if let Some(key) = &write.key {
        db.execute(
            "INSERT INTO edits (key, kind, item_id, note_id, value, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![key, write.kind(), id, note, write.value(), at],
        )
        .map_err(failure)?;
    }
    Ok(write.done(note))
}

fn rows(
    db: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    read: fn(&Row<'_>) -> rusqlite::Result<Value>,
) -> Result<Vec<Value>, Failure> {
    let mut statement = db.prepare_cached(sql).map_err(failure)?;
    let rows = statement.query_map(parameters, read).map_err(failure)?;
    rows.collect::<Result<_, _>>().map_err(failure)
}

/// Items with their tags, as of one moment. The weights are read as the doubles they are: SQLite's JSON rounds them.
fn items(db: &mut Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<Value>, Failure> {
    let transaction = db.transaction().map_err(failure)?;
    let mut found = rows(&transaction, sql, parameters, item)?;
    let mut tags =
        transaction.prepare_cached("SELECT tag, weight FROM item_tags WHERE item_id = ?1").map_err(failure)?;
    for one in &mut found {
        let read = tags
            .query_map([one["id"].as_i64()], |row| Ok((row.get(0)?, json!(row.get::<_, f64>(1)?))))
            .map_err(failure)?;
        let read: Result<Map<String, Value>, _> = read.collect();
        one["tags"] = read.map_err(failure)?.into();
    }
    Ok(found)
}

fn item(row: &Row<'_>) -> rusqlite::Result<Value> {
    let (meta, created, updated): (String, String, String) = (row.get(5)?, row.get(7)?, row.get(8)?);
    Ok(json!({
        "id": row.get::<_, i64>(0)?, "title": row.get::<_, String>(1)?, "body": row.get::<_, String>(2)?,
        "score": row.get::<_, Option<f64>>(3)?, "pinned": row.get::<_, bool>(4)?, "meta": json_of(&meta),
        "note_count": row.get::<_, i64>(6)?, "created_at": moment(&created), "updated_at": moment(&updated),
    }))
}

fn note(row: &Row<'_>) -> rusqlite::Result<Value> {
    let (created, updated): (String, String) = (row.get(4)?, row.get(5)?);
    Ok(json!({
        "id": row.get::<_, i64>(0)?, "item_id": row.get::<_, i64>(1)?, "author": row.get::<_, String>(2)?,
        "body": row.get::<_, String>(3)?, "created_at": moment(&created), "updated_at": moment(&updated),
    }))
}

/// What an error of SQLite means to a client. None of our own triggers raises one: the one that does is the fence of a cutover.
fn failure(error: rusqlite::Error) -> Failure {
    let rusqlite::Error::SqliteFailure(code, said) = &error else { return Failure::Internal(error.to_string()) };
    match (code.code, code.extended_code) {
        (_, ffi::SQLITE_CONSTRAINT_TRIGGER) => {
            Failure::unavailable(said.clone().unwrap_or_else(|| "this profile takes no writes now".to_owned()))
        }
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => Failure::unavailable("another write is at work"),
        (ErrorCode::ReadOnly, _) => Failure::unavailable("this profile takes no writes now"),
        _ => Failure::Internal(format!("the profile refused: {error}")),
    }
}
