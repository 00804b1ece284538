//! Sums of row hashes: the same for the same rows in any order.
//!
//! A row is hashed over its canonical bytes: of each column, in order, what a binary COPY carries (a length of four bytes,
//! -1 for NULL, then the bytes of the type's send function), without the count of fields that leads it. Sums, not
//! exclusive ors: three equal rows must not look like one. Two seeds make 128 bits of it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Any two odd constants do; these are the first digits of pi and e.
const SEEDS: [u64; 2] = [0x3141_5926_5358_9793, 0x2718_2818_2845_9045];

/// How many rows, and the sums of their hashes, wrapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowSum {
    pub rows: u64,
    pub sums: [u64; 2],
}

impl RowSum {
    /// Adds a row by its canonical bytes.
    pub fn add(&mut self, row: &[u8]) {
        self.rows += 1;
        for (sum, seed) in self.sums.iter_mut().zip(SEEDS) {
            *sum = sum.wrapping_add(xxh3_64_with_seed(row, seed));
        }
    }

    /// Adds the rows of another part.
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        for (sum, more) in self.sums.iter_mut().zip(other.sums) {
            *sum = sum.wrapping_add(more);
        }
    }

    /// Takes rows out that were added.
    pub fn take(&mut self, other: Self) {
        self.rows = self.rows.saturating_sub(other.rows);
        for (sum, less) in self.sums.iter_mut().zip(other.sums) {
            *sum = sum.wrapping_sub(less);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(rows: &[&[u8]]) -> RowSum {
        let mut sum = RowSum::default();
        rows.iter().for_each(|row| sum.add(row));
        sum
    }

    #[test]
    fn order_does_not_matter_and_number_does() {
        assert_eq!(sum(&[b"a", b"b", b"c"]), sum(&[b"c", b"a", b"b"]));
        assert_ne!(sum(&[b"a", b"a", b"a"]), sum(&[b"a"]));
        assert_ne!(sum(&[b"a", b"a"]).sums, sum(&[b"b", b"b"]).sums);
    }

    #[test]
    fn parts_make_the_whole() {
        let mut whole = sum(&[b"a", b"b"]);
        whole.merge(sum(&[b"c"]));
        assert_eq!(whole, sum(&[b"a", b"b", b"c"]));
        whole.take(sum(&[b"a", b"c"]));
        assert_eq!(whole, sum(&[b"b"]));
    }
}
