//! What a person accepts of a changed table: what is offered for it, and that both sides are equal after it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use pgrunbook_engine::RunEnd;
use pgrunbook_steps::transfer::go_on;

use crate::transfer::{MOVE, Move};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_there_names_what_can_be_typed() {
    let this = Move::new().await;
    let (_, end) = this.bench.run(MOVE).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.at_legacy("ALTER TABLE note ALTER COLUMN text TYPE varchar(99)").await;
    let workplace = this.bench.workplace().await;
    let wrong = ["ALTER TABLE health.nothing ADD COLUMN a int".to_owned()];
    let error = go_on(&workplace, "main", "health", Some(&wrong)).await.unwrap_err();
    assert_eq!(error.code, "accept");
    assert_eq!(
        error.help.unwrap(),
        "make the change there yourself, then `pgrunbook transfer accept health --target main --yes`; or give the statements: \
         `pgrunbook transfer accept health --target main --yes` with `--instead SQL`, once for each"
    );
}
