//! `review` and `drift`: a change before it is merged, and a target beside its files.

use std::process::Command;

use pgrunbook_postgres::sandbox::shared_of;

use crate::place::{Place, Said};

pub const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text);\nINSERT INTO notes VALUES (1, 'a');\n";

/// A repository with one migration on `main`, and a branch.
pub async fn repository() -> Place {
    repository_of(NOTES, &[]).await
}

/// The same with another first migration, and more files.
pub async fn repository_of(up: &str, more: &[(&str, &str)]) -> Place {
    repository_at(Place::new().await, up, more)
}

/// The same beside another database.
pub fn repository_at(place: Place, up: &str, more: &[(&str, &str)]) -> Place {
    place.write("pgrunbook.toml", "[targets.main]\nurl = \"env:DATABASE_URL\"\n");
    place.write("db/0001_notes.sql", up);
    for (path, text) in more {
        place.write(path, text);
    }
    place.write("db/0001_notes.down.sql", "DROP TABLE notes;\n");
    place.write("db/0001_notes.verify.sql", "-- expect: 1 row\nSELECT * FROM notes;\n");
    git(&place, &["init", "--quiet", "--initial-branch=main"]);
    commit(&place);
    git(&place, &["checkout", "--quiet", "-b", "change"]);
    place
}

pub fn git(place: &Place, arguments: &[&str]) {
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

pub fn commit(place: &Place) {
    git(place, &["add", "."]);
    git(place, &["commit", "--quiet", "--message=x"]);
}

/// A second migration.
pub fn second(place: &Place, up: &str, down: &str) {
    place.write("db/0002_more.sql", up);
    place.write("db/0002_more.down.sql", down);
    place.write("db/0002_more.verify.sql", "-- expect: 1 row\nSELECT * FROM notes;\n");
}

pub fn review(place: &Place, more: &[&str]) -> Said {
    place.call(&[&["review", "--chain", "db", "--since", "main"][..], more].concat())
}

/// The rules of the findings with their paths and lines, in order of place; `-` for those about no file.
pub fn findings(said: &Said) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    let mut found: Vec<String> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let place = one["path"].as_str().map_or("-".to_owned(), |path| format!("{path}:{}", one["line"]));
            format!("{place} {}", one["code"].as_str().unwrap())
        })
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
            "db/0002_more.sql:2 again-failed",
            "db/0002_more.sql:3 not-additive",
            "db/0002_more.sql:3 table-rewrite",
        ]
    );
}

#[tokio::test]
async fn repeatable_file_is_applied_when_all_is_forward_again() {
    let seen = |columns: &str| format!("CREATE OR REPLACE VIEW seen AS\nSELECT {columns} FROM notes;\n");
    let place = repository_of(NOTES, &[("db/R__seen.sql", &seen("id"))]).await;
    second(&place, "ALTER TABLE notes ADD COLUMN at timestamptz;\n", "ALTER TABLE notes DROP COLUMN at;\n");
    // It rests on what the migration brings, which was taken back before.
    place.write("db/R__seen.sql", &seen("id, at"));
    place.write("smoke.sql", "-- expect: 1 row\nSELECT at FROM seen;\n");
    commit(&place);
    let said = review(&place, &["--smoke", "smoke.sql"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for part in ["1 taken back, 0 thing(s) not as before", "db applied to its end"] {
        assert!(said.out.contains(part), "{part} in {}", said.out);
    }
    // One that the application of before would not miss, and the new one cannot do without.
    place.write("db/R__seen.sql", &seen("id"));
    let said = review(&place, &["--smoke", "smoke.sql", "--format", "json"]);
    assert_eq!((said.code, findings(&said)), (Some(1), vec!["smoke.sql:1 smoke-failed".to_owned()]), "{said:?}");
    place.write("db/R__seen.sql", &seen("id, nothing"));
    let said = review(&place, &["--smoke", "smoke.sql", "--format", "json"]);
    assert_eq!((said.code, findings(&said)), (Some(1), vec!["db/R__seen.sql:2 again-failed".to_owned()]), "{said:?}");
    assert!(said.out.contains("column \\\"nothing\\\" does not exist"), "{said:?}");
}

#[tokio::test]
async fn change_must_fit_what_repeatable_files_made_before_it() {
    let seen = |columns: &str| format!("CREATE OR REPLACE VIEW seen AS\nSELECT {columns} FROM notes;\n");
    let place = repository_of(NOTES, &[("db/R__seen.sql", &seen("id, body"))]).await;
    // On an empty database it would be made as it is.
    place.write("db/R__seen.sql", &seen("id"));
    let said = review(&place, &["--format", "json"]);
    assert_eq!((said.code, findings(&said)), (Some(1), vec!["db/R__seen.sql:1 again-failed".to_owned()]), "{said:?}");
    assert!(said.out.contains("cannot drop columns from view"), "{said:?}");
    place.write(
        "db/R__seen.sql",
        &format!("-- review: allow not-additive: nobody reads it\nDROP VIEW IF EXISTS seen;\n{}", seen("id")),
    );
    let said = review(&place, &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("applied to 1 others and 1 repeatable file(s) as they were before"), "{said:?}");

    // What a view reads cannot be dropped below it, though the file of the view was changed with it.
    second(&place, "ALTER TABLE notes DROP COLUMN body;\n", "ALTER TABLE notes ADD COLUMN body text;\n");
    let said = review(&place, &["--format", "json"]);
    let found = findings(&said);
    assert!(found.contains(&"db/0002_more.sql:1 migration-failed".to_owned()), "{said:?}");
    assert!(said.out.contains("other objects depend on it"), "{said:?}");
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

    // The file that makes a table says why one of the two is not for it.
    let made = std::fs::read_to_string(place.folder.path().join("db/0002_more.sql")).unwrap();
    place.write("db/0002_more.sql", &format!("{made}-- review: allow grant-missing: operators alone\n"));
    let json: serde_json::Value = serde_json::from_str(&review(&place, &args).out).unwrap();
    let severity = |code: &str| {
        let found = json["findings"].as_array().unwrap().iter().find(|one| one["code"] == code);
        found.unwrap_or_else(|| panic!("{code}: {json}"))["severity"].as_str().unwrap().to_owned()
    };
    assert_eq!((severity("grant-missing"), severity("rls-missing")), ("note".to_owned(), "error".to_owned()));
    assert!(json.to_string().contains("app_tenant may do nothing with app.bare (allowed: operators alone)"), "{json}");
}

#[tokio::test]
async fn target_shows_its_drift_and_the_history_that_was_edited() {
    let place = repository().await;
    assert_eq!(place.call(&["migrate", "up", "db"]).code, Some(0));
    place.execute("CREATE TABLE by_hand (id int); ANALYZE notes").await;
    second(&place, "ALTER TABLE notes ADD COLUMN at timestamptz;\n", "ALTER TABLE notes DROP COLUMN at;\n");
    let said = review(&place, &["--target", "main", "--format", "json", "--out", "a.sarif"]);
    assert_eq!((said.code, findings(&said)), (Some(1), vec!["- drift".to_owned()]), "{said:?}");
    let sarif: serde_json::Value = serde_json::from_str(&place.read("a.sarif")).unwrap();
    let uri = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(uri, "pgrunbook.toml");
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

/// A target with the repository's first migration, and a table of so many rows that is analysed.
async fn filled(place: Place, rows: u32) -> Place {
    let place = repository_at(place, NOTES, &[]);
    assert_eq!(place.call(&["migrate", "up", "db"]).code, Some(0));
    place
        .execute(&format!(
            "INSERT INTO notes SELECT g, 'secret-' || g % 3 FROM generate_series(2, {rows}) AS g; CREATE INDEX ON notes (body); ANALYZE notes"
        ))
        .await;
    place
}

#[tokio::test]
async fn each_statement_is_told_with_what_the_target_has() {
    let place = filled(Place::new().await, 20_000).await;
    second(
        &place,
        "-- review: allow not-additive: nobody reads it\nCREATE TABLE fresh (id int);\n\nALTER TABLE notes ALTER COLUMN id TYPE bigint;\n\
         ALTER TABLE notes\n  ADD CHECK (id > 0);\n",
        "ALTER TABLE notes DROP CONSTRAINT notes_id_check;\nALTER TABLE notes ALTER COLUMN id TYPE int;\nDROP TABLE fresh;\n",
    );
    let args = ["--target", "main", "--ignore", "index:*", "--format", "json"];
    let small = review(&place, &args);
    let json: serde_json::Value = serde_json::from_str(&small.out).unwrap();
    let found = |code: &str| {
        json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["code"] == code)
            .cloned()
            .unwrap_or_else(|| panic!("{small:?}"))
    };
    let rewrite = found("table-rewrite");
    assert_eq!((rewrite["line"].as_i64(), rewrite["severity"].as_str()), (Some(4), Some("note")), "{rewrite}");
    let message = rewrite["message"].as_str().unwrap();
    assert!(
        message.contains(": about 20,000 rows, ")
            && message.contains(" with 2 indexes at the target, under AccessExclusiveLock"),
        "{message}"
    );
    assert_eq!(
        (found("table-scan")["line"].as_i64(), found("table-scan")["severity"].as_str()),
        (Some(5), Some("note"))
    );
    let statements = json["plan"][0]["statements"].as_array().unwrap();
    let told: Vec<_> =
        statements.iter().map(|one| (one["line"].as_i64().unwrap(), one["statement"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [(4, "ALTER TABLE notes ALTER COLUMN id TYPE bigint"), (5, "ALTER TABLE notes ADD CHECK (id > 0)")]
    );
    assert_eq!((&statements[0]["rewrites"][0], &statements[1]["scans"][0]), (&"notes".into(), &"notes".into()));
    assert_eq!(statements[1]["rewrites"].as_array().unwrap().len(), 0);
    let lock =
        &json["plan"][0]["locks"].as_array().unwrap().iter().find(|one| one["relation"] == "notes").unwrap().clone();
    assert_eq!((lock["rows"].as_i64(), lock["indexes"].as_i64()), (Some(20_000), Some(2)), "{lock}");
    assert!(
        lock["writes"].as_i64().is_some_and(|rows| rows >= 0) && lock["bytes"].as_i64().unwrap() > 500_000,
        "{lock}"
    );

    let large = review(&place, &[&args[..], &["--large", "20000"]].concat());
    assert_eq!(large.code, Some(1), "{large:?}");
    let json: serde_json::Value = serde_json::from_str(&large.out).unwrap();
    let severity = |code: &str| {
        json["findings"].as_array().unwrap().iter().find(|one| one["code"] == code).unwrap()["severity"].clone()
    };
    assert_eq!((severity("table-rewrite"), severity("table-scan")), ("error".into(), "warning".into()));

    // What the branch made, and the target does not have, is nobody's trouble.
    second(&place, "CREATE TABLE fresh (id int);\n", "DROP TABLE fresh;\n");
    place.write(
        "db/0003_wide.sql",
        "-- review: allow not-additive: new\nALTER TABLE fresh ALTER COLUMN id TYPE bigint;\n",
    );
    place.write("db/0003_wide.down.sql", "ALTER TABLE fresh ALTER COLUMN id TYPE int;\n");
    let fresh = review(&place, &args);
    assert!(
        fresh.out.contains("fresh is written anew while nobody reads or writes it; the target does not have it yet"),
        "{fresh:?}"
    );
}

#[tokio::test]
async fn smoke_files_are_planned_as_the_target_would_and_show_none_of_its_values() {
    smoke_is_planned(Place::new().await).await;
}

/// Where the server has functions for statistics.
#[tokio::test]
async fn smoke_files_are_planned_as_the_target_would_on_postgresql_18() {
    let server = shared_of(18, "cli-tests").await.unwrap();
    smoke_is_planned(Place::on(server.fresh_database("cli").await.unwrap())).await;
}

async fn smoke_is_planned(place: Place) {
    let place = filled(place, 20_000).await;
    second(&place, "ALTER TABLE notes ADD COLUMN at timestamptz;\n", "ALTER TABLE notes DROP COLUMN at;\n");
    place.write(
        "smoke.sql",
        "-- expect: 1 row\nSELECT * FROM notes WHERE id = 1;\n\n-- expect: 1 row\nSELECT count(*)\nFROM notes WHERE body IS NULL OR id > 0;\n\n\
         SELECT 1 FROM notes LIMIT 1;\n",
    );
    let args =
        ["--target", "main", "--smoke", "smoke.sql", "--large", "10000", "--ignore", "index:*", "--format", "json"];
    let said = review(&place, &args);
    assert_eq!(said.code, Some(0), "{said:?}");
    let found: Vec<_> = findings(&said).into_iter().filter(|one| one.contains("smoke")).collect();
    assert_eq!(found, ["smoke.sql:5 smoke-scan"], "not by the key, and not where one row is enough");
    assert!(said.out.contains("reads public.notes from end to end, about 20,000 rows"), "{said:?}");
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let plans = json["plans"].as_array().unwrap();
    assert_eq!(plans.iter().map(|plan| plan["line"].as_i64().unwrap()).collect::<Vec<_>>(), [2, 5, 8]);
    let by_key = plans[0]["nodes"][0].as_str().unwrap();
    assert_eq!(by_key, "Index Scan using notes_pkey on public.notes, about 1 rows");
    // As the target itself plans it: its blocks, rows and columns are there.
    let explain = "EXPLAIN (FORMAT JSON) SELECT count(*) FROM notes WHERE body IS NULL OR id > 0";
    let own: serde_json::Value = serde_json::from_str(&place.value(explain).await).unwrap();
    let (own, copied) = (own[0]["Plan"]["Total Cost"].as_f64().unwrap(), plans[1]["cost"].as_f64().unwrap());
    assert!((own - copied).abs() < own / 20.0, "{own} and {copied}");
    assert!(!said.out.contains("secret-"), "{}", said.out);
    let check = |said: &Said| {
        let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        let checks = json["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == "plans").unwrap()["said"].as_str().unwrap().to_owned()
    };
    assert_eq!(check(&said), "3 statement(s) planned with the statistics of 1 relation(s) and 2 column(s)");
    let without = review(&place, &[&args[..], &["--no-column-statistics"]].concat());
    assert_eq!(
        check(&without),
        "3 statement(s) planned with the statistics of 1 relation(s), without those of columns"
    );
    assert!(findings(&without).contains(&"smoke.sql:5 smoke-scan".to_owned()), "{without:?}");
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
        junit.contains("failures=\"2\" errors=\"0\"")
            && junit.contains("name=\"lint\"><failure")
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
