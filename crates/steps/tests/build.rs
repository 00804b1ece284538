//! Keys, indexes and foreign keys come when their tables are ready, and once.

use std::collections::BTreeSet;
use std::sync::Mutex;

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::{ConnectOptions, Session};
use pgrunbook_steps::transfer::build::{BuildError, Building, Built, Kind, Object, build};
use tokio::sync::watch;

const TABLES: &str = "CREATE SCHEMA health; SET search_path = health;
CREATE TABLE person (id int NOT NULL, name text); CREATE TABLE note (id int NOT NULL, person int, body text);
INSERT INTO person SELECT n, 'p' || n FROM generate_series(1, 1000) n;
INSERT INTO note SELECT n, 1 + n % 1000, 'b' FROM generate_series(1, 5000) n;";

fn object(kind: Kind, name: &str, table: &str, sql: &str) -> Object {
    Object { kind, name: name.to_owned(), table: Some(table.to_owned()), sql: sql.to_owned() }
}

fn objects() -> Vec<Object> {
    vec![
        object(
            Kind::ForeignKey,
            "note_person",
            "note",
            "ALTER TABLE ONLY health.note ADD CONSTRAINT note_person FOREIGN KEY (person) REFERENCES health.person(id);",
        ),
        object(
            Kind::ForeignKey,
            "note_lax",
            "note",
            "ALTER TABLE ONLY health.note ADD CONSTRAINT note_lax FOREIGN KEY (id) REFERENCES health.person(id) NOT VALID;",
        ),
        object(Kind::Index, "note_body", "note", "CREATE INDEX note_body ON health.note USING btree (body)"),
        object(Kind::Index, "note_both", "note", "CREATE INDEX note_both ON health.note USING btree (body, person)"),
        object(
            Kind::Trigger,
            "t",
            "note",
            "CREATE TRIGGER t BEFORE UPDATE ON health.note FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ),
        object(
            Kind::Key,
            "person_pkey",
            "person",
            "ALTER TABLE ONLY health.person ADD CONSTRAINT person_pkey PRIMARY KEY (id)",
        ),
        object(
            Kind::Key,
            "note_pkey",
            "note",
            "ALTER TABLE ONLY health.note ADD CONSTRAINT note_pkey PRIMARY KEY (id)",
        ),
    ]
}

async fn tables() -> (ConnectOptions, Session) {
    let options = crate::bench::cluster().await.fresh_database("build").await.unwrap();
    let session = Session::connect(&options, "test").await.unwrap();
    session.execute(TABLES).await.unwrap();
    (options, session)
}

/// What was made and what was there, in order.
async fn built(options: &ConnectOptions, objects: &[Object]) -> Result<(Vec<String>, Vec<String>), BuildError> {
    let (made, there) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let tell = |built: &Built| {
        let list = if built.was_there { &there } else { &made };
        list.lock().unwrap().push(built.name.clone());
    };
    let cancel = Cancel::default();
    build(options, objects, Building { schema: "health", jobs: 2, cancel: &cancel, tell: &tell, ready: None }).await?;
    Ok((made.into_inner().unwrap(), there.into_inner().unwrap()))
}

#[tokio::test]
async fn everything_is_built_once_and_stays_as_valid_as_it_was() {
    let (options, session) = tables().await;
    let (made, _) = built(&options, &objects()).await.unwrap();
    assert_eq!(made.len(), 8, "each, and one foreign key once more when it is validated: {made:?}");
    let place = |name: &str| made.iter().position(|one| one == name).unwrap();
    assert!(place("note_pkey") < place("note_body") && place("person_pkey") < place("note_person"), "{made:?}");
    let valid = "SELECT string_agg(conname || ' ' || convalidated, ', ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(session.value(valid).await.unwrap(), "note_lax false, note_person true");
    let (made, there) = built(&options, &objects()).await.unwrap();
    assert!(made.is_empty() && there.len() == 9, "{made:?} {there:?}");
}

#[tokio::test]
async fn invalid_leftover_is_built_anew_and_a_foreign_key_is_validated() {
    let (options, session) = tables().await;
    built(&options, &objects()).await.unwrap();
    session
        .execute(
            "DROP TRIGGER t ON note; UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'note_body'::regclass;
             ALTER TABLE note DROP CONSTRAINT note_person;
             ALTER TABLE note ADD CONSTRAINT note_person FOREIGN KEY (person) REFERENCES person NOT VALID",
        )
        .await
        .unwrap();
    let (made, _) = built(&options, &objects()).await.unwrap();
    assert_eq!(made, ["note_body", "note_person", "t"]);
    let valid = "SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'note'::regclass";
    assert_eq!(session.value(valid).await.unwrap(), "t");
}

#[tokio::test]
async fn table_is_vacuumed_behind_its_indexes_and_before_its_foreign_keys() {
    let (options, session) = tables().await;
    let mut objects = objects();
    for table in ["note", "person"] {
        objects.insert(0, Object::vacuum("health", table.to_owned(), false));
    }
    let (order, _) = built(&options, &objects).await.unwrap();
    let at = |name: &str| order.iter().position(|built| built == name).unwrap();
    for built in ["note_pkey", "note_body", "note_both"] {
        assert!(at(built) < at("statistics of note"), "{order:?}");
    }
    assert!(at("person_pkey") < at("statistics of person"), "{order:?}");
    assert!(at("statistics of person").max(at("statistics of note")) < at("note_person"), "{order:?}");
    let visible = "SELECT bool_and(relallvisible = relpages AND relpages > 0) FROM pg_class
        WHERE relname IN ('note', 'person') AND relkind = 'r'";
    assert_eq!(session.value(visible).await.unwrap(), "t");
}

#[tokio::test]
async fn rows_that_contradict_are_named_and_the_rest_stays() {
    let (options, session) = tables().await;
    session.execute("INSERT INTO note VALUES (6000, 9999, 'orphan')").await.unwrap();
    let error = built(&options, &objects()).await.unwrap_err();
    assert!(matches!(&error, BuildError::Object { name, .. } if name == "note_person"), "{error}");
    session.execute("DELETE FROM note WHERE id = 6000").await.unwrap();
    let (made, _) = built(&options, &objects()).await.unwrap();
    assert_eq!(made, ["note_person", "t"]);
}

#[tokio::test]
async fn indexes_wait_for_their_table_only() {
    let (options, _) = tables().await;
    let (sender, ready) = watch::channel(BTreeSet::from(["note".to_owned()]));
    let (heard, mut hear) = tokio::sync::mpsc::unbounded_channel();
    let tell = |built: &Built| heard.send(built.name.clone()).unwrap();
    let cancel = Cancel::default();
    let objects = objects();
    let how = Building { schema: "health", jobs: 2, cancel: &cancel, tell: &tell, ready: Some(ready) };
    let building = build(&options, &objects, how);
    let feeding = async {
        let mut first: Vec<String> = Vec::new();
        for _ in 0..3 {
            first.push(hear.recv().await.unwrap());
        }
        sender.send_modify(|set| set.extend(["person".to_owned()]));
        first
    };
    let (built, first) = tokio::join!(building, feeding);
    built.unwrap();
    assert_eq!(first[0], "note_pkey");
    assert!(!first.contains(&"person_pkey".to_owned()), "{first:?}");

    // And where the rows never come, it says so.
    let (options, _) = tables().await;
    let (sender, ready) = watch::channel(BTreeSet::from(["note".to_owned()]));
    drop(sender);
    let how = Building { schema: "health", jobs: 2, cancel: &cancel, tell: &|_| {}, ready: Some(ready) };
    let error = build(&options, &objects, how).await.unwrap_err();
    assert!(matches!(&error, BuildError::NoRows { table } if table == "person"), "{error}");
}
