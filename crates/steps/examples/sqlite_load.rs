//! The way of a SQLite file into PostgreSQL without a runbook: for `bench/sqlite`.
//!
//! `sqlite_load generate FILE ROWS JOURNAL` writes the benchmark's file, `sqlite_load load FILE URL SCHEMA` carries it over and
//! prints how long each part took, `sqlite_load floats FILE URL SCHEMA` compares every double bit for bit.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for one machine's measurements")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrunbook_engine::Cancel;
use pgrunbook_postgres::{ConnectOptions, ConnectSpec, Session, Surroundings};
use pgrunbook_steps::transfer::sqlite::{Choices, How, load, preflight_with_image};

/// Seconds in which a writer must have let go of the file.
const BUDGET: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["generate", file, rows, journal] => generate(Path::new(file), rows.parse().unwrap(), journal),
        ["load", file, url, schema] => carry(Path::new(file), url, schema).await,
        ["floats", file, url, schema] => floats(Path::new(file), url, schema).await,
        _ => println!("sqlite_load generate FILE ROWS JOURNAL | load FILE URL SCHEMA | floats FILE URL SCHEMA"),
    }
}

fn options(url: &str) -> ConnectOptions {
    let nothing = |_: &str| None;
    let surroundings = Surroundings { env: &nothing, home: None, user: None };
    let spec = ConnectSpec::Given { text: url.to_owned(), origin: "the command line".to_owned() };
    ConnectOptions::resolve(&spec, &surroundings).unwrap()
}

/// Two tables of so many rows, one wide and one with a key of two columns, and long notes for one row in twenty.
fn generate(file: &Path, rows: u64, journal: &str) {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = off; PRAGMA synchronous = off;
             CREATE TABLE items (
                 id INTEGER PRIMARY KEY, uid TEXT NOT NULL, title TEXT NOT NULL, kind TEXT NOT NULL, path TEXT NOT NULL,
                 size INTEGER NOT NULL, score REAL, duration REAL, rating REAL, created_at TEXT NOT NULL,
                 updated_at TEXT, is_read INTEGER NOT NULL DEFAULT 0, note TEXT);
             CREATE TABLE item_tags (
                 item_id INTEGER NOT NULL, tag TEXT NOT NULL, weight REAL, PRIMARY KEY (item_id, tag));
             CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, item_id INTEGER NOT NULL, body TEXT NOT NULL);
             BEGIN",
        )
        .unwrap();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    {
        let mut items = connection.prepare("INSERT INTO items VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)").unwrap();
        let mut tags = connection.prepare("INSERT INTO item_tags VALUES (?,?,?)").unwrap();
        let mut notes = connection.prepare("INSERT INTO notes VALUES (NULL,?,?)").unwrap();
        for id in 1..=i64::try_from(rows).unwrap() {
            let bits = random();
            let share = |shift: u32| (bits >> shift) as u32 as f64 / 7.0;
            let at = format!("2024-{:02}-{:02} {:02}:{:02}:00", bits % 12 + 1, bits % 28 + 1, bits % 24, bits % 60);
            items
                .execute(rusqlite::params![
                    id,
                    format!("{bits:016x}{id:016x}"),
                    format!("Item {id} — of {}", bits % 1000),
                    ["article", "video", "audio", "image"][(bits % 4) as usize],
                    format!("/library/{}/{}/{id}.md", bits % 97, bits % 9_973),
                    (bits % 100_000_000) as i64,
                    share(0),
                    share(9).sqrt(),
                    (bits % 3 == 0).then(|| share(20) / 3e9),
                    at,
                    (bits % 2 == 0).then_some(&at),
                    (bits % 2) as i64,
                    (bits % 5 == 0).then_some("a short note of some words"),
                ])
                .unwrap();
            tags.execute(rusqlite::params![id, format!("tag-{}", bits % 500), share(3) / 1e5]).unwrap();
            if id % 20 == 0 {
                let body = format!("{bits:x} lorem ipsum dolor sit amet, ").repeat(60 + (bits % 40) as usize);
                notes.execute(rusqlite::params![id, body]).unwrap();
            }
        }
    }
    connection
        .execute_batch(
            "COMMIT; CREATE UNIQUE INDEX items_uid ON items (uid); CREATE INDEX notes_item ON notes (item_id)",
        )
        .unwrap();
    connection.query_row(&format!("PRAGMA journal_mode = {journal}"), [], |_| Ok(())).unwrap();
}

async fn carry(file: &Path, url: &str, schema: &str) {
    let begun = Instant::now();
    let (path, name) = (file.to_owned(), schema.to_owned());
    let folder = tempfile::tempdir_in(file.parent().unwrap()).unwrap();
    let place = folder.path().to_owned();
    let both = move || preflight_with_image(&path, &Choices::default(), &name, 2, &place, BUDGET);
    let (looked, image) = tokio::task::spawn_blocking(both).await.unwrap().unwrap();
    let looked_at = begun.elapsed();
    for finding in &looked.findings {
        println!("{} {}: {}", finding.severity.word(), finding.object, finding.what);
    }
    let (plan, image_took) = (Arc::new(looked.plan()), image.took);
    let image = Arc::new(image);
    let loaded = load(&options(url), schema, image, plan, &How::default(), &Cancel::default()).await.unwrap();
    println!(
        "preflight and image {:.2} image {:.2} copied {:.2} load {:.2} all {:.2} rss_mb {}",
        looked_at.as_secs_f64(),
        image_took.as_secs_f64(),
        loaded.copied.as_secs_f64(),
        loaded.took.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        most_memory_mb(),
    );
}

/// The most that this process ever held.
fn most_memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Compares REAL columns by their bits, and counts what differs.
async fn floats(file: &Path, url: &str, schema: &str) {
    let session = Session::connect(&options(url), "sqlite_load").await.unwrap();
    let connection = rusqlite::Connection::open(file).unwrap();
    for (table, key, columns) in
        [("items", "id", &["score", "duration", "rating"][..]), ("item_tags", "item_id", &["weight"])]
    {
        let list = columns.join(", ");
        let sent: Vec<String> =
            columns.iter().map(|name| format!("{name}::float8 AS {name}, pg_typeof({name})::text")).collect();
        let sql = format!("SELECT {} FROM {schema}.{table} ORDER BY {key}", sent.join(", "));
        let mut statement = connection.prepare(&format!("SELECT {list} FROM {table} ORDER BY {key}")).unwrap();
        let mut rows = statement.query([]).unwrap();
        let (mut differ, mut values) = (0_u64, 0_u64);
        let stream = session.client().query_raw(&sql, std::iter::empty::<&str>()).await.unwrap();
        let mut stream = std::pin::pin!(stream);
        while let Some(there) = futures_util::StreamExt::next(&mut stream).await {
            let there = there.unwrap();
            let here = rows.next().unwrap().unwrap();
            for at in 0..columns.len() {
                let here: Option<f64> = here.get(at).unwrap();
                let there: Option<f64> = there.get(at * 2);
                values += u64::from(here.is_some());
                differ += u64::from(here.map(f64::to_bits) != there.map(f64::to_bits));
            }
        }
        assert!(rows.next().unwrap().is_none(), "rows are missing in {table}");
        println!("{table}: {differ} of {values} doubles differ");
    }
}
