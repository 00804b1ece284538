//! `review` in a project whose topology has tenants: nobody needs to name their schemas and roles.

use crate::gate::{findings, repository, review, second};
use crate::place::{Place, Said};

const TOPOLOGY: &str = r#"
[database]
owner = "app_owner"

[tenants]
list = ["health", "general"]

[schemas]
ledger = {}
"{tenant}" = {}

[access.own]
select = ["notes"]

[access.books]
select = ["lots"]

[roles."app_{tenant}"]
kind = "runtime"
access = { "{tenant}" = "own" }

[roles.ledger_app]
kind = "runtime"
access = { ledger = "books" }

[rls.community]
tables = ["ledger.lots"]
column = "community_id"
type = "uuid"
setting = "app.community_id"
guard = "ledger.current_community"
without = "error"
roles = ["ledger_app"]

[[chain]]
folder = "db"
schema = "{tenant}"
"#;

/// What `tenants` came to: its outcome, and what it said.
fn tenants(said: &Said) -> (String, String) {
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    let check = json["checks"].as_array().unwrap().iter().find(|one| one["name"] == "tenants").unwrap().clone();
    let text = |name: &str| check[name].as_str().unwrap().to_owned();
    (text("outcome"), text("said"))
}

async fn project(topology: &str) -> Place {
    let place = repository().await;
    place.write("topology.toml", topology);
    second(
        &place,
        "CREATE SCHEMA ledger;\nCREATE TABLE ledger.lots (id int, community_id uuid);\n\
         CREATE TABLE ledger.entries (id int, community_id uuid);\nCREATE TABLE ledger.kinds (id int);\nCREATE TABLE drafts (id int);\n",
        "DROP TABLE drafts;\nDROP SCHEMA ledger CASCADE;\n",
    );
    place
}

#[tokio::test]
async fn topology_says_what_a_tenants_table_needs() {
    let place = project(TOPOLOGY).await;
    let said = review(&place, &["--format", "json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(
        findings(&said),
        ["db/0002_more.sql:3 grant-missing", "db/0002_more.sql:3 rls-missing", "db/0002_more.sql:5 grant-missing",],
        "not of the table that the topology lists, nor of one without the tenants' column"
    );
    assert!(said.out.contains("app_general and 1 more role(s) may do nothing with public.drafts"), "{said:?}");
    let wanted = "3 new table(s) of tenants, as topology.toml wants them";
    assert_eq!(tenants(&said), ("failed".to_owned(), wanted.to_owned()));

    // What the file or the topology gives is enough.
    place.write(
        "topology.toml",
        &TOPOLOGY.replace("[\"notes\"]", "[\"notes\", \"drafts\"]").replace("[\"lots\"]", "[\"lots\", \"entries\"]"),
    );
    let file = std::fs::read_to_string(place.folder.path().join("db/0002_more.sql")).unwrap();
    place.write("db/0002_more.sql", &format!("{file}ALTER TABLE ledger.entries ENABLE ROW LEVEL SECURITY;\n"));
    let said = review(&place, &["--format", "json"]);
    assert_eq!((said.code, tenants(&said)), (Some(0), ("held".to_owned(), wanted.to_owned())), "{said:?}");

    // Who names schemas is asked of those alone.
    let said = review(&place, &["--format", "json", "--tenant-schema", "ledger"]);
    assert!(findings(&said).contains(&"db/0002_more.sql:4 rls-missing".to_owned()), "{said:?}");
}

#[tokio::test]
async fn topology_that_cannot_be_read_is_unknown_and_one_without_tenants_is_not_asked() {
    let place = project(&TOPOLOGY.replace("owner", "ovner")).await;
    let said = review(&place, &["--format", "json"]);
    assert_eq!((said.code, findings(&said)), (Some(4), vec!["- tenants-unknown".to_owned()]), "{said:?}");
    assert_eq!(tenants(&said).0, "unknown");
    place.write("topology.toml", "[redis]\ndefault_user = \"off\"\n");
    let said = review(&place, &["--format", "json"]);
    assert_eq!((said.code, tenants(&said).0), (Some(0), "skipped".to_owned()), "{said:?}");
}
