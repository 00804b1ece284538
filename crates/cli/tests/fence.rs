//! `fence`, as it is typed.

use pgrunbook_postgres::Session;
use pgrunbook_postgres::pgbouncer::Console;
use pgrunbook_postgres::sandbox::{PoolMode, Sandbox, SandboxOptions, url};

use crate::place::Place;

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
