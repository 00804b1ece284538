//! What a declaration means once its patterns are expanded: the concrete roles, schemas and accesses of one database.
//!
//! The first of the three oracles: [`Topology::allows`] answers from the declaration alone. Audit and probe answer the same
//! question from the catalog and from trying; they share these words with it, and no code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::civil::Date;
use pgrunbook_engine::StepError;

use super::sources::Sources;
use crate::secret::Reference;

/// A privilege, as <https://www.postgresql.org/docs/current/ddl-priv.html> has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privilege {
    Select,
    Insert,
    Update,
    Delete,
    Truncate,
    References,
    Trigger,
    Maintain,
    Usage,
    Create,
    Connect,
    Temporary,
    Execute,
    Set,
    AlterSystem,
}

impl Privilege {
    /// Every one, in the order in which people read them.
    pub const ALL: [Self; 15] = [
        Self::Select,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Truncate,
        Self::References,
        Self::Trigger,
        Self::Maintain,
        Self::Usage,
        Self::Create,
        Self::Connect,
        Self::Temporary,
        Self::Execute,
        Self::Set,
        Self::AlterSystem,
    ];

    /// As SQL writes it, and `aclexplode` answers.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::References => "REFERENCES",
            Self::Trigger => "TRIGGER",
            Self::Maintain => "MAINTAIN",
            Self::Usage => "USAGE",
            Self::Create => "CREATE",
            Self::Connect => "CONNECT",
            Self::Temporary => "TEMPORARY",
            Self::Execute => "EXECUTE",
            Self::Set => "SET",
            Self::AlterSystem => "ALTER SYSTEM",
        }
    }

    /// The privilege of a word, whatever its case; `None` where there is none.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.sql().eq_ignore_ascii_case(word))
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sql())
    }
}

/// What an object in a schema is, as far as privileges differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Also partitioned ones.
    Table,
    View,
    MaterializedView,
    ForeignTable,
    Sequence,
    /// Functions, aggregates and window functions.
    Function,
    Procedure,
    Type,
}

impl Kind {
    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::ForeignTable => "foreign table",
            Self::Sequence => "sequence",
            Self::Function => "function",
            Self::Procedure => "procedure",
            Self::Type => "type",
        }
    }

    /// The keyword of `GRANT ... ON`.
    pub fn grant_word(self) -> &'static str {
        match self {
            Self::Table | Self::View | Self::MaterializedView | Self::ForeignTable => "TABLE",
            Self::Sequence => "SEQUENCE",
            Self::Function => "FUNCTION",
            Self::Procedure => "PROCEDURE",
            Self::Type => "TYPE",
        }
    }

    /// Whether it is read and written like a table.
    pub fn is_relation(self) -> bool {
        matches!(self, Self::Table | Self::View | Self::MaterializedView | Self::ForeignTable)
    }

    /// The privileges that an object of this kind can have, without those that only newer versions know.
    pub fn privileges(self) -> &'static [Privilege] {
        use Privilege::{Delete, Execute, Insert, References, Select, Trigger, Truncate, Update, Usage};
        match self {
            Self::Table | Self::View | Self::MaterializedView | Self::ForeignTable => {
                &[Select, Insert, Update, Delete, Truncate, References, Trigger]
            }
            Self::Sequence => &[Usage, Select, Update],
            Self::Function | Self::Procedure => &[Execute],
            Self::Type => &[Usage],
        }
    }
}

/// Which objects of a schema a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Objects {
    /// Every one, now and later, whose kind knows the privilege and is among these.
    Every(&'static [Kind]),
    /// One by its name; a function with its argument types: `register(text)`.
    Named { name: String, columns: BTreeSet<String> },
}

/// One line of an access set: a privilege on objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub privilege: Privilege,
    pub objects: Objects,
}

/// What a role may do in one schema, under the name that the declaration gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessSet {
    pub name: String,
    pub rules: Vec<Rule>,
}

/// An object in a schema. Functions are told by name and argument types.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    pub schema: String,
    /// A function's name goes with its argument types: `register(text, integer)`.
    pub name: String,
    pub kind: Kind,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl AccessSet {
    /// Whether it gives a privilege on a whole object.
    pub fn gives(&self, object: &Object, privilege: Privilege) -> bool {
        self.rules.iter().any(|rule| rule.privilege == privilege && rule.objects.covers(object) == Covers::Whole)
    }

    /// The columns of an object for which it gives a privilege, where it does not give it for the whole.
    pub fn columns(&self, object: &Object, privilege: Privilege) -> BTreeSet<&str> {
        let rules = self.rules.iter().filter(|rule| rule.privilege == privilege);
        rules
            .filter_map(|rule| match (&rule.objects, rule.objects.covers(object)) {
                (Objects::Named { columns, .. }, Covers::Columns) => Some(columns),
                _ => None,
            })
            .flatten()
            .map(String::as_str)
            .collect()
    }
}

/// How far a rule reaches on an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covers {
    Not,
    Columns,
    Whole,
}

impl Objects {
    pub fn covers(&self, object: &Object) -> Covers {
        match self {
            Self::Every(kinds) if kinds.contains(&object.kind) => Covers::Whole,
            Self::Every(_) => Covers::Not,
            Self::Named { name, columns } if *name == object.name => {
                if columns.is_empty() {
                    Covers::Whole
                } else {
                    Covers::Columns
                }
            }
            Self::Named { .. } => Covers::Not,
        }
    }
}

/// What a role is for; decides its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoleKind {
    /// NOLOGIN; owns the schemas and everything in them.
    Owner,
    /// LOGIN; a member of the owner, whose sessions act as the owner.
    Migration,
    /// LOGIN; what an application connects as. Owns nothing, creates nothing.
    Runtime,
    /// LOGIN; reads.
    ReadOnly,
    /// NOLOGIN; others are its members.
    Group,
    /// NOLOGIN and without any access: the first of two steps towards its end.
    Retired,
}

impl RoleKind {
    /// Whether it may log in.
    pub fn logs_in(self) -> bool {
        matches!(self, Self::Migration | Self::Runtime | Self::ReadOnly)
    }

    /// As the declaration writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Migration => "migration",
            Self::Runtime => "runtime",
            Self::ReadOnly => "read-only",
            Self::Group => "group",
            Self::Retired => "retired",
        }
    }
}

/// A role as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    pub kind: RoleKind,
    /// The tenant that it was expanded for.
    pub tenant: Option<String>,
    /// Where its password is; a role without one cannot be tried by login.
    pub password: Option<Reference>,
    /// Roles whose rights it inherits. Every other membership is a finding.
    pub member_of: BTreeSet<String>,
    /// Empty: the server's default.
    pub search_path: Vec<String>,
    /// By schema.
    pub access: BTreeMap<String, AccessSet>,
}

/// A schema as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    pub name: String,
    /// The tenant that it was expanded for.
    pub tenant: Option<String>,
    /// Views that run with their owner's rights on purpose, by name.
    pub owner_rights: BTreeSet<String>,
}

/// What a query sees without a tenant's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutContext {
    /// The guard raises P0001.
    Error,
    /// No rows.
    Hidden,
}

/// A table by schema and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    pub schema: String,
    pub name: String,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Row-level security by a tenant's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSecurity {
    pub name: String,
    pub tables: Vec<Table>,
    pub column: String,
    /// The setting that holds the tenant: `app.community_id`.
    pub setting: String,
    /// The column's type: `uuid`.
    pub type_name: String,
    /// The function that reads the setting, without arguments.
    pub guard: Table,
    pub without: WithoutContext,
    /// For whom the policies are.
    pub roles: Vec<String>,
    /// Whether the owner is bound too.
    pub force: bool,
    /// The target through which the application's pooler is reached.
    pub pooler: Option<String>,
}

impl RowSecurity {
    /// The name of its policy.
    pub fn policy(&self) -> String {
        format!("tenant_{}", self.name)
    }
}

/// A table whose rows stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendOnly {
    pub table: Table,
    /// The one column whose value may move, and only along these ways.
    pub status: Option<Status>,
}

/// A column that moves one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub column: String,
    pub from: String,
    pub to: Vec<String>,
}

/// A crossing that somebody has allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    pub role: String,
    /// `schema.object`, `schema.function(args)` or `schema.*`.
    pub on: String,
    pub may: Vec<Privilege>,
    pub why: String,
    pub until: Option<Date>,
}

/// One chain of migrations, and the schema that it is applied in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainUse {
    /// Relative to the project.
    pub folder: String,
    pub schema: String,
    pub tenant: Option<String>,
    /// What brought it: `core`, `module calendar`, `tenant`.
    pub layer: String,
    /// Whether the folder may be missing.
    pub optional: bool,
}

impl ChainUse {
    /// The name that its history is kept under: one chain in many schemas has one history for each.
    pub fn history(&self) -> String {
        crate::migrate::chain_in(&self.folder, &self.schema)
    }
}

/// An expanded declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Where it was read from, for messages.
    pub source: String,
    /// The database's name, where the declaration gives one; else the target's.
    pub database: Option<String>,
    /// The role that owns the schemas and what is in them.
    pub owner: String,
    /// Every role that creates objects in the schemas: the owner first.
    pub creators: Vec<String>,
    /// Databases that no runtime role may connect to: names, with `*`.
    pub legacy: Vec<String>,
    pub tenants: Vec<String>,
    pub roles: BTreeMap<String, Role>,
    pub schemas: BTreeMap<String, Schema>,
    /// Schemas on their way out: nobody has access.
    pub retired_schemas: BTreeSet<String>,
    pub row_security: Vec<RowSecurity>,
    pub append_only: Vec<AppendOnly>,
    pub exceptions: Vec<Exception>,
    pub chains: Vec<ChainUse>,
    /// Schemas that a table of the database names.
    pub sources: Option<Sources>,
    /// Digests (SHA-256, hex) of the files it was read from, by path.
    pub files: BTreeMap<String, String>,
}

impl Topology {
    /// Whether a role may use a privilege on an object of a declared schema, or on one of its columns.
    ///
    /// Owner and migration roles may do everything. Memberships that are declared count; exceptions count until they end.
    pub fn allows(&self, role: &str, object: &Object, column: Option<&str>, privilege: Privilege, today: Date) -> bool {
        if self.is_owner(role) {
            return true;
        }
        self.closure(role).into_iter().any(|name| {
            let set = self.roles.get(name).and_then(|role| role.access.get(&object.schema));
            let declared = set.is_some_and(|set| {
                set.gives(object, privilege)
                    || column.is_some_and(|column| set.columns(object, privilege).contains(column))
            });
            declared || self.excepted(name, object, privilege, today).is_some()
        })
    }

    /// The exception that allows it.
    pub fn excepted(&self, role: &str, object: &Object, privilege: Privilege, today: Date) -> Option<&Exception> {
        self.exceptions.iter().find(|one| {
            one.role == role
                && one.may.contains(&privilege)
                && one.until.is_none_or(|until| today <= until)
                && one
                    .on
                    .split_once('.')
                    .is_some_and(|(schema, name)| schema == object.schema && (name == "*" || name == object.name))
        })
    }

    /// Whether a role may see into a schema at all.
    pub fn uses_schema(&self, role: &str, schema: &str, today: Date) -> bool {
        self.is_owner(role)
            || self.closure(role).into_iter().any(|name| {
                self.roles.get(name).is_some_and(|role| role.access.contains_key(schema))
                    || self.exceptions.iter().any(|one| {
                        one.role == name
                            && one.until.is_none_or(|until| today <= until)
                            && one.on.split_once('.').is_some_and(|(on, _)| on == schema)
                    })
            })
    }

    /// Whether a role owns what is in the schemas, or acts as one that does.
    pub fn is_owner(&self, role: &str) -> bool {
        self.creators.iter().any(|one| one == role)
            || self.roles.get(role).is_some_and(|role| matches!(role.kind, RoleKind::Owner | RoleKind::Migration))
    }

    /// The same for some of its tenants: their roles, schemas and chains, and what all share. All, if none is named.
    ///
    /// # Errors
    /// If one is not a tenant.
    pub fn only(&self, tenants: &[String]) -> Result<Self, StepError> {
        if let Some(unknown) = tenants.iter().find(|name| !self.tenants.contains(name)) {
            let known = self.tenants.join(", ");
            return Err(StepError::unusable("no-tenant", format!("`{unknown}` is not a tenant: there are {known}")));
        }
        if tenants.is_empty() {
            return Ok(self.clone());
        }
        let mut part = self.clone();
        let stays = |tenant: &Option<String>| tenant.as_ref().is_none_or(|tenant| tenants.contains(tenant));
        part.tenants.retain(|tenant| tenants.contains(tenant));
        part.roles.retain(|_, role| stays(&role.tenant));
        part.schemas.retain(|_, schema| stays(&schema.tenant));
        part.chains.retain(|chain| stays(&chain.tenant));
        for role in part.roles.values_mut() {
            role.access.retain(|schema, _| part.schemas.contains_key(schema));
        }
        part.row_security.iter_mut().for_each(|one| {
            one.tables.retain(|table| part.schemas.contains_key(&table.schema));
            one.roles.retain(|role| part.roles.contains_key(role));
        });
        part.append_only.retain(|one| part.schemas.contains_key(&one.table.schema));
        part.exceptions.retain(|one| part.roles.contains_key(&one.role));
        Ok(part)
    }

    /// A role and every role whose rights it shall inherit.
    pub fn closure<'a>(&'a self, role: &'a str) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut open = vec![role];
        while let Some(name) = open.pop() {
            if found.insert(name)
                && let Some(role) = self.roles.get(name)
            {
                open.extend(role.member_of.iter().map(String::as_str));
            }
        }
        found
    }

    /// Roles that applications and people connect as: those whose isolation is proven.
    pub fn bounded_roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values().filter(|role| {
            matches!(role.kind, RoleKind::Runtime | RoleKind::ReadOnly | RoleKind::Group | RoleKind::Retired)
        })
    }
}
