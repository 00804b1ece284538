//! The target's tables, keys and indexes, as SQL; and what of the source's has no equal.
//!
//! Names are kept exactly, in quotes where needed. Keys are made as unique indexes first, which several connections can
//! build at once, and become constraints afterwards; foreign keys come last, as NOT VALID, and are then validated.

use std::collections::BTreeSet;

use pgrunbook_postgres::quote;

use super::catalog::{Catalog, Collation, ForeignKey, Index, Origin, Table, Term, TermOf};
use super::default;
use super::kind::Kind;
use super::map::{Mapping, TableMap};
use super::profile::{Profile, TableStats};
use super::translate::{self, Named, folded};
use crate::transfer::finding::{Finding, Severity};

/// Everything that is made in the target, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Structure {
    /// Before the rows: tables.
    pub before: Vec<Object>,
    /// After them: indexes, constraints, foreign keys, validations.
    pub after: Vec<Object>,
}

impl Structure {
    /// The names that it takes among the relations of the schema: of tables and of indexes.
    pub fn names(&self) -> BTreeSet<String> {
        let takes = |object: &&Object| matches!(object.kind, ObjectKind::Table | ObjectKind::Index);
        self.before.iter().chain(&self.after).filter(takes).map(|object| object.name.clone()).collect()
    }
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub kind: ObjectKind,
    pub name: String,
    pub table: String,
    pub sql: String,
}

/// Objects of one kind can be made at the same time; those of a later kind need the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    Table,
    Index,
    /// A primary key or unique constraint, from an index that is there.
    Constraint,
    ForeignKey,
    /// The check of a foreign key over all rows.
    Validation,
}

impl ObjectKind {
    /// As a message names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Index => "index",
            Self::Constraint => "constraint",
            Self::ForeignKey => "foreign key",
            Self::Validation => "validation of",
        }
    }
}

/// PostgreSQL keeps 63 bytes of a name.
const NAME_BYTES: usize = 63;
/// And so many columns of a table.
const MOST_COLUMNS: usize = 1_600;
/// A btree's entry must fit a third of a page: 2,704 bytes, less its header and the other columns' alignment.
const ENTRY_BYTES: u64 = 2_600;
/// Names that every table's system columns have taken.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// Writes the target's structure into a schema. Generated columns that PostgreSQL can compute are marked in the mapping.
///
/// What cannot be said in PostgreSQL is left out, and each omission is a finding that asks for consent.
pub fn structure(profile: &Profile, mapping: &mut Mapping, schema: &str) -> (Structure, Vec<Finding>) {
    let mut maker = Maker {
        catalog: &profile.catalog,
        schema,
        structure: Structure::default(),
        findings: Vec::new(),
        names: BTreeSet::new(),
    };
    maker.left_behind(profile);
    for map in &mapping.tables {
        maker.names.insert(map.name.clone());
    }
    for map in &mut mapping.tables {
        let (table, stats) = (&profile.catalog.tables[map.source], &profile.tables[map.source]);
        maker.check_names(table, map);
        maker.compute(table, map);
        maker.table(table, map, stats);
        maker.indexes(table, map, stats);
    }
    for map in &mapping.tables {
        maker.foreign_keys(profile, mapping, map);
    }
    maker.structure.after.sort_by_key(|object| object.kind);
    (maker.structure, maker.findings)
}

struct Maker<'a> {
    catalog: &'a Catalog,
    schema: &'a str,
    structure: Structure,
    findings: Vec<Finding>,
    /// Taken by tables and indexes, which share a schema's names.
    names: BTreeSet<String>,
}

/// A name in SQL. SQLite's names hold no NUL.
fn ident(name: &str) -> String {
    quote::ident(name).unwrap_or_else(|_| "\"\"".to_owned())
}

fn scope<'a>(table: &'a Table, map: &'a TableMap) -> impl Fn(&str) -> Option<Named> + 'a {
    move |name| {
        let at = table.column(name)?;
        let column = map.of_source(at)?;
        Some(Named { name: column.name.clone(), kind: column.kind, collation: table.columns[at].collation.clone() })
    }
}

impl Maker<'_> {
    fn find(&mut self, severity: Severity, code: &'static str, object: String, what: String, remedy: &str) {
        self.findings.push(Finding::new(severity, code, object, what).remedy(remedy));
    }

    fn place(&self, table: &str) -> String {
        format!("{}.{}", ident(self.schema), ident(table))
    }

    /// What is not carried over at all.
    fn left_behind(&mut self, profile: &Profile) {
        for table in &self.catalog.virtual_tables {
            let shadows = if table.shadows.is_empty() {
                "its own tables, if it has any, are carried over as tables".to_owned()
            } else {
                format!("with its tables {}", table.shadows.join(", "))
            };
            self.findings.push(
                Finding::new(
                    Severity::Consent("virtual-tables"),
                    "virtual-table",
                    format!("virtual table {}", table.name),
                    format!("is kept by the module {} and is not carried over, {shadows}", table.module),
                )
                .remedy(
                    "make what replaces it in the target (a text search or GiST index), and accept `virtual-tables`",
                ),
            );
        }
        for view in &self.catalog.views {
            let what = "is not carried over".to_owned();
            self.find(Severity::Warn, "view", format!("view {view}"), what, "make it in the target by a migration");
        }
        for trigger in &self.catalog.triggers {
            let what = format!("of table {} is not carried over", trigger.table);
            let remedy = "make it in the target by a migration";
            self.find(Severity::Warn, "trigger", format!("trigger {}", trigger.name), what, remedy);
        }
        for violation in &profile.violations {
            let what = format!("its own check says: {violation}");
            self.find(Severity::Refuse, "violated", "file".to_owned(), what, "correct the row in the source");
        }
        if profile.changed_meanwhile {
            let what = "was written to while it was profiled: the load looks at every value again".to_owned();
            self.find(Severity::Note, "in-use", "file".to_owned(), what, "");
        }
        if let Some(problem) = &profile.foreign_key_problem {
            let what = format!("its foreign keys cannot be checked: {problem}");
            let remedy = "look at it with `PRAGMA foreign_key_check`: a row without its parent fails when the key is made in the target";
            self.find(Severity::Warn, "foreign-key-check", "file".to_owned(), what, remedy);
        }
    }

    fn check_names(&mut self, table: &Table, map: &TableMap) {
        let mut taken = BTreeSet::new();
        let names = std::iter::once(&map.name).chain(map.columns.iter().map(|column| &column.name));
        for (at, name) in names.enumerate() {
            let object = if at == 0 { format!("table {name}") } else { format!("column {}.{name}", map.name) };
            if name.is_empty() {
                self.find(
                    Severity::Refuse,
                    "empty-name",
                    object,
                    "has no name".to_owned(),
                    "rename it, or skip it in [map]",
                );
            } else if name.len() > NAME_BYTES {
                let what = format!("its name has {} bytes, and PostgreSQL keeps 63", name.len());
                self.find(Severity::Refuse, "long-name", object, what, "rename it, or skip it in [map]");
            } else if at > 0 && SYSTEM_COLUMNS.contains(&name.as_str()) {
                let what = "is the name of a system column in PostgreSQL".to_owned();
                self.find(Severity::Refuse, "reserved-name", object, what, "rename it, or skip it in [map]");
            } else if at > 0 && !taken.insert(name.clone()) {
                self.find(Severity::Refuse, "double-name", object, "is there twice".to_owned(), "rename one");
            }
        }
        if map.columns.len() > MOST_COLUMNS {
            let what = format!("has {} columns, and PostgreSQL takes 1,600", map.columns.len());
            self.find(Severity::Refuse, "columns", format!("table {}", map.name), what, "skip some in [map]");
        }
        if map.columns.is_empty() {
            let what = "has no column left".to_owned();
            self.find(Severity::Refuse, "columns", format!("table {}", map.name), what, "skip the table in [map]");
        }
        for column in &map.columns {
            if let Collation::Other(name) = &table.columns[column.source].collation {
                let object = format!("column {}.{}", map.name, column.name);
                let what =
                    format!("is compared by {name}, which only the application knows: here it would be by bytes");
                self.find(Severity::Consent("collations"), "collation", object, what, "accept `collations`");
            }
        }
        let clauses: BTreeSet<&str> = table.conflict_clauses.iter().map(String::as_str).collect();
        for clause in clauses {
            let what = format!("ON CONFLICT {clause} is not carried over: PostgreSQL raises an error");
            self.find(
                Severity::Warn,
                "on-conflict",
                format!("table {}", map.name),
                what,
                "say it in the application's INSERT",
            );
        }
        if table.key.is_empty() {
            let what = "has no primary key: its rows can be told apart only by all their values".to_owned();
            let remedy =
                "give it a primary key, if it is large or changes much: without one it is compared whole each time";
            self.find(Severity::Warn, "no-key", format!("table {}", map.name), what, remedy);
        }
    }

    /// Generated columns: computed by the target where it can, else plain values.
    fn compute(&mut self, table: &Table, map: &mut TableMap) {
        let before = map.clone();
        let scope = scope(table, &before);
        for column in &mut map.columns {
            let source = &table.columns[column.source];
            let Some(text) = &source.generated else { continue };
            // PostgreSQL's may not refer to one another.
            let plain = |name: &str| {
                scope(name).filter(|_| table.column(name).is_some_and(|at| table.columns[at].generated.is_none()))
            };
            match translate::generated(text, column.kind, &plain) {
                Ok(sql) => column.computed = Some(sql),
                Err(why) => {
                    let object = format!("column {}.{}", map.name, column.name);
                    let what = format!(
                        "GENERATED ALWAYS AS ({text}) has no equal: {why}; its values are carried over as plain ones"
                    );
                    self.find(
                        Severity::Consent("generated"),
                        "generated",
                        object,
                        what,
                        "accept `generated`, or skip it in [map]",
                    );
                }
            }
        }
    }

    fn table(&mut self, table: &Table, map: &TableMap, stats: &TableStats) {
        let mut parts = Vec::new();
        let keyed = has_primary_key(table, map, stats);
        for column in &map.columns {
            let source = &table.columns[column.source];
            let mut part = format!("{} {}", ident(&column.name), column.kind.sql_type());
            if column.collate_c {
                part.push_str(" COLLATE pg_catalog.\"C\"");
            }
            if let Some(sql) = &column.computed {
                part.push_str(&format!(" GENERATED ALWAYS AS ({sql}) STORED"));
            } else if table.rowid_alias == Some(column.source) && matches!(column.kind, Kind::Integer(_)) {
                part.push_str(" GENERATED BY DEFAULT AS IDENTITY");
            } else if let Some(text) = source.default.as_ref().filter(|_| source.generated.is_none()) {
                match default::default(text, &source.declared, column.kind) {
                    Ok(Some(sql)) => part.push_str(&format!(" DEFAULT {sql}")),
                    Ok(None) => {}
                    Err(why) => {
                        let object = format!("column {}.{}", map.name, column.name);
                        let what = format!("DEFAULT {text} has no equal: {why}");
                        self.find(
                            Severity::Consent("defaults"),
                            "default",
                            object,
                            what,
                            "accept `defaults`: it gets none",
                        );
                    }
                }
            }
            let nulls = stats.columns[column.source].nulls;
            if source.not_null && nulls > 0 {
                let what = format!("is NOT NULL and holds {nulls} NULLs");
                let object = format!("column {}.{}", map.name, column.name);
                self.find(Severity::Refuse, "null-in-not-null", object, what, "correct the rows in the source");
            }
            if source.not_null || (keyed && table.key.contains(&column.source)) {
                part.push_str(" NOT NULL");
            }
            parts.push(part);
        }
        let scope = scope(table, map);
        for (at, (name, text)) in table.checks.iter().enumerate() {
            match translate::condition(text, &scope) {
                Ok(sql) => {
                    if let Some(rows) = stats.failed_checks.get(&at) {
                        let what = format!("CHECK ({text}) does not hold for {rows} of its rows");
                        let object = format!("table {}", map.name);
                        self.find(Severity::Refuse, "violated", object, what, "correct the rows in the source");
                    }
                    let name = name.as_ref().filter(|name| !name.is_empty() && name.len() <= NAME_BYTES);
                    let name = name.map(|name| format!("CONSTRAINT {} ", ident(name))).unwrap_or_default();
                    parts.push(format!("{name}CHECK ({sql})"));
                }
                Err(why) => {
                    let what = format!("CHECK ({text}) has no equal: {why}");
                    self.find(
                        Severity::Consent("checks"),
                        "check",
                        format!("table {}", map.name),
                        what,
                        "accept `checks`: it is left out",
                    );
                }
            }
        }
        let sql = format!("CREATE TABLE {} (\n    {}\n)", self.place(&map.name), parts.join(",\n    "));
        self.structure.before.push(Object {
            kind: ObjectKind::Table,
            name: map.name.clone(),
            table: map.name.clone(),
            sql,
        });
    }

    /// A name that nothing has yet, of at most 63 bytes.
    fn free_name(&mut self, wanted: &str) -> String {
        let cut = |name: &str, room: usize| {
            let mut end = name.len().min(room);
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            name[..end].to_owned()
        };
        let mut name = cut(wanted, NAME_BYTES);
        let mut number = 1;
        while name.is_empty() || name != wanted && number == 1 || self.names.contains(&name) {
            let tail = format!("_{number}");
            name = format!("{}{tail}", cut(wanted, NAME_BYTES - tail.len()));
            number += 1;
        }
        self.names.insert(name.clone());
        name
    }

    fn indexes(&mut self, table: &Table, map: &TableMap, stats: &TableStats) {
        let names = |columns: &[usize]| {
            let names: Option<Vec<String>> = columns.iter().map(|at| Some(map.of_source(*at)?.name.clone())).collect();
            names
        };
        if !table.key.is_empty() {
            let nulls: u64 = table.key.iter().map(|at| stats.columns[*at].nulls).sum();
            if nulls > 0 {
                let what = format!(
                    "its primary key holds {nulls} NULLs, which PostgreSQL's cannot: it becomes a unique index"
                );
                self.find(
                    Severity::Consent("null-in-key"),
                    "null-in-key",
                    format!("table {}", map.name),
                    what,
                    "accept `null-in-key`, or correct the rows",
                );
            }
            match names(&table.key) {
                Some(columns) => self.key(table, map, stats, &columns, "pkey", has_primary_key(table, map, stats)),
                None => {
                    let what = "a column of its primary key is skipped: it gets none".to_owned();
                    self.find(
                        Severity::Consent("indexes"),
                        "index",
                        format!("table {}", map.name),
                        what,
                        "accept `indexes`",
                    );
                }
            }
        }
        for index in &table.indexes {
            let plain = index.terms.iter().all(|term| {
                matches!(term.what, TermOf::Column(_))
                    && matches!(term.collation, Collation::Binary | Collation::Other(_))
            });
            match index.origin {
                Origin::PrimaryKey if plain => {}
                Origin::Unique if plain => {
                    let columns: Vec<usize> = index
                        .terms
                        .iter()
                        .filter_map(|term| match term.what {
                            TermOf::Column(at) => Some(at),
                            TermOf::Expression(_) => None,
                        })
                        .collect();
                    match names(&columns) {
                        Some(columns) => self.key(table, map, stats, &columns, "key", false),
                        None => self.no_index(map, &index.name, "a column of it is skipped"),
                    }
                }
                _ => self.index(table, map, stats, index),
            }
        }
    }

    fn no_index(&mut self, map: &TableMap, name: &str, why: &str) {
        let what = format!("of table {} is left out: {why}", map.name);
        self.find(Severity::Consent("indexes"), "index", format!("index {name}"), what, "accept `indexes`");
    }

    /// Why PostgreSQL's btree would not take these columns.
    fn too_much(map: &TableMap, stats: &TableStats, columns: &[usize]) -> Option<String> {
        let kinds = columns.iter().filter_map(|at| map.of_source(*at));
        if kinds.clone().any(|column| column.kind == Kind::Json) {
            return Some("json cannot be compared".to_owned());
        }
        let bytes: u64 = columns.iter().map(|at| stats.columns[*at].longest_bytes.max(8)).sum();
        (bytes > ENTRY_BYTES)
            .then(|| format!("its longest entry has {bytes} bytes, and a btree takes about {ENTRY_BYTES}"))
    }

    /// A primary key or unique constraint on plain columns.
    fn key(
        &mut self,
        table: &Table,
        map: &TableMap,
        stats: &TableStats,
        columns: &[String],
        tail: &str,
        is_primary: bool,
    ) {
        let wanted = if tail == "pkey" {
            format!("{}_pkey", map.name)
        } else {
            format!("{}_{}_key", map.name, columns.join("_"))
        };
        let sources: Vec<usize> = columns.iter().filter_map(|name| table.column(name)).collect();
        if let Some(why) = Self::too_much(map, stats, &sources) {
            self.no_index(map, &wanted, &why);
            return;
        }
        let name = self.free_name(&wanted);
        let list: Vec<String> = columns.iter().map(|name| ident(name)).collect();
        let place = self.place(&map.name);
        let sql = format!("CREATE UNIQUE INDEX {} ON {place} ({})", ident(&name), list.join(", "));
        self.structure.after.push(Object { kind: ObjectKind::Index, name: name.clone(), table: map.name.clone(), sql });
        let what = if is_primary { "PRIMARY KEY" } else { "UNIQUE" };
        let sql = format!("ALTER TABLE {place} ADD CONSTRAINT {0} {what} USING INDEX {0}", ident(&name));
        self.structure.after.push(Object { kind: ObjectKind::Constraint, name, table: map.name.clone(), sql });
    }

    fn index(&mut self, table: &Table, map: &TableMap, stats: &TableStats, index: &Index) {
        let scope = scope(table, map);
        let columns: Vec<usize> = index
            .terms
            .iter()
            .filter_map(|term| match term.what {
                TermOf::Column(at) => Some(at),
                TermOf::Expression(_) => None,
            })
            .collect();
        if let Some(why) = Self::too_much(map, stats, &columns) {
            return self.no_index(map, &index.name, &why);
        }
        let terms: Result<Vec<String>, String> = index.terms.iter().map(|term| term_sql(term, map, &scope)).collect();
        let condition = index
            .condition
            .as_ref()
            .map(|text| translate::condition(text, &scope).map_err(|why| format!("WHERE {text} has no equal: {why}")));
        let (terms, condition) = match (terms, condition.transpose()) {
            (Ok(terms), Ok(condition)) => (terms, condition),
            (Err(why), _) | (_, Err(why)) => return self.no_index(map, &index.name, &why),
        };
        let wanted = match index.origin {
            Origin::Created => index.name.clone(),
            Origin::Unique | Origin::PrimaryKey => format!("{}_folded_key", map.name),
        };
        let name = self.free_name(&wanted);
        let unique = if index.is_unique { "UNIQUE " } else { "" };
        let condition = condition.map(|sql| format!(" WHERE {sql}")).unwrap_or_default();
        let sql = format!(
            "CREATE {unique}INDEX {} ON {} ({}){condition}",
            ident(&name),
            self.place(&map.name),
            terms.join(", ")
        );
        self.structure.after.push(Object { kind: ObjectKind::Index, name, table: map.name.clone(), sql });
    }

    fn foreign_keys(&mut self, profile: &Profile, mapping: &Mapping, map: &TableMap) {
        let table = &self.catalog.tables[map.source];
        for key in &table.foreign_keys {
            match foreign_key(self.catalog, mapping, table, map, key) {
                Ok((columns, parent, parent_columns)) => {
                    let wanted = format!("{}_{}_fkey", map.name, columns.join("_"));
                    let name = self.free_name(&wanted);
                    let list = |names: &[String]| names.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ");
                    let deferred = if key.deferred { " DEFERRABLE INITIALLY DEFERRED" } else { "" };
                    let place = self.place(&map.name);
                    let sql = format!(
                        "ALTER TABLE {place} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) ON UPDATE {} ON DELETE \
                         {}{deferred} NOT VALID",
                        ident(&name),
                        list(&columns),
                        self.place(&parent),
                        list(&parent_columns),
                        key.on_update,
                        key.on_delete
                    );
                    let object = |kind, sql| Object { kind, name: name.clone(), table: map.name.clone(), sql };
                    self.structure.after.push(object(ObjectKind::ForeignKey, sql));
                    let orphans = profile
                        .orphans
                        .iter()
                        .find(|((child, of), _)| *child == table.name && of.eq_ignore_ascii_case(&key.parent));
                    if let Some((_, count)) = orphans {
                        let what = format!("{count} rows have no parent in {parent}: the foreign key stays NOT VALID");
                        self.find(
                            Severity::Consent("orphans"),
                            "orphans",
                            format!("table {}", map.name),
                            what,
                            "accept `orphans`, or delete the rows",
                        );
                    } else {
                        let sql = format!("ALTER TABLE {place} VALIDATE CONSTRAINT {}", ident(&name));
                        self.structure.after.push(object(ObjectKind::Validation, sql));
                    }
                }
                Err(why) => {
                    let what = format!("its foreign key to {} is left out: {why}", key.parent);
                    self.find(
                        Severity::Consent("foreign-keys"),
                        "foreign-key",
                        format!("table {}", map.name),
                        what,
                        "accept `foreign-keys`",
                    );
                }
            }
        }
    }
}

fn has_primary_key(table: &Table, map: &TableMap, stats: &TableStats) -> bool {
    !table.key.is_empty() && table.key.iter().all(|at| stats.columns[*at].nulls == 0 && map.of_source(*at).is_some())
}

fn term_sql(term: &Term, map: &TableMap, scope: translate::Scope<'_>) -> Result<String, String> {
    let sql = match &term.what {
        TermOf::Column(at) => {
            let column = map.of_source(*at).ok_or("a column of it is skipped")?;
            let name = ident(&column.name);
            match (&term.collation, column.kind) {
                (Collation::NoCase, Kind::Text) => format!("({} COLLATE pg_catalog.\"C\")", folded(&name)),
                (Collation::Rtrim, Kind::Text) => format!("(pg_catalog.rtrim({name}, ' ') COLLATE pg_catalog.\"C\")"),
                _ => name,
            }
        }
        TermOf::Expression(text) => {
            let sql = translate::indexed(text, scope).map_err(|why| format!("({text}) has no equal: {why}"))?;
            match term.collation {
                Collation::NoCase => format!("({} COLLATE pg_catalog.\"C\")", folded(&format!("({sql})"))),
                _ => format!("({sql})"),
            }
        }
    };
    Ok(if term.descending { format!("{sql} DESC") } else { sql })
}

type Resolved = (Vec<String>, String, Vec<String>);

/// The names on both sides; why it cannot be made otherwise.
fn foreign_key(
    catalog: &Catalog,
    mapping: &Mapping,
    table: &Table,
    map: &TableMap,
    key: &ForeignKey,
) -> Result<Resolved, String> {
    let parent = catalog.table(&key.parent).ok_or("there is no such table")?;
    let parent_map = mapping
        .tables
        .iter()
        .find(|one| catalog.tables[one.source].name == parent.name)
        .ok_or("that table is skipped")?;
    let parents: Vec<usize> = if key.parent_columns.is_empty() {
        parent.key.clone()
    } else {
        let found: Option<Vec<usize>> = key.parent_columns.iter().map(|name| parent.column(name)).collect();
        found.ok_or("there is no such column")?
    };
    if parents.len() != key.columns.len() || parents.is_empty() {
        return Err("it has another number of columns than what it refers to".to_owned());
    }
    let mut sorted = parents.clone();
    sorted.sort_unstable();
    let same = |columns: &[usize]| {
        let mut columns = columns.to_vec();
        columns.sort_unstable();
        columns == sorted
    };
    let of_terms = |index: &Index| -> Option<Vec<usize>> {
        let column = |term: &Term| match (&term.what, &term.collation) {
            (TermOf::Column(at), Collation::Binary) => Some(*at),
            _ => None,
        };
        index.terms.iter().map(column).collect()
    };
    let unique = parent.indexes.iter().any(|index| {
        index.is_unique && index.condition.is_none() && of_terms(index).is_some_and(|columns| same(&columns))
    });
    if !same(&parent.key) && !unique {
        return Err("what it refers to is not unique".to_owned());
    }
    let mut names = (Vec::new(), Vec::new());
    for (child, parent_at) in key.columns.iter().zip(&parents) {
        let child_map = map.of_source(*child).ok_or("a column of it is skipped")?;
        let parent_column = parent_map.of_source(*parent_at).ok_or("a column that it refers to is skipped")?;
        if child_map.kind.sql_type() != parent_column.kind.sql_type() {
            return Err(format!(
                "{}.{} becomes {} and {}.{} {}",
                map.name,
                child_map.name,
                child_map.kind.sql_type(),
                parent_map.name,
                parent_column.name,
                parent_column.kind.sql_type()
            ));
        }
        if table.columns[*child].collation != Collation::Binary
            || parent.columns[*parent_at].collation != Collation::Binary
        {
            return Err("its columns are compared by a collation".to_owned());
        }
        names.0.push(child_map.name.clone());
        names.1.push(parent_column.name.clone());
    }
    Ok((names.0, parent_map.name.clone(), names.1))
}
