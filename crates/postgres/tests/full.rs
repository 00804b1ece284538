//! The spool's disk is full: nothing is confirmed that is not on it, the source goes on, and so does the spool when there is room.

use pgrunbook_postgres::slots::slot_state;
use pgrunbook_postgres::spool::{Spool, SpoolError};

use pgrunbook_postgres::receiver::{Receiver, Stopped};

use crate::replication::PATIENCE;
use crate::small_disk::SmallDisk;
use crate::stream::Rig;

/// One transaction each, of about a hundred kilobytes.
async fn write(rig: &Rig, ids: std::ops::Range<u32>) {
    for id in ids {
        rig.writer.execute(&format!("INSERT INTO t VALUES ({id}, repeat('x', 100000))")).await.unwrap();
    }
}

/// `begin`, `insert t (7` and `commit` for each row that must be there, in order.
fn expected(ids: std::ops::Range<u32>) -> Vec<String> {
    ids.flat_map(|id| ["begin".to_owned(), format!("insert t ({id}"), "commit".to_owned()]).collect()
}

async fn ended_by_the_disk(mut receiver: Receiver) {
    let stopped = tokio::time::timeout(PATIENCE, receiver.ended()).await.unwrap();
    assert!(matches!(stopped, Stopped::Spool(SpoolError::Full { .. })), "{stopped}");
    assert!(stopped.to_string().starts_with("no room on the disk for "), "{stopped}");
}

/// What the slot was told, against what can be read again from the disk.
async fn confirmed_is_on_disk(rig: &Rig) {
    let confirmed = slot_state(&rig.writer, &rig.what.slot).await.unwrap().unwrap().confirmed.unwrap();
    let (_spool, writer) = Spool::open(rig.folder.path(), rig.source, rig.start).await.unwrap();
    assert!(confirmed <= writer.end(), "the slot was told {confirmed}, and the disk has {}", writer.end());
    assert!(writer.end() > rig.start, "something came before the disk was full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_stops_the_receiver_and_nothing_is_confirmed_that_is_not_on_it() {
    let Some(disk) = SmallDisk::wanted(16 << 20) else { return };
    let mut rig = Rig::new(&crate::database().await, "CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    rig.folder = tempfile::tempdir_in(disk.path()).unwrap();
    disk.fill_but(2 << 20);
    let (spool, receiver) = rig.receive().await;
    write(&rig, 0..60).await;
    ended_by_the_disk(receiver).await;
    drop(spool);
    confirmed_is_on_disk(&rig).await;

    // The source does not notice, and a second try fails in the same way.
    write(&rig, 60..70).await;
    let (spool, receiver) = rig.receive().await;
    ended_by_the_disk(receiver).await;
    drop(spool);
    confirmed_is_on_disk(&rig).await;

    disk.free();
    let (spool, receiver) = rig.receive().await;
    write(&rig, 70..75).await;
    let lines = rig.lines(&spool).await;
    let begins: Vec<&str> = lines.iter().map(|line| line.split(',').next().unwrap_or_default()).collect();
    assert_eq!(begins, expected(0..75));
    assert!(matches!(receiver.stop().await, Stopped::Asked));
    drop(spool);
    rig.remove().await;
}
