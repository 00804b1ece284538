//! What the two sides have to have in common, and what they must not.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_postgres::Session;
use tokio_postgres::types::ToSql;

use super::rule::not_examined;
use super::{Finding, Origin, Severity, TransferError, Wanted};

use Severity::{Note, Refuse, Warn};

/// PostgreSQL keeps 63 bytes of a name.
const NAME_LIMIT: usize = 63;

pub(super) async fn compare(
    source: &Session,
    target: &Session,
    wanted: &Wanted,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    names(source, wanted, findings).await?;
    extensions(source, target, wanted, findings).await?;
    absent(source, target, wanted, findings).await?;
    if wanted.structure == Origin::Create {
        // A view and a table share their names; a function has its own.
        let comes = names_in(source, &wanted.source_schema)
            .await?
            .into_iter()
            .filter(|(word, name)| word != "table" || wanted.takes(name))
            .map(|(word, name)| (word == "function", name))
            .collect();
        collisions(target, wanted, &comes, findings).await?;
    }
    cron(source, findings).await
}

type Row = Vec<Option<String>>;

/// Rows of texts.
async fn rows(session: &Session, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, TransferError> {
    let rows = session.client().query(sql, values).await.map_err(|error| session.error(&error))?;
    Ok(rows.iter().map(|row| (0..row.len()).map(|at| row.try_get(at).ok().flatten()).collect()).collect())
}

fn cell(row: &Row, at: usize) -> String {
    row.get(at).cloned().flatten().unwrap_or_default()
}

const TABLES: &str = "SELECT c.relname::text FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p', 'f') ORDER BY c.relname";

/// Names that cannot be, or that are not there.
async fn names(source: &Session, wanted: &Wanted, findings: &mut Vec<Finding>) -> Result<(), TransferError> {
    let mut schema = |object: &str, what: String| {
        findings.push(
            Finding::new(Refuse, "schema-name", format!("schema {object}"), what)
                .remedy("give the transfer another schema"),
        );
    };
    for name in [&wanted.schema, &wanted.source_schema] {
        if name == "pgrunbook" {
            schema(name, "In this schema pgrunbook keeps its records.".to_owned());
        }
        if name.starts_with("pg_") || name == "information_schema" {
            schema(name, "This name is PostgreSQL's.".to_owned());
        }
        if name.len() > NAME_LIMIT {
            let what = format!(
                "Its name has {} bytes; PostgreSQL keeps {NAME_LIMIT}, and two such names become one.",
                name.len()
            );
            schema(name, what);
        }
    }
    let tables: BTreeSet<String> =
        rows(source, TABLES, &[&wanted.source_schema]).await?.iter().map(|row| cell(row, 0)).collect();
    for (list, severity) in [(&wanted.tables, Refuse), (&wanted.exclude, Warn)] {
        for name in list.iter().filter(|name| !tables.contains(*name)) {
            let shown = format!("{}.{name}", wanted.source_schema);
            let what = match name.len() {
                ..=NAME_LIMIT => "The step names it, and the source has no such table.".to_owned(),
                bytes => format!(
                    "The step names it with {bytes} bytes; PostgreSQL keeps {NAME_LIMIT}, so that no table has that name."
                ),
            };
            findings.push(Finding::new(severity, "no-table", format!("table {shown}"), what).remedy("mend the step"));
        }
    }
    let moving = tables.iter().filter(|name| wanted.takes(name)).count();
    if moving == 0 {
        findings.push(
            Finding::new(
                Refuse,
                "nothing",
                format!("schema {}", wanted.source_schema),
                "There is no table that would move.",
            )
            .remedy("check source_schema, tables and exclude"),
        );
    }
    Ok(())
}

/// Extensions of a database, and whether an object that is no extension's rests on each. Members of operator families rest
/// on them without being members: they are not asked.
const EXTENSIONS: &str = "SELECT e.extname::text, e.extversion, n.nspname::text, e.extrelocatable::text,
    EXISTS (SELECT FROM pg_catalog.pg_depend AS m JOIN pg_catalog.pg_depend AS d
                ON d.refclassid = m.classid AND d.refobjid = m.objid AND d.deptype IN ('n', 'a')
            WHERE m.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND m.refobjid = e.oid AND m.deptype = 'e'
              AND d.classid IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass,
                  'pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass,
                  'pg_catalog.pg_trigger'::pg_catalog.regclass, 'pg_catalog.pg_rewrite'::pg_catalog.regclass,
                  'pg_catalog.pg_policy'::pg_catalog.regclass, 'pg_catalog.pg_type'::pg_catalog.regclass)
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS o WHERE o.classid = d.classid AND o.objid = d.objid
                              AND o.deptype = 'e'))::text
FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
WHERE e.extname <> 'plpgsql' ORDER BY e.extname";

const AVAILABLE: &str = "SELECT name::text, default_version FROM pg_catalog.pg_available_extensions";

async fn extensions(
    source: &Session,
    target: &Session,
    wanted: &Wanted,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    let there =
        |rows: Vec<Row>| -> BTreeMap<String, Row> { rows.into_iter().map(|row| (cell(&row, 0), row)).collect() };
    let installed = there(rows(target, EXTENSIONS, &[]).await?);
    let available = there(rows(target, AVAILABLE, &[]).await?);
    for row in rows(source, EXTENSIONS, &[]).await? {
        let [name, version, schema, relocatable, used] = [0, 1, 2, 3, 4].map(|at| cell(&row, at));
        let object = format!("extension {name}");
        if schema == wanted.source_schema && relocatable == "false" {
            findings.push(
                Finding::new(
                    if used == "true" { Refuse } else { Warn },
                    "extension-fixed",
                    object.clone(),
                    format!("It is in {schema} and cannot be moved out of it, so that {schema} cannot be renamed without it."),
                )
                .remedy("let the target's tables be made by migrations"),
            );
        }
        let severity = if used == "true" { Refuse } else { Warn };
        let Some(other) = installed.get(&name) else {
            let (what, remedy) = match available.get(&name) {
                Some(_) => (
                    "The target's database does not have it.".to_owned(),
                    format!(
                        "in the target's database: CREATE EXTENSION {name} SCHEMA ... (one that all tenants share)"
                    ),
                ),
                None => (
                    "The target's server does not even have its files.".to_owned(),
                    format!("install the package with {name} on the target's server, then CREATE EXTENSION"),
                ),
            };
            findings.push(Finding::new(severity, "extension-missing", object, what).remedy(remedy));
            continue;
        };
        if cell(other, 1) != version {
            let what = format!("It is {version} at the source and {} at the target.", cell(other, 1));
            findings.push(
                Finding::new(Warn, "extension-version", object.clone(), what)
                    .remedy(format!("ALTER EXTENSION {name} UPDATE, on the older side")),
            );
        }
        if cell(other, 2) == wanted.schema {
            let what = format!("At the target it is in {}, where the legacy tables are to be.", wanted.schema);
            findings.push(
                Finding::new(Refuse, "extension-schema", object, what)
                    .remedy(format!("ALTER EXTENSION {name} SET SCHEMA ... (one that all tenants share)")),
            );
        } else if cell(other, 2) != schema {
            let what = format!("It is in {schema} at the source and in {} at the target.", cell(other, 2));
            findings.push(
                Finding::new(Note, "extension-schema", object, what)
                    .remedy(format!("the runtime role needs {} in its search_path", cell(other, 2))),
            );
        }
    }
    Ok(())
}

/// Roles that policies of the schema name.
const POLICY_ROLES: &str =
    "SELECT r.rolname::text, pg_catalog.format('policy %I on %I.%I', p.polname, n.nspname, c.relname), c.relname::text
FROM pg_catalog.pg_policy AS p JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles AS r ON r.oid = ANY (p.polroles)
WHERE n.nspname = $1::text ORDER BY c.relname, p.polname, r.rolname";

/// Owners and grantees of what is in the schema, with one object as an example.
const GRANT_ROLES: &str = "SELECT r.rolname::text, pg_catalog.min(g.object), NULL::text FROM (
    SELECT c.relowner AS role, pg_catalog.format('it owns %I.%I', n.nspname, c.relname) AS object
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
    UNION ALL
    SELECT a.grantee, pg_catalog.format('it has %s on %I.%I', a.privilege_type, n.nspname, c.relname)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace,
         LATERAL pg_catalog.aclexplode(c.relacl) AS a
    WHERE n.nspname = $1::text AND a.grantee <> c.relowner
    UNION ALL
    SELECT a.grantee, pg_catalog.format('it has %s on %I.%I()', a.privilege_type, n.nspname, p.proname)
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace,
         LATERAL pg_catalog.aclexplode(p.proacl) AS a
    WHERE n.nspname = $1::text AND a.grantee <> p.proowner) AS g
JOIN pg_catalog.pg_roles AS r ON r.oid = g.role
WHERE r.rolname NOT LIKE 'pg\\_%' GROUP BY r.rolname ORDER BY r.rolname";

const ROLES: &str = "SELECT rolname::text FROM pg_catalog.pg_roles";

/// Languages of functions in the schema.
const LANGUAGES_USED: &str = "SELECT DISTINCT l.lanname::text, pg_catalog.min(pg_catalog.format('function %I.%I', n.nspname, p.proname)), NULL::text
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
WHERE n.nspname = $1::text GROUP BY l.lanname ORDER BY 1";

const LANGUAGES: &str = "SELECT lanname::text FROM pg_catalog.pg_language";

/// Collations of columns, where they are not the database's own and not of the schema itself.
const COLLATIONS_USED: &str = "SELECT l.collname::text, pg_catalog.min(pg_catalog.format('column %I.%I.%I', n.nspname, c.relname, a.attname)),
    pg_catalog.min(c.relname::text)
FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation JOIN pg_catalog.pg_namespace AS ln ON ln.oid = l.collnamespace
WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p') AND NOT a.attisdropped AND ln.nspname = 'pg_catalog'
  AND l.collname <> 'default'
GROUP BY l.collname ORDER BY 1";

const COLLATIONS: &str = "SELECT l.collname::text FROM pg_catalog.pg_collation AS l
WHERE l.collencoding IN (-1, (SELECT encoding FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))";

/// What definitions name, and the target's cluster or database lacks.
async fn absent(
    source: &Session,
    target: &Session,
    wanted: &Wanted,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    let lacks = [
        (
            POLICY_ROLES,
            ROLES,
            Refuse,
            "policy-role",
            "role",
            "for which no role is there in the target's cluster",
            "CREATE ROLE {} NOLOGIN in the target's cluster, and make the runtime role a member",
        ),
        (
            GRANT_ROLES,
            ROLES,
            Note,
            "grant-role",
            "role",
            "and the target's cluster lacks it. Owners and grants do not move: the declared topology gives them",
            "",
        ),
        (
            LANGUAGES_USED,
            LANGUAGES,
            Refuse,
            "language-missing",
            "language",
            "whose language the target's database lacks",
            "in the target's database: CREATE EXTENSION {}",
        ),
        (
            COLLATIONS_USED,
            COLLATIONS,
            Refuse,
            "collation-missing",
            "collation",
            "whose collation the target's database lacks",
            "install the locale on the target's server, then SELECT pg_catalog.pg_import_system_collations('pg_catalog')",
        ),
    ];
    for (used, has, severity, code, word, what, remedy) in lacks {
        let has: BTreeSet<String> = rows(target, has, &[]).await?.iter().map(|row| cell(row, 0)).collect();
        for row in rows(source, used, &[&wanted.source_schema]).await? {
            let name = cell(&row, 0);
            let other_table = !cell(&row, 2).is_empty() && !wanted.takes(&cell(&row, 2));
            if has.contains(&name) || other_table {
                continue;
            }
            let what = format!("{}, {what}.", capital(&cell(&row, 1)));
            findings
                .push(Finding::new(severity, code, format!("{word} {name}"), what).remedy(remedy.replace("{}", &name)));
        }
    }
    Ok(())
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// Relations, types and functions of a schema by name; an extension's are not its own.
const NAMES: &str = "SELECT w.word, w.name FROM (
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
               WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' WHEN 'c' THEN 'type' ELSE 'table' END AS word,
           c.relname::text AS name, c.relnamespace AS schema, 'pg_catalog.pg_class'::pg_catalog.regclass AS class, c.oid
    FROM pg_catalog.pg_class AS c WHERE c.relkind <> 't'
    UNION ALL
    SELECT 'type', t.typname::text, t.typnamespace, 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid
    FROM pg_catalog.pg_type AS t WHERE t.typtype IN ('e', 'd', 'r')
    UNION ALL
    SELECT 'function', p.proname || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')', p.pronamespace,
           'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid
    FROM pg_catalog.pg_proc AS p) AS w
JOIN pg_catalog.pg_namespace AS n ON n.oid = w.schema
WHERE n.nspname = $1::text AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = w.class AND d.objid = w.oid
    AND d.deptype = 'e')
ORDER BY 1, 2";

async fn names_in(session: &Session, schema: &String) -> Result<BTreeSet<(String, String)>, TransferError> {
    Ok(rows(session, NAMES, &[schema]).await?.iter().map(|row| (cell(row, 0), cell(row, 1))).collect())
}

/// What stands in the target's schema already. `comes` are the names that will be made there, and whether each is a function's.
pub(super) async fn collisions(
    target: &Session,
    wanted: &Wanted,
    comes: &BTreeSet<(bool, String)>,
    findings: &mut Vec<Finding>,
) -> Result<(), TransferError> {
    let mut others = Vec::new();
    for (word, name) in names_in(target, &wanted.schema).await? {
        if comes.contains(&(word == "function", name.clone())) {
            findings.push(
                Finding::new(
                    Refuse,
                    "collision",
                    format!("{word} {}.{name}", wanted.schema),
                    "The target has it already, and the source brings one of that name.",
                )
                .remedy("give the transfer another schema; or, if migrations made it, structure = \"existing\""),
            );
        } else {
            others.push(format!("{word} {name}"));
        }
    }
    if let Some(first) = others.first() {
        let what =
            format!("It holds {} objects that the source does not have, such as {first}. They stay.", others.len());
        findings.push(Finding::new(Warn, "schema-not-empty", format!("schema {}", wanted.schema), what).remedy(
            "if they are left over, drop them; if they are another application's, give the transfer another schema",
        ));
    }
    Ok(())
}

/// Jobs of pg_cron write, too, and are no session that a pooler could pause.
async fn cron(source: &Session, findings: &mut Vec<Finding>) -> Result<(), TransferError> {
    const THERE: &str = "SELECT pg_catalog.row_security_active(c.oid) FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'cron' AND c.relname = 'job'";
    const JOBS: &str = "SELECT jobid::text, schedule::text, command::text FROM cron.job
        WHERE active AND database = pg_catalog.current_database() ORDER BY jobid";
    let hides = match source.value(THERE).await?.as_str() {
        "" => return Ok(()),
        hides => hides == "t",
    };
    let answers = match source.simple(JOBS).await {
        Ok(answers) => answers,
        Err(error) if error.sqlstate() == Some("42501") => {
            findings.push(not_examined("cron-job", &error));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if hides {
        let what = format!("Row security hides the jobs of others from role {}.", source.options().user);
        findings.push(
            Finding::new(Warn, "not-examined", "rule cron-job", what)
                .remedy("connect as a role that may read it, or look yourself"),
        );
    }
    for row in answers.iter().flat_map(|answer| &answer.rows) {
        let what = format!("It runs here at `{}`, and may write when nobody expects it.", cell(row, 1));
        let object = format!("cron job {}", cell(row, 0));
        let remedy = format!("before the switch: UPDATE cron.job SET active = false WHERE jobid = {}", cell(row, 0));
        findings.push(Finding::new(Warn, "cron-job", object, what).remedy(remedy));
    }
    Ok(())
}
