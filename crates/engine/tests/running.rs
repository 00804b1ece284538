//! Runs, forward and back, over steps of every effect class.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::demands::Shown;
use crate::world::{Hand, Project, shown};
use pgrunbook_engine::journal::{self, JournalError};
use pgrunbook_engine::*;

/// One step of each class, over two phases.
pub const FOUR: &str = r#"# Four

## First

```toml step
transactional = "t"
target = "main"
undo = "auto"
```

```toml step
resolvable = "r"
target = "main"
undo = "drop-r"
```

```toml undo
resolvable = "drop-r"
target = "main"
```

## Second

```toml step
idempotent = "i"
target = "main"
undo = "auto"
```

```toml step
opaque = "o"
target = "main"
undo = "down"
```

```toml step
gate = "g"
target = "main"
```
"#;

#[tokio::test]
async fn run_goes_forward_to_its_end_and_is_undone_last_in_first_out() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    assert_eq!(project.world.there(), ["i", "o", "r", "t"]);

    assert_eq!(project.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert_eq!(project.world.effects(), ["+t", "+r", "+i", "+o", "-o", "-i", "-r", "-t"]);
    let lines = shown(&project.events(&run).await);
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn outcome_of_a_step_and_intent_of_the_next_are_one_append() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    let fuse = crate::world::Fuse::default();
    let hand = Hand::default();
    project.engine_with(fuse.clone()).run(&run, &RunOptions::default(), &hand).await.unwrap();
    // Two points each: the claim, `claimed`, one append and one effect for each of five steps, the last outcome of the
    // first phase (the targets are identified before the second), and the last outcome with `ended`.
    assert_eq!(fuse.passed(), 2 + 2 + 5 * 4 + 2 + 2);
}

fn gave_out() -> StepError {
    StepError::failed("gave-out", "it gave out").help("mend it")
}

async fn lines(project: &Project, run: &str) -> Vec<String> {
    shown(&project.events(run).await)
}

#[tokio::test]
async fn failed_step_stops_the_run_and_resume_tries_it_again() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    project.world.fail("r", Some(gave_out()));
    let RunEnd::Failed { step, code, help, .. } = project.run(&run).await else { panic!("it did not fail") };
    assert_eq!((step.as_str(), code.as_str(), help.as_deref()), ("r", "gave-out", Some("mend it")));
    assert_eq!(project.world.there(), ["t"]);

    project.world.fail("r", None);
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    let tail = &lines(&project, &run).await[5..9];
    assert_eq!(tail, ["> r #1 failed gave-out", "claimed 2", "> r #2 intent", "> r #2 done"]);
}

#[tokio::test]
async fn step_that_is_in_doubt_is_settled_at_once_by_asking_the_target() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    // The connection broke at COMMIT, and the row is there: nothing is lost, and nobody is asked.
    project.world.put("r");
    project.world.fail("r", Some(StepError::in_doubt("connection", "the connection was lost at COMMIT")));
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    assert!(lines(&project, &run).await.contains(&"> r #1 done, recovered".to_owned()));
}

#[tokio::test]
async fn step_that_is_in_doubt_and_did_not_happen_has_failed() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    project.world.fail("r", Some(StepError::in_doubt("connection", "the connection was lost at COMMIT")));
    let RunEnd::Failed { step, failure, .. } = project.run(&run).await else { panic!("it did not fail") };
    assert_eq!((step.as_str(), failure), ("r", step::Failure::Failed));
}

#[tokio::test]
async fn unknown_effect_waits_for_a_decision_and_has_no_default() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    project.world.fail("o", Some(StepError::in_doubt("killed", "the command was killed")));
    let RunEnd::Unknown { step, .. } = project.run(&run).await else { panic!("it was not unknown") };
    assert_eq!(step.as_str(), "o");
    project.world.fail("o", None);
    let again = project.run(&run).await;
    assert!(matches!(again, RunEnd::Unknown { .. }), "asked again, and nobody is here: {again:?}");

    let engine = project.engine();
    let unnamed = engine.decide(&run, &step, journal::Decision::Done, " ").await;
    assert!(matches!(unnamed, Err(EngineError::NothingToDecide(_))), "a decision needs a reason");
    let other = "t".parse().unwrap();
    assert!(engine.decide(&run, &other, journal::Decision::Done, "no").await.is_err(), "nothing is open there");
    engine.decide(&run, &step, journal::Decision::Done, "the file is there").await.unwrap();
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    assert!(!project.world.effects().contains(&"+o".to_owned()));
}

#[tokio::test]
async fn first_interrupt_finishes_the_step_and_stops_resumable() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    let options = RunOptions::default();
    let cancel = options.cancel.clone();
    let on_event = move |event: &Event| {
        if matches!(event, Event::Intent { step, .. } if step.as_str() == "r") {
            cancel.ask();
        }
    };
    let hand = Hand { on_event: Some(Box::new(on_event)), ..Hand::default() };
    let end = project.engine().run(&run, &options, &hand).await.unwrap();
    assert!(matches!(end, RunEnd::Stopped { .. }), "{end:?}");
    assert_eq!(project.world.there(), ["r", "t"]);
    assert_eq!(lines(&project, &run).await[6..], ["stopped"]);
    assert_eq!(project.run(&run).await, RunEnd::Completed);
}

#[tokio::test]
async fn second_interrupt_cancels_the_step() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    let _never_woken = project.world.hang("r");
    let options = RunOptions::default();
    let cancel = options.cancel.clone();
    let on_event = move |event: &Event| {
        if matches!(event, Event::Intent { step, .. } if step.as_str() == "r") {
            cancel.ask();
            cancel.ask();
        }
    };
    let hand = Hand { on_event: Some(Box::new(on_event)), ..Hand::default() };
    let end = project.engine().run(&run, &options, &hand).await.unwrap();
    assert!(matches!(end, RunEnd::Stopped { .. }), "{end:?}");
    assert_eq!(lines(&project, &run).await[5..], ["> r #1 failed interrupted", "stopped"]);
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    assert_eq!(project.world.effects(), ["+t", "+r", "+i", "+o"]);
}

#[tokio::test]
async fn step_is_cancelled_when_its_time_is_over() {
    let project = Project::new();
    let run = project.begin(&FOUR.replace("resolvable = \"r\"", "resolvable = \"r\"\ntimeout = \"1s\"")).await;
    let _never_woken = project.world.hang("r");
    let RunEnd::Failed { code, message, .. } = project.run(&run).await else { panic!("it did not fail") };
    assert_eq!(code, "timeout");
    assert_eq!(message, "not done within 1s and cancelled: cancelled, and rolled back");
    assert_eq!(project.run(&run).await, RunEnd::Completed);
}

#[tokio::test]
async fn process_that_wakes_up_late_cannot_act_or_write() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    let wake = project.world.hang("r");
    let late_engine = project.engine();
    let (options, hand) = (RunOptions::default(), Hand::default());
    let late = late_engine.run(&run, &options, &hand);
    tokio::pin!(late);
    let hangs = async {
        while !project.world.hangs("r") {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        end = &mut late => panic!("it did not hang: {end:?}"),
        () = hangs => {}
    }
    assert_eq!(project.run(&run).await, RunEnd::Completed, "another process takes over");
    wake.notify_one();
    let error = late.await.unwrap_err();
    assert!(matches!(error, EngineError::Journal(JournalError::Behind)), "{error}");
    assert_eq!(project.world.effects(), ["+t", "+r", "+i", "+o"]);
}

#[tokio::test]
async fn second_operator_is_told_who_where_since_when_and_at_which_step() {
    let mut project = Project::new();
    project.operator.pid = std::process::id();
    let run = project.begin(FOUR).await;
    let wake = project.world.hang("i");
    let engine = project.engine();
    let (options, hand) = (RunOptions::default(), Hand::default());
    let first = engine.run(&run, &options, &hand);
    tokio::pin!(first);
    let second = async {
        while !lines(&project, &run).await.contains(&"> i #1 intent".to_owned()) {
            tokio::task::yield_now().await;
        }
        let other = project.begin(FOUR).await;
        let mut errors = Vec::new();
        for run in [&run, &other] {
            errors.push(project.engine().run(run, &options, &hand).await.unwrap_err());
        }
        let decided = project.engine().decide(&run, &"i".parse().unwrap(), journal::Decision::Done, "no").await;
        errors.push(decided.unwrap_err());
        wake.notify_one();
        errors
    };
    let (end, errors) = tokio::join!(&mut first, second);
    assert_eq!(end.unwrap(), RunEnd::Completed, "the first goes on");
    for error in errors {
        let EngineError::Journal(JournalError::Taken(holder)) = error else { panic!("{error}") };
        assert_eq!((holder.run.as_str(), holder.operator.as_str(), holder.host.as_str()), (&*run, "anna", "desk"));
    }
    assert!(project.engine().journal.leases("desk").await.unwrap().is_empty(), "it was given back");
    assert_eq!(project.world.claims(), ["claim 1", "release 1"]);
}

#[tokio::test]
async fn target_held_by_another_run_is_left_alone() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    project.world.is_taken_by(Some(Claim {
        run: "other".to_owned(),
        runbook: "Other".to_owned(),
        epoch: 1,
        operator: "bert".to_owned(),
        host: "elsewhere".to_owned(),
        pid: 1,
        since: jiff::Timestamp::UNIX_EPOCH,
        step: None,
    }));
    let engine = project.engine();
    let error = engine.run(&run, &RunOptions::default(), &Hand::default()).await.unwrap_err();
    let EngineError::Target { source, .. } = error else { panic!("{error}") };
    assert!(source.message.contains("run other of \"Other\" is at work on this target: bert"), "{source}");
    assert!(project.world.effects().is_empty());
    assert!(engine.journal.leases("desk").await.unwrap().is_empty(), "the lease in the journal was given back");
    project.world.is_taken_by(None);
    assert_eq!(project.run(&run).await, RunEnd::Completed);
}

#[tokio::test]
async fn run_without_changing_steps_claims_no_target() {
    let project = Project::new();
    let run = project.begin("# Look\n\n## Look\n\n```toml step\ngate = \"g\"\ntarget = \"main\"\n```\n").await;
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    assert!(project.world.claims().is_empty());
}

#[tokio::test]
async fn run_that_has_ended_says_so_again() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    project.run(&run).await;
    let events = project.events(&run).await.len();
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    project.rollback(&run, UNDO).await;
    assert_eq!(project.run(&run).await, RunEnd::RolledBack);
    assert_eq!(project.rollback(&run, UNDO).await, RunEnd::RolledBack);
    assert!(project.events(&run).await.len() > events);
}

#[tokio::test]
async fn secret_that_a_step_lets_slip_reaches_no_sink() {
    let project = Project::new();
    project.redactor.learn("s3cr3t/pass");
    let run = project.begin(FOUR).await;
    let slip = "tried s3cr3t/pass, then s3cr3t%2Fpass, then dXNlcjpzM2NyM3QvcGFzcw== in vain";
    let error = StepError::failed("slip", slip)
        .help("ask for s3cr3t/pass")
        .evidence(Evidence::of(slip).fact("said", slip).fact("s3cr3t/pass", 1));
    project.world.fail("r", Some(error));
    let end = project.run(&run).await;
    let RunEnd::Failed { message, help, .. } = &end else { panic!("{end:?}") };
    for text in [message, help.as_ref().unwrap()] {
        assert!(!text.contains("s3cr3t") && !text.contains("czM2NyM3QvcGFzc"), "{text}");
    }
    let reason = Some("typed s3cr3t/pass by mistake".to_owned());
    let (options, hand) = (RunOptions::default(), Hand::default());
    project.engine().rollback(&run, UNDO, reason, &options, &hand).await.unwrap();
    let mut written = Vec::new();
    for file in std::fs::read_dir(project.folder.path()).unwrap().flatten().filter(|file| file.path().is_file()) {
        written.extend(std::fs::read(file.path()).unwrap());
    }
    let written = String::from_utf8_lossy(&written);
    assert!(written.contains("tried ***, then ***, then"), "the journal holds the rest of the sentence");
    for form in ["s3cr3t", "s3cr3t%2Fpass", "M2NyM3Qv"] {
        assert!(!written.contains(form), "{form} is in the journal");
    }
}

#[tokio::test]
async fn secret_in_the_reason_of_a_decision_is_not_recorded() {
    let project = Project::new();
    project.redactor.learn("s3cr3t/pass");
    let run = project.begin(FOUR).await;
    project.world.fail("o", Some(StepError::in_doubt("killed", "the command was killed")));
    let RunEnd::Unknown { step, .. } = project.run(&run).await else { panic!("it was not unknown") };
    let engine = project.engine();
    engine.decide(&run, &step, journal::Decision::Done, "logged in with s3cr3t/pass and saw it").await.unwrap();
    let notes: Vec<_> = project
        .events(&run)
        .await
        .into_iter()
        .filter_map(|sealed| match sealed.event {
            Event::Decided { note, .. } => Some(note),
            _ => None,
        })
        .collect();
    assert_eq!(notes, ["logged in with *** and saw it"]);
}

#[tokio::test]
async fn note_stands_between_an_intent_and_its_outcome_and_nowhere_else() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    let events: Vec<Event> = project.events(&run).await.into_iter().map(|sealed| sealed.event).collect();
    let t: pgrunbook_document::StepId = "t".parse().unwrap();
    let forward = journal::Direction::Forward;
    let note = |attempt| Event::Noted { step: t.clone(), direction: forward, attempt, note: "a stage".into() };
    let fold = |events: &[Event]| {
        let mut sealed: Vec<journal::Sealed> = Vec::new();
        for event in events {
            sealed.push(journal::Sealed::seal(event.clone(), jiff::Timestamp::UNIX_EPOCH, sealed.last()));
        }
        RunState::fold(&sealed)
    };
    let with = |at: usize, note| {
        let mut events = events.clone();
        events.insert(at, note);
        events
    };
    let intent = events.iter().position(|event| matches!(event, Event::Intent { step, .. } if *step == t)).unwrap();

    let noted = with(intent + 1, note(1));
    assert_eq!(*fold(&noted[..intent + 2]).unwrap().notes(&t, forward), ["a stage"]);
    assert!(fold(&noted).unwrap().notes(&t, forward).is_empty(), "done: nothing goes on from it");
    for wrong in [with(intent, note(1)), with(intent + 1, note(2)), with(intent + 2, note(1))] {
        let broken = fold(&wrong).unwrap_err();
        assert!(broken.why.contains("while it was not under way"), "{broken}");
    }
}

#[tokio::test]
async fn runs_that_begin_at_one_moment_have_each_a_name() {
    let mut project = Project::new();
    project.clock = Arc::new(Shown::at("2026-11-21T04:15:02Z"));
    let plan = project.plan(FOUR).await.unwrap();
    let engine = project.engine();
    let mut runs = BTreeSet::new();
    for _ in 0..20 {
        runs.insert(engine.begin(plan.clone(), Purpose::Real).await.unwrap());
    }
    assert_eq!(runs.len(), 20);
}
