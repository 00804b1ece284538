//! From a slot through the spool to events, on real servers.

use pgrunbook_postgres::pgoutput::{Cell, Change, Event, Old, Row};
use pgrunbook_postgres::receiver::{Limits, Receive, Receiver, Stopped};
use pgrunbook_postgres::replication::{CreateSlot, Replication, StreamOptions};
use pgrunbook_postgres::slots::{create_publication, drop_slot_if_ours};
use pgrunbook_postgres::spool::{Follow, Source, Spool, Writer};
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
