//! Which files belong to which tree.
//!
//! Patterns are those of `.gitignore`, read from the project's folder: `apps/vh/**`, and `!apps/vh/vendor/**` takes some
//! out again. What a `.gitignore` names is not read. The machine's own lists (`core.excludesFile`, `.git/info/exclude`)
//! do not count: the answer is the same everywhere.

use std::io::Read;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::error::ReviewError;
use super::language;
use crate::project::{Code, CodeTree};

/// The longest file that is read. Sources that people write are a hundred times shorter; what is longer is generated, or
/// data.
pub const LONGEST: u64 = 4 << 20;

/// A file of at least one tree.
#[derive(Debug)]
pub(super) struct File {
    /// Relative to the project, with `/`.
    pub(super) path: String,
    /// Which trees it belongs to.
    pub(super) trees: Vec<usize>,
    pub(super) full: PathBuf,
    /// Why it is known beforehand that it cannot be read.
    pub(super) unreadable: Option<String>,
}

/// Every file of the trees, in order of its path.
///
/// # Errors
/// A pattern that is none, with its place.
pub(super) fn files(root: &Path, code: &Code) -> Result<Vec<File>, ReviewError> {
    let patterns = code.trees.iter().map(|tree| pattern(root, code, tree)).collect::<Result<Vec<_>, _>>()?;
    let members = |path: &Path, is_folder: bool| -> Vec<usize> {
        let is_member = |tree: &usize| patterns[*tree].matched_path_or_any_parents(path, is_folder).is_ignore();
        (0..patterns.len()).filter(is_member).collect()
    };
    let mut found = Vec::new();
    let walk = WalkBuilder::new(root)
        .hidden(false)
        .ignore(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .sort_by_file_name(std::ffi::OsStr::cmp)
        .filter_entry(|entry| entry.file_name() != ".git" && entry.file_name() != ".pgrunbook")
        .build();
    for entry in walk {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let Some(full) = place_of(&error) else { continue };
                let path = shown(root, &full);
                let trees = members(Path::new(&path), true);
                let unreadable = Some(cause(&error));
                found.push(File { path, trees, full, unreadable });
                continue;
            }
        };
        let Some(kind) = entry.file_type().filter(|kind| !kind.is_dir()) else { continue };
        let full = entry.path().to_owned();
        let path = shown(root, &full);
        let trees = members(Path::new(&path), false);
        if trees.is_empty() {
            continue;
        }
        // Of links those to files are followed; a pipe or socket would never end.
        let behind = if kind.is_symlink() { std::fs::metadata(&full) } else { entry.metadata().map_err(into_io) };
        let unreadable = match behind {
            Err(error) => Some(error.to_string()),
            Ok(data) if data.is_dir() => Some("a link to a folder is not followed".to_owned()),
            Ok(data) if !data.is_file() => continue,
            Ok(_) => None,
        };
        found.push(File { path, trees, full, unreadable });
    }
    found.retain(|file| !file.trees.is_empty());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn pattern(root: &Path, code: &Code, tree: &CodeTree) -> Result<Gitignore, ReviewError> {
    let mut builder = GitignoreBuilder::new(root);
    for file in &tree.files {
        let outside = Path::new(file.trim_start_matches('!')).components().any(|part| part.as_os_str() == "..");
        if outside {
            let message = format!("`{file}` leads out of the project; only files below it are read");
            return Err(code.malformed(tree.files_place.clone(), message).into());
        }
        builder
            .add_line(None, file.strip_prefix("./").unwrap_or(file))
            .map_err(|error| code.malformed(tree.files_place.clone(), format!("`{file}` is no pattern: {error}")))?;
    }
    builder.build().map_err(|error| code.malformed(tree.files_place.clone(), format!("no pattern: {error}")).into())
}

fn shown(root: &Path, full: &Path) -> String {
    let relative = full.strip_prefix(root).unwrap_or(full);
    relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn place_of(error: &ignore::Error) -> Option<PathBuf> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path.clone()),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => place_of(err),
        _ => None,
    }
}

/// The error without the path, which stands before it.
fn cause(error: &ignore::Error) -> String {
    match error {
        ignore::Error::WithPath { err, .. }
        | ignore::Error::WithDepth { err, .. }
        | ignore::Error::WithLineNumber { err, .. } => cause(err),
        other => other.to_string(),
    }
}

fn into_io(error: ignore::Error) -> std::io::Error {
    error.into_io_error().unwrap_or_else(|| std::io::Error::other("no such file"))
}

/// What a file holds.
pub(super) enum Content {
    Text(String),
    /// Nothing that an application runs.
    Unread,
    /// Why nobody knows.
    Unknown(String),
}

/// Reads a file, as far as it can be read.
pub(super) fn content(file: &File) -> Content {
    if let Some(why) = &file.unreadable {
        return Content::Unknown(format!("it cannot be read: {why}"));
    }
    if language::is_unread(&file.path) {
        return Content::Unread;
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&file.full).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Content::Unknown(format!("it cannot be read: {error}")),
        Ok(length) if length as u64 > LONGEST => Content::Unknown(format!("it is longer than {} MiB", LONGEST >> 20)),
        Ok(_) => match pgrunbook_document::sql::decode(&bytes) {
            Ok(text) => Content::Text(text.to_owned()),
            Err(error) => Content::Unknown(format!("it is no text ({error})")),
        },
    }
}
