//! A row of a tenants' registry that says where each tenant is: changed in one transaction with the ledger's entry.

use std::collections::BTreeMap;

use pgrunbook_engine::fault::{self, Point};
use pgrunbook_postgres::ledger::{self, Entry};
use pgrunbook_postgres::{PgError, Session};

use super::error::SwitchError;
use crate::topology::{ident, literal};

/// What a row shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// `schema.table`, as SQL names it.
    pub table: String,
    pub key: BTreeMap<String, String>,
    pub set: BTreeMap<String, String>,
}

/// Values by column as PostgreSQL writes them; `None` is NULL.
pub(super) type Values = BTreeMap<String, Option<String>>;

/// One row for each step of a run that switched a row. `previous` NULL: there was none. Written values are kept as they
/// came to stand, so that the undo knows whether somebody changed them since.
const KEPT: &str = "CREATE TABLE IF NOT EXISTS pgrunbook.switch_undo (
    run text NOT NULL, step text NOT NULL, table_name text NOT NULL,
    previous jsonb, written jsonb NOT NULL, PRIMARY KEY (run, step))";

impl Row {
    /// # Errors
    /// If the table is not `schema.table`, or nothing says which row or what.
    pub fn new(table: &str, key: BTreeMap<String, String>, set: BTreeMap<String, String>) -> Result<Self, String> {
        let parts: Vec<&str> = table.split('.').collect();
        let [schema, name] = parts.as_slice() else { return Err(format!("`{table}` is not `schema.table`")) };
        if key.is_empty() || set.is_empty() {
            return Err("it needs `key` (which row) and `set` (what it shall hold)".to_owned());
        }
        if let Some(both) = key.keys().find(|column| set.contains_key(*column)) {
            return Err(format!("`{both}` is in `key` and in `set`"));
        }
        Ok(Self { table: format!("{}.{}", ident(schema), ident(name)), key, set })
    }

    fn filter(&self) -> String {
        let all: Vec<String> =
            self.key.iter().map(|(column, value)| format!("{} = {}", ident(column), literal(value))).collect();
        all.join(" AND ")
    }

    fn refuse(&self, why: impl Into<String>) -> SwitchError {
        SwitchError::Row { table: self.table.clone(), why: why.into() }
    }

    /// What the row holds in the columns that are set; `None`: there is no such row.
    ///
    /// # Errors
    /// If several rows have the key.
    pub async fn read(&self, session: &Session, lock: bool) -> Result<Option<Values>, SwitchError> {
        let columns: Vec<String> =
            self.set.keys().map(|column| format!("{}::pg_catalog.text", ident(column))).collect();
        let lock = if lock { " FOR UPDATE" } else { "" };
        let sql = format!("SELECT {} FROM {} WHERE {}{lock}", columns.join(", "), self.table, self.filter());
        let rows = session.simple(&sql).await?.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
        match rows.len() {
            0 => Ok(None),
            1 => Ok(rows.into_iter().next().map(|row| self.set.keys().cloned().zip(row).collect())),
            many => Err(self.refuse(format!("{many} rows have this key, and one is meant"))),
        }
    }

    /// Updates the row, or inserts it where there is none. What it was before.
    ///
    /// # Errors
    /// With nothing changed, but for a connection that is lost at the COMMIT.
    pub async fn write(&self, session: &Session, entry: &Entry<'_>) -> Result<Option<Values>, SwitchError> {
        ledger::install(session).await?;
        session.execute(KEPT).await?;
        let done = self.write_in(session, entry).await;
        ended(session, done).await
    }

    async fn write_in(&self, session: &Session, entry: &Entry<'_>) -> Result<Option<Values>, SwitchError> {
        session.execute(&format!("BEGIN; {}", entry.assert_sql())).await?;
        let previous = self.read(session, true).await?;
        let sql = match &previous {
            Some(_) => {
                let set: Vec<String> =
                    self.set.iter().map(|(column, value)| format!("{} = {}", ident(column), literal(value))).collect();
                format!("UPDATE {} SET {} WHERE {}", self.table, set.join(", "), self.filter())
            }
            None => {
                let all: Vec<_> = self.key.iter().chain(&self.set).collect();
                let columns: Vec<String> = all.iter().map(|(column, _)| ident(column)).collect();
                let values: Vec<String> = all.iter().map(|(_, value)| literal(value)).collect();
                format!("INSERT INTO {} ({}) VALUES ({})", self.table, columns.join(", "), values.join(", "))
            }
        };
        session.execute(&sql).await?;
        let Some(written) = self.read(session, true).await? else {
            return Err(
                self.refuse("the row is not there after it was written: a trigger, a rule or a policy hides it")
            );
        };
        session
            .execute(&format!(
                "INSERT INTO pgrunbook.switch_undo (run, step, table_name, previous, written)
                 VALUES ({run}, {step}, {table}, {previous}, {written})
                 ON CONFLICT (run, step) DO UPDATE SET table_name = excluded.table_name, previous = excluded.previous,
                     written = excluded.written; {record}",
                run = literal(entry.run),
                step = literal(entry.step),
                table = literal(&self.table),
                previous = previous.as_ref().map_or_else(|| "NULL".to_owned(), json),
                written = json(&written),
                record = entry.record_sql(),
            ))
            .await?;
        fault::pass(Point::BeforeCommit);
        session.execute("COMMIT").await?;
        fault::pass(Point::AfterCommit);
        Ok(previous)
    }

    /// Puts back what the row held before. `false`: nothing was kept.
    ///
    /// # Errors
    /// If somebody changed the row since.
    pub async fn put_back(&self, session: &Session, entry: &Entry<'_>) -> Result<bool, SwitchError> {
        let done = self.put_back_in(session, entry).await;
        ended(session, done).await
    }

    async fn put_back_in(&self, session: &Session, entry: &Entry<'_>) -> Result<bool, SwitchError> {
        session.execute(&format!("BEGIN; {}", entry.assert_sql())).await?;
        let mine = format!("run = {} AND step = {}", literal(entry.run), literal(entry.step));
        let answers = session
            .simple(&format!("SELECT previous::text, written::text FROM pgrunbook.switch_undo WHERE {mine} FOR UPDATE"))
            .await?;
        let row = answers.into_iter().next_back().and_then(|answer| answer.rows.into_iter().next());
        let Some(row) = row else {
            session.execute(&format!("{}; COMMIT", entry.record_sql())).await?;
            return Ok(false);
        };
        let read =
            |at: usize| row.get(at).cloned().flatten().and_then(|text| serde_json::from_str::<Values>(&text).ok());
        let (previous, written) = (read(0), read(1).unwrap_or_default());
        let now = self.read(session, true).await?;
        if now.as_ref() != Some(&written) {
            let columns: Vec<&str> = written
                .iter()
                .filter(|(column, value)| now.as_ref().is_none_or(|now| now.get(*column) != Some(value)))
                .map(|(column, _)| column.as_str())
                .collect();
            return Err(self.refuse(format!(
                "somebody changed {} since the switch; what it was before is kept in pgrunbook.switch_undo",
                columns.join(", ")
            )));
        }
        let sql = match &previous {
            Some(previous) => {
                let value = |value: &Option<String>| value.as_deref().map_or_else(|| "NULL".to_owned(), literal);
                let set: Vec<String> =
                    previous.iter().map(|(column, old)| format!("{} = {}", ident(column), value(old))).collect();
                format!("UPDATE {} SET {} WHERE {}", self.table, set.join(", "), self.filter())
            }
            None => format!("DELETE FROM {} WHERE {}", self.table, self.filter()),
        };
        let forget = format!("DELETE FROM pgrunbook.switch_undo WHERE {mine}");
        session.execute(&format!("{sql}; {forget}; {}", entry.record_sql())).await?;
        fault::pass(Point::BeforeCommit);
        session.execute("COMMIT").await?;
        fault::pass(Point::AfterCommit);
        Ok(true)
    }
}

fn json(values: &Values) -> String {
    let text = serde_json::to_string(values).expect("texts are JSON");
    format!("{}::pg_catalog.jsonb", literal(&text))
}

/// Rolls back what failed, unless the connection is gone.
async fn ended<T>(session: &Session, done: Result<T, SwitchError>) -> Result<T, SwitchError> {
    if done.is_err() && !session.is_closed() && !matches!(done, Err(SwitchError::Server(PgError::Lost { .. }))) {
        session.execute("ROLLBACK").await?;
    }
    done
}
