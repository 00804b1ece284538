//! The queries. Each stands for itself, reads system catalogs alone, and was tried on PostgreSQL 14 to 18.
//!
//! Columns: <https://www.postgresql.org/docs/current/catalogs.html>. ACLs: <https://www.postgresql.org/docs/current/ddl-priv.html>;
//! a stored NULL is what `acldefault()` says. Entries of an object's own owner are left out: owning is told by itself.

/// Who asks, and what this session may read.
pub const WHO: &str = "SELECT current_setting('server_version_num'), current_database(), session_user,
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
    has_column_privilege('pg_subscription', 'subconninfo', 'SELECT')";

pub const ROLES: &str =
    "SELECT oid, rolname, rolsuper, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls
FROM pg_roles";

/// Before 16 a role inherits or does not, and every member may `SET ROLE`; the grantor is only a note.
pub const MEMBERS_14: &str = "SELECT m.member, m.roleid, m.grantor, m.admin_option, r.rolinherit, true
FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.member
ORDER BY m.member, m.roleid";

pub const MEMBERS_16: &str = "SELECT m.member, m.roleid, m.grantor, m.admin_option, m.inherit_option, m.set_option
FROM pg_auth_members AS m
ORDER BY m.member, m.roleid, m.grantor";

pub const DATABASES: &str = "SELECT oid, datname, datdba, datallowconn, datname = current_database() FROM pg_database";

pub const SCHEMAS: &str = "SELECT n.oid, n.nspname, n.nspowner,
    EXISTS (SELECT FROM pg_depend AS d
            WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
FROM pg_namespace AS n
WHERE n.nspname <> 'information_schema' AND left(n.nspname, 3) <> 'pg_'";

/// `pg_relation_is_updatable`: 4 is UPDATE, 8 INSERT, 16 DELETE; without triggers, so that it is the view's own doing.
pub const RELATIONS: &str = "SELECT c.oid, c.relnamespace, c.relname, c.relkind, c.relowner, c.relrowsecurity, c.relforcerowsecurity,
    EXISTS (SELECT FROM unnest(c.reloptions) AS o
            WHERE lower(o) IN ('security_invoker=true', 'security_invoker=on', 'security_invoker=yes', 'security_invoker=1')),
    EXISTS (SELECT FROM pg_depend AS d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'),
    CASE WHEN c.relkind = 'v' THEN pg_relation_is_updatable(c.oid, false) ELSE 0 END,
    CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
    c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend AS d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname <> 'information_schema' AND left(n.nspname, 3) <> 'pg_'";

/// The text of extensions' functions is not read: they are many, and not the project's.
pub const ROUTINES: &str =
    "SELECT p.oid, p.pronamespace, p.proname, oidvectortypes(p.proargtypes), p.prokind, p.proowner, p.prosecdef,
    l.lanname, array_to_string(p.proconfig, E'\\n'), e.extname,
    CASE WHEN e.extname IS NULL AND l.lanname NOT IN ('internal', 'c')
         THEN coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) END,
    p.prorettype = 'trigger'::regtype
FROM pg_proc AS p
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    JOIN pg_language AS l ON l.oid = p.prolang
    LEFT JOIN (pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid)
        ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_extension'::regclass
        AND d.deptype = 'e'
WHERE n.nspname <> 'information_schema' AND left(n.nspname, 3) <> 'pg_'";

/// Types that can be granted by themselves: not a table's row type, not an array.
pub const TYPES: &str = "SELECT t.oid, t.typnamespace, t.typname, t.typowner,
    EXISTS (SELECT FROM pg_depend AS d
            WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
FROM pg_type AS t
    JOIN pg_namespace AS n ON n.oid = t.typnamespace
    LEFT JOIN pg_class AS c ON c.oid = t.typrelid
WHERE (t.typtype IN ('d', 'e', 'r') OR (t.typtype = 'c' AND c.relkind = 'c') OR (t.typtype = 'b' AND t.typelem = 0))
    AND n.nspname <> 'information_schema' AND left(n.nspname, 3) <> 'pg_'";

/// Entries of what has a name of its own in a catalog that was read above.
pub const ACL: &str = "SELECT 'relation', c.oid, NULL, a.grantor, a.grantee, a.privilege_type, a.is_grantable
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace,
    aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r'::\"char\" END, c.relowner))) AS a
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND a.grantee <> c.relowner
    AND n.nspname <> 'information_schema' AND left(n.nspname, 3) <> 'pg_'
UNION ALL
SELECT 'relation', c.oid, t.attname, a.grantor, a.grantee, a.privilege_type, a.is_grantable
FROM pg_attribute AS t JOIN pg_class AS c ON c.oid = t.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace,
    aclexplode(t.attacl) AS a
WHERE NOT t.attisdropped AND t.attacl IS NOT NULL AND a.grantee <> c.relowner
    AND n.nspname <> 'information_schema' AND left(n.nspname, 3) <> 'pg_'
UNION ALL
SELECT 'routine', p.oid, NULL, a.grantor, a.grantee, a.privilege_type, a.is_grantable
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace,
    aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
WHERE a.grantee <> p.proowner AND n.nspname <> 'information_schema' AND left(n.nspname, 3) <> 'pg_'
UNION ALL
SELECT 'type', t.oid, NULL, a.grantor, a.grantee, a.privilege_type, a.is_grantable
FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace, aclexplode(t.typacl) AS a
WHERE t.typacl IS NOT NULL AND a.grantee <> t.typowner
    AND n.nspname <> 'information_schema' AND left(n.nspname, 3) <> 'pg_'
UNION ALL
SELECT 'schema', n.oid, NULL, a.grantor, a.grantee, a.privilege_type, a.is_grantable
FROM pg_namespace AS n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
WHERE a.grantee <> n.nspowner AND n.nspname <> 'information_schema' AND left(n.nspname, 3) <> 'pg_'
UNION ALL
SELECT 'database', d.oid, NULL, a.grantor, a.grantee, a.privilege_type, a.is_grantable
FROM pg_database AS d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
WHERE a.grantee <> d.datdba";

/// What an extension's objects had when it was created: `pg_init_privs`, else the default.
pub const INITIAL: &str = "SELECT 'relation', c.oid, a.grantee, a.privilege_type
FROM pg_depend AS e JOIN pg_class AS c ON c.oid = e.objid
    LEFT JOIN pg_init_privs AS i ON i.classoid = e.classid AND i.objoid = c.oid AND i.objsubid = 0,
    aclexplode(coalesce(i.initprivs, acldefault(CASE c.relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r'::\"char\" END, c.relowner))) AS a
WHERE e.classid = 'pg_class'::regclass AND e.deptype = 'e' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
UNION ALL
SELECT 'routine', p.oid, a.grantee, a.privilege_type
FROM pg_depend AS e JOIN pg_proc AS p ON p.oid = e.objid
    LEFT JOIN pg_init_privs AS i ON i.classoid = e.classid AND i.objoid = p.oid AND i.objsubid = 0,
    aclexplode(coalesce(i.initprivs, acldefault('f', p.proowner))) AS a
WHERE e.classid = 'pg_proc'::regclass AND e.deptype = 'e'
UNION ALL
SELECT 'type', t.oid, a.grantee, a.privilege_type
FROM pg_depend AS e JOIN pg_type AS t ON t.oid = e.objid
    LEFT JOIN pg_init_privs AS i ON i.classoid = e.classid AND i.objoid = t.oid AND i.objsubid = 0,
    aclexplode(coalesce(i.initprivs, acldefault('T', t.typowner))) AS a
WHERE e.classid = 'pg_type'::regclass AND e.deptype = 'e'
UNION ALL
SELECT 'schema', n.oid, a.grantee, a.privilege_type
FROM pg_depend AS e JOIN pg_namespace AS n ON n.oid = e.objid
    LEFT JOIN pg_init_privs AS i ON i.classoid = e.classid AND i.objoid = n.oid AND i.objsubid = 0,
    aclexplode(coalesce(i.initprivs, acldefault('n', n.nspowner))) AS a
WHERE e.classid = 'pg_namespace'::regclass AND e.deptype = 'e'";

/// Entries of what is in no schema, and of the system's own objects as far as PostgreSQL did not give them itself.
///
/// `initdb` makes `information_schema` after it has written down the initial privileges: there everybody reads.
pub const NAMED_ACL: &str = "SELECT 'LANGUAGE', NULL, l.lanname, NULL, NULL, a.grantor, a.grantee, a.privilege_type, l.lanowner
FROM pg_language AS l, aclexplode(l.lanacl) AS a
WHERE l.lanacl IS NOT NULL AND a.grantee <> l.lanowner AND (a.grantee <> 0 OR NOT l.lanpltrusted)
UNION ALL
SELECT 'FOREIGN DATA WRAPPER', NULL, w.fdwname, NULL, NULL, a.grantor, a.grantee, a.privilege_type, w.fdwowner
FROM pg_foreign_data_wrapper AS w, aclexplode(w.fdwacl) AS a
WHERE w.fdwacl IS NOT NULL AND a.grantee <> w.fdwowner
UNION ALL
SELECT 'FOREIGN SERVER', NULL, s.srvname, NULL, NULL, a.grantor, a.grantee, a.privilege_type, s.srvowner
FROM pg_foreign_server AS s, aclexplode(s.srvacl) AS a
WHERE s.srvacl IS NOT NULL AND a.grantee <> s.srvowner
UNION ALL
SELECT 'LARGE OBJECT', NULL, o.oid::text, NULL, NULL, a.grantor, a.grantee, a.privilege_type, o.lomowner
FROM pg_largeobject_metadata AS o, aclexplode(o.lomacl) AS a
WHERE o.lomacl IS NOT NULL AND a.grantee <> o.lomowner
UNION ALL
SELECT 'TABLESPACE', NULL, t.spcname, NULL, NULL, a.grantor, a.grantee, a.privilege_type, t.spcowner
FROM pg_tablespace AS t, aclexplode(t.spcacl) AS a
WHERE t.spcacl IS NOT NULL AND a.grantee <> t.spcowner
UNION ALL
SELECT 'TABLE', n.nspname, c.relname, NULL, NULL, a.grantor, a.grantee, a.privilege_type, c.relowner
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace, aclexplode(c.relacl) AS a
WHERE n.nspname IN ('pg_catalog', 'information_schema') AND c.relacl IS NOT NULL AND a.grantee <> c.relowner
    AND NOT (n.nspname = 'information_schema' AND a.grantee = 0 AND a.privilege_type = 'SELECT')
    AND NOT EXISTS (SELECT FROM pg_init_privs AS i, aclexplode(i.initprivs) AS b
                    WHERE i.classoid = 'pg_class'::regclass AND i.objoid = c.oid AND i.objsubid = 0
                        AND b.grantee = a.grantee AND b.privilege_type = a.privilege_type)
UNION ALL
SELECT 'TABLE', n.nspname, c.relname, NULL, t.attname, a.grantor, a.grantee, a.privilege_type, c.relowner
FROM pg_attribute AS t JOIN pg_class AS c ON c.oid = t.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace,
    aclexplode(t.attacl) AS a
WHERE n.nspname IN ('pg_catalog', 'information_schema') AND t.attacl IS NOT NULL AND a.grantee <> c.relowner
    AND NOT EXISTS (SELECT FROM pg_init_privs AS i, aclexplode(i.initprivs) AS b
                    WHERE i.classoid = 'pg_class'::regclass AND i.objoid = c.oid AND i.objsubid = t.attnum
                        AND b.grantee = a.grantee AND b.privilege_type = a.privilege_type)
UNION ALL
SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, n.nspname, p.proname, oidvectortypes(p.proargtypes), NULL,
    a.grantor, a.grantee, a.privilege_type, p.proowner
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace, aclexplode(p.proacl) AS a
WHERE n.nspname IN ('pg_catalog', 'information_schema') AND p.proacl IS NOT NULL AND a.grantee <> p.proowner
    AND NOT EXISTS (SELECT FROM aclexplode(coalesce(
                        (SELECT i.initprivs FROM pg_init_privs AS i
                         WHERE i.classoid = 'pg_proc'::regclass AND i.objoid = p.oid AND i.objsubid = 0),
                        acldefault('f', p.proowner))) AS b
                    WHERE b.grantee = a.grantee AND b.privilege_type = a.privilege_type)
UNION ALL
SELECT 'SCHEMA', NULL, n.nspname, NULL, NULL, a.grantor, a.grantee, a.privilege_type, n.nspowner
FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
WHERE n.nspname IN ('pg_catalog', 'information_schema') AND n.nspacl IS NOT NULL AND a.grantee <> n.nspowner
    AND NOT (n.nspname = 'information_schema' AND a.grantee = 0 AND a.privilege_type = 'USAGE')
    AND NOT EXISTS (SELECT FROM pg_init_privs AS i, aclexplode(i.initprivs) AS b
                    WHERE i.classoid = 'pg_namespace'::regclass AND i.objoid = n.oid AND i.objsubid = 0
                        AND b.grantee = a.grantee AND b.privilege_type = a.privilege_type)";

/// From 15 on. A parameter has no owner; what the bootstrap superuser has of it is no grant.
pub const PARAMETERS_15: &str =
    "SELECT 'PARAMETER', NULL, p.parname, NULL, NULL, a.grantor, a.grantee, a.privilege_type, 10
FROM pg_parameter_acl AS p, aclexplode(p.paracl) AS a
WHERE a.grantee <> 10";

pub const DEFAULTS: &str = "SELECT d.defaclrole, d.defaclnamespace, d.defaclobjtype, a.grantee, a.privilege_type
FROM pg_default_acl AS d LEFT JOIN LATERAL aclexplode(d.defaclacl) AS a ON true";

pub const PARTITIONS: &str = "SELECT inhparent, inhrelid FROM pg_inherits";

/// What a rule or view refers to. `ev_type`: 1 is SELECT, 2 UPDATE, 3 INSERT, 4 DELETE.
pub const REWRITES: &str = "SELECT DISTINCT r.ev_class, r.rulename, r.ev_type, d.refobjid
FROM pg_rewrite AS r JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class AND r.ev_class >= 16384 AND r.ev_enabled <> 'D'
ORDER BY r.ev_class, r.rulename, d.refobjid";

/// What the actions of rules say; views' own rules are their definition.
pub const RULES: &str = "SELECT r.ev_class, r.rulename, pg_get_ruledef(r.oid)
FROM pg_rewrite AS r
WHERE r.ev_class >= 16384 AND r.rulename <> '_RETURN'";

pub const POLICIES: &str = "SELECT p.polrelid, p.polname, p.polcmd, p.polpermissive, array_to_string(p.polroles, ' '),
    pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)
FROM pg_policy AS p";

/// `tgtype`: 1 row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate, 64 instead.
pub const TRIGGERS: &str =
    "SELECT t.tgrelid, t.tgname, t.tgfoid, t.tgtype, t.tgenabled, t.tgqual IS NOT NULL, t.tgattr::text <> ''
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND c.relnamespace <> 'pg_catalog'::regnamespace";

/// Foreign keys from one schema to another. Those of partitions come with their parent's.
pub const FOREIGN_KEYS: &str =
    "SELECT k.conname, k.conrelid, k.confrelid, k.confdeltype, k.confupdtype, pg_get_constraintdef(k.oid)
FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_class AS f ON f.oid = k.confrelid
WHERE k.contype = 'f' AND k.conparentid = 0 AND c.relnamespace <> f.relnamespace";

pub const SETTINGS: &str = "SELECT s.setdatabase, s.setrole, c.setting
FROM pg_db_role_setting AS s, unnest(s.setconfig) AS c(setting)";

pub const SERVERS: &str = "SELECT s.oid, s.srvname, w.fdwname, array_to_string(s.srvoptions, E'\\n')
FROM pg_foreign_server AS s JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw";

/// The view shows the options to those who may see them.
pub const USER_MAPPINGS: &str = "SELECT srvid, umuser, array_to_string(umoptions, E'\\n') FROM pg_user_mappings";

pub const FOREIGN_TABLES: &str = "SELECT ftrelid, ftserver, array_to_string(ftoptions, E'\\n') FROM pg_foreign_table";

/// How a relation comes to be published: by itself, with its schema, or with everything.
pub const PUBLICATIONS_14: &str =
    "SELECT p.pubname, p.pubowner, CASE WHEN p.puballtables THEN 'all' ELSE 'table' END, r.prrelid
FROM pg_publication AS p LEFT JOIN pg_publication_rel AS r ON r.prpubid = p.oid
WHERE p.puballtables OR r.prrelid IS NOT NULL";

pub const PUBLICATIONS_15: &str =
    "SELECT p.pubname, p.pubowner, CASE WHEN p.puballtables THEN 'all' ELSE 'table' END, r.prrelid
FROM pg_publication AS p LEFT JOIN pg_publication_rel AS r ON r.prpubid = p.oid
WHERE p.puballtables OR r.prrelid IS NOT NULL
UNION ALL
SELECT p.pubname, p.pubowner, 'schema', n.pnnspid
FROM pg_publication AS p JOIN pg_publication_namespace AS n ON n.pnpubid = p.oid";

/// With what only some may read: how it connects.
pub const SUBSCRIPTIONS: &str = "SELECT s.subname, s.subowner, s.subconninfo, r.srrelid
FROM pg_subscription AS s LEFT JOIN pg_subscription_rel AS r ON r.srsubid = s.oid
WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

pub const SUBSCRIPTIONS_UNREAD: &str = "SELECT s.subname, s.subowner, NULL, r.srrelid
FROM pg_subscription AS s LEFT JOIN pg_subscription_rel AS r ON r.srsubid = s.oid
WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

pub const EVENT_TRIGGERS: &str = "SELECT e.evtname, e.evtowner, p.oid, n.nspname, p.proname, p.proowner
FROM pg_event_trigger AS e JOIN pg_proc AS p ON p.oid = e.evtfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE e.evtenabled <> 'D'";

/// Comments on what is not the system's own.
pub const COMMENTS: &str = "SELECT i.type, i.identity, d.description
FROM pg_description AS d, pg_identify_object(d.classoid, d.objoid, d.objsubid) AS i
WHERE d.objoid >= 16384
UNION ALL
SELECT i.type, i.identity, d.description
FROM pg_shdescription AS d, pg_identify_object(d.classoid, d.objoid, 0) AS i
WHERE d.objoid >= 16384";

/// What roles own, of every catalog, here and (unnamed) in other databases. The roles stand where `{roles}` is.
pub const OWNED: &str = "SELECT d.refobjid, d.dbid, i.type, i.identity, count(*)
FROM pg_shdepend AS d
    JOIN pg_roles AS r ON r.oid = d.refobjid
    LEFT JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) AS i
        ON d.dbid = 0 OR d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o' AND r.rolname IN ({roles})
    AND NOT EXISTS (SELECT FROM pg_depend AS o JOIN pg_class AS c ON c.oid = o.objid
                    WHERE o.classid = d.classid AND o.objid = d.objid AND o.classid = 'pg_class'::regclass
                        AND c.relkind = 'S' AND o.refclassid = 'pg_class'::regclass AND o.deptype IN ('a', 'i')
                        AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4";
