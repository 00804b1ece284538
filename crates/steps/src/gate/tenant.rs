//! What every table of a tenant must have: row security, and something granted to the tenant's roles. The file that makes a table
//! can say why that one needs it not.

use std::collections::BTreeSet;

use jiff::civil::Date;
use pgrunbook_document::{Diagnostic, Severity};
use pgrunbook_postgres::{PgError, Session, quote};

use super::error::GateError;
use super::{Files, Review, Wish, declared, finding, lint, read};

const TABLES: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgrunbook')";

/// Tables that there are.
pub(super) async fn tables(session: &Session) -> Result<BTreeSet<String>, PgError> {
    let rows = session.simple(TABLES).await?.into_iter().flat_map(|answer| answer.rows);
    Ok(rows.filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// Tables of a schema: name, whether it has row security, and whether a role may do anything with its rows.
const HELD: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relname, c.relrowsecurity,
    pg_catalog.has_table_privilege(ROLE, c.oid, 'SELECT, INSERT, UPDATE, DELETE')
        OR pg_catalog.has_any_column_privilege(ROLE, c.oid, 'SELECT, INSERT, UPDATE')
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = SCHEMA ORDER BY 1";

/// Looks at the tables that the change made, which are `new`; without `--since` at all that there are. Where no schema is named, the
/// project's topology says whose they are.
pub(super) async fn look(
    wish: &Wish<'_>,
    files: &Files,
    session: &Session,
    new: &BTreeSet<String>,
    today: Date,
    review: &mut Review,
) -> Result<(), GateError> {
    if wish.tenant_schemas.is_empty() {
        return declared::look(wish, files, session, new, today, review).await;
    }
    let mut seen = BTreeSet::new();
    for schema in &wish.tenant_schemas {
        // Without a role, row security is looked at all the same.
        let roles: Vec<Option<&String>> =
            if wish.tenant_roles.is_empty() { vec![None] } else { wish.tenant_roles.iter().map(Some).collect() };
        for role in roles {
            let named = role.map_or("CURRENT_USER".to_owned(), |role| quote::literal(role).unwrap_or_default());
            let sql = HELD.replace("ROLE", &named).replace("SCHEMA", &quote::literal(schema).unwrap_or_default());
            for row in session.simple(&sql).await?.into_iter().flat_map(|answer| answer.rows) {
                let cell = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
                let (table, name) = (cell(0), cell(1));
                if wish.since.is_some() && !new.contains(&table) {
                    continue;
                }
                if seen.insert(table.clone()) && cell(2) != "t" {
                    let message = format!("{table} has no row security: every tenant reads the rows of all");
                    let help = format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, and a policy for each command");
                    place(wish, files, &name, finding("rls-missing", Severity::Error, message).help(help), review);
                }
                if let Some(role) = role.filter(|_| cell(3) != "t") {
                    let message = format!("{role} may do nothing with {table}");
                    let help = format!("GRANT what it needs ON {table} TO {role}");
                    place(wish, files, &name, finding("grant-missing", Severity::Error, message).help(help), review);
                }
            }
        }
    }
    review.check("tenants", format!("{} new table(s) of {}", seen.len(), wish.tenant_schemas.join(", ")));
    Ok(())
}

/// Puts a finding where the table is made, if a file says so. There it may be set aside: a table of the operators' own.
pub(super) fn place(wish: &Wish<'_>, files: &Files, name: &str, one: Diagnostic, review: &mut Review) {
    for script in wish.chains.iter().flat_map(|chain| &chain.migrations).map(|one| &one.up) {
        let Ok(text) = read(&script.path) else { continue };
        let made = lint::tables(&text)
            .into_iter()
            .find(|(made, _)| made.rsplit('.').next() == Some(name.to_lowercase().as_str()));
        if let Some((_, range)) = made {
            let line = text[..range.start].matches('\n').count() + 1;
            let one = match lint::reason(&text, one.code) {
                Some(reason) => Diagnostic {
                    severity: Severity::Note,
                    message: format!("{} (allowed: {reason})", one.message),
                    ..one
                },
                None => one,
            };
            review.at(files, script, Some(line), one);
            return;
        }
    }
    // A text within the file made it, or the project's own setup.
    review.nowhere(one);
}
