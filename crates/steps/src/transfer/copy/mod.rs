//! The base copy: every row of the source as one snapshot sees it, into the target's tables, on several connections.
//!
//! A table is cut into ranges of blocks (`ctid`), which the source reads without an index, and each range is one
//! transaction of the target: its rows, and a record with their number and hash. So a crash loses only ranges that were
//! under way. [`resume`] brings the unfinished tables to a *later* snapshot exactly, and says in a [`MergeRule`] for which
//! tables: the applier passes over those of their changes that this snapshot sees. Why that is right:
//! `docs/decisions/0008-base-copy-resume.md`.

mod error;
mod pipe;
mod record;
mod session;
mod settle;
mod stage;
mod work;

use std::collections::BTreeSet;
use std::time::Duration;

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::apply;
use pgrunbook_postgres::relation::{Column, FIRST_USER_OID, Generated, Shape, Table, Travels};
use pgrunbook_postgres::rowhash::RowSum;
use pgrunbook_postgres::{ConnectOptions, Lsn, PgError, Session};
use tokio::sync::watch;

pub use error::BaseCopyError;
pub use record::install;

use record::Plan;
use session::{Holder, Under};
use work::{Rest, TableWork};

/// A table of the source, and the one of the target that takes its rows; both as `relation::describe` gives them. Columns
/// find each other by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub source: Table,
    pub target: Table,
}

/// How a copy is done.
pub struct How<'a> {
    /// The transfer: its schema's name in the target.
    pub schema: &'a str,
    /// How many ranges at a time; at least one. Each takes a connection to both sides.
    pub jobs: usize,
    /// About how much of a table's file is one range.
    pub range_bytes: u64,
    pub cancel: &'a Cancel,
    /// Hears how far it is. Must not block.
    pub tell: &'a (dyn Fn(&Told) + Sync),
    /// Gets the names of the tables that are complete, so that their indexes can be built while others are copied.
    pub finished: Option<&'a watch::Sender<BTreeSet<String>>>,
}

/// How far the copy of one table is.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub table: String,
    /// Copied by this call.
    pub rows: u64,
    /// Of the stream.
    pub bytes: u64,
    pub elapsed: Duration,
    pub is_complete: bool,
}

impl Told {
    /// Bytes in a second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(1e-3)
    }
}

/// What was copied.
#[derive(Debug, Clone, PartialEq)]
pub struct Copied {
    /// In the order of the pairs.
    pub tables: Vec<CopiedTable>,
    /// What the applier must pass over.
    pub rules: Vec<MergeRule>,
}

/// One table that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedTable {
    /// Its name in the target.
    pub relation: String,
    /// Rows that its ranges brought, and bytes of their streams. Settling changes rows that are not counted here.
    pub rows: u64,
    pub bytes: u64,
    /// Of all its rows; none where it was brought to a later snapshot, when its ranges' sums no longer add up to it.
    pub sum: Option<RowSum>,
}

/// The target's table is at a later snapshot than the stream's first change.
///
/// Changes that a transaction made to it are in already, exactly, if the snapshot sees the transaction: they are to be passed
/// over, all of them and whatever they are. All others are applied as ever. Behind `until` there is nothing to be passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeRule {
    /// The source's names.
    pub schema: String,
    pub table: String,
    /// As `pg_current_snapshot()` prints it.
    pub snapshot: String,
    pub until: Lsn,
}

/// Copies all tables under a snapshot that the source has exported and the caller's session holds until this returns.
///
/// The target's tables must be empty, and should have no index yet. Partitioned tables are passed over: pair their leaves.
///
/// # Errors
/// [`BaseCopyError`]. What was complete by then is recorded, and [`resume`] goes on.
///
/// Cancellation: dropping the future ends the sessions; ranges that were under way are rolled back by the server.
pub async fn copy(
    source: &ConnectOptions,
    snapshot: &str,
    target: &ConnectOptions,
    pairs: &[Pair],
    how: &How<'_>,
) -> Result<Copied, BaseCopyError> {
    let pairs = copied(pairs)?;
    let control = Session::connect(target, "pgrunbook:copy:control").await?;
    install(&control).await?;
    if !record::plans(&control, how.schema).await?.is_empty() {
        return Err(BaseCopyError::Begun { schema: how.schema.to_owned() });
    }
    for pair in &pairs {
        let sql = format!("SELECT EXISTS (SELECT FROM ONLY {})", pair.target.sql());
        if control.value(&sql).await? == "t" {
            return Err(BaseCopyError::NotEmpty { table: pair.target.sql() });
        }
    }
    let referenced = referenced(&control, &pairs).await?;
    let holder = Holder::open(source, Under::Imported(snapshot), &names(&pairs)).await?;
    let files = files(&holder, &pairs).await?;
    let mut tables = Vec::new();
    let mut sql = "BEGIN;\n".to_owned();
    for (pair, file) in pairs.iter().zip(files) {
        let plan = plan(pair, file, &holder, Under::Imported(snapshot), how);
        sql.push_str(&record::plan_sql(how.schema, &plan));
        sql.push_str(";\n");
        tables.push(TableWork::new(pair, plan, rest(pair, &referenced)));
    }
    sql.push_str("COMMIT");
    // Before the first range: what is planned here is what a resumed copy must find.
    control.execute(&sql).await?;
    work::run(source, target, &holder, tables, how).await?;
    result(&control, &pairs, how.schema).await
}

/// Goes on with a copy that ended before it was complete. The stream must still begin where the first snapshot was taken.
///
/// Tables that are complete stay. Of the others, those with a key keep their finished ranges and are brought to a later
/// snapshot; those without, or whose file the source has rewritten, are emptied and copied again.
///
/// # Errors
/// [`BaseCopyError`], and it may be called again.
///
/// Cancellation: as [`copy`].
pub async fn resume(
    source: &ConnectOptions,
    target: &ConnectOptions,
    pairs: &[Pair],
    how: &How<'_>,
) -> Result<Copied, BaseCopyError> {
    let pairs = copied(pairs)?;
    let control = Session::connect(target, "pgrunbook:copy:control").await?;
    install(&control).await?;
    let plans = record::plans(&control, how.schema).await?;
    if plans.is_empty() {
        return Err(BaseCopyError::NotBegun { schema: how.schema.to_owned() });
    }
    let mut missing = Vec::new();
    let mut complete = BTreeSet::new();
    for pair in &pairs {
        let Some(plan) = plans.iter().find(|plan| plan.relation == pair.target.name) else {
            return Err(BaseCopyError::NotPlanned { table: pair.target.sql() });
        };
        if plan.is_complete() {
            complete.insert(pair.target.name.clone());
        } else {
            missing.push((*pair, plan.clone()));
        }
    }
    if let Some(finished) = how.finished {
        finished.send_modify(|set| set.extend(complete));
    }
    if !missing.is_empty() {
        let unfinished: Vec<&Pair> = missing.iter().map(|(pair, _)| *pair).collect();
        let referenced = referenced(&control, &unfinished).await?;
        let holder = Holder::open(source, Under::Own, &names(&unfinished)).await?;
        let files = files(&holder, &unfinished).await?;
        let mut tables = Vec::new();
        for ((pair, old), file) in missing.into_iter().zip(files) {
            if settle::is_possible(pair, &old, file.filenode) {
                control.execute(&record::settling_sql(how.schema, &old.relation)).await?;
                tables.push(TableWork::new(pair, old, Rest::Settled));
            } else {
                let plan = plan(pair, file, &holder, Under::Own, how);
                let sql = record::plan_sql(how.schema, &plan);
                let rest = rest(pair, &referenced);
                control.execute(&format!("BEGIN; {}; {sql}; COMMIT", rest.emptied(&pair.target.sql()))).await?;
                tables.push(TableWork::new(pair, plan, rest));
            }
        }
        work::run(source, target, &holder, tables, how).await?;
    }
    result(&control, &pairs, how.schema).await
}

/// What an applier must pass over, by the copy's own records.
///
/// # Errors
/// If the target cannot be asked.
pub async fn rules(target: &Session, schema: &str, source_schema: &str) -> Result<Vec<apply::PassOver>, PgError> {
    install(target).await?;
    let plans = record::plans(target, schema).await?;
    let rule = |plan: record::Plan| {
        let (snapshot, until) = (plan.snapshot?.parse().ok()?, plan.until?);
        // A table has the same name on both sides.
        Some(apply::PassOver { schema: source_schema.to_owned(), table: plan.relation, snapshot, until })
    };
    Ok(plans.into_iter().filter_map(rule).collect())
}

/// Forgets a copy, so that it can be begun anew; its rows stay.
///
/// # Errors
/// If the target cannot be asked.
pub async fn forget(target: &Session, schema: &str) -> Result<(), BaseCopyError> {
    install(target).await?;
    let schema = record::text(schema);
    let sql = format!(
        "BEGIN; DELETE FROM pgrunbook.transfer_range WHERE schema = {schema};
         DELETE FROM pgrunbook.transfer_table WHERE schema = {schema}; COMMIT"
    );
    Ok(target.execute(&sql).await?)
}

/// Takes away the rows of every table that a copy was planned for, and of no other.
///
/// # Errors
/// If the target says no: then all rows are there.
pub async fn empty(target: &Session, schema: &str) -> Result<(), BaseCopyError> {
    install(target).await?;
    let named = |plan: record::Plan| format!("{}.{}", session::ident(schema), session::ident(&plan.relation));
    let tables: Vec<String> = record::plans(target, schema).await?.into_iter().map(named).collect();
    if tables.is_empty() {
        return Ok(());
    }
    match target.execute(&format!("TRUNCATE ONLY {}", tables.join(", ONLY "))).await {
        // 0A000: a table that is not ours refers to one of them.
        Err(error) if error.sqlstate() == Some("0A000") => {}
        result => return Ok(result?),
    }
    let each: Vec<String> = tables.iter().map(|table| Rest::Referenced.emptied(table)).collect();
    if let Err(error) = target.execute(&format!("BEGIN; {}; COMMIT", each.join("; "))).await {
        let _ = target.execute("ROLLBACK").await;
        return Err(error.into());
    }
    Ok(())
}

/// Pairs each table of the source that holds rows with the target's of the same name.
///
/// # Errors
/// [`BaseCopyError::NoTable`] if one has none.
pub fn pair(source: Vec<Table>, target: &[Table]) -> Result<Vec<Pair>, BaseCopyError> {
    let mut pairs = Vec::new();
    for mut source in source.into_iter().filter(Table::holds_rows) {
        match target.iter().find(|target| target.name == source.name && target.holds_rows()) {
            Some(target) => {
                for column in source.columns.iter_mut().filter(|column| column.travels == Travels::Binary) {
                    let other = target.columns.iter().find(|other| other.name == column.name);
                    if other.is_some_and(|other| !has_same_form(column.type_oid, other.type_oid)) {
                        (column.travels, column.shape) = (Travels::Text, Shape::Plain);
                    }
                }
                pairs.push(Pair { source, target: target.clone() });
            }
            None => return Err(BaseCopyError::NoTable { table: source.sql() }),
        }
    }
    Ok(pairs)
}

/// Whether a value of the one type has the binary form of the other: users' types have other OIDs in each database, and
/// strings are their bytes.
fn has_same_form(one: u32, other: u32) -> bool {
    const STRINGS: [u32; 2] = [25, 1043];
    one == other
        || (one >= FIRST_USER_OID && other >= FIRST_USER_OID)
        || (STRINGS.contains(&one) && STRINGS.contains(&other))
}

/// The pairs whose rows are copied (a table without columns has nothing to copy), once it is known that the target has the columns for them.
fn copied(pairs: &[Pair]) -> Result<Vec<&Pair>, BaseCopyError> {
    for pair in pairs {
        for column in pair.source.travelling() {
            let takes = |other: &&Column| other.name == column.name && other.generated == Generated::No;
            if pair.target.columns.iter().find(takes).is_none() {
                return Err(BaseCopyError::NoColumn { table: pair.target.sql(), column: column.name.clone() });
            }
        }
    }
    let has_rows = |pair: &&Pair| pair.source.holds_rows() && pair.source.travelling().next().is_some();
    Ok(pairs.iter().filter(has_rows).collect())
}

fn names(pairs: &[&Pair]) -> Vec<String> {
    pairs.iter().map(|pair| pair.source.sql()).collect()
}

/// Tables that were made by migrations have their foreign keys already. One that refers to itself may be truncated.
const REFERENCED: &str = "SELECT DISTINCT confrelid FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND confrelid <> conrelid AND confrelid = ANY ($1)";

/// The target's tables that others refer to.
async fn referenced(target: &Session, pairs: &[&Pair]) -> Result<BTreeSet<u32>, BaseCopyError> {
    let oids: Vec<u32> = pairs.iter().map(|pair| pair.target.oid).collect();
    let rows = target.client().query(REFERENCED, &[&oids]).await.map_err(|error| target.error(&error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn rest(pair: &Pair, referenced: &BTreeSet<u32>) -> Rest {
    if referenced.contains(&pair.target.oid) { Rest::Referenced } else { Rest::Whole }
}

/// Where the source keeps a table's rows.
#[derive(Debug, Clone, Copy, Default)]
struct File {
    filenode: i64,
    blocks: i64,
    block_bytes: i64,
}

/// `relfilenode` is as the snapshot sees it, the function's answer is of now.
const FILES: &str = "
SELECT c.oid, c.relfilenode::int8, pg_catalog.pg_relation_filenode(c.oid)::int8, pg_catalog.pg_relation_size(c.oid),
    pg_catalog.current_setting('block_size')::int8
FROM pg_catalog.pg_class AS c WHERE c.oid = ANY ($1)";

/// The tables' files, read when the holder has locked them.
async fn files(holder: &Holder, pairs: &[&Pair]) -> Result<Vec<File>, BaseCopyError> {
    let oids: Vec<u32> = pairs.iter().map(|pair| pair.source.oid).collect();
    let client = holder.session.client();
    let rows = client.query(FILES, &[&oids]).await.map_err(|error| holder.session.error(&error))?;
    let mut files = Vec::new();
    for pair in pairs {
        let table = || pair.source.sql();
        let row = rows.iter().find(|row| row.get::<_, u32>(0) == pair.source.oid);
        let row = row.ok_or_else(|| BaseCopyError::Rewritten { table: table() })?;
        let (seen, filenode): (i64, Option<i64>) = (row.get(1), row.get(2));
        // Rows that were truncated or rewritten away since are not what the snapshot should see (MVCC caveats).
        if filenode != Some(seen) {
            return Err(BaseCopyError::Rewritten { table: table() });
        }
        let (bytes, block_bytes): (Option<i64>, i64) = (row.get(3), row.get(4));
        let blocks = bytes.unwrap_or(0) / block_bytes.max(1);
        files.push(File { filenode: seen, blocks, block_bytes });
    }
    Ok(files)
}

/// Cuts a table into ranges. An own snapshot is later than the stream's beginning, and the applier must know it.
fn plan(pair: &Pair, file: File, holder: &Holder, under: Under<'_>, how: &How<'_>) -> Plan {
    let wanted = i64::try_from(how.range_bytes).unwrap_or(i64::MAX) / file.block_bytes.max(1);
    // At most 32,768 ranges, so that the records of a huge table stay few.
    let range_pages = wanted.max(file.blocks / 32_768 + 1).max(1);
    let ranges = (file.blocks + range_pages - 1) / range_pages;
    let is_later = matches!(under, Under::Own);
    Plan {
        relation: pair.target.name.clone(),
        source: pair.source.sql(),
        filenode: file.filenode,
        ranges: i32::try_from(ranges.max(1)).unwrap_or(i32::MAX),
        range_pages,
        base: holder.snapshot.clone(),
        snapshot: is_later.then(|| holder.snapshot.clone()),
        until: is_later.then_some(holder.after),
        settling: false,
        settled: false,
        done: Vec::new(),
    }
}

const SUMS: &str = "
SELECT t.relation, t.snapshot, t.until::text, t.settled, coalesce(pg_catalog.sum(r.rows), 0)::int8,
    coalesce(pg_catalog.sum(r.bytes), 0)::int8, pg_catalog.sum(r.sum_a)::text, pg_catalog.sum(r.sum_b)::text
FROM pgrunbook.transfer_table AS t
LEFT JOIN pgrunbook.transfer_range AS r ON r.schema = t.schema AND r.relation = t.relation
WHERE t.schema = $1 GROUP BY t.schema, t.relation";

/// The workers' commits did not wait for the disk. This one does, and everything before it with it.
const FLUSH: &str = "BEGIN; SET LOCAL synchronous_commit = on;
UPDATE pgrunbook.transfer_table SET settled = settled WHERE schema = $schema; COMMIT";

/// What the records say when all is done, and lasts.
async fn result(control: &Session, pairs: &[&Pair], schema: &str) -> Result<Copied, BaseCopyError> {
    control.execute(&FLUSH.replace("$schema", &record::text(schema))).await?;
    let rows = control.client().query(SUMS, &[&schema]).await.map_err(|error| control.error(&error))?;
    let mut copied = Copied { tables: Vec::new(), rules: Vec::new() };
    for pair in pairs {
        let Some(row) = rows.iter().find(|row| row.get::<_, &str>(0) == pair.target.name) else { continue };
        let (rows, bytes): (i64, i64) = (row.get(4), row.get(5));
        let sums = [6, 7].map(|at| wrapped(row.get(at)));
        let is_settled: bool = row.get(3);
        copied.tables.push(CopiedTable {
            relation: pair.target.name.clone(),
            rows: rows.unsigned_abs(),
            bytes: bytes.unsigned_abs(),
            sum: (!is_settled).then_some(RowSum { rows: rows.unsigned_abs(), sums }),
        });
        let until: Option<&str> = row.get(2);
        if let (Some(snapshot), Some(Ok(until))) = (row.get(1), until.map(str::parse)) {
            copied.rules.push(MergeRule {
                schema: pair.source.schema.clone(),
                table: pair.source.name.clone(),
                snapshot,
                until,
            });
        }
    }
    Ok(copied)
}

/// The server adds in `numeric`, which does not wrap as the sums do.
fn wrapped(sum: Option<&str>) -> u64 {
    // 32,768 ranges of 2^63 fit easily; the low half of the two's complement is the wrapped sum.
    sum.and_then(|sum| sum.parse::<i128>().ok()).unwrap_or(0) as u64
}
