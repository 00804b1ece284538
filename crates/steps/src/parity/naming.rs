//! Names of rows that tell nothing of their keys to who has only the evidence.
//!
//! A key is often a small number: whoever knows how it was hashed tries all of them. So a secret of the project is hashed before
//! it, which never leaves `.pgrunbook/`. Who has the project compares again, and finds the row by its name.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::ParityError;

/// The secret's file in `.pgrunbook/`.
const FILE: &str = "parity-key";

/// How rows are named: the same row by the same name in all evidence of one project.
#[derive(Clone)]
pub struct Naming([u8; 32]);

impl std::fmt::Debug for Naming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Naming(***)")
    }
}

impl Naming {
    /// The naming of the project in this folder. Its secret is made with the first need of it.
    ///
    /// # Errors
    /// [`ParityError::Naming`] if it can be neither read nor made.
    pub fn of(project: &Path) -> Result<Self, ParityError> {
        let folder = project.join(".pgrunbook");
        let path = folder.join(FILE);
        let failed = |error| ParityError::Naming { path: path.display().to_string(), error };
        match read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => return result.map(Self).map_err(failed),
        }
        fs::create_dir_all(&folder).map_err(failed)?;
        // Whole before it has its name: another process may be making one, and the first one counts.
        let draft = folder.join(format!("{FILE}.{}", std::process::id()));
        let made = make(&draft).and_then(|()| match fs::hard_link(&draft, &path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        });
        let _ = fs::remove_file(&draft);
        made.and_then(|()| read(&path)).map(Self).map_err(failed)
    }

    /// The name of the row with this key: half of a SHA-256, in hexadecimal.
    pub fn name(&self, key: &[u8]) -> String {
        let digest = Sha256::new().chain_update(self.0).chain_update(key).finalize();
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

fn read(path: &Path) -> std::io::Result<[u8; 32]> {
    let bytes = fs::read(path)?;
    bytes.try_into().map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "it does not hold 32 bytes"))
}

fn make(path: &Path) -> std::io::Result<()> {
    let mut secret = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut secret)?;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&secret)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_hold_within_a_project_and_say_nothing_outside_of_it() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let key = [&4_i32.to_be_bytes()[..], &7_i32.to_be_bytes()].concat();
        let name = Naming::of(one.path()).unwrap().name(&key);
        assert_eq!(name.len(), 32);
        assert_eq!(Naming::of(one.path()).unwrap().name(&key), name);
        assert_ne!(Naming::of(one.path()).unwrap().name(&[0; 8]), name);
        assert_ne!(Naming::of(other.path()).unwrap().name(&key), name);
        let plain: String = Sha256::digest(&key).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        assert_ne!(name, plain, "nobody finds it by trying keys");
        let file = one.path().join(".pgrunbook").join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        fs::write(&file, b"short").unwrap();
        assert!(Naming::of(one.path()).unwrap_err().to_string().contains("32 bytes"));
    }
}
