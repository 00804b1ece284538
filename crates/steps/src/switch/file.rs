//! A configuration file that is changed: read, edited, replaced in one rename, and put back.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::SwitchError;
use super::{env, toml_file};

/// Larger is no configuration.
const LARGEST: u64 = 4 << 20;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    Env,
}

impl Format {
    /// As the file's name says: `app.toml`; `.env`, `prod.env`, `.env.local`.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy();
        if name.ends_with(".toml") {
            return Some(Self::Toml);
        }
        (name.ends_with(".env") || name.starts_with(".env.")).then_some(Self::Env)
    }

    fn set(self, text: &str, key: &str, value: &toml::Value) -> Result<String, String> {
        match self {
            Self::Toml => toml_file::set(text, key, value),
            Self::Env => env::set(text, key, &plain(value)),
        }
    }

    /// What a key is set to.
    pub fn value(self, text: &str, key: &str) -> Result<Option<String>, String> {
        match self {
            Self::Toml => toml_file::value(text, key),
            Self::Env => env::value(text, key),
        }
    }
}

/// A scalar without TOML's spelling.
pub(super) fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The text with every key set.
pub(super) fn edited(
    path: &Path,
    format: Format,
    before: &[u8],
    set: &BTreeMap<String, toml::Value>,
) -> Result<String, SwitchError> {
    let refuse = |why: String| SwitchError::Content { path: path.display().to_string(), why };
    let mut text = std::str::from_utf8(before).map_err(|_| refuse("it is not UTF-8".to_owned()))?.to_owned();
    for (key, value) in set {
        text = format.set(&text, key, value).map_err(refuse)?;
    }
    Ok(text)
}

/// The whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, SwitchError> {
    let failed = |source| SwitchError::File { path: path.display().to_string(), what: "read", source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > LARGEST {
        return Err(failed(std::io::Error::other(format!("it has {length} bytes, which is no configuration"))));
    }
    fs::read(path).map_err(failed)
}

/// SHA-256 in hex.
pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keeps bytes in a file that only this user reads. What is there already is replaced.
pub(super) fn keep(path: &Path, bytes: &[u8]) -> Result<(), SwitchError> {
    let failed = |source| SwitchError::File { path: path.display().to_string(), what: "written", source };
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    sync_folder(path).map_err(failed)
}

/// Puts `after` in place of `before`, in one rename: readers see the one or the other. Owner and mode stay; where the path is a
/// symbolic link, the file that it leads to is replaced, and the link stays.
///
/// # Errors
/// [`SwitchError::Raced`] if it does not hold `before` any more.
pub(crate) fn replace(path: &Path, before: &[u8], after: &[u8]) -> Result<(), SwitchError> {
    let failed = |what| move |source| SwitchError::File { path: path.display().to_string(), what, source };
    let real = path.canonicalize().map_err(failed("found"))?;
    let meta = fs::metadata(&real).map_err(failed("read"))?;
    if meta.nlink() > 1 {
        return Err(SwitchError::HardLinks { path: path.display().to_string(), count: meta.nlink() });
    }
    let beside = beside(&real);
    // Left by a process that was killed here.
    let _ = fs::remove_file(&beside);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(after)?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (meta.uid(), meta.gid()) {
            std::os::unix::fs::fchown(&file, Some(meta.uid()), Some(meta.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(meta.mode() & 0o7777))?;
        file.sync_all()
    })();
    let replaced = written.map_err(failed("written")).and_then(|()| {
        // The moment between this look and the rename is all in which a change of somebody else would be lost.
        if fs::read(&real).map_err(failed("read"))? != before {
            return Err(SwitchError::Raced { path: path.display().to_string() });
        }
        fs::rename(&beside, &real).map_err(failed("replaced"))
    });
    if replaced.is_err() {
        let _ = fs::remove_file(&beside);
    }
    replaced?;
    sync_folder(&real).map_err(failed("made durable"))
}

fn beside(real: &Path) -> PathBuf {
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    real.with_file_name(format!(".{name}.pgrunbook"))
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_through_a_link_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real.env"), folder.path().join("link.env"));
        fs::write(&file, "A=1\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.env", &link).unwrap();
        replace(&link, b"A=1\n", b"A=2\n").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"A=2\n");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside");
    }

    #[test]
    fn changed_meanwhile_or_of_two_names_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.env");
        fs::write(&file, "A=3\n").unwrap();
        assert!(matches!(replace(&file, b"A=1\n", b"A=2\n"), Err(SwitchError::Raced { .. })));
        fs::hard_link(&file, folder.path().join("b.env")).unwrap();
        assert!(matches!(replace(&file, b"A=3\n", b"A=2\n"), Err(SwitchError::HardLinks { count: 2, .. })));
        assert_eq!(fs::read(&file).unwrap(), b"A=3\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
