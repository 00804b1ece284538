//! What the two roles may do. A role that reads half of a table without a word is worse than one that is refused.

use pgrunbook_postgres::{Session, quote};

use super::rule::run;
use super::server::{Facts, server};
use super::{Finding, Origin, Rule, Severity, TransferError, Wanted};

use Severity::{Refuse, Warn};

/// Of the source, for whichever role is connected.
const READS: &[Rule] = &[
    Rule::new("no-usage", Refuse, USAGE),
    Rule::new("no-select", Refuse, SELECT),
    Rule::new("rls-hides", Refuse, ROW_SECURITY),
];

const OWNS: &[Rule] = &[Rule::new("no-owner", Refuse, OWNER)];

/// Needed to write back: the reverse stream's applier.
const WRITES: &[Rule] = &[Rule::new("no-write", Refuse, WRITE)];

const USAGE: &str = "SELECT NULL::text,
    pg_catalog.format('schema %I', n.nspname),
    pg_catalog.format('Role %s may not use it.', CURRENT_USER),
    pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', n.nspname, CURRENT_USER)
FROM pg_catalog.pg_namespace AS n
WHERE n.nspname = $1 AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')";

const SELECT: &str = "SELECT CASE WHEN c.relkind = 'S' THEN NULL ELSE c.relname::text END,
    pg_catalog.format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, n.nspname, c.relname),
    pg_catalog.format('Role %s may not read it.', CURRENT_USER),
    pg_catalog.format('GRANT SELECT ON %s%I.%I TO %I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END, n.nspname,
        c.relname, CURRENT_USER)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'S')
  AND NOT CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
               ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') END
ORDER BY c.relname";

/// `row_security_active` answers for the current role, owner and BYPASSRLS included.
/// <https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-ACCESS-TABLE>
const ROW_SECURITY: &str = "SELECT c.relname::text,
    pg_catalog.format('table %I.%I', n.nspname, c.relname),
    pg_catalog.format('Row security hides rows from role %s: a copy would lack them.', CURRENT_USER),
    pg_catalog.format('ALTER ROLE %I BYPASSRLS, or connect as the owner (without FORCE ROW LEVEL SECURITY)', CURRENT_USER)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND c.relrowsecurity AND pg_catalog.row_security_active(c.oid)
ORDER BY c.relname";

const OWNER: &str = "SELECT c.relname::text,
    pg_catalog.format('table %I.%I', n.nspname, c.relname),
    pg_catalog.format('It belongs to %I, and role %s is no member: it can be neither published nor fenced.', o.rolname,
        CURRENT_USER),
    pg_catalog.format('GRANT %I TO %I', o.rolname, CURRENT_USER)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles AS o ON o.oid = c.relowner
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
ORDER BY c.relname";

const WRITE: &str = "SELECT c.relname::text,
    pg_catalog.format('table %I.%I', n.nspname, c.relname),
    pg_catalog.format('Role %s may not write to it: changes made after the switch could not flow back.', CURRENT_USER),
    pg_catalog.format('GRANT INSERT, UPDATE, DELETE, TRUNCATE ON %I.%I TO %I', n.nspname, c.relname, CURRENT_USER)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')
  AND NOT (pg_catalog.has_table_privilege(c.oid, 'INSERT') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')
           AND pg_catalog.has_table_privilege(c.oid, 'DELETE') AND pg_catalog.has_table_privilege(c.oid, 'TRUNCATE'))
ORDER BY c.relname";

pub(super) async fn of_source(
    session: &Session,
    facts: &Facts,
    wanted: &Wanted,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    run(session, facts.version, READS, wanted, findings).await?;
    run(session, facts.version, OWNS, wanted, findings).await?;
    sends("source", session, facts, findings).await?;
    if wanted.reverse {
        run(session, facts.version, WRITES, wanted, findings).await?;
        replica_role("source", session, facts, findings).await?;
    }
    Ok(())
}

pub(super) async fn of_target(
    session: &Session,
    facts: &Facts,
    wanted: &Wanted,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    replica_role("target", session, facts, findings).await?;
    if wanted.reverse {
        sends("target", session, facts, findings).await?;
    } else {
        create_on_database("target", "pgrunbook keeps its records in a schema of its own", session, facts, findings)
            .await?;
    }
    if wanted.structure == Origin::Create && session.value(&with_name(CREATE_IN_SCHEMA, &wanted.schema)).await? == "f" {
        let what = format!("Role {} may not create anything in it.", facts.role);
        let remedy = format!("GRANT CREATE, USAGE ON SCHEMA {} TO {}", wanted.schema, facts.role);
        findings.push(Finding::new(Refuse, "no-create", format!("schema {}", wanted.schema), what).remedy(remedy));
    }
    if let Some(role) = &wanted.runtime_role {
        runtime_role(session, facts, role, findings).await?;
    }
    Ok(())
}

/// `{}` for a literal: these are asked by the simple protocol, once each.
fn with_name(sql: &str, name: &str) -> String {
    let literal = quote::literal(name).unwrap_or_else(|_| "''".to_owned());
    sql.replace("{}", &literal)
}

const CREATE_IN_SCHEMA: &str = "SELECT pg_catalog.has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace
WHERE nspname = {}";

/// What a role needs where a slot and a publication are made.
async fn sends(side: &str, session: &Session, facts: &Facts, findings: &mut Vec<Finding>) -> Result<(), TransferError> {
    if !facts.replication {
        let what = format!("Role {} may not open a replication connection.", facts.role);
        let remedy = format!("ALTER ROLE {} REPLICATION (RDS: GRANT rds_replication TO {})", facts.role, facts.role);
        findings.push(Finding::new(Refuse, "no-replication", server(side, facts), what).remedy(remedy));
    }
    create_on_database(side, "a publication belongs to the database", session, facts, findings).await
}

async fn create_on_database(
    side: &str,
    why: &str,
    session: &Session,
    facts: &Facts,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    const MAY: &str = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')";
    if session.value(MAY).await? == "f" {
        let what = format!("Role {} may not create anything in it: {why}.", facts.role);
        let remedy = format!("GRANT CREATE ON DATABASE {} TO {}", facts.database, facts.role);
        findings.push(Finding::new(Refuse, "no-database-create", server(side, facts), what).remedy(remedy));
    }
    Ok(())
}

/// Whoever applies changes must not set off triggers again. Superusers may; since 15 the right can be granted.
/// <https://www.postgresql.org/docs/current/ddl-priv.html>
async fn replica_role(
    side: &str,
    session: &Session,
    facts: &Facts,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    const MAY: &str = "SELECT pg_catalog.has_parameter_privilege('session_replication_role', 'SET')";
    let may = facts.superuser || (facts.version >= 15 && session.value(MAY).await? == "t");
    if !may {
        let what = format!(
            "Role {} may not set session_replication_role: triggers would fire for applied changes.",
            facts.role
        );
        let remedy = match facts.version {
            15.. => format!("GRANT SET ON PARAMETER session_replication_role TO {}", facts.role),
            _ => "connect as a superuser: PostgreSQL 14 has no lesser right for it".to_owned(),
        };
        findings.push(Finding::new(Refuse, "no-replica-role", server(side, facts), what).remedy(remedy));
    }
    Ok(())
}

/// Reads through the application's role need `SET ROLE` to it; 16 has a membership without it.
async fn runtime_role(
    session: &Session,
    facts: &Facts,
    role: &str,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    const MEMBER: &str = "SELECT pg_catalog.pg_has_role(oid, 'MEMBER') FROM pg_catalog.pg_roles WHERE rolname = {}";
    const SET: &str = "SELECT pg_catalog.pg_has_role(oid, 'SET') FROM pg_catalog.pg_roles WHERE rolname = {}";
    let object = format!("role {role}");
    match session.value(&with_name(if facts.version >= 16 { SET } else { MEMBER }, role)).await?.as_str() {
        "t" => {}
        "f" => findings.push(
            Finding::new(
                Warn,
                "no-set-role",
                object,
                format!("Role {} may not become it, to read as the application does.", facts.role),
            )
            .remedy(format!("GRANT {role} TO {}", facts.role)),
        ),
        _ => findings.push(
            Finding::new(Refuse, "no-runtime-role", object, "It does not exist in the target's cluster.")
                .remedy("declare it in the topology, and run `pgrunbook provision`"),
        ),
    }
    Ok(())
}
