//! The violations that a declared topology makes possible: each is a few statements, and those that take it away.

use std::collections::BTreeMap;

use pgrunbook_postgres::{PgError, Session, quote};

use crate::topology::{Role, RoleKind, Topology};

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// `butler_health_app may SELECT from general.notes`
    pub name: String,
    pub plant: String,
    pub remove: String,
}

const RELATIONS: &str = "
SELECT n.nspname, c.relname, c.relkind
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') ORDER BY 1, 2";

const GUARDED: &str = "
SELECT n.nspname, c.relname, c.relforcerowsecurity
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relrowsecurity AND c.relkind IN ('r', 'p') ORDER BY 1, 2";

fn ident(name: &str) -> String {
    quote::ident(name).unwrap_or_else(|_| "\"\"".to_owned())
}

/// Tables by schema.
type Tables = BTreeMap<String, Vec<String>>;

/// Every violation, for one declared role or object at a time.
///
/// # Errors
/// If the server cannot be asked for its tables.
pub async fn breaches(session: &Session, topology: &Topology) -> Result<Vec<Breach>, PgError> {
    let mut tables = Tables::new();
    for row in session.simple(RELATIONS).await?.iter().flat_map(|answer| &answer.rows) {
        if let [Some(schema), Some(name), _] = row.as_slice()
            && topology.schemas.contains_key(schema)
        {
            tables.entry(schema.clone()).or_default().push(name.clone());
        }
    }
    let mut found = Vec::new();
    let logins: Vec<&Role> =
        topology.roles.values().filter(|role| matches!(role.kind, RoleKind::Runtime | RoleKind::ReadOnly)).collect();
    for (at, role) in logins.iter().enumerate() {
        of_role(topology, role, &tables, &mut found);
        if let Some(other) = logins.get((at + 1) % logins.len()).filter(|other| other.name != role.name) {
            found.push(granted(
                format!("{} is a member of {}", role.name, other.name),
                &ident(&other.name),
                &ident(&role.name),
            ));
        }
        found.push(granted(
            format!("{} is a member of pg_read_all_data", role.name),
            "pg_read_all_data",
            &ident(&role.name),
        ));
    }
    for (schema, names) in &tables {
        let (schema, table) = (ident(schema), names.first().map(|name| ident(name)));
        let Some(table) = table else { continue };
        found.push(Breach {
            name: format!("everybody may SELECT from {schema}.{table}"),
            plant: format!("GRANT USAGE ON SCHEMA {schema} TO PUBLIC; GRANT SELECT ON {schema}.{table} TO PUBLIC"),
            remove: format!(
                "REVOKE SELECT ON {schema}.{table} FROM PUBLIC; REVOKE USAGE ON SCHEMA {schema} FROM PUBLIC"
            ),
        });
    }
    of_guards(topology, &mut found);
    let guarded = session.simple(GUARDED).await?;
    for row in guarded.iter().flat_map(|answer| &answer.rows) {
        if let [Some(schema), Some(name), Some(force)] = row.as_slice()
            && topology.schemas.contains_key(schema)
        {
            of_rows(topology, schema, name, force == "t", &mut found);
        }
    }
    of_strangers(topology, &mut found);
    Ok(found)
}

/// Row security that a migration has made, and the declaration does not speak of.
fn of_rows(topology: &Topology, schema: &str, name: &str, force: bool, found: &mut Vec<Breach>) {
    let declared = |table: &crate::topology::Table| table.schema == schema && table.name == name;
    if topology.row_security.iter().flat_map(|one| &one.tables).any(declared) {
        return;
    }
    let on = format!("{}.{}", ident(schema), ident(name));
    found.push(Breach {
        name: format!("row security of {schema}.{name} is off"),
        plant: format!("ALTER TABLE {on} DISABLE ROW LEVEL SECURITY"),
        remove: format!("ALTER TABLE {on} ENABLE ROW LEVEL SECURITY"),
    });
    if force {
        found.push(Breach {
            name: format!("row security of {schema}.{name} does not bind its owner"),
            plant: format!("ALTER TABLE {on} NO FORCE ROW LEVEL SECURITY"),
            remove: format!("ALTER TABLE {on} FORCE ROW LEVEL SECURITY"),
        });
    }
}

/// Roles and databases that nobody declared, with names like those that are.
fn of_strangers(topology: &Topology, found: &mut Vec<Breach>) {
    let of_tenant = topology.roles.values().find_map(|role| {
        let tenant = role.tenant.as_ref()?;
        role.name.contains(tenant.as_str()).then(|| role.name.replace(tenant.as_str(), "stranger"))
    });
    if let Some(name) = of_tenant.filter(|name| !topology.roles.contains_key(name)) {
        let quoted = ident(&name);
        found.push(Breach {
            name: format!("there is a role {name}, which nobody declared"),
            plant: format!("CREATE ROLE {quoted} LOGIN"),
            remove: format!("DROP ROLE {quoted}"),
        });
    }
    for pattern in &topology.legacy {
        let name = ident(&pattern.replace('*', "stranger"));
        found.push(Breach {
            name: format!("there is a legacy database {name}, which everybody may enter"),
            plant: format!("CREATE DATABASE {name}"),
            remove: format!("DROP DATABASE {name}"),
        });
    }
}

fn granted(name: String, what: &str, to: &str) -> Breach {
    Breach { name, plant: format!("GRANT {what} TO {to}"), remove: format!("REVOKE {what} FROM {to}") }
}

fn of_role(topology: &Topology, role: &Role, tables: &Tables, found: &mut Vec<Breach>) {
    let name = ident(&role.name);
    // One foreign schema a role: the next one after its own, so that each schema is somebody's.
    let own = role.access.keys().next();
    let foreign: Vec<(&String, &Vec<String>)> =
        tables.iter().filter(|(schema, _)| !role.access.contains_key(*schema)).collect();
    let after = foreign.iter().position(|(schema, _)| own.is_some_and(|own| *schema > own)).unwrap_or(0);
    if let Some((schema, names)) = foreign.get(after) {
        let on = ident(schema);
        if let Some(table) = names.first().map(|table| format!("{on}.{}", ident(table))) {
            for privilege in ["SELECT", "INSERT"] {
                found.push(Breach {
                    name: format!("{} may {privilege} on {table}", role.name),
                    plant: format!("GRANT USAGE ON SCHEMA {on} TO {name}; GRANT {privilege} ON {table} TO {name}"),
                    remove: format!(
                        "REVOKE {privilege} ON {table} FROM {name}; REVOKE USAGE ON SCHEMA {on} FROM {name}"
                    ),
                });
            }
            let default = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {on}", ident(&topology.owner));
            found.push(Breach {
                name: format!("{} may SELECT from tables that come later in {schema}", role.name),
                plant: format!("{default} GRANT SELECT ON TABLES TO {name}"),
                remove: format!("{default} REVOKE SELECT ON TABLES FROM {name}"),
            });
        }
    }
    for (schema, names) in tables.iter().filter(|(schema, _)| role.access.contains_key(*schema)) {
        let on = ident(schema);
        let object = |table: &String| crate::topology::Object {
            schema: schema.clone(),
            name: table.clone(),
            kind: crate::topology::Kind::Table,
        };
        let closed = names.iter().find(|table| {
            !role.access[schema].gives(&object(table), crate::topology::Privilege::Select)
                && role.access[schema].columns(&object(table), crate::topology::Privilege::Select).is_empty()
        });
        if let Some(table) = closed {
            let table = format!("{on}.{}", ident(table));
            found.push(Breach {
                name: format!("{} may SELECT from {table}, which is not approved", role.name),
                plant: format!("GRANT SELECT ON {table} TO {name}"),
                remove: format!("REVOKE SELECT ON {table} FROM {name}"),
            });
        }
        found.push(Breach {
            name: format!("{} may not use {schema}, which it should", role.name),
            plant: format!("REVOKE USAGE ON SCHEMA {on} FROM {name}"),
            remove: format!("GRANT USAGE ON SCHEMA {on} TO {name}"),
        });
        found.push(Breach {
            name: format!("{} may create in {schema}", role.name),
            plant: format!("GRANT CREATE ON SCHEMA {on} TO {name}"),
            remove: format!("REVOKE CREATE ON SCHEMA {on} FROM {name}"),
        });
    }
    if !role.search_path.is_empty() {
        // In this database alone: `pg_roles.rolconfig` still looks right.
        let change = |what: &str| {
            format!(
                "DO $$BEGIN EXECUTE format('ALTER ROLE {} IN DATABASE %I {what}', current_database()); END$$",
                name.replace('\'', "''")
            )
        };
        found.push(Breach {
            name: format!("the search_path of {} is another in this database", role.name),
            plant: change("SET search_path = public"),
            remove: change("RESET search_path"),
        });
    }
}

fn of_guards(topology: &Topology, found: &mut Vec<Breach>) {
    for one in &topology.row_security {
        for table in &one.tables {
            let on = format!("{}.{}", ident(&table.schema), ident(&table.name));
            found.push(Breach {
                name: format!("row security of {table} is off"),
                plant: format!("ALTER TABLE {on} DISABLE ROW LEVEL SECURITY"),
                remove: format!("ALTER TABLE {on} ENABLE ROW LEVEL SECURITY"),
            });
            found.push(Breach {
                name: format!("a second policy on {table} lets every row through"),
                plant: format!("CREATE POLICY pgrunbook_break ON {on} USING (true)"),
                remove: format!("DROP POLICY pgrunbook_break ON {on}"),
            });
        }
        for role in &one.roles {
            found.push(Breach {
                name: format!("{role} has BYPASSRLS"),
                plant: format!("ALTER ROLE {} BYPASSRLS", ident(role)),
                remove: format!("ALTER ROLE {} NOBYPASSRLS", ident(role)),
            });
        }
    }
    for one in &topology.append_only {
        let on = format!("{}.{}", ident(&one.table.schema), ident(&one.table.name));
        found.push(Breach {
            name: format!("the trigger that keeps {} as it is is disabled", one.table),
            plant: format!("ALTER TABLE {on} DISABLE TRIGGER append_only"),
            remove: format!("ALTER TABLE {on} ENABLE ALWAYS TRIGGER append_only"),
        });
    }
}
