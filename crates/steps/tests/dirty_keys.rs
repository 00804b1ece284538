//! Triggers in a SQLite file note the keys of changed rows: nothing is missed, doubts end in a look at all rows, and
//! nothing of it stays behind.

use std::collections::{BTreeMap, BTreeSet};

use pgrunbook_engine::Cancel;
use pgrunbook_steps::transfer::{Source, abandon, complete};
use rusqlite::config::DbConfig;
use serde_json::Value;

use crate::bench::failure;
use crate::transfer_sqlite::{FOLLOW, File, LEGACY, WRITTEN, Writer, cross, load, shown};

const HEADER: &str = "# Go\n\n```toml runbook\ntargets = [\"main\", \"old\"]\n```\n\n";

/// A load with dirty keys, which consents to `words` also.
fn noting(words: &str) -> String {
    load("sync = \"dirty-keys\"\n").replace("accept = [", &format!("accept = [\"dirty-keys\", {words}"))
}

/// What the file declares.
fn declared(this: &File) -> String {
    this.in_file(
        "SELECT group_concat(type || name || tbl_name || coalesce(sql, ''), char(10)) FROM (SELECT * FROM sqlite_schema ORDER BY rowid)",
    )
}

fn ours(this: &File) -> String {
    this.in_file("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%pgrunbook_dirty%'")
}

/// Follows once, and what is known of how.
async fn followed(this: &File) -> Value {
    let run = this.done(FOLLOW).await;
    this.bench.evidence(&run, "up").await.facts["synced"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_into_a_file_without_consent() {
    let this = File::new(LEGACY).await;
    let before = declared(&this);
    let runbook = this.bench.parse(&format!("{HEADER}{}", load("sync = \"dirty-keys\"\n")));
    let plan = this.bench.engine().await.plan(&runbook, &BTreeMap::new()).await.unwrap();
    let message = format!("{plan:?}");
    assert!(message.contains("stands in the way of the transfer"), "{message}");
    for said in [
        "_pgrunbook_dirty_head",
        "12 triggers",
        "4 tables",
        "take all of it",
        "Of heard, trace it is noted only that they changed",
    ] {
        assert!(message.contains(said), "{said} is not in {message}");
    }
    assert_eq!(declared(&this), before);
}

const ALL: &str = "
    PRAGMA journal_mode = wal;
    CREATE TABLE p (id INTEGER PRIMARY KEY, u TEXT UNIQUE, v INT);
    CREATE TABLE c (p INTEGER NOT NULL REFERENCES p (id) ON DELETE CASCADE ON UPDATE CASCADE, n INT NOT NULL, t TEXT,
        w TEXT NOT NULL DEFAULT 'd', PRIMARY KEY (p, n), UNIQUE (w, n)) WITHOUT ROWID;
    CREATE TABLE k (k TEXT PRIMARY KEY COLLATE NOCASE, v INT);
    CREATE TABLE r (a TEXT, b INT, UNIQUE (b) ON CONFLICT REPLACE);
    CREATE TABLE q (id INTEGER PRIMARY KEY, act INT, g INT);
    CREATE UNIQUE INDEX q1 ON q (g) WHERE act = 1;
    CREATE TABLE e (id INTEGER PRIMARY KEY, s TEXT);
    CREATE UNIQUE INDEX e1 ON e (lower(s));
    CREATE TABLE b (x BLOB, y INT, z INT, PRIMARY KEY (x, y));
    CREATE TABLE \"o \"\"dd\" (\"a b\" TEXT, \"NEW\" INT, PRIMARY KEY (\"NEW\", \"a b\"));
    CREATE TRIGGER theirs BEFORE INSERT ON q WHEN NEW.g = 5 BEGIN
        DELETE FROM e WHERE id = NEW.id; INSERT INTO p VALUES (NEW.id, 'u' || NEW.g, -1); END;
    CREATE TRIGGER too AFTER DELETE ON p BEGIN INSERT INTO k VALUES (NULL, OLD.id); END;
    INSERT INTO k VALUES (NULL, 0); INSERT INTO b VALUES (NULL, 0, 0);
    INSERT INTO p VALUES (1, 'u1', 1), (2, NULL, 2);";

const DONE: &[&str] = &[
    "INSERT OR REPLACE INTO p VALUES ({a}, 'u{b}', {c})",
    "INSERT INTO p (u, v) VALUES ('u{a}', {b}) ON CONFLICT (u) DO UPDATE SET v = excluded.v, id = id + 20",
    "INSERT INTO p (u, v) VALUES ('u{a}', {b}) ON CONFLICT DO NOTHING",
    "UPDATE OR REPLACE p SET u = 'u{a}' WHERE id = {b}",
    "UPDATE OR REPLACE p SET id = {a}, v = v + 1 WHERE id = {b}",
    "DELETE FROM p WHERE id = {a}",
    "REPLACE INTO c (p, n, t, w) VALUES ({a}, {b}, 't{c}', NULL)",
    "REPLACE INTO c VALUES ({a}, {b}, 't', 'w{c}')",
    "UPDATE OR REPLACE c SET w = NULL WHERE n = {a}",
    "UPDATE OR REPLACE c SET n = n + 1 WHERE p = {a}",
    "UPDATE OR IGNORE c SET p = {a} WHERE p = {b}",
    "INSERT OR REPLACE INTO k VALUES ('key{a}', {b})",
    "INSERT OR REPLACE INTO k VALUES ('KEY{a}', {b})",
    "UPDATE OR REPLACE k SET k = upper(k) WHERE v = {a}",
    "UPDATE k SET k = NULL WHERE v = {a}",
    "UPDATE OR REPLACE k SET k = 'Key' || v WHERE k IS NULL",
    "DELETE FROM k WHERE v = {a}",
    "INSERT INTO r VALUES ('r{a}', {b})",
    "UPDATE r SET b = {a} WHERE b = {b}",
    "DELETE FROM r WHERE b = {a}",
    "REPLACE INTO q VALUES ({a}, {b} % 2, {c})",
    "UPDATE OR REPLACE q SET act = 1 WHERE id = {a}",
    "UPDATE OR REPLACE q SET g = {a} WHERE g = {b}",
    "INSERT OR REPLACE INTO e VALUES ({a}, 'S{b}')",
    "INSERT OR REPLACE INTO e VALUES ({a}, 's{b}')",
    "INSERT OR REPLACE INTO b VALUES (x'0{a}', {b}, {c})",
    "INSERT INTO b VALUES (NULL, {a}, {b})",
    "UPDATE OR REPLACE b SET y = {a} WHERE y = {b}",
    "UPDATE b SET x = NULL WHERE y = {a}",
    "DELETE FROM b WHERE y = {a}",
    "REPLACE INTO \"o \"\"dd\" VALUES ('{a}', {b})",
    "UPDATE OR REPLACE \"o \"\"dd\" SET \"a b\" = '{a}', \"NEW\" = {b} WHERE \"NEW\" = {c}",
];

/// Each table's lines, as both sides write them.
async fn is_same(this: &File, seed: u64, round: usize) {
    let tables: [(&str, &[&str]); 8] = [
        ("p", &["id", "u", "v"]),
        ("c", &["p", "n", "t", "w"]),
        ("k", &["k", "v"]),
        ("r", &["a", "b"]),
        ("q", &["id", "act", "g"]),
        ("e", &["id", "s"]),
        ("b", &["x", "y", "z"]),
        ("o \"dd", &["a b", "NEW"]),
    ];
    for (table, columns) in tables {
        let place = format!("\"{}\"", table.replace('"', "\"\""));
        let line =
            |of: &dyn Fn(&str) -> String| columns.iter().map(|one| of(one)).collect::<Vec<_>>().join(" || '|' || ");
        let here = line(&|one| match one {
            "x" => "CASE WHEN x IS NULL THEN '~' ELSE lower(hex(x)) END".to_owned(),
            _ => format!("coalesce(CAST(\"{one}\" AS TEXT), '~')"),
        });
        let there = line(&|one| match one {
            "x" => "coalesce(encode(x, 'hex'), '~')".to_owned(),
            _ => format!("coalesce(\"{one}\"::text, '~')"),
        });
        let here = this.in_file(&format!(
            "SELECT coalesce(group_concat(line, ';'), '') FROM (SELECT {here} AS line FROM {place} ORDER BY line)"
        ));
        let sql = format!(
            "SELECT coalesce(string_agg(line, ';' ORDER BY line COLLATE \"C\"), '') FROM (SELECT {there} AS line FROM health.{place}) AS all_"
        );
        assert_eq!(here, this.bench.value(&sql).await, "table {table} after round {round} of seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_the_file_is_noted() {
    let seed = std::env::var("DIRTY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(now.as_micros()).unwrap_or(1)
    });
    println!("DIRTY_SEED={seed}");
    let mut state = seed | 1;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let this = File::new(ALL).await;
    this.done(&noting("\"null-in-key\", \"indexes\", \"defaults\", \"orphans\", ")).await;
    let connection = this.open();
    let (mut noted, mut done) = (0, 0);
    for round in 0..20 {
        connection.pragma_update(None, "foreign_keys", round % 2 == 0).unwrap();
        connection.pragma_update(None, "recursive_triggers", round % 5 == 4).unwrap();
        for _ in 0..22 {
            let sql = DONE[usize::try_from(next(DONE.len() as u64)).unwrap()];
            let sql =
                ["{a}", "{b}", "{c}"].iter().fold(sql.to_owned(), |sql, one| sql.replace(one, &next(8).to_string()));
            // Some are refused by a constraint; what they noted is taken back with them.
            done += usize::from(connection.execute_batch(&sql).is_ok());
        }
        let synced = followed(&this).await;
        assert_eq!(synced["all_rows_because"], Value::Null, "seed {seed}, round {round}: {synced}");
        noted += synced["noted"]["keys"].as_u64().unwrap_or(0);
        is_same(&this, seed, round).await;
        assert_eq!(this.in_file("SELECT count(*) FROM _pgrunbook_dirty"), "0", "what was shipped is forgotten");
    }
    assert!(done > 200 && noted > 100, "{done} statements, {noted} keys: too little for a test");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_shipped_and_not_forgotten_is_repeated_and_changes_nothing() {
    let this = File::new(LEGACY).await;
    this.done(&noting("")).await;
    let holder = this.open();
    holder.execute_batch("UPDATE visit SET what = 'seen' WHERE id = 5; DELETE FROM note WHERE visit = 6").unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let synced = followed(&this).await;
    assert_eq!(synced["rows_inserted"], 2, "one, and what a trigger wrote: {synced}");
    holder.execute_batch("COMMIT").unwrap();
    this.is_equal().await;
    let left = this.in_file("SELECT count(*) FROM _pgrunbook_dirty");
    assert_ne!(left, "0", "as after a crash between the two");
    // Notes go on behind them.
    holder.execute_batch("UPDATE visit SET what = 'later' WHERE id = 7").unwrap();
    let synced = followed(&this).await;
    assert_eq!((&synced["rows_deleted"], &synced["rows_inserted"]), (&Value::from(1), &Value::from(1)), "{synced}");
    assert_eq!(synced["all_rows_because"], Value::Null, "{synced}");
    assert!(synced["noted"]["keys"].as_u64() > Some(1), "{synced}");
    assert_eq!(this.in_file("SELECT count(*) FROM _pgrunbook_dirty"), "0");
    this.is_equal().await;
    let synced = followed(&this).await;
    assert_eq!(synced["noted"]["notes"], 0, "{synced}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_ends_in_a_look_at_all_rows() {
    let this = File::new(&LEGACY.replace("wal", "delete")).await;
    this.done(&noting("")).await;
    let change = |sql: &str| this.open().execute_batch(sql).unwrap();
    let because = async |what: &str| {
        let synced = followed(&this).await;
        let why = synced["all_rows_because"].as_str().unwrap_or_default().to_owned();
        assert!(why.contains(what), "{what} is not why: {synced}");
        this.is_equal().await;
        assert_eq!(followed(&this).await["all_rows_because"], Value::Null, "then it is believed again");
    };
    change("DROP TRIGGER _pgrunbook_dirty_3_au; UPDATE visit SET what = 'unseen'; UPDATE note SET body = 'unseen'");
    because("not those that were set").await;
    assert_eq!(this.in_file("SELECT count(*) FROM sqlite_schema WHERE name = '_pgrunbook_dirty_3_au'"), "1");
    change("VACUUM");
    because("vacuumed").await;
    change("DROP TABLE _pgrunbook_dirty_head; DROP TABLE _pgrunbook_dirty");
    // Until they are set again the application cannot write: that is why they are ours to take away.
    assert!(this.open().execute_batch("UPDATE visit SET what = 'no'").is_err());
    because("not those that were set").await;

    std::fs::copy(this.path(), this.bench.path("kept.db")).unwrap();
    change("UPDATE visit SET what = 'lost again' WHERE id = 9");
    followed(&this).await;
    std::fs::copy(this.bench.path("kept.db"), this.path()).unwrap();
    change("UPDATE visit SET what = 'after' WHERE id = 10");
    because("earlier state").await;
    assert_eq!(this.bench.value("SELECT what FROM health.visit WHERE id = 9").await, "unseen");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_dirty_keys_it_goes_there_and_back_and_there_again_under_writers() {
    let this = File::new(LEGACY).await;
    let before = declared(&this);
    let writer = Writer::start(this.path());
    writer.has_written(20);
    this.done(&noting("")).await;
    assert_ne!(ours(&this), "0");
    writer.has_written(50);
    this.done(FOLLOW).await;
    writer.has_written(50);
    let run = this.done(&cross("go", "")).await;
    let (known, _) = writer.refused();
    assert_eq!(shown(&known), this.bench.value(WRITTEN).await, "every accepted write is there, and no other");
    this.is_equal().await;
    assert_eq!(ours(&this), "0", "a fenced file needs no notes");
    let facts = this.bench.evidence(&run, "go").await.facts["health"].clone();
    let proof = &facts["parity"]["proof"];
    assert!(proof["by"].as_str().unwrap().contains("whose key was noted"), "{facts}");
    assert!(proof["rows_compared_before"].as_u64() > Some(600), "{facts}");
    assert_eq!(facts["last_sync"]["all_rows_because"], Value::Null, "{facts}");
    let visits = this.bench.value("SELECT count(*) FROM health.visit").await;
    assert_eq!(facts["parity"]["tables"][3]["rows"].to_string(), visits, "sums are kept up: {facts}");

    this.bench
        .execute(
            "UPDATE health.visit SET what = 'other' WHERE id < 20; DELETE FROM health.note WHERE visit = 3;
             UPDATE health.note SET n = 9 WHERE visit = 4; DELETE FROM health.heard WHERE who IS NULL",
        )
        .await;
    let run = this.done(&cross("back", "to = \"source\"\n")).await;
    this.is_equal().await;
    let facts = this.bench.evidence(&run, "back").await.facts["health"].clone();
    assert!(facts["parity"]["proof"]["rows_compared_before"].as_u64() > Some(600), "{facts}");
    assert_eq!(this.in_file("SELECT count(*) FROM heard WHERE who IS NULL"), "0");

    let writer = Writer::start(this.path());
    writer.has_written(20);
    let synced = followed(&this).await;
    assert!(synced["all_rows_because"].as_str().unwrap().contains("not there"), "{synced}");
    writer.has_written(20);
    let run = this.done(&cross("again", "")).await;
    let (known, _) = writer.refused();
    for (id, what) in &known {
        assert_eq!(&this.bench.value(&format!("SELECT what FROM health.visit WHERE id = {id}")).await, what);
    }
    this.is_equal().await;
    let facts = this.bench.evidence(&run, "again").await.facts["health"].clone();
    assert!(facts["parity"]["proof"]["by"].as_str().unwrap().contains("whose key was noted"), "{facts}");
    let workplace = this.bench.opened().await.workplace;
    complete(&workplace, "main", "health", "test", &Cancel::default(), Source::There).await.unwrap();
    assert_eq!(ours(&this), "0");
    // The fence alone stays, by design; without it the file is what it was.
    let connection = this.open();
    let fence = "SELECT group_concat('DROP ' || type || ' ' || name, ';') FROM (SELECT * FROM sqlite_schema WHERE name LIKE '\\_pgrunbook%' ESCAPE '\\' ORDER BY type DESC)";
    connection.execute_batch(&this.in_file(fence)).unwrap();
    // Who wrote back took a trigger out for a moment: it stands elsewhere in the list.
    let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&declared(&this)), sorted(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_transfer_leaves_the_file_as_it_was() {
    let this = File::new(LEGACY).await;
    let before = declared(&this);
    this.done(&noting("")).await;
    assert_eq!(ours(&this), "14", "two tables, and three triggers on each of four");
    this.open().execute_batch("UPDATE visit SET what = 'noted'").unwrap();
    let workplace = this.bench.opened().await.workplace;
    abandon(&workplace, "main", "health", "test", &Cancel::default()).await.unwrap();
    assert_eq!(declared(&this), before);
    this.open().execute_batch("UPDATE visit SET what = 'goes on'").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_noted_is_found_before_the_freeze_and_notes_are_not_believed() {
    let this = File::new(LEGACY).await;
    this.done(&noting("")).await;
    let silent = this.open();
    silent.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    silent.execute_batch("UPDATE visit SET what = 'unseen' WHERE id IN (3, 4)").unwrap();
    let synced = followed(&this).await;
    assert_eq!(synced["noted"]["notes"], 0, "{synced}");
    let run = this.done(&cross("go", "")).await;
    this.is_equal().await;
    assert_eq!(this.bench.value("SELECT what FROM health.visit WHERE id = 3").await, "unseen");
    let facts = this.bench.evidence(&run, "go").await.facts["health"].clone();
    let why = facts["compared_before"]["not_believed"].as_str().unwrap();
    assert!(why.contains("rows of visit changed"), "{facts}");
    assert!(facts["parity"]["proof"]["by"].as_str().unwrap().contains("write lock"), "{facts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_file_that_somebody_else_wrote_to_is_not_opened() {
    let this = File::new(LEGACY).await;
    this.done(&load("")).await;
    this.done(&cross("go", "")).await;
    this.bench.execute("UPDATE health.visit SET what = 'theirs' WHERE id = 1").await;
    let trespasser = this.open();
    trespasser.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    trespasser.execute_batch("UPDATE visit SET what = 'trespass' WHERE id = 50").unwrap();
    let (_, end) = this.bench.run(&format!("{HEADER}{}", cross("back", "to = \"source\"\n"))).await;
    let (_, code, message) = failure(&end);
    assert_eq!(code, "parity", "{message}");
    assert!(message.contains("visit: 1 rows of the file alone, 1 of the target alone"), "{message}");
    this.bench.execute("UPDATE health.visit SET what = 'trespass' WHERE id = 50").await;
    trespasser.execute_batch("UPDATE visit SET what = 'visit 50' WHERE id = 50").unwrap();
    this.bench.execute("UPDATE health.visit SET what = 'visit 50' WHERE id = 50").await;
    let run = this.done(&cross("later", "to = \"source\"\n")).await;
    this.is_equal().await;
    let facts = this.bench.evidence(&run, "later").await.facts["health"].clone();
    assert_eq!(facts["parity"]["differences"], 0, "{facts}");
}
