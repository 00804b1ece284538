//! Foreign data, replication, and who may do what.

/// Foreign-data wrappers, servers, and the mappings of users: of these the user's name there, and the names of the other options. Their values
/// are lost with a mapping.
pub const FOREIGN: &str = "
SELECT 'foreign-data wrapper', f.tableoid, f.oid, 0, NULL::oid, NULL::oid, NULL::int, '', format('%I', f.fdwname), format('FOREIGN DATA WRAPPER %I', f.fdwname),
    pg_get_userbyid(f.fdwowner), w.text, '', format('CREATE FOREIGN DATA WRAPPER %I %s', f.fdwname, w.text),
    format('ALTER FOREIGN DATA WRAPPER %I %s', f.fdwname, w.text), format('DROP FOREIGN DATA WRAPPER %I', f.fdwname), ''
FROM pg_catalog.pg_foreign_data_wrapper AS f
CROSS JOIN LATERAL (SELECT concat(CASE f.fdwhandler WHEN 0 THEN 'NO HANDLER' ELSE format('HANDLER %s', f.fdwhandler::regproc) END,
    CASE f.fdwvalidator WHEN 0 THEN ' NO VALIDATOR' ELSE format(' VALIDATOR %s', f.fdwvalidator::regproc) END)) AS w (text)
UNION ALL
SELECT 'option', NULL, NULL, NULL, f.tableoid, f.oid, 0, '', format('foreign-data wrapper %I: %I', f.fdwname, o.option_name), '', '', o.option_value, '',
    format('ALTER FOREIGN DATA WRAPPER %I OPTIONS (ADD %I %L)', f.fdwname, o.option_name, o.option_value),
    format('ALTER FOREIGN DATA WRAPPER %I OPTIONS (SET %I %L)', f.fdwname, o.option_name, o.option_value),
    format('ALTER FOREIGN DATA WRAPPER %I OPTIONS (DROP %I)', f.fdwname, o.option_name), ''
FROM pg_catalog.pg_foreign_data_wrapper AS f CROSS JOIN LATERAL pg_options_to_table(f.fdwoptions) AS o WHERE f.fdwoptions IS NOT NULL
UNION ALL
SELECT 'server', s.tableoid, s.oid, 0, f.tableoid, f.oid, 0, '', format('%I', s.srvname), format('SERVER %I', s.srvname), pg_get_userbyid(s.srvowner),
    concat_ws(' ', s.srvtype, f.fdwname), '',
    concat(format('CREATE SERVER %I', s.srvname), ' TYPE ' || quote_literal(s.srvtype), ' VERSION ' || quote_literal(s.srvversion), format(' FOREIGN DATA WRAPPER %I', f.fdwname)), '',
    format('DROP SERVER %I', s.srvname), ''
FROM pg_catalog.pg_foreign_server AS s JOIN pg_catalog.pg_foreign_data_wrapper AS f ON f.oid = s.srvfdw
UNION ALL
SELECT 'server version', NULL, NULL, NULL, s.tableoid, s.oid, 0, '', format('%I', s.srvname), '', '', s.srvversion, '',
    format('ALTER SERVER %I VERSION %L', s.srvname, s.srvversion), '', format('ALTER SERVER %I VERSION NULL', s.srvname), 'ws'
FROM pg_catalog.pg_foreign_server AS s WHERE s.srvversion IS NOT NULL
UNION ALL
SELECT 'option', NULL, NULL, NULL, s.tableoid, s.oid, 0, '', format('server %I: %I', s.srvname, o.option_name), '', '', o.option_value, '',
    format('ALTER SERVER %I OPTIONS (ADD %I %L)', s.srvname, o.option_name, o.option_value),
    format('ALTER SERVER %I OPTIONS (SET %I %L)', s.srvname, o.option_name, o.option_value), format('ALTER SERVER %I OPTIONS (DROP %I)', s.srvname, o.option_name), ''
FROM pg_catalog.pg_foreign_server AS s CROSS JOIN LATERAL pg_options_to_table(s.srvoptions) AS o WHERE s.srvoptions IS NOT NULL
UNION ALL
SELECT 'user mapping', 1418, m.umid, 0, 1417, m.srvid, 0, '', w.identity, '', '', '', '', 'CREATE USER MAPPING ' || w.identity, '', 'DROP USER MAPPING ' || w.identity,
    CASE WHEN EXISTS (SELECT FROM pg_options_to_table(m.umoptions) AS o WHERE o.option_name <> 'user') THEN 'l' END
FROM pg_catalog.pg_user_mappings AS m
CROSS JOIN LATERAL (SELECT format('FOR %s SERVER %I', CASE m.umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END, m.srvname)) AS w (identity)
UNION ALL
SELECT 'option', NULL, NULL, NULL, 1418, m.umid, 0, '', format('user mapping %s: %I', w.identity, o.option_name), '', '', v.shown, '',
    format('ALTER USER MAPPING %s OPTIONS (ADD %I %L)', w.identity, o.option_name, v.given), format('ALTER USER MAPPING %s OPTIONS (SET %I %L)', w.identity, o.option_name, v.given),
    format('ALTER USER MAPPING %s OPTIONS (DROP %I)', w.identity, o.option_name), ''
FROM pg_catalog.pg_user_mappings AS m
CROSS JOIN LATERAL (SELECT format('FOR %s SERVER %I', CASE m.umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END, m.srvname)) AS w (identity)
CROSS JOIN LATERAL pg_options_to_table(m.umoptions) AS o
CROSS JOIN LATERAL (SELECT CASE o.option_name WHEN 'user' THEN o.option_value ELSE 'set; its value is not read' END,
    CASE o.option_name WHEN 'user' THEN o.option_value ELSE 'to_be_filled_in' END) AS v (shown, given)
WHERE m.umoptions IS NOT NULL";

/// Publications and what they publish; subscriptions without how they connect.
pub const REPLICATION: &str = "
SELECT 'publication', p.tableoid, p.oid, 0, NULL::oid, NULL::oid, NULL::int, '', format('%I', p.pubname), format('PUBLICATION %I', p.pubname), pg_get_userbyid(p.pubowner),
    CASE WHEN p.puballtables THEN 'FOR ALL TABLES' END, '', concat(format('CREATE PUBLICATION %I', p.pubname), CASE WHEN p.puballtables THEN ' FOR ALL TABLES' END), '',
    format('DROP PUBLICATION %I', p.pubname), ''
FROM pg_catalog.pg_publication AS p
UNION ALL
SELECT 'publication parameters', NULL, NULL, NULL, p.tableoid, p.oid, 0, '', format('%I', p.pubname), '', '', w.text, '',
    format('ALTER PUBLICATION %I SET (%s)', p.pubname, w.text), '',
    format('ALTER PUBLICATION %I SET (publish = ''insert, update, delete, truncate'', publish_via_partition_root = false)', p.pubname), 's'
FROM pg_catalog.pg_publication AS p
CROSS JOIN LATERAL (SELECT format('publish = %L, publish_via_partition_root = %s', concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END,
    CASE WHEN p.pubupdate THEN 'update' END, CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END), p.pubviaroot::text)) AS w (text)
WHERE NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND NOT p.pubviaroot)
UNION ALL
SELECT 'published table', r.tableoid, r.oid, 0, p.tableoid, p.oid, 0, '', format('%s in %I', r.prrelid::regclass, p.pubname), '', '', w.text, '',
    format('ALTER PUBLICATION %I ADD TABLE ONLY %s', p.pubname, w.text), '', format('ALTER PUBLICATION %I DROP TABLE ONLY %s', p.pubname, r.prrelid::regclass), ''
FROM pg_catalog.pg_publication_rel AS r JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid
CROSS JOIN LATERAL (SELECT concat(r.prrelid::regclass,
    (SELECT format(' (%s)', string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)) FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs) HAVING count(*) > 0),
    ' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')')) AS w (text)
UNION ALL
SELECT 'published schema', s.tableoid, s.oid, 0, p.tableoid, p.oid, 0, '', format('%I in %I', n.nspname, p.pubname), '', '', '', '',
    format('ALTER PUBLICATION %I ADD TABLES IN SCHEMA %I', p.pubname, n.nspname), '', format('ALTER PUBLICATION %I DROP TABLES IN SCHEMA %I', p.pubname, n.nspname), ''
FROM pg_catalog.pg_publication_namespace AS s JOIN pg_catalog.pg_publication AS p ON p.oid = s.pnpubid JOIN pg_catalog.pg_namespace AS n ON n.oid = s.pnnspid
UNION ALL
SELECT 'subscription', 6100, s.oid, 0, NULL, NULL, NULL, '', format('%I', s.subname), format('SUBSCRIPTION %I', s.subname), pg_get_userbyid(s.subowner), CASE WHEN s.subtwophasestate <> 'd' THEN 'two_phase = true' END, '',
    format('CREATE SUBSCRIPTION %I CONNECTION ''dbname=to_be_filled_in'' PUBLICATION %s WITH (connect = false, slot_name = NONE%s)', s.subname, w.publications,
        CASE WHEN s.subtwophasestate <> 'd' THEN ', two_phase = true' END), '',
    format('ALTER SUBSCRIPTION %1$I DISABLE; ALTER SUBSCRIPTION %1$I SET (slot_name = NONE); DROP SUBSCRIPTION %1$I', s.subname), ''
FROM pg_catalog.pg_subscription AS s
CROSS JOIN LATERAL (SELECT string_agg(quote_ident(x), ', ' ORDER BY x) FROM unnest(s.subpublications) AS x) AS w (publications)
WHERE s.subdbid = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
UNION ALL
SELECT 'subscribed publications', NULL, NULL, NULL, 6100, s.oid, 0, '', format('%I', s.subname), '', '', w.publications, '',
    format('ALTER SUBSCRIPTION %I SET PUBLICATION %s WITH (refresh = false)', s.subname, w.publications), '', '', 'ws'
FROM pg_catalog.pg_subscription AS s
CROSS JOIN LATERAL (SELECT string_agg(quote_ident(x), ', ' ORDER BY x) FROM unnest(s.subpublications) AS x) AS w (publications)
WHERE s.subdbid = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
UNION ALL
SELECT 'subscription parameters', NULL, NULL, NULL, 6100, s.oid, 0, '', format('%I', s.subname), '', '', w.text, '',
    format('ALTER SUBSCRIPTION %I SET (%s)', s.subname, w.text), '', '', 's'
FROM pg_catalog.pg_subscription AS s
CROSS JOIN LATERAL (SELECT format('binary = %s, synchronous_commit = %L, streaming = %s, disable_on_error = %s', s.subbinary::text, s.subsynccommit,
    CASE WHEN s.substream::text IN ('true', 't') THEN 'on' WHEN s.substream::text = 'p' THEN 'parallel' ELSE 'off' END, s.subdisableonerr::text)) AS w (text)
WHERE s.subdbid = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())";

/// Comments: address, what the catalogue calls it, its identity, the text.
pub const COMMENTS: &str = "
SELECT d.classoid, d.objoid, d.objsubid, i.identity, d.description
FROM pg_catalog.pg_description AS d CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) AS i
WHERE d.objoid >= 16384 OR d.classoid = 3079 OR (d.classoid = 2615 AND d.objoid IN (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE OURS))";

/// Security labels, likewise, with their provider.
pub const LABELS: &str = "
SELECT d.classoid, d.objoid, d.objsubid, i.identity, d.label, d.provider
FROM pg_catalog.pg_seclabel AS d CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) AS i
WHERE d.objoid >= 16384 OR (d.classoid = 2615 AND d.objoid IN (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE OURS))";

/// The database's own comment.
pub const DATABASE_COMMENT: &str = "
SELECT 'comment', NULL::oid, NULL::oid, NULL::int, NULL::oid, NULL::oid, NULL::int, '', 'database', '', '', s.description, '',
    format('COMMENT ON DATABASE @DATABASE@ IS %L', s.description), '', 'COMMENT ON DATABASE @DATABASE@ IS NULL', 's'
FROM pg_catalog.pg_shdescription AS s JOIN pg_catalog.pg_database AS d ON d.oid = s.objoid AND s.classoid = 1262
WHERE d.datname = current_database() AND d.datname NOT IN ('postgres', 'template1')
    AND NOT pg_catalog.starts_with(s.description, 'pgrunbook review, temporary: ')";

/// Privileges that are not what a new object of the owner has: address, what to grant on, columns, owner, grantee, privileges now, and on a
/// new object, or at the end of the script of the extension that it belongs to. A star stands for the grant option; who gave one is named where it was not the owner.
pub const GRANTS: &str = "
WITH o (class, object, number, place, columns, owner, acl, base) AS (
    SELECT c.tableoid, c.oid, 0, format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname), '', c.relowner, c.relacl,
        acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relacl IS NOT NULL AND c.oid >= 16384 AND OURS
    UNION ALL
    SELECT c.tableoid, c.oid, a.attnum, format('TABLE %I.%I', n.nspname, c.relname), format(' (%I)', a.attname), c.relowner, a.attacl, acldefault('c', c.relowner)
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND a.attrelid >= 16384 AND OURS
    UNION ALL
    SELECT p.tableoid, p.oid, 0, format('ROUTINE %I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)), '', p.proowner, p.proacl, acldefault('f', p.proowner)
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace WHERE p.proacl IS NOT NULL AND p.oid >= 16384 AND OURS
    UNION ALL
    SELECT t.tableoid, t.oid, 0, format('TYPE %I.%I', n.nspname, t.typname), '', t.typowner, t.typacl, acldefault('T', t.typowner)
    FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace WHERE t.typacl IS NOT NULL AND t.oid >= 16384 AND OURS
    UNION ALL
    SELECT n.tableoid, n.oid, 0, format('SCHEMA %I', n.nspname), '', n.nspowner, n.nspacl, acldefault('n', n.nspowner)
    FROM pg_catalog.pg_namespace AS n WHERE n.nspacl IS NOT NULL AND OURS
    UNION ALL
    SELECT l.tableoid, l.oid, 0, format('LANGUAGE %I', l.lanname), '', l.lanowner, l.lanacl, acldefault('l', l.lanowner) FROM pg_catalog.pg_language AS l WHERE l.lanacl IS NOT NULL
    UNION ALL
    SELECT f.tableoid, f.oid, 0, format('FOREIGN DATA WRAPPER %I', f.fdwname), '', f.fdwowner, f.fdwacl, acldefault('F', f.fdwowner)
    FROM pg_catalog.pg_foreign_data_wrapper AS f WHERE f.fdwacl IS NOT NULL
    UNION ALL
    SELECT s.tableoid, s.oid, 0, format('FOREIGN SERVER %I', s.srvname), '', s.srvowner, s.srvacl, acldefault('S', s.srvowner)
    FROM pg_catalog.pg_foreign_server AS s WHERE s.srvacl IS NOT NULL
    UNION ALL
    SELECT NULL, NULL, NULL, 'DATABASE @DATABASE@', '', d.datdba, d.datacl, acldefault('d', d.datdba)
    FROM pg_catalog.pg_database AS d WHERE d.datacl IS NOT NULL AND d.datname = current_database()
), e AS (
    SELECT o.*, a.grantee, concat(a.privilege_type, CASE WHEN a.is_grantable THEN '*' END,
        CASE WHEN a.grantor <> o.owner THEN ' by ' || quote_ident(pg_get_userbyid(a.grantor)) END) AS privilege, true AS now FROM o CROSS JOIN LATERAL aclexplode(o.acl) AS a
    UNION ALL
    SELECT o.*, a.grantee, a.privilege_type, false FROM o
    LEFT JOIN pg_catalog.pg_init_privs AS i ON i.objoid = o.object AND i.classoid = o.class AND i.objsubid = o.number
    CROSS JOIN LATERAL aclexplode(coalesce(i.initprivs, o.base)) AS a
)
SELECT e.class, e.object, e.number, e.place, e.columns, CASE WHEN e.grantee = e.owner THEN 't' ELSE 'f' END,
    CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END,
    string_agg(DISTINCT e.privilege, E'\\x1f' ORDER BY e.privilege) FILTER (WHERE e.now), string_agg(DISTINCT e.privilege, E'\\x1f' ORDER BY e.privilege) FILTER (WHERE NOT e.now)
FROM e GROUP BY 1, 2, 3, 4, 5, 6, 7, e.grantee
HAVING string_agg(DISTINCT e.privilege, E'\\x1f' ORDER BY e.privilege) FILTER (WHERE e.now) IS DISTINCT FROM string_agg(DISTINCT e.privilege, E'\\x1f' ORDER BY e.privilege) FILTER (WHERE NOT e.now)";

/// Default privileges: creator, schema, class of objects, grantee, privileges now, and built in.
pub const DEFAULT_PRIVILEGES: &str = "
WITH e AS (
    SELECT d.*, a.grantee, a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END AS privilege, true AS now
    FROM pg_catalog.pg_default_acl AS d CROSS JOIN LATERAL aclexplode(d.defaclacl) AS a
    UNION ALL
    SELECT d.*, a.grantee, a.privilege_type, false FROM pg_catalog.pg_default_acl AS d
    CROSS JOIN LATERAL aclexplode(acldefault(CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END, d.defaclrole)) AS a WHERE d.defaclnamespace = 0
)
SELECT quote_ident(pg_get_userbyid(e.defaclrole)), n.nspname, CASE e.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' ELSE 'SCHEMAS' END,
    CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END,
    string_agg(e.privilege, E'\\x1f' ORDER BY e.privilege) FILTER (WHERE e.now), string_agg(e.privilege, E'\\x1f' ORDER BY e.privilege) FILTER (WHERE NOT e.now), n.oid
FROM e LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = e.defaclnamespace
WHERE e.defaclnamespace = 0 OR OURS
GROUP BY 1, 2, 3, 4, 7
HAVING string_agg(e.privilege, E'\\x1f' ORDER BY e.privilege) FILTER (WHERE e.now) IS DISTINCT FROM string_agg(e.privilege, E'\\x1f' ORDER BY e.privilege) FILTER (WHERE NOT e.now)";

/// Settings that the database has for everybody or for a role. Lists of names are stored as they are written.
pub const SETTINGS: &str = "
SELECT 'setting', NULL::oid, NULL::oid, NULL::int, NULL::oid, NULL::oid, NULL::int, '', concat_ws(' ', w.name, 'for role ' || r.rolname), '', '', w.value, '',
    format('ALTER %s SET %s TO %s', w.whom, w.name, CASE WHEN w.name IN ('search_path', 'local_preload_libraries', 'session_preload_libraries', 'temp_tablespaces')
        AND w.value <> '' THEN w.value ELSE quote_literal(w.value) END), '', format('ALTER %s RESET %s', w.whom, w.name), 's'
FROM pg_catalog.pg_db_role_setting AS s
JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase AND d.datname = current_database()
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
CROSS JOIN LATERAL unnest(s.setconfig) AS c (line)
CROSS JOIN LATERAL (SELECT split_part(c.line, '=', 1), substr(c.line, strpos(c.line, '=') + 1),
    CASE WHEN r.rolname IS NULL THEN 'DATABASE @DATABASE@' ELSE format('ROLE %I IN DATABASE @DATABASE@', r.rolname) END) AS w (name, value, whom)";

/// What rests on what. Members rest on their extension, parts on their whole.
pub const DEPENDENCIES: &str = "
SELECT d.classid, d.objid, d.objsubid, d.refclassid, d.refobjid, d.refobjsubid, d.deptype
FROM pg_catalog.pg_depend AS d WHERE d.objid >= 16384 AND (d.refobjid >= 16384 OR d.refclassid = 2615)";

/// Parts that are no items, and the items that they are parts of: a constraint's index, the relation of a composite type.
pub const PARTS: &str = "
SELECT 1259, k.conindid, 2606, k.oid FROM pg_catalog.pg_constraint AS k WHERE k.contype IN ('p', 'u', 'x') AND k.oid >= 16384
UNION ALL
SELECT 1259, t.typrelid, 1247, t.oid FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid WHERE c.relkind = 'c' AND t.oid >= 16384";

/// What belongs to an extension: address, the extension, its name, and whether it was made before it was said to belong to it. Then it is none
/// of what `CREATE EXTENSION` makes: that says so in the command that makes a thing.
pub const MEMBERS: &str = "
SELECT d.classid, d.objid, e.oid, e.extname,
    EXISTS (SELECT FROM pg_catalog.pg_depend AS o WHERE o.classid = d.classid AND o.objid = d.objid AND o.deptype <> 'e'
        AND (age(o.xmin) > age(d.xmin) OR (o.xmin = d.xmin AND o.cmin::text::bigint < d.cmin::text::bigint)))
FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND d.refclassid = e.tableoid WHERE d.deptype = 'e' AND d.objid >= 16384";

/// What goes away with an extension that it does not belong to: address, what the catalogue calls it, the extension, its name.
pub const ON_EXTENSION: &str = "
SELECT d.classid, d.objid, i.identity, e.oid, e.extname
FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND d.refclassid = e.tableoid
CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) AS i WHERE d.deptype = 'x' AND d.objid >= 16384";
