//! PgBouncer in front of a sandbox.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgrunbook_engine::process;

use super::{RunAs, SUPERUSER, SandboxError, finished, free_port, path_of, signal, write_private};
use crate::options::{ConnectOptions, HostPort};

/// When a server connection goes to the next client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    Session,
    Transaction,
}

/// A running PgBouncer. It ends with its sandbox.
#[derive(Debug)]
pub struct Pooler {
    folder: PathBuf,
    port: u16,
    superuser: ConnectOptions,
    run_as: RunAs,
}

impl Pooler {
    pub(super) fn start(
        sandbox: &Path,
        run_as: RunAs,
        server_port: u16,
        mode: PoolMode,
        users: &[(String, String)],
        superuser: ConnectOptions,
    ) -> Result<Self, SandboxError> {
        let port = free_port()?;
        let folder = sandbox.join(format!("pooler-{port}"));
        fs::create_dir(&folder).map_err(SandboxError::io(format!("make {}", folder.display())))?;
        let quoted = |text: &str| text.replace('"', "\"\"");
        let list: String =
            users.iter().map(|(user, password)| format!("\"{}\" \"{}\"\n", quoted(user), quoted(password))).collect();
        let mode = match mode {
            PoolMode::Session => "session",
            PoolMode::Transaction => "transaction",
        };
        let file = |name: &str| folder.join(name).display().to_string();
        // One server connection for each user and database: two clients then certainly share it. A server that was away is
        // tried again after a second, and not after the fifteen that are the default.
        let conf = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\n\
             default_pool_size = 1
max_client_conn = 200
admin_users = {SUPERUSER}
logfile = {}
pidfile = {}
\
             ignore_startup_parameters = extra_float_digits,options
server_tls_sslmode = disable
\
             server_login_retry = 1
",
            file("users"),
            file("log"),
            file("pid")
        );
        write_private(&folder.join("users"), &list)?;
        write_private(&folder.join("conf"), &conf)?;
        for path in [folder.join("users"), folder.join("conf"), folder.clone()] {
            run_as.own(&path)?;
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))
            .map_err(SandboxError::io(format!("open {}", folder.display())))?;
        let pooler = Self { folder, port, superuser, run_as };
        pooler.start_again()?;
        Ok(pooler)
    }

    /// Starts it once more after [`Pooler::stop`], on the same port and with the configuration as it is now. Blocking.
    ///
    /// # Errors
    /// If it does not start, or does not answer within ten seconds.
    pub fn start_again(&self) -> Result<(), SandboxError> {
        let program = path_of("pgbouncer").ok_or(SandboxError::NoPgBouncer)?;
        let mut command = self.run_as.command(&program);
        command.args(["-q", "-d"]).arg(self.ini());
        finished("pgbouncer", &mut command)?;
        // It answers a moment after it has gone to the background.
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if begun.elapsed() > Duration::from_secs(10) {
                let said = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                let said = said.lines().last().unwrap_or("it does not answer").to_owned();
                return Err(SandboxError::Program { program: "pgbouncer".to_owned(), said });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The superuser's connection through it, to the database `postgres`.
    pub fn options(&self) -> ConnectOptions {
        self.through(&self.superuser)
    }

    /// Another connection, led through it.
    pub fn through(&self, options: &ConnectOptions) -> ConnectOptions {
        ConnectOptions { hosts: vec![HostPort { host: "127.0.0.1".to_owned(), port: self.port }], ..options.clone() }
    }

    /// Its configuration file, for who changes where its databases lead.
    pub fn ini(&self) -> PathBuf {
        self.folder.join("conf")
    }

    /// Ends it now.
    pub fn stop(&self) {
        stop(&self.folder);
    }

    /// Has it stand still, with all its connections open: nobody gets an answer until [`Pooler::go_on`].
    pub fn stand_still(&self) {
        tell(&self.folder, rustix::process::Signal::STOP);
    }

    /// Ends [`Pooler::stand_still`].
    pub fn go_on(&self) {
        tell(&self.folder, rustix::process::Signal::CONT);
    }
}

/// Its process, if it runs.
fn pid(folder: &Path) -> Option<u32> {
    fs::read_to_string(folder.join("pid")).ok().and_then(|text| text.trim().parse().ok())
}

fn tell(folder: &Path, what: rustix::process::Signal) {
    if let Some(pid) = pid(folder) {
        signal(pid, what);
    }
}

/// Ends every PgBouncer of a sandbox.
pub(super) fn stop_all(sandbox: &Path) {
    for entry in fs::read_dir(sandbox).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("pooler-") {
            stop(&entry.path());
        }
    }
}

fn stop(folder: &Path) {
    let Some(pid) = pid(folder) else { return };
    // SIGTERM: at once; SIGINT would wait for clients. One that stands still hears nothing before it goes on.
    signal(pid, rustix::process::Signal::TERM);
    signal(pid, rustix::process::Signal::CONT);
    let begun = Instant::now();
    while process::lives(pid, None) && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(5));
    }
}
