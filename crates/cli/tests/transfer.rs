//! `transfer`, as it is typed: from the first look to the end, without a runbook but for the cutover.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use pgrunbook_postgres::Session;
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions, shared, url};
use serde_json::Value;
use tokio::io::AsyncBufReadExt;

use crate::place::{Place, Said};

const CUTOVER: &str = "# Over\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n## Go\n\n```toml step\ncutover = \"go\"\n\
    target = \"main\"\nschemas = [\"tenant\"]\nto = \"target\"\nbudget = \"20s\"\nundo = \"auto\"\n```\n";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The last line of what was said, which is JSON.
#[track_caller]
fn json(said: &Said) -> Value {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}: {said:?}"));
    let lines: Vec<Value> = said.out.lines().map(read).collect();
    lines.into_iter().next_back().unwrap_or_else(|| panic!("{said:?}"))
}

#[tokio::test]
async fn transfer_is_started_followed_accepted_completed_and_given_up_by_hand() {
    let settings = [("wal_level", "logical"), ("max_connections", "100")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let cluster = shared("cli-transfer", SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap();
    let (old, main) = (cluster.fresh_database("old").await.unwrap(), cluster.fresh_database("new").await.unwrap());
    let place = Place::on(main.clone());
    let targets = format!("[targets.main]\nurl = \"{}\"\n[targets.old]\nurl = \"{}\"\n", url(&main), url(&old));
    place.write("pgrunbook.toml", &targets);
    place.write("OVER.md", CUTOVER);
    let source = Session::connect(&old, "test").await.unwrap();
    source
        .execute("CREATE TABLE notes (id int PRIMARY KEY, body text); INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 500) i")
        .await
        .unwrap();
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    let call = |args: &str| {
        place.call(&[&["--format", "json", "transfer"][..], &args.split(' ').collect::<Vec<_>>()].concat())
    };

    // Nothing yet.
    assert_eq!(json(&call("status").done())["transfers"], serde_json::json!([]));
    let found = json(&call("preflight --from old --schema tenant").done());
    assert_eq!((found["type"].as_str(), found["blocking"].as_u64()), (Some("preflight"), Some(0)), "{found}");

    // Begun, and given up.
    let start = "start --from old --schema tenant";
    let begun = json(&call(start).done());
    assert_eq!((begun["type"].as_str(), begun["facts"]["rows"].as_u64()), (Some("transfer"), Some(500)), "{begun}");
    assert_eq!(source.value(slots).await.unwrap(), "1");
    let asked = call("abandon tenant");
    assert_eq!((asked.code, json(&asked)["code"].as_str()), (Some(2), Some("confirm")), "{asked:?}");
    assert_eq!(json(&call("abandon tenant --yes").done())["type"], "transfer-ended");
    assert_eq!(source.value(slots).await.unwrap(), "0");
    assert_eq!(place.value("SELECT to_regnamespace('tenant') IS NULL").await, "t");

    // Begun again; a change of the definition stops the stream, until somebody has looked.
    call(start).done();
    source.execute("ALTER TABLE notes ADD COLUMN stars int; INSERT INTO notes VALUES (501, 'new', 5)").await.unwrap();
    let stopped = call("follow");
    assert_eq!((stopped.code, json(&stopped)["code"].as_str()), (Some(1), Some("stream-ddl")), "{stopped:?}");
    let shown = call("status --check");
    let shown = (shown.code, json(&shown)["transfers"][0]["stopped"]["code"].as_str().map(str::to_owned));
    assert_eq!(shown, (Some(1), Some("ddl".to_owned())));
    let asked = call("accept tenant");
    assert_eq!(asked.code, Some(2));
    let offered: Value = serde_json::from_str(asked.out.lines().next().unwrap()).unwrap();
    assert_eq!(offered["statements"], serde_json::json!(["ALTER TABLE tenant.notes ADD COLUMN stars integer"]));
    assert_eq!(json(&call("accept tenant --yes").done())["type"], "accepted");
    let nothing = json(&call("accept tenant").done());
    assert_eq!(nothing["stream"], Value::Null);

    // Followed, until it is told to stop.
    let mut command = place.command(&["--format", "json", "transfer", "follow", "--schema", "tenant"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let told = BufReader::new(child.stdout.take().unwrap());
    let begun = Instant::now();
    for line in told.lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(
            (line["type"].as_str(), line["transfers"][0]["schema"].as_str()),
            (Some("transfers"), Some("tenant"))
        );
        if place.value("SELECT count(*) FROM tenant.notes WHERE stars = 5").await == "1" {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the row does not come: {line}");
    }
    let interrupted = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let ended = Said::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");

    // There is no end before the switch, and no way back after it.
    let early = call("complete tenant --yes");
    assert_eq!((early.code, json(&early)["code"].as_str()), (Some(2), Some("phase")), "{early:?}");
    place.call(&["run", "OVER.md", "--no-input"]).done();
    let switched = json(&call("status --check --schema tenant").done());
    let one = &switched["transfers"][0];
    assert_eq!((one["phase"].as_str(), one["rollback_is_lossless"].as_bool()), (Some("switched"), Some(true)), "{one}");
    let late = call("abandon tenant --yes");
    assert_eq!(late.code, Some(2), "{late:?}");
    let asked = call("complete tenant");
    assert!(asked.code == Some(2) && asked.out.contains("no way back"), "{asked:?}");
    let ended = json(&call("complete tenant --yes").done());
    assert_eq!((ended["type"].as_str(), ended["schema"].as_str()), (Some("transfer-ended"), Some("tenant")), "{ended}");
    assert_eq!(source.value(slots).await.unwrap(), "0");
    assert_eq!(place.value(slots).await, "0");
    assert_eq!(place.value("SELECT count(*) FROM tenant.notes").await, "501");
}

/// What runs between two runs is a service: it outlives a restart of either server.
#[tokio::test(flavor = "multi_thread")]
async fn follower_goes_on_when_a_server_that_was_down_is_back() {
    let own = async || {
        let settings = vec![("wal_level".to_owned(), "logical".to_owned())];
        Sandbox::start(SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap()
    };
    let (source, target) = (own().await, own().await);
    let (old, main) = (source.database("old").await.unwrap(), target.database("new").await.unwrap());
    let place = Place::on(main.clone());
    let targets = format!("[targets.main]\nurl = \"{}\"\n[targets.old]\nurl = \"{}\"\n", url(&main), url(&old));
    place.write("pgrunbook.toml", &targets);
    let at_source = async |sql: &str| Session::connect(&old, "test").await.unwrap().execute(sql).await.unwrap();
    at_source("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (0)").await;
    place.call(&["transfer", "start", "--from", "old", "--schema", "tenant"]).done();

    let mut command = tokio::process::Command::from(place.command(&["transfer", "follow"]));
    let command = command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut told = tokio::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let mut count = 0;
    let arrives = async |number: i32| {
        let begun = Instant::now();
        let wanted = format!("SELECT count(*) FROM tenant.notes WHERE id = {number}");
        while place.value(&wanted).await != "1" {
            assert!(begun.elapsed() < PATIENCE, "row {number} does not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    for server in [&target, &source] {
        count += 1;
        at_source(&format!("INSERT INTO notes VALUES ({count})")).await;
        arrives(count).await;
        tokio::task::block_in_place(|| server.kill()).unwrap();
        let waits = async {
            while let Some(line) = told.next_line().await.unwrap() {
                if line.contains("following goes on when it passes") {
                    return;
                }
            }
            panic!("it ended");
        };
        tokio::time::timeout(PATIENCE, waits).await.unwrap();
        tokio::task::block_in_place(|| server.restart()).unwrap();
        count += 1;
        at_source(&format!("INSERT INTO notes VALUES ({count})")).await;
        arrives(count).await;
    }
    let interrupted = std::process::Command::new("kill").args(["-INT", &child.id().unwrap().to_string()]).status();
    assert!(interrupted.unwrap().success());
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn map_on_the_command_line_says_what_columns_become() {
    let settings = [("wal_level", "logical"), ("max_connections", "100")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let cluster = shared("cli-transfer", SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap();
    let place = Place::on(cluster.fresh_database("mapped").await.unwrap());
    place.write(
        "pgrunbook.toml",
        &format!("[targets.main]\nurl = \"{}\"\n[targets.old]\nsqlite = \"old.db\"\n", url(&place.database)),
    );
    let file = rusqlite::Connection::open(place.path("old.db")).unwrap();
    file.execute_batch(
        "CREATE TABLE item (id INTEGER PRIMARY KEY, at INTEGER); INSERT INTO item VALUES (1, 1700000000)",
    )
    .unwrap();
    let start = |action: &str, map: &str| {
        let map = format!("--map={map}");
        place.call(&["--format", "json", "transfer", action, "--from", "old", "--schema", "tenant", &map])
    };
    for action in ["preflight", "start"] {
        let said = start(action, "item.gone=uuid");
        assert!(said.code != Some(0) && said.out.contains("item.gone"), "{action}: {said:?}");
    }
    for action in ["preflight", "start"] {
        start(action, "item.at=timestamptz from unix seconds").done();
    }
    let found = "SELECT pg_typeof(at)::text || ' ' || extract(epoch FROM at)::bigint FROM tenant.item";
    assert_eq!(place.value(found).await, "timestamp with time zone 1700000000");
    place.call(&["transfer", "abandon", "tenant", "--yes"]).done();
}
