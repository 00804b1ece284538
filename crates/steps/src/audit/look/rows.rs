//! Rows: row security as it is declared, and tables whose rows stay.
//!
//! What a policy lets through is read off its expression, as the server writes it with every name qualified. Permissive
//! policies are joined by OR, so that one too many is a hole; see <https://www.postgresql.org/docs/current/ddl-rowsecurity.html>.

use std::collections::BTreeSet;

use super::{Look, listed};
use crate::audit::catalog::{Class, Oid, PUBLIC, Policy, Relation, Trigger};
use crate::audit::finding::{Finding, Severity};
use crate::audit::reach::Standing;
use crate::audit::sql::{ident, qualified};
use crate::audit::words;
use crate::topology::{AppendOnly, Privilege, RowSecurity, Table, WithoutContext};

pub fn look(look: &mut Look<'_>) {
    for one in &look.topology.row_security {
        look.guard(one);
        for table in &one.tables {
            if let Some(table) = look.catalog.relation(&table.schema, &table.name) {
                look.row_security(one, table);
            }
        }
    }
    look.policies_asleep();
    for one in &look.topology.append_only {
        if let Some(table) = look.catalog.relation(&one.table.schema, &one.table.name) {
            look.append_only(one, table);
        }
    }
}

/// `schema.function()`, as the server writes a call with every name qualified.
fn call(guard: &Table) -> String {
    format!("{}()", qualified(&guard.schema, &guard.name))
}

/// The condition of a declared policy.
fn condition(one: &RowSecurity) -> String {
    format!("{} = {}", ident(&one.column), call(&one.guard))
}

fn roles_sql(one: &RowSecurity) -> String {
    one.roles.iter().map(|role| ident(role)).collect::<Vec<_>>().join(", ")
}

/// `pg_policy.polcmd`, its keyword, and the privilege that it is for.
const COMMANDS: &[(char, &str, Privilege)] = &[
    ('r', "SELECT", Privilege::Select),
    ('a', "INSERT", Privilege::Insert),
    ('w', "UPDATE", Privilege::Update),
    ('d', "DELETE", Privilege::Delete),
];

/// The clauses of a policy for a command.
fn clauses(command: char, condition: &str) -> String {
    match command {
        'a' => format!("WITH CHECK ({condition})"),
        'r' | 'd' => format!("USING ({condition})"),
        _ => format!("USING ({condition}) WITH CHECK ({condition})"),
    }
}

/// A finding of somebody, of which the rest is still to be said.
fn begun(rule: &'static str, severity: Severity, roles: &[String], object: &str) -> Finding {
    let role = if roles.is_empty() { "PUBLIC".to_owned() } else { listed(roles) };
    let (path, message) = (String::new(), String::new());
    Finding { rule, severity, role, object: object.to_owned(), path, message, mend: None }
}

impl<'a> Look<'a> {
    fn row_security(&mut self, one: &'a RowSecurity, table: &'a Relation) {
        let shown = table.object.to_string();
        let whose = format!("`{}`", listed(&one.roles));
        if !table.row_security {
            self.put(Finding {
                path: format!("{whose} -> `{shown}` -> rows of every tenant"),
                message: format!("row security of `{shown}` is declared and not enabled: every row is seen"),
                mend: Some(format!("ALTER TABLE {} ENABLE ROW LEVEL SECURITY;", table.sql())),
                ..begun("rls-disabled", Severity::Error, &one.roles, &shown)
            });
        }
        if one.force && !table.force {
            let owner = self.catalog.role_name(table.owner);
            self.put(Finding {
                path: format!("`{owner}` -> owner of `{shown}` -> rows of every tenant"),
                message: format!("row security of `{shown}` does not bind its owner, as declared"),
                mend: Some(format!("ALTER TABLE {} FORCE ROW LEVEL SECURITY;", table.sql())),
                ..begun("rls-not-forced", Severity::Error, std::slice::from_ref(&owner), &shown)
            });
        }
        self.policies(one, table);
        for child in self.with_partitions(table.oid).into_iter().skip(1) {
            let Some(child) = self.catalog.relations.get(&child) else { continue };
            self.partition(one, table, child);
        }
    }

    fn partition(&mut self, one: &'a RowSecurity, parent: &Relation, child: &'a Relation) {
        if child.row_security {
            // With none it shows nothing; with one, that one decides.
            self.judge(one, child);
            return;
        }
        let by_itself: Vec<String> = self
            .reach
            .who(Class::Relation, child.oid, child.schema, child.owner, Privilege::Select)
            .filter(|who| who.standing != Standing::Undeclared)
            .map(|who| who.name.clone())
            .collect();
        let shown = child.object.to_string();
        let severity = if by_itself.is_empty() { Severity::Warning } else { Severity::Error };
        let roles = if by_itself.is_empty() { one.roles.clone() } else { by_itself };
        self.put(Finding {
            path: format!("`{}` -> `{shown}` itself, past `{}` -> rows of every tenant", listed(&roles), parent.object),
            message: format!(
                "`{shown}` holds rows of `{}` and has no row security of its own: whoever names it sees them all",
                parent.object
            ),
            mend: Some(format!("ALTER TABLE {} ENABLE ROW LEVEL SECURITY;", child.sql())),
            ..begun("rls-partition", severity, &roles, &shown)
        });
    }

    fn policies_of(&self, table: Oid) -> Vec<&'a Policy> {
        self.catalog.policies.iter().filter(|one| one.relation == table).collect()
    }

    fn policies(&mut self, one: &'a RowSecurity, table: &'a Relation) {
        self.judge(one, table);
        let all = self.policies_of(table.oid);
        let shown = table.object.to_string();
        for (command, word, privilege) in COMMANDS {
            let without: Vec<String> = one
                .roles
                .iter()
                .filter(|role| self.reach.allows(role, &table.object, None, *privilege))
                .filter(|role| {
                    let Some(known) = self.catalog.role(role) else { return false };
                    !all.iter().any(|policy| {
                        policy.permissive
                            && (policy.command == *command || policy.command == '*')
                            && policy.roles.iter().any(|to| *to == PUBLIC || self.reach.acts_as(known.oid, *to))
                    })
                })
                .cloned()
                .collect();
            if without.is_empty() {
                continue;
            }
            let taken = all.iter().any(|policy| policy.name == one.policy());
            let name = if taken { format!("{}_{}", one.policy(), word.to_lowercase()) } else { one.policy() };
            let (kind, clause) = match taken {
                true => (format!(" FOR {word}"), clauses(*command, &condition(one))),
                false => (String::new(), clauses('*', &condition(one))),
            };
            self.put(Finding {
                path: format!("`{}` -> {word} on `{shown}` -> no policy", listed(&without)),
                message: format!(
                    "no policy of `{shown}` is for {word} by {}: nothing is let through",
                    listed(&without)
                ),
                mend: Some(format!(
                    "CREATE POLICY {} ON {}{kind} TO {} {clause};",
                    ident(&name),
                    table.sql(),
                    roles_sql(one)
                )),
                ..begun("rls-policy-missing", Severity::Warning, &without, &shown)
            });
        }
    }

    /// What each policy of a table lets through.
    fn judge(&mut self, one: &'a RowSecurity, table: &'a Relation) {
        let shown = table.object.to_string();
        for policy in self.policies_of(table.oid) {
            // A restrictive one only takes away.
            if !policy.permissive {
                continue;
            }
            let name = ident(&policy.name);
            let on = table.sql();
            let to: Vec<String> = policy.roles.iter().map(|oid| self.catalog.role_name(*oid)).collect();
            let path = format!("`{}` -> policy `{}` on `{shown}`", listed(&to), policy.name);
            let declared = policy.name == one.policy() || policy.name.starts_with(&format!("{}_", one.policy()));
            if !declared {
                self.put(Finding {
                    path: format!("{path} -> the rows that it lets through"),
                    message: format!(
                        "the policy `{}` of `{shown}` lets rows through beside the declared `{}`",
                        policy.name,
                        one.policy()
                    ),
                    mend: Some(format!("DROP POLICY {name} ON {on};")),
                    ..begun("rls-policy-leftover", Severity::Error, &to, &shown)
                });
                continue;
            }
            let again = Some(format!("ALTER POLICY {name} ON {on} {};", clauses(policy.command, &condition(one))));
            let expressions: Vec<&str> = policy.using.iter().chain(&policy.check).map(String::as_str).collect();
            if let Some(open) = expressions.iter().find(|text| words::is_always_true(text) || words::fails_open(text)) {
                let why =
                    if words::is_always_true(open) { "hides no row" } else { "hides no row while no tenant is set" };
                self.put(Finding {
                    path: format!("{path} -> rows of every tenant"),
                    message: format!("the policy `{}` of `{shown}` {why}: {open}", policy.name),
                    mend: again.clone(),
                    ..begun("rls-policy-open", Severity::Error, &to, &shown)
                });
            } else if let Some(text) = expressions.iter().find(|text| !guards(one, text)) {
                self.put(Finding {
                    path: format!("{path} -> {text}"),
                    message: format!(
                        "the policy `{}` of `{shown}` does not compare `{}` with {}",
                        policy.name,
                        one.column,
                        call(&one.guard)
                    ),
                    mend: again,
                    ..begun("rls-policy-unguarded", Severity::Error, &to, &shown)
                });
            }
            if policy.roles.contains(&PUBLIC) {
                self.put(Finding {
                    path: format!("{path} -> rows of the tenant that is set"),
                    message: format!(
                        "the policy `{}` of `{shown}` is for every role, and not for {}",
                        policy.name,
                        listed(&one.roles)
                    ),
                    mend: Some(format!("ALTER POLICY {name} ON {on} TO {};", roles_sql(one))),
                    ..begun("rls-policy-public", Severity::Warning, &["PUBLIC".to_owned()], &shown)
                });
            }
        }
    }

    /// The function that says which tenant it is.
    fn guard(&mut self, one: &'a RowSecurity) {
        let found = self.catalog.routines.values().find(|guard| {
            guard.object.schema == one.guard.schema && guard.name == one.guard.name && guard.arguments.is_empty()
        });
        let shown = call(&one.guard);
        let path = format!("`{}` -> {shown}", listed(&one.roles));
        let Some(guard) = found else {
            let message = format!("the guard {shown} of the row security `{}` does not exist", one.name);
            return self.put(Finding {
                path,
                message,
                mend: None,
                ..begun("rls-guard", Severity::Error, &one.roles, &shown)
            });
        };
        let body = guard.body.as_deref().unwrap_or_default();
        let lower = body.to_lowercase();
        let silent = lower.replace(char::is_whitespace, "").contains(",true)");
        let why = match one.without {
            _ if guard.definer => "runs with its owner's rights, for which there is no reason",
            _ if !lower.contains(&one.setting.to_lowercase()) => "does not read the declared setting",
            // `coalesce(..., '00000000-...')`: a tenant that is set by nobody.
            _ if words::fails_open(body) && lower.contains("coalesce") => {
                "takes a value of its own where no tenant is set"
            }
            WithoutContext::Error if silent && !words::raises(body) => {
                "says nothing where no tenant is set, and is declared to raise an error"
            }
            _ => return,
        };
        let message = format!("the guard {shown} {why}");
        let mend = guard.definer.then(|| format!("ALTER FUNCTION {} SECURITY INVOKER;", guard.sql()));
        self.put(Finding {
            path,
            message,
            mend,
            ..begun("rls-guard", Severity::Error, &one.roles, &guard.object.to_string())
        });
    }

    /// Policies that nobody asks, on tables of which nothing is declared.
    fn policies_asleep(&mut self) {
        let declared: BTreeSet<&Table> = self.topology.row_security.iter().flat_map(|one| &one.tables).collect();
        let with_policy: BTreeSet<Oid> = self.catalog.policies.iter().map(|one| one.relation).collect();
        for oid in with_policy {
            let Some(table) = self.catalog.relations.get(&oid) else { continue };
            let known = self.reach.is_known_schema(&table.object.schema);
            let told = declared.iter().any(|one| one.schema == table.object.schema && one.name == table.object.name);
            if table.row_security || !known || told {
                continue;
            }
            let shown = table.object.to_string();
            self.put(Finding {
                path: format!("`{shown}` -> policies that are not asked"),
                message: format!("`{shown}` has policies, and its row security is not enabled"),
                mend: Some(format!("ALTER TABLE {} ENABLE ROW LEVEL SECURITY;", table.sql())),
                ..begun("rls-disabled", Severity::Warning, &[], &shown)
            });
        }
    }

    fn append_only(&mut self, one: &'a AppendOnly, table: &'a Relation) {
        for oid in self.with_partitions(table.oid) {
            let Some(part) = self.catalog.relations.get(&oid) else { continue };
            self.keeps_its_rows(one, part);
        }
        let who: Vec<_> = self
            .reach
            .grants_on(Class::Relation, table.oid)
            .filter(|entry| entry.privilege == Privilege::Truncate && entry.grantor == table.owner)
            .map(|entry| entry.grantee)
            .collect();
        for grantee in who {
            let role = self.catalog.role_name(grantee);
            let shown = table.object.to_string();
            let to = self.catalog.grantee_sql(grantee);
            self.put(Finding {
                path: format!("`{role}` -> TRUNCATE on `{shown}`"),
                message: format!("{role} has TRUNCATE on the append-only `{shown}`"),
                mend: Some(format!("REVOKE TRUNCATE ON {} FROM {to};", table.sql())),
                ..begun("append-only-truncate", Severity::Error, std::slice::from_ref(&role), &shown)
            });
        }
    }

    fn keeps_its_rows(&mut self, one: &AppendOnly, table: &'a Relation) {
        const ROW: i32 = 1;
        let all: Vec<&Trigger> = self.catalog.triggers.iter().filter(|trigger| trigger.relation == table.oid).collect();
        let rejects = |trigger: &&&Trigger| {
            self.catalog.routines.get(&trigger.function).is_some_and(|function| {
                // What is not SQL is not read: a C function may do what it says.
                !matches!(function.language.as_str(), "plpgsql" | "sql")
                    || words::raises(function.body.as_deref().unwrap_or_default())
            })
        };
        let shown = table.object.to_string();
        let mut told: BTreeSet<&str> = BTreeSet::new();
        let mut gaps = Vec::new();
        for (bit, word, privilege) in
            [(16, "UPDATE", Privilege::Update), (8, "DELETE", Privilege::Delete), (32, "TRUNCATE", Privilege::Truncate)]
        {
            // An UPDATE of the status column may pass, by a condition.
            let whole = |trigger: &&&Trigger| {
                let partly = trigger.conditional || (bit == 16 && trigger.columns);
                !partly || (bit == 16 && one.status.is_some())
            };
            let covering: Vec<&&Trigger> =
                all.iter().filter(|trigger| trigger.bits & bit != 0).filter(whole).filter(rejects).collect();
            let writers: Vec<String> = self
                .writers(table)
                .into_iter()
                .filter(|(_, held)| held.contains(&privilege))
                .map(|(who, _)| who.name.clone())
                .collect();
            let who = if writers.is_empty() { vec![self.catalog.role_name(table.owner)] } else { writers };
            let path = format!("`{}` -> {word} on `{shown}`", listed(&who));
            if covering.is_empty() {
                // By the function of another trigger that rejects everything, where there is one.
                let other = all
                    .iter()
                    .filter(rejects)
                    .filter(|trigger| {
                        !trigger.conditional && trigger.bits & bit == 0 && (bit != 16 || one.status.is_none())
                    })
                    .find_map(|trigger| self.catalog.routines.get(&trigger.function));
                let mend = other.map(|function| {
                    let name = ident(&format!("append_only_{}", word.to_lowercase()));
                    format!(
                        "CREATE TRIGGER {name} BEFORE {word} ON {on} FOR EACH STATEMENT EXECUTE FUNCTION {}; \
                         ALTER TABLE {on} ENABLE ALWAYS TRIGGER {name};",
                        function.sql(),
                        on = table.sql()
                    )
                });
                let message = format!("nothing rejects {word} of the append-only `{shown}`");
                gaps.push(("append-only-open", Severity::Error, who, path, message, mend));
                continue;
            }
            if covering.iter().any(|trigger| trigger.enabled == 'A') {
                continue;
            }
            let Some(trigger) = covering.iter().max_by_key(|trigger| trigger.enabled == 'O') else { continue };
            if !told.insert(&trigger.name) {
                continue;
            }
            let name = ident(&trigger.name);
            let mend = Some(format!("ALTER TABLE {} ENABLE ALWAYS TRIGGER {name};", table.sql()));
            let by = if trigger.bits & ROW != 0 { "row" } else { "statement" };
            if trigger.enabled == 'O' {
                let path = format!("`{}` -> session_replication_role = replica -> {word} on `{shown}`", listed(&who));
                let message =
                    format!("the {by} trigger `{}` of `{shown}` does not fire in a replica session", trigger.name);
                gaps.push(("append-only-replica", Severity::Warning, who, path, message, mend));
            } else {
                let how = if trigger.enabled == 'D' { "disabled" } else { "for replica sessions alone" };
                let message = format!("the {by} trigger `{}` that keeps the rows of `{shown}` is {how}", trigger.name);
                gaps.push(("append-only-disabled", Severity::Error, who, path, message, mend));
            }
        }
        for (rule, severity, who, path, message, mend) in gaps {
            self.put(Finding { path, message, mend, ..begun(rule, severity, &who, &shown) });
        }
    }
}

/// Whether an expression compares the tenant's column with the guard.
fn guards(one: &RowSecurity, expression: &str) -> bool {
    let text = expression.replace(char::is_whitespace, "");
    let wanted = call(&one.guard).replace(char::is_whitespace, "");
    text.contains(&wanted) && text.contains(&ident(&one.column))
}
