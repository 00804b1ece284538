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

#[tokio::test]
async fn file_is_a_side_beside_a_database_and_beside_another_file() {
    let place = Place::new().await;
    place
        .execute(
            "CREATE TABLE notes (id int PRIMARY KEY, body text, stars double precision);
             INSERT INTO notes SELECT i, 'note ' || i, i / 8.0 FROM generate_series(1, 300) AS i",
        )
        .await;
    let file = |name: &str| {
        let file = rusqlite::Connection::open(place.path(name)).unwrap();
        file.execute_batch(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT, stars REAL);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             INSERT INTO notes SELECT i, 'note ' || i, i / 8.0 FROM n",
        )
        .unwrap();
        file
    };
    let (_first, second) = (file("first.sqlite"), file("second.sqlite"));
    for (a, b) in [("first.sqlite", "main"), ("main", "first.sqlite"), ("first.sqlite", "second.sqlite")] {
        let said = place.call(&["parity", a, b]);
        assert!(said.code == Some(0) && said.out.contains("notes: 300 rows"), "{a} {b}: {said:?}");
    }
    second.execute_batch("UPDATE notes SET stars = stars + 1e-9 WHERE id = 7; DELETE FROM notes WHERE id = 9").unwrap();
    for (a, b) in [("first.sqlite", "second.sqlite"), ("main", "second.sqlite")] {
        let said = place.call(&["parity", a, b]);
        assert_eq!(said.code, Some(1), "{a} {b}: {said:?}");
        for line in ["id = 7:", "id = 9: missing in B"] {
            assert!(said.out.contains(line), "{a} {b} {line}: {}", said.out);
        }
    }
    // A file is not repaired, and nobody is first told what would be done to it.
    for more in [&["--repair"][..], &["--repair", "--yes"]] {
        let said = place.call(&[&["parity", "main", "second.sqlite"], more].concat());
        assert!(said.code == Some(2) && said.err.contains("a repair writes to a database only"), "{said:?}");
        assert_eq!(said.out, "", "nothing was compared");
    }
    assert_eq!(second.query_row("SELECT count(*) FROM notes", [], |row| row.get::<_, i64>(0)).unwrap(), 299);
    place.call(&["parity", "second.sqlite", "main", "--repair", "--yes"]).done();
    assert_eq!(place.value("SELECT count(*) FROM notes").await, "299");
    let said = place.call(&["parity", "first.sqlite", "nowhere.sqlite"]);
    assert!(said.code == Some(2) && said.err.contains("nowhere.sqlite"), "{said:?}");
    assert!(!place.path("nowhere.sqlite").exists(), "a side that is looked at is not made");
}

#[tokio::test]
async fn samples_are_read_as_the_role_that_is_named() {
    let place = Place::new().await;
    let (database, role) = (&place.database.database, format!("{}_app", place.database.database));
    place
        .execute(&format!(
            "CREATE TABLE notes (id int PRIMARY KEY, body text); INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 40) AS i;
             CREATE SCHEMA health; CREATE TABLE health.notes (LIKE notes INCLUDING ALL);
             INSERT INTO health.notes SELECT * FROM notes;
             CREATE ROLE {role}; ALTER ROLE {role} IN DATABASE {database} SET search_path = health;
             GRANT USAGE ON SCHEMA health TO {role}"
        ))
        .await;
    let sides = ["parity", "main", "main", "--schema-b", "health"];
    let sampled = ["--samples", "10", "--role", &role];
    let call = |more: &[&str]| place.call(&[&sides, more].concat());
    // The operator sees the same on both sides; the application may not read its table.
    assert_eq!(call(&[]).code, Some(0));
    let said = call(&sampled);
    assert_eq!(said.code, Some(1), "{said:?}");
    for words in ["same    notes: 40 rows", &format!("read as {role} are not those of A"), "SQLSTATE 42501"] {
        assert!(said.out.contains(words), "{words}: {said:?}");
    }
    place.execute(&format!("GRANT SELECT ON health.notes TO {role}")).await;
    let said = call(&sampled);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.out.contains(&format!("rows of 1 tables read as {role} are those of A (search_path health)")),
        "{said:?}"
    );
    let json: Value =
        serde_json::from_str(call(&[&["--format", "json"], &sampled[..]].concat()).out.lines().last().unwrap())
            .unwrap();
    assert_eq!(
        (json["role"].as_str(), json["wrong"].as_array().map(Vec::len)),
        (Some(role.as_str()), Some(0)),
        "{json}"
    );
    assert!(json["rows"].as_u64() > Some(0), "{json}");
    for half in [&sampled[..2], &sampled[2..]] {
        assert_eq!(call(half).code, Some(2), "one without the other says nothing");
    }
    place.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
