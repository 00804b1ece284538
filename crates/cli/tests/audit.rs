//! `audit`: exit codes and forms; what it finds is tested with the capability.

use serde_json::Value;

use crate::place::Place;

/// A database with the topology of two tenants, and a table for each.
async fn applied() -> (Place, String) {
    let place = Place::new().await;
    let name = place.database.database.clone();
    place.write(
        "topology.toml",
        &format!(
            "suffix = \"_app\"\n[database]\nowner = \"{name}_owner\"\n[tenants]\nlist = [\"a\", \"b\"]\n[schemas]\n\
             \"{{tenant}}\" = {{}}\n[roles.\"{name}_{{tenant}}{{suffix}}\"]\nkind = \"runtime\"\n\
             access = {{ \"{{tenant}}\" = \"all\" }}\n"
        ),
    );
    let said = place.call(&["topology", "apply"]);
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    let tables = "CREATE TABLE a.notes (id int); CREATE TABLE b.notes (id int)";
    place.execute(&format!("SET ROLE {name}_owner; {tables}")).await;
    (place, name)
}

#[tokio::test]
async fn exit_code_says_whether_something_was_found_at_the_level() {
    let (place, name) = applied().await;
    let said = place.call(&["audit"]);
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    assert!(said.out.contains("no errors, no warnings"), "{}", said.out);
    assert!(said.out.contains(" roles, 2 schemas, 2 relations"), "{}", said.out);

    // A grant in a schema that the role does not see.
    place.execute(&format!("GRANT SELECT ON b.notes TO {name}_a_app")).await;
    let path = format!("`{name}_a_app` -> SELECT on `b.notes`");
    let said = place.call(&["audit"]);
    assert_eq!(said.code, Some(1), "{}\n{}", said.out, said.err);
    assert!(said.out.contains("warning[table-grant]") && said.out.contains(&path), "{}", said.out);
    assert!(said.out.contains(&format!("mend: REVOKE SELECT ON TABLE b.notes FROM {name}_a_app;")), "{}", said.out);
    assert_eq!(place.call(&["audit", "--level", "error"]).code, Some(0));

    place.execute(&format!("GRANT USAGE ON SCHEMA b TO {name}_a_app")).await;
    let said = place.call(&["--format", "json", "audit", "--level", "error"]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&json["version"], &json["findings"][1]["path"]), (&1.into(), &path.into()));
    let sarif: Value = serde_json::from_str(&place.call(&["--format", "sarif", "audit"]).out).unwrap();
    assert_eq!(sarif["runs"][0]["results"][1]["ruleId"], "table-grant");
}

#[tokio::test]
async fn what_cannot_be_audited_is_no_finding() {
    let place = Place::new().await;
    let said = place.call(&["audit"]);
    assert_eq!(said.code, Some(2), "{}\n{}", said.out, said.err);
    assert!(said.err.contains("declares no topology"), "{}", said.err);
}
