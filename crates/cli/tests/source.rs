//! `source`, as it is typed.

use crate::place::Place;

async fn provisioned() -> Place {
    let place = Place::new().await;
    let name = place.database.database.clone();
    place.write(
        "pgrunbook.toml",
        "[project]\nenvironment = \"local\"\n[targets.main]\nurl = \"env:DATABASE_URL\"\n[environments.local]\n\
         [environments.production]\nprotected = true\n",
    );
    place.write(
        "topology.toml",
        &format!(
            "[database]\nowner = \"{name}_owner\"\n[schemas]\nshared = {{}}\n[roles.{name}_app]\nkind = \"runtime\"\n\
             [sources]\nregistry = \"shared.sources\"\nroles = [\"{name}_app\"]\nchain = [\"db/source\"]\n"
        ),
    );
    place.write("db/source/1_items.sql", "CREATE TABLE items (id int);\n");
    place.call(&["provision"]).done();
    place
}

#[tokio::test]
async fn sources_are_added_listed_and_resolved() {
    let place = provisioned().await;
    assert_eq!(place.call(&["source", "list"]).done().out, "No source is registered.\n");
    let said = place.call(&["source", "add", "Profile-7"]).done();
    assert!(said.out.contains("  db/source@src_profile_7: 1\nsrc_profile_7 made, 1 migration(s), "), "{}", said.out);
    assert_eq!(place.call(&["source", "add", "Profile-7"]).done().out, "src_profile_7 was there.\n");
    place.call(&["source", "add", "\"; drop schema x", "--format", "json"]).done();
    let listed = "\"; drop schema x  src____drop_schema_x\nProfile-7         src_profile_7\n";
    assert_eq!(place.call(&["source", "list", "--check"]).done().out, listed);
    assert_eq!(place.call(&["source", "resolve", "Profile-7"]).done().out, "src_profile_7\n");
    let said = place.call(&["source", "resolve", "Profile-7", "--format", "json"]).done();
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(answer["search_path"], "SET LOCAL search_path = src_profile_7, public");
    place.call(&["topology", "plan", "--check"]).done();
    let said = place.call(&["audit"]).done();
    assert!(!said.out.contains("src_"), "{}", said.out);
    place.execute("CREATE SCHEMA src_old").await;
    let said = place.call(&["source", "list", "--check", "--format", "json"]);
    assert_eq!(said.code, Some(1));
    let listing: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(listing["unregistered"], serde_json::json!(["src_old"]));
    assert_eq!(listing["sources"][1]["schema"], "src_profile_7");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_says_what_to_do() {
    let place = provisioned().await;
    place.call(&["source", "add", "assets_1"]).done();
    let said = place.call(&["source", "resolve", "assets_2"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(
        said.err.contains("there is no source \"assets_2\" in shared.sources; did you mean \"assets_1\"?"),
        "{said:?}"
    );
    let said = place.call(&["source", "add", "Assets 1"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("two sources never share one. Nothing was changed."), "{said:?}");
    let said = place.call(&["source", "add", "b", "--environment", "production"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("is refused in production, which is protected; nothing was touched"), "{said:?}");
    place.call(&["source", "list", "--environment", "production"]).done();
    assert_eq!(place.value("SELECT count(*) FROM shared.sources").await, "1");
    let text = place.read("topology.toml");
    place.write("topology.toml", text.split("[sources]").next().unwrap());
    let said = place.call(&["source", "list"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("topology.toml declares no sources"), "{said:?}");
}
