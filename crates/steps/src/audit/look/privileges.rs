//! Grants on everything that has an ACL, and how they are had: directly, by PUBLIC, by membership; and grant options.

use std::collections::{BTreeMap, BTreeSet};

use super::{Look, listed};
use crate::audit::catalog::{BOOTSTRAP, Class, Entry, NamedEntry, Oid, PUBLIC};
use crate::audit::finding::{Finding, Severity};
use crate::audit::reach::{How, Standing, Subject, Way};
use crate::audit::sql::{ident, is_like};
use crate::topology::{Kind, Object, Privilege, RoleKind};

pub fn look(look: &mut Look<'_>) {
    let reach = look.reach;
    for subject in &reach.subjects {
        let mut groups: BTreeMap<Key, Group<'_>> = BTreeMap::new();
        for entry in reach.grants_to(subject.oid) {
            look.weigh(subject, entry, None, &mut groups);
        }
        for (oid, way) in reach.ways(subject.oid) {
            // Nothing is owned by everybody, and what a declared group has is told of the group.
            if reach.told_there(way) || look.catalog.roles.get(&oid).is_some_and(|role| role.superuser) {
                continue;
            }
            for entry in reach.grants_to(oid) {
                look.weigh(subject, entry, Some(way), &mut groups);
            }
        }
        look.tell(subject, groups);
        for entry in &look.catalog.named_acl {
            look.named(subject, entry);
        }
        look.options(subject);
        look.databases(subject);
    }
    look.together();
}

/// What is told together: the privileges on one object, had in one way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    class: Class,
    object: Oid,
    columns: bool,
    via: Oid,
}

struct Group<'a> {
    entries: Vec<&'a Entry>,
    way: Option<&'a Way>,
    severity: Severity,
}

/// What an entry is of, for people and for SQL.
struct Thing {
    object: Option<Object>,
    schema: Oid,
    shown: String,
    /// `TABLE a.b`
    sql: String,
    owner: Oid,
    rule: &'static str,
}

impl<'a> Look<'a> {
    fn thing(&self, class: Class, oid: Oid) -> Option<Thing> {
        let catalog = self.catalog;
        Some(match class {
            Class::Relation => {
                let one = catalog.relations.get(&oid)?;
                let sequence = one.object.kind == Kind::Sequence;
                Thing {
                    object: Some(one.object.clone()),
                    schema: one.schema,
                    shown: one.object.to_string(),
                    sql: format!("{} {}", one.object.kind.grant_word(), one.sql()),
                    owner: one.owner,
                    rule: if sequence { "sequence-grant" } else { "table-grant" },
                }
            }
            Class::Routine => {
                let one = catalog.routines.get(&oid)?;
                Thing {
                    object: Some(one.object.clone()),
                    schema: one.schema,
                    shown: one.object.to_string(),
                    sql: format!("{} {}", one.object.kind.grant_word(), one.sql()),
                    owner: one.owner,
                    rule: "function-grant",
                }
            }
            Class::Type => {
                let one = catalog.types.get(&oid)?;
                Thing {
                    object: Some(one.object.clone()),
                    schema: one.schema,
                    shown: one.object.to_string(),
                    sql: format!("TYPE {}.{}", ident(&one.object.schema), ident(&one.object.name)),
                    owner: one.owner,
                    rule: "type-grant",
                }
            }
            Class::Schema => {
                let one = catalog.schemas.get(&oid)?;
                Thing {
                    object: None,
                    schema: oid,
                    shown: one.name.clone(),
                    sql: format!("SCHEMA {}", ident(&one.name)),
                    owner: one.owner,
                    rule: "schema-grant",
                }
            }
            // Looked at by itself.
            Class::Database => return None,
        })
    }

    /// Whether an entry is one that the declaration does not know, and how bad that is.
    fn weigh(&self, subject: &Subject, entry: &'a Entry, way: Option<&'a Way>, groups: &mut BTreeMap<Key, Group<'a>>) {
        let Some(severity) = self.severity(subject, entry) else { return };
        let key = Key { class: entry.class, object: entry.object, columns: entry.column.is_some(), via: entry.grantee };
        let group = groups.entry(key).or_insert_with(|| Group { entries: Vec::new(), way, severity });
        group.severity = group.severity.max(severity);
        group.entries.push(entry);
    }

    fn severity(&self, subject: &Subject, entry: &Entry) -> Option<Severity> {
        let (reach, catalog) = (self.reach, self.catalog);
        let column = entry.column.as_deref();
        let thing = self.thing(entry.class, entry.object)?;
        let schema = catalog.schema_name(thing.schema);
        let known = reach.is_known_schema(schema);
        if entry.class == Class::Schema {
            return self.of_schema(subject, entry, schema, known);
        }
        let object = thing.object.as_ref()?;
        if reach.allows(&subject.name, object, column, entry.privilege) {
            return None;
        }
        if entry.class == Class::Type {
            // PostgreSQL gives it to everybody, and it opens nothing by itself.
            let given = subject.standing == Standing::Public || (!known && subject.standing == Standing::Undeclared);
            return (!given).then_some(Severity::Warning);
        }
        match subject.standing {
            // What somebody else has outside of the declared schemas is nobody's declaration.
            Standing::Undeclared if !known => None,
            Standing::Undeclared | Standing::Bounded(_) => {
                let real = reach.sees(subject.oid, thing.schema) && self.comes_in(subject);
                Some(if real { Severity::Error } else { Severity::Warning })
            }
            Standing::Public if known => {
                let reaches = |one: &Subject| {
                    reach.sees(one.oid, thing.schema) && !reach.allows(&one.name, object, column, entry.privilege)
                };
                let harmless = catalog.routines.get(&entry.object).is_some_and(|one| one.trigger && !one.definer);
                let real = !harmless && reach.subjects.iter().any(reaches);
                Some(if real { Severity::Error } else { Severity::Warning })
            }
            // A function that runs with its caller's rights opens nothing; others are looked at with what they do.
            Standing::Public if entry.class == Class::Routine => None,
            Standing::Public => reach.sees(PUBLIC, thing.schema).then_some(Severity::Warning),
        }
    }

    /// Whether somebody gets into this database: of bounded roles the declaration says so.
    fn comes_in(&self, subject: &Subject) -> bool {
        subject.standing != Standing::Undeclared || self.reach.connects(subject.oid)
    }

    fn of_schema(&self, subject: &Subject, entry: &Entry, schema: &str, known: bool) -> Option<Severity> {
        let bounded = matches!(subject.standing, Standing::Bounded(_));
        match entry.privilege {
            Privilege::Usage if !known => None,
            Privilege::Usage => {
                let declared = self.reach.is_declared_schema(schema)
                    && self.topology.uses_schema(&subject.name, schema, self.reach.today);
                (!declared).then_some(Severity::Error)
            }
            // In `public` everybody may create before 15: names can be made to mean something else.
            _ if known => Some(Severity::Error),
            _ if bounded || subject.standing == Standing::Public => Some(Severity::Warning),
            _ => None,
        }
    }

    fn tell(&mut self, subject: &Subject, groups: BTreeMap<Key, Group<'a>>) {
        // What a membership opens in a schema is told once, whatever the number of objects.
        let mut by_membership: BTreeMap<(Oid, Oid), Vec<(Key, Group<'a>)>> = BTreeMap::new();
        for (key, group) in groups {
            let Some(thing) = self.thing(key.class, key.object) else { continue };
            match group.way {
                Some(_) => by_membership.entry((key.via, thing.schema)).or_default().push((key, group)),
                None => self.tell_one(subject, &key, &group, &thing),
            }
        }
        for ((_, schema), found) in by_membership {
            if found.len() <= 3 {
                for (key, group) in &found {
                    if let Some(thing) = self.thing(key.class, key.object) {
                        self.tell_one(subject, key, group, &thing);
                    }
                }
                continue;
            }
            let Some(way) = found[0].1.way else { continue };
            let schema = self.catalog.schema_name(schema).to_owned();
            let Some(first) = self.thing(found[0].0.class, found[0].0.object) else { continue };
            let worst = found.iter().map(|(_, group)| group.severity).max().unwrap_or(Severity::Warning);
            let path = self.reach.way_text(&subject.name, way);
            let words = privileges(&found[0].1.entries);
            self.put(Finding {
                rule: first.rule,
                severity: worst,
                role: subject.name.clone(),
                object: format!("{schema}.*"),
                path: format!("{path} -> {words} on `{}`, and on {} more in `{schema}`", first.shown, found.len() - 1),
                message: format!("{} may use {} things in `{schema}`{}", subject.name, found.len(), after(way)),
                mend: Some(self.end_of(way)),
            });
        }
    }

    fn tell_one(&mut self, subject: &Subject, key: &Key, group: &Group<'_>, thing: &Thing) {
        let columns: BTreeSet<&str> = group.entries.iter().filter_map(|entry| entry.column.as_deref()).collect();
        let columns: Vec<&str> = columns.into_iter().collect();
        let object = match columns.as_slice() {
            [] => thing.shown.clone(),
            some => format!("{}({})", thing.shown, some.join(", ")),
        };
        let words = privileges(&group.entries);
        let path = match group.way {
            Some(way) => self.reach.way_text(&subject.name, way),
            None => format!("`{}`", subject.name),
        };
        let who = match subject.standing {
            Standing::Public => "everybody".to_owned(),
            Standing::Undeclared => format!("{}, of which the declaration does not speak,", subject.name),
            Standing::Bounded(kind) => format!("the {} role {}", kind.word(), subject.name),
        };
        let latent = match group.severity {
            Severity::Error => String::new(),
            _ if key.class == Class::Schema || key.class == Class::Type => String::new(),
            _ if subject.oid == PUBLIC => "; no bounded role gains by it now".to_owned(),
            _ if !self.comes_in(subject) => "; it may not connect to this database now".to_owned(),
            _ => format!("; it cannot be used until USAGE of `{}` comes too", self.catalog.schema_name(thing.schema)),
        };
        let how = group.way.map_or_else(String::new, after);
        let mend = match group.way {
            Some(way) => self.end_of(way),
            None => self.revoke(&group.entries, thing),
        };
        self.put(Finding {
            rule: if key.columns { "column-grant" } else { thing.rule },
            severity: group.severity,
            role: subject.name.clone(),
            path: format!("{path} -> {words} on `{object}`"),
            message: format!("{who} has {words} on `{object}`{how}, which is not declared{latent}"),
            object,
            mend: Some(mend),
        });
    }

    /// The statements that take entries back: each as its grantor, since a superuser's REVOKE acts as the owner and leaves
    /// those of others; and first what was passed on.
    fn revoke(&self, entries: &[&Entry], thing: &Thing) -> String {
        let mut statements = Vec::new();
        for entry in entries {
            self.revoke_one(entry, thing, false, &mut statements, &mut BTreeSet::new());
        }
        statements.dedup();
        statements.join(" ")
    }

    fn revoke_one(
        &self,
        entry: &Entry,
        thing: &Thing,
        option_only: bool,
        statements: &mut Vec<String>,
        seen: &mut BTreeSet<(Oid, Oid)>,
    ) {
        if !seen.insert((entry.grantor, entry.grantee)) {
            return;
        }
        let passed_on = self.reach.grants_on(entry.class, entry.object).filter(|one| {
            entry.grantable
                && one.grantor == entry.grantee
                && one.privilege == entry.privilege
                && one.column == entry.column
        });
        let column = entry.column.as_deref().map_or_else(String::new, |column| format!(" ({})", ident(column)));
        let privilege = entry.privilege.sql();
        for one in passed_on {
            let name = self.catalog.role_name(one.grantee);
            let keeps = thing
                .object
                .as_ref()
                .is_some_and(|object| self.reach.allows(&name, object, one.column.as_deref(), one.privilege));
            if keeps {
                statements.push(format!("GRANT {privilege}{column} ON {} TO {};", thing.sql, ident(&name)));
            }
            self.revoke_one(one, thing, false, statements, seen);
        }
        let option = if option_only { "GRANT OPTION FOR " } else { "" };
        let to = self.catalog.grantee_sql(entry.grantee);
        let revoke = format!("REVOKE {option}{privilege}{column} ON {} FROM {to};", thing.sql);
        if entry.grantor == thing.owner {
            statements.push(revoke);
        } else {
            let grantor = self.catalog.grantee_sql(entry.grantor);
            statements.push(format!("SET ROLE {grantor}; {revoke} RESET ROLE;"));
        }
    }

    /// The statement that ends a membership: the first that is not declared.
    pub(super) fn end_of(&self, way: &Way) -> String {
        let hop = way.hops.iter().find(|hop| !self.reach.is_declared(hop)).or(way.hops.first());
        let Some(hop) = hop else { return String::new() };
        let all = self.catalog.members.iter().filter(|one| one.member == hop.member && one.of == hop.of);
        let statements: Vec<String> = all.map(|one| self.end_of_membership(one, "")).collect();
        statements.join(" ")
    }

    /// From 16 on a membership has one entry for each grantor.
    pub(super) fn end_of_membership(&self, one: &crate::audit::catalog::Member, option: &str) -> String {
        let by = match self.catalog.version >= 160_000 {
            true => format!(" GRANTED BY {}", self.catalog.grantee_sql(one.grantor)),
            false => String::new(),
        };
        let (of, member) = (self.catalog.grantee_sql(one.of), self.catalog.grantee_sql(one.member));
        format!("REVOKE {option}{of} FROM {member}{by};")
    }

    fn options(&mut self, subject: &Subject) {
        if subject.oid == PUBLIC {
            return;
        }
        for entry in self.reach.grants_to(subject.oid).filter(|entry| entry.grantable) {
            let Some(thing) = self.thing(entry.class, entry.object) else { continue };
            let known = self.reach.is_known_schema(self.catalog.schema_name(thing.schema));
            if !known && subject.standing == Standing::Undeclared {
                continue;
            }
            let column = entry.column.as_deref().map_or_else(String::new, |column| format!("({column})"));
            let mut statements = Vec::new();
            self.revoke_one(entry, &thing, true, &mut statements, &mut BTreeSet::new());
            let (privilege, shown) = (entry.privilege, format!("{}{column}", thing.shown));
            self.put(Finding {
                rule: "grant-option",
                severity: Severity::Error,
                role: subject.name.clone(),
                path: format!("`{}` -> {privilege} on `{shown}` WITH GRANT OPTION", subject.name),
                message: format!("{} may pass {privilege} on `{shown}` on to anybody", subject.name),
                object: shown,
                mend: Some(statements.join(" ")),
            });
        }
    }

    fn named(&mut self, subject: &Subject, entry: &NamedEntry) {
        let way = match entry.grantee == subject.oid {
            true => None,
            false => match self.reach.way(subject.oid, entry.grantee) {
                Some(way) if !self.reach.told_there(way) => Some(way),
                _ => return,
            },
        };
        let system = entry.schema.is_some() || entry.word == "SCHEMA";
        let (rule, severity) = match entry.word.as_str() {
            "LANGUAGE" => ("language-grant", Severity::Warning),
            "TABLESPACE" => ("tablespace-grant", Severity::Warning),
            "LARGE OBJECT" => ("large-object-grant", Severity::Error),
            "PARAMETER" => ("parameter-grant", Severity::Error),
            "FOREIGN SERVER" | "FOREIGN DATA WRAPPER" => ("foreign-server-grant", Severity::Error),
            _ => ("system-grant", Severity::Error),
        };
        // Roles that are not the project's: only what leads to its data.
        let told = match subject.standing {
            Standing::Bounded(_) | Standing::Public => true,
            Standing::Undeclared => matches!(rule, "large-object-grant"),
        };
        // Predefined roles have what PostgreSQL gave them, and their members are told of as such.
        let predefined = self.catalog.role_name(entry.grantee).starts_with("pg_");
        if !told || predefined {
            return;
        }
        let column = entry.column.as_deref();
        let mut shown = match (&entry.schema, &entry.arguments) {
            (Some(schema), Some(arguments)) => format!("{schema}.{}({arguments})", entry.name),
            (Some(schema), None) => format!("{schema}.{}", entry.name),
            (None, _) => format!("{} {}", entry.word.to_lowercase(), entry.name),
        };
        if let Some(column) = column {
            shown.push_str(&format!("({column})"));
        }
        let path = match way {
            Some(way) => self.reach.way_text(&subject.name, way),
            None => format!("`{}`", subject.name),
        };
        let privilege = entry.privilege;
        let columns = column.map_or_else(String::new, |column| format!(" ({})", ident(column)));
        let mut mend = format!(
            "REVOKE {privilege}{columns} ON {} {} FROM {};",
            entry.word,
            entry.sql(),
            self.catalog.grantee_sql(entry.grantee)
        );
        if entry.grantor != entry.owner && entry.grantor != BOOTSTRAP {
            mend = format!("SET ROLE {}; {mend} RESET ROLE;", self.catalog.grantee_sql(entry.grantor));
        }
        if let Some(way) = way {
            mend = self.end_of(way);
        }
        let place = if system { ", an object of the system" } else { "" };
        self.put(Finding {
            rule,
            severity,
            role: subject.name.clone(),
            path: format!("{path} -> {privilege} on `{shown}`"),
            message: format!("{} has {privilege} on `{shown}`{place}, which no declaration gives", subject.name),
            object: shown,
            mend: Some(mend),
        });
    }

    fn databases(&mut self, subject: &Subject) {
        for database in &self.catalog.databases {
            let held: Vec<&Entry> = self
                .reach
                .grants_on(Class::Database, database.oid)
                .filter(|entry| {
                    entry.grantee == subject.oid
                        || self.reach.way(subject.oid, entry.grantee).is_some_and(|way| !self.reach.told_there(way))
                })
                .collect();
            for entry in held {
                let Some((rule, severity, why)) = self.of_database(subject, entry, database.current, &database.name)
                else {
                    continue;
                };
                if !database.current && !database.connectable {
                    continue;
                }
                let way = self.reach.way(subject.oid, entry.grantee).filter(|_| entry.grantee != subject.oid);
                let path = match way {
                    Some(way) => self.reach.way_text(&subject.name, way),
                    None => format!("`{}`", subject.name),
                };
                let privilege = entry.privilege;
                let name = ident(&database.name);
                let mend = match way {
                    Some(way) => self.end_of(way),
                    None => {
                        format!(
                            "REVOKE {privilege} ON DATABASE {name} FROM {};",
                            self.catalog.grantee_sql(entry.grantee)
                        )
                    }
                };
                self.put(Finding {
                    rule,
                    severity,
                    role: subject.name.clone(),
                    object: format!("database {}", database.name),
                    path: format!("{path} -> {privilege} on database `{}`", database.name),
                    message: format!("{} has {privilege} on the database `{}`: {why}", subject.name, database.name),
                    mend: Some(mend),
                });
            }
        }
    }

    /// Databases that are open to everybody as PostgreSQL makes them: where there are many, one note names them all.
    fn together(&mut self) {
        const FEW: usize = 3;
        let is = |one: &Finding| one.rule == "other-database" && one.severity == Severity::Note;
        let open: Vec<Finding> = self.findings.iter().filter(|one| is(one)).cloned().collect();
        if open.len() <= FEW {
            return;
        }
        self.findings.retain(|one| !is(one));
        let names: Vec<&str> = open.iter().map(|one| one.object.trim_start_matches("database ")).collect();
        let mends: Vec<&str> = open.iter().filter_map(|one| one.mend.as_deref()).collect();
        self.put(Finding {
            rule: "other-database",
            severity: Severity::Note,
            role: "PUBLIC".to_owned(),
            object: format!("databases {}", listed(&names)),
            path: format!("`PUBLIC` -> CONNECT on databases {}", listed(&names)),
            message: format!(
                "PUBLIC has CONNECT on {} other databases: bounded roles may connect to them too",
                names.len()
            ),
            mend: Some(mends.join(" ")),
        });
    }

    fn of_database(
        &self,
        subject: &Subject,
        entry: &Entry,
        current: bool,
        name: &str,
    ) -> Option<(&'static str, Severity, &'static str)> {
        let bounded = matches!(subject.standing, Standing::Bounded(_));
        if current {
            let rule = "database-grant";
            return match (entry.privilege, subject.standing) {
                (Privilege::Create, Standing::Undeclared) => {
                    Some((rule, Severity::Warning, "it may make schemas here"))
                }
                (Privilege::Create, _) => Some((rule, Severity::Error, "it may make schemas here")),
                (_, Standing::Undeclared) => None,
                (Privilege::Temporary, _) => {
                    Some((rule, Severity::Warning, "temporary tables can stand before others of their name"))
                }
                (Privilege::Connect, Standing::Public) => Some((rule, Severity::Warning, "every role may connect")),
                (Privilege::Connect, Standing::Bounded(RoleKind::Retired)) => {
                    Some((rule, Severity::Error, "a retired role has no access"))
                }
                _ => None,
            };
        }
        let rule = "other-database";
        let legacy = self.topology.legacy.iter().any(|pattern| is_like(pattern, name));
        match entry.privilege {
            Privilege::Connect | Privilege::Create if legacy && (bounded || subject.oid == PUBLIC) => {
                Some((rule, Severity::Error, "the declaration calls it legacy, and bounded roles must not connect"))
            }
            Privilege::Connect | Privilege::Create if bounded => {
                Some((rule, Severity::Warning, "it is another database than the declared one"))
            }
            // What `initdb` makes is open to everybody everywhere, and holds nothing.
            Privilege::Connect if subject.oid == PUBLIC && !matches!(name, "postgres" | "template1") => {
                Some((rule, Severity::Note, "bounded roles may connect to it too"))
            }
            _ => None,
        }
    }
}

/// What must be done before the privilege is there.
fn after(way: &Way) -> String {
    match way.how {
        How::Inherits => " by membership".to_owned(),
        How::Sets => " after SET ROLE".to_owned(),
        How::Admin => " after giving itself a membership".to_owned(),
    }
}

fn privileges(entries: &[&Entry]) -> String {
    let words: BTreeSet<Privilege> = entries.iter().map(|entry| entry.privilege).collect();
    let words: Vec<&str> = words.into_iter().map(Privilege::sql).collect();
    if words.len() <= 3 { words.join(", ") } else { listed(&words) }
}
