//! What the target remembers of a copy: the plan of each table, and each range whose rows are in.

use pgrunbook_postgres::{Lsn, PgError, Session, ledger, quote};

/// Makes what is missing; see [`ledger::install`].
///
/// A table's row is its plan: under which snapshot it was begun (`base`), in how many ranges of how many blocks, and which
/// file the source kept it in. `snapshot` and `until` are set where it was brought to a later snapshot than the stream's.
const INSTALL: &str = "
CREATE TABLE IF NOT EXISTS pgrunbook.transfer_table (
    schema text NOT NULL,
    relation text NOT NULL,
    source text NOT NULL,
    filenode bigint NOT NULL,
    ranges integer NOT NULL,
    range_pages bigint NOT NULL,
    base text NOT NULL,
    snapshot text,
    until pg_lsn,
    settling boolean NOT NULL DEFAULT false,
    settled boolean NOT NULL DEFAULT false,
    PRIMARY KEY (schema, relation)
);
CREATE TABLE IF NOT EXISTS pgrunbook.transfer_range (
    schema text NOT NULL,
    relation text NOT NULL,
    range_no integer NOT NULL,
    low bigint NOT NULL,
    high bigint,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    sum_a bigint NOT NULL,
    sum_b bigint NOT NULL,
    snapshot text NOT NULL,
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (schema, relation, range_no)
);
COMMENT ON TABLE pgrunbook.transfer_table IS 'How each table of a transfer is copied: ranges of blocks of the source''s file.';
COMMENT ON TABLE pgrunbook.transfer_range IS 'Ranges whose rows are in the target: committed with them.'";

const INSTALLED: &str = "SELECT pg_catalog.to_regclass('pgrunbook.transfer_table') IS NOT NULL
    AND pg_catalog.to_regclass('pgrunbook.transfer_range') IS NOT NULL";

/// Makes the tables, unless they are there.
///
/// # Errors
/// If the role may not.
pub async fn install(session: &Session) -> Result<(), PgError> {
    ledger::install_beside(session, INSTALLED, INSTALL).await
}

/// How one table is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub relation: String,
    pub source: String,
    pub filenode: i64,
    pub ranges: i32,
    pub range_pages: i64,
    pub base: String,
    pub snapshot: Option<String>,
    pub until: Option<Lsn>,
    /// It is being brought to a later snapshot: ranges alone do not make it complete.
    pub settling: bool,
    /// It was brought to `snapshot`.
    pub settled: bool,
    /// The ranges that are in.
    pub done: Vec<i32>,
}

const PLANS: &str = "
SELECT t.relation, t.source, t.filenode, t.ranges, t.range_pages, t.base, t.snapshot, t.until::text, t.settling, t.settled,
    coalesce((SELECT pg_catalog.array_agg(r.range_no ORDER BY r.range_no) FROM pgrunbook.transfer_range AS r
        WHERE r.schema = t.schema AND r.relation = t.relation), '{}'::int4[])
FROM pgrunbook.transfer_table AS t WHERE t.schema = $1 ORDER BY t.relation";

/// The plans of a transfer's tables.
pub(super) async fn plans(session: &Session, schema: &str) -> Result<Vec<Plan>, PgError> {
    let rows = session.client().query(PLANS, &[&schema]).await.map_err(|error| session.error(&error))?;
    let plan = |row: tokio_postgres::Row| Plan {
        relation: row.get(0),
        source: row.get(1),
        filenode: row.get(2),
        ranges: row.get(3),
        range_pages: row.get(4),
        base: row.get(5),
        snapshot: row.get(6),
        until: row.get::<_, Option<&str>>(7).and_then(|lsn| lsn.parse().ok()),
        settling: row.get(8),
        settled: row.get(9),
        done: row.get(10),
    };
    Ok(rows.into_iter().map(plan).collect())
}

/// The statement that writes a plan down, in place of an earlier one and its ranges.
pub(super) fn plan_sql(schema: &str, plan: &Plan) -> String {
    let (schema, relation) = (text(schema), text(&plan.relation));
    let optional = |value: Option<String>| value.map_or_else(|| "NULL".to_owned(), |value| text(&value));
    format!(
        "DELETE FROM pgrunbook.transfer_range WHERE schema = {schema} AND relation = {relation};
         DELETE FROM pgrunbook.transfer_table WHERE schema = {schema} AND relation = {relation};
         INSERT INTO pgrunbook.transfer_table
             (schema, relation, source, filenode, ranges, range_pages, base, snapshot, until)
         VALUES ({schema}, {relation}, {}, {}, {}, {}, {}, {}, {})",
        text(&plan.source),
        plan.filenode,
        plan.ranges,
        plan.range_pages,
        text(&plan.base),
        optional(plan.snapshot.clone()),
        optional(plan.until.map(|lsn| lsn.to_string())),
    )
}

impl Plan {
    /// Whether every row is in, as of `snapshot` if there is one and else of `base`.
    pub fn is_complete(&self) -> bool {
        self.settled || (!self.settling && i32::try_from(self.done.len()) == Ok(self.ranges))
    }
}

/// Says that a table is about to be brought to a later snapshot.
pub(super) fn settling_sql(schema: &str, relation: &str) -> String {
    let (schema, relation) = (text(schema), text(relation));
    format!("UPDATE pgrunbook.transfer_table SET settling = true WHERE schema = {schema} AND relation = {relation}")
}

/// Keeps all others from bringing a table to a snapshot until the transaction ends.
pub(super) fn locked_sql(schema: &str, relation: &str) -> String {
    let (schema, relation) = (text(schema), text(relation));
    format!("SELECT FROM pgrunbook.transfer_table WHERE schema = {schema} AND relation = {relation} FOR UPDATE")
}

/// Says that a table is at a later snapshot.
pub(super) fn settled_sql(schema: &str, relation: &str, snapshot: &str, until: Lsn) -> String {
    format!(
        "UPDATE pgrunbook.transfer_table SET settled = true, snapshot = {}, until = {}
         WHERE schema = {} AND relation = {}",
        text(snapshot),
        text(&until.to_string()),
        text(schema),
        text(relation)
    )
}

/// Texts that come here are names from catalogs, snapshots and positions: without NUL.
pub(super) fn text(value: &str) -> String {
    quote::literal(&value.replace('\0', "")).expect("NUL was taken out")
}
