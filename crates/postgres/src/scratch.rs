//! Temporary databases on a server that somebody else runs: for whoever has no server's programs, such as a job beside a service
//! container.
//!
//! A temporary database and each role that is made with it carry a comment that says so; a call that is killed leaves them, and a
//! later call sweeps up those that are a day old. Roles belong to the whole server: those that were there are never touched, and
//! those that came with the temporary database go with it. One call at a time: an advisory lock of the database that is named
//! keeps two of them from taking each other's roles for theirs.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::PgError;
use crate::options::ConnectOptions;
use crate::quote;
use crate::session::Session;

/// What every temporary database's name begins with; 16 hexadecimal digits follow.
pub const PREFIX: &str = "pgrunbook_review_";

/// What its comment begins with, and those of its roles. Comparing databases knows it, and leaves it out.
pub const COMMENT: &str = "pgrunbook review, temporary: ";

/// Left behind for so long, it is of no call that is still under way.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Anything that no other program's lock is likely to be.
const LOCK: &str = "1885827682, 1";

const APPLICATION: &str = "pgrunbook:scratch";

/// Why there is no temporary database. Nothing stays that was not there.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    #[error("{address} is a standby: no database can be made there")]
    Standby { address: String },
    #[error("{user} may not make databases on {address}")]
    MayNot { user: String, address: String },
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error("cannot make a name up: {0}")]
    Random(std::io::Error),
}

/// A role as it is made for a temporary database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    /// As behind `CREATE ROLE`, from the server's own words: `INHERIT BYPASSRLS`. Nobody can log in as it, whatever stands here.
    pub attributes: String,
}

/// What the comment of a temporary database holds behind [`COMMENT`].
#[derive(Debug, Serialize, Deserialize)]
struct Card {
    made: Timestamp,
    by: String,
    /// Roles that the SQL may make which is run in it: a call that is killed leaves them.
    roles: BTreeSet<String>,
}

/// What could not be taken away, or is not known to be ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    pub databases: Vec<String>,
    pub roles: Vec<String>,
    /// Roles that came meanwhile and that nobody named.
    pub strangers: Vec<String>,
}

/// A server on which databases are made for as long as this call takes. [`Scratch::clear`] takes them away.
pub struct Scratch {
    admin: Session,
    by: String,
    is_superuser: bool,
    version: String,
    major: u32,
    databases: Vec<String>,
    /// Made by us.
    roles: Vec<String>,
    /// May be made by what runs in the databases.
    expected: BTreeSet<String>,
    /// Roles that were there.
    before: BTreeSet<String>,
}

/// What the connecting role may, and what the server is.
const WHO: &str = "SELECT r.rolsuper, r.rolcreatedb, pg_catalog.pg_is_in_recovery(),
    pg_catalog.current_setting('server_version'), pg_catalog.current_setting('server_version_num')::int / 10000
FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user";

const NOW: &str = "SELECT pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";

/// Databases that look like ours, with their comments, and the server's time.
const THERE: &str = "SELECT d.datname, pg_catalog.shobj_description(d.oid, 'pg_database'),
    pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
FROM pg_catalog.pg_database AS d WHERE pg_catalog.starts_with(d.datname, 'pgrunbook_review_') ORDER BY 1";

/// Roles that carry our comment, and the database that it names.
const ROLES_OF_OURS: &str = "SELECT r.rolname, pg_catalog.shobj_description(r.oid, 'pg_authid') FROM pg_catalog.pg_roles AS r
WHERE pg_catalog.starts_with(pg_catalog.shobj_description(r.oid, 'pg_authid'), 'pgrunbook review, temporary: ') ORDER BY 1";

const ROLES: &str = "SELECT r.rolname FROM pg_catalog.pg_roles AS r ORDER BY 1";

impl Scratch {
    /// Connects, waits until no other call is at work through the same database, and sweeps up what is a day old. `by`: who, for
    /// the comment. `tell`: a line for people.
    ///
    /// # Errors
    /// [`ScratchError::MayNot`] if the role may not make databases.
    // Cancellation: nothing is made before it returns; what waits for the lock gives it back with its connection.
    pub async fn open(
        options: &ConnectOptions,
        by: &str,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Self, ScratchError> {
        let admin = Session::connect(options, APPLICATION).await?;
        let row = admin.simple(WHO).await?.into_iter().next().and_then(|answer| answer.rows.into_iter().next());
        let cells: Vec<String> = row.unwrap_or_default().into_iter().map(Option::unwrap_or_default).collect();
        let cell = |at: usize| cells.get(at).map_or("", String::as_str);
        let is_superuser = cell(0) == "t";
        let (address, user) = (options.address(), options.user.clone());
        if cell(2) == "t" {
            return Err(ScratchError::Standby { address });
        }
        if !is_superuser && cell(1) != "t" {
            return Err(ScratchError::MayNot { user, address });
        }
        let version = cell(3).split_whitespace().next().unwrap_or_default().to_owned();
        let major = cell(4).parse().unwrap_or(0);
        if admin.value(&format!("SELECT pg_catalog.pg_try_advisory_lock({LOCK})")).await? != "t" {
            tell(format!("another review is under way on {address}: waiting for it"));
            admin.execute(&format!("SELECT pg_catalog.pg_advisory_lock({LOCK})")).await?;
        }
        let mut scratch = Self {
            admin,
            by: by.to_owned(),
            is_superuser,
            version,
            major,
            databases: Vec::new(),
            roles: Vec::new(),
            expected: BTreeSet::new(),
            before: BTreeSet::new(),
        };
        scratch.sweep(tell).await?;
        scratch.before = scratch.names().await?;
        Ok(scratch)
    }

    /// The connection that makes and drops.
    pub fn admin(&self) -> &Session {
        &self.admin
    }

    /// Whether the connecting role is a superuser.
    pub fn is_superuser(&self) -> bool {
        self.is_superuser
    }

    /// The server's version, as `15.8`.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn major(&self) -> u32 {
        self.major
    }

    /// The roles that were there before.
    pub fn roles_before(&self) -> &BTreeSet<String> {
        &self.before
    }

    /// Says which roles the SQL may make that is about to run: those of them that were not there go at the end.
    pub fn expect(&mut self, roles: impl IntoIterator<Item = String>) {
        let new = roles.into_iter().filter(|name| !self.before.contains(name));
        self.expected.extend(new);
    }

    /// Makes a database, of the server's own `template0`.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn database(&mut self) -> Result<ConnectOptions, ScratchError> {
        let name = format!("{PREFIX}{}", &crate::sandbox::random_hex_digits().map_err(ScratchError::Random)?[..16]);
        // Before it is there: whoever is stopped meanwhile drops it all the same.
        self.databases.push(name.clone());
        let quoted = quote::ident(&name).unwrap_or_default();
        self.admin.execute(&format!("CREATE DATABASE {quoted} TEMPLATE template0")).await?;
        let made = self.admin.value(NOW).await?.parse().unwrap_or_default();
        let card = Card { made, by: self.by.clone(), roles: self.expected.clone() };
        let card = format!("{COMMENT}{}", serde_json::to_string(&card).unwrap_or_default());
        let comment = quote::literal(&card).unwrap_or_default();
        self.admin.execute(&format!("COMMENT ON DATABASE {quoted} IS {comment}")).await?;
        Ok(self.admin.options().with_database(&name))
    }

    /// Makes a role that goes with the newest database; nothing if there is one of its name. Whoever is no superuser gives it
    /// neither rights nor a way around row security, and may act as it.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn role(&mut self, role: &Role) -> Result<(), ScratchError> {
        if self.before.contains(&role.name) || self.roles.contains(&role.name) {
            return Ok(());
        }
        self.roles.push(role.name.clone());
        let name = quote::ident(&role.name).unwrap_or_default();
        let of = self.databases.last().map_or("", String::as_str);
        let comment = quote::literal(&format!("{COMMENT}{of}")).unwrap_or_default();
        let (attributes, act) = if self.is_superuser {
            let kept = role.attributes.split_whitespace().filter(|word| *word != "LOGIN" && *word != "NOLOGIN");
            (kept.collect::<Vec<_>>().join(" "), String::new())
        } else {
            let kept = role.attributes.split_whitespace().filter(|word| matches!(*word, "INHERIT" | "NOINHERIT"));
            (kept.collect::<Vec<_>>().join(" "), format!("; GRANT {name} TO CURRENT_USER"))
        };
        let sql = format!("CREATE ROLE {name} NOLOGIN {attributes}; COMMENT ON ROLE {name} IS {comment}{act}");
        Ok(self.admin.execute(&sql).await?)
    }

    /// Makes a role a member of another, if one of the two is of this call: it goes with that one.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn member(&self, role: &str, member: &str) -> Result<(), ScratchError> {
        if !self.roles.iter().any(|ours| ours == role || ours == member) {
            return Ok(());
        }
        let (role, member) = (quote::ident(role).unwrap_or_default(), quote::ident(member).unwrap_or_default());
        Ok(self.admin.execute(&format!("GRANT {role} TO {member}")).await?)
    }

    /// Takes away what this call made and what ran in its databases, whatever is connected to them.
    ///
    /// # Errors
    /// If the server does not answer: then all of it stays, and is swept up when it is a day old.
    pub async fn clear(mut self) -> Result<Left, ScratchError> {
        if self.admin.is_closed() {
            self.admin = Session::connect(self.admin.options(), APPLICATION).await?;
        }
        let mut left = Left::default();
        for name in std::mem::take(&mut self.databases) {
            if drop_database(&self.admin, &name).await.is_err() {
                left.databases.push(name);
            }
        }
        let there = self.names().await?;
        let ours = |name: &&String| self.roles.contains(name) || self.expected.contains(*name);
        let new: Vec<&String> = there.difference(&self.before).collect();
        let (ours, strangers): (Vec<&String>, Vec<&String>) = new.into_iter().partition(ours);
        left.roles = drop_roles(&self.admin, &ours).await?;
        left.strangers = strangers.into_iter().cloned().collect();
        Ok(left)
    }

    async fn names(&self) -> Result<BTreeSet<String>, PgError> {
        let answers = self.admin.simple(ROLES).await?;
        Ok(answers.into_iter().flat_map(|answer| answer.rows).filter_map(|row| row.into_iter().next()?).collect())
    }

    /// Drops databases that carry our name and our comment and are a day old, and roles whose database is gone.
    async fn sweep(&self, tell: &(dyn Fn(String) + Send + Sync)) -> Result<(), PgError> {
        let mut there = BTreeSet::new();
        for row in self.admin.simple(THERE).await?.into_iter().flat_map(|answer| answer.rows) {
            let cell = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
            let (name, comment, now) = (cell(0), cell(1), cell(2));
            let Some(card) = is_ours(&name).then(|| comment.strip_prefix(COMMENT)).flatten() else {
                there.insert(name);
                continue;
            };
            // Whatever somebody else wrote there is no card.
            let card = serde_json::from_str::<Card>(card).ok();
            let age = card.as_ref().zip(now.parse::<Timestamp>().ok()).map(|(card, now)| now.duration_since(card.made));
            if age.is_none_or(|age| age < jiff::SignedDuration::try_from(OLD).unwrap_or_default())
                || drop_database(&self.admin, &name).await.is_err()
            {
                there.insert(name);
                continue;
            }
            let card = card.map(|card| (card.by, card.roles)).unwrap_or_default();
            let roles = if card.1.is_empty() {
                String::new()
            } else {
                let roles = card.1.into_iter().collect::<Vec<_>>().join(", ");
                format!("; its migrations may have left the roles {roles}")
            };
            tell(format!("dropped {name}, which a call by {} left{roles}", card.0));
        }
        let mut gone = Vec::new();
        for row in self.admin.simple(ROLES_OF_OURS).await?.into_iter().flat_map(|answer| answer.rows) {
            let cell = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
            let (role, comment) = (cell(0), cell(1));
            let of = comment.strip_prefix(COMMENT).unwrap_or_default();
            // The comment alone says that it is ours: whoever can write it could drop the role.
            if is_ours(of) && !there.contains(of) {
                gone.push(role);
            }
        }
        drop_roles(&self.admin, &gone.iter().collect::<Vec<_>>()).await?;
        Ok(())
    }
}

/// Whether a database's name is one that we make up.
fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

async fn drop_database(admin: &Session, name: &str) -> Result<(), PgError> {
    let name = quote::ident(name).unwrap_or_default();
    admin.execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

/// Drops roles; those that stay.
async fn drop_roles(admin: &Session, roles: &[&String]) -> Result<Vec<String>, PgError> {
    if roles.is_empty() {
        return Ok(Vec::new());
    }
    let quoted = |name: &str| quote::ident(name).unwrap_or_default();
    let all = roles.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    // At once, since one may have granted what another was given.
    match admin.execute(&format!("DROP ROLE {all}")).await {
        Ok(()) => return Ok(Vec::new()),
        Err(PgError::Server(_)) => {}
        Err(error) => return Err(error),
    }
    let mut left = Vec::new();
    for name in roles {
        match admin.execute(&format!("DROP ROLE {}", quoted(name))).await {
            Ok(()) => {}
            Err(PgError::Server(_)) => left.push((*name).clone()),
            Err(error) => return Err(error),
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_made_up_here_are_ours() {
        for (name, wanted) in [
            ("pgrunbook_review_0123456789abcdef", true),
            ("pgrunbook_review_0123456789ABCDEF", false),
            ("pgrunbook_review_0123456789abcde", false),
            ("pgrunbook_review_0123456789abcdef0", false),
            ("pgrunbook_review_notes", false),
            ("postgres", false),
        ] {
            assert_eq!(is_ours(name), wanted, "{name}");
        }
    }
}
