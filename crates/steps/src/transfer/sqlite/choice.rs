//! What the step says about the mapping: its table `[map]`.

use std::collections::BTreeMap;

use super::calendar::Spelling;
use super::error::SqliteError;
use super::kind::{Clock, Digits, Kind, Truth, Width};
use super::profile::ColumnStats;

/// The words of `[map]`, by `table.column` or `table`.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    words: BTreeMap<String, (String, Choice)>,
}

/// What a column should become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Skip,
    Integer(Width),
    Double,
    Text,
    Bytea,
    Boolean,
    Date,
    /// With a zone or without; from which units.
    Moment {
        zoned: bool,
        from: From,
    },
    Numeric,
    Json,
    Jsonb,
    Uuid,
}

/// How a moment stands in the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Iso,
    Unix { units_per_second: i64 },
    Julian,
}

const WORDS: &str = "skip, bigint, integer, smallint, double precision, text, bytea, boolean, date, timestamp, timestamptz, \
                     numeric, json, jsonb, uuid; timestamp and timestamptz also `from unix seconds`, \
                     `from unix milliseconds`, `from unix microseconds`, `from julian day`";

impl Choices {
    /// Reads the table `[map]`.
    ///
    /// # Errors
    /// [`SqliteError::Choice`] with the list of words, for one that is not among them.
    pub fn parse<'a>(map: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, SqliteError> {
        let mut words = BTreeMap::new();
        for (key, value) in map {
            let choice = word(value).ok_or_else(|| SqliteError::Choice {
                key: key.to_owned(),
                value: value.to_owned(),
                why: format!("unknown; there is {WORDS}"),
            })?;
            words.insert(key.to_owned(), (value.to_owned(), choice));
        }
        Ok(Self { words })
    }

    pub fn column(&self, table: &str, column: &str) -> Option<Choice> {
        self.words.get(&format!("{table}.{column}")).map(|(_, choice)| *choice)
    }

    pub fn skips_table(&self, table: &str) -> bool {
        self.words.get(table).is_some_and(|(_, choice)| *choice == Choice::Skip)
    }

    /// All keys with their words.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &str, Choice)> {
        self.words.iter().map(|(key, (word, choice))| (key.as_str(), word.as_str(), *choice))
    }
}

fn word(text: &str) -> Option<Choice> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    let (name, from) = match text.split_once(" from ") {
        Some((name, "unix seconds")) => (name, From::Unix { units_per_second: 1 }),
        Some((name, "unix milliseconds" | "unix ms")) => (name, From::Unix { units_per_second: 1_000 }),
        Some((name, "unix microseconds")) => (name, From::Unix { units_per_second: 1_000_000 }),
        Some((name, "julian day")) => (name, From::Julian),
        Some(_) => return None,
        None => (text.as_str(), From::Iso),
    };
    let choice = match name {
        "timestamp" | "timestamp without time zone" => return Some(Choice::Moment { zoned: false, from }),
        "timestamptz" | "timestamp with time zone" => return Some(Choice::Moment { zoned: true, from }),
        _ if from != From::Iso => return None,
        "skip" => Choice::Skip,
        "bigint" => Choice::Integer(Width::Eight),
        "integer" | "int" => Choice::Integer(Width::Four),
        "smallint" => Choice::Integer(Width::Two),
        "double precision" | "float8" => Choice::Double,
        "text" => Choice::Text,
        "bytea" => Choice::Bytea,
        "boolean" => Choice::Boolean,
        "date" => Choice::Date,
        "numeric" => Choice::Numeric,
        "json" => Choice::Json,
        "jsonb" => Choice::Jsonb,
        "uuid" => Choice::Uuid,
        _ => return None,
    };
    Some(choice)
}

impl Choice {
    /// The kind, with the spelling that the column's values have.
    pub fn kind(self, stats: &ColumnStats) -> Option<Kind> {
        Some(match self {
            Self::Skip => return None,
            Self::Integer(width) => Kind::Integer(width),
            Self::Double => Kind::Double,
            Self::Text => Kind::Text,
            Self::Bytea => Kind::Bytea,
            Self::Boolean => Kind::Boolean(truth(stats)),
            Self::Date => Kind::Date,
            Self::Moment { zoned, from } => {
                let clock = match from {
                    From::Iso => {
                        Clock::Iso(stats.spelling().unwrap_or(if zoned { Spelling::UTC } else { Spelling::PLAIN }))
                    }
                    From::Unix { units_per_second } => Clock::Unix { units_per_second, real: stats.reals > 0 },
                    From::Julian => Clock::Julian,
                };
                if zoned { Kind::Timestamptz(clock) } else { Kind::Timestamp(clock) }
            }
            Self::Numeric => Kind::Numeric(if stats.texts > 0 { Digits::Text } else { Digits::Number }),
            Self::Json => Kind::Json,
            Self::Jsonb => Kind::Jsonb,
            Self::Uuid => Kind::Uuid,
        })
    }
}

/// How a column spells truth.
pub fn truth(stats: &ColumnStats) -> Truth {
    if stats.words > 0 {
        Truth::Word
    } else if stats.letters > 0 {
        Truth::Letter
    } else {
        Truth::Number
    }
}
