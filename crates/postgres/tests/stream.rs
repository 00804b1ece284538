//! From a slot through the spool to events, on real servers.

use pgrunbook_postgres::pgoutput::{Cell, Change, Event, Old, Row};
use std::path::Path;
use std::time::Duration;

use pgrunbook_postgres::receiver::{Limits, Receive, Receiver, Stopped};
use pgrunbook_postgres::replication::{CreateSlot, Replication, StreamOptions};
use pgrunbook_postgres::sandbox::{Sandbox, SandboxOptions};
use pgrunbook_postgres::slots::{
    CreateSlotError, SlotBlocker, create_publication, create_slot, drop_slot_if_ours, slot_state,
};
use pgrunbook_postgres::spool::{Follow, Source, Spool, SpoolError, Writer};
use pgrunbook_postgres::{ConnectOptions, Lsn, Session};

use crate::replication::PATIENCE;

const NO_LIMITS: Limits = Limits { spool_soft: u64::MAX, spool_hard: u64::MAX, disk_free_min: 0 };

/// A slot, its spool, and a session that writes.
pub struct Rig {
    pub writer: Session,
    pub what: Receive,
    pub source: Source,
    pub start: Lsn,
    pub folder: tempfile::TempDir,
}

impl Rig {
    /// Runs `setup`, publishes the tables of schema `public` and makes a slot.
    pub async fn new(options: &ConnectOptions, setup: &str) -> Self {
        let writer = Session::connect(options, "writer").await.unwrap();
        writer.execute(setup).await.unwrap();
        let name = format!("pgrunbook_{}", options.database);
        let tables =
            writer.simple("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").await.unwrap();
        let tables: Vec<_> = tables[0].rows.iter().map(|row| ("public".to_owned(), row[0].clone().unwrap())).collect();
        create_publication(&writer, &name, &tables).await.unwrap();
        let mut connection = Replication::connect(options, "maker").await.unwrap();
        let system = connection.identify_system().await.unwrap();
        let slot = connection.create_slot(&name, CreateSlot::default()).await.unwrap();
        let stream = StreamOptions { binary: false, ..StreamOptions::best(connection.major(), vec![name.clone()]) };
        let application_name = format!("receiver {}", options.database);
        Self {
            writer,
            what: Receive { connect: options.clone(), application_name, slot: name, stream, limits: NO_LIMITS },
            source: Source { system: system.identifier, timeline: system.timeline },
            start: slot.consistent_point,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub async fn open(&self) -> (Spool, Writer) {
        Spool::open(self.folder.path(), self.source, self.start).await.unwrap()
    }

    pub async fn receive(&self) -> (Spool, Receiver) {
        let (spool, writer) = self.open().await;
        (spool.clone(), Receiver::start(spool, writer, self.what.clone()))
    }

    /// Ends what the test made that outlives it.
    pub async fn remove(self) {
        drop_slot_if_ours(&self.writer, &self.what.slot).await.unwrap();
    }

    pub async fn mark(&self) {
        self.writer.simple("SELECT pg_logical_emit_message(true, 'test', 'end')").await.unwrap();
    }

    /// All events up to a message that is written now, as lines.
    pub async fn lines(&self, spool: &Spool) -> Vec<String> {
        self.mark().await;
        lines_from(spool, self.start).await
    }
}

/// All events from there up to the first message `end`, as lines.
pub async fn lines_from(spool: &Spool, from: Lsn) -> Vec<String> {
    let mut follow = Follow::start(spool, from).unwrap();
    let mut lines = Vec::new();
    let all = async {
        loop {
            for event in follow.next().await.unwrap().unwrap().events {
                let line = line(&event);
                if line == "message test end" {
                    assert_eq!(lines.pop().as_deref(), Some("begin"));
                    return;
                }
                lines.push(line);
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    lines
}

fn line(event: &Event) -> String {
    match event {
        Event::Begin(begin) => match &begin.origin {
            None => "begin".to_owned(),
            Some(origin) => format!("begin from {origin}"),
        },
        Event::Commit(_) => "commit".to_owned(),
        Event::Early(_) => "early".to_owned(),
        Event::Change(Change::Insert { relation, new }) => format!("insert {} {}", relation.name, row(new)),
        Event::Change(Change::Update { relation, old, new }) => {
            format!("update {} {}{}", relation.name, old.as_ref().map_or(String::new(), old_row), row(new))
        }
        Event::Change(Change::Delete { relation, old }) => {
            format!("delete {} {}", relation.name, old_row(old).trim_end())
        }
        Event::Change(Change::Truncate { relations, cascade, restart_identity }) => {
            let names: Vec<_> = relations.iter().map(|relation| relation.name.as_str()).collect();
            format!("truncate {} cascade={cascade} restart={restart_identity}", names.join(","))
        }
        Event::Change(Change::Message { prefix, content }) => {
            format!("message {prefix} {}", String::from_utf8_lossy(content))
        }
    }
}

fn old_row(old: &Old) -> String {
    match old {
        Old::Key(key) => format!("key{} ", row(key)),
        Old::Full(full) => format!("full{} ", row(full)),
    }
}

fn row(row: &Row) -> String {
    let cells: Vec<_> = row
        .iter()
        .map(|cell| match cell {
            Cell::Null => "null".to_owned(),
            Cell::Unchanged => "same".to_owned(),
            Cell::Text(text) | Cell::Binary(text) => String::from_utf8_lossy(text).into_owned(),
        })
        .collect();
    format!("({})", cells.join(","))
}

async fn check(options: &ConnectOptions, setup: &str, work: &str, expected: &str) {
    let rig = Rig::new(options, setup).await;
    let (spool, receiver) = rig.receive().await;
    for statement in work.split(";;").map(str::trim).filter(|statement| !statement.is_empty()) {
        rig.writer.execute(statement).await.unwrap();
    }
    let lines = rig.lines(&spool).await;
    let expected: Vec<_> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines, expected, "{work}");
    assert!(matches!(receiver.stop().await, Stopped::Asked));
    rig.remove().await;
}

/// What is sent of a row in each kind of change.
pub async fn changes_are_told(options: &ConnectOptions) {
    let setup = "CREATE TABLE a (id int PRIMARY KEY, big text, n int);
        ALTER TABLE a ALTER big SET STORAGE EXTERNAL;
        INSERT INTO a VALUES (0, repeat('x', 5000), 0);
        CREATE TABLE f (v text, n int); ALTER TABLE f REPLICA IDENTITY FULL;
        CREATE TABLE b (id int PRIMARY KEY REFERENCES a)";
    let work = "UPDATE a SET n = 1;;
        UPDATE a SET id = 5 WHERE id = 0;;
        INSERT INTO f VALUES ('x', NULL);;
        UPDATE f SET n = 2;;
        DELETE FROM f;;
        DELETE FROM a;;
        SELECT pg_logical_emit_message(true, 'p', 'hello');;
        SELECT pg_logical_emit_message(false, 'p', 'dropped');;
        TRUNCATE a CASCADE;;
        ALTER TABLE f ADD COLUMN late int DEFAULT 7;;
        INSERT INTO f VALUES ('y', 1)";
    let expected = "begin
        update a (0,same,1)
        commit
        begin
        update a key(0,null,null) (5,same,1)
        commit
        begin
        insert f (x,null)
        commit
        begin
        update f full(x,null) (x,2)
        commit
        begin
        delete f full(x,2)
        commit
        begin
        delete a key(5,null,null)
        commit
        begin
        message p hello
        commit
        begin
        truncate a,b cascade=true restart=false
        commit
        begin
        insert f (y,1,7)
        commit";
    check(options, setup, work, expected).await;
}

#[tokio::test]
async fn every_kind_of_change_is_told() {
    changes_are_told(&crate::database().await).await;
}

/// Transactions that are sent before they end, with blocks of others between and parts that are rolled back.
pub async fn streamed_transactions_are_told_at_their_commit(options: &ConnectOptions) {
    let rig = Rig::new(options, "CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    let (first, second) =
        (Session::connect(options, "1").await.unwrap(), Session::connect(options, "2").await.unwrap());
    let rows =
        |from: u32, to: u32| format!("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series({from}, {to}) g");
    let (spool, receiver) = rig.receive().await;
    first.execute("BEGIN").await.unwrap();
    first.execute(&rows(1, 2000)).await.unwrap();
    second.execute("BEGIN").await.unwrap();
    second.execute(&rows(10_001, 12_000)).await.unwrap();
    first.execute("SAVEPOINT a").await.unwrap();
    first.execute(&rows(3001, 5000)).await.unwrap();
    first.execute("ROLLBACK TO a").await.unwrap();
    first.execute(&format!("SAVEPOINT b; {}; RELEASE b", rows(5001, 6000))).await.unwrap();
    rig.writer.execute("INSERT INTO t VALUES (0, 'between')").await.unwrap();
    // A third is begun, and given up.
    rig.writer.execute(&format!("BEGIN; {}; ROLLBACK", rows(20_001, 22_000))).await.unwrap();
    second.execute("COMMIT").await.unwrap();
    first.execute(&rows(6001, 6001)).await.unwrap();
    first.execute("COMMIT").await.unwrap();
    let lines = rig.lines(&spool).await;
    let told: Vec<&str> = lines.iter().map(|line| line.split(',').next().unwrap()).collect();
    let insert = |id: u32| format!("insert t ({id}");
    let transaction = |ids: Vec<u32>| {
        let mut lines = vec!["begin".to_owned()];
        lines.extend(ids.into_iter().map(insert));
        lines.push("commit".to_owned());
        lines
    };
    let expected = [
        transaction(vec![0]),
        transaction((10_001..=12_000).collect()),
        transaction((1..=2000).chain(5001..=6001).collect()),
    ]
    .concat();
    assert_eq!(told, expected);
    // That they were sent before they ended is what was to be tried.
    let sql = format!("SELECT stream_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = '{}'", rig.what.slot);
    assert!(matches!(receiver.stop().await, Stopped::Asked));
    // Statistics come a moment later.
    let seen = async { while rig.writer.value(&sql).await.unwrap() != "t" {} };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
    rig.remove().await;
}

#[tokio::test]
async fn order_is_by_commit_and_what_was_rolled_back_is_left_out() {
    let options = crate::database().await;
    let with_memory = ConnectOptions { options: Some("-c logical_decoding_work_mem=64kB".to_owned()), ..options };
    streamed_transactions_are_told_at_their_commit(&with_memory).await;
}

#[tokio::test]
async fn origin_of_a_transaction_is_told() {
    let options = crate::database().await;
    let origin = format!("from {}", options.database);
    let work = format!(
        "SELECT pg_replication_origin_create('{origin}');;
        SELECT pg_replication_origin_session_setup('{origin}');;
        INSERT INTO t VALUES (1);;
        SELECT pg_replication_origin_session_reset();;
        SELECT pg_replication_origin_drop('{origin}')"
    );
    let expected = format!("begin from {origin}\ninsert t (1)\ncommit");
    check(&options, "CREATE TABLE t (id int PRIMARY KEY)", &work, &expected).await;
}

/// A transaction of many megabytes in one piece.
#[tokio::test]
async fn huge_transaction_is_told_whole() {
    let options = crate::database().await;
    let mut rig = Rig::new(&options, "CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    rig.what.stream.streaming = pgrunbook_postgres::replication::Streaming::Off;
    let (spool, receiver) = rig.receive().await;
    let rows = 90_000;
    let insert = format!("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, {rows}) g");
    rig.writer.execute(&insert).await.unwrap();
    rig.writer.execute("INSERT INTO t VALUES (0, 'after')").await.unwrap();
    let lines = rig.lines(&spool).await;
    assert_eq!(lines.len(), rows + 2 + 3);
    assert_eq!(lines.last_chunk::<3>().unwrap(), &["begin", "insert t (0,after)", "commit"]);
    // It is larger than a segment; those that follow begin another.
    assert_eq!(segments(rig.folder.path()).len(), 2);
    // And what came before is gone when it is no longer needed.
    let end = spool.synced().borrow().lsn;
    spool.prune(end).unwrap();
    assert_eq!(segments(rig.folder.path()).len(), 1);
    assert!(spool.bytes() < 1 << 20, "{}", spool.bytes());
    assert!(matches!(spool.reader(rig.start), Err(SpoolError::Pruned { .. })));
    // The server does not describe the table again: the new segment knows it.
    rig.writer.execute("INSERT INTO t VALUES (-1, 'later')").await.unwrap();
    rig.mark().await;
    assert_eq!(lines_from(&spool, end).await, ["begin", "insert t (-1,later)", "commit"]);
    assert!(matches!(receiver.stop().await, Stopped::Asked));
    rig.remove().await;
}

pub fn segments(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
    paths.sort();
    paths
}

/// What a stream of one-row transactions with rising numbers must look like.
fn numbered(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.flat_map(|n| ["begin".to_owned(), format!("insert t ({n})"), "commit".to_owned()]).collect()
}

#[tokio::test]
async fn killed_walsender_loses_and_doubles_nothing() {
    let options = crate::database().await;
    let rig = Rig::new(&options, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let (spool, receiver) = rig.receive().await;
    let mut received = receiver.received();
    let observer = Session::connect(&options, "observer").await.unwrap();
    let name = &rig.what.application_name;
    let kill =
        format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication WHERE application_name = '{name}'");
    for round in 0..5 {
        // Connected again after the kill before.
        let connected = received.wait_for(|received| received.connections > round);
        tokio::time::timeout(PATIENCE, connected).await.unwrap().unwrap();
        for n in 0..200 {
            rig.writer.execute(&format!("INSERT INTO t VALUES ({})", round * 200 + n)).await.unwrap();
            if n == 100 {
                assert_eq!(observer.value(&kill).await.unwrap(), "1");
            }
        }
    }
    assert_eq!(rig.lines(&spool).await, numbered(0..1000));
    assert!(matches!(receiver.stop().await, Stopped::Asked));
    rig.remove().await;
}

#[tokio::test]
async fn server_that_dies_and_comes_back_loses_and_doubles_nothing() {
    let cluster = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let options = cluster.options();
    let rig = Rig::new(&options, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let (spool, receiver) = rig.receive().await;
    let mut received = receiver.received();
    rig.writer.execute("INSERT INTO t VALUES (0)").await.unwrap();
    // Some of it is streamed already when the server dies, and never ends.
    rig.writer.execute("BEGIN; INSERT INTO t SELECT generate_series(100000, 200000)").await.unwrap();
    cluster.kill().unwrap();
    let lost = received.wait_for(|received| received.interrupted.is_some());
    tokio::time::timeout(PATIENCE, lost).await.unwrap().unwrap();
    cluster.restart().unwrap();
    let rig = Rig { writer: Session::connect(&options, "writer").await.unwrap(), ..rig };
    rig.writer.execute("INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(rig.lines(&spool).await, numbered(0..2));
    assert!(matches!(receiver.stop().await, Stopped::Asked));
}

#[tokio::test]
async fn reader_goes_on_from_any_commit() {
    let options = crate::database().await;
    let rig = Rig::new(&options, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let (spool, receiver) = rig.receive().await;
    rig.writer.execute("INSERT INTO t VALUES (0)").await.unwrap();
    rig.writer.execute("INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(rig.lines(&spool).await, numbered(0..2));
    let mut follow = Follow::start(&spool, rig.start).unwrap();
    let batch = tokio::time::timeout(PATIENCE, follow.next()).await.unwrap().unwrap().unwrap();
    let ends: Vec<_> = batch
        .events
        .iter()
        .filter_map(|event| if let Event::Commit(commit) = event { Some(commit.end_lsn) } else { None })
        .collect();
    assert_eq!(lines_from(&spool, ends[0]).await, numbered(1..2));
    assert_eq!(lines_from(&spool, ends[1]).await, numbered(0..0));
    assert!(matches!(receiver.stop().await, Stopped::Asked));
    // The slot was told of all that is synced, and of no more.
    let state = slot_state(&rig.writer, &rig.what.slot).await.unwrap().unwrap();
    assert_eq!(state.confirmed, Some(spool.synced().borrow().lsn));
    assert!(state.confirmed >= Some(ends[1]));
    rig.remove().await;
}

#[tokio::test]
async fn torn_tail_is_cut_off_and_received_again() {
    let options = crate::database().await;
    let rig = Rig::new(&options, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let (spool, receiver) = rig.receive().await;
    rig.writer.execute("INSERT INTO t VALUES (0)").await.unwrap();
    assert_eq!(rig.lines(&spool).await, numbered(0..1));
    assert!(matches!(receiver.stop().await, Stopped::Asked));
    drop(spool);
    let file = segments(rig.folder.path()).pop().unwrap();
    let length = std::fs::metadata(&file).unwrap().len();
    for torn in [&b"half a record that was not synced"[..], &[0; 100], &[0xff; 3]] {
        let mut writing = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
        std::io::Write::write_all(&mut writing, torn).unwrap();
        let (spool, receiver) = rig.receive().await;
        rig.mark().await;
        let lines = lines_from(&spool, rig.start).await;
        assert_eq!(lines, numbered(0..1));
        assert!(matches!(receiver.stop().await, Stopped::Asked));
    }
    // A wrong byte in what was synced is no torn tail.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[length as usize - 1] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    match Spool::open(rig.folder.path(), rig.source, rig.start).await {
        Err(SpoolError::Damaged { path, offset, .. }) => assert!(path == file && offset < length, "{offset}"),
        other => panic!("{:?}", other.err()),
    }
    let other = Source { system: 1, timeline: 1 };
    let error = Spool::open(rig.folder.path(), other, rig.start).await.err().unwrap();
    assert!(matches!(error, SpoolError::OtherSource { .. }), "{error}");
    rig.remove().await;
}

#[tokio::test]
async fn limits_stop_it_with_their_reason() {
    let options = crate::database().await;
    let mut rig = Rig::new(&options, "CREATE TABLE t (id int PRIMARY KEY)").await;
    rig.what.limits = Limits { spool_soft: 20_000, spool_hard: 100_000, disk_free_min: 0 };
    let (_spool, mut receiver) = rig.receive().await;
    let mut received = receiver.received();
    rig.writer.execute("INSERT INTO t SELECT generate_series(1, 10000)").await.unwrap();
    let stopped = tokio::time::timeout(PATIENCE, receiver.ended()).await.unwrap();
    assert!(matches!(stopped, Stopped::SpoolFull { bytes: 100_000.., limit: 100_000 }), "{stopped}");
    assert!(received.borrow_and_update().is_filling);
    rig.what.limits = Limits { disk_free_min: u64::MAX, ..NO_LIMITS };
    let (_spool, mut receiver) = rig.receive().await;
    let stopped = tokio::time::timeout(PATIENCE, receiver.ended()).await.unwrap();
    assert!(matches!(stopped, Stopped::DiskLow { limit: u64::MAX, .. }), "{stopped}");
    rig.remove().await;
}

#[tokio::test]
async fn slot_that_goes_or_went_on_without_us_stops_it() {
    let options = crate::database().await;
    let mut rig = Rig::new(&options, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let (spool, receiver) = rig.receive().await;
    rig.writer.execute("INSERT INTO t VALUES (0)").await.unwrap();
    assert_eq!(rig.lines(&spool).await, numbered(0..1));
    assert!(matches!(receiver.stop().await, Stopped::Asked));
    // Somebody else read on.
    rig.writer.execute("INSERT INTO t VALUES (1)").await.unwrap();
    let slot = &rig.what.slot;
    let advance = format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())");
    let free = async {
        while let Err(error) = rig.writer.simple(&advance).await {
            assert_eq!(error.sqlstate(), Some("55006"), "{error}");
        }
    };
    tokio::time::timeout(PATIENCE, free).await.unwrap();
    let (_spool, mut receiver) = rig.receive().await;
    let stopped = tokio::time::timeout(PATIENCE, receiver.ended()).await.unwrap();
    assert!(matches!(stopped, Stopped::Gap { .. }), "{stopped}");
    // Underneath a receiver at work: its walsender is ended, and the slot dropped.
    rig.folder = tempfile::tempdir().unwrap();
    rig.start = slot_state(&rig.writer, slot).await.unwrap().unwrap().confirmed.unwrap();
    let (_spool, mut receiver) = rig.receive().await;
    let mut received = receiver.received();
    tokio::time::timeout(PATIENCE, received.wait_for(|received| received.connections == 1)).await.unwrap().unwrap();
    assert!(drop_slot_if_ours(&rig.writer, slot).await.unwrap());
    let stopped = tokio::time::timeout(PATIENCE, receiver.ended()).await.unwrap();
    assert!(matches!(&stopped, Stopped::SlotMissing(name) if name == slot), "{stopped}");
    assert!(!drop_slot_if_ours(&rig.writer, slot).await.unwrap());
    let error = drop_slot_if_ours(&rig.writer, "somebodys").await.unwrap_err();
    assert!(error.to_string().contains("is not pgrunbook's"), "{error}");
}

#[tokio::test]
async fn invalidated_slot_stops_it() {
    let settings =
        vec![("max_slot_wal_keep_size".to_owned(), "1MB".to_owned()), ("wal_keep_size".to_owned(), "0".to_owned())];
    let cluster = Sandbox::start(SandboxOptions { settings, ..SandboxOptions::default() }).await.unwrap();
    let rig = Rig::new(&cluster.options(), "CREATE TABLE t (id int PRIMARY KEY)").await;
    for _ in 0..4 {
        rig.writer.execute("INSERT INTO t VALUES (1); DELETE FROM t; SELECT pg_switch_wal()").await.unwrap();
    }
    rig.writer.execute("CHECKPOINT").await.unwrap();
    let (_spool, mut receiver) = rig.receive().await;
    let stopped = tokio::time::timeout(PATIENCE, receiver.ended()).await.unwrap();
    assert!(matches!(stopped, Stopped::SlotInvalidated { .. }), "{stopped}");
    let state = slot_state(&rig.writer, &rig.what.slot).await.unwrap().unwrap();
    assert_eq!(state.wal_status.as_deref(), Some("lost"));
    // Another cluster does not fit the spool.
    let other = Receive { connect: crate::cluster().await.options(), ..rig.what.clone() };
    let (spool, writer) = rig.open().await;
    let mut receiver = Receiver::start(spool, writer, other);
    let stopped = tokio::time::timeout(PATIENCE, receiver.ended()).await.unwrap();
    assert!(matches!(stopped, Stopped::OtherSource { .. }), "{stopped}");
}

/// A forgotten prepared transaction, and a session that has written, are named; no slot is left behind.
pub async fn blocked_slot_names_who_is_in_the_way(options: &ConnectOptions) {
    let (blocker, observer) =
        (Session::connect(options, "blocker").await.unwrap(), Session::connect(options, "observer").await.unwrap());
    let gid = format!("forgotten {}", options.database);
    let slot = format!("pgrunbook_blocked_{}", options.database);
    blocker.execute(&format!("BEGIN; CREATE TABLE forgotten (); PREPARE TRANSACTION '{gid}'")).await.unwrap();
    let attempt = async |patience: Duration| {
        let mut connection = Replication::connect(options, "maker").await.unwrap();
        let pid = connection.backend_pid();
        let error = create_slot(&mut connection, &observer, &slot, CreateSlot::default(), patience).await.unwrap_err();
        drop(connection);
        // The walsender was asked to cancel, and goes with what it was making.
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        let wait = async { while observer.value(&gone).await.unwrap() != "0" {} };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
        assert_eq!(slot_state(&observer, &slot).await.unwrap(), None);
        match error {
            CreateSlotError::Blocked { blockers, .. } => blockers,
            CreateSlotError::Postgres(error) => panic!("{error}"),
        }
    };
    // A busy machine may need longer to come to where it waits.
    let blocked = async || {
        let mut patience = Duration::from_millis(300);
        loop {
            match attempt(patience).await {
                nobody if nobody.is_empty() && patience < PATIENCE => patience *= 2,
                found => return found,
            }
        }
    };
    let blockers = blocked().await;
    assert!(matches!(&blockers[..], [SlotBlocker::Prepared { gid: named, .. }] if *named == gid), "{blockers:?}");
    blocker.execute(&format!("ROLLBACK PREPARED '{gid}'")).await.unwrap();
    blocker.execute("BEGIN; CREATE TABLE forgotten ()").await.unwrap();
    let blockers = blocked().await;
    let pid = blocker.backend_pid();
    assert!(matches!(&blockers[..], [SlotBlocker::Session { pid: named, .. }] if *named == pid), "{blockers:?}");
    blocker.execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn slot_is_not_waited_for_for_ever() {
    // A cluster of its own: open transactions of other tests would be in the way too.
    let cluster = Sandbox::start(SandboxOptions::default()).await.unwrap();
    blocked_slot_names_who_is_in_the_way(&cluster.options()).await;
}

#[tokio::test]
async fn stream_of_postgresql_14() {
    streams_on(14).await;
}

#[tokio::test]
async fn stream_of_postgresql_16() {
    streams_on(16).await;
}

#[tokio::test]
async fn stream_of_postgresql_17() {
    streams_on(17).await;
}

#[tokio::test]
async fn stream_of_postgresql_18() {
    streams_on(18).await;
}

/// What differs between versions: how slots are made and described, protocol versions, and what is sent.
async fn streams_on(major: u32) {
    let settings = vec![("logical_decoding_work_mem".to_owned(), "64kB".to_owned())];
    let options = SandboxOptions { major: Some(major), settings, ..SandboxOptions::default() };
    let cluster = Sandbox::start(options).await.unwrap_or_else(|error| panic!("{error}: run scripts/need servers"));
    crate::replication::snapshot_hand_off(&cluster.database("a").await.unwrap()).await;
    changes_are_told(&cluster.database("b").await.unwrap()).await;
    streamed_transactions_are_told_at_their_commit(&cluster.database("c").await.unwrap()).await;
    blocked_slot_names_who_is_in_the_way(&cluster.database("d").await.unwrap()).await;
    let maker = &cluster.database("e").await.unwrap();
    let mut connection = Replication::connect(maker, "maker").await.unwrap();
    assert_eq!(connection.major(), major);
    let how = CreateSlot { failover: true, ..CreateSlot::default() };
    connection.create_slot("pgrunbook_failover", how).await.unwrap();
    let session = Session::connect(maker, "test").await.unwrap();
    let failover =
        "SELECT to_jsonb(s) ->> 'failover' FROM pg_replication_slots s WHERE slot_name = 'pgrunbook_failover'";
    assert_eq!(session.value(failover).await.unwrap(), if major >= 17 { "true" } else { "" });
    assert!(drop_slot_if_ours(&session, "pgrunbook_failover").await.unwrap());
}

#[tokio::test]
async fn receiver_goes_on_in_another_process() {
    let options = crate::database().await;
    let rig = Rig::new(&options, "CREATE TABLE t (id int PRIMARY KEY)").await;
    for round in 0..3 {
        let (spool, receiver) = rig.receive().await;
        rig.writer.execute(&format!("INSERT INTO t VALUES ({round})")).await.unwrap();
        let mut synced = spool.synced();
        let lsn: Lsn = rig.writer.value("SELECT pg_current_wal_lsn()").await.unwrap().parse().unwrap();
        let arrived = synced.wait_for(|synced| synced.lsn >= lsn);
        tokio::time::timeout(PATIENCE, arrived).await.unwrap().unwrap();
        // Dropped without a word, as by a crash.
        drop(receiver);
        let free =
            async { while slot_state(&rig.writer, &rig.what.slot).await.unwrap().unwrap().active_pid.is_some() {} };
        tokio::time::timeout(PATIENCE, free).await.unwrap();
    }
    let (spool, receiver) = rig.receive().await;
    assert_eq!(rig.lines(&spool).await, numbered(0..3));
    assert!(matches!(receiver.stop().await, Stopped::Asked));
    rig.remove().await;
}
