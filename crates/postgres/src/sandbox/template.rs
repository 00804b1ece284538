//! A data directory as `initdb` left it, kept for the next sandbox of the same server.
//!
//! An `initdb` takes half a second of a processor, a copy of what it made a tenth of that. Only shared clusters leave one, since
//! tests start sandboxes by the hundred; who starts one now and then has nothing of it.
//!
//! A copy is a cluster of its own: it gets another system identifier, as `pg_createsubscriber` does it for a copy of a server,
//! and another password. Where anything is not as it is expected to be there is no copy, and `initdb` runs.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Binaries, RunAs, write_private};

const PREFIX: &str = "template-";

/// The superuser's password in the kept directory. Its time is when the template was used last.
const PASSWORD: &str = "password";

/// Where that of a server is: another build of the same version is another server.
fn folder(base: &Path, binaries: &Binaries) -> io::Result<PathBuf> {
    let program = binaries.program("postgres");
    let facts = fs::metadata(&program)?;
    let build = format!("{} {} {:?}", program.display(), facts.len(), facts.modified()?);
    Ok(base.join(format!("{PREFIX}{}-{:016x}", binaries.major, xxhash_rust::xxh3::xxh3_64(build.as_bytes()))))
}

/// Keeps a copy of a data directory in which no server has run. Without one the next sandbox takes longer, and that is all.
pub(super) fn keep(base: &Path, binaries: &Binaries, run_as: RunAs, data: &Path, password: &str) {
    let Ok(folder) = folder(base, binaries) else { return };
    if folder.exists() {
        return;
    }
    let beside = folder.with_extension(format!("{}.new", std::process::id()));
    let kept = copy_folder(data, &beside.join("data"), run_as)
        .map_err(|_| ())
        .and_then(|()| write_private(&beside.join(PASSWORD), password).map_err(|_| ()))
        .and_then(|()| fs::rename(&beside, &folder).map_err(|_| ()));
    if kept.is_err() {
        // Another process may have been faster.
        let _ = fs::remove_dir_all(&beside);
    }
}

/// Fills a data directory that is not there yet from the template, if there is one. The password of its superuser.
pub(super) fn copy(base: &Path, binaries: &Binaries, run_as: RunAs, data: &Path) -> Option<String> {
    let folder = folder(base, binaries).ok()?;
    let password = fs::File::options().read(true).write(true).open(folder.join(PASSWORD));
    let copied = password.and_then(|mut file| {
        let mut password = String::new();
        file.read_to_string(&mut password)?;
        file.set_modified(SystemTime::now())?;
        copy_folder(&folder.join("data"), data, run_as)?;
        identify(data, identifier())?;
        Ok(password)
    });
    if copied.is_err() {
        let _ = fs::remove_dir_all(data);
    }
    copied.ok()
}

/// Removes the templates that nobody has used for so long.
pub(super) fn remove(base: &Path, idle: Duration) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let path = entry.path();
        let used = fs::metadata(path.join(PASSWORD)).and_then(|facts| facts.modified());
        let used = used.or_else(|_| entry.metadata()?.modified());
        let age = used.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && age.is_some_and(|age| age >= idle) {
            // Out of sight first: nobody begins to copy what is half gone.
            let gone = base.join(format!("{PREFIX}gone.{}", std::process::id()));
            let _ = fs::remove_dir_all(&gone);
            let _ = fs::remove_dir_all(if fs::rename(&path, &gone).is_ok() { &gone } else { &path });
        }
    }
}

fn copy_folder(from: &Path, to: &Path, run_as: RunAs) -> io::Result<()> {
    let own = |path: &Path| run_as.own(path).map_err(io::Error::other);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    own(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
        let copy = to.join(path.file_name().expect("it was listed"));
        if entry?.is_dir() {
            copy_folder(&path, &copy, run_as)?;
        } else {
            fs::copy(&path, &copy)?;
            own(&copy)?;
        }
    }
    Ok(())
}

/// Made as `initdb` makes it (`BootStrapXLOG` in PostgreSQL's `src/backend/access/transam/xlog.c`): of the time and the process.
fn identifier() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_secs() << 32) | (u64::from(now.subsec_micros()) << 12) | u64::from(std::process::id() & 0xfff)
}

/// Gives a cluster that was shut down another system identifier, at the two places where it is written. The server compares
/// both when it starts, and the checksum.
fn identify(data: &Path, identifier: u64) -> io::Result<()> {
    // `ControlFileData` of src/include/catalog/pg_control.h begins with it and ends with the CRC-32C of all before; how long it
    // is differs between versions.
    let path = data.join("global/pg_control");
    let mut control = fs::read(&path)?;
    let end = checksum_at(&control).ok_or_else(|| io::Error::other("the control file has no checksum"))?;
    let (before, after) = (control[..8].to_vec(), identifier.to_ne_bytes());
    control[..8].copy_from_slice(&after);
    let checksum = !crc32c(!0, &control[..end]);
    control[end..end + 4].copy_from_slice(&checksum.to_ne_bytes());
    fs::write(&path, control)?;

    // `XLogLongPageHeaderData` of src/include/access/xlog_internal.h: in the first page of a segment. After `initdb` there is one.
    let name = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 24);
    let segments: Vec<_> =
        fs::read_dir(data.join("pg_wal"))?.flatten().map(|entry| entry.path()).filter(name).collect();
    let [segment] = segments.as_slice() else { return Err(io::Error::other("there is more than one segment")) };
    let mut file = fs::File::options().read(true).write(true).open(segment)?;
    let (place, mut found) = (SeekFrom::Start(24), [0; 8]);
    file.seek(place)?;
    file.read_exact(&mut found)?;
    if found != before[..] {
        return Err(io::Error::other("the segment has another identifier"));
    }
    file.seek(place)?;
    file.write_all(&after)
}

/// Where the checksum of a control file is.
fn checksum_at(control: &[u8]) -> Option<usize> {
    let mut state = u32::MAX;
    control.chunks_exact(4).enumerate().find_map(|(at, word)| {
        let found = at > 2 && (!state).to_ne_bytes() == word;
        state = crc32c(state, word);
        found.then_some(at * 4)
    })
}

/// The state of a CRC-32C (Castagnoli) after more bytes; it begins with all bits set and ends inverted.
fn crc32c(state: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(state, |state, byte| {
        (0..8).fold(state ^ u32::from(*byte), |state, _| (state >> 1) ^ (0x82f6_3b78 & (state & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_castagnolis_and_found_where_it_is() {
        // RFC 3720, appendix B.4.
        let counted: Vec<u8> = (0..32).collect();
        assert_eq!(!crc32c(!0, &counted), 0x46dd_794e);
        let mut control = counted.clone();
        control.extend(0x46dd_794e_u32.to_ne_bytes());
        control.resize(512, 0);
        assert_eq!(checksum_at(&control), Some(32));
        assert_eq!(checksum_at(&[7; 64]), None);
    }
}
