//! Changes that a copy may have already.
//!
//! When a base copy is resumed after a crash, the missing ranges are copied under a later snapshot, while the stream still
//! brings what happened before it. Those transactions are applied tolerantly: an insertion replaces what is there, a change of
//! a row that is not there is passed over. When the stream has passed the later snapshot, all rows are at the same point.
//!
//! On the way rows may be together that never were (one older, one newer), so the table must have no unique index but its
//! key until the rule is gone; where it has, a value that is there twice for a moment stops the stream.

use std::str::FromStr;

use crate::lsn::Lsn;

/// A `pg_snapshot`, as `pg_current_snapshot()` prints it: `xmin:xmax:xip,xip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    /// Under way at that time; sorted.
    in_progress: Vec<u64>,
}

/// It is not three parts with colons between.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a snapshot: they look like 731:735:732,733")]
pub struct NotASnapshot(String);

impl FromStr for Snapshot {
    type Err = NotASnapshot;

    fn from_str(text: &str) -> Result<Self, NotASnapshot> {
        let wrong = || NotASnapshot(text.to_owned());
        let mut parts = text.split(':');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or_else(wrong);
        let (xmin, xmax) = (number()?, number()?);
        let list = parts.next().ok_or_else(wrong)?;
        let mut in_progress = match list {
            "" => Vec::new(),
            list => list.split(',').map(|xid| xid.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?,
        };
        in_progress.sort_unstable();
        if parts.next().is_some() || xmin > xmax { Err(wrong()) } else { Ok(Self { xmin, xmax, in_progress }) }
    }
}

impl Snapshot {
    /// Whether it sees what a committed transaction did. The stream gives 32 bits of the transaction's number; the rest is
    /// of the snapshot, from which no transaction in a slot's reach is two thousand million away.
    pub fn sees(&self, xid: u32) -> bool {
        let distance = xid.wrapping_sub(self.xmax as u32).cast_signed();
        let full = self.xmax.wrapping_add_signed(i64::from(distance));
        full < self.xmin || (full < self.xmax && self.in_progress.binary_search(&full).is_err())
    }
}

/// Parts of a table were copied under a later snapshot than the stream's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeRule {
    /// The source's names of schema and table.
    pub schema: String,
    pub table: String,
    pub snapshot: Snapshot,
    /// The source's position when the snapshot had been taken: once it is passed, the rule is dropped.
    pub until: Lsn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_sees_what_was_committed_before_it() {
        let snapshot: Snapshot = "100:105:101,103".parse().expect("a snapshot");
        let seen: Vec<u32> = (98..108).filter(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [98, 99, 100, 102, 104]);
    }

    #[test]
    fn numbers_of_transactions_are_widened_by_the_snapshot() {
        let epoch = 3u64 << 32;
        let after_wrap: Snapshot = format!("{}:{}:", epoch + 5, epoch + 5).parse().expect("a snapshot");
        assert!(after_wrap.sees(u32::MAX), "of the epoch before");
        assert!(after_wrap.sees(4));
        assert!(!after_wrap.sees(5));
        let before_wrap: Snapshot = format!("{}:{}:", epoch - 5, epoch - 5).parse().expect("a snapshot");
        assert!(!before_wrap.sees(3), "of the epoch after");
        assert!(before_wrap.sees(u32::MAX - 7));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "1", "1:2", "2:1:", "1:2:x", "1:2:3:4", "a:2:", "1:2:,"] {
            assert!(text.parse::<Snapshot>().is_err(), "{text}");
        }
    }
}
