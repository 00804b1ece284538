//! `review` and `drift`: a change before it is merged, and a target beside its files.

use std::process::Command;

use crate::place::{Place, Said};

/// A repository with one migration on `main`, and a branch.
async fn repository() -> Place {
    let place = Place::new().await;
    place.write("pgrunbook.toml", "[targets.main]\nurl = \"env:DATABASE_URL\"\n");
    place.write(
        "db/0001_notes.sql",
        "CREATE TABLE notes (id int PRIMARY KEY, body text);\nINSERT INTO notes VALUES (1, 'a');\n",
    );
    place.write("db/0001_notes.down.sql", "DROP TABLE notes;\n");
    place.write("db/0001_notes.verify.sql", "-- expect: 1 row\nSELECT * FROM notes;\n");
    git(&place, &["init", "--quiet", "--initial-branch=main"]);
    commit(&place);
    git(&place, &["checkout", "--quiet", "-b", "change"]);
    place
}

fn git(place: &Place, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.current_dir(place.folder.path()).args([
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "commit.gpgsign=false",
    ]);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn commit(place: &Place) {
    git(place, &["add", "."]);
    git(place, &["commit", "--quiet", "--message=x"]);
}

/// A second migration.
fn second(place: &Place, up: &str, down: &str) {
    place.write("db/0002_more.sql", up);
    place.write("db/0002_more.down.sql", down);
    place.write("db/0002_more.verify.sql", "-- expect: 1 row\nSELECT * FROM notes;\n");
}

fn review(place: &Place, more: &[&str]) -> Said {
    place.call(&[&["review", "--chain", "db", "--since", "main"][..], more].concat())
}

/// The rules of the findings with their paths and lines, in order of place.
fn findings(said: &Said) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    let mut found: Vec<String> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{}:{} {}", one["path"].as_str().unwrap(), one["line"], one["code"].as_str().unwrap()))
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn clean_change_passes_and_shows_what_it_locks() {
    let place = repository().await;
    second(&place, "ALTER TABLE notes ADD COLUMN at timestamptz;\n", "ALTER TABLE notes DROP COLUMN at;\n");
    commit(&place);
    let said = review(&place, &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in [
        "0002 more",
        "locks notes: AccessExclusiveLock",
        "1 verify file(s) held",
        "1 taken back, 0 thing(s) not as before",
        "Passes: 0 errors",
    ] {
        assert!(said.out.contains(part), "{part} in {}", said.out);
    }
    assert!(!said.out.contains("0001"), "{}", said.out);
}

#[tokio::test]
async fn each_fault_is_found_at_its_place() {
    let place = repository().await;
    place.write(
        "db/0001_notes.sql",
        "CREATE TABLE notes (id int PRIMARY KEY, body text, more int);\nINSERT INTO notes VALUES (1, 'a');\n",
    );
    place.write(
        "db/0002_more.sql",
        "CREATE TABLE kept (id int);\nALTER TABLE notes ADD COLUMN z int DEFAULT random();\n\
         ALTER TABLE notes ADD COLUMN y int NOT NULL;\n",
    );
    place.write("config.env", "A=1\nAPI_TOKEN=ghp_0123456789abcdefghijABCDEFGHIJ0123456789\n");
    commit(&place);
    let said = review(&place, &["--format", "json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let found = findings(&said);
    for one in [
        "config.env:2 literal-secret",
        "db/0001_notes.sql:1 history-edited",
        "db/0002_more.sql:1 missing-down",
        "db/0002_more.sql:1 missing-verify",
        "db/0002_more.sql:3 migration-failed",
        "db/0002_more.sql:3 not-null-without-default",
    ] {
        assert!(found.iter().any(|found| found == one), "{one} in {found:#?}");
    }
    assert!(!said.out.contains("ghp_"), "{}", said.out);
}

#[tokio::test]
async fn rewrite_is_seen_and_down_file_must_take_all_back() {
    let place = repository().await;
    second(
        &place,
        "-- review: allow not-additive: nobody reads it\nCREATE TABLE kept (id int);\nALTER TABLE notes ALTER COLUMN id TYPE bigint;\n",
        "ALTER TABLE notes ALTER COLUMN id TYPE int;\n",
    );
    let said = review(&place, &["--format", "json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    // Applied again, the table that stayed is in the way.
    assert_eq!(
        findings(&said),
        [
            "db/0002_more.down.sql:1 down-incomplete",
            "db/0002_more.sql:1 table-rewrite",
            "db/0002_more.sql:2 again-failed",
            "db/0002_more.sql:3 not-additive",
        ]
    );
}

#[tokio::test]
async fn tenants_and_smoke_are_asked() {
    let place = repository().await;
    second(
        &place,
        "CREATE SCHEMA app;\nCREATE TABLE app.bare (id int);\nCREATE TABLE app.good (id int);\n\
         ALTER TABLE app.good ENABLE ROW LEVEL SECURITY;\nGRANT SELECT ON app.good TO app_tenant;\n",
        "DROP SCHEMA app CASCADE;\n",
    );
    place.write("smoke.sql", "-- expect: 1 row\nSELECT 1;\n\n-- expect: 1 row\nSELECT * FROM app.good;\n");
    let args = ["--tenant-schema", "app", "--tenant-role", "app_tenant", "--smoke", "smoke.sql", "--format", "json"];
    let said = review(&place, &args);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(
        findings(&said),
        ["db/0002_more.sql:2 grant-missing", "db/0002_more.sql:2 rls-missing", "smoke.sql:4 smoke-failed"]
    );
}

#[tokio::test]
async fn target_shows_its_drift_and_the_history_that_was_edited() {
    let place = repository().await;
    assert_eq!(place.call(&["migrate", "up", "db"]).code, Some(0));
    place.execute("CREATE TABLE by_hand (id int); ANALYZE notes").await;
    second(&place, "ALTER TABLE notes ADD COLUMN at timestamptz;\n", "ALTER TABLE notes DROP COLUMN at;\n");
    let said = review(&place, &["--target", "main", "--format", "json"]);
    assert_eq!((said.code, findings(&said)), (Some(1), vec!["target:1 drift".to_owned()]), "{said:?}");
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(json["plan"][0]["locks"][0]["rows"], 1);
    assert!(json["mend"].as_str().unwrap().contains("-- DROP TABLE public.by_hand;"), "{}", json["mend"]);
    place.execute("DROP TABLE by_hand").await;
    place.write(
        "db/0001_notes.sql",
        "CREATE TABLE notes (id int PRIMARY KEY, body text); -- edited\nINSERT INTO notes VALUES (1, 'a');\n",
    );
    let said = place.call(&["review", "--chain", "db", "--target", "main", "--format", "json"]);
    assert!(findings(&said).contains(&"db/0001_notes.sql:1 history-edited".to_owned()), "{said:?}");
}

#[tokio::test]
async fn every_form_tells_the_same() {
    let place = repository().await;
    second(&place, "ALTER TABLE notes DROP COLUMN body;\n", "ALTER TABLE notes ADD COLUMN body text;\n");
    let outs = ["--out", "a.sarif", "--out", "a.xml", "--out", "a.md", "--out", "a.json"];
    let said = review(&place, &[&["--format", "github"][..], &outs].concat());
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.out.contains("::error file=db/0002_more.sql,line=1,col=19,endLine=1,title=not-additive::"),
        "{}",
        said.out
    );
    let sarif: serde_json::Value = serde_json::from_str(&place.read("a.sarif")).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(sarif["runs"][0]["results"][0]["ruleId"], "not-additive");
    let junit = place.read("a.xml");
    assert!(
        junit.contains("failures=\"1\"")
            && junit.contains("<testcase classname=\"not-additive\" name=\"db/0002_more.sql:1\""),
        "{junit}"
    );
    let markdown = place.read("a.md");
    assert!(markdown.contains("| ❌ | not-additive | db/0002\\_more.sql:1 |"), "{markdown}");
    assert!(markdown.contains("<details><summary>Plan: 1 migration(s)"), "{markdown}");
    assert!(place.read("a.json").contains("\"passes\":false"));
}

#[tokio::test]
async fn what_git_cannot_say_is_refused() {
    let place = repository().await;
    let said = place.call(&["review", "--chain", "db", "--since", "nowhere"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    let said = place.call(&["review", "--chain", "db", "--since", "--output=/tmp/x"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert_eq!(place.call(&["review"]).code, Some(2));
}

#[tokio::test]
async fn drift_of_a_target_is_told_and_its_sql_mends_it() {
    let place = repository().await;
    assert_eq!(place.call(&["migrate", "up", "db"]).code, Some(0));
    let said = place.call(&["drift", "main", "--chain", "db"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.starts_with("No drift: "), "{}", said.out);
    place.execute("CREATE VIEW seen AS SELECT body FROM notes; ALTER TABLE notes ALTER body SET DEFAULT 'x'; COMMENT ON TABLE notes IS 'n'").await;
    // What is not applied there is not expected there.
    second(&place, "ALTER TABLE notes ADD COLUMN at timestamptz;\n", "ALTER TABLE notes DROP COLUMN at;\n");
    let said = place.call(&["drift", "--chain", "db", "--sql", "mend.sql"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(
        said.out.lines().take(3).collect::<Vec<_>>(),
        ["+ default public.notes.body", "+ view public.seen", "+ comment TABLE public.notes"]
    );
    place.execute(&place.read("mend.sql")).await;
    assert_eq!(place.call(&["drift", "--chain", "db"]).code, Some(0));
    let pending = place.call(&["drift", "--chain", "db", "--pending", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&pending.out).unwrap();
    assert_eq!(
        (json["differences"][0]["change"].as_str(), json["differences"][0]["identity"].as_str()),
        (Some("missing"), Some("public.notes.at"))
    );
}
