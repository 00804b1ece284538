//! The audit: a healthy database gives no finding; every way by which something leaks, planted alone, is named by role,
//! object and path; and what mends it ends it.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::civil::Date;
use pgrunbook_document::Severity;
use pgrunbook_engine::RunEnd;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared, shared_of};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::audit::{Audit, Finding, RULES, audit, audit_within};
use pgrunbook_steps::topology::{self, Topology};

use crate::bench::{Bench, failure};
use crate::topology::{Land, TABLES, TWO};

/// The declaration; `{p}` is the prefix that makes a test's roles its own.
const DECLARED: &str = r#"
append_only = ["ledger.entries"]
[database]
owner = "{p}_owner"
legacy = ["{p}_legacy*"]
[tenants]
list = ["health", "general"]
[schemas]
shared = { owner_rights = ["approved_view"] }
ledger = {}
"{tenant}" = {}
[access.approved]
select = ["registry", "contacts", "approved_view"]
insert = ["contacts"]
update = ["contacts(phone)"]
execute = ["register(text, integer)"]
[access.booked]
select = ["lots", "entries"]
insert = ["lots", "entries"]
update = ["lots"]
delete = ["lots"]
execute = ["current_tenant()"]
[roles."{p}_{tenant}_app"]
kind = "runtime"
search_path = ["{tenant}", "shared", "public"]
access = { "{tenant}" = "all", shared = "approved", ledger = "booked" }
[roles.{p}_reader]
kind = "read-only"
member_of = ["{p}_team"]
[roles.{p}_team]
kind = "group"
access = { shared = "select" }
[roles.{p}_migrator]
kind = "migration"
[rls.tenant]
tables = ["ledger.lots"]
column = "tenant"
setting = "app.tenant"
type = "text"
guard = "ledger.current_tenant"
without = "error"
roles = ["{p}_{tenant}_app"]
[[exception]]
role = "{p}_health_app"
on = "general.events"
may = ["select"]
why = "provenance"
until = 2026-12-31
[retired]
roles = ["{p}_old"]
schemas = ["attic"]
"#;

/// What a careful person writes for it, by hand.
const HEALTHY: &str = r#"
CREATE ROLE {p}_owner NOLOGIN;
CREATE ROLE {p}_migrator LOGIN IN ROLE {p}_owner;
CREATE ROLE {p}_team NOLOGIN;
CREATE ROLE {p}_reader LOGIN IN ROLE {p}_team;
CREATE ROLE {p}_health_app LOGIN;
CREATE ROLE {p}_general_app LOGIN;
CREATE ROLE {p}_old NOLOGIN;
GRANT CONNECT ON DATABASE {d} TO {p}_migrator, {p}_reader, {p}_health_app, {p}_general_app;
ALTER ROLE {p}_migrator IN DATABASE {d} SET role = '{p}_owner';
ALTER ROLE {p}_health_app SET search_path = health, shared, public;
ALTER ROLE {p}_general_app SET search_path = general, shared, public;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE {p}_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE {p}_owner REVOKE USAGE ON TYPES FROM PUBLIC;
CREATE SCHEMA shared AUTHORIZATION {p}_owner;
CREATE SCHEMA ledger AUTHORIZATION {p}_owner;
CREATE SCHEMA health AUTHORIZATION {p}_owner;
CREATE SCHEMA general AUTHORIZATION {p}_owner;
CREATE SCHEMA attic AUTHORIZATION {p}_owner;
SET ROLE {p}_owner;
GRANT USAGE ON SCHEMA shared TO {p}_team, {p}_health_app, {p}_general_app;
GRANT USAGE ON SCHEMA ledger TO {p}_health_app, {p}_general_app;
GRANT USAGE ON SCHEMA health TO {p}_health_app;
GRANT USAGE ON SCHEMA general TO {p}_general_app, {p}_health_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA shared GRANT SELECT ON TABLES TO {p}_team;
ALTER DEFAULT PRIVILEGES IN SCHEMA health GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {p}_health_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA health GRANT SELECT, USAGE ON SEQUENCES TO {p}_health_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA health GRANT EXECUTE ON FUNCTIONS TO {p}_health_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA health GRANT USAGE ON TYPES TO {p}_health_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA general GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {p}_general_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA general GRANT SELECT, USAGE ON SEQUENCES TO {p}_general_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA general GRANT EXECUTE ON FUNCTIONS TO {p}_general_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA general GRANT USAGE ON TYPES TO {p}_general_app;

CREATE TABLE shared.registry (name text PRIMARY KEY);
CREATE TABLE shared.contacts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, phone text, note text);
CREATE TABLE shared.secrets (key text PRIMARY KEY, value text);
CREATE VIEW shared.approved_view AS SELECT count(*) AS n FROM general.notes_of_all;
CREATE FUNCTION shared.register(name text, age integer) RETURNS void LANGUAGE plpgsql
    AS 'BEGIN INSERT INTO shared.registry VALUES (name); END';
GRANT SELECT ON shared.registry, shared.contacts, shared.approved_view TO {p}_health_app, {p}_general_app;
GRANT INSERT, UPDATE (phone) ON shared.contacts TO {p}_health_app, {p}_general_app;
GRANT EXECUTE ON FUNCTION shared.register(text, integer) TO {p}_health_app, {p}_general_app;

CREATE TYPE health.mood AS ENUM ('good', 'bad');
CREATE TABLE health.notes (id serial PRIMARY KEY, contact int REFERENCES shared.contacts (id), mood health.mood);
CREATE VIEW health.today AS SELECT id, mood FROM health.notes;
CREATE FUNCTION health.touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON health.notes FOR EACH ROW EXECUTE FUNCTION health.touched();
CREATE TABLE general.events (id bigint PRIMARY KEY, what text);
CREATE FUNCTION general.tidy() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = general, pg_temp
    AS 'DELETE FROM general.events';
GRANT SELECT ON general.events TO {p}_health_app;
COMMENT ON TABLE general.events IS 'what happened; the password is in the vault';

CREATE FUNCTION ledger.current_tenant() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF nullif(current_setting('app.tenant', true), '') IS NULL THEN
        RAISE EXCEPTION 'no tenant is set' USING ERRCODE = 'P0001';
    END IF;
    RETURN current_setting('app.tenant');
END $$;
CREATE TABLE ledger.lots (id bigint, tenant text NOT NULL, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
CREATE TABLE ledger.lots_a PARTITION OF ledger.lots FOR VALUES IN ('a');
CREATE POLICY tenant_tenant ON ledger.lots TO {p}_health_app, {p}_general_app
    USING (tenant = ledger.current_tenant()) WITH CHECK (tenant = ledger.current_tenant());
ALTER TABLE ledger.lots ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger.lots FORCE ROW LEVEL SECURITY;
ALTER TABLE ledger.lots_a ENABLE ROW LEVEL SECURITY;
CREATE TABLE ledger.entries (id bigint PRIMARY KEY, amount int);
CREATE FUNCTION ledger.refuse() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION '% of % is refused', tg_op, tg_relid::regclass; END $$;
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON ledger.entries FOR EACH ROW EXECUTE FUNCTION ledger.refuse();
CREATE TRIGGER keep_all BEFORE TRUNCATE ON ledger.entries FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse();
ALTER TABLE ledger.entries ENABLE ALWAYS TRIGGER keep;
ALTER TABLE ledger.entries ENABLE ALWAYS TRIGGER keep_all;
GRANT SELECT, INSERT ON ledger.lots, ledger.entries TO {p}_health_app, {p}_general_app;
GRANT UPDATE, DELETE ON ledger.lots TO {p}_health_app, {p}_general_app;
GRANT EXECUTE ON FUNCTION ledger.current_tenant() TO {p}_health_app, {p}_general_app;
RESET ROLE;
"#;

/// The tables that other statements of [`HEALTHY`] stand on.
const FIRST: &str = "CREATE TABLE general.notes_of_all (id int PRIMARY KEY, text text);
CREATE TABLE general.notes (id int PRIMARY KEY, text text);
CREATE SEQUENCE general.counter;
";

/// A database of its own with everything that is declared, and a session of its superuser.
struct World {
    prefix: String,
    database: String,
    session: Session,
    topology: Topology,
    major: u32,
    _folder: tempfile::TempDir,
}

async fn cluster() -> Sandbox {
    shared("audit-tests", SandboxOptions::default()).await.unwrap()
}

/// The day of every test.
fn today() -> Date {
    Date::constant(2026, 11, 21)
}

impl World {
    async fn new() -> Self {
        Self::on(&cluster().await).await
    }

    async fn on(cluster: &Sandbox) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() % 1_000_000;
        let prefix = format!("a{}_{now}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let database = format!("{prefix}_db");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("topology.toml"), DECLARED.replace("{p}", &prefix)).unwrap();
        let topology = topology::load(folder.path(), "default").unwrap();
        let options = cluster.options();
        let session = Session::connect(&options, "test").await.unwrap();
        // Closed from its first moment: to others it would be a database that everybody may connect to.
        closed(&session, &database).await;
        let session = Session::connect(&options.with_database(&database), "test").await.unwrap();
        let world = Self { prefix, database, session, topology, major: cluster.major(), _folder: folder };
        // The view that reads another schema needs its table before it.
        let healthy =
            HEALTHY.replace("\nCREATE TABLE shared.registry", &format!("\n{FIRST}CREATE TABLE shared.registry"));
        world.execute(&healthy).await;
        world
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{p}", &self.prefix).replace("{d}", &self.database)
    }

    async fn execute(&self, sql: &str) {
        let sql = self.fill(sql);
        self.session.execute(&sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    async fn audit(&self) -> Audit {
        audit(&self.session, &self.topology, today()).await.unwrap()
    }

    /// Plants it, looks, mends it, and looks again; nothing stays.
    async fn check(&self, plant: &Plant) {
        if plant.since > self.major || plant.until < self.major {
            return;
        }
        let name = plant.sql;
        self.execute("BEGIN").await;
        self.execute(plant.sql).await;
        let audited = audit_within(&self.session, &self.topology, today()).await.unwrap();
        let (role, object, path) = (self.fill(plant.role), self.fill(plant.object), self.fill(plant.path));
        let is = |one: &Finding| {
            one.rule == plant.rule && one.role == role && one.object == object && one.path.contains(&path)
        };
        let shown = || self.fill(&format!("{name}\n{:#?}", audited.findings));
        let Some(found) = audited.findings.iter().find(|one| is(one)) else {
            panic!("no {} of {role} on {object} by {path:?}: {}", plant.rule, shown());
        };
        assert_eq!(found.severity, plant.severity, "{}", shown());
        match (&found.mend, plant.mends) {
            (Some(mend), true) => {
                self.execute(mend).await;
                let again = audit_within(&self.session, &self.topology, today()).await.unwrap();
                let rest: Vec<_> = again.findings.iter().filter(|one| is(one)).collect();
                assert!(rest.is_empty(), "{mend} did not mend it: {rest:#?}");
            }
            (None, false) => {}
            (mend, _) => panic!("mends: {}, and there is {mend:?}: {}", plant.mends, shown()),
        }
        self.execute("ROLLBACK").await;
    }
}

/// A database that nobody may connect to but superusers, and whom it is granted.
async fn closed(session: &Session, name: &str) {
    let make = [
        format!("CREATE DATABASE {name} ALLOW_CONNECTIONS false"),
        format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
        format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"),
    ];
    for sql in make {
        session.execute(&sql).await.unwrap();
    }
}

/// A leak, and how it is told.
struct Plant {
    sql: &'static str,
    rule: &'static str,
    severity: Severity,
    role: &'static str,
    object: &'static str,
    /// Part of the path.
    path: &'static str,
    /// Whether there is SQL that ends it.
    mends: bool,
    /// Versions that have it.
    since: u32,
    until: u32,
}

impl Plant {
    const fn since(mut self, major: u32) -> Self {
        self.since = major;
        self
    }

    const fn until(mut self, major: u32) -> Self {
        self.until = major;
        self
    }

    const fn unmended(mut self) -> Self {
        self.mends = false;
        self
    }

    const fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    const fn note(mut self) -> Self {
        self.severity = Severity::Note;
        self
    }
}

const fn plant(
    sql: &'static str,
    rule: &'static str,
    role: &'static str,
    object: &'static str,
    path: &'static str,
) -> Plant {
    let severity = Severity::Error;
    Plant { sql, rule, severity, role, object, path, mends: true, since: 0, until: u32::MAX }
}

/// Grants, by whatever way they are had.
const GRANTS: &[Plant] = &[
    plant("GRANT SELECT ON general.events TO {p}_old; GRANT USAGE ON SCHEMA general TO {p}_old", "table-grant", "{p}_old", "general.events", "`{p}_old` -> SELECT on `general.events`"),
    plant("GRANT SELECT, INSERT ON general.notes TO {p}_health_app", "table-grant", "{p}_health_app", "general.notes", "`{p}_health_app` -> SELECT, INSERT on `general.notes`"),
    plant("GRANT SELECT ON health.notes TO {p}_general_app", "table-grant", "{p}_general_app", "health.notes", "SELECT on `health.notes`").warning(),
    plant("GRANT SELECT ON general.notes TO PUBLIC", "table-grant", "PUBLIC", "general.notes", "`PUBLIC` -> SELECT on `general.notes`"),
    plant("GRANT TRUNCATE, TRIGGER ON health.notes TO {p}_health_app", "table-grant", "{p}_health_app", "health.notes", "TRUNCATE, TRIGGER"),
    plant("GRANT MAINTAIN ON general.notes TO {p}_health_app", "table-grant", "{p}_health_app", "general.notes", "MAINTAIN").since(17),
    plant("GRANT SELECT ON shared.secrets TO {p}_health_app", "table-grant", "{p}_health_app", "shared.secrets", "SELECT on `shared.secrets`"),
    plant("CREATE MATERIALIZED VIEW general.held AS SELECT 1 AS n; GRANT SELECT ON general.held TO {p}_health_app", "table-grant", "{p}_health_app", "general.held", "SELECT on `general.held`"),
    plant("GRANT SELECT ON ledger.lots_a TO {p}_health_app", "table-grant", "{p}_health_app", "ledger.lots_a", "SELECT on `ledger.lots_a`"),
    plant("GRANT SELECT (text) ON general.notes TO {p}_health_app", "column-grant", "{p}_health_app", "general.notes(text)", "SELECT on `general.notes(text)`"),
    plant("GRANT UPDATE (note) ON shared.contacts TO {p}_health_app", "column-grant", "{p}_health_app", "shared.contacts(note)", "UPDATE on `shared.contacts(note)`"),
    plant("GRANT USAGE ON SEQUENCE general.counter TO {p}_health_app", "sequence-grant", "{p}_health_app", "general.counter", "USAGE on `general.counter`"),
    plant("GRANT EXECUTE ON FUNCTION general.tidy() TO {p}_health_app", "function-grant", "{p}_health_app", "general.tidy()", "EXECUTE on `general.tidy()`"),
    plant("CREATE FUNCTION general.add(a int, b text) RETURNS int LANGUAGE sql AS 'SELECT 1'", "function-grant", "PUBLIC", "general.add(integer, text)", "`PUBLIC` -> EXECUTE on `general.add(integer, text)`"),
    plant("CREATE PROCEDURE general.run() LANGUAGE sql AS 'SELECT 1'", "function-grant", "PUBLIC", "general.run()", "EXECUTE on `general.run()`"),
    plant("CREATE TYPE general.kind AS ENUM ('x'); GRANT USAGE ON TYPE general.kind TO {p}_health_app", "type-grant", "{p}_health_app", "general.kind", "USAGE on `general.kind`").warning(),
    plant("GRANT USAGE ON SCHEMA health TO {p}_general_app", "schema-grant", "{p}_general_app", "health", "USAGE on `health`"),
    plant("GRANT USAGE ON SCHEMA health TO PUBLIC", "schema-grant", "PUBLIC", "health", "`PUBLIC` -> USAGE on `health`"),
    plant("GRANT CREATE ON SCHEMA health TO {p}_health_app", "schema-grant", "{p}_health_app", "health", "CREATE on `health`"),
    plant("GRANT USAGE ON SCHEMA attic TO {p}_health_app", "schema-grant", "{p}_health_app", "attic", "USAGE on `attic`"),
    plant("GRANT CREATE ON SCHEMA public TO PUBLIC", "schema-grant", "PUBLIC", "public", "CREATE on `public`").warning(),
    plant("GRANT CONNECT ON DATABASE {d} TO PUBLIC", "database-grant", "PUBLIC", "database {d}", "CONNECT on database").warning(),
    plant("GRANT TEMPORARY ON DATABASE {d} TO {p}_health_app", "database-grant", "{p}_health_app", "database {d}", "TEMPORARY on database").warning(),
    plant("GRANT CREATE ON DATABASE {d} TO {p}_health_app", "database-grant", "{p}_health_app", "database {d}", "CREATE on database"),
    plant("GRANT CONNECT ON DATABASE {d} TO {p}_old", "database-grant", "{p}_old", "database {d}", "CONNECT on database"),
    plant("SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO {p}_health_app", "large-object-grant", "{p}_health_app", "large object 4711", "SELECT on `large object 4711`"),
    plant("GRANT USAGE ON LANGUAGE plpgsql TO {p}_health_app", "language-grant", "{p}_health_app", "language plpgsql", "USAGE on `language plpgsql`").warning(),
    plant("GRANT CREATE ON TABLESPACE pg_default TO {p}_health_app", "tablespace-grant", "{p}_health_app", "tablespace pg_default", "CREATE on").warning(),
    plant("GRANT SELECT ON pg_authid TO {p}_health_app", "system-grant", "{p}_health_app", "pg_catalog.pg_authid", "SELECT on `pg_catalog.pg_authid`"),
    plant("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {p}_health_app", "system-grant", "{p}_health_app", "pg_catalog.pg_read_file(text)", "EXECUTE on"),
    plant("GRANT SELECT (rolpassword) ON pg_authid TO PUBLIC", "system-grant", "PUBLIC", "pg_catalog.pg_authid(rolpassword)", "SELECT on"),
    plant("GRANT SET ON PARAMETER session_replication_role TO {p}_health_app", "parameter-grant", "{p}_health_app", "parameter session_replication_role", "SET on `parameter session_replication_role`").since(15),
    plant("GRANT ALTER SYSTEM ON PARAMETER log_statement TO PUBLIC", "parameter-grant", "PUBLIC", "parameter log_statement", "ALTER SYSTEM on").since(15),
    plant("GRANT SELECT ON health.notes TO {p}_health_app WITH GRANT OPTION", "grant-option", "{p}_health_app", "health.notes", "SELECT on `health.notes` WITH GRANT OPTION"),
    plant("GRANT SELECT ON shared.registry TO {p}_health_app WITH GRANT OPTION; SET ROLE {p}_health_app; GRANT SELECT ON shared.registry TO {p}_general_app; RESET ROLE", "grant-option", "{p}_health_app", "shared.registry", "WITH GRANT OPTION"),
    plant("GRANT SELECT ON general.notes TO {p}_health_app WITH GRANT OPTION; SET ROLE {p}_health_app; GRANT SELECT ON general.notes TO {p}_team; RESET ROLE", "table-grant", "{p}_team", "general.notes", "SELECT on `general.notes`").warning(),
    plant("GRANT SELECT ON general.notes TO {p}_health_app WITH GRANT OPTION; SET ROLE {p}_health_app; GRANT SELECT ON general.notes TO {p}_team; RESET ROLE", "table-grant", "{p}_health_app", "general.notes", "SELECT on `general.notes`"),
    plant("CREATE ROLE {p}_stranger LOGIN; GRANT CONNECT ON DATABASE {d} TO {p}_stranger; GRANT USAGE ON SCHEMA general TO {p}_stranger; GRANT SELECT ON general.notes TO {p}_stranger", "table-grant", "{p}_stranger", "general.notes", "`{p}_stranger` -> SELECT on `general.notes`"),
    plant("CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.t (); GRANT USAGE ON SCHEMA elsewhere TO PUBLIC; GRANT SELECT ON elsewhere.t TO {p}_health_app", "table-grant", "{p}_health_app", "elsewhere.t", "SELECT on `elsewhere.t`"),
];

/// Memberships, attributes, owners.
const ROLES: &[Plant] = &[
    plant("CREATE ROLE {p}_reporting; GRANT USAGE ON SCHEMA general TO {p}_reporting; GRANT SELECT ON general.notes TO {p}_reporting; GRANT {p}_reporting TO {p}_health_app", "table-grant", "{p}_health_app", "general.notes", "`{p}_health_app` -> member of `{p}_reporting` -> SELECT on `general.notes`"),
    plant("CREATE ROLE {p}_a; CREATE ROLE {p}_b; GRANT {p}_a TO {p}_health_app; GRANT {p}_b TO {p}_a; GRANT SELECT ON general.notes TO {p}_b", "table-grant", "{p}_health_app", "general.notes", "`{p}_health_app` -> member of `{p}_a` -> member of `{p}_b` -> SELECT on `general.notes`"),
    plant("ALTER ROLE {p}_health_app NOINHERIT; CREATE ROLE {p}_a; GRANT {p}_a TO {p}_health_app; GRANT SELECT ON general.notes TO {p}_a", "table-grant", "{p}_health_app", "general.notes", "`{p}_health_app` -> may SET ROLE to `{p}_a` -> SELECT").until(15),
    plant("CREATE ROLE {p}_a; GRANT {p}_a TO {p}_health_app WITH INHERIT FALSE, SET TRUE; GRANT SELECT ON general.notes TO {p}_a", "table-grant", "{p}_health_app", "general.notes", "`{p}_health_app` -> may SET ROLE to `{p}_a` -> SELECT").since(16),
    plant("CREATE ROLE {p}_a; GRANT {p}_a TO {p}_health_app WITH INHERIT FALSE, SET FALSE, ADMIN TRUE; GRANT SELECT ON general.notes TO {p}_a", "table-grant", "{p}_health_app", "general.notes", "ADMIN of, and may make itself a member of `{p}_a`").since(16),
    plant("CREATE ROLE {p}_a; GRANT {p}_a TO {p}_health_app WITH INHERIT FALSE, SET FALSE", "membership", "{p}_health_app", "role {p}_a", "member, without its rights, of `{p}_a`").since(16).warning(),
    plant("GRANT {p}_owner TO {p}_health_app", "membership", "{p}_health_app", "role {p}_owner", "`{p}_health_app` -> member of `{p}_owner`"),
    plant("GRANT {p}_general_app TO {p}_health_app", "membership", "{p}_health_app", "role {p}_general_app", "member of `{p}_general_app`"),
    plant("GRANT {p}_general_app TO {p}_health_app", "table-grant", "{p}_health_app", "general.*", "member of `{p}_general_app` -> SELECT, INSERT"),
    plant("CREATE ROLE {p}_pool LOGIN; GRANT {p}_health_app, {p}_general_app TO {p}_pool", "membership", "{p}_pool", "role {p}_general_app", "`{p}_pool` -> member of `{p}_general_app`"),
    plant("CREATE ROLE {p}_pool LOGIN; GRANT {p}_owner TO {p}_pool", "membership", "{p}_pool", "role {p}_owner", "member of `{p}_owner`"),
    plant("CREATE ROLE {p}_x; GRANT {p}_x TO {p}_migrator", "membership", "{p}_migrator", "role {p}_x", "`{p}_migrator` -> member of `{p}_x`").warning(),
    plant("GRANT {p}_team TO {p}_reader WITH ADMIN OPTION", "admin-option", "{p}_reader", "role {p}_team", "`{p}_reader` -> ADMIN of `{p}_team`"),
    plant("GRANT pg_read_all_data TO {p}_health_app", "predefined-role", "{p}_health_app", "role pg_read_all_data", "member of `pg_read_all_data`"),
    plant("GRANT pg_write_all_data TO {p}_team", "predefined-role", "{p}_team", "role pg_write_all_data", "`{p}_team` -> member of `pg_write_all_data`"),
    plant("GRANT pg_execute_server_program TO {p}_health_app", "predefined-role", "{p}_health_app", "role pg_execute_server_program", "member of"),
    plant("CREATE ROLE {p}_a; GRANT pg_read_server_files TO {p}_a; GRANT {p}_a TO {p}_health_app", "predefined-role", "{p}_health_app", "role pg_read_server_files", "member of `{p}_a` -> member of `pg_read_server_files`"),
    plant("GRANT pg_monitor TO {p}_health_app", "predefined-role", "{p}_health_app", "role pg_monitor", "member of `pg_monitor`").warning(),
    plant("GRANT pg_maintain TO {p}_health_app", "predefined-role", "{p}_health_app", "role pg_maintain", "member of").since(17),
    plant("CREATE ROLE {p}_dumper LOGIN; GRANT CONNECT ON DATABASE {d} TO {p}_dumper; GRANT pg_read_all_data TO {p}_dumper", "predefined-role", "{p}_dumper", "role pg_read_all_data", "`{p}_dumper` -> member of"),
    plant("ALTER ROLE {p}_health_app SUPERUSER", "role-attribute", "{p}_health_app", "role {p}_health_app", "-> SUPERUSER"),
    plant("ALTER ROLE {p}_health_app BYPASSRLS", "role-attribute", "{p}_health_app", "role {p}_health_app", "-> BYPASSRLS"),
    plant("ALTER ROLE {p}_health_app CREATEROLE", "role-attribute", "{p}_health_app", "role {p}_health_app", "-> CREATEROLE"),
    plant("ALTER ROLE {p}_health_app CREATEDB", "role-attribute", "{p}_health_app", "role {p}_health_app", "-> CREATEDB"),
    plant("ALTER ROLE {p}_reader REPLICATION", "role-attribute", "{p}_reader", "role {p}_reader", "-> REPLICATION"),
    plant("ALTER ROLE {p}_owner BYPASSRLS", "role-attribute", "{p}_owner", "role {p}_owner", "-> BYPASSRLS").warning(),
    plant("ALTER ROLE {p}_old LOGIN", "role-attribute", "{p}_old", "role {p}_old", "-> LOGIN"),
    plant("CREATE ROLE {p}_root SUPERUSER LOGIN", "role-attribute", "{p}_root", "role {p}_root", "-> SUPERUSER").note().unmended(),
    plant("CREATE ROLE {p}_root BYPASSRLS; GRANT {p}_root TO {p}_health_app", "role-attribute", "{p}_health_app", "role {p}_root", "member of `{p}_root` -> BYPASSRLS"),
    plant("ALTER TABLE general.events OWNER TO {p}_health_app", "ownership", "{p}_health_app", "general.events", "`{p}_health_app` -> owner of `general.events`"),
    plant("ALTER FUNCTION general.tidy() OWNER TO {p}_general_app", "ownership", "{p}_general_app", "general.tidy()", "owner of `general.tidy()`"),
    plant("ALTER SCHEMA health OWNER TO {p}_health_app", "ownership", "{p}_health_app", "schema health", "owner of `schema health`"),
    plant("ALTER TYPE health.mood OWNER TO {p}_health_app", "ownership", "{p}_health_app", "type health.mood", "owner of `type health.mood`"),
    plant("ALTER DATABASE {d} OWNER TO {p}_health_app", "ownership", "{p}_health_app", "database {d}", "owner of `database {d}`"),
    plant("SELECT lo_create(4711); ALTER LARGE OBJECT 4711 OWNER TO {p}_health_app", "ownership", "{p}_health_app", "large object 4711", "owner of `large object 4711`"),
    plant("CREATE TABLE general.mine ()", "foreign-owner", "postgres", "general.mine", "`postgres` -> owner of `general.mine`").warning(),
    plant("SET ROLE {p}_migrator; CREATE TABLE general.mine (); RESET ROLE", "foreign-owner", "{p}_migrator", "general.mine", "owner of `general.mine`").warning(),
    plant("CREATE ROLE {p}_stranger; ALTER TABLE general.notes OWNER TO {p}_stranger", "foreign-owner", "{p}_stranger", "general.notes", "owner of `general.notes`"),
];

/// What will be.
const DEFAULTS: &[Plant] = &[
    plant(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {p}_owner IN SCHEMA general GRANT SELECT ON TABLES TO {p}_health_app",
        "default-privilege",
        "{p}_health_app",
        "general.*",
        "`{p}_owner` creates in `general.*` -> `{p}_health_app` -> SELECT",
    ),
    plant(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {p}_owner GRANT SELECT ON TABLES TO PUBLIC",
        "default-privilege",
        "PUBLIC",
        "later tables",
        "`PUBLIC` -> SELECT",
    ),
    plant(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {p}_owner IN SCHEMA health GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
        "default-privilege",
        "PUBLIC",
        "health.*",
        "EXECUTE",
    ),
    plant(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {p}_owner IN SCHEMA health REVOKE INSERT ON TABLES FROM {p}_health_app",
        "default-privilege-missing",
        "{p}_owner",
        "health.*",
        "nothing for `{p}_health_app`",
    )
    .warning(),
    plant(
        "ALTER DEFAULT PRIVILEGES FOR ROLE {p}_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
        "public-execute-default",
        "PUBLIC",
        "later functions",
        "`{p}_owner` creates a function -> `PUBLIC` -> EXECUTE",
    )
    .warning(),
    plant(
        "ALTER ROLE {p}_migrator IN DATABASE {d} RESET role",
        "uncovered-creator",
        "{p}_migrator",
        "general, health and 2 more",
        "CREATE in",
    )
    .warning(),
    plant(
        "CREATE ROLE {p}_other LOGIN; GRANT CREATE ON SCHEMA general TO {p}_other",
        "uncovered-creator",
        "{p}_other",
        "general",
        "`{p}_other` -> CREATE in `general`",
    )
    .warning()
    .unmended(),
];

/// Views, functions, triggers, rules, keys.
const CODE: &[Plant] = &[
    plant("SET ROLE {p}_owner; CREATE VIEW health.peek AS SELECT * FROM general.notes; RESET ROLE", "owner-rights-view", "{p}_health_app", "health.peek", "`{p}_health_app` -> SELECT on `health.peek` (rights of `{p}_owner`) -> SELECT on `general.notes`").since(15),
    plant("SET ROLE {p}_owner; CREATE VIEW health.peek AS SELECT * FROM general.notes; RESET ROLE", "owner-rights-view", "{p}_health_app", "health.peek", "SELECT on `general.notes`").until(14),
    plant("SET ROLE {p}_owner; CREATE VIEW general.first AS SELECT * FROM general.notes; CREATE VIEW health.second AS SELECT * FROM general.first; RESET ROLE", "owner-rights-view", "{p}_health_app", "health.second", "SELECT on `health.second` (rights of `{p}_owner`) -> `general.first` (rights of `{p}_owner`) -> SELECT on `general.notes`"),
    plant("SET ROLE {p}_owner; CREATE MATERIALIZED VIEW health.held AS SELECT * FROM general.notes; RESET ROLE", "owner-rights-view", "{p}_health_app", "health.held", "SELECT on `general.notes`"),
    plant("SET ROLE {p}_owner; CREATE VIEW shared.everything AS SELECT * FROM general.notes; GRANT SELECT ON shared.everything TO PUBLIC; RESET ROLE", "owner-rights-view", "{p}_health_app", "shared.everything", "SELECT on `general.notes`"),
    plant("SET ROLE {p}_owner; CREATE VIEW health.pen AS SELECT * FROM general.notes; RESET ROLE", "owner-rights-write", "{p}_health_app", "health.pen", "UPDATE on `health.pen` (rights of `{p}_owner`) -> UPDATE on `general.notes`"),
    plant("SET ROLE {p}_owner; CREATE VIEW shared.all_lots AS SELECT * FROM ledger.lots; RESET ROLE; GRANT SELECT ON shared.all_lots TO {p}_health_app; ALTER TABLE ledger.lots NO FORCE ROW LEVEL SECURITY", "view-past-rls", "{p}_health_app", "shared.all_lots", "rows of every tenant in `ledger.lots`"),
    plant("CREATE VIEW shared.all_lots AS SELECT * FROM ledger.lots; GRANT SELECT ON shared.all_lots TO {p}_health_app", "view-past-rls", "{p}_health_app", "shared.all_lots", "(rights of `postgres`) -> rows of every tenant in `ledger.lots`"),
    plant("SET ROLE {p}_owner; CREATE FUNCTION health.spy() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = health, pg_temp AS 'SELECT count(*) FROM general.notes'; RESET ROLE", "definer-reach", "{p}_health_app", "health.spy()", "EXECUTE `health.spy()` (rights of `{p}_owner`) -> SELECT on `general.notes`"),
    plant("SET ROLE {p}_owner; CREATE FUNCTION health.spy() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = general, pg_temp AS 'SELECT count(*) FROM notes'; RESET ROLE", "definer-reach", "{p}_health_app", "health.spy()", "SELECT on `general.notes`"),
    plant("SET ROLE {p}_owner; CREATE FUNCTION health.wipe() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = health, pg_temp AS $$ BEGIN EXECUTE 'DELETE FROM general.notes'; END $$; RESET ROLE", "definer-reach", "{p}_health_app", "health.wipe()", "DELETE on `general.notes`"),
    plant("SET ROLE {p}_owner; CREATE FUNCTION health.spy() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = health, pg_temp BEGIN ATOMIC SELECT count(*) FROM general.notes; END; RESET ROLE", "definer-reach", "{p}_health_app", "health.spy()", "SELECT on `general.notes`"),
    plant("SET ROLE {p}_owner; CREATE FUNCTION health.log() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = health, pg_temp AS 'BEGIN INSERT INTO general.notes VALUES (1); RETURN NEW; END'; REVOKE ALL ON FUNCTION health.log() FROM PUBLIC, {p}_health_app; CREATE TRIGGER log AFTER INSERT ON health.notes FOR EACH ROW EXECUTE FUNCTION health.log(); RESET ROLE", "definer-trigger", "{p}_health_app", "health.log()", "`{p}_health_app` -> INSERT on `health.notes` -> trigger `log` -> `health.log()` (rights of `{p}_owner`) -> INSERT on `general.notes`"),
    plant("ALTER FUNCTION general.tidy() RESET search_path", "definer-search-path", "{p}_general_app", "general.tidy()", "EXECUTE `general.tidy()` (rights of `{p}_owner`)"),
    plant("ALTER FUNCTION general.tidy() SET search_path = general, public", "definer-search-path", "{p}_general_app", "general.tidy()", "EXECUTE"),
    plant("ALTER FUNCTION general.tidy() SET search_path = pg_temp, general", "definer-search-path", "{p}_general_app", "general.tidy()", "EXECUTE"),
    plant("ALTER FUNCTION general.tidy() SET search_path = public, general, pg_temp; GRANT CREATE ON SCHEMA public TO PUBLIC", "definer-search-path", "{p}_general_app", "general.tidy()", "EXECUTE"),
    plant("REVOKE EXECUTE ON FUNCTION general.tidy() FROM {p}_general_app; ALTER FUNCTION general.tidy() RESET search_path", "definer-search-path", "{p}_owner", "general.tidy()", "EXECUTE").warning(),
    plant("CREATE FUNCTION public.root() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT 1'", "definer-public", "PUBLIC", "public.root()", "`PUBLIC` -> EXECUTE `public.root()` (rights of `postgres`)"),
    plant("SET ROLE {p}_owner; CREATE FUNCTION health.whatever(q text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = health, pg_temp AS 'BEGIN EXECUTE q; END'; RESET ROLE", "definer-unjudged", "{p}_health_app", "health.whatever(text)", "EXECUTE `health.whatever(text)`").note(),
    plant("SET ROLE {p}_owner; CREATE RULE copy AS ON INSERT TO health.notes DO ALSO INSERT INTO general.notes VALUES (NEW.id, 'x'); RESET ROLE", "rule-across", "{p}_health_app", "health.notes", "INSERT on `health.notes` -> rule `copy` (rights of `{p}_owner`) -> INSERT on `general.notes`"),
    plant("SET ROLE {p}_owner; CREATE FUNCTION general.touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TABLE health.t (); CREATE TRIGGER g BEFORE INSERT ON health.t FOR EACH ROW EXECUTE FUNCTION general.touched(); RESET ROLE; GRANT INSERT ON health.t TO {p}_team; GRANT USAGE ON SCHEMA health TO {p}_team", "trigger-across", "{p}_team", "health.t", "trigger `g` -> `general.touched()`").warning(),
    plant("SET ROLE {p}_owner; CREATE TABLE health.copies (id int REFERENCES general.notes ON DELETE CASCADE); RESET ROLE", "foreign-key-cascade", "{p}_general_app", "health.copies", "`{p}_general_app` -> DELETE on `general.notes` -> foreign key `copies_id_fkey` -> DELETE on `health.copies`"),
    plant("SET ROLE {p}_owner; CREATE TABLE health.copies (id int REFERENCES general.notes ON UPDATE SET NULL); RESET ROLE", "foreign-key-cascade", "{p}_general_app", "health.copies", "UPDATE on `general.notes` -> foreign key"),
    plant("SET ROLE {p}_owner; CREATE TABLE health.copies (id int REFERENCES general.notes); RESET ROLE", "foreign-key-across", "{p}_health_app", "general.notes", "INSERT on `health.copies` -> foreign key `copies_id_fkey` -> `general.notes`").warning(),
];

/// Ways out and in.
const EXITS: &[Plant] = &[
    plant("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN SERVER far TO {p}_health_app", "foreign-server-grant", "{p}_health_app", "foreign server far", "USAGE on `foreign server far`"),
    plant("CREATE FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN DATA WRAPPER w TO PUBLIC", "foreign-server-grant", "PUBLIC", "foreign data wrapper w", "USAGE on"),
    plant("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w OPTIONS (dbname '{p}_legacy_health'); CREATE USER MAPPING FOR PUBLIC SERVER far", "user-mapping", "PUBLIC", "foreign server far", "`PUBLIC` -> user mapping -> `far` (the legacy database"),
    plant("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR {p}_health_app SERVER far", "user-mapping", "{p}_health_app", "foreign server far", "user mapping"),
    plant("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE health.away (a int) SERVER far; ALTER FOREIGN TABLE health.away OWNER TO {p}_owner; GRANT SELECT ON health.away TO {p}_health_app", "foreign-table", "{p}_health_app", "health.away", "SELECT on `health.away` -> `far` (w)").warning(),
    // The servers that are fetched for 17 and 18 come without the libpq that their dblink needs.
    plant("CREATE EXTENSION dblink", "connecting-function", "PUBLIC", "extension dblink", "`PUBLIC` -> EXECUTE `public.dblink").warning().until(16),
    plant("CREATE PUBLICATION out FOR TABLE general.notes", "publication", "postgres", "general.notes", "publication `out` -> `general.notes`").warning(),
    plant("CREATE PUBLICATION out FOR ALL TABLES", "publication", "postgres", "publication out", "every table of every schema").warning(),
    plant("CREATE PUBLICATION out FOR TABLES IN SCHEMA general", "publication", "postgres", "general.*", "publication `out`").warning().since(15),
    plant("CREATE SUBSCRIPTION inward CONNECTION 'host=x dbname=y' PUBLICATION p WITH (connect = false)", "subscription", "postgres", "subscription inward", "subscription `inward` (rights of `postgres`)").warning(),
    plant("CREATE FUNCTION general.ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION general.ddl(); CREATE ROLE {p}_was SUPERUSER; ALTER EVENT TRIGGER e OWNER TO {p}_was; ALTER ROLE {p}_was NOSUPERUSER", "event-trigger", "{p}_was", "event trigger e", "owner of event trigger `e`"),
    plant("CREATE FUNCTION general.ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION general.ddl(); ALTER FUNCTION general.ddl() OWNER TO {p}_owner", "event-trigger", "{p}_owner", "event trigger e", "owner of `general.ddl` -> event trigger `e`").warning(),
];

/// Row security and append-only tables. Two roles have it together.
const ROWS: &[Plant] = &[
    plant("ALTER TABLE ledger.lots DISABLE ROW LEVEL SECURITY", "rls-disabled", "{p}_health_app and {p}_general_app", "ledger.lots", "`ledger.lots` -> rows of every tenant"),
    plant("CREATE POLICY x ON general.notes USING (id = 1)", "rls-disabled", "PUBLIC", "general.notes", "policies that are not asked").warning(),
    plant("ALTER TABLE ledger.lots NO FORCE ROW LEVEL SECURITY", "rls-not-forced", "{p}_owner", "ledger.lots", "`{p}_owner` -> owner of `ledger.lots`"),
    plant("DROP POLICY tenant_tenant ON ledger.lots", "rls-policy-missing", "{p}_health_app and {p}_general_app", "ledger.lots", "no policy").warning(),
    plant("DROP POLICY tenant_tenant ON ledger.lots; CREATE POLICY tenant_tenant ON ledger.lots FOR SELECT TO {p}_health_app, {p}_general_app USING (tenant = ledger.current_tenant())", "rls-policy-missing", "{p}_health_app and {p}_general_app", "ledger.lots", "-> INSERT on `ledger.lots` -> no policy").warning(),
    plant("CREATE POLICY old_one ON ledger.lots FOR SELECT TO {p}_health_app USING (tenant = 'a')", "rls-policy-leftover", "{p}_health_app", "ledger.lots", "policy `old_one` on `ledger.lots`"),
    plant("CREATE POLICY everything ON ledger.lots_a TO {p}_health_app USING (true)", "rls-policy-leftover", "{p}_health_app", "ledger.lots_a", "policy `everything` on `ledger.lots_a`"),
    plant("ALTER POLICY tenant_tenant ON ledger.lots USING (true)", "rls-policy-open", "{p}_health_app and {p}_general_app", "ledger.lots", "rows of every tenant"),
    plant("ALTER POLICY tenant_tenant ON ledger.lots USING (ledger.current_tenant() IS NULL OR tenant = ledger.current_tenant())", "rls-policy-open", "{p}_health_app and {p}_general_app", "ledger.lots", "rows of every tenant"),
    plant("ALTER POLICY tenant_tenant ON ledger.lots USING (tenant = coalesce(ledger.current_tenant(), tenant))", "rls-policy-open", "{p}_health_app and {p}_general_app", "ledger.lots", "policy `tenant_tenant`"),
    plant("ALTER POLICY tenant_tenant ON ledger.lots USING (tenant = current_setting('app.tenant', true))", "rls-policy-unguarded", "{p}_health_app and {p}_general_app", "ledger.lots", "current_setting"),
    plant("ALTER POLICY tenant_tenant ON ledger.lots TO PUBLIC", "rls-policy-public", "PUBLIC", "ledger.lots", "policy `tenant_tenant`").warning(),
    plant("CREATE OR REPLACE FUNCTION ledger.current_tenant() RETURNS text LANGUAGE sql STABLE AS $$ SELECT current_setting('app.tenant', true) $$", "rls-guard", "{p}_health_app and {p}_general_app", "ledger.current_tenant()", "ledger.current_tenant()").unmended(),
    plant("CREATE OR REPLACE FUNCTION ledger.current_tenant() RETURNS text LANGUAGE sql STABLE AS $$ SELECT coalesce(current_setting('app.tenant', true), 'a') $$", "rls-guard", "{p}_health_app and {p}_general_app", "ledger.current_tenant()", "ledger.current_tenant()").unmended(),
    plant("ALTER FUNCTION ledger.current_tenant() SECURITY DEFINER", "rls-guard", "{p}_health_app and {p}_general_app", "ledger.current_tenant()", "ledger.current_tenant()"),
    plant("ALTER FUNCTION ledger.current_tenant() RENAME TO gone", "rls-guard", "{p}_health_app and {p}_general_app", "ledger.current_tenant()", "ledger.current_tenant()").unmended(),
    plant("CREATE TABLE ledger.lots_b PARTITION OF ledger.lots FOR VALUES IN ('b'); ALTER TABLE ledger.lots_b OWNER TO {p}_owner", "rls-partition", "{p}_health_app and {p}_general_app", "ledger.lots_b", "past `ledger.lots`").warning(),
    plant("ALTER TABLE ledger.lots_a DISABLE ROW LEVEL SECURITY; GRANT SELECT ON ledger.lots_a TO {p}_health_app", "rls-partition", "{p}_health_app", "ledger.lots_a", "`ledger.lots_a` itself, past `ledger.lots`"),
    plant("DROP TRIGGER keep_all ON ledger.entries", "append-only-open", "{p}_owner", "ledger.entries", "TRUNCATE on `ledger.entries`"),
    plant("DROP TRIGGER keep ON ledger.entries; GRANT DELETE ON ledger.entries TO {p}_health_app", "append-only-open", "{p}_health_app", "ledger.entries", "DELETE on `ledger.entries`"),
    plant("DROP TRIGGER keep ON ledger.entries; CREATE TRIGGER keep BEFORE UPDATE OF amount OR DELETE ON ledger.entries FOR EACH ROW EXECUTE FUNCTION ledger.refuse()", "append-only-open", "{p}_owner", "ledger.entries", "UPDATE on `ledger.entries`"),
    plant("CREATE OR REPLACE FUNCTION ledger.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''no''; RETURN NULL; END'", "append-only-open", "{p}_owner", "ledger.entries", "on `ledger.entries`").unmended(),
    plant("ALTER TABLE ledger.entries DISABLE TRIGGER keep", "append-only-disabled", "{p}_owner", "ledger.entries", "on `ledger.entries`"),
    plant("ALTER TABLE ledger.entries ENABLE REPLICA TRIGGER keep_all", "append-only-disabled", "{p}_owner", "ledger.entries", "TRUNCATE on `ledger.entries`"),
    plant("ALTER TABLE ledger.entries ENABLE TRIGGER keep_all", "append-only-replica", "{p}_owner", "ledger.entries", "session_replication_role = replica -> TRUNCATE on `ledger.entries`").warning(),
    plant("GRANT TRUNCATE ON ledger.entries TO {p}_health_app", "append-only-truncate", "{p}_health_app", "ledger.entries", "TRUNCATE on `ledger.entries`"),
    plant("ALTER TABLE ledger.entries OWNER TO {p}_health_app", "ownership", "{p}_health_app", "ledger.entries", "owner of `ledger.entries`"),
    plant("SET ROLE {p}_owner; CREATE FUNCTION ledger.fix() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$ BEGIN ALTER TABLE ledger.entries DISABLE TRIGGER keep; END $$; GRANT EXECUTE ON FUNCTION ledger.fix() TO {p}_health_app; RESET ROLE", "append-only-function", "{p}_health_app", "ledger.entries", "EXECUTE `ledger.fix()` (rights of `{p}_owner`) -> triggers of `ledger.entries`"),
];

/// Settings and secrets. The values are put together by the server: no scanner takes them for real ones.
const TEXTS: &[Plant] = &[
    plant("ALTER ROLE {p}_health_app IN DATABASE {d} SET search_path = general", "search-path", "{p}_health_app", "role {p}_health_app", "login -> search_path = general").warning(),
    plant("ALTER ROLE {p}_health_app SET search_path = general, health", "search-path", "{p}_health_app", "role {p}_health_app", "search_path = general, health").warning(),
    plant("ALTER ROLE {p}_health_app RESET search_path", "search-path", "{p}_health_app", "role {p}_health_app", "search_path").warning(),
    plant("ALTER DATABASE {d} SET search_path = general", "search-path", "{p}_reader", "role {p}_reader", "search_path = general").warning(),
    plant("SET ROLE {p}_owner; CREATE FUNCTION health.f() RETURNS int LANGUAGE sql SET search_path = health, general AS 'SELECT 1'; RESET ROLE", "search-path", "{p}_owner", "health.f()", "`health.f()` -> search_path -> `general`").warning(),
    plant("ALTER ROLE {p}_health_app SET session_replication_role = replica", "role-setting", "{p}_health_app", "setting session_replication_role", "session_replication_role set for"),
    plant("ALTER DATABASE {d} SET app.tenant = 'a'", "role-setting", "PUBLIC", "setting app.tenant", "app.tenant set for"),
    plant("DO $$ BEGIN EXECUTE format('CREATE FUNCTION general.call() RETURNS text LANGUAGE sql AS %L', 'SELECT ''postgres://app:hun' || 'ter2@db/x'''); END $$", "secret", "PUBLIC", "general.call()", "the body of `general.call()`").unmended(),
    plant("DO $$ BEGIN EXECUTE format('CREATE VIEW general.v AS SELECT %L AS url', 'postgres://app:hun' || 'ter2@db/x'); END $$", "secret", "PUBLIC", "general.v", "the definition of `general.v`").unmended(),
    plant("DO $$ BEGIN EXECUTE format('COMMENT ON TABLE general.notes IS %L', 'password=hun' || 'ter2'); END $$", "secret", "PUBLIC", "general.notes", "the comment on table `general.notes`"),
    plant("DO $$ BEGIN EXECUTE format('ALTER ROLE {p}_health_app SET app.db_password = %L', 'hun' || 'ter2'); END $$", "secret", "{p}_health_app", "setting app.db_password", "the setting app.db_password of the role"),
    plant("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w; DO $$ BEGIN EXECUTE format('CREATE USER MAPPING FOR {p}_owner SERVER far OPTIONS (password %L)', 'hun' || 'ter2'); END $$", "secret", "{p}_owner", "foreign server far", "the user mapping of {p}_owner"),
    plant("DO $$ BEGIN EXECUTE format('CREATE SUBSCRIPTION inward CONNECTION %L PUBLICATION p WITH (connect = false)', 'host=x password=hun' || 'ter2'); END $$", "secret", "postgres", "subscription inward", "the connection of the subscription").unmended(),
];

#[tokio::test]
async fn healthy_database_gives_no_finding() {
    let world = World::new().await;
    let audited = world.audit().await;
    assert!(audited.findings.is_empty(), "{:#?}", audited.findings);
    let examined = audited.examined;
    assert!(examined.roles >= 7 && examined.schemas == 4 && examined.relations >= 10, "{examined:?}");
    assert!(examined.acl_entries > 20 && examined.policies == 1 && examined.triggers == 3, "{examined:?}");
}

/// Every leak of a list, in one database; says which lists they are from.
async fn all(plants: &[Plant]) {
    let world = World::new().await;
    for plant in plants {
        world.check(plant).await;
    }
}

/// The whole on one version: for the tests of versions.
pub async fn holds_on(major: u32) {
    let cluster = shared_of(major, "audit-tests").await.unwrap_or_else(|error| panic!("{error}: scripts/need servers"));
    let world = World::on(&cluster).await;
    assert_eq!(world.major, major);
    let audited = world.audit().await;
    assert!(audited.findings.is_empty(), "{:#?}", audited.findings);
    for plant in ALL.iter().copied().flatten() {
        world.check(plant).await;
    }
    applied_topology_gives_no_finding(Land::of(major).await).await;
}

/// What `topology apply` makes is what the audit calls healthy: two readings of the catalogs that share no code.
async fn applied_topology_gives_no_finding(land: Land) {
    let text = format!(
        "append_only = [\"shared.log\"]\n{TWO}\n[rls.community]\ntables = [\"shared.lots\"]\ncolumn = \"community_id\"\n\
         setting = \"app.community_id\"\ntype = \"uuid\"\nguard = \"shared.current_community\"\nwithout = \"error\"\n\
         roles = [\"P_health_app\"]\n[[status]]\ntable = \"shared.lots\"\ncolumn = \"status\"\nfrom = \"active\"\n\
         to = [\"expired\", \"depleted\"]\n"
    )
    .replace(
        "update = [\"registry(note)\"]",
        "select = [\"registry\", \"lots\"]\ninsert = [\"lots\"]\nupdate = [\"lots\", \"registry(note)\"]\ndelete = [\"lots\"]",
    )
    .replace("select = [\"registry\"]\n", "");
    let topology = land.declare(&text);
    land.apply(&topology).await.unwrap();
    land.execute(TABLES).await;
    land.execute(
        "SET ROLE P_owner; CREATE TABLE shared.log (id int);
         CREATE TABLE shared.lots (id int, community_id uuid, status text); RESET ROLE",
    )
    .await;
    land.apply(&topology).await.unwrap();
    let audited = audit(&land.session, &topology, today()).await.unwrap();
    // Other tests' databases are open to everybody, which is a note.
    let found: Vec<_> = audited.at_least(Severity::Warning).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test]
async fn what_topology_applies_gives_no_finding() {
    applied_topology_gives_no_finding(Land::new().await).await;
}

const ALL: &[&[Plant]] = &[GRANTS, ROLES, DEFAULTS, CODE, EXITS, ROWS, TEXTS];

#[tokio::test]
async fn grants_are_found_by_whatever_way_they_are_had() {
    all(GRANTS).await;
}

#[tokio::test]
async fn memberships_attributes_and_owners_are_found() {
    all(ROLES).await;
}

#[tokio::test]
async fn defaults_are_found() {
    all(DEFAULTS).await;
}

#[tokio::test]
async fn code_that_crosses_is_found() {
    all(CODE).await;
}

#[tokio::test]
async fn ways_out_are_found() {
    all(EXITS).await;
}

#[tokio::test]
async fn gaps_in_row_security_and_append_only_are_found() {
    all(ROWS).await;
}

#[tokio::test]
async fn settings_and_secrets_are_found() {
    all(TEXTS).await;
}

#[test]
fn every_rule_has_a_plant() {
    let elsewhere = ["other-database", "expired-exception", "missing", "nothing-examined", "not-examined"];
    for rule in RULES {
        let planted = ALL.iter().copied().flatten().any(|plant| plant.rule == rule.id);
        assert!(planted || elsewhere.contains(&rule.id), "nothing plants {}", rule.id);
    }
}

/// What one finding is, and that what mends it ends it.
fn one<'a>(audited: &'a Audit, rule: &str, role: &str, object: &str) -> &'a Finding {
    let found = audited.findings.iter().find(|one| one.rule == rule && one.role == role && one.object == object);
    found.unwrap_or_else(|| panic!("no {rule} of {role} on {object}: {:#?}", audited.findings))
}

#[tokio::test]
async fn other_databases_are_looked_at() {
    let world = World::new().await;
    let (legacy, other) = (world.fill("{p}_legacy_health"), world.fill("{p}_elsewhere"));
    closed(&world.session, &legacy).await;
    closed(&world.session, &other).await;
    assert!(world.audit().await.findings.is_empty(), "{:#?}", world.audit().await.findings);
    let app = world.fill("{p}_health_app");
    world.execute(&format!("BEGIN; GRANT CONNECT ON DATABASE {legacy}, {other} TO PUBLIC")).await;
    world.execute(&format!("GRANT CONNECT ON DATABASE {other} TO {app}")).await;
    let audited = audit_within(&world.session, &world.topology, today()).await.unwrap();
    let found = one(&audited, "other-database", "PUBLIC", &format!("database {legacy}"));
    assert_eq!(found.severity, Severity::Error);
    assert_eq!(found.path, format!("`PUBLIC` -> CONNECT on database `{legacy}`"));
    let to_other = format!("database {other}");
    assert_eq!(one(&audited, "other-database", "PUBLIC", &to_other).severity, Severity::Note);
    assert_eq!(one(&audited, "other-database", &app, &to_other).severity, Severity::Warning);
    for found in &audited.findings {
        world.execute(found.mend.as_deref().unwrap()).await;
    }
    let again = audit_within(&world.session, &world.topology, today()).await.unwrap();
    assert!(again.findings.is_empty(), "{:#?}", again.findings);
    world.execute("ROLLBACK").await;
}

#[tokio::test]
async fn exception_that_is_over_is_a_finding_and_allows_no_more() {
    let world = World::new().await;
    let after = audit(&world.session, &world.topology, Date::constant(2027, 1, 1)).await.unwrap();
    let app = world.fill("{p}_health_app");
    assert_eq!(one(&after, "expired-exception", &app, "general.events").severity, Severity::Warning);
    let found = one(&after, "table-grant", &app, "general.events");
    assert_eq!(
        (found.severity, found.path.as_str()),
        (Severity::Error, &*format!("`{app}` -> SELECT on `general.events`"))
    );
    one(&after, "schema-grant", &app, "general");
}

#[tokio::test]
async fn audit_of_nothing_is_a_failure() {
    let world = World::new().await;
    let empty = world.fill("{p}_empty");
    closed(&world.session, &empty).await;
    let options = cluster().await.options().with_database(&empty);
    let session = Session::connect(&options, "test").await.unwrap();
    let audited = audit(&session, &world.topology, today()).await.unwrap();
    one(&audited, "nothing-examined", "-", &format!("database {empty}"));
    one(&audited, "missing", "-", "health");
    one(&audited, "missing", "-", "ledger.lots");
    // And where objects are, and none of the declared roles.
    let folder = tempfile::tempdir().unwrap();
    let declared = DECLARED.replace("{p}", &world.fill("{p}x"));
    std::fs::write(folder.path().join("topology.toml"), declared).unwrap();
    let strange = topology::load(folder.path(), "default").unwrap();
    let audited = audit(&world.session, &strange, today()).await.unwrap();
    let found = one(&audited, "nothing-examined", "-", &world.fill("database {d}"));
    assert!(found.message.starts_with("no declared role exists"), "{}", found.message);
}

#[tokio::test]
async fn ordinary_role_audits_too_and_says_what_it_cannot_read() {
    let world = World::new().await;
    let auditor = world.fill("{p}_auditor");
    world
        .execute(&format!("CREATE ROLE {auditor} LOGIN PASSWORD 'x'; GRANT CONNECT ON DATABASE {{d}} TO {auditor}"))
        .await;
    world
        .execute(
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w;
         CREATE USER MAPPING FOR {p}_owner SERVER far OPTIONS (note 'x');
         CREATE SUBSCRIPTION {p}_in CONNECTION 'host=x' PUBLICATION p WITH (connect = false)",
        )
        .await;
    let base = cluster().await.options().with_database(&world.database);
    let options = ConnectOptions { user: auditor.clone(), password: Some("x".to_owned()), ..base };
    let session = Session::connect(&options, "test").await.unwrap();
    let audited = audit(&session, &world.topology, today()).await.unwrap();
    one(&audited, "not-examined", &auditor, "the connections of the subscriptions");
    let mapping = world.fill("the options of the user mapping of {p}_owner for `far`");
    one(&audited, "not-examined", &auditor, &mapping);
    let rest: Vec<_> =
        audited.findings.iter().filter(|one| !matches!(one.rule, "not-examined" | "subscription")).collect();
    assert!(rest.is_empty(), "{rest:#?}");
    world.execute("ALTER SUBSCRIPTION {p}_in DISABLE; ALTER SUBSCRIPTION {p}_in SET (slot_name = NONE)").await;
    world.execute("DROP SUBSCRIPTION {p}_in").await;
}

#[tokio::test]
async fn secrets_are_never_shown() {
    let world = World::new().await;
    world.execute("BEGIN").await;
    for plant in TEXTS.iter().filter(|plant| plant.rule == "secret") {
        world.execute("SAVEPOINT s").await;
        world.execute(plant.sql).await;
        let audited = audit_within(&world.session, &world.topology, today()).await.unwrap();
        let value = ["hun", "ter2"].concat();
        assert!(!format!("{audited:?}").contains(&value), "{audited:#?}");
        world.execute("ROLLBACK TO s").await;
    }
    world.execute("ROLLBACK").await;
}

#[tokio::test]
async fn hostile_names_are_quoted_in_what_mends() {
    let world = World::new().await;
    let hostile = "\"{p} \"\"; DROP SCHEMA general; --\"";
    world.execute(&format!("BEGIN; CREATE ROLE {hostile} LOGIN; GRANT {{p}}_owner TO {hostile}")).await;
    world
        .execute("CREATE TABLE general.\"x\"\"; y\" (\"a b\" int); ALTER TABLE general.\"x\"\"; y\" OWNER TO {p}_owner")
        .await;
    world.execute(&format!("GRANT SELECT (\"a b\"), INSERT ON general.\"x\"\"; y\" TO {hostile}; GRANT USAGE ON SCHEMA general TO {hostile}")).await;
    let audited = audit_within(&world.session, &world.topology, today()).await.unwrap();
    assert!(audited.findings.len() >= 4, "{:#?}", audited.findings);
    for mend in audited.findings.iter().filter_map(|found| found.mend.as_deref()) {
        world.execute(mend).await;
    }
    let again = audit_within(&world.session, &world.topology, today()).await.unwrap();
    assert!(again.findings.is_empty(), "{:#?}", again.findings);
    world.execute("ROLLBACK").await;
}

#[tokio::test]
async fn step_is_a_gate_and_its_evidence_holds_the_findings() {
    let world = World::new().await;
    let bench = Bench::on(cluster().await.options().with_database(&world.database));
    bench.write("topology.toml", &world.fill(DECLARED));
    let text = "# One\n\n## Phase\n\n```toml step\naudit = \"apart\"\ntarget = \"main\"\nlevel = \"error\"\n```\n";
    // A run keeps its claims in a schema of the superuser's, of which nobody else has anything.
    let (run, end) = bench.run(text).await;
    assert_eq!(end, RunEnd::Completed);
    let evidence = bench.evidence(&run, "apart").await;
    assert_eq!(evidence.summary, "no errors, no warnings, no notes");
    assert!(evidence.facts["examined"]["roles"].as_u64() >= Some(7), "{evidence:#?}");

    world.execute("GRANT SELECT ON health.notes TO {p}_general_app").await;
    let (run, end) = bench.run(text).await;
    assert_eq!(end, RunEnd::Completed, "a warning is below the level");
    assert_eq!(bench.evidence(&run, "apart").await.facts["finding_count"], 1);

    world.execute("GRANT USAGE ON SCHEMA health TO {p}_general_app").await;
    let (run, end) = bench.run(text).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "gate");
    assert!(message.contains(&world.fill("`{p}_general_app` -> SELECT on `health.notes`")), "{message}");
    let findings = &bench.evidence(&run, "apart").await.facts["findings"];
    assert_eq!(findings[1]["object"], "health.notes", "{findings:#}");
    assert_eq!(findings[1]["mend"], world.fill("REVOKE SELECT ON TABLE health.notes FROM {p}_general_app;"));
}

#[test]
fn guide_lists_the_rules() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/audit.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut table = "## The rules\n\n| rule | at worst | what it finds |\n| --- | --- | --- |\n".to_owned();
    for rule in RULES {
        let severity = format!("{:?}", rule.severity).to_lowercase();
        table.push_str(&format!("| `{}` | {severity} | {} |\n", rule.id, rule.about));
    }
    let before = text.split("## The rules").next().unwrap();
    let made = format!("{before}{table}");
    if std::env::var_os("PGRUNBOOK_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text == made, "{} does not list the rules as they are: PGRUNBOOK_BLESS=1 writes them", path.display());
}
