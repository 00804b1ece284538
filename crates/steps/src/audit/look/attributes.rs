//! What a role is, whatever it was granted.

use super::Look;
use crate::audit::catalog::{BOOTSTRAP, Role};
use crate::audit::finding::{Finding, Severity};
use crate::audit::sql::ident;
use crate::topology::RoleKind;

/// The attribute, whether a role has it, and what it opens.
type Attribute = (&'static str, fn(&Role) -> bool, &'static str);

const ATTRIBUTES: &[Attribute] = &[
    ("SUPERUSER", |role| role.superuser, "nothing is denied to it"),
    ("BYPASSRLS", |role| role.bypass_rls, "row security does not bind it"),
    ("CREATEROLE", |role| role.create_role, "it makes roles, and gives itself those of others"),
    ("CREATEDB", |role| role.create_db, "it makes databases, and copies those that are templates"),
    ("REPLICATION", |role| role.replication, "it copies the whole cluster as a standby does"),
];

pub fn look(look: &mut Look<'_>) {
    let catalog = look.catalog;
    for role in catalog.roles.values() {
        let declared = look.topology.roles.get(&role.name);
        let kind = declared.map(|role| role.kind);
        let trusted = look.topology.is_owner(&role.name);
        for (word, _, why) in ATTRIBUTES.iter().filter(|(_, has, _)| has(role)) {
            let severity = match (kind, *word) {
                (Some(_), _) if !trusted => Severity::Error,
                // An owner may have been given what it needs to provision.
                (_, "SUPERUSER" | "BYPASSRLS" | "REPLICATION") if trusted => Severity::Warning,
                (_, "SUPERUSER" | "CREATEROLE" | "BYPASSRLS") if !trusted => Severity::Note,
                _ => continue,
            };
            let own = role.oid == BOOTSTRAP || role.name == catalog.session_user;
            // A superuser that the declaration does not know can do the rest anyway.
            if severity == Severity::Note && (own || (role.superuser && *word != "SUPERUSER") || !role.login) {
                continue;
            }
            look.tell_attribute(role, word, why, severity);
        }
        look.after_set_role(role, trusted, kind);
        if let Some(kind) = kind
            && role.login
            && !kind.logs_in()
        {
            let severity = if kind == RoleKind::Retired { Severity::Error } else { Severity::Warning };
            look.tell_attribute(role, "LOGIN", &format!("a {} role does not log in", kind.word()), severity);
        }
    }
}

impl Look<'_> {
    fn tell_attribute(&mut self, role: &Role, word: &str, why: &str, severity: Severity) {
        let known = self.topology.roles.contains_key(&role.name);
        self.put(Finding {
            rule: "role-attribute",
            severity,
            role: role.name.clone(),
            object: format!("role {}", role.name),
            path: format!("`{}` -> {word}", role.name),
            message: format!("{} has {word}: {why}", role.name),
            // Somebody made a role of which nobody speaks here; it is theirs to say what it is.
            mend: known.then(|| format!("ALTER ROLE {} NO{word};", ident(&role.name))),
        });
    }

    /// Attributes are not inherited, and are there after `SET ROLE`.
    fn after_set_role(&mut self, role: &Role, trusted: bool, kind: Option<RoleKind>) {
        if trusted || kind.is_none() {
            return;
        }
        let ways: Vec<_> = self.reach.ways(role.oid).map(|(oid, way)| (oid, way.clone())).collect();
        for (oid, way) in ways {
            let Some(other) = self.catalog.roles.get(&oid) else { continue };
            if self.reach.told_there(&way) || !way.hops.iter().all(|hop| hop.set || hop.admin) {
                continue;
            }
            let words: Vec<&str> = ATTRIBUTES.iter().filter(|(_, has, _)| has(other)).map(|(word, ..)| *word).collect();
            if words.is_empty() {
                continue;
            }
            let words = words.join(", ");
            self.put(Finding {
                rule: "role-attribute",
                severity: Severity::Error,
                role: role.name.clone(),
                object: format!("role {}", other.name),
                path: format!("{} -> {words}", self.reach.way_text(&role.name, &way)),
                message: format!("{} has {words} after SET ROLE {}", role.name, other.name),
                mend: Some(self.end_of(&way)),
            });
        }
    }
}
