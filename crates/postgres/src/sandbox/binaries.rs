//! The programs of an installed PostgreSQL, and the user they run as.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::SandboxError;

/// A folder with `initdb` and `postgres`, and its major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub folder: PathBuf,
    pub major: u32,
}

impl Binaries {
    /// Those at `given`; else of what [`installed`] finds, the first of the wanted version.
    ///
    /// # Errors
    /// [`SandboxError::NoBinaries`], with where was looked; [`SandboxError::NoVersion`], with what is there instead.
    pub fn find(given: Option<&Path>, major: Option<u32>) -> Result<Self, SandboxError> {
        match (given, major) {
            (Some(folder), _) => {
                Self::at(folder).ok_or_else(|| SandboxError::NoBinaries { looked: folder.display().to_string() })
            }
            (None, Some(major)) => Self::of(major),
            (None, None) => installed().next().ok_or_else(nowhere),
        }
    }

    /// The first installed server of a major version, in the order of [`installed`].
    ///
    /// # Errors
    /// As [`Binaries::find`].
    pub fn of(major: u32) -> Result<Self, SandboxError> {
        installed().find(|server| server.major == major).ok_or_else(|| {
            let mut there: Vec<_> = installed().collect();
            if there.is_empty() {
                return nowhere();
            }
            there.sort_by_key(|server| server.major);
            let shown = there.iter().map(|server| format!("{} ({})", server.major, server.folder.display()));
            SandboxError::NoVersion { major, there: shown.collect::<Vec<_>>().join(", ") }
        })
    }

    fn at(folder: &Path) -> Option<Self> {
        if !(executable(&folder.join("initdb")) && executable(&folder.join("postgres"))) {
            return None;
        }
        let output = Command::new(folder.join("postgres")).arg("--version").stdin(Stdio::null()).output().ok()?;
        // postgres (PostgreSQL) 15.18 (Debian ...), or 18beta1.
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().nth(2)?;
        let digits = version.find(|char: char| !char.is_ascii_digit()).unwrap_or(version.len());
        Some(Self { folder: folder.to_owned(), major: version[..digits].parse().ok()? })
    }

    /// One of the server's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A client program that fits this server. Servers in the cache folder come without any: then the first installed
    /// one of this version or newer, since clients speak to older servers, and refuse newer ones.
    ///
    /// # Errors
    /// [`SandboxError::NoProgram`].
    pub fn client(&self, name: &str) -> Result<PathBuf, SandboxError> {
        let others = installed().filter(|other| other.major >= self.major).map(|other| other.program(name));
        std::iter::once(self.program(name))
            .chain(others)
            .find(|path| executable(path))
            .ok_or_else(|| SandboxError::NoProgram { name: name.to_owned(), major: self.major })
    }
}

/// The installed servers: where `pg_config` says, then Debian's folders, newest first, then `PATH`, then the cache
/// folders, newest first. Each is asked for its version only when its turn comes.
pub fn installed() -> impl Iterator<Item = Binaries> {
    folders().into_iter().filter_map(|folder| Binaries::at(&folder))
}

fn nowhere() -> SandboxError {
    let looked: Vec<_> = folders().iter().map(|folder| folder.display().to_string()).collect();
    SandboxError::NoBinaries { looked: looked.join(", ") }
}

/// Where `scripts/servers` puts servers: a folder for each major version. Everybody's, and for others than root their
/// own; root's own cache is closed to the user that a server runs as.
fn caches() -> Vec<PathBuf> {
    let own = || {
        let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        given.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
    };
    let own = if rustix::process::geteuid().is_root() { None } else { own() };
    own.into_iter().chain([PathBuf::from("/var/cache")]).map(|cache| cache.join("pgrunbook/servers")).collect()
}

/// `bin` of each folder that is named for a major version, newest first.
fn versions_in(parent: &Path) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output() {
        folders.push(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    folders.extend(versions_in(Path::new("/usr/lib/postgresql")));
    folders.extend(path_of("initdb").and_then(|path| path.parent().map(Path::to_owned)));
    folders.extend(caches().iter().flat_map(|cache| versions_in(cache)));
    let mut seen = Vec::new();
    folders.retain(|folder| {
        let new = !seen.contains(folder);
        seen.push(folder.clone());
        new
    });
    folders
}

/// A program on `PATH`, or in a `sbin`, where Debian puts PgBouncer.
pub fn path_of(name: &str) -> Option<PathBuf> {
    let found = Command::new("/bin/sh").args(["-c", "command -v -- \"$1\"", "sh", name]).stdin(Stdio::null()).output();
    let on_path = found.ok().map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let sbin = ["/usr/sbin", "/usr/local/sbin"].iter().map(|folder| Path::new(folder).join(name));
    on_path.into_iter().chain(sbin).find(|path| path.is_absolute() && executable(path))
}

fn executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

/// As whom the servers run: PostgreSQL refuses root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunAs {
    /// We are no root.
    Self_,
    Other {
        uid: u32,
        gid: u32,
    },
}

impl RunAs {
    /// `postgres`, else `nobody`, if we are root.
    ///
    /// # Errors
    /// If we are root and there is neither.
    pub fn find() -> Result<Self, SandboxError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Self_);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "nobody"]
            .iter()
            .find_map(|wanted| {
                passwd.lines().find_map(|line| {
                    let mut fields = line.split(':');
                    if fields.next()? != *wanted {
                        return None;
                    }
                    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
                    (uid != 0).then_some(Self::Other { uid, gid })
                })
            })
            .ok_or(SandboxError::OnlyRoot)
    }

    /// A command of that user: out of our terminal's process group, nothing inherited but the environment's basics.
    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Self::Other { uid, gid } = self {
            // The standard library drops the supplementary groups with these.
            command.uid(uid).gid(gid);
        }
        // PG* and LC_* of the caller would change what the servers do; messages are matched in English.
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
        command.current_dir("/").process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Gives a path to that user.
    ///
    /// # Errors
    /// If it cannot be given away.
    pub fn own(self, path: &Path) -> Result<(), SandboxError> {
        if let Self::Other { uid, gid } = self {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .map_err(|source| SandboxError::Io { what: format!("give away {}", path.display()), source })?;
        }
        Ok(())
    }
}
