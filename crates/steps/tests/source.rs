//! Sources on real servers: hostile ids, collisions, crashes in the middle, and ways back.

use std::path::Path;

use pgrunbook_engine::{Cancel, Redactor, RunEnd, StepError};
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::isolation::{self, Action, Verdict};
use pgrunbook_steps::migrate::Around;
use pgrunbook_steps::source::{self, Bootstrapped, Made};
use pgrunbook_steps::topology::Topology;
use pgrunbook_steps::workplace::Place;
use pgrunbook_steps::{Surroundings, Workplace, provision, verify};

use crate::bench::{Bench, failure};
use crate::topology::{Land, apply_on, wish};

const DECLARED: &str = r#"
[database]
owner = "P_owner"
[schemas]
shared = {}
other = {}
[roles.P_app]
kind = "runtime"
search_path = ["shared"]
[roles.P_stranger]
kind = "runtime"
access = { other = "all" }
[sources]
registry = "shared.sources"
roles = ["P_app"]
chain = ["db/source"]
"#;

/// A project with sources, and a database with everything but them.
pub struct Sx {
    pub bench: Bench,
    pub land: Land,
    topology: Topology,
}

impl Sx {
    pub async fn new() -> Self {
        let sx = Self::bare().await;
        sx.land.apply(&sx.topology).await.unwrap();
        sx
    }

    /// The same, with nothing in the database.
    async fn bare() -> Self {
        Self::on(Bench::new().await).await
    }

    /// On a server of this version.
    async fn of(major: u32) -> Self {
        let sx = Self::on(Bench::on(Land::of(major).await.options)).await;
        sx.land.apply(&sx.topology).await.unwrap();
        sx
    }

    async fn on(bench: Bench) -> Self {
        let land = Land::on(bench.database.clone()).await;
        bench.write("topology.toml", &land.named(DECLARED));
        bench.write("db/source/1_items.sql", "CREATE TABLE items (id int PRIMARY KEY, body text);\n");
        bench.write("db/source/2_kinds.sql", "CREATE TABLE kinds (name text);\nINSERT INTO kinds VALUES ('note');\n");
        let topology = land.declare(DECLARED);
        Self { bench, land, topology }
    }

    fn workplace(&self) -> Workplace {
        let places = [("main".to_owned(), Place::Postgres(self.bench.database.clone()))].into();
        let root = self.bench.folder.path().to_owned();
        Workplace::new(root, Surroundings::default(), Redactor::new(), places, "default", false)
    }

    async fn add_as(&self, options: &ConnectOptions, id: &str) -> (Bootstrapped, Result<(), StepError>) {
        let mut done = Bootstrapped::default();
        let cancel = Cancel::default();
        let outcome =
            source::bootstrap(&self.workplace(), options, &self.topology, id, &around(&cancel), &mut done).await;
        (done, outcome)
    }

    pub async fn add(&self, id: &str) -> Result<Bootstrapped, StepError> {
        let (done, outcome) = self.add_as(&self.bench.database, id).await;
        outcome.map(|()| done)
    }

    async fn refused(&self, id: &str) -> StepError {
        self.add(id).await.unwrap_err()
    }

    pub async fn lookup(&self, id: &str) -> Result<String, String> {
        let found = source::lookup(&self.land.session, &self.topology, id).await;
        found.map(|name| name.to_string()).map_err(|error| error.to_string())
    }

    /// What the plan of the whole topology has to say of the sources' schemas.
    async fn assert_settled(&self) {
        let plan = self.land.plan(&self.topology).await;
        assert!(plan.is_empty(), "{}", plan.script());
        assert!(plan.foreign.is_empty() && plan.waiting.is_empty(), "{plan:?}");
    }

    async fn mapping(&self) -> String {
        self.land.value("SELECT string_agg(source_id || '=' || schema_name, ' ' ORDER BY 1) FROM shared.sources").await
    }

    pub async fn schemas(&self) -> String {
        let asked = "SELECT coalesce(string_agg(nspname, ' ' ORDER BY nspname), '') FROM pg_namespace
                     WHERE starts_with(nspname, 'src_')";
        self.land.value(asked).await
    }
}

fn around(cancel: &Cancel) -> Around<'_> {
    Around::by_hand(cancel, "anna@desk", &|_| {})
}

#[tokio::test]
async fn a_bootstrap_makes_all_of_a_source_and_a_second_finds_it_there() {
    let sx = Sx::new().await;
    let done = sx.add("Profile-7").await.unwrap();
    assert_eq!(done.made, Made { table: true, row: true, schema: true });
    assert_eq!(done.chains, [("db/source@src_profile_7".to_owned(), vec!["1".to_owned(), "2".to_owned()])]);
    sx.assert_settled().await;
    assert_eq!(sx.lookup("Profile-7").await.unwrap(), "src_profile_7");
    let again = sx.add("Profile-7").await.unwrap();
    assert!(again.is_empty(), "{again:?}");
    // What comes later is covered by the default privileges.
    sx.land.execute("SET ROLE P_owner; CREATE TABLE src_profile_7.later (id serial); RESET ROLE").await;
    for (role, sql, wanted) in [
        ("P_app", "INSERT INTO src_profile_7.items VALUES (1, 'x')", "ok"),
        ("P_app", "INSERT INTO src_profile_7.later DEFAULT VALUES", "ok"),
        ("P_app", "SELECT schema_name FROM shared.sources WHERE source_id = 'Profile-7'", "ok"),
        ("P_app", "UPDATE shared.sources SET schema_name = 'other'", "42501"),
        ("P_app", "CREATE TABLE src_profile_7.mine ()", "42501"),
        ("P_app", "DROP TABLE src_profile_7.items", "42501"),
        ("P_app", "SELECT * FROM other.x", "42501"),
        ("P_stranger", "SELECT * FROM src_profile_7.items", "42501"),
        ("P_stranger", "SELECT * FROM shared.sources", "42501"),
    ] {
        if sql.contains("other.x") {
            sx.land.execute("CREATE TABLE IF NOT EXISTS other.x ()").await;
        }
        assert_eq!(sx.land.try_as(role, sql).await, wanted, "{role}: {sql}");
    }
    let owners = "SELECT string_agg(DISTINCT tableowner, ' ') FROM pg_tables WHERE schemaname = 'src_profile_7'";
    assert_eq!(sx.land.value(owners).await, sx.land.named("P_owner"));
}

#[tokio::test]
async fn hostile_ids_are_sources_like_others_or_refused() {
    let sx = Sx::new().await;
    sx.land.execute("CREATE SCHEMA x; CREATE TABLE x.precious (); CREATE TABLE public.precious ()").await;
    let long = "x".repeat(60);
    for (id, wanted) in [
        ("\"; drop schema x", Ok("src____drop_schema_x")),
        ("'); DROP TABLE public.precious; --", Ok("src_____drop_table_public_precious____")),
        ("ünïcode", Ok("src__n_code")),
        ("a b", Ok("src_a_b")),
        ("A.B.C", Ok("src_a_b_c")),
        ("back\\slash", Ok("src_back_slash")),
        ("$$1$$", Ok("src___1__")),
        (&long[1..], Ok("src_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")),
        (&long, Err("has 64 bytes, and PostgreSQL keeps 63. Nothing was changed.")),
        ("", Err("is empty")),
        ("日本", Err("has no letter from a to z and no digit")),
        ("nul\0", Err("holds a control character")),
        ("line\nbreak", Err("holds a control character")),
    ] {
        match (sx.add(id).await, wanted) {
            (Ok(_), Ok(schema)) => assert_eq!(sx.lookup(id).await.unwrap(), schema),
            (Err(error), Err(why)) => assert!(error.message.contains(why), "{id:?}: {error}"),
            (is, wanted) => panic!("{id:?} is {is:?}, and not {wanted:?}"),
        }
    }
    sx.assert_settled().await;
    assert_eq!(sx.land.value("SELECT count(*) FROM pg_tables WHERE tablename = 'precious'").await, "2");
    assert_eq!(sx.land.value("SELECT count(*) FROM shared.sources").await, "8");
}

#[tokio::test]
async fn two_sources_never_share_a_schema() {
    let sx = Sx::new().await;
    sx.add("Profile-7").await.unwrap();
    let error = sx.refused("profile 7").await;
    assert_eq!(error.code, "source-collision");
    assert_eq!(
        error.message,
        "the source \"profile 7\" would have the schema src_profile_7, which is the source \"Profile-7\"'s: two sources \
         never share one. Nothing was changed."
    );
    assert_eq!(sx.mapping().await, "Profile-7=src_profile_7");
    // The table itself refuses, whoever writes to it.
    for (row, wanted) in [
        ("('other', 'src_profile_7')", "23505"),
        ("('Profile-7', 'src_b')", "23505"),
        ("('b', 'Src_B')", "23514"),
        ("('b', 'src-b')", "23514"),
        ("('b', E'src_b\\n')", "23514"),
        ("('b', 'pg_b')", "23514"),
        ("('b', NULL)", "23502"),
        ("('', 'src_b')", "23514"),
    ] {
        let sql = format!("INSERT INTO shared.sources (source_id, schema_name) VALUES {row}");
        assert_eq!(sx.land.try_as("P_owner", &sql).await, wanted, "{row}");
    }
}

#[tokio::test]
async fn bootstraps_at_once_give_one_source_and_one_refusal() {
    let sx = Sx::new().await;
    let (a, b, c) = tokio::join!(sx.add("assets_1"), sx.add("assets_1"), sx.add("assets_1"));
    let made = [&a, &b, &c].iter().filter(|one| one.as_ref().unwrap().made.schema).count();
    assert_eq!(made, 1, "{a:?} {b:?} {c:?}");
    assert_eq!(sx.land.value("SELECT count(*) FROM src_assets_1.kinds").await, "1");
    let (a, b) = tokio::join!(sx.add("Notes-1"), sx.add("notes_1"));
    let refused = [&a, &b].iter().filter(|one| one.is_err()).count();
    assert_eq!(refused, 1, "{a:?} {b:?}");
    let error = a.and(b).unwrap_err();
    assert_eq!(error.code, "source-collision", "{error}");
    assert_eq!(sx.land.value("SELECT count(*) FROM shared.sources").await, "2");
    sx.assert_settled().await;
}

#[tokio::test]
async fn an_unknown_source_is_refused_with_the_names_that_may_be_meant() {
    let sx = Sx::new().await;
    assert_eq!(sx.lookup("assets_1").await.unwrap_err(), "there is no source \"assets_1\" in shared.sources");
    for id in ["assets_1", "assets_2", "Notes"] {
        sx.add(id).await.unwrap();
    }
    assert_eq!(
        sx.lookup("asset_1").await.unwrap_err(),
        "there is no source \"asset_1\" in shared.sources; did you mean \"assets_1\" or \"assets_2\"?"
    );
    // Not even what gives the same name: the mapping decides.
    assert_eq!(
        sx.lookup("notes").await.unwrap_err(),
        "there is no source \"notes\" in shared.sources; did you mean \"Notes\"?"
    );
    assert_eq!(sx.lookup("zzzzzzzz").await.unwrap_err(), "there is no source \"zzzzzzzz\" in shared.sources");
    assert!(sx.lookup("").await.unwrap_err().contains("is empty"));
    assert!(sx.lookup("' OR true --").await.unwrap_err().contains("there is no source"));
}

#[tokio::test]
async fn requests_of_one_role_see_the_source_of_their_transaction() {
    let sx = Sx::new().await;
    for (id, body) in [("a", "of a"), ("b", "of b")] {
        sx.add(id).await.unwrap();
        sx.land.execute(&format!("INSERT INTO src_{id}.items VALUES (1, '{body}')")).await;
    }
    let app = Session::connect(&sx.bench.database, "app").await.unwrap();
    app.execute(&sx.land.named("SET SESSION AUTHORIZATION P_app; SET search_path = shared")).await.unwrap();
    for id in ["a", "b", "a"] {
        let schema = source::lookup(&app, &sx.topology, id).await.unwrap();
        let read = format!("BEGIN; {}; SELECT body FROM items", source::search_path_of(&schema));
        assert_eq!(app.value(&read).await.unwrap(), format!("of {id}"));
        app.execute("COMMIT").await.unwrap();
    }
    // A transaction that sets nothing finds no source's table at all.
    assert_eq!(app.value("SELECT body FROM items").await.unwrap_err().sqlstate(), Some("42P01"));
}

#[tokio::test]
async fn a_list_names_what_does_not_fit() {
    let sx = Sx::new().await;
    let list = async || source::list(&sx.land.session, &sx.topology).await.unwrap();
    assert!(list().await.sources.is_empty() && list().await.is_whole());
    for id in ["a", "b"] {
        sx.add(id).await.unwrap();
    }
    assert!(list().await.is_whole());
    sx.land
        .execute("DROP SCHEMA src_a CASCADE; CREATE SCHEMA src_old; INSERT INTO shared.sources VALUES ('c', 'other')")
        .await;
    let listing = list().await;
    let wrong: Vec<_> = listing.sources.iter().map(|one| one.wrong.as_deref()).collect();
    let declared = "\"other\" is no name that the pattern src_{source} gives";
    assert_eq!(wrong, [Some("the schema src_a is not there"), None, Some(declared)]);
    assert_eq!(listing.unregistered, ["src_old"]);
}

/// Whoever can write a row of the mapping must not reach a declared schema by it.
#[tokio::test]
async fn a_mapping_that_leads_elsewhere_stops_plan_and_apply() {
    let sx = Sx::new().await;
    sx.add("a").await.unwrap();
    sx.land.execute("INSERT INTO shared.sources VALUES ('b', 'other')").await;
    let error = sx.land.apply(&sx.topology).await.unwrap_err();
    assert_eq!(error.code, "source-mapping");
    assert!(error.message.contains("shared.sources maps the source \"b\" to the schema \"other\""), "{error}");
    assert!(pgrunbook_steps::topology::plan(&sx.land.session, &sx.topology, &wish()).await.is_err());
    assert!(sx.refused("b").await.message.contains("is no name that the pattern"));
    assert!(sx.lookup("b").await.unwrap_err().contains("is no name that the pattern"));
    // And the session can go on.
    sx.land.execute("DELETE FROM shared.sources WHERE source_id = 'b'").await;
    sx.assert_settled().await;
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_and_nothing_is_changed() {
    let sx = Sx::bare().await;
    let error = sx.refused("a").await;
    assert_eq!(error.code, "not-provisioned");
    assert!(error.message.starts_with("this database is not as declared: CREATE ROLE"), "{error}");
    assert_eq!(sx.schemas().await, "");
    sx.land.apply(&sx.topology).await.unwrap();
    // A mapping of somebody else's that would let two sources have one schema.
    sx.land
        .execute("SET ROLE P_owner; CREATE TABLE shared.sources (source_id text PRIMARY KEY, schema_name text)")
        .await;
    sx.land.execute("RESET ROLE").await;
    let error = sx.refused("a").await;
    assert!(error.message.contains("has no UNIQUE (schema_name): two sources could have one schema"), "{error}");
    let help = error.help.unwrap();
    assert_eq!(help, "ALTER TABLE shared.sources ADD UNIQUE (schema_name)");
    sx.land.execute(&help).await;
    // A schema that belongs to somebody else.
    sx.land.execute("CREATE SCHEMA src_a AUTHORIZATION P_stranger").await;
    let error = sx.refused("a").await;
    assert_eq!(error.code, "source-schema");
    assert_eq!(sx.land.value("SELECT count(*) FROM shared.sources").await, "0");
    sx.land.execute("DROP SCHEMA src_a").await;
    let done = sx.add("a").await.unwrap();
    assert_eq!(done.made, Made { table: false, row: true, schema: true });
    sx.assert_settled().await;
}

#[tokio::test]
async fn what_a_crash_left_is_completed() {
    let sx = Sx::new().await;
    // Registered, and no more; a schema, and no more; everything but the last migration and the grants.
    sx.add("first").await.unwrap();
    sx.land.execute("INSERT INTO shared.sources VALUES ('row', 'src_row')").await;
    sx.land.execute("CREATE SCHEMA src_schema AUTHORIZATION P_owner").await;
    sx.bench.write("db/source/3_broken.sql", "CREATE TABLE more (id int);\nSELECT 1/0;\n");
    let (done, outcome) = sx.add_as(&sx.bench.database, "broken").await;
    assert_eq!(outcome.unwrap_err().code, "sqlstate-22012");
    assert!(done.made.schema, "{done:?}");
    // Nobody meets a source that is half made.
    assert_eq!(sx.land.try_as("P_app", "SELECT * FROM src_broken.items").await, "42501");
    sx.bench.write("db/source/3_broken.sql", "CREATE TABLE more (id int);\n");
    for (id, made) in [
        ("row", Made { schema: true, ..Made::default() }),
        ("schema", Made { row: true, ..Made::default() }),
        ("broken", Made::default()),
    ] {
        let done = sx.add(id).await.unwrap();
        assert_eq!(done.made, made, "{id}");
        assert_eq!(sx.land.try_as("P_app", &format!("SELECT * FROM src_{id}.more")).await, "ok", "{id}");
        assert!(sx.add(id).await.unwrap().is_empty(), "{id}");
    }
    sx.assert_settled().await;
}

/// As on managed PostgreSQL.
#[tokio::test]
async fn an_operator_without_superuser_bootstraps() {
    let sx = Sx::bare().await;
    let session = sx.land.operator().await;
    apply_on(&session, &sx.topology, wish(), None).await.unwrap();
    let options = session.options().clone();
    let (done, outcome) = sx.add_as(&options, "a").await;
    outcome.unwrap();
    assert_eq!(done.made, Made { table: true, row: true, schema: true });
    let plan = pgrunbook_steps::topology::plan(&session, &sx.topology, &wish()).await.unwrap();
    assert!(plan.is_empty(), "{}", plan.script());
    assert_eq!(sx.land.try_as("P_app", "SELECT * FROM src_a.items").await, "ok");
}

#[tokio::test]
async fn a_provision_brings_new_migrations_to_every_source() {
    let sx = Sx::new().await;
    for id in ["a", "b"] {
        sx.add(id).await.unwrap();
    }
    sx.bench.write("db/source/3_more.sql", "CREATE TABLE more (id int);\n");
    let cancel = Cancel::default();
    let workplace = sx.workplace();
    let go = async || {
        provision::provision(&workplace, &sx.bench.database, &sx.topology, &[], around(&cancel)).await.unwrap()
    };
    let chains: Vec<String> = go().await.chains.into_iter().map(|(name, _)| name).collect();
    assert_eq!(chains, ["db/source@src_a", "db/source@src_b"]);
    assert!(go().await.is_empty());
    assert_eq!(sx.land.try_as("P_app", "SELECT * FROM src_b.more").await, "ok");
}

/// Declared, read and tried: the three answers know the sources.
#[tokio::test]
async fn sources_are_verified_like_everything_declared() {
    let sx = Sx::new().await;
    sx.add("a").await.unwrap();
    sx.land.execute("INSERT INTO src_a.items VALUES (1, 'x')").await;
    sx.land.execute("SET ROLE P_owner; CREATE TABLE other.own AS SELECT 1 AS id; RESET ROLE").await;
    let cancel = Cancel::default();
    let how = isolation::How {
        all_objects: true,
        roles: None,
        schemas: None,
        today: wish().today,
        password: &|_| None,
        pooler: &|_| None,
        statement_timeout: isolation::STATEMENT_TIMEOUT,
        application_name: "test",
        cancel: &cancel,
        tell: &|_, _| {},
    };
    let found = verify::verify(&sx.bench.database, &sx.topology, &how).await.unwrap();
    assert!(found.plan.is_empty() && found.missing_schemas.is_empty(), "{:?}", found.plan);
    let of_sources =
        found.audit.findings.iter().filter(|one| one.path.contains("src_a") || one.path.contains("sources"));
    assert_eq!(of_sources.count(), 0, "{:#?}", found.audit.findings);
    for (role, action, wanted) in
        [("P_app", Action::Insert, Verdict::Works), ("P_stranger", Action::Select, Verdict::Denied)]
    {
        let tries = &found.matrix.cell(&sx.land.named(role), "src_a", action).unwrap().tries;
        assert!(!tries.is_empty() && tries.iter().all(|one| one.verdict == wanted), "{role}: {tries:?}");
    }
    // And a planted way around is found.
    sx.land.execute("GRANT USAGE ON SCHEMA src_a TO P_stranger; GRANT SELECT ON src_a.items TO P_stranger").await;
    let found = verify::verify(&sx.bench.database, &sx.topology, &how).await.unwrap();
    assert!(found.matrix.of(Verdict::Leaked).any(|one| one.tried.object.contains("src_a.items")));
    assert!(found.audit.findings.iter().any(|one| one.path.contains("src_a.items")), "{:#?}", found.audit.findings);
}

const RUNBOOK: &str = r#"# Sources

## Bootstrap

```toml step
source = "bootstrap"
source_id = "Profile-7"
target = "main"
undo = "auto"
```
"#;

#[tokio::test]
async fn a_step_is_taken_back_to_nothing() {
    let sx = Sx::new().await;
    for _ in 0..2 {
        let (run, end) = sx.bench.run(RUNBOOK).await;
        assert!(matches!(end, RunEnd::Completed), "{end:?}");
        let evidence = sx.bench.evidence(&run, "bootstrap").await;
        assert_eq!(evidence.facts["search_path"], "SET LOCAL search_path = src_profile_7, public");
        sx.assert_settled().await;
        let end = sx.bench.rollback(&run, "undo").await;
        assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
        assert_eq!(sx.schemas().await, "");
        assert_eq!(sx.land.value("SELECT to_regclass('shared.sources') IS NULL").await, "t");
        assert_eq!(sx.land.value("SELECT count(*) FROM pgrunbook.migration").await, "0");
        sx.assert_settled().await;
    }
}

/// What the catalogs say and what statements do differ between the versions.
mod an_undo_leaves_what_others_need_and_says_so {
    use super::{Sx, an_undo_leaves_what_others_need};

    #[tokio::test]
    async fn on_14() {
        an_undo_leaves_what_others_need(Sx::of(14).await).await;
    }

    #[tokio::test]
    async fn on_15() {
        an_undo_leaves_what_others_need(Sx::new().await).await;
    }

    #[tokio::test]
    async fn on_16() {
        an_undo_leaves_what_others_need(Sx::of(16).await).await;
    }

    #[tokio::test]
    async fn on_17() {
        an_undo_leaves_what_others_need(Sx::of(17).await).await;
    }

    #[tokio::test]
    async fn on_18() {
        an_undo_leaves_what_others_need(Sx::of(18).await).await;
    }
}

async fn an_undo_leaves_what_others_need(sx: Sx) {
    let (run, end) = sx.bench.run(RUNBOOK).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    // Rows of the application, and an edit of what the chains brought.
    sx.land
        .execute("INSERT INTO src_profile_7.items VALUES (1, 'x'); UPDATE src_profile_7.kinds SET name = 'memo'")
        .await;
    let (_, code, message) = failure(&sx.bench.rollback(&run, "undo").await);
    assert_eq!(code, "source-not-empty");
    let wanted =
        "the schema src_profile_7 holds rows that came after its bootstrap: items, kinds. Nothing was taken back.";
    assert_eq!(message, wanted);
    assert_eq!(sx.mapping().await, "Profile-7=src_profile_7");
    sx.land.execute("DELETE FROM src_profile_7.items; UPDATE src_profile_7.kinds SET name = 'note'").await;
    // What CASCADE would take along.
    sx.land
        .execute(
            "CREATE VIEW other.kinds AS SELECT name FROM src_profile_7.kinds;
             CREATE TABLE other.notes (item int REFERENCES src_profile_7.items);
             CREATE TYPE src_profile_7.mood AS ENUM ('good');
             CREATE DOMAIN other.mood AS src_profile_7.mood;
             CREATE DOMAIN src_profile_7.inner_mood AS src_profile_7.mood;
             CREATE VIEW src_profile_7.inner_view AS SELECT name FROM src_profile_7.kinds",
        )
        .await;
    let (_, code, message) = failure(&sx.bench.rollback(&run, "undo").await);
    assert_eq!(code, "source-rested-on");
    for wanted in ["on view other.kinds", "on table other.notes", "type other.mood"] {
        assert!(message.contains(wanted), "{wanted}: {message}");
    }
    assert!(!message.contains("inner"), "{message}");
    sx.land.execute("DROP VIEW other.kinds; DROP TABLE other.notes; DROP DOMAIN other.mood").await;
    // Another source came meanwhile: the mapping stays with it.
    sx.add("other").await.unwrap();
    let end = sx.bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!(sx.schemas().await, "src_other");
    assert_eq!(sx.mapping().await, "other=src_other");
    sx.assert_settled().await;
}

#[tokio::test]
async fn a_schema_that_was_there_stays_when_its_bootstrap_is_taken_back() {
    let sx = Sx::new().await;
    // As a restored dump leaves it: the schema with its rows, and no mapping.
    sx.land
        .execute("SET ROLE P_owner; CREATE SCHEMA src_profile_7; CREATE TABLE src_profile_7.old AS SELECT 1 AS id; RESET ROLE")
        .await;
    let (run, end) = sx.bench.run(RUNBOOK).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    assert_eq!(sx.land.try_as("P_app", "SELECT * FROM src_profile_7.old").await, "ok");
    let end = sx.bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!(sx.land.value("SELECT count(*) FROM src_profile_7.old").await, "1");
    assert_eq!(sx.land.try_as("P_app", "SELECT * FROM src_profile_7.old").await, "42501");
    assert_eq!(sx.land.value("SELECT to_regclass('shared.sources') IS NULL").await, "t");
}

#[tokio::test]
async fn a_step_that_failed_in_the_middle_goes_on_or_back() {
    let sx = Sx::new().await;
    sx.bench.write("db/source/3_broken.sql", "SELECT 1/0;\n");
    let (run, end) = sx.bench.run(RUNBOOK).await;
    assert_eq!(failure(&end).1, "sqlstate-22012");
    assert_eq!(sx.schemas().await, "src_profile_7");
    let end = sx.bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!(sx.schemas().await, "");
    // Going on: a run takes up what it left. Its file is part of what was planned, so it is mended in the database.
    sx.bench.write("db/source/3_broken.sql", "SELECT 1 / count(*) FROM other.ready;\n");
    sx.land.execute("SET ROLE P_owner; CREATE TABLE other.ready (id int); RESET ROLE").await;
    let (run, end) = sx.bench.run(RUNBOOK).await;
    assert_eq!(failure(&end).1, "sqlstate-22012");
    sx.land.execute("INSERT INTO other.ready VALUES (1)").await;
    let end = sx.bench.resume(&run).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    let evidence = sx.bench.evidence(&run, "bootstrap").await;
    assert_eq!(evidence.facts["made_schema"], true);
    let end = sx.bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!(sx.schemas().await, "");
}

#[tokio::test]
async fn a_plan_says_what_would_be_made_and_what_stands_in_the_way() {
    let sx = Sx::bare().await;
    let engine = sx.bench.engine().await;
    let plan = async || {
        let plan = engine.plan(&sx.bench.parse(RUNBOOK), &Default::default()).await.unwrap();
        plan.steps().next().unwrap().change.clone()
    };
    let before = plan().await;
    assert_eq!(before.summary, "make the schema src_profile_7 for the source \"Profile-7\"");
    assert!(before.warnings[0].contains("a step before this one must make them"), "{before:?}");
    sx.land.apply(&sx.topology).await.unwrap();
    let ready = plan().await;
    assert!(ready.warnings.is_empty() && ready.blocked.is_none(), "{ready:?}");
    assert!(ready.details.contains(&"db/source@src_profile_7: 1 items".to_owned()), "{:#?}", ready.details);
    assert!(ready.files.keys().any(|file| Path::new(file).ends_with("1_items.sql")), "{:?}", ready.files);
    sx.add("profile 7").await.unwrap();
    let blocked = plan().await.blocked.unwrap();
    assert!(blocked.contains("which is the source \"profile 7\"'s"), "{blocked}");
}
