//! Where a change is tried: a throwaway server, or temporary databases on a server that somebody gave.

use pgrunbook_document::Severity;
use pgrunbook_postgres::identity::identify;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_postgres::scratch::{Role, Scratch, ScratchError};
use pgrunbook_postgres::{ConnectOptions, PgError, Session, quote};

use super::beyond::{Reach, beyond};
use super::error::GateError;
use super::{Files, Review, Wish, finding, read};
use crate::drift;
use crate::migrate::Around;

/// Where a change is tried.
pub(super) enum Ground {
    /// A server is started for each database.
    Throwaway,
    Given(Box<Scratch>),
}

/// A database in which something is tried.
pub(super) struct Plot {
    pub options: ConnectOptions,
    /// The throwaway server: its files are ours.
    pub sandbox: Option<Sandbox>,
}

const VERSION: &str = "SELECT pg_catalog.split_part(pg_catalog.current_setting('server_version'), ' ', 1),
    pg_catalog.current_setting('server_version_num')::int / 10000";

/// A server's version, `15.8` and 15.
async fn version(session: &Session) -> Result<(String, u32), PgError> {
    let row = session.simple(VERSION).await?.into_iter().next().and_then(|answer| answer.rows.into_iter().next());
    let mut cells = row.unwrap_or_default().into_iter().map(Option::unwrap_or_default);
    Ok((cells.next().unwrap_or_default(), cells.next().and_then(|text| text.parse().ok()).unwrap_or(0)))
}

impl Ground {
    /// Makes sure that a server that was given may be used: it is not the target, and nothing of the change reaches beyond its
    /// database to what was there.
    ///
    /// # Errors
    /// [`GateError`], with nothing made.
    pub async fn open(
        wish: &Wish<'_>,
        files: &Files,
        live: Option<&Session>,
        around: &Around<'_>,
        review: &mut Review,
    ) -> Result<Self, GateError> {
        let Some(options) = wish.on else { return Ok(Self::Throwaway) };
        let mut scratch = Scratch::open(options, around.operator, around.tell).await?;
        if let Some(live) = live {
            beside(live, scratch.admin(), review).await?;
        }
        let scripts = wish.chains.iter().flat_map(|chain| {
            let versioned = chain.migrations.iter().flat_map(|one| [Some(&one.up), one.down.as_ref()]);
            versioned.flatten().chain(chain.repeatable.iter().map(|file| &file.script)).map(|script| &script.path)
        });
        let mut made = Vec::new();
        for path in scripts.chain(files.before.paths()).chain(&wish.project.rehearsal_setup) {
            let text = read(path).map_err(|why| GateError::Unread {
                place: files.shown(path),
                why,
                address: options.address(),
            })?;
            for one in beyond(&text) {
                if let Some(what) = one.refusal(scratch.roles_before()) {
                    let place = format!("{}:{}", files.shown(path), one.line);
                    return Err(GateError::Beyond { place, what, address: options.address() });
                }
                if let Reach::Makes(Some(name)) = one.what {
                    made.push(name);
                }
            }
        }
        scratch.expect(made);
        Ok(Self::Given(Box::new(scratch)))
    }

    /// Makes a database in which the change is tried, with the roles that it names: the target's, and `wish`'s. Tells of the server
    /// in the review.
    pub async fn plot(
        &mut self,
        wish: &Wish<'_>,
        live: Option<&Session>,
        review: &mut Review,
    ) -> Result<Plot, GateError> {
        let target = match live {
            Some(live) => Some(version(live).await?),
            None => None,
        };
        let wanted = target.as_ref().map(|(_, major)| *major);
        let named = wish.roles.iter().chain(&wish.tenant_roles);
        let (plot, server) = match self {
            Self::Throwaway => {
                let sandbox =
                    Sandbox::start(SandboxOptions { major: wanted.or(wish.major), ..SandboxOptions::default() })
                        .await?;
                let options = sandbox.database("review").await?;
                let session = Session::connect(&options, "pgrunbook:review").await?;
                if let Some(live) = live {
                    drift::shadow::roles(live, &session).await?;
                }
                for role in named {
                    let (name, text) =
                        (quote::ident(role).unwrap_or_default(), quote::literal(role).unwrap_or_default());
                    let there = format!("SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = {text}");
                    if session.value(&there).await? == "0" {
                        session.execute(&format!("CREATE ROLE {name}")).await?;
                    }
                }
                let server = Server { version: version(&session).await?.0, given: None };
                (Plot { options, sandbox: Some(sandbox) }, server)
            }
            Self::Given(scratch) => {
                let options = scratch.database().await?;
                if let Some(live) = live {
                    let (roles, memberships) = drift::shadow::roles_of(live).await?;
                    for role in &roles {
                        scratch.role(role).await?;
                    }
                    for one in &memberships {
                        // Of a role that is the server's own it may be refused; what needs it says so when it is tried.
                        match scratch.member(&one.role, &one.member).await {
                            Err(ScratchError::Postgres(PgError::Server(_))) | Ok(()) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
                for name in named {
                    scratch.role(&Role { name: name.clone(), attributes: String::new() }).await?;
                }
                let server = Server { version: scratch.version().to_owned(), given: Some(options.clone()) };
                if let Some((version, major)) = target.as_ref().filter(|(_, major)| *major != scratch.major()) {
                    let there = scratch.major();
                    let message =
                        format!("the change was tried on PostgreSQL {there}, and the target is PostgreSQL {version}");
                    let help = format!("give a server of PostgreSQL {major}: locks, rewrites and errors may differ");
                    review.nowhere(finding("other-version", Severity::Warning, message).help(help));
                }
                (Plot { options, sandbox: None }, server)
            }
        };
        review.check("server", server.to_string());
        review.server = Some(server);
        Ok(plot)
    }

    /// An empty database beside, on the server that was given.
    pub async fn another(&mut self) -> Result<Option<ConnectOptions>, GateError> {
        match self {
            Self::Throwaway => Ok(None),
            Self::Given(scratch) => Ok(Some(scratch.database().await?)),
        }
    }

    /// Takes away what was made, and tells of what stays.
    pub async fn clear(self, review: &mut Review, tell: &(dyn Fn(String) + Send + Sync)) {
        let Self::Given(scratch) = self else { return };
        let address = scratch.admin().options().address();
        let mut say = |message: String, help: &str| {
            tell(message.clone());
            review.about("server", finding("left-behind", Severity::Warning, message).help(help));
        };
        match scratch.clear().await {
            Ok(left) => {
                for name in &left.databases {
                    say(
                        format!("database {name} could not be dropped on {address}"),
                        "drop it, or let a call do it that comes a day later",
                    );
                }
                for name in &left.roles {
                    say(format!("role {name}, which this call made, could not be dropped on {address}"), "drop it");
                }
                for name in &left.strangers {
                    say(
                        format!("role {name} came to {address} while the change was tried, and no file names it"),
                        "if a migration made it, drop it",
                    );
                }
            }
            Err(error) => say(
                format!("what was made on {address} could not be dropped: {error}"),
                "a call that comes a day later drops it",
            ),
        }
    }
}

/// Where a change was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// As `15.8`.
    pub version: String,
    /// The temporary database, on a server that was given.
    pub given: Option<ConnectOptions>,
}

/// `PostgreSQL 15.8, a throwaway server`.
impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgreSQL {}, ", self.version)?;
        match &self.given {
            Some(options) => write!(f, "temporary database {options}"),
            None => f.write_str("a throwaway server"),
        }
    }
}

/// Refuses the target itself, and says where the target's server is used.
async fn beside(live: &Session, admin: &Session, review: &mut Review) -> Result<(), GateError> {
    let same_options = {
        let (live, admin) = (live.options(), admin.options());
        live.hosts == admin.hosts && live.database == admin.database
    };
    // Some services keep the identifier from ordinary roles: then the address must do.
    let keys = match (identify(live, "target").await, identify(admin, "server").await) {
        (Ok(live), Ok(admin)) => Some((live.key, admin.key)),
        _ => None,
    };
    let same = keys.as_ref().is_some_and(|(live, admin)| live == admin);
    if same || same_options {
        return Err(GateError::IsTarget { address: admin.options().address() });
    }
    let system = |key: &str| key.split('/').next().unwrap_or_default().to_owned();
    if keys.is_some_and(|(live, admin)| system(&live) == system(&admin)) {
        let message = "the change was tried on the target's own server, in a database beside it";
        let help = "it takes of the target's memory, disk and locks on roles: give another server";
        review.nowhere(finding("beside-target", Severity::Warning, message).help(help));
    }
    Ok(())
}
