//! Which transactions a snapshot sees.

use std::str::FromStr;

/// A `pg_snapshot`, as `pg_current_snapshot()` prints it: `xmin:xmax:xip,xip`.
///
/// Source: "Transaction ID and Snapshot Information Functions" in PostgreSQL's documentation. The numbers have 64 bits: they
/// count epochs of the 32-bit numbers that a stream carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// All before it had ended.
    xmin: u64,
    /// None from it on had begun.
    xmax: u64,
    /// In between: those still at work, sorted.
    in_progress: Vec<u64>,
}

/// It is not three parts with colons between.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a snapshot: they look like 731:735:732,733")]
pub struct NotASnapshot(String);

impl FromStr for Snapshot {
    type Err = NotASnapshot;

    fn from_str(text: &str) -> Result<Self, NotASnapshot> {
        Self::parse(text)
    }
}

impl Snapshot {
    /// Reads a snapshot.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, NotASnapshot> {
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

    /// The 64-bit number of a transaction of the stream: of all with these low 32 bits the one nearest to the snapshot.
    ///
    /// Two transactions that the server knows at one time are never 2^31 or more apart, since it would have stopped before.
    pub fn widen(&self, xid: u32) -> u64 {
        // The distance as a signed number says on which side of the snapshot's end it is.
        let distance = xid.wrapping_sub(self.xmax as u32).cast_signed();
        self.xmax.saturating_add_signed(distance.into())
    }

    /// Whether it sees what a transaction did that is known to be committed: what `pg_visible_in_snapshot` says.
    pub fn sees(&self, xid: u32) -> bool {
        let xid = self.widen(xid);
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).expect("a snapshot")
    }

    #[test]
    fn snapshot_sees_what_was_committed_before_it() {
        let seen = snapshot("100:105:103,101");
        let sees: Vec<u32> = (98..108).filter(|xid| seen.sees(*xid)).collect();
        assert_eq!(sees, [98, 99, 100, 102, 104]);
        assert!(snapshot("7:7:").sees(6));
    }

    #[test]
    fn numbers_are_widened_across_an_epoch() {
        let epoch = 1_u64 << 32;
        // It ends just behind the turn; the stream has transactions of both sides of it.
        let seen = snapshot(&format!("{}:{}:{}", 3 * epoch - 5, 3 * epoch + 10, 3 * epoch - 3));
        assert_eq!(seen.widen(u32::MAX), 3 * epoch - 1);
        assert_eq!(seen.widen(9), 3 * epoch + 9);
        assert!(seen.sees(u32::MAX) && seen.sees(9));
        assert!(!seen.sees(u32::MAX - 2) && !seen.sees(10));
        // And just before it: numbers behind the turn are later ones.
        let seen = snapshot(&format!("{0}:{0}:", 3 * epoch - 1));
        assert_eq!(seen.widen(3), 3 * epoch + 3);
        assert!(!seen.sees(3) && seen.sees(u32::MAX - 1));
        // In the first epoch there is nothing below.
        assert_eq!(snapshot("3:5:").widen(u32::MAX), 0);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "1", "1:2", "2:1:", "1:2:x", "1:2:3:4", "a:2:", "1:2:,"] {
            assert!(Snapshot::parse(text).is_err(), "{text}");
        }
    }
}
