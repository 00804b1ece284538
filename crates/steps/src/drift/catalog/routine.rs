//! Types, functions, and what is made of them.

/// Schemas.
pub const SCHEMAS: &str = "
SELECT 'schema', n.tableoid, n.oid, 0, '', '', '', '', format('%I', n.nspname), format('SCHEMA %I', n.nspname), pg_get_userbyid(n.nspowner), '', '',
    format('CREATE SCHEMA %I', n.nspname), '', format('DROP SCHEMA %I', n.nspname), ''
FROM pg_catalog.pg_namespace AS n WHERE OURS";

/// Extensions. Their members are not looked at: they are as the version makes them.
pub const EXTENSIONS: &str = "
SELECT 'extension', e.tableoid, e.oid, 0, NULL::oid, NULL::oid, NULL::int, format('%s %s 0', n.tableoid, n.oid), format('%I', e.extname), format('EXTENSION %I', e.extname), '', '', '',
    format('CREATE EXTENSION %I WITH SCHEMA %I VERSION %L', e.extname, n.nspname, e.extversion), '', format('DROP EXTENSION %I', e.extname), 'l'
FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
UNION ALL
SELECT 'extension version', NULL, NULL, NULL, e.tableoid, e.oid, 0, '', format('%I', e.extname), '', '', e.extversion, '',
    format('ALTER EXTENSION %I UPDATE TO %L', e.extname, e.extversion), '', '', 'ws'
FROM pg_catalog.pg_extension AS e
UNION ALL
SELECT 'extension schema', NULL, NULL, NULL, e.tableoid, e.oid, 0, format('%s %s 0', n.tableoid, n.oid), format('%I', e.extname), '', '', n.nspname::text, '',
    format('ALTER EXTENSION %I SET SCHEMA %I', e.extname, n.nspname), '', '', 'ws'
FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace";

/// Enums, composite types, domains and ranges. Enums and composite types have their parts in place of what changes them.
pub const TYPES: &str = "
SELECT CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' ELSE 'type' END, t.tableoid, t.oid, 0, n.tableoid, n.oid, 0, '',
    format('%I.%I', n.nspname, t.typname), format('%s %I.%I', w.word, n.nspname, t.typname), pg_get_userbyid(t.typowner), w.text, '',
    format('CREATE %s %I.%I %s', w.word, n.nspname, t.typname, w.text),
    CASE t.typtype
    WHEN 'e' THEN (SELECT string_agg(e.enumlabel, E'\\x1f' ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid)
    WHEN 'c' THEN (SELECT string_agg(format(E'%I\\x1e%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                          CASE WHEN a.attcollation <> y.typcollation THEN format(' COLLATE %s', a.attcollation::regcollation) END), E'\\x1f' ORDER BY a.attnum)
                   FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid
                   WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) END,
    format('DROP %s %I.%I%s', w.word, n.nspname, t.typname, CASE WHEN r.rngcanonical <> 0 THEN ' CASCADE' END), ''
FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
LEFT JOIN pg_catalog.pg_type AS b ON b.oid = t.typbasetype
LEFT JOIN pg_catalog.pg_range AS r ON r.rngtypid = t.oid
LEFT JOIN pg_catalog.pg_type AS m ON m.oid = r.rngmultitypid
LEFT JOIN pg_catalog.pg_namespace AS mn ON mn.oid = m.typnamespace
LEFT JOIN pg_catalog.pg_opclass AS o ON o.oid = r.rngsubopc
LEFT JOIN pg_catalog.pg_namespace AS \"on\" ON \"on\".oid = o.opcnamespace
CROSS JOIN LATERAL (SELECT CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END,
    CASE t.typtype
    WHEN 'e' THEN (SELECT format('AS ENUM (%s)', string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder))
                   FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid)
    WHEN 'd' THEN concat('AS ', format_type(t.typbasetype, t.typtypmod),
                         CASE WHEN t.typcollation <> b.typcollation THEN format(' COLLATE %s', t.typcollation::regcollation) END)
    WHEN 'c' THEN (SELECT format('AS (%s)', string_agg(format('%I %s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                          CASE WHEN a.attcollation <> y.typcollation THEN format(' COLLATE %s', a.attcollation::regcollation) END), ', ' ORDER BY a.attnum))
                   FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid
                   WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
    ELSE concat('AS RANGE (SUBTYPE = ', r.rngsubtype::regtype, ', SUBTYPE_OPCLASS = ', format('%I.%I', \"on\".nspname, o.opcname),
        CASE WHEN r.rngcollation <> 0 THEN format(', COLLATION = %s', r.rngcollation::regcollation) END,
        CASE WHEN r.rngcanonical <> 0 THEN format(', CANONICAL = %s', r.rngcanonical) END,
        CASE WHEN r.rngsubdiff <> 0 THEN format(', SUBTYPE_DIFF = %s', r.rngsubdiff) END,
        format(', MULTIRANGE_TYPE_NAME = %I.%I', mn.nspname, m.typname), ')') END) AS w (word, text)
WHERE (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND c.relkind = 'c')) AND t.oid >= 16384 AND OURS";

/// A domain's default, NOT NULL and constraints.
pub const DOMAIN_FACETS: &str = "
SELECT 'default', NULL::oid, NULL::oid, NULL::int, t.tableoid, t.oid, 0, '', format('%I.%I', n.nspname, t.typname), '', '', w.text, '',
    format('ALTER DOMAIN %I.%I SET DEFAULT %s', n.nspname, t.typname, w.text), '', format('ALTER DOMAIN %I.%I DROP DEFAULT', n.nspname, t.typname), 's'
FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
CROSS JOIN LATERAL (SELECT pg_get_expr(t.typdefaultbin, 0)) AS w (text)
WHERE t.typtype = 'd' AND t.typdefaultbin IS NOT NULL AND t.oid >= 16384 AND OURS
UNION ALL
SELECT 'not null', NULL, NULL, NULL, t.tableoid, t.oid, 0, '', format('%I.%I', n.nspname, t.typname), '', '', 'NOT NULL', '',
    format('ALTER DOMAIN %I.%I SET NOT NULL', n.nspname, t.typname), '', format('ALTER DOMAIN %I.%I DROP NOT NULL', n.nspname, t.typname), 's'
FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
WHERE t.typtype = 'd' AND t.typnotnull AND t.oid >= 16384 AND OURS
UNION ALL
SELECT 'constraint', k.tableoid, k.oid, 0, t.tableoid, t.oid, 0, '', format('%I on domain %I.%I', k.conname, n.nspname, t.typname),
    format('CONSTRAINT %I ON DOMAIN %I.%I', k.conname, n.nspname, t.typname), '', pg_get_constraintdef(k.oid), '',
    format('ALTER DOMAIN %I.%I ADD CONSTRAINT %I %s', n.nspname, t.typname, k.conname, pg_get_constraintdef(k.oid)), '',
    format('ALTER DOMAIN %I.%I DROP CONSTRAINT %I', n.nspname, t.typname, k.conname), ''
FROM pg_catalog.pg_constraint AS k
JOIN pg_catalog.pg_type AS t ON t.oid = k.contypid JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
WHERE k.contype = 'c' AND k.oid >= 16384 AND OURS";

/// Base types: the shell, then what fills it; between them come their functions. A range with a function for its canonical form has a shell
/// too. A shell that nothing fills is an object of its own.
pub const BASE_TYPES: &str = "
SELECT 'shell type', CASE WHEN NOT t.typisdefined THEN t.tableoid END, CASE WHEN NOT t.typisdefined THEN t.oid END, 0, n.tableoid, n.oid, 0, '',
    format('%I.%I', n.nspname, t.typname), CASE WHEN NOT t.typisdefined THEN format('TYPE %I.%I', n.nspname, t.typname) END,
    CASE WHEN NOT t.typisdefined THEN pg_get_userbyid(t.typowner) END, 'shell', '',
    format('CREATE TYPE %I.%I', n.nspname, t.typname), '', CASE WHEN t.typisdefined THEN '' ELSE format('DROP TYPE %I.%I', n.nspname, t.typname) END, ''
FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
WHERE (t.typtype = 'p' OR (t.typtype = 'b' AND t.typsubscript <> 'array_subscript_handler'::regproc)
    OR t.oid IN (SELECT r.rngtypid FROM pg_catalog.pg_range AS r WHERE r.rngcanonical <> 0)) AND t.oid >= 16384 AND OURS
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 1247 AND d.objid = t.oid AND d.deptype = 'e')
UNION ALL
SELECT 'base type', t.tableoid, t.oid, 0, n.tableoid, n.oid, 0, '', format('%I.%I', n.nspname, t.typname), format('TYPE %I.%I', n.nspname, t.typname),
    pg_get_userbyid(t.typowner), concat_ws(', ', w.fixed, w.free), concat_ws(', ', w.fixed, (t.typstorage = 'p')::text),
    format('CREATE TYPE %I.%I (%s, %s)', n.nspname, t.typname, w.fixed, w.free),
    format('ALTER TYPE %I.%I SET (%s%s)', n.nspname, t.typname, w.free, w.none),
    format('DROP TYPE %I.%I CASCADE', n.nspname, t.typname), ''
FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
CROSS JOIN LATERAL (SELECT concat('INPUT = ', t.typinput, ', OUTPUT = ', t.typoutput,
    ', INTERNALLENGTH = ', CASE t.typlen WHEN -1 THEN 'VARIABLE' ELSE t.typlen::text END, CASE WHEN t.typbyval THEN ', PASSEDBYVALUE' END,
    ', ALIGNMENT = ', CASE t.typalign WHEN 'c' THEN 'char' WHEN 's' THEN 'int2' WHEN 'd' THEN 'double' ELSE 'int4' END,
    ', CATEGORY = ', quote_literal(t.typcategory::text), ', PREFERRED = ', t.typispreferred::text, ', DELIMITER = ', quote_literal(t.typdelim::text),
    ', DEFAULT = ' || quote_literal(t.typdefault), CASE WHEN t.typelem <> 0 THEN format(', ELEMENT = %s', t.typelem::regtype) END,
    CASE WHEN t.typcollation <> 0 THEN ', COLLATABLE = true' END),
    concat('STORAGE = ', CASE t.typstorage WHEN 'e' THEN 'external' WHEN 'x' THEN 'extended' WHEN 'm' THEN 'main' ELSE 'plain' END,
    CASE WHEN t.typreceive <> 0 THEN format(', RECEIVE = %s', t.typreceive) END, CASE WHEN t.typsend <> 0 THEN format(', SEND = %s', t.typsend) END,
    CASE WHEN t.typmodin <> 0 THEN format(', TYPMOD_IN = %s', t.typmodin) END, CASE WHEN t.typmodout <> 0 THEN format(', TYPMOD_OUT = %s', t.typmodout) END,
    CASE WHEN t.typanalyze <> 0 THEN format(', ANALYZE = %s', t.typanalyze) END, CASE WHEN t.typsubscript <> 0 THEN format(', SUBSCRIPT = %s', t.typsubscript) END),
    concat(CASE WHEN t.typreceive = 0 THEN ', RECEIVE = NONE' END, CASE WHEN t.typsend = 0 THEN ', SEND = NONE' END, CASE WHEN t.typmodin = 0 THEN ', TYPMOD_IN = NONE' END,
    CASE WHEN t.typmodout = 0 THEN ', TYPMOD_OUT = NONE' END, CASE WHEN t.typanalyze = 0 THEN ', ANALYZE = NONE' END,
    CASE WHEN t.typsubscript = 0 THEN ', SUBSCRIPT = NONE' END)) AS w (fixed, free, none)
WHERE t.typtype = 'b' AND t.typsubscript <> 'array_subscript_handler'::regproc AND t.oid >= 16384 AND OURS";

/// Functions and procedures. Of those of extensions the definition is asked only where it may be no part of the extension's script.
pub const FUNCTIONS: &str = "
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, p.tableoid, p.oid, 0, n.tableoid, n.oid, 0, '', w.identity,
    CASE p.prokind WHEN 'p' THEN 'PROCEDURE ' ELSE 'FUNCTION ' END || w.identity, pg_get_userbyid(p.proowner), w.text,
    concat_ws(' ', p.prokind, pg_get_function_arguments(p.oid), 'RETURNS', pg_get_function_result(p.oid)), w.text, w.text,
    format('DROP %s IF EXISTS %s', CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, w.identity), ''
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
CROSS JOIN LATERAL (SELECT format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
    rtrim(pg_get_functiondef(p.oid), E'\\n')) AS w (identity, text)
WHERE p.prokind <> 'a' AND p.oid >= 16384 AND OURS
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 1255 AND d.objid = p.oid AND d.deptype IN ('i', 'e'))
UNION ALL
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, p.tableoid, p.oid, 0, n.tableoid, n.oid, 0, '', w.identity, w.word || w.identity, '', '', '',
    CASE WHEN p.xmin <> e.xmin OR p.cmin::text::bigint < d.cmin::text::bigint THEN rtrim(pg_get_functiondef(p.oid), E'\\n') END, '', format('DROP %s%s', w.word, w.identity), ''
FROM pg_catalog.pg_depend AS d
JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND d.refclassid = e.tableoid
JOIN pg_catalog.pg_proc AS p ON p.oid = d.objid AND d.classid = p.tableoid JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
CROSS JOIN LATERAL (SELECT format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
    CASE p.prokind WHEN 'p' THEN 'PROCEDURE ' ELSE 'FUNCTION ' END) AS w (identity, word)
WHERE d.deptype = 'e' AND p.prokind <> 'a' AND p.oid >= 16384 AND OURS";

/// Aggregates.
pub const AGGREGATES: &str = "
SELECT 'aggregate', p.tableoid, p.oid, 0, n.tableoid, n.oid, 0, '', w.identity, 'AGGREGATE ' || w.identity, pg_get_userbyid(p.proowner), w.text, '',
    format('CREATE AGGREGATE %I.%I(%s) (%s)', n.nspname, p.proname, coalesce(nullif(pg_get_function_arguments(p.oid), ''), '*'), w.text), '',
    format('DROP AGGREGATE %s', w.identity), ''
FROM pg_catalog.pg_aggregate AS a
JOIN pg_catalog.pg_proc AS p ON p.oid = a.aggfnoid JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
LEFT JOIN pg_catalog.pg_operator AS o ON o.oid = a.aggsortop LEFT JOIN pg_catalog.pg_namespace AS q ON q.oid = o.oprnamespace
CROSS JOIN LATERAL (SELECT format('%I.%I(%s)', n.nspname, p.proname, coalesce(nullif(pg_get_function_identity_arguments(p.oid), ''), '*')),
    concat('SFUNC = ', a.aggtransfn, ', STYPE = ', a.aggtranstype::regtype, CASE WHEN a.aggtransspace <> 0 THEN format(', SSPACE = %s', a.aggtransspace) END,
        CASE WHEN a.aggfinalfn <> 0 THEN format(', FINALFUNC = %s', a.aggfinalfn) END, CASE WHEN a.aggfinalextra THEN ', FINALFUNC_EXTRA' END,
        ', FINALFUNC_MODIFY = ', CASE a.aggfinalmodify WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END,
        CASE WHEN a.aggcombinefn <> 0 THEN format(', COMBINEFUNC = %s', a.aggcombinefn) END,
        CASE WHEN a.aggserialfn <> 0 THEN format(', SERIALFUNC = %s', a.aggserialfn) END,
        CASE WHEN a.aggdeserialfn <> 0 THEN format(', DESERIALFUNC = %s', a.aggdeserialfn) END, ', INITCOND = ' || quote_literal(a.agginitval),
        CASE WHEN a.aggmtransfn <> 0 THEN format(', MSFUNC = %s, MINVFUNC = %s, MSTYPE = %s, MFINALFUNC_MODIFY = %s', a.aggmtransfn, a.aggminvtransfn, a.aggmtranstype::regtype,
            CASE a.aggmfinalmodify WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END) END,
        CASE WHEN a.aggmtransspace <> 0 THEN format(', MSSPACE = %s', a.aggmtransspace) END,
        CASE WHEN a.aggmfinalfn <> 0 THEN format(', MFINALFUNC = %s', a.aggmfinalfn) END, CASE WHEN a.aggmfinalextra THEN ', MFINALFUNC_EXTRA' END, ', MINITCOND = ' || quote_literal(a.aggminitval),
        CASE WHEN a.aggsortop <> 0 THEN format(', SORTOP = OPERATOR(%I.%s)', q.nspname, o.oprname) END,
        CASE WHEN a.aggkind = 'h' THEN ', HYPOTHETICAL' END,
        ', PARALLEL = ', CASE p.proparallel WHEN 's' THEN 'SAFE' WHEN 'r' THEN 'RESTRICTED' ELSE 'UNSAFE' END)) AS w (identity, text)
WHERE p.oid >= 16384 AND OURS";

/// Operators. What estimates them is altered, the rest makes them others.
pub const OPERATORS: &str = "
SELECT 'operator', o.tableoid, o.oid, 0, n.tableoid, n.oid, 0, '', w.identity, 'OPERATOR ' || w.identity, pg_get_userbyid(o.oprowner), w.text || w.estimates, w.text,
    format('CREATE OPERATOR %I.%s (%s%s)', n.nspname, o.oprname, w.text, w.estimates),
    format('ALTER OPERATOR %s SET (RESTRICT = %s, JOIN = %s)', w.identity, CASE o.oprrest WHEN 0 THEN 'NONE' ELSE o.oprrest::text END, CASE o.oprjoin WHEN 0 THEN 'NONE' ELSE o.oprjoin::text END),
    format('DROP OPERATOR %s', w.identity), ''
FROM pg_catalog.pg_operator AS o JOIN pg_catalog.pg_namespace AS n ON n.oid = o.oprnamespace
LEFT JOIN pg_catalog.pg_operator AS c ON c.oid = o.oprcom LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid = c.oprnamespace
LEFT JOIN pg_catalog.pg_operator AS g ON g.oid = o.oprnegate LEFT JOIN pg_catalog.pg_namespace AS gn ON gn.oid = g.oprnamespace
CROSS JOIN LATERAL (SELECT format('%I.%s (%s, %s)', n.nspname, o.oprname, CASE o.oprleft WHEN 0 THEN 'NONE' ELSE o.oprleft::regtype::text END, o.oprright::regtype),
    concat('FUNCTION = ', o.oprcode, CASE WHEN o.oprleft <> 0 THEN format(', LEFTARG = %s', o.oprleft::regtype) END, ', RIGHTARG = ', o.oprright::regtype,
        CASE WHEN c.oid IS NOT NULL THEN format(', COMMUTATOR = OPERATOR(%I.%s)', cn.nspname, c.oprname) END,
        CASE WHEN g.oid IS NOT NULL THEN format(', NEGATOR = OPERATOR(%I.%s)', gn.nspname, g.oprname) END,
        CASE WHEN o.oprcanhash THEN ', HASHES' END, CASE WHEN o.oprcanmerge THEN ', MERGES' END),
    concat(CASE WHEN o.oprrest <> 0 THEN format(', RESTRICT = %s', o.oprrest) END, CASE WHEN o.oprjoin <> 0 THEN format(', JOIN = %s', o.oprjoin) END)) AS w (identity, text, estimates)
WHERE o.oprcode <> 0 AND o.oid >= 16384 AND OURS";

/// Operator families, with the members that no class brings.
pub const OPERATOR_FAMILIES: &str = "
SELECT 'operator family', f.tableoid, f.oid, 0, n.tableoid, n.oid, 0, '', w.identity, 'OPERATOR FAMILY ' || w.identity, pg_get_userbyid(f.opfowner), '', '',
    'CREATE OPERATOR FAMILY ' || w.identity, '', 'DROP OPERATOR FAMILY IF EXISTS ' || w.identity, ''
FROM pg_catalog.pg_opfamily AS f JOIN pg_catalog.pg_namespace AS n ON n.oid = f.opfnamespace JOIN pg_catalog.pg_am AS m ON m.oid = f.opfmethod
CROSS JOIN LATERAL (SELECT format('%I.%I USING %I', n.nspname, f.opfname, m.amname)) AS w (identity)
WHERE f.oid >= 16384 AND OURS
UNION ALL
SELECT 'family member', o.tableoid, o.oid, 0, f.tableoid, f.oid, 0, '', format('%s: operator %s (%s, %s)', w.identity, o.amopstrategy, o.amoplefttype::regtype, o.amoprighttype::regtype),
    '', '', concat_ws(' ', o.amopopr::regoperator, s.opfname), '',
    concat(format('ALTER OPERATOR FAMILY %s ADD OPERATOR %s %s', w.identity, o.amopstrategy, o.amopopr::regoperator),
        ' FOR ORDER BY ' || quote_ident(sn.nspname) || '.' || quote_ident(s.opfname)), '',
    format('ALTER OPERATOR FAMILY %s DROP OPERATOR %s (%s, %s)', w.identity, o.amopstrategy, o.amoplefttype::regtype, o.amoprighttype::regtype), ''
FROM pg_catalog.pg_amop AS o
JOIN pg_catalog.pg_opfamily AS f ON f.oid = o.amopfamily JOIN pg_catalog.pg_namespace AS n ON n.oid = f.opfnamespace JOIN pg_catalog.pg_am AS m ON m.oid = f.opfmethod
JOIN pg_catalog.pg_depend AS d ON d.classid = o.tableoid AND d.objid = o.oid AND d.refclassid = f.tableoid AND d.deptype = 'a'
LEFT JOIN pg_catalog.pg_opfamily AS s ON s.oid = o.amopsortfamily LEFT JOIN pg_catalog.pg_namespace AS sn ON sn.oid = s.opfnamespace
CROSS JOIN LATERAL (SELECT format('%I.%I USING %I', n.nspname, f.opfname, m.amname)) AS w (identity)
WHERE o.oid >= 16384 AND OURS
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.classid = f.tableoid AND e.objid = f.oid AND e.deptype = 'e')
UNION ALL
SELECT 'family member', p.tableoid, p.oid, 0, f.tableoid, f.oid, 0, '', format('%s: function %s (%s, %s)', w.identity, p.amprocnum, p.amproclefttype::regtype, p.amprocrighttype::regtype),
    '', '', p.amproc::regprocedure::text, '',
    format('ALTER OPERATOR FAMILY %s ADD FUNCTION %s (%s, %s) %s', w.identity, p.amprocnum, p.amproclefttype::regtype, p.amprocrighttype::regtype, p.amproc::regprocedure), '',
    format('ALTER OPERATOR FAMILY %s DROP FUNCTION %s (%s, %s)', w.identity, p.amprocnum, p.amproclefttype::regtype, p.amprocrighttype::regtype), ''
FROM pg_catalog.pg_amproc AS p
JOIN pg_catalog.pg_opfamily AS f ON f.oid = p.amprocfamily JOIN pg_catalog.pg_namespace AS n ON n.oid = f.opfnamespace JOIN pg_catalog.pg_am AS m ON m.oid = f.opfmethod
JOIN pg_catalog.pg_depend AS d ON d.classid = p.tableoid AND d.objid = p.oid AND d.refclassid = f.tableoid AND d.deptype = 'a'
CROSS JOIN LATERAL (SELECT format('%I.%I USING %I', n.nspname, f.opfname, m.amname)) AS w (identity)
WHERE p.oid >= 16384 AND OURS
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS e WHERE e.classid = f.tableoid AND e.objid = f.oid AND e.deptype = 'e')";

/// Operator classes. Their members are put together for all at once: asked for each class they took half the time of reading a small database.
pub const OPERATOR_CLASSES: &str = "
SELECT 'operator class', o.tableoid, o.oid, 0, n.tableoid, n.oid, 0, '', w.identity, 'OPERATOR CLASS ' || w.identity, pg_get_userbyid(o.opcowner), w.text, '',
    format('CREATE OPERATOR CLASS %I.%I %s', n.nspname, o.opcname, w.text), '', 'DROP OPERATOR CLASS ' || w.identity, ''
FROM pg_catalog.pg_opclass AS o JOIN pg_catalog.pg_namespace AS n ON n.oid = o.opcnamespace JOIN pg_catalog.pg_am AS m ON m.oid = o.opcmethod
JOIN pg_catalog.pg_opfamily AS f ON f.oid = o.opcfamily JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.opfnamespace
LEFT JOIN (SELECT x.class, string_agg(x.member, ', ' ORDER BY x.member) FROM (
    SELECT d.refobjid, concat(format('OPERATOR %s %s', a.amopstrategy, a.amopopr::regoperator), ' FOR ORDER BY ' || quote_ident(sn.nspname) || '.' || quote_ident(s.opfname))
    FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_amop AS a ON a.oid = d.objid AND d.classid = a.tableoid
    LEFT JOIN pg_catalog.pg_opfamily AS s ON s.oid = a.amopsortfamily LEFT JOIN pg_catalog.pg_namespace AS sn ON sn.oid = s.opfnamespace
    WHERE d.refclassid = 2616 AND d.refobjid >= 16384
    UNION ALL
    SELECT d.refobjid, format('FUNCTION %s (%s, %s) %s', a.amprocnum, a.amproclefttype::regtype, a.amprocrighttype::regtype, a.amproc::regprocedure)
    FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_amproc AS a ON a.oid = d.objid AND d.classid = a.tableoid
    WHERE d.refclassid = 2616 AND d.refobjid >= 16384) AS x (class, member) GROUP BY 1) AS p (class, members) ON p.class = o.oid
CROSS JOIN LATERAL (SELECT format('%I.%I USING %I', n.nspname, o.opcname, m.amname),
    concat(CASE WHEN o.opcdefault THEN 'DEFAULT ' END, format('FOR TYPE %s USING %I FAMILY %I.%I AS ', o.opcintype::regtype, m.amname, fn.nspname, f.opfname),
        concat_ws(', ', p.members, format('STORAGE %s', CASE o.opckeytype WHEN 0 THEN o.opcintype ELSE o.opckeytype END::regtype)))) AS w (identity, text)
WHERE o.oid >= 16384 AND OURS";

/// Casts, transforms, languages, conversions, collations and access methods.
pub const OTHERS: &str = "
SELECT 'cast', c.tableoid, c.oid, 0, NULL::oid, NULL::oid, NULL::int, '', w.identity, 'CAST ' || w.identity, '', w.text, '',
    format('CREATE CAST %s %s', w.identity, w.text), '', 'DROP CAST ' || w.identity, ''
FROM pg_catalog.pg_cast AS c
CROSS JOIN LATERAL (SELECT format('(%s AS %s)', c.castsource::regtype, c.casttarget::regtype),
    concat(CASE c.castmethod WHEN 'f' THEN format('WITH FUNCTION %s', c.castfunc::regprocedure) WHEN 'i' THEN 'WITH INOUT' ELSE 'WITHOUT FUNCTION' END,
        CASE c.castcontext WHEN 'a' THEN ' AS ASSIGNMENT' WHEN 'i' THEN ' AS IMPLICIT' END)) AS w (identity, text)
WHERE c.oid >= 16384
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = c.tableoid AND d.objid = c.oid AND d.deptype = 'i')
UNION ALL
SELECT 'transform', t.tableoid, t.oid, 0, NULL, NULL, NULL, '', w.identity, 'TRANSFORM ' || w.identity, '', w.text, '',
    format('CREATE TRANSFORM %s %s', w.identity, w.text), '', 'DROP TRANSFORM ' || w.identity, ''
FROM pg_catalog.pg_transform AS t JOIN pg_catalog.pg_language AS l ON l.oid = t.trflang
CROSS JOIN LATERAL (SELECT format('FOR %s LANGUAGE %I', t.trftype::regtype, l.lanname),
    format('(%s)', concat_ws(', ', CASE WHEN t.trffromsql <> 0 THEN format('FROM SQL WITH FUNCTION %s', t.trffromsql::regprocedure) END,
        CASE WHEN t.trftosql <> 0 THEN format('TO SQL WITH FUNCTION %s', t.trftosql::regprocedure) END))) AS w (identity, text)
WHERE t.oid >= 16384
UNION ALL
SELECT 'language', l.tableoid, l.oid, 0, NULL, NULL, NULL, '', format('%I', l.lanname), format('LANGUAGE %I', l.lanname), pg_get_userbyid(l.lanowner), w.trusted || w.text, '',
    format('CREATE %sLANGUAGE %I %s', w.trusted, l.lanname, w.text), format('CREATE OR REPLACE %sLANGUAGE %I %s', w.trusted, l.lanname, w.text), format('DROP LANGUAGE %I', l.lanname), ''
FROM pg_catalog.pg_language AS l
CROSS JOIN LATERAL (SELECT CASE WHEN l.lanpltrusted THEN 'TRUSTED ' ELSE '' END, concat('HANDLER ', l.lanplcallfoid::regproc, CASE WHEN l.laninline <> 0 THEN format(' INLINE %s', l.laninline::regproc) END,
    CASE WHEN l.lanvalidator <> 0 THEN format(' VALIDATOR %s', l.lanvalidator::regproc) END)) AS w (trusted, text)
WHERE l.lanispl AND l.oid >= 16384
UNION ALL
SELECT 'access method', a.tableoid, a.oid, 0, NULL, NULL, NULL, '', format('%I', a.amname), format('ACCESS METHOD %I', a.amname), '', w.text, '',
    format('CREATE ACCESS METHOD %I %s', a.amname, w.text), '', format('DROP ACCESS METHOD %I', a.amname), ''
FROM pg_catalog.pg_am AS a
CROSS JOIN LATERAL (SELECT format('TYPE %s HANDLER %s', CASE a.amtype WHEN 'i' THEN 'INDEX' ELSE 'TABLE' END, a.amhandler)) AS w (text)
WHERE a.oid >= 16384
UNION ALL
SELECT 'conversion', c.tableoid, c.oid, 0, n.tableoid, n.oid, 0, '', format('%I.%I', n.nspname, c.conname), format('CONVERSION %I.%I', n.nspname, c.conname), pg_get_userbyid(c.conowner),
    w.usual || w.text, '', format('CREATE %sCONVERSION %I.%I %s', w.usual, n.nspname, c.conname, w.text), '',
    format('DROP CONVERSION %I.%I', n.nspname, c.conname), ''
FROM pg_catalog.pg_conversion AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.connamespace
CROSS JOIN LATERAL (SELECT CASE WHEN c.condefault THEN 'DEFAULT ' ELSE '' END,
    format('FOR %L TO %L FROM %s', pg_encoding_to_char(c.conforencoding), pg_encoding_to_char(c.contoencoding), c.conproc)) AS w (usual, text)
WHERE c.oid >= 16384 AND OURS
UNION ALL
SELECT 'collation', c.tableoid, c.oid, 0, n.tableoid, n.oid, 0, '', format('%I.%I', n.nspname, c.collname), format('COLLATION %I.%I', n.nspname, c.collname), pg_get_userbyid(c.collowner),
    w.text, '', format('CREATE COLLATION %I.%I (%s)', n.nspname, c.collname, w.text), '', format('DROP COLLATION %I.%I', n.nspname, c.collname), ''
FROM pg_catalog.pg_collation AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.collnamespace
CROSS JOIN LATERAL (SELECT coalesce(to_jsonb(c) ->> 'colliculocale', to_jsonb(c) ->> 'colllocale')) AS v (locale)
CROSS JOIN LATERAL (SELECT concat_ws(', ', 'PROVIDER = ' || CASE c.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
    'LOCALE = ' || quote_literal(v.locale), 'LC_COLLATE = ' || quote_literal(c.collcollate), 'LC_CTYPE = ' || quote_literal(c.collctype),
    CASE WHEN NOT c.collisdeterministic THEN 'DETERMINISTIC = false' END)) AS w (text)
WHERE c.oid >= 16384 AND OURS
UNION ALL
SELECT 'event trigger', e.tableoid, e.oid, 0, NULL, NULL, NULL, '', format('%I', e.evtname), format('EVENT TRIGGER %I', e.evtname), pg_get_userbyid(e.evtowner), w.text, '',
    format('CREATE EVENT TRIGGER %I %s', e.evtname, w.text), '', format('DROP EVENT TRIGGER %I', e.evtname), ''
FROM pg_catalog.pg_event_trigger AS e
CROSS JOIN LATERAL (SELECT concat('ON ', e.evtevent, (SELECT format(' WHEN TAG IN (%s)', string_agg(quote_literal(t), ', ')) FROM unnest(e.evttags) AS t HAVING count(*) > 0),
    format(' EXECUTE FUNCTION %s()', e.evtfoid::regproc))) AS w (text)";

/// Text search.
pub const TEXT_SEARCH: &str = "
SELECT 'text search parser', p.tableoid, p.oid, 0, n.tableoid, n.oid, 0, '', format('%I.%I', n.nspname, p.prsname), format('TEXT SEARCH PARSER %I.%I', n.nspname, p.prsname), '', w.text, '',
    format('CREATE TEXT SEARCH PARSER %I.%I (%s)', n.nspname, p.prsname, w.text), '', format('DROP TEXT SEARCH PARSER %I.%I', n.nspname, p.prsname), ''
FROM pg_catalog.pg_ts_parser AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.prsnamespace
CROSS JOIN LATERAL (SELECT concat('START = ', p.prsstart, ', GETTOKEN = ', p.prstoken, ', END = ', p.prsend, ', LEXTYPES = ', p.prslextype,
    CASE WHEN p.prsheadline <> 0 THEN format(', HEADLINE = %s', p.prsheadline) END)) AS w (text)
WHERE p.oid >= 16384 AND OURS
UNION ALL
SELECT 'text search template', t.tableoid, t.oid, 0, n.tableoid, n.oid, 0, '', format('%I.%I', n.nspname, t.tmplname), format('TEXT SEARCH TEMPLATE %I.%I', n.nspname, t.tmplname), '', w.text, '',
    format('CREATE TEXT SEARCH TEMPLATE %I.%I (%s)', n.nspname, t.tmplname, w.text), '', format('DROP TEXT SEARCH TEMPLATE %I.%I', n.nspname, t.tmplname), ''
FROM pg_catalog.pg_ts_template AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.tmplnamespace
CROSS JOIN LATERAL (SELECT concat(CASE WHEN t.tmplinit <> 0 THEN format('INIT = %s, ', t.tmplinit) END, 'LEXIZE = ', t.tmpllexize)) AS w (text)
WHERE t.oid >= 16384 AND OURS
UNION ALL
SELECT 'text search dictionary', d.tableoid, d.oid, 0, n.tableoid, n.oid, 0, '', format('%I.%I', n.nspname, d.dictname), format('TEXT SEARCH DICTIONARY %I.%I', n.nspname, d.dictname),
    pg_get_userbyid(d.dictowner), w.text, '', format('CREATE TEXT SEARCH DICTIONARY %I.%I (%s)', n.nspname, d.dictname, w.text), '',
    format('DROP TEXT SEARCH DICTIONARY %I.%I', n.nspname, d.dictname), ''
FROM pg_catalog.pg_ts_dict AS d JOIN pg_catalog.pg_namespace AS n ON n.oid = d.dictnamespace
JOIN pg_catalog.pg_ts_template AS t ON t.oid = d.dicttemplate JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.tmplnamespace
CROSS JOIN LATERAL (SELECT concat_ws(', ', format('TEMPLATE = %I.%I', tn.nspname, t.tmplname), d.dictinitoption)) AS w (text)
WHERE d.oid >= 16384 AND OURS
UNION ALL
SELECT 'text search configuration', c.tableoid, c.oid, 0, n.tableoid, n.oid, 0, '', format('%I.%I', n.nspname, c.cfgname), format('TEXT SEARCH CONFIGURATION %I.%I', n.nspname, c.cfgname),
    pg_get_userbyid(c.cfgowner), format('PARSER = %I.%I', pn.nspname, p.prsname), '',
    format('CREATE TEXT SEARCH CONFIGURATION %I.%I (PARSER = %I.%I)', n.nspname, c.cfgname, pn.nspname, p.prsname), '',
    format('DROP TEXT SEARCH CONFIGURATION %I.%I', n.nspname, c.cfgname), ''
FROM pg_catalog.pg_ts_config AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.cfgnamespace
JOIN pg_catalog.pg_ts_parser AS p ON p.oid = c.cfgparser JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.prsnamespace
WHERE c.oid >= 16384 AND OURS
UNION ALL
SELECT 'text search mapping', NULL, NULL, NULL, c.tableoid, c.oid, 0, '', format('%I.%I for %s', n.nspname, c.cfgname, k.alias), '', '', m.dictionaries, '',
    format('ALTER TEXT SEARCH CONFIGURATION %I.%I ADD MAPPING FOR %s WITH %s', n.nspname, c.cfgname, k.alias, m.dictionaries),
    format('ALTER TEXT SEARCH CONFIGURATION %I.%I ALTER MAPPING FOR %s WITH %s', n.nspname, c.cfgname, k.alias, m.dictionaries),
    format('ALTER TEXT SEARCH CONFIGURATION %I.%I DROP MAPPING FOR %s', n.nspname, c.cfgname, k.alias), ''
FROM pg_catalog.pg_ts_config AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.cfgnamespace
JOIN (SELECT m.mapcfg, m.maptokentype, string_agg(m.mapdict::regdictionary::text, ', ' ORDER BY m.mapseqno) FROM pg_catalog.pg_ts_config_map AS m WHERE m.mapcfg >= 16384 GROUP BY 1, 2)
    AS m (config, token, dictionaries) ON m.config = c.oid
CROSS JOIN LATERAL ts_token_type(c.cfgparser) AS k
WHERE k.tokid = m.token AND c.oid >= 16384 AND OURS";
