//! The statements that read the catalogs, one for each kind of object or for a family of kinds.
//!
//! Each gives rows of [`WIDTH`] texts: kind, own address (class, object, number), address of what it stands on, address of what it also
//! needs, identity, phrase (what `COMMENT ON` and `ALTER ... OWNER TO` call it), owner, text (what is compared), frame (what no `ALTER`
//! changes), the statements that make, alter and drop it, and flags. PostgreSQL's own functions print every definition. All run under
//! an empty `search_path`: names are printed with their schemas, and functions without one are those of `pg_catalog`. Tried on
//! PostgreSQL 15; they rest on <https://www.postgresql.org/docs/15/catalogs.html>.

pub mod access;
mod relation;
mod routine;

/// Columns of a row.
pub const WIDTH: usize = 17;

/// In no order that matters.
const STATEMENTS: &[&str] = &[
    routine::SCHEMAS,
    routine::EXTENSIONS,
    routine::TYPES,
    routine::DOMAIN_FACETS,
    routine::BASE_TYPES,
    routine::FUNCTIONS,
    routine::AGGREGATES,
    routine::OPERATORS,
    routine::OPERATOR_FAMILIES,
    routine::OPERATOR_CLASSES,
    routine::OTHERS,
    routine::TEXT_SEARCH,
    relation::TABLES,
    relation::INHERITANCE,
    relation::COLUMNS,
    relation::COLUMN_FACETS,
    relation::RELATION_FACETS,
    relation::SEQUENCES,
    relation::OWNED_SEQUENCES,
    relation::VIEWS,
    relation::CONSTRAINTS,
    relation::UNENFORCED,
    relation::INDEXES,
    relation::TRIGGERS,
    relation::FIRING,
    relation::RULES,
    relation::POLICIES,
    relation::STATISTICS,
    access::FOREIGN,
    access::REPLICATION,
    access::DATABASE_COMMENT,
    access::SETTINGS,
];

/// What the words in capitals of the statements stand for.
fn expanded(statement: &str) -> String {
    statement
        .replace("(IDENTITIES)", &format!("({})", relation::IDENTITIES))
        .replace("DEFINITION", relation::DEFINITION)
        .replace("|| SEQUENCE", &format!("|| {}", relation::SEQUENCE))
        .replace("SEQUENCE AS options", &format!("{} AS options", relation::SEQUENCE))
        .replace("OURS", OURS)
}

/// Schemas that are neither the server's nor a session's.
const OURS: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// All statements in one text: first those whose rows are none of [`WIDTH`], in this order, then the others.
pub fn all() -> String {
    let first = [
        access::MEMBERS,
        access::PARTS,
        access::COMMENTS,
        access::LABELS,
        access::ON_EXTENSION,
        access::GRANTS,
        access::DEFAULT_PRIVILEGES,
    ];
    let all: Vec<String> = first.iter().chain(STATEMENTS).map(|statement| expanded(statement)).collect();
    all.join(";\n")
}
