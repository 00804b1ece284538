//! What a SQLite file declares: tables, columns, keys, indexes, and what is not carried over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;

use super::declaration::{self, Declaration};
use super::error::SqliteError;
use super::open::quoted;

/// Everything that the file declares.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalog {
    /// `UTF-8`, `UTF-16le` or `UTF-16be`.
    pub encoding: String,
    pub application_id: i64,
    pub user_version: i64,
    pub schema_version: i64,
    pub page_count: u64,
    pub page_bytes: u64,
    /// Those that hold rows of the application; by name.
    pub tables: Vec<Table>,
    pub virtual_tables: Vec<VirtualTable>,
    pub views: Vec<String>,
    pub triggers: Vec<Trigger>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    pub name: String,
    pub table: String,
}

/// A virtual table, and the tables in which its module keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualTable {
    pub name: String,
    pub module: String,
    pub shadows: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// Positions of the primary key's columns, in its order.
    pub key: Vec<usize>,
    /// The column that is another name of the rowid: `INTEGER PRIMARY KEY`.
    pub rowid_alias: Option<usize>,
    /// A name by which the rowid can be asked for; none for WITHOUT ROWID, or where columns have taken all three names.
    pub rowid: Option<&'static str>,
    pub strict: bool,
    pub autoincrement: bool,
    /// What `sqlite_sequence` says of the highest rowid ever given.
    pub sequence: Option<i64>,
    pub indexes: Vec<Index>,
    pub foreign_keys: Vec<ForeignKey>,
    /// Name and text.
    pub checks: Vec<(Option<String>, String)>,
    /// `REPLACE`, `IGNORE` and the like of a constraint's ON CONFLICT.
    pub conflict_clauses: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// As written, with its brackets; empty where there is no type.
    pub declared: String,
    pub not_null: bool,
    /// The text of its DEFAULT.
    pub default: Option<String>,
    pub collation: Collation,
    /// The text of its expression.
    pub generated: Option<String>,
}

/// How SQLite compares texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collation {
    Binary,
    /// A to Z as a to z, and nothing beyond ASCII.
    NoCase,
    /// Blanks at the end do not count.
    Rtrim,
    /// One that the application defines.
    Other(String),
}

impl Collation {
    pub fn of(name: &str) -> Self {
        match name.to_ascii_uppercase().as_str() {
            "BINARY" => Self::Binary,
            "NOCASE" => Self::NoCase,
            "RTRIM" => Self::Rtrim,
            _ => Self::Other(name.to_owned()),
        }
    }
}

/// Where an index comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Created,
    Unique,
    PrimaryKey,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub name: String,
    pub is_unique: bool,
    pub origin: Origin,
    pub terms: Vec<Term>,
    /// The text behind WHERE.
    pub condition: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    pub what: TermOf,
    pub descending: bool,
    pub collation: Collation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TermOf {
    /// The column's position.
    Column(usize),
    /// An expression's text.
    Expression(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    pub columns: Vec<usize>,
    pub parent: String,
    /// Empty where the parent's primary key is meant.
    pub parent_columns: Vec<String>,
    pub on_update: String,
    pub on_delete: String,
    pub deferred: bool,
}

impl Table {
    /// The column of this name, as SQLite compares names: without case in ASCII.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// Whether a column is part of the primary key, an index or a foreign key.
    pub fn is_indexed(&self, at: usize) -> bool {
        self.key.contains(&at)
            || self.foreign_keys.iter().any(|key| key.columns.contains(&at))
            || self.indexes.iter().any(|index| index.terms.iter().any(|term| term.what == TermOf::Column(at)))
    }
}

impl Catalog {
    /// The table of this name, without case in ASCII.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name))
    }

    /// Reads all declarations.
    ///
    /// # Errors
    /// If the file is damaged, or a declaration needs what only the application has.
    pub fn read(connection: &Connection, path: &Path) -> Result<Self, SqliteError> {
        let number = |name: &str| pragma::<i64>(connection, path, name);
        let mut catalog = Self {
            encoding: pragma(connection, path, "encoding")?,
            application_id: number("application_id")?,
            user_version: number("user_version")?,
            schema_version: number("schema_version")?,
            page_count: u64::try_from(number("page_count")?).unwrap_or(0),
            page_bytes: u64::try_from(number("page_size")?).unwrap_or(0),
            tables: Vec::new(),
            virtual_tables: Vec::new(),
            views: Vec::new(),
            triggers: Vec::new(),
        };
        let mut declared = Vec::new();
        for (kind, name, table, sql) in master(connection, path)? {
            // What an earlier transfer left here is no part of the application.
            if is_ours(&name) {
                continue;
            }
            match kind.as_str() {
                "view" => catalog.views.push(name),
                "trigger" => catalog.triggers.push(Trigger { name, table }),
                "table" if name.to_ascii_lowercase().starts_with("sqlite_") => {}
                "table" => match module_of(&sql) {
                    Some(module) => {
                        catalog.virtual_tables.push(VirtualTable { name, module, shadows: Vec::new() });
                    }
                    None => declared.push((name, sql)),
                },
                _ => {}
            }
        }
        let names: Vec<String> = declared.iter().map(|(name, _)| name.clone()).collect();
        for table in &mut catalog.virtual_tables {
            table.shadows = shadows(table, &names);
        }
        let shadows: BTreeSet<&String> = catalog.virtual_tables.iter().flat_map(|table| &table.shadows).collect();
        let sequences = sequences(connection, path)?;
        let indexes = index_texts(connection, path)?;
        for (name, sql) in &declared {
            if !shadows.contains(name) {
                let sequence = sequences.get(name).copied();
                catalog.tables.push(read_table(connection, path, name, sql, sequence, &indexes)?);
            }
        }
        Ok(catalog)
    }
}

fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, path: &Path, name: &str) -> Result<T, SqliteError> {
    connection
        .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
        .map_err(SqliteError::of(path, format!("read {name}")))
}

/// Counts other connections' commits as this connection sees them: equal values mean that nothing was committed between.
pub(super) fn data_version(connection: &Connection, path: &Path) -> Result<i64, SqliteError> {
    pragma(connection, path, "data_version")
}

type Entry = (String, String, String, String);

const MASTER: &str = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY name";

fn master(connection: &Connection, path: &Path) -> Result<Vec<Entry>, SqliteError> {
    collect(connection, path, MASTER, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
}

pub(super) fn collect<T>(
    connection: &Connection,
    path: &Path,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, SqliteError> {
    let rows = || -> rusqlite::Result<Vec<T>> { connection.prepare(sql)?.query_map([], read)?.collect() };
    rows().map_err(SqliteError::of(path, format!("run {sql}")))
}

/// Whether a table or trigger is one of ours.
pub(super) fn is_ours(name: &str) -> bool {
    name.get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS))
}

/// What the names of everything begin with that a transfer makes in a file.
pub(super) const OURS: &str = "_pgrunbook";

fn module_of(sql: &str) -> Option<String> {
    let tokens = super::lex::tokens(sql);
    if !(tokens.first()?.is("CREATE") && tokens.get(1)?.is("VIRTUAL")) {
        return None;
    }
    let using = tokens.iter().position(|token| token.is("USING"))?;
    Some(tokens.get(using + 1)?.name().unwrap_or_default().to_ascii_lowercase())
}

/// The names that each module gives to its tables (`xShadowName` in its source).
fn shadows(table: &VirtualTable, names: &[String]) -> Vec<String> {
    let suffixes: &[&str] = match table.module.as_str() {
        "fts3" | "fts4" => &["content", "segments", "segdir", "docsize", "stat"],
        "fts5" => &["data", "idx", "content", "docsize", "config"],
        "rtree" | "rtree_i32" | "geopoly" => &["node", "parent", "rowid"],
        _ => &[],
    };
    let is_shadow =
        |name: &&String| suffixes.iter().any(|suffix| name.eq_ignore_ascii_case(&format!("{}_{suffix}", table.name)));
    names.iter().filter(is_shadow).cloned().collect()
}

fn sequences(connection: &Connection, path: &Path) -> Result<BTreeMap<String, i64>, SqliteError> {
    let there = collect(connection, path, "SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'", |_| Ok(()))?;
    if there.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = collect(
        connection,
        path,
        "SELECT name, seq FROM sqlite_sequence WHERE typeof(name) = 'text' AND typeof(seq) = 'integer'",
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(rows.into_iter().collect())
}

fn index_texts(connection: &Connection, path: &Path) -> Result<BTreeMap<String, String>, SqliteError> {
    let sql = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL";
    Ok(collect(connection, path, sql, |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect())
}

fn read_table(
    connection: &Connection,
    path: &Path,
    name: &str,
    sql: &str,
    sequence: Option<i64>,
    index_texts: &BTreeMap<String, String>,
) -> Result<Table, SqliteError> {
    let declaration = declaration::table(sql);
    let (columns, key) = read_columns(connection, path, name, &declaration)?;
    let mut table = Table {
        name: name.to_owned(),
        columns,
        key,
        rowid_alias: None,
        rowid: None,
        strict: declaration.strict,
        autoincrement: declaration.autoincrement,
        sequence,
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        checks: declaration.checks,
        conflict_clauses: declaration.conflict_clauses,
    };
    let list = format!("SELECT name, \"unique\", origin FROM pragma_index_list({})", literal(name));
    let found: Vec<(String, bool, String)> =
        collect(connection, path, &list, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for (index, is_unique, origin) in found {
        let text = index_texts.get(&index).map(|sql| declaration::index(sql)).unwrap_or_default();
        let origin = match origin.as_str() {
            "pk" => Origin::PrimaryKey,
            "u" => Origin::Unique,
            _ => Origin::Created,
        };
        let terms = read_terms(connection, path, &index, &text.terms)?;
        table.indexes.push(Index { name: index, is_unique, origin, terms, condition: text.condition });
    }
    table.indexes.sort_by(|a, b| a.name.cmp(&b.name));
    // A rowid table's primary key has an index, unless it is the rowid itself.
    let has_key_index = table.indexes.iter().any(|index| index.origin == Origin::PrimaryKey);
    if !declaration.without_rowid && table.key.len() == 1 && !has_key_index {
        table.rowid_alias = Some(table.key[0]);
    }
    if !declaration.without_rowid {
        table.rowid = ["rowid", "_rowid_", "oid"].into_iter().find(|name| table.column(name).is_none());
    }
    read_foreign_keys(connection, path, &mut table, &declaration.deferrable)?;
    Ok(table)
}

fn read_columns(
    connection: &Connection,
    path: &Path,
    name: &str,
    declaration: &Declaration,
) -> Result<(Vec<Column>, Vec<usize>), SqliteError> {
    let sql = format!(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo({}) ORDER BY cid",
        literal(name)
    );
    let mut key = Vec::new();
    let mut columns = Vec::new();
    let rows: Vec<(String, String, bool, Option<String>, i64, i64)> = collect(connection, path, &sql, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
    })?;
    for (at, (name, declared, not_null, default, in_key, hidden)) in rows.into_iter().enumerate() {
        if in_key > 0 {
            key.push((in_key, at));
        }
        let said = declaration.columns.iter().find(|column| column.name.eq_ignore_ascii_case(&name));
        let collation = said.and_then(|said| said.collation.as_deref()).map_or(Collation::Binary, Collation::of);
        // 2: virtual, 3: stored.
        let is_generated = hidden == 2 || hidden == 3;
        let generated = is_generated.then(|| said.and_then(|said| said.generated.clone()).unwrap_or_default());
        // What SQLite puts behind a generated column's type is no part of it.
        let declared = if is_generated { without_generated(&declared) } else { declared };
        columns.push(Column { name, declared, not_null, default, collation, generated });
    }
    key.sort_unstable();
    Ok((columns, key.into_iter().map(|(_, at)| at).collect()))
}

fn without_generated(declared: &str) -> String {
    let upper = declared.to_ascii_uppercase();
    declared[..upper.find("GENERATED ALWAYS").unwrap_or(declared.len())].trim().to_owned()
}

fn read_terms(connection: &Connection, path: &Path, index: &str, texts: &[String]) -> Result<Vec<Term>, SqliteError> {
    let sql = format!(
        "SELECT cid, \"desc\", coalesce(coll, 'BINARY') FROM pragma_index_xinfo({}) WHERE key ORDER BY seqno",
        literal(index)
    );
    let rows: Vec<(i64, bool, String)> =
        collect(connection, path, &sql, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let term = |(at, (column, descending, collation)): (usize, (i64, bool, String))| {
        let what = match usize::try_from(column) {
            Ok(column) => TermOf::Column(column),
            Err(_) => TermOf::Expression(texts.get(at).cloned().unwrap_or_default()),
        };
        Term { what, descending, collation: Collation::of(&collation) }
    };
    Ok(rows.into_iter().enumerate().map(term).collect())
}

fn read_foreign_keys(
    connection: &Connection,
    path: &Path,
    table: &mut Table,
    deferrable: &[bool],
) -> Result<(), SqliteError> {
    let sql = format!(
        "SELECT id, \"table\", \"from\", \"to\", on_update, on_delete FROM pragma_foreign_key_list({}) ORDER BY id, seq",
        literal(&table.name)
    );
    let rows: Vec<(i64, String, String, Option<String>, String, String)> = collect(connection, path, &sql, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
    })?;
    let mut keys: BTreeMap<i64, ForeignKey> = BTreeMap::new();
    for (id, parent, from, to, on_update, on_delete) in rows {
        let key = keys.entry(id).or_insert(ForeignKey {
            columns: Vec::new(),
            parent,
            parent_columns: Vec::new(),
            on_update,
            on_delete,
            deferred: false,
        });
        if let Some(at) = table.column(&from) {
            key.columns.push(at);
        }
        key.parent_columns.extend(to);
    }
    // SQLite numbers them from the last declared to the first.
    let count = keys.len();
    for (id, mut key) in keys {
        let declared = usize::try_from(id).ok().and_then(|id| count.checked_sub(id + 1));
        key.deferred = declared.and_then(|at| deferrable.get(at)).copied().unwrap_or(false);
        table.foreign_keys.push(key);
    }
    table.foreign_keys.reverse();
    Ok(())
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `SELECT` of columns of a table, in order.
pub(super) fn select(table: &Table, columns: impl Iterator<Item = usize>, condition: &str) -> String {
    let list: Vec<String> = columns.map(|at| quoted(&table.columns[at].name)).collect();
    let list = if list.is_empty() { "NULL".to_owned() } else { list.join(", ") };
    format!("SELECT {list} FROM main.{}{condition}", quoted(&table.name))
}
