//! What an audit says, and the list of what it looks for.

use std::collections::BTreeMap;

pub use pgrunbook_document::Severity;

/// One thing that is not as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Of [`RULES`].
    pub rule: &'static str,
    /// A real crossing is an error, one that something else still prevents a warning.
    pub severity: Severity,
    /// Who reaches it; `PUBLIC` for everybody.
    pub role: String,
    /// What is reached: `schema.name`, `schema.name(column)`, or a word and a name.
    pub object: String,
    /// How it is reached, step by step.
    pub path: String,
    /// One sentence. Never holds a secret's value.
    pub message: String,
    /// SQL that ends it, where there is one that takes nothing else away.
    pub mend: Option<String>,
}

/// How much was looked at: an audit that saw nothing proves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Examined {
    /// Roles whose reach was followed: declared ones and others.
    pub roles: usize,
    /// Declared schemas that exist.
    pub schemas: usize,
    /// Tables, views, sequences in them.
    pub relations: usize,
    pub routines: usize,
    /// ACL entries, taken apart, in the whole database.
    pub acl_entries: usize,
    pub memberships: usize,
    pub policies: usize,
    pub triggers: usize,
    /// Texts that were searched for secrets: bodies, views, comments, settings, options.
    pub texts: usize,
}

/// The answer of an audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// The worst first; then by rule, role and object.
    pub findings: Vec<Finding>,
    pub examined: Examined,
}

impl Audit {
    /// Findings at a level or above.
    pub fn at_least(&self, level: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |one| one.severity >= level)
    }

    /// How many there are of each severity.
    pub fn counts(&self) -> BTreeMap<Severity, usize> {
        let mut counts = BTreeMap::from([(Severity::Error, 0), (Severity::Warning, 0), (Severity::Note, 0)]);
        for one in &self.findings {
            *counts.entry(one.severity).or_default() += 1;
        }
        counts
    }
}

/// Something that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub id: &'static str,
    /// What it is at worst.
    pub severity: Severity,
    /// One line.
    pub about: &'static str,
}

const fn error(id: &'static str, about: &'static str) -> Rule {
    Rule { id, severity: Severity::Error, about }
}

const fn warning(id: &'static str, about: &'static str) -> Rule {
    Rule { id, severity: Severity::Warning, about }
}

const fn note(id: &'static str, about: &'static str) -> Rule {
    Rule { id, severity: Severity::Note, about }
}

/// Every rule. `docs/guide/audit.md` has the same list, and a test compares them.
pub const RULES: &[Rule] = &[
    error("table-grant", "A privilege on a table, view or foreign table that is not declared."),
    error("column-grant", "A privilege on a column that is not declared."),
    error("sequence-grant", "A privilege on a sequence that is not declared."),
    error("function-grant", "EXECUTE on a function or procedure that is not declared; to PUBLIC by default."),
    warning("type-grant", "USAGE of a type, granted to a role for which it is not declared."),
    error("schema-grant", "USAGE or CREATE of a schema that is not declared."),
    error("database-grant", "CREATE, TEMPORARY or CONNECT on this database that is not declared."),
    error("other-database", "CONNECT on another database; an error where the declaration calls it legacy."),
    error("large-object-grant", "A privilege on a large object."),
    warning("language-grant", "USAGE of a language that was granted."),
    warning("tablespace-grant", "CREATE in a tablespace."),
    error("system-grant", "A privilege on an object of the system that PostgreSQL did not give."),
    error("parameter-grant", "SET or ALTER SYSTEM of a parameter that others may not set."),
    error("foreign-server-grant", "USAGE of a foreign server or foreign-data wrapper."),
    error("grant-option", "A privilege that may be passed on."),
    error("ownership", "A bounded role owns something: it may do everything with it, and take it away from others."),
    warning("foreign-owner", "An object of a declared schema belongs to somebody who is no creator."),
    error("membership", "A membership that is not declared."),
    error("admin-option", "A membership that may be passed on."),
    error(
        "predefined-role",
        "A predefined role of PostgreSQL that reaches across every schema, or out of the database.",
    ),
    error(
        "role-attribute",
        "SUPERUSER, BYPASSRLS, CREATEROLE, CREATEDB, REPLICATION, or LOGIN of a role that does not log in.",
    ),
    error("default-privilege", "What is created later will be given to a role for which it is not declared."),
    warning(
        "default-privilege-missing",
        "What a creator makes later will not be given to the roles for which it is declared.",
    ),
    warning("public-execute-default", "Functions that a creator makes later may be executed by everybody."),
    warning("uncovered-creator", "A role may create objects in a declared schema, and nothing is declared for them."),
    error("owner-rights-view", "A view reads another schema with its owner's rights."),
    error("owner-rights-write", "A view writes to another schema with its owner's rights."),
    error("view-past-rls", "A view reads a table with row security as somebody whom its policies do not bind."),
    error("definer-reach", "A SECURITY DEFINER function reads or writes another schema."),
    error("definer-trigger", "A trigger's SECURITY DEFINER function reads or writes another schema."),
    error("definer-search-path", "A SECURITY DEFINER function whose names can be made to mean something else."),
    error("definer-public", "A SECURITY DEFINER function outside the declared schemas that everybody may execute."),
    note("definer-unjudged", "A SECURITY DEFINER function whose reach cannot be read off its text."),
    error("rule-across", "A rewrite rule acts on another schema with its owner's rights."),
    warning("trigger-across", "A trigger runs a function of a schema that its table's writers do not use."),
    error(
        "foreign-key-cascade",
        "A foreign key carries deletes or updates into a schema where the role may not make them.",
    ),
    warning("foreign-key-across", "A foreign key tells whether a row exists in a table that the role may not read."),
    error("user-mapping", "A user mapping lets a bounded role, or everybody, act on a foreign server."),
    warning("foreign-table", "A foreign table leads out of the database."),
    warning("connecting-function", "A function that opens connections (dblink) may be executed."),
    warning("publication", "A publication sends rows of declared schemas out of the database."),
    warning("subscription", "A subscription writes to tables of declared schemas."),
    error("event-trigger", "An event trigger runs as whoever changes the schema, and no superuser owns it."),
    error("rls-disabled", "Row security is declared, or has policies, and is not enabled."),
    error("rls-not-forced", "Row security does not bind the owner, as declared."),
    warning("rls-policy-missing", "No policy lets the declared roles use a command."),
    error("rls-policy-leftover", "Another permissive policy lets rows through beside the declared one."),
    error("rls-policy-open", "A policy that hides nothing, or nothing while no tenant is set."),
    error("rls-policy-unguarded", "A policy that does not compare the tenant's column with the guard."),
    warning("rls-policy-public", "A policy that is for every role."),
    error("rls-guard", "The guard is missing, reads another setting, or lets a missing tenant pass."),
    error("rls-partition", "A partition of a table with row security has none of its own."),
    error("append-only-open", "Nothing rejects UPDATE, DELETE or TRUNCATE of an append-only table."),
    error("append-only-disabled", "The trigger of an append-only table is disabled."),
    warning("append-only-replica", "The trigger of an append-only table does not fire in a replica session."),
    error("append-only-truncate", "A bounded role may TRUNCATE an append-only table."),
    error("append-only-function", "A function may switch off what keeps an append-only table as it is."),
    warning("search-path", "The search_path at login, or of a function, is not the declared one."),
    error("role-setting", "A setting of a role or of the database that switches triggers off or sets a tenant."),
    error("secret", "A secret stands where every role can read it, or where a dump carries it. Never shown."),
    warning("expired-exception", "An exception of the declaration is over."),
    warning("missing", "A declared role, schema or table does not exist."),
    error("nothing-examined", "No declared role or no object was there to be looked at: that proves nothing."),
    note("not-examined", "Something that this connection's role may not read."),
];
