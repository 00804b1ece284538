//! What changed on one side since a transfer began: found before the fence and behind it, named, and not taken for what
//! differed from the start.

use std::time::{Duration, Instant};

use pgrunbook_engine::RunEnd;
use pgrunbook_postgres::Session;
use pgrunbook_steps::transfer::{Rollback, go_on, offer, status};

use crate::bench::failure;
use crate::transfer::{GO, MOVE, Move};

const HEAD: &str = "```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n";

fn go() -> String {
    format!("# Go\n\n{HEAD}{GO}")
}

fn back() -> String {
    let back = GO.replace("\"go\"", "\"back\"").replace("budget", "to = \"source\"\nbudget");
    format!("# Back\n\n{HEAD}{back}")
}

fn step(block: &str) -> String {
    format!("# Step\n\n{HEAD}## Go\n\n```toml step\n{block}\n```\n")
}

fn follow() -> String {
    step("follow = \"on\"\ntarget = \"main\"\nschema = \"health\"")
}

/// Waits until somebody waits for a lock on that table of the target.
async fn is_awaited(session: &Session, table: &str) {
    let begun = Instant::now();
    let sql = format!("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass");
    while session.value(&sql).await.unwrap() == "0" {
        assert!(begun.elapsed() < Duration::from_secs(120), "nobody came to {table}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Move {
    /// Cuts over, and has the source altered after it was looked at and before it is fenced.
    async fn altered_meanwhile(&self, sql: &str) -> (String, String) {
        let holder = self.bench.session().await;
        holder.execute("BEGIN; LOCK TABLE health.visit IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let text = go();
        let alter = async {
            is_awaited(&self.bench.session().await, "health.visit").await;
            self.at_legacy(sql).await;
            holder.execute("COMMIT").await.unwrap();
        };
        let ((_, end), ()) = tokio::join!(self.bench.run(&text), alter);
        let (_, code, message) = failure(&end);
        (code, message)
    }

    /// Writes to the source past its fence and as the stream itself would, so that nothing flows on.
    async fn past_the_streams(&self, sql: &str) {
        self.at_legacy(&format!(
            "BEGIN; SELECT pg_logical_emit_message(true, 'pgrunbook', 'applied:' || name) FROM pgrunbook.stream WHERE name LIKE '%:reverse';
             SET LOCAL session_replication_role = replica; {sql}; COMMIT"
        ))
        .await;
    }

    async fn loaded(&self) {
        let (_, end) = self.bench.run(MOVE).await;
        assert!(matches!(end, RunEnd::Completed), "{end:?}");
    }

    async fn goes(&self, text: &str) {
        let (_, end) = self.bench.run(text).await;
        assert!(matches!(end, RunEnd::Completed), "{end:?}");
    }

    async fn rollback(&self) -> Rollback {
        status(&self.bench.workplace().await, "main", None).await.unwrap().remove(0).rollback
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_altered_while_both_sides_are_compared_is_found_behind_the_fence() {
    let this = Move::new().await;
    this.loaded().await;
    for (sql, named, taken_back) in [
        ("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)", "table public.late", "DROP TABLE late"),
        (
            "ALTER TABLE visit ADD COLUMN place text DEFAULT 'home'",
            "column visit.place",
            "ALTER TABLE visit DROP COLUMN place",
        ),
    ] {
        let (code, message) = this.altered_meanwhile(sql).await;
        assert_eq!(code, "altered", "{message}");
        assert!(message.contains(named), "{message}");
        // Writers go on where they were, and nobody writes to the target.
        this.at_legacy(taken_back).await;
        this.at_legacy("UPDATE visit SET what = 'still here' WHERE id = 9").await;
        let refused = this.bench.session().await.execute("DELETE FROM health.note").await.unwrap_err();
        assert_eq!(refused.sqlstate(), Some("25006"), "{refused}");
    }
    this.goes(&go()).await;
    this.is_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_at_the_source_is_named_until_the_target_has_it() {
    let this = Move::new().await;
    this.at_legacy("CREATE TYPE mood AS ENUM ('sad', 'ok')").await;
    this.loaded().await;
    let changes = |schema: &str| {
        format!(
            "SET search_path = {schema};
             CREATE INDEX visit_what ON visit (what);
             ALTER TABLE note ADD CONSTRAINT short CHECK (length(text) < 1000);
             ALTER TABLE visit ALTER COLUMN what SET DEFAULT 'nothing';
             CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';
             CREATE VIEW late AS SELECT id FROM visit;
             CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
             CREATE TRIGGER touched BEFORE UPDATE ON visit FOR EACH ROW EXECUTE FUNCTION touch();
             ALTER TYPE mood ADD VALUE 'fine';
             CREATE SEQUENCE tickets"
        )
    };
    this.at_legacy(&changes("public")).await;
    let (_, end) = this.bench.run(&go()).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "altered", "{message}");
    for named in [
        "index visit_what came",
        "constraint short on note came",
        "column visit.what is",
        "function twice(n integer) came",
        "relation late came",
        "trigger touched on visit came",
        "type mood is",
        "relation tickets came",
    ] {
        assert!(message.contains(named), "{named}: {message}");
    }
    // No statement is made up: each is told, in a line for people.
    let told = offer(&this.bench.workplace().await, "main", "health").await.unwrap().unwrap();
    assert_eq!(told.stopped.code, "altered");
    assert!(told.statements.iter().all(|line| line.starts_with("-- ") && !line.contains('\n')), "{told:?}");

    this.bench.execute(&changes("health")).await;
    this.goes(&go()).await;
    this.is_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_leaves_as_it_is_stays_admitted_but_no_rows() {
    let this = Move::new().await;
    this.loaded().await;
    this.at_legacy("CREATE INDEX only_here ON visit (at); CREATE TABLE late (id int PRIMARY KEY)").await;
    let workplace = this.bench.workplace().await;
    go_on(&workplace, "main", "health", None).await.unwrap();
    let (_, end) = this.bench.run(&go()).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "altered", "{message}");
    assert!(message.contains("public.late") && !message.contains("only_here"), "{message}");
    this.at_legacy("DROP TABLE late").await;
    let (_, end) = this.bench.run(&go()).await;
    let said = matches!(end, RunEnd::Completed).then_some(String::new()).unwrap_or_else(|| failure(&end).2);
    assert!(!said.contains("only_here"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_with_a_default_that_both_sides_got_is_compared_in_every_row() {
    let this = Move::new().await;
    this.loaded().await;
    this.at_legacy("ALTER TABLE visit ADD COLUMN place text DEFAULT 'home'").await;
    this.bench.execute("ALTER TABLE health.visit ADD COLUMN place text; ALTER TABLE health.visit ALTER COLUMN place SET DEFAULT 'home'").await;
    let (_, end) = this.bench.run(&go()).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "parity", "the old rows differ: {message}");
    this.bench
        .execute(
            "ALTER TABLE health.visit DROP COLUMN place; ALTER TABLE health.visit ADD COLUMN place text DEFAULT 'home'",
        )
        .await;
    this.goes(&go()).await;
    this.is_equal().await;
}

const EXISTING: &str = "CREATE SCHEMA health;
    CREATE TABLE health.visit (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, extra text DEFAULT 'own', what text NOT NULL,
        at timestamptz DEFAULT now());
    CREATE TABLE health.note (visit bigint NOT NULL REFERENCES health.visit, n bigint NOT NULL, text text, PRIMARY KEY (visit, n));";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_preflight_admitted_of_tables_made_by_migrations_goes_there_and_back() {
    let this = Move::new().await;
    this.bench.execute(EXISTING).await;
    let load = MOVE.replace("undo =", "structure = \"existing\"\naccept = [\"wider-type\"]\nundo =");
    let (_, end) = this.bench.run(&load).await;
    assert!(matches!(end, RunEnd::Completed), "{end:?}");
    this.at_legacy("INSERT INTO note VALUES (1, 9, 'streamed')").await;

    // A change of the source's stops the stream, and what is offered is that change alone.
    this.at_legacy(
        "ALTER TABLE visit ADD COLUMN place text; INSERT INTO visit (what, place) VALUES ('with a place', 'home')",
    )
    .await;
    let (_, end) = this.bench.run(&follow()).await;
    assert_eq!(failure(&end).1, "stream-ddl");
    let offered = go_on(&this.bench.workplace().await, "main", "health", None).await.unwrap();
    assert_eq!(offered.statements, ["ALTER TABLE health.visit ADD COLUMN place text"]);

    this.goes(&go()).await;
    assert_eq!(this.bench.value("SELECT string_agg(DISTINCT extra, ' ') FROM health.visit").await, "own");
    assert_eq!(this.bench.value("SELECT text FROM health.note WHERE n = 9").await, "streamed");
    this.bench
        .execute("INSERT INTO health.visit (what, extra) VALUES ('after', 'changed'); UPDATE health.note SET n = 10 WHERE n = 9")
        .await;
    this.goes(&back()).await;
    assert_eq!(this.legacy_value("SELECT count(*) FROM visit WHERE what = 'after'").await, "1");
    assert_eq!(this.legacy_value("SELECT text FROM note WHERE n = 10").await, "streamed");
    this.goes(&go()).await;
    assert_eq!(this.bench.value("SELECT extra FROM health.visit WHERE what = 'after'").await, "changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_stopped_and_was_accepted_is_lossless_once_all_rows_are_compared() {
    let this = Move::new().await;
    this.loaded().await;
    this.goes(&go()).await;
    let lossy = async |word: &str| match this.rollback().await {
        Rollback::Lossy(why) => assert!(why.contains(word), "{why}"),
        other => panic!("{other:?}"),
    };

    // The application's own migration.
    this.bench.execute("ALTER TABLE health.visit ADD COLUMN place text").await;
    this.bench.execute("INSERT INTO health.visit (what, place) VALUES ('after', 'home')").await;
    let (_, end) = this.bench.run(&follow()).await;
    assert_eq!(failure(&end).1, "stream-ddl");
    lossy("stands still").await;
    let (_, end) = this.bench.run(&back()).await;
    assert_eq!(failure(&end).1, "stream-ddl", "nobody goes back while it stands still");
    let workplace = this.bench.workplace().await;
    let offered = go_on(&workplace, "main", "health", None).await.unwrap();
    assert_eq!(offered.statements, ["ALTER TABLE public.visit ADD COLUMN place text"]);
    this.goes(&follow()).await;
    lossy("not all rows were compared").await;
    this.goes(&step("parity = \"all\"\nfrom = \"old\"\ntarget = \"main\"\nmode = \"live\"\nschema = \"health\"")).await;
    assert_eq!(this.rollback().await, Rollback::Lossless);

    // Somebody wrote to the side that follows: what is put right there is believed only when it was looked at.
    this.past_the_streams("DELETE FROM visit WHERE id = 20").await;
    this.bench.execute("UPDATE health.visit SET what = 'changed' WHERE id = 20").await;
    let (_, end) = this.bench.run(&follow()).await;
    assert_eq!(failure(&end).1, "stream-conflict");
    go_on(&workplace, "main", "health", None).await.unwrap();
    let (_, end) = this.bench.run(&follow()).await;
    assert_eq!(failure(&end).1, "stream-conflict", "nothing was put right");
    this.past_the_streams(
        "INSERT INTO visit (id, what) VALUES (20, 'visit 20'); UPDATE visit SET what = 'forged' WHERE id = 21",
    )
    .await;
    go_on(&workplace, "main", "health", None).await.unwrap();
    this.goes(&follow()).await;
    lossy("not all rows were compared").await;
    let (_, end) = this.bench.run(&back()).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "parity", "{message}");
    assert!(message.contains("visit: id = 21: differs in what") && !message.contains("forged"), "{message}");
    lossy("not all rows were compared").await;
    this.past_the_streams("UPDATE visit SET what = 'visit 21' WHERE id = 21").await;
    this.goes(&back()).await;
    this.is_equal().await;
    assert_eq!(this.legacy_value("SELECT place FROM visit WHERE what = 'after'").await, "home");
    assert_eq!(this.rollback().await, Rollback::NotNeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_slot_there_is_no_way_back() {
    let this = Move::new().await;
    this.loaded().await;
    this.goes(&go()).await;
    let session = this.bench.session().await;
    let drop =
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()";
    let begun = Instant::now();
    // The run that followed it may still be letting go of it.
    while let Err(error) = session.execute(drop).await {
        assert_eq!(error.sqlstate(), Some("55006"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
    }
    this.bench.execute("INSERT INTO health.visit (what) VALUES ('after')").await;
    match this.rollback().await {
        Rollback::Lossy(why) => assert!(why.contains("there is no reverse slot"), "{why}"),
        other => panic!("{other:?}"),
    }
    let (_, end) = this.bench.run(&back()).await;
    let (_, code, message) = failure(&end);
    assert!(["no-stream", "stream-slot"].contains(&code.as_str()), "{code}: {message}");
    this.bench.execute("INSERT INTO health.visit (what) VALUES ('goes on')").await;
}
