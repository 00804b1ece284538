//! Rows read without the driver, against real servers: the same rows, and the same errors.

use std::sync::mpsc;

use futures_util::StreamExt;
use pgrunbook_postgres::copy::{CopyError, CopyOut, RowSplitter};
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, PgError, Session};

use crate::replication::PATIENCE;

/// What ends the reading of rows here.
#[derive(Debug)]
enum End {
    Server(PgError),
    Format(CopyError),
    Mine(&'static str),
}

impl From<PgError> for End {
    fn from(error: PgError) -> Self {
        Self::Server(error)
    }
}

impl From<CopyError> for End {
    fn from(error: CopyError) -> Self {
        Self::Format(error)
    }
}

type Rows = Vec<Vec<u8>>;

/// The rows of a query, and the connection again.
pub async fn read(out: CopyOut, query: &str, columns: u16) -> (CopyOut, Rows) {
    let sql = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
    let each = |rows: &mut Rows, row: pgrunbook_postgres::copy::Row<'_>| {
        rows.push(row.bytes().to_vec());
        Ok::<(), End>(())
    };
    out.rows(&sql, columns, Rows::new(), each).await.unwrap()
}

/// The same by the driver.
async fn read_by_driver(session: &Session, query: &str, columns: u16) -> Rows {
    let sql = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
    let mut splitter = RowSplitter::new(columns);
    let mut rows = Rows::new();
    let mut stream = std::pin::pin!(session.client().copy_out(&sql).await.unwrap());
    while let Some(chunk) = stream.next().await {
        splitter
            .push(&chunk.unwrap(), |row| {
                rows.push(row.bytes().to_vec());
                Ok::<_, CopyError>(())
            })
            .unwrap();
    }
    splitter.finish().unwrap();
    rows
}

/// Waits until a query has this answer.
async fn until(session: &Session, sql: &str, answer: &str) {
    let wait = async {
        while session.value(sql).await.unwrap() != answer {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{sql} was never {answer}"));
}

fn backends(pid: i32) -> String {
    format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")
}

#[tokio::test]
async fn rows_are_those_that_the_driver_reads() {
    let options = crate::database().await;
    let session = Session::connect(&options, "test").await.unwrap();
    session.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE empty (a int)").await.unwrap();
    let mut out = CopyOut::connect(&options, "test").await.unwrap();
    let every_type = "SELECT n::smallint, n, n::bigint, n * 0.1::real, n / 3.0::float8, n / 7.0, n % 2 = 0, 'naïve ' || n,
        decode(md5(n::text), 'hex'), date '2024-02-29' + n, timestamp '2024-01-01' + n * interval '1 s', timestamptz 'infinity',
        interval '1 month' * n, time '12:00', timetz '12:00+02', md5(n::text)::uuid, jsonb_build_object('n', n), json '{}', xml '<a/>',
        inet '10.0.0.1', macaddr '08:00:2b:01:02:03', bit '101', varbit '1', point(n, 1), int4range(1, n + 1),
        ARRAY[n, NULL], ARRAY['a', NULL], 'ok'::mood, NULL::text, ROW(n, 'x')::text, to_tsvector('simple', 'a b'), money '1.50',
        pg_lsn '0/1', 'x'::\"char\", name 'n'
        FROM generate_series(1, 5000) AS n";
    for (query, columns, count) in [
        (every_type, 35, 5000),
        ("SELECT a FROM empty", 1, 0),
        ("SELECT FROM generate_series(1, 1000)", 0, 1000),
        ("SELECT n, repeat(chr(64 + n), 10000000) FROM generate_series(1, 2) AS n", 2, 2),
        // So much that the reader has begun to let it gather.
        ("SELECT n, md5(n::text) FROM generate_series(1, 100000) AS n", 2, 100_000),
    ] {
        let rows;
        (out, rows) = read(out, query, columns).await;
        assert_eq!(rows.len(), count, "{query}");
        assert!(rows == read_by_driver(&session, query, columns).await, "{query}");
    }
}

#[tokio::test]
async fn many_rows_in_a_snapshot_of_another_session() {
    let options = crate::database().await;
    let session = Session::connect(&options, "test").await.unwrap();
    session.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await.unwrap();
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let snapshot = session.value("SELECT pg_export_snapshot()").await.unwrap();
    let other = Session::connect(&options, "test").await.unwrap();
    other.execute("INSERT INTO t VALUES (2)").await.unwrap();
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{snapshot}'");
    let out = CopyOut::connect(&options, "reader of t").await.unwrap().execute(&begin).await.unwrap();
    let named = format!("SELECT application_name FROM pg_stat_activity WHERE pid = {}", out.backend_pid());
    assert_eq!(other.value(&named).await.unwrap(), "reader of t");
    let (out, rows) = read(out, "SELECT id FROM t", 1).await;
    assert_eq!(rows, [b"\0\x01\0\0\0\x04\0\0\0\x01"]);
    // Whoever is dropped while idle takes leave, and its transaction is over.
    let pid = out.backend_pid();
    drop(out);
    until(&other, &backends(pid), "0").await;
}

#[tokio::test]
async fn what_the_server_says_is_the_error() {
    let options = crate::database().await;
    let fails = async |sql: &str| {
        let out = CopyOut::connect(&options, "test").await.unwrap();
        let each = |count: &mut u64, _: pgrunbook_postgres::copy::Row<'_>| {
            *count += 1;
            Ok::<(), End>(())
        };
        match out.rows(sql, 1, 0, each).await {
            Err(End::Server(error)) => error,
            Err(other) => panic!("{sql}: {other:?}"),
            Ok((_, count)) => panic!("{sql}: {count} rows"),
        }
    };
    let code = async |sql: &str| fails(sql).await.sqlstate().unwrap_or_default().to_owned();
    assert_eq!(code("COPY nowhere TO STDOUT (FORMAT binary)").await, "42P01");
    // In the middle, when many rows have come.
    let late = "COPY (SELECT 1 / (100000 - n) FROM generate_series(1, 200000) AS n) TO STDOUT (FORMAT binary)";
    assert_eq!(code(late).await, "22012");
    // A text that is no COPY, and one of another format.
    let none = CopyOut::connect(&options, "test").await.unwrap();
    let ended = none.rows("SELECT 1", 1, (), |(), _| Ok::<(), End>(())).await.err().unwrap();
    assert!(matches!(ended, End::Server(PgError::Client(_))), "{ended:?}");
    let text = CopyOut::connect(&options, "test").await.unwrap();
    let ended = text.rows("COPY (SELECT 1) TO STDOUT", 1, (), |(), _| Ok::<(), End>(())).await.err().unwrap();
    assert!(matches!(ended, End::Format(CopyError::Signature)), "{ended:?}");

    let session = Session::connect(&options, "test").await.unwrap();
    const SAYS: &str =
        "CREATE FUNCTION says(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%', n; RETURN n; END $$";
    session.execute(SAYS).await.unwrap();
    let out = CopyOut::connect(&options, "test").await.unwrap();
    // A refused statement ends it; notices between rows do not.
    let (out, rows) = read(out, "SELECT says(n) FROM generate_series(1, 100) AS n", 1).await;
    assert_eq!(rows.len(), 100);
    let out = out.execute("SET statement_timeout = '50ms'").await.unwrap();
    let endless = "COPY (SELECT pg_sleep(600)::text) TO STDOUT (FORMAT binary)";
    let ended = out.rows(endless, 1, (), |(), _| Ok::<(), End>(())).await.err().unwrap();
    assert!(matches!(&ended, End::Server(error) if error.sqlstate() == Some("57014")), "{ended:?}");
    let refused = CopyOut::connect(&options, "test").await.unwrap().execute("SELECT 1/0").await.err().unwrap();
    assert_eq!(refused.sqlstate(), Some("22012"));
}

#[tokio::test]
async fn log_in_is_refused_in_the_same_words() {
    let cluster = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let right = cluster.options();
    let session = Session::connect(&right, "test").await.unwrap();
    session
        .execute("SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN PASSWORD 'it''s'")
        .await
        .unwrap();
    let hba = cluster.folder().join("data/pg_hba.conf");
    let old = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("host all scram all scram-sha-256\n{old}")).unwrap();
    session.execute("SELECT pg_reload_conf()").await.unwrap();
    let with = |password: &str| ConnectOptions {
        user: "scram".to_owned(),
        password: Some(password.to_owned()),
        ..right.clone()
    };
    // The server reads its file a moment after it was told.
    let sesame = with("sesame");
    let wait = async { while Session::connect(&sesame, "test").await.is_ok() {} };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
    let driver = Session::connect(&sesame, "test").await.err().unwrap();
    let ours = CopyOut::connect(&sesame, "test").await.err().unwrap();
    assert_eq!(ours.to_string(), driver.to_string());
    assert_eq!(ours.sqlstate(), Some("28P01"));
    let (_, rows) = read(CopyOut::connect(&with("it's"), "test").await.unwrap(), "SELECT true", 1).await;
    assert_eq!(rows, [b"\0\x01\0\0\0\x01\x01"]);
    let dead = ConnectOptions { hosts: vec![], ..right.clone() };
    assert!(matches!(CopyOut::connect(&dead, "test").await, Err(PgError::Options(_))));
}

/// Begins to read a query without end, and gives whoever asks for it the connection's pid and a sign of its first row.
fn endless(
    out: CopyOut,
    query: &str,
) -> (i32, mpsc::Receiver<()>, impl Future<Output = Result<(CopyOut, ()), End>> + use<>) {
    let (first, seen) = mpsc::sync_channel(1);
    let pid = out.backend_pid();
    let sql = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
    let work = async move {
        out.rows(&sql, 1, (), move |(), _| {
            let _ = first.try_send(());
            Ok::<(), End>(())
        })
        .await
    };
    (pid, seen, work)
}

/// In the select list: in FROM all of it would be stored before the first row comes.
const ALL_NUMBERS: &str = "SELECT generate_series(1, 1000000000000)";

#[tokio::test(flavor = "multi_thread")]
async fn dropped_reader_leaves_nothing_running() {
    let options = crate::database().await;
    let session = Session::connect(&options, "test").await.unwrap();
    // One that sends all the while, and one that says nothing.
    for query in [ALL_NUMBERS, "SELECT 1 FROM pg_sleep(600)"] {
        let out = CopyOut::connect(&options, "test").await.unwrap();
        let (pid, _, work) = endless(out, query);
        let task = tokio::spawn(work);
        until(&session, &format!("{} AND state = 'active' AND query LIKE 'COPY%'", backends(pid)), "1").await;
        task.abort();
        until(&session, &backends(pid), "0").await;
    }
}

#[tokio::test]
async fn rows_that_are_refused_end_the_query() {
    let options = crate::database().await;
    let session = Session::connect(&options, "test").await.unwrap();
    let out = CopyOut::connect(&options, "test").await.unwrap();
    let pid = out.backend_pid();
    let each = |count: &mut u64, _: pgrunbook_postgres::copy::Row<'_>| {
        *count += 1;
        if *count < 1000 { Ok(()) } else { Err(End::Mine("enough")) }
    };
    let sql = format!("COPY ({ALL_NUMBERS}) TO STDOUT (FORMAT binary)");
    assert!(matches!(out.rows(&sql, 1, 0, each).await, Err(End::Mine("enough"))));
    until(&session, &backends(pid), "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_backend_is_a_lost_connection() {
    let options = crate::database().await;
    let session = Session::connect(&options, "test").await.unwrap();
    let out = CopyOut::connect(&options, "test").await.unwrap();
    let (pid, seen, work) = endless(out, ALL_NUMBERS);
    let task = tokio::spawn(work);
    let first = tokio::task::spawn_blocking(move || seen.recv_timeout(PATIENCE));
    first.await.unwrap().unwrap();
    assert_eq!(session.value(&format!("SELECT pg_terminate_backend({pid})")).await.unwrap(), "t");
    match tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap() {
        Err(End::Server(PgError::Lost { .. })) => {}
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a query without end has ended"),
    }
}
