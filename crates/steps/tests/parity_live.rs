//! Parity while the source is written: a real slot, an applier that can be held still, and differences that are planted.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pgrunbook_engine::Cancel;
use pgrunbook_postgres::pgoutput::{Cell, Change, Old, Relation, Row, decode};
use pgrunbook_postgres::{ConnectOptions, Lsn, Session, Snapshot};
use pgrunbook_steps::parity::{Aligned, Ask, Dirty, ParityError, Place, Prover, Reader, TableParity};
use tokio::sync::watch;

use crate::bench::cluster;

/// Rows that no writer touches; theirs have greater ids.
const STILL: i32 = 2_000;

/// Ids that writers choose from, above [`STILL`].
const MOVING: i32 = 3_000;

const WRITERS: u64 = 3;

/// Numbers that a seed decides.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: i32) -> i32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i32::try_from((self.0 >> 33) % u64::from(limit.unsigned_abs())).unwrap()
    }
}

/// A transaction of the stream.
#[derive(Clone)]
struct Applied {
    xid: u32,
    changes: Vec<Change>,
}

/// What the applier and those who hold it share.
struct Applier {
    /// All that was ever applied: the spool.
    spool: Mutex<Vec<Applied>>,
    /// Through which position.
    position: AtomicU64,
    want_pause: watch::Sender<bool>,
    is_paused: watch::Sender<bool>,
    stop: AtomicBool,
    /// The next update is lost once: what parity must find.
    lose: AtomicBool,
    lost: Mutex<Option<i32>>,
    dirty: Dirty,
    reader: Reader,
    control: Session,
    folder: std::path::PathBuf,
}

#[async_trait]
impl Aligned for Applier {
    async fn pause_behind(&self, lsn: Lsn) -> Result<Lsn, ParityError> {
        // Whatever was committed up to there is flushed with it.
        self.control.value("SELECT pg_catalog.pg_logical_emit_message(true, 'test', 'x')").await.unwrap();
        loop {
            self.want_pause.send_replace(true);
            self.is_paused.subscribe().wait_for(|paused| *paused).await.unwrap();
            let position = Lsn(self.position.load(Ordering::SeqCst));
            if position >= lsn {
                return Ok(position);
            }
            self.resume().await;
        }
    }

    async fn unseen(&self, seen: &Snapshot) -> Result<Dirty, ParityError> {
        let dirty = Dirty::new(&self.folder);
        for one in self.spool.lock().unwrap().iter().filter(|one| !seen.sees(one.xid)) {
            for change in &one.changes {
                self.reader.note(&dirty, change)?;
            }
        }
        Ok(dirty)
    }

    async fn resume(&self) {
        self.want_pause.send_replace(false);
        self.is_paused.subscribe().wait_for(|paused| !*paused).await.unwrap();
    }
}

impl Applier {
    /// Reads the slot and applies, until it is told to stop and nothing more comes.
    async fn run(self: Arc<Self>, source: Session, target: Session, slot: String) {
        let read = "SELECT xid::text, data FROM pg_catalog.pg_logical_slot_get_binary_changes($1, NULL, NULL,
            'proto_version', '1', 'publication_names', $2, 'binary', 'true')";
        let mut relations: HashMap<u32, Arc<Relation>> = HashMap::new();
        let mut pause = self.want_pause.subscribe();
        loop {
            let stopping = self.stop.load(Ordering::SeqCst);
            let flushed: Lsn =
                source.value("SELECT pg_catalog.pg_current_wal_flush_lsn()").await.unwrap().parse().unwrap();
            let rows = source.client().query(read, &[&slot, &slot]).await.unwrap();
            let mut open: Option<Applied> = None;
            for row in &rows {
                let data = bytes::Bytes::copy_from_slice(row.get(1));
                let relation = |oid: u32| Arc::clone(&relations[&oid]);
                let change = match decode::decode(&data, false).unwrap() {
                    decode::Message::Begin { xid, .. } => {
                        open = Some(Applied { xid, changes: Vec::new() });
                        None
                    }
                    decode::Message::Commit(_) => {
                        self.apply(&target, open.take().unwrap()).await;
                        None
                    }
                    decode::Message::Relation { relation, .. } => {
                        relations.insert(relation.oid, Arc::new(relation));
                        None
                    }
                    decode::Message::Insert { relation: oid, new, .. } => {
                        Some(Change::Insert { relation: relation(oid), new })
                    }
                    decode::Message::Update { relation: oid, old, new, .. } => {
                        Some(Change::Update { relation: relation(oid), old, new })
                    }
                    decode::Message::Delete { relation: oid, old, .. } => {
                        Some(Change::Delete { relation: relation(oid), old })
                    }
                    other => panic!("{other:?}"),
                };
                if let (Some(open), Some(change)) = (&mut open, change) {
                    open.changes.push(change);
                }
            }
            self.position.store(flushed.0, Ordering::SeqCst);
            if *pause.borrow_and_update() {
                self.is_paused.send_replace(true);
                pause.wait_for(|wanted| !wanted).await.unwrap();
                self.is_paused.send_replace(false);
            }
            if stopping && rows.is_empty() {
                return;
            }
        }
    }

    async fn apply(&self, target: &Session, one: Applied) {
        for change in &one.changes {
            self.reader.note(&self.dirty, change).unwrap();
        }
        self.spool.lock().unwrap().push(one.clone());
        let mut sql = "BEGIN;".to_owned();
        for change in &one.changes {
            match change {
                Change::Insert { new, .. } => {
                    sql.push_str(&format!("INSERT INTO health.t VALUES ({}, {});", int(new, 0), int(new, 1)));
                }
                Change::Update { old, new, .. } => {
                    let id = match old {
                        Some(Old::Key(row) | Old::Full(row)) => int(row, 0),
                        None => int(new, 0),
                    };
                    // A key that moves is told twice, and is lost in two rows: this one loses one.
                    if old.is_none() && self.lose.swap(false, Ordering::SeqCst) {
                        *self.lost.lock().unwrap() = Some(id);
                    } else {
                        sql.push_str(&format!(
                            "UPDATE health.t SET id = {}, v = {} WHERE id = {id};",
                            int(new, 0),
                            int(new, 1)
                        ));
                    }
                }
                Change::Delete { old: Old::Key(row) | Old::Full(row), .. } => {
                    sql.push_str(&format!("DELETE FROM health.t WHERE id = {};", int(row, 0)));
                }
                other => panic!("{other:?}"),
            }
        }
        target.execute(&format!("{sql} COMMIT")).await.unwrap();
    }
}

fn int(row: &Row, at: usize) -> i32 {
    match &row[at] {
        Cell::Binary(bytes) => i32::from_be_bytes(bytes[..].try_into().unwrap()),
        other => panic!("{other:?}"),
    }
}

/// Short transactions and long ones, on keys that others touch, too.
async fn write(options: ConnectOptions, seed: u64, stop: Arc<AtomicBool>) {
    let session = Session::connect(&options, "writer").await.unwrap();
    let mut random = Random(seed);
    while !stop.load(Ordering::SeqCst) {
        session.execute("BEGIN").await.unwrap();
        for _ in 0..=random.below(3) {
            let id = STILL + 1 + random.below(MOVING);
            let value = random.below(1_000_000);
            let sql = match random.below(5) {
                0 => format!("DELETE FROM t WHERE id = {id}"),
                // A key that moves to another one, far above.
                1 => format!(
                    "UPDATE t SET id = id + {MOVING} WHERE id = {id} AND NOT EXISTS (SELECT FROM t WHERE id = {id} + {MOVING})"
                ),
                2 => format!("INSERT INTO t VALUES ({id}, {value}) ON CONFLICT DO NOTHING"),
                _ => format!("UPDATE t SET v = {value} WHERE id = {id}"),
            };
            if let Err(error) = session.execute(&sql).await {
                // Two writers in each other's way.
                assert!(matches!(error.sqlstate(), Some("40P01" | "23505")), "{error}");
                break;
            }
        }
        let end = if random.below(8) == 0 { "ROLLBACK" } else { "COMMIT" };
        session.execute(end).await.unwrap();
        // As clients are: at full speed they take the processors from what they are to disturb.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn keys(table: &TableParity) -> BTreeSet<i32> {
    assert_eq!(table.listed.len() as u64, table.totals.all());
    table.listed.iter().map(|one| one.key[0].1.as_ref().unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_differences_are_found_under_writers_and_no_others() {
    let options = cluster().await.fresh_database("parity_live").await.unwrap();
    let control = Session::connect(&options, "test").await.unwrap();
    let slot = options.database.clone();
    control
        .execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, g FROM pg_catalog.generate_series(1, {0}) AS g;
             CREATE SCHEMA health; CREATE TABLE health.t (LIKE t INCLUDING ALL); INSERT INTO health.t SELECT * FROM t;
             CREATE PUBLICATION {slot} FOR TABLE public.t",
            STILL + MOVING
        ))
        .await
        .unwrap();
    control
        .value(&format!("SELECT pg_catalog.pg_create_logical_replication_slot('{slot}', 'pgoutput')"))
        .await
        .unwrap();

    let place = |schema: &str| Place::Postgres { options: Box::new(options.clone()), schema: schema.to_owned() };
    let cancel = Cancel::default();
    let ask = Ask {
        tables: &[],
        exclude: &[],
        jobs: 1,
        shown: 100,
        application_name: "parity",
        cancel: &cancel,
        tell: &|_, _| {},
    };
    let mut prover = Prover::open([&place("public"), &place("health")], &ask).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    // So small that keys go to the file.
    let dirty = Dirty::with_memory(folder.path(), 4_000);
    let applier = Arc::new(Applier {
        spool: Mutex::default(),
        position: AtomicU64::new(0),
        want_pause: watch::Sender::new(false),
        is_paused: watch::Sender::new(false),
        stop: AtomicBool::new(false),
        lose: AtomicBool::new(false),
        lost: Mutex::default(),
        dirty: dirty.clone(),
        reader: prover.reader(),
        control: Session::connect(&options, "control").await.unwrap(),
        folder: folder.path().to_owned(),
    });
    let connect = || Session::connect(&options, "applier");
    let running =
        tokio::spawn(Arc::clone(&applier).run(connect().await.unwrap(), connect().await.unwrap(), slot.clone()));

    let mut unseen_rows = 0;
    for seed in 1..=20_u64 {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| tokio::spawn(write(options.clone(), seed * 100 + number, Arc::clone(&stop))))
            .collect();
        // Among rows that nobody else touches, so that what is planted stays.
        let mut random = Random(seed);
        let planted: BTreeSet<i32> = (0..random.below(4)).map(|_| 1 + random.below(STILL)).collect();
        for (at, id) in planted.iter().enumerate() {
            let sql = match at {
                0 => format!("UPDATE health.t SET v = -1 WHERE id = {id}"),
                _ => format!("DELETE FROM health.t WHERE id = {id}"),
            };
            control.execute(&sql).await.unwrap();
        }
        // The writers are at work: wait until the applier has seen some of it.
        let before = applier.spool.lock().unwrap().len();
        while applier.spool.lock().unwrap().len() < before + 20 {
            assert!(!running.is_finished(), "the applier ended");
            tokio::task::yield_now().await;
        }
        let pass = prover.base_pass(&*applier, &dirty).await.unwrap();
        assert_eq!(keys(&pass.tables[0]), planted, "seed {seed}");
        unseen_rows += pass.tables[0].skipped[0];
        assert!(pass.applied >= pass.source, "seed {seed}");
        control
            .execute(
                "DELETE FROM health.t AS h USING t WHERE t.id = h.id AND h.id <= 2000 AND t.v <> h.v;
                INSERT INTO health.t SELECT * FROM t WHERE id <= 2000 AND id NOT IN (SELECT id FROM health.t)",
            )
            .await
            .unwrap();
        // What was put right is compared again, as are the dirty keys.
        let again = prover.recheck(&*applier, &dirty).await.unwrap();
        assert!(again.holds(), "seed {seed}: {:?}", again.tables);

        // A change that the applier loses is found in the freeze, and nothing else is.
        let loses = seed % 2 == 0;
        applier.lose.store(loses, Ordering::SeqCst);
        while loses && applier.lost.lock().unwrap().is_none() {
            assert!(!running.is_finished(), "the applier ended");
            tokio::task::yield_now().await;
        }
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.await.unwrap();
        }
        let fence: Lsn = control.value("SELECT pg_catalog.pg_current_wal_flush_lsn()").await.unwrap().parse().unwrap();
        applier.pause_behind(fence).await.unwrap();
        let settled = prover.settle(&dirty).await.unwrap();
        let truth: BTreeSet<i32> = control
            .simple("SELECT coalesce(a.id, b.id) FROM t AS a FULL JOIN health.t AS b USING (id) WHERE a.v IS DISTINCT FROM b.v")
            .await
            .unwrap()
            .swap_remove(0)
            .rows
            .into_iter()
            .map(|row| row[0].as_ref().unwrap().parse().unwrap())
            .collect();
        let found: BTreeSet<i32> = settled.tables.iter().flat_map(keys).collect();
        assert_eq!(found, truth, "seed {seed}");
        if let Some(id) = applier.lost.lock().unwrap().take() {
            assert!(truth.is_subset(&[id].into()), "seed {seed}: {truth:?}, lost {id}");
        }
        let count: i64 = control.value("SELECT count(*) FROM health.t").await.unwrap().parse().unwrap();
        assert_eq!(prover.rows("t", &dirty), Some(count), "seed {seed}");
        prover.rest().await.unwrap();
        control.execute("TRUNCATE health.t; INSERT INTO health.t SELECT * FROM t").await.unwrap();
        applier.resume().await;
    }
    assert!(unseen_rows > 0, "no round had a transaction between the two snapshots: nothing was tried");
    applier.stop.store(true, Ordering::SeqCst);
    running.await.unwrap();
    control.value(&format!("SELECT pg_catalog.pg_drop_replication_slot('{slot}')")).await.unwrap();
}

/// As many keys as a freeze may have, of a table with an index; and keys that are not there.
#[tokio::test]
async fn given_keys_are_compared_by_their_index() {
    let options = cluster().await.fresh_database("parity_keys").await.unwrap();
    let session = Session::connect(&options, "test").await.unwrap();
    session
        .execute(
            "CREATE TABLE t (id bigint, day date, v text, PRIMARY KEY (id, day)); CREATE SCHEMA health;
             INSERT INTO t SELECT g, '2024-01-01', 'v' || g FROM pg_catalog.generate_series(1, 50000) AS g;
             CREATE TABLE health.t (LIKE t INCLUDING ALL); INSERT INTO health.t SELECT * FROM t; ANALYZE;
             UPDATE health.t SET v = 'x' WHERE id = 777; DELETE FROM health.t WHERE id = 40000",
        )
        .await
        .unwrap();
    let place = |schema: &str| Place::Postgres { options: Box::new(options.clone()), schema: schema.to_owned() };
    let cancel = Cancel::default();
    let ask = Ask {
        tables: &[],
        exclude: &[],
        jobs: 1,
        shown: 9,
        application_name: "parity",
        cancel: &cancel,
        tell: &|_, _| {},
    };
    let prover = Prover::open([&place("public"), &place("health")], &ask).await.unwrap();
    let key = |id: i64| {
        // 2024-01-01 is day 8766 since 2000-01-01.
        [&8_i32.to_be_bytes()[..], &id.to_be_bytes(), &4_i32.to_be_bytes(), &8766_i32.to_be_bytes()].concat()
    };
    let found = prover.compare_keys("t", &(1..=12_000).chain([40_000, 60_000]).map(key).collect()).await.unwrap();
    assert_eq!((found.totals.differ, found.totals.missing_in_b, found.totals.all()), (1, 1, 2));
    assert_eq!((found.sums[0].rows, found.sums[1].rows), (12_001, 12_000));
}
