//! The mapping table: which sources there are, and which schema is whose.

use std::collections::BTreeSet;

use pgrunbook_postgres::{Answer, Session};

use super::error::SourceError;
use super::name::{SchemaName, check_id, declared};
use crate::topology::{Sources, Topology, literal, table};

/// How many names an error lists.
const NEAR: usize = 3;

/// The table, where there is none. The constraints hold for whoever writes to it; strict names are the same with quotes and
/// without, whatever a client does with them.
pub(super) fn create(sources: &Sources) -> String {
    format!(
        "CREATE TABLE {} (
    source_id   text        NOT NULL PRIMARY KEY CHECK (source_id <> ''),
    schema_name text        NOT NULL UNIQUE
        CHECK (schema_name COLLATE \"C\" ~ '^[a-z_][a-z0-9_]*$' AND pg_catalog.octet_length(schema_name) <= 63
               AND NOT pg_catalog.starts_with(schema_name, 'pg_')),
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
)",
        table(&sources.registry)
    )
}

/// Which of the two columns are there, and which are unique by themselves.
///
/// A partial, invalid or deferrable-only index lets two through: only a plain one counts.
const SHAPE: &str = "
SELECT a.attname, EXISTS (SELECT FROM pg_catalog.pg_index AS i
    WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1
      AND i.indkey[0] = a.attnum)
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = pg_catalog.to_regclass(TABLE) AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attname IN ('source_id', 'schema_name')";

/// Whether a table that somebody else made can be the mapping.
pub(super) async fn check_shape(session: &Session, sources: &Sources) -> Result<(), SourceError> {
    let name = table(&sources.registry);
    let answers = session.simple(&SHAPE.replace("TABLE", &literal(&name))).await?;
    let rows: Vec<(String, String)> = pairs(&answers);
    let registry = sources.registry.to_string();
    for column in ["source_id", "schema_name"] {
        match rows.iter().find(|(one, _)| one == column) {
            Some((_, unique)) if unique == "t" => {}
            Some(_) => {
                let why = match column {
                    "schema_name" => "has no UNIQUE (schema_name): two sources could have one schema",
                    _ => "has no UNIQUE (source_id): one source could have two schemas",
                };
                let help = format!("ALTER TABLE {name} ADD UNIQUE ({column})");
                return Err(SourceError::Registry { registry, why: why.to_owned(), help });
            }
            None => {
                let why = format!("has no column {column}");
                let help =
                    "name another table in `registry`, or give it the columns source_id and schema_name".to_owned();
                return Err(SourceError::Registry { registry, why, help });
            }
        }
    }
    Ok(())
}

/// Whether the mapping is there.
pub(super) async fn is_there(session: &Session, sources: &Sources) -> Result<bool, SourceError> {
    let asked = format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", literal(&table(&sources.registry)));
    Ok(session.value(&asked).await? == "t")
}

/// The schema that the mapping has for a source.
pub(super) async fn schema_of(session: &Session, sources: &Sources, id: &str) -> Result<Option<String>, SourceError> {
    let asked = format!(
        "SELECT s.schema_name::pg_catalog.text FROM {} AS s WHERE s.source_id::pg_catalog.text = {}",
        table(&sources.registry),
        literal(id)
    );
    Ok(first(&session.simple(&asked).await?))
}

/// The source that the mapping has for a schema.
pub(super) async fn holder_of(
    session: &Session,
    sources: &Sources,
    schema: &SchemaName,
) -> Result<Option<String>, SourceError> {
    let asked = format!(
        "SELECT s.source_id::pg_catalog.text FROM {} AS s WHERE s.schema_name::pg_catalog.text = {}",
        table(&sources.registry),
        literal(schema.as_str())
    );
    Ok(first(&session.simple(&asked).await?))
}

/// A row of the mapping as a name, or the sentence that says why it is none.
pub(super) fn parsed(topology: &Topology, sources: &Sources, id: &str, name: &str) -> Result<SchemaName, SourceError> {
    SchemaName::parse(topology, name).map_err(|why| SourceError::Registry {
        registry: sources.registry.to_string(),
        why: format!("maps the source {id:?} to the schema {name:?}, which {why}"),
        help: format!("mend or delete that row of {}", sources.registry),
    })
}

/// The schema of a registered source. Never a default.
///
/// # Errors
/// [`SourceError::Unknown`] with the names that may have been meant.
pub async fn lookup(session: &Session, topology: &Topology, id: &str) -> Result<SchemaName, SourceError> {
    let sources = declared(topology)?;
    check_id(id)?;
    let unknown =
        |near, count| SourceError::Unknown { id: id.to_owned(), registry: sources.registry.to_string(), near, count };
    if !is_there(session, sources).await? {
        return Err(unknown(Vec::new(), 0));
    }
    if let Some(name) = schema_of(session, sources, id).await? {
        return parsed(topology, sources, id, &name);
    }
    let asked = format!("SELECT s.source_id::pg_catalog.text FROM {} AS s ORDER BY 1", table(&sources.registry));
    let answers = session.simple(&asked).await?;
    let known: Vec<String> =
        answers.into_iter().flat_map(|one| one.rows).filter_map(|row| row.into_iter().next().flatten()).collect();
    let words: Vec<&str> = known.iter().map(String::as_str).collect();
    let near = pgrunbook_document::near(id, &words).into_iter().take(NEAR).map(str::to_owned).collect();
    Err(unknown(near, known.len()))
}

/// One row of the mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub source_id: String,
    /// As the table has it, whatever it is.
    pub schema: String,
    /// What is wrong with it: the schema is missing, or is none that a source may have.
    pub wrong: Option<String>,
}

/// What the mapping has, and how it fits to the schemas that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    pub sources: Vec<Listed>,
    /// Schemas of the pattern that are no source's. Not looked for where the pattern is the source alone.
    pub unregistered: Vec<String>,
}

impl Listing {
    /// Whether every source has its schema, and every such schema its source.
    pub fn is_whole(&self) -> bool {
        self.unregistered.is_empty() && self.sources.iter().all(|one| one.wrong.is_none())
    }
}

/// Reads the whole mapping. Empty where there is none.
///
/// # Errors
/// If the server cannot be asked.
pub async fn list(session: &Session, topology: &Topology) -> Result<Listing, SourceError> {
    let sources = declared(topology)?;
    let names = session.simple("SELECT n.nspname FROM pg_catalog.pg_namespace AS n ORDER BY 1").await?;
    let names: BTreeSet<String> =
        names.into_iter().flat_map(|one| one.rows).filter_map(|row| row.into_iter().next().flatten()).collect();
    let mut listing = Listing::default();
    if is_there(session, sources).await? {
        let read = format!(
            "SELECT s.source_id::pg_catalog.text, s.schema_name::pg_catalog.text FROM {} AS s
             ORDER BY s.source_id::pg_catalog.text COLLATE \"C\"",
            table(&sources.registry)
        );
        for (source_id, schema) in pairs(&session.simple(&read).await?) {
            let wrong = match SchemaName::parse(topology, &schema) {
                Err(why) => Some(format!("{schema:?} {why}")),
                Ok(_) if !names.contains(&schema) => Some(format!("the schema {schema} is not there")),
                Ok(_) => None,
            };
            listing.sources.push(Listed { source_id, schema, wrong });
        }
    }
    if !sources.before.is_empty() || !sources.after.is_empty() {
        let registered: BTreeSet<&str> = listing.sources.iter().map(|one| one.schema.as_str()).collect();
        let of_pattern =
            names.iter().filter(|name| !registered.contains(name.as_str()) && topology.may_be_sources(name).is_ok());
        listing.unregistered = of_pattern.cloned().collect();
    }
    Ok(listing)
}

fn first(answers: &[Answer]) -> Option<String> {
    answers.last()?.rows.first()?.first()?.clone()
}

/// Rows of two columns.
pub(super) fn pairs(answers: &[Answer]) -> Vec<(String, String)> {
    let value = |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let rows = answers.last().map_or(&[][..], |answer| answer.rows.as_slice());
    rows.iter().map(|row| (value(row, 0), value(row, 1))).collect()
}
