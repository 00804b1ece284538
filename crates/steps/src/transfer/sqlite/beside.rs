//! As what a value of a file is read beside a column of PostgreSQL, where no mapping was recorded: for a comparison.
//!
//! The types are there already, so only the spelling is to be found out, value by value. How moments are counted no value tells:
//! that is said by the same words as in `map`.

use rusqlite::types::ValueRef;

use super::calendar::Spelling;
use super::choice::{Choice, From};
use super::kind::{Clock, Digits, Kind, Truth, Width};

impl Kind {
    /// The kind under which this value is taken by a column of that type; `None` for a type that nothing is loaded into. OIDs are
    /// those of PostgreSQL's `pg_type.dat`.
    pub fn beside(oid: u32, value: ValueRef<'_>) -> Option<Self> {
        Some(match oid {
            16 => Self::Boolean(match value {
                ValueRef::Text(b"true" | b"false") => Truth::Word,
                ValueRef::Text(_) => Truth::Letter,
                _ => Truth::Number,
            }),
            17 => Self::Bytea,
            20 => Self::Integer(Width::Eight),
            21 => Self::Integer(Width::Two),
            23 => Self::Integer(Width::Four),
            // `character varying` is sent as `text` is.
            25 | 1043 => Self::Text,
            114 => Self::Json,
            701 => Self::Double,
            1082 => Self::Date,
            1114 => Self::Timestamp(Clock::Iso(Spelling::PLAIN)),
            1184 => Self::Timestamptz(Clock::Iso(Spelling::UTC)),
            1700 => Self::Numeric(if matches!(value, ValueRef::Text(_)) { Digits::Text } else { Digits::Number }),
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            _ => return None,
        })
    }
}

impl Choice {
    /// What it says of a column whose type is known: how moments are counted. Of all else the type and the values say enough.
    pub fn beside(self) -> Option<Kind> {
        let Self::Moment { zoned, from } = self else { return None };
        let clock = match from {
            From::Iso => return None,
            From::Unix { units_per_second } => Clock::Unix { units_per_second, real: true },
            From::Julian => Clock::Julian,
        };
        Some(if zoned { Kind::Timestamptz(clock) } else { Kind::Timestamp(clock) })
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::types::Type;

    use super::*;

    #[test]
    fn every_kind_is_found_by_its_type() {
        let iso = Clock::Iso;
        for (of, value, kind) in [
            (Type::INT2, ValueRef::Integer(1), Kind::Integer(Width::Two)),
            (Type::INT4, ValueRef::Integer(1), Kind::Integer(Width::Four)),
            (Type::INT8, ValueRef::Integer(1), Kind::Integer(Width::Eight)),
            (Type::FLOAT8, ValueRef::Real(0.5), Kind::Double),
            (Type::TEXT, ValueRef::Text(b"x"), Kind::Text),
            (Type::VARCHAR, ValueRef::Text(b"x"), Kind::Text),
            (Type::BYTEA, ValueRef::Blob(b"x"), Kind::Bytea),
            (Type::BOOL, ValueRef::Integer(1), Kind::Boolean(Truth::Number)),
            (Type::BOOL, ValueRef::Text(b"false"), Kind::Boolean(Truth::Word)),
            (Type::BOOL, ValueRef::Text(b"f"), Kind::Boolean(Truth::Letter)),
            (Type::DATE, ValueRef::Text(b"2024-01-31"), Kind::Date),
            (Type::TIMESTAMP, ValueRef::Text(b"2024-01-31 12:00:00"), Kind::Timestamp(iso(Spelling::PLAIN))),
            (Type::TIMESTAMPTZ, ValueRef::Text(b"2024-01-31T12:00:00Z"), Kind::Timestamptz(iso(Spelling::UTC))),
            (Type::NUMERIC, ValueRef::Real(0.5), Kind::Numeric(Digits::Number)),
            (Type::NUMERIC, ValueRef::Text(b"1.50"), Kind::Numeric(Digits::Text)),
            (Type::JSON, ValueRef::Text(b"{}"), Kind::Json),
            (Type::JSONB, ValueRef::Text(b"{}"), Kind::Jsonb),
            (Type::UUID, ValueRef::Text(b"00000000-0000-0000-0000-000000000001"), Kind::Uuid),
        ] {
            assert_eq!(Kind::beside(of.oid(), value), Some(kind), "{of}");
            assert!(kind.forward(value, &mut Vec::new()).is_ok(), "{of}");
        }
        assert_eq!(Kind::beside(Type::INTERVAL.oid(), ValueRef::Text(b"1 day")), None);
    }
}
