//! Topologies, planned and applied on real servers. Roles are the whole cluster's, so each test has names of its own.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use pgrunbook_engine::{Cancel, RunEnd, StepError, SystemClock};
use pgrunbook_postgres::retry::LockPolicy;
use pgrunbook_postgres::sandbox::shared_of;
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::secret::Reference;
use pgrunbook_steps::topology::{self, Applied, How, Plan, Topology, Wish};

use crate::bench::{Bench, cluster};

/// A database, and a declaration whose role names are this test's.
pub struct Land {
    pub options: ConnectOptions,
    pub session: Session,
    /// What stands before every role's name.
    pub prefix: String,
    folder: tempfile::TempDir,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Two tenants, `shared`, and nothing else.
pub const TWO: &str = r#"
suffix = "_app"
[database]
owner = "P_owner"
[tenants]
list = ["health", "general"]
[schemas]
shared = {}
"{tenant}" = {}
[access.approved]
select = ["registry"]
update = ["registry(note)"]
[roles."P_{tenant}{suffix}"]
kind = "runtime"
password = "env:PASSWORD"
search_path = ["{tenant}", "shared", "public"]
access = { "{tenant}" = "all", shared = "approved" }
[roles.P_migrator]
kind = "migration"
password = "env:PASSWORD"
"#;

/// Tables as a migration of the owner makes them.
pub const TABLES: &str = "SET ROLE P_owner;
CREATE TABLE shared.registry (id int PRIMARY KEY, note text);
INSERT INTO shared.registry VALUES (1, 'a');
CREATE TABLE shared.secrets (id int PRIMARY KEY);
CREATE TABLE health.notes (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);
CREATE TABLE general.notes (id serial PRIMARY KEY, body text);
CREATE VIEW health.recent AS SELECT id FROM health.notes;
CREATE FUNCTION health.answer() RETURNS int LANGUAGE sql AS 'SELECT 42';
CREATE TYPE health.mood AS ENUM ('good', 'bad');
RESET ROLE";

impl Land {
    pub async fn new() -> Self {
        Self::on(cluster().await.fresh_database("topology").await.unwrap()).await
    }

    /// On a server of this version.
    pub async fn of(major: u32) -> Self {
        let cluster = shared_of(major, "steps-tests").await.unwrap();
        Self::on(cluster.fresh_database("topology").await.unwrap()).await
    }

    pub async fn on(options: ConnectOptions) -> Self {
        let session = Session::connect(&options, "test").await.unwrap();
        // The end of the database's name is random: the cluster outlives this process, and the next one may have its id.
        let random = options.database.rsplit('_').next().unwrap();
        let prefix = format!("t{random}x{}", COUNT.fetch_add(1, Ordering::SeqCst));
        Self { options, session, prefix, folder: tempfile::tempdir().unwrap() }
    }

    /// The text with this test's role names.
    pub fn named(&self, text: &str) -> String {
        text.replace("P_", &format!("{}_", self.prefix))
    }

    pub fn declare(&self, text: &str) -> Topology {
        std::fs::write(self.folder.path().join("topology.toml"), self.named(text)).unwrap();
        topology::load(self.folder.path(), "default").unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        self.session.execute(&self.named(sql)).await.unwrap();
    }

    pub async fn value(&self, sql: &str) -> String {
        self.session.value(&self.named(sql)).await.unwrap()
    }

    pub async fn plan(&self, topology: &Topology) -> Plan {
        topology::plan(&self.session, topology, &wish()).await.unwrap()
    }

    pub async fn apply(&self, topology: &Topology) -> Result<Applied, StepError> {
        self.apply_with(topology, wish(), None).await
    }

    pub async fn apply_with(
        &self,
        topology: &Topology,
        wish: Wish,
        expect_revokes: Option<usize>,
    ) -> Result<Applied, StepError> {
        apply_on(&self.session, topology, wish, expect_revokes).await
    }

    /// A session of somebody who may create roles, owns the database, and is no superuser.
    pub async fn operator(&self) -> Session {
        self.execute("CREATE ROLE P_operator LOGIN CREATEROLE CREATEDB PASSWORD 'secret'").await;
        let database = self.value("SELECT current_database()").await;
        self.execute(&format!("ALTER DATABASE {database} OWNER TO P_operator")).await;
        let options = ConnectOptions {
            user: self.named("P_operator"),
            password: Some("secret".to_owned()),
            ..self.options.clone()
        };
        Session::connect(&options, "operator").await.unwrap()
    }

    /// As a role: the SQLSTATE, or `ok`.
    pub async fn try_as(&self, role: &str, sql: &str) -> String {
        let text = self.named(&format!("BEGIN; SET LOCAL SESSION AUTHORIZATION {role}; {sql}"));
        let result = self.session.execute(&text).await;
        self.session.execute("ROLLBACK").await.unwrap();
        match result {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.sqlstate().unwrap_or("lost").to_owned(),
        }
    }
}

pub fn wish() -> Wish {
    Wish { today: jiff::civil::Date::constant(2026, 11, 21), prune: false, set_passwords: false }
}

pub async fn apply_on(
    session: &Session,
    topology: &Topology,
    wish: Wish,
    expect_revokes: Option<usize>,
) -> Result<Applied, StepError> {
    topology::apply(session, topology, &how(&Cancel::default(), wish, expect_revokes)).await
}

fn how(cancel: &Cancel, wish: Wish, expect_revokes: Option<usize>) -> How<'_> {
    How {
        wish,
        expect_revokes,
        password: &|_: &Reference| Ok("pässword 'x'".to_owned()),
        assert: None,
        record: None,
        locks: LockPolicy::default(),
        clock: &SystemClock,
        cancel,
        tell: &|_| {},
    }
}

fn scripts(plan: &Plan) -> Vec<&str> {
    plan.statements.iter().map(|one| one.sql.as_str()).collect()
}

async fn an_empty_database_becomes_what_is_declared(land: Land) {
    let topology = land.declare(TWO);
    let applied = land.apply(&topology).await.unwrap();
    assert!(applied.one_way.is_empty(), "{:?}", applied.one_way);
    assert!(land.plan(&topology).await.is_empty());
    // What is created later is covered by the default privileges.
    land.execute(TABLES).await;
    let second = land.plan(&topology).await;
    assert_eq!(second.waiting, Vec::<String>::new());
    let left = scripts(&second);
    let of_shared = land.named("GRANT SELECT ON TABLE shared.registry TO P_general_app");
    assert!(left.contains(&of_shared.as_str()), "{left:#?}");
    assert!(left.iter().all(|sql| sql.contains("shared.registry")), "{left:#?}");
    land.apply(&topology).await.unwrap();
    assert!(land.plan(&topology).await.is_empty());
    for (role, sql, wanted) in [
        ("P_health_app", "INSERT INTO health.notes (body) VALUES ('x')", "ok"),
        ("P_health_app", "SELECT * FROM health.recent", "ok"),
        ("P_health_app", "SELECT health.answer()", "ok"),
        ("P_health_app", "SELECT * FROM shared.registry", "ok"),
        ("P_health_app", "UPDATE shared.registry SET note = 'b'", "ok"),
        ("P_health_app", "UPDATE shared.registry SET id = 2", "42501"),
        ("P_health_app", "SELECT * FROM shared.secrets", "42501"),
        ("P_health_app", "SELECT * FROM general.notes", "42501"),
        ("P_health_app", "INSERT INTO general.notes (body) VALUES ('x')", "42501"),
        ("P_health_app", "CREATE TABLE health.mine ()", "42501"),
        ("P_health_app", "CREATE TEMP TABLE mine ()", "42501"),
        ("P_health_app", "SET ROLE P_owner", "42501"),
        ("P_general_app", "INSERT INTO general.notes (body) VALUES ('x')", "ok"),
        ("P_migrator", "SET ROLE P_owner; CREATE TABLE health.more ()", "ok"),
    ] {
        assert_eq!(land.try_as(role, sql).await, wanted, "{role}: {sql}");
    }
    let path = land.value("SELECT rolconfig FROM pg_roles WHERE rolname = 'P_health_app'").await;
    assert_eq!(path, "{\"search_path=health, shared, public\"}");
}

/// On every version: what the catalogs say and what statements do differ between them.
macro_rules! on_every_version {
    ($($fact:ident)*) => { $(
        mod $fact {
            use super::Land;

            #[tokio::test]
            async fn on_14() {
                super::$fact(Land::of(14).await).await;
            }

            #[tokio::test]
            async fn on_15() {
                super::$fact(Land::new().await).await;
            }

            #[tokio::test]
            async fn on_16() {
                super::$fact(Land::of(16).await).await;
            }

            #[tokio::test]
            async fn on_17() {
                super::$fact(Land::of(17).await).await;
            }

            #[tokio::test]
            async fn on_18() {
                super::$fact(Land::of(18).await).await;
            }
        }
    )* };
}

on_every_version! {
    an_empty_database_becomes_what_is_declared
    extra_is_revoked_and_missing_is_granted_with_the_least_change
    a_revoke_runs_as_its_grantor
    row_security_and_append_only_are_made_and_mended
    an_operator_without_superuser_applies_what_it_may_and_says_the_rest
    a_line_that_left_the_file_drops_nothing_and_retirement_takes_two_steps
    what_is_imported_is_what_was_declared
}

#[tokio::test]
async fn a_password_is_sent_as_a_verifier() {
    let land = Land::new().await;
    let topology = land.declare(TWO);
    let plan = land.plan(&topology).await;
    assert!(plan.script().contains("PASSWORD 'SCRAM of env:PASSWORD'"), "{}", plan.script());
    land.apply(&topology).await.unwrap();
    let kept = land.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'P_health_app'").await;
    assert!(kept.starts_with("SCRAM-SHA-256$4096:"), "{kept}");
    let options = ConnectOptions {
        user: land.named("P_health_app"),
        password: Some("pässword 'x'".to_owned()),
        ..land.options.clone()
    };
    let session = Session::connect(&options, "test").await.unwrap();
    assert_eq!(session.value("SHOW search_path").await.unwrap(), "health, shared, public");
    // And a migration role acts as the owner from its login on.
    let options = ConnectOptions { user: land.named("P_migrator"), ..options };
    let session = Session::connect(&options, "test").await.unwrap();
    assert_eq!(session.value("SELECT current_user").await.unwrap(), land.named("P_owner"));
}

/// What somebody did by hand, and what the plan makes of it.
async fn extra_is_revoked_and_missing_is_granted_with_the_least_change(land: Land) {
    let topology = land.declare(TWO);
    land.apply(&topology).await.unwrap();
    land.execute(TABLES).await;
    land.apply(&topology).await.unwrap();
    for (by_hand, wanted) in [
        ("GRANT SELECT ON health.notes TO P_general_app", "REVOKE SELECT ON TABLE health.notes FROM P_general_app"),
        (
            "GRANT SELECT (id) ON health.notes TO P_general_app",
            "REVOKE SELECT (id) ON TABLE health.notes FROM P_general_app",
        ),
        (
            "GRANT DELETE ON shared.registry TO P_general_app",
            "REVOKE DELETE ON TABLE shared.registry FROM P_general_app",
        ),
        ("GRANT SELECT ON health.notes TO PUBLIC", "REVOKE SELECT ON TABLE health.notes FROM PUBLIC"),
        ("GRANT USAGE ON SCHEMA health TO P_general_app", "REVOKE USAGE ON SCHEMA health FROM P_general_app"),
        ("GRANT CREATE ON SCHEMA health TO P_health_app", "REVOKE CREATE ON SCHEMA health FROM P_health_app"),
        ("REVOKE INSERT ON health.notes FROM P_health_app", "GRANT INSERT ON TABLE health.notes TO P_health_app"),
        ("REVOKE USAGE ON SCHEMA health FROM P_health_app", "GRANT USAGE ON SCHEMA health TO P_health_app"),
        (
            "GRANT SELECT ON health.notes TO P_health_app WITH GRANT OPTION",
            "REVOKE GRANT OPTION FOR SELECT ON TABLE health.notes FROM P_health_app",
        ),
        ("GRANT P_health_app TO P_general_app", "REVOKE P_health_app FROM P_general_app"),
        ("GRANT pg_read_all_data TO P_general_app", "REVOKE pg_read_all_data FROM P_general_app"),
        ("ALTER ROLE P_general_app CREATEROLE BYPASSRLS", "ALTER ROLE P_general_app NOBYPASSRLS NOCREATEROLE"),
        ("ALTER ROLE P_general_app NOLOGIN", "ALTER ROLE P_general_app LOGIN"),
        ("ALTER ROLE P_owner LOGIN", "ALTER ROLE P_owner NOLOGIN"),
        (
            "ALTER ROLE P_general_app SET search_path = health",
            "ALTER ROLE P_general_app SET search_path = general, shared, public",
        ),
        (
            "GRANT EXECUTE ON FUNCTION health.answer() TO PUBLIC",
            "REVOKE EXECUTE ON FUNCTION health.answer() FROM PUBLIC",
        ),
        (
            "GRANT USAGE ON SEQUENCE general.notes_id_seq TO P_health_app",
            "REVOKE USAGE ON SEQUENCE general.notes_id_seq FROM P_health_app",
        ),
        ("GRANT USAGE ON TYPE health.mood TO PUBLIC", "REVOKE USAGE ON TYPE health.mood FROM PUBLIC"),
        ("ALTER TABLE health.notes OWNER TO P_health_app", "ALTER TABLE health.notes OWNER TO P_owner"),
        ("ALTER SCHEMA health OWNER TO CURRENT_USER", "ALTER SCHEMA health OWNER TO P_owner"),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE P_owner IN SCHEMA health GRANT SELECT ON TABLES TO P_general_app",
            "ALTER DEFAULT PRIVILEGES FOR ROLE P_owner IN SCHEMA health REVOKE SELECT ON TABLES FROM P_general_app",
        ),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE P_owner IN SCHEMA health REVOKE DELETE ON TABLES FROM P_health_app",
            "ALTER DEFAULT PRIVILEGES FOR ROLE P_owner IN SCHEMA health GRANT DELETE ON TABLES TO P_health_app",
        ),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE P_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
            "ALTER DEFAULT PRIVILEGES FOR ROLE P_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        ),
    ] {
        land.execute(by_hand).await;
        let plan = land.plan(&topology).await;
        let wanted = land.named(wanted);
        // From 16 on a membership's grantor is named.
        let found = scripts(&plan).into_iter().any(|sql| sql.split(" GRANTED BY ").next() == Some(&wanted));
        assert!(found, "{by_hand}: {:#?}", scripts(&plan));
        assert!(plan.statements.len() <= 3, "{by_hand}: {:#?}", scripts(&plan));
        let applied = land.apply(&topology).await.unwrap_or_else(|error| panic!("{by_hand}: {error}"));
        assert!(land.plan(&topology).await.is_empty(), "{by_hand}");
        // And the way back makes it again what it was by hand.
        let cancel = Cancel::default();
        topology::undo(&land.session, &applied.undo, &how(&cancel, wish(), None)).await.unwrap();
        let again = land.plan(&topology).await;
        assert_eq!(scripts(&again), scripts(&plan), "{by_hand}");
        land.apply(&topology).await.unwrap();
    }
}

/// A superuser's REVOKE acts as the owner, and leaves what others have granted.
async fn a_revoke_runs_as_its_grantor(land: Land) {
    let topology = land.declare(TWO);
    land.apply(&topology).await.unwrap();
    land.execute(TABLES).await;
    land.execute("GRANT SELECT ON health.notes TO P_health_app WITH GRANT OPTION").await;
    land.execute("SET ROLE P_health_app; GRANT SELECT ON health.notes TO P_general_app; RESET ROLE").await;
    let plan = land.plan(&topology).await;
    let revoke = plan.statements.iter().find(|one| {
        one.sql.contains("P_general_app".replace("P_", &format!("{}_", land.prefix)).as_str())
            && one.sql.starts_with("REVOKE")
    });
    assert_eq!(revoke.unwrap().run_as, Some(land.named("P_health_app")));
    land.apply(&topology).await.unwrap();
    assert!(land.plan(&topology).await.is_empty());
    assert_eq!(land.value("SELECT has_table_privilege('P_general_app', 'health.notes', 'SELECT')").await, "f");
}

/// An operator that is no superuser cannot take back what a stranger has granted; what it takes back itself is then still
/// effective, and nothing is committed that only looks like an end.
#[tokio::test]
async fn what_is_still_effective_by_another_path_is_not_committed() {
    let land = Land::new().await;
    let operator = land.operator().await;
    let topology = land.declare(TWO);
    apply_on(&operator, &topology, wish(), None).await.unwrap();
    land.execute(TABLES).await;
    apply_on(&operator, &topology, wish(), None).await.unwrap();
    land.execute(
        "CREATE ROLE P_oncall;
         GRANT USAGE ON SCHEMA general TO P_oncall WITH GRANT OPTION;
         GRANT SELECT ON general.notes TO P_oncall WITH GRANT OPTION;
         SET ROLE P_oncall;
         GRANT USAGE ON SCHEMA general TO P_health_app;
         GRANT SELECT ON general.notes TO P_health_app;
         SET ROLE P_owner;
         GRANT SELECT ON general.notes TO P_health_app;
         RESET ROLE",
    )
    .await;
    let error = apply_on(&operator, &topology, wish(), None).await.unwrap_err();
    assert_eq!(error.code, "still-effective", "{error}");
    let wanted = land.named(
        "SELECT was taken from P_health_app on general.notes, and is still effective: P_oncall granted it too; rolled back",
    );
    assert_eq!(error.message, wanted);
    // A superuser acts as the stranger.
    land.apply(&topology).await.unwrap();
    assert!(land.plan(&topology).await.is_empty());
    assert_eq!(land.try_as("P_health_app", "SELECT * FROM general.notes").await, "42501");
}

#[tokio::test]
async fn many_revokes_must_be_expected() {
    let land = Land::new().await;
    let topology = land.declare(TWO);
    land.apply(&topology).await.unwrap();
    land.execute(TABLES).await;
    let tables: String = (0..12).map(|n| format!("CREATE TABLE general.t{n} ();")).collect();
    land.execute(&format!(
        "SET ROLE P_owner; {tables} RESET ROLE; GRANT SELECT ON ALL TABLES IN SCHEMA general TO P_health_app"
    ))
    .await;
    let error = land.apply(&topology).await.unwrap_err();
    assert_eq!(error.code, "revokes");
    assert!(error.message.starts_with("the plan takes away 13 of "), "{}", error.message);
    assert!(error.help.unwrap().contains("--expect-revokes 13"));
    let error = land.apply_with(&topology, wish(), Some(12)).await.unwrap_err();
    assert!(error.message.contains("takes away 13 granted privilege(s), and 12 were expected"), "{}", error.message);
    assert_eq!(land.value("SELECT has_table_privilege('P_health_app', 'general.t1', 'SELECT')").await, "t");
    land.apply_with(&topology, wish(), Some(13)).await.unwrap();
    assert!(land.plan(&topology).await.is_empty());
}

#[tokio::test]
async fn strangers_are_named_and_left_alone() {
    let land = Land::new().await;
    let topology = land.declare(TWO);
    land.apply(&topology).await.unwrap();
    land.execute(TABLES).await;
    land.apply(&topology).await.unwrap();
    land.execute("CREATE ROLE P_oncall; GRANT SELECT ON health.notes TO P_oncall; GRANT P_health_app TO P_oncall")
        .await;
    let plan = land.plan(&topology).await;
    assert!(plan.is_empty(), "{:?}", scripts(&plan));
    let wanted = [
        land.named("P_oncall has SELECT on objects of health, and is not declared"),
        land.named("P_oncall is a member of P_health_app, and is not declared"),
    ];
    assert_eq!(plan.foreign.iter().cloned().collect::<BTreeSet<_>>(), wanted.into_iter().collect());
}

async fn a_line_that_left_the_file_drops_nothing_and_retirement_takes_two_steps(land: Land) {
    let topology = land.declare(TWO);
    land.apply(&topology).await.unwrap();
    land.execute(TABLES).await;
    land.apply(&topology).await.unwrap();
    let without = TWO.replace("\"health\", \"general\"", "\"health\"");
    let plan = land.plan(&land.declare(&without)).await;
    assert!(scripts(&plan).iter().all(|sql| !sql.starts_with("DROP")), "{:#?}", scripts(&plan));
    // First step: no login, no access; everything is still there.
    let retired = format!("{without}\n[retired]\nroles = [\"P_general_app\"]\nschemas = [\"general\"]\n");
    let topology = land.declare(&retired);
    land.apply_with(&topology, wish(), Some(land.plan(&topology).await.revokes())).await.unwrap();
    assert_eq!(land.value("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'P_general_app'").await, "f");
    assert_eq!(land.value("SELECT has_schema_privilege('P_general_app', 'general', 'USAGE')").await, "f");
    assert_eq!(land.value("SELECT count(*) FROM general.notes").await, "0");
    assert!(land.plan(&topology).await.is_empty());
    // Second step.
    let prune = Wish { prune: true, ..wish() };
    let applied = land.apply_with(&topology, prune, None).await.unwrap();
    assert!(applied.one_way.contains(&"DROP SCHEMA general CASCADE".to_owned()), "{:?}", applied.one_way);
    assert_eq!(land.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'general'").await, "0");
    assert_eq!(land.value("SELECT count(*) FROM pg_roles WHERE rolname = 'P_general_app'").await, "0");
    assert!(topology::plan(&land.session, &topology, &prune).await.unwrap().is_empty());
}

#[tokio::test]
async fn no_grant_that_stays_is_missing_for_a_moment() {
    let land = Land::new().await;
    let topology = land.declare(TWO);
    land.apply(&topology).await.unwrap();
    land.execute(TABLES).await;
    land.apply(&topology).await.unwrap();
    let options = ConnectOptions {
        user: land.named("P_health_app"),
        password: Some("pässword 'x'".to_owned()),
        ..land.options.clone()
    };
    let reader = Session::connect(&options, "reader").await.unwrap();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = done.clone();
    let reading = tokio::spawn(async move {
        let mut reads = 0u32;
        while !stop.load(Ordering::SeqCst) || reads < 50 {
            reader.execute("INSERT INTO health.notes (body) VALUES ('x')").await.unwrap();
            reads += 1;
        }
        reads
    });
    for _ in 0..5 {
        land.execute("GRANT DELETE ON shared.registry TO P_health_app; GRANT SELECT ON general.notes TO P_health_app")
            .await;
        land.apply(&topology).await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    assert!(reading.await.unwrap() >= 50);
}

/// The first round makes the same roles from both sides.
#[tokio::test]
async fn two_topologies_at_once_are_both_right() {
    let cluster = cluster().await;
    let (a, b) = (Land::new().await, Land::on(cluster.fresh_database("topology").await.unwrap()).await);
    // The same roles in two databases of a cluster.
    let b = Land { prefix: a.prefix.clone(), ..b };
    for round in 0..4 {
        if round > 0 {
            a.execute("ALTER ROLE P_health_app NOLOGIN; ALTER ROLE P_general_app SET search_path = x").await;
        }
        let (first, second) = (a.declare(TWO), b.declare(TWO));
        let (one, other) = tokio::join!(a.apply(&first), b.apply(&second));
        one.unwrap();
        other.unwrap();
        assert!(a.plan(&first).await.is_empty());
        assert!(b.plan(&second).await.is_empty());
    }
}

async fn row_security_and_append_only_are_made_and_mended(land: Land) {
    let text = format!(
        "append_only = [\"shared.log\"]\n{TWO}\n[rls.community]\ntables = [\"shared.lots\"]\ncolumn = \"community_id\"\n\
         setting = \"app.community_id\"\ntype = \"uuid\"\nguard = \"shared.current_community\"\nwithout = \"error\"\n\
         roles = [\"P_health_app\"]\n[[status]]\ntable = \"shared.lots\"\ncolumn = \"status\"\nfrom = \"active\"\n\
         to = [\"expired\", \"depleted\"]\n"
    )
    .replace(
        "update = [\"registry(note)\"]",
        "select = [\"lots\"]\ninsert = [\"lots\"]\nupdate = [\"lots\"]\ndelete = [\"lots\"]\ntruncate = [\"lots\"]",
    )
    .replace("select = [\"registry\"]\n", "");
    let topology = land.declare(&text);
    land.apply(&topology).await.unwrap();
    land.execute(TABLES).await;
    land.execute(
        "SET ROLE P_owner; CREATE TABLE shared.log (id int); INSERT INTO shared.log VALUES (1);
         CREATE TABLE shared.lots (id int, community_id uuid, status text); RESET ROLE",
    )
    .await;
    land.apply(&topology).await.unwrap();
    assert!(land.plan(&topology).await.is_empty(), "{:#?}", land.plan(&topology).await);
    let a = "11111111-1111-1111-1111-111111111111";
    let b = "22222222-2222-2222-2222-222222222222";
    let context = |id: &str| format!("SET LOCAL app.community_id = '{id}';");
    land.execute(&format!("INSERT INTO shared.lots VALUES (1, '{a}', 'active'), (2, '{b}', 'active')")).await;
    for (sql, wanted) in [
        (format!("{} SELECT 1 / (SELECT (count(*) = 1)::int FROM shared.lots)", context(a)), "ok"),
        (format!("{} INSERT INTO shared.lots VALUES (3, '{a}', 'active')", context(a)), "ok"),
        (format!("{} INSERT INTO shared.lots VALUES (3, '{b}', 'active')", context(a)), "42501"),
        ("SELECT * FROM shared.lots".to_owned(), "P0001"),
        ("SET LOCAL app.community_id = ''; SELECT * FROM shared.lots".to_owned(), "P0001"),
    ] {
        assert_eq!(land.try_as("P_health_app", &sql).await, wanted, "{sql}");
    }
    let owner = |sql: &str| format!("{} {sql}", context(a));
    for (sql, wanted) in [
        ("UPDATE shared.log SET id = 2", "23001"),
        ("DELETE FROM shared.log", "23001"),
        ("TRUNCATE shared.log", "23001"),
        ("UPDATE shared.log SET id = 2 WHERE false", "23001"),
        ("INSERT INTO shared.log VALUES (2)", "ok"),
        ("UPDATE shared.lots SET status = 'expired'", "ok"),
        ("UPDATE shared.lots SET status = 'gone'", "23001"),
        ("UPDATE shared.lots SET id = 7", "23001"),
        ("DELETE FROM shared.lots", "23001"),
        ("TRUNCATE shared.lots", "23001"),
        ("UPDATE shared.lots SET status = 'expired'; UPDATE shared.lots SET status = 'active'", "23001"),
    ] {
        // The policies are for the runtime role alone: forced, they hide every row from the owner.
        let role = if sql.contains("lots") { "P_health_app" } else { "P_owner" };
        assert_eq!(land.try_as(role, &owner(sql)).await, wanted, "{sql}");
    }
    // A replica session fires the triggers too.
    let refused = land.session.execute("SET session_replication_role = replica; DELETE FROM shared.log").await;
    assert_eq!(refused.unwrap_err().sqlstate(), Some("23001"));
    land.execute("RESET session_replication_role").await;
    for (by_hand, wanted) in [
        (
            "ALTER TABLE shared.log DISABLE TRIGGER append_only",
            "ALTER TABLE shared.log ENABLE ALWAYS TRIGGER append_only",
        ),
        ("DROP TRIGGER append_only ON shared.log", "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE"),
        ("ALTER TABLE shared.lots DISABLE ROW LEVEL SECURITY", "ALTER TABLE shared.lots ENABLE ROW LEVEL SECURITY"),
        ("ALTER TABLE shared.lots NO FORCE ROW LEVEL SECURITY", "ALTER TABLE shared.lots FORCE ROW LEVEL SECURITY"),
        (
            "ALTER POLICY tenant_community ON shared.lots USING (true)",
            "ALTER POLICY tenant_community ON shared.lots TO",
        ),
        ("DROP POLICY tenant_community ON shared.lots", "CREATE POLICY tenant_community ON shared.lots FOR ALL"),
    ] {
        land.execute(by_hand).await;
        let plan = land.plan(&topology).await;
        assert_eq!(plan.statements.len(), 1, "{by_hand}: {:#?}", scripts(&plan));
        assert!(plan.statements[0].sql.starts_with(wanted), "{by_hand}: {:#?}", scripts(&plan));
        land.apply(&topology).await.unwrap();
        assert!(land.plan(&topology).await.is_empty());
    }
    land.execute("CREATE POLICY open ON shared.lots USING (true)").await;
    let foreign = land.plan(&topology).await.foreign;
    assert_eq!(foreign, ["the policy open on shared.lots lets rows through beside the declared one"]);
}

/// As on managed PostgreSQL: the operator may create roles and owns the database, and is no superuser.
async fn an_operator_without_superuser_applies_what_it_may_and_says_the_rest(land: Land) {
    land.execute("CREATE ROLE P_operator LOGIN CREATEROLE CREATEDB PASSWORD 'secret'").await;
    let database = land.value("SELECT current_database()").await;
    land.execute(&format!("ALTER DATABASE {database} OWNER TO P_operator")).await;
    let options =
        ConnectOptions { user: land.named("P_operator"), password: Some("secret".to_owned()), ..land.options.clone() };
    let operator = Session::connect(&options, "operator").await.unwrap();
    let topology = land.declare(TWO);
    let applied = apply_on(&operator, &topology, wish(), None).await.unwrap();
    assert!(applied.plan.warnings.iter().any(|one| one.contains("only a superuser gives it to")), "{:?}", applied.plan);
    land.execute(TABLES).await;
    apply_on(&operator, &topology, wish(), None).await.unwrap();
    let plan = topology::plan(&operator, &topology, &wish()).await.unwrap();
    assert!(plan.is_empty(), "{:#?}", scripts(&plan));
    assert_eq!(land.try_as("P_health_app", "SELECT * FROM shared.registry").await, "ok");
    assert_eq!(land.try_as("P_health_app", "SELECT * FROM general.notes").await, "42501");
    // What only a superuser can mend is said, and the rest is done.
    land.execute("ALTER ROLE P_health_app BYPASSRLS; GRANT SELECT ON general.notes TO P_health_app").await;
    let applied = apply_on(&operator, &topology, wish(), None).await.unwrap();
    let wanted = land.named("P_health_app keeps BYPASSRLS: P_operator may not take it");
    let before_15 = "everybody may create in public: only postgres can end that".to_owned();
    let public = if applied.plan.cannot.len() > 1 { vec![before_15] } else { Vec::new() };
    assert_eq!(applied.plan.cannot, [vec![wanted], public].concat());
    assert_eq!(land.value("SELECT has_table_privilege('P_health_app', 'general.notes', 'SELECT')").await, "f");
}

#[tokio::test]
async fn a_role_that_is_dropped_meanwhile_is_told_in_one_sentence() {
    let land = Land::new().await;
    let topology = land.declare(TWO);
    land.apply(&topology).await.unwrap();
    let other = Session::connect(&land.options, "other").await.unwrap();
    land.execute("ALTER ROLE P_general_app NOLOGIN; CREATE TABLE shared.registry (id int, note text)").await;
    // The plan's lock is waited for while the role goes.
    other.execute("BEGIN; SELECT pg_advisory_xact_lock(1885827694, 2)").await.unwrap();
    let dropping = async {
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 2
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        while other.value(waits).await.unwrap() == "0" {
            tokio::task::yield_now().await;
        }
        let drop = land.named("DROP OWNED BY P_general_app; DROP ROLE P_general_app; COMMIT");
        other.execute(&drop).await.unwrap();
    };
    let (applied, ()) = tokio::join!(land.apply(&topology), dropping);
    // The state is read after the lock was had: it is made anew.
    let created = applied.unwrap();
    assert!(scripts(&created.plan)[0].starts_with(&land.named("CREATE ROLE P_general_app LOGIN")));
    assert!(land.plan(&topology).await.is_empty());
}

const RUNBOOK: &str = r#"# Topology

## Apply

```toml step
topology = "roles"
target = "main"
undo = "auto"
```
"#;

#[tokio::test]
async fn a_step_applies_and_its_undo_is_the_inverse() {
    let mut bench = Bench::new().await;
    bench.env.push(("PASSWORD".to_owned(), "hunter2 is secret".to_owned()));
    let land = Land::on(bench.database.clone()).await;
    bench.write("topology.toml", &land.named(TWO));
    let (run, end) = bench.run(RUNBOOK).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let evidence = bench.evidence(&run, "roles").await;
    assert!(!serde_json::to_string(&evidence).unwrap().contains("SCRAM-SHA-256$"), "{evidence:?}");
    assert_eq!(land.value("SELECT count(*) FROM pg_roles WHERE starts_with(rolname, 'P_')").await, "4");
    assert!(land.plan(&land.declare(TWO)).await.is_empty());
    let end = bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!(land.value("SELECT count(*) FROM pg_roles WHERE starts_with(rolname, 'P_')").await, "0");
    assert_eq!(land.value("SELECT count(*) FROM pg_namespace WHERE nspname IN ('health', 'shared')").await, "0");
}

#[tokio::test]
async fn a_step_that_prunes_needs_to_be_one_way() {
    let bench = Bench::new().await;
    let text = RUNBOOK.replace("target =", "prune = true\ntarget =");
    let parsed =
        pgrunbook_document::parse("R.md", &text, &|_| Err(String::new()), pgrunbook_steps::registry::vocabulary());
    let found = pgrunbook_document::lint(&parsed, pgrunbook_steps::registry::vocabulary());
    assert!(found.iter().any(|one| one.code == "prune"), "{found:#?}");
    drop(bench);
}

#[tokio::test]
async fn a_project_without_a_declaration_says_so() {
    let bench = Bench::new().await;
    let engine = bench.engine().await;
    let plan = engine.plan(&bench.parse(RUNBOOK), &Default::default()).await;
    let text = format!("{:?}", plan.err());
    assert!(text.contains("this project declares no topology: there is no topology.toml"), "{text}");
}

async fn what_is_imported_is_what_was_declared(land: Land) {
    let topology = land.declare(TWO);
    land.apply(&topology).await.unwrap();
    land.execute(TABLES).await;
    land.apply(&topology).await.unwrap();
    let text = topology::import(&land.session).await.unwrap();
    std::fs::write(land.folder.path().join("topology.toml"), &text).unwrap();
    let imported = topology::load(land.folder.path(), "default").unwrap_or_else(|error| panic!("{error}\n{text}"));
    let plan = land.plan(&imported).await;
    assert!(plan.is_empty(), "{text}\n{:#?}", scripts(&plan));
    let health = &imported.roles[&land.named("P_health_app")];
    assert_eq!(health.access["health"].name, "all", "{text}");
    assert_eq!(health.search_path, ["health", "shared", "public"]);
    assert_eq!(imported.owner, land.named("P_owner"));
    // What cannot be declared is said.
    land.execute("GRANT pg_read_all_data TO P_health_app; GRANT SELECT ON shared.secrets TO PUBLIC").await;
    let text = topology::import(&land.session).await.unwrap();
    for wanted in
        ["It is a member of pg_read_all_data, which cannot be declared", "everybody has SELECT on shared.secrets"]
    {
        assert!(text.contains(wanted), "{text}");
    }
}
