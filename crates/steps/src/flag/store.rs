//! Where a flag stands: read, and set in exchange for what it was.

use std::path::PathBuf;

use pgrunbook_document::Block;
use pgrunbook_engine::{RunCx, StepError};
use pgrunbook_postgres::ledger::{self, Entry};
use pgrunbook_postgres::{PgError, Session};
use serde_json::{Value, json};

use super::error::FlagError;
use super::flagd;
use crate::registry::required_target;
use crate::sql::application_name;
use crate::switch::{read_file, replace_file};
use crate::topology::{ident, literal};
use crate::workplace::Workplace;

/// What a flag shall be; what is not said stays.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Setting {
    pub enabled: Option<bool>,
    /// 0 to 100.
    pub percent: Option<f64>,
}

/// A flag, and where it stands.
///
/// Its *state* is what is stored of it, as JSON, `None` where it is not there: for a table `{"enabled", "percentage"}`, for
/// a row of JSON the member's value, for a file the flag's own text.
#[derive(Clone)]
pub struct Place {
    pub name: String,
    store: Store,
    workplace: Workplace,
}

#[derive(Clone)]
enum Store {
    /// The table `pgrunbook.flag`.
    Table {
        target: String,
    },
    /// A row of JSON.
    Row(Row),
    File {
        path: PathBuf,
    },
}

#[derive(Clone)]
struct Row {
    target: String,
    /// As SQL names it.
    table: String,
    shown: String,
    key_column: String,
    value_column: String,
    key: String,
    environment: Option<String>,
}

/// What a block says of the place.
#[derive(Debug, Default)]
pub struct PlaceFields {
    pub name: String,
    pub table: Option<String>,
    pub key: Option<String>,
    pub environment: Option<String>,
    pub key_column: Option<String>,
    pub value_column: Option<String>,
    pub file: Option<String>,
}

/// A state, and what it may be.
pub type State = Option<Value>;

/// The table of flags, version 1, as `pgrunbook-guard` reads it. `enabled` is the kill switch.
const TABLE: &str = "
CREATE SCHEMA IF NOT EXISTS pgrunbook;
CREATE TABLE IF NOT EXISTS pgrunbook.flag (
    name        text         PRIMARY KEY CHECK (name <> ''),
    variants    jsonb        NOT NULL DEFAULT '{\"on\": true, \"off\": false}' CHECK (jsonb_typeof(variants) = 'object'),
    on_variant  text         NOT NULL DEFAULT 'on',
    off_variant text         NOT NULL DEFAULT 'off',
    percentage  numeric(6,3) NOT NULL DEFAULT 0 CHECK (percentage BETWEEN 0 AND 100),
    enabled     boolean      NOT NULL DEFAULT true,
    updated_by  text         NOT NULL DEFAULT session_user,
    updated_at  timestamptz  NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CHECK (variants ? on_variant AND variants ? off_variant)
)";

/// SQLSTATE of a table that is not there, and of a schema.
const NOT_THERE: [&str; 2] = ["42P01", "3F000"];

impl Place {
    /// Of a block's fields.
    ///
    /// # Errors
    /// If they do not name one place.
    pub fn read_fields(block: &Block, fields: PlaceFields, workplace: &Workplace) -> Result<Self, StepError> {
        let refuse = |why: &str| StepError::unusable("bad-value", format!("step `{}`: {why}", block.id));
        let of_row = [&fields.key, &fields.environment, &fields.key_column, &fields.value_column];
        let store = match (fields.table, fields.file) {
            (Some(_), Some(_)) => return Err(refuse("write either `table` or `file`")),
            (None, _) if of_row.iter().any(|field| field.is_some()) => {
                return Err(refuse("`key`, `environment` and the columns go with `table`"));
            }
            (None, Some(file)) => Store::File { path: workplace.root().join(file) },
            (None, None) => Store::Table { target: required_target(block)? },
            (Some(table), None) => {
                let parts: Vec<String> = table.split('.').map(ident).collect();
                if parts.len() > 2 {
                    return Err(refuse("`table` is `schema.table`"));
                }
                Store::Row(Row {
                    target: required_target(block)?,
                    table: parts.join("."),
                    shown: table,
                    key_column: fields.key_column.unwrap_or_else(|| "config_key".to_owned()),
                    value_column: fields.value_column.unwrap_or_else(|| "config_value".to_owned()),
                    key: fields.key.unwrap_or_else(|| "feature_flags".to_owned()),
                    environment: fields.environment,
                })
            }
        };
        if let Store::Table { target } | Store::Row(Row { target, .. }) = &store {
            workplace.postgres(target)?;
        }
        Ok(Self { name: fields.name, store, workplace: workplace.clone() })
    }

    /// Whether it is outside of a rehearsal's server.
    pub fn is_outside(&self) -> bool {
        matches!(self.store, Store::File { .. })
    }

    /// Where it stands, for people.
    pub fn shown(&self) -> String {
        match &self.store {
            Store::Table { target } => format!("pgrunbook.flag on `{target}`"),
            Store::Row(row) => match &row.environment {
                Some(environment) => format!("{} ({}, {environment}) on `{}`", row.shown, row.key, row.target),
                None => format!("{} ({}) on `{}`", row.shown, row.key, row.target),
            },
            Store::File { path } => path.strip_prefix(self.workplace.root()).unwrap_or(path).display().to_string(),
        }
    }

    fn refuse(&self, why: impl Into<String>) -> FlagError {
        FlagError::Place { flag: self.name.clone(), place: self.shown(), why: why.into() }
    }

    /// The error of one who found another state than was left.
    pub fn changed(&self, found: &State, left: &State) -> FlagError {
        FlagError::Changed {
            flag: self.name.clone(),
            place: self.shown(),
            found: self.words(found),
            left: self.words(left),
        }
    }

    /// A state in words: `10 %`, `off`, `not there`.
    pub fn words(&self, state: &State) -> String {
        match (state, self.percent(state)) {
            (None, _) => "not there".to_owned(),
            (Some(value), _) if *value == Value::Bool(true) => "on".to_owned(),
            (Some(value), _) if *value == Value::Bool(false) => "off".to_owned(),
            (Some(value), _) if value["enabled"] == false => "off (not enabled)".to_owned(),
            (Some(_), Some(percent)) => format!("{percent} %"),
            (Some(_), None) => "set by rules of its own".to_owned(),
        }
    }

    /// The share of keys that a state gives the feature to; `None` where it cannot be said.
    pub fn percent(&self, state: &State) -> Option<f64> {
        match state {
            None | Some(Value::Bool(false)) => Some(0.0),
            Some(Value::Bool(true)) => Some(100.0),
            Some(Value::String(text)) if self.is_outside() => flagd::percent(text),
            Some(value) if value["enabled"] == false => Some(0.0),
            Some(Value::Object(fields)) => match fields.get("percentage") {
                None => Some(100.0),
                Some(percentage) => percentage.as_f64(),
            },
            Some(_) => None,
        }
    }

    /// Whether it is switched off, whatever its share is: the kill switch.
    pub fn is_killed(&self, state: &State) -> bool {
        match state {
            Some(Value::String(text)) if self.is_outside() => flagd::is_disabled(text),
            Some(Value::Object(fields)) => fields.get("enabled") == Some(&Value::Bool(false)),
            _ => false,
        }
    }

    /// The state that a setting makes of one. What is set to a share is enabled.
    ///
    /// # Errors
    /// If that would overwrite rules that are none of ours.
    pub fn with(&self, before: &State, setting: &Setting) -> Result<State, FlagError> {
        // A share of a flag that is switched off would be none.
        let enabled = setting.enabled.or(setting.percent.map(|_| true));
        match (&self.store, before) {
            (Store::File { .. }, Some(Value::String(text))) => {
                let setting = Setting { enabled, ..*setting };
                Ok(Some(Value::from(flagd::set(text, &setting).map_err(|why| self.refuse(why))?)))
            }
            (Store::File { .. }, _) => {
                Err(self.refuse("the file has no such flag: declare it there, with its off variant as the default"))
            }
            (Store::Row(_), None | Some(Value::Bool(_))) if setting.percent.is_none() => {
                Ok(Some(Value::from(enabled == Some(true))))
            }
            (Store::Table { .. } | Store::Row(_), Some(Value::Object(fields))) => {
                let mut fields = fields.clone();
                if let Some(enabled) = enabled {
                    fields.insert("enabled".to_owned(), enabled.into());
                }
                if let Some(percent) = setting.percent {
                    fields.insert("percentage".to_owned(), number(percent));
                }
                Ok(Some(Value::Object(fields)))
            }
            (Store::Table { .. } | Store::Row(_), None | Some(Value::Bool(_))) => {
                // Enabled and nothing said of a share: everybody.
                let percent = setting.percent.unwrap_or(100.0);
                Ok(Some(json!({ "enabled": enabled != Some(false), "percentage": number(percent) })))
            }
            (Store::Table { .. } | Store::Row(_), Some(other)) => {
                Err(self.refuse(format!("it is {other}, which is neither true, false nor an object")))
            }
        }
    }

    async fn session(&self, target: &str, name: &str) -> Result<Session, FlagError> {
        let options = self.workplace.postgres(target).map_err(|error| self.refuse(error.message))?;
        Ok(Session::connect(options, name).await?)
    }

    /// The state now.
    ///
    /// # Errors
    /// If the place cannot be read.
    pub async fn state(&self) -> Result<State, FlagError> {
        match &self.store {
            Store::Table { target } => match self.table_state(&self.session(target, "pgrunbook:flag").await?, "").await
            {
                // Who sets the first flag makes the table.
                Err(FlagError::Server(PgError::Server(error))) if NOT_THERE.contains(&error.sqlstate.as_str()) => {
                    Ok(None)
                }
                state => state,
            },
            Store::Row(row) => self.row_state(row, &self.session(&row.target, "pgrunbook:flag").await?, "").await,
            Store::File { path } => {
                let file = read_file(path)?;
                let text = std::str::from_utf8(&file).map_err(|_| self.refuse("it is not UTF-8"))?;
                let flag = flagd::flag_text(text, &self.name).map_err(|why| self.refuse(why))?;
                Ok(flag.map(Value::from))
            }
        }
    }

    /// Puts `after` in place of `before`, if it still is `before`.
    ///
    /// # Errors
    /// [`FlagError::Changed`] if it is not.
    pub async fn exchange(&self, cx: &RunCx<'_>, before: &State, after: &State) -> Result<(), FlagError> {
        let name = application_name(cx.run, cx.step);
        match &self.store {
            Store::File { path } => self.exchange_text(path, before, after),
            Store::Table { target } => {
                let session = self.session(target, &name).await?;
                ledger::install(&session).await?;
                session.execute(TABLE).await?;
                let done = self.exchange_table(&session, cx, before, after).await;
                ended(&session, done).await
            }
            Store::Row(row) => {
                let session = self.session(&row.target, &name).await?;
                ledger::install(&session).await?;
                let done = self.exchange_row(row, &session, cx, before, after).await;
                ended(&session, done).await
            }
        }
    }

    fn exchange_text(&self, path: &std::path::Path, before: &State, after: &State) -> Result<(), FlagError> {
        let old = read_file(path)?;
        let text = std::str::from_utf8(&old).map_err(|_| self.refuse("it is not UTF-8"))?;
        let found = flagd::flag_text(text, &self.name).map_err(|why| self.refuse(why))?.map(Value::from);
        if found != *before {
            return Err(self.changed(&found, before));
        }
        let Some(Value::String(flag)) = after else { return Err(self.refuse("it was not there")) };
        let new = flagd::with_flag(text, &self.name, flag).map_err(|why| self.refuse(why))?;
        Ok(replace_file(path, &old, new.as_bytes())?)
    }

    async fn table_state(&self, session: &Session, lock: &str) -> Result<State, FlagError> {
        let answers = session
            .simple(&format!(
                "SELECT percentage::text, enabled::text FROM pgrunbook.flag WHERE name = {}{lock}",
                literal(&self.name)
            ))
            .await?;
        let row = answers.into_iter().next_back().and_then(|answer| answer.rows.into_iter().next());
        let Some(row) = row else { return Ok(None) };
        let column = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
        let percent = column(0).parse::<f64>().map_err(|_| self.refuse("its percentage is no number"))?;
        Ok(Some(json!({ "enabled": column(1) == "true", "percentage": number(percent) })))
    }

    async fn exchange_table(
        &self,
        session: &Session,
        cx: &RunCx<'_>,
        before: &State,
        after: &State,
    ) -> Result<(), FlagError> {
        // The lock also keeps a row from appearing where there was none.
        let begin = "LOCK TABLE pgrunbook.flag IN SHARE ROW EXCLUSIVE MODE";
        session.execute(&format!("BEGIN; {}; {begin}", Entry::of(cx).assert_sql())).await?;
        let found = self.table_state(session, " FOR UPDATE").await?;
        if found != *before {
            return Err(self.changed(&found, before));
        }
        let name = literal(&self.name);
        let sql = match after {
            None => format!("DELETE FROM pgrunbook.flag WHERE name = {name}"),
            Some(state) => format!(
                "INSERT INTO pgrunbook.flag (name, percentage, enabled, updated_by) VALUES ({name}, {percent}, {enabled}, {by})
                 ON CONFLICT (name) DO UPDATE SET percentage = excluded.percentage, enabled = excluded.enabled,
                     updated_by = excluded.updated_by, updated_at = pg_catalog.clock_timestamp()",
                percent = state["percentage"].as_f64().unwrap_or(0.0),
                enabled = state["enabled"] == true,
                by = literal(cx.operator),
            ),
        };
        session.execute(&format!("{sql}; COMMIT")).await?;
        Ok(())
    }

    /// The member's value in the row.
    async fn row_state(&self, row: &Row, session: &Session, lock: &str) -> Result<State, FlagError> {
        let sql = format!(
            "SELECT {}::pg_catalog.text FROM {} WHERE {}{lock}",
            ident(&row.value_column),
            row.table,
            row.filter()
        );
        let rows = session.simple(&sql).await?.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
        let text = match rows.as_slice() {
            [] => return Err(self.refuse("there is no such row")),
            [one] => one.first().cloned().flatten().unwrap_or_default(),
            _ => return Err(self.refuse("there are several such rows: name the `environment`")),
        };
        match serde_json::from_str::<Value>(&text) {
            Ok(Value::Object(flags)) => Ok(flags.get(&self.name).cloned()),
            _ => Err(self.refuse("the row holds no JSON object")),
        }
    }

    async fn exchange_row(
        &self,
        row: &Row,
        session: &Session,
        cx: &RunCx<'_>,
        before: &State,
        after: &State,
    ) -> Result<(), FlagError> {
        session.execute(&format!("BEGIN; {}", Entry::of(cx).assert_sql())).await?;
        let found = self.row_state(row, session, " FOR UPDATE").await?;
        if found != *before {
            return Err(self.changed(&found, before));
        }
        let (column, name) = (ident(&row.value_column), literal(&self.name));
        let changed = match after {
            Some(state) => format!(
                "pg_catalog.jsonb_set({column}::pg_catalog.jsonb, ARRAY[{name}], {}::pg_catalog.jsonb, true)",
                literal(&state.to_string())
            ),
            None => format!("{column}::pg_catalog.jsonb - {name}"),
        };
        // The column may be json or text: written as what it is.
        let kind = session
            .value(&format!(
                "SELECT pg_catalog.pg_typeof({column})::pg_catalog.text FROM {} WHERE {}",
                row.table,
                row.filter()
            ))
            .await?;
        let sql = format!("UPDATE {} SET {column} = ({changed})::{kind} WHERE {}", row.table, row.filter());
        session.execute(&sql).await?;
        if self.row_state(row, session, "").await? != *after {
            return Err(
                self.refuse("it is not there after it was written: a trigger, a rule or a policy is in the way")
            );
        }
        session.execute("COMMIT").await?;
        Ok(())
    }
}

impl Row {
    fn filter(&self) -> String {
        let environment = self.environment.as_deref();
        let environment = environment.map(|name| format!(" AND environment = {}", literal(name))).unwrap_or_default();
        format!("{} = {}{environment}", ident(&self.key_column), literal(&self.key))
    }
}

/// A number without a fraction where it has none: `10` and not `10.0`.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 { Value::from(value as i64) } else { Value::from(value) }
}

/// Rolls back what failed, unless the connection is gone.
async fn ended<T>(session: &Session, done: Result<T, FlagError>) -> Result<T, FlagError> {
    if done.is_err() && !session.is_closed() && !matches!(done, Err(FlagError::Server(PgError::Lost { .. }))) {
        session.execute("ROLLBACK").await?;
    }
    done
}
