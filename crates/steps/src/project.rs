//! `pgrunbook.toml`: what a project's names mean, in which environment, and who its people are.

mod demands;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use pgrunbook_document::VarValue;
use pgrunbook_engine::Environment;
use serde::Deserialize;
use toml::Spanned;

use self::demands::EnvironmentTable;
use crate::gate::SquawkRules;
use crate::incidents::IncidentSource;
use crate::notify::{ChannelTable, Notices, TemplateTable};
use crate::redis::is_redis;
use crate::secret::Reference;

/// The project's file.
pub const FILE: &str = "pgrunbook.toml";

/// The environment that is meant where none is named and the project declares none.
pub const DEFAULT_ENVIRONMENT: &str = "default";

/// A project, with what its environment makes of it.
#[derive(Debug, Clone)]
pub struct Project {
    /// The folder that holds `pgrunbook.toml`.
    pub root: PathBuf,
    pub name: String,
    pub targets: BTreeMap<String, TargetConfig>,
    pub environment: Environment,
    /// Names of all environments that the file declares, in order; of none where it declares none.
    pub environments: Vec<String>,
    /// Where the environment's open incidents are asked for, if it demands that there are none.
    pub incidents: Option<IncidentSource>,
    pub journal: JournalConfig,
    /// Roles with the principals that hold them.
    pub people: BTreeMap<String, Vec<String>>,
    pub allowed_signers: Option<PathBuf>,
    /// Statements that build the starting point of a rehearsal, in order.
    pub rehearsal_setup: Vec<PathBuf>,
    /// Key that signs evidence bundles.
    pub evidence_key: Option<Reference>,
    /// Where evidence bundles are written.
    pub evidence_dir: PathBuf,
    /// Where people are told, what, and of which occasions.
    pub notices: Notices,
    /// Which of squawk's rules `review` tells of.
    pub squawk: SquawkRules,
}

/// What a target's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetConfig {
    /// `None`: the environment's `DATABASE_URL`, `POSTGRES_*`, `PG*`.
    Postgres {
        url: Option<Reference>,
    },
    Http {
        base: Reference,
    },
    Sqlite {
        path: PathBuf,
    },
    Redis {
        url: Reference,
        /// Else the one in the URL.
        password: Option<Reference>,
    },
}

/// Where runs are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalConfig {
    Sqlite(PathBuf),
    Postgres(Reference),
}

/// Why a project cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error("{path} cannot be read: {why}")]
    Unreadable { path: String, why: String },
    #[error("{path}: {message}")]
    Malformed { path: String, text: String, span: Option<Range<usize>>, message: String },
    #[error("there is no environment `{name}` in {path}: {}", listed(.known))]
    NoEnvironment { name: String, path: String, known: Vec<String> },
    #[error("{path} has several environments, and none was chosen: {}", listed(.known))]
    ChooseEnvironment { path: String, known: Vec<String> },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "it declares none".to_owned() } else { format!("it has {}", names.join(", ")) }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    project: ProjectTable,
    #[serde(default)]
    targets: BTreeMap<String, TargetTable>,
    #[serde(default)]
    environments: BTreeMap<String, EnvironmentTable>,
    #[serde(default)]
    people: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    journal: JournalTable,
    #[serde(default)]
    rehearsal: RehearsalTable,
    #[serde(default)]
    evidence: EvidenceTable,
    /// Read by the topology, with its own places for mistakes.
    #[serde(default, rename = "topology")]
    _topology: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    code: BTreeMap<String, CodeTable>,
    #[serde(default)]
    channels: BTreeMap<String, ChannelTable>,
    #[serde(default)]
    templates: BTreeMap<String, TemplateTable>,
    #[serde(default)]
    review: ReviewTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectTable {
    name: Option<String>,
    /// Path of the `allowed_signers` file.
    allowed_signers: Option<PathBuf>,
    /// The environment that is meant where none is named.
    environment: Option<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetTable {
    /// PostgreSQL: a URL or connection string, or a reference to one. A Redis where its value begins with `redis`.
    url: Option<String>,
    /// PostgreSQL: a service of the service file.
    service: Option<String>,
    /// HTTP: the base URL.
    base: Option<String>,
    /// SQLite: the file, relative to the project.
    sqlite: Option<PathBuf>,
    /// Redis: a URL, or a reference to one.
    redis: Option<String>,
    /// Redis: a reference to the password, where the URL has none.
    password: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalTable {
    path: Option<PathBuf>,
    url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RehearsalTable {
    #[serde(default)]
    setup: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceTable {
    key: Option<String>,
    dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReviewTable {
    /// Names of rules that are asked for; behind a `-`, that are left out.
    #[serde(default)]
    squawk: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeTable {
    files: Spanned<Vec<String>>,
    may_write: Vec<Spanned<String>>,
    may_read: Option<Vec<Spanned<String>>>,
}

/// The trees of application code that a project declares, for `review`. No environment belongs to it.
#[derive(Debug, Clone)]
pub struct Code {
    /// The file it was read from, and its text: findings point into it.
    pub path: String,
    pub text: String,
    pub trees: Vec<CodeTree>,
}

/// One application's code, and what it may touch.
#[derive(Debug, Clone)]
pub struct CodeTree {
    pub name: String,
    /// Patterns as in `.gitignore`, relative to the project.
    pub files: Vec<String>,
    /// Where they stand in the file.
    pub files_place: Range<usize>,
    pub may_write: Vec<Namespace>,
    /// `None`: reads are not judged.
    pub may_read: Option<Vec<Namespace>>,
}

/// Tables that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// All of a schema.
    Schema(String),
    /// Those of the schema `public` whose name begins with this: `vh_*`.
    Prefix(String),
}

impl Namespace {
    /// Reads `vh` or `vh_*`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let plain =
            |name: &str| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || ".*\"'`".contains(c));
        match text.strip_suffix('*') {
            Some(prefix) => plain(prefix).then(|| Self::Prefix(prefix.to_owned())),
            None => plain(text).then(|| Self::Schema(text.to_owned())),
        }
    }
}

impl Code {
    /// Reads the trees of a folder's project; none without a file.
    ///
    /// # Errors
    /// [`ProjectError`], with the place in the file.
    pub fn load(root: &Path) -> Result<Self, ProjectError> {
        Self::read(&text_of(root)?)
    }

    /// The same from a text.
    pub fn read(text: &str) -> Result<Self, ProjectError> {
        let mut code = Self { path: FILE.to_owned(), text: text.to_owned(), trees: Vec::new() };
        let file: File =
            toml::from_str(text).map_err(|error| malformed(text, error.span(), error.message().to_owned()))?;
        for (name, table) in file.code {
            let namespaces = |entries: Vec<Spanned<String>>| {
                entries
                    .into_iter()
                    .map(|entry| {
                        Namespace::parse(entry.get_ref()).ok_or_else(|| {
                            let message = format!(
                                "`{}` is neither a schema, such as `vh`, nor a prefix of tables, such as `vh_*`",
                                entry.get_ref()
                            );
                            code.malformed(entry.span(), message)
                        })
                    })
                    .collect::<Result<Vec<_>, _>>()
            };
            let may_write = namespaces(table.may_write)?;
            let may_read = table.may_read.map(namespaces).transpose()?;
            let files_place = table.files.span();
            code.trees.push(CodeTree { name, files: table.files.into_inner(), files_place, may_write, may_read });
        }
        Ok(code)
    }

    /// An error about a place in the file.
    pub fn malformed(&self, place: Range<usize>, message: String) -> ProjectError {
        malformed(&self.text, Some(place), message)
    }
}

fn malformed(text: &str, span: Option<Range<usize>>, message: String) -> ProjectError {
    ProjectError::Malformed { path: FILE.to_owned(), text: text.to_owned(), span, message }
}

/// The project's file; without one, that of a project whose one target `main` is what the environment names.
fn text_of(root: &Path) -> Result<String, ProjectError> {
    let path = root.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok("[targets.main]\n".to_owned()),
        Err(error) => Err(ProjectError::Unreadable { path: path.display().to_string(), why: error.to_string() }),
    }
}

impl Project {
    /// The nearest folder at or above `from` that holds `pgrunbook.toml`.
    pub fn find(from: &Path) -> Option<PathBuf> {
        from.ancestors().find(|folder| folder.join(FILE).is_file()).map(Path::to_path_buf)
    }

    /// Reads the project of a folder; without a file, a project whose one target `main` is what the environment's
    /// variables name.
    ///
    /// # Errors
    /// [`ProjectError`], with the place in the file.
    pub fn load(root: &Path, environment: Option<&str>) -> Result<Self, ProjectError> {
        Self::read(root, &text_of(root)?, environment)
    }

    /// The same from a text.
    pub fn read(root: &Path, text: &str, environment: Option<&str>) -> Result<Self, ProjectError> {
        let malformed = |span: Option<Range<usize>>, message: String| malformed(text, span, message);
        let file: File = toml::from_str(text).map_err(|error| malformed(error.span(), error.message().to_owned()))?;
        let names: Vec<String> = file.environments.keys().cloned().collect();
        let chosen = environment.or(file.project.environment.as_deref());
        let (name, table) = match chosen {
            Some(name) => match file.environments.get(name) {
                Some(table) => (name.to_owned(), Some(table)),
                None if name == DEFAULT_ENVIRONMENT && names.is_empty() => (name.to_owned(), None),
                None => {
                    let path = FILE.to_owned();
                    return Err(ProjectError::NoEnvironment { name: name.to_owned(), path, known: names });
                }
            },
            None => match names.as_slice() {
                [] => (DEFAULT_ENVIRONMENT.to_owned(), None),
                [only] => (only.clone(), file.environments.get(only)),
                _ => return Err(ProjectError::ChooseEnvironment { path: FILE.to_owned(), known: names }),
            },
        };
        let mut tables = file.targets.clone();
        if let Some(table) = table {
            tables.extend(table.targets.iter().map(|(name, target)| (name.clone(), target.clone())));
        }
        let (environment, incidents) = demands::environment(text, name, table, &names, &tables)?;
        let targets = tables
            .into_iter()
            .map(|(name, table)| match target(root, &table) {
                Some(target) => Ok((name, target)),
                None => {
                    let message = format!(
                        "target `{name}` must be one thing: `url` or `service` (PostgreSQL), `base` (HTTP), `sqlite`, `redis`; \
                         `password`, a reference, goes with `redis`"
                    );
                    Err(malformed(find(text, &format!("targets.{name}")), message))
                }
            })
            .collect::<Result<_, _>>()?;
        let journal = match (file.journal.url, file.journal.path) {
            (Some(url), None) => JournalConfig::Postgres(Reference::parse(&url)),
            (None, path) => {
                JournalConfig::Sqlite(root.join(path.unwrap_or_else(|| PathBuf::from(".pgrunbook/journal.db"))))
            }
            (Some(_), Some(_)) => {
                return Err(malformed(
                    find(text, "[journal]"),
                    "a journal has a `path` or a `url`, not both".to_owned(),
                ));
            }
        };
        let notify = table.map(|table| table.notify.clone()).unwrap_or_default();
        let notices = Notices::of(root, file.channels, file.templates, notify)
            .map_err(|mistake| malformed(find(text, &mistake.word), mistake.message))?;
        let squawk =
            SquawkRules::parse(&file.review.squawk).map_err(|(place, message)| malformed(Some(place), message))?;
        let folder = root.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Self {
            root: root.to_owned(),
            name: file.project.name.or(folder).unwrap_or_else(|| "project".to_owned()),
            targets,
            environment,
            environments: names,
            incidents,
            journal,
            people: file.people,
            allowed_signers: file.project.allowed_signers.map(|path| root.join(path)),
            rehearsal_setup: file.rehearsal.setup.into_iter().map(|path| root.join(path)).collect(),
            evidence_key: file.evidence.key.as_deref().map(Reference::parse),
            notices,
            squawk,
            evidence_dir: root.join(file.evidence.dir.unwrap_or_else(|| PathBuf::from("evidence"))),
        })
    }
}

fn target(root: &Path, table: &TargetTable) -> Option<TargetConfig> {
    let password = table.password.as_deref().map(Reference::parse);
    if password.as_ref().is_some_and(|password| !password.is_secret()) {
        return None;
    }
    match (&table.url, &table.service, &table.base, &table.sqlite, &table.redis) {
        (None, None, None, None, Some(url)) => Some(TargetConfig::Redis { url: Reference::parse(url), password }),
        (Some(url), None, None, None, None) if is_redis(url) => {
            Some(TargetConfig::Redis { url: Reference::Plain(url.clone()), password })
        }
        _ if password.is_some() => None,
        (None, None, None, None, None) => Some(TargetConfig::Postgres { url: None }),
        (Some(url), None, None, None, None) => Some(TargetConfig::Postgres { url: Some(Reference::parse(url)) }),
        (None, Some(service), None, None, None) => {
            Some(TargetConfig::Postgres { url: Some(Reference::Plain(format!("service={service}"))) })
        }
        (None, None, Some(base), None, None) => Some(TargetConfig::Http { base: Reference::parse(base) }),
        (None, None, None, Some(path), None) => Some(TargetConfig::Sqlite { path: root.join(path) }),
        _ => None,
    }
}

fn var_value(value: &toml::Value) -> Option<VarValue> {
    match value {
        toml::Value::String(text) => Some(VarValue::Text(text.clone())),
        toml::Value::Integer(number) => Some(VarValue::Text(number.to_string())),
        toml::Value::Float(number) => Some(VarValue::Text(number.to_string())),
        toml::Value::Boolean(truth) => Some(VarValue::Text(truth.to_string())),
        toml::Value::Array(values) => {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<_>>().map(VarValue::List)
        }
        _ => None,
    }
}

/// Where a word stands: for errors about a whole table, which serde gives no place for.
fn find(text: &str, word: &str) -> Option<Range<usize>> {
    text.find(word).map(|start| start..start + word.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, environment: Option<&str>) -> Result<Project, ProjectError> {
        Project::read(Path::new("/srv/ledger"), text, environment)
    }

    const SEVERAL: &str = r#"
[project]
name = "ledger"
[targets.main]
url = "env:STAGING_URL"
[targets.app]
base = "http://localhost:1"
[environments.staging]
[environments.production]
protected = true
confirm = "YES"
rehearsal = "required"
vars.max = 5
[environments.production.targets.main]
url = "env:PROD_URL"
[people]
dba = ["ann@example.com"]
"#;

    #[test]
    fn an_environment_gives_names_their_meaning() {
        let project = read(SEVERAL, Some("production")).unwrap();
        assert_eq!(
            project.targets["main"],
            TargetConfig::Postgres { url: Some(Reference::Env("PROD_URL".to_owned())) }
        );
        assert!(project.environment.protected && project.environment.rehearsal_required);
        assert_eq!(project.environment.vars["max"], VarValue::Text("5".to_owned()));
        assert_eq!(project.journal, JournalConfig::Sqlite("/srv/ledger/.pgrunbook/journal.db".into()));
        let staging = read(SEVERAL, Some("staging")).unwrap();
        assert!(!staging.environment.protected);
    }

    #[test]
    fn an_unknown_environment_is_refused_with_those_that_exist() {
        let error = read(SEVERAL, Some("prod")).unwrap_err().to_string();
        assert_eq!(error, "there is no environment `prod` in pgrunbook.toml: it has production, staging");
        let error = read(SEVERAL, None).unwrap_err().to_string();
        assert!(error.contains("none was chosen: it has production, staging"), "{error}");
    }

    #[test]
    fn mistakes_point_into_the_file() {
        let text = "[targets.main]\nurll = \"x\"\n";
        let Err(ProjectError::Malformed { span: Some(span), message, .. }) = read(text, None) else { panic!() };
        assert_eq!(&text[span], "urll");
        assert!(message.contains("expected one of `url`, `service`, `base`, `sqlite`, `redis`"), "{message}");
        let open = "[targets.cache]\nredis = \"redis://cache\"\npassword = \"hunter2\"\n";
        let why = read(open, None).unwrap_err().to_string();
        assert!(why.contains("a reference") && !why.contains("hunter2"), "{why}");
        let both = "[targets.main]\nurl = \"x\"\nbase = \"y\"\n";
        assert!(read(both, None).unwrap_err().to_string().contains("target `main` must be one thing"));
    }

    #[test]
    fn without_a_file_the_environment_names_the_one_target() {
        let project = Project::load(Path::new("/nonexistent/folder"), None).unwrap();
        assert_eq!(project.targets["main"], TargetConfig::Postgres { url: None });
        assert_eq!(project.environment.name, DEFAULT_ENVIRONMENT);
    }
}
