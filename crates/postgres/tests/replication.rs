//! The replication connection against real servers.

use std::collections::BTreeMap;
use std::time::Duration;

use pgrunbook_postgres::pgoutput::decode::{Decoder, Message};
use pgrunbook_postgres::replication::{CreateSlot, Incoming, Replication, StreamOptions};
use pgrunbook_postgres::{ConnectOptions, Lsn, Session};

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
