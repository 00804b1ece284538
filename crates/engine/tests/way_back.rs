//! How long a way back takes: measured by the journal, and held against what the runbook declares.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use pgrunbook_engine::evidence::summary::Summary;
use pgrunbook_engine::*;
use tokio::sync::mpsc;

use crate::notices::{HandClock, MINUTE};
use crate::running::FOUR;
use crate::world::{Hand, Project};

/// A run that was gone back on, whose first step back took `length`.
async fn back_after(declared: &str, length: Duration) -> (Project, String) {
    let mut project = Project::new();
    let clock = HandClock::new();
    project.clock = Arc::new(clock.clone());
    let text = FOUR.replace("# Four\n", &format!("# Four\n\n```toml runbook\n{declared}\n```\n"));
    let run = project.begin(&text).await;
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    // Between the end and the turn: that is no way back.
    clock.set(60 * MINUTE);
    let wake = project.world.hang("o");
    let (tell, mut begun) = mpsc::unbounded_channel();
    let (engine, of_run) = (project.engine(), run.clone());
    let work = tokio::spawn(async move {
        let on_event = move |event: &Event| {
            if matches!(event, Event::Intent { direction: Direction::Back, .. }) {
                let _ = tell.send(());
            }
        };
        let hand = Hand { on_event: Some(Box::new(on_event)), ..Hand::default() };
        engine.rollback(&of_run, UNDO, None, &RunOptions::default(), &hand).await.unwrap()
    });
    tokio::time::timeout(MINUTE, begun.recv()).await.expect("it begins").unwrap();
    clock.set(60 * MINUTE + length);
    wake.notify_one();
    assert_eq!(work.await.unwrap(), RunEnd::RolledBack);
    (project, run)
}

/// What is said of it in the status, the report, and the summary.
async fn said(project: &Project, run: &str) -> (WayBack, String, serde_json::Value) {
    let engine = project.engine();
    let state = engine.status(run).await.unwrap().state;
    let folder = project.folder.path().join("evidence");
    engine.report(run, &folder, None).await.unwrap();
    let report = std::fs::read_to_string(folder.join("report.md")).unwrap();
    let summary = Summary::of(run, &state, &project.events(run).await, &[]);
    let way_back = WayBack::of(&state, engine.clock.now() + jiff::SignedDuration::from_hours(1)).unwrap();
    assert!(report.contains(&way_back.to_string()), "{report}");
    assert!(summary.markdown(&state, "").contains(&way_back.to_string()));
    (way_back, report, summary.json(&state, "")["way_back"].clone())
}

#[tokio::test]
async fn limit_that_holds_is_said_with_the_time_that_was_measured() {
    let (project, run) = back_after("rollback_within = \"5m\"", Duration::from_secs(292)).await;
    let (way_back, _, json) = said(&project, &run).await;
    assert_eq!(way_back.to_string(), "The way back took 4 min 52 s: held, within 5 min.");
    assert_eq!((&json["held"], &json["took_ms"], &json["within_ms"]), (&true.into(), &292_000.into(), &300_000.into()));
}

#[tokio::test]
async fn limit_that_does_not_hold_is_loud() {
    let (project, run) = back_after("rollback_within = \"5m\"", Duration::from_secs(362)).await;
    let (way_back, _, json) = said(&project, &run).await;
    assert_eq!(way_back.to_string(), "The way back took 6 min 2 s: NOT HELD, it was to take at most 5 min.");
    assert_eq!(json["held"], false);
}

#[tokio::test]
async fn way_back_without_a_limit_is_measured_too() {
    let (project, run) = back_after("", Duration::from_secs(7)).await;
    let (way_back, _, json) = said(&project, &run).await;
    assert_eq!((way_back.took(), way_back.held()), (Duration::from_secs(7), None));
    assert_eq!((&json["took_ms"], &json["held"]), (&7_000.into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn limit_is_a_part_of_what_is_approved_and_nonsense_is_refused() {
    let project = Project::new();
    let with =
        |limit: &str| FOUR.replace("# Four\n", &format!("# Four\n\n```toml runbook\nrollback_within = {limit}\n```\n"));
    let mut plan = project.plan(&with("\"5m\"")).await.unwrap();
    assert!(plan.is_whole() && plan.rollback_within() == Some(5 * MINUTE));
    plan.rollback_within_ms = Some(3_600_000);
    assert!(!plan.is_whole(), "a saved plan that was edited");
    for nonsense in ["\"soon\"", "5"] {
        let parsed = pgrunbook_document::parse(
            "RUNBOOK.md",
            &with(nonsense),
            &|path| Err(format!("no {path}")),
            pgrunbook_document::Vocabulary(&[]),
        );
        let found: Vec<_> = parsed.diagnostics.iter().map(|found| found.code).collect();
        assert!(found.iter().any(|code| ["bad-duration", "bad-value"].contains(code)), "{nonsense}: {found:?}");
    }
}
