//! `fence`, as it is typed.

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
