//! A column's DEFAULT: a constant by asking SQLite what it would store, the time by stated forms.

use pgrunbook_postgres::quote;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::expression::{Expression, parse};
use super::kind::{Clock, Kind};
use super::lex::{What, tokens};
use super::map::{Affinity, affinity};
use super::translate::Untranslated;

/// The default's SQL for a column of this kind; none where the default is NULL.
///
/// # Errors
/// [`Untranslated`] if it means something that PostgreSQL cannot say, or a value that does not fit the column.
pub fn default(text: &str, declared: &str, kind: Kind) -> Result<Option<String>, Untranslated> {
    if let Some(value) = constant(text, declared) {
        if value == Value::Null {
            return Ok(None);
        }
        return kind.literal((&value).into()).map(Some).map_err(|misfit| Untranslated(format!("its value {misfit}")));
    }
    let expression = parse(text).map_err(Untranslated)?;
    moment(&expression, kind)
        .or_else(|| random(&expression, kind))
        .map(Some)
        .ok_or_else(|| Untranslated("an expression that has no stated form".to_owned()))
}

/// What SQLite stores for a default that is a literal: its affinity and its odd readings of names are its own.
fn constant(text: &str, declared: &str) -> Option<Value> {
    let tokens = tokens(text);
    let is_literal = match &tokens[..] {
        [one] => !matches!(&one.what, What::Word(word) if word.to_ascii_uppercase().starts_with("CURRENT_")),
        [sign, one] => (sign.is_sign("-") || sign.is_sign("+")) && matches!(one.what, What::Integer(_) | What::Real(_)),
        _ => false,
    };
    if !is_literal {
        return None;
    }
    let declared = match affinity(declared) {
        Affinity::Integer => "INTEGER",
        Affinity::Text => "TEXT",
        Affinity::Blob => "BLOB",
        Affinity::Real => "REAL",
        Affinity::Numeric => "NUMERIC",
    };
    let memory = Connection::open_in_memory().ok()?;
    memory
        .execute_batch(&format!("CREATE TABLE t (c {declared} DEFAULT {text}); INSERT INTO t DEFAULT VALUES"))
        .ok()?;
    memory.query_row("SELECT c FROM t", [], |row| row.get(0)).ok()
}

/// Now, as SQLite counts it: UTC, the same throughout a statement.
const NOW: &str = "pg_catalog.statement_timestamp()";
const UTC: &str = "(pg_catalog.statement_timestamp() AT TIME ZONE 'UTC')";

/// `to_char`'s pattern for one of `strftime`.
fn pattern(format: &str) -> Option<String> {
    let mut pattern = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => pattern.push_str(match chars.next()? {
                'Y' => "YYYY",
                'm' => "MM",
                'd' => "DD",
                'H' => "HH24",
                'M' => "MI",
                'S' => "SS",
                'f' => "SS.MS",
                'j' => "DDD",
                _ => return None,
            }),
            '"' | '\\' => return None,
            // Letters are patterns unless they stand in quotes.
            c if c.is_ascii_alphabetic() => pattern.push_str(&format!("\"{c}\"")),
            c => pattern.push(c),
        }
    }
    Some(pattern)
}

fn moment(expression: &Expression, kind: Kind) -> Option<String> {
    let format = match expression {
        Expression::Current(name) => match name.as_str() {
            "CURRENT_TIMESTAMP" => "%Y-%m-%d %H:%M:%S".to_owned(),
            "CURRENT_DATE" => "%Y-%m-%d".to_owned(),
            _ => "%H:%M:%S".to_owned(),
        },
        Expression::Call { name, arguments } => {
            let texts: Option<Vec<&str>> = arguments
                .iter()
                .map(|one| match one {
                    Expression::Text(text) | Expression::Column { name: text, quoted: true } => Some(text.as_str()),
                    _ => None,
                })
                .collect();
            let is_now = |text: &str| text.eq_ignore_ascii_case("now");
            match (name.as_str(), &texts?[..]) {
                ("datetime", [now]) if is_now(now) => "%Y-%m-%d %H:%M:%S".to_owned(),
                ("date", [now]) if is_now(now) => "%Y-%m-%d".to_owned(),
                ("time", [now]) if is_now(now) => "%H:%M:%S".to_owned(),
                ("strftime", [format, now]) if is_now(now) => (*format).to_owned(),
                ("strftime", [format]) => (*format).to_owned(),
                ("unixepoch", [now]) if is_now(now) => "%s".to_owned(),
                ("unixepoch", []) => "%s".to_owned(),
                ("julianday", [now]) if is_now(now) => "%J".to_owned(),
                ("datetime", []) => "%Y-%m-%d %H:%M:%S".to_owned(),
                ("date", []) => "%Y-%m-%d".to_owned(),
                _ => return None,
            }
        }
        _ => return None,
    };
    let precision = if format.contains("%f") { "milliseconds" } else { "second" };
    let has_time = format.contains("%H") && format.contains("%Y") && (format.contains("%S") || format.contains("%f"));
    match (kind, format.as_str()) {
        (Kind::Integer(_), "%s") => Some(format!("pg_catalog.floor(extract(epoch FROM {NOW}))::bigint")),
        (Kind::Text, "%s") => Some(format!("pg_catalog.floor(extract(epoch FROM {NOW}))::bigint::text")),
        (Kind::Timestamptz(Clock::Unix { .. }), "%s") => Some(format!("pg_catalog.date_trunc('second', {NOW})")),
        (Kind::Timestamp(Clock::Unix { .. }), "%s") => Some(format!("pg_catalog.date_trunc('second', {UTC})")),
        (Kind::Double, "%J") => Some(format!(
            "(extract(epoch FROM pg_catalog.date_trunc('milliseconds', {NOW}))::double precision / 86400 + 2440587.5)"
        )),
        (Kind::Timestamptz(Clock::Julian), "%J") => Some(format!("pg_catalog.date_trunc('milliseconds', {NOW})")),
        (Kind::Timestamp(Clock::Julian), "%J") => Some(format!("pg_catalog.date_trunc('milliseconds', {UTC})")),
        (_, "%s" | "%J") => None,
        (Kind::Date, "%Y-%m-%d") => Some(format!("{UTC}::date")),
        (Kind::Timestamp(Clock::Iso(_)), _) if has_time => Some(format!("pg_catalog.date_trunc('{precision}', {UTC})")),
        (Kind::Timestamptz(Clock::Iso(_)), _) if has_time => {
            Some(format!("pg_catalog.date_trunc('{precision}', {NOW})"))
        }
        (Kind::Text, format) => {
            let pattern = quote::literal(&pattern(format)?).ok()?;
            Some(format!("pg_catalog.to_char({UTC}, {pattern})"))
        }
        _ => None,
    }
}

/// `hex(randomblob(n))` and its lower case, up to the 16 bytes of a random UUID (six bits of which are fixed).
fn random(expression: &Expression, kind: Kind) -> Option<String> {
    let Expression::Call { name, arguments } = expression else { return None };
    if name == "lower" || name == "upper" {
        let inner = random(arguments.first()?, kind)?;
        return Some(format!("pg_catalog.{name}({inner})"));
    }
    let [Expression::Call { name: inner, arguments }] = &arguments[..] else { return None };
    match (name.as_str(), inner.as_str(), &arguments[..], kind) {
        ("hex", "randomblob", [Expression::Integer(count @ 1..=16)], Kind::Text) => Some(format!(
            "pg_catalog.upper(pg_catalog.left(pg_catalog.replace(pg_catalog.gen_random_uuid()::text, '-', ''), {}))",
            count * 2
        )),
        _ => None,
    }
}
