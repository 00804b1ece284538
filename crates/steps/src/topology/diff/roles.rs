//! Roles, what they are members of, and their end.

use std::collections::BTreeMap;

use super::{Diff, Order, statement};
use crate::topology::model::{Role, RoleKind};
use crate::topology::write::{self, ident, literal};

impl Diff<'_> {
    pub(super) fn roles(&mut self) {
        for role in self.topology.roles.values() {
            match self.state.roles.get(&role.name) {
                None if role.kind == RoleKind::Retired => {}
                None => self.create_role(role),
                Some(_) => self.alter_role(role),
            }
        }
    }

    pub(super) fn create_role(&mut self, role: &Role) {
        let name = ident(&role.name);
        if !self.state.may_create_roles {
            let operator = &self.state.operator;
            self.cannot(format!("the role {name} cannot be created: {operator} has no CREATEROLE"));
            return;
        }
        let login = if role.kind.logs_in() { "LOGIN" } else { "NOLOGIN" };
        let mut create = statement(
            Order::Role,
            format!("CREATE ROLE {name} {login}"),
            format!("{} role", role.kind.word()),
            Some(format!("DROP ROLE {name}")),
        );
        if let Some(reference) = &role.password {
            create.sql.push_str(&format!(" PASSWORD {}", literal(&format!("SCRAM of {}", reference.shown()))));
            create.password_of = Some(role.name.clone());
        }
        self.put(create);
        self.settings(role, &BTreeMap::new(), &BTreeMap::new());
    }

    pub(super) fn alter_role(&mut self, role: &Role) {
        let Some(is) = self.state.roles.get(&role.name) else { return };
        let name = ident(&role.name);
        if role.name == self.state.operator {
            self.plan
                .warnings
                .push(format!("{name} is declared, and is the role that applies this: it is left as it is"));
            return;
        }
        let above: Vec<&str> = is.attributes.iter().copied().collect();
        if !above.is_empty() {
            let only_superuser = is.attributes.iter().any(|one| !matches!(*one, "CREATEROLE" | "CREATEDB"));
            if (only_superuser && !self.state.superuser) || !self.state.may_create_roles {
                let operator = &self.state.operator;
                self.cannot(format!("{name} keeps {}: {operator} may not take it", above.join(", ")));
            } else {
                let without: Vec<String> = above.iter().map(|one| format!("NO{one}")).collect();
                let mut take = statement(
                    Order::Revoke,
                    format!("ALTER ROLE {name} {}", without.join(" ")),
                    format!("a {} role has none of these", role.kind.word()),
                    Some(format!("ALTER ROLE {name} {}", above.join(" "))),
                );
                take.revokes = above.len();
                self.put(take);
            }
        }
        if is.login != role.kind.logs_in() {
            let (to, back) = if is.login { ("NOLOGIN", "LOGIN") } else { ("LOGIN", "NOLOGIN") };
            let order = if is.login { Order::Revoke } else { Order::Role };
            let why = format!("a {} role {}", role.kind.word(), if is.login { "does not log in" } else { "logs in" });
            let undo = Some(format!("ALTER ROLE {name} {back}"));
            self.put(statement(order, format!("ALTER ROLE {name} {to}"), why, undo));
        }
        if !is.inherit {
            let undo = Some(format!("ALTER ROLE {name} NOINHERIT"));
            let why = "what it may do is what it does";
            self.put(statement(Order::Role, format!("ALTER ROLE {name} INHERIT"), why, undo));
        }
        if let Some(reference) = &role.password
            && (is.has_password == Some(false) || self.wish.set_passwords)
        {
            let shown = literal(&format!("SCRAM of {}", reference.shown()));
            let sql = format!("ALTER ROLE {name} PASSWORD {shown}");
            let mut set = statement(Order::Role, sql, "its password", None);
            set.password_of = Some(role.name.clone());
            if is.has_password == Some(false) {
                set.undo = Some(format!("ALTER ROLE {name} PASSWORD NULL"));
            }
            self.put(set);
        }
        let (settings, here) = (is.settings.clone(), is.here.clone());
        self.settings(role, &settings, &here);
    }

    /// `search_path` of the role in every database; `role` of migration roles in this one.
    pub(super) fn settings(&mut self, role: &Role, is: &BTreeMap<String, String>, here: &BTreeMap<String, String>) {
        let name = ident(&role.name);
        let database = ident(&self.state.database);
        let everywhere = format!("ALTER ROLE {name}");
        let local = format!("ALTER ROLE {name} IN DATABASE {database}");
        if !role.search_path.is_empty() {
            let wanted = write::path(&role.search_path);
            let same = is.get("search_path").is_some_and(|is| write::names_of_path(is) == role.search_path);
            if !same {
                let back = put_back(&everywhere, "search_path", is.get("search_path"));
                let sql = format!("{everywhere} SET search_path = {wanted}");
                self.put(statement(Order::Role, sql, "where its names are looked up", Some(back)));
            }
            if here.get("search_path").is_some_and(|is| write::names_of_path(is) != role.search_path) {
                let back = put_back(&local, "search_path", here.get("search_path"));
                let sql = format!("{local} RESET search_path");
                self.put(statement(Order::Role, sql, "it would win over the role's own", Some(back)));
            }
        }
        if role.kind == RoleKind::Migration {
            let owner = &self.topology.owner;
            if here.get("role").map(String::as_str) != Some(owner.as_str()) {
                let back = put_back(&local, "role", here.get("role"));
                let sql = format!("{local} SET role = {}", literal(owner));
                // After the membership: else its next login fails.
                self.put(statement(Order::Schema, sql, "what it creates belongs to the owner", Some(back)));
            }
        }
    }

    pub(super) fn memberships(&mut self) {
        let is_member = |role: &str, member: &str| {
            self.state.memberships.iter().any(|one| one.role == role && one.member == member)
        };
        let mut wanted = Vec::new();
        for role in self.topology.roles.values() {
            for of in role.member_of.iter().filter(|of| !is_member(of, &role.name)) {
                wanted.push((of.clone(), role.name.clone(), "declared"));
            }
        }
        if !self.state.superuser && !self.state.acts_as(&self.topology.owner) {
            let own = (self.topology.owner.clone(), self.state.operator.clone(), "to act as the owner");
            wanted.push(own);
        }
        for (role, member, why) in wanted {
            let (role, member) = (ident(&role), ident(&member));
            let undo = Some(format!("REVOKE {role} FROM {member}"));
            self.put(statement(Order::Membership, format!("GRANT {role} TO {member}"), why, undo));
        }
        for one in &self.state.memberships {
            let declared = self.topology.roles.get(&one.member);
            let wanted = declared.is_some_and(|role| role.member_of.contains(&one.role));
            let own = one.member == self.state.operator;
            let (role, member) = (ident(&one.role), ident(&one.member));
            if declared.is_some() && !wanted && !own {
                // Before 16 a membership has one entry, whoever granted it.
                let by = match self.state.version >= 160_000 && !one.grantor.is_empty() {
                    true => format!(" GRANTED BY {}", ident(&one.grantor)),
                    false => String::new(),
                };
                let admin = if one.admin { " WITH ADMIN OPTION" } else { "" };
                let mut revoke = statement(
                    Order::Revoke,
                    format!("REVOKE {role} FROM {member}{by}"),
                    format!("{member} is declared without it"),
                    Some(format!("GRANT {role} TO {member}{admin}{by}")),
                );
                revoke.revokes = 1;
                self.put(revoke);
            } else if declared.is_none() && !own && self.is_declared(&one.role) {
                let creator = self.topology.creators.contains(&one.member);
                let powerful =
                    self.state.roles.get(&one.member).is_some_and(|role| role.attributes.contains("SUPERUSER"));
                // From 16 on, who creates a role is a member of it, with ADMIN alone: the operator that was.
                let maker = one.admin && self.state.version >= 160_000;
                if !creator && !powerful && !maker {
                    self.plan.foreign.push(format!("{member} is a member of {role}, and is not declared"));
                }
            }
        }
    }

    /// The second of two steps: what is retired goes.
    pub(super) fn prune(&mut self) {
        for name in &self.topology.retired_schemas {
            if self.state.schemas.contains_key(name) {
                let count = self.state.objects.iter().filter(|held| held.object.schema == *name).count();
                self.plan.statements.push(statement(
                    Order::Prune,
                    format!("DROP SCHEMA {} CASCADE", ident(name)),
                    format!("retired, with {count} object(s) in it"),
                    None,
                ));
            }
        }
        for role in self.topology.roles.values().filter(|role| role.kind == RoleKind::Retired) {
            if !self.state.roles.contains_key(&role.name) {
                continue;
            }
            if self.state.connected.contains(&role.name) {
                self.cannot(format!("{} is retired and has sessions: it is not dropped", ident(&role.name)));
                continue;
            }
            let (name, owner) = (ident(&role.name), ident(&self.topology.owner));
            for (sql, why) in [
                (format!("REASSIGN OWNED BY {name} TO {owner}"), "what it still owns here"),
                (format!("DROP OWNED BY {name}"), "what it still may here"),
                (format!("DROP ROLE {name}"), "retired"),
            ] {
                self.plan.statements.push(statement(Order::Prune, sql, why, None));
            }
        }
    }
}

fn put_back(before: &str, setting: &str, was: Option<&String>) -> String {
    match (was, setting) {
        (None, _) => format!("{before} RESET {setting}"),
        // A list is kept as its names, quoted where they must be.
        (Some(was), "search_path") => format!("{before} SET search_path = {}", write::path(&write::names_of_path(was))),
        (Some(was), _) => format!("{before} SET {setting} = {}", literal(was)),
    }
}
