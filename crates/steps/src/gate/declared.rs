//! The tenants of the project's topology: what a new table of theirs lacks, which neither the files nor the topology give it.
//!
//! What the topology gives comes when it is applied, behind the migrations: the policies of the tables that it lists, and the grants of its
//! access sets. What nobody gives is found here, before a tenant's application finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::civil::Date;
use pgrunbook_document::Severity;
use pgrunbook_postgres::Session;

use super::error::GateError;
use super::tenant::place;
use super::{Files, Review, Wish, finding};
use crate::topology::{DeclarationError, Kind, Object, Privilege, Role, RoleKind, Topology, load};

/// Tables: schema, name, as SQL, whether it has row security, and its columns (none of them holds a line feed that matters).
const TABLES: &str = "SELECT n.nspname, c.relname, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relrowsecurity,
    (SELECT pg_catalog.string_agg(a.attname, E'\\n') FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgrunbook')
ORDER BY 1, 2";

/// Whether a role that is there may do anything with a table's rows.
const MAY: &str = "SELECT coalesce(pg_catalog.bool_or(
    pg_catalog.has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE')
        OR pg_catalog.has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE')), false)
FROM pg_catalog.pg_roles AS r, pg_catalog.pg_class AS c
WHERE r.rolname = $1::pg_catalog.text AND c.oid = $2::pg_catalog.text::pg_catalog.regclass";

/// A table as it is after the trial.
struct Table {
    schema: String,
    name: String,
    sql: String,
    secured: bool,
    columns: BTreeSet<String>,
}

/// Looks at the tables that the change made, as the project's topology wants them.
pub(super) async fn look(
    wish: &Wish<'_>,
    files: &Files,
    session: &Session,
    new: &BTreeSet<String>,
    today: Date,
    review: &mut Review,
) -> Result<(), GateError> {
    let topology = match load(&wish.project.root, &wish.project.environment.name) {
        Ok(topology) if topology.tenants.is_empty() && topology.row_security.is_empty() => {
            review.skip("tenants", format!("{} declares neither tenants nor row security", topology.source));
            return Ok(());
        }
        Ok(topology) => topology,
        Err(DeclarationError::Malformed { text, .. }) if is_of_no_database(&text) => {
            review.skip("tenants", "no --tenant-schema is named, and the topology is of no database");
            return Ok(());
        }
        Err(DeclarationError::Missing) => {
            review.skip("tenants", "no --tenant-schema is named, and no topology declares tenants");
            return Ok(());
        }
        Err(error) => {
            let message = format!("unknown: nobody can tell what a tenant's table needs: {error}");
            let help = "mend it (`pgrunbook topology plan` reads it too), or name --tenant-schema and --tenant-role";
            review.nowhere(finding("tenants-unknown", Severity::Unknown, message).help(help));
            review.check("tenants", "the topology cannot be read");
            return Ok(());
        }
    };
    let mut count = 0;
    for table in tables(session).await? {
        if wish.since.is_some() && !new.contains(&table.sql) {
            continue;
        }
        let homes = homes(&topology, wish, &table.schema);
        let (mut of_tenants, mut roles) = (false, BTreeMap::new());
        for home in homes {
            of_tenants |= topology.schemas.get(home).is_some_and(|schema| schema.tenant.is_some());
            roles.extend(roles_of(&topology, home, &table.columns).into_iter().map(|role| (role, home)));
            if let Some(rule) = topology
                .row_security
                .iter()
                .find(|rule| rule.tables.iter().any(|one| one.schema == home) && table.columns.contains(&rule.column))
            {
                of_tenants = true;
                let listed = rule.tables.iter().any(|one| one.schema == home && one.name == table.name);
                if !table.secured && !listed {
                    let message = format!(
                        "{} has the column {} of tenants, and no row security: every tenant reads the rows of all",
                        table.sql, rule.column
                    );
                    let help = format!(
                        "list it in `tables` of [rls.{}] in {}, or ENABLE ROW LEVEL SECURITY with a policy for each command",
                        rule.name, topology.source
                    );
                    let one = finding("rls-missing", Severity::Error, message).help(help);
                    place(wish, files, &table.name, one, review);
                }
            }
        }
        count += usize::from(of_tenants);
        let mut without = Vec::new();
        for (role, home) in roles {
            if !is_given(&topology, role, home, &table.name, today) && !may(session, role, &table.sql).await? {
                without.push(role);
            }
        }
        if let [first, more @ ..] = &without[..] {
            let others = if more.is_empty() { String::new() } else { format!(" and {} more role(s)", more.len()) };
            let message = format!("{first}{others} may do nothing with {}", table.sql);
            let help = format!("name it in an access set of {}, or GRANT what is needed in the file", topology.source);
            let one = finding("grant-missing", Severity::Error, message).help(help);
            place(wish, files, &table.name, one, review);
        }
    }
    review.check("tenants", format!("{count} new table(s) of tenants, as {} wants them", topology.source));
    Ok(())
}

async fn tables(session: &Session) -> Result<Vec<Table>, GateError> {
    let rows = session.simple(TABLES).await?.into_iter().flat_map(|answer| answer.rows);
    let table = |row: Vec<Option<String>>| {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let mut cell = || cells.next().unwrap_or_default();
        Table {
            schema: cell(),
            name: cell(),
            sql: cell(),
            secured: cell() == "t",
            columns: cell().split('\n').map(str::to_owned).collect(),
        }
    };
    Ok(rows.map(table).collect())
}

async fn may(session: &Session, role: &str, table: &str) -> Result<bool, GateError> {
    let row = session.client().query_one(MAY, &[&role, &table]).await.map_err(|error| session.error(&error))?;
    Ok(row.get(0))
}

/// The declared schemas that a table of the trial stands for: its own, or those that its chain is applied in.
fn homes<'t>(topology: &'t Topology, wish: &Wish<'_>, schema: &str) -> BTreeSet<&'t str> {
    if let Some((own, _)) = topology.schemas.get_key_value(schema) {
        return BTreeSet::from([own.as_str()]);
    }
    let folder = |name: &str| name.trim_start_matches("./").trim_end_matches('/').to_owned();
    let is_tried = |of: &str| wish.chains.iter().any(|chain| Path::new(&folder(&chain.name)) == Path::new(&folder(of)));
    let uses = topology.chains.iter().filter(|one| schema == "public" && is_tried(&one.folder));
    uses.map(|one| one.schema.as_str()).collect()
}

/// The roles that must have a use for a table of a schema: its tenant's, and those that its rows are kept apart for.
fn roles_of<'t>(topology: &'t Topology, home: &str, columns: &BTreeSet<String>) -> BTreeSet<&'t str> {
    let tenant = topology.schemas.get(home).and_then(|schema| schema.tenant.as_ref());
    let is_theirs = |role: &&Role| {
        tenant.is_some()
            && role.tenant.as_ref() == tenant
            && matches!(role.kind, RoleKind::Runtime | RoleKind::ReadOnly)
            && role.access.contains_key(home)
    };
    let own = topology.roles.values().filter(is_theirs).map(|role| role.name.as_str());
    let rules = topology
        .row_security
        .iter()
        .filter(|rule| rule.tables.iter().any(|one| one.schema == home) && columns.contains(&rule.column));
    own.chain(rules.flat_map(|rule| rule.roles.iter().map(String::as_str))).collect()
}

/// Whether the topology gives a role a use for a table's rows.
fn is_given(topology: &Topology, role: &str, schema: &str, name: &str, today: Date) -> bool {
    let object = Object { schema: schema.to_owned(), name: name.to_owned(), kind: Kind::Table };
    [Privilege::Select, Privilege::Insert, Privilege::Update, Privilege::Delete].into_iter().any(|privilege| {
        let by_column = |role: &str| {
            let set = topology.roles.get(role).and_then(|role| role.access.get(schema));
            set.is_some_and(|set| !set.columns(&object, privilege).is_empty())
        };
        topology.allows(role, &object, None, privilege, today) || topology.closure(role).into_iter().any(by_column)
    })
}

/// Whether a topology declares access to something else than a database, as to a Redis.
fn is_of_no_database(text: &str) -> bool {
    let Ok(file) = text.parse::<toml::Table>() else { return false };
    let table = file.get("topology").and_then(toml::Value::as_table).unwrap_or(&file);
    !["database", "tenants", "schemas", "roles", "rls"].iter().any(|key| table.contains_key(*key))
}
