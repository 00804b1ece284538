//! A position in the write-ahead log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A byte position in the write-ahead log, as the server prints it: `0/16B3748` (type `pg_lsn`).
///
/// Only positions of one cluster on one timeline can be compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

/// It is not two hexadecimal numbers around a slash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a position in the write-ahead log: they look like 0/16B3748")]
pub struct NotAnLsn(String);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let part = |digits: &str| {
            let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(part(high)? << 32 | part(low)?)))
            .ok_or_else(|| NotAnLsn(text.to_owned()))
    }
}

impl TryFrom<String> for Lsn {
    type Error = NotAnLsn;

    fn try_from(text: String) -> Result<Self, NotAnLsn> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_again() {
        for value in [0, 1, 0x16B_3748, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            assert_eq!(Lsn(value).to_string().parse(), Ok(Lsn(value)));
        }
        assert_eq!("0/16B3748".parse(), Ok(Lsn(0x16B_3748)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "/", "0", "0/", "/0", "0/+1", "0/ 1", "000000000/0", "0/123456789", "0/g"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
