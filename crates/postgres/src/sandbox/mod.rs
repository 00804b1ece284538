//! Throwaway clusters from the installed PostgreSQL programs, for tests, rehearsals, verified backups and demonstrations.
//!
//! Each is a fresh `initdb` or a copy of one, and no two have the same system identifier, in a folder of its own below
//! `$TMPDIR/pgrunbook-sandbox-<uid>/`. It goes away with the process that started it; what a crash leaves, the next call
//! sweeps up. The servers run as an unprivileged user where we are root, since PostgreSQL refuses root.
//!
//! Of which versions there can be one, [`installed`] says: the system's, and those in a cache folder, which come
//! without client programs.

mod binaries;
mod pooler;
mod scram;
mod template;

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pgrunbook_engine::process;
use serde::{Deserialize, Serialize};

use crate::error::PgError;
use crate::options::{ConnectOptions, HostPort, SslMode, SslOptions};
use crate::quote;
use crate::session::Session;

pub use binaries::{Binaries, RunAs, installed, path_of};
pub use pooler::{PoolMode, Pooler};

/// The superuser of every sandbox.
pub const SUPERUSER: &str = "postgres";

/// A shared cluster that nobody has asked for in this time is swept up.
const SHARED_IDLE: Duration = Duration::from_secs(30 * 60);

/// What says whose a sandbox is.
const CARD: &str = "sandbox.json";

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("PostgreSQL is not installed: no initdb and postgres in {looked}")]
    NoBinaries { looked: String },
    #[error("PostgreSQL {major} is not installed; there is {there}")]
    NoVersion { major: u32, there: String },
    #[error("`{name}` of PostgreSQL {major} or newer is not installed")]
    NoProgram { name: String, major: u32 },
    #[error("PostgreSQL does not run as root, and this machine has neither a user `postgres` nor `nobody`")]
    OnlyRoot,
    #[error("cannot {what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{program} failed: {said}")]
    Program { program: String, said: String },
    #[error("a sandbox `{0}` is already running")]
    Exists(String),
    #[error("sandbox `{name}` is PostgreSQL {major}, and {wanted} was asked for")]
    OtherVersion { name: String, major: u32, wanted: u32 },
    #[error("there is no sandbox `{0}`")]
    Unknown(String),
    #[error("`{0}` is no name for a sandbox: letters, digits, `-` and `_`, at most 30")]
    Name(String),
    #[error("PgBouncer is not installed: apt install pgbouncer (Debian)")]
    NoPgBouncer,
    #[error(transparent)]
    Postgres(#[from] PgError),
}

impl SandboxError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// What a sandbox should be like.
#[derive(Debug, Clone, Default)]
pub struct SandboxOptions {
    /// A name for people; else one is made up.
    pub name: Option<String>,
    /// The programs' folder; else it is looked for.
    pub bindir: Option<PathBuf>,
    /// A major version; else the first of [`installed`].
    pub major: Option<u32>,
    /// Whether commits survive a crash of the machine. Off: faster, and right for what is thrown away.
    pub durable: bool,
    /// It stays when this process ends, until [`down`].
    pub detach: bool,
    /// Settings for `postgresql.conf`.
    pub settings: Vec<(String, String)>,
}

/// What is written down of a sandbox, so that another process can find it and knows whether it may be swept up.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Card {
    name: String,
    owner: u32,
    /// Tells the owner from a later process with its number.
    mark: Option<String>,
    detached: bool,
    /// Kept for other processes, and swept up when idle.
    shared: bool,
    port: u16,
    password: String,
    bindir: PathBuf,
    major: u32,
}

/// A running throwaway cluster. Removed when dropped, unless it was detached.
#[derive(Debug)]
pub struct Sandbox {
    folder: PathBuf,
    card: Card,
    run_as: RunAs,
}

impl Sandbox {
    /// Starts a cluster, after sweeping up what crashed processes left.
    ///
    /// # Errors
    /// [`SandboxError`], with the last line of the program that failed.
    pub async fn start(options: SandboxOptions) -> Result<Self, SandboxError> {
        blocking(move || Self::start_blocking(&options, false)).await
    }

    fn start_blocking(options: &SandboxOptions, shared: bool) -> Result<Self, SandboxError> {
        sweep()?;
        let binaries = Binaries::find(options.bindir.as_deref(), options.major)?;
        let run_as = RunAs::find()?;
        let name = match &options.name {
            Some(name) => checked(name)?.to_owned(),
            None => format!("{}-{}", std::process::id(), &random_hex()?[..6]),
        };
        let folder = base()?.join(&name);
        match fs::create_dir(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(SandboxError::Exists(name)),
            Err(source) => return Err(SandboxError::Io { what: format!("make {}", folder.display()), source }),
        }
        let pid = std::process::id();
        let card = Card {
            name,
            owner: pid,
            mark: process::mark(pid),
            detached: options.detach,
            shared,
            port: 0,
            password: random_hex()?,
            bindir: binaries.folder.clone(),
            major: binaries.major,
        };
        // From here on a failure removes the folder.
        let mut sandbox = Self { folder, card, run_as };
        let made = sandbox.make(options);
        if made.is_err() {
            sandbox.card.detached = false;
        }
        made.map(|()| sandbox)
    }

    fn make(&mut self, options: &SandboxOptions) -> Result<(), SandboxError> {
        self.save()?;
        // The server's user enters, and reads nothing but what is given to it.
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o711))
            .map_err(SandboxError::io("open the sandbox's folder"))?;
        self.part("run", 0o755)?;
        let data = self.data();
        let given = template::copy(&base()?, &self.binaries(), self.run_as, &data);
        if given.is_none() {
            self.init(&data)?;
        }
        let mut conf = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nwal_level = logical\n\
             max_connections = 200\nmax_prepared_transactions = 20\nmax_wal_senders = 10\nmax_replication_slots = 10\n\
             shared_buffers = 64MB\ncheckpoint_timeout = 30min\nmax_wal_size = 4GB\nwal_keep_size = 64MB\n\
             jit = off\nautovacuum_naptime = 10min\n\
             logging_collector = off\nlog_line_prefix = '%m [%p] %q%u@%d '\n",
            self.folder.join("run").display()
        );
        if !options.durable {
            // Commits still reach the file before they are answered: only the machine's own crash loses them.
            conf.push_str("fsync = off\nfull_page_writes = off\n");
        }
        for (name, value) in &options.settings {
            conf.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        append(&data.join("postgresql.conf"), &conf)?;
        self.start_on_free_port()?;
        given.map_or(Ok(()), |password| self.change_password(password))
    }

    /// Makes a part of the folder, for the server's user.
    fn part(&self, name: &str, mode: u32) -> Result<(), SandboxError> {
        let path = self.folder.join(name);
        fs::create_dir(&path).map_err(SandboxError::io(format!("make {}", path.display())))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .map_err(SandboxError::io(format!("open {}", path.display())))?;
        self.run_as.own(&path)
    }

    fn init(&self, data: &Path) -> Result<(), SandboxError> {
        self.part("data", 0o700)?;
        let password_file = self.folder.join("run/password");
        // Other programs than ours connect to what people start, and some refuse so few iterations.
        let password = if self.card.shared { self.verifier()? } else { self.card.password.clone() };
        write_private(&password_file, &password)?;
        self.run_as.own(&password_file)?;
        self.program(
            "initdb",
            &[
                "--no-sync",
                "--no-instructions",
                "--username=postgres",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                &format!("--pwfile={}", password_file.display()),
                &format!("--pgdata={}", data.display()),
            ],
        )?;
        let _ = fs::remove_file(&password_file);
        if self.card.shared {
            template::keep(&base()?, &self.binaries(), self.run_as, data, &self.card.password);
        }
        Ok(())
    }

    fn verifier(&self) -> Result<String, SandboxError> {
        Ok(scram::verifier(&self.card.password, random_hex()?.as_bytes()))
    }

    /// From that of the template, which only this user can have read, to its own. Called where blocking is allowed, in a runtime.
    fn change_password(&self, given: String) -> Result<(), SandboxError> {
        let options = ConnectOptions { password: Some(given), ..self.options() };
        let password = quote::literal(&self.verifier()?).expect("it is ASCII");
        let sql = format!("ALTER ROLE {SUPERUSER} PASSWORD {password}");
        tokio::runtime::Handle::current().block_on(async {
            Session::connect(&options, "pgrunbook:sandbox").await?.execute(&sql).await.map_err(SandboxError::from)
        })
    }

    /// Another process may take the port between our look and the server's: then the next one.
    fn start_on_free_port(&mut self) -> Result<(), SandboxError> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.card.port = free_port()?;
            self.save()?;
            match self.pg_ctl_start() {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if tries == 5 || !self.log_tail().contains("Address already in use") {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn pg_ctl_start(&self) -> Result<(), SandboxError> {
        let started = self.program(
            "pg_ctl",
            &[
                "start",
                "--wait",
                "--timeout=60",
                "--silent",
                &format!("--pgdata={}", self.data().display()),
                &format!("--log={}", self.folder.join("run/log").display()),
                &format!("--options=-p {}", self.card.port),
            ],
        );
        started.map_err(|error| match (error, self.log_tail()) {
            (SandboxError::Program { program, .. }, tail) if !tail.is_empty() => {
                SandboxError::Program { program, said: tail }
            }
            (error, _) => error,
        })
    }

    /// The name it is known by.
    pub fn name(&self) -> &str {
        &self.card.name
    }

    /// Its server's major version.
    pub fn major(&self) -> u32 {
        self.card.major
    }

    /// Its folder: `run/log` is the server's log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The superuser's connection to the database `postgres`.
    pub fn options(&self) -> ConnectOptions {
        ConnectOptions {
            hosts: vec![HostPort { host: "127.0.0.1".to_owned(), port: self.card.port }],
            user: SUPERUSER.to_owned(),
            database: "postgres".to_owned(),
            password: Some(self.card.password.clone()),
            ssl: SslOptions { mode: SslMode::Disable, root_cert: None, cert: None, key: None },
            connect_timeout: Duration::from_secs(10),
            options: None,
            read_write: false,
        }
    }

    /// The same as a URL, with the password: for programs and for people who asked for it.
    pub fn url(&self) -> String {
        url(&self.options())
    }

    /// The folder of the server's socket.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Makes a database.
    ///
    /// # Errors
    /// If there is one of that name.
    pub async fn database(&self, name: &str) -> Result<ConnectOptions, SandboxError> {
        let session = Session::connect(&self.options(), "pgrunbook:sandbox").await?;
        let quoted = quote::ident(name).map_err(|_| SandboxError::Name(name.to_owned()))?;
        // Without a log record for each page: a third of the time where nothing waits for a disk.
        let strategy = if self.card.major >= 15 { " STRATEGY = FILE_COPY" } else { "" };
        session.execute(&format!("CREATE DATABASE {quoted}{strategy}")).await?;
        Ok(self.options().with_database(name))
    }

    /// Makes a database under a name that no other has: one for each test.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub async fn fresh_database(&self, prefix: &str) -> Result<ConnectOptions, SandboxError> {
        let name = format!("{prefix}_{}_{}", std::process::id(), &random_hex()?[..8]);
        self.database(&name).await
    }

    /// Kills the server as the machine's memory killer would: no process of it gets to say a word. Blocking.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self) -> Result<(), SandboxError> {
        let Some(pid) = self.postmaster() else { return Err(SandboxError::Unknown(self.card.name.clone())) };
        let children = children_of(pid);
        signal(pid, rustix::process::Signal::KILL);
        for child in &children {
            signal(*child, rustix::process::Signal::KILL);
        }
        while std::iter::once(&pid).chain(&children).any(|pid| process::lives(*pid, None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Stops the server in good order; its data stay. Blocking.
    ///
    /// # Errors
    /// If `pg_ctl` fails.
    pub fn stop(&self) -> Result<(), SandboxError> {
        let data = format!("--pgdata={}", self.data().display());
        self.program("pg_ctl", &["stop", "--mode=fast", "--wait", "--silent", &data])
    }

    /// Starts it again on the same port, after [`Sandbox::kill`] or [`Sandbox::stop`]. Blocking.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart(&self) -> Result<(), SandboxError> {
        if self.postmaster().is_none() {
            // In a container nobody may bury the dead server, and the new one takes the corpse for alive.
            let _ = fs::remove_file(self.data().join("postmaster.pid"));
            let _ = fs::remove_file(self.folder.join(format!("run/.s.PGSQL.{}.lock", self.card.port)));
        }
        self.pg_ctl_start()
    }

    /// A hot standby of it, which goes away with the value that is returned.
    ///
    /// # Errors
    /// If `pg_basebackup` is missing ([`Binaries::client`]) or fails.
    pub async fn standby(&self) -> Result<Self, SandboxError> {
        let name = checked(&format!("{}-standby", self.card.name))?.to_owned();
        let folder = base()?.join(&name);
        let card = Card { name, port: free_port()?, detached: false, shared: false, ..self.card.clone() };
        let source = self.options();
        let run_as = self.run_as;
        blocking(move || {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).map_err(SandboxError::io(format!("make {}", folder.display())))?;
            let pid = std::process::id();
            let card = Card { owner: pid, mark: process::mark(pid), ..card };
            let sandbox = Self { folder, card, run_as };
            sandbox.save()?;
            fs::set_permissions(&sandbox.folder, fs::Permissions::from_mode(0o711))
                .map_err(SandboxError::io("open the sandbox's folder"))?;
            sandbox.part("data", 0o700)?;
            sandbox.part("run", 0o755)?;
            let mut command = sandbox.run_as.command(&sandbox.binaries().client("pg_basebackup")?);
            command.envs(source.libpq_env()).arg(format!("--pgdata={}", sandbox.data().display()));
            command.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]);
            finished("pg_basebackup", &mut command)?;
            append(
                &sandbox.data().join("postgresql.conf"),
                &format!("unix_socket_directories = '{}'\n", sandbox.folder.join("run").display()),
            )?;
            sandbox.pg_ctl_start()?;
            Ok(sandbox)
        })
        .await
    }

    /// PgBouncer in front of it, which goes away with the sandbox. `users`: who may come through, with their passwords,
    /// beside the superuser.
    ///
    /// # Errors
    /// If PgBouncer is not installed or does not come up.
    pub async fn pooler(&self, mode: PoolMode, users: &[(&str, &str)]) -> Result<Pooler, SandboxError> {
        let mut all = vec![(SUPERUSER.to_owned(), self.card.password.clone())];
        all.extend(users.iter().map(|(user, password)| ((*user).to_owned(), (*password).to_owned())));
        let (folder, run_as, port) = (self.folder.clone(), self.run_as, self.card.port);
        let superuser = self.options();
        blocking(move || Pooler::start(&folder, run_as, port, mode, &all, superuser)).await
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn binaries(&self) -> Binaries {
        Binaries { folder: self.card.bindir.clone(), major: self.card.major }
    }

    fn program(&self, name: &str, arguments: &[&str]) -> Result<(), SandboxError> {
        let mut command = self.run_as.command(&self.binaries().program(name));
        command.args(arguments);
        finished(name, &mut command)
    }

    fn save(&self) -> Result<(), SandboxError> {
        let card = serde_json::to_string(&self.card).expect("texts and numbers");
        write_private(&self.folder.join(CARD), &card)
    }

    /// The server's last complaint.
    fn log_tail(&self) -> String {
        let log = fs::read(self.folder.join("run/log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let complaint = |line: &&str| line.contains("FATAL") || line.contains("ERROR") || line.contains("could not");
        log.lines().rev().find(complaint).unwrap_or_default().to_owned()
    }

    fn postmaster(&self) -> Option<u32> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        process::lives(pid, None).then_some(pid)
    }

    fn remove(&self) {
        pooler::stop_all(&self.folder);
        if let Some(pid) = self.postmaster() {
            // SIGQUIT: immediate shutdown; nothing of it is needed any more.
            signal(pid, rustix::process::Signal::QUIT);
            let begun = std::time::Instant::now();
            while process::lives(pid, None) {
                if begun.elapsed() > Duration::from_secs(5) {
                    let _ = self.kill();
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // Children of the server may still be leaving.
        for _ in 0..50 {
            if fs::remove_dir_all(&self.folder).is_ok() || !self.folder.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn open(folder: &Path) -> Option<Self> {
        let card = serde_json::from_str(&fs::read_to_string(folder.join(CARD)).ok()?).ok()?;
        Some(Self { folder: folder.to_owned(), card, run_as: RunAs::find().ok()? })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !self.card.detached {
            self.remove();
        }
    }
}

/// The cluster of that name that several processes share: started by the first that asks. It stays until [`down`], or
/// until it was idle for half an hour. The first one of a version leaves a copy of its empty data directory, which other
/// sandboxes begin with.
///
/// # Errors
/// As [`Sandbox::start`]; [`SandboxError::OtherVersion`] if it runs already, and not the version that is asked for.
pub async fn shared(name: &str, options: SandboxOptions) -> Result<Sandbox, SandboxError> {
    let name = checked(name)?.to_owned();
    blocking(move || {
        let folder = base()?.join(&name);
        // Beside the folder, since the folder is removed with the cluster.
        let lock = folder.with_extension("lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock)
            .map_err(SandboxError::io(format!("open {}", lock.display())))?;
        file.lock().map_err(SandboxError::io(format!("lock {}", lock.display())))?;
        if let Some(found) = Sandbox::open(&folder) {
            if found.postmaster().is_some() {
                if let Some(wanted) = options.major.filter(|wanted| *wanted != found.card.major) {
                    return Err(SandboxError::OtherVersion { name, major: found.card.major, wanted });
                }
                // When it was asked for last is when its card was written last.
                found.save()?;
                return Ok(found);
            }
            found.remove();
        }
        Sandbox::start_blocking(&SandboxOptions { name: Some(name), detach: true, ..options }, true)
    })
    .await
}

/// The cluster of a major version that several processes share: [`shared`], under a name of its own for each version.
///
/// # Errors
/// As [`shared`].
pub async fn shared_of(major: u32, name: &str) -> Result<Sandbox, SandboxError> {
    shared(&format!("{name}-{major}"), SandboxOptions { major: Some(major), ..SandboxOptions::default() }).await
}

/// A sandbox that another process started.
///
/// # Errors
/// If there is none of that name.
pub fn find(name: &str) -> Result<Sandbox, SandboxError> {
    let mut found =
        Sandbox::open(&base()?.join(checked(name)?)).ok_or_else(|| SandboxError::Unknown(name.to_owned()))?;
    // Whoever looked for it is not whoever ends it.
    found.card.detached = true;
    Ok(found)
}

/// Names of all sandboxes of this user.
///
/// # Errors
/// If their folder cannot be read.
pub fn list() -> Result<Vec<String>, SandboxError> {
    Ok(all()?.into_iter().map(|sandbox| sandbox.card.name.clone()).collect())
}

/// Stops and removes a sandbox.
///
/// # Errors
/// If there is none of that name.
pub fn down(name: &str) -> Result<(), SandboxError> {
    find(name)?.remove();
    Ok(())
}

/// Stops and removes every sandbox of this user whose owner is gone or that was detached. Returns their names.
///
/// # Errors
/// If their folder cannot be read.
pub fn down_all() -> Result<Vec<String>, SandboxError> {
    let mut removed = Vec::new();
    for sandbox in all()? {
        if sandbox.card.detached || !process::lives(sandbox.card.owner, sandbox.card.mark.as_deref()) {
            sandbox.remove();
            removed.push(sandbox.card.name.clone());
        }
    }
    template::remove(&base()?, Duration::ZERO);
    Ok(removed)
}

/// Removes what crashed processes left, and shared clusters that nobody has used for long.
fn sweep() -> Result<(), SandboxError> {
    for sandbox in all()? {
        let idle = || {
            let written = fs::metadata(sandbox.folder.join(CARD)).and_then(|facts| facts.modified()).ok();
            written.and_then(|at| SystemTime::now().duration_since(at).ok()).is_some_and(|age| age > SHARED_IDLE)
        };
        let orphaned = !sandbox.card.detached && !process::lives(sandbox.card.owner, sandbox.card.mark.as_deref());
        if orphaned || (sandbox.card.shared && idle()) {
            sandbox.remove();
        }
    }
    template::remove(&base()?, SHARED_IDLE);
    Ok(())
}

/// Every sandbox, none of which is removed when it is dropped.
fn all() -> Result<Vec<std::mem::ManuallyDrop<Sandbox>>, SandboxError> {
    let base = base()?;
    let entries = fs::read_dir(&base).map_err(SandboxError::io(format!("read {}", base.display())))?;
    let folders = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    Ok(folders.filter_map(|folder| Sandbox::open(&folder)).map(std::mem::ManuallyDrop::new).collect())
}

/// The folder of all sandboxes of this user: ours, and nobody else's link.
fn base() -> Result<PathBuf, SandboxError> {
    let uid = rustix::process::geteuid().as_raw();
    let base = std::env::temp_dir().join(format!("pgrunbook-sandbox-{uid}"));
    if let Err(source) = fs::create_dir(&base)
        && source.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(SandboxError::Io { what: format!("make {}", base.display()), source });
    }
    let facts = fs::symlink_metadata(&base).map_err(SandboxError::io(format!("look at {}", base.display())))?;
    if !facts.is_dir() || facts.uid() != uid {
        let source = std::io::Error::other("it belongs to somebody else");
        return Err(SandboxError::Io { what: format!("use {}", base.display()), source });
    }
    fs::set_permissions(&base, fs::Permissions::from_mode(0o711))
        .map_err(SandboxError::io(format!("open {}", base.display())))?;
    Ok(base)
}

fn checked(name: &str) -> Result<&str, SandboxError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // Longer ones would not leave room for the socket's path (107 bytes).
    if (1..=30).contains(&name.len()) && name.chars().all(fits) {
        Ok(name)
    } else {
        Err(SandboxError::Name(name.to_owned()))
    }
}

/// A URL with the password, which [`ConnectOptions`] never shows by itself.
pub fn url(options: &ConnectOptions) -> String {
    let place = &options.hosts[0];
    let escaped = |text: &str| {
        text.bytes().fold(String::new(), |mut url, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                url.push(char::from(byte));
            } else {
                url.push_str(&format!("%{byte:02X}"));
            }
            url
        })
    };
    let password = options.password.as_deref().map_or_else(String::new, |password| format!(":{}", escaped(password)));
    format!(
        "postgres://{}{password}@{}:{}/{}?sslmode=disable",
        escaped(&options.user),
        place.host,
        place.port,
        escaped(&options.database)
    )
}

fn free_port() -> Result<u16, SandboxError> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(SandboxError::io("find a free port"))
}

/// 32 hexadecimal digits that nobody foresees.
pub(crate) fn random_hex_digits() -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn random_hex() -> Result<String, SandboxError> {
    random_hex_digits().map_err(SandboxError::io("read /dev/urandom"))
}

fn write_private(path: &Path, text: &str) -> Result<(), SandboxError> {
    use std::io::Write;
    // Written beside and renamed: another process never reads half of it.
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, path))
        .map_err(SandboxError::io(format!("write {}", path.display())))
}

fn append(path: &Path, text: &str) -> Result<(), SandboxError> {
    use std::io::Write;
    fs::OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(SandboxError::io(format!("write {}", path.display())))
}

/// Runs a program to its end. Its output goes to a file, not a pipe: a server that it starts would keep the pipe open.
fn finished(name: &str, command: &mut std::process::Command) -> Result<(), SandboxError> {
    let output = tempfile::tempfile().map_err(SandboxError::io("make a temporary file"))?;
    let copy = |output: &fs::File| output.try_clone().map_err(SandboxError::io("use a temporary file"));
    let status = command
        .stdout(copy(&output)?)
        .stderr(copy(&output)?)
        .status()
        .map_err(SandboxError::io(format!("start {name}")))?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    {
        use std::io::{Read, Seek};
        let mut output = output;
        let _ = output.rewind();
        let mut bytes = Vec::new();
        let _ = output.read_to_end(&mut bytes);
        said.push_str(String::from_utf8_lossy(&bytes).trim());
    }
    if said.is_empty() {
        said = status.to_string();
    }
    Err(SandboxError::Program { program: name.to_owned(), said })
}

fn children_of(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // Gone already: nothing to do.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    tokio::task::spawn_blocking(work).await.expect("nothing in here panics, and nobody cancels it")
}
