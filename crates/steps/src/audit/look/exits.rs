//! Ways out of the database and into it: foreign servers, functions that connect, publications, subscriptions; and event
//! triggers, which run as whoever changes the schema.

use std::collections::BTreeMap;

use super::{Look, listed};
use crate::audit::catalog::{BOOTSTRAP, Class, Oid, PUBLIC, Published};
use crate::audit::finding::{Finding, Severity};
use crate::audit::reach::{Standing, Subject};
use crate::audit::sql::{ident, is_like};
use crate::topology::Privilege;

/// Extensions whose functions open connections to wherever their caller says.
const CONNECTING: &[&str] = &["dblink", "http", "pg_net", "plproxy", "oracle_fdw", "mysql_fdw"];

pub fn look(look: &mut Look<'_>) {
    look.user_mappings();
    look.foreign_tables();
    look.connecting_functions();
    look.publications();
    look.subscriptions();
    look.event_triggers();
}

impl Look<'_> {
    fn is_bounded(&self, role: &str) -> bool {
        self.topology.bounded_roles().any(|one| one.name == role)
    }

    /// `` `files` (dbname=legacy) ``: a server, and the database that its options name.
    fn server_text(&self, oid: Oid) -> String {
        let Some(server) = self.catalog.servers.iter().find(|one| one.oid == oid) else { return String::new() };
        let database = server.options.lines().find_map(|option| option.strip_prefix("dbname="));
        match database {
            Some(database) if self.topology.legacy.iter().any(|pattern| is_like(pattern, database)) => {
                format!("`{}` (the legacy database `{database}`)", server.name)
            }
            Some(database) => format!("`{}` (database `{database}`)", server.name),
            None => format!("`{}` ({})", server.name, server.wrapper),
        }
    }

    fn user_mappings(&mut self) {
        for one in &self.catalog.user_mappings {
            let role = self.catalog.role_name(one.user);
            if one.user != PUBLIC && !self.is_bounded(&role) {
                continue;
            }
            let server = self.server_text(one.server);
            let name =
                self.catalog.servers.iter().find(|server| server.oid == one.server).map_or("", |server| &server.name);
            let who = if one.user == PUBLIC { "everybody".to_owned() } else { role.clone() };
            self.put(Finding {
                rule: "user-mapping",
                severity: Severity::Error,
                object: format!("foreign server {name}"),
                path: format!("`{role}` -> user mapping -> {server}"),
                message: format!("{who} acts on the foreign server {server} by a user mapping"),
                mend: Some(format!(
                    "DROP USER MAPPING FOR {} SERVER {};",
                    self.catalog.grantee_sql(one.user),
                    ident(name)
                )),
                role,
            });
        }
    }

    fn foreign_tables(&mut self) {
        let reach = self.reach;
        for one in &self.catalog.foreign_tables {
            let Some(table) = self.catalog.relations.get(&one.relation) else { continue };
            let server = self.server_text(one.server);
            let who: Vec<&Subject> =
                reach.who(Class::Relation, table.oid, table.schema, table.owner, Privilege::Select).collect();
            for subject in who {
                // A declaration that names the table knows that it leads elsewhere.
                let named = reach.topology.roles.get(&subject.name).is_some_and(|role| {
                    role.access.get(&table.object.schema).is_some_and(|set| {
                        set.rules.iter().any(|rule| {
                            matches!(&rule.objects, crate::topology::Objects::Named { name, .. } if *name == table.object.name)
                        })
                    })
                });
                if named {
                    continue;
                }
                let begin = reach.path_to(subject, Class::Relation, table.oid, table.owner, Privilege::Select);
                let held = reach
                    .grants_on(Class::Relation, table.oid)
                    .any(|entry| entry.grantee == subject.oid && entry.grantor == table.owner);
                let to = self.catalog.grantee_sql(subject.oid);
                self.put(Finding {
                    rule: "foreign-table",
                    severity: Severity::Warning,
                    role: subject.name.clone(),
                    object: table.object.to_string(),
                    path: format!("{begin} -> SELECT on `{}` -> {server}", table.object),
                    message: format!(
                        "{} reads outside of the database through `{}`: {server}",
                        subject.name, table.object
                    ),
                    mend: held.then(|| format!("REVOKE ALL ON {} FROM {to};", table.sql())),
                });
            }
        }
    }

    fn connecting_functions(&mut self) {
        let reach = self.reach;
        let mut by_extension: BTreeMap<(&str, Oid), Vec<&crate::audit::catalog::Routine>> = BTreeMap::new();
        for one in self.catalog.routines.values() {
            let Some(extension) = one.extension.as_deref().filter(|name| CONNECTING.contains(name)) else { continue };
            // What an extension gives to everybody is left out of the ACLs; here it is what matters.
            let open = self.catalog.default_execute.contains(&one.oid);
            let schema = one.schema;
            for subject in &reach.subjects {
                let bounded = matches!(subject.standing, Standing::Bounded(_));
                let may = reach.may(subject.oid, Class::Routine, one.oid, one.owner, Privilege::Execute);
                let everybody = subject.oid == PUBLIC && open;
                if (everybody || (bounded && may)) && (subject.oid == PUBLIC || reach.sees(subject.oid, schema)) {
                    by_extension.entry((extension, subject.oid)).or_default().push(one);
                }
            }
        }
        for ((extension, oid), functions) in by_extension {
            let schema = functions[0].schema;
            let sees =
                reach.subjects.iter().any(|one| one.standing != Standing::Undeclared && reach.sees(one.oid, schema));
            if !sees {
                continue;
            }
            let role = self.catalog.role_name(oid);
            let all: Vec<String> = functions.iter().map(|one| one.sql()).collect();
            let names: Vec<&str> = functions.iter().map(|one| one.name.as_str()).collect();
            self.put(Finding {
                rule: "connecting-function",
                severity: Severity::Warning,
                object: format!("extension {extension}"),
                path: format!(
                    "`{role}` -> EXECUTE `{}` -> any database that it has a password for",
                    functions[0].object
                ),
                message: format!("{role} may open connections by {} of the extension {extension}", listed(&names)),
                mend: Some(format!(
                    "REVOKE EXECUTE ON FUNCTION {} FROM {};",
                    all.join(", "),
                    self.catalog.grantee_sql(oid)
                )),
                role,
            });
        }
    }

    fn publications(&mut self) {
        for one in &self.catalog.publications {
            let name = ident(&one.name);
            let (object, mend) = match one.what {
                Published::Everything => (format!("publication {}", one.name), format!("DROP PUBLICATION {name};")),
                Published::Schema(oid) => {
                    let schema = self.catalog.schema_name(oid);
                    if !self.reach.is_known_schema(schema) {
                        continue;
                    }
                    (
                        format!("{schema}.*"),
                        format!("ALTER PUBLICATION {name} DROP TABLES IN SCHEMA {};", ident(schema)),
                    )
                }
                Published::Table(oid) => {
                    let Some(table) = self.catalog.relations.get(&oid) else { continue };
                    let kept = self.catalog.kept_publications.get(&one.name) == Some(&table.object.schema);
                    if kept || !self.reach.is_known_schema(&table.object.schema) {
                        continue;
                    }
                    (table.object.to_string(), format!("ALTER PUBLICATION {name} DROP TABLE {};", table.sql()))
                }
            };
            let what = match one.what {
                Published::Everything => "every table of every schema".to_owned(),
                _ => format!("`{object}`"),
            };
            self.put(Finding {
                rule: "publication",
                severity: Severity::Warning,
                role: self.catalog.role_name(one.owner),
                path: format!("any role with REPLICATION -> publication `{}` -> {what}", one.name),
                message: format!(
                    "the publication `{}` sends {what} to whoever subscribes, past every grant and policy",
                    one.name
                ),
                object,
                mend: Some(mend),
            });
        }
    }

    fn subscriptions(&mut self) {
        let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for one in &self.catalog.subscriptions {
            let tables = by_name.entry(&one.name).or_default();
            let table = one.relation.and_then(|oid| self.catalog.relations.get(&oid));
            if let Some(table) = table.filter(|table| self.reach.is_known_schema(&table.object.schema)) {
                tables.push(table.object.to_string());
            }
        }
        for (name, tables) in by_name {
            let owner = self.catalog.subscriptions.iter().find(|one| one.name == name).map_or(PUBLIC, |one| one.owner);
            let what = if tables.is_empty() { "tables that it names later".to_owned() } else { listed(&tables) };
            let quoted = ident(name);
            self.put(Finding {
                rule: "subscription",
                severity: Severity::Warning,
                role: self.catalog.role_name(owner),
                object: format!("subscription {name}"),
                path: format!("subscription `{name}` (rights of `{}`) -> writes {what}", self.catalog.role_name(owner)),
                message: format!("the subscription `{name}` writes what another database sends to {what}"),
                // Without its slot: the other side may be gone, and dropping must not wait for it.
                mend: Some(format!(
                    "ALTER SUBSCRIPTION {quoted} DISABLE; ALTER SUBSCRIPTION {quoted} SET (slot_name = NONE); \
                     DROP SUBSCRIPTION {quoted};"
                )),
            });
        }
    }

    fn event_triggers(&mut self) {
        let is_superuser = |oid: Oid| self.catalog.roles.get(&oid).is_some_and(|role| role.superuser);
        let mut found = Vec::new();
        for one in &self.catalog.event_triggers {
            let owner = self.catalog.role_name(one.owner);
            if !is_superuser(one.owner) {
                found.push(Finding {
                    rule: "event-trigger",
                    severity: Severity::Error,
                    object: format!("event trigger {}", one.name),
                    path: format!(
                        "`{owner}` -> owner of event trigger `{}` -> every DDL statement of others",
                        one.name
                    ),
                    message: format!(
                        "the event trigger `{}` runs in the sessions of others, and belongs to {owner}, no superuser",
                        one.name
                    ),
                    role: owner,
                    mend: Some(format!(
                        "ALTER EVENT TRIGGER {} OWNER TO {};",
                        ident(&one.name),
                        ident(&self.catalog.role_name(BOOTSTRAP))
                    )),
                });
            } else if !is_superuser(one.function_owner) {
                let holder = self.catalog.role_name(one.function_owner);
                found.push(Finding {
                    rule: "event-trigger",
                    severity: Severity::Warning,
                    object: format!("event trigger {}", one.name),
                    path: format!(
                        "`{holder}` -> owner of `{}` -> event trigger `{}` -> sessions of superusers",
                        one.function, one.name
                    ),
                    message: format!(
                        "{holder} owns `{}`, which the event trigger `{}` runs also in the sessions of superusers",
                        one.function, one.name
                    ),
                    role: holder,
                    mend: Some(format!(
                        "ALTER FUNCTION {}() OWNER TO {};",
                        one.function.split('.').map(ident).collect::<Vec<_>>().join("."),
                        ident(&self.catalog.role_name(BOOTSTRAP))
                    )),
                });
            }
        }
        self.findings.extend(found);
    }
}
