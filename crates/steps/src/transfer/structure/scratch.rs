//! A database to be thrown away: on the target's server, else in a throwaway cluster of this machine.

use std::time::Duration;

use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, installed};
use pgrunbook_postgres::{ConnectOptions, Session, quote};

use super::super::error::TransferError;
use crate::backup::programs::find;

/// What every scratch database is called by, before the second it was made in.
const PREFIX: &str = "pgrunbook_scratch_";

/// What a crash has left is taken away by the next one, when it is older than any derivation takes.
const LEFT: Duration = Duration::from_secs(3600);

/// Until the server has let go of the last session of a database that is dropped.
const SETTLE: &str = "SET statement_timeout = '30s'";

pub(super) struct Scratch {
    pub database: ConnectOptions,
    pub major: u32,
    /// Whether its cluster is ours alone: then roles can be made in it.
    pub alone: bool,
    /// From where it is dropped; the sandbox goes by itself.
    maintenance: Option<Session>,
    _sandbox: Option<Sandbox>,
}

impl Scratch {
    /// Makes one whose server understands the source's definitions, and which an installed `pg_dump` can read again.
    pub async fn make(target: &Session, source_major: u32, target_major: u32) -> Result<Self, TransferError> {
        let why = match find("pg_dump", target_major) {
            Ok(_) if target_major >= source_major => match Self::on_server(target, target_major).await {
                Ok(scratch) => return Ok(scratch),
                // 42501: no CREATEDB.
                Err(TransferError::Server(error)) if error.sqlstate() == Some("42501") => error.to_string(),
                Err(error) => return Err(error),
            },
            Ok(_) => "the target is older than the source".to_owned(),
            Err(error) => error.to_string(),
        };
        let major = installed()
            .map(|server| server.major)
            .filter(|major| *major >= source_major && find("pg_dump", *major).is_ok())
            .min()
            .ok_or(TransferError::Scratch { why })?;
        Self::of_this_machine(major).await
    }

    async fn on_server(target: &Session, major: u32) -> Result<Self, TransferError> {
        let maintenance = Session::connect(target.options(), "pgrunbook:scratch").await?;
        maintenance.execute(SETTLE).await?;
        sweep(&maintenance).await?;
        let seconds = now(&maintenance).await?;
        // Two at once have two backends.
        let name = format!("{PREFIX}{seconds}_{}", maintenance.backend_pid());
        let quoted = quote::ident(&name).unwrap_or_default();
        maintenance
            .execute(&format!(
                "CREATE DATABASE {quoted} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
            ))
            .await?;
        let database = target.options().with_database(&name);
        Ok(Self { database, major, alone: false, maintenance: Some(maintenance), _sandbox: None })
    }

    async fn of_this_machine(major: u32) -> Result<Self, TransferError> {
        let failed =
            |error: pgrunbook_postgres::sandbox::SandboxError| TransferError::Scratch { why: error.to_string() };
        let options = SandboxOptions { major: Some(major), ..SandboxOptions::default() };
        let sandbox = Sandbox::start(options).await.map_err(failed)?;
        let database = sandbox.database("scratch").await.map_err(failed)?;
        Ok(Self { database, major, alone: true, maintenance: None, _sandbox: Some(sandbox) })
    }

    /// Drops it. Its sessions must be closed, or end now.
    pub async fn drop(self) -> Result<(), TransferError> {
        if let Some(maintenance) = &self.maintenance {
            drop_database(maintenance, &self.database.database).await?;
        }
        Ok(())
    }
}

/// The server's clock, in seconds: those of two operators' machines may differ.
const NOW: &str = "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp())::pg_catalog.int8";

async fn now(session: &Session) -> Result<u64, TransferError> {
    Ok(session.value(NOW).await?.parse().unwrap_or_default())
}

async fn drop_database(session: &Session, name: &str) -> Result<(), TransferError> {
    let quoted = quote::ident(name).unwrap_or_default();
    Ok(session.execute(&format!("DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")).await?)
}

/// Databases of ours that nobody is connected to.
const LEFTOVERS: &str = "SELECT d.datname FROM pg_catalog.pg_database AS d
WHERE d.datname LIKE 'pgrunbook\\_scratch\\_%' AND pg_catalog.pg_has_role(d.datdba, 'USAGE')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.datid = d.oid)";

/// The second in which a database of this name was made by us; of any other name nothing is known.
fn made(name: &str) -> Option<u64> {
    let (seconds, backend) = name.strip_prefix(PREFIX)?.split_once('_')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(backend) && is_number(seconds) { seconds.parse().ok() } else { None }
}

async fn sweep(session: &Session) -> Result<(), TransferError> {
    let now = now(session).await?;
    for row in session.simple(LEFTOVERS).await?.into_iter().flat_map(|answer| answer.rows) {
        let name = row.into_iter().next().flatten().unwrap_or_default();
        if made(&name).is_some_and(|made| made.saturating_add(LEFT.as_secs()) < now) {
            drop_database(session, &name).await?;
        }
    }
    Ok(())
}
