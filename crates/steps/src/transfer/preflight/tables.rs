//! What is in the source's tables and columns that does not travel by itself.

use super::{Rule, Severity};

use Severity::{Consent, Note, Refuse, Warn};

pub(super) const RULES: &[Rule] = &[
    Rule::new("no-identity", Consent("replica-identity-full"), NO_IDENTITY),
    Rule::new("identity-full", Warn, FULL),
    Rule::new("no-equality", Consent("match-by-text"), NO_EQUALITY),
    Rule { since: 18, ..Rule::new("generated-full", Refuse, GENERATED_FULL) },
    Rule::new("partition-identity", Warn, PARTITION_IDENTITY),
    Rule::new("partitioned", Note, PARTITIONED),
    Rule::new("inheritance", Warn, INHERITANCE),
    Rule::new("generated-column", Note, GENERATED),
    Rule::new("identity-column", Note, IDENTITY_COLUMN),
    Rule::new("unlogged", Refuse, UNLOGGED),
    Rule::new("foreign-table", Consent("foreign-table"), FOREIGN),
    Rule::new("temporary", Note, TEMPORARY),
    Rule::new("large-object", Refuse, LARGE_OBJECTS_NAMED),
    Rule::new("large-object", Consent("large-objects-stay"), LARGE_OBJECTS),
    Rule::new("lo-column", Warn, LO_COLUMN),
    Rule::new("reg-column", Warn, REG_COLUMN),
    Rule::new("no-column", Note, NO_COLUMN),
    Rule::new("deferrable-unique", Warn, DEFERRABLE),
    Rule::new("invalid-index", Note, INVALID_INDEX),
    Rule::new("not-valid", Note, NOT_VALID),
    Rule::new("disabled-trigger", Note, DISABLED_TRIGGER),
    Rule::new("always-trigger", Consent("always-trigger"), ALWAYS_TRIGGER),
    Rule::new("always-rule", Consent("always-trigger"), ALWAYS_RULE),
    Rule::new("rule", Note, RULE),
    Rule::new("tablespace", Note, TABLESPACE),
    Rule::new("access-method", Warn, ACCESS_METHOD),
];

/// What `REPLICA IDENTITY` says, against what there is. A deferrable key is none: the server asks for `indimmediate`.
/// <https://www.postgresql.org/docs/current/logical-replication-publication.html#LOGICAL-REPLICATION-PUBLICATION-REPLICA-IDENTITY>
const NO_IDENTITY: &str = "SELECT c.relname::text,
    pg_catalog.format('table %I.%I', n.nspname, c.relname),
    CASE c.relreplident
        WHEN 'n' THEN 'Its REPLICA IDENTITY is NOTHING: once it is published, every UPDATE and DELETE of it fails.'
        WHEN 'i' THEN 'The index of its REPLICA IDENTITY is gone or not usable: once it is published, UPDATE and DELETE fail.'
        ELSE 'It has no primary key that can tell its rows apart: once it is published, every UPDATE and DELETE of it fails.'
    END,
    coalesce(
        (SELECT pg_catalog.format('ALTER TABLE %I.%I REPLICA IDENTITY %s', n.nspname, c.relname,
                    CASE WHEN i.indisprimary THEN 'DEFAULT' ELSE pg_catalog.format('USING INDEX %I', x.relname) END)
         FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
         WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
           AND i.indexprs IS NULL
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                           WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull)
         ORDER BY i.indisprimary DESC, x.relname LIMIT 1),
        pg_catalog.format('give it a primary key; or ALTER TABLE %I.%I REPLICA IDENTITY FULL, which writes whole rows to WAL',
            n.nspname, c.relname))
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'f'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i
                  WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND i.indisunique
                    AND ((c.relreplident = 'd' AND i.indisprimary) OR (c.relreplident = 'i' AND i.indisreplident)))
ORDER BY c.relname";

const FULL: &str = "SELECT c.relname::text,
    pg_catalog.format('table %I.%I', n.nspname, c.relname),
    'Its REPLICA IDENTITY is FULL and it has no primary key: each UPDATE and DELETE looks for the whole row.',
    'give it a primary key'
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relreplident = 'f'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)
ORDER BY c.relname";

/// Columns of tables that go, or would go, by FULL, whose type has no `=` that an index could use: json, xml, point, ...
const NO_EQUALITY: &str = "SELECT c.relname::text,
    pg_catalog.format('column %I.%I.%I', n.nspname, c.relname, a.attname),
    pg_catalog.format('Its type %s has no equality, and the table has no key: rows will be told apart by their text.',
        pg_catalog.format_type(a.atttypid, a.atttypmod)),
    pg_catalog.format('give %I.%I a primary key', n.nspname, c.relname)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type AS b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype
                                             WHEN t.typelem <> 0 AND t.typlen = -1 THEN t.typelem ELSE t.oid END
WHERE n.nspname = $1 AND c.relkind = 'r' AND b.typtype = 'b'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
                  AND i.indisunique AND (i.indisprimary OR i.indisreplident))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_opclass AS o JOIN pg_catalog.pg_am AS m ON m.oid = o.opcmethod
                  WHERE m.amname IN ('btree', 'hash') AND o.opcdefault
                    AND (o.opcintype = b.oid OR o.opcintype IN (SELECT k.casttarget FROM pg_catalog.pg_cast AS k
                            WHERE k.castsource = b.oid AND k.castmethod = 'b' AND k.castcontext = 'i')))
ORDER BY c.relname, a.attnum";

const GENERATED_FULL: &str = "SELECT c.relname::text,
    pg_catalog.format('column %I.%I.%I', n.nspname, c.relname, a.attname),
    'It is generated and part of a FULL replica identity: PostgreSQL 18 rejects UPDATE and DELETE once it is published.',
    pg_catalog.format('give %I.%I a primary key, and ALTER TABLE %I.%I REPLICA IDENTITY DEFAULT', n.nspname, c.relname,
        n.nspname, c.relname)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped
WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relreplident = 'f'
ORDER BY c.relname, a.attnum";

const PARTITION_IDENTITY: &str = "SELECT c.relname::text,
    pg_catalog.format('table %I.%I', n.nspname, c.relname),
    pg_catalog.format('Its REPLICA IDENTITY is another than that of the partitioned table %I.', p.relname),
    pg_catalog.format('make them equal: ALTER TABLE %I.%I REPLICA IDENTITY ...', n.nspname, c.relname)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_inherits AS h ON h.inhrelid = c.oid JOIN pg_catalog.pg_class AS p ON p.oid = h.inhparent
WHERE n.nspname = $1 AND c.relispartition AND c.relreplident <> p.relreplident
ORDER BY c.relname";

const PARTITIONED: &str = "SELECT c.relname::text,
    pg_catalog.format('table %I.%I', n.nspname, c.relname),
    pg_catalog.format('It is partitioned by %s, with %s leaves: rows are copied and followed leaf by leaf.',
        pg_catalog.pg_get_partkeydef(c.oid),
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_partition_tree(c.oid) AS l WHERE l.isleaf)),
    ''
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'p' AND NOT c.relispartition
ORDER BY c.relname";

const INHERITANCE: &str = "SELECT c.relname::text,
    pg_catalog.format('table %I.%I', n.nspname, c.relname),
    pg_catalog.format('It inherits from %I: each keeps its own rows, and a key of the parent does not hold for it.', p.relname),
    'if one table was meant: partition it at the source, or take the child off by ALTER TABLE ... NO INHERIT; else leave it'
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_inherits AS h ON h.inhrelid = c.oid JOIN pg_catalog.pg_class AS p ON p.oid = h.inhparent
WHERE n.nspname = $1 AND c.relkind = 'r' AND NOT c.relispartition
ORDER BY c.relname";

const GENERATED: &str = "SELECT c.relname::text,
    pg_catalog.format('column %I.%I.%I', n.nspname, c.relname, a.attname),
    'It is generated: its values are not copied, the target computes them.', ''
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname, a.attnum";

const IDENTITY_COLUMN: &str = "SELECT c.relname::text,
    pg_catalog.format('column %I.%I.%I', n.nspname, c.relname, a.attname),
    pg_catalog.format('It is GENERATED %s AS IDENTITY: its values are copied, and its sequence is set when writers are fenced.',
        CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END), ''
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attidentity <> '' AND NOT a.attisdropped
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname, a.attnum";

const UNLOGGED: &str = "SELECT c.relname::text,
    pg_catalog.format('table %I.%I', n.nspname, c.relname),
    'It is UNLOGGED: its changes are in no stream, and PostgreSQL refuses to publish it.',
    pg_catalog.format('ALTER TABLE %I.%I SET LOGGED (it is rewritten, and locked meanwhile); or name it under `exclude`: then '
        'neither the table nor its rows move', n.nspname, c.relname)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relpersistence = 'u'
ORDER BY c.relname";

const FOREIGN: &str = "SELECT c.relname::text,
    pg_catalog.format('foreign table %I.%I', n.nspname, c.relname),
    pg_catalog.format('Its rows are on the server %I. With consent it is left out.', s.srvname),
    'name it under `exclude`, and make it by a migration if the target shall have it'
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_foreign_table AS f ON f.ftrelid = c.oid JOIN pg_catalog.pg_foreign_server AS s ON s.oid = f.ftserver
WHERE n.nspname = $1
ORDER BY c.relname";

const TEMPORARY: &str = "SELECT NULL::text,
    pg_catalog.format('temporary table %I', c.relname),
    pg_catalog.format('It belongs to an open session, in %s, and does not move.', n.nspname), ''
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE $1::text IS NOT NULL AND c.relkind IN ('r', 'p') AND c.relpersistence = 't'
ORDER BY c.relname";

/// Their rows are the database's own, and no stream has them (<https://www.postgresql.org/docs/current/logical-replication-restrictions.html>).
/// Where a column can name them, what it names would be missing after the switch.
const LARGE_OBJECTS_NAMED: &str = "SELECT c.relname::text,
    pg_catalog.format('large objects of %I.%I.%I', n.nspname, c.relname, a.attname),
    pg_catalog.format('The database holds %s large objects, and this column may name them. They are in no stream and are not copied: '
        'after the switch it would name nothing.', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata)),
    pg_catalog.format('before the transfer: ALTER TABLE %I.%I ALTER COLUMN %I TYPE bytea USING pg_catalog.lo_get(%I), have the '
        'application use it, and remove the large objects (vacuumlo)', n.nspname, c.relname, a.attname, a.attname)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND (t.oid = 'pg_catalog.oid'::pg_catalog.regtype OR t.typname = 'lo')
  AND EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
ORDER BY c.relname, a.attnum";

/// No column of the schema is of a type for them, but their numbers may stand in any.
const LARGE_OBJECTS: &str = "SELECT NULL::text,
    'large objects',
    pg_catalog.format('The database holds %s large objects, and no column of %I is of a type that names them. They are in no stream '
        'and are not copied: with consent they stay where they are.', pg_catalog.count(*), $1::text),
    'if rows name them by number: move them into a bytea column before (pg_catalog.lo_get), or bring them by pg_dump --large-objects'
FROM pg_catalog.pg_largeobject_metadata AS l WHERE $1::text IS NOT NULL
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
      WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND (t.oid = 'pg_catalog.oid'::pg_catalog.regtype OR t.typname = 'lo'))
HAVING pg_catalog.count(*) > 0";

const LO_COLUMN: &str = "SELECT c.relname::text,
    pg_catalog.format('column %I.%I.%I', n.nspname, c.relname, a.attname),
    pg_catalog.format('Its type is %s: a number of a large object or of a catalogue row means something else in the target.',
        pg_catalog.format_type(a.atttypid, a.atttypmod)),
    'if it names large objects, see there; if it is just a number, make it a bigint'
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND (t.oid = 'pg_catalog.oid'::pg_catalog.regtype OR t.typname = 'lo')
ORDER BY c.relname, a.attnum";

const REG_COLUMN: &str = "SELECT c.relname::text,
    pg_catalog.format('column %I.%I.%I', n.nspname, c.relname, a.attname),
    pg_catalog.format('Its type is %s: the number it holds means something else in the target, so that it goes by name.',
        pg_catalog.format_type(a.atttypid, a.atttypmod)),
    'make it a text'
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND coalesce(e.typname, t.typname) ~ '^reg(class|proc|procedure|oper|operator|type|role|namespace|config|dictionary|collation)$'
ORDER BY c.relname, a.attnum";

const NO_COLUMN: &str = "SELECT c.relname::text,
    pg_catalog.format('table %I.%I', n.nspname, c.relname),
    'It has no column that could be copied: only the number of its rows can be.', ''
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0
                  AND NOT a.attisdropped AND a.attgenerated = '')
ORDER BY c.relname";

const DEFERRABLE: &str = "SELECT c.relname::text,
    pg_catalog.format('constraint %I on %I.%I', k.conname, n.nspname, c.relname),
    'It is DEFERRABLE: it cannot tell rows apart for a stream, and changes of the table are applied one by one.',
    'give the table a key that is not deferrable'
FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND k.contype IN ('p', 'u', 'x') AND k.condeferrable
ORDER BY c.relname, k.conname";

const INVALID_INDEX: &str = "SELECT c.relname::text,
    pg_catalog.format('index %I.%I', n.nspname, x.relname),
    'It is invalid, as a failed CREATE INDEX CONCURRENTLY leaves it. It is not made in the target.',
    pg_catalog.format('REINDEX INDEX CONCURRENTLY %I.%I, or DROP INDEX', n.nspname, x.relname)
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND NOT i.indisvalid AND c.relkind <> 'p'
ORDER BY x.relname";

const NOT_VALID: &str = "SELECT c.relname::text,
    pg_catalog.format('constraint %I on %I.%I', k.conname, n.nspname, c.relname),
    'It is NOT VALID, and stays so in the target.',
    pg_catalog.format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname, k.conname)
FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND NOT k.convalidated
ORDER BY c.relname, k.conname";

const DISABLED_TRIGGER: &str = "SELECT c.relname::text,
    pg_catalog.format('trigger %I on %I.%I', g.tgname, n.nspname, c.relname),
    'It is disabled, and stays so in the target.', ''
FROM pg_catalog.pg_trigger AS g JOIN pg_catalog.pg_class AS c ON c.oid = g.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND NOT g.tgisinternal AND g.tgenabled = 'D'
ORDER BY c.relname, g.tgname";

const ALWAYS_TRIGGER: &str = "SELECT c.relname::text,
    pg_catalog.format('trigger %I on %I.%I', g.tgname, n.nspname, c.relname),
    pg_catalog.format('It is ENABLE %s: it fires for what pgrunbook applies, too, and what it does happens twice.',
        CASE g.tgenabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END),
    pg_catalog.format('ALTER TABLE %I.%I ENABLE TRIGGER %I', n.nspname, c.relname, g.tgname)
FROM pg_catalog.pg_trigger AS g JOIN pg_catalog.pg_class AS c ON c.oid = g.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND NOT g.tgisinternal AND g.tgenabled IN ('A', 'R')
ORDER BY c.relname, g.tgname";

const ALWAYS_RULE: &str = "SELECT c.relname::text,
    pg_catalog.format('rule %I on %I.%I', r.rulename, n.nspname, c.relname),
    'It fires for what pgrunbook applies, too, and what it does happens twice.',
    pg_catalog.format('ALTER TABLE %I.%I ENABLE RULE %I', n.nspname, c.relname, r.rulename)
FROM pg_catalog.pg_rewrite AS r JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND r.rulename <> '_RETURN' AND r.ev_enabled IN ('A', 'R') AND c.relkind IN ('r', 'p')
ORDER BY c.relname, r.rulename";

const RULE: &str = "SELECT c.relname::text,
    pg_catalog.format('rule %I on %I.%I', r.rulename, n.nspname, c.relname),
    'It rewrites statements of the application; what pgrunbook copies and applies goes past it.', ''
FROM pg_catalog.pg_rewrite AS r JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND r.rulename <> '_RETURN' AND r.ev_enabled IN ('O', 'D') AND c.relkind IN ('r', 'p')
ORDER BY c.relname, r.rulename";

const TABLESPACE: &str = "SELECT CASE WHEN c.relkind IN ('r', 'p') THEN c.relname::text END,
    pg_catalog.format('%s %I.%I', CASE c.relkind WHEN 'i' THEN 'index' ELSE 'table' END, n.nspname, c.relname),
    pg_catalog.format('It is in the tablespace %I; in the target it goes to the default one.', s.spcname), ''
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_tablespace AS s ON s.oid = c.reltablespace
WHERE n.nspname = $1
ORDER BY c.relname";

const ACCESS_METHOD: &str = "SELECT c.relname::text,
    pg_catalog.format('table %I.%I', n.nspname, c.relname),
    pg_catalog.format('Its access method is %I; in the target it is made with the default one.', m.amname),
    pg_catalog.format('if it matters: make the extension of %I there, and ALTER DATABASE ... SET default_table_access_method = %L before', m.amname, m.amname)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
WHERE n.nspname = $1 AND c.relkind IN ('r', 'm') AND m.amname <> 'heap'
ORDER BY c.relname";
