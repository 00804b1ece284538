//! `fence`, as it is typed.

use std::time::{Duration, Instant};

use pgrunbook_postgres::Session;
use pgrunbook_postgres::pgbouncer::Console;
use pgrunbook_postgres::sandbox::{PoolMode, Sandbox, SandboxOptions, url};

use crate::place::Place;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

const RUNBOOK: &str = "# Cutover\n\n## Stop\n\n```toml step\nfence = \"stop\"\ntarget = \"main\"\nmessage = \"moved: {table}\"\n\
                       undo = \"auto\"\n```\n";

#[tokio::test]
async fn fences_are_shown_and_lifted_by_an_exact_word() {
    let place = Place::new().await;
    place.write(
        "pgrunbook.toml",
        "[project]\nenvironment = \"local\"\n[targets.main]\nurl = \"env:DATABASE_URL\"\n[environments.local]\n\
         [environments.production]\nprotected = true\n",
    );
    place.write("RUNBOOK.md", RUNBOOK);
    place.execute("CREATE TABLE notes (id int)").await;
    assert_eq!(place.call(&["fence", "status"]).done().out, "No schema is fenced.\n");
    place.call(&["run", "RUNBOOK.md", "--no-input"]).done();
    let said = place.call(&["fence", "status", "--check", "--format", "json"]).done();
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(found["fences"][0]["tables"], serde_json::json!(["public.notes"]));
    let id = found["fences"][0]["id"].as_str().unwrap().to_owned();

    let said = place.call(&["fence", "drop", &id]);
    assert!(said.code == Some(2) && said.err.contains("Nothing was touched") && said.err.contains("--yes"), "{said:?}");
    let exact = format!("production: drop fence {id}");
    let said = place.call(&["--environment", "production", "fence", "drop", &id, "--yes"]);
    assert!(said.code == Some(2) && said.err.contains(&exact), "{said:?}");
    place.execute("ALTER TABLE notes DISABLE TRIGGER ALL").await;
    let said = place.call(&["fence", "status", "--check"]);
    assert!(said.code == Some(1) && said.out.contains("! public.notes has no working trigger"), "{said:?}");
    let confirmed = ["--format", "json", "--environment", "production", "fence", "drop", &id, "--confirm", &exact];
    let lifted: serde_json::Value = serde_json::from_str(&place.call(&confirmed).done().out).unwrap();
    assert_eq!((&lifted["type"], &lifted["id"]), (&"fence-dropped".into(), &id.clone().into()), "{lifted}");
    place.execute("INSERT INTO notes VALUES (1)").await;
    let said = place.call(&["fence", "drop", &id, "--yes"]);
    assert!(said.code == Some(2) && said.err.contains("no fence"), "{said:?}");
}

const PAUSED: &str = "# Stop\n\n## Stop\n\n```toml step\nfence = \"stop\"\ntarget = \"main\"\nmessage = \"moved: {table}\"\n\
                      budget = \"60s\"\npoolers = [\"front\"]\nundo = \"auto\"\n```\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pooler_that_a_killed_run_left_paused_is_told_and_resumed() {
    let server = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let database = server.database("legacy").await.unwrap();
    let pooler = server.pooler(PoolMode::Transaction, &[]).await.unwrap();
    let front = pooler.options().with_database("legacy");
    let place = Place::on(database);
    place.write(
        "pgrunbook.toml",
        &format!("[targets.main]\nurl = \"env:DATABASE_URL\"\n[targets.front]\nurl = \"{}\"\n", url(&front)),
    );
    place.write("RUNBOOK.md", PAUSED);
    place.execute("CREATE TABLE notes (id int)").await;
    let client = Session::connect(&front, "client").await.unwrap();
    client.execute("INSERT INTO notes VALUES (1)").await.unwrap();
    let is_paused = async || {
        let all = Console::connect(&front).await.unwrap().databases().await.unwrap();
        all.iter().find(|one| one.name == "legacy").is_some_and(|one| one.paused)
    };

    // Killed at the first point at which its clients wait.
    let mut at = 0;
    while !is_paused().await {
        at += 1;
        // The target is claimed as long as a killed process's sessions are there.
        let begun = std::time::Instant::now();
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE starts_with(application_name, 'pgrunbook:')";
        while place.value(sessions).await != "0" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "they do not go");
        }
        let died = place.call_and_die(&["run", "RUNBOOK.md", "--no-input"], at);
        assert_eq!(died.code, None, "it was never killed with the pooler paused: {died:?}");
    }
    let run = place.run_id();
    let command = format!("psql -h 127.0.0.1 -p {} -U postgres -d pgbouncer -c 'RESUME legacy;'", front.hosts[0].port);
    for args in [vec!["status"], vec!["status", &run], vec!["fence", "status"]] {
        let said = place.call(&args).done().out;
        assert!(
            said.contains("pooler `front` may stand paused by step `stop`") && said.contains(&command),
            "{args:?}: {said}"
        );
    }
    place.call(&["rollback", &run, "--path", "undo"]).done();
    assert!(!is_paused().await);
    client.execute("INSERT INTO notes VALUES (2)").await.unwrap();
    assert!(!place.call(&["status"]).done().out.contains("paused"));

    // One that nothing kills, and that no switch ends, leaves nobody behind either: told, with an exit code that says so.
    let said = place.call(&["run", "RUNBOOK.md", "--no-input"]);
    assert!(said.code == Some(1) && said.out.contains("the freeze was undone"), "{said:?}");
    assert!(!is_paused().await);
    client.execute("INSERT INTO notes VALUES (3)").await.unwrap();
}

fn moves(step: &str) -> String {
    format!(
        "# Move\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n## Go\n\n```toml step\n{step}undo = \"auto\"\n```\n"
    )
}

/// Runs a runbook until this holds, and kills it there.
async fn killed(place: &Place, runbook: &str, wanted: impl AsyncFn() -> bool) {
    let mut running = place.command(&["run", runbook, "--no-input"]).spawn().unwrap();
    let begun = Instant::now();
    while !wanted().await {
        let ended = running.try_wait().unwrap();
        assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{runbook}: it did not come about: {ended:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.kill().unwrap();
    running.wait().unwrap();
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND starts_with(application_name, 'pgrunbook:')";
    while place.value(sessions).await != "0" {
        assert!(begun.elapsed() < PATIENCE, "its sessions do not go");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_a_killed_run_left_fenced_is_told_and_opened() {
    let place = Place::new().await;
    place.write(
        "pgrunbook.toml",
        "[project]\nenvironment = \"local\"\n[targets.main]\nurl = \"env:DATABASE_URL\"\n[targets.old]\nsqlite = \"old.db\"\n\
         [environments.local]\n[environments.production]\nprotected = true\n",
    );
    place.write("LOAD.md", &moves("transfer = \"load\"\nfrom = \"old\"\ntarget = \"main\"\nschema = \"health\"\n"));
    let cutover = |to: &str| {
        moves(&format!(
            "cutover = \"go\"\ntarget = \"main\"\nschemas = [\"health\"]\nto = \"{to}\"\nbudget = \"20s\"\n"
        ))
    };
    place.write("OVER.md", &cutover("target"));
    place.write("BACK.md", &cutover("source"));
    let file = rusqlite::Connection::open(place.path("old.db")).unwrap();
    file.execute_batch(
        "PRAGMA journal_mode = wal; CREATE TABLE visit (id INTEGER PRIMARY KEY, what TEXT); INSERT INTO visit VALUES (1, 'one')",
    )
    .unwrap();
    let is_sealed = || {
        file.query_row("SELECT count(*) = 3 FROM sqlite_master WHERE type = 'trigger'", [], |row| row.get::<_, bool>(0))
            .unwrap()
    };
    let write = |id: i64| file.execute("INSERT INTO visit VALUES (?1, 'by hand')", [id]);
    let status = || place.call(&["--format", "json", "fence", "status", "--target", "old", "--check"]);
    place.call(&["run", "LOAD.md", "--no-input"]).done();
    assert_eq!(place.call(&["fence", "status", "--target", "old"]).done().out, "The file is not fenced.\n");

    // Behind the file's fence, and before the target is opened: which somebody holds up.
    let holder = Session::connect(&place.database, "holder").await.unwrap();
    holder.execute("BEGIN; LOCK TABLE health.visit IN ROW EXCLUSIVE MODE").await.unwrap();
    killed(&place, "OVER.md", async || is_sealed()).await;
    holder.execute("ROLLBACK").await.unwrap();
    assert_eq!(place.value("SELECT phase FROM pgrunbook.transfer").await, "forth");
    let refused = write(2).unwrap_err().to_string();
    assert!(refused.contains("cut over to schema health of main"), "{refused}");
    let found: serde_json::Value = serde_json::from_str(&status().done().out).unwrap();
    assert_eq!(found["fences"][0]["tables"], serde_json::json!(["visit"]), "{found}");
    let id = found["fences"][0]["id"].as_str().unwrap().to_owned();
    let said = place.call(&["fence", "status", "--target", "old"]).done().out;
    assert!(said.contains(&id) && said.contains("old.db: 1 table(s)") && said.contains("writers are told: "), "{said}");
    file.execute_batch("CREATE TABLE late (a)").unwrap();
    let said = place.call(&["fence", "status", "--target", "old", "--check"]);
    assert!(said.code == Some(1) && said.out.contains("! late takes writes"), "{said:?}");
    file.execute_batch("DROP TABLE late").unwrap();

    let drop_it = |more: &[&str]| place.call(&[more, &["fence", "drop", &id, "--target", "old"]].concat());
    let said = drop_it(&[]);
    assert!(said.code == Some(2) && said.err.contains("Nothing was touched") && said.err.contains("--yes"), "{said:?}");
    let said = place.call(&["--environment", "production", "fence", "drop", &id, "--target", "old", "--yes"]);
    assert!(said.code == Some(2) && said.err.contains(&format!("production: drop fence {id}")), "{said:?}");
    let said = place.call(&["fence", "drop", "other", "--target", "old", "--yes"]);
    assert!(said.code == Some(2) && said.err.contains("no fence `other` stands"), "{said:?}");
    assert!(write(2).is_err());
    let said = place.call(&["fence", "drop", &id, "--target", "old", "--yes"]).done();
    assert!(said.out.contains("1 table(s)") && said.out.contains("take writes"), "{said:?}");
    write(2).unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&status().done().out).unwrap()["fences"],
        serde_json::json!([])
    );
    let said = place.call(&["fence", "drop", &id, "--target", "old", "--yes"]);
    assert_eq!(said.code, Some(2), "{said:?}");

    // The run goes on all the same, and what was written meanwhile comes along.
    place.call(&["resume", "--no-input"]).done();
    assert_eq!(place.value("SELECT what FROM health.visit WHERE id = 2").await, "by hand");
    assert!(is_sealed() && write(3).is_err());

    // On the way back: that the file was opened by hand is not taken for the end of the crossing.
    file.execute_batch("BEGIN IMMEDIATE").unwrap();
    killed(&place, "BACK.md", async || place.value("SELECT phase FROM pgrunbook.transfer").await == "back").await;
    file.execute_batch("ROLLBACK").unwrap();
    let found: serde_json::Value = serde_json::from_str(&status().done().out).unwrap();
    let id = found["fences"][0]["id"].as_str().unwrap();
    place.call(&["fence", "drop", id, "--target", "old", "--yes"]).done();
    write(3).unwrap();
    let said = place.call(&["resume", "--no-input"]);
    assert!(
        said.code == Some(1) && format!("{}{}", said.out, said.err).contains("visit: 1 rows of the file alone"),
        "{said:?}"
    );
    assert_eq!(place.value("SELECT phase FROM pgrunbook.transfer").await, "switched");
    place.execute("INSERT INTO health.visit VALUES (4, 'in the target')").await;
    file.execute("DELETE FROM visit WHERE id = 3", []).unwrap();
    place.call(&["resume", "--no-input"]).done();
    assert_eq!(place.value("SELECT phase FROM pgrunbook.transfer").await, "following");
    let what = file.query_row("SELECT what FROM visit WHERE id = 4", [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(what, "in the target");
    write(5).unwrap();
}
