//! Rows into tables that migrations have made: what the load must know of them, and what nobody else checks then.

use pgrunbook_postgres::{Session, quote};

use super::error::SqliteError;
use super::existing::{COLUMNS, holds_rows};
use super::kind::{Kind, Width};
use super::load::Plan;
use crate::transfer::finding::{Finding, Severity};

/// The plan as the target's tables want it: integers in the width that their columns have, and computed columns only where
/// the target computes them.
///
/// # Errors
/// [`SqliteError::Refused`] if a table or column is not there, is of a type that the rows cannot have, or a table is not
/// empty. [`super::check_existing`] says it beforehand, and more.
pub(super) async fn fit(session: &Session, schema: &str, plan: &Plan) -> Result<Plan, SqliteError> {
    let mut plan = plan.clone();
    let mut findings = Vec::new();
    for map in &mut plan.mapping.tables {
        let rows =
            session.client().query(COLUMNS, &[&schema, &map.name]).await.map_err(|error| session.error(&error))?;
        let mut find = |code, object, what, remedy: &str| {
            findings.push(Finding::new(Severity::Refuse, code, object, what).remedy(remedy));
        };
        if rows.is_empty() {
            find(
                "no-table",
                format!("table {schema}.{}", map.name),
                "is not in the target".to_owned(),
                "make it by a migration, or skip it in [map]",
            );
            continue;
        }
        for column in &mut map.columns {
            let object = format!("column {}.{}", map.name, column.name);
            let Some(there) = rows.iter().find(|row| row.get::<_, &str>(0) == column.name) else {
                let remedy = "add it by a migration, or skip it in [map]";
                find("no-column", object, "is not in the target".to_owned(), remedy);
                continue;
            };
            let (found, is_generated): (&str, bool) = (there.get(1), there.get(4));
            if !is_generated {
                column.computed = None;
            } else if column.computed.is_none() {
                let what = "is a plain column here, and generated in the target".to_owned();
                find("generated", object, what, "make it a plain column by a migration, or skip it in [map]");
                continue;
            }
            match (column.kind, found) {
                (Kind::Integer(_), "smallint") => column.kind = Kind::Integer(Width::Two),
                (Kind::Integer(_), "integer") => column.kind = Kind::Integer(Width::Four),
                (Kind::Integer(_), "bigint") => column.kind = Kind::Integer(Width::Eight),
                (Kind::Text, found) if found.starts_with("character varying") => {}
                (kind, found) if found == kind.sql_type() => {}
                (kind, found) => {
                    let what = format!("is {found} in the target, and {} here", kind.sql_type());
                    find("other-type", object, what, "give it that type by a migration, or another one in [map]");
                }
            }
        }
        if holds_rows(session, schema, &map.name).await? {
            let object = format!("table {schema}.{}", map.name);
            find("not-empty", object, "holds rows already".to_owned(), "empty it, if nobody needs them: TRUNCATE");
        }
    }
    if findings.is_empty() { Ok(plan) } else { Err(SqliteError::Refused(findings)) }
}

/// Each foreign key of the tables as the question how many rows have no parent, as the server asks it when a constraint is
/// validated (`RI_Initial_Check` in src/backend/utils/adt/ri_triggers.c). Tried on 14 to 18.
const FOREIGN_KEYS: &str = "
SELECT c.relname, k.conname, pg_catalog.format(
         'SELECT pg_catalog.count(*) FROM %I.%I AS f LEFT JOIN %I.%I AS p ON %s WHERE %s AND (%s)',
         n.nspname, c.relname, pn.nspname, pc.relname,
         pg_catalog.string_agg(pg_catalog.format('p.%I OPERATOR(%I.%s) f.%I', pa.attname, opn.nspname, op.oprname, fa.attname), ' AND '),
         pg_catalog.min(pg_catalog.format('p.%I IS NULL', pa.attname)),
         pg_catalog.string_agg(pg_catalog.format('f.%I IS NOT NULL', fa.attname),
                               CASE k.confmatchtype WHEN 'f' THEN ' OR ' ELSE ' AND ' END))
FROM pg_catalog.pg_constraint AS k
JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS pc ON pc.oid = k.confrelid
JOIN pg_catalog.pg_namespace AS pn ON pn.oid = pc.relnamespace
CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey), pg_catalog.unnest(k.conpfeqop))
  AS pair (child, parent, operator)
JOIN pg_catalog.pg_attribute AS fa ON fa.attrelid = k.conrelid AND fa.attnum = pair.child
JOIN pg_catalog.pg_attribute AS pa ON pa.attrelid = k.confrelid AND pa.attnum = pair.parent
JOIN pg_catalog.pg_operator AS op ON op.oid = pair.operator
JOIN pg_catalog.pg_namespace AS opn ON opn.oid = op.oprnamespace
WHERE k.contype = 'f' AND k.convalidated AND k.conparentid = 0 AND n.nspname = $1 AND c.relname = ANY ($2)
GROUP BY k.oid, k.conname, k.confmatchtype, n.nspname, c.relname, pn.nspname, pc.relname
ORDER BY c.relname, k.conname";

/// Looks for rows without a parent: the triggers that would have seen them did not fire.
///
/// # Errors
/// [`SqliteError::Refused`] with each foreign key that the rows violate.
pub(super) async fn check_foreign_keys(session: &Session, schema: &str, plan: &Plan) -> Result<(), SqliteError> {
    let names = names(plan);
    let keys = session.client().query(FOREIGN_KEYS, &[&schema, &names]).await.map_err(|error| session.error(&error))?;
    let mut findings = Vec::new();
    for key in keys {
        let (table, name, question): (&str, &str, &str) = (key.get(0), key.get(1), key.get(2));
        let orphans = session.value(question).await?;
        if orphans != "0" {
            let what = format!("{orphans} rows have no parent as its foreign key {name} asks for");
            let finding = Finding::new(Severity::Refuse, "orphans", format!("table {schema}.{table}"), what);
            findings.push(finding.remedy("correct the rows in the source, or make the foreign key NOT VALID for now"));
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(SqliteError::Refused(findings)) }
}

/// Empties the plan's tables again, together. Returns their names.
///
/// # Errors
/// If the server refuses; then all are as they were.
pub(super) async fn empty(session: &Session, schema: &str, plan: &Plan) -> Result<Vec<String>, SqliteError> {
    const REPLICA: &str = "BEGIN; SET LOCAL session_replication_role = replica;";
    let ident = |name: &str| quote::ident(name).unwrap_or_default();
    let places: Vec<String> =
        plan.mapping.tables.iter().map(|map| format!("{}.{}", ident(schema), ident(&map.name))).collect();
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let mut done = session.execute(&format!("{REPLICA} TRUNCATE {}; COMMIT", places.join(", "))).await;
    // A foreign key of another table forbids it, even where that table is empty.
    if done.as_ref().is_err_and(|error| error.sqlstate() == Some("0A000")) {
        let _ = session.execute("ROLLBACK").await;
        let deletes: Vec<String> = places.iter().map(|place| format!("DELETE FROM {place}")).collect();
        done = session.execute(&format!("{REPLICA} {}; COMMIT", deletes.join("; "))).await;
    }
    if done.is_err() {
        let _ = session.execute("ROLLBACK").await;
    }
    done?;
    Ok(names(plan).into_iter().map(str::to_owned).collect())
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.mapping.tables.iter().map(|map| map.name.as_str()).collect()
}
