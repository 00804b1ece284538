//! Who reaches whom by membership, and so which privileges are effective: one closure for each role, joined with the ACLs.
//!
//! A role has what those give whose rights it inherits. It can also become every role that it may `SET ROLE` to, and have
//! what that one inherits; and what it is ADMIN of it may give itself. See
//! <https://www.postgresql.org/docs/current/role-membership.html>; before 16 every member may `SET ROLE`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::civil::Date;

use super::catalog::{Catalog, Class, Entry, Member, Oid, PUBLIC};
use crate::topology::{Object, Privilege, RoleKind, Topology};

/// What the declaration says of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Declared, and bounded by it.
    Bounded(RoleKind),
    /// The declaration does not speak of it.
    Undeclared,
    /// Everybody.
    Public,
}

/// Somebody whose reach is followed.
#[derive(Debug, Clone)]
pub struct Subject {
    pub oid: Oid,
    pub name: String,
    pub standing: Standing,
}

/// How another role's rights are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// Without doing anything.
    Inherits,
    /// After `SET ROLE`.
    Sets,
    /// After giving itself the membership.
    Admin,
}

/// The way to another role.
#[derive(Debug, Clone)]
pub struct Way {
    pub how: How,
    /// Memberships, the first of the role itself.
    pub hops: Vec<Member>,
}

/// The memberships and privileges of a snapshot, with what the declaration says of them.
pub struct Reach<'a> {
    pub catalog: &'a Catalog,
    pub topology: &'a Topology,
    pub today: Date,
    pub subjects: Vec<Subject>,
    by_member: HashMap<Oid, Vec<Member>>,
    ways: BTreeMap<Oid, BTreeMap<Oid, Way>>,
    by_grantee: HashMap<Oid, Vec<&'a Entry>>,
    by_object: HashMap<(Class, Oid), Vec<&'a Entry>>,
    usage: RefCell<HashMap<(Oid, Oid), bool>>,
}

impl<'a> Reach<'a> {
    pub fn new(catalog: &'a Catalog, topology: &'a Topology, today: Date) -> Self {
        let mut by_member: HashMap<Oid, Vec<Member>> = HashMap::new();
        for one in &catalog.members {
            by_member.entry(one.member).or_default().push(*one);
        }
        let (mut by_grantee, mut by_object): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = Default::default();
        for entry in &catalog.acl {
            by_grantee.entry(entry.grantee).or_default().push(entry);
            by_object.entry((entry.class, entry.object)).or_default().push(entry);
        }
        let mut reach = Self {
            catalog,
            topology,
            today,
            subjects: subjects(catalog, topology),
            by_member,
            ways: BTreeMap::new(),
            by_grantee,
            by_object,
            usage: RefCell::default(),
        };
        let oids: Vec<Oid> = catalog.roles.keys().copied().collect();
        reach.ways = oids.into_iter().map(|oid| (oid, reach.closure(oid))).collect();
        reach
    }

    /// Every role that one reaches, with the least that must be done for it. The role itself is not among them.
    fn closure(&self, from: Oid) -> BTreeMap<Oid, Way> {
        let mut found: BTreeMap<Oid, Way> = BTreeMap::new();
        if !self.by_member.contains_key(&from) {
            return found;
        }
        let start = Way { how: How::Inherits, hops: Vec::new() };
        self.spread(from, &start, How::Inherits, &mut found, &|one| one.inherit);
        // Sessions may become what a chain of SET options leads to; and have then what that inherits.
        let mut becomes = BTreeMap::new();
        self.spread(from, &start, How::Sets, &mut becomes, &|one| one.set);
        for (oid, way) in becomes {
            found.entry(oid).or_insert_with(|| way.clone());
            self.spread(oid, &way, How::Sets, &mut found, &|one| one.inherit);
        }
        // ADMIN of a role: by whatever membership one comes to it, the server asks for no option of those between.
        let mut member = BTreeMap::new();
        self.spread(from, &start, How::Admin, &mut member, &|_| true);
        for (oid, way) in std::iter::once((from, start)).chain(member) {
            for one in self.memberships(oid).iter().filter(|one| one.admin && one.of != from) {
                let mut hops = way.hops.clone();
                hops.push(*one);
                let given = Way { how: How::Admin, hops };
                found.entry(one.of).or_insert_with(|| given.clone());
                self.spread(one.of, &given, How::Admin, &mut found, &|one| one.inherit || one.set);
            }
        }
        found.remove(&from);
        found
    }

    fn spread(
        &self,
        from: Oid,
        way: &Way,
        how: How,
        found: &mut BTreeMap<Oid, Way>,
        follows: &dyn Fn(&Member) -> bool,
    ) {
        let mut open = vec![(from, way.clone())];
        while !open.is_empty() {
            let mut next = Vec::new();
            for (oid, way) in open {
                for one in self.by_member.get(&oid).into_iter().flatten().filter(|one| follows(one)) {
                    if one.of == from || found.contains_key(&one.of) {
                        continue;
                    }
                    let mut hops = way.hops.clone();
                    hops.push(*one);
                    let way = Way { how: way.how.max(how), hops };
                    found.insert(one.of, way.clone());
                    next.push((one.of, way));
                }
            }
            // One step further at a time: the shortest way is the one that is told.
            open = next;
        }
    }

    /// The roles that a role reaches, and how.
    pub fn ways(&self, role: Oid) -> impl Iterator<Item = (Oid, &Way)> {
        self.ways.get(&role).into_iter().flatten().map(|(oid, way)| (*oid, way))
    }

    pub fn way(&self, from: Oid, to: Oid) -> Option<&Way> {
        self.ways.get(&from)?.get(&to)
    }

    /// Memberships of a role itself.
    pub fn memberships(&self, role: Oid) -> &[Member] {
        self.by_member.get(&role).map_or(&[], Vec::as_slice)
    }

    /// Whether a membership is as declared.
    pub fn is_declared(&self, one: &Member) -> bool {
        let role = self.topology.roles.get(&self.catalog.role_name(one.member));
        role.is_some_and(|role| role.member_of.contains(&self.catalog.role_name(one.of)))
    }

    /// Whether a way begins with a membership that is declared, to a role that is looked at by itself: then what lies behind
    /// is told there.
    pub fn told_there(&self, way: &Way) -> bool {
        way.hops.first().is_some_and(|hop| self.is_declared(hop))
    }

    pub fn grants_to(&self, grantee: Oid) -> impl Iterator<Item = &'a Entry> {
        self.by_grantee.get(&grantee).into_iter().flatten().copied()
    }

    pub fn grants_on(&self, class: Class, object: Oid) -> impl Iterator<Item = &'a Entry> {
        self.by_object.get(&(class, object)).into_iter().flatten().copied()
    }

    /// Whether a role owns what that owner owns, or acts as one that does.
    pub fn acts_as(&self, role: Oid, owner: Oid) -> bool {
        role == owner
            || self.ways.get(&role).is_some_and(|ways| ways.contains_key(&owner))
            || self.catalog.roles.get(&role).is_some_and(|role| role.superuser)
    }

    /// Whether somebody has a privilege, on the whole or on a column, by whatever way.
    pub fn may(&self, role: Oid, class: Class, object: Oid, owner: Oid, privilege: Privilege) -> bool {
        (role != PUBLIC && self.acts_as(role, owner))
            || self.grants_on(class, object).any(|entry| {
                entry.privilege == privilege
                    && (entry.grantee == PUBLIC
                        || entry.grantee == role
                        || self.ways.get(&role).is_some_and(|ways| ways.contains_key(&entry.grantee)))
            })
    }

    /// Whether somebody sees into a schema.
    pub fn sees(&self, role: Oid, schema: Oid) -> bool {
        if let Some(known) = self.usage.borrow().get(&(role, schema)) {
            return *known;
        }
        let sees = self
            .catalog
            .schemas
            .get(&schema)
            .is_some_and(|one| self.may(role, Class::Schema, schema, one.owner, Privilege::Usage));
        self.usage.borrow_mut().insert((role, schema), sees);
        sees
    }

    /// Whether somebody may connect to this database.
    pub fn connects(&self, role: Oid) -> bool {
        let current = self.catalog.databases.iter().find(|one| one.current);
        current.is_some_and(|one| self.may(role, Class::Database, one.oid, one.owner, Privilege::Connect))
    }

    /// Whether the declaration lets somebody.
    pub fn allows(&self, role: &str, object: &Object, column: Option<&str>, privilege: Privilege) -> bool {
        self.topology.allows(role, object, column, privilege, self.today)
    }

    /// Whether a schema is declared, and not on its way out.
    pub fn is_declared_schema(&self, name: &str) -> bool {
        self.topology.schemas.contains_key(name)
    }

    /// Whether a schema is one that the declaration speaks of.
    pub fn is_known_schema(&self, name: &str) -> bool {
        self.is_declared_schema(name) || self.topology.retired_schemas.contains(name)
    }

    /// `` `a` -> member of `b` ``
    pub fn way_text(&self, from: &str, way: &Way) -> String {
        let mut text = format!("`{from}`");
        for hop in &way.hops {
            let to = self.catalog.role_name(hop.of);
            let how = match (hop.inherit, hop.set, hop.admin) {
                (true, _, _) => "member of",
                (_, true, _) => "may SET ROLE to",
                (_, _, true) => "ADMIN of, and may make itself a member of",
                _ => "member, without its rights, of",
            };
            text.push_str(&format!(" -> {how} `{to}`"));
        }
        text
    }

    /// Subjects that may do something with an object, and see into its schema: everybody where everybody may.
    pub fn who(
        &self,
        class: Class,
        object: Oid,
        schema: Oid,
        owner: Oid,
        privilege: Privilege,
    ) -> impl Iterator<Item = &Subject> {
        let may = move |one: &Subject| self.may(one.oid, class, object, owner, privilege) && self.sees(one.oid, schema);
        let everybody = self.may(PUBLIC, class, object, owner, privilege) && self.sees(PUBLIC, schema);
        self.subjects.iter().filter(move |one| if everybody { one.oid == PUBLIC } else { may(one) })
    }

    /// How a subject comes to a privilege: the beginning of a path.
    pub fn path_to(&self, subject: &Subject, class: Class, object: Oid, owner: Oid, privilege: Privilege) -> String {
        let mine = |oid: Oid| oid == subject.oid || oid == PUBLIC;
        if mine(owner) || self.grants_on(class, object).any(|one| one.privilege == privilege && mine(one.grantee)) {
            return format!("`{}`", subject.name);
        }
        let by_grant = self.grants_on(class, object).filter(|one| one.privilege == privilege);
        let way = by_grant
            .map(|one| one.grantee)
            .chain([owner])
            .filter_map(|oid| self.way(subject.oid, oid))
            .min_by_key(|way| (way.how, way.hops.len()));
        way.map_or_else(|| format!("`{}`", subject.name), |way| self.way_text(&subject.name, way))
    }
}

/// Everybody whose reach matters: PUBLIC, bounded roles, and roles of which the declaration does not speak. Superusers
/// reach everything, and the role that audits is told apart.
fn subjects(catalog: &Catalog, topology: &Topology) -> Vec<Subject> {
    let mut found = vec![Subject { oid: PUBLIC, name: "PUBLIC".to_owned(), standing: Standing::Public }];
    let bounded: BTreeMap<&str, RoleKind> =
        topology.bounded_roles().map(|role| (role.name.as_str(), role.kind)).collect();
    let granted: BTreeSet<Oid> = catalog.acl.iter().map(|entry| entry.grantee).collect();
    for role in catalog.roles.values() {
        let standing = match bounded.get(role.name.as_str()) {
            Some(kind) => Standing::Bounded(*kind),
            None if topology.is_owner(&role.name) || role.superuser || role.name == catalog.session_user => continue,
            None if role.name.starts_with("pg_") && !granted.contains(&role.oid) => continue,
            None => Standing::Undeclared,
        };
        found.push(Subject { oid: role.oid, name: role.name.clone(), standing });
    }
    found
}
