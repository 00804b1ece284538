//! What is there: the part of the catalogs that a declaration speaks of, as of one snapshot.
//!
//! Tried on PostgreSQL 14 to 18. ACLs are read by `aclexplode`, with the built-in default where none is stored; see
//! <https://www.postgresql.org/docs/current/ddl-priv.html> and <https://www.postgresql.org/docs/current/catalogs.html>.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_postgres::{Answer, PgError, Session};

use super::model::{Kind, Object, Privilege, Table};
use super::write::literal;

/// A grantee that is every role.
pub const PUBLIC: &str = "PUBLIC";

/// One entry of an ACL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub grantor: String,
    /// [`PUBLIC`] for everybody. Never the object's owner: what an owner has of its own is not managed.
    pub grantee: String,
    pub privilege: Privilege,
    pub grantable: bool,
}

/// Something with an owner and an ACL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    pub owner: String,
    pub acl: Vec<Entry>,
}

/// An object in a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub object: Object,
    pub owned: Owned,
    /// By column name.
    pub columns: BTreeMap<String, Vec<Entry>>,
    /// A sequence that belongs to a column: its owner follows the table's.
    pub follows: bool,
    pub row_security: bool,
    pub force: bool,
}

/// A role as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleState {
    pub login: bool,
    pub inherit: bool,
    /// Attributes that no declared role has: `SUPERUSER`, `BYPASSRLS`, ...
    pub attributes: BTreeSet<&'static str>,
    /// Settings of the role in every database, by name.
    pub settings: BTreeMap<String, String>,
    /// Settings of the role in this database.
    pub here: BTreeMap<String, String>,
    /// `None`: this session may not know.
    pub has_password: Option<bool>,
}

/// `role` has `member` as a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    pub role: String,
    pub member: String,
    pub grantor: String,
    pub admin: bool,
}

/// One entry of the default privileges.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefaultEntry {
    pub creator: String,
    /// `None`: in every schema.
    pub schema: Option<String>,
    /// `r`, `S`, `f` or `T`, as `pg_default_acl.defaclobjtype`.
    pub class: char,
    pub grantee: String,
    pub privilege: Privilege,
}

/// A policy of row-level security.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyState {
    pub table: Table,
    pub name: String,
    pub permissive: bool,
    /// `*`: all commands.
    pub command: char,
    pub roles: BTreeSet<String>,
    pub using: Option<String>,
    pub check: Option<String>,
}

/// A trigger that somebody wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerState {
    pub table: Table,
    pub name: String,
    /// `pg_trigger.tgenabled`: `A` is always.
    pub enabled: char,
    /// `pg_trigger.tgtype`.
    pub bits: i16,
    pub function: Table,
    pub arguments: Vec<String>,
}

/// What is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// `server_version_num`
    pub version: u32,
    pub database: String,
    pub database_owned: Owned,
    /// Who asks, and may change.
    pub operator: String,
    pub superuser: bool,
    pub may_create_roles: bool,
    pub roles: BTreeMap<String, RoleState>,
    pub memberships: Vec<Membership>,
    pub schemas: BTreeMap<String, Owned>,
    /// Of the schemas that were asked for, without what belongs to extensions.
    pub objects: Vec<Held>,
    pub defaults: BTreeSet<DefaultEntry>,
    /// Pairs of creator and class whose stored global default has no word of PUBLIC: `('f')` or `('T')`.
    pub closed_to_public: BTreeSet<(String, char)>,
    pub policies: Vec<PolicyState>,
    pub triggers: Vec<TriggerState>,
    /// Bodies of functions without arguments, by name.
    pub bodies: BTreeMap<Table, String>,
    /// Roles, neither declared nor superusers, with sessions in this database now.
    pub connected: BTreeSet<String>,
}

const SESSION: &str = "
SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.current_database(), current_user,
    r.rolsuper, r.rolcreaterole
FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user";

const ROLES: &str = "
SELECT r.rolname, r.rolcanlogin, r.rolinherit, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls
FROM pg_catalog.pg_roles AS r WHERE NOT pg_catalog.starts_with(r.rolname, 'pg_')";

const SETTINGS: &str = "
SELECT r.rolname, s.setdatabase <> 0, setting
FROM pg_catalog.pg_db_role_setting AS s
JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS setting
WHERE s.setdatabase = 0
   OR s.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";

const MEMBERSHIPS: &str = "
SELECT r.rolname, m.rolname, coalesce(g.rolname, ''), a.admin_option
FROM pg_catalog.pg_auth_members AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.roleid
JOIN pg_catalog.pg_roles AS m ON m.oid = a.member
LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = a.grantor";

const DATABASE: &str = "
SELECT pg_catalog.pg_get_userbyid(d.datdba), ACL
FROM pg_catalog.pg_database AS d
LEFT JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS a ON true
WHERE d.datname = pg_catalog.current_database()";

const SCHEMAS: &str = "
SELECT n.nspname, pg_catalog.pg_get_userbyid(n.nspowner), ACL
FROM pg_catalog.pg_namespace AS n
LEFT JOIN LATERAL pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) AS a
    ON a.grantee <> n.nspowner
WHERE n.nspname = ANY (NAMES)";

/// Sequences of identity columns (deptype `i`) and of serial columns (`a`) follow their table's owner.
const RELATIONS: &str = "
SELECT n.nspname, c.relname, c.relkind, pg_catalog.pg_get_userbyid(c.relowner), c.relrowsecurity, c.relforcerowsecurity,
    c.relkind = 'S' AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0
          AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')), ACL
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN LATERAL pg_catalog.aclexplode(coalesce(c.relacl,
    pg_catalog.acldefault(CASE WHEN c.relkind = 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))) AS a
    ON a.grantee <> c.relowner
WHERE n.nspname = ANY (NAMES) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname";

const COLUMNS: &str = "
SELECT n.nspname, c.relname, t.attname, ACL
FROM pg_catalog.pg_attribute AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL pg_catalog.aclexplode(t.attacl) AS a
WHERE n.nspname = ANY (NAMES) AND t.attacl IS NOT NULL AND NOT t.attisdropped AND a.grantee <> c.relowner";

const ROUTINES: &str = "
SELECT n.nspname, pg_catalog.format('%s(%s)', p.proname, pg_catalog.oidvectortypes(p.proargtypes)), p.prokind,
    pg_catalog.pg_get_userbyid(p.proowner), ACL
FROM pg_catalog.pg_proc AS p
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
LEFT JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a
    ON a.grantee <> p.proowner
WHERE n.nspname = ANY (NAMES)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
      WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1, 2";

/// Arrays and the row types of tables have no privileges of their own.
const TYPES: &str = "
SELECT n.nspname, t.typname, pg_catalog.pg_get_userbyid(t.typowner), ACL
FROM pg_catalog.pg_type AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
LEFT JOIN LATERAL pg_catalog.aclexplode(coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))) AS a
    ON a.grantee <> t.typowner
WHERE n.nspname = ANY (NAMES)
  AND (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND c.relkind = 'c'))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
      WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid AND d.deptype = 'e')
ORDER BY 1, 2";

const DEFAULTS: &str = "
SELECT pg_catalog.pg_get_userbyid(d.defaclrole), n.nspname, d.defaclobjtype, ACL
FROM pg_catalog.pg_default_acl AS d
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = d.defaclnamespace
LEFT JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) AS a ON a.grantee <> d.defaclrole
WHERE d.defaclnamespace = 0 OR n.nspname = ANY (NAMES)";

const POLICIES: &str = "
SELECT n.nspname, c.relname, p.polname, p.polpermissive, p.polcmd,
    (SELECT pg_catalog.string_agg(CASE WHEN o = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(o)::text END, E'\\n')
     FROM pg_catalog.unnest(p.polroles) AS o),
    pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)
FROM pg_catalog.pg_policy AS p
JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (NAMES)";

const TRIGGERS: &str = "
SELECT n.nspname, c.relname, t.tgname, t.tgenabled, t.tgtype, fn.nspname, f.proname,
    pg_catalog.encode(t.tgargs, 'escape')
FROM pg_catalog.pg_trigger AS t
JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_proc AS f ON f.oid = t.tgfoid
JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.pronamespace
WHERE n.nspname = ANY (NAMES) AND NOT t.tgisinternal";

const BODIES: &str = "
SELECT n.nspname, p.proname, p.prosrc
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = ANY (NAMES) AND p.pronargs = 0 AND p.prokind = 'f'";

const CONNECTED: &str = "
SELECT DISTINCT s.usename FROM pg_catalog.pg_stat_activity AS s
JOIN pg_catalog.pg_roles AS r ON r.oid = s.usesysid
WHERE s.datname = pg_catalog.current_database() AND NOT r.rolsuper";

/// What stands for an ACL's entry in the statements above.
const ACL: &str = "pg_catalog.pg_get_userbyid(a.grantor), \
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END, \
    a.privilege_type, a.is_grantable";

impl State {
    /// Reads it, for these schemas, in the caller's transaction. Sets its `search_path` to `pg_catalog`, so that types are
    /// named the same for everybody.
    ///
    /// # Errors
    /// If the server cannot be asked.
    pub async fn read(session: &Session, schemas: &BTreeSet<&str>) -> Result<Self, PgError> {
        let names: Vec<String> = schemas.iter().map(|name| literal(name)).collect();
        let names = format!("ARRAY[{}]::pg_catalog.name[]", names.join(", "));
        let text = [
            "SET LOCAL search_path = pg_catalog",
            SESSION,
            ROLES,
            SETTINGS,
            MEMBERSHIPS,
            DATABASE,
            SCHEMAS,
            RELATIONS,
            COLUMNS,
            ROUTINES,
            TYPES,
            DEFAULTS,
            POLICIES,
            TRIGGERS,
            BODIES,
            CONNECTED,
        ]
        .join(";\n")
        .replace("NAMES", &names)
        .replace("ACL\n", &format!("{ACL}\n"));
        let answers = session.simple(&text).await?;
        let mut state = Self::default();
        let readers: [fn(&mut Self, &Row<'_>); 15] = [
            Self::take_session,
            Self::take_role,
            Self::take_setting,
            Self::take_membership,
            Self::take_database,
            Self::take_schema,
            Self::take_relation,
            Self::take_column,
            Self::take_routine,
            Self::take_type,
            Self::take_default,
            Self::take_policy,
            Self::take_trigger,
            Self::take_body,
            Self::take_connected,
        ];
        for (answer, take) in answers.iter().skip(1).zip(readers) {
            for row in rows(answer) {
                take(&mut state, &row);
            }
        }
        if state.superuser {
            let with = session.simple("SELECT rolname FROM pg_catalog.pg_authid WHERE rolpassword IS NOT NULL").await?;
            let with: BTreeSet<&str> = with.iter().flat_map(rows).map(|row| row.text(0)).collect();
            for (name, role) in &mut state.roles {
                role.has_password = Some(with.contains(name.as_str()));
            }
        }
        Ok(state)
    }

    /// Whether the operator acts as a role: is it, inherits from it, or is a superuser.
    pub fn acts_as(&self, role: &str) -> bool {
        if self.superuser || self.operator == role {
            return true;
        }
        let mut seen = BTreeSet::new();
        let mut open = vec![self.operator.as_str()];
        while let Some(name) = open.pop() {
            if name == role {
                return true;
            }
            if seen.insert(name) {
                open.extend(self.memberships.iter().filter(|one| one.member == name).map(|one| one.role.as_str()));
            }
        }
        false
    }

    fn take_session(&mut self, row: &Row<'_>) {
        self.version = row.text(0).parse().unwrap_or_default();
        self.database = row.text(1).to_owned();
        self.operator = row.text(2).to_owned();
        self.superuser = row.truth(3);
        self.may_create_roles = self.superuser || row.truth(4);
    }

    fn take_role(&mut self, row: &Row<'_>) {
        let names = ["SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS"];
        let attributes = names.into_iter().enumerate().filter(|(at, _)| row.truth(3 + at)).map(|(_, name)| name);
        let role = RoleState {
            login: row.truth(1),
            inherit: row.truth(2),
            attributes: attributes.collect(),
            ..RoleState::default()
        };
        self.roles.insert(row.text(0).to_owned(), role);
    }

    fn take_setting(&mut self, row: &Row<'_>) {
        let Some(role) = self.roles.get_mut(row.text(0)) else { return };
        let Some((name, value)) = row.text(2).split_once('=') else { return };
        let settings = if row.truth(1) { &mut role.here } else { &mut role.settings };
        settings.insert(name.to_owned(), value.to_owned());
    }

    fn take_membership(&mut self, row: &Row<'_>) {
        self.memberships.push(Membership {
            role: row.text(0).to_owned(),
            member: row.text(1).to_owned(),
            grantor: row.text(2).to_owned(),
            admin: row.truth(3),
        });
    }

    fn take_database(&mut self, row: &Row<'_>) {
        self.database_owned.owner = row.text(0).to_owned();
        let owner = self.database_owned.owner.clone();
        self.database_owned.acl.extend(row.entry(1).filter(|entry| entry.grantee != owner));
    }

    fn take_schema(&mut self, row: &Row<'_>) {
        let schema = self.schemas.entry(row.text(0).to_owned()).or_default();
        schema.owner = row.text(1).to_owned();
        schema.acl.extend(row.entry(2));
    }

    /// Rows of one object come one after another.
    fn held(&mut self, object: Object, owner: &str) -> &mut Held {
        if self.objects.last().is_none_or(|last| last.object != object) {
            self.objects.push(Held {
                object,
                owned: Owned { owner: owner.to_owned(), acl: Vec::new() },
                columns: BTreeMap::new(),
                follows: false,
                row_security: false,
                force: false,
            });
        }
        self.objects.last_mut().expect("one was pushed if there was none")
    }

    fn take_relation(&mut self, row: &Row<'_>) {
        let kind = match row.text(2) {
            "v" => Kind::View,
            "m" => Kind::MaterializedView,
            "f" => Kind::ForeignTable,
            "S" => Kind::Sequence,
            _ => Kind::Table,
        };
        let object = Object { schema: row.text(0).to_owned(), name: row.text(1).to_owned(), kind };
        let held = self.held(object, row.text(3));
        held.row_security = row.truth(4);
        held.force = row.truth(5);
        held.follows = row.truth(6);
        held.owned.acl.extend(row.entry(7));
    }

    fn take_column(&mut self, row: &Row<'_>) {
        let found = self.objects.iter_mut().find(|held| {
            held.object.schema == row.text(0)
                && held.object.name == row.text(1)
                && (held.object.kind.is_relation() || held.object.kind == Kind::Sequence)
        });
        if let Some(held) = found {
            held.columns.entry(row.text(2).to_owned()).or_default().extend(row.entry(3));
        }
    }

    fn take_routine(&mut self, row: &Row<'_>) {
        let kind = if row.text(2) == "p" { Kind::Procedure } else { Kind::Function };
        let object = Object { schema: row.text(0).to_owned(), name: row.text(1).to_owned(), kind };
        self.held(object, row.text(3)).owned.acl.extend(row.entry(4));
    }

    fn take_type(&mut self, row: &Row<'_>) {
        let object = Object { schema: row.text(0).to_owned(), name: row.text(1).to_owned(), kind: Kind::Type };
        self.held(object, row.text(2)).owned.acl.extend(row.entry(3));
    }

    fn take_default(&mut self, row: &Row<'_>) {
        let (creator, schema) = (row.text(0).to_owned(), row.option(1).map(str::to_owned));
        let class = row.text(2).chars().next().unwrap_or('?');
        let entry = row.entry(3);
        if schema.is_none() {
            // A stored global default replaces the built-in one: without a word of PUBLIC it is closed to it.
            self.closed_to_public.insert((creator.clone(), class));
        }
        if let Some(entry) = entry {
            self.defaults.insert(DefaultEntry {
                creator,
                schema,
                class,
                grantee: entry.grantee,
                privilege: entry.privilege,
            });
        }
    }

    fn take_policy(&mut self, row: &Row<'_>) {
        self.policies.push(PolicyState {
            table: row.table(0),
            name: row.text(2).to_owned(),
            permissive: row.truth(3),
            command: row.text(4).chars().next().unwrap_or('*'),
            roles: row.text(5).lines().map(str::to_owned).collect(),
            using: row.option(6).map(str::to_owned),
            check: row.option(7).map(str::to_owned),
        });
    }

    fn take_trigger(&mut self, row: &Row<'_>) {
        self.triggers.push(TriggerState {
            table: row.table(0),
            name: row.text(2).to_owned(),
            enabled: row.text(3).chars().next().unwrap_or('O'),
            bits: row.text(4).parse().unwrap_or_default(),
            function: row.table(5),
            arguments: row.text(7).split_terminator("\\000").map(str::to_owned).collect(),
        });
    }

    fn take_body(&mut self, row: &Row<'_>) {
        self.bodies.insert(row.table(0), row.text(2).to_owned());
    }

    fn take_connected(&mut self, row: &Row<'_>) {
        self.connected.insert(row.text(0).to_owned());
    }
}

/// A row of text values.
struct Row<'a>(&'a [Option<String>]);

fn rows(answer: &Answer) -> impl Iterator<Item = Row<'_>> {
    answer.rows.iter().map(|row| Row(row))
}

impl<'a> Row<'a> {
    fn option(&self, at: usize) -> Option<&'a str> {
        self.0.get(at).and_then(|value| value.as_deref())
    }

    fn text(&self, at: usize) -> &'a str {
        self.option(at).unwrap_or_default()
    }

    fn truth(&self, at: usize) -> bool {
        self.text(at) == "t"
    }

    fn table(&self, at: usize) -> Table {
        Table { schema: self.text(at).to_owned(), name: self.text(at + 1).to_owned() }
    }

    /// The ACL entry whose four values begin here; none for an empty ACL, or a privilege of a version to come.
    fn entry(&self, at: usize) -> Option<Entry> {
        Some(Entry {
            grantor: self.option(at)?.to_owned(),
            grantee: self.option(at + 1)?.to_owned(),
            privilege: Privilege::parse(self.option(at + 2)?)?,
            grantable: self.truth(at + 3),
        })
    }
}
