//! The process dies at every point between two writes, forward and back, for every effect class; then the run is
//! resumed. The end is that of an undisturbed run, and no effect happened twice.
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use crate::running::FOUR;
use crate::world::{Fuse, Hand, Project, World, shown};
use pgrunbook_engine::journal::Decision;
use pgrunbook_engine::step::Cancel;
use pgrunbook_engine::*;

/// The operator goes and looks whether an opaque effect is there, and answers truly.
fn who_looks(world: &World) -> Hand {
    let world = world.clone();
    let decision = move |doubt: &Doubt| {
        assert_eq!(doubt.step.as_str(), "o", "only the opaque step is a person's to decide");
        let is_there = world.there().iter().any(|thing| thing == "o");
        let happened = is_there == (doubt.direction == journal::Direction::Forward);
        let decision = if happened { Decision::Done } else { Decision::Again };
        Some(DoubtAnswer { decision, note: "looked".to_owned() })
    };
    Hand { decision: Some(Box::new(decision)), ..Hand::default() }
}

fn options() -> RunOptions {
    RunOptions { cancel: Cancel::default(), ..RunOptions::default() }
}

/// Runs forward, dying at the given points one after the other, then to the end.
async fn forward(project: &Project, run: &str, deaths: &[u64]) {
    for death in deaths {
        let fuse = Fuse::at(*death);
        let (engine, hand, options) = (project.engine_with(fuse.clone()), who_looks(&project.world), options());
        if let Some(end) = fuse.kill(engine.run(run, &options, &hand)).await {
            assert_eq!(end.unwrap(), RunEnd::Completed);
            return;
        }
    }
    let end = project.engine().run(run, &options(), &who_looks(&project.world)).await.unwrap();
    assert_eq!(end, RunEnd::Completed);
}

/// Rolls back, dying at the given points. A rollback that was begun is gone on with by `run`.
async fn back(project: &Project, run: &str, deaths: &[u64]) {
    for death in deaths {
        let fuse = Fuse::at(*death);
        let (engine, hand, options) = (project.engine_with(fuse.clone()), who_looks(&project.world), options());
        let call = engine.rollback(run, UNDO, None, &options, &hand);
        if let Some(end) = fuse.kill(call).await {
            assert_eq!(end.unwrap(), RunEnd::RolledBack);
            return;
        }
    }
    let engine = project.engine();
    let turned = engine.status(run).await.unwrap().state.turned_back.is_some();
    let hand = who_looks(&project.world);
    let end = if turned {
        engine.run(run, &options(), &hand).await
    } else {
        engine.rollback(run, UNDO, None, &options(), &hand).await
    };
    assert_eq!(end.unwrap(), RunEnd::RolledBack);
}

async fn points_of(undo: bool) -> u64 {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    let fuse = Fuse::default();
    if undo {
        forward(&project, &run, &[]).await;
        let engine = project.engine_with(fuse.clone());
        engine.rollback(&run, UNDO, None, &options(), &Hand::default()).await.unwrap();
    } else {
        project.engine_with(fuse.clone()).run(&run, &options(), &Hand::default()).await.unwrap();
    }
    fuse.passed()
}

#[tokio::test]
async fn run_that_dies_at_any_point_ends_as_if_undisturbed() {
    let points = points_of(false).await;
    for death in 1..=points {
        let project = Project::new();
        let run = project.begin(FOUR).await;
        forward(&project, &run, &[death]).await;
        assert_eq!(project.world.effects(), ["+t", "+r", "+i", "+o"], "died at point {death}");
        assert_eq!(project.world.there(), ["i", "o", "r", "t"], "died at point {death}");
    }
}

#[tokio::test]
async fn run_that_dies_twice_at_any_two_points_ends_as_if_undisturbed() {
    let points = points_of(false).await;
    for first in 1..=points {
        // The second life passes no more points than a whole one and the settling of one step.
        for second in (1..=points + 4).step_by(5) {
            let project = Project::new();
            let run = project.begin(FOUR).await;
            forward(&project, &run, &[first, second]).await;
            assert_eq!(project.world.effects(), ["+t", "+r", "+i", "+o"], "died at points {first} and {second}");
        }
    }
}

#[tokio::test]
async fn rollback_that_dies_at_any_point_ends_as_if_undisturbed() {
    let points = points_of(true).await;
    for death in 1..=points {
        let project = Project::new();
        let run = project.begin(FOUR).await;
        forward(&project, &run, &[]).await;
        back(&project, &run, &[death]).await;
        let effects = project.world.effects();
        assert_eq!(effects, ["+t", "+r", "+i", "+o", "-o", "-i", "-r", "-t"], "died at point {death}");
        assert!(project.world.there().is_empty(), "died at point {death}");
    }
}

#[tokio::test]
async fn run_that_dies_at_any_point_can_be_rolled_back() {
    let points = points_of(false).await;
    for death in 1..=points {
        let project = Project::new();
        let run = project.begin(FOUR).await;
        let fuse = Fuse::at(death);
        let (engine, hand, options) = (project.engine_with(fuse.clone()), who_looks(&project.world), options());
        fuse.kill(engine.run(&run, &options, &hand)).await;
        back(&project, &run, &[]).await;
        assert!(project.world.there().is_empty(), "died at point {death}: {:?}", project.world.there());
        let effects = project.world.effects();
        for thing in ["t", "r", "i", "o"] {
            let times = |sign: char| effects.iter().filter(|effect| **effect == format!("{sign}{thing}")).count();
            assert!(times('+') <= 1 && times('-') == times('+'), "died at point {death}: {effects:?}");
        }
    }
}

/// The journal cut behind every event, and what a resume then writes behind the cut. The world is that of the undisturbed run at that
/// event; where the cut is behind an intent, both worlds are tried: the effect happened, or it did not.
#[tokio::test]
async fn journal_cut_at_every_event_is_taken_up() {
    let mut text = String::new();
    let points = points_of(false).await;
    for death in 1..=points {
        let project = Project::new();
        let run = project.begin(FOUR).await;
        let fuse = Fuse::at(death);
        let (engine, hand, options) = (project.engine_with(fuse.clone()), who_looks(&project.world), options());
        fuse.kill(engine.run(&run, &options, &hand)).await;
        let cut = project.events(&run).await.len();
        let last = shown(&project.events(&run).await).pop().unwrap();
        let there = project.world.there().join(" ");
        let heading = format!("-- cut behind event {cut} ({last}), there: {there}\n");
        if text.contains(&heading) {
            continue;
        }
        text.push_str(&heading);
        forward(&project, &run, &[]).await;
        for line in shown(&project.events(&run).await[cut..]).iter().take(5) {
            text.push_str(&format!("   {line}\n"));
        }
    }
    insta::assert_snapshot!(text);
}
