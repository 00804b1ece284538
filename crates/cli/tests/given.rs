//! `review --shadow-on`: a change tried in temporary databases on a server that somebody gives, of which nothing stays.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared, shared_of, url};
use pgrunbook_postgres::{ConnectOptions, Session};

use crate::gate::{NOTES, commit, findings, repository, repository_at, second};
use crate::place::{Place, Said};

/// The server that is given. Its roles are its tests': each has names of its own.
async fn given() -> Sandbox {
    shared("cli-given", SandboxOptions::default()).await.unwrap()
}

/// A repository with a change, whose call knows the given server as `GIVEN_URL`, and no folder for throwaway servers.
async fn change(given: &ConnectOptions, up: &str, down: &str) -> Place {
    let mut place = repository().await;
    second(&place, up, down);
    commit(&place);
    std::fs::create_dir(place.path("tmp")).unwrap();
    place.env.push(("GIVEN_URL".to_owned(), url(given)));
    place.env.push(("TMPDIR".to_owned(), place.path("tmp").display().to_string()));
    place
}

const ARGS: [&str; 7] = ["review", "--chain", "db", "--since", "main", "--shadow-on", "env:GIVEN_URL"];

fn review(place: &Place, more: &[&str]) -> Said {
    place.call(&[&ARGS[..], more].concat())
}

async fn value(server: &ConnectOptions, sql: &str) -> String {
    Session::connect(server, "test").await.unwrap().value(sql).await.unwrap()
}

async fn execute(server: &ConnectOptions, sql: &str) {
    Session::connect(server, "test").await.unwrap().execute(sql).await.unwrap();
}

/// A name that no other test has.
fn own(what: &str) -> String {
    format!("given_{what}_{}", std::process::id())
}

async fn is_role(server: &ConnectOptions, name: &str) -> bool {
    value(server, &format!("SELECT count(*) FROM pg_roles WHERE rolname = '{name}'")).await == "1"
}

/// The temporary databases that a call names.
fn named(said: &Said) -> Vec<String> {
    let all = format!("{}{}", said.out, said.err);
    let found = all.match_indices("pgrunbook_review_").map(|(at, _)| all[at..].chars());
    found.map(|rest| rest.take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()).collect()
}

async fn is_there(server: &ConnectOptions, database: &str) -> bool {
    value(server, &format!("SELECT count(*) FROM pg_database WHERE datname = '{database}'")).await == "1"
}

#[tokio::test]
async fn nothing_of_a_change_stays_and_no_server_is_started() {
    let server = given().await.options();
    let (made, guarded, tenant) = (own("made"), own("guarded"), own("tenant"));
    let up = format!(
        "CREATE ROLE {made};\nDO $$ BEGIN\n  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{guarded}') THEN\n    \
         CREATE ROLE {guarded} NOLOGIN;\n  END IF;\nEND $$;\nALTER TABLE notes ADD COLUMN at timestamptz;\n\
         GRANT SELECT ON notes TO {made}, {guarded}, {tenant};\nGRANT {made} TO {guarded};\n"
    );
    let down = format!(
        "ALTER TABLE notes DROP COLUMN at;\nREVOKE ALL ON notes FROM {made}, {guarded}, {tenant};\nDROP ROLE {made};\n"
    );
    let place = change(&server, &up, &down).await;
    let said = review(&place, &["--role", &tenant]);
    // The role that the down file leaves is no object of the database.
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("✓ server: PostgreSQL 1") && said.out.contains("✓ again: db applied"), "{}", said.out);
    let names = named(&said);
    assert!(!names.is_empty(), "{}", said.out);
    for name in names {
        assert!(!is_there(&server, &name).await, "{name}");
    }
    for role in [&made, &guarded, &tenant] {
        assert!(!is_role(&server, role).await, "{role}");
    }
    let left: Vec<_> = std::fs::read_dir(place.path("tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");

    // A change that fails leaves as little.
    second(&place, &format!("CREATE ROLE {made};\nSELECT 1 / 0;\n"), "SELECT 1;\n");
    let said = review(&place, &["--format", "json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(findings(&said).contains(&"db/0002_more.sql:2 migration-failed".to_owned()), "{said:?}");
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let database = json["server"]["given"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert!(database.starts_with("pgrunbook_review_") && !is_there(&server, &database).await, "{database}");
    assert!(!is_role(&server, &made).await);
}

#[tokio::test]
async fn what_other_databases_share_is_refused_before_anything_is_made() {
    let server = given().await.options();
    let shared = own("shared");
    execute(&server, &format!("CREATE ROLE {shared}")).await;
    let up = format!("ALTER TABLE notes ADD COLUMN at timestamptz;\nALTER ROLE {shared} SET work_mem = '1GB';\n");
    let place = change(&server, &up, "ALTER TABLE notes DROP COLUMN at;\n").await;
    let said = review(&place, &[]);
    let setting =
        value(&server, &format!("SELECT count(*) FROM pg_db_role_setting WHERE setrole = '{shared}'::regrole")).await;
    execute(&server, &format!("DROP ROLE {shared}")).await;
    assert_eq!((said.code, setting.as_str()), (Some(2), "0"), "{said:?}");
    assert!(said.err.contains(&format!("db/0002_more.sql:2 changes role `{shared}`, and ")), "{}", said.err);
    assert!(said.err.contains("shares that with all its databases; nothing was made"), "{}", said.err);
    assert!(said.err.contains("leave --shadow-on out"), "{}", said.err);
    // Where there is no such role, it is the change's own: here it is just not there.
    let said = review(&place, &["--format", "json"]);
    assert!(findings(&said).contains(&"db/0002_more.sql:2 migration-failed".to_owned()), "{said:?}");
}

#[tokio::test]
async fn role_that_may_not_make_databases_is_told_what_to_do() {
    let server = given().await.options();
    let user = own("weak");
    execute(&server, &format!("CREATE ROLE {user} LOGIN PASSWORD 'x'")).await;
    let weak = ConnectOptions { user: user.clone(), password: Some("x".to_owned()), ..server.clone() };
    let place = change(&weak, "SELECT 1;\n", "SELECT 1;\n").await;
    let said = review(&place, &[]);
    execute(&server, &format!("DROP ROLE {user}")).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains(&format!("{user} may not make databases on ")), "{}", said.err);
    assert!(said.err.contains(&format!("ALTER ROLE {user} CREATEDB")), "{}", said.err);
}

#[tokio::test]
async fn drift_of_a_target_is_told_beside_a_temporary_database() {
    // Servers of its own: what others make meanwhile would be told, too.
    let (server, live) =
        tokio::join!(Sandbox::start(SandboxOptions::default()), Sandbox::start(SandboxOptions::default()));
    let (server, live) = (server.unwrap(), live.unwrap());
    let admin = live.database("app").await.unwrap();
    execute(&admin, "CREATE ROLE app_owner LOGIN PASSWORD 'x'; ALTER DATABASE app OWNER TO app_owner").await;
    let target = ConnectOptions { user: "app_owner".to_owned(), password: Some("x".to_owned()), ..admin };
    let mut place = repository_at(Place::on(target), NOTES, &[]);
    place.env.push(("GIVEN_URL".to_owned(), server.url()));
    assert_eq!(place.call(&["migrate", "up", "db"]).code, Some(0));
    second(&place, "ALTER TABLE notes ADD COLUMN at timestamptz;\n", "ALTER TABLE notes DROP COLUMN at;\n");
    let said = review(&place, &["--target", "main", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    assert_eq!((said.code, findings(&said)), (Some(0), Vec::<String>::new()), "{said:?}");
    let drift = json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "drift").unwrap();
    assert_eq!(drift["made"], true, "{drift}");
    place.execute("CREATE TABLE by_hand (id int)").await;
    let said = review(&place, &["--target", "main", "--format", "json"]);
    assert_eq!(findings(&said), ["- drift"], "{said:?}");
    assert!(!is_role(&server.options(), "app_owner").await, "the target's role goes with the database");
}

#[tokio::test]
async fn targets_own_database_is_refused() {
    let mut place = repository().await;
    place.env.push(("GIVEN_URL".to_owned(), place.env[0].1.replace("127.0.0.1", "localhost")));
    let said = review(&place, &["--target", "main"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("--shadow-on leads to the target's own database"), "{}", said.err);
}

#[tokio::test]
async fn change_that_was_tried_on_postgresql_17_beside_another_is_a_warning() {
    let server = shared_of(17, "cli-given").await.unwrap().options();
    let up = "ALTER TABLE notes ADD COLUMN at timestamptz;\n";
    let place = change(&server, up, "ALTER TABLE notes DROP COLUMN at;\n").await;
    let said = review(&place, &["--target", "main", "--format", "json"]);
    assert_eq!((said.code, findings(&said)), (Some(0), vec!["- other-version".to_owned()]), "{said:?}");
    let target = place.value("SELECT split_part(current_setting('server_version'), '.', 1)").await;
    let told = format!("the change was tried on PostgreSQL 17, and the target is PostgreSQL {target}");
    assert!(said.out.contains(&told), "{said:?}");
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(json["server"]["version"].as_str().unwrap().starts_with("17."), "{said:?}");
}

/// A call that hangs in a migration, and the temporary database in which it does.
async fn hanging(place: &Place, server: &ConnectOptions, mark: &str) -> (Child, String) {
    let mut command = place.command(&ARGS);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let asked = format!(
        "SELECT datname FROM pg_stat_activity WHERE query LIKE '%pg_sleep({mark})%' AND pid <> pg_backend_pid() AND datname LIKE 'pgrunbook_review_%'"
    );
    let deadline = Instant::now() + Duration::from_secs(120);
    let database = loop {
        let database = value(server, &asked).await;
        if !database.is_empty() || Instant::now() > deadline {
            break database;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(!database.is_empty(), "the migration was not reached");
    (child, database)
}

#[tokio::test]
async fn call_that_is_stopped_leaves_nothing() {
    let server = given().await.options();
    for signal in ["-INT", "-TERM"] {
        let mark = format!("9{}", std::process::id());
        let role = own("stopped");
        let place = change(&server, &format!("CREATE ROLE {role};\nSELECT pg_sleep({mark});\n"), "SELECT 1;\n").await;
        let (child, database) = hanging(&place, &server, &mark).await;
        let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let said = Said::of(child.wait_with_output().unwrap());
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains("the review was stopped"), "{}", said.err);
        assert!(!is_there(&server, &database).await && !is_role(&server, &role).await, "{signal}");
    }
}

#[tokio::test]
async fn what_a_killed_call_left_is_dropped_a_day_later_if_it_is_ours() {
    // A server of its own: every other call would sweep, too.
    let server = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let server = &server.options();
    let mark = format!("8{}", std::process::id());
    let place = change(server, &format!("SELECT pg_sleep({mark});\n"), "SELECT 1;\n").await;
    let (mut child, killed) = hanging(&place, server, &mark).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let digits = format!("{:015x}", std::process::id());
    let stranger = format!("pgrunbook_review_f{digits}");
    let other = format!("pgrunbook_review_{}", own("other"));
    let role = own("left");
    let card =
        |made: &str| format!("pgrunbook review, temporary: {{\"made\":\"{made}\",\"by\":\"bert\",\"roles\":[]}}");
    execute(server, &format!("CREATE DATABASE {stranger}")).await;
    execute(server, &format!("CREATE DATABASE {other}")).await;
    execute(server, &format!("COMMENT ON DATABASE {stranger} IS 'not by us'")).await;
    execute(server, &format!("COMMENT ON DATABASE {other} IS '{}'", card("2020-01-01T00:00:00Z"))).await;
    execute(server, &format!("CREATE ROLE {role}; COMMENT ON ROLE {role} IS 'pgrunbook review, temporary: {killed}'"))
        .await;

    second(&place, "SELECT 1;\n", "SELECT 1;\n");
    let young = review(&place, &[]);
    assert_eq!(young.code, Some(0), "{young:?}");
    assert!(is_there(server, &killed).await && is_role(server, &role).await, "it is not a day old");
    execute(server, &format!("COMMENT ON DATABASE {killed} IS '{}'", card("2020-01-01T00:00:00Z"))).await;
    let swept = review(&place, &[]);
    assert_eq!(swept.code, Some(0), "{swept:?}");
    assert!(swept.err.contains(&format!("dropped {killed}, which a call by bert left")), "{}", swept.err);
    assert!(!is_there(server, &killed).await && !is_role(server, &role).await);
    assert!(is_there(server, &stranger).await, "it has our name and not our comment");
    assert!(is_there(server, &other).await, "it has our comment and not our name");
    execute(server, &format!("DROP DATABASE {stranger}")).await;
    execute(server, &format!("DROP DATABASE {other}")).await;
}

#[tokio::test]
async fn who_is_no_superuser_may_review_and_act_as_the_roles_that_are_made() {
    let server = given().await.options();
    let (user, reader) = (own("ci"), own("reader"));
    execute(&server, &format!("CREATE ROLE {user} LOGIN CREATEDB CREATEROLE PASSWORD 'x'")).await;
    let ci = ConnectOptions { user: user.clone(), password: Some("x".to_owned()), ..server.clone() };
    let up = format!("ALTER TABLE notes ADD COLUMN at timestamptz;\nGRANT SELECT ON notes TO {reader};\n");
    let down = format!("REVOKE ALL ON notes FROM {reader};\nALTER TABLE notes DROP COLUMN at;\n");
    let place = change(&ci, &up, &down).await;
    place.write("smoke.sql", &format!("-- expect: error 42501\n-- as: {reader}\nDELETE FROM notes;\n\n-- expect: 1 row\n-- as: {reader}\nSELECT * FROM notes;\n"));
    let said = review(&place, &["--role", &reader, "--smoke", "smoke.sql"]);
    let left = is_role(&server, &reader).await;
    execute(&server, &format!("DROP ROLE {user}")).await;
    assert_eq!((said.code, left), (Some(0), false), "{said:?}");
    assert!(said.out.contains("1 of 1 file(s) held"), "{}", said.out);
}
