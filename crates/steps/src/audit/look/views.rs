//! Views: whoever may read one reads what it reads, with its owner's rights.
//!
//! A view's definition is checked as its owner, unless it says `security_invoker` (from 15 on); a materialized view holds
//! what its owner read. Views may stand on views, so the crossing is followed down to the tables.

use std::collections::{BTreeMap, BTreeSet};

use super::Look;
use crate::audit::catalog::{Class, Oid, PUBLIC, Relation};
use crate::audit::finding::{Finding, Severity};
use crate::audit::reach::Subject;
use crate::topology::{Kind, Privilege};

pub fn look(look: &mut Look<'_>) {
    let mut refers: BTreeMap<Oid, BTreeSet<Oid>> = BTreeMap::new();
    for one in look.catalog.rewrites.iter().filter(|one| one.event == '1') {
        refers.entry(one.relation).or_default().insert(one.refers);
    }
    let views = look.catalog.relations.values().filter(|one| !one.extension);
    for view in views.filter(|one| matches!(one.object.kind, Kind::View | Kind::MaterializedView)) {
        if view.invoker && view.object.kind == Kind::View {
            continue;
        }
        let schema = look.topology.schemas.get(&view.object.schema);
        if schema.is_some_and(|schema| schema.owner_rights.contains(&view.object.name)) {
            continue;
        }
        let reads = look.reads(view, &refers);
        look.crossing_reads(view, &reads);
        look.crossing_writes(view, &reads);
        look.past_row_security(view, &reads);
    }
}

/// A relation that a view leads to, and the views between.
struct Read<'a> {
    to: &'a Relation,
    through: Vec<&'a Relation>,
}

impl<'a> Look<'a> {
    /// What a view shows of, as its owner, over as many views as stand between.
    fn reads(&self, view: &'a Relation, refers: &BTreeMap<Oid, BTreeSet<Oid>>) -> Vec<Read<'a>> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::from([view.oid]);
        let mut open: Vec<(&'a Relation, Vec<&'a Relation>)> = vec![(view, Vec::new())];
        while let Some((at, through)) = open.pop() {
            for oid in refers.get(&at.oid).into_iter().flatten() {
                let Some(to) = self.catalog.relations.get(oid) else { continue };
                if to.object.kind == Kind::Sequence || !seen.insert(to.oid) {
                    continue;
                }
                found.push(Read { to, through: through.clone() });
                // A view that asks for its reader's rights stops it; what a materialized view holds, it holds.
                if to.object.kind == Kind::View && !to.invoker {
                    let mut further = through.clone();
                    further.push(to);
                    open.push((to, further));
                }
            }
        }
        found.sort_by_key(|read| (read.through.len(), read.to.oid));
        found
    }

    /// `SELECT on view -> view2 (rights of x)`: how a subject comes to it.
    fn through(&self, subject: &Subject, view: &'a Relation, read: &Read<'_>, privilege: Privilege) -> String {
        let mut path = self.reach.path_to(subject, Class::Relation, view.oid, view.owner, privilege);
        let owner = |one: &Relation| self.catalog.role_name(one.owner);
        path.push_str(&format!(" -> {privilege} on `{}` (rights of `{}`)", view.object, owner(view)));
        for one in &read.through {
            path.push_str(&format!(" -> `{}` (rights of `{}`)", one.object, owner(one)));
        }
        path
    }

    /// Whether what a view leads to is beyond what a subject may: in another schema, and not declared.
    fn crosses(&self, subject: &Subject, view: &Relation, to: &Relation, privilege: Privilege) -> bool {
        to.schema != view.schema
            && self.reach.is_known_schema(&to.object.schema)
            && !self.reach.allows(&subject.name, &to.object, None, privilege)
    }

    fn crossing_reads(&mut self, view: &'a Relation, reads: &[Read<'a>]) {
        let reach = self.reach;
        for subject in reach.who(Class::Relation, view.oid, view.schema, view.owner, Privilege::Select) {
            let crossing: Vec<&Read<'_>> =
                reads.iter().filter(|read| self.crosses(subject, view, read.to, Privilege::Select)).collect();
            // The table at the end says more than the view before it.
            let Some(last) = crossing.iter().find(|read| read.to.object.kind != Kind::View).or(crossing.first()) else {
                continue;
            };
            let names: Vec<String> = crossing.iter().map(|read| format!("`{}`", read.to.object)).collect();
            let path = self.through(subject, view, last, Privilege::Select);
            let kind = view.object.kind.word();
            self.put(Finding {
                rule: "owner-rights-view",
                severity: Severity::Error,
                role: subject.name.clone(),
                object: view.object.to_string(),
                path: format!("{path} -> SELECT on `{}`", last.to.object),
                message: format!(
                    "{} reads {} through the {kind} `{}`, which runs with the rights of {}",
                    subject.name,
                    super::listed(&names),
                    view.object,
                    self.catalog.role_name(view.owner)
                ),
                mend: self.invoker(subject, view, &[Privilege::Select]),
            });
        }
    }

    fn crossing_writes(&mut self, view: &'a Relation, reads: &[Read<'a>]) {
        let reach = self.reach;
        let writes = [(Privilege::Update, 4), (Privilege::Insert, 8), (Privilege::Delete, 16)];
        let writes: Vec<Privilege> =
            writes.into_iter().filter(|(_, bit)| view.updatable & bit != 0).map(|(privilege, _)| privilege).collect();
        let mut told: BTreeMap<&str, (BTreeSet<Privilege>, String, String)> = BTreeMap::new();
        let mut subjects: BTreeMap<&str, &Subject> = BTreeMap::new();
        for privilege in writes {
            for subject in reach.who(Class::Relation, view.oid, view.schema, view.owner, privilege) {
                let crossing = reads.iter().find(|read| {
                    matches!(read.to.object.kind, Kind::Table | Kind::ForeignTable)
                        && self.crosses(subject, view, read.to, privilege)
                });
                let Some(read) = crossing else { continue };
                let path = self.through(subject, view, read, privilege);
                let entry = told.entry(&subject.name).or_insert_with(|| {
                    (
                        BTreeSet::new(),
                        format!("{path} -> {privilege} on `{}`", read.to.object),
                        read.to.object.to_string(),
                    )
                });
                entry.0.insert(privilege);
                subjects.insert(&subject.name, subject);
            }
        }
        for (name, (privileges, path, to)) in told {
            let list: Vec<Privilege> = privileges.into_iter().collect();
            let words: Vec<&str> = list.iter().map(|one| one.sql()).collect();
            let Some(subject) = subjects.get(name) else { continue };
            self.put(Finding {
                rule: "owner-rights-write",
                severity: Severity::Error,
                role: name.to_owned(),
                object: view.object.to_string(),
                path,
                message: format!(
                    "{name} writes to `{to}` ({}) through the view `{}`, which runs with the rights of {}",
                    words.join(", "),
                    view.object,
                    self.catalog.role_name(view.owner)
                ),
                mend: self.invoker(subject, view, &list),
            });
        }
    }

    /// A view whose owner no policy binds shows every tenant's rows.
    fn past_row_security(&mut self, view: &'a Relation, reads: &[Read<'a>]) {
        let reach = self.reach;
        let declared = |table: &Relation| {
            self.topology
                .row_security
                .iter()
                .flat_map(|one| &one.tables)
                .any(|one| one.schema == table.object.schema && one.name == table.object.name)
        };
        for read in reads {
            if read.to.object.kind != Kind::Table || !(declared(read.to) || read.to.row_security) {
                continue;
            }
            // As whom the table is read: the owner of the last view before it.
            let owner = read.through.last().map_or(view.owner, |last| last.owner);
            let role = self.catalog.roles.get(&owner);
            let above = role.is_some_and(|role| role.superuser || role.bypass_rls);
            let held = view.object.kind == Kind::MaterializedView;
            let owns = reach.acts_as(owner, read.to.owner) && !read.to.force;
            if !(above || owns || held) {
                continue;
            }
            let why = match (held, above) {
                (true, _) => "it holds the rows of every tenant that its owner saw",
                (_, true) => "its owner is bound by no policy",
                _ => "its owner owns the table, and row security is not forced",
            };
            for subject in reach.who(Class::Relation, view.oid, view.schema, view.owner, Privilege::Select) {
                let path = self.through(subject, view, read, Privilege::Select);
                self.put(Finding {
                    rule: "view-past-rls",
                    severity: Severity::Error,
                    role: subject.name.clone(),
                    object: view.object.to_string(),
                    path: format!("{path} -> rows of every tenant in `{}`", read.to.object),
                    message: format!(
                        "`{}` shows {} rows of `{}` past its policies: {why}",
                        view.object, subject.name, read.to.object
                    ),
                    mend: self.invoker(subject, view, &[Privilege::Select]),
                });
            }
        }
    }

    /// The view with its reader's rights; where it cannot have them, the grant that opens it.
    fn invoker(&self, subject: &Subject, view: &Relation, privileges: &[Privilege]) -> Option<String> {
        if view.object.kind == Kind::View && self.catalog.version >= 150_000 {
            return Some(format!("ALTER VIEW {} SET (security_invoker = true);", view.sql()));
        }
        let words: Vec<&str> = privileges.iter().map(|one| one.sql()).collect();
        let held: BTreeSet<Oid> = self
            .reach
            .grants_on(Class::Relation, view.oid)
            .filter(|entry| privileges.contains(&entry.privilege) && entry.grantor == view.owner)
            .map(|entry| entry.grantee)
            .filter(|oid| *oid == PUBLIC || *oid == subject.oid || self.reach.way(subject.oid, *oid).is_some())
            .collect();
        let from: Vec<String> = held.into_iter().map(|oid| self.catalog.grantee_sql(oid)).collect();
        (!from.is_empty()).then(|| format!("REVOKE {} ON {} FROM {};", words.join(", "), view.sql(), from.join(", ")))
    }
}
