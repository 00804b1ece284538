//! Commands that a person is told where something stands in the way of a transfer: with schema, target and flags, as they are pasted.

use pgrunbook_engine::{Cancel, RunEnd};
use pgrunbook_steps::fence::{Fence, fence, install};

use crate::transfer::{MOVE, Move};

const HEAD: &str = "```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n";

/// The code and the help of a run that failed.
#[track_caller]
fn helped(end: &RunEnd) -> (&str, &str) {
    let RunEnd::Failed { code, help: Some(help), .. } = end else { panic!("{end:?}") };
    (code, help)
}

fn step(block: &str) -> String {
    format!("# Step\n\n{HEAD}## Go\n\n```toml step\n{block}\n```\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_is_told_to_type_can_be_pasted() {
    let this = Move::new().await;
    let (_, end) = this.bench.run(MOVE).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");

    // Another transfer into the same schema.
    let (_, end) = this.bench.run(&MOVE.replace("undo =", "exclude = [\"note\"]\nundo =")).await;
    let (code, help) = helped(&end);
    assert_eq!(code, "another-transfer", "{end:?}");
    assert!(help.contains("`pgrunbook transfer abandon health --target main --yes`"), "{help}");

    // A change that the stream meets, and one that is there.
    this.at_legacy("ALTER TABLE visit ADD COLUMN place text").await;
    let (_, end) = this
        .bench
        .run(&step("cutover = \"go\"\ntarget = \"main\"\nschemas = [\"health\"]\nbudget = \"20s\"\nundo = \"auto\""))
        .await;
    let (code, help) = helped(&end);
    assert_eq!(code, "altered", "{end:?}");
    assert!(help.contains("`pgrunbook transfer accept health --target main`"), "{help}");
    this.at_legacy("INSERT INTO visit (what) VALUES ('streamed')").await;
    let (_, end) = this.bench.run(&step("follow = \"on\"\ntarget = \"main\"\nschema = \"health\"")).await;
    let (code, help) = helped(&end);
    assert_eq!(code, "stream-ddl", "{end:?}");
    assert!(help.contains("`pgrunbook transfer accept health --target main --yes` makes the same change"), "{help}");

    // A fence that stands on the legacy side, which `fence drop` would not look at by itself.
    let legacy = this.session().await;
    install(&legacy).await.unwrap();
    let stands = Fence {
        id: "by-hand".to_owned(),
        schema: "public".to_owned(),
        message: "moved".to_owned(),
        ..Fence::default()
    };
    fence(&legacy, &stands, &Cancel::default()).await.unwrap();
    let (_, end) = this
        .bench
        .run(&step("fence = \"stop\"\ntarget = \"old\"\nschema = \"public\"\nmessage = \"moved\"\nundo = \"auto\""))
        .await;
    let (code, help) = helped(&end);
    assert_eq!(code, "fence-held", "{end:?}");
    assert!(help.contains("`pgrunbook fence drop by-hand --target old --yes`"), "{help}");
}
