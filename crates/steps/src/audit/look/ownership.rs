//! Owners: whoever owns something may do everything with it, and give it to anybody.

use super::Look;
use crate::audit::catalog::Oid;
use crate::audit::finding::{Finding, Severity};
use crate::audit::sql::ident;

pub fn look(look: &mut Look<'_>) {
    look.owned_by_bounded();
    look.owned_by_strangers();
}

/// The keyword of `ALTER ... OWNER TO` for what `pg_identify_object` calls a kind.
fn alter_word(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "table" => "TABLE",
        "view" => "VIEW",
        "materialized view" => "MATERIALIZED VIEW",
        "foreign table" => "FOREIGN TABLE",
        "sequence" => "SEQUENCE",
        "function" => "FUNCTION",
        "procedure" => "PROCEDURE",
        "aggregate" => "AGGREGATE",
        "type" | "composite type" => "TYPE",
        "domain" => "DOMAIN",
        "schema" => "SCHEMA",
        "database" => "DATABASE",
        "large object" => "LARGE OBJECT",
        "server" => "SERVER",
        "foreign-data wrapper" => "FOREIGN DATA WRAPPER",
        "publication" => "PUBLICATION",
        "subscription" => "SUBSCRIPTION",
        "event trigger" => "EVENT TRIGGER",
        "statistics object" => "STATISTICS",
        "language" => "LANGUAGE",
        "tablespace" => "TABLESPACE",
        "collation" => "COLLATION",
        "conversion" => "CONVERSION",
        "text search dictionary" => "TEXT SEARCH DICTIONARY",
        "text search configuration" => "TEXT SEARCH CONFIGURATION",
        "operator" => "OPERATOR",
        _ => return None,
    })
}

impl Look<'_> {
    fn owned_by_bounded(&mut self) {
        for one in &self.catalog.owned {
            let role = self.catalog.role_name(one.owner);
            let (object, mend) = match &one.what {
                Some((kind, identity)) => {
                    // An event trigger's owner must be a superuser, and the bootstrap one is.
                    let heir = match kind.as_str() {
                        "event trigger" => self.catalog.role_name(crate::audit::catalog::BOOTSTRAP),
                        _ => self.topology.owner.clone(),
                    };
                    let mend =
                        alter_word(kind).map(|word| format!("ALTER {word} {identity} OWNER TO {};", ident(&heir)));
                    let plain =
                        matches!(kind.as_str(), "table" | "view" | "sequence" | "function" | "materialized view");
                    let shown = identity.replace('"', "");
                    (if plain { shown } else { format!("{kind} {shown}") }, mend)
                }
                None => {
                    let database = self.catalog.databases.iter().find(|database| database.oid == one.database);
                    let name = database.map_or_else(|| one.database.to_string(), |database| database.name.clone());
                    let things = if one.count == 1 { "a thing" } else { "things" };
                    (format!("{things} in database {name}"), None)
                }
            };
            self.put(Finding {
                rule: "ownership",
                severity: Severity::Error,
                path: format!("`{role}` -> owner of `{object}`"),
                message: format!("{role} owns {object}: it may do everything with it, and let others"),
                role,
                object,
                mend,
            });
        }
    }

    fn owned_by_strangers(&mut self) {
        let mut found: Vec<(Oid, String, String)> = Vec::new();
        for one in
            self.catalog.schemas.values().filter(|one| self.reach.is_declared_schema(&one.name) && !one.extension)
        {
            found.push((one.owner, format!("schema {}", one.name), format!("SCHEMA {}", ident(&one.name))));
        }
        for one in self.declared_relations().filter(|one| !one.follows) {
            found.push((one.owner, one.object.to_string(), format!("{} {}", one.word(), one.sql())));
        }
        for one in self.declared_routines() {
            found.push((one.owner, one.object.to_string(), format!("{} {}", one.object.kind.grant_word(), one.sql())));
        }
        let known = |name: &str| self.reach.is_declared_schema(name);
        for one in self.catalog.types.values().filter(|one| !one.extension && known(&one.object.schema)) {
            let sql = format!("TYPE {}.{}", ident(&one.object.schema), ident(&one.object.name));
            found.push((one.owner, one.object.to_string(), sql));
        }
        for (owner, object, sql) in found {
            let role = self.catalog.role_name(owner);
            let bounded = self.topology.bounded_roles().any(|one| one.name == role);
            if self.topology.creators.contains(&role) || bounded {
                continue;
            }
            let superuser = self.catalog.roles.get(&owner).is_some_and(|role| role.superuser);
            let declared = self.topology.roles.contains_key(&role);
            let severity = if superuser || declared { Severity::Warning } else { Severity::Error };
            let why = match (superuser, declared) {
                (true, _) => "a superuser: what runs with its owner's rights is bound by nothing",
                (_, true) => "which shall create in the owner's name: it forgot SET ROLE",
                _ => "of which the declaration does not speak: it may do everything with it",
            };
            self.put(Finding {
                rule: "foreign-owner",
                severity,
                path: format!("`{role}` -> owner of `{object}`"),
                message: format!("{object} belongs to {role}, {why}"),
                role,
                object,
                mend: Some(format!("ALTER {sql} OWNER TO {};", ident(&self.topology.owner))),
            });
        }
    }
}
