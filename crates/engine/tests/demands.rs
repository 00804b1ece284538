//! What an environment demands before the first change: each refused and held, overridden, and looked at again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use pgrunbook_engine::evidence::verify::verify;
use pgrunbook_engine::journal::ItemOutcome;
use pgrunbook_engine::*;

use crate::running::FOUR;
use crate::world::{Fuse, Hand, Project, shown};

/// A clock that shows what a test says.
#[derive(Clone)]
pub struct Shown(Arc<Mutex<Timestamp>>);

impl Shown {
    pub fn at(time: &str) -> Self {
        Self(Arc::new(Mutex::new(time.parse().unwrap())))
    }

    pub fn set(&self, time: &str) {
        *self.0.lock().unwrap() = time.parse().unwrap();
    }
}

#[async_trait]
impl Clock for Shown {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// What a status page would say: the incidents that are open, or why it does not answer.
struct Page(Mutex<Result<Vec<String>, String>>);

impl Page {
    fn of(open: &[&str]) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Ok(open.iter().map(|text| (*text).to_owned()).collect()))))
    }

    fn says(&self, answer: Result<Vec<String>, String>) {
        *self.0.lock().unwrap() = answer;
    }
}

#[async_trait]
impl Incidents for Page {
    fn shown(&self) -> String {
        "the page".to_owned()
    }

    async fn open(&self) -> Result<Vec<String>, StepError> {
        self.0.lock().unwrap().clone().map_err(|why| StepError::failed("http", why))
    }
}

/// Monday to Thursday, 9 to 16 UTC; the clock shows a Monday at 10.
pub fn at_work() -> (Project, Shown) {
    let mut project = Project::new();
    let clock = Shown::at("2026-11-23T10:00:00Z");
    project.clock = Arc::new(clock.clone());
    project.environment.name = "production".to_owned();
    project.environment.windows = vec!["Mon-Thu 09:00-16:00 UTC".parse().unwrap()];
    (project, clock)
}

pub fn overriding(demand: Overridable, reason: &str) -> RunOptions {
    RunOptions { overrides: vec![Override { demand, reason: reason.to_owned() }], ..RunOptions::default() }
}

pub const WHY: &str = "the payment fix cannot wait, Olga decided";

/// Lets the operator override.
pub fn release_manager(project: &mut Project) {
    project.environment.override_roles = BTreeSet::from(["release-manager".to_owned()]);
    let role = BTreeSet::from(["release-manager".to_owned()]);
    project.people.roles.insert("anna".to_owned(), role);
}

/// Name and standing of each demand, a line each.
async fn standing(project: &Project, text: &str, options: &RunOptions) -> Vec<String> {
    let plan = project.plan(text).await.unwrap();
    let line = |demand: &Demand| {
        let standing = match &demand.standing {
            Standing::Held(by) => format!("held: {by}"),
            Standing::Missing { found, .. } => format!("missing: {found}"),
            Standing::Overridden { found, .. } => format!("overridden: {found}"),
        };
        format!("{} {standing}", demand.name.word())
    };
    project.engine().demands(&plan, options).await.unwrap().iter().map(line).collect()
}

/// Why a run of a text is not begun.
async fn refusal(project: &Project, text: &str) -> String {
    let plan = project.plan(text).await.unwrap();
    match project.engine().begin(plan, Purpose::Real).await {
        Err(EngineError::Demands { missing, .. }) => missing.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn all_demands_are_told_at_once_and_then_held() {
    let (mut project, clock) = at_work();
    clock.set("2026-11-21T10:00:00Z");
    let page = Page::of(&["payments are slow", "search is down"]);
    project.incidents = Some(page.clone());
    let keys = tempfile::tempdir().unwrap();
    let (bert, public) = crate::evidence::key(keys.path(), "bert");
    project.people.allowed_signers = Some(format!("bert {public}"));
    let environment = &mut project.environment;
    environment.rehearsal_required = true;
    environment.rehearsed_in = Some("staging".to_owned());
    environment.approvals = 1;
    environment.confirm = Some("YES".to_owned());
    let none = RunOptions::default();
    assert_eq!(
        standing(&project, FOUR, &none).await,
        [
            "rehearsal missing: there is none in the journal",
            "rehearsed in missing: the journal has no run of RUNBOOK.md there",
            "window missing: closed; the next opens Mon 2026-11-23 09:00 UTC, in 1 d 23 h",
            "incident missing: 2 open: payments are slow; search is down",
            "approvals missing: 1 missing",
            "confirmation missing: not given",
        ]
    );
    let why = refusal(&project, FOUR).await;
    for part in
        ["a rehearsal of this content", "in `staging` to its end", "Mon-Thu 09:00-16:00 UTC", "no open incident"]
    {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(project.engine().journal.runs().await.unwrap().is_empty(), "what is refused leaves no run");

    // One after the other is brought.
    project.incidents = None;
    project.environment = Environment { name: "staging".to_owned(), ..Environment::default() };
    let there = project.begin(FOUR).await;
    assert_eq!(project.run(&there).await, RunEnd::Completed);
    clock.set("2026-11-21T10:01:00Z");
    let plan = project.plan(FOUR).await.unwrap();
    let rehearsal = project.engine().begin(plan.clone(), Purpose::Rehearsal).await.unwrap();
    project.run(&rehearsal).await;
    project.rollback(&rehearsal, UNDO).await;
    clock.set("2026-11-23T09:15:00Z");
    page.says(Ok(Vec::new()));
    project.incidents = Some(page.clone());
    let (demanding, _) = at_work();
    project.environment = Environment {
        rehearsal_required: true,
        rehearsed_in: Some("staging".to_owned()),
        approvals: 1,
        confirm: Some("YES".to_owned()),
        ..demanding.environment.clone()
    };
    let plan = project.plan(FOUR).await.unwrap();
    let signature = signers::sign(approval::NAMESPACE, approval::text(&plan.plan_digest).as_bytes(), &bert).unwrap();
    let approval = approval::approve(&plan, "bert", &signature, &project.people, Timestamp::now()).unwrap();
    let options =
        RunOptions { approvals: vec![approval], confirmation: Some("YES".to_owned()), ..RunOptions::default() };
    assert_eq!(
        standing(&project, FOUR, &options).await,
        [
            format!("rehearsal held: {rehearsal} of 2026-11-21 10:01 UTC"),
            format!("rehearsed in held: {there} of 2026-11-21 10:00 UTC completed there"),
            "window held: open until Mon 2026-11-23 16:00 UTC, 6 h 45 min left".to_owned(),
            "incident held: none is open, says the page".to_owned(),
            "approvals held: by bert".to_owned(),
            "confirmation held: given".to_owned(),
        ]
    );
    let run = project.engine().begin(plan, Purpose::Real).await.unwrap();
    assert_eq!(project.engine().run(&run, &options, &Hand::default()).await.unwrap(), RunEnd::Completed);
    let state = project.engine().status(&run).await.unwrap().state;
    assert_eq!(state.demands.len(), 6, "all of them are in the journal");
    assert!(state.demands.iter().all(|demand| demand.held.is_some()) && state.overrides.is_empty());
}

#[tokio::test]
async fn refusal_names_what_the_other_environment_has_instead() {
    let mut project = Project::new();
    let production = Environment {
        name: "production".to_owned(),
        rehearsed_in: Some("staging".to_owned()),
        rehearsed_back: true,
        ..Environment::default()
    };
    let staging = Environment { name: "staging".to_owned(), ..Environment::default() };
    let said = async |project: &mut Project| {
        project.environment = production.clone();
        let lines = standing(project, FOUR, &RunOptions::default()).await;
        project.environment = staging.clone();
        lines.concat()
    };
    assert_eq!(said(&mut project).await, "rehearsed in missing: the journal has no run of RUNBOOK.md there");

    let edited = project.begin(&FOUR.replace("# Four", "# Five")).await;
    project.run(&edited).await;
    let found = said(&mut project).await;
    assert!(found.contains(&format!("missing: {edited} of ")), "{found}");
    assert!(found.ends_with("): something was edited since"), "{found}");

    // A rehearsal there is no run there.
    let plan = project.plan(FOUR).await.unwrap();
    let rehearsal = project.engine().begin(plan, Purpose::Rehearsal).await.unwrap();
    project.run(&rehearsal).await;
    project.rollback(&rehearsal, UNDO).await;
    assert!(said(&mut project).await.contains("was of other content"));

    project.world.fail("i", Some(StepError::failed("gave-out", "it gave out")));
    let run = project.begin(FOUR).await;
    assert!(matches!(project.run(&run).await, RunEnd::Failed { .. }));
    let found = said(&mut project).await;
    assert!(found.contains(&run) && found.ends_with("there did not come to its end"), "{found}");

    project.world.fail("i", None);
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    let found = said(&mut project).await;
    assert!(found.contains("missing: ") && found.ends_with("completed there and never went back"), "{found}");
    project.environment = Environment { rehearsed_back: false, ..production.clone() };
    let forward = standing(&project, FOUR, &RunOptions::default()).await.concat();
    assert!(forward.starts_with(&format!("rehearsed in held: {run} of ")), "{forward}");

    project.environment = staging.clone();
    assert_eq!(project.rollback(&run, UNDO).await, RunEnd::RolledBack);
    let found = said(&mut project).await;
    assert!(found.contains("held: ") && found.ends_with("completed there and went back"), "{found}");
    // In production itself, and of other content, it is nothing.
    project.environment = production.clone();
    assert!(refusal(&project, &FOUR.replace("# Four", "# Six")).await.contains("was of other content"));
}

#[tokio::test]
async fn source_that_does_not_answer_is_not_no_incident() {
    let (mut project, _) = at_work();
    let page = Page::of(&[]);
    project.incidents = Some(page.clone());
    page.says(Err("connection refused".to_owned()));
    let why = refusal(&project, FOUR).await;
    assert_eq!(why, "no open incident: it cannot be known whether one is open: the page: connection refused");
}

#[tokio::test]
async fn window_that_closes_keeps_out_who_waits_and_nobody_who_is_under_way() {
    let (mut project, clock) = at_work();
    project.environment.confirm = Some("YES".to_owned());
    let run = project.begin(FOUR).await;
    assert!(matches!(project.run(&run).await, RunEnd::Waiting { on: Waiting::Confirmation { .. } }));
    // While the text was looked for.
    clock.set("2026-11-26T16:00:00Z");
    let confirmed = RunOptions { confirmation: Some("YES".to_owned()), ..RunOptions::default() };
    let end = project.engine().run(&run, &confirmed, &Hand::default()).await.unwrap();
    let RunEnd::Waiting { on: Waiting::Demands { missing, .. } } = end else { panic!("{end:?}") };
    assert_eq!(missing.len(), 1);
    assert!(missing[0].to_string().contains("the next opens Mon 2026-11-30 09:00 UTC"), "{}", missing[0]);
    assert_eq!(project.world.effects(), Vec::<String>::new());

    clock.set("2026-11-30T15:59:00Z");
    project.world.fail("i", Some(StepError::failed("gave-out", "it gave out")));
    let end = project.engine().run(&run, &confirmed, &Hand::default()).await.unwrap();
    assert!(matches!(end, RunEnd::Failed { .. }), "{end:?}");
    clock.set("2026-11-30T16:01:00Z");
    project.world.fail("i", None);
    assert_eq!(project.run(&run).await, RunEnd::Completed, "it had begun to change something");
    assert_eq!(project.rollback(&run, UNDO).await, RunEnd::RolledBack, "nobody is kept from a way out");
}

#[tokio::test]
async fn failed_check_before_the_first_change_opens_no_way_around_a_window() {
    let (project, clock) = at_work();
    let text = "# T\n\n## P\n\n```toml step\ngate = \"g\"\ntarget = \"main\"\n```\n\n```toml step\nidempotent = \"i\"\ntarget = \"main\"\nundo = \"auto\"\n```\n";
    project.world.fail("g", Some(StepError::failed("gate", "not yet")));
    let run = project.begin(text).await;
    assert!(matches!(project.run(&run).await, RunEnd::Failed { .. }));
    project.world.fail("g", None);
    clock.set("2026-11-23T20:00:00Z");
    assert!(matches!(project.run(&run).await, RunEnd::Waiting { on: Waiting::Demands { .. } }));
    clock.set("2026-11-24T12:00:00Z");
    assert_eq!(project.run(&run).await, RunEnd::Completed);
}

#[tokio::test]
async fn demands_are_looked_at_again_after_a_person_was_asked() {
    let (mut project, clock) = at_work();
    let page = Page::of(&[]);
    project.incidents = Some(page.clone());
    let text = "# T\n\n## P\n\n- [ ] The window is announced\n\n```toml step\nidempotent = \"i\"\ntarget = \"main\"\nundo = \"auto\"\n```\n";
    let run = project.begin(text).await;
    // It takes the person until the evening, and something breaks meanwhile.
    let confirmed = ItemAnswer { outcome: ItemOutcome::Confirmed, note: None };
    let evening = {
        let (clock, page) = (clock.clone(), page.clone());
        move |event: &Event| {
            if matches!(event, Event::Item { .. }) {
                clock.set("2026-11-23T16:30:00Z");
                page.says(Ok(vec!["search is down".to_owned()]));
            }
        }
    };
    let hand = Hand { items: vec![("announced", confirmed)], on_event: Some(Box::new(evening)), ..Hand::default() };
    let end = project.engine().run(&run, &RunOptions::default(), &hand).await.unwrap();
    let RunEnd::Waiting { on: Waiting::Demands { missing, .. } } = end else { panic!("{end:?}") };
    let names: Vec<_> = missing.iter().map(|demand| demand.name).collect();
    assert_eq!(names, [DemandName::Window, DemandName::Incident]);
    assert_eq!(project.world.effects(), Vec::<String>::new());
    clock.set("2026-11-24T09:00:00Z");
    page.says(Ok(Vec::new()));
    assert_eq!(project.run(&run).await, RunEnd::Completed);
}

#[tokio::test]
async fn override_needs_a_role_that_the_environment_names_and_a_reason_that_says_something() {
    let (mut project, clock) = at_work();
    clock.set("2026-11-21T10:00:00Z");
    let plan = project.plan(FOUR).await.unwrap();
    let refused = async |project: &Project, reason: &str| {
        let options = overriding(Overridable::Window, reason);
        match project.engine().begin_with(plan.clone(), Purpose::Real, &options).await {
            Err(EngineError::Override { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&project, WHY).await, "it allows nobody to");
    project.environment.override_roles = BTreeSet::from(["release-manager".to_owned()]);
    assert_eq!(refused(&project, WHY).await, "anna holds none of the roles that may (release-manager)");
    release_manager(&mut project);
    for reason in ["", "  ", "urgent", "x x x x x x x", "urgent urgent urgent urgent"] {
        assert_eq!(refused(&project, reason).await, format!("\"{}\" is no reason", reason.trim()));
    }
    // What is overridden is one demand, not all.
    let other = overriding(Overridable::Incident, WHY);
    let result = project.engine().begin_with(plan.clone(), Purpose::Real, &other).await;
    assert!(matches!(result, Err(EngineError::Demands { .. })), "{result:?}");
    assert_eq!(project.world.effects(), Vec::<String>::new());
}

#[tokio::test]
async fn override_is_for_one_call_and_stays_to_be_reviewed() {
    let (mut project, clock) = at_work();
    release_manager(&mut project);
    project.environment.confirm = Some("YES".to_owned());
    clock.set("2026-11-21T10:00:00Z");
    let options = overriding(Overridable::Window, WHY);
    let plan = project.plan(FOUR).await.unwrap();
    let run = project.engine().begin_with(plan, Purpose::Real, &options).await.unwrap();
    let end = project.engine().run(&run, &options, &Hand::default()).await.unwrap();
    assert!(matches!(end, RunEnd::Waiting { on: Waiting::Confirmation { .. } }), "never overridden: {end:?}");
    assert!(matches!(project.run(&run).await, RunEnd::Waiting { on: Waiting::Demands { .. } }));
    let options = RunOptions { confirmation: Some("YES".to_owned()), ..options };
    assert_eq!(project.engine().run(&run, &options, &Hand::default()).await.unwrap(), RunEnd::Completed);

    let state = project.engine().status(&run).await.unwrap().state;
    let [one] = state.overrides.as_slice() else { panic!("{:?}", state.overrides) };
    assert_eq!((one.demand, one.by.as_str(), one.reason.as_str()), (DemandName::Window, "anna", WHY));
    assert!(one.found.contains("the next opens Mon 2026-11-23 09:00 UTC"), "{}", one.found);
    assert_eq!(state.demands.iter().map(|demand| demand.held.is_some()).collect::<Vec<_>>(), [false, true]);

    let folder = project.folder.path().join("evidence");
    project.engine().report(&run, &folder, None).await.unwrap();
    let verdict = verify(&folder, None).unwrap();
    assert_eq!(verdict.reviews, state.overrides);
    let report = std::fs::read_to_string(folder.join("report.md")).unwrap();
    let item = "- [ ] window overridden by anna at 2026-11-21 10:00:00 UTC: the payment fix cannot wait, Olga decided.";
    assert!(report.contains(item), "{report}");
}

#[tokio::test]
async fn override_that_was_not_needed_is_no_review_item() {
    let (mut project, _) = at_work();
    release_manager(&mut project);
    let options = overriding(Overridable::Window, WHY);
    let plan = project.plan(FOUR).await.unwrap();
    let run = project.engine().begin_with(plan, Purpose::Real, &options).await.unwrap();
    assert_eq!(project.engine().run(&run, &options, &Hand::default()).await.unwrap(), RunEnd::Completed);
    assert!(project.engine().status(&run).await.unwrap().state.overrides.is_empty());
}

#[tokio::test]
async fn process_that_dies_anywhere_leaves_no_change_without_its_override_and_one_override() {
    let prepared = || {
        let (mut project, clock) = at_work();
        release_manager(&mut project);
        clock.set("2026-11-21T10:00:00Z");
        project
    };
    let options = overriding(Overridable::Window, WHY);
    let begin = async |project: &Project| {
        let plan = project.plan(FOUR).await.unwrap();
        project.engine().begin_with(plan, Purpose::Real, &options).await.unwrap()
    };
    let looks = |project: &Project| {
        let world = project.world.clone();
        let decision = move |_: &Doubt| {
            let there = world.there().iter().any(|thing| thing == "o");
            let decision = if there { journal::Decision::Done } else { journal::Decision::Again };
            Some(DoubtAnswer { decision, note: "looked".to_owned() })
        };
        Hand { decision: Some(Box::new(decision)), ..Hand::default() }
    };
    let undisturbed = prepared();
    let run = begin(&undisturbed).await;
    let fuse = Fuse::default();
    undisturbed.engine_with(fuse.clone()).run(&run, &options, &Hand::default()).await.unwrap();
    let points = fuse.passed();
    assert!(points > 10, "{points} points: the run has shrunk");
    for point in 1..=points {
        let project = prepared();
        let run = begin(&project).await;
        let fuse = Fuse::at(point);
        let (engine, hand) = (project.engine_with(fuse.clone()), Hand::default());
        fuse.kill(engine.run(&run, &options, &hand)).await;
        let state = project.engine().status(&run).await.unwrap().state;
        let changed = !project.world.effects().is_empty();
        assert!(!changed || state.overrides.len() == 1, "killed at point {point}");
        // Once something is changed it goes on by itself; before, the override must be said again.
        let end = project.engine().run(&run, &RunOptions::default(), &looks(&project)).await.unwrap();
        if matches!(end, RunEnd::Waiting { .. }) {
            assert!(!changed, "killed at point {point}: {end:?}");
            let end = project.engine().run(&run, &options, &looks(&project)).await.unwrap();
            assert_eq!(end, RunEnd::Completed, "killed at point {point}");
        } else {
            assert_eq!(end, RunEnd::Completed, "killed at point {point}");
        }
        let lines = shown(&project.events(&run).await);
        let overridden = lines.iter().filter(|line| *line == "overridden by anna: window").count();
        assert_eq!(overridden, 1, "killed at point {point}: {lines:#?}");
    }
}

#[tokio::test]
async fn journal_in_which_a_run_begins_without_a_demand_is_broken() {
    let (mut project, _) = at_work();
    release_manager(&mut project);
    let run = project.begin(FOUR).await;
    project.run(&run).await;
    let events = project.events(&run).await;
    // The same events, sealed anew after somebody made one demand a missing one.
    let forged = events.iter().fold(Vec::new(), |mut forged: Vec<journal::Sealed>, sealed| {
        let mut event = sealed.event.clone();
        if let Event::Demands { demands } = &mut event {
            demands[0].held = None;
        }
        forged.push(journal::Sealed::seal(event, sealed.at, forged.last()));
        forged
    });
    let broken = RunState::fold(&forged).unwrap_err();
    assert!(broken.why.contains("let begin without a window (`Mon-Thu 09:00-16:00 UTC`)"), "{broken}");
}
