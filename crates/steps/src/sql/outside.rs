//! Statements that cannot run in a transaction: what a crash leaves of them, how that is found, and how it is mended.

use pgrunbook_document::sql::{Name, Outside, quote};
use pgrunbook_postgres::{PgError, Session};

/// How the target stands to a statement that was or will be run outside of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stands {
    /// Its effect is there.
    Done,
    /// It is not, or running it (again) is safe. What must be run before, to clear away what an attempt left.
    Open { before: Vec<String> },
    /// Nobody can tell from the outside.
    Unknown(&'static str),
}

/// Asks the target.
///
/// # Errors
/// If it cannot be asked.
pub async fn stands(session: &Session, outside: &Outside) -> Result<Stands, PgError> {
    let open = || Ok(Stands::Open { before: Vec::new() });
    match outside {
        Outside::CreateIndex { index: Some(index), table, .. } => {
            // The index lives in its table's schema.
            let found = rows(
                session,
                &format!(
                    "SELECT i.indisvalid AND i.indisready, n.nspname FROM pg_catalog.pg_index AS i
                     JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
                     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                     WHERE i.indrelid = pg_catalog.to_regclass({}) AND c.relname = {}",
                    literal(&written(table)),
                    literal(index)
                ),
            )
            .await?;
            Ok(match found.first().map(|row| (row[0].as_str(), row[1].clone())) {
                None => Stands::Open { before: Vec::new() },
                Some(("t", _)) => Stands::Done,
                Some((_, schema)) => {
                    let name = written(&Name { schema: Some(schema), name: index.clone() });
                    Stands::Open { before: vec![format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")] }
                }
            })
        }
        Outside::CreateIndex { index: None, .. } => {
            Ok(Stands::Unknown("the server chose the index's name: name it in the statement"))
        }
        Outside::DropIndex { index } => {
            let there = format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", literal(&written(index)));
            if session.value(&there).await? == "t" { open() } else { Ok(Stands::Done) }
        }
        Outside::Reindex { .. } => {
            // Rebuilding once more is safe; half-built copies of an attempt that died stay behind invalid.
            let left = rows(
                session,
                "SELECT n.nspname, c.relname FROM pg_catalog.pg_index AS i
                 JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                 WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index AS p WHERE p.relid = i.indrelid)",
            )
            .await?;
            let before = left.into_iter().map(|row| {
                let name = Name { schema: Some(row[0].clone()), name: row[1].clone() };
                format!("DROP INDEX CONCURRENTLY IF EXISTS {}", written(&name))
            });
            Ok(Stands::Open { before: before.collect() })
        }
        Outside::DetachPartition { table, partition } => {
            let pending = rows(
                session,
                &format!(
                    "SELECT pg_catalog.to_jsonb(i) ->> 'inhdetachpending' FROM pg_catalog.pg_inherits AS i
                     WHERE i.inhparent = pg_catalog.to_regclass({}) AND i.inhrelid = pg_catalog.to_regclass({})",
                    literal(&written(table)),
                    literal(&written(partition))
                ),
            )
            .await?;
            Ok(match pending.first().map(|row| row[0].as_str()) {
                None => Stands::Done,
                Some("true") => Stands::Open {
                    before: vec![format!(
                        "ALTER TABLE {} DETACH PARTITION {} FINALIZE",
                        written(table),
                        written(partition)
                    )],
                },
                Some(_) => Stands::Open { before: Vec::new() },
            })
        }
        Outside::Other(what) => match *what {
            "CREATE DATABASE" | "CREATE TABLESPACE" | "DROP DATABASE" | "DROP TABLESPACE" => {
                Ok(Stands::Unknown("look whether it is there"))
            }
            what if what.contains("SUBSCRIPTION") => Ok(Stands::Unknown("look at pg_subscription and at the slot")),
            // VACUUM, REINDEX, CLUSTER, ALTER SYSTEM, DISCARD: once more changes nothing more.
            _ => open(),
        },
    }
}

/// Whether clearing away has done the statement's work already, so that it must not run again.
pub fn is_finished_by(before: &[String]) -> bool {
    before.iter().any(|statement| statement.ends_with(" FINALIZE"))
}

/// A name as SQL.
fn written(name: &Name) -> String {
    // Names come from SQL text or the catalog; neither holds NUL.
    let ident = |name: &str| quote::ident(name).unwrap_or_default();
    match &name.schema {
        Some(schema) => format!("{}.{}", ident(schema), ident(&name.name)),
        None => ident(&name.name),
    }
}

fn literal(text: &str) -> String {
    quote::literal(text).unwrap_or_default()
}

/// The rows of one query; null is the empty text.
async fn rows(session: &Session, query: &str) -> Result<Vec<Vec<String>>, PgError> {
    let answers = session.simple(query).await?;
    let rows = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    Ok(rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
}
