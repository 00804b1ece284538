//! Transfers from a SQLite file, as runbooks: there, back, and there again, with writers at work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgrunbook_engine::{Cancel, RunEnd};
use pgrunbook_steps::transfer::{Source, complete, keep_following, status, table};
use rusqlite::Connection;

use crate::bench::{Bench, failure};
use crate::transfer::logical;

/// A project whose source `old` is a file.
pub struct File {
    pub bench: Bench,
}

pub const LEGACY: &str = "
    PRAGMA journal_mode = wal;
    CREATE TABLE visit (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL, at DATETIME, score NUMERIC, notes INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE note (visit INTEGER NOT NULL REFERENCES visit (id) ON DELETE CASCADE, n INTEGER NOT NULL, body TEXT, raw BLOB, PRIMARY KEY (visit, n)) WITHOUT ROWID;
    CREATE TABLE heard (who TEXT, at DATETIME);
    CREATE TRIGGER noted AFTER INSERT ON note BEGIN UPDATE visit SET notes = notes + 1 WHERE id = new.visit; END;
    CREATE TABLE trace (line TEXT);
    CREATE TRIGGER traced AFTER DELETE ON note BEGIN INSERT INTO trace VALUES (old.body); END;
    WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 300)
        INSERT INTO visit (what, at, score) SELECT 'visit ' || i, '2024-01-01T00:00:' || printf('%02d', i % 60), i / 10.0 FROM i;
    UPDATE visit SET at = replace(at, 'T', ' ') WHERE id % 7 = 0;
    INSERT INTO note SELECT id, 1, substr('xxxxxxxxxxxxxxxxxxxx', 1, id % 20), zeroblob(id % 5) FROM visit;
    INSERT INTO heard VALUES ('anna', '2024-01-01T00:00:00'), ('anna', '2024-01-01T00:00:00'), (NULL, '2024-02-01 00:00:00');";

impl File {
    pub async fn new(sql: &str) -> Self {
        let mut bench = Bench::on(logical().await.fresh_database("file").await.unwrap());
        bench.config("[targets.old]\nsqlite = \"old.db\"\n");
        let this = Self { bench };
        this.open().execute_batch(sql).unwrap();
        this
    }

    pub fn path(&self) -> PathBuf {
        self.bench.path("old.db")
    }

    pub fn open(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(Duration::from_secs(20)).unwrap();
        connection
    }

    pub fn in_file(&self, sql: &str) -> String {
        self.open()
            .query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0))
            .map(|value| match value {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => format!("{other:?}"),
            })
            .unwrap()
    }

    pub async fn done(&self, steps: &str) -> String {
        let text = format!("# Move\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n{steps}");
        let (run, end) = self.bench.run(&text).await;
        assert!(matches!(end, RunEnd::Completed), "{end:?}");
        run
    }

    /// Both sides, row by row, as far as PostgreSQL knows them.
    pub async fn is_equal(&self) {
        let visits =
            "SELECT group_concat(id || ':' || what || ':' || notes, ';') FROM (SELECT * FROM visit ORDER BY id)";
        let here = "SELECT string_agg(id || ':' || what || ':' || notes, ';' ORDER BY id) FROM health.visit";
        assert_eq!(self.in_file(visits), self.bench.value(here).await);
        let notes = "SELECT group_concat(visit || ':' || n || ':' || coalesce(body, '-') || ':' || length(raw), ';')
             FROM (SELECT * FROM note ORDER BY visit, n)";
        let here = "SELECT string_agg(visit || ':' || n || ':' || coalesce(body, '-') || ':' || length(raw), ';' ORDER BY visit, n) FROM health.note";
        assert_eq!(self.in_file(notes), self.bench.value(here).await);
    }
}

/// Writes one thing after another until it is refused, and knows what was accepted.
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<(BTreeMap<i64, String>, Option<String>)>,
}

impl Writer {
    pub fn start(path: PathBuf) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, count) = (stop.clone(), written.clone());
        let thread = std::thread::spawn(move || {
            let connection = Connection::open(path).unwrap();
            connection.busy_timeout(Duration::from_secs(60)).unwrap();
            let mut known = BTreeMap::new();
            for number in 0_i64.. {
                if ends.load(Ordering::SeqCst) {
                    break;
                }
                let (id, what) = (100_000 + number % 50, format!("write {number}"));
                let done = match number % 4 {
                    0 => connection.execute("INSERT OR REPLACE INTO visit (id, what) VALUES (?1, ?2)", (id, &what)),
                    1 => connection.execute(
                        "INSERT INTO visit (id, what) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET what = excluded.what",
                        (id, &what),
                    ),
                    2 => connection.execute("DELETE FROM visit WHERE id = ?1", [id]),
                    _ => connection.execute("REPLACE INTO visit (id, what) VALUES (?1, ?2)", (id, &what)),
                };
                match done {
                    Ok(_) if number % 4 == 2 => drop(known.remove(&id)),
                    Ok(_) => drop(known.insert(id, what)),
                    Err(error) => return (known, Some(error.to_string())),
                }
                count.fetch_add(1, Ordering::SeqCst);
                // Others get the lock only in between: SQLite's waiters do not queue.
                std::thread::sleep(Duration::from_micros(300));
            }
            (known, None)
        });
        Self { stop, written, thread }
    }

    pub fn has_written(&self, more: u64) {
        let wanted = self.written.load(Ordering::SeqCst) + more;
        let begun = Instant::now();
        while self.written.load(Ordering::SeqCst) < wanted {
            assert!(begun.elapsed() < Duration::from_secs(60), "the writer does not write");
            std::thread::yield_now();
        }
    }

    pub fn refused(self) -> (BTreeMap<i64, String>, String) {
        let (known, said) = self.thread.join().unwrap();
        (known, said.unwrap())
    }

    pub fn ended(self) -> BTreeMap<i64, String> {
        self.stop.store(true, Ordering::SeqCst);
        let (known, said) = self.thread.join().unwrap();
        assert_eq!(said, None);
        known
    }
}

pub fn shown(known: &BTreeMap<i64, String>) -> String {
    known.iter().map(|(id, what)| format!("{id}:{what}")).collect::<Vec<_>>().join(";")
}

pub const WRITTEN: &str =
    "SELECT coalesce(string_agg(id || ':' || what, ';' ORDER BY id), '') FROM health.visit WHERE id >= 100000";
pub const WRITTEN_HERE: &str = "SELECT coalesce(group_concat(id || ':' || what, ';'), '') FROM (SELECT * FROM visit WHERE id >= 100000 ORDER BY id)";

pub fn load(more: &str) -> String {
    format!(
        "## Load\n\n```toml step\ntransfer = \"load\"\nfrom = \"old\"\ntarget = \"main\"\nschema = \"health\"\n\
         accept = [\"triggers\", \"no-key\", \"trigger\"]\n{more}undo = \"auto\"\n```\n\n"
    )
}

pub fn cross(id: &str, more: &str) -> String {
    format!(
        "## Cut over {id}\n\n```toml step\ncutover = \"{id}\"\ntarget = \"main\"\nschemas = [\"health\"]\n\
         budget = \"20s\"\n{more}undo = \"auto\"\n```\n\n"
    )
}

pub const FOLLOW: &str = "## Follow\n\n```toml step\nfollow = \"up\"\ntarget = \"main\"\nschema = \"health\"\n```\n\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_there_and_back_and_there_again_under_writers() {
    let this = File::new(LEGACY).await;
    let writer = Writer::start(this.path());
    writer.has_written(20);
    this.done(&load("")).await;
    writer.has_written(20);
    this.done(FOLLOW).await;
    writer.has_written(20);
    let before = this.in_file("SELECT group_concat(id || at, ';') FROM visit WHERE id BETWEEN 2 AND 299");
    let run = this.done(&cross("go", "")).await;
    let (known, said) = writer.refused();
    assert!(said.contains("cut over to schema health of main"), "{said}");
    assert_eq!(shown(&known), this.bench.value(WRITTEN).await, "every accepted write is there, and no other");
    this.is_equal().await;
    let evidence = this.bench.evidence(&run, "go").await;
    let proof = &evidence.facts["health"]["no_writer_left"];
    assert_eq!(proof["writes_tried_and_refused"], 4, "{evidence:?}");

    // In the target: a value, a key's deletion, a row without a key, one among equal rows.
    this.bench
        .execute(
            "SET TimeZone = 'UTC'; INSERT INTO health.visit (what, at) VALUES ('after', '2025-05-05 05:05:05');
             UPDATE health.visit SET what = 'other' WHERE id = 1; DELETE FROM health.note WHERE visit = 3;
             UPDATE health.note SET n = 9 WHERE visit = 4; INSERT INTO health.note VALUES (5, 2, 'new', '\\x00ff');
             DELETE FROM health.heard WHERE ctid = (SELECT min(ctid) FROM health.heard WHERE who = 'anna');
             UPDATE health.heard SET who = 'else' WHERE who IS NULL",
        )
        .await;
    let id: i64 = this.bench.value("SELECT id FROM health.visit WHERE what = 'after'").await.parse().unwrap();
    assert!(id > 100_000, "numbers go on behind the file's: {id}");
    this.done(FOLLOW).await;
    assert_eq!(this.in_file("SELECT count(*) FROM visit WHERE what = 'after' AND at = '2025-05-05T05:05:05'"), "1");
    this.is_equal().await;
    assert_eq!(this.in_file("SELECT group_concat(who, ';') FROM (SELECT who FROM heard ORDER BY who)"), "anna;else");
    // A value that is stored apart from its row, and that a change of another column does not bring; and a table that is emptied.
    let long = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 600) AS i)";
    this.bench
        .execute(&format!(
            "INSERT INTO health.note VALUES (6, 2, {long}, ''); UPDATE health.visit SET what = {long} WHERE id = 8"
        ))
        .await;
    let stored = "SELECT bool_and(pg_relation_size(reltoastrelid) > 0) FROM pg_class WHERE oid IN ('health.note'::regclass, 'health.visit'::regclass)";
    assert_eq!(this.bench.value(stored).await, "t", "they would come with the row");
    this.done(FOLLOW).await;
    this.bench
        .execute(
            "UPDATE health.note SET raw = '\\x0102' WHERE visit = 6 AND n = 2; UPDATE health.visit SET notes = 77 WHERE id = 8;
             TRUNCATE health.heard; INSERT INTO health.heard VALUES ('last', NULL)",
        )
        .await;
    this.done(FOLLOW).await;
    this.is_equal().await;
    let lengths = "SELECT (SELECT length(body) || ':' || hex(raw) FROM note WHERE visit = 6 AND n = 2) || ';' ||
        (SELECT length(what) || ':' || notes FROM visit WHERE id = 8)";
    assert_eq!(this.in_file(lengths), "19200:0102;19200:77");
    assert_eq!(this.in_file("SELECT group_concat(who, ';') FROM heard"), "last");
    // What nobody touched is as it was, in its own spelling; and the fence stands.
    let after = this.in_file("SELECT group_concat(id || at, ';') FROM visit WHERE id BETWEEN 2 AND 299");
    assert_eq!(before, after);
    let refused = this.open().execute("UPDATE note SET body = 'late'", []).unwrap_err().to_string();
    assert!(refused.contains("table note was cut over"), "{refused}");

    let run = this.done(&cross("back", "to = \"source\"\n")).await;
    assert_eq!(this.bench.evidence(&run, "back").await.facts["health"]["parity"]["differences"], 0);
    this.is_equal().await;
    let refused = this.bench.session().await.execute("DELETE FROM health.note").await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("25006"), "{refused}");

    let writer = Writer::start(this.path());
    writer.has_written(20);
    this.done(&cross("again", "parity = \"full\"\n")).await;
    let (known, _) = writer.refused();
    for (id, what) in &known {
        assert_eq!(&this.bench.value(&format!("SELECT what FROM health.visit WHERE id = {id}")).await, what);
    }
    assert_eq!(this.in_file(WRITTEN_HERE), this.bench.value(WRITTEN).await);
    this.is_equal().await;

    let workplace = this.bench.opened().await.workplace;
    let all = status(&workplace, "main", None).await.unwrap();
    assert_eq!(all[0].rollback.line(), "rollback is lossless: yes");
    assert_eq!(all[0].streams.len(), 2, "{all:?}");
    complete(&workplace, "main", "health", "test", &Cancel::default(), Source::There).await.unwrap();
    assert_eq!(status(&workplace, "main", None).await.unwrap()[0].to_json()["rollback_is_lossless"], false);
    assert_eq!(this.in_file("SELECT count(*) FROM sqlite_master WHERE name = '_pgrunbook_state'"), "0");
    assert!(this.open().execute("DELETE FROM visit", []).is_err(), "the file stays fenced");
    let left = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(this.bench.value(left).await, "0");
}

/// What `pgrunbook transfer follow` does every two seconds, between two runs.
#[tokio::test(flavor = "multi_thread")]
async fn follower_brings_what_is_written_on_either_side() {
    let this = File::new(LEGACY).await;
    this.done(&load("")).await;
    let workplace = this.bench.opened().await.workplace;
    this.open().execute_batch("UPDATE visit SET what = 'meanwhile' WHERE id = 7").unwrap();
    keep_following(&workplace, "main", "health").await.unwrap();
    assert_eq!(this.bench.value("SELECT what FROM health.visit WHERE id = 7").await, "meanwhile");
    this.is_equal().await;
    let told = table(&status(&workplace, "main", None).await.unwrap());
    assert!(!told.contains("nobody follows the forward stream"), "a file has no server that keeps anything: {told}");
    workplace.followers().end("main", "health").await;

    this.done(&cross("go", "")).await;
    this.bench.execute("UPDATE health.visit SET what = 'home' WHERE id = 7").await;
    let begun = Instant::now();
    while this.in_file("SELECT what FROM visit WHERE id = 7") != "home" {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody brings it home");
        keep_following(&workplace, "main", "health").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    this.is_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_holds_is_named_and_writers_go_on() {
    let this = File::new(&LEGACY.replace("wal", "delete")).await;
    this.done(&load("")).await;
    let holder = this.open();
    holder.execute_batch("BEGIN IMMEDIATE; UPDATE visit SET what = 'held' WHERE id = 2").unwrap();
    let text = |id: &str| {
        let step = cross(id, "").replace("20s", "4s");
        format!("# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n{step}")
    };
    let (_, end) = this.bench.run(&text("held")).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "sqlite-busy", "{message}");
    assert!(message.contains("in a transaction that writes"), "{message}");
    assert!(message.contains("Writers go on where they were"), "{message}");
    holder.execute_batch("COMMIT").unwrap();
    assert_eq!(this.bench.value("SELECT phase FROM pgrunbook.transfer").await, "following");

    // A reader holds up the commit, after PostgreSQL has the rows: the file goes on, and is right.
    holder.execute_batch("BEGIN; SELECT count(*) FROM visit").unwrap();
    let (_, end) = this.bench.run(&text("read")).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "sqlite-busy", "{message}");
    assert!(message.contains("a commit waits for it"), "{message}");
    holder.execute_batch("ROLLBACK").unwrap();
    assert_eq!(
        this.bench.value("SELECT what FROM health.visit WHERE id = 2").await,
        "held",
        "PostgreSQL had committed"
    );
    this.open().execute("UPDATE visit SET what = 'goes on' WHERE id = 2", []).unwrap();
    assert!(this.bench.session().await.execute("DELETE FROM health.note").await.is_err(), "the target is closed");
    this.done(&cross("now", "")).await;
    assert_eq!(this.bench.value("SELECT what FROM health.visit WHERE id = 2").await, "goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_files_fence_and_the_opened_target_is_undone() {
    let this =
        File::new("CREATE TABLE visit (id INTEGER PRIMARY KEY, what TEXT); INSERT INTO visit VALUES (1, 'one')").await;
    this.done(&load("")).await;
    // Whoever holds this keeps the target from being opened.
    let holder = this.bench.session().await;
    holder.execute("BEGIN; LOCK TABLE health.visit IN ROW EXCLUSIVE MODE").await.unwrap();
    let run = this
        .bench
        .begin(&format!("# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n{}", cross("go", "")))
        .await;
    let sealed = async {
        let is_sealed = "SELECT count(*) FROM sqlite_master WHERE name = '_pgrunbook_fence'";
        let begun = Instant::now();
        while this.in_file(is_sealed) != "1" {
            assert!(begun.elapsed() < Duration::from_secs(30), "the file was not fenced");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        biased;
        end = this.bench.resume(&run) => panic!("it ended: {end:?}"),
        () = sealed => {}
    }
    assert!(this.open().execute("DELETE FROM visit", []).is_err());
    assert_eq!(this.bench.value("SELECT phase FROM pgrunbook.transfer").await, "forth");
    holder.execute("ROLLBACK").await.unwrap();
    // The journal's lease is held by a process that is alive: this one. The records in the target are what counts.
    for entry in std::fs::read_dir(this.bench.path(".pgrunbook")).unwrap().flatten() {
        if entry.path().is_file() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    // Another run finds what was left, lifts the file's fence, and crosses.
    this.done(&cross("again", "")).await;
    this.bench.execute("INSERT INTO health.visit VALUES (2, 'two')").await;
    this.done(FOLLOW).await;
    assert_eq!(this.in_file("SELECT count(*) FROM visit"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_schemas_stop_it_on_either_side() {
    let this =
        File::new("CREATE TABLE visit (id INTEGER PRIMARY KEY, what TEXT); INSERT INTO visit VALUES (1, 'one')").await;
    this.done(&load("")).await;
    this.open().execute_batch("ALTER TABLE visit ADD COLUMN more TEXT; UPDATE visit SET what = 'two'").unwrap();
    let header = "# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n";
    let (_, end) = this.bench.run(&format!("{header}{FOLLOW}")).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "file-schema");
    assert!(message.contains("table visit is another") && message.contains("more TEXT"), "{message}");
    assert_eq!(this.bench.value("SELECT what FROM health.visit").await, "one");
    this.open().execute_batch("ALTER TABLE visit DROP COLUMN more").unwrap();
    this.done(&cross("go", "")).await;
    assert_eq!(this.bench.value("SELECT what FROM health.visit").await, "two");

    this.bench.execute("ALTER TABLE health.visit ADD COLUMN more text; UPDATE health.visit SET more = 'x'").await;
    let (_, end) = this.bench.run(&format!("{header}{FOLLOW}")).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "stream-ddl", "{message}");
    assert!(message.contains("were id, what, and are id, what, more"), "{message}");
    let (_, end) = this.bench.run(&format!("{header}{}", cross("back", "to = \"source\"\n"))).await;
    assert_eq!(failure(&end).1, "stream-ddl", "nobody goes back while it stands still");
    assert!(this.open().execute("DELETE FROM visit", []).is_err(), "the file stays fenced");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_there_are_filled_and_an_undo_leaves_nothing() {
    let this = File::new(LEGACY).await;
    this.bench
        .execute(
            "CREATE SCHEMA health;
             CREATE TABLE health.visit (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what varchar NOT NULL,
                 at timestamp, score numeric, notes bigint NOT NULL DEFAULT 0, extra text DEFAULT 'mine');
             CREATE TABLE health.note (visit bigint NOT NULL, n smallint NOT NULL, body text, raw bytea, PRIMARY KEY (visit, n));
             CREATE TABLE health.heard (who text, at timestamp)",
        )
        .await;
    let steps = load("structure = \"existing\"\nexclude = [\"trace\"]\n");
    let text = format!("# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n{steps}{}", cross("go", ""));
    let fails = "## Fails\n\n```sql step\n-- check: never    target: main\n-- expect: 0 rows\nSELECT 1;\n```\n";
    let (run, end) = this.bench.run(&format!("{text}{fails}")).await;
    assert_eq!(failure(&end).0, "never");
    this.is_equal().await;
    this.bench
        .execute("INSERT INTO health.visit (what) VALUES ('new'); INSERT INTO health.note VALUES (10, 5, 'x', '')")
        .await;
    let end = this.bench.rollback(&run, "undo").await;
    assert!(matches!(end, RunEnd::RolledBack), "{end:?}");
    assert_eq!(this.in_file("SELECT count(*) FROM visit WHERE what = 'new'"), "1");
    assert_eq!(this.in_file("SELECT notes FROM visit WHERE id = 10"), "1", "a trigger did not count again");
    assert_eq!(this.in_file("SELECT count(*) FROM sqlite_master WHERE name LIKE '%pgrunbook%'"), "0");
    assert_eq!(this.in_file("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"), "2");
    assert_eq!(this.bench.value("SELECT count(*) FROM health.visit").await, "0");
    let left = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(this.bench.value(left).await, "0");
    let writer = Writer::start(this.path());
    writer.has_written(5);
    assert!(!writer.ended().is_empty());
}

const MAPPED: &str = "
    CREATE TABLE item (id TEXT PRIMARY KEY NOT NULL, seen INTEGER, heard INTEGER, price TEXT, rate REAL, junk TEXT);
    INSERT INTO item VALUES
        ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 1700000000, 1700000000123, '1.50', 0.1, 'mine'),
        ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12', -1, 0, '12345678901234567890.00', 12.25, NULL),
        ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13', NULL, NULL, NULL, NULL, 'theirs');";

/// Every column is something else than it would be by itself.
const MAP: &str = "map = { \"item.id\" = \"uuid\", \"item.seen\" = \"timestamptz from unix seconds\", \
    \"item.heard\" = \"timestamp from unix milliseconds\", \"item.price\" = \"numeric\", \"item.rate\" = \"numeric\", \
    \"item.junk\" = \"skip\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_step_says_of_columns_holds_there_and_back_for_every_value() {
    let this = File::new(MAPPED).await;
    let asked = |kind: &str, more: &str| {
        let undo = if kind == "transfer" { "undo = \"auto\"\n" } else { "" };
        format!(
            "## {kind}\n\n```toml step\n{kind} = \"{kind}-it\"\nfrom = \"old\"\ntarget = \"main\"\nschema = \"health\"\n{MAP}{more}{undo}```\n\n"
        )
    };
    let text = format!("# Look\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n{}", asked("preflight", ""));
    let (_, end) = this.bench.run(&text).await;
    let (_, _, message) = failure(&end);
    assert!(message.contains("junk"), "nothing stays behind without consent: {message}");
    let accept = "accept = [\"skip\"]\n";
    this.done(&format!("{}{}", asked("preflight", accept), asked("transfer", accept))).await;

    let types =
        "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'health.item'::regclass AND attnum > 0 AND NOT attisdropped";
    assert_eq!(
        this.bench.value(types).await,
        "id uuid, seen timestamp with time zone, heard timestamp without time zone, price numeric, rate numeric"
    );
    let here = "SET TimeZone = 'UTC'; SELECT string_agg(concat_ws('|', right(id::text, 2), seen, heard, price, rate), ';' ORDER BY id) FROM health.item";
    let there = "SELECT group_concat(substr(id, 35) || '|' || quote(seen) || '|' || quote(heard) || '|' || quote(price) || '|' || quote(rate)
        || '|' || quote(junk), ';') FROM (SELECT * FROM item ORDER BY id)";
    assert_eq!(
        this.bench.value(here).await,
        "11|2023-11-14 22:13:20+00|2023-11-14 22:13:20.123|1.50|0.1;\
         12|1969-12-31 23:59:59+00|1970-01-01 00:00:00|12345678901234567890.00|12.25;13"
    );

    this.done(&cross("go", "")).await;
    this.bench
        .execute(
            "UPDATE health.item SET seen = '2024-02-29 12:34:56+00', heard = '2024-02-29 12:34:56.789', price = 2.00, rate = 0.2
                 WHERE id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11';
             DELETE FROM health.item WHERE id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12';
             INSERT INTO health.item VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a14', '1999-12-31 23:59:59+00', NULL, 0.10, 7.5)",
        )
        .await;
    this.done(FOLLOW).await;
    assert_eq!(
        this.in_file(there),
        "11|1709210096|1709210096789|'2.00'|0.2|'mine';13|NULL|NULL|NULL|NULL|'theirs';14|946684799|NULL|'0.10'|7.5|NULL"
    );
    let run = this.done(&cross("back", "to = \"source\"\n")).await;
    assert_eq!(this.bench.evidence(&run, "back").await.facts["health"]["parity"]["differences"], 0);

    this.open()
        .execute_batch("UPDATE item SET seen = 1600000000, price = '3.000' WHERE junk = 'theirs'; DELETE FROM item WHERE junk = 'mine'")
        .unwrap();
    this.done(&cross("again", "parity = \"full\"\n")).await;
    assert_eq!(this.bench.value(here).await, "13|2020-09-13 12:26:40+00|3.000;14|1999-12-31 23:59:59+00|0.10|7.5");
}
