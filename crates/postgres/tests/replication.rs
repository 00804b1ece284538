//! The replication connection against real servers.

use std::collections::BTreeMap;
use std::time::Duration;

use pgrunbook_postgres::options::HostPort;
use pgrunbook_postgres::pgoutput::decode::{Decoder, Message};
use pgrunbook_postgres::replication::{CreateSlot, Incoming, Replication, StreamOptions};
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_postgres::{ConnectOptions, Lsn, PgError, Session};

/// Nothing that is waited for takes longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn slot_name(options: &ConnectOptions, suffix: &str) -> String {
    format!("{}_{suffix}", options.database)
}

#[tokio::test]
async fn snapshot_shows_what_the_stream_does_not_send() {
    let options = crate::database().await;
    snapshot_hand_off(&options).await;
}

/// Rows before the slot are in the snapshot only, rows after it in the stream only.
pub async fn snapshot_hand_off(options: &ConnectOptions) {
    let writer = Session::connect(options, "test").await.unwrap();
    writer
        .execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE PUBLICATION p FOR TABLE t")
        .await
        .unwrap();
    let mut connection = Replication::connect(options, "test").await.unwrap();
    let system = connection.identify_system().await.unwrap();
    assert_eq!(system.database, options.database);
    let name = slot_name(options, "s");
    let slot = connection
        .create_slot(&name, CreateSlot { temporary: true, export_snapshot: true, failover: false })
        .await
        .unwrap();
    writer.execute("INSERT INTO t VALUES (2)").await.unwrap();
    let reader = Session::connect(options, "test").await.unwrap();
    let snapshot = slot.snapshot.unwrap();
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    reader.execute(&format!("SET TRANSACTION SNAPSHOT '{snapshot}'")).await.unwrap();
    assert_eq!(reader.value("SELECT string_agg(id::text, ',') FROM t").await.unwrap(), "1");
    let how = StreamOptions::best(connection.major(), vec!["p".to_owned()]);
    let mut stream = connection.start(&name, Lsn(0), &how).await.unwrap();
    let mut decoder = Decoder::default();
    let mut kinds = BTreeMap::new();
    tokio::time::timeout(PATIENCE, async {
        loop {
            let Some(Incoming::Frame(frame)) = stream.next().await.unwrap() else { continue };
            match decoder.decode(&frame.data).unwrap() {
                Message::Insert { new, .. } => {
                    kinds.insert("rows", format!("{new:?}"));
                }
                Message::Commit(at) => {
                    assert!(at.end_lsn > slot.consistent_point);
                    stream.confirm(at.end_lsn, at.end_lsn);
                    break;
                }
                _ => {}
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(kinds["rows"], r#"[Binary(b"\0\0\0\x02")]"#);
    stream.close().await;
}

#[tokio::test]
async fn each_way_to_log_in_is_spoken() {
    let cluster = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let options = cluster.options();
    let session = Session::connect(&options, "test").await.unwrap();
    for method in ["md5", "password", "scram-sha-256", "trust"] {
        let encryption = if method == "md5" { "md5" } else { "scram-sha-256" };
        let sql = format!(
            "SET password_encryption = '{encryption}'; CREATE ROLE \"by {method}\" LOGIN REPLICATION PASSWORD 'it''s'"
        );
        session.execute(&sql).await.unwrap();
    }
    let hba = cluster.folder().join("data/pg_hba.conf");
    let old = std::fs::read_to_string(&hba).unwrap();
    let lines = ["md5", "password", "scram-sha-256", "trust"]
        .map(|method| format!("host all \"by {method}\" all {method}\nlocal all \"by {method}\" {method}\n"));
    std::fs::write(&hba, lines.concat() + &old).unwrap();
    session.execute("SELECT pg_reload_conf()").await.unwrap();
    let sockets = HostPort { host: cluster.socket_folder().display().to_string(), port: options.hosts[0].port };
    // The first host answers nobody.
    let dead = HostPort { host: "127.0.0.1".to_owned(), port: 1 };
    for hosts in [vec![dead.clone(), options.hosts[0].clone()], vec![sockets]] {
        for method in ["md5", "password", "scram-sha-256", "trust"] {
            let user = format!("by {method}");
            let mine = ConnectOptions {
                hosts: hosts.clone(),
                user: user.clone(),
                password: Some("it's".to_owned()),
                ..options.clone()
            };
            let who = "SELECT current_user, application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()";
            // The server reads its file a moment after it was told.
            let row = async {
                loop {
                    if let Ok(mut connection) = Replication::connect(&mine, "tester").await {
                        return connection.query(who).await.unwrap().remove(0);
                    }
                }
            };
            let row = tokio::time::timeout(PATIENCE, row).await.unwrap();
            assert_eq!(row, [Some(user), Some("tester".to_owned())]);
            if method == "trust" {
                continue;
            }
            let error = Replication::connect(&ConnectOptions { password: Some("sesame".to_owned()), ..mine }, "tester")
                .await
                .err()
                .unwrap();
            assert_eq!(error.sqlstate(), Some("28P01"), "{error}");
            assert!(!format!("{error} {error:?}").contains("sesame"));
        }
    }
    let error = Replication::connect(&ConnectOptions { hosts: vec![dead], ..options }, "tester").await.err().unwrap();
    assert!(matches!(error, PgError::Unreachable { .. }), "{error}");
}

/// The server ends a walsender that it has not heard of for `wal_sender_timeout`: a reader that reads nothing for three
/// times as long is still heard.
#[tokio::test]
async fn slow_reader_is_still_heard() {
    let settings = vec![("wal_sender_timeout".to_owned(), "1s".to_owned())];
    let cluster = Sandbox::start(SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap();
    let options = cluster.options();
    let writer = Session::connect(&options, "test").await.unwrap();
    writer.execute("CREATE TABLE t (v text); CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let mut connection = Replication::connect(&options, "test").await.unwrap();
    connection.create_slot("slow", CreateSlot::default()).await.unwrap();
    let how = StreamOptions::best(connection.major(), vec!["p".to_owned()]);
    let mut stream = connection.start("slow", Lsn(0), &how).await.unwrap();
    let rows = 20_000;
    writer.execute(&format!("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, {rows})")).await.unwrap();
    // So long that the server would have given up, by its own clock: more than fits between us waits to be sent.
    let pid = stream.backend_pid();
    let late = format!("SELECT backend_start < now() - interval '3 s' FROM pg_stat_replication WHERE pid = {pid}");
    let wait = async {
        while writer.value(&late).await.unwrap() == "f" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
    assert_eq!(writer.value(&late).await.unwrap(), "t");
    let (mut decoder, mut inserts) = (Decoder::default(), 0);
    let all = async {
        loop {
            let Some(Incoming::Frame(frame)) = stream.next().await.unwrap() else { continue };
            match decoder.decode(&frame.data).unwrap() {
                Message::Insert { .. } => inserts += 1,
                Message::Commit(_) | Message::StreamCommit { .. } => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    assert_eq!(inserts, rows);
}

#[tokio::test]
async fn server_errors_keep_their_code() {
    let options = crate::database().await;
    let mut connection = Replication::connect(&options, "test").await.unwrap();
    let error = connection.query("SELECT 1/0").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("22012"));
    // And the connection goes on.
    assert_eq!(connection.query("SELECT 1").await.unwrap(), [[Some("1".to_owned())]]);
    let how = StreamOptions::best(connection.major(), vec!["p".to_owned()]);
    let error = connection.start("there_is_no_such_slot", Lsn(0), &how).await.err().unwrap();
    assert_eq!(error.sqlstate(), Some("42704"));
    let mut connection = Replication::connect(&options, "test").await.unwrap();
    let error = connection.create_slot("No Slot", CreateSlot::default()).await.unwrap_err();
    assert!(error.to_string().contains("is no name for a slot"), "{error}");
}
