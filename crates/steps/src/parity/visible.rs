//! Which transactions of a stream a snapshot saw.

use super::error::ParityError;

/// A snapshot as `pg_current_snapshot()` prints it: `xmin:xmax:xip,...`.
///
/// Source: "Transaction ID and Snapshot Information Functions" in PostgreSQL's documentation. The numbers have 64 bits: they
/// count epochs of the 32-bit numbers that the stream carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// All before it had ended.
    xmin: u64,
    /// None from it on had begun.
    xmax: u64,
    /// In between: those still at work, sorted.
    running: Vec<u64>,
}

impl Visible {
    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`ParityError::Aligned`] if it is none.
    pub fn parse(text: &str) -> Result<Self, ParityError> {
        let wrong = || ParityError::Aligned(format!("{text:?} is no snapshot"));
        let mut parts = text.split(':');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or_else(wrong);
        let (xmin, xmax) = (number()?, number()?);
        let running = parts.next().ok_or_else(wrong)?.split(',').filter(|one| !one.is_empty());
        let mut running: Vec<u64> = running.map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        running.sort_unstable();
        Ok(Self { xmin, xmax, running })
    }

    /// The 64-bit number of a transaction of the stream: of all with these low 32 bits the one nearest to the snapshot.
    ///
    /// Two transactions that the server knows at one time are never 2^31 or more apart, since it would have stopped before.
    pub fn widen(&self, xid: u32) -> u64 {
        // The distance as a signed number says on which side of the snapshot's end it is.
        let distance = xid.wrapping_sub(self.xmax as u32).cast_signed();
        self.xmax.saturating_add_signed(distance.into())
    }

    /// Whether the snapshot sees a transaction that is known to be committed: what `pg_visible_in_snapshot` says.
    pub fn sees(&self, xid: u32) -> bool {
        let xid = self.widen(xid);
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_sees_what_had_ended() {
        let seen = Visible::parse("10:20:10,14").unwrap();
        let sees = [9, 10, 11, 14, 19, 20, 21].map(|xid| seen.sees(xid));
        assert_eq!(sees, [true, false, true, false, true, false, false]);
        assert!(Visible::parse("7:7:").unwrap().sees(6));
    }

    #[test]
    fn numbers_are_widened_across_an_epoch() {
        let epoch = 1_u64 << 32;
        // The snapshot ends just behind the turn; the stream has transactions of both sides of it.
        let seen = Visible::parse(&format!("{}:{}:{}", 3 * epoch - 5, 3 * epoch + 10, 3 * epoch - 3)).unwrap();
        assert_eq!(seen.widen(u32::MAX), 3 * epoch - 1);
        assert_eq!(seen.widen(9), 3 * epoch + 9);
        assert!(seen.sees(u32::MAX) && seen.sees(9));
        assert!(!seen.sees(u32::MAX - 2) && !seen.sees(10));
        // And just before it: numbers behind the turn are later ones.
        let seen = Visible::parse(&format!("{0}:{0}:", 3 * epoch - 1)).unwrap();
        assert_eq!(seen.widen(3), 3 * epoch + 3);
        assert!(!seen.sees(3) && seen.sees(u32::MAX - 1));
        // In the first epoch there is nothing below.
        assert_eq!(Visible::parse("3:5:").unwrap().widen(u32::MAX), 0);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "1", "1:2", "1:x:", "1:2:x", "a:2:"] {
            assert!(Visible::parse(text).is_err(), "{text}");
        }
    }
}
