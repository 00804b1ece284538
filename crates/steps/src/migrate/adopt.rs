//! Takes over the history that another tool has kept, without running anything.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::{PgError, Session};

use super::chain::{Chain, Migration, normalise};
use super::history::{self, Entry};
use super::layout::Version;
use super::lease::Lease;
use super::runner::{Around, chain_error};
use super::standing::RowState;

/// A tool whose history can be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Flyway,
    Sqlx,
    Supabase,
    Dbmate,
    GolangMigrate,
    Alembic,
    Drizzle,
}

/// Which rows a tool's table holds.
enum Rows {
    /// One for each version.
    Each,
    /// One, with the newest version.
    Newest,
}

impl Tool {
    /// Every tool, in the order in which they are looked for: the more telling tables first.
    pub const ALL: [Self; 7] =
        [Self::Flyway, Self::Sqlx, Self::Supabase, Self::Alembic, Self::Drizzle, Self::GolangMigrate, Self::Dbmate];

    /// As it is kept in the history's `origin`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flyway => "flyway",
            Self::Sqlx => "sqlx",
            Self::Supabase => "supabase",
            Self::Dbmate => "dbmate",
            Self::GolangMigrate => "golang-migrate",
            Self::Alembic => "alembic",
            Self::Drizzle => "drizzle",
        }
    }

    /// Whether its table is there.
    fn is_there(self) -> &'static str {
        match self {
            Self::Flyway => "to_regclass('flyway_schema_history') IS NOT NULL",
            Self::Sqlx => "to_regclass('_sqlx_migrations') IS NOT NULL",
            Self::Supabase => "to_regclass('supabase_migrations.schema_migrations') IS NOT NULL",
            Self::Alembic => "to_regclass('alembic_version') IS NOT NULL",
            Self::Drizzle => "to_regclass('drizzle.__drizzle_migrations') IS NOT NULL",
            // Both have a table of this name; only golang-migrate's knows of dirt.
            Self::GolangMigrate => {
                "EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('schema_migrations') AND attname = 'dirty')"
            }
            Self::Dbmate => {
                "to_regclass('schema_migrations') IS NOT NULL AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('schema_migrations') AND attname = 'dirty')"
            }
        }
    }

    /// Its versions, oldest first, and whether each was finished.
    fn versions(self) -> (&'static str, Rows) {
        match self {
            Self::Flyway => (
                "SELECT version, success FROM flyway_schema_history WHERE version IS NOT NULL AND type <> 'SCHEMA' ORDER BY installed_rank",
                Rows::Each,
            ),
            Self::Sqlx => ("SELECT version::text, success FROM _sqlx_migrations ORDER BY version", Rows::Each),
            Self::Supabase => {
                ("SELECT version::text, true FROM supabase_migrations.schema_migrations ORDER BY version", Rows::Each)
            }
            Self::Dbmate => ("SELECT version::text, true FROM schema_migrations ORDER BY version", Rows::Each),
            Self::GolangMigrate => ("SELECT version::text, NOT dirty FROM schema_migrations", Rows::Newest),
            Self::Alembic => ("SELECT version_num::text, true FROM alembic_version", Rows::Newest),
            Self::Drizzle => {
                ("SELECT created_at::text, true FROM drizzle.__drizzle_migrations ORDER BY created_at", Rows::Each)
            }
        }
    }
}

/// Finds out whose history is there.
///
/// # Errors
/// If the target cannot be asked.
pub async fn find(session: &Session) -> Result<Option<Tool>, PgError> {
    for tool in Tool::ALL {
        if session.value(&format!("SELECT {}", tool.is_there())).await? == "t" {
            return Ok(Some(tool));
        }
    }
    Ok(None)
}

/// Records everything that the tool has applied as applied. Returns the versions, as the files write them.
///
/// # Errors
/// If an applied version has no file, was left unfinished, or the chain has a history of its own already.
pub async fn adopt(
    session: &Session,
    chain: &Chain,
    tool: Tool,
    around: &Around<'_>,
) -> Result<Vec<String>, StepError> {
    let run = PgError::into_step_error;
    let (query, rows) = tool.versions();
    let answers = session.simple(query).await.map_err(run)?;
    let found = answers.into_iter().next_back().map(|answer| answer.rows).unwrap_or_default();
    let mut applied: Vec<&Migration> = Vec::new();
    for row in found {
        let cell = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let (version, finished) = (cell(0), cell(1) == "t");
        if !finished {
            return Err(StepError::unusable(
                "unfinished",
                format!(
                    "{} left version {version} unfinished: put that right with it first. Nothing was changed.",
                    tool.name()
                ),
            ));
        }
        let migration = file_of(chain, tool, &version)?.ok_or_else(|| {
            StepError::unusable(
                "no-file",
                format!(
                    "{} has applied version {version}, and the chain has no file of it. Nothing was changed.",
                    tool.name()
                ),
            )
            .help("bring the file back, or begin with `pgrunbook migrate baseline`")
        })?;
        match rows {
            Rows::Each => applied.push(migration),
            Rows::Newest => applied.extend(chain.migrations.iter().filter(|one| one.version <= migration.version)),
        }
    }
    history::create(session).await?;
    if !history::read(session, &chain.name).await.map_err(run)?.is_empty() {
        return Err(StepError::unusable(
            "adopted",
            format!("chain `{}` has a history already. Nothing was changed.", chain.name),
        ));
    }
    let lease = Lease::take(session, &chain.name, None, std::time::Duration::from_secs(10), around).await?;
    let mut text = String::from("BEGIN;");
    for migration in &applied {
        let content = String::from_utf8(migration.up.read().map_err(chain_error)?).unwrap_or_default();
        let version = migration.version.to_string();
        let entry = Entry {
            chain: &chain.name,
            version: &version,
            repeatable: false,
            name: &migration.name,
            sha256: Some(&migration.up.sha256),
            content: Some(&normalise(&content)),
            mode: "adopted",
            origin: tool.name(),
            operator: around.operator,
            run: None,
        };
        text.push_str(&history::insert(&entry, &lease.token, RowState::Applied));
    }
    text.push_str("COMMIT");
    let written = session.execute(&text).await;
    if written.is_err() {
        let _ = session.execute("ROLLBACK").await;
    }
    let _ = lease.release(session, &[]).await;
    written.map_err(run)?;
    Ok(applied.iter().map(|migration| migration.version.to_string()).collect())
}

/// The file of a version, as the tool writes versions.
fn file_of<'c>(chain: &'c Chain, tool: Tool, version: &str) -> Result<Option<&'c Migration>, StepError> {
    match tool {
        Tool::Drizzle => {
            // The time at which it was generated; the journal beside the files knows which one that is.
            let path = chain.folder.join("meta/_journal.json");
            let unreadable = |why: String| StepError::unusable("drizzle", format!("{}: {why}", path.display()));
            let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
            let journal: serde_json::Value =
                serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
            let entries = journal["entries"].as_array().cloned().unwrap_or_default();
            let entry = entries.iter().find(|entry| entry["when"].as_i64() == version.parse().ok());
            let tag = entry.and_then(|entry| entry["tag"].as_str()).unwrap_or_default();
            let number = tag.split('_').next().unwrap_or_default();
            Ok(Version::parse(number).and_then(|version| chain.find(&version)))
        }
        // Its identifiers are no numbers: they stand in the file's name.
        Tool::Alembic => Ok(chain.migrations.iter().find(|migration| {
            migration.version.as_str() == version || migration.name.split(['_', '-']).any(|part| part == version)
        })),
        _ => Ok(Version::parse(version).and_then(|version| chain.find(&version))),
    }
}
