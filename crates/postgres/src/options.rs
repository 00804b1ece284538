//! Where a connection goes and as whom, as libpq's users have it.
//!
//! Precedence: what the URL or connection string says, then the service file it names, then the environment, then the
//! defaults of <https://www.postgresql.org/docs/current/libpq-connect.html>. Every value remembers where it came from,
//! so that an error can name the place. Environment and home directory come in from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::PgError;

/// What a target says of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectSpec {
    /// A URL or a connection string, and where it was written: `target \`main\``.
    Given { text: String, origin: String },
    /// Nothing: `DATABASE_URL`, `POSTGRES_*`, `PG*` decide.
    Environment,
}

/// What this crate does not read by itself.
pub struct Surroundings<'a> {
    /// A variable of the environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub home: Option<&'a Path>,
    /// The operating system's user: the default role.
    pub user: Option<&'a str>,
}

/// libpq's `sslmode`. `allow` is taken as `prefer`: it differs only in which way is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// TLS, as far as it is not the mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SslOptions {
    pub mode: SslMode,
    pub root_cert: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// One place to try: a host name, an address or a socket folder, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

/// Everything that a connection needs. `Debug` and `Display` never show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Tried in order.
    pub hosts: Vec<HostPort>,
    pub user: String,
    pub database: String,
    pub password: Option<String>,
    pub ssl: SslOptions,
    pub connect_timeout: Duration,
    /// Server settings for the session: libpq's `options`.
    pub options: Option<String>,
    /// Only a server that takes writes: libpq's `target_session_attrs=read-write`.
    pub read_write: bool,
}

/// Ten seconds: long enough for a slow network, short enough for a person who mistyped a host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A value, and the place it came from.
type Params = BTreeMap<&'static str, (String, String)>;

/// The keywords that are understood, with their environment variables.
const KEYWORDS: &[(&str, &str)] = &[
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("dbname", "PGDATABASE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("passfile", "PGPASSFILE"),
    ("service", "PGSERVICE"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("options", "PGOPTIONS"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
];

/// Keywords of libpq that change nothing here; accepted, so that a string that works for `psql` works.
const IGNORED: &[&str] = &[
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "gssencmode",
    "krbsrvname",
    "gsslib",
    "channel_binding",
    "sslcompression",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "load_balance_hosts",
    "require_auth",
    "requirepeer",
];

impl ConnectOptions {
    /// Puts the options together.
    ///
    /// # Errors
    /// [`PgError::Options`] with the value's origin where one cannot be understood.
    pub fn resolve(spec: &ConnectSpec, surroundings: &Surroundings<'_>) -> Result<Self, PgError> {
        let mut params = Params::new();
        match spec {
            ConnectSpec::Given { text, origin } => read(text, origin, &mut params)?,
            ConnectSpec::Environment => match (surroundings.env)("DATABASE_URL").filter(|url| !url.is_empty()) {
                Some(url) => read(&url, "DATABASE_URL", &mut params)?,
                None => {
                    for (keyword, variable) in [
                        ("host", "POSTGRES_HOST"),
                        ("port", "POSTGRES_PORT"),
                        ("user", "POSTGRES_USER"),
                        ("password", "POSTGRES_PASSWORD"),
                        ("dbname", "POSTGRES_DB"),
                        ("sslmode", "POSTGRES_SSLMODE"),
                    ] {
                        fill_from_env(keyword, variable, surroundings, &mut params);
                    }
                }
            },
        }
        fill_from_env("service", "PGSERVICE", surroundings, &mut params);
        if let Some((service, origin)) = params.get("service").cloned() {
            read_service(&service, &origin, surroundings, &mut params)?;
        }
        for (keyword, variable) in KEYWORDS {
            fill_from_env(keyword, variable, surroundings, &mut params);
        }
        Self::build(&params, surroundings)
    }

    /// The same connection to another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// The first host, user and database, for people.
    pub fn address(&self) -> String {
        self.to_string()
    }

    /// The connection as libpq's variables, for PostgreSQL's own programs. Holds the password.
    ///
    /// See <https://www.postgresql.org/docs/current/libpq-envars.html>.
    pub fn libpq_env(&self) -> BTreeMap<String, String> {
        let joined = |part: &dyn Fn(&HostPort) -> String| self.hosts.iter().map(part).collect::<Vec<_>>().join(",");
        let mode = match self.ssl.mode {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let values = [
            ("PGHOST", Some(joined(&|place| place.host.clone()))),
            ("PGPORT", Some(joined(&|place| place.port.to_string()))),
            ("PGUSER", Some(self.user.clone())),
            ("PGDATABASE", Some(self.database.clone())),
            ("PGPASSWORD", self.password.clone()),
            ("PGSSLMODE", Some(mode.to_owned())),
            ("PGSSLROOTCERT", path(&self.ssl.root_cert)),
            ("PGSSLCERT", path(&self.ssl.cert)),
            ("PGSSLKEY", path(&self.ssl.key)),
            ("PGOPTIONS", self.options.clone()),
            ("PGTARGETSESSIONATTRS", self.read_write.then(|| "read-write".to_owned())),
            ("PGCONNECT_TIMEOUT", Some(self.connect_timeout.as_secs().max(2).to_string())),
        ];
        values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    fn build(params: &Params, surroundings: &Surroundings<'_>) -> Result<Self, PgError> {
        let text = |key: &str| params.get(key).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty());
        let hosts: Vec<String> = match text("hostaddr").or(text("host")) {
            Some(hosts) => hosts.split(',').map(str::to_owned).collect(),
            None => vec![default_host()],
        };
        let ports: Vec<u16> = match params.get("port") {
            Some((ports, origin)) if !ports.is_empty() => ports
                .split(',')
                .map(|port| port.trim().parse().map_err(|_| bad_port(port, origin)))
                .collect::<Result<_, _>>()?,
            _ => vec![5432],
        };
        if ports.len() != 1 && ports.len() != hosts.len() {
            return Err(PgError::Options(format!("{} hosts and {} ports are given", hosts.len(), ports.len())));
        }
        let hosts: Vec<HostPort> = hosts
            .into_iter()
            .enumerate()
            .map(|(at, host)| HostPort {
                host: if host.is_empty() { default_host() } else { host },
                port: ports.get(at).copied().unwrap_or(ports[0]),
            })
            .collect();
        let Some(user) = text("user").or(surroundings.user).map(str::to_owned) else {
            return Err(PgError::Options(
                "no user is given, and the operating system knows none: set PGUSER".to_owned(),
            ));
        };
        let database = text("dbname").unwrap_or(&user).to_owned();
        let path = |key: &str| text(key).map(PathBuf::from);
        let home_file = |name: &str| surroundings.home.map(|home| home.join(name)).filter(|path| path.exists());
        let mode = match params.get("sslmode") {
            Some((mode, origin)) => match mode.as_str() {
                "disable" => SslMode::Disable,
                "" | "allow" | "prefer" => SslMode::Prefer,
                "require" => SslMode::Require,
                "verify-ca" => SslMode::VerifyCa,
                "verify-full" => SslMode::VerifyFull,
                other => {
                    let modes = "disable, allow, prefer, require, verify-ca or verify-full";
                    return Err(bad("sslmode", other, origin, modes));
                }
            },
            None => SslMode::Prefer,
        };
        let ssl = SslOptions {
            mode,
            root_cert: path("sslrootcert").or_else(|| home_file(".postgresql/root.crt")),
            cert: path("sslcert").or_else(|| home_file(".postgresql/postgresql.crt")),
            key: path("sslkey").or_else(|| home_file(".postgresql/postgresql.key")),
        };
        let connect_timeout = match params.get("connect_timeout") {
            Some((seconds, origin)) => match seconds.trim().parse::<u64>() {
                Ok(0) => Duration::from_secs(3600),
                Ok(seconds) => Duration::from_secs(seconds),
                Err(_) => return Err(bad("connect_timeout", seconds, origin, "a number of seconds")),
            },
            None => CONNECT_TIMEOUT,
        };
        let password = match text("password") {
            Some(password) => Some(password.to_owned()),
            None => {
                let file = path("passfile").or_else(|| surroundings.home.map(|home| home.join(".pgpass")));
                file.and_then(|file| hosts.iter().find_map(|host| from_passfile(&file, host, &database, &user)))
            }
        };
        let read_write = matches!(text("target_session_attrs"), Some("read-write" | "primary"));
        let options = text("options").map(str::to_owned);
        Ok(Self { hosts, user, database, password, ssl, connect_timeout, options, read_write })
    }
}

fn bad(keyword: &str, value: &str, origin: &str, wanted: &str) -> PgError {
    PgError::Options(format!("{keyword} is `{value}` in {origin}: it must be {wanted}"))
}

/// Where a port should stand, a URL without its `@` has the password: only digits are shown.
fn bad_port(port: &str, origin: &str) -> PgError {
    let wanted = "a number from 1 to 65535";
    match port.bytes().all(|byte| byte.is_ascii_digit()) {
        true => bad("port", port, origin, wanted),
        false => PgError::Options(format!("the port in {origin} is not {wanted}")),
    }
}

fn fill_from_env(keyword: &'static str, variable: &str, surroundings: &Surroundings<'_>, params: &mut Params) {
    if let Some(value) = (surroundings.env)(variable).filter(|value| !value.is_empty()) {
        params.entry(keyword).or_insert((value, variable.to_owned()));
    }
}

/// Where the local server's socket is: Debian's place, then the source's.
fn default_host() -> String {
    let sockets = ["/var/run/postgresql", "/tmp"];
    let found = sockets.iter().find(|folder| Path::new(folder).join(".s.PGSQL.5432").exists());
    found.map_or("localhost", |folder| folder).to_owned()
}

fn read(text: &str, origin: &str, params: &mut Params) -> Result<(), PgError> {
    let text = text.trim();
    match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        Some(rest) => read_url(rest, origin, params),
        None if text.contains("://") => {
            Err(PgError::Options(format!("the URL in {origin} is no PostgreSQL URL: it begins with postgres://")))
        }
        None => read_conninfo(text, origin, params),
    }
}

/// `user:password@host:port,host:port/dbname?key=value&...`, percent-encoded.
fn read_url(rest: &str, origin: &str, params: &mut Params) -> Result<(), PgError> {
    let malformed = |what: &str| PgError::Options(format!("the URL in {origin} is malformed: {what}"));
    let decode = |text: &str| percent_decode(text).ok_or_else(|| malformed("a % is not followed by two hex digits"));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, hosts) = match authority.rsplit_once('@') {
        Some((userinfo, hosts)) => (Some(userinfo), hosts),
        None => (None, authority),
    };
    if let Some(userinfo) = userinfo {
        let (user, password) = userinfo.split_once(':').map_or((userinfo, None), |(user, pass)| (user, Some(pass)));
        if !user.is_empty() {
            set("user", decode(user)?, origin, params);
        }
        if let Some(password) = password {
            set("password", decode(password)?, origin, params);
        }
    }
    if !hosts.is_empty() {
        let mut names = Vec::new();
        let mut ports = Vec::new();
        for one in hosts.split(',') {
            // An IPv6 address stands in brackets.
            let (name, port) = match one.strip_prefix('[') {
                Some(inner) => {
                    let (name, after) = inner.split_once(']').ok_or_else(|| malformed("a [ is not closed"))?;
                    (name, after.strip_prefix(':').unwrap_or(""))
                }
                None => one.split_once(':').unwrap_or((one, "")),
            };
            names.push(decode(name)?);
            ports.push(if port.is_empty() { "5432".to_owned() } else { port.to_owned() });
        }
        if names.iter().any(|name| !name.is_empty()) {
            set("host", names.join(","), origin, params);
        }
        if hosts.contains(':') {
            set("port", ports.join(","), origin, params);
        }
    }
    if !database.is_empty() {
        set("dbname", decode(database)?, origin, params);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| malformed("a parameter has no value"))?;
        set_named(&decode(key)?, decode(value)?, origin, params)?;
    }
    Ok(())
}

/// `key=value key = 'quoted \' value'`.
fn read_conninfo(text: &str, origin: &str, params: &mut Params) -> Result<(), PgError> {
    let malformed = |what: &str| PgError::Options(format!("the connection string in {origin} is malformed: {what}"));
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(());
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            return Err(malformed("write key=value, or a URL that begins with postgres://"));
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        let quoted = chars.next_if_eq(&'\'').is_some();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => return Err(malformed("a quote is not closed")),
                None => break,
            }
        }
        set_named(&key, value, origin, params)?;
    }
}

fn set(keyword: &'static str, value: String, origin: &str, params: &mut Params) {
    params.entry(keyword).or_insert((value, origin.to_owned()));
}

fn set_named(key: &str, value: String, origin: &str, params: &mut Params) -> Result<(), PgError> {
    let key = if key == "ssl" && value == "true" {
        return set_named("sslmode", "require".to_owned(), origin, params);
    } else {
        key
    };
    match KEYWORDS.iter().find(|(keyword, _)| *keyword == key) {
        Some((keyword, _)) => set(keyword, value, origin, params),
        None if IGNORED.contains(&key) => {}
        // A URL that is not one is read as parameters: its user and password must not be shown as the name of one.
        None if key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') => {
            return Err(PgError::Options(format!("`{key}` in {origin} is no connection parameter")));
        }
        None => {
            let message = "is neither a URL, which begins with postgres://, nor a list of key=value";
            return Err(PgError::Options(format!("the text in {origin} {message}")));
        }
    }
    Ok(())
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The service's section of the first service file that has it.
///
/// <https://www.postgresql.org/docs/current/libpq-pgservice.html>
fn read_service(
    service: &str,
    origin: &str,
    surroundings: &Surroundings<'_>,
    params: &mut Params,
) -> Result<(), PgError> {
    let files = [
        (surroundings.env)("PGSERVICEFILE").map(PathBuf::from),
        surroundings.home.map(|home| home.join(".pg_service.conf")),
        (surroundings.env)("PGSYSCONFDIR").map(|folder| Path::new(&folder).join("pg_service.conf")),
        Some(PathBuf::from("/etc/postgresql-common/pg_service.conf")),
    ];
    for file in files.into_iter().flatten() {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let mut inside = false;
        let mut seen = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                inside = name == service;
                seen |= inside;
            } else if inside {
                let place = format!("{} [{service}]", file.display());
                let (key, value) = line
                    .split_once('=')
                    .ok_or_else(|| PgError::Options(format!("a line of {place} is not key=value")))?;
                set_named(key.trim(), value.trim().to_owned(), &place, params)?;
            }
        }
        if seen {
            return Ok(());
        }
    }
    Err(PgError::Options(format!("the service `{service}` named in {origin} stands in no service file")))
}

/// The password of the first line that fits.
///
/// <https://www.postgresql.org/docs/current/libpq-pgpass.html>: fields are host, port, database, user, password; `*`
/// fits all; a socket folder is `localhost`; a file that others may read is ignored.
fn from_passfile(file: &Path, host: &HostPort, database: &str, user: &str) -> Option<String> {
    let metadata = std::fs::metadata(file).ok()?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o077 != 0 {
        return None;
    }
    let name = if host.host.starts_with('/') { "localhost" } else { &host.host };
    let port = host.port.to_string();
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = passfile_fields(line);
        let [in_host, in_port, in_database, in_user, password] = fields.as_slice() else { return None };
        let fits = |field: &str, value: &str| field == "*" || field == value;
        let all = (fits(in_host, name) || fits(in_host, &host.host))
            && fits(in_port, &port)
            && fits(in_database, database)
            && fits(in_user, user);
        all.then(|| password.clone())
    })
}

fn passfile_fields(line: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => field.extend(chars.next()),
            // The fifth field is the password, which may hold colons.
            ':' if fields.len() < 4 => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

impl fmt::Display for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", self.user)?;
        for (at, host) in self.hosts.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}", host.host, host.port)?;
        }
        write!(f, "/{}", self.database)
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectOptions({self}, {:?})", self.ssl.mode)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    fn resolve(spec: &ConnectSpec, env: &[(&str, &str)], home: Option<&Path>) -> Result<ConnectOptions, PgError> {
        let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        ConnectOptions::resolve(spec, &Surroundings { env: &env, home, user: Some("os-user") })
    }

    fn given(text: &str) -> ConnectSpec {
        ConnectSpec::Given { text: text.to_owned(), origin: "target `main`".to_owned() }
    }

    /// Where it goes, and the password if there is one.
    fn shown(spec: &ConnectSpec, env: &[(&str, &str)], home: Option<&Path>) -> String {
        match resolve(spec, env, home) {
            Ok(options) => format!("{options} {:?} {}", options.ssl.mode, options.password.as_deref().unwrap_or("-")),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn forms_of_a_connection() {
        let cases = [
            ("postgres://a:p%40ss@db:6543/x?sslmode=require", "postgres://a@db:6543/x Require p@ss"),
            ("postgresql://db1,db2:7/x", "postgres://os-user@db1:5432,db2:7/x Prefer -"),
            ("postgres://%2Frun%2Fpg/x", "postgres://os-user@/run/pg:5432/x Prefer -"),
            ("postgres:///x?host=/run/pg&port=7", "postgres://os-user@/run/pg:7/x Prefer -"),
            ("postgres://[::1]:7/x", "postgres://os-user@::1:7/x Prefer -"),
            ("host=db user=a dbname='my db' password='it\\'s'", "postgres://a@db:5432/my db Prefer it's"),
            ("host=db port=70000", "port is `70000` in target `main`: it must be a number from 1 to 65535"),
            ("postgres://a:secret/x", "the port in target `main` is not a number from 1 to 65535"),
            (
                "postgres:a:secret@db/x?sslmode=disable",
                "the text in target `main` is neither a URL, which begins with postgres://, nor a list of key=value",
            ),
            ("host=db colour=red", "`colour` in target `main` is no connection parameter"),
            ("mysql://db", "the URL in target `main` is no PostgreSQL URL: it begins with postgres://"),
            (
                "host=db sslmode=maybe",
                "sslmode is `maybe` in target `main`: it must be disable, allow, prefer, require, verify-ca or verify-full",
            ),
            ("postgres://a%4/x", "the URL in target `main` is malformed: a % is not followed by two hex digits"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(&given(text), &[], None), expected, "{text}");
        }
    }

    #[test]
    fn the_environment_fills_what_is_not_given() {
        let pg = [("PGHOST", "envhost"), ("PGUSER", "envuser"), ("PGPASSWORD", "secret"), ("PGDATABASE", "envdb")];
        assert_eq!(shown(&given("postgres://db/x"), &pg, None), "postgres://envuser@db:5432/x Prefer secret");
        assert_eq!(shown(&ConnectSpec::Environment, &pg, None), "postgres://envuser@envhost:5432/envdb Prefer secret");
        let mut all = pg.to_vec();
        all.extend([("POSTGRES_HOST", "composehost"), ("POSTGRES_USER", "composeuser")]);
        assert_eq!(
            shown(&ConnectSpec::Environment, &all, None),
            "postgres://composeuser@composehost:5432/envdb Prefer secret"
        );
        all.push(("DATABASE_URL", "postgres://u@urlhost/d"));
        assert_eq!(shown(&ConnectSpec::Environment, &all, None), "postgres://u@urlhost:5432/d Prefer secret");
    }

    #[test]
    fn service_files_and_password_files_are_read() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".pg_service.conf"), "# c\n[prod]\nhost=svc\nport=7\nuser=u\ndbname=d\n")
            .unwrap();
        let passfile = home.path().join(".pgpass");
        let mut open = std::fs::OpenOptions::new();
        let file = open.write(true).create(true).mode(0o600).open(&passfile).unwrap();
        std::io::Write::write_all(&mut &file, b"other:*:*:*:no\nsvc:7:d:u:pass\\:word\nlocalhost:*:*:*:local\n")
            .unwrap();
        let home = Some(home.path());
        assert_eq!(shown(&given("service=prod"), &[], home), "postgres://u@svc:7/d Prefer pass:word");
        assert_eq!(shown(&given("host=/run/pg user=u"), &[], home), "postgres://u@/run/pg:5432/u Prefer local");
        assert_eq!(
            shown(&given("service=gone"), &[], home),
            "the service `gone` named in target `main` stands in no service file"
        );
        std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(shown(&given("service=prod"), &[], home), "postgres://u@svc:7/d Prefer -");
    }

    #[test]
    fn the_password_is_never_shown() {
        let options = resolve(&given("postgres://a:hunter2@db/x"), &[], None).unwrap();
        assert!(!format!("{options} {options:?}").contains("hunter2"));
    }
}
