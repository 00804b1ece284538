//! The parts of the runbook around the load: snapshots, bootstrap, and the controlled rollback, with the service running.

use pgrunbook_postgres::Session;

use crate::bench::{Serving, profile};
use crate::project::Project;

/// The part of the runbook from a heading to the next of its level.
fn section(text: &str, heading: &str) -> String {
    let from = text.find(&format!("\n## {heading}")).unwrap() + 1;
    let length = text[from + 1..].find("\n## ").map_or(text.len() - from, |at| at + 2);
    text[from..from + length].to_owned()
}

#[tokio::test]
async fn a_source_is_bootstrapped_saved_and_put_back_by_the_runbook() {
    let project = Project::new().await;
    profile(&project.path("profiles"), "assets_1", 20);
    project.start("items");

    let whole = std::fs::read_to_string(project.path("RUNBOOK.md")).unwrap();
    let begin = whole.find("\n## 0").unwrap();
    let save =
        "\n## Save\n\n```toml step\nbackup = \"source-loaded\"\ntarget = \"main\"\nsource = \"${source}\"\n```\n";
    assert!(section(&whole, "4").contains("backup = \"source-loaded\""), "the rollback's snapshot is the runbook's");
    let parts: String = ["0", "1", "2", "7"].map(|number| section(&whole, number)).join("\n");
    let (forward, back) = parts.split_at(parts.find("## 7").unwrap());
    std::fs::write(project.path("PART.md"), format!("{}{forward}{save}\n{back}", &whole[..begin + 1])).unwrap();
    let done = |args: &[&str]| project.done(args);
    // The lines of the parts that are left out have no answer here.
    let answers = std::fs::read_to_string(project.path("answers.toml")).unwrap();
    let first: String = answers.lines().filter(|line| line.contains("maintenance window")).collect();
    std::fs::write(project.path("part.toml"), first).unwrap();
    done(&["run", "PART.md", "--answers", "part.toml"]);
    done(&["source", "list", "--check"]);
    let session = Session::connect(&project.database, "test").await.unwrap();
    session
        .execute("INSERT INTO src_assets_1.items (title, created_at, updated_at) VALUES ('wrong', now(), now())")
        .await
        .unwrap();
    done(&["rollback", "--path", "7-controlled-rollback", "--reason", "the test goes back"]);
    assert_eq!(session.value("SELECT count(*) FROM src_assets_1.items").await.unwrap(), "0", "as it was saved");
    done(&["source", "list", "--check"]);

    // What the service makes by itself is the same to pgrunbook, and the other way round.
    let postgres = project.path("postgres.env");
    let text = format!(
        "ITEMS_DB_BACKEND_MODE=POSTGRES_PRIMARY\nITEMS_LISTEN=127.0.0.1:0\nITEMS_POSTGRES_DSN={}\nITEMS_POSTGRES_ADMIN_DSN={}\n\
         ITEMS_ADMIN_TOKEN=secret\n",
        project.url_of("items_app", "app"),
        project.url_of("items_admin", "admin")
    );
    std::fs::write(&postgres, text).unwrap();
    let new = Serving::start(&postgres);
    for source in ["assets_1", "Second-One"] {
        let made = new.admin(source, "secret").await;
        assert_eq!(made.status, 200, "{source}: {}", made.body);
        assert_eq!(new.get(source, "/stats").await.status, 200, "{source}");
    }
    done(&["source", "add", "Second-One"]);
    done(&["source", "list", "--check"]);
    assert_eq!(new.get("Second-One", "/stats").await.body["items"], 0);
}
