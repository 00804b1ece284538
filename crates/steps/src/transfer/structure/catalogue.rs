//! Everything that a schema is, as PostgreSQL itself prints it: for proving that two are the same.

use std::collections::BTreeMap;

use pgrunbook_document::sql::{TokenKind, lex};
use pgrunbook_postgres::{Session, quote};

use super::super::error::TransferError;
use crate::fence::TRIGGER_NAMES;

/// What is known of a thing, by a word and its name: `column notes.body`.
pub(super) type Catalogue = BTreeMap<String, Entry>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it is a part of a relation: that relation.
    pub relation: Option<String>,
    pub text: String,
}

/// Reads a schema. Extensions' members are not part of it.
///
/// All is printed under an empty `search_path`, so that every name says where it is.
pub(super) async fn read(session: &Session, schema: &str) -> Result<Catalogue, TransferError> {
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL search_path = ''").await?;
    let read = entries(session, schema).await;
    session.execute("ROLLBACK").await?;
    read
}

async fn entries(session: &Session, schema: &str) -> Result<Catalogue, TransferError> {
    let mut catalogue = Catalogue::new();
    let literal = quote::literal(schema).unwrap_or_default();
    for query in QUERIES {
        let sql = query.replace("{schema}", &literal);
        for row in session.simple(&sql).await?.into_iter().flat_map(|answer| answer.rows) {
            let mut cells = row.into_iter();
            let mut next = || cells.next().flatten();
            let (key, relation, text) = (next().unwrap_or_default(), next(), next().unwrap_or_default());
            // A fence is no part of the schema that it stands on. Whoever was killed behind it looks again.
            if !TRIGGER_NAMES.iter().any(|name| key.starts_with(&format!("trigger {name} on "))) {
                catalogue.insert(key, Entry { relation, text });
            }
        }
    }
    Ok(catalogue)
}

/// What is different, in words; empty where nothing is. `other_major`: the two were printed by different versions, which
/// put parentheses and tables' names before columns differently, so that these are not compared.
pub(super) fn differences(wanted: &Catalogue, there: &Catalogue, other_major: bool) -> Vec<String> {
    let plain = |text: &str| if other_major { without_decoration(text) } else { text.to_owned() };
    let mut found = Vec::new();
    for (key, entry) in wanted {
        match there.get(key) {
            None => found.push(format!("{key} is missing")),
            Some(other) if plain(&other.text) != plain(&entry.text) => {
                found.push(format!("{key} is `{}` and not `{}`", other.text, entry.text));
            }
            Some(_) => {}
        }
    }
    let ours = |relation: &String| wanted.contains_key(&format!("relation {relation}"));
    let more =
        there.iter().filter(|(key, entry)| !wanted.contains_key(*key) && entry.relation.as_ref().is_some_and(ours));
    found.extend(more.map(|(key, _)| format!("{key} is there and was not wanted")));
    found
}

/// Words, literals and signs, but for parentheses, blanks, and `name.` before a name.
pub(in crate::transfer) fn without_decoration(text: &str) -> String {
    let tokens: Vec<_> =
        lex(text).filter(|token| !token.is_blank()).map(|token| (token.kind, &text[token.range()])).collect();
    let mut out = Vec::new();
    for (at, (kind, word)) in tokens.iter().enumerate() {
        let qualifies = matches!(kind, TokenKind::Word | TokenKind::QuotedName)
            && tokens.get(at + 1).is_some_and(|next| next.1 == ".");
        if !qualifies && !matches!(*word, "(" | ")" | "." | ";") {
            out.push(*word);
        }
    }
    out.join(" ")
}

/// Each gives key, relation, text.
const QUERIES: &[&str] = &[
    RELATIONS,
    COLUMNS,
    CONSTRAINTS,
    INDEXES,
    TRIGGERS,
    RULES,
    VIEWS,
    POLICIES,
    FUNCTIONS,
    TYPES,
    SEQUENCES,
    STATISTICS,
    COMMENTS,
    MEMBERS,
];

const RELATIONS: &str = "SELECT 'relation ' || c.relname, c.relname,
    pg_catalog.concat_ws(' ', c.relkind, c.relpersistence, 'identity', c.relreplident, 'rls', c.relrowsecurity,
        c.relforcerowsecurity, c.reloptions::text, pg_catalog.pg_get_partkeydef(c.oid),
        pg_catalog.pg_get_expr(c.relpartbound, c.oid), 'of', NULLIF(c.reloftype, 0)::regtype,
        (SELECT pg_catalog.string_agg(h.inhparent::regclass::text, ', ' ORDER BY h.inhseqno)
         FROM pg_catalog.pg_inherits AS h WHERE h.inhrelid = c.oid))
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relkind IN ('r', 'p', 'v', 'm', 'c', 'S')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.objid = c.oid AND e.deptype = 'e')";

/// The place among the columns that are there: dropped ones leave a gap that nobody sees.
const COLUMNS: &str = "SELECT pg_catalog.format('column %s.%s', c.relname, a.attname), c.relname,
    pg_catalog.concat_ws(' ', pg_catalog.row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum),
        pg_catalog.format_type(a.atttypid, a.atttypmod), 'not null', a.attnotnull, 'identity', a.attidentity,
        'generated', a.attgenerated, 'storage', a.attstorage, a.attcompression, NULLIF(a.attstattarget, -1), a.attoptions::text,
        CASE WHEN a.attcollation <> t.typcollation THEN 'collate ' || a.attcollation::regcollation::text END,
        'default ' || pg_catalog.pg_get_expr(f.adbin, f.adrelid), 'local', a.attislocal)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef AS f ON f.adrelid = c.oid AND f.adnum = a.attnum
WHERE n.nspname = {schema} AND c.relkind IN ('r', 'p', 'v', 'm', 'c')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.objid = c.oid AND e.deptype = 'e')";

/// NOT NULL is a constraint with a name since 18; the columns say it for all versions.
const CONSTRAINTS: &str = "SELECT pg_catalog.format('constraint %s on %s', k.conname, coalesce(c.relname, t.typname)), c.relname,
    pg_catalog.concat_ws(' ', pg_catalog.pg_get_constraintdef(k.oid), 'validated', k.convalidated, 'local', k.conislocal,
        'enabled', (SELECT pg_catalog.string_agg(DISTINCT g.tgenabled::text, '') FROM pg_catalog.pg_trigger AS g
                    WHERE g.tgconstraint = k.oid))
FROM pg_catalog.pg_constraint AS k
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid LEFT JOIN pg_catalog.pg_type AS t ON t.oid = k.contypid
JOIN pg_catalog.pg_namespace AS n ON n.oid = coalesce(c.relnamespace, t.typnamespace)
WHERE n.nspname = {schema} AND k.contype <> 'n'";

const INDEXES: &str = "SELECT 'index ' || x.relname, c.relname,
    pg_catalog.concat_ws(' ', pg_catalog.pg_get_indexdef(i.indexrelid), 'identity', i.indisreplident, 'clustered', i.indisclustered)
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND i.indisvalid";

const TRIGGERS: &str = "SELECT pg_catalog.format('trigger %s on %s', g.tgname, c.relname), c.relname,
    pg_catalog.concat_ws(' ', pg_catalog.pg_get_triggerdef(g.oid), g.tgenabled)
FROM pg_catalog.pg_trigger AS g JOIN pg_catalog.pg_class AS c ON c.oid = g.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND NOT g.tgisinternal";

const RULES: &str = "SELECT pg_catalog.format('rule %s on %s', r.rulename, c.relname), c.relname,
    pg_catalog.concat_ws(' ', pg_catalog.pg_get_ruledef(r.oid), r.ev_enabled)
FROM pg_catalog.pg_rewrite AS r JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND r.rulename <> '_RETURN'";

const VIEWS: &str = "SELECT 'definition of ' || c.relname, c.relname, pg_catalog.pg_get_viewdef(c.oid)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relkind IN ('v', 'm')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.objid = c.oid AND e.deptype = 'e')";

const POLICIES: &str = "SELECT pg_catalog.format('policy %s on %s', p.polname, c.relname), c.relname,
    pg_catalog.concat_ws(' ', p.polcmd, p.polpermissive,
        (SELECT pg_catalog.string_agg(coalesce(r.rolname, 'public'), ', ' ORDER BY r.rolname)
         FROM pg_catalog.unnest(p.polroles) AS o LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = o),
        'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
FROM pg_catalog.pg_policy AS p JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema}";

const FUNCTIONS: &str = "SELECT pg_catalog.format('function %s(%s)', p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)), NULL,
    CASE WHEN p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid)
         ELSE pg_catalog.concat_ws(' ', pg_catalog.pg_get_function_result(p.oid), a.aggtransfn, a.aggfinalfn, a.aggcombinefn,
             a.agginitval, a.aggtranstype::regtype, a.aggkind) END
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
LEFT JOIN pg_catalog.pg_aggregate AS a ON a.aggfnoid = p.oid
WHERE n.nspname = {schema}
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.objid = p.oid AND e.deptype = 'e')";

const TYPES: &str = "SELECT 'type ' || t.typname, NULL,
    pg_catalog.concat_ws(' ', t.typtype, t.typnotnull, t.typdefault,
        CASE WHEN t.typtype = 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) END,
        (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder)
         FROM pg_catalog.pg_enum AS l WHERE l.enumtypid = t.oid),
        (SELECT pg_catalog.concat_ws(' ', r.rngsubtype::regtype, r.rngcanonical, r.rngsubdiff)
         FROM pg_catalog.pg_range AS r WHERE r.rngtypid = t.oid))
FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
WHERE n.nspname = {schema} AND t.typtype IN ('e', 'd', 'r')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.objid = t.oid AND e.deptype = 'e')";

const SEQUENCES: &str = "SELECT 'sequence ' || c.relname, c.relname,
    pg_catalog.concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle,
        'owned by', (SELECT pg_catalog.format('%s.%s', d.refobjid::regclass, a.attname) FROM pg_catalog.pg_depend AS d
                     JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                     WHERE d.objid = c.oid AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0))
FROM pg_catalog.pg_sequence AS s JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema}";

const STATISTICS: &str =
    "SELECT 'statistics ' || s.stxname, s.stxrelid::regclass::text, pg_catalog.pg_get_statisticsobjdef(s.oid)
FROM pg_catalog.pg_statistic_ext AS s JOIN pg_catalog.pg_namespace AS n ON n.oid = s.stxnamespace
WHERE n.nspname = {schema}";

const COMMENTS: &str = "SELECT pg_catalog.format('comment on %s %s', i.type, i.identity), NULL, d.description
FROM pg_catalog.pg_description AS d, LATERAL pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) AS i
WHERE (i.schema = pg_catalog.quote_ident({schema}) OR i.identity LIKE '% on ' || pg_catalog.quote_ident({schema}) || '.%')
  AND d.objoid >= 16384
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e')";

/// What is in the schema, of whatever kind: operators, collations, text search, ...
const MEMBERS: &str = "SELECT pg_catalog.format('%s %s', i.type, i.identity), NULL, 'is there'
FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_namespace AS n ON n.oid = d.refobjid,
     LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, 0) AS i
WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.nspname = {schema} AND d.deptype = 'n'
  AND i.type <> 'default acl'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')";

/// Objects of a schema that rest on something of another schema that is no extension's. A fence's triggers rest on ours.
const REST_ON_OTHERS: &str = "SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid),
    pg_catalog.pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
FROM pg_catalog.pg_depend AS d,
     LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) AS i,
     LATERAL pg_catalog.pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) AS r
WHERE d.objid >= 16384 AND d.refobjid >= 16384
  AND (i.schema = pg_catalog.quote_ident({schema}) OR i.identity LIKE '% on ' || pg_catalog.quote_ident({schema}) || '.%'
       OR i.identity LIKE 'for ' || pg_catalog.quote_ident({schema}) || '.%')
  AND r.schema IS NOT NULL AND r.schema NOT IN (pg_catalog.quote_ident({schema}), 'pg_catalog', 'information_schema', 'pg_toast')
  AND NOT (d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND r.schema = 'pgrunbook')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.classid = d.refclassid AND e.objid = d.refobjid
                  AND e.deptype IN ('e', 'i'))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')
ORDER BY 1, 2";

/// Pairs of what rests, and on what.
pub(super) async fn rest_on_others(session: &Session, schema: &str) -> Result<Vec<(String, String)>, TransferError> {
    let sql = REST_ON_OTHERS.replace("{schema}", &quote::literal(schema).unwrap_or_default());
    let rows = session.simple(&sql).await?.into_iter().flat_map(|answer| answer.rows);
    Ok(rows
        .map(|row| {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            (cells.next().unwrap_or_default(), cells.next().unwrap_or_default())
        })
        .collect())
}

/// Functions with a text for a body, and the validator of their language.
const TEXT_BODIES: &str =
    "SELECT p.oid, pg_catalog.format('%s(%s)', p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)),
    pg_catalog.format('%I.%I', vn.nspname, v.proname),
    (SELECT pg_catalog.substr(s, 13) FROM pg_catalog.unnest(p.proconfig) AS s WHERE s LIKE 'search_path=%')
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
JOIN pg_catalog.pg_proc AS v ON v.oid = l.lanvalidator JOIN pg_catalog.pg_namespace AS vn ON vn.oid = v.pronamespace
WHERE n.nspname = {schema} AND p.prosqlbody IS NULL AND l.lanname NOT IN ('c', 'internal')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.objid = p.oid AND e.deptype = 'e')
ORDER BY 2";

/// Has each function with a text for a body checked by its language, under the `search_path` that it will run with. Gives
/// those that fail, with why. PL/pgSQL checks no more than the syntax; SQL checks the names.
pub(super) async fn compile(
    session: &Session,
    schema: &str,
    shared: &[String],
) -> Result<BTreeMap<String, String>, TransferError> {
    let literal = quote::literal(schema).unwrap_or_default();
    let path: Vec<String> = std::iter::once(schema)
        .chain(shared.iter().map(String::as_str))
        .filter_map(|name| quote::ident(name).ok())
        .collect();
    let mut failed = BTreeMap::new();
    let rows = session.simple(&TEXT_BODIES.replace("{schema}", &literal)).await?;
    for row in rows.into_iter().flat_map(|answer| answer.rows) {
        let mut cells = row.into_iter();
        let mut next = || cells.next().flatten();
        let (Some(oid), Some(name), Some(validator), own) = (next(), next(), next(), next()) else { continue };
        let path = own.unwrap_or_else(|| path.join(", "));
        let check = format!(
            "BEGIN READ ONLY; SET LOCAL check_function_bodies = on; SET LOCAL search_path = {path}; SELECT {validator}({oid}); ROLLBACK"
        );
        if let Err(error) = session.execute(&check).await {
            session.execute("ROLLBACK").await?;
            failed.insert(name, error.to_string());
        }
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, relation: Option<&str>, text: &str) -> (String, Entry) {
        (key.to_owned(), Entry { relation: relation.map(str::to_owned), text: text.to_owned() })
    }

    #[test]
    fn only_decoration_is_forgiven_between_versions() {
        let catalogue = |text: &str| Catalogue::from([one("definition of v", Some("v"), text)]);
        let (old, new) =
            (catalogue("SELECT a.id FROM t a WHERE (a.n > 3);"), catalogue("SELECT id\n FROM t a\n WHERE n > 3"));
        assert_eq!(differences(&old, &new, true), Vec::<String>::new());
        assert_eq!(differences(&old, &new, false).len(), 1);
        assert_eq!(differences(&old, &catalogue("SELECT a.id FROM t a WHERE (a.n > 4);"), true).len(), 1);
        assert_eq!(differences(&old, &catalogue("SELECT a.id FROM t a WHERE (a.m > 3);"), true).len(), 1);
    }

    #[test]
    fn what_others_keep_in_the_schema_is_no_difference() {
        let ours = Catalogue::from([one("relation t", Some("t"), "r"), one("index i", Some("t"), "x")]);
        let theirs = Catalogue::from([
            one("relation t", Some("t"), "r"),
            one("index other", Some("t"), "x"),
            one("relation theirs", Some("theirs"), "r"),
        ]);
        assert_eq!(
            differences(&ours, &theirs, false),
            ["index i is missing", "index other is there and was not wanted"]
        );
    }
}
