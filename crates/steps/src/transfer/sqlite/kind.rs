//! What a column becomes, and the two directions of every value: into PostgreSQL, and back into SQLite.
//!
//! Both directions stand here and nowhere else, so that load, follow, parity and write-back cannot disagree. A value that
//! does not fit is a [`Misfit`], never something near it.

use std::fmt;

use rusqlite::types::{Value, ValueRef};
use serde::{Deserialize, Serialize};

use super::calendar::{self, NotADate, Spelling, Zone};
use super::decimal;

/// Width of an integer type in PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Width {
    /// `smallint`
    Two,
    /// `integer`
    Four,
    /// `bigint`
    Eight,
}

/// How truth is written in the SQLite column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Truth {
    /// 0 and 1
    Number,
    /// `false` and `true`
    Word,
    /// `f` and `t`
    Letter,
}

/// How a moment is written in the SQLite column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Clock {
    /// ISO text, and the spelling that write-back uses.
    Iso(Spelling),
    /// A count of units since 1970-01-01 UTC; `real` where the column holds it as REAL.
    Unix { units_per_second: i64, real: bool },
    /// Days since noon in Greenwich on 24 November 4714 BC, as SQLite's `julianday()`; exact to the millisecond, as there.
    Julian,
}

/// How a decimal number is written in the SQLite column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Digits {
    /// INTEGER and REAL; a double is taken by its shortest text that reads back as the same double.
    Number,
    /// TEXT; the digits behind the point are kept.
    Text,
}

/// What a column becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    Integer(Width),
    Double,
    Text,
    Bytea,
    Boolean(Truth),
    Date,
    Timestamp(Clock),
    Timestamptz(Clock),
    Numeric(Digits),
    Json,
    /// It reorders keys and drops double ones, so its spelling is not kept.
    Jsonb,
    Uuid,
}

/// Why a value does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Misfit {
    Class,
    InvalidUtf8,
    Nul,
    OutOfRange,
    NotBoolean,
    NotADate,
    Impossible,
    TooFine,
    ZoneMissing,
    ZoneUnexpected,
    NotDecimal,
    NotJson,
    NotUuid,
    /// Back into SQLite: the value has no form there that reads as the same.
    NoInverse,
    /// Back into SQLite: the bytes are not what the type sends.
    Malformed,
    /// More than PostgreSQL takes in one value.
    TooLong,
}

impl Misfit {
    pub fn code(self) -> &'static str {
        match self {
            Self::Class => "storage-class",
            Self::InvalidUtf8 => "invalid-utf8",
            Self::Nul => "nul",
            Self::OutOfRange => "out-of-range",
            Self::NotBoolean => "not-boolean",
            Self::NotADate => "not-a-date",
            Self::Impossible => "impossible-date",
            Self::TooFine => "too-fine",
            Self::ZoneMissing | Self::ZoneUnexpected => "zones-mixed",
            Self::NotDecimal => "not-decimal",
            Self::NotJson => "not-json",
            Self::NotUuid => "not-uuid",
            Self::NoInverse => "no-inverse",
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Class => "is of a storage class that the type does not take",
            Self::InvalidUtf8 => "is not valid UTF-8",
            Self::Nul => "holds a NUL character, which no text in PostgreSQL can",
            Self::OutOfRange => "is out of the type's range",
            Self::NotBoolean => "is not one of the column's two words for truth",
            Self::NotADate => "is no ISO date or time",
            Self::Impossible => "is a date or time that does not exist",
            Self::TooFine => "is finer than a microsecond",
            Self::ZoneMissing => "has no zone, where others have one",
            Self::ZoneUnexpected => "has a zone, where others have none",
            Self::NotDecimal => "is no plain decimal number",
            Self::NotJson => "is no valid JSON, or nests deeper than 127 levels",
            Self::NotUuid => "is no UUID in lower case with hyphens",
            Self::NoInverse => "has no form in SQLite that reads as the same",
            Self::Malformed => "is not what the type sends",
            Self::TooLong => "is longer than PostgreSQL takes",
        })
    }
}

/// PostgreSQL takes less than a gigabyte in one field, and in one row of a COPY.
pub const LONGEST: usize = 1_000_000_000;

/// Microseconds from 1970-01-01 to 2000-01-01.
const EPOCH_MICROS: i64 = calendar::EPOCH_DAYS * calendar::DAY;
/// The Julian day of 2000-01-01 00:00, in milliseconds.
const JULIAN_EPOCH_MILLIS: i64 = 211_813_444_800_000;

impl Kind {
    /// The type's name in SQL.
    pub fn sql_type(self) -> &'static str {
        match self {
            Self::Integer(Width::Two) => "smallint",
            Self::Integer(Width::Four) => "integer",
            Self::Integer(Width::Eight) => "bigint",
            Self::Double => "double precision",
            Self::Text => "text",
            Self::Bytea => "bytea",
            Self::Boolean(_) => "boolean",
            Self::Date => "date",
            Self::Timestamp(_) => "timestamp without time zone",
            Self::Timestamptz(_) => "timestamp with time zone",
            Self::Numeric(_) => "numeric",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Uuid => "uuid",
        }
    }

    /// Whether two values that differ in SQLite always differ here, and come back as they were.
    ///
    /// For the others the round trip is tried value by value.
    pub fn is_exact(self) -> bool {
        !matches!(self, Self::Timestamp(_) | Self::Timestamptz(_) | Self::Numeric(_) | Self::Jsonb)
    }

    /// Whether a value fits is more than a question of storage class, UTF-8 and NUL.
    pub fn needs_a_look(self) -> bool {
        !matches!(self, Self::Integer(Width::Eight) | Self::Double | Self::Text | Self::Bytea)
    }

    /// Appends the value's field of a binary COPY: four bytes of length, then the bytes of the type's send function; -1
    /// for NULL.
    ///
    /// # Errors
    /// [`Misfit`], with `out` as it was.
    pub fn forward(self, value: ValueRef<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
        match (self, value) {
            (_, ValueRef::Null) => {
                out.extend_from_slice(&(-1_i32).to_be_bytes());
                Ok(())
            }
            (Self::Integer(Width::Eight), ValueRef::Integer(number)) => {
                fixed(out, &number.to_be_bytes());
                Ok(())
            }
            (Self::Double, ValueRef::Real(number)) => {
                fixed(out, &number.to_bits().to_be_bytes());
                Ok(())
            }
            (Self::Text, ValueRef::Text(text)) => sized(out, checked(text)?.as_bytes()),
            (Self::Bytea, ValueRef::Blob(bytes)) => sized(out, bytes),
            _ => self.forward_rest(value, out),
        }
    }

    fn forward_rest(self, value: ValueRef<'_>, out: &mut Vec<u8>) -> Result<(), Misfit> {
        match (self, value) {
            (Self::Integer(width), ValueRef::Integer(number)) => match width {
                Width::Two => fixed(out, &i16::try_from(number).map_err(|_| Misfit::OutOfRange)?.to_be_bytes()),
                Width::Four => fixed(out, &i32::try_from(number).map_err(|_| Misfit::OutOfRange)?.to_be_bytes()),
                Width::Eight => fixed(out, &number.to_be_bytes()),
            },
            (Self::Boolean(truth), value) => {
                let is_true = match (truth, value) {
                    (Truth::Number, ValueRef::Integer(0)) => false,
                    (Truth::Number, ValueRef::Integer(1)) => true,
                    (Truth::Word, ValueRef::Text(b"false")) | (Truth::Letter, ValueRef::Text(b"f")) => false,
                    (Truth::Word, ValueRef::Text(b"true")) | (Truth::Letter, ValueRef::Text(b"t")) => true,
                    _ => return Err(Misfit::NotBoolean),
                };
                fixed(out, &[u8::from(is_true)]);
            }
            (Self::Date, ValueRef::Text(text)) => fixed(out, &calendar::parse_date(text)?.to_be_bytes()),
            (Self::Timestamp(clock) | Self::Timestamptz(clock), value) => {
                let zoned = matches!(self, Self::Timestamptz(_));
                fixed(out, &micros_of(clock, zoned, value)?.to_be_bytes());
            }
            (Self::Numeric(digits), value) => {
                let start = out.len();
                out.extend_from_slice(&[0; 4]);
                let written = match (digits, value) {
                    (Digits::Number, ValueRef::Integer(number)) => {
                        decimal::numeric(&number.to_string(), out).map_err(|_| Misfit::NotDecimal)
                    }
                    (Digits::Number, ValueRef::Real(number)) => {
                        decimal::encode_double(number, out).map_err(|_| Misfit::NotDecimal)
                    }
                    (Digits::Text, ValueRef::Text(text)) => {
                        decimal_text(text).and_then(|text| decimal::numeric(text, out).map_err(|_| Misfit::NotDecimal))
                    }
                    _ => Err(Misfit::Class),
                };
                if let Err(misfit) = written {
                    out.truncate(start);
                    return Err(misfit);
                }
                let length = i32::try_from(out.len() - start - 4).map_err(|_| Misfit::TooLong)?;
                out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            }
            (Self::Json, ValueRef::Text(text)) => sized(out, valid_json(text)?)?,
            (Self::Jsonb, ValueRef::Text(text)) => {
                let text = valid_json(text)?;
                if text.windows(6).any(|part| part == b"\\u0000") {
                    return Err(Misfit::Nul);
                }
                let length = i32::try_from(text.len() + 1).ok().filter(|_| text.len() < LONGEST);
                out.extend_from_slice(&length.ok_or(Misfit::TooLong)?.to_be_bytes());
                out.push(1);
                out.extend_from_slice(text);
            }
            (Self::Uuid, ValueRef::Text(text)) => fixed(out, &uuid(text).ok_or(Misfit::NotUuid)?),
            _ => return Err(Misfit::Class),
        }
        Ok(())
    }

    /// The SQLite value of a field in binary form, `None` for NULL.
    ///
    /// # Errors
    /// [`Misfit::NoInverse`] where SQLite has no such value, [`Misfit::Malformed`] where the bytes are no such value.
    pub fn inverse(self, field: Option<&[u8]>) -> Result<Value, Misfit> {
        let Some(bytes) = field else { return Ok(Value::Null) };
        Ok(match self {
            Self::Integer(Width::Two) => Value::Integer(i64::from(i16::from_be_bytes(exactly(bytes)?))),
            Self::Integer(Width::Four) => Value::Integer(i64::from(i32::from_be_bytes(exactly(bytes)?))),
            Self::Integer(Width::Eight) => Value::Integer(i64::from_be_bytes(exactly(bytes)?)),
            Self::Double => {
                let number = f64::from_bits(u64::from_be_bytes(exactly(bytes)?));
                // SQLite stores NULL for it.
                if number.is_nan() {
                    return Err(Misfit::NoInverse);
                }
                Value::Real(number)
            }
            Self::Text | Self::Json => Value::Text(utf8(bytes)?.to_owned()),
            Self::Jsonb => match bytes {
                [1, text @ ..] => Value::Text(utf8(text)?.to_owned()),
                _ => return Err(Misfit::Malformed),
            },
            Self::Bytea => Value::Blob(bytes.to_vec()),
            Self::Boolean(truth) => {
                let [byte] = exactly(bytes)?;
                truth_value(truth, byte != 0)
            }
            Self::Date => {
                let days = i32::from_be_bytes(exactly(bytes)?);
                Value::Text(calendar::print_date(days).ok_or(Misfit::NoInverse)?)
            }
            Self::Timestamp(clock) | Self::Timestamptz(clock) => {
                moment_value(clock, i64::from_be_bytes(exactly(bytes)?))?
            }
            Self::Numeric(digits) => decimal_value(digits, &decimal::decode(bytes).ok_or(Misfit::Malformed)?)?,
            Self::Uuid => {
                let bytes: [u8; 16] = exactly(bytes)?;
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
                Value::Text(parts.join("-"))
            }
        })
    }

    /// The SQLite value of a field in text form, as the type's output function prints it under `DateStyle` ISO, `TimeZone`
    /// UTC, `extra_float_digits` 1 and `bytea_output` hex.
    ///
    /// # Errors
    /// As [`Kind::inverse`].
    pub fn inverse_of_text(self, field: Option<&str>) -> Result<Value, Misfit> {
        let Some(text) = field else { return Ok(Value::Null) };
        Ok(match self {
            Self::Integer(_) => Value::Integer(text.parse().map_err(|_| Misfit::Malformed)?),
            Self::Double => {
                let number: f64 = text.parse().map_err(|_| Misfit::Malformed)?;
                if number.is_nan() {
                    return Err(Misfit::NoInverse);
                }
                Value::Real(number)
            }
            Self::Text | Self::Json | Self::Jsonb | Self::Uuid => Value::Text(text.to_owned()),
            Self::Bytea => Value::Blob(text.strip_prefix("\\x").and_then(unhex).ok_or(Misfit::Malformed)?),
            Self::Boolean(truth) => match text {
                "t" => truth_value(truth, true),
                "f" => truth_value(truth, false),
                _ => return Err(Misfit::Malformed),
            },
            Self::Date | Self::Timestamp(_) | Self::Timestamptz(_) if unspellable(text) => {
                return Err(Misfit::NoInverse);
            }
            Self::Date => {
                let days = calendar::parse_date(text.as_bytes()).map_err(|_| Misfit::Malformed)?;
                Value::Text(calendar::print_date(days).ok_or(Misfit::NoInverse)?)
            }
            Self::Timestamp(clock) | Self::Timestamptz(clock) => {
                let stamp = calendar::parse_stamp(text.as_bytes()).map_err(|_| Misfit::Malformed)?;
                moment_value(clock, stamp.micros)?
            }
            Self::Numeric(digits) => decimal_value(digits, text)?,
        })
    }

    /// The value as a literal of SQL, for a DEFAULT.
    ///
    /// # Errors
    /// [`Misfit`] if it does not fit the column.
    pub fn literal(self, value: ValueRef<'_>) -> Result<String, Misfit> {
        let mut field = Vec::new();
        self.forward(value, &mut field)?;
        let quoted = |text: &str| pgrunbook_postgres::quote::literal(text).map_err(|_| Misfit::Nul);
        Ok(match (self, value) {
            (_, ValueRef::Null) => "NULL".to_owned(),
            (Self::Integer(_) | Self::Numeric(Digits::Number), ValueRef::Integer(number)) => number.to_string(),
            (Self::Numeric(_), _) => decimal::decode(&field[4..]).ok_or(Misfit::Malformed)?,
            (Self::Double, ValueRef::Real(number)) if number.is_finite() => format!("'{number:e}'::double precision"),
            (Self::Double, ValueRef::Real(number)) => {
                format!("'{}Infinity'::double precision", if number < 0.0 { "-" } else { "" })
            }
            (Self::Boolean(_), _) => if field.last() == Some(&1) { "true" } else { "false" }.to_owned(),
            (Self::Bytea, ValueRef::Blob(bytes)) => {
                format!("'\\x{}'::bytea", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
            }
            (Self::Timestamp(_) | Self::Timestamptz(_), _) => {
                let micros = i64::from_be_bytes(exactly(&field[4..])?);
                let fraction = calendar::Fraction::Digits(0);
                let zone = if matches!(self, Self::Timestamptz(_)) { Zone::Colon } else { Zone::Absent };
                let text = calendar::print_stamp(micros, Spelling { fraction, zone, ..Spelling::PLAIN });
                format!("'{}'::{}", postgres_year(&text.ok_or(Misfit::NoInverse)?), self.sql_type())
            }
            (Self::Date, ValueRef::Text(text)) => format!("'{}'::date", postgres_year(utf8(text)?)),
            (_, ValueRef::Text(text)) => quoted(utf8(text)?)?,
            _ => return Err(Misfit::Class),
        })
    }
}

/// The year 0000 is 1 BC.
fn postgres_year(text: &str) -> String {
    if text.starts_with("0000-") { format!("0001{} BC", &text[4..]) } else { text.to_owned() }
}

/// Years that SQLite cannot spell, and the two infinities.
fn unspellable(text: &str) -> bool {
    text.ends_with("BC") || text.contains("infinity") || text.find('-').is_some_and(|at| at > 4)
}

fn fixed(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&i32::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Misfit> {
    let length = i32::try_from(bytes.len()).ok().filter(|_| bytes.len() < LONGEST).ok_or(Misfit::TooLong)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// A text that PostgreSQL takes.
fn checked(text: &[u8]) -> Result<&str, Misfit> {
    let text = std::str::from_utf8(text).map_err(|_| Misfit::InvalidUtf8)?;
    if text.as_bytes().contains(&0) { Err(Misfit::Nul) } else { Ok(text) }
}

/// Digits and a point only: an exponent, or a word for infinity, would not come back as it was.
fn decimal_text(text: &[u8]) -> Result<&str, Misfit> {
    let text = checked(text)?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
    if plain && digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.ends_with('.') {
        Ok(text)
    } else {
        Err(Misfit::NotDecimal)
    }
}

fn valid_json(text: &[u8]) -> Result<&[u8], Misfit> {
    let text = checked(text)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| Misfit::NotJson)?;
    Ok(text.as_bytes())
}

fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let dashes = [8, 13, 18, 23];
    if text.len() != 36 || dashes.iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let hex: Vec<u8> = text.iter().enumerate().filter(|(at, _)| !dashes.contains(at)).map(|(_, byte)| *byte).collect();
    if hex.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    unhex(std::str::from_utf8(&hex).ok()?)?.try_into().ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Misfit> {
    bytes.try_into().map_err(|_| Misfit::Malformed)
}

fn utf8(bytes: &[u8]) -> Result<&str, Misfit> {
    std::str::from_utf8(bytes).map_err(|_| Misfit::Malformed)
}

fn truth_value(truth: Truth, is_true: bool) -> Value {
    match (truth, is_true) {
        (Truth::Number, _) => Value::Integer(i64::from(is_true)),
        (Truth::Word, _) => Value::Text(is_true.to_string()),
        (Truth::Letter, true) => Value::Text("t".to_owned()),
        (Truth::Letter, false) => Value::Text("f".to_owned()),
    }
}

fn micros_of(clock: Clock, zoned: bool, value: ValueRef<'_>) -> Result<i64, Misfit> {
    let micros = match (clock, value) {
        (Clock::Iso(_), ValueRef::Text(text)) => {
            let stamp = calendar::parse_stamp(text)?;
            match (zoned, stamp.spelling.zone) {
                (true, Zone::Absent) => return Err(Misfit::ZoneMissing),
                (false, Zone::Z | Zone::Colon | Zone::Plain | Zone::Hours) => return Err(Misfit::ZoneUnexpected),
                _ => return Ok(stamp.micros),
            }
        }
        (Clock::Unix { units_per_second, .. }, ValueRef::Integer(count)) => {
            let micros = i128::from(count) * i128::from(1_000_000 / units_per_second) - i128::from(EPOCH_MICROS);
            i64::try_from(micros).map_err(|_| Misfit::OutOfRange)?
        }
        (Clock::Unix { units_per_second, real: true }, ValueRef::Real(count)) => {
            let micros = (count * (1_000_000 / units_per_second) as f64).round();
            if !(-9e18..9e18).contains(&micros) {
                return Err(Misfit::OutOfRange);
            }
            if unix_value(units_per_second, true, micros as i64) != Value::Real(count) {
                return Err(Misfit::TooFine);
            }
            (micros as i64).checked_sub(EPOCH_MICROS).ok_or(Misfit::OutOfRange)?
        }
        (Clock::Julian, ValueRef::Real(day)) => {
            // SQLite's own range: 0000-01-01 to 9999-12-31.
            if !(1_721_059.5..5_373_484.5).contains(&day) {
                return Err(Misfit::OutOfRange);
            }
            // As SQLite does it (date.c): milliseconds, rounded.
            let millis = (day * 86_400_000.0 + 0.5) as i64;
            (millis - JULIAN_EPOCH_MILLIS) * 1_000
        }
        _ => return Err(Misfit::Class),
    };
    // The years that SQLite's dates know, which PostgreSQL's hold with room to spare.
    let first = -730_485 * calendar::DAY;
    let last = 2_921_940 * calendar::DAY;
    if (first..last).contains(&micros) { Ok(micros) } else { Err(Misfit::OutOfRange) }
}

fn moment_value(clock: Clock, micros: i64) -> Result<Value, Misfit> {
    if micros == i64::MAX || micros == i64::MIN {
        return Err(Misfit::NoInverse);
    }
    Ok(match clock {
        Clock::Iso(spelling) => Value::Text(calendar::print_stamp(micros, spelling).ok_or(Misfit::NoInverse)?),
        Clock::Unix { units_per_second, real } => {
            unix_value(units_per_second, real, micros.checked_add(EPOCH_MICROS).ok_or(Misfit::NoInverse)?)
        }
        Clock::Julian => Value::Real((micros.div_euclid(1_000) + JULIAN_EPOCH_MILLIS) as f64 / 86_400_000.0),
    })
}

/// A count of units since 1970: REAL where the column is, or where it is not whole.
fn unix_value(units_per_second: i64, real: bool, micros: i64) -> Value {
    let unit = 1_000_000 / units_per_second;
    if !real && micros % unit == 0 { Value::Integer(micros / unit) } else { Value::Real(micros as f64 / unit as f64) }
}

fn decimal_value(digits: Digits, text: &str) -> Result<Value, Misfit> {
    if digits == Digits::Text {
        return match text {
            "NaN" | "Infinity" | "-Infinity" => Err(Misfit::NoInverse),
            _ => Ok(Value::Text(text.to_owned())),
        };
    }
    match text {
        "NaN" => return Err(Misfit::NoInverse),
        "Infinity" => return Ok(Value::Real(f64::INFINITY)),
        "-Infinity" => return Ok(Value::Real(f64::NEG_INFINITY)),
        _ => {}
    }
    let plain = decimal::plain(text);
    if let Ok(number) = plain.parse::<i64>() {
        return Ok(Value::Integer(number));
    }
    let number: f64 = plain.parse().map_err(|_| Misfit::Malformed)?;
    let mut shortest = Vec::new();
    let same = decimal::encode_double(number, &mut shortest).is_ok()
        && decimal::decode(&shortest).is_some_and(|text| decimal::plain(&text) == plain);
    if same { Ok(Value::Real(number)) } else { Err(Misfit::NoInverse) }
}

impl From<NotADate> for Misfit {
    fn from(why: NotADate) -> Self {
        match why {
            NotADate::Shape => Self::NotADate,
            NotADate::Impossible => Self::Impossible,
            NotADate::TooFine => Self::TooFine,
        }
    }
}

/// The name of a value's storage class, as SQLite's `typeof` gives it.
pub fn class_of(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Null => "null",
        ValueRef::Integer(_) => "integer",
        ValueRef::Real(_) => "real",
        ValueRef::Text(_) => "text",
        ValueRef::Blob(_) => "blob",
    }
}

/// What a message says of a value that may be a secret: its storage class, and its length where it has one.
pub fn described(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => format!("{} of {} bytes", class_of(value), bytes.len()),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => class_of(value).to_owned(),
    }
}

/// The first characters of a key's value, for a message: bytes that are no text as `\xNN`.
pub fn excerpt(value: ValueRef<'_>) -> String {
    const MOST: usize = 40;
    let (bytes, quote) = match value {
        ValueRef::Null => return "NULL".to_owned(),
        ValueRef::Integer(number) => return number.to_string(),
        ValueRef::Real(number) => return number.to_string(),
        ValueRef::Text(bytes) => (bytes, "'"),
        ValueRef::Blob(bytes) => (bytes, ""),
    };
    let cut = &bytes[..bytes.len().min(MOST)];
    let mut text = String::new();
    if quote.is_empty() {
        text.push_str("x'");
        text.extend(cut.iter().take(16).map(|byte| format!("{byte:02x}")));
        text.push('\'');
    } else {
        text.push('\'');
        let chunks: Vec<_> = cut.utf8_chunks().collect();
        for (at, chunk) in chunks.iter().enumerate() {
            for c in chunk.valid().chars() {
                if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
            }
            // A character that only the cut has broken is no fault of the value.
            if at + 1 < chunks.len() || bytes.len() <= MOST {
                text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
            }
        }
        text.push('\'');
    }
    if bytes.len() > cut.len() || (quote.is_empty() && bytes.len() > 16) {
        text.push_str(&format!("... ({} bytes)", bytes.len()));
    }
    text
}
