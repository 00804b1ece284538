//! The repeatable files as they were where the branch left: the target has what they made when the change comes to it.
//!
//! A view cannot lose a column by `CREATE OR REPLACE`, nor a function change what it returns, and no column can be dropped that a view
//! reads: on an empty database such a change passes, and at the target it fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::error::GateError;
use super::{Changed, Wish};
use crate::migrate::chain::{Chain, Repeatable};
use crate::migrate::layout::{Named, read_name};

/// Of each chain, by its name; the files are there for as long as this is.
#[derive(Default)]
pub(super) struct Before {
    chains: BTreeMap<String, Vec<Repeatable>>,
    _folder: Option<TempDir>,
}

impl Before {
    /// Asks git for them. `shown` says where a chain's folder is below the top of the working tree.
    ///
    /// # Errors
    /// If git does not give them, or they cannot be written beside.
    pub fn of(wish: &Wish<'_>, changed: &Changed, shown: impl Fn(&Path) -> String) -> Result<Self, GateError> {
        let folder = TempDir::new().map_err(|error| GateError::Beside { why: error.to_string() })?;
        let mut chains = BTreeMap::new();
        for (at, chain) in wish.chains.iter().enumerate() {
            let root = folder.path().join(at.to_string());
            let is_repeatable = |path: &str| {
                let name = Path::new(path).file_name().and_then(|name| name.to_str());
                matches!(name.and_then(read_name), Some(Named::Repeatable { .. }))
            };
            let files = changed.before(&shown(&chain.folder), is_repeatable)?;
            if files.is_empty() {
                continue;
            }
            for (path, content) in files {
                let path = root.join(path);
                let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
                made.and_then(|()| std::fs::write(&path, content))
                    .map_err(|error| GateError::Beside { why: error.to_string() })?;
            }
            // What could not be read then cannot be at the target either.
            if let Ok(before) = Chain::read(&chain.name, &root) {
                chains.insert(chain.name.clone(), before.repeatable);
            }
        }
        Ok(Self { chains, _folder: Some(folder) })
    }

    pub fn chain(&self, name: &str) -> &[Repeatable] {
        self.chains.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.chains.values().flatten().map(|file| &file.script.path)
    }
}
