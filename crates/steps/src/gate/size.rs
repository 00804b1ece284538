//! How large a relation is at the target, and whether anybody uses it.

use std::collections::BTreeMap;

use pgrunbook_document::Severity;
use pgrunbook_postgres::{PgError, Session, quote};
use serde_json::{Value, json};

/// From here on writing a table anew takes seconds on ordinary disks, whatever the number of its rows.
const MANY_BYTES: i64 = 1 << 30;

/// A relation at the target, with its partitions, as the catalogs and the statistics have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Size {
    /// `None`: it was never analysed.
    pub rows: Option<i64>,
    /// Without indexes, TOAST included.
    pub bytes: i64,
    pub index_count: i64,
    pub index_bytes: i64,
    /// Reads of it since the statistics begin: sequential and by an index.
    pub reads: i64,
    /// Rows that were inserted, updated and deleted since then.
    pub writes: i64,
    /// When it was read last; PostgreSQL 16 and newer say so.
    pub last_read: Option<String>,
}

/// One row for each table or index that is there; of a partitioned one what its partitions have. What a version of the server does not have is read through JSON.
const SIZES: &str = "SELECT w.name,
    CASE WHEN bool_and(c.reltuples >= 0 OR pg_catalog.pg_relation_size(c.oid) = 0)
         THEN sum(CASE WHEN c.relkind IN ('p', 'I') THEN 0 ELSE greatest(c.reltuples, 0) END)::bigint END,
    sum(pg_catalog.pg_table_size(c.oid))::bigint,
    sum((SELECT count(*) FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND c.relkind <> 'p'))::bigint,
    sum(pg_catalog.pg_indexes_size(c.oid))::bigint,
    coalesce(sum(s.seq_scan + coalesce(s.idx_scan, 0)), 0)::bigint,
    coalesce(sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0)::bigint,
    pg_catalog.to_char(max(greatest((pg_catalog.to_jsonb(s) ->> 'last_seq_scan')::timestamptz,
        (pg_catalog.to_jsonb(s) ->> 'last_idx_scan')::timestamptz)) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI \"UTC\"')
FROM (VALUES NAMES) AS w(name)
CROSS JOIN LATERAL (SELECT pg_catalog.to_regclass(w.name)::oid AS oid) AS o
CROSS JOIN LATERAL (SELECT o.oid AS part UNION SELECT t.relid FROM pg_catalog.pg_partition_tree(o.oid) AS t) AS p
JOIN pg_catalog.pg_class AS c ON c.oid = p.part AND c.relkind IN ('r', 'm', 'p', 'i', 'I')
LEFT JOIN pg_catalog.pg_stat_all_tables AS s ON s.relid = c.oid
GROUP BY w.name";

/// What the target has of these relations, by their qualified names.
pub(super) async fn sizes<'n>(
    live: &Session,
    names: impl IntoIterator<Item = &'n String>,
) -> Result<BTreeMap<String, Size>, PgError> {
    let names: Vec<String> =
        names.into_iter().map(|name| format!("({})", quote::literal(name).unwrap_or_default())).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut sizes = BTreeMap::new();
    let rows = live.simple(&SIZES.replace("NAMES", &names.join(", "))).await?;
    for row in rows.into_iter().flat_map(|answer| answer.rows) {
        let cell = |at: usize| row.get(at).cloned().flatten();
        let number = |at: usize| cell(at).and_then(|text| text.parse::<i64>().ok());
        let size = Size {
            rows: number(1),
            bytes: number(2).unwrap_or(0),
            index_count: number(3).unwrap_or(0),
            index_bytes: number(4).unwrap_or(0),
            reads: number(5).unwrap_or(0),
            writes: number(6).unwrap_or(0),
            last_read: cell(7),
        };
        sizes.insert(cell(0).unwrap_or_default(), size);
    }
    Ok(sizes)
}

impl Size {
    /// How bad it is that all of it is read or written under a lock. `large`: the rows from which on it is an error.
    pub fn weight(&self, large: i64) -> Severity {
        match self.rows {
            _ if self.bytes >= MANY_BYTES => Severity::Error,
            Some(rows) if rows < large => Severity::Note,
            Some(_) => Severity::Error,
            // Nobody has counted its rows; its size alone does not say how many.
            None => Severity::Warning,
        }
    }

    /// `about 12,400,000 rows, 3.1 GB with 2 indexes`.
    pub fn shown(&self) -> String {
        let rows = self.rows.map_or_else(
            || "never analysed".to_owned(),
            |rows| match rows {
                1 => "about 1 row".to_owned(),
                rows => format!("about {} rows", grouped(rows)),
            },
        );
        let indexes = match self.index_count {
            0 => String::new(),
            1 => " with 1 index".to_owned(),
            count => format!(" with {count} indexes"),
        };
        format!("{rows}, {}{indexes}", shown_bytes(self.bytes + self.index_bytes))
    }

    /// How it is used: `read 120 times, last 2026-11-22 00:10 UTC; 4 rows written`.
    pub fn used(&self) -> String {
        let last = self.last_read.as_ref().map_or_else(String::new, |at| format!(", last {at}"));
        format!("read {} times{last}; {} rows written", grouped(self.reads), grouped(self.writes))
    }

    /// As it leaves the process; `bytes` with indexes.
    pub fn json(&self) -> Value {
        json!({
            "rows": self.rows, "bytes": self.bytes + self.index_bytes, "indexes": self.index_count, "index_bytes": self.index_bytes,
            "reads": self.reads, "writes": self.writes, "last_read": self.last_read,
        })
    }
}

/// `12,400,000`.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `3.1 GB`; units of 1,000.
pub(super) fn shown_bytes(bytes: i64) -> String {
    let bytes = u64::try_from(bytes).unwrap_or(0);
    let (unit, word) = match bytes {
        0..=9_999 => return format!("{bytes} B"),
        10_000..=9_999_999 => (1_000, "kB"),
        10_000_000..=999_999_999 => (1_000_000, "MB"),
        _ => (1_000_000_000, "GB"),
    };
    match (bytes / unit, bytes % unit * 10 / unit) {
        (whole, tenth) if whole < 100 && word == "GB" => format!("{whole}.{tenth} {word}"),
        (whole, _) => format!("{whole} {word}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_for_people() {
        let size = Size {
            rows: Some(12_400_000),
            bytes: 3_000_000_000,
            index_count: 2,
            index_bytes: 112_000_000,
            ..Size::default()
        };
        assert_eq!(size.shown(), "about 12,400,000 rows, 3.1 GB with 2 indexes");
        let empty = Size { rows: Some(1), bytes: 8192, index_count: 1, ..Size::default() };
        assert_eq!(empty.shown(), "about 1 row, 8192 B with 1 index");
        assert_eq!(Size { bytes: 16_384, ..Size::default() }.shown(), "never analysed, 16 kB");
        assert_eq!([grouped(0), grouped(999), grouped(-1000)], ["0", "999", "-1,000"]);
    }

    #[test]
    fn weight_is_of_rows_and_of_bytes() {
        let of = |rows, bytes| Size { rows, bytes, ..Size::default() }.weight(100_000);
        assert_eq!(of(Some(0), 0), Severity::Note);
        assert_eq!(of(Some(99_999), 1 << 20), Severity::Note);
        assert_eq!(of(Some(100_000), 1 << 20), Severity::Error);
        assert_eq!(of(Some(10), 1 << 30), Severity::Error, "few rows, and each large");
        assert_eq!(of(None, 16_384), Severity::Warning);
        assert_eq!(of(None, 1 << 30), Severity::Error);
    }
}
