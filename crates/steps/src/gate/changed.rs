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
    /// The commit where the branch left.
    pub base: String,
    /// Files that are new.
    pub added: BTreeSet<String>,
    /// Files that were there, and have other content.
    pub edited: BTreeSet<String>,
    /// Files that are gone.
    pub deleted: BTreeSet<String>,
    /// Lines that are new, by file: the first, from 1, and one past the last. All of them where git does not compare lines, which is so
    /// of binary files, and of those that an attribute calls binary.
    pub lines: BTreeMap<String, Vec<(usize, usize)>>,
}

/// How git is asked for a difference, whatever the configuration of who asks: `diff.noprefix`, `diff.mnemonicPrefix`, `diff.external`,
/// `diff.interHunkContext`, `diff.submodule`, `color.ui` and drivers of attributes change what it prints
/// (<https://git-scm.com/docs/git-diff>, <https://git-scm.com/docs/git-config>).
const DIFF: &[&str] = &[
    "-c",
    "core.quotePath=false",
    "diff",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--no-relative",
    "--submodule=short",
    "--src-prefix=a/",
    "--dst-prefix=b/",
];

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
        let mut changed = Self { top: top.clone(), base: base.to_owned(), ..Self::default() };
        let status = git(&top, &[DIFF, &["--name-status", "-z", base]].concat())?;
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
        let diff = git(&top, &[DIFF, &["--unified=0", "--inter-hunk-context=0", base]].concat())?;
        changed.read(&diff);
        let counts = git(&top, &[DIFF, &["--numstat", "-z", base]].concat())?;
        // `-` where lines were not counted, since they were not compared.
        for path in counts.split('\0').filter_map(|count| count.strip_prefix("-\t-\t")) {
            if !changed.deleted.contains(path) {
                changed.lines.insert(path.to_owned(), vec![(1, usize::MAX)]);
            }
        }
        Ok(changed)
    }

    /// The files below a folder (from the top) as they were where the branch left: their paths below it, and their content.
    ///
    /// # Errors
    /// If git does not give them.
    pub fn before(&self, folder: &str, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<(PathBuf, Vec<u8>)>, GateError> {
        let tree = git(&self.top, &["ls-tree", "-r", "-z", "--name-only", "--full-tree", &self.base])?;
        let mut files = Vec::new();
        for path in tree.split('\0').filter(|path| is_wanted(path)) {
            if let Ok(below) = Path::new(path).strip_prefix(folder) {
                let content = bytes(&self.top, &["cat-file", "blob", &format!("{}:{path}", self.base)])?;
                files.push((below.to_owned(), content));
            }
        }
        Ok(files)
    }

    /// Takes the lines of a unified diff up.
    fn read(&mut self, diff: &str) {
        let mut file: Option<String> = None;
        // A line of a file may look like a heading: only as many lines are content as the heading of the part says.
        let (mut old, mut new, mut line_number) = (0usize, 0usize, 0usize);
        for line in diff.lines() {
            if old > 0 || new > 0 {
                match line.as_bytes().first() {
                    Some(b'-') => old = old.saturating_sub(1),
                    Some(b'+') => {
                        new = new.saturating_sub(1);
                        if let Some(file) = &file {
                            self.line(file, line_number);
                        }
                        line_number += 1;
                    }
                    // `\ No newline at end of file`
                    Some(b'\\') => {}
                    _ => {
                        (old, new) = (old.saturating_sub(1), new.saturating_sub(1));
                        line_number += 1;
                    }
                }
            } else if let Some(path) = line.strip_prefix("+++ ") {
                file = unquoted(path.trim_end_matches('\t')).strip_prefix("b/").map(str::to_owned);
            } else if let Some(rest) = line.strip_prefix("@@ -") {
                let mut places = rest.split(" @@").next().unwrap_or_default().split(" +");
                (_, old) = numbers(places.next().unwrap_or_default());
                (line_number, new) = numbers(places.next().unwrap_or_default());
            }
        }
    }

    /// Takes up a new line; lines come in order.
    fn line(&mut self, file: &str, number: usize) {
        let lines = self.lines.entry(file.to_owned()).or_default();
        match lines.last_mut() {
            Some((_, end)) if *end == number => *end += 1,
            _ => lines.push((number, number + 1)),
        }
    }
}

/// A path as git shows it: within quotes and with C's escapes, if it holds a quote, a backslash or a control character.
fn unquoted(shown: &str) -> String {
    let Some(quoted) = shown.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return shown.to_owned() };
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut left = quoted.bytes().peekable();
    while let Some(byte) = left.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match left.next() {
            Some(digit @ b'0'..=b'7') => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    let Some(next) = left.next_if(|byte| matches!(byte, b'0'..=b'7')) else { break };
                    value = value * 8 + u32::from(next - b'0');
                }
                bytes.extend(u8::try_from(value).ok());
            }
            Some(letter) => bytes.push(match letter {
                b'a' => 7,
                b'b' => 8,
                b't' => b'\t',
                b'n' => b'\n',
                b'v' => 11,
                b'f' => 12,
                b'r' => b'\r',
                other => other,
            }),
            None => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `12,3`; without a count it is 1.
fn numbers(text: &str) -> (usize, usize) {
    let (start, count) = text.split_once(',').unwrap_or((text, "1"));
    (start.parse().unwrap_or(0), count.parse().unwrap_or(0))
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String, GateError> {
    Ok(String::from_utf8_lossy(&bytes(folder, arguments)?).into_owned())
}

fn bytes(folder: &Path, arguments: &[&str]) -> Result<Vec<u8>, GateError> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        // Its count of lines around a change would win over the option.
        .env_remove("GIT_DIFF_OPTS")
        .output()
        .map_err(|error| GateError::Git { said: error.to_string() })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
        return Err(GateError::Git { said });
    }
    if output.stdout.len() > LONGEST {
        return Err(GateError::Git { said: format!("what it prints is larger than {} MiB", LONGEST / 1024 / 1024) });
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository whose branch `main` has `kept.txt`; made with no configuration but the test's.
    fn repository(folder: &Path) {
        run(folder, &["init", "--quiet", "--initial-branch=main"]);
        std::fs::write(folder.join("kept.txt"), "a\nb\nc\nd\n").unwrap();
        run(folder, &["add", "."]);
        run(folder, &["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "commit", "-qm", "x"]);
    }

    fn run(folder: &Path, arguments: &[&str]) {
        git(folder, arguments).unwrap();
    }

    #[test]
    fn lines_are_seen_whatever_is_configured() {
        for (name, value) in [
            ("diff.noprefix", "true"),
            ("diff.mnemonicPrefix", "true"),
            ("diff.dstPrefix", "there/"),
            ("diff.interHunkContext", "10"),
            ("diff.external", "true"),
            ("diff.relative", "true"),
            ("color.ui", "always"),
            ("core.quotePath", "true"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            repository(folder.path());
            run(folder.path(), &["config", name, value]);
            std::fs::write(folder.path().join("kept.txt"), "A\nb\nC\nd\n").unwrap();
            std::fs::write(folder.path().join("ä.txt"), "new\n").unwrap();
            run(folder.path(), &["add", "ä.txt"]);
            let changed = Changed::since(folder.path(), "main").unwrap();
            assert_eq!(changed.lines.get("kept.txt"), Some(&vec![(1, 2), (3, 4)]), "{name}");
            assert_eq!(changed.lines.get("ä.txt"), Some(&vec![(1, 2)]), "{name}");
        }
    }

    #[test]
    fn every_line_is_new_where_git_compares_none() {
        let folder = tempfile::tempdir().unwrap();
        repository(folder.path());
        std::fs::write(folder.path().join(".gitattributes"), "*.txt binary\n").unwrap();
        std::fs::write(folder.path().join("kept.txt"), "other\n").unwrap();
        let changed = Changed::since(folder.path(), "main").unwrap();
        assert_eq!(changed.lines["kept.txt"], [(1, usize::MAX)]);
    }

    #[test]
    fn files_are_had_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        repository(folder.path());
        std::fs::create_dir(folder.path().join("a b")).unwrap();
        std::fs::write(folder.path().join("a b/ä.txt"), b"\xff\r\n").unwrap();
        run(folder.path(), &["add", "."]);
        run(
            folder.path(),
            &["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "commit", "-qm", "y"],
        );
        std::fs::remove_dir_all(folder.path().join("a b")).unwrap();
        std::fs::write(folder.path().join("kept.txt"), "other\n").unwrap();
        let changed = Changed::since(folder.path(), "main").unwrap();
        assert_eq!(changed.before("a b", |_| true).unwrap(), [(PathBuf::from("ä.txt"), b"\xff\r\n".to_vec())]);
        let all = changed.before("", |path| path.starts_with("kept")).unwrap();
        assert_eq!(all, [(PathBuf::from("kept.txt"), b"a\nb\nc\nd\n".to_vec())]);
        assert_eq!(changed.before("a", |_| true).unwrap(), []);
    }

    #[test]
    fn quoted_paths_are_read() {
        assert_eq!(unquoted("b/plain \\ x"), "b/plain \\ x");
        assert_eq!(unquoted(r#""b/a\"b\\c\td\303\244""#), "b/a\"b\\c\tdä");
        assert_eq!(unquoted(r#""b/\777\""#), "b/");
    }

    #[test]
    fn lines_are_those_of_the_new_file() {
        let mut changed = Changed::default();
        changed.read("diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1,2 @@ fn\n-a\n+++ b/evil\n+c\n@@ -9,2 +10,0 @@\n-d\n-e\ndiff --git a/y b/y\n--- /dev/null\n+++ b/y z\t\n@@ -0,0 +1 @@\n+q\n");
        assert_eq!(changed.lines["x"], [(1, 3)]);
        assert_eq!(changed.lines["y z"], [(1, 2)]);
        changed.read("--- a/z\n+++ b/z\n@@ -1,4 +1,4 @@\n-a\n+A\n b\n-c\n\\ No newline at end of file\n+C\n d\n");
        assert_eq!(changed.lines["z"], [(1, 2), (3, 4)]);
        assert_eq!(changed.lines.len(), 3);
    }
}
