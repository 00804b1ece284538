//! `review`: what is seen and not guessed, what nobody can tell, and how each form says so.

use crate::gate::{commit, findings, git, repository, repository_of, review, second};

const BASE: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text DEFAULT 'x');
INSERT INTO notes VALUES (1, 'a');
CREATE TABLE old (id int);
CREATE VIEW seen AS SELECT id, body FROM notes;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON notes USING (true);
CREATE POLICY same ON notes USING (id > 0);
GRANT SELECT, INSERT ON notes TO app;
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TYPE mood AS ENUM ('good');
CREATE TABLE kept (id int);
ALTER TABLE kept ENABLE ROW LEVEL SECURITY;
";

/// What takes away in each line, in ways that reading cannot know; and what does not, in the last four.
const TAKING: &str = "REVOKE INSERT ON notes FROM app;
DO $$ BEGIN EXECUTE 'DROP ' || 'TABLE old'; END $$;
DROP POLICY mine ON notes;
ALTER TABLE notes ALTER COLUMN body DROP DEFAULT;
ALTER TABLE kept DISABLE ROW LEVEL SECURITY;
DROP VIEW seen;
CREATE VIEW seen AS SELECT id FROM notes;
DROP POLICY same ON notes;
CREATE POLICY same ON notes USING (id > 0);
CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2';
ALTER TYPE mood ADD VALUE 'bad';
";

#[tokio::test]
async fn what_goes_is_seen_by_whatever_words() {
    let place = repository_of(BASE, &[]).await;
    place.write("db/0002_more.sql", TAKING);
    let said = review(&place, &["--role", "app", "--format", "json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let mut expected: Vec<String> =
        ["missing-down", "missing-verify"].map(|code| format!("db/0002_more.sql:1 {code}")).into();
    expected.extend([1, 2, 3, 4, 5, 6].map(|line| format!("db/0002_more.sql:{line} not-additive")));
    expected.sort();
    assert_eq!(findings(&said), expected, "{said:?}");
    for part in [
        "is taken back: INSERT",
        "table public.old is gone",
        "policy mine on public.notes is gone",
        "row security public.kept is gone",
    ] {
        assert!(said.out.contains(part), "{part} in {}", said.out);
    }
    // A reason sets aside what is seen as it does what is read.
    place.write("db/0002_more.sql", &format!("-- review: allow not-additive: moved away in 2.4\n{TAKING}"));
    let said = review(&place, &["--role", "app", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let found = json["findings"].as_array().unwrap();
    let taken: Vec<_> = found.iter().filter(|one| one["code"] == "not-additive").collect();
    assert!(taken.len() == 6 && taken.iter().all(|one| one["severity"] == "note"), "{taken:#?}");
}

#[tokio::test]
async fn squawk_tells_what_nobody_else_does() {
    let place = repository().await;
    second(
        &place,
        "ALTER TABLE notes ADD COLUMN name varchar(20) NOT NULL DEFAULT '';\nALTER TABLE notes ALTER COLUMN name DROP NOT NULL;\n",
        "ALTER TABLE notes DROP COLUMN name;\n",
    );
    let said = review(&place, &["--format", "json"]);
    let usual = ["db/0002_more.sql:2 squawk/ban-drop-not-null"];
    assert_eq!((said.code, findings(&said)), (Some(0), usual.map(str::to_owned).into()), "{said:?}");
    let asked = "[targets.main]\nurl = \"env:DATABASE_URL\"\n[review]\nsquawk = [\"prefer-text-field\", \"-ban-drop-not-null\"]\n";
    place.write("pgrunbook.toml", asked);
    let said = review(&place, &["--format", "json"]);
    let style = ["db/0002_more.sql:1 squawk/prefer-text-field"];
    assert_eq!((said.code, findings(&said)), (Some(0), style.map(str::to_owned).into()), "{said:?}");
    place.write("pgrunbook.toml", &asked.replace("prefer-text-field", "prefer-text-fields"));
    let said = review(&place, &[]);
    assert!(said.code == Some(2) && said.err.contains("is `prefer-text-field` meant?"), "{said:?}");
}

#[tokio::test]
async fn tables_of_every_chain_must_have_row_security() {
    let place = repository().await;
    place.write("a/0001_app.sql", "CREATE SCHEMA app;\nCREATE TABLE app.kept (id int);\n");
    commit(&place);
    git(&place, &["branch", "--force", "main"]);
    for chain in ["a", "b"] {
        place.write(&format!("{chain}/0002_{chain}.sql"), &format!("CREATE TABLE app.{chain} (id int);\n"));
        place.write(&format!("{chain}/0002_{chain}.down.sql"), &format!("DROP TABLE app.{chain};\n"));
        place.write(&format!("{chain}/0002_{chain}.verify.sql"), "-- expect: 1 row\nSELECT 1;\n");
    }
    let chains = ["review", "--chain", "a", "--chain", "b", "--since", "main", "--tenant-schema", "app"];
    let said = place.call(&[&chains[..], &["--format", "json"]].concat());
    assert_eq!(findings(&said), ["a/0002_a.sql:1 rls-missing", "b/0002_b.sql:1 rls-missing"], "{said:?}");
}

#[tokio::test]
async fn unchanged_migration_behind_a_changed_one_is_not_judged() {
    let behind = [
        ("db/0003_wide.sql", "ALTER TABLE notes ALTER COLUMN id TYPE bigint;\n"),
        ("db/0003_wide.down.sql", "SELECT 1;\n"),
    ];
    let place = repository_of("CREATE TABLE notes (id int);\nINSERT INTO notes VALUES (1);\n", &behind).await;
    second(&place, "CREATE TABLE more (id int);\n", "DROP TABLE more;\n");
    let said = review(&place, &["--format", "json"]);
    assert_eq!((said.code, findings(&said)), (Some(0), Vec::new()), "{said:?}");
    let counted = "1 changed migration(s) of db applied to 1 others, 1 unchanged behind the first";
    assert!(said.out.contains(counted), "{}", said.out);
    // A down file that changed is tried, though the migration itself did not.
    commit(&place);
    git(&place, &["branch", "--force", "main"]);
    place.write("db/0002_more.down.sql", "SELECT 1;\n");
    let said = review(&place, &["--format", "json"]);
    assert!(findings(&said).contains(&"db/0002_more.down.sql:1 down-incomplete".to_owned()), "{said:?}");
}

#[tokio::test]
async fn many_down_files_are_compared_as_far_as_they_go() {
    let place = repository().await;
    for number in 2..=24 {
        place.write(&format!("db/{number:04}_t.sql"), &format!("CREATE TABLE t{number} (id int);\n"));
        place.write(&format!("db/{number:04}_t.verify.sql"), "-- expect: 1 row\nSELECT 1;\n");
        let down = if number == 20 { "SELECT 1;\n".to_owned() } else { format!("DROP TABLE t{number};\n") };
        if number != 3 {
            place.write(&format!("db/{number:04}_t.down.sql"), &down);
        }
    }
    let said = review(&place, &["--format", "json"]);
    let found = findings(&said);
    // What the 20th leaves is in the way of applying it again.
    let expected =
        ["db/0003_t.sql:1 missing-down", "db/0004_t.down.sql:1 down-incomplete", "db/0020_t.sql:1 again-failed"];
    assert_eq!(found, expected, "{said:?}");
    assert!(
        said.out.contains("21 taken back, 1 thing(s) not as before; 2 not, since 0003 t has no down file"),
        "{}",
        said.out
    );
}

#[tokio::test]
async fn failed_check_looks_failed_in_every_form() {
    let place = repository().await;
    second(&place, "SELECT nonsense;\n", "SELECT 1;\n");
    let said = review(&place, &["--out", "a.xml", "--out", "a.md", "--out", "a.json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("✗ forward: failed") && said.out.contains("Does not pass"), "{}", said.out);
    assert!(place.read("a.xml").contains("name=\"forward\"><failure type=\"check\""), "{}", place.read("a.xml"));
    assert!(place.read("a.md").contains("❌ forward: failed"), "{}", place.read("a.md"));
    assert!(place.read("a.json").contains("\"outcome\":\"failed\""), "{}", place.read("a.json"));
}

const CODE: &str = "[targets.main]\nurl = \"env:DATABASE_URL\"\n[code.vh]\nfiles = [\"apps/vh/**\"]\nmay_write = [\"vh\"]\n\
    [code.eng]\nfiles = [\"apps/eng/**\"]\nmay_write = [\"eng\"]\n";

#[tokio::test]
async fn boundary_is_a_part_of_the_gate_and_its_error_no_pass() {
    let place = repository().await;
    second(&place, "CREATE TABLE more (id int);\n", "DROP TABLE more;\n");
    place.write("pgrunbook.toml", CODE);
    place.write("apps/eng/notes.sql", "DELETE FROM eng.notes WHERE id = 1;\n");
    place.write("apps/vh/notes.sql", "DELETE FROM vh.notes WHERE id = 1;\n");
    let said = review(&place, &[]);
    assert!(said.code == Some(0) && said.out.contains("✓ boundary: 2 file(s) of 2 tree(s)"), "{said:?}");
    place.write("apps/vh/notes.sql", "\nDELETE FROM eng.notes WHERE id = 1;\n");
    let said = review(&place, &["--format", "json"]);
    let found = vec!["apps/vh/notes.sql:2 boundary-write".to_owned()];
    assert_eq!((said.code, findings(&said)), (Some(1), found), "{said:?}");
    // A pattern that leads out of the project: nothing was read, and that is no pass.
    place.write("pgrunbook.toml", &CODE.replace("apps/vh/**", "../vh/**"));
    let said = review(&place, &["--out", "a.xml", "--out", "a.md", "--out", "a.json"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(
        said.out.contains("? boundary: no code was read") && said.out.contains("Nobody can tell: 0 errors"),
        "{}",
        said.out
    );
    let junit = place.read("a.xml");
    assert!(
        junit.contains("failures=\"0\" errors=\"2\"")
            && junit.contains("name=\"pgrunbook.toml:4\" file=\"pgrunbook.toml\"><error type=\"boundary-unknown\""),
        "{junit}"
    );
    assert!(place.read("a.md").contains("### ❓ Migrations: 0 errors"), "{}", place.read("a.md"));
    assert!(place.read("a.json").contains("\"outcome\":\"unknown\""), "{}", place.read("a.json"));
}

#[tokio::test]
async fn shadow_that_cannot_be_built_is_no_pass() {
    let place = repository_of("CREATE TABLE base.notes (id int);\nINSERT INTO base.notes VALUES (1);\n", &[]).await;
    place.write("db/0001_notes.verify.sql", "-- expect: 1 row\nSELECT * FROM base.notes;\n");
    place.write("db/0001_notes.down.sql", "DROP TABLE base.notes;\n");
    commit(&place);
    git(&place, &["branch", "--force", "main"]);
    place.execute("CREATE SCHEMA base").await;
    assert_eq!(place.call(&["migrate", "up", "db"]).code, Some(0));
    // The trial has the project's setup; the shadow has what the history says, which is less.
    place.write("setup.sql", "CREATE SCHEMA base;\n");
    let config = "[targets.main]\nurl = \"env:DATABASE_URL\"\n[rehearsal]\nsetup = [\"setup.sql\"]\n";
    place.write("pgrunbook.toml", config);
    let said = review(&place, &["--target", "main", "--format", "json"]);
    assert_eq!((said.code, findings(&said)), (Some(4), vec!["- drift-unknown".to_owned()]), "{said:?}");
    let said = review(&place, &["--target", "main", "--format", "github"]);
    assert!(said.out.starts_with("::warning title=drift-unknown::unknown: the target cannot be compared"), "{said:?}");
}
