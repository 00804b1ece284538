//! A database made anew beside another, and the exchange of their names.

use std::time::Duration;

use pgrunbook_document::sql::quote;
use pgrunbook_engine::StepError;
use pgrunbook_postgres::{ConnectOptions, PgError, Session};
use sha2::{Digest, Sha256};

/// Settings whose stored value is a list of quoted names already, as `pg_dump` knows them too.
const LISTS: [&str; 5] = [
    "search_path",
    "temp_tablespaces",
    "session_preload_libraries",
    "local_preload_libraries",
    "unix_socket_directories",
];

/// Bytes of a name that PostgreSQL keeps.
const NAME_BYTES: usize = 63;

/// The names that a restore uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub database: String,
    /// While it is filled.
    pub fresh: String,
    /// What was there before.
    pub kept: String,
}

impl Names {
    /// Names that belong to one step of one run, so that after a crash they tell what that step did.
    pub fn of(database: &str, run: &str, step: &str) -> Self {
        let mark = &format!("{:x}", Sha256::digest(step))[..4];
        let named = |word: &str| {
            let tail = format!("_{word}_{run}_{mark}");
            let mut end = database.len().min(NAME_BYTES.saturating_sub(tail.len()));
            while !database.is_char_boundary(end) {
                end -= 1;
            }
            format!("{}{tail}", &database[..end])
        };
        Self { database: database.to_owned(), fresh: named("new"), kept: named("before") }
    }
}

/// A session in the same cluster, outside of the database.
pub(super) async fn outside(options: &ConnectOptions, name: &str) -> Result<Session, StepError> {
    let maintenance = if options.database == "postgres" { "template1" } else { "postgres" };
    match Session::connect(&options.with_database(maintenance), name).await {
        Err(error) if error.sqlstate() == Some("3D000") => {
            Session::connect(&options.with_database("template1"), name).await.map_err(PgError::into_step_error)
        }
        other => other.map_err(PgError::into_step_error),
    }
}

pub(super) async fn exists(session: &Session, database: &str) -> Result<bool, StepError> {
    let found = session
        .value(&format!("SELECT count(*) FROM pg_catalog.pg_database WHERE datname = {}", text(database)?))
        .await
        .map_err(PgError::into_step_error)?;
    Ok(found == "1")
}

/// Makes `names.fresh` like `names.database`: owner, encoding, locale, settings, privileges. It is empty.
pub(super) async fn make_like(session: &Session, names: &Names) -> Result<(), StepError> {
    let run = |error: PgError| error.into_step_error();
    session.execute(&format!("DROP DATABASE IF EXISTS {}", ident(&names.fresh)?)).await.map_err(run)?;
    // As JSON, since the columns of the locale differ from version to version.
    let answers = session
        .simple(&format!(
            "SELECT pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
                 pg_catalog.to_jsonb(d) ->> 'datlocprovider',
                 COALESCE(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale')
             FROM pg_catalog.pg_database AS d WHERE d.datname = {}",
            text(&names.database)?
        ))
        .await
        .map_err(run)?;
    let Some(row) = answers.last().and_then(|answer| answer.rows.first()) else {
        return Err(StepError::failed("no-database", format!("there is no database `{}`", names.database)));
    };
    let value = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let provider = match value(4).as_str() {
        "i" => format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", text(&value(5))?),
        "b" => format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", text(&value(5))?),
        _ => String::new(),
    };
    session
        .execute(&format!(
            "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}{provider}",
            ident(&names.fresh)?,
            ident(&value(0))?,
            text(&value(1))?,
            text(&value(2))?,
            text(&value(3))?,
        ))
        .await
        .map_err(run)?;
    for statement in properties(session, names).await? {
        session.execute(&statement).await.map_err(run)?;
    }
    Ok(())
}

/// What a dump of a database's content does not hold: its settings and privileges.
async fn properties(session: &Session, names: &Names) -> Result<Vec<String>, StepError> {
    let run = |error: PgError| error.into_step_error();
    let (from, to) = (text(&names.database)?, ident(&names.fresh)?);
    let mut statements = Vec::new();
    let settings = session
        .simple(&format!(
            "SELECT CASE WHEN s.setrole <> 0 THEN pg_catalog.pg_get_userbyid(s.setrole) END,
                 pg_catalog.split_part(c.line, '=', 1), pg_catalog.substr(c.line, pg_catalog.strpos(c.line, '=') + 1)
             FROM pg_catalog.pg_db_role_setting AS s, pg_catalog.unnest(s.setconfig) AS c (line)
             WHERE s.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = {from})"
        ))
        .await
        .map_err(run)?;
    for row in settings.last().map(|answer| answer.rows.as_slice()).unwrap_or_default() {
        let cell = |at: usize| row.get(at).cloned().flatten();
        let (name, value) = (cell(1).unwrap_or_default(), cell(2).unwrap_or_default());
        let value = if LISTS.contains(&name.as_str()) { value } else { text(&value)? };
        // Names of extensions' settings hold a dot, which is no part of a quoted name.
        let name = name.split('.').map(ident).collect::<Result<Vec<_>, _>>()?.join(".");
        statements.push(match cell(0) {
            Some(role) => format!("ALTER ROLE {} IN DATABASE {to} SET {name} TO {value}", ident(&role)?),
            None => format!("ALTER DATABASE {to} SET {name} TO {value}"),
        });
    }
    let privileges = session
        .simple(&format!(
            "SELECT CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable
             FROM pg_catalog.pg_database AS d, pg_catalog.aclexplode(d.datacl) AS a
             WHERE d.datname = {from} AND d.datacl IS NOT NULL"
        ))
        .await
        .map_err(run)?;
    let rows = privileges.last().map(|answer| answer.rows.as_slice()).unwrap_or_default();
    if !rows.is_empty() {
        statements.push(format!("REVOKE ALL ON DATABASE {to} FROM PUBLIC"));
    }
    for row in rows {
        let cell = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let role = match row.first().cloned().flatten() {
            Some(role) => ident(&role)?,
            None => "PUBLIC".to_owned(),
        };
        let option = if cell(2) == "t" { " WITH GRANT OPTION" } else { "" };
        statements.push(format!("GRANT {} ON DATABASE {to} TO {role}{option}", cell(1)));
    }
    Ok(statements)
}

/// Gives `from` the name `away` and `to` the name of `from`, in one transaction. Ends the sessions of both.
pub(super) async fn exchange(session: &Session, from: &str, away: &str, to: &str) -> Result<(), StepError> {
    let statement = format!(
        "BEGIN;
         SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
         WHERE datname IN ({}, {}) AND pid <> pg_catalog.pg_backend_pid();
         ALTER DATABASE {} RENAME TO {};
         ALTER DATABASE {} RENAME TO {};
         COMMIT",
        text(from)?,
        text(to)?,
        ident(from)?,
        ident(away)?,
        ident(to)?,
        ident(from)?,
    );
    // Applications connect again at once; the server waits 5 s for each rename by itself.
    let mut tries = 0;
    loop {
        tries += 1;
        match session.execute(&statement).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                let in_use = error.sqlstate() == Some("55006");
                if !session.is_closed() {
                    session.execute("ROLLBACK").await.map_err(PgError::into_step_error)?;
                }
                if !in_use || tries == 6 {
                    let step = error.into_step_error();
                    return Err(if in_use {
                        step.help("clients connect again faster than they can be sent away: stop them, or pause the pooler, then resume")
                    } else {
                        step
                    });
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

fn ident(name: &str) -> Result<String, StepError> {
    quote::ident(name).map_err(|_| StepError::failed("name", "a name holds a NUL byte"))
}

fn text(value: &str) -> Result<String, StepError> {
    quote::literal(value).map_err(|_| StepError::failed("name", "a name holds a NUL byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_tell_steps_apart() {
        let names = Names::of("ledger", "20261121-041502-3fa9", "back");
        assert!(names.kept.starts_with("ledger_before_20261121-041502-3fa9_"));
        assert_ne!(names, Names::of("ledger", "20261121-041502-3fa9", "other"));
        let long = Names::of(&"é".repeat(31), "20261121-041502-3fa9", "back");
        assert!(long.kept.len() <= NAME_BYTES && long.fresh.len() <= NAME_BYTES);
        assert_ne!(long.kept, long.fresh);
    }
}
