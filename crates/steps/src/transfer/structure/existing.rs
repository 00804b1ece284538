//! Tables that migrations have made in the target, checked against the source's.
//!
//! Nothing is converted in silence: a type that takes every value of the source's fits, one that takes most of them
//! needs a consent by name, any other is refused.

use std::collections::BTreeMap;

use pgrunbook_postgres::{Session, quote};

use super::super::error::TransferError;
use super::super::finding::{Finding, Severity};
use super::super::preflight::Wanted;

/// What was found, and what the base copy finds in its way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Existing {
    /// All of them, not just the first.
    pub findings: Vec<Finding>,
    /// Indexes that no constraint has made, by table: faster dropped before a big copy and made again.
    pub indexes: BTreeMap<String, Vec<Definition>>,
    /// Foreign keys, by table: they do not fire for a replica session, and are not checked by it.
    pub foreign_keys: BTreeMap<String, Vec<Definition>>,
}

/// An object by name, and the SQL that makes it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub name: String,
    pub sql: String,
}

/// Compares the tables that the source moves with those of the target's schema.
///
/// # Errors
/// If a server cannot be asked.
pub async fn check(source: &Session, target: &Session, wanted: &Wanted) -> Result<Existing, TransferError> {
    let mut existing = Existing::default();
    let from = tables(source, &wanted.source_schema).await?;
    let to = tables(target, &wanted.schema).await?;
    for (name, table) in from.iter().filter(|(name, _)| wanted.takes(name)) {
        match to.get(name) {
            Some(other) => compare(name, table, other, wanted, &mut existing.findings),
            None => existing.findings.push(
                Finding::new(
                    Severity::Refuse,
                    "existing-missing",
                    format!("table {}.{name}", wanted.schema),
                    "The source has it, and the target does not.",
                )
                .remedy("apply the migration that makes it; or name it under `exclude`"),
            ),
        }
    }
    for (name, table) in &to {
        let takes_part = from.contains_key(name) && wanted.takes(name);
        if takes_part && !table.partitioned {
            not_empty(target, name, wanted, &mut existing.findings).await?;
        }
        if takes_part {
            for (definitions, found) in [(INDEXES, &mut existing.indexes), (FOREIGN_KEYS, &mut existing.foreign_keys)] {
                let rows = target
                    .client()
                    .query(definitions, &[&wanted.schema, name])
                    .await
                    .map_err(|error| target.error(&error))?;
                let list: Vec<_> = rows.iter().map(|row| Definition { name: row.get(0), sql: row.get(1) }).collect();
                if !list.is_empty() {
                    found.insert(name.clone(), list);
                }
            }
        }
    }
    for (word, found) in [("indexes", &existing.indexes), ("foreign keys", &existing.foreign_keys)] {
        for (table, list) in found {
            let names: Vec<&str> = list.iter().map(|one| one.name.as_str()).collect();
            existing.findings.push(Finding::new(
                Severity::Note,
                if word == "indexes" { "existing-indexes" } else { "existing-foreign-keys" },
                format!("table {}.{table}", wanted.schema),
                format!("It has {word} already: {}.", names.join(", ")),
            ));
        }
    }
    Ok(existing)
}

/// Since this major version a publication can name columns.
const COLUMN_LISTS: i32 = 15;

struct Table {
    /// The server's major version.
    major: i32,
    partitioned: bool,
    unlogged: bool,
    /// Its replica identity is the whole row.
    full: bool,
    columns: BTreeMap<String, Column>,
    /// Primary key and unique constraints, without names: the columns' names.
    keys: Vec<String>,
}

struct Column {
    /// As `format_type` prints it, without a schema; the modifier in parentheses.
    kind: String,
    not_null: bool,
    generated: bool,
    identity: bool,
    /// It gets a value where none is given.
    filled: bool,
    /// Labels of an enum, definition of a domain: what a name alone does not say.
    meaning: String,
}

const COLUMNS: &str = "SELECT c.relname::text, c.relkind = 'p', a.attname::text,
    CASE WHEN tn.nspname = $1::text OR tn.nspname NOT IN ('pg_catalog') THEN
        coalesce(e.typname || '[]', t.typname::text)
        || coalesce(pg_catalog.substring(pg_catalog.format_type(a.atttypid, a.atttypmod), '\\(.*\\)'), '')
    ELSE pg_catalog.format_type(a.atttypid, a.atttypmod) END,
    a.attnotnull, a.attgenerated <> '', a.attidentity <> '', a.atthasdef OR a.attidentity <> '',
    coalesce((SELECT pg_catalog.string_agg(pg_catalog.quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder)
              FROM pg_catalog.pg_enum AS l WHERE l.enumtypid IN (t.oid, t.typelem)), '')
    || coalesce((SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(k.oid), ', ' ORDER BY k.conname)
              FROM pg_catalog.pg_constraint AS k WHERE k.contypid = t.oid AND k.contype = 'c'), '')
    || CASE WHEN t.typtype = 'd' THEN ' ' || pg_catalog.format_type(t.typbasetype, t.typtypmod) ELSE '' END
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND t.typlen = -1
WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p')
ORDER BY c.relname, a.attnum";

const EMPTY_TABLES: &str =
    "SELECT c.relname::text, c.relkind = 'p', c.relkind = 'r' AND c.relpersistence = 'u', c.relreplident = 'f',
    pg_catalog.current_setting('server_version_num')::int / 10000
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p')";

/// Expression and partial unique indexes hold by their text; the schema's name is taken out of it.
const KEYS: &str = "SELECT c.relname::text,
    CASE WHEN i.indisprimary THEN 'PRIMARY KEY ' ELSE 'UNIQUE ' END || pg_catalog.replace(
        pg_catalog.substring(pg_catalog.pg_get_indexdef(i.indexrelid), ' USING (.*)$'), pg_catalog.quote_ident($1) || '.', '')
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND i.indisunique AND i.indisvalid AND c.relkind IN ('r', 'p')
ORDER BY 1, 2";

const INDEXES: &str = "SELECT x.relname::text, pg_catalog.pg_get_indexdef(i.indexrelid)
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
WHERE n.nspname = $1::text AND c.relname = $2 AND NOT i.indisreplident
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
ORDER BY 1";

const FOREIGN_KEYS: &str = "SELECT k.conname::text,
    pg_catalog.format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', n.nspname, c.relname, k.conname,
        pg_catalog.pg_get_constraintdef(k.oid))
FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND c.relname = $2 AND k.contype = 'f' AND k.conparentid = 0
ORDER BY 1";

async fn tables(session: &Session, schema: &String) -> Result<BTreeMap<String, Table>, TransferError> {
    let query = async |sql| session.client().query(sql, &[schema]).await.map_err(|error| session.error(&error));
    let mut tables: BTreeMap<String, Table> = query(EMPTY_TABLES)
        .await?
        .iter()
        .map(|row| {
            let (partitioned, unlogged, full, major) = (row.get(1), row.get(2), row.get(3), row.get(4));
            (row.get(0), Table { major, partitioned, unlogged, full, columns: BTreeMap::new(), keys: Vec::new() })
        })
        .collect();
    for row in query(COLUMNS).await? {
        let column = Column {
            kind: row.get(3),
            not_null: row.get(4),
            generated: row.get(5),
            identity: row.get(6),
            filled: row.get(7),
            meaning: row.get(8),
        };
        if let Some(table) = tables.get_mut(row.get::<_, &str>(0)) {
            table.columns.insert(row.get(2), column);
        }
    }
    for row in query(KEYS).await? {
        if let Some(table) = tables.get_mut(row.get::<_, &str>(0)) {
            table.keys.push(row.get(1));
        }
    }
    Ok(tables)
}

fn compare(name: &str, from: &Table, to: &Table, wanted: &Wanted, findings: &mut Vec<Finding>) {
    let object = format!("table {}.{name}", wanted.schema);
    let of = |column: &str| format!("column {}.{name}.{column}", wanted.schema);
    if from.partitioned != to.partitioned {
        let what = match from.partitioned {
            true => "The source's is partitioned, and this one is not: rows are taken from the leaves.",
            false => "It is partitioned, and the source's is not.",
        };
        findings.push(
            Finding::new(Severity::Consent("partition-shape"), "existing-partitions", object.clone(), what)
                .remedy("make both alike by a migration; or, if it is meant, accept `partition-shape`"),
        );
    }
    if to.unlogged && !from.unlogged {
        let what = "It is UNLOGGED, and the source's is not: a crash empties it, and nothing of it can flow back.";
        findings.push(
            Finding::new(Severity::Refuse, "existing-unlogged", object.clone(), what)
                .remedy(format!("ALTER TABLE {}.{name} SET LOGGED, by a migration", wanted.schema)),
        );
    }
    for (column, kind) in &from.columns {
        let Some(other) = to.columns.get(column) else {
            let severity = if kind.generated { Severity::Note } else { Severity::Refuse };
            findings.push(
                Finding::new(
                    severity,
                    "existing-column-missing",
                    of(column),
                    "The source has it, and the target does not.",
                )
                .remedy("add it by a migration"),
            );
            continue;
        };
        if kind.generated != other.generated {
            let (severity, what) = match other.generated {
                true => (Severity::Refuse, "It is generated, and the source's holds values: they could not be kept."),
                false => (Severity::Refuse, "The source's is generated, and this one is not: nothing would fill it."),
            };
            findings.push(Finding::new(severity, "existing-generated", of(column), what).remedy("make both alike"));
            continue;
        }
        types(&of(column), kind, other, findings);
        if other.not_null && !kind.not_null && !kind.generated {
            findings.push(
                Finding::new(
                    Severity::Consent("not-null"),
                    "existing-not-null",
                    of(column),
                    "It is NOT NULL, and the source's may hold NULL: one such row stops the copy.",
                )
                .remedy("ALTER COLUMN ... SET NOT NULL at the source, or drop it here"),
            );
        } else if !other.not_null && kind.not_null {
            findings.push(
                Finding::new(
                    Severity::Warn,
                    "existing-null",
                    of(column),
                    "The source's is NOT NULL, and this one is not.",
                )
                .remedy("ALTER COLUMN ... SET NOT NULL"),
            );
        }
        if kind.identity != other.identity {
            let what = "Of the two one is an identity column, and the other is not.";
            let remedy = match kind.identity {
                true => {
                    "if the application lets the server number its rows: ALTER COLUMN ... ADD GENERATED BY DEFAULT AS IDENTITY"
                }
                false => "if the application numbers its rows itself: ALTER COLUMN ... DROP IDENTITY",
            };
            findings.push(Finding::new(Severity::Warn, "existing-identity", of(column), what).remedy(remedy));
        }
    }
    for (column, kind) in to.columns.iter().filter(|(column, _)| !from.columns.contains_key(*column)) {
        if kind.not_null && !kind.filled && !kind.generated {
            findings.push(
                Finding::new(
                    Severity::Refuse,
                    "existing-extra-column",
                    of(column),
                    "The source does not have it, it is NOT NULL and has no default: no row could be copied.",
                )
                .remedy("give it a default, or let it be NULL"),
            );
        } else if wanted.reverse && (to.major < COLUMN_LISTS || to.full) {
            let why = match to.full {
                true => "by a FULL replica identity no column can be left".to_owned(),
                false => format!("PostgreSQL {} cannot leave a column", to.major),
            };
            let what = format!("The source does not have it, and {why} out of what flows back.");
            findings.push(
                Finding::new(Severity::Refuse, "existing-extra-column", of(column), what)
                    .remedy("add it by a migration after the switch; or `reverse = false`, and no way back"),
            );
        } else {
            let what = "The source does not have it: it holds its default, or NULL, and does not flow back.";
            findings.push(Finding::new(Severity::Note, "existing-extra-column", of(column), what));
        }
    }
    for key in from.keys.iter().filter(|key| !to.keys.contains(key)) {
        let severity = if key.starts_with("PRIMARY") { Severity::Refuse } else { Severity::Warn };
        let what = format!("The source has {key}, and the target does not.");
        findings.push(Finding::new(severity, "existing-key", object.clone(), what).remedy("add it by a migration"));
    }
    for key in to.keys.iter().filter(|key| !from.keys.contains(key)) {
        let what = format!("It has {key}, and the source does not: two rows of the source may collide.");
        findings.push(
            Finding::new(Severity::Consent("more-unique"), "existing-key", object.clone(), what).remedy(
                "give the source the same key, which shows whether rows collide, and then accept `more-unique`; or drop it here",
            ),
        );
    }
}

/// How a type of the source fits one of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Equal,
    /// Takes every value, and gives another type back: a decision of a person.
    Wider,
    No,
}

fn types(object: &str, from: &Column, to: &Column, findings: &mut Vec<Finding>) {
    let (severity, what) = match fit(&from.kind, &to.kind) {
        Fit::Equal if from.meaning == to.meaning => return,
        Fit::Equal => (
            Severity::Refuse,
            format!("Both are {}, which means [{}] at the source and [{}] here.", from.kind, from.meaning, to.meaning),
        ),
        Fit::Wider => (
            Severity::Consent("wider-type"),
            format!(
                "It is {}, which takes every value of the source's {}; flowing back, a value may not fit.",
                to.kind, from.kind
            ),
        ),
        Fit::No => (Severity::Refuse, format!("It is {}, and the source's is {}.", to.kind, from.kind)),
    };
    findings.push(Finding::new(severity, "existing-type", object, what).remedy("make both alike by a migration"));
}

/// The list of what fits: equal; integers into longer ones and into numeric without limits; strings into longer ones and into
/// text; numeric into wider numeric of the same scale; times into finer ones; json into jsonb does not (it forgets).
fn fit(from: &str, to: &str) -> Fit {
    if from == to {
        return Fit::Equal;
    }
    let (from_name, from_size) = parts(from);
    let (to_name, to_size) = parts(to);
    let integer = |name: &str| ["smallint", "integer", "bigint"].iter().position(|one| *one == name);
    let wider = match (from_name.as_str(), to_name.as_str()) {
        (a, b) if integer(a).is_some() && integer(b).is_some() => integer(a) < integer(b),
        (a, "numeric") if integer(a).is_some() => to_size.is_empty(),
        ("real", "double precision") => true,
        ("character varying", "text") => true,
        ("character varying", "character varying") => longer(&from_size, &to_size),
        ("numeric", "numeric") => {
            to_size.is_empty()
                || matches!((from_size.as_slice(), to_size.as_slice()), ([p, s], [q, t]) if t == s && q >= p)
        }
        (a, b) if a == b && (a.starts_with("time") || a == "interval") => longer(&from_size, &to_size),
        _ => false,
    };
    if wider { Fit::Wider } else { Fit::No }
}

/// Without a size there is no limit.
fn longer(from: &[u32], to: &[u32]) -> bool {
    match (from, to) {
        (_, []) => true,
        ([from], [to]) => to >= from,
        _ => false,
    }
}

/// `numeric(10,2)` is `numeric` and 10, 2; `timestamp(3) with time zone` is that without its 3, and 3.
fn parts(kind: &str) -> (String, Vec<u32>) {
    let Some((before, rest)) = kind.split_once('(') else { return (kind.to_owned(), Vec::new()) };
    let Some((size, after)) = rest.split_once(')') else { return (kind.to_owned(), Vec::new()) };
    (format!("{before}{after}"), size.split(',').filter_map(|part| part.trim().parse().ok()).collect())
}

async fn not_empty(
    target: &Session,
    name: &str,
    wanted: &Wanted,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    let object = format!("table {}.{name}", wanted.schema);
    let (Ok(schema), Ok(table)) = (quote::ident(&wanted.schema), quote::ident(name)) else { return Ok(()) };
    match target.value(&format!("SELECT EXISTS (SELECT FROM {schema}.{table})")).await {
        Ok(answer) if answer == "t" => findings.push(
            Finding::new(
                Severity::Refuse,
                "existing-rows",
                object,
                "It holds rows: whose they are nobody could tell later.",
            )
            .remedy(format!("TRUNCATE {schema}.{table}, if nobody needs them")),
        ),
        Ok(_) => {}
        Err(error) if error.sqlstate() == Some("42501") => findings.push(
            Finding::new(Severity::Refuse, "existing-no-select", object, "The role may not read it.").remedy(format!(
                "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {schema}.{table} TO {}",
                target.options().user
            )),
        ),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_a_list() {
        for (from, to, expected) in [
            ("integer", "integer", Fit::Equal),
            ("integer", "bigint", Fit::Wider),
            ("bigint", "integer", Fit::No),
            ("smallint", "numeric", Fit::Wider),
            ("smallint", "numeric(5,0)", Fit::No),
            ("real", "double precision", Fit::Wider),
            ("double precision", "real", Fit::No),
            ("character varying(10)", "text", Fit::Wider),
            ("character varying(10)", "character varying(20)", Fit::Wider),
            ("character varying(20)", "character varying(10)", Fit::No),
            ("character varying", "character varying(10)", Fit::No),
            ("character(3)", "text", Fit::No),
            ("numeric(10,2)", "numeric(12,2)", Fit::Wider),
            ("numeric(10,2)", "numeric(12,4)", Fit::No),
            ("numeric", "numeric(10,2)", Fit::No),
            ("timestamp(3) with time zone", "timestamp with time zone", Fit::Wider),
            ("timestamp without time zone", "timestamp with time zone", Fit::No),
            ("json", "jsonb", Fit::No),
            ("mood", "text", Fit::No),
        ] {
            assert_eq!(fit(from, to), expected, "{from} -> {to}");
        }
    }
}
