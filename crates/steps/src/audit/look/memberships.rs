//! Memberships that are not declared, ADMIN options, and PostgreSQL's own roles.

use std::collections::BTreeMap;

use super::Look;
use crate::audit::catalog::{BOOTSTRAP, Member, Oid};
use crate::audit::finding::{Finding, Severity};
use crate::audit::reach::{Standing, Subject};

/// What each predefined role opens; see <https://www.postgresql.org/docs/current/predefined-roles.html>.
///
/// Those that a role of which the declaration does not speak must not have either are the errors: they reach the declared
/// schemas, or the server's files and programs.
const PREDEFINED: &[(&str, Severity, &str)] = &[
    ("pg_read_all_data", Severity::Error, "it reads every table of every schema"),
    ("pg_write_all_data", Severity::Error, "it writes every table of every schema"),
    ("pg_maintain", Severity::Error, "it locks and rewrites every table of every schema"),
    ("pg_execute_server_program", Severity::Error, "it runs programs as the server's user, and so reads everything"),
    ("pg_read_server_files", Severity::Error, "it reads the server's files, the tables among them"),
    ("pg_write_server_files", Severity::Error, "it writes the server's files"),
    ("pg_create_subscription", Severity::Warning, "it brings in rows from elsewhere"),
    ("pg_signal_backend", Severity::Warning, "it ends the sessions of other tenants"),
    ("pg_signal_autovacuum_worker", Severity::Warning, "it ends the workers that clean up"),
    ("pg_monitor", Severity::Warning, "it sees the statements of all sessions, with what stands in them"),
    ("pg_read_all_stats", Severity::Warning, "it sees the statements of all sessions, with what stands in them"),
    ("pg_read_all_settings", Severity::Warning, "it sees settings that only superusers see"),
    ("pg_stat_scan_tables", Severity::Warning, "it holds locks on tables for long"),
    ("pg_checkpoint", Severity::Warning, "it makes the server write everything out"),
    ("pg_use_reserved_connections", Severity::Warning, "it takes connections that are kept for administrators"),
];

pub fn look(look: &mut Look<'_>) {
    let reach = look.reach;
    for subject in &reach.subjects {
        look.memberships(subject);
        look.predefined(subject);
    }
    for role in look.catalog.roles.values() {
        let owner = look.topology.is_owner(&role.name);
        let operator = role.name == look.catalog.session_user && !look.topology.roles.contains_key(&role.name);
        if (owner || operator) && !role.superuser {
            look.of_the_trusted(role.oid, &role.name, owner);
        }
    }
}

impl Look<'_> {
    fn memberships(&mut self, subject: &Subject) {
        // PostgreSQL's own roles are members of each other.
        if subject.name.starts_with("pg_") {
            return;
        }
        let mut by_role: BTreeMap<Oid, Vec<Member>> = BTreeMap::new();
        for one in self.reach.memberships(subject.oid) {
            by_role.entry(one.of).or_default().push(*one);
        }
        for (of, all) in by_role {
            let name = self.catalog.role_name(of);
            // Told of as what it is.
            if name.starts_with("pg_") {
                continue;
            }
            let declared = self.reach.is_declared(&all[0]);
            let matters = match subject.standing {
                Standing::Bounded(_) => true,
                _ => self.topology.roles.contains_key(&name),
            };
            if !declared && matters && !self.is_creators_own(subject, &all) {
                self.tell_membership(subject, &name, &all);
            } else if let Some(admin) = all.iter().find(|one| one.admin && declared) {
                self.put(Finding {
                    rule: "admin-option",
                    severity: Severity::Error,
                    role: subject.name.clone(),
                    object: format!("role {name}"),
                    path: format!("`{}` -> ADMIN of `{name}`", subject.name),
                    message: format!("{} may make anybody a member of {name}", subject.name),
                    mend: Some(self.end_of_membership(admin, "ADMIN OPTION FOR ")),
                });
            }
        }
    }

    /// From 16 on, whoever creates a role is given ADMIN of it by the system, and nothing else.
    fn is_creators_own(&self, subject: &Subject, all: &[Member]) -> bool {
        let creates = self.catalog.roles.get(&subject.oid).is_some_and(|role| role.create_role);
        subject.standing == Standing::Undeclared
            && creates
            && all.iter().all(|one| one.grantor == BOOTSTRAP && one.admin && !one.inherit && !one.set)
    }

    fn tell_membership(&mut self, subject: &Subject, name: &str, all: &[Member]) {
        let Some(way) = self.reach.way(subject.oid, all[0].of).cloned() else {
            return self.tell_powerless(subject, name, all);
        };
        let target = self.catalog.roles.get(&all[0].of);
        let what = match self.topology.roles.get(name) {
            Some(role) if self.topology.is_owner(name) => {
                format!(", the {} of the schemas: it may do everything with everything in them", role.kind.word())
            }
            Some(role) => format!(", a {} role: it may do what that may", role.kind.word()),
            None if target.is_some_and(|role| role.superuser) => ", a superuser: it may do everything".to_owned(),
            None if self.topology.is_owner(name) => ", which owns what is in the schemas".to_owned(),
            None => ", of which the declaration does not speak".to_owned(),
        };
        self.put(Finding {
            rule: "membership",
            severity: Severity::Error,
            role: subject.name.clone(),
            object: format!("role {name}"),
            path: self.reach.way_text(&subject.name, &way),
            message: format!("{} is a member of {name}{what}; that is not declared", subject.name),
            mend: Some(self.end_of(&way)),
        });
    }

    fn tell_powerless(&mut self, subject: &Subject, name: &str, all: &[Member]) {
        let ends: Vec<String> = all.iter().map(|one| self.end_of_membership(one, "")).collect();
        self.put(Finding {
            rule: "membership",
            severity: Severity::Warning,
            role: subject.name.clone(),
            object: format!("role {name}"),
            path: format!("`{}` -> member, without its rights, of `{name}`", subject.name),
            message: format!(
                "{} is a member of {name} without any option: it gains nothing now, and is not declared",
                subject.name
            ),
            mend: Some(ends.join(" ")),
        });
    }

    /// Owners, creators and migration roles, and the role that audits.
    fn of_the_trusted(&mut self, oid: Oid, role: &str, owner: bool) {
        let others: Vec<Member> =
            self.reach.memberships(oid).iter().filter(|one| !self.reach.is_declared(one)).copied().collect();
        for one in others {
            let name = self.catalog.role_name(one.of);
            let to_bounded = self.topology.roles.contains_key(&name) && !self.topology.is_owner(&name);
            // What owns everything gains nothing by the rights of those that it bounds.
            if (owner && to_bounded) || (!owner && !self.topology.roles.contains_key(&name)) {
                continue;
            }
            let powers = one.inherit || one.set;
            if !owner && !powers {
                continue;
            }
            let (severity, message) = match owner {
                true => (Severity::Warning, format!("{role} is a member of {name}, which is not declared")),
                false => {
                    (Severity::Note, format!("{role}, the role that this audit connects as, is a member of {name}"))
                }
            };
            self.put(Finding {
                rule: "membership",
                severity,
                role: role.to_owned(),
                object: format!("role {name}"),
                path: format!("`{role}` -> member of `{name}`"),
                message,
                mend: owner.then(|| self.end_of_membership(&one, "")),
            });
        }
    }

    fn predefined(&mut self, subject: &Subject) {
        if subject.name.starts_with("pg_") {
            return;
        }
        let ways: Vec<_> = self.reach.ways(subject.oid).map(|(oid, way)| (oid, way.clone())).collect();
        for (oid, way) in ways {
            let name = self.catalog.role_name(oid);
            let Some((_, severity, why)) = PREDEFINED.iter().find(|(known, ..)| *known == name) else { continue };
            // By another one that is told of: pg_monitor brings three.
            let through = way.hops.iter().rev().skip(1).any(|hop| self.catalog.role_name(hop.of).starts_with("pg_"));
            let bounded = matches!(subject.standing, Standing::Bounded(_));
            // The roles of other databases of the cluster: who does not get in reads nothing here.
            let outside = !bounded && name.ends_with("_data") && !self.reach.connects(subject.oid);
            if outside || through || self.reach.told_there(&way) || (!bounded && *severity != Severity::Error) {
                continue;
            }
            self.put(Finding {
                rule: "predefined-role",
                severity: *severity,
                role: subject.name.clone(),
                object: format!("role {name}"),
                path: self.reach.way_text(&subject.name, &way),
                message: format!("{} has the rights of {name}: {why}", subject.name),
                mend: Some(self.end_of(&way)),
            });
        }
    }
}
