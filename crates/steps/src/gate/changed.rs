//! What a branch changed, as git tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::GateError;

/// What is read of git's output.
const LONGEST: usize = 256 * 1024 * 1024;

/// What a branch changed since it left another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// The top of the working tree; paths below are relative to it.
    pub top: PathBuf,
    /// Files that are new.
    pub added: BTreeSet<String>,
    /// Files that were there, and have other content.
    pub edited: BTreeSet<String>,
    /// Files that are gone.
    pub deleted: BTreeSet<String>,
    /// Lines that are new, by file: the first, from 1, and one past the last.
    pub lines: BTreeMap<String, Vec<(usize, usize)>>,
}

impl Changed {
    /// Asks git what differs between the working tree and where it left `since`; files that git does not know yet count as new.
    ///
    /// # Errors
    /// Without git, outside of a repository, or for a reference that there is not.
    pub fn since(folder: &Path, since: &str) -> Result<Self, GateError> {
        if since.starts_with('-') || since.is_empty() {
            return Err(GateError::Git { said: format!("`{since}` is no reference") });
        }
        let top = PathBuf::from(git(folder, &["rev-parse", "--show-toplevel"])?.trim_end());
        let base = git(&top, &["merge-base", since, "HEAD"])?;
        let base = base.trim();
        let mut changed = Self { top: top.clone(), ..Self::default() };
        let status = git(&top, &["diff", "--name-status", "--no-renames", "-z", base])?;
        let mut parts = status.split('\0').filter(|part| !part.is_empty());
        while let (Some(letter), Some(path)) = (parts.next(), parts.next()) {
            let set = match letter {
                "A" => &mut changed.added,
                "D" => &mut changed.deleted,
                _ => &mut changed.edited,
            };
            set.insert(path.to_owned());
        }
        let unknown = git(&top, &["ls-files", "--others", "--exclude-standard", "-z"])?;
        for path in unknown.split('\0').filter(|path| !path.is_empty()) {
            changed.added.insert(path.to_owned());
            changed.lines.insert(path.to_owned(), vec![(1, usize::MAX)]);
        }
        let diff = git(
            &top,
            &["-c", "core.quotePath=false", "diff", "--unified=0", "--no-color", "--no-ext-diff", "--no-renames", base],
        )?;
        changed.read(&diff);
        Ok(changed)
    }

    /// Takes the lines of a unified diff up.
    fn read(&mut self, diff: &str) {
        let mut file: Option<String> = None;
        // A line of a file may look like a heading: only as many lines are content as the heading of the part says.
        let mut content = 0usize;
        for line in diff.lines() {
            if content > 0 {
                content -= usize::from(line.starts_with(['+', '-']));
                continue;
            }
            if let Some(path) = line.strip_prefix("+++ ") {
                file = path.trim_end_matches('\t').strip_prefix("b/").map(str::to_owned);
            } else if let Some(rest) = line.strip_prefix("@@ -") {
                let mut places = rest.split(" @@").next().unwrap_or_default().split(" +");
                let (_, gone) = numbers(places.next().unwrap_or_default());
                let (start, count) = numbers(places.next().unwrap_or_default());
                content = gone + count;
                if let Some(file) = file.as_ref().filter(|_| count > 0) {
                    self.lines.entry(file.clone()).or_default().push((start, start + count));
                }
            }
        }
    }
}

/// `12,3`; without a count it is 1.
fn numbers(text: &str) -> (usize, usize) {
    let (start, count) = text.split_once(',').unwrap_or((text, "1"));
    (start.parse().unwrap_or(0), count.parse().unwrap_or(0))
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String, GateError> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .output()
        .map_err(|error| GateError::Git { said: error.to_string() })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
        return Err(GateError::Git { said });
    }
    if output.stdout.len() > LONGEST {
        return Err(GateError::Git { said: format!("the difference is larger than {} MiB", LONGEST / 1024 / 1024) });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_new_file() {
        let mut changed = Changed::default();
        changed.read("diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1,2 @@ fn\n-a\n+++ b/evil\n+c\n@@ -9,2 +10,0 @@\n-d\n-e\ndiff --git a/y b/y\n--- /dev/null\n+++ b/y z\t\n@@ -0,0 +1 @@\n+q\n");
        assert_eq!(changed.lines["x"], [(1, 3)]);
        assert_eq!(changed.lines["y z"], [(1, 2)]);
        assert_eq!(changed.lines.len(), 2);
    }
}
