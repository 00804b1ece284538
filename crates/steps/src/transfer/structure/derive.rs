//! What happens in the scratch database: load, rename, print, and put the last names right.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_postgres::{PgError, Session, quote};
use similar::TextDiff;

use super::super::error::TransferError;
use super::super::finding::{Finding, Severity};
use super::super::preflight::Wanted;
use super::catalogue::{self, Catalogue};
use super::dump::{self, Dumped};
use super::rewrite::{Names, Rewritten};
use super::scratch::Scratch;
use super::{Object, PREAMBLE, Rewrite, Structure};
use crate::backup::programs::Audience;

/// From which kind on the dump is past what rows need. <https://www.postgresql.org/docs/current/app-pgrestore.html> (`--section`)
const POST_DATA: &[&str] = &[
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "STATISTICS",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
];

/// What belongs to the database and not to the schema.
const OF_DATABASE: &[&str] = &[
    "EVENT TRIGGER",
    "SCHEMA",
    "EXTENSION",
    "SERVER",
    "FOREIGN DATA WRAPPER",
    "USER MAPPING",
    "PROCEDURAL LANGUAGE",
    "CAST",
    "TRANSFORM",
    "ACCESS METHOD",
    "FOREIGN TABLE",
    "DEFAULT ACL",
    "ACL",
];

/// Where extensions wait while the schema they were in is renamed.
const PARKING: &str = "pgrunbook_parking";

const EXTENSIONS: &str = "SELECT e.extname, n.nspname, e.extrelocatable FROM pg_catalog.pg_extension AS e
JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql' ORDER BY e.extname";

/// The schema of each extension of a database.
pub(super) async fn extension_homes(session: &Session) -> Result<BTreeMap<String, String>, TransferError> {
    Ok(texts(session, EXTENSIONS).await?.into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect())
}

/// Rows as texts, null as nothing.
async fn texts(session: &Session, sql: &str) -> Result<Vec<Vec<String>>, TransferError> {
    let rows = session.simple(sql).await?.into_iter().flat_map(|answer| answer.rows);
    Ok(rows.map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
}

fn ident(name: &str) -> String {
    quote::ident(name).expect("a name that the server gave has no NUL")
}

fn literal(value: &str) -> String {
    quote::literal(value).expect("a name that the server gave has no NUL")
}

/// Everything between making the scratch database and dropping it.
pub(super) async fn within(
    scratch: &Scratch,
    dumped: Vec<Dumped>,
    source: &Session,
    homes: BTreeMap<String, String>,
    wanted: &Wanted,
    accepted: &[String],
    audience: Audience<'_>,
) -> Result<Structure, TransferError> {
    let session = Session::connect(&scratch.database, "pgrunbook:scratch").await?;
    let mut structure =
        Structure { schema: wanted.schema.clone(), scratch_major: scratch.major, ..Structure::default() };
    if scratch.alone {
        make_roles(&session, source).await?;
    }
    load(&session, &dumped, wanted, &mut structure).await?;
    if !structure.refused.is_empty() {
        return Ok(structure);
    }
    leave_out(&session, wanted, &mut structure).await?;
    structure.broken = catalogue::compile(&session, &wanted.source_schema, &[]).await?;
    structure.notes.extend(structure.broken.iter().map(|(function, why)| {
        let object = format!("function {}.{function}", wanted.source_schema);
        Finding::new(
            Severity::Note,
            "broken-function",
            object,
            format!("It does not compile at the source either: {why}."),
        )
    }));
    let names = rename(&session, homes, wanted, &mut structure).await?;
    if !structure.refused.is_empty() {
        return Ok(structure);
    }
    structure.shared.clone_from(&names.shared);
    for (what, on) in catalogue::rest_on_others(&session, &wanted.schema).await? {
        let finding =
            Finding::new(Severity::Refuse, "other-schema", what, format!("It rests on {on}, which does not move."));
        structure.refused.push(finding.remedy(format!("move that into {}, or take it off", wanted.source_schema)));
    }
    let consent = accepted.iter().any(|word| word == "dynamic-sql");
    structure.catalogue = renamed(catalogue::read(&session, &wanted.schema).await?, &names, consent);
    let refreshes = refreshes(source, wanted).await?;
    drop(session);
    let printed = dump::definitions(&scratch.database, scratch.major, Some(&wanted.schema), audience).await?;
    sort(printed, refreshes, &names, consent, &mut structure);
    Ok(structure)
}

/// Policies are for roles, which have to be there; nothing else of them matters here.
async fn make_roles(session: &Session, source: &Session) -> Result<(), TransferError> {
    const ROLES: &str = "SELECT DISTINCT r.rolname FROM pg_catalog.pg_policy AS p
        JOIN pg_catalog.pg_roles AS r ON r.oid = ANY (p.polroles)";
    const HERE: &str = "SELECT rolname FROM pg_catalog.pg_roles";
    let here: BTreeSet<String> = texts(session, HERE).await?.into_iter().flatten().collect();
    for role in texts(source, ROLES).await?.into_iter().flatten().filter(|role| !here.contains(role)) {
        session.execute(&format!("CREATE ROLE {} NOLOGIN", ident(&role))).await?;
    }
    Ok(())
}

/// Makes the legacy database's objects in the scratch. Of other schemas what fails is left out: if something of ours needs it,
/// that fails with its own name.
async fn load(
    session: &Session,
    dumped: &[Dumped],
    wanted: &Wanted,
    structure: &mut Structure,
) -> Result<(), TransferError> {
    session.execute(PREAMBLE).await?;
    // Each statement commits, and nothing of it is kept.
    session.execute("SET synchronous_commit = off").await?;
    for one in dumped {
        let (kind, name) = (one.object.kind.as_str(), one.object.name.as_str());
        // A user mapping holds a password, and no definition needs it.
        if matches!(kind, "EVENT TRIGGER" | "USER MAPPING") || (kind == "SCHEMA" && name == "public") {
            continue;
        }
        let Err(error) = session.execute(&one.object.sql).await else { continue };
        if let PgError::Lost { .. } = error {
            return Err(error.into());
        }
        if kind == "EXTENSION" {
            let finding = Finding::new(
                Severity::Refuse,
                "extension",
                format!("extension {name}"),
                format!("It cannot be made: {error}."),
            );
            structure.refused.push(finding.remedy("install it on the target's server, as a role that may"));
        } else if kind == "POLICY" && error.sqlstate() == Some("42704") && one.schema == wanted.source_schema {
            let finding = Finding::new(Severity::Refuse, "policy-role", format!("policy {name}"), format!("{error}."));
            structure.refused.push(
                finding.remedy("CREATE ROLE ... NOLOGIN in the target's cluster, and make the runtime role a member"),
            );
        } else if one.schema == wanted.source_schema && structure.refused.is_empty() && !OF_DATABASE.contains(&kind) {
            return Err(TransferError::Object {
                kind: kind.to_owned(),
                name: name.to_owned(),
                place: "a scratch database".to_owned(),
                safe: "The source and the target are as they were.",
                error: Box::new(error),
            });
        }
    }
    Ok(())
}

/// Tables that do not move, but as partitions of one that does.
const TABLES: &str = "SELECT c.relname, coalesce((SELECT r.relname FROM pg_catalog.pg_partition_root(c.oid) AS p
    JOIN pg_catalog.pg_class AS r ON r.oid = p), c.relname), c.relkind FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relkind IN ('r', 'p', 'f') ORDER BY 1";

async fn leave_out(session: &Session, wanted: &Wanted, structure: &mut Structure) -> Result<(), TransferError> {
    let tables = texts(session, &TABLES.replace("{schema}", &literal(&wanted.source_schema))).await?;
    let mut out: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in &tables {
        let foreign = row[2] == "f";
        if foreign && wanted.takes(&row[0]) {
            let object = format!("foreign table {}.{}", wanted.source_schema, row[0]);
            let what = "Its rows are on another server. With consent it is left out.";
            structure.refused.push(
                Finding::new(Severity::Consent("foreign-table"), "foreign-table", object, what)
                    .remedy("name it under `exclude`, and make it by a migration if the target shall have it"),
            );
        }
        if foreign || !(wanted.takes(&row[0]) || (row[0] != row[1] && wanted.takes(&row[1]))) {
            let name = format!("{}.{}", ident(&wanted.source_schema), ident(&row[0]));
            out.entry(if foreign { "FOREIGN TABLE" } else { "TABLE" }).or_default().push(name);
        }
    }
    for (kind, names) in out {
        if let Err(error) = session.execute(&format!("DROP {kind} {}", names.join(", "))).await {
            let detail = match &error {
                PgError::Server(error) => error.detail.clone().unwrap_or_else(|| error.message.clone()),
                error => error.to_string(),
            };
            let what = format!("What moves rests on what does not: {}.", detail.replace('\n', "; "));
            structure.refused.push(
                Finding::new(Severity::Refuse, "left-out", names.join(", "), what)
                    .remedy("let it move, too, or leave out what rests on it"),
            );
        }
    }
    Ok(())
}

/// Moves extensions to where the target has them, and gives the schema its name.
async fn rename(
    session: &Session,
    homes: BTreeMap<String, String>,
    wanted: &Wanted,
    structure: &mut Structure,
) -> Result<Names, TransferError> {
    session.execute(&format!("CREATE SCHEMA {PARKING}")).await?;
    let mut moved = BTreeMap::new();
    for row in texts(session, EXTENSIONS).await? {
        let [name, schema, relocatable] = &row[..] else { continue };
        let home = homes.get(name).unwrap_or(schema);
        if home == schema && *schema != wanted.source_schema {
            continue;
        }
        if relocatable != "t" {
            if *schema == wanted.source_schema {
                let what = format!("It is in {schema} and cannot be moved out of it.");
                structure.refused.push(
                    Finding::new(Severity::Refuse, "extension-fixed", format!("extension {name}"), what)
                        .remedy("let the target's tables be made by migrations"),
                );
            }
            continue;
        }
        session.execute(&format!("ALTER EXTENSION {} SET SCHEMA {PARKING}", ident(name))).await?;
        moved.insert(name.clone(), home.clone());
    }
    if wanted.source_schema != wanted.schema {
        let taken = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = ";
        if session.value(&format!("{taken}{}", literal(&wanted.schema))).await? == "1" {
            // Another schema of the source: nothing of it moves.
            session.execute(&format!("ALTER SCHEMA {} RENAME TO pgrunbook_aside", ident(&wanted.schema))).await?;
        }
        let (from, to) = (ident(&wanted.source_schema), ident(&wanted.schema));
        session.execute(&format!("ALTER SCHEMA {from} RENAME TO {to}")).await?;
    }
    let mut shared = BTreeSet::new();
    for (name, home) in moved {
        session.execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", ident(&home))).await?;
        session.execute(&format!("ALTER EXTENSION {} SET SCHEMA {}", ident(&name), ident(&home))).await?;
        shared.insert(home);
    }
    let mut names = Names {
        from: wanted.source_schema.clone(),
        to: wanted.schema.clone(),
        shared: shared.into_iter().collect(),
        ..Names::default()
    };
    for row in texts(session, &NAMES.replace("{schema}", &literal(&wanted.schema))).await? {
        let [name, schema, extension] = &row[..] else { continue };
        if extension == "t" {
            names.extensions.insert(name.clone(), schema.clone());
        } else {
            names.own.insert(name.clone());
        }
    }
    Ok(names)
}

/// Names that may stand behind `public.`: those in the renamed schema, and those of extensions.
const NAMES: &str = "SELECT DISTINCT w.name, n.nspname, w.extension FROM (
    SELECT c.relname AS name, c.relnamespace AS schema, false AS extension FROM pg_catalog.pg_class AS c
    UNION ALL SELECT t.typname, t.typnamespace, false FROM pg_catalog.pg_type AS t
    UNION ALL SELECT p.proname, p.pronamespace, false FROM pg_catalog.pg_proc AS p
    UNION ALL SELECT l.collname, l.collnamespace, false FROM pg_catalog.pg_collation AS l
    UNION ALL SELECT g.cfgname, g.cfgnamespace, false FROM pg_catalog.pg_ts_config AS g
    UNION ALL SELECT g.dictname, g.dictnamespace, false FROM pg_catalog.pg_ts_dict AS g
    UNION ALL
    SELECT coalesce(p.proname, t.typname, c.relname, o.opcname), coalesce(p.pronamespace, t.typnamespace, c.relnamespace,
        o.opcnamespace), true
    FROM pg_catalog.pg_depend AS d
    LEFT JOIN pg_catalog.pg_proc AS p ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
    LEFT JOIN pg_catalog.pg_type AS t ON d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = d.objid
    LEFT JOIN pg_catalog.pg_class AS c ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid
    LEFT JOIN pg_catalog.pg_opclass AS o ON d.classid = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND o.oid = d.objid
    WHERE d.deptype = 'e') AS w
JOIN pg_catalog.pg_namespace AS n ON n.oid = w.schema
WHERE w.name IS NOT NULL AND (w.extension OR n.nspname = {schema})";

/// Materialised views with rows, those that others read before them. A schema-only dump says nothing of it.
pub(in crate::transfer) const POPULATED: &str = "WITH RECURSIVE v AS (
    SELECT c.oid, c.relname, c.relispopulated, c.relkind FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = {schema} AND c.relkind IN ('v', 'm')),
reads AS (
    SELECT DISTINCT r.ev_class AS reader, d.refobjid AS read FROM pg_catalog.pg_rewrite AS r
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class
    WHERE r.ev_class IN (SELECT oid FROM v) AND d.refobjid IN (SELECT oid FROM v)),
depth AS (
    SELECT oid, 0 AS level FROM v UNION SELECT reads.reader, depth.level + 1 FROM depth JOIN reads ON reads.read = depth.oid)
SELECT v.relname FROM v JOIN depth ON depth.oid = v.oid WHERE v.relkind = 'm' AND v.relispopulated
GROUP BY v.relname ORDER BY pg_catalog.max(depth.level), v.relname";

async fn refreshes(source: &Session, wanted: &Wanted) -> Result<Vec<Object>, TransferError> {
    let views = texts(source, &POPULATED.replace("{schema}", &literal(&wanted.source_schema))).await?;
    Ok(views
        .into_iter()
        .flatten()
        .map(|name| Object {
            kind: "MATERIALIZED VIEW DATA".to_owned(),
            sql: format!("REFRESH MATERIALIZED VIEW {}.{};", ident(&wanted.schema), ident(&name)),
            name,
            table: None,
        })
        .collect())
}

/// The catalogue as it will be when the last names are right.
fn renamed(catalogue: Catalogue, names: &Names, consent: bool) -> Catalogue {
    let chosen = |found: Rewritten| if consent { found.all } else { found.sure };
    catalogue
        .into_iter()
        .map(|(key, mut entry)| {
            if !key.starts_with("comment ") {
                let kind = if key.starts_with("function ") { "FUNCTION" } else { "" };
                let object = Object { kind: kind.to_owned(), name: String::new(), table: None, sql: entry.text };
                entry.text = chosen(names.object(&object));
            }
            (key, entry)
        })
        .collect()
}

/// What was printed, in what comes before the rows and what after, with the last names right.
fn sort(printed: Vec<Dumped>, refreshes: Vec<Object>, names: &Names, consent: bool, structure: &mut Structure) {
    let mut past = false;
    let mut comments = Vec::new();
    for Dumped { mut object, .. } in printed {
        let kind = object.kind.as_str();
        past |= POST_DATA.contains(&kind);
        if OF_DATABASE.contains(&kind) || (kind == "COMMENT" && object.name.starts_with("SCHEMA ")) {
            continue;
        }
        let found = names.object(&object);
        note(&object, &found, names, consent, structure);
        object.sql = if consent { found.all } else { found.sure };
        if object.kind == "COMMENT" {
            comments.push(object);
        } else if past {
            structure.after.push(object);
        } else {
            structure.before.push(object);
        }
    }
    // A rule or a policy may read a materialised view, but no refresh needs either; unique indexes make it cheaper later.
    structure.after.extend(refreshes);
    structure.after.extend(comments);
}

/// Shows what was changed, and asks for consent to what is doubtful.
fn note(object: &Object, found: &Rewritten, names: &Names, consent: bool, structure: &mut Structure) {
    let label = format!("{} {}", object.kind, object.name);
    let diff = |from: &str, to: &str| {
        TextDiff::from_lines(from, to).unified_diff().context_radius(1).header("legacy", &names.to).to_string()
    };
    if found.sure != object.sql {
        structure.rewritten.push(Rewrite {
            object: label.clone(),
            diff: diff(&object.sql, &found.sure),
            dynamic: false,
        });
    }
    if !found.doubts.is_empty() {
        let diff = diff(&found.sure, &found.all);
        let what = format!("Its text may become SQL that names `{}`: {}.\n{diff}", names.from, found.doubts.join("; "));
        structure.refused.push(
            Finding::new(Severity::Consent("dynamic-sql"), "dynamic-sql", label.clone(), what.trim_end().to_owned())
                .remedy("accept the change that is shown, or mend it at the source: names without a schema follow the search_path"),
        );
        if consent {
            structure.rewritten.push(Rewrite { object: label.clone(), diff, dynamic: true });
        }
    } else if found.dynamic {
        let what =
            "It runs SQL that it puts together itself, and does not name the schema: it follows the search_path.";
        structure.notes.push(Finding::new(Severity::Note, "dynamic-sql-unseen", label.clone(), what));
    }
    if object.kind == "COMMENT" && object.sql.contains(&format!("{}.", names.from)) {
        let what = format!("Its text names `{}.`: a comment is data, and stays.", names.from);
        structure.notes.push(Finding::new(Severity::Note, "comment", label, what));
    }
}
