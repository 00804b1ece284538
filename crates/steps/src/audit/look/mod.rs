//! What is looked for, one file for each kind of way; each takes the catalogs and the reach, and says what it found.

mod attributes;
mod code;
mod defaults;
mod exits;
mod memberships;
mod ownership;
mod privileges;
mod rows;
mod secrets;
mod settings;
mod views;

use std::collections::BTreeSet;

use jiff::civil::Date;

use super::catalog::{Catalog, Class, Oid, Relation, Routine};
use super::finding::{Audit, Examined, Finding, RULES, Severity};
use super::reach::{Reach, Standing, Subject};
use crate::topology::{Privilege, Topology};

/// Looks for everything.
pub fn look(catalog: &Catalog, topology: &Topology, today: Date) -> Audit {
    let reach = Reach::new(catalog, topology, today);
    let mut look = Look { reach: &reach, catalog, topology, findings: Vec::new(), texts: 0 };
    privileges::look(&mut look);
    memberships::look(&mut look);
    attributes::look(&mut look);
    ownership::look(&mut look);
    defaults::look(&mut look);
    views::look(&mut look);
    code::look(&mut look);
    exits::look(&mut look);
    rows::look(&mut look);
    settings::look(&mut look);
    secrets::look(&mut look);
    look.declaration();
    let examined = look.examined();
    if examined.roles == 0 || examined.relations + examined.routines == 0 {
        let what = if examined.roles == 0 { "no declared role" } else { "no object in a declared schema" };
        look.put(Finding {
            rule: "nothing-examined",
            severity: Severity::Error,
            role: "-".to_owned(),
            object: format!("database {}", catalog.database),
            path: format!("`{}`", catalog.database),
            message: format!("{what} exists in this database: an audit of nothing proves nothing"),
            mend: None,
        });
    }
    let mut findings = look.findings;
    findings.sort_by(|a, b| {
        let key = |one: &Finding| (std::cmp::Reverse(one.severity), one.rule, one.role.clone(), one.object.clone());
        key(a).cmp(&key(b)).then_with(|| a.path.cmp(&b.path))
    });
    findings.dedup();
    Audit { findings, examined }
}

/// The audit under way.
pub struct Look<'a> {
    pub reach: &'a Reach<'a>,
    pub catalog: &'a Catalog,
    pub topology: &'a Topology,
    pub findings: Vec<Finding>,
    /// How many texts were searched for secrets.
    pub texts: usize,
}

impl<'a> Look<'a> {
    pub fn put(&mut self, finding: Finding) {
        debug_assert!(RULES.iter().any(|rule| rule.id == finding.rule), "{} is not in the list", finding.rule);
        self.findings.push(finding);
    }

    /// Relations of declared schemas, and of those on their way out, without extensions'.
    pub fn declared_relations(&self) -> impl Iterator<Item = &'a Relation> + use<'a> {
        let reach = self.reach;
        self.catalog.relations.values().filter(|one| !one.extension && reach.is_known_schema(&one.object.schema))
    }

    pub fn declared_routines(&self) -> impl Iterator<Item = &'a Routine> + use<'a> {
        let reach = self.reach;
        let known = move |one: &&Routine| one.extension.is_none() && reach.is_known_schema(&one.object.schema);
        self.catalog.routines.values().filter(known)
    }

    /// Bounded roles that may change a table, each with the privileges by which it does.
    pub fn writers(&self, relation: &'a Relation) -> Vec<(&'a Subject, BTreeSet<Privilege>)> {
        let privileges = [Privilege::Insert, Privilege::Update, Privilege::Delete, Privilege::Truncate];
        let of = |subject: &Subject| -> BTreeSet<Privilege> {
            let may = |privilege: &Privilege| {
                self.reach.may(subject.oid, Class::Relation, relation.oid, relation.owner, *privilege)
            };
            privileges.into_iter().filter(may).collect()
        };
        let subjects = self.reach.subjects.iter().filter(|one| self.reach.sees(one.oid, relation.schema));
        subjects.map(|one| (one, of(one))).filter(|(_, privileges)| !privileges.is_empty()).collect()
    }

    /// The parent and everything below it.
    pub fn with_partitions(&self, parent: Oid) -> Vec<Oid> {
        let mut found = vec![parent];
        let mut at = 0;
        while at < found.len() {
            let below =
                self.catalog.partitions.iter().filter(|(parent, _)| *parent == found[at]).map(|(_, child)| *child);
            let below: Vec<Oid> = below.filter(|child| !found.contains(child)).collect();
            found.extend(below);
            at += 1;
        }
        found
    }

    /// What is declared and not there; exceptions that are over.
    fn declaration(&mut self) {
        let missing = |role: &str, object: String, what: &str| Finding {
            rule: "missing",
            severity: Severity::Warning,
            role: role.to_owned(),
            path: format!("declared in {}", self.topology.source),
            message: format!("{what} is declared and does not exist: nothing of it was examined"),
            object,
            mend: None,
        };
        let mut found = Vec::new();
        for role in self.topology.roles.values() {
            let gone = role.kind == crate::topology::RoleKind::Retired;
            if !gone && self.catalog.role(&role.name).is_none() {
                found.push(missing(&role.name, format!("role {}", role.name), "the role"));
            }
        }
        for name in self.topology.schemas.keys() {
            if !self.catalog.schemas.values().any(|one| one.name == *name) {
                found.push(missing("-", name.clone(), "the schema"));
            }
        }
        let rls = self.topology.row_security.iter().flat_map(|one| &one.tables);
        let tables: BTreeSet<_> = rls.chain(self.topology.append_only.iter().map(|one| &one.table)).collect();
        for table in tables {
            if self.catalog.relation(&table.schema, &table.name).is_none() {
                found.push(missing("-", table.to_string(), "the table"));
            }
        }
        for one in &self.topology.exceptions {
            if let Some(until) = one.until.filter(|until| self.reach.today > *until) {
                found.push(Finding {
                    rule: "expired-exception",
                    severity: Severity::Warning,
                    role: one.role.clone(),
                    object: one.on.clone(),
                    path: format!("`{}` -> exception until {until} -> `{}`", one.role, one.on),
                    message: format!(
                        "the exception ({}) ended on {until}: take it out of {}, or renew it",
                        one.why, self.topology.source
                    ),
                    mend: None,
                });
            }
        }
        self.findings.extend(found);
    }

    fn examined(&self) -> Examined {
        let known = |one: &&Subject| !matches!(one.standing, Standing::Public);
        let declared = self.topology.roles.keys().filter(|name| self.catalog.role(name).is_some()).count();
        let undeclared =
            self.reach.subjects.iter().filter(known).filter(|one| one.standing == Standing::Undeclared).count();
        let schemas = self.catalog.schemas.values().filter(|one| self.reach.is_declared_schema(&one.name)).count();
        Examined {
            // Others alone prove nothing about the declared.
            roles: if declared == 0 { 0 } else { declared + undeclared },
            schemas,
            relations: self.declared_relations().count(),
            routines: self.declared_routines().count(),
            acl_entries: self.catalog.acl_read,
            memberships: self.catalog.members.len(),
            policies: self.catalog.policies.len(),
            triggers: self.catalog.triggers.len(),
            texts: self.texts,
        }
    }
}

/// `a, b and c`, at most three by name.
pub fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [some @ .., last] if names.len() <= 3 => format!("{} and {last}", some.join(", ")),
        [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
    }
}
