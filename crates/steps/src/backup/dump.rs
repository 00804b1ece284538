//! One `pg_dump` into one file, and the proof that it can be restored.

use std::path::{Path, PathBuf};

use pgrunbook_document::sql::quote;
use pgrunbook_engine::fault::{self, Point};
use pgrunbook_engine::{Evidence, StepError};
use pgrunbook_postgres::sandbox::{SUPERUSER, Sandbox, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, PgError, Session};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::compare::{TableSum, compare, sums_of};
use super::programs::{Audience, call, find};
use crate::fence;
use crate::source::Snapshot;
use crate::topology::Topology;

/// How a backup is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// `pg_restore --list`: the file is whole as far as its table of contents tells.
    #[default]
    List,
    /// Restored into a throwaway server, and every table compared with the source at the dump's snapshot.
    Restore,
}

/// What is dumped, and how.
#[derive(Debug, Clone, Default)]
pub struct DumpOptions {
    pub verify: Verify,
    /// Only these schemas; all if none is named.
    pub schemas: Vec<String>,
    /// Not these tables' rows (patterns of `pg_dump --exclude-table-data`).
    pub exclude_data: Vec<String>,
}

/// A dump that was made and verified.
#[derive(Debug, Clone)]
pub struct Dump {
    pub path: PathBuf,
    pub bytes: u64,
    pub sha256: String,
    pub evidence: Evidence,
}

/// Dumps a database into `path`, which appears only when it is whole and verified.
///
/// # Errors
/// If the server or the programs fail, or the file does not hold what the source held.
pub async fn dump(
    source: &ConnectOptions,
    path: &Path,
    options: &DumpOptions,
    application_name: &str,
    audience: Audience<'_>,
) -> Result<Dump, StepError> {
    dump_at(source, path, options, None, application_name, audience).await
}

/// Dumps one source: its schema, and in a file [`beside`] its row in the mapping and how far its chains have come, all as of
/// one moment. `options` names no schemas.
///
/// # Errors
/// As [`dump`]; if there is no such source.
pub async fn dump_source(
    source: &ConnectOptions,
    path: &Path,
    options: &DumpOptions,
    (topology, id): (&Topology, &str),
    application_name: &str,
    audience: Audience<'_>,
) -> Result<Dump, StepError> {
    dump_at(source, path, options, Some((topology, id)), application_name, audience).await
}

/// The file beside a dump that says which source it is of.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".source.json");
    name.into()
}

async fn dump_at(
    source: &ConnectOptions,
    path: &Path,
    options: &DumpOptions,
    one: Option<(&Topology, &str)>,
    application_name: &str,
    audience: Audience<'_>,
) -> Result<Dump, StepError> {
    let session = Session::connect(source, application_name).await.map_err(PgError::into_step_error)?;
    let read = |error: PgError| error.into_step_error();
    let facts = session
        .simple(
            "SELECT current_setting('server_version_num')::int / 10000, pg_database_size(current_database()),
                 CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END",
        )
        .await
        .map_err(read)?;
    let row = facts.last().and_then(|answer| answer.rows.first()).cloned().unwrap_or_default();
    let fact = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let (major, size, lsn) = (fact(0).parse().unwrap_or(0), fact(1).parse().ok(), fact(2));
    // One snapshot for the dump and for the sums that its restore is compared with.
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await.map_err(read)?;
    let snapshot = session.value("SELECT pg_catalog.pg_export_snapshot()").await.map_err(read)?;

    let whose = match one {
        Some((topology, id)) => Some(Snapshot::read(&session, topology, id).await?),
        None => None,
    };
    let schemas = whose.as_ref().map_or_else(|| options.schemas.clone(), |whose| vec![whose.schema.clone()]);

    let partial = partial(path);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| cannot("made", folder, &error))?;
    }
    // What an earlier attempt left.
    let _ = std::fs::remove_file(&partial);
    private(&partial)?;
    let mut arguments = vec![
        "--format=custom".to_owned(),
        format!("--file={}", partial.display()),
        format!("--snapshot={snapshot}"),
        "--no-password".to_owned(),
        "--lock-wait-timeout=30s".to_owned(),
    ];
    arguments.extend(schemas.iter().map(|schema| format!("--schema={}", pattern(schema))));
    arguments.extend(options.exclude_data.iter().map(|table| format!("--exclude-table-data={table}")));
    let program = find("pg_dump", major)?;
    fault::pass(Point::BeforeEffect);
    call(&program, &arguments, Some(source), Some((&partial, size)), audience).await?;
    let entries = list(&partial, major, audience).await?;
    let mut evidence = Evidence::default()
        .fact("lsn", lsn)
        .fact("server_major", major)
        .fact("entries", entries)
        .fact("verified", if options.verify == Verify::List { "list" } else { "restore" });
    if options.verify == Verify::Restore {
        let wanted = sums_of(&session, &schemas, &options.exclude_data).await?;
        let roles = policy_roles(&session).await?;
        let tables = verify_by_restore(&partial, major, &wanted, &roles, audience).await?;
        let rows: u64 = wanted.iter().map(|table| table.rows).sum();
        evidence = evidence.fact("tables_compared", tables).fact("rows_compared", rows);
    }
    session.execute("ROLLBACK").await.map_err(read)?;
    let (bytes, sha256) = digest(&partial)?;
    if let Some(whose) = &whose {
        // First, so that a dump which has its name is never without it.
        let (path, partial) = (beside(path), self::partial(&beside(path)));
        private(&partial)?;
        let text = serde_json::to_vec_pretty(whose).expect("texts are JSON");
        std::fs::write(&partial, text).map_err(|error| cannot("written", &partial, &error))?;
        durable(&partial, &path)?;
        evidence = evidence
            .fact("source_id", whose.source_id.clone())
            .fact("schema", whose.schema.clone())
            .fact("source_sha256", digest(&path)?.1);
    }
    durable(&partial, path)?;
    fault::pass(Point::AfterEffect);
    evidence = evidence
        .fact("file", path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()))
        .fact("bytes", bytes)
        .fact("sha256", sha256.clone())
        .fact("source", source.to_string());
    evidence.summary = format!(
        "{} in {}, {}",
        size_of(bytes),
        path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        match options.verify {
            Verify::List => format!("{entries} entries listed"),
            Verify::Restore => "restored and compared".to_owned(),
        }
    );
    Ok(Dump { path: path.to_owned(), bytes, sha256, evidence })
}

/// Counts the entries in a dump's table of contents.
///
/// # Errors
/// If `pg_restore` cannot read it, or it holds nothing.
pub async fn list(path: &Path, major: u32, audience: Audience<'_>) -> Result<usize, StepError> {
    let text = contents(path, major, audience).await?;
    let entries = text.lines().filter(|line| !line.starts_with(';') && !line.trim().is_empty()).count();
    if entries == 0 {
        return Err(StepError::failed(
            "bad-backup",
            "the backup holds nothing: the database or the selection is empty",
        ));
    }
    Ok(entries)
}

/// A dump's table of contents, as `pg_restore --list` prints it.
async fn contents(path: &Path, major: u32, audience: Audience<'_>) -> Result<String, StepError> {
    let program = find("pg_restore", major)?;
    let quiet = Audience { watcher: &Silent, ..audience };
    // Into a file, since a database may have more entries than lines of output are kept.
    let contents = path.with_extension("contents");
    let arguments = ["--list".to_owned(), format!("--file={}", contents.display()), path.display().to_string()];
    let listed = call(&program, &arguments, None, None, quiet).await;
    let text = std::fs::read_to_string(&contents);
    let _ = std::fs::remove_file(&contents);
    listed.map_err(|error| StepError::failed("bad-backup", format!("the backup cannot be read: {error}")))?;
    text.map_err(|error| cannot("read", &contents, &error))
}

/// A selection of a dump's entries in a file, which is gone with this.
#[derive(Debug)]
pub struct Selection(PathBuf);

impl Selection {
    /// For `pg_restore`.
    pub fn argument(&self) -> String {
        format!("--use-list={}", self.0.display())
    }
}

impl Drop for Selection {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Everything but the triggers of a fence, where a dump of some schemas was made while they were fenced: the function that
/// the triggers call is in another schema, and who is to be refused is a matter of the moment, not of the rows. None where
/// the dump has no such trigger, or has the function too.
///
/// # Errors
/// If `pg_restore` cannot read it.
pub async fn without_fence(path: &Path, major: u32, audience: Audience<'_>) -> Result<Option<Selection>, StepError> {
    let text = contents(path, major, audience).await?;
    let Some(rest) = entries_without_fence(&text) else { return Ok(None) };
    let selection = Selection(path.with_extension("selection"));
    std::fs::write(&selection.0, rest).map_err(|error| cannot("written", &selection.0, &error))?;
    Ok(Some(selection))
}

/// `3400; 2620 16480 TRIGGER health notes pgrunbook_fence owner`: schema, table, trigger, owner.
fn entries_without_fence(contents: &str) -> Option<String> {
    let is_fence = |line: &&str| {
        line.contains(" TRIGGER ") && fence::TRIGGER_NAMES.iter().any(|name| line.contains(&format!(" {name} ")))
    };
    if !contents.lines().any(|line| is_fence(&line)) || contents.contains(" FUNCTION pgrunbook refuse_write(") {
        return None;
    }
    Some(contents.lines().filter(|line| !is_fence(line)).map(|line| format!("{line}\n")).collect())
}

/// The roles that policies are for. Without them a policy cannot be restored: `pg_restore` has a way to leave out owners and
/// privileges, and none for these.
async fn policy_roles(session: &Session) -> Result<Vec<String>, StepError> {
    let answers = session
        .simple(
            "SELECT rolname FROM pg_catalog.pg_roles
             WHERE oid IN (SELECT pg_catalog.unnest(polroles) FROM pg_catalog.pg_policy) ORDER BY rolname",
        )
        .await
        .map_err(PgError::into_step_error)?;
    Ok(answers.into_iter().flat_map(|answer| answer.rows).flatten().flatten().collect())
}

/// Restores into a throwaway server that has these roles, and compares; returns the number of tables.
async fn verify_by_restore(
    path: &Path,
    major: u32,
    wanted: &[TableSum],
    roles: &[String],
    audience: Audience<'_>,
) -> Result<usize, StepError> {
    audience.say("restoring into a throwaway server");
    let sandbox = Sandbox::start(SandboxOptions { major: Some(major), ..SandboxOptions::default() })
        .await
        .map_err(|error| StepError::failed("sandbox", format!("no throwaway server could be started: {error}")))?;
    let database = sandbox
        .database("restored")
        .await
        .map_err(|error| StepError::failed("sandbox", format!("no throwaway database could be made: {error}")))?;
    let session = Session::connect(&database, "pgrunbook:verify").await.map_err(PgError::into_step_error)?;
    for role in roles.iter().filter(|role| *role != SUPERUSER) {
        let role = quote::ident(role).expect("a name that the server gave has no NUL");
        session.execute(&format!("CREATE ROLE {role} NOLOGIN")).await.map_err(PgError::into_step_error)?;
    }
    restore_into(path, &database, major, true, audience).await?;
    let found = sums_of(&session, &[], &[]).await?;
    let differences = compare(wanted, &found);
    if let Some(first) = differences.first() {
        return Err(StepError::failed(
            "bad-backup",
            format!("the restored backup is not the source: {first} ({} differences)", differences.len()),
        ));
    }
    Ok(wanted.len())
}

/// Restores a dump into an existing, empty database. `elsewhere`: roles of the source need not exist there.
///
/// # Errors
/// If an object cannot be restored; what had been restored stays in that database.
pub async fn restore_into(
    path: &Path,
    database: &ConnectOptions,
    major: u32,
    elsewhere: bool,
    audience: Audience<'_>,
) -> Result<(), StepError> {
    let mut arguments = vec!["--exit-on-error".to_owned(), "--no-password".to_owned()];
    if elsewhere {
        arguments.extend(["--no-owner".to_owned(), "--no-privileges".to_owned()]);
    }
    let jobs = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    arguments.push(format!("--jobs={jobs}"));
    let selection = without_fence(path, major, audience).await?;
    arguments.extend(selection.iter().map(Selection::argument));
    arguments.push(format!("--dbname={}", database.database));
    arguments.push(path.display().to_string());
    let program = find("pg_restore", major)?;
    call(&program, &arguments, Some(database), None, audience).await.map(drop)
}

/// The digest of a file, in hex, and its length.
///
/// # Errors
/// If it cannot be read.
pub fn digest(path: &Path) -> Result<(u64, String), StepError> {
    let mut file = std::fs::File::open(path).map_err(|error| cannot("read", path, &error))?;
    let mut hasher = Sha256::new();
    let bytes = std::io::copy(&mut file, &mut hasher).map_err(|error| cannot("read", path, &error))?;
    Ok((bytes, format!("{:x}", hasher.finalize())))
}

/// Where a file grows before it is whole.
pub fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Makes the file for its owner alone: it will hold everything that the database holds.
pub fn private(path: &Path) -> Result<(), StepError> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map(drop).map_err(|error| cannot("made", path, &error))
}

/// Gives a whole file its name, so that it is there after a power cut too.
///
/// # Errors
/// If the disk is full or the folder cannot be written.
pub fn durable(partial: &Path, path: &Path) -> Result<(), StepError> {
    let sync = |path: &Path| std::fs::File::open(path).and_then(|file| file.sync_all());
    sync(partial).map_err(|error| cannot("written", partial, &error))?;
    std::fs::rename(partial, path).map_err(|error| cannot("named", path, &error))?;
    match path.parent() {
        Some(folder) => sync(folder).map_err(|error| cannot("written", folder, &error)),
        None => Ok(()),
    }
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> StepError {
    StepError::failed("file", format!("{} cannot be {what}: {error}", path.display()))
}

/// `pg_dump --schema` takes patterns; a name is quoted so that it is only itself.
fn pattern(schema: &str) -> String {
    quote::ident(schema).map_or_else(
        |_| schema.to_owned(),
        |name| {
            if name.starts_with('"') { name } else { format!("\"{name}\"") }
        },
    )
}

/// Bytes for people.
pub fn size_of(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let of = |unit: u64| bytes as f64 / unit as f64;
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{:.1} KiB", of(1_024)),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", of(1_048_576)),
        _ => format!("{:.1} GiB", of(1_073_741_824)),
    }
}

/// Nobody wants to see a table of contents go by.
struct Silent;

impl pgrunbook_engine::step::Watcher for Silent {
    fn progress(&self, _step: &pgrunbook_document::StepId, _progress: pgrunbook_engine::step::Progress) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_left_out_where_its_function_is_not_in_the_dump() {
        let contents = "; a comment\n\
            3398; 2606 16477 CONSTRAINT health notes notes_pkey owner\n\
            3400; 2620 16480 TRIGGER health notes pgrunbook_fence owner\n\
            3401; 2620 16481 TRIGGER health notes pgrunbook_fence_row owner\n\
            3402; 2620 16482 TRIGGER health notes touched owner\n";
        let rest = entries_without_fence(contents).expect("it has a fence");
        assert!(rest.contains("notes_pkey") && rest.contains("touched") && !rest.contains("pgrunbook_fence"), "{rest}");
        let whole = format!("{contents}250; 1255 16403 FUNCTION pgrunbook refuse_write() postgres\n");
        assert_eq!(entries_without_fence(&whole), None, "a whole database comes back with its fences and their record");
        assert_eq!(entries_without_fence("3402; 2620 16482 TRIGGER health notes touched owner\n"), None);
    }
}
