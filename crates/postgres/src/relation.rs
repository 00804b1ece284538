//! The tables of a schema as a transfer needs them: columns, keys, sizes, and how each value travels.
//!
//! Values travel as binary COPY carries them. That is exact and the same in two databases, with two exceptions, both of
//! which are found here by walking through the parts of each type. Some types cannot travel so ([`Travels::Text`]); and
//! arrays and composites name the types of their parts by OID, which for a user's types differs between databases
//! ([`Shape`]): the server ignores it when it reads, and hashes must do so too.
//!
//! Sources: `pg_class`, `pg_attribute`, `pg_index`, `pg_type` and `pg_range` in PostgreSQL's documentation, "System
//! Catalogs"; for the binary forms `array_send`, `record_send`, `range_send` and `multirange_send`. Tried on 14 to 18.

use std::collections::HashMap;

use crate::error::PgError;
use crate::quote;
use crate::session::Session;

/// Below it OIDs are PostgreSQL's own and the same in every database (`FirstNormalObjectId`).
pub const FIRST_USER_OID: u32 = 16384;

/// A type's parts are followed so deep. The server has no types that contain themselves.
const DEPTH: usize = 64;

/// Which tables of a schema.
#[derive(Debug, Clone, Copy)]
pub enum Filter<'a> {
    All,
    /// Those of these names; what there is not is left out.
    Named(&'a [String]),
}

/// A table that holds rows, or stands for those that do.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub oid: u32,
    pub kind: TableKind,
    /// Not written to the write-ahead log: its changes are in no stream.
    pub is_unlogged: bool,
    /// Blocks of the main fork now, not when it was last analysed.
    pub pages: u64,
    /// As of the last ANALYZE or VACUUM; none if there was none.
    pub rows_estimate: Option<f64>,
    /// Of the main fork, its maps and what is out of line; without indexes.
    pub bytes: u64,
    pub columns: Vec<Column>,
    /// The primary key; else the narrowest unique index that identifies every row.
    pub key: Option<Key>,
}

/// What sort of table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableKind {
    /// Holds its rows itself. So does one that others inherit from: read it with `ONLY`.
    Ordinary,
    /// Holds no rows: its leaves do.
    Partitioned,
    /// A partition that holds rows, and the topmost table above it.
    Leaf { root_schema: String, root: String },
    /// Its rows are elsewhere.
    Foreign,
}

/// A column that is not dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `attnum`: counts dropped columns, too.
    pub number: i16,
    /// As SQL names it, with its modifier; a user's type with its schema.
    pub type_name: String,
    pub type_oid: u32,
    pub type_kind: TypeKind,
    pub not_null: bool,
    pub generated: Generated,
    pub identity: Identity,
    /// With its schema, quoted; none where the type has none.
    pub collation: Option<String>,
    pub travels: Travels,
    /// Of the binary form in which it travels.
    pub shape: Shape,
}

/// `pg_type.typtype`, and arrays by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeKind {
    Base,
    Array,
    Composite,
    Domain,
    Enum,
    Range,
    Multirange,
    Pseudo,
}

/// Whether the server computes the column from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generated {
    No,
    Stored,
    /// From 18 on.
    Virtual,
}

/// Whether it is an identity column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    No,
    /// An INSERT needs `OVERRIDING SYSTEM VALUE`; COPY does not.
    Always,
    ByDefault,
}

/// How a column's values get from one database into another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Travels {
    /// By its send and receive functions.
    Binary,
    /// As text, since its binary form does not exist (`aclitem`) or is an OID that means another object there (`regclass`).
    ///
    /// Names in it are relative to `search_path`: with the transfer's own schema in it on both sides, `public.t` at the
    /// source is `t`, and that is `health.t` at the target.
    Text,
    /// Not at all: it is generated.
    Not,
}

/// Where in a value's binary form OIDs of types are that differ between databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Nowhere.
    Plain,
    /// In the array's header, and in its elements.
    Array(Box<Self>),
    /// Before each field, and in it.
    Record(Vec<Self>),
    /// In its bounds.
    Range(Box<Self>),
    /// In the bounds of its ranges.
    Multirange(Box<Self>),
}

/// What identifies each row: a valid unique index over columns that are never NULL, without expressions or a condition,
/// and not deferrable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub columns: Vec<String>,
    pub is_primary: bool,
    pub index: String,
}

impl Table {
    /// Its name as SQL has it, with its schema.
    pub fn sql(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.name))
    }

    /// Whether rows are in it that a transfer reads.
    pub fn holds_rows(&self) -> bool {
        matches!(self.kind, TableKind::Ordinary | TableKind::Leaf { .. })
    }

    /// The columns that travel.
    pub fn travelling(&self) -> impl Iterator<Item = &Column> {
        travelling(&self.columns)
    }
}

impl Column {
    /// Its value as the transfer reads it.
    pub fn select(&self) -> String {
        match self.travels {
            Travels::Text => format!("{}::pg_catalog.text", ident(&self.name)),
            Travels::Binary | Travels::Not => ident(&self.name),
        }
    }
}

/// The columns that travel.
pub fn travelling(columns: &[Column]) -> impl Iterator<Item = &Column> {
    columns.iter().filter(|column| column.travels != Travels::Not)
}

/// What is read of a table, for `COPY (SELECT <this> FROM ...) TO STDOUT (FORMAT binary)`: generated columns left out, and
/// those that travel as text cast to it. Empty for a table without columns.
pub fn select_list(columns: &[Column]) -> String {
    travelling(columns).map(Column::select).collect::<Vec<_>>().join(", ")
}

/// The names of the same columns in the same order, for `INSERT` and `COPY ... FROM`.
pub fn column_list(columns: &[Column]) -> String {
    travelling(columns).map(|column| ident(&column.name)).collect::<Vec<_>>().join(", ")
}

/// A name from the catalog, which holds no NUL.
fn ident(name: &str) -> String {
    quote::ident(name).unwrap_or_else(|_| quote::ident(&name.replace('\0', "")).expect("NUL was taken out"))
}

/// Extensions' own tables are theirs to fill.
const TABLES: &str = "
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relispartition, c.relpersistence = 'u',
    coalesce(pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8, 0),
    c.reltuples::float8, coalesce(pg_catalog.pg_table_size(c.oid), 0), rn.nspname::text, rc.relname::text
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class AS rc ON c.relispartition AND rc.oid = pg_catalog.pg_partition_root(c.oid)
LEFT JOIN pg_catalog.pg_namespace AS rn ON rn.oid = rc.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
  AND ($2::text[] IS NULL OR c.relname = ANY ($2))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relname";

const COLUMNS: &str = "
SELECT a.attrelid, a.attnum, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid, a.attnotnull,
    a.attgenerated::text, a.attidentity::text,
    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(l.collname)
FROM pg_catalog.pg_attribute AS a
LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = l.collnamespace
WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum";

/// The best first.
const KEYS: &str = "
SELECT i.indrelid, i.indisprimary, x.relname::text, k.columns
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
CROSS JOIN LATERAL (
    SELECT pg_catalog.array_agg(a.attname::text ORDER BY u.place) AS columns, pg_catalog.bool_and(a.attnotnull) AS not_null
    FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS u(number, place)
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.number
    WHERE u.place <= i.indnkeyatts
) AS k
WHERE i.indrelid = ANY ($1) AND i.indisunique AND i.indisvalid AND i.indimmediate AND NOT i.indisexclusion
  AND i.indpred IS NULL AND i.indexprs IS NULL AND k.not_null
ORDER BY i.indrelid, i.indisprimary DESC, i.indnkeyatts, x.relname";

/// The types asked for and all that they are made of. (A domain has its base type's send function.) A part list's order is that of the composite's columns.
const TYPES: &str = "
WITH RECURSIVE part(whole, place, oid) AS (
    SELECT 0::oid, 0, t FROM pg_catalog.unnest($1::oid[]) AS t
    UNION
    SELECT y.oid, p.place, p.oid
    FROM part JOIN pg_catalog.pg_type AS y ON y.oid = part.oid
    CROSS JOIN LATERAL (
        SELECT 0, y.typelem WHERE y.typtype = 'b' AND y.typsend = 'pg_catalog.array_send'::pg_catalog.regproc
        UNION ALL
        SELECT 0, y.typbasetype WHERE y.typtype = 'd'
        UNION ALL
        SELECT a.attnum::int4, a.atttypid FROM pg_catalog.pg_attribute AS a
        WHERE y.typtype = 'c' AND a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT 0, r.rngsubtype FROM pg_catalog.pg_range AS r WHERE r.rngtypid = y.oid
        UNION ALL
        SELECT 0, r.rngtypid FROM pg_catalog.pg_range AS r WHERE r.rngmultitypid = y.oid
    ) AS p(place, oid)
)
SELECT y.oid,
    CASE WHEN y.typtype = 'b' AND y.typsend = 'pg_catalog.array_send'::pg_catalog.regproc THEN 'a' ELSE y.typtype::text END,
    y.typsend = 0 OR y.typreceive = 0
        OR (y.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND y.typname ~ '^reg' AND y.typcategory = 'N'),
    coalesce((SELECT pg_catalog.array_agg(p.oid ORDER BY p.place) FROM part AS p WHERE p.whole = y.oid), '{}'::oid[])
FROM pg_catalog.pg_type AS y WHERE y.oid IN (SELECT oid FROM part)";

/// Describes the tables of a schema, by name.
///
/// # Errors
/// If the catalogs cannot be read.
pub async fn describe(session: &Session, schema: &str, filter: Filter<'_>) -> Result<Vec<Table>, PgError> {
    // Types are named with their schema only where it is not searched.
    let path = session.value("SELECT pg_catalog.current_setting('search_path')").await?;
    let set = |path: &str| {
        let path = quote::literal(path).expect("a setting holds no NUL");
        format!("SELECT pg_catalog.set_config('search_path', {path}, false)")
    };
    session.value(&set("pg_catalog")).await?;
    let tables = read(session, schema, filter).await;
    // In a transaction that failed the setting goes back with it.
    let restored = session.value(&set(&path)).await;
    let tables = tables?;
    restored?;
    Ok(tables)
}

async fn read(session: &Session, schema: &str, filter: Filter<'_>) -> Result<Vec<Table>, PgError> {
    let client = session.client();
    let failed = |error: tokio_postgres::Error| session.error(&error);
    let named = match filter {
        Filter::All => None,
        Filter::Named(names) => Some(names),
    };
    let mut tables = Vec::new();
    for row in client.query(TABLES, &[&schema, &named]).await.map_err(failed)? {
        let kind: &str = row.get(3);
        let is_partition: bool = row.get(4);
        let (pages, bytes): (i64, i64) = (row.get(6), row.get(8));
        let estimate: f64 = row.get(7);
        tables.push(Table {
            oid: row.get(0),
            schema: row.get(1),
            name: row.get(2),
            kind: match kind {
                "p" => TableKind::Partitioned,
                "f" => TableKind::Foreign,
                _ if is_partition => TableKind::Leaf {
                    root_schema: row.get::<_, Option<String>>(9).unwrap_or_default(),
                    root: row.get::<_, Option<String>>(10).unwrap_or_default(),
                },
                _ => TableKind::Ordinary,
            },
            is_unlogged: row.get(5),
            pages: pages.unsigned_abs(),
            rows_estimate: (estimate >= 0.0).then_some(estimate),
            bytes: bytes.unsigned_abs(),
            columns: Vec::new(),
            key: None,
        });
    }
    let places: HashMap<u32, usize> = tables.iter().enumerate().map(|(at, table)| (table.oid, at)).collect();
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    for row in client.query(COLUMNS, &[&oids]).await.map_err(failed)? {
        let generated = match row.get(6) {
            "s" => Generated::Stored,
            "v" => Generated::Virtual,
            _ => Generated::No,
        };
        let column = Column {
            number: row.get(1),
            name: row.get(2),
            type_name: row.get(3),
            type_oid: row.get(4),
            type_kind: TypeKind::Base,
            not_null: row.get(5),
            generated,
            identity: match row.get(7) {
                "a" => Identity::Always,
                "d" => Identity::ByDefault,
                _ => Identity::No,
            },
            collation: row.get(8),
            travels: if generated == Generated::No { Travels::Binary } else { Travels::Not },
            shape: Shape::Plain,
        };
        if let Some(at) = places.get(&row.get::<_, u32>(0)) {
            tables[*at].columns.push(column);
        }
    }
    for row in client.query(KEYS, &[&oids]).await.map_err(failed)? {
        if let Some(at) = places.get(&row.get::<_, u32>(0)) {
            tables[*at].key.get_or_insert_with(|| Key {
                is_primary: row.get(1),
                index: row.get(2),
                columns: row.get(3),
            });
        }
    }
    let types = types(session, &tables).await?;
    for column in tables.iter_mut().flat_map(|table| &mut table.columns) {
        column.type_kind = types.0.get(&column.type_oid).map_or(TypeKind::Base, |one| one.kind);
        if column.travels == Travels::Binary && types.needs_text(column.type_oid, 0) {
            column.travels = Travels::Text;
        } else {
            column.shape = types.shape(column.type_oid, 0);
        }
    }
    Ok(tables)
}

/// A type as the catalog has it.
struct OneType {
    kind: TypeKind,
    /// Its own binary form does not travel, whatever its parts do.
    is_textual: bool,
    /// Element, base type, subtype, or a composite's columns.
    parts: Vec<u32>,
}

struct Types(HashMap<u32, OneType>);

async fn types(session: &Session, tables: &[Table]) -> Result<Types, PgError> {
    let mut oids: Vec<u32> = tables.iter().flat_map(|table| &table.columns).map(|column| column.type_oid).collect();
    oids.sort_unstable();
    oids.dedup();
    let rows = session.client().query(TYPES, &[&oids]).await.map_err(|error| session.error(&error))?;
    let of_row = |row: tokio_postgres::Row| {
        let kind = match row.get(1) {
            "a" => TypeKind::Array,
            "c" => TypeKind::Composite,
            "d" => TypeKind::Domain,
            "e" => TypeKind::Enum,
            "r" => TypeKind::Range,
            "m" => TypeKind::Multirange,
            "p" => TypeKind::Pseudo,
            _ => TypeKind::Base,
        };
        (row.get(0), OneType { kind, is_textual: row.get(2), parts: row.get(3) })
    };
    Ok(Types(rows.into_iter().map(of_row).collect()))
}

impl Types {
    fn needs_text(&self, oid: u32, depth: usize) -> bool {
        self.0.get(&oid).is_none_or(|one| {
            one.is_textual || depth > DEPTH || one.parts.iter().any(|part| self.needs_text(*part, depth + 1))
        })
    }

    fn shape(&self, oid: u32, depth: usize) -> Shape {
        let Some(one) = self.0.get(&oid) else { return Shape::Plain };
        let parts = || one.parts.iter().map(|part| self.shape(*part, depth + 1)).collect::<Vec<_>>();
        let part = || one.parts.first().map_or(Shape::Plain, |part| self.shape(*part, depth + 1));
        let is_foreign = one.parts.iter().any(|part| *part >= FIRST_USER_OID);
        match one.kind {
            _ if depth > DEPTH => Shape::Plain,
            TypeKind::Array => match part() {
                Shape::Plain if !is_foreign => Shape::Plain,
                element => Shape::Array(Box::new(element)),
            },
            TypeKind::Composite => {
                let parts = parts();
                let is_plain = !is_foreign && parts.iter().all(|part| *part == Shape::Plain);
                if is_plain { Shape::Plain } else { Shape::Record(parts) }
            }
            TypeKind::Domain => part(),
            TypeKind::Range => match part() {
                Shape::Plain => Shape::Plain,
                bound => Shape::Range(Box::new(bound)),
            },
            // Its part is the range type, whose shape is that of each of its ranges.
            TypeKind::Multirange => match part() {
                Shape::Plain => Shape::Plain,
                range => Shape::Multirange(Box::new(range)),
            },
            TypeKind::Base | TypeKind::Enum | TypeKind::Pseudo => Shape::Plain,
        }
    }
}
