//! Where a Redis is: one server, the seeds of a cluster, or the Sentinels that know the primary; and who asks.
//!
//! The URLs are those that clients agree on (<https://www.iana.org/assignments/uri-schemes/prov/redis>), with several
//! hosts where several are meant:
//!
//! ```text
//! redis://user:password@host:6379/0
//! rediss://host:6380/0?ca=certs/ca.pem            TLS; `ca`, `cert` and `key` are PEM files, relative to the project
//! redis://a:7000,b:7000,c:7000                    seeds of a cluster: the first that answers tells of all
//! redis-sentinel://s1:26379,s2:26379/mymaster/0   Sentinels, the name they watch, the database
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

/// Addresses and credential of a Redis. Holds a password: its [`fmt::Debug`] does not.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// Host and port; tried in this order.
    pub hosts: Vec<(String, u16)>,
    /// The hosts are Sentinels.
    pub sentinel: Option<Sentinel>,
    pub tls: Option<Tls>,
    /// None: the user `default`.
    pub user: Option<String>,
    pub password: Option<String>,
    pub db: i64,
}

/// What Sentinels are asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Sentinel {
    /// The name of the primary that they watch.
    pub master: String,
    /// Of the Sentinels themselves, where they want one.
    pub password: Option<String>,
}

/// How a server's certificate is checked, and which one is shown to it. PEM files; without `ca` the system's roots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Whether a text is the address of a Redis.
pub fn is_redis(text: &str) -> bool {
    scheme(text).is_some()
}

/// TLS, Sentinel, and what follows the scheme.
fn scheme(text: &str) -> Option<(bool, bool, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    match scheme {
        "redis" => Some((false, false, rest)),
        "rediss" => Some((true, false, rest)),
        "redis-sentinel" => Some((false, true, rest)),
        "rediss-sentinel" => Some((true, true, rest)),
        _ => None,
    }
}

impl RedisOptions {
    /// Reads a URL. `root` is what the paths of certificates are relative to.
    ///
    /// # Errors
    /// One sentence, which never repeats the URL: it may hold a password.
    pub fn parse(text: &str, root: &Path) -> Result<Self, String> {
        let Some((tls, sentinel, rest)) = scheme(text.trim()) else {
            return Err("a Redis is named by redis://, rediss://, redis-sentinel:// or rediss-sentinel://".to_owned());
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credential, hosts) = match authority.rsplit_once('@') {
            Some((credential, hosts)) => (Some(credential), hosts),
            None => (None, authority),
        };
        let (user, password) = match credential {
            None => (None, None),
            Some(credential) => {
                let (user, password) = credential.split_once(':').unwrap_or((credential, ""));
                (some(decoded(user)?), some(decoded(password)?))
            }
        };
        let port = if sentinel { 26379 } else { 6379 };
        let hosts = hosts.split(',').map(|one| host(one, port)).collect::<Result<Vec<_>, _>>()?;
        let mut tls = tls.then(Tls::default);
        let mut sentinel_password = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match (name, tls.as_mut()) {
                ("sentinel_password", _) if sentinel => sentinel_password = Some(value),
                ("ca", Some(tls)) => tls.ca = Some(root.join(value)),
                ("cert", Some(tls)) => tls.cert = Some(root.join(value)),
                ("key", Some(tls)) => tls.key = Some(root.join(value)),
                ("ca" | "cert" | "key", None) => return Err(format!("`{name}` needs rediss://: there is no TLS")),
                _ => return Err("a Redis address knows `ca`, `cert`, `key` and `sentinel_password`".to_owned()),
            }
        }
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let sentinel = match (sentinel, parts.next()) {
            (false, first) => {
                return Self { hosts, sentinel: None, tls, user, password, db: 0 }.on(first, parts.next());
            }
            (true, Some(master)) => Sentinel { master: decoded(master)?, password: sentinel_password },
            (true, None) => {
                return Err("say whom the Sentinels watch: redis-sentinel://host:26379/NAME".to_owned());
            }
        };
        Self { hosts, sentinel: Some(sentinel), tls, user, password, db: 0 }.on(parts.next(), parts.next())
    }

    fn on(self, db: Option<&str>, more: Option<&str>) -> Result<Self, String> {
        let db = match db {
            None => 0,
            Some(text) => text.parse().ok().filter(|db| *db >= 0).ok_or("the database of a Redis is a number")?,
        };
        match more {
            None => Ok(Self { db, ..self }),
            Some(_) => Err("a Redis address ends with the number of its database".to_owned()),
        }
    }

    /// What people read: without the password.
    pub fn shown(&self) -> String {
        let tls = if self.tls.is_some() { "s" } else { "" };
        let user = self.user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
        match &self.sentinel {
            Some(sentinel) => {
                format!("redis{tls}-sentinel://{user}{}/{}/{}", self.listed(), sentinel.master, self.db)
            }
            None => format!("redis{tls}://{user}{}/{}", self.listed(), self.db),
        }
    }

    /// The same thing by every credential: what the plan digest covers.
    pub fn key(&self) -> String {
        Self { user: None, password: None, ..self.clone() }.shown()
    }

    fn listed(&self) -> String {
        self.hosts.iter().map(|(host, port)| place(host, *port)).collect::<Vec<_>>().join(",")
    }

    /// What no sink may show.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let sentinel = self.sentinel.iter().filter_map(|sentinel| sentinel.password.as_deref());
        self.password.as_deref().into_iter().chain(sentinel)
    }

    /// The same place as somebody else.
    #[must_use]
    pub fn as_user(&self, user: &str, password: Option<String>) -> Self {
        Self { user: Some(user.to_owned()), password, ..self.clone() }
    }
}

/// Host and port as people read them.
pub fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn host(text: &str, default: u16) -> Result<(String, u16), String> {
    let wrong = || "the address of a Redis names a host, or host:port".to_owned();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
            (host, port.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        None => default,
        Some(port) => port.parse().map_err(|_| wrong())?,
    };
    if host.is_empty() { Err(wrong()) } else { Ok((decoded(host)?, port)) }
}

/// `%40` and the like.
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || "a % in the address of a Redis is followed by two hexadecimal digits of UTF-8".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// Without passwords.
impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RedisOptions, String> {
        RedisOptions::parse(text, Path::new("/srv/app"))
    }

    #[test]
    fn one_server_with_a_credential_and_a_database() {
        let options = read("redis://app:p%40ss@cache:6380/2").unwrap();
        assert_eq!(options.hosts, [("cache".to_owned(), 6380)]);
        assert_eq!((options.user.as_deref(), options.password.as_deref()), (Some("app"), Some("p@ss")));
        assert_eq!(options.db, 2);
        assert_eq!(options.shown(), "redis://app@cache:6380/2");
        assert!(!format!("{options:?}").contains("p@ss"));
        // A password alone is the default user's.
        let alone = read("redis://:secret@[::1]").unwrap();
        assert_eq!((alone.user, alone.password.as_deref()), (None, Some("secret")));
        assert_eq!(alone.hosts, [("::1".to_owned(), 6379)]);
    }

    #[test]
    fn tls_with_files_of_the_project_and_the_seeds_of_a_cluster() {
        let options = read("rediss://a:7000,b:7001?ca=certs/ca.pem").unwrap();
        assert_eq!(options.hosts, [("a".to_owned(), 7000), ("b".to_owned(), 7001)]);
        assert_eq!(options.tls.unwrap().ca, Some(PathBuf::from("/srv/app/certs/ca.pem")));
    }

    #[test]
    fn sentinels_and_whom_they_watch() {
        let options = read("redis-sentinel://app:x@s1,s2:26380/main/3?sentinel_password=y").unwrap();
        assert_eq!(options.hosts, [("s1".to_owned(), 26379), ("s2".to_owned(), 26380)]);
        assert_eq!(options.sentinel.as_ref().unwrap().master, "main");
        assert_eq!(options.db, 3);
        assert_eq!(options.shown(), "redis-sentinel://app@s1:26379,s2:26380/main/3");
    }

    #[test]
    fn mistakes_are_named_and_never_repeat_the_password() {
        let wrong = [
            "http://cache",
            "redis://:hunter2@",
            "redis://:hunter2@cache:port",
            "redis://:hunter2@cache/x",
            "redis://:hunter2@cache?ca=x",
            "redis://:hunter2%zz@cache",
            "redis-sentinel://:hunter2@s1",
        ];
        for text in wrong {
            let why = read(text).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
