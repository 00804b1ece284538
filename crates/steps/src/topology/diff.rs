//! From what is there to what is declared, by the least change: missing is granted, extra is revoked, foreign is told.
//!
//! *Extra* is what a declared role or PUBLIC has and should not. *Foreign* is what somebody has of whom the declaration
//! does not speak: it is named and left alone, until the role is declared or retired.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use super::guard;
use super::model::{Covers, Kind, Object, Objects, Privilege, Role, RoleKind, Table, Topology, WithoutContext};
use super::state::{DefaultEntry, Entry, Owned, PUBLIC, State};
use super::write::{self, ident, literal};

/// When a statement comes, among the others: nothing that stays is missing for a moment, and revokes come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    Role,
    Membership,
    Schema,
    Owner,
    DefaultPrivilege,
    Guard,
    Policy,
    Trigger,
    Grant,
    /// After its policies: without them it would hide every row.
    RowSecurity,
    /// Those of other grantors than the owner first: privileges may depend on them.
    RevokeOfOthers,
    Revoke,
    Prune,
}

/// One statement of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub order: Order,
    /// As it is run; a password stands in it only as its reference.
    pub sql: String,
    /// The role whose password it sets.
    pub password_of: Option<String>,
    /// Why, in a few words.
    pub why: String,
    /// What takes it back; none where nothing can.
    pub undo: Option<String>,
    /// The role that it must run as, where that is not the operator: the grantor of what it revokes.
    pub run_as: Option<String>,
    /// How many privileges that somebody granted it takes away; defaults of PostgreSQL do not count.
    pub revokes: usize,
    /// The relation that it locks, with the mode.
    pub lock: Option<(String, &'static str)>,
}

/// A privilege that must be gone after the plan, by whatever path: for the look after it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gone {
    pub role: String,
    pub object: Object,
    pub privilege: Privilege,
}

/// The way from what is there to what is declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they run.
    pub statements: Vec<Statement>,
    /// Declared objects that do not exist (yet): their grants come with the next plan.
    pub waiting: Vec<String>,
    /// What others have of whom the declaration does not speak.
    pub foreign: Vec<String>,
    /// What this operator cannot do here, and why.
    pub cannot: Vec<String>,
    /// What deserves a look before it is applied.
    pub warnings: Vec<String>,
    /// Privileges that somebody granted, in the declared schemas, before the plan.
    pub granted: usize,
    pub gone: BTreeSet<Gone>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// How many privileges that somebody granted are taken away.
    pub fn revokes(&self) -> usize {
        self.statements.iter().map(|one| one.revokes).sum()
    }

    /// The whole as a script, for people and `psql`.
    pub fn script(&self) -> String {
        let mut text = String::new();
        for one in &self.statements {
            text.push_str(&format!("-- {}\n", one.why));
            match &one.run_as {
                Some(role) => {
                    text.push_str(&format!("SET LOCAL ROLE {}; {}; RESET ROLE;\n", ident(role), one.sql));
                }
                None => text.push_str(&format!("{};\n", one.sql)),
            }
        }
        text
    }
}

/// How the difference is taken.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Exceptions end.
    pub today: Date,
    /// Drop what is retired.
    pub prune: bool,
    /// Set the passwords of roles that have one already.
    pub set_passwords: bool,
}

/// The difference.
pub fn diff(topology: &Topology, state: &State, wish: &Wish) -> Plan {
    let mut diff = Diff { topology, state, wish, plan: Plan::default() };
    diff.roles();
    diff.memberships();
    diff.database();
    diff.schemas();
    diff.ownership();
    diff.default_privileges();
    diff.row_security();
    diff.append_only();
    diff.privileges();
    diff.warn();
    if wish.prune {
        diff.prune();
    }
    let mut plan = diff.plan;
    plan.statements.sort_by_key(|one| one.order);
    plan
}

struct Diff<'a> {
    topology: &'a Topology,
    state: &'a State,
    wish: &'a Wish,
    plan: Plan,
}

fn statement(order: Order, sql: impl Into<String>, why: impl Into<String>, undo: Option<String>) -> Statement {
    Statement { order, sql: sql.into(), password_of: None, why: why.into(), undo, run_as: None, revokes: 0, lock: None }
}

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
    fn put(&mut self, statement: Statement) {
        self.plan.statements.push(statement);
    }

    fn cannot(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.plan.cannot.contains(&what) {
            self.plan.cannot.push(what);
        }
    }

    /// Whether a role is one of those that are managed.
    fn is_declared(&self, role: &str) -> bool {
        self.topology.roles.contains_key(role)
    }

    fn roles(&mut self) {
        for role in self.topology.roles.values() {
            match self.state.roles.get(&role.name) {
                None if role.kind == RoleKind::Retired => {}
                None => self.create_role(role),
                Some(_) => self.alter_role(role),
            }
        }
    }

    fn create_role(&mut self, role: &Role) {
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

    fn alter_role(&mut self, role: &Role) {
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
    fn settings(&mut self, role: &Role, is: &BTreeMap<String, String>, here: &BTreeMap<String, String>) {
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

    fn memberships(&mut self) {
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

    fn database(&mut self) {
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

    fn schemas(&mut self) {
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

    fn is_bounded(&self, role: &str) -> bool {
        self.topology.bounded_roles().any(|one| one.name == role)
    }

    /// Whether a role itself is given USAGE of a schema: by its own access or an exception.
    fn sees(&self, role: &Role, schema: &str) -> bool {
        role.access.contains_key(schema)
            || self.topology.exceptions.iter().any(|one| {
                one.role == role.name
                    && one.until.is_none_or(|until| self.wish.today <= until)
                    && one.on.split_once('.').is_some_and(|(on, _)| on == schema)
            })
    }

    fn ownership(&mut self) {
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

    fn default_privileges(&mut self) {
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

    fn put_defaults(&mut self, entries: &[DefaultEntry], grant: bool) {
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

    fn row_security(&mut self) {
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
    fn grant_new_guard(&mut self, guard: &Table) {
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
    fn is_new(&self, schema: &str) -> bool {
        self.topology.schemas.contains_key(schema) && !self.state.schemas.contains_key(schema)
    }

    /// What is made inside a schema is the owner's from the beginning.
    fn as_owner(&self) -> Option<String> {
        (self.state.operator != self.topology.owner).then(|| self.topology.owner.clone())
    }

    fn append_only(&mut self) {
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

    /// Grants and revokes on objects and columns.
    fn privileges(&mut self) {
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
    fn columns(&mut self, held: &super::state::Held, roles: &[&Role]) {
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
    fn named_objects_that_are_not_there(&mut self) {
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
    fn gone(&self, entry: &Entry, object: &Object) -> Option<Gone> {
        // What it is declared to have by a group stays effective, and shall.
        let allowed = self.topology.allows(&entry.grantee, object, None, entry.privilege, self.wish.today);
        (entry.grantee != PUBLIC && self.is_bounded(&entry.grantee) && !allowed).then(|| Gone {
            role: entry.grantee.clone(),
            object: object.clone(),
            privilege: entry.privilege,
        })
    }

    /// `stays`: the present owner stays the owner, and needs no grant; else the declared one will be it.
    fn compare_acl(&self, is: &Owned, wanted: &BTreeSet<(String, Privilege)>, stays: bool) -> Vec<Line> {
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
    fn put_acl(&mut self, lines: &[Line], on: &str, is: &Owned, built_in: impl Fn(&Entry) -> bool) {
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

    fn warn(&mut self) {
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

    /// The second of two steps: what is retired goes.
    fn prune(&mut self) {
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

/// One difference in an ACL.
enum Line {
    Grant(String, Privilege),
    /// The entry, and whether only its grant option goes.
    Revoke(Entry, bool),
    Foreign(Entry),
}

fn list(privileges: &BTreeSet<Privilege>) -> String {
    privileges.iter().map(|one| one.sql()).collect::<Vec<_>>().join(", ")
}

/// PostgreSQL's own default for what everybody may.
fn is_built_in(kind: Kind, entry: &Entry) -> bool {
    entry.grantee == PUBLIC && matches!(kind, Kind::Function | Kind::Procedure | Kind::Type)
}

fn put_back(before: &str, setting: &str, was: Option<&String>) -> String {
    match (was, setting) {
        (None, _) => format!("{before} RESET {setting}"),
        // A list is kept as its names, quoted where they must be.
        (Some(was), "search_path") => format!("{before} SET search_path = {}", write::path(&write::names_of_path(was))),
        (Some(was), _) => format!("{before} SET {setting} = {}", literal(was)),
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
