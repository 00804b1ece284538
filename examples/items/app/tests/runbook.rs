//! The parts of the runbook around the load: snapshots, bootstrap, and the controlled rollback, with the service running.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, url};
use pgrunbook_postgres::{ConnectOptions, Session};

use crate::bench::Serving;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten().filter(|entry| entry.file_name() != "app") {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, to).unwrap();
        }
    }
}

/// The part of the runbook from a heading to the next of its level.
fn section(text: &str, heading: &str) -> String {
    let from = text.find(&format!("\n## {heading}")).unwrap() + 1;
    let length = text[from + 1..].find("\n## ").map_or(text.len() - from, |at| at + 2);
    text[from..from + length].to_owned()
}

#[tokio::test]
async fn a_source_is_bootstrapped_saved_and_put_back_by_the_runbook() {
    let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let database = sandbox.database("items").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    copy(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap(), folder.path());
    std::fs::create_dir(path("profiles")).unwrap();
    items_app::legacy::make(&path("profiles/assets_1.db"), 20, 3).unwrap();
    let env = format!(
        "ITEMS_DB_BACKEND_MODE=SQLITE\nITEMS_LISTEN=127.0.0.1:0\nITEMS_SQLITE_DIR={}\n",
        path("profiles").display()
    );
    std::fs::write(path("test.env"), env).unwrap();
    let serving = Serving::start(&path("test.env"));

    let whole = std::fs::read_to_string(path("RUNBOOK.md")).unwrap();
    let begin = whole.find("\n## 0").unwrap();
    let save =
        "\n## Save\n\n```toml step\nbackup = \"source-loaded\"\ntarget = \"main\"\nsource = \"${source}\"\n```\n";
    assert!(section(&whole, "4").contains("backup = \"source-loaded\""), "the rollback's snapshot is the runbook's");
    let parts: String = ["0", "1", "2", "7"].map(|number| section(&whole, number)).join("\n");
    let (forward, back) = parts.split_at(parts.find("## 7").unwrap());
    std::fs::write(path("PART.md"), format!("{}{forward}{save}\n{back}", &whole[..begin + 1])).unwrap();

    let as_role = |user: &str, password: &str| {
        url(&ConnectOptions { user: user.to_owned(), password: Some(password.to_owned()), ..database.clone() })
    };
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("pgrunbook");
    let call = |args: &[&str]| -> Output {
        Command::new(&program)
            .args(args)
            .current_dir(folder.path())
            .envs([
                ("ITEMS_DATABASE_URL", url(&database)),
                ("ITEMS_APP_URL", format!("http://{}", serving.address)),
                ("ITEMS_CANARY_URL", "http://127.0.0.1:1".to_owned()),
                ("ITEMS_APP_PASSWORD", "app".to_owned()),
                ("ITEMS_ADMIN_PASSWORD", "admin".to_owned()),
                ("ITEMS_POSTGRES_DSN", as_role("items_app", "app")),
                ("ITEMS_POSTGRES_ADMIN_DSN", as_role("items_admin", "admin")),
                ("PGRUNBOOK_ENVIRONMENT", "local".to_owned()),
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let done = |args: &[&str]| {
        let output = call(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    // The lines of the parts that are left out have no answer here.
    let answers = std::fs::read_to_string(path("answers.toml")).unwrap();
    let first: String = answers.lines().filter(|line| line.contains("maintenance window")).collect();
    std::fs::write(path("part.toml"), first).unwrap();
    done(&["run", "PART.md", "--answers", "part.toml"]);
    done(&["source", "list", "--check"]);
    let session = Session::connect(&database, "test").await.unwrap();
    session
        .execute("INSERT INTO src_assets_1.items (title, created_at, updated_at) VALUES ('wrong', now(), now())")
        .await
        .unwrap();
    done(&["rollback", "--path", "7-controlled-rollback", "--reason", "the test goes back"]);
    assert_eq!(session.value("SELECT count(*) FROM src_assets_1.items").await.unwrap(), "0", "as it was saved");
    done(&["source", "list", "--check"]);

    // What the service makes by itself is the same to pgrunbook, and the other way round.
    let postgres = path("postgres.env");
    let text = format!(
        "ITEMS_DB_BACKEND_MODE=POSTGRES_PRIMARY\nITEMS_LISTEN=127.0.0.1:0\nITEMS_POSTGRES_DSN={}\nITEMS_POSTGRES_ADMIN_DSN={}\n\
         ITEMS_ADMIN_TOKEN=secret\n",
        as_role("items_app", "app"),
        as_role("items_admin", "admin")
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
