//! A chain as it stands on disk: its migrations in order, each with its down and verify files, and its repeatable files.
//!
//! Files are read once, line by line, for their digest; their content is not kept. The digest is over the content
//! without a byte order mark and with `\n` at the end of each line, so that what git or an editor does to line endings
//! is no edit. Everything else counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::ChainError;
use super::layout::{Named, Part, Version, read_name, read_stem};

/// A folder of migrations.
#[derive(Debug, Clone)]
pub struct Chain {
    /// What its history is kept under.
    pub name: String,
    pub folder: PathBuf,
    /// In the order in which they are applied.
    pub migrations: Vec<Migration>,
    /// In the order in which they are applied: what is depended on first.
    pub repeatable: Vec<Repeatable>,
    /// Files that could not be told to belong to anything; shown, never run.
    pub strangers: Vec<String>,
}

/// One version.
#[derive(Debug, Clone)]
pub struct Migration {
    pub version: Version,
    pub name: String,
    pub up: Script,
    pub down: Option<Script>,
    pub verify: Option<Script>,
}

impl Migration {
    /// `0008 tenant_guard`.
    pub fn title(&self) -> String {
        if self.name.is_empty() { self.version.to_string() } else { format!("{} {}", self.version, self.name) }
    }
}

/// A file that is applied again whenever it changed: views, functions, policies.
#[derive(Debug, Clone)]
pub struct Repeatable {
    pub name: String,
    pub script: Script,
    /// Names of the repeatable files that must be applied before, from its `-- depends: a, b` lines.
    pub depends: Vec<String>,
}

/// SQL in a file, or in a part of one.
#[derive(Debug, Clone)]
pub struct Script {
    pub path: PathBuf,
    /// The path relative to the chain's folder, for people.
    pub shown: String,
    /// Where in the file it stands; `None`: all of it. (dbmate keeps both directions in one file.)
    pub part: Option<Range<u64>>,
    /// Lines of the file before `part`.
    pub lines_before: usize,
    /// Of the normalised content, in hex.
    pub sha256: String,
    /// Size on disk.
    pub bytes: u64,
    /// Its author says that it cannot run in a transaction (dbmate's `transaction:false`).
    pub without_transaction: bool,
}

impl Script {
    /// Reads it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self) -> Result<Vec<u8>, ChainError> {
        let read = || {
            let mut file = File::open(&self.path)?;
            let mut content = Vec::new();
            match &self.part {
                None => {
                    content.reserve_exact(usize::try_from(self.bytes).unwrap_or(0) + 1);
                    file.read_to_end(&mut content)?;
                }
                Some(part) => {
                    file.seek(SeekFrom::Start(part.start))?;
                    file.take(part.end - part.start).read_to_end(&mut content)?;
                }
            }
            Ok(content)
        };
        read().map_err(|source| ChainError::Unreadable { path: self.path.clone(), source })
    }
}

impl Chain {
    /// Reads a folder.
    ///
    /// # Errors
    /// If it cannot be read, or says what cannot be: two files of one version, a down file without its migration,
    /// repeatable files that depend on each other in a circle.
    pub fn read(name: &str, folder: &Path) -> Result<Self, ChainError> {
        let mut found = Found::default();
        found.folder(folder, Place::Top)?;
        if let Some(supabase) = supabase(folder) {
            for (name, part) in [("down", Part::Down), ("verify", Part::Verify)] {
                let beside = supabase.join(name);
                if beside.is_dir() {
                    found.folder(&beside, Place::Only(part))?;
                }
            }
        }
        found.finish(name, folder)
    }

    /// The migration of this version.
    pub fn find(&self, version: &Version) -> Option<&Migration> {
        self.migrations.binary_search_by(|migration| migration.version.cmp(version)).ok().map(|at| &self.migrations[at])
    }
}

/// The folder `supabase` of a chain `supabase/migrations`: its `down` and `verify` stand beside the migrations, since Supabase's
/// own program applies every file among them that begins with a number, `1_name.down.sql` too.
fn supabase(folder: &Path) -> Option<&Path> {
    let parent = folder.parent()?;
    (folder.file_name()? == "migrations" && parent.file_name()? == "supabase").then_some(parent)
}

/// A path for people: relative to the chain's folder.
fn shown(root: &Path, path: &Path) -> String {
    let beside = |parent: &Path| Some(Path::new("..").join(path.strip_prefix(parent).ok()?));
    let relative = path.strip_prefix(root).map(Path::to_path_buf).ok().or_else(|| beside(root.parent()?));
    relative.as_deref().unwrap_or(path).display().to_string()
}

/// Where in the chain's folder a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    Only(Part),
    Repeatable,
}

/// What was found so far.
#[derive(Default)]
struct Found {
    root: Option<PathBuf>,
    up: BTreeMap<Version, (String, Script)>,
    down: BTreeMap<Version, Script>,
    verify: BTreeMap<Version, Script>,
    repeatable: BTreeMap<String, Repeatable>,
    strangers: Vec<String>,
}

impl Found {
    fn folder(&mut self, folder: &Path, place: Place) -> Result<(), ChainError> {
        let unreadable = |source| ChainError::Unreadable { path: folder.to_owned(), source };
        let root = self.root.get_or_insert_with(|| folder.to_owned()).clone();
        let mut entries = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>())
            .map_err(unreadable)?;
        entries.sort();
        for path in entries {
            let Some(file_name) = path.file_name().and_then(|name| name.to_str()).map(ToOwned::to_owned) else {
                self.strangers.push(path.display().to_string());
                continue;
            };
            if file_name.starts_with('.') {
                continue;
            }
            let shown = shown(&root, &path);
            if path.is_dir() {
                self.subfolder(&path, &file_name, place)?;
            } else if file_name.ends_with(".sql") {
                self.file(&path, &file_name, shown, place)?;
            }
        }
        Ok(())
    }

    fn subfolder(&mut self, path: &Path, name: &str, place: Place) -> Result<(), ChainError> {
        if place != Place::Top {
            return Ok(());
        }
        match name {
            "up" => self.folder(path, Place::Only(Part::Up)),
            "down" => self.folder(path, Place::Only(Part::Down)),
            "verify" => self.folder(path, Place::Only(Part::Verify)),
            "repeatable" => self.folder(path, Place::Repeatable),
            _ => self.folder_of_one(path, name),
        }
    }

    /// `20240102030405_name/up.sql`, or `migration.sql`, with `down.sql` and `verify.sql` beside it.
    fn folder_of_one(&mut self, path: &Path, name: &str) -> Result<(), ChainError> {
        let Some((version, title)) = read_stem(name) else { return Ok(()) };
        for (file, part) in
            [("up.sql", Part::Up), ("migration.sql", Part::Up), ("down.sql", Part::Down), ("verify.sql", Part::Verify)]
        {
            let file_path = path.join(file);
            if file_path.is_file() {
                let scan = Scan::of(&file_path, &format!("{name}/{file}"))?;
                self.add(part, version.clone(), title.clone(), scan.whole)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, file_name: &str, shown: String, place: Place) -> Result<(), ChainError> {
        if place == Place::Repeatable {
            let name = file_name.trim_end_matches(".sql").trim_start_matches("R__").to_owned();
            return self.add_repeatable(name, path, shown);
        }
        match read_name(file_name) {
            Some(Named::Repeatable { name }) => self.add_repeatable(name, path, shown),
            Some(Named::Versioned { part, version, name }) => {
                let part = if let Place::Only(part) = place { part } else { part };
                let scan = Scan::of(path, &shown)?;
                match scan.up {
                    Some(up) if part == Part::Up => {
                        self.add(Part::Up, version.clone(), name.clone(), up)?;
                        scan.down.map_or(Ok(()), |down| self.add(Part::Down, version, name, down))
                    }
                    _ => self.add(part, version, name, scan.whole),
                }
            }
            None => {
                self.strangers.push(shown);
                Ok(())
            }
        }
    }

    fn add_repeatable(&mut self, name: String, path: &Path, shown: String) -> Result<(), ChainError> {
        let scan = Scan::of(path, &shown)?;
        let repeatable = Repeatable { name: name.clone(), script: scan.whole, depends: scan.depends };
        match self.repeatable.insert(name, repeatable) {
            None => Ok(()),
            Some(before) => Err(ChainError::Duplicate { version: before.name, files: [before.script.shown, shown] }),
        }
    }

    fn add(&mut self, part: Part, version: Version, name: String, script: Script) -> Result<(), ChainError> {
        let shown = script.shown.clone();
        let text = version.to_string();
        let before = match part {
            Part::Up => self.up.insert(version, (name, script)).map(|(_, before)| before),
            Part::Down => self.down.insert(version, script),
            Part::Verify => self.verify.insert(version, script),
        };
        match before {
            None => Ok(()),
            Some(before) => Err(ChainError::Duplicate { version: text, files: [before.shown, shown] }),
        }
    }

    fn finish(mut self, name: &str, folder: &Path) -> Result<Chain, ChainError> {
        let migrations: Vec<_> = self
            .up
            .into_iter()
            .map(|(version, (name, up))| Migration {
                down: self.down.remove(&version),
                verify: self.verify.remove(&version),
                version,
                name,
                up,
            })
            .collect();
        let orphans = self.down.into_values().chain(self.verify.into_values());
        if let Some(orphan) = orphans.into_iter().next() {
            return Err(ChainError::Orphan { file: orphan.shown });
        }
        Ok(Chain {
            name: name.to_owned(),
            folder: folder.to_owned(),
            migrations,
            repeatable: in_order(self.repeatable)?,
            strangers: self.strangers,
        })
    }
}

/// What is depended on first; else by name.
fn in_order(mut left: BTreeMap<String, Repeatable>) -> Result<Vec<Repeatable>, ChainError> {
    for one in left.values() {
        if let Some(unknown) = one.depends.iter().find(|name| !left.contains_key(*name)) {
            return Err(ChainError::UnknownDependency { file: one.script.shown.clone(), name: unknown.clone() });
        }
    }
    let mut ordered: Vec<Repeatable> = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let ready = left.values().find(|one| one.depends.iter().all(|name| !left.contains_key(name)));
        let Some(name) = ready.map(|one| one.name.clone()) else {
            return Err(ChainError::Circle { names: left.into_keys().collect() });
        };
        ordered.extend(left.remove(&name));
    }
    Ok(ordered)
}

/// One pass over a file.
struct Scan {
    whole: Script,
    /// The two parts of a dbmate file.
    up: Option<Script>,
    down: Option<Script>,
    depends: Vec<String>,
}

/// A part of a file that is being read.
struct Reading {
    start: u64,
    lines_before: usize,
    hasher: Sha256,
    without_transaction: bool,
}

impl Reading {
    fn new(start: u64, lines_before: usize, without_transaction: bool) -> Self {
        Self { start, lines_before, hasher: Sha256::new(), without_transaction }
    }

    fn script(self, path: &Path, shown: &str, part: Option<u64>) -> Script {
        Script {
            path: path.to_owned(),
            shown: shown.to_owned(),
            bytes: part.map_or(0, |end| end - self.start),
            part: part.map(|end| self.start..end),
            lines_before: self.lines_before,
            sha256: format!("{:x}", self.hasher.finalize()),
            without_transaction: self.without_transaction,
        }
    }
}

impl Scan {
    fn of(path: &Path, shown: &str) -> Result<Self, ChainError> {
        Self::read(path, shown).map_err(|source| ChainError::Unreadable { path: path.to_owned(), source })
    }

    fn read(path: &Path, shown: &str) -> Result<Self, std::io::Error> {
        let mut reader = BufReader::with_capacity(64 * 1024, File::open(path)?);
        let mut whole = Reading::new(0, 0, false);
        let mut sections: [Option<Script>; 2] = [None, None];
        let mut open: Option<(usize, Reading)> = None;
        let mut depends = Vec::new();
        let mut line = Vec::new();
        let (mut at, mut line_count) = (0u64, 0usize);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)? as u64;
            if read == 0 {
                break;
            }
            let normal = normalised(&line, at == 0);
            normal.iter().for_each(|piece| whole.hasher.update(piece));
            let before = at;
            at += read;
            line_count += 1;
            if let Some(marker) = marker(&line) {
                if let Some((which, reading)) = open.take() {
                    sections[which] = Some(reading.script(path, shown, Some(before)));
                }
                open = Some((marker.part, Reading::new(at, line_count, marker.without_transaction)));
            } else if let Some((_, reading)) = &mut open {
                normal.iter().for_each(|piece| reading.hasher.update(piece));
            }
            if line.starts_with(b"-- depends:") {
                let names = String::from_utf8_lossy(&line[b"-- depends:".len()..]);
                depends.extend(names.split([',', ' ']).map(str::trim).filter(|n| !n.is_empty()).map(ToOwned::to_owned));
            }
        }
        if let Some((which, reading)) = open {
            sections[which] = Some(reading.script(path, shown, Some(at)));
        }
        let [up, down] = sections;
        Ok(Self { whole: Script { bytes: at, ..whole.script(path, shown, None) }, up, down, depends })
    }
}

struct Marker {
    part: usize,
    without_transaction: bool,
}

/// `-- migrate:up transaction:false`.
fn marker(line: &[u8]) -> Option<Marker> {
    let rest = line.strip_prefix(b"-- migrate:")?;
    let text = std::str::from_utf8(rest).ok()?.trim_end();
    let (word, options) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let part = match word {
        "up" => 0,
        "down" => 1,
        _ => return None,
    };
    Some(Marker { part, without_transaction: options.split_whitespace().any(|option| option == "transaction:false") })
}

/// A line without byte order mark and with `\n` instead of `\r\n`, in two pieces.
fn normalised(line: &[u8], first: bool) -> [&[u8]; 2] {
    let line = if first { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) } else { line };
    match line.strip_suffix(b"\r\n") {
        Some(text) => [text, b"\n"],
        None => [line, b""],
    }
}

/// The normalised content of a script, for the history.
pub fn normalise(content: &str) -> String {
    content.trim_start_matches('\u{feff}').replace("\r\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(files: &[(&str, &str)]) -> Result<Chain, ChainError> {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let chain = Chain::read("c", folder.path());
        if let Ok(chain) = &chain {
            for migration in &chain.migrations {
                migration.up.read().unwrap();
            }
        }
        chain
    }

    /// `version name up down verify` of each migration, with `-` for a file that is not there.
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let chain = chain(files).unwrap();
        let shown = |script: &Option<Script>| script.as_ref().map_or("-".to_owned(), |script| script.shown.clone());
        let found: Vec<_> = chain
            .migrations
            .iter()
            .map(|m| format!("{} {} {} {} {}", m.version, m.name, m.up.shown, shown(&m.down), shown(&m.verify)))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn files_are_put_together_in_order() {
        check(
            &[
                ("0010_b.sql", ""),
                ("0009_a.sql", ""),
                ("0009_a.down.sql", ""),
                ("verify/0009_a.sql", ""),
                ("down/0010_b.sql", ""),
                ("README.md", ""),
            ],
            &["0009 a 0009_a.sql 0009_a.down.sql verify/0009_a.sql", "0010 b 0010_b.sql down/0010_b.sql -"],
        );
        check(
            &[("20240102030405_x/up.sql", ""), ("20240102030405_x/down.sql", ""), ("migration_lock.toml", "")],
            &["20240102030405 x 20240102030405_x/up.sql 20240102030405_x/down.sql -"],
        );
        check(
            &[("V1__a.sql", ""), ("U1__a.sql", ""), ("V1.1__b.sql", "")],
            &["1 a V1__a.sql U1__a.sql -", "1.1 b V1.1__b.sql - -"],
        );
    }

    #[test]
    fn supabase_has_its_other_files_beside_the_migrations() {
        let files = ["migrations/1_a.sql", "down/1_a.sql", "verify/1_a.sql"];
        let folder = tempfile::tempdir().unwrap();
        for parent in ["supabase", "db"] {
            for file in files {
                let path = folder.path().join(parent).join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "").unwrap();
            }
        }
        let read = |parent: &str| Chain::read("c", &folder.path().join(parent).join("migrations")).unwrap();
        let chain = read("supabase");
        let shown = |script: &Option<Script>| script.as_ref().map(|script| script.shown.clone());
        assert_eq!(shown(&chain.migrations[0].down).as_deref(), Some("../down/1_a.sql"));
        assert_eq!(shown(&chain.migrations[0].verify).as_deref(), Some("../verify/1_a.sql"));
        assert_eq!(shown(&read("db").migrations[0].down), None, "elsewhere a folder of that name is not the chain's");
    }

    #[test]
    fn a_dbmate_file_has_two_parts() {
        let text = "-- made by hand\n-- migrate:up transaction:false\nCREATE A;\n\n-- migrate:down\r\nDROP A;\n";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("1_a.sql"), text).unwrap();
        let chain = Chain::read("c", folder.path()).unwrap();
        let migration = &chain.migrations[0];
        assert_eq!(migration.up.read().unwrap(), b"CREATE A;\n\n");
        assert_eq!(migration.up.lines_before, 2);
        assert!(migration.up.without_transaction);
        let down = migration.down.as_ref().unwrap();
        assert_eq!(down.read().unwrap(), b"DROP A;\n");
        assert!(!down.without_transaction);
        // An edit of the down part is none of the up part.
        std::fs::write(folder.path().join("1_a.sql"), text.replace("DROP A", "DROP B")).unwrap();
        let after = Chain::read("c", folder.path()).unwrap();
        assert_eq!(after.migrations[0].up.sha256, migration.up.sha256);
        assert_ne!(after.migrations[0].down.as_ref().unwrap().sha256, down.sha256);
    }

    #[test]
    fn line_endings_and_byte_order_marks_are_no_edits() {
        let digest = |content: &str| chain(&[("1_a.sql", content)]).unwrap().migrations[0].up.sha256.clone();
        assert_eq!(digest("SELECT 1;\nSELECT 2;\n"), digest("\u{feff}SELECT 1;\r\nSELECT 2;\r\n"));
        assert_ne!(digest("SELECT 1;\n"), digest("SELECT 1; \n"));
        assert_eq!(digest("a\n"), format!("{:x}", Sha256::digest(normalise("\u{feff}a\r\n"))));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let error = |files: &[(&str, &str)]| chain(files).unwrap_err().to_string();
        assert_eq!(error(&[("0008_a.sql", ""), ("8_b.sql", "")]), "version 8 is there twice: 0008_a.sql and 8_b.sql");
        assert_eq!(error(&[("0008_a.down.sql", "")]), "0008_a.down.sql belongs to no migration of this chain");
        assert!(error(&[("R__a.sql", "-- depends: b\n"), ("R__b.sql", "-- depends: a\n")]).contains("a, b"));
        assert!(error(&[("R__a.sql", "-- depends: nothing\n")]).contains("`nothing`"));
    }

    #[test]
    fn repeatable_files_come_after_what_they_depend_on() {
        let chain = chain(&[
            ("R__a.sql", "-- depends: z, m\nSELECT 1"),
            ("repeatable/m.sql", ""),
            ("repeatable/z.sql", "-- depends: m\n"),
        ])
        .unwrap();
        let names: Vec<_> = chain.repeatable.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["m", "z", "a"]);
    }
}
