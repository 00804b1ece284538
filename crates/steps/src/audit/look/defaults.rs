//! Default privileges: what becomes of objects that do not exist yet. They hang on whoever creates.

use std::collections::{BTreeMap, BTreeSet};

use super::Look;
use crate::audit::catalog::{Class, Oid, PUBLIC};
use crate::audit::finding::{Finding, Severity};
use crate::audit::sql::ident;
use crate::topology::{Kind, Object, Privilege, Topology};

/// An object that does not exist yet: a name that no declaration can give.
fn later(schema: &str, kind: Kind) -> Object {
    Object { schema: schema.to_owned(), name: "\0".to_owned(), kind }
}

/// `pg_default_acl.defaclobjtype`, its keyword, and what is created by it.
const CLASSES: &[(char, &str, &[Kind])] = &[
    // A default for tables is for views too.
    ('r', "TABLES", &[Kind::Table, Kind::View]),
    ('S', "SEQUENCES", &[Kind::Sequence]),
    ('f', "FUNCTIONS", &[Kind::Function]),
    ('T', "TYPES", &[Kind::Type]),
];

pub fn look(look: &mut Look<'_>) {
    look.given();
    look.creators();
}

impl Look<'_> {
    /// Roles that may create in a declared schema. Superusers may everywhere; that everybody may is told of as a grant.
    fn may_create(&self) -> BTreeMap<Oid, BTreeSet<String>> {
        let mut found: BTreeMap<Oid, BTreeSet<String>> = BTreeMap::new();
        let schemas: Vec<_> =
            self.catalog.schemas.values().filter(|one| self.reach.is_declared_schema(&one.name)).collect();
        for role in self.catalog.roles.values().filter(|role| !role.superuser && !role.name.starts_with("pg_")) {
            for schema in &schemas {
                // Without doing anything: who says SET ROLE creates as that role.
                let itself = |oid: Oid| {
                    oid == role.oid
                        || self.reach.way(role.oid, oid).is_some_and(|way| way.hops.iter().all(|hop| hop.inherit))
                };
                let creates = itself(schema.owner)
                    || self
                        .reach
                        .grants_on(Class::Schema, schema.oid)
                        .any(|entry| entry.privilege == Privilege::Create && itself(entry.grantee));
                if creates {
                    found.entry(role.oid).or_default().insert(schema.name.clone());
                }
            }
        }
        found
    }

    /// Defaults that give more than is declared.
    fn given(&mut self) {
        let creators = self.may_create();
        let mut groups: BTreeMap<(Oid, Oid, char, Oid), BTreeSet<Privilege>> = BTreeMap::new();
        for one in &self.catalog.defaults {
            let Some((grantee, privilege)) = one.given else { continue };
            let creates = creators.contains_key(&one.creator)
                || self.topology.creators.contains(&self.catalog.role_name(one.creator));
            if !creates || grantee == one.creator {
                continue;
            }
            let Some((_, _, kinds)) = CLASSES.iter().find(|(class, ..)| *class == one.class) else { continue };
            let name = self.catalog.role_name(grantee);
            let places: Vec<String> = match self.catalog.schemas.get(&one.schema) {
                Some(schema) => vec![schema.name.clone()],
                None => self.topology.schemas.keys().cloned().collect(),
            };
            if places.iter().any(|place| !self.reach.is_known_schema(place)) {
                continue;
            }
            let by_default = one.schema == 0
                && grantee == PUBLIC
                && matches!((one.class, privilege), ('f', Privilege::Execute) | ('T', Privilege::Usage));
            let allowed = places
                .iter()
                .all(|place| kinds.iter().all(|kind| self.reach.allows(&name, &later(place, *kind), None, privilege)));
            if !by_default && !allowed {
                groups.entry((one.creator, one.schema, one.class, grantee)).or_default().insert(privilege);
            }
        }
        for ((creator, schema, class, grantee), privileges) in groups {
            let Some((_, word, _)) = CLASSES.iter().find(|(known, ..)| *known == class) else { continue };
            let place = self.catalog.schemas.get(&schema).map(|schema| schema.name.clone());
            let object =
                place.clone().map_or_else(|| format!("later {}", word.to_lowercase()), |name| format!("{name}.*"));
            let words = privileges.iter().map(|one| one.sql()).collect::<Vec<_>>().join(", ");
            let (creator, role) = (self.catalog.role_name(creator), self.catalog.role_name(grantee));
            let within = place.map_or_else(String::new, |name| format!(" IN SCHEMA {}", ident(&name)));
            let to = self.catalog.grantee_sql(grantee);
            self.put(Finding {
                rule: "default-privilege",
                severity: Severity::Error,
                path: format!("`{creator}` creates in `{object}` -> `{role}` -> {words}"),
                message: format!(
                    "what {creator} creates later{within} gives {words} on {} to {role}",
                    word.to_lowercase()
                ),
                role,
                object,
                mend: Some(format!(
                    "ALTER DEFAULT PRIVILEGES FOR ROLE {}{within} REVOKE {words} ON {word} FROM {to};",
                    ident(&creator)
                )),
            });
        }
    }

    fn creators(&mut self) {
        let able = self.may_create();
        for (creator, schemas) in &able {
            let name = self.catalog.role_name(*creator);
            if self.topology.creators.contains(&name) {
                self.functions_for_all(*creator, &name);
                for schema in schemas {
                    self.missing(*creator, &name, schema);
                }
                continue;
            }
            // A migration role's sessions act as the owner: what it creates is not its own.
            let acts_as_owner = self.catalog.settings.iter().any(|one| {
                one.role == *creator
                    && one.name == "role"
                    && self.topology.creators.contains(&one.value)
                    && (one.database == 0 || self.is_current(one.database))
            });
            let own_defaults = self.catalog.defaults.iter().any(|one| one.creator == *creator && one.given.is_some());
            let bounded = self.topology.bounded_roles().any(|one| one.name == name);
            // That a bounded role may create at all is told of with its grants.
            if acts_as_owner || own_defaults || bounded || name == self.catalog.session_user {
                continue;
            }
            let shown: Vec<&String> = schemas.iter().collect();
            let database = ident(&self.catalog.database);
            let migrates = self.topology.is_owner(&name);
            self.put(Finding {
                rule: "uncovered-creator",
                severity: Severity::Warning,
                role: name.clone(),
                object: super::listed(&shown),
                path: format!("`{name}` -> CREATE in `{}` -> objects of its own", super::listed(&shown)),
                message: format!(
                    "what {name} creates is its own, and no role is given what is declared: it has no default privileges, and \
                     does not act as {}",
                    self.topology.owner
                ),
                mend: migrates.then(|| {
                    format!("ALTER ROLE {} IN DATABASE {database} SET role = {};", ident(&name), crate::audit::sql::literal(&self.topology.owner))
                }),
            });
        }
    }

    pub(super) fn is_current(&self, database: Oid) -> bool {
        self.catalog.databases.iter().any(|one| one.oid == database && one.current)
    }

    /// Without a row for every schema the built-in default holds, and no row for one schema can take it back.
    fn functions_for_all(&mut self, creator: Oid, name: &str) {
        let mut rows = self
            .catalog
            .defaults
            .iter()
            .filter(|one| one.creator == creator && one.schema == 0 && one.class == 'f')
            .peekable();
        let stored = rows.peek().is_some();
        let open = rows.any(|one| one.given.is_some_and(|(grantee, _)| grantee == PUBLIC));
        if stored && !open {
            return;
        }
        self.put(Finding {
            rule: "public-execute-default",
            severity: Severity::Warning,
            role: "PUBLIC".to_owned(),
            object: "later functions".to_owned(),
            path: format!("`{name}` creates a function -> `PUBLIC` -> EXECUTE"),
            message: format!("everybody may execute the functions that {name} creates later"),
            mend: Some(format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;",
                ident(name)
            )),
        });
    }

    /// Defaults that a declared access needs and a creator does not have.
    fn missing(&mut self, creator: Oid, name: &str, schema: &str) {
        let mut statements = Vec::new();
        let mut roles = BTreeSet::new();
        for (role, word, privileges) in wanted(self.topology, schema) {
            let Some(grantee) = self.catalog.role(role) else { continue };
            let class = CLASSES.iter().find(|(_, known, _)| *known == word).map_or(' ', |(class, ..)| *class);
            let has = |privilege: &Privilege| {
                self.catalog.defaults.iter().any(|one| {
                    one.creator == creator
                        && one.class == class
                        && one.given == Some((grantee.oid, *privilege))
                        && (one.schema == 0 || self.catalog.schema_name(one.schema) == schema)
                })
            };
            let missing: Vec<&str> =
                privileges.iter().filter(|privilege| !has(privilege)).map(|privilege| privilege.sql()).collect();
            if !missing.is_empty() {
                roles.insert(role);
                statements.push(format!(
                    "ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} GRANT {} ON {word} TO {};",
                    ident(name),
                    ident(schema),
                    missing.join(", "),
                    ident(role)
                ));
            }
        }
        if statements.is_empty() {
            return;
        }
        let roles: Vec<&str> = roles.into_iter().collect();
        self.put(Finding {
            rule: "default-privilege-missing",
            severity: Severity::Warning,
            role: name.to_owned(),
            object: format!("{schema}.*"),
            path: format!("`{name}` creates in `{schema}` -> nothing for `{}`", super::listed(&roles)),
            message: format!(
                "what {name} creates later in {schema} is not given to {}, as declared",
                super::listed(&roles)
            ),
            mend: Some(statements.join(" ")),
        });
    }
}

/// The privileges on later objects of a schema that are declared: role, keyword, privileges.
fn wanted<'a>(topology: &'a Topology, schema: &str) -> Vec<(&'a str, &'static str, Vec<Privilege>)> {
    let mut found = Vec::new();
    for role in topology.bounded_roles() {
        let Some(set) = role.access.get(schema) else { continue };
        for (_, word, kinds) in CLASSES {
            let gives = |privilege: &Privilege| kinds.iter().all(|kind| set.gives(&later(schema, *kind), *privilege));
            let privileges: Vec<Privilege> = Privilege::ALL.into_iter().filter(gives).collect();
            if !privileges.is_empty() {
                found.push((role.name.as_str(), *word, privileges));
            }
        }
    }
    found
}
