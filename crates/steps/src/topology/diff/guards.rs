//! Row security and append-only tables.

use std::collections::BTreeSet;

use super::{Diff, Order, statement};
use crate::topology::guard;
use crate::topology::model::{Kind, Object, Privilege, Table, WithoutContext};
use crate::topology::write::{self, ident};

impl Diff<'_> {
    pub(super) fn row_security(&mut self) {
        for one in &self.topology.row_security {
            match self.state.bodies.get(&one.guard) {
                None if self.state.schemas.contains_key(&one.guard.schema) || self.is_new(&one.guard.schema) => {
                    let create = guard::create_guard(one);
                    let undo = Some(format!("DROP FUNCTION {}()", write::table(&one.guard)));
                    let why = match one.without {
                        WithoutContext::Error => "raises where no tenant is set",
                        WithoutContext::Hidden => "is null where no tenant is set",
                    };
                    let mut statement = statement(Order::Guard, create, why, undo);
                    statement.run_as = self.as_owner();
                    self.put(statement);
                    self.grant_new_guard(&one.guard);
                }
                _ => {}
            }
            for table in &one.tables {
                let Some(held) = self.state.objects.iter().find(|held| {
                    held.object.kind == Kind::Table
                        && held.object.schema == table.schema
                        && held.object.name == table.name
                }) else {
                    self.plan.waiting.push(format!("{table}: its row security"));
                    continue;
                };
                let shown = write::table(table);
                let name = one.policy();
                let is = self.state.policies.iter().find(|is| is.table == *table && is.name == name);
                let (create, alter) = guard::policy(one, table);
                let drop = format!("DROP POLICY {} ON {shown}", ident(&name));
                let lock = Some((table.to_string(), "ACCESS EXCLUSIVE"));
                match is {
                    None => {
                        let mut new = statement(Order::Policy, create, "rows of the tenant alone", Some(drop));
                        new.lock = lock.clone();
                        self.put(new);
                    }
                    // A policy's command and permissiveness cannot be altered.
                    Some(is) if !is.permissive || is.command != '*' => {
                        let sql = format!("{drop}; {create}");
                        let mut new = statement(Order::Policy, sql, "it was of another kind", None);
                        new.lock = lock.clone();
                        self.put(new);
                    }
                    Some(is) if !guard::is_as_declared(one, is) => {
                        let back = guard::alter_back(table, is);
                        let mut new = statement(Order::Policy, alter, "it is not as declared", Some(back));
                        new.lock = lock.clone();
                        self.put(new);
                    }
                    Some(_) => {}
                }
                let others = self.state.policies.iter().filter(|is| is.table == *table && is.name != name);
                for other in others.filter(|other| other.permissive) {
                    let text = format!(
                        "the policy {} on {shown} lets rows through beside the declared one",
                        ident(&other.name)
                    );
                    self.plan.foreign.push(text);
                }
                for (is, wanted, on, off) in
                    [(held.row_security, true, "ENABLE", "DISABLE"), (held.force, one.force, "FORCE", "NO FORCE")]
                {
                    if is == wanted {
                        continue;
                    }
                    let (to, back) = if wanted { (on, off) } else { (off, on) };
                    let sql = format!("ALTER TABLE {shown} {to} ROW LEVEL SECURITY");
                    let undo = Some(format!("ALTER TABLE {shown} {back} ROW LEVEL SECURITY"));
                    let mut new = statement(Order::RowSecurity, sql, "declared", undo);
                    new.lock = lock.clone();
                    self.put(new);
                }
            }
        }
    }

    /// A function that this very plan makes is in no catalog yet.
    pub(super) fn grant_new_guard(&mut self, guard: &Table) {
        let object = Object { schema: guard.schema.clone(), name: format!("{}()", guard.name), kind: Kind::Function };
        let roles: Vec<String> = self
            .topology
            .bounded_roles()
            .filter(|role| role.access.get(&guard.schema).is_some_and(|set| set.gives(&object, Privilege::Execute)))
            .map(|role| ident(&role.name))
            .collect();
        if !roles.is_empty() {
            let (on, to) = (format!("EXECUTE ON FUNCTION {}", write::object(&object)), roles.join(", "));
            let undo = Some(format!("REVOKE {on} FROM {to}"));
            self.put(statement(Order::Grant, format!("GRANT {on} TO {to}"), "declared", undo));
        }
    }

    /// Whether this plan makes the schema.
    pub(super) fn is_new(&self, schema: &str) -> bool {
        self.topology.schemas.contains_key(schema) && !self.state.schemas.contains_key(schema)
    }

    /// What is made inside a schema is the owner's from the beginning.
    pub(super) fn as_owner(&self) -> Option<String> {
        (self.state.operator != self.topology.owner).then(|| self.topology.owner.clone())
    }

    pub(super) fn append_only(&mut self) {
        let mut functions = BTreeSet::new();
        for one in &self.topology.append_only {
            let there = self.state.objects.iter().any(|held| {
                held.object.kind == Kind::Table
                    && held.object.schema == one.table.schema
                    && held.object.name == one.table.name
            });
            if !there {
                self.plan.waiting.push(format!("{}: its append-only triggers", one.table));
                continue;
            }
            let shown = write::table(&one.table);
            for wanted in guard::triggers(one) {
                if functions.insert(wanted.function.clone())
                    && self.state.bodies.get(&wanted.function).map(String::as_str) != Some(wanted.body)
                {
                    let back = match self.state.bodies.get(&wanted.function) {
                        None => Some(format!("DROP FUNCTION {}()", write::table(&wanted.function))),
                        Some(_) => None,
                    };
                    let mut create = statement(Order::Guard, wanted.create_function(), "what its triggers call", back);
                    create.run_as = self.as_owner();
                    self.put(create);
                }
                let is = self.state.triggers.iter().find(|is| is.table == one.table && is.name == wanted.name);
                let name = ident(wanted.name);
                let enable = format!("ALTER TABLE {shown} ENABLE ALWAYS TRIGGER {name}");
                let drop = format!("DROP TRIGGER {name} ON {shown}");
                let (sql, why, undo) = match is {
                    None => (format!("{}; {enable}", wanted.create(&one.table)), "rows stay as they are", Some(drop)),
                    Some(is) if !wanted.is(is) => {
                        let sql = format!("{drop}; {}; {enable}", wanted.create(&one.table));
                        (sql, "the trigger is not as declared", None)
                    }
                    Some(is) if is.enabled != 'A' => {
                        let back = format!("ALTER TABLE {shown} {} {name}", guard::enabled_word(is.enabled));
                        (enable, "it must fire always, also in a replica session", Some(back))
                    }
                    Some(_) => continue,
                };
                let mut new = statement(Order::Trigger, sql, why, undo);
                new.lock = Some((one.table.to_string(), "SHARE ROW EXCLUSIVE"));
                self.put(new);
            }
        }
    }
}
