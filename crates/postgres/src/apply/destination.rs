//! A table of the destination, as far as an applier must know it.

use std::collections::HashSet;

use crate::error::PgError;
use crate::pgoutput::{Relation, ReplicaIdentity};
use crate::quote;
use crate::session::Session;

/// The first OID that is not PostgreSQL's own: below it a type has the same OID and the same binary form everywhere.
const FIRST_OF_USERS: u32 = 16_384;

/// The table behind `$schema.$name`, then its columns, then what keeps rows apart, each column of each index a row.
///
/// Tried on 14 to 18. Source: "System Catalogs": `pg_attribute`, `pg_index`, `pg_amop` (strategy 3 of a B-tree is equality).
const COLUMNS: &str = "
    SELECT a.attname, a.atttypid, pg_catalog.format_type(a.atttypid, -1), a.attgenerated <> '', a.attidentity = 'a'
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $schema AND c.relname = $name AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum";
const INDEXES: &str = "
    SELECT i.indexrelid, i.indisprimary, i.indisunique, i.indimmediate,
        i.indpred IS NOT NULL OR i.indexprs IS NOT NULL, a.attname, coalesce(a.attnotnull, false), on_.nspname, o.oprname
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL pg_catalog.generate_series(0, i.indnkeyatts - 1) AS at
    LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[at] AND a.attnum > 0
    LEFT JOIN pg_catalog.pg_opclass AS k ON k.oid = i.indclass[at]
    LEFT JOIN pg_catalog.pg_amop AS m ON m.amopfamily = k.opcfamily AND m.amopmethod = 403 AND m.amopstrategy = 3
        AND m.amoplefttype = k.opcintype AND m.amoprighttype = k.opcintype
    LEFT JOIN pg_catalog.pg_operator AS o ON o.oid = m.amopopr
    LEFT JOIN pg_catalog.pg_namespace AS on_ ON on_.oid = o.oprnamespace
    WHERE n.nspname = $schema AND c.relname = $name AND i.indisvalid AND (i.indisunique OR i.indisexclusion)
    ORDER BY i.indisprimary DESC, i.indexrelid, at";

/// Where the changes of one relation go.
#[derive(Debug)]
pub(super) struct Destination {
    /// Quoted and qualified.
    pub name: String,
    /// For people.
    pub shown: String,
    /// One for each column of the relation.
    pub columns: Vec<Target>,
    /// Which of them are written: all but generated ones.
    pub written: Vec<usize>,
    /// What finds a row by an index; empty where rows are found by all their columns, or never.
    pub key: Vec<KeyColumn>,
    /// Something else than the key keeps rows apart at once, so that the order within a statement can matter.
    pub may_collide: bool,
    /// A column that is `GENERATED ALWAYS AS IDENTITY` and no key: no UPDATE may set it.
    pub always: bool,
    /// Quoted columns that the source does not have, and that are not generated.
    pub extra: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Target {
    /// Quoted.
    pub name: String,
    pub type_name: String,
    /// Whether the source's binary form is this type's.
    pub binary_fits: bool,
}

#[derive(Debug)]
pub(super) struct KeyColumn {
    /// Index into the relation's columns.
    pub column: usize,
    /// The index's own equality, as SQL: the search path is empty.
    pub equals: String,
}

/// Why a relation has no place.
#[derive(Debug)]
pub(super) enum Misfit {
    /// The table, or columns of it, are not there.
    Absent(String),
    Unfit(String),
    Failed(PgError),
}

struct Index {
    oid: String,
    unique: bool,
    immediate: bool,
    partial: bool,
    /// Name, not null, equality.
    columns: Vec<(Option<String>, bool, Option<String>)>,
}

/// Looks a table up.
pub(super) async fn find(session: &Session, relation: &Relation, schema: &str) -> Result<Destination, Misfit> {
    let unquotable = || Misfit::Unfit("its name holds a NUL byte".to_owned());
    let quoted = |name: &str| quote::ident(name).map_err(|_| unquotable());
    let literal = |text: &str| quote::literal(text).map_err(|_| unquotable());
    let (schema_sql, name_sql) = (literal(schema)?, literal(&relation.name)?);
    let filled = |sql: &str| sql.replace("$schema", &schema_sql).replace("$name", &name_sql);
    let answers = session.simple(&format!("{};{}", filled(COLUMNS), filled(INDEXES))).await.map_err(Misfit::Failed)?;
    let [columns, indexes] = answers.as_slice() else {
        return Err(Misfit::Unfit("the catalog gave no answer".to_owned()));
    };
    let text = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    if columns.rows.is_empty() {
        return Err(Misfit::Absent(format!("there is no table {schema}.{}", relation.name)));
    }
    let mut found = Vec::new();
    let mut written = Vec::new();
    let mut missing = Vec::new();
    let mut always = HashSet::new();
    for (at, column) in relation.columns.iter().enumerate() {
        let Some(row) = columns.rows.iter().find(|row| text(row, 0) == column.name) else {
            missing.push(format!("`{}`", column.name));
            continue;
        };
        let oid: u32 = text(row, 1).parse().unwrap_or_default();
        let both_of_users = oid >= FIRST_OF_USERS && column.type_oid >= FIRST_OF_USERS;
        found.push(Target {
            name: quoted(&column.name)?,
            type_name: text(row, 2),
            binary_fits: both_of_users || oid == column.type_oid,
        });
        if text(row, 3) == "f" {
            written.push(at);
        }
        if text(row, 4) == "t" {
            always.insert(at);
        }
    }
    if !missing.is_empty() {
        return Err(Misfit::Absent(format!("the destination has no column {}", missing.join(", "))));
    }
    if written.is_empty() {
        return Err(Misfit::Unfit("it has no column to write".to_owned()));
    }
    let indexes = grouped(&indexes.rows)?;
    let key_index = key_index(relation, &indexes);
    let wants_key = matches!(relation.identity, ReplicaIdentity::Default | ReplicaIdentity::Index)
        && relation.columns.iter().any(|column| column.is_key);
    if wants_key && key_index.is_none() {
        let names: Vec<_> =
            relation.columns.iter().filter(|column| column.is_key).map(|column| column.name.as_str()).collect();
        return Err(Misfit::Unfit(format!(
            "it needs a unique index on exactly the columns of the source's replica identity: {}",
            names.join(", ")
        )));
    }
    let mut key = Vec::new();
    for (name, _, equals) in key_index.map(|index| index.columns.as_slice()).unwrap_or_default() {
        let at = relation.columns.iter().position(|column| Some(&column.name) == name.as_ref());
        let (Some(column), Some(equals)) = (at, equals) else {
            return Err(Misfit::Unfit("the key's index has no equality".to_owned()));
        };
        key.push(KeyColumn { column, equals: equals.clone() });
    }
    let chosen = key_index.map(|index| index.oid.clone());
    let mut extra = Vec::new();
    for row in columns.rows.iter().filter(|row| text(row, 3) == "f") {
        if !relation.columns.iter().any(|column| column.name == text(row, 0)) {
            extra.push(quoted(&text(row, 0))?);
        }
    }
    Ok(Destination {
        name: format!("{}.{}", quoted(schema)?, quoted(&relation.name)?),
        shown: format!("{schema}.{}", relation.name),
        columns: found,
        written,
        may_collide: indexes.iter().any(|index| index.immediate && Some(&index.oid) != chosen.as_ref()),
        always: always.iter().any(|at| !key.iter().any(|key| key.column == *at)),
        key,
        extra,
    })
}

fn grouped(rows: &[Vec<Option<String>>]) -> Result<Vec<Index>, Misfit> {
    let mut indexes: Vec<Index> = Vec::new();
    for row in rows {
        let cell = |at: usize| row.get(at).cloned().flatten();
        let yes = |at: usize| cell(at).as_deref() == Some("t");
        let oid = cell(0).unwrap_or_default();
        let equals = match (cell(7), cell(8)) {
            (Some(schema), Some(operator)) => {
                let schema =
                    quote::ident(&schema).map_err(|_| Misfit::Unfit("a schema's name is broken".to_owned()))?;
                Some(format!("OPERATOR({schema}.{operator})"))
            }
            _ => None,
        };
        if indexes.last().is_none_or(|last| last.oid != oid) {
            let (unique, immediate, partial) = (yes(2), yes(3), yes(4));
            indexes.push(Index { oid, unique, immediate, partial, columns: Vec::new() });
        }
        if let Some(last) = indexes.last_mut() {
            last.columns.push((cell(5), yes(6), equals));
        }
    }
    Ok(indexes)
}

/// The index that finds rows: on just the columns of the identity; where the identity is the whole row, the primary key or
/// whatever else is unique and never null.
fn key_index<'a>(relation: &Relation, indexes: &'a [Index]) -> Option<&'a Index> {
    let whole = |index: &&Index| index.unique && index.immediate && !index.partial;
    let has = |name: &Option<String>| relation.columns.iter().any(|column| Some(&column.name) == name.as_ref());
    match relation.identity {
        ReplicaIdentity::Nothing => None,
        ReplicaIdentity::Full => indexes
            .iter()
            .filter(whole)
            .find(|index| index.columns.iter().all(|(name, not_null, _)| *not_null && has(name))),
        ReplicaIdentity::Default | ReplicaIdentity::Index => {
            let wanted: HashSet<&str> =
                relation.columns.iter().filter(|column| column.is_key).map(|column| column.name.as_str()).collect();
            indexes.iter().filter(whole).find(|index| {
                let names: HashSet<&str> = index.columns.iter().filter_map(|(name, ..)| name.as_deref()).collect();
                names.len() == index.columns.len() && names == wanted
            })
        }
    }
}

/// A column for which the stream must not be asked for binary values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextOnly {
    pub table: String,
    pub column: String,
    pub type_name: String,
}

/// Types whose binary form holds an OID of this very cluster, alone or inside an array, domain, range or composite type.
const TEXT_ONLY: &str = "
    WITH RECURSIVE part(relation, number, type) AS (
        SELECT a.attrelid, a.attnum, a.atttypid
        FROM pg_catalog.pg_attribute AS a
        JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = $schema AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
        UNION
        SELECT p.relation, p.number, inner_.type
        FROM part AS p JOIN pg_catalog.pg_type AS t ON t.oid = p.type
        CROSS JOIN LATERAL (
            SELECT t.typelem WHERE t.typcategory = 'A'
            UNION ALL SELECT t.typbasetype WHERE t.typbasetype <> 0
            UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
            UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute AS a
                WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        ) AS inner_(type)
    )
    SELECT DISTINCT c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)
    FROM part AS p
    JOIN pg_catalog.pg_class AS c ON c.oid = p.relation
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.relation AND a.attnum = p.number
    WHERE p.type::pg_catalog.regtype::text = ANY (ARRAY['regclass', 'regcollation', 'regconfig', 'regdictionary',
        'regnamespace', 'regoper', 'regoperator', 'regproc', 'regprocedure', 'regrole', 'regtype'])
    ORDER BY 1, 2";

/// The columns of a source's schema that forbid `binary 'true'` (the option is for a whole stream): those that hold the
/// OIDs of objects. All others may be sent as binary, if both servers are 14 or newer: enums go by their labels, and arrays
/// and composites of a user's types are taken although their OIDs differ.
///
/// # Errors
/// If the source cannot be asked.
pub async fn text_only_columns(source: &Session, schema: &str) -> Result<Vec<TextOnly>, PgError> {
    let schema = quote::literal(schema).map_err(|_| PgError::Options("a schema's name holds a NUL byte".to_owned()))?;
    let answers = source.simple(&TEXT_ONLY.replace("$schema", &schema)).await?;
    let rows = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    let text = |cell: Option<&Option<String>>| cell.cloned().flatten().unwrap_or_default();
    Ok(rows
        .iter()
        .map(|row| TextOnly { table: text(row.first()), column: text(row.get(1)), type_name: text(row.get(2)) })
        .collect())
}
