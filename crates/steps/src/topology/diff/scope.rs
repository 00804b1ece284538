//! The database, its schemas, who owns what is in them, and what is created later.

use std::collections::{BTreeMap, BTreeSet};

use super::acl::{Line, list};
use super::{Diff, Order, statement};
use crate::topology::model::{Covers, Kind, Object, Objects, Privilege, Role};
use crate::topology::state::{DefaultEntry, Entry, Owned, PUBLIC};
use crate::topology::write::{self, ident};

impl Diff<'_> {
    pub(super) fn database(&mut self) {
        let state = self.state;
        let name = ident(&state.database);
        let owner = &self.topology.owner;
        if state.database_owned.owner != *owner {
            let (from, to) = (ident(&state.database_owned.owner), ident(owner));
            if state.superuser {
                let undo = Some(format!("ALTER DATABASE {name} OWNER TO {from}"));
                let sql = format!("ALTER DATABASE {name} OWNER TO {to}");
                self.put(statement(Order::Owner, sql, format!("it belonged to {from}"), undo));
            } else {
                self.plan
                    .warnings
                    .push(format!("the database {name} stays with {from}: only a superuser gives it to {to}"));
            }
        }
        let mut wanted = BTreeSet::new();
        for role in self.topology.roles.values().filter(|role| role.kind.logs_in()) {
            wanted.insert((role.name.clone(), Privilege::Connect));
        }
        let may = state.acts_as(&state.database_owned.owner);
        let lines = self.compare_acl(&state.database_owned, &wanted, !state.superuser);
        if !may && !lines.is_empty() {
            let owner = ident(&state.database_owned.owner);
            self.cannot(format!("the privileges on the database {name} stay: they are {owner}'s to give"));
            return;
        }
        let built_in = |entry: &Entry| {
            entry.grantee == PUBLIC && matches!(entry.privilege, Privilege::Connect | Privilege::Temporary)
        };
        self.put_acl(&lines, &format!("DATABASE {name}"), &state.database_owned, built_in);
    }

    pub(super) fn schemas(&mut self) {
        let owner = self.topology.owner.clone();
        for name in self.topology.schemas.keys() {
            let wanted: BTreeSet<(String, Privilege)> = self
                .topology
                .roles
                .values()
                .filter(|role| !self.topology.is_owner(&role.name) && self.sees(role, name))
                .map(|role| (role.name.clone(), Privilege::Usage))
                .collect();
            let shown = ident(name);
            let is = match self.state.schemas.get(name) {
                Some(is) => is.clone(),
                None => {
                    let undo = Some(format!("DROP SCHEMA {shown}"));
                    let sql = format!("CREATE SCHEMA {shown} AUTHORIZATION {}", ident(&owner));
                    self.put(statement(Order::Schema, sql, "declared", undo));
                    Owned { owner: owner.clone(), acl: Vec::new() }
                }
            };
            if is.owner != owner {
                let from = ident(&is.owner);
                let undo = Some(format!("ALTER SCHEMA {shown} OWNER TO {from}"));
                let sql = format!("ALTER SCHEMA {shown} OWNER TO {}", ident(&owner));
                self.put(statement(Order::Owner, sql, format!("it belonged to {from}"), undo));
            }
            let lines = self.compare_acl(&is, &wanted, false);
            self.put_acl(&lines, &format!("SCHEMA {shown}"), &is, |_| false);
        }
        let retired: Vec<String> = self.topology.retired_schemas.iter().cloned().collect();
        for name in retired {
            let Some(is) = self.state.schemas.get(&name).cloned() else { continue };
            // Everybody's, also of those who are not declared: nobody sees into it any more.
            let lines: Vec<Line> = is.acl.iter().map(|entry| Line::Revoke(entry.clone(), false)).collect();
            self.put_acl(&lines, &format!("SCHEMA {}", ident(&name)), &is, |_| false);
        }
        // `public` belongs to nobody's declaration, but before 15 everybody may create in it.
        if !self.topology.schemas.contains_key("public")
            && let Some(public) = self.state.schemas.get("public").cloned()
        {
            let open = public.acl.iter().filter(|entry| {
                entry.privilege == Privilege::Create && (entry.grantee == PUBLIC || self.is_bounded(&entry.grantee))
            });
            let lines: Vec<Line> = open.map(|entry| Line::Revoke(entry.clone(), false)).collect();
            if !lines.is_empty() && !self.state.acts_as(&public.owner) {
                self.cannot(format!("everybody may create in public: only {} can end that", ident(&public.owner)));
            } else {
                self.put_acl(&lines, "SCHEMA public", &public, |entry| entry.grantee == PUBLIC);
            }
        }
    }

    /// Whether a role itself is given USAGE of a schema: by its own access or an exception.
    pub(super) fn sees(&self, role: &Role, schema: &str) -> bool {
        role.access.contains_key(schema)
            || self.topology.exceptions.iter().any(|one| {
                one.role == role.name
                    && one.until.is_none_or(|until| self.wish.today <= until)
                    && one.on.split_once('.').is_some_and(|(on, _)| on == schema)
            })
    }

    pub(super) fn ownership(&mut self) {
        for held in &self.state.objects {
            let object = &held.object;
            if !self.topology.schemas.contains_key(&object.schema)
                || held.follows
                || self.topology.creators.contains(&held.owned.owner)
            {
                continue;
            }
            let word = match object.kind {
                Kind::Table => "TABLE",
                Kind::View => "VIEW",
                Kind::MaterializedView => "MATERIALIZED VIEW",
                Kind::ForeignTable => "FOREIGN TABLE",
                other => other.grant_word(),
            };
            let (shown, from) = (write::object(object), ident(&held.owned.owner));
            let mut change = statement(
                Order::Owner,
                format!("ALTER {word} {shown} OWNER TO {}", ident(&self.topology.owner)),
                format!("it belonged to {from}"),
                Some(format!("ALTER {word} {shown} OWNER TO {from}")),
            );
            if object.kind.is_relation() {
                change.lock = Some((object.to_string(), "ACCESS EXCLUSIVE"));
            }
            self.plan.statements.push(change);
        }
    }

    pub(super) fn default_privileges(&mut self) {
        let mut wanted: BTreeSet<DefaultEntry> = BTreeSet::new();
        for creator in &self.topology.creators {
            for role in self.topology.bounded_roles() {
                for (schema, set) in &role.access {
                    for rule in &set.rules {
                        let Some(class) = class_of(&rule.objects) else { continue };
                        wanted.insert(DefaultEntry {
                            creator: creator.clone(),
                            schema: Some(schema.clone()),
                            class,
                            grantee: role.name.clone(),
                            privilege: rule.privilege,
                        });
                    }
                }
            }
        }
        for creator in self.topology.creators.clone() {
            if !self.state.roles.contains_key(&creator) && !self.is_declared(&creator) {
                self.cannot(format!("{} is a creator and does not exist", ident(&creator)));
                wanted.retain(|one| one.creator != creator);
                continue;
            }
            for (class, word, privilege) in [('f', "FUNCTIONS", Privilege::Execute), ('T', "TYPES", Privilege::Usage)] {
                let stored = self.state.closed_to_public.contains(&(creator.clone(), class));
                let open = self.state.defaults.iter().any(|one| {
                    one.creator == creator && one.schema.is_none() && one.class == class && one.grantee == PUBLIC
                });
                if !stored || open {
                    let before = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {}", ident(&creator));
                    self.put(statement(
                        Order::DefaultPrivilege,
                        format!("{before} REVOKE {privilege} ON {word} FROM PUBLIC"),
                        "new ones are for nobody unless declared",
                        Some(format!("{before} GRANT {privilege} ON {word} TO PUBLIC")),
                    ));
                }
            }
        }
        let missing: Vec<DefaultEntry> = wanted.difference(&self.state.defaults).cloned().collect();
        let extra: Vec<DefaultEntry> = self
            .state
            .defaults
            .iter()
            .filter(|one| !wanted.contains(one) && (one.grantee == PUBLIC || self.is_declared(&one.grantee)))
            .filter(|one| {
                one.schema.is_some() || (one.grantee != PUBLIC && self.topology.creators.contains(&one.creator))
            })
            .cloned()
            .collect();
        self.put_defaults(&missing, true);
        self.put_defaults(&extra, false);
    }

    pub(super) fn put_defaults(&mut self, entries: &[DefaultEntry], grant: bool) {
        let mut groups: BTreeMap<(String, Option<String>, char, String), BTreeSet<Privilege>> = BTreeMap::new();
        for one in entries {
            let key = (one.creator.clone(), one.schema.clone(), one.class, one.grantee.clone());
            groups.entry(key).or_default().insert(one.privilege);
        }
        for ((creator, schema, class, grantee), privileges) in groups {
            let place = schema.as_deref().map_or_else(String::new, |schema| format!(" IN SCHEMA {}", ident(schema)));
            let before = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {}{place}", ident(&creator));
            let (list, word, to) = (list(&privileges), class_word(class), write::grantee(&grantee));
            let give = format!("{before} GRANT {list} ON {word} TO {to}");
            let take = format!("{before} REVOKE {list} ON {word} FROM {to}");
            if !self.state.acts_as(&creator)
                && self.state.roles.contains_key(&creator)
                && creator != self.topology.owner
            {
                self.cannot(format!("default privileges of {} stay: only it can change them", ident(&creator)));
                continue;
            }
            self.put(match grant {
                true => statement(Order::DefaultPrivilege, give, "for what is created later", Some(take)),
                false => statement(Order::Revoke, take, "what is created later is not for it", Some(give)),
            });
        }
    }

    pub(super) fn warn(&mut self) {
        let closes = self.plan.statements.iter().any(|one| {
            one.order == Order::Revoke
                && one.sql.starts_with("REVOKE CONNECT ON DATABASE")
                && one.sql.ends_with("FROM PUBLIC")
        });
        if !closes {
            return;
        }
        let (state, topology) = (self.state, self.topology);
        let strangers = state.connected.iter().filter(|role| {
            !topology.roles.contains_key(*role) && **role != state.operator && **role != state.database_owned.owner
        });
        for role in strangers {
            self.plan.warnings.push(format!(
                "{} is connected now, is not declared, and will not be let in again: declare it if it should be",
                ident(role)
            ));
        }
    }
}

/// The class of default privileges that a rule for every object needs; none where they cannot tell (views from tables).
fn class_of(objects: &Objects) -> Option<char> {
    let probe = |kind| {
        let object = Object { schema: String::new(), name: String::new(), kind };
        matches!(objects, Objects::Every(_)) && objects.covers(&object) == Covers::Whole
    };
    if probe(Kind::Table) && probe(Kind::View) {
        Some('r')
    } else if probe(Kind::Sequence) {
        Some('S')
    } else if probe(Kind::Function) {
        Some('f')
    } else if probe(Kind::Type) {
        Some('T')
    } else {
        None
    }
}

fn class_word(class: char) -> &'static str {
    match class {
        'r' => "TABLES",
        'S' => "SEQUENCES",
        'f' => "FUNCTIONS",
        'n' => "SCHEMAS",
        _ => "TYPES",
    }
}
