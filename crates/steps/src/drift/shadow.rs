//! A database of what the files make, on a throwaway server.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, PgError, Session, quote};

use super::error::DriftError;
use crate::migrate::chain::Chain;
use crate::migrate::layout::Version;
use crate::migrate::{Applied, Around, Goal, Inside, Options, Runner};

/// What a shadow is built from.
pub struct ShadowOf<'a> {
    /// In this order.
    pub chains: Vec<Chain>,
    /// The target: its roles, its version and who connects are the shadow's too, and of each chain only what is applied there.
    pub live: &'a Session,
    /// Also what is pending.
    pub pending: bool,
}

/// A shadow, which goes away with this value.
pub struct Shadow {
    /// As superuser.
    pub options: ConnectOptions,
    /// How many migrations it was built from.
    pub migration_count: usize,
    _sandbox: Sandbox,
}

const TARGET: &str = "SELECT current_database(), current_user, current_setting('server_version_num')::int / 10000";

/// Roles that are not the server's own, without passwords.
const ROLES: &str = "SELECT pg_catalog.format('CREATE ROLE %I %s %s %s %s %s %s %s', r.rolname,
    CASE WHEN r.rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END, CASE WHEN r.rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
    CASE WHEN r.rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
    CASE WHEN r.rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END, CASE WHEN r.rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
    CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END)
FROM pg_catalog.pg_roles AS r WHERE r.rolname !~ '^pg_' AND r.rolname <> 'postgres' ORDER BY r.rolname";

const MEMBERSHIPS: &str = "SELECT pg_catalog.format('GRANT %I TO %I%s', r.rolname, m.rolname, CASE WHEN a.admin_option THEN ' WITH ADMIN OPTION' END)
FROM pg_catalog.pg_auth_members AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.roleid JOIN pg_catalog.pg_roles AS m ON m.oid = a.member
WHERE m.rolname !~ '^pg_' ORDER BY 1";

impl Shadow {
    /// Starts a server of the target's version, makes its roles, and applies the chains as the role that is connected to the target.
    ///
    /// # Errors
    /// If no such version is installed, or a file fails.
    pub async fn build(of: ShadowOf<'_>, around: &Around<'_>) -> Result<Self, DriftError> {
        let answers = of.live.simple(TARGET).await?;
        let cells = answers.first().and_then(|answer| answer.rows.first()).cloned().unwrap_or_default();
        let cell = |at: usize| cells.get(at).cloned().flatten().unwrap_or_default();
        let (name, user, major) = (cell(0), cell(1), cell(2).parse().ok());
        let sandbox = Sandbox::start(SandboxOptions { major, ..SandboxOptions::default() }).await?;
        let admin = Session::connect(&sandbox.options(), "pgrunbook:shadow").await?;
        roles(of.live, &admin).await?;
        let options = if name == "postgres" { sandbox.options() } else { sandbox.database(&name).await? };
        let (database, owner) = (quote::ident(&name).unwrap_or_default(), quote::ident(&user).unwrap_or_default());
        admin.execute(&format!("ALTER DATABASE {database} OWNER TO {owner}")).await?;
        let mut migration_count = 0;
        for chain in of.chains {
            let chain = if of.pending { chain } else { applied(chain, of.live).await? };
            migration_count += chain.migrations.len();
            let inside = Inside { role: Some(user.clone()).filter(|user| user != "postgres"), search_path: Vec::new() };
            let runner = Runner {
                chain: &chain,
                target: &options,
                options: Options { verify: false, inside, ..Options::default() },
                around: around.clone(),
            };
            runner.go(&Goal::Up(None), &mut Applied::default()).await?;
        }
        Ok(Self { options, migration_count, _sandbox: sandbox })
    }
}

/// Makes a server's roles on another, without their passwords.
pub(crate) async fn roles(from: &Session, to: &Session) -> Result<(), PgError> {
    for statements in [ROLES, MEMBERSHIPS] {
        let rows = from.simple(statements).await?.into_iter().flat_map(|answer| answer.rows);
        let sql: Vec<String> = rows.filter_map(|row| row.into_iter().next().flatten()).collect();
        to.execute(&sql.join(";\n")).await?;
    }
    Ok(())
}

/// The chain, without what its history in the target does not have. A target without a history of it is some other tool's.
async fn applied(mut chain: Chain, live: &Session) -> Result<Chain, StepError> {
    let (standing, kept) = Runner::standing(&chain, live).await.map_err(PgError::into_step_error)?;
    if kept.is_empty() {
        return Ok(chain);
    }
    let versions: Vec<Version> = standing.applied.iter().filter_map(|row| Version::parse(&row.version)).collect();
    // What stands before a baseline is in no row.
    let floor = standing
        .applied
        .iter()
        .filter(|row| row.origin == "baseline")
        .filter_map(|row| Version::parse(&row.version))
        .max();
    chain
        .migrations
        .retain(|one| versions.contains(&one.version) || floor.as_ref().is_some_and(|floor| one.version <= *floor));
    chain.repeatable.retain(|file| kept.iter().any(|kept| kept.row.repeatable && kept.row.version == file.name));
    Ok(chain)
}
