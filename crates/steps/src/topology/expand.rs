//! From the declaration's patterns to concrete names. Every name that leaves here is one that PostgreSQL takes as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use sha2::{Digest, Sha256};

use super::declare::{
    self, ChainTable, Declaration, DeclarationError, ExceptionTable, RoleKindWord, RoleTable, RowSecurityTable,
    TenantsTable, WithoutWord,
};
use super::model::{
    AccessSet, AppendOnly, ChainUse, Exception, Kind, Objects, Privilege, Role, RoleKind, RowSecurity, Rule, Schema,
    Status, Table, Topology, WithoutContext,
};
use super::sources::Sources;
use crate::project;
use crate::secret::Reference;

/// PostgreSQL keeps 63 bytes of a name, and cuts off the rest without a word.
pub(super) const NAME_BYTES: usize = 63;

/// Schemas that belong to nobody's declaration.
const RESERVED: &[&str] = &["public", "information_schema", "pgrunbook", "pgrunbook_journal"];

/// Access sets that need not be declared.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("all", "reads and writes tables and views, uses sequences and types, executes functions"),
    ("select", "reads tables, views and materialized views"),
    ("views", "reads views and materialized views, not tables"),
    ("usage", "sees the schema, and nothing in it"),
];

/// Default privileges do not tell tables from views: a set that is for later objects too must not either.
const RELATIONS: &[Kind] = &[Kind::Table, Kind::View, Kind::MaterializedView, Kind::ForeignTable];
const VIEWS: &[Kind] = &[Kind::View, Kind::MaterializedView];
const SEQUENCES: &[Kind] = &[Kind::Sequence];
const ROUTINES: &[Kind] = &[Kind::Function, Kind::Procedure];
const TYPES: &[Kind] = &[Kind::Type];

/// Reads and expands a project's declaration in an environment.
///
/// # Errors
/// [`DeclarationError`] with the place, as far as there is one.
pub fn load(root: &Path, environment: &str) -> Result<Topology, DeclarationError> {
    let own = root.join(declare::FILE);
    let unreadable = |path: &Path, error: &std::io::Error| DeclarationError::Unreadable {
        path: path.display().to_string(),
        why: error.to_string(),
    };
    let (path, text, declaration) = match std::fs::read_to_string(&own) {
        Ok(text) => {
            let declaration = declare::read(declare::FILE, &text)?;
            (declare::FILE, text, declaration)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let path = root.join(project::FILE);
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(DeclarationError::Missing),
                Err(error) => return Err(unreadable(&path, &error)),
            };
            let declaration = declare::read_table(project::FILE, &text)?.ok_or(DeclarationError::Missing)?;
            (project::FILE, text, declaration)
        }
        Err(error) => return Err(unreadable(&own, &error)),
    };
    expand(&declaration, path, &text, root, environment)
}

/// Expands a declaration. `text` is for the places of mistakes.
///
/// # Errors
/// One sentence that names the declaration's line, role or tenant.
pub fn expand(
    declaration: &Declaration,
    path: &str,
    text: &str,
    root: &Path,
    environment: &str,
) -> Result<Topology, DeclarationError> {
    let wrong = |wrong: Wrong| DeclarationError::Malformed {
        path: path.to_owned(),
        text: text.to_owned(),
        span: wrong.word.as_deref().and_then(|word| find(text, word)),
        message: wrong.message,
    };
    let mut expansion = Expansion {
        declaration,
        suffix: declaration
            .environments
            .get(environment)
            .and_then(|table| table.suffix.clone())
            .or_else(|| declaration.suffix.clone())
            .unwrap_or_default(),
        tenants: Vec::new(),
        files: BTreeMap::from([(path.to_owned(), digest(text))]),
    };
    expansion.read_tenants(root).map_err(wrong)?;
    let mut topology = expansion.topology(path, environment).map_err(wrong)?;
    topology.files = expansion.files;
    Ok(topology)
}

/// A mistake, and the word of the text at which it is shown.
struct Wrong {
    message: String,
    word: Option<String>,
}

impl Wrong {
    fn at(word: &str, message: impl Into<String>) -> Self {
        Self { message: message.into(), word: Some(word.to_owned()) }
    }
}

fn find(text: &str, word: &str) -> Option<std::ops::Range<usize>> {
    text.find(word).map(|start| start..start + word.len())
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One entry of the list or roster.
struct Tenant {
    name: String,
    modules: Vec<String>,
}

struct Expansion<'a> {
    declaration: &'a Declaration,
    suffix: String,
    tenants: Vec<Tenant>,
    files: BTreeMap<String, String>,
}

impl Expansion<'_> {
    fn read_tenants(&mut self, root: &Path) -> Result<(), Wrong> {
        let Some(table) = &self.declaration.tenants else { return Ok(()) };
        let found = match (&table.roster, table.list.is_empty()) {
            (Some(pattern), true) => self.roster(root, table, pattern)?,
            (None, false) => table.list.iter().map(|name| Tenant { name: name.clone(), modules: Vec::new() }).collect(),
            (None, true) => return Err(Wrong::at("[tenants]", "`tenants` needs a `list` or a `roster`")),
            (Some(_), false) => {
                return Err(Wrong::at("[tenants]", "`tenants` has a `list` and a `roster`: give one of them"));
            }
        };
        let mut seen = BTreeSet::new();
        for tenant in &found {
            tenant_name(&tenant.name).map_err(|why| Wrong::at(&tenant.name, why))?;
            if self.declaration.schemas.contains_key(&tenant.name) {
                let message = format!("the tenant `{}` has the name of a schema that is not a tenant's", tenant.name);
                return Err(Wrong::at(&tenant.name, message));
            }
            if !seen.insert(&tenant.name) {
                return Err(Wrong::at(&tenant.name, format!("the tenant `{}` is there twice", tenant.name)));
            }
        }
        self.tenants = found;
        Ok(())
    }

    fn roster(&mut self, root: &Path, table: &TenantsTable, pattern: &str) -> Result<Vec<Tenant>, Wrong> {
        let Some(key) = &table.key else {
            return Err(Wrong::at("roster", "a `roster` needs the `key` that holds the tenant's name"));
        };
        let mut found = Vec::new();
        for path in matching(root, pattern).map_err(|why| Wrong::at(pattern, why))? {
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            let wrong = |why: String| Wrong::at(pattern, format!("{shown}: {why}"));
            let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
            let value: toml::Value = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
            let name = string_at(&value, key).ok_or_else(|| wrong(format!("`{key}` is no text")))?;
            for (key, wanted) in &table.require {
                let is = string_at(&value, key);
                if is != Some(wanted) {
                    let is = is.map_or_else(|| "not set".to_owned(), |is| format!("{is:?}"));
                    return Err(wrong(format!("`{key}` is {is}, and must be {wanted:?}")));
                }
            }
            let modules = table.modules.as_deref().and_then(|key| at(&value, key));
            let modules = match modules {
                None => Vec::new(),
                Some(toml::Value::Array(values)) => values
                    .iter()
                    .map(|value| value.as_str().map(str::to_owned))
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(|| wrong("the modules must be a list of texts".to_owned()))?,
                // `[butler.modules.calendar]`: a table for each.
                Some(toml::Value::Table(table)) => table.keys().cloned().collect(),
                Some(_) => return Err(wrong("the modules must be a list of texts".to_owned())),
            };
            for module in &modules {
                tenant_name(module).map_err(|why| wrong(why.replace("tenant", "module")))?;
            }
            self.files.insert(shown.clone(), digest(&text));
            found.push(Tenant { name: name.to_owned(), modules });
        }
        if found.is_empty() {
            return Err(Wrong::at(pattern, format!("no file matches the roster {pattern}: there are no tenants")));
        }
        Ok(found)
    }

    /// Replaces the patterns of a text.
    fn fill(&self, pattern: &str, tenant: Option<&Tenant>, module: Option<&str>) -> Result<String, Wrong> {
        let mut text = pattern.replace("{suffix}", &self.suffix);
        if let Some(tenant) = tenant {
            text = text.replace("{tenant}", &tenant.name).replace("{TENANT}", &tenant.name.to_uppercase());
        }
        if let Some(module) = module {
            text = text.replace("{module}", module);
        }
        match (text.find('{'), text.contains("{tenant}") || text.contains("{TENANT}")) {
            (None, _) => Ok(text),
            (Some(_), true) => Err(Wrong::at(pattern, format!("`{pattern}` names a tenant where there is none"))),
            (Some(_), false) => Err(Wrong::at(
                pattern,
                format!("`{pattern}`: the patterns are {{tenant}}, {{TENANT}}, {{suffix}} and, in chains, {{module}}"),
            )),
        }
    }

    /// A key of the declaration for each tenant that it stands for.
    fn each<'t>(&'t self, pattern: &str) -> Vec<Option<&'t Tenant>> {
        if pattern.contains("{tenant}") || pattern.contains("{TENANT}") {
            self.tenants.iter().map(Some).collect()
        } else {
            vec![None]
        }
    }

    fn topology(&self, path: &str, environment: &str) -> Result<Topology, Wrong> {
        let declaration = self.declaration;
        let owner = self.fill(&declaration.database.owner, None, None)?;
        role_name(&owner).map_err(|why| Wrong::at(&declaration.database.owner, why))?;
        let mut topology = Topology {
            source: path.to_owned(),
            database: declaration
                .environments
                .get(environment)
                .and_then(|table| table.database.clone())
                .or_else(|| declaration.database.name.clone()),
            creators: vec![owner.clone()],
            owner: owner.clone(),
            legacy: declaration.database.legacy.clone(),
            tenants: self.tenants.iter().map(|tenant| tenant.name.clone()).collect(),
            roles: BTreeMap::new(),
            schemas: BTreeMap::new(),
            retired_schemas: declaration.retired.schemas.iter().cloned().collect(),
            row_security: Vec::new(),
            append_only: Vec::new(),
            exceptions: Vec::new(),
            chains: Vec::new(),
            sources: None,
            files: BTreeMap::new(),
        };
        if let Some(name) = &topology.database {
            plain_name(name).map_err(|why| Wrong::at(name, format!("the database's name {why}")))?;
        }
        let creators = &declaration.database.creators;
        topology.creators.extend(creators.iter().filter(|name| **name != owner).cloned());
        let kept = Role {
            name: owner.clone(),
            kind: RoleKind::Owner,
            tenant: None,
            password: None,
            member_of: BTreeSet::new(),
            search_path: Vec::new(),
            access: BTreeMap::new(),
        };
        topology.roles.insert(owner, kept);
        self.schemas(&mut topology)?;
        self.roles(&mut topology)?;
        self.row_security(&mut topology)?;
        self.append_only(&mut topology)?;
        for table in &declaration.exception {
            let exception = exception(table)?;
            if !topology.roles.contains_key(&exception.role) {
                let message = format!("the exception is for the role `{}`, which is not declared", exception.role);
                return Err(Wrong::at(&table.role, message));
            }
            topology.exceptions.push(exception);
        }
        self.chains(&mut topology)?;
        topology.sources = self.sources(&topology)?;
        Ok(topology)
    }

    fn sources(&self, topology: &Topology) -> Result<Option<Sources>, Wrong> {
        let Some(table) = &self.declaration.sources else { return Ok(None) };
        let pattern = table.schema.replace("{suffix}", &self.suffix);
        let (before, after) = match pattern.split_once("{source}") {
            // A name that begins with a digit is refused where the source is known.
            Some((before, after)) if word(&format!("{before}x{after}")) => (before.to_owned(), after.to_owned()),
            _ => {
                let message = format!(
                    "`{}` must be lower-case letters, digits and underscores around one {{source}}",
                    table.schema
                );
                return Err(Wrong::at(&table.schema, message));
            }
        };
        let mut roles = Vec::new();
        for pattern in &table.roles {
            for tenant in self.each(pattern) {
                let name = self.fill(pattern, tenant, None)?;
                let bounded = topology.bounded_roles().any(|role| role.name == name && role.kind != RoleKind::Retired);
                if !bounded {
                    let message = format!("sources are for the role `{name}`, which is not declared, or not for this");
                    return Err(Wrong::at(pattern, message));
                }
                roles.push(name);
            }
        }
        if roles.is_empty() {
            return Err(Wrong::at("[sources]", "`sources` needs the `roles` that use them"));
        }
        Ok(Some(Sources {
            registry: self.table(&table.registry, None, topology)?,
            before,
            after,
            roles,
            access: self.access_set(&table.access)?,
            chains: table.chain.iter().map(|folder| self.fill(folder, None, None)).collect::<Result<_, _>>()?,
            registered: BTreeMap::new(),
        }))
    }

    fn schemas(&self, topology: &mut Topology) -> Result<(), Wrong> {
        for (pattern, table) in &self.declaration.schemas {
            for tenant in self.each(pattern) {
                let name = self.fill(pattern, tenant, None)?;
                schema_name(&name).map_err(|why| Wrong::at(pattern, why))?;
                let schema = Schema {
                    name: name.clone(),
                    tenant: tenant.map(|tenant| tenant.name.clone()),
                    owner_rights: table.owner_rights.iter().cloned().collect(),
                };
                if topology.schemas.insert(name.clone(), schema).is_some() {
                    let message = format!("two entries of `schemas` are both the schema `{name}`");
                    return Err(Wrong::at(pattern, message));
                }
                if topology.retired_schemas.contains(&name) {
                    return Err(Wrong::at(&name, format!("the schema `{name}` is declared and retired")));
                }
            }
        }
        if topology.schemas.is_empty() {
            return Err(Wrong { message: "no schema is declared".to_owned(), word: None });
        }
        Ok(())
    }

    fn roles(&self, topology: &mut Topology) -> Result<(), Wrong> {
        for (pattern, table) in &self.declaration.roles {
            for tenant in self.each(pattern) {
                let role = self.role(pattern, table, tenant, topology)?;
                let name = role.name.clone();
                if let Some(before) = topology.roles.insert(name.clone(), role)
                    && before.kind != RoleKind::Owner
                {
                    return Err(Wrong::at(pattern, format!("two entries of `roles` are both the role `{name}`")));
                } else if name == topology.owner {
                    let message = format!("the role `{name}` is the owner: it needs no entry of its own");
                    return Err(Wrong::at(pattern, message));
                }
            }
        }
        let known: BTreeSet<&String> = topology.roles.keys().collect();
        for role in topology.roles.values() {
            if let Some(unknown) = role.member_of.iter().find(|name| !known.contains(name)) {
                let message = format!("`{}` shall be a member of `{unknown}`, which is not declared", role.name);
                return Err(Wrong::at(unknown, message));
            }
            if let Some(circle) = role.member_of.iter().find(|name| topology.closure(name).contains(role.name.as_str()))
            {
                return Err(Wrong::at(circle, format!("`{}` and `{circle}` are members of each other", role.name)));
            }
            let bounded = !matches!(role.kind, RoleKind::Owner | RoleKind::Migration);
            if bounded
                && let Some(owner) = topology.closure(&role.name).into_iter().find(|name| topology.is_owner(name))
            {
                let message = format!(
                    "the {} role `{}` would be a member of `{owner}`, which owns the schemas",
                    role.kind.word(),
                    role.name
                );
                return Err(Wrong::at(owner, message));
            }
        }
        for name in &self.declaration.retired.roles {
            role_name(name).map_err(|why| Wrong::at(name, why))?;
            let retired = Role {
                name: name.clone(),
                kind: RoleKind::Retired,
                tenant: None,
                password: None,
                member_of: BTreeSet::new(),
                search_path: Vec::new(),
                access: BTreeMap::new(),
            };
            if topology.roles.insert(name.clone(), retired).is_some() {
                return Err(Wrong::at(name, format!("the role `{name}` is declared and retired")));
            }
        }
        Ok(())
    }

    fn role(
        &self,
        pattern: &str,
        table: &RoleTable,
        tenant: Option<&Tenant>,
        topology: &Topology,
    ) -> Result<Role, Wrong> {
        let name = self.fill(pattern, tenant, None)?;
        role_name(&name).map_err(|why| Wrong::at(pattern, why))?;
        let kind = match table.kind {
            RoleKindWord::Migration => RoleKind::Migration,
            RoleKindWord::Runtime => RoleKind::Runtime,
            RoleKindWord::ReadOnly => RoleKind::ReadOnly,
            RoleKindWord::Group => RoleKind::Group,
        };
        let fill_all = |patterns: &[String]| {
            patterns.iter().map(|pattern| self.fill(pattern, tenant, None)).collect::<Result<Vec<_>, _>>()
        };
        let password = match &table.password {
            None => None,
            Some(_) if !kind.logs_in() => {
                return Err(Wrong::at(pattern, format!("`{name}` has a password and does not log in")));
            }
            Some(text) => match Reference::parse(&self.fill(text, tenant, None)?) {
                Reference::Plain(_) => {
                    let message = format!("the password of `{name}` must be a reference: env:NAME, file:path or cmd:…");
                    return Err(Wrong::at("password", message));
                }
                reference => Some(reference),
            },
        };
        let mut member_of: BTreeSet<String> = fill_all(&table.member_of)?.into_iter().collect();
        if kind == RoleKind::Migration {
            member_of.insert(topology.owner.clone());
        }
        let mut access = BTreeMap::new();
        for (schema, set) in &table.access {
            // A role that is not a tenant's may have the same access to every tenant's schema.
            let tenants = if tenant.is_some() { vec![tenant] } else { self.each(schema) };
            for tenant in tenants {
                let schema = self.fill(schema, tenant, None)?;
                if !topology.schemas.contains_key(&schema) {
                    let message = format!("`{name}` shall have access to the schema `{schema}`, which is not declared");
                    return Err(Wrong::at(pattern, message));
                }
                access.insert(schema, self.access_set(set)?);
            }
        }
        Ok(Role {
            name,
            kind,
            tenant: tenant.map(|tenant| tenant.name.clone()),
            password,
            member_of,
            search_path: fill_all(&table.search_path)?,
            access,
        })
    }

    fn access_set(&self, name: &str) -> Result<AccessSet, Wrong> {
        let rules = match (name, self.declaration.access.get(name)) {
            (_, Some(_)) if BUILT_IN.iter().any(|(built_in, _)| *built_in == name) => {
                return Err(Wrong::at(
                    &format!("access.{name}"),
                    format!("the access set `{name}` is built in: give yours another name"),
                ));
            }
            (_, Some(table)) => rules(name, table)?,
            (_, None) if built_in(name).is_some() => built_in(name).unwrap_or_default(),
            (_, None) => {
                let mut known: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                known.extend(self.declaration.access.keys().map(String::as_str));
                return Err(Wrong::at(
                    name,
                    format!("there is no access set `{name}`: there are {}", known.join(", ")),
                ));
            }
        };
        Ok(AccessSet { name: name.to_owned(), rules })
    }

    fn row_security(&self, topology: &mut Topology) -> Result<(), Wrong> {
        for (name, table) in &self.declaration.rls {
            plain_name(name).map_err(|why| Wrong::at(name, format!("the name of `rls.{name}` {why}")))?;
            let row_security = self.one_row_security(name, table, topology)?;
            // A policy's expression runs with the rights of whoever asks.
            let guard = Objects::Named { name: format!("{}()", row_security.guard.name), columns: BTreeSet::new() };
            for role in &row_security.roles {
                let access = topology.roles.get_mut(role).map(|role| &mut role.access);
                let set = access.map(|access| access.entry(row_security.guard.schema.clone()));
                let set =
                    set.map(|set| set.or_insert_with(|| AccessSet { name: "guard".to_owned(), rules: Vec::new() }));
                if let Some(set) = set {
                    set.rules.push(Rule { privilege: Privilege::Execute, objects: guard.clone() });
                }
            }
            topology.row_security.push(row_security);
        }
        Ok(())
    }

    fn one_row_security(
        &self,
        name: &str,
        table: &RowSecurityTable,
        topology: &Topology,
    ) -> Result<RowSecurity, Wrong> {
        let mut roles = Vec::new();
        for pattern in &table.roles {
            for tenant in self.each(pattern) {
                let role = self.fill(pattern, tenant, None)?;
                if !topology.roles.contains_key(&role) {
                    return Err(Wrong::at(
                        pattern,
                        format!("`rls.{name}` is for the role `{role}`, which is not declared"),
                    ));
                }
                roles.push(role);
            }
        }
        let is_setting = table.setting.split_once('.').is_some_and(|(class, name)| word(class) && word(name));
        if !is_setting {
            let message =
                format!("`{}` is no name of an own setting: it needs a class, as in app.tenant", table.setting);
            return Err(Wrong::at(&table.setting, message));
        }
        // A type's name is written into SQL as it is: `uuid`, `character varying`, `app.tenant_id`.
        let is_type = table.type_name.split(['.', ' ']).all(word);
        if !is_type {
            return Err(Wrong::at(&table.type_name, format!("`{}` is no name of a type", table.type_name)));
        }
        plain_name(&table.column).map_err(|why| Wrong::at(&table.column, format!("the column's name {why}")))?;
        Ok(RowSecurity {
            name: name.to_owned(),
            tables: self.tables(&table.tables, topology)?,
            column: table.column.clone(),
            setting: table.setting.clone(),
            type_name: table.type_name.clone(),
            guard: self.table(table.guard.trim_end_matches("()"), None, topology)?,
            without: match table.without {
                WithoutWord::Error => WithoutContext::Error,
                WithoutWord::Hidden => WithoutContext::Hidden,
            },
            roles,
            force: table.force,
            pooler: table.pooler.clone(),
        })
    }

    fn append_only(&self, topology: &mut Topology) -> Result<(), Wrong> {
        let mut found: BTreeMap<Table, Option<Status>> =
            self.tables(&self.declaration.append_only, topology)?.into_iter().map(|table| (table, None)).collect();
        for status in &self.declaration.status {
            plain_name(&status.column).map_err(|why| Wrong::at(&status.column, format!("the column's name {why}")))?;
            for table in self.tables(std::slice::from_ref(&status.table), topology)? {
                let moves = Status { column: status.column.clone(), from: status.from.clone(), to: status.to.clone() };
                if found.insert(table.clone(), Some(moves)).flatten().is_some() {
                    return Err(Wrong::at(&status.table, format!("`status` has {table} twice")));
                }
            }
        }
        topology.append_only = found.into_iter().map(|(table, status)| AppendOnly { table, status }).collect();
        Ok(())
    }

    fn tables(&self, patterns: &[String], topology: &Topology) -> Result<Vec<Table>, Wrong> {
        let mut found = Vec::new();
        for pattern in patterns {
            for tenant in self.each(pattern) {
                found.push(self.table(pattern, tenant, topology)?);
            }
        }
        Ok(found)
    }

    fn table(&self, pattern: &str, tenant: Option<&Tenant>, topology: &Topology) -> Result<Table, Wrong> {
        let text = self.fill(pattern, tenant, None)?;
        let Some((schema, name)) = text.split_once('.') else {
            return Err(Wrong::at(pattern, format!("`{pattern}` names no schema: write schema.name")));
        };
        if !topology.schemas.contains_key(schema) {
            return Err(Wrong::at(pattern, format!("`{pattern}`: the schema `{schema}` is not declared")));
        }
        plain_name(name).map_err(|why| Wrong::at(pattern, format!("the name in `{pattern}` {why}")))?;
        Ok(Table { schema: schema.to_owned(), name: name.to_owned() })
    }

    fn chains(&self, topology: &mut Topology) -> Result<(), Wrong> {
        let mut common = Vec::new();
        let mut own: BTreeMap<&str, Vec<ChainUse>> = BTreeMap::new();
        for table in &self.declaration.chain {
            let both = format!("{} {}", table.folder, table.schema);
            for tenant in self.each(&both) {
                let modules: Vec<Option<&str>> = match (table.folder.contains("{module}"), tenant) {
                    (false, _) => vec![None],
                    (true, Some(tenant)) => tenant.modules.iter().map(|module| Some(module.as_str())).collect(),
                    (true, None) => {
                        let message = "a chain of modules needs a schema with {tenant}: the roster says who has which";
                        return Err(Wrong::at(&table.folder, message));
                    }
                };
                for module in modules {
                    let chain = self.one_chain(table, tenant, module, topology)?;
                    match tenant {
                        None => common.push(chain),
                        Some(tenant) => own.entry(&tenant.name).or_default().push(chain),
                    }
                }
            }
        }
        // What all share comes first: a tenant's tables may refer to it.
        topology.chains = common;
        for tenant in &self.tenants {
            topology.chains.extend(own.remove(tenant.name.as_str()).unwrap_or_default());
        }
        Ok(())
    }

    fn one_chain(
        &self,
        table: &ChainTable,
        tenant: Option<&Tenant>,
        module: Option<&str>,
        topology: &Topology,
    ) -> Result<ChainUse, Wrong> {
        let schema = self.fill(&table.schema, tenant, None)?;
        if !topology.schemas.contains_key(&schema) {
            let message = format!("the chain {} is for the schema `{schema}`, which is not declared", table.folder);
            return Err(Wrong::at(&table.folder, message));
        }
        let layer = match module {
            Some(module) => format!("module {module}"),
            None if table.folder.contains("{tenant}") => "tenant".to_owned(),
            None => "core".to_owned(),
        };
        Ok(ChainUse {
            folder: self.fill(&table.folder, tenant, module)?,
            schema,
            tenant: tenant.map(|tenant| tenant.name.clone()),
            layer,
            optional: table.optional,
        })
    }
}

/// The rules of an access set that need not be declared.
pub(super) fn built_in(name: &str) -> Option<Vec<Rule>> {
    use Privilege::{Delete, Execute, Insert, Select, Update, Usage};
    let every = |privilege, kinds| Rule { privilege, objects: Objects::Every(kinds) };
    Some(match name {
        "all" => vec![
            every(Select, RELATIONS),
            every(Insert, RELATIONS),
            every(Update, RELATIONS),
            every(Delete, RELATIONS),
            every(Usage, SEQUENCES),
            every(Select, SEQUENCES),
            every(Execute, ROUTINES),
            every(Usage, TYPES),
        ],
        "select" => vec![every(Select, RELATIONS)],
        "views" => vec![every(Select, VIEWS)],
        "usage" => Vec::new(),
        _ => return None,
    })
}

/// The rules of an access set that is declared.
fn rules(set: &str, table: &BTreeMap<String, Vec<String>>) -> Result<Vec<Rule>, Wrong> {
    let mut rules = Vec::new();
    for (word, objects) in table {
        let Some(privilege) = Privilege::parse(word) else {
            return Err(Wrong::at(word, format!("the access set `{set}` has `{word}`, which is no privilege")));
        };
        for object in objects {
            let kinds = match privilege {
                Privilege::Select
                | Privilege::Insert
                | Privilege::Update
                | Privilege::Delete
                | Privilege::Truncate
                | Privilege::References
                | Privilege::Trigger => RELATIONS,
                Privilege::Usage => SEQUENCES,
                Privilege::Execute => ROUTINES,
                _ => {
                    let message =
                        format!("{privilege} is not given in an access set: it is not of an object in a schema");
                    return Err(Wrong::at(word, message));
                }
            };
            let objects = match object.as_str() {
                "*" => Objects::Every(kinds),
                text => named(text, privilege).map_err(|why| Wrong::at(object, format!("`{object}` {why}")))?,
            };
            rules.push(Rule { privilege, objects });
        }
    }
    Ok(rules)
}

/// `contacts`, `contacts(phone, note)` for columns, `register(text, integer)` for functions.
fn named(text: &str, privilege: Privilege) -> Result<Objects, String> {
    let text = text.trim();
    if privilege == Privilege::Execute {
        return match text.split_once('(') {
            Some((name, arguments)) if arguments.ends_with(')') && !name.is_empty() => {
                let arguments: Vec<&str> =
                    arguments.trim_end_matches(')').split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
                Ok(Objects::Named { name: format!("{name}({})", arguments.join(", ")), columns: BTreeSet::new() })
            }
            _ => Err("names no arguments: a function is told by them, as in register(text, integer)".to_owned()),
        };
    }
    match text.split_once('(') {
        None => {
            plain_name(text)?;
            Ok(Objects::Named { name: text.to_owned(), columns: BTreeSet::new() })
        }
        Some((name, columns)) => {
            let columns: BTreeSet<String> =
                columns.trim_end_matches(')').split(',').map(|one| one.trim().to_owned()).collect();
            let of_columns =
                matches!(privilege, Privilege::Select | Privilege::Insert | Privilege::Update | Privilege::References);
            if !of_columns {
                return Err(format!("has columns, and {privilege} is not given by column"));
            }
            for column in &columns {
                plain_name(column)?;
            }
            plain_name(name.trim())?;
            Ok(Objects::Named { name: name.trim().to_owned(), columns })
        }
    }
}

fn exception(table: &ExceptionTable) -> Result<Exception, Wrong> {
    let may = table
        .may
        .iter()
        .map(|word| Privilege::parse(word).ok_or_else(|| Wrong::at(word, format!("`{word}` is no privilege"))))
        .collect::<Result<Vec<_>, _>>()?;
    if table.why.trim().is_empty() {
        return Err(Wrong::at(&table.on, format!("the exception on {} needs a reason: `why`", table.on)));
    }
    if !table.on.contains('.') {
        return Err(Wrong::at(&table.on, format!("`{}` names no schema: write schema.name or schema.*", table.on)));
    }
    let until = match &table.until {
        None => None,
        Some(value) => {
            let parsed = value.to_string().get(..10).and_then(|date| date.parse::<Date>().ok());
            Some(parsed.ok_or_else(|| Wrong::at("until", format!("`until = {value}` is no date")))?)
        }
    };
    Ok(Exception { role: table.role.clone(), on: table.on.clone(), may, why: table.why.clone(), until })
}

/// Whether a tenant's or module's name is one that can be part of every name that is made of it.
fn tenant_name(name: &str) -> Result<(), String> {
    if !word(name) {
        return Err(format!(
            "the tenant name {name:?} must be lower-case letters, digits and underscores, beginning with a letter"
        ));
    }
    schema_name(name).map_err(|_| format!("the tenant name `{name}` is reserved or longer than {NAME_BYTES} bytes"))
}

/// `[a-z_][a-z0-9_]*`
pub(super) fn word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A name that PostgreSQL takes, and does not cut.
fn plain_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    if name.len() > NAME_BYTES {
        return Err(format!("{name:?} has {} bytes, and PostgreSQL keeps {NAME_BYTES}", name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err(format!("{name:?} holds a control character"));
    }
    Ok(())
}

pub(super) fn schema_name(name: &str) -> Result<(), String> {
    plain_name(name).map_err(|why| format!("the schema's name {why}"))?;
    if name.starts_with("pg_") || RESERVED.contains(&name) {
        return Err(format!("the schema name `{name}` is reserved"));
    }
    Ok(())
}

fn role_name(name: &str) -> Result<(), String> {
    plain_name(name).map_err(|why| format!("the role's name {why}"))?;
    if name.starts_with("pg_") || matches!(name, "public" | "none" | "postgres") {
        return Err(format!("the role name `{name}` is reserved"));
    }
    Ok(())
}

fn at<'v>(value: &'v toml::Value, key: &str) -> Option<&'v toml::Value> {
    key.split('.').try_fold(value, |value, part| value.get(part))
}

fn string_at<'v>(value: &'v toml::Value, key: &str) -> Option<&'v str> {
    at(value, key).and_then(toml::Value::as_str)
}

/// The files that a path with one `*` stands for, sorted.
fn matching(root: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let Some((before, after)) = pattern.split_once("*/") else {
        return Err(format!("the roster `{pattern}` must have a folder `*` in it, as in roster/*/butler.toml"));
    };
    let folder = root.join(before);
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{before} cannot be read: {error}"))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("{before} cannot be read: {error}"))?.path().join(after);
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
