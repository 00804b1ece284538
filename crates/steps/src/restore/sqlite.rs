//! SQLite: the copy is written back by the online backup, under the eyes of whoever has the file open.

use std::path::{Path, PathBuf};

use pgrunbook_engine::{Evidence, StepError};

use crate::backup::{back_up_sqlite, check_sqlite};

/// Where the file as it was is kept.
pub(super) fn kept(path: &Path, run: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".before-{run}"));
    name.into()
}

/// Writes `copy` over `path`, and keeps what was there. Blocking; running it again changes nothing more.
pub(super) fn put_back(copy: &Path, path: &Path, run: &str) -> Result<Evidence, StepError> {
    check_sqlite(copy)?;
    let kept = kept(path, run);
    if path.exists() && !kept.exists() {
        back_up_sqlite(path, &kept)?;
    }
    back_up_sqlite(copy, path)?;
    let tables = check_sqlite(path)?;
    Ok(Evidence::of(format!("{} restored, {tables} tables", path.display()))
        .fact("tables", tables)
        .fact("kept", kept.display().to_string()))
}
