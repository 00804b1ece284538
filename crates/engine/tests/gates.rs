//! What must hold before the first effect: targets, variables, confirmation text, rehearsal, approvals.

use std::collections::BTreeMap;

use pgrunbook_document::VarValue;
use pgrunbook_engine::{EngineError, Purpose, RunEnd, RunOptions, UNDO, Waiting, approval, signers};

use crate::running::FOUR;
use crate::world::{Hand, Project, runbook};

fn confirming(text: &str) -> RunOptions {
    RunOptions { confirmation: Some(text.to_owned()), ..RunOptions::default() }
}

#[tokio::test]
async fn run_begins_only_with_the_exact_confirmation_text() {
    let mut project = Project::new();
    project.environment.confirm = Some("YES, change production".to_owned());
    let run = project.begin(FOUR).await;
    let waits = RunEnd::Waiting { on: Waiting::Confirmation { wanted: "YES, change production".to_owned() } };
    assert_eq!(project.run(&run).await, waits);

    for nearly in ["yes, change production", "YES, change production ", "YES", ""] {
        let refused = project.engine().run(&run, &confirming(nearly), &Hand::default()).await.unwrap_err();
        assert!(matches!(refused, EngineError::NotConfirmed { .. }), "{nearly}: {refused}");
        assert_eq!(project.world.effects(), Vec::<String>::new(), "{nearly}");
    }
    let hand = Hand { confirmation: Some("YES, change production"), ..Hand::default() };
    assert_eq!(project.engine().run(&run, &RunOptions::default(), &hand).await.unwrap(), RunEnd::Completed);
}

#[tokio::test]
async fn only_a_rehearsal_of_this_content_that_came_back_opens_the_way() {
    let mut project = Project::new();
    project.environment.rehearsal_required = true;
    let refused = |result: Result<String, EngineError>| matches!(result, Err(EngineError::Demands { .. }));
    let plan = project.plan(FOUR).await.unwrap();
    assert!(refused(project.engine().begin(plan.clone(), Purpose::Real).await));

    // A real run that came back is none, and a rehearsal counts only once it is back.
    project.environment.rehearsal_required = false;
    let real = project.begin(FOUR).await;
    project.run(&real).await;
    project.rollback(&real, UNDO).await;
    project.environment.rehearsal_required = true;
    assert!(refused(project.engine().begin(plan.clone(), Purpose::Real).await));
    let rehearsal = project.engine().begin(plan.clone(), Purpose::Rehearsal).await.unwrap();
    assert_eq!(project.run(&rehearsal).await, RunEnd::Completed);
    assert!(refused(project.engine().begin(plan.clone(), Purpose::Real).await));
    assert_eq!(project.rollback(&rehearsal, UNDO).await, RunEnd::RolledBack);
    assert!(project.engine().begin(plan, Purpose::Real).await.is_ok());

    let edited = project.plan(&FOUR.replace("# Four", "# Five")).await.unwrap();
    assert!(refused(project.engine().begin(edited, Purpose::Real).await));
}

#[tokio::test]
async fn what_moves_the_digest_is_named() {
    let project = Project::new();
    let text = format!("{}\n```toml runbook\nvars.size = \"1\"\n```\n", "# Four");
    let text = format!("{text}{}", FOUR.trim_start_matches("# Four"));
    let with = |size: &str| BTreeMap::from([("size".to_owned(), VarValue::Text(size.to_owned()))]);
    let plan = project.engine().plan(&runbook(&text), &with("1")).await.unwrap();
    let moved =
        |other: &pgrunbook_engine::Plan| plan.compare(other).iter().map(ToString::to_string).collect::<Vec<_>>();

    let other = project.engine().plan(&runbook(&text), &with("2")).await.unwrap();
    assert_ne!(other.plan_digest, plan.plan_digest);
    assert_eq!(moved(&other), ["variable `size` has another value"]);

    let edited = text.replace("## Second", "## Next");
    let other = project.engine().plan(&runbook(&edited), &with("1")).await.unwrap();
    assert_ne!(other.plan_digest, plan.plan_digest);
    assert!(moved(&other)[0].starts_with("RUNBOOK.md was edited @@"), "{:?}", moved(&other));

    let elsewhere = Project::new();
    elsewhere.world.become_another("7002/5");
    let other = elsewhere.engine().plan(&runbook(&text), &with("1")).await.unwrap();
    assert_ne!(other.plan_digest, plan.plan_digest);
    assert!(moved(&other)[0].starts_with("target `main` was "), "{:?}", moved(&other));
}

#[tokio::test]
async fn approval_that_does_not_count_keeps_nobody_from_going_back() {
    let project = Project::new();
    let run = project.begin(FOUR).await;
    assert_eq!(project.run(&run).await, RunEnd::Completed);
    let state = project.engine().status(&run).await.unwrap().state;
    let worthless = pgrunbook_engine::step::Approval {
        principal: "bert".to_owned(),
        roles: Vec::new(),
        plan_digest: state.plan.plan_digest.clone(),
        signature: String::new(),
        key: String::new(),
    };
    let options = RunOptions { approvals: vec![worthless], ..RunOptions::default() };
    let end = project.engine().rollback(&run, UNDO, None, &options, &Hand::default()).await.unwrap();
    assert_eq!(end, RunEnd::RolledBack);
    assert!(project.engine().status(&run).await.unwrap().state.approvals.is_empty(), "and it is not recorded");
}

#[tokio::test]
async fn each_role_is_asked_for_and_one_person_counts_once() {
    let mut project = Project::new();
    let keys = tempfile::tempdir().unwrap();
    let (bert, bert_public) = crate::evidence::key(keys.path(), "bert");
    let (olga, olga_public) = crate::evidence::key(keys.path(), "olga");
    project.people.allowed_signers = Some(format!("bert {bert_public}olga {olga_public}"));
    let roles = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    project.people.roles = BTreeMap::from([("bert".to_owned(), roles(&["dev"])), ("olga".to_owned(), roles(&["dba"]))]);
    project.environment.approvals = 2;
    project.environment.approver_roles = roles(&["dba"]);
    let run = project.begin(FOUR).await;
    let plan = project.engine().status(&run).await.unwrap().state.plan;
    let approve = |who: &str, key: &str| {
        let signature = signers::sign(approval::NAMESPACE, approval::text(&plan.plan_digest).as_bytes(), key).unwrap();
        approval::approve(&plan, who, &signature, &project.people, jiff::Timestamp::now()).unwrap()
    };
    let run_with = async |approvals| {
        let options = RunOptions { approvals, ..RunOptions::default() };
        project.engine().run(&run, &options, &Hand::default()).await.unwrap()
    };
    // An ed25519 signature of the same text is the same bytes; recorded twice it would still be one person.
    let end = run_with(vec![approve("bert", &bert), approve("bert", &bert)]).await;
    let RunEnd::Waiting { on: Waiting::Approvals { missing: 1, roles, .. } } = end else { panic!("{end:?}") };
    assert_eq!(roles, ["dba"]);
    assert_eq!(run_with(vec![approve("olga", &olga)]).await, RunEnd::Completed);
}
