//! Tables, their columns, and what stands on them.

/// Tables and foreign tables. A partition is made as one, with the columns of what it is a part of. No `ALTER` changes the types of what rows
/// are divided by.
pub const TABLES: &str = "
SELECT CASE c.relkind WHEN 'f' THEN 'foreign table' ELSE 'table' END, c.tableoid, c.oid, 0,
    n.tableoid, n.oid, 0, '', format('%I.%I', n.nspname, c.relname),
    format('%s %I.%I', w.word, n.nspname, c.relname), pg_get_userbyid(c.relowner),
    concat_ws(' ', w.word, pg_get_partkeydef(c.oid), 'of ' || k.types, s.srvname), '',
    concat('CREATE ', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' END, w.word, format(' %I.%I ', n.nspname, c.relname),
        CASE WHEN c.relispartition THEN format('PARTITION OF %s %s', h.parents, pg_get_expr(c.relpartbound, c.oid))
             WHEN c.reloftype <> 0 THEN format('OF %s', c.reloftype::regtype)
             ELSE format('(%s)%s', a.columns, ' INHERITS (' || h.parents || ')') END,
        ' PARTITION BY ' || pg_get_partkeydef(c.oid), ' SERVER ' || quote_ident(s.srvname),
        CASE WHEN f.ftoptions IS NOT NULL THEN (SELECT format(' OPTIONS (%s)', string_agg(format('%I %L', o.option_name, o.option_value), ', '))
            FROM pg_options_to_table(f.ftoptions) AS o) END),
    '', format('DROP %s %I.%I', w.word, n.nspname, c.relname),
    CASE c.relkind WHEN 'f' THEN '' ELSE 'l' END
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT CASE c.relkind WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END) AS w (word)
LEFT JOIN pg_catalog.pg_foreign_table AS f ON f.ftrelid = c.oid
LEFT JOIN pg_catalog.pg_foreign_server AS s ON s.oid = f.ftserver
LEFT JOIN (SELECT p.partrelid, string_agg(format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
           FROM pg_catalog.pg_partitioned_table AS p
           JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs) GROUP BY 1) AS k (relation, types) ON k.relation = c.oid
LEFT JOIN (SELECT i.inhrelid, string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
           FROM pg_catalog.pg_inherits AS i GROUP BY 1) AS h (relation, parents) ON h.relation = c.oid
LEFT JOIN (SELECT a.attrelid, string_agg(DEFINITION || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END, ', ' ORDER BY a.attnum)
           FROM pg_catalog.pg_attribute AS a
           JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'f')
           JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND OURS
           JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
           LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
           WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attislocal AND a.attrelid >= 16384 GROUP BY 1) AS a (relation, columns) ON a.relation = c.oid
WHERE c.relkind IN ('r', 'p', 'f') AND c.oid >= 16384 AND OURS";

/// Name, type, collation, and the expression of a generated column.
pub const DEFINITION: &str = "format('%I %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attcollation <> t.typcollation THEN format(' COLLATE %s', a.attcollation::regcollation) END,
    CASE WHEN a.attgenerated <> '' THEN format(' GENERATED ALWAYS AS (%s) STORED', pg_get_expr(d.adbin, d.adrelid)) END)";

/// A table's being a partition of, or inheriting from, another.
pub const INHERITANCE: &str = "
SELECT CASE WHEN c.relispartition THEN 'partition' ELSE 'inheritance' END, '', '', '', c.tableoid, c.oid, 0,
    format('%s %s 0', c.tableoid, i.inhparent),
    CASE WHEN c.relispartition THEN format('%I.%I', n.nspname, c.relname)
         ELSE format('%I.%I from %s', n.nspname, c.relname, i.inhparent::regclass) END, '', '',
    concat_ws(' ', i.inhparent::regclass, pg_get_expr(c.relpartbound, c.oid), CASE WHEN i.inhdetachpending THEN 'being detached' END), '',
    CASE WHEN c.relispartition THEN format('ALTER TABLE %s ATTACH PARTITION %I.%I %s', i.inhparent::regclass, n.nspname,
             c.relname, pg_get_expr(c.relpartbound, c.oid))
         ELSE format('ALTER TABLE %I.%I INHERIT %s', n.nspname, c.relname, i.inhparent::regclass) END, '',
    CASE WHEN c.relispartition THEN format('ALTER TABLE %s DETACH PARTITION %I.%I%s', i.inhparent::regclass, n.nspname, c.relname,
             CASE WHEN i.inhdetachpending THEN ' FINALIZE' END)
         ELSE format('ALTER TABLE %I.%I NO INHERIT %s', n.nspname, c.relname, i.inhparent::regclass) END, 'w'
FROM pg_catalog.pg_inherits AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid AND c.relkind IN ('r', 'p', 'f')
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE OURS";

/// Columns of tables. Those that a table has from its parents follow them.
pub const COLUMNS: &str = "
SELECT 'column', c.tableoid, c.oid, a.attnum, c.tableoid, c.oid, 0, '',
    format('%I.%I.%I', n.nspname, c.relname, a.attname), format('COLUMN %I.%I.%I', n.nspname, c.relname, a.attname), '',
    DEFINITION, CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END,
    concat(format('ALTER TABLE %I.%I ADD COLUMN ', n.nspname, c.relname), DEFINITION,
        CASE WHEN a.attgenerated = '' THEN ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) END,
        i.clause, CASE WHEN a.attnotnull THEN ' NOT NULL' END),
    concat(format('ALTER TABLE %I.%I ALTER COLUMN %I TYPE %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)),
        CASE WHEN a.attcollation <> t.typcollation THEN format(' COLLATE %s', a.attcollation::regcollation) END,
        CASE WHEN c.relkind <> 'f' THEN format(' USING %I::%s', a.attname, format_type(a.atttypid, a.atttypmod)) END),
    format('ALTER TABLE %I.%I DROP COLUMN %I', n.nspname, c.relname, a.attname),
    concat('w', CASE WHEN a.attgenerated = '' AND c.relkind <> 'f' THEN 'l' END,
        CASE WHEN a.attinhcount > 0 OR c.reloftype <> 0 THEN 'f' END)
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'f')
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN (IDENTITIES) AS i ON i.relation = a.attrelid AND i.number = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid >= 16384 AND OURS";

/// The sequences of identity columns: relation, number, sequence, and the clause that makes them.
pub const IDENTITIES: &str = "SELECT d.refobjid AS relation, d.refobjsubid AS number, s.seqrelid AS sequence,
    format(' GENERATED %s AS IDENTITY (SEQUENCE NAME %s ', CASE b.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, s.seqrelid::regclass)
        || SEQUENCE || ')' AS clause, SEQUENCE AS options, b.attidentity
    FROM pg_catalog.pg_depend AS d
    JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = d.objid
    JOIN pg_catalog.pg_attribute AS b ON b.attrelid = d.refobjid AND b.attnum = d.refobjsubid AND b.attidentity <> ''
    WHERE d.classid = 1259 AND d.refclassid = 1259 AND d.deptype = 'i' AND d.refobjsubid > 0 AND d.objid >= 16384";

/// A sequence's options, but for its type.
pub const SEQUENCE: &str = "format('INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s %s', s.seqincrement,
    s.seqmin, s.seqmax, s.seqstart, s.seqcache, CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)";

/// What a column is beside its type: each only where it is not what a new column has.
pub const COLUMN_FACETS: &str = "
WITH k AS (
    SELECT a.*, c.relkind, c.tableoid AS class, format('%I.%I', n.nspname, c.relname) AS relation,
        format('%I.%I.%I', n.nspname, c.relname, a.attname) AS identity, t.typstorage, CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END AS alone,
        format('ALTER %s %I.%I ALTER COLUMN %I ', CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'v' THEN 'VIEW' WHEN 'f' THEN 'FOREIGN TABLE ONLY' ELSE 'TABLE ONLY' END,
            n.nspname, c.relname, a.attname) AS change
    FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'f', 'm', 'v')
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid >= 16384 AND OURS
)
SELECT 'not null', NULL::oid, NULL::oid, NULL::int, k.class, k.attrelid, k.attnum, '', k.identity, '', '', 'NOT NULL', '',
    format('ALTER TABLE %s%s ALTER COLUMN %I SET NOT NULL', k.alone, k.relation, k.attname), '',
    format('ALTER TABLE %s%s ALTER COLUMN %I DROP NOT NULL', k.alone, k.relation, k.attname), 'Ws'
FROM k WHERE k.attnotnull AND k.relkind IN ('r', 'p', 'f')
UNION ALL
SELECT 'default', d.tableoid, d.oid, 0, k.class, k.attrelid, k.attnum, '', k.identity, '', '', pg_get_expr(d.adbin, d.adrelid), '',
    k.change || 'SET DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '', k.change || 'DROP DEFAULT', 'ws'
FROM k JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = k.attrelid AND d.adnum = k.attnum WHERE k.attgenerated = ''
UNION ALL
SELECT 'storage', NULL, NULL, NULL, k.class, k.attrelid, k.attnum, '', k.identity, '', '', w.now, '',
    k.change || 'SET STORAGE ' || w.now, '', k.change || 'SET STORAGE ' || w.before, 's'
FROM k CROSS JOIN LATERAL (SELECT '{\"p\": \"PLAIN\", \"e\": \"EXTERNAL\", \"x\": \"EXTENDED\", \"m\": \"MAIN\"}'::jsonb) AS j (words)
CROSS JOIN LATERAL (SELECT j.words ->> k.attstorage::text, j.words ->> k.typstorage::text) AS w (now, before)
WHERE k.attstorage <> k.typstorage AND k.relkind <> 'v'
UNION ALL
SELECT 'compression', NULL, NULL, NULL, k.class, k.attrelid, k.attnum, '', k.identity, '', '', k.attcompression::text, '',
    k.change || 'SET COMPRESSION ' || CASE k.attcompression WHEN 'l' THEN 'lz4' ELSE 'pglz' END, '', k.change || 'SET COMPRESSION default', 's'
FROM k WHERE k.attcompression <> ''
UNION ALL
SELECT 'statistics target', NULL, NULL, NULL, k.class, k.attrelid, k.attnum, '', k.identity, '', '', k.attstattarget::text, '',
    k.change || 'SET STATISTICS ' || k.attstattarget, '', k.change || 'SET STATISTICS -1', 's'
FROM k WHERE k.attstattarget >= 0
UNION ALL
SELECT 'option', NULL, NULL, NULL, k.class, k.attrelid, k.attnum, '', format('%s: %I', k.identity, o.option_name), '', '', o.option_value, '',
    k.change || format('SET (%I = %L)', o.option_name, o.option_value), '', k.change || format('RESET (%I)', o.option_name), 's'
FROM k CROSS JOIN LATERAL pg_options_to_table(k.attoptions) AS o WHERE k.attoptions IS NOT NULL
UNION ALL
SELECT 'option', NULL, NULL, NULL, k.class, k.attrelid, k.attnum, '', format('%s: %I', k.identity, o.option_name), '', '', o.option_value, '',
    k.change || format('OPTIONS (ADD %I %L)', o.option_name, o.option_value), k.change || format('OPTIONS (SET %I %L)', o.option_name, o.option_value),
    k.change || format('OPTIONS (DROP %I)', o.option_name), ''
FROM k CROSS JOIN LATERAL pg_options_to_table(k.attfdwoptions) AS o WHERE k.attfdwoptions IS NOT NULL
UNION ALL
SELECT 'identity', 1259, i.sequence, 0, k.class, k.attrelid, k.attnum, '', k.identity, format('SEQUENCE %s', i.sequence::regclass), '',
    concat_ws(' ', i.attidentity, i.options, 'named', quote_ident(q.relname)), '', format('ALTER TABLE %s ALTER COLUMN %I ADD%s', k.relation, k.attname, i.clause),
    format('ALTER TABLE %s ALTER COLUMN %I SET GENERATED %s', k.relation, k.attname,
        CASE i.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END)
        || ' ' || regexp_replace(i.options, '(INCREMENT|MINVALUE|MAXVALUE|START|CACHE|NO CYCLE|(?<!NO )CYCLE)', 'SET \\1', 'g'),
    format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY', k.relation, k.attname), 'wl'
FROM k JOIN (IDENTITIES) AS i ON i.relation = k.attrelid AND i.number = k.attnum
JOIN pg_catalog.pg_class AS q ON q.oid = i.sequence";

/// What a relation is beside its shape.
pub const RELATION_FACETS: &str = "
WITH k AS (
    SELECT c.*, c.oid AS relation, c.tableoid AS class, format('%I.%I', n.nspname, c.relname) AS identity, am.amname,
        CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX'
            WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END || format(' %I.%I', n.nspname, c.relname) AS phrase,
        x.conindid IS NOT NULL AS constrains
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_am AS am ON am.oid = c.relam
    LEFT JOIN (SELECT DISTINCT x.conindid FROM pg_catalog.pg_constraint AS x WHERE x.contype IN ('p', 'u', 'x')) AS x ON x.conindid = c.oid
    WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v', 'S', 'i', 'I') AND c.oid >= 16384 AND OURS
)
SELECT 'row security', NULL::oid, NULL::oid, NULL::int, k.class, k.relation, 0, '', k.identity, '', '', 'enabled', '',
    format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', k.identity), '', format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', k.identity), 's'
FROM k WHERE k.relrowsecurity
UNION ALL
SELECT 'forced row security', NULL, NULL, NULL, k.class, k.relation, 0, '', k.identity, '', '', 'forced', '',
    format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', k.identity), '', format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', k.identity), 's'
FROM k WHERE k.relforcerowsecurity
UNION ALL
SELECT 'unlogged', NULL, NULL, NULL, k.class, k.relation, 0, '', k.identity, '', '', 'unlogged', '',
    format('ALTER %s SET UNLOGGED', k.phrase), '', format('ALTER %s SET LOGGED', k.phrase), 'ws'
FROM k WHERE k.relpersistence = 'u' AND k.relkind IN ('r', 'S')
UNION ALL
SELECT 'replica identity', NULL, NULL, NULL, k.class, coalesce(i.indexrelid, k.relation), 0, '', k.identity, '', '', w.text, '',
    format('ALTER TABLE %s REPLICA IDENTITY %s', k.identity, w.text), '', format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', k.identity), 's'
FROM k LEFT JOIN pg_catalog.pg_index AS i ON i.indrelid = k.relation AND i.indisreplident AND k.relreplident = 'i'
LEFT JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
CROSS JOIN LATERAL (SELECT CASE k.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE format('USING INDEX %I', x.relname) END) AS w (text)
WHERE k.relkind IN ('r', 'p') AND (k.relreplident IN ('f', 'n') OR x.relname IS NOT NULL)
UNION ALL
SELECT 'clustered on', NULL, NULL, NULL, k.class, i.indexrelid, 0, '', k.identity, '', '', x.relname::text, '',
    format('ALTER %s CLUSTER ON %I', k.phrase, x.relname), '', format('ALTER %s SET WITHOUT CLUSTER', k.phrase), 's'
FROM k JOIN pg_catalog.pg_index AS i ON i.indrelid = k.relation AND i.indisclustered JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
UNION ALL
SELECT 'tablespace', NULL, NULL, NULL, k.class, k.relation, 0, '', k.identity, '', '', s.spcname::text, '',
    format('ALTER %s SET TABLESPACE %I', k.phrase, s.spcname), '', format('ALTER %s SET TABLESPACE pg_default', k.phrase), 's'
FROM k JOIN pg_catalog.pg_tablespace AS s ON s.oid = k.reltablespace WHERE k.relkind IN ('r', 'p', 'm', 'i', 'I')
UNION ALL
SELECT 'access method', NULL, NULL, NULL, k.class, k.relation, 0, '', k.identity, '', '', k.amname::text, '',
    format('ALTER %s SET ACCESS METHOD %I', k.phrase, k.amname), '', format('ALTER %s SET ACCESS METHOD heap', k.phrase), 's'
FROM k WHERE k.relkind IN ('r', 'm') AND k.amname <> 'heap'
UNION ALL
SELECT 'type of table', NULL, NULL, NULL, k.class, k.relation, 0, format('1247 %s 0', k.reloftype), k.identity, '', '', k.reloftype::regtype::text, '',
    format('ALTER TABLE %s OF %s', k.identity, k.reloftype::regtype), '', format('ALTER TABLE %s NOT OF', k.identity), 'w'
FROM k WHERE k.reloftype <> 0
UNION ALL
SELECT 'option', NULL, NULL, NULL, k.class, k.relation, 0, '', format('%s: %I', k.identity, o.option_name), '', '', o.option_value, '',
    format('ALTER %s SET (%I = %L)', k.phrase, o.option_name, o.option_value), '', format('ALTER %s RESET (%I)', k.phrase, o.option_name),
    CASE WHEN k.relkind IN ('v', 'm') THEN 'ws' ELSE 's' END
FROM k CROSS JOIN LATERAL pg_options_to_table(k.reloptions) AS o
WHERE k.reloptions IS NOT NULL AND (k.relkind NOT IN ('i', 'I') OR k.constrains)
UNION ALL
SELECT 'option', NULL, NULL, NULL, k.class, k.relation, 0, '', format('%s: toast.%I', k.identity, o.option_name), '', '', o.option_value, '',
    format('ALTER %s SET (toast.%I = %L)', k.phrase, o.option_name, o.option_value), '', format('ALTER %s RESET (toast.%I)', k.phrase, o.option_name), 's'
FROM k JOIN pg_catalog.pg_class AS t ON t.oid = k.reltoastrelid
CROSS JOIN LATERAL pg_options_to_table(t.reloptions) AS o WHERE t.reloptions IS NOT NULL
UNION ALL
SELECT 'option', NULL, NULL, NULL, k.class, k.relation, 0, '', format('%s: %I', k.identity, o.option_name), '', '', o.option_value, '',
    format('ALTER %s OPTIONS (ADD %I %L)', k.phrase, o.option_name, o.option_value), format('ALTER %s OPTIONS (SET %I %L)', k.phrase, o.option_name, o.option_value),
    format('ALTER %s OPTIONS (DROP %I)', k.phrase, o.option_name), 'w'
FROM k JOIN pg_catalog.pg_foreign_table AS f ON f.ftrelid = k.relation CROSS JOIN LATERAL pg_options_to_table(f.ftoptions) AS o WHERE f.ftoptions IS NOT NULL
UNION ALL
SELECT 'statistics target', NULL, NULL, NULL, k.class, k.relation, 0, '', format('%s: %s', k.identity, a.attnum), '', '', a.attstattarget::text, '',
    format('ALTER %s ALTER COLUMN %s SET STATISTICS %s', k.phrase, a.attnum, a.attstattarget), '',
    format('ALTER %s ALTER COLUMN %s SET STATISTICS -1', k.phrase, a.attnum), 's'
FROM k JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.relation AND a.attnum > 0 AND a.attstattarget >= 0 WHERE k.relkind IN ('i', 'I')";

/// Sequences that are no identity column's.
pub const SEQUENCES: &str = "
SELECT 'sequence', c.tableoid, c.oid, 0, n.tableoid, n.oid, 0, '', format('%I.%I', n.nspname, c.relname),
    format('SEQUENCE %I.%I', n.nspname, c.relname), CASE WHEN o.refobjid IS NULL THEN pg_get_userbyid(c.relowner)::text END,
    format('AS %s ', s.seqtypid::regtype) || SEQUENCE, '',
    format('CREATE %sSEQUENCE %I.%I AS %s ', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' END, n.nspname, c.relname, s.seqtypid::regtype) || SEQUENCE,
    format('ALTER SEQUENCE %I.%I AS %s ', n.nspname, c.relname, s.seqtypid::regtype) || SEQUENCE,
    format('DROP SEQUENCE IF EXISTS %I.%I', n.nspname, c.relname), 'l'
FROM pg_catalog.pg_sequence AS s
JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_depend AS o ON o.classid = 1259 AND o.objid = c.oid AND o.refclassid = 1259 AND o.deptype IN ('a', 'i') AND o.refobjsubid > 0 AND o.objid >= 16384
WHERE o.deptype IS DISTINCT FROM 'i' AND OURS";

/// Which column a sequence goes away with.
pub const OWNED_SEQUENCES: &str = "
SELECT 'owned by', '', '', '', c.tableoid, c.oid, 0, format('1259 %s %s', o.refobjid, o.refobjsubid), format('%I.%I', n.nspname, c.relname), '', '',
    w.text, '', format('ALTER SEQUENCE %I.%I OWNED BY %s', n.nspname, c.relname, w.text), '',
    format('ALTER SEQUENCE %I.%I OWNED BY NONE', n.nspname, c.relname), 's'
FROM pg_catalog.pg_depend AS o
JOIN pg_catalog.pg_class AS c ON c.oid = o.objid AND c.relkind = 'S'
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = o.refobjid AND a.attnum = o.refobjsubid
CROSS JOIN LATERAL (SELECT format('%s.%I', o.refobjid::regclass, a.attname)) AS w (text)
WHERE o.classid = 1259 AND o.refclassid = 1259 AND o.deptype = 'a' AND o.refobjsubid > 0 AND o.objid >= 16384 AND OURS";

/// Views and materialised views.
pub const VIEWS: &str = "
SELECT CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, c.tableoid, c.oid, 0, n.tableoid, n.oid, 0, '',
    format('%I.%I', n.nspname, c.relname), format('%s %I.%I', w.word, n.nspname, c.relname), pg_get_userbyid(c.relowner), w.text, '',
    concat('CREATE ', w.word, format(' %I.%I', n.nspname, c.relname),
        (SELECT format(' WITH (%s)', string_agg(format('%I = %L', o.option_name, o.option_value), ', ')) FROM pg_options_to_table(c.reloptions) AS o
         HAVING count(*) > 0), ' AS ', w.text, CASE WHEN c.relkind = 'm' AND NOT c.relispopulated THEN ' WITH NO DATA' END),
    '', format('DROP %s %I.%I', w.word, n.nspname, c.relname), ''
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END, rtrim(pg_get_viewdef(c.oid), ';')) AS w (word, text)
WHERE c.relkind IN ('v', 'm') AND c.oid >= 16384 AND OURS";

/// Constraints of tables.
pub const CONSTRAINTS: &str = "
SELECT 'constraint', k.tableoid, k.oid, 0, c.tableoid, c.oid, 0, '', format('%I on %I.%I', k.conname, n.nspname, c.relname),
    format('CONSTRAINT %I ON %I.%I', k.conname, n.nspname, c.relname), '', w.text, '',
    format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', n.nspname, c.relname, k.conname, w.text), '',
    format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, c.relname, k.conname),
    CASE WHEN k.conparentid <> 0 OR k.coninhcount > 0 THEN 'f' END
FROM pg_catalog.pg_constraint AS k
JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT pg_get_constraintdef(k.oid)) AS w (text)
WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND k.oid >= 16384 AND OURS";

/// Foreign keys, and constraints that can be deferred, whose triggers do not fire as they should: nothing is enforced.
pub const UNENFORCED: &str = "
SELECT 'enforcement', '', '', '', k.tableoid, k.oid, 0, '', format('%I on %I.%I', k.conname, n.nspname, c.relname), '', '',
    string_agg(DISTINCT g.tgenabled::text, '' ORDER BY g.tgenabled::text), '',
    format('DO $do$ DECLARE t record; BEGIN FOR t IN SELECT g.tgrelid::pg_catalog.regclass AS relation, g.tgname FROM pg_catalog.pg_trigger AS g
    JOIN pg_catalog.pg_constraint AS k ON k.oid = g.tgconstraint WHERE k.conname = %L AND k.conrelid = %L::pg_catalog.regclass
    LOOP EXECUTE pg_catalog.format(''ALTER TABLE %%s DISABLE TRIGGER %%I'', t.relation, t.tgname); END LOOP; END $do$',
        k.conname, format('%I.%I', n.nspname, c.relname)), '',
    string_agg(format('ALTER TABLE %s ENABLE TRIGGER %I', g.tgrelid::regclass, g.tgname), '; '), 's'
FROM pg_catalog.pg_trigger AS g
JOIN pg_catalog.pg_constraint AS k ON k.oid = g.tgconstraint AND k.contype IN ('f', 'p', 'u', 'x')
JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE g.tgisinternal AND g.tgenabled <> 'O' AND OURS
GROUP BY k.tableoid, k.oid, k.conname, n.nspname, c.relname";

/// Indexes that are no constraint's. Those of partitions follow their parent's.
pub const INDEXES: &str = "
SELECT 'index', x.tableoid, x.oid, 0, c.tableoid, c.oid, 0, '', format('%I.%I', n.nspname, x.relname), format('INDEX %I.%I', n.nspname, x.relname), '',
    w.text || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END, '', w.text, '', format('DROP INDEX %I.%I', n.nspname, x.relname),
    CASE WHEN x.relispartition THEN 'f' END
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = x.relnamespace
CROSS JOIN LATERAL (SELECT CASE x.relkind WHEN 'I' THEN replace(pg_get_indexdef(x.oid), format('INDEX %I ON ONLY ', x.relname), format('INDEX %I ON ', x.relname))
    ELSE pg_get_indexdef(x.oid) END) AS w (text)
LEFT JOIN pg_catalog.pg_constraint AS k ON k.conindid = x.oid AND k.contype IN ('p', 'u', 'x')
WHERE k.oid IS NULL AND i.indexrelid >= 16384 AND OURS";

/// Triggers. Those of partitions follow their parent's.
pub const TRIGGERS: &str = "
SELECT 'trigger', g.tableoid, g.oid, 0, c.tableoid, c.oid, 0, '', format('%I on %I.%I', g.tgname, n.nspname, c.relname),
    format('TRIGGER %I ON %I.%I', g.tgname, n.nspname, c.relname), '', pg_get_triggerdef(g.oid), '', pg_get_triggerdef(g.oid), '',
    format('DROP TRIGGER %I ON %I.%I', g.tgname, n.nspname, c.relname), CASE WHEN g.tgparentid <> 0 THEN 'f' END
FROM pg_catalog.pg_trigger AS g
JOIN pg_catalog.pg_class AS c ON c.oid = g.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT g.tgisinternal AND OURS";

/// Triggers and rules that fire otherwise than in every session but a replica's.
pub const FIRING: &str = "
SELECT 'firing', NULL::oid, NULL::oid, NULL::int, g.tableoid, g.oid, 0, '', format('trigger %I on %I.%I', g.tgname, n.nspname, c.relname), '', '', w.text, '',
    format('ALTER TABLE %s%I.%I %s TRIGGER %I', w.alone, n.nspname, c.relname, w.text, g.tgname), '',
    format('ALTER TABLE %s%I.%I ENABLE TRIGGER %I', w.alone, n.nspname, c.relname, g.tgname), 's'
FROM pg_catalog.pg_trigger AS g
JOIN pg_catalog.pg_class AS c ON c.oid = g.tgrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT CASE g.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END,
    CASE WHEN c.relkind IN ('r', 'p') THEN 'ONLY ' END) AS w (text, alone)
WHERE NOT g.tgisinternal AND g.tgenabled <> 'O' AND OURS
UNION ALL
SELECT 'firing', NULL, NULL, NULL, r.tableoid, r.oid, 0, '', format('rule %I on %I.%I', r.rulename, n.nspname, c.relname), '', '', w.text, '',
    format('ALTER TABLE %I.%I %s RULE %I', n.nspname, c.relname, w.text, r.rulename), '',
    format('ALTER TABLE %I.%I ENABLE RULE %I', n.nspname, c.relname, r.rulename), 's'
FROM pg_catalog.pg_rewrite AS r
JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT CASE r.ev_enabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END) AS w (text)
WHERE r.rulename <> '_RETURN' AND r.ev_enabled <> 'O' AND OURS
UNION ALL
SELECT 'firing', NULL, NULL, NULL, e.tableoid, e.oid, 0, '', format('event trigger %I', e.evtname), '', '', w.text, '',
    format('ALTER EVENT TRIGGER %I %s', e.evtname, w.text), '', format('ALTER EVENT TRIGGER %I ENABLE', e.evtname), 's'
FROM pg_catalog.pg_event_trigger AS e
CROSS JOIN LATERAL (SELECT CASE e.evtenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END) AS w (text)
WHERE e.evtenabled <> 'O'";

/// Rules, but for those that make a view one.
pub const RULES: &str = "
SELECT 'rule', r.tableoid, r.oid, 0, c.tableoid, c.oid, 0, '', format('%I on %I.%I', r.rulename, n.nspname, c.relname),
    format('RULE %I ON %I.%I', r.rulename, n.nspname, c.relname), '', rtrim(pg_get_ruledef(r.oid), ';'), '', rtrim(pg_get_ruledef(r.oid), ';'), '',
    format('DROP RULE %I ON %I.%I', r.rulename, n.nspname, c.relname), ''
FROM pg_catalog.pg_rewrite AS r
JOIN pg_catalog.pg_class AS c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND r.oid >= 16384 AND OURS";

/// Policies.
pub const POLICIES: &str = "
SELECT 'policy', p.tableoid, p.oid, 0, c.tableoid, c.oid, 0, '', format('%I on %I.%I', p.polname, n.nspname, c.relname),
    format('POLICY %I ON %I.%I', p.polname, n.nspname, c.relname), '', w.text, '',
    format('CREATE POLICY %I ON %I.%I %s', p.polname, n.nspname, c.relname, w.text), '',
    format('DROP POLICY %I ON %I.%I', p.polname, n.nspname, c.relname), ''
FROM pg_catalog.pg_policy AS p
JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT concat('AS ', CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END, ' FOR ',
    CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END, ' TO ',
    (SELECT string_agg(CASE o WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(o)) END, ', ' ORDER BY pg_get_userbyid(o)) FROM unnest(p.polroles) AS o),
    ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')) AS w (text)
WHERE OURS";

/// Extended statistics.
pub const STATISTICS: &str = "
SELECT 'statistics', s.tableoid, s.oid, 0, n.tableoid, n.oid, 0, '', format('%I.%I', n.nspname, s.stxname), format('STATISTICS %I.%I', n.nspname, s.stxname),
    pg_get_userbyid(s.stxowner), pg_get_statisticsobjdef(s.oid), '', pg_get_statisticsobjdef(s.oid), '', format('DROP STATISTICS %I.%I', n.nspname, s.stxname), ''
FROM pg_catalog.pg_statistic_ext AS s JOIN pg_catalog.pg_namespace AS n ON n.oid = s.stxnamespace
WHERE OURS
UNION ALL
SELECT 'statistics target', NULL, NULL, NULL, s.tableoid, s.oid, 0, '', format('%I.%I', n.nspname, s.stxname), '', '', s.stxstattarget::text, '',
    format('ALTER STATISTICS %I.%I SET STATISTICS %s', n.nspname, s.stxname, s.stxstattarget), '',
    format('ALTER STATISTICS %I.%I SET STATISTICS -1', n.nspname, s.stxname), 's'
FROM pg_catalog.pg_statistic_ext AS s JOIN pg_catalog.pg_namespace AS n ON n.oid = s.stxnamespace
WHERE s.stxstattarget >= 0 AND OURS";
