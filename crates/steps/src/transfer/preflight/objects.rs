//! What is beside the tables: sequences, views, types, functions, publications, writers that are no application.

use super::{Rule, Severity};

use Severity::{Consent, Note, Refuse, Warn};

/// At the source.
pub(super) const RULES: &[Rule] = &[
    Rule::new("sequence", Note, SEQUENCE),
    Rule::new("sequence-cache", Consent("sequence-cache"), SEQUENCE_CACHE),
    Rule::new("materialized-view", Note, MATERIALIZED_VIEW),
    Rule::new("type", Note, TYPE),
    Rule::new("other-schema", Refuse, OTHER_SCHEMA),
    Rule::new("used-from-outside", Warn, USED_FROM_OUTSIDE),
    Rule::new("c-function", Warn, C_FUNCTION),
    Rule::new("event-trigger", Warn, EVENT_TRIGGER),
    Rule::new("publication-all", Warn, PUBLICATION_ALL),
    Rule { since: 15, ..Rule::new("publication-schema", Warn, PUBLICATION_SCHEMA) },
    Rule::new("subscription", Consent("subscription"), SUBSCRIPTION),
    Rule::new("default-privileges", Note, DEFAULT_PRIVILEGES),
];

/// At the target.
pub(super) const TARGET: &[Rule] =
    &[Rule::new("publication-all", Warn, PUBLICATION_ALL), Rule::new("event-trigger", Warn, EVENT_TRIGGER)];

const SEQUENCE: &str = "SELECT o.relname::text,
    pg_catalog.format('sequence %I.%I', n.nspname, c.relname),
    CASE WHEN o.oid IS NULL THEN 'No column owns it. Its value is in no stream: it is set when writers are fenced.'
         ELSE pg_catalog.format('%I.%I owns it. Its value is in no stream: it is set when writers are fenced.',
                  o.relname, a.attname) END, ''
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
LEFT JOIN pg_catalog.pg_class AS o ON o.oid = d.refobjid
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE n.nspname = $1 AND c.relkind = 'S'
ORDER BY c.relname";

const SEQUENCE_CACHE: &str = "SELECT NULL::text,
    pg_catalog.format('sequence %I.%I', n.nspname, c.relname),
    pg_catalog.format('Each session takes %s values at once: after the switch there is a gap, and values are not in order.',
        s.seqcache),
    pg_catalog.format('ALTER SEQUENCE %I.%I CACHE 1', n.nspname, c.relname)
FROM pg_catalog.pg_sequence AS s JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND s.seqcache > 1
ORDER BY c.relname";

const MATERIALIZED_VIEW: &str = "SELECT c.relname::text,
    pg_catalog.format('materialized view %I.%I', n.nspname, c.relname),
    CASE WHEN c.relispopulated THEN 'It is refreshed in the target after the copy, and once more before writers are fenced: what they write after that it shows when it is next refreshed.'
         ELSE 'It was never refreshed, and stays so.' END, ''
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'm'
ORDER BY c.relname";

const TYPE: &str = "SELECT NULL::text,
    pg_catalog.format('%s %I.%I', CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'r' THEN 'range type'
        WHEN 'b' THEN 'base type' ELSE 'composite type' END, n.nspname, t.typname),
    'It is made in the target; a later change of it is a change of structure, which stops the stream.', ''
FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
WHERE n.nspname = $1 AND t.typtype IN ('e', 'd', 'r', 'c', 'b') AND (c.oid IS NULL OR c.relkind = 'c')
  AND NOT (t.typelem <> 0 AND t.typlen = -1)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
                  AND d.objid = t.oid AND d.deptype = 'e')
ORDER BY t.typname";

/// Foreign keys, triggers, columns and views that rest on an object of another schema, which does not move.
const OTHER_SCHEMA: &str = "WITH mine AS (
    SELECT c.oid, c.relname, c.relkind, n.nspname FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1),
parts AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, m.oid AS part, m.oid FROM mine AS m
    UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, m.oid
    FROM pg_catalog.pg_constraint AS k JOIN mine AS m ON m.oid = k.conrelid
    UNION ALL SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, g.oid, m.oid
    FROM pg_catalog.pg_trigger AS g JOIN mine AS m ON m.oid = g.tgrelid
    UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, f.oid, m.oid
    FROM pg_catalog.pg_attrdef AS f JOIN mine AS m ON m.oid = f.adrelid
    UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, r.oid, m.oid
    FROM pg_catalog.pg_rewrite AS r JOIN mine AS m ON m.oid = r.ev_class)
SELECT DISTINCT CASE WHEN m.relkind IN ('r', 'p') THEN m.relname::text END,
    pg_catalog.format('%I.%I', m.nspname, m.relname),
    pg_catalog.format('%s rests on %s, which does not move.', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid),
        pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0)),
    pg_catalog.format('move it into %I, or take it off', m.nspname)
FROM parts AS p JOIN mine AS m ON m.oid = p.oid
JOIN pg_catalog.pg_depend AS d ON d.classid = p.class AND d.objid = p.part
LEFT JOIN pg_catalog.pg_class AS rc ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND rc.oid = d.refobjid
LEFT JOIN pg_catalog.pg_proc AS rp ON d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND rp.oid = d.refobjid
LEFT JOIN pg_catalog.pg_type AS rt ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND rt.oid = d.refobjid
JOIN pg_catalog.pg_namespace AS rn ON rn.oid = coalesce(rc.relnamespace, rp.pronamespace, rt.typnamespace)
WHERE rn.nspname NOT IN ($1, 'pg_catalog', 'information_schema', 'pg_toast') AND rn.nspname NOT LIKE 'pg\\_temp%'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.classid = d.refclassid AND e.objid = d.refobjid
                  AND e.deptype = 'e')
ORDER BY 2, 3";

const USED_FROM_OUTSIDE: &str = "SELECT DISTINCT CASE WHEN rc.relkind IN ('r', 'p') THEN rc.relname::text END,
    pg_catalog.format('%I.%I', n.nspname, c.relname),
    pg_catalog.format('A view or foreign key of another schema rests on %I.%I: it stays with the legacy data.', rn.nspname,
        rc.relname),
    pg_catalog.format('whoever reads or writes through %I.%I must be led to the target with the switch; then drop it', n.nspname, c.relname)
FROM pg_catalog.pg_depend AS d
LEFT JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
LEFT JOIN pg_catalog.pg_constraint AS k ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid
JOIN pg_catalog.pg_class AS c ON c.oid = coalesce(r.ev_class, k.conrelid)
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class AS rc ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND rc.oid = d.refobjid
JOIN pg_catalog.pg_namespace AS rn ON rn.oid = rc.relnamespace
WHERE rn.nspname = $1 AND n.nspname NOT IN ($1, 'pg_catalog', 'information_schema', 'pg_toast')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.classid = d.refclassid AND e.objid = d.refobjid
                  AND e.deptype = 'e')
ORDER BY 2, 3";

const C_FUNCTION: &str = "SELECT NULL::text,
    pg_catalog.format('function %I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)),
    pg_catalog.format('It is written in %s: its library has to be on the target''s server, and a superuser makes it.', l.lanname),
    'install the library there, or leave the function out'
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
WHERE n.nspname = $1 AND l.lanname IN ('c', 'internal')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                  AND e.objid = p.oid AND e.deptype = 'e')
ORDER BY 2";

const EVENT_TRIGGER: &str = "SELECT NULL::text,
    pg_catalog.format('event trigger %I', e.evtname),
    pg_catalog.format('It fires on %s, for what pgrunbook creates here, too. It belongs to the database and does not move.',
        e.evtevent), pg_catalog.format('if it is in the way: ALTER EVENT TRIGGER %I DISABLE', e.evtname)
FROM pg_catalog.pg_event_trigger AS e
WHERE $1::text IS NOT NULL AND e.evtenabled <> 'D'
ORDER BY e.evtname";

const PUBLICATION_ALL: &str = "SELECT NULL::text,
    pg_catalog.format('publication %I of database %I', p.pubname, pg_catalog.current_database()),
    'It is FOR ALL TABLES: what is made or written here goes to its subscribers, too.',
    'give it a list of tables, if its subscribers shall not have them'
FROM pg_catalog.pg_publication AS p WHERE $1::text IS NOT NULL AND p.puballtables
ORDER BY p.pubname";

const PUBLICATION_SCHEMA: &str = "SELECT NULL::text,
    pg_catalog.format('publication %I', p.pubname),
    pg_catalog.format('It publishes every table of %I: what is written back after the switch goes to its subscribers, too.',
        n.nspname), 'give it a list of tables, if its subscribers shall not have them'
FROM pg_catalog.pg_publication AS p JOIN pg_catalog.pg_publication_namespace AS s ON s.pnpubid = p.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid = s.pnnspid
WHERE n.nspname = $1
ORDER BY p.pubname";

/// Its columns but `subconninfo` are everybody's to read.
const SUBSCRIPTION: &str = "SELECT NULL::text,
    pg_catalog.format('subscription %I', s.subname),
    'It writes to this database as a replica, which no fence of triggers holds.',
    pg_catalog.format('before the switch: ALTER SUBSCRIPTION %I DISABLE', s.subname)
FROM pg_catalog.pg_subscription AS s
WHERE $1::text IS NOT NULL AND s.subenabled
  AND s.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
ORDER BY s.subname";

const DEFAULT_PRIVILEGES: &str = "SELECT NULL::text,
    pg_catalog.format('default privileges of %I in %I', r.rolname, n.nspname),
    'Grants and default privileges do not move: in the target the declared topology gives them.',
    'declare them, and run `pgrunbook provision`'
FROM pg_catalog.pg_default_acl AS a JOIN pg_catalog.pg_namespace AS n ON n.oid = a.defaclnamespace
JOIN pg_catalog.pg_roles AS r ON r.oid = a.defaclrole
WHERE n.nspname = $1
ORDER BY 2";
