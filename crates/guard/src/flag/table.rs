//! Flags in PostgreSQL: the table `pgrunbook.flag`, and one row of JSON in a table of settings.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Flag, FlagSet, Percent, Rule};
use crate::connection::Row;

/// The table, version 1. Who sets flags makes it; a reader needs `USAGE` on the schema and `SELECT` on the table.
///
/// `enabled` is the kill switch: `false` gives `off_variant` to everybody, whatever else the row and any override say.
pub const TABLE_SQL: &str = "
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
);
";

/// More flags than this are refused: something else is in that table.
pub(super) const MOST: usize = 10_000;

/// All columns as text; one more row than may be.
pub(super) const READ_SQL: &str = "
SELECT name, variants::text, on_variant, off_variant, percentage::text, enabled::text,
       'by ' || updated_by || ' at ' || pg_catalog.to_char(updated_at, 'YYYY-MM-DD HH24:MI:SS TZ')
FROM pgrunbook.flag ORDER BY name LIMIT 10001";

/// Reads the answer to [`READ_SQL`].
pub(super) fn of_rows(rows: Vec<Row>) -> FlagSet {
    let mut set = BTreeMap::new();
    for row in rows {
        let mut columns = row.into_iter();
        let mut next = || columns.next().flatten();
        let Some(name) = next() else { continue };
        let (variants, on, off, percentage, enabled, changed) = (next(), next(), next(), next(), next(), next());
        let flag = || {
            let variants: Map<String, Value> =
                serde_json::from_str(&variants?).map_err(|error| format!("its variants: {error}")).ok()?;
            let rule = Rule::Split { on: on?, off: off?, percent: Percent::parse(&percentage?)? };
            Some(Flag { name: name.clone(), variants, enabled: enabled? == "true", rule, changed })
        };
        let flag = flag().ok_or_else(|| "its row in pgrunbook.flag cannot be read".to_owned());
        set.insert(name, flag);
    }
    set
}

/// Reads a row of JSON: `{"name": true}`, `{"name": false}` (the kill switch), or
/// `{"name": {"enabled": true, "percentage": 10, "variants": {"on": ..., "off": ...}}}`.
///
/// # Errors
/// If it is no JSON object.
pub fn parse_json(text: &str) -> Result<FlagSet, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let Value::Object(flags) = value else { return Err("no JSON object".to_owned()) };
    Ok(flags.into_iter().map(|(name, value)| (name.clone(), of_json(&name, &value))).collect())
}

fn of_json(name: &str, value: &Value) -> Result<Flag, String> {
    let mut flag = Flag {
        name: name.to_owned(),
        variants: Map::from_iter([("on".to_owned(), json!(true)), ("off".to_owned(), json!(false))]),
        enabled: true,
        rule: Rule::Split { on: "on".to_owned(), off: "off".to_owned(), percent: Percent::ALL },
        changed: None,
    };
    let fields = match value {
        Value::Bool(on) => {
            flag.enabled = *on;
            return Ok(flag);
        }
        Value::Object(fields) => fields,
        other => return Err(format!("{other} is neither true, false nor an object")),
    };
    for (field, value) in fields {
        match (field.as_str(), value) {
            ("enabled", Value::Bool(enabled)) => flag.enabled = *enabled,
            ("percentage", Value::Number(number)) => {
                let percent = Percent::parse(&number.to_string());
                let percent = percent.ok_or_else(|| format!("its percentage is {number}"))?;
                flag.rule = Rule::Split { on: "on".to_owned(), off: "off".to_owned(), percent };
            }
            ("variants", Value::Object(variants)) if variants.contains_key("on") && variants.contains_key("off") => {
                flag.variants = variants.clone();
            }
            ("updated_by", Value::String(by)) => flag.changed = Some(format!("by {by}")),
            ("updated_at", Value::String(_)) => {}
            (field, value) => return Err(format!("its `{field}` is {value}")),
        }
    }
    Ok(flag)
}
