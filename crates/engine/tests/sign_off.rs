//! Sign-offs: signatures over what happened, and over nothing else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use pgrunbook_engine::evidence::verify::verify;
use pgrunbook_engine::journal::{Outcome, Sealed};
use pgrunbook_engine::{Engine, EngineError, Event, RunEnd, SignOff, StepError, UNDO, Waiting, sign_off, signers};

use crate::evidence::{key, remake};
use crate::running::FOUR;
use crate::world::Project;

/// A run that waits at its last step, the gate `g`; olga is database administrator, sam is not.
struct Waits {
    project: Project,
    run: String,
    olga: String,
    sam: String,
    _keys: tempfile::TempDir,
}

async fn waits() -> Waits {
    let keys = tempfile::tempdir().unwrap();
    let (olga, olga_public) = key(keys.path(), "olga");
    let (sam, sam_public) = key(keys.path(), "sam");
    let mut project = Project::new();
    project.people.allowed_signers = Some(format!("olga {olga_public}sam {sam_public}"));
    let role = |role: &str| BTreeSet::from([role.to_owned()]);
    project.people.roles.extend([("olga".to_owned(), role("dba")), ("sam".to_owned(), role("security"))]);
    project.world.fail("g", Some(StepError::waiting("sign-off-missing", "nobody has signed")));
    let run = project.begin(FOUR).await;
    let RunEnd::Waiting { on: Waiting::Step { step, .. } } = project.run(&run).await else { panic!() };
    assert_eq!(step.as_str(), "g");
    Waits { project, run, olga, sam, _keys: keys }
}

impl Waits {
    async fn text(&self, run: &str, role: &str) -> String {
        let state = self.project.engine().status(run).await.unwrap().state;
        let step = "g".parse().unwrap();
        sign_off::text(run, &state.plan.plan_digest, &step, role, state.began(&step).unwrap())
    }

    fn engine(&self, principal: &str) -> Engine {
        let mut engine = self.project.engine();
        engine.operator.principal = principal.to_owned();
        engine
    }

    async fn sign(&self, principal: &str, step: &str, role: &str, signature: &str) -> Result<SignOff, String> {
        let signed = self.engine(principal).sign_off(&self.run, &step.parse().unwrap(), role, signature).await;
        signed.map_err(|error| match error {
            EngineError::SignOff { why, .. } => why,
            other => panic!("{other}"),
        })
    }

    async fn report(&self) -> PathBuf {
        let folder = self.project.folder.path().join("evidence");
        self.project.engine().report(&self.run, &folder, None).await.unwrap();
        folder
    }
}

fn signature(key: &str, text: &str) -> String {
    signers::sign(sign_off::NAMESPACE, text.as_bytes(), key).unwrap()
}

#[tokio::test]
async fn sign_off_counts_for_its_person_role_and_result_alone() {
    let waits = waits().await;
    let text = waits.text(&waits.run, "dba").await;
    let signed = signature(&waits.olga, &text);
    let before = waits.project.events(&waits.run).await.len();

    let why = waits.sign("sam", "g", "dba", &signature(&waits.sam, &text)).await.unwrap_err();
    assert_eq!(why, "they do not hold the role `dba`");
    let why = waits.sign("olga", "g", "dba", &signature(&waits.sam, &text)).await.unwrap_err();
    assert!(why.contains("olga is not allowed to sign with this key"), "{why}");
    let why = waits.sign("olga", "o", "dba", &signed).await.unwrap_err();
    assert_eq!(why, "the signature is not one over this text", "step `o` is another matter");
    let other = waits.project.begin(FOUR).await;
    assert!(matches!(waits.project.run(&other).await, RunEnd::Waiting { .. }));
    let other = waits.text(&other, "dba").await;
    let why = waits.sign("olga", "g", "dba", &signature(&waits.olga, &other)).await.unwrap_err();
    assert_eq!(why, "the signature is not one over this text", "the same content, and another run");
    let approval = signers::sign("pgrunbook-approval", text.as_bytes(), &waits.olga).unwrap();
    let why = waits.sign("olga", "g", "dba", &approval).await.unwrap_err();
    assert_eq!(why, "the signature was made for `pgrunbook-approval`, not for this");
    assert_eq!(waits.project.events(&waits.run).await.len(), before, "what does not count is not recorded");

    let sign_off = waits.sign("olga", "g", "dba", &signed).await.unwrap();
    assert_eq!((sign_off.principal.as_str(), sign_off.role.as_str()), ("olga", "dba"));
    let why = waits.sign("olga", "g", "dba", &signed).await.unwrap_err();
    assert_eq!(why, "olga signed off step `g` as dba before");

    // An attempt that waits once more waits for the same signatures: the head is that of the first.
    assert!(matches!(waits.project.run(&waits.run).await, RunEnd::Waiting { .. }));
    assert_eq!(waits.text(&waits.run, "dba").await, text);
    let security = signature(&waits.sam, &waits.text(&waits.run, "security").await);
    waits.sign("sam", "g", "security", &security).await.unwrap();
}

#[tokio::test]
async fn nothing_is_signed_off_before_it_is_done_or_after_it_is_taken_back() {
    let waits = waits().await;
    let text = waits.text(&waits.run, "dba").await;
    let early = waits.project.begin(FOUR).await;
    let step = "g".parse().unwrap();
    let error = waits.engine("olga").sign_off(&early, &step, "dba", &signature(&waits.olga, &text)).await.unwrap_err();
    assert_eq!(error.to_string(), "the sign-off by olga does not count: step `g` has not begun");
    assert_eq!(waits.project.rollback(&waits.run, UNDO).await, RunEnd::RolledBack);
    let why = waits.sign("olga", "g", "dba", &signature(&waits.olga, &text)).await.unwrap_err();
    assert_eq!(why, "the run has ended");
}

#[tokio::test]
async fn bundle_says_who_signed_and_a_signature_moved_to_another_result_is_found() {
    let waits = waits().await;
    let text = waits.text(&waits.run, "dba").await;
    waits.sign("olga", "g", "dba", &signature(&waits.olga, &text)).await.unwrap();
    waits.project.world.fail("g", None);
    assert_eq!(waits.project.run(&waits.run).await, RunEnd::Completed);

    let folder = waits.report().await;
    assert_eq!(verify(&folder, None).unwrap().sign_offs, ["dba: olga"]);
    assert!(folder.join("sign-offs/g-dba.sshsig").is_file());
    let report = std::fs::read_to_string(folder.join("report.md")).unwrap();
    let row = report.lines().find(|line| line.contains("| olga |")).unwrap();
    assert!(row.contains("| dba |") && row.contains("`g`") && row.contains("SHA256:"), "{row}");

    // Somebody says that another thing happened before, and keeps the signature.
    let other_outcome = |events: &mut Vec<Event>| {
        let outcome = events.iter_mut().find_map(|event| match event {
            Event::Outcome { outcome: Outcome::Done { evidence, .. }, .. } => Some(evidence),
            _ => None,
        });
        outcome.unwrap().summary = "all was well".to_owned();
    };
    remake(&folder, other_outcome);
    let wrong = verify(&folder, None).unwrap_err();
    assert!(wrong.why.contains("olga signed off another result"), "{wrong}");

    // And lets the sign-off name the new head.
    let folder = waits.report().await;
    remake(&folder, other_outcome);
    let journal = std::fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    let intended = journal.lines().find(|line| line.contains("\"intent\"") && line.contains("\"step\":\"g\"")).unwrap();
    let head = serde_json::from_str::<Sealed>(intended).unwrap().hash;
    remake(&folder, |events| {
        let sign_off = events.iter_mut().find_map(|event| match event {
            Event::SignedOff { sign_off } => Some(sign_off),
            _ => None,
        });
        sign_off.unwrap().head = head;
    });
    let wrong = verify(&folder, None).unwrap_err();
    assert!(wrong.why.contains("the sign-off by olga: the signature is not one over this text"), "{wrong}");

    // A step that counted somebody who never signed.
    let folder = waits.report().await;
    remake(&folder, |events| {
        let mut invented = events.iter().find_map(|event| match event {
            Event::SignedOff { sign_off } => Some(sign_off.clone()),
            _ => None,
        });
        let invented = invented.as_mut().unwrap();
        invented.principal = "sam".to_owned();
        for event in events {
            if let Event::Outcome { step, outcome: Outcome::Done { evidence, .. }, .. } = event
                && step.as_str() == "g"
            {
                *evidence = evidence.clone().signed(&[invented]);
            }
        }
    });
    let wrong = verify(&folder, None).unwrap_err();
    assert!(wrong.why.contains("step `g` counted a sign-off by sam as dba, and there is none"), "{wrong}");
}
