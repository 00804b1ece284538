//! `parity`: exit codes and forms; what it finds is tested with the capability.

use pgrunbook_postgres::sandbox::url;
use serde_json::Value;

use crate::place::Place;

#[tokio::test]
async fn exit_code_says_whether_two_sides_are_the_same_and_repair_makes_them_so() {
    let mut place = Place::new().await;
    place.env.push(("LEGACY".to_owned(), url(&place.database)));
    place
        .execute(
            "CREATE TABLE notes (id int PRIMARY KEY, body text); INSERT INTO notes VALUES (1, 'one'), (2, 'two'), (3, NULL);
             CREATE SCHEMA health; CREATE TABLE health.notes (LIKE notes INCLUDING ALL);
             INSERT INTO health.notes SELECT * FROM notes",
        )
        .await;
    let call = |more: &[&str]| {
        let args = [&["parity", "env:LEGACY", "main", "--schema-b", "health"], more].concat();
        place.call(&args)
    };
    let said = call(&[]);
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    assert!(said.out.contains("same    notes: 3 rows"), "{}", said.out);

    place.execute("UPDATE health.notes SET body = 'zwei' WHERE id = 2; DELETE FROM health.notes WHERE id = 3").await;
    let said = call(&[]);
    assert_eq!(said.code, Some(1), "{}\n{}", said.out, said.err);
    for line in ["id = 2:", "body: A two", "B zwei", "id = 3: missing in B"] {
        assert!(said.out.contains(line), "{line}: {}", said.out);
    }
    let json: Value = serde_json::from_str(&call(&["--format", "json"]).out).unwrap();
    assert_eq!((&json["version"], &json["holds"], &json["differences"]), (&1.into(), &false.into(), &2.into()));
    let listed = json["tables"][0]["listed"].as_array().unwrap();
    assert_eq!(listed.iter().filter(|one| one["key_hash"].as_str().unwrap().len() == 32).count(), 2);

    // It says first what it would do.
    let untouched = "SELECT string_agg(id || ':' || xmin, ',') FROM health.notes WHERE id NOT IN (2, 3)";
    let before = place.value(untouched).await;
    let said = call(&["--repair"]);
    assert_eq!(said.code, Some(2), "{}\n{}", said.out, said.err);
    assert!(said.out.contains("repair notes: insert 1, update 1, delete 0"), "{}", said.out);
    assert_eq!(call(&[]).code, Some(1));
    let said = call(&["--repair", "--yes"]);
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    assert_eq!(place.value(untouched).await, before, "just the rows that differ were written");
    assert_eq!(call(&[]).code, Some(0));

    let said = call(&["--table", "nowhere"]);
    assert!(said.code != Some(0) && said.err.contains("there is no table nowhere"), "{said:?}");
    let said = place.call(&["parity", "main", "elsewhere"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
}
