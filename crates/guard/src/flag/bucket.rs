//! Shares of keys, by flagd's rule.
//!
//! `murmur3_x86_32(text) * total >> 32` is a key's place among `total` (seed 0). It is flagd's `fractional` since its
//! high-precision bucketing (open-feature/flagd pull request 1909, `@fractional-v2` in flagd-testbed), where `text` is the
//! flag's name and the key, one after the other, if nothing else is said. Its versions before placed keys otherwise
//! (`@fractional-v1`).
//!
//! A key's place does not depend on the share: a share that grows takes keys in and lets none go, and one that shrinks
//! does the reverse. Nor does it depend on the total, so that a percentage of a table and `fractional` of a file agree.

use std::fmt;

/// A percentage with three decimals, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Everybody.
    pub const ALL: Self = Self(100_000);

    /// Thousandths of a percent. `None` above 100,000.
    pub fn of_thousandths(thousandths: u32) -> Option<Self> {
        (thousandths <= Self::ALL.0).then_some(Self(thousandths))
    }

    /// Reads `10`, `12.5`, `0.001`. `None` if it is anything else: below 0, above 100, or finer than that.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        // What `numeric` writes behind the third decimal can only be zeros.
        let part = if part.len() > 3 { part.trim_end_matches('0') } else { part };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || part.len() > 3 || !digits(whole) || !digits(part) {
            return None;
        }
        let whole: u32 = whole.parse().ok()?;
        let part: u32 = format!("{part:0<3}").parse().ok()?;
        Self::of_thousandths(whole * 1000 + part)
    }

    /// Thousandths of a percent.
    pub fn thousandths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 1000.0)
    }
}

/// Whether a key is among the first `percent` of a flag's keys.
pub fn is_in(flag: &str, key: &str, percent: Percent) -> bool {
    place(&format!("{flag}{key}"), Percent::ALL.0) < u64::from(percent.0)
}

/// A text's place, from 0 to below `total`.
pub(crate) fn place(text: &str, total: u32) -> u64 {
    (u64::from(murmur3(text.as_bytes())) * u64::from(total)) >> 32
}

/// MurmurHash3_x86_32 with seed 0 (Austin Appleby, public domain;
/// <https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp>).
fn murmur3(bytes: &[u8]) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let scramble = |block: u32| block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let mut hash = 0_u32;
    let mut blocks = bytes.chunks_exact(4);
    for block in &mut blocks {
        let block = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        hash = (hash ^ scramble(block)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let tail = blocks.remainder().iter().rev().fold(0, |tail, byte| tail << 8 | u32::from(*byte));
    hash ^= scramble(tail);
    // A length above 4 GiB wraps, as in the original.
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_murmur3() {
        // Of the reference implementation.
        for (text, hash) in [("", 0), ("a", 0x3c25_69b2), ("hello", 0x248b_fa47), ("hello, world", 0x149b_bb7f)] {
            assert_eq!(murmur3(text.as_bytes()), hash, "{text}");
        }
        // flagd-testbed looked for keys at the edges.
        let edges =
            [("ejOoVL", 0), ("bY9fO-", 1), ("SI7p-", i32::MAX as u32), ("6LvT0", 1 << 31), ("ceQdGm", u32::MAX)];
        for (text, hash) in edges {
            assert_eq!(murmur3(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn percentages_are_read_exactly() {
        let read = |text: &str| Percent::parse(text).map(Percent::thousandths);
        assert_eq!(read("10"), Some(10_000));
        assert_eq!(read("12.5"), Some(12_500));
        assert_eq!(read("0.001"), Some(1));
        assert_eq!(read("100.000"), Some(100_000));
        assert_eq!(read("50.0000"), Some(50_000));
        for text in ["", "-1", "100.001", "101", "1e1", "0.0001", ".5", " 5", "NaN", "9999999999"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
