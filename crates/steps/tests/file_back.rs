//! The way back into a SQLite file that stood still: what was done about it is believed when all rows were compared.

use pgrunbook_engine::RunEnd;
use pgrunbook_steps::transfer::{Rollback, go_on, status};

use crate::bench::failure;
use crate::transfer_sqlite::{FOLLOW, File, cross, load};

const FILE: &str = "PRAGMA journal_mode = wal; CREATE TABLE visit (id INTEGER PRIMARY KEY, what TEXT);
    WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 40) INSERT INTO visit SELECT i, 'visit ' || i FROM i;";

const COMPARE: &str = "## Compare\n\n```toml step\nparity = \"all\"\nfrom = \"old\"\ntarget = \"main\"\nmode = \"live\"\nschema = \"health\"\n```\n\n";

impl File {
    /// The code and the message with which these steps fail.
    async fn fails(&self, steps: &str) -> (String, String) {
        let text = format!("# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n{steps}");
        let (_, end) = self.bench.run(&text).await;
        assert!(!matches!(end, RunEnd::Completed), "it was done");
        let (_, code, message) = failure(&end);
        (code, message)
    }

    async fn rollback(&self) -> Rollback {
        status(&self.bench.workplace().await, "main", None).await.unwrap().remove(0).rollback
    }

    async fn is_lossy(&self, word: &str) {
        match self.rollback().await {
            Rollback::Lossy(why) => assert!(why.contains(word), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    async fn accepted(&self) {
        go_on(&self.bench.workplace().await, "main", "health", None).await.unwrap();
    }

    /// Writes to the file past its fence.
    fn past_the_fence(&self, sql: &str) {
        let sql = format!(
            "BEGIN IMMEDIATE; UPDATE _pgrunbook_fence SET on_ = 0; {sql}; UPDATE _pgrunbook_fence SET on_ = 1; COMMIT"
        );
        self.open().execute_batch(&sql).unwrap();
    }

    async fn switched() -> Self {
        let this = Self::new(FILE).await;
        this.done(&load("")).await;
        this.done(&cross("go", "")).await;
        assert_eq!(this.rollback().await, Rollback::Lossless);
        this
    }

    /// A row that somebody deletes from the file and the application changes: the stream stands still at it.
    async fn conflict(&self) {
        self.past_the_fence("DELETE FROM visit WHERE id = 20");
        self.bench.execute("UPDATE health.visit SET what = what || '!' WHERE id = 20").await;
        let (code, message) = self.fails(FOLLOW).await;
        assert_eq!(code, "stream-conflict", "{message}");
    }

    async fn visits_are_equal(&self) {
        let here = self.in_file("SELECT group_concat(id || what, ';') FROM (SELECT * FROM visit ORDER BY id)");
        assert_eq!(here, self.bench.value("SELECT string_agg(id || what, ';' ORDER BY id) FROM health.visit").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_into_a_file_that_stopped_and_was_accepted_is_lossless_once_all_rows_are_compared() {
    let this = File::switched().await;
    let back = cross("back", "to = \"source\"\n");
    this.conflict().await;
    this.is_lossy("stands still").await;
    assert_eq!(this.fails(&back).await.0, "stream-conflict", "nobody goes back while it stands still");
    assert_eq!(this.fails(COMPARE).await.0, "stream-conflict");
    this.accepted().await;
    assert_eq!(this.fails(FOLLOW).await.0, "stream-conflict", "nothing was put right");

    this.past_the_fence("INSERT INTO visit VALUES (20, 'visit 20'); UPDATE visit SET what = 'forged' WHERE id = 21");
    this.accepted().await;
    this.done(FOLLOW).await;
    this.is_lossy("not all rows were compared").await;
    for steps in [COMPARE, &back] {
        let (code, message) = this.fails(steps).await;
        assert_eq!(code, "parity", "{message}");
        assert!(message.contains("visit: 1 rows of the file alone, 1 of the target alone"), "{message}");
        this.is_lossy("not all rows were compared").await;
    }
    this.past_the_fence("UPDATE visit SET what = 'visit 21' WHERE id = 21");
    let run = this.done(COMPARE).await;
    assert_eq!(this.bench.evidence(&run, "all").await.facts["compared"]["rows"], 40);
    assert_eq!(this.rollback().await, Rollback::Lossless);

    // Going back compares them, too; and what was feared is not remembered when the target is switched to once more.
    this.conflict().await;
    this.past_the_fence("INSERT INTO visit VALUES (20, 'visit 20!')");
    this.accepted().await;
    this.done(&back).await;
    this.visits_are_equal().await;
    assert_eq!(this.in_file("SELECT what FROM visit WHERE id = 20"), "visit 20!!");
    assert_eq!(this.rollback().await, Rollback::NotNeeded);
    let (code, message) = this.fails(COMPARE).await;
    assert_eq!(code, "phase", "{message}");
    this.done(&cross("again", "")).await;
    assert_eq!(this.rollback().await, Rollback::Lossless);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_the_file_has_no_place_for_keeps_the_way_back_lossy_until_it_is_gone() {
    let this = File::switched().await;
    let back = cross("back", "to = \"source\"\n");
    this.bench
        .execute("ALTER TABLE health.visit ADD COLUMN more text; UPDATE health.visit SET more = 'x' WHERE id = 1")
        .await;
    assert_eq!(this.fails(FOLLOW).await.0, "stream-ddl");
    this.accepted().await;
    this.done(FOLLOW).await;
    this.is_lossy("accepted of visit: the file has no place for them").await;
    for steps in [COMPARE, &back] {
        let (code, message) = this.fails(steps).await;
        assert_eq!(code, "lossy", "{message}");
        assert!(message.contains("table visit of health has other columns than when it was cut over"), "{message}");
    }
    // Another stop does not make it forgotten.
    this.conflict().await;
    this.past_the_fence("INSERT INTO visit VALUES (20, 'visit 20')");
    this.accepted().await;
    this.done(FOLLOW).await;
    this.is_lossy("the file has no place for them").await;

    this.bench
        .execute("ALTER TABLE health.visit DROP COLUMN more; UPDATE health.visit SET what = 'one' WHERE id = 1")
        .await;
    assert_eq!(this.fails(FOLLOW).await.0, "stream-ddl");
    this.accepted().await;
    this.done(FOLLOW).await;
    this.is_lossy("not all rows were compared").await;
    this.done(COMPARE).await;
    assert_eq!(this.rollback().await, Rollback::Lossless);
    this.done(&back).await;
    this.visits_are_equal().await;
}
