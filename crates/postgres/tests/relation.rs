//! Tables are described as the catalogs have them, and rows travel between two databases byte for byte.

use futures_util::{SinkExt, StreamExt};
use pgrunbook_postgres::Session;
use pgrunbook_postgres::copy::{CopyError, RowSplitter, RowWriter, canonical};
use pgrunbook_postgres::relation::{
    Column, Filter, Generated, Identity, Shape, Table, TableKind, Travels, TypeKind, column_list, describe, select_list,
};
use pgrunbook_postgres::rowhash::RowSum;

/// Everything that does not travel as it is, in a schema of any name. The first type makes later OIDs differ.
const ZOO: &str = "
CREATE SCHEMA zoo; SET search_path = zoo;
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN moods AS mood[];
CREATE TYPE pair AS (one mood, many mood[], n int);
CREATE TYPE pairs AS RANGE (subtype = pair);
CREATE TYPE points_at AS (t regclass, n int);
CREATE TABLE animal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, gone int, feels mood NOT NULL, felt mood[], domain moods,
    made pair, many pair[], ranges pairs, several pairs_multirange, plain int[], amount numeric(10,2),
    refers regclass, refers_many regclass[], refers_in points_at, acl aclitem[],
    name varchar(20) COLLATE \"C\", doubled bigint GENERATED ALWAYS AS (id * 2) STORED);
ALTER TABLE animal DROP COLUMN gone;
CREATE TABLE keyless (a int, b int NOT NULL, UNIQUE (a), UNIQUE (b) DEFERRABLE);
CREATE UNIQUE INDEX ON keyless (b) WHERE b > 0;
CREATE TABLE \"Other Key\" (a int NOT NULL, b int NOT NULL, c text, UNIQUE (b, a) INCLUDE (c));
CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE UNLOGGED TABLE fleeting (a text);
INSERT INTO animal (feels, felt, domain, made, many, ranges, several, plain, amount, refers, refers_many, refers_in, name)
SELECT 'ok', '{ok,NULL,sad}', '{sad}', ('ok', '{sad,ok}', n)::pair, ARRAY[('sad', NULL, 1)::pair, NULL],
    pairs(('ok', '{sad}', 1)::pair, ('ok', '{ok}', 2)::pair),
    pairs_multirange(pairs(('sad', '{ok}', 1)::pair, NULL)), '{1,2}', n / 3.0,
    'keyless', '{keyless,animal}', ('animal', n)::points_at, 'n' || n
FROM generate_series(1, 50) AS n;
INSERT INTO animal (feels) VALUES ('sad');
RESET search_path;";

async fn zoo(before: &str) -> Session {
    let session = Session::connect(&crate::database().await, "test").await.unwrap();
    session.execute(before).await.unwrap();
    session.execute(ZOO).await.unwrap();
    session
}

fn column<'a>(table: &'a Table, name: &str) -> &'a Column {
    table.columns.iter().find(|column| column.name == name).unwrap()
}

fn named<'a>(tables: &'a [Table], name: &str) -> &'a Table {
    tables.iter().find(|table| table.name == name).unwrap()
}

#[tokio::test]
async fn tables_are_described() {
    let session = zoo("").await;
    session.execute("SET search_path = zoo, public").await.unwrap();
    let tables = describe(&session, "zoo", Filter::All).await.unwrap();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["Other Key", "animal", "fleeting", "keyless", "parted", "parted_low"]);
    assert_eq!(session.value("SHOW search_path").await.unwrap(), "zoo, public", "the setting is as it was");
    let some = describe(&session, "zoo", Filter::Named(&["parted".to_owned(), "no".to_owned()])).await.unwrap();
    assert_eq!(some.len(), 1);

    assert_eq!(named(&tables, "parted").kind, TableKind::Partitioned);
    let root = TableKind::Leaf { root_schema: "zoo".to_owned(), root: "parted".to_owned() };
    assert_eq!(named(&tables, "parted_low").kind, root);
    assert!(named(&tables, "fleeting").is_unlogged && !named(&tables, "keyless").is_unlogged);
    assert_eq!(named(&tables, "keyless").key, None, "NULLs, a deferrable and a partial index identify nothing");
    assert_eq!(named(&tables, "Other Key").key.as_ref().unwrap().columns, ["b", "a"]);
    assert_eq!(named(&tables, "Other Key").sql(), "zoo.\"Other Key\"");

    let animal = named(&tables, "animal");
    assert!(animal.key.as_ref().unwrap().is_primary && animal.pages > 0 && animal.bytes >= animal.pages * 8192);
    let id = column(animal, "id");
    assert_eq!((id.identity, id.type_name.as_str(), id.number), (Identity::Always, "bigint", 1));
    let felt = column(animal, "felt");
    assert_eq!((felt.type_name.as_str(), felt.type_kind, felt.number), ("zoo.mood[]", TypeKind::Array, 4));
    assert_eq!(column(animal, "amount").type_name, "numeric(10,2)");
    assert_eq!(column(animal, "name").collation.as_deref(), Some("pg_catalog.\"C\""));
    assert_eq!(column(animal, "doubled").generated, Generated::Stored);
    let travel = |travels| {
        animal
            .columns
            .iter()
            .filter(|column| column.travels == travels)
            .map(|column| column.name.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(travel(Travels::Text), ["refers", "refers_many", "refers_in", "acl"]);
    assert_eq!(travel(Travels::Not), ["doubled"]);

    let moods = || Shape::Array(Box::new(Shape::Plain));
    let pair = || Shape::Record(vec![Shape::Plain, moods(), Shape::Plain]);
    let range = || Shape::Range(Box::new(pair()));
    for (name, shape) in [
        ("feels", Shape::Plain),
        ("felt", moods()),
        ("domain", moods()),
        ("made", pair()),
        ("many", Shape::Array(Box::new(pair()))),
        ("ranges", range()),
        ("several", Shape::Multirange(Box::new(range()))),
        ("plain", Shape::Plain),
        ("refers_in", Shape::Plain),
    ] {
        assert_eq!(column(animal, name).shape, shape, "{name}");
    }
}

/// The rows of a table as they travel, and their sum.
async fn read(session: &Session, table: &Table) -> (Vec<u8>, RowSum) {
    session.execute("SET search_path = zoo").await.unwrap();
    let sql =
        format!("COPY (SELECT {} FROM ONLY {}) TO STDOUT (FORMAT binary)", select_list(&table.columns), table.sql());
    let shapes: Vec<Shape> = table.travelling().map(|column| column.shape.clone()).collect();
    let mut splitter = RowSplitter::new(shapes.len() as u16);
    let (mut bytes, mut sum, mut scratch) = (Vec::new(), RowSum::default(), Vec::new());
    let mut stream = std::pin::pin!(session.client().copy_out(&sql).await.unwrap());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.unwrap();
        bytes.extend_from_slice(&chunk);
        splitter
            .push(&chunk, |row| {
                sum.add(canonical(row, &shapes, &mut scratch)?);
                Ok::<_, CopyError>(())
            })
            .unwrap();
    }
    splitter.finish().unwrap();
    (bytes, sum)
}

#[tokio::test]
async fn rows_of_users_types_hash_the_same_in_two_databases() {
    let one = zoo("").await;
    let two = zoo("CREATE TYPE earlier AS ENUM ('a'); CREATE TABLE earlier_table (e earlier[])").await;
    let tables = [describe(&one, "zoo", Filter::All).await.unwrap(), describe(&two, "zoo", Filter::All).await.unwrap()];
    let (bytes, sum) = read(&one, named(&tables[0], "animal")).await;
    let (other_bytes, other_sum) = read(&two, named(&tables[1], "animal")).await;
    assert_eq!(sum.rows, 51);
    assert_ne!(bytes, other_bytes, "the OIDs differ, or this proves nothing");
    assert_eq!(sum, other_sum);
    two.execute("UPDATE zoo.animal SET many[1] = ('ok', NULL, 1)::zoo.pair WHERE id = 7").await.unwrap();
    assert_ne!(read(&two, named(&tables[1], "animal")).await.1, sum);
}

#[tokio::test]
async fn written_rows_are_what_the_server_reads() {
    let session = Session::connect(&crate::database().await, "test").await.unwrap();
    session
        .execute(
            "CREATE TABLE t (a smallint, b int, c bigint, d float8, e bool, f text, g bytea, h date, i timestamptz, j json,
                 k jsonb, l uuid, m numeric); SET timezone = 'UTC'",
        )
        .await
        .unwrap();
    let numbers = [
        "0",
        "-0.00",
        "1",
        "10000",
        "9999.9999",
        "12345678901234567890.123456789",
        "0.000000012",
        "-1e-10",
        "1.5e20",
        "2e4",
        "00012.50",
        "NaN",
        "Infinity",
        "-Infinity",
        "100000000",
        "0.1000",
        "5e-16383",
        ".5",
        "7.",
    ];
    let mut writer = RowWriter::new(13);
    for number in numbers {
        writer.begin_row();
        writer.i16(-1);
        writer.i32(i32::MIN);
        writer.i64(i64::MAX);
        writer.f64(0.1);
        writer.bool(true);
        writer.text("naïve");
        writer.bytea(&[0, 255]);
        writer.date(-1);
        writer.timestamp(1);
        writer.json("{\"b\" : 1}");
        writer.jsonb("{\"b\" : 1}");
        writer.uuid([7; 16]);
        writer.numeric(number).unwrap();
        writer.end_row().unwrap();
    }
    writer.begin_row();
    (0..13).for_each(|_| writer.null());
    writer.end_row().unwrap();
    let first = writer.take();
    let mut sink = std::pin::pin!(session.client().copy_in("COPY t FROM STDIN (FORMAT binary)").await.unwrap());
    sink.send(first).await.unwrap();
    sink.send(writer.finish()).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), numbers.len() as u64 + 1);
    let row = "SELECT (t.*)::text FROM t WHERE m = 1";
    assert_eq!(
        session.value(row).await.unwrap(),
        "(-1,-2147483648,9223372036854775807,0.1,t,naïve,\"\\\\x00ff\",1999-12-31,\"2000-01-01 00:00:00.000001+00\",\
         \"{\"\"b\"\" : 1}\",\"{\"\"b\"\": 1}\",07070707-0707-0707-0707-070707070707,1)"
    );
    for number in numbers {
        // As text, so that the scale counts, and bit by bit.
        let sql = format!(
            "SELECT count(*) FROM t WHERE m::text = '{number}'::numeric::text AND numeric_send(m) = numeric_send('{number}')"
        );
        assert_eq!(session.value(&sql).await.unwrap(), "1", "{number}");
    }
    let short = RowWriter::new(1).end_row();
    assert_eq!(short, Err(CopyError::FieldCount { expected: 1, found: 0 }));
}

#[tokio::test]
async fn column_list_leaves_out_what_the_select_list_does() {
    let session = zoo("").await;
    let tables = describe(&session, "zoo", Filter::Named(&["animal".to_owned()])).await.unwrap();
    let (read, written) = (select_list(&tables[0].columns), column_list(&tables[0].columns));
    assert_eq!(read.replace("::pg_catalog.text", ""), written);
    assert!(read.contains("refers::pg_catalog.text, ") && !read.contains("doubled"), "{read}");
}
