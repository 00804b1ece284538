//! The target's statistics, copied to a throwaway server, so that its planner plans as the target's would.
//!
//! Three things make a plan: how many blocks a relation has, how many rows (`pg_class`), and what stands in its columns
//! (`pg_statistic`, <https://www.postgresql.org/docs/current/planner-stats-details.html>). The planner asks the file system for the
//! first: files are made as long as the target's, with holes that take no room. The values in column statistics may be anybody's
//! secrets: they go from one server to the other, and into no text.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;

use pgrunbook_postgres::{PgError, Session, quote};

/// Bytes of a segment of a relation's file: 1 GB, as every build has it that is installed from packages.
const SEGMENT: u64 = 1 << 30;

/// Whether values of columns are copied as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    Copied,
    LeftOut,
}

/// How much was copied.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Copied {
    /// Rows by relation, of those that were analysed.
    pub rows: BTreeMap<String, f64>,
    pub columns: usize,
    /// What the throwaway server took for nothing it knows.
    pub refused: usize,
}

/// Relations and their indexes: name, rows, pages with rows that all see, blocks, and the size of one.
const RELATIONS: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.reltuples, c.relpages, c.relallvisible,
    pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int
FROM (VALUES NAMES) AS w(name)
CROSS JOIN LATERAL (SELECT pg_catalog.to_regclass(w.name)::oid AS oid) AS o
JOIN pg_catalog.pg_class AS c ON c.oid = o.oid OR c.oid IN (SELECT i.indexrelid FROM pg_catalog.pg_index AS i WHERE i.indrelid = o.oid)
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'i')";

/// Sets what `pg_class` has of a relation, and says where its file is. A superuser may; no other setting is needed.
const SET_RELATION: &str =
    "WITH set AS (UPDATE pg_catalog.pg_class SET reltuples = ROWS, relpages = PAGES, relallvisible = VISIBLE
    WHERE oid = pg_catalog.to_regclass(NAME)::oid RETURNING oid)
SELECT pg_catalog.pg_relation_filepath(set.oid), pg_catalog.current_setting('block_size') FROM set";

/// Column statistics of relations, as far as the role may read the columns.
const COLUMNS: &str = "SELECT pg_catalog.quote_ident(s.schemaname) || '.' || pg_catalog.quote_ident(s.tablename), s.schemaname, s.tablename,
    s.attname, s.inherited, s.null_frac, s.avg_width, s.n_distinct, s.most_common_vals::text, s.most_common_freqs::text,
    s.histogram_bounds::text, s.correlation
FROM pg_catalog.pg_stats AS s
WHERE pg_catalog.format('%I.%I', s.schemaname, s.tablename) IN (NAMES)";

/// PostgreSQL 18 and newer: <https://www.postgresql.org/docs/18/functions-admin.html#FUNCTIONS-ADMIN-STATSMOD>.
const RESTORE: &str = "SELECT pg_catalog.pg_restore_attribute_stats('schemaname', $1::text, 'relname', $2::text, 'attname', $3::text,
    'inherited', $4::text::boolean, 'version', pg_catalog.current_setting('server_version_num')::int, 'null_frac', $5::text::real,
    'avg_width', $6::text::int, 'n_distinct', $7::text::real, 'most_common_vals', $8::text,
    'most_common_freqs', $9::text::real[], 'histogram_bounds', $10::text, 'correlation', $11::text::real)";

/// Older ones have no function for it. `array_in` makes what `anyarray` itself does not read; the slots and operators are those of
/// `std_typanalyze` (<https://www.postgresql.org/docs/current/catalog-pg-statistic.html>).
const INSERT: &str = "WITH col AS (
    SELECT a.attrelid, a.attnum, a.atttypid, a.atttypmod, a.attcollation,
        CASE WHEN t.typtype = 'e' THEN 'pg_catalog.anyenum'::pg_catalog.regtype
             WHEN t.typtype = 'r' THEN 'pg_catalog.anyrange'::pg_catalog.regtype
             WHEN t.typcategory = 'A' THEN 'pg_catalog.anyarray'::pg_catalog.regtype
             WHEN b.oid = 'pg_catalog.varchar'::pg_catalog.regtype THEN 'pg_catalog.text'::pg_catalog.regtype
             ELSE b.oid END AS compared
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_type AS b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
    WHERE a.attrelid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', $1::text, $2::text)) AND a.attname = $3::text
        AND NOT a.attisdropped
), operators AS (
    SELECT col.*,
        (SELECT o.amopopr FROM pg_catalog.pg_opclass AS k JOIN pg_catalog.pg_amop AS o ON o.amopfamily = k.opcfamily
         WHERE k.opcdefault AND k.opcmethod = 403 AND k.opcintype = col.compared AND o.amopstrategy = 3
             AND o.amoplefttype = k.opcintype AND o.amoprighttype = k.opcintype) AS equal,
        (SELECT o.amopopr FROM pg_catalog.pg_opclass AS k JOIN pg_catalog.pg_amop AS o ON o.amopfamily = k.opcfamily
         WHERE k.opcdefault AND k.opcmethod = 403 AND k.opcintype = col.compared AND o.amopstrategy = 1
             AND o.amoplefttype = k.opcintype AND o.amoprighttype = k.opcintype) AS less
    FROM col
)
INSERT INTO pg_catalog.pg_statistic (starelid, staattnum, stainherit, stanullfrac, stawidth, stadistinct,
    stakind1, stakind2, stakind3, stakind4, stakind5, staop1, staop2, staop3, staop4, staop5,
    stacoll1, stacoll2, stacoll3, stacoll4, stacoll5, stanumbers1, stanumbers3, stavalues1, stavalues2)
SELECT attrelid, attnum, $4::text::boolean, $5::text::real, $6::text::int, $7::text::real,
    CASE WHEN $8::text IS NOT NULL AND equal IS NOT NULL THEN 1 ELSE 0 END,
    CASE WHEN $10::text IS NOT NULL AND less IS NOT NULL THEN 2 ELSE 0 END,
    CASE WHEN $11::text IS NOT NULL AND less IS NOT NULL THEN 3 ELSE 0 END, 0, 0,
    CASE WHEN $8::text IS NOT NULL AND equal IS NOT NULL THEN equal ELSE 0 END,
    CASE WHEN $10::text IS NOT NULL AND less IS NOT NULL THEN less ELSE 0 END,
    CASE WHEN $11::text IS NOT NULL AND less IS NOT NULL THEN less ELSE 0 END, 0, 0,
    CASE WHEN $8::text IS NOT NULL AND equal IS NOT NULL THEN attcollation ELSE 0 END,
    CASE WHEN $10::text IS NOT NULL AND less IS NOT NULL THEN attcollation ELSE 0 END,
    CASE WHEN $11::text IS NOT NULL AND less IS NOT NULL THEN attcollation ELSE 0 END, 0, 0,
    CASE WHEN $8::text IS NOT NULL AND equal IS NOT NULL THEN $9::text::real[] END,
    CASE WHEN $11::text IS NOT NULL AND less IS NOT NULL THEN ARRAY[$11::text::real] END,
    CASE WHEN $8::text IS NOT NULL AND equal IS NOT NULL
         THEN pg_catalog.array_in(pg_catalog.textout($8::text), atttypid, atttypmod) END,
    CASE WHEN $10::text IS NOT NULL AND less IS NOT NULL
         THEN pg_catalog.array_in(pg_catalog.textout($10::text), atttypid, atttypmod) END
FROM operators";

/// What a migration's own ANALYZE made.
const FORGET: &str = "DELETE FROM pg_catalog.pg_statistic AS s
WHERE s.starelid IN (SELECT pg_catalog.to_regclass(w.name)::oid FROM pg_catalog.unnest(ARRAY[NAMES]::text[]) AS w(name))";

type Row = Vec<Option<String>>;

async fn rows(session: &Session, sql: &str) -> Result<Vec<Row>, PgError> {
    Ok(session.simple(sql).await?.into_iter().flat_map(|answer| answer.rows).collect())
}

/// Copies the statistics of relations, named with their schemas, from the target to a throwaway server on which `admin` is
/// superuser and whose data directory is `data`. The files there are not to be read afterwards: they are full of holes.
pub(super) async fn copy(
    live: &Session,
    admin: &Session,
    data: &Path,
    names: &[String],
    columns: Columns,
) -> Result<Copied, PgError> {
    let mut copied = Copied::default();
    if names.is_empty() {
        return Ok(copied);
    }
    let literals: Vec<String> = names.iter().map(|name| quote::literal(name).unwrap_or_default()).collect();
    let listed: Vec<String> = literals.iter().map(|name| format!("({name})")).collect();
    for row in rows(live, &RELATIONS.replace("NAMES", &listed.join(", "))).await? {
        let [Some(name), Some(tuples), Some(pages), Some(visible), Some(blocks)] = &row[..] else { continue };
        // Numbers of the target's server, and nothing else, go into the text.
        let numbers = (tuples.parse::<f64>(), pages.parse::<i64>(), visible.parse::<i64>(), blocks.parse::<u64>());
        let (Ok(tuples), Ok(pages), Ok(visible), Ok(blocks)) = numbers else { continue };
        let sql = SET_RELATION
            .replace("ROWS", &tuples.to_string())
            .replace("PAGES", &pages.to_string())
            .replace("VISIBLE", &visible.to_string())
            .replace("NAME", &quote::literal(name).unwrap_or_default());
        let Some(set) = rows(admin, &sql).await?.into_iter().next() else { continue };
        let [Some(path), Some(block_size)] = &set[..] else { continue };
        let bytes = blocks.saturating_mul(block_size.parse().unwrap_or(8192));
        match lengthen(&data.join(path), bytes) {
            Ok(()) if tuples >= 0.0 => drop(copied.rows.insert(name.clone(), tuples)),
            Ok(()) => {}
            Err(_) => copied.refused += 1,
        }
    }
    if columns == Columns::Copied {
        let major: u32 = admin.value("SHOW server_version_num").await?.parse().unwrap_or(0) / 10_000;
        let statement = if major >= 18 {
            RESTORE
        } else {
            admin.execute(&FORGET.replace("NAMES", &literals.join(", "))).await?;
            INSERT
        };
        for row in rows(live, &COLUMNS.replace("NAMES", &literals.join(", "))).await? {
            let values: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
                row[1..].iter().map(|cell| cell as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
            // Why not may hold a value: that it was not is enough.
            match admin.client().execute(statement, &values).await {
                Ok(_) => copied.columns += 1,
                Err(_) => copied.refused += 1,
            }
        }
    }
    Ok(copied)
}

/// Makes a relation's file at least so long, by holes: a block of zeroes is one without rows.
fn lengthen(path: &Path, bytes: u64) -> std::io::Result<()> {
    let mut left = bytes;
    for number in 0.. {
        let mut name = path.as_os_str().to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        let part = left.min(SEGMENT);
        let file = OpenOptions::new().write(true).create(number > 0).truncate(false).open(&name)?;
        if number > 0 {
            own_as(Path::new(&name), path)?;
        }
        if file.metadata()?.len() < part {
            file.set_len(part)?;
        }
        left -= part;
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// A further segment belongs to whom the first belongs to.
fn own_as(path: &Path, first: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let facts = std::fs::metadata(first)?;
    std::os::unix::fs::chown(path, Some(facts.uid()), Some(facts.gid()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}
