//! `review` of files that cannot run in one transaction: what they lock and write anew is seen all the same.

use serde_json::Value;

use crate::gate::{findings, repository, review, second};
use crate::place::Said;

/// What the plan says of each statement of the only migration: line, locks, rewrites, scans.
fn plan(said: &Said) -> Vec<String> {
    let json: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    let names = |value: &Value| {
        let names = value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    let statements = json["plan"][0]["statements"].as_array().unwrap_or_else(|| panic!("{said:?}"));
    let shown = |one: &Value| {
        let locks = one["locks"].as_array().unwrap().iter();
        let locks =
            locks.map(|lock| format!("{} {}", lock["relation"].as_str().unwrap(), lock["mode"].as_str().unwrap()));
        let locks = locks.collect::<Vec<_>>().join(", ");
        format!("{}: [{locks}] rewrites [{}] scans [{}]", one["line"], names(&one["rewrites"]), names(&one["scans"]))
    };
    statements.iter().map(shown).collect()
}

#[tokio::test]
async fn statements_beside_a_concurrent_index_are_watched_as_any_other() {
    let place = repository().await;
    second(
        &place,
        "-- review: allow not-additive: nobody reads it\nSET lock_timeout = '5s';\nALTER TABLE notes ALTER COLUMN id TYPE bigint;\n\
         CREATE INDEX CONCURRENTLY notes_body ON notes (body);\nALTER TABLE notes ADD CHECK (id > 0);\n\
         CREATE TABLE fresh (id int);\nALTER TABLE fresh ALTER COLUMN id TYPE bigint;\n",
        "DROP TABLE fresh;\nALTER TABLE notes DROP CONSTRAINT notes_id_check;\nDROP INDEX notes_body;\nALTER TABLE notes ALTER COLUMN id TYPE int;\n",
    );
    let said = review(&place, &["--format", "json"]);
    let found = findings(&said);
    for one in ["db/0002_more.sql:3 table-rewrite", "db/0002_more.sql:5 table-scan"] {
        assert!(found.iter().any(|found| found == one), "{one} in {found:#?}");
    }
    assert!(said.out.contains("nobody reads or writes it, under AccessExclusiveLock"), "{said:?}");
    let plan = plan(&said);
    assert_eq!(plan.len(), 3, "what the file makes is in nobody's way: {plan:#?}");
    assert!(plan[0].starts_with("3: [notes AccessExclusiveLock") && plan[0].contains("rewrites [notes]"), "{plan:#?}");
    assert!(plan[1].starts_with("4: [") && plan[1].contains("notes ShareUpdateExclusiveLock"), "{plan:#?}");
    assert!(plan[1].ends_with("rewrites [] scans []") && !plan[1].contains("notes AccessExclusiveLock"), "{plan:#?}");
    assert!(plan[2].starts_with("5: [notes AccessExclusiveLock") && plan[2].ends_with("scans [notes]"), "{plan:#?}");
}

#[tokio::test]
async fn vacuum_full_is_a_rewrite_under_its_lock() {
    let place = repository().await;
    second(&place, "VACUUM (FULL) notes;\n", "SELECT 1;\n");
    let said = review(&place, &["--format", "json"]);
    assert!(findings(&said).contains(&"db/0002_more.sql:1 table-rewrite".to_owned()), "{said:?}");
    assert!(said.out.contains("nobody reads or writes it, under AccessExclusiveLock"), "{said:?}");
    // One that is gentle is none.
    second(&place, "VACUUM notes;\n", "SELECT 1;\n");
    let said = review(&place, &["--format", "json"]);
    assert!(!findings(&said).iter().any(|one| one.contains("table-rewrite")), "{said:?}");
    assert!(plan(&said)[0].contains("notes ShareUpdateExclusiveLock"), "{said:?}");
}

#[tokio::test]
async fn own_transactions_are_watched_and_what_commits_by_itself_is_named() {
    let place = repository().await;
    second(
        &place,
        "-- review: allow not-additive: nobody reads it\nBEGIN ISOLATION LEVEL REPEATABLE READ;\nSET LOCAL lock_timeout = '5s';\n\
         ALTER TABLE notes ALTER COLUMN id TYPE bigint;\nROLLBACK;\nBEGIN;\nALTER TABLE notes ADD COLUMN at timestamptz;\nCOMMIT;\n\
         DO $$ BEGIN UPDATE notes SET at = now(); COMMIT; LOCK TABLE notes; END $$;\nALTER TABLE notes ADD CHECK (id > 0);\n",
        "ALTER TABLE notes DROP CONSTRAINT notes_id_check;\nALTER TABLE notes DROP COLUMN at;\n",
    );
    let said = review(&place, &["--format", "json"]);
    let found = findings(&said);
    assert!(found.contains(&"db/0002_more.sql:9 not-watched".to_owned()), "{said:?}");
    assert!(found.contains(&"db/0002_more.sql:4 table-rewrite".to_owned()), "though it was rolled back: {said:?}");
    assert_eq!(found.iter().filter(|one| one.contains("table-rewrite")).count(), 1, "{said:?}");
    let plan = plan(&said);
    for (line, part) in [("7: ", "notes AccessExclusiveLock"), ("10: ", "scans [notes]")] {
        let of = plan.iter().find(|one| one.starts_with(line)).unwrap_or_else(|| panic!("{line}: {plan:#?}"));
        assert!(of.contains(part), "{plan:#?}");
    }
}
