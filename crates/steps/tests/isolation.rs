//! Isolation proven by trying: a healthy base of two tenants, and each way in which it can be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::Date;
use pgrunbook_engine::{Cancel, RunEnd, StepError};
use pgrunbook_postgres::sandbox::{Pooler, Sandbox, shared_of};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::isolation::{About, Action, How, Matrix, Method, Verdict, prove};
use pgrunbook_steps::secret::Reference;
use pgrunbook_steps::topology::{Topology, load};

use crate::bench::{Bench, cluster, failure};
use crate::isolation_rows::{RAISE, ROWS_SQL, about, without_pooler};
use crate::topology::{Land, TABLES, TWO};

/// Two tenants and what they share, on one screen. `{x}` is this test's own suffix: roles belong to the whole cluster.
pub const TOPOLOGY: &str = r#"
suffix = "{x}"
[database]
owner = "owner{suffix}"
legacy = ["legacy_*"]
[tenants]
list = ["health", "general"]
[schemas]
shared = { owner_rights = ["cards"] }
"{tenant}" = {}
[access.approved]
select = ["registry", "contacts", "cards", "ledger"]
insert = ["contacts", "ledger"]
update = ["contacts(phone)", "ledger"]
delete = ["ledger"]
execute = ["greet(text)"]
[roles."app_{tenant}{suffix}"]
kind = "runtime"
password = "env:APP"
search_path = ["{tenant}", "shared", "public"]
access = { "{tenant}" = "all", shared = "approved" }
[roles."viewer{suffix}"]
kind = "read-only"
access = { shared = "views" }
"#;

/// What an apply of it would make, by hand: the probes must not depend on it.
const BASE: &str = r#"
CREATE ROLE owner{x};
CREATE ROLE app_health{x} LOGIN PASSWORD 'app';
CREATE ROLE app_general{x} LOGIN PASSWORD 'app';
CREATE ROLE viewer{x} LOGIN;
REVOKE ALL ON DATABASE {db} FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CONNECT ON DATABASE {db} TO app_health{x}, app_general{x}, viewer{x};
ALTER ROLE app_health{x} IN DATABASE {db} SET search_path = health, shared, public;
ALTER ROLE app_general{x} IN DATABASE {db} SET search_path = general, shared, public;
CREATE SCHEMA shared AUTHORIZATION owner{x};
CREATE SCHEMA health AUTHORIZATION owner{x};
CREATE SCHEMA general AUTHORIZATION owner{x};
SET ROLE owner{x};
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
CREATE TABLE shared.registry (id int PRIMARY KEY, name text);
CREATE TABLE shared.contacts (id serial PRIMARY KEY, phone text, note text);
CREATE TABLE shared.secrets (id int PRIMARY KEY, value text);
CREATE VIEW shared.cards AS SELECT id, name FROM shared.registry;
CREATE FUNCTION shared.greet(text) RETURNS text LANGUAGE sql STRICT IMMUTABLE AS $$SELECT 'hello ' || $1$$;
CREATE FUNCTION shared.wipe(int) RETURNS int LANGUAGE sql STRICT IMMUTABLE AS $$SELECT $1$$;
INSERT INTO shared.registry VALUES (1, 'a');
INSERT INTO shared.contacts (phone) VALUES ('1');
INSERT INTO shared.secrets VALUES (1, 's');
GRANT USAGE ON SCHEMA shared TO app_health{x}, app_general{x}, viewer{x};
GRANT SELECT ON shared.registry, shared.contacts, shared.cards TO app_health{x}, app_general{x};
GRANT INSERT, UPDATE (phone) ON shared.contacts TO app_health{x}, app_general{x};
GRANT EXECUTE ON FUNCTION shared.greet(text) TO app_health{x}, app_general{x};
GRANT SELECT ON shared.cards TO viewer{x};
"#;

const TENANT: &str = r#"
CREATE TABLE {t}.notes (id bigserial PRIMARY KEY, body text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE {t}.events (id bigint GENERATED ALWAYS AS IDENTITY, kind text, size int GENERATED ALWAYS AS (1) STORED);
CREATE VIEW {t}.recent AS SELECT id, body FROM {t}.notes;
CREATE FUNCTION {t}.size() RETURNS bigint LANGUAGE sql STABLE AS $$SELECT count(*) FROM {t}.notes$$;
CREATE PROCEDURE {t}.tidy() LANGUAGE plpgsql AS $$BEGIN RAISE 'never called'; END$$;
CREATE FUNCTION {t}.touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
INSERT INTO {t}.notes (body) VALUES ('n');
INSERT INTO {t}.events (kind) VALUES ('k');
GRANT USAGE ON SCHEMA {t} TO app_{t}{x};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {t} TO app_{t}{x};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {t} TO app_{t}{x};
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {t} TO app_{t}{x};
"#;

pub struct World {
    /// The declaration, as it was read.
    text: String,
    pub options: ConnectOptions,
    pub topology: Topology,
    /// What stands for `{x}`.
    pub suffix: String,
    pub pooler: Option<Pooler>,
    pub poolers: BTreeMap<String, ConnectOptions>,
}

impl World {
    async fn new() -> Self {
        Self::with("", "").await
    }

    /// With more in the declaration, and more statements as the superuser.
    pub async fn with(declared: &str, sql: &str) -> Self {
        Self::on(cluster().await, declared, sql).await
    }

    async fn on(cluster: Sandbox, declared: &str, sql: &str) -> Self {
        let options = cluster.fresh_database("isolation").await.unwrap();
        let suffix = format!("_{}", options.database.rsplit('_').next().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let text = format!("{TOPOLOGY}{declared}").replace("{x}", &suffix);
        std::fs::write(folder.path().join("topology.toml"), &text).unwrap();
        let topology = load(folder.path(), "default").unwrap();
        let world = Self { text, options, topology, suffix, pooler: None, poolers: BTreeMap::new() };
        let base = format!("{BASE}{}{}RESET ROLE;", TENANT.replace("{t}", "health"), TENANT.replace("{t}", "general"));
        world.execute(&base).await;
        world.execute(sql).await;
        world
    }

    pub async fn execute(&self, sql: &str) {
        let sql = sql.replace("{x}", &self.suffix).replace("{db}", &self.options.database);
        Session::connect(&self.options, "test").await.unwrap().execute(&sql).await.unwrap();
    }

    pub async fn value(&self, sql: &str) -> String {
        Session::connect(&self.options, "test").await.unwrap().value(sql).await.unwrap()
    }

    pub fn role(&self, name: &str) -> String {
        format!("{name}{}", self.suffix)
    }

    async fn try_prove(&self, change: impl FnOnce(&mut How<'_>)) -> Result<Matrix, StepError> {
        let password =
            |reference: &Reference| (*reference == Reference::Env("APP".to_owned())).then(|| "app".to_owned());
        self.prove_as(&self.options, &password, change).await
    }

    async fn prove_as(
        &self,
        options: &ConnectOptions,
        password: &(dyn Fn(&Reference) -> Option<String> + Send + Sync),
        change: impl FnOnce(&mut How<'_>),
    ) -> Result<Matrix, StepError> {
        let pooler = |target: &str| self.poolers.get(target).cloned();
        let mut how = How {
            all_objects: false,
            roles: None,
            schemas: None,
            today: Date::constant(2026, 11, 21),
            password,
            pooler: &pooler,
            statement_timeout: Duration::from_secs(20),
            application_name: "pgrunbook:test",
            cancel: &Cancel::default(),
            tell: &|_, _| {},
        };
        change(&mut how);
        prove(options, &self.topology, &how).await
    }

    pub async fn prove(&self) -> Matrix {
        self.try_prove(|_| {}).await.unwrap()
    }

    /// Cells and checks with a verdict: `app_health general SELECT`, `app_health SET ROLE`.
    pub fn with_verdict(&self, matrix: &Matrix, verdict: Verdict) -> BTreeSet<String> {
        let cells = matrix.cells.iter().filter(|cell| cell.verdict == verdict).map(|cell| {
            format!("{} {} {}", matrix.roles[cell.role].name, matrix.schemas[cell.schema], cell.action.word())
        });
        let checks = matrix.checks.iter().filter(|check| check.tried.verdict == verdict);
        let checks = checks.map(|check| format!("{} {}: {}", check.role, check.about.word(), check.what));
        cells.chain(checks).map(|line| line.replace(&self.suffix, "")).collect()
    }

    /// What is leaked after these statements.
    async fn leaks(sql: &str) -> (Matrix, BTreeSet<String>) {
        let world = Self::with("", sql).await;
        let matrix = world.prove().await;
        let leaked = world.with_verdict(&matrix, Verdict::Leaked);
        (matrix, leaked)
    }
}

pub fn set(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

pub fn is_healthy(matrix: &Matrix) {
    let wrong: Vec<_> = matrix
        .findings()
        .map(|found| {
            let tried = found.tried;
            format!(
                "{} {} {} {}: {} -> {} ({})",
                tried.verdict.word(),
                found.role,
                found.what,
                tried.object,
                tried.statement,
                tried.answer,
                tried.why.as_deref().unwrap_or_default()
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn healthy_base_is_proved_and_nothing_stays_behind() {
    let world = World::new().await;
    let count = "SELECT (SELECT count(*) FROM health.notes) || ' ' || (SELECT count(*) FROM shared.contacts)";
    let before = world.value(count).await;
    let matrix = world.prove().await;
    is_healthy(&matrix);
    assert!(matrix.is_proved());
    let verdict =
        |role: &str, schema: &str, action| matrix.cell(&world.role(role), schema, action).map(|cell| cell.verdict);
    for action in [Action::Usage, Action::Select, Action::Insert, Action::Update, Action::Delete, Action::Execute] {
        assert_eq!(verdict("app_health", "health", action), Some(Verdict::Works), "{action:?}");
        assert_eq!(verdict("app_health", "general", action), Some(Verdict::Denied), "{action:?}");
    }
    assert_eq!(verdict("app_health", "health", Action::Truncate), Some(Verdict::Denied));
    assert_eq!(verdict("app_health", "health", Action::Create), Some(Verdict::Denied));
    assert_eq!(verdict("app_health", "public", Action::Create), Some(Verdict::Denied));
    // Some objects there work, others are denied; both are as declared.
    let shared = matrix.cell(&world.role("app_health"), "shared", Action::Select).unwrap();
    let denied: Vec<_> = shared.tries.iter().filter(|tried| tried.verdict == Verdict::Denied).collect();
    assert_eq!(denied.iter().map(|tried| tried.object.as_str()).collect::<Vec<_>>(), ["shared.secrets"]);
    assert_eq!(denied[0].answer.sqlstate.as_deref(), Some("42501"));
    assert!(denied[0].control.as_ref().unwrap().starts_with("the same role: EXPLAIN "), "{:?}", denied[0].control);
    // Nobody with bounds deletes in `shared`: the owner's success is the control.
    let viewer = matrix.cell(&world.role("viewer"), "shared", Action::Delete).unwrap();
    assert!(viewer.tries.iter().all(|tried| tried.control.is_some()), "{viewer:#?}");
    let methods: Vec<_> = matrix.roles.iter().map(|role| role.method.clone()).collect();
    assert_eq!(methods, [Method::Login, Method::Login, Method::SessionAuthorization]);
    assert_eq!((matrix.coverage.roles, matrix.schemas.len()), (3, 4));
    assert_eq!(world.value(count).await, before);
}

#[tokio::test]
async fn all_objects_are_tried_on_demand() {
    let world = World::new().await;
    let some = world.prove().await.coverage;
    let all = world.try_prove(|how| how.all_objects = true).await.unwrap();
    is_healthy(&all);
    assert_eq!(all.coverage.tried, all.coverage.objects);
    assert!(some.tried < all.coverage.tried, "{some:?} {:?}", all.coverage);
}

#[tokio::test]
async fn grant_to_public_is_found() {
    let (matrix, leaked) =
        World::leaks("GRANT USAGE ON SCHEMA general TO PUBLIC; GRANT SELECT ON general.notes TO PUBLIC").await;
    let wanted =
        ["app_health general SELECT", "app_health general USAGE", "viewer general SELECT", "viewer general USAGE"];
    assert_eq!(leaked, set(&wanted));
    let found = matrix.of(Verdict::Leaked).find(|found| found.what == "SELECT").unwrap();
    assert_eq!(
        (found.tried.object.as_str(), found.tried.statement.as_str(), found.tried.answer.to_string().as_str()),
        ("general.notes", "EXPLAIN SELECT FROM general.notes", "it works")
    );
}

#[tokio::test]
async fn grant_on_the_one_table_that_is_no_representative_is_found() {
    let (_, leaked) =
        World::leaks("GRANT USAGE ON SCHEMA general TO app_health{x}; GRANT DELETE ON general.events TO app_health{x}")
            .await;
    assert_eq!(leaked, set(&["app_health general USAGE", "app_health general DELETE"]));
}

#[tokio::test]
async fn grant_on_one_column_is_found() {
    for (privilege, word) in
        [("SELECT", "SELECT"), ("INSERT", "INSERT"), ("UPDATE", "UPDATE"), ("REFERENCES", "REFERENCES")]
    {
        let (matrix, leaked) = World::leaks(&format!(
            "GRANT USAGE ON SCHEMA general TO app_health{{x}}; GRANT {privilege} (body) ON general.notes TO app_health{{x}}"
        ))
        .await;
        assert_eq!(leaked, set(&["app_health general USAGE", &format!("app_health general {word}")]));
        if privilege == "UPDATE" {
            let found = matrix.of(Verdict::Leaked).find(|found| found.what == "UPDATE").unwrap();
            assert_eq!(found.tried.object, "general.notes(body)");
        }
    }
}

#[tokio::test]
async fn one_column_more_than_declared_is_found() {
    let (matrix, leaked) = World::leaks("GRANT UPDATE (note) ON shared.contacts TO app_health{x}").await;
    assert_eq!(leaked, set(&["app_health shared UPDATE"]));
    let found = matrix.of(Verdict::Leaked).next().unwrap();
    assert_eq!(found.tried.statement, "EXPLAIN UPDATE shared.contacts SET note = DEFAULT");
}

#[tokio::test]
async fn membership_is_found_in_everything_that_it_gives() {
    let (_, leaked) = World::leaks("GRANT app_general{x} TO app_health{x}").await;
    let wanted = [
        "app_health SET ROLE: becoming app_general",
        "app_health general DELETE",
        "app_health general EXECUTE",
        "app_health general INSERT",
        "app_health general SELECT",
        "app_health general UPDATE",
        "app_health general USAGE",
        "app_health general sequences",
    ];
    assert_eq!(leaked, set(&wanted));
}

#[tokio::test]
async fn predefined_role_is_found() {
    let (_, leaked) = World::leaks("GRANT pg_read_all_data TO viewer{x}").await;
    let wanted = |schema: &str| ["USAGE", "SELECT", "sequences"].map(|action| format!("viewer {schema} {action}"));
    let mut all: BTreeSet<String> = wanted("general").into_iter().chain(wanted("health")).collect();
    all.extend(set(&["viewer shared SELECT", "viewer shared sequences"]));
    assert_eq!(leaked, all);
}

#[tokio::test]
async fn view_with_its_owners_rights_leaks_what_it_reaches() {
    let sql = "CREATE VIEW health.peek AS SELECT body FROM general.notes; ALTER VIEW health.peek OWNER TO owner{x};
               GRANT SELECT, INSERT, UPDATE, DELETE ON health.peek TO app_health{x}";
    let (matrix, leaked) = World::leaks(sql).await;
    let wanted = ["DELETE", "INSERT", "SELECT", "UPDATE"].map(|action| format!("app_health general {action}"));
    assert_eq!(leaked, wanted.into_iter().collect());
    let found = matrix.of(Verdict::Leaked).find(|found| found.what == "SELECT").unwrap();
    assert_eq!(found.tried.object, "general.notes through health.peek");
    assert_eq!(found.tried.why.as_deref(), Some("health.peek acts with its owner's rights"));
    // Somebody wanted it.
    let mut world = World::with("", sql).await;
    world.topology.schemas.get_mut("health").unwrap().owner_rights.insert("peek".to_owned());
    is_healthy(&world.prove().await);
}

#[tokio::test]
async fn function_that_everybody_may_execute_is_found() {
    let (_, leaked) = World::leaks("GRANT EXECUTE ON FUNCTION shared.wipe(int) TO PUBLIC").await;
    let wanted = ["app_general shared EXECUTE", "app_health shared EXECUTE", "viewer shared EXECUTE"];
    assert_eq!(leaked, set(&wanted));
}

#[tokio::test]
async fn what_is_asked_of_the_catalog_is_found() {
    let (_, leaked) = World::leaks(
        "GRANT TRUNCATE, TRIGGER ON health.notes TO app_health{x}; GRANT CREATE ON SCHEMA health TO app_health{x};
         GRANT CREATE ON SCHEMA public TO viewer{x}; GRANT TEMPORARY ON DATABASE {db} TO viewer{x};
         GRANT UPDATE ON SEQUENCE health.notes_id_seq TO app_health{x}",
    )
    .await;
    let wanted = [
        "app_health health CREATE",
        "app_health health TRIGGER",
        "app_health health TRUNCATE",
        "app_health health sequences",
        "viewer database: TEMPORARY on the database",
        "viewer public CREATE",
    ];
    assert_eq!(leaked, set(&wanted));
}

#[tokio::test]
async fn schema_that_nobody_declared_is_tried_too() {
    let (_, leaked) = World::leaks(
        "CREATE SCHEMA attic; CREATE TABLE attic.old AS SELECT 1 AS n; CREATE TABLE public.stray AS SELECT 1 AS n;
         GRANT USAGE ON SCHEMA attic TO viewer{x}; GRANT SELECT ON attic.old, public.stray TO viewer{x}",
    )
    .await;
    assert_eq!(leaked, set(&["viewer attic USAGE", "viewer attic SELECT", "viewer public SELECT"]));
}

#[tokio::test]
async fn declared_access_that_is_missing_is_broken() {
    let world = World::with(
        "",
        "REVOKE DELETE ON health.notes FROM app_health{x}; REVOKE UPDATE (phone) ON shared.contacts FROM app_health{x};
         REVOKE USAGE ON SEQUENCE general.notes_id_seq FROM app_general{x}; REVOKE USAGE ON SCHEMA shared FROM viewer{x};
         REVOKE CONNECT ON DATABASE {db} FROM viewer{x}",
    )
    .await;
    let matrix = world.prove().await;
    let wanted = [
        "app_general general sequences",
        "app_health health DELETE",
        "app_health shared UPDATE",
        "viewer database: CONNECT on the database",
        "viewer shared SELECT",
        "viewer shared USAGE",
    ];
    assert_eq!(world.with_verdict(&matrix, Verdict::Broken), set(&wanted));
    assert_eq!(world.with_verdict(&matrix, Verdict::Leaked), set(&[]));
}

#[tokio::test]
async fn denial_on_an_empty_table_proves_nothing() {
    let world = World::with("", "DELETE FROM general.notes; DELETE FROM general.events").await;
    let matrix = world.prove().await;
    let found = world.with_verdict(&matrix, Verdict::Inconclusive);
    assert!(found.contains("app_health general SELECT") && found.contains("viewer general DELETE"), "{found:?}");
    assert!(found.iter().all(|line| line.contains("general")), "{found:?}");
    let why = matrix.of(Verdict::Inconclusive).next().unwrap().tried.why.clone().unwrap();
    assert!(why.contains("is empty"), "{why}");
    // One filled table of a kind is enough: it stands for those like it.
    world.execute("INSERT INTO general.notes (body) VALUES ('n')").await;
    let found = world.prove().await;
    assert_eq!(found.count(Verdict::Leaked) + found.count(Verdict::Broken), 0);
}

#[tokio::test]
async fn denial_without_a_positive_control_proves_nothing() {
    let world = World::with(
        "",
        "CREATE TABLE shared.nobodys AS SELECT 1 AS n; REVOKE ALL ON shared.nobodys FROM PUBLIC, owner{x}",
    )
    .await;
    let only = BTreeSet::from([world.role("viewer")]);
    let matrix = world.try_prove(|how| how.roles = Some(only)).await.unwrap();
    let found = world.with_verdict(&matrix, Verdict::Inconclusive);
    let wanted = ["DELETE", "INSERT", "UPDATE"].map(|action| format!("viewer shared {action}"));
    assert_eq!(found, wanted.into_iter().collect());
    let tried = matrix.of(Verdict::Inconclusive).next().unwrap().tried;
    assert_eq!(tried.object.split('(').next(), Some("shared.nobodys"));
    assert!(tried.why.as_ref().unwrap().contains("no positive control"), "{tried:?}");
}

#[tokio::test]
async fn nothing_examined_is_a_failure() {
    let world = World::new().await;
    let only = |name: &str| Some(BTreeSet::from([name.to_owned()]));
    let error = world.try_prove(|how| how.roles = only("app_helth")).await.unwrap_err();
    assert!(error.message.contains("`app_helth` is no role of"), "{error}");
    world.execute("DROP SCHEMA health, general, shared CASCADE").await;
    let error = world.try_prove(|_| {}).await.unwrap_err();
    assert_eq!(error.code, "nothing-examined");
    assert!(error.message.contains("there is no object to examine"), "{error}");
}

#[tokio::test]
async fn role_and_schema_that_are_gone_are_told() {
    let world = World::with("", "DROP SCHEMA general CASCADE; DROP OWNED BY viewer{x}; DROP ROLE viewer{x}").await;
    let matrix = world.prove().await;
    let wanted = ["app_general general USAGE", "viewer login: the role"];
    assert_eq!(world.with_verdict(&matrix, Verdict::Broken), set(&wanted));
}

#[tokio::test]
async fn search_path_is_the_one_that_a_login_gets() {
    let world =
        World::with("", "ALTER ROLE app_health{x} IN DATABASE {db} SET search_path = shared, health, public").await;
    let login = world.prove().await;
    let wanted = set(&["app_health search_path: search_path at login"]);
    assert_eq!(world.with_verdict(&login, Verdict::Broken), wanted);
    // The same where its settings are replayed, whatever the privileged role has of its own.
    world.execute("ALTER ROLE postgres IN DATABASE {db} SET search_path = nowhere").await;
    let matrix = world.prove_as(&world.options, &|_| None, |_| {}).await.unwrap();
    assert_eq!(world.with_verdict(&matrix, Verdict::Broken), wanted);
    assert!(matrix.roles.iter().all(|role| role.method == Method::SessionAuthorization));
    assert!(matrix.is_proved() || matrix.count(Verdict::Broken) == 1);
}

#[tokio::test]
async fn refused_login_is_told_and_the_rest_is_tried_all_the_same() {
    let world = World::new().await;
    let matrix = world.prove_as(&world.options, &|_| Some("wrong".to_owned()), |_| {}).await.unwrap();
    let wanted = set(&["app_general login: login", "app_health login: login"]);
    assert_eq!(world.with_verdict(&matrix, Verdict::Broken), wanted);
    assert_eq!(matrix.roles[0].method, Method::SessionAuthorization);
    let tried = matrix.checks.iter().find(|check| check.about == About::Login).unwrap();
    assert_eq!(tried.tried.answer.sqlstate.as_deref(), Some("28P01"));
    assert_eq!(tried.tried.statement, "login with env:APP");
}

#[tokio::test]
async fn set_role_alone_is_never_called_proved() {
    let world = World::with(
        "",
        "CREATE ROLE manager{x} LOGIN PASSWORD 'm' IN ROLE app_health{x}, app_general{x}, viewer{x}, owner{x}",
    )
    .await;
    let options =
        ConnectOptions { user: world.role("manager"), password: Some("m".to_owned()), ..world.options.clone() };
    let matrix = world.prove_as(&options, &|_| None, |_| {}).await.unwrap();
    assert!(matrix.roles.iter().all(|role| role.method == Method::SetRole), "{:?}", matrix.methods());
    assert!(!matrix.by_real_roles() && !matrix.is_proved());
    assert_eq!(matrix.count(Verdict::Leaked) + matrix.count(Verdict::Broken), 0);
}

/// A healthy base is proved, and what is planted in it is found, whatever the server's version.
async fn on_version(major: u32) {
    let declared = without_pooler();
    let cluster = shared_of(major, "steps-tests").await.unwrap();
    let filled = "INSERT INTO shared.ledger (community, amount, kind) VALUES (gen_random_uuid(), 1, 'k');";
    let world = World::on(cluster, &declared, &format!("{}{filled}", ROWS_SQL.replace("{missing}", RAISE))).await;
    is_healthy(&world.prove().await);
    world
        .execute(
            "GRANT USAGE ON SCHEMA general TO viewer{x}; GRANT UPDATE (body) ON general.notes TO viewer{x};
             GRANT app_general{x} TO app_health{x}",
        )
        .await;
    let leaked = world.with_verdict(&world.prove().await, Verdict::Leaked);
    let mut wanted =
        set(&["viewer general USAGE", "viewer general UPDATE", "app_health SET ROLE: becoming app_general"]);
    for action in ["USAGE", "SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE", "sequences"] {
        wanted.insert(format!("app_health general {action}"));
    }
    assert_eq!(leaked, wanted);
}

#[tokio::test]
async fn found_on_14() {
    on_version(14).await;
}

#[tokio::test]
async fn found_on_16() {
    on_version(16).await;
}

#[tokio::test]
async fn found_on_17() {
    on_version(17).await;
}

#[tokio::test]
async fn found_on_18() {
    on_version(18).await;
}

const RUNBOOK: &str = "# Apart\n\n## Prove\n\n```toml step\nisolation = \"apart\"\ntarget = \"main\"\n```\n";

impl World {
    /// A project on this database.
    fn bench(&self) -> Bench {
        let mut bench = Bench::on(self.options.clone());
        bench.write("topology.toml", &self.text);
        bench.env.push(("APP".to_owned(), "app".to_owned()));
        bench
    }
}

#[tokio::test]
async fn step_passes_on_a_healthy_base_and_draws_what_it_saw() {
    let world = World::new().await;
    let bench = world.bench();
    let (run, end) = bench.run(RUNBOOK).await;
    assert_eq!(end, RunEnd::Completed);
    let evidence = bench.evidence(&run, "apart").await;
    assert!(
        evidence.summary.starts_with("everything is as declared: 3 roles (2 by login, 1 by session"),
        "{evidence:?}"
    );
    assert_eq!(evidence.facts["proved"], true);
    let folder = bench.path("evidence");
    bench.engine().await.report(&run, &folder, None).await.unwrap();
    let html = std::fs::read_to_string(folder.join("report.html")).unwrap();
    let table = &html[html.find("<table class=\"matrix\">").unwrap()..];
    let general = world.role("app_general");
    assert!(html.contains(&format!("aria-label=\"{general} on health: denied\"><code>···········</code>")), "{table}");
    assert!(
        html.contains("<dd><code>EXPLAIN SELECT FROM health.events</code></dd><dd>42501 permission denied"),
        "{table}"
    );
    assert_eq!(html.matches("<div").count(), html.matches("</div>").count());
    assert!(!html.contains("<script") && !html.contains("src="), "the page needs nothing but itself");
    let markdown = std::fs::read_to_string(folder.join("report.md")).unwrap();
    assert!(markdown.contains("3 rows by 4 columns: "), "{markdown}");
    assert!(!markdown.contains('\u{e000}'), "{markdown}");
}

#[tokio::test]
async fn step_fails_on_a_leak_and_shows_it() {
    let world =
        World::with("", "GRANT USAGE ON SCHEMA general TO viewer{x}; GRANT SELECT ON general.notes TO viewer{x}").await;
    let bench = world.bench();
    let (run, end) = bench.run(RUNBOOK).await;
    let (step, code, message) = failure(&end);
    assert_eq!((step.as_str(), code.as_str()), ("apart", "isolation"));
    assert!(message.contains("2 leaked, 0 broken, 0 inconclusive"), "{message}");
    let folder = bench.path("evidence");
    bench.engine().await.report(&run, &folder, None).await.unwrap();
    let html = std::fs::read_to_string(folder.join("report.html")).unwrap();
    let viewer = world.role("viewer");
    assert!(html.contains(&format!("aria-label=\"{viewer} on general: leaked\"><code>!!·········</code>")), "{html}");
    world.execute("REVOKE USAGE ON SCHEMA general FROM viewer{x}").await;
    assert_eq!(bench.resume(&run).await, RunEnd::Completed);
}

#[tokio::test]
async fn step_passes_what_is_undecided_only_where_it_may() {
    let world = World::with("", "DELETE FROM general.notes; DELETE FROM general.events").await;
    let bench = world.bench();
    assert!(failure(&bench.run(RUNBOOK).await.1).2.contains("0 leaked, 0 broken"));
    let allowed = RUNBOOK.replace("target =", "inconclusive = \"allow\"\ntarget =");
    assert_eq!(bench.run(&allowed).await.1, RunEnd::Completed);
}

#[tokio::test]
async fn matrix_is_read_at_a_glance() {
    let world = World::with(
        "",
        "GRANT USAGE ON SCHEMA general TO viewer{x}; GRANT SELECT ON general.notes TO viewer{x};
         REVOKE DELETE ON health.notes FROM app_health{x}; DELETE FROM shared.secrets",
    )
    .await;
    let matrix = world.prove().await;
    let text = matrix.terminal(1).replace(&world.suffix, "_suffix__");
    let text = text.rsplit_once(" in ").unwrap().0;
    insta::assert_snapshot!(text);
    let json = matrix.json();
    assert_eq!(
        (json["leaked"].as_u64(), json["broken"].as_u64(), json["proved"].as_bool()),
        (Some(2), Some(1), Some(false))
    );
    assert_eq!(json["matrix"][world.role("viewer")]["general"], "!!·········");
    let finding = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|found| found["what"] == "SELECT" && found["verdict"] == "leaked");
    assert_eq!(finding.unwrap()["statement"], "EXPLAIN SELECT FROM general.notes");
}

/// Two oracles agree: what an apply made of a declaration is what the probes find.
#[tokio::test]
async fn applied_topology_is_proved() {
    const MORE: &str = r#"
[access.ledger]
select = ["ledger"]
insert = ["ledger"]
update = ["ledger"]
delete = ["ledger"]
[[status]]
table = "health.lots"
column = "status"
from = "active"
to = ["expired", "depleted"]
"#;
    let land = Land::new().await;
    let rows = without_pooler().replace("app_{tenant}", "P_{tenant}");
    let text = format!("append_only = [\"general.notes\"]\n{TWO}{rows}{MORE}")
        .replace("shared = \"approved\"", "shared = \"ledger\"");
    let topology = land.declare(&text);
    land.apply(&topology).await.unwrap();
    land.execute(TABLES).await;
    land.execute(
        "SET ROLE P_owner;
         CREATE TABLE shared.ledger (id int GENERATED ALWAYS AS IDENTITY, community uuid NOT NULL, amount int);
         CREATE TABLE health.lots (id int PRIMARY KEY, status text NOT NULL);
         INSERT INTO health.lots VALUES (1, 'expired');
         INSERT INTO health.notes (body) VALUES ('n'); INSERT INTO general.notes (body) VALUES ('n');
         INSERT INTO shared.secrets VALUES (1)",
    )
    .await;
    land.apply(&topology).await.unwrap();
    let how = How {
        all_objects: true,
        roles: None,
        schemas: None,
        today: Date::constant(2026, 11, 21),
        password: &|_| None,
        pooler: &|_| None,
        statement_timeout: Duration::from_secs(20),
        application_name: "pgrunbook:test",
        cancel: &Cancel::default(),
        tell: &|_, _| {},
    };
    let matrix = prove(&land.options, &topology, &how).await.unwrap();
    is_healthy(&matrix);
    assert!(about(&matrix, About::RowSecurity).len() >= 16 && about(&matrix, About::AppendOnly).len() >= 8);
}
