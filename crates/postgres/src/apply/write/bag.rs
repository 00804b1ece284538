//! Changes of tables without a key, which are multisets of rows.

use super::super::destination::Destination;
use super::super::error::ApplyError;
use super::super::pending::{Counted, Pending};
use super::layout::Layout;
use super::{Item, Writer, affected};

impl Writer {
    /// Rows without a key: as many of each as the batch took away, then as many as it added.
    pub(super) async fn bag(&mut self, destination: &Destination, pending: Pending) -> Result<(), ApplyError> {
        let mut sorted: Vec<(Box<[u8]>, Counted)> =
            pending.bag.into_iter().filter(|(_, counted)| counted.more != 0).collect();
        sorted.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let mut fewer = Vec::new();
        let mut more = Vec::new();
        for (_, counted) in &sorted {
            let item = Item { found_by: &counted.row, row: &counted.row, lsn: counted.lsn };
            if counted.more < 0 {
                fewer.push((i32::try_from(-counted.more).unwrap_or(i32::MAX), item));
            } else {
                more.extend((0..counted.more).map(|_| item));
            }
        }
        if !fewer.is_empty() {
            let layout = Layout::new(destination, &pending.forms, &destination.written, destination.written.len());
            let rows = fewer.iter().map(|(count, item)| (Some(*count), *item));
            let name = self.staged(destination, &layout, rows).await?;
            let wanted: u64 = fewer.iter().map(|(count, _)| u64::from(count.unsigned_abs())).sum();
            let theirs: Vec<String> =
                destination.written.iter().map(|at| format!("t.{}", destination.columns[*at].name)).collect();
            let ours: Vec<String> = (0..layout.columns.len()).map(|at| layout.value(destination, at)).collect();
            // A row's text form: NULLs are equal, and types without an equality (json) have one here; nothing that differs at
            // all is taken for equal, as 1.0 and 1.00 would be by their type's. And texts can be joined by hash.
            let as_text =
                |columns: &[String]| format!("ROW({})::pg_catalog.text COLLATE pg_catalog.\"C\"", columns.join(", "));
            let picked = format!(
                "SELECT m.ctid, m.tableoid FROM (SELECT t.ctid, t.tableoid, s.n, \
                 pg_catalog.row_number() OVER (PARTITION BY s.ctid) AS r FROM {} AS t JOIN {name} AS s ON {} = {}) AS m \
                 WHERE m.r <= m.n",
                destination.name,
                as_text(&theirs),
                as_text(&ours)
            );
            let sql = format!(
                "SET LOCAL enable_hashjoin = on; \
                 DELETE FROM {} AS t USING ({picked}) AS p WHERE t.ctid = p.ctid AND t.tableoid = p.tableoid",
                destination.name
            );
            let done = self
                .run(&format!("to delete rows of {}", destination.shown), &format!("SAVEPOINT pgrunbook_step; {sql}"))
                .await?;
            if affected(&done) != wanted {
                let look = format!(
                    "ROLLBACK TO SAVEPOINT pgrunbook_step; SELECT {} FROM {name} AS s WHERE s.n > \
                     (SELECT count(*) FROM {} AS t WHERE {} = {}) LIMIT 1",
                    as_text(&ours),
                    destination.name,
                    as_text(&theirs),
                    as_text(&ours)
                );
                let answers = self.run("to look again", &look).await?;
                let key = answers.last().and_then(|answer| answer.rows.first()?.first()?.clone()).unwrap_or_default();
                let lsn = fewer.iter().map(|(_, item)| item.lsn).max().unwrap_or(self.lsn);
                let what = "it is to be updated or deleted, and is not there (often enough)".to_owned();
                return Err(ApplyError::Conflict { table: destination.shown.clone(), key, what, lsn });
            }
            self.run("to release a savepoint", "RELEASE SAVEPOINT pgrunbook_step; SET LOCAL enable_hashjoin = off")
                .await?;
        }
        if more.is_empty() { Ok(()) } else { self.insert(destination, &pending.forms, &more).await }
    }
}
