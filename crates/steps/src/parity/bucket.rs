//! Parts of a table that both sides cut by the key alone, so that unequal sums already name the few keys to look at.

use pgrunbook_postgres::rowhash::RowSum;

use super::lookup3;
use super::pair::{Column, INTEGERS, Pair};

/// Rows in a part: what is read again for one row that differs.
const ROWS: u64 = 256;

/// 24 bytes each: 1.5 MB at most.
const MOST: u64 = 1 << 16;

/// Keys further apart than this on average are not cut by ranges: most ranges would be empty and some full.
const SPARSE: u64 = 8;

/// Ranges that one statement asks for.
const RANGES: usize = 100;

/// How the rows of a table are put into parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Buckets {
    /// One key column, an integer: ranges of `1 << shift` values from `low` on. An index finds them again.
    Ranges { low: i64, shift: u32, count: usize },
    /// By the server's hash of the key; `oids` are the types of its fields.
    Hashes { count: usize, oids: Vec<u32> },
}

impl Buckets {
    /// For a table whose key's least and greatest values are known, if it is one integer.
    pub(super) fn new(pair: &Pair, extremes: Option<(i64, i64)>) -> Self {
        let rows = pair.rows_estimate();
        let count = (rows / ROWS).next_power_of_two().clamp(64, MOST);
        if let Some((low, high)) = extremes {
            let span = high.abs_diff(low).saturating_add(1);
            if span / SPARSE <= rows.max(1024) {
                let shift = span.div_ceil(count).next_power_of_two().trailing_zeros();
                return Self::Ranges { low, shift, count: (high.abs_diff(low) >> shift) as usize + 1 };
            }
        }
        let oids = pair.identifying().iter().map(|column| column.oid.unwrap_or(0)).collect();
        Self::Hashes { count: count as usize, oids }
    }

    /// Parts of about so many rows, of which one is read: rows from all over the table.
    pub(super) fn spread(pair: &Pair, rows: u64) -> Self {
        let count = (pair.rows_estimate() / rows.max(1)).max(1);
        // The power of two that is not above: as many rows as were asked for, or up to twice as many.
        let count = 1 << count.ilog2().min(30);
        Self::Hashes { count, oids: pair.identifying().iter().map(|column| column.oid.unwrap_or(0)).collect() }
    }

    /// Whether the key is one that ranges can be made of.
    pub(super) fn ranged(pair: &Pair) -> Option<&Column> {
        let column = pair.columns.first()?;
        let is_integer = column.oid.is_some_and(|oid| INTEGERS.contains(&oid));
        (pair.key_len == 1 && is_integer).then_some(column)
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Self::Ranges { count, .. } | Self::Hashes { count, .. } => *count,
        }
    }

    /// Which part a key belongs to: the key's fields with their lengths. `scratch` is overwritten.
    pub(super) fn of(&self, key: &[u8], scratch: &mut Vec<u8>) -> usize {
        match self {
            Self::Ranges { low, shift, count } => {
                let value = match key.get(4..).unwrap_or_default() {
                    [a, b] => i64::from(i16::from_be_bytes([*a, *b])),
                    [a, b, c, d] => i64::from(i32::from_be_bytes([*a, *b, *c, *d])),
                    eight => eight.first_chunk().map_or(*low, |eight| i64::from_be_bytes(*eight)),
                };
                // What came after the extremes were asked for cannot be in the snapshot; a file may hold anything.
                let at = value.max(*low).abs_diff(*low) >> shift;
                usize::try_from(at).map_or(count - 1, |at| at.min(count - 1))
            }
            Self::Hashes { count, oids } => {
                // As `record_send` writes them.
                scratch.clear();
                scratch.extend_from_slice(&(oids.len() as u32).to_be_bytes());
                let mut rest = key;
                for oid in oids {
                    scratch.extend_from_slice(&oid.to_be_bytes());
                    let Some((length, _)) = rest.split_first_chunk::<4>() else { break };
                    let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
                    let (field, after) = rest.split_at((4 + length).min(rest.len()));
                    scratch.extend_from_slice(field);
                    rest = after;
                }
                (lookup3::hash(scratch) & (*count as u64 - 1)) as usize
            }
        }
    }

    /// The parts whose sums differ, grouped as they are asked for: each a condition behind WHERE.
    pub(super) fn conditions(&self, pair: &Pair, unequal: &[usize]) -> Vec<Looked> {
        match self {
            Self::Ranges { low, shift, .. } => {
                let key = pair.columns.first().map(Column::select).unwrap_or_default();
                runs(unequal)
                    .chunks(RANGES)
                    .map(|runs| {
                        let ranges = runs.iter().map(|(first, last)| self.range(&key, *low, *shift, *first, *last));
                        let buckets = runs.iter().flat_map(|(first, last)| *first..=*last).collect();
                        Looked { condition: ranges.collect::<Vec<_>>().join(" OR "), buckets }
                    })
                    .collect()
            }
            Self::Hashes { count, .. } => {
                let wanted: Vec<String> = unequal.iter().map(usize::to_string).collect();
                let condition = format!(
                    "(pg_catalog.hash_record_extended(ROW(pg_catalog.record_send(ROW({}))), 0) & {}) = ANY ('{{{}}}'::int8[])",
                    pair.record(),
                    count - 1,
                    wanted.join(",")
                );
                let condition = if unequal.len() * 2 > *count { "true".to_owned() } else { condition };
                let buckets = if condition == "true" { (0..*count).collect() } else { unequal.to_vec() };
                vec![Looked { condition, buckets }]
            }
        }
    }

    fn range(&self, key: &str, low: i64, shift: u32, first: usize, last: usize) -> String {
        let at = |bucket: usize| low.checked_add_unsigned((bucket as u64).checked_shl(shift).unwrap_or(u64::MAX));
        let from = (first > 0).then(|| at(first)).flatten().map(|from| format!("{key} >= {from}"));
        let below = (last + 1 < self.count()).then(|| at(last + 1)).flatten().map(|to| format!("{key} < {to}"));
        match (from, below) {
            (Some(from), Some(below)) => format!("({from} AND {below})"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => "true".to_owned(),
        }
    }
}

/// What a second look reads by one statement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Looked {
    pub condition: String,
    pub buckets: Vec<usize>,
}

/// Neighbours together: first and last of each run.
fn runs(buckets: &[usize]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for bucket in buckets {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *bucket => *last = *bucket,
            _ => runs.push((*bucket, *bucket)),
        }
    }
    runs
}

/// The sums of every part of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sums {
    pub parts: Vec<RowSum>,
    /// Rows that were left out.
    pub skipped: u64,
}

impl Sums {
    pub(super) fn new(count: usize) -> Self {
        Self { parts: vec![RowSum::default(); count], skipped: 0 }
    }

    pub(super) fn total(&self) -> RowSum {
        let mut total = RowSum::default();
        self.parts.iter().for_each(|part| total.merge(*part));
        total
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (part, more) in self.parts.iter_mut().zip(&other.parts) {
            part.merge(*more);
        }
        self.skipped += other.skipped;
    }

    /// Of some parts together.
    pub(super) fn of(&self, buckets: &[usize]) -> RowSum {
        let mut sum = RowSum::default();
        buckets.iter().filter_map(|at| self.parts.get(*at)).for_each(|part| sum.merge(*part));
        sum
    }
}

/// The parts that are not the same.
pub(super) fn unequal(a: &Sums, b: &Sums) -> Vec<usize> {
    a.parts.iter().zip(&b.parts).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_of_a_key_holds_it() {
        let shape = |low: i64, high: i64, count: u64| {
            let span = high.abs_diff(low).saturating_add(1);
            let shift = span.div_ceil(count).next_power_of_two().trailing_zeros();
            Buckets::Ranges { low, shift, count: (high.abs_diff(low) >> shift) as usize + 1 }
        };
        for (low, high) in [(0, 0), (1, 1_500_000), (-5, 5), (i64::MIN, i64::MAX), (i64::MAX - 3, i64::MAX)] {
            let buckets = shape(low, high, 64);
            assert!(buckets.count() <= 65, "{low} to {high}: {}", buckets.count());
            for value in [low, high, low / 2 + high / 2] {
                let key = [&8_i32.to_be_bytes()[..], &value.to_be_bytes()].concat();
                let at = buckets.of(&key, &mut Vec::new());
                let Buckets::Ranges { low, shift, .. } = buckets else { unreachable!() };
                let text = buckets.range("k", low, shift, at, at);
                for part in text.trim_matches(['(', ')']).split(" AND ").filter(|part| *part != "true") {
                    let (rest, bound) = part.rsplit_once(' ').unwrap();
                    let bound: i64 = bound.parse().unwrap();
                    assert!(if rest.ends_with(">=") { value >= bound } else { value < bound }, "{value}: {text}");
                }
            }
        }
    }

    #[test]
    fn neighbours_are_asked_for_together() {
        assert_eq!(runs(&[1, 2, 3, 7, 9, 10]), [(1, 3), (7, 7), (9, 10)]);
    }
}
