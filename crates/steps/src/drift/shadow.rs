//! A database of what the files make, on a throwaway server or in a database that was made for it.

use pgrunbook_engine::StepError;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_postgres::scratch::Role;
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
    /// An empty database on a server that has the target's roles; without it a throwaway server is started.
    pub on: Option<ConnectOptions>,
}

/// A shadow, which goes away with this value.
pub struct Shadow {
    /// As superuser; on a server that was given, as whoever connects there.
    pub options: ConnectOptions,
    /// How many migrations it was built from.
    pub migration_count: usize,
    _sandbox: Option<Sandbox>,
}

const TARGET: &str = "SELECT current_database(), current_user, current_setting('server_version_num')::int / 10000";

/// Roles that are not the server's own, without passwords.
const ROLES: &str = "SELECT r.rolname, pg_catalog.concat_ws(' ',
    CASE WHEN r.rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END, CASE WHEN r.rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
    CASE WHEN r.rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
    CASE WHEN r.rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END, CASE WHEN r.rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
    CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END)
FROM pg_catalog.pg_roles AS r WHERE r.rolname !~ '^pg_' AND r.rolname <> 'postgres' ORDER BY r.rolname";

const MEMBERSHIPS: &str = "SELECT r.rolname, m.rolname, a.admin_option
FROM pg_catalog.pg_auth_members AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.roleid JOIN pg_catalog.pg_roles AS m ON m.oid = a.member
WHERE m.rolname !~ '^pg_' ORDER BY 1, 2";

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
        let (options, sandbox) = match of.on {
            Some(options) => (options, None),
            None => {
                let sandbox = Sandbox::start(SandboxOptions { major, ..SandboxOptions::default() }).await?;
                let admin = Session::connect(&sandbox.options(), "pgrunbook:shadow").await?;
                roles(of.live, &admin).await?;
                let options = if name == "postgres" { sandbox.options() } else { sandbox.database(&name).await? };
                (options, Some(sandbox))
            }
        };
        if user != options.user {
            let admin = Session::connect(&options, "pgrunbook:shadow").await?;
            let database = quote::ident(&options.database).unwrap_or_default();
            let owner = quote::ident(&user).unwrap_or_default();
            admin.execute(&format!("ALTER DATABASE {database} OWNER TO {owner}")).await?;
        }
        let mut migration_count = 0;
        for chain in of.chains {
            let chain = if of.pending { chain } else { applied(chain, of.live).await? };
            migration_count += chain.migrations.len();
            let inside =
                Inside { role: Some(user.clone()).filter(|user| *user != options.user), search_path: Vec::new() };
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
    let (roles, memberships) = roles_of(from).await?;
    let ident = |name: &str| quote::ident(name).unwrap_or_default();
    let mut sql = String::new();
    for role in roles {
        sql.push_str(&format!("CREATE ROLE {} {};\n", ident(&role.name), role.attributes));
    }
    for one in memberships {
        let option = if one.admin { " WITH ADMIN OPTION" } else { "" };
        sql.push_str(&format!("GRANT {} TO {}{option};\n", ident(&one.role), ident(&one.member)));
    }
    to.execute(&sql).await
}

/// That a role is a member of another.
pub(crate) struct Membership {
    pub role: String,
    pub member: String,
    pub admin: bool,
}

/// A server's roles but its own, and who is a member of whom.
pub(crate) async fn roles_of(server: &Session) -> Result<(Vec<Role>, Vec<Membership>), PgError> {
    let cells = async |sql: &str| -> Result<Vec<Vec<String>>, PgError> {
        let rows = server.simple(sql).await?.into_iter().flat_map(|answer| answer.rows);
        Ok(rows.map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
    };
    let roles = cells(ROLES).await?.into_iter().filter_map(|row| {
        let [name, attributes] = <[String; 2]>::try_from(row).ok()?;
        Some(Role { name, attributes })
    });
    let memberships = cells(MEMBERSHIPS).await?.into_iter().filter_map(|row| {
        let [role, member, admin] = <[String; 3]>::try_from(row).ok()?;
        Some(Membership { role, member, admin: admin == "t" })
    });
    Ok((roles.collect(), memberships.collect()))
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
