//! The whole runbook with the service running, and with clients that write and read all the while: there, back, and there again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::block_in_place;
use writers::http::{Answer, Client, Service, Writers};

use crate::bench::{TOKEN, fill, profile};
use crate::project::Project;

const SOON: Duration = Duration::from_secs(60);
const ITEMS: u32 = 200;
/// The backends, as answers name them.
const FILE: &str = "sqlite";
const DATABASE: &str = "postgres_primary";

/// One question of a new client.
async fn ask(project: &Project, method: &str, path: &str, source: &str) -> Answer {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("X-Source-ID", source), ("Authorization", bearer.as_str())];
    Client::new(project.app.clone()).ask(method, path, &headers, None).await.unwrap()
}

/// `/health` names the source and the side that has its rows, and an unknown source is answered by neither.
async fn is_on(project: &Project, backend: &str) {
    let health = ask(project, "GET", "/health", "assets_1").await;
    assert_eq!(health.status, 200, "{}", health.body);
    assert_eq!((&health.body["backend"], &health.body["source"]), (&backend.into(), &"assets_1".into()));
    for path in ["/health", "/items", "/items/1", "/stats"] {
        let unknown = ask(project, "GET", path, "nobody").await;
        assert_eq!(unknown.status, 400, "{backend} {path}: {}", unknown.body);
    }
}

/// Reads one source until it is told to stop: how many rows each backend has shown of it. A row of another source, or a request
/// that is refused, ends the test.
async fn read(address: String, source: &'static str, stop: Arc<AtomicBool>) -> BTreeMap<String, usize> {
    let (mut client, mut shown) = (Client::new(address), BTreeMap::new());
    // It is no load test: the writers are one.
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for path in ["/items?limit=10", "/items?q=garden&limit=5", "/items/3"].iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        pace.tick().await;
        // While the service is restarted nobody answers.
        let Ok(answer) = client.ask("GET", path, &[("X-Source-ID", source)], None).await else { continue };
        assert_eq!((answer.status, &answer.body["source"]), (200, &source.into()), "{path}: {}", answer.body);
        let rows = answer.body["items"].as_array().cloned().unwrap_or_else(|| vec![answer.body["item"].clone()]);
        for row in &rows {
            let title = row["title"].as_str().unwrap();
            assert!(title.starts_with(source), "{source} was shown {title}");
        }
        *shown.entry(answer.headers["x-backend"].clone()).or_default() += rows.len();
    }
    shown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn there_and_back_and_there_again_and_no_accepted_write_is_lost() {
    let project = Project::new().await;
    let files = ["assets_1", "assets_2"].map(|source| profile(&project.path("profiles"), source, ITEMS));
    project.start("items");
    let service = Service { address: project.app.clone(), source: "assets_1".to_owned(), items: i64::from(ITEMS) };
    // Each of their writes is asked for in the end: a few thousand are enough.
    let writers = Writers::thinking(service.clone(), 3, 21, Duration::from_millis(10));
    writers.wait_for(200, SOON).await;
    is_on(&project, FILE).await;
    assert_eq!(ask(&project, "GET", "/items/1", "assets_2").await.status, 200, "each file is a source");

    let forth = || {
        let (code, said) = block_in_place(|| project.call(&["run", "RUNBOOK.md", "--answers", "answers.toml"]));
        assert_eq!(code, Some(3), "it waits for a person before the way back is given up: {said}");
        assert!(said.contains("The observation is over, and nobody wants the file back"), "{said}");
    };
    forth();
    writers.wait_for(200, SOON).await;
    is_on(&project, DATABASE).await;
    // Its file is still there, and is no way out.
    let unmoved = ask(&project, "GET", "/items/1", "assets_2").await;
    assert_eq!(unmoved.status, 400, "{}", unmoved.body);

    // From here on both sides have both sources.
    let made = ask(&project, "POST", "/admin/bootstrap/schema", "assets_2").await;
    assert_eq!(made.status, 200, "{}", made.body);
    fill(&project.database, &files[1], made.body["schema"].as_str().unwrap()).await;
    let stop = Arc::<AtomicBool>::default();
    let readers = ["assets_1", "assets_2"].map(|source| tokio::spawn(read(project.app.clone(), source, stop.clone())));

    let back = ["rollback", "--path", "6-fast-rollback", "--reason", "the test goes back"];
    block_in_place(|| project.done(&back));
    writers.wait_for(200, SOON).await;
    is_on(&project, FILE).await;

    forth();
    writers.wait_for(200, SOON).await;
    is_on(&project, DATABASE).await;

    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let shown = reader.await.unwrap();
        assert!([FILE, DATABASE].iter().all(|side| shown.get(*side).is_some_and(|rows| *rows > 0)), "{shown:?}");
    }
    let history = writers.stop().await;
    assert!(history.failures.keys().all(|what| what == "503" || what == "connection"), "{:?}", history.failures);
    assert!(history.failures.contains_key("503"), "no writer has met a fence: {:?}", history.failures);
    let sides: Vec<_> = history.freezes().into_iter().map(|one| (one.from, one.to)).collect();
    let way = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(sides, [way(FILE, DATABASE), way(DATABASE, FILE), way(FILE, DATABASE)]);
    let verdict = history.verify_service(&service).await.unwrap();
    assert!(verdict.is_whole() && verdict.writes >= 800, "{verdict}");
    let standing = block_in_place(|| project.done(&["transfer", "status", "--check"]));
    assert!(standing.contains("rollback is lossless: yes"), "{standing}");

    // And where the rows themselves are wrong: as they were loaded, under a fence that has no business here any more.
    let controlled = ["rollback", "--path", "7-controlled-rollback", "--reason", "the test puts the source back"];
    block_in_place(|| project.done(&controlled));
    let header = [("X-Source-ID", "assets_1")];
    let written =
        Client::new(project.app.clone()).ask("PUT", "/items/1/meta", &header, Some(&json!({}))).await.unwrap();
    assert_eq!(written.status, 200, "{}", written.body);
    assert_eq!(ask(&project, "GET", "/stats", "assets_1").await.body["items"], ITEMS);
}
