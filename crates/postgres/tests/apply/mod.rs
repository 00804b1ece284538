//! What is applied is what was done, exactly once, or nothing is.

mod early;
mod pair;
mod random;
mod types;

use pgrunbook_postgres::apply::{Applier, ApplyError, Options, PassOver, Rename, text_only_columns};
use pgrunbook_postgres::pgoutput::{Change, Event};
use pgrunbook_postgres::{Lsn, Session, Snapshot};

use pair::{Pair, cluster, rows};

const NOTES: &str = "CREATE TABLE note (id bigint PRIMARY KEY, body text, n int DEFAULT 0)";

#[tokio::test]
async fn changes_of_rows_arrive() {
    for binary in [true, false] {
        let mut pair = Pair::new(NOTES).await;
        pair.binary = binary;
        let mut applier = pair.open().await;
        pair.carries(
            &mut applier,
            &["INSERT INTO note SELECT i, 'é\\' || chr(9) || i, i FROM generate_series(1, 100) AS i"],
        )
        .await;
        pair.carries(
            &mut applier,
            &[
                "UPDATE note SET n = n + 1 WHERE id < 50",
                "UPDATE note SET body = NULL WHERE id = 7; DELETE FROM note WHERE id = 8",
                "DELETE FROM note WHERE id = 7; INSERT INTO note VALUES (7, 'again', 1)",
                "INSERT INTO note VALUES (200, '', 1); DELETE FROM note WHERE id = 200",
            ],
        )
        .await;
        let position = applier.position();
        assert_eq!((position.transactions, position.changes), (5, 100 + 49 + 2 + 2 + 2));
    }
}

#[tokio::test]
async fn keys_are_exchanged_and_unique_values_too() {
    let mut pair = Pair::new(
        "CREATE TABLE seat (id int PRIMARY KEY, place int UNIQUE, body text);
         ALTER TABLE seat ALTER body SET STORAGE EXTERNAL;
         CREATE TABLE late (id int PRIMARY KEY, place int UNIQUE DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE span (id int PRIMARY KEY, during int4range, EXCLUDE USING gist (during WITH &&))",
    )
    .await;
    let mut applier = pair.open().await;
    pair.carries(
        &mut applier,
        &[
            "INSERT INTO seat SELECT i, i, repeat('x', 5000) FROM generate_series(1, 20) AS i",
            "INSERT INTO late SELECT i, i FROM generate_series(1, 20) AS i",
            "INSERT INTO span SELECT i, int4range(i * 10, i * 10 + 10) FROM generate_series(1, 20) AS i",
        ],
    )
    .await;
    let exchange = |table: &str, column: &str, other: &str| {
        format!(
            "BEGIN; UPDATE {table} SET {column} = {other} WHERE id = 1; UPDATE {table} SET {column} = 1 WHERE id = 2;
             UPDATE {table} SET {column} = 2 WHERE {column} = {other}; COMMIT"
        )
    };
    pair.carries(
        &mut applier,
        &[
            // A value goes round, in one batch; the body is not sent.
            &exchange("seat", "place", "-1"),
            "BEGIN; UPDATE late SET place = 21 - place; COMMIT",
            "UPDATE span SET during = 'empty' WHERE id = 1; UPDATE span SET during = '[10,20)' WHERE id = 2;
             UPDATE span SET during = '[20,30)' WHERE id = 1",
        ],
    )
    .await;
    // Keys: with the body unchanged, then with all of the row sent.
    pair.carries(&mut applier, &[&exchange("seat", "id", "-1"), &exchange("late", "id", "-1")]).await;
    pair.carries(&mut applier, &["UPDATE seat SET id = id + 100, body = 'short' WHERE id > 10"]).await;
    pair.carries(
        &mut applier,
        &["DELETE FROM seat WHERE place = 5; INSERT INTO seat VALUES (50, 5, 'new'); UPDATE seat SET place = 55 WHERE id = 50"],
    )
    .await;
}

#[tokio::test]
async fn value_that_was_not_sent_stays() {
    for binary in [true, false] {
        let mut pair = Pair::new(
            "CREATE TABLE big (id int PRIMARY KEY, one text, two text, n int);
             ALTER TABLE big ALTER one SET STORAGE EXTERNAL, ALTER two SET STORAGE EXTERNAL;
             CREATE TABLE whole (one text, n int); ALTER TABLE whole REPLICA IDENTITY FULL;
             ALTER TABLE whole ALTER one SET STORAGE EXTERNAL",
        )
        .await;
        pair.binary = binary;
        let mut applier = pair.open().await;
        pair.carries(
            &mut applier,
            &[
                "INSERT INTO big SELECT i, repeat('a', 9000), repeat('b', 9000), i FROM generate_series(1, 9) AS i",
                "INSERT INTO whole VALUES (repeat('a', 9000), 1)",
            ],
        )
        .await;
        pair.carries(
            &mut applier,
            &[
                "UPDATE big SET n = n + 1",
                "UPDATE big SET one = repeat('c', 9000) WHERE id < 5",
                "UPDATE big SET two = 'short' WHERE id > 3",
                "UPDATE big SET id = -id WHERE id IN (1, 4, 9)",
                "INSERT INTO big VALUES (100, repeat('d', 9000), repeat('e', 9000), 1)",
                "UPDATE big SET n = 5 WHERE id = 100",
                "UPDATE big SET id = 101 WHERE id = 100",
                "UPDATE whole SET n = 2",
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn truncation_keeps_its_place_among_the_changes() {
    let mut pair = Pair::new(
        "CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);
         CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)",
    )
    .await;
    let mut applier = pair.open().await;
    pair.carries(
        &mut applier,
        &[
            "INSERT INTO parent (body) VALUES ('a'), ('b'); INSERT INTO child VALUES (1, 1)",
            "TRUNCATE parent, child RESTART IDENTITY",
            "INSERT INTO parent (body) VALUES ('c'); INSERT INTO child VALUES (1, 1)",
            "BEGIN; TRUNCATE parent CASCADE; INSERT INTO parent (body) VALUES ('d'); COMMIT",
        ],
    )
    .await;
    assert_eq!(rows(&pair.target, "tenant.parent").await, [Some("(2,d)".to_owned())]);
}

#[tokio::test]
async fn identity_and_generated_columns_are_taken_as_they_are() {
    let mut pair = Pair::new(
        "CREATE TABLE item (id int PRIMARY KEY, serial int GENERATED ALWAYS AS IDENTITY (START 7), body text,
             double int GENERATED ALWAYS AS (id * 2) STORED);
         ALTER TABLE item ALTER body SET STORAGE EXTERNAL",
    )
    .await;
    let mut applier = pair.open().await;
    pair.carries(
        &mut applier,
        &["INSERT INTO item (id, body) SELECT i, repeat('x', 5000) FROM generate_series(1, 5) AS i"],
    )
    .await;
    pair.carries(
        &mut applier,
        &[
            "UPDATE item SET serial = DEFAULT WHERE id = 2",
            "UPDATE item SET body = 'y' WHERE id = 3",
            "UPDATE item SET id = 9 WHERE id = 4",
        ],
    )
    .await;
}

#[tokio::test]
async fn tables_without_a_key_are_matched_by_whole_rows() {
    for binary in [true, false] {
        let mut pair = Pair::new(
            "CREATE TABLE log (at int, doc json, place point, much numeric); ALTER TABLE log REPLICA IDENTITY FULL;
             CREATE TABLE append (body text);
             CREATE TABLE keyed (id int PRIMARY KEY, doc json); ALTER TABLE keyed REPLICA IDENTITY FULL",
        )
        .await;
        pair.binary = binary;
        let mut applier = pair.open().await;
        pair.carries(
            &mut applier,
            &[
                "INSERT INTO log SELECT i % 3, '{\"a\": 1}', '(1,2)', CASE i % 2 WHEN 0 THEN 1.0 ELSE 1.00 END
                     FROM generate_series(1, 12) AS i",
                "INSERT INTO log VALUES (NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL)",
                "INSERT INTO append VALUES ('a'), ('a'), (NULL)",
                "INSERT INTO keyed SELECT i, '[]' FROM generate_series(1, 5) AS i",
            ],
        )
        .await;
        pair.carries(
            &mut applier,
            &[
                "DELETE FROM log WHERE ctid IN (SELECT min(ctid) FROM log GROUP BY at)",
                "UPDATE log SET doc = '{\"b\": 2}' WHERE much::text = '1.00' AND at = 1",
                "UPDATE log SET at = at + 1 WHERE at = 1",
                "UPDATE log SET at = at + 1",
                "UPDATE keyed SET doc = '[1]' WHERE id = 2; UPDATE keyed SET id = 20 WHERE id = 3; DELETE FROM keyed WHERE id = 4",
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn columns_that_only_the_destination_has_keep_their_values() {
    let mut pair = Pair::new("CREATE TABLE note (id int PRIMARY KEY, place int UNIQUE)").await;
    let more =
        "ALTER TABLE tenant.note ADD mine text DEFAULT 'here', ADD twice int GENERATED ALWAYS AS (id * 2) STORED";
    pair.target.execute(more).await.unwrap();
    let mut applier = pair.open().await;
    pair.source.execute("INSERT INTO note VALUES (1, 1), (2, 2)").await.unwrap();
    pair.follow(&mut applier).await.unwrap();
    pair.target.execute("UPDATE tenant.note SET mine = 'kept' WHERE id = 2").await.unwrap();
    let exchange = "BEGIN; UPDATE note SET place = 0 WHERE id = 1; UPDATE note SET place = 1 WHERE id = 2;
        UPDATE note SET place = 2 WHERE id = 1; COMMIT";
    pair.source.execute(exchange).await.unwrap();
    pair.follow(&mut applier).await.unwrap();
    let found = rows(&pair.target, "tenant.note").await;
    assert_eq!(found, [Some("(1,2,here,2)".to_owned()), Some("(2,1,kept,4)".to_owned())]);
}

#[tokio::test]
async fn missing_row_stops_the_stream_and_is_named() {
    for (statement, key, what) in [
        ("UPDATE note SET n = 1 WHERE id IN (3, 5)", "id=5", "it is to be updated, and is not there"),
        ("DELETE FROM note WHERE id IN (3, 5)", "id=5", "it is to be deleted, and is not there"),
        ("UPDATE note SET id = 50 WHERE id = 5", "id=5", "it is to be deleted, and is not there"),
        (
            "INSERT INTO note VALUES (77, '', 0)",
            "Key (id)=(77) already exists.",
            "it is to be inserted, and another is in its place (duplicate key value violates unique constraint \"note_pkey\")",
        ),
    ] {
        let mut pair = Pair::new(NOTES).await;
        let mut applier = pair.open().await;
        pair.carries(&mut applier, &["INSERT INTO note SELECT i, 'x', 0 FROM generate_series(1, 10) AS i"]).await;
        pair.target.execute("DELETE FROM tenant.note WHERE id = 5; INSERT INTO tenant.note VALUES (77)").await.unwrap();
        let before = applier.position();
        pair.source.execute("INSERT INTO note VALUES (20, 'with it', 0)").await.unwrap();
        pair.source.execute(statement).await.unwrap();
        let events = pair.events().await;
        let commit_lsn = events.iter().rev().find_map(|event| match event {
            Event::Begin(begin) => Some(begin.commit_lsn),
            _ => None,
        });
        let mut result = Ok(());
        for event in events {
            result = applier.push(event).await;
        }
        let error = match result {
            Ok(()) => applier.flush().await.unwrap_err(),
            Err(error) => error,
        };
        let ApplyError::Conflict { table, key: named, what: said, lsn } = &error else { panic!("{error}") };
        assert_eq!((table.as_str(), named.as_str(), said.as_str(), Some(*lsn)), ("tenant.note", key, what, commit_lsn));
        assert!(matches!(applier.flush().await, Err(ApplyError::Stopped)));
        // The broken connection of the stopped applier must be gone for the lock; nothing of the batch is there.
        drop(applier);
        let again = pair.open().await;
        assert_eq!((again.position().lsn, again.position().changes), (before.lsn, before.changes));
        assert_eq!(pair.target.value("SELECT count(*) FROM tenant.note WHERE id = 20").await.unwrap(), "0");
    }
}

#[tokio::test]
async fn what_was_applied_is_not_applied_again() {
    let mut pair = Pair::new(NOTES).await;
    pair.source.execute("INSERT INTO note VALUES (1, 'a', 0)").await.unwrap();
    pair.source.execute("UPDATE note SET n = n + 1").await.unwrap();
    let mut events = pair.events().await;
    let mut applier = pair.open().await;
    for event in events.clone() {
        applier.push(event).await.unwrap();
    }
    let position = applier.flush().await.unwrap();
    drop(applier);
    pair.source.execute("UPDATE note SET n = n + 1").await.unwrap();
    events.extend(pair.events().await);
    let mut applier = pair.open().await;
    assert_eq!(applier.position().lsn, position.lsn);
    for event in events {
        applier.push(event).await.unwrap();
    }
    applier.flush().await.unwrap();
    pair.same().await;
    assert_eq!(applier.position().transactions, 3);
}

#[tokio::test]
async fn next_batch_is_taken_while_the_server_writes_one() {
    let mut pair = Pair::new(NOTES).await;
    let mut applier = Applier::open(&pair.to, Options { batch_rows: 1, ..pair.options() }).await.unwrap();
    pair.carries(&mut applier, &["INSERT INTO note VALUES (1, 'a', 0)"]).await;
    pair.source.execute("UPDATE note SET n = 1").await.unwrap();
    pair.source.execute("UPDATE note SET n = 2").await.unwrap();
    let events = pair.events().await;
    let (most, last) = events.split_at(events.len() - 1);
    pair.target.execute("BEGIN; LOCK TABLE tenant.note").await.unwrap();
    // The first is a batch, which cannot be written now; the second is taken but for its end.
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, apply(&mut applier, most)).await.expect("it does not wait for the server").unwrap();
    assert_eq!(applier.position().transactions, 1);
    pair.target.execute("COMMIT").await.unwrap();
    apply(&mut applier, last).await.unwrap();
    assert_eq!(applier.flush().await.unwrap().transactions, 3);
    pair.same().await;
}

#[tokio::test]
async fn batch_that_the_server_refuses_ends_all_that_came_after_it() {
    let mut pair = Pair::new(NOTES).await;
    let mut applier = Applier::open(&pair.to, Options { batch_rows: 1, ..pair.options() }).await.unwrap();
    pair.carries(&mut applier, &["INSERT INTO note VALUES (1, 'a', 0)"]).await;
    pair.target.execute("DELETE FROM tenant.note").await.unwrap();
    pair.source.execute("UPDATE note SET n = 1").await.unwrap();
    for id in 2..6 {
        pair.source.execute(&format!("INSERT INTO note VALUES ({id}, 'after it', 0)")).await.unwrap();
    }
    let error = pair.follow(&mut applier).await.unwrap_err();
    assert!(matches!(error, ApplyError::Conflict { .. }), "{error}");
    assert!(matches!(applier.flush().await, Err(ApplyError::Stopped)));
    assert!(rows(&pair.target, "tenant.note").await.is_empty());
    drop(applier);
    assert_eq!(pair.open().await.position().transactions, 1);
}

#[tokio::test]
async fn fence_is_committed_with_its_position() {
    let mut pair = Pair::new(NOTES).await;
    let mut applier = pair.open().await;
    pair.source.execute("INSERT INTO note VALUES (1, 'a', 0)").await.unwrap();
    pair.source.execute("SELECT pg_logical_emit_message(true, 'pgrunbook', 'fence:f-1')").await.unwrap();
    for event in pair.events().await {
        applier.push(event).await.unwrap();
    }
    // Without a flush.
    pair.same().await;
    let position = applier.position();
    assert_eq!((position.marker.as_deref(), position.durable), (Some("f-1"), position.lsn));
    let row = pair.target.simple("SELECT marker, lsn FROM pgrunbook.stream").await.unwrap().remove(0).rows.remove(0);
    assert_eq!(row, [Some("f-1".to_owned()), Some(position.lsn.to_string())]);
    pair.carries(&mut applier, &["INSERT INTO note VALUES (2, 'a', 0)"]).await;
    assert_eq!(applier.position().marker.as_deref(), Some("f-1"));
}

#[tokio::test]
async fn what_the_other_direction_wrote_only_moves_the_position() {
    let mut pair = Pair::new(NOTES).await;
    let options = Options { skip_applied_by: Some("tenant:reverse".to_owned()), ..pair.options() };
    let mut applier = Applier::open(&pair.to, options).await.unwrap();
    let tagged = |by: &str| {
        format!(
            "BEGIN; SELECT pg_logical_emit_message(true, 'pgrunbook', 'applied:{by}');
             INSERT INTO note VALUES (length('{by}'), '{by}', 0); COMMIT"
        )
    };
    pair.source.execute(&tagged("tenant:reverse")).await.unwrap();
    pair.follow(&mut applier).await.unwrap();
    assert!(rows(&pair.target, "tenant.note").await.is_empty());
    let skipped = applier.position();
    assert!(skipped.durable < skipped.lsn && skipped.transactions == 0);
    // Nothing was written for it: else the two directions would tell each other for ever.
    let written = "SELECT lsn FROM pgrunbook.stream";
    assert_eq!(pair.target.value(written).await.unwrap(), "0/0");
    assert_eq!(applier.settle().await.unwrap().durable, skipped.lsn);
    assert_eq!(pair.target.value(written).await.unwrap(), skipped.lsn.to_string());
    pair.source.execute(&tagged("other:reverse")).await.unwrap();
    pair.follow(&mut applier).await.unwrap();
    assert_eq!(rows(&pair.target, "tenant.note").await.len(), 1);
}

#[tokio::test]
async fn what_is_applied_carries_the_tag_first() {
    let mut pair = Pair::new(NOTES).await;
    // The other direction, by the same means.
    let slot = "SELECT pg_create_logical_replication_slot(current_database()::text, 'pgoutput', true)";
    pair.target.execute(slot).await.unwrap();
    pair.target.execute("CREATE PUBLICATION everything FOR TABLE tenant.note").await.unwrap();
    let mut applier = pair.open().await;
    pair.carries(&mut applier, &["INSERT INTO note VALUES (1, 'a', 0)", "INSERT INTO note VALUES (2, 'a', 0)"]).await;
    applier.settle().await.unwrap();
    std::mem::swap(&mut pair.source, &mut pair.target);
    let events = pair.events().await;
    let Event::Change(Change::Message { prefix, content }) = &events[1] else { panic!("{events:?}") };
    assert_eq!((prefix.as_str(), &content[..]), ("pgrunbook", b"applied:tenant:forward".as_slice()));
    let begun = events.iter().filter(|event| matches!(event, Event::Begin(_))).count();
    assert_eq!((begun, events.len()), (1, 5), "one transaction: {events:?}");
}

#[tokio::test]
async fn stream_has_one_applier() {
    let pair = Pair::new(NOTES).await;
    let first = pair.open().await;
    let impatient = Options { patience: std::time::Duration::ZERO, ..pair.options() };
    let error = Applier::open(&pair.to, impatient).await.err().unwrap();
    let ApplyError::Busy { stream, pid } = &error else { panic!("{error}") };
    assert_eq!((stream.as_str(), pid), ("tenant:forward", &first.backend_pid().to_string()));
    drop(first);
    pair.open().await;
}

#[tokio::test]
async fn position_that_somebody_moved_stops_the_applier() {
    let mut pair = Pair::new(NOTES).await;
    let mut applier = pair.open().await;
    pair.target.execute("UPDATE pgrunbook.stream SET lsn = '0/7'").await.unwrap();
    pair.source.execute("INSERT INTO note VALUES (1, 'a', 0)").await.unwrap();
    let error = pair.follow(&mut applier).await.unwrap_err();
    assert!(matches!(error, ApplyError::Usurped { expected: Lsn(0), .. }), "{error}");
    assert!(rows(&pair.target, "tenant.note").await.is_empty());
}

#[tokio::test]
async fn role_that_may_not_be_replica_is_told_which_grant() {
    let cluster = cluster().await;
    let to = cluster.fresh_database("target").await.unwrap();
    let role = format!("applier_{}", to.database);
    let session = Session::connect(&to, "test").await.unwrap();
    session
        .execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'p'; GRANT CREATE ON DATABASE {} TO {role}", to.database))
        .await
        .unwrap();
    let mut as_role = to.clone();
    (as_role.user, as_role.password) = (role.clone(), Some("p".to_owned()));
    let options = || Options::new("t:forward", Rename::default());
    let error = Applier::open(&as_role, options()).await.err().unwrap();
    assert!(
        error.to_string().contains(&format!("GRANT SET ON PARAMETER session_replication_role TO {role}")),
        "{error}"
    );
    session.execute(&format!("GRANT SET ON PARAMETER session_replication_role TO {role}")).await.unwrap();
    Applier::open(&as_role, options()).await.unwrap();
}

#[tokio::test]
async fn changed_table_stops_the_stream_before_its_transaction() {
    for (change, told) in [
        ("ALTER TABLE note ADD more int", "column `more` added"),
        ("ALTER TABLE note DROP body", "column `body` dropped or renamed"),
        ("ALTER TABLE note ALTER n TYPE bigint", "column `n` has another type (OID 20, modifier -1; before: 23, -1)"),
        ("ALTER TABLE note REPLICA IDENTITY FULL", "replica identity full instead of default"),
        ("ALTER TABLE note RENAME TO remark", "renamed from public.note"),
        (
            "DROP TABLE note; CREATE TABLE note (id bigint PRIMARY KEY, body text, n int DEFAULT 0)",
            "dropped and made anew",
        ),
    ] {
        let mut pair = Pair::new(NOTES).await;
        let mut applier = pair.open().await;
        pair.carries(&mut applier, &["INSERT INTO note VALUES (1, 'a', 0)"]).await;
        pair.source.execute("INSERT INTO note VALUES (2, 'before', 0)").await.unwrap();
        pair.source.execute("CREATE TABLE other (id int PRIMARY KEY)").await.unwrap();
        pair.target.execute("CREATE TABLE tenant.other (id int PRIMARY KEY)").await.unwrap();
        let table = if change.contains("RENAME") { "remark" } else { "note" };
        pair.source
            .execute(&format!(
                "BEGIN; {change}; INSERT INTO other VALUES (1); INSERT INTO {table} (id) VALUES (3); COMMIT"
            ))
            .await
            .unwrap();
        let events = pair.events().await;
        let Err(error) = apply(&mut applier, &events).await else { panic!("{change} was not noticed") };
        let ApplyError::RelationChanged { before: Some(before), after, difference, lsn, .. } = &error else {
            panic!("{error}")
        };
        assert!(difference.contains(told), "{difference}");
        assert_eq!(before.columns.len(), 3);
        assert!(*lsn >= applier.position().lsn);
        assert_eq!(pair.target.value("SELECT string_agg(id::text, ',') FROM tenant.note").await.unwrap(), "1,2");
        assert!(rows(&pair.target, "tenant.other").await.is_empty(), "nothing of the transaction");
        drop(applier);
        // Also a process that never saw the table before.
        let mut applier = pair.open().await;
        assert!(matches!(apply(&mut applier, &events).await, Err(ApplyError::RelationChanged { before: Some(_), .. })));
        drop(applier);
        // Once the destination fits, a person's word lets it go on.
        let mut applier = pair.open().await;
        pair.target
            .execute(&format!(
                "SET search_path = tenant; {}",
                change
                    .replace("DROP TABLE note; CREATE", "CREATE")
                    .replace("TABLE note (id", "TABLE IF NOT EXISTS note (id")
            ))
            .await
            .unwrap();
        applier.accept(after).await.unwrap();
        apply(&mut applier, &events).await.unwrap();
        applier.flush().await.unwrap();
        let last = format!("SELECT count(*) FROM tenant.{table} WHERE id = 3");
        assert_eq!(pair.target.value(&last).await.unwrap(), "1");
    }
}

async fn apply(applier: &mut Applier, events: &[Event]) -> Result<(), ApplyError> {
    for event in events {
        applier.push(event.clone()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn destination_that_cannot_take_it_is_refused() {
    let mut pair = Pair::new(NOTES).await;
    pair.source.execute("INSERT INTO note VALUES (1, 'a', 0)").await.unwrap();
    let events = pair.events().await;
    for (change, told) in [
        ("ALTER TABLE tenant.note RENAME TO gone", "there is no table tenant.note"),
        (
            "ALTER TABLE tenant.gone RENAME TO note; ALTER TABLE tenant.note RENAME n TO m",
            "the destination has no column `n`",
        ),
        (
            "ALTER TABLE tenant.note RENAME m TO n; ALTER TABLE tenant.note DROP CONSTRAINT note_pkey",
            "it needs a unique index on exactly",
        ),
        (
            "ALTER TABLE tenant.note ADD PRIMARY KEY (id); ALTER TABLE tenant.note ALTER n TYPE float4",
            "binary form of another type",
        ),
    ] {
        pair.target.execute(change).await.unwrap();
        let mut applier = pair.open().await;
        let error = apply(&mut applier, &events).await.unwrap_err();
        assert!(error.to_string().contains(told), "{change}: {error}");
    }
    // As text it is converted.
    let mut pair = Pair::new(NOTES).await;
    pair.binary = false;
    pair.target.execute("ALTER TABLE tenant.note ALTER n TYPE float8").await.unwrap();
    let mut applier = pair.open().await;
    pair.carries(&mut applier, &["INSERT INTO note VALUES (1, 'a', 4)"]).await;
}

#[tokio::test]
async fn transaction_larger_than_memory_is_one_all_the_same() {
    let mut pair = Pair::new(NOTES).await;
    let options = || Options { held_bytes: 20_000, ..Options::new("tenant:forward", Rename::one("public", "tenant")) };
    let mut applier = Applier::open(&pair.to, options()).await.unwrap();
    pair.source.execute("INSERT INTO note VALUES (0, 'before', 0)").await.unwrap();
    pair.source
        .execute(
            "BEGIN; INSERT INTO note SELECT i, repeat('x', 100), 0 FROM generate_series(1, 2000) AS i;
             UPDATE note SET n = n + 1; UPDATE note SET id = id + 5000 WHERE id > 1000; DELETE FROM note WHERE id % 7 = 0; COMMIT",
        )
        .await
        .unwrap();
    let events = pair.events().await;
    let (most, last) = events.split_at(events.len() - 1);
    apply(&mut applier, most).await.unwrap();
    // Its end is not known: only what came before it is there, also after a flush.
    let position = applier.flush().await.unwrap();
    assert_eq!(position.transactions, 1);
    assert_eq!(rows(&pair.target, "tenant.note").await, [Some("(0,before,0)".to_owned())]);
    drop(applier);
    let mut applier = Applier::open(&pair.to, options()).await.unwrap();
    apply(&mut applier, most).await.unwrap();
    apply(&mut applier, last).await.unwrap();
    applier.flush().await.unwrap();
    pair.same().await;
}

#[tokio::test]
async fn what_a_copied_table_has_already_is_passed_over_and_nothing_else() {
    let mut pair = Pair::new(
        "CREATE TABLE note (id int PRIMARY KEY, body text, n int);
         ALTER TABLE note ALTER body SET STORAGE EXTERNAL;
         CREATE TABLE bag (body text); ALTER TABLE bag REPLICA IDENTITY FULL;
         CREATE TABLE other (id int PRIMARY KEY, n int)",
    )
    .await;
    for statement in [
        "INSERT INTO note SELECT i, repeat('x', 5000), 0 FROM generate_series(1, 9) AS i",
        "INSERT INTO bag VALUES ('a'), ('b')",
        "INSERT INTO other VALUES (1, 0); UPDATE other SET n = 1",
        "UPDATE note SET n = 1 WHERE id < 4",
        "UPDATE note SET id = 40 WHERE id = 4",
        "UPDATE note SET id = 50, body = 'short' WHERE id = 5",
        "DELETE FROM note WHERE id = 6",
        "TRUNCATE bag; INSERT INTO bag VALUES ('c')",
    ] {
        pair.source.execute(statement).await.unwrap();
    }
    // One is under way while the snapshot is taken, and comes later than others that it sees.
    let other = Session::connect(pair.source.options(), "test").await.unwrap();
    other.execute("BEGIN; UPDATE note SET n = n + 100 WHERE id = 8; INSERT INTO bag VALUES ('late')").await.unwrap();
    pair.source.execute("UPDATE note SET n = 2 WHERE id = 9").await.unwrap();
    pair.source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let snapshot = pair.source.value("SELECT pg_current_snapshot()").await.unwrap();
    // All rows of two tables, as the snapshot shows them; the third begins where the stream does.
    let copied = pair.source.simple("SELECT id, body, n FROM note").await.unwrap().remove(0);
    pair.source.execute("COMMIT").await.unwrap();
    for row in copied.rows {
        let value = |at: usize| row[at].as_deref().unwrap();
        let sql = format!("INSERT INTO tenant.note VALUES ({}, '{}', {})", value(0), value(1), value(2));
        pair.target.execute(&sql).await.unwrap();
    }
    pair.target.execute("INSERT INTO tenant.bag VALUES ('c')").await.unwrap();
    let until = pair.source.value("SELECT pg_current_wal_lsn()").await.unwrap().parse().unwrap();
    other.execute("COMMIT").await.unwrap();
    pair.source.execute("UPDATE note SET n = n + 1").await.unwrap();
    let pass_over = ["note", "bag"]
        .map(|table| PassOver {
            schema: "public".into(),
            table: table.into(),
            snapshot: Snapshot::parse(&snapshot).unwrap(),
            until,
        })
        .to_vec();
    let options = Options { pass_over, ..pair.options() };
    let mut applier = Applier::open(&pair.to, options).await.unwrap();
    pair.follow(&mut applier).await.unwrap();
    pair.same().await;
    // What the snapshot did not see is strict.
    pair.target.execute("DELETE FROM tenant.note WHERE id = 9").await.unwrap();
    pair.source.execute("UPDATE note SET n = n + 1").await.unwrap();
    assert!(matches!(pair.follow(&mut applier).await, Err(ApplyError::Conflict { .. })));
}

#[tokio::test]
async fn lost_connection_is_known_as_such_and_the_position_tells() {
    let mut pair = Pair::new(NOTES).await;
    let mut applier = pair.open().await;
    pair.carries(&mut applier, &["INSERT INTO note VALUES (1, 'a', 0)"]).await;
    pair.source.execute("INSERT INTO note VALUES (2, 'a', 0)").await.unwrap();
    let events = pair.events().await;
    pair.target.execute(&format!("SELECT pg_terminate_backend({})", applier.backend_pid())).await.unwrap();
    apply(&mut applier, &events).await.unwrap();
    let error = applier.flush().await.unwrap_err();
    assert!(error.may_pass(), "{error}");
    let mut applier = pair.open().await;
    apply(&mut applier, &events).await.unwrap();
    applier.flush().await.unwrap();
    pair.same().await;
}

#[tokio::test]
async fn columns_with_oids_forbid_binary() {
    let pair = Pair::new(
        "CREATE DOMAIN dom AS regclass[]; CREATE TYPE comp AS (a int, b regtype);
         CREATE TABLE t (id int PRIMARY KEY, a regclass, b dom, c comp[], d oid, e text)",
    )
    .await;
    let found = text_only_columns(&pair.source, "public").await.unwrap();
    let columns: Vec<_> = found.iter().map(|column| (column.column.as_str(), column.type_name.as_str())).collect();
    assert_eq!(columns, [("a", "regclass"), ("b", "dom"), ("c", "comp[]")]);
}
