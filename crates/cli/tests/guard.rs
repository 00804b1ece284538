//! `guard`: the check and the start of an application that cannot embed it.

use serde_json::Value;

use crate::place::{Place, Said};

async fn at(version: &str) -> Place {
    let place = Place::new().await;
    place.execute("CREATE TABLE bot_config (config_key text PRIMARY KEY, config_value jsonb)").await;
    let json = format!("{{\"version\": \"{version}\", \"migration\": \"0001_baseline\"}}");
    place.execute(&format!("INSERT INTO bot_config VALUES ('schema_version', '{json}')")).await;
    place
}

const DATABASE: &[&str] = &["--database", "env:DATABASE_URL"];

fn check(place: &Place, more: &[&str]) -> Said {
    place.call(&[&["guard", "check"], DATABASE, more].concat())
}

#[tokio::test]
async fn verdict_is_the_exit_code() {
    let place = at("1.1.0").await;
    let said = check(&place, &["--app-version", "1.0.0"]).done();
    assert_eq!(said.out, "schema guard: the database is at 1.1.0, newer than the application's 1.0.0\n");
    assert_eq!(said.err, "");
    let said = check(&place, &["--app-version", "1.2.0", "--wait", "0s"]);
    assert_eq!(said.code, Some(1));
    let error = "error: the application needs schema 1.2.0, and the database is at 1.1.0 (0001_baseline)\n  \
                 help: run the migrations, then start again\n";
    assert_eq!(said.err, error);
    let said = check(&place, &["--app-version", "2.0.0"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("was written for schema 2.0.0"), "{}", said.err);
    let said = check(&place, &["--app-version", "1.0.0", "--table", "nowhere"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("there is no table nowhere"), "{}", said.err);
    let said = check(&place, &["--app-version", "1.0.0", "--key", "nothing", "--wait", "0s"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("says nothing of a version"), "{}", said.err);
    place.execute("UPDATE bot_config SET config_value = '{\"version\": \"latest\"}'").await;
    let said = check(&place, &["--app-version", "1.0.0", "--wait", "0s"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("cannot be read"), "{}", said.err);
    let said = check(&place, &["--app-version", "latest"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("\"latest\" cannot be read"), "{}", said.err);
}

#[tokio::test]
async fn json_is_one_object() {
    let place = at("1.1.0").await;
    let said = check(&place, &["--app-version", "1.0.0", "--format", "json"]).done();
    let found: Value = serde_json::from_str(&said.out).unwrap();
    let wanted = serde_json::json!({
        "type": "guard", "outcome": "database-newer", "app": "1.0.0", "database": "1.1.0",
        "migration": "0001_baseline", "timestamp": null, "waited_ms": 0,
    });
    assert_eq!(found, wanted);
    let said = check(&place, &["--app-version", "1.2.0", "--format", "json"]);
    let found: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (said.code, found["code"].as_str(), found["exit"].as_i64()),
        (Some(1), Some("application-newer"), Some(1))
    );
}

#[tokio::test]
async fn version_and_target_come_from_where_they_usually_stand() {
    let mut place = at("1.0.0").await;
    place.write("pgrunbook.toml", "[targets.main]\nurl = \"env:DATABASE_URL\"\n");
    place.env.push(("APP_SCHEMA_VERSION".to_owned(), "1.0.0".to_owned()));
    let said = place.call(&["guard", "check"]).done();
    assert_eq!(said.out, "schema guard: the database is at 1.0.0, as the application\n");
}

#[tokio::test]
async fn what_cannot_be_known_is_exit_2_and_no_password_is_shown() {
    let place = at("1.0.0").await;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let url = format!("postgres://anna:hunter2hunter2@127.0.0.1:{port}/db?sslmode=disable");
    let said = place.call(&["guard", "check", "--app-version", "1.0.0", "--database", &url]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("the database does not answer"), "{}", said.err);
    assert!(!said.err.contains("hunter2"), "{}", said.err);
    let right = &place.env[0].1;
    let wrong = right.replacen("postgres:", "postgres:wrong", 2).replace("postgres:wrong//", "postgres://");
    let said = place.call(&["guard", "check", "--app-version", "1.0.0", "--database", &wrong]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("refused the connection: password authentication failed"), "{}", said.err);
    let said = place.call(&["guard", "check", "--app-version", "1.0.0", "--database", "env:NOT_SET"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("NOT_SET is not set"), "{}", said.err);
}

#[tokio::test]
async fn bypass_is_loud_and_needs_neither_project_nor_server() {
    let mut place = Place::new().await;
    place.env = vec![("SKIP_SCHEMA_GUARD".to_owned(), "true".to_owned())];
    let said = place.call(&["guard", "check", "--app-version", "1.0.0", "--metrics", "guard.prom"]).done();
    assert!(said.err.starts_with("WARNING: SCHEMA GUARD BYPASSED. SKIP_SCHEMA_GUARD=true"), "{}", said.err);
    assert!(place.read("guard.prom").contains("\npgrunbook_guard_bypassed 1\n"), "{}", place.read("guard.prom"));
    let said =
        place.call(&["guard", "exec", "--app-version", "1.0.0", "--", "sh", "-c", "echo $PGRUNBOOK_GUARD_OUTCOME"]);
    let said = said.done();
    assert_eq!(said.out, "bypassed\n");
    assert!(said.err.contains("SCHEMA GUARD BYPASSED"), "{}", said.err);
    for value in ["1", "yes", "TRUE"] {
        place.env = vec![("SKIP_SCHEMA_GUARD".to_owned(), value.to_owned())];
        let said = place.call(&["guard", "exec", "--app-version", "1.0.0", "--", "touch", "started"]);
        assert_eq!(said.code, Some(2), "{value}");
        assert!(said.err.contains(&format!("SKIP_SCHEMA_GUARD is \"{value}\"")), "{}", said.err);
        assert!(!place.path("started").exists());
    }
}

#[tokio::test]
async fn bypass_starts_without_its_metrics_and_ends_with_the_next_refusal() {
    let mut place = at("1.0.0").await;
    let refused = ["guard", "check", "--database", "env:DATABASE_URL", "--app-version", "1.2.0", "--wait", "0s"];
    let (database, skip) = (place.env.clone(), ("SKIP_SCHEMA_GUARD".to_owned(), "true".to_owned()));
    place.env = vec![skip];
    // A file below a folder that is not there: nothing can be written.
    let exec = ["guard", "exec", "--app-version", "1.0.0", "--metrics", "gone/guard.prom", "--"];
    let said = place.call(&[&exec[..], &["echo", "started"]].concat()).done();
    assert_eq!(said.out, "started\n");
    assert!(said.err.contains("warning: ") && said.err.contains("gone/guard.prom cannot be written"), "{}", said.err);
    let said = place.call(&[&exec[..], &["surely-no-such-program"]].concat());
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("the schema was not checked; check the command's name"), "{}", said.err);

    place.call(&["guard", "check", "--app-version", "1.0.0", "--metrics", "guard.prom"]).done();
    assert!(place.read("guard.prom").contains("\npgrunbook_guard_bypassed 1\n"));
    place.env = database;
    let said = place.call(&[&refused[..], &["--metrics", "guard.prom"]].concat());
    assert_eq!(said.code, Some(1));
    let metrics = place.read("guard.prom");
    assert!(metrics.contains("\npgrunbook_guard_bypassed 0\n"), "{metrics}");
    assert!(metrics.ends_with("\npgrunbook_guard_refused{code=\"application-newer\"} 1\n"), "{metrics}");
    // Without a bypass the wish for metrics is one that must be met, and a refusal stays the refusal.
    let fits = ["guard", "check", "--database", "env:DATABASE_URL", "--app-version", "1.0.0"];
    assert_eq!(place.call(&[&fits[..], &["--metrics", "gone/guard.prom"]].concat()).code, Some(2));
    assert_eq!(place.call(&[&refused[..], &["--metrics", "gone/guard.prom"]].concat()).code, Some(1));
}

#[tokio::test]
async fn exec_becomes_the_application() {
    let place = at("1.0.0").await;
    let arguments = [&["guard", "exec", "--app-version", "1.0.0"], DATABASE].concat();
    let script = "echo $$ $PGRUNBOOK_GUARD_OUTCOME \"$1\"; cat; exit 7";
    let arguments = [&arguments[..], &["--", "sh", "-c", script, "sh", "an argument"]].concat();
    let mut command = place.command(&arguments);
    let input = std::fs::File::open({
        place.write("input", "from standard input\n");
        place.path("input")
    });
    command.stdin(input.unwrap()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = child.id();
    let said = Said::of(child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(7), "{}", said.err);
    assert_eq!(said.out, format!("{pid} equal an argument\nfrom standard input\n"));
    let arguments = [&["guard", "exec", "--app-version", "1.1.0", "--wait", "0s"], DATABASE].concat();
    let said = place.call(&[&arguments[..], &["--", "touch", "started"]].concat());
    assert_eq!(said.code, Some(1));
    assert!(!place.path("started").exists());
    let arguments = [&["guard", "exec", "--app-version", "1.0.0"], DATABASE].concat();
    let said = place.call(&[&arguments[..], &["--", "surely-no-such-program"]].concat());
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("surely-no-such-program cannot be started"), "{}", said.err);
}

#[tokio::test]
async fn migrate_writes_what_the_guard_reads() {
    let place = Place::new().await;
    place.write("pgrunbook.toml", "[targets.main]\nurl = \"env:DATABASE_URL\"\n");
    place.write("db/0001_a.sql", "CREATE TABLE bot_config (config_key text PRIMARY KEY, config_value jsonb);\n");
    place.write("db/0002_b.sql", "CREATE TABLE b ();\n");
    place.write("db/0002_b.down.sql", "DROP TABLE b;\n");
    place.call(&["migrate", "up", "db", "--schema-version", "1.1.0"]).done();
    check(&place, &["--app-version", "1.1.0"]).done();
    check(&place, &["--app-version", "0002", "--chain", "db"]).done();
    let said = check(&place, &["--app-version", "0003", "--chain", "db"]);
    assert_eq!(said.code, Some(1));
    place.call(&["migrate", "down", "db", "--to", "0001", "--schema-version", "1.0.0"]).done();
    check(&place, &["--app-version", "1.0.0"]).done();
    assert_eq!(check(&place, &["--app-version", "1.1.0"]).code, Some(1));
    let said = place.call(&["migrate", "up", "db", "--schema-version", "next"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("\"next\" is no semantic version"), "{}", said.err);
}

#[tokio::test]
async fn every_help_has_an_example() {
    let place = Place::new().await;
    for command in [&["guard", "--help"][..], &["guard", "check", "--help"], &["guard", "exec", "--help"]] {
        let said = place.call(command).done();
        assert!(said.out.contains("Example"), "{}", said.out);
    }
}

const RUNBOOK: &str = "# T

## Apply

```toml step
migrate = \"schema\"
target = \"main\"
chain = \"db\"
undo = \"down\"
version_row = { version = \"1.1.0\" }
deployment_log = \"audit.deployment_log\"
```
";

/// A database at 1.0.0, and a chain whose last file runs without a transaction.
async fn before_the_run() -> Place {
    let place = at("1.0.0").await;
    place
        .execute(
            "CREATE SCHEMA audit; CREATE TABLE audit.deployment_log (id int GENERATED ALWAYS AS IDENTITY, deployed_at timestamptz, action text,
             environment text, run text, step text, content_digest text, operator text, version text, migration text)",
        )
        .await;
    place.write("RUNBOOK.md", RUNBOOK);
    place.write("db/0001_note.sql", "CREATE TABLE note (id int);\n");
    place.write("db/0001_note.down.sql", "DROP TABLE note;\n");
    place.write("db/0002_index.sql", "CREATE INDEX CONCURRENTLY note_id ON note (id);\n");
    place.write("db/0002_index.down.sql", "DROP INDEX CONCURRENTLY note_id;\n");
    place
}

const ROW: &str = "SELECT concat_ws(' ', config_value ->> 'version', config_value ->> 'migration',
                          config_value -> 'previous' ->> 'version', to_regclass('note_id'),
                          (SELECT string_agg(action, ', ' ORDER BY id) FROM audit.deployment_log)) FROM bot_config";

#[tokio::test]
async fn version_row_survives_a_kill_at_any_point_forward_and_back() {
    let undisturbed = before_the_run().await;
    let (said, forward) = undisturbed.points(&["run", "RUNBOOK.md"]);
    said.done();
    let there = undisturbed.deaths();
    assert_eq!(undisturbed.value(ROW).await, "1.1.0 0002_index 1.0.0 note_id deployed");
    // Points are appended.
    std::fs::remove_file(undisturbed.path("trace")).unwrap();
    let (said, back) = undisturbed.points(&["rollback", "--path", "undo"]);
    said.done();
    assert_eq!(undisturbed.value(ROW).await, "1.0.0 0001_baseline deployed, rolled back");
    assert!(forward > 8 && back > 4, "{forward} and {back} points: the run has shrunk");
    let mut between = 0;
    for point in there {
        let place = before_the_run().await;
        assert_eq!(place.call_and_die(&["run", "RUNBOOK.md"], point).code, None, "point {point}");
        let status = place.call(&["status"]).out;
        if status.is_empty() {
            place.call(&["run", "RUNBOOK.md"]).done();
        } else if !status.contains("  completed  ") {
            // While it is not done it promises nothing that is not there.
            let row = place.value(ROW).await;
            assert!(row.starts_with("1.0.0") || row.ends_with("note_id deployed"), "killed at point {point}: {row}");
            assert_eq!(row.starts_with("1.1.0"), row.ends_with("deployed"), "killed at point {point}: {row}");
            between += usize::from(row == "1.0.0 0001_baseline note_id");
            place.call(&["resume"]).done();
        }
        assert_eq!(place.value(ROW).await, "1.1.0 0002_index 1.0.0 note_id deployed", "killed at point {point}");
    }
    assert!(between > 0, "version and log follow a migration without a transaction, and no kill came between");
    for point in undisturbed.deaths() {
        let place = before_the_run().await;
        place.call(&["run", "RUNBOOK.md"]).done();
        assert_eq!(place.call_and_die(&["rollback", "--path", "undo"], point).code, None, "point {point}");
        let status = place.call(&["status", &place.run_id()]).out;
        if !status.contains("rolled back in environment") {
            let turned = place.call(&["show"]).out.contains("Going back on");
            place.call(if turned { &["resume"][..] } else { &["rollback", "--path", "undo"] }).done();
        }
        assert_eq!(
            place.value(ROW).await,
            "1.0.0 0001_baseline deployed, rolled back",
            "killed at point {point} of the way back"
        );
    }
}
