//! Review items: closed by somebody else, once, with a reason, and by a signature where there are signers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use pgrunbook_engine::evidence::verify::{Verdict, verify};
use pgrunbook_engine::*;

use crate::demands::{WHY, at_work, overriding, release_manager};
use crate::evidence::{key, remake};
use crate::running::FOUR;
use crate::world::{Hand, Project};

const FOUND: &str = "the fix was right, and payments went on";

/// A run that anna let begin outside of its window, and its review item.
struct Overridden {
    project: Project,
    run: String,
    item: u64,
}

async fn overridden() -> Overridden {
    let (mut project, clock) = at_work();
    release_manager(&mut project);
    clock.set("2026-11-21T10:00:00Z");
    let options = overriding(Overridable::Window, WHY);
    let plan = project.plan(FOUR).await.unwrap();
    let run = project.engine().begin_with(plan, Purpose::Real, &options).await.unwrap();
    assert_eq!(project.engine().run(&run, &options, &Hand::default()).await.unwrap(), RunEnd::Completed);
    let item = project.engine().status(&run).await.unwrap().state.overrides[0].seq;
    Overridden { project, run, item }
}

impl Overridden {
    /// Closes the item as a person; why not.
    async fn close(&self, by: &str, reason: &str, signature: Option<&str>) -> Result<Closing, String> {
        let mut engine = self.project.engine();
        engine.operator.principal = by.to_owned();
        let closed = engine.close_review(&self.run, self.item, reason, signature).await;
        closed.map_err(|error| match error {
            EngineError::Closing { why, .. } => why,
            other => panic!("{other}"),
        })
    }

    async fn state(&self) -> RunState {
        self.project.engine().status(&self.run).await.unwrap().state
    }

    async fn report(&self) -> PathBuf {
        let folder = self.project.folder.path().join("evidence");
        self.project.engine().report(&self.run, &folder, None).await.unwrap();
        folder
    }
}

fn closed_by(verdict: &Verdict) -> Vec<Option<String>> {
    verdict.reviews.iter().map(|one| Some(one.closed.as_ref()?.closing.by.clone())).collect()
}

#[tokio::test]
async fn somebody_else_closes_it_once_with_a_reason_and_also_after_the_end() {
    let run = overridden().await;
    let before = run.project.events(&run.run).await.len();
    assert_eq!(run.close("anna", FOUND, None).await.unwrap_err(), "anna overrode it, and somebody else reviews it");
    assert_eq!(run.close("bert", "ok", None).await.unwrap_err(), "\"ok\" does not say what was found");
    let other = Overridden { item: run.item + 1, ..overridden().await };
    assert!(other.close("bert", FOUND, None).await.unwrap_err().contains("overrode nothing"));
    assert_eq!(run.project.events(&run.run).await.len(), before, "what does not count is not recorded");

    run.close("bert", "  the fix was right,\n and payments went on ", None).await.unwrap();
    let state = run.state().await;
    assert_eq!(state.open_reviews().count(), 0);
    let closed = state.overrides[0].closed.clone().unwrap();
    assert_eq!((closed.closing.by.as_str(), closed.closing.reason.as_str()), ("bert", FOUND));
    let why = run.close("olga", FOUND, None).await.unwrap_err();
    assert_eq!(why, format!("item {} was closed before, by bert", run.item));

    let folder = run.report().await;
    assert_eq!(closed_by(&verify(&folder, None).unwrap()), [Some("bert".to_owned())]);
    let report = std::fs::read_to_string(folder.join("report.md")).unwrap();
    let item = report.lines().find(|line| line.starts_with("- [x] window overridden by anna")).unwrap();
    assert!(item.ends_with(&format!("Closed by bert at 2026-11-21 10:00:00 UTC: {FOUND} (not signed)")), "{item}");
    assert!(report.contains("## Reviewed\n") && !report.contains("## To be reviewed"), "{report}");
    // A run that went to its end can still be taken back.
    assert_eq!(run.project.rollback(&run.run, UNDO).await, RunEnd::RolledBack);
}

#[tokio::test]
async fn where_there_are_signers_it_is_their_signature_over_this_item_and_reason() {
    let mut run = overridden().await;
    let keys = tempfile::tempdir().unwrap();
    let (bert, public) = key(keys.path(), "bert");
    let (eve, _) = key(keys.path(), "eve");
    let allowed = format!("bert {public}");
    run.project.people.allowed_signers = Some(allowed.clone());
    let state = run.state().await;
    let text = |reason: &str| closing::text(&run.run, &state.plan.plan_digest, &state.overrides[0], reason);
    let sign = |key: &str, text: &str| signers::sign(closing::NAMESPACE, text.as_bytes(), key).unwrap();

    let why = run.close("bert", FOUND, None).await.unwrap_err();
    assert!(why.ends_with("it is not signed"), "{why}");
    let why = run.close("bert", FOUND, Some(&sign(&eve, &text(FOUND)))).await.unwrap_err();
    assert!(why.contains("bert is not allowed to sign with this key"), "{why}");
    let other = sign(&bert, &text("all of it was a mistake"));
    assert_eq!(run.close("bert", FOUND, Some(&other)).await.unwrap_err(), "the signature is not one over this text");
    let approval = signers::sign("pgrunbook-approval", text(FOUND).as_bytes(), &bert).unwrap();
    assert!(run.close("bert", FOUND, Some(&approval)).await.unwrap_err().contains("made for `pgrunbook-approval`"));
    run.close("bert", FOUND, Some(&sign(&bert, &text(FOUND)))).await.unwrap();

    let folder = run.report().await;
    assert!(folder.join(format!("reviews/{}-bert.sshsig", run.item)).is_file());
    assert_eq!(closed_by(&verify(&folder, None).unwrap()), [Some("bert".to_owned())]);
    // Somebody lets bert have found something else, and writes the whole bundle anew.
    remake(&folder, |events| {
        let closing = events.iter_mut().find_map(|event| match event {
            Event::ReviewClosed { closing } => Some(closing),
            _ => None,
        });
        closing.unwrap().reason = "nothing was wrong with it".to_owned();
    });
    let wrong = verify(&folder, None).unwrap_err();
    assert!(wrong.why.contains("the review by bert: the signature is not one over this text"), "{wrong}");
}

#[tokio::test]
async fn journal_in_which_somebody_closes_their_own_item_is_broken() {
    let run = overridden().await;
    run.close("bert", FOUND, None).await.unwrap();
    let folder = run.report().await;
    remake(&folder, |events| {
        for event in events {
            if let Event::ReviewClosed { closing } = event {
                closing.by = "anna".to_owned();
            }
        }
    });
    let wrong = verify(&folder, None).unwrap_err();
    assert!(wrong.why.contains("anna overrode it, and somebody else reviews it"), "{wrong}");
}
