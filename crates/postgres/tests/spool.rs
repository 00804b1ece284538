//! Spools by themselves: what is whole, what is taken back, what is kept.

use pgrunbook_postgres::Lsn;
use pgrunbook_postgres::pgoutput::Event;
use pgrunbook_postgres::spool::{Follow, Record, Source, Spool, SpoolError};

use crate::replication::PATIENCE;
use crate::stream::segments;

#[tokio::test]
async fn spool_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source { system: 1, timeline: 1 };
    let (_spool, mut writer) = Spool::open(folder.path(), source, Lsn(1)).await.unwrap();
    let second = tokio::spawn({
        let folder = folder.path().to_owned();
        async move { Spool::open(&folder, source, Lsn(1)).await.map(|_| ()) }
    });
    writer.reached(Lsn(7));
    writer.close().await.unwrap();
    // It waited for the first to end.
    second.await.unwrap().unwrap();
    let (spool, _writer) = Spool::open(folder.path(), source, Lsn(1)).await.unwrap();
    assert_eq!(spool.synced().borrow().lsn, Lsn(7));
}

/// Messages as pgoutput sends them, as far as a spool looks into them.
fn message(tag: u8, parts: &[&[u8]]) -> bytes::Bytes {
    let mut message = vec![tag];
    parts.iter().for_each(|part| message.extend_from_slice(part));
    message.into()
}

fn begin_of(xid: u32, lsn: u64) -> bytes::Bytes {
    message(b'B', &[&lsn.to_be_bytes(), &[0; 8], &xid.to_be_bytes()])
}

/// A commit record of ten bytes.
fn commit_of(lsn: u64) -> bytes::Bytes {
    message(b'C', &[&[0], &lsn.to_be_bytes(), &(lsn + 10).to_be_bytes(), &[0; 8]])
}

fn all_records(spool: &Spool, from: Lsn) -> Vec<Record> {
    let mut reader = spool.reader(from).unwrap();
    std::iter::from_fn(|| reader.read().unwrap()).collect()
}

async fn synced_to(spool: &Spool, lsn: Lsn) {
    let mut synced = spool.synced();
    tokio::time::timeout(PATIENCE, synced.wait_for(|synced| synced.lsn >= lsn)).await.unwrap().unwrap();
}

#[tokio::test]
async fn half_a_transaction_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source { system: 1, timeline: 1 };
    let (spool, mut writer) = Spool::open(folder.path(), source, Lsn(1)).await.unwrap();
    let (begin, row, commit) = (begin_of(1, 100), message(b'I', &[b"whatever"]), commit_of(100));
    for flushed in [false, true] {
        writer.append(Lsn(100), &begin).unwrap();
        writer.append(Lsn(90), &row).unwrap();
        if flushed {
            writer.flush().await.unwrap();
        }
        assert_eq!(writer.end(), Lsn(1));
        writer.restart();
    }
    let bytes = spool.bytes();
    for data in [&begin, &row, &commit] {
        writer.append(Lsn(100), data).unwrap();
    }
    assert_eq!((writer.end(), spool.bytes() > bytes), (Lsn(110), true));
    writer.flush().await.unwrap();
    synced_to(&spool, Lsn(110)).await;
    let message = |data| Record::Message(Lsn(100), data);
    let expected = [Record::Restart, Record::Restart, message(begin.clone()), message(row.clone()), message(commit)];
    assert_eq!(all_records(&spool, Lsn(1)), expected);
    assert_eq!(spool.bytes(), std::fs::metadata(&segments(folder.path())[0]).unwrap().len());
    // The same, where it ended with half of one.
    writer.append(Lsn(200), &begin_of(2, 200)).unwrap();
    writer.close().await.unwrap();
    let (spool, writer) = Spool::open(folder.path(), source, Lsn(1)).await.unwrap();
    assert_eq!(writer.end(), Lsn(110));
    assert_eq!(all_records(&spool, Lsn(1)), expected);
}

#[tokio::test]
async fn segment_with_the_first_block_of_an_open_transaction_stays() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source { system: 1, timeline: 1 };
    let (spool, mut writer) = Spool::open(folder.path(), source, Lsn(1)).await.unwrap();
    let xid = &1_u32.to_be_bytes()[..];
    // A table without a column, which the server does not describe again.
    let described = [&7_u32.to_be_bytes()[..], b"public\0t\0d", &[0, 0]].concat();
    let block = [message(b'S', &[xid, &[1]]), message(b'R', &[xid, &described]), message(b'I', &[xid, b"row"])];
    for data in block.into_iter().chain([message(b'E', &[])]) {
        writer.append(Lsn(50), &data).unwrap();
    }
    writer.append(Lsn(100), &begin_of(2, 100)).unwrap();
    let megabyte = message(b'I', &[&vec![b'x'; 1 << 20]]);
    for _ in 0..65 {
        writer.append(Lsn(100), &megabyte).unwrap();
        writer.flush().await.unwrap();
    }
    writer.append(Lsn(100), &commit_of(100)).unwrap();
    writer.append(Lsn(200), &begin_of(3, 200)).unwrap();
    writer.append(Lsn(200), &commit_of(200)).unwrap();
    writer.flush().await.unwrap();
    synced_to(&spool, Lsn(210)).await;
    assert_eq!(segments(folder.path()).len(), 2);
    spool.prune(Lsn(210)).unwrap();
    assert_eq!(segments(folder.path()).len(), 2);
    let at = [&[0][..], &300_u64.to_be_bytes(), &310_u64.to_be_bytes(), &[0; 8]].concat();
    writer.append(Lsn(310), &message(b'c', &[xid, &at])).unwrap();
    writer.flush().await.unwrap();
    synced_to(&spool, Lsn(310)).await;
    spool.prune(Lsn(210)).unwrap();
    assert_eq!((segments(folder.path()).len(), all_records(&spool, Lsn(210)).len()), (2, 4 + 67 + 1 + 2 + 1));
    writer.close().await.unwrap();
    // A wrong byte in an older segment is named.
    let first = &segments(folder.path())[0];
    let flip = |at: u64| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().read(true).write(true).open(first).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    flip(30 << 20);
    match Spool::open(folder.path(), source, Lsn(1)).await {
        // The record that holds it begins within the megabyte before.
        Err(SpoolError::Damaged { path, offset, .. }) => {
            assert!(path == *first && (29 << 20..30 << 20).contains(&offset), "{offset}");
        }
        other => panic!("{:?}", other.err()),
    }
    flip(30 << 20);
    // What is found again says the same.
    let (spool, writer) = Spool::open(folder.path(), source, Lsn(1)).await.unwrap();
    spool.prune(Lsn(210)).unwrap();
    assert_eq!(segments(folder.path()).len(), 2);
    spool.prune(Lsn(310)).unwrap();
    assert_eq!(segments(folder.path()).len(), 1);
    // That the front is gone is no damage.
    drop(writer);
    let (spool, writer) = Spool::open(folder.path(), source, Lsn(1)).await.unwrap();
    assert_eq!(
        (writer.end(), spool.bytes()),
        (Lsn(310), std::fs::metadata(&segments(folder.path())[0]).unwrap().len())
    );
    // The table is known although its description was there.
    assert_eq!(all_records(&spool, Lsn(310))[0], Record::Relation(message(b'R', &[&described])));
}

#[tokio::test]
async fn follower_that_is_ahead_of_the_spool_passes_over_what_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source { system: 1, timeline: 1 };
    let (spool, mut writer) = Spool::open(folder.path(), source, Lsn(1)).await.unwrap();
    let mut transaction = |xid, lsn| {
        writer.append(Lsn(lsn), &begin_of(xid, lsn)).unwrap();
        // Of a transaction without a change nobody is told.
        let said = message(b'M', &[&[1], &lsn.to_be_bytes(), b"test\0", &2_u32.to_be_bytes(), b"hi"]);
        writer.append(Lsn(lsn), &said).unwrap();
        writer.append(Lsn(lsn), &commit_of(lsn)).unwrap();
    };
    transaction(1, 100);
    // It was applied up to 210; then the machine died, and of the spool only what was synced is left.
    let mut follow = Follow::start(&spool, Lsn(210)).unwrap();
    transaction(2, 200);
    transaction(3, 300);
    writer.flush().await.unwrap();
    let mut begun = Vec::new();
    loop {
        let batch = tokio::time::timeout(PATIENCE, follow.next()).await.unwrap().unwrap().unwrap();
        begun.extend(batch.events.iter().filter_map(|event| match event {
            Event::Begin(begin) => Some(begin.xid),
            _ => None,
        }));
        if batch.position >= Lsn(310) {
            break;
        }
    }
    assert_eq!(begun, [3]);
}
