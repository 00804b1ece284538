//! Grants and revokes: an ACL as it is against an ACL as it shall be.

use std::collections::{BTreeMap, BTreeSet};

use super::{Diff, Gone, Order, statement};
use crate::topology::model::{Kind, Object, Objects, Privilege, Role};
use crate::topology::state::{Entry, Held, Owned, PUBLIC};
use crate::topology::write::{self, ident};

/// What is granted or revoked in one statement: the same privileges of the same role on objects of one kind.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    schema: String,
    word: &'static str,
    grantee: String,
    grantor: String,
    privileges: BTreeSet<Privilege>,
    option_only: bool,
    built_in: bool,
}

impl Diff<'_> {
    pub(super) fn is_bounded(&self, role: &str) -> bool {
        self.topology.bounded_roles().any(|one| one.name == role)
    }

    /// Grants and revokes on objects and columns.
    pub(super) fn privileges(&mut self) {
        let mut by_schema: BTreeMap<&str, Vec<&Role>> = BTreeMap::new();
        for role in self.topology.bounded_roles() {
            for schema in role.access.keys() {
                by_schema.entry(schema).or_default().push(role);
            }
        }
        let today = self.wish.today;
        let mut groups: BTreeMap<Group, Vec<String>> = BTreeMap::new();
        let mut grants: BTreeMap<Group, Vec<String>> = BTreeMap::new();
        let mut foreign: BTreeMap<(String, String), BTreeSet<Privilege>> = BTreeMap::new();
        let state = self.state;
        for held in &state.objects {
            let object = &held.object;
            let declared = self.topology.schemas.contains_key(&object.schema);
            if !declared && !self.topology.retired_schemas.contains(&object.schema) {
                continue;
            }
            let shown = write::object(object);
            let mut wanted: BTreeSet<(String, Privilege)> = BTreeSet::new();
            for privilege in object.kind.privileges() {
                for role in by_schema.get(object.schema.as_str()).into_iter().flatten() {
                    if role.access[&object.schema].gives(object, *privilege) {
                        wanted.insert((role.name.clone(), *privilege));
                    }
                }
                for exception in &self.topology.exceptions {
                    if self.topology.excepted(&exception.role, object, *privilege, today).is_some() {
                        wanted.insert((exception.role.clone(), *privilege));
                    }
                }
            }
            self.plan.granted += held.owned.acl.iter().filter(|entry| !is_built_in(object.kind, entry)).count();
            let lines = self.compare_acl(&held.owned, &wanted, self.topology.creators.contains(&held.owned.owner));
            let mut by_role: BTreeMap<(String, String, bool, bool), BTreeSet<Privilege>> = BTreeMap::new();
            let mut give: BTreeMap<String, BTreeSet<Privilege>> = BTreeMap::new();
            for line in lines {
                match line {
                    Line::Grant(role, privilege) => {
                        give.entry(role).or_default().insert(privilege);
                    }
                    Line::Revoke(entry, option_only) => {
                        let built_in = is_built_in(object.kind, &entry);
                        if !option_only {
                            self.plan.gone.extend(self.gone(&entry, object));
                        }
                        let key = (entry.grantee, entry.grantor, option_only, built_in);
                        by_role.entry(key).or_default().insert(entry.privilege);
                    }
                    Line::Foreign(entry) => {
                        let key = (entry.grantee, object.schema.clone());
                        foreign.entry(key).or_default().insert(entry.privilege);
                    }
                }
            }
            let word = object.kind.grant_word();
            for (grantee, privileges) in give {
                let group = Group {
                    schema: object.schema.clone(),
                    word,
                    grantee,
                    grantor: held.owned.owner.clone(),
                    privileges,
                    option_only: false,
                    built_in: false,
                };
                grants.entry(group).or_default().push(shown.clone());
            }
            for ((grantee, grantor, option_only, built_in), privileges) in by_role {
                // An owner that changes takes the grants along: they are then the new owner's.
                let grantor = if grantor == held.owned.owner { String::new() } else { grantor };
                let group =
                    Group { schema: object.schema.clone(), word, grantee, grantor, privileges, option_only, built_in };
                groups.entry(group).or_default().push(shown.clone());
            }
            self.columns(held, by_schema.get(object.schema.as_str()).map_or(&[], Vec::as_slice));
        }
        for (group, objects) in grants {
            let (privileges, to) = (list(&group.privileges), write::grantee(&group.grantee));
            let on = format!("{} {}", group.word, objects.join(", "));
            let undo = Some(format!("REVOKE {privileges} ON {on} FROM {to}"));
            let why = format!(
                "{} in {}",
                if objects.len() == 1 { "declared" } else { "declared for all of these" },
                ident(&group.schema)
            );
            self.put(statement(Order::Grant, format!("GRANT {privileges} ON {on} TO {to}"), why, undo));
        }
        for (group, objects) in groups {
            self.put_revoke(&group, &list(&group.privileges), &objects);
        }
        for ((grantee, schema), privileges) in foreign {
            self.plan.foreign.push(format!(
                "{} has {} on objects of {}, and is not declared",
                ident(&grantee),
                list(&privileges),
                ident(&schema)
            ));
        }
        self.named_objects_that_are_not_there();
    }

    fn put_revoke(&mut self, group: &Group, privileges: &str, objects: &[String]) {
        let from = write::grantee(&group.grantee);
        let on = format!("{} {}", group.word, objects.join(", "));
        let option = if group.option_only { "GRANT OPTION FOR " } else { "" };
        let with = if group.option_only { " WITH GRANT OPTION" } else { "" };
        let why = match (group.option_only, group.built_in) {
            (true, _) => "it may not hand it on",
            (false, true) => "PostgreSQL gives it to everybody",
            (false, false) => "it is not declared",
        };
        let mut revoke = statement(
            Order::Revoke,
            format!("REVOKE {option}{privileges} ON {on} FROM {from}"),
            why,
            Some(format!("GRANT {privileges} ON {on} TO {from}{with}")),
        );
        if !group.built_in {
            revoke.revokes = group.privileges.len() * objects.len();
        }
        if !group.grantor.is_empty() {
            if !self.state.acts_as(&group.grantor) {
                self.cannot(format!(
                    "{privileges} on {on} stays with {from}: {} granted it, and only it can take it back",
                    ident(&group.grantor)
                ));
                return;
            }
            revoke.order = Order::RevokeOfOthers;
            revoke.run_as = Some(group.grantor.clone());
        }
        self.put(revoke);
    }

    /// Grants on columns: each its own statement, as there are few.
    pub(super) fn columns(&mut self, held: &Held, roles: &[&Role]) {
        let object = &held.object;
        let shown = write::object(object);
        let mut wanted: BTreeMap<(String, Privilege), BTreeSet<String>> = BTreeMap::new();
        for role in roles {
            for privilege in [Privilege::Select, Privilege::Insert, Privilege::Update, Privilege::References] {
                let set = &role.access[&object.schema];
                let columns = set.columns(object, privilege);
                if !columns.is_empty() && !set.gives(object, privilege) {
                    let columns = columns.into_iter().map(str::to_owned).collect();
                    wanted.insert((role.name.clone(), privilege), columns);
                }
            }
        }
        for ((role, privilege), columns) in &wanted {
            let has = |column: &&String| {
                let entries = held.columns.get(*column).map_or(&[][..], Vec::as_slice);
                entries.iter().any(|entry| {
                    entry.grantee == *role && entry.privilege == *privilege && entry.grantor == held.owned.owner
                })
            };
            let missing: Vec<String> = columns.iter().filter(|column| !has(column)).map(|one| ident(one)).collect();
            if !missing.is_empty() {
                let what = format!("{privilege} ({})", missing.join(", "));
                let (on, to) = (format!("TABLE {shown}"), ident(role));
                let undo = Some(format!("REVOKE {what} ON {on} FROM {to}"));
                self.put(statement(Order::Grant, format!("GRANT {what} ON {on} TO {to}"), "declared by column", undo));
            }
        }
        for (column, entries) in &held.columns {
            for entry in entries {
                let key = (entry.grantee.clone(), entry.privilege);
                let stays = wanted.get(&key).is_some_and(|columns| columns.contains(column))
                    && entry.grantor == held.owned.owner;
                if stays && !entry.grantable {
                    continue;
                }
                if entry.grantee != PUBLIC && !self.is_declared(&entry.grantee) {
                    let text = format!(
                        "{} has {} of the column {} of {shown}, and is not declared",
                        ident(&entry.grantee),
                        entry.privilege,
                        ident(column)
                    );
                    self.plan.foreign.push(text);
                    continue;
                }
                let group = Group {
                    schema: object.schema.clone(),
                    word: "TABLE",
                    grantee: entry.grantee.clone(),
                    grantor: if entry.grantor == held.owned.owner { String::new() } else { entry.grantor.clone() },
                    privileges: BTreeSet::from([entry.privilege]),
                    option_only: stays,
                    built_in: false,
                };
                // A column's privilege has the column behind it.
                let what = format!("{} ({})", entry.privilege, ident(column));
                self.put_revoke(&group, &what, std::slice::from_ref(&shown));
            }
        }
    }

    /// Declared by name, and not there: a word that is misspelt, or a migration that is to come.
    pub(super) fn named_objects_that_are_not_there(&mut self) {
        let mut there: BTreeSet<(&str, &str)> = BTreeSet::new();
        for held in &self.state.objects {
            there.insert((&held.object.schema, &held.object.name));
        }
        let mut missing = BTreeSet::new();
        for role in self.topology.bounded_roles() {
            for (schema, set) in &role.access {
                for rule in &set.rules {
                    if let Objects::Named { name, .. } = &rule.objects
                        && !there.contains(&(schema.as_str(), name.as_str()))
                        // A guard that this very plan makes.
                        && !self.topology.row_security.iter().any(|one| {
                            one.guard.schema == *schema && *name == format!("{}()", one.guard.name)
                        })
                    {
                        missing.insert(format!("{schema}.{name}"));
                    }
                }
            }
        }
        self.plan.waiting.extend(missing);
    }

    /// What this entry gives, where it must be gone by every path.
    pub(super) fn gone(&self, entry: &Entry, object: &Object) -> Option<Gone> {
        // What it is declared to have by a group stays effective, and shall.
        let allowed = self.topology.allows(&entry.grantee, object, None, entry.privilege, self.wish.today);
        (entry.grantee != PUBLIC && self.is_bounded(&entry.grantee) && !allowed).then(|| Gone {
            role: entry.grantee.clone(),
            object: object.clone(),
            privilege: entry.privilege,
        })
    }

    /// `stays`: the present owner stays the owner, and needs no grant; else the declared one will be it.
    pub(super) fn compare_acl(&self, is: &Owned, wanted: &BTreeSet<(String, Privilege)>, stays: bool) -> Vec<Line> {
        let owner = if stays { &is.owner } else { &self.topology.owner };
        let mut lines = Vec::new();
        for (role, privilege) in wanted {
            let has = is
                .acl
                .iter()
                .any(|entry| entry.grantee == *role && entry.privilege == *privilege && entry.grantor == is.owner);
            if !has && role != owner {
                lines.push(Line::Grant(role.clone(), *privilege));
            }
        }
        for entry in &is.acl {
            let stays = wanted.contains(&(entry.grantee.clone(), entry.privilege)) && entry.grantor == is.owner;
            if stays && !entry.grantable {
                continue;
            }
            if entry.grantee == PUBLIC || self.is_declared(&entry.grantee) {
                // The owner-to-be loses what it was granted only by becoming the owner.
                if self.topology.is_owner(&entry.grantee) {
                    continue;
                }
                lines.push(Line::Revoke(entry.clone(), stays));
            } else if !self.topology.creators.contains(&entry.grantee) && entry.grantee != self.state.operator {
                lines.push(Line::Foreign(entry.clone()));
            }
        }
        lines
    }

    /// Statements for the ACL of a database or schema.
    pub(super) fn put_acl(&mut self, lines: &[Line], on: &str, is: &Owned, built_in: impl Fn(&Entry) -> bool) {
        let mut grants: BTreeMap<Privilege, Vec<String>> = BTreeMap::new();
        for line in lines {
            match line {
                Line::Grant(role, privilege) => grants.entry(*privilege).or_default().push(role.clone()),
                Line::Revoke(entry, option_only) => {
                    let (word, rest) = on.split_once(' ').unwrap_or((on, ""));
                    let group = Group {
                        schema: String::new(),
                        word: if word == "SCHEMA" { "SCHEMA" } else { "DATABASE" },
                        grantee: entry.grantee.clone(),
                        grantor: if entry.grantor == is.owner { String::new() } else { entry.grantor.clone() },
                        privileges: BTreeSet::from([entry.privilege]),
                        option_only: *option_only,
                        built_in: built_in(entry),
                    };
                    self.put_revoke(&group, entry.privilege.sql(), &[rest.to_owned()]);
                }
                Line::Foreign(entry) => {
                    let text =
                        format!("{} has {} on {on}, and is not declared", ident(&entry.grantee), entry.privilege);
                    self.plan.foreign.push(text);
                }
            }
        }
        for (privilege, roles) in grants {
            let to: Vec<String> = roles.iter().map(|role| ident(role)).collect();
            let to = to.join(", ");
            let undo = Some(format!("REVOKE {privilege} ON {on} FROM {to}"));
            self.put(statement(Order::Grant, format!("GRANT {privilege} ON {on} TO {to}"), "declared", undo));
        }
    }
}

/// One difference in an ACL.
pub(super) enum Line {
    Grant(String, Privilege),
    /// The entry, and whether only its grant option goes.
    Revoke(Entry, bool),
    Foreign(Entry),
}

pub(super) fn list(privileges: &BTreeSet<Privilege>) -> String {
    privileges.iter().map(|one| one.sql()).collect::<Vec<_>>().join(", ")
}

/// PostgreSQL's own default for what everybody may.
fn is_built_in(kind: Kind, entry: &Entry) -> bool {
    entry.grantee == PUBLIC && matches!(kind, Kind::Function | Kind::Procedure | Kind::Type)
}
