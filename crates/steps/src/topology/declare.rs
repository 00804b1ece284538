//! The declaration as people write it: `topology.toml`, or the table `topology` of `pgrunbook.toml`.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;

/// The declaration's own file, beside `pgrunbook.toml`.
pub const FILE: &str = "topology.toml";

/// Why a declaration cannot be used. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum DeclarationError {
    #[error("this project declares no topology: there is no {FILE}, and pgrunbook.toml has no table `topology`")]
    Missing,
    #[error("{path} cannot be read: {why}")]
    Unreadable { path: String, why: String },
    #[error("{path}: {message}")]
    Malformed { path: String, text: String, span: Option<Range<usize>>, message: String },
}

/// The file, word for word. Patterns (`{tenant}`, `{TENANT}`, `{suffix}`, `{module}`) are not expanded yet.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// What stands for `{suffix}`.
    pub suffix: Option<String>,
    /// What is different in one environment.
    #[serde(default)]
    pub environments: BTreeMap<String, EnvironmentTable>,
    pub database: DatabaseTable,
    pub tenants: Option<TenantsTable>,
    #[serde(default)]
    pub schemas: BTreeMap<String, SchemaTable>,
    /// Named access sets: privilege to objects.
    #[serde(default)]
    pub access: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    #[serde(default)]
    pub roles: BTreeMap<String, RoleTable>,
    #[serde(default)]
    pub rls: BTreeMap<String, RowSecurityTable>,
    #[serde(default)]
    pub append_only: Vec<String>,
    #[serde(default)]
    pub status: Vec<StatusTable>,
    #[serde(default)]
    pub exception: Vec<ExceptionTable>,
    #[serde(default)]
    pub chain: Vec<ChainTable>,
    pub sources: Option<SourcesTable>,
    #[serde(default)]
    pub retired: RetiredTable,
    /// Read by the capability `redis`, with its own places for mistakes.
    #[serde(default, rename = "redis")]
    _redis: Option<serde::de::IgnoredAny>,
}

/// `[environments.staging]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentTable {
    pub suffix: Option<String>,
    pub database: Option<String>,
}

/// `[database]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseTable {
    /// Else the target's.
    pub name: Option<String>,
    pub owner: String,
    /// Further roles that create objects here in their own name.
    #[serde(default)]
    pub creators: Vec<String>,
    /// Databases that no runtime role may connect to; `*` stands for anything.
    #[serde(default)]
    pub legacy: Vec<String>,
}

/// `[tenants]`: a list, or a roster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantsTable {
    #[serde(default)]
    pub list: Vec<String>,
    /// A path with one `*`: `roster/*/butler.toml`.
    pub roster: Option<String>,
    /// Where a roster file has the tenant's name: `butler.name`.
    pub key: Option<String>,
    /// What each roster file must say: `"butler.db.name" = "butlers"`.
    #[serde(default)]
    pub require: BTreeMap<String, String>,
    /// Where a roster file lists the modules that are enabled: `butler.modules`.
    pub modules: Option<String>,
}

/// `[schemas]`: `name = {}`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaTable {
    /// Views that run with their owner's rights on purpose.
    #[serde(default)]
    pub owner_rights: Vec<String>,
}

/// What a role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleKindWord {
    Migration,
    Runtime,
    ReadOnly,
    Group,
}

/// `[roles.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleTable {
    pub kind: RoleKindWord,
    /// A reference: `env:NAME`, `file:path`, `cmd:program`.
    pub password: Option<String>,
    #[serde(default)]
    pub member_of: Vec<String>,
    #[serde(default)]
    pub search_path: Vec<String>,
    /// Schema to the name of an access set.
    #[serde(default)]
    pub access: BTreeMap<String, String>,
}

/// `[rls.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowSecurityTable {
    pub tables: Vec<String>,
    pub column: String,
    pub setting: String,
    #[serde(rename = "type")]
    pub type_name: String,
    /// A function without arguments: `app.current_community_id`.
    pub guard: String,
    pub without: WithoutWord,
    pub roles: Vec<String>,
    #[serde(default = "yes")]
    pub force: bool,
    pub pooler: Option<String>,
}

fn yes() -> bool {
    true
}

/// What a query sees without a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WithoutWord {
    Error,
    Hidden,
}

/// `[[status]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusTable {
    pub table: String,
    pub column: String,
    pub from: String,
    pub to: Vec<String>,
}

/// `[[exception]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExceptionTable {
    pub role: String,
    pub on: String,
    pub may: Vec<String>,
    pub why: String,
    pub until: Option<toml::value::Datetime>,
}

/// `[[chain]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainTable {
    pub folder: String,
    pub schema: String,
    #[serde(default)]
    pub optional: bool,
}

/// `[sources]`: schemas that a table of the database names.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcesTable {
    /// The mapping table: `shared.sources`.
    pub registry: String,
    /// The pattern of the schemas' names, with `{source}`.
    #[serde(default = "source_pattern")]
    pub schema: String,
    /// The roles that all sources share.
    pub roles: Vec<String>,
    /// What they may do in every source's schema.
    #[serde(default = "all")]
    pub access: String,
    /// Chains that are applied in every source's schema.
    #[serde(default)]
    pub chain: Vec<String>,
}

fn source_pattern() -> String {
    "src_{source}".to_owned()
}

fn all() -> String {
    "all".to_owned()
}

/// `[retired]`: the first of two steps; `prune` is the second.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetiredTable {
    #[serde(default)]
    pub roles: Vec<String>,
    #[serde(default)]
    pub schemas: Vec<String>,
}

/// `pgrunbook.toml`, of which only one table matters here.
#[derive(Deserialize)]
struct Holder {
    topology: Option<Declaration>,
}

/// Reads the text of [`FILE`].
///
/// # Errors
/// With the place in the text.
pub fn read(path: &str, text: &str) -> Result<Declaration, DeclarationError> {
    toml::from_str(text).map_err(|error| malformed(path, text, &error))
}

/// Reads the table `topology` of a project file, if it has one.
///
/// # Errors
/// With the place in the text.
pub fn read_table(path: &str, text: &str) -> Result<Option<Declaration>, DeclarationError> {
    let holder: Holder = toml::from_str(text).map_err(|error| malformed(path, text, &error))?;
    Ok(holder.topology)
}

fn malformed(path: &str, text: &str, error: &toml::de::Error) -> DeclarationError {
    DeclarationError::Malformed {
        path: path.to_owned(),
        text: text.to_owned(),
        span: error.span(),
        message: error.message().to_owned(),
    }
}
