//! A disk that is really full: a file system in memory, mounted for one test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system of a few megabytes, with a file on it that takes room until it is removed.
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of that many bytes. `None` where whoever runs the tests has said that this user may not mount.
    ///
    /// # Panics
    /// If it cannot be mounted, and nobody has said so: a test that tries nothing must not pass unseen.
    pub fn wanted(bytes: u64) -> Option<Self> {
        if std::env::var_os("PGRUNBOOK_NO_MOUNT").is_some_and(|said| said == "1") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={bytes},mode=0777,nosuid,nodev");
        match privileged(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs"], folder.path()) {
            Ok(()) => Some(Self { folder }),
            Err(why) => panic!(
                "a small file system cannot be mounted here: {why}. It takes root, or a `sudo` that asks nothing; \
                 PGRUNBOOK_NO_MOUNT=1 leaves the tests of full disks out"
            ),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes all room but this many bytes.
    pub fn fill_but(&self, left: u64) {
        let facts = rustix::fs::statvfs(self.path()).unwrap();
        let free = facts.f_bavail * facts.f_frsize;
        std::fs::write(self.ballast(), vec![0; usize::try_from(free - left).unwrap()]).unwrap();
    }

    /// Gives the room back.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file of it open keeps it until then.
        if let Err(why) = privileged(&["umount", "-l"], self.folder.path()) {
            eprintln!("{} stays mounted: {why}", self.path().display());
        }
    }
}

/// As root, or through a `sudo` that asks nothing.
fn privileged(command: &[&str], last: &Path) -> Result<(), String> {
    let root = rustix::process::geteuid().is_root();
    let words = if root { command.to_vec() } else { [&["sudo", "-n"], command].concat() };
    let output = Command::new(words[0]).args(&words[1..]).arg(last).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", words[0]))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
